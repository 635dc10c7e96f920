"""Which tokens of a forward pass an edit may touch."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

NORM_LIMIT = 3.0
"""Tokens with more than this many times the median norm of their prompt are left alone."""


class SteeringError(RuntimeError):
    """An edit or a generation that cannot work. The message says why, and what to change."""


@dataclass(frozen=True)
class Pass:
    """What `generate` and the scoring functions know about the forward pass that is running, and hooks do not."""

    real: Bool[Tensor, "batch pos"]
    prompt: bool


PASS: ContextVar[Pass | None] = ContextVar("forward pass", default=None)


class Reach:
    """Which tokens of each pass may be edited. It remembers the norms of the prompt for the tokens that are generated after it."""

    def __init__(self) -> None:
        self._limit: Float[Tensor, "batch 1"] | None = None

    def __call__(self, acts: Float[Tensor, "batch pos d_model"]) -> tuple[Bool[Tensor, "batch pos"], bool]:
        """(True at the tokens that may be edited, whether this pass is a prompt)."""
        known = PASS.get()
        if known is None:  # someone else's forward pass: rows are taken as full, and a lone token as new if a prompt came before
            follows = acts.shape[1] == 1 and self._limit is not None and len(self._limit) == len(acts)
            known = Pass(torch.ones(acts.shape[:2], dtype=torch.bool, device=acts.device), not follows)
        norms, reach = acts.detach().float().norm(dim=-1), known.real
        if known.prompt:
            reach = reach.clone()
            reach[:, 0] = False
            # A prompt that is nothing but its first token sets no limit.
            median = norms.masked_fill(~reach, torch.nan).nanmedian(1, keepdim=True).values
            self._limit = NORM_LIMIT * median.nan_to_num(nan=torch.inf)
        return reach & (norms <= self._limit), known.prompt


def last_real(real: Bool[Tensor, "batch pos"]) -> Bool[Tensor, "batch pos"]:
    """True at the last True of each row."""
    return real & (real.cumsum(1) == real.sum(1, keepdim=True))


def check_length(vectors: Float[Tensor, "*batch d_model"], what: str) -> None:
    """Refuse vectors whose squared length is infinite: the next norm would turn them into zeros, and nobody would notice."""
    if not vectors.float().norm(dim=-1).isfinite().all():
        raise SteeringError(f"{what} makes activations of infinite length. Lower it.")
