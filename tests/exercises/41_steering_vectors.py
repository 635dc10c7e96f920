"""The exercises of chapter 41: cases, named mistakes, other right answers and hints."""

from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from utils.course.battery import ALL_COUNTS, NO_MATRIX, NO_THRESHOLD, NOT_TRAINED
from utils.course.cases import integers, normal, right_padded, tiny, token_rows, uniform
from utils.course.exercises import Case, Exercise
from utils.hooks import intervene, resid_post, resid_pre, run_with_cache


# --- contrast_direction -----------------------------------------------------------------------------------


def _contrast_cases(rng: torch.Generator) -> Iterator[Case]:
    for label, n, pos, lengths, m, pos_too, lengths_too, d, dtype in (
        ("3 texts against 5, of unequal length", 3, 4, [4, 1, 3], 5, 6, [2, 6, 3, 1, 5], 7, torch.float64),
        ("4 texts against 2, float32", 4, 5, [5, 2, 3, 4], 2, 3, [3, 1], 9, torch.float32),
        ("1 text against 3", 1, 2, [2], 3, 4, [1, 4, 2], 5, torch.float64),
    ):
        positive, mask = normal(rng, n, pos, d, dtype=dtype) + 3, right_padded(lengths, pos)
        negative, mask_too = normal(rng, m, pos_too, d, dtype=dtype) - 1, right_padded(lengths_too, pos_too)
        # What stands at masked tokens must not matter; nor need the masked ones be the last.
        order = torch.randperm(pos, generator=rng)
        yield Case(label, positive[:, order], mask[:, order], negative, mask_too)
    one = torch.ones(1, 1, dtype=torch.bool)
    yield Case("one text of one token on each side", normal(rng, 1, 1, 6), one, normal(rng, 1, 1, 6), one).of("extreme")


contrast_direction = Exercise(
    "contrast_direction",
    without={**NOT_TRAINED, **NO_THRESHOLD, "nan": "activations are finite, at masked tokens too"},
    difficulty=2,
    importance=5,
    minutes=12,
    learn="How two piles of sentences become one direction, and which average comes first.",
    cases=_contrast_cases,
    hints=(
        "Three averages: over the tokens of a text, over the texts of a side, and then the difference. A masked token must not enter the first, neither its value nor its count.",
        "`mask` is [n, pos] and the activations are [n, pos, d_model]. Print `mask[..., None].shape`: over which axis does the product with the activations sum to one row per text?",
        "With `kept = mask[..., None].to(acts)`, a text's average is `(acts * kept).sum(dim=1) / kept.sum(dim=1)`.",
    ),
    verified="texts of unequal length and number on the two sides, masked tokens with values of their own, the sign, the length kept.",
    next="the next cell compares its length with that of an activation, before it steers anything.",
)


def _means(acts, mask):
    kept = mask[..., None].to(acts)
    return (acts * kept).sum(1) / kept.sum(1)


@contrast_direction.mistake("sign-reversed", "Your direction points from the positive texts to the negative ones: with a positive strength it makes the model sad.")
def _(positive, positive_mask, negative, negative_mask):
    return _means(negative, negative_mask).mean(0) - _means(positive, positive_mask).mean(0)


@contrast_direction.mistake("padding-counted", "You averaged over all positions. What stands at masked tokens is in your direction: the mask says which tokens count.")
def _(positive, positive_mask, negative, negative_mask):
    return positive.mean((0, 1)) - negative.mean((0, 1))


@contrast_direction.mistake("long-texts-count-more", "You averaged over all tokens of a side at once, so that a long text counts more than a short one. Average each text first.")
def _(positive, positive_mask, negative, negative_mask):
    return positive[positive_mask].mean(0) - negative[negative_mask].mean(0)


@contrast_direction.mistake("unit-length", "The direction is right and its length is 1. The specification keeps the length: it says how far apart the sides are.")
def _(positive, positive_mask, negative, negative_mask):
    return F.normalize(_means(positive, positive_mask).mean(0) - _means(negative, negative_mask).mean(0), dim=0)


@contrast_direction.mistake("divided-by-all-positions", "You set masked tokens to zero and then divided by the number of all positions: short texts shrink towards zero. Divide by the number of tokens that count.")
def _(positive, positive_mask, negative, negative_mask):
    zeroed = (positive * positive_mask[..., None]).mean(1).mean(0), (negative * negative_mask[..., None]).mean(1).mean(0)
    return zeroed[0] - zeroed[1]


@contrast_direction.mistake("last-token-only", "You took one token of each text. The specification averages over all that count.")
def _(positive, positive_mask, negative, negative_mask):
    def last(acts, mask):
        at = (mask * torch.arange(1, mask.shape[1] + 1)).argmax(1)
        return acts[torch.arange(len(acts)), at].mean(0)

    return last(positive, positive_mask) - last(negative, negative_mask)


@contrast_direction.mistake("sums-of-texts", "You added up the texts of a side instead of averaging them: with unequal numbers of texts, the larger side's common part stays in.")
def _(positive, positive_mask, negative, negative_mask):
    return _means(positive, positive_mask).sum(0) - _means(negative, negative_mask).sum(0)


@contrast_direction.variant
def _(positive, positive_mask, negative, negative_mask):
    sides = []
    for acts, mask in ((positive, positive_mask), (negative, negative_mask)):
        texts = [row[keep].mean(0) for row, keep in zip(acts, mask)]
        sides.append(torch.stack(texts).mean(0))
    return sides[0] - sides[1]


@contrast_direction.variant
def _(positive, positive_mask, negative, negative_mask):
    def side(acts, mask):
        weight = mask / mask.sum(1, keepdim=True) / len(mask)
        return torch.einsum("npd,np->d", acts, weight.to(acts))

    return side(positive, positive_mask) - side(negative, negative_mask)


@contrast_direction.variant
def _(positive, positive_mask, negative, negative_mask):
    def side(acts, mask):
        return acts.masked_fill(~mask[..., None], torch.nan).nanmean(1).mean(0)

    return side(positive, positive_mask) - side(negative, negative_mask)


# --- centred_on_topics ------------------------------------------------------------------------------------


