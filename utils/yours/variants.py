"""Chapters 22 and 25 on a world of your own: which way to be sparse finds what was planted in it?

You choose how many features there are, how crowded their space is, how often each is there and whether they come in
pairs. The variants are those that you wrote, each a `utils.sae.contest.Variant` with the settings to try.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import cycle

import plotly.graph_objects as go
import torch
from jaxtyping import Float
from torch import Tensor

from utils.intervals import Estimate, mean_over
from utils.plots import GREY, PALETTE
from utils.sae.contest import Run, Variant, contest, nearest_in_l0, random_start
from utils.worlds.planted import planted, recovered

MOST_FEATURES = 200
_DRAWS = 20
COLORS = {"TopK": PALETTE[0], "ReLU + L1": PALETTE[1]}
"""The two that stand in every comparison look alike in every figure."""


class WorldError(ValueError):
    """No contest can be held in such a world. The message says what to change."""


@dataclass(frozen=True)
class RecoveryReport:
    """What each variant found of the planted directions.

    Attributes:
        runs: by (variant, setting).
        n_features: what there was to find. true_l0: features in a row, on average.
        random: directions hit by as many random rows as there are latents; one number per draw, the mean over worlds.
    """

    runs: dict[tuple[str, float], Run]
    n_features: int
    true_l0: float
    random: Float[Tensor, " draw"]

    @property
    def chosen(self) -> dict[str, float]:
        """For each variant, its setting nearest to the world's own L0. Knowing that one takes having made the world."""
        return nearest_in_l0(self.runs, self.true_l0)

    def found(self, name: str, setting: float) -> Estimate:
        """Directions recovered, with the interval over worlds."""
        return mean_over(self.runs[name, setting].recovered, 0, self.n_features)

    @property
    def order(self) -> list[str]:
        """The variants, the one that recovers most at the world's L0 first."""
        return sorted(self.chosen, key=lambda name: -self.found(name, self.chosen[name]).value)

    @property
    def headline(self) -> str:
        """The verdict in a few words."""
        best, *others = self.order
        if self.found(best, self.chosen[best]).low <= float(self.random.max()):
            return "Nothing that random directions would not have hit"
        if not others:
            return f"{best} finds more than random directions"
        ahead = self.runs[best, self.chosen[best]].recovered - self.runs[others[0], self.chosen[others[0]]].recovered
        if mean_over(ahead).low > 0:
            return f"{best} finds the most"
        return f"{best} and {others[0]} cannot be told apart"

    @property
    def verdict(self) -> str:
        """What was found, beside luck, and what explained variance would have advised."""
        best = self.order[0]
        table = "; ".join(f"{name} {_words(self.found(name, self.chosen[name]))}" for name in self.order)
        advised = max(self.runs, key=lambda run: float(self.runs[run].explained.mean()))
        return (f"{self.headline}. With the setting nearest to {self.true_l0:.2f} latents per row, of {self.n_features} directions: {table}. "
                f"Random rows hit {float(self.random.mean()):.1f}, at most {float(self.random.max()):.1f} in {len(self.random)} draws. "
                f"Explained variance would have chosen {advised[0]} at {advised[1]:g}, which recovers {_words(self.found(*advised))} with "
                f"{float(self.runs[advised].l0.mean()):.2f} latents per row. {best} was named after the contest: try another seed.")

    def figure(self) -> go.Figure:
        """Directions recovered against latents per row, beside the truth and random directions."""
        return recovery_figure(self.runs, self.n_features, self.true_l0, float(self.random.mean())).update_layout(title=self.headline)


