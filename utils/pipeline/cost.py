"""What a run will cost, before it begins: tokens, bytes and minutes, from a probe of some seconds on this machine.

The probe runs a few batches through the model, takes a few training steps and writes one file. It leaves nothing behind.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import takewhile
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor
from tqdm.auto import tqdm

from utils.activations import collect_activations
from utils.data.corpus import Document
from utils.data.fetch import sha256_of
from utils.paths import atomic_write
from utils.pipeline.capture import capture_bytes
from utils.pipeline.config import PipelineError
from utils.pipeline.records import Run, read_record
from utils.pipeline.text import Sentences, bytes_of, documents_of, size_of
from utils.sae.model import SAEConfig
from utils.sae.shards import contexts
from utils.sae.training import Rows, train_sae

_SAMPLE_CHARACTERS = 400_000
_PROBE_BYTES = 32_000_000
_BYTES_A_LATENT = 2_200
"""Of statistics: histogram, examples, neighbours."""


@dataclass(frozen=True)
class Cost:
    """What a stage will cost. Minutes are for this machine, as busy as it is now; a stage that is done costs none."""

    stage: str
    tokens: int
    bytes: int
    minutes: float


@dataclass(frozen=True)
class _Speed:
    """Seconds on this machine: a token to be captured, a token through the whole model, a training step, a byte written and hashed."""

    captured: float
    whole: float
    step: float
    byte: float


def estimate(run: Run) -> list[Cost]:
    """The cost of every stage.

    Raises: PipelineError for a source that cannot be read, or gives no row.
    """
    config, context, layers = run.config, run.config.capture.context, len(run.hooks)
    with tqdm(total=4, desc="probe", delay=2, disable=not run.progress, leave=False) as bar:
        rows, sample = _rows(run)
        bar.update()
        speed = _speed(run, sample, bar)
    held = max(2, round(config.text.held_out * rows))
    stored, read = min(held, config.capture.contexts_per_shard), min(held, config.reading.contexts) * context
    train = (rows - held) * context
    captured, shuffled = capture_bytes(run, rows - held + stored), capture_bytes(run, rows - held)
    weights = 8 * run.model.cfg.d_model * config.sae.d_sae * layers
    pushed = (config.verification.latents + config.verification.controls + 1) * config.verification.contexts * config.verification.tokens * layers
    measured = 5 * min(48, held) * context * layers
    trained = config.training.steps * config.training.batch_size * layers
    costs = [
        Cost("sentences", rows * context, 4 * rows * context, 4 * rows * context * speed.byte),
        Cost("capture", train + stored * context, captured, (train + stored * context) * speed.captured + captured * speed.byte),
        Cost("shuffle", train * layers, shuffled, 2 * shuffled * speed.byte),
        Cost("train", trained, 4 * weights, config.training.steps * layers * speed.step),
        Cost("features", read * layers, (4 * config.sae.k * read + _BYTES_A_LATENT * config.sae.d_sae) * layers, read * layers * speed.captured),
        Cost("labels", 0, 0, 0.0),
        Cost("verify", pushed, 0, pushed * speed.whole),
        Cost("card", measured, 0, measured * speed.whole),
    ]
    done = {cost.stage for cost in costs if (record := read_record(run, cost.stage)) and record["digest"]}
    return [Cost(cost.stage, cost.tokens, 0 if cost.stage in done else cost.bytes, 0.0 if cost.stage in done else cost.minutes / 60) for cost in costs]


def _rows(run: Run) -> tuple[int, Int[Tensor, "n context"]]:
    """(the rows that the text will give, some of them): counted if the sentences are there, else extrapolated from the first documents."""
    text, context = run.config.text, run.config.capture.context
    if (record := read_record(run, "sentences")) and record["digest"]:
        sentences = Sentences(run.at("sentences"))
        return len(sentences.document), sentences.rows(torch.arange(min(256, len(sentences.document))))
    length = 0

    def within(document: Document) -> bool:
        nonlocal length
        room, length = length < _SAMPLE_CHARACTERS, length + len(document.text)
        return room

    sample = [replace(document, text=document.text[:_SAMPLE_CHARACTERS]) for document in takewhile(within, documents_of(text)) if document.text.strip()]
    try:
        tokens, _ = contexts(run.model, sample, context)
    except ValueError as error:
        raise PipelineError(f"the first documents give no row: {error}") from error
    read, size = sum(map(bytes_of, sample)), size_of(text)
    most = text.max_tokens // context if text.max_tokens else None
    rows = most if size is None else max(1, round(len(tokens) * size / read))
    return rows if most is None else min(rows, most), tokens


def _speed(run: Run, sample: Int[Tensor, "n context"], bar: tqdm) -> _Speed:
    batch = sample[torch.arange(2 * run.config.capture.batch_size) % len(sample)]
    hooks = list(run.hooks.values())

    def capture() -> dict:
        return collect_activations(run.model, batch, hooks, position="all", mask=torch.ones_like(batch, dtype=torch.bool), batch_size=run.config.capture.batch_size,
                                   cache=False, progress=False)

    acts = capture()[hooks[0]].acts  # the first pass prepares buffers
    captured = _seconds(capture) / batch.numel()
    few = batch[: max(1, run.config.capture.batch_size // 2)].to(run.model.cfg.device)
    with torch.no_grad():
        whole = _seconds(lambda: run.model(few)) / few.numel()
    bar.update()
    step = _step(run, acts)
    bar.update()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "probe")
        content = bytes(_PROBE_BYTES)
        byte = _seconds(lambda: (atomic_write(file, content), sha256_of(file))) / _PROBE_BYTES
    bar.update()
    return _Speed(captured, whole, step, byte)


def _step(run: Run, acts: Float[Tensor, "n d_model"]) -> float:
    """Seconds of a training step, the processes' messages not counted."""
    share = run.config.training.batch_size // run.config.processes
    rows = Rows(acts[torch.arange(max(share, len(acts))) % len(acts)])
    cfg = SAEConfig(acts.shape[1], run.config.sae.d_sae, run.config.sae.k)

    def seconds(steps: int) -> float:
        return _seconds(lambda: train_sae(rows, cfg, replace(run.config.training, steps=steps, batch_size=share), device=run.model.cfg.device, progress=False))

    seconds(1)
    return max(seconds(9) - seconds(1), 1e-6) / 8  # what happens before the first step falls out


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def cost_text(costs: list[Cost], free: int) -> str:
    """The estimate as a table, with the sum and what the disk has room for."""
    lines = [f"{'stage':<10} {'tokens':>15} {'disk':>12} {'minutes':>9}"]
    for cost in [*costs, Cost("all", 0, sum(cost.bytes for cost in costs), sum(cost.minutes for cost in costs))]:
        lines.append(f"{cost.stage:<10} {f'{cost.tokens:,}' if cost.tokens else '':>15} {f'{cost.bytes / 1e6:,.0f} MB' if cost.bytes else '':>12} {cost.minutes:>9,.1f}")
    needed = sum(cost.bytes for cost in costs)
    lines.append(f"{free / 1e6:,.0f} MB are free on the disk" + ("." if needed < free else f": too few by {(needed - free) / 1e6:,.0f} MB. Lower text.max_tokens or the number of layers."))
    return "\n".join(lines)
