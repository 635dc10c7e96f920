"""The exercises of chapter 11: cases, named mistakes, other right answers and hints."""

import math
from collections.abc import Iterator

import numpy as np
import torch
from sklearn.covariance import empirical_covariance
from sklearn.decomposition import PCA
from sklearn.metrics import roc_auc_score
from torch import Tensor

from utils.course.battery import ALL_COUNTS, NOT_TRAINED, NO_MATRIX, NO_SCALE, NO_THRESHOLD
from utils.course.cases import integers, normal, shuffle, uniform
from utils.course.exercises import Case, Exercise


def _labels(rng: torch.Generator, zeros: int, ones: int) -> Tensor:
    return shuffle(rng, [0] * zeros + [1] * ones)


# --- grouped_split -----------------------------------------------------------------------------------------


def _split_cases(rng: torch.Generator) -> Iterator[Case]:
    def spread(n_groups: int) -> Tensor:
        return (torch.randperm(n_groups, generator=rng).double() + 0.5) / n_groups

    yield Case("12 rows, 6 groups of two", shuffle(rng, [*range(6)] * 2), spread(6))
    # The ids first appear from large to small, the draws grow with the id: the order of the ids matters.
    ids = torch.tensor([970, 61, 42, 40, 13, 7, 3])
    yield Case(
        "groups of 1 to 4 rows, ids with gaps",
        ids.repeat_interleave(torch.tensor([2, 1, 3, 1, 2, 4, 1])),
        (torch.arange(7) + uniform(rng, 7)) / 7,
        val=0.35,
        test=0.25,
    )
    quarters = torch.tensor([0.0, 0.25, 0.25, 0.5, 0.5, 0.75, 0.9, 0.1])
    yield Case("draws on the boundaries", shuffle(rng, [*range(8)] * 3), quarters[torch.randperm(8, generator=rng)], val=0.25, test=0.25)
    few = torch.cat([0.05 + 0.2 * torch.rand(6, generator=rng), 0.32 + 0.1 * torch.rand(4, generator=rng)])
    yield Case("by chance, nothing falls into train", shuffle(rng, [*range(10)] * 2), few[torch.randperm(10, generator=rng)])
    yield Case('negative ids', torch.tensor([-5, 3, -5, -1, 3]), torch.tensor([0.1, 0.9, 0.4], dtype=torch.float64))
    yield Case("no group for validation, half for test", torch.tensor([3, 1, 1, 8]), torch.tensor([0.0, 0.5, 0.499], dtype=torch.float64), 0.0, 0.5).of("boundary")
    yield Case("all in test", torch.tensor([5, 5, 2]), torch.tensor([0.3, 0.9], dtype=torch.float64), 0.0, 1.0).of("extreme")
    yield Case("no group for test", torch.tensor([3, 1, 1, 8]), torch.tensor([0.0, 0.2, 0.3], dtype=torch.float64), 0.25, 0.0).of("extreme")
    yield Case("one group, in test", torch.tensor([4, 4, 4]), torch.tensor([0.1], dtype=torch.float64)).of("extreme")


grouped_split = Exercise(
    "grouped_split",
    without={**NOT_TRAINED, **ALL_COUNTS, **NO_SCALE, **NO_MATRIX, "negative": "draws and shares are never negative"},
    difficulty=2,
    importance=5,
    minutes=10,
    learn="How to split data so that a test row never has a twin in training.",
    cases=_split_cases,
    hints=(
        "The draw belongs to the group, not to the row. How do you get from a row's id to the place of that id "
        "in the sorted list of distinct ids?",
        "Print `groups.unique(return_inverse=True)` for `tensor([7, 7, 2, 2, 9, 9])`. Which of the two tensors has one "
        "entry per row, and what could you index with it?",
        "`unique(return_inverse=True)` gives each row the rank of its group, and with it a draw per row. Which two "
        "numbers cut the interval from 0 to 1 into three, and to which side does a draw on the cut belong?",
    ),
    verified="ids with gaps, groups of unequal size, draws on the boundaries; every row is in exactly one mask, and no group in two.",
    next="what would leak if both sentences about Lagos could be on different sides?",
)


def _which(groups: Tensor) -> Tensor:
    return groups.unique(return_inverse=True)[1]


def _masks(draw: Tensor, val: float, test: float) -> tuple[Tensor, Tensor, Tensor]:
    in_test, in_val = draw < test, (draw >= test) & (draw < test + val)
    return ~(in_test | in_val), in_val, in_test


@grouped_split.mistake(
    "split-by-row",
    "You split rows, so the two rows of one group can land on different sides. The probe then meets its test cities "
    "during training. Look up one draw per group, and give every row the draw of its group.",
)
def _(groups, draws, val=0.2, test=0.3):
    return _masks(torch.arange(len(groups)) / len(groups), val, test)


@grouped_split.mistake(
    "ids-as-positions",
    "You used the group ids as positions in `draws`. That works while the ids are 0, 1, 2, ... without gaps. Ids are "
    "names: find the rank of each among the distinct ones first.",
)
def _(groups, draws, val=0.2, test=0.3):
    return _masks(draws[groups], val, test)


@grouped_split.mistake(
    "order-of-appearance",
    "Your first draw goes to the group that appears first, and the specification gives it to the smallest id. Shuffle "
    "the rows and your split changes, although the groups and the draws are the same.",
)
def _(groups, draws, val=0.2, test=0.3):
    seen = {group: i for i, group in enumerate(dict.fromkeys(groups.tolist()))}
    return _masks(draws[[seen[group] for group in groups.tolist()]], val, test)


@grouped_split.mistake(
    "val-interval-at-zero",
    "Your validation interval ends at `val`. It begins where test ends, so where must its right end be?",
)
def _(groups, draws, val=0.2, test=0.3):
    draw = draws[_which(groups)]
    in_test, in_val = draw < test, (draw >= test) & (draw < val)
    return ~(in_test | in_val), in_val, in_test


@grouped_split.mistake(
    "test-inside-val",
    "Your masks overlap: every test row is a validation row as well. The layer that you choose on validation would be "
    "chosen on the test rows. Add the three masks as integers; each row must give 1.",
)
def _(groups, draws, val=0.2, test=0.3):
    draw = draws[_which(groups)]
    return draw >= test + val, draw < test + val, draw < test


@grouped_split.mistake(
    "train-first",
    "You filled the unit interval in the order train, validation, test. The sizes come out right, the groups do not: "
    "the specification puts test at the left end.",
)
def _(groups, draws, val=0.2, test=0.3):
    draw = draws[_which(groups)]
    train = 1 - val - test
    return draw < train, (draw >= train) & (draw < 1 - test), draw >= 1 - test


@grouped_split.mistake(
    "val-and-test-swapped",
    "Your second mask is test and your third is validation. The caller unpacks them as (train, validation, test).",
)
def _(groups, draws, val=0.2, test=0.3):
    in_train, in_val, in_test = _masks(draws[_which(groups)], val, test)
    return in_train, in_test, in_val


@grouped_split.mistake(
    "right-end-included",
    "A draw that lies exactly on a boundary goes to your left interval. Each interval holds its left end and not its "
    "right one: is that `<` or `<=`?",
)
def _(groups, draws, val=0.2, test=0.3):
    draw = draws[_which(groups)]
    in_test, in_val = draw <= test, (draw > test) & (draw <= test + val)
    return ~(in_test | in_val), in_val, in_test


