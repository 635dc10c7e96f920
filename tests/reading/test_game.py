"""The labelling game, in Python."""

import dataclasses

import numpy as np
import pytest
import torch

from utils.reading.features import FeatureError
from utils.reading.game import LabellingGame, best_token_rule, detection_score
from utils.reading.page import Reader

N_LATENTS, DEAD = 150, 2  # as conftest.py makes them
NASTY = '<script>alert("x")</script> & "quotes" \'single\''


def test_detection_score():
    truth = np.array([True] * 10 + [False] * 30)
    assert detection_score(truth, truth).value == 1 and detection_score(truth, truth).low < 0.95
    assert detection_score(np.ones(40, bool), truth).value == 0.5  # balanced: the larger class does not count more
    half = detection_score(np.array([True] * 8 + [False] * 2 + [True] * 3 + [False] * 27), truth)
    assert half.value == pytest.approx((0.8 + 0.9) / 2) and 0.6 < half.low < half.value < half.high < 1
    for said, facts in ((truth[:3], truth[:3]), (truth, truth[:5]), ([], [])):
        with pytest.raises(ValueError, match="both kinds"):
            detection_score(np.array(said, bool), np.array(facts, bool))


def test_the_interval_of_detection_covers():
    rng = np.random.default_rng(0)
    truth = np.arange(20) < 10
    inside = 0
    for _ in range(200):
        score = detection_score(rng.random(20) < np.where(truth, 0.8, 0.3), truth)
        inside += score.low <= 0.75 <= score.high
    assert inside / 200 > 0.9


def test_best_token_rule():
    windows = [np.array(w) for w in ([1, 2, 3], [4, 2], [2, 9], [3, 1], [4], [9, 1])]
    assert best_token_rule(windows, [True, True, True, False, False, False]) == 2
    with pytest.raises(ValueError, match="both kinds"):
        best_token_rule(windows, [True] * 6)


def latent_that_fires(stats, n=12):
    return next(i for i in range(N_LATENTS) if n < int((stats.top_where[i, :, 0] >= 0).sum()) and stats.firing_rate[i] < 0.05)


def test_the_excerpts_of_the_game(read):
    model, sae, stats = read
    latent = latent_that_fires(stats)
    game = LabellingGame(model, sae, stats, latent, n=10)
    assert len(game.truth) == 2 * game.truth.sum() and 4 <= len(game.truth) <= 10
    shown = {context for _, where in Reader(model, sae, stats).shown(latent) for context in where[:, 0].tolist()}
    assert len(set(game.places[:, 0].tolist())) == len(game.places) and not shown & set(game.places[:, 0].tolist())
    for place, fires in zip(game.places.tolist(), game.truth):
        assert game._values(*place).any() == fires
    assert np.array_equal(game.places, LabellingGame(model, sae, stats, latent, n=10).places)
    assert not np.array_equal(game.places, LabellingGame(model, sae, stats, latent, n=10, seed=1).places)


def test_a_game_from_label_to_score(read):
    model, sae, stats = read
    game = LabellingGame(model, sae, stats, latent_that_fires(stats))
    game._start.click()
    assert "Write a label first" in game._say.value and not game.label
    game._yes.click()  # before the game has begun
    game._text.value = NASTY
    game._start.click()
    for i, fires in enumerate(game.truth):
        assert f"Excerpt {i + 1} of {len(game.truth)}" in game._screen.value and "<mark" not in game._screen.value
        (game._yes if fires else game._no).click()
    game._yes.click()  # one too many
    assert game.score.value == 1 and game.label == NASTY and "<script" not in game._screen.value
    assert "your label" in game._screen.value and "chance" in game._screen.value and "<mark" in game._screen.value
    assert game.rule_score == detection_score(game._rule_said, game.truth)


def test_latents_that_cannot_be_played(read):
    model, sae, stats = read
    with pytest.raises(FeatureError, match="never fired"):
        LabellingGame(model, sae, stats, DEAD)
    with pytest.raises(FeatureError, match="there is no latent"):
        LabellingGame(model, sae, stats, N_LATENTS)
    silent = dataclasses.replace(stats, code_latent=stats.code_latent.where(stats.code_latent != 7, torch.tensor(8).short()))
    with pytest.raises(FeatureError, match="too few to test"):
        LabellingGame(model, sae, silent, 7)
    everywhere = dataclasses.replace(stats, code_latent=torch.full_like(stats.code_latent, 7))
    with pytest.raises(FeatureError, match="nearly everywhere"):
        LabellingGame(model, sae, everywhere, 7)
