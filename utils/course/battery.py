"""What every answer is tried on besides its exercise's own cases, made from the specification and from those cases.

Some of it makes further cases: the docstring's own example, a copy scaled by 1e-6 and by 1e6, arguments that are not
contiguous, the gradient, whole numbers at both ends of what they may be, two leading axes, numbers below 0. Some of it
asks that the author has written cases: every documented error, every argument with a default also at another value, a
leading axis where the shape has a `*`, and what only the author can know (boundaries, extremes, NaN where content does
not count). `coverage` tells which kinds an exercise has; an exercise
names those that do not apply to it, with the reason, in `without`.
"""

from __future__ import annotations

import ast
import copy
import doctest
import inspect
import re
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from utils.course.cases import Case

if TYPE_CHECKING:
    from utils.course.exercises import Exercise

MADE = ("example", "scale", "strided", "gradient", "ends", "axes", "signs")
"""Kinds whose cases are made here."""
WRITTEN = ("errors", "arguments", "axis", "negative", "boundary", "extreme", "nan")
"""Kinds whose cases the author writes: `Case(...).of("boundary")`, or recognised by themselves (the first four)."""
KINDS = (*MADE, *WRITTEN)
SCALES = (1e-6, 1e6)
# Reasons that many exercises share, for `Exercise(without={**NOT_TRAINED, ...})`.
NOT_TRAINED = {"gradient": "nothing is trained through it"}
NO_THRESHOLD = {"boundary": "nothing is compared with a threshold"}
ALL_COUNTS = {"nan": "there is no content that does not count"}
NO_SCALE = {"scale": "probabilities, shares or logits: another scale is another question"}
NO_MATRIX = {"strided": "it takes no matrix"}
EITHER_SIGN = {"acts", "activation", "bias", "centroids", "clean", "contrast", "corrupted", "direction", "effect", "grad", "logits", "mean", "norm_weight", "one", "other",
               "points", "predicted", "pre", "resid", "scores", "source", "step", "truth", "vectors", "W_dec", "W_E", "W_U", "weight", "weights", "x", "x_hat"}
"""What arguments are called in this course whose numbers may be of either sign."""
IDS = {"groups", "topics", "first", "second"}
"""And those that hold any integers, which only tell rows apart."""
AT_MOST_ONE = ("*sae",)
"""Starred axes that stand for one axis or none, as the chapters that use them say."""


def battery(exercise: Exercise, base: list[Case]) -> list[Case]:
    """The cases that are made from the docstring and from `base`, simplest first. Each kind in `without` is left out."""
    makers = {"example": lambda: examples(exercise), "gradient": lambda: _trained(exercise, base),
              "scale": lambda: _scaled(exercise, base), "strided": lambda: _strided(base), "ends": lambda: _ends(exercise, base),
              "axes": lambda: _two_axes(exercise, base), "signs": lambda: _below_zero(exercise, base)}
    return [case for kind, make in makers.items() if kind not in exercise.without for case in make()]


def coverage(exercise: Exercise, cases: list[Case], raised: set[str]) -> dict[str, bool]:
    """Kind: is there a case of it? `raised` holds the names of the errors that the reference raised on `cases`."""
    kinds = {case.kind for case in cases}
    documented = documented_errors(exercise.reference)
    found = {kind: kind in kinds for kind in KINDS}
    found["negative"] |= any(bool((x < 0).any()) for case in cases for x in _tensors([*case.args, *case.kwargs.values()]) if x.is_floating_point())
    found["errors"] = documented <= raised
    found["arguments"] = not _never_varied(exercise.reference, cases)
    found["axis"] = not _axis_missing(exercise.reference, cases)
    found["ends"] = _whole_numbers(exercise.reference) <= set(exercise.ends)
    found["axes"] |= not _starred(exercise.reference)
    found["signs"] = True  # made wherever an argument of these names was never below 0
    return found


def missing_kinds(exercise: Exercise, cases: list[Case], raised: set[str]) -> list[str]:
    """The kinds that the exercise neither has nor excuses."""
    return [kind for kind, there in coverage(exercise, cases, raised).items() if not there and kind not in exercise.without]


# --- the docstring ------------------------------------------------------------------------------------------


@cache
def examples(exercise: Exercise) -> tuple[Case, ...]:
    """The calls of the exercise that its docstring shows, with the arguments that they have there."""
    found: list[Case] = []

    def record(*args: Any, **kwargs: Any) -> Any:
        found.append(Case("the example in the docstring", *copy.deepcopy(args), **copy.deepcopy(kwargs)).of("example"))
        return exercise.reference(*args, **kwargs)

    place = {**inspect.getmodule(exercise.reference).__dict__, exercise.name: record}
    for example in doctest.DocTestParser().get_examples(exercise.reference.__doc__ or ""):
        exec(compile(example.source, "<example>", "exec"), place)
    return tuple(found)


