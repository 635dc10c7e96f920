"""Does the pipeline's memory stay where it is while the corpus grows tenfold?

    python benchmarks/memory.py [--tokens 120000] [--times 10]

Text, capture (after the first block, so that the model costs little), shuffle and 60 steps of training, on two lengths of text, each in a process of its
own. One line a stage: the peak of the memory that the process holds for itself (Linux: RssAnon; pages of mapped shards belong to the file, and the system
takes them back when it needs them), with both lengths, and the size of the activations on disk. Training takes 100,000 rows at once for its normalisation, so that the shorter text has
to hold more than these.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import tempfile
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from utils.pipeline.config import CaptureConfig, PipelineConfig, SizeConfig, TextConfig
from utils.pipeline.stages import run_pipeline
from utils.sae.training import TrainingConfig

STAGES = ("sentences", "capture", "shuffle", "train")
LAYER = 0


class Watch:
    """The peak of the process's own memory while a block runs, in MB."""

    def __enter__(self) -> Watch:
        self.peak, self.running = 0.0, True
        self.thread = threading.Thread(target=self._look)
        self.thread.start()
        return self

    def _look(self) -> None:
        while self.running:
            lines = Path("/proc/self/status").read_text("utf-8").splitlines()
            self.peak = max(self.peak, *(int(line.split()[1]) / 1024 for line in lines if line.startswith("RssAnon")))
            time.sleep(0.01)

    def __exit__(self, *_: object) -> None:
        self.running = False
        self.thread.join()


def peaks(folder: str, tokens: int) -> dict[str, float]:
    """{stage: its peak in MB, "disk": MB of activations} of a run on so many tokens."""
    config = PipelineConfig(
        folder=f"{folder}/{tokens}", text=TextConfig(corpus=("networkx", "sympy"), max_tokens=tokens, held_out=0.1),
        capture=CaptureConfig(layers=(LAYER,), contexts_per_shard=64), sae=SizeConfig(1024, 16), training=TrainingConfig(60, 512))
    found = {}
    for stage in STAGES:
        with Watch() as watch:
            run = run_pipeline(config, only=stage, progress=False)
        found[stage] = watch.peak
    return found | {"disk": sum(file.stat().st_size for file in run.at("capture").rglob("*") if file.is_file()) / 2**20}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=120_000)
    parser.add_argument("--times", type=int, default=10)
    options = parser.parse_args()
    lengths = (options.tokens, options.times * options.tokens)
    with tempfile.TemporaryDirectory() as folder:
        with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
            small, large = (pool.apply(peaks, (folder, length)) for length in lengths)
    print(f"{lengths[0]:,} tokens against {lengths[1]:,}; activations on disk {small['disk']:,.0f} MB against {large['disk']:,.0f} MB")
    for stage in STAGES:
        print(f"{stage:<10} {small[stage]:>6,.0f} MB  {large[stage]:>6,.0f} MB  {large[stage] / small[stage]:.2f}x", flush=True)


if __name__ == "__main__":
    main()
