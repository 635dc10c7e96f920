"""The exercises of chapter 12: cases, named mistakes, other right answers and hints."""

import math
from collections.abc import Iterator

import numpy as np
import torch
from sklearn.metrics import balanced_accuracy_score, recall_score, roc_auc_score
from torch import Tensor

from utils.course.battery import ALL_COUNTS, NOT_TRAINED, NO_MATRIX, NO_SCALE, NO_THRESHOLD
from utils.course.cases import integers, normal, shuffle, wrong_ways
from utils.course.exercises import Case, Exercise
from utils.probes import auroc, mass_mean


def _alternating(n: int) -> Tensor:
    """Labels in which any few neighbours hold both classes."""
    return torch.arange(n) % 2


# --- null_aurocs -------------------------------------------------------------------------------------------


def _orders(rng: torch.Generator, labels: Tensor, train: Tensor, n_null: int) -> Tensor:
    """Permutations that leave both classes in both parts."""
    orders = []
    while len(orders) < n_null:
        order = torch.randperm(len(labels), generator=rng)
        part = labels[order]
        if all(len(part[side].unique()) == 2 for side in (train, ~train)):
            orders.append(order)
    return torch.stack(orders)


def _null_cases(rng: torch.Generator) -> Iterator[Case]:
    def case(label: str, n: int, d_model: int, n_train: int, n_null: int, dtype: torch.dtype) -> Case:
        labels, train = _alternating(n), shuffle(rng, [1] * n_train + [0] * (n - n_train)).bool()
        # The real labels are easy to read, so that using them where the shuffled ones belong shows.
        acts = normal(rng, n, d_model, dtype=dtype) + 3 * labels[:, None].to(dtype)
        return Case(label, acts, labels, train, _orders(rng, labels, train, n_null))

    yield case("23 rows, 5 dimensions, 4 shuffles", 23, 5, 13, 4, torch.float64)
    yield case("30 rows, 7 dimensions, 6 shuffles, float32", 30, 7, 17, 6, torch.float32)
    yield Case("one shuffle, one test row of each class", torch.randn(6, 3, generator=rng, dtype=torch.float64), torch.tensor([0, 1, 1, 0, 0, 1]),
               torch.tensor([1, 1, 1, 1, 0, 0]).bool(), torch.tensor([[1, 0, 2, 3, 5, 4]])).of("extreme")
    yield Case("no shuffle", torch.randn(4, 2, generator=rng, dtype=torch.float64), torch.tensor([0, 1, 0, 1]),
               torch.tensor([1, 1, 0, 0]).bool(), torch.zeros(0, 4, dtype=torch.long)).of("extreme")


null_aurocs = Exercise(
    "null_aurocs",
    without={**NOT_TRAINED, **NO_THRESHOLD, **ALL_COUNTS},
    difficulty=2,
    importance=5,
    minutes=15,
    learn="What a probe scores when there is nothing to find, as a whole distribution rather than the number 0.5.",
    cases=_null_cases,
    hints=(
        "Pretend that each shuffled labelling is the truth of another world, and run your complete experiment in it. "
        "Which steps of the real experiment use the labels? All of those change.",
        "Inside the loop, print `shuffled[train].shape` and `shuffled[~train].shape`. Both a direction and a score need "
        "labels: which of the two goes where?",
        "For one `order`: `shuffled = labels[order]`; then `mass_mean` on `acts[train]` with the training part of "
        "`shuffled`, then `auroc` of the other rows' scores against the other part.",
    ),
    verified="two data sets with readable true labels: direction and score both use the shuffled labels, and nothing is folded at 0.5.",
    next="look at the histogram's width before you look at its mean.",
)


@null_aurocs.mistake(
    "scored-against-the-truth",
    "Your direction comes from shuffled labels, but the score is taken against the true ones. In the world that you are "
    "simulating, the shuffled labels are the truth: use them on both sides.",
)
def _(acts, labels, train, orders):
    scores = []
    for order in orders:
        direction, _ = mass_mean(acts[train], labels[order][train])
        scores.append(auroc(acts[~train] @ direction, labels[~train]))
    return torch.tensor(scores, dtype=torch.float64)


@null_aurocs.mistake(
    "trained-on-the-truth",
    "Your direction still comes from the true labels; only the test labels are shuffled. That measures how a fixed probe "
    "scores on noise, not how a probe fitted to noise scores.",
)
def _(acts, labels, train, orders):
    direction, _ = mass_mean(acts[train], labels[train])
    return torch.tensor([auroc(acts[~train] @ direction, labels[order][~train]) for order in orders], dtype=torch.float64)


def _nulls(acts, labels, train, orders, fit, score, fold=False):
    scores = []
    for order in orders:
        shuffled = labels[order]
        direction, _ = mass_mean(acts[fit], shuffled[fit])
        value = auroc(acts[score] @ direction, shuffled[score])
        scores.append(max(value, 1 - value) if fold else value)
    return torch.tensor(scores, dtype=torch.float64)


@null_aurocs.mistake(
    "scored-on-training-rows",
    "You scored the rows that made the direction. With more dimensions than rows, even noise separates its own training "
    "rows: this null sits far above 0.5, and every finding looks weak beside it.",
)
def _(acts, labels, train, orders):
    return _nulls(acts, labels, train, orders, train, train)


@null_aurocs.mistake(
    "fitted-on-all-rows",
    "Your direction was made from all rows, the test rows included. The null must break exactly one thing, the labels; "
    "the split stays as it was in the real experiment.",
)
def _(acts, labels, train, orders):
    return _nulls(acts, labels, train, orders, torch.ones_like(train), ~train)


@null_aurocs.mistake(
    "folded-at-one-half",
    "You turned values under 0.5 over, as if the probe could be flipped afterwards. The real probe is not flipped, so "
    "neither is its null. The left half of the histogram is information.",
)
def _(acts, labels, train, orders):
    return _nulls(acts, labels, train, orders, train, ~train, fold=True)


@null_aurocs.mistake(
    "rows-moved-with-labels",
    "You put the activations into the shuffled order too. Each row then keeps its own true label: nothing was shuffled, "
    "only the order of the rows and with it the split.",
)
def _(acts, labels, train, orders):
    return torch.stack([_nulls(acts[order], labels[order], train, torch.arange(len(labels))[None], train, ~train)[0] for order in orders])


@null_aurocs.mistake(
    "train-and-test-swapped",
    "The direction is made from the test rows and scored on the training rows. `train` is True where a row is used for "
    "the direction.",
)
def _(acts, labels, train, orders):
    return _nulls(acts, labels, train, orders, ~train, train)


@null_aurocs.variant
def _(acts, labels, train, orders):
    """Class means by hand, scikit-learn's AUROC."""
    out = []
    for order in orders.tolist():
        y = labels[order]
        a, b = acts[train], y[train]
        w = a[b == 1].sum(0) / (b == 1).sum() - a[b == 0].sum(0) / (b == 0).sum()
        out.append(roc_auc_score(y[~train], (acts[~train] @ w).numpy()))
    return torch.tensor(out, dtype=torch.float64)


@null_aurocs.variant
def _(acts, labels, train, orders):
    """All shuffles at once: directions by one matrix product, AUROC over pairs."""
    y = labels[orders].to(acts.dtype)
    a, b = y[:, train], 1 - y[:, train]
    directions = (a / a.sum(1, keepdim=True) - b / b.sum(1, keepdim=True)) @ acts[train]
    scores = directions @ acts[~train].T
    gap = scores[:, :, None] - scores[:, None, :]
    pair = (y[:, ~train, None] == 1) & (y[:, None, ~train] == 0)
    win = (gap > 0).double() + 0.5 * (gap == 0).double()
    return (win * pair).sum((1, 2)) / pair.sum((1, 2))


