"""Claims: the named numbers on which a chapter's prose stands, each beside a baseline, a control and an interval."""

from __future__ import annotations

import html
import math
from dataclasses import asdict, dataclass
from typing import Any

CLAIM_MIME = "application/vnd.probe-to-steer.claim+json"
_CLAIMS: dict[str, Claim] = {}


@dataclass(frozen=True)
class Claim:
    """One measured number. `expect` is the range in which the argument of the prose stays true."""

    name: str
    text: str
    value: float
    interval: tuple[float, float]
    baseline: tuple[str, float]
    control: tuple[str, float]
    expect: tuple[float, float]

    @property
    def holds(self) -> bool:
        """Is the value inside the expected range?"""
        return self.expect[0] <= self.value <= self.expect[1]

    def __str__(self) -> str:
        return f"{show_number(self.value)} [{show_number(self.interval[0])}, {show_number(self.interval[1])}]"

    def row(self) -> tuple[str, ...]:
        """The cells of the ledger's table."""
        return (self.text, str(self), f"{show_number(self.baseline[1])} ({self.baseline[0]})",
                f"{show_number(self.control[1])} ({self.control[0]})",
                f"{show_number(self.expect[0])} to {show_number(self.expect[1])}", "yes" if self.holds else "NO")


HEADER = ("claim", "measured [95% interval]", "baseline", "control", "expected", "holds")


def show_number(value: float) -> str:
    """Three significant digits, without an exponent: 0.966, 24,100."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{round(value, 2 - math.floor(math.log10(abs(value)))):,.{min(digits, 4)}f}"


def claim(name: str, text: str, value: float, *, interval: tuple[float, float], baseline: tuple[str, float],
          control: tuple[str, float], expect: tuple[float, float]) -> None:
    """Record a number and show its row.

    Parameters
    ----------
    name: how the prose refers to it. text: the claim in words.
    interval: the 95% interval, (low, high). baseline, control: (what it is, its number).
    expect: (low, high); CI fails when a fresh run's value falls outside.

    Raises ValueError for a value that is not finite or lies outside its own interval.
    """
    numbers = [float(x) for x in (value, *interval, baseline[1], control[1], *expect)]
    if not all(math.isfinite(x) for x in (*numbers[:5],)):
        raise ValueError(f"claim {name!r} has a number that is not finite: {numbers}")
    value, low, high, base, against, at_least, at_most = numbers
    if not low <= value <= high:
        raise ValueError(f"claim {name!r}: the value {value:g} is outside its own interval [{low:g}, {high:g}]")
    made = Claim(name, text, value, (low, high), (baseline[0], base), (control[0], against), (at_least, at_most))
    _CLAIMS[name] = made
    _display([made], {CLAIM_MIME: asdict(made)})


def show_claim(text: str, value: float, *, interval: tuple[float, float], baseline: tuple[str, float], control: tuple[str, float],
               expect: tuple[float, float]) -> None:
    """Show the row that `claim` would show, and record nothing: for a claim that is not the chapter's."""
    _display([Claim("", text, value, interval, baseline, control, expect)], {})


def ledger() -> None:
    """Show every claim of this chapter so far, and whether it holds."""
    if not _CLAIMS:
        print("No claim has been recorded yet: run the chapter's cells first.")
        return
    _display(list(_CLAIMS.values()), {})


def _display(claims: list[Claim], more: dict[str, Any]) -> None:
    from IPython.display import display

    rows = [claim.row() for claim in claims]
    cells = "".join("<tr>" + "".join(f'<td style="text-align:left">{html.escape(cell)}</td>' for cell in row) + "</tr>" for row in rows)
    head = "".join(f'<th style="text-align:left">{name}</th>' for name in HEADER)
    plain = "\n".join(" | ".join(row) for row in [HEADER, *rows])
    display({"text/plain": plain, "text/html": f"<table><tr>{head}</tr>{cells}</table>", **more}, raw=True)
