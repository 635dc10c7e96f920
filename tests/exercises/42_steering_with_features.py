"""The exercises of chapter 42: cases, named mistakes, other right answers and hints."""

from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from utils.course.battery import ALL_COUNTS, NO_MATRIX, NO_THRESHOLD, NOT_TRAINED
from utils.course.cases import integers, normal, uniform, wrong_ways
from utils.course.exercises import Case, Exercise


# --- edit_latent -------------------------------------------------------------------------------------------


def _edit_cases(rng: torch.Generator) -> Iterator[Case]:
    for how, batch, pos, d, width, k, dtype in (
        ("clamp", 3, 14, 5, 9, 3, torch.float64),
        ("add", 2, 16, 4, 8, 3, torch.float32),
        ("scale", 3, 12, 5, 7, 2, torch.float64),
        ("clamp", 2, 13, 4, 6, 5, torch.float64),
    ):
        params = {"W_enc": normal(rng, d, width, dtype=dtype), "b_enc": 0.3 * normal(rng, width, dtype=dtype), "W_dec": normal(rng, width, d, dtype=dtype),
                  "b_dec": 1 + normal(rng, d, dtype=dtype)}
        acts = params["b_dec"] + normal(rng, batch, pos, d, dtype=dtype)
        usual = torch.ones(batch, pos, dtype=torch.bool)
        usual[:, 0] = False
        usual[-1, 3] = False
        pre = (acts - params["b_dec"]) @ params["W_enc"] + params["b_enc"]
        kept = pre >= pre.topk(k, dim=-1).values[..., -1:]
        # The latent that is often in each of these states: it fires, it is positive but not among the k, it is negative but among them.
        states = torch.stack([(kept & (pre > 0))[usual], (~kept & (pre > 0))[usual]]).sum(1).min(0).values
        negative = (kept & (pre < 0))[usual].sum(0)
        latent = int((negative if k >= 5 else states).argmax())
        amount = torch.linspace(-1.0, 0.7, batch, dtype=dtype) if how == "add" else torch.linspace(1.5, 2.5, batch, dtype=dtype)
        yield Case(f"{how}, {batch} rows of {pos} tokens, {width} latents, {k} fire", acts, usual, params, k, latent, how, amount)
    yield Case("an edit that does not exist", acts, usual, params, k, latent, "boost", amount)
    for how in ("Clamp", " add", "c", "sc", "scaled", "set", ""):
        yield Case(f"an edit that does not exist: {how!r}", acts, usual, params, k, latent, how, amount)
    yield Case("an edit that does not exist, of no token", acts, torch.zeros_like(usual), params, k, latent, "boost", amount).of("extreme")
    yield Case("clamp to a negative value", acts, usual, params, k, latent, "clamp", -amount)
    yield Case("scale by a negative number", acts, usual, params, k, int((kept & (pre > 0))[usual].sum(0).argmax()), "scale", -amount)
    yield Case("no token is usual, so that nothing changes", acts, torch.zeros_like(usual), params, k, latent, "clamp", amount).of("extreme")
    width = params["b_enc"].shape[0]
    yield Case("every latent fires that can", acts, usual, params, width, latent, "clamp", amount).of("extreme")


edit_latent = Exercise(
    "edit_latent",
    ends={"k": lambda a: (1, a["params"]["b_enc"].shape[0]), "latent": lambda a: (0, a["params"]["b_enc"].shape[0] - 1)},
    new=True,
    without={**NOT_TRAINED, "boundary": "which of two equal latents is the k-th is left open", "nan": "activations are finite, at tokens that stay too"},
    difficulty=3,
    importance=5,
    minutes=20,
    learn="How to change one latent and nothing else, and why the SAE's error stays in.",
    cases=_edit_cases,
    hints=(
        "Only one latent changes, so the reconstruction changes by a multiple of one decoder row. Which multiple? You never need the whole "
        "reconstruction.",
        "Print the shape of `((acts - params['b_dec']) @ params['W_enc'] + params['b_enc']).topk(k, dim=-1).values`. How do you tell from it, for every "
        "token, whether your latent is among the k?",
        "`value` is the ReLU of the latent's pre-activation where that is at least the k-th largest, 0 elsewhere; the three rules make "
        "`new` of it. How far has the reconstruction moved, and at which tokens may the activation follow?",
    ),
    verified="clamp, add and scale, with latents that fire, that lose against the k largest and that are negative among them, and tokens that stay.",
    next="the error term: how much of an activation's variance would you have thrown away with it?",
)


def _edited(acts, usual, params, k, latent, how, amount, *, whole=False, direction=None, top=True, relu=True, centre=True, floor=True, only_firing=False, plus=False, at=None):
    x = acts - params["b_dec"] if centre else acts
    pre = x @ params["W_enc"] + params["b_enc"]
    values, indices = pre.topk(k, dim=-1)
    f = torch.zeros_like(pre).scatter(-1, indices, values) if top else pre
    f = f.relu() if relu else f
    value, amount = f[..., latent], amount[:, None]
    if how == "clamp":
        new = amount.expand_as(value)
        new = value + amount if plus else new
        new = torch.where(value > 0, new, value) if only_firing else new
    elif how == "add":
        new = value + amount
        new = new.clamp(min=0) if floor else new
    elif how == "scale":
        new = value * amount
    else:
        raise ValueError(how)
    usual = torch.ones_like(usual) if at is None and whole == "everywhere" else usual
    if whole is True:
        f = f.clone()
        f[..., latent] = new
        return torch.where(usual[..., None], f @ params["W_dec"] + params["b_dec"], acts)
    row = params["W_dec"][latent] if direction is None else direction
    return acts + ((new - value) * usual)[..., None] * row


wrong_ways(edit_latent, _edited, {
    "error-term-dropped": ({"whole": True},
        "You put the SAE's reconstruction in the activation's place. What the SAE does not explain is gone, on every token, and the model pays for that before your edit has done anything."),
    "clamp-adds": ({"plus": True},
        "Your clamp adds the amount to what is there. A latent that fires already then ends above the value that it was to be held at."),
    "clamp-where-it-fires": ({"only_firing": True},
        "Your clamp touches only tokens on which the latent fires. Clamping holds it at the value everywhere; what you wrote cannot switch a silent latent on."),
    "top-k-forgotten": ({"top": False},
        "You read the latent's value without TopK. Where it lost against the k largest it is 0, although its pre-activation is positive."),
    "relu-forgotten": ({"relu": False},
        "A latent among the k largest can have a negative pre-activation. Its value is then 0: the ReLU is missing."),
    "decoder-bias-not-subtracted": ({"centre": False},
        "The encoder reads x - b_dec. You gave it x, and so read other values than the SAE does."),
})


@edit_latent.mistake("encoder-column", "You moved along the encoder's column. That is how the latent is read; what it writes is its row of the decoder.")
def _(acts, usual, params, k, latent, how, amount):
    return _edited(acts, usual, params, k, latent, how, amount, direction=params["W_enc"][:, latent])


