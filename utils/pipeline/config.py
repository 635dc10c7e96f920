"""What a run of the pipeline is told: frozen dataclasses, read from one YAML file.

    folder: runs/first
    text: {folder: my_texts}
    capture: {layers: [14]}
    sae: {d_sae: 2048, k: 32}
    training: {steps: 2000}

Whatever is left out keeps the default that its class documents. A key that does not exist is refused with the nearest one that does.
"""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from utils.default_model import DEFAULT_MODEL
from utils.sae.training import TrainingConfig


class PipelineError(RuntimeError):
    """The pipeline cannot go on. The message says why, and what to do next."""

    def _render_traceback_(self) -> list[str]:
        """In a notebook the message stands alone."""
        return [f"PipelineError: {self}"]


@dataclass(frozen=True)
class TextConfig:
    """Where the text comes from: exactly one of `folder`, `jsonl`, `dataset` and `corpus`.

    Attributes:
        folder: of .txt and .md files, one document each, subfolders too; files are read in numeric order (2 before 10).
        jsonl: a file with one JSON object a line.
        dataset: a data set of the Hugging Face hub, or a local folder of one; it is streamed and never stored.
        corpus: sources of the course's own text (`utils.data.corpus`): speeches, novels, sympy, networkx, reviews, news.
        field: which field of a line or a row holds the text.
        subset, split: of the data set.
        max_tokens: read no more than so many; None reads all, which a data set does not allow.
        held_out: the share of the documents that is kept for measuring, by a hash of their text: equal texts stay on one side.

    Raises: ValueError when not exactly one source is named, or for numbers out of range.
    """

    folder: str | None = None
    jsonl: str | None = None
    dataset: str | None = None
    corpus: tuple[str, ...] | None = None
    field: str = "text"
    subset: str | None = None
    split: str = "train"
    max_tokens: int | None = None
    held_out: float = 0.05

    def __post_init__(self) -> None:
        named = [name for name in ("folder", "jsonl", "dataset", "corpus") if getattr(self, name)]
        if len(named) != 1:
            raise ValueError(f"names {' and '.join(named) or 'no source'}: give exactly one of folder, jsonl, dataset and corpus.")
        if self.dataset and not self.max_tokens:
            raise ValueError("a data set is a stream without a known end: set max_tokens as well.")
        if not 0 < self.held_out < 1:
            raise ValueError(f"held_out is a share of the documents, between 0 and 1; got {self.held_out}.")
        _at_least_one(self, "max_tokens")


@dataclass(frozen=True)
class CaptureConfig:
    """Which activations are stored, and how.

    Attributes:
        layers: blocks after which the residual stream is read, from 0; all of them in one pass of the model.
        context: tokens a row, BOS included. Rows never cross documents; what is left at a document's end is dropped.
        contexts_per_shard: 1,024 rows of 128 tokens make 150 MB a layer at d_model 576.
        batch_size: rows at once.
        dtype: what the model computes in, float32 or bfloat16.

    Raises: ValueError for no layer, a layer twice, or counts below 1.
    """

    layers: tuple[int, ...] = (14,)
    context: int = 128
    contexts_per_shard: int = 1024
    batch_size: int = 16
    dtype: str = "float32"

    def __post_init__(self) -> None:
        if not self.layers or len(set(self.layers)) < len(self.layers) or min(self.layers) < 0:
            raise ValueError(f"layers = {list(self.layers)}: name at least one, each once, counted from 0.")
        if self.dtype not in ("float32", "bfloat16"):
            raise ValueError(f"dtype is float32 or bfloat16, not {self.dtype!r}.")
        _at_least_one(self, "contexts_per_shard", "batch_size")
        if self.context < 3:
            raise ValueError(f"context = {self.context}: a row has at least 3 tokens.")


