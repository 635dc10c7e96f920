"""Judge an answer: run it on every case beside the reference, and put into words what is right or wrong with it."""

from __future__ import annotations

import inspect
import linecache
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch

from utils.course.battery import MADE
from utils.course.comparing import describe, describe_type, difference
from utils.course.exercises import Case, Exercise, Mistake
from utils.course.running import Outcome, parameter_names, run

PUBLIC_SEED = 0
CHECK_SEEDS = (PUBLIC_SEED, 1, 2)
"""What the check cell tries: an answer that is right by luck on one draw is not on three."""


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
    if one.kind == "shared" and one.error != other.error:
        return False
    return agrees(exercise, one.value, other.value) and _gradient_difference(one, other) is None


def agrees(exercise: Exercise, actual: Any, expected: Any, *, relative: bool = False) -> bool:
    """Is `actual` the expected value, within what the specification allows?"""
    if difference(actual, expected, relative=relative) is None:
        return True
    if exercise.equal is None:
        return False
    try:
        return bool(exercise.equal(actual, expected))
    except Exception:  # a result of a strange type or shape breaks the comparison: then it is not equal
        return False


def judge(exercise: Exercise, answer: Callable, *, seed: int | tuple[int, ...] = PUBLIC_SEED,
          call: Callable[[Callable, Case], Outcome] = run) -> Verdict:
    """Run `answer` on the cases of this seed, or of each of these, and say what is right or wrong with it.

    `call` runs one case; grading passes a function that does so in another process.
    """
    trials = []
    for one in (seed,) if isinstance(seed, int) else seed:
        for case in exercise.cases(one):
            trial = _try(exercise, answer, case, call)
            if trial is None:
                continue
            trials.append(trial)
            if trial.outcome.kind in ("timeout", "exited") or trial.outcome.error.startswith("NotImplementedError"):
                break  # the other cases would only take as long again
        if not all(trial.right for trial in trials):
            return _failed(exercise, trials, answer)
    return _passed(exercise, trials)


def _try(exercise: Exercise, answer: Callable, case: Case, call: Callable[[Callable, Case], Outcome]) -> Trial | None:
    """One case beside the reference; None where the battery's case is none, since the reference cannot answer it."""
    expected = _known(case, "", exercise.reference)
    if expected.kind != "value" and case.kind in MADE:
        return None
    outcome = _values_first(exercise, case, call(answer, case), expected)
    if expected.kind == "raised":  # the specification asks for an error: its type counts, its words do not
        right = outcome.kind == "raised" and _error_type(outcome) == _error_type(expected)
    else:
        right = outcome.kind == "value" and agrees(exercise, outcome.value, expected.value, relative=case.relative)
        right = right and _gradient_difference(outcome, expected) is None
    return Trial(case, outcome, expected, right)


def _values_first(exercise: Exercise, case: Case, outcome: Outcome, expected: Outcome) -> Outcome:
    """That a result is not new is worth saying where its values are right; where they are wrong, they come first."""
    if outcome.kind == "shared" and (expected.kind != "value" or not agrees(exercise, outcome.value, expected.value, relative=case.relative)):
        return Outcome("value", outcome.value, printed=outcome.printed, gradients=outcome.gradients)
    return outcome


_OUTCOMES: WeakKeyDictionary[Case, dict[str, Outcome]] = WeakKeyDictionary()


def _known(case: Case, name: str, function: Callable) -> Outcome:
    """What the reference (""), or the mistake called `name`, does on a case: the same each time, so it is run once."""
    outcomes = _OUTCOMES.setdefault(case, {})
    if name not in outcomes:
        outcome = run(function, case)
        if outcome.kind == "timeout":  # the machine was busy: that is no fact about the function
            return outcome
        outcomes[name] = outcome
    return outcomes[name]


