"""How fast does a TopK SAE train? Ours, sae_lens' SAETrainer, and a plain dense PyTorch loop.

    python benchmarks/sae_training.py [--steps 60] [--rounds 3] [--d-sae 4096 16384] [--device cpu] [--dead-after 200000]

One process, the same real activations (harvested into the cache folder on the first run, some minutes), normalised alike, the same shapes,
steps, learning rate, initial decoder norm and weight of the auxiliary loss. The rounds are interleaved; a round's first steps
are warm-up. One line per trainer and width: tokens per second (the median step of all rounds), the ratio to sae_lens, a step's length
in products of the encoder with a batch, which no TopK SAE can do without, the peak memory above where the process stood, and the explained variance on
held-out tokens after the same steps. In a short run no latent has been idle for the default 200,000 tokens, so the
auxiliary loss rests, in every trainer; `--dead-after 10240` wakes it in every trainer after 10 steps.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import psutil
import torch
import torch.nn.functional as F
from sae_lens import TopKTrainingSAE, TopKTrainingSAEConfig
from sae_lens.config import LoggingConfig, SAETrainerConfig
from sae_lens.training.sae_trainer import SAETrainer
from torch import Tensor

from utils.data.corpus import documents
from utils.hooks import resid_post
from utils.models import load_model
from utils.paths import cache_dir
from utils.sae.model import SAEConfig
from utils.sae.shards import harvest
from utils.sae.training import Rows, TrainingConfig, normalisation, train_sae

BATCH, K, WARM_UP, LR, AUX = 1024, 32, 5, 1e-3, 1 / 32


class Memory:
    """The peak while a block runs, in MB above where it stood: of the process's resident memory, or of the GPU's."""

    def __init__(self, device: str) -> None:
        self.device = device

    def __enter__(self) -> Memory:
        gc.collect()
        if self.device == "cuda":
            torch.cuda.reset_peak_memory_stats()
            self.start = torch.cuda.memory_allocated()
            return self
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
        if self.device == "cuda":
            self.peak = torch.cuda.max_memory_allocated()
            return
        self.running = False
        self.watcher.join()

    @property
    def megabytes(self) -> float:
        return (self.peak - self.start) / 1e6


class Clock:
    """Serves batches and notes when each was asked for: the time between is a step's."""

    def __init__(self, acts: Rows, device: str) -> None:
        self.acts, self.device, self.asked = acts, device, []

    def batches(self, batch_size: int, seed: int, first: int = 0) -> Iterator[Tensor]:
        for batch in self.acts.batches(batch_size, seed, first):
            if self.device == "cuda":
                torch.cuda.synchronize()
            self.asked.append(time.perf_counter())
            yield batch

    def sample(self, n: int, seed: int = 0) -> Tensor:
        return self.acts.sample(n, seed)

    @property
    def seconds(self) -> list[float]:
        return [later - sooner for sooner, later in zip(self.asked[WARM_UP:], self.asked[WARM_UP + 1 :])]


def ours(clock: Clock, d_sae: int, options: argparse.Namespace, *, bf16: bool) -> Callable[[Tensor], Tensor]:
    training = TrainingConfig(steps=options.steps, batch_size=BATCH, lr=LR, warmup=0.0, decay=0.0, aux_coefficient=AUX, dead_after=options.dead_after, bf16=bf16)
    return train_sae(clock, SAEConfig(clock.acts.acts.shape[1], d_sae, K), training, device=options.device, progress=False)[0]


