"""Compare two values, and say in words how they differ."""

from __future__ import annotations

import numbers
from typing import Any

import numpy as np
import torch

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
