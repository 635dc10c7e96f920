"""The learner's own contrast: doses, controls, a verdict in words, and clear words for what cannot work."""

from __future__ import annotations

import math

import pytest
import torch

from utils.hooks import is_edited, resid_post
from utils.intervals import Estimate
from utils.models import tiny_model
from utils.sae.model import SAE, SAEConfig
from utils.steering.reach import SteeringError
from utils.steering.scoring import keyword_rate, mean_score
from utils.yours.steering import Dose, _verdict, dose_response, steer_file
from utils.yours.tables import TableError, labelled

GOOD = [f"The {noun} is very good {tail}" for noun in ("film", "city", "dog", "key", "cabinet") for tail in (".", "and great .")]
BAD = [f"The {noun} is very bad {tail}" for noun in ("film", "city", "dog", "key", "cabinet") for tail in (".", "and false .")]
PROMPTS = ["The film was", "A dog", "The key near the", "Paris is", "The city of", "two and three", "The dogs", "Lima is in"]


@pytest.fixture(scope="module")
def model():
    return tiny_model()


def _respond(model, **more):
    return dose_response(model, labelled(GOOD, BAD), prompts=PROMPTS, doses=(0.2, 0.8), new_tokens=5, progress=False, **more)


def test_every_dose_has_its_random_push(model):
    found = _respond(model)
    assert [(dose.way, dose.dose) for dose in found.doses] == [("your vector", 0.2), ("your vector", 0.8), ("random", 0.2), ("random", 0.8)]
    assert all(dose.effect.low <= dose.effect.value <= dose.effect.high and dose.price > 0 and 0 <= dose.wrong_way <= 1 for dose in found.doses)
    assert "random push" in found.verdict or "No verdict" in found.verdict or "no dose" in found.verdict
    assert len(found.figure().data) == 2 and found.verdict in str(found)
    assert not is_edited(model)


def test_a_scorer_and_a_latent(model):
    sae = SAE(SAEConfig(24, 67, 5, "tiny-llama", resid_post(1)), seed=3).requires_grad_(False)
    found = _respond(model, sae=sae, effect=lambda texts: keyword_rate(texts, "good"))
    ways = list(dict.fromkeys(dose.way for dose in found.doses))
    assert ways[0] == "your vector" and ways[1].startswith("latent ") and ways[2] == "random"
    assert set(found.doses[0].scores.values.tolist()) <= {0.0, 1.0}


def _dose(way, dose, price, values):
    scores = mean_score(values)
    return Dose(way, dose, Estimate(0, 0, 0), price, 0.25, scores)


def test_the_verdict_says_what_was_found():
    still, up = [0.0, 0.1] * 6, [1.0, 1.1, 0.9, 1.0] * 3
    better = _verdict([_dose("your vector", 0.1, 1.2, up), _dose("your vector", 0.3, 9.0, up), _dose("random", 0.1, 1.2, still)], 1.6, None)
    assert "further than" in better and "dose of 0.1" in better and "25%" in better
    same = _verdict([_dose("your vector", 0.1, 1.2, still), _dose("random", 0.1, 1.2, still)], 1.6, 0.9)
    assert "no further" in same
    dear = _verdict([_dose("your vector", 0.1, 2.5, up), _dose("random", 0.1, 1.2, still)], 1.6, 0.9)
    assert "no dose is within 1.6" in dear and "2.50" in dear
    assert _verdict([], 1.6, 0.6).startswith("No verdict") and "0.60" in _verdict([], 1.6, 0.6)


def test_what_cannot_work_is_refused(model):
    with pytest.raises(TableError, match="at least 10"):
        dose_response(model, labelled(GOOD[:4], BAD))
    with pytest.raises(SteeringError, match="8 prompts"):
        dose_response(model, labelled(GOOD, BAD), prompts=PROMPTS[:3])
    with pytest.raises(SteeringError, match="positive dose"):
        dose_response(model, labelled(GOOD, BAD), prompts=PROMPTS, doses=(0.0, 0.1))
    together = labelled(GOOD, BAD)
    with pytest.raises(TableError, match="group"):
        dose_response(model, type(together)(together.texts, together.labels, [0] * len(together)), prompts=PROMPTS)


def test_empty_texts_have_no_score(model):
    table = labelled(GOOD, BAD)
    found = dose_response(model, table, prompts=PROMPTS, doses=(0.2,), new_tokens=1, progress=False)
    assert all(math.isfinite(dose.effect.value) for dose in found.doses)


def test_from_the_shell(tmp_path, capsys):
    table = tmp_path / "my.csv"
    table.write_text("text,colour\nhello,red\n")
    assert steer_file(table) == 1 and "label" in capsys.readouterr().err
    assert steer_file(tmp_path / "none.csv") == 1
    torch.manual_seed(0)
