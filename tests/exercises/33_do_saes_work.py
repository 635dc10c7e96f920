"""The exercises of chapter 33: cases, named mistakes, other right answers and hints."""

import math
from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F

from utils.course.battery import ALL_COUNTS, NO_MATRIX, NO_THRESHOLD, NOT_TRAINED
from utils.course.cases import Case, integers, normal, uniform, wrong_ways
from utils.course.exercises import Exercise


# --- keep_near_start ---------------------------------------------------------------------------------------


def _near_cases(rng: torch.Generator) -> Iterator[Case]:
    start = F.normalize(normal(rng, 7, 5), dim=1)
    some = torch.tensor([0.1, 0.2, 0.4, 2.0, 3.0, 0.3, 5.0]).double()[:, None]
    yield Case("7 rows of 5 numbers, some moved a little and some far", (1 + uniform(rng, 7, 1)) * (start + some * normal(rng, 7, 5)), start, 0.8)
    start = F.normalize(normal(rng, 4, 3, dtype=torch.float32), dim=1)
    away = 3 * normal(rng, 4, 3, dtype=torch.float32) - 2 * start
    away[1] = 0.5 * normal(rng, 3, dtype=torch.float32) - 4 * start[1]
    yield Case("4 rows that point away, float32", away, start, 0.6)
    exact = torch.tensor([[1.0, 0.0], [0.0, 1.0]]).double()
    yield Case("a row at exactly the cosine, one beyond it", torch.tensor([[8.0, 6.0], [5.0, 0.0]]).double(), exact, 0.8).of("boundary")
    yield Case("one that never moved, one at a right angle, least cosine 0", torch.tensor([[2.0, 0.0], [4.0, 0.0]]).double(), exact, 0.0).of("extreme")
    yield Case("one row", normal(rng, 1, 6), F.normalize(normal(rng, 1, 6), dim=1), 0.95).of("extreme")
    yield Case("no row", torch.zeros(0, 3).double(), torch.zeros(0, 3).double(), 0.8).of("extreme")


keep_near_start = Exercise(
    "keep_near_start",
    new=True,
    scaled=("rows",),
    without={**NOT_TRAINED, **ALL_COUNTS},
    difficulty=3,
    importance=4,
    minutes=15,
    learn="How a decoder is kept from learning: the control in which every row may only lean a little away from a random one.",
    cases=_near_cases,
    hints=(
        "Take a row to length 1 and split it: a part along its start, whose length is their cosine, and a part at a right angle to it. Which of the "
        "two parts has to grow, and to what length?",
        "Print the shapes of `rows.norm(dim=1)` and of `rows`. What must the first be to divide the second? And if the part along the start has "
        "length `least`, how long is the other part of a vector of length 1, and how long is yours so far?",
        "With `along` and `aside` in hand (aside of length 1), the allowed direction is `least * start` plus what is left of the length, by Pythagoras, "
        "times `aside`. Give it the row's own length, and take it only where `along < least`.",
    ),
    verified="rows of many lengths, near and far, at exactly the limit, and on the far side of their start.",
    next="a random direction in 576 dimensions has a cosine of about .04 with another. Is .8 a short leash?",
)


def _near(rows, start, least, *, side=1.0, keep_length=True, limit=True, renormalise=True, other=None):
    length = rows.norm(dim=1, keepdim=True)
    unit = rows / length
    along = (unit * start).sum(1, keepdim=True)
    aside = F.normalize(unit - along * start, dim=1)
    rest = (1 - least**2) ** 0.5 if other is None else other(least)
    back = least * start + side * rest * aside
    if renormalise and other is not None:
        back = F.normalize(back, dim=1)
    back = back * length if keep_length else back
    return torch.where(along < least, back, rows) if limit else back


wrong_ways(keep_near_start, _near, {
    "length-lost": ({"keep_length": False}, "The rows that were turned back have length 1. Their own length stays: only the direction is on the leash."),
    "other-side": ({"side": -1.0}, "Your rows have the right cosine, on the wrong side of their start: each was carried over to the other side. The allowed direction nearest to the row is on the row's own side."),
    "all-rows-turned": ({"limit": False}, "You moved every row to exactly the least cosine. One that is nearer than that stays as it is."),
    "no-pythagoras": ({"other": lambda c: 1 - c, "renormalise": False}, "A part of length `least` and one of length `1 - least`, at a right angle, do not make a vector of length 1. Think of Pythagoras."),
    "mixed-then-scaled": ({"other": lambda c: 1 - c}, "You mixed start and side by weights that add up to 1, then scaled. The cosine is then not `least`: compute it for one row."),
})


@keep_near_start.mistake("compares-the-product", "You compared the product with the start, not the cosine: a long row is not a near row. Divide by its length first.")
def _(rows, start, least):
    turned = _near(rows, start, least, limit=False)
    return torch.where((rows * start).sum(1, keepdim=True) < least, turned, rows)


@keep_near_start.mistake("aside-not-unit", "Your two parts do not make a vector of length 1: what is left of a row at a right angle to its start is shorter than 1. Scale it to length 1 before it gets its share.")
def _(rows, start, least):
    length = rows.norm(dim=1, keepdim=True)
    along = (rows / length * start).sum(1, keepdim=True)
    aside = rows / length - along * start
    return torch.where(along < least, length * (least * start + (1 - least**2) ** 0.5 * aside), rows)


@keep_near_start.mistake("all-rows-normalised", "Rows that were near enough came back at length 1. They stay exactly as they are.")
def _(rows, start, least):
    return F.normalize(_near(rows, start, least), dim=1)


@keep_near_start.mistake("back-to-the-start", "The rows that had gone too far are back at their start. They should stay at the end of the leash: at the cosine `least`.")
def _(rows, start, least):
    length = rows.norm(dim=1, keepdim=True)
    return torch.where((rows / length * start).sum(1, keepdim=True) < least, length * start, rows)


@keep_near_start.mistake("either-sign", "You took the absolute cosine: a row that points away from its start was left there.")
def _(rows, start, least):
    cosine = (F.normalize(rows, dim=1) * start).sum(1, keepdim=True)
    return torch.where(cosine.abs() < least, _near(rows, start, least, limit=False), rows)


@keep_near_start.variant
def _(rows, start, least):
    """Row by row."""
    out = rows.clone()
    for i, (row, first) in enumerate(zip(rows, start)):
        size = row.norm()
        cosine = row @ first / size
        if cosine < least:
            aside = row / size - cosine * first
            out[i] = size * (least * first + math.sqrt(1 - least**2) * aside / aside.norm())
    return out


