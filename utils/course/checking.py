"""What a learner types: `check(f)`, `hint(f)`, `solution(f)`, `progress()`.

Progress is one JSON file beside the course (`PROBE_TO_STEER_PROGRESS` names another). Deleting it loses
only the record of what was passed; re-running the check cells brings that back.
"""

from __future__ import annotations

import contextlib
import inspect
import os
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import date
from typing import Any
from unittest import mock

from utils.course.cards import Card, show_card
from utils.course.exercises import Exercise, exercise_names, find_exercise, load_chapter
from utils.course.guesses import guess_lines
from utils.course.judging import Verdict, shape_trace
from utils.course.record import entry_of, read_record, update_entry
from utils.paths import ROOT

_PYTEST = ("-s", "--noconftest", "-o", "addopts=", "-c", str(ROOT / "pyproject.toml"), "--rootdir", str(ROOT),
           *(word for plugin in ("terminal", "cacheprovider", "faulthandler", "warnings", "logging", "threadexception",
                                 "unraisableexception", "junitxml", "doctest", "unittest", "stepwise")
             for word in ("-p", f"no:{plugin}")))
_TRYING = threading.Lock()


class _Learner:
    """The pytest plugin that hands the learner's function to tests/test_answer.py and takes the verdict back."""

    def __init__(self, exercise: Exercise, answer: Callable) -> None:
        self.exercise, self.answer, self.verdict, self.crash = exercise, answer, None, ""

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.failed:
            self.crash = str(report.longrepr)

    def pytest_collectreport(self, report: Any) -> None:
        if report.failed:
            self.crash = str(report.longrepr)


def verdict_on(exercise: Exercise, answer: Callable) -> Verdict:
    """Judge `answer` through pytest, as the check cell does. Raises RuntimeError if pytest could not run."""
    import pytest

    learner = _Learner(exercise, answer)
    alone = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_ADDOPTS": ""}  # other plugins cost time and may break
    with mock.patch.dict(os.environ, alone), mock.patch.object(sys, "dont_write_bytecode", True):
        code = pytest.main([str(ROOT / "tests" / "test_answer.py"), *_PYTEST], plugins=[_named(learner)])
    if learner.verdict is None:
        if code == pytest.ExitCode.INTERRUPTED:
            raise KeyboardInterrupt
        raise RuntimeError(f"The check itself could not run (pytest exit code {int(code)}). This is a fault of the course, "
                           f"not of your answer.\n{learner.crash}")
    return learner.verdict


def _named(learner: _Learner) -> Any:
    class Register:
        """pytest.main registers plugins without a name; test_answer.py asks for one called 'learner'."""

        @staticmethod
        def pytest_configure(config: Any) -> None:
            config.pluginmanager.register(learner, "learner")

    return Register()


@contextlib.contextmanager
def _not_within_itself(what: str) -> Iterator[None]:
    """Raise RuntimeError where an answer that is being tried calls check or hint: that would try it again, without end."""
    if _TRYING.locked():
        raise RuntimeError(f"{what}(...) was called while your function was being tried: it stands inside it. Move it to a line, or a cell, below.")
    with _TRYING:
        yield


def check(answer: Callable) -> None:
    """Check your function against the reference, and show what is right or wrong with it.

    Raises TypeError for something that is not a function, UnknownExercise for a function with a name that
    no exercise has.
    """
    exercise = find_exercise(_name_of(answer))
    if inspect.unwrap(answer) is exercise.reference:
        raise ValueError("That is the reference itself. Write your own: `hint(...)` helps one step at a time.")
    with _not_within_itself("check"):
        verdict = verdict_on(exercise, answer)
    _record(exercise.name, verdict)
    show_card(Card(verdict.headline, verdict.lines, verdict.passed))


def hint(exercise: Callable | str) -> None:
    """Show the next hint: the idea, then the shapes in your own function, then almost the line."""
    answer = exercise if callable(exercise) else None
    found = find_exercise(_name_of(exercise) if answer else exercise)
    level = min(entry_of(found.name)["hints"], len(found.hints) - 1)
    lines = [(f"Hint {level + 1} of {len(found.hints)}", found.hints[level])]
    if level == 1:
        with _not_within_itself("hint"):
            trace = shape_trace(found, answer) if answer else ""
        lines.append(("Your shapes", trace or f"Call `hint({found.name})` with the function, without quotes, to see the shapes line by line."))
    update_entry(found.name, hints=level + 1)
    show_card(Card(f"{found.name}", lines, None))


def solution(exercise: Callable | str, now: bool = False) -> None:
    """Show the reference and its discussion: after a try of your own, or at once with `now=True`."""
    found = find_exercise(_name_of(exercise) if callable(exercise) else exercise)
    if not now and not entry_of(found.name)["tries"]:
        show_card(Card(f"{found.name}: try first", [
            ("Next", f"Write an attempt and run `check({found.name})`: the check may name what is wrong. "
                     f"After one try the solution opens; `solution({found.name}, now=True)` opens it at once.")], None))
        return
    from utils.course.solved import discussion

    show_card(Card(f"{found.name}: the reference", [("Code", inspect.getsource(found.reference).rstrip()),
                                                 ("Why", discussion(found.chapter, found.name))], None))


def progress() -> None:
    """Show every exercise: passed, tried or open, and the minutes that are left."""
    entries, lines, left, passed = read_record(), [], 0, 0
    names = exercise_names()
    for stem in dict.fromkeys(names.values()):
        rows = []
        for name, exercise in load_chapter(stem).items():
            entry = entries.get(name, {})
            done = bool(entry.get("passed"))
            passed, left = passed + done, left + (0 if done else exercise.minutes)
            state = f"passed {entry['passed']}" if done else f"tried {entry['tries']} times" if entry.get("tries") else "open"
            rows.append(f"[{'x' if done else ' '}] {name:<28} {state}")
        lines.append((stem, "\n".join(rows)))
    show_card(Card(f"{passed} of {len(names)} exercises passed, about {left} minutes of exercises left", [*lines, *guess_lines()], None))


def _name_of(answer: Any) -> str:
    if isinstance(answer, str):
        raise TypeError(f"check takes the function itself: check({answer}), without quotes.")
    if not callable(answer):
        raise TypeError(f"check takes your function, not {type(answer).__name__}: check(my_function), without calling it.")
    name = getattr(answer, "__name__", "")
    names = exercise_names()
    if name not in names:  # a lambda, a partial, or a function bound to the exercise's name
        for frame in inspect.stack()[2:4]:
            for variable, value in frame.frame.f_globals.items():
                if value is answer and variable in names:
                    return variable
    return name


def _record(name: str, verdict: Verdict) -> None:
    if verdict.status == "missing":
        return
    entry = entry_of(name)
    passed = entry["passed"] or (date.today().isoformat() if verdict.passed else None)
    hints = entry["hints"] if verdict.passed else max(1, entry["hints"])  # a card that says no shows the first hint
    update_entry(name, tries=entry["tries"] + 1, hints=hints, passed=passed)
