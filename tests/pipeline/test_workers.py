"""Two processes train what one does, and a worker that dies costs a few steps and nothing else."""

from __future__ import annotations

import shutil
import threading
import time
from dataclasses import replace

import psutil
import pytest
import safetensors.torch
import torch

from utils.pipeline.config import CaptureConfig, PipelineError, SizeConfig
from utils.pipeline.records import Run, read_record
from utils.pipeline.stages import run_pipeline
from utils.pipeline.workers import CHECKPOINT, HISTORY
from utils.sae.training import TrainingConfig

TOLERANCE = 1e-5
"""Of the share of variance left unexplained, one process against two, over 50 steps: both add up the same float32 numbers in another order."""


def digests_of(run):
    return read_record(run, "train")["digest"]


def _is_worker(child):
    try:
        return "utils.pipeline.workers" in child.cmdline()
    except psutil.Error:  # gone while we looked
        return False


def _kill_a_worker(checkpoint, done):
    """End one worker as soon as a checkpoint is there. To look for workers takes long, so that they are found before."""
    workers: list[psutil.Process] = []
    while not done.is_set():
        if len(workers) < 2:
            workers = [child for child in psutil.Process().children(recursive=True) if _is_worker(child)]
        elif checkpoint.exists():
            workers[1].kill()
            return
        time.sleep(0.002)


def test_two_processes_are_one_and_a_dead_worker_costs_nothing(make_config, tmp_path):
    """One process and two, compared over 50 steps; then two of which one is killed and that go on. They end at the very bits of the unbroken two."""
    training = TrainingConfig(steps=240, batch_size=64, dead_after=128, checkpoint_every=20)
    together = make_config(tmp_path / "together", training=training, processes=2, capture=CaptureConfig((2,), 12, 96, 96), sae=SizeConfig(120, 2))
    run_pipeline(together, only="sentences", progress=False)
    run_pipeline(together, only="capture", progress=False)
    run_pipeline(together, only="shuffle", progress=False)
    alone, broken = (replace(together, folder=str(tmp_path / name), processes=processes) for name, processes in (("alone", 1), ("broken", 2)))
    for config in (alone, broken):
        shutil.copytree(together.folder, config.folder)
    together, alone = (run_pipeline(config, only="train", progress=False) for config in (together, alone))
    one, two = (safetensors.torch.load_file(run.at("train", 2) / HISTORY) for run in (alone, together))
    torch.testing.assert_close(one["unexplained"][:50], two["unexplained"][:50], rtol=0, atol=TOLERANCE)
    assert torch.equal(one["dead"][:50], two["dead"][:50]) and int(one["dead"][:50].max()) > 0

    checkpoint = Run(broken).at("train", 2) / CHECKPOINT
    done = threading.Event()
    killer = threading.Thread(target=_kill_a_worker, args=(checkpoint, done))
    killer.start()
    try:
        with pytest.raises(PipelineError, match=r"worker [01] of 2 died while it trained layer 2: Signal 9 \(SIGKILL\).* Step (20|40|60|80|1[02468]0|2[02]0) of 240 is saved; go on .* resume"):
            run_pipeline(broken, only="train", progress=False)
    finally:
        done.set()
        killer.join()
    resumed = run_pipeline(broken, only="train", progress=False)
    assert digests_of(resumed) == digests_of(together)
