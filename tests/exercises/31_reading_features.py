"""The exercises of chapter 31: cases, named mistakes, other right answers and hints."""

import functools
from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from utils.course.battery import ALL_COUNTS, NO_MATRIX, NO_SCALE, NO_THRESHOLD, NOT_TRAINED
from utils.course.cases import close_to, integers, normal, tiny, uniform, wrong_ways
from utils.course.exercises import Case, Exercise
from utils.hooks import resid_post, run_with_cache

_NO_FLOAT64 = {"scale": "there is no float64 model"}


# --- update_top_examples ----------------------------------------------------------------------------------


def _top_cases(rng: torch.Generator) -> Iterator[Case]:
    def case(label: str, k: int, batch: int, pos: int, d_sae: int, first: int, filled: int, dtype: torch.dtype) -> Case:
        sparse = 4 * uniform(rng, batch, pos, d_sae) * (uniform(rng, batch, pos, d_sae) < 0.6)
        value = (3 * uniform(rng, d_sae, k)).sort(1, descending=True).values
        where = torch.stack([integers(rng, 0, first, d_sae, k), integers(rng, 1, pos, d_sae, k)], -1)
        value[:, filled:], where[:, filled:] = 0, -1
        # Two latents in which everything new beats the list, so that contexts compete with each other.
        sparse[:, :, 0] += 5 * (sparse[:, :, 0] > 0)
        return Case(label, value.to(dtype), where, sparse.to(dtype), first)

    yield case("3 places, 5 latents; 4 contexts of 7 tokens", 3, 4, 7, 5, 20, 3, torch.float64)
    yield case("lists that are not full, fewer contexts than places, float32", 5, 2, 6, 4, 9, 2, torch.float32)
    # Ties, and a latent that has not fired: 2 latents, 2 places.
    value = torch.tensor([[3.0, 2.0, 0.0], [0.0, 0.0, 0.0]], dtype=torch.float64)
    where = torch.tensor([[[0, 4], [2, 1], [-1, -1]], [[-1, -1]] * 3])
    batch = torch.zeros(3, 5, 2, dtype=torch.float64)
    batch[0, 1:4, 0] = torch.tensor([2.0, 3.0, 3.0])
    batch[1, 2, 0], batch[2, 4, 0] = 3.0, 1.0
    yield Case("equal values, and a latent that never fired", value, where, batch, 6).of("boundary")
    yield case("one context of two tokens, one place, one latent", 1, 1, 2, 1, 3, 1, torch.float64).of("extreme")
    yield Case("everything equal, lists empty, a corpus of more than 2^40 contexts", 0 * value, torch.full_like(where, -1), torch.ones(5, 2, 2, dtype=torch.float64), 2**40 + 1).of("extreme")
    yield Case("a batch in which nothing fires", value, where, 0 * batch, 6).of("extreme")


update_top_examples = Exercise(
    "update_top_examples",
    ends={"first": lambda a: (0, 10**9)},
    new=True,
    without={**NOT_TRAINED, **ALL_COUNTS, "negative": "latents are 0 or more"},
    difficulty=3,
    importance=5,
    minutes=20,
    learn="How to keep the strongest examples of thousands of latents while a corpus of any size streams past.",
    cases=_top_cases,
    hints=(
        "Two steps. What does one context have to offer to a latent? Then: the list and the offers, sorted together, cut off at k.",
        "`latents` is [batch, pos, d_sae] and the lists are [d_sae, k]. Which axis has to go first, and which two have to change places before "
        "they can be put side by side?",
        "A maximum over positions is one offer per context, with its place. Put list and offers side by side, list first, and sort once: what must the sort "
        "promise about equal values, and how does the same order move the places, which have an axis more?",
    ),
    verified="one example per context, full and unfilled lists, equal values, a latent that never fired, batches smaller than the list.",
    next="run it over a few dozen contexts of the corpus, for all latents at once.",
)


def _merge(top_value, top_where, best, position, contexts, order=None):
    """Lists and offers ([d_sae, n] each), merged."""
    k = top_value.shape[1]
    value = torch.cat([top_value, best], 1)
    where = torch.cat([top_where, torch.stack([contexts, position], -1)], 1)
    order = (order or (lambda v: v.argsort(dim=1, descending=True, stable=True)))(value)[:, :k]
    value, where = value.gather(1, order), where.gather(1, order[..., None].expand(-1, -1, 2))
    return value, torch.where(value[..., None] > 0, where, -1)


def _offers(latents, first):
    best, position = latents.max(1)
    return best.T, position.T, torch.arange(first, first + len(latents)).expand(latents.shape[2], -1)


@update_top_examples.mistake(
    "several-from-one-context",
    "A context takes several places of a list. Three neighbouring words of one sentence are one example, and it crowds out two others.",
)
def _(top_value, top_where, latents, first):
    batch, pos, d_sae = latents.shape
    flat = latents.flatten(0, 1).T
    position = torch.arange(pos).repeat(batch).expand(d_sae, -1)
    return _merge(top_value, top_where, flat, position, torch.arange(first, first + batch).repeat_interleave(pos).expand(d_sae, -1))


@update_top_examples.mistake("contexts-counted-from-zero", "Your new examples are numbered within the batch. In the corpus, the batch's first context has the number `first`.")
def _(top_value, top_where, latents, first):
    return _merge(top_value, top_where, *_offers(latents, 0))


@update_top_examples.mistake("old-list-forgotten", "Only this batch is in your lists: what was found before is gone. A stream is remembered by what you put in, not by what you saw last.")
def _(top_value, top_where, latents, first):
    return _merge(torch.zeros_like(top_value), torch.full_like(top_where, -1), *_offers(latents, first))


@update_top_examples.mistake("weakest-kept", "Your lists hold the smallest values: the order of the sort is the other way round.")
def _(top_value, top_where, latents, first):
    return _merge(top_value, top_where, *_offers(latents, first), order=lambda v: v.argsort(dim=1, stable=True))


def _newest_first(top_value, top_where, latents, first):
    best, position, contexts = _offers(latents, first)
    value = torch.cat([best, top_value], 1)
    where = torch.cat([torch.stack([contexts, position], -1), top_where], 1)
    order = value.argsort(dim=1, descending=True, stable=True)[:, : top_value.shape[1]]
    return value.gather(1, order), where.gather(1, order[..., None].expand(-1, -1, 2))


@update_top_examples.mistake(
    "silence-recorded-as-an-example",
    "Where a latent has no example, your list names a place with the value 0. Nobody can tell it from an example any more: such places are (-1, -1).",
)
def _(top_value, top_where, latents, first):
    return _newest_first(top_value, top_where, latents, first)


