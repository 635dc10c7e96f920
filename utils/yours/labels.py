"""Chapter 32 on your own SAE: rules for its latents, scored, beside a stranger's rules.

    mine = label_mine("my_sae", model)              a folder in sae_lens' format
    mine.labels[17].rule, mine.labels[17].near      one latent's label and its score
    label_mine("my_sae", model, service=Service("http://127.0.0.1:8000/v1", "a-model", replies=Path("my_replies.jsonl")))
                                                    and labels of a language model of yours for some of them, on the same scale
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import plotly.graph_objects as go
import torch
from jaxtyping import Bool
from torch import Tensor
from tqdm.auto import tqdm
from transformer_lens.model_bridge import TransformerBridge

from utils.intervals import Estimate, bootstrap
from utils.plots import GREY, PALETTE, error_bars
from utils.reading.features import FeatureError
from utils.reading.labels.examples import as_texts, detection_examples
from utils.reading.labels.label import WEAK, Scored
from utils.reading.labels.language import Lexicon, lexicon_of, run
from utils.reading.labels.llm import Service, ServiceError, explained, judged
from utils.reading.labels.places import Places, halves, neighbours_of
from utils.reading.labels.scoring import NEAR
from utils.reading.labels.search import FEW_FIRINGS, find_rules
from utils.reading.labels.shipped import with_scores
from utils.sae.model import AnySAE
from utils.yours.browse import browse

_ENOUGH = 20
"""Scored labels, for a mean over them to mean anything."""


@dataclass(frozen=True)
class Asked:
    """What a language model made of some latents, beside their rules on the same examples: ten a latent, half of them near silent places.

    Attributes:
        written: its labels, by latent.
        scores: {latent: (balanced accuracy of its label as it judges it, that of the rule)}, where label and verdicts could be read.
        unread: latents whose label or whose verdicts it did not give in a form that can be read.
        trouble: why the service stopped answering, or "". What it had answered is kept in its file.
    """

    written: dict[int, str]
    scores: dict[int, tuple[float, float]]
    unread: int
    trouble: str = ""

    @property
    def verdict(self) -> str:
        """The two scores, or why there are none."""
        said = f"The language model stopped: {self.trouble} " if self.trouble else ""
        if len(self.scores) < 2:
            return f"{said}The language model's labels have no score: {len(self.scores)} could be judged, {self.unread} latents got no label or no verdict that can be read."
        theirs, rules = (_mean(list(each), 0) for each in zip(*self.scores.values()))
        return (f"{said}On {len(self.scores)} latents with ten examples each the language model's labels, as it judges them, have {theirs}, the rules {rules}; "
                f"{self.unread} latents got no label or no verdict that can be read.")


@dataclass(frozen=True)
class LabelsOfMine:
    """Labels of an SAE, and what they are worth.

    Attributes:
        labels: by latent, each with its scores.
        random, near, floor: mean balanced accuracy against random silence, against near silence, and of strangers' labels against the latter.
        asked: what a language model said; None when none was asked.
    """

    labels: dict[int, Scored]
    random: Estimate
    near: Estimate
    floor: Estimate
    asked: Asked | None = None

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
                "evidence that the network has learned anything: label an SAE of the untrained network as well."
                + (f"\n{self.asked.verdict}" if self.asked else ""))

    def figure(self) -> go.Figure:
        """The three scores with their intervals."""
        names = ["own label,<br>random silence", "own label,<br>near silence", "a stranger's,<br>near silence"]
        found = [self.random, self.near, self.floor]
        fig = go.Figure(go.Bar(x=names, y=[e.value for e in found], marker_color=[PALETTE[5], PALETTE[0], PALETTE[4]], error_y=error_bars(found)))
        fig.add_hline(y=0.5, line={"dash": "dash", "color": GREY})
        return fig.update_layout(title=f"{self.headline}: {self.near.value:.2f} against {self.floor.value:.2f}", yaxis={"title": "balanced accuracy, chance 0.5", "range": [0.4, 1]},
                                 xaxis_title="whose label, and against which silent places")


def label_mine(source: str | Path | AnySAE, model: TransformerBridge | None = None, *, latents: int | None = None, texts: Sequence[str] | None = None, seed: int = 0,
               service: Service | None = None, ask: int = 20, progress: bool = True) -> LabelsOfMine:
    """Label an SAE by rules and score them.

    Args:
        source, model, texts: as `utils.yours.browse.browse` takes them.
        latents: how many of those that fire often enough, drawn by `seed`; None takes all.
        service: a language model to label and judge `ask` of the scored latents, drawn by `seed`. What it has answered is kept in its file.

    Raises: FeatureError when too few latents have a score; as `browse` does.
    """
    opened = browse(source, model, texts=texts, progress=progress)
    reading, testing = halves(opened.stats)
    lexicon, near = lexicon_of(opened.model), neighbours_of(opened.stats)
    labels = with_scores(find_rules(reading, lexicon, near, latents=_drawn(reading, latents, seed), progress=progress), testing, near, lexicon)
    scored = [label for label in labels.values() if label.near is not None and label.floor is not None]
    if len(scored) < _ENOUGH:
        raise FeatureError(f"{len(scored)} labels could be scored: at least {_ENOUGH} are needed. Give more text.")
    asked = None if service is None else _ask(service, opened.model, reading, testing, near, {i: label for i, label in labels.items() if label.near is not None}, lexicon, ask, seed)
    return LabelsOfMine(labels, *(_mean([getattr(label, name) for label in scored], seed) for name in ("random", "near", "floor")), asked)


def _ask(service: Service, model: TransformerBridge, reading: Places, testing: Places, near: np.ndarray, labels: dict[int, Scored], lexicon: Lexicon, n: int, seed: int) -> Asked:
    """Let a language model label and judge n latents; the rules are run at the places that it judges."""
    written, scores, unread = {}, {}, 0
    for latent in tqdm(np.random.default_rng(seed).permutation(sorted(labels))[:n].tolist(), desc="asking", unit="latent"):
        try:
            examples = detection_examples(testing, latent, near, negatives=NEAR, n=10, seed=seed)
        except ValueError:
            continue    # too few near silent places
        try:
            label = explained(service, as_texts(model, reading.tokens, reading.of(latent).nonzero()[:6], mark=True))
            verdicts = judged(service, label, as_texts(model, testing.tokens, examples.where, mark=False)) if label else None
        except ServiceError as error:
            return Asked(written, scores, unread, str(error))
        if label:
            written[latent] = label
        if verdicts is None:
            unread += 1
            continue
        rule = run(labels[latent].rule, testing.tokens, lexicon)[tuple(examples.where.T)]
        scores[latent] = tuple(_balanced(said, examples.fires) for said in (torch.tensor(verdicts), rule))
    return Asked(written, scores, unread)


def _balanced(said: Bool[Tensor, " n"], fires: Bool[Tensor, " n"]) -> float:
    """Balanced accuracy on examples of both kinds."""
    return float((said[fires].float().mean() + (~said[~fires]).float().mean()) / 2)


def _drawn(reading: Places, n: int | None, seed: int) -> list[int] | None:
    """Some of the latents that fire often enough."""
    often = (reading.counts >= FEW_FIRINGS).nonzero()[0]
    return None if n is None else np.random.default_rng(seed).permutation(often)[:n].tolist()


def _mean(values: list[float], seed: int) -> Estimate:
    """A mean over latents with its interval."""
    return bootstrap(lambda s: s[0] / s[1], torch.tensor(values), torch.ones(len(values)), seed=seed)
