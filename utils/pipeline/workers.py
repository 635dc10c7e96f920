"""The training stage: alone in this process, or on several that torch's own launcher (the engine of torchrun) starts and watches.

A worker can also be started by hand, on several machines that share the run's folder:
torchrun --nnodes 2 --nproc-per-node 8 ... -m utils.pipeline.workers RUN_FOLDER LAYER
"""

from __future__ import annotations

import logging
import os
import shutil
import signal
import sys
import threading
import time
import uuid
from dataclasses import replace
from pathlib import Path

import safetensors.torch
import torch
import torch.distributed as dist
from safetensors import SafetensorError, safe_open
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, record
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from utils.paths import ROOT, atomic_write
from utils.pipeline.capture import open_shards, verified_shards
from utils.pipeline.config import PipelineError, load_config
from utils.pipeline.records import Run, hashed
from utils.pipeline.training import train_shared
from utils.sae.model import CONFIG, WEIGHTS, SAE, SAEConfig, SAEError, load_sae

CHECKPOINT, HISTORY, SAE_FOLDER = "checkpoint.safetensors", "history.safetensors", "sae"
CONFIG_FILE = "config.yaml"
"""The run's own copy of its configuration: what a worker is told."""


def train(run: Run) -> dict[Path, str]:
    """Train the SAE of every layer; a killed run goes on from its last checkpoint.

    Raises: PipelineError when a worker dies, the text is too little or the activations cannot be trained on.
    """
    outputs: dict[Path, str] = {}
    for layer in run.hooks:
        folder = run.at("train", layer)
        if not _finished(folder):
            shutil.rmtree(folder / SAE_FOLDER, ignore_errors=True)
            if not (folder / CHECKPOINT).exists():
                verified_shards(run.at("shuffle", layer), run.progress)
            if run.config.processes == 1:
                train_layer(run, layer, _device(run))
            else:
                _launch(run, layer)
        outputs |= hashed(folder / SAE_FOLDER / WEIGHTS, folder / SAE_FOLDER / CONFIG, folder / HISTORY)
    return outputs


def trained(run: Run, layer: int) -> SAE:
    """The SAE of one layer, on the model's device."""
    try:
        return load_sae(run.at("train", layer) / SAE_FOLDER, run.model.cfg.device)
    except SAEError as error:
        raise PipelineError(f"{error} Delete {run.at('train', layer) / SAE_FOLDER} and run again: it is written anew.") from error


def _finished(folder: Path) -> bool:
    return all((folder / name).exists() for name in (HISTORY, f"{SAE_FOLDER}/{WEIGHTS}", f"{SAE_FOLDER}/{CONFIG}"))


def sae_config(run: Run, layer: int) -> SAEConfig:
    """What the SAE of one layer is, and where it belongs."""
    d_model = open_shards(run.at("shuffle", layer)).d_model
    return SAEConfig(d_model, run.config.sae.d_sae, run.config.sae.k, run.config.model, run.hooks[layer])


def train_layer(run: Run, layer: int, device: torch.device) -> None:
    """Train one layer's SAE in this process, which may be one of several; the first one writes.

    Raises: PipelineError.
    """
    folder = run.at("train", layer)
    try:
        sae, history = train_shared(open_shards(run.at("shuffle", layer)), sae_config(run, layer), run.config.training, checkpoint=folder / CHECKPOINT, device=device,
                                    progress=run.progress)
    except (ValueError, SAEError) as error:
        raise PipelineError(f"layer {layer}: {error}") from error
    if not dist.is_initialized() or dist.get_rank() == 0:
        atomic_write(folder / HISTORY, safetensors.torch.save({"unexplained": history.unexplained, "dead": history.dead}))
        sae.cpu().save(folder / SAE_FOLDER)


def steps_done(folder: Path) -> int:
    """The step of a layer's checkpoint, 0 without one."""
    try:
        with safe_open(folder / CHECKPOINT, framework="pt") as file:
            return int((file.metadata() or {}).get("step", 0))
    except (OSError, SafetensorError):
        return 0


def _device(run: Run) -> torch.device:
    return torch.device(run.config.device or ("cuda" if torch.cuda.is_available() else "cpu"))


def _launch(run: Run, layer: int) -> None:
    """Start the workers, and wait for them. Raises PipelineError as soon as one of them is gone; the others are ended."""
    if _device(run).type == "cuda" and run.config.processes > torch.cuda.device_count():
        raise PipelineError(f"processes = {run.config.processes}, but there are {torch.cuda.device_count()} GPUs, and each process needs its own. Lower it.")
    config = LaunchConfig(min_nodes=1, max_nodes=1, nproc_per_node=run.config.processes, run_id=uuid.uuid4().hex, rdzv_backend="c10d",
                          rdzv_endpoint="localhost:0", max_restarts=0)
    command = ("-m", "utils.pipeline.workers", str(run.folder), str(layer), *([] if run.progress else ["--quiet"]))
    here, log = os.getcwd(), logging.getLogger("torch.distributed.elastic")
    level = log.level
    try:
        os.chdir(ROOT)  # where `-m utils` is found
        log.setLevel(logging.CRITICAL)  # one message is enough, and it is ours
        elastic_launch(config, sys.executable)(*command)
    except ChildFailedError as error:
        rank, failure = min(error.failures.items(), key=lambda item: (not _struck(item[1].exitcode), item[1].timestamp))
        raise PipelineError(_epitaph(run, layer, rank, failure.exitcode, failure.message)) from None
    finally:
        log.setLevel(level)
        os.chdir(here)


def _struck(exit_code: int) -> bool:
    """Whether a worker was killed from outside (by hand, or for its memory): the others then die of the lost connection, perhaps in the same second."""
    return exit_code < 0 and exit_code != -signal.SIGTERM  # which is how the launcher ends the rest


def _epitaph(run: Run, layer: int, rank: int, exit_code: int, message: str | dict[str, str]) -> str:
    """What is said of a worker that died, and how to go on."""
    message = message if isinstance(message, str) else message["message"]  # a worker's own last words come with a traceback
    why = f"exit code {exit_code}" if message.startswith("To enable traceback") else message.removeprefix("PipelineError: ").strip()
    return (f"worker {rank} of {run.config.processes} died while it trained layer {layer}: {why}. The others were ended. Step {steps_done(run.at('train', layer)):,} of "
            f"{run.config.training.steps:,} is saved; go on from there with: python -m utils pipeline resume {run.folder}")


@record
def main() -> None:
    """One worker: python -m utils.pipeline.workers RUN_FOLDER LAYER, under torchrun."""
    folder, layer = Path(sys.argv[1]), int(sys.argv[2])
    sys.excepthook = lambda kind, error, trace: None if kind is PipelineError else sys.__excepthook__(kind, error, trace)  # the launcher says it, once
    threading.Thread(target=_die_with_parent, args=(os.getppid(),), daemon=True).start()
    run = Run(replace(load_config(folder / CONFIG_FILE), folder=str(folder)), progress="--quiet" not in sys.argv)
    local, device = int(os.environ["LOCAL_RANK"]), _device(run)
    if device.type == "cuda":
        device = torch.device("cuda", local)
        torch.cuda.set_device(device)
    elif "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // int(os.environ["LOCAL_WORLD_SIZE"])))
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        train_layer(run, layer, device)
        dist.barrier()
    finally:
        dist.destroy_process_group()


def _die_with_parent(parent: int) -> None:
    """End this process when the launcher is gone: workers live in sessions of their own, and would go on for nobody."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


if __name__ == "__main__":
    main()
