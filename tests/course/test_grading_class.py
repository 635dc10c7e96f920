"""A class: the command, its JSON, its table and its page; stopped and resumed; answers that look alike."""

import csv
import json
import os
import subprocess
import sys

import pytest

from utils.course import grading_class
from utils.course.exercises import load_chapter
from utils.course.grading_class import grade_all, notebooks_in
from utils.course.likeness import fingerprints, similar_answers
from utils.course.report import as_csv, as_page
from utils.paths import ROOT

CHAPTER = load_chapter("00_start_here")
IMPORTS = "import torch\nfrom torch import Tensor\nfrom jaxtyping import Bool, Float, Int\n"
GOOD = "def gather_last_token(acts, mask):\n    last = mask.long().cumsum(1).argmax(1)\n    return acts[torch.arange(len(acts)), last]"
LAST_COLUMN = "def gather_last_token(acts, mask):\n    return acts[:, -1]"
ODD = """def gather_last_token(acts, mask):
    rows = []
    for i in range(acts.shape[0]):
        where = [j for j in range(mask.shape[1]) if bool(mask[i, j])]
        rows.append(acts[i, max(where) if where else 0] * 1.0 + 0.0)
    return torch.stack(rows, dim=0).reshape(acts.shape[0], acts.shape[-1])"""


def test_the_command_and_its_json(notebook_with, tmp_path):
    """Every file has its row, in order; a file's name forges none."""
    one = notebook_with(IMPORTS, GOOD, name="one.ipynb")
    forged = notebook_with(IMPORTS, GOOD, name="a\n[fix] b: 7 of 7 passed\u2028\u202e.ipynb")
    (tmp_path / "notes.ipynb").write_text("not json")
    out, missing = tmp_path / "grades.json", tmp_path / "missing.ipynb"
    done = subprocess.run([sys.executable, "-m", "utils", "grade", str(one), str(missing), str(forged), str(tmp_path / "notes.ipynb"), "--json", str(out)],
                          cwd=ROOT, capture_output=True, text=True, env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert done.returncode == 1 and "there is no such file" in done.stdout and done.stderr == ""
    assert done.stdout.count(f": 1 of {len(CHAPTER)} passed") == 2 and not any(line.startswith("[fix] b") for line in done.stdout.split("\n"))
    first, second, third, fourth = json.loads(out.read_text())
    assert [row["notebook"] for row in (first, second, third)] == [str(one), str(missing), str(forged)]
    assert second["problem"] == "there is no such file" and second["exercises"] == [] and "JSONDecodeError" in fourth["problem"]
    assert first["problem"] is None and {"exercise": "gather_last_token", "status": "pass", "mistake": None, "message": ""} in first["exercises"]
    assert {entry["status"] for entry in first["exercises"]} == {"pass", "missing"}


@pytest.mark.parametrize("which", ["json_path", "csv_path", "html_path"])
def test_what_cannot_be_written_shows_at_once(notebook_with, tmp_path, capsys, which):
    (tmp_path / "a_file").write_text("")
    with pytest.raises(OSError):
        grade_all([notebook_with(GOOD)], **{which: tmp_path / "a_file" / "grades"})
    assert capsys.readouterr().out == ""


@pytest.fixture
def class_of_four(notebook_with, tmp_path):
    """A folder: one right, one with a named mistake, two that wrote the same odd thing under other names."""
    for name, code in {"ada": GOOD, "=ben": LAST_COLUMN, "cem": ODD, "dina": ODD.replace("rows", "found").replace("where", "real")}.items():
        notebook_with(IMPORTS, code, name=f"{name}.ipynb")
    (tmp_path / ".ipynb_checkpoints").mkdir()
    (tmp_path / ".ipynb_checkpoints" / "ada.ipynb").write_text("an old copy")
    return tmp_path


def test_a_folder_becomes_a_page_a_table_and_a_record(class_of_four, tmp_path):
    page, table, record = (tmp_path / name for name in ("report.html", "grades.csv", "grades.json"))
    assert grade_all([class_of_four], html_path=page, csv_path=table, json_path=record) == 0
    rows = list(csv.DictReader(table.read_text("utf-8").splitlines()))
    assert [row["passed"] for row in rows] == ["0", "1", "0", "0"] and {row["of"] for row in rows} == {str(len(CHAPTER))}
    assert rows[0]["gather_last_token"] == "last-column" and {row["chapter"] for row in rows} == {"00_start_here"}
    text = page.read_text("utf-8")
    assert "last-column <b>1</b>" in text and CHAPTER["gather_last_token"].mistakes["last-column"].message[:20] in text
    assert "Hardest exercises" in text and "<script" not in text
    alike = text[text.index("<h2>Similar answers"):]
    assert "cem.ipynb" in alike and "dina.ipynb" in alike and "ada.ipynb" not in alike and "no verdict" in alike

    hidden, numbers = as_page(json.loads(record.read_text()), anonymous=True), as_csv(json.loads(record.read_text()), anonymous=True)
    for name in ("ada", "ben", "cem", "dina"):
        assert f"{name}.ipynb" not in hidden and name not in numbers


def test_a_spreadsheet_runs_no_file_name(class_of_four, monkeypatch):
    monkeypatch.chdir(class_of_four)
    row = {"notebook": "=ben.ipynb", "problem": "@SUM(1)", "key": None, "exercises": []}
    assert list(csv.reader(as_csv([row]).splitlines()))[1][0] == "'=ben.ipynb"
    assert "<b>&lt;i&gt;</b>" in as_page([{**row, "notebook": "<i>"}])


def test_what_was_graded_is_kept_and_what_changed_is_graded_again(class_of_four, tmp_path, monkeypatch, capsys):
    record, graded = tmp_path / "grades.json", []
    monkeypatch.setattr(grading_class, "grade", lambda path: graded.append(path.name) or [])
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    grade_all([class_of_four], json_path=record)
    assert graded == ["=ben.ipynb", "ada.ipynb", "cem.ipynb", "dina.ipynb"]
    (class_of_four / "cem.ipynb").write_text(json.dumps({"cells": [], "metadata": {}}))
    grade_all([class_of_four], json_path=record)
    assert graded[4:] == ["cem.ipynb"] and "3 of 4 are as they were" in capsys.readouterr().out

    def stops(path):
        raise KeyboardInterrupt

    (class_of_four / "dina.ipynb").write_text(json.dumps({"cells": [], "metadata": {}}))
    monkeypatch.setattr(grading_class, "grade", stops)
    with pytest.raises(KeyboardInterrupt):
        grade_all([class_of_four], json_path=record)
    assert len(json.loads(record.read_text())) == 4  # the others are not lost, the old row of this one neither


def test_each_file_once(class_of_four):
    assert [path.name for path in notebooks_in([class_of_four / "ada.ipynb", class_of_four])] == ["ada.ipynb", "=ben.ipynb", "cem.ipynb", "dina.ipynb"]


def test_short_or_common_answers_are_not_alike(notebook_with, tmp_path):
    """Two who write the shortest right answer are no pair, nor are two who write what everyone writes."""
    paths = [notebook_with(IMPORTS, GOOD if i < 2 else ODD, name=f"{i}.ipynb") for i in range(6)]
    assert similar_answers({"00_start_here": paths}) == []
    assert fingerprints("a = b.sum(1)  ") == fingerprints("x = y.sum(1)") != fingerprints("x = y.mean(1)")