@update_top_examples.mistake("places-not-reordered", "The values are sorted and their places are not: value and place of an example no longer belong together.")
def _(top_value, top_where, latents, first):
    k = top_value.shape[1]
    best, position, contexts = _offers(latents, first)
    value = torch.cat([top_value, best], 1).sort(dim=1, descending=True, stable=True).values[:, :k]
    where = torch.cat([top_where, torch.stack([contexts, position], -1)], 1)[:, :k]
    return value, torch.where(value[..., None] > 0, where, -1)


@update_top_examples.mistake("newest-first-among-equals", "Of equal values you put the new ones before those of the list. Then the list depends on the order of batches more than it must.")
def _(top_value, top_where, latents, first):
    value, where = _newest_first(top_value, top_where, latents, first)
    return value, torch.where(value[..., None] > 0, where, -1)


@update_top_examples.mistake("context-and-position-exchanged", "Each place is (context, position), in this order. Yours is the other way round for what is new.")
def _(top_value, top_where, latents, first):
    best, position, contexts = _offers(latents, first)
    return _merge(top_value, top_where, best, contexts, position)


@update_top_examples.mistake("place-of-the-last-maximum", "Of equal places in a context you took the last one. The earlier one counts.")
def _(top_value, top_where, latents, first):
    best, position = latents.flip(1).max(1)
    return _merge(top_value, top_where, best.T, latents.shape[1] - 1 - position.T, _offers(latents, first)[2])


@update_top_examples.variant
def _(top_value, top_where, latents, first):
    """A loop over latents and contexts, with Python lists."""
    values, places = top_value.clone(), top_where.clone()
    for latent in range(len(values)):
        rows = [(float(v), tuple(w)) for v, w in zip(top_value[latent], top_where[latent].tolist())]
        for i, context in enumerate(latents[:, :, latent]):
            position = min(p for p in range(len(context)) if context[p] == context.max())
            rows.append((float(context[position]), (first + i, position)))
        rows.sort(key=lambda row: -row[0])
        for place, (value, where) in enumerate(rows[: values.shape[1]]):
            values[latent, place] = value
            places[latent, place] = torch.tensor(where if value > 0 else (-1, -1))
    return values, places


@update_top_examples.variant
def _(top_value, top_where, latents, first):
    """One context after the other."""
    for i, context in enumerate(latents):
        best, position = context.max(0)
        value = torch.cat([top_value, best[:, None]], 1)
        where = torch.cat([top_where, torch.stack([torch.full_like(position, first + i), position], 1)[:, None]], 1)
        value, order = value.sort(dim=1, descending=True, stable=True)
        keep = order[:, : top_value.shape[1], None].expand(-1, -1, 2)
        top_value, top_where = value[:, : top_value.shape[1]], where.gather(1, keep)
        top_where = torch.where(top_value[..., None] > 0, top_where, -1)
    return top_value, top_where


@update_top_examples.variant
def _(top_value, top_where, latents, first):
    """NumPy, advanced indexing."""
    code = latents.numpy()
    position = code.argmax(1).T
    contexts = np.broadcast_to(np.arange(first, first + len(code)), position.shape)
    value = np.concatenate([top_value.numpy(), code.max(1).T], 1)
    where = np.concatenate([top_where.numpy(), np.stack([contexts, position], -1)], 1)
    order = np.argsort(-value, axis=1, kind="stable")[:, : top_value.shape[1]]
    rows = np.arange(len(order))[:, None]
    where = np.where(value[rows, order][..., None] > 0, where[rows, order], -1)
    return torch.from_numpy(value[rows, order]), torch.from_numpy(where)


# --- quantile_examples --------------------------------------------------------------------------------------


def _quantile_cases(rng: torch.Generator) -> Iterator[Case]:
    def case(label: str, n: int, silent: float, n_quantiles: int, per_quantile: int, dtype: torch.dtype) -> Case:
        # A long tail, so that parts of equal width and parts of equal count are far apart.
        values = (2 * normal(rng, n)).exp() * (uniform(rng, n) >= silent)
        draws = uniform(rng, n_quantiles, per_quantile)
        draws[:, 0] = 0.93 + 0.06 * draws[:, 0]
        return Case(label, values.to(dtype), draws.to(dtype))

    yield case("60 tokens, half of them silent, 4 quantiles of 3", 60, 0.5, 4, 3, torch.float64)
    yield case("parts of unequal size: 37 tokens, 5 quantiles of 2, float32", 37, 0.3, 5, 2, torch.float32)
    draws = torch.stack([torch.tensor([0.0, 0.3, 0.6, 0.99]).double()] * 2)
    yield Case("equal values", torch.tensor([2.0, 0.0, 5.0, 2.0, 0.0, 2.0, 5.0, 9.0, 5.0], dtype=torch.float64), draws)
    exact = torch.tensor([[0.0, 0.25, 0.5, 0.75, 1 - 2.0**-53]] * 2, dtype=torch.float64)
    signed = torch.tensor([0.3, -1.0, 0.1, 0.0, 0.8, 0.5, -0.2, 0.7, 0.2, 0.6, 1e-12, 0.4], dtype=torch.float64)
    yield Case("draws that fall exactly on an example, values just above 0", signed.clamp(min=0), exact).of("boundary")
    yield Case("what is below 0 is no firing", signed, exact[:, 1:]).of("negative")
    yield Case("as many firings as parts, one draw each", torch.tensor([0.0, 3.0, 1.0, 2.0], dtype=torch.float64), exact[:1, 4:].repeat(3, 1)).of("extreme")
    yield Case("one part, all values equal", torch.ones(4, dtype=torch.float64), exact[:1]).of("extreme")


quantile_examples = Exercise(
    "quantile_examples",
    scaled=("values",),
    without={**NOT_TRAINED, **ALL_COUNTS},
    difficulty=3,
    importance=5,
    minutes=15,
    learn="How to look at the whole of a latent's range, not at its twenty loudest moments.",
    cases=_quantile_cases,
    hints=(
        "Rank the firings first; everything else is arithmetic with ranks. A part is a stretch of ranks, and a draw is a place in that stretch.",
        "How long is `values.argsort()`, and where in it do the silent places stand? Cut them off, and the rank of a firing is its position in what is left.",
        "Compute all n_quantiles + 1 edges at once; their differences are the sizes. A draw then is an edge plus a whole number below the size of its part: which axis does the edge need?",
    ),
    verified="long-tailed values, silent tokens, parts of unequal size, equal values.",
    next="read the weakest fifth of a latent whose top examples look clear.",
)


