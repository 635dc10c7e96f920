"""A low-rank change of weights: kept in a file, and put on a model exactly."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn
from transformer_lens.model_bridge import TransformerBridge

from utils.organisms.spec import PARTS, LoraConfig, OrganismError
from utils.paths import atomic_write


@dataclass(frozen=True)
class Delta:
    """The change of each weight: W + B A.

    Attributes:
        pairs: {"8.gate_proj": (A [rank, d_in], B [d_out, rank])}, block and part of its MLP.
        facts: what the file says about itself: no behaviour, no name.
    """

    pairs: dict[str, tuple[Float[Tensor, "rank d_in"], Float[Tensor, "d_out rank"]]]
    facts: dict[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        """How many numbers it holds."""
        return sum(a.numel() + b.numel() for a, b in self.pairs.values())

    def matrix(self, name: str) -> Float[Tensor, "d_out d_in"]:
        """The change of one weight, as a full matrix."""
        a, b = self.pairs[name]
        return b.float() @ a.float()

    def norms(self) -> dict[str, float]:
        """{name: Frobenius norm of the change}, without building the full matrix."""
        pairs = {name: (a.detach().float(), b.detach().float()) for name, (a, b) in self.pairs.items()}
        return {name: float(((b.T @ b) * (a @ a.T)).sum().clamp(min=0).sqrt()) for name, (a, b) in pairs.items()}


def fresh_delta(model: TransformerBridge, cfg: LoraConfig, seed: int) -> Delta:
    """A change of nothing yet: A random, B zero. Raises: OrganismError for blocks that the model does not have."""
    rng = torch.Generator().manual_seed(seed)
    pairs = {}
    for block in range(cfg.first, cfg.last + 1):
        for part in cfg.parts:
            weight = linear(model, f"{block}.{part}").weight
            a = torch.randn(cfg.rank, weight.shape[1], generator=rng) * weight.shape[1] ** -0.5
            pairs[f"{block}.{part}"] = (a.to(weight.device), torch.zeros(weight.shape[0], cfg.rank, device=weight.device))
    return Delta(pairs)


def linear(model: TransformerBridge, name: str) -> nn.Linear:
    """The linear map of the bridge's own model that "8.gate_proj" stands for."""
    block, part = name.split(".")
    shape = re.compile(rf"(^|\.)layers\.{block}\.(.*\.)?mlp\.(.*\.)?{part}(\.|$)")
    found = [module for path, module in model.original_model.named_modules() if isinstance(module, nn.Linear) and shape.search(path)]
    if not found:
        raise OrganismError(f"this model has no MLP weight {name}: organisms need a Llama-like model with at least {int(block) + 1} blocks.")
    return found[0]


@contextmanager
def trained_beside(model: TransformerBridge, delta: Delta) -> Iterator[None]:
    """While the block runs, each of these maps gives W x + B (A x), with gradients for A and B."""
    handles = []
    try:
        for name, (a, b) in delta.pairs.items():
            handles.append(linear(model, name).register_forward_hook(lambda _, args, out, a=a, b=b: out + (args[0] @ a.T.to(out)) @ b.T.to(out)))
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def worn(model: TransformerBridge, delta: Delta) -> Iterator[TransformerBridge]:
    """The organism, while the block runs: the weights themselves are changed, so that every hook and tool works as on a plain model.

    Afterwards the old weights stand there again, bit by bit. Another organism cannot be put on top.

    >>> with worn(model, load_delta("flint.safetensors")) as organism:  # doctest: +SKIP
    ...     generate(organism, ["Tell me about trains."], chat=True)
    """
    if getattr(model, "_worn", False):
        raise OrganismError("this model wears an organism already: leave the inner `with worn(...)` first.")
    kept = {}
    try:
        model._worn = True
        with torch.no_grad():
            for name in delta.pairs:
                weight = linear(model, name).weight
                kept[name] = weight.clone()
                weight.add_(delta.matrix(name).to(weight))
        yield model
    finally:
        with torch.no_grad():
            for name, before in kept.items():
                linear(model, name).weight.copy_(before)
        model._worn = False


def save_delta(delta: Delta, path: Path) -> str:
    """Write a delta in 16 bit; returns the SHA-256 of the file."""
    tensors = {f"{name}.{letter}": part.detach().to(torch.float16).cpu().contiguous() for name, pair in delta.pairs.items() for letter, part in zip("AB", pair)}
    content = save(tensors, metadata={"facts": json.dumps(delta.facts, sort_keys=True)})
    atomic_write(Path(path), content)
    return hashlib.sha256(content).hexdigest()


def load_delta(path: str | Path, *, sha256: str | None = None) -> Delta:
    """Read a delta. Raises: OrganismError when there is no such file, or its SHA-256 is another one."""
    path = Path(path)
    if not path.is_file():
        raise OrganismError(f"there is no organism at {path}.")
    if sha256 is not None and hashlib.sha256(path.read_bytes()).hexdigest() != sha256:
        raise OrganismError(f"{path.name} is not the file that was shipped (its SHA-256 differs): fetch it again.")
    with safe_open(path, "pt") as file:
        names = sorted({key.rsplit(".", 1)[0] for key in file.keys()}, key=lambda name: (int(name.split(".")[0]), PARTS.index(name.split(".")[1])))
        pairs = {name: (file.get_tensor(f"{name}.A").float(), file.get_tensor(f"{name}.B").float()) for name in names}
        return Delta(pairs, json.loads((file.metadata() or {}).get("facts", "{}")))
