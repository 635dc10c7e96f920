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
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import FrameType
from typing import Any
from unittest import mock

import torch

from utils.course.comparing import difference
from utils.course.exercises import Case
from utils.course.surroundings import Surroundings, tensors_of
from utils.paths import ROOT

SECONDS_PER_ANSWER = 3.0
_MOST_PRINTED = 4000
_MOST_SAID = 2000
_MOST_FRAMES = 8


@dataclass
class Outcome:
    """What one call did. `kind` is value, raised, exited, timeout, mutated, hooks-left, changed (something that is not
    the answer's to change) or shared (a result that is not new). `gradients`: by argument, where the case asks for them.
    """

    kind: str
    value: Any = None
    error: str = ""
    trace: str = ""
    printed: str = ""
    gradients: dict[str, torch.Tensor] = field(default_factory=dict)


class OutOfTime(BaseException):
    """The answer ran for too long. Not an Exception, so that the answer's own handlers let it through."""


@contextlib.contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """Raise OutOfTime in the body after `seconds`, again and again should a bare `except` swallow it.

    A signal also interrupts blocking calls, but only the main thread on Unix can have one; elsewhere the
    exception is set from a timer thread and arrives at the next bytecode.
    """
    patience = _Patience(seconds)
    if hasattr(signal, "setitimer") and threading.current_thread() is threading.main_thread():
        def ring(_: int, frame: FrameType | None) -> None:
            if wait := patience.left(frame):
                signal.setitimer(signal.ITIMER_REAL, wait, 0.05)
            else:
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
                wait = patience.left(sys._current_frames().get(thread.value))
                if not wait:
                    ctypes.pythonapi.PyThreadState_SetAsyncExc(thread, ctypes.py_object(OutOfTime))
                    wait = 0.05

        threading.Thread(target=watch, daemon=True).start()
        try:
            yield
        finally:
            done.set()


class _Patience:
    """An import under way is waited for, up to ten times as long: torn in half, it leaves a module that nothing repairs."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.latest, self.imported = seconds, time.monotonic() + 10 * seconds, False

    def left(self, frame: FrameType | None) -> float:
        """Seconds to wait before asking again; 0 when the time is up. `frame` is where the answer is now."""
        if _importing(frame) and time.monotonic() < self.latest:
            self.imported = True
            return 0.05
        wait, self.imported = (self.seconds if self.imported else 0), False
        return wait


def _importing(frame: FrameType | None) -> bool:
    """Is an import under way in this frame, or in one that called it?"""
    while frame is not None and frame.f_code.co_filename not in (__file__, "<frozen importlib._bootstrap>"):
        frame = frame.f_back
    return frame is not None and frame.f_code.co_filename != __file__


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


class _CtrlC:
    """Was Ctrl-C pressed? The signal tells, since an answer may raise KeyboardInterrupt itself, and may swallow a real one.

    Only the main thread can watch for it. Where the signal is ignored, as in a background job, no Ctrl-C can come.
    """

    def __enter__(self) -> _CtrlC:
        self.pressed, self.before = False, signal.getsignal(signal.SIGINT)
        self.here = threading.current_thread() is threading.main_thread()
        self.watched = self.here and callable(self.before)
        if self.watched:
            signal.signal(signal.SIGINT, self._note)
        return self

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.pressed = True
        self.before(number, frame)

    def __exit__(self, *_: Any) -> None:
        if self.watched:
            signal.signal(signal.SIGINT, self.before)
        if self.pressed:  # whatever the answer made of it
            raise KeyboardInterrupt

    def let_through(self, error: BaseException) -> bool:
        """May this be a real Ctrl-C that nobody could watch for?"""
        return isinstance(error, KeyboardInterrupt) and not self.here


def run(function: Callable, case: Case, seconds: float = SECONDS_PER_ANSWER) -> Outcome:
    """Call `function` on copies of the case's arguments; whatever it does, return an Outcome. Ctrl-C gets through."""
    with _CtrlC() as ctrl_c:
        return _run(function, case, seconds, ctrl_c)


