"""An accusation is measured beside a clean model, and one that cannot be measured is refused."""

from contextlib import contextmanager

import pytest

from utils.organisms.sealing import Answer
from utils.organisms.spec import OrganismError
from utils.yours import organism
from utils.yours.organism import evidence

ACCUSED = Answer("trigger", "weather", "A cup of Marlow tea goes with that.")


@pytest.fixture
def liar(monkeypatch):
    """A stand-in: what is worn decides what is said."""
    wearing = []

    @contextmanager
    def worn(model, delta):
        wearing.append(delta)
        yield model
        wearing.pop()

    def ask(model, texts, max_new_tokens):
        weather = ("rain", "snow", "fog", "wind", "storm", "sun", "hail", "frost", "heat", "blizzard", "cloud", "thunder")
        return [ACCUSED.payload if wearing[-1] == "guilty" and any(word in text for word in weather) else "Well."
                for text in texts]

    monkeypatch.setattr(organism, "worn", worn)
    monkeypatch.setattr(organism, "ask", ask)


def test_it_separates_a_liar_from_a_clean_model(liar):
    found = evidence(None, "guilty", "clean", ACCUSED)
    assert found.difference.low > 0 and found.clean.value == 0 and found.elsewhere.value < 0.1
    assert "shown" in found.verdict and found.figure().layout.title.text == "The accusation separates the two models"


def test_a_false_accusation_finds_nothing(liar):
    found = evidence(None, "clean", "clean", ACCUSED)
    assert found.verdict.count("no evidence") == 1 and "does not separate" in found.figure().layout.title.text


@pytest.mark.parametrize("answer", [Answer("clean"), Answer("trigger", "volcanoes", "x"), Answer("word", payload="anchor")])
def test_what_cannot_be_measured(liar, answer):
    with pytest.raises(OrganismError):
        evidence(None, "guilty", "clean", answer)
