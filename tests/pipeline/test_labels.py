"""Labels through the interface, their test by steering, and the card that tells of both."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from utils.pipeline import labels as labels_module
from utils.pipeline.capture import open_shards
from utils.pipeline.card import card_text
from utils.pipeline.config import PipelineError, ReadingConfig
from utils.pipeline.labels import Evidence, Label, labels_of, one_word, rules, stats_of
from utils.pipeline.records import Run
from utils.pipeline.stages import run_pipeline
from utils.pipeline.verifying import Verified, steered_text, summary, verified_of
from utils.pipeline.workers import trained
from utils.reading.words import words_of
from utils.steering.steering import steer


def test_every_latent_that_fires_has_examples(finished):
    stats = stats_of(finished, 2)
    assert stats.seconds == 0 and ((stats.top_where[:, 0, 0] >= 0) == (stats.firing_rate > 0)).all()


def test_the_word_label_is_the_word_that_a_latent_fires_on(finished):
    """A made-up latent that fires on two words, nine times on one: its label and its score are those of the other half of the contexts."""
    words = words_of(finished.model)
    dog, cat = (int((words.of_token == words.spelled.index(word)).nonzero()[0]) for word in ("dog", "film"))
    tokens = torch.tensor([[0, dog, dog], [0, dog, dog], [0, dog, dog], [0, dog, cat], [0, dog, dog], [0, dog, dog]])
    values = torch.tensor([[[0.0], [1.0], [1.0]]] * 6)
    stats = SimpleNamespace(tokens=tokens, code_value=values, code_latent=torch.full((6, 3, 1), 3), d_sae=5)
    assert one_word(Evidence(finished.model, stats)) == {3: Label("fires on “dog”", ("dog",), round(5 / 6, 4))}


def test_rules_as_labels(finished):
    """What fires on two words of a text gets a rule that names both, and a score on the other half."""
    words, stats = words_of(finished.model), stats_of(finished, 2)
    dog, film = (int((words.of_token == words.spelled.index(word)).nonzero()[0]) for word in ("dog", "film"))
    tokens = stats.tokens.clone()
    tokens[:, 1::4], tokens[:, 2::4] = dog, film
    hot = (tokens == dog) | (tokens == film)
    values = torch.stack([hot.float(), torch.ones_like(hot).float()], -1)
    latents = torch.tensor([3, 5]).expand(*tokens.shape, 2).to(stats.code_latent.dtype)
    planted = replace(stats, tokens=tokens, code_value=values.to(stats.code_value.dtype), code_latent=latents, similar=torch.full_like(stats.similar, 5))
    label = rules(Evidence(finished.model, planted))[3]
    assert set(label.words) == {"dog", "film"} and label.score == 1


def plugged_in(evidence):
    """An explainer of somebody's own: it labels three latents with words."""
    alive = (evidence.stats.firing_rate > 0).nonzero().squeeze(1).tolist()
    return {latent: Label("an animal", ("dog", "no word of this model"), 0.5) for latent in alive[:3]}


def test_an_explainer_of_ones_own(begun, monkeypatch):
    monkeypatch.setitem(sys.modules, "my_explainers", SimpleNamespace(plugged_in=plugged_in, wrong=lambda evidence: ["dog"]))
    config = begun("labels")
    with pytest.raises(PipelineError, match="no explainer 'my_explainers:none'.*Write word, rules, or your own as module:function"):
        run_pipeline(replace(config, reading=ReadingConfig(100, "my_explainers:none")), only="labels", progress=False)
    with pytest.raises(PipelineError, match="labels in .* was made differently: explainer: my_explainers:none -> my_explainers:wrong"):
        run_pipeline(replace(config, reading=ReadingConfig(100, "my_explainers:wrong")), only="labels", progress=False)
    config = begun_again(config, "labels")
    with pytest.raises(PipelineError, match="must return {latent: Label}"):
        run_pipeline(replace(config, reading=ReadingConfig(100, "my_explainers:wrong")), only="labels", progress=False)
    config = begun_again(config, "labels")
    run = run_pipeline(replace(config, reading=ReadingConfig(100, "my_explainers:plugged_in")), progress=False)
    found = verified_of(run, 2)
    assert [one["latent"] for one in found["tested"]] == sorted(labels_of(run, 2)) and found["controls"] == 5 and found["chance"] == pytest.approx(1 / 6)
    card = (run.at("card", 2) / "README.md").read_text()
    assert "**Labels** (my_explainers:plugged_in): 3 of" in card and "3 labelled latents were pushed" in card


def begun_again(config, stage):
    shutil.rmtree(Run(config).at(stage))
    return config


def test_a_rise_is_what_steering_does_to_the_words_probability(finished, begun, monkeypatch):
    """Against the definition, written out for one latent and one word."""
    monkeypatch.setitem(labels_module.EXPLAINERS, "word", plugged_in)
    run = run_pipeline(begun("labels"), only="labels", progress=False)
    run = run_pipeline(run.config, only="verify", progress=False)
    first = verified_of(run, 2)["tested"][0]
    rows, words = steered_text(run), words_of(run.model)
    dogs = (words.of_token == words.spelled.index("dog")).nonzero().squeeze(1)
    usual = float(open_shards(run.at("capture", 2) / "held-out").sample(4096).norm(dim=1).median())

    def log_share():
        return float(run.model(rows)[:, 1:].softmax(-1)[..., dogs].sum(-1).log().mean())

    plain = log_share()
    with steer(run.model, run.hooks[2], trained(run, 2).W_dec[first["latent"]], 0.4 * usual):
        assert first["rise"] == pytest.approx(log_share() - plain, abs=1e-4)


def test_the_summary_counts_what_beats_every_control():
    tested = [Verified(i, ("dog",), rise, 0.0, rise > 0.5) for i, rise in enumerate((1.0, 0.8, 0.1, 0.9))]
    found = summary(tested, 19)
    assert found["share_verified"][0] == 0.75 and found["chance"] == 0.05 and found["lead_over_random"][0] == pytest.approx(0.7)
    assert summary([], 0)["share_verified"] is None and summary(tested[:1], 3)["lead_over_random"] is None


def test_the_card_holds_its_controls(finished):
    for layer in (0, 2):
        card = json.loads((finished.at("card", layer) / "card.json").read_text())
        text = (finished.at("card", layer) / "README.md").read_text()
        assert list(card["fit"]) == ["the SAE", "PCA, 4 components", "untrained SAE"]
        assert card["fit"]["the SAE"]["explained_variance"][0] > card["fit"]["untrained SAE"]["explained_variance"][0]
        assert card["sha256"] in text and "Nothing was tested" in card_text({**card, "verification": {**card["verification"], **summary([], 0)}})
        assert str(finished.folder) not in json.dumps(card["text"])
