"""Grading notebooks: each answer is judged in a process of its own, and agrees with what a kernel would have said.

The process gets the code cells, one name and one call at a time, and sends back what the call returned. The reference,
the cases and the comparison stay here. `utils.course.sandbox` says where the process runs, `utils.course.slicing`
which statements it runs.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch

from utils.course.exercises import Case, Exercise, exercise_names, load_chapter
from utils.course.judging import CHECK_SEEDS, PUBLIC_SEED, Verdict, judge
from utils.course.notebooks import Cell, NotANotebook, Notebook, chapter_of, printable, read_notebook, why_missing
from utils.course.running import Outcome, run
from utils.course.sandbox import Child, NoSandbox, how_it_is_guarded, server
from utils.paths import atomic_write

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


# --- a class ------------------------------------------------------------------------------------------------


def grade_all(paths: list[Path], json_path: Path | None = None) -> int:
    """Grade notebooks in parallel, print a line per exercise, write the JSON if asked. Returns how many could not be graded.

    Every file has its row, in the order given, and the JSON is written whatever happens. Raises OSError if it cannot be.
    """
    rows: list[dict[str, Any]] = []
    if json_path:
        atomic_write(json_path, "[]")  # a folder that cannot be written shows at once, not after an hour
    _say(how_it_is_guarded())
    try:
        for row in _rows(paths):
            rows.append(row)
            _say(_as_text(row))
    finally:
        if json_path:
            atomic_write(json_path, json.dumps(rows, indent=1))
    return sum(row["problem"] is not None for row in rows)


def _rows(paths: list[Path]) -> Iterator[dict[str, Any]]:
    workers = min(os.cpu_count() or 1, len(paths))
    if workers < 2:
        yield from map(_row, paths)
        return
    pool = _pool(workers)
    try:
        waiting = [pool.submit(_row, path) for path in paths]
        for path, future in zip(paths, waiting):
            yield _row_or_crash(path, future)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _pool(workers: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=torch.set_num_threads, initargs=(1,))


def _row_or_crash(path: Path, future: Future) -> dict[str, Any]:
    """A process that dies takes all that wait with it: each of them is then graded in a pool of its own."""
    try:
        return future.result()
    except BrokenProcessPool:
        with _pool(1) as alone:
            try:
                return alone.submit(_row, path).result()
            except BrokenProcessPool:
                return _refused(path, "the process that judged it died, for want of memory maybe")


def _row(path: Path) -> dict[str, Any]:
    """One notebook's entry in the JSON: `problem` says why nothing in it could be graded."""
    try:
        return {"notebook": str(path), "problem": None, "exercises": [asdict(made) for made in grade(path)]}
    except (NotANotebook, NoSandbox) as error:
        return _refused(path, str(error))
    except Exception as error:  # a notebook that the grader itself stumbles over costs that notebook alone
        return _refused(path, f"the grader failed on it ({type(error).__name__}: {str(error)[:MOST_WORDS]})")


def _refused(path: Path, problem: str) -> dict[str, Any]:
    return {"notebook": str(path), "problem": problem, "exercises": []}


def _as_text(row: dict[str, Any]) -> str:
    name = printable(row["notebook"])
    if row["problem"] is not None:
        return f"[fix] {name}: {printable(row['problem'])}"
    passed = sum(made["status"] == "pass" for made in row["exercises"])
    lines = [f"{name}: {passed} of {len(row['exercises'])} passed"]
    for made in row["exercises"]:
        why = made["mistake"] or (made["message"].split("\n")[0][:100] if made["status"] in ("missing", "error") else "")
        lines.append(f"  {made['status']:<8} {made['exercise']}" + (f"  ({printable(why)})" if why else ""))
    return "\n".join(lines)


def _say(text: str) -> None:
    """Print, in whatever the terminal can show."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    print(text.encode(encoding, "backslashreplace").decode(encoding), flush=True)
