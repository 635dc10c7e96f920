"""Guesses: kept before the result, scored once, skipped without a word, and never in the way."""

import json

import pytest

from utils.course.guesses import GUESSES, guess, guess_lines, reveal
from utils.course.record import read_record, update_entry


def test_a_number_is_right_within_its_distance(own_progress, capsys):
    guess("share", 0.8, sure=0.7)
    reveal("share", 0.75, within=0.1)
    assert "Measured: 0.750" in (text := capsys.readouterr().out) and "right (off by 0.0500" in text
    guess("other", 0.2)
    reveal("other", 0.75, within=0.1)
    assert "not this time" in capsys.readouterr().out


def test_a_choice_and_an_order(own_progress, capsys):
    guess("topic", "Sea ")
    reveal("topic", "sea")
    guess("order", ["a", "b", "c"])
    reveal("order", ["a", "c", "b"])
    text = capsys.readouterr().out
    assert "sea: right" in text and "2 of 3 pairs in this order" in text


def test_skipping_is_fine(own_progress, capsys):
    guess("share", None, sure=0.7)
    assert capsys.readouterr().out == "" and not own_progress.exists()
    reveal("share", 0.5, within=0.1)
    assert "Your guess" not in capsys.readouterr().out


def test_the_first_guess_counts_and_is_scored_once(own_progress, capsys):
    guess("share", 0.1, sure=0.9)
    guess("share", 0.2, sure=0.9)  # changed one's mind before the result: that is allowed
    reveal("share", 0.9, within=0.1)
    guess("share", 0.9, sure=0.9)  # afterwards it is not
    reveal("share", 0.9, within=0.1)
    assert read_record()[GUESSES]["share"] == {"value": 0.2, "sure": 0.9, "right": False}
    assert "your first guess" in capsys.readouterr().out


def test_calibration_over_the_course(own_progress):
    for i in range(4):
        guess(f"g{i}", 1.0, sure=0.75)
        reveal(f"g{i}", 1.0 if i else 5.0, within=0.1)
    guess("unsure", "a")
    reveal("unsure", "b")
    guess("open", 3)
    (_, count), (_, curve) = guess_lines()
    assert count == "3 of 5 came true"
    assert "70% to 90% sure" in curve and "75% came true, of 4" in curve
    assert f"Brier score {(3 * 0.25**2 + 0.75**2) / 4:.2f}" in curve


def test_exercises_and_guesses_share_the_file(own_progress):
    update_entry("gather_last_token", tries=1)
    guess("share", 1)
    update_entry("gather_last_token", tries=2)
    assert set(json.loads(own_progress.read_text("utf-8"))) == {"gather_last_token", GUESSES}


@pytest.mark.parametrize("value", [float("nan"), True, {"a": 1}, [1, 2]])
def test_what_is_no_guess_says_so(own_progress, value):
    with pytest.raises((TypeError, ValueError), match="a guess is"):
        guess("share", value)


def test_sure_is_a_probability(own_progress):
    with pytest.raises(ValueError, match="0.5"):
        guess("share", 1, sure=80)


def test_a_number_needs_its_distance(own_progress):
    with pytest.raises(TypeError, match="within="):
        reveal("share", 0.5)


def test_another_kind_is_not_counted(own_progress, capsys):
    guess("share", "many")
    reveal("share", 0.5, within=0.1)
    assert "another kind" in capsys.readouterr().out and guess_lines() == []


def test_a_guess_never_stops_the_page(own_progress, capsys):
    own_progress.mkdir()  # a folder in the place of the file: nothing can be kept
    guess("share", 0.5)
    reveal("share", 0.5, within=0.1)
    assert "Measured" in capsys.readouterr().out
