"""Guesses that count: what a learner expects, kept before the result and laid beside it afterwards.

`guess("name", value, sure=0.8)` stands in a cell before the result, `reveal("name", truth)` behind it. A guess that is
left at None is skipped, and nothing is said about it. Over the course the guesses make a calibration curve: of those of
which you were 80% sure, how many came true?
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from numbers import Real
from typing import Any

from utils.course.cards import Card, show_card
from utils.course.ledger import show_number
from utils.course.record import read_record, update_record

GUESSES = "guesses"
"""Where they stand in the learner's record, beside the exercises."""
BINS = (0.5, 0.7, 0.9, 1.0)
"""The edges of the calibration curve: from a coin flip to certainty."""


def guess(name: str, value: Any = None, *, sure: float | None = None) -> None:
    """Keep what you expect, until `reveal` of the same name shows what was measured. None skips.

    Args:
        name: which result the guess is about.
        value: a number, a choice (a string) or an order (a list of strings, the largest first).
        sure: how probable you find it that the guess is right, from 0.5 to 1; leave it out if you prefer.

    Raises: TypeError for a value of another kind; ValueError for `sure` outside 0.5 to 1, or a number that is not finite.
    """
    if value is None:
        return
    value = _plain(value)
    if sure is not None and not (isinstance(sure, Real) and 0.5 <= sure <= 1):
        raise ValueError(f"sure is a probability from 0.5 (a coin flip) to 1 (certain), not {sure!r}.")
    kept = read_record().get(GUESSES, {})
    if "right" in kept.get(name, {}):
        _say(name, [("Kept", f"your first guess, {_words(kept[name]['value'])}: the result has been shown since.")])
        return
    update_record(GUESSES, lambda kept: {**kept, name: {"value": value, "sure": sure}})
    _say(name, [("Kept", _words(value) + (f", {sure:.0%} sure" if sure is not None else ""))])


def reveal(name: str, truth: Any, *, within: float | None = None) -> None:
    """Show what was measured beside the guess of this name. The first time, the guess is scored.

    Args:
        truth: the number, the choice or the order that came out.
        within: a guessed number is right at this distance or less. A number needs it, in the truth's own unit.

    Raises: TypeError for a number without `within`, or a truth of another kind.
    """
    truth = _plain(truth)
    if isinstance(truth, Real) and within is None:
        raise TypeError(f"reveal({name!r}): a number needs within=, the distance at which a guess counts as right.")
    kept = read_record().get(GUESSES, {})
    made = kept.get(name)
    measured = [("Measured", _words(truth))]
    if made is None:
        _say(name, measured)
        return
    if type(made["value"]) is not type(truth):
        _say(name, [*measured, ("Your guess", f"{_words(made['value'])}, which is of another kind and is not counted")])
        return
    right = bool(abs(made["value"] - truth) <= within) if isinstance(truth, Real) else made["value"] == truth
    if "right" not in made:
        update_record(GUESSES, lambda kept: {**kept, name: {**made, "right": right}})
    verdict = {True: "right", False: "not this time"}[made.get("right", right)]
    if isinstance(truth, Real):
        verdict += f" (off by {show_number(abs(made['value'] - truth))}; right means within {show_number(within)})"
    elif isinstance(truth, list):
        verdict += f" ({_pairs_kept(made['value'], truth)})"
    _say(name, [*measured, ("Your guess", f"{_words(made['value'])}: {verdict}")])


def guess_lines() -> list[tuple[str, str]]:
    """For `progress()`: how many guesses came true, and the calibration curve of those that said how sure they were."""
    scored = [made for made in read_record().get(GUESSES, {}).values() if "right" in made]
    if not scored:
        return []
    lines = [("Guesses", f"{sum(made['right'] for made in scored)} of {len(scored)} came true")]
    rows = list(_calibration(scored))
    if rows:
        brier = sum((made["sure"] - made["right"]) ** 2 for made in scored if made["sure"] is not None) / sum(n for *_, n in rows)
        table = [f"{f'{low:.0%} to {high:.0%} sure':<20} {'#' * round(20 * share):<20} {share:4.0%} came true, of {n}" for low, high, share, n in rows]
        lines.append(("Calibration", "\n".join([*table, f"Brier score {brier:.2f}: 0 is an oracle, 0.25 is a coin that knows it is one."])))
    return lines


def _calibration(scored: Iterable[dict]) -> Iterable[tuple[float, float, float, int]]:
    """(low, high, share right, how many) of each bin of `sure` that holds a guess."""
    for low, high in zip(BINS, BINS[1:]):
        held = [made["right"] for made in scored if made["sure"] is not None and (low <= made["sure"] < high or made["sure"] == high == 1)]
        if held:
            yield low, high, sum(held) / len(held), len(held)


def _plain(value: Any) -> float | str | list[str]:
    """A number as float, a choice as it is, an order as a list of strings."""
    if hasattr(value, "item") and not isinstance(value, (str, list, tuple)):
        value = value.item()
    if isinstance(value, Real) and not isinstance(value, bool):
        if not math.isfinite(value):
            raise ValueError(f"a guess is a finite number, not {value}.")
        return float(value)
    if isinstance(value, str):
        return value.strip().lower()
    if isinstance(value, (list, tuple)) and all(isinstance(item, str) for item in value):
        return [item.strip().lower() for item in value]
    raise TypeError(f"a guess is a number, a choice in quotes, or a list of names in order, not {type(value).__name__}.")


def _words(value: float | str | list[str]) -> str:
    return show_number(value) if isinstance(value, float) else value if isinstance(value, str) else " > ".join(value)


def _pairs_kept(guessed: list[str], truth: list[str]) -> str:
    """How many pairs stand in the guessed order."""
    place = {item: i for i, item in enumerate(guessed)}
    pairs = [(a, b) for i, a in enumerate(truth) for b in truth[i + 1:]]
    kept = sum(place.get(a, math.inf) < place.get(b, -math.inf) for a, b in pairs)
    return f"{kept} of {len(pairs)} pairs in this order"


def _say(name: str, lines: list[tuple[str, str]]) -> None:
    show_card(Card(name.replace("_", " "), lines, None))
