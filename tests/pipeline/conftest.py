"""What the tests of the pipeline share: a small model in a folder, some texts, and one unbroken run to compare with."""

from __future__ import annotations

import shutil
from dataclasses import replace
from functools import lru_cache

import pytest
import torch

from utils import models
from utils.pipeline.config import CaptureConfig, PipelineConfig, ReadingConfig, SizeConfig, TextConfig, VerificationConfig
from utils.pipeline.records import read_record
from utils.pipeline.stages import NAMES, run_pipeline
from utils.sae.training import TrainingConfig


@pytest.fixture(scope="session")
def save_model():
    """Write a tiny model of random weights into a folder, as `load_model` reads it."""
    from transformers import LlamaForCausalLM

    def save(folder, seed=0):
        tiny = models.tiny_model()
        llama, rng = LlamaForCausalLM(tiny.original_model.config), torch.Generator().manual_seed(seed)
        for name, weight in sorted(llama.named_parameters()):
            if weight.ndim > 1:
                weight.data.normal_(0, 1.0 if "embed" in name else 1.5 * weight.shape[1] ** -0.5, generator=rng)
        llama.save_pretrained(folder)
        tiny.tokenizer.save_pretrained(folder)
        return folder

    return save


@pytest.fixture(scope="session", autouse=True)
def loaded_once():
    """A model is loaded once for all runs: that is half of what a run takes here."""
    load = models.load_model
    models.load_model = lru_cache(load)
    yield
    models.load_model = load


@pytest.fixture(scope="session")
def model_folder(save_model, tmp_path_factory):
    return save_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="session")
def texts(tmp_path_factory):
    """A folder of 40 files of 20 to 199 words that the model knows."""
    folder, rng = tmp_path_factory.mktemp("texts"), torch.Generator().manual_seed(0)
    words = sorted(word for word in models.tiny_model().tokenizer.get_vocab() if word.isalpha())
    for i in range(40):
        length = int(torch.randint(20, 200, (1,), generator=rng))
        (folder / f"{i}.txt").write_text(" ".join(words[j] for j in torch.randint(len(words), (length,), generator=rng)))
    return folder


@pytest.fixture(scope="session")
def make_config(model_folder, texts):
    """The configuration of a small run in a folder; keyword arguments replace parts of it."""
    def make(folder, **parts):
        config = PipelineConfig(
            folder=str(folder), text=TextConfig(folder=str(texts), held_out=0.2), model=str(model_folder), device="cpu",
            capture=CaptureConfig(layers=(0, 2), context=12, contexts_per_shard=96, batch_size=96), sae=SizeConfig(d_sae=40, k=4),
            training=TrainingConfig(steps=30, batch_size=64, dead_after=1000, checkpoint_every=10), reading=ReadingConfig(contexts=100),
            verification=VerificationConfig(latents=6, controls=5, contexts=4, tokens=10),
        )
        return replace(config, **parts)

    return make


@pytest.fixture(scope="session")
def finished(make_config, tmp_path_factory):
    """A run that nothing interrupted."""
    return run_pipeline(make_config(tmp_path_factory.mktemp("finished")), progress=False)


@pytest.fixture
def begun(finished, tmp_path):
    """Copy the finished run, without one stage and all behind it; returns the copy's configuration."""
    def copy(stage):
        folder = tmp_path / "copy"
        shutil.copytree(finished.folder, folder)
        for name in NAMES[NAMES.index(stage):]:
            shutil.rmtree(folder / name)
        return replace(finished.config, folder=str(folder))

    return copy


@pytest.fixture(scope="session")
def digests():
    """{stage: the fingerprint of all that was made up to there} of a run."""
    return lambda run: {name: (read_record(run, name) or {"digest": None})["digest"] for name in NAMES}
