"""The exercises of chapter 15: cases, named mistakes, other right answers and hints."""

import math
from collections.abc import Iterator

import numpy as np
import torch
from scipy.stats import beta, binomtest
from torch import Tensor
from torch.nn import functional as F

from utils.course.battery import ALL_COUNTS, NOT_TRAINED, NO_MATRIX, NO_SCALE, NO_THRESHOLD
from utils.course.cases import normal, right_padded, shuffle, uniform, wrong_ways
from utils.course.exercises import Case, Exercise


def _labels(rng: torch.Generator, zeros: int, ones: int) -> Tensor:
    return shuffle(rng, [0] * zeros + [1] * ones)


# --- pool_scores -------------------------------------------------------------------------------------------


def _pool_cases(rng: torch.Generator) -> Iterator[Case]:
    def padded(lengths: list[int], pos: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
        """Scores on either side of zero; the padding is larger than any of them, and the last token never the largest."""
        mask = right_padded(lengths, pos)
        scores = normal(rng, len(lengths), pos, dtype=dtype) - 0.5
        for row, length in enumerate(lengths):
            scores[row, length - 1] -= 2
        return torch.where(mask, scores, torch.tensor(7.0, dtype=dtype)), mask

    yield Case("3 texts of 2 to 5 tokens", *padded([4, 2, 5], 5), "mean")
    yield Case("3 texts, the largest", *padded([3, 5, 2], 6), "max")
    yield Case("3 texts, the last, float32", *padded([3, 2, 4], 6, torch.float32), "last")
    scores, mask = padded([4, 2, 5], 6)
    yield Case("how is left out", scores, mask)
    holes = mask.clone()
    holes[:, 0] = False
    holes[2, 2] = False
    for how in ("mean", "last", "max"):
        yield Case(f"the first token does not count, nor one in the middle: {how}", scores - 9, holes, how)
    for how in ("mean", "last", "max"):
        yield Case(f"padding on the left: {how}", scores.flip(1), mask.flip(1), how)
    yield Case("all scores negative", -1 - uniform(rng, 2, 4), right_padded([3, 2], 4), "max").of("negative")
    yield Case("two leading axes", scores.view(1, 3, 6).repeat(2, 1, 1) * torch.tensor([1.0, 2.0])[:, None, None], mask.expand(2, 3, 6), "mean")
    yield Case("one text, no leading axis", scores[0], mask[0], "last")
    for how in ("mean", "max", "last"):
        yield Case(f"the padding is NaN: {how}", torch.where(mask, scores, torch.nan), mask, how).of("nan")
    yield Case("one token", torch.tensor([[0.7]], dtype=torch.float64), torch.tensor([[True]]), "last").of("extreme")
    yield Case("no text", torch.zeros(0, 4, dtype=torch.float64), torch.zeros(0, 4, dtype=torch.bool), "mean").of("extreme")
    yield Case("an unknown how", scores, mask, "median").of("errors")
    yield Case("a text without tokens", scores, mask & torch.tensor([True, False, True])[:, None], "mean").of("errors")


pool_scores = Exercise(
    "pool_scores",
    without={**NOT_TRAINED, **NO_THRESHOLD},
    difficulty=2,
    importance=5,
    minutes=12,
    learn="How a text gets one score out of many, without a word from its padding.",
    cases=_pool_cases,
    hints=(
        "Each of the three reads other tokens, and none may read padding. For each: which value could a padded place hold so that it "
        "changes nothing?",
        "Print `mask.sum(dim=-1)` and `mask.shape`. Is the last token that counts always at that number minus one? Look at a mask "
        "whose first token is False.",
        "A sum does not change by a 0, a maximum not by minus infinity: `masked_fill(~mask, ...)`. For the last, put every place's "
        "number where the mask is True and -1 elsewhere; which place is the largest?",
    ),
    verified="padding on either side, padding that is NaN, tokens that do not count in the middle, scores that are all negative.",
    next="put one bad word among twenty harmless ones. Which of the three still sees it?",
)


def _pool(scores, mask, how="mean", *, fill=0.0, floor=-math.inf, divide="mask", last="place"):
    if not mask.any(-1).all() and divide == "mask":
        raise ValueError("a text of which no token counts has no score")
    if how not in ("last", "mean", "max"):
        raise ValueError("how must be 'last', 'mean' or 'max'")
    if how == "mean":
        total = scores.masked_fill(~mask, fill).sum(-1) if fill is not None else (scores * mask).sum(-1)
        return total / (mask.sum(-1) if divide == "mask" else scores.shape[-1])
    if how == "max":
        return scores.masked_fill(~mask, floor).amax(-1) if floor is not None else scores.amax(-1)
    if last == "column":
        return scores[..., -1]
    if last == "count":
        return scores.gather(-1, mask.sum(-1, keepdim=True) - 1)[..., 0]
    places = torch.where(mask, torch.arange(mask.shape[-1]), -1).amax(-1, keepdim=True)
    return scores.gather(-1, places)[..., 0]


wrong_ways(pool_scores, _pool, {
    "the-last-column": ({"last": "column"}, "Your last token is the last column. In a padded batch that is padding for most texts: find "
                        "the last place where the mask is True."),
    "last-by-count": ({"last": "count"}, "You took the token at the number of counting tokens minus one. That is the last one only if "
                      "they stand at the front without a gap: find the place itself."),
    "maximum-over-padding": ({"floor": None}, "Your maximum looks at the padding too. Whatever stands there may be larger than every real score."),
    "padding-is-zero": ({"floor": 0.0}, "Your maximum treats padding as a score of 0. Where all real scores are negative, it returns that 0."),
    "divided-by-the-width": ({"divide": "width"}, "You divided by the width of the batch. Each text has its own number of tokens that count."),
    "times-the-mask": ({"fill": None}, "You multiplied by the mask. NaN times 0 is NaN: fill the padding with a number before you add."),
})


@pool_scores.mistake("mean-over-everything", "Your mean is over all columns, padding included: the mask is not used there.")
def _(scores, mask, how="mean"):
    return _pool(scores, mask, how) if how != "mean" else _pool(scores, mask, how) * 0 + scores.mean(-1)


@pool_scores.mistake("mean-by-default-only", "You return the mean whatever `how` says. Try the same scores with \"max\" and \"last\".")
def _(scores, mask, how="mean"):
    _pool(scores, mask, how)
    return _pool(scores, mask, "mean")


@pool_scores.mistake("no-complaint", "An unknown `how`, or a text of which no token counts, should raise a ValueError: a number that means "
                     "nothing would be trusted.")
def _(scores, mask, how="mean"):
    if how not in ("last", "max"):
        return scores.masked_fill(~mask, 0).sum(-1) / mask.sum(-1).clamp(min=1)
    return _pool(scores, mask, how)


@pool_scores.variant
def _(scores, mask, how="mean"):
    flat, keep = scores.reshape(-1, scores.shape[-1]), mask.reshape(-1, mask.shape[-1])
    if how not in ("last", "mean", "max") or not keep.any(-1).all():
        raise ValueError("how must be 'last', 'mean' or 'max'" if how not in ("last", "mean", "max") else "a text of which no token counts has no score")
    found = scores.new_zeros(len(flat))
    for i, (row, kept) in enumerate(zip(flat, keep)):
        real = row[kept]
        found[i] = {"mean": real.mean(), "max": real.max(), "last": real[-1]}[how]
    return found.view(scores.shape[:-1])


@pool_scores.variant
def _(scores, mask, how="mean"):
    if not mask.any(-1).all():
        raise ValueError("a text of which no token counts has no score")
    if how == "mean":
        return torch.where(mask, scores, torch.nan).nanmean(-1)
    if how == "max":
        return torch.where(mask, scores, torch.finfo(scores.dtype).min).max(-1).values
    if how == "last":
        at = mask.shape[-1] - 1 - mask.flip(-1).long().argmax(-1, keepdim=True)
        return scores.take_along_dim(at, -1).squeeze(-1)
    raise ValueError("how must be 'last', 'mean' or 'max'")


@pool_scores.variant
def _(scores, mask, how="mean"):
    if how not in {"last", "mean", "max"}:
        raise ValueError("how must be 'last', 'mean' or 'max'")
    if (mask.sum(-1) == 0).any():
        raise ValueError("a text of which no token counts has no score")
    clean = scores.nan_to_num(nan=0.0)
    if how == "mean":
        return torch.einsum("...p,...p->...", clean, mask.to(scores.dtype)) / mask.sum(-1)
    weight = mask.to(scores.dtype).cumsum(-1)
    if how == "last":
        is_last = mask & (weight == weight[..., -1:])
        return (clean * is_last).sum(-1)
    return (clean + torch.where(mask, 0.0, -math.inf)).max(-1)[0].to(scores.dtype)


# --- attention_pool ----------------------------------------------------------------------------------------


def _attention_cases(rng: torch.Generator) -> Iterator[Case]:
    def case(label: str, lengths: list[int], pos: int, d_model: int, dtype: torch.dtype = torch.float64, padding: float = 3.0) -> Case:
        mask = right_padded(lengths, pos)
        acts = normal(rng, len(lengths), pos, d_model, dtype=dtype)
        acts[~mask] = padding
        return Case(label, acts, mask, normal(rng, d_model, dtype=dtype), normal(rng, d_model, dtype=dtype) + 0.5)

    yield case("3 texts of 2 to 5 tokens, 4 dimensions", [4, 2, 5], 5, 4)
    yield case("2 texts, 7 dimensions, float32", [3, 6], 6, 7, torch.float32)
    nan = case("the padding is NaN", [3, 1, 4], 5, 3, padding=math.nan)
    yield nan.of("nan")
    same = case("the padding is NaN, and the gradient", [3, 1, 4], 5, 3, padding=math.nan)
    yield same.with_gradient(query=2, value=3).of("nan")
    acts, mask, query, value = case("", [3, 5, 2], 5, 4).args
    yield Case("a query of zeros", acts, mask, torch.zeros_like(query), value).of("extreme")
    yield Case("a query so long that one token takes all", acts, mask, 1000 * query, value).of("extreme")
    yield Case("padding on the left", acts.flip(1), mask.flip(1), query, value)
    yield Case("one text, one token", acts[:1, :1], mask[:1, :1], query, value).of("extreme")
    yield Case("no text", acts[:0], mask[:0], query, value).of("extreme")


attention_pool = Exercise(
    "attention_pool",
    without={**NO_THRESHOLD},
    difficulty=3,
    importance=5,
    minutes=15,
    learn="How a probe finds the one token that matters, with one direction more.",
    cases=_attention_cases,
    trained=("query", "value"),
    scaled=("value",),
    hints=(
        "Two numbers per token: how much it counts, and what it says. The first becomes a share by a softmax, the second is a probe's score.",
        "`acts @ query` is [batch, pos]. Over which axis do the shares of one text add up to 1, and what must a padded token's logit be "
        "so that its share is exactly 0?",
        "Fill padded activations with 0 first (a share of 0 times NaN is NaN), then `masked_fill(~mask, -inf)` on the logits, softmax over "
        "positions, times `acts @ value`, and add up.",
    ),
    verified="shares over real tokens only, padding that is NaN, a query of zeros (the mean) and a long one (the maximum); the gradient of both directions.",
    next="print the shares of one text: which word does the probe listen to?",
)


def _attend(acts, mask, query, value, *, clean=True, fill=-math.inf, axis=-1, scale=1.0, first=None, normalise=True):
    kept = acts.masked_fill(~mask[..., None], 0) if clean else acts
    logits = kept @ (query if first is None else first(query, value)) / scale
    logits = logits.masked_fill(~mask, fill) if fill is not None else logits
    shares = logits.softmax(axis) if normalise else logits.masked_fill(~mask, -math.inf).exp()
    return (shares * (kept @ value)).sum(-1)


wrong_ways(attention_pool, _attend, {
    "padding-gets-a-share": ({"fill": None}, "Padded tokens take part in the softmax: a logit of 0 is a share like any other. Mask the logits "
                             "before the softmax."),
    "padding-at-zero": ({"fill": -1.0}, "You mask with a small number. Its exponential is no zero: use minus infinity."),
    "shares-over-the-batch": ({"axis": 0, "fill": -1e9}, "Your softmax runs over the texts. The shares of one text's tokens must add up to 1: check the axis."),
    "nan-survives": ({"clean": False}, "A share of 0 times NaN is NaN, in the score or in the gradient. Clear the padded activations before the first product."),
    "value-asks-too": ({"first": lambda query, value: value}, "The value decides the shares as well, and the query is not used. The two directions have two jobs."),
    "shares-not-normalised": ({"normalise": False}, "Your weights do not add up to 1: a text with more tokens gets a larger score. Divide by their sum (softmax does)."),
    "weights-lack-temperature": ({"scale": 2.0}, "Your logits are scaled. The specification takes activation times query as it is."),
})


@attention_pool.mistake("query-and-value-swapped", "Query and value have changed places: the one decides the shares, the other what is added up.")
def _(acts, mask, query, value):
    return _attend(acts, mask, value, query)


@attention_pool.mistake("hard-maximum", "You take the value of the token with the largest logit. That has no gradient in the query, so that nothing can be "
                        "trained: weigh the tokens by their softmax.")
def _(acts, mask, query, value):
    kept = acts.masked_fill(~mask[..., None], 0)
    at = (kept @ query).masked_fill(~mask, -math.inf).argmax(-1, keepdim=True)
    return (kept @ value).gather(-1, at)[:, 0] + 0 * query.sum()


@attention_pool.mistake("without-a-graph", "No gradient reaches query or value. Leave out `detach`, `no_grad` and `.data`: the probe is trained through this function.")
def _(acts, mask, query, value):
    return _attend(acts, mask, query.detach(), value.detach())


@attention_pool.variant
def _(acts, mask, query, value):
    kept = torch.where(mask[..., None], acts, 0)
    logits = torch.einsum("bpd,d->bp", kept, query) + torch.where(mask, 0.0, -math.inf).to(acts.dtype)
    pooled = torch.einsum("bp,bpd->bd", F.softmax(logits, dim=1), kept)
    return pooled @ value


@attention_pool.variant
def _(acts, mask, query, value):
    found = []
    for row, kept in zip(acts, mask):
        real = row[kept]
        found.append(torch.softmax(real @ query, dim=0) @ (real @ value))
    return torch.stack(found) if found else acts.new_zeros(0)


@attention_pool.variant
def _(acts, mask, query, value):
    kept = acts.masked_fill(~mask.unsqueeze(-1), 0)
    logits = (kept @ query).masked_fill(~mask, -math.inf)
    shares = (logits - logits.logsumexp(dim=1, keepdim=True)).exp()
    return torch.linalg.vecdot(shares, kept @ value)


# --- threshold_for_budget ----------------------------------------------------------------------------------


def _threshold_cases(rng: torch.Generator) -> Iterator[Case]:
    yield Case("20 scores, 3 may raise an alarm", normal(rng, 20), 0.15)
    yield Case("37 scores, a share that does not divide them, float32", normal(rng, 37, dtype=torch.float32), 0.1)
    yield Case("all negative", -1 - uniform(rng, 30), 0.1).of("negative")
    ties = torch.tensor([3.0, 1.0, 3.0, 2.0, 3.0, 0.0, 2.0, 1.0, 0.0, -1.0], dtype=torch.float64)[torch.randperm(10, generator=rng)]
    yield Case("three winners are equal, one alarm is allowed", ties, 0.1).of("boundary")
    yield Case("three winners are equal, three are allowed", ties, 0.3).of("boundary")
    yield Case("100 scores, a budget whose product is just below a whole number", normal(rng, 100), 0.29).of("boundary")
    yield Case("no alarm is allowed", normal(rng, 9), 0.0).of("extreme")
    yield Case("fewer scores than one alarm needs", normal(rng, 30), 0.01).of("extreme")
    yield Case("one score", torch.tensor([0.3], dtype=torch.float64), 0.9).of("extreme")
    yield Case("all scores equal", torch.full((7,), 2.5, dtype=torch.float64), 0.5).of("extreme")
    yield Case("a budget of everything", normal(rng, 5), 1.0).of("errors")
    yield Case("a budget below zero", normal(rng, 5), -0.1).of("errors")
    yield Case("a score that is NaN", torch.tensor([0.1, math.nan, 0.4, 0.2]), 0.25).of("errors")
    yield Case("no scores", torch.zeros(0), 0.1).of("errors")


threshold_for_budget = Exercise(
    "threshold_for_budget",
    without={**NOT_TRAINED, **NO_MATRIX, **ALL_COUNTS},
    difficulty=2,
    importance=5,
    minutes=10,
    learn="How to set a threshold by what alarms cost, on text that has nothing to do with harm.",
    cases=_threshold_cases,
    scaled=("scores",),
    hints=(
        "Sort the page's eight scores, the largest first. At which place, counted from 0, does the 0.5 stand? And what has that place "
        "to do with the two alarms that are allowed?",
        "For 20 scores and a budget of 0.15, print `budget * len(scores)`. And for 37 scores and 0.1? An alarm too many breaks the promise: "
        "which way must that number be rounded?",
        "`math.floor(budget * n + 1e-9)` is the number of alarms allowed, and the score at that place of the descending line is the lowest "
        "threshold that keeps to it. What do equal scores change?",
    ),
    verified="shares that do not divide the number, equal scores at the cut, no alarm allowed, a budget that rounding would cut short.",
    next="1% of 300 texts is three texts. How sure can anyone be of a rate that was seen three times?",
)


def _budget(scores, budget, *, shift=0, up=False, exact=False, ascending=False, check=True):
    if check and not 0 <= budget < 1:
        raise ValueError("the budget is a share, at least 0 and less than 1")
    if check and (not len(scores) or scores.isnan().any()):
        raise ValueError("a threshold needs scores, none of them NaN")
    product = budget * len(scores)
    allowed = math.ceil(product - 1e-9) if up else math.floor(product + (0 if exact else 1e-9))
    place = min(max(allowed + shift, 0), len(scores) - 1)
    return scores.sort(descending=not ascending).values[place].item()


wrong_ways(threshold_for_budget, _budget, {
    "one-place-too-high": ({"shift": -1}, "Your threshold is the last score that may raise an alarm, and it raises none: an alarm must be strictly "
                           "above. You use less than the budget; look one place further down."),
    "one-place-too-low": ({"shift": 1}, "One text more than allowed is above your threshold. Places are counted from 0."),
    "rounded-up": ({"up": True}, "You rounded the number of alarms up. A budget that is overdrawn by one text is overdrawn."),
    "floating-point-budget": ({"exact": True}, "0.29 * 100 is 28.999999999999996, and you allow 28 alarms. The specification says what counts as a whole number."),
    "least-suspicious-first": ({"ascending": True}, "You sorted from small to large, so that nearly every text is above your threshold. Alarms are the largest scores."),
    "no-complaint": ({"check": False}, "An impossible budget or a NaN goes through. NaN sorts as the largest score of all, and the threshold would be nonsense: raise a ValueError."),
})


@threshold_for_budget.mistake("interpolated", "You interpolate between two scores, as `quantile` does. Then more texts than the budget allows can lie above, or the "
                              "threshold is not the lowest one: it must be one of the scores.")
def _(scores, budget):
    _budget(scores, budget)
    return scores.quantile(1 - budget).item()


@threshold_for_budget.mistake("median-of-the-normal", "Your threshold assumes that scores are normally distributed. The alarms come from the tail, where they are not: count.")
def _(scores, budget):
    _budget(scores, budget)
    z = math.sqrt(2) * float(torch.erfinv(torch.tensor(1 - 2 * max(budget, 1e-6), dtype=torch.float64)))
    return (scores.mean() + z * scores.std(correction=0)).item()


@threshold_for_budget.variant
def _(scores, budget):
    if budget < 0 or budget >= 1:
        raise ValueError("the budget is a share, at least 0 and less than 1")
    if scores.numel() == 0 or bool(torch.isnan(scores).any()):
        raise ValueError("a threshold needs scores, none of them NaN")
    for candidate in scores.unique():  # from small to large
        if int((scores > candidate).sum()) <= budget * len(scores) + 1e-9:
            return float(candidate)


@threshold_for_budget.variant
def _(scores, budget):
    if not 0 <= budget < 1:
        raise ValueError("the budget is a share, at least 0 and less than 1")
    if not len(scores) or scores.isnan().any():
        raise ValueError("a threshold needs scores, none of them NaN")
    allowed = int(budget * len(scores) + 1e-9)
    return float(scores.topk(allowed + 1).values[-1])


@threshold_for_budget.variant
def _(scores, budget):
    if not 0 <= budget < 1:
        raise ValueError("the budget is a share, at least 0 and less than 1")
    if not len(scores) or scores.isnan().any():
        raise ValueError("a threshold needs scores, none of them NaN")
    ordered = sorted(scores.tolist())
    return ordered[len(ordered) - 1 - math.floor(budget * len(ordered) + 1e-9)]


# --- recall_with_interval ----------------------------------------------------------------------------------


def _recall_cases(rng: torch.Generator) -> Iterator[Case]:
    def mixed(zeros: int, ones: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
        labels = _labels(rng, zeros, ones)
        return (normal(rng, zeros + ones) + labels).to(dtype), labels

    def with_hits(zeros: int, ones: int, hits: int) -> tuple[Tensor, Tensor]:
        """So many of class 1 above 0.5, and two thirds of class 0 as well."""
        labels = _labels(rng, zeros, ones)
        scores = torch.zeros(zeros + ones, dtype=torch.float64)
        for label, above in ((0, 2 * zeros // 3), (1, hits)):
            rows = (labels == label).nonzero()[:, 0]
            scores[rows] = torch.where(torch.arange(len(rows)) < above, 0.9, 0.1).double() + 0.05 * uniform(rng, len(rows))
        return scores, labels

    yield Case("11 harmless texts, 20 harmful ones, 13 found", *with_hits(11, 20, 13), 0.5)
    yield Case("float32, another threshold", *mixed(9, 25, torch.float32), 0.75)
    yield Case("a coverage of 0.8", *with_hits(6, 17, 12), 0.5, 0.8)
    yield Case("scores on the threshold", torch.tensor([0.5, 0.5, 0.7, 0.2, 0.9, 0.5], dtype=torch.float64), torch.tensor([1, 0, 1, 1, 1, 1]), 0.5).of("boundary")
    yield Case("a threshold below zero", *mixed(5, 12), -0.4).of("negative")
    yield Case("none found", *with_hits(7, 15, 0), 0.5).of("extreme")
    yield Case("all found", *with_hits(7, 15, 15), 0.5).of("extreme")
    yield Case("one harmful text", *with_hits(5, 1, 1), 0.5).of("extreme")
    yield Case("no text of class 1", normal(rng, 4), torch.zeros(4, dtype=torch.long), 0.0).of("errors")


recall_with_interval = Exercise(
    "recall_with_interval",
    without={**NOT_TRAINED, **NO_SCALE, **NO_MATRIX, **ALL_COUNTS},
    difficulty=3,
    importance=5,
    minutes=15,
    learn="What a share of a few dozen texts is worth, exactly, also at 0 and at 1.",
    cases=_recall_cases,
    hints=(
        "Recall asks only the harmful texts. Count them, count the flagged ones among them, and the rest is two quantiles.",
        "Print `k` and `m` for a case in which all are found. Which parameter of which beta distribution would be 0, and what does the "
        "specification say instead?",
        "`beta.ppf(a / 2, k, m - k + 1)` and `beta.ppf(1 - a / 2, k + 1, m - k)`, with `a = 1 - coverage`. Where k is 0 the lower end is 0; "
        "where k is m the upper end is 1.",
    ),
    verified="harmful texts alone, scores on the threshold, another coverage, none found and all found.",
    next="all of 15 found: how low could the true recall be?",
)


def _recall(scores, labels, threshold, coverage=0.95, *, at=False, rows="ones", kind="exact", tails=2, edges=True):
    chosen = {"ones": scores[labels == 1], "all": scores, "zeros": scores[labels == 0]}[rows]
    if not (labels == 1).any():
        raise ValueError("recall needs at least one text of class 1")
    m, k = len(chosen), int(((chosen >= threshold) if at else (chosen > threshold)).sum())
    a = (1 - coverage) / tails
    if kind == "normal":
        z = -float(torch.special.ndtri(torch.tensor(a, dtype=torch.float64)))
        half = z * math.sqrt(k / m * (1 - k / m) / m)
        return k / m, k / m - half, k / m + half
    if kind == "wilson":
        found = binomtest(k, m).proportion_ci(coverage, method="wilson")
        return k / m, float(found.low), float(found.high)
    low = float(beta.ppf(a, k, m - k + 1)) if k or not edges else 0.0
    high = float(beta.ppf(1 - a, k + 1, m - k)) if k < m or not edges else 1.0
    return k / m, low, high


wrong_ways(recall_with_interval, _recall, {
    "alarm-at-the-threshold": ({"at": True}, "A score equal to the threshold is no alarm: strictly above, as when the budget was set."),
    "share-of-all-texts": ({"rows": "all"}, "You count all texts. Recall asks how many of the *harmful* ones are found."),
    "false-alarms-instead": ({"rows": "zeros"}, "These are the harmless texts: what you return is the false alarm rate."),
    "normal-interval": ({"kind": "normal"}, "Your interval is the normal approximation. It has no width when all or none are found, and leaves 0 to 1 near the ends."),
    "wilson-interval": ({"kind": "wilson"}, "This is Wilson's interval. The specification asks for Clopper and Pearson's, from two beta distributions."),
    "whole-tail-on-each-side": ({"tails": 1}, "You leave the whole 1 - coverage on each side, so that the interval covers too little. Each side gets half."),
    "nan-at-the-edge": ({"edges": False}, "Where none or all are found, a parameter of the beta distribution is 0 and its quantile NaN. The specification says what the end is then."),
})


@recall_with_interval.mistake("coverage-ignored", "Your interval is always the 95% one: `coverage` is not used.")
def _(scores, labels, threshold, coverage=0.95):
    return _recall(scores, labels, threshold)


@recall_with_interval.mistake("precision", "You divide by the number of alarms. That is precision: of the flagged, how many are harmful. Divide by the harmful.")
def _(scores, labels, threshold, coverage=0.95):
    _recall(scores, labels, threshold)
    flagged = labels[scores > threshold]
    k, m = int(flagged.sum()), max(len(flagged), 1)
    found = binomtest(k, m).proportion_ci(coverage, method="exact")
    return k / m, float(found.low), float(found.high)


@recall_with_interval.variant
def _(scores, labels, threshold, coverage=0.95):
    hits = (scores > threshold)[labels == 1]
    if not len(hits):
        raise ValueError("recall needs at least one text of class 1")
    found = binomtest(int(hits.sum()), len(hits)).proportion_ci(coverage, method="exact")
    return hits.double().mean().item(), float(found.low), float(found.high)


@recall_with_interval.variant
def _(scores, labels, threshold, coverage=0.95):
    harmful = [float(s) for s, label in zip(scores, labels) if label == 1]
    if not harmful:
        raise ValueError("recall needs at least one text of class 1")
    k, m, tail = sum(s > threshold for s in harmful), len(harmful), 0.5 - coverage / 2
    low = 0.0 if k == 0 else float(1 - beta.ppf(1 - tail, m - k + 1, k))  # the mirrored distribution
    high = 1.0 if k == m else float(beta.isf(tail, k + 1, m - k))
    return k / m, low, high


@recall_with_interval.variant
def _(scores, labels, threshold, coverage=0.95):
    values, classes = scores.numpy(), labels.numpy()
    m = int(np.count_nonzero(classes == 1))
    if m == 0:
        raise ValueError("recall needs at least one text of class 1")
    k = int(np.count_nonzero(values[classes == 1] > threshold))
    ends = np.nan_to_num(beta.ppf([(1 - coverage) / 2, (1 + coverage) / 2], [k, k + 1], [m - k + 1, m - k]), nan=-1)
    return k / m, max(float(ends[0]), 0.0), float(ends[1]) if ends[1] >= 0 else 1.0


# --- precision_at_base_rate --------------------------------------------------------------------------------


def _precision_cases(rng: torch.Generator) -> Iterator[Case]:
    def draw(low: float, high: float) -> float:
        return float(uniform(rng, 1, low=low, high=high))

    yield Case("one in twenty is harmful", draw(0.6, 0.9), draw(0.02, 0.1), 0.05)
    yield Case("one in a thousand", draw(0.7, 0.95), draw(0.005, 0.02), 0.001)
    yield Case("half of the traffic", draw(0.3, 0.6), draw(0.1, 0.3), 0.5)
    yield Case("no false alarm", draw(0.1, 0.9), 0.0, 0.001).of("extreme")
    yield Case("nothing found, but false alarms", 0.0, 0.2, 0.01).of("extreme")
    yield Case("all traffic is harmful", 0.4, 0.3, 1.0).of("extreme")
    yield Case("no traffic is harmful", 0.4, 0.3, 0.0).of("extreme")
    yield Case("no alarm ever", 0.0, 0.0, 0.1).of("errors")
    yield Case("harm never comes, and nothing else rings", 0.4, 0.0, 0.0).of("errors")
    yield Case("all of it is harm, and none is found", 0.0, 0.4, 1.0).of("errors")


precision_at_base_rate = Exercise(
    "precision_at_base_rate",
    without={**NOT_TRAINED, **NO_SCALE, **NO_MATRIX, **ALL_COUNTS, **NO_THRESHOLD, "negative": "shares are never negative"},
    difficulty=1,
    importance=5,
    minutes=8,
    learn="Why an excellent monitor is wrong nearly every time that it speaks.",
    cases=_precision_cases,
    hints=(
        "Imagine 100,000 texts. How many are harmful, and how many of those raise an alarm? How many are not, and how many of *those* do?",
        "With a base rate of 0.01, a recall of 0.9 and false alarms of 0.1: 900 alarms are right. How many are wrong, and of what "
        "number is the answer a share?",
        "`right = recall * base_rate`, `wrong = false_alarm_rate * (1 - base_rate)`: which share of all alarms is right?",
    ),
    verified="rare harm, no false alarm, nothing found, only harm, and no alarm at all.",
    next="put in your probe's own two numbers and one in a thousand.",
)


def _precise(recall, false_alarm_rate, base_rate, *, weight="both", check=True, other=None):
    right = recall * (base_rate if weight in ("both", "right") else 1)
    wrong = false_alarm_rate * ((1 - base_rate) if weight == "both" else (1 if weight in ("none", "right") else base_rate))
    if right + wrong == 0:
        if check:
            raise ValueError("without alarms there is no precision")
        return 0.0
    return (other or (lambda r, w: r / (r + w)))(right, wrong)


wrong_ways(precision_at_base_rate, _precise, {
    "as-if-half-were-harmful": ({"weight": "none"}, "You compare the two rates as if harmful and harmless texts were equally common. The base rate is the point."),
    "harmless-not-weighted": ({"weight": "right"}, "The false alarms are not weighted: harmless texts make up 1 minus the base rate."),
    "both-by-the-base-rate": ({"weight": "same"}, "False alarms come from the *harmless* texts. Weigh them by 1 minus the base rate."),
    "odds": ({"other": lambda r, w: r / w if w else math.inf}, "You divide right alarms by wrong ones: those are odds. A share is out of all alarms."),
    "wrong-alarms": ({"other": lambda r, w: w / (r + w)}, "This is the share of alarms that are wrong."),
    "zero-without-alarms": ({"check": False}, "Without any alarm there is no share: raise a ValueError. A 0 would say that every alarm is wrong."),
})


@precision_at_base_rate.variant
def _(recall, false_alarm_rate, base_rate):
    alarms = recall * base_rate + false_alarm_rate - false_alarm_rate * base_rate
    if not alarms:
        raise ValueError("without alarms there is no precision")
    return recall * base_rate / alarms


@precision_at_base_rate.variant
def _(recall, false_alarm_rate, base_rate):
    table = np.array([recall, false_alarm_rate]) * np.array([base_rate, 1 - base_rate])
    if table.sum() == 0:
        raise ValueError("without alarms there is no precision")
    return float(table[0] / table.sum())


@precision_at_base_rate.variant
def _(recall, false_alarm_rate, base_rate):
    if recall * base_rate == 0:  # Bayes by odds, which need a true alarm to divide by
        if false_alarm_rate * (1 - base_rate) == 0:
            raise ValueError("without alarms there is no precision")
        return 0.0
    return 1 / (1 + false_alarm_rate * (1 - base_rate) / (recall * base_rate))


# --- calibration_curve -------------------------------------------------------------------------------------


def _curve_cases(rng: torch.Generator) -> Iterator[Case]:
    def drawn(n: int, low: float = 0.0, high: float = 1.0, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
        p = uniform(rng, n, low=low, high=high)
        return p.to(dtype), (uniform(rng, n) < p**2).long()

    yield Case("40 texts, 4 bins", *drawn(40), 4)
    yield Case("60 texts, 5 bins, float32", *drawn(60, dtype=torch.float32), 5)
    yield Case("the number of bins is left out", *drawn(90))
    yield Case("nothing in the lower half", *drawn(30, 0.55, 0.95), 4).of("extreme")
    edges = torch.tensor([0.0, 0.25, 0.25, 0.5, 0.75, 1.0, 1.0, 0.1], dtype=torch.float64)
    order = torch.randperm(8, generator=rng)
    yield Case("on the edges", edges[order], torch.tensor([0, 1, 0, 1, 1, 1, 0, 1])[order], 4).of("boundary")
    yield Case("one bin", *drawn(12), 1).of("extreme")
    yield Case("no text", torch.zeros(0, dtype=torch.float64), torch.zeros(0, dtype=torch.long), 3).of("extreme")
    yield Case("a probability above 1", torch.tensor([0.2, 1.5]), torch.tensor([0, 1]), 2).of("errors")
    yield Case("a log-odds", torch.tensor([-0.7, 0.5]), torch.tensor([0, 1]), 2).of("negative")


calibration_curve = Exercise(
    "calibration_curve",
    ends={"n_bins": lambda a: (1, 4 * len(a["probabilities"]))},
    without={**NOT_TRAINED, **NO_SCALE, **NO_MATRIX, **ALL_COUNTS},
    difficulty=3,
    importance=4,
    minutes=12,
    learn="Whether 90% sure is right nine times in ten.",
    cases=_curve_cases,
    hints=(
        "Three questions about each bin: what did the probe say there on average, how often did it come true, how many texts are there?",
        "With 4 bins the inner edges are 0.25, 0.5 and 0.75. Print `torch.bucketize(torch.tensor([0.25]), edges)` with and without "
        "`right=True`. Which of the two puts 0.25 into the second bin?",
        "Find every text's bin, then add up probabilities, labels and ones per bin (`index_add`, `bincount`) and divide. What does 0 / 0 "
        "give for an empty bin, and is that what is asked for?",
    ),
    verified="probabilities on the edges and at 1, empty bins, one bin, probabilities that are none.",
    next="look at the last bin: of the texts that it calls certain, which share is harmful?",
)


def _curve(probabilities, labels, n_bins=10, *, right=False, said="mean", came="share", empty=math.nan, check=True, quantiles=False):
    if check and len(probabilities) and not (probabilities.min() >= 0 and probabilities.max() <= 1):
        raise ValueError("probabilities lie between 0 and 1")
    out = [torch.full((n_bins,), empty, dtype=probabilities.dtype) for _ in range(2)]
    count = torch.zeros(n_bins, dtype=torch.long)
    rank = probabilities.argsort().argsort() * n_bins // max(len(probabilities), 1)
    for j in range(n_bins):
        low, high = j / n_bins, (j + 1) / n_bins
        if quantiles:
            inside = rank == j
        elif right:
            inside = (probabilities > low) & (probabilities <= high) | (probabilities == 0) & (j == 0)
        else:
            inside = (probabilities >= low) & ((probabilities < high) | (probabilities == 1) & (j == n_bins - 1))
        count[j] = inside.sum()
        if inside.any():
            out[0][j] = probabilities[inside].mean() if said == "mean" else (low + high) / 2
            hits = labels[inside] == 1
            out[1][j] = {"share": hits.double().mean(), "zeros": 1 - hits.double().mean(), "count": hits.sum(),
                         "of all": hits.sum() / max(int((labels == 1).sum()), 1),
                         "right": ((probabilities[inside] > 0.5) == hits).double().mean()}[came]
    return out[0], out[1], count


wrong_ways(calibration_curve, _curve, {
    "right-end-belongs": ({"right": True}, "Your bins hold their right end. A probability on an edge belongs to the bin above it, and only the last bin holds 1."),
    "middle-of-the-bin": ({"said": "middle"}, "You return the middle of the bin. The curve needs the mean of what was said there."),
    "accuracy-in-the-bin": ({"came": "right"}, "You return the share of texts that the probe gets right. Calibration asks for the share that is of class 1: they differ below 0.5."),
    "share-of-class-0": ({"came": "zeros"}, "Your second result is the share of class 0. Where every label is 1 it says 0."),
    "counts-instead-of-shares": ({"came": "count"}, "You return how many texts of class 1 a bin has. Divide by the number of texts in it."),
    "share-of-all-class-1": ({"came": "of all"}, "You divide by all texts of class 1. Divide by the texts of the bin."),
    "zero-for-an-empty-bin": ({"empty": 0.0}, "An empty bin has no mean: NaN. A 0 would be drawn as a point, and as a bad one."),
    "no-complaint": ({"check": False}, "Numbers outside 0 to 1 go through. Whoever passes log-odds by mistake should hear of it: raise a ValueError."),
    "bins-of-equal-size": ({"quantiles": True}, "Your bins hold equally many texts. The specification asks for bins of equal width."),
})


@calibration_curve.variant
def _(probabilities, labels, n_bins=10):
    return _curve(probabilities, labels, n_bins)


@calibration_curve.variant
def _(probabilities, labels, n_bins=10):
    if ((probabilities < 0) | (probabilities > 1)).any():
        raise ValueError("probabilities lie between 0 and 1")
    p = probabilities.numpy()
    place = np.minimum(np.digitize(p, np.linspace(0, 1, n_bins + 1)[1:-1].astype(p.dtype)), n_bins - 1)
    count = np.bincount(place, minlength=n_bins)
    with np.errstate(invalid="ignore"):
        said = np.bincount(place, weights=p, minlength=n_bins) / count
        came = np.bincount(place, weights=labels.numpy().astype(float), minlength=n_bins) / count
    return torch.from_numpy(said).to(probabilities.dtype), torch.from_numpy(came).to(probabilities.dtype), torch.from_numpy(count)


@calibration_curve.variant
def _(probabilities, labels, n_bins=10):
    if len(probabilities) and (probabilities.min() < 0 or probabilities.max() > 1):
        raise ValueError("probabilities lie between 0 and 1")
    edges = torch.arange(1, n_bins).to(probabilities.dtype) / n_bins
    place = (probabilities[:, None] >= edges).sum(1)
    member = (place[:, None] == torch.arange(n_bins)).to(probabilities.dtype)  # [n, n_bins]
    count = member.sum(0)
    return probabilities @ member / count, labels.to(probabilities.dtype) @ member / count, count.long()


# --- temperature_for ---------------------------------------------------------------------------------------


def _temperature_cases(rng: torch.Generator) -> Iterator[Case]:
    def drawn(n: int, true: float, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
        """Log-odds of a probe that is `true` times too sure."""
        z = 2 * normal(rng, n)
        labels = (uniform(rng, n) < z.sigmoid()).long()
        labels[:2] = torch.tensor([0, 1])
        return (true * z).to(dtype), labels

    grid = torch.tensor([4.0, 0.25, 1.0, 8.0, 0.5, 2.0, 16.0], dtype=torch.float64)
    yield Case("200 texts, a probe that is four times too sure", *drawn(200, 4.0), grid)
    yield Case("150 texts, one that is too modest, float32", *drawn(150, 0.4, torch.float32), grid.float())
    z = 60 * torch.tensor([1.0, 1.2, -1.1, -0.9, 1.4, -1.3, 1.5, 2.0], dtype=torch.float64)
    wrong = torch.tensor([1, 1, 0, 0, 1, 0, 1, 0])
    yield Case("log-odds past the sigmoid's range, one of them wrong", z, wrong, torch.tensor([1.0, 30.0, 300.0], dtype=torch.float64)).of("extreme")
    yield Case("log-odds of a thousand", 1000 * z / 60, wrong, torch.tensor([1.0, 10.0, 700.0, 1e5], dtype=torch.float64)).of("extreme")
    yield Case("a sure mistake, and no candidate that is modest", 10 * z, wrong, torch.tensor([1.0, 4.0, 2.0], dtype=torch.float64)).of("extreme")
    yield Case("all right: the lowest wins", z, (z > 0).long(), torch.tensor([20.0, 1.0, 50.0], dtype=torch.float64)).of("extreme")
    yield Case("all log-odds 0: every candidate is as good", torch.zeros(6, dtype=torch.float64), torch.tensor([0, 1, 1, 0, 1, 0]), grid).of("extreme")
    yield Case("one candidate", *drawn(20, 3.0), torch.tensor([7.0], dtype=torch.float64)).of("extreme")
    yield Case("a temperature of 0", *drawn(20, 3.0), torch.tensor([1.0, 0.0], dtype=torch.float64)).of("errors")


temperature_for = Exercise(
    "temperature_for",
    without={**NOT_TRAINED, **NO_SCALE, **NO_MATRIX, **ALL_COUNTS, **NO_THRESHOLD},
    difficulty=3,
    importance=4,
    minutes=12,
    learn="How one number makes a probe as modest as it should be, without changing whom it suspects.",
    cases=_temperature_cases,
    hints=(
        "For every candidate: divide the log-odds by it, and ask how surprised one is by the labels. The least surprised candidate wins.",
        "Print `torch.sigmoid(torch.tensor(200.0))` and the logarithm of 1 minus it. What would that loss be for a text that is harmless "
        "after all, and which function of torch computes it from the log-odds directly?",
        "`binary_cross_entropy_with_logits(logits / T, labels.to(logits.dtype))` is the mean negative log-likelihood. Collect one per "
        "candidate; which index does `argmin` return among equals?",
    ),
    verified="probes that are too sure and too modest, log-odds whose sigmoid rounds to 1, equal candidates, a candidate of 0.",
    next="compare the calibration curve before and after, and the AUROC before and after.",
)


def _cool(logits, labels, candidates, *, direction="divide", loss="nll", worst=False, check=True, flipped=False, position=False):
    if check and not (candidates > 0).all():
        raise ValueError("a temperature is above 0")
    best = []
    y = (1 - labels if flipped else labels).to(logits.dtype)
    for T in candidates:
        z = logits / T if direction == "divide" else logits * T
        p = z.sigmoid()
        best.append({
            "nll": lambda: F.binary_cross_entropy_with_logits(z, y).item(),
            "naive": lambda: float(-(y * p.log() + (1 - y) * (1 - p).log()).mean()),
            "clamped": lambda: F.binary_cross_entropy(p.clamp(1e-7, 1 - 1e-7), y).item(),
            "brier": lambda: ((p - y) ** 2).mean().item(),
            "accuracy": lambda: -((z > 0) == (y == 1)).double().mean().item(),
        }[loss]())
    index = int(np.nanargmax(best)) if worst else int(np.argmin([b if b == b else math.inf for b in best]))
    return index if position else candidates[index].item()


wrong_ways(temperature_for, _cool, {
    "multiplied": ({"direction": "multiply"}, "You multiply by the temperature. A high temperature makes modest: divide."),
    "probability-first": ({"loss": "naive"}, "You take the logarithm of a sigmoid. Where that has rounded to 0 or 1, the loss is infinite or NaN: compute it from the log-odds."),
    "clamped-probabilities": ({"loss": "clamped"}, "Clamping hides how wrong the surest mistakes are: all of them cost the same. Compute the loss from the log-odds."),
    "brier-score": ({"loss": "brier"}, "You minimise the squared error. The specification asks for the negative log-likelihood, which punishes sure mistakes harder."),
    "accuracy": ({"loss": "accuracy"}, "You choose by accuracy. No temperature changes it, so that the first candidate always wins."),
    "most-surprised": ({"worst": True}, "You return the candidate with the *highest* loss."),
    "labels-turned-round": ({"flipped": True}, "Your labels are turned round: log-odds above 0 speak for class 1."),
    "the-index": ({"position": True}, "You return the index. The temperature itself is asked for."),
    "no-complaint": ({"check": False}, "A temperature of 0 or less goes through: raise a ValueError."),
})


@temperature_for.mistake("last-of-equals", "Of equally good candidates the specification wants the first, and you return the last.")
def _(logits, labels, candidates):
    _cool(logits, labels, candidates)
    losses = [F.binary_cross_entropy_with_logits(logits / T, labels.to(logits.dtype)).item() for T in candidates]
    return candidates[max(i for i, loss in enumerate(losses) if loss == min(losses))].item()


@temperature_for.variant
def _(logits, labels, candidates):
    return _cool(logits, labels, candidates)


@temperature_for.variant
def _(logits, labels, candidates):
    if (candidates <= 0).any():
        raise ValueError("a temperature is above 0")
    signed = torch.where(labels == 1, logits, -logits)
    losses = F.softplus(-signed[:, None] / candidates[None, :]).mean(0)
    return float(candidates[losses.argmin()])


@temperature_for.variant
def _(logits, labels, candidates):
    if float(candidates.min()) <= 0:
        raise ValueError("a temperature is above 0")
    z, y = logits.double().numpy(), labels.double().numpy()
    best, lowest = None, math.inf
    for T in candidates.tolist():
        loss = float(np.mean(np.logaddexp(0, z / T) - y * z / T))
        if loss < lowest:
            best, lowest = T, loss
    return best


# --- cascade_cost ------------------------------------------------------------------------------------------


def _cascade_cases(rng: torch.Generator) -> Iterator[Case]:
    def drawn(zeros: int, ones: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
        labels = _labels(rng, zeros, ones)
        return ((normal(rng, zeros + ones) + 0.7 * labels).to(dtype), (normal(rng, zeros + ones) + 1.2 * labels).to(dtype), labels)

    cheap = torch.tensor([0.9, 0.9, 0.9, 0.1, 0.1, 0.9, 0.9, 0.1, 0.1, 0.1, 0.9], dtype=torch.float64)
    dear = torch.tensor([0.9, 0.9, 0.1, 0.9, 0.1, 0.9, 0.1, 0.9, 0.9, 0.1, 0.1], dtype=torch.float64)
    labels, order = torch.tensor([1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0]), torch.randperm(11, generator=rng)
    table = (cheap[order], dear[order], labels[order])
    yield Case("5 harmful texts, 6 harmless ones", *table, 0.5, 0.5)
    yield Case("a price for each check", *table, 0.5, 0.6, (0.25, 8.0))
    yield Case("40 texts, float32", *drawn(26, 14, torch.float32), 0.3, 0.5, (0.1, 2.0))
    yield Case("thresholds below zero", *drawn(13, 19), -0.3, -0.6).of("negative")
    yield Case("scores on the gate and on the threshold", torch.tensor([0.5, 0.9, 0.5, 0.9, 0.9], dtype=torch.float64),
               torch.tensor([0.9, 0.5, 0.9, 0.9, 0.5], dtype=torch.float64), torch.tensor([1, 1, 0, 1, 0]), 0.5, 0.5).of("boundary")
    yield Case("the dear check has run only where it was asked", table[0], torch.where(table[0] > 0.5, table[1], torch.nan), table[2], 0.5, 0.5).of("nan")
    yield Case("everything is passed on", *drawn(7, 5), -100.0, 0.4).of("extreme")
    yield Case("nothing is passed on", *drawn(7, 5), 100.0, 0.4, (0.5, 3.0)).of("extreme")
    yield Case("no harmful text", *drawn(6, 0), 0.0, 0.0).of("errors")
    yield Case("no harmless text", *drawn(0, 6), 0.0, 0.0).of("errors")


cascade_cost = Exercise(
    "cascade_cost",
    without={**NOT_TRAINED, **NO_SCALE, **NO_MATRIX},
    difficulty=2,
    importance=4,
    minutes=12,
    learn="What a dear monitor costs when a cheap one stands at the gate, and what the gate lets slip.",
    cases=_cascade_cases,
    hints=(
        "Follow one text: the gate, then perhaps the dear check. Who pays for what, and when is it flagged?",
        "`cheap > gate` and `dear > threshold` are [n] each. Which of the two decides the bill, and which do both decide together?",
        "`flagged = passed_on & (dear > threshold)`. Its mean over the harmful texts is the recall, over the harmless ones the false "
        "alarms; the bill is the cheap price plus the share that was passed on times the dear one.",
    ),
    verified="the gate and the threshold strictly, a price for each check, dear scores that were never computed, a class that is missing.",
    next="raise the gate until a tenth of the traffic is passed on. What has happened to recall?",
)


def _bill(cheap, dear, labels, gate, threshold, costs=(0.0, 1.0), *, either=False, at=False, who="all", skip=None, shares="class", check=True, clean=False):
    harmful = labels == 1
    if check and (harmful.all() or not harmful.any()):
        raise ValueError("a bill needs texts of both classes")
    passed_on = cheap >= gate if at else cheap > gate
    sure = dear >= threshold if at else dear > threshold
    flagged = passed_on | sure if either else (sure if skip == "gate" else passed_on if skip == "dear" else passed_on & sure)
    recall = (flagged & harmful).sum().item() / (max(int(harmful.sum()), 1) if shares == "class" else len(labels))
    alarms = (flagged & ~harmful).sum().item() / (max(int((~harmful).sum()), 1) if shares == "class" else len(labels))
    asked = {"all": passed_on.double().mean().item(), "flagged": flagged.double().mean().item(), "none": 1.0,
             "harmless": (passed_on & ~harmful).double().mean().item()}[who]
    cheap_price = 0.0 if clean else costs[0]
    return recall, alarms, cheap_price + costs[1] * asked


wrong_ways(cascade_cost, _bill, {
    "either-check-flags": ({"either": True}, "A text that only one of the two suspects is flagged. A cascade needs both: the gate, then the dear check."),
    "gate-ignored": ({"skip": "gate"}, "Texts that were never passed on are flagged by a dear check that did not run."),
    "gate-flags": ({"skip": "dear"}, "Whatever passes the gate is flagged. The dear check has the last word."),
    "at-the-threshold": ({"at": True}, "A score equal to the gate or the threshold does not pass: strictly above."),
    "flagged-texts-pay": ({"who": "flagged"}, "You bill the dear check for flagged texts only. It runs on every text that was passed on, also where it then says no."),
    "everyone-pays": ({"who": "none"}, "You bill the dear check for every text. The gate is there to save that."),
    "cheap-check-is-free": ({"clean": True}, "The price of the cheap check is missing: every text gets it."),
    "shares-of-all-texts": ({"shares": "all"}, "Your recall and false alarms are shares of all texts. Each has a class of its own to be a share of."),
    "no-complaint": ({"check": False}, "A class without a text gives a share of nothing: raise a ValueError."),
})


@cascade_cost.mistake("cheap-check-for-the-cleared", "You bill the cheap check only for texts that it clears. Every text gets it first.")
def _(cheap, dear, labels, gate, threshold, costs=(0.0, 1.0)):
    recall, alarms, _ = _bill(cheap, dear, labels, gate, threshold, costs)
    asked = (cheap > gate).double().mean().item()
    return recall, alarms, costs[0] * (1 - asked) + costs[1] * asked


@cascade_cost.variant
def _(cheap, dear, labels, gate, threshold, costs=(0.0, 1.0)):
    return _bill(cheap, dear, labels, gate, threshold, costs)


@cascade_cost.variant
def _(cheap, dear, labels, gate, threshold, costs=(0.0, 1.0)):
    flagged, total = {0: [], 1: []}, 0.0
    for one, other, label in zip(cheap.tolist(), dear.tolist(), labels.tolist()):
        total += costs[0]
        alarm = False
        if one > gate:
            total += costs[1]
            alarm = other > threshold
        flagged[label].append(alarm)
    if not flagged[0] or not flagged[1]:
        raise ValueError("a bill needs texts of both classes")
    return sum(flagged[1]) / len(flagged[1]), sum(flagged[0]) / len(flagged[0]), total / len(labels)


@cascade_cost.variant
def _(cheap, dear, labels, gate, threshold, costs=(0.0, 1.0)):
    y = labels.numpy().astype(bool)
    if y.all() or not y.any():
        raise ValueError("a bill needs texts of both classes")
    rows = np.flatnonzero(cheap.numpy() > gate)
    alarm = np.zeros(len(y), dtype=bool)
    alarm[rows] = dear.numpy()[rows] > threshold
    return float(alarm[y].mean()), float(alarm[~y].mean()), float(costs[0] + costs[1] * len(rows) / len(y))
