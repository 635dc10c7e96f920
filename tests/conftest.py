"""Shared fixtures: a notebook as a learner would leave it, and progress that is nobody's."""

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook


@pytest.fixture
def own_progress(tmp_path, monkeypatch):
    """A progress file of the test's own."""
    path = tmp_path / "progress.json"
    monkeypatch.setenv("PROBE_TO_STEER_PROGRESS", str(path))
    return path


@pytest.fixture
def notebook_with(tmp_path):
    """Write a learner's notebook of chapter 00 with the given code cells; returns its path."""
    def write(*cells, name="00_start_here.ipynb"):
        notebook = new_notebook(cells=[new_code_cell(cell) for cell in cells])
        notebook.metadata["probe_to_steer"] = {"chapter": "00_start_here"}
        path = tmp_path / name
        nbformat.write(notebook, path)
        return path

    return write
