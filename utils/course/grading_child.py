"""The process in which a stranger's functions run while they are graded.

It gets the code cells and one exercise's name, runs the statements that the name depends on, then calls the answer
with one case at a time and sends back what came of it. References, cases' expected values and paths never come here.

With `--server FD` it is the process that the others come from: it imports what is slow to import, then forks one
child for every request, after it has ended the child before and emptied its folder.
"""

from __future__ import annotations

import ast
import asyncio
import gc
import importlib
import os
import shutil
import signal
import socket
import sys
import time
from inspect import CO_COROUTINE
from types import SimpleNamespace
from typing import Any, BinaryIO

from utils.course import exercises
from utils.course.codec import decode, encode, receive, send
from utils.course.exercises import Case
from utils.course.running import OutOfTime, Outcome, deadline, run, said
from utils.course.seat_belt import arm, limit
from utils.course.slicing import Statement, needed_for, read_cells

SECONDS_PER_STATEMENT = 10.0
SECONDS_TO_DEFINE = 40.0
SECONDS_TO_ENCODE = 5.0
LIMITS = {"memory_mb": 2048, "file_mb": 64, "cpu_seconds": 300}
PROCESSES = 64


def prepare(with_model: bool) -> None:
    """Import what answers need, so that no child has to."""
    import einops  # noqa: F401
    import jaxtyping  # noqa: F401
    import numpy  # noqa: F401
    import torch.nn.functional  # noqa: F401

    _shell()
    if with_model:
        from utils.models import tiny_model

        tiny_model(0)  # what it imports lazily is then there


def _shell() -> Any:
    """An IPython shell, so that magics do here what they do in a notebook; programs that it would start do nothing."""
    from IPython.core.interactiveshell import InteractiveShell
    from IPython.utils.text import SList
    from traitlets.config import Config

    if InteractiveShell.initialized():
        return InteractiveShell.instance()
    quiet = Config()
    quiet.HistoryManager.enabled = False
    shell = InteractiveShell.instance(config=quiet)
    shell.builtin_trap.activate()
    shell.system = shell.system_raw = shell.system_piped = lambda *_, **__: None
    shell.getoutput = lambda *_, **__: SList()
    return shell


class Answer:
    """One exercise's answer: the statements that it depends on, run; then the function."""

    def __init__(self, name: str, cells: list[list], exercise_names: dict[str, str]) -> None:
        """Args: cells: [number, source] of the code cells. exercise_names: {exercise: chapter} of the course."""
        self.name, self.problems, self.needed = name, [], []
        shell = _shell()
        self.namespace = shell.user_ns
        try:
            with deadline(SECONDS_TO_DEFINE):
                statements, broken = read_cells(cells, shell.transform_cell, lambda magic: shell.find_line_magic(magic) is not None)
                self.needed = needed_for(name, statements, exercise_names)
                self.problems += [f"cell {cell.cell}: {cell.error}" for cell in broken if name in dict(cells)[cell.cell]]
        except OutOfTime:
            self.problems.append(f"its cells could not be read in {SECONDS_TO_DEFINE:g} seconds")

    def import_modules(self) -> None:
        """Load the libraries before the doors close: some look around the machine while they are imported."""
        for node in (st.node for st in self.needed):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module] if isinstance(node, ast.ImportFrom) else []
            for name in filter(None, names):
                try:
                    importlib.import_module(name)
                except BaseException:  # it will fail again, and be reported, when their own line runs
                    pass

    def define(self) -> None:
        """Run the statements as a kernel would: an error ends its cell.

        Not so an error that comes from being here (no such file, package, GPU or time): in the notebook there was none.
        """
        left, stopped, doubtful = SECONDS_TO_DEFINE, set(), set()
        for st in self.needed:
            if st.cell in stopped:
                continue
            seconds = min(SECONDS_PER_STATEMENT, max(left, 0.1))
            started = time.monotonic()
            try:
                with deadline(seconds):
                    self._run(st)
            except BaseException as error:
                why = f"stopped after {seconds:g} seconds" if isinstance(error, OutOfTime) else said(error)
                self.problems.append(f"cell {st.cell}, line {st.node.lineno}: {why}"[:500])
                if _is_of_this_place(error) or st.uses & doubtful:
                    doubtful |= st.binds | st.changes
                else:
                    stopped.add(st.cell)
            left -= time.monotonic() - started

    def _run(self, st: Statement) -> None:
        result = eval(st.code, self.namespace)
        if st.code.co_flags & CO_COROUTINE:  # top-level await
            asyncio.run(result)

    @property
    def is_there(self) -> bool:
        """Whether the notebook has anything under this name; where its cells failed, there is at least a reason to show."""
        return self.name in self.namespace or any(self.name in st.binds for st in self.needed) or bool(self.problems)

    def call(self, case: Case, seconds: float) -> Outcome:
        """Run one case. A name that is no function is an error as in a notebook; one that nothing binds is a stub."""
        function = self.namespace.get(self.name)
        why = "; ".join(self.problems[:5])
        if callable(function):
            outcome = run(function, case, seconds)
            if outcome.kind == "raised" and self.problems:
                outcome.error += f"   [before that, {why}]"
            return outcome
        if self.name in self.namespace:
            return Outcome("raised", error=f"TypeError: {self.name} is {type(function).__name__}, not a function")
        return Outcome("raised", error=f"NameError: {self.name} is not defined: {why}" if self.problems else "NotImplementedError: not defined")