@null_aurocs.variant
def _(acts, labels, train, orders):
    """Filled into a column of a larger tensor, so that the result is not contiguous."""
    out = torch.zeros(len(orders), 2, dtype=torch.float64)
    for i in range(len(orders)):
        w, _ = mass_mean(acts[train], labels[orders[i]][train])
        out[i, 1] = auroc((acts @ w)[~train], labels[orders[i]][~train])
    return out[:, 1]


# --- permutation_p_value -----------------------------------------------------------------------------------


def _p_cases(rng: torch.Generator) -> Iterator[Case]:
    # Multiples of 1/64 are exact in binary, so that a tie is a tie.
    def sixty_fourths(n: int, low: int, high: int) -> list[float]:
        return (integers(rng, low, high, n) / 64).tolist()

    # More on the left than on the right, so that the sides can be told apart.
    null = [*sixty_fourths(20, 25, 40), *sixty_fourths(9, 2, 12), *sixty_fourths(4, 53, 62), 0.8125, 0.1875, 0.1875]
    mixed = torch.tensor(null)[torch.randperm(len(null), generator=rng)]
    yield Case("observed 0.8125 of 36 shuffles", 0.8125, mixed)
    yield Case("observed under chance, 0.1875, float64", 0.1875, mixed[:31].double())
    yield Case("observed 1.0, nothing as far", 1.0, mixed[5:24])
    yield Case("no shuffles at all", 0.75, torch.zeros(0))
    yield Case("as far on the other side", 0.9, torch.tensor([0.1, 0.5, 0.8999, 0.1001], dtype=torch.float64)).of("boundary")
    yield Case("observed exactly one half", 0.5, torch.tensor([0.5, 0.4, 0.9], dtype=torch.float64)).of("extreme")
    sides = torch.tensor([0.1, 0.2, 0.8, 0.9, 0.3, 0.7, 0.4, 0.6], dtype=torch.float64)
    for observed in (0.9, 0.8, 0.7, 0.1):
        yield Case(f"{observed} and its mirror image, not quite equal on a computer", observed, sides).of("boundary")
    close = torch.tensor([0.9 - 1e-5, 0.1 + 1e-6, 0.9 - 1e-7, 0.1 + 1e-8, 0.9 - 1e-12], dtype=torch.float64)
    yield Case("distances that differ by very little", 0.9, close).of("boundary")
    yield Case("the worst AUROC there is", 0.0, torch.tensor([0.0, 1.0, 0.75, 0.5], dtype=torch.float64)).of("extreme")


permutation_p_value = Exercise(
    "permutation_p_value",
    without={**NOT_TRAINED, **ALL_COUNTS, **NO_SCALE, **NO_MATRIX, "negative": "an AUROC is never negative"},
    difficulty=2,
    importance=4,
    minutes=8,
    learn="How to turn a null distribution into one number, and why that number is never zero.",
    cases=_p_cases,
    hints=(
        "Count the null values that are at least as surprising as yours. How do you measure surprise so that 0.1 and 0.9 "
        "are equal?",
        "Print `(null - 0.5).abs()` beside `abs(observed - 0.5)` for the docstring's example. Which of the three count, "
        "and where does the other half of the answer's 2 out of 4 come from?",
        "Count with a comparison of the two distances from 0.5 (allow it the 1e-9 of the docstring). For an empty null the "
        "answer is 1: which number stands above the fraction line then, and which below?",
    ),
    verified="both sides of 0.5, ties, an observed value that nothing reaches, an empty null.",
    next="ask how many shuffles it takes before p can be smaller than 0.001.",
)


def _far(observed, null):
    return (null - 0.5).abs() >= abs(observed - 0.5)


@permutation_p_value.mistake(
    "can-be-zero",
    "You left out the observed experiment. When no shuffle reaches it, your p is 0: you would claim certainty after a few "
    "dozen tries. The real labelling is one of the possible ones and counts on both sides of the fraction.",
)
def _(observed, null):
    return _far(observed, null).double().mean().item() if len(null) else 0.0


@permutation_p_value.mistake(
    "counted-once-only",
    "The observed experiment was added to the numerator and not to the denominator (or your denominator is the number of "
    "shuffles). With few shuffles p comes out too large; without any it is a division by zero.",
)
def _(observed, null):
    return (1 + int(_far(observed, null).sum())) / len(null)


@permutation_p_value.mistake(
    "one-side-only",
    "You counted values at or above the observed one. An AUROC far under 0.5 is as surprising as one far above it, and "
    "for an observed 0.19 your count is nearly everything.",
)
def _(observed, null):
    return (1 + int((null >= observed).sum())) / (1 + len(null))


@permutation_p_value.mistake(
    "ties-dropped",
    "A null value exactly as far from 0.5 as the observed one does not count in your version. It did as well as the real "
    "labels, so it belongs in the count.",
)
def _(observed, null):
    return (1 + int(((null - 0.5).abs() > abs(observed - 0.5)).sum())) / (1 + len(null))


@permutation_p_value.mistake(
    "the-other-share",
    "You returned the share of shuffles that are *less* extreme. A surprising result should get a small number.",
)
def _(observed, null):
    return (1 + int((~_far(observed, null)).sum())) / (1 + len(null))


@permutation_p_value.mistake(
    "one-side-doubled",
    "You doubled one tail. That equals the specification only for a symmetric null, and the null of a mass-mean probe "
    "need not be. Count the distance from 0.5 on both sides.",
)
def _(observed, null):
    tail = (null >= observed) if observed >= 0.5 else (null <= observed)
    return min(1.0, 2 * (1 + int(tail.sum())) / (1 + len(null)))


@permutation_p_value.mistake(
    "distance-from-zero",
    "You compared sizes, not distances from chance: an AUROC of 0.19 is then less extreme than one of 0.5. Subtract 0.5 "
    "on both sides before you take the absolute value.",
)
def _(observed, null):
    return (1 + int((null.abs() - 0.5 >= abs(observed - 0.5)).sum())) / (1 + len(null))


@permutation_p_value.variant
def _(observed, null):
    """A loop that starts with the observed experiment."""
    values = [observed, *null.tolist()]
    return sum(abs(value - 0.5) >= abs(observed - 0.5) - 1e-9 for value in values) / len(values)


@permutation_p_value.variant
def _(observed, null):
    """Two tails."""
    high, low = max(observed, 1 - observed), min(observed, 1 - observed)
    return (int(((null >= high - 1e-9) | (null <= low + 1e-9)).sum()) + 1) / (null.numel() + 1)


@permutation_p_value.variant
def _(observed, null):
    """NumPy, the observed value appended."""
    distance = np.abs(np.append(null.numpy().astype(float), observed) - 0.5)
    return float((distance >= distance[-1] - 1e-9).mean())


# --- mean_pooled_embedding ---------------------------------------------------------------------------------


def _pooled_cases(rng: torch.Generator) -> Iterator[Case]:
    def case(label: str, lengths: list[int], pos: int, d_vocab: int, d_model: int, dtype: torch.dtype) -> Case:
        tokens = integers(rng, 1, d_vocab, len(lengths), pos)
        tokens[:, 0] = 0
        # Padding is a real token's number, as in many tokenizers: only the mask tells.
        mask = torch.arange(pos) < torch.tensor(lengths)[:, None]
        tokens[~mask] = 1
        tokens[0, 2] = tokens[0, 1]
        return Case(label, normal(rng, d_vocab, d_model, dtype=dtype) + 1, tokens, mask)

    yield case("4 texts, up to 7 tokens, one token twice", [5, 7, 2, 4], 7, 11, 6, torch.float64)
    yield case("3 texts, float32", [4, 3, 6], 8, 13, 5, torch.float32)
    W = torch.arange(1.0, 13.0, dtype=torch.float64).reshape(6, 2) ** 2
    yield Case("the start token's number also stands in the text", W, torch.tensor([[2, 3, 2, 5], [2, 2, 4, 1]]), torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]], dtype=torch.bool))
    yield Case("one token behind the start", torch.randn(5, 3, generator=rng, dtype=torch.float64), torch.tensor([[1, 4, 0], [1, 2, 3]]),
               torch.tensor([[1, 1, 0], [1, 1, 1]]).bool()).of("extreme")


