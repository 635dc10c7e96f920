"""Grading notebooks: each answer is judged in a process of its own, and agrees with what a kernel would have said.

The process gets the code cells, one name and one call at a time, and sends back what the call returned. The reference,
the cases and the comparison stay here. `utils.course.sandbox` says where the process runs, `utils.course.slicing`
which statements it runs, and `utils.course.grading_class` grades many notebooks.
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from utils.course.exercises import Case, Exercise, exercise_names, load_chapter
from utils.course.judging import CHECK_SEEDS, PUBLIC_SEED, Verdict, judge
from utils.course.notebooks import Cell, Notebook, chapter_of, read_notebook, why_missing
from utils.course.running import Outcome, run
from utils.course.sandbox import Child, server

SECONDS_PER_CALL = 5.0
SECONDS_TO_DEFINE = 100.0
SECONDS_PER_EXERCISE = 120.0
MEMORY_MB = 2048
MOST_WORDS = 600
_KINDS = {"value", "raised", "exited", "timeout", "mutated", "hooks-left", "changed", "shared"}
_DIED = f"the process died: a crash, or more than {MEMORY_MB} MB of memory"


@dataclass(frozen=True)
class Grade:
    """One exercise's result.

    Attributes:
        status: pass, fail, missing, error, timeout or copied.
        mistake: the slug if it is one of ours; what was copied.
        message: why it is no pass, in the words of the check.
    """

    exercise: str
    status: str
    mistake: str | None = None
    message: str = ""


def grade(path: Path) -> list[Grade]:
    """Grade every exercise of the notebook's chapter. Raises NotANotebook, NoSandbox."""
    notebook, names = read_notebook(Path(path)), exercise_names()
    exercises = load_chapter(chapter_of(notebook, Path(path), names)).values()
    words = {word for cell in notebook.code for word in re.findall(r"\w+", cell.source)}
    return [_grade_one(exercise, notebook, names) if exercise.name in words else Grade(exercise.name, "missing", message=why_missing(exercise.name, notebook))
            for exercise in exercises]


def _grade_one(exercise: Exercise, notebook: Notebook, names: dict[str, str]) -> Grade:
    """Judge one exercise on the seeds of the check and on a fresh one."""
    with Answer(exercise, notebook.code, names) as answer:
        for seed in (CHECK_SEEDS, fresh := _fresh_seed()):
            verdict = judge(exercise, exercise.reference, seed=seed, call=lambda _, case: answer.call(case))
            if answer.reached_reference:
                return Grade(exercise.name, "copied", "calls-the-solution", "it opened a file of references")
            if verdict.passed:
                continue
            if verdict.status == "missing":
                return Grade(exercise.name, "missing", message=why_missing(exercise.name, notebook))
            if seed == fresh and _holds_stored_values(answer.source, exercise):
                return Grade(exercise.name, "copied", "stored-answer", "it passes the public cases only, and their results stand in its source")
            where = f"right on the cases of the check, wrong on fresh ones (seed {seed}): " if seed == fresh else ""
            return Grade(exercise.name, verdict.status, verdict.mistake, where + _in_words(verdict))
    return Grade(exercise.name, "pass")


@cache
def _fresh_seed() -> int:
    """Of the cases that nobody has seen: one for all that this process grades, so that they are drawn, and the reference run on them, once.

    Answers see their arguments and cannot hand them on: each has a process of its own, an empty folder and no network.
    """
    return secrets.randbits(31) + len(CHECK_SEEDS)


def _in_words(verdict: Verdict) -> str:
    """What happened, without the hints: for the teacher, in one short text."""
    told = [text for label, text in verdict.lines if label in ("Call", "Came back", "It raised", "Problem", "Difference")]
    return "\n".join(told)[:MOST_WORDS]