def _gradient_difference(outcome: Outcome, expected: Outcome) -> str | None:
    """Where the gradient of the result is another one, in words. Where the reference's is not a number, anything goes."""
    for name, gradient in expected.gradients.items():
        if not gradient.isfinite().all():
            continue
        found = outcome.gradients.get(name)
        if found is None:
            return f"{name} has no gradient"
        if not found.any() and gradient.any():
            return f"no gradient reaches {name}: what is trained through your function would not learn. Look for .detach(), .item(), .data or no_grad"
        if (problem := difference(found, gradient, at=f"the gradient with respect to {name}")) is not None:
            return problem
    return None


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
                       [("Next", "Replace the line `raise NotImplementedError` with your own and run the cell again. "
                                 f"`hint({exercise.name})` gives the idea.")])
    mistake, certain = name_mistake(exercise, trials)
    status = {"raised": "error", "exited": "error", "timeout": "timeout"}.get(outcome.kind, "fail")
    lines = []
    if mistake is not None:
        lines.append((mistake.slug, mistake.message if certain and _telling(trials) else f"Perhaps: {mistake.message}"))
    parameters = parameter_names(exercise.reference, case)
    arguments = [f"{name} = {describe(value)}" for name, value in (*zip(parameters, case.args), *case.kwargs.items())]
    lines.append(("Call", f"{exercise.name}({', '.join(arguments)})   ({case.label})"))
    told = _what_happened(outcome, first.expected, exercise, answer)
    lines += [line for line in told if exercise.reveal or line[0] not in ("Expected", "Difference")]
    if right := [trial.case.label for trial in trials if trial.right]:
        shown = "; ".join(right[:3]) + (f"; and {len(right) - 3} more" if len(right) > 3 else "")
        lines.append(("Right on", f"{len(right)} of {len(trials)} cases: {shown}"))
    lines.append(("Hint", exercise.hints[0]))
    if outcome.printed:
        lines.append(("It printed", outcome.printed[-800:].rstrip()))
    named = mistake is not None and certain
    headline = f"Not yet: {exercise.name}" + (f", {mistake.slug}" if named else "")
    return Verdict(exercise.name, status, mistake.slug if named else None, headline, lines)


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
    if outcome.kind == "changed":
        return [("Problem", f"after the call something else had changed: {outcome.error}. A function returns its result and leaves the rest as it was."), wanted]
    if outcome.kind == "shared":
        return [("Came back", describe(outcome.value)),
                ("Problem", f"what comes back has to be new, and {outcome.error}: whoever changes the one changes the other. `.clone()` makes a copy.")]
    if outcome.kind == "hooks-left":
        return [("Problem", f"{outcome.error}. Every later run of the model would go through them. Use a call that removes its own hooks."), wanted]
    if outcome.kind == "raised":
        return [("It raised", f"{outcome.error}\n{outcome.trace}".rstrip()), *_advice(outcome.error, exercise, answer), wanted]
    if reference.kind == "raised":
        return [("Came back", describe(outcome.value)), wanted]
    if outcome.value is None and expected is not None:
        return [("Came back", "None. Does every path through your function end in `return`?"), wanted]
    return [("Came back", describe(outcome.value)), wanted,
            ("Difference", difference(outcome.value, expected) or _gradient_difference(outcome, reference) or "the values differ")]


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


def name_mistake(exercise: Exercise, trials: list[Trial]) -> tuple[Mistake | None, bool]:
    """The registered mistake that did what the answer did wherever the answer is wrong, and whether that is certain.

    Of several, the one that agrees with the answer on the most cases: an answer may treat one edge case better than the
    mistake and still be that mistake. If none explains every wrong case (there may be two mistakes at once), the one that
    explains the first and the most of them is offered, as a guess.
    """
    wrong = [i for i, trial in enumerate(trials) if not trial.right]
    best, most, guessed, explained = None, 0, None, 0
    for mistake in exercise.mistakes.values():
        if not _did_the_same(exercise, mistake, trials[wrong[0]]):  # neither sure nor a guess: the other cases need not be run
            continue
        same = [_did_the_same(exercise, mistake, trial) for trial in trials]
        agreed = sum(same[i] for i in wrong)
        if agreed == len(wrong) and sum(same) > most:
            best, most = mistake, sum(same)
        elif agreed > explained and 2 * agreed >= len(wrong):
            guessed, explained = mistake, agreed
    return (best, True) if best is not None else (guessed, False)


def _did_the_same(exercise: Exercise, mistake: Mistake, trial: Trial) -> bool:
    known = _known(trial.case, mistake.slug, mistake.function)
    return same_outcome(exercise, trial.outcome, _values_first(exercise, trial.case, known, trial.expected))


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
