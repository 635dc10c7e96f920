"""What is captured, in which order it is dealt out, and how full and damaged disks are met."""

from __future__ import annotations

import shutil
from collections import namedtuple
from dataclasses import replace

import pytest
import torch

from utils.activations import collect_activations
from utils.hooks import resid_post
from utils.paths import atomic_write
from utils.pipeline import capture as capture_module
from utils.pipeline.capture import dealt, open_shards, verified_shards
from utils.pipeline.config import CaptureConfig, PipelineError
from utils.pipeline.stages import run_pipeline
from utils.pipeline.text import Sentences


def sorted_rows(acts):
    return torch.tensor(sorted(acts.float().tolist()))


@pytest.mark.parametrize("layer", [0, 2])
@pytest.mark.parametrize("split", ["train", "held-out"])
def test_shards_hold_what_collect_activations_gives(split, layer, finished):
    shards, sentences = verified_shards(finished.at("capture", layer) / split, progress=False), Sentences(finished.at("sentences"))
    index = sentences.train if split == "train" else sentences.held_out
    tokens = sentences.rows(index)
    expected = collect_activations(finished.model, tokens, resid_post(layer), mask=torch.ones_like(tokens, dtype=torch.bool), position="all", cache=False, progress=False)
    assert shards.hook == resid_post(layer)
    if len(index) == shards.manifest["contexts"]:
        torch.testing.assert_close(sorted_rows(torch.cat([part["acts"] for part in shards.parts])), sorted_rows(expected.acts.half()), rtol=2e-3, atol=2e-3)


def test_layers_from_one_pass_are_those_of_one_pass_each(finished, make_config, tmp_path):
    for layer in (0, 2):
        config = make_config(tmp_path / str(layer), capture=replace(finished.config.capture, layers=(layer,)))
        run_pipeline(config, only="sentences", progress=False)
        alone = run_pipeline(config, only="capture", progress=False)
        one, both = (open_shards(run.at("capture", layer) / "train") for run in (alone, finished))
        assert one.manifest == both.manifest


def test_every_column_moves_with_its_token(finished):
    """Position, token and document of a shuffled token are those of the row that it came from."""
    sentences = Sentences(finished.at("sentences"))
    for stage, folder in (("capture", "train"), ("shuffle", "")):
        for part in open_shards(finished.at(stage, 2) / folder).parts:
            for document, position, token in zip(part["document"].tolist()[:40], part["position"].tolist(), part["token"].tolist()):
                rows = sentences.rows((sentences.document == document).nonzero().squeeze(1))
                assert token in rows[:, position].tolist()


def test_the_shuffle_loses_nothing_and_mixes_shards(finished):
    old, new = open_shards(finished.at("capture", 2) / "train"), verified_shards(finished.at("shuffle", 2), progress=False)
    assert len(old.parts) > 2 and len(new) == len(old)
    assert torch.equal(sorted_rows(torch.cat([part["acts"] for part in old.parts])), sorted_rows(torch.cat([part["acts"] for part in new.parts])))
    for j, part in enumerate(new.parts):
        share = [slice(j * len(one["acts"]) // len(new.parts), (j + 1) * len(one["acts"]) // len(new.parts)) for one in old.parts]
        assert torch.equal(sorted_rows(part["acts"]), sorted_rows(torch.cat([one["acts"][s] for one, s in zip(old.parts, share)])))
    assert not torch.equal(dealt(old, 0, 0)["acts"], dealt(old, 0, 1)["acts"])


def test_shards_are_numbered_and_never_listed(make_config, texts, tmp_path):
    """Twelve shards: 10 comes after 9 and not after 1, and what else lies in the folder does not count."""
    config = make_config(tmp_path, capture=CaptureConfig(layers=(1,), context=12, contexts_per_shard=24, batch_size=48))
    for stage in ("sentences", "capture"):
        run = run_pipeline(config, only=stage, progress=False)
    folder = run.at("capture", 1) / "train"
    shutil.copy(folder / "00003.safetensors", folder / "3.safetensors")
    run = run_pipeline(config, only="shuffle", progress=False)
    shards = open_shards(folder)
    assert len(shards.parts) > 11 and [shard["tokens"] for shard in shards.manifest["shards"]] == [len(part["acts"]) for part in shards.parts]
    starts = torch.tensor([0, *(len(part["acts"]) for part in shards.parts)]).cumsum(0)
    for i in (2, 10, 11):
        assert torch.equal(shards.rows(starts[i : i + 1])[0], shards.parts[i]["acts"][0].float())
    assert len(open_shards(run.at("shuffle", 1))) == len(shards)


def test_a_full_disk_is_said_before_and_met_after(begun, monkeypatch):
    config = begun("capture")
    usage = namedtuple("usage", "total used free")
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 10**9, 1000))
        with pytest.raises(PipelineError, match="too full for capture: it needs 1 MB .*where 0 MB are free"):
            run_pipeline(config, progress=False)

    def full(path, content):
        if "00001" in path.name:
            raise OSError(28, "No space left on device")
        atomic_write(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(capture_module, "atomic_write", full)
        with pytest.raises(PipelineError, match="is full. What is written stays: free some space, then python -m utils pipeline resume"):
            run_pipeline(config, progress=False)
    run_pipeline(config, only="capture", progress=False)


def test_a_damaged_shard_is_found_before_it_is_used(begun):
    config = begun("shuffle")
    path = next(iter(sorted(run_pipeline(config, only="capture", progress=False).at("capture").rglob("train/00001.safetensors"))))
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(PipelineError, match="00001.safetensors .*content changed.* Delete that file and run again"):
        run_pipeline(config, progress=False)
    path.unlink()
    run_pipeline(config, only="capture", progress=False)
    run_pipeline(config, only="shuffle", progress=False)
    assert path.read_bytes() == content