mean_pooled_embedding = Exercise(
    "mean_pooled_embedding",
    without={**NOT_TRAINED, **NO_THRESHOLD, **ALL_COUNTS},
    difficulty=2,
    importance=4,
    minutes=8,
    learn="How to build the strongest cheap rival of a probe: the same vectors before any layer has run.",
    cases=_pooled_cases,
    hints=(
        "Look every token up in W_E, then average over the tokens that count. Two kinds of columns do not: which?",
        "Print `W_E[tokens].shape` and `mask[..., None].shape`. Along which axis do you sum, and by what number is each "
        "text divided?",
        "Make a mask of the tokens that count: a copy of yours, without its first column's True. It has three uses: which "
        "vectors enter the sum, along which axis, and how many they are.",
    ),
    verified="texts of different lengths, padding that looks like a real token, a repeated token, float32 and float64.",
    next="train a probe on it. What it reaches, no layer needs to explain.",
)


def _weighted(W_E, tokens, weight):
    return torch.einsum("npd,np->nd", W_E[tokens], weight.to(W_E.dtype))


def _counted(mask):
    counted = mask.clone()
    counted[:, 0] = False
    return counted


@mean_pooled_embedding.mistake(
    "padding-counted",
    "Padding is in your mean. Short texts then look like the padding token, and a probe can read off how long a text is.",
)
def _(W_E, tokens, mask):
    return W_E[tokens[:, 1:]].mean(1)


@mean_pooled_embedding.mistake(
    "start-token-counted",
    "The start token is in your mean. It is the same in every text, so it says nothing, except that its share tells the "
    "probe how short the text is.",
)
def _(W_E, tokens, mask):
    return _weighted(W_E, tokens, mask / mask.sum(1, keepdim=True))


@mean_pooled_embedding.mistake(
    "sum-not-mean",
    "You returned the sum. A long text then has a long vector, and the baseline mixes words with length.",
)
def _(W_E, tokens, mask):
    return _weighted(W_E, tokens, _counted(mask))


@mean_pooled_embedding.mistake(
    "divided-by-the-row",
    "You summed the right tokens and divided by the number of columns, padding included. Each text has its own number of "
    "tokens that count.",
)
def _(W_E, tokens, mask):
    return _weighted(W_E, tokens, _counted(mask)) / mask.shape[1]


@mean_pooled_embedding.mistake(
    "last-token-only",
    "You returned the embedding of the last token. That is a baseline too, and a much weaker one: it knows one word.",
)
def _(W_E, tokens, mask):
    return W_E[tokens[torch.arange(len(tokens)), mask.sum(1) - 1]]


@mean_pooled_embedding.mistake(
    "each-token-once",
    "A token that occurs twice was counted once. The specification counts occurrences: the mean is over tokens, not types.",
)
def _(W_E, tokens, mask):
    return torch.stack([W_E[row[real].unique()].mean(0) for row, real in zip(tokens, _counted(mask))])


@mean_pooled_embedding.mistake(
    "start-token-in-the-count",
    "The start token is out of the sum and still in the count: you divide by one too many, and by relatively more in "
    "short texts.",
)
def _(W_E, tokens, mask):
    return _weighted(W_E, tokens, _counted(mask) / mask.sum(1, keepdim=True))


@mean_pooled_embedding.variant
def _(W_E, tokens, mask):
    """A loop over texts."""
    return torch.stack([W_E[row[real][1:]].mean(0) for row, real in zip(tokens, mask)])


@mean_pooled_embedding.variant
def _(W_E, tokens, mask):
    """A masked mean with NaN."""
    vectors = W_E[tokens[:, 1:]].masked_fill(~mask[:, 1:, None], torch.nan)
    return vectors.nanmean(1)


@mean_pooled_embedding.variant
def _(W_E, tokens, mask):
    """Counts per vocabulary entry times the embedding, the result transposed."""
    counts = W_E.new_zeros(len(tokens), len(W_E)).scatter_add(1, tokens[:, 1:], mask[:, 1:].to(W_E.dtype))
    return (W_E.T @ (counts / counts.sum(1, keepdim=True)).T).T


# --- control_labels ----------------------------------------------------------------------------------------


