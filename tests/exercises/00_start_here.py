"""The exercises of chapter 00: cases, named mistakes, other right answers and hints."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from utils.course.battery import ALL_COUNTS, NOT_TRAINED, NO_THRESHOLD
from utils.course.cases import left_padded, normal, right_padded, tiny, token_rows, uniform, wrong_ways
from utils.course.exercises import Case, Exercise


# --- cache_resid_post --------------------------------------------------------------------------------------


def _cache_cases(rng: torch.Generator) -> Iterator[Case]:
    yield Case("2 texts of 5 tokens, the first block", tiny(), token_rows(rng, 2, 5), 0)
    yield Case("3 texts of 7 tokens, a block in the middle", tiny(), token_rows(rng, 3, 7), 1)
    yield Case("1 text of 4 tokens, the last block", tiny(), token_rows(rng, 1, 4), 2)


cache_resid_post = Exercise(
    "cache_resid_post",
    ends={"layer": lambda a: (0, a["model"].cfg.n_layers - 1)},
    without={**NOT_TRAINED, **NO_THRESHOLD, **ALL_COUNTS, "scale": "tokens have no scale", "negative": "tokens are never negative", "extreme": "the first and the last block are ordinary cases here, as is a single text"},
    difficulty=1,
    importance=5,
    minutes=8,
    learn="How to read any activation of a model by name, without changing what the model does.",
    cases=_cache_cases,
    hints=(
        "The model runs forward as always; you only ask it to keep one activation. Which hook name stands for what "
        "*leaves* block `layer`? The list printed above has it.",
        "Run `model.run_with_cache(tokens)` on one short text and print `{name: t.shape for name, t in cache.items()}`. "
        "Of the tensors of shape [batch, pos, d_model] in your block, which one does the next block receive?",
        "`names_filter` takes a name and `stop_at_layer` the first block that need not run; together under "
        "`torch.no_grad()`. Which two expressions in `layer` are they?",
    ),
    verified="three batches of a small Llama, first, middle and last block: every position, before any later norm, no hooks left.",
    next="compare the result for one layer with the next block's input: they are the same tensor under two names.",
)


def _cached(model, tokens: Tensor, layer: int, *, point: str = "blocks.{}.hook_out", earlier: int = 0) -> Tensor:
    name = point.format(layer - earlier)
    with torch.no_grad():
        _, cache = model.run_with_cache(tokens, names_filter=name)
    return cache[name]


wrong_ways(cache_resid_post, _cached, {
    "before-the-block": ({"point": "blocks.{}.hook_resid_pre"},
        "You returned what enters block `layer`; what this block itself adds is missing. Every block has a hook point at "
        "its door and one at its exit: which one did you ask for?"),
    "middle-of-the-block": ({"point": "blocks.{}.hook_resid_mid"},
        "You returned the stream between the attention and the MLP. The attention has been added, the MLP has not: the "
        "exit of the block is one addition later."),
    "counted-from-one": ({"earlier": 1},
        "You counted blocks from 1: asked for block 1 you returned block 0. The specification counts from 0, as the "
        "hook names do."),
    "attention-output": ({"point": "blocks.{}.attn.hook_out"},
        "You returned what the attention of this block writes, not the stream it writes into. The residual stream is "
        "the running sum."),
    "mlp-output": ({"point": "blocks.{}.mlp.hook_out"},
        "You returned what the MLP of this block writes, not the stream it writes into. The residual stream is the "
        "running sum."),
    "final-norm": ({"point": "ln_final.hook_out"},
        "You returned the output of the final norm: the same for every `layer`, and rescaled token by token. The "
        "residual stream of one block is read before that norm."),
})


@cache_resid_post.mistake(
    "last-token-only",
    "You returned one vector per text. All positions were asked for; picking one is the next exercise's job.",
)
def _(model, tokens, layer):
    return _cached(model, tokens, layer)[:, -1]


@cache_resid_post.mistake(
    "batch-lost",
    "You returned the first text only, without its batch dimension. Look for a `[0]`, a `squeeze` or a "
    "`remove_batch_dim`: the result is [batch, pos, d_model] also for one text.",
)
def _(model, tokens, layer):
    return _cached(model, tokens, layer)[0]


@cache_resid_post.mistake(
    "first-token-dropped",
    "Position 0 is missing. The start token is odd, and this chapter will mask it later, but here every position "
    "was asked for.",
)
def _(model, tokens, layer):
    return _cached(model, tokens, layer)[:, 1:]


@cache_resid_post.variant
def _(model, tokens, layer):
    """A hook that keeps what it sees."""
    kept = []

    def keep(activation, hook):
        kept.append(activation.detach().clone())

    model.run_with_hooks(tokens, fwd_hooks=[(f"blocks.{layer}.hook_resid_post", keep)])
    return kept[0]


@cache_resid_post.variant
def _(model, tokens, layer):
    """Everything cached, gradients on, one entry taken."""
    _, cache = model.run_with_cache(tokens)
    return cache["resid_post", layer]


@cache_resid_post.variant
def _(model, tokens, layer):
    """The two writers of the block added to its input."""
    block = f"blocks.{layer}"
    names = [f"{block}.hook_in", f"{block}.attn.hook_out", f"{block}.mlp.hook_out"]
    with torch.no_grad():
        _, cache = model.run_with_cache(tokens, names_filter=names)
    return sum(cache[name] for name in names)


@cache_resid_post.variant
def _(model, tokens, layer):
    """One text at a time."""
    return torch.cat([_cached(model, row[None], layer) for row in tokens])


# --- gather_last_token -------------------------------------------------------------------------------------


def _gather_cases(rng: torch.Generator) -> Iterator[Case]:
    yield Case("4 texts, padding on the right", normal(rng, 4, 6, 5), right_padded([3, 5, 1, 4], 6))
    yield Case("3 texts, padding on the left, float32", normal(rng, 3, 7, 4, dtype=torch.float32), left_padded([2, 6, 5], 7))
    yield Case(
        "3 texts: padding on the right, none, padding on the left",
        normal(rng, 3, 5, 8),
        torch.cat([right_padded([2, 5], 5), left_padded([3], 5)]),
    )
    yield Case("1 text of 1 token", normal(rng, 1, 1, 6), torch.ones(1, 1, dtype=torch.bool))
    yield Case("no texts", normal(rng, 0, 4, 3), torch.ones(0, 4, dtype=torch.bool))
    acts = torch.randn(3, 4, 2, generator=rng, dtype=torch.float64)
    mask = torch.tensor([[1, 1, 0, 0], [0, 0, 1, 1], [0, 1, 0, 0]]).bool()
    yield Case("padding on both sides", acts, mask).of("extreme")
    yield Case("only the first, only the last token is real", acts[:2], torch.tensor([[1, 0, 0, 0], [0, 0, 0, 1]]).bool()).of("extreme")


gather_last_token = Exercise(
    "gather_last_token",
    new=True,
    without={**NOT_TRAINED, **NO_THRESHOLD, "nan": "activations are finite, those of the padding too"},
    difficulty=2,
    importance=5,
    minutes=10,
    learn="How to read the same place of texts that have different lengths, whatever side the padding is on.",
    cases=_gather_cases,
    hints=(
        "Two questions, one after the other: in which column does each row's last True stand? And how do you take one "
        "column per row, a different one for each?",
        "For `mask = [[True, True, False], [False, True, True]]`, write down the number of each True's column. Which "
        "summary over a row gives 1 for the first and 2 for the second? Is `mask.sum(1)` that summary for both?",
        "`torch.where(mask, torch.arange(pos), -1)` has the column's number at every real token. Reduce it to one place "
        "per row; then give `acts` two index tensors of length batch, which are paired up.",
    ),
    verified="right-padded, left-padded and full rows, mixed in a batch, one token, no text.",
    next="ask what `acts[:, -1]` would have cost: the next cell measures it on the real model.",
)


def _rows(acts: Tensor) -> Tensor:
    return torch.arange(acts.shape[0])


@gather_last_token.mistake(
    "last-column",
    "You took the last column for every row. In a text that is padded on the right that column is padding: the "
    "mask says where each text ends.",
)
def _(acts, mask):
    return acts[:, -1]


@gather_last_token.mistake(
    "one-past-the-end",
    "You used the number of real tokens as an index. Counting starts at 0: index `n` is one past the last of `n` "
    "tokens, which is padding, or nothing at all in a full row.",
)
def _(acts, mask):
    return acts[_rows(acts), mask.sum(1)]


@gather_last_token.mistake(
    "left-padding-ignored",
    "Right for padding on the right, wrong for padding on the left: there the number of real tokens does not tell "
    "where the text ends. Which column has the row's last True?",
)
def _(acts, mask):
    return acts[_rows(acts), mask.sum(1) - 1]


@gather_last_token.mistake(
    "first-padding",
    "You found the first False of each row, which is padding (or column 0 when the row has none). The last real token "
    "stands elsewhere.",
)
def _(acts, mask):
    return acts[_rows(acts), mask.int().argmin(1)]


@gather_last_token.mistake(
    "rows-mixed",
    "Your result has one dimension too many: `acts[:, index]` takes *every* row's column from *every* row. Each row "
    "should give its own column only.",
)
def _(acts, mask):
    pos = mask.shape[1]
    return acts[:, torch.where(mask, torch.arange(pos), -1).amax(1)]


@gather_last_token.mistake(
    "first-token",
    "You returned the first real token of each text. The first True of a row is where it starts, not where it ends.",
)
def _(acts, mask):
    return acts[_rows(acts), mask.int().argmax(1)]


@gather_last_token.mistake(
    "mean-of-the-text",
    "You returned the mean over the real tokens. That is a fair way to summarise a text, but here one token was asked "
    "for.",
)
def _(acts, mask):
    return (acts * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)


@gather_last_token.mistake(
    "position-kept",
    "The numbers are right, the shape is not: a position dimension of size 1 is still there. The result is "
    "[batch, d_model].",
)
def _(acts, mask):
    place = torch.where(mask, torch.arange(mask.shape[1]), -1).amax(1)
    return acts[_rows(acts), place][:, None]


@gather_last_token.variant
def _(acts, mask):
    """A loop over rows."""
    out = acts.new_empty(acts.shape[0], acts.shape[2])
    for row in range(acts.shape[0]):
        out[row] = acts[row][mask[row]][-1]
    return out


@gather_last_token.variant
def _(acts, mask):
    """torch.gather with the index spread over the features."""
    pos = mask.shape[1]
    place = pos - 1 - mask.flip(1).int().argmax(1)
    return acts.gather(1, place[:, None, None].expand(-1, 1, acts.shape[2])).squeeze(1)


@gather_last_token.variant
def _(acts, mask):
    """A one-hot mask and einsum."""
    count = mask.cumsum(1)
    is_last = mask & (count == mask.sum(1, keepdim=True))
    return torch.einsum("bpd,bp->bd", acts, is_last.to(acts.dtype))


@gather_last_token.variant
def _(acts, mask):
    """A result that is not contiguous in memory."""
    place = (mask * torch.arange(mask.shape[1])).argmax(1)
    return acts.permute(2, 0, 1)[:, _rows(acts), place].T


# --- zero_ablate -------------------------------------------------------------------------------------------


def _zero_cases(rng: torch.Generator) -> Iterator[Case]:
    yield Case("3 texts of 8 tokens, positions 1 and 4", normal(rng, 3, 8, 5), [1, 4])
    yield Case(
        "5 texts of 6 tokens, the last and the third, float32",
        normal(rng, 5, 6, 9, dtype=torch.float32),
        [-1, 2],
    )
    yield Case("1 text, position 0", normal(rng, 1, 4, 3), [0])
    yield Case("2 texts, no position", normal(rng, 2, 3, 4), [])
    yield Case("every position, one of them twice", torch.randn(2, 3, 4, generator=rng, dtype=torch.float64), [2, 0, 1, -1]).of("extreme")
    even = torch.arange(1.0, 17.0, dtype=torch.bfloat16).view(1, 8, 2)
    yield Case("the first position counted from the end and the last from the start, bfloat16", even, [-8, 7]).of("extreme")


zero_ablate = Exercise(
    "zero_ablate",
    new=True,
    without={**NOT_TRAINED, **NO_THRESHOLD, "nan": "activations are finite, those of the padding too"},
    difficulty=1,
    importance=4,
    minutes=5,
    learn="How to take one piece of a model away while it runs.",
    cases=_zero_cases,
    hints=(
        "Copy first, change the copy, return the copy. Which of the three dimensions do the positions count along?",
        "Print `activation.shape` and `activation[:, positions].shape`. Which dimension changed, and how many numbers "
        "does your assignment touch?",
        "A list of positions works as an index, negative ones included. In which of the three places between the "
        "brackets does it belong, and what stands in front of it?",
    ),
    verified="several rows, positions out of order and from the end, one row, no position; the input is untouched.",
    next="it becomes a hook with one lambda: `lambda activation, hook: zero_ablate(activation, [0])`.",
)


@zero_ablate.mistake(
    "texts-instead-of-positions",
    "You set whole texts to zero: the first dimension is the batch. The positions are on the second.",
)
def _(activation, positions):
    out = activation.clone()
    out[positions] = 0
    return out


@zero_ablate.mistake(
    "features-instead-of-positions",
    "You set some features of every token to zero: the last dimension is d_model. The positions are on the second.",
)
def _(activation, positions):
    out = activation.clone()
    out[..., positions] = 0
    return out


@zero_ablate.mistake(
    "kept-instead-of-removed",
    "You kept the positions you were given and removed all the others. It is the other way round.",
)
def _(activation, positions):
    out = torch.zeros_like(activation)
    out[:, positions] = activation[:, positions]
    return out


@zero_ablate.mistake(
    "first-text-only",
    "Only the first text was changed. The positions are the same for every row of the batch.",
)
def _(activation, positions):
    out = activation.clone()
    out[0, positions] = 0
    return out


@zero_ablate.mistake(
    "everything-in-between",
    "You removed everything from the lowest to the highest position. The list names single positions, and those "
    "between them stay.",
)
def _(activation, positions):
    out = activation.clone()
    places = [p % activation.shape[1] for p in positions]
    if places:
        out[:, min(places) : max(places) + 1] = 0
    return out


@zero_ablate.mistake(
    "negative-positions-ignored",
    "Positions that count from the end were ignored: -1 is the last token. Comparing 0, 1, 2, ... with the list "
    "never meets a negative number.",
)
def _(activation, positions):
    out = activation.clone()
    for p in range(activation.shape[1]):
        if p in positions:
            out[:, p] = 0
    return out


@zero_ablate.mistake(
    "positions-cut-out",
    "You cut the positions out, so that the result is shorter than the input. The model needs a tensor of the same "
    "shape: put zeros in their place.",
)
def _(activation, positions):
    gone = {p % activation.shape[1] for p in positions}
    return activation[:, [p for p in range(activation.shape[1]) if p not in gone]]


@zero_ablate.mistake(
    "mean-instead-of-zero",
    "You put the mean over positions where zeros were asked for. Replacing by a mean is the next exercise, and it is "
    "another question to the model.",
)
def _(activation, positions):
    out = activation.clone()
    out[:, positions] = activation.mean(1, keepdim=True)
    return out


@zero_ablate.variant
def _(activation, positions):
    """A mask of ones and zeros."""
    keep = torch.ones(activation.shape[1], dtype=activation.dtype)
    keep[positions] = 0
    return torch.einsum("bpd,p->bpd", activation, keep)


@zero_ablate.variant
def _(activation, positions):
    """A loop over positions."""
    out = activation.clone()
    for p in positions:
        out[:, p, :] = 0.0
    return out


@zero_ablate.variant
def _(activation, positions):
    """index_fill, with the positions made non-negative."""
    places = torch.tensor([p % activation.shape[1] for p in positions], dtype=torch.long)
    return activation.index_fill(1, places, 0.0)


@zero_ablate.variant
def _(activation, positions):
    """A transposed copy: same values, other memory order."""
    out = activation.transpose(1, 2).clone(memory_format=torch.contiguous_format)
    out[:, :, positions] = 0
    return out.transpose(1, 2)


# --- mean_ablate -------------------------------------------------------------------------------------------


def _mean_cases(rng: torch.Generator) -> Iterator[Case]:
    # An offset keeps every mean away from 0, so that a mean over the wrong things cannot pass by being small.
    yield Case("3 texts, padding on the right", normal(rng, 3, 6, 5) + 1, right_padded([2, 6, 3], 6))
    yield Case(
        "4 texts, padding on the left, float32",
        normal(rng, 4, 5, 7, dtype=torch.float32) - 2,
        left_padded([4, 1, 3, 2], 5),
    )
    yield Case("1 text without padding", normal(rng, 1, 4, 3) + 1, torch.ones(1, 4, dtype=torch.bool))
    acts = torch.randn(2, 5, 3, generator=rng, dtype=torch.float64)
    mask = torch.tensor([[1, 1, 1, 0, 0], [0, 0, 0, 0, 1]]).bool()
    yield Case("texts of different length, padding on both sides", acts, mask).of("extreme")
    yield Case("one real token in the whole batch", acts, torch.arange(10).view(2, 5) == 7).of("extreme")
    yield Case("one text of one real token, which stays as it is", acts[:1], torch.arange(5)[None] == 3).of("extreme")
    whole = torch.tensor([[[1.0, 8.0], [3.0, 16.0], [7.0, 5.0]]], dtype=torch.bfloat16)
    yield Case("2 real tokens of 3, bfloat16", whole, torch.tensor([[True, True, False]])).of("extreme")


mean_ablate = Exercise(
    "mean_ablate",
    new=True,
    without={**NOT_TRAINED, **NO_THRESHOLD, "nan": "activations are finite, those of the padding too"},
    difficulty=2,
    importance=4,
    minutes=8,
    learn="How to remove what a piece says about *this* token while keeping what it says about every token.",
    cases=_mean_cases,
    hints=(
        "Two steps: one mean vector from the real tokens, then a tensor that has it at the real tokens and the old "
        "values elsewhere.",
        "Print `activation[mask].shape`. Which dimension of it do you average to be left with d_model numbers?",
        "With `mean = activation[mask].mean(0)`, `torch.where(condition, mean, activation)` does the rest, once the "
        "condition has a dimension for the features.",
    ),
    verified="ragged batches padded on either side and a full one: one mean over real tokens, padding as it was.",
    next="ask which of the two ablations is fairer to a piece that writes nearly the same vector everywhere.",
)


def _put(activation: Tensor, mask: Tensor, mean: Tensor) -> Tensor:
    return torch.where(mask[..., None], mean, activation)


@mean_ablate.mistake(
    "padding-in-the-mean",
    "Your mean runs over padding too. What stands there is no text: only the real tokens should count.",
)
def _(activation, mask):
    return _put(activation, mask, activation.mean((0, 1)))


@mean_ablate.mistake(
    "padding-overwritten",
    "The mean is right, but padding got it as well. Padding keeps its values.",
)
def _(activation, mask):
    return activation[mask].mean(0).expand_as(activation).clone()


@mean_ablate.mistake(
    "mean-per-text",
    "You used a mean for each text. A text's own mean still says what the text is about; the specification asks for "
    "one mean over the whole batch.",
)
def _(activation, mask):
    mean = (activation * mask[..., None]).sum(1, keepdim=True) / mask.sum(1)[:, None, None]
    return _put(activation, mask, mean)


@mean_ablate.mistake(
    "mean-of-text-means",
    "You averaged the texts' means, so that a token in a short text weighs more than one in a long text. Every real "
    "token counts once.",
)
def _(activation, mask):
    means = (activation * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
    return _put(activation, mask, means.mean(0))


@mean_ablate.mistake(
    "mean-per-position",
    "You used a mean for each position. The specification asks for one mean over all real tokens, wherever they "
    "stand.",
)
def _(activation, mask):
    count = mask.sum(0).clamp(min=1)[:, None]
    return _put(activation, mask, (activation * mask[..., None]).sum(0) / count)


@mean_ablate.mistake(
    "divided-by-all-tokens",
    "Your sum leaves the padding out, but you divided by the number of all tokens, padding included: the mean is too "
    "small.",
)
def _(activation, mask):
    return _put(activation, mask, (activation * mask[..., None]).mean((0, 1)))


@mean_ablate.mistake(
    "mean-over-features",
    "You averaged each token over its features, which leaves one number per token. The mean runs over tokens and "
    "leaves one number per feature.",
)
def _(activation, mask):
    return _put(activation, mask, activation.mean(-1, keepdim=True))


@mean_ablate.mistake(
    "one-number",
    "You averaged over tokens *and* features: one number everywhere. The mean is a vector with one number per "
    "feature.",
)
def _(activation, mask):
    return _put(activation, mask, activation[mask].mean())


@mean_ablate.mistake(
    "zero-instead-of-mean",
    "Real tokens are zero in your result. Zero was the previous exercise; here they all carry the mean.",
)
def _(activation, mask):
    return _put(activation, mask, torch.zeros((), dtype=activation.dtype))


@mean_ablate.variant
def _(activation, mask):
    """Boolean assignment into a copy."""
    out = activation.clone()
    out[mask] = activation[mask].mean(0)
    return out


@mean_ablate.variant
def _(activation, mask):
    """A weighted sum with einsum, then a blend."""
    weight = mask.to(activation.dtype)
    mean = torch.einsum("bpd,bp->d", activation, weight) / weight.sum()
    return activation * (1 - weight)[..., None] + mean * weight[..., None]


@mean_ablate.variant
def _(activation, mask):
    """Loops over texts and positions."""
    places = [(b, p) for b in range(mask.shape[0]) for p in range(mask.shape[1]) if mask[b, p]]
    mean = torch.stack([activation[place] for place in places]).mean(0)
    out = activation.clone()
    for place in places:
        out[place] = mean
    return out


@mean_ablate.variant
def _(activation, mask):
    """A masked mean by nanmean, and a result that is not contiguous."""
    hidden = activation.masked_fill(~mask[..., None], torch.nan)
    out = activation.permute(2, 0, 1).clone(memory_format=torch.contiguous_format)
    out[:, mask] = hidden.flatten(0, 1).nanmean(0)[:, None]
    return out.permute(1, 2, 0)


# --- residual_mask -----------------------------------------------------------------------------------------


def _with_norms(rng: torch.Generator, norms: Tensor, d_model: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """Random directions with the norms asked for, up to 2% and a common unit."""
    directions = normal(rng, *norms.shape, d_model)
    jitter = 1 + 0.02 * (2 * uniform(rng, *norms.shape) - 1)
    unit = 5 + 20 * uniform(rng)
    lengths = norms * jitter * unit
    return (directions / directions.norm(dim=-1, keepdim=True) * lengths[..., None]).to(dtype)


def _residual_cases(rng: torch.Generator) -> Iterator[Case]:
    # The norms are designed so that each wrong limit keeps or drops some token that the right one does not. Where the
    # candidates of a text are odd in number, nobody's kind of median is the wrong one.
    # Text 1: median 1.2, limit 3.6: 2.5 is kept (its square is not within 3 medians of the squares). Text 2: 8 is dropped
    # (its own mean, or padding of norm 5 in the median, would let it in). Text 3: its first token and its padding are
    # of ordinary norm, and it is six times as long as the others throughout.
    right = torch.tensor(
        [
            [60.0, 1.0, 1.1, 2.5, 1.2, 90.0, 5.0, 5.1, 4.9],
            [70.0, 1.3, 8.0, 1.15, 5.2, 4.8, 5.0, 5.1, 5.3],
            [6.0, 6.3, 120.0, 7.5, 5.0, 4.9, 5.2, 5.1, 4.8],
        ]
    ).double()
    yield Case("3 texts, padding on the right", _with_norms(rng, right, 7), right_padded([6, 4, 4], 9), 3.0)
    # Text 2 has a short first token: in the median it would move the limit from 3.9 to 3, below 3.5. A text of one
    # token has nothing to keep.
    left = torch.tensor(
        [
            [9.0, 50.0, 1.0, 1.2, 1.4],
            [9.0, 0.2, 1.0, 1.3, 3.5],
            [8.0, 9.0, 9.2, 9.1, 52.0],
            [9.0, 9.3, 9.1, 8.8, 1.1],
        ]
    ).double()
    yield Case(
        "4 texts, padding on the left, float32",
        _with_norms(rng, left, 6, dtype=torch.float32),
        left_padded([4, 4, 1, 1], 5),
        3.0,
    )
    # The second text consists of big tokens: by its own median they are usual.
    uneven = torch.tensor([[30.0, 1.0, 1.3, 1.1, 1.2, 1.15], [31.0, 40.0, 42.0, 41.0, 1.1, 1.0]]).double()
    yield Case("2 texts, one of them large throughout", _with_norms(rng, uneven, 5), right_padded([6, 4], 6), 3.0)
    full = torch.tensor([[30.0, 1.0, 1.3, 1.7, 3.0, 1.1]]).double()
    yield Case("1 text without padding, a ratio of 2", _with_norms(rng, full, 4), torch.ones(1, 6, dtype=torch.bool), 2.0)
    rows = [[[9.0, 0.0], [0.1, 0.0], [0.6, 0.8], [1.0, 0.0], [0.0, 2.0]], [[7.0, 0.0], [1.5, 2.0], [1.5, 2.0], [1.4, 1.4], [0.0, 0.0]]]
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 1, 0]], dtype=torch.bool)
    yield Case("a norm that is within the limit as L2 and beyond it as L1", torch.tensor(rows, dtype=torch.float64), mask, 1.2)
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]], dtype=torch.bool)
    yield Case("an even number of norms; one exactly at the limit, one tiny", torch.tensor(rows, dtype=torch.float64), mask, 2.0)
    # Four candidates: with the long first token among them the lower median jumps from 1 to 3.5.
    even = torch.tensor([[90.0, 1.0, 1.0, 3.5, 3.5]]).double()
    yield Case("norms of about 90, 1, 1, 3.5 and 3.5", _with_norms(rng, even, 4), torch.ones(1, 5, dtype=torch.bool), 3.0)
    lengths = torch.tensor([[7.0, 2.0, 1.0, 3.0, 4.0, 9.0]], dtype=torch.float64)[..., None]
    real = torch.tensor([[1, 1, 1, 1, 0, 0]]).bool()
    yield Case("a norm exactly at the limit", lengths, real, 1.5).of("boundary")
    yield Case("a norm just above the limit", lengths, real, 1.4999).of("boundary")
    yield Case("the padding is not a number", lengths.masked_fill(~real[..., None], torch.nan), real, 1.5).of("nan")
    yield Case("texts of one and of two tokens", lengths.expand(2, 6, 1).clone(), torch.tensor([[1, 0, 0, 0, 0, 0], [0, 0, 0, 0, 1, 1]]).bool(), 3.0).of("extreme")
    yield Case("a ratio under 1", lengths, real, 0.6).of("boundary")
    yield Case("a ratio of 12", lengths * torch.tensor([1.0, 1.0, 1.0, 7.4, 1.0, 1.0], dtype=torch.float64)[:, None], real, 12.0).of("boundary")
    yield Case("very short vectors, one of them too long", lengths * 1e-9, real, 1.25).of("boundary")


residual_mask = Exercise(
    "residual_mask",
    without={**NOT_TRAINED},
    difficulty=3,
    importance=4,
    minutes=15,
    learn="How to keep a handful of enormous tokens from deciding every average you take.",
    cases=_residual_cases,
    hints=(
        "Build it from three masks: real tokens, real tokens that are not the first of their row, and tokens that are "
        "not too long. Which of them does the median of a row need?",
        "Print `mask.cumsum(dim=1)` for a row padded on the left. At which column is it 1 *and* the mask True? Then "
        "print `acts.norm(dim=-1).shape`: it should be the shape of the mask, and the medians one number per row.",
        "A row's candidates are real and not its first. `norms.masked_fill(~candidates, torch.nan)` hides the rest from "
        "`nanmedian`; which `dim` gives one median per text, and with which shape does it compare with the norms?",
    ),
    verified="ragged rows with padding on either side, huge first tokens, huge later tokens, a median per text, another ratio.",
    next="plot the norms of what was dropped: how many tokens are they, and what share of the squared norm?",
)


def _candidates(mask: Tensor) -> Tensor:
    return mask & ~(mask & (mask.cumsum(1) == 1))


def _medians(norms: Tensor, counted: Tensor) -> Tensor:
    """[batch, 1]: each row's median over what is counted, NaN where nothing is."""
    return norms.masked_fill(~counted, torch.nan).nanmedian(1, keepdim=True).values


