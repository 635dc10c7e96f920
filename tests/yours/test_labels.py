"""Rules for an SAE of somebody else's: found, scored, and no better than a stranger's where the SAE is random."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from utils.hooks import resid_post
from utils.intervals import Estimate
from utils.models import tiny_model
from utils.sae.model import SAE, SAEConfig
from utils.yours.labels import label_mine


@pytest.fixture(scope="module")
def mine(tmp_path_factory):
    """Labels of a random SAE of the tiny model, on random words."""
    model = tiny_model()
    model.cfg.model_name = "tiny-llama"
    words = sorted(word for word in model.tokenizer.get_vocab() if word.isalpha())
    draw = torch.Generator().manual_seed(0)
    texts = [" ".join(words[j] for j in torch.randint(len(words), (200,), generator=draw)) for _ in range(60)]
    sae = SAE(SAEConfig(24, 120, 5, "tiny-llama", resid_post(1)), seed=3).requires_grad_(False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PROBE_TO_STEER_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield label_mine(sae, model, texts=texts, progress=False), label_mine(sae, model, texts=texts, latents=30, progress=False)


def test_labels_are_scored_beside_a_strangers(mine):
    found, _ = mine
    assert found.near.value > found.floor.high, "a tiny network's latents are made of tokens, which rules can say"
    assert abs(found.floor.value - 0.5) < 0.1
    assert found.headline in found.verdict and found.headline in found.figure().layout.title.text
    assert "no more" in dataclasses.replace(found, near=Estimate(0.5, 0.4, 0.6)).verdict


def test_some_latents_have_the_labels_that_they_have_among_all(mine):
    found, some = mine
    assert len(some.labels) <= 30
    assert {i: label.rule for i, label in some.labels.items()} == {i: found.labels[i].rule for i in some.labels}
    assert all(label.near == found.labels[i].near for i, label in some.labels.items())