wrong_ways(edit_latent, _edited, {
    "unusual-tokens-edited": ({"whole": "everywhere"},
        "You edited the tokens where `usual` is False as well. The SAE was not trained on those, and the first one is where idle attention looks."),
    "below-zero": ({"floor": False}, "With a negative amount your \"add\" takes the latent below 0. No latent of this SAE has ever been there."),
})


@edit_latent.variant
def _(acts, usual, params, k, latent, how, amount):
    """The whole latent vector, and a difference of two reconstructions."""
    pre = torch.einsum("bpd,ds->bps", acts - params["b_dec"], params["W_enc"]) + params["b_enc"]
    values, indices = pre.topk(k, dim=-1)
    f = torch.zeros_like(pre).scatter_(-1, indices, values.relu())
    g = f.clone()
    if how == "clamp":
        g[..., latent] = amount[:, None]
    elif how == "add":
        g[..., latent] = (f[..., latent] + amount[:, None]).relu()
    elif how == "scale":
        g[..., latent] *= amount[:, None]
    else:
        raise ValueError(f"unknown edit {how}")
    return torch.where(usual[..., None], acts + (g - f) @ params["W_dec"], acts)


@edit_latent.variant
def _(acts, usual, params, k, latent, how, amount):
    """A loop over tokens, and the error by name."""
    if how not in ("clamp", "add", "scale"):
        raise ValueError(how)
    result = acts.clone()
    for row, pos in usual.nonzero().tolist():
        x, a = acts[row, pos], amount[row]
        pre = (x - params["b_dec"]) @ params["W_enc"] + params["b_enc"]
        f = torch.zeros_like(pre)
        top = pre.topk(k).indices
        f[top] = pre[top].clamp(min=0)
        error = x - (f @ params["W_dec"] + params["b_dec"])
        f[latent] = {"clamp": a, "add": torch.clamp(f[latent] + a, min=0), "scale": f[latent] * a}[how]
        result[row, pos] = f @ params["W_dec"] + params["b_dec"] + error
    return result


@edit_latent.variant
def _(acts, usual, params, k, latent, how, amount):
    """A rank, by counting the larger ones."""
    pre = (acts - params["b_dec"]) @ params["W_enc"] + params["b_enc"]
    mine = pre[..., latent]
    value = torch.where((pre > mine[..., None]).sum(-1) < k, mine, torch.zeros_like(mine)).relu()
    if how == "clamp":
        step = amount.unsqueeze(1) - value
    elif how == "add":
        step = torch.maximum(amount.unsqueeze(1), -value)
    elif how == "scale":
        step = (amount.unsqueeze(1) - 1) * value
    else:
        raise ValueError
    result = acts.clone()
    result[usual] += torch.outer(step[usual], params["W_dec"][latent])
    return result


# --- contrast_by_text --------------------------------------------------------------------------------------


def _contrast_cases(rng: torch.Generator) -> Iterator[Case]:
    def case(label: str, lengths: list[int], on: list[int], width: int, dtype: torch.dtype, mixed: bool) -> Case:
        text = torch.arange(len(lengths)).repeat_interleave(torch.tensor(lengths))
        order = torch.randperm(len(text), generator=rng) if mixed else torch.arange(len(text))
        size = 1 + uniform(rng, len(lengths), 1) * 3
        latents = (normal(rng, len(text), width).relu() * size[text]).to(dtype)[order]
        return Case(label, latents, text[order], torch.tensor([i in on for i in range(len(lengths))]))

    yield case("5 texts of 2 to 9 tokens, 6 latents", [4, 9, 2, 7, 3], [0, 2, 3], 6, torch.float64, False)
    yield case("4 texts, tokens in any order, float32", [8, 3, 5, 2], [1], 7, torch.float32, True)
    yield case("one text of each kind", [6, 2], [0], 3, torch.float64, False)
    silent = torch.zeros(2, 4, dtype=torch.float64)
    yield Case("texts of one token, of which nothing fires", silent, torch.tensor([1, 0]), torch.tensor([True, False])).of("extreme")
    yield case("texts of one token among longer ones", [1, 4, 1, 3], [0, 1], 5, torch.float64, True).of("extreme")


contrast_by_text = Exercise(
    "contrast_by_text",
    without={**NOT_TRAINED, **NO_THRESHOLD, **ALL_COUNTS, "negative": "latents are never negative"},
    difficulty=2,
    importance=4,
    minutes=10,
    learn="How to ask an SAE which latents a topic switches on, without letting one long text answer for all.",
    cases=_contrast_cases,
    hints=(
        "Two averages, one inside the other: over the tokens of a text, then over the texts of a kind.",
        "`latents.new_zeros(len(on_topic), latents.shape[1]).index_add(0, text, latents)`: what is in row i? What must it be divided by?",
        "`torch.bincount(text)` counts the tokens of each text. With `means = sums / counts[:, None]`, two means over rows and a subtraction are left.",
    ),
    verified="texts of different lengths and loudness, tokens in any order, one text of a kind.",
    next="look at the ten largest: are they about the topic, or about the length and the tense of your sentences?",
)


def _means(latents, text, n):
    return torch.stack([latents[text == i].mean(0) for i in range(n)])


@contrast_by_text.mistake("every-token-counts-the-same", "You averaged over all tokens of a kind at once, so that a long text counts more than a short one. Average inside each text first.")
def _(latents, text, on_topic):
    mine = on_topic[text]
    return latents[mine].mean(0) - latents[~mine].mean(0)


@contrast_by_text.mistake("off-minus-on", "The sign is reversed: latents that the topic switches on come out negative.")
def _(latents, text, on_topic):
    means = _means(latents, text, len(on_topic))
    return means[~on_topic].mean(0) - means[on_topic].mean(0)


@contrast_by_text.mistake("sum-over-tokens", "You added up the tokens of a text and did not divide by their number. Long texts then have large latents.")
def _(latents, text, on_topic):
    sums = torch.stack([latents[text == i].sum(0) for i in range(len(on_topic))])
    return sums[on_topic].mean(0) - sums[~on_topic].mean(0)


@contrast_by_text.mistake("sum-over-texts", "You added up the texts of each kind. If there are more texts of one kind than of the other, every latent prefers that kind.")
def _(latents, text, on_topic):
    means = _means(latents, text, len(on_topic))
    return means[on_topic].sum(0) - means[~on_topic].sum(0)


@contrast_by_text.mistake("share-instead-of-value", "You compared how often a latent fires. Asked for is its mean value: the two differ for a latent that always fires a little.")
def _(latents, text, on_topic):
    means = _means((latents > 0).to(latents), text, len(on_topic))
    return means[on_topic].mean(0) - means[~on_topic].mean(0)


@contrast_by_text.mistake("mean-where-it-fires", "You averaged over the tokens on which the latent fires. A latent that fires once in a text then looks like one that fires throughout.")
def _(latents, text, on_topic):
    means = torch.stack([latents[text == i].sum(0) / (latents[text == i] > 0).sum(0).clamp(min=1) for i in range(len(on_topic))])
    return means[on_topic].mean(0) - means[~on_topic].mean(0)


