"""The exercises of chapter 13: cases, named mistakes, other right answers and hints."""

from collections.abc import Iterator

import numpy as np
import torch
from scipy.linalg import orthogonal_procrustes
from sklearn.linear_model import Ridge
from sklearn.metrics import r2_score
from torch import Tensor

from utils.course.battery import ALL_COUNTS, NOT_TRAINED, NO_MATRIX, NO_SCALE, NO_THRESHOLD
from utils.course.cases import integers, normal, shuffle, uniform
from utils.course.exercises import Case, Exercise


# --- polarity_directions -----------------------------------------------------------------------------------


def _polarity_cases(rng: torch.Generator) -> Iterator[Case]:
    def case(label: str, cells: list[int], d_model: int, dtype: torch.dtype) -> Case:
        """`cells`: how many sentences are true, false, true and negated, false and negated."""
        kind = shuffle(rng, [cell for cell, count in enumerate(cells) for _ in range(count)])
        labels, negated = 1 - kind % 2, kind >= 2
        acts = normal(rng, len(kind), d_model, dtype=dtype) + 3 * negated[:, None].to(dtype) + 2 * labels[:, None].to(dtype)
        return Case(label, acts, labels, negated)

    yield case("13 sentences of 5 features, the four kinds in different numbers", [4, 2, 2, 5], 5, torch.float64)
    yield case("one sentence of each kind, 3 features", [1, 1, 1, 1], 3, torch.float64)
    yield case("22 sentences of 7 features, float32", [3, 8, 6, 5], 7, torch.float32)
    yield Case("one kind many times, the others once", torch.randn(9, 3, generator=rng, dtype=torch.float64),
               torch.tensor([1, 1, 1, 1, 1, 1, 0, 1, 0]), torch.tensor([0, 0, 0, 0, 0, 0, 0, 1, 1]).bool()).of("extreme")


polarity_directions = Exercise(
    "polarity_directions",
    without={**NOT_TRAINED, **NO_THRESHOLD, **ALL_COUNTS},
    difficulty=3,
    importance=5,
    minutes=20,
    learn="How to take a direction apart into what negation leaves alone and what it turns around.",
    cases=_polarity_cases,
    hints=(
        "The formula is a linear regression with four known numbers per sentence and four unknown vectors. Two of the "
        "four numbers say which polarity a sentence has; the other two are in the formula. Which of the four unknown "
        "vectors are asked for?",
        "Write down the four numbers for one true negated sentence. Stack them for all sentences: which shape has that "
        "table, and which shape must `torch.linalg.lstsq(table, acts).solution` then have?",
        "Two of the four columns say, with a 1 or a 0, which polarity the sentence has; the other two carry truth, one of them "
        "turned round by polarity. `lstsq` gives one vector per column, in the order of the columns: which two are asked for?",
    ),
    verified="four kinds of sentences in equal and unequal numbers, as few as one of each, float32 and float64.",
    next="put the length of each direction beside what it is for labels that mean nothing.",
)


def _signs(acts: Tensor, labels: Tensor, negated: Tensor) -> tuple[Tensor, Tensor]:
    return 2 * labels.to(acts.dtype) - 1, 1 - 2 * negated.to(acts.dtype)


def _regress(acts: Tensor, *columns: Tensor) -> Tensor:
    return torch.linalg.lstsq(torch.stack(columns, 1).to(acts.dtype), acts).solution


def _cell(acts: Tensor, labels: Tensor, negated: Tensor, label: int, is_negated: bool) -> Tensor:
    return acts[(labels == label) & (negated == is_negated)].mean(0)


@polarity_directions.mistake(
    "truth-as-0-and-1",
    "Both directions are twice too long: you used the labels 0 and 1 where the formula says -1 and +1. From false to "
    "true is then one step instead of two.",
)
def _(acts, labels, negated):
    truth, polarity = labels.to(acts.dtype), 1 - 2 * negated.to(acts.dtype)
    return tuple(_regress(acts, polarity > 0, polarity < 0, truth, truth * polarity)[2:])


@polarity_directions.mistake(
    "swapped",
    "Both directions are right and in the wrong order: first the one that is the same for both polarities, t_G, then "
    "the one that is multiplied by the polarity.",
)
def _(acts, labels, negated):
    truth, polarity = _signs(acts, labels, negated)
    return tuple(_regress(acts, polarity > 0, polarity < 0, truth * polarity, truth)[2:])


@polarity_directions.mistake(
    "polarity-reversed",
    "t_P points the other way: your polarity is +1 for the negated sentences. The formula has +1 for the affirmative "
    "ones.",
)
def _(acts, labels, negated):
    truth, polarity = _signs(acts, labels, negated)
    return tuple(_regress(acts, polarity > 0, polarity < 0, truth, -truth * polarity)[2:])


@polarity_directions.mistake(
    "one-mean-for-both",
    "You fitted one mean for all sentences. Negated sentences lie elsewhere whether true or false, and with unequal "
    "numbers that offset leaks into the directions: m is a vector of its own for each polarity.",
)
def _(acts, labels, negated):
    truth, polarity = _signs(acts, labels, negated)
    return tuple(_regress(acts, torch.ones_like(truth), truth, truth * polarity)[1:])


@polarity_directions.mistake(
    "no-mean",
    "There is no m in your fit, so the two directions have to explain where the whole cloud lies. Give each polarity "
    "a column of ones.",
)
def _(acts, labels, negated):
    truth, polarity = _signs(acts, labels, negated)
    return tuple(_regress(acts, truth, truth * polarity))


@polarity_directions.mistake(
    "two-separate-directions",
    "You returned the direction of the affirmative sentences and that of the negated ones. The formula asks for what "
    "these two share and for what they differ by.",
)
def _(acts, labels, negated):
    return tuple((_cell(acts, labels, negated, 1, kind) - _cell(acts, labels, negated, 0, kind)) / 2 for kind in (False, True))


@polarity_directions.mistake(
    "polarity-itself",
    "Your second vector tells affirmative from negated sentences, whether they are true or not. In the formula t_P is "
    "multiplied by truth *and* polarity.",
)
def _(acts, labels, negated):
    truth, polarity = _signs(acts, labels, negated)
    fitted = _regress(acts, torch.ones_like(truth), truth, truth * polarity, polarity)
    return fitted[1], fitted[3]


@polarity_directions.variant
def _(acts, labels, negated):
    """The fit is exact in the means of the four kinds, so the means are enough."""
    affirmative, negative = ((_cell(acts, labels, negated, 1, kind) - _cell(acts, labels, negated, 0, kind)) / 2 for kind in (False, True))
    return (affirmative + negative) / 2, (affirmative - negative) / 2


@polarity_directions.variant
def _(acts, labels, negated):
    """Centre each polarity by what is left after the fit: residualise the regressors, then the normal equations."""
    truth, polarity = _signs(acts, labels, negated)
    sides = torch.stack([~negated, negated], 1).to(acts.dtype)
    centred = torch.stack([truth, truth * polarity], 1)
    centred = centred - sides @ ((sides.T @ centred) / sides.sum(0)[:, None])
    solved = torch.linalg.solve(centred.T @ centred, centred.T @ acts)
    return solved[0], solved[1]


@polarity_directions.variant
def _(acts, labels, negated):
    """NumPy, one feature at a time, a constant and the polarity instead of two columns."""
    truth, polarity = (sign.double().numpy() for sign in _signs(acts, labels, negated))
    table = np.stack([np.ones_like(truth), polarity, truth, truth * polarity], 1)
    fitted = np.stack([np.linalg.lstsq(table, column, rcond=None)[0] for column in acts.double().numpy().T], 1)
    return torch.from_numpy(fitted[2]).to(acts.dtype), torch.from_numpy(fitted[3]).to(acts.dtype)


# --- normalise_pairs ---------------------------------------------------------------------------------------