def _is_of_this_place(error: BaseException) -> bool:
    return isinstance(error, (OSError, ImportError, MemoryError, OutOfTime)) or any(word in said(error) for word in ("CUDA", "NVIDIA", "MPS"))


def serve(inbox: BinaryIO, outbox: BinaryIO, sandboxed: bool) -> None:
    """Read a definition, then calls; write outcomes. Returns when the other side is gone."""
    hello = decode(receive(inbox))
    prepare(hello["with_model"])
    limit(**LIMITS, processes=PROCESSES if sandboxed else None)
    exercises.exercise_names = lambda: hello["exercises"]  # `find_exercise` then goes on to open the reference, which is noted
    answer = Answer(hello["name"], hello["cells"], hello["exercises"])
    if not sandboxed:
        answer.import_modules()
    flag = arm(refuse=not sandboxed)
    answer.define()
    send(outbox, encode({"cells": sorted({st.cell for st in answer.needed}), "is_there": answer.is_there, "reached": flag["reached"]}))
    while True:
        try:
            request = decode(receive(inbox))
        except EOFError:
            return
        case = Case("")
        vars(case).update(request["case"])
        outcome = answer.call(case, request["seconds"])
        reply, flag["reached"] = {**vars(outcome), "reached": flag["reached"]}, False
        send(outbox, _encoded(reply))


def _encoded(reply: dict[str, Any]) -> bytes:
    """The reply, its value an empty object where it cannot travel: right it can not be."""
    try:
        with deadline(SECONDS_TO_ENCODE):  # what is looked at may be the learner's own class
            message = encode(reply, strict=False)
        if len(message) <= LIMITS["file_mb"] << 20:
            return message
    except BaseException:
        pass
    return encode({**reply, "value": SimpleNamespace()}, strict=False)


# --- the process that the others come from ------------------------------------------------------------------


def be_server(control: socket.socket, sandboxed: bool) -> None:
    """Fork a child for every socket that arrives on `control`; on anything else end the last child. Returns at its end."""
    prepare(with_model=False)
    import utils.probes  # noqa: F401  and with it scikit-learn, which several chapters' answers call

    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # no threads before a fork
    home, child = os.getcwd(), 0
    _hide(True)
    control.send(b"r")
    while True:
        message, fds, _, _ = socket.recv_fds(control, 1, 1)
        if child:
            _end(child, sandboxed)
            _empty(home)
        child = 0
        if not message:
            return
        if message == b"m":
            prepare(with_model=True)
        if fds:
            gc.freeze()  # else each child looks through all that was imported, and copies it by that
            child = os.fork()
            if child == 0:
                control.close()
                _hide(False)
                os.setsid()
                _be_child(fds[0], sandboxed)
            os.close(fds[0])
        control.send(b"k")


def _be_child(fd: int, sandboxed: bool) -> None:
    try:
        with socket.socket(fileno=fd) as channel:
            serve(channel.makefile("rb"), channel.makefile("wb"), sandboxed)
    finally:
        os._exit(0)


def _end(child: int, sandboxed: bool) -> None:
    """End a child and what it has started: as the first process of a sandbox all others, else those of its group."""
    try:
        if sandboxed and os.getpid() == 1:
            os.kill(-1, signal.SIGKILL)
        else:
            os.killpg(child, signal.SIGKILL)
    except ProcessLookupError:
        pass
    try:
        while os.waitpid(-1, 0):
            pass
    except ChildProcessError:
        pass


def _empty(folder: str) -> None:
    """Remove what a child left behind, whatever rights it took away."""
    for where, folders, _ in os.walk(folder):
        for name in folders:
            os.chmod(os.path.join(where, name), 0o700, follow_symlinks=False) if not os.path.islink(os.path.join(where, name)) else None
    for entry in os.scandir(folder):
        shutil.rmtree(entry.path, ignore_errors=True) if entry.is_dir(follow_symlinks=False) else os.unlink(entry.path)


def _hide(hidden: bool) -> None:
    """Keep children from reading or changing this process's memory through the system (Linux)."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(4, 0 if hidden else 1)  # PR_SET_DUMPABLE


def main(words: list[str]) -> None:
    """`--server FD [--sandboxed]`, or nothing: one child that talks over standard input and output."""
    null = os.open(os.devnull, os.O_RDWR)
    sys.path.insert(0, "")  # as in a kernel: modules of the working folder
    if words:
        os.dup2(null, 1)
        be_server(socket.socket(fileno=int(words[1])), "--sandboxed" in words)
        return
    inbox, outbox = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(null, 0)
    os.dup2(null, 1)
    serve(inbox, outbox, sandboxed=False)


if __name__ == "__main__":
    main(sys.argv[1:])
