"""A direction as something to take out, and as something to read with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from utils.hooks import attn_out, intervene, mlp_out, resid_pre
from utils.intervals import Estimate
from utils.probes import OneClassError, auroc, grouped_estimate


def without_part(acts: Float[Tensor, "*batch d_model"], direction: Float[Tensor, " d_model"]) -> Float[Tensor, "*batch d_model"]:
    """What is left of activations when their part along a direction, of whatever length, is taken out."""
    unit = (direction / direction.norm()).to(acts)
    return acts - (acts @ unit)[..., None] * unit


@contextmanager
def erase(model: TransformerBridge, direction: Float[Tensor, " d_model"]) -> Iterator[None]:
    """Take a direction out of the embeddings and of what every attention and every MLP writes, while the block runs.

    The residual stream then never has a part along it, at any layer and at any token.

    Raises: InterventionError where nothing runs inside the block, or nothing changes (see `intervene`).

    Source: Arditi et al. 2024, arXiv:2406.11717.
    """
    points = [resid_pre(0)]
    for layer in range(model.cfg.n_layers):
        points += [attn_out(layer), mlp_out(layer)]
    with intervene(model, {point: lambda acts, hook: without_part(acts, direction) for point in points}):
        yield


def luck_of_random_readers(acts: Float[Tensor, "n d_model"], labels: Int[Tensor, " n"], *, n: int = 200, seed: int = 0) -> float:
    """The AUROC that one in ten random directions reaches on these activations, each turned the better way round.

    Raises: ProbeError, see `auroc`.
    """
    directions = torch.randn(acts.shape[1], n, generator=torch.Generator().manual_seed(seed))
    found = torch.tensor([auroc(scores, labels) for scores in (acts @ directions).T])
    return float(0.5 + (found - 0.5).abs().quantile(0.9))


def lead_over_luck(
    acts: Float[Tensor, "n d_model"], direction: Float[Tensor, " d_model"], labels: Int[Tensor, " n"], groups: Int[Tensor, " n"],
    *, n: int = 200, n_boot: int = 500, seed: int = 0,
) -> Estimate:
    """The AUROC along a direction minus `luck_of_random_readers`, both on the same rows, with its interval over groups of rows.

    All pairs of rows are compared at once, for every direction: meant for a hundred rows or so.

    Raises: ProbeError, see `grouped_estimate`.
    """
    random = torch.randn(acts.shape[1], n, generator=torch.Generator().manual_seed(seed))
    scores = acts.double() @ torch.cat([direction[:, None], random], dim=1).double()

    def lead(rows: Int[Tensor, " drawn"]) -> float:
        one, other = (scores[rows[labels[rows] == label]] for label in (1, 0))
        if not len(one) or not len(other):
            raise OneClassError("all rows are of one class.")
        apart = one[:, None] - other
        found = (apart.sign().mean((0, 1)) + 1) / 2
        return float(found[0] - 0.5 - (found[1:] - 0.5).abs().quantile(0.9))

    return grouped_estimate(lead, groups, n_boot, seed)
