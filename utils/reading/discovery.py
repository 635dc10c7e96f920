"""Searching two lists of texts for what one has and the other lacks, without a label on any text."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from utils.activations import TokenActivations, collect_activations
from utils.sae.model import SAE


def read_all(model: TransformerBridge, texts: Sequence[str], hook: str) -> TokenActivations:
    """Every token's activation; from the cache the second time."""
    return collect_activations(model, texts, hook, position="all")


def text_means(read: TokenActivations, n_texts: int) -> Float[Tensor, "n d_model"]:
    """The mean activation of each text."""
    sums = torch.zeros(n_texts, read.acts.shape[1]).index_add(0, read.text, read.acts)
    return sums / torch.bincount(read.text, minlength=n_texts)[:, None]


@torch.no_grad()
def text_peaks(read: TokenActivations, n_texts: int, sae: SAE | None = None) -> Float[Tensor, "n d"]:
    """The largest value of each latent in each text; without an SAE, of each coordinate."""
    x = read.acts if sae is None else sae.encode(read.acts)
    return torch.full((n_texts, x.shape[1]), -torch.inf).scatter_reduce(0, read.text[:, None].expand_as(x), x, "amax")


def k_means(x: Float[Tensor, "n d"], n_clusters: int, seed: int = 0) -> Int[Tensor, " n"]:
    """The cluster of each row: the best of five starts."""
    from sklearn.cluster import KMeans  # a second to load

    return torch.from_numpy(KMeans(n_clusters, n_init=5, random_state=seed).fit_predict(x.numpy())).long()


def odd_cluster(x: Float[Tensor, "n d"], suspect: Int[Tensor, " n"], n_clusters: int = 16, seed: int = 0) -> Float[Tensor, " n"]:
    """How near each row lies to the centre of the cluster that holds the largest share of suspects.

    Of clusters with fewer than five rows nothing is said: they are passed over.
    """
    cluster = k_means(x, n_clusters, seed)
    size, held = torch.bincount(cluster, minlength=n_clusters), torch.bincount(cluster, weights=suspect.double(), minlength=n_clusters)
    odd = int(torch.where(size >= 5, held / size.clamp(min=1), -1).argmax())
    return -(x - x[cluster == odd].mean(0)).norm(dim=1)
