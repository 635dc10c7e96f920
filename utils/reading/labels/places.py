"""Where every latent of a dictionary fires on some contexts, in a form that rules can be counted on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from utils.reading.features import FeatureStats
from utils.reading.firings import READING, TESTING


@dataclass(frozen=True)
class Places:
    """All places of some contexts, and which latent fires at which.

    Attributes:
        tokens: the contexts, BOS first.
        usual: the places that count; the others are left out of everything.
        fires: a sparse matrix [d_sae, n * pos] with 1 where a latent fires.
    """

    tokens: Int[Tensor, "n pos"]
    usual: Bool[Tensor, "n pos"]
    fires: scipy.sparse.csr_array

    @property
    def d_sae(self) -> int:
        return self.fires.shape[0]

    @property
    def counts(self) -> Int[np.ndarray, " d_sae"]:
        """How often each latent fires."""
        return np.diff(self.fires.indptr)

    @property
    def n_usual(self) -> int:
        return int(self.usual.sum())

    def of(self, latent: int) -> Bool[Tensor, "n pos"]:
        """Where one latent fires."""
        found = torch.zeros(self.tokens.numel(), dtype=torch.bool)
        found[self.fires.indices[self.fires.indptr[latent] : self.fires.indptr[latent + 1]]] = True
        return found.view(self.tokens.shape)


def places(tokens: Int[Tensor, "n pos"], latents: Int[Tensor, "n pos k"], values: Tensor, d_sae: int) -> Places:
    """The places of contexts whose codes are known. A latent fires where its value is above 0; a place counts where any does."""
    fired = (values > 0).flatten(0, 1)
    at, slot = fired.nonzero(as_tuple=True)
    which = latents.flatten(0, 1)[at, slot].long()
    ones = np.ones(len(at), dtype=np.int32)
    matrix = scipy.sparse.csr_array((ones, (which.numpy(), at.numpy())), shape=(d_sae, tokens.numel()))
    matrix.sort_indices()
    return Places(tokens.long(), fired.any(1).view(tokens.shape), matrix)


def halves(stats: FeatureStats) -> tuple[Places, Places]:
    """(where labels are made, where they are tested): contexts with an even number, and those with an odd one."""
    parts = ((stats.tokens[half::2], stats.code_latent[half::2], stats.code_value[half::2]) for half in (READING, TESTING))
    return tuple(places(*part, stats.d_sae) for part in parts)


def neighbours_of(stats: FeatureStats) -> Int[np.ndarray, "d_sae n"]:
    """The latents that write in a similar direction or fire at the same tokens; -1 for none."""
    return torch.cat([stats.similar, stats.cofiring], dim=1).numpy()
