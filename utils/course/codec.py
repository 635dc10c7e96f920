"""Values as bytes: JSON for the structure, safetensors for the arrays. What grading sends between processes.

Not pickle: what comes back was made by a stranger's code, and reading a pickle runs what it says.
"""

from __future__ import annotations

import json
import struct
from typing import Any

import numpy as np
import safetensors.torch
import torch


def encode(value: Any) -> bytes:
    """`value` (tensors, arrays, numbers, strings, None, tiny models, nested in lists, tuples, dicts) as bytes.

    Raises TypeError for anything else.
    """
    tensors: dict[str, torch.Tensor] = {}
    tree = json.dumps(_tree(value, tensors)).encode()
    return struct.pack("<Q", len(tree)) + tree + safetensors.torch.save(tensors)


def decode(data: bytes) -> Any:
    """The inverse of `encode`. Raises ValueError if the bytes are not what `encode` makes."""
    try:
        (length,) = struct.unpack_from("<Q", data)
        return _value(json.loads(data[8:8 + length]), safetensors.torch.load(data[8 + length:]))
    except Exception as error:
        raise ValueError(f"not an encoded value: {error}") from error


def _tree(value: Any, tensors: dict[str, torch.Tensor]) -> Any:
    if isinstance(value, (torch.Tensor, np.ndarray)):
        name = str(len(tensors))
        tensors[name] = torch.as_tensor(value).detach().cpu().clone().contiguous()
        return {"tensor" if isinstance(value, torch.Tensor) else "array": name}
    if isinstance(value, torch.nn.Module):
        return {"model": value.tiny_seed}
    if isinstance(value, (list, tuple)):
        return {type(value).__name__ if type(value) in (list, tuple) else "tuple": [_tree(item, tensors) for item in value]}
    if isinstance(value, dict):
        return {"dict": [[_tree(key, tensors), _tree(item, tensors)] for key, item in value.items()]}
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, (bool, int, float, str)):
        return {"plain": value}
    raise TypeError(f"cannot send a {type(value).__name__} to another process")


def _value(tree: Any, tensors: dict[str, torch.Tensor]) -> Any:
    (kind, content), = tree.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "array":
        return tensors[content].numpy()
    if kind == "model":
        from utils.models import tiny_model

        return tiny_model(content)
    if kind in ("list", "tuple"):
        return (list if kind == "list" else tuple)(_value(item, tensors) for item in content)
    if kind == "dict":
        return {_value(key, tensors): _value(item, tensors) for key, item in content}
    return content


def send(pipe: Any, data: bytes) -> None:
    """Write one length-prefixed message."""
    pipe.write(struct.pack("<Q", len(data)) + data)
    pipe.flush()


def receive(pipe: Any) -> bytes:
    """Read one length-prefixed message. Raises EOFError if the other side is gone."""
    head = pipe.read(8)
    if len(head) < 8:
        raise EOFError
    (length,) = struct.unpack("<Q", head)
    if length > 1 << 30:
        raise ValueError("a message of more than a gigabyte")
    data = pipe.read(length)
    if len(data) < length:
        raise EOFError
    return data