@contrast_by_text.mistake("against-all-texts", "You compared with the mean over all texts, the topic's own among them. Compare with the texts that are off topic.")
def _(latents, text, on_topic):
    means = _means(latents, text, len(on_topic))
    return means[on_topic].mean(0) - means.mean(0)


@contrast_by_text.variant
def _(latents, text, on_topic):
    """Loops."""
    return _means(latents, text, len(on_topic))[on_topic].mean(0) - _means(latents, text, len(on_topic))[~on_topic].mean(0)


@contrast_by_text.variant
def _(latents, text, on_topic):
    """One weight per token, and a product."""
    share = 1.0 / torch.bincount(text)[text].to(latents)
    kinds = torch.where(on_topic, 1.0 / on_topic.sum(), -1.0 / (~on_topic).sum()).to(latents)
    return torch.einsum("n,ns->s", share * kinds[text], latents)


@contrast_by_text.variant
def _(latents, text, on_topic):
    """A one-hot matrix of texts."""
    belongs = F.one_hot(text, len(on_topic)).to(latents)
    means = (belongs / belongs.sum(0)).T @ latents
    sign = on_topic.to(latents)
    return (sign @ means) / sign.sum() - ((1 - sign) @ means) / (1 - sign).sum()


# --- output_effect -----------------------------------------------------------------------------------------


def _output_cases(rng: torch.Generator) -> Iterator[Case]:
    for n, d, vocab, chosen, dtype in ((5, 4, 11, 3, torch.float64), (3, 6, 9, 1, torch.float32), (4, 3, 8, 2, torch.float64)):
        words = torch.randperm(vocab, generator=rng)[:chosen]
        W_U = normal(rng, d, vocab) + 0.8 * normal(rng, d, 1)  # the average word is not 0
        yield Case(f"{n} latents, {d} dimensions, {vocab} words, {chosen} of them wanted", (3 * normal(rng, n, d)).to(dtype),
                   (0.5 + uniform(rng, d) * 2).to(dtype), W_U.to(dtype), words)
    yield Case("one latent, every word but one wanted", normal(rng, 1, 4), 0.5 + uniform(rng, 4), normal(rng, 4, 6), torch.arange(5)).of("extreme")
    yield Case("an average word very far from 0", normal(rng, 3, 4), 0.5 + uniform(rng, 4), normal(rng, 4, 9) + 1e7 * normal(rng, 4, 1), torch.tensor([7, 2])).of("extreme")


output_effect = Exercise(
    "output_effect",
    without={**NOT_TRAINED, **NO_THRESHOLD, **ALL_COUNTS},
    difficulty=2,
    importance=4,
    minutes=10,
    learn="How to choose a latent by what it makes the model say, not by what makes it fire.",
    cases=_output_cases,
    hints=(
        "Three steps: a table of latents by words, the lead of the wanted words over the average word, and the unit in which that lead is measured.",
        "`norm_weight` has one number per dimension. On which side of `@` does it belong, and along which axis of `W_dec`?",
        "`logits = (W_dec * norm_weight) @ W_U` is the table. Which columns does the first mean take, which the second, and what does `correction=` do in `std`?",
    ),
    verified="the norm's weight, an average word that is not 0, the spread over the whole vocabulary, several wanted words and one.",
    next="find the latent with the largest effect on your topic's words, and look at what it fires on.",
)


def _lead(W_dec, norm_weight, W_U, words, *, centre=True, spread="all", correction=0, total=False, magnitude=False):
    logits = (W_dec * norm_weight) @ W_U
    wanted = logits[:, words]
    wanted = wanted.abs() if magnitude else wanted
    lead = (wanted.sum(1) if total else wanted.mean(1)) - (logits.mean(1) if centre else 0)
    if spread == "all":
        return lead / logits.std(1, correction=correction)
    return lead / (1.0 if spread is None else spread(logits))


@output_effect.mistake("norm-weight-forgotten", "The weight of the final norm is missing. It stretches some dimensions several times more than others before the unembedding reads them.")
def _(W_dec, norm_weight, W_U, words):
    return _lead(W_dec, torch.ones_like(norm_weight), W_U, words)


wrong_ways(output_effect, _lead, {
    "not-in-units-of-spread": ({"spread": None}, "You did not divide by the spread. The longest decoder rows win then, whatever they say."),
    "average-word-not-subtracted": ({"centre": False},
        "You did not subtract the average over the vocabulary. A number that is added to every logit changes no probability."),
})


@output_effect.mistake("spread-over-latents", "You took the standard deviation over the latents. Each latent is measured by its own spread, over the words.")
def _(W_dec, norm_weight, W_U, words):
    return _lead(W_dec, norm_weight, W_U, words, spread=lambda logits: ((W_dec * norm_weight) @ W_U).std(correction=0))


@output_effect.mistake("unbiased-spread", "Your standard deviation divides by d_vocab - 1. The whole vocabulary is there: divide by d_vocab.")
def _(W_dec, norm_weight, W_U, words):
    return _lead(W_dec, norm_weight, W_U, words, correction=1)


@output_effect.mistake("best-word-only", "You took the largest of the wanted words. Asked for is their mean: one lucky spelling should not be enough.", same_as=None)
def _(W_dec, norm_weight, W_U, words):
    logits = (W_dec * norm_weight) @ W_U
    return (logits[:, words].max(1).values - logits.mean(1)) / logits.std(1, correction=0)


wrong_ways(output_effect, _lead, {
    "sizes-without-signs": ({"magnitude": True}, "You took absolute values. A latent that pushes the words *down* is then a favourite."),
    "variance-for-spread": ({"spread": lambda logits: logits.var(1, correction=0)},
        "You divided by the variance. The unit of a logit is gone then, and long rows look weak."),
})


@output_effect.variant
def _(W_dec, norm_weight, W_U, words):
    """Standard scores of the whole table."""
    logits = torch.einsum("sd,d,dv->sv", W_dec, norm_weight, W_U)
    scores = (logits - logits.mean(dim=1, keepdim=True)) / logits.std(dim=1, unbiased=False, keepdim=True)
    return scores.index_select(1, words).mean(dim=1)


@output_effect.variant
def _(W_dec, norm_weight, W_U, words):
    """A loop over latents, with NumPy."""
    found = []
    for row in W_dec:
        logits = ((norm_weight * row) @ W_U).numpy()
        found.append((logits[words.numpy()].mean() - logits.mean()) / np.std(logits))
    return torch.tensor(np.array(found), dtype=W_dec.dtype)


@output_effect.variant
def _(W_dec, norm_weight, W_U, words):
    """The unembedding is centred first."""
    centred = torch.diag(norm_weight) @ (W_U - W_U.mean(1, keepdim=True))
    logits = W_dec @ centred
    return logits[:, words].mean(-1) / logits.square().mean(-1).sqrt()


# --- sparse_difference -------------------------------------------------------------------------------------


