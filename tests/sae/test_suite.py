"""The suite: its files, its cards, and the cards' first number measured again on other text."""

from __future__ import annotations

import json

import pytest
import torch

from utils.activations import collect_activations
from utils.data.corpus import UNSEEN, documents
from utils.data.fetch import sha256_of
from utils.hooks import resid_post
from utils.models import load_model
from utils.pipeline.suite import card_text, missed, overview
from utils.sae import suite
from utils.sae.course_sae import pca
from utils.sae.model import WEIGHTS, SAEError
from utils.sae.shards import contexts
from utils.sae.suite import FOLDER, K, SHA256, SUITE_LAYERS, load_suite_sae, suite_card, suite_folder


@pytest.mark.parametrize("layer", SUITE_LAYERS)
def test_the_file_is_the_pinned_one(layer):
    sae, card = load_suite_sae(layer), suite_card(layer)
    assert sha256_of(suite_folder(layer) / WEIGHTS) == SHA256[layer] == card["sha256"]
    assert (sae.cfg.d_sae, sae.cfg.k, sae.cfg.hook_name) == (3072, K, f"blocks.{layer}.hook_out")
    assert card["layer"] == layer and vars(sae.cfg) == card["sae"]
    torch.testing.assert_close(sae.W_dec.norm(dim=1), torch.ones(3072), rtol=1e-3, atol=1e-3)


def test_the_suite_is_small():
    assert sum(file.stat().st_size for file in FOLDER.rglob("*")) <= 35e6


def test_a_layer_without_one_is_an_error():
    with pytest.raises(ValueError, match="4, 9, 20, 26"):
        load_suite_sae(14)


def test_a_changed_file_is_refused(tmp_path, monkeypatch):
    (tmp_path / "layer_04").mkdir()
    (tmp_path / "layer_04" / WEIGHTS).write_bytes(b"something else")
    monkeypatch.setattr(suite, "FOLDER", tmp_path)
    monkeypatch.setattr(suite, "ROOT", tmp_path.parent)
    with pytest.raises(SAEError, match="is missing or was changed"):
        load_suite_sae(4)


@pytest.mark.parametrize("layer", SUITE_LAYERS)
def test_the_card_says_what_was_missed(layer):
    card = suite_card(layer)
    assert (suite_folder(layer) / "README.md").read_text("utf-8") == card_text(card)
    assert (FOLDER / "README.md").read_text("utf-8") == overview()
    for source, rows in card["fit"].items():
        assert rows["the SAE"]["explained_variance"][1] > rows[f"PCA, {K} components"]["explained_variance"][2], source
    worse = json.loads(json.dumps(card))
    worse["cost"][UNSEEN[0]]["recovered_mean"][0] = 0.5
    assert f"{UNSEEN[0]}, recovered_mean 0.500" in missed(worse)


def test_the_cards_hold_on_text_that_they_were_not_measured_on():
    """16 other contexts, all layers in one pass: explained variance near the card's, well above a PCA fitted to the very tokens."""
    model, texts = load_model(verbose=False), documents("reviews")
    others = [document for i, document in enumerate(texts) if i % (len(texts) // 1000)][:60]  # the cards measured the rest
    tokens = contexts(model, others)[0][:16]
    hooks = [resid_post(layer) for layer in SUITE_LAYERS]
    found = collect_activations(model, tokens, hooks, mask=torch.ones_like(tokens, dtype=torch.bool), position="all", cache=False, progress=False)
    for layer, hook in zip(SUITE_LAYERS, hooks):
        acts = found[hook].acts
        total = (acts - acts.mean(0)).pow(2).sum()
        sae, rank_k = (float(1 - (acts - way(acts)).pow(2).sum() / total) for way in (load_suite_sae(layer), pca(acts, K)))
        assert sae == pytest.approx(suite_card(layer)["fit"]["reviews"]["the SAE"]["explained_variance"][0], abs=0.04), layer
        assert sae > rank_k + 0.1, layer