@keep_near_start.variant
def _(rows, start, least):
    """The component along the start taken off the row itself, einsum, and only the rows that need it."""
    out, along = rows.clone(), torch.einsum("ld,ld->l", rows, start)
    far = along / rows.norm(dim=1) < least
    aside = rows[far] - along[far, None] * start[far]
    height = rows[far].norm(dim=1, keepdim=True)
    out[far] = height * (least * start[far] + (1 - least * least) ** 0.5 * F.normalize(aside, dim=1))
    return out


@keep_near_start.variant
def _(rows, start, least):
    """With the angle."""
    angle = math.acos(least)
    unit = F.normalize(rows, dim=1)
    cosine = F.cosine_similarity(rows, start, dim=1)[:, None]
    side = F.normalize(unit - (unit * start).sum(1, keepdim=True) * start, dim=1)
    turned = rows.norm(dim=1, keepdim=True) * (math.cos(angle) * start + math.sin(angle) * side)
    near = cosine >= least - 1e-12 if rows.dtype == torch.float64 else cosine >= least
    return torch.where(near, rows, turned)


# --- draw_rows ---------------------------------------------------------------------------------------------


def _draw_cases(rng: torch.Generator) -> Iterator[Case]:
    def case(label: str, n_0: int, n_1: int, n_rows: int, share: float) -> Case:
        labels = torch.tensor([0] * n_0 + [1] * n_1)[torch.randperm(n_0 + n_1, generator=rng)]
        return Case(label, labels, torch.randperm(n_0 + n_1, generator=rng), n_rows, share)

    yield case("12 of 30 rows, a quarter of class 1", 17, 13, 12, 0.25)
    yield case("20 of 40 rows, a tenth of class 1", 25, 15, 20, 0.1)
    yield case("a share that gives no whole number", 9, 11, 7, 0.4)
    yield case("all rows of both classes", 6, 4, 10, 0.4).of("boundary")
    yield case("half of an odd number: 2.5 rows", 8, 9, 5, 0.5).of("boundary")
    yield case("no row of class 1", 5, 3, 4, 0.0).of("extreme")
    yield case("nothing but class 1", 4, 6, 5, 1.0).of("extreme")
    yield case("no row at all", 4, 6, 0, 0.5).of("extreme")
    yield case("class 1 is too small", 9, 2, 8, 0.5).of("errors")
    yield case("class 0 is too small", 3, 9, 8, 0.25).of("errors")


def _most_rows(labels: torch.Tensor, share: float) -> int:
    """The largest number of rows for which both classes suffice."""
    n_1 = int(labels.sum())
    return max(n for n in range(len(labels) + 1) if round(n * share) <= n_1 and n - round(n * share) <= len(labels) - n_1)


draw_rows = Exercise(
    "draw_rows",
    ends={"n_rows": lambda a: (0, _most_rows(a["labels"], a["positive_share"]))},
    without={**NOT_TRAINED, **ALL_COUNTS, **NO_MATRIX, "scale": "row numbers have no scale", "negative": "row numbers are never negative"},
    difficulty=2,
    importance=3,
    minutes=12,
    learn="How a probe's training set is made scarce or lopsided while everything else stays: the regimes in which SAEs were hoped to win.",
    cases=_draw_cases,
    hints=(
        "Two decisions that can be made apart: how many of each class (what does Python's `round(2.5)` give?), and which of them. The second is decided by `order`.",
        "`labels[order]` are the labels in shuffled sequence. What does `(labels[order] == 1).nonzero()[:, 0]` count: rows, or places in `order`?",
        "Mark the chosen places in a boolean tensor as long as `order`, one class after the other, and return `order[chosen]`.",
    ),
    verified="both classes, shares that give no whole number, the sequence of `order`, and a class that is too small.",
    next="a probe for something that is there once in ten rows: is its AUROC hurt more than that of one with ten times fewer rows of both?",
)


def _drawn(labels, order, n_rows, positive_share, *, counts=round, exchanged=False, swapped=False, by_class=False, ends=False):
    n_1 = counts(n_rows * positive_share)
    n_1 = n_rows - n_1 if exchanged else n_1
    shuffled = labels[order] if not swapped else labels
    picked = []
    for value, wanted in ((1, n_1), (0, n_rows - n_1)):
        places = (shuffled == value).nonzero()[:, 0]
        if len(places) < wanted:
            raise ValueError(f"{wanted} of class {value}; there are {len(places)}.")
        picked.append(places[len(places) - wanted:] if ends else places[:wanted])
    together = torch.cat(picked)
    return order[together if by_class else together.sort().values]


wrong_ways(draw_rows, _drawn, {
    "rounded-down": ({"counts": int}, "You cut the number of rows of class 1 off where it should be rounded to the nearest whole number."),
    "half-up": ({"counts": lambda x: int(x + 0.5)}, "You rounded a half up. Python's `round` takes the even neighbour: `round(2.5)` is 2."),
    "classes-exchanged": ({"exchanged": True}, "The share is that of class 1; your rows have that share of class 0."),
    "class-after-class": ({"by_class": True}, "The right rows, sorted by class. They should come back in the sequence in which they stand in `order`."),
    "the-last-ones": ({"ends": True}, "You took the rows of each class that come last in `order`. Asked for are the first."),
})


@draw_rows.mistake("order-ignored", "You took the rows that come first in the data. `order` decides which come first; data files are often sorted.")
def _(labels, order, n_rows, positive_share):
    rows = _drawn(labels, torch.arange(len(labels)), n_rows, positive_share)
    place = order.argsort()
    return rows[place[rows].argsort()]


@draw_rows.mistake("first-rows-as-they-come", "You took the first rows of `order`, whatever their class. The share of class 1 is then whatever it happens to be.")
def _(labels, order, n_rows, positive_share):
    _drawn(labels, order, n_rows, positive_share)
    return order[:n_rows]


@draw_rows.mistake("sorted-by-number", "The right rows, sorted by their number. They should come back in the sequence in which they stand in `order`.")
def _(labels, order, n_rows, positive_share):
    return _drawn(labels, order, n_rows, positive_share).sort().values