def _holds_stored_values(source: str, exercise: Exercise) -> bool:
    """Whether three results of the check's cases stand in the source, to four decimals or more: nobody types these by chance."""
    cases = [case for seed in CHECK_SEEDS for case in exercise.cases(seed)]
    results = np.abs([number for case in cases for number in _numbers(run(exercise.reference, case).value)])
    found = set()
    for literal in set(re.findall(r"\d+\.\d{4,}", source)):
        decimals = min(len(literal.split(".")[1]), 7)
        if (abs(results - float(literal)) <= 0.51 * 10.0**-decimals).any():
            found.add(round(float(literal), 4))
    return len(found) >= 3


def _numbers(value: Any) -> Iterator[float]:
    """Every real number in a result that is not whole."""
    if isinstance(value, (torch.Tensor, np.ndarray)):
        flat = torch.as_tensor(value).detach().flatten()
        yield from (number for number in (flat.double().tolist() if flat.is_floating_point() else ()) if number % 1)
    elif isinstance(value, (list, tuple, dict)):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _numbers(item)
    elif isinstance(value, float) and value % 1:
        yield value


class Answer:
    """A learner's answer to one exercise, in a process that is started on the first call and again after it died."""

    def __init__(self, exercise: Exercise, cells: list[Cell], names: dict[str, str]) -> None:
        self.name, self.cells, self.names = exercise.name, cells, names
        self.with_model = any(isinstance(argument, torch.nn.Module) for case in exercise.cases(PUBLIC_SEED)[:1] for argument in case.args)
        self.reached_reference, self.source = False, ""
        self._child: Child | None = None
        self._given_up: Outcome | None = None
        self._until = time.monotonic() + SECONDS_PER_EXERCISE

    def __enter__(self) -> Answer:
        return self

    def __exit__(self, *_: Any) -> None:
        self._stop()

    def call(self, case: Case) -> Outcome:
        """Run one case there; whatever happens, an Outcome comes back."""
        if self._given_up:
            return self._given_up
        if time.monotonic() > self._until:
            return Outcome("timeout", error=f"its calls took more than {SECONDS_PER_EXERCISE:g} seconds together")
        try:
            if self._child is None:
                self._start()
            return self._outcome(self._child.ask({"case": vars(case), "seconds": SECONDS_PER_CALL}, SECONDS_PER_CALL + 10))
        except TimeoutError:
            self._stop()
            return Outcome("timeout", error=f"no answer after {SECONDS_PER_CALL:g} seconds")
        except (EOFError, OSError, ValueError):
            self._stop()
            return Outcome("raised", error=_DIED)

    def _start(self) -> None:
        """Raises what `Child.ask` raises; then no later call tries again, since it would only take as long."""
        self._child = server().child(self.with_model)
        try:
            made = self._child.ask({"name": self.name, "cells": [[cell.number, cell.source] for cell in self.cells], "exercises": self.names,
                                    "with_model": self.with_model}, SECONDS_TO_DEFINE)
            self.reached_reference |= bool(made["reached"])
            self.source = "\n".join(cell.source for cell in self.cells if cell.number in made["cells"])
        except TimeoutError:
            self._given_up = Outcome("timeout", error=f"the cells that it depends on ran for more than {SECONDS_TO_DEFINE:g} seconds")
            raise
        except (EOFError, OSError, ValueError, KeyError, TypeError) as error:
            self._given_up = Outcome("raised", error=f"in the cells that it depends on, {_DIED}")
            raise EOFError from error

    def _outcome(self, reply: Any) -> Outcome:
        """What the child says, if it has the form of an outcome. Raises ValueError."""
        if not isinstance(reply, dict) or reply.get("kind") not in _KINDS or not all(isinstance(reply.get(key), str) for key in ("error", "trace", "printed")):
            raise ValueError("not an outcome")
        self.reached_reference |= bool(reply.pop("reached", False))
        outcome = Outcome(reply["kind"])
        vars(outcome).update({key: value for key, value in reply.items() if key in vars(outcome)})
        return outcome

    def _stop(self) -> None:
        if self._child is not None:
            self._child.close()
        self._child = None