def _topic_cases(rng: torch.Generator) -> Iterator[Case]:
    for label, sizes, d, dtype in (
        ("3 topics of 5, 2 and 4 texts, mixed", [5, 2, 4], 7, torch.float64),
        ("4 topics, one of a single text, float32", [3, 1, 6, 2], 5, torch.float32),
        ("2 topics of 2 and 7 texts", [2, 7], 11, torch.float64),
    ):
        topic = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
        topic = topic[torch.randperm(len(topic), generator=rng)]
        if bool((topic.diff() >= 0).all()):
            topic = topic.flip(0)
        centre = 4 + 2 * normal(rng, len(sizes), d)
        yield Case(label, (centre[topic] + normal(rng, len(topic), d)).to(dtype), topic)
    yield Case("one topic alone, which is the average topic", 4 + normal(rng, 3, 6), torch.zeros(3, dtype=torch.long)).of("extreme")


centred_on_topics = Exercise(
    "centred_on_topics",
    without={**NOT_TRAINED, **NO_THRESHOLD, **ALL_COUNTS},
    difficulty=2,
    importance=4,
    minutes=8,
    learn="How to find a direction for a thing that has no opposite.",
    cases=_topic_cases,
    hints=(
        "First one mean per topic, then one mean of those means. Subtract it from each.",
        "Print `acts[topic == 0].shape`. How many rows should your result have, and how many do the means have before you subtract?",
        "`means = torch.stack([acts[topic == k].mean(dim=0) for k in range(...)])`; what is the mean over its first axis?",
    ),
    verified="topics of unequal size in mixed order, a topic of one text, the mean over topics and not over texts.",
    next="the next cell steers with it, and with the raw mean beside it.",
)


def _topic_means(acts, topic):
    return torch.stack([acts[topic == k].mean(0) for k in range(int(topic.max()) + 1)])


@centred_on_topics.mistake("not-centred", "These are the raw means. Most of a mean is what all texts share; along it, every topic looks the same.")
def _(acts, topic):
    return _topic_means(acts, topic)


@centred_on_topics.mistake("mean-over-texts", "You subtracted the mean over all texts, in which a topic with many texts weighs more. The specification weighs every topic the same.")
def _(acts, topic):
    return _topic_means(acts, topic) - acts.mean(0)


@centred_on_topics.mistake("against-the-others", "You subtracted the mean of the *other* topics. That is a longer vector in the same direction; the specification subtracts the mean over all topics, this one included.")
def _(acts, topic):
    means = _topic_means(acts, topic)
    return means - (means.sum(0) - means) / (len(means) - 1)


@centred_on_topics.mistake("sign-reversed", "You subtracted the topic from the average: the directions point away from their topics.")
def _(acts, topic):
    means = _topic_means(acts, topic)
    return means.mean(0) - means


@centred_on_topics.mistake("centred-over-dimensions", "You subtracted from each topic the mean of its own entries. The mean that all topics share is a vector: the average over topics, dimension by dimension.")
def _(acts, topic):
    means = _topic_means(acts, topic)
    return means - means.mean(1, keepdim=True)


@centred_on_topics.mistake("order-of-appearance", "Your rows are in the order in which the topics appear. Row 0 belongs to topic 0.")
def _(acts, topic):
    order = list(dict.fromkeys(topic.tolist()))
    if order == sorted(order):
        order = order[::-1]
    means = _topic_means(acts, topic)
    return (means - means.mean(0))[order]


@centred_on_topics.variant
def _(acts, topic):
    one_hot = F.one_hot(topic).to(acts)
    means = one_hot.T @ acts / one_hot.sum(0)[:, None]
    return means - means.mean(0, keepdim=True)


@centred_on_topics.variant
def _(acts, topic):
    k = int(topic.max()) + 1
    sums = torch.zeros(k, acts.shape[1], dtype=acts.dtype).index_add_(0, topic, acts)
    means = sums / torch.bincount(topic)[:, None]
    centring = torch.eye(k, dtype=acts.dtype) - 1 / k
    return centring @ means


@centred_on_topics.variant
def _(acts, topic):
    means = [acts[[i for i, t in enumerate(topic.tolist()) if t == k]].mean(0) for k in sorted(set(topic.tolist()))]
    average = sum(means) / len(means)
    return torch.stack([mean - average for mean in means], dim=1).T


# --- push_usual_tokens ------------------------------------------------------------------------------------


def _push_cases(rng: torch.Generator) -> Iterator[Case]:
    for label, batch, pos, d, lengths, loud, length, dtype in (
        ("3 texts of 8, 5 and 6 tokens, loud tokens inside", 3, 8, 7, [8, 5, 6], [(0, 3, 30), (0, 5, 2.6), (1, 2, 3.6), (2, 5, 3.6), (2, 1, 2.6)], 2.5, torch.float64),
        ("2 texts, pushed the other way, float32", 2, 6, 9, [4, 6], [(0, 2, 3.6), (1, 4, 30), (1, 2, 2.6)], -1.5, torch.float32),
        ("4 texts, one of two tokens", 4, 7, 5, [7, 2, 5, 6], [(2, 3, 3.6), (0, 6, 30), (3, 2, 2.6)], 3.0, torch.float64),
    ):
        # Norms of 1 to 1.1, so that 3.6 times the usual is above 3 medians, and 2.6 times is not.
        acts = F.normalize(normal(rng, batch, pos, d), dim=-1) * (1 + 0.1 * uniform(rng, batch, pos, 1))
        acts[:, 0] *= 40
        # In a short text 3.6 times the usual is below 3 means, which it is part of; 30 times is not. Texts differ in scale.
        for row, at, loudness in loud:
            acts[row, at] *= loudness
        acts *= torch.logspace(0, 1.6, batch, dtype=torch.float64)[:, None, None]
        real = right_padded(lengths, pos)
        # Padding holds activations too, and large ones: a median that counts them is another.
        acts = torch.where(real[..., None], acts, 25 * acts)
        yield Case(label, acts.to(dtype), real, 3 * normal(rng, d, dtype=dtype), length)
    # An even number of real tokens behind the first: their lower median is another one once the first is counted.
    for label, norms, length in (("norms 90, 1, 1, 3.5 and 3.5", [90.0, 1, 1, 3.5, 3.5], 0.5), ("norms 60, 2, 9, 2.5, 9.5, 0 and 0", [60.0, 2, 9, 2.5, 9.5, 0, 0], -1.0)):
        sides = F.normalize(normal(rng, len(norms), 6), dim=-1)
        acts = (torch.tensor(norms, dtype=torch.float64)[:, None] * sides)[None]
        yield Case(label, acts, torch.tensor(norms)[None] > 0, normal(rng, 6), length)
    acts = torch.eye(5, dtype=torch.float64)[None] * torch.tensor([50.0, 2.0, 2.0, 6.0, 6.5], dtype=torch.float64)[:, None]
    yield Case("norms 50, 2, 2, 6 and 6.5: one of exactly 3 medians", acts, torch.ones(1, 5, dtype=torch.bool), normal(rng, 5), 0.7).of("boundary")
    yield Case("one text of two tokens", 3 * normal(rng, 1, 2, 4), torch.ones(1, 2, dtype=torch.bool), normal(rng, 4), 1.5).of("extreme")
    acts, real = normal(rng, 2, 6, 4), right_padded([4, 6], 6)
    acts[0, 4], acts[0, 5], acts[1, 0] = torch.nan, torch.inf, torch.inf
    yield Case("padding and a first token that are no numbers", acts, real, normal(rng, 4), 2.0).of("nan")