@draw_rows.mistake("no-error", "A class was too small, and you returned fewer rows without a word. The regime is then not the one that was asked for.")
def _(labels, order, n_rows, positive_share):
    n_1 = round(n_rows * positive_share)
    shuffled = labels[order]
    places = torch.cat([(shuffled == v).nonzero()[:, 0][:n] for v, n in ((1, n_1), (0, n_rows - n_1))])
    return order[places.sort().values]


@draw_rows.mistake("places-not-rows", "You returned places in `order`, not row numbers: look the rows up.")
def _(labels, order, n_rows, positive_share):
    rows = _drawn(labels, order, n_rows, positive_share)
    return order.argsort()[rows].sort().values


@draw_rows.variant
def _(labels, order, n_rows, positive_share):
    """One walk through the order."""
    left = {1: round(n_rows * positive_share)}
    left[0] = n_rows - left[1]
    rows = []
    for row in order.tolist():
        label = int(labels[row])
        if left[label]:
            left[label] -= 1
            rows.append(row)
    if any(left.values()):
        raise ValueError(f"too few rows: {left}")
    return torch.tensor(rows, dtype=torch.long)


@draw_rows.variant
def _(labels, order, n_rows, positive_share):
    """Running counts: a row is taken while its class is not full."""
    n_1 = round(n_rows * positive_share)
    positive = labels[order] == 1
    keep = torch.where(positive, positive.cumsum(0) <= n_1, (~positive).cumsum(0) <= n_rows - n_1)
    if keep.sum() < n_rows:
        raise ValueError("a class is too small")
    return order[keep]


@draw_rows.variant
def _(labels, order, n_rows, positive_share):
    """NumPy."""
    shuffled, n_1 = labels[order].numpy(), round(n_rows * positive_share)
    ones, zeros = np.flatnonzero(shuffled == 1), np.flatnonzero(shuffled == 0)
    if len(ones) < n_1 or len(zeros) < n_rows - n_1:
        raise ValueError("a class is too small")
    return order[torch.from_numpy(np.sort(np.concatenate([ones[:n_1], zeros[: n_rows - n_1]])))]


# --- pick_features -----------------------------------------------------------------------------------------


def _pick_cases(rng: torch.Generator) -> Iterator[Case]:
    def case(label: str, n: int, d: int, k: int, dtype: torch.dtype = torch.float64) -> Case:
        labels = torch.tensor([0, 1] + integers(rng, 0, 2, n - 2).tolist())[torch.randperm(n, generator=rng)]
        spread = torch.linspace(0.2, 9, d, dtype=torch.float64)[torch.randperm(d, generator=rng)]
        shift = torch.linspace(-2, 2, d, dtype=torch.float64)[torch.randperm(d, generator=rng)]
        return Case(label, (5 + spread * (normal(rng, n, d) + shift * labels[:, None])).to(dtype), labels, k)

    yield case("23 rows, 9 features of different spread, the best 4", 23, 9, 4)
    yield case("30 rows, 12 features, the best 5, float32", 30, 12, 5, torch.float32)
    sparse = case("a feature that never varies, one that fires on one row", 14, 6, 6)
    sparse.args[0][:, 2], sparse.args[0][:, 4] = 7.0, 0.0
    sparse.args[0][3, 4] = 1.0
    yield sparse.of("extreme")
    yield case("all of them", 11, 7, 7).of("extreme")
    equal = case("two features that never vary: the lower column first", 16, 5, 5)
    equal.args[0][:, 4], equal.args[0][:, 1] = 7.0, 3.0
    yield equal.of("boundary")
    labels = torch.tensor([0, 0, 1, 1])
    yield Case("no feature varies", torch.full((4, 3), 2.0).double(), labels, 2).of("extreme")


pick_features = Exercise(
    "pick_features",
    ends={"k": lambda a: (1, a["features"].shape[1])},
    without={**NOT_TRAINED, **ALL_COUNTS},
    difficulty=2,
    importance=5,
    minutes=12,
    learn="The first half of k-sparse probing: which few features a probe may look at, in a way that is fair to dictionaries of any scale.",
    cases=_pick_cases,
    hints=(
        "A feature is worth a look if its two class means are far apart. Far compared with what? Multiply a feature by 1,000: its worth should not change.",
        "Two means over the rows of one class each, one spread over all rows: all of shape [d]. Which features have a spread of 0, and what is 0 / 0?",
        "`torch.where` can give the features that never vary a score of 0. Then `argsort(descending=True, stable=True)`, and the first k.",
    ),
    verified="features of different spread, one that never varies, one that fires once, ties.",
    next="with ten rows and a thousand latents, how far apart would the best latent's means be if the labels were dealt at random?",
)


def _picked(features, labels, k, *, absolute=True, spread=lambda x, y: x.std(0, correction=0), descending=True, by=None):
    apart = features[labels == 1].mean(0) - features[labels == 0].mean(0)
    apart = apart.abs() if absolute else apart
    wide = spread(features, labels)
    varies = (features != features[:1]).any(0)
    score = torch.where(varies, apart / torch.where(varies & (wide > 0), wide, 1), 0)
    return score.argsort(descending=descending, stable=True)[:k]


def _within(x, y):
    return ((x[y == 1] - x[y == 1].mean(0)).square().sum(0) + (x[y == 0] - x[y == 0].mean(0)).square().sum(0)).div(len(x)).sqrt()


wrong_ways(pick_features, _picked, {
    "raw-difference": ({"spread": lambda x, y: torch.ones_like(x[0])}, "You compared raw differences of means. A feature measured in larger numbers then always wins: divide by the spread."),
    "one-direction-only": ({"absolute": False}, "You took features that are higher in class 1 only. One that is high in class 0 and silent in class 1 tells them apart as well."),
    "the-worst": ({"descending": False}, "You returned the features that differ *least*."),
    "variance": ({"spread": lambda x, y: x.var(0, correction=0)}, "You divided by the variance. The standard deviation has the units of the feature; the variance has their square."),
})


@pick_features.mistake("divides-by-zero", "A feature that never varies gave 0 / 0, and NaN sorts before every number. Its score is 0.")
def _(features, labels, k):
    apart = (features[labels == 1].mean(0) - features[labels == 0].mean(0)).abs()
    return (apart / (features - features[:1]).std(0, correction=0)).argsort(descending=True, stable=True)[:k]


@pick_features.mistake("column-order", "You returned the right columns, sorted by number. The one with the highest score comes first: the caller may take fewer.")
def _(features, labels, k):
    return _picked(features, labels, k).sort().values


