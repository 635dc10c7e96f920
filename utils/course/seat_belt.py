"""What a process can do against itself before a stranger's code runs in it: limits, and a hook that watches what is opened.

The limits hold everywhere on Unix. The hook is a seat belt, not a wall: some C functions open files without Python
noticing. `utils.course.sandbox` builds the wall, where the system has the bricks.
"""

from __future__ import annotations

import os
import re
import sys

_REFERENCE = re.compile(r"[\\/](?:solutions|tests[\\/]exercises)[\\/]\d\d_\w+\.(?:py|md|ipynb)$")
_REFUSED = ("subprocess.", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.kill", "os.startfile", "socket.", "ctypes.dlopen",
            "pty.spawn", "webbrowser.")
_PATHS = {"open": 0, "os.listdir": 0, "os.scandir": 0, "os.chdir": 0, "os.walk": 0, "os.remove": 0, "os.rename": 0, "os.mkdir": 0,
          "os.rmdir": 0, "os.link": 0, "os.symlink": 0, "os.chmod": 0, "shutil.copyfile": 0, "shutil.rmtree": 0, "os.truncate": 0}
_CHANGES = {"os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.chmod", "shutil.rmtree", "os.truncate"}
_SYSTEM = ("/usr/lib", "/usr/share", "/lib", "/etc", "/dev/null", "/dev/urandom", "/dev/shm", "/proc/self", "/proc/cpuinfo", "/proc/meminfo", "/proc/stat",
           "/sys/devices/system", "/sys/fs/cgroup")


def arm(*, refuse: bool) -> dict[str, bool]:
    """Install the audit hook, which Python cannot remove. Returns {"reached": whether a reference was opened}.

    A reference is known by its name, `solutions/NN_name.py` and its kin: opening one is refused and noted, wherever it
    would lie. Listing or walking through folders is not noted.

    Args:
        refuse: also refuse programs, connections, reading outside Python and the working folder, writing outside the latter.
    """
    flag = {"reached": False}
    own = os.path.realpath(os.getcwd())
    course = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    readable = [os.path.realpath(path) for path in (sys.prefix, sys.base_prefix, own, course, os.environ.get("SYSTEMROOT", own), *sys.path)]
    readable += _SYSTEM

    def guard(event: str, args: tuple) -> None:
        if refuse and event.startswith(_REFUSED):
            raise PermissionError(f"{event} is switched off while grading")
        if event not in _PATHS or not isinstance(args[_PATHS[event]], (str, bytes, os.PathLike)):
            return
        named = os.fsdecode(args[_PATHS[event]])
        if event == "open" and _REFERENCE.search(os.path.abspath(named)):
            flag["reached"] = True
            raise PermissionError("the solutions are not here while grading")
        if not refuse:
            return
        real = os.path.realpath(named)
        mode = args[1] if event == "open" and len(args) > 1 else "r"
        writes = event in _CHANGES or (isinstance(mode, str) and any(letter in mode for letter in "wax+"))
        if not _below(real, [own, os.devnull] if writes else readable) or _REFERENCE.search(real):
            raise PermissionError(f"{real} is out of reach while grading")

    sys.addaudithook(guard)
    return flag


def _below(path: str, folders: list[str]) -> bool:
    return any(path == folder or path.startswith(folder.rstrip(os.sep) + os.sep) for folder in folders)


def limit(memory_mb: int, file_mb: int, cpu_seconds: int, processes: int | None) -> None:
    """Limit this process: address space beyond what it has now, the size of a file, time on the processor, the number of processes.

    Windows has none of these; macOS lacks the first. The last counts all of a user's processes, so it is set only where
    the process has a user of its own; root is never bound by it.
    """
    try:
        import resource
    except ImportError:
        return
    limits = {"RLIMIT_FSIZE": file_mb << 20, "RLIMIT_CPU": cpu_seconds, "RLIMIT_CORE": 0, "RLIMIT_NOFILE": 256}
    if processes is not None:
        limits["RLIMIT_NPROC"] = processes
    try:
        with open("/proc/self/statm") as statm:
            limits["RLIMIT_AS"] = int(statm.read().split()[0]) * resource.getpagesize() + (memory_mb << 20)
    except OSError:
        pass
    for name, value in limits.items():
        try:
            resource.setrlimit(getattr(resource, name), (value, value))
        except (AttributeError, ValueError, OSError):  # not on this system, or a stricter limit holds already
            pass
