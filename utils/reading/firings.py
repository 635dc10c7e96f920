"""Every firing of a latent, not only the strongest: in one half of the corpus for reading, in the other for testing."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from utils.reading.features import FeatureStats

READING, TESTING = 0, 1
"""The halves of a corpus: contexts with an even number, and those with an odd one."""


class Firings:
    """All firings of all latents on a corpus, in two halves of its contexts.

    Attributes:
        counts: [2, d_sae], how often each latent fires in each half.
    """

    def __init__(self, stats: FeatureStats) -> None:
        self._stats = stats
        n_contexts, pos, k = stats.code_latent.shape
        latent, value = stats.code_latent.flatten().long(), stats.code_value.flatten()
        fired = (value > 0).nonzero()[:, 0]
        fired = fired[latent[fired].argsort(stable=True)]
        self._value, place = value[fired].float(), fired // k
        self._where = torch.stack([place // pos, place % pos], 1)
        self._ends = torch.bincount(latent[fired], minlength=stats.d_sae).cumsum(0)
        self.counts = torch.stack([torch.bincount(latent[fired][self._where[:, 0] % 2 == half], minlength=stats.d_sae) for half in (READING, TESTING)])

    def of(self, latent: int, half: int) -> tuple[Float[Tensor, " n"], Int[Tensor, "n 2"]]:
        """(values, places) of all firings of a latent in one half, in the order of the corpus."""
        part = slice(int(self._ends[latent - 1]) if latent else 0, int(self._ends[latent]))
        value, where = self._value[part], self._where[part]
        chosen = where[:, 0] % 2 == half
        return value[chosen], where[chosen]

    def examples(self, latent: int, half: int, quiet: Int[Tensor, "m 2"], at_most: int = 600, seed: int = 0) -> tuple[Int[Tensor, "n 2"], Float[Tensor, " n"]]:
        """(places, values) on which a label can be tested: firings, strongest first, then places where the latent is silent.

        Args:
            quiet: places to take the silent ones from, see `quiet_places`.
            at_most: firings; of more, so many are drawn. seed: of that draw.
        """
        value, where = self.of(latent, half)
        some = torch.randperm(len(value), generator=torch.Generator().manual_seed(seed))[:at_most]
        some = some[value[some].argsort(descending=True)]
        silent = ~(self._stats.code_latent[quiet[:, 0], quiet[:, 1]] == latent).any(1)
        return torch.cat([where[some], quiet[silent]]), torch.cat([value[some], torch.zeros(int(silent.sum()))])


def quiet_places(stats: FeatureStats, half: int, n: int, seed: int = 0) -> Int[Tensor, "n 2"]:
    """Random usual tokens of one half. A latent is silent at nearly all of them, so one draw serves every latent."""
    where = (stats.code_value[half::2, :, 0] > 0).nonzero()
    where[:, 0] = 2 * where[:, 0] + half
    return where[torch.randperm(len(where), generator=torch.Generator().manual_seed(seed + half))[:n]]


def fifth_of(values: Float[Tensor, " n"]) -> Int[Tensor, " n"]:
    """0 for the weakest fifth of the firings to 4 for the strongest, -1 where a value is 0. The values come in descending order."""
    n = int((values > 0).sum())
    return torch.where(values > 0, 4 - 5 * torch.arange(len(values)) // max(n, 1), -1)