@pick_features.mistake("most-active", "You picked the features with the largest means. A latent that fires on every sentence tells no two of them apart.")
def _(features, labels, k):
    return features.mean(0).argsort(descending=True, stable=True)[:k]


@pick_features.mistake("ties-from-the-end", "Among equal scores the higher column came first. The lower one does (a stable sort keeps their sequence).")
def _(features, labels, k):
    d = features.shape[1]
    return d - 1 - _picked(features.flip(1), labels, d)[:k]


@pick_features.variant
def _(features, labels, k):
    """Centred first; a constant column has no spread and no distance."""
    centred = features - features.mean(0)
    constant = (features == features[0]).all(0)
    spread = centred.square().mean(0).sqrt()
    apart = (centred[labels.bool()].mean(0) - centred[~labels.bool()].mean(0)).abs()
    score = torch.zeros_like(apart)
    score[~constant] = apart[~constant] / spread[~constant]
    return torch.sort(score, descending=True, stable=True).indices[:k]


@pick_features.variant
def _(features, labels, k):
    """NumPy, and a sort by minus the score."""
    x, y = features.double().numpy(), labels.numpy()
    moved = x.max(0) > x.min(0)
    score = np.zeros(x.shape[1])
    score[moved] = np.abs(x[y == 1].mean(0) - x[y == 0].mean(0))[moved] / x.std(0)[moved]
    return torch.from_numpy(np.argsort(-np.round(score, 12), kind="stable")[:k].copy())


@pick_features.variant
def _(features, labels, k):
    """Column by column."""
    scores = []
    for column in features.T:
        if column.min() == column.max():
            scores.append(0.0)
        else:
            apart = abs(float(column[labels == 1].mean() - column[labels == 0].mean()))
            scores.append(round(apart / float(column.std(unbiased=False)), 12 if features.dtype == torch.float64 else 6))
    return torch.tensor(sorted(range(len(scores)), key=lambda i: (-scores[i], i))[:k])


# --- quiver ------------------------------------------------------------------------------------------------


def _quiver_cases(rng: torch.Generator) -> Iterator[Case]:
    def case(label: str, tasks: int, added: list[bool], dtype: torch.dtype = torch.float64) -> Case:
        return Case(label, uniform(rng, tasks, len(added), low=0.4, dtype=dtype), uniform(rng, tasks, len(added), low=0.4, dtype=dtype), torch.tensor(added))

    yield case("6 tasks, 3 methods and 2 more", 6, [False, False, True, False, True])
    yield case("9 tasks, the added ones first, float32", 9, [True, True, False, False], torch.float32)
    tie = torch.tensor([[0.9, 0.7, 0.9], [0.5, 0.8, 0.8], [0.6, 0.6, 0.6]]).double()
    yield Case("equal validation scores", tie, uniform(rng, 3, 3), torch.tensor([True, False, False])).of("boundary")
    yield case("nothing is added", 4, [False, False, False]).of("extreme")
    yield case("one method, and one more", 5, [False, True]).of("extreme")
    yield case("no task", 0, [False, True, True]).of("extreme")
    yield Case("scores below 0", normal(rng, 5, 4), normal(rng, 5, 4), torch.tensor([False, True, False, True]))


quiver = Exercise(
    "quiver",
    without={**NOT_TRAINED, **ALL_COUNTS},
    difficulty=3,
    importance=5,
    minutes=15,
    learn="The fair way to ask whether a new tool helps: a practitioner who has other tools, and has to choose before seeing the test.",
    cases=_quiver_cases,
    hints=(
        "The practitioner never sees a test score before the choice. So which table is searched for a maximum, and which one is only looked up?",
        "What shape has `validation[:, ~added]`, and does a column number there mean the same column in `test`? And which of two equal scores does `argmax` return?",
        "Put the columns in an order in which the old methods come first (`added.long().argsort(stable=True)`). An argmax over the first few, another over all, "
        "and one `gather` from the test table for each.",
    ),
    verified="old and new methods in any sequence, ties in validation, test scores that had no say.",
    next="give it a new method that is pure noise. Does the arrow point down, up, or nowhere?",
)


def _best(score, allowed):
    return score.masked_fill(~allowed, -torch.inf).argmax(1)


def _arrows(validation, test, added, *, chooses=None, reads=None, second=None):
    order = added.long().argsort(stable=True)
    validation, test, n = validation[:, order], test[:, order], int((~added).sum())
    chooses = validation if chooses is None else chooses(validation, test)
    reads = test if reads is None else reads(validation, test)
    ends = [chooses[:, :n].argmax(1, keepdim=True), (chooses.argmax(1, keepdim=True) if second is None else second(chooses, n))]
    return torch.cat([reads.gather(1, end) for end in ends], 1)


@quiver.mistake("chosen-on-test", "You took the best *test* score. Nobody can choose by it: with it, one more method can never hurt, and noise looks like progress.")
def _(validation, test, added):
    return _arrows(validation, test, added, chooses=lambda v, t: t)


@quiver.mistake("better-of-the-two", "Your second number is never below your first. Whoever tries more methods takes the best of all by validation, also where that loses on the test.")
def _(validation, test, added):
    shares = _arrows(validation, test, added)
    return torch.stack([shares[:, 0], shares.max(dim=1).values], dim=1)


@quiver.mistake("validation-reported", "You returned validation scores. The best of several validation scores flatters: it was chosen for being high.")
def _(validation, test, added):
    return _arrows(validation, test, added, reads=lambda v, t: v)


@quiver.mistake("added-alone", "Your second number is the best of the added methods alone. After adding them the practitioner still has the old ones.")
def _(validation, test, added):
    if added.all() or not added.any():
        return _arrows(validation, test, added)
    return _arrows(validation, test, added, second=lambda v, n: n + v[:, n:].argmax(1, keepdim=True))


@quiver.mistake("groups-exchanged", "You began with the added methods. `added` is True for those that come later.")
def _(validation, test, added):
    return _arrows(validation, test, ~added if not added.all() and added.any() else added)


@quiver.mistake("columns-of-another-table", "You searched in a table with fewer columns and looked up in one with all: column 1 of the old methods is not column 1 of all.")
def _(validation, test, added):
    return torch.stack([test.gather(1, v.argmax(1, keepdim=True)).squeeze(1) for v in (validation[:, ~added], validation)], 1)