push_usual_tokens = Exercise(
    "push_usual_tokens",
    new=True,
    without=NOT_TRAINED,
    difficulty=3,
    importance=5,
    minutes=20,
    learn="The whole of activation steering in one hook, and the four kinds of token that it must not treat alike.",
    cases=_push_cases,
    hints=(
        "Decide first where, then how far. *Where* is one boolean per token; a token has to pass three tests.",
        "Which tokens may enter the median of a row? Print the norms of one text: the first is far above the others, and padding has a norm too.",
        "`norms.masked_fill(~candidate, torch.nan).nanmedian(dim=1, keepdim=True).values` is a median over the candidates alone, with candidate = real and not the first.",
    ),
    verified="the first token, loud tokens and padding left alone, one median per text over its own real tokens, a direction of any length, both signs.",
    next="this is what `steer` does for you from here on, in every layer of every batch.",
)


def _pushed(activation, usual, direction, length):
    return activation + usual[..., None] * (length * direction / direction.norm())


def _usual(activation, real, *, ratio=3.0, skip_first=True, first_in_median=False):
    norms = activation.norm(dim=-1)
    candidate = real.clone()
    candidate[:, 0] = False
    median = norms.masked_fill(~(real if first_in_median else candidate), torch.nan).nanmedian(1, keepdim=True).values
    return (candidate if skip_first else real) & (norms <= ratio * median)


@push_usual_tokens.mistake("everywhere", "You pushed every token, the first one, the loud ones and the padding among them. Which of them may be pushed?")
def _(activation, real, direction, length):
    return _pushed(activation, torch.ones_like(real), direction, length)


@push_usual_tokens.mistake("first-token-too", "You pushed the first token. Every other token attends to it as a place to rest, so a push there is a push everywhere, and more.")
def _(activation, real, direction, length):
    usual = _usual(activation, real)
    usual[:, 0] = True
    return _pushed(activation, usual, direction, length)


@push_usual_tokens.mistake("padding-too", "You pushed padding. It is not part of the text; `real` says what is.")
def _(activation, real, direction, length):
    return _pushed(activation, _usual(activation, real) | ~real, direction, length)


@push_usual_tokens.mistake("loud-tokens-too", "You pushed the tokens of unusual norm as well. Compare each token's norm with 3 times the median of its text.")
def _(activation, real, direction, length):
    usual = real.clone()
    usual[:, 0] = False
    return _pushed(activation, usual, direction, length)


@push_usual_tokens.mistake("direction-as-it-is", "You multiplied the length by the direction as it came. Its own length is not 1, so the push is too long or too short.")
def _(activation, real, direction, length):
    return activation + _usual(activation, real)[..., None] * (length * direction)


@push_usual_tokens.mistake("one-median-for-all", "You took one median over the whole batch. Texts differ in scale, and what is loud in one is usual in the next: each text has its own median.")
def _(activation, real, direction, length):
    norms = activation.norm(dim=-1)
    candidate = real.clone()
    candidate[:, 0] = False
    return _pushed(activation, candidate & (norms <= 3 * norms[candidate].median()), direction, length)


@push_usual_tokens.mistake("padding-in-the-median", "Padding entered the median. It has norms of its own, which say nothing about the text.")
def _(activation, real, direction, length):
    norms = activation.norm(dim=-1)
    candidate = real.clone()
    candidate[:, 0] = False
    return _pushed(activation, candidate & (norms <= 3 * norms[:, 1:].median(1, keepdim=True).values), direction, length)


@push_usual_tokens.mistake("first-token-in-the-median", "The first token entered the median. It is a hundred times as long as the others and says nothing about them: leave it out, as you leave it out of the push.")
def _(activation, real, direction, length):
    return _pushed(activation, _usual(activation, real, first_in_median=True), direction, length)


@push_usual_tokens.mistake("mean-instead-of-median", "You compared with the mean norm. The loud tokens are part of the mean and raise the bar for themselves; a median does not move.")
def _(activation, real, direction, length):
    norms = activation.norm(dim=-1)
    usual = real.clone()
    usual[:, 0] = False
    mean = (norms * usual).sum(1, keepdim=True) / usual.sum(1, keepdim=True)
    usual = usual & (norms <= 3 * mean)
    return _pushed(activation, usual, direction, length)


@push_usual_tokens.mistake("along-the-token", "You scaled each token along itself. A push adds the same vector to all of them.")
def _(activation, real, direction, length):
    return activation + _usual(activation, real)[..., None] * length * F.normalize(activation, dim=-1)


@push_usual_tokens.variant
def _(activation, real, direction, length):
    pushed = activation.clone()
    for row in range(len(activation)):
        norms = activation[row].norm(dim=-1)
        places = [i for i in range(1, activation.shape[1]) if real[row, i]]
        limit = 3 * norms[places].median()
        for i in places:
            if norms[i] <= limit:
                pushed[row, i] += length * direction / direction.norm()
    return pushed


@push_usual_tokens.variant
def _(activation, real, direction, length):
    norms = torch.linalg.vector_norm(activation, dim=2)
    keep = real & (torch.arange(real.shape[1]) > 0)
    median = torch.stack([row[k].median() for row, k in zip(norms, keep)])
    keep = keep & ~(norms > 3 * median[:, None])
    return torch.where(keep[..., None], activation + length * F.normalize(direction, dim=0), activation)


@push_usual_tokens.variant
def _(activation, real, direction, length):
    usual = _usual(activation, real).to(activation.dtype)
    return activation + torch.einsum("bp,d->dbp", usual, length * direction / direction.norm()).permute(1, 2, 0)


