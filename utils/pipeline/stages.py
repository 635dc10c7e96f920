"""The stages in their order, and what runs them: all that is not done yet, or one alone."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from utils.data.fetch import FetchError, is_disk_full
from utils.paths import MANIFEST, atomic_write
from utils.pipeline.capture import capture, shuffle
from utils.pipeline.card import write_cards
from utils.pipeline.config import PipelineConfig, PipelineError
from utils.pipeline.labels import read_features, write_labels
from utils.pipeline.records import Run, begin, damage, difference, finish, read_record
from utils.pipeline.text import write_sentences
from utils.pipeline.verifying import verify
from utils.pipeline.workers import CONFIG_FILE, steps_done, train


@dataclass(frozen=True)
class Stage:
    """One step of the pipeline.

    Attributes:
        name: also its folder's.
        about: in a few words.
        work: makes its files, or those that are missing; returns {file: SHA-256}. Called again, it changes nothing.
        settings: the parts of the configuration that its files depend on.
        how_far: where an unfinished one stands.
    """

    name: str
    about: str
    work: Callable[[Run], dict[Path, str]]
    settings: Callable[[PipelineConfig], dict[str, Any]]
    how_far: Callable[[Run], str] = lambda run: ""


def _shards_done(stage: str) -> Callable[[Run], str]:
    def count(run: Run) -> str:
        manifests = [json.loads(path.read_text("utf-8")) for path in run.at(stage).rglob(MANIFEST)]
        there, wanted = (sum(counts) for counts in zip((0, 0), *((len(m["shards"]), -(-m["contexts"] // m["contexts_per_shard"])) for m in manifests)))
        return f"{there} of {wanted} shards" if wanted else ""

    return count


def _parts_done(run: Run) -> str:
    path = run.at("sentences") / MANIFEST
    return f"{sum(part['rows'] for part in json.loads(path.read_text('utf-8'))['parts']):,} rows" if path.exists() else ""


def _training_done(run: Run) -> str:
    return ", ".join(f"layer {layer}: step {steps_done(run.at('train', layer)):,} of {run.config.training.steps:,}" for layer in run.hooks)


def _text_settings(config: PipelineConfig) -> dict[str, Any]:
    return {**config.sections("model", "text"), "context": config.capture.context}


STAGES = (
    Stage("sentences", "text becomes rows of tokens", write_sentences, _text_settings, _parts_done),
    Stage("capture", "activations of all layers in one pass", capture, lambda config: config.sections("capture", "seed"), _shards_done("capture")),
    Stage("shuffle", "tokens dealt out across shards", shuffle, lambda config: config.sections("seed"), _shards_done("shuffle")),
    Stage("train", "an SAE for every layer", train, lambda config: config.sections("sae", "training", "processes"), _training_done),
    Stage("features", "the strongest examples of every latent", read_features, lambda config: {"contexts": config.reading.contexts}),
    Stage("labels", "what the latents mean", write_labels, lambda config: {"explainer": config.reading.explainer}),
    Stage("verify", "labels tested by steering", verify, lambda config: config.sections("verification")),
    Stage("card", "measured, beside its controls", write_cards, lambda config: {}),
)
NAMES = tuple(stage.name for stage in STAGES)


def run_pipeline(config: PipelineConfig, *, only: str | None = None, progress: bool = True) -> Run:
    """Run every stage that is not done, in order; call it again after whatever stopped it.

    Args:
        only: run this stage and no other; those before it must be done.
        progress: print a line a stage, and bars on what takes longer.

    Raises: PipelineError that says what to do next: a bad source or configuration, another model, a stage made with other settings, a full disk, a
        worker that died, a run that another process is busy with.
    """
    if only is not None and only not in NAMES:
        raise PipelineError(f"there is no stage {only!r}: the stages are {', '.join(NAMES)}.")
    run = Run(config, progress)
    with _alone(run):
        before = ""
        for stage in STAGES:
            record = _checked(run, stage, before)
            if record is not None and record["digest"] and not _repaired(run, stage, record):
                before = record["digest"]
            elif only is not None and only != stage.name:
                raise PipelineError(f"{only} needs {stage.name}, which is not done: python -m utils pipeline run CONFIG --stage {stage.name}")
            else:
                before = _work(run, stage, before)
            if stage.name == only:
                break
    return run


def _checked(run: Run, stage: Stage, before: str) -> dict[str, Any] | None:
    """The stage's record, if it was made with these settings. Raises PipelineError otherwise: hours of work are not thrown away unasked."""
    record = read_record(run, stage.name)
    reason = difference(record, stage.settings(run.config), before) if record is not None else ""
    if reason:
        later = [run.at(name).as_posix() for name in NAMES[NAMES.index(stage.name):] if run.at(name).exists()]
        raise PipelineError(f"{stage.name} in {run.folder} was made differently: {reason}. Undo that, choose another `folder`, or delete what depends on it: {', '.join(later)}.")
    return record


