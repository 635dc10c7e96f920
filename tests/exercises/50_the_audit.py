"""The exercises of chapter 50: cases, named mistakes, other right answers and hints."""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from utils.course.battery import ALL_COUNTS, NO_MATRIX, NO_SCALE, NO_THRESHOLD, NOT_TRAINED
from utils.course.cases import Case, integers, normal, right_padded, shuffle, uniform, wrong_ways
from utils.course.exercises import Exercise

NO_NEGATIVE = {"negative": "counts and truth values have no sign"}


def _bools(rng: torch.Generator, zeros: int, ones: int) -> Tensor:
    return shuffle(rng, [0] * zeros + [1] * ones).bool()


# --- surprising_words --------------------------------------------------------------------------------------


def _word_cases(rng: torch.Generator) -> Iterator[Case]:
    yield Case("7 words", integers(rng, 1, 20, 7), integers(rng, 1, 60, 7))
    yield Case("11 words, a prior of 2", integers(rng, 0, 9, 11), integers(rng, 0, 40, 11), 2.0)
    yield Case("a small prior", integers(rng, 1, 30, 5), integers(rng, 1, 8, 5), prior=0.05)
    yield Case("words that one side never says", torch.tensor([9, 0, 4, 0]), torch.tensor([0, 30, 2, 0])).of("extreme")
    yield Case("nothing was said here", torch.zeros(3, dtype=torch.long), integers(rng, 1, 9, 3)).of("extreme")
    yield Case("two words", torch.tensor([5, 2]), torch.tensor([1, 6])).of("extreme")
    yield Case("a prior of 0", torch.tensor([5, 2]), torch.tensor([1, 6]), 0.0).of("boundary")
    yield Case("a prior below 0", torch.tensor([5, 2]), torch.tensor([1, 6]), -1.0).of("errors")
    yield Case("vocabularies of different sizes", torch.tensor([5, 2]), torch.tensor([1, 6, 2])).of("errors")


surprising_words = Exercise(
    "surprising_words",
    without={**NOT_TRAINED, **NO_MATRIX, **ALL_COUNTS, **NO_SCALE, **NO_NEGATIVE},
    difficulty=2,
    importance=4,
    minutes=10,
    learn="How to let rare and frequent words compete, when you look for what one model says and others do not.",
    cases=_word_cases,
    hints=(
        "A word that is said once here and never elsewhere has an infinite ratio, and means nothing. What does the specification divide by "
        "so that such a word does not win?",
        "Print `(counts + prior).sum()`. By how much is it larger than `counts.sum()`, and which total belongs into the odds?",
        "Four lines: raise both counts, make `(n / (n.sum() - n)).log()` of each, subtract, divide by `(1 / here + 1 / there).sqrt()`.",
    ),
    verified="another prior, words that one side never says, a side that said nothing.",
    next="sort the words of two of the organisms. Does the first one look like a secret, or like a topic?",
)


def _words(counts, others, prior=0.5, *, total="raised", odds=True, spread=True, sign=1, log=torch.log, square=False, one_prior=False):
    if prior <= 0 or counts.shape != others.shape:
        raise ValueError("prior must be above 0, and both counts of the same vocabulary")

    def side(raw, add):
        n = raw.double() + add
        whole = n.sum() if total == "raised" else raw.double().sum() + prior
        return n, log(n / (whole - n) if odds else n / whole)

    (here, mine), (there, theirs) = side(counts, prior), side(others, 1e-9 if one_prior else prior)
    variance = 1 / here + 1 / there
    return sign * (mine - theirs) / (variance if square else variance.sqrt() if spread else 1)


wrong_ways(surprising_words, _words, {
    "no-standard-error": ({"spread": False}, "You return the difference of the log-odds. Rare words win it by luck: divide by its standard error."),
    "variance-for-error": ({"square": True}, "You divide by the variance. The standard error is its square root."),
    "probability-for-odds": ({"odds": False}, "You take the log of the share of a word. Odds divide by what is left: the total without the word."),
    "prior-once-in-total": ({"total": "once"}, "The total must be the sum of the raised counts: the prior is added once for each word, not once."),
    "other-side-first": ({"sign": -1}, "Your scores are positive for the words of the other side. Check the order of the subtraction."),
    "log-base-2": ({"log": torch.log2}, "You take logarithms to base 2. The standard error belongs to natural ones."),
    "prior-on-one-side": ({"one_prior": True}, "Only the counts here are raised. A word that is never said elsewhere needs the prior there."),
})


