"""A blind tasting: pages of several SAEs without their names, to be ranked before the key is opened."""

from __future__ import annotations

import html
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from transformer_lens.model_bridge import TransformerBridge

from utils.reading.page import asset, shaded, vocabulary
from utils.sae.model import SAE
from utils.sae.tops import Harvest, firing, strongest

BEFORE, AFTER = 8, 4
"""Tokens around a strongest example."""


@dataclass(frozen=True)
class Tasting:
    """The pages, and who is who.

    Attributes:
        key: {"A": the name of an SAE, ...}.
        pages: {"A": the excerpts of its latents as HTML, ...}.
    """

    key: dict[str, str]
    pages: dict[str, str]

    def _repr_html_(self) -> str:
        tables = "".join(f"<h3>{letter}</h3>{page}" for letter, page in sorted(self.pages.items()))
        return f'<style>{asset("feature_browser.css")}</style><div class="pts-root"><div class="pts">{tables}</div></div>'


def tasting(model: TransformerBridge, saes: Mapping[str, tuple[SAE, Harvest]], *, n_latents: int = 4, n_examples: int = 4, seed: int = 0) -> Tasting:
    """Deal letters to the SAEs, and draw some latents of each.

    Drawn are latents that fire at 1 token in 1,000 or more and at 1 in 10 at most. An excerpt holds the token at which the latent is
    largest, shaded by the latent's value, as are the tokens around it. No two excerpts of a latent come from one context.

    Args:
        saes: each with the activations that it reads.

    Raises: ValueError for an SAE with too few such latents.
    """
    rng = torch.Generator().manual_seed(seed)
    names = list(saes)
    dealt = {"ABCDEFGH"[i]: names[j] for i, j in enumerate(torch.randperm(len(names), generator=rng).tolist())}
    pieces = vocabulary(model)
    pages = {}
    for letter, name in dealt.items():
        sae, harvest = saes[name]
        rate = firing(sae, harvest.acts).float().mean(0)
        there = ((rate >= 1e-3) & (rate <= 0.1)).nonzero()[:, 0]
        if len(there) < n_latents:
            raise ValueError(f"{name} has {len(there)} latents that fire neither hardly ever nor nearly everywhere; {n_latents} are wanted.")
        drawn = there[torch.randperm(len(there), generator=rng)[:n_latents]].tolist()
        rows, _ = strongest(sae, harvest.acts, 8 * n_examples)
        pages[letter] = "".join(_latent(sae, harvest, pieces, latent, rows[latent], n_examples, f"{letter}{i + 1}") for i, latent in enumerate(drawn))
    return Tasting(dealt, pages)


@torch.no_grad()
def _latent(sae: SAE, harvest: Harvest, pieces: list[str], latent: int, rows: torch.Tensor, n: int, title: str) -> str:
    context, lines, seen = harvest.context, [], set()
    for row in rows.tolist():
        if int(context[row]) in seen or len(lines) == n:
            continue
        seen.add(int(context[row]))
        around = torch.arange(max(0, row - BEFORE), min(len(context), row + AFTER + 1))
        around = around[context[around] == context[row]]
        values = sae.encode(harvest.acts[around])[:, latent].tolist()
        peak = around.tolist().index(row)
        lines.append(shaded([pieces[t] for t in harvest.token[around].tolist()], values, max(values), peak=peak))
    return f"<p><b>{html.escape(title)}</b></p><ul>{''.join(f'<li>{line}</li>' for line in lines)}</ul>"
