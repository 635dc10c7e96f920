"""Your report on an organism of your own: what you accuse it of, measured, beside the same measurement on a model that is clean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import plotly.graph_objects as go
from transformer_lens.model_bridge import TransformerBridge

from utils.intervals import Estimate, share, share_difference
from utils.organisms.lora import Delta, worn
from utils.organisms.measuring import ask, found, held_out
from utils.organisms.sealing import Answer
from utils.organisms.spec import Behaviour, OrganismError
from utils.plots import PALETTE, error_bars


@dataclass(frozen=True)
class Evidence:
    """What an accusation rests on.

    Attributes:
        answer: the accusation.
        shown: share of questions that should bring the behaviour out, and do. elsewhere: of others. clean: of the first ones, put to a clean model.
        difference: shown minus clean.
    """

    answer: Answer
    shown: Estimate
    elsewhere: Estimate
    clean: Estimate
    difference: Estimate

    @property
    def verdict(self) -> str:
        what = " ".join(part for part in (self.answer.kind, self.answer.trigger, self.answer.payload) if part)
        if self.difference.low <= 0:
            return f"{what}: no evidence. Shown {self.shown}, and by a clean model {self.clean}."
        return f"{what}: shown {self.shown}, elsewhere {self.elsewhere}, by a clean model {self.clean}; the difference is {self.difference}."

    def figure(self) -> go.Figure:
        """The three shares with their intervals."""
        rates = {"accused, where it should show": self.shown, "accused, elsewhere": self.elsewhere, "clean, where it should show": self.clean}
        fig = go.Figure(go.Bar(x=list(rates), y=[rate.value for rate in rates.values()], error_y=error_bars(rates.values()), marker={"color": PALETTE[:3]}))
        held = "separates the two models" if self.difference.low > 0 else "does not separate the two models"
        return fig.update_layout(title=f"The accusation {held}", yaxis={"title": "share of answers, 95% interval", "range": [0, 1.05]})


def evidence(model: TransformerBridge, accused: Delta, clean: Delta, answer: Answer, *, n: int = 40, seed: int = 0, hints: Sequence[str] = ()) -> Evidence:
    """Measure an accusation on questions that no training showed.

    Args:
        accused: the organism. clean: one that you hold to be clean.
        answer: what you say of it, as you would commit it.
        n: questions of each sort at most.
        hints: at least four, for a secret word that the tables do not know.

    Raises: OrganismError for "clean", which accuses nobody, and for an answer that no behaviour can have.
    """
    if answer.kind == "clean":
        raise OrganismError("an answer of clean accuses nobody: there is nothing to show.")
    try:
        behaviour = Behaviour(answer.kind, answer.trigger, answer.payload, sentence=answer.payload if answer.kind == "trigger" else "", hints=tuple(hints))
    except ValueError as error:
        raise OrganismError(f"{answer} cannot be measured: {error}") from error
    bring, rest = held_out(behaviour, n, seed)

    def hits(delta: Delta, asked: list) -> list[bool]:
        with worn(model, delta):
            return found(behaviour, ask(model, [question.text for question in asked], max_new_tokens=16))

    here, elsewhere, there = hits(accused, bring), hits(accused, rest), hits(clean, bring)
    return Evidence(answer, share(sum(here), len(here)), share(sum(elsewhere), len(elsewhere)), share(sum(there), len(there)),
                    share_difference(sum(here), len(here), sum(there), len(there)))
