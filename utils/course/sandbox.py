"""Where graded code runs: in a bubblewrap sandbox where there is one, behind a seat belt elsewhere.

Inside the sandbox there are Python, its libraries, `utils` and, if it is there, the default model, all read-only, and one
small empty folder. There is no network, no other process to be seen, and no reference: `solutions/` and `tests/` are not
mounted. All that runs inside ends with the process that started it.

A server (`utils.course.grading_child`) imports torch once and forks a child for each answer. Before it does, it ends all
that the last one left and empties the folder.
"""

from __future__ import annotations

import atexit
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

from utils.course.codec import decode, encode, receive, send
from utils.default_model import DEFAULT_MODEL, default_folder
from utils.paths import ROOT

SECONDS_TO_START = 180.0
SECONDS_TO_FORK = 30.0
HOME_MB = 256
_COURSE = "/course"
_SYSTEM = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/nix/store", "/etc/ld.so.cache", "/etc/alternatives", "/etc/localtime",
           "/sys/devices/system/cpu")
_CHILD = ("-B", "-m", "utils.course.grading_child")


class NoSandbox(RuntimeError):
    """The server could not be started."""


@cache
def has_sandbox() -> bool:
    """Whether bubblewrap is here and works: in many containers it may not make namespaces. Tried once, in the way it will be used."""
    if not _program() or not hasattr(os, "fork"):
        return False
    try:
        done = subprocess.run([*_bwrap(), os.path.realpath(sys.executable), "-S", "-c", "import ctypes, json"], env=_environment(_COURSE, f"{_COURSE}/chapters"),
                              stdin=subprocess.DEVNULL, capture_output=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def how_it_is_guarded() -> str:
    """One line for the teacher: what keeps graded code from the machine."""
    if has_sandbox():
        return "[ok]  graded code runs in a sandbox (bubblewrap): no network, no references, nothing to write to"
    reason = "does not work here" if _program() else "is not here"
    return (f"[fix] bubblewrap {reason}: a hook inside Python keeps out accidents and curiosity, and no one who means harm. "
            "To grade people you do not know: install bubblewrap (Linux), or use the container of docs/grading.md")


def _program() -> str:
    return shutil.which("bwrap") or ""


def _bwrap() -> list[str]:
    """The command line up to the program. What lies below the course's folder is covered, then the libraries in it are put back."""
    root = str(ROOT)
    folders = _library_folders()
    outside = [path for path in folders if not _is_below(path, root)]
    words = [_program(), "--unshare-all", "--die-with-parent", "--new-session", "--as-pid-1", "--cap-drop", "ALL", "--proc", "/proc", "--dev", "/dev"]
    for path in (*_SYSTEM, *outside):
        words += ["--ro-bind-try", path, path]
    covered = any(_is_below(root, path) for path in (*_SYSTEM, *outside))
    words += ["--tmpfs", root] if covered else []
    for path in folders:
        if path not in outside:
            words += ["--ro-bind", path, path]
    words += ["--remount-ro", root] if covered else []
    words += ["--ro-bind", f"{root}/utils", f"{_COURSE}/utils", "--ro-bind-try", str(default_folder()), f"{_COURSE}/cache/models/{DEFAULT_MODEL}"]
    size = ["--size", str(HOME_MB << 20)] if _knows_size() else []
    return [*words, *size, "--tmpfs", f"{_COURSE}/chapters", "--remount-ro", "/dev", "--remount-ro", "/", "--chdir", f"{_COURSE}/chapters"]


@cache
def _knows_size() -> bool:
    """bubblewrap before 0.7 cannot limit the empty folder; memory and the size of a file are limited all the same."""
    return b"--size" in subprocess.run([_program(), "--help"], capture_output=True).stdout


def _library_folders() -> list[str]:
    """Where Python and its packages lie. Of the course's own folder only a virtual environment in it counts."""
    python = os.path.dirname(os.path.realpath(sys.executable))
    found = [os.path.realpath(path) for path in (sys.base_prefix, python, *_search_path()) if os.path.isdir(path)]
    return sorted(path for path in set(found) if not any(_is_below(path, other) for other in set(found) - {path}))


def _search_path() -> list[str]:
    """The folders of installed packages, in Python's order."""
    return [path for path in sys.path if os.path.isabs(path) and os.path.isdir(path)
            and (not _is_below(os.path.realpath(path), str(ROOT)) or _is_below(os.path.abspath(path), os.path.abspath(sys.prefix)))]


def _is_below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip(os.sep) + os.sep)