@dataclass(frozen=True)
class SizeConfig:
    """The SAE of every layer.

    Attributes:
        d_sae: latents. k: how many of them may fire on a token.

    Raises: ValueError for counts below 1, or k > d_sae.
    """

    d_sae: int = 4096
    k: int = 32

    def __post_init__(self) -> None:
        _at_least_one(self, "d_sae", "k")
        if self.k > self.d_sae:
            raise ValueError(f"k = {self.k} latents cannot fire: there are only d_sae = {self.d_sae}.")


@dataclass(frozen=True)
class ReadingConfig:
    """How latents are read.

    Attributes:
        contexts: rows of held-out text from which the strongest examples of every latent are taken, at most.
        explainer: "word", "rules", or your own as "module:function" (see `utils.pipeline.labels`).

    Raises: ValueError for fewer than 2 contexts: one is for labelling, one for testing the label.
    """

    contexts: int = 1680
    explainer: str = "word"

    def __post_init__(self) -> None:
        if self.contexts < 2:
            raise ValueError(f"contexts = {self.contexts}: at least 2.")


@dataclass(frozen=True)
class VerificationConfig:
    """How labels are put to the test: push the latent, and see whether its label's words become likelier.

    Attributes:
        latents: labelled latents that are tested, at most.
        controls: random latents that are pushed beside them.
        contexts, tokens: rows of held-out text on which they are pushed, and how many tokens of each.
        strength: length of the push, in multiples of the usual activation's.

    Raises: ValueError for counts below 1 (controls and contexts below 2), or a strength of 0 or less.
    """

    latents: int = 50
    controls: int = 20
    contexts: int = 8
    tokens: int = 32
    strength: float = 0.4

    def __post_init__(self) -> None:
        _at_least_one(self, "latents")
        if min(self.controls, self.contexts) < 2 or self.tokens < 3 or self.strength <= 0:
            raise ValueError("controls and contexts are at least 2, tokens at least 3, strength above 0.")


@dataclass(frozen=True)
class PipelineConfig:
    """One run of the pipeline.

    Attributes:
        folder: where the run keeps everything; relative to the YAML file, like all paths in it.
        text, capture, sae, training, reading, verification: see their classes (training is `utils.sae.training.TrainingConfig`).
        model: a name or a folder, as `load_model` takes it.
        device: "cpu", "cuda", ...; None takes a GPU where there is one.
        processes: that train together, each on its share of every batch: gloo on CPUs, nccl with one GPU each.
        seed: of what is shuffled and drawn; the training has its own.

    Raises: ValueError when the batch cannot be shared out evenly, or a process count below 1.
    """

    folder: str
    text: TextConfig
    capture: CaptureConfig = field(default_factory=CaptureConfig)
    sae: SizeConfig = field(default_factory=SizeConfig)
    training: TrainingConfig = field(default_factory=lambda: TrainingConfig(steps=2000))
    reading: ReadingConfig = field(default_factory=ReadingConfig)
    verification: VerificationConfig = field(default_factory=VerificationConfig)
    model: str = DEFAULT_MODEL
    device: str | None = None
    processes: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        _at_least_one(self, "processes")
        if self.training.batch_size % self.processes:
            raise ValueError(f"training.batch_size = {self.training.batch_size} cannot be shared by {self.processes} processes: choose a multiple of {self.processes}.")

    def sections(self, *names: str) -> dict[str, Any]:
        """These parts of the configuration as plain values, as JSON gives them back."""
        plain = _plain(asdict(self))
        return {name: plain[name] for name in names}

    def to_yaml(self) -> str:
        """The whole configuration, defaults written out; `load_config` reads it."""
        return yaml.safe_dump(_plain(asdict(self)), sort_keys=False, allow_unicode=True)


