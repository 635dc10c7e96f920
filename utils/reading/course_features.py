"""The corpus on which the course reads latents, and the course SAE's statistics on it."""

from __future__ import annotations

import time

import torch
from jaxtyping import Int
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from utils.activation_cache import model_digest
from utils.data.corpus import TRAINING, UNSEEN, documents, split_documents
from utils.models import load_model
from utils.reading.collecting import cached_stats, collect_features
from utils.reading.features import FeatureStats
from utils.sae.model import AnySAE, check_fits, sae_digest
from utils.sae.shards import contexts

_READING_CONTEXTS = 1_680


def reading_corpus(model: TransformerBridge, n_contexts: int = _READING_CONTEXTS, seed: int = 0) -> Int[Tensor, "n_contexts 128"]:
    """Contexts that the course SAE was not trained on: a third each from held-out documents, film reviews and news.

    The text of reviews and news is read here and never shipped (see `utils.data.corpus`): show excerpts of it, do not publish pages of it.

    Raises: ValueError when there are fewer contexts than that; FetchError.
    """
    _, held_out = split_documents(documents(TRAINING))
    rng = torch.Generator().manual_seed(seed)
    parts = []
    for i, texts in enumerate([held_out, *(documents(source) for source in UNSEEN)]):
        n = n_contexts // 3 + (i < n_contexts % 3)
        chosen = torch.randperm(len(texts), generator=rng)[: 2 * n + 60].tolist()  # documents give 1.5 contexts and more
        rows, _ = contexts(model, [texts[j] for j in chosen])
        if len(rows) < n:
            raise ValueError(f"{n_contexts} contexts are more than the corpus for reading has: one of its sources ends at {len(rows)}.")
        parts.append(rows[torch.randperm(len(rows), generator=rng)[:n]])
    rows = torch.cat(parts)
    return rows[torch.randperm(len(rows), generator=rng)].int()


def course_features(model: TransformerBridge, sae: AnySAE, *, progress: bool = True) -> FeatureStats:
    """`collect_features` on `reading_corpus`: 213,000 tokens; minutes the first time, a second afterwards.

    On a processor that computes in bfloat16 much faster, the activations are computed in it. What is stored is the same up to that rounding.

    Raises: see `collect_features`.
    """
    def collect() -> FeatureStats:
        dtype = _fast_dtype(model)
        reader = model if dtype == model.cfg.dtype else load_model(model.cfg.model_name, device=model.cfg.device, dtype=dtype, verbose=False)
        return collect_features(reader, sae, reading_corpus(model), corpus="held-out documents, film reviews and news", cache=False, progress=progress)

    # Not keyed by the tokens: to read and cut the documents takes longer than all the rest.
    return cached_stats(["course", model_digest(model), check_fits(model, sae), sae_digest(sae)], collect)


def _fast_dtype(model: TransformerBridge) -> torch.dtype:
    """bfloat16 where a product of this model's size takes half the time in it, else the model's own dtype. Measured in a moment."""
    if torch.device(model.cfg.device).type != "cpu" or model.cfg.dtype != torch.float32:
        return model.cfg.dtype
    taken = {}
    for dtype in (torch.float32, torch.bfloat16):
        x, w = torch.ones(1024, model.cfg.d_model, dtype=dtype), torch.ones(model.cfg.d_model, 3 * model.cfg.d_model, dtype=dtype)
        x @ w  # the first call prepares the kernels
        started = time.perf_counter()
        for _ in range(5):
            x @ w
        taken[dtype] = time.perf_counter() - started
    return torch.bfloat16 if 2 * taken[torch.bfloat16] < taken[torch.float32] else torch.float32