def _sparse_cases(rng: torch.Generator) -> Iterator[Case]:
    for n, d, keep, dtype in ((9, 5, 4, torch.float64), (7, 4, 3, torch.float32), (6, 3, 1, torch.float64)):
        # Sizes far apart, so that no two are equal; the largest is negative. Rows of different length, the longest where the contrast is small.
        sizes = torch.arange(n, 0, -1, dtype=torch.float64) + 0.5 * uniform(rng, n)
        signs = torch.tensor([-1.0, 1.0] * n)[:n].double()
        lengths = torch.linspace(1, 6, n, dtype=torch.float64)
        order = torch.randperm(n, generator=rng)
        rows = F.normalize(normal(rng, n, d), dim=1) * lengths[:, None]
        yield Case(f"{keep} of {n} latents, {d} dimensions", (sizes * signs).to(dtype)[order], rows.to(dtype)[order], keep)
    yield Case("every latent is kept", torch.tensor([1.0, -3.0, 2.0], dtype=torch.float64), normal(rng, 3, 5), 3).of("extreme")


sparse_difference = Exercise(
    "sparse_difference",
    ends={"keep": lambda a: (1, len(a["contrast"]))},
    without={**NOT_TRAINED, **NO_THRESHOLD, **ALL_COUNTS},
    difficulty=2,
    importance=4,
    minutes=8,
    learn="How a difference of means looks from inside an SAE, and how to keep only a part that you can read.",
    cases=_sparse_cases,
    hints=(
        "A latent that the topic switches *off* says as much as one that it switches on. What does that mean for choosing, and what for weighting?",
        "`contrast.abs().topk(keep)` gives values and indices. Which of the two has lost the signs?",
        "`contrast[chosen] @ W_dec[chosen]` is the direction before it is given length 1.",
    ),
    verified="contrasts of both signs, decoder rows of different lengths, one latent and several.",
    next="the cosine with the plain difference of means: how many latents does it take to reach 0.9?",
)


def _sparse(contrast, W_dec, keep, *, score=None, weights=None, rows=None):
    chosen = (contrast.abs() if score is None else score).topk(keep).indices
    direction = (contrast if weights is None else weights)[chosen] @ (W_dec if rows is None else rows)[chosen]
    return F.normalize(direction, dim=0), chosen


@sparse_difference.mistake("only-switched-on", "You kept the largest contrasts and left out those that are large and negative. What the topic switches off is part of the difference.")
def _(contrast, W_dec, keep):
    return _sparse(contrast, W_dec, keep, score=contrast)


@sparse_difference.mistake("signs-lost", "Your weights have lost their signs: what the topic switches off, you switch on.")
def _(contrast, W_dec, keep):
    return _sparse(contrast, W_dec, keep, weights=contrast.abs())


@sparse_difference.mistake("equal-weights", "Every latent that you kept counts the same. The contrast is not only for choosing, it is also the weight.", same_as=None)
def _(contrast, W_dec, keep):
    return _sparse(contrast, W_dec, keep, weights=torch.ones_like(contrast))


@sparse_difference.mistake("length-not-one", "Your direction does not have length 1. Its strength would depend on the topic, and the comparison would be of lengths.")
def _(contrast, W_dec, keep):
    chosen = contrast.abs().topk(keep).indices
    return contrast[chosen] @ W_dec[chosen], chosen


@sparse_difference.mistake("nothing-left-out", "You used every latent. The direction is then the whole difference, seen through the SAE.")
def _(contrast, W_dec, keep):
    return F.normalize(contrast @ W_dec, dim=0), contrast.abs().topk(keep).indices


@sparse_difference.mistake("chosen-by-length", "You chose by contrast times the length of the decoder row. The choice is by contrast alone.")
def _(contrast, W_dec, keep):
    return _sparse(contrast, W_dec, keep, score=contrast.abs() * W_dec.norm(dim=1))


@sparse_difference.mistake("rows-made-equal", "You gave every decoder row length 1 first. A row is used as it is: that is what the SAE writes for one unit of the latent.")
def _(contrast, W_dec, keep):
    return _sparse(contrast, W_dec, keep, rows=F.normalize(W_dec, dim=1))


@sparse_difference.mistake("smallest-kept", "You kept the latents with the smallest contrast: the order is reversed.")
def _(contrast, W_dec, keep):
    return _sparse(contrast, W_dec, keep, score=-contrast.abs())


@sparse_difference.variant
def _(contrast, W_dec, keep):
    """A mask and the whole product."""
    chosen = torch.argsort(contrast.abs(), descending=True)[:keep]
    thin = torch.zeros_like(contrast)
    thin[chosen] = contrast[chosen]
    direction = W_dec.T @ thin
    return direction / torch.linalg.vector_norm(direction), chosen


@sparse_difference.variant
def _(contrast, W_dec, keep):
    """Plain Python chooses."""
    chosen = sorted(range(len(contrast)), key=lambda i: -abs(contrast[i].item()))[:keep]
    total = sum(contrast[i] * W_dec[i] for i in chosen)
    return total / total.square().sum().sqrt(), torch.tensor(chosen)


@sparse_difference.variant
def _(contrast, W_dec, keep):
    """gather and einsum."""
    _, chosen = contrast.square().topk(keep)
    direction = torch.einsum("s,sd->d", contrast.gather(0, chosen), W_dec.index_select(0, chosen))
    return F.normalize(direction, dim=-1), chosen.int()


# --- probe_push --------------------------------------------------------------------------------------------


def _push_cases(rng: torch.Generator) -> Iterator[Case]:
    for d, still, dtype in ((5, 0, torch.float64), (7, 2, torch.float32), (4, 1, torch.float64)):
        scale = 0.3 + 4 * uniform(rng, d)
        scale[torch.randperm(d, generator=rng)[:still]] = 0.0
        case = Case(f"{d} dimensions, {still} that never varied", normal(rng, d, dtype=dtype), scale.to(dtype))
        yield case.of("boundary") if still else case
    yield Case("one dimension alone ever varied", torch.tensor([2.0, -3.0, 1.0]), torch.tensor([0.0, 0.5, 0.0])).of("extreme")


probe_push = Exercise(
    "probe_push",
    scaled=("weights",),
    without={**NOT_TRAINED, **NO_MATRIX, **ALL_COUNTS},
    difficulty=2,
    importance=4,
    minutes=8,
    learn="What a probe that was trained on standardised activations recommends as a push, and how long a push of one unit of log-odds is.",
    cases=_push_cases,
    hints=(
        "Write the log-odds as a sum over dimensions. By how much do they rise when one dimension of x rises by 1?",
        "Those rises are a vector. Its direction is the direction; if x moves by 1 along it, by how much do the log-odds rise?",
        "`raw = weights / scale`, with 0 where the scale is 0, is the slope of the log-odds in x. How far must you walk up a slope of "
        "length `raw.norm()` to rise by 1?",
    ),
    verified="scales above and below 1, dimensions that never varied, the distance for one unit.",
    next="compare the distance with the usual length of an activation: how far does the probe want you to go?",
)


def _pushed(weights, scale, *, factor=None, distance=None, unit=True):
    raw = torch.where(scale > 0, weights / scale.clamp(min=1e-12), torch.zeros_like(weights)) if factor is None else factor
    norm = raw.norm()
    return (raw / norm if unit else raw), (1 / norm).item() if distance is None else float(distance(raw))


