"""Proof that the checks do what they promise, for every exercise, over many seeds."""

from __future__ import annotations

import json
import os
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from multiprocessing import get_context
from pathlib import Path

import torch

from utils.course.battery import KINDS, coverage
from utils.course.checking import verdict_on
from utils.course.exercises import Exercise, exercise_names, find_exercise
from utils.course.judging import judge
from utils.course.running import run
from utils.paths import atomic_write

SEEDS = 20
_MARK = {"yes": "x", "missing": "!"}
MEDIAN_MS, MAX_MS, NAMED_SHARE = 300, 1000, 0.95


@dataclass
class Audit:
    """One exercise's row. Shares are from 0 to 1; milliseconds are of whole checks, pytest included."""

    exercise: str
    chapter: str
    mistakes: int
    rejected: float
    named: float
    variants: int
    accepted: float
    seeds: int
    ms_median: float
    ms_max: float
    battery: dict[str, str] = field(default_factory=dict)
    """Each kind of `utils.course.battery`: "yes", "missing", or the reason why it does not apply."""
    faults: list[str] = field(default_factory=list)


def _not_written(*_: object, **__: object) -> None:
    raise NotImplementedError


def audit_exercise(exercise: Exercise, seeds: int = SEEDS) -> Audit:
    """Judge the reference, the stub, every variant and every mistake on each seed, and time whole checks."""
    faults = []
    rejected = named = accepted = 0
    for seed in range(seeds):
        if not judge(exercise, exercise.reference, seed=seed).passed:
            faults.append(f"seed {seed}: the reference fails")
        if judge(exercise, _not_written, seed=seed).status != "missing":
            faults.append(f"seed {seed}: the stub is not seen as missing")
        for index, variant in enumerate(exercise.variants):
            verdict = judge(exercise, variant, seed=seed)
            accepted += verdict.passed
            if not verdict.passed:
                faults.append(f"seed {seed}: variant {index + 1} fails: {verdict.lines}")
        for mistake in exercise.mistakes.values():
            verdict = judge(exercise, mistake.function, seed=seed)
            rejected += not verdict.passed
            named += verdict.mistake is not None and verdict.mistake in (mistake.slug, mistake.same_as)
            if verdict.passed or verdict.mistake not in (mistake.slug, mistake.same_as):
                faults.append(f"seed {seed}: {mistake.slug} is {'accepted' if verdict.passed else f'taken for {verdict.mistake}'}")
    milliseconds = [_timed(exercise, answer) for answer in _every_answer(exercise)]
    tried = seeds * max(len(exercise.mistakes), 1)
    return Audit(exercise.name, exercise.chapter, len(exercise.mistakes), rejected / tried, named / tried, len(exercise.variants),
                 accepted / (seeds * max(len(exercise.variants), 1)), seeds, statistics.median(milliseconds), max(milliseconds), _battery(exercise), faults)


def _battery(exercise: Exercise) -> dict[str, str]:
    """Each kind of the battery: has the exercise a case of it, or a reason to have none?"""
    cases = exercise.cases(0)
    outcomes = [run(exercise.reference, case) for case in cases]
    there = coverage(exercise, cases, {outcome.error.split(":")[0] for outcome in outcomes if outcome.kind == "raised"})
    return {kind: exercise.without.get(kind, "yes" if found else "missing") for kind, found in there.items()}


def _every_answer(exercise: Exercise) -> list[Callable]:
    return [exercise.reference, *exercise.variants, *(mistake.function for mistake in exercise.mistakes.values())]


def _timed(exercise: Exercise, answer: Callable) -> float:
    """Milliseconds of a whole check; of a slow one the best of three, since the machine may have been busy with something else."""
    milliseconds: list[float] = []
    while len(milliseconds) < 3 and min(milliseconds, default=MEDIAN_MS) >= MEDIAN_MS:
        started = time.perf_counter()
        verdict_on(exercise, answer)
        milliseconds.append(1000 * (time.perf_counter() - started))
    return min(milliseconds)


@contextmanager
def rows_of(names: Iterable[str], seeds: int = SEEDS) -> Iterator[dict[str, Future[Audit]]]:
    """Name of an exercise: its row, as soon as it is there. One process per core works on them, in their order."""
    with ProcessPoolExecutor(os.cpu_count(), get_context("spawn"), initializer=_one_thread) as pool:
        try:
            yield {name: pool.submit(_row, name, seeds) for name in names}
        finally:
            pool.shutdown(cancel_futures=True)


def _one_thread() -> None:
    torch.set_num_threads(1)
    toy = find_exercise(next(iter(exercise_names())))
    verdict_on(toy, toy.reference)  # pytest's own first start is not the exercise's time


def _row(name: str, seeds: int) -> Audit:
    return audit_exercise(find_exercise(name), seeds)


def audit(json_path: Path | None = None, seeds: int = SEEDS) -> int:
    """Print the table, write the JSON if asked. Returns how many exercises miss a promise."""
    print(f"Of the battery: x there, - does not apply, ! missing; in the order {', '.join(KINDS)}.")
    print(f"{'exercise':<28} {'chapter':<22} {'mistakes':>8} {'rejected':>8} {'named':>6} {'variants':>8} {'accepted':>8} {'seeds':>5} {'ms median':>9} {'ms max':>7} "
          f"{'battery':>{len(KINDS)}}")
    rows, failed = [], 0
    with rows_of(exercise_names(), seeds) as found:
        for row in (future.result() for future in found.values()):
            rows.append({key: value for key, value in asdict(row).items() if key != "faults"})
            print(f"{row.exercise:<28} {row.chapter:<22} {row.mistakes:>8} {row.rejected:>8.0%} {row.named:>6.0%} {row.variants:>8} {row.accepted:>8.0%} {row.seeds:>5} "
                  f"{row.ms_median:>9.0f} {row.ms_max:>7.0f} {''.join(_MARK.get(row.battery[kind], '-') for kind in KINDS)}", flush=True)
            for fault in row.faults[:8]:
                print(f"    {fault}")
            failed += not keeps_promise(row)
    if json_path:
        atomic_write(json_path, json.dumps(rows, indent=1))
    return failed


def keeps_promise(row: Audit) -> bool:
    """100% rejected, at least 95% named, 100% of the variants accepted, every kind of the battery there or excused, no other fault, and fast."""
    other = [fault for fault in row.faults if "reference" in fault or "stub" in fault]
    return (row.rejected == 1 and row.named >= NAMED_SHARE and row.accepted == 1 and not other and "missing" not in row.battery.values()
            and row.ms_median < MEDIAN_MS and row.ms_max < MAX_MS)
