"""Compare two values, and say in words how they differ."""

from __future__ import annotations

import numbers
from typing import Any

import numpy as np
import torch

_TOLERANCE = {torch.float64: (1e-6, 1e-9), torch.float32: (1e-4, 1e-5), torch.bfloat16: (2e-2, 1e-2), torch.float16: (1e-2, 1e-3)}


def _tolerance(dtype: torch.dtype) -> tuple[float, float]:
    """(rtol, atol); a dtype that the course does not use is as coarse as the coarsest that it does."""
    return _TOLERANCE.get(dtype, _TOLERANCE[torch.bfloat16])


def difference(actual: Any, expected: Any, *, exact: bool = False, relative: bool = False, at: str = "the result") -> str | None:
    """What is wrong with `actual`, in words, or None. Type, then length or shape, device, NaN, values, dtype.

    `exact` allows no rounding. `relative` allows rounding relative to the largest value only, however small that is.
    """
    if isinstance(expected, (torch.Tensor, np.ndarray)):
        return _array_difference(actual, expected, exact, relative, at)
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
        return _scalar_difference(actual, expected, exact, relative, at)
    return next(filter(None, (difference(a, e, exact=exact, relative=relative, at=where) for where, a, e in pairs)), None)


def _array_difference(actual: Any, expected: torch.Tensor | np.ndarray, exact: bool, relative: bool, at: str) -> str | None:
    wanted = torch.Tensor if isinstance(expected, torch.Tensor) else np.ndarray
    if not isinstance(actual, wanted):
        return f"{at} is {describe_type(actual)}, not a {'tensor' if wanted is torch.Tensor else 'NumPy array'}"
    if wanted is np.ndarray:
        if actual.dtype.kind not in "biufc":
            return f"{at} is {describe_type(actual)}, expected {describe_type(expected)}"
        actual, expected = torch.from_numpy(np.ascontiguousarray(actual)), torch.from_numpy(np.ascontiguousarray(expected))
    if actual.is_nested or actual.layout != torch.strided:
        return f"{at} is a tensor of another layout ({'nested' if actual.is_nested else _short(actual.layout)}), expected a plain one"
    actual, expected = actual.detach(), expected.detach()
    if actual.device != expected.device:
        return f"{at} is on {actual.device}, but the input is on {expected.device}: make new tensors with `device=x.device`"
    if actual.shape != expected.shape:
        return f"{at} has shape {list(actual.shape)}, expected {list(expected.shape)}"
    whole = [not (x.is_floating_point() or x.is_complex() or x.dtype == torch.bool) for x in (actual, expected)]
    dtype = None if actual.dtype == expected.dtype or all(whole) else f"{at} has dtype {_short(actual.dtype)}, expected {_short(expected.dtype)}"
    if dtype and (actual.dtype == torch.bool or expected.dtype == torch.bool or actual.is_complex() or expected.is_complex()):
        return dtype
    return _value_difference(actual, expected, exact, relative, at) or dtype


def _value_difference(actual: torch.Tensor, expected: torch.Tensor, exact: bool, relative: bool, at: str) -> str | None:
    """Values are looked at before a wrong dtype is: zeros of another dtype are wrong because they are zeros."""
    coarse = max((x.dtype for x in (actual, expected) if x.is_floating_point()), key=lambda d: _tolerance(d)[0], default=None)
    common = torch.promote_types(actual.dtype, expected.dtype)
    actual, expected = actual.to(common), expected.to(common)
    if torch.equal(actual, expected):  # most often, and at a fraction of the cost of what follows
        return None
    if coarse is None:
        wrong = actual != expected
    elif exact:
        wrong = ~((actual == expected) | (actual.isnan() & expected.isnan()))
    else:
        strange = ~actual.isfinite() & ~((actual == expected) | (actual.isnan() & expected.isnan()))
        if strange.any():
            name = "NaN" if actual[strange].isnan().any() else "infinite"
            return f"{at} has {int(strange.sum())} {name} of {actual.numel()} values"
        rtol, atol = _tolerance(coarse)
        # Rounding is relative to the largest values that went in, not to a small difference of theirs.
        finite = expected[expected.isfinite()].abs()
        largest = float(finite.max()) if finite.numel() else 0.0
        if relative and largest > 0:
            atol = rtol * largest
        elif coarse == torch.float64:
            atol = max(atol, rtol * largest)
        wrong = ~torch.isclose(actual, expected, rtol=rtol, atol=atol, equal_nan=True)
    if wrong.any():
        first = tuple(int(i) for i in wrong.nonzero()[0])
        place = f" at {list(first)}" if first else ""
        return (f"{at} differs in {int(wrong.sum())} of {wrong.numel()} values; the first{place}: "
                f"{_number(actual[first])}, expected {_number(expected[first])}")
    return None


