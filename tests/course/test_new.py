"""A chapter made from the templates builds, and its exercise passes the audit but for the number of mistakes."""

import importlib
import shutil
import subprocess
import sys

import pytest

from utils.paths import ROOT


@pytest.fixture
def course(tmp_path):
    """A copy of the course without chapters."""
    shutil.copytree(ROOT / "utils", tmp_path / "utils", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "requirements.lock"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "tests" / "exercises").mkdir(parents=True)
    shutil.copy(ROOT / "tests" / "test_answer.py", tmp_path / "tests")
    (tmp_path / "solutions").mkdir()
    (tmp_path / "chapters").mkdir()

    def utils(*arguments):
        return subprocess.run([sys.executable, "-m", "utils", *arguments], cwd=tmp_path, capture_output=True, text=True)

    utils.root = tmp_path
    return utils


def test_a_new_chapter_with_a_new_exercise_builds_and_is_audited(course):
    assert course("new", "chapter", "98_made_in_a_test").returncode == 0
    made = course("new", "exercise", "98_made_in_a_test", "mean_activation")
    assert made.returncode == 0
    slot = made.stdout.split("solutions/98_made_in_a_test.md:\n")[1].split("Then: ")[0]
    source = course.root / "solutions" / "98_made_in_a_test.md"
    source.write_text(source.read_text().replace("## The claims of this chapter", slot + "\n## The claims of this chapter"))
    built = course("build")
    assert built.returncode == 0 and "[built] chapters/98_made_in_a_test.ipynb" in built.stdout, built.stdout + built.stderr
    text = (course.root / "chapters" / "98_made_in_a_test.ipynb").read_text()
    assert "def mean_activation" in text and "raise NotImplementedError" in text and "acts.mean(0)" not in text
    audited = course("audit")
    assert audited.returncode == 0 and "100%" in audited.stdout, audited.stdout + audited.stderr


@pytest.mark.parametrize("arguments, words", [
    (("chapter", "bad name"), "is named like"), (("exercise", "97_nowhere", "f"), "There is no chapter"), (("exercise", "97_nowhere"), "Name the exercise's function"),
])
def test_what_cannot_be_made_is_said(course, arguments, words):
    done = course("new", *arguments)
    assert done.returncode == 2 and words in done.stdout


def test_nothing_is_overwritten(course):
    course("new", "chapter", "98_made_in_a_test")
    before = (course.root / "solutions" / "98_made_in_a_test.md").read_text()
    assert course("new", "chapter", "98_made_in_a_test").returncode == 2
    assert (course.root / "solutions" / "98_made_in_a_test.md").read_text() == before


@pytest.mark.parametrize("module", ["utils", "utils.paths", "utils.course.doctor"])
def test_the_doctor_needs_nothing_installed(module):
    """Modules that have to work before pip has run import only the standard library."""
    found = importlib.import_module(module)
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import {found.__name__}; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.strip() == "False", done.stderr
