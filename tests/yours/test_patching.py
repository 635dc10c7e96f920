"""Patching a learner's own pairs: what a place carries is found, the control is a stranger, and bad pairs are refused."""

import pytest
import torch

from utils.hooks import is_edited
from utils.intervals import Estimate
from utils.models import tiny_model
from utils.yours.patching import PairError, PatchReport, patch_report

PAIRS = [("The keys near the cabinet", "The key near the cabinet"), ("The dogs near the cabinet", "The dog near the cabinet"),
         ("The cities near the cabinet", "The city near the cabinet")]


@pytest.fixture(scope="module")
def model():
    return tiny_model()


@pytest.fixture(scope="module")
def found(model):
    return patch_report(model, PAIRS, ("are", "is"), progress=False)


def test_the_differing_token_carries_all_at_first_and_the_last_token_all_at_last(found):
    """After the first block only the subject differs in what it was; after the last one only the last token is read."""
    assert found.layers == [0, 1, 2] and found.tokens == ["keys", "near", "the", "cabinet"] and found.recovered.shape == (3, 4, 3)
    last_layer = found.recovered[-1].mean(-1)
    assert last_layer[-1] == pytest.approx(1.0, abs=1e-4) and last_layer[:-1].abs().max() < 1e-6


def test_shares_are_parts_of_the_mean_distance(model, found):
    """A patch of the last token after the last layer moves every pair by its own distance."""
    ways = found.recovered[-1, -1] * found.distance.value
    assert float(ways.mean()) == pytest.approx(found.distance.value) and ways.std() > 0
    assert found.strangers.shape == found.recovered.shape and not torch.equal(found.strangers, found.recovered)


def test_one_pair_has_neither_control_nor_interval(model):
    one = patch_report(model, PAIRS[:1], ("are", "is"), layers=[1], progress=False)
    assert one.strangers is None and one.distance.low == one.distance.high
    assert "no interval" in one.verdict and "no control" in one.verdict


def test_the_model_is_left_as_it_was(model, found):
    assert not is_edited(model)


def report(value=0.9, stranger=0.0, distance=(2.0, 1.0, 3.0)):
    recovered, strangers = torch.zeros(2, 3, 4), torch.zeros(2, 3, 4)
    recovered[1, 1], strangers[1, 1] = value, stranger
    return PatchReport([0, 5], ["keys", "near", "cabinet"], Estimate(*distance), recovered, strangers)


@pytest.mark.parametrize("changes, words", [({}, "carried by 'near'"), ({"value": 0.3}, "no single token"), ({"stranger": 0.8}, "stranger"),
                                            ({"distance": (0.5, -1.0, 2.0)}, "nothing to bring back")])
def test_the_verdict_follows_from_the_numbers(changes, words):
    made = report(**changes)
    assert words in made.headline and made.verdict.startswith(made.headline) and made.figure().layout.title.text == made.headline


@pytest.mark.parametrize("pairs, answers, words", [
    ([], ("are", "is"), "at least one"), ("The key", ("are", "is"), "list of"), ([("The key", " ")], ("are", "is"), "not empty"),
    ([("The key", "The key")], ("are", "is"), "both prompts"), ([("The key", "The key near")], ("are", "is"), "2 and 3|3 and 4"),
    ([PAIRS[0], ("The keys", "The key")], ("are", "is"), "one length"), (PAIRS, ("are near", "is"), "2 tokens"), (PAIRS, ("is", "is"), "same token"),
])
def test_what_cannot_be_patched_is_refused(model, pairs, answers, words):
    with pytest.raises(PairError, match=words):
        patch_report(model, pairs, answers, progress=False)


def test_a_layer_beyond_the_last_is_refused(model):
    with pytest.raises(PairError, match="0 to 2"):
        patch_report(model, PAIRS, ("are", "is"), layers=[3], progress=False)
