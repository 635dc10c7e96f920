"""What the pipeline's shortcuts are worth: ratios, measured in one sitting on this machine.

    python benchmarks/pipeline.py [--model smollm2-135m] [--layers 4 9 14 20] [--d-sae 4096] [--steps 20] [--rounds 3]

One line each: several layers from one pass of the model against one pass per layer; two training processes against one, with as many threads
each and with as many in all; a training step against the encoder's matrix product alone, which every TopK SAE has to compute. The rounds are
interleaved, and the median is taken.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from utils.activations import collect_activations
from utils.hooks import resid_post
from utils.models import load_model
from utils.paths import MANIFEST, atomic_write
from utils.pipeline import training as shared_training
from utils.pipeline.capture import open_shards, write_shard
from utils.pipeline.training import Share
from utils.sae.model import SAE, SAEConfig
from utils.sae.training import TrainingConfig

K, BATCH, WARM_UP = 32, 1024, 5


def seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def capture_ratio(name: str, layers: list[int], rounds: int) -> None:
    model = load_model(name)
    tokens = torch.randint(10, model.cfg.d_vocab, (32, min(128, model.cfg.n_ctx)), generator=torch.Generator().manual_seed(0))
    tokens[:, 0] = model.tokenizer.bos_token_id
    collect = lambda chosen: collect_activations(model, tokens, [resid_post(layer) for layer in chosen], position="all", cache=False, progress=False)  # noqa: E731
    collect(layers)
    one_pass, each = [], []
    for _ in range(rounds):
        one_pass.append(seconds(lambda: collect(layers)))
        each.append(sum(seconds(lambda: collect([layer])) for layer in layers))
    ratio = statistics.median(each) / statistics.median(one_pass)
    print(f"capture: layers {layers} from one pass {tokens.numel() / statistics.median(one_pass):,.0f} tokens/s, {ratio:.2f}x as fast as a pass for each", flush=True)


def make_shards(folder: Path, d_in: int) -> None:
    """Made-up activations: how long a step takes does not depend on what they are."""
    acts = torch.randn(16 * BATCH, d_in, generator=torch.Generator().manual_seed(0)).half()
    nothing = torch.zeros(len(acts), dtype=torch.int)
    entry = write_shard(folder, 0, {"acts": acts, "token": nothing, "document": nothing.clone(), "position": nothing.short()})
    manifest = {"hook": resid_post(0), "d_model": d_in, "contexts": 1, "contexts_per_shard": 1, "documents": [], "shards": [entry]}
    atomic_write(folder / MANIFEST, json.dumps(manifest))


class Stamped(Share):
    """Notes when a batch was asked for: the time between two is a step's."""

    asked: list[float] = []

    def batches(self, batch_size: int, seed: int, first: int = 0) -> Iterator[Tensor]:
        for batch in super().batches(batch_size, seed, first):
            self.asked.append(time.perf_counter())
            yield batch


def step_seconds(folder: str, cfg: SAEConfig, training: TrainingConfig, threads: int) -> float:
    """Seconds of a step, the median without the first ones. Run in every worker."""
    torch.set_num_threads(threads)
    together = "LOCAL_RANK" in os.environ
    if together:
        dist.init_process_group("gloo")
    shared_training.Share = Stamped
    Stamped.asked.clear()
    with tempfile.TemporaryDirectory() as scratch:
        longer = replace(training, steps=WARM_UP + training.steps, checkpoint_every=10**6)
        shared_training.train_shared(open_shards(Path(folder)), cfg, longer, checkpoint=Path(scratch, "c.safetensors"), progress=False)
    if together:
        dist.destroy_process_group()
    return statistics.median(later - sooner for sooner, later in zip(Stamped.asked[WARM_UP:], Stamped.asked[WARM_UP + 1 :]))


def launched(processes: int, *arguments: object) -> float:
    config = LaunchConfig(min_nodes=1, max_nodes=1, nproc_per_node=processes, run_id=uuid.uuid4().hex, rdzv_backend="c10d", rdzv_endpoint="localhost:0", max_restarts=0)
    return max(elastic_launch(config, step_seconds)(*arguments).values())


def training_ratios(d_in: int, d_sae: int, steps: int, rounds: int) -> None:
    cfg, training = SAEConfig(d_in, d_sae, K), TrainingConfig(steps=steps, batch_size=BATCH)
    sae, x = SAE(cfg), torch.randn(BATCH, d_in)
    found: dict[str, list[float]] = {"product": [], "one": [], "one, two threads": [], "two": []}
    with tempfile.TemporaryDirectory() as scratch:
        make_shards(Path(scratch), d_in)
        for _ in range(rounds):
            torch.set_num_threads(1)
            with torch.no_grad():
                found["product"].append(statistics.median(seconds(lambda: sae.pre_activations(x)) for _ in range(2 * WARM_UP)))
            found["one"].append(step_seconds(scratch, cfg, training, 1))
            found["one, two threads"].append(step_seconds(scratch, cfg, training, 2))
            found["two"].append(launched(2, scratch, cfg, training, 1))
    taken = {name: statistics.median(values) for name, values in found.items()}
    print(f"training, d_sae {d_sae:,}: a step takes {taken['one'] / taken['product']:.2f}x the encoder's product alone ({1e3 * taken['product']:.0f} ms, one thread)")
    print(f"training, d_sae {d_sae:,}: two processes are {taken['one'] / taken['two']:.2f}x as fast as one with one thread (efficiency {taken['one'] / taken['two'] / 2:.0%}), "
          f"{taken['one, two threads'] / taken['two']:.2f}x as fast as one with two threads; {BATCH / taken['two']:,.0f} tokens/s", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--layers", type=int, nargs="+", default=[4, 9, 14, 20])
    parser.add_argument("--d-in", type=int, default=576)
    parser.add_argument("--d-sae", type=int, nargs="+", default=[4096])
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    capture_ratio(options.model, options.layers, options.rounds)
    for d_sae in options.d_sae:
        training_ratios(options.d_in, d_sae, options.steps, options.rounds)


if __name__ == "__main__":
    main()
