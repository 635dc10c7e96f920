"""Episodes of a world: tokens that a model sees, and the true state that it does not."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Bool, Int
from torch import Tensor


class WorldError(ValueError):
    """A world or a training run was asked for something that it cannot do."""


@dataclass(frozen=True)
class Episodes:
    """Sequences from a world, with the truth about every step.

    Attributes:
        tokens: what the model reads.
        state: the state of the world after each token. Grid: the square, [n, pos]. Ivy: every square's
            owner, [n, pos, squares], 1 for the first player, -1 for the second, 0 for nobody.
        legal: which tokens the world would allow next, after each token.
    """

    tokens: Int[Tensor, "n pos"]
    state: Int[Tensor, "n pos *state"]
    legal: Bool[Tensor, "n pos d_vocab"]


def check_count(n: int) -> None:
    if n < 1:
        raise WorldError(f"at least one episode has to be drawn, not {n}.")