# --- generate_pushed --------------------------------------------------------------------------------------


def _pushed_cases(rng: torch.Generator) -> Iterator[Case]:
    model = tiny()
    for label, batch, pos, layer, length, n_new in (
        ("1 prompt of 4 tokens, 3 new ones, the first block", 1, 4, 0, 3.0, 3),
        ("8 prompts of 5 tokens, 4 new ones, the middle block", 8, 5, 1, 3.0, 4),
    ):
        tokens = token_rows(rng, batch, pos)
        name = resid_post(layer)
        usual = run_with_cache(model, tokens, name)[name][:, 1:].norm(dim=-1).median()
        # Some steps write the same words whether or not the first position is pushed as well: another one is drawn then.
        while True:
            step = length * usual * F.normalize(normal(rng, model.cfg.d_model, dtype=torch.float32), dim=0)
            if batch == 1 or not torch.equal(*(_written(model, tokens, layer, n_new, _from(start, step)) for start in (0, 1))):
                break
        yield Case(label, model, tokens, layer, step, n_new)
    yield Case("one new token", model, tokens[:3, :4], layer, step, 1).of("extreme")
    # A step at which the place matters: the last block is not the one before it, and the start token alone is not pushed.
    last, few, alone = model.cfg.n_layers - 1, tokens[:2, :4], tokens[:1, :1]
    while True:
        step = 3.0 * usual * F.normalize(normal(rng, model.cfg.d_model, dtype=torch.float32), dim=0)
        ways = (few, last, 1, few, last - 1, 1), (alone, 1, 1, alone, 1, 0)
        if not any(torch.equal(_written(model, a, m, 2, _from(i, step)), _written(model, b, n, 2, _from(j, step))) for a, m, i, b, n, j in ways):
            break
    yield Case("the last block", model, few, last, step, 2)
    yield Case("a prompt of the start token alone", model, alone, 1, step, 2).of("extreme")


generate_pushed = Exercise(
    "generate_pushed",
    ends={"layer": lambda a: (0, a["model"].cfg.n_layers - 1), "n_new": lambda a: (1,)},
    without={**NOT_TRAINED, **NO_THRESHOLD, **ALL_COUNTS, "scale": "the step's length decides which words are written"},
    difficulty=3,
    importance=5,
    minutes=20,
    learn="Steering from end to end by hand: a function at a hook point, registered, run once per new token, and removed.",
    cases=_pushed_cases,
    hints=(
        "Three parts: a function of (activation, hook) that returns what the model goes on with; something that registers it for as long as you need it; and a loop that grows the text by one token.",
        "Inside the function, print `activation.shape` once per call. It grows. Why, and which part of it is to be pushed each time?",
        "Open `with intervene(model, {resid_post(layer): your_function}, may_do_nothing=True):` around the loop, not inside it. In the loop, `model(text)[:, -1]` holds the logits of the next token of every row.",
    ),
    verified="several prompts and one, pushes in different blocks and both ways, every position but the first in every pass, the new tokens alone, no hook left.",
    next="the next cell lets the real model write with it.",
)


def _written(model, tokens, layer, n_new, push):
    """Greedy text under push(activation, length of the text so far)."""
    text = tokens
    with torch.no_grad():
        for _ in range(n_new):
            with intervene(model, {resid_post(layer): lambda acts, hook: push(acts.clone())}, may_do_nothing=True):
                text = torch.cat([text, model(text)[:, -1].argmax(-1, keepdim=True)], dim=1)
    return text[:, tokens.shape[1]:]


def _from(start, step):
    def push(acts):
        acts[:, start:] += step
        return acts

    return push


@generate_pushed.mistake("not-pushed", "This is what the model writes without a push. Is your function registered while the model runs, and does it return the changed activation?")
def _(model, tokens, layer, step, n_new):
    return _written(model, tokens, layer, n_new, lambda acts: acts)


@generate_pushed.mistake("first-token-too", "You pushed the first position as well. All others attend to it as a place to rest; leave it as it is.")
def _(model, tokens, layer, step, n_new):
    return _written(model, tokens, layer, n_new, _from(0, step))


@generate_pushed.mistake("last-position-only", "You pushed the last position alone. Every position but the first is pushed, those of the prompt and those already written.")
def _(model, tokens, layer, step, n_new):
    return _written(model, tokens, layer, n_new, _from(-1, step))


@generate_pushed.mistake("prompt-only", "You pushed the prompt's positions, and what was written afterwards is without a push. The text grows, and what is pushed grows with it.")
def _(model, tokens, layer, step, n_new):
    def push(acts):
        acts[:, 1:tokens.shape[1]] += step
        return acts

    return _written(model, tokens, layer, n_new, push)


@generate_pushed.mistake("new-tokens-only", "You pushed only what the model wrote itself. The prompt's positions after the first are pushed as well.")
def _(model, tokens, layer, step, n_new):
    return _written(model, tokens, layer, n_new, _from(tokens.shape[1], step))


@generate_pushed.mistake("before-the-block", "You pushed what *enters* the block. `resid_post(layer)` is the name of what leaves it.")
def _(model, tokens, layer, step, n_new):
    text = tokens
    with torch.no_grad(), intervene(model, {resid_pre(layer): lambda acts, hook: _from(1, step)(acts)}):
        for _ in range(n_new):
            text = torch.cat([text, model(text)[:, -1].argmax(-1, keepdim=True)], dim=1)
    return text[:, tokens.shape[1]:]


@generate_pushed.mistake("hooks-pile-up", "Your push grows with the text: one more hook is added with every new token, and none is removed before the end. Register it once, around the loop.")
def _(model, tokens, layer, step, n_new):
    text = tokens
    for count in range(1, n_new + 1):
        new = _written(model, text, layer, 1, _from(1, count * step))
        text = torch.cat([text, new], dim=1)
    return text[:, tokens.shape[1]:]


@generate_pushed.mistake("unit-length", "You normalised the step. It is added as it is: its length is the dose.")
def _(model, tokens, layer, step, n_new):
    return _written(model, tokens, layer, n_new, _from(1, step / step.norm()))


@generate_pushed.mistake("prompt-returned", "The prompt came back with the rest. Asked for are the new tokens alone.")
def _(model, tokens, layer, step, n_new):
    return torch.cat([tokens, _written(model, tokens, layer, n_new, _from(1, step))], dim=1)


