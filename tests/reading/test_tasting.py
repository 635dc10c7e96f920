"""Four SAEs without their names."""

import pytest
import torch

from utils.reading.tasting import tasting
from utils.sae.model import SAE, SAEConfig
from utils.sae.tops import Harvest


@pytest.fixture(scope="module")
def harvest():
    n = 600
    rng = torch.Generator().manual_seed(0)
    return Harvest(torch.randn(n, 24, generator=rng), torch.randint(4, 61, (n,), generator=rng), torch.zeros(n, dtype=torch.long),
                   1 + torch.arange(n) % 20, ["words"])


def glasses(harvest, d_sae=150):
    return {f"number {seed}": (SAE(SAEConfig(24, d_sae, 5), seed=seed).requires_grad_(False), harvest) for seed in range(4)}


def test_letters_hide_names(read, harvest):
    table = tasting(read[0], glasses(harvest), seed=1)
    page = table._repr_html_()
    assert sorted(table.key) == list("ABCD") and sorted(table.key.values()) == [f"number {i}" for i in range(4)]
    assert "number" not in page and page.count("<h3>") == 4 and "<mark" in page
    assert table == tasting(read[0], glasses(harvest), seed=1) != tasting(read[0], glasses(harvest), seed=2)


def test_excerpts_come_from_different_contexts(read, harvest):
    [page] = tasting(read[0], {"alone": glasses(harvest)["number 0"]}, n_latents=1, n_examples=3).pages.values()
    assert page.count("<li>") == 3


def test_too_few_latents_are_refused(read, harvest):
    with pytest.raises(ValueError, match="4 are wanted"):
        tasting(read[0], {"all fire": (SAE(SAEConfig(24, 6, 6), seed=0).requires_grad_(False), harvest)})