def _pairs_cases(rng: torch.Generator) -> Iterator[Case]:
    first, second = normal(rng, 9, 4) * 3 + 1, normal(rng, 9, 4) - 5
    yield Case("9 pairs of 4 features, 6 of them for training", first, second, shuffle(rng, [1] * 6 + [0] * 3).bool())
    first, second = normal(rng, 7, 5) + 2, normal(rng, 7, 5) * 4
    train = shuffle(rng, [1] * 4 + [0] * 3).bool()
    first[train, 2] = 2.0  # constant where it counts, not elsewhere
    yield Case("7 pairs, a feature of the first half constant over the training rows", first, second, train)
    first, second = normal(rng, 6, 3, dtype=torch.float32) - 4, normal(rng, 6, 3, dtype=torch.float32) * 2 + 4
    yield Case("6 pairs, float32, half of them for training", first, second, shuffle(rng, [1] * 3 + [0] * 3).bool())
    a = torch.tensor([[0.5, 1e-07, 3.0], [0.5, 2e-07, 1.0], [0.5, 4e-07, 2.0], [0.25, 1e-07, 5.0]], dtype=torch.float64)
    b = torch.tensor([[2.0, 1.0, 0.5], [3.0, 5.0, 0.5], [7.0, 2.0, 0.5], [1.0, 1.0, 0.75]], dtype=torch.float64)
    yield Case('a feature that hardly varies, and one that does so only off the training rows', a, b, torch.tensor([1, 1, 1, 0], dtype=torch.bool))
    first = torch.tensor([[1.0, 5.0], [1.0 + 1e-12, 5.0], [4.0, 7.0]], dtype=torch.float64)
    yield Case("one feature varies by next to nothing, one not at all", first, first.flip(0), torch.tensor([1, 1, 0]).bool()).of("boundary")
    yield Case("all pairs are training pairs", torch.randn(3, 2, generator=rng, dtype=torch.float64), torch.randn(3, 2, generator=rng, dtype=torch.float64),
               torch.ones(3, dtype=torch.bool)).of("extreme")
    tenth = torch.tensor([[0.1, 1.0], [0.1, 2.0], [0.1, 4.0], [0.1, 3.0], [0.1, 5.0], [0.1, 9.0], [0.4, 1.0]])
    yield Case("a constant whose mean is rounded", tenth, tenth.double().mul(3).float(), torch.arange(7) < 6).of("boundary")


normalise_pairs = Exercise(
    "normalise_pairs",
    without={**NOT_TRAINED, **ALL_COUNTS},
    difficulty=2,
    importance=4,
    minutes=10,
    learn="How one line of preprocessing decides what an unsupervised probe can find.",
    cases=_pairs_cases,
    hints=(
        "Each half is standardised on its own, so that nothing tells any more which half a sentence came from. How many "
        "means do you compute, and over which rows?",
        "Print `first[train].shape` and `first[train].mean(dim=0).shape`. What must the second one be subtracted from?",
        "Write it for one half as a function and call it twice. A column that does not vary divides by 0: how do you find those "
        "columns among the training rows, and what must stand in them at the end, also in rows where they do vary?",
    ),
    verified="each half by its own training rows, a constant feature, float32 and float64.",
    next="train the same probe with and without it: without it the loss is perfect and the answer worthless.",
)


def _z(half: Tensor, seen: Tensor, correction: int = 1) -> Tensor:
    std = seen.std(0, correction=correction)
    constant = seen.amax(0) == seen.amin(0)
    return torch.where(constant, 0, (half - seen.mean(0)) / torch.where(constant, 1, std))


@normalise_pairs.mistake(
    "halves-together",
    "You standardised both halves with one mean and one deviation. The two clouds still lie apart, and the probe will "
    "find the word that separates them. Each half has its own.",
)
def _(first, second, train):
    both = torch.cat([first[train], second[train]])
    return _z(first, both), _z(second, both)


@normalise_pairs.mistake(
    "test-rows-used",
    "Means and deviations were computed over all rows. The test rows must not shape the features that they are "
    "tested with: use the training rows only.",
)
def _(first, second, train):
    return _z(first, first), _z(second, second)


@normalise_pairs.mistake(
    "only-centred",
    "The mean is gone, the scale is still there. A few large features will decide everything: divide by the deviation "
    "too.",
)
def _(first, second, train):
    return first - first[train].mean(0), second - second[train].mean(0)


@normalise_pairs.mistake(
    "first-half-for-both",
    "The second half was standardised with the numbers of the first. What you want to remove is what the halves differ "
    "in, so each needs its own.",
)
def _(first, second, train):
    return _z(first, first[train]), _z(second, first[train])


@normalise_pairs.mistake(
    "row-by-row",
    "You standardised every sentence over its features. The mean and the deviation are those of a *feature*, over the "
    "training rows.",
)
def _(first, second, train):
    return tuple((half - half.mean(1, keepdim=True)) / half.std(1, keepdim=True) for half in (first, second))


@normalise_pairs.mistake(
    "biased-deviation",
    "Almost: your deviation divides by the number of rows. The specification divides by one less, as `std` does when "
    "you leave it alone.",
)
def _(first, second, train):
    return _z(first, first[train], 0), _z(second, second[train], 0)


@normalise_pairs.mistake(
    "constant-feature-divided",
    "A feature that never varies has the deviation 0, and you divided by it. One NaN or infinity in the input makes "
    "every later number NaN: such a feature has nothing to say, so make it 0.",
)
def _(first, second, train):
    return tuple((half - half[train].mean(0)) / half[train].std(0) for half in (first, second))


@normalise_pairs.variant
def _(first, second, train):
    """A loop over features."""
    out = []
    for half in (first, second):
        columns = []
        for column in half.T:
            seen = column[train]
            flat = bool((seen == seen[0]).all())
            columns.append(torch.zeros_like(column) if flat else (column - seen.mean()) / seen.std())
        out.append(torch.stack(columns, 1))
    return tuple(out)


@normalise_pairs.variant
def _(first, second, train):
    """Both halves at once along a new dimension, results as views of it."""
    both = torch.stack([first, second])
    seen = both[:, train]
    spread = seen - seen.mean(1, keepdim=True)
    std = (spread.square().sum(1, keepdim=True) / (int(train.sum()) - 1)).sqrt()
    flat = seen.amax(1, keepdim=True) == seen.amin(1, keepdim=True)
    z = ((both - seen.mean(1, keepdim=True)) / std).masked_fill(flat, 0)
    return z[0], z[1]


@normalise_pairs.variant
def _(first, second, train):
    """NumPy."""
    out = []
    for half in (first, second):
        seen = half[train].numpy()
        varies = np.ptp(seen, axis=0) > 0
        scale = np.where(varies, seen.std(0, ddof=1), np.inf)
        out.append(torch.from_numpy(((half.numpy() - seen.mean(0)) / scale).astype(seen.dtype)))
    return tuple(out)


# --- ccs_loss ----------------------------------------------------------------------------------------------


def _ccs_cases(rng: torch.Generator) -> Iterator[Case]:
    def drawn(n: int, dtype: torch.dtype = torch.float64) -> Tensor:
        return uniform(rng, n, dtype=dtype)

    yield Case("2 pairs", torch.tensor([0.9, 0.3], dtype=torch.float64), torch.tensor([0.2, 0.4], dtype=torch.float64))
    yield Case("9 pairs, float32", drawn(9, torch.float32), drawn(9, torch.float32))
    yield Case("1 pair", drawn(1), drawn(1))
    yield Case("certain and contradicting itself", torch.tensor([1.0, 0.0, 1.0], dtype=torch.float64), torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)).of("extreme")
    yield Case("both probabilities equal", torch.tensor([0.3, 0.5], dtype=torch.float64), torch.tensor([0.3, 0.5], dtype=torch.float64)).of("boundary")


