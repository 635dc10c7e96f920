"""Values as bytes: JSON for the structure, safetensors for the arrays. What grading sends between processes.

Not pickle: what comes back was made by a stranger's code, and reading a pickle runs what it says. What a check looks at
survives the trip: types, dtypes, strides, whether a gradient is asked for.
"""

from __future__ import annotations

import json
import struct
from functools import cache
from typing import Any, BinaryIO

import numpy as np
import safetensors.torch
import torch

MOST_BYTES = 64 * 2**20
"""Of one message. The largest value that an exercise has to do with is a hundred times smaller."""


def encode(value: Any, *, strict: bool = True) -> bytes:
    """`value` (tensors, arrays, numbers, strings, None, tiny models, nested in lists, tuples, dicts) as bytes.

    With `strict`, raises TypeError for anything else; without, a thing that cannot travel becomes an empty object with the
    name of its class, which equals nothing.
    """
    tensors: dict[str, torch.Tensor] = {}
    tree = json.dumps(_tree(value, tensors, strict)).encode()
    return struct.pack("<Q", len(tree)) + tree + safetensors.torch.save(tensors)


def decode(data: bytes) -> Any:
    """The inverse of `encode`. Raises ValueError if the bytes are not what `encode` makes."""
    try:
        (length,) = struct.unpack_from("<Q", data)
        return _value(json.loads(data[8:8 + length]), safetensors.torch.load(data[8 + length:]))
    except (Exception, RecursionError) as error:
        raise ValueError(f"not an encoded value: {error}") from error


def _tree(value: Any, tensors: dict[str, torch.Tensor], strict: bool) -> Any:
    if value is None or isinstance(value, (bool, float, str)) and not isinstance(value, np.number):
        return {"plain": value}
    if isinstance(value, int):
        return {"int": hex(value)}  # decimal digits of a huge one would be refused on the other side
    if isinstance(value, (list, tuple)):
        return {"list" if isinstance(value, list) else "tuple": [_tree(item, tensors, strict) for item in value]}
    if isinstance(value, dict):
        return {"dict": [[_tree(key, tensors, strict), _tree(item, tensors, strict)] for key, item in value.items()]}
    try:
        if isinstance(value, torch.nn.Module):
            return {"model": value.tiny_seed}
        if isinstance(value, (torch.Tensor, np.ndarray, np.generic)):
            return _array(value, tensors)
    except (AttributeError, TypeError, RuntimeError, ValueError, NotImplementedError) as error:  # sparse, of objects, of strings, on "meta"
        if strict:
            raise TypeError(f"cannot send a {type(value).__name__} to another process: {error}") from error
    if strict:
        raise TypeError(f"cannot send a {type(value).__name__} to another process")
    return {"other": type(value).__name__}


def _array(value: torch.Tensor | np.ndarray | np.generic, tensors: dict[str, torch.Tensor]) -> dict[str, Any]:
    if isinstance(value, np.ndarray) and min(value.strides, default=0) < 0:
        value = value.copy()  # torch has no negative strides
    tensor = torch.as_tensor(value).detach()
    if tensor.layout != torch.strided or tensor.is_nested or tensor.is_quantized:
        raise TypeError(f"its layout is {tensor.layout}")
    name = str(len(tensors))
    tensors[name] = tensor.cpu().clone().contiguous()
    kind = "tensor" if isinstance(value, torch.Tensor) else "array" if isinstance(value, np.ndarray) else "number"
    asks = isinstance(value, torch.Tensor) and value.requires_grad
    return {kind: [name, None if tensor.is_contiguous() else list(tensor.stride()), asks]}


def _value(tree: Any, tensors: dict[str, torch.Tensor]) -> Any:
    (kind, content), = tree.items()
    if kind in ("tensor", "array", "number"):
        name, strides, asks = content
        tensor = _laid_out(tensors[name], strides)
        return tensor.requires_grad_(asks) if kind == "tensor" else tensor.numpy() if kind == "array" else tensor.numpy()[()]
    if kind == "model":
        return _tiny(content)
    if kind in ("list", "tuple"):
        return (list if kind == "list" else tuple)(_value(item, tensors) for item in content)
    if kind == "dict":
        return {_value(key, tensors): _value(item, tensors) for key, item in content}
    if kind == "int":
        return int(content, 16)
    if kind == "other":
        return type(str(content), (), {})()
    return content


@cache
def _tiny(seed: int) -> torch.nn.Module:
    """One model for all calls, as in the check: an answer that changes it is caught doing so."""
    from utils.models import tiny_model

    return tiny_model(seed)


def _laid_out(tensor: torch.Tensor, strides: list[int] | None) -> torch.Tensor:
    """`tensor` with these strides, where they keep its elements apart (those of an expanded tensor do not)."""
    if strides is None:
        return tensor
    axes = sorted(range(tensor.ndim), key=lambda axis: strides[axis])
    room = sum((size - 1) * stride for size, stride in zip(tensor.shape, strides)) + 1
    apart, least = True, 1
    for axis in axes:
        if tensor.shape[axis] > 1:
            apart, least = apart and strides[axis] >= least, strides[axis] * tensor.shape[axis]
    if not apart or room * tensor.element_size() > MOST_BYTES:
        return tensor
    return torch.empty_strided(tensor.shape, strides, dtype=tensor.dtype).copy_(tensor)


def send(pipe: BinaryIO, data: bytes) -> None:
    """Write one length-prefixed message. Raises ValueError if it is larger than MOST_BYTES."""
    if len(data) > MOST_BYTES:
        raise ValueError(f"a message of {len(data):,} bytes")
    pipe.write(struct.pack("<Q", len(data)) + data)
    pipe.flush()


def receive(pipe: BinaryIO) -> bytes:
    """Read one length-prefixed message. Raises EOFError if the other side is gone, ValueError if it is too large."""
    head = pipe.read(8)
    if len(head) < 8:
        raise EOFError
    (length,) = struct.unpack("<Q", head)
    if length > MOST_BYTES:
        raise ValueError(f"a message of {length:,} bytes")
    data = pipe.read(length)
    if len(data) < length:
        raise EOFError
    return data
