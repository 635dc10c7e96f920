"""Latents that fire on one word: counts of firings by word, and the bar in both samples."""

from __future__ import annotations

import torch

from utils.reading.one_word import one_word_latents, word_counts


def _counts(firings, d_sae=4, n_words=5):
    """{(latent, word): times} as `word_counts` gives it, from codes with two latents a token, the second one silent."""
    rows = [(latent, word) for (latent, word), times in firings.items() for _ in range(times)]
    latents = torch.tensor([[latent, (latent + 1) % d_sae] for latent, _ in rows])
    values = torch.tensor([[1.5, 0.0]]).expand(len(rows), 2)
    return word_counts(values, latents, torch.tensor([word for _, word in rows]), d_sae, n_words)


def test_word_counts_count_firings_alone():
    counts = _counts({(0, 2): 3, (0, 4): 1, (3, 1): 2}).to_dense()
    assert counts[0].tolist() == [0, 0, 3, 0, 1] and counts[3, 1] == 2 and counts.sum() == 6


def test_one_word_latents_need_both_samples():
    first = _counts({(0, 2): 7, (0, 3): 3, (1, 1): 5, (2, 0): 4, (3, 4): 9, (3, 0): 5})
    second = _counts({(0, 2): 6, (0, 1): 4, (1, 1): 1, (1, 2): 2, (2, 0): 9, (3, 4): 9})
    # 0 is at both bars; 1 changes its word; 2 fires four times only; 3 has its word in 64% of the first sample.
    assert one_word_latents(first, second) == {0: 2}
    assert one_word_latents(first, second, shares=(0.6, 0.3)) == {0: 2, 1: 1, 3: 4}
    assert one_word_latents(first, second, least=(8, 3), shares=(0.6, 0.6)) == {3: 4}
