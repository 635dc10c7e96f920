"""The setup cell: the very text that stands in every chapter, in an environment with Colab's versions of what it runs on."""

import os
import re
import subprocess
import sys
import venv
from pathlib import Path

import pytest
from packaging.utils import canonicalize_name

from utils.course.building import student_notebook
from utils.course.chapters import SETUP, read_chapter, repository, stems
from utils.paths import ROOT

COLAB = Path(__file__).with_name("colab.txt")
REST = COLAB.with_name("colab_rest.txt")
HELD = dict(line.split("==") for line in COLAB.read_text("utf-8").split() if "==" in line)
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
    """A virtual environment with google.colab and Colab's versions, and git told that the course's address is a local clone."""
    place = tmp_path_factory.mktemp("colab")
    venv.create(place / "venv", with_pip=True)
    python = place / "venv" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    site = Path(subprocess.run([python, "-c", "import site; print(site.getsitepackages()[0])"], capture_output=True, text=True, check=True).stdout.strip())
    (site / "google" / "colab").mkdir(parents=True)
    (site / "google" / "colab" / "__init__.py").write_text(STAND_IN)
    (site / "like_colab.pth").write_text("import google.colab\n")  # in the kernels that it starts, too
    environment = {**os.environ, "PROBE_TO_STEER_CACHE": str(place / "cache"), "COLAB_RELEASE_TAG": "a test"}
    environment.pop("PYTHONPATH", None)
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "-r", COLAB, "-r", REST], env=environment, check=True)
    clone = place / "course.git"
    subprocess.run(["git", "clone", "--quiet", "--bare", str(ROOT), str(clone)], check=True)
    content = place / "content"
    content.mkdir()
    environment |= {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": f"url.file://{clone}.insteadOf", "GIT_CONFIG_VALUE_0": repository()}
    return python, content, environment


def run_cell(colab):
    python, content, environment = colab
    code = "import IPython, ipykernel, ipywidgets, numpy, plotly, psutil\n" + setup_cell() + "\nprint(check.__module__, sys.path[0])"
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


def test_what_colabs_kernel_runs_on_stays(colab):
    """After the setup every version is Colab's own, and no second JupyterLab stands beside it."""
    python, _, environment = colab
    frozen = subprocess.run([python, "-m", "pip", "list", "--format=freeze"], env=environment, capture_output=True, text=True, check=True).stdout
    now = {canonicalize_name(name): number for name, _, number in (line.partition("==") for line in frozen.splitlines())}
    assert {name: now[canonicalize_name(name)] for name in HELD} == HELD
    assert not {"jupyterlab", "kaleido"} & now.keys()


RUN = """\
import sys
from utils.course.chapters import read_chapter
from utils.course.solved import execute
run = execute(read_chapter(sys.argv[1]), static=False, settings=dict(text.split("=", 1) for text in sys.argv[2:]))
html = [output for cell in run.notebook.cells for output in cell.get("outputs", []) if "plotly" in output.get("data", {}).get("text/html", "")]
print(len(run.ledger), "claims", len(run.broken), "broken", len(html), "figures")
"""


def run_chapter(colab, stem, *settings):
    """(claims, broken ones, figures) of a chapter run with Colab's versions, from the clone that the setup cell made."""
    python, content, environment = colab
    done = subprocess.run([python, "-c", RUN, stem, *settings], cwd=content / "probe-to-steer", capture_output=True, text=True,
                          env={**environment, "PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}", "OMP_WAIT_POLICY": "PASSIVE"})
    assert done.returncode == 0, done.stderr[-3000:]
    return tuple(map(int, re.findall(r"\d+", done.stdout.splitlines()[-1])))


def test_a_chapter_runs_on_colabs_versions(colab, odd_model):
    claims, _, figures = run_chapter(colab, "00_start_here", f"MODEL={str(odd_model('neox'))!r}")
    assert claims >= 5 and figures >= 5


@pytest.mark.skipif(not os.environ.get("PROBE_TO_STEER_SLOW"), reason="PROBE_TO_STEER_SLOW is not set: it takes a quarter of an hour")
@pytest.mark.parametrize("stem", ["00_start_here", "11_linear_probes", "31_reading_features"])
def test_what_is_claimed_holds_on_colabs_versions(colab, stem):
    claims, broken, figures = run_chapter(colab, stem)
    assert claims >= 5 and figures >= 5 and broken == 0


def test_what_cannot_be_added_is_said_and_not_forced():
    """pip is asked for what contradicts the kernel: it changes nothing, and its reason comes back."""
    from utils.course.ready import install, running_versions

    assert {"numpy", "torch", "pytest"} <= running_versions().keys()
    assert "ERROR" in install(["packaging>=9999"], running_versions())


def test_a_package_that_changed_under_the_kernel_asks_for_a_restart(tmp_path):
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import numpy; numpy.__version__ = '1.0'; from utils.course import ready; ready()"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and "[fix] numpy changed" in done.stdout and "restart the kernel" in done.stdout


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
