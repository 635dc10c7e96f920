"""What the tests of steering share: the tiny model, an SAE of it, prompts, directions."""

from __future__ import annotations

import pytest
import torch

from utils.hooks import resid_post
from utils.models import tiny_model
from utils.sae.model import SAE, SAEConfig


@pytest.fixture(scope="module")
def model():
    return tiny_model()


@pytest.fixture(scope="module")
def sae():
    return SAE(SAEConfig(24, 67, 5, "tiny-llama", resid_post(1)), seed=3).requires_grad_(False)


@pytest.fixture(scope="session")
def prompts():
    return ["The city of Paris is in", "A dog", "The keys near the cabinet", "two and three", "The film was not very good , and the",
            "Lima is", "to", "The cities of Peru and Japan are larger than", "Oslo , Cairo and Rome"]


@pytest.fixture(scope="session")
def direction():
    """A unit direction of the tiny model's width, by seed."""
    return lambda seed=0: torch.nn.functional.normalize(torch.randn(24, generator=torch.Generator().manual_seed(seed)), dim=0)


@pytest.fixture(scope="module")
def one_by_one(model, prompts):
    """What `generate` writes for each prompt in a list of its own, without randomness."""
    from utils.steering.generating import generate

    return lambda: [generate(model, [prompt], temperature=0, max_new_tokens=9)[0] for prompt in prompts]