def _control_cases(rng: torch.Generator) -> Iterator[Case]:
    def draws(n: int) -> Tensor:
        # Both sides of 0.5 whatever the seed, and one draw exactly on it.
        values = torch.cat([0.45 * torch.rand(n // 2, generator=rng), 0.55 + 0.45 * torch.rand(n - n // 2 - 1, generator=rng), torch.tensor([0.5])])
        return values[torch.randperm(n, generator=rng)]

    def words(types: list[str], n: int) -> list[str]:
        rest = integers(rng, 0, len(types), n - len(types)).tolist()
        return [types[i] for i in [*reversed(range(len(types))), *rest]]

    types = ["answer", "call", "dance", "fight", "help", "look", "run", "smile", "turn", "walk", "wish"]
    yield Case("11 words, 25 rows", words(types, 25), draws(11))
    capital = [word.capitalize() if i % 3 else word for i, word in enumerate(words(types[:9], 31))]
    yield Case("9 words, some with a capital", capital, draws(9))
    yield Case('capitals, hyphens, accents and an apostrophe', ['bean', 'Apple', 're-run', 'rerun', 'ärger', 'Zebra', "it's", 'its', '_x', 'Apple', 'run.', 'run'], torch.tensor([0.1, 0.9, 0.2, 0.8, 0.3, 0.7, 0.15, 0.75, 0.05, 0.95, 0.35]))
    yield Case('every draw under a half', ['b', 'A'], torch.tensor([0.1, 0.4]))
    yield Case('capital that sorts first, lower case second', ['apple', 'Bean'], torch.tensor([0.9, 0.1]))
    yield Case("a draw of exactly one half, and the one below it", ["b", "a", "c"], torch.tensor([0.5, 0.49999997, 0.50000006])).of("boundary")
    yield Case("one word", ["Word"], torch.tensor([0.0])).of("extreme")
    yield Case("an empty word and one of another alphabet", ["a", "", "A", "Ω", "ω"], torch.tensor([0.1, 0.9, 0.2])).of("extreme")


control_labels = Exercise(
    "control_labels",
    without={**NOT_TRAINED, **ALL_COUNTS, **NO_SCALE, **NO_MATRIX, "negative": "draws are never negative"},
    difficulty=2,
    importance=5,
    minutes=8,
    learn="How to measure what a probe can do by memory alone.",
    cases=_control_cases,
    hints=(
        "The draw belongs to the type, not to the row. What decides which draw belongs to which type?",
        "Print `sorted(set(words))` and `len(draws)`. Do the two have the same length? If not, what makes two of your "
        "types one?",
        "Build a table from each lower-cased type to its place in the sorted order. What does that table give you per row, and "
        "what do you look up with it? A draw of exactly 0.5 makes which label?",
    ),
    verified="repeated words, words with a capital, a draw exactly on 0.5: the same type always has the same label.",
    next="train the probe on them. A probe that learns these labels can learn anything about a word.",
)


@control_labels.mistake(
    "one-draw-per-row",
    "The same word gets different labels on different rows. That is shuffling, which nothing can learn. A control task "
    "can be learned, word by word: that is what makes it a measure of memory.",
)
def _(words, draws):
    return (draws[torch.arange(len(words)) % len(draws)] < 0.5).long()


@control_labels.mistake(
    "order-of-appearance",
    "Your first draw goes to the type that appears first. The specification sorts the types: the labels of a word should "
    "not depend on the order of the rows.",
)
def _(words, draws):
    rank = {word: i for i, word in enumerate(dict.fromkeys(word.lower() for word in words))}
    return (draws[[rank[word.lower()] for word in words]] < 0.5).long()


@control_labels.mistake(
    "capitals-make-types",
    "`Run` and `run` got their own draws. They are the same type: lower-case before you look for the types.",
)
def _(words, draws):
    rank = {word: i for i, word in enumerate(sorted(set(words)))}
    return (draws[[rank[word] % len(draws) for word in words]] < 0.5).long()


@control_labels.mistake(
    "half-included",
    "A draw of exactly 0.5 became class 1. The specification says less than 0.5.",
)
def _(words, draws):
    rank = {word: i for i, word in enumerate(sorted({word.lower() for word in words}))}
    return (draws[[rank[word.lower()] for word in words]] <= 0.5).long()


@control_labels.mistake(
    "classes-swapped",
    "Your classes are exchanged: a draw of less than 0.5 is class 1. No score changes by it, but two people with the same "
    "draws should have the same labels.",
)
def _(words, draws):
    rank = {word: i for i, word in enumerate(sorted({word.lower() for word in words}))}
    return (draws[[rank[word.lower()] for word in words]] >= 0.5).long()


@control_labels.mistake(
    "one-label-per-type",
    "You returned one label per type. One per row was asked for: look each row's type up.",
)
def _(words, draws):
    return (draws < 0.5).long()


@control_labels.mistake(
    "half-the-alphabet",
    "You labelled the first half of the alphabet against the second. A probe that sees spelling could find that rule: a "
    "control task must have none. Let each type's own draw decide.",
)
def _(words, draws):
    rank = {word: i for i, word in enumerate(sorted({word.lower() for word in words}))}
    return torch.tensor([int(rank[word.lower()] < len(draws) / 2) for word in words])


@control_labels.variant
def _(words, draws):
    """numpy.unique sorts, and gives the inverse."""
    _, which = np.unique([word.lower() for word in words], return_inverse=True)
    return (draws < 0.5).long()[torch.from_numpy(which)]


@control_labels.variant
def _(words, draws):
    """A dict from type to label."""
    label = dict(zip(sorted({word.lower() for word in words}), draws.tolist()))
    return torch.tensor([int(label[word.lower()] < 0.5) for word in words])


@control_labels.variant
def _(words, draws):
    """list.index, row by row, as int32 values widened."""
    types = sorted(set(map(str.lower, words)))
    out = torch.zeros(len(words), dtype=torch.int32)
    for row, word in enumerate(words):
        out[row] = 1 if draws[types.index(word.lower())] < 0.5 else 0
    return out


# --- online_codelength -------------------------------------------------------------------------------------


def _code_cases(rng: torch.Generator) -> Iterator[Case]:
    def case(label: str, n: int, n_classes: int, first: int, dtype: torch.dtype = torch.float64) -> Case:
        log_probs = normal(rng, n, n_classes, dtype=dtype).log_softmax(1)
        labels = shuffle(rng, [i % n_classes for i in range(n)])
        return Case(label, log_probs, labels, first)

    yield case("13 rows, 3 classes, 4 before the first probe", 13, 3, 4)
    yield case("22 rows, 2 classes, 5 before the first probe, float32", 22, 2, 5, torch.float32)
    yield case("9 rows, 5 classes, a probe from the start", 9, 5, 0)
    yield case("6 rows, 3 classes, never a probe", 6, 3, 6)
    lp = torch.tensor([[0.2, 0.3, 0.5], [0.1, 0.6, 0.3], [0.25, 0.5, 0.25], [0.7, 0.2, 0.1]], dtype=torch.float64).log()
    yield Case('a class that never occurs', lp, torch.tensor([0, 1, 1, 0]), 1)
    lp = torch.log_softmax(torch.tensor([[0.0, 60.0, 3.0], [60.0, 0.0, 2.0], [1.0, 2.0, 0.0]], dtype=torch.float64), 1)
    yield Case('an event of nearly no probability', lp, torch.tensor([1, 1, 2]), 1)
    log_probs = torch.randn(7, 3, generator=rng, dtype=torch.float64).log_softmax(-1)
    log_probs[:2] = torch.nan
    yield Case("the rows before the first probe are not numbers", log_probs, torch.tensor([2, 0, 1, 1, 2, 0, 1]), 2).of("nan")
    yield Case("two classes, one row", torch.tensor([[0.25, 0.75]], dtype=torch.float64).log(), torch.tensor([1]), 0).of("extreme")
    unlikely = torch.tensor([[-900.0, 0.0], [0.0, -2000.0], [-1.2, -0.36]], dtype=torch.float64)
    yield Case("probabilities too small for a number", unlikely, torch.tensor([0, 1, 1]), 0).of("extreme")
    log_probs = torch.cat([torch.full((2, 2), -torch.inf, dtype=torch.float64), unlikely[2:].expand(2, 2)])
    yield Case("the rows before the first probe are infinite", log_probs, torch.tensor([0, 1, 1, 0]), 2).of("nan")


online_codelength = Exercise(
    "online_codelength",
    ends={"first": lambda a: (0, len(a["labels"]))},
    without={**NOT_TRAINED, **NO_THRESHOLD, **NO_SCALE},
    difficulty=3,
    importance=4,
    minutes=15,
    learn="How to charge a probe for the data it needs, not only for the errors it makes.",
    cases=_code_cases,
    hints=(
        "Two kinds of rows. What does one of the first rows cost, in bits, when all classes are equally likely? What does a "
        "later row cost whose true class got probability 1/4?",
        "Print `log_probs.shape` and `labels.shape`. You need one number per row out of the first: the one in the column "
        "that the label names.",
        "`gather` along dim 1 takes one number per row, in the column that an index of shape [n, 1] names. Those are natural "
        "logarithms of what was true: what makes them bits, and which sign has a cost?",
    ),
    verified="2, 3 and 5 classes, a probe from the start and never a probe; bits, the sign, and the compression.",
    next="compare two layers with equal accuracy: the one that needs fewer examples has the shorter code.",
)


def _code(log_probs, labels, first, *, unit=math.log(2), head=None, skip=None, reduce=Tensor.sum):
    n, n_classes = log_probs.shape
    skip = first if skip is None else skip
    head = first * math.log2(n_classes) if head is None else head
    bits = head - reduce(log_probs[torch.arange(n), labels][skip:]).item() / unit if n > skip else float(head)
    return bits, n * math.log2(n_classes) / bits if bits else math.inf


wrong_ways(online_codelength, _code, {
    "nats-beside-bits": ({"unit": 1.0},
        "Your later rows are in nats, the first ones in bits. A natural logarithm becomes bits when it is divided by the "
        "natural logarithm of 2."),
    "first-rows-free": ({"head": 0.0},
        "The first rows cost nothing in your code. Nobody can know their labels before they are sent: leaving them out makes "
        "every probe look as if it had learned from no data."),
    "first-rows-predicted": ({"head": 0.0, "skip": 0},
        "You charged the first rows by the probabilities that stand there. No probe existed yet, so they mean nothing; the "
        "uniform code applies."),
    "first-rows-twice": ({"skip": 0},
        "You added the uniform code for the first rows and charged their probabilities as well. Each row is sent once."),
    "mean-not-sum": ({"reduce": Tensor.mean}, "You averaged the later rows. A code is paid for in full: the number of bits is a sum over rows."),
    "sign-of-the-log": ({"unit": -math.log(2)},
        "Logarithms of probabilities are negative, and yours came into the sum with their own sign. A row costs "
        "log2(1 / p), which is positive."),
})


@online_codelength.mistake(
    "compression-upside-down",
    "Your compression is the online code over the uniform one. The specification has it the other way, so that larger is "
    "better and 1 is no gain.",
)
def _(log_probs, labels, first):
    bits, compression = _code(log_probs, labels, first)
    return bits, 1 / compression


@online_codelength.mistake(
    "one-bit-per-row",
    "You charged one bit for each row of the uniform code. That is right for two classes; with n_classes equally likely "
    "ones it is log2(n_classes).",
)
def _(log_probs, labels, first):
    bits, _ = _code(log_probs, labels, first, head=float(first))
    return bits, len(labels) / bits


@online_codelength.variant
def _(log_probs, labels, first):
    """torch's own loss, in nats until the end."""
    n, k = log_probs.shape
    nats = first * math.log(k) + torch.nn.functional.nll_loss(log_probs[first:], labels[first:], reduction="sum").item()
    return nats / math.log(2), n * math.log(k) / nats


@online_codelength.variant
def _(log_probs, labels, first):
    """A loop over rows."""
    bits = 0.0
    for i, label in enumerate(labels.tolist()):
        bits += math.log2(log_probs.shape[1]) if i < first else -log_probs[i, label].item() / math.log(2)
    return bits, len(labels) * math.log2(log_probs.shape[1]) / bits


@online_codelength.variant
def _(log_probs, labels, first):
    """The first rows overwritten with a uniform code, one-hot labels."""
    n, k = log_probs.shape
    code = torch.where(torch.arange(n)[:, None] < first, -math.log(k), log_probs.double())
    bits = -(code * torch.nn.functional.one_hot(labels, k)).sum() / math.log(2)
    return float(bits), float(n * math.log2(k) / bits)


# --- generalisation_matrix ---------------------------------------------------------------------------------


def _matrix_cases(rng: torch.Generator) -> Iterator[Case]:
    def case(label: str, sizes: list[int], d_model: int, dtype: torch.dtype) -> Case:
        labels = [_alternating(n) for n in sizes]
        train = [torch.tensor([1] * (n // 2 + 1) + [0] * (n - n // 2 - 1)).bool() for n in sizes]
        # Every topic is tilted its own way, so that the matrix is not symmetric and some entries lie under 0.5.
        acts = [normal(rng, n, d_model, dtype=dtype) + 0.8 * y[:, None].to(dtype) * normal(rng, d_model, dtype=dtype) + 2 * normal(rng, d_model, dtype=dtype)
                for n, y in zip(sizes, labels)]
        order = [torch.randperm(n, generator=rng) for n in sizes]
        return Case(label, [a[o] for a, o in zip(acts, order)], [y[o] for y, o in zip(labels, order)], [t[o] for t, o in zip(train, order)])

    yield case("3 topics of 25, 32 and 29 rows", [25, 32, 29], 6, torch.float64)
    yield case("4 topics of 23 to 40 rows, float32", [23, 31, 40, 28], 5, torch.float32)
    yield Case("one topic", [torch.randn(8, 3, generator=rng, dtype=torch.float64)], [torch.arange(8) % 2], [torch.arange(8) < 4]).of("extreme")


generalisation_matrix = Exercise(
    "generalisation_matrix",
    without={**NOT_TRAINED, **NO_THRESHOLD, **ALL_COUNTS},
    difficulty=2,
    importance=5,
    minutes=10,
    learn="How to ask a probe what it generalises to, all topics against all topics.",
    cases=_matrix_cases,
    hints=(
        "One direction per topic, scored on every topic. Which loop is the outer one if rows are what a probe was made on?",
        "Print the shapes that enter `auroc` for i = 0, j = 1. How many rows should there be: all of topic 1, or only some?",
        "The outer loop makes one direction, the inner one scores every topic's test rows with it. Which of `i` and `j` "
        "belongs to each of the four things that you index: acts and labels for making, acts and labels for scoring?",
    ),
    verified="topics of different sizes that disagree: rows are sources, columns are targets, and only test rows are scored.",
    next="read the rows first, then look for entries under 0.5: they are findings, not failures.",
)


def _matrix(acts, labels, train, fit, score, value=auroc):
    directions = [mass_mean(a[f], y[f])[0] for a, y, f in zip(acts, labels, fit)]
    return torch.tensor([[value(a[s] @ w, y[s]) for a, y, s in zip(acts, labels, score)] for w in directions], dtype=torch.float64)


def _others(train):
    return [~t for t in train]


def _everything(train):
    return [torch.ones_like(t) for t in train]


@generalisation_matrix.mistake(
    "rows-and-columns-swapped",
    "Your matrix is transposed: entry [i, j] is made on j and scored on i. The two differ: a general probe reads a narrow "
    "topic better than the other way round.",
)
def _(acts, labels, train):
    return _matrix(acts, labels, train, train, _others(train)).T


@generalisation_matrix.mistake(
    "scored-on-training-rows",
    "You scored the training rows of the target. On the diagonal those are the very rows that made the direction.",
)
def _(acts, labels, train):
    return _matrix(acts, labels, train, train, train)


@generalisation_matrix.mistake(
    "scored-on-all-rows",
    "You scored all rows of the target. On the diagonal most of them made the direction, so that the diagonal looks better "
    "than it is and the transfer worse beside it.",
)
def _(acts, labels, train):
    return _matrix(acts, labels, train, train, _everything(train))


@generalisation_matrix.mistake(
    "fitted-on-all-rows",
    "You made the directions from all rows, the test rows included. On the diagonal that is training on the test set.",
)
def _(acts, labels, train):
    return _matrix(acts, labels, train, _everything(train), _others(train))


@generalisation_matrix.mistake(
    "folded-at-one-half",
    "You turned values under 0.5 over. A probe that ranks another topic backwards is the most interesting entry of the "
    "matrix: it shows that the direction means something else there.",
)
def _(acts, labels, train):
    matrix = _matrix(acts, labels, train, train, _others(train))
    return torch.maximum(matrix, 1 - matrix)


@generalisation_matrix.mistake(
    "accuracy-at-the-source-threshold",
    "You returned accuracies at the source's threshold. The ranking was asked for: the next section shows how far the two "
    "can be apart.",
)
def _(acts, labels, train):
    rows = []
    for a, y, t in zip(acts, labels, train):
        w, threshold = mass_mean(a[t], y[t])
        rows.append([((b[~s] @ w > threshold) == (z[~s] == 1)).double().mean() for b, z, s in zip(acts, labels, train)])
    return torch.tensor(rows, dtype=torch.float64)


@generalisation_matrix.mistake(
    "diagonal-set-to-one",
    "You filled the diagonal with 1. A probe is not perfect on its own topic: the diagonal is what the other entries are "
    "compared with.",
)
def _(acts, labels, train):
    return _matrix(acts, labels, train, train, _others(train)).fill_diagonal_(1)


@generalisation_matrix.variant
def _(acts, labels, train):
    """Indices, scikit-learn's AUROC, filled entry by entry."""
    k = len(acts)
    out = torch.empty(k, k, dtype=torch.float64)
    for i in range(k):
        a, y = acts[i][train[i]], labels[i][train[i]]
        w = a[y == 1].mean(0) - a[y == 0].mean(0)
        for j in range(k):
            rest = ~train[j]
            out[i, j] = roc_auc_score(labels[j][rest], (acts[j][rest] @ w).numpy())
    return out


@generalisation_matrix.variant
def _(acts, labels, train):
    """Column by column, transposed at the end."""
    directions = torch.stack([mass_mean(a[t], y[t])[0] for a, y, t in zip(acts, labels, train)])
    columns = []
    for a, y, t in zip(acts, labels, train):
        scores = a[~t] @ directions.T
        columns.append(torch.tensor([auroc(column, y[~t]) for column in scores.T], dtype=torch.float64))
    return torch.stack(columns).T


@generalisation_matrix.variant
def _(acts, labels, train):
    """AUROC over pairs, the direction scaled to length 1, which changes no ranking."""
    def pairs(s, y):
        gap = s[y == 1][:, None] - s[y == 0]
        return ((gap > 0).double() + (gap == 0).double() / 2).mean().item()

    def unit(a, y, t):
        w, _ = mass_mean(a[t], y[t])
        return w / w.norm()

    return torch.tensor(
        [[pairs(b[~s] @ unit(a, y, t), z[~s]) for b, z, s in zip(acts, labels, train)] for a, y, t in zip(acts, labels, train)],
        dtype=torch.float64,
    )


# --- centre_by_topic ---------------------------------------------------------------------------------------


def _centre_cases(rng: torch.Generator) -> Iterator[Case]:
    def case(label: str, ids: list[int], counts: list[int], d_model: int, dtype: torch.dtype) -> Case:
        topics = shuffle(rng, [i for i, count in zip(ids, counts) for _ in range(count)])
        offset = torch.tensor([float(i) for i in topics])[:, None]
        return Case(label, (normal(rng, len(topics), d_model) * 2 + offset).to(dtype), topics)

    yield case("3 topics of 2, 5 and 4 rows", [0, 1, 2], [2, 5, 4], 6, torch.float64)
    yield case("topic ids with gaps, float32", [9, 3, 40], [4, 3, 6], 5, torch.float32)
    yield case("one topic", [2], [4], 3, torch.float64)
    yield Case('negative ids, and a topic of one row', torch.tensor([[1.0, 5.0], [10.0, 2.0], [3.0, -7.0], [4.0, 4.0]], dtype=torch.float64), torch.tensor([-7, 2, -7, 0]))
    yield Case("every row a topic of its own", torch.randn(4, 3, generator=rng, dtype=torch.float64), torch.tensor([9, 2, 5, -1])).of("extreme")
    yield Case("one row", torch.randn(1, 3, generator=rng, dtype=torch.float64), torch.tensor([4])).of("extreme")
    yield Case("centred already", torch.tensor([[1.0, -2.0], [-1.0, 2.0], [0.0, 0.0]], dtype=torch.float64), torch.tensor([3, 3, 8])).of("extreme")


centre_by_topic = Exercise(
    "centre_by_topic",
    new=True,
    without={**NOT_TRAINED, **NO_THRESHOLD, **ALL_COUNTS},
    difficulty=2,
    importance=4,
    minutes=8,
    learn="Why a threshold fails on a new topic while the ranking survives, and a repair that needs no labels.",
    cases=_centre_cases,
    hints=(
        "Each row loses the mean of the rows that share its topic. Which operation gives one mean per topic, and how does it "
        "get back to the rows?",
        "Print `topics.unique(return_inverse=True)`. Which of the two has one entry per row and can index a [n_topics, d_model] "
        "tensor of means?",
        "A loop over the distinct topics does it, with a mask of their rows. What must you make first so that the input is not "
        "changed?",
    ),
    verified="topics of different sizes, ids with gaps, one topic; spreads unchanged, the input untouched.",
    next="score a probe made on one topic on another, before and after.",
)


def _centred(acts, topics):
    out = acts.clone()
    for topic in topics.unique():
        out[topics == topic] -= acts[topics == topic].mean(0)
    return out


@centre_by_topic.mistake(
    "one-mean-for-all",
    "You subtracted one mean from all rows. The topics are still as far from each other as before, and the threshold of one "
    "still does not fit the other.",
)
def _(acts, topics):
    return acts - acts.mean(0)


@centre_by_topic.mistake(
    "spread-changed-too",
    "You also divided by the standard deviation. That stretches the quiet features up to the loud ones and turns every "
    "direction; only the centre was to move.",
)
def _(acts, topics):
    out = _centred(acts, topics)
    for topic in topics.unique():
        out[topics == topic] /= acts[topics == topic].std(0, correction=0)
    return out


@centre_by_topic.mistake(
    "centre-put-back",
    "You added the overall mean again. It does no harm to a ranking, but the specification puts the centre of every topic at "
    "the origin.",
)
def _(acts, topics):
    return _centred(acts, topics) + acts.mean(0)


@centre_by_topic.mistake(
    "mean-over-features",
    "You subtracted from each row the mean of its own features: that is half of LayerNorm. The mean that was asked for runs "
    "over the rows of a topic.",
)
def _(acts, topics):
    return acts - acts.mean(1, keepdim=True)


@centre_by_topic.mistake(
    "median-for-mean",
    "You subtracted the median. It resists outliers, and it is not the mean: the specification wants mean 0.",
)
def _(acts, topics):
    out = acts.clone()
    for topic in topics.unique():
        out[topics == topic] -= acts[topics == topic].median(0).values
    return out


@centre_by_topic.mistake(
    "first-topic-for-all",
    "You subtracted the same topic's mean everywhere. Every topic has its own.",
)
def _(acts, topics):
    return acts - acts[topics == topics.min()].mean(0)


@centre_by_topic.mistake(
    "sum-of-the-topic",
    "You subtracted the sum of the topic's rows instead of their mean: divide it by the number of rows in that topic.",
)
def _(acts, topics):
    same = (topics[:, None] == topics).to(acts.dtype)
    return acts - same @ acts


@centre_by_topic.mistake(
    "rows-sorted-by-topic",
    "The numbers are right and the rows are not where they were: they come out topic by topic. Keep the order of the input.",
)
def _(acts, topics):
    return torch.cat([acts[topics == topic] - acts[topics == topic].mean(0) for topic in topics.unique()])


@centre_by_topic.variant
def _(acts, topics):
    """A matrix that averages over rows of the same topic."""
    same = (topics[:, None] == topics).to(acts.dtype)
    return acts - same / same.sum(1, keepdim=True) @ acts


@centre_by_topic.variant
def _(acts, topics):
    """Row by row."""
    return torch.stack([row - acts[topics == topic].mean(0) for row, topic in zip(acts, topics)])


@centre_by_topic.variant
def _(acts, topics):
    """NumPy, feature by feature; transposed, so not contiguous."""
    _, which = np.unique(topics.numpy(), return_inverse=True)
    counts = np.bincount(which)
    columns = [column - (np.bincount(which, column) / counts)[which] for column in acts.double().numpy().T]
    return torch.from_numpy(np.stack(columns)).to(acts.dtype).T


# --- joint_groups ------------------------------------------------------------------------------------------


def _joint_cases(rng: torch.Generator) -> Iterator[Case]:
    # A chain: neighbours share one id and then the other, so that its ends are relatives of relatives only.
    chain_first, chain_second = [0, 0, 1, 1, 2, 2, 3], [10, 11, 11, 12, 12, 13, 13]
    loose_first, loose_second = [20, 21, 21, 22], [30, 31, 32, 33]
    order = torch.randperm(11, generator=rng)
    first, second = torch.tensor(chain_first + loose_first), torch.tensor(chain_second + loose_second)
    yield Case("11 rows, one long chain of relatives", first[order], second[order])
    # The same numbers in both columns, which mean different things.
    order = torch.randperm(8, generator=rng)
    yield Case("8 rows, ids that occur in both columns", torch.tensor([3, 3, 5, 7, 7, 9, 11, 12])[order], torch.tensor([5, 7, 3, 9, 11, 12, 20, 20])[order])
    yield Case("5 rows without relatives", torch.randperm(5, generator=rng), 10 + torch.randperm(5, generator=rng))
    yield Case("6 rows, each column joins what the other leaves apart", torch.tensor([4, 4, 6, 6, 8, 8]), torch.tensor([1, 2, 3, 4, 4, 5]))
    n = 20
    i = torch.arange(n)
    order = torch.tensor([13, 2, 17, 5, 8, 19, 0, 11, 6, 15, 3, 9, 1, 14, 7, 18, 4, 12, 16, 10])
    yield Case('one long chain, in no order', (i // 2)[order], ((i + 1) // 2)[order])
    yield Case('negative ids', torch.tensor([-3, 4, 4, 0, -1]), torch.tensor([-1, -6, 0, -1, -6]))
    yield Case('numbers in order of appearance although the last row joins two', torch.tensor([1, 2, 3, 4, 3]), torch.tensor([1, 2, 3, 4, 1]))
    yield Case('the last row joins the first and the third', torch.tensor([1, 2, 3, 1]), torch.tensor([1, 2, 3, 3]))
    yield Case('a late row merges the second and third group', torch.tensor([9, 8, 7, 6, 7]), torch.tensor([1, 2, 3, 4, 2]))
    yield Case("one row", torch.tensor([7]), torch.tensor([-2])).of("extreme")
    yield Case("all rows relatives", torch.tensor([4, 4, 4]), torch.tensor([1, 2, 3])).of("extreme")
    i = torch.arange(90)
    order = torch.randperm(90, generator=rng)
    yield Case("a very long chain", (i // 2)[order], ((i + 1) // 2)[order]).of("extreme")


joint_groups = Exercise(
    "joint_groups",
    without={**NOT_TRAINED, **NO_THRESHOLD, **ALL_COUNTS, **NO_MATRIX, "scale": "ids have no scale", "negative": "ids are integers; negative ones are among the cases"},
    difficulty=4,
    importance=4,
    minutes=20,
    learn="How to make a split that is safe against two leaks at once: shared entities and shared texts.",
    cases=_joint_cases,
    hints=(
        "Think of rows as islands and of a shared id as a bridge. Which islands can be reached from row 0, over any number of "
        "bridges?",
        "Start with `group = torch.arange(n)`. After one pass over `first` and one over `second`, print it for the docstring's "
        "example. Would a second pass change anything for a longer chain?",
        "Repeat until nothing changes: for each id of `first`, then of `second`, give all its rows the smallest group number "
        "among them. At the end, `unique(return_inverse=True)` numbers the groups 0, 1, 2, ...",
    ),
    verified="a chain of seven relatives in shuffled order, ids that mean different things in the two columns, rows without relatives.",
    next="count the groups: how many independent facts does the data set really hold?",
)


def _numbered(keys: list) -> Tensor:
    seen = {key: i for i, key in enumerate(dict.fromkeys(keys))}
    return torch.tensor([seen[key] for key in keys])


def _linked(first: list[int], second: list[int]) -> list[int]:
    """The smallest row number that each row can reach."""
    group = list(range(len(first)))
    for _ in first:
        for ids in (first, second):
            group = [min(g for g, other in zip(group, ids) if other == mine) for mine in ids]
    return group


@joint_groups.mistake(
    "first-id-only",
    "Your groups use `first` alone. Rows that share their `second` id can still land on both sides of a split.",
)
def _(first, second):
    return _numbered(first.tolist())


@joint_groups.mistake(
    "second-id-only",
    "Your groups use `second` alone. Rows that share their `first` id can still land on both sides of a split.",
)
def _(first, second):
    return _numbered(second.tolist())


@joint_groups.mistake(
    "both-ids-needed",
    "You grouped rows that share *both* ids. That makes groups smaller, and lets more relatives be separated, than using "
    "either id alone. One shared id is enough to make relatives.",
)
def _(first, second):
    return _numbered(list(zip(first.tolist(), second.tolist())))


@joint_groups.mistake(
    "one-pass-only",
    "Relatives of relatives are missing: you stopped after one pass over the two columns. In a chain of rows, each pass "
    "reaches one step further. When may you stop?",
)
def _(first, second):
    group = list(range(len(first)))
    for ids in (first.tolist(), second.tolist()):
        group = [min(g for g, other in zip(group, ids) if other == mine) for mine in ids]
    return _numbered(group)


@joint_groups.mistake(
    "columns-mixed",
    "You treated a number in `first` and the same number in `second` as the same id. They are ids of different kinds: city "
    "3 has nothing to do with text 3.",
)
def _(first, second):
    pairs = [{a, b} for a, b in zip(first.tolist(), second.tolist())]
    group = list(range(len(pairs)))
    for _ in pairs:
        group = [min(g for g, other in zip(group, pairs) if other & mine) for mine in pairs]
    return _numbered(group)


@joint_groups.mistake(
    "numbers-not-consecutive",
    "The groups are right and their numbers have gaps (each is named after its first row). The specification counts 0, 1, "
    "2, ... in the order in which the groups appear.",
)
def _(first, second):
    return torch.tensor(_linked(first.tolist(), second.tolist()))


@joint_groups.mistake(
    "everything-together",
    "All rows are in one group. That leaks nothing, and cannot be split. The smallest groups were asked for.",
)
def _(first, second):
    return torch.zeros_like(first)


@joint_groups.variant
def _(first, second):
    """Union-find."""
    parent = list(range(len(first)))

    def root(i):
        while parent[i] != i:
            i = parent[i]
        return i

    for ids in (first.tolist(), second.tolist()):
        met = {}
        for row, key in enumerate(ids):
            a, b = sorted((root(row), root(met.setdefault(key, row))))
            parent[b] = a
    return _numbered([root(i) for i in range(len(parent))])


@joint_groups.variant
def _(first, second):
    """Powers of the adjacency matrix."""
    near = ((first[:, None] == first) | (second[:, None] == second)).float()
    for _ in range(len(first)):
        near = (near @ near > 0).float()
    return _numbered(near.argmax(1).tolist())


@joint_groups.variant
def _(first, second):
    """SciPy's connected components, renumbered."""
    from scipy.sparse.csgraph import connected_components

    near = ((first[:, None] == first) | (second[:, None] == second)).numpy()
    return _numbered(connected_components(near, directed=False)[1].tolist())


# --- balanced_accuracy -------------------------------------------------------------------------------------


def _balanced_cases(rng: torch.Generator) -> Iterator[Case]:
    def case(label: str, counts: list[int], right: list[int], n_classes: int) -> Case:
        labels = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
        # The first right[c] rows of each class are answered correctly, the others with the next class.
        place = torch.cat([torch.arange(count) for count in counts])
        predicted = torch.where(place < torch.tensor(right)[labels], labels, (labels + 1) % n_classes)
        order = torch.randperm(len(labels), generator=rng)
        return Case(label, predicted[order], labels[order])

    def drawn(count: int) -> int:
        return int(integers(rng, 1, count, 1))

    yield case("2 classes of 17 and 4 rows", [17, 4], [16, drawn(4)], 2)
    yield case("3 classes of 5, 9 and 21 rows", [5, 9, 21], [drawn(4), 7, 12 + drawn(4)], 3)
    yield case("2 classes in the labels, a third is predicted", [6, 11], [drawn(6), 8], 3)
    yield Case('an answer that never changes', torch.tensor([1, 1, 1, 1, 1]), torch.tensor([1, 1, 1, 0, 2]))
    yield Case('classes 0 and 3 only', torch.tensor([0, 3, 3, 3, 1]), torch.tensor([0, 0, 3, 3, 3]))
    yield Case("one class in the labels", torch.tensor([2, 1, 2]), torch.tensor([2, 2, 2])).of("extreme")
    yield Case("one row", torch.tensor([0]), torch.tensor([1])).of("extreme")


balanced_accuracy = Exercise(
    "balanced_accuracy",
    without={**NOT_TRAINED, **NO_THRESHOLD, **ALL_COUNTS, **NO_MATRIX, "scale": "classes have no scale", "negative": "classes are counted from 0"},
    difficulty=1,
    importance=4,
    minutes=6,
    learn="Why an accuracy of 0.9 can be worth nothing, and what to report instead.",
    cases=_balanced_cases,
    hints=(
        "First a share of right answers within one class, then the same for every class, then their plain average.",
        "Print `labels.unique(return_counts=True)`. How many numbers do you average in the end: as many as rows, or as many as "
        "classes?",
        "Take the rows whose true class is c. Their share of right answers needs no other row. Which classes does the loop run "
        "over: those that are true somewhere, or those that are predicted?",
    ),
    verified="classes of very different sizes, three classes, a class that is predicted and never true.",
    next="give it an answer that never changes: it returns one over the number of classes.",
)


@balanced_accuracy.mistake(
    "plain-accuracy",
    "You averaged over rows. The larger class then decides: an answer that never changes scores that class's share.",
)
def _(predicted, labels):
    return (predicted == labels).double().mean().item()


@balanced_accuracy.mistake(
    "precision-for-recall",
    "You divided by how often each class was *predicted*. The share is within the true class: of the rows that are class c, "
    "how many were called c?",
)
def _(predicted, labels):
    return float(np.mean([((predicted == c) & (labels == c)).sum() / max(int((predicted == c).sum()), 1) for c in labels.unique()]))


@balanced_accuracy.mistake(
    "last-class-only",
    "You returned the share of one class. A probe that calls everything by that name would score 1.",
)
def _(predicted, labels):
    c = labels.max()
    return (predicted[labels == c] == c).double().mean().item()


@balanced_accuracy.mistake(
    "first-class-only",
    "You returned the share of class 0 alone. Average over all classes that occur in the labels.",
)
def _(predicted, labels):
    return (predicted[labels == 0] == 0).double().mean().item()


@balanced_accuracy.mistake(
    "predicted-classes-counted",
    "A class that never occurs in the labels pulled your average down. Nothing could have been right about it: average over "
    "the classes in `labels`.",
)
def _(predicted, labels):
    n = int(max(predicted.max(), labels.max())) + 1
    return sum((predicted[labels == c] == c).double().mean().item() if (labels == c).any() else 0.0 for c in range(n)) / n


@balanced_accuracy.mistake(
    "sum-not-average",
    "You added the classes' shares and did not divide by their number: with two classes the best answer gets 2.",
)
def _(predicted, labels):
    return sum((predicted[labels == c] == c).double().mean().item() for c in labels.unique())


@balanced_accuracy.mistake(
    "rescaled-for-chance",
    "You moved chance to 0. That is a fair measure with another name (scikit-learn's `adjusted=True`); here chance is one over "
    "the number of classes.",
)
def _(predicted, labels):
    k = len(labels.unique())
    value = np.mean([(predicted[labels == c] == c).double().mean().item() for c in labels.unique()])
    return float((value - 1 / k) / (1 - 1 / k))


@balanced_accuracy.variant
def _(predicted, labels):
    """scikit-learn's recall, averaged over the true classes."""
    return float(recall_score(labels.numpy(), predicted.numpy(), labels=labels.unique().tolist(), average="macro"))


@balanced_accuracy.variant
def _(predicted, labels):
    """Each row weighs one over the size of its class."""
    _, which, counts = labels.unique(return_inverse=True, return_counts=True)
    return float(((predicted == labels) / counts[which].double()).sum() / len(counts))


@balanced_accuracy.variant
def _(predicted, labels):
    """scikit-learn's own."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return float(balanced_accuracy_score(labels.numpy(), predicted.numpy()))


# --- diagnosis ---------------------------------------------------------------------------------------------

_REASONS = {
    1: "chosen-on-test",
    2: "twin-across-split",
    3: "read-padding",
    4: "label-in-prompt",
    5: "harmless",
    6: "majority-wins",
    7: "words-suffice",
    8: "repeated-rows",
}


def _diagnosis_cases(rng: torch.Generator) -> Iterator[Case]:
    for experiment in (torch.randperm(8, generator=rng) + 1).tolist():
        yield Case(f"experiment {experiment}", experiment)


diagnosis = Exercise(
    "diagnosis",
    ends={"experiment": lambda a: (1, 8)},
    without={kind: "eight questions with one answer each, and all are asked" for kind in ("gradient", "scale", "strided", "negative", "boundary", "extreme", "nan")},
    reveal=False,
    difficulty=3,
    importance=5,
    minutes=30,
    learn="How to find what is wrong with an experiment that looks fine.",
    cases=_diagnosis_cases,
    hints=(
        "Each experiment has one fault, and each reason fits one experiment. Start with those you are sure of and cross them "
        "off.",
        "For each experiment, print what the code really uses: the shapes of the training and test rows, the texts themselves, "
        "the label counts, the position that is read. One of them will surprise you.",
        "Ask of each: which rows made a choice? Which entity, or which text, is on both sides of the split? Which column is "
        "read? What does the text give away? What would a constant answer score, or the words alone? For the one that is left: "
        "how far would its number move? The function returns one entry of a tuple of eight, at `experiment - 1`.",
    ),
    verified="eight experiments, eight reasons, each in its place.",
    next="the repairs below: what does each fault cost, in AUROC or accuracy?",
)


def _but(**wrong: str):
    """The right diagnosis except for the given experiments, as e3="...": one wrong idea at a time."""
    table = _REASONS | {int(key[1:]): reason for key, reason in wrong.items()}
    return lambda experiment: table[experiment]


diagnosis.mistake(
    "layer-choice-called-harmless",
    "Experiments 1 and 5 are exchanged. In one, all rows entered a mean and a standard deviation, which hold no labels; in "
    "the other, the labels of the test rows decided what was reported. Which of the two can reward noise?",
)(_but(e1="harmless", e5="chosen-on-test"))
diagnosis.mistake(
    "twins-and-copies-exchanged",
    "Experiments 2 and 8 are exchanged. Look at two rows that are on different sides in each: in one they are the same "
    "string, in the other they are two different statements about the same thing.",
)(_but(e2="repeated-rows", e8="twin-across-split"))
diagnosis.mistake(
    "prompt-and-words-exchanged",
    "Experiments 4 and 7 are exchanged. In both, words decide. In one the words are part of what is asked about; in the "
    "other someone wrote the answer into the text.",
)(_but(e4="words-suffice", e7="label-in-prompt"))
diagnosis.mistake(
    "standardising-blamed",
    "Your fifth diagnosis takes the textbook's word for it: fitted on all rows, so leaked. The rule was broken. Compare the "
    "number with the repaired one before you say what it cost.",
)(_but(e5="chosen-on-test"))
diagnosis.mistake(
    "padding-overlooked",
    "Experiment 3 is not about the words. Print the tokens at the position that is read, for a short text and for the longest: "
    "what stands there?",
)(_but(e3="words-suffice"))
diagnosis.mistake(
    "majority-overlooked",
    "Experiment 6 has no test row in training. Count the labels of its test rows, then ask what a probe that ignores the "
    "activations would score.",
)(_but(e6="twin-across-split"))
diagnosis.mistake(
    "twins-taken-for-words",
    "Experiment 2: no words of one class are missing in the other, each city is in both. Ask where the second statement about "
    "a test city is.",
)(_but(e2="words-suffice"))
diagnosis.mistake(
    "copies-taken-for-majority",
    "Experiment 8 is balanced. How many *different* texts does it have, and on how many sides is each?",
)(_but(e8="majority-wins"))


@diagnosis.variant
def _(experiment):
    """A dict."""
    return dict(_REASONS)[experiment]


@diagnosis.variant
def _(experiment):
    """A list, built from one string."""
    text = "chosen-on-test twin-across-split read-padding label-in-prompt harmless majority-wins words-suffice repeated-rows"
    return text.split()[experiment - 1]


@diagnosis.variant
def _(experiment):
    """A match statement."""
    match experiment:
        case 1:
            return "chosen-on-test"
        case 2:
            return "twin-across-split"
        case 3:
            return "read-padding"
        case 4:
            return "label-in-prompt"
        case 5:
            return "harmless"
        case 6:
            return "majority-wins"
        case 7:
            return "words-suffice"
    return "repeated-rows"