def _usual(acts: Tensor, counted: Tensor, max_norm_ratio: float) -> Tensor:
    """Where the norm is at most the ratio times the row's median over what is counted."""
    norms = acts.norm(dim=-1)
    return norms <= max_norm_ratio * _medians(norms, counted)


@residual_mask.mistake(
    "padding-in-the-median",
    "Your median counts padding. Padding has norms too, and they are nobody's: only real tokens should set the limit.",
)
def _(acts, mask, max_norm_ratio):
    is_first = mask & ~_candidates(mask)
    return _candidates(mask) & _usual(acts, ~is_first, max_norm_ratio)


@residual_mask.mistake(
    "mean-instead-of-median",
    "Your limit comes from the mean norm. The outliers you want to drop pull the mean up until they fit under it; "
    "the median does not move.",
)
def _(acts, mask, max_norm_ratio):
    norms, candidates = acts.norm(dim=-1), _candidates(mask)
    means = norms.masked_fill(~candidates, torch.nan).nanmean(1, keepdim=True)
    return candidates & (norms <= max_norm_ratio * means)


@residual_mask.mistake(
    "squared-norms",
    "You compared squared norms with the ratio. Three times the median squared norm is only 1.7 times the median "
    "norm: take the root.",
)
def _(acts, mask, max_norm_ratio):
    squares = acts.pow(2).sum(-1)
    return _candidates(mask) & (squares <= max_norm_ratio * _medians(squares, _candidates(mask)))