ccs_loss = Exercise(
    "ccs_loss",
    trained=('p_first', 'p_second'),
    without={**ALL_COUNTS, **NO_SCALE, **NO_MATRIX, "negative": "probabilities are never negative"},
    difficulty=2,
    importance=4,
    minutes=8,
    learn="How to look for a truth direction without a single label, and what else satisfies the same wish.",
    cases=_ccs_cases,
    hints=(
        "Two wishes per pair. If one sentence has the probability 0.8, what should its negation have? And why is it not "
        "enough to wish only that?",
        "For `p_first = [0.9, 0.5]` and `p_second = [0.2, 0.5]`, write down the two squares for each pair, by hand. Which "
        "operation picks the smaller of two tensors, pair by pair, rather than of one tensor over its rows?",
        "The first wish compares `p_first` with what is left of `p_second` to 1. The second is small when one of the two is near "
        "0. Both are squared pair by pair; what is done once, over the pairs, comes last.",
    ),
    verified="the consistency and the confidence term, pair by pair, float32 and float64, one pair.",
    next="ask which probes have a loss of 0. There are at least three kinds, and truth is one of them.",
)


@ccs_loss.mistake(
    "should-be-equal",
    "You punish the two probabilities for being different. A sentence and its negation should have probabilities that "
    "add up to 1.",
)
def _(p_first, p_second):
    return ((p_first - p_second) ** 2 + torch.minimum(p_first, p_second) ** 2).mean()


@ccs_loss.mistake(
    "confidence-forgotten",
    "Only the consistency is there. A probe that says 0.5 to everything then has a perfect loss: the second term is "
    "there to forbid it.",
)
def _(p_first, p_second):
    return ((p_first - (1 - p_second)) ** 2).mean()


@ccs_loss.mistake(
    "consistency-forgotten",
    "Only the confidence is there. A probe that says 0 to everything then has a perfect loss: the first term is there "
    "to forbid it.",
)
def _(p_first, p_second):
    return (torch.minimum(p_first, p_second) ** 2).mean()


@ccs_loss.mistake(
    "larger-instead-of-smaller",
    "You punish the larger of the two probabilities. One of them is supposed to be large: it is the smaller one that "
    "should go to 0.",
)
def _(p_first, p_second):
    return ((p_first - (1 - p_second)) ** 2 + torch.maximum(p_first, p_second) ** 2).mean()


@ccs_loss.mistake(
    "sum-over-pairs",
    "You added the pairs up instead of averaging them: the loss, and with it the step of the optimiser, would grow with "
    "the data.",
)
def _(p_first, p_second):
    return ((p_first - (1 - p_second)) ** 2 + torch.minimum(p_first, p_second) ** 2).sum()


@ccs_loss.mistake(
    "confidence-not-squared",
    "The smaller probability is not squared. Both terms are squares, so that they weigh alike.",
)
def _(p_first, p_second):
    return ((p_first - (1 - p_second)) ** 2 + torch.minimum(p_first, p_second)).mean()


@ccs_loss.mistake(
    "smallest-of-all",
    "You took the smallest probability of the whole batch. Every pair has a smaller one of its own.",
)
def _(p_first, p_second):
    return ((p_first - (1 - p_second)) ** 2).mean() + torch.minimum(p_first.min(), p_second.min()) ** 2


@ccs_loss.mistake(
    "both-probabilities-small",
    "You wish for both probabilities to be small. One of the two sentences is true: only the smaller one should go to "
    "0.",
)
def _(p_first, p_second):
    return ((p_first - (1 - p_second)) ** 2 + p_first**2 + p_second**2).mean()


@ccs_loss.variant
def _(p_first, p_second):
    """A loop over pairs."""
    total = p_first.new_zeros(())
    for one, other in zip(p_first, p_second):
        total = total + (one + other - 1) ** 2 + min(one, other) ** 2
    return total / len(p_first)


@ccs_loss.variant
def _(p_first, p_second):
    """Stacked, the smaller by amin."""
    both = torch.stack([p_first, p_second])
    return (both.sum(0) - 1).square().mean() + both.amin(0).square().mean()


@ccs_loss.variant
def _(p_first, p_second):
    """torch's own mean squared error."""
    smaller = torch.where(p_first < p_second, p_first, p_second)
    return torch.nn.functional.mse_loss(p_first, 1 - p_second) + smaller @ smaller / len(smaller)


# --- ridge_fit ---------------------------------------------------------------------------------------------


def _ridge_cases(rng: torch.Generator) -> Iterator[Case]:
    def case(label: str, n: int, d: int, k: int, alpha: float, dtype: torch.dtype = torch.float64) -> Case:
        x = normal(rng, n, d, dtype=dtype) * 2 + 3
        return Case(label, x, x @ normal(rng, d, k, dtype=dtype) + normal(rng, n, k, dtype=dtype) - 7, alpha)

    yield case("11 rows of 4 features, 2 targets", 11, 4, 2, 0.5)
    yield case("5 rows of 8 features, fewer rows than features", 5, 8, 3, 0.2)
    yield case("9 rows of 3 features, 1 target, float32", 9, 3, 1, 2.0, torch.float32)
    yield Case("one row", torch.randn(1, 3, generator=rng, dtype=torch.float64), torch.randn(1, 2, generator=rng, dtype=torch.float64), 0.3).of("extreme")
    yield Case("a strong penalty", torch.randn(6, 2, generator=rng, dtype=torch.float64), torch.randn(6, 2, generator=rng, dtype=torch.float64), 1e4).of("extreme")
    yield Case("a weak penalty, fewer rows than features", torch.randn(3, 5, generator=rng, dtype=torch.float64), torch.randn(3, 2, generator=rng, dtype=torch.float64), 1e-6).of("extreme")


ridge_fit = Exercise(
    "ridge_fit",
    without={**NOT_TRAINED, **NO_THRESHOLD, **ALL_COUNTS, "scale": "alpha has the unit of a squared feature: scaled rows with the same alpha are another problem"},
    difficulty=3,
    importance=4,
    minutes=15,
    learn="How to read numbers, not classes, out of an activation with more dimensions than examples.",
    cases=_ridge_cases,
    hints=(
        "If both x and y had the mean 0, the best bias would be 0 and could be forgotten. How do you get there, and how do "
        "you put the bias back at the end?",
        "Print the shapes of `x.T @ x` and `x.T @ y`. Which matrix has to be added to the first so that it can be inverted "
        "with fewer rows than features? And the error is a *mean* over rows: what becomes of its 1/n?",
        "Setting the gradient to zero gives `(X'X + n * alpha * identity) @ weight = X'y` with both centred: `torch.linalg.solve` "
        "takes the two sides. The bias makes the prediction right at one point, the mean of x.",
    ),
    verified="more rows than features and fewer, one target and several, float32 and float64.",
    next="read the same fit on two splits: the number changes more than any choice of alpha can explain.",
)


def _solve_ridge(x: Tensor, y: Tensor, penalty: Tensor) -> Tensor:
    return torch.linalg.solve(x.T @ x + penalty, x.T @ y)


def _eye(x: Tensor, size: int | None = None) -> Tensor:
    return torch.eye(size or x.shape[1], dtype=x.dtype)


@ridge_fit.mistake(
    "bias-penalised",
    "The bias was shrunk along with the weights: a column of ones with the same penalty does that. The specification "
    "leaves the bias free.",
)
def _(x, y, alpha):
    wide = torch.cat([x, torch.ones_like(x[:, :1])], 1)
    fitted = _solve_ridge(wide, y, len(x) * alpha * _eye(x, wide.shape[1]))
    return fitted[:-1], fitted[-1]


@ridge_fit.mistake(
    "sum-instead-of-mean",
    "Your penalty is too weak by a factor of n: the error in the specification is a mean over the rows, and the normal "
    "equations are written with sums.",
)
def _(x, y, alpha):
    centred = x - x.mean(0)
    weight = _solve_ridge(centred, y - y.mean(0), alpha * _eye(x))
    return weight, y.mean(0) - x.mean(0) @ weight


