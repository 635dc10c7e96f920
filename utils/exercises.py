"""An exercise, and the judge of an answer to it.

An exercise is its reference function, cases to run it on, named mistakes and correct variants.
`judge` is what stands behind all three uses: the check cell in a notebook, the grading command, and CI.
References live in `solutions/`, the rest in `tests/exercises/`; both are loaded by path, so that no
installed package called `tests` or `solutions` can take their place.
"""

from __future__ import annotations

import builtins
import contextlib
import copy
import ctypes
import importlib.util
import inspect
import io
import linecache
import numbers
import os
import re
import signal
import sys
import sysconfig
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import numpy as np
import torch

from utils.paths import ROOT

REFERENCES = ROOT / "solutions"
REGISTRIES = ROOT / "tests" / "exercises"
SECONDS_PER_ANSWER = 3.0
PUBLIC_SEED = 0


class UnknownExercise(LookupError):
    """No exercise has this name."""


class Case:
    """One call that an answer has to get right: a label for people, and the arguments."""

    def __init__(self, label: str, *args: Any, **kwargs: Any) -> None:
        self.label, self.args, self.kwargs = label, args, kwargs


@dataclass(frozen=True)
class Mistake:
    """A plausible wrong answer. `same_as` names another mistake that no case can tell from this one."""

    slug: str
    message: str
    function: Callable
    same_as: str | None = None


class Exercise:
    """What the learner is asked to write, and all that is needed to judge it.

    Parameters
    ----------
    name: the function's name, unique in the course.
    difficulty, importance: 1 to 5. minutes: what a learner needs.
    learn: what the learner will know afterwards.
    cases: called with a seeded generator, yields `Case`s; the simplest first, since the first failure is shown.
    hints: the idea; a question about shapes; almost the line.
    verified, next: what a pass has shown, and what to look at now.
    equal: `equal(actual, expected) -> bool` where the specification leaves a freedom (a sign, an order).
    reveal: show what was expected; False where that would be the answer itself.
    """

    def __init__(self, name: str, *, difficulty: int, importance: int, minutes: int, learn: str,
                 cases: Callable[[torch.Generator], Iterable[Case]], hints: tuple[str, str, str],
                 verified: str, next: str, equal: Callable[[Any, Any], bool] | None = None, reveal: bool = True) -> None:
        self.name, self.difficulty, self.importance, self.minutes = name, difficulty, importance, minutes
        self.learn, self.hints, self.verified, self.next, self.equal = learn, hints, verified, next, equal
        self._cases, self.reveal = cases, reveal
        self.mistakes: dict[str, Mistake] = {}
        self.variants: list[Callable] = []
        self.chapter = ""
        self.reference: Callable = _no_reference

    def mistake(self, slug: str, message: str, *, same_as: str | None = None) -> Callable[[Callable], Callable]:
        """Register the decorated function as a wrong answer with this name."""
        if slug in self.mistakes:
            raise ValueError(f"{self.name} has two mistakes called {slug!r}")

        def register(function: Callable) -> Callable:
            self.mistakes[slug] = Mistake(slug, message, function, same_as)
            return function

        return register

    def variant(self, function: Callable) -> Callable:
        """Register the decorated function as another right answer."""
        self.variants.append(function)
        return function

    def cases(self, seed: int) -> list[Case]:
        """The cases of this seed, the same on every call."""
        return list(self._cases(torch.Generator().manual_seed(seed)))


def _no_reference(*_: Any, **__: Any) -> None:
    raise RuntimeError("this exercise was not loaded with its chapter's reference")


# --- the registry -----------------------------------------------------------------------------------------


def chapters() -> list[str]:
    """The stems of all chapters that have exercises, in order: '00_start_here', ..."""
    return sorted(path.stem for path in REGISTRIES.glob("[0-9]*.py"))


def load_module(path: Path, role: str) -> ModuleType:
    """Import one file by path, under a name that nothing else can have."""
    name = f"_probe_to_steer_{role}_{path.stem}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


@cache
def load_chapter(stem: str) -> dict[str, Exercise]:
    """The chapter's exercises by name, each with its reference."""
    references = load_module(REFERENCES / f"{stem}.py", "reference")
    registry = load_module(REGISTRIES / f"{stem}.py", "registry")
    found = {}
    for exercise in (value for value in vars(registry).values() if isinstance(value, Exercise)):
        exercise.chapter = stem
        exercise.reference = getattr(references, exercise.name)
        found[exercise.name] = exercise
    return found


