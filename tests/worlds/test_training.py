"""Training is repeatable, and cached."""

import pytest
import torch

from utils.worlds import training
from utils.worlds.episodes import WorldError
from utils.worlds.ivy import IvyGame
from utils.worlds.shared import untrained
from utils.worlds.training import train
from utils.worlds.walks import GridWorld


@pytest.fixture
def short(tmp_path, monkeypatch):
    monkeypatch.setenv("PROBE_TO_STEER_CACHE", str(tmp_path))
    world = GridWorld(length=8)
    return world, lambda **options: train(untrained(world), world, steps=30, batch=32, progress=False, **options), tmp_path


def test_training_lowers_the_loss_and_freezes_the_model(short):
    world, run, _ = short
    model = untrained(world)
    losses = train(model, world, steps=30, batch=32, progress=False)
    assert losses.shape == (30,) and losses[-5:].mean() < losses[0] - 0.5
    assert not model.training and not any(p.requires_grad for p in model.parameters())


def test_a_second_training_comes_from_the_cache_and_is_the_same(short, monkeypatch):
    world, run, folder = short
    first, fresh = run(), run(cache=False)
    assert torch.equal(first, fresh)
    monkeypatch.setattr(training, "_descend", lambda *_: pytest.fail("trained again"))
    model = untrained(world)
    assert torch.equal(train(model, world, steps=30, batch=32, progress=False), first)
    assert not torch.equal(model.unembed.weight, untrained(world).unembed.weight)


def test_another_recipe_or_a_broken_file_is_trained_again(short):
    world, run, folder = short
    losses = run()
    assert not torch.equal(run(seed=1), losses)
    files = list((folder / "worlds").iterdir())
    assert len(files) == 2
    for file in files:
        file.write_bytes(b"half a file")
    assert torch.equal(run(), losses)


def test_training_refuses_what_cannot_work(short):
    world, _, _ = short
    with pytest.raises(WorldError, match="the world needs"):
        train(untrained(IvyGame()), world, steps=1)
    with pytest.raises(WorldError, match="at least 1"):
        train(untrained(world), world, steps=0)
    with pytest.raises(WorldError, match="smaller lr"):
        train(untrained(world), world, steps=40, batch=4, lr=1e30, cache=False, progress=False)
