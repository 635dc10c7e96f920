"""How fast does a TopK SAE train? Ours, sae_lens' SAETrainer, and ours with dense matrices.

    python benchmarks/sae_training.py [--steps 60] [--d-sae 4096 16384] [--device cpu]

One process, the same real activations (harvested into the cache folder on the first run, some minutes), the same shapes, the same number of
steps, the auxiliary loss on in all. Each trainer's first steps are warm-up and not timed. One line per trainer and
width: tokens per second, the ratio to sae_lens, the peak memory above the process's own before it, and the explained variance on held-out tokens after the same steps.
"""

from __future__ import annotations

import argparse
import gc
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import psutil
import torch
from torch import Tensor

from utils.corpus import documents
from utils.hooks import resid_post
from utils.models import load_model
from utils.paths import cache_dir
from utils.sae import SAEConfig
from utils.sae_training import Rows, TrainingConfig, normalisation, train_sae
from utils.shards import harvest

BATCH, K, WARM_UP = 1024, 32, 5


class Memory:
    """The peak of a process's resident memory while a block runs, in MB above where it stood."""

    def __enter__(self) -> Memory:
        gc.collect()
        self.process, self.running = psutil.Process(), True
        self.start = self.peak = self.process.memory_info().rss
        self.watcher = threading.Thread(target=self._watch)
        self.watcher.start()
        return self

    def _watch(self) -> None:
        while self.running:
            self.peak = max(self.peak, self.process.memory_info().rss)
            time.sleep(0.02)

    def __exit__(self, *_: object) -> None:
        self.running = False
        self.watcher.join()

    @property
    def megabytes(self) -> float:
        return (self.peak - self.start) / 1e6


class Clock:
    """Serves batches and notes when each was asked for: the time between is a step's."""

    def __init__(self, acts: Rows) -> None:
        self.acts, self.asked = acts, []

    def batches(self, batch_size: int, seed: int, first: int = 0) -> Iterator[Tensor]:
        for batch in self.acts.batches(batch_size, seed, first):
            self.asked.append(time.perf_counter())
            yield batch

    def sample(self, n: int, seed: int = 0) -> Tensor:
        return self.acts.sample(n, seed)

    @property
    def tokens_per_second(self) -> float:
        steps = len(self.asked) - 1 - WARM_UP
        return BATCH * steps / (self.asked[-1] - self.asked[WARM_UP])


def ours(clock: Clock, d_sae: int, steps: int, device: str, **options: bool) -> Callable[[Tensor], Tensor]:
    training = TrainingConfig(steps=steps, batch_size=BATCH, lr=1e-3, warmup=0.0, decay=0.0, **options)
    return train_sae(clock, SAEConfig(clock.acts.acts.shape[1], d_sae, K), training, device=device, progress=False)[0]


def library(clock: Clock, d_sae: int, steps: int, device: str) -> Callable[[Tensor], Tensor]:
    from sae_lens import TopKTrainingSAE, TopKTrainingSAEConfig
    from sae_lens.config import LoggingConfig, SAETrainerConfig
    from sae_lens.training.sae_trainer import SAETrainer

    torch.manual_seed(0)
    # normalised as ours are, so that both solve the same problem at the same learning rate
    mean, scale = normalisation(clock.sample(100_000))
    sae = TopKTrainingSAE(TopKTrainingSAEConfig(d_in=len(mean), d_sae=d_sae, k=K, device=device))
    cfg = SAETrainerConfig(total_training_samples=steps * BATCH, train_batch_size_samples=BATCH, lr=1e-3, lr_end=1e-3, device=device,
                           logger=LoggingConfig(log_to_wandb=False))
    provider = (((batch - mean) / scale).to(device) for batch in clock.batches(BATCH, 0))
    SAETrainer(cfg, sae, provider).fit()
    return lambda x: sae((x - mean) / scale) * scale + mean


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--d-sae", type=int, nargs="+", default=[4096, 16384])
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    shards = harvest(load_model(), documents("networkx"), resid_post(14), cache_dir() / "shards" / "benchmark", max_contexts=1200)
    acts = shards.sample(len(shards))
    held_out, train = acts[:20_000], Rows(acts[20_000:])
    variance = (held_out - held_out.mean(0)).pow(2).sum()
    trainers = {
        "sae_lens SAETrainer": library,
        "ours, dense": lambda *args: ours(*args, sparse=False),
        "ours, sparse": lambda *args: ours(*args, sparse=True),
        "ours, sparse, bf16 search": lambda *args: ours(*args, sparse=True, bf16=True),
    }
    print(f"{len(train.acts):,} tokens of width {acts.shape[1]}, k = {K}, {options.steps} steps of {BATCH:,} tokens, {options.device}, {torch.get_num_threads()} threads")
    for d_sae in options.d_sae:
        reference = None
        for name, run in trainers.items():
            clock = Clock(train)
            with Memory() as memory:
                sae = run(clock, d_sae, options.steps, options.device)
            with torch.no_grad():
                error = sum((x - sae(x.to(options.device)).to("cpu")).pow(2).sum() for x in held_out.split(4096))
            reference = reference or clock.tokens_per_second
            print(f"d_sae {d_sae:>6}  {name:<26} {clock.tokens_per_second:>8,.0f} tokens/s  {clock.tokens_per_second / reference:>5.2f}x"
                  f"  {memory.megabytes:>6,.0f} MB  explained variance {1 - error / variance:.3f}", flush=True)


if __name__ == "__main__":
    main()