def exercise_names() -> dict[str, str]:
    """Every exercise's name and the chapter it is in, read without importing anything."""
    return {name: stem for stem in chapters()
            for name in re.findall(r'^\w+ = Exercise\(\s*"(\w+)"', (REGISTRIES / f"{stem}.py").read_text("utf-8"), re.M)}


def find_exercise(name: str) -> Exercise:
    """The exercise called `name`. Raises `UnknownExercise` with the nearest names."""
    names = exercise_names()
    if name not in names:
        near = get_close_matches(name, names, n=3)
        advice = f"Did you mean {' or '.join(near)}?" if near else f"The course has: {', '.join(sorted(names))}."
        raise UnknownExercise(f"No exercise is called {name!r}. {advice}")
    return load_chapter(names[name])[name]


# --- running an answer ------------------------------------------------------------------------------------


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
    names = [*_parameters(function, case), *kwargs]
    changed = [name for name, mine, original in zip(names, every, [*case.args, *case.kwargs.values()])
               if not isinstance(original, torch.nn.Module) and difference(mine, original, exact=True)]
    if changed:
        return Outcome("mutated", value, error=", ".join(changed), printed=printed.getvalue())
    return Outcome("value", value, printed=printed.getvalue())


def _parameters(function: Callable, case: Case) -> list[str]:
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


# --- comparing --------------------------------------------------------------------------------------------

_TOLERANCE = {torch.float64: (1e-6, 1e-9), torch.float32: (1e-4, 1e-5), torch.bfloat16: (2e-2, 1e-2), torch.float16: (1e-2, 1e-3)}


def difference(actual: Any, expected: Any, *, exact: bool = False, at: str = "the result") -> str | None:
    """What is wrong with `actual`, in words, or None. Type, then length or shape, dtype, device, NaN, values."""
    if isinstance(expected, (torch.Tensor, np.ndarray)):
        return _array_difference(actual, expected, exact, at)
    if isinstance(expected, dict):
        if not isinstance(actual, dict):
            return f"{at} is {describe_type(actual)}, not a dict"
        if set(actual) != set(expected):
            return f"{at} has the keys {sorted(map(str, actual))}, expected {sorted(map(str, expected))}"
        pairs = ((f"{at}[{key!r}]", actual[key], expected[key]) for key in expected)
    elif isinstance(expected, (list, tuple)):
        kind = "tuple" if isinstance(expected, tuple) else "list"
        if not isinstance(actual, tuple if kind == "tuple" else list):
            return f"{at} is {describe_type(actual)}, not a {kind}"
        if len(actual) != len(expected):
            return f"{at} has {len(actual)} items, expected {len(expected)}"
        pairs = ((f"{at}[{i}]", a, e) for i, (a, e) in enumerate(zip(actual, expected)))
    else:
        return _scalar_difference(actual, expected, exact, at)
    return next(filter(None, (difference(a, e, exact=exact, at=where) for where, a, e in pairs)), None)


def _array_difference(actual: Any, expected: torch.Tensor | np.ndarray, exact: bool, at: str) -> str | None:
    wanted = torch.Tensor if isinstance(expected, torch.Tensor) else np.ndarray
    if not isinstance(actual, wanted):
        return f"{at} is {describe_type(actual)}, not a {'tensor' if wanted is torch.Tensor else 'NumPy array'}"
    if wanted is np.ndarray:
        actual, expected = torch.from_numpy(np.ascontiguousarray(actual)), torch.from_numpy(np.ascontiguousarray(expected))
    actual, expected = actual.detach(), expected.detach()
    if actual.device != expected.device:
        return f"{at} is on {actual.device}, but the input is on {expected.device}: make new tensors with `device=x.device`"
    if actual.shape != expected.shape:
        return f"{at} has shape {list(actual.shape)}, expected {list(expected.shape)}"
    whole = not (actual.is_floating_point() or actual.is_complex() or actual.dtype == torch.bool)
    if actual.dtype != expected.dtype and not (whole and not expected.is_floating_point() and expected.dtype != torch.bool):
        return f"{at} has dtype {_short(actual.dtype)}, expected {_short(expected.dtype)}"
    if not actual.is_floating_point():
        wrong = actual != expected
    elif exact:
        wrong = ~((actual == expected) | (actual.isnan() & expected.isnan()))
    else:
        strange = ~actual.isfinite() & ~((actual == expected) | (actual.isnan() & expected.isnan()))
        if strange.any():
            name = "NaN" if actual[strange].isnan().any() else "infinite"
            return f"{at} has {int(strange.sum())} {name} of {actual.numel()} values"
        rtol, atol = _TOLERANCE[actual.dtype]
        # Rounding is relative to the largest values that went in, not to a small difference of theirs.
        finite = expected[expected.isfinite()]
        if actual.dtype == torch.float64 and finite.numel():
            atol = max(atol, rtol * float(finite.abs().max()))
        wrong = ~torch.isclose(actual, expected, rtol=rtol, atol=atol, equal_nan=True)
    if wrong.any():
        first = tuple(int(i) for i in wrong.nonzero()[0])
        place = f" at {list(first)}" if first else ""
        return (f"{at} differs in {int(wrong.sum())} of {wrong.numel()} values; the first{place}: "
                f"{_number(actual[first])}, expected {_number(expected[first])}")
    return None


