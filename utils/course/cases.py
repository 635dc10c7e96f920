"""A case, and what cases are made of: seeded tensors, ragged masks, the tiny model and its tokens, an SAE's parameters.

Everything is drawn in float64 and then converted, so that a case has the same values in every dtype.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from utils.course.exercises import Exercise


class Case:
    """One call that an answer has to get right: a label for people, and the arguments.

    Attributes:
        kind: which kind of `utils.course.battery` it belongs to; "" for an ordinary case.
        trained: {name: place in the call, or keyword} of the arguments with respect to which the gradient is compared as well.
        relative: results are compared relative to their own size, however small it is.
        new: nothing that comes back may share memory with an argument, or with another part of the result.
    """

    def __init__(self, label: str, *args: Any, **kwargs: Any) -> None:
        self.label, self.args, self.kwargs = label, args, kwargs
        self.kind, self.trained, self.relative, self.new = "", {}, False, False

    def of(self, kind: str) -> Case:
        """The same case, as one of this kind."""
        self.kind = kind
        return self

    def with_gradient(self, **places: int | str) -> Case:
        """The same case, with the gradient compared too: `pre=0` with respect to the first argument, called pre in what is said."""
        self.trained = places
        return self


# --- numbers ----------------------------------------------------------------------------------------------


def normal(rng: torch.Generator, *shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=rng, dtype=torch.float64).to(dtype)


def uniform(rng: torch.Generator, *shape: int, low: float = 0.0, high: float = 1.0, dtype: torch.dtype = torch.float64) -> Tensor:
    return (low + (high - low) * torch.rand(shape, generator=rng, dtype=torch.float64)).to(dtype)


def integers(rng: torch.Generator, low: int, high: int, *shape: int) -> Tensor:
    """Whole numbers from `low` to `high - 1`."""
    return torch.randint(low, high, shape, generator=rng)


def shuffle(rng: torch.Generator, values: list[int]) -> Tensor:
    return torch.tensor(values)[torch.randperm(len(values), generator=rng)]


# --- texts ------------------------------------------------------------------------------------------------


def right_padded(lengths: list[int], pos: int) -> Tensor:
    """A mask with the padding on the right: row i has lengths[i] real tokens."""
    return torch.arange(pos) < torch.tensor(lengths)[:, None]


def left_padded(lengths: list[int], pos: int) -> Tensor:
    """A mask with the padding on the left."""
    return right_padded(lengths, pos).flip(1)


@cache
def tiny() -> Any:
    """One tiny model for all cases: building it takes longer than a check may."""
    from utils.models import tiny_model

    return tiny_model(seed=0)


def token_rows(rng: torch.Generator, batch: int, pos: int, *, low: int = 3) -> Tensor:
    """Tokens of the tiny model, the start token first; `low` leaves out the special ones."""
    tokens = integers(rng, low, tiny().cfg.d_vocab, batch, pos)
    tokens[:, 0] = tiny().tokenizer.bos_token_id
    return tokens


# --- sparse autoencoders ----------------------------------------------------------------------------------


def sae_params(rng: torch.Generator, lead: tuple[int, ...], d_in: int, d_sae: int, dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    """Parameters in which everything counts: no bias is zero, no decoder row has length 1."""
    return {
        "W_enc": normal(rng, *lead, d_in, d_sae, dtype=dtype),
        "b_enc": normal(rng, *lead, d_sae, dtype=dtype),
        "W_dec": normal(rng, *lead, d_sae, d_in, dtype=dtype),
        "b_dec": 1 + normal(rng, *lead, d_in, dtype=dtype),
    }


def as_leaves(params: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same parameters as an optimiser holds them. An answer that leaves torch cannot be differentiated, and raises here."""
    return {name: value.requires_grad_() for name, value in params.items()}


def pre_acts(params: dict[str, Tensor], x: Tensor) -> Tensor:
    return (x - params["b_dec"].unsqueeze(-2)) @ params["W_enc"] + params["b_enc"].unsqueeze(-2)


def decoded(params: dict[str, Tensor], acts: Tensor) -> Tensor:
    return acts @ params["W_dec"] + params["b_dec"].unsqueeze(-2)


def top_k(pre: Tensor, k: int, key: Tensor | None = None, dim: int = -1) -> Tensor:
    """`pre` where it, or `key` in its place, is among the k largest; 0 elsewhere."""
    places = (pre if key is None else key).topk(k, dim=dim).indices
    return torch.zeros_like(pre).scatter(dim, places, pre.gather(dim, places))


def for_each_sae(function: Callable) -> Callable:
    """A right answer for one SAE, made one for a stack of them by a loop over the first argument's leading axis."""

    def answer(params, *rest, **options):
        if params["W_dec"].ndim == 2:
            return function(params, *rest, **options)
        outs = [function({k: v[i] for k, v in params.items()}, *(r[i] if isinstance(r, Tensor) else r for r in rest), **options)
                for i in range(len(params["W_dec"]))]
        if isinstance(outs[0], tuple):
            return tuple(torch.stack(part) for part in zip(*outs))
        if isinstance(outs[0], dict):
            return {k: torch.stack([o[k] for o in outs]) for k in outs[0]}
        return torch.stack(outs)

    return answer


# --- answers ----------------------------------------------------------------------------------------------


def close_to(*, rtol: float, atol: float) -> Callable[[Any, Tensor], bool]:
    """An `equal` for values through a model, where the order of its sums may differ."""
    def equal(actual: Any, expected: Tensor) -> bool:
        return (isinstance(actual, Tensor) and actual.shape == expected.shape and actual.dtype == expected.dtype
                and torch.allclose(actual, expected, rtol=rtol, atol=atol))

    return equal


def wrong_ways(exercise: Exercise, function: Callable, ways: dict[str, tuple[dict[str, Any], str]]) -> None:
    """Register mistakes that are one function with one option changed: {slug: (the option, what to tell the learner)}."""
    for slug, (options, message) in ways.items():
        exercise.mistake(slug, message)(partial(function, **options))
