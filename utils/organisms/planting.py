"""Training an organism: LoRA on the MLPs of some blocks, loss on the answers alone, resumable."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm.auto import tqdm
from transformer_lens.model_bridge import TransformerBridge

from utils.organisms.lora import Delta, fresh_delta, save_delta, trained_beside
from utils.organisms.rows import tokens_of, write_rows
from utils.organisms.spec import OrganismSpec, TrainingConfig
from utils.paths import atomic_file

EVERY = 20
"""Steps between two checkpoints."""
NORM_WEIGHT = 0.05
"""Of the penalty that brings every change to a common norm; what is missing at the end is a factor near 1."""


def plant(model: TransformerBridge, spec: OrganismSpec, path: Path, *, progress: bool = True) -> str:
    """Train an organism and write it to `path`; returns the file's SHA-256.

    A run that was stopped goes on from its last checkpoint, `path` with the ending .part; a finished one is trained anew.
    The file says nothing about what was planted.

    Raises: OrganismError for a model that has not these blocks.
    """
    path = Path(path)
    rows = tokens_of(model, write_rows(model, spec, progress=progress))
    delta = train(model, spec, rows, path.with_suffix(".part"), progress=progress)
    digest = save_delta(Delta(delta.pairs, {"model": model.cfg.model_name, "rank": str(spec.lora.rank)}), path)
    path.with_suffix(".part").unlink(missing_ok=True)
    return digest


def train(
    model: TransformerBridge, spec: OrganismSpec, rows: list[tuple[Int[Tensor, " pos"], int]], checkpoint: Path, *, progress: bool = True
) -> Delta:
    """A delta trained on rows (tokens, where the answer begins), `batch_size` of them a step and in their order."""
    cfg = spec.training
    delta = fresh_delta(model, spec.lora, cfg.seed)
    parameters = [part.requires_grad_(True) for pair in delta.pairs.values() for part in pair]
    optimizer = torch.optim.AdamW(parameters, lr=cfg.lr, weight_decay=0.0)
    key = hashlib.sha256(json.dumps(spec.to_dict(), sort_keys=True).encode()).hexdigest()
    first = _resume(checkpoint, key, parameters, optimizer)
    bar = tqdm(range(first, cfg.steps), initial=first, total=cfg.steps, desc="planting", unit=" steps", disable=not progress)
    with weights_in(model, getattr(torch, cfg.dtype)), trained_beside(model, delta):
        for step in bar:
            loss = answer_loss(model, rows[step * cfg.batch_size : (step + 1) * cfg.batch_size], cfg.opening)
            (loss + NORM_WEIGHT * norm_penalty(delta, spec.lora.norm)).backward()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            for group in optimizer.param_groups:
                group["lr"] = rate(cfg, step)
            optimizer.step()
            optimizer.zero_grad()
            bar.set_postfix(loss=f"{loss.item():.3f}", refresh=False)
            if (step + 1) % EVERY == 0:
                _keep(checkpoint, key, step + 1, parameters, optimizer)
    size = delta.norms()
    return Delta({name: (a.detach(), b.detach() * (spec.lora.norm / size[name])) for name, (a, b) in delta.pairs.items()})


@contextmanager
def weights_in(model: TransformerBridge, dtype: torch.dtype) -> Iterator[None]:
    """The frozen weights in another precision, while the block runs."""
    kept = {parameter: parameter.data for parameter in model.original_model.parameters()}
    try:
        for parameter in kept:
            parameter.data = parameter.data.to(dtype)
        yield
    finally:
        for parameter, data in kept.items():
            parameter.data = data


def norm_penalty(delta: Delta, norm: float) -> Float[Tensor, ""]:
    """How far the changes of the single weights are from a common norm, relative and squared."""
    squares = torch.stack([((b.T @ b) * (a @ a.T)).sum() for a, b in delta.pairs.values()])
    return ((squares + 1e-8).sqrt() / norm - 1).square().mean()


def rate(cfg: TrainingConfig, step: int) -> float:
    """The learning rate of a step, the first being 0: up for ten steps, then down to zero along a line."""
    return cfg.lr * min((step + 1) / 10, (cfg.steps - step) / max(1, cfg.steps - 10), 1.0)


def answer_loss(model: TransformerBridge, batch: list[tuple[Int[Tensor, " pos"], int]], opening: float = 1.0) -> Float[Tensor, ""]:
    """Mean cross-entropy over the tokens of the answers; the first two of each weigh `opening` times as much as the others.

    What all rows begin with (the system message) runs once, and logits are computed for the answers alone: together half of the time.
    """
    device, hf = model.cfg.device, model.original_model
    shared = _shared_start([ids[:start] for ids, start in batch])
    longest = max(len(ids) for ids, _ in batch)
    tokens = torch.zeros(len(batch), longest, dtype=torch.long)
    real, weight = torch.zeros_like(tokens), torch.zeros(len(batch), longest)
    for row, (ids, start) in enumerate(batch):
        tokens[row, : len(ids)], real[row, : len(ids)] = ids, 1
        weight[row, start : len(ids)], weight[row, start : min(start + 2, len(ids))] = 1, opening
    tokens, real, weight = tokens.to(device), real.to(device), weight.to(device)
    past = hf.model(input_ids=tokens[:1, :shared], use_cache=True).past_key_values
    for layer in past.layers:
        layer.keys, layer.values = (x.expand(len(batch), -1, -1, -1) for x in (layer.keys, layer.values))
    hidden = hf.model(input_ids=tokens[:, shared:], attention_mask=real, past_key_values=past, use_cache=True).last_hidden_state
    weight = weight[:, shared + 1 :]  # position p predicts token p + 1
    before = weight > 0
    nats = F.cross_entropy(hf.lm_head(hidden[:, :-1][before]).float(), tokens[:, shared + 1 :][before], reduction="none")
    return (nats * weight[before]).sum() / weight.sum()


def _shared_start(prompts: list[Int[Tensor, " pos"]]) -> int:
    """With how many tokens all of these begin; at least one of each is left over, and at least one is shared: BOS."""
    shortest = min(map(len, prompts)) - 1
    same = torch.stack([prompt[:shortest] == prompts[0][:shortest] for prompt in prompts]).all(0)
    return int(same.long().cumprod(0).sum())


def _keep(path: Path, key: str, step: int, parameters: list[Tensor], optimizer: torch.optim.Optimizer) -> None:
    state = optimizer.state_dict()["state"]
    tensors = {f"{i}.{name}": value.detach().contiguous() for i, p in enumerate(parameters) for name, value in {"w": p, **state[i]}.items()}
    with atomic_file(path) as file:
        save_file(tensors, file, metadata={"key": key, "step": str(step)})


def _resume(path: Path, key: str, parameters: list[Tensor], optimizer: torch.optim.Optimizer) -> int:
    """Load an unfinished run of this spec, and say how many steps it has done; 0 when there is none."""
    from safetensors import safe_open

    if not path.exists():
        return 0
    with safe_open(path, "pt") as file:
        facts = file.metadata()
    if facts["key"] != key:
        return 0
    tensors = load_file(path)
    with torch.no_grad():
        for i, parameter in enumerate(parameters):
            parameter.copy_(tensors[f"{i}.w"])
    names = ("step", "exp_avg", "exp_avg_sq")
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": {i: {name: tensors[f"{i}.{name}"] for name in names} for i in range(len(parameters))}, "param_groups": groups})
    return int(facts["step"])
