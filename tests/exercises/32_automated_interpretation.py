"""The exercises of chapter 32: cases, named mistakes, other right answers and hints."""

import json
import re
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from utils.course.battery import ALL_COUNTS, NO_MATRIX, NO_SCALE, NO_THRESHOLD, NOT_TRAINED
from utils.course.cases import integers, normal, uniform, wrong_ways
from utils.course.exercises import Case, Exercise

_NO_FLOATS = {"scale": "counts and truths have no scale", "negative": "counts, numbers and truths are not negative"}
_TEXT = {**NOT_TRAINED, **ALL_COUNTS, **NO_MATRIX, **_NO_FLOATS}


# --- where_rule_fires ---------------------------------------------------------------------------------------


def _rule_cases(rng: torch.Generator) -> Iterator[Case]:
    def case(label: str, n: int, pos: int, vocab: int) -> Case:
        tokens = integers(rng, 1, vocab, n, pos)
        tokens[:, 0] = 0
        before, here = uniform(rng, vocab) < 0.5, uniform(rng, vocab) < 0.5
        before[0] = True                                     # what begins a text may follow the start token
        return Case(label, tokens, before, here)

    yield case("4 contexts of 9 tokens", 4, 9, 7)
    tokens, before, here = case("", 3, 6, 5).args
    here[0] = True
    yield Case("the start token is among those that may stand here", tokens, before, here)
    table = torch.tensor([[1, 0, 0, 1, 0], [1, 0, 1, 0, 0]]).bool()
    yield Case("behind the start token", torch.tensor([[0, 2, 3, 2], [0, 3, 2, 1]]), *table)
    yield Case("any token before", tokens, torch.ones(5).bool(), here)
    yield Case("nothing may stand here", tokens, before, here & False).of("extreme")
    yield Case("contexts of the start token alone", tokens[:, :1], before, here).of("extreme")
    yield Case("no context", tokens[:0], before, here).of("extreme")


where_rule_fires = Exercise(
    "where_rule_fires",
    without={**NOT_TRAINED, **ALL_COUNTS, **NO_THRESHOLD, **_NO_FLOATS},
    difficulty=2,
    importance=5,
    minutes=10,
    learn="How a label becomes a program: two tables over the vocabulary, and a shift by one token.",
    cases=_rule_cases,
    hints=(
        "A table over the vocabulary, indexed with tokens, gives a truth for every place. You need two of them, one of which is about the place before.",
        "`before[tokens]` has the shape of `tokens`. For which place is its entry in column 3 needed?",
        "Leave the last column out of one table and the first out of the other; both then have pos - 1 columns. What goes into column 0 of the result?",
    ),
    verified="several contexts, the start token in either table, contexts of one token.",
    next="run thousands of them on a hundred thousand places.",
)


def _rule(tokens, before, here, *, shift="left", first=False, both=True):
    b, h = before[tokens], here[tokens]
    earlier = torch.zeros_like(b)
    if shift == "left":
        earlier[:, 1:] = b[:, :-1]
    elif shift == "right":
        earlier[:, :-1] = b[:, 1:]
    elif shift == "roll":
        earlier = b.roll(1, dims=1)
    elif shift == "flat":
        earlier = b.flatten().roll(1).view(b.shape)
    else:
        earlier = b
    found = earlier & h if both else earlier | h
    if first:
        found[:, 0] = h[:, 0]
    return found


wrong_ways(where_rule_fires, _rule, {
    "the-token-after": ({"shift": "right"}, "You look at the token after. A model that reads from left to right has not seen it."),
    "the-same-token": ({"shift": "none"}, "Both of your tables are asked about the same token. The first is about the one just before."),
    "round-the-corner": ({"shift": "roll"}, "Your shift goes round: the last token of a context stands before its first one."),
    "either-is-enough": ({"both": False}, "Your rule fires where one of the two parts holds. Both have to."),
    "fires-at-the-start": ({"first": True}, "Your rule fires at the start token, which has no token before it."),
})


@where_rule_fires.mistake("places-returned", "You returned where the rule fires as a list of places. A truth for every place is asked for.")
def _(tokens, before, here):
    return _rule(tokens, before, here).nonzero()


@where_rule_fires.mistake("one-place-early", "Your truths stand one place too early, at the token before. They belong to the token that the label is about.")
def _(tokens, before, here):
    return _rule(tokens, before, here).roll(-1, dims=1)


@where_rule_fires.mistake("the-start-before-nothing", "Nothing fires right behind your start token. It may stand before another token like any other.")
def _(tokens, before, here):
    found = _rule(tokens, before, here)
    found[:, :2] = False
    return found


@where_rule_fires.mistake("one-table-alone", "Only the table of the token itself is asked. What stands before it counts as well.")
def _(tokens, before, here):
    return here[tokens]


@where_rule_fires.variant
def _(tokens, before, here):
    """A loop over places."""
    found = torch.zeros(tokens.shape, dtype=torch.bool)
    for i, row in enumerate(tokens.tolist()):
        for j in range(1, len(row)):
            found[i, j] = bool(before[row[j - 1]]) and bool(here[row[j]])
    return found


@where_rule_fires.variant
def _(tokens, before, here):
    """Padding at the front."""
    hits = torch.logical_and(before[tokens][:, :-1], here[tokens][:, 1:])
    return torch.cat([torch.zeros(len(tokens), 1, dtype=torch.bool), hits], dim=1)