@generate_pushed.variant
def _(model, tokens, layer, step, n_new):
    hooks = [(resid_post(layer), lambda acts, hook: torch.cat([acts[:, :1], acts[:, 1:] + step], dim=1))]
    text = tokens.clone()
    with torch.no_grad(), model.hooks(fwd_hooks=hooks):
        while text.shape[1] < tokens.shape[1] + n_new:
            text = torch.cat([text, model(text).log_softmax(-1)[:, -1].max(-1).indices[:, None]], dim=1)
    return text[:, -n_new:]


@generate_pushed.variant
def _(model, tokens, layer, step, n_new):
    first = (torch.arange(tokens.shape[1] + n_new) > 0)[:, None]
    new = []
    for _ in range(n_new):
        text = torch.cat([tokens, *new], dim=1)
        logits = model.run_with_hooks(text, fwd_hooks=[(resid_post(layer), lambda acts, hook: acts + first[: acts.shape[1]] * step)])
        new.append(logits[:, -1:].argmax(-1))
    return torch.cat(new, dim=1)


@generate_pushed.variant
def _(model, tokens, layer, step, n_new):
    def push(acts, hook):
        acts[:, 1:] = acts[:, 1:] + step
        return acts

    rows = []
    with torch.inference_mode(), intervene(model, {resid_post(layer): push}, may_do_nothing=True):
        for row in tokens:
            text = row[None]
            for _ in range(n_new):
                text = torch.cat([text, model(text)[:, -1].topk(1).indices], dim=1)
            rows.append(text[0, len(row):])
    return torch.stack(rows).clone()


# --- continuation_perplexity ------------------------------------------------------------------------------


def _perplexity_cases(rng: torch.Generator) -> Iterator[Case]:
    for label, batch, pos, vocab, start, end, dtype in (
        ("3 texts, prompts of 2, 4 and 1 tokens", 3, 8, 5, [2, 4, 1], [7, 6, 8], torch.float64),
        ("4 texts, one continuation of one token, float32", 4, 6, 9, [1, 3, 2, 4], [6, 4, 5, 6], torch.float32),
        ("1 text, all but its first token", 1, 4, 7, [1], [3], torch.float64),
    ):
        tokens = integers(rng, 0, vocab, batch, pos)
        case = Case(label, 2 * normal(rng, batch, pos, vocab, dtype=dtype) + 5, tokens, torch.tensor(start), torch.tensor(end))
        yield case.of("boundary") if batch == 1 else case  # its first token that counts follows the first of all, its end is not the text's
    tokens = torch.tensor([[0, 3, 1, 2], [0, 2, 2, 4]])
    logits = 120 * uniform(rng, 2, 4, 5, dtype=torch.float32)  # probabilities as small as e^-120 are 0 in float32; their logarithms are not
    yield Case("logits from 0 to 120, float32", logits * torch.tensor([0.0, 1.0, 0.1, 0.6, 1.0]), tokens, torch.tensor([2, 3]), torch.tensor([4, 4])).of("extreme")


continuation_perplexity = Exercise(
    "continuation_perplexity",
    without={**NOT_TRAINED, "nan": "logits are finite, those behind the end too"},
    difficulty=3,
    importance=5,
    minutes=15,
    learn="How to ask one model what it thinks of another one's text, and which logits belong to which token.",
    cases=_perplexity_cases,
    hints=(
        "The logits at a position are about the token *after* it. Line the two up first, then choose the tokens that count.",
        "Print `logits[:, :-1].shape` and `tokens[:, 1:].shape`. To which position of the text does their first column belong?",
        "`log_probs.gather(2, tokens[:, 1:, None])[..., 0]` has in column j the log-probability of token j + 1; keep the columns where start <= j + 1 < end.",
    ),
    verified="the shift by one, prompts and padding left out, natural logarithms, a mean per text before the exponential.",
    next="the next cell lets the plain model judge texts of itself and of a steered one.",
)


def _next_log_probs(logits, tokens):
    return logits[:, :-1].log_softmax(-1).gather(2, tokens[:, 1:, None])[..., 0]


def _surprise(of_next, start, end, first=1):
    position = torch.arange(first, first + of_next.shape[1])
    keep = (position >= start[:, None]) & (position < end[:, None])
    return -(of_next * keep).sum(1) / keep.sum(1)


@continuation_perplexity.mistake("not-shifted", "You read at each token what the model expects *after* it, and scored the token itself. The logits at position j are about token j + 1.")
def _(logits, tokens, start, end):
    return _surprise(logits.log_softmax(-1).gather(2, tokens[..., None])[..., 0], start, end, 0).exp()


@continuation_perplexity.mistake("prompt-included", "You scored the prompt as well. Its tokens were given, not written; they dilute the difference between two continuations.")
def _(logits, tokens, start, end):
    return _surprise(_next_log_probs(logits, tokens), torch.ones_like(start), end).exp()


@continuation_perplexity.mistake("padding-included", "You scored what stands after the end of a text. That is padding: `end` is the position after the last token that counts.")
def _(logits, tokens, start, end):
    return _surprise(_next_log_probs(logits, tokens), start, torch.full_like(end, tokens.shape[1])).exp()


@continuation_perplexity.mistake("no-exponential", "These are nats per token, the logarithm of what is asked for.")
def _(logits, tokens, start, end):
    return _surprise(_next_log_probs(logits, tokens), start, end)


@continuation_perplexity.mistake("sign-lost", "Your numbers are below 1: you have left out the minus sign. A perplexity of 1 is no surprise at all, and there is nothing below it.")
def _(logits, tokens, start, end):
    return (-_surprise(_next_log_probs(logits, tokens), start, end)).exp()


@continuation_perplexity.mistake("mean-of-perplexities", "You took the exponential of every token first and then the mean. One very unlikely token then decides the text; the mean belongs inside.")
def _(logits, tokens, start, end):
    each = (-_next_log_probs(logits, tokens)).exp()
    return -_surprise(each, start, end)


@continuation_perplexity.mistake("first-token-dropped", "You left out the first token of the continuation: its probability stands in the logits of the prompt's last token.")
def _(logits, tokens, start, end):
    short = end - start == 1
    return torch.where(short, torch.nan, _surprise(_next_log_probs(logits, tokens), torch.where(short, start, start + 1), end).exp())


