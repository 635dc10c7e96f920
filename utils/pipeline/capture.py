"""Activations of several layers from one pass of the model, then the same tokens in an order without documents.

Both stages write folders that `utils.sae.shards.Shards` reads. The numbers of the shards give their order, not the names in the folder.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import safetensors.torch
import torch
from jaxtyping import Int
from torch import Tensor
from tqdm.auto import tqdm

from utils.activations import TokenActivations, collect_activations
from utils.data.fetch import sha256_of
from utils.paths import MANIFEST, atomic_write
from utils.pipeline.config import PipelineError
from utils.pipeline.records import Run
from utils.pipeline.text import Sentences, read_manifest
from utils.sae.shards import ShardError, Shards

SPLITS = ("train", "held-out")
BYTES_BESIDE = 10
"""Of every stored token: its id, document and position."""


def capture(run: Run) -> dict[Path, str]:
    """Store the activations of all layers: shards of the text that is trained on, and one shard of what is held out.

    Rows are drawn in random order first, so that every shard is a sample of all documents; within a shard the tokens are shuffled, so that
    any slice of it is a sample, too. The first token of a row and tokens of unusual norm are left out (see `collect_activations`).

    Raises: PipelineError when the disk has no room or an activation is beyond half precision; ValueError for NaN.
    """
    sentences = Sentences(run.at("sentences"))
    chosen = {split: index[torch.randperm(len(index), generator=torch.Generator().manual_seed(run.config.seed))]
              for split, index in (("train", sentences.train), ("held-out", sentences.held_out))}
    chosen["held-out"] = chosen["held-out"][: run.config.capture.contexts_per_shard]
    n = sum(map(len, chosen.values()))
    check_room(run, "capture", capture_bytes(run, n) - _written(run.at("capture")))
    outputs = {}
    with tqdm(total=n * run.config.capture.context, unit=" tokens", unit_scale=True, desc=f"capture, layers {list(run.hooks)}", delay=2, disable=not run.progress) as bar:
        for split in SPLITS:
            outputs |= _capture_split(run, sentences, split, chosen[split], bar)
    return outputs


def capture_bytes(run: Run, rows: int) -> int:
    """What so many rows take on disk, all layers together."""
    return rows * run.config.capture.context * (2 * run.model.cfg.d_model + BYTES_BESIDE) * len(run.hooks)


def check_room(run: Run, stage: str, needed: int) -> None:
    """Raise PipelineError when a stage will not fit on the disk: said before hours are spent, not after."""
    free = shutil.disk_usage(run.folder).free
    if needed > free:
        raise PipelineError(f"the disk is too full for {stage}: it needs {needed / 1e6:,.0f} MB in {run.folder}, where {free / 1e6:,.0f} MB are free. "
                            "Free some space, lower text.max_tokens or the number of layers, or give `folder` a place on another disk.")


def _written(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*.safetensors"))


def _capture_split(run: Run, sentences: Sentences, split: str, index: Int[Tensor, " n"], bar: tqdm) -> dict[Path, str]:
    size = run.config.capture.contexts_per_shard
    # Documents get numbers of their own on the held-out side, where sums are made over each of them.
    known, owners = sentences.document[index].unique(return_inverse=True) if split == "held-out" else (torch.zeros(0), sentences.document[index])
    folders = {layer: run.at("capture", layer) / split for layer in run.hooks}
    manifests = {layer: read_manifest(folder) or _empty_manifest(run, layer, len(index), known.tolist()) for layer, folder in folders.items()}
    done = min(_in_a_row(folders[layer], manifest) for layer, manifest in manifests.items())
    for manifest in manifests.values():
        del manifest["shards"][done:]
    bar.update(min(done * size, len(index)) * run.config.capture.context)
    for i in range(done, -(-len(index) // size)):
        rows = slice(i * size, (i + 1) * size)
        found = _activations(run, sentences.rows(index[rows]))
        for layer, manifest in manifests.items():
            columns = _columns(found[run.hooks[layer]], owners[rows], run.config.seed + i)
            manifest["shards"].append(write_shard(folders[layer], i, columns))
        for layer, manifest in manifests.items():
            atomic_write(folders[layer] / MANIFEST, json.dumps(manifest, indent=1))
        bar.update(len(index[rows]) * run.config.capture.context)
    return {shard_path(folders[layer], i): shard["sha256"] for layer, manifest in manifests.items() for i, shard in enumerate(manifest["shards"])}


def _empty_manifest(run: Run, layer: int, contexts: int, documents: list[int]) -> dict:
    return {"hook": run.hooks[layer], "d_model": run.model.cfg.d_model, "context": run.config.capture.context, "contexts": contexts,
            "contexts_per_shard": run.config.capture.contexts_per_shard, "documents": documents, "shards": []}


def _in_a_row(folder: Path, manifest: dict) -> int:
    """How many shards are there from the first one on."""
    there = [shard_path(folder, i).exists() for i in range(len(manifest["shards"]))]
    return [*there, False].index(False)


def _activations(run: Run, tokens: Int[Tensor, "n context"]) -> dict[str, TokenActivations]:
    return collect_activations(run.model, tokens, list(run.hooks.values()), position="all", mask=torch.ones_like(tokens, dtype=torch.bool),
                               batch_size=run.config.capture.batch_size, cache=False, progress=False)


def _columns(found: TokenActivations, owners: Int[Tensor, " n"], seed: int) -> dict[str, Tensor]:
    """A shard's columns, its tokens shuffled."""
    acts = found.acts.half()
    if not acts.isfinite().all():
        raise PipelineError("some activations are beyond half precision's 65,504 and cannot be stored: choose another layer.")
    order = torch.randperm(len(acts), generator=torch.Generator().manual_seed(seed))
    return {"acts": acts[order], "token": found.token[order].int(), "document": owners[found.text[order]].int(), "position": found.position[order].short()}


