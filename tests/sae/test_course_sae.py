"""The SAE that ships: its file, its card, and the card's numbers measured again on fresh text."""

from __future__ import annotations

import json

import pytest
import torch

from utils.activations import collect_activations
from utils.data.corpus import TRAINING, documents
from utils.data.fetch import sha256_of
from utils.models import load_model
from utils.sae import course_sae
from utils.sae.course_sae import CFG, FOLDER, SEEDS, SHA256, TARGETS, card_text, load_course_sae, pca
from utils.sae.model import WEIGHTS, SAEError
from utils.sae.shards import contexts


@pytest.fixture(scope="module")
def sae():
    return load_course_sae()


@pytest.fixture
def card():
    return json.loads((FOLDER / "card.json").read_text(encoding="utf-8"))


def test_the_file_is_the_pinned_one_and_small(sae, card):
    assert sha256_of(FOLDER / WEIGHTS) == SHA256 == card["sha256"]
    assert sum(file.stat().st_size for file in FOLDER.iterdir()) <= 20e6
    assert sae.cfg == CFG and card["sae"]["hook_name"] == CFG.hook_name and card["sources"] == list(TRAINING)
    torch.testing.assert_close(sae.W_dec.norm(dim=1), torch.ones(CFG.d_sae), rtol=1e-3, atol=1e-3)


def test_a_changed_file_is_refused(tmp_path, monkeypatch):
    (tmp_path / WEIGHTS).write_bytes(b"something else")
    monkeypatch.setattr(course_sae, "FOLDER", tmp_path)
    monkeypatch.setattr(course_sae, "ROOT", tmp_path.parent)
    with pytest.raises(SAEError, match="is missing or was changed"):
        load_course_sae()


@pytest.mark.parametrize("seed", SEEDS)
def test_the_card_meets_its_targets(card, seed):
    """On documents of sources that the SAE has never seen, for both seeds."""
    for source in card["unseen"]:
        fit, cost = card["fit"][source][f"seed {seed}"], card["cost"][source][f"seed {seed}"]
        assert fit["explained_variance"][0] >= TARGETS["explained_variance"] and 0.9 * CFG.k < fit["l0"] <= CFG.k
        assert cost["recovered_mean"][0] >= TARGETS["recovered_mean"]
    assert card["fit"]["held-out"][f"seed {seed}"]["dead"] < 0.02


def test_the_card_as_text_is_the_card(card):
    assert card["tokens"] >= 4_000_000
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert text == card_text(card) and "Missed by: none." in text
    card["cost"]["news"]["seed 0"]["recovered_mean"][0] = 0.5
    assert "Missed by: news, seed 0: recovered_mean 0.500." in card_text(card)


def test_the_fine_tuning_lowers_the_divergence(card):
    for source in card["unseen"]:
        after, before = (card["cost"][source][name]["kl"] for name in ("seed 0", "seed 0, before fine-tuning"))
        assert after[2] < before[0] and after[0] < before[1]  # either value lies outside of the other's interval


def test_the_card_holds_on_text_that_it_was_not_measured_on(sae, card):
    """16 other contexts: explained variance as the card says, well above the linear baseline of the same rank."""
    model = load_model(verbose=False)
    texts = documents("reviews")
    _, owners = contexts(model, texts)
    order = torch.randperm(len(owners), generator=torch.Generator().manual_seed(0))[:2048]  # what `course_shards` measured on
    seen = set(owners[order].tolist())
    tokens, _ = contexts(model, [texts[i] for i in range(len(texts)) if i not in seen][:60])
    acts = collect_activations(model, tokens[:16], CFG.hook_name, mask=torch.ones_like(tokens[:16], dtype=torch.bool), position="all", cache=False, progress=False).acts
    total = (acts - acts.mean(0)).pow(2).sum()
    explained = {name: float(1 - (acts - rebuild(acts)).pow(2).sum() / total) for name, rebuild in (("sae", sae), ("pca", pca(acts, CFG.k)))}
    assert explained["sae"] == pytest.approx(card["fit"]["reviews"]["seed 0"]["explained_variance"][0], abs=0.03)
    assert explained["sae"] > explained["pca"] + 0.1
    assert 0.9 * CFG.k < (sae.encode(acts) > 0).sum(1).float().mean() <= CFG.k