@where_rule_fires.variant
def _(tokens, before, here):
    """NumPy."""
    t, found = tokens.numpy(), np.zeros(tuple(tokens.shape), bool)
    found[:, 1:] = np.take(before.numpy(), t[:, :-1]) * np.take(here.numpy(), t[:, 1:])
    return torch.from_numpy(found)


# --- best_word_set ------------------------------------------------------------------------------------------


def _set_cases(rng: torch.Generator) -> Iterator[Case]:
    def counts(n: int) -> tuple[Tensor, Tensor]:
        fires = integers(rng, 0, 30, n) * (uniform(rng, n) < 0.7)
        silent = integers(rng, 0, 900, n) * (uniform(rng, n) < 0.8)
        fires[n // 2], silent[n // 2] = 25, 1500             # often where it fires, and as often elsewhere
        fires[-1], silent[-1] = 27, 3
        return fires, silent

    yield Case("9 words", *counts(9), 0.01, 20)
    yield Case("30 words, at most 4", *counts(30), 0.0, 4)
    yield Case("a price that keeps the rare ones out", *counts(20), 0.05, 12)
    fires, silent = torch.tensor([2, 4, 4, 2, 8]), torch.tensor([0, 0, 0, 0, 50])
    yield Case("worth equal to the price: 2 of 20 firings", fires, silent, 0.1, 9).of("boundary")
    yield Case("equal worth, and room for two", torch.tensor([3, 5, 5, 5, 2]), torch.tensor([1, 1, 1, 1, 96]), 0.0, 2)
    yield Case("no word is worth anything", torch.tensor([5, 5]), torch.tensor([50, 50]), 0.0, 3).of("extreme")
    yield Case("one word that says it all", torch.tensor([0, 7, 0]), torch.tensor([90, 0, 11]), 0.5, 1).of("extreme")


best_word_set = Exercise(
    "best_word_set",
    without={**NOT_TRAINED, **ALL_COUNTS, **NO_MATRIX, **_NO_FLOATS},
    ends={"most": lambda a: (1, len(a["fires"]) + 3)},
    difficulty=3,
    importance=5,
    minutes=15,
    learn="How a label is found by counting, and what keeps it short.",
    cases=_set_cases,
    hints=(
        "A place shows exactly one word. So what a set of words finds is the sum of what its words find, and each word can be judged alone.",
        "Turn both lists of counts into shares first. Which sum does each divide by? A word may be worth less than nothing: print a few.",
        "Sort by worth, the largest first (a stable sort keeps smaller numbers in front), cut off at `most`, and keep what is worth more than its price.",
    ),
    verified="frequent words that fire and are silent alike, prices, limits, equal worth.",
    next="do it for all latents of the dictionary at once.",
)


def _set(fires, silent, price, most, *, per_word=False, ignore=False, stable=True, least=False, limit=True, strict=True, totals=True, sort=True):
    f, s = fires.double(), silent.double()
    worth = f / (f + s).clamp(min=1) if per_word else f / fires.sum() - (0 if ignore else s / silent.sum())
    if not totals:
        worth = (f - s) / (fires.sum() + silent.sum())
    order = worth.argsort(descending=not least, stable=True) if stable else len(worth) - 1 - worth.flip(0).argsort(descending=True, stable=True)
    order = order[worth[order] > price] if strict else order[worth[order] >= price]
    order = order[:most] if limit else order
    return (order if sort else order.sort().values).tolist()


wrong_ways(best_word_set, _set, {
    "silent-places-ignored": ({"ignore": True}, "You count firings alone. A word that stands everywhere finds many of them, and calls everywhere else as well."),
    "precision-of-a-word": ({"per_word": True}, "You asked of each word how often the latent fires on it. A word that stood once, with a firing, wins: the share of *all firings* is asked for, and of all silent places."),
    "counts-subtracted": ({"totals": False}, "You subtracted counts. There are far more silent places than firings: make two shares first, each of its own total."),
    "no-limit": ({"limit": False}, "Your set can be longer than `most`: stop at the words that are worth most."),
    "as-good-as-the-price": ({"strict": False}, "A word that is worth exactly its price joins your set. It has to be worth more."),
    "worst-first": ({"least": True}, "Your words come in the wrong order: those of most worth first."),
    "by-number": ({"sort": False}, "Your words are sorted by their numbers. Those of most worth come first."),
    "larger-number-first": ({"stable": False}, "Of words of equal worth yours takes the larger number. A stable sort keeps the smaller one in front."),
})


@best_word_set.mistake("for-nothing", "Words join your set that are worth something, and less than their price.")
def _(fires, silent, price, most):
    return _set(fires, silent, 0.0, most)


@best_word_set.variant
def _(fires, silent, price, most):
    """sorted() with a key."""
    worth = (fires.double() / fires.sum() - silent.double() / silent.sum()).tolist()
    return [i for i in sorted(range(len(worth)), key=lambda i: -worth[i]) if worth[i] > price][:most]


@best_word_set.variant
def _(fires, silent, price, most):
    """NumPy."""
    f, s = fires.numpy().astype(float), silent.numpy().astype(float)
    worth = f / f.sum() - s / s.sum()
    order = np.argsort(-worth, kind="stable")
    return [int(i) for i in order if worth[i] > price][:most]


@best_word_set.variant
def _(fires, silent, price, most):
    """One after the other."""
    worth, chosen = fires.double() / fires.sum() - silent.double() / silent.sum(), []
    while len(chosen) < most and worth.max() > price:
        best = int((worth == worth.max()).nonzero()[0, 0])
        chosen.append(best)
        worth[best] = -2
    return chosen


# --- near_silent_places ----------------------------------------------------------------------------------------


def _near_cases(rng: torch.Generator) -> Iterator[Case]:
    fires = uniform(rng, 6, 40) < 0.3
    fires[4, :20] = True
    yield Case("6 latents, 40 places, two neighbours", fires, 2, torch.tensor([4, 1]))
    yield Case("places that are neither -1's nor the last latent's", fires, 1, torch.tensor([3, -1, 0, -1]))
    yield Case("the latent is among its neighbours", fires, 3, torch.tensor([3, 2]))
    yield Case("no neighbour", fires, 0, torch.tensor([-1, -1])).of("extreme")
    yield Case("an empty list of neighbours", fires, 0, torch.tensor([], dtype=torch.long)).of("extreme")
    yield Case("a latent that never fires", fires & (torch.arange(6) != 5)[:, None], 5, torch.tensor([0, 1, 2])).of("extreme")


near_silent_places = Exercise(
    "near_silent_places",
    without={**NOT_TRAINED, **ALL_COUNTS, **NO_THRESHOLD, "scale": _NO_FLOATS["scale"], "negative": "the only negative number is the -1 of no neighbour"},
    ends={"latent": lambda a: (0, len(a["fires"]) - 1)},
    difficulty=2,
    importance=5,
    minutes=8,
    learn="Where the silent examples come from decides what a score means.",
    cases=_near_cases,
    hints=(
        "Two questions about each place: does any neighbour fire there, and is the latent silent there?",
        "`fires[neighbours]` is [m, n_places]. Over which axis is the \"any\"? And which row does the index -1 take?",
        "Throw the -1 out of `neighbours` before you index; `any(dim=0)`; then `& ~fires[latent]`.",
    ),
    verified="several neighbours, -1 for none, the latent as its own neighbour, a latent that never fires.",
    next="score every label twice, on easy silence and on this.",
)


def _near(fires, latent, neighbours, *, none=True, own=True, how="any"):
    rows = fires[neighbours[neighbours >= 0]] if none else fires[neighbours]
    near = rows.any(0) if how == "any" else rows.all(0) if how == "all" else ~rows.any(0)
    return near & ~fires[latent] if own else near


wrong_ways(near_silent_places, _near, {
    "minus-one-is-the-last-latent": ({"none": False}, "-1 stands for no neighbour. As an index it takes the last latent."),
    "its-own-firings": ({"own": False}, "Some of your places are firings of the latent itself. Silent places are asked for."),
    "all-neighbours": ({"how": "all"}, "You ask for places where all neighbours fire. One is enough."),
    "far-places": ({"how": "none"}, "Your places are those where no neighbour fires: the easy ones."),
})


@near_silent_places.mistake("latent-0-left-out", "Latent 0 is a neighbour like any other. Only -1 stands for none.")
def _(fires, latent, neighbours):
    return _near(fires, latent, neighbours[neighbours != 0])


@near_silent_places.mistake("stops-at-the-first-none", "Your neighbours end at the first -1. Others may stand behind it.")
def _(fires, latent, neighbours):
    return _near(fires, latent, neighbours[(neighbours < 0).cumsum(0) == 0])


@near_silent_places.mistake("one-of-the-two", "Your places include firings of the latent at which no neighbour fires. The latent has to be silent.")
def _(fires, latent, neighbours):
    return _near(fires, latent, neighbours, own=False) ^ fires[latent]


@near_silent_places.variant
def _(fires, latent, neighbours):
    """A loop over neighbours."""
    near = torch.zeros(fires.shape[1], dtype=torch.bool)
    for i in neighbours.tolist():
        if i >= 0:
            near = near | fires[i]
    return near.logical_and(fires[latent].logical_not())


@near_silent_places.variant
def _(fires, latent, neighbours):
    """A sum."""
    kept = neighbours[neighbours != -1]
    return (fires[kept].sum(0) > 0) & (fires[latent] == False)  # noqa: E712


@near_silent_places.variant
def _(fires, latent, neighbours):
    """A mask over latents."""
    chosen = torch.zeros(len(fires), dtype=torch.bool)
    chosen[neighbours[neighbours >= 0]] = True
    return (fires & chosen[:, None]).any(0) & ~fires[latent]


# --- balanced_scores ------------------------------------------------------------------------------------------


def _score_cases(rng: torch.Generator) -> Iterator[Case]:
    def drawn(n_latents: int, n: int, often: float) -> tuple[Tensor, Tensor, Tensor]:
        fires = uniform(rng, n_latents, n) < often
        said = torch.where(uniform(rng, n_latents, n) < 0.8, fires, ~fires)
        asked = uniform(rng, n_latents, n) < 0.7
        for column, kind in ((0, True), (1, False)):
            fires[:, column], asked[:, column] = kind, True
        said[:, 2], fires[:, 2], asked[:, 2] = True, False, False
        return said, fires, asked

    yield Case("3 latents, 30 places", *drawn(3, 30, 0.5))
    yield Case("firings are rare: 5 latents, 60 places", *drawn(5, 60, 0.12))
    said, fires, asked = drawn(4, 20, 0.4)
    asked[1] &= fires[1]
    asked[2] &= ~fires[2]
    asked[3] = False
    yield Case("latents that are not asked about both kinds", said, fires, asked)
    yield Case("labels that are always right, and always wrong", torch.stack([fires[0], ~fires[0]]), fires[:1].expand(2, -1), torch.ones(2, 20).bool()).of("extreme")
    yield Case("no latent", said[:0], fires[:0], asked[:0]).of("extreme")


balanced_scores = Exercise(
    "balanced_scores",
    without={**NOT_TRAINED, **NO_THRESHOLD, **_NO_FLOATS, "nan": "truths are never nan"},
    difficulty=2,
    importance=5,
    minutes=12,
    learn="The score of every label in this chapter, for a whole dictionary at once.",
    cases=_score_cases,
    hints=(
        "Two shares for each latent, over different places: the asked firings, and the asked silent places.",
        "Print `(asked & fires).sum(dim=1)`: one number a latent. What is 0 / 0 in torch? And what is wanted there?",
        "Make two masks, `asked & fires` and `asked & ~fires`. Of the first, count those that are said; of the second, those that are not; divide each by its mask's own count, row by row.",
    ),
    verified="rare firings, places that were not asked about, latents without places of a kind.",
    next="score all labels against easy silence.",
)


def _scores(said, fires, asked, *, mask=True, plain=False, fill=None, pooled=False, only=None):
    firing, silent = (asked & fires, asked & ~fires) if mask else (fires, ~fires)
    if pooled:
        firing_n, silent_n = firing.sum().expand(len(fires)), silent.sum().expand(len(fires))
    else:
        firing_n, silent_n = firing.sum(1), silent.sum(1)
    found, spared = (said & firing).sum(1) / firing_n, (~said & silent).sum(1) / silent_n
    if plain:
        return ((said == fires) & asked).sum(1) / asked.sum(1)
    if only:
        return found
    score = (found + spared) / 2
    return score if fill is None else score.nan_to_num(fill)


wrong_ways(balanced_scores, _scores, {
    "plain-accuracy": ({"plain": True}, "That is the share of right answers. Where firings are rare, a label that never says anything gets nearly 1: average two shares, one of each kind."),
    "everything-is-asked": ({"mask": False}, "Places that were not asked about count in your score."),
    "firings-alone": ({"only": True}, "Your score looks at the firings alone. A label that says everything would get 1."),
    "one-pool-for-all-latents": ({"pooled": True}, "You divided by the number of places of all latents together. Each latent has its own."),
    "no-places-is-zero": ({"fill": 0.0}, "A latent without places of both kinds has no score: nan, not 0. A mean over latents would take the 0 for a bad label."),
})


@balanced_scores.mistake("not-halved", "Your score is the sum of the two shares. Their mean is asked for.")
def _(said, fires, asked):
    return 2 * _scores(said, fires, asked)


@balanced_scores.mistake("false-alarms", "Your second share is that of the silent places that were said. Those that were not said are right.")
def _(said, fires, asked):
    firing, silent = asked & fires, asked & ~fires
    return ((said & firing).sum(1) / firing.sum(1) + (said & silent).sum(1) / silent.sum(1)) / 2


@balanced_scores.mistake("shares-of-what-was-said", "You divide by what was said and what was not. Divide by what is so: the firings, and the silent places.")
def _(said, fires, asked):
    return _scores(fires, said, asked)


@balanced_scores.variant
def _(said, fires, asked):
    """One latent after the other."""
    rows = []
    for s, f, a in zip(said, fires, asked):
        rows.append((s[a & f].float().mean() + (~s[a & ~f]).float().mean()) / 2)
    return torch.stack(rows) if rows else torch.zeros(0)


@balanced_scores.variant
def _(said, fires, asked):
    """nanmean of masked values."""
    right = (said == fires).float()
    parts = [right.masked_fill(~(asked & kind), torch.nan).nanmean(1) for kind in (fires, ~fires)]
    return torch.stack(parts).mean(0)


@balanced_scores.variant
def _(said, fires, asked):
    """NumPy."""
    s, f, a = (x.numpy() for x in (said, fires, asked))
    with np.errstate(invalid="ignore"):
        score = ((s & f & a).sum(1) / (f & a).sum(1) + (~s & ~f & a).sum(1) / (~f & a).sum(1)) / 2
    return torch.from_numpy(score).float()


# --- strangers_labels ---------------------------------------------------------------------------------------


def _stranger_cases(rng: torch.Generator) -> Iterator[Case]:
    for n in (7, 12):
        yield Case(f"{n} latents", torch.randperm(n, generator=rng))
    yield Case("the order of their numbers", torch.arange(5))
    yield Case("two latents", torch.tensor([1, 0])).of("extreme")


strangers_labels = Exercise(
    "strangers_labels",
    without={**NOT_TRAINED, **ALL_COUNTS, **NO_THRESHOLD, **NO_MATRIX, **_NO_FLOATS},
    difficulty=2,
    importance=5,
    minutes=10,
    learn="The floor of every score: the same labels, the same places, and nothing that connects them.",
    cases=_stranger_cases,
    hints=(
        "The order is a list of latents, standing in a circle. Who stands before whom? That is one roll.",
        "`order.roll(1)` says who stands before the latents *in the order of the circle*. The result should be in the order of their numbers.",
        "Write into a new tensor at the places `order`: given[order] = ...",
    ),
    verified="random orders, the order of the numbers, two latents.",
    next="score everybody with a stranger's label.",
)


@strangers_labels.mistake("the-order-itself", "You handed out the labels in the drawn order. Somebody may draw their own: with thousands of latents one does, on average.")
def _(order):
    return order.clone()


@strangers_labels.mistake("in-the-order-of-the-circle", "Your list says who stands before whom in the order of the circle. It should be in the order of the latents' numbers.")
def _(order):
    return order.roll(1)


@strangers_labels.mistake("the-one-behind", "Everybody gets the label of the one behind them. It should be the one before.")
def _(order):
    given = torch.empty_like(order)
    given[order] = order.roll(-1)
    return given


@strangers_labels.mistake("the-next-number", "You gave everybody the label of the next number. Latents with near numbers may be alike in some dictionaries: use the order that was drawn.")
def _(order):
    return torch.arange(len(order)).roll(-1)


@strangers_labels.mistake("looked-up-instead-of-written", "You looked the drawn order up at the latents. Write instead: at the place of a latent stands the one before it.")
def _(order):
    return order[order.roll(1)]


@strangers_labels.mistake("behind-in-the-circle", "Your list says who stands behind whom, in the order of the circle. Asked for is who stands before, in the order of the latents' numbers.")
def _(order):
    return order.roll(-1)


@strangers_labels.variant
def _(order):
    """A loop."""
    circle = order.tolist()
    given = [0] * len(circle)
    for i, latent in enumerate(circle):
        given[latent] = circle[i - 1]
    return torch.tensor(given)


@strangers_labels.variant
def _(order):
    """By the inverse permutation."""
    return order[(order.argsort() - 1) % len(order)]


@strangers_labels.variant
def _(order):
    """scatter."""
    return torch.zeros_like(order).scatter(0, order, torch.cat([order[-1:], order[:-1]]))


# --- fuzzing_pair ----------------------------------------------------------------------------------------------


def _fuzzing_cases(rng: torch.Generator) -> Iterator[Case]:
    words = [" the", "\n", " of", ",", " year", "s", " 19", "45", " he", " left"]

    def case(label: str, fires: list[int], u: float, v: float) -> Case:
        order = torch.randperm(len(words), generator=rng).tolist()[: len(fires)]
        return Case(label, [words[i] for i in order], [bool(f) for f in fires], (u, v))

    yield case("8 tokens, three firings", [0, 1, 0, 0, 1, 1, 0, 0], 0.5, 0.7)
    yield case("the last one of each kind", [1, 0, 0, 1, 1, 0, 0], 0.99, 0.99)
    yield Case("a token that stands twice", [" a", " b", " a", " b"], [False, True, True, False], (0.6, 0.2))
    yield case("a draw that falls on a whole number", [1, 1, 0, 0, 1, 0, 1, 0], 0.25, 0.75).of("boundary")
    yield case("one of each kind", [0, 1], 0.0, 0.0).of("extreme")


fuzzing_pair = Exercise(
    "fuzzing_pair",
    without=_TEXT,
    difficulty=2,
    importance=4,
    minutes=12,
    learn="How to ask where a latent fires, in a text in which it does, without giving the answer away by the form.",
    cases=_fuzzing_cases,
    hints=(
        "Collect the places of each kind first; the draw then picks one out of a list.",
        "Which places are allowed for the wrong mark? How long is their list, and is it the list that your second draw counts on?",
        "A comprehension over `enumerate(tokens)` puts the brackets around one of them; join with nothing between.",
    ),
    verified="several firings, equal tokens, draws at the edges, one token of each kind.",
    next="give the pairs to the sentence encoder.",
)


def _pair(tokens, fires, draws, *, all_right=False, anywhere=False, join="", strip=False, value=False, many=False, rounded=False):
    texts = []
    for kind, u in zip((True, False), draws):
        places = [i for i, f in enumerate(fires) if f == kind or (anywhere and not kind)]
        pick = places[min(len(places) - 1, round(u * len(places)) if rounded else int(u * len(places)))]
        marked = set(places) if all_right and kind else {pick, places[0]} if many and not kind else {pick}
        if value:
            marked = {i for i, t in enumerate(tokens) if t == tokens[pick]}
        mark = [f"[[{t.strip() if strip else t}]]" if i in marked else t for i, t in enumerate(tokens)]
        texts.append(join.join(mark))
    return tuple(texts)


wrong_ways(fuzzing_pair, _pair, {
    "every-firing-marked": ({"all_right": True}, "Your right text marks every firing, your wrong one a single token. A judge can tell them by the number of marks, without a label."),
    "two-wrong-marks": ({"many": True}, "Your wrong text can have two marks. With more wrong marks than right ones the judge only has to count."),
    "wrong-mark-may-be-right": ({"anywhere": True}, "Your wrong mark is drawn among all tokens, and can fall on one at which the latent fires."),
    "blanks-between-tokens": ({"join": " "}, "You put blanks between the tokens. They bring their own."),
    "blank-cut-off": ({"strip": True}, "You took the blank off the marked token. It belongs to the token, and the text reads differently without it."),
    "equal-tokens-marked": ({"value": True}, "A word that stands twice is marked twice. Mark the place, not the word."),
    "rounded": ({"rounded": True}, "You rounded the draw. Cut it off: rounding gives the first token of each kind half a chance."),
})


@fuzzing_pair.mistake("wrong-one-first", "Your two texts come in the wrong order: the one with the right mark first.")
def _(tokens, fires, draws):
    return _pair(tokens, fires, draws)[::-1]


@fuzzing_pair.mistake("single-brackets", "Your mark has single brackets. Text and code have those of their own: a mark has double ones.")
def _(tokens, fires, draws):
    return tuple(text.replace("[[", "[").replace("]]", "]") for text in _pair(tokens, fires, draws))


@fuzzing_pair.mistake("first-draw-twice", "Your first draw picks in both texts. The second one is for the wrong mark.")
def _(tokens, fires, draws):
    return _pair(tokens, fires, (draws[0], draws[0]))


@fuzzing_pair.variant
def _(tokens, fires, draws):
    """NumPy places, a copied list."""
    out = []
    for places, u in zip((np.flatnonzero(fires), np.flatnonzero(~np.array(fires))), draws):
        row = list(tokens)
        i = int(places[int(np.floor(u * len(places)))])
        row[i] = "[[" + row[i] + "]]"
        out.append("".join(row))
    return tuple(out)


@fuzzing_pair.variant
def _(tokens, fires, draws):
    """Cut and join."""
    def marked(i):
        return "".join(tokens[:i]) + f"[[{tokens[i]}]]" + "".join(tokens[i + 1 :])

    right, wrong = [i for i in range(len(fires)) if fires[i]], [i for i in range(len(fires)) if not fires[i]]
    return marked(right[int(draws[0] * len(right))]), marked(wrong[int(draws[1] * len(wrong))])


@fuzzing_pair.variant
def _(tokens, fires, draws):
    """Torch."""
    f = torch.tensor(fires)
    picks = [kind.nonzero()[int(u * int(kind.sum())), 0] for kind, u in zip((f, ~f), draws)]
    return tuple("".join("[[%s]]" % t if i == pick else t for i, t in enumerate(tokens)) for pick in picks)


# --- detection_prompt ------------------------------------------------------------------------------------------


def _prompt_cases(rng: torch.Generator) -> Iterator[Case]:
    pool = ["He was born in [[1900]]", " and  then\n\n she left", "a [[ comma]], here ", "\tcode: x[0] = 1", "[[The]] end", "two [[marks]] and [[more]]"]
    chosen = [pool[i] for i in torch.randperm(len(pool), generator=rng).tolist()]
    yield Case("three excerpts", "a year", chosen[:3])
    yield Case("six excerpts, a label over two lines", "the  word\n'year' ", pool)
    yield Case("twelve excerpts", "a sign", pool + chosen)
    yield Case("one excerpt", "x", chosen[:1]).of("extreme")
    yield Case("an excerpt of blanks", "x", ["  \n", "a"]).of("extreme")


detection_prompt = Exercise(
    "detection_prompt",
    without={**_TEXT, **NO_THRESHOLD},
    difficulty=1,
    importance=4,
    minutes=10,
    learn="What a judge may see, and what must not reach it.",
    cases=_prompt_cases,
    hints=(
        "Clean every excerpt first, then number, then join: three steps, each a line.",
        "What does `text.split()` without an argument do with line ends, and with blanks at both ends?",
        "Take the brackets out *before* you split, or blanks that stood inside them remain doubled. All lines in one list, joined with line ends.",
    ),
    verified="marks, line ends, code with single brackets, one excerpt and twelve.",
    next="send it to a model, and read what comes back.",
)


def _prompt(label, excerpts, *, marks=False, first=1, squeeze=True, single=False, blank=True, label_squeezed=True, end="", marked_only=False):
    plain = excerpts if marks else [re.sub(r"\[\[|\]\]", "", text) for text in excerpts]
    if single:
        plain = [text.replace("[", "").replace("]", "") for text in excerpts]
    if marked_only:
        plain = [re.sub(r"\[\[.*?\]\]", "", text) for text in excerpts]
    plain = [" ".join(text.split()) if squeeze else text for text in plain]
    lines = [f"{i}. {text}" for i, text in enumerate(plain, first)]
    head = f"A unit of a language model has this label: {' '.join(label.split()) if label_squeezed else label}"
    ask = "In which of these texts does it fire? Answer with a JSON list of numbers."
    gap = [""] if blank else []
    return "\n".join([head, *gap, *lines, *gap, ask]) + end


wrong_ways(detection_prompt, _prompt, {
    "marks-left-in": ({"marks": True}, "The marks are still in your excerpts. They tell the judge where to look, in the texts that fire and only there."),
    "counted-from-zero": ({"first": 0}, "Your numbers begin at 0. The reply is read as numbers from 1."),
    "lines-left-in": ({"squeeze": False}, "Line ends and doubled blanks are still in your excerpts: one excerpt, one line."),
    "single-brackets-gone": ({"single": True}, "You took out single brackets too. They are part of a text: only the double ones are marks."),
    "marked-token-gone": ({"marked_only": True}, "You took out the marked token together with its brackets. The token stays."),
    "no-empty-lines": ({"blank": False}, "There should be an empty line before and after the excerpts."),
    "label-as-it-came": ({"label_squeezed": False}, "A label can have line ends too, when a model wrote it. They become single blanks."),
    "line-end-behind": ({"end": "\n"}, "There should be no line end behind the prompt."),
})


@detection_prompt.mistake("marks-taken-out-last", "You took the marks out after the blanks. Where a blank stood inside a mark there are now two.")
def _(label, excerpts):
    return re.sub(r"\[\[|\]\]", "", _prompt(label, excerpts, marks=True))


@detection_prompt.variant
def _(label, excerpts):
    """replace, and one string after the other."""
    text = "A unit of a language model has this label: " + " ".join(label.split()) + "\n\n"
    for i, excerpt in enumerate(excerpts):
        text += str(i + 1) + ". " + " ".join(excerpt.replace("[[", "").replace("]]", "").split()) + "\n"
    return text + "\nIn which of these texts does it fire? Answer with a JSON list of numbers."


@detection_prompt.variant
def _(label, excerpts):
    """Regular expressions."""
    clean = lambda s: re.sub(r"\s+", " ", re.sub(r"\[{2}|\]{2}", "", s)).strip()  # noqa: E731
    numbered = "\n".join("%d. %s" % (i, clean(s)) for i, s in enumerate(excerpts, 1))
    return (f"A unit of a language model has this label: {clean(label)}\n\n{numbered}\n\n"
            "In which of these texts does it fire? Answer with a JSON list of numbers.")


@detection_prompt.variant
def _(label, excerpts):
    """A template."""
    body = [str(n) + ". " + " ".join("".join(re.split(r"\[\[|\]\]", e)).split()) for n, e in enumerate(excerpts, 1)]
    template = "A unit of a language model has this label: {}\n\n{}\n\nIn which of these texts does it fire? Answer with a JSON list of numbers."
    return template.format(" ".join(label.split()), "\n".join(body))


# --- parse_verdicts ------------------------------------------------------------------------------------------


def _reply_cases(rng: torch.Generator) -> Iterator[Case]:
    a, b = (torch.randperm(8, generator=rng)[:2] + 1).tolist()
    yield Case("a list", f"[{a}, {b}]", 9)
    yield Case("a list in a code fence", f"```json\n[{a}]\n```\nI hope that helps!", 8)
    yield Case("other numbers around it", f"Of the 10 texts, 7 are about it: [{a}, {b}] (not 3).", 10)
    yield Case("a list that is not valid, then one that is", f"As in [text {a}], it fires in [{b}].", 9)
    yield Case("words", "I would say that the first one and the third one are about it.", 4)
    yield Case("an empty list", "None of them: []", 3)
    yield Case("strings, fractions, true", f'["{a}"] [1.0] [true]', 9)
    yield Case("a number too many", "[1, 2, 3, 4, 5]", 4)
    yield Case("the list breaks off", f"[{a}, {b}", 9)
    yield Case("two valid lists", f"[{a}] at first sight, or perhaps [{b}].", 9)
    yield Case("a comma too many", f"[{a}, {b},]", 9)
    yield Case("a number twice, and the numbers at the ends", "[6, 1, 1]", 6).of("boundary")
    yield Case("0 is no number of an excerpt", "[0, 1]", 6).of("boundary")
    yield Case("nothing", "", 5).of("extreme")


parse_verdicts = Exercise(
    "parse_verdicts",
    without=_TEXT,
    ends={"n": lambda a: (1, 40)},
    difficulty=3,
    importance=4,
    minutes=15,
    learn="How to read an answer from somebody who does not always do as told, without making one up.",
    cases=_reply_cases,
    hints=(
        "Find everything that could be a list, try to read each as JSON, and take the first that holds what it should.",
        "What does `json.loads` raise when it cannot read a text, and what type does it give for 1.0 and for true? `isinstance(True, int)` is True.",
        "A pattern for \"[\" up to the next \"]\", `re.findall`, a `try` in the loop, and `None` behind it.",
    ),
    verified="code fences, numbers in sentences, lists that are no answer, replies that break off.",
    next="count the replies that could not be read, as errors of the judge.",
)


def _verdicts(reply, n, *, any_number=False, empty=True, nothing=None, first=1, lenient=False, whole=False, clip=False, only_first=False):
    if any_number:
        found = [int(x) for x in re.findall(r"\d+", reply)]
        return [i in found for i in range(1, n + 1)] if found else None
    texts = [reply] if whole else re.findall(r"\[[^\]]*\]", reply)
    for text in texts[:1] if only_first else texts:
        try:
            found = json.loads(text)
        except ValueError:
            continue
        if not empty and not found:
            continue
        if not isinstance(found, list):
            continue
        if lenient:
            try:
                found = [int(x) for x in found]
            except (TypeError, ValueError):
                continue
        if clip:
            found = [x for x in found if type(x) is int and 1 <= x <= n]
        if all(type(x) is int and first <= x <= n for x in found):
            return [i in found for i in range(1, n + 1)]
    return nothing if nothing is None else [nothing] * n


wrong_ways(parse_verdicts, _verdicts, {
    "any-number": ({"any_number": True}, "You collect numbers from anywhere in the reply. \"Of the 10 texts\" is no verdict on text 10: only a list counts."),
    "the-reply-is-the-list": ({"whole": True}, "You read the reply as JSON as it is. Models put sentences and code fences around what they were asked for."),
    "the-first-brackets": ({"only_first": True}, "You look at the first brackets only. When they hold no valid list, the next ones may."),
    "an-empty-list-is-no-answer": ({"empty": False}, "An empty list is an answer: none of them."),
    "no-answer-is-no": ({"nothing": False}, "A reply without a list becomes \"none of them\" in your answer. That invents a verdict: return None, so that it can be counted."),
    "numbers-that-are-none": ({"lenient": True}, "You take \"3\", 1.0 or true for whole numbers. A valid list holds whole numbers and nothing else."),
    "too-large-numbers-dropped": ({"clip": True}, "You drop what is not a number of an excerpt and keep the rest of the list. Such a list is not valid as a whole."),
    "zero-counts": ({"first": 0}, "0 is in your range. The excerpts are numbered from 1."),
})


@parse_verdicts.mistake("the-last-list", "Where two lists are valid you take the last one. The first counts.")
def _(reply, n):
    return _verdicts("".join(re.findall(r"\[[^\]]*\]", reply)[::-1]), n)


@parse_verdicts.mistake("true-is-one", "You take true for 1: in Python a bool is an int. A valid list holds whole numbers and nothing else.")
def _(reply, n):
    return _verdicts(re.sub("true", "1", reply), n)


@parse_verdicts.variant
def _(reply, n):
    """By the position of the brackets."""
    start = reply.find("[")
    while start >= 0:
        end = reply.find("]", start)
        if end < 0:
            return None
        try:
            found = json.loads(reply[start : end + 1])
            if all(isinstance(i, int) and not isinstance(i, bool) and 0 < i < n + 1 for i in found):
                verdicts = [False] * n
                for i in found:
                    verdicts[i - 1] = True
                return verdicts
        except json.JSONDecodeError:
            pass
        # Brackets inside brackets: the list began with the first one.
        start = reply.find("[", end)
    return None


@parse_verdicts.variant
def _(reply, n):
    """A pattern for whole numbers, no JSON."""
    for inside in re.findall(r"\[([^\]]*)\]", reply):
        parts = [part.strip(" \t\r\n") for part in inside.split(",")]
        if parts == [""]:
            return [False] * n
        if all(re.fullmatch(r"-?(0|[1-9][0-9]*)", part) for part in parts) and all(1 <= int(part) <= n for part in parts):
            return [str(i) in parts for i in range(1, n + 1)]
    return None


@parse_verdicts.variant
def _(reply, n):
    """A set."""
    def read(text):
        try:
            return json.loads(text)
        except ValueError:
            return [None]

    allowed = set(range(1, n + 1))
    lists = (read(m.group()) for m in re.finditer(r"\[[^\]]*\]", reply))
    found = next((x for x in lists if all(type(i) is int for i in x) and set(x) <= allowed), None)
    return None if found is None else [i in set(found) for i in sorted(allowed)]


# --- output_score ------------------------------------------------------------------------------------------


def _output_cases(rng: torch.Generator) -> Iterator[Case]:
    for n, own, dtype in ((9, 4, torch.float64), (14, 0, torch.float32)):
        raised = normal(rng, n, dtype=dtype)
        raised[own] = raised.median()
        yield Case(f"{n} latents, {dtype}", raised, own)
    yield Case("ties", torch.tensor([1.0, 2.0, 2.0, 0.5, 3.0, 2.0]), 2).of("boundary")
    yield Case("all lower their words", -uniform(rng, 7) - 0.1, 3).of("negative")
    yield Case("two latents", torch.tensor([0.2, 0.1]), 0).of("extreme")
    yield Case("all equal", torch.zeros(5), 4).of("extreme")


output_score = Exercise(
    "output_score",
    scaled=("raised",),
    without={**NOT_TRAINED, **ALL_COUNTS, **NO_MATRIX},
    ends={"own": lambda a: (0, len(a["raised"]) - 1)},
    difficulty=2,
    importance=4,
    minutes=10,
    learn="How to score a label by what its latent does, with a chance level that needs no threshold.",
    cases=_output_cases,
    hints=(
        "A share of the *others*: which entries are those, and how many?",
        "`raised < raised[own]` is a truth for every latent. What is it for the latent itself, and does it belong in the mean? What of equal ones?",
        "Take the own entry out, compare, and give ties a half: less plus half of the tied, averaged.",
    ),
    verified="ties, negative numbers, two latents, all equal.",
    next="score input labels and output labels by it.",
)


def _output(raised, own, *, itself=False, ties=0.5, most=False, absolute=False):
    others = raised if itself else torch.cat([raised[:own], raised[own + 1 :]])
    mine = raised[own]
    if absolute:
        others, mine = others.abs(), mine.abs()
    less = (others > mine) if most else (others < mine)
    return (less.double() + ties * (others == mine).double()).mean().item()


wrong_ways(output_score, _output, {
    "itself-among-the-others": ({"itself": True}, "The latent is compared with itself as well, and counts as a tie. Leave it out."),
    "ties-count-for-nothing": ({"ties": 0.0}, "A tie counts as nothing in your score. When all are equal it is then 0, and chance is a half."),
    "ties-count-in-full": ({"ties": 1.0}, "A tie counts in full in your score. When all are equal it is then 1, and chance is a half."),
    "the-other-way-round": ({"most": True}, "Your score is the share of latents that raise the words more. It should be the share that raises them less."),
    "sign-thrown-away": ({"absolute": True}, "You compare sizes without their signs. A latent that lowers its label's words does not promote them."),
})


@output_score.mistake("half-a-point-for-itself", "The latent gets half a point for the tie with itself. Leave it out of the sum as well as of the number.")
def _(raised, own):
    return _output(raised, own, itself=True) * len(raised) / (len(raised) - 1)


@output_score.variant
def _(raised, own):
    """A loop."""
    total = 0.0
    for i, value in enumerate(raised.tolist()):
        if i != own:
            total += 1.0 if value < float(raised[own]) else 0.5 if value == float(raised[own]) else 0.0
    return total / (len(raised) - 1)


@output_score.variant
def _(raised, own):
    """Counts in whole numbers."""
    less, tied = int((raised < raised[own]).sum()), int((raised == raised[own]).sum()) - 1
    return (2 * less + tied) / (2 * (len(raised) - 1))


@output_score.variant
def _(raised, own):
    """The sign of the difference."""
    difference = np.delete(float(raised[own]) - raised.double().numpy(), own)
    return float((np.sign(difference).mean() + 1) / 2)