def shard_path(folder: Path, i: int) -> Path:
    """Where `Shards` looks for shard i."""
    return folder / f"{i:05d}.safetensors"


def write_shard(folder: Path, i: int, columns: dict[str, Tensor]) -> dict[str, int | str]:
    """Store one shard, whole or not at all; returns its entry in the manifest."""
    content = safetensors.torch.save(columns)
    atomic_write(shard_path(folder, i), content)
    return {"tokens": len(columns["acts"]), "sha256": hashlib.sha256(content).hexdigest()}


def open_shards(folder: Path) -> Shards:
    """The shards of a finished stage. Raises PipelineError naming the file that is missing or damaged, and what to do."""
    try:
        return Shards(folder)
    except ShardError as error:
        reason = str(error).split(" Delete this file")[0]
        raise PipelineError(f"{reason} Delete that file and run again: it is made anew.") from error


def verified_shards(folder: Path, progress: bool) -> Shards:
    """The same after every file was hashed, with the time left. Raises PipelineError naming the first that is not what was written."""
    shards = open_shards(folder)
    for i, shard in enumerate(tqdm(shards.manifest["shards"], desc="checking shards", delay=2, leave=False, disable=not progress)):
        if sha256_of(shard_path(folder, i)) != shard["sha256"]:
            raise PipelineError(f"{shard_path(folder, i)} is damaged: its content changed. Delete that file and run again: it is made anew.")
    return shards


def shuffle(run: Run) -> dict[Path, str]:
    """Deal the tokens of every captured shard out over all new ones, so that a training run may read its shards one after another.

    New shard j takes the j-th part of every old shard, whose order is random already, and shuffles what it got: no more than one shard is
    ever in memory, and every byte is read once, in runs.

    Raises: PipelineError when the disk has no room or a captured shard is damaged.
    """
    captured = {layer: verified_shards(run.at("capture", layer) / "train", run.progress) for layer in run.hooks}
    check_room(run, "shuffle", sum(_written(shards.folder) for shards in captured.values()) - _written(run.at("shuffle")))
    outputs = {}
    with tqdm(total=sum(map(len, captured.values())), unit=" tokens", unit_scale=True, desc="shuffle", delay=2, disable=not run.progress) as bar:
        for layer, shards in captured.items():
            outputs |= _shuffle_layer(shards, run.at("shuffle", layer), run.config.seed, bar)
    return outputs


def _shuffle_layer(shards: Shards, folder: Path, seed: int, bar: tqdm) -> dict[Path, str]:
    manifest = read_manifest(folder) or {**shards.manifest, "shards": []}
    del manifest["shards"][_in_a_row(folder, manifest):]
    bar.update(sum(shard["tokens"] for shard in manifest["shards"]))
    for j in range(len(manifest["shards"]), len(shards.parts)):
        entry = write_shard(folder, j, dealt(shards, j, seed))
        manifest["shards"].append(entry)
        atomic_write(folder / MANIFEST, json.dumps(manifest, indent=1))
        bar.update(entry["tokens"])
    return {shard_path(folder, j): shard["sha256"] for j, shard in enumerate(manifest["shards"])}


def dealt(shards: Shards, j: int, seed: int) -> dict[str, Tensor]:
    """The columns of new shard j: its part of every old shard, shuffled.

    Over all j every token comes once; the parts differ in size by one token at most.
    """
    n = len(shards.parts)
    slices = [slice(j * len(part["acts"]) // n, (j + 1) * len(part["acts"]) // n) for part in shards.parts]
    order = torch.randperm(sum(s.stop - s.start for s in slices), generator=torch.Generator().manual_seed(seed * 1_000_003 + j))
    return {key: torch.cat([part[key][s] for part, s in zip(shards.parts, slices)])[order] for key in ("acts", "token", "document", "position")}