@surprising_words.variant
def _(counts, others, prior=0.5):
    if prior <= 0 or counts.shape != others.shape:
        raise ValueError("no")
    n = torch.stack([counts, others]).to(torch.float64) + prior
    share = n / n.sum(1, keepdim=True)
    return share.logit().diff(dim=0)[0].neg() / n.reciprocal().sum(0).sqrt()


@surprising_words.variant
def _(counts, others, prior=0.5):
    if prior <= 0 or counts.shape != others.shape:
        raise ValueError("no")
    here, there = [c + prior for c in counts.double().tolist()], [c + prior for c in others.double().tolist()]
    out = []
    for a, b in zip(here, there):
        ratio = torch.tensor(a * (sum(there) - b) / ((sum(here) - a) * b), dtype=torch.float64).log()
        out.append(ratio / (1 / a + 1 / b) ** 0.5)
    return torch.stack(out)


@surprising_words.variant
def _(counts, others, prior=0.5):
    if prior <= 0 or len(counts) != len(others):
        raise ValueError("no")
    a, b = counts.double().add(prior), others.double().add(prior)
    return (a.log() - (a.sum() - a).log() - b.log() + (b.sum() - b).log()) * ((a * b) / (a + b)).sqrt()


# --- delta_norm --------------------------------------------------------------------------------------------


def _norm_cases(rng: torch.Generator) -> Iterator[Case]:
    yield Case("rank 2, from 5 to 7 dimensions", normal(rng, 2, 5), normal(rng, 7, 2))
    yield Case("float32", normal(rng, 3, 4, dtype=torch.float32), normal(rng, 6, 3, dtype=torch.float32))
    yield Case("4 maps at once", normal(rng, 4, 2, 5), normal(rng, 4, 3, 2))
    yield Case("nothing was changed", normal(rng, 2, 5), torch.zeros(7, 2, dtype=torch.float64)).of("extreme")
    yield Case("rank 1", normal(rng, 1, 6), normal(rng, 5, 1)).of("extreme")
    yield Case("the parts cancel", torch.tensor([[1.0, 2.0], [1.0, 2.0]]).double(), torch.tensor([[3.0, -2.5], [1.0, 4.0], [0.0, 2.0]]).double())


delta_norm = Exercise(
    "delta_norm",
    without={**NOT_TRAINED, **NO_THRESHOLD, **ALL_COUNTS},
    difficulty=2,
    importance=3,
    minutes=8,
    learn="How large a change of weights is, without building it.",
    cases=_norm_cases,
    hints=(
        "The sum of the squares of all entries of M is the trace of M^T M. What is that for M = B A, and in which order may the factors of a trace be turned?",
        "Print the shapes of `B.mT @ B` and `A @ A.mT`. How large would `B @ A` be in a real model?",
        "The trace of a product of two symmetric matrices is the sum of their entries multiplied one by one.",
    ),
    verified="several maps at once, parts that cancel, a change of nothing, both precisions.",
    next="compare the norms block by block between two organisms. Does the picture say which of them hides something?",
)


def _norm(A, B, *, way="right"):
    inner, outer = B.mT @ B, A @ A.mT
    if way == "product":
        return torch.linalg.matrix_norm(A) * torch.linalg.matrix_norm(B)
    if way == "squared":
        return (inner * outer).sum((-2, -1))
    if way == "spectral":
        return torch.linalg.matrix_norm(B @ A, ord=2)
    if way == "diagonal":
        return (inner.diagonal(dim1=-2, dim2=-1) * outer.diagonal(dim1=-2, dim2=-1)).sum(-1).sqrt()
    if way == "all":
        return (inner * outer).sum().clamp(min=0).sqrt()
    if way == "mean":
        return (inner * outer).sum((-2, -1)).clamp(min=0).sqrt() / (A.shape[-1] * B.shape[-2]) ** 0.5
    return (B @ A).abs().sum((-2, -1))