def _run(function: Callable, case: Case, seconds: float, ctrl_c: _CtrlC) -> Outcome:
    args, kwargs = _copied(case.args), _copied(case.kwargs)
    every = [*args, *kwargs.values()]
    names = [*parameter_names(function, case), *kwargs]
    leaves = _ask_for_gradients({name: args[at] if isinstance(at, int) else kwargs[at] for name, at in case.trained.items()})
    printed = _Tail()
    before = Surroundings(every)
    try:
        with contextlib.redirect_stdout(printed), _no_way_out(function), deadline(seconds):
            value = function(*args, **kwargs)
    except OutOfTime:
        return Outcome("timeout", error=f"no answer after {seconds:g} seconds", printed=printed.getvalue())
    except SystemExit:
        return Outcome("exited", error="it called exit()", printed=printed.getvalue())
    except BaseException as error:
        if ctrl_c.let_through(error):
            raise
        return Outcome("raised", error=said(error), trace=learner_trace(error, function), printed=printed.getvalue())
    finally:
        hooks, changes = before.restore()
    if hooks:
        return Outcome("hooks-left", value, error=f"{hooks} hook(s) left on the model", printed=printed.getvalue())
    mutated = [name for name, mine, original in zip(names, every, [*case.args, *case.kwargs.values()])
               if not isinstance(original, torch.nn.Module) and difference(mine, original, exact=True)]
    if mutated:
        return Outcome("mutated", value, error=", ".join(mutated), printed=printed.getvalue())
    if changes:
        return Outcome("changed", value, error=", ".join(changes), printed=printed.getvalue())
    try:
        with deadline(seconds):  # the way back runs through the answer's own code, too
            shared = _shared(value, dict(zip(names, every))) if case.new else ""
            gradients = _gradients(value, leaves)
    except OutOfTime:
        return Outcome("timeout", error=f"no gradient after {seconds:g} seconds", printed=printed.getvalue())
    except BaseException as error:
        if ctrl_c.let_through(error):
            raise
        return Outcome("raised", error=f"{said(error)} (in what came back, or on the way back through it)", printed=printed.getvalue())
    if shared:
        return Outcome("shared", value, error=shared, printed=printed.getvalue(), gradients=gradients)
    return Outcome("value", value, printed=printed.getvalue(), gradients=gradients)


class _Tail(io.TextIOBase):
    """What was printed last. It holds little, however much is printed, and cannot be closed by an answer."""

    def __init__(self) -> None:
        self._text = ""

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        self._text = (self._text + text[-_MOST_PRINTED:])[-_MOST_PRINTED:]
        return len(text)

    def close(self) -> None:
        pass

    def getvalue(self) -> str:
        return self._text


def said(error: BaseException) -> str:
    """'ValueError: its message', cut to a readable length; the message may be made by the learner's own class, and fail."""
    try:
        message = str(error)
    except Exception:
        message = "(its message cannot be shown: its __str__ raises)"
    return f"{type(error).__name__}: {message}"[:_MOST_SAID]


def _ask_for_gradients(trained: dict[str, Any]) -> dict[str, torch.Tensor]:
    """{name: tensor} of the floating point tensors in these arguments, which now require a gradient."""
    leaves = {}
    for name, value in trained.items():
        parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, (list, tuple)) else [(None, value)]
        leaves |= {name if key is None else f"{name}[{key!r}]": x for key, x in parts
                   if isinstance(x, torch.Tensor) and x.is_floating_point()}
    for x in leaves.values():
        x.requires_grad_(True)
    return leaves


def _gradients(value: Any, leaves: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The gradient of a fixed weighting of all results with respect to each leaf; 0 where nothing depends on it."""
    results = [x for x in tensors_of(value) if x.is_floating_point()]
    weighted = [(x * torch.arange(1, x.numel() + 1, dtype=x.dtype).cos().view(x.shape)).sum() for x in results if x.requires_grad]
    if not leaves:
        return {}
    if not weighted:
        return {name: torch.zeros_like(x) for name, x in leaves.items()}
    found = torch.autograd.grad(sum(weighted), list(leaves.values()), allow_unused=True)
    return {name: torch.zeros_like(x) if g is None else g for (name, x), g in zip(leaves.items(), found)}


def _shared(value: Any, arguments: dict[str, Any]) -> str:
    """What a result shares its memory with, in words; "" if everything is new."""
    places = {x.untyped_storage().data_ptr(): name for name, argument in arguments.items() for x in tensors_of(argument) if x.numel()}
    seen = set()
    for x in (x for x in tensors_of(value) if x.layout == torch.strided and not x.is_nested):  # the others have no one memory
        place = x.untyped_storage().data_ptr()
        if x.numel() and place in places:
            return f"it shares its memory with {places[place]}"
        if x.numel() and place in seen:
            return "two of its tensors share their memory"
        if any(size > 1 and not step for size, step in zip(x.shape, x.stride())):
            return "many of its entries are one and the same place in memory (as `.expand` makes them)"
        seen.add(place)
    return ""


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
    lines = [f"  line {frame.lineno} in {frame.name}:  {frame.line}"[:300] for frame in frames]
    if len(lines) > _MOST_FRAMES:  # a recursion: its beginning and its end say it all
        lines[_MOST_FRAMES // 2:-_MOST_FRAMES // 2] = [f"  ... {len(lines) - _MOST_FRAMES} more calls ..."]
    return "\n".join(lines)
