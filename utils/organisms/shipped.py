"""The organisms that come with the course: deltas with pinned hashes, and their envelopes."""

from __future__ import annotations

import json
from pathlib import Path

from utils.organisms.lora import Delta, load_delta
from utils.organisms.sealing import Envelope
from utils.organisms.spec import OrganismError
from utils.paths import ROOT

SHIPPED = ROOT / "utils" / "weights" / "organisms"
INDEX = "index.json"


def organism_names(folder: Path = SHIPPED) -> list[str]:
    """Their names, which say nothing."""
    return sorted(_index(folder))


def organism(name: str, folder: Path = SHIPPED) -> Delta:
    """The delta of an organism, its file's hash checked. Raises: OrganismError for another name, or another file."""
    return load_delta(folder / f"{name}.safetensors", sha256=_entry(name, folder)["sha256"])


def envelope(name: str, folder: Path = SHIPPED) -> Envelope:
    """The sealed key of an organism. To open it, commit an answer first (`auditing.open_key`)."""
    entry = _entry(name, folder)
    return Envelope(entry["salt"], entry["key"], entry["sealed"])


def _index(folder: Path) -> dict[str, dict[str, str]]:
    try:
        return json.loads((folder / INDEX).read_text("utf-8"))
    except FileNotFoundError:
        raise OrganismError(f"{folder} holds no organisms: it has no {INDEX}.") from None


def _entry(name: str, folder: Path) -> dict[str, str]:
    index = _index(folder)
    if name not in index:
        raise OrganismError(f"no organism is called {name!r}. There are: {', '.join(sorted(index))}.")
    return index[name]
