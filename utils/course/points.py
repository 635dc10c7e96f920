"""What a test cell of nbgrader or otter calls: it raises for a wrong answer, and ends in the points of a right one."""

from __future__ import annotations

import contextlib
import inspect
import io
import secrets
import warnings
from collections.abc import Callable

with contextlib.redirect_stderr(io.StringIO()):  # nbgrader takes all points for a single word on stderr
    from utils.course.exercises import find_exercise
    from utils.course.judging import CHECK_SEEDS, judge


def points(name: str, answer: Callable, most: float = 1.0, *, fresh: bool = True) -> float:
    """`most` points if `answer` is right on the check's cases and, unless `fresh` is False, on cases nobody has seen.

    Raises AssertionError with what went wrong. Nothing is written to stderr: not by the answer either.
    """
    exercise = find_exercise(name)
    assert inspect.unwrap(answer) is not exercise.reference, f"{name} is the reference itself"
    seeds = (*CHECK_SEEDS, secrets.randbits(31) + len(CHECK_SEEDS)) if fresh else CHECK_SEEDS
    with contextlib.redirect_stderr(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        verdict = judge(exercise, answer, seed=seeds)
    assert verdict.passed, "\n".join([verdict.headline, *(f"{label}: {text}" for label, text in verdict.lines)])
    return float(most)
