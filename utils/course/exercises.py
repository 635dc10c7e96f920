"""An exercise: its reference function, cases to run it on, named mistakes and correct variants.

References live in `solutions/`, the rest in `tests/exercises/`; both are loaded by path, so that no
installed package called `tests` or `solutions` can take their place.
"""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from utils.course.battery import battery
from utils.course.cases import Case
from utils.paths import ROOT

REFERENCES = ROOT / "solutions"
REGISTRIES = ROOT / "tests" / "exercises"


class UnknownExercise(LookupError):
    """No exercise has this name."""


@dataclass(frozen=True)
class Mistake:
    """A plausible wrong answer. `same_as` names another mistake that no case can tell from this one."""

    slug: str
    message: str
    function: Callable
    same_as: str | None = None


class Exercise:
    """What the learner is asked to write, and all that is needed to judge it.

    Parameters
    ----------
    name: the function's name, unique in the course.
    difficulty, importance: 1 to 5. minutes: what a learner needs.
    learn: what the learner will know afterwards.
    cases: called with a seeded generator, yields `Case`s; the simplest first, since the first failure is shown.
    hints: the idea; a question about shapes; almost the line.
    verified, next: what a pass has shown, and what to look at now.
    equal: `equal(actual, expected) -> bool` where the specification leaves a freedom (a sign, an order).
    reveal: show what was expected; False where that would be the answer itself.
    trained: the arguments with respect to which the gradient counts, where the value is trained through.
    scaled: the arguments that the battery scales, all of them by the same factor; all floating point ones if not given.
    ends: {a whole number: from the arguments of a case, the least and the greatest that it may be there}.
    new: the specification promises new tensors: nothing is shared with an argument.
    without: kinds of the battery that do not apply, each with the reason.
    """

    def __init__(self, name: str, *, difficulty: int, importance: int, minutes: int, learn: str,
                 cases: Callable[[torch.Generator], Iterable[Case]], hints: tuple[str, str, str],
                 verified: str, next: str, equal: Callable[[Any, Any], bool] | None = None, reveal: bool = True,
                 trained: tuple[str, ...] = (), scaled: tuple[str, ...] = (), new: bool = False,
                 ends: dict[str, Callable[[dict[str, Any]], tuple[int, ...]]] | None = None, without: dict[str, str] | None = None) -> None:
        self.name, self.difficulty, self.importance, self.minutes = name, difficulty, importance, minutes
        self.learn, self.hints, self.verified, self.next, self.equal = learn, hints, verified, next, equal
        self._cases, self.reveal = cases, reveal
        self.trained, self.scaled, self.new, self.ends, self.without = trained, scaled, new, ends or {}, without or {}
        self._drawn: dict[int, list[Case]] = {}
        self.mistakes: dict[str, Mistake] = {}
        self.variants: list[Callable] = []
        self.chapter = ""
        self.reference: Callable = _no_reference

    def mistake(self, slug: str, message: str, *, same_as: str | None = None) -> Callable[[Callable], Callable]:
        """Register the decorated function as a wrong answer with this name."""
        if slug in self.mistakes:
            raise ValueError(f"{self.name} has two mistakes called {slug!r}")

        def register(function: Callable) -> Callable:
            self.mistakes[slug] = Mistake(slug, message, function, same_as)
            return function

        return register

    def variant(self, function: Callable) -> Callable:
        """Register the decorated function as another right answer."""
        self.variants.append(function)
        return function

    def cases(self, seed: int) -> list[Case]:
        """The cases of this seed, the same on every call: the author's, then those that the battery makes of them."""
        if seed not in self._drawn:
            written = list(self._cases(torch.Generator().manual_seed(seed)))
            self._drawn[seed] = [*written, *battery(self, written)]
            for case in self._drawn[seed]:
                case.new = case.new or self.new
        return self._drawn[seed]


def _no_reference(*_: Any, **__: Any) -> None:
    raise RuntimeError("this exercise was not loaded with its chapter's reference")


def chapters() -> list[str]:
    """The stems of all chapters that have exercises, in order: '00_start_here', ..."""
    return sorted(path.stem for path in REGISTRIES.glob("[0-9]*.py"))


def load_module(path: Path, role: str) -> ModuleType:
    """Import one file by path, under a name that nothing else can have."""
    name = f"_probe_to_steer_{role}_{path.stem}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


@cache
def load_chapter(stem: str) -> dict[str, Exercise]:
    """The chapter's exercises by name, each with its reference."""
    references = load_module(REFERENCES / f"{stem}.py", "reference")
    registry = load_module(REGISTRIES / f"{stem}.py", "registry")
    found = {}
    for exercise in (value for value in vars(registry).values() if isinstance(value, Exercise)):
        exercise.chapter = stem
        exercise.reference = getattr(references, exercise.name)
        found[exercise.name] = exercise
    return found


def exercise_names() -> dict[str, str]:
    """Every exercise's name and the chapter it is in, read without importing anything."""
    return {name: stem for stem in chapters()
            for name in re.findall(r'^\w+ = Exercise\(\s*"(\w+)"', (REGISTRIES / f"{stem}.py").read_text("utf-8"), re.M)}


def find_exercise(name: str) -> Exercise:
    """The exercise called `name`. Raises `UnknownExercise` with the nearest names."""
    names = exercise_names()
    if name not in names:
        near = get_close_matches(name, names, n=3)
        advice = f"Did you mean {' or '.join(near)}?" if near else f"The course has: {', '.join(sorted(names))}."
        raise UnknownExercise(f"No exercise is called {name!r}. {advice}")
    return load_chapter(names[name])[name]