def _scalar_difference(actual: Any, expected: Any, exact: bool, at: str) -> str | None:
    if isinstance(expected, bool):
        right = isinstance(actual, (bool, np.bool_)) and bool(actual) == expected
        fits = isinstance(actual, (bool, np.bool_))
    elif isinstance(expected, numbers.Real):
        fits = isinstance(actual, numbers.Integral if isinstance(expected, numbers.Integral) else numbers.Real)
        fits = fits and not isinstance(actual, bool)
        right = fits and (actual == expected or actual != actual and expected != expected if exact or isinstance(expected, numbers.Integral)
                          else bool(np.isclose(float(actual), float(expected), rtol=1e-5, atol=1e-7, equal_nan=True)))
    else:
        fits, right = isinstance(actual, type(expected)), type(actual) is type(expected) and actual == expected
    if not fits:
        return f"{at} is {describe_type(actual)}, not {describe_type(expected)}"
    return None if right else f"{at} is {_number(actual)}, expected {_number(expected)}"


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _number(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        value = value.item()
    return f"{value:.6g}" if isinstance(value, numbers.Real) and not isinstance(value, bool) else repr(value)


def describe_type(value: Any) -> str:
    """'a list of 3', 'a float32 tensor [2, 5]': what a value is, without its contents."""
    if value is None:
        return "None"
    if isinstance(value, torch.Tensor):
        return f"{_article(_short(value.dtype))} tensor {list(value.shape)}"
    if isinstance(value, np.ndarray):
        return f"{_article(str(value.dtype))} NumPy array {list(value.shape)}"
    if isinstance(value, (list, tuple, dict)):
        return f"a {type(value).__name__} of {len(value)}"
    if isinstance(value, torch.nn.Module):
        return "a tiny Llama"
    return _article(type(value).__name__)


def _article(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def describe(value: Any) -> str:
    """What a value is, with its contents where they are small."""
    if isinstance(value, (torch.Tensor, np.ndarray)):
        flat = torch.as_tensor(value).detach()
        if flat.numel() <= 12:
            numbers_ = torch.round(flat.double(), decimals=4).tolist() if flat.is_floating_point() else flat.tolist()
            return f"{describe_type(value)} {numbers_}"
        return describe_type(value)
    if isinstance(value, (tuple, list)) and len(value) <= 6:
        inner = ", ".join(describe(item) for item in value)
        return f"({inner})" if isinstance(value, tuple) else f"[{inner}]"
    if isinstance(value, (str, numbers.Real)):
        return repr(value) if isinstance(value, (str, bool)) else _number(value)
    return describe_type(value)


# --- judging ----------------------------------------------------------------------------------------------


@dataclass
class Trial:
    """One case as it went: what the answer did, what the reference did, and whether they agree."""

    case: Case
    outcome: Outcome
    expected: Outcome
    right: bool


@dataclass
class Verdict:
    """The judge's answer. `status`: pass, fail, error, timeout or missing; `mistake`: the slug if it is one of ours."""

    exercise: str
    status: str
    mistake: str | None = None
    headline: str = ""
    lines: list[tuple[str, str]] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        return self.status == "pass"


def same_outcome(exercise: Exercise, one: Outcome, other: Outcome) -> bool:
    """Did two answers do the same thing on a case?"""
    if one.kind != other.kind:
        return False
    if one.kind == "raised":
        return re.sub(r"\d+", "", one.error) == re.sub(r"\d+", "", other.error)
    if one.kind in ("exited", "timeout"):
        return True
    return agrees(exercise, one.value, other.value)


def agrees(exercise: Exercise, actual: Any, expected: Any) -> bool:
    """Is `actual` the expected value, within what the specification allows?"""
    if difference(actual, expected) is None:
        return True
    if exercise.equal is None:
        return False
    try:
        return bool(exercise.equal(actual, expected))
    except Exception:  # a result of a strange type or shape breaks the comparison: then it is not equal
        return False


def judge(exercise: Exercise, answer: Callable, *, seed: int = PUBLIC_SEED,
          call: Callable[[Callable, Case], Outcome] = run) -> Verdict:
    """Run `answer` on this seed's cases and say what is right or wrong with it.

    `call` runs one case; grading passes a function that does so in another process.
    """
    cases = exercise.cases(seed)
    trials = []
    for case in cases:
        expected = run(exercise.reference, case)
        outcome = call(answer, case)
        if expected.kind == "raised":  # the specification asks for an error: its type counts, its words do not
            right = outcome.kind == "raised" and _error_type(outcome) == _error_type(expected)
        else:
            right = outcome.kind == "value" and agrees(exercise, outcome.value, expected.value)
        trials.append(Trial(case, outcome, expected, right))
        if outcome.kind in ("timeout", "exited") or outcome.error.startswith("NotImplementedError"):
            break  # the other cases would only take as long again
    if all(trial.right for trial in trials):
        return _passed(exercise, trials)
    return _failed(exercise, trials, answer)


def _passed(exercise: Exercise, trials: list[Trial]) -> Verdict:
    lines = [("Next", exercise.next)]
    values = [trial.outcome.value for trial in trials]
    if any(isinstance(value, torch.Tensor) and not value.is_contiguous() for value in values):
        lines.append(("Note", "Your result is a non-contiguous view. That is right here; `.view(...)` on it later "
                              "would fail, `.reshape(...)` or `.contiguous()` would not."))
    return Verdict(exercise.name, "pass", None, f"Passed: {exercise.verified}", lines)


def _failed(exercise: Exercise, trials: list[Trial], answer: Callable) -> Verdict:
    first = next(trial for trial in trials if not trial.right)
    case, outcome = first.case, first.outcome
    if outcome.error.startswith("NotImplementedError") and not first.expected.error.startswith("NotImplementedError"):
        return Verdict(exercise.name, "missing", None, f"{exercise.name} is not written yet.",
                       [("Next", "Replace the line `raise NotImplementedError` with your own and run the cell again."),
                        ("Hint", exercise.hints[0])])
    mistake = name_mistake(exercise, trials)
    status = {"raised": "error", "exited": "error", "timeout": "timeout"}.get(outcome.kind, "fail")
    lines = []
    if mistake is not None:
        lines.append((mistake.slug, mistake.message if _telling(trials) else f"Perhaps: {mistake.message}"))
    parameters = _parameters(exercise.reference, case)
    arguments = [f"{name} = {describe(value)}" for name, value in (*zip(parameters, case.args), *case.kwargs.items())]
    lines.append(("Call", f"{exercise.name}({', '.join(arguments)})   ({case.label})"))
    told = _what_happened(outcome, first.expected, exercise, answer)
    lines += [line for line in told if exercise.reveal or line[0] not in ("Expected", "Difference")]
    lines.append(("Hint", exercise.hints[0]))
    if outcome.printed:
        lines.append(("It printed", outcome.printed[-800:].rstrip()))
    headline = f"Not yet: {exercise.name}" + (f", {mistake.slug}" if mistake else "")
    return Verdict(exercise.name, status, mistake.slug if mistake else None, headline, lines)


def _error_type(outcome: Outcome) -> str:
    return outcome.error.split(":")[0]


def _what_happened(outcome: Outcome, reference: Outcome, exercise: Exercise, answer: Callable) -> list[tuple[str, str]]:
    """The lines that say what came back and what was expected, one way for every way to be wrong."""
    expected = reference.value
    wanted = ("Expected", f"a {_error_type(reference)}" if reference.kind == "raised" else describe(expected))
    if outcome.kind == "timeout":
        return [("Came back", f"nothing: {outcome.error}, so it was stopped. Look for a loop whose condition never becomes false."), wanted]
    if outcome.kind == "exited":
        return [("Came back", "nothing: it called exit(). The kernel was kept alive; use `return` to leave a function."), wanted]
    if outcome.kind == "mutated":
        return [("Came back", describe(outcome.value)),
                ("Problem", f"it changed its input in place: {outcome.error}. The caller's tensor is not yours to change; "
                            "work on a copy (`.clone()`) or use an operation that returns a new tensor."), wanted]
    if outcome.kind == "hooks-left":
        return [("Problem", f"{outcome.error}. Every later run of the model would go through them. Use a call that removes its own hooks."), wanted]
    if outcome.kind == "raised":
        return [("It raised", f"{outcome.error}\n{outcome.trace}".rstrip()), *_advice(outcome.error, exercise, answer), wanted]
    if reference.kind == "raised":
        return [("Came back", describe(outcome.value)), wanted]
    if outcome.value is None and expected is not None:
        return [("Came back", "None. Does every path through your function end in `return`?"), wanted]
    return [("Came back", describe(outcome.value)), wanted,
            ("Difference", difference(outcome.value, expected) or "the values differ")]


def _advice(error: str, exercise: Exercise, answer: Callable) -> list[tuple[str, str]]:
    if re.search(r"CUDA|cuda|NVIDIA|mps", error):
        return [("Problem", "your function asks for a GPU, and the check runs on the CPU. Write it for any device: `device=x.device`.")]
    try:
        inspect.signature(answer).bind(*inspect.signature(exercise.reference).parameters)
    except TypeError:
        return [("Problem", f"it is called as {exercise.name}{_plain_signature(exercise.reference)}, "
                            f"and yours takes {_plain_signature(answer)}.")]
    except ValueError:
        pass
    return []


def _plain_signature(function: Callable) -> str:
    return f"({', '.join(inspect.signature(function).parameters)})"


def name_mistake(exercise: Exercise, trials: list[Trial]) -> Mistake | None:
    """The registered mistake that did what the answer did wherever the answer is wrong.

    Of several, the one that agrees with the answer on the most cases: an answer may treat one edge case
    better than the mistake and still be that mistake.
    """
    best, most = None, 0
    for mistake in exercise.mistakes.values():
        agreement = 0
        for trial in trials:
            same = same_outcome(exercise, trial.outcome, run(mistake.function, trial.case))
            agreement += same
            if not same and not trial.right:
                break
        else:
            if agreement > most:
                best, most = mistake, agreement
    return best


def _telling(trials: list[Trial]) -> bool:
    """Do the wrong cases say enough to be sure of a name? One wrong number, or one wrong mask, may have many causes."""
    wrong = [trial.outcome for trial in trials if not trial.right]
    values = [outcome.value for outcome in wrong if outcome.kind == "value"]
    return len(wrong) > 1 or len(values) < len(wrong) or any(
        isinstance(value, tuple) or isinstance(value, torch.Tensor) and value.is_floating_point() and value.numel() > 1 for value in values)


def shape_trace(exercise: Exercise, answer: Callable, seed: int = PUBLIC_SEED) -> str:
    """What every line of the learner's function made of its tensors, on the first case: `line  name: shape`."""
    code = getattr(answer, "__code__", None)
    if code is None:
        return ""
    rows: list[str] = []
    seen: dict[str, str] = {}
    line = 0

    def note(local: dict[str, Any]) -> None:
        for name, value in local.items():
            if isinstance(value, (torch.Tensor, np.ndarray, tuple, list, float, int)) and seen.get(name) != describe_type(value):
                seen[name] = describe_type(value)
                source = linecache.getline(code.co_filename, line).strip() if line else "(argument)"
                rows.append(f"{source:<48.48s}  {name}: {seen[name]}")

    def tracer(frame: Any, event: str, argument: Any) -> Any:
        nonlocal line
        if frame.f_code is not code:
            return None
        note(frame.f_locals)
        line = frame.f_lineno
        if event == "exception":
            rows.append(f"{linecache.getline(code.co_filename, line).strip():<48.48s}  raises {argument[0].__name__}")
        elif event == "return" and not (rows and "  raises " in rows[-1]):
            rows.append(f"{'returns':<48s}  {describe_type(argument)}")
        return tracer

    before = sys.gettrace()
    sys.settrace(tracer)
    try:
        run(answer, exercise.cases(seed)[0])
    finally:
        sys.settrace(before)
    return "\n".join(rows)
