"""What does a monitor cost per token? `generate` with a monitor against `generate` alone, in one process.

    python benchmarks/monitor.py [--rounds 9] [--tokens 40]

The same prompts, greedy, rounds interleaved. Prints milliseconds per token of `generate` alone, of what the monitor's own hooks add to it
(the clock runs inside them), and the ratio monitored / plain of whole rounds: its median and its middle half. 1.02 is an overhead of 2%.
All of it is processor time, which other programs disturb least; where rounds differ by several percent, believe the hooks' own clock.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from torch import Tensor
from transformer_lens.hook_points import HookPoint

from utils.hooks import resid_post
from utils.models import load_model
from utils.steering.generating import generate
from utils.steering.monitor import Monitor, TokenProbe

PROMPTS = ["My neighbour told me that", "The weather this week", "The first thing that you notice is", "On the way to school, the boy"]


class Timed(Monitor):
    """A monitor that adds up the processor time of its two hooks."""

    spent = 0.0

    def _read(self, acts: Tensor, hook: HookPoint) -> None:
        start = time.process_time()
        super()._read(acts, hook)
        self.spent += time.process_time() - start

    def _end(self, logits: Tensor, hook: HookPoint) -> Tensor | None:
        start = time.process_time()
        changed = super()._end(logits, hook)
        self.spent += time.process_time() - start
        return changed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--tokens", type=int, default=40)
    options = parser.parse_args()
    model = load_model()
    width, rng = model.cfg.d_model, torch.Generator().manual_seed(0)
    probe = TokenProbe(*(torch.randn(width, generator=rng) / width for _ in range(2)), torch.tensor(0.0))
    monitor = Timed(model, probe, resid_post(model.cfg.n_layers // 2), float("inf"), stop=True)
    settings = {"max_new_tokens": options.tokens, "temperature": 0, "progress": False}
    for batch in (1, len(PROMPTS)):
        prompts = PROMPTS[:batch]
        seconds: dict[str, list[float]] = {"plain": [], "monitored": []}
        runs = {"plain": lambda: generate(model, prompts, **settings), "monitored": lambda: monitor.generate(prompts, **settings)}
        for turn in range(options.rounds + 1):
            for name in sorted(runs, reverse=turn % 2 == 0):  # neither always has the warmer cache
                start = time.process_time()
                runs[name]()
                seconds[name].append(time.process_time() - start)
        plain, watched = (values[1:] for values in seconds.values())  # the first round warms up
        low, middle, high = statistics.quantiles([one / other for one, other in zip(watched, plain)], n=4)
        token = statistics.median(plain) * 1000 / options.tokens
        inside = monitor.spent * 1000 / options.tokens / (options.rounds + 1)
        monitor.spent = 0.0
        print(f"batch {batch}: {token:.1f} ms a token, the monitor's hooks {inside:.2f} ms ({inside / token:.2%}); "
              f"whole rounds {middle:.3f} ({low:.3f} to {high:.3f})")


if __name__ == "__main__":
    main()
