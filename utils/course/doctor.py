"""What this machine needs to run the course: one line each, `[ok]` or `[fix]` with what to do.

It runs in a broken environment, so it imports nothing but the standard library until a check needs more.
"""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from utils.paths import ROOT, cache_dir

GB = 1e9
DISK_GB = 3
MEMORY_GB = 4
INSTALL = "run `make learn`, or `python -m pip install -r requirements.lock` in the course's folder"


def doctor() -> int:
    """Print one line per requirement and return how many need fixing."""
    to_fix = 0
    for check in (_python, _packages, _disk, _memory, _cores, _gpu, _model, _write_access, _network):
        try:
            for fine, text in check():
                print(f"[ok]  {text}" if fine else f"[fix] {text}", flush=True)
                to_fix += not fine
        except Exception as error:  # one broken check must not hide the others
            print(f"[fix] {check.__name__.strip('_').replace('_', ' ')}: {type(error).__name__}: {error}", flush=True)
            to_fix += 1
    return to_fix


def _python() -> Iterator[tuple[bool, str]]:
    version = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info >= (3, 11):
        yield True, f"Python {version}"
    else:
        yield False, f"Python {version}: install Python 3.11 or newer, then make the environment again with it"


def in_colab() -> bool:
    """Is this Colab, in the kernel itself or in a process that it started?"""
    return "google.colab" in sys.modules or "COLAB_RELEASE_TAG" in os.environ


def requirements() -> Iterator[tuple[str, str | None, bool]]:
    """(requirement, installed version or None, does it fit) for every bound of pyproject.toml.

    The group `lab`, what a notebook runs in, is left out in Colab, which brings its own.
    Raises ImportError in an environment that has neither pip nor packaging.
    """
    import tomllib

    try:
        from packaging.requirements import Requirement
    except ImportError:
        # pip brings its own copy: before anything is installed it is the only one.
        from pip._vendor.packaging.requirements import Requirement
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lab = [] if in_colab() else project.get("optional-dependencies", {}).get("lab", [])
    wanted = {requirement.name: requirement for requirement in map(Requirement, project["dependencies"] + lab)}
    for requirement in wanted.values():
        if requirement.marker is not None and not requirement.marker.evaluate():
            continue
        try:
            installed = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            yield str(requirement), None, False
        else:
            yield str(requirement), f"{requirement.name} {installed}", requirement.specifier.contains(installed, prereleases=True)


def _packages() -> Iterator[tuple[bool, str]]:
    """Every requirement in pyproject.toml against what is installed."""
    try:
        for bound, installed, fits in requirements():
            if fits:
                yield True, installed
            elif installed is None:
                yield False, f"{bound} is not installed: {INSTALL}"
            else:
                yield False, f'{installed} is outside of {bound}: run `python -m pip install "{bound}"`'
    except ImportError:
        yield False, f"packages: nothing is installed: {INSTALL}"


def _disk() -> Iterator[tuple[bool, str]]:
    folder = cache_dir()
    free = shutil.disk_usage(next(place for place in (folder, *folder.parents) if place.exists())).free / GB
    text = f"disk: {free:.0f} GB free for the cache in {folder}"
    if free >= DISK_GB:
        yield True, text
    else:
        yield False, f"{text}: {DISK_GB} GB are needed; free some, or set PROBE_TO_STEER_CACHE to a folder on another disk"


def _memory() -> Iterator[tuple[bool, str]]:
    try:
        import psutil
    except ImportError:
        yield False, f"memory: cannot be measured without psutil: {INSTALL}"
        return
    memory = psutil.virtual_memory()
    text = f"memory: {memory.total / GB:.0f} GB, {memory.available / GB:.0f} GB of them free"
    # A machine sold with 4 GB reports a little less: firmware and graphics keep a part.
    if memory.total / GB >= 0.9 * MEMORY_GB:
        yield True, text
    else:
        yield False, f"{text}: {MEMORY_GB} GB are needed; use a bigger machine, or Colab"


def _cores() -> Iterator[tuple[bool, str]]:
    # Containers and schedulers may give a process fewer cores than the machine has.
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    slow = "" if count >= 2 else ": the chapters' stated minutes are for 2, expect twice as many"
    yield True, f"cores: {count}{slow}"


def _gpu() -> Iterator[tuple[bool, str]]:
    try:
        import torch
    except Exception as error:  # a torch that is installed and cannot load raises what it likes
        yield False, f"GPU: torch cannot be imported ({type(error).__name__}: {error}): {INSTALL}"
        return
    if torch.cuda.is_available():
        yield True, f"GPU: {torch.cuda.get_device_name()}, used by default"
    elif torch.backends.mps.is_available():
        yield True, 'GPU: Apple MPS, used where you say device="mps"; the CPU is enough'
    else:
        yield True, "GPU: none; the CPU is enough"


def _model() -> Iterator[tuple[bool, str]]:
    try:
        from utils.default_model import DEFAULT_MODEL, WEIGHTS_SHA256, default_folder, default_problem, saved_weights_sha256

        problem = default_problem()
        if problem is None and saved_weights_sha256(default_folder()) != WEIGHTS_SHA256:
            problem = "its weights are not the expected ones"
    except ImportError as error:
        yield False, f"model: cannot be checked ({error}): {INSTALL}"
        return
    folder = default_folder()
    if problem is None:
        yield True, f"model: {DEFAULT_MODEL} is in {folder}, every weight verified"
    elif not folder.exists():
        yield False, "model: not fetched yet: run `python -m utils fetch` (94 MB, then half a minute)"
    else:
        yield False, f"model: not usable ({problem}): delete {folder}, then run `python -m utils fetch`"


def _write_access() -> Iterator[tuple[bool, str]]:
    for what, folder, otherwise in (
        ("cache folder", cache_dir(), "or set PROBE_TO_STEER_CACHE to a folder that you can write"),
        ("course folder", ROOT, "or clone the course into a folder of yours"),
    ):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder) as file:
                file.write(b"written")
        except OSError as error:
            yield False, f"{what}: {folder} cannot be written ({error.strerror}): change its permissions, {otherwise}"
        else:
            yield True, f"{what}: {folder} can be written"


def _network() -> Iterator[tuple[bool, str]]:
    """Whether pip reaches its package index, however pip is set up here (mirror, proxy, or neither)."""
    command = [sys.executable, "-m", "pip", "--timeout", "5", "--retries", "0", "--disable-pip-version-check"]
    try:
        run = subprocess.run(
            [*command, "index", "versions", "pip"], cwd=tempfile.gettempdir(), capture_output=True, timeout=30, check=False
        )
        online, why = run.returncode == 0, (run.stderr.decode(errors="replace").strip().splitlines() or ["no reason given"])[-1]
    except subprocess.TimeoutExpired:
        online, why = False, "no answer in 30 s"
    if online:
        yield True, "network: pip reaches its package index"
        return
    try:
        from utils.default_model import default_problem

        cached = default_problem() is None
    except ImportError:
        cached = False
    if cached:
        yield True, "network: offline; everything that is in the cache works"
    else:
        yield False, f"network: pip does not reach its package index ({why}): connect once and run `python -m utils fetch`"
