"""Latents that fire on one word: how often each latent fires on each word, and for which the label is beyond dispute."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor


def word_counts(
    values: Float[Tensor, "n_tokens k"], latents: Int[Tensor, "n_tokens k"], word: Int[Tensor, " n_tokens"], d_sae: int, n_words: int
) -> Float[Tensor, "d_sae n_words"]:
    """How often each latent fires on each word, as a sparse tensor.

    Args:
        values, latents: of an SAE's `encode_sparse`; a latent fires where its value is above 0.
        word: the number of the word that each token is (`utils.reading.words`).
    """
    fires = values > 0
    where = torch.stack([latents[fires], word[:, None].expand_as(latents)[fires]])
    return torch.sparse_coo_tensor(where, torch.ones(where.shape[1]), (d_sae, n_words), check_invariants=False).coalesce()


def one_word_latents(
    first: Float[Tensor, "d_sae n_words"], second: Float[Tensor, "d_sae n_words"], *, shares: tuple[float, float] = (0.7, 0.6), least: tuple[int, int] = (5, 3)
) -> dict[int, int]:
    """The latents of which most firings are one and the same word, in two samples of text.

    Args:
        first, second: `word_counts` of the two samples.
        shares: which share of its firings the word must have in the first sample, and in the second.
        least: how often the latent must fire on the word in the first, and on anything in the second.

    Returns: {latent: word}, in the order of the latents.
    """
    total = torch.stack([counts.sum(1).to_dense() for counts in (first, second)])
    found = {}
    for (latent, word), times in zip(first.indices().T.tolist(), first.values().tolist()):
        if times >= least[0] and times >= shares[0] * total[0, latent] and total[1, latent] >= least[1]:
            if float(second[latent, word]) >= shares[1] * total[1, latent]:
                found[latent] = word
    return found