@residual_mask.mistake(
    "first-token-kept",
    "The first token of a row is still there whenever its norm is ordinary. It is dropped always: it has seen no "
    "text but itself.",
)
def _(acts, mask, max_norm_ratio):
    return mask & _usual(acts, _candidates(mask), max_norm_ratio)


@residual_mask.mistake(
    "first-column-dropped",
    "You dropped column 0. With padding on the left the first real token stands elsewhere: at the first True of the "
    "row.",
)
def _(acts, mask, max_norm_ratio):
    keep = mask.clone()
    keep[:, 0] = False
    return keep & _usual(acts, keep, max_norm_ratio)


@residual_mask.mistake(
    "first-tokens-in-the-median",
    "The first token is dropped from the result but still counts in its text's median, and in a short text that moves "
    "the limit. Leave it out of both.",
)
def _(acts, mask, max_norm_ratio):
    return _candidates(mask) & _usual(acts, mask, max_norm_ratio)


@residual_mask.mistake(
    "one-median-for-the-batch",
    "You took one median over the batch. Texts differ in scale, and what is kept of one would then depend on its "
    "neighbours: every text has its own median.",
)
def _(acts, mask, max_norm_ratio):
    norms = acts.norm(dim=-1)
    return _candidates(mask) & (norms <= max_norm_ratio * norms[_candidates(mask)].median())