@probe_push.mistake("not-folded-back", "You pushed along the weights of the standardised activations. Dimensions of a large spread get too little of the division that the probe made.")
def _(weights, scale):
    return _pushed(weights, scale, factor=weights)


@probe_push.mistake("multiplied-by-the-scale", "You multiplied by the scale. The probe divided x by it, so one unit of a wide dimension moves the log-odds less, not more.")
def _(weights, scale):
    return _pushed(weights, scale, factor=weights * scale)


wrong_ways(probe_push, _pushed, {
    "length-not-one": ({"unit": False}, "Your direction does not have length 1, so a strength times it is not a distance."),
    "distance-upside-down": ({"distance": lambda raw: raw.norm()},
        "Your distance is how far the log-odds rise for one unit of x. Asked for is the reverse: how far x moves for one unit of log-odds."),
})


@probe_push.mistake("distance-in-standard-units", "Your distance is right for standardised activations. The push happens in raw ones.", same_as=None)
def _(weights, scale):
    return _pushed(weights, scale, distance=lambda raw: 1 / weights.norm())


@probe_push.mistake("squared-length", "Your distance divides by the squared length. Along the *unit* direction the log-odds rise by the length, once.")
def _(weights, scale):
    return _pushed(weights, scale, distance=lambda raw: 1 / raw.square().sum())


@probe_push.mistake("divided-by-zero", "A dimension that never varied has scale 0, and dividing by it gave infinity or NaN. It gets no push.")
def _(weights, scale):
    raw = weights / scale
    return raw / raw.norm(), (1 / raw.norm()).item()


@probe_push.mistake("scale-one-where-zero", "You put 1 in the place of a scale of 0, as scikit-learn does, and kept the weight. The probe never saw that dimension vary: it gets no push.")
def _(weights, scale):
    return _pushed(weights, scale, factor=weights / torch.where(scale > 0, scale, torch.ones_like(scale)))


@probe_push.mistake("variance-for-scale", "You divided by the scale twice. The probe standardised with the standard deviation, once.")
def _(weights, scale):
    return _pushed(weights, scale, factor=torch.where(scale > 0, weights / scale.square().clamp(min=1e-12), torch.zeros_like(weights)))


@probe_push.variant
def _(weights, scale):
    """A gradient."""
    x = torch.zeros_like(weights, requires_grad=True)
    inverse = torch.where(scale > 0, scale, torch.inf).reciprocal()
    (weights * x * inverse).sum().backward()
    slope = x.grad.norm()
    return x.grad / slope, slope.reciprocal().item()


@probe_push.variant
def _(weights, scale):
    """A loop."""
    raw = torch.zeros_like(weights)
    for i in range(len(weights)):
        if scale[i] != 0:
            raw[i] = weights[i] / scale[i]
    length = raw.square().sum().sqrt().item()
    return raw / length, 1 / length


@probe_push.variant
def _(weights, scale):
    """NumPy."""
    w, s = weights.numpy(), scale.numpy()
    raw = np.divide(w, s, out=np.zeros_like(w), where=s > 0)
    return torch.from_numpy(raw / np.linalg.norm(raw)), float(1 / np.linalg.norm(raw))


# --- choose_setting ----------------------------------------------------------------------------------------


def _setting_cases(rng: torch.Generator) -> Iterator[Case]:
    def tensor(*values: float) -> Tensor:
        return torch.tensor(values, dtype=torch.float64)

    jitter = float(torch.rand(1, generator=rng)) / 100
    yield Case("effect and cost rise together", tensor(0.1, 0.4, 0.6, 0.9) + jitter, tensor(1.0, 1.2, 1.6, 2.9), 1.5)
    yield Case("costs in no order", tensor(0.6, 0.2, 0.7, 0.5, 0.3), tensor(1.9, 1.1, 1.4, 1.2, 1.0) + jitter, 1.5)
    yield Case("a setting exactly at the budget", tensor(0.2, 0.5, 0.8), tensor(1.0, 1.5, 1.6), 1.5).of("boundary")
    yield Case("two settings of the same effect", tensor(0.1, 0.5, 0.5, 0.3), tensor(0.9, 1.4, 1.2, 1.45), 1.5)
    yield Case("the strongest broke down", tensor(0.3, 0.5, 0.9), tensor(1.1, 1.3, float("nan")), 1.5).of("nan")
    yield Case("nothing is affordable", tensor(0.3, 0.8), tensor(1.8, 1.6) + jitter, 1.5)
    yield Case("a little more for much more money", tensor(0.5, 0.55, 0.2), tensor(1.0, 1.4, 1.1), 1.5)
    yield Case("negative effects", tensor(-0.4, -0.2, -0.9), tensor(1.1, 1.2, 1.0), 1.5)
    yield Case("no settings", tensor(), tensor(), 1.5).of("extreme")
    nan = float("nan")
    yield Case("every setting broke down", tensor(0.3, 0.5), tensor(nan, nan), 1.5).of("nan")
    yield Case("the first broke down, and its effect is no number either", tensor(nan, 0.2, 0.4), tensor(nan, 1.2, 1.3), 1.5).of("nan")
    yield Case("a budget of 0", tensor(0.3, 0.9), tensor(0.0, 1.0), 0.0).of("boundary")
    yield Case("one setting, too dear", tensor(0.5), tensor(1.6), 1.5).of("extreme")
    yield Case("costs below 0", tensor(0.2, 0.5, 0.9), tensor(-3.0, -2.0, -1.0) - jitter, -2.0).of("extreme")
    yield Case("a cost a hair above the budget", tensor(0.5, 0.9), tensor(1.5, 1.5 + 1e-9), 1.5).of("boundary")


choose_setting = Exercise(
    "choose_setting",
    without={**NOT_TRAINED, **NO_MATRIX},
    difficulty=1,
    importance=5,
    minutes=8,
    learn="What makes a contest fair: every method spends the same budget, on prompts that do not count.",
    cases=_setting_cases,
    hints=(
        "First throw out what you cannot afford, then look for the best. What do you answer when nothing is left?",
        "For which of these is `cost <= budget` True: 1.4, 1.5 and NaN, with a budget of 1.5? And `cost > budget`?",
        "Keep the best number so far, -1 at first. Replace it when the pair (effect, minus cost) of an affordable setting is larger.",
    ),
    verified="costs in any order, one exactly at the budget, equal effects, a broken setting, negative effects, nothing affordable, nothing at all.",
    next="what would have been chosen without a budget, and what does its text read like?",
)


def _choose(effect, cost, *, allowed, key=None):
    found = [i for i in range(len(effect)) if allowed(cost[i].item())]
    if not found:
        return -1
    return max(found, key=lambda i: (effect[i].item(), -cost[i].item()) if key is None else key(i))


@choose_setting.mistake("no-budget", "The largest effect won, whatever it cost. With no limit the strongest setting always wins, and its text is noise.")
def _(effect, cost, budget):
    return int(effect.argmax()) if len(effect) else -1


@choose_setting.mistake("budget-excluded", "A setting that costs exactly the budget is affordable: compare with <=.")
def _(effect, cost, budget):
    return _choose(effect, cost, allowed=lambda c: c < budget)