@quiver.mistake("ties-to-the-new", "Of equal validation scores you took the one that stands first in the table, even if it was added. The one that was there before wins.")
def _(validation, test, added):
    rows = torch.arange(len(test))
    return torch.stack([test[rows, _best(validation, ~added)], test[rows, validation.argmax(1)]], 1)


@quiver.mistake("difference", "You returned after minus before. Both ends of the arrow are asked for.")
def _(validation, test, added):
    ends = _arrows(validation, test, added)
    return ends[:, 1] - ends[:, 0]


@quiver.mistake("one-winner-for-all", "You chose one method for all tasks, by its mean. The choice is made anew for every task.")
def _(validation, test, added):
    order = added.long().argsort(stable=True)
    v, t, n = validation[:, order], test[:, order], int((~added).sum())
    if not len(v):
        return t[:, :2] if t.shape[1] > 1 else t.new_zeros(0, 2)
    return torch.stack([t[:, v[:, :n].mean(0).argmax()], t[:, v.mean(0).argmax()]], 1)


@quiver.variant
def _(validation, test, added):
    """Masked, and the new ones only where they are strictly better."""
    rows, old = torch.arange(len(test)), _best(validation, ~added)
    before = test[rows, old]
    if not added.any():
        return torch.stack([before, before], 1)
    new = _best(validation, added)
    better = validation[rows, new] > validation[rows, old]
    return torch.stack([before, torch.where(better, test[rows, new], before)], 1)


@quiver.variant
def _(validation, test, added):
    """Task by task."""
    out = []
    for v, t in zip(validation, test):
        best = old = max((i for i in range(len(v)) if not added[i]), key=lambda i: (float(v[i]), -i))
        for i in range(len(v)):
            if added[i] and v[i] > v[best]:
                best = i
        out.append(torch.stack([t[old], t[best]]))
    return torch.stack(out) if out else test.new_zeros(0, 2)


@quiver.variant
def _(validation, test, added):
    """Columns joined, old before new."""
    v = torch.cat([validation[:, ~added], validation[:, added]], 1)
    t = torch.cat([test[:, ~added], test[:, added]], 1)
    first = v[:, : int((~added).sum())].max(1).indices
    return torch.stack([t[torch.arange(len(t)), end] for end in (first, v.argmax(1))], dim=1)


# --- partner_shares ----------------------------------------------------------------------------------------


def _partner_cases(rng: torch.Generator) -> Iterator[Case]:
    def near(rows, n, noise):
        return rows[integers(rng, 0, len(rows), n)] * (0.5 + 2 * uniform(rng, n, 1, dtype=rows.dtype)) + noise * normal(rng, n, rows.shape[1], dtype=rows.dtype)

    others = normal(rng, 9, 6)
    yield Case("11 rows near some of 9 others", torch.cat([near(others, 8, 0.2), normal(rng, 3, 6)]), others, 0.7)
    others = 4 * normal(rng, 5, 7, dtype=torch.float32)
    yield Case("more rows than others, float32", torch.cat([near(others, 9, 0.3), -others[:2]]), others, 0.5)
    yield Case("one row of others is everybody's partner", torch.tensor([[1.0, 0.1], [1.0, -0.1], [2.0, 0.2]]).double(), torch.tensor([[3.0, 0.0], [0.0, 1.0], [-2.0, 0.1]]).double(), 0.9)
    yield Case("two of the others near one row", torch.tensor([[2.0, 0.1], [0.0, 1.0]]).double(), torch.tensor([[3.0, 0.2], [1.0, 0.0], [1.0, 1.0]]).double(), 0.9)
    yield Case("a cosine at exactly the limit", torch.tensor([[4.0, 3.0], [0.0, 1.0]]).double(), torch.tensor([[5.0, 0.0]]).double(), 0.8).of("boundary")
    yield Case("opposite rows", torch.tensor([[1.0, 2.0], [3.0, -1.0]]).double(), torch.tensor([[-1.0, -2.0], [-3.0, 1.0]]).double(), 0.9).of("extreme")
    yield Case("the same dictionary", others.double(), others.double(), 0.99).of("extreme")
    yield Case("one row, one other", normal(rng, 1, 4), normal(rng, 1, 4), -1.0).of("extreme")


partner_shares = Exercise(
    "partner_shares",
    without={**NOT_TRAINED, **ALL_COUNTS},
    difficulty=2,
    importance=5,
    minutes=12,
    learn="How to ask whether two trainings found the same latents, without a matching that answers yes by construction.",
    cases=_partner_cases,
    hints=(
        "Each row looks for its best partner by itself, and does not care whether another row has chosen the same one. Two counts come out: rows that found one, and partners that were chosen. A row chooses one only, however many are near.",
        "The matrix of cosines is [n, m]. Over which axis does a row search, and what do the two results of `.max(dim)` mean?",
        "Keep the indices where the cosine counts. Their number is the first count; the number of different ones among them the second. Both are divided by n.",
    ),
    verified="rows of all lengths, partners that are shared, opposite rows, and the limit itself.",
    next="match one to one (Hungarian) and count how many partners are different: what is that number, always?",
)


def _partners(rows, others, least, *, unit=(True, True), sign=lambda c: c, dim=1, counts=lambda c, t: c >= t, divide="rows"):
    a, b = (F.normalize(x, dim=1) if u else x for x, u in zip((rows, others), unit))
    cosine, partner = sign(a @ b.T).max(dim)
    good = counts(cosine, least)
    distinct = len(partner[good].unique())
    bottom = {"rows": len(rows), "others": len(others), "partnered": max(1, int(good.sum()))}[divide]
    return good.double().mean().item(), distinct / bottom


wrong_ways(partner_shares, _partners, {
    "products-not-cosines": ({"unit": (False, False)}, "You compared products, not cosines: scale the rows of both dictionaries to length 1."),
    "either-sign": ({"sign": torch.abs}, "You took absolute cosines. A latent that points the opposite way writes the opposite: it is no partner."),
    "others-search": ({"dim": 0}, "You let `others` search among `rows`. Asked for is the share of `rows` that find a partner; the two shares differ."),
    "strictly-above": ({"counts": lambda c, t: c > t}, "A cosine of exactly `least` counts as well."),
    "divided-by-others": ({"divide": "others"}, "You divided the number of different partners by the number of `others`. Divide by the number of `rows`, so that both shares can be compared."),
    "divided-by-partnered": ({"divide": "partnered"}, "You divided the number of different partners by the number of rows that have one. Divide by all rows."),
})


