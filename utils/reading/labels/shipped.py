"""The labels of all latents of the course SAE, with their scores, as they ship.

    python -m utils label            makes them anew: minutes, after the corpus has been read once
    python -m utils label year       latents whose label says "year", best score first

Rules are found on half of the reading corpus and scored on the other half, against random and near silent places, and on text of
another genre. The floor of a score is that of the same rule on another latent.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from utils.activations import TokenActivations, collect_activations
from utils.data.corpus import Document
from utils.paths import ROOT, atomic_write
from utils.reading.features import FeatureError, FeatureStats
from utils.reading.labels.language import Lexicon, Rule, lexicon_of, parse
from utils.reading.labels.places import Places, halves, neighbours_of, places
from utils.reading.labels.scoring import BLOCK, NEAR, RANDOM, calls_of, scored, strangers
from utils.reading.labels.search import find_rules
from utils.sae.model import AnySAE, check_fits, sae_digest
from utils.sae.shards import contexts

FILE = ROOT / "utils" / "weights" / "labels" / "course_labels.json.gz"
SHA256 = ""
WEAK = 0.6
"""A balanced accuracy below this, against near silent places, is a weak label: at best one firing in five more is found than called wrongly."""
N_GENRE = 400
"""Contexts of another genre."""


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
    def in_words(self) -> str:
        """The score beside its floor, for a reader in a hurry."""
        if self.near is None:
            return "too rare to be scored"
        return f"{self.near:.2f} of 1{'' if self.floor is None else f', another label {self.floor:.2f}'}{', weak' if self.weak else ''}"


def genre_places(model: TransformerBridge, sae: AnySAE, *, n: int = N_GENRE) -> Places:
    """Where the latents fire on text of another genre: the reference manual of Python, which comes with Python itself."""
    from pydoc_data.topics import topics

    rows, _ = contexts(model, [Document("manual", name, text) for name, text in sorted(topics.items())])
    rows = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))[:n]].long()
    return places_in(model, sae, rows)


@torch.no_grad()
def places_in(model: TransformerBridge, sae: AnySAE, rows: Int[Tensor, "n pos"], *, name: str | None = None) -> Places:
    """Where the latents of a TopK SAE fire on contexts, unusual tokens left out."""
    name = name or check_fits(model, sae)
    found = collect_activations(model, rows.to(model.cfg.device), name, mask=torch.ones_like(rows, dtype=torch.bool), position="all")
    return places_of(rows, found, sae)


def places_of(rows: Int[Tensor, "n pos"], found: TokenActivations, sae: AnySAE) -> Places:
    """The same, from activations that were collected."""
    encoded = [sae.encode_sparse(part.float()) for part in found.acts.cpu().split(8192)]
    value, latent = (torch.cat(part).float() for part in zip(*encoded))
    values, latents = (torch.zeros(*rows.shape, value.shape[1]) for _ in range(2))
    values[found.text, found.position], latents[found.text, found.position] = value, latent
    return places(rows, latents.long(), values, sae.W_dec.shape[0])


def label_all(model: TransformerBridge, sae: AnySAE, stats: FeatureStats, *, genre: Places | None = None, progress: bool = True) -> dict[int, Scored]:
    """Rules for all latents that fire often enough, each with its scores."""
    lexicon, (reading, testing), near = lexicon_of(model), halves(stats), neighbours_of(stats)
    rules = find_rules(reading, lexicon, progress=progress)
    return with_scores(rules, testing, near, lexicon, genre)


def with_scores(rules: dict[int, Rule], testing: Places, near: np.ndarray, lexicon: Lexicon, genre: Places | None = None) -> dict[int, Scored]:
    """The rules with their scores on contexts that they were not made from."""
    given = strangers(rules)
    own = _in_blocks(rules, testing, near, lexicon)
    floor = _in_blocks({latent: rules[given[latent]] for latent in rules}, testing, near, lexicon)[NEAR]
    elsewhere = _in_blocks(rules, genre, near, lexicon)[NEAR] if genre is not None else np.full(testing.d_sae, np.nan)
    columns = (own[RANDOM], own[NEAR], floor, elsewhere, own["precision"])
    return {latent: Scored(str(rule), *(None if np.isnan(column[latent]) else round(float(column[latent]), 3) for column in columns)) for latent, rule in rules.items()}


def _in_blocks(rules: dict[int, Rule], where: Places, near: np.ndarray, lexicon: Lexicon) -> dict[str, np.ndarray]:
    """Scores by name. The calls of a broad rule are a tenth of all places, so those of all rules are never held at once."""
    found = {name: np.full(where.d_sae, np.nan) for name in (RANDOM, NEAR, "precision")}
    for start in range(0, where.d_sae, BLOCK):
        part = {latent: rule for latent, rule in rules.items() if start <= latent < start + BLOCK}
        if part:
            scores, chosen = scored(calls_of(part, where, lexicon), where, near), list(part)
            for name, column in {RANDOM: scores.balanced(RANDOM), NEAR: scores.balanced(NEAR), "precision": scores.precision}.items():
                found[name][chosen] = column[chosen]
    return found


def save_labels(labels: dict[int, Scored], path: Path, sae_sha256: str) -> str:
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


def course_labels() -> dict[int, Scored]:
    """The labels of the course SAE that ship. Raises FeatureError when the file is not the one that shipped."""
    if not FILE.exists() or hashlib.sha256(FILE.read_bytes()).hexdigest() != SHA256:
        raise FeatureError(f"{FILE.name} is missing or was changed. `git checkout {FILE.relative_to(ROOT).as_posix()}` brings it back.")
    return read_labels(FILE)


def labels_saying(labels: dict[int, Scored], query: str) -> list[int]:
    """Latents whose label holds the query, best score first. Raises FeatureError when there is none."""
    wanted = query.strip().lower()
    if not wanted:
        raise FeatureError("there is nothing to search for: type a word, or a part of a rule.")
    found = [latent for latent, label in labels.items() if wanted in label.rule.lower()]
    if not found:
        raise FeatureError(f"no label says {query.strip()!r}. Search for another word, or a part of one.")
    return sorted(found, key=lambda latent: -(labels[latent].near or 0))


def label_command(query: str | None) -> int:
    """`python -m utils label`."""
    if query is not None:
        labels = course_labels()
        try:
            for latent in labels_saying(labels, query)[:40]:
                print(f"{latent:>5}  {labels[latent].in_words:<36} {labels[latent].rule}")
        except FeatureError as error:
            print(error)
            return 1
        return 0
    from utils.models import load_model
    from utils.reading.course_features import course_features
    from utils.sae.course_sae import load_course_sae

    model, sae = load_model(), load_course_sae()
    stats, started = course_features(model, sae), time.perf_counter()
    labels = label_all(model, sae, stats, genre=genre_places(model, sae))
    digest = save_labels(labels, FILE, sae_digest(sae))
    print(f"{len(labels):,} of {sae.W_dec.shape[0]:,} latents labelled in {(time.perf_counter() - started) / 60:.1f} minutes; {FILE.stat().st_size / 1e6:.2f} MB. SHA256 = {digest}")
    return 0