@residual_mask.mistake(
    "kept-and-dropped-swapped",
    "Your True means *drop*. The specification says True where a token is kept.",
)
def _(acts, mask, max_norm_ratio):
    return ~(_candidates(mask) & _usual(acts, _candidates(mask), max_norm_ratio))


@residual_mask.mistake(
    "padding-kept",
    "Padding is True in your result wherever its norm is ordinary. What is not text cannot be kept.",
)
def _(acts, mask, max_norm_ratio):
    is_first = mask & ~_candidates(mask)
    return ~is_first & _usual(acts, _candidates(mask), max_norm_ratio)


@residual_mask.mistake(
    "ratio-as-a-norm",
    "You compared the norms with the ratio itself. The ratio has no unit: it is to be multiplied by the median norm.",
)
def _(acts, mask, max_norm_ratio):
    return _candidates(mask) & (acts.norm(dim=-1) <= max_norm_ratio)


@residual_mask.variant
def _(acts, mask, max_norm_ratio):
    """Loops, and the median by sorting."""
    keep = torch.zeros_like(mask)
    for b in range(mask.shape[0]):
        later = [p for p in range(mask.shape[1]) if mask[b, p]][1:]
        norms = [acts[b, p].pow(2).sum().sqrt().item() for p in later]
        for p, norm in zip(later, norms):
            keep[b, p] = norm <= max_norm_ratio * sorted(norms)[(len(norms) - 1) // 2]
    return keep


@residual_mask.variant
def _(acts, mask, max_norm_ratio):
    """The first token by argmax, the norm by einsum, the median by nanmedian."""
    first = torch.nn.functional.one_hot(mask.int().argmax(1), mask.shape[1]).bool()
    norms = torch.einsum("bpd,bpd->bp", acts, acts).sqrt()
    counted = norms.masked_fill(~mask | first, torch.nan)
    return counted / counted.nanmedian(1, keepdim=True).values <= max_norm_ratio


@residual_mask.variant
def _(acts, mask, max_norm_ratio):
    """A shifted mask, a median text by text, and a result that is not contiguous."""
    keep = mask & torch.cat([torch.zeros_like(mask[:, :1]), mask[:, :-1]], dim=1)
    norms = torch.linalg.vector_norm(acts, dim=-1)
    for row, length in zip(keep, norms):
        if row.any():
            row &= length <= max_norm_ratio * length[row].median()
    return keep.T.contiguous().T


# --- cosine_map --------------------------------------------------------------------------------------------


def _cosine_cases(rng: torch.Generator) -> Iterator[Case]:
    # Lengths from 0.5 to 8 and a common offset: dot products, correlations and cosines then all differ.
    def vectors(n: int, d_model: int, dtype: torch.dtype = torch.float64) -> Tensor:
        scale = torch.linspace(0.5, 8, n, dtype=torch.float64)[:, None]
        return ((normal(rng, n, d_model) + 0.7) * scale).to(dtype)

    yield Case("6 vectors of 9 dimensions", vectors(6, 9))
    yield Case("4 vectors of 5 dimensions, float32", vectors(4, 5, torch.float32))
    with_zero = vectors(5, 3)
    with_zero[2] = 0
    yield Case("5 vectors of 3 dimensions, the third is zero", with_zero)
    yield Case("1 vector", vectors(1, 4))
    v = torch.tensor([[3.0, 1.0, 2.0], [-1.0, 2.0, 0.5], [0.0, 0.0, 0.0], [2.0, -1.0, 4.0]], dtype=torch.float64)
    yield Case('vectors in a small unit', v * 1e-07)
    yield Case("all vectors zero", torch.zeros(3, 4, dtype=torch.float64)).of("extreme")
    yield Case("a vector just longer than zero", torch.tensor([[1e-7, 0.0], [1e-7, 1e-7], [0.0, 0.0]], dtype=torch.float64)).of("boundary")


cosine_map = Exercise(
    "cosine_map",
    without={**NOT_TRAINED, **ALL_COUNTS},
    difficulty=2,
    importance=4,
    minutes=8,
    learn="How to compare directions when the lengths differ a hundredfold.",
    cases=_cosine_cases,
    hints=(
        "Give every row length 1; then dot products are cosines. What should happen to a row that has no length?",
        "Print `vectors.norm(dim=-1, keepdim=True).shape`: it must be [n, 1] to divide each row by its own norm. What "
        "do you divide a row of zeros by?",
        "With a 1 in place of each zero norm the division is safe. Once every row has length 1 or 0, which product of "
        "the matrix with itself is [n, n]?",
    ),
    verified="rows of very different lengths, a zero row, a single row.",
    next="dot products grow with the norm, cosines do not: which of the two would the first token have ruled?",
)


def _unit(vectors: Tensor, dim: int = -1) -> Tensor:
    return torch.nn.functional.normalize(vectors, dim=dim)


@cosine_map.mistake(
    "dot-products",
    "These are dot products: long vectors win. A cosine divides by both lengths.",
)
def _(vectors):
    return vectors @ vectors.T


@cosine_map.mistake(
    "wrong-axis",
    "You normalised each feature over the vectors, not each vector over its features. Does every row of what you "
    "multiply have length 1?",
)
def _(vectors):
    unit = _unit(vectors, dim=0)
    return unit @ unit.T


@cosine_map.mistake(
    "one-side-only",
    "Only one of the two vectors was normalised, so that the result is not symmetric. A cosine divides by both "
    "lengths.",
)
def _(vectors):
    return _unit(vectors) @ vectors.T


@cosine_map.mistake(
    "squared-norm",
    "You divided each vector by its squared length. The square root is missing: a unit vector's length is 1.",
)
def _(vectors):
    unit = vectors / vectors.pow(2).sum(-1, keepdim=True).clamp(min=1e-12)
    return unit @ unit.T


@cosine_map.mistake(
    "correlation",
    "You subtracted each vector's own mean first: that is a correlation. A cosine compares the vectors as they are.",
)
def _(vectors):
    unit = _unit(vectors - vectors.mean(-1, keepdim=True))
    return unit @ unit.T


@cosine_map.mistake(
    "mean-vector-removed",
    "You subtracted the mean of all vectors first. That answers another good question, how they differ *from each "
    "other*; here they are compared as they are.",
)
def _(vectors):
    unit = _unit(vectors - vectors.mean(0))
    return unit @ unit.T


@cosine_map.mistake(
    "zero-vector-nan",
    "A row of zeros made NaN: 0 divided by 0. The specification says what its cosines are.",
)
def _(vectors):
    unit = vectors / vectors.norm(dim=-1, keepdim=True)
    return unit @ unit.T


@cosine_map.mistake(
    "diagonal-of-ones",
    "A row of zeros has cosine 1 with itself in your map. It has no direction, so the specification gives it 0 there "
    "too.",
)
def _(vectors):
    unit = _unit(vectors)
    return (unit @ unit.T).fill_diagonal_(1)


@cosine_map.mistake(
    "sign-lost",
    "All your cosines are positive. Two vectors may point in opposite ways: keep the sign.",
)
def _(vectors):
    unit = _unit(vectors)
    return (unit @ unit.T).abs()


@cosine_map.variant
def _(vectors):
    """The library's own cosine, broadcast over pairs."""
    return torch.nn.functional.cosine_similarity(vectors[:, None], vectors[None], dim=-1)


@cosine_map.variant
def _(vectors):
    """Dot products first, lengths after."""
    norms = torch.einsum("id,id->i", vectors, vectors).sqrt()
    lengths = torch.outer(norms, norms)
    return torch.where(lengths > 0, vectors @ vectors.T / lengths.clamp(min=1e-30), 0.0)


@cosine_map.variant
def _(vectors):
    """A double loop."""
    n = len(vectors)
    out = vectors.new_zeros(n, n)
    for i in range(n):
        for j in range(n):
            size = vectors[i].norm() * vectors[j].norm()
            if size > 0:
                out[i, j] = vectors[i] @ vectors[j] / size
    return out


@cosine_map.variant
def _(vectors):
    """scikit-style: in NumPy, returned as a tensor, transposed."""
    array = vectors.numpy()
    norms = np.sqrt((array**2).sum(1, keepdims=True))
    unit = np.divide(array, norms, out=np.zeros_like(array), where=norms > 0)
    return torch.from_numpy((unit @ unit.T).T)


# --- logit_lens --------------------------------------------------------------------------------------------


def _lens_cases(rng: torch.Generator) -> Iterator[Case]:
    # Small residuals and a large eps: where it stands decides the result.
    def case(label: str, lead: tuple[int, ...], d_model: int, d_vocab: int, eps: float, dtype=torch.float64) -> Case:
        return Case(
            label,
            (0.3 * normal(rng, *lead, d_model) + 0.1).to(dtype),
            (1 + 0.4 * normal(rng, d_model)).to(dtype),
            eps,
            normal(rng, d_model, d_vocab, dtype=dtype),
        )

    yield case("2 texts of 4 tokens, 7 dimensions", (2, 4), 7, 11, 0.05)
    yield case("5 tokens, 6 dimensions, float32", (5,), 6, 9, 0.02, torch.float32)
    yield case("one vector", (), 5, 8, 0.03)
    yield Case("a vector of zeros, and one far shorter than eps", torch.tensor([[0.0, 0.0, 0.0], [1e-9, -1e-9, 2e-9]], dtype=torch.float64),
               torch.rand(3, generator=rng, dtype=torch.float64), 1e-5, torch.randn(3, 5, generator=rng, dtype=torch.float64)).of("extreme")
    yield Case("eps is 0", torch.randn(2, 3, generator=rng, dtype=torch.float64) * 1e-3, torch.rand(3, generator=rng, dtype=torch.float64), 0.0,
               torch.randn(3, 5, generator=rng, dtype=torch.float64)).of("extreme")
    yield case("4 dimensions", (2, 3, 1), 4, 5, 0.05).of("axis")


logit_lens = Exercise(
    "logit_lens",
    without={**NOT_TRAINED, **NO_THRESHOLD, **ALL_COUNTS},
    difficulty=2,
    importance=5,
    minutes=10,
    learn="How to read a half-finished computation as if it were the answer.",
    cases=_lens_cases,
    hints=(
        "Two steps, in the model's order: the final norm, then the unembedding. The norm needs one number per vector.",
        "Print `resid.pow(2).mean(dim=-1, keepdim=True).shape`. It should equal `resid.shape` except for a last "
        "dimension of 1, also when resid is a single vector.",
        "The mean square of each vector and eps stand under one root, which divides; the weight comes after the "
        "division and before the matrix. Write these as three factors in that order.",
    ),
    verified="single vectors, texts and batches; weight, eps and the order of the steps.",
    next="give it the last block's output: the model's own logits must come back.",
)


def _rms(x: Tensor, eps: float) -> Tensor:
    return torch.sqrt(x.pow(2).mean(-1, keepdim=True) + eps)


@logit_lens.mistake(
    "no-norm",
    "The final norm is missing. The unembedding has only ever seen normed vectors, and residual norms grow from "
    "layer to layer.",
)
def _(resid, norm_weight, eps, W_U):
    return resid @ W_U


@logit_lens.mistake(
    "no-weight",
    "The norm's weight is missing. It stretches some dimensions and shrinks others, after the division.",
)
def _(resid, norm_weight, eps, W_U):
    return resid / _rms(resid, eps) @ W_U


@logit_lens.mistake(
    "layer-norm",
    "You subtracted the mean of each vector: that is LayerNorm. RMSNorm does not.",
)
def _(resid, norm_weight, eps, W_U):
    centred = resid - resid.mean(-1, keepdim=True)
    return centred / _rms(centred, eps) * norm_weight @ W_U


@logit_lens.mistake(
    "eps-outside-the-root",
    "eps stands outside the root in your norm. It belongs to the mean square, under the root.",
)
def _(resid, norm_weight, eps, W_U):
    return resid / (_rms(resid, 0.0) + eps) * norm_weight @ W_U


@logit_lens.mistake(
    "eps-missing",
    "eps is not used. For short vectors it matters, and for a vector of zeros it is what keeps the result finite.",
)
def _(resid, norm_weight, eps, W_U):
    return resid / _rms(resid, 0.0) * norm_weight @ W_U


@logit_lens.mistake(
    "sum-instead-of-mean",
    "You divided by the square root of the *sum* of squares: the logits come out smaller by the root of d_model. "
    "RMS stands for root *mean* square.",
)
def _(resid, norm_weight, eps, W_U):
    return resid / torch.sqrt(resid.pow(2).sum(-1, keepdim=True) + eps) * norm_weight @ W_U


@logit_lens.mistake(
    "wrong-axis",
    "Your mean square runs over the first dimension, across tokens or texts. Each vector is normed on its own, over "
    "its last dimension.",
)
def _(resid, norm_weight, eps, W_U):
    return resid / torch.sqrt(resid.pow(2).mean(0, keepdim=True) + eps) * norm_weight @ W_U


@logit_lens.mistake(
    "one-size-for-all",
    "You used one mean square for the whole tensor. Each vector has its own: a token's size should not depend on its "
    "neighbours.",
)
def _(resid, norm_weight, eps, W_U):
    return resid / torch.sqrt(resid.pow(2).mean() + eps) * norm_weight @ W_U


@logit_lens.mistake(
    "weight-before-the-norm",
    "You multiplied by the weight before computing the size, so that the weight is partly divided away again. Norm "
    "first, weight after.",
)
def _(resid, norm_weight, eps, W_U):
    weighted = resid * norm_weight
    return weighted / _rms(weighted, eps) @ W_U


@logit_lens.mistake(
    "probabilities",
    "You returned probabilities. Logits were asked for: leave the softmax to whoever reads them.",
)
def _(resid, norm_weight, eps, W_U):
    return (resid / _rms(resid, eps) * norm_weight @ W_U).softmax(-1)


@logit_lens.variant
def _(resid, norm_weight, eps, W_U):
    """torch's own RMSNorm."""
    return torch.nn.functional.rms_norm(resid, norm_weight.shape, norm_weight, eps) @ W_U


@logit_lens.variant
def _(resid, norm_weight, eps, W_U):
    """einsum, the size taken from the norm."""
    size = (torch.linalg.vector_norm(resid, dim=-1) ** 2 / resid.shape[-1] + eps).rsqrt()
    return torch.einsum("...d,...,d,dv->...v", resid, size, norm_weight, W_U)


@logit_lens.variant
def _(resid, norm_weight, eps, W_U):
    """A loop over vectors, and the weight folded into the unembedding."""
    folded = norm_weight[:, None] * W_U
    flat = resid.reshape(-1, resid.shape[-1])
    rows = [vector / (vector.dot(vector) / len(vector) + eps) ** 0.5 @ folded for vector in flat]
    return torch.stack(rows).reshape(*resid.shape[:-1], W_U.shape[1])


@logit_lens.variant
def _(resid, norm_weight, eps, W_U):
    """A result that is not contiguous."""
    normed = resid / _rms(resid, eps) * norm_weight
    return (W_U.T @ normed.movedim(-1, 0).reshape(len(W_U), -1)).T.reshape(*resid.shape[:-1], W_U.shape[1])