@partner_shares.mistake("one-to-one", "You matched one to one. Every partner is then different by construction, and a collision can no longer be seen.")
def _(rows, others, least):
    from scipy.optimize import linear_sum_assignment

    cosine = F.normalize(rows, dim=1) @ F.normalize(others, dim=1).T
    i, j = linear_sum_assignment(-cosine.numpy())
    good = int((cosine[i, j] >= least).sum())
    return good / len(rows), good / len(rows)


@partner_shares.mistake("everyone-within-reach", "You counted every row of `others` that is near enough to some row. A partner is the *best* one: a row chooses one, however many are near.")
def _(rows, others, least):
    cosine = F.normalize(rows, dim=1) @ F.normalize(others, dim=1).T
    return _partners(rows, others, least)[0], int((cosine >= least).any(0).sum()) / len(rows)


@partner_shares.mistake("mean-cosine", "Your first number is the mean cosine with the best partner. The share of rows whose cosine is at least `least` is asked for.")
def _(rows, others, least):
    cosine = (F.normalize(rows, dim=1) @ F.normalize(others, dim=1).T).max(1).values
    return cosine.mean().item(), _partners(rows, others, least)[1]


@partner_shares.mistake("all-partners-counted", "You counted the different partners of all rows, also of those whose cosine is below the limit.")
def _(rows, others, least):
    partner = (F.normalize(rows, dim=1) @ F.normalize(others, dim=1).T).argmax(1)
    return _partners(rows, others, least)[0], len(partner.unique()) / len(rows)


@partner_shares.variant
def _(rows, others, least):
    """cosine_similarity, broadcast, and a set."""
    cosine = F.cosine_similarity(rows[:, None], others[None], dim=-1)
    found = [(float(c.max()), int(c.argmax())) for c in cosine]
    good = [j for c, j in found if c >= least - (1e-12 if rows.dtype == torch.float64 else 0)]
    return len(good) / len(rows), len(set(good)) / len(rows)


@partner_shares.variant
def _(rows, others, least):
    """Products first, lengths after; counts of each partner."""
    cosine = torch.einsum("nd,md->nm", rows / rows.norm(dim=1, keepdim=True), others / others.norm(dim=1)[:, None])
    best, where = cosine.topk(1, dim=1)
    taken = where[best >= least]
    return taken.numel() / len(rows), int((torch.bincount(taken, minlength=len(others)) > 0).sum()) / len(rows)


@partner_shares.variant
def _(rows, others, least):
    """NumPy."""
    a, b = (x.numpy() / np.linalg.norm(x.numpy(), axis=1, keepdims=True) for x in (rows, others))
    cosine = a @ b.T
    good = cosine.max(1) >= least
    return float(good.mean()), len(np.unique(cosine.argmax(1)[good])) / len(rows)


# --- exchange_latents --------------------------------------------------------------------------------------


def _exchange_cases(rng: torch.Generator) -> Iterator[Case]:
    def case(label: str, lead: tuple[int, ...], d: int, d_sae: int, chosen: list[int], dtype: torch.dtype = torch.float64) -> Case:
        latents, source = ((2 * normal(rng, *lead, d_sae, dtype=dtype)).relu() for _ in range(2))
        return Case(label, 3 * normal(rng, *lead, d, dtype=dtype), latents, source, normal(rng, d_sae, d, dtype=dtype), torch.tensor(chosen, dtype=torch.long))

    yield case("4 activations, 3 of 7 latents", (4,), 5, 7, [6, 0, 3])
    yield case("2 texts of 3 tokens, float32", (2, 3), 4, 6, [1, 5], torch.float32)
    yield case("one activation without a batch", (), 3, 5, [2, 4, 1])
    yield case("no latent is exchanged", (3,), 4, 5, []).of("extreme")
    yield case("all of them", (2,), 3, 4, [3, 1, 0, 2]).of("extreme")
    yield case("no activation", (0,), 3, 4, [1]).of("extreme")


exchange_latents = Exercise(
    "exchange_latents",
    new=True,
    scaled=("x", "latents", "source"),
    without={**NOT_TRAINED, **NO_THRESHOLD, **ALL_COUNTS},
    difficulty=2,
    importance=4,
    minutes=12,
    learn="The edit of an interchange test: give one activation the latents of another, and nothing else.",
    cases=_exchange_cases,
    hints=(
        "What the SAE does not explain must stay. So do not rebuild the activation: add to it what changes when the chosen latents change.",
        "The change of the chosen latents has shape [*batch, n_chosen]. Which rows of `W_dec` does it meet, and what is the shape of the product?",
        "`(source - latents)[..., chosen]` times `W_dec[chosen]`, added to x.",
    ),
    verified="batches with two axes, one and none, no latent and all of them, an error term that stays.",
    next="exchange all latents. Is the result the source's activation? What is it that is still the old one's?",
)


def _exchanged(x, latents, source, W_dec, chosen, *, change=lambda s, a: s - a, base=None, rows=None):
    base = x if base is None else base(x, latents, W_dec)
    rows = W_dec[chosen] if rows is None else rows(W_dec, chosen)
    return base + change(source, latents)[..., chosen] @ rows


wrong_ways(exchange_latents, _exchanged, {
    "direction-reversed": ({"change": lambda s, a: a - s}, "The change has the wrong sign: the latents move away from the source's values."),
    "source-added": ({"change": lambda s, a: s}, "You added the source's latents on top of those that were there. The old values must go."),
    "old-only-removed": ({"change": lambda s, a: -a}, "You took the old values out and put nothing in: that is an ablation."),
    "error-term-lost": ({"base": lambda x, a, W: a @ W}, "You began from the reconstruction. What the SAE does not explain is then lost together with the edit, and you would measure both."),
    "rows-of-length-1": ({"rows": lambda W, c: F.normalize(W[c], dim=1)}, "You scaled the decoder rows to length 1. A latent's value is meant for the row as it is."),
})


@exchange_latents.mistake("all-exchanged", "You exchanged every latent. Only the chosen ones may change.")
def _(x, latents, source, W_dec, chosen):
    return x + (source - latents) @ W_dec


@exchange_latents.mistake("the-others-exchanged", "You exchanged the latents that were not chosen, and left the chosen ones.")
def _(x, latents, source, W_dec, chosen):
    others = torch.ones(W_dec.shape[0], dtype=torch.bool)
    others[chosen] = False
    return x + ((source - latents) * others) @ W_dec


