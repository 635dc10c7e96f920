"""Write the student notebooks, and never over someone's work."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_output

from utils.course.chapters import Chapter, edition, read_chapter, tags_of
from utils.course.solved import refresh, stored_ledger
from utils.course.survey import build_survey
from utils.paths import atomic_write


def student_notebook(chapter: Chapter) -> NotebookNode:
    """The student edition with the expected figures of the solved run and a fingerprint of itself."""
    notebook = edition(chapter, solved=False, ledger=stored_ledger(chapter))
    solved = chapter.path("solved")
    drawn = {cell.id: cell for cell in nbformat.read(solved, as_version=4).cells} if solved.exists() else {}
    for cell in notebook.cells:
        if "figure" in tags_of(cell) and cell.id in drawn:
            images = [output.data["image/png"] for output in drawn[cell.id].outputs if "image/png" in output.get("data", {})]
            cell.outputs = [new_output("display_data", {"image/png": image, "text/plain": "The figure to expect; run the cell to draw yours."})
                            for image in images]
    notebook.metadata["probe_to_steer"]["built"] = fingerprint(notebook)
    return notebook


def fingerprint(notebook: NotebookNode) -> str:
    """A hash of the cells' text and outputs: it changes when someone writes in the notebook or runs it."""
    cells = [[cell.cell_type, cell.source, [[o.get("output_type"), o.get("data"), o.get("text"), o.get("ename")] for o in cell.get("outputs", [])]]
             for cell in notebook.cells]
    return hashlib.sha256(json.dumps(cells, sort_keys=True).encode()).hexdigest()


def worked_in(path: Path) -> bool:
    """Has someone written in this student notebook, or run it?"""
    try:
        notebook = nbformat.read(path, as_version=4)
    except Exception:  # not a notebook we could have built: leave it alone
        return True
    return notebook.metadata.get("probe_to_steer", {}).get("built") != fingerprint(notebook)


def build(chosen: Iterable[str]) -> int:
    """Write the student notebooks, except those with someone's work in them, and new prose into the solved ones. Returns how many were kept."""
    kept = 0
    build_survey()
    for stem in chosen:
        chapter = read_chapter(stem)
        refresh(chapter)
        path = chapter.path("student")
        if path.exists() and worked_in(path):
            kept += 1
            print(f"[kept]  chapters/{path.name} holds someone's work. Rename it, then build again, to get the new edition.")
            continue
        text = nbformat.writes(student_notebook(chapter)) + "\n"
        if not path.exists() or path.read_text("utf-8") != text:
            atomic_write(path, text)
            print(f"[built] chapters/{path.name}")
    return kept
