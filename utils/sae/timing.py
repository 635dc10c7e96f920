"""How long a step of training takes: what a fast product is worth, without what happens before the first step."""

from __future__ import annotations

import time
from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from utils.sae.model import SAEConfig
from utils.sae.training import History, Rows, TrainingConfig, train_sae

WARM_UP = 4
"""Steps that are run and not timed: the first ones prepare buffers."""


class _Stamped:
    """Activations that note when a batch was asked for: the time between two is a step."""

    def __init__(self, rows: Rows) -> None:
        self.rows, self.stamps = rows, []

    def batches(self, batch_size: int, seed: int, first: int = 0) -> Iterator[Float[Tensor, "batch d_in"]]:
        for batch in self.rows.batches(batch_size, seed, first):
            self.stamps.append(time.perf_counter())
            yield batch

    def sample(self, n: int, seed: int = 0) -> Float[Tensor, "n d_in"]:
        return self.rows.sample(n, seed)


def step_seconds(acts: Float[Tensor, "n d_in"], cfg: SAEConfig, training: TrainingConfig) -> tuple[Float[Tensor, " timed"], History]:
    """Train an SAE and throw it away: (the seconds of each step after the first few, the history of its losses).

    Raises: ValueError for fewer steps than are needed to time one; see also `train_sae`.
    """
    if training.steps < WARM_UP + 2:
        raise ValueError(f"{training.steps} steps are too few to time one: at least {WARM_UP + 2}.")
    rows = _Stamped(Rows(acts))
    _, history = train_sae(rows, cfg, training, progress=False)
    return torch.tensor(rows.stamps, dtype=torch.float64).diff()[WARM_UP:], history
