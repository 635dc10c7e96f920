"""Activations of millions of tokens on disk: written once, resumable, read back in random order.

A folder of shards is one `manifest.json` and files `00000.safetensors`, `00001.safetensors`, ... Each holds the
tokens of the same number of contexts: `acts` [n, d_model] in half precision, `token`, `document` and `position` [n].
What a shard holds depends on its number alone, so a killed harvest goes on at the first file that is missing, and a
damaged file may be deleted and harvested again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import safetensors.torch
import torch
from filelock import FileLock
from jaxtyping import Float, Int
from safetensors import SafetensorError, safe_open
from torch import Tensor
from tqdm.auto import tqdm
from transformer_lens.model_bridge import TransformerBridge

from utils.activation_cache import model_digest
from utils.activations import collect_activations
from utils.data.corpus import Document
from utils.data.fetch import sha256_of
from utils.hooks import is_edited
from utils.paths import MANIFEST, atomic_write

CODE_VERSION = 1
"""Part of every manifest: raise it when a change here changes what is stored."""


class ShardError(RuntimeError):
    """A folder of shards cannot be used. The message says why, and what to do."""


def contexts(
    model: TransformerBridge, texts: Sequence[Document], context: int = 128
) -> tuple[Int[Tensor, "n context"], Int[Tensor, " n"]]:
    """Cut documents into rows of equal length, BOS first. What is left at a document's end is dropped.

    Returns:
        (tokens [n, context], document [n]: the index of each row's document in `texts`).

    Raises:
        ValueError: no documents, a context that the model does not hold, or no document that fills one.
    """
    if not texts:
        raise ValueError("no documents: the list is empty.")
    if not 2 <= context <= model.cfg.n_ctx:
        raise ValueError(f"a context has 2 to {model.cfg.n_ctx} tokens in this model, not {context}.")
    rows, owners, longest = [], [], 0
    for start in range(0, len(texts), 64):
        batch = model.tokenizer([document.text for document in texts[start : start + 64]], add_special_tokens=False, verbose=False)
        for i, ids in enumerate(batch["input_ids"], start):
            longest = max(longest, len(ids))
            full = len(ids) // (context - 1)
            rows.append(torch.tensor(ids[: full * (context - 1)], dtype=torch.long).view(full, context - 1))
            owners.append(torch.full((full,), i))
    tokens = torch.cat(rows)
    if not len(tokens):
        raise ValueError(
            f"no document fills a context of {context} tokens (BOS and {context - 1} more): the longest has {longest}. "
            "Give longer documents or a smaller context."
        )
    bos = torch.full((len(tokens), 1), model.tokenizer.bos_token_id)
    return torch.cat([bos, tokens], 1), torch.cat(owners)


def harvest(
    model: TransformerBridge,
    texts: Sequence[Document],
    name: str,
    folder: Path,
    *,
    context: int = 128,
    contexts_per_shard: int = 1024,
    max_contexts: int | None = None,
    seed: int = 0,
    batch_size: int = 16,
    progress: bool = True,
) -> Shards:
    """Run documents through the model and store the activations at one hook point, token by token.

    The contexts are shuffled first, so that every shard is a sample of all documents and a part of the shards is
    a fair small corpus. The first token of a context, and tokens with a norm above 3 times the median of their
    context, are left out (see `collect_activations`): they would hold most of the squared norm.
    Called again with the same arguments it goes on where it stopped, or returns at once.

    Args:
        model: the bridge, without hooks of yours on it.
        texts: whole documents.
        name: a hook point that holds [batch, pos, d_model].
        folder: where the shards go; made if it is not there.
        context: tokens per context, BOS included.
        contexts_per_shard: 1,024 contexts of 128 tokens make 150 MB at d_model 576.
        max_contexts: stop after so many (in the shuffled order); None takes all.
        seed: of the shuffle.
        batch_size: contexts at once.

    Raises:
        ShardError: the folder holds shards of another harvest (they are left as they are), or hooks or an SAE are attached to the model.
        ValueError, HookNameError: see `contexts` and `collect_activations` (NaN activations among them); activations that are
            not d_model wide, or too large for half precision.
        OSError: the disk is full. What is written so far stays, and the next call goes on from there.
    """
    folder = Path(folder)
    if is_edited(model):
        raise ShardError("hooks or an SAE are attached to the model: its activations are not its own. Detach them before harvesting.")
    for key, number in (("contexts_per_shard", contexts_per_shard), ("max_contexts", 1 if max_contexts is None else max_contexts)):
        if number < 1:
            raise ValueError(f"{key} must be at least 1, not {number}.")
    tokens, owners = contexts(model, texts, context)
    order = torch.randperm(len(tokens), generator=torch.Generator().manual_seed(seed))[:max_contexts]
    tokens, owners = tokens[order], owners[order]
    facts = {
        "version": CODE_VERSION,
        "model": model_digest(model),
        "hook": name,
        "dtype": str(model.cfg.dtype).removeprefix("torch."),
        "d_model": model.cfg.d_model,
        "context": context,
        "contexts": len(tokens),
        "contexts_per_shard": contexts_per_shard,
        "tokens_sha256": hashlib.sha256(tokens.numpy().tobytes()).hexdigest(),
    }
    names = [[document.source, document.name] for document in texts]
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_name(folder.name + ".lock")):  # a run in the background and a notebook may want the same folder
        manifest = _read_manifest(folder)
        if manifest is None:
            manifest = {**facts, "documents": names, "shards": []}
        _same(manifest, {**facts, "documents": names}, folder)
        there = [_path(folder, i).exists() for i in range(len(manifest["shards"]))]
        del manifest["shards"][[*there, False].index(False):]
        done = len(manifest["shards"])
        with tqdm(total=tokens.numel(), initial=min(done * contexts_per_shard, len(tokens)) * context, unit=" tokens", unit_scale=True,
                  desc=f"harvesting {name}", disable=not progress, delay=2) as bar:
            for i in range(done, -(-len(tokens) // contexts_per_shard)):
                rows = slice(i * contexts_per_shard, (i + 1) * contexts_per_shard)
                manifest["shards"].append(_write(_path(folder, i), model, name, tokens[rows], owners[rows], batch_size))
                atomic_write(folder / MANIFEST, json.dumps(manifest, indent=1))
                bar.update(tokens[rows].numel())
    return Shards(folder)


def _write(
    path: Path, model: TransformerBridge, name: str, tokens: Int[Tensor, "n context"], owners: Int[Tensor, " n"], batch_size: int
) -> dict[str, int | str]:
    """Compute and store one shard; returns its entry in the manifest."""
    found = collect_activations(model, tokens.to(model.cfg.device), name, position="all", mask=torch.ones_like(tokens, dtype=torch.bool),
                                batch_size=batch_size, cache=False, progress=False)
    if found.acts.shape[1] != model.cfg.d_model:
        raise ValueError(f"{name} is {found.acts.shape[1]} wide, not d_model = {model.cfg.d_model}: choose a point on the residual stream.")
    acts = found.acts.half()
    if not acts.isfinite().all():
        raise ValueError(f"{name} has values beyond half precision's 65,504: they cannot be stored.")
    content = safetensors.torch.save({"acts": acts, "token": found.token.int(), "document": owners[found.text].int(), "position": found.position.short()})
    atomic_write(path, content)
    return {"tokens": len(acts), "sha256": hashlib.sha256(content).hexdigest()}


def _path(folder: Path, i: int) -> Path:
    return folder / f"{i:05d}.safetensors"


@dataclass(frozen=True)
class Shards:
    """A finished folder of shards. The files are memory-mapped: opening it reads almost nothing.

    Raises: ShardError on construction, when the folder is missing, unfinished or damaged, or when a shard is
    empty or has another shape than the manifest says.
    """

    folder: Path

    def __post_init__(self) -> None:
        object.__setattr__(self, "folder", Path(self.folder))
        self.parts  # looks at every file once, so that a fault shows here and not after an hour of training

    @cached_property
    def manifest(self) -> dict:
        manifest = _read_manifest(self.folder)
        if manifest is None:
            raise ShardError(f"{self.folder} holds no {MANIFEST}: harvest activations into it first.")
        if len(manifest["shards"]) * manifest["contexts_per_shard"] < manifest["contexts"]:
            raise ShardError(
                f"{self.folder} is not finished: {len(manifest['shards'])} shards are there. Call harvest again with the same "
                "arguments; it goes on where it stopped."
            )
        return manifest

    @cached_property
    def parts(self) -> list[dict[str, Tensor]]:
        """The tensors of every shard, memory-mapped."""
        return [_open(_path(self.folder, i), facts["tokens"], self.manifest["d_model"])
                for i, facts in enumerate(self.manifest["shards"])]

    @property
    def hook(self) -> str:
        return self.manifest["hook"]

    @property
    def d_model(self) -> int:
        return self.manifest["d_model"]

    def __len__(self) -> int:
        """The number of tokens."""
        return sum(facts["tokens"] for facts in self.manifest["shards"])

    def verify(self) -> None:
        """Hash every file. Raises ShardError naming the first that is not what was written."""
        for i, facts in enumerate(self.manifest["shards"]):
            path = _path(self.folder, i)
            if sha256_of(path) != facts["sha256"]:
                raise ShardError(_again(path, "its content changed"))

    def rows(self, index: Int[Tensor, " n"]) -> Float[Tensor, "n d_model"]:
        """The activations of the tokens with these numbers, in this order, float32 on the CPU."""
        starts = torch.tensor([0, *(facts["tokens"] for facts in self.manifest["shards"])]).cumsum(0)
        found = torch.empty(len(index), self.d_model)
        shard = torch.bucketize(index, starts, right=True) - 1
        for i in shard.unique().tolist():
            where = (shard == i).nonzero().squeeze(1)
            found[where] = self.parts[i]["acts"][index[where] - starts[i]].float()
        return found

    def batches(self, batch_size: int, seed: int, first: int = 0) -> Iterator[Float[Tensor, "batch d_model"]]:
        """Batches for ever: every epoch is a new random order of all tokens. A last incomplete batch is dropped.

        Args:
            batch_size: tokens.
            seed: of the shuffles (see `epoch_seed`).
            first: the number of the batch to begin with: a resumed run sees what the killed one would have seen.

        Raises: ValueError when there are fewer tokens than one batch takes.
        """
        per_epoch = len(self) // batch_size if batch_size > 0 else 0
        if per_epoch == 0:
            raise ValueError(f"a batch of {batch_size:,} tokens cannot be filled: the shards hold {len(self):,}.")
        epoch, skip = divmod(first, per_epoch)
        while True:
            order = torch.randperm(len(self), generator=torch.Generator().manual_seed(epoch_seed(seed, epoch)))
            for i in range(skip, per_epoch):
                yield self.rows(order[i * batch_size : (i + 1) * batch_size])
            epoch, skip = epoch + 1, 0

    def sample(self, n: int, seed: int = 0) -> Float[Tensor, "n d_model"]:
        """The activations of n tokens drawn without replacement (all of them when there are fewer)."""
        return self.rows(torch.randperm(len(self), generator=torch.Generator().manual_seed(seed))[:n])


def epoch_seed(seed: int, epoch: int) -> int:
    """The seed of one epoch's shuffle. No two runs share an order: seed + epoch would give one run's second epoch to the next run as its first."""
    return seed * 1_000_003 + epoch


def _read_manifest(folder: Path) -> dict | None:
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        manifest["shards"], manifest["contexts"], manifest["contexts_per_shard"], manifest["d_model"]  # noqa: B018
        return manifest
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ShardError(f"{folder / MANIFEST} cannot be read ({error}). Delete the folder and harvest again.") from error


def _same(manifest: dict, facts: dict, folder: Path) -> None:
    for key, wanted in facts.items():
        if manifest.get(key) != wanted:
            what = {"model": "another model", "hook": f"another hook point, {manifest.get('hook')}",
                    "tokens_sha256": "other texts or another shuffle", "documents": "other documents"}.get(key, f"{key} = {manifest.get(key)}, not {wanted}")
            raise ShardError(f"{folder} holds activations of {what}. Choose another folder, or delete this one.")


def _again(path: Path, reason: str) -> str:
    return f"{path.name} in {path.parent} is damaged: {reason}. Delete this file and call harvest again."


def _open(path: Path, tokens: int, d_model: int) -> dict[str, Tensor]:
    try:
        with safe_open(path, framework="pt") as file:
            part = {key: file.get_tensor(key) for key in ("acts", "token", "document", "position")}
    except FileNotFoundError as error:
        raise ShardError(_again(path, "it is missing")) from error
    except (SafetensorError, OSError) as error:
        raise ShardError(_again(path, f"it cannot be read ({error})")) from error
    if part["acts"].shape != (tokens, d_model) or tokens == 0:
        raise ShardError(_again(path, f"it holds {list(part['acts'].shape)} activations instead of [{tokens}, {d_model}]"))
    return part
