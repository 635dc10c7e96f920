"""Chapter 13 on your own numbers: does the map hold in places of which the probe has seen nothing?

A ridge regression predicts the value of every text twice, out of fold: from a random split, in which relatives of a text
may stand in training, and with whole groups held out.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import plotly.graph_objects as go
import torch
from jaxtyping import Float, Int
from plotly.subplots import make_subplots
from sklearn.linear_model import Ridge
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from utils.activations import collect_activations
from utils.hooks import resid_post, resid_pre
from utils.intervals import Estimate
from utils.plots import GREY, PALETTE
from utils.probes import grouped_estimate, grouped_folds
from utils.yours.tables import TableError, Valued, read_values

MIN_ROWS, MIN_GROUPS = 20, 10
N_FOLDS = 5


@dataclass(frozen=True)
class NumberReport:
    """How well numbers are read; every score is an R² out of fold, with a 95% interval over groups.

    Attributes:
        layer: the block whose output is read.
        values: the truth.
        near: predictions from a random split. far: with whole groups held out; the same as `near` without groups.
        random, held_out: the scores of the two.
        words_held_out: that of the mean token embedding, groups held out.
        lost: random minus held out. beyond_words: held out minus that of the words. Both on the same rows.
        shuffled: the held-out score in each run with the values dealt out at random.
    """

    layer: int
    values: Float[Tensor, " n"]
    near: Float[Tensor, " n"]
    far: Float[Tensor, " n"]
    random: Estimate
    held_out: Estimate
    words_held_out: Estimate
    lost: Estimate
    beyond_words: Estimate
    shuffled: Float[np.ndarray, " n_shuffles"]
    grouped: bool

    @property
    def headline(self) -> str:
        """The verdict in a few words."""
        if self.random.low <= 0:
            return "Nothing that can be told from luck"
        if not self.grouped:
            return "Readable from relatives, and without groups nobody can say more"
        if self.held_out.low <= 0 or self.held_out.value <= self.shuffled.max():
            return "It knows relatives only: gone with the groups held out"
        if self.beyond_words.low <= 0:
            return "It carries over to new groups, and perhaps by the words alone"
        return "It carries over to new groups, beyond what the words give"

    @property
    def verdict(self) -> str:
        """What was found, beside what, and what it does not show."""
        said = [f"{self.headline}. In layer {self.layer} a random split explains {self.random} of the variance."]
        if self.grouped:
            said.append(f"With whole groups held out it is {self.held_out}, {self.lost} less; the words alone have {self.words_held_out}, "
                        f"and values dealt out at random reach at most {self.shuffled.max():.3f} in {len(self.shuffled)} runs.")
        else:
            said.append("Give every text a group (a country, an author, a decade): the next text that you care about will be from a new one.")
        said.append("What R² does not say: whether the order within a group is right, and whether the model uses any of this.")
        return " ".join(said)

    def figure(self) -> go.Figure:
        """Predicted against true values: the random split beside held-out groups, on the same axes."""
        parts = {f"random split: R² {self.random.value:.2f}": self.near, f"groups held out: R² {self.held_out.value:.2f}": self.far}
        fig = make_subplots(1, 2, subplot_titles=list(parts), shared_yaxes=True, horizontal_spacing=0.05)
        ends = [float(self.values.min()), float(self.values.max())]
        for column, predicted in enumerate(parts.values(), start=1):
            fig.add_scatter(x=self.values.tolist(), y=predicted.tolist(), mode="markers", row=1, col=column, showlegend=False,
                            marker={"size": 5, "opacity": 0.6, "color": PALETTE[column - 1]})
            fig.add_scatter(x=ends, y=ends, mode="lines", line={"dash": "dash", "color": GREY}, row=1, col=column,
                            name="a perfect reading", showlegend=column == 1)
        fig.update_xaxes(title_text="true value")
        fig.update_yaxes(title_text="value read, out of fold", col=1)
        return fig.update_layout(title=self.headline, width=900, legend={"x": 0.01, "y": 0.99})


def number_table(model: TransformerBridge, table: Valued, *, layer: int | None = None, position: str | int = "last",
                 alpha: float = 1.0, n_shuffles: int = 20, n_boot: int = 500, seed: int = 0, batch_size: int = 16) -> NumberReport:
    """Read your numbers out of a model by ridge regression: a random split against whole groups held out.

    Args:
        table: your texts, each with a number; see `utils.yours.tables`.
        layer: the block to read; None takes the middle one.
        position: the token that is read, as in `collect_activations`.
        alpha: the penalty of chapter 13's `ridge_fit`, on activations whose features vary by 1 on average.
        n_shuffles: runs with the values dealt out at random.
        n_boot: resamples of the intervals.
        seed: of the folds, the shuffles and the resamples.

    Raises: TableError for fewer than 20 texts or 10 groups; ValueError for a layer that the model does not have.
    """
    _require(table)
    layer = model.cfg.n_layers // 2 if layer is None else layer
    if not 0 <= layer < model.cfg.n_layers:
        raise ValueError(f"layer {layer}: this model has the blocks 0 to {model.cfg.n_layers - 1}.")
    groups, rows = table.groups, torch.arange(len(table))
    acts = collect_activations(model, table.texts, resid_post(layer), position=position, batch_size=batch_size)
    words = collect_activations(model, table.texts, resid_pre(0), position="mean", max_norm_ratio=None, batch_size=batch_size)
    near, far = (_out_of_fold(acts, table.values, split, alpha, seed) for split in (rows, groups))
    from_words = _out_of_fold(words, table.values, groups, alpha, seed)

    def score(predicted: Float[Tensor, " n"]):
        return lambda drawn: _r_squared(predicted[drawn], table.values[drawn])

    def estimate(statistic) -> Estimate:
        return grouped_estimate(statistic, groups, n_boot, seed)

    generator, shuffled = torch.Generator().manual_seed(seed), []
    for _ in range(n_shuffles):
        dealt = table.values[torch.randperm(len(rows), generator=generator)]
        shuffled.append(_r_squared(_out_of_fold(acts, dealt, groups, alpha, seed), dealt))
    return NumberReport(
        layer, table.values, near, far, estimate(score(near)), estimate(score(far)), estimate(score(from_words)),
        estimate(lambda drawn: score(near)(drawn) - score(far)(drawn)), estimate(lambda drawn: score(far)(drawn) - score(from_words)(drawn)),
        np.array(shuffled), grouped=len(groups.unique()) < len(groups))


def number_file(path: Path, name: str | None = None) -> int:
    """`python -m utils numbers`: print the verdict on a CSV file, and write its figure into the current folder.

    Returns: the exit status; 2 for a table or a model that will not do, with the reason on stderr.
    """
    from utils import models

    try:
        table = read_values(path)
        _require(table)
        report = number_table(models.load_model(*filter(None, [name])), table)
    except (TableError, models.ModelError) as error:
        print(error, file=sys.stderr)
        return 2
    drawn = Path(f"{path.stem}_numbers.html")
    report.figure().write_html(drawn)
    print(f"{report.verdict}\nThe figure is in {drawn}.")
    return 0


def _require(table: Valued) -> None:
    """Refuse a table that is too small to be split by group."""
    if len(table) < MIN_ROWS:
        raise TableError(f"{len(table)} rows: at least {MIN_ROWS} are needed, to fit on some and to score the others.")
    found = len(table.groups.unique())
    if found < MIN_GROUPS:
        raise TableError(f"{found} groups: at least {MIN_GROUPS} are needed, to hold some out and to see how much groups differ.")


def _out_of_fold(acts: Float[Tensor, "n d"], values: Float[Tensor, " n"], groups: Int[Tensor, " n"], alpha: float, seed: int) -> Float[Tensor, " n"]:
    """Every row predicted from a fit on rows of other groups."""
    out = torch.zeros_like(values)
    for rows, left_out in grouped_folds(groups, N_FOLDS, seed):
        unit = acts[rows].std(dim=0).mean()
        # scikit-learn penalises the sum of squared errors, chapter 13 their mean: hence len(rows).
        fitted = Ridge(alpha=alpha * len(rows)).fit((acts[rows] / unit).double().numpy(), values[rows].double().numpy())
        out[left_out] = torch.from_numpy(fitted.predict((acts[left_out] / unit).double().numpy())).to(out.dtype)
    return out


def _r_squared(predicted: Float[Tensor, " n"], truth: Float[Tensor, " n"]) -> float:
    """The share of the variance that the prediction explains; below 0 it is worse than the mean."""
    return float(1 - (predicted - truth).square().sum() / (truth - truth.mean()).square().sum())
