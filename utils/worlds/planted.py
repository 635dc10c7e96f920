"""Worlds with a planted truth, several side by side: what an SAE finds in them can be counted."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from utils.worlds.toy import sparse_features, toy_dictionary


@dataclass(frozen=True)
class Planted:
    """Worlds, one per index of the first axis, each with directions of its own.

    Attributes:
        truth: the planted directions, of length 1.
        data: activations to train on: sums of the directions of those features that are there.
        test: fresh activations.
        features: how much of each feature is in each row of `test`; 0 where it is absent.
    """

    truth: Float[Tensor, "world feature d"]
    data: Float[Tensor, "world n d"]
    test: Float[Tensor, "world m d"]
    features: Float[Tensor, "world m feature"]

    @property
    def l0(self) -> float:
        """How many features a row holds, on average."""
        return float((self.features > 0).float().sum(-1).mean())


def planted(n_features: int, d_hidden: int, probability: float, *, worlds: int = 8, rows: int = 20_000,
            correlation: float = 0.0, seed: int = 0) -> Planted:
    """Make worlds of sparse features along nearly spread-out directions.

    Args:
        n_features, d_hidden: features, and dimensions of the space they share.
        probability: that a feature is there.
        worlds: how many, with directions and rows of their own.
        rows: activations to train on, per world; half as many to test.
        correlation: from 0 to 1, between the presence of the first and second feature, the third and fourth, and so on.
        seed: equal seeds give equal worlds, and of equal numbers of features the same features in any space.

    Raises: ValueError for numbers that make no world.
    """
    if worlds < 1 or rows < 2 or not 0 < probability <= 1 or not 0 <= correlation <= 1:
        raise ValueError(f"worlds and rows must be positive, 0 < probability <= 1 and 0 <= correlation <= 1; not {worlds}, {rows}, "
                         f"{probability} and {correlation}.")
    seeds = range(1000 * seed, 1000 * seed + worlds)
    truth = torch.stack([toy_dictionary(n_features, d_hidden, seed=s) for s in seeds])
    trained = torch.stack([_features(rows, n_features, probability, correlation, 500 + s) for s in seeds])
    fresh = torch.stack([_features(rows // 2, n_features, probability, correlation, 90_000 + s) for s in seeds])
    return Planted(truth, trained @ truth, fresh @ truth, fresh)


def _features(n: int, n_features: int, probability: float, correlation: float, seed: int) -> Float[Tensor, "n feature"]:
    features = sparse_features(n, n_features, probability, seed=seed)
    if correlation == 0:
        return features
    there, sizes = features > 0, sparse_features(n, n_features, 1.0, seed=seed + 1_000_000)
    copies = torch.rand(n, n_features // 2, generator=torch.Generator().manual_seed(seed + 2_000_000)) < correlation
    there[:, 1::2] = torch.where(copies, there[:, 0:2 * (n_features // 2):2], there[:, 1::2])
    return torch.where(there, sizes, 0.0)


def recovered(decoder: Float[Tensor, "*world latent d"], truth: Float[Tensor, "*world feature d"], cosine: float = 0.95) -> Float[Tensor, "*world"]:
    """How many planted directions have a decoder row with a cosine above `cosine`, in each world."""
    cosines = normalize(truth, dim=-1) @ normalize(decoder, dim=-1).mT
    return (cosines.amax(-1) > cosine).sum(-1).float()