@exchange_latents.mistake("source-reconstructed", "You returned the source's reconstruction from the chosen latents. It is x that is edited.")
def _(x, latents, source, W_dec, chosen):
    return source[..., chosen] @ W_dec[chosen]


@exchange_latents.variant
def _(x, latents, source, W_dec, chosen):
    """A mask over all latents."""
    keep = torch.zeros(len(W_dec), dtype=x.dtype)
    keep[chosen] = 1
    return x + ((source - latents) * keep) @ W_dec


@exchange_latents.variant
def _(x, latents, source, W_dec, chosen):
    """Two reconstructions and the error term."""
    new = latents.clone()
    new[..., chosen] = source[..., chosen]
    return new @ W_dec + (x - latents @ W_dec)


@exchange_latents.variant
def _(x, latents, source, W_dec, chosen):
    """Latent by latent."""
    out = x.clone()
    for i in chosen.tolist():
        out = out + (source[..., i] - latents[..., i]).unsqueeze(-1) * W_dec[i]
    return out


# --- parent_recall -----------------------------------------------------------------------------------------


def _recall_cases(rng: torch.Generator) -> Iterator[Case]:
    def case(label: str, n: int, p: tuple[float, float], quiet: float) -> Case:
        parent = uniform(rng, n) < p[0]
        child = parent & (uniform(rng, n) < p[1])
        parent[:3], child[:3] = torch.tensor([True, True, False]), torch.tensor([True, False, False])
        fires = (parent & (uniform(rng, n) < 0.9)) | (uniform(rng, n) < 0.1)
        return Case(label, fires & ~(child & (uniform(rng, n) < quiet)), parent, child)

    yield case("40 rows, the child took the parent over", 40, (0.6, 0.4), 0.8)
    yield case("50 rows, nothing is absorbed", 50, (0.4, 0.5), 0.0)
    yield Case("one row of each kind", torch.tensor([True, False, True]), torch.tensor([True, True, False]), torch.tensor([False, True, False])).of("extreme")
    yield Case("it never fires", torch.zeros(6, dtype=torch.bool), torch.tensor([True, True, True, False, True, True]), torch.tensor([True, False, True, False, False, True])).of("extreme")
    yes, no = torch.ones(4, dtype=torch.bool), torch.zeros(4, dtype=torch.bool)
    yield Case("a child without its parent", yes, torch.tensor([True, False, True, True]), torch.tensor([False, True, True, False])).of("errors")
    yield Case("the child is never there", yes, yes, no).of("errors")
    yield Case("the parent is never alone", yes, yes, yes).of("errors")
    yield Case("no row", yes[:0], yes[:0], yes[:0]).of("errors")


parent_recall = Exercise(
    "parent_recall",
    without={**NOT_TRAINED, **NO_THRESHOLD, **ALL_COUNTS, **NO_MATRIX, "scale": "true and false have no scale", "negative": "true and false have no sign"},
    difficulty=2,
    importance=4,
    minutes=10,
    learn="Absorption as two numbers: a latent that is right about its feature, except where a more special feature is there as well.",
    cases=_recall_cases,
    hints=(
        "Two kinds of rows have the parent. On each kind, count how often the latent fires, and divide by how many there are of *that* kind.",
        "`fires[mask]` keeps the rows of one kind. Which of `&`, `|` and `~` makes the mask of the parent without its child? What is the mean of no rows?",
        "The two masks are `parent & ~child` and `child`. Check first that no row has a child alone, and that both masks hold a row.",
    ),
    verified="both kinds of rows, a latent that never fires, rows without the parent that do not count, and what is no hierarchy.",
    next="a latent fires on .99 of the first kind and .01 of the second. What would a label say that somebody wrote from its top examples?",
)


def _checked(parent, child):
    if (child & ~parent).any() or not child.any() or not (parent & ~child).any():
        raise ValueError("no hierarchy, or a kind of rows is missing")


def _recall(fires, parent, child, *, alone=lambda p, c: p & ~c, together=lambda p, c: c, bottom=None, turned=False):
    _checked(parent, child)
    shares = []
    for mask in (alone(parent, child), together(parent, child)):
        over = mask.sum() if bottom is None else bottom(fires, parent)
        shares.append(float((fires & mask).sum().double() / over) if over else 0.0)
    return tuple(shares[::-1] if turned else shares)


wrong_ways(parent_recall, _recall, {
    "all-parents": ({"alone": lambda p, c: p}, "Your first number counts every row with the parent, those with the child among them. It should be the rows where the parent is *alone*."),
    "exchanged": ({"turned": True}, "The two numbers are exchanged: first without the child, then with."),
    "over-all-parents": ({"bottom": lambda f, p: p.sum()}, "You divided both counts by all rows with the parent. Each kind is divided by its own number of rows."),
    "precision": ({"bottom": lambda f, p: f.sum()}, "You divided by the rows on which the latent fires: that is precision. Recall asks of the rows with the feature."),
    "over-all-rows": ({"bottom": lambda f, p: len(p)}, "You divided by all rows. Rows without the parent say nothing about recall."),
    "child-absent": ({"alone": lambda p, c: ~c}, "Your first number counts every row without the child, those without the parent among them. A latent that is silent there is right."),
})


@parent_recall.mistake("no-check", "One of the inputs is no hierarchy, or has no row of one kind, and you returned numbers all the same. The docstring says what to raise.")
def _(fires, parent, child):
    return tuple(torch.nan_to_num(fires[m].double().mean(), 0.0).item() for m in (parent & ~child, child))


@parent_recall.mistake("misses", "You returned how often the latent stays silent. Recall is how often it fires.")
def _(fires, parent, child):
    return _recall(~fires, parent, child)


@parent_recall.variant
def _(fires, parent, child):
    """A loop that counts."""
    if any(bool(c) and not bool(p) for p, c in zip(parent, child)):
        raise ValueError("a child alone")
    hits, total = [0, 0], [0, 0]
    for f, p, c in zip(fires.tolist(), parent.tolist(), child.tolist()):
        if p:
            total[c] += 1
            hits[c] += f
    if 0 in total:
        raise ValueError("a kind of rows is missing")
    return hits[0] / total[0], hits[1] / total[1]


@parent_recall.variant
def _(fires, parent, child):
    """bincount over the kind of row."""
    _checked(parent, child)
    kind = child.long()[parent]
    hits = torch.bincount(kind, weights=fires[parent].double(), minlength=2) / torch.bincount(kind, minlength=2)
    return hits[0].item(), hits[1].item()