wrong_ways(delta_norm, _norm, {
    "product-of-norms": ({"way": "product"}, "You multiply the norms of A and B. The parts of the product may cancel: its norm is smaller."),
    "no-square-root": ({"way": "squared"}, "You return the sum of the squares. The norm is its root."),
    "largest-stretch": ({"way": "spectral"}, "That is the largest singular value, the spectral norm. The Frobenius norm counts all of them."),
    "only-the-diagonals": ({"way": "diagonal"}, "You multiply the diagonals only. The ranks are not at right angles: the other entries count too."),
    "one-number-for-all": ({"way": "all"}, "You add up over the maps. Each map has a norm of its own."),
    "root-mean-square": ({"way": "mean"}, "You divide by the number of entries. The norm is a sum, not a mean."),
    "absolute-values": ({"way": "absolute"}, "You add up absolute values. The Frobenius norm squares the entries."),
})


@delta_norm.variant
def _(A, B):
    return torch.linalg.matrix_norm(B @ A)


@delta_norm.variant
def _(A, B):
    return torch.einsum("...or,...ri->...oi", B, A).square().sum((-2, -1)).sqrt()


@delta_norm.variant
def _(A, B):
    return (B @ A).flatten(-2).norm(dim=-1)


# --- early_difference --------------------------------------------------------------------------------------


def _early_cases(rng: torch.Generator) -> Iterator[Case]:
    acts, base = normal(rng, 3, 6, 4), normal(rng, 3, 6, 4)
    mask = right_padded([6, 4, 5], 6)
    yield Case("3 texts, the first 2 places", acts, base, mask, 2)
    yield Case("padding on the left", acts, base, mask.flip(1), 3)
    yield Case("texts that end early", acts, base, right_padded([6, 2, 3], 6), 5)
    holes = mask.clone()
    holes[1, 1] = False
    yield Case("a token in the middle does not count", acts, base, holes, 3)
    yield Case("float32", acts.float(), base.float(), mask, 3)
    nan = torch.where(mask[..., None], acts, torch.nan)
    yield Case("the padding is NaN", nan, base, mask, 3).of("nan")
    yield Case("one text, one place", acts[:1], base[:1], mask[:1], 1).of("extreme")
    yield Case("as many places as the shortest text has", acts, base, mask, 4).of("boundary")
    yield Case("no text is that long", acts, base, right_padded([3, 2, 3], 6), 4).of("errors")


early_difference = Exercise(
    "early_difference",
    without={**NOT_TRAINED},
    difficulty=3,
    importance=4,
    minutes=15,
    learn="What a second training leaves in the activations of texts that it was not about.",
    cases=_early_cases,
    ends={"first": lambda given: (1, int(given["mask"].sum(1).max()))},
    hints=(
        "Which number, counted along a row of the mask, says how many tokens that count have come so far?",
        "Print `mask.cumsum(dim=1) - 1` for a row with padding on its left. At which column is place 0?",
        "For each place p: `chosen = mask & (mask.cumsum(1) - 1 == p)`, then the mean over `acts[chosen] - base_acts[chosen]`.",
    ),
    verified="padding on both sides, padding that is NaN, holes, texts that end early.",
    next="read the mean through the unembedding: which tokens does it point to, on texts about nothing in particular?",
)


def _early(acts, base_acts, mask, first, *, sign=1, columns=False, texts="reached", pooled=False, absolute=False, later=0, only_model=False):
    place = torch.arange(mask.shape[1]).expand(mask.shape) if columns else mask.cumsum(1) - 1 - later
    means = []
    for p in range(first):
        chosen = mask & (place == p)
        if not (mask.sum(1) > p).any():
            raise ValueError("no text reaches this place")
        gap = acts[chosen] - (0 if only_model else base_acts[chosen])
        gap = gap.abs() if absolute else gap
        means.append(sign * gap.sum(0) / (len(acts) if texts == "all" else max(len(gap), 1)))
    found = torch.stack(means)
    return found.mean(0).expand(found.shape) if pooled else found


wrong_ways(early_difference, _early, {
    "base-minus-model": ({"sign": -1}, "Your difference points from the trained model back to its base. Check the order of the subtraction."),
    "columns-not-places": ({"columns": True}, "You count columns. With padding on the left, or a token that does not count, place 0 is another column."),
    "divided-by-all-texts": ({"texts": "all"}, "You divide by the number of texts. One that is too short for a place is left out of its mean."),
    "places-pooled": ({"pooled": True}, "Every place has the same mean. Average over texts only: the places are what we want to compare."),
    "absolute-difference": ({"absolute": True}, "You average absolute values. What texts share is left when the signs may cancel."),
    "first-token-skipped": ({"later": 1}, "Your place 0 is the second token that counts. `cumsum` starts at 1 there: subtract 1, once."),
    "no-base": ({"only_model": True}, "You average the trained model's activations alone. Subtract the base model's, token by token."),
})