def load_config(path: str | Path) -> PipelineConfig:
    """Read a run's configuration.

    Raises: PipelineError naming the file, the key and what to write instead.
    """
    path = Path(path)
    try:
        values = yaml.safe_load(path.read_text("utf-8"))
    except FileNotFoundError:
        near = difflib.get_close_matches(path.name, [other.name for other in path.parent.glob("*.y*ml")], n=1)
        raise PipelineError(f"there is no file {path}." + (f" Did you mean {path.with_name(near[0])}?" if near else " Give the path of a YAML file.")) from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise PipelineError(f"{path} cannot be read as YAML: {error}") from error
    config = _build(PipelineConfig, values, path.name)
    base = path.resolve().parent
    text = replace(config.text, **{name: str(base / value) for name in ("folder", "jsonl") if (value := getattr(config.text, name))})
    here = {name: str(base / value) for name, value in (("model", config.model), ("dataset", text.dataset)) if value and (base / value).is_dir()}
    text = replace(text, dataset=here.get("dataset", text.dataset))
    return replace(config, folder=str(base / config.folder), text=text, model=here.get("model", config.model))


def _build(kind: type, values: object, where: str) -> Any:
    """An instance of a dataclass from what YAML gave; `where` is how the place is called in an error."""
    if not isinstance(values, Mapping):
        raise PipelineError(f"{where} must be a table of `key: value` lines, not {values!r}.")
    known, hints = {f.name: f for f in fields(kind)}, typing.get_type_hints(kind)
    for key in values:
        if key not in known:
            raise PipelineError(f"{where} has no key {key!r}. {_nearest(str(key), known)}")
    missing = [name for name, f in known.items() if name not in values and f.default is MISSING and f.default_factory is MISSING]
    if missing:
        raise PipelineError(f"{where} lacks {', '.join(missing)}: add it. See {kind.__name__} in utils/pipeline/config.py.")
    arguments = {key: _value(hints[key], value, f"{where}: {key}") for key, value in values.items()}
    try:
        return kind(**arguments)
    except ValueError as error:
        raise PipelineError(f"{where}: {error}") from error


def _nearest(key: str, known: Mapping[str, object]) -> str:
    """What may have been meant: a key of this section, or of another."""
    sections = {name: kind for name, kind in typing.get_type_hints(PipelineConfig).items() if is_dataclass(kind)}
    places = {f.name: f"{f.name} under {section}:" for section, kind in sections.items() for f in fields(kind)}
    for names, called in ((known, {}), (places, places)):
        if near := difflib.get_close_matches(key, names, n=1):
            return f"Did you mean {called.get(near[0], near[0])}?"
    return f"There are: {', '.join(known)}."


def _value(hint: Any, value: object, where: str) -> Any:
    """A YAML value as the type that its field has."""
    if is_dataclass(hint):
        return _build(hint, value, where)
    if isinstance(hint, types.UnionType):
        return None if value is None else _value(typing.get_args(hint)[0], value, where)
    if typing.get_origin(hint) is tuple:
        items = value if isinstance(value, list) else [value]
        return tuple(_value(typing.get_args(hint)[0], item, where) for item in items)
    if hint is float and not isinstance(value, bool):
        try:
            return float(value)  # YAML takes 1e-3 for a text
        except (TypeError, ValueError):
            pass
    if isinstance(value, hint) and (hint is bool or not isinstance(value, bool)):
        return value
    wanted = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}[hint]
    raise PipelineError(f"{where} must be {wanted}, not {value!r}.")


def _plain(values: Any) -> Any:
    """Tuples as lists, all the way down."""
    if isinstance(values, Mapping):
        return {key: _plain(value) for key, value in values.items()}
    return [_plain(value) for value in values] if isinstance(values, (list, tuple)) else values


def _at_least_one(config: object, *names: str) -> None:
    for name in names:
        if getattr(config, name) is not None and getattr(config, name) < 1:
            raise ValueError(f"{name} must be at least 1, not {getattr(config, name)}.")


def changes(before: Mapping[str, Any], now: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """What differs between two tables of settings, one line each: "sae.d_sae: 64 -> 128"."""
    for key in {**before, **now}:
        old, new = before.get(key), now.get(key)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            yield from changes(old, new, f"{prefix}{key}.")
        elif old != new:
            yield f"{prefix}{key}: {old} -> {new}"
