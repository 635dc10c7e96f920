"""What the setup cell of every chapter calls: `ready()`."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import tempfile
from importlib.metadata import packages_distributions, version
from pathlib import Path
from typing import Any

from utils.course.doctor import INSTALL, in_colab, requirements


KEPT = ("numpy", "torch", "torchvision", "torchaudio")
"""Colab builds these for its GPU: they stay as they are, loaded or not."""
WATCHED = ("numpy", "torch", "transformers", "plotly", "ipywidgets", "psutil", "ipykernel", "IPython")
"""Whose version tells that a kernel holds one thing in memory and another lies on the disk."""


def ready() -> None:
    """Make this kernel ready for a chapter, and print [ok] or [fix] per item. Safe to call twice.

    In Colab it first installs what is missing, within the bounds of pyproject.toml, and replaces nothing that the
    running kernel has loaded.
    """
    # Threads that wait for one another without spinning: where cores are shared, as on most small machines, spinning
    # makes a forward pass many times slower. OpenMP reads this when torch is loaded, hence here, in the first cell.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    missing = unmet_requirements()
    if missing and in_colab():
        print(f"Installing {len(missing)} packages; this takes a minute or two, once per Colab session.")
        problem = install(missing, running_versions())
        importlib.invalidate_caches()
        missing = unmet_requirements()
        if missing and problem:
            print(f"[fix] pip could not add {', '.join(missing)} beside what this kernel runs on: {problem}")
    if missing:
        print(f"[fix] missing packages: {', '.join(missing)}. Do: {INSTALL}")
    elif replaced := replaced_under_the_kernel():
        print(f"[fix] {' and '.join(replaced)} changed while this kernel had the old one loaded. "
              "Do: restart the kernel (Colab: Runtime, Restart session), then run this cell again")
    else:
        print(f"[ok]  packages: Python {sys.version.split()[0]}, torch {version('torch')}, transformer-lens {version('transformer-lens')}")
        _say_device()
        _say_progress()
        _explain_missing_names()


def running_versions() -> dict[str, str]:
    """{distribution: version} of all that this kernel has loaded, and of what is built for its GPU."""
    owners = packages_distributions()
    loaded = {name.partition(".")[0] for name in sys.modules}
    names = {owner for name in (*loaded, *KEPT) for owner in owners.get(name, ())}
    return {name: version(name) for name in sorted(names)}


def install(bounds: list[str], kept: dict[str, str]) -> str:
    """Let pip add `bounds` without touching `kept`, {distribution: version}. Returns why it could not, or ""."""
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    with tempfile.TemporaryDirectory() as folder:
        constraints = Path(folder, "kept.txt")
        constraints.write_text("".join(f"{name}=={number}\n" for name, number in kept.items()), "utf-8")
        done = subprocess.run([*pip, "--constraint", str(constraints), *bounds], capture_output=True, text=True, check=False)
    said = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
    return (said[0] if said else f"pip ended with {done.returncode}") if done.returncode else ""


def replaced_under_the_kernel() -> list[str]:
    """The packages of which this kernel holds another version than the one that is installed by now."""
    held = {name: getattr(sys.modules.get(name), "__version__", None) for name in WATCHED}
    return [name for name, number in held.items() if number and number.split("+")[0] != version(name).split("+")[0]]


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
