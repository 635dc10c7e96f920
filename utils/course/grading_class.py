"""A class: many notebooks graded in parallel, resumed where it was stopped, written as JSON, CSV and a page."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from tqdm.auto import tqdm

from utils.course.exercises import REFERENCES, REGISTRIES
from utils.course.grading import MOST_WORDS, grade
from utils.course.notebooks import NotANotebook, printable
from utils.course.report import as_csv, as_page
from utils.course.sandbox import NoSandbox, how_it_is_guarded
from utils.paths import ROOT, atomic_write

Row = dict[str, Any]


def grade_all(places: list[Path], *, json_path: Path | None = None, html_path: Path | None = None, csv_path: Path | None = None, anonymous: bool = False) -> int:
    """Grade notebooks and folders of them, print a line per exercise, write what is asked for. Returns how many could not be graded.

    Every file has its row, in the order given. The JSON is written after each file; where it holds a row of the same
    file, with the same content and graded by the same course, the row is kept. Raises OSError if it cannot be written.
    """
    paths = notebooks_in(places)
    known = _known(json_path)
    rows = {path: known.get(str(path)) for path in paths}
    waiting = [path for path, row in rows.items() if row is None or row["key"] != _key(path)]
    for path in filter(None, (json_path, html_path, csv_path)):  # a folder that cannot be written shows at once, not after an hour
        atomic_write(path, json.dumps(list(known.values()), indent=1) if path == json_path else "")
    _say(how_it_is_guarded())
    if len(waiting) < len(paths):
        _say(f"[ok]  {len(paths) - len(waiting)} of {len(paths)} are as they were when they were graded: kept")
    try:
        for row in tqdm(_rows(waiting), total=len(waiting), desc="graded", unit="notebook", disable=None):
            rows[Path(row["notebook"])] = row
            _say(_as_text(row))
            if json_path:
                atomic_write(json_path, json.dumps([row for row in rows.values() if row], indent=1))
    finally:
        done = [row for row in rows.values() if row]
        if html_path:
            atomic_write(html_path, as_page(done, anonymous=anonymous))
        if csv_path:
            atomic_write(csv_path, as_csv(done, anonymous=anonymous))
        if json_path:
            atomic_write(json_path, json.dumps(done, indent=1))
    return sum(row["problem"] is not None for row in done)


def notebooks_in(places: Iterable[Path]) -> list[Path]:
    """The files themselves, and all notebooks below the folders, each once."""
    found: dict[Path, None] = {}
    for place in places:
        inside = sorted(path for path in place.rglob("*.ipynb") if ".ipynb_checkpoints" not in path.parts) if place.is_dir() else [place]
        found |= dict.fromkeys(inside)
    return list(found)


def _known(json_path: Path | None) -> dict[str, Row]:
    """The rows of an earlier run, by notebook; none if the file is no such JSON."""
    try:
        rows = json.loads(json_path.read_text("utf-8")) if json_path else []
        return {row["notebook"]: row for row in rows if {"key", "problem", "exercises"} <= row.keys()}
    except (OSError, ValueError, TypeError, AttributeError, KeyError):
        return {}


@cache
def _course() -> bytes:
    """A hash of all that a grade depends on, beside the notebook."""
    files = [*sorted((ROOT / "utils" / "course").glob("*.py")), *sorted(REFERENCES.glob("*.py")), *sorted(REGISTRIES.glob("*.py"))]
    return hashlib.sha256(b"\0".join(path.read_bytes() for path in files)).digest()


def _key(path: Path) -> str | None:
    """Of the file's content and of the course: what is graded twice under one key would only be graded again."""
    try:
        return hashlib.sha256(_course() + path.read_bytes()).hexdigest()
    except (OSError, ValueError):
        return None


def _rows(paths: list[Path]) -> Iterator[Row]:
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


def _row_or_crash(path: Path, future: Future) -> Row:
    """A process that dies takes all that wait with it: each of them is then graded in a pool of its own."""
    try:
        return future.result()
    except BrokenProcessPool:
        with _pool(1) as alone:
            try:
                return alone.submit(_row, path).result()
            except BrokenProcessPool:
                return _refused(path, "the process that judged it died, for want of memory maybe")


def _row(path: Path) -> Row:
    """One notebook's entry in the JSON: `problem` says why nothing in it could be graded."""
    try:
        return {"notebook": str(path), "problem": None, "key": _key(path), "exercises": [asdict(made) for made in grade(path)]}
    except (NotANotebook, NoSandbox) as error:
        return _refused(path, str(error))
    except Exception as error:  # a notebook that the grader itself stumbles over costs that notebook alone
        return _refused(path, f"the grader failed on it ({type(error).__name__}: {str(error)[:MOST_WORDS]})")


def _refused(path: Path, problem: str) -> Row:
    """Without a key: the next run tries again, since the machine may have been at fault."""
    return {"notebook": str(path), "problem": problem, "key": None, "exercises": []}


def _as_text(row: Row) -> str:
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
    """Print, in whatever the terminal can show, above the progress bar."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    tqdm.write(text.encode(encoding, "backslashreplace").decode(encoding), file=sys.stdout)
    sys.stdout.flush()
