"""The process in which a stranger's functions run while they are graded.

Before any of their code runs it drops what it can: memory is limited, and an audit hook, which Python cannot
remove, refuses to start programs, to open connections, to read outside the Python installation and this
process's own folder, and to write outside that folder. A reach for the solutions is reported.

This keeps out curiosity and accidents. It is no sandbox against someone who writes machine code: to grade
people you do not know, run the command in a container as well.
"""

from __future__ import annotations

import importlib
import linecache
import os
import sys
from typing import Any

from utils.course.codec import decode, encode, receive, send
from utils.course.exercises import Case
from utils.course.running import SECONDS_PER_ANSWER, OutOfTime, Outcome, deadline, run

_REFUSED = ("subprocess.", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.kill", "os.startfile", "socket.", "ctypes.dlopen",
            "pty.spawn", "webbrowser.")
_PATHS = {"open": 0, "os.listdir": 0, "os.scandir": 0, "os.chdir": 0, "os.walk": 0, "os.remove": 0, "os.rename": 0, "os.mkdir": 0,
          "os.rmdir": 0, "os.link": 0, "os.symlink": 0, "os.chmod": 0, "shutil.copyfile": 0, "shutil.rmtree": 0, "os.truncate": 0}
_CHANGES = {"os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.chmod", "shutil.rmtree", "os.truncate"}


def _arm(forbidden: list[str]) -> dict[str, bool]:
    """Install the audit hook. Returns the flag that it sets when the code reaches for the solutions."""
    own = os.path.realpath(os.getcwd())
    forbidden = [os.path.realpath(path) for path in forbidden] + [os.path.join(own, name) for name in ("solutions", "tests")]
    readable = [os.path.realpath(path) for path in (sys.prefix, sys.base_prefix, own, os.environ.get("SYSTEMROOT", own))]
    readable += ["/usr/lib", "/usr/share", "/lib", "/etc", "/dev/null", "/dev/urandom", "/dev/shm", "/proc/self", "/proc/cpuinfo",
                 "/proc/meminfo", "/proc/stat", "/sys/devices/system", "/sys/fs/cgroup"]
    flag = {"reached": False}

    def below(path: str, folders: list[str]) -> bool:
        return any(path == folder or path.startswith(folder.rstrip(os.sep) + os.sep) for folder in folders)

    def guard(event: str, args: tuple) -> None:
        if event.startswith(_REFUSED):
            raise PermissionError(f"{event} is switched off while grading")
        if event in _PATHS:
            path = args[_PATHS[event]]
            if not isinstance(path, (str, bytes, os.PathLike)):
                return
            real = os.path.realpath(os.fsdecode(path))
            if below(real, forbidden):
                flag["reached"] = True
                raise PermissionError("the solutions are not here while grading")
            mode = args[1] if event == "open" and len(args) > 1 else "r"
            writes = event in _CHANGES or (isinstance(mode, str) and any(letter in mode for letter in "wax+"))
            if not below(real, [own, os.devnull] if writes else readable):
                raise PermissionError(f"{real} is out of reach while grading")

    sys.addaudithook(guard)
    return flag


def _limit_memory(megabytes: int) -> None:
    try:
        import resource

        used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    except (ImportError, OSError):  # Windows and macOS: the time limit has to do
        return
    limit = used + megabytes * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _import_what_they_import(defined: list[list[str]]) -> None:
    """Load the libraries before the doors close: some look around the machine while they are imported."""
    import ast

    for _, source in defined:
        for node in ast.parse(source).body:
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
            for name in names:
                if name.split(".")[0] != "utils":
                    try:
                        importlib.import_module(name)
                    except Exception:  # it will fail again, and be reported, when their own line runs
                        pass


def _define(defined: list[list[str]]) -> dict[str, Any]:
    """Run the definitions one by one. What fails is left undefined; its exercise then says so."""
    import __future__

    namespace: dict[str, Any] = {"__name__": "__main__"}
    for i, (label, source) in enumerate(defined):
        filename = f"<{label}, part {i + 1}>"
        linecache.cache[filename] = (len(source), None, source.splitlines(keepends=True), filename)
        try:
            # Annotations stay strings: a name missing there should not cost the learner the function.
            with deadline(SECONDS_PER_ANSWER):
                exec(compile(source, filename, "exec", flags=__future__.annotations.compiler_flag), namespace)
        except (Exception, OutOfTime, SystemExit):
            continue
    return namespace


def main() -> None:
    """Read definitions, then calls, from standard input; write outcomes to standard output."""
    inbox, outbox = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    hello = decode(receive(inbox))
    _import_what_they_import(hello["defined"])
    if hello["needs_model"]:
        from utils.models import tiny_model

        tiny_model(0)  # what it imports lazily is then there
    _limit_memory(hello["memory_mb"])
    flag = _arm(hello["forbidden"])
    namespace = _define(hello["defined"])
    send(outbox, encode({"ready": True}))
    while True:
        try:
            request = decode(receive(inbox))
        except EOFError:
            return
        function = namespace.get(request["function"])
        outcome = (run(function, Case("", *request["args"], **request["kwargs"]), request["seconds"]) if callable(function)
                   else Outcome("raised", error="NotImplementedError: not defined"))
        reply = {**outcome.__dict__, "reached": flag["reached"]}
        flag["reached"] = False
        try:
            message = encode(reply)
        except TypeError:  # an object that cannot travel: right it can not be
            message = encode({**reply, "value": f"an object of type {type(outcome.value).__name__}"})
        send(outbox, message)


if __name__ == "__main__":
    main()