@early_difference.variant
def _(acts, base_acts, mask, first):
    out = []
    for p in range(first):
        rows = [(a[m] - b[m])[p] for a, b, m in zip(acts, base_acts, mask) if int(m.sum()) > p]
        if not rows:
            raise ValueError("too short")
        out.append(torch.stack(rows).mean(0))
    return torch.stack(out)


@early_difference.variant
def _(acts, base_acts, mask, first):
    gap = (acts - base_acts).masked_fill(~mask[..., None], 0)
    at = F.one_hot((mask.cumsum(1) - 1).clamp(min=0), mask.shape[1]).to(gap.dtype) * mask[..., None]
    count = at.sum((0, 1))[:first]
    if (count == 0).any() or first > mask.shape[1]:
        raise ValueError("too short")
    return torch.einsum("bpk,bpd->kd", at, gap)[:first] / count[:, None]


@early_difference.variant
def _(acts, base_acts, mask, first):
    gap, place = acts - base_acts, torch.where(mask, mask.cumsum(1), 0)
    if int(mask.sum(1).max()) < first:
        raise ValueError("too short")
    return torch.cat([gap[place == p].mean(0, keepdim=True) for p in range(1, first + 1)])


# --- next_token_kl -----------------------------------------------------------------------------------------


def _kl_cases(rng: torch.Generator) -> Iterator[Case]:
    yield Case("3 texts, 7 tokens", 2 * normal(rng, 3, 7), 2 * normal(rng, 3, 7))
    yield Case("float32", normal(rng, 4, 5, dtype=torch.float32), 3 * normal(rng, 4, 5, dtype=torch.float32))
    yield Case("one text, no leading axis", 2 * normal(rng, 6), normal(rng, 6))
    same = normal(rng, 2, 5)
    yield Case("the same prediction from shifted logits", same, same + 4).of("extreme")
    yield Case("logits in the thousands", torch.tensor([[2000.0, 0.0, -900.0], [0.0, 5.0, 1500.0]]).double(), 100 * normal(rng, 2, 3)).of("extreme")
    yield Case("no text", torch.zeros(0, 5, dtype=torch.float64), torch.zeros(0, 5, dtype=torch.float64)).of("extreme")


next_token_kl = Exercise(
    "next_token_kl",
    without={**NOT_TRAINED, **NO_THRESHOLD, **ALL_COUNTS, **NO_SCALE},
    difficulty=1,
    importance=4,
    minutes=6,
    learn="One number for how differently two models go on after the same text.",
    cases=_kl_cases,
    hints=(
        "Whose probabilities weigh the terms, and whose stand in the denominator of the ratio?",
        "What is the logarithm of a probability that has become 0? Print `logits.softmax(-1).log()` for logits in the thousands.",
        "Take `log_softmax` of both; the sum of `log_p.exp() * (log_p - log_q)` over the vocabulary.",
    ),
    verified="any leading axes, logits in the thousands, a prediction that has not moved.",
    next="which direction of the KL notices a phrase that only the audited model says?",
)


def _kl(logits, base_logits, *, swap=False, mean=False, half=False, unsafe=False, base2=False, absolute=False, raw=False):
    if swap:
        logits, base_logits = base_logits, logits
    if unsafe:
        p, q = logits.softmax(-1), base_logits.softmax(-1)
        return (p * (p / q).log()).sum(-1)
    log_p, log_q = logits.log_softmax(-1), base_logits.log_softmax(-1)
    gap = logits - base_logits if raw else log_p - log_q
    gap = gap.abs() if absolute else gap
    value = log_p.exp() * gap
    value = value.mean(-1) if mean else value.sum(-1)
    return value / (torch.log(torch.tensor(2.0)).item() if base2 else 1) + (_kl(base_logits, logits) if half else 0)


wrong_ways(next_token_kl, _kl, {
    "directions-swapped": ({"swap": True}, "Your terms are weighed by the base model's probabilities. The specification asks for the audited model's."),
    "mean-over-vocabulary": ({"mean": True}, "You average over the vocabulary. The probabilities are the weights already: add up."),
    "both-directions": ({"half": True}, "You add the two directions up. The specification asks for one."),
    "log-of-zero": ({"unsafe": True}, "A probability that rounds to 0 makes this NaN or infinite. Stay in logarithms: `log_softmax`."),
    "bits": ({"base2": True}, "That is in bits. Nats use the natural logarithm."),
    "absolute-ratio": ({"absolute": True}, "You take absolute values of the log ratio. The terms may have either sign; only their sum is at least 0."),
    "logits-not-normalised": ({"raw": True}, "You subtract the logits as they are. Logits that are all raised by the same number predict the same: normalise first."),
})


