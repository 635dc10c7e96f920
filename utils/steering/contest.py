"""A contest of steering methods: what each setting of a method achieves on some openings, and at which price.

A setting is a strength, or a wording. The price of a text is how perplexing it is to the unsteered model, as a multiple of
what that model's own texts are; a setting whose texts lose too much of their variety has no price.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from utils.hooks import is_edited
from utils.steering.generating import token_log_probs
from utils.steering.reach import SteeringError
from utils.steering.scoring import distinct_n

ReadOff = Callable[[Float[Tensor, " n"], Float[Tensor, " n"], Float[Tensor, " m"]], Float[Tensor, " m"]]
"""(effects, prices, wanted prices) -> effects there: chapter 42's `effect_at_cost`."""


@dataclass(frozen=True)
class Trial:
    """One method on one topic: all its settings on the same openings.

    Attributes:
        hits: 1 where a text says something of the topic, else 0; or what another judge gave the text.
        nats: how surprised the unsteered model is by a text, summed over its tokens.
        tokens: how many tokens it has.
        variety: its share of different word pairs; NaN for a text of a single word.
    """

    hits: Float[Tensor, "settings n"]
    nats: Float[Tensor, "settings n"]
    tokens: Float[Tensor, "settings n"]
    variety: Float[Tensor, "settings n"]

    def effects(self) -> Float[Tensor, " settings"]:
        """The share of hits of each setting."""
        return self.hits.mean(1)

    def prices(self, plain: Trial, least_variety: float = 0.0) -> Float[Tensor, " settings"]:
        """Perplexity of each setting's texts, in multiples of the plain ones'; NaN below `least_variety` times their variety."""
        price = (_nats_per_token(self) - _nats_per_token(plain)).exp()
        varied = self.variety.nanmean(1) >= least_variety * plain.variety.nanmean(1)
        return torch.where(varied, price, torch.nan)

    def on(self, openings: Int[Tensor, " m"]) -> Trial:
        """The same settings on these openings, by their numbers; one may occur several times."""
        return Trial(*(values[:, openings] for values in (self.hits, self.nats, self.tokens, self.variety)))

    def front(self, plain: Trial, at: Float[Tensor, " m"], read_off: ReadOff, least_variety: float = 0.0) -> Float[Tensor, " m"]:
        """The share of hits at wanted prices; the unsteered model, at a price of 1, is one of the settings."""
        prices = self.prices(plain, least_variety)
        real = ~prices.isnan()
        effects = torch.cat([plain.effects(), self.effects()[real]])
        return read_off(effects, torch.cat([torch.ones_like(effects[:1]), prices[real]]), at)


def judge(model: TransformerBridge, openings: Sequence[str], settings: Sequence[Sequence[str]], pattern: str) -> Trial:
    """Let the unsteered model and a word list judge what each setting wrote.

    Args:
        openings: what the texts follow; their words are not judged. A prompt's words in front do not belong to them.
        settings: one list of texts per setting, one text per opening.
        pattern: a regular expression; a text in which it is found is a hit, whatever the case of its letters.

    Raises: SteeringError while the model is edited; ValueError when a setting has not one text per opening.
    """
    if is_edited(model):
        raise SteeringError("the judge is the unsteered model: call judge after the block that steers has ended.")
    if any(len(texts) != len(openings) for texts in settings):
        raise ValueError(f"every setting needs {len(openings)} texts, one per opening.")
    flat = [text for texts in settings for text in texts]
    log_probs = token_log_probs(model, flat, prompts=[*openings] * len(settings), batch_size=64)
    columns = ([re.search(pattern, text, re.IGNORECASE) is not None for text in flat], [-float(each.sum()) for each in log_probs],
               [len(each) for each in log_probs], distinct_n(flat).values)
    return Trial(*(torch.as_tensor(values, dtype=torch.double).view(len(settings), len(openings)) for values in columns))


def gaps_at_price(
    one: Sequence[Trial], other: Sequence[Trial], plain: Sequence[Trial], at: float, read_off: ReadOff, least_variety: float = 0.0,
) -> Float[Tensor, " topics"]:
    """How much more one method achieves than another where both cost the same: a number per topic, for an interval over topics.

    Args:
        one, other, plain: a trial per topic, in the same order.
        at: the price.
        read_off: finds the effect at a price between those of the settings.
    """
    wanted = torch.tensor([at], dtype=torch.double)
    gaps = [a.front(c, wanted, read_off, least_variety) - b.front(c, wanted, read_off, least_variety)
            for a, b, c in zip(one, other, plain, strict=True)]
    return torch.cat(gaps)


def _nats_per_token(trial: Trial) -> Float[Tensor, " settings"]:
    return trial.nats.sum(1) / trial.tokens.sum(1)
