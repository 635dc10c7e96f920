"""Activations on disk, by content: the same path means the same model, tokens and rule."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import safetensors.torch
import torch
from jaxtyping import Float, Float16, Int, Int8
from safetensors import SafetensorError
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from utils.paths import cache_dir, write_cache

CODE_VERSION = 1
"""Part of every cache key: raise it when a change here changes what is stored."""


def cache_files(
    model: TransformerBridge,
    tokens: Int[Tensor, "n pos"],
    lengths: Int[Tensor, " n"],
    rule: object,
    names: Sequence[str],
) -> dict[str, Path]:
    """{hook name: where its result is kept}: the same path means the same result."""
    call = hashlib.sha256(f"{CODE_VERSION} {rule} {model_digest(model)}".encode())
    call.update(_bytes(lengths.long()))
    call.update(_bytes(tokens[torch.arange(tokens.shape[1]) < lengths[:, None]].long()))
    files = {}
    for name in names:
        key = call.copy()
        key.update(name.encode())
        files[name] = cache_dir() / "activations" / f"{key.hexdigest()}.safetensors"
    return files


def model_digest(model: TransformerBridge) -> str:
    """A fingerprint of the configuration and of every weight.

    Row sums and column sums see a changed value, swapped rows, another seed. They run at the speed
    of memory (0.06 s for the small model): a SHA-256 of every byte took six times as long.
    """
    config = model.original_model.config.to_dict()
    for elsewhere in ("_name_or_path", "transformers_version"):
        config.pop(elsewhere, None)
    digest = hashlib.sha256(json.dumps(config, sort_keys=True, default=str).encode())
    for name, weight in model.original_model.named_parameters():
        digest.update(f"{name} {list(weight.shape)} {weight.dtype}".encode())
        weight = weight.detach()
        exact = torch.promote_types(weight.dtype, torch.float32)
        matrix = weight.flatten(1) if weight.ndim > 1 else weight[None]
        for axis in (0, 1):
            digest.update(_bytes(matrix.sum(axis, dtype=exact)))
    return digest.hexdigest()


def to_half(parts: dict[str, Tensor]) -> dict[str, Tensor]:
    """Round "acts" to float16 with one power of two per row, its "exponent"."""
    acts: Float[Tensor, "rows d_model"] = parts["acts"]
    # The largest value of a row lands in [2^14, 2^15): below float16's maximum of 65,504, and with
    # as much room as possible for the small ones. The clamp keeps rows of almost nothing finite.
    _, largest = torch.frexp(acts.abs().amax(1))
    exponent: Int8[Tensor, " rows"] = (15 - largest).clamp(max=100).to(torch.int8)
    half: Float16[Tensor, "rows d_model"] = (acts * torch.exp2(exponent.float())[:, None]).half()
    return {**parts, "acts": half, "exponent": exponent}


def from_half(stored: dict[str, Tensor]) -> dict[str, Tensor]:
    parts = {name: tensor for name, tensor in stored.items() if name != "exponent"}
    parts["acts"] = stored["acts"].float() * torch.exp2(-stored["exponent"].float())[:, None]
    return parts


def save_cached(file: Path, stored: dict[str, Tensor]) -> None:
    """Write a result. Its key, the file's name, is a part of what the checksum covers."""
    bound = {**stored, "key": _key(file)}
    write_cache(file, safetensors.torch.save({**bound, "sha256": _checksum(bound)}))


def load_cached(file: Path) -> dict[str, Tensor] | None:
    """Read a result back; None if there is none, or if it is damaged or another key's (it is then deleted)."""
    try:
        stored = safetensors.torch.load(file.read_bytes())
        # Files from before the key was written into them have none: their name is all that binds them.
        if torch.equal(stored.pop("sha256"), _checksum(stored)) and torch.equal(stored.pop("key", _key(file)), _key(file)):
            return stored
    except OSError:
        return None  # not there, or not to be read: if the disk is at fault, `save_cached` will say so
    except (SafetensorError, KeyError, ValueError, TypeError, RuntimeError):
        pass  # a damaged header can say anything
    print(f"A damaged file of cached activations was deleted and is computed again: {file.name}")
    with suppress(OSError):
        file.unlink()
    return None


def _key(file: Path) -> Int[Tensor, "32"]:
    """What a file's name says of its content, to be written into it."""
    return torch.tensor(list(hashlib.sha256(file.stem.encode()).digest()), dtype=torch.uint8)


def _checksum(stored: dict[str, Tensor]) -> Int[Tensor, "32"]:
    digest = hashlib.sha256()
    for name in sorted(stored):
        digest.update(f"{name} {list(stored[name].shape)} {stored[name].dtype}".encode())
        digest.update(_bytes(stored[name]))
    return torch.tensor(list(digest.digest()), dtype=torch.uint8)


def _bytes(tensor: Tensor) -> memoryview:
    return tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data