@choose_setting.mistake("broken-setting-allowed", "A setting with a cost of NaN came through. Every comparison with NaN is False, so `cost > budget` does not throw it out.")
def _(effect, cost, budget):
    return _choose(effect, cost, allowed=lambda c: not c > budget)


@choose_setting.mistake("cheapest", "You took the cheapest setting. The budget is there to be spent: the largest effect within it is wanted.")
def _(effect, cost, budget):
    return _choose(effect, cost, allowed=lambda c: c <= budget, key=lambda i: -cost[i].item())


@choose_setting.mistake("dearest-affordable", "You took the most expensive setting within the budget. Stronger is not always better.")
def _(effect, cost, budget):
    return _choose(effect, cost, allowed=lambda c: c <= budget, key=lambda i: cost[i].item())


@choose_setting.mistake("effect-per-price", "You took the most effect for its price. What is within the budget is paid for already: the largest effect is wanted.")
def _(effect, cost, budget):
    return _choose(effect, cost, allowed=lambda c: c <= budget, key=lambda i: (effect[i] / cost[i]).item())


@choose_setting.mistake("first-of-equals", "Of two settings with the same effect you took the first. The one that costs less is wanted.")
def _(effect, cost, budget):
    return _choose(effect, cost, allowed=lambda c: c <= budget, key=lambda i: (effect[i].item(), -i))


@choose_setting.mistake("something-at-any-price", "Nothing was affordable, and you chose all the same. The answer is then -1: leave the model alone.")
def _(effect, cost, budget):
    best = _choose(effect, cost, allowed=lambda c: c <= budget)
    return int(effect.argmax()) if best < 0 and len(effect) else best


@choose_setting.mistake("number-within-the-affordable", "Your number counts only the affordable settings. It is wanted in the list of all.")
def _(effect, cost, budget):
    keep = cost <= budget
    best = _choose(effect[keep], cost[keep], allowed=lambda c: True)
    return best


@choose_setting.variant
def _(effect, cost, budget):
    """Masks."""
    keep = cost <= budget
    if not keep.any():
        return -1
    top = effect[keep].max()
    return int(torch.where(keep & (effect == top), cost, torch.inf).argmin())


@choose_setting.variant
def _(effect, cost, budget):
    """A sort."""
    order = sorted((-e, c, i) for i, (e, c) in enumerate(zip(effect.tolist(), cost.tolist())) if c <= budget)
    return order[0][2] if order else -1


@choose_setting.variant
def _(effect, cost, budget):
    """NumPy's lexsort."""
    at = np.flatnonzero(cost.numpy() <= budget)
    if at.size == 0:
        return -1
    return int(at[np.lexsort((cost.numpy()[at], -effect.numpy()[at]))[0]])


# --- effect_at_cost ----------------------------------------------------------------------------------------


def _front_cases(rng: torch.Generator) -> Iterator[Case]:
    def case(label: str, cost: list[float], effect: list[float], at: list[float], dtype: torch.dtype = torch.float64) -> Case:
        order = torch.randperm(len(cost), generator=rng)
        jitter = uniform(rng, 1) / 50
        return Case(label, (torch.tensor(effect, dtype=torch.float64) + jitter).to(dtype)[order], torch.tensor(cost, dtype=dtype)[order], torch.tensor(at, dtype=dtype))

    yield case("4 settings on the front", [1.0, 1.3, 1.9, 3.0], [0.0, 0.3, 0.7, 0.8], [1.15, 1.3, 2.5, 4.0]).of("boundary")
    yield case("6 settings, 2 of them beaten", [1.0, 1.2, 1.5, 1.8, 2.4, 2.9], [0.1, 0.5, 0.2, 0.6, 0.55, 0.9], [1.1, 1.5, 1.65, 2.4, 2.65])
    yield case("the dearest is beaten", [1.0, 1.6, 2.2, 2.8], [0.0, 0.8, 0.6, 0.3], [1.3, 2.2, 2.9], torch.float32)
    yield case("equal costs, cheaper than unsteered, too cheap", [0.8, 1.0, 1.5, 1.5, 2.0], [0.2, 0.1, 0.4, 0.7, 0.75], [0.5, 0.8, 1.0, 1.5, 1.75])
    yield case("one setting", [1.0], [0.4], [0.9, 1.0, 3.0]).of("extreme")
    yield case("effects below zero", [1.0, 1.5, 2.0], [-0.9, -0.6, -0.2], [1.25, 1.5, 1.8]).of("negative")
    yield case("two settings of equal effect, costs asked for in no order", [1.0, 2.0, 3.0, 4.0], [0.0, 0.5, 0.5, 0.9], [3.5, 1.5, 2.5]).of("boundary")
    yield case("no cost is asked for", [1.0, 2.0], [0.0, 0.5], []).of("extreme")
    mixed = case("effects of higher precision than the costs asked for", [1.0, 2.0], [0.0, 0.5], [1.5])
    yield Case(mixed.label, *mixed.args[:2], mixed.args[2].float()).of("extreme")


effect_at_cost = Exercise(
    "effect_at_cost",
    without={**NOT_TRAINED, **NO_MATRIX, **ALL_COUNTS},
    difficulty=3,
    importance=4,
    minutes=20,
    learn="How to compare two methods at the same price when neither of them was tried at exactly that price.",
    cases=_front_cases,
    hints=(
        "Sort by cost and walk from the cheapest up. When does a setting join the front? Only when it achieves more than everything that you have met.",
        "Two settings may have the same cost. Which of them should you meet first, and how do you sort so that you do?",
        "With the front as a list of (cost, effect): the last point with cost at most the wanted one, the first with more, and a straight line between "
        "them. One of the two may be missing.",
    ),
    verified="settings in any order, beaten ones, equal costs, a cost between two settings, on one, below the cheapest and beyond the dearest.",
    next="draw both curves. Does one lie above the other at every price?",
)


def _curve(points, at, dtype, *, step=False, left="nan", right="hold"):
    xs, ys = np.array([p[0] for p in points]), np.array([p[1] for p in points])
    found = []
    for a in at.tolist():
        if a < xs[0]:
            found.append(float("nan") if left == "nan" else float(ys[0]))
        elif a >= xs[-1]:
            if right == "line" and len(xs) > 1:
                found.append(float(ys[-1] + (ys[-1] - ys[-2]) / (xs[-1] - xs[-2]) * (a - xs[-1])))
            else:
                found.append(float("nan") if right == "nan" and a > xs[-1] else float(ys[-1]))
        else:
            i = int(np.searchsorted(xs, a, side="right"))
            found.append(float(ys[i - 1]) if step else float(ys[i - 1] + (ys[i] - ys[i - 1]) * (a - xs[i - 1]) / (xs[i] - xs[i - 1])))
    return torch.tensor(found, dtype=dtype)


def _front(effect, cost):
    front = []
    for c, e in sorted(zip(cost.tolist(), effect.tolist()), key=lambda p: (p[0], -p[1])):
        if not front or e > front[-1][1]:
            front.append((c, e))
    return front