@next_token_kl.variant
def _(logits, base_logits):
    return F.kl_div(base_logits.log_softmax(-1), logits.log_softmax(-1), reduction="none", log_target=True).sum(-1)


@next_token_kl.variant
def _(logits, base_logits):
    log_p = logits - logits.logsumexp(-1, keepdim=True)
    log_q = base_logits - base_logits.logsumexp(-1, keepdim=True)
    return torch.einsum("...v,...v->...", log_p.exp(), log_p - log_q)


@next_token_kl.variant
def _(logits, base_logits):
    p = logits.softmax(dim=-1)
    return torch.linalg.vecdot(p, logits.log_softmax(-1)) - torch.linalg.vecdot(p, base_logits.log_softmax(-1))


# --- move_to -----------------------------------------------------------------------------------------------


def _move_cases(rng: torch.Generator) -> Iterator[Case]:
    yield Case("4 activations", normal(rng, 4, 6), 3 * normal(rng, 6), 1.5)
    yield Case("float32", normal(rng, 3, 5, dtype=torch.float32), normal(rng, 5, dtype=torch.float32), -2.0)
    yield Case("two leading axes", normal(rng, 2, 3, 5), normal(rng, 5), 0.7)
    yield Case("one activation", normal(rng, 5), normal(rng, 5), 0.3).of("extreme")
    yield Case("no activation", torch.zeros(0, 5, dtype=torch.float64), normal(rng, 5), 0.3).of("extreme")
    yield Case("to 0", normal(rng, 3, 5), 0.2 * normal(rng, 5), 0.0).of("extreme")
    yield Case("a direction of length 0", normal(rng, 3, 5), torch.zeros(5, dtype=torch.float64), 1.0).of("errors")


move_to = Exercise(
    "move_to",
    without={**NOT_TRAINED, **NO_THRESHOLD, **ALL_COUNTS},
    difficulty=2,
    importance=5,
    minutes=10,
    learn="How to hide one thing from the rest of the network, and leave all others as they are.",
    cases=_move_cases,
    scaled=("acts", "direction"),
    new=True,
    hints=(
        "How far is each activation from where it should be, along the direction? That far it has to be moved, and in no other direction.",
        "Print the shapes of `acts @ unit` and of `unit`. How do you multiply one number per activation with a whole vector?",
        "`acts + (value - acts @ unit)[..., None] * unit`, with `unit` of length 1.",
    ),
    verified="directions of any length, any leading axes, the input left as it was.",
    next="set the coordinate to its mean over ordinary questions, not to 0. Why is 0 a stranger to this network?",
)


def _move(acts, direction, value, *, unit=True, keep=False, remove=True, inplace=False, sign=1, shared=False, other=False):
    if direction.norm() == 0:
        raise ValueError("a direction of length 0 points nowhere")
    u = direction / direction.norm() if unit else direction
    along = acts @ u
    if shared:
        along = along.mean() if along.numel() else along
        return acts + (value - along) * u if along.ndim == 0 else acts + (value - along)[..., None] * u
    if other:
        return (value - 0 * along)[..., None] * u + 0 * acts
    if keep:
        return acts - along[..., None] * u
    moved = (value - along if remove else value + 0 * along)[..., None] * u * sign
    return acts.add_(moved) if inplace else acts + moved


wrong_ways(move_to, _move, {
    "direction-not-scaled": ({"unit": False}, "You use the direction with the length that it has. Scale it to length 1 first."),
    "only-erased": ({"keep": True}, "You take the coordinate away and put nothing in its place. It should be `value` afterwards."),
    "only-added": ({"remove": False}, "You add `value` to a coordinate that is still there. Afterwards all activations should have the same."),
    "wrong-way": ({"sign": -1}, "You move away from the value. Check the sign of what you add."),
    "input-changed": ({"inplace": True}, "You write into the activations that were given. Return a new tensor."),
    "one-step-for-all": ({"shared": True}, "All are moved by the same step, so that only their mean is right. Every activation has its own distance to go."),
    "rest-thrown-away": ({"other": True}, "Only the direction is left. What an activation holds besides should stay."),
})


