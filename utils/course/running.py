"""Run an answer: on copies, under a deadline, with no way out of the kernel; whatever it does, an `Outcome` comes back."""

from __future__ import annotations

import builtins
import contextlib
import copy
import ctypes
import inspect
import io
import linecache
import os
import signal
import sys
import sysconfig
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any
from unittest import mock

import torch

from utils.course.comparing import difference
from utils.course.exercises import Case
from utils.paths import ROOT

SECONDS_PER_ANSWER = 3.0


@dataclass
class Outcome:
    """What one call did: `kind` is value, raised, exited, timeout, mutated or hooks-left."""

    kind: str
    value: Any = None
    error: str = ""
    trace: str = ""
    printed: str = ""


class OutOfTime(BaseException):
    """The answer ran for too long. Not an Exception, so that the answer's own handlers let it through."""


@contextlib.contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """Raise OutOfTime in the body after `seconds`, again and again should a bare `except` swallow it.

    A signal also interrupts blocking calls, but only the main thread on Unix can have one; elsewhere the
    exception is set from a timer thread and arrives at the next bytecode.
    """
    if hasattr(signal, "setitimer") and threading.current_thread() is threading.main_thread():
        def ring(*_: Any) -> None:
            raise OutOfTime

        before = signal.signal(signal.SIGALRM, ring)
        signal.setitimer(signal.ITIMER_REAL, seconds, 0.05)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
    else:
        thread, done = ctypes.c_ulong(threading.get_ident()), threading.Event()

        def watch() -> None:
            wait = seconds
            while not done.wait(wait):
                ctypes.pythonapi.PyThreadState_SetAsyncExc(thread, ctypes.py_object(OutOfTime))
                wait = 0.05

        threading.Thread(target=watch, daemon=True).start()
        try:
            yield
        finally:
            done.set()


@contextlib.contextmanager
def _no_way_out(function: Callable) -> Iterator[None]:
    """Turn exit(), quit() and os._exit() into SystemExit: inside a kernel the first two would stop it."""
    def leave(*_: Any) -> None:
        raise SystemExit

    in_notebook = {name: leave for name in ("exit", "quit") if name in getattr(function, "__globals__", {})}
    with contextlib.ExitStack() as stack:
        if in_notebook:
            stack.enter_context(mock.patch.dict(function.__globals__, in_notebook))
        stack.enter_context(mock.patch.object(os, "_exit", leave))
        stack.enter_context(mock.patch.object(builtins, "exit", leave, create=True))
        stack.enter_context(mock.patch.object(builtins, "quit", leave, create=True))
        yield


def _copied(value: Any) -> Any:
    """A deep copy in which models stay themselves: they are big, and answers may not change them anyway."""
    if isinstance(value, torch.nn.Module):
        return value
    if isinstance(value, (list, tuple)):
        return type(value)(_copied(item) for item in value)
    if isinstance(value, dict):
        return {key: _copied(item) for key, item in value.items()}
    return copy.deepcopy(value)


def _hooks_on(args: Iterable[Any]) -> list[tuple[dict, int]]:
    """(dictionary, key) of every hook on the models among `args`, but for those that the libraries keep for themselves."""
    found = []
    for module in (m for model in args if isinstance(model, torch.nn.Module) for m in model.modules()):
        for hooks in (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks):
            found += [(hooks, key) for key, hook in hooks.items() if hasattr(module, "fwd_hooks") or not _is_the_librarys(hook)]
    return found


def _is_the_librarys(hook: Callable) -> bool:
    # On a hook point every hook is somebody's, wrapped by the library; elsewhere its own module tells whose it is.
    return (getattr(hook, "__module__", None) or "").split(".")[0] in ("transformer_lens", "transformers")


def run(function: Callable, case: Case, seconds: float = SECONDS_PER_ANSWER) -> Outcome:
    """Call `function` on copies of the case's arguments; whatever it does, return an Outcome."""
    args, kwargs = _copied(case.args), _copied(case.kwargs)
    every = [*args, *kwargs.values()]
    printed = io.StringIO()
    hooks_before, gradients = [key for _, key in _hooks_on(every)], torch.is_grad_enabled()
    try:
        with contextlib.redirect_stdout(printed), _no_way_out(function), deadline(seconds):
            value = function(*args, **kwargs)
    except OutOfTime:
        return Outcome("timeout", error=f"no answer after {seconds:g} seconds", printed=printed.getvalue())
    except SystemExit:
        return Outcome("exited", error="it called exit()", printed=printed.getvalue())
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        return Outcome("raised", error=f"{type(error).__name__}: {error}", trace=learner_trace(error, function),
                       printed=printed.getvalue())
    finally:
        torch.set_grad_enabled(gradients)
        left = [(hooks, key) for hooks, key in _hooks_on(every) if key not in hooks_before]
        for hooks, key in left:
            hooks.pop(key, None)
    if left:
        return Outcome("hooks-left", value, error=f"{len(left)} hook(s) left on the model", printed=printed.getvalue())
    names = [*parameter_names(function, case), *kwargs]
    changed = [name for name, mine, original in zip(names, every, [*case.args, *case.kwargs.values()])
               if not isinstance(original, torch.nn.Module) and difference(mine, original, exact=True)]
    if changed:
        return Outcome("mutated", value, error=", ".join(changed), printed=printed.getvalue())
    return Outcome("value", value, printed=printed.getvalue())


def parameter_names(function: Callable, case: Case) -> list[str]:
    try:
        names = list(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        names = []
    return (names + [f"argument {i + 1}" for i in range(len(names), len(case.args))])[:len(case.args)]


_LIBRARIES = tuple({os.path.realpath(path) for path in (*sysconfig.get_paths().values(), sys.prefix)}
                   - {os.path.realpath(sysconfig.get_path("data"))})


def _is_learners(filename: str, function: Callable) -> bool:
    code = getattr(function, "__code__", None)
    if code is not None and filename == code.co_filename:
        return True
    real = os.path.realpath(filename)
    return not filename.startswith("<frozen") and not real.startswith((*_LIBRARIES, str(ROOT / "utils"), str(ROOT / "tests")))


def learner_trace(error: BaseException, function: Callable) -> str:
    """The traceback's lines that the learner wrote, the last one last; nothing of ours, nothing of a library."""
    linecache.checkcache()
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if _is_learners(frame.filename, function)]
    return "\n".join(f"  line {frame.lineno} in {frame.name}:  {frame.line}" for frame in frames)