def recover_planted(variants: dict[str, Variant], *, n_features: int, d_hidden: int, probability: float, correlation: float = 0.0,
                    n_latents: int | None = None, worlds: int = 8, steps: int = 1000, seed: int = 0) -> RecoveryReport:
    """Hold the contest of chapter 25 in a world of your own making.

    Args:
        variants: your variants by name.
        n_features, d_hidden: directions to plant, and the dimensions in which they have to share.
        probability: that a feature is in a row.
        correlation: of the presence of features 0 and 1, 2 and 3, ..., from 0 to 1.
        n_latents: of each SAE; None makes it twice the number of features.
        worlds: with directions, rows and an SAE of their own; at least 2, for an interval.
        steps: of training.

    Raises: WorldError for a contest without variants, or a world too small, too big or too empty to hold one.
    """
    n_latents = 2 * n_features if n_latents is None else n_latents
    if not variants:
        raise WorldError("no variants: pass at least one, as {\"TopK\": Variant(topk_loss, settings=(1, 2))}.")
    if not 2 <= n_features <= MOST_FEATURES or not 1 <= d_hidden <= n_features:
        raise WorldError(f"this takes 2 to {MOST_FEATURES} features in 1 to n_features dimensions, not {n_features} in {d_hidden}.")
    if not 0 < probability <= 1 or not 0 <= correlation <= 1:
        raise WorldError(f"probability must be above 0 and at most 1, correlation from 0 to 1; not {probability} and {correlation}.")
    if n_latents < 1 or worlds < 2 or steps < 1:
        raise WorldError(f"at least 1 latent, 2 worlds and 1 step are needed, not {n_latents}, {worlds} and {steps}.")
    for name, variant in variants.items():
        if not variant.settings:
            raise WorldError(f"{name} has no settings to try.")
        if isinstance(largest := max(variant.settings), int) and largest > n_latents:
            raise WorldError(f"{name} may keep {largest} latents, and there are only {n_latents}.")
    world = planted(n_features, d_hidden, probability, worlds=worlds, correlation=correlation, seed=seed)
    runs = contest(variants, world, random_start(world, n_latents, seed), steps=steps, seed=seed)
    random = torch.stack([recovered(random_start(world, n_latents, seed=seed + 1 + draw)["W_dec"], world.truth).mean() for draw in range(_DRAWS)])
    return RecoveryReport(runs, n_features, world.l0, random)


def variant_colors(names: Iterable[str]) -> dict[str, str]:
    """A colour for each variant; those outside COLORS take what is left of the palette, in their order."""
    rest = cycle(color for color in PALETTE if color not in COLORS.values())
    return {name: COLORS.get(name) or next(rest) for name in dict.fromkeys(names)}


def recovery_figure(runs: dict[tuple[str, float], Run], n_features: int, true_l0: float, random: float) -> go.Figure:
    """Directions recovered against latents per row: one line per variant, with intervals over worlds."""
    fig = go.Figure()
    for name, color in variant_colors(name for name, _ in runs).items():
        mine = sorted((run for (other, _), run in runs.items() if other == name), key=lambda run: float(run.l0.mean()))
        found = [mean_over(run.recovered, 0, n_features) for run in mine]
        fig.add_scatter(x=[float(run.l0.mean()) for run in mine], y=[each.value for each in found], name=name, mode="lines+markers",
                        line={"color": color, "width": 2.5}, marker={"size": 8},
                        error_y={"array": [each.high - each.value for each in found], "arrayminus": [each.value - each.low for each in found]})
    fig.add_vline(x=true_l0, line={"dash": "dot", "color": GREY}, annotation_text="the world's own L0", annotation_position="top right")
    fig.add_hline(y=random, line={"dash": "dash", "color": GREY}, annotation_text="random directions", annotation_position="top left")
    return fig.update_layout(xaxis={"title": "latents on per row (L0), on fresh rows", "rangemode": "tozero"}, height=480,
                             yaxis={"title": f"planted directions recovered, of {n_features}", "range": [-0.02 * n_features, 1.12 * n_features]})


def _words(found: Estimate) -> str:
    return f"{found.value:.1f} [{found.low:.1f}, {found.high:.1f}]"