def _environment(course: str, home: str) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if key in ("SYSTEMROOT", "LD_LIBRARY_PATH", "LANG", "LC_ALL")}
    return {**kept, "HOME": home, "USERPROFILE": home, "TMPDIR": home, "TMP": home, "MPLCONFIGDIR": home, "IPYTHONDIR": home,
            "PATH": "", "PYTHONPATH": os.pathsep.join([course, *map(os.path.realpath, _search_path())]), "PROBE_TO_STEER_CACHE": os.path.join(course, "cache"),
            "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}


class Child:
    """The far end of one child. Reading and writing never last longer than they are told to."""

    def __init__(self, inbox: BinaryIO, outbox: BinaryIO, process: subprocess.Popen | None = None) -> None:
        self._inbox, self._outbox, self._process = inbox, outbox, process

    def ask(self, message: dict[str, Any], seconds: float) -> Any:
        """Send a message and wait. Raises TimeoutError, EOFError or OSError if the child died, ValueError if it sent nonsense."""
        result: list[Any] = []

        def talk() -> None:
            try:
                send(self._outbox, encode(message))
                result.append(decode(receive(self._inbox)))
            except Exception as error:
                result.append(error)

        thread = threading.Thread(target=talk, daemon=True)
        thread.start()
        thread.join(seconds)
        if not result:
            raise TimeoutError
        if isinstance(result[0], Exception):
            raise result[0]
        return result[0]

    def close(self) -> None:
        """Let go of the child; a process of its own is ended."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        for pipe in (self._inbox, self._outbox):
            try:
                pipe.close()
            except OSError:  # what could not be sent any more
                pass


class Server:
    """Makes children. Started on first use, and again should it die."""

    def __init__(self) -> None:
        self.sandboxed = has_sandbox()
        self._process: subprocess.Popen | None = None
        self._control: socket.socket | None = None
        self._folder: tempfile.TemporaryDirectory | None = None
        self._has_model = False

    def child(self, with_model: bool = False) -> Child:
        """A fresh child; the one before it is ended. Raises NoSandbox when none can be started."""
        if not hasattr(os, "fork"):
            return self._separate_child()
        try:
            return self._forked_child(with_model)
        except (OSError, EOFError):  # it was killed, for want of memory maybe: once more from the beginning
            self.close()
        try:
            return self._forked_child(with_model)
        except (OSError, EOFError) as error:
            self.close()
            raise NoSandbox(f"the process that grades could not be started ({type(error).__name__}: {error})") from error

    def _forked_child(self, with_model: bool) -> Child:
        if self._process is None:
            self._start()
        if with_model and not self._has_model:
            self._tell(b"m", [], SECONDS_TO_START)
            self._has_model = True
        ours, theirs = socket.socketpair()
        with theirs:
            self._tell(b"f", [theirs.fileno()], SECONDS_TO_FORK)
        child = Child(ours.makefile("rb"), ours.makefile("wb"))
        ours.close()  # the two files keep it open
        return child

    def _start(self) -> None:
        self._control, theirs = socket.socketpair()
        if self.sandboxed:
            before, course, home = _bwrap(), _COURSE, f"{_COURSE}/chapters"
        else:
            course = self._copied_course()
            before, home = [], os.path.join(course, "chapters")
        with theirs:
            self._process = subprocess.Popen(
                [*before, os.path.realpath(sys.executable), *_CHILD, "--server", str(theirs.fileno()), *(["--sandboxed"] if self.sandboxed else [])],
                cwd=None if self.sandboxed else home, env=_environment(course, home), pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self._hear(b"r", SECONDS_TO_START)

    def _copied_course(self) -> str:
        """A copy of utils alone: from there no relative path leads to the references."""
        self._folder = tempfile.TemporaryDirectory(prefix="grade-", ignore_cleanup_errors=True)
        course = os.path.realpath(self._folder.name)
        shutil.copytree(ROOT / "utils", Path(course, "utils"), ignore=shutil.ignore_patterns("__pycache__"))
        Path(course, "chapters").mkdir()
        return course

    def _separate_child(self) -> Child:
        """Where a process cannot be forked (Windows): one that imports everything anew."""
        course = self._copied_course() if self._folder is None else os.path.realpath(self._folder.name)
        home = os.path.join(course, "chapters")
        process = subprocess.Popen([sys.executable, *_CHILD], cwd=home, env=_environment(course, home),
                                   stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        return Child(process.stdout, process.stdin, process)

    def _tell(self, word: bytes, fds: list[int], seconds: float) -> None:
        socket.send_fds(self._control, [word], fds)
        self._hear(b"k", seconds)

    def _hear(self, word: bytes, seconds: float) -> None:
        self._control.settimeout(seconds)
        if self._control.recv(1) != word:
            raise EOFError("it ended")

    def close(self) -> None:
        """End the server and all that it started."""
        if self._control is not None:
            self._control.close()
        if self._process is not None:
            try:
                self._process.wait(5)  # it ends its last child first
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        if self._folder is not None:
            self._folder.cleanup()
        self._process = self._control = self._folder = None
        self._has_model = False


@cache
def server() -> Server:
    """This process's server; it ends with the process."""
    made = Server()
    atexit.register(made.close)
    return made
