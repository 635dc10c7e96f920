"""Claims: the named numbers on which a chapter's prose stands, each with the relation that it asserts and what it is compared with."""

from __future__ import annotations

import html
import math
from dataclasses import asdict, dataclass
from typing import Any

from utils.intervals import Estimate

CLAIM_MIME = "application/vnd.probe-to-steer.claim+json"
_CLAIMS: dict[str, Claim] = {}


@dataclass(frozen=True)
class Claim:
    """One measured number, and the relation that it was measured for.

    Attributes:
        relation: "above", "below" or "equal" to the rival, or "level", a number from which nothing is concluded.
        rival: what the number is compared with, by name and number; None for a level.
        difference: the 95% interval of the number minus its rival; None for a level.
        margin: "equal" means that the whole interval of the difference lies within it; 0 for the other relations.
        baseline: what one gets without the method. control: the same procedure where there is nothing to find. None where there is none.
        expect: the range of the number in our own runs. It guards against drift, and proves nothing.
    """

    name: str
    text: str
    value: float
    interval: tuple[float, float]
    relation: str
    rival: tuple[str, float] | None
    difference: tuple[float, float] | None
    margin: float
    baseline: tuple[str, float] | None
    control: tuple[str, float] | None
    expect: tuple[float, float]

    @property
    def held(self) -> bool:
        """Does the interval of the difference show the relation? A level asserts none."""
        if self.difference is None:
            return True
        low, high = self.difference
        return {"above": low > 0, "below": high < 0, "equal": -self.margin <= low and high <= self.margin}[self.relation]

    @property
    def drifted(self) -> bool:
        """Is the number outside the range of our own runs?"""
        return not self.expect[0] <= self.value <= self.expect[1]

    def __str__(self) -> str:
        return f"{show_number(self.value)} [{show_number(self.interval[0])}, {show_number(self.interval[1])}]"

    @property
    def relation_in_words(self) -> str:
        if self.rival is None:
            return "a level"
        name, number = self.rival
        margin = f" within {show_number(self.margin)}" if self.relation == "equal" else ""
        low, high = map(show_number, self.difference)
        return f"{self.relation}{' to' if self.relation == 'equal' else ''} {name}, {show_number(number)}{margin} (difference {low} to {high})"

    @property
    def verdict(self) -> str:
        verdict = "no relation" if self.rival is None else "held" if self.held else "DID NOT HOLD"
        return f"{verdict}; outside {show_number(self.expect[0])} to {show_number(self.expect[1])}" if self.drifted else verdict

    def row(self) -> tuple[str, ...]:
        """The cells of the ledger's table."""
        beside = [f"{show_number(pair[1])} ({pair[0]})" if pair else "none" for pair in (self.baseline, self.control)]
        return (self.text, str(self), self.relation_in_words, *beside, self.verdict)


HEADER = ("claim", "measured [95% interval]", "relation", "baseline", "control", "did it hold?")


def show_number(value: float) -> str:
    """Three significant digits, without an exponent: 0.966, 24,100."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{round(value, 2 - math.floor(math.log10(abs(value)))):,.{min(digits, 4)}f}"


def claim(name: str, text: str, value: float, *, interval: tuple[float, float], expect: tuple[float, float],
          above: tuple[str, float | Estimate] | None = None, below: tuple[str, float | Estimate] | None = None,
          equal: tuple[str, float | Estimate, float] | None = None,
          baseline: tuple[str, float] | None = None, control: tuple[str, float] | None = None, recorded: bool = True) -> None:
    """Record a number with the relation that it asserts, and show its row.

    Args:
        name: how the prose refers to it. text: the claim in words.
        interval: the 95% interval of the number, (low, high).
        above, below: the rival by name, and either its number, if that is known without measuring (chance, nothing), or the
            `Estimate` of the paired difference, the claim's number minus the rival's, if it was measured as well.
        equal: the same with a third entry, the margin. Without one of the three the claim is a level: it asserts nothing.
        baseline, control: (what it is, its number); left out where there is no sensible one.
        expect: (low, high), the range of our own runs; CI fails when a fresh run leaves it.
        recorded: False only shows the row, for a claim that is not the chapter's.

    Raises ValueError for more than one relation, a number that is not finite, or a value outside its own interval.
    """
    given = [(relation, rest) for relation, rest in (("above", above), ("below", below), ("equal", equal)) if rest]
    if len(given) > 1:
        raise ValueError(f"claim {name!r} asserts {' and '.join(relation for relation, _ in given)}: one relation a claim.")
    value, low, high, at_least, at_most = (float(x) for x in (value, *interval, *expect))
    relation, rival, difference, margin = "level", None, None, 0.0
    for relation, (against, measured, *more) in given:
        margin = float(more[0]) if more else 0.0
        apart = measured if isinstance(measured, Estimate) else Estimate(value - float(measured), low - float(measured), high - float(measured))
        rival, difference = (against, value - apart.value), (float(apart.low), float(apart.high))
    beside = [(pair[0], float(pair[1])) if pair else None for pair in (baseline, control)]
    numbers = [value, low, high, *(difference or ()), *(pair[1] for pair in (rival, *beside) if pair)]
    if not all(map(math.isfinite, numbers)):
        raise ValueError(f"claim {name!r} has a number that is not finite: {numbers}")
    if not low <= value <= high:
        raise ValueError(f"claim {name!r}: the value {value:g} is outside its own interval [{low:g}, {high:g}]")
    made = Claim(name, text, value, (low, high), relation, rival, difference, margin, *beside, (at_least, at_most))
    if recorded:
        _CLAIMS[name] = made
    _display([made], {CLAIM_MIME: asdict(made)} if recorded else {})


def ledger() -> None:
    """Show every claim of this chapter so far, its relation, and whether that held."""
    if not _CLAIMS:
        print("No claim has been recorded yet: run the chapter's cells first.")
        return
    _display(list(_CLAIMS.values()), {})


def table(claims: list[Claim], second: dict[str, Claim] | None = None) -> dict[str, str]:
    """The claims as a table, in plain text and HTML. `second`: the same claims at another seed, for a column of their own."""
    header, rows = HEADER, [claim.row() for claim in claims]
    if second is not None:
        header = (*HEADER, "at another seed")
        again = [second.get(claim.name) for claim in claims]
        rows = [(*row, f"{other}: {other.verdict}" if other else "not measured") for row, other in zip(rows, again)]
    cells = "".join("<tr>" + "".join(f'<td style="text-align:left">{html.escape(cell)}</td>' for cell in row) + "</tr>" for row in rows)
    head = "".join(f'<th style="text-align:left">{name}</th>' for name in header)
    return {"text/plain": "\n".join(" | ".join(row) for row in [header, *rows]), "text/html": f"<table><tr>{head}</tr>{cells}</table>"}


def _display(claims: list[Claim], more: dict[str, Any]) -> None:
    from IPython.display import display

    display({**table(claims), **more}, raw=True)
