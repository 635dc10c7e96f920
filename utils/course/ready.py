"""What the setup cell of every chapter calls: `ready()`."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from importlib.metadata import version
from typing import Any

from utils.course.doctor import requirements


def ready() -> None:
    """Make this kernel ready for a chapter, and print [ok] or [fix] per item. Safe to call twice.

    In Colab it first installs what is missing, within the bounds of pyproject.toml. Torch and NumPy are never
    pinned: Colab's own are built for its GPU.
    """
    # Threads that wait for one another without spinning: where cores are shared, as on most small machines, spinning
    # makes a forward pass many times slower. OpenMP reads this when torch is loaded, hence here, in the first cell.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    missing = unmet_requirements()
    if missing and "google.colab" in sys.modules:
        print(f"Installing {len(missing)} packages; this takes a minute or two, once per Colab session.")
        subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *missing], check=False)
        importlib.invalidate_caches()
        missing = unmet_requirements()
    replaced = [name for name in ("numpy", "torch") if name in sys.modules and sys.modules[name].__version__.split("+")[0] != version(name).split("+")[0]]
    if missing:
        print(f"[fix] missing packages: {', '.join(missing)}. Do: `make learn` in the course's folder, or pip install -r requirements.lock")
    elif replaced:
        print(f"[fix] {' and '.join(replaced)} changed while this kernel had the old one loaded. Do: restart the kernel, then run this cell again")
    else:
        print(f"[ok]  packages: Python {sys.version.split()[0]}, torch {version('torch')}, transformer-lens {version('transformer-lens')}")
        _say_device()
        _say_progress()
        _explain_missing_names()


def unmet_requirements() -> list[str]:
    """The bounds of pyproject.toml that what is installed does not meet."""
    return [bound for bound, _, fits in requirements() if not fits]


def _say_device() -> None:
    import psutil
    import torch

    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU, which is enough"
    print(f"[ok]  machine: {psutil.cpu_count()} cores, {psutil.virtual_memory().available / 2**30:.0f} GiB of memory free, {gpu}")


def _say_progress() -> None:
    from utils.course.record import progress_file
    from utils.default_model import DEFAULT_MODEL, default_problem

    path = progress_file()
    print(f"[ok]  your progress is kept in {path.name}" + ("" if path.exists() else ", which your first check will make"))
    if default_problem() is None:
        print(f"[ok]  {DEFAULT_MODEL} is on this machine")
    else:
        print(f"[ok]  {DEFAULT_MODEL} will be fetched once (93 MB, then half a minute to unpack) when a cell asks for it")


def _explain_missing_names() -> None:
    """In a notebook, let a NameError for an exercise say which cell to run."""
    from IPython import get_ipython

    shell = get_ipython()
    if shell is None:
        return

    def explain(shell: Any, kind: type, error: NameError, trace: Any, tb_offset: int | None = None) -> None:
        from utils.course.exercises import exercise_names

        shell.showtraceback((kind, error, trace), tb_offset=tb_offset)
        if error.name in exercise_names():
            print(f"`{error.name}` does not exist in this kernel yet. Run the cell that defines it, further up; "
                  "after a restart of the kernel all cells above have to be run again.")

    shell.set_custom_exc((NameError,), explain)