def _drawn(values, draws, *, ranked=None, edges=None, pick=None):
    ranked = values.argsort(stable=True)[int((values <= 0).sum()) :] if ranked is None else ranked
    edges = torch.arange(len(draws) + 1) * len(ranked) // len(draws) if edges is None else edges
    size = edges.diff()[:, None]
    return ranked[(edges[:-1, None] + (pick or (lambda u, s: (u * s).long()))(draws, size)).clamp(0, len(ranked) - 1)]


@quantile_examples.mistake("silent-tokens-included", "You ranked the tokens at which the latent is silent as well. Your weakest quantiles are full of them.")
def _(values, draws):
    return _drawn(values, draws, ranked=values.argsort(stable=True))


@quantile_examples.mistake("strongest-first", "Your first quantile is the strongest one. The weakest comes first.")
def _(values, draws):
    ranked = values.argsort(stable=True)[int((values <= 0).sum()) :]
    return _drawn(values, draws, ranked=ranked.flip(0))


@quantile_examples.mistake(
    "parts-of-equal-width",
    "Your parts are equally wide in value and not equally full. With a long tail nearly all firings lie in the first part, and the last one holds a single example.",
)
def _(values, draws):
    ranked = values.argsort(stable=True)[int((values <= 0).sum()) :]
    bounds = values.max() * torch.arange(1, len(draws), dtype=values.dtype) / len(draws)
    inside = torch.searchsorted(values[ranked], bounds)
    return _drawn(values, draws, ranked=ranked, edges=torch.cat([torch.zeros(1, dtype=torch.long), inside, torch.tensor([len(ranked)])]))


