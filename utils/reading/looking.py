"""Look: what fires on a text, which latents answer to a query, and a place in the corpus as text."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from utils.activations import tokenize
from utils.hooks import run_with_cache
from utils.reading.collecting import Best, firing
from utils.reading.features import FeatureError, FeatureStats
from utils.sae.model import AnySAE, check_fits, usual_tokens


@torch.no_grad()
def latents_of(model: TransformerBridge, sae: AnySAE, text: str, *, name: str | None = None) -> tuple[list[str], Float[Tensor, "pos k"], Int[Tensor, "pos k"]]:
    """What fires on a text, token by token.

    Returns:
        (the tokens as strings, BOS first; values; latents). Each row is sorted, the largest value first. A value of 0 means that nothing
        fires there: rows of unusual tokens, the first among them, are all 0. k is the most that fire at one token, at least 1.

    Raises: FeatureError for an empty text, or one longer than the context; SAEError (see `utils.sae.model.check_fits`).
    """
    if not isinstance(text, str) or not text:
        raise FeatureError("there is no text: type at least one word.")
    name = check_fits(model, sae, name)
    try:
        tokens, _ = tokenize(model, [text])
    except ValueError as error:
        raise FeatureError(str(error)) from error
    acts = run_with_cache(model, tokens, name)[name]
    usual = usual_tokens(acts)[0] if acts.shape[1] > 1 else torch.zeros(1, dtype=torch.bool)
    token, latent, value = (column.cpu() for column in firing(sae, acts[0][usual].to(sae.W_dec.device, torch.float32)))
    best = Best(len(usual), max(1, int(torch.bincount(token, minlength=1).max())))
    best.add(usual.cpu().nonzero()[:, 0][token], value, latent, value)
    latents, values = best.table()
    return [model.tokenizer.decode([t]) for t in tokens[0].tolist()], values, latents.clamp_min(0)


def find_latents(stats: FeatureStats, model: TransformerBridge, query: str) -> list[tuple[int, float]]:
    """Latents whose strongest examples lie on a token, with the share of them that do, largest share first.

    Capitals and the space before a token do not count.

    Raises: FeatureError when the query is empty, or no latent has two such examples.
    """
    wanted = query.strip().lower()
    if not wanted:
        raise FeatureError("there is nothing to search for: type a word, or a part of one.")
    where = stats.top_where.long()
    there = where[..., 0] >= 0
    tokens = stats.tokens[where[..., 0], where[..., 1]]
    distinct = tokens[there].unique()
    same = distinct[[text.strip().lower() == wanted for text in model.tokenizer.batch_decode(distinct[:, None])]]
    hits = (torch.isin(tokens, same) & there).sum(1)
    share = hits / there.sum(1).clamp_min(1)
    found = (hits >= 2).nonzero()[:, 0]
    if not len(found):
        pieces = [model.tokenizer.decode([t]) for t in model.tokenizer(query, add_special_tokens=False)["input_ids"]]
        advice = f" The tokenizer cuts it into {pieces}: search for one of these." if len(pieces) > 1 else " Search for another word, or type a sentence and see what fires on it."
        raise FeatureError(f"no latent has two of its strongest examples on {query.strip()!r}.{advice}")
    order = (-share[found]).argsort(stable=True)
    return [(int(i), float(share[i])) for i in found[order]]


def excerpt(model: TransformerBridge, stats: FeatureStats, where: Sequence[int] | Int[Tensor, "2"], before: int = 12, after: int = 6) -> tuple[str, str, str]:
    """(text before, the token, text after) of a place. BOS is left out. Raises FeatureError for (-1, -1) and beyond the corpus."""
    context, position = (int(i) for i in where)
    if not (0 <= context < len(stats.tokens) and 0 <= position < stats.tokens.shape[1]):
        raise FeatureError(f"({context}, {position}) is no place of this corpus.")
    row = stats.tokens[context].tolist()
    parts = row[max(1, position - before) : position], row[position : position + 1], row[position + 1 : position + 1 + after]
    left, token, right = (model.tokenizer.decode(part) for part in parts)
    return left, token, right