@effect_at_cost.mistake("beaten-settings-kept", "You drew the line through every setting. One that costs more and achieves less than another is not on the front.")
def _(effect, cost, at):
    best = {}
    for c, e in zip(cost.tolist(), effect.tolist()):
        best[c] = max(e, best.get(c, -np.inf))
    return _curve(sorted(best.items()), at, effect.dtype)


@effect_at_cost.mistake("steps-not-lines", "Between two settings you hold the effect of the cheaper one. Tossing a coin between the two settings gives the straight line.")
def _(effect, cost, at):
    return _curve(_front(effect, cost), at, effect.dtype, step=True)


@effect_at_cost.mistake("line-drawn-on", "Beyond the dearest setting you went on with the last line. Nothing was measured there: the effect stays what it was.")
def _(effect, cost, at):
    return _curve(_front(effect, cost), at, effect.dtype, right="line")


@effect_at_cost.mistake("nothing-beyond-the-dearest", "With more to spend than the dearest setting costs, you can still have that setting: its effect, not NaN.")
def _(effect, cost, at):
    return _curve(_front(effect, cost), at, effect.dtype, right="nan")


@effect_at_cost.mistake("cheapest-carried-down", "Below the cheapest setting you answered with its effect. That price buys nothing that was tried: NaN.")
def _(effect, cost, at):
    return _curve(_front(effect, cost), at, effect.dtype, left="hold")


@effect_at_cost.mistake("dearest-of-all-ends-it", "Beyond the front you answered with the effect of the most expensive setting, although a cheaper one achieves more.")
def _(effect, cost, at):
    found, last = _curve(_front(effect, cost), at, effect.dtype), int(cost.argmax())
    return torch.where(at > max(c for c, _ in _front(effect, cost)), effect[last], found)


@effect_at_cost.mistake("effect-and-cost-exchanged", "Cost and effect are exchanged: you answer what an effect costs.")
def _(effect, cost, at):
    return _curve(_front(cost, effect), at, effect.dtype)


@effect_at_cost.mistake("nearest-setting", "You answered with the setting whose cost is nearest, even if it costs more than what there is to spend.")
def _(effect, cost, at):
    front = _front(effect, cost)
    return torch.tensor([min(front, key=lambda p: abs(p[0] - a))[1] if a >= front[0][0] else float("nan") for a in at.tolist()], dtype=effect.dtype)


@effect_at_cost.variant
def _(effect, cost, at):
    """numpy.interp on the front."""
    c, e = cost.double().numpy(), effect.double().numpy()
    order = np.lexsort((-e, c))
    c, e = c[order], e[order]
    on = np.concatenate([[True], e[1:] > np.maximum.accumulate(e)[:-1]])
    return torch.from_numpy(np.interp(at.double().numpy(), c[on], e[on], left=np.nan)).to(effect.dtype)


@effect_at_cost.variant
def _(effect, cost, at):
    """Who is beaten, by comparing all pairs."""
    beaten = ((cost[None] <= cost[:, None]) & (effect[None] >= effect[:, None]) & ((cost[None] < cost[:, None]) | (effect[None] > effect[:, None]))).any(1)
    c, order = cost[~beaten].sort()
    e = effect[~beaten][order]
    i = (torch.searchsorted(c, at, right=True) - 1).clamp(0, max(len(c) - 2, 0))
    j = (i + 1).clamp(max=len(c) - 1)
    share = torch.where(j > i, (at - c[i]) / (c[j] - c[i]), torch.zeros_like(at)).clamp(0, 1)
    return torch.where(at < c[0], torch.full_like(at, torch.nan), e[i] + share * (e[j] - e[i])).to(effect)


@effect_at_cost.variant
def _(effect, cost, at):
    """A loop that keeps the record."""
    pairs = sorted(zip(cost.tolist(), (-effect).tolist()))
    xs, ys = [], []
    for c, minus in pairs:
        if not ys or -minus > max(ys):
            xs.append(c)
            ys.append(-minus)
    result = torch.full_like(at, float("nan"), dtype=effect.dtype)
    for n, a in enumerate(at.tolist()):
        for x, y, x2, y2 in zip(xs, ys, xs[1:] + [float("inf")], ys[1:] + ys[-1:]):
            if x <= a < x2:
                result[n] = y if x2 == float("inf") else y + (y2 - y) * (a - x) / (x2 - x)
    return result


# --- paired_difference -------------------------------------------------------------------------------------


def _paired_cases(rng: torch.Generator) -> Iterator[Case]:
    for n, n_draws, dtype in ((12, 40, torch.float64), (9, 25, torch.float32), (15, 30, torch.float64)):
        base = 3 * normal(rng, n)  # the two scores of a prompt go together
        one, other = (base + 0.6 + 0.5 * normal(rng, n)).to(dtype), base.to(dtype)
        yield Case(f"{n} prompts, {n_draws} resamples", one, other, integers(rng, 0, n, n_draws, n))
    yield Case("one prompt", torch.tensor([2.5]), torch.tensor([3.0]), torch.zeros(4, 1, dtype=torch.long)).of("extreme")


paired_difference = Exercise(
    "paired_difference",
    without={**NOT_TRAINED, **NO_THRESHOLD, **ALL_COUNTS},
    difficulty=2,
    importance=5,
    minutes=10,
    learn="Why two methods whose intervals overlap can differ for certain.",
    cases=_paired_cases,
    hints=(
        "The same prompt gave both scores. What single number per prompt says how the methods differ on it?",
        "`draws` is [n_draws, n]. What is the shape of `gap[draws]`, and over which axis is its mean taken?",
        "`gap[draws]` has the differences of every resample in a row. One mean per row, then two quantiles over the rows; in which dtype?",
    ),
    verified="prompts whose two scores go together, resamples with repetition, both ends of the interval.",
    next="the interval of two independent lists of the same scores: how much wider is it?",
)


def _interval(values, low=0.025, high=0.975):
    return tuple(values.double().quantile(torch.tensor([low, high], dtype=torch.double)).tolist())


@paired_difference.mistake("drawn-independently", "You drew the prompts of the two methods independently. The luck of the prompts, which both share, then counts as uncertainty about their difference.")
def _(one, other, draws):
    return (one - other).mean().item(), *_interval(one[draws].mean(1) - other[draws.flip(0)].mean(1))


@paired_difference.mistake("other-minus-one", "The sign is reversed: a method that is better comes out as worse.")
def _(one, other, draws):
    return (other - one).mean().item(), *_interval((other - one)[draws].mean(1))


@paired_difference.mistake("ninety-percent", "Your interval leaves out 5% on each side. At 95% it is 2.5%.")
def _(one, other, draws):
    return (one - other).mean().item(), *_interval((one - other)[draws].mean(1), 0.05, 0.95)


@paired_difference.mistake("spread-of-prompts", "You took quantiles over single prompts. That is how much prompts differ, not how well the mean is known.")
def _(one, other, draws):
    return (one - other).mean().item(), *_interval(one - other)


@paired_difference.mistake("mean-of-the-resamples", "Your difference is the mean over the resamples. It is the mean over the prompts as they are; the resamples are for the interval.")
def _(one, other, draws):
    gaps = (one - other)[draws].mean(1)
    return gaps.mean().item(), *_interval(gaps)


