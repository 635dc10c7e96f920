"""A museum of bugs: parts of a pipeline for sparse autoencoders, each right by default and wrong by one flag.

Every one of them is a mistake that such code has made or could make; each was put here to be measured (chapter 24), and none is anybody's.
What they share: the run goes on, and the number that one looks at first stays good.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from utils.sae.model import SAE, SAEConfig
from utils.sae.sparse import sparse_decode
from utils.sae.training import Rows, TrainingConfig, training_forward


def train_two(
    rows: Float[Tensor, "n d_in"], cfg: SAEConfig, training: TrainingConfig, *, wrong_axis: bool = False, unsynchronised: bool = False
) -> tuple[SAE, SAE]:
    """Train an SAE on two processes, played one after the other in this one; returns what each of them holds in the end.

    After every step the decoder's rows are given length 1, so that a latent's value is a length.

    Args:
        rows: activations, normalised already.
        training: half of every batch goes to each process.
        wrong_axis: the decoder's columns get length 1 instead.
        unsynchronised: each process steps along its own gradient instead of the mean of both.
    """
    saes = [SAE(cfg, training.seed) for _ in range(2)]
    optimizers = [torch.optim.Adam(sae.parameters(), lr=training.lr) for sae in saes]
    nobody = torch.zeros(cfg.d_sae, dtype=torch.bool)
    batches = Rows(rows).batches(training.batch_size, training.seed)
    for step in range(training.steps):
        for sae, x in zip(saes, next(batches).chunk(2)):
            rebuilt, _, _ = training_forward(sae, x, nobody, training)
            (x - rebuilt).pow(2).sum(1).mean().backward()
        if not unsynchronised:
            _average_gradients(saes)
        for sae, optimizer in zip(saes, optimizers):
            torch.nn.utils.clip_grad_norm_(sae.parameters(), training.max_grad_norm)
            for group in optimizer.param_groups:
                group["lr"] = training.lr_at(step)
            optimizer.step()
            optimizer.zero_grad()
            _normalise(sae, axis=0 if wrong_axis else 1)
    return tuple(sae.requires_grad_(False) for sae in saes)


def _average_gradients(saes: Sequence[SAE]) -> None:
    for parameters in zip(*(sae.parameters() for sae in saes)):
        mean = torch.stack([parameter.grad for parameter in parameters]).mean(0)
        for parameter in parameters:
            parameter.grad = mean.clone()


@torch.no_grad()
def _normalise(sae: SAE, axis: int) -> None:
    sae.W_dec.div_(sae.W_dec.norm(dim=axis, keepdim=True).clamp(min=1e-8))


def length_spread(sae: SAE) -> float:
    """The longest decoder row over the shortest: 1 if a latent's value is a length."""
    lengths = sae.W_dec.norm(dim=1)
    return float(lengths.max() / lengths.min())


def drift(first: SAE, second: SAE) -> float:
    """How far two decoders are apart, relative to the first one's size; 0 for processes that hold the same SAE."""
    return float((first.W_dec - second.W_dec).norm() / first.W_dec.norm())


def in_own_units(sae: SAE, mean: Float[Tensor, " d_in"], scale: float, *, wrong_space: bool = False) -> SAE:
    """An SAE of normalised rows, (x - mean) / scale, as one of x itself.

    Args:
        wrong_space: the pre-bias is left in the space of the normalised rows: scaled, and without the mean.
    """
    moved = copy.deepcopy(sae)
    moved.rescale_(torch.zeros_like(mean) if wrong_space else mean, scale)
    return moved


def auxiliary_ratio(sae: SAE, x: Float[Tensor, "n d_in"], *, other_decode: bool = False) -> float:
    """The auxiliary loss of dead latents that write nothing, over the squared error. They rebuild nothing of what is left over: it must be 1.

    Args:
        other_decode: the dead latents' part is decoded with the bias, though the error that they are asked for has none left in it.
    """
    rebuilt = sae(x)
    left_over = x - rebuilt
    values, indices = torch.zeros(len(x), 1), torch.zeros(len(x), 1, dtype=torch.long)
    written = sparse_decode(values, indices, sae.W_dec) + (sae.b_dec if other_decode else 0)
    return float((left_over - written).pow(2).sum() / left_over.pow(2).sum())


def reading_order(names: Sequence[str], in_order: Callable[[list[str]], list[str]], *, as_words: bool = False) -> list[str]:
    """The shards in the order in which a resumed run reads them.

    Args:
        in_order: sorts them by their numbers.
        as_words: sort the names as a dictionary would.
    """
    return sorted(names) if as_words else in_order(list(names))


def examples_of(
    values: Float[Tensor, "n k"], indices: Int[Tensor, "n k"], d_sae: int, *, one_latent_a_row: bool = False
) -> tuple[Int[Tensor, " d_sae"], float]:
    """(for how many rows each latent has an example, the mean value of the examples).

    Args:
        values, indices: a sparse code.
        one_latent_a_row: a row is an example for its strongest latent alone.
    """
    if one_latent_a_row:
        values, place = values.max(1, keepdim=True)
        indices = indices.gather(1, place)
    on = values > 0
    return torch.bincount(indices[on], minlength=d_sae), float(values[on].mean())


def value_when_on(values: Float[Tensor, "n k"], indices: Int[Tensor, "n k"], d_sae: int, *, unguarded: bool = False) -> Float[Tensor, " d_sae"]:
    """The mean value of each latent where it is on, 0 for those that never are.

    Args:
        unguarded: divide by the number of rows whatever it is.
    """
    total = torch.zeros(d_sae).index_add(0, indices.flatten(), values.flatten())
    count = torch.bincount(indices[values > 0], minlength=d_sae)
    return total / (count if unguarded else count.clamp(min=1))


def certainties(answers: Sequence[str], *, floats_only: bool = False) -> list[float]:
    """The certainties of an explainer's answers in JSON, those that cannot be read left out.

    Args:
        floats_only: a certainty that is written without a point (1) is no number.
    """
    kinds = (float,) if floats_only else (float, int)
    found = [json.loads(answer).get("certainty") for answer in answers]
    return [float(value) for value in found if isinstance(value, kinds) and not isinstance(value, bool)]


def explained(sae: SAE, rows: Float[Tensor, "n d_in"]) -> float:
    """Share of the rows' variance that an SAE explains."""
    return 1 - float(F.mse_loss(sae(rows), rows) / rows.var(0, correction=0).mean())