def _scalar_difference(actual: Any, expected: Any, exact: bool, relative: bool, at: str) -> str | None:
    kind = next((kind for kind in (bool, int, float) if isinstance(expected, kind)), type(expected))
    allowed = (int, float) if kind is float else kind  # as in Python's annotations: where a float is promised, 0 will do
    if not isinstance(actual, allowed) or isinstance(actual, bool) != (kind is bool):
        advice = ". Take it out of its array with .item()" if isinstance(actual, (np.generic, torch.Tensor)) else ""
        return f"{at} is {describe_type(actual)}, not {describe_type(expected)}{advice}"
    if kind is float and not exact:
        atol = 0.0 if relative and expected else 1e-7
        right = bool(np.isclose(actual, expected, rtol=1e-5, atol=atol, equal_nan=True))
    else:
        right = bool(actual == expected or (actual != actual and expected != expected))
    return None if right else f"{at} is {_number(actual)}, expected {_number(expected)}"


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _number(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        value = value.item()
    if isinstance(value, numbers.Integral) and abs(value) > 10**20:
        return "an integer of more than 20 digits"
    return f"{value:.6g}" if isinstance(value, numbers.Real) and not isinstance(value, bool) else repr(value)


def describe_type(value: Any) -> str:
    """'a list of 3', 'a float32 tensor [2, 5]': what a value is, without its contents."""
    if value is None:
        return "None"
    if isinstance(value, torch.Tensor) and value.is_nested:  # it has no shape
        return f"a nested {_short(value.dtype)} tensor"
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
        if not _can_be_listed(value):
            return describe_type(value)
        flat = torch.as_tensor(value).detach()
        return f"{describe_type(value)} {_listed(flat)}"
    if isinstance(value, (tuple, list)) and len(value) <= 6:
        inner = ", ".join(describe(item) for item in value)
        return f"({inner})" if isinstance(value, tuple) else f"[{inner}]"
    if isinstance(value, dict) and len(value) <= 6:
        return "{" + ", ".join(f"{key!r}: {describe_type(item)}" for key, item in value.items()) + "}"
    if isinstance(value, (str, numbers.Real)):
        return repr(value) if isinstance(value, (str, bool)) else _number(value)
    return describe_type(value)


def _can_be_listed(value: torch.Tensor | np.ndarray) -> bool:
    if isinstance(value, np.ndarray):
        return value.size <= 12 and value.dtype.kind in "biufc"
    return not value.is_nested and value.layout == torch.strided and value.numel() <= 12


def _listed(flat: torch.Tensor) -> str:
    """The numbers, with as many digits as it takes to tell different ones apart."""
    if not flat.is_floating_point():
        return str(flat.tolist())
    numbers_ = flat.double().flatten().tolist()
    digits = next((n for n in (4, 6, 9, 12) if len({f"{x:.{n}g}" for x in numbers_}) == len(set(numbers_))), 17)

    def nested(x: Any) -> str:
        return f"[{', '.join(nested(item) for item in x)}]" if isinstance(x, list) else f"{x:.{digits}g}"

    return nested(flat.double().tolist())
