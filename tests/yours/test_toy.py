"""A learner's own toy: the verdict follows from what the toys hold, and a setting that answers nothing is refused."""

import pytest
import torch

from utils.intervals import Estimate
from utils.yours.toy import ToyError, ToyReport, toy_report


def report(worth=(8.0, 7.9, 8.1), linear=(3.0, 2.9, 3.1), d_hidden=3, shares=(0.5, 0.5, 1.0, 0.4)):
    return ToyReport(10, d_hidden, 0.05, Estimate(*worth), Estimate(*linear), 8.0, torch.tensor(shares))


@pytest.fixture(scope="module")
def rare():
    return toy_report(6, 2, 0.03, seeds=2, steps=300, progress=False)


def test_rare_features_share_dimensions_and_the_linear_toy_cannot(rare):
    assert rare.worth.value > 3 > 2.2 > rare.worth_linear.value
    assert rare.headline.startswith("Superposition") and rare.verdict.startswith(rare.headline)
    assert rare.written > 3 and ((rare.shares > 0) & (rare.shares < 0.9)).float().mean() > 0.5


def test_features_that_are_always_there_do_not():
    assert toy_report(6, 2, 1.0, seeds=2, steps=200, progress=False).headline.startswith("No superposition")


def test_importance_decides_who_is_kept():
    found = toy_report(3, 1, 1.0, importance=[1.0, 0.01, 0.01], seeds=2, steps=300, progress=False)
    assert found.worth.value == pytest.approx(1.0, abs=0.1)


def test_the_figure_has_both_panels_and_the_bound(rare):
    fig = rare.figure()
    assert [trace.type for trace in fig.data] == ["bar", "histogram"] and fig.layout.title.text.startswith(rare.headline)
    assert "linear bound: 2" in {note.text for note in fig.layout.annotations}


@pytest.mark.parametrize("changes, words", [({}, "Superposition"), ({"worth": (3.05, 2.9, 3.2)}, "No superposition"),
                                            ({"d_hidden": 10}, "Room for all"), ({"shares": ()}, "Superposition")])
def test_the_verdict_follows_from_the_numbers(changes, words):
    assert report(**changes).verdict.startswith(words)


@pytest.mark.parametrize("setting, words", [
    ({"n_features": 1}, "n_features"), ({"n_features": 401}, "n_features"), ({"d_hidden": 0}, "d_hidden"), ({"density": 0.0}, "density"),
    ({"density": 1.5}, "density"), ({"seeds": 1}, "seeds"), ({"steps": 10}, "steps"), ({"importance": 0.0}, "importance"),
    ({"importance": [1.0, 2.0]}, "list of 2"),
])
def test_a_setting_that_answers_nothing_is_refused(setting, words):
    with pytest.raises(ToyError, match=words):
        toy_report(**{"n_features": 6, "d_hidden": 2, "density": 0.1, "progress": False, **setting})
