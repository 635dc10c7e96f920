"""Claims are recorded with all that belongs to them, or not at all."""

import importlib

import pytest

from utils.course.ledger import CLAIM_MIME, claim, ledger, show_claim, show_number

module = importlib.import_module("utils.course.ledger")  # the wing hands on the function of this name


@pytest.fixture
def shown(monkeypatch):
    kept = []
    monkeypatch.setattr("IPython.display.display", lambda bundle, raw: kept.append(bundle))
    monkeypatch.setattr(module, "_CLAIMS", {})
    return kept


def record(**changes):
    claim("a", "A holds", **{"value": 0.9, "interval": (0.8, 1.0), "baseline": ("chance", 0.5), "control": ("shuffled", 0.49), "expect": (0.7, 1.0), **changes})


def test_a_claim_is_shown_and_stored(shown):
    record()
    assert shown[0][CLAIM_MIME]["baseline"] == ("chance", 0.5) and "0.900 [0.800, 1.00]" in shown[0]["text/plain"]
    assert "yes" in shown[0]["text/plain"]


def test_a_claim_that_does_not_hold_says_so(shown):
    record(value=0.6, interval=(0.5, 0.7))
    ledger()
    assert "NO" in shown[-1]["text/plain"] and "<td" in shown[-1]["text/html"]


def test_running_a_cell_again_replaces_its_claim(shown):
    record()
    record(value=0.95)
    ledger()
    assert shown[-1]["text/plain"].count("A holds") == 1 and "0.950" in shown[-1]["text/plain"]


def test_a_claim_that_is_only_shown_is_not_recorded(shown, capsys):
    show_claim("B holds", 0.6, interval=(0.5, 0.7), baseline=("chance", 0.5), control=("shuffled", 0.5), expect=(0.9, 1.0))
    ledger()
    assert "NO" in shown[0]["text/plain"] and CLAIM_MIME not in shown[0] and len(shown) == 1
    assert "No claim has been recorded" in capsys.readouterr().out


@pytest.mark.parametrize("changes, words", [({"value": float("nan")}, "not finite"), ({"interval": (0.0, 0.1)}, "outside its own interval"),
                                            ({"control": ("none", float("inf"))}, "not finite")])
def test_a_claim_without_its_evidence_is_refused(shown, changes, words):
    with pytest.raises(ValueError, match=words):
        record(**changes)


def test_a_claim_needs_every_part(shown):
    with pytest.raises(TypeError):
        claim("a", "text", 0.5, interval=(0.4, 0.6))


def test_an_empty_ledger_says_what_to_do(shown, capsys):
    ledger()
    assert "run the chapter's cells first" in capsys.readouterr().out


@pytest.mark.parametrize("value, text", [(0.9662, "0.966"), (24123.4, "24,100"), (0.0, "0"), (12.34, "12.3"), (-0.123, "-0.123"), (0.00012345, "0.0001"), (1.0, "1.00")])
def test_numbers_are_shown_to_three_digits(value, text):
    assert show_number(value) == text