def documented_errors(function: Callable) -> set[str]:
    """The names under "Raises" in a docstring."""
    doc = inspect.getdoc(function) or ""
    block = re.search(r"^Raises:\s*(.*?)(?=^\S|\Z)", doc, re.M | re.S)
    return set(re.findall(r"\b(\w+(?:Error|Exception))\b\s*:", block[1])) if block else set()


def _never_varied(function: Callable, cases: list[Case]) -> list[str]:
    """Parameters with a default that no case gives another value."""
    signature = inspect.signature(function)
    optional = {name: p.default for name, p in signature.parameters.items() if p.default is not p.empty}
    for case in cases:
        given = signature.bind_partial(*case.args, **case.kwargs).arguments
        optional = {name: default for name, default in optional.items() if name not in given or given[name] == default}
    return list(optional)


def _axis_missing(function: Callable, cases: list[Case]) -> list[str]:
    """Tensor parameters whose annotation begins with a `*` axis, and that all cases give the same number of axes."""
    starred = [name for name, hint in inspect.get_annotations(function).items() if name != "return" and re.search(r"[\"'] ?\*", str(hint))]
    signature = inspect.signature(function)
    missing = []
    for name in starred:
        given = [signature.bind_partial(*case.args, **case.kwargs).arguments.get(name) for case in cases]
        if len({value.ndim for value in given if isinstance(value, Tensor)}) < 2:
            missing.append(name)
    return missing


def _whole_numbers(function: Callable) -> set[str]:
    return {name for name, hint in inspect.get_annotations(function).items() if hint is int and name != "return"}


def _starred(function: Callable) -> dict[str, tuple[int, int]]:
    """Tensor parameters with any number of axes: {name: (where those begin, how many axes the shape has besides)}."""
    found = {}
    for name, hint in inspect.get_annotations(function).items():
        axes = str(getattr(hint, "dim_str", "")).split()
        free = [i for i, axis in enumerate(axes) if axis == "..." or axis.startswith("*") and axis not in AT_MOST_ONE]
        if name != "return" and free:
            found[name] = (free[0], len(axes) - 1)
    return found


# --- cases made from cases -----------------------------------------------------------------------------------


def _scaled(exercise: Exercise, base: list[Case]) -> Iterator[Case]:
    """The first case in double precision: its floating point arguments multiplied by 1e-6 and by 1e6, all of them; then each alone by 1e-6.

    All by the same factor leaves many results as they are, and with them what was added to keep a division from 0.
    """
    case = next((case for case in base if _floats(case, torch.float64)), None)
    if case is None:
        return
    names = exercise.scaled or tuple(_named(exercise, case))
    floating = [name for name, value in _named(exercise, case).items() if any(x.is_floating_point() for x in _tensors(value))]
    alone = floating if len(floating) > 1 and not exercise.scaled else ()
    for which, factor in (*((names, factor) for factor in SCALES), *(((name,), SCALES[0]) for name in alone)):
        made = _changed(exercise, case, which, lambda x, by=factor: x * by if x.is_floating_point() else x)
        made.label, made.relative = f"{case.label}, {f'{which[0]} ' if len(which) == 1 else ''}times {factor:g}", True
        yield made.of("scale")


def _strided(base: list[Case]) -> Iterator[Case]:
    """The first case with a matrix in it, and the one with the most axes, laid out in memory as a sliced tensor would be."""
    axes = {case: max((x.ndim for x in _tensors([*case.args, *case.kwargs.values()]) if x.numel() > 1), default=0) for case in base}
    usable = [case for case in base if axes[case] >= 2]
    for case in dict.fromkeys([*usable[:1], *sorted(usable, key=axes.get, reverse=True)[:1]]):
        made = Case(f"{case.label}, not contiguous in memory", *_map(case.args, _spread), **_map(case.kwargs, _spread))
        yield made.of("strided")


def _trained(exercise: Exercise, base: list[Case]) -> Iterator[Case]:
    """The first two cases in floating point, with the gradient asked for."""
    if not exercise.trained:
        return
    places = list(inspect.signature(exercise.reference).parameters)
    usable = [case for case in base if _floats(case) and case.kind not in ("boundary", "nan")]
    for case in usable[:2]:
        made = Case(f"{case.label}, and its gradient", *case.args, **case.kwargs)
        given = {name: places.index(name) for name in exercise.trained}
        found = {name: place if place < len(case.args) else name for name, place in given.items() if place < len(case.args) or name in case.kwargs}
        yield made.with_gradient(**found).of("gradient")


