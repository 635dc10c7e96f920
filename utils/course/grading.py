"""Grading a notebook: the learner's definitions, judged in a process of their own.

The process gets the definitions and one call at a time, and sends back what the call returned. The reference,
the cases and the comparison stay here. `utils.course.grading_child` is the other side and describes its limits.
"""

from __future__ import annotations

import ast
import json
import os
import re
import secrets
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
import torch

from utils.course.codec import decode, encode, receive, send
from utils.course.exercises import Case, Exercise, chapters, load_chapter
from utils.course.judging import PUBLIC_SEED, judge
from utils.course.running import Outcome
from utils.paths import ROOT, atomic_write

SECONDS_PER_CALL = 5.0
SECONDS_TO_START = 120.0
MEMORY_MB = 2048


class NotANotebook(ValueError):
    """The file to grade is missing or cannot be read as a notebook."""


@dataclass(frozen=True)
class Grade:
    """One exercise's result: pass, fail, missing, error, timeout or copied; the mistake's slug if it is one of ours."""

    exercise: str
    status: str
    mistake: str | None = None


def definitions(notebook: nbformat.NotebookNode) -> list[tuple[str, str]]:
    """(label, source) of every import, function, class and constant at the top level of the code cells, in order.

    Nothing else is kept: the long cells, the plots and the checks are never run. A cell that Python cannot
    parse is left out, after its notebook-only lines (`%magic`, `!command`) have been dropped.
    """
    kept = []
    for index, cell in enumerate(notebook.cells):
        if cell.cell_type != "code":
            continue
        lines = ["" if line.lstrip().startswith(("%", "!", "?")) else line for line in cell.source.splitlines()]
        try:
            tree = ast.parse("\n".join(lines))
        except SyntaxError:
            continue
        for node in tree.body:
            if isinstance(node, (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef)) or _is_constant(node):
                kept.append((f"cell {index + 1}", ast.unparse(node)))  # the statement alone: its line may hold another
    return kept


def _is_constant(node: ast.stmt) -> bool:
    """An assignment of a literal, or of arithmetic on literals and names: no call, so nothing long."""
    if isinstance(node, ast.Assign) and isinstance(node.value, ast.Lambda):
        return True
    return isinstance(node, (ast.Assign, ast.AnnAssign)) and node.value is not None and not any(
        isinstance(part, (ast.Call, ast.Await, ast.Yield, ast.ListComp, ast.GeneratorExp, ast.DictComp, ast.SetComp, ast.Subscript, ast.Attribute))
        for part in ast.walk(node.value))


def grade(path: Path) -> list[Grade]:
    """Grade every exercise of the notebook's chapter. Raises NotANotebook."""
    try:
        notebook = nbformat.read(path, as_version=4)
    except FileNotFoundError:
        raise NotANotebook(f"{path}: there is no such file") from None
    except Exception as error:
        raise NotANotebook(f"{path}: not a notebook that can be read ({type(error).__name__}: {error})") from None
    stem = notebook.metadata.get("probe_to_steer", {}).get("chapter", path.stem)
    if stem not in chapters():
        raise NotANotebook(f"{path}: it belongs to no chapter of the course. Name it like one ({', '.join(chapters())}) or start from the course's own file.")
    exercises, defined = load_chapter(stem).values(), definitions(notebook)
    attempted = [exercise for exercise in exercises if any(re.search(rf"^(def {exercise.name}\(|{exercise.name} =)", source, re.M) for _, source in defined)]
    takes_model = any(isinstance(arg, torch.nn.Module) for exercise in attempted for arg in exercise.cases(PUBLIC_SEED)[0].args)
    with Child(defined, takes_model) as child:
        return [grade_one(exercise, child) if exercise in attempted else Grade(exercise.name, "missing") for exercise in exercises]


def grade_one(exercise: Exercise, child: Child) -> Grade:
    """Judge one exercise on the public seed and on a fresh one: what passes only the first is a stored answer."""
    def call(_: Callable, case: Case) -> Outcome:
        return child.call(exercise.name, case)

    for seed in (PUBLIC_SEED, secrets.randbits(31) + 1):
        verdict = judge(exercise, exercise.reference, seed=seed, call=call)
        if child.reached_reference:
            child.reached_reference = False
            return Grade(exercise.name, "copied", "calls-the-solution")
        if not verdict.passed:
            stored = seed != PUBLIC_SEED
            return Grade(exercise.name, "copied", "stored-answer") if stored else Grade(exercise.name, verdict.status, verdict.mistake)
    return Grade(exercise.name, "pass")