def library(clock: Clock, d_sae: int, options: argparse.Namespace, *, rescale: bool) -> Callable[[Tensor], Tensor]:
    """`rescale` is the library's default, which treats the decoder as normalised; without it a step is cheaper."""
    torch.manual_seed(0)
    mean, scale = normalisation(clock.sample(100_000))
    sae = TopKTrainingSAE(TopKTrainingSAEConfig(d_in=len(mean), d_sae=d_sae, k=K, device=options.device, decoder_init_norm=1.0, aux_loss_coefficient=AUX,
                                                rescale_acts_by_decoder_norm=rescale))
    cfg = SAETrainerConfig(total_training_samples=options.steps * BATCH, train_batch_size_samples=BATCH, lr=LR, lr_end=LR, device=options.device,
                           dead_feature_window=options.dead_after // BATCH, logger=LoggingConfig(log_to_wandb=False))
    SAETrainer(cfg, sae, (((batch - mean) / scale).to(options.device) for batch in clock.batches(BATCH, 0))).fit()
    mean = mean.to(options.device)
    return lambda x: sae((x - mean) / scale) * scale + mean


def plain(clock: Clock, d_sae: int, options: argparse.Namespace) -> Callable[[Tensor], Tensor]:
    """What one would write first: dense matrices, autograd, Adam, no auxiliary loss."""
    mean, scale = normalisation(clock.sample(100_000))
    rng = torch.Generator().manual_seed(0)
    W_dec = F.normalize(torch.randn(d_sae, len(mean), generator=rng), dim=1).to(options.device).requires_grad_()
    W_enc = W_dec.detach().T.contiguous().requires_grad_()
    b_enc, b_dec = (torch.zeros(n, device=options.device, requires_grad=True) for n in (d_sae, len(mean)))
    optimizer = torch.optim.Adam([W_enc, b_enc, W_dec, b_dec], lr=LR)

    def rebuild(x: Tensor) -> Tensor:
        values, indices = ((x - b_dec) @ W_enc + b_enc).topk(K, dim=1)
        return torch.zeros(len(x), d_sae, device=x.device).scatter(1, indices, values.relu()) @ W_dec + b_dec

    batches = clock.batches(BATCH, 0)
    for _ in range(options.steps):
        x = ((next(batches) - mean) / scale).to(options.device)
        (x - rebuild(x)).pow(2).sum(1).mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        with torch.no_grad():
            W_dec.copy_(F.normalize(W_dec, dim=1))
    mean = mean.to(options.device)
    return lambda x: rebuild((x - mean) / scale) * scale + mean


def product_seconds(d_in: int, d_sae: int, device: str) -> list[float]:
    """The encoder's product with a batch, alone: what every TopK SAE has to compute."""
    x, W_enc = torch.randn(BATCH, d_in, device=device), torch.randn(d_in, d_sae, device=device)
    taken = []
    for _ in range(3 * WARM_UP):
        started = time.perf_counter()
        x @ W_enc
        if device == "cuda":
            torch.cuda.synchronize()
        taken.append(time.perf_counter() - started)
    return taken[WARM_UP:]


TRAINERS: dict[str, Callable[..., Callable[[Tensor], Tensor]]] = {
    "sae_lens SAETrainer": lambda *args: library(*args, rescale=True),
    "sae_lens, no rescaling": lambda *args: library(*args, rescale=False),
    "plain dense loop": plain,
    "ours": lambda *args: ours(*args, bf16=False),
    "ours, bf16 search": lambda *args: ours(*args, bf16=True),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--d-sae", type=int, nargs="+", default=[4096, 16384])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dead-after", type=int, default=200_000, help="tokens without firing that make a latent dead")
    options = parser.parse_args()
    shards = harvest(load_model(device=options.device), documents("networkx"), resid_post(14), cache_dir() / "shards" / "benchmark", max_contexts=1200)
    acts = shards.sample(len(shards))
    held_out, train = acts[:20_000], Rows(acts[20_000:])
    variance = (held_out - held_out.mean(0)).pow(2).sum()
    print(f"{len(train.acts):,} tokens of width {acts.shape[1]}, k = {K}, {options.steps} steps of {BATCH:,} tokens, {options.rounds} rounds, "
          f"{options.device}, {torch.get_num_threads()} threads")
    for d_sae in options.d_sae:
        seconds: dict[str, list[float]] = {name: [] for name in TRAINERS}
        facts: dict[str, tuple[float, float]] = {}
        products: list[float] = []
        for _ in range(options.rounds):
            products += product_seconds(acts.shape[1], d_sae, options.device)
            for name, run in TRAINERS.items():
                clock = Clock(train, options.device)
                with Memory(options.device) as memory:
                    rebuild = run(clock, d_sae, options)
                seconds[name] += clock.seconds
                with torch.no_grad():
                    error = sum((x - rebuild(x.to(options.device)).to("cpu")).pow(2).sum() for x in held_out.split(4096))
                facts[name] = (memory.megabytes, float(1 - error / variance))
        reference = statistics.median(seconds["sae_lens SAETrainer"])
        limit = statistics.median(products)
        print(f"d_sae {d_sae:>6}  the encoder's product alone takes {1e3 * limit:.1f} ms")
        for name, (megabytes, explained) in facts.items():
            step = statistics.median(seconds[name])
            print(f"d_sae {d_sae:>6}  {name:<24} {BATCH / step:>8,.0f} tokens/s  {reference / step:>5.2f}x  {step / limit:>5.2f} products  "
                  f"{megabytes:>6,.0f} MB  explained variance {explained:.3f}", flush=True)


if __name__ == "__main__":
    main()
