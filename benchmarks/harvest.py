"""How fast are activations harvested? Ours, and the bare Hugging Face model stopped after the same block.

    python benchmarks/harvest.py [--layer 14] [--rounds 5]

One process, the same tokens, no cache on disk, rounds interleaved, the median of each. One line per text
length: tokens per second of both, and their ratio (ours / bare; 1.0 is as fast).
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch

from utils.activations import collect_activations
from utils.hooks import resid_post
from utils.models import load_model


class _Stop(Exception):
    """Ends the bare model's forward pass after the block that is wanted."""


def bare(model: torch.nn.Module, tokens: torch.Tensor, layer: int, batch: int) -> torch.Tensor:
    """[n, pos, d_model]: what leaves block `layer`, by a plain PyTorch hook on the Hugging Face model."""
    kept = []

    def keep(module: torch.nn.Module, args: tuple, output: torch.Tensor | tuple) -> None:
        kept.append(output[0] if isinstance(output, tuple) else output)
        raise _Stop

    handle = model.model.layers[layer].register_forward_hook(keep)
    try:
        with torch.no_grad():
            for rows in tokens.split(batch):
                try:
                    model(rows)
                except _Stop:
                    pass
    finally:
        handle.remove()
    return torch.cat(kept)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layer", type=int, default=14)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    bridge = load_model()
    plain = load_model(verbose=False).original_model
    generator = torch.Generator().manual_seed(0)
    for batch, length in ((16, 16), (8, 128)):
        tokens = torch.randint(10, bridge.cfg.d_vocab, (4 * batch, length), generator=generator)
        tokens[:, 0] = bridge.tokenizer.bos_token_id
        ours = lambda: collect_activations(bridge, tokens, resid_post(options.layer), position="all", skip_first=False, max_norm_ratio=float("inf"),  # noqa: E731
                                           batch_size=batch, cache=False, progress=False).acts
        theirs = lambda: bare(plain, tokens, options.layer, batch)  # noqa: E731
        assert torch.allclose(ours(), theirs().flatten(0, 1), rtol=1e-3, atol=1e-2)
        seconds: dict[str, list[float]] = {"ours": [], "bare": []}
        for _ in range(options.rounds):
            for name, work in (("ours", ours), ("bare", theirs)):
                started = time.perf_counter()
                work()
                seconds[name].append(time.perf_counter() - started)
        one, other = (tokens.numel() / statistics.median(seconds[name]) for name in ("ours", "bare"))
        print(f"{batch} x {length} tokens: ours {one:,.0f} tokens/s, bare {other:,.0f} tokens/s, ratio {one / other:.2f}")


if __name__ == "__main__":
    main()
