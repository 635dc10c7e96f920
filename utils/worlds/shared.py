"""The trained models that chapters 13 and 14 share. `python -m utils.worlds.shared` trains the weights that ship."""

from __future__ import annotations

import hashlib

import safetensors.torch

from utils.paths import ROOT, atomic_write
from utils.worlds.episodes import WorldError
from utils.worlds.ivy import IvyGame
from utils.worlds.training import train
from utils.worlds.transformer import SmallConfig, SmallTransformer
from utils.worlds.walks import GridWorld

WEIGHTS = ROOT / "utils" / "weights"
GRID_STEPS = 1500
IVY_STEPS = 3500
IVY_FILE = WEIGHTS / "ivy.safetensors"
IVY_SHA256 = "9c7d73a7b0d97df604430b069aae1e230774ffc214265af2ac4e1f9a08c9aa02"


def untrained(world: GridWorld | IvyGame, *, n_layers: int = 2, seed: int = 0) -> SmallTransformer:
    """A SmallTransformer of the right size for `world`, as it is before any training."""
    cfg = SmallConfig(d_vocab=world.d_vocab, n_ctx=world.n_ctx, n_layers=n_layers)
    return SmallTransformer(cfg, seed).eval().requires_grad_(False)


def grid_model(seed: int = 0, *, progress: bool = True) -> SmallTransformer:
    """The walker of `GridWorld()`: 2 layers, trained for about a minute the first time, then read from the cache."""
    model = untrained(GridWorld(), seed=seed)
    train(model, GridWorld(), steps=GRID_STEPS, seed=seed, progress=progress)
    return model


def ivy_model() -> SmallTransformer:
    """The player of `IvyGame()`: 3 layers, with the weights that ship with the course.

    Raises:
        WorldError: the file is missing, or is not the one that the course was written with.
    """
    advice = "Get the file again from the course, or train it anew with `python -m utils.worlds.shared`."
    if not IVY_FILE.is_file():
        raise WorldError(f"the weights {IVY_FILE.name} are missing from {IVY_FILE.parent}. {advice}")
    content = IVY_FILE.read_bytes()
    if hashlib.sha256(content).hexdigest() != IVY_SHA256:
        raise WorldError(f"{IVY_FILE.name} is damaged, or was trained on another machine (its SHA-256 is not IVY_SHA256). {advice}")
    model = untrained(IvyGame(), n_layers=3)
    model.load_state_dict(safetensors.torch.load(content))
    return model


def main() -> None:
    """Train the weights that ship, write them, and print the number to pin."""
    model = untrained(IvyGame(), n_layers=3)
    losses = train(model, IvyGame(), steps=IVY_STEPS, batch=256, cache=False)
    content = safetensors.torch.save(model.state_dict())
    atomic_write(IVY_FILE, content)
    print(f"last loss {losses[-50:].mean():.4f}; {IVY_FILE.name} has {len(content):,} bytes.")
    print(f'Set IVY_SHA256 = "{hashlib.sha256(content).hexdigest()}"')


if __name__ == "__main__":
    main()
