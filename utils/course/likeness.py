"""Answers that resemble each other more than chance: a hint for a teacher who then reads both, never a verdict.

An answer's fingerprints are the runs of five tokens in it, names replaced by one word and comments dropped, as in
winnowing (Schleimer, Wilkerson and Aiken, 2003, without its sampling). What the reference or many answers share
says nothing; what two answers share and hardly anybody else has, does. Text is only read, never parsed or run.
"""

from __future__ import annotations

import inspect
import re
from collections import Counter
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from utils.course.exercises import load_chapter
from utils.course.notebooks import NotANotebook, read_notebook

RUN = 5
FEWEST = 30
"""Rare runs that two answers must share: below, a short function written in the same way is no coincidence."""
LEAST_SHARE = 0.7
"""Of the rare runs of the one that has fewer."""
_WORDS = frozenset("and assert break continue def del elif else except for from if import in is lambda not or pass raise return while with yield None True False".split())


@dataclass(frozen=True)
class Pair:
    """Two notebooks whose answers to one exercise share `share` of their rare runs."""

    exercise: str
    one: str
    other: str
    share: float


def similar_answers(paths: dict[str, list[Path]]) -> list[Pair]:
    """The pairs to look at, the most alike first. `paths`: {chapter: its notebooks}."""
    pairs = []
    for stem, notebooks in paths.items():
        sources = {str(path): _code_of(path) for path in notebooks}
        for name, exercise in load_chapter(stem).items():
            expected = fingerprints(answer_in(inspect.getsource(exercise.reference), name))
            answers = {path: fingerprints(answer_in(code, name)) - expected for path, code in sources.items()}
            pairs += _alike(name, answers)
    return sorted(pairs, key=lambda pair: (-pair.share, pair.exercise, pair.one, pair.other))


def _alike(name: str, answers: dict[str, set[tuple[str, ...]]]) -> list[Pair]:
    common = Counter(run for runs in answers.values() for run in runs)
    most = max(2, len(answers) // 10)  # what more of a class share is how one writes it
    rare = {path: {run for run in runs if common[run] <= most} for path, runs in answers.items()}
    found = []
    for one, other in combinations([path for path, runs in rare.items() if len(runs) >= FEWEST], 2):
        shared = len(rare[one] & rare[other])
        share = shared / min(len(rare[one]), len(rare[other]))
        if shared >= FEWEST and share >= LEAST_SHARE:
            found.append(Pair(name, one, other, share))
    return found


def answer_in(code: str, name: str) -> str:
    """The last definition of `name` in `code`, up to the next line that is not indented, without docstring and comments."""
    starts = [found.start() for found in re.finditer(rf"^def {re.escape(name)}\(", code, re.M)]
    if not starts:
        return ""
    body = code[starts[-1]:]
    end = re.search(r"\n(?=[^\s)#])", body)
    return re.sub(r'"""(?s:.*?)"""|\'\'\'(?s:.*?)\'\'\'|#[^\n]*', "", body[:end.start()] if end else body)


def fingerprints(answer: str) -> set[tuple[str, ...]]:
    """Every run of five tokens. Names are one word, except after a dot, where they say what is called."""
    found = re.findall(r"\.\w+|\w+|[^\w\s]", answer)
    tokens = ["name" if re.match(r"[A-Za-z_]", token) and token not in _WORDS else token for token in found]
    return {tuple(tokens[i:i + RUN]) for i in range(len(tokens) - RUN + 1)}


def _code_of(path: Path) -> str:
    try:
        return "\n".join(cell.source for cell in read_notebook(path).code)
    except NotANotebook:
        return ""
