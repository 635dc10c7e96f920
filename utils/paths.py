"""Where things are kept, and how a file or a folder appears there whole or not at all.

Only the standard library is used: the doctor reads this module before anything is installed.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import sys
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Iterator

ROOT = Path(__file__).resolve().parent.parent
"""The folder of the course."""

MANIFEST = "manifest.json"


def cache_dir() -> Path:
    """The folder for what can be fetched or computed again: the model, activations, wheels.

    It is the environment variable PROBE_TO_STEER_CACHE if that is set, else `probe-to-steer` in the
    platform's folder for caches. The folder may not exist yet; `atomic_write` and `atomic_folder` make it.
    """
    chosen = os.environ.get("PROBE_TO_STEER_CACHE")
    if chosen:
        return Path(chosen).expanduser().resolve()
    home = Path.home()
    if sys.platform == "win32":
        parent = os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local"
    elif sys.platform == "darwin":
        parent = home / "Library" / "Caches"
    else:
        parent = os.environ.get("XDG_CACHE_HOME") or home / ".cache"
    return Path(parent) / "probe-to-steer"


def _sibling(path: Path) -> Path:
    """A fresh name beside `path`: on the same disk, so that moving it into place is one step."""
    return path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.part")


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path to write to; it becomes `path` at the end, and vanishes if the block raises.

    Raises: OSError if the disk is full or the folder cannot be written.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _sibling(path)
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        # After the move there is nothing left to remove.
        with suppress(OSError):
            temporary.unlink()


def atomic_write(path: Path, content: bytes | str) -> None:
    """Write a whole file (text as UTF-8): a reader sees the old content or the new, never half of it.

    Raises: OSError if the disk is full or the folder cannot be written.
    """
    if isinstance(content, str):
        content = content.encode("utf-8")
    with atomic_file(path) as temporary:
        temporary.write_bytes(content)


def write_cache(path: Path, content: bytes | str) -> None:
    """`atomic_write` for what can be computed again: a full or read-only disk costs the file and a printed line, not the result."""
    try:
        atomic_write(path, content)
    except OSError as error:
        print(f"Not kept in the cache, so it will be computed again next time: {error}")


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield an empty temporary folder; it becomes `path` at the end, and vanishes if the block raises.

    If another process made `path` in the meantime, theirs stays and ours is removed: two that build the
    same thing both end up with one whole folder.

    Raises: OSError if the disk is full or the parent cannot be written.
    """
    path = Path(path)
    temporary = _sibling(path)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        try:
            os.replace(temporary, path)
        except OSError:
            # A folder cannot be moved over a folder that holds something.
            if not path.is_dir():
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_manifest(folder: Path, **facts: str) -> None:
    """Record the size in bytes of every file of `folder`, and `facts`, in its manifest. Call it last."""
    sizes = {file.name: file.stat().st_size for file in sorted(folder.iterdir()) if file.is_file()}
    atomic_write(folder / MANIFEST, json.dumps({**facts, "files": sizes}, indent=1))


def manifest_problem(folder: Path, **facts: str) -> str | None:
    """What is wrong with a folder that `write_manifest` closed, in a few words; None if nothing is.

    Sizes are compared, not contents: this costs less than a millisecond and finds what is missing or cut off.
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        files = dict(manifest["files"])
    except FileNotFoundError:
        return "it was never finished"
    except (OSError, ValueError, KeyError, TypeError):
        return f"its {MANIFEST} cannot be read"
    for key, expected in facts.items():
        if manifest.get(key) != expected:
            return f"it was made by another version of the course ({key} differs)"
    for name, size in files.items():
        file = folder / name
        if not file.is_file():
            return f"{name} is missing"
        if file.stat().st_size != size:
            return f"{name} has {file.stat().st_size:,} bytes instead of {size:,}"
    return None