@ridge_fit.mistake(
    "not-centred",
    "The weights were fitted on data that still has its mean in it, so they bend to explain the offset. Take the mean of "
    "x and of y away first.",
)
def _(x, y, alpha):
    weight = _solve_ridge(x, y, len(x) * alpha * _eye(x))
    return weight, y.mean(0) - x.mean(0) @ weight


@ridge_fit.mistake(
    "bias-is-the-mean-of-y",
    "Your weights are right, your bias is the mean of y. That would be right for an x whose mean is 0; the callers of this "
    "function pass a raw x.",
)
def _(x, y, alpha):
    centred = x - x.mean(0)
    return _solve_ridge(centred, y - y.mean(0), len(x) * alpha * _eye(x)), y.mean(0)


@ridge_fit.mistake(
    "no-penalty",
    "There is no penalty in your fit: this is the least-squares solution (of all that fit equally well, the shortest). "
    "With more features than rows it repeats the training data, noise included.",
)
def _(x, y, alpha):
    weight = torch.linalg.pinv(x - x.mean(0)) @ (y - y.mean(0))
    return weight, y.mean(0) - x.mean(0) @ weight


@ridge_fit.mistake(
    "alpha-squared",
    "You used alpha squared, or put alpha itself into rows that get squared. The penalty is alpha times the squares of "
    "the weights.",
)
def _(x, y, alpha):
    centred = x - x.mean(0)
    weight = _solve_ridge(centred, y - y.mean(0), len(x) * alpha**2 * _eye(x))
    return weight, y.mean(0) - x.mean(0) @ weight


@ridge_fit.mistake(
    "transposed",
    "The weight is [k, d], and [d, k] was asked for: a row times the weight gives the prediction.",
)
def _(x, y, alpha):
    centred = x - x.mean(0)
    weight = _solve_ridge(centred, y - y.mean(0), len(x) * alpha * _eye(x))
    return weight.T, y.mean(0) - x.mean(0) @ weight


@ridge_fit.variant
def _(x, y, alpha):
    """Through the n by n matrix of inner products, cheap when n < d."""
    centred = x - x.mean(0)
    weight = centred.T @ torch.linalg.solve(centred @ centred.T + len(x) * alpha * torch.eye(len(x), dtype=x.dtype), y - y.mean(0))
    return weight, y.mean(0) - x.mean(0) @ weight


@ridge_fit.variant
def _(x, y, alpha):
    """Least squares on data with extra rows for the penalty."""
    centred = x - x.mean(0)
    tall = torch.cat([centred, (len(x) * alpha) ** 0.5 * _eye(x)])
    goal = torch.cat([y - y.mean(0), y.new_zeros(x.shape[1], y.shape[1])])
    weight = torch.linalg.lstsq(tall, goal).solution
    return weight, y.mean(0) - x.mean(0) @ weight


@ridge_fit.variant
def _(x, y, alpha):
    """scikit-learn, whose alpha goes with a sum of errors."""
    fitted = Ridge(alpha=len(x) * alpha).fit(x.numpy(), y.numpy())
    return torch.from_numpy(np.atleast_2d(fitted.coef_)).T.to(x.dtype), torch.from_numpy(np.atleast_1d(fitted.intercept_)).to(x.dtype)


@ridge_fit.variant
def _(x, y, alpha):
    """A column of ones that is not penalised."""
    wide = torch.cat([x, torch.ones_like(x[:, :1])], 1)
    penalty = len(x) * alpha * _eye(x, wide.shape[1])
    penalty[-1, -1] = 0
    fitted = _solve_ridge(wide, y, penalty)
    return fitted[:-1], fitted[-1]


# --- r_squared ---------------------------------------------------------------------------------------------


def _r2_cases(rng: torch.Generator) -> Iterator[Case]:
    truth = normal(rng, 9, 2) * torch.tensor([3.0, 0.5]) + torch.tensor([10.0, -4.0])
    yield Case("9 rows, 2 targets, a fair prediction", 0.8 * truth + 2 + 0.3 * normal(rng, 9, 2), truth)
    truth = normal(rng, 6, 3) + 5
    yield Case("6 rows, 3 targets, a prediction worse than the mean", 8 - truth + normal(rng, 6, 3), truth)
    truth = normal(rng, 13, 1, dtype=torch.float32)
    yield Case("13 rows, 1 target, float32", truth + 0.5 * normal(rng, 13, 1, dtype=torch.float32), truth)
    p = torch.tensor([[1.0, 2.0], [2.0, 1.0], [3.0, 5.0]], dtype=torch.float64)
    yield Case('targets in a small unit', p * 0.0001, torch.tensor([[1.0, 1.0], [2.0, 3.0], [4.0, 4.0]], dtype=torch.float64) * 0.0001)
    truth = torch.randn(5, 2, generator=rng, dtype=torch.float64)
    yield Case("perfect in one target, the mean in the other", torch.stack([truth[:, 0], truth[:, 1].mean().expand(5)], 1), truth).of("extreme")
    yield Case("two rows", torch.tensor([[1.0], [5.0]], dtype=torch.float64), torch.tensor([[2.0], [-2.0]], dtype=torch.float64)).of("extreme")
    years = torch.tensor([[1990.0], [1994.0], [1987.0], [2001.0], [1996.0]])
    yield Case("years, float32", years + torch.tensor([[2.0], [-1.0], [3.0], [0.5], [-2.0]]), years).of("extreme")
    yield Case("much worse than the mean", torch.tensor([[90.0], [-70.0], [50.0]], dtype=torch.float64), torch.tensor([[1.0], [2.0], [1.5]], dtype=torch.float64)).of("extreme")


r_squared = Exercise(
    "r_squared",
    without={**NOT_TRAINED, **NO_THRESHOLD, **ALL_COUNTS},
    difficulty=1,
    importance=5,
    minutes=6,
    learn="How a score can be below zero, and what it says when it is.",
    cases=_r2_cases,
    hints=(
        "Compare two predictors: yours, and one that always says the mean of the truth. By what share does yours have less "
        "squared error?",
        "Print `(predicted - truth).square().sum(dim=0).shape`. Which other sum of squares of that shape belongs below it?",
        "A score of 1 needs no error, a score of 0 as much error as the mean has. Which expression of the two sums does that, and "
        "what does it give for twice as much error?",
    ),
    verified="several targets at once, predictions better and worse than the mean, float32 and float64.",
    next="note which mean is meant: that of the rows you score, not that of the rows you trained on.",
)


@r_squared.mistake(
    "squared-correlation",
    "You computed the squared correlation. It forgives a wrong offset, a wrong scale and even a wrong sign: a map turned "
    "upside down would score as well. R² does not.",
)
def _(predicted, truth):
    p, t = predicted - predicted.mean(0), truth - truth.mean(0)
    return (p * t).sum(0) ** 2 / (p.square().sum(0) * t.square().sum(0))


@r_squared.mistake(
    "variance-of-the-prediction",
    "You divided by the spread of the prediction. The yardstick is the spread of the truth, which no prediction can "
    "change.",
)
def _(predicted, truth):
    return 1 - (predicted - truth).square().sum(0) / (predicted - predicted.mean(0)).square().sum(0)


@r_squared.mistake(
    "mean-not-removed",
    "You divided by the squares of the raw targets. Latitudes far from 0 would then make any prediction look good: the "
    "squares are those of the distance from the mean.",
)
def _(predicted, truth):
    return 1 - (predicted - truth).square().sum(0) / truth.square().sum(0)


@r_squared.mistake(
    "targets-pooled",
    "You pooled all targets into one number. Latitude and longitude have different spreads: each column gets its own.",
)
def _(predicted, truth):
    whole = 1 - (predicted - truth).square().sum() / (truth - truth.mean(0)).square().sum()
    return whole.expand(truth.shape[1])


@r_squared.mistake(
    "explained-variance",
    "You compared variances, so a prediction that is off by a constant is not punished. Take the squared error as it is, "
    "without removing its mean.",
)
def _(predicted, truth):
    return 1 - (predicted - truth).var(0) / truth.var(0)