@paired_difference.mistake("mean-over-resamples-first", "You averaged over the wrong axis: one number per resample is wanted, each the mean over its prompts.")
def _(one, other, draws):
    return (one - other).mean().item(), *_interval((one - other)[draws].mean(0))


@paired_difference.mistake("two-standard-deviations", "You took 1.96 standard deviations on each side. The quantiles of the resamples are asked for: they need not lie evenly.")
def _(one, other, draws):
    gaps, middle = (one - other)[draws].mean(1), (one - other).mean().item()
    return middle, middle - 1.96 * gaps.std().item(), middle + 1.96 * gaps.std().item()


@paired_difference.mistake("interval-of-one", "The interval is that of the first method alone, shifted. Both methods change from resample to resample.")
def _(one, other, draws):
    low, high = _interval(one[draws].mean(1))
    return (one - other).mean().item(), low - other.mean().item(), high - other.mean().item()


@paired_difference.variant
def _(one, other, draws):
    """Two means per resample, with the same draw."""
    gaps = one.double()[draws].mean(-1) - other.double()[draws].mean(-1)
    return float(one.double().mean() - other.double().mean()), float(gaps.quantile(0.025)), float(gaps.quantile(0.975))


@paired_difference.variant
def _(one, other, draws):
    """Counts of how often each prompt was drawn, and a product."""
    counts = torch.stack([torch.bincount(row, minlength=len(one)) for row in draws]).double()
    gaps = counts @ (one.double() - other.double()) / len(one)
    return (one.double() - other.double()).mean().item(), *np.quantile(gaps.numpy(), [0.025, 0.975]).tolist()


@paired_difference.variant
def _(one, other, draws):
    """A loop over resamples."""
    gap = [a - b for a, b in zip(one.tolist(), other.tolist())]
    means = [sum(gap[i] for i in row) / len(row) for row in draws.tolist()]
    return sum(gap) / len(gap), float(np.percentile(means, 2.5)), float(np.percentile(means, 97.5))


# --- label_shift -------------------------------------------------------------------------------------------


def _shift_cases(rng: torch.Generator) -> Iterator[Case]:
    for n, vocab, chosen, dtype in ((6, 9, 3, torch.float64), (4, 11, 1, torch.float32), (5, 8, 4, torch.float64)):
        before = 2 * normal(rng, n, vocab) + 5 * normal(rng, n, 1)  # a logit is known only up to a constant per context
        after = before + 1.5 * normal(rng, n, vocab) + 5 * normal(rng, n, 1)
        yield Case(f"{n} contexts, {vocab} words, {chosen} in the label", before.to(dtype), after.to(dtype), torch.randperm(vocab, generator=rng)[:chosen])
    far = 120 * uniform(rng, 3, 6, dtype=torch.float32)  # the label's words are e^-120 unlikely: 0 in float32, and their logarithms are not
    far[:, 0] = 120
    yield Case("logits from 0 to 120, float32", far, far.flip(0) * torch.tensor([1.0, 0.1, 0.2, 0.3, 0.4, 0.5]), torch.tensor([1, 2])).of("extreme")
    yield Case("every word is in the label", normal(rng, 3, 5), 2 + normal(rng, 3, 5), torch.randperm(5, generator=rng)).of("extreme")


label_shift = Exercise(
    "label_shift",
    without={**NOT_TRAINED, **NO_THRESHOLD, **ALL_COUNTS, "scale": "logits have no scale that is free: a difference of probabilities that differ by 1e-12 is rounding"},
    difficulty=2,
    importance=5,
    minutes=8,
    learn="How to test a latent's label by what the latent does, in nats and without generating a word.",
    cases=_shift_cases,
    hints=(
        "The probability that the next token is any of several tokens: is it a product, a mean or a sum of their probabilities?",
        "Print `before.softmax(-1)[:, words].shape`. Which axis goes, and what is left for every context?",
        "`before.softmax(-1)` is what the model would say in each context. Pick the columns, sum, and only then take logarithms: of which two numbers per context?",
    ),
    verified="several words and one, logits with another constant in every context, shifts up and down.",
    next="the same for words that have nothing to do with the label: an edit that shakes everything shifts those too.",
)


@label_shift.mistake("logits-compared", "You compared logits. A logit is known only up to a constant per context; the edit may have moved that constant and nothing else.")
def _(before, after, words):
    return after[:, words].logsumexp(-1) - before[:, words].logsumexp(-1)


@label_shift.mistake("before-minus-after", "The sign is reversed: a label that becomes likelier comes out negative.")
def _(before, after, words):
    return before.log_softmax(-1)[:, words].logsumexp(-1) - after.log_softmax(-1)[:, words].logsumexp(-1)


@label_shift.mistake("mean-of-logarithms", "You averaged the shift of every word. One spelling that nobody uses then counts as much as the one that is used; add the probabilities first.")
def _(before, after, words):
    return (after.log_softmax(-1) - before.log_softmax(-1))[:, words].mean(-1)


@label_shift.mistake("sum-of-logarithms", "You added the logarithms, which is the probability that *all* the words come, as if they could.")
def _(before, after, words):
    return (after.log_softmax(-1) - before.log_softmax(-1))[:, words].sum(-1)


@label_shift.mistake("difference-of-probabilities", "You subtracted probabilities. From 0.001 to 0.01 is then next to nothing, though the label has become ten times as likely: take logarithms.")
def _(before, after, words):
    return (after.softmax(-1) - before.softmax(-1))[:, words].sum(-1)


@label_shift.mistake("ratio", "You divided and did not take the logarithm.")
def _(before, after, words):
    return after.softmax(-1)[:, words].sum(-1) / before.softmax(-1)[:, words].sum(-1)


@label_shift.mistake("bits", "Your shift is in bits. Nats are asked for: the natural logarithm.")
def _(before, after, words):
    return after.softmax(-1)[:, words].sum(-1).log2() - before.softmax(-1)[:, words].sum(-1).log2()


@label_shift.mistake("log-odds", "You compared log-odds. Close to 0 they agree with the logarithm of the probability, elsewhere they do not.")
def _(before, after, words):
    p, q = before.softmax(-1)[:, words].sum(-1), after.softmax(-1)[:, words].sum(-1)
    return q.logit() - p.logit()


@label_shift.variant
def _(before, after, words):
    """logsumexp of log-probabilities."""
    return torch.logsumexp(after.log_softmax(-1)[:, words], 1) - torch.logsumexp(before.log_softmax(-1)[:, words], 1)


@label_shift.variant
def _(before, after, words):
    """Two logsumexps of logits each."""
    def log_p(logits):
        return logits.index_select(1, words).logsumexp(1) - logits.logsumexp(1)

    return log_p(after) - log_p(before)


@label_shift.variant
def _(before, after, words):
    """A loop over contexts."""
    rows = []
    for b, a in zip(before.double(), after.double()):
        rows.append((F.softmax(a, 0)[words].sum() / F.softmax(b, 0)[words].sum()).log())
    return torch.stack(rows).to(before)
