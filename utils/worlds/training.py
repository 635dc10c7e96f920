"""Train the small transformer on episodes; a trained one is kept in the cache."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path

import safetensors.torch
import torch
import torch.nn.functional as F
from jaxtyping import Float
from safetensors import SafetensorError
from torch import Tensor, nn
from tqdm.auto import tqdm

from utils.paths import cache_dir, write_cache
from utils.worlds.episodes import WorldError
from utils.worlds.ivy import IvyGame
from utils.worlds.transformer import SmallTransformer
from utils.worlds.walks import GridWorld

CODE_VERSION = 1
"""Part of the key of every trained model in the cache: raise it when a change here changes the result."""


def train(
    model: SmallTransformer,
    world: GridWorld | IvyGame,
    *,
    steps: int,
    batch: int = 128,
    lr: float = 3e-3,
    seed: int = 0,
    cache: bool = True,
    progress: bool = True,
) -> Float[Tensor, " steps"]:
    """Train `model` in place on fresh episodes of `world`, to predict the next token. It never sees a state.

    AdamW, with a warm-up over the first 5% of the steps and a cosine down to nothing.

    Args:
        model: its weights are where the training starts.
        world: what to draw episodes from.
        steps: batches of `batch` episodes.
        lr: the highest learning rate.
        seed: of the episodes.
        cache: keep the trained weights on disk, under a key made of everything above and of the weights
            at the start, and take them from there the next time. The folder may be deleted at any time.
        progress: show a bar with the time left.

    Returns:
        The loss of every step, in nats per token.

    Raises:
        WorldError: the model's vocabulary or context does not fit the world; steps or batch below 1; the
            loss is not finite.
    """
    if model.cfg.d_vocab != world.d_vocab or model.cfg.n_ctx < world.n_ctx:
        raise WorldError(
            f"the model has {model.cfg.d_vocab} tokens and a context of {model.cfg.n_ctx}; "
            f"the world needs {world.d_vocab} and {world.n_ctx}."
        )
    if steps < 1 or batch < 1:
        raise WorldError(f"steps and batch must be at least 1, not {steps} and {batch}.")
    file = _trained_file(model, repr((world, steps, batch, lr, seed)))
    if cache and (stored := _read(file)) is not None:
        losses = stored.pop("losses")
        model.load_state_dict(stored)
        model.eval().requires_grad_(False)
        return losses
    losses = _descend(model, world, steps, batch, lr, seed, progress)
    model.eval().requires_grad_(False)
    if cache:
        write_cache(file, safetensors.torch.save({**model.state_dict(), "losses": losses}))
    return losses


def _descend(
    model: SmallTransformer, world: GridWorld | IvyGame, steps: int, batch: int, lr: float, seed: int, progress: bool
) -> Float[Tensor, " steps"]:
    generator = torch.Generator().manual_seed(seed)
    model.train().requires_grad_(True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, betas=(0.9, 0.98), weight_decay=0.01)
    warm = max(1, steps // 20)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / warm, 0.5 * (1 + math.cos(math.pi * step / steps)))
    )
    losses = torch.zeros(steps)
    with tqdm(range(steps), desc="training", unit="step", disable=not progress) as bar:
        for step in bar:
            tokens = world.sample(batch, generator).tokens
            loss = F.cross_entropy(model(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            losses[step] = loss.detach()
            if not losses[step].isfinite():
                raise WorldError(f"the loss is {loss.item()} at step {step}: try a smaller lr than {lr}.")
            bar.set_postfix(loss=f"{loss.item():.3f}", refresh=False)
    return losses


def _trained_file(model: SmallTransformer, recipe: str) -> Path:
    """Where the result of this recipe on these weights is kept."""
    digest = hashlib.sha256(f"{CODE_VERSION} {model.cfg} {recipe}".encode())
    for name, weight in sorted(model.state_dict().items()):
        digest.update(name.encode() + weight.contiguous().numpy().tobytes())
    return cache_dir() / "worlds" / f"{digest.hexdigest()}.safetensors"


def _read(file: Path) -> dict[str, Tensor] | None:
    """The tensors of a file; None if it is not there or not whole, so that it is made again."""
    try:
        return safetensors.torch.load(file.read_bytes())
    except (OSError, SafetensorError):
        return None
