"""What a run has finished: one record a stage, written when it begins and again when it is done.

A stage's folder holds everything that it makes and `record.json`: the settings it was made with, the fingerprint of all that
came before it, and the SHA-256 of every file. So a run can be stopped anywhere, and nothing old is ever mistaken for new.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from utils.data.fetch import sha256_of
from utils.hooks import resid_post
from utils.paths import atomic_write
from utils.pipeline.config import PipelineConfig, PipelineError, changes

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

RECORD, MODEL = "record.json", "model.json"


@dataclass(frozen=True)
class Run:
    """One run: its configuration, its folder, its model.

    Attributes:
        config: what it was told.
        progress: show bars with the time left on what takes longer than two seconds.
    """

    config: PipelineConfig
    progress: bool = True

    @property
    def folder(self) -> Path:
        return Path(self.config.folder)

    def at(self, stage: str, layer: int | None = None) -> Path:
        """Where a stage keeps what it makes: of one layer, or of all."""
        return self.folder / stage if layer is None else self.folder / stage / f"layer-{layer:02d}"

    @property
    def hooks(self) -> dict[int, str]:
        """{layer: its hook point}, in the order of the configuration."""
        return {layer: resid_post(layer) for layer in self.config.capture.layers}

    @cached_property
    def model(self) -> TransformerBridge:
        """The model, if it is still the one that the run began with.

        Raises: PipelineError when it is another one, cannot be loaded or has too few layers.
        """
        import torch

        from utils.activation_cache import model_digest
        from utils.default_model import ModelError
        from utils.models import load_model

        try:
            model = load_model(self.config.model, device=self.config.device, dtype=getattr(torch, self.config.capture.dtype), verbose=False)
        except ModelError as error:
            raise PipelineError(str(error)) from error
        self._check_sizes(model)
        known = self.folder / MODEL
        if known.exists() and json.loads(known.read_text("utf-8"))["digest"] != model_digest(model):
            raise PipelineError(f"{self.config.model} is not the model that {self.folder} was begun with: its weights, its configuration or its dtype changed. "
                                "Bring the old one back, or give `folder` another name for a new run.")
        return model

    def remember_model(self) -> None:
        """Note which model the run has begun with."""
        from utils.activation_cache import model_digest

        atomic_write(self.folder / MODEL, json.dumps({"model": self.config.model, "digest": model_digest(self.model)}, indent=1))

    def _check_sizes(self, model: TransformerBridge) -> None:
        if max(self.config.capture.layers) >= model.cfg.n_layers:
            raise PipelineError(f"capture.layers = {list(self.config.capture.layers)}: {self.config.model} has layers 0 to {model.cfg.n_layers - 1}.")
        if self.config.capture.context > model.cfg.n_ctx:
            raise PipelineError(f"capture.context = {self.config.capture.context}: {self.config.model} holds {model.cfg.n_ctx} tokens.")


def read_record(run: Run, stage: str) -> dict[str, Any] | None:
    """A stage's record, None before it has begun. Raises PipelineError for a record that cannot be read."""
    path = run.at(stage) / RECORD
    try:
        record = json.loads(path.read_text("utf-8"))
        record["settings"], record["before"], record["outputs"], record["digest"]  # noqa: B018
        return record
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise PipelineError(f"{path} cannot be read ({error}). Delete the folder {path.parent} and run again: that stage is made anew.") from error


def begin(run: Run, stage: str, settings: Mapping[str, Any], before: str) -> None:
    """Note what a stage is about to be made with."""
    record = {"settings": settings, "before": before, "outputs": None, "digest": None}
    atomic_write(run.at(stage) / RECORD, json.dumps(record, indent=1))


def finish(run: Run, stage: str, settings: Mapping[str, Any], before: str, outputs: Mapping[Path, str], seconds: float) -> str:
    """Note what a stage made; returns the fingerprint of it and of all before it.

    Args:
        outputs: {file: its SHA-256}.
    """
    files = {path.relative_to(run.folder).as_posix(): {"bytes": path.stat().st_size, "sha256": sha256} for path, sha256 in sorted(outputs.items())}
    digest = hashlib.sha256(json.dumps([before, {name: file["sha256"] for name, file in files.items()}]).encode()).hexdigest()
    record = {"settings": settings, "before": before, "outputs": files, "digest": digest, "seconds": round(seconds, 1)}
    atomic_write(run.at(stage) / RECORD, json.dumps(record, indent=1))
    return digest


def hashed(*paths: Path) -> dict[Path, str]:
    """{file: its SHA-256}."""
    return {path: sha256_of(path) for path in paths}


def difference(record: Mapping[str, Any], settings: Mapping[str, Any], before: str) -> str:
    """Why a record is not of this run: the settings that changed, or that an earlier stage did; "" if it is."""
    found = "; ".join(changes(record["settings"], settings))
    return found or ("" if record["before"] == before else "an earlier stage was made anew")


def damage(run: Run, record: Mapping[str, Any]) -> str:
    """Which output is missing or has another size, "" if none: sizes cost nothing, contents are hashed where they are read."""
    for name, file in record["outputs"].items():
        path = run.folder / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != file["bytes"]:
            return f"{name} has {path.stat().st_size:,} bytes instead of {file['bytes']:,}"
    return ""