@parent_recall.variant
def _(fires, parent, child):
    """NumPy."""
    _checked(parent, child)
    f, p, c = fires.numpy(), parent.numpy(), child.numpy()
    return float(f[p & ~c].mean()), float(f[p & c].mean())


# --- survives ----------------------------------------------------------------------------------------------


def _survives_cases(rng: torch.Generator) -> Iterator[Case]:
    at = float(uniform(rng, 1, low=0.011, high=0.019))
    yield Case("clearly ahead", at, 0.09, 0.02)
    yield Case("clearly behind", -0.2, -at - 0.02, 0.02).of("negative")
    yield Case("wide, around 0", -at - 0.04, 0.06, 0.02)
    yield Case("narrow, around 0", -at, 0.5 * at, 0.02)
    yield Case("above 0, but less than matters", 0.001, at, 0.02)
    yield Case("below 0, but less than matters", -at, -0.001, 0.02)
    yield Case("holds 0, its upper end beyond the margin", -0.001, 0.03, 0.02)
    yield Case("holds 0, its lower end beyond the margin", -0.03, 0.001, 0.02)
    yield Case("both ends at the margin", -0.02, 0.02, 0.02).of("boundary")
    yield Case("the lower end at exactly 0", 0.0, 0.5, 0.02).of("boundary")
    yield Case("the upper end at exactly 0", -0.5, 0.0, 0.02).of("boundary")
    yield Case("no margin, no width", 0.0, 0.0, 0.0).of("extreme")
    yield Case("no margin", 0.0, 0.1, 0.0).of("extreme")
    yield Case("a negative margin", 0.1, 0.2, -0.02).of("errors")
    yield Case("the ends in the wrong order", 0.3, 0.2, 0.02).of("errors")


survives = Exercise(
    "survives",
    without={**NOT_TRAINED, **ALL_COUNTS, **NO_MATRIX, "scale": "what matters is a size in the unit of the score"},
    difficulty=2,
    importance=5,
    minutes=10,
    learn="Four verdicts in place of two: a rival that is as good, and data that cannot tell, are different findings.",
    cases=_survives_cases,
    hints=(
        "Draw a line with -margin, 0 and margin on it. An interval can lie wholly inside, wholly on one side of 0, or across it. Which question comes first?",
        "An interval from .001 to .01 lies above 0 and inside a margin of .02. The docstring says which verdict it gets: find the word \"Otherwise\".",
        "Check the arguments, then `-margin <= low and high <= margin`, then the two sides of 0, and what is left is open.",
    ),
    verified="intervals on both sides, across, inside, and with an end at exactly 0 or at the margin.",
    next="halve the number of tasks: which verdicts turn into which? None of them should turn from ahead to behind.",
)


def _verdict(low, high, margin, *, level=lambda lo, hi, m: -m <= lo and hi <= m, above=lambda lo, m: lo > 0, below=lambda hi, m: hi < 0,
             words=("level", "ahead", "behind", "open"), check=True, level_first=True):
    if check and (margin < 0 or low > high):
        raise ValueError("no comparison")
    tests = [(level(low, high, margin), words[0]), (above(low, margin), words[1]), (below(high, margin), words[2])]
    return next((word for there, word in (tests if level_first else tests[1:] + tests[:1]) if there), words[3])


wrong_ways(survives, _verdict, {
    "holds-0-is-level": ({"level": lambda lo, hi, m: lo <= 0 <= hi}, "You called it level because the interval holds 0. A wide interval holds 0 too: not having seen a difference is not having seen that there is none."),
    "significance-first": ({"level_first": False}, "You asked for the side of 0 first. An interval that lies inside the margin is level, also if it leaves 0 out: the difference is real, and too small to matter."),
    "beyond-the-margin": ({"above": lambda lo, m: lo > m, "below": lambda hi, m: hi < -m}, "You asked the interval to lie beyond the margin. It is ahead if it lies above 0 and is not level."),
    "margin-left-out": ({"level": lambda lo, hi, m: -m < lo and hi < m}, "An interval whose ends are exactly at the margin is still inside it."),
    "zero-counts-as-above": ({"above": lambda lo, m: lo >= 0, "below": lambda hi, m: hi <= 0}, "An end at exactly 0 is neither above nor below it: the interval holds 0."),
    "sides-exchanged": ({"words": ("level", "behind", "ahead", "open")}, "You exchanged the sides. The difference is the method minus its rival: above 0 the method is ahead."),
    "no-check": ({"check": False}, "A negative margin, or ends in the wrong order, got a verdict. The docstring says what to raise."),
    "one-side-of-the-margin": ({"level": lambda lo, hi, m: hi <= m}, "You looked at the upper end only. An interval far below the margin is not level either."),
})


@survives.mistake("open-first", "You asked first whether the interval holds 0. One that holds 0 and lies inside the margin is level: the data can tell that there is no difference that matters.")
def _(low, high, margin):
    if margin < 0 or low > high:
        raise ValueError("no comparison")
    return "open" if low <= 0 <= high else _verdict(low, high, margin)


@survives.mistake("middle-decides", "You looked at the middle of the interval. That is the number without its interval.")
def _(low, high, margin):
    if margin < 0 or low > high:
        raise ValueError("no comparison")
    middle = (low + high) / 2
    return "level" if abs(middle) <= margin else "ahead" if middle > 0 else "behind"


@survives.variant
def _(low, high, margin):
    """By the largest difference that the interval allows."""
    if not (margin >= 0 and low <= high):
        raise ValueError
    if max(high, -low) <= margin:
        return "level"
    return {(True, True): "ahead", (False, False): "behind"}.get((low > 0, high >= 0), "open")


@survives.variant
def _(low, high, margin):
    """From the other end: open first."""
    if low > high or margin < 0:
        raise ValueError("not an interval, or not a margin")
    inside = abs(low) <= margin and abs(high) <= margin
    if not inside and low <= 0 <= high:
        return "open"
    return "level" if inside else ("behind", "ahead")[low > 0]


@survives.variant
def _(low, high, margin):
    """match."""
    match (margin >= 0 and low <= high, max(abs(low), abs(high)) <= margin, low > 0, high < 0):
        case (False, *_):
            raise ValueError("no comparison")
        case (_, True, *_):
            return "level"
        case (_, _, True, _):
            return "ahead"
        case (_, _, _, True):
            return "behind"
    return "open"
