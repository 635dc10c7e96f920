"""What the tests of SAEs share: activations that few of 20 directions make up."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture(scope="session")
def make_acts():
    """Sums of few of 20 directions of width 13, off centre and not of unit size, by number of rows and seed."""
    def make(n=500, seed=0):
        rng = torch.Generator().manual_seed(seed)
        features = torch.rand(n, 20, generator=rng) * (torch.rand(n, 20, generator=rng) < 0.12)
        return 30 * features @ torch.randn(20, 13, generator=torch.Generator().manual_seed(99)) + 7

    return make


@pytest.fixture(scope="session")
def explained():
    """The share of the variance of `x` that an SAE gives back."""
    def of(sae, x):
        with torch.no_grad():
            return float(1 - (x - sae(x)).pow(2).sum() / (x - x.mean(0)).pow(2).sum())

    return of