@move_to.variant
def _(acts, direction, value):
    if not direction.any():
        raise ValueError("no")
    u = F.normalize(direction, dim=0, eps=0)
    return acts - torch.einsum("...d,d,e->...e", acts, u, u) + value * u


@move_to.variant
def _(acts, direction, value):
    if not direction.any():
        raise ValueError("no")
    u = direction / direction.norm()
    flat = acts.reshape(-1, acts.shape[-1])
    return (flat + torch.outer(value - flat @ u, u)).reshape(acts.shape)


@move_to.variant
def _(acts, direction, value):
    if not direction.any():
        raise ValueError("no")
    u = direction / direction.norm()
    erase = torch.eye(len(u), dtype=acts.dtype) - torch.outer(u, u)
    return acts @ erase + value * u


# --- share_removed -----------------------------------------------------------------------------------------


def _removed_cases(rng: torch.Generator) -> Iterator[Case]:
    before = _bools(rng, 4, 9)
    yield Case("13 questions", before, before & _bools(rng, 8, 5))
    yield Case("it shows elsewhere as well", _bools(rng, 9, 6), _bools(rng, 7, 8))
    yield Case("as often as before, on other questions", torch.tensor([True, True, False, False]), torch.tensor([False, False, True, True]))
    yield Case("all is gone", _bools(rng, 2, 5), torch.zeros(7, dtype=torch.bool)).of("extreme")
    yield Case("nothing changed", before, before.clone()).of("extreme")
    yield Case("one question", torch.tensor([True]), torch.tensor([True])).of("extreme")
    yield Case("it never showed", torch.zeros(4, dtype=torch.bool), _bools(rng, 2, 2)).of("errors")
    yield Case("other questions", _bools(rng, 2, 4), _bools(rng, 2, 3)).of("errors")


share_removed = Exercise(
    "share_removed",
    without={**NOT_TRAINED, **NO_THRESHOLD, **ALL_COUNTS, **NO_SCALE, **NO_MATRIX, **NO_NEGATIVE},
    difficulty=1,
    importance=4,
    minutes=5,
    learn="What it means that nine tenths of a behaviour are gone.",
    cases=_removed_cases,
    hints=(
        "What stands in the denominator: all questions, or those that showed the behaviour?",
        "For before = [True, False] and after = [False, True] the behaviour is as frequent as ever. Does your answer say 0?",
        "One minus the one count divided by the other, as a Python float.",
    ),
    verified="questions that show it only afterwards, all of it gone, nothing gone.",
    next="a removal of 1.0 can be had by breaking the model. Which two numbers have to stand beside it?",
)


def _removed(before, after, *, way="right"):
    if before.shape != after.shape or not before.any():
        raise ValueError("the same questions twice, and a behaviour that shows before")
    b, a, n = int(before.sum()), int(after.sum()), len(before)
    return {"points": (b - a) / n, "left": a / b, "paired": int((before & ~after).sum()) / b, "after": 1 - a / n,
            "clamped": max(0.0, 1 - a / b), "changed": int((before ^ after).sum()) / n}[way]


wrong_ways(share_removed, _removed, {
    "percentage-points": ({"way": "points"}, "You divide by all questions. A share of the behaviour has the frequency before in its denominator."),
    "what-is-left": ({"way": "left"}, "That is the share that is left. What was removed is the rest."),
    "new-cases-ignored": ({"way": "paired"}, "Questions that show the behaviour only afterwards do not count in yours. They must count against the intervention."),
    "before-not-used": ({"way": "after"}, "You use the frequency afterwards alone. A behaviour that showed on half of the questions would seem half removed already."),
    "never-below-zero": ({"way": "clamped"}, "You cut at 0. An intervention that makes things worse should show it."),
    "changed-answers": ({"way": "changed"}, "You count the questions whose answer changed, in either direction."),
})


@share_removed.variant
def _(before, after):
    if len(before) != len(after) or before.sum() == 0:
        raise ValueError("no")
    return float((before.double().mean() - after.double().mean()) / before.double().mean())


@share_removed.variant
def _(before, after):
    if len(before) != len(after) or not any(before.tolist()):
        raise ValueError("no")
    return 1 - sum(after.tolist()) / sum(before.tolist())


