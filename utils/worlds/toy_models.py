"""Many toy models of superposition at once: trained side by side, scored on features that they have not met.

A toy squeezes `n_features` sparse features into `d_hidden` dimensions with a matrix W and brings them back with the
same matrix and a bias b. All functions carry an axis of instances: hundreds of toys, each with weights of its own.
How a toy computes its output, and what it loses, are arguments: chapter 21 passes in what the learner wrote.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import trange

from utils.worlds.toy import sparse_features

Forward = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(x [batch, n_instances, n_features], W, b) to outputs of the shape of x."""
Loss = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(x, outputs, importance) to one loss per instance."""


def train_toys(
    forward: Forward, loss: Loss, density: Float[Tensor, "n_instances n_features"],
    importance: Float[Tensor, "n_instances n_features"], d_hidden: int, *, steps: int = 1000, batch: int = 256,
    lr: float = 0.01, seed: int = 0, progress: bool = True,
) -> tuple[Float[Tensor, "n_instances d_hidden n_features"], Float[Tensor, "n_instances n_features"]]:
    """Train one toy per row of `density`, all side by side, with Adam and a cosine schedule.

    The losses of the instances are added up, so that no instance's gradient depends on how many others there are.

    Args:
        density: how often each feature is there, from 0 to 1.
        importance: the weight of each feature's squared error.
        batch: rows in a training step, drawn anew in every step.
        seed: of the first weights and of the features; the global random state is left as it was.
        progress: show a bar.

    Returns: W and b. W begins as `first_weights`, b at each feature's mean.
    """
    n_instances, n_features = density.shape
    W = first_weights(n_instances, d_hidden, n_features, seed).requires_grad_()
    b = (density / 2).clone().requires_grad_()
    adam = torch.optim.Adam([W, b], lr=lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(adam, steps)
    for step in trange(steps, desc=f"{n_instances:,} toys", unit="step", leave=False, mininterval=1, disable=not progress):
        x = sparse_features(batch, density.numel(), density.flatten(), seed=1_000_000 * seed + step)
        x = x.view(batch, n_instances, n_features)
        adam.zero_grad()
        loss(x, forward(x, W, b), importance).sum().backward()
        adam.step()
        schedule.step()
    return W.detach(), b.detach()


def first_weights(n_instances: int, d_hidden: int, n_features: int, seed: int = 0) -> Float[Tensor, "n_instances d_hidden n_features"]:
    """The weights with which `train_toys` begins: normal, with variance 1 / n_features."""
    return torch.randn(n_instances, d_hidden, n_features, generator=torch.Generator().manual_seed(seed)) / n_features**0.5


def fresh_loss(
    forward: Forward, loss: Loss, W: Float[Tensor, "n_instances d_hidden n_features"], b: Float[Tensor, "n_instances n_features"],
    density: Float[Tensor, "n_instances n_features"], importance: Float[Tensor, "n_instances n_features"], *,
    rows: int = 20_000, seed: int = 0,
) -> Float[Tensor, " n_instances"]:
    """The loss on new features. Instances of one density (their first feature's counts) meet the same ones."""
    losses = torch.empty(len(W))
    for value in density[:, 0].unique():
        same = density[:, 0] == value
        x = new_features(W.shape[2], value, rows=rows, seed=seed)[:, None].expand(-1, int(same.sum()), -1)
        losses[same] = loss(x, forward(x, W[same], b[same]), importance[same])
    return losses


def new_features(n_features: int, density: float | Tensor, *, rows: int = 20_000, seed: int = 0) -> Float[Tensor, "rows n_features"]:
    """Features that no toy was trained on: `train_toys` draws with other seeds."""
    return sparse_features(rows, n_features, density, seed=seed + 10**9)


def features_worth(losses: Float[Tensor, " n_instances"], density: Float[Tensor, " n_instances"], n_features: int, *,
                   rows: int = 20_000, seed: int = 0) -> Float[Tensor, " n_instances"]:
    """The share of all variance that a toy explains, times the number of features.

    Args:
        losses: of `fresh_loss` with the same rows and seed, every feature of importance 1.
        density: one per instance, the same for all its features.
    """
    everything = torch.empty_like(losses)
    for value in density.unique():
        x = new_features(n_features, value, rows=rows, seed=seed)
        everything[density == value] = x.var(dim=0, correction=0).sum()
    return n_features * (1 - losses / everything)


def opposites_together(W: Float[Tensor, "d_hidden n_features"]) -> list[int]:
    """The features of one toy in an order for pictures: long ones first, each followed by the one most opposite to it."""
    left = W.norm(dim=0).argsort(descending=True).tolist()
    order = []
    while left:
        first = left.pop(0)
        order.append(first)
        if left:
            opposite = min(left, key=lambda other: float(W[:, first] @ W[:, other]))
            left.remove(opposite)
            order.append(opposite)
    return order


def turned_to_fit(pictures: Float[Tensor, "n d_hidden n_features"]) -> Float[Tensor, "n d_hidden n_features"]:
    """Rotate (or mirror) each hidden space so that its features lie as close as possible to those before it.

    No output of a toy changes by that: W^T W stays as it is.
    """
    fitted = [pictures[0]]
    for picture in pictures[1:]:
        left, _, right = torch.linalg.svd(fitted[-1] @ picture.T)
        fitted.append(left @ right @ picture)
    return torch.stack(fitted)


def explained(
    readings: Float[Tensor, "n k"], x: Float[Tensor, "n n_features"], thresholds: Float[Tensor, " n_thresholds"]
) -> Float[Tensor, "k n_thresholds n_features"]:
    """The squared correlation of ReLU(reading - threshold) with every feature: the share of its variance that a line explains."""
    cut = torch.relu(readings[:, :, None] - thresholds).flatten(1)
    cut, size = cut - cut.mean(0), x - x.mean(0)
    r = cut.T @ size / (cut.norm(dim=0)[:, None] * size.norm(dim=0)).clamp(min=1e-9)
    return r.square().view(readings.shape[1], len(thresholds), -1)


def read_along(
    readings: Float[Tensor, "n n_features"], x: Float[Tensor, "n n_features"], thresholds: Float[Tensor, " n_thresholds"]
) -> float:
    """How much of each feature its own reading explains, on average: the threshold from one half of the rows, the score from the other."""
    half = len(x) // 2
    first, second = (explained(readings[rows], x[rows], thresholds).diagonal(dim1=0, dim2=2) for rows in (slice(half), slice(half, None)))
    return float(second.gather(0, first.argmax(0)[None]).mean())


def read_best(readings: Float[Tensor, "n k"], x: Float[Tensor, "n n_features"], thresholds: Float[Tensor, " n_thresholds"]) -> float:
    """How much of each feature the best of k readings explains, in either sign: reading and threshold from one half of the rows, the
    score from the other."""
    half, both_ways = len(x) // 2, torch.cat([readings, -readings], 1)
    first, second = (explained(both_ways[rows], x[rows], thresholds).flatten(0, 1) for rows in (slice(half), slice(half, None)))
    return float(second.gather(0, first.argmax(0)[None]).mean())