@r_squared.mistake(
    "cut-off-at-zero",
    "You cut negative values off. Below zero is the news: the prediction is worse than no prediction at all.",
)
def _(predicted, truth):
    return (1 - (predicted - truth).square().sum(0) / (truth - truth.mean(0)).square().sum(0)).clamp(min=0)


@r_squared.mistake(
    "unexplained-share",
    "That is the share which is *not* explained: 0 for a perfect prediction. One minus it was asked for.",
)
def _(predicted, truth):
    return (predicted - truth).square().sum(0) / (truth - truth.mean(0)).square().sum(0)


@r_squared.variant
def _(predicted, truth):
    """scikit-learn."""
    scores = r2_score(truth.double().numpy(), predicted.double().numpy(), multioutput="raw_values")
    return torch.from_numpy(np.asarray(scores)).to(truth.dtype)


@r_squared.variant
def _(predicted, truth):
    """Means and the biased variance."""
    return 1 - (predicted - truth).pow(2).mean(0) / truth.var(0, correction=0)


@r_squared.variant
def _(predicted, truth):
    """A loop over columns."""
    scores = []
    for p, t in zip(predicted.T, truth.T):
        base = torch.full_like(t, t.mean().item())
        scores.append(1 - torch.dist(p, t) ** 2 / torch.dist(base, t) ** 2)
    return torch.stack(scores)


# --- within_group_order ------------------------------------------------------------------------------------


def _order_cases(rng: torch.Generator) -> Iterator[Case]:
    def case(label: str, sizes: list[int], dtype: torch.dtype = torch.float64) -> Case:
        groups = shuffle(rng, [7 * i + 2 for i, size in enumerate(sizes) for _ in range(size)])
        base = groups.to(dtype)  # between groups the order is easy, within them it is not
        truth = base + normal(rng, len(groups), dtype=dtype)
        predicted = base + 0.4 * (truth - base) + 0.8 * normal(rng, len(groups), dtype=dtype)
        members = [torch.nonzero(groups == group)[:, 0] for group in groups.unique()]
        one, other, third, fourth = members[0][:4]
        predicted[other] = predicted[one]  # a tie of the prediction
        truth[fourth] = truth[third]  # a tie of the truth: this pair does not count
        predicted[third], predicted[fourth] = 5.0, 6.0
        return Case(label, predicted, truth, groups)

    yield case("8 rows in groups of 4, 3 and 1", [4, 3, 1])
    yield case("14 rows in 3 groups, float32", [6, 2, 6], torch.float32)
    yield case("19 rows in 4 groups", [5, 8, 2, 4])
    yield Case('predictions that differ by very little', torch.tensor([1.0, 1 + 2e-06, 1 + 1e-06, 4.0], dtype=torch.float64), torch.tensor([1.0, 2.0, 3.0, 3.0], dtype=torch.float64), torch.tensor([0, 0, 0, 1]))
    yield Case("equal predictions, equal truths", torch.tensor([2.0, 2.0, 2.0, -1.0]), torch.tensor([1.0, 3.0, 1.0, 1.0]), torch.tensor([4, 4, 4, 4])).of("boundary")
    yield Case("one pair that counts, all wrong", torch.tensor([5.0, 1.0, 9.0]), torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0, 0, 7])).of("extreme")
    yield Case("predictions and truths below 0", torch.tensor([-1.0, -2.0, -4.0, -3.0]), torch.tensor([-6.0, -8.0, -5.0, -7.0]), torch.tensor([3, 3, 3, 3])).of("extreme")
    yield Case("one pair, in the right order", torch.tensor([-2.0, -1.0]), torch.tensor([3.0, 8.0]), torch.tensor([-5, -5])).of("extreme")
    yield Case("negative groups", torch.tensor([1.0, 2.0, 3.0, 1.5, 4.0]), torch.tensor([3.0, 1.0, 2.0, 7.0, 9.0]), torch.tensor([-1, -1, -1, 4, 4])).of("extreme")
    one = torch.tensor([1.0, 1 + 3e-12, 1 + 1e-12, 1 + 2e-12], dtype=torch.float64)
    yield Case("numbers that are almost equal", one, one.flip(0), torch.tensor([2, 2, 2, 2])).of("boundary")


within_group_order = Exercise(
    "within_group_order",
    without={**NOT_TRAINED, **ALL_COUNTS, **NO_MATRIX},
    difficulty=3,
    importance=4,
    minutes=15,
    learn="How to ask whether a map holds anything below the level of countries.",
    cases=_order_cases,
    hints=(
        "Think of all pairs (i, j) as a table with n rows and n columns. Which entries of the table count? In the ones that "
        "do, row i's truth is larger: what must then hold for the predictions?",
        "Print `(truth[:, None] > truth[None, :]).shape` and how many entries are True. Which second table of the same shape "
        "says that i and j share a group? Does each pair appear once or twice?",
        "Take the differences of the predictions as a table of the same shape, and of it only the entries that count. Three kinds "
        "of differences are left, above, at and below 0: how much does each kind add, and what do you divide by?",
    ),
    verified="groups of different sizes, a group of one, ties of the prediction and of the truth.",
    next="score the residual map with it: R² can be high while this number stays near one half.",
)