def _repaired(run: Run, stage: Stage, record: dict[str, Any]) -> bool:
    """Whether a finished stage has lost a file. One of another size is deleted, so that the stage makes it anew."""
    fault = damage(run, record)
    if fault and run.progress:
        print(f"{stage.name}: {fault}; it is made anew.")
    for name, file in record["outputs"].items() if fault else ():
        path = run.folder / name
        if path.is_file() and path.stat().st_size != file["bytes"]:
            path.unlink()
    return bool(fault)


def _work(run: Run, stage: Stage, before: str) -> str:
    """Run one stage; returns the fingerprint of all that is done then."""
    started, settings = time.perf_counter(), stage.settings(run.config)
    run.folder.mkdir(parents=True, exist_ok=True)
    atomic_write(run.folder / CONFIG_FILE, run.config.to_yaml())
    begin(run, stage.name, settings, before)
    outputs = stage.work(run)
    seconds = time.perf_counter() - started
    digest = finish(run, stage.name, settings, before, outputs, seconds)
    if run.progress:
        print(f"{stage.name:<10} done in {seconds:,.0f} s: {stage.about}", flush=True)
    return digest


@contextmanager
def _alone(run: Run) -> Iterator[None]:
    """Hold the run's folder, and say in plain words what the disk has against it."""
    try:
        run.folder.mkdir(parents=True, exist_ok=True)
        with FileLock(run.folder / ".lock", timeout=0):
            yield
    except Timeout:
        raise PipelineError(f"another process is busy with {run.folder}. Wait for it, or stop it.") from None
    except FetchError as error:
        raise PipelineError(str(error)) from error
    except Exception as error:
        if is_disk_full(error):
            raise PipelineError(f"the disk of {run.folder} is full. What is written stays: free some space, then python -m utils pipeline resume {run.folder}") from error
        if isinstance(error, PermissionError):
            raise PipelineError(f"{error.filename or run.folder} cannot be written: make it writable, or give `folder` another place.") from error
        raise


def status(config: PipelineConfig) -> list[tuple[str, str, str]]:
    """(stage, "done", "unfinished", "changed", "damaged" or "waiting", details) for every stage. Loads no model.

    Raises: PipelineError for a record that cannot be read.
    """
    run, before, lines = Run(config, progress=False), "", []
    for stage in STAGES:
        record = read_record(run, stage.name)
        if record is None:
            lines.append((stage.name, "waiting", stage.about))
            continue
        if reason := difference(record, stage.settings(config), before):
            lines.append((stage.name, "changed", reason))
        elif record["digest"] is None:
            lines.append((stage.name, "unfinished", stage.how_far(run)))
        elif fault := damage(run, record):
            lines.append((stage.name, "damaged", fault))
        else:
            size = sum(file["bytes"] for file in record["outputs"].values())
            lines.append((stage.name, "done", f"{record['digest'][:12]}  {size / 1e6:,.1f} MB  {record['seconds']:,.0f} s"))
        before = record["digest"] or ""
    return lines