@continuation_perplexity.mistake("base-two", "You used base 2 for the exponential and natural logarithms for the probabilities. The two must be the same.")
def _(logits, tokens, start, end):
    return 2 ** _surprise(_next_log_probs(logits, tokens), start, end)


@continuation_perplexity.variant
def _(logits, tokens, start, end):
    values = []
    for row in range(len(tokens)):
        nats = [F.cross_entropy(logits[row, j - 1], tokens[row, j]) for j in range(int(start[row]), int(end[row]))]
        values.append(torch.stack(nats).mean().exp())
    return torch.stack(values)


@continuation_perplexity.variant
def _(logits, tokens, start, end):
    loss = F.cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten(), reduction="none").view(len(tokens), -1)
    columns = torch.arange(1, tokens.shape[1])
    loss = loss.masked_fill((columns < start[:, None]) | (columns >= end[:, None]), torch.nan)
    return torch.exp(loss.nanmean(dim=1))


@continuation_perplexity.variant
def _(logits, tokens, start, end):
    of_next = logits[:, :-1].gather(2, tokens[:, 1:, None])[..., 0] - logits[:, :-1].logsumexp(-1)
    upto = F.pad(of_next.cumsum(1), (1, 0))
    rows = torch.arange(len(tokens))
    return torch.exp((upto[rows, start - 1] - upto[rows, end - 1]) / (end - start))


# --- distinct_runs ----------------------------------------------------------------------------------------


def _runs_cases(rng: torch.Generator) -> Iterator[Case]:
    few = ["sea", "The", "the", "wind", "so"]

    def text(words: int, choices: list[str]) -> list[str]:
        return [choices[i] for i in integers(rng, 0, len(choices), words).tolist()]

    yield Case("runs of 2 in texts of 9, 1, 14 and 2 words", [text(9, few), ["so"], text(14, few[:3]), ["the", "The"]], 2)
    yield Case("runs of 3, a text that repeats itself", [["a", "b", "c"] * 4, text(12, few[1:4]), ["x", "y"], [*"abcabd"], ["The", "the", "The", "the", "The"]], 3)
    yield Case("single words, and a text without any", [text(8, few), [], ["wind", "wind", "Wind"]], 1)
    yield Case("words that look like other words when glued together", [["ab", "c", "a", "bc", "ab", "c"], ["a b", "c", "a", "b c"]], 2)
    yield Case("texts of exactly n words, and of one less", [["a", "b", "a"], ["a", "b"], ["c", "c", "c"]], 3).of("boundary")
    yield Case("a text without a word", [[], ["so", "so"]], 1).of("extreme")
    yield Case("runs of 4", [["a", "b", "c", "d", "a", "b", "c", "e"], ["a", "b", "c"], text(12, few[:2])], 4)


distinct_runs = Exercise(
    "distinct_runs",
    ends={"n": lambda a: (1, max(map(len, a["texts"])), max(map(len, a["texts"])) + 1)},
    without={**NOT_TRAINED, **NO_MATRIX, **ALL_COUNTS, "scale": "words have no scale", "negative": "words have no sign"},
    difficulty=1,
    importance=3,
    minutes=8,
    learn="A measure of babble that no language model has a say in.",
    cases=_runs_cases,
    hints=(
        "List all runs of a text, then compare how many there are with how many different ones there are.",
        "A text of 5 words has how many runs of 2? Check your count on `['a', 'b', 'c', 'd', 'e']` before you divide.",
        "`[tuple(words[i : i + n]) for i in range(len(words) - n + 1)]` are all runs; `set` keeps the different ones.",
    ),
    verified="runs of 1, 2 and 3 words, texts that are too short, repeated phrases, capitals, one number per text.",
    next="put it beside perplexity: a text that repeats one likely phrase has a good perplexity and few distinct runs.",
)


def _all_runs(words, n):
    return [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]


def _share(part, whole):
    return part / whole if whole else float("nan")


@distinct_runs.mistake("single-words", "You counted single words whatever n is. A text can use few words and never repeat a phrase.")
def _(texts, n):
    return torch.tensor([_share(len(set(words)), len(words)) if len(words) >= n else float("nan") for words in texts])


@distinct_runs.mistake("divided-by-words", "You divided by the number of words. A text of 5 words has only 4 runs of 2: even without any repetition you would stay below 1.")
def _(texts, n):
    return torch.tensor([_share(len(set(_all_runs(words, n))), len(words)) if len(words) >= n else float("nan") for words in texts])


@distinct_runs.mistake("all-texts-together", "You counted over all texts together. Two texts that share a phrase then count as repetition; the specification asks for one number per text.")
def _(texts, n):
    runs = [run for words in texts for run in _all_runs(words, n)]
    return torch.tensor([_share(len(set(runs)), len(runs))] * len(texts))


@distinct_runs.mistake("case-ignored", "You made all words lower case. Here case counts.")
def _(texts, n):
    runs = [_all_runs([word.lower() for word in words], n) for words in texts]
    return torch.tensor([_share(len(set(each)), len(each)) for each in runs])


@distinct_runs.mistake("side-by-side", "You cut each text into pieces that do not overlap. Runs overlap: a text of 5 words has 4 runs of 2.")
def _(texts, n):
    runs = [[tuple(words[i : i + n]) for i in range(0, len(words) - n + 1, n)] for words in texts]
    return torch.tensor([_share(len(set(each)), len(each)) for each in runs])


@distinct_runs.mistake("last-run-missed", "Your runs end one too early: the last one of each text is missing.")
def _(texts, n):
    runs = [_all_runs(words[:-1], n) for words in texts]
    return torch.tensor([_share(len(set(each)), len(each)) for each in runs])


@distinct_runs.mistake("repetition-instead", "That is the share of the runs that repeat an earlier one. Asked for is the share of the different ones.")
def _(texts, n):
    runs = [_all_runs(words, n) for words in texts]
    return torch.tensor([1 - _share(len(set(each)), len(each)) for each in runs])


@distinct_runs.mistake("zero-for-short-texts", "A text that is too short for a run got 0, the score of the worst babble. It has no score: NaN.")
def _(texts, n):
    runs = [_all_runs(words, n) for words in texts]
    return torch.tensor([_share(len(set(each)), len(each)) if each else 0.0 for each in runs])


@distinct_runs.variant
def _(texts, n):
    found = torch.full((len(texts),), torch.nan)
    for i, words in enumerate(texts):
        runs = list(zip(*(words[k:] for k in range(n))))
        if runs:
            found[i] = len(set(runs)) / len(runs)
    return found


