"""The setup cell: the very text that stands in every chapter, in an empty environment made to look like Colab, twice."""

import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from utils.course.building import student_notebook
from utils.course.chapters import SETUP, read_chapter, repository, stems
from utils.paths import ROOT

STAND_IN = '"""A stand-in: in Colab this module is loaded before the first cell runs."""\n'


def setup_cell():
    return SETUP.format(repository=repository())


def test_every_chapter_has_the_same_setup_cell():
    for stem in stems():
        cells = [cell.source for cell in student_notebook(read_chapter(stem)).cells if cell.cell_type == "code"]
        assert [source.endswith(setup_cell()) for source in cells[:2]] == [False, True], "first the picture, then the setup"
        assert sum(setup_cell() in source for source in cells) == 1


@pytest.fixture(scope="module")
def colab(tmp_path_factory):
    """An empty virtual environment with google.colab, and git told that the course's address is a local clone."""
    place = tmp_path_factory.mktemp("colab")
    venv.create(place / "venv", with_pip=True)
    python = place / "venv" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    site = Path(subprocess.run([python, "-c", "import site; print(site.getsitepackages()[0])"], capture_output=True, text=True, check=True).stdout.strip())
    (site / "google" / "colab").mkdir(parents=True)
    (site / "google" / "colab" / "__init__.py").write_text(STAND_IN)
    clone = place / "course.git"
    subprocess.run(["git", "clone", "--quiet", "--bare", str(ROOT), str(clone)], check=True)
    content = place / "content"
    content.mkdir()
    environment = {**os.environ, "GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": f"url.file://{clone}.insteadOf", "GIT_CONFIG_VALUE_0": repository(),
                   # The bounds alone would let pip take a newer torch than the one that is tested, with gigabytes of CUDA.
                   "PIP_CONSTRAINT": str(ROOT / "requirements.lock"), "PROBE_TO_STEER_CACHE": str(place / "cache")}
    environment.pop("PYTHONPATH", None)
    return python, content, environment


def run_cell(colab):
    python, content, environment = colab
    code = "import google.colab\n" + setup_cell() + "\nprint(check.__module__, sys.path[0])"
    return subprocess.run([python, "-c", code], cwd=content, env=environment, capture_output=True, text=True)


def test_setup_in_colab_twice(colab):
    first = run_cell(colab)
    assert first.returncode == 0, first.stderr[-3000:]
    assert "Installing" in first.stdout and "[ok]  packages" in first.stdout and "[fix]" not in first.stdout
    assert "utils.course.checking" in first.stdout and (colab[1] / "probe-to-steer" / "chapters").is_dir()
    second = run_cell(colab)
    assert second.returncode == 0, second.stderr[-3000:]
    assert "Installing" not in second.stdout and "[ok]  packages" in second.stdout
    assert not (colab[1] / "probe-to-steer" / "probe-to-steer").exists()


def test_setup_says_what_to_do_when_packages_are_missing(tmp_path):
    """Outside Colab nothing is installed behind the learner's back."""
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import utils.course.ready; module = sys.modules['utils.course.ready']; module.unmet_requirements = lambda: ['torch>=2.6']; module.ready()"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and "[fix] missing packages: torch>=2.6" in done.stdout and "make learn" in done.stdout


def test_a_missing_name_says_which_cell_to_run(tmp_path):
    code = ("import sys; sys.path.insert(0, %r)\nfrom IPython.core.interactiveshell import InteractiveShell\nshell = InteractiveShell.instance()\n"
            "from utils.course.ready import ready\nready()\nshell.run_cell('from utils.course.checking import check')\nshell.run_cell('check(gather_last_token)')\nshell.run_cell('nothing_of_ours')" % str(ROOT))
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert "Run the cell that defines it" in done.stdout
    assert done.stdout.count("Run the cell") == 1 and "nothing_of_ours" in done.stdout
