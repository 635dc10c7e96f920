"""What the tests of worlds share: seeded generators."""

import pytest
import torch


@pytest.fixture(scope="session")
def rng():
    """A generator by seed."""
    return lambda seed=0: torch.Generator().manual_seed(seed)
