"""The strongest examples of every latent, straight from harvested activations, and what they have in common."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from utils.sae.model import SAE
from utils.sae.shards import Shards


@dataclass(frozen=True)
class Harvest:
    """Activations in memory, one row a token, in the order of the text.

    Attributes:
        acts: what an SAE reads.
        token: its number in the vocabulary.
        document: the text that it stands in.
        position: where in its context; it falls where a new context begins.
        source: of each document: "novels", "speeches", ...
    """

    acts: Float[Tensor, "n d_in"]
    token: Int[Tensor, " n"]
    document: Int[Tensor, " n"]
    position: Int[Tensor, " n"]
    source: list[str]

    @classmethod
    def of(cls, shards: Shards) -> Harvest:
        """All of the shards: 576 numbers a token, 2 KB."""
        column = {key: torch.cat([part[key] for part in shards.parts]) for key in ("acts", "token", "document", "position")}
        return cls(column["acts"].float(), column["token"].long(), column["document"].long(), column["position"].long(),
                   [source for source, _ in shards.manifest["documents"]])

    @property
    def context(self) -> Int[Tensor, " n"]:
        """The number of the context that each token stands in."""
        new = self.position[1:] <= self.position[:-1]
        return torch.cat([torch.zeros(1, dtype=torch.long), new.long()]).cumsum(0)

    def from_sources(self, *names: str) -> Bool[Tensor, " n"]:
        """Which tokens stand in documents of these sources."""
        wanted = torch.tensor([name in names for name in self.source])
        return wanted[self.document]

    def part(self, rows: Bool[Tensor, " n"]) -> Harvest:
        """The same with some of the tokens."""
        return Harvest(self.acts[rows], self.token[rows], self.document[rows], self.position[rows], self.source)


@torch.no_grad()
def strongest(sae: SAE, acts: Float[Tensor, "n d_in"], n: int, chunk: int = 8192) -> tuple[Int[Tensor, "d_sae n"], Float[Tensor, "d_sae n"]]:
    """(rows, values) of the n tokens at which each latent is largest, descending. A value of 0 is no firing.

    Raises: ValueError when there are fewer than n tokens.
    """
    if len(acts) < n:
        raise ValueError(f"{n} examples are wanted, of {len(acts)} tokens.")
    values, rows = torch.full((sae.cfg.d_sae, n), -1.0), torch.zeros(sae.cfg.d_sae, n, dtype=torch.long)
    for start in range(0, len(acts), chunk):
        latents = sae.encode(acts[start : start + chunk]).T
        seen = torch.cat([values, latents], 1)
        where = torch.cat([rows, torch.arange(start, start + latents.shape[1]).expand(len(latents), -1)], 1)
        values, best = seen.topk(n, dim=1)
        rows = where.gather(1, best)
    return rows, values.clamp(min=0)


@torch.no_grad()
def firing(sae: SAE, acts: Float[Tensor, "n d_in"], chunk: int = 8192) -> Bool[Tensor, "n d_sae"]:
    """Where each latent fires."""
    return torch.cat([sae.encode(part) > 0 for part in acts.split(chunk)])


def commonest(tokens: Int[Tensor, "d_sae n"]) -> tuple[Int[Tensor, " d_sae"], Float[Tensor, " d_sae"]]:
    """The token that stands most often in each row (of several, the one that is found first), and its share."""
    same = (tokens[:, :, None] == tokens[:, None, :]).float().mean(2)
    share, at = same.max(1)
    return tokens.gather(1, at[:, None])[:, 0], share
