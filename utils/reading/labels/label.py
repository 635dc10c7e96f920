"""A latent's label with its scores: what a page shows of it, how it is searched, and the file that holds many."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from utils.paths import atomic_write
from utils.reading.features import FeatureError

WEAK = 0.6
"""A balanced accuracy below this, against near silent places, is a weak label: at best one firing in five more is found than called wrongly."""


@dataclass(frozen=True)
class Scored:
    """A latent's label with its scores on contexts that it was not made from. None: too few places to tell.

    Attributes:
        rule: the label, in the language of `utils.reading.labels.language`.
        random, near: balanced accuracy against silent places at random, and against those where a neighbour fires.
        floor: the second, for another latent's label.
        genre: the second, on text of another genre.
        precision: the share of the rule's calls in running text at which the latent fires.
    """

    rule: str
    random: float | None
    near: float | None
    floor: float | None
    genre: float | None
    precision: float | None

    @property
    def weak(self) -> bool:
        return self.near is None or self.near < WEAK

    @property
    def score(self) -> str:
        """The score in a word or two."""
        return "no score" if self.near is None else f"{self.near:.2f}{', weak' if self.weak else ''}"

    @property
    def in_words(self) -> str:
        """The score beside chance and its floor, for a reader in a hurry."""
        if self.near is None:
            return "too rare to be scored"
        floor = "" if self.floor is None else f", another latent's label {self.floor:.2f}"
        called = "" if self.precision is None else f"; it fires at {self.precision:.0%} of the places that the label calls"
        return f"score {self.near:.2f} (chance 0.50{floor}){called}"


def labels_saying(labels: Mapping[int, Scored], query: str) -> list[int]:
    """Latents whose label holds the query, best score first. Raises FeatureError when there is none."""
    wanted = query.strip().lower()
    if not wanted:
        raise FeatureError("there is nothing to search for: type a word, or a part of a rule.")
    found = [latent for latent, label in labels.items() if wanted in label.rule.lower()]
    if not found:
        raise FeatureError(f"no label says {query.strip()!r}. Search for another word, or a part of one.")
    return sorted(found, key=lambda latent: -(labels[latent].near or 0))


def save_labels(labels: Mapping[int, Scored], path: Path, sae_sha256: str) -> str:
    """Write labels to one compressed file; its SHA-256."""
    content = {"sae": sae_sha256, "labels": {str(latent): list(asdict(label).values()) for latent, label in sorted(labels.items())}}
    packed = gzip.compress(json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode(), 9, mtime=0)
    atomic_write(path, packed)
    return hashlib.sha256(packed).hexdigest()


def read_labels(path: Path, sae_sha256: str | None = None) -> dict[int, Scored]:
    """Read what `save_labels` wrote. Raises FeatureError when it is missing, damaged or of another SAE."""
    try:
        content = json.loads(gzip.decompress(Path(path).read_bytes()))
        labels = {int(latent): Scored(*fields) for latent, fields in content["labels"].items()}
    except (OSError, EOFError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise FeatureError(f"{path} holds no labels that can be read ({type(error).__name__}: {error}).") from error
    if sae_sha256 is not None and content["sae"] != sae_sha256:
        raise FeatureError(f"the labels in {path} are of another SAE.")
    return labels
