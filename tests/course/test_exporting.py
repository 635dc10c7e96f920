"""Exports against nbgrader's and otter's own commands: a right notebook gets all points, a wrong one some, an empty one none.

The tools live in an environment of their own in the cache, which sees the course's packages and adds what they lack.
"""

import ast
import csv
import hashlib
import inspect
import json
import os
import re
import site
import subprocess
import sys
import venv
from pathlib import Path

import nbformat
import pytest

from utils.course.chapters import read_chapter, stems
from utils.course.exercises import load_chapter
from utils.course.exporting import export
from utils.course.points import points
from utils.paths import ROOT, cache_dir

STEM = "00_start_here"
EXERCISES = load_chapter(STEM)
KNOWN = "gather_last_token"
"""What the wrong notebook has right."""
ALL = sum(exercise.importance for exercise in EXERCISES.values())
SCORES = {"right": ALL, "wrong": EXERCISES[KNOWN].importance, "empty": 0}
TOOLS = ("nbgrader==0.9.5", "otter-grader==7.0.0")


@pytest.fixture(scope="session")
def tool():
    """`tool(folder, *words)` runs a command of nbgrader or otter in a folder, and returns what it said."""
    lock = hashlib.sha256((ROOT / "requirements.lock").read_bytes()).hexdigest()[:12]
    home = cache_dir() / "test-tools" / f"{'-'.join(TOOLS)}-{sys.version_info.major}.{sys.version_info.minor}-{lock}"
    python, done = home / "bin" / "python", home / "done"
    if not done.exists():  # made in place: the scripts in it name their folder
        venv.create(home, with_pip=True, clear=True)
    inside = subprocess.run([python, "-c", "import site; print(site.getsitepackages()[0])"], capture_output=True, text=True, check=True)
    # written every time: another clone with the same lock has its packages elsewhere
    Path(inside.stdout.strip(), "course.pth").write_text("\n".join(site.getsitepackages()))
    if not done.exists():
        subprocess.run([python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *TOOLS], check=True, capture_output=True)
        done.touch()
    environment = {**os.environ, "PATH": f"{home / 'bin'}{os.pathsep}{os.environ['PATH']}", "PROBE_TO_STEER_COURSE": str(ROOT), "OMP_WAIT_POLICY": "PASSIVE"}

    def start(folder, *words):
        return subprocess.Popen([python, "-m", *words], cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def run(folder, *words):
        process = start(folder, *words)
        said, _ = process.communicate(timeout=300)
        assert process.returncode == 0, said[-3000:]
        return said

    run.start = start
    return run


def answered(handed_out, path, kind):
    """Write what a learner hands in, made from what was handed out."""
    notebook = nbformat.read(handed_out, as_version=4)
    for cell in notebook.cells if kind != "empty" else []:
        name = next((name for name in EXERCISES if cell.cell_type == "code" and cell.source.startswith(f"def {name}(")), None)
        if name and (kind == "right" or name == KNOWN):
            cell.source = inspect.getsource(EXERCISES[name].reference)
        elif name:
            cell.source = cell.source.rsplit("raise NotImplementedError", 1)[0].rstrip().removesuffix("# YOUR CODE HERE").rstrip() + "\n    return 0"
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, path)


def leaks(handed_out):
    """Lines of the references' bodies in what learners get."""
    lines = set()
    for exercise in EXERCISES.values():
        source = inspect.getsource(exercise.reference)
        lines |= {line.strip() for line in source.splitlines()[ast.parse(source).body[0].body[0].end_lineno:]}
    return {line for line in lines if len(line) > 14} & {line.strip() for line in handed_out.read_text("utf-8").replace("\\n", "\n").split("\n")}


def test_nbgrader_takes_it_and_grades(tool, tmp_path):
    path = export("nbgrader", STEM, tmp_path)
    assert path == tmp_path / "source" / STEM / f"{STEM}.ipynb"
    tool(tmp_path, "nbgrader", "generate_assignment", STEM)
    handed_out = tmp_path / "release" / STEM / f"{STEM}.ipynb"
    assert not leaks(handed_out) and "HIDDEN" not in handed_out.read_text() and "NotImplementedError" in handed_out.read_text()
    for kind in SCORES:
        answered(handed_out, tmp_path / "submitted" / kind / STEM / f"{STEM}.ipynb", kind)
    tool(tmp_path, "nbgrader", "autograde", STEM)
    tool(tmp_path, "nbgrader", "export")
    rows = csv.DictReader((tmp_path / "grades.csv").read_text().splitlines())
    assert {row["student_id"]: float(row["score"]) for row in rows} == SCORES


def test_otter_takes_it_and_grades(tool, tmp_path):
    path = export("otter", STEM, tmp_path)
    tool(tmp_path, "otter", "assign", path.name, "dist")  # it runs the tests on the references, and stops if one fails
    handed_out, (tests,) = tmp_path / "dist" / "student" / path.name, (tmp_path / "dist" / "autograder").glob("*.zip")
    assert not leaks(handed_out) and "fresh_cases" not in handed_out.read_text() and "NotImplementedError" in handed_out.read_text()
    running = {}
    for kind in SCORES:
        answered(handed_out, tmp_path / kind / path.name, kind)
        running[kind] = tool.start(tmp_path / kind, "otter", "run", path.name, "-a", str(tests), "--no-logo")
    for kind, process in running.items():
        said, _ = process.communicate(timeout=300)
        results = json.loads((tmp_path / kind / "results.json").read_text())["tests"]
        assert sum(made.get("score", 0) for made in results) == SCORES[kind], said
        assert sum(made.get("max_score", 0) for made in results) == ALL


@pytest.mark.parametrize("stem", stems())
def test_every_chapter_can_be_exported(stem, tmp_path):
    """Valid notebooks, and for nbgrader names and points as its schema wants them."""
    for name in ("nbgrader", "otter"):
        notebook = nbformat.read(export(name, stem, tmp_path), as_version=4)
        nbformat.validate(notebook)
        if name == "nbgrader":
            marks = [cell.metadata.nbgrader for cell in notebook.cells if "nbgrader" in cell.metadata]
            ids = [mark.grade_id for mark in marks]
            assert len(set(ids)) == len(ids) and all(re.fullmatch(r"[a-zA-Z0-9_\-]+", one) for one in ids)
            assert [mark.points for mark in marks if mark.grade] == [exercise.importance for exercise in read_chapter(stem).exercises.values()]


def test_points_are_all_or_an_error(capfd):
    """Nothing on stderr, whatever the answer writes there: nbgrader would take the points."""
    reference = EXERCISES[KNOWN].reference

    def loud(acts, mask):
        import sys
        import warnings

        warnings.warn("look")
        print("look", file=sys.stderr)
        return reference(acts, mask)

    assert points(KNOWN, loud, 3) == 3.0 and capfd.readouterr().err == ""
    with pytest.raises(AssertionError, match="last-column"):
        points(KNOWN, lambda acts, mask: acts[:, -1], 3)
    with pytest.raises(AssertionError, match="the reference itself"):
        points(KNOWN, reference, 3)


def test_an_unknown_chapter_is_named(tmp_path):
    done = subprocess.run([sys.executable, "-m", "utils", "export", "otter", "99_nothing", str(tmp_path)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and "No chapter is called 99_nothing" in done.stderr
