"""Training in shares: the same data in the same order, the losses of the course's own loop, and what is said when it cannot go on."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import islice

import pytest
import torch

from utils.pipeline.capture import open_shards, write_shard
from utils.pipeline.config import PipelineError
from utils.pipeline.records import Run
from utils.pipeline.stages import run_pipeline
from utils.pipeline.training import Share, train_shared
from utils.sae.model import SAEConfig
from utils.sae.training import Rows, TrainingConfig, train_sae

@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """Three shards of different sizes: sums of few of 30 directions, no two rows alike."""
    folder, rng = tmp_path_factory.mktemp("shards"), torch.Generator().manual_seed(0)
    directions, entries = torch.randn(30, 24, generator=rng), []
    for i, n in enumerate((300, 410, 250)):
        acts = (torch.rand(n, 30, generator=rng) * (torch.rand(n, 30, generator=rng) < 0.1)) @ directions + 0.01 * torch.randn(n, 24, generator=rng)
        nothing = torch.zeros(n, dtype=torch.int)
        entries.append(write_shard(folder, i, {"acts": acts.half(), "token": nothing, "document": nothing.clone(), "position": nothing.short()}))
    manifest = {"hook": "blocks.0.hook_out", "d_model": 24, "contexts": 3, "contexts_per_shard": 1, "documents": [], "shards": entries}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return open_shards(folder)


@pytest.mark.parametrize("size", [64, 320], ids=["smaller than a shard", "larger than some"])
def test_the_shares_of_two_processes_are_the_batch_of_one(size, shards):
    alone, left, right = (islice(share.batches(size, seed=3), 40) for share in (Share(shards), Share(shards, 0, 2), Share(shards, 1, 2)))
    for whole, first, second in zip(alone, left, right):
        assert len(whole) == size and torch.equal(whole, torch.cat([first, second]))


def test_an_epoch_has_every_token_once_and_goes_on_anywhere(shards):
    per_epoch = len(shards) // 64
    batches = list(islice(Share(shards).batches(64, seed=0), 2 * per_epoch + 3))
    rows = [{tuple(row) for row in torch.cat(batches[start : start + per_epoch]).tolist()} for start in (0, per_epoch)]
    assert all(len(epoch) == 64 * per_epoch for epoch in rows) and not torch.equal(batches[0], batches[per_epoch])
    for first in (1, per_epoch - 1, per_epoch, per_epoch + 2):
        assert torch.equal(next(Share(shards).batches(64, seed=0, first=first)), batches[first])


def test_alone_it_is_the_courses_own_loop(shards, tmp_path):
    """With the same batches `train_sae` gives the same history: its losses are the ones that are used."""
    class Served(Rows):
        def batches(self, batch_size, seed, first=0):
            return Share(shards).batches(batch_size, seed, first)

        def sample(self, n, seed=0):
            return Share(shards).sample(n)

    cfg, training = SAEConfig(24, 60, 3), TrainingConfig(steps=40, batch_size=64, dead_after=200)
    _, theirs = train_sae(Served(shards.sample(10)), cfg, training, progress=False)
    _, ours = train_shared(shards, cfg, training, checkpoint=tmp_path / "c.safetensors", progress=False)
    torch.testing.assert_close(ours.unexplained, theirs.unexplained, rtol=1e-4, atol=1e-4)
    assert ours.dead.tolist() == theirs.dead.tolist() and int(ours.dead.max()) > 0


def test_nan_ends_the_training_with_its_step(shards, tmp_path):
    with pytest.raises(ValueError, match="at step .*training.lr is too high"):
        train_shared(shards, SAEConfig(24, 40, 4), TrainingConfig(steps=40, batch_size=64, lr=1e30), checkpoint=tmp_path / "c.safetensors", progress=False)


def test_a_batch_that_the_text_cannot_fill(begun):
    config = begun("train")
    with pytest.raises(PipelineError, match="layer 0: a batch of 1,000,000 tokens cannot be filled.*Lower training.batch_size"):
        run_pipeline(replace(config, training=replace(config.training, batch_size=1_000_000)), only="train", progress=False)


def test_what_a_worker_has_to_say_is_handed_on(begun):
    config = begun("train")
    config = replace(config, training=replace(config.training, batch_size=1_000_000), processes=2)
    with pytest.raises(PipelineError, match="worker [01] of 2 died while it trained layer 0: layer 0: a batch of 1,000,000 tokens cannot be filled"):
        run_pipeline(config, only="train", progress=False)
    assert not Run(config).at("train", 0).joinpath("sae").exists()
