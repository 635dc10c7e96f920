"""`python -m utils learn`: the model on this machine, and JupyterLab open on the first chapter."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from utils.default_model import default_problem
from utils.paths import ROOT

FIRST_PAGE = "/lab/tree/chapters/00_start_here.ipynb"
SETTINGS = Path(__file__).parent / "lab"
"""JupyterLab's settings as the course wants them, below the learner's own: it does not ask about news or updates."""


def learn(arguments: Sequence[str] = ()) -> int:
    """Fetch the model if it is not there, open JupyterLab, and stay until it is closed. Returns its exit status.

    Args:
        arguments: passed on to `jupyter lab`, such as --no-browser or --port=8899.
    """
    if default_problem() is not None:
        from utils.models import load_model

        load_model()
    command = [sys.executable, "-m", "jupyter", "lab", f"--LabApp.default_url={FIRST_PAGE}", *arguments]
    if hasattr(os, "geteuid") and os.geteuid() == 0:  # as in a container: Jupyter refuses to run as root unless told so
        command.insert(4, "--allow-root")
    paths = [str(SETTINGS), os.environ.get("JUPYTER_CONFIG_PATH", "")]
    # Threads that wait sleep instead of spinning: many times faster where cores are shared.
    environment = {"OMP_WAIT_POLICY": "PASSIVE", **os.environ, "JUPYTER_CONFIG_PATH": os.pathsep.join(filter(None, paths))}
    try:
        return subprocess.run(command, cwd=ROOT, env=environment).returncode
    except KeyboardInterrupt:
        return 0