class Child:
    """The process that holds the learner's definitions; started on the first call, and again after it died."""

    def __init__(self, defined: list[tuple[str, str]], needs_model: bool) -> None:
        self.defined, self.needs_model = defined, needs_model
        self.reached_reference = False
        self._process: subprocess.Popen | None = None
        self._folder: tempfile.TemporaryDirectory | None = None

    def __enter__(self) -> Child:
        self._folder = tempfile.TemporaryDirectory(prefix="grade-", ignore_cleanup_errors=True)
        # A copy of utils alone: from here no relative path leads to the references or the registry.
        shutil.copytree(ROOT / "utils", Path(self._folder.name, "utils"), ignore=shutil.ignore_patterns("__pycache__"))
        # Empty folders where the course has its references: whoever looks into them wanted those.
        for decoy in ("solutions", "tests/exercises"):
            Path(self._folder.name, decoy).mkdir(parents=True)
        return self

    def __exit__(self, *_: Any) -> None:
        self._stop()
        self._folder.cleanup()

    def call(self, name: str, case: Case) -> Outcome:
        """Run one case in the process."""
        try:
            if self._process is None:
                self._start()
            answer = self._exchange({"function": name, "args": case.args, "kwargs": case.kwargs, "seconds": SECONDS_PER_CALL}, SECONDS_PER_CALL + 5)
        except TimeoutError:
            self._stop()
            return Outcome("timeout", error=f"no answer after {SECONDS_PER_CALL:g} seconds")
        except (EOFError, OSError, ValueError):
            self._stop()
            return Outcome("raised", error=f"the process died: a crash, or more than {MEMORY_MB} MB of memory")
        self.reached_reference |= bool(answer.pop("reached"))
        return Outcome(**answer)

    def _start(self) -> None:
        home = self._folder.name
        kept = {key: value for key, value in os.environ.items() if key in ("PATH", "SYSTEMROOT", "LD_LIBRARY_PATH", "LANG")}
        self._process = subprocess.Popen(
            [sys.executable, "-B", "-m", "utils.course.grading_child"], cwd=home, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            env={**kept, "HOME": home, "USERPROFILE": home, "TMPDIR": home, "MPLCONFIGDIR": home, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "2"})
        self._exchange({"defined": [list(pair) for pair in self.defined], "forbidden": [str(ROOT / "solutions"), str(ROOT / "tests")],
                        "needs_model": self.needs_model, "memory_mb": MEMORY_MB}, SECONDS_TO_START)

    def _exchange(self, message: dict[str, Any], seconds: float) -> Any:
        """Send and wait. Raises TimeoutError, EOFError if the process died, ValueError if it sent nonsense."""
        result: list[Any] = []

        def talk() -> None:
            try:
                send(self._process.stdin, encode(message))
                result.append(decode(receive(self._process.stdout)))
            except Exception as error:
                result.append(error)

        thread = threading.Thread(target=talk, daemon=True)
        thread.start()
        thread.join(seconds)
        if not result:
            raise TimeoutError
        if isinstance(result[0], Exception):
            raise result[0]
        return result[0]

    def _stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            for pipe in (self._process.stdin, self._process.stdout):
                pipe.close()
            self._process = None


def grade_all(paths: list[Path], json_path: Path | None) -> int:
    """Grade notebooks, print a line per exercise, write the JSON if asked. Returns how many could not be read."""
    results, unreadable = [], 0
    for path in paths:
        try:
            grades = grade(path)
        except NotANotebook as error:
            print(f"[fix] {error}")
            unreadable += 1
            continue
        passed = sum(made.status == "pass" for made in grades)
        print(f"{path}: {passed} of {len(grades)} passed")
        for made in grades:
            print(f"  {made.status:<8} {made.exercise}" + (f"  ({made.mistake})" if made.mistake else ""))
        results.append({"notebook": str(path), "exercises": [made.__dict__ for made in grades]})
    if json_path:
        atomic_write(json_path, json.dumps(results, indent=1))
    return unreadable
