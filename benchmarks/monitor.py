"""What does a monitor cost per token? `generate` with a monitor against `generate` alone, in one process.

    python benchmarks/monitor.py [--rounds 7] [--tokens 40]

The same prompts, greedy, rounds interleaved. Prints milliseconds per token of both (the median of the rounds), and the ratio of the
fastest rounds, monitored / plain: 1.02 would be an overhead of 2%. The fastest rounds are those in which the machine was least disturbed.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch

from utils.hooks import resid_post
from utils.models import load_model
from utils.steering.generating import generate
from utils.steering.monitor import Monitor, TokenProbe

PROMPTS = ["My neighbour told me that", "The weather this week", "The first thing that you notice is", "On the way to school, the boy"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--tokens", type=int, default=40)
    options = parser.parse_args()
    model = load_model()
    width, rng = model.cfg.d_model, torch.Generator().manual_seed(0)
    probe = TokenProbe(*(torch.randn(width, generator=rng) / width for _ in range(2)), torch.tensor(0.0))
    monitor = Monitor(model, probe, resid_post(model.cfg.n_layers // 2), float("inf"), stop=True)
    settings = {"max_new_tokens": options.tokens, "temperature": 0, "progress": False}
    for batch in (1, len(PROMPTS)):
        prompts = PROMPTS[:batch]
        seconds: dict[str, list[float]] = {"plain": [], "monitored": []}
        for _ in range(options.rounds + 1):
            for name, run in (("plain", lambda: generate(model, prompts, **settings)), ("monitored", lambda: monitor.generate(prompts, **settings))):
                start = time.perf_counter()
                run()
                seconds[name].append(time.perf_counter() - start)
        per_token = {name: statistics.median(values[1:]) * 1000 / options.tokens for name, values in seconds.items()}
        ratio = min(seconds["monitored"][1:]) / min(seconds["plain"][1:])
        print(f"batch {batch}: plain {per_token['plain']:.1f} ms a token, monitored {per_token['monitored']:.1f} ms, ratio {ratio:.3f}")


if __name__ == "__main__":
    main()
