"""Chapter 21 on a toy of your own: how many features survive in how few dimensions, and in which shapes they stand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import plotly.graph_objects as go
import torch
from jaxtyping import Float
from plotly.subplots import make_subplots
from torch import Tensor

from utils.intervals import Estimate, mean_over
from utils.plots import GREY, PALETTE
from utils.worlds.toy_models import features_worth, fresh_loss, train_toys

WRITTEN = 0.5
"""A feature counts as written when its squared length is above this."""


class ToyError(ValueError):
    """A toy that cannot be trained, or that would answer nothing. The message says what to change."""


@dataclass(frozen=True)
class ToyReport:
    """What the toys of one setting hold.

    Attributes:
        n_features, d_hidden, density: the setting.
        worth, worth_linear: features' worth of variance that the toys explain, with and without a ReLU; intervals over seeds.
        written: features with a squared length above WRITTEN, the mean over seeds.
        shares: of a dimension, for each written feature of all seeds: 1 alone, 1/2 in a pair, 2/5 in a pentagon.
    """

    n_features: int
    d_hidden: int
    density: float
    worth: Estimate
    worth_linear: Estimate
    written: float
    shares: Float[Tensor, " n_written"]

    @property
    def bound(self) -> int:
        """What a linear model can hold at most."""
        return min(self.d_hidden, self.n_features)

    @property
    def headline(self) -> str:
        """The verdict in a few words."""
        if self.d_hidden >= self.n_features:
            return "Room for all: nothing has to be shared"
        if self.worth.low > self.worth_linear.high:
            return "Superposition: more is held than there are dimensions"
        return "No superposition: it holds what a linear model holds"

    @property
    def verdict(self) -> str:
        """What was found, beside what, and in which shapes."""
        pairs = float(((self.shares - 0.5).abs() < 0.02).double().mean()) if len(self.shares) else 0.0
        alone = float((self.shares > 0.9).double().mean()) if len(self.shares) else 0.0
        return (f"{self.headline}. Of {self.n_features} features, each there {self.density:.1%} of the time, the toys hold {self.worth} "
                f"features' worth in {self.d_hidden} dimensions; without a ReLU it is {self.worth_linear}, and no linear model gets "
                f"past {self.bound}. On average {self.written:.1f} features are written; {alone:.0%} of these have a dimension "
                f"for themselves, {pairs:.0%} stand in opposite pairs.")

    def figure(self) -> go.Figure:
        """What is held beside the linear bound, and what each written feature has of a dimension."""
        fig = make_subplots(cols=2, horizontal_spacing=0.14, subplot_titles=("how much is held", "how it is shared"))
        found = (self.worth, self.worth_linear)
        fig.add_bar(x=["with ReLU", "without ReLU"], y=[each.value for each in found], marker_color=[PALETTE[0], PALETTE[1]], showlegend=False,
                    error_y={"array": [each.high - each.value for each in found], "arrayminus": [each.value - each.low for each in found]},
                    row=1, col=1)
        for y, text in ((self.bound, f"linear bound: {self.bound}"), (self.n_features, f"all {self.n_features}")):
            fig.add_hline(y=y, line={"dash": "dash", "color": GREY}, annotation_text=text, annotation_position="top right", row=1, col=1)
        fig.add_histogram(x=self.shares.tolist(), xbins={"start": 0, "end": 1.02, "size": 0.02}, marker_color=PALETTE[0], showlegend=False, row=1, col=2)
        fig.update_yaxes(title="features' worth of variance", range=[0, 1.15 * self.n_features], row=1, col=1)
        fig.update_xaxes(title="toys", row=1, col=1)
        fig.update_xaxes(title="dimensions that a written feature has for itself", range=[0, 1.05], row=1, col=2)
        fig.update_yaxes(title="features, all seeds", row=1, col=2)
        return fig.update_layout(title=f"{self.headline}: {self.worth.value:.1f} features' worth of {self.n_features}, in {self.d_hidden}",
                                 width=900, height=430, margin={"t": 90})


def toy_report(n_features: int, d_hidden: int, density: float, *, importance: float | Sequence[float] = 1.0, seeds: int = 6,
               steps: int = 1000, seed: int = 0, progress: bool = True) -> ToyReport:
    """Train toys of your own setting, with a ReLU and without, and say what survives.

    Args:
        n_features: how many features there are, from 2 to 400.
        d_hidden: into how many dimensions they are squeezed, at least 1.
        density: how often each feature is there, above 0 and at most 1.
        importance: the weight of each feature's error in training, above 0: one number for all, or one per feature. What is
            held is counted with all of them alike.
        seeds: toys per kind, at least 2; the intervals are over them.
        steps: of training, at least 100.

    Raises: ToyError for a setting outside these ranges.
    """
    weights = torch.as_tensor(importance, dtype=torch.float32)
    for what, holds in ((f"n_features is {n_features}: from 2 to 400", 2 <= n_features <= 400), (f"d_hidden is {d_hidden}: at least 1", d_hidden >= 1),
                        (f"density is {density}: above 0 and at most 1", 0 < density <= 1), (f"seeds is {seeds}: at least 2", seeds >= 2),
                        (f"steps is {steps}: at least 100", steps >= 100), ("importance holds a number that is not above 0", bool((weights > 0).all()))):
        if not holds:
            raise ToyError(f"{what}.")
    if weights.ndim > 1 or (weights.ndim == 1 and len(weights) != n_features):
        raise ToyError(f"importance is one number or {n_features} of them, not a list of {weights.numel()}.")
    chance, alike = torch.full((seeds, n_features), float(density)), torch.ones(seeds, n_features)
    found = {}
    for name, forward in (("relu", _relu_toy), ("linear", _linear_toy)):
        W, b = train_toys(forward, _weighted_error, chance, alike * weights, d_hidden, steps=steps, seed=seed, progress=progress)
        worth = features_worth(fresh_loss(forward, _weighted_error, W, b, chance, alike, seed=seed), chance[:, 0], n_features, seed=seed)
        found[name] = W, mean_over(worth, high=n_features)
    W, worth = found["relu"]
    kept = W.square().sum(dim=1) > WRITTEN
    return ToyReport(n_features, d_hidden, float(density), worth, found["linear"][1], float(kept.sum(dim=1).double().mean()), _shares(W)[kept])


def _linear_toy(x: Tensor, W: Tensor, b: Tensor) -> Tensor:
    return (x.transpose(0, 1) @ W.mT @ W).transpose(0, 1) + b


def _relu_toy(x: Tensor, W: Tensor, b: Tensor) -> Tensor:
    return torch.relu(_linear_toy(x, W, b))


def _weighted_error(x: Tensor, out: Tensor, importance: Tensor) -> Tensor:
    return (importance * (x - out) ** 2).sum(dim=-1).mean(dim=0)


def _shares(W: Float[Tensor, "n_instances d_hidden n_features"]) -> Float[Tensor, "n_instances n_features"]:
    """What each feature has of a dimension (Elhage et al. 2022): chapter 21's `feature_dimensionality`."""
    gram = W.mT @ W
    return gram.diagonal(dim1=1, dim2=2).square() / gram.square().sum(dim=-1).clamp(min=1e-12)