def _ends(exercise: Exercise, base: list[Case]) -> Iterator[Case]:
    """The first case, with each whole number at either end of what it may be."""
    for name, ends in exercise.ends.items():
        for value in ends(_named(exercise, base[0])):
            bound = inspect.signature(exercise.reference).bind(*base[0].args, **base[0].kwargs)
            if bound.arguments.get(name) != value:
                bound.arguments[name] = value
                yield Case(f"{base[0].label}, but with {name} = {value}", *bound.args, **bound.kwargs).of("ends")


def _two_axes(exercise: Exercise, base: list[Case]) -> Iterator[Case]:
    """The case with the longest leading axis, under a second one: three times the same entries, each time in another order."""
    starred = _starred(exercise.reference)

    def length(case: Case) -> int:
        """Of its one leading axis; 0 where it has none or several."""
        given = {name: _named(exercise, case)[name] for name in starred}
        return min(x.shape[starred[name][0]] if x.ndim == starred[name][1] + 1 else 0 for name, x in given.items())

    if not starred or length(longest := max((case for case in base if _floats(case)), key=length)) < 2:
        return
    made = longest
    for name, (at, _) in starred.items():
        made = _changed(exercise, made, [name], lambda x, at=at: torch.stack([x.roll(shift, at) for shift in range(3)], at))
    made.label = f"{longest.label}, with two leading axes"
    yield made.of("axes")


def _below_zero(exercise: Exercise, base: list[Case]) -> Iterator[Case]:
    """The first case in double precision, with a sign turned that no case has; and with ids on both sides of 0, some of equal size."""
    case = next((case for case in base if _floats(case, torch.float64)), base[0])
    for name, value in _named(exercise, case).items():
        if not isinstance(value, Tensor) or not value.numel():
            continue
        if value.is_floating_point() and name in EITHER_SIGN:
            change = None if any(bool((x < 0).any()) for other in base for x in _tensors(_named(exercise, other).get(name))) else torch.neg
        else:
            change = _around_zero if name in IDS and value.dtype == torch.long else None
        if change:
            made = _changed(exercise, case, [name], change)
            made.label = f"{case.label}, with {name} {'below 0' if change is torch.neg else 'on both sides of 0'}"
            yield made.of("signs")


def _around_zero(ids: Tensor) -> Tensor:
    """Other ids for the same rows, in the same order: ..., -1, 0, 1, ..."""
    which = ids.unique(return_inverse=True)[1]
    return which - (int(which.max()) + 1) // 2


def _named(exercise: Exercise, case: Case) -> dict[str, Any]:
    return inspect.signature(exercise.reference).bind(*case.args, **case.kwargs).arguments


def _changed(exercise: Exercise, case: Case, names: Iterable[str], change: Callable[[Tensor], Tensor]) -> Case:
    """The case with `change` applied to every tensor of the arguments called `names`."""
    bound = inspect.signature(exercise.reference).bind(*case.args, **case.kwargs)
    for name in names:
        if name in bound.arguments:
            bound.arguments[name] = _map(bound.arguments[name], change)
    return Case(case.label, *bound.args, **bound.kwargs)


def _map(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """`change` on every tensor in a nest of lists, tuples and dicts."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, (list, tuple)):
        return type(value)(_map(item, change) for item in value)
    if isinstance(value, dict):
        return {key: _map(item, change) for key, item in value.items()}
    return value


def _tensors(value: Any) -> list[Tensor]:
    found: list[Tensor] = []
    _map(value, lambda x: found.append(x) or x)
    return found


def _floats(case: Case, dtype: torch.dtype | None = None) -> bool:
    return any(x.is_floating_point() and x.numel() and (dtype is None or x.dtype == dtype)
               for x in _tensors([*case.args, *case.kwargs.values()]))


def _spread(x: Tensor) -> Tensor:
    """The same values with gaps between them in memory, no two axes of which `.view` could join."""
    if not x.ndim:
        return x
    wide = x.new_zeros((*(size + 1 for size in x.shape[:-1]), 2 * x.shape[-1] + 1))
    place = (*(slice(size) for size in x.shape[:-1]), slice(0, 2 * x.shape[-1], 2))
    wide[place] = x
    return wide[place]
