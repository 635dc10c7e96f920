"""Chapter 32 on your own SAE: rules for its latents, scored, beside a stranger's rules.

    mine = label_mine("my_sae", model)              a folder in sae_lens' format
    mine.labels[17].rule, mine.labels[17].near      one latent's label and its score
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import plotly.graph_objects as go
import scipy.sparse
import torch
from transformer_lens.model_bridge import TransformerBridge

from utils.intervals import Estimate, bootstrap
from utils.plots import GREY, PALETTE, error_bars
from utils.reading.features import FeatureError
from utils.reading.labels.language import lexicon_of
from utils.reading.labels.places import Places, halves, neighbours_of
from utils.reading.labels.search import FEW_FIRINGS, find_rules
from utils.reading.labels.shipped import WEAK, Scored, with_scores
from utils.sae.model import AnySAE
from utils.yours.browse import browse

_ENOUGH = 20
"""Scored labels, for a mean over them to mean anything."""


@dataclass(frozen=True)
class LabelsOfMine:
    """Labels of an SAE, and what they are worth.

    Attributes:
        labels: by latent, each with its scores.
        random, near, floor: mean balanced accuracy against random silence, against near silence, and of strangers' labels against the latter.
    """

    labels: dict[int, Scored]
    random: Estimate
    near: Estimate
    floor: Estimate

    @property
    def headline(self) -> str:
        """The verdict in a few words."""
        return "The labels say no more than a stranger's" if self.near.low <= self.floor.high else "The labels say more than a stranger's"

    @property
    def verdict(self) -> str:
        """What was found, beside what."""
        weak = sum(label.weak for label in self.labels.values()) / len(self.labels)
        return (f"{self.headline}. {len(self.labels):,} latents labelled. Balanced accuracy on contexts not read: {self.random} against random silence, {self.near} against "
                f"near silence, strangers' labels {self.floor}. {weak:.0%} of the labels are weak (below {WEAK}). A high score is a good description of a latent; it is no "
                "evidence that the network has learned anything: label an SAE of the untrained network as well.")

    def figure(self) -> go.Figure:
        """The three scores with their intervals."""
        names = ["own label,<br>random silence", "own label,<br>near silence", "a stranger's,<br>near silence"]
        found = [self.random, self.near, self.floor]
        fig = go.Figure(go.Bar(x=names, y=[e.value for e in found], marker_color=[PALETTE[5], PALETTE[0], PALETTE[4]], error_y=error_bars(found)))
        fig.add_hline(y=0.5, line={"dash": "dash", "color": GREY}, annotation_text="chance")
        return fig.update_layout(title=f"{self.headline}: {self.near.value:.2f} against {self.floor.value:.2f}", yaxis={"title": "balanced accuracy, 95% interval", "range": [0.4, 1]},
                                 xaxis_title="whose label, and against which silent places")


def label_mine(source: str | Path | AnySAE, model: TransformerBridge | None = None, *, latents: int | None = None, texts: Sequence[str] | None = None, seed: int = 0,
               progress: bool = True) -> LabelsOfMine:
    """Label an SAE by rules and score them.

    Args:
        source, model, texts: as `utils.yours.browse.browse` takes them.
        latents: how many of those that fire often enough, drawn by `seed`; None takes all.

    Raises: FeatureError when too few latents have a score; as `browse` does.
    """
    opened = browse(source, model, texts=texts, progress=progress)
    reading, testing = halves(opened.stats)
    if latents is not None:
        reading = _drawn(reading, latents, seed)
    lexicon = lexicon_of(opened.model)
    labels = with_scores(find_rules(reading, lexicon, progress=progress), testing, neighbours_of(opened.stats), lexicon)
    scored = [label for label in labels.values() if label.near is not None and label.floor is not None]
    if len(scored) < _ENOUGH:
        raise FeatureError(f"{len(scored)} labels could be scored: at least {_ENOUGH} are needed. Give more text.")
    return LabelsOfMine(labels, *(_mean([getattr(label, name) for label in scored], seed) for name in ("random", "near", "floor")))


def _drawn(reading: Places, n: int, seed: int) -> Places:
    """The same places with the firings of some latents only."""
    often = (reading.counts >= FEW_FIRINGS).nonzero()[0]
    kept = np.random.default_rng(seed).permutation(often)[:n]
    rows = np.isin(np.repeat(np.arange(reading.d_sae), reading.counts), kept)
    fires = scipy.sparse.csr_array((rows.astype(np.int32), reading.fires.indices, reading.fires.indptr), shape=reading.fires.shape, copy=True)
    fires.eliminate_zeros()
    return replace(reading, fires=fires)


def _mean(values: list[float], seed: int) -> Estimate:
    """A mean over latents with its interval."""
    return bootstrap(lambda s: s[0] / s[1], torch.tensor(values), torch.ones(len(values)), seed=seed)