@grouped_split.mistake(
    "quota-by-rank",
    "You sorted the groups by draw and took fixed numbers of them. The specification compares the draws themselves with "
    "`test` and `test + val`, so the sizes may vary with the draws.",
)
def _(groups, draws, val=0.2, test=0.3):
    rank = draws.argsort().argsort()
    return _masks(((rank + 0.5) / len(draws))[_which(groups)], val, test)


@grouped_split.variant
def _(groups, draws, val=0.2, test=0.3):
    draw_of = dict(zip(sorted(set(groups.tolist())), draws.tolist()))
    side = [0 if draw_of[g] >= test + val else 1 if draw_of[g] >= test else 2 for g in groups.tolist()]
    return tuple(torch.tensor([s == wanted for s in side]) for wanted in range(3))


@grouped_split.variant
def _(groups, draws, val=0.2, test=0.3):
    draw = draws[torch.searchsorted(groups.unique(), groups)]
    side = torch.bucketize(draw, torch.tensor([test, test + val], dtype=draw.dtype), right=True)
    return side == 2, side == 1, side == 0


@grouped_split.variant
def _(groups, draws, val=0.2, test=0.3):
    ids = groups.unique()
    in_test = torch.isin(groups, ids[draws < test])
    in_train = torch.isin(groups, ids[draws >= test + val])
    return in_train, ~in_train & ~in_test, in_test


# --- mass_mean_direction -----------------------------------------------------------------------------------


def _mass_mean_cases(rng: torch.Generator) -> Iterator[Case]:
    yield Case("5 rows, 3 dimensions", 2 + normal(rng, 5, 3), _labels(rng, 2, 3))
    yield Case("11 rows, 7 dimensions, classes of 3 and 8, float32", normal(rng, 11, 7, dtype=torch.float32) - 1.5, _labels(rng, 3, 8))
    yield Case("a single row of class 1", 3 * normal(rng, 6, 4) + 1, _labels(rng, 5, 1))
    yield Case("one row of each class", torch.tensor([[2.0, -1.0], [5.0, 3.0]], dtype=torch.float64), torch.tensor([1, 0])).of("extreme")


mass_mean_direction = Exercise(
    "mass_mean_direction",
    without={**NOT_TRAINED, **NO_THRESHOLD, **ALL_COUNTS},
    difficulty=1,
    importance=5,
    minutes=8,
    learn="How to turn two clouds of activations into one direction and a threshold.",
    cases=_mass_mean_cases,
    hints=(
        "Two clouds, two centres. The direction is the arrow from one centre to the other; the threshold is the score "
        "of the spot halfway along it.",
        "`labels == 1` is a mask over rows. Print the shape of `acts[labels == 1]` and of its mean: which axis has to "
        "disappear so that d_model is left?",
        "Both means have shape [d_model]. The threshold is the score of a point, so it is a product with the direction; "
        "which point lies halfway between `mean_0` and `mean_1`, and which of them does the direction end at?",
    ),
    verified="unequal classes, means far from the origin, float32 and float64, a class with one row.",
    next="the threshold is not 0 and not the mean of all rows. When would each of these cost you accuracy?",
)


