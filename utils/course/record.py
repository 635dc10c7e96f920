"""The learner's record: what was tried and passed, and what was guessed. One JSON file beside the course.

`PROBE_TO_STEER_PROGRESS` names another file. Deleting it loses only the record; re-running the check cells
brings back what was passed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from filelock import FileLock

from utils.paths import ROOT, atomic_write


NEW_ENTRY = {"tries": 0, "hints": 0, "passed": None}


def progress_file() -> Path:
    """Where progress is kept."""
    return Path(os.environ.get("PROBE_TO_STEER_PROGRESS") or ROOT / "progress.json")


def read_record() -> dict[str, dict]:
    """All of it: {exercise: its row, "guesses": the guesses}. Empty where there is none, or where it was damaged."""
    path = progress_file()
    try:
        record = json.loads(path.read_text("utf-8"))
        if isinstance(record, dict) and all(isinstance(row, dict) for row in record.values()):
            return record
    except FileNotFoundError:
        return {}
    except OSError as error:
        print(f"[fix] {path} cannot be read ({error}): your progress is not kept. Move what lies there, or set PROBE_TO_STEER_PROGRESS.")
        return {}
    except (ValueError, RecursionError):
        pass
    # Cut off by a full disk, or edited: keep it for its owner and start again.
    aside = path.with_suffix(".damaged.json")
    try:
        os.replace(path, aside)
    except OSError as error:
        print(f"[fix] {path.name} is damaged and cannot be moved aside ({error}): your progress is not kept. Delete it.")
        return {}
    print(f"[fix] {path.name} could not be read; it was moved to {aside.name}. Re-run your check cells to rebuild it.")
    return {}


def entry_of(name: str) -> dict:
    """An exercise's row of the record. What someone wrote into it by hand, and is no count or date, does not count."""
    kept = read_record().get(name, {})
    return {**NEW_ENTRY, **{key: value for key, value in kept.items() if type(value) is int or (key == "passed" and isinstance(value, str))}}


def update_entry(name: str, **changes: Any) -> None:
    """Change an exercise's row."""
    update_record(name, lambda row: {**NEW_ENTRY, **row, **changes})


def update_record(name: str, change: Callable[[dict], dict]) -> None:
    """Replace what the record holds under `name` ({} if nothing yet); others may write at the same time."""
    path = progress_file()
    try:
        with FileLock(f"{path}.lock", timeout=5):
            record = read_record()
            atomic_write(path, json.dumps({**record, name: change(record.get(name, {}))}, indent=1))
    except OSError as error:
        print(f"[fix] Your progress could not be saved in {path} ({error}). The check itself is not affected.")