@distinct_runs.variant
def _(texts, n):
    shares = []
    for words in texts:
        seen, total = [], 0
        for i in range(len(words) - n + 1):
            total += 1
            if words[i : i + n] not in seen:
                seen.append(words[i : i + n])
        shares.append(np.nan if total == 0 else len(seen) / total)
    return torch.tensor(shares, dtype=torch.float32)


@distinct_runs.variant
def _(texts, n):
    def one(words):
        counts = {}
        for i in range(max(0, len(words) - n + 1)):
            run = "\x00".join(words[i : i + n])
            counts[run] = counts.get(run, 0) + 1
        return len(counts) / sum(counts.values()) if counts else float("nan")

    return torch.tensor([[one(words), 0.0] for words in texts])[:, 0]


# --- best_cell --------------------------------------------------------------------------------------------


def _cell_cases(rng: torch.Generator) -> Iterator[Case]:
    def grid(layers: int, doses: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
        effect = uniform(rng, layers, doses)
        cost = 5 + 20 * uniform(rng, layers, doses)
        return effect.to(dtype), cost.to(dtype)

    effect, cost = grid(4, 3)
    effect[2, 1], cost[2, 1] = 1.5, 40.0  # the strongest is too dear
    effect[0, 2], cost[0, 2] = 1.2, 11.0
    effect[3, 0], cost[3, 0] = 1.2, 9.0  # as strong, and cheaper
    effect[1, 1], cost[1, 1] = 0.3, 4.0  # the cheapest
    yield Case("the strongest is too dear, two are equally strong", effect, cost, 12.0)
    effect, cost = grid(3, 5, torch.float32)
    effect[1, 3], cost[1, 3] = 2.0, 15.0
    effect[2, 4], cost[2, 4] = 3.0, 15.25
    yield Case("a cost equal to the budget, float32", effect, cost, 15.0).of("boundary")
    effect, cost = grid(2, 4)
    cost[1, 2] = 4.5
    effect[1, 2] = 0.01
    effect[0, 1] = 0.99
    yield Case("nothing is within the budget", effect, cost, 2.0)
    effect, cost = grid(5, 2)
    effect[3, 0] = effect[1, 1] = 1.4
    cost[3, 0] = cost[1, 1] = 8.0
    yield Case("two cells equal in both", effect, cost, 30.0)
    effect, cost = -1 - grid(3, 3)[0], grid(3, 3)[1]
    cost[0, 0], effect[0, 0] = 40.0, -0.5
    cost[2, 1], effect[2, 1] = 6.0, -0.7
    yield Case("every effect is negative", effect, cost, 26.0)
    yield Case("one cell, which is too dear", torch.tensor([[0.4]]), torch.tensor([[9.0]]), 8.0).of("extreme")
    free = torch.tensor([[0.0, 3.0], [0.0, 1.0]], dtype=torch.float64)
    yield Case("a budget of 0", torch.tensor([[0.1, 0.9], [0.5, 0.7]], dtype=torch.float64), free, 0.0).of("boundary")
    yield Case("a budget below 0", torch.tensor([[0.1, 0.9], [0.5, 0.7]], dtype=torch.float64), free, -1.0).of("extreme")
    hair = torch.tensor([[1.0, 2.0], [3.0 + 1e-9, 1.0]], dtype=torch.float64)
    yield Case("a cost a hair above the budget", torch.tensor([[0.5, 0.5 + 1e-9], [0.9, 0.2]], dtype=torch.float64), hair, 3.0).of("boundary")


best_cell = Exercise(
    "best_cell",
    without={**NOT_TRAINED, **ALL_COUNTS},
    difficulty=2,
    importance=4,
    minutes=10,
    learn="How to choose a layer and a dose by a rule that is written down before the result is known.",
    cases=_cell_cases,
    hints=(
        "Strike out what is too dear, then take the strongest of what is left. What is left to decide when two are equally strong, and when nothing is left?",
        "`cost <= budget` is a boolean [layers, doses]. How many entries of it are True, and what should happen for 0?",
        "`min` over a list of (row, column) keeps the first of equals, and a key that is a pair settles two things in order. Which pair puts the strongest first, and the cheaper of two?",
    ),
    verified="a budget that binds, costs equal to the budget, equal effects, no cell within the budget, effects below zero, Python ints.",
    next="the search below uses it on validation prompts only; the test prompts are opened once.",
)


def _cells(effect):
    return [(row, column) for row in range(effect.shape[0]) for column in range(effect.shape[1])]


def _choose(effect, cost, allowed, tie=True):
    return min(allowed, key=lambda cell: (-float(effect[cell]), float(cost[cell]) if tie else 0.0))


def _cheapest(effect, cost):
    return min(_cells(effect), key=lambda cell: float(cost[cell]))


@best_cell.mistake("budget-ignored", "You took the strongest effect of all. Some cells cost more than the budget allows: at a high enough dose everything has an effect.")
def _(effect, cost, budget):
    return _choose(effect, cost, _cells(effect))


@best_cell.mistake("cheapest", "You took the cheapest cell. The budget is a limit, not a goal: within it, the effect decides.")
def _(effect, cost, budget):
    return _cheapest(effect, cost)


@best_cell.mistake("equal-is-too-dear", "A cost equal to the budget is allowed, and you left it out.")
def _(effect, cost, budget):
    allowed = [cell for cell in _cells(effect) if cost[cell] < budget]
    return _choose(effect, cost, allowed) if allowed else _cheapest(effect, cost)


@best_cell.mistake("ties-by-order", "Of two cells with the same effect you took the first. The cheaper one is asked for.")
def _(effect, cost, budget):
    allowed = [cell for cell in _cells(effect) if cost[cell] <= budget]
    return _choose(effect, cost, allowed, tie=False) if allowed else _cheapest(effect, cost)


@best_cell.mistake("flat-index", "You returned the place in the flattened grid. Asked for are the row and the column: `divmod` by the number of columns, or `torch.unravel_index`.")
def _(effect, cost, budget):
    allowed = [cell for cell in _cells(effect) if cost[cell] <= budget]
    row, column = _choose(effect, cost, allowed) if allowed else _cheapest(effect, cost)
    return row * effect.shape[1] + column


@best_cell.mistake("column-first", "Row and column have changed places: the layer comes first.")
def _(effect, cost, budget):
    allowed = [cell for cell in _cells(effect) if cost[cell] <= budget]
    row, column = _choose(effect, cost, allowed) if allowed else _cheapest(effect, cost)
    return column, row


@best_cell.mistake("zero-for-the-forbidden", "You set the effects that are too dear to 0 and took the maximum. When every effect is negative, 0 is the largest: a forbidden cell wins.")
def _(effect, cost, budget):
    kept = torch.where(cost <= budget, effect, torch.zeros_like(effect))
    if not (cost <= budget).any():
        return _cheapest(effect, cost)
    return _choose(kept, cost, _cells(effect))


@best_cell.mistake("effect-per-cost", "You maximised effect divided by cost. That prefers a tiny effect at a tiny cost; the rule asks for the strongest effect that the budget allows.")
def _(effect, cost, budget):
    ratio = effect / cost
    allowed = [cell for cell in _cells(effect) if cost[cell] <= budget]
    return _choose(ratio, cost, allowed) if allowed else _cheapest(effect, cost)


@best_cell.mistake("strongest-when-nothing-fits", "When no cell is within the budget you took the strongest. The rule asks for the cheapest then.")
def _(effect, cost, budget):
    allowed = [cell for cell in _cells(effect) if cost[cell] <= budget]
    return _choose(effect, cost, allowed or _cells(effect))


@best_cell.variant
def _(effect, cost, budget):
    best = None
    within = bool((cost <= budget).any())
    for row in range(effect.shape[0]):
        for column in range(effect.shape[1]):
            e, c = float(effect[row, column]), float(cost[row, column])
            if within and c > budget:
                continue
            key = (e, -c) if within else (-c,)
            if best is None or key > best[0]:
                best = (key, row, column)
    return best[1], best[2]


@best_cell.variant
def _(effect, cost, budget):
    allowed = cost <= budget
    if allowed.any():
        top = effect.masked_fill(~allowed, -torch.inf).max()
        candidates = allowed & (effect == top)
    else:
        candidates = torch.ones_like(allowed)
    flat = int(cost.masked_fill(~candidates, torch.inf).flatten().argmin())
    return divmod(flat, effect.shape[1])


@best_cell.variant
def _(effect, cost, budget):
    e, c = effect.flatten().double().numpy(), cost.flatten().double().numpy()
    order = np.lexsort((c, -e))
    inside = [int(i) for i in order if c[i] <= budget]
    i = inside[0] if inside else int(c.argmin())
    return int(i // effect.shape[1]), int(i % effect.shape[1])


# --- orthogonalise_writer ---------------------------------------------------------------------------------


def _writer_cases(rng: torch.Generator) -> Iterator[Case]:
    for label, d_model, d_in, dtype in (
        ("a matrix [7, 5]", 7, 5, torch.float64),
        ("a matrix [6, 11], float32", 6, 11, torch.float32),
        ("a square matrix, which tells nobody its sides", 4, 4, torch.float64),
    ):
        yield Case(label, normal(rng, d_model, d_in, dtype=dtype) + 0.5, 3 * normal(rng, d_model, dtype=dtype) + 1)
    axis = torch.zeros(5, dtype=torch.float64)
    axis[2] = -0.5
    yield Case("one input, and a direction along an axis", normal(rng, 5, 1), axis).of("extreme")


orthogonalise_writer = Exercise(
    "orthogonalise_writer",
    new=True,
    without={**NOT_TRAINED, **NO_THRESHOLD, **ALL_COUNTS},
    difficulty=3,
    importance=4,
    minutes=15,
    learn="How an edit of activations becomes an edit of weights, which costs nothing at run time and cannot be left on by accident.",
    cases=_writer_cases,
    hints=(
        "What the layer writes is weight @ x. Which part of it lies along the direction, for any x? That part is linear in x, so it is a matrix; take it away.",
        "Print `(unit @ weight).shape`. It says how much each *input* writes along the direction. Which matrix writes exactly that?",
        "`torch.outer(unit, unit @ weight)` writes, for every x, the component of weight @ x along unit.",
    ),
    verified="every output orthogonal to the direction, everything else unchanged, a direction of any length, a square matrix with its sides the right way round.",
    next="the refusal cells below compare it with ablating the activation: the two must agree.",
)


@orthogonalise_writer.mistake("wrong-side", "You took the direction out of the rows, which is what the layer *reads*. It now ignores part of its input, and can still write the direction.")
def _(weight, direction):
    if weight.shape[0] != weight.shape[1]:
        raise RuntimeError("the sizes do not match")
    unit = direction / direction.norm()
    return weight - torch.outer(weight @ unit, unit)


@orthogonalise_writer.mistake("not-normalised", "You used the direction with its own length. Then too much or too little of it is taken away: divide by its squared length, or normalise first.")
def _(weight, direction):
    return weight - torch.outer(direction, direction @ weight)


@orthogonalise_writer.mistake("kept-instead", "That is the part along the direction: you have kept what was to go, and thrown away the rest.")
def _(weight, direction):
    unit = direction / direction.norm()
    return torch.outer(unit, unit @ weight)


@orthogonalise_writer.mistake("reflected", "You subtracted the part twice: what the layer writes is now mirrored, and has as much of the direction as before, with the other sign.")
def _(weight, direction):
    unit = direction / direction.norm()
    return weight - 2 * torch.outer(unit, unit @ weight)


@orthogonalise_writer.mistake("divided-once", "You divided by the length once. The direction stands in the product twice, so its length does too.")
def _(weight, direction):
    return weight - torch.outer(direction, direction @ weight) / direction.norm()


@orthogonalise_writer.mistake("direction-subtracted", "You subtracted the direction from every column. That moves what the layer writes by a constant; it does not take away what varies along it.")
def _(weight, direction):
    unit = direction / direction.norm()
    return weight - unit[:, None]


@orthogonalise_writer.variant
def _(weight, direction):
    unit = direction / direction.norm()
    return (torch.eye(len(unit), dtype=weight.dtype) - unit[:, None] * unit[None, :]) @ weight


@orthogonalise_writer.variant
def _(weight, direction):
    columns = []
    for column in weight.T:
        columns.append(column - (column @ direction) / (direction @ direction) * direction)
    return torch.stack(columns, dim=1)


@orthogonalise_writer.variant
def _(weight, direction):
    along = torch.einsum("d,di->i", direction, weight) / direction.square().sum()
    return (weight.T - along[:, None] * direction).T