def _means(acts: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    return acts[labels == 0].mean(0), acts[labels == 1].mean(0)


@mass_mean_direction.mistake(
    "points-from-true-to-false",
    "Your direction points from class 1 to class 0. Everything downstream will still separate the classes, with the "
    "sign reversed: check the order of the subtraction.",
)
def _(acts, labels):
    mean_0, mean_1 = _means(acts, labels)
    direction = mean_0 - mean_1
    return direction, direction @ (mean_0 + mean_1) / 2


@mass_mean_direction.mistake(
    "threshold-at-zero",
    "Your direction is right and your threshold is 0. Zero is the score of the origin, and activations do not sit "
    "around the origin. Which point lies halfway between the two means?",
)
def _(acts, labels):
    mean_0, mean_1 = _means(acts, labels)
    return mean_1 - mean_0, torch.zeros((), dtype=acts.dtype)


@mass_mean_direction.mistake(
    "midpoint-of-all-rows",
    "Your threshold is the score of the mean of all rows. With classes of unequal size that point lies nearer to the "
    "larger class; halfway between the two class means is another place.",
)
def _(acts, labels):
    mean_0, mean_1 = _means(acts, labels)
    direction = mean_1 - mean_0
    return direction, direction @ acts.mean(0)


@mass_mean_direction.mistake(
    "midpoint-not-halved",
    "Your threshold is the score of the sum of the two means, which is twice as far out as the point between them.",
)
def _(acts, labels):
    mean_0, mean_1 = _means(acts, labels)
    direction = mean_1 - mean_0
    return direction, direction @ (mean_0 + mean_1)


@mass_mean_direction.mistake(
    "threshold-is-a-point",
    "You returned the midpoint itself, a vector. A threshold is compared with scores, so it is one number: what is the "
    "score of that point?",
)
def _(acts, labels):
    mean_0, mean_1 = _means(acts, labels)
    return mean_1 - mean_0, (mean_0 + mean_1) / 2


@mass_mean_direction.mistake(
    "normalised",
    "You scaled the direction to length 1. The specification keeps its length: it is the distance between the two "
    "means, and later chapters steer with it.",
)
def _(acts, labels):
    mean_0, mean_1 = _means(acts, labels)
    direction = (mean_1 - mean_0) / (mean_1 - mean_0).norm()
    return direction, direction @ (mean_0 + mean_1) / 2


@mass_mean_direction.mistake(
    "labels-as-row-numbers",
    "`acts[labels]` with integer labels picks rows number 0 and 1 again and again; it does not filter. Make a boolean "
    "mask of the rows first.",
)
def _(acts, labels):
    mean_0, mean_1 = acts[1 - labels].mean(0), acts[labels].mean(0)
    direction = mean_1 - mean_0
    return direction, direction @ (mean_0 + mean_1) / 2


@mass_mean_direction.mistake(
    "mean-over-dimensions",
    "You averaged over d_model and kept the rows. A class mean is one point in activation space: the axis of the rows "
    "has to go.",
)
def _(acts, labels):
    mean_0, mean_1 = acts[labels == 0].mean(1), acts[labels == 1].mean(1)
    direction = mean_1 - mean_0
    return direction, direction @ (mean_0 + mean_1) / 2


@mass_mean_direction.variant
def _(acts, labels):
    sums, counts = [0, 0], [0, 0]
    for row, label in zip(acts, labels.tolist()):
        sums[label], counts[label] = sums[label] + row, counts[label] + 1
    mean_0, mean_1 = sums[0] / counts[0], sums[1] / counts[1]
    return mean_1 - mean_0, ((mean_1**2).sum() - (mean_0**2).sum()) / 2


@mass_mean_direction.variant
def _(acts, labels):
    weights = torch.stack([1 - labels, labels]).to(acts.dtype)
    means = torch.einsum("cn,nd->cd", weights / weights.sum(1, keepdim=True), acts)
    direction = means[1] - means[0]
    return direction, (means @ direction).mean()


@mass_mean_direction.variant
def _(acts, labels):
    mean_0, mean_1 = (torch.from_numpy(np.mean(acts.numpy()[labels.numpy() == c], axis=0)) for c in (0, 1))
    both = torch.stack([mean_0, mean_1, mean_1 - mean_0], dim=1)  # [d, 3]: the direction is a non-contiguous column
    return both[:, 2], torch.dot(both[:, 2], 0.5 * (mean_0 + mean_1))


# --- whitened_direction ------------------------------------------------------------------------------------


def _whitened_cases(rng: torch.Generator) -> Iterator[Case]:
    def clouds(n_0: int, n_1: int, d_model: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
        """Two clouds with different, tilted and stretched spreads, away from the origin."""
        labels = _labels(rng, n_0, n_1)
        mixes = normal(rng, 2, d_model, d_model) / math.sqrt(d_model) + torch.diag(torch.linspace(1, 3, d_model).double())
        acts = torch.einsum("nd,nde->ne", normal(rng, n_0 + n_1, d_model), mixes[labels])
        return (acts + 5 + 2 * labels[:, None]).to(dtype), labels

    yield Case("12 rows, 3 dimensions", *clouds(5, 7, 3))
    yield Case("31 rows, 6 dimensions, classes of 9 and 22", *clouds(9, 22, 6), ridge=0.5)
    yield Case("fewer rows than dimensions", *clouds(4, 5, 13), ridge=0.3)
    yield Case("float32", *clouds(16, 9, 5, torch.float32), ridge=1.0)
    small = torch.randn(12, 3, generator=rng, dtype=torch.float64)
    yield Case("one row of class 1", small, (torch.arange(12) == 4).long(), 2.5).of("extreme")
    yield Case("3 rows", small[:3], torch.tensor([0, 1, 1])).of("extreme")
    labels = torch.arange(12) % 2
    yield Case("a small ridge", small * torch.tensor([1.0, 0.01, 0.001], dtype=torch.float64), labels, 1e-5)
    yield Case("a large ridge", small, labels, 40.0)


whitened_direction = Exercise(
    "whitened_direction",
    without={**NOT_TRAINED, **NO_THRESHOLD, **ALL_COUNTS},
    difficulty=3,
    importance=4,
    minutes=20,
    learn="What the spread of the data does to a difference of means, and how a ridge keeps the inverse sane.",
    cases=_whitened_cases,
    hints=(
        "A feature that varies wildly within both classes should count for less. Measure the spread around each row's "
        "own class mean, so that the gap between the classes does not count as spread.",
        "`means[labels]` gives each row its own class mean. What shape has `within = acts - means[labels]`, and which "
        "product of it with itself is [d_model, d_model]?",
        "The spread is that product over n - 2. The ridge goes on its diagonal only (`torch.eye`), in units of the "
        "diagonal's own mean; `torch.linalg.solve(A, b)` is the inverse of A times b.",
    ),
    verified="pooled within-class covariance with n - 2, a ridge on the diagonal in its units, more dimensions than rows.",
    next="the ridge at 0 gives Fisher's direction, a very large one gives mass-mean again, up to its length.",
)


def _within(acts: Tensor, labels: Tensor) -> Tensor:
    return acts - torch.stack(_means(acts, labels))[labels]


def _pooled(acts: Tensor, labels: Tensor) -> Tensor:
    within = _within(acts, labels)
    return within.T @ within / (len(acts) - 2)


def _gap(acts: Tensor, labels: Tensor) -> Tensor:
    mean_0, mean_1 = _means(acts, labels)
    return mean_1 - mean_0


def _with_ridge(spread: Tensor, ridge: float) -> Tensor:
    return spread + ridge * spread.diagonal().mean() * torch.eye(len(spread), dtype=spread.dtype)


@whitened_direction.mistake(
    "gap-counts-as-spread",
    "You took the covariance around the mean of all rows. The distance between the classes then counts as spread, most "
    "of all along the very direction that you look for. Centre each row on its own class.",
)
def _(acts, labels, ridge=0.1):
    return torch.linalg.solve(_with_ridge(torch.cov(acts.T), ridge), _gap(acts, labels))


@whitened_direction.mistake(
    "divided-by-n",
    "You divided by n. Two means were estimated from the same rows, so n - 2 deviations are free. It only changes the "
    "length here, but a covariance that is too small will matter in other chapters.",
)
def _(acts, labels, ridge=0.1):
    within = _within(acts, labels)
    return torch.linalg.solve(_with_ridge(within.T @ within / len(acts), ridge), _gap(acts, labels))


@whitened_direction.mistake(
    "classes-weighted-equally",
    "You averaged the covariances of the two classes. With unequal classes, a handful of rows then weighs as much as all "
    "the others. Pool the deviations first, divide once.",
)
def _(acts, labels, ridge=0.1):
    spread = (torch.cov(acts[labels == 0].T) + torch.cov(acts[labels == 1].T)) / 2
    return torch.linalg.solve(_with_ridge(spread, ridge), _gap(acts, labels))


@whitened_direction.mistake(
    "ridge-with-a-unit",
    "You added `ridge` itself to the diagonal. Its effect then depends on the scale of the layer, and norms grow "
    "tenfold from the first layers to the last. Multiply it by the mean of the diagonal.",
)
def _(acts, labels, ridge=0.1):
    spread = _pooled(acts, labels)
    return torch.linalg.solve(spread + ridge * torch.eye(len(spread), dtype=acts.dtype), _gap(acts, labels))


@whitened_direction.mistake(
    "ridge-on-every-entry",
    "You added the ridge to every entry of the covariance, because a number broadcasts. Only the diagonal should grow: "
    "what is an identity matrix for?",
)
def _(acts, labels, ridge=0.1):
    spread = _pooled(acts, labels)
    return torch.linalg.solve(spread + ridge * spread.diagonal().mean(), _gap(acts, labels))


@whitened_direction.mistake(
    "multiplied-by-the-spread",
    "You multiplied by the covariance. That stretches the direction along the noisy features; dividing by the spread "
    "means solving with it.",
)
def _(acts, labels, ridge=0.1):
    return _with_ridge(_pooled(acts, labels), ridge) @ _gap(acts, labels)


@whitened_direction.mistake(
    "diagonal-only",
    "You divided each feature by its own variance. Features that move together are then counted several times: the "
    "covariances between features belong in it too.",
)
def _(acts, labels, ridge=0.1):
    return _gap(acts, labels) / _with_ridge(_pooled(acts, labels), ridge).diagonal()


@whitened_direction.mistake(
    "half-whitened",
    "You used the square root of the inverse, which whitens the activations once. A direction that acts on raw "
    "activations needs it twice: once for the means, once for the activation that it will be multiplied with.",
)
def _(acts, labels, ridge=0.1):
    values, vectors = torch.linalg.eigh(_with_ridge(_pooled(acts, labels), ridge))
    return vectors @ ((vectors.T @ _gap(acts, labels)) / values.sqrt())


@whitened_direction.mistake(
    "points-from-true-to-false",
    "Your direction points from class 1 to class 0: check the order of the subtraction.",
)
def _(acts, labels, ridge=0.1):
    return torch.linalg.solve(_with_ridge(_pooled(acts, labels), ridge), -_gap(acts, labels))


@whitened_direction.variant
def _(acts, labels, ridge=0.1):
    return torch.linalg.inv(_with_ridge(_pooled(acts, labels), ridge)) @ _gap(acts, labels)


@whitened_direction.variant
def _(acts, labels, ridge=0.1):
    groups = [acts[labels == c].numpy() for c in (0, 1)]
    spread = sum(len(g) * empirical_covariance(g) for g in groups) / (len(acts) - 2)
    spread = spread + np.identity(len(spread), dtype=spread.dtype) * (ridge * np.trace(spread) / len(spread))
    gap = groups[1].mean(axis=0) - groups[0].mean(axis=0)
    return torch.from_numpy(np.linalg.solve(spread, gap)).to(acts.dtype)


@whitened_direction.variant
def _(acts, labels, ridge=0.1):
    d_model = acts.shape[1]
    mean_0, mean_1 = _means(acts, labels)
    spread = torch.zeros(d_model, d_model, dtype=acts.dtype)
    for row, label in zip(acts, labels.tolist()):
        away = row - (mean_1 if label else mean_0)
        spread += torch.outer(away, away)
    spread /= len(acts) - 2
    spread.diagonal().add_(ridge * spread.trace() / d_model)
    return torch.cholesky_solve((mean_1 - mean_0)[:, None], torch.linalg.cholesky(spread))[:, 0]


# --- fold_standardisation ----------------------------------------------------------------------------------


def _fold_cases(rng: torch.Generator) -> Iterator[Case]:
    def probe(d_model: int, constant: list[int], dtype: torch.dtype = torch.float64) -> tuple[Tensor, ...]:
        weight, mean = normal(rng, d_model, dtype=dtype), 2 + normal(rng, d_model, dtype=dtype).abs()
        std = 2 + uniform(rng, d_model, dtype=dtype)
        std[constant] = 0
        weight[constant] = weight[constant].abs() + 0.5
        return weight, 1 + normal(rng, dtype=dtype).abs(), mean, std

    yield Case("3 features", *probe(3, []))
    yield Case("8 features, one of them constant, float32", *probe(8, [5], torch.float32))
    yield Case("6 features, two of them constant", *probe(6, [0, 3]))
    yield Case('a feature that hardly varied', torch.tensor([2.0, -3.0, 5.0], dtype=torch.float64), torch.tensor(0.25, dtype=torch.float64), torch.tensor([1e-06, 2.0, 7.0], dtype=torch.float64), torch.tensor([1e-07, 0.5, 0.0], dtype=torch.float64))
    yield Case("every feature constant", torch.randn(4, generator=rng, dtype=torch.float64), torch.tensor(0.7, dtype=torch.float64),
               torch.randn(4, generator=rng, dtype=torch.float64), torch.zeros(4, dtype=torch.float64)).of("extreme")
    tiny = torch.tensor([1e-300, 0.0, 2.0], dtype=torch.float64)
    yield Case("a std just above 0", torch.tensor([1e-300, 4.0, 6.0], dtype=torch.float64), torch.tensor(0.1, dtype=torch.float64),
               torch.tensor([0.5, -3.0, 1.0], dtype=torch.float64), tiny).of("boundary")
    yield Case("one feature", torch.tensor([3.0]), torch.tensor(0.5), torch.tensor([2.0]), torch.tensor([4.0])).of("extreme")
    yield Case("means of either sign", torch.tensor([2.0, -1.5]), torch.tensor(0.5), torch.tensor([-3.0, 2.0]), torch.tensor([4.0, 0.5]))


fold_standardisation = Exercise(
    "fold_standardisation",
    without={**NOT_TRAINED, **ALL_COUNTS, **NO_MATRIX},
    difficulty=2,
    importance=4,
    minutes=15,
    learn="How to carry a fitted probe back to the raw activations, where directions can be compared and added.",
    cases=_fold_cases,
    hints=(
        "Write out the score of one activation, weight @ ((x - mean) / std) + bias, and collect what multiplies x and "
        "what does not.",
        "Everything but the bias has shape [d_model]. Which of your intermediate tensors contain inf or nan when one "
        "entry of `std` is 0?",
        "What multiplies x is the weight over the spread; a safe divisor and `torch.where` keep it finite where the "
        "spread is 0. The rest of the formula, with x at 0, is the raw bias.",
    ),
    verified="the same score for every activation, with constant features adding nothing, float32 and float64.",
    next="the score does not change at all, so which of the probe's numbers does? That is why the cosine below needs raw coordinates.",
)


def _no_zeros(std: Tensor) -> Tensor:
    return torch.where(std > 0, std, torch.ones_like(std))


def _raw(weight: Tensor, std: Tensor) -> Tensor:
    return torch.where(std > 0, weight / _no_zeros(std), torch.zeros_like(weight))


@fold_standardisation.mistake(
    "multiplied-by-std",
    "You multiplied the weights by std. Standardising divides the activation by it, so the weight on the raw activation "
    "must do the dividing now.",
)
def _(weight, bias, mean, std):
    raw = weight * std
    return raw, bias - raw @ mean


@fold_standardisation.mistake(
    "bias-not-moved",
    "Your weights are right and the bias is the old one. Standardising also subtracted the mean: where did its score go?",
)
def _(weight, bias, mean, std):
    return _raw(weight, std), bias


@fold_standardisation.mistake(
    "bias-added",
    "You added the mean's score to the bias. The mean is subtracted from x, so its score leaves the bias.",
)
def _(weight, bias, mean, std):
    return _raw(weight, std), bias + _raw(weight, std) @ mean


@fold_standardisation.mistake(
    "mean-not-scaled",
    "You subtracted weight @ mean with the old weights. The mean was divided by std together with x.",
)
def _(weight, bias, mean, std):
    return _raw(weight, std), bias - torch.where(std > 0, weight, 0) @ mean


@fold_standardisation.mistake(
    "constant-feature-divides-by-zero",
    "A feature with std 0 turns your result into inf or nan, and every score with it. Give such a feature the weight 0.",
)
def _(weight, bias, mean, std):
    return weight / std, bias - (weight / std) @ mean


@fold_standardisation.mistake(
    "constant-feature-keeps-its-weight",
    "You divided by 1 where std is 0, so a constant feature keeps its weight. On the training rows that is harmless; on "
    "new rows, where the feature may differ, it adds a score that the fitted probe never gave.",
)
def _(weight, bias, mean, std):
    raw = weight / _no_zeros(std)
    return raw, bias - raw @ mean


@fold_standardisation.mistake(
    "constant-feature-explodes",
    "You added a tiny number to std. A constant feature then gets a weight of a hundred million, and the last digit of "
    "a new activation decides the score. Its weight has to be 0.",
)
def _(weight, bias, mean, std):
    raw = weight / (std + 1e-8)
    return raw, bias - raw @ mean


@fold_standardisation.mistake(
    "constant-feature-in-the-bias",
    "The weight of a constant feature is 0 in your result, and yet it changed the bias. It must add nothing at all: use "
    "the raw weights for the bias too.",
)
def _(weight, bias, mean, std):
    return _raw(weight, std), bias - (weight / _no_zeros(std)) @ mean


@fold_standardisation.variant
def _(weight, bias, mean, std):
    raw = weight / std.masked_fill(std == 0, math.inf)
    return raw, bias - (raw * mean).sum()


@fold_standardisation.variant
def _(weight, bias, mean, std):
    raw, shift = [], bias.clone()
    for w, m, s in zip(weight, mean, std):
        raw.append(w / s if s > 0 else torch.zeros_like(w))
        shift = shift - raw[-1] * m
    return torch.stack(raw), shift


@fold_standardisation.variant
def _(weight, bias, mean, std):
    both = torch.stack([weight / std, mean], dim=1)  # columns of a matrix are non-contiguous
    both[std == 0] = 0
    return both[:, 0], bias - torch.einsum("d,d->", both[:, 0], both[:, 1])


# --- auroc -------------------------------------------------------------------------------------------------


def _auroc_cases(rng: torch.Generator) -> Iterator[Case]:
    yield Case("6 scores without ties", normal(rng, 6) + 0.3, _labels(rng, 3, 3))
    # Ties across the classes in both orders, whichever rows the labels fall on.
    tied = torch.tensor([2.0, 2.0, 0.5, -1.0, 0.5, 3.0, 0.5, -1.0, 2.0, 4.0, -3.0, 0.5, 3.0])
    yield Case("13 scores with ties, float32", tied.float(), torch.tensor([1, 0, 0, 1, 0, 0, 1, 0, 1, 1, 0, 1, 1]))
    labels = _labels(rng, 7, 4)
    yield Case("worse than chance, all scores below zero", -5 - normal(rng, 11).abs() - 0.9 * labels, labels)
    yield Case("the same score for every row", torch.full((5,), 1.5, dtype=torch.float64), _labels(rng, 2, 3))
    yield Case('scores that differ by very little', torch.tensor([0.0, 3.0, 1.0, 2.0, 2.0], dtype=torch.float64) * 1e-09 + 0.5, torch.tensor([0, 0, 1, 1, 0]))
    near = 1.0 + torch.tensor([0.0, 1e-12, 0.0, -1e-12], dtype=torch.float64)
    yield Case("two scores equal, two almost", near, torch.tensor([0, 0, 1, 1])).of("boundary")
    yield Case("one row of each class", torch.tensor([-3.0, 2.0]), torch.tensor([1, 0])).of("extreme")


auroc = Exercise(
    "auroc",
    without={**NOT_TRAINED, **ALL_COUNTS, **NO_MATRIX},
    difficulty=2,
    importance=5,
    minutes=12,
    learn="What an AUROC is: a number about pairs, which needs no threshold.",
    cases=_auroc_cases,
    hints=(
        "Draw one row of class 1 and one of class 0. Who scores higher? Ask that of every such pair, and say what a draw "
        "is worth.",
        "With `positive` of shape [p] and `negative` of shape [q], what is the shape of `positive[:, None] - negative[None, :]`, "
        "and what does one entry of it compare?",
        "In that table of gaps a pair counts 1, one half or 0. Write it as two comparisons that you can add, take the "
        "mean over the table, and return a Python float (`.item()`).",
    ),
    verified="all pairs of the two classes, ties as one half, scores of any sign, results on both sides of 0.5.",
    next="an AUROC below 0.5 is a finding, not an error: keep it in mind until the last section.",
)


def _pairs(scores: Tensor, labels: Tensor) -> Tensor:
    return scores[labels == 1][:, None] - scores[labels == 0][None, :]


def _half_ties(gap: Tensor) -> Tensor:
    return (gap > 0).double() + 0.5 * (gap == 0).double()


@auroc.mistake(
    "ties-count-as-wins",
    "A pair with equal scores counts as a win in your version. A probe that gives every row the same score would get 1.",
)
def _(scores, labels):
    return (_pairs(scores, labels) >= 0).double().mean().item()


@auroc.mistake(
    "ties-count-as-losses",
    "A pair with equal scores counts as a loss in your version. A probe that gives every row the same score would get 0, "
    "which is worse than a coin.",
)
def _(scores, labels):
    return (_pairs(scores, labels) > 0).double().mean().item()


@auroc.mistake(
    "nearly-equal-counts-as-a-tie",
    "Your version calls two scores a tie when they are only close, as `isclose` or rounding does. However little one is ahead, it wins.",
)
def _(scores, labels):
    gap = _pairs(scores, labels)
    close = torch.isclose(scores[labels == 1][:, None], scores[labels == 0][None, :], rtol=1e-3, atol=1e-5)
    return ((gap > 0) & ~close).double().add(0.5 * close.double()).mean().item()


@auroc.mistake(
    "classes-swapped",
    "You counted how often class 0 scores higher than class 1. Everything is there, seen from the other side.",
)
def _(scores, labels):
    return _half_ties(-_pairs(scores, labels)).mean().item()


@auroc.mistake(
    "accuracy-at-zero",
    "You compared the scores with 0 and counted the right answers. That is an accuracy at one threshold; the AUROC has "
    "no threshold, only pairs.",
)
def _(scores, labels):
    return ((scores > 0).long() == labels).double().mean().item()


@auroc.mistake(
    "never-below-half",
    "You turned results below 0.5 around. A probe that is wrong more often than right is news, and this would hide it.",
)
def _(scores, labels):
    area = _half_ties(_pairs(scores, labels)).mean().item()
    return max(area, 1 - area)


@auroc.mistake(
    "ranks-from-zero",
    "Your ranks begin at 0, and the formula that you use subtracts p (p + 1) / 2 for ranks that begin at 1. Try it on "
    "two rows that are in the right order: it must give 1.",
)
def _(scores, labels):
    below = (scores[None, :] < scores[:, None]).double().sum(1) + 0.5 * ((scores[None, :] == scores[:, None]).double().sum(1) - 1)
    p, q = int((labels == 1).sum()), int((labels == 0).sum())
    return ((below[labels == 1].sum() - p * (p + 1) / 2) / (p * q)).item()


@auroc.mistake(
    "ties-by-row-order",
    "Sorting gives tied scores different ranks, by the order of the rows. Shuffle the rows and your number changes. "
    "Tied rows must share the mean of their ranks, or each tied pair must count one half.",
)
def _(scores, labels):
    ranks = scores.argsort(stable=True).argsort() + 1.0
    p, q = int((labels == 1).sum()), int((labels == 0).sum())
    return ((ranks[labels == 1].sum() - p * (p + 1) / 2) / (p * q)).item()


@auroc.mistake(
    "divided-by-all-pairs",
    "You divided by n times n. Pairs from the same class are in no one's interest: how many pairs have one row of each class?",
)
def _(scores, labels):
    return (_half_ties(_pairs(scores, labels)).sum() / len(scores) ** 2).item()


@auroc.variant
def _(scores, labels):
    wins, pairs = 0.0, 0
    for s, a in zip(scores.tolist(), labels.tolist()):
        for t, b in zip(scores.tolist(), labels.tolist()):
            if a == 1 and b == 0:
                wins, pairs = wins + (s > t) + 0.5 * (s == t), pairs + 1
    return wins / pairs


@auroc.variant
def _(scores, labels):
    return float(roc_auc_score(labels.numpy(), scores.numpy()))


@auroc.variant
def _(scores, labels):
    values, place, count = scores.unique(return_inverse=True, return_counts=True)
    rank = (count.cumsum(0) - (count - 1) / 2)[place].double()  # tied rows share the mean of their ranks
    p = int(labels.sum())
    return ((rank[labels == 1].sum() - p * (p + 1) / 2) / (p * (len(labels) - p))).item()


@auroc.variant
def _(scores, labels):
    thresholds = torch.cat([scores.unique().flip(0), torch.tensor([-math.inf], dtype=scores.dtype)])
    called = torch.cat([torch.zeros(1, len(scores), dtype=torch.bool), scores[None] >= thresholds[:, None]]).double()
    hits, alarms = called[:, labels == 1].mean(1), called[:, labels == 0].mean(1)
    return torch.trapezoid(hits, alarms).item()


# --- grouped_bootstrap -------------------------------------------------------------------------------------


def _bootstrap_cases(rng: torch.Generator) -> Iterator[Case]:
    def draws(n_boot: int, n_groups: int) -> Tensor:
        return integers(rng, 0, n_groups, n_boot, n_groups)

    yield Case("6 rows in 3 groups of two", torch.tensor([1.0, 0.0, 1.0, 1.0, 0.0, 0.0]), torch.tensor([0, 0, 1, 1, 2, 2]), draws(40, 3))
    yield Case(
        "groups of 1 to 6 rows, ids with gaps",
        torch.rand(16, generator=rng),
        shuffle(rng, [2] * 6 + [5] * 1 + [30] * 4 + [31] * 2 + [4] * 3),
        draws(58, 5),
        coverage=0.8,
    )
    yield Case(
        "a number per row, coverage one half",
        3 + normal(rng, 22, dtype=torch.float32),
        shuffle(rng, [11] * 5 + [3] * 3 + [8] * 7 + [1] * 2 + [6] * 4 + [20]),
        draws(35, 6),
        coverage=0.5,
    )
    yield Case('negative ids', torch.tensor([1.0, 0.0, 1.0, 1.0]), torch.tensor([-2, 5, 5, -9]), torch.tensor([[0, 1, 2], [2, 2, 0], [1, 1, 1]]))
    yield Case("one group", torch.tensor([0.25, 1.0, 0.5]), torch.tensor([6, 6, 6]), torch.zeros(5, 1, dtype=torch.long), 0.9).of("extreme")
    yield Case("one resample", torch.tensor([0.0, 1.0, 1.0]), torch.tensor([2, 0, 0]), torch.tensor([[1, 1]])).of("extreme")
    rows, three = torch.tensor([0.0, 1.0, 4.0, 9.0, 2.0]), torch.tensor([0, 1, 1, 2, 2])
    yield Case("a narrow interval", rows, three, draws(9, 3), 0.2).of("extreme")
    yield Case("almost everything", rows, three, draws(9, 3), 0.999).of("extreme")
    yield Case("one resample of several groups", rows, three, torch.tensor([[2, 0, 1]]), 0.9).of("extreme")


grouped_bootstrap = Exercise(
    "grouped_bootstrap",
    without={**NOT_TRAINED, **NO_THRESHOLD, **ALL_COUNTS, **NO_SCALE, "negative": "a share of right answers is never negative"},
    difficulty=3,
    importance=5,
    minutes=20,
    learn="How sure to be of a score when the rows come in groups that stand or fall together.",
    cases=_bootstrap_cases,
    hints=(
        "One resample is a pretended data set: the groups that were drawn, each as often as it was drawn, all their rows "
        "in one heap. Take its mean. Then look at how the means of all resamples are spread.",
        "`total` and `size`, the sum of `correct` and the number of rows per group, have shape [n_groups]. What shape has "
        "`total[resamples]`, and over which axis do you add?",
        "Indexing with repeats brings a group that was drawn twice in twice: the drawn sums over the drawn sizes are "
        "one mean per resample. Which two shares of those means lie outside an interval that holds `coverage` of them?",
    ),
    verified="whole groups with multiplicity, groups of unequal size, interpolated quantiles at several coverages.",
    next="make every row its own group and compare the widths. Which of the two intervals answers the question that you have?",
)


def _totals(correct: Tensor, groups: Tensor) -> tuple[Tensor, Tensor]:
    which = _which(groups)
    return torch.bincount(which, correct).to(correct.dtype), torch.bincount(which).to(correct.dtype)


def _resampled(correct: Tensor, groups: Tensor, resamples: Tensor) -> Tensor:
    total, size = _totals(correct, groups)
    return total[resamples].sum(1) / size[resamples].sum(1)


def _between(means: Tensor, low: float, high: float) -> tuple[float, float]:
    return means.quantile(low).item(), means.quantile(high).item()


@grouped_bootstrap.mistake(
    "multiplicity-dropped",
    "A group that was drawn twice counts once in your resamples. Without the repeats every resample is a mere subset, and "
    "the interval is wrong. A mask cannot say 'twice'; indexing can.",
)
def _(correct, groups, resamples, coverage=0.95):
    ids = groups.unique()
    means = torch.stack([correct[torch.isin(groups, ids[row])].mean() for row in resamples])
    return _between(means, (1 - coverage) / 2, (1 + coverage) / 2)


@grouped_bootstrap.mistake(
    "mean-of-group-means",
    "You averaged the means of the groups, so a group of one row weighs as much as a group of seven. The specification "
    "asks for the mean over rows: add up the sums and the sizes, then divide.",
)
def _(correct, groups, resamples, coverage=0.95):
    total, size = _totals(correct, groups)
    return _between((total / size)[resamples].mean(1), (1 - coverage) / 2, (1 + coverage) / 2)


@grouped_bootstrap.mistake(
    "rows-instead-of-groups",
    "You used the resampled positions as row numbers. They are positions in the list of distinct groups; a group brings "
    "all of its rows.",
)
def _(correct, groups, resamples, coverage=0.95):
    return _between(correct[resamples].mean(1), (1 - coverage) / 2, (1 + coverage) / 2)


@grouped_bootstrap.mistake(
    "ids-as-positions",
    "You compared the group ids with the positions in `resamples`. A position of 0 means the smallest id, whatever its "
    "number is.",
)
def _(correct, groups, resamples, coverage=0.95):
    means = torch.stack([torch.cat([correct[groups == g] for g in row.tolist()]).mean() for row in resamples])
    return _between(means, (1 - coverage) / 2, (1 + coverage) / 2)


@grouped_bootstrap.mistake(
    "whole-tail-on-each-side",
    "You cut 1 - coverage off on both sides, so the interval holds less than you say. The two tails share it.",
)
def _(correct, groups, resamples, coverage=0.95):
    return _between(_resampled(correct, groups, resamples), 1 - coverage, coverage)


@grouped_bootstrap.mistake(
    "normal-approximation",
    "You went a number of standard deviations to each side of the mean. The percentile interval makes no such assumption: "
    "near 0 or 1 the resampled means lean to one side, and its ends show it.",
)
def _(correct, groups, resamples, coverage=0.95):
    means = _resampled(correct, groups, resamples)
    reach = math.sqrt(2) * torch.erfinv(torch.tensor(coverage, dtype=torch.float64)) * means.double().std()
    return (means.mean() - reach).item(), (means.mean() + reach).item()


@grouped_bootstrap.mistake(
    "without-interpolation",
    "You picked the nearest of the sorted means. The specification interpolates linearly between two of them, as "
    "`torch.quantile` does.",
)
def _(correct, groups, resamples, coverage=0.95):
    means = _resampled(correct, groups, resamples).sort().values
    return means[int((1 - coverage) / 2 * len(means))].item(), means[int((1 + coverage) / 2 * len(means))].item()


@grouped_bootstrap.mistake(
    "one-sided",
    "Your low end is at quantile 0 or your high end at quantile 1: you cut only one tail. The interval leaves out the "
    "same share on both sides.",
)
def _(correct, groups, resamples, coverage=0.95):
    return _between(_resampled(correct, groups, resamples), 0.0, coverage)


@grouped_bootstrap.variant
def _(correct, groups, resamples, coverage=0.95):
    rows = {g: correct[groups == g].tolist() for g in groups.tolist()}
    ids, means = sorted(rows), []
    for row in resamples.tolist():
        heap = [value for position in row for value in rows[ids[position]]]
        means.append(sum(heap) / len(heap))
    low, high = np.quantile(means, [(1 - coverage) / 2, (1 + coverage) / 2])
    return float(low), float(high)


@grouped_bootstrap.variant
def _(correct, groups, resamples, coverage=0.95):
    ids = groups.unique()
    times = torch.stack([(resamples == g).sum(1) for g in range(len(ids))], dim=1)  # [n_boot, n_groups]
    weights = times[:, torch.searchsorted(ids, groups)].to(correct.dtype)  # [n_boot, n]
    means = (weights @ correct) / weights.sum(1)
    tail = (1 - coverage) / 2
    return tuple(np.percentile(means.double().numpy(), [100 * tail, 100 - 100 * tail]).tolist())


@grouped_bootstrap.variant
def _(correct, groups, resamples, coverage=0.95):
    ids = groups.unique()
    means = torch.stack([torch.cat([correct[groups == ids[g]] for g in row]).mean() for row in resamples])
    ordered, ends = means.double().sort().values, []
    for share in ((1 - coverage) / 2, (1 + coverage) / 2):
        place = share * (len(ordered) - 1)
        below = min(int(place), len(ordered) - 2)
        ends.append(float(ordered[below] + (place - below) * (ordered[below + 1] - ordered[below])))
    return ends[0], ends[1]


# --- layer_sweep -------------------------------------------------------------------------------------------


def _sweep_cases(rng: torch.Generator) -> Iterator[Case]:
    train = torch.arange(25) < 11
    val = (torch.arange(25) >= 11) & (torch.arange(25) < 18)
    labels = torch.cat([_labels(rng, 5, 6), _labels(rng, 4, 3), _labels(rng, 3, 4)])

    side = 2 * labels - 1
    mixed = side.clone()  # on validation rows, + and - alternate within each class: near chance, never 0 or 1
    for label in (0, 1):
        rows = (val & (labels == label)).nonzero()[:, 0]
        mixed[rows] = 1 - 2 * (torch.arange(len(rows)) % 2)

    def layer(on_train: float, on_val: float, on_test: float) -> Tensor:
        """One layer in which the label moves the rows of the three parts this far along one axis; 0 on
        validation rows stands for `mixed`."""
        axis = torch.nn.functional.normalize(normal(rng, 5), dim=0)
        reach = torch.where(train, on_train, torch.where(val, on_val or 3, on_test)).double()
        return 0.5 * normal(rng, 25, 5) + 3 + (reach * (side if on_val else mixed))[:, None] * axis

    def case(label: str, *reaches: tuple[float, float, float]) -> Case:
        """A layer that a part of the rows likes best is not the layer that validation likes best."""
        order = torch.randperm(25, generator=rng)
        acts = torch.stack([layer(*reach) for reach in reaches])[:, order]
        return Case(label, acts, labels[order], train[order], val[order])

    yield case("3 layers, 11 train rows, 7 validation rows, 7 test rows", (3, 0, 3), (1, 3, -6), (2, -2, 2))
    yield case("a layer that is wrong on every validation row", (1, -4, 1), (3, 0, 3), (1, 0.8, -3), (1, 0.1, 1))
    twin = case("two layers that are equal", (3, 0, 3), (1, 3, -3), (2, 0.1, 2))
    acts, *rest = twin.args
    yield Case(twin.label, torch.cat([acts, acts[1:2], acts[2:]]).float(), *rest)
    acts = torch.randn(3, 14, 4, generator=rng, dtype=torch.float64)
    labels, rows = torch.arange(14) % 2, torch.arange(14)
    acts[:, rows >= 11] = torch.nan
    yield Case("the test rows are not a number", acts, labels, rows < 7, (rows >= 7) & (rows < 11)).of("nan")
    yield Case("one layer", acts[:1], labels, rows < 7, (rows >= 7) & (rows < 11)).of("extreme")
    better = torch.zeros(2, 200, 1, dtype=torch.float64)
    labels, rows = torch.arange(200) % 2, torch.arange(200)
    better[:, :, 0] = torch.where(labels == 1, 2.0, 1.0) + 1e-3 * rows
    better[0, 100, 0] = 2.1035  # above two of the fifty rows of class 1 that are compared with it
    yield Case("a layer that is better by less than a hundredth", better, labels, rows < 100, rows >= 100).of("extreme")


layer_sweep = Exercise(
    "layer_sweep",
    without={**NOT_TRAINED, **NO_THRESHOLD},
    difficulty=3,
    importance=5,
    minutes=12,
    learn="How to look at all layers and still have test rows that nobody has looked at.",
    cases=_sweep_cases,
    hints=(
        "Three kinds of rows, three jobs: train makes the direction, validation chooses the layer, test is not touched here.",
        "For one layer, `layer_acts` is [n, d_model]. How many rows has `layer_acts[train]`, how many `layer_acts[val]`, "
        "and which labels go with each?",
        "Two functions that you have written do the work inside a loop over `acts`: one gets the train rows, the other "
        "the scores of the validation rows. Of equal values, which index does `list.index(max(...))` return?",
    ),
    verified="train makes the directions, validation alone chooses, test rows change nothing; ties go to the earliest layer.",
    next="choose the layer on the test rows instead, and compare what you would have reported.",
)


def _areas(acts: Tensor, labels: Tensor, fitted: Tensor, scored: Tensor) -> list[float]:
    return [_half_ties(_pairs(layer[scored] @ _gap(layer[fitted], labels[fitted]), labels[scored])).mean().item() for layer in acts]


def _first_best(areas: list[float]) -> int:
    return areas.index(max(areas))


@layer_sweep.mistake(
    "trained-on-every-row",
    "Your directions are made from all rows, the validation and the test rows among them. A probe that has seen the "
    "answers says nothing about new cities: only the train rows may make the direction.",
)
def _(acts, labels, train, val):
    areas = _areas(acts, labels, train | ~train, val)
    return torch.tensor(areas), _first_best(areas)


@layer_sweep.mistake(
    "trained-on-validation-too",
    "Your directions are made from the train and the validation rows together, and then compared on validation rows that "
    "they have seen. Every layer looks better than it is, most of all the ones that memorise.",
)
def _(acts, labels, train, val):
    areas = _areas(acts, labels, train | val, val)
    return torch.tensor(areas), _first_best(areas)


@layer_sweep.mistake(
    "layer-chosen-on-train",
    "Your AUROCs are right, and the layer is the one that is best on the train rows. With more dimensions than rows many "
    "layers are near 1 there: choose where the direction has not been fitted.",
)
def _(acts, labels, train, val):
    return torch.tensor(_areas(acts, labels, train, val)), _first_best(_areas(acts, labels, train, train))


@layer_sweep.mistake(
    "scored-on-train",
    "Your AUROCs are those of the train rows, on which the direction was fitted. The validation mask is not used.",
)
def _(acts, labels, train, val):
    areas = _areas(acts, labels, train, train)
    return torch.tensor(areas), _first_best(areas)


@layer_sweep.mistake(
    "everything-but-train",
    "You scored on all rows outside train. That includes the test rows, so the layer is chosen on the rows that are kept "
    "for the end. `~train` is more than `val`.",
)
def _(acts, labels, train, val):
    areas = _areas(acts, labels, train, ~train)
    return torch.tensor(areas), _first_best(areas)


@layer_sweep.mistake(
    "train-and-val-swapped",
    "You fitted on the validation rows and scored on the train rows. Check which mask goes where.",
)
def _(acts, labels, train, val):
    areas = _areas(acts, labels, val, train)
    return torch.tensor(areas), _first_best(areas)


@layer_sweep.mistake(
    "accuracy-instead-of-auroc",
    "You compared accuracies at the midpoint. They move when a layer shifts all its scores, and an AUROC does not: the "
    "specification asks for the AUROC.",
)
def _(acts, labels, train, val):
    right = []
    for layer in acts:
        mean_0, mean_1 = _means(layer[train], labels[train])
        direction = mean_1 - mean_0
        called = layer[val] @ direction > direction @ (mean_0 + mean_1) / 2
        right.append((called.long() == labels[val]).double().mean().item())
    return torch.tensor(right), _first_best(right)


@layer_sweep.mistake(
    "layers-counted-from-one",
    "Your layer is one too high. It is used as an index into `acts`, whose first layer is 0.",
)
def _(acts, labels, train, val):
    areas = _areas(acts, labels, train, val)
    return torch.tensor(areas), _first_best(areas) + 1


@layer_sweep.mistake(
    "last-of-equals",
    "Where two layers are equal you chose the later one. The specification asks for the earliest.",
)
def _(acts, labels, train, val):
    areas = _areas(acts, labels, train, val)
    return torch.tensor(areas), max(range(len(areas)), key=lambda i: (areas[i], i))


@layer_sweep.mistake(
    "furthest-from-half",
    "You chose the layer whose AUROC is furthest from 0.5. That can be one where the direction points the wrong way on "
    "validation, and you would report a probe that is wrong.",
)
def _(acts, labels, train, val):
    areas = _areas(acts, labels, train, val)
    return torch.tensor(areas), _first_best([abs(area - 0.5) for area in areas])


@layer_sweep.variant
def _(acts, labels, train, val):
    direction = acts[:, train & (labels == 1)].mean(1) - acts[:, train & (labels == 0)].mean(1)  # [n_layers, d]
    scores = torch.einsum("lnd,ld->ln", acts, direction)
    gap = scores[:, val & (labels == 1)][:, :, None] - scores[:, val & (labels == 0)][:, None, :]
    areas = _half_ties(gap).mean(dim=(1, 2)).float()
    return areas, int(areas.argmax())


@layer_sweep.variant
def _(acts, labels, train, val):
    areas = torch.zeros(len(acts))
    best = 0
    for i, layer in enumerate(acts):
        areas[i] = roc_auc_score(labels[val].numpy(), (layer[val] @ _gap(layer[train], labels[train])).numpy())
        if areas[i] > areas[best]:
            best = i
    return areas, best


@layer_sweep.variant
def _(acts, labels, train, val):
    areas = np.array(_areas(acts.transpose(0, 1).contiguous().transpose(0, 1), labels, train, val))
    return torch.from_numpy(areas.astype(np.float32)), int(np.argmax(areas))


# --- pca_project -------------------------------------------------------------------------------------------


def _pca_cases(rng: torch.Generator) -> Iterator[Case]:
    def cloud(n: int, d_model: int, dtype: torch.dtype = torch.float64) -> Tensor:
        """Rows that vary by clearly different amounts along tilted axes, away from the origin."""
        left, right = torch.linalg.qr(normal(rng, n, n))[0], torch.linalg.qr(normal(rng, d_model, d_model))[0]
        r = min(n, d_model)
        sizes = 9 * 0.6 ** torch.arange(r).double()
        return (left[:, :r] * sizes @ right[:r] + torch.linspace(2, 6, d_model)).to(dtype)

    yield Case("8 rows, 4 dimensions, 2 components", cloud(8, 4), 2)
    yield Case("17 rows, 5 dimensions, 1 component, float32", cloud(17, 5, torch.float32), 1)
    yield Case("fewer rows than dimensions, 3 components", cloud(6, 9), 3)
    yield Case("all components", torch.randn(7, 4, generator=rng, dtype=torch.float64), 4).of("extreme")
    yield Case("as many components as rows", torch.randn(3, 6, generator=rng, dtype=torch.float64), 2).of("extreme")


def _equal_up_to_sign(actual: Tensor, expected: Tensor) -> bool:
    """The same columns, each with either sign: the specification leaves it free."""
    if actual.shape != expected.shape or actual.dtype != expected.dtype:
        return False
    rtol, atol = (1e-6, 1e-9) if expected.dtype == torch.float64 else (1e-4, 1e-4)
    return all(
        torch.allclose(mine, column, rtol=rtol, atol=atol) or torch.allclose(mine, -column, rtol=rtol, atol=atol)
        for mine, column in zip(actual.T, expected.T)
    )


pca_project = Exercise(
    "pca_project",
    ends={"k": lambda a: (1, min(a["acts"].shape))},
    without={**NOT_TRAINED, **NO_THRESHOLD, **ALL_COUNTS},
    difficulty=2,
    importance=4,
    minutes=10,
    learn="How to draw the most faithful flat picture of a cloud, without showing it the labels.",
    cases=_pca_cases,
    hints=(
        "Move the cloud to the origin. Then find the axes along which it is widest, and read off each row's coordinates "
        "on the first k of them.",
        "After `_, _, components = torch.linalg.svd(centred, full_matrices=False)`, print `components.shape`. Is one "
        "component a row or a column?",
        "A coordinate along a direction is a dot product with it. You need the centred rows times the first k components; "
        "in which order, and which of the two is transposed, so that [n, k] comes out?",
    ),
    verified="centred coordinates, largest variance first, in the activations' own units; either sign of each column.",
    next="no label went in. If the picture shows two colours apart, the model put them apart.",
    equal=_equal_up_to_sign,
)


def _components(rows: Tensor) -> Tensor:
    return torch.linalg.svd(rows, full_matrices=False)[2]


@pca_project.mistake(
    "not-centred",
    "You did not subtract the mean. The first component then points from the origin to the middle of the cloud, and most "
    "of your picture's width is distance from the origin.",
)
def _(acts, k):
    return acts @ _components(acts)[:k].T


@pca_project.mistake(
    "projected-before-centring",
    "Your components are right, but you projected the rows as they are, so every column is shifted. Project the centred rows.",
)
def _(acts, k):
    return acts @ _components(acts - acts.mean(0))[:k].T


@pca_project.mistake(
    "unit-length-columns",
    "Your columns all have the same length: these are the left singular vectors. The sizes, the singular values, are "
    "missing, so the picture no longer shows which axis matters.",
)
def _(acts, k):
    return torch.linalg.svd(acts - acts.mean(0), full_matrices=False)[0][:, :k]


@pca_project.mistake(
    "least-variance-first",
    "You took the directions in which the rows vary least. `torch.linalg.eigh` sorts its eigenvalues from small to large.",
)
def _(acts, k):
    centred = acts - acts.mean(0)
    return centred @ torch.linalg.eigh(centred.T @ centred)[1][:, :k]


@pca_project.mistake(
    "order-reversed",
    "You have the right k components, in rising order of variance. The largest must come first.",
)
def _(acts, k):
    centred = acts - acts.mean(0)
    return centred @ torch.linalg.eigh(centred.T @ centred)[1][:, -k:]


@pca_project.mistake(
    "components-in-columns",
    "You took columns of the matrix that the SVD returns last. Its *rows* are the components: print its shape for a case "
    "with fewer rows than dimensions.",
)
def _(acts, k):
    centred = acts - acts.mean(0)
    return centred @ _components(centred)[:, :k]


@pca_project.mistake(
    "centred-by-row",
    "You subtracted from each row its own mean. The cloud's centre is the mean over the rows, one number per dimension.",
)
def _(acts, k):
    centred = acts - acts.mean(1, keepdim=True)
    return centred @ _components(centred)[:k].T


@pca_project.mistake(
    "standardised",
    "You divided each dimension by its standard deviation. That is PCA of another cloud: quiet dimensions were blown up, "
    "and the coordinates are no longer in the units of the activations.",
)
def _(acts, k):
    scaled = (acts - acts.mean(0)) / acts.std(0)
    return scaled @ _components(scaled)[:k].T


@pca_project.variant
def _(acts, k):
    left, sizes, _ = torch.linalg.svd(acts - acts.mean(0), full_matrices=False)
    return left[:, :k] * sizes[:k]


@pca_project.variant
def _(acts, k):
    centred = acts - acts.mean(0)
    return -centred @ torch.linalg.eigh(torch.cov(acts.T))[1].flip(1)[:, :k]


@pca_project.variant
def _(acts, k):
    return torch.from_numpy(PCA(k, svd_solver="full").fit_transform(acts.numpy())).to(acts.dtype)


@pca_project.variant
def _(acts, k):
    centred = acts - acts.mean(0)
    values, vectors = torch.linalg.eigh(centred @ centred.T)  # the Gram matrix has the same non-zero eigenvalues
    return (vectors * values.clamp(min=0).sqrt()).flip(1)[:, :k]
