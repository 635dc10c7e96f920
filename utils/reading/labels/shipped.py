"""The labels of all latents of the course SAE, with their scores, as they ship.

    python -m utils label            makes them anew: minutes, after the corpus has been read once
    python -m utils label year       latents whose label says "year", best score first

Rules are found on half of the reading corpus and scored on the other half, against random and near silent places, and on text of
another genre. The floor of a score is that of the same rule on another latent.
"""

from __future__ import annotations

import hashlib
import time

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from utils.activations import TokenActivations, collect_activations
from utils.data.corpus import Document
from utils.paths import ROOT
from utils.reading.features import FeatureError, FeatureStats
from utils.reading.labels.label import Scored, labels_saying, read_labels, save_labels
from utils.reading.labels.language import Lexicon, Rule, lexicon_of
from utils.reading.labels.places import Places, halves, neighbours_of, places
from utils.reading.labels.scoring import BLOCK, NEAR, RANDOM, calls_of, scored, strangers
from utils.reading.labels.search import find_rules
from utils.sae.model import AnySAE, check_fits, sae_digest
from utils.sae.shards import contexts

FILE = ROOT / "utils" / "weights" / "labels" / "course_labels.json.gz"
SHA256 = ""
N_GENRE = 400
"""Contexts of another genre."""


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


def course_labels() -> dict[int, Scored]:
    """The labels of the course SAE that ship. Raises FeatureError when the file is not the one that shipped."""
    if not FILE.exists() or hashlib.sha256(FILE.read_bytes()).hexdigest() != SHA256:
        raise FeatureError(f"{FILE.name} is missing or was changed. `git checkout {FILE.relative_to(ROOT).as_posix()}` brings it back.")
    return read_labels(FILE)


def label_command(query: str | None) -> int:
    """`python -m utils label`."""
    if query is not None:
        labels = course_labels()
        try:
            for latent in labels_saying(labels, query)[:40]:
                label = labels[latent]
                print(f"{latent:>5}  {'weak  ' if label.weak else '      '}{label.rule}\n       {label.in_words}")
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
