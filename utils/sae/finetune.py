"""A short second training on what the model itself says next.

The loss of `train_sae` counts every squared error alike; the model does not. Here the SAE stands in for the activation, the rest
of the model runs on, and the KL divergence between its predictions and the undisturbed ones goes back through all of it into the SAE
(end-to-end SAEs: Braun et al. 2024, arXiv 2405.12241; as a short last stage: Karvonen 2025, arXiv 2503.17272). The error in the activations stays in the loss,
at equal weight, so that the latents stay what they were.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from tqdm.auto import tqdm
from transformer_lens.model_bridge import TransformerBridge

from utils.hooks import check_tokens, intervene
from utils.sae.model import SAE, check_fits, sae_digest, spliced, usual_tokens
from utils.sae.training import read_run, save_run


@dataclass(frozen=True)
class FinetuneConfig:
    """How to fine-tune.

    Attributes:
        steps: optimiser steps.
        batch_size: contexts a step.
        lr: Adam's learning rate after the warm-up; it falls linearly to zero.
        warmup: share of the steps.
        seed: of the contexts' order.
        checkpoint_every: steps between two checkpoints.

    Raises: ValueError for counts below 1.
    """

    steps: int
    batch_size: int = 8
    lr: float = 3e-4
    warmup: float = 0.05
    seed: int = 0
    checkpoint_every: int = 20

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}.")

    def lr_at(self, step: int) -> float:
        """The learning rate of a step, the first being 0."""
        return self.lr * min((step + 1) / max(1, self.warmup * self.steps), (self.steps - step) / self.steps)


def finetune_sae(
    model: TransformerBridge,
    sae: SAE,
    tokens: Int[Tensor, "n context"],
    tuning: FinetuneConfig,
    *,
    name: str | None = None,
    checkpoint: Path | None = None,
    progress: bool = True,
) -> tuple[SAE, Float[Tensor, " steps"]]:
    """A fine-tuned copy of an SAE, and the KL divergence of each step's batch (nats per token).

    Args:
        model: the bridge. Its parameters stay as they are.
        tokens: contexts without padding, BOS first (`utils.sae.shards.contexts`).
        name: the hook point, for an SAE that does not say its own.
        checkpoint: a file. If it holds an unfinished run of this SAE and this configuration, that run goes on; a finished one is
            returned as it is. It is safe to delete.

    Raises:
        SAEError: the SAE does not belong here (see `check_fits`); the checkpoint is of another run, or damaged.
        ValueError: fewer contexts than a batch; tokens that are none (see `check_tokens`).
        InterventionError: the SAE's reconstruction is NaN or infinite.
    """
    check_tokens(model, tokens)
    if len(tokens) < tuning.batch_size:
        raise ValueError(f"a batch of {tuning.batch_size} contexts cannot be filled: there are {len(tokens)}.")
    name = check_fits(model, sae, name)
    config = json.dumps({"sae": asdict(sae.cfg), "tuning": asdict(tuning), "from": sae_digest(sae)}, sort_keys=True)
    tuned = SAE(sae.cfg).to(sae.b_dec.device)
    tuned.load_state_dict(sae.state_dict())
    optimizer = torch.optim.Adam(tuned.parameters(), lr=tuning.lr, fused=True)
    kl_of, first = torch.zeros(tuning.steps), 0
    if checkpoint is not None and Path(checkpoint).exists():
        first, tensors, load = read_run(Path(checkpoint), config)
        load(tuned, optimizer)
        kl_of = tensors["kl"]
    order = _order(len(tokens), tuning)
    for step in tqdm(range(first, tuning.steps), initial=first, total=tuning.steps, desc="fine-tuning", unit=" steps", delay=2, disable=not progress):
        rows = tokens[order[step * tuning.batch_size : (step + 1) * tuning.batch_size]].to(model.cfg.device)
        kl, error = _losses(model, tuned, rows, name)
        loss = kl / kl.detach() + error / error.detach()  # each with a slope of 1: neither drowns the other, whatever their units
        loss.backward()
        for group in optimizer.param_groups:
            group["lr"] = tuning.lr_at(step)
        optimizer.step()
        optimizer.zero_grad()
        tuned.fold_decoder_norm_()
        kl_of[step] = kl.detach()
        if checkpoint is not None and ((step + 1) % tuning.checkpoint_every == 0 or step + 1 == tuning.steps):
            save_run(Path(checkpoint), step + 1, config, tuned, optimizer, kl=kl_of)
    return tuned.requires_grad_(False), kl_of


def _order(n: int, tuning: FinetuneConfig) -> Int[Tensor, " drawn"]:
    """Every context once, in another order each time round."""
    rng = torch.Generator().manual_seed(tuning.seed)
    return torch.cat([torch.randperm(n, generator=rng) for _ in range(math.ceil(tuning.steps * tuning.batch_size / n))])


def _losses(model: TransformerBridge, sae: SAE, rows: Int[Tensor, "batch pos"], name: str) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """(KL divergence per token, squared error per usual token)."""
    seen: dict[str, Tensor] = {}

    def look(acts: Float[Tensor, "batch pos d_model"], hook: object) -> Float[Tensor, "batch pos d_model"]:
        seen["x"] = acts[usual_tokens(acts)].to(sae.b_dec)
        return acts

    with torch.no_grad(), intervene(model, {name: look}, may_do_nothing=True):
        clean = F.log_softmax(model(rows).float(), dim=-1)
    with spliced(model, sae, name=name):
        replaced = F.log_softmax(model(rows).float(), dim=-1)
    kl = F.kl_div(replaced, clean, reduction="sum", log_target=True) / (rows.numel() - len(rows))  # the first tokens are left alone
    return kl, (seen["x"] - sae(seen["x"])).pow(2).sum(1).mean()
