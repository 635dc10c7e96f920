"""Claims are recorded with their evidence, and say whether the relation held."""

import importlib

import pytest

from utils.course.ledger import CLAIM_MIME, claim, ledger, show_number
from utils.intervals import Estimate

module = importlib.import_module("utils.course.ledger")  # the wing hands on the function of this name


@pytest.fixture
def shown(monkeypatch):
    kept = []
    monkeypatch.setattr("IPython.display.display", lambda bundle, raw: kept.append(bundle))
    monkeypatch.setattr(module, "_CLAIMS", {})
    return kept


def record(**changes):
    claim("a", "A is more", **{"value": 0.9, "interval": (0.8, 1.0), "above": ("chance", 0.5), "baseline": ("chance", 0.5), "control": ("shuffled", 0.49),
                               "expect": (0.7, 1.0), **changes})
    return module._CLAIMS.get("a")


def test_a_claim_is_shown_and_stored(shown):
    record()
    assert shown[0][CLAIM_MIME]["baseline"] == ("chance", 0.5) and "0.900 [0.800, 1.00]" in shown[0]["text/plain"]
    assert "held" in shown[0]["text/plain"] and "above chance, 0.500" in shown[0]["text/plain"] and "<td" in shown[0]["text/html"]


@pytest.mark.parametrize("relation, held", [
    ({"above": ("chance", 0.5)}, True), ({"above": ("chance", 0.85)}, False), ({"below": ("all", 1.1)}, True), ({"below": ("all", 0.95)}, False),
    ({"above": ("words", Estimate(0.1, 0.02, 0.2))}, True), ({"above": ("words", Estimate(0.1, -0.01, 0.2))}, False),
    ({"below": ("words", Estimate(-0.1, -0.2, -0.02))}, True), ({"below": ("words", Estimate(0.1, 0.02, 0.2))}, False),
    ({"equal": ("words", Estimate(0.0, -0.02, 0.02), 0.03)}, True), ({"equal": ("words", Estimate(0.0, -0.02, 0.04), 0.03)}, False), ({}, True)])
def test_a_relation_is_judged_on_the_interval_of_the_difference(shown, relation, held):
    made = record(**{"above": None, **relation})
    assert made.held == held and not made.drifted
    assert ("DID NOT HOLD" in shown[0]["text/plain"]) == (not held) and ("no relation" in shown[0]["text/plain"]) == (not relation)


def test_the_rival_s_number_follows_from_the_difference(shown):
    assert record(above=("words", Estimate(0.3, 0.1, 0.5))).rival == ("words", pytest.approx(0.6))


def test_drift_is_told_apart_from_the_relation(shown):
    made = record(value=0.65, interval=(0.55, 0.75))
    assert made.held and made.drifted and "held; outside 0.700 to 1.00" in shown[0]["text/plain"]


def test_a_claim_may_lack_what_there_is_no_sensible_one_of(shown):
    assert record(control=None).control is None and "none" in shown[0]["text/plain"]


def test_running_a_cell_again_replaces_its_claim(shown):
    record()
    record(value=0.95)
    ledger()
    assert shown[-1]["text/plain"].count("A is more") == 1 and "0.950" in shown[-1]["text/plain"]


def test_a_claim_that_is_only_shown_is_not_recorded(shown, capsys):
    record(recorded=False)
    ledger()
    assert CLAIM_MIME not in shown[0] and len(shown) == 1 and "No claim has been recorded" in capsys.readouterr().out


@pytest.mark.parametrize("changes, words", [({"value": float("nan")}, "not finite"), ({"interval": (0.0, 0.1)}, "outside its own interval"),
                                            ({"control": ("none", float("inf"))}, "not finite"), ({"above": ("words", Estimate(0.1, float("nan"), 1.0))}, "not finite"),
                                            ({"below": ("all", 1.1)}, "one relation a claim")])
def test_a_claim_without_its_evidence_is_refused(shown, changes, words):
    with pytest.raises(ValueError, match=words):
        record(**changes)


def test_another_seed_has_a_column_of_its_own(shown):
    made = record()
    shown_table = module.table([made], {"a": record(value=0.6, interval=(0.4, 0.7))})
    assert "at another seed" in shown_table["text/plain"] and "0.600 [0.400, 0.700]: DID NOT HOLD" in shown_table["text/plain"]
    assert "not measured" in module.table([made], {})["text/plain"]


def test_an_empty_ledger_says_what_to_do(shown, capsys):
    ledger()
    assert "run the chapter's cells first" in capsys.readouterr().out


@pytest.mark.parametrize("value, text", [(0.9662, "0.966"), (24123.4, "24,100"), (0.0, "0"), (12.34, "12.3"), (-0.123, "-0.123"), (0.00012345, "0.0001"), (1.0, "1.00")])
def test_numbers_are_shown_to_three_digits(value, text):
    assert show_number(value) == text
