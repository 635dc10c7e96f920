"""A search without labels."""

import torch

from utils.activations import TokenActivations
from utils.reading.discovery import odd_cluster, text_means, text_peaks
from utils.sae.model import SAE, SAEConfig

X = torch.randn(7, 5, generator=torch.Generator().manual_seed(0))
READ = TokenActivations(X, torch.tensor([0, 0, 1, 1, 1, 2, 2]), torch.arange(7), torch.arange(7))


def test_means_and_peaks_are_taken_text_by_text():
    parts = X[:2], X[2:5], X[5:]
    torch.testing.assert_close(text_means(READ, 3), torch.stack([part.mean(0) for part in parts]))
    torch.testing.assert_close(text_peaks(READ, 3), torch.stack([part.amax(0) for part in parts]))
    sae = SAE(SAEConfig(5, 8, 2), seed=1).requires_grad_(False)
    torch.testing.assert_close(text_peaks(READ, 3, sae), torch.stack([sae.encode(part).amax(0) for part in parts]))


def test_the_odd_cluster_is_the_one_of_the_suspects():
    rng = torch.Generator().manual_seed(1)
    x = torch.randn(80, 4, generator=rng)
    x[:10] += 20
    suspect = torch.tensor([1] * 40 + [0] * 40)
    near = odd_cluster(x, suspect, n_clusters=3)
    assert near[:10].min() > near[10:].max()
