"""The course on Python 3.12 and 3.13, where they are at hand: every file is Python there, and the fast tests pass.

An environment for the second: `make test VENV=.venv-3.13 PYTHON=python3.13`, or any that `PROBE_TO_STEER_PYTHON_3_13` names.
"""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from utils.paths import ROOT

FAST = ["tests/test_answer.py", "tests/test_hooks.py", "tests/test_intervals.py", "tests/test_probes.py", "tests/test_plots.py", "tests/test_lazy.py",
        "tests/course/test_checking.py", "tests/course/test_slicing.py"]
OTHERS = pytest.mark.parametrize("version", ["3.12", "3.13"])


def bare(version):
    """An interpreter of this version, on the path or of pyenv; a shim that leads nowhere is none."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"), "versions").glob(f"{version}.*/bin/python")
    for found in (shutil.which(f"python{version}"), *pyenv):
        if found and subprocess.run([found, "--version"], capture_output=True).returncode == 0:
            return found
    pytest.skip(f"there is no Python {version} on this machine")


def furnished(version):
    """One in whose environment the course is installed."""
    named = os.environ.get(f"PROBE_TO_STEER_PYTHON_{version.replace('.', '_')}", ROOT / f".venv-{version}" / "bin" / "python")
    if not Path(named).exists():
        pytest.skip(f"no environment of Python {version}: make one with `make test VENV=.venv-{version} PYTHON=python{version}`")
    return str(named)


@OTHERS
def test_every_file_is_python_there(version, tmp_path):
    done = subprocess.run([bare(version), "-W", "error", "-m", "compileall", "-q", "utils", "tests", "solutions", "benchmarks"], cwd=ROOT,
                          capture_output=True, text=True, env={**os.environ, "PYTHONPYCACHEPREFIX": str(tmp_path)})
    assert done.returncode == 0, done.stdout + done.stderr


@OTHERS
def test_the_doctor_speaks_there(version):
    """Nothing is installed: that is what it says, and not a traceback."""
    done = subprocess.run([bare(version), "-B", "-m", "utils", "doctor"], cwd=ROOT, capture_output=True, text=True)
    assert f"[ok]  Python {version}" in done.stdout and "make learn" in done.stdout and not done.stderr


@OTHERS
def test_the_fast_tests_pass_there(version):
    done = subprocess.run([furnished(version), "-B", "-m", "pytest", "-p", "no:cacheprovider", *FAST], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:]