def _pairs(predicted: Tensor, truth: Tensor, groups: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return (predicted[:, None] - predicted, truth[:, None] > truth, groups[:, None] == groups)


def _share(gap: Tensor, tie: float = 0.5) -> float:
    return ((gap > 0).sum() + tie * (gap == 0).sum()).item() / gap.numel()


@within_group_order.mistake(
    "all-pairs",
    "You counted pairs from different groups too. Telling two countries apart is exactly what this number is meant to "
    "leave out.",
)
def _(predicted, truth, groups):
    gap, above, _ = _pairs(predicted, truth, groups)
    return _share(gap[above])


@within_group_order.mistake(
    "between-groups",
    "You kept the pairs from different groups and left out those from the same one. It is the other way round.",
)
def _(predicted, truth, groups):
    gap, above, same = _pairs(predicted, truth, groups)
    return _share(gap[above & ~same])


@within_group_order.mistake(
    "ties-count-as-wrong",
    "Equal predictions counted as wrong. They are worth one half, or a prediction that says the same for everybody would "
    "score 0 instead of chance.",
)
def _(predicted, truth, groups):
    gap, above, same = _pairs(predicted, truth, groups)
    return _share(gap[above & same], 0.0)


@within_group_order.mistake(
    "ties-count-as-right",
    "Equal predictions counted as right. They are worth one half, or a prediction that says the same for everybody would "
    "score 1.",
)
def _(predicted, truth, groups):
    gap, above, same = _pairs(predicted, truth, groups)
    return _share(gap[above & same], 1.0)


@within_group_order.mistake(
    "average-of-groups",
    "You averaged the groups' shares. The specification counts all pairs alike, so a group of many members has a larger "
    "say.",
)
def _(predicted, truth, groups):
    shares = []
    for group in groups.unique():
        gap, above, same = _pairs(*(x[groups == group] for x in (predicted, truth, groups)))
        if above.any():
            shares.append(_share(gap[above]))
    return sum(shares) / len(shares)


@within_group_order.mistake(
    "equal-truths-counted",
    "You counted pairs whose truths are equal. There is no right order for them: leave them out.",
)
def _(predicted, truth, groups):
    gap, above, same = _pairs(predicted, truth, groups)
    level = (truth[:, None] == truth).triu(1)
    return _share(gap[above & same]) * (above & same).sum().item() / ((above | level) & same).sum().item()


@within_group_order.mistake(
    "upside-down",
    "You counted the pairs that are in the wrong order: look at the direction of one of your two comparisons.",
)
def _(predicted, truth, groups):
    gap, above, same = _pairs(predicted, truth, groups)
    return 1 - _share(gap[above & same])


@within_group_order.mistake(
    "difference-from-self",
    "You divided by the number of all pairs in the table, including each row with itself and each pair twice. Divide by "
    "the number of pairs that count.",
)
def _(predicted, truth, groups):
    gap, above, same = _pairs(predicted, truth, groups)
    return _share(gap[above & same]) * (above & same).sum().item() / same.sum().item()


@within_group_order.variant
def _(predicted, truth, groups):
    """Two loops."""
    right, count = 0.0, 0
    for i in range(len(truth)):
        for j in range(i):
            if groups[i] == groups[j] and truth[i] != truth[j]:
                agree = (predicted[i] - predicted[j]) * (truth[i] - truth[j])
                right += 1.0 if agree > 0 else 0.5 if agree == 0 else 0.0
                count += 1
    return right / count


@within_group_order.variant
def _(predicted, truth, groups):
    """Signs of the two gaps, over each unordered pair once."""
    i, j = torch.triu_indices(len(truth), len(truth), 1)
    keep = (groups[i] == groups[j]) & (truth[i] != truth[j])
    agree = (predicted[i] - predicted[j]).sign() * (truth[i] - truth[j]).sign()
    return float((agree[keep].double() + 1).mean() / 2)


@within_group_order.variant
def _(predicted, truth, groups):
    """Group by group, pooled, in NumPy."""
    right = count = 0.0
    for group in groups.unique():
        p, t = predicted[groups == group].numpy(), truth[groups == group].numpy()
        above = np.subtract.outer(t, t) > 0
        gap = np.subtract.outer(p, p)[above]
        right += (gap > 0).sum() + 0.5 * (gap == 0).sum()
        count += above.sum()
    return float(right / count)


# --- track_position ----------------------------------------------------------------------------------------


def _track_cases(rng: torch.Generator) -> Iterator[Case]:
    def walks(label: str, squares: int, n: int, pos: int) -> Case:
        # A table that no arithmetic can replace: every move is a permutation without a fixed point, some entries closed.
        target = torch.stack([_derangement(squares) for _ in range(4)], 1)
        closed = torch.rand(squares, 4, generator=rng) < 0.3
        closed[torch.arange(squares), integers(rng, 0, 4, squares)] = False
        target = target.masked_fill(closed, -1)
        rows = []
        for _ in range(n):
            square = int(integers(rng, 1, squares, 1))
            row = [square]
            for _ in range(pos - 1):
                moves = (target[square] >= 0).nonzero()[:, 0]
                move = int(moves[integers(rng, 0, len(moves), 1)])
                row.append(squares + move)
                square = int(target[square, move])
            rows.append(row)
        return Case(label, torch.tensor(rows), target)

    def _derangement(size: int) -> Tensor:
        order = torch.randperm(size, generator=rng)
        out = torch.empty(size, dtype=torch.long)
        out[order] = order.roll(1)
        return out

    yield walks("3 walks of 6 tokens on 7 squares", 7, 3, 6)
    yield walks("5 walks of 9 tokens on 10 squares", 10, 5, 9)
    yield walks("2 walks of 2 tokens on 6 squares", 6, 2, 2)
    target = torch.tensor([[1, -1, 2, 0], [0, 2, -1, 1], [-1, 1, 0, -1], [2, 0, -1, 1]])
    yield Case('a table in which nothing leads to the last square; move 0 not used', torch.tensor([[3, 5, 6, 5], [0, 6, 5, 7]]), target)
    yield Case('a walk that starts on square 0', torch.tensor([[0, 6, 5, 7]]), target)
    yield Case("walks without a move", torch.tensor([[2], [0]]), torch.tensor([[1, -1, -1, -1], [0, 2, -1, -1], [-1, 1, -1, -1]])).of("extreme")
    yield Case("one square, a move that stays there", torch.tensor([[0, 2, 1]]), torch.tensor([[0, 0, -1, -1]])).of("extreme")


track_position = Exercise(
    "track_position",
    without={**NOT_TRAINED, **NO_THRESHOLD, **ALL_COUNTS, "scale": "squares have no scale", "negative": "the only negative number is the -1 of a move that is not possible"},
    difficulty=2,
    importance=3,
    minutes=10,
    learn="How to compute the truth that a probe is to be judged by.",
    cases=_track_cases,
    hints=(
        "All walks can go forward together, one token at a time. What do you need to know before a move, and where do you "
        "look up where it leads?",
        "For the first move, print `tokens[:, 0].shape` and `tokens[:, 1] - len(target)`. What does `target[a, b]` give for "
        "two index tensors of shape [n]?",
        "Keep a list of squares, one tensor of [n] for each position, and look the next one up from the last one. Along which "
        "dimension does the list become [n, pos]?",
    ),
    verified="maps that are no grids, several walks at once, walks of one move.",
    next="compare with `world.sample(...).state`, which was written down while the walk was made.",
)


def _follow(tokens: Tensor, target: Tensor) -> Tensor:
    squares = [tokens[:, 0]]
    for column in tokens[:, 1:].T:
        squares.append(target[squares[-1], column - len(target)])
    return torch.stack(squares, 1)


@track_position.mistake(
    "before-the-move",
    "You are one step late: after each token you noted the square on which the walk stood before it. After a move token "
    "the walk has moved.",
)
def _(tokens, target):
    squares = _follow(tokens, target)
    return torch.cat([squares[:, :1], squares[:, :-1]], 1)


@track_position.mistake(
    "start-left-out",
    "The start is missing: the result has one column per token, and the first token has a square too.",
)
def _(tokens, target):
    return _follow(tokens, target)[:, 1:]


@track_position.mistake(
    "end-only",
    "You returned where each walk ends. The square after every token was asked for.",
)
def _(tokens, target):
    return _follow(tokens, target)[:, -1]


@track_position.mistake(
    "every-move-from-the-start",
    "Every move was made from the start square. Each one begins where the one before has ended.",
)
def _(tokens, target):
    start = tokens[:, :1]
    return torch.cat([start, target[start, tokens[:, 1:] - len(target)]], 1)


@track_position.mistake(
    "first-walk-for-all",
    "All walks were moved by the moves of the first one. Every row has moves of its own.",
)
def _(tokens, target):
    moves = tokens[:1, 1:].expand(len(tokens), -1)
    return _follow(torch.cat([tokens[:, :1], moves], 1), target)


@track_position.mistake(
    "token-used-as-move",
    "You looked the token itself up in the table of moves. Tokens of moves are counted on from the number of squares: "
    "take that away first.",
)
def _(tokens, target):
    squares = [tokens[:, 0]]
    for column in tokens[:, 1:].T:
        squares.append(target[squares[-1], column])
    return torch.stack(squares, 1)


@track_position.variant
def _(tokens, target):
    """Two loops and Python numbers."""
    out = torch.empty_like(tokens)
    for i, row in enumerate(tokens.tolist()):
        square = out[i, 0] = row[0]
        for j, token in enumerate(row[1:], start=1):
            square = int(target[square, token - target.shape[0]])
            out[i, j] = square
    return out


@track_position.variant
def _(tokens, target):
    """The flattened table, and a result that is not contiguous."""
    flat, rows = target.flatten(), [tokens[:, 0]]
    for step in range(1, tokens.shape[1]):
        rows.append(flat[4 * rows[-1] + tokens[:, step] - target.shape[0]])
    return torch.stack(rows).T


@track_position.variant
def _(tokens, target):
    """One-hot positions, moved by permutation-like matrices."""
    n_squares = len(target)
    moves = torch.stack([torch.nn.functional.one_hot(target[:, m].clamp(min=0), n_squares) for m in range(4)])
    at = torch.nn.functional.one_hot(tokens[:, 0], n_squares)
    rows = [at]
    for column in tokens[:, 1:].T:
        at = torch.einsum("ns,nst->nt", at, moves[column - n_squares])
        rows.append(at)
    return torch.stack(rows, 1).argmax(-1)


# --- state_centroids ---------------------------------------------------------------------------------------


def _centroid_cases(rng: torch.Generator) -> Iterator[Case]:
    def case(label: str, counts: list[int], d_model: int, dtype: torch.dtype = torch.float64) -> Case:
        states = shuffle(rng, [state for state, count in enumerate(counts) for _ in range(count)])
        return Case(label, normal(rng, len(states), d_model, dtype=dtype) + 1, states, len(counts))

    yield case("9 activations, 3 states, 4 features", [2, 4, 3], 4)
    yield case("12 activations, 5 states of which one does not occur", [3, 5, 0, 1, 3], 6)
    yield case("7 activations, 4 states of which the last does not occur, float32", [3, 2, 2, 0], 3, torch.float32)
    yield Case("one state", torch.randn(4, 3, generator=rng, dtype=torch.float64), torch.zeros(4, dtype=torch.long), 1).of("extreme")
    yield Case("one activation, three states", torch.randn(1, 2, generator=rng, dtype=torch.float64), torch.tensor([1]), 3).of("extreme")


state_centroids = Exercise(
    "state_centroids",
    ends={"n_states": lambda a: (int(a["states"].max()) + 1, int(a["states"].max()) + 3)},
    without={**NOT_TRAINED, **NO_THRESHOLD, **ALL_COUNTS},
    difficulty=2,
    importance=4,
    minutes=8,
    learn="How to turn thousands of activations into one point per state: the raw material of a map, and of an edit.",
    cases=_centroid_cases,
    hints=(
        "One mean per state. What is the mean of no activations at all, and does your code say so?",
        "Print `(states == torch.arange(n_states)[:, None]).shape`. If you multiply that table, as numbers, with `acts`, "
        "which shape comes out, and what stands in it?",
        "The product holds sums; a mean needs the number of members, one per state, in a shape that divides row by row. A state "
        "without members should give 0 / 0: what is that on a computer?",
    ),
    verified="states of different frequency, states that do not occur, float32 and float64.",
    next="two centroids subtracted are an edit: the next chapter moves the walker with one.",
)


def _member(acts: Tensor, states: Tensor, n_states: int) -> Tensor:
    return (states == torch.arange(n_states)[:, None]).to(acts.dtype)


@state_centroids.mistake(
    "sums",
    "These are sums, not means: a state that is visited often lies farther out only because it is visited often.",
)
def _(acts, states, n_states):
    member = _member(acts, states, n_states)
    return torch.where(member.any(1, keepdim=True), member @ acts, torch.nan)


@state_centroids.mistake(
    "divided-by-all-rows",
    "You divided by the number of all activations. Each state has a number of its own.",
)
def _(acts, states, n_states):
    member = _member(acts, states, n_states)
    return torch.where(member.any(1, keepdim=True), member @ acts / len(acts), torch.nan)


@state_centroids.mistake(
    "zeros-for-absent-states",
    "A state that does not occur got a row of zeros. Zero is a place in the space, and a wrong one: NaN says that nothing "
    "is known.",
)
def _(acts, states, n_states):
    member = _member(acts, states, n_states)
    return member @ acts / member.sum(1, keepdim=True).clamp(min=1)


@state_centroids.mistake(
    "absent-states-dropped",
    "States that do not occur are missing, so all later rows have moved up. Row s has to be state s.",
)
def _(acts, states, n_states):
    return torch.stack([acts[states == state].mean(0) for state in states.unique()])


@state_centroids.mistake(
    "centred",
    "You took the mean of all activations away as well. That is useful for a picture, but here the points were asked for "
    "where they are.",
)
def _(acts, states, n_states):
    member = _member(acts, states, n_states)
    return member @ acts / member.sum(1, keepdim=True) - acts.mean(0)


@state_centroids.mistake(
    "median",
    "These are medians. The mean of each state was asked for.",
)
def _(acts, states, n_states):
    rows = [acts[states == state] for state in range(n_states)]
    return torch.stack([row.median(0).values if len(row) else torch.full_like(acts[0], torch.nan) for row in rows])


@state_centroids.variant
def _(acts, states, n_states):
    """A loop over states: the mean of nothing is NaN."""
    return torch.stack([acts[states == state].mean(0) for state in range(n_states)])


@state_centroids.variant
def _(acts, states, n_states):
    """index_add and bincount."""
    sums = acts.new_zeros(n_states, acts.shape[1]).index_add(0, states, acts)
    return sums / torch.bincount(states, minlength=n_states)[:, None]


@state_centroids.variant
def _(acts, states, n_states):
    """einsum over weights that add up to 1 per state."""
    member = torch.nn.functional.one_hot(states, n_states).to(acts.dtype)
    return torch.einsum("ns,nd->ds", member / member.sum(0), acts).T


# --- procrustes_map ----------------------------------------------------------------------------------------


def _procrustes_cases(rng: torch.Generator) -> Iterator[Case]:
    def case(label: str, n: int, k: int, dtype: torch.dtype = torch.float64, *, mirrored: bool = False, stretch: float = 1.0) -> Case:
        truth = normal(rng, n, k, dtype=dtype) * 3 + 4
        turn = torch.linalg.qr(normal(rng, k, k, dtype=dtype)).Q
        if (torch.linalg.det(turn) < 0) != mirrored:
            turn = torch.cat([turn[:, :1] * -1, turn[:, 1:]], 1)
        shape = truth * torch.linspace(1, stretch, k, dtype=dtype) + 0.3 * normal(rng, n, k, dtype=dtype)
        return Case(label, 0.4 * shape @ turn - 6, truth)

    yield case("7 points in the plane, turned", 7, 2)
    yield case("9 points in the plane, mirrored and stretched", 9, 2, mirrored=True, stretch=2.0)
    yield case("12 points in three dimensions, mirrored, float32", 12, 3, torch.float32, mirrored=True)
    points = torch.randn(5, 2, generator=rng, dtype=torch.float64)
    yield Case("already there", points, points.clone()).of("extreme")
    yield Case("two points", points[:2], torch.tensor([[4.0, 1.0], [4.0, -3.0]], dtype=torch.float64)).of("extreme")
    yield Case("on a line, mirrored", torch.tensor([[1.0], [2.0], [4.0]], dtype=torch.float64), torch.tensor([[3.0], [1.5], [-2.0]], dtype=torch.float64)).of("extreme")
    yield Case("as many points as dimensions", torch.randn(3, 3, generator=rng, dtype=torch.float64), torch.randn(3, 3, generator=rng, dtype=torch.float64)).of("extreme")


procrustes_map = Exercise(
    "procrustes_map",
    without={**NOT_TRAINED, **NO_THRESHOLD, **ALL_COUNTS},
    difficulty=4,
    importance=3,
    minutes=25,
    learn="How to compare a map whose compass you do not have with the real one, without cheating.",
    cases=_procrustes_cases,
    hints=(
        "Three things may change: where the picture lies, how large it is, how it is turned. Take the first away from both "
        "pictures. For the turn, the singular value decomposition of the product of the two pictures has the answer.",
        "Print `(shape.T @ wanted).shape` for two centred pictures of n points in k dimensions. Which product of the two "
        "orthogonal matrices of its SVD turns `shape @ ...` towards `wanted`, and not the other way?",
        "The turn is the product of the two orthogonal factors, without the sizes between them (`torch.linalg.svd` returns the "
        "second one already transposed). The best scale divides the sum of the sizes by what the picture has in squares.",
    ),
    verified="turned, mirrored and stretched pictures in two and three dimensions, float32 and float64.",
    next="apply it to points drawn at random: with two dimensions and 25 points even noise fits a little.",
)


def _parts(points: Tensor, truth: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    shape, wanted = points - points.mean(0), truth - truth.mean(0)
    return shape, wanted, *torch.linalg.svd(shape.T @ wanted)


@procrustes_map.mistake(
    "mirror-forbidden",
    "Your map can be turned but not mirrored. A principal component has no sign, so the picture comes out mirrored half "
    "of the time: allow it.",
)
def _(points, truth):
    shape, _, left, sizes, right = _parts(points, truth)
    flip = torch.ones_like(sizes)
    flip[-1] = torch.linalg.det(left @ right).sign()
    return (sizes * flip).sum() / shape.square().sum() * shape @ (left * flip) @ right + truth.mean(0)


@procrustes_map.mistake(
    "size-kept",
    "The picture is turned rightly and has kept its size. Its unit means nothing: one scale for all axes is yours to "
    "choose.",
)
def _(points, truth):
    shape, _, left, _, right = _parts(points, truth)
    return shape @ left @ right + truth.mean(0)


@procrustes_map.mistake(
    "size-of-the-truth",
    "You made the picture as large as the truth. Where the two do not fit, a smaller picture has less error: the best "
    "scale comes from the singular values.",
)
def _(points, truth):
    shape, wanted, left, _, right = _parts(points, truth)
    return wanted.norm() / shape.norm() * shape @ left @ right + truth.mean(0)


@procrustes_map.mistake(
    "left-at-the-origin",
    "Turned and scaled rightly, but the picture lies around the origin. Put it where the truth lies.",
)
def _(points, truth):
    shape, _, left, sizes, right = _parts(points, truth)
    return sizes.sum() / shape.square().sum() * shape @ left @ right


@procrustes_map.mistake(
    "turned-backwards",
    "The turn is the inverse of the right one: it would turn the truth towards your picture. Look at which side each "
    "matrix of the SVD belongs to.",
)
def _(points, truth):
    shape, _, left, sizes, right = _parts(points, truth)
    return sizes.sum() / shape.square().sum() * shape @ (left @ right).T + truth.mean(0)


@procrustes_map.mistake(
    "bent",
    "You fitted any linear map, which can squeeze and shear. That is a probe, and it would make a map out of much less. "
    "Here only a turn and one scale are allowed.",
)
def _(points, truth):
    shape, wanted, *_ = _parts(points, truth)
    return shape @ torch.linalg.lstsq(shape, wanted).solution + truth.mean(0)


@procrustes_map.mistake(
    "not-centred",
    "You turned the pictures around the origin without centring them, so the turn tries to bring their middles together. "
    "Take both means away first.",
)
def _(points, truth):
    left, sizes, right = torch.linalg.svd(points.T @ truth)
    return sizes.sum() / points.square().sum() * points @ left @ right


@procrustes_map.variant
def _(points, truth):
    """SciPy."""
    shape, wanted = points - points.mean(0), truth - truth.mean(0)
    turn, size = orthogonal_procrustes(shape.numpy(), wanted.numpy())
    return shape @ torch.from_numpy(np.asarray(turn, shape.numpy().dtype)) * float(size) / shape.pow(2).sum() + truth.mean(0)


@procrustes_map.variant
def _(points, truth):
    """The turn first, then the scale as a one-number regression."""
    shape, wanted = points - points.mean(0), truth - truth.mean(0)
    u, _, v = np.linalg.svd(wanted.T.numpy() @ shape.numpy())
    turned = shape @ torch.from_numpy((u @ v).T.copy())
    return (turned * wanted).sum() / (turned * turned).sum() * turned + truth.mean(0)


@procrustes_map.variant
def _(points, truth):
    """The orthogonal factor of the cross product through a symmetric square root."""
    shape, wanted = (points - points.mean(0)).double(), (truth - truth.mean(0)).double()
    cross = shape.T @ wanted
    values, vectors = torch.linalg.eigh(cross.T @ cross)
    root = values.clamp(min=0).sqrt()
    inverse = torch.where(root > 1e-7 * root.max(), 1 / root, 0)  # points on a line have no second direction to turn
    turn = cross @ (vectors * inverse) @ vectors.T
    return (root.sum() / shape.square().sum() * shape @ turn).to(points.dtype) + truth.mean(0)


# --- relative_board ----------------------------------------------------------------------------------------


def _board_cases(rng: torch.Generator) -> Iterator[Case]:
    def boards(n: int, pos: int, squares: int) -> Tensor:
        drawn = integers(rng, -1, 2, n, pos, squares)
        drawn[0, :2] = torch.tensor([1, -1, 0] + [1] * (squares - 3))  # something to tell apart on every draw
        return drawn

    yield Case("2 games of 4 positions on 6 squares", boards(2, 4, 6))
    yield Case("3 games of 7 positions on 9 squares", boards(3, 7, 9))
    yield Case("1 game of 3 positions on 4 squares", boards(1, 3, 4))
    yield Case("the first position alone", torch.tensor([[[1, 0, -1]]])).of("extreme")
    yield Case("an empty board", torch.zeros(2, 3, 4, dtype=torch.long)).of("extreme")


relative_board = Exercise(
    "relative_board",
    without={**NOT_TRAINED, **NO_THRESHOLD, **ALL_COUNTS, "scale": "owners have no scale", "negative": "owners are integers; -1 is in every case"},
    difficulty=1,
    importance=4,
    minutes=5,
    learn="How the same state in two codings can be easy for a probe or out of its reach.",
    cases=_board_cases,
    hints=(
        "Whose turn is it at position 0, at position 1, at position 2? Where it is the first player's turn the board can "
        "stay as it is.",
        "You want a sign for every position and to multiply the boards with it. Along which of the three dimensions of "
        "`boards` does that sign run, and what shape must it have to broadcast that way?",
        "Even positions have the sign 1, odd ones -1: make that from `torch.arange` and a remainder. `[pos]` against the last two "
        "dimensions `[pos, squares]`: where does the missing axis go?",
    ),
    verified="games of even and odd length, boards of several sizes.",
    next="fit one probe per coding to the same activations: the difference is the model's choice, not yours.",
)


def _sign(boards: Tensor) -> Tensor:
    return 1 - 2 * (torch.arange(boards.shape[1]) % 2)


@relative_board.mistake(
    "absolute",
    "Nothing was recoded: 1 is still the first player. At every other position the second player is to move, and for "
    "them those squares are theirs.",
)
def _(boards):
    return boards.clone()


@relative_board.mistake(
    "mine-is-theirs",
    "All signs are reversed: you coded the boards for the player who has just moved. It is the one who moves next.",
)
def _(boards):
    return -boards * _sign(boards)[:, None]


@relative_board.mistake(
    "squares-alternate",
    "The sign alternates from square to square instead of from position to position: a vector broadcasts along the last "
    "dimension.",
)
def _(boards):
    return boards * (1 - 2 * (torch.arange(boards.shape[2]) % 2))


@relative_board.mistake(
    "games-alternate",
    "The sign alternates from game to game instead of from position to position: the first dimension is the batch.",
)
def _(boards):
    return boards * (1 - 2 * (torch.arange(boards.shape[0]) % 2))[:, None, None]


@relative_board.mistake(
    "zero-or-one",
    "You multiplied by 0 and 1, so every other board is empty. The sign at the second player's positions is -1.",
)
def _(boards):
    return boards * (1 - torch.arange(boards.shape[1]) % 2)[:, None]


@relative_board.mistake(
    "all-turned",
    "Every position was turned around, also those where the first player is to move.",
)
def _(boards):
    return -boards


@relative_board.variant
def _(boards):
    """Turn every other position of a copy."""
    out = boards.clone()
    out[:, 1::2] = -out[:, 1::2]
    return out


@relative_board.variant
def _(boards):
    """A power of minus one, einsum."""
    return torch.einsum("nps,p->nps", boards, torch.tensor([(-1) ** p for p in range(boards.shape[1])]))


@relative_board.variant
def _(boards):
    """Compare with the player to move; the result is not contiguous."""
    mover = _sign(boards)[:, None]
    mine, theirs = boards == mover, boards == -mover
    return (mine.long() - theirs.long()).transpose(0, 2).contiguous().transpose(0, 2)