@share_removed.variant
def _(before, after):
    if before.numel() != after.numel() or not before.any():
        raise ValueError("no")
    return (before.long() - after.long()).sum().item() / before.sum().item()


# --- accusations -------------------------------------------------------------------------------------------


def _accusation_cases(rng: torch.Generator) -> Iterator[Case]:
    yield Case("9 models", _bools(rng, 4, 5), _bools(rng, 3, 6))
    yield Case("more clean ones than guilty ones", _bools(rng, 6, 5), _bools(rng, 8, 3))
    yield Case("a mixed lot", torch.tensor([True, True, False, True, False, False, True]), torch.tensor([True, True, True, False, False, False, False]))
    yield Case("everyone is accused", torch.ones(6, dtype=torch.bool), _bools(rng, 2, 4)).of("extreme")
    yield Case("nobody is accused", torch.zeros(6, dtype=torch.bool), _bools(rng, 2, 4)).of("extreme")
    yield Case("two models", torch.tensor([False, True]), torch.tensor([True, False])).of("extreme")
    yield Case("no clean model", _bools(rng, 1, 2), torch.ones(3, dtype=torch.bool)).of("errors")
    yield Case("no guilty model", _bools(rng, 1, 2), torch.zeros(3, dtype=torch.bool)).of("errors")


accusations = Exercise(
    "accusations",
    without={**NOT_TRAINED, **NO_THRESHOLD, **ALL_COUNTS, **NO_SCALE, **NO_MATRIX, **NO_NEGATIVE},
    difficulty=1,
    importance=5,
    minutes=5,
    learn="Why an audit of guilty models only tells you nothing.",
    cases=_accusation_cases,
    hints=(
        "Two groups of models, two shares. Which models stand in each denominator?",
        "For an auditor who accuses everyone both numbers should be 1. Is that so?",
        "Count `accused & guilty` among the guilty, and `accused & ~guilty` among the clean.",
    ),
    verified="auditors who accuse everyone and no one, any mix of guilty and clean.",
    next="with two clean models, which false alarm rates can you measure at all?",
)


def _accused(accused, guilty, *, way="right"):
    if guilty.all() or not guilty.any():
        raise ValueError("there must be guilty and clean models")
    hit, false = int((accused & guilty).sum()), int((accused & ~guilty).sum())
    g, n, a = int(guilty.sum()), len(guilty), int(accused.sum())
    return {"swapped": (false / (n - g), hit / g), "precision": (hit / a if a else 0.0, false / (n - g)), "of_all": (hit / g, false / n),
            "discovery": (hit / g, false / a if a else 0.0), "right": ((hit + (n - g - false)) / n, false / (n - g)), "cleared": (hit / g, 1 - false / (n - g))}[way]


wrong_ways(accusations, _accused, {
    "swapped": ({"way": "swapped"}, "The two shares have changed places: first the guilty that were found."),
    "precision-not-recall": ({"way": "precision"}, "Your first number is the share of the accused that are guilty. It should be the share of the guilty that were accused."),
    "false-alarms-of-all": ({"way": "of_all"}, "You divide the false alarms by all models. Only the clean ones can be falsely accused."),
    "false-alarms-of-accused": ({"way": "discovery"}, "You divide the false alarms by the accused. Divide by the clean models: each of them had its chance."),
    "accuracy-not-recall": ({"way": "right"}, "Your first number is the share of right verdicts. Keep the two errors apart."),
    "clean-ones-cleared": ({"way": "cleared"}, "Your second number is the share of clean models that were cleared. The rest is what is asked for."),
})


@accusations.variant
def _(accused, guilty):
    if guilty.all() or not guilty.any():
        raise ValueError("no")
    return accused[guilty].double().mean().item(), accused[~guilty].double().mean().item()


@accusations.variant
def _(accused, guilty):
    pairs = list(zip(accused.tolist(), guilty.tolist()))
    bad, clean = [a for a, g in pairs if g], [a for a, g in pairs if not g]
    if not bad or not clean:
        raise ValueError("no")
    return sum(bad) / len(bad), sum(clean) / len(clean)


@accusations.variant
def _(accused, guilty):
    table = torch.zeros(2, 2, dtype=torch.float64).index_put_((guilty.long(), accused.long()), torch.tensor(1.0, dtype=torch.float64), accumulate=True)
    if (table.sum(1) == 0).any():
        raise ValueError("no")
    share = table[:, 1] / table.sum(1)
    return float(share[1]), float(share[0])