@quantile_examples.mistake("always-from-the-first-part", "Every draw lands in the weakest part: the place where a part begins is missing.")
def _(values, draws):
    ranked = values.argsort(stable=True)[int((values <= 0).sum()) :]
    return ranked[(draws * (len(ranked) // len(draws))).long()]


@quantile_examples.mistake("ranks-returned", "You returned ranks. What is asked for is where in `values` these examples stand.")
def _(values, draws):
    m = int((values > 0).sum())
    return _drawn(values, draws, ranked=torch.arange(m))


@quantile_examples.mistake("index-among-the-firings", "Your numbers count the firings only. They are to be indices into `values`, silent tokens included.")
def _(values, draws):
    return _drawn(values, draws, ranked=values[values > 0].argsort(stable=True))


@quantile_examples.mistake("rounded-to-the-nearest", "You rounded the draw. It should be cut off: rounding can step into the next part, and gives the first example of a part half a chance.")
def _(values, draws):
    return _drawn(values, draws, pick=lambda u, s: (u * s).round().long())


@quantile_examples.mistake("not-sorted", "You cut the firings into parts in the order of the text. A quantile is a stretch of the values, so they have to be ranked first.")
def _(values, draws):
    return _drawn(values, draws, ranked=(values > 0).nonzero()[:, 0])


@quantile_examples.variant
def _(values, draws):
    """NumPy and array_split by hand."""
    v = values.numpy()
    ranked = np.argsort(v, kind="stable")[(v <= 0).sum() :]
    q = len(draws)
    rows = []
    for i, row in enumerate(draws.numpy()):
        part = ranked[i * len(ranked) // q : (i + 1) * len(ranked) // q]
        rows.append([int(part[int(u * len(part))]) for u in row])
    return torch.tensor(rows)


@quantile_examples.variant
def _(values, draws):
    """sorted() with a key."""
    ranked = sorted((i for i in range(len(values)) if values[i] > 0), key=lambda i: float(values[i]))
    n, m = len(draws), len(ranked)
    return torch.tensor([[ranked[q * m // n + int(u * ((q + 1) * m // n - q * m // n))] for u in row] for q, row in enumerate(draws)])


@quantile_examples.variant
def _(values, draws):
    """Infinity for what is silent, floor."""
    ranked = torch.where(values > 0, values, torch.inf).sort(stable=True).indices
    m = (values > 0).sum()
    low = torch.div(torch.arange(len(draws)) * m, len(draws), rounding_mode="floor")
    high = torch.div(torch.arange(1, len(draws) + 1) * m, len(draws), rounding_mode="floor")
    return ranked[low[:, None] + torch.floor(draws * (high - low)[:, None]).to(torch.int64)]


# --- decoder_logits -------------------------------------------------------------------------------------------


def _logit_cases(rng: torch.Generator) -> Iterator[Case]:
    def case(label: str, n: int, d: int, vocab: int, dtype: torch.dtype) -> Case:
        length = 1 + 4 * uniform(rng, n, 1)
        return Case(label, (normal(rng, n, d) * length).to(dtype), (0.3 + 2 * uniform(rng, d)).to(dtype), (normal(rng, d, vocab) + 0.4).to(dtype))

    yield case("4 directions, 7 dimensions, 11 tokens", 4, 7, 11, torch.float64)
    yield case("float32", 3, 9, 5, torch.float32)
    yield case("one direction", 1, 6, 8, torch.float64)
    yield case("one dimension", 2, 1, 3, torch.float64).of("extreme")
    yield case("one token", 3, 2, 1, torch.float64).of("extreme")
    some = case("a dimension without weight, and a negative one; a short direction beside a long one", 2, 3, 4, torch.float64)
    yield Case(some.label, some.args[0] * torch.tensor([[1e-7], [1e7]], dtype=torch.float64), torch.tensor([0.0, -1.5, 2.0], dtype=torch.float64), some.args[2]).of("extreme")


decoder_logits = Exercise(
    "decoder_logits",
    without={**NOT_TRAINED, **NO_THRESHOLD, **ALL_COUNTS},
    difficulty=2,
    importance=4,
    minutes=8,
    learn="What a latent writes, in words, and why the final norm cannot be ignored on the way.",
    cases=_logit_cases,
    hints=(
        "Three steps: the same length for every direction, what the final norm does to it, the unembedding. One number per row is taken off at the end.",
        "`norm_weight` is [d_model]: which axis of `directions` does it belong to? And over which axis does a probability not care about a constant?",
        "Normalise before you multiply by the weight, not after: the weight is something that the direction meets on its way. The mean that you take off needs `keepdim`.",
    ),
    verified="directions of several lengths, an uneven norm weight, the shift over the vocabulary, float32.",
    next="what do the tokens that a latent promotes have to do with those on which it fires?",
)


@decoder_logits.mistake("norm-weight-forgotten", "The final norm's weight is missing. It differs by dimension, so it changes which tokens come out on top.")
def _(directions, norm_weight, W_U):
    logits = F.normalize(directions, dim=1) @ W_U
    return logits - logits.mean(1, keepdim=True)


@decoder_logits.mistake(
    "norm-applied-to-the-direction",
    "You divided the direction by its own root mean square, as if it were the whole activation. All your logits are larger by the square root of d_model.",
)
def _(directions, norm_weight, W_U):
    logits = directions / directions.square().mean(1, keepdim=True).sqrt() * norm_weight @ W_U
    return logits - logits.mean(1, keepdim=True)


@decoder_logits.mistake("length-kept", "Your directions kept their own lengths: the logits of two latents cannot be compared. Scale each to length 1.")
def _(directions, norm_weight, W_U):
    logits = directions * norm_weight @ W_U
    return logits - logits.mean(1, keepdim=True)


@decoder_logits.mistake("length-one-after-the-weight", "You scaled to length 1 after the norm's weight. The weight's own effect on the length is lost; scale first.")
def _(directions, norm_weight, W_U):
    logits = F.normalize(directions * norm_weight, dim=1) @ W_U
    return logits - logits.mean(1, keepdim=True)


@decoder_logits.mistake("not-centred", "Your logits have a mean of their own. A constant for all tokens changes no probability: take it off.")
def _(directions, norm_weight, W_U):
    return F.normalize(directions, dim=1) * norm_weight @ W_U


@decoder_logits.mistake("centred-over-directions", "You took the mean over the directions. It is over the vocabulary that a constant does not matter.")
def _(directions, norm_weight, W_U):
    logits = F.normalize(directions, dim=1) * norm_weight @ W_U
    return logits - logits.mean(0, keepdim=True)


@decoder_logits.mistake("weight-divided-out", "You divided by the norm's weight. The norm multiplies by it.")
def _(directions, norm_weight, W_U):
    logits = F.normalize(directions, dim=1) / norm_weight @ W_U
    return logits - logits.mean(1, keepdim=True)


@decoder_logits.mistake("probabilities", "These are probabilities. What is asked for are logits: what is added before the softmax.")
def _(directions, norm_weight, W_U):
    return (F.normalize(directions, dim=1) * norm_weight @ W_U).softmax(1)


@decoder_logits.variant
def _(directions, norm_weight, W_U):
    """The weight folded into the unembedding, once for all directions."""
    folded = norm_weight[:, None] * W_U
    folded = folded - folded.mean(1, keepdim=True)
    return directions / directions.norm(dim=1, keepdim=True) @ folded


@decoder_logits.variant
def _(directions, norm_weight, W_U):
    """einsum."""
    unit = directions / directions.norm(dim=-1, keepdim=True)
    logits = torch.einsum("nd,d,dv->nv", unit, norm_weight, W_U)
    return logits - logits.mean(-1, keepdim=True)


@decoder_logits.variant
def _(directions, norm_weight, W_U):
    """One direction at a time, a non-contiguous result."""
    columns = []
    for row in directions:
        logits = W_U.T @ (row / row.norm() * norm_weight)
        columns.append(logits - logits.mean())
    return torch.stack(columns, 1).T


# --- token_change_effect ------------------------------------------------------------------------------------


def _last(rows: Tensor, name: str) -> Tensor:
    return run_with_cache(tiny(), rows, name)[name][:, -1]


def _change_cases(rng: torch.Generator) -> Iterator[Case]:
    def case(label: str, layer: int, pos: int, m: int, cut: float) -> Case:
        tokens = torch.cat([torch.zeros(1, dtype=torch.long), integers(rng, 4, 61, pos - 1)])
        replacements = integers(rng, 4, 61, m)
        weight = 3 * normal(rng, tiny().cfg.d_model, dtype=torch.float32)
        name = resid_post(layer)
        rows = tokens.repeat(pos - 1, m, 1)
        for p in range(1, pos):
            rows[p - 1, :, p] = replacements
        values = _last(torch.cat([tokens[None], rows.flatten(0, 1)]), name) @ weight
        # The text itself fires; a part of the changed ones lies below 0, so that the ReLU matters.
        bias = float(-torch.minimum(values.quantile(cut), values[0] - 0.2 * values.std()))
        return Case(label, tiny(), name, weight, bias, tokens, replacements)

    yield case("6 tokens, 3 replacements", 1, 6, 3, 0.4)
    yield case("one token of text, 4 replacements, another layer", 2, 2, 4, 0.4).of("extreme")
    some = case("one replacement, which is the token itself in one place", 1, 4, 1, 0.4)
    yield Case(some.label, *some.args[:5], some.args[4][2:3]).of("extreme")
    yield Case("a text in which the latent is silent", *some.args[:3], some.args[3] - 100, *some.args[4:]).of("extreme")
    two = case("two replacements, one of which is the token itself in one place", 1, 4, 2, 0.4)
    yield Case(two.label, *two.args[:5], torch.stack([two.args[4][2], two.args[5][0]])).of("extreme")


token_change_effect = Exercise(
    "token_change_effect",
    without={**NOT_TRAINED, **ALL_COUNTS, **_NO_FLOAT64, **NO_MATRIX, "boundary": "both sides of the ReLU agree at 0"},
    difficulty=3,
    importance=4,
    minutes=18,
    learn="How to ask a latent which words it needs, instead of guessing from the words it likes.",
    cases=_change_cases,
    hints=(
        "Write down the texts that have to be run: the original, and one for every position and every replacement. All have the same length, so they are one batch.",
        "If the text has 6 tokens and there are 3 replacements, how many rows does your batch have? Which position of each row do you read?",
        "Build a table of rows with three axes: position, replacement, token. A loop over positions writes the replacements into one column of one layer of it. "
        "Run it flat, together with the original, and give the values their first two axes back before you average.",
    ),
    equal=close_to(rtol=1e-4, atol=2e-4),
    verified="every position but the start token, several replacements, changes that silence the latent, another layer, a text of one token.",
    next="compare a latent that needs its own token only with one that needs the word before it.",
)


def _changes(model, name, weight, bias, tokens, replacements, *, relu=True, read="last", sign=1, first=1, offset=None, pool="mean", cumulative=False):
    pos, m = len(tokens), len(replacements)
    rows = tokens.repeat(pos, m, 1)
    for p in range(first, pos):
        rows[p, :, 1 if cumulative else p] = replacements
        if cumulative:
            rows[p, :, 1 : p + 1] = replacements[:, None]
    acts = run_with_cache(model, torch.cat([tokens[None], rows.flatten(0, 1)]), name)[name]
    if read == "last":
        x, base = acts[1:, -1], acts[0, -1]
    else:
        x = acts[1:].view(pos, m, pos, -1)[torch.arange(pos), :, torch.arange(pos)].flatten(0, 1)
        base = acts[0].repeat_interleave(m, 0)
    b = bias if offset is None else offset
    value = lambda a: (a @ weight + b).relu() if relu else a @ weight + b  # noqa: E731
    change = sign * (value(x) - value(base)).view(pos, m)
    return change.mean(1) if pool == "mean" else change.sum(1) if pool == "sum" else change[:, 0] if pool == "one" else change.abs().mean(1)


wrong_ways(token_change_effect, _changes, {
    "original-minus-changed": ({"sign": -1},
        "The sign is reversed: where the latent needs a token, taking it away makes the value smaller, and the change is negative."),
    "without-the-relu": ({"relu": False},
        "Your values go below 0. A latent that is silenced has the value 0, however far below the threshold it is."),
    "read-where-it-was-changed": ({"read": "changed"},
        "You read the latent at the token that was replaced. The question is what the change does to the last token."),
    "start-token-replaced": ({"first": 0},
        "You replaced the start token too. It is no part of the text, and without it every activation changes."),
    "replacements-pile-up": ({"cumulative": True},
        "Earlier replacements are still there when the next position is changed. Begin each row with the original text."),
    "bias-forgotten": ({"offset": 0.0}, "The encoder's bias is missing. It sets the threshold at which the latent begins to fire."),
    "summed-over-the-replacements": ({"pool": "sum"},
        "You summed over the replacements. With twice as many of them every effect doubles; take the mean."),
    "one-replacement-only": ({"pool": "one"}, "Only the first replacement was tried. One odd word can do anything: average over all of them."),
    "size-without-direction": ({"pool": "absolute"},
        "You averaged absolute changes. Whether the latent needs a token or is held down by it is in the sign."),
})


@token_change_effect.variant
def _(model, name, weight, bias, tokens, replacements):
    """One text at a time."""
    def value(row):
        return float((run_with_cache(model, row[None], name)[name][0, -1] @ weight + bias).clamp_min(0))

    effect, original = torch.zeros(len(tokens)), value(tokens)
    for p in range(1, len(tokens)):
        for new in replacements:
            row = tokens.clone()
            row[p] = new
            effect[p] += (value(row) - original) / len(replacements)
    return effect


@token_change_effect.variant
def _(model, name, weight, bias, tokens, replacements):
    """One batch per replacement, with a diagonal."""
    pos = len(tokens)
    total = torch.zeros(pos)
    for new in replacements:
        rows = torch.where(torch.eye(pos, dtype=torch.bool), new, tokens)
        rows[0] = tokens
        value = F.relu(run_with_cache(model, rows, name)[name][:, -1] @ weight + bias)
        total += value - value[0]
    return total / len(replacements)


@token_change_effect.variant
def _(model, name, weight, bias, tokens, replacements):
    """TransformerLens' own cache."""
    pos, m = len(tokens), len(replacements)
    rows = tokens.expand(pos, m, pos).clone()
    for p in range(1, pos):
        rows[p, :, p] = replacements
    with torch.no_grad():
        _, cache = model.run_with_cache(rows.flatten(0, 1), names_filter=name)
    value = (cache[name][:, -1] @ weight + bias).relu().view(pos, m)
    return (value - value[0, 0]).mean(1)


# --- smallest_context ---------------------------------------------------------------------------------------


@functools.cache
def _suffix_acts(ids: tuple[int, ...], name: str) -> Tensor:
    """The last token's activation with the start token and the last n tokens, n = 1, 2, ...: [pos - 1, d_model]."""
    tokens, pos = torch.tensor(ids), len(ids)
    rows = torch.full((pos - 1, pos), 2)
    for n in range(1, pos):
        rows[n - 1, : n + 1] = torch.cat([tokens[:1], tokens[-n:]])
    acts = run_with_cache(tiny(), rows, name)[name]
    return acts[torch.arange(pos - 1), torch.arange(1, pos)]


def _context_cases(rng: torch.Generator) -> Iterator[Case]:
    def case(label: str, layer: int, pos: int, keep: float, dips: bool, *, low: bool = False, long: bool = False) -> Case:
        tokens = torch.cat([torch.zeros(1, dtype=torch.long), torch.randperm(57, generator=rng)[: pos - 1] + 4])
        name = resid_post(layer)
        acts = _suffix_acts(tuple(tokens.tolist()), name)
        weights = 3 * normal(rng, 4000, acts.shape[1], dtype=torch.float32)
        values = weights @ acts.T
        whole = values[:, -1:]
        bias = -0.3 * whole.abs()[:, 0] if low else 0.3 * whole.abs()[:, 0] + 0.4
        share = (values + bias[:, None]).relu() / (whole + bias[:, None])
        fires = (whole[:, 0] + bias > 0.5) & (share[:, 0] < 0.8 * keep) & (share[:, 0] * (whole[:, 0] + bias) > keep + 0.1)
        enough = share >= keep
        first = enough.float().argmax(1)
        after = torch.arange(pos - 1) > first[:, None]
        dip = (~enough & after).any(1)
        # No share near the limit: rounding must not decide.
        clear = ((share - keep).abs() > 0.02).all(1)
        good = fires & clear & (first >= 1) & (first == pos - 2 if long else first < pos - 2) & (dip if dips else ~dip)
        i = int(good.float().argmax())
        return Case(label, tiny(), name, weights[i], float(bias[i]), tokens, keep)

    yield case("4 tokens of text, half the value has to remain", 1, 5, 0.5, False)
    yield case("more text can give less again", 2, 6, 0.7, True)
    long = case("the whole text is needed", 1, 4, 0.5, False, long=True).of("extreme")
    yield long
    low = case("a negative bias", 1, 5, 0.5, False, low=True)
    yield low
    yield Case("the same latent in units that make its values tiny", *low.args[:2], 1e-5 * low.args[2], 1e-5 * low.args[3], *low.args[4:]).of("extreme")
    model, name, weight, bias, tokens, _ = long.args
    whole = float(_suffix_acts(tuple(tokens.tolist()), name)[-1] @ weight) + bias
    yield Case("nearly all of the value has to remain", model, name, weight, bias + 300 * whole, tokens, 0.9995).of("extreme")
    # The embeddings: only the last token matters, so that its share is 1 to the last bit. A weight with one entry leaves nothing to round.
    tokens, weight = torch.tensor([0, 8, 14, 8]), torch.zeros(tiny().cfg.d_model)
    weight[3] = 2.0
    yield Case("exactly the share that has to remain", tiny(), "blocks.0.hook_in", weight, 5.0, tokens, 1.0).of("boundary")
    yield Case("one token of text, and next to nothing has to remain", tiny(), resid_post(1), weight, 50.0, tokens[:2], 1e-6).of("extreme")


smallest_context = Exercise(
    "smallest_context",
    without={**NOT_TRAINED, **ALL_COUNTS, **_NO_FLOAT64, **NO_MATRIX},
    difficulty=3,
    importance=4,
    minutes=12,
    learn="How much text a latent needs: one token, a pair, or a sentence.",
    cases=_context_cases,
    hints=(
        "Begin with the shortest text, and stop at the first one that is enough. What does every text, however short, begin with?",
        "For a text of the start token and 5 tokens, write down the rows for n = 1, 2 and 5. Which position do you read in each?",
        "A small function of n that returns the value with the last n tokens serves twice: for the whole text, and for n = 1, 2, ... What is n for the whole text?",
    ),
    verified="two layers, two thresholds, and a text in which more context gives less again.",
    next="over many latents: how many are content with their own token?",
)


def _shares(model, name, weight, bias, tokens, *, start=True, front=False, offset=None, read=-1):
    """The share of the value kept by n = 1, 2, ... tokens, in one batch, padded on the right; and the whole text's value."""
    pos, b = len(tokens), bias if offset is None else offset
    rows, at = torch.full((pos, pos), 2), []
    for n in range(1, pos):
        kept = tokens[1 : n + 1] if front else tokens[-n:]
        row = torch.cat([tokens[:1], kept]) if start else kept
        rows[n - 1, : len(row)] = row
        at.append(len(row) + read)
    rows[-1] = tokens
    acts = run_with_cache(model, rows, name)[name]
    value = (acts[torch.arange(pos), torch.tensor([*at, pos - 1])] @ weight + b).relu()
    return (value[:-1] / value[-1]).tolist(), value[-1].item()


def _first(shares, keep):
    return next(((n, share) for n, share in enumerate(shares, 1) if share >= keep), (len(shares), shares[-1]))


@smallest_context.mistake("start-token-dropped", "Your shortened texts have no start token. Their first word takes its place, becomes the attention sink, and its activation is no word's any more.")
def _(model, name, weight, bias, tokens, keep):
    return _first(_shares(model, name, weight, bias, tokens, start=False)[0], keep)


@smallest_context.mistake("start-token-counted", "You counted the start token as text: your n is one too large.")
def _(model, name, weight, bias, tokens, keep):
    n, share = _first(_shares(model, name, weight, bias, tokens)[0], keep)
    return n + 1, share


@smallest_context.mistake("shortened-from-the-end", "You kept the beginning of the text and read the latent at another token each time. The token at which it fires is the last one: shorten from the front.")
def _(model, name, weight, bias, tokens, keep):
    return _first(_shares(model, name, weight, bias, tokens, front=True)[0], keep)


@smallest_context.mistake(
    "stopped-at-the-first-drop",
    "You shortened the text until the value first fell too low. More text can give less again, so a shorter text may still be enough: begin with the shortest.",
)
def _(model, name, weight, bias, tokens, keep):
    shares = _shares(model, name, weight, bias, tokens)[0]
    n = len(shares)
    while n > 1 and shares[n - 2] >= keep:
        n -= 1
    return n, shares[n - 1]


@smallest_context.mistake("share-of-the-whole-forgotten", "You compared the value itself with `keep`. What counts is its share of the value in the whole text.")
def _(model, name, weight, bias, tokens, keep):
    shares, whole = _shares(model, name, weight, bias, tokens)
    n, value = _first([share * whole for share in shares], keep)
    return n, value / whole


@smallest_context.mistake("value-for-share", "The n is right. Beside it stands the value itself, not its share of the value in the whole text.")
def _(model, name, weight, bias, tokens, keep):
    shares, whole = _shares(model, name, weight, bias, tokens)
    n, share = _first(shares, keep)
    return n, share * whole


@smallest_context.mistake("limit-excluded", "A text that keeps exactly the share asked for is enough: at least `keep`, so compare with >=.")
def _(model, name, weight, bias, tokens, keep):
    shares = _shares(model, name, weight, bias, tokens)[0]
    return next(((n, share) for n, share in enumerate(shares, 1) if share > keep), None)


@smallest_context.mistake("bias-forgotten", "The encoder's bias is missing; it sets the threshold at which the latent begins to fire.")
def _(model, name, weight, bias, tokens, keep):
    return _first(_shares(model, name, weight, bias, tokens, offset=0.0)[0], keep)


@smallest_context.mistake("last-token-removed", "You read the latent one token before the one at which it fires.")
def _(model, name, weight, bias, tokens, keep):
    return _first(_shares(model, name, weight, bias, tokens, read=-2)[0], keep)


@smallest_context.variant
def _(model, name, weight, bias, tokens, keep):
    """All lengths in one batch, padded on the right."""
    return _first(_shares(model, name, weight, bias, tokens)[0], keep)


@smallest_context.variant
def _(model, name, weight, bias, tokens, keep):
    """From the whole text down, without stopping."""
    values = {}
    for n in range(len(tokens) - 1, 0, -1):
        row = torch.cat((tokens[0].view(1), tokens[len(tokens) - n :]))
        x = run_with_cache(model, row.unsqueeze(0), [name])[name][0, n]
        values[n] = max(0.0, float(x.dot(weight)) + bias)
    shares = {n: v / values[len(tokens) - 1] for n, v in values.items()}
    n = min(n for n, share in shares.items() if share >= keep)
    return n, shares[n]


@smallest_context.variant
def _(model, name, weight, bias, tokens, keep):
    """TransformerLens' own cache, a while loop."""
    text = tokens.tolist()

    def value(n):
        with torch.no_grad():
            _, cache = model.run_with_cache(torch.tensor([[text[0], *text[-n:]]]), names_filter=name)
        return F.relu(cache[name][0, -1] @ weight + bias).item()

    n, whole = 1, value(len(text) - 1)
    while (share := value(n) / whole) < keep:
        n += 1
    return n, share


# --- best_token_rule ------------------------------------------------------------------------------------------


def _rule_cases(rng: torch.Generator) -> Iterator[Case]:
    def case(label: str, firing: dict[int, int], silent: dict[int, int]) -> Case:
        names = torch.randperm(90, generator=rng)[: max({*firing, *silent}) + 1] + 5
        tokens = torch.tensor([t for kind in (firing, silent) for t, n in kind.items() for _ in range(n)])
        fires = torch.arange(len(tokens)) < sum(firing.values())
        order = torch.randperm(len(tokens), generator=rng)
        return Case(label, names[tokens[order]], fires[order])

    # Token 0 is the most frequent among the firings and common in silence too; 1 is the best; 2 is the purest but rare.
    yield case("27 examples", {0: 7, 1: 5, 2: 1, 3: 1}, {0: 7, 1: 1, 3: 3, 4: 2})
    yield case("many silent examples", {0: 6, 1: 5, 2: 1, 5: 2}, {0: 15, 1: 1, 3: 14, 4: 9, 5: 1})
    yield Case("two equally good tokens", torch.tensor([9, 4, 9, 4, 6, 8, 6, 8, 8]), torch.tensor([True, True, True, True, True, False, False, False, False])).of("boundary")
    yield Case("one example of each kind, the same token", torch.tensor([7, 7]), torch.tensor([False, True])).of("extreme")
    yield Case("no rule is better than a coin", torch.tensor([3, 5, 5, 3, 3, 5, 3, 5]), torch.arange(8) < 2).of("extreme")
    yield Case("a rule without a false alarm, token 0", torch.tensor([0, 4, 0, 2, 4]), torch.tensor([True, False, True, False, True])).of("extreme")


best_token_rule = Exercise(
    "best_token_rule",
    without={**NOT_TRAINED, **ALL_COUNTS, **NO_MATRIX, "scale": "tokens have no scale", "negative": "tokens are never negative"},
    difficulty=2,
    importance=4,
    minutes=12,
    learn="The baseline that any label has to beat before it says more than a dictionary entry.",
    cases=_rule_cases,
    hints=(
        "For one token t the rule's predictions are `tokens == t`. What are its two shares?",
        "`tried[:, None] == tokens[fires]` compares every tried token with every firing example: what is its shape, and over which axis is the mean a share?",
        "The second share is over the silent examples, and there the rule is right when it keeps quiet. Of equally good rules the smallest number wins: what order are `unique()`'s tokens in, "
        "and which of several largest does `argmax` take?",
    ),
    verified="a token that is frequent everywhere, a pure but rare token, unequal numbers of both kinds, equally good rules.",
    next="how far does your own label get beyond the best rule?",
)


def _rule(tokens, fires, quality, tried=None):
    tried = tokens[fires].unique() if tried is None else tried
    scores = torch.tensor([quality(tokens == t, fires) for t in tried.tolist()], dtype=torch.float64)
    return tried[scores.argmax()].item(), scores.max().item()


def _balanced(said, fires):
    return (said[fires].double().mean().item() + (~said)[~fires].double().mean().item()) / 2


@best_token_rule.mistake("most-frequent-token", "You took the token on which the latent fires most often. It may be as frequent where the latent is silent.")
def _(tokens, fires):
    token = _rule(tokens, fires, lambda said, f: said[f].double().mean().item())[0]
    return token, _balanced(tokens == token, fires)


wrong_ways(best_token_rule, _rule, {
    "plain-accuracy": ({"quality": lambda said, f: (said == f).double().mean().item()},
        "You maximised the share of examples that the rule gets right. With many silent examples, a rule that hardly ever fires wins; average the two shares."),
    "precision": ({"quality": lambda said, f: (said & f).sum().item() / said.sum().item()},
        "You maximised the share of the rule's hits that are right. A token that occurs once is perfect by that measure."),
    "sensitivity-only": ({"quality": lambda said, f: said[f].double().mean().item()},
        "You report only the share of the firing examples that the rule finds. What it does to the silent ones counts as much."),
})


@best_token_rule.mistake("largest-of-equals", "Of equally good tokens you took the largest number; the smallest is asked for.")
def _(tokens, fires):
    return _rule(tokens, fires, _balanced, tokens[fires].unique().flip(0))


@best_token_rule.mistake("position-returned", "The first number is a place among the tokens that were tried. What is asked for is the token.")
def _(tokens, fires):
    tried = tokens[fires].unique()
    token, score = _rule(tokens, fires, _balanced)
    return tried.tolist().index(token), score


@best_token_rule.mistake("shares-of-all-examples", "You divided both counts by the number of all examples. Each share is of its own kind: the firing ones, and the silent ones.")
def _(tokens, fires):
    return _rule(tokens, fires, lambda said, f: ((said & f).double().mean().item() + (~said & ~f).double().mean().item()) / 2)


@best_token_rule.variant
def _(tokens, fires):
    """Counting in Python."""
    token, best = None, -1.0
    n_fires = int(fires.sum())
    for t in sorted(set(tokens[fires].tolist())):
        hits = int(((tokens == t) & fires).sum())
        false = int(((tokens == t) & ~fires).sum())
        score = 0.5 * (hits / n_fires + 1 - false / (len(fires) - n_fires))
        if score > best + 1e-12:
            token, best = t, score
    return token, best


@best_token_rule.variant
def _(tokens, fires):
    """bincount over the vocabulary."""
    size = int(tokens.max()) + 1
    hits = torch.bincount(tokens[fires], minlength=size).double()
    false = torch.bincount(tokens[~fires], minlength=size).double()
    score = (hits / fires.sum() + 1 - false / (~fires).sum()) / 2
    score[hits == 0] = -1
    return score.argmax().item(), score.max().item()


@best_token_rule.variant
def _(tokens, fires):
    """NumPy, rules as a matrix."""
    t, f = tokens.numpy(), fires.numpy()
    tried = np.unique(t[f])
    said = t[None] == tried[:, None]
    score = (said[:, f].mean(1) + (~said[:, ~f]).mean(1)) / 2
    return int(tried[score.argmax()]), float(score.max())


# --- detection_score ------------------------------------------------------------------------------------------


def _detection_cases(rng: torch.Generator) -> Iterator[Case]:
    def case(label: str, hits: int, misses: int, false: int, spared: int, rate: float) -> Case:
        fires = torch.arange(hits + misses + false + spared) < hits + misses
        predicted = torch.cat([torch.ones(hits), torch.zeros(misses), torch.ones(false), torch.zeros(spared)]).bool()
        order = torch.randperm(len(fires), generator=rng)
        return Case(label, predicted[order], fires[order], rate)

    some = lambda low, high: int(integers(rng, low, high))  # noqa: E731
    yield case("about half and half", 7 + some(0, 3), 2, 3, 5 + some(0, 3), 0.02)
    yield case("few firing examples, a frequent latent", 2, 3 + some(0, 2), 4, 15 + some(0, 5), 0.3)
    yield case("nothing is predicted to fire", 0, 4, 0, 7, 0.1).of("boundary")
    yield case("only what is silent is predicted to fire", 0, 3, 2, 4, 0.2).of("extreme")
    yield case("everything is predicted to fire", 3, 0, 5, 0, 0.01).of("extreme")
    yield case("no mistake, one example of each kind", 1, 0, 0, 1, 0.001).of("extreme")
    yield case("a latent that nearly always fires", 3, 1, 2, 4, 0.9)
    yield case("a latent that always fires", 3, 1, 2, 4, 1.0).of("extreme")
    yield case("a latent that hardly ever fires", 5, 1, 1, 6, 1e-6).of("extreme")


detection_score = Exercise(
    "detection_score",
    without={**NOT_TRAINED, **ALL_COUNTS, **NO_SCALE, **NO_MATRIX, "negative": "nothing in it can be negative"},
    difficulty=2,
    importance=5,
    minutes=10,
    learn="Why a label that is right nine times in ten can still be wrong nearly always when it says that the latent fires.",
    cases=_detection_cases,
    hints=(
        "Two shares, each within its own kind of example. For the fourth number imagine a thousand tokens of running text: how many fire, how many of "
        "those are found, and how many of the others are called by mistake?",
        "`predicted[fires]` holds the predictions of the firing examples. What is its mean? What do you have to index, and what to negate, for the silent ones?",
        "In running text a share `firing_rate` of the tokens fires. Multiply it by the share that is found, and the rest by the share that is called by mistake: precision is made of these two numbers. When is their sum 0?",
    ),
    verified="unequal numbers of both kinds, rare and frequent latents, a label that never predicts a firing.",
    next="work out the precision for a specificity of 0.98 and a latent that fires at one token in five hundred.",
)


def _scores(predicted, fires):
    return predicted[fires].double().mean().item(), (~predicted)[~fires].double().mean().item()


def _precision(sensitivity, specificity, rate):
    right, wrong = rate * sensitivity, (1 - rate) * (1 - specificity)
    return right / (right + wrong) if right + wrong else 0.0


@detection_score.mistake(
    "precision-of-the-sample",
    "Your precision is that of the examples, of which a large part fires. In running text nearly all tokens are silent, and the false calls come from there.",
)
def _(predicted, fires, firing_rate):
    a, b = _scores(predicted, fires)
    said = int(predicted.sum())
    return a, b, (a + b) / 2, int((predicted & fires).sum()) / said if said else 0.0


@detection_score.mistake("sensitivity-and-specificity-exchanged", "Sensitivity and specificity have changed places: sensitivity is about the examples that fire.")
def _(predicted, fires, firing_rate):
    a, b = _scores(predicted, fires)
    return b, a, (a + b) / 2, _precision(a, b, firing_rate)


@detection_score.mistake("shares-of-the-predictions", "You divided by the numbers of predictions. Sensitivity and specificity are shares of the examples that fire and of those that are silent.")
def _(predicted, fires, firing_rate):
    mean = lambda x: x.double().mean().item() if len(x) else 0.0  # noqa: E731
    a, b = mean(fires[predicted]), mean(~fires[~predicted])
    return a, b, (a + b) / 2, _precision(a, b, firing_rate)


@detection_score.mistake("accuracy-for-balanced", "The third number is the share of all examples that are right. It depends on how many of each kind there are; take the mean of the two shares.")
def _(predicted, fires, firing_rate):
    a, b = _scores(predicted, fires)
    return a, b, (predicted == fires).double().mean().item(), _precision(a, b, firing_rate)


@detection_score.mistake("false-alarm-rate", "Your second number is the share of silent examples that were called by mistake. Specificity is 1 minus that.")
def _(predicted, fires, firing_rate):
    a, b = _scores(predicted, fires)
    return a, 1 - b, (a + 1 - b) / 2, _precision(a, 1 - b, firing_rate)


@detection_score.mistake("rate-of-silence-forgotten", "The false calls are not weighted with the share of silent tokens, 1 - firing_rate.")
def _(predicted, fires, firing_rate):
    a, b = _scores(predicted, fires)
    right, wrong = firing_rate * a, 1 - b
    return a, b, (a + b) / 2, right / (right + wrong) if right + wrong else 0.0


@detection_score.mistake("share-of-tokens-called", "Your fourth number is the share of all tokens that are found. Precision divides it by the share of all that are called.")
def _(predicted, fires, firing_rate):
    a, b = _scores(predicted, fires)
    return a, b, (a + b) / 2, firing_rate * a


@detection_score.mistake("division-by-zero", "With a label that never predicts a firing your precision is not a number. It is 0.0 then.")
def _(predicted, fires, firing_rate):
    a, b = _scores(predicted, fires)
    right, wrong = torch.tensor(firing_rate * a), torch.tensor((1 - firing_rate) * (1 - b))
    return a, b, (a + b) / 2, (right.double() / (right.double() + wrong.double())).item()


@detection_score.variant
def _(predicted, fires, firing_rate):
    """Counts."""
    pairs = list(zip(predicted.tolist(), fires.tolist()))
    hits, misses = pairs.count((True, True)), pairs.count((False, True))
    false, spared = pairs.count((True, False)), pairs.count((False, False))
    a, b = hits / (hits + misses), spared / (false + spared)
    called = firing_rate * a + (1 - firing_rate) * (1 - b)
    return a, b, 0.5 * a + 0.5 * b, firing_rate * a / called if called else 0.0


@detection_score.variant
def _(predicted, fires, firing_rate):
    """NumPy."""
    p, f = predicted.numpy(), fires.numpy()
    a, b = float(p[f].mean()), float(1 - p[~f].mean())
    odds = firing_rate * a
    total = odds + (1 - firing_rate) * float(p[~f].mean())
    return a, b, float(np.mean([a, b])), odds / total if total > 0 else 0.0


@detection_score.variant
def _(predicted, fires, firing_rate):
    """scikit-learn's confusion matrix."""
    from sklearn.metrics import confusion_matrix

    (spared, false), (misses, hits) = confusion_matrix(fires.numpy(), predicted.numpy(), labels=[False, True])
    a, b = hits / (hits + misses), spared / (spared + false)
    right, wrong = firing_rate * a, (1 - firing_rate) * false / (spared + false)
    return float(a), float(b), float(a + b) / 2, float(right / (right + wrong)) if right + wrong > 0 else 0.0
