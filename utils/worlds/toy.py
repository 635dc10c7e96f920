"""Made-up features with a known truth: the toys of chapters 21, 22 and 25.

A toy feature is absent most of the time; when it is there, it has a size from 0 to 1. A toy activation is the sum of
the features that are there, each written along its own direction of a space that has fewer dimensions than there are
features. Since we make both the features and the directions, whatever a method finds can be compared with the truth.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

_STEPS = 400


def sparse_features(
    n: int, n_features: int, probability: float | Float[Tensor, " n_features"], *, seed: int
) -> Float[Tensor, "n n_features"]:
    """Draw independent features that are mostly absent.

    Args:
        n: number of rows.
        n_features: number of columns.
        probability: that a feature is there, from 0 to 1; one for all, or one per feature.
        seed: equal seeds give equal draws. The global random state is left as it was.

    Returns:
        float32. 0 where a feature is absent; its size, uniform in [0, 1), where it is there.

    Raises: ValueError for a probability outside 0 to 1, or a number of probabilities other than n_features.

    Source: the synthetic features of Elhage et al. 2022, "Toy Models of Superposition".
    """
    chance = torch.as_tensor(probability, dtype=torch.float32)
    if chance.ndim > 1 or (chance.ndim == 1 and len(chance) != n_features):
        raise ValueError(f"one probability or {n_features} of them are needed, not a tensor of shape {list(chance.shape)}.")
    if not bool(((chance >= 0) & (chance <= 1)).all()):
        raise ValueError("every probability must be a number from 0 to 1.")
    # One draw decides both: below the probability it is uniform again, and divided by the probability it is the size.
    draw = torch.rand(n, n_features, generator=torch.Generator().manual_seed(seed))
    return torch.where(draw < chance, draw / chance, 0.0)


def toy_dictionary(n_features: int, d_hidden: int, *, seed: int) -> Float[Tensor, "n_features d_hidden"]:
    """Make unit directions for features, spread out as a model with too few dimensions would spread them.

    Random directions are pushed apart by gradient descent on the sum of the squares and fourth powers of the cosines
    between them. The squares alone would leave two equal directions be if the others make up for them.

    Args:
        n_features: number of directions, at least 1.
        d_hidden: dimensions of the space, at least 1. With at most that many features they end up orthogonal.
        seed: equal seeds give equal directions. The global random state is left as it was.

    Returns:
        float32, one direction of length 1 per row.

    Raises: ValueError when a number is smaller than 1.
    """
    if n_features < 1 or d_hidden < 1:
        raise ValueError(f"a dictionary needs at least one feature and one dimension, not {n_features} and {d_hidden}.")
    directions = torch.randn(n_features, d_hidden, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    directions /= directions.norm(dim=1, keepdim=True)
    # The more features share a dimension, the more of them push at once: shorter steps keep the descent stable.
    step = 0.1 * min(1.0, d_hidden / n_features)
    for _ in range(_STEPS):
        cosines = directions @ directions.T
        cosines.fill_diagonal_(0.0)
        push = (2 * cosines + 4 * cosines**3) @ directions
        along = (push * directions).sum(dim=1, keepdim=True)
        directions -= step * (push - along * directions)  # on the sphere: only what turns a direction
        directions /= directions.norm(dim=1, keepdim=True)
    return directions.float()
