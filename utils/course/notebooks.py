"""A notebook as it was handed in: read without trust, so that the oddest file still gives its cells or a reason.

Nothing here runs or parses Python: a cell is text until it is in the process that grades it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MOST_BYTES = 64 * 2**20
"""A larger file is refused: it holds outputs that nobody can grade."""
MOST_IN_A_CELL = 2**20
"""Characters of a code cell that are read; a longer cell is data, and parsing it takes gigabytes."""


class NotANotebook(ValueError):
    """The file to grade is missing, cannot be read as a notebook, or belongs to no chapter."""


@dataclass(frozen=True)
class Cell:
    """One cell: its number as people count (from 1), its kind (code, markdown, raw, ...) and its text."""

    number: int
    kind: str
    source: str


@dataclass(frozen=True)
class Notebook:
    """The cells of a file, and the chapter that its metadata names, if any."""

    cells: list[Cell]
    chapter: str | None

    @property
    def code(self) -> list[Cell]:
        """The code cells that are short enough to be read."""
        return [cell for cell in self.cells if cell.kind == "code" and len(cell.source) <= MOST_IN_A_CELL]


def read_notebook(path: Path) -> Notebook:
    """Read any version of the format. Raises NotANotebook with the reason in one line."""
    try:
        size = path.stat().st_size
        if size > MOST_BYTES:
            raise NotANotebook(f"it has {size / 2**20:.0f} MB, more than the {MOST_BYTES >> 20} that are read. Clear its outputs")
        content = path.read_bytes()
    except FileNotFoundError:
        raise NotANotebook("there is no such file") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise NotANotebook(f"it cannot be opened ({error})") from None
    if not content.strip():
        raise NotANotebook("not a notebook: the file is empty")
    try:
        # json finds the encoding, a byte order mark included. No number of the format is ever long.
        tree = json.loads(content, parse_int=lambda digits: int(digits) if len(digits) < 20 else 0)
    except (ValueError, RecursionError, MemoryError) as error:
        raise NotANotebook(f"not a notebook that can be read ({type(error).__name__}: {str(error)[:200]})") from None
    cells = _cells_of(tree)
    if cells is None:
        raise NotANotebook("not a notebook: it is JSON without cells")
    found = [Cell(number, str(cell.get("cell_type", "")), _text(cell.get("source", cell.get("input"))))
             for number, cell in enumerate(cells, 1) if isinstance(cell, dict)]
    return Notebook(found, _chapter_in(tree.get("metadata")))


def _cells_of(tree: Any) -> list | None:
    """The list of cells: at the top since version 4, in worksheets before."""
    if not isinstance(tree, dict):
        return None
    sheets = tree.get("worksheets")
    if "cells" not in tree and isinstance(sheets, list):
        lists = [sheet.get("cells") for sheet in sheets if isinstance(sheet, dict)]
        return [cell for cells in lists if isinstance(cells, list) for cell in cells]
    return tree["cells"] if isinstance(tree.get("cells"), list) else None


def _text(source: Any) -> str:
    """A source is a string or a list of lines; whatever else stands there is no text."""
    if isinstance(source, list):
        return "".join(line for line in source if isinstance(line, str))
    return source if isinstance(source, str) else ""


def _chapter_in(metadata: Any) -> str | None:
    ours = metadata.get("probe_to_steer") if isinstance(metadata, dict) else None
    chapter = ours.get("chapter") if isinstance(ours, dict) else None
    return chapter if isinstance(chapter, str) else None


def chapter_of(notebook: Notebook, path: Path, names: Mapping[str, str]) -> str:
    """The chapter to grade: of the metadata, of the exercises that it answers, or of the file's name.

    Args:
        names: {exercise: chapter} of the course.

    Raises: NotANotebook.
    """
    words = {word for cell in notebook.code for word in re.findall(r"\w+", cell.source)}
    answered = [names[word] for word in names.keys() & words]
    known = sorted(set(names.values()))
    if notebook.chapter in answered or notebook.chapter in known and not answered:
        return notebook.chapter
    if answered:
        return max(known, key=answered.count)
    named = [stem for stem in known if path.name.startswith(stem)]
    if named:
        return named[0]
    raise NotANotebook("it belongs to no chapter of the course: neither its metadata nor its functions nor its name say which")


def why_missing(name: str, notebook: Notebook) -> str:
    """What may have become of an answer that no cell defines: it stands in a cell that is not code, or is too long to read."""
    for cell in notebook.cells:
        if re.search(rf"^\s*def\s+{name}\b", cell.source, re.M):
            if cell.kind != "code":
                return f"cell {cell.number} defines it, but is a {cell.kind or 'nameless'} cell: make it a code cell"
            if len(cell.source) > MOST_IN_A_CELL:
                return f"cell {cell.number} defines it, but has {len(cell.source):,} characters: split it"
    return ""


def printable(text: str) -> str:
    """`text` on one line and in characters that any terminal takes: a file's name cannot forge a row of the table."""
    return re.sub(r"[^\x20-\x7e\xa0-\u2027\u202f-\ud7ff\ue000-\U0010ffff]|[\u200b-\u200f\u2060-\u206f]", lambda found: found[0].encode("unicode_escape").decode(), text)
