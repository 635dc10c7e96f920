"""The exercises of chapter 24: cases, named mistakes, other right answers and hints."""

import re
from collections.abc import Iterator
from functools import cmp_to_key

import torch
import torch.nn.functional as F

from utils.course.battery import ALL_COUNTS, NO_MATRIX, NO_SCALE, NO_THRESHOLD, NOT_TRAINED
from utils.course.cases import Case, integers, normal, sae_params, uniform, wrong_ways
from utils.course.exercises import Exercise


# --- natural_order -----------------------------------------------------------------------------------------


def _name_cases(rng: torch.Generator) -> Iterator[Case]:
    numbers = torch.randperm(130, generator=rng)[:9].tolist()
    yield Case("nine shards and shard 100", [f"shard_{i}.bin" for i in [*numbers, 100, 9, 10] if i >= 0])
    layers = [f"layer{int(a)}/part{int(b)}" for a, b in integers(rng, 0, 25, 8, 2)]
    yield Case("two numbers in a name", [*layers, "layer2/part10", "layer10/part2", "layer2/part9"])
    yield Case("digits and text at the same place", ["b1", "10", "a", "9x", "9", "x2y", "a1"])
    yield Case("the same number twice, with zeros", ["s01", "s1", "s001", "s2", "s02"]).of("boundary")
    yield Case("no names", []).of("extreme")
    yield Case("one name, no digit", ["readme"]).of("extreme")
    yield Case("a sign and a point are text", ["v1.10", "v1.9", "v-3", "v-20", "v1"])


natural_order = Exercise(
    "natural_order",
    new=True,
    without={**NOT_TRAINED, **ALL_COUNTS, **NO_MATRIX, "scale": "names have no scale", "negative": "names have no sign"},
    difficulty=2,
    importance=3,
    minutes=10,
    learn="Why a run that is read back as words goes through its shards in another order than it wrote them.",
    cases=_name_cases,
    hints=(
        "Python compares lists piece by piece. Turn each name into a list whose pieces compare as you want, and give that to `sorted` as its key.",
        "What does `re.split(r'([0-9]+)', 'shard_10.bin')` return? Which of its pieces must become an int, and what happens when an int meets a str?",
        "Make each piece a tuple whose first entry says digits or text. The last tie is between names whose pieces are equal, such as 's1' and 's01': what else can the key hold?",
    ),
    verified="several numbers in a name, text against digits, leading zeros, an empty list that stays as it is.",
    next="which of your own scripts read a folder with `sorted(path.glob(...))`?",
)


def _pieces(name, number=int):
    return [(0, number(p), "") if p[0] in "0123456789" else (1, 0, p) for p in re.split(r"([0-9]+)", name) if p]


@natural_order.mistake("sorted-as-words", "You sort as a dictionary does: 'shard_10' stands before 'shard_9', because '1' comes before '9'. Compare the numbers.")
def _(names):
    return sorted(names)


@natural_order.mistake("by-length-first", "You sort by length and then as words. That works for one number at the end of equal names, and for no others.")
def _(names):
    return sorted(names, key=lambda name: (len(name), name))


@natural_order.mistake("first-number-only", "You compare the first number of a name and no more. A name may hold several: layer 2, part 10.")
def _(names):
    def key(name):
        found = re.search(r"[0-9]+", name)
        return [*_pieces(name[: found.end()]), (1, 0, name[found.end():])] if found else _pieces(name)
    return sorted(names, key=lambda name: (key(name), name))


@natural_order.mistake("text-before-digits", "Where one name has digits and the other has text, the digits come first. Yours come last.")
def _(names):
    return sorted(names, key=lambda name: ([(1 - kind, n, text) for kind, n, text in _pieces(name)], name))


@natural_order.mistake("ties-as-they-came", "'s1' and 's01' are equal as numbers, and you leave them as they came. Then the order depends on the disk: give ties an order, too.")
def _(names):
    return sorted(names, key=_pieces)


@natural_order.mistake("digits-joined", "You read all digits of a name as one number: 'layer2/part10' becomes 210. Every run of digits is a number of its own.")
def _(names):
    return sorted(names, key=lambda name: int("0" + re.sub(r"[^0-9]", "", name)))


@natural_order.mistake("backwards", "Your list runs from the last shard to the first.")
def _(names):
    return sorted(names, key=lambda name: (_pieces(name), name))[::-1]


@natural_order.mistake("sorted-in-place", "You sorted the caller's own list. The specification asks for a new one: `sorted` makes one, `.sort()` does not.")
def _(names):
    names.sort(key=lambda name: (_pieces(name), name))
    return names


@natural_order.variant
def _(names):
    """A comparison instead of a key."""
    def compare(a, b):
        x, y = (_pieces(a), a), (_pieces(b), b)
        return (x > y) - (x < y)
    return sorted(names, key=cmp_to_key(compare))


@natural_order.variant
def _(names):
    """findall, and sorting twice: sorted keeps equal ones in place."""
    parts = lambda name: [(not p[0].isdigit(), int(p) if p[0].isdigit() else 0, p if not p[0].isdigit() else "") for p in re.findall(r"[0-9]+|[^0-9]+", name)]
    return sorted(sorted(names), key=parts)


@natural_order.variant
def _(names):
    """Letter by letter."""
    def key(name):
        pieces = []
        for letter in name:
            if letter in "0123456789":
                if pieces and pieces[-1][0] == 0:
                    pieces[-1] = (0, 10 * pieces[-1][1] + int(letter), "")
                else:
                    pieces.append((0, int(letter), ""))
            elif pieces and pieces[-1][0] == 1:
                pieces[-1] = (1, 0, pieces[-1][2] + letter)
            else:
                pieces.append((1, 0, letter))
        return pieces, name
    return sorted(names, key=key)


# --- deal_shards -------------------------------------------------------------------------------------------


def _deal_cases(rng: torch.Generator) -> Iterator[Case]:
    def case(label: str, lengths: list[int], d: int, dtype: torch.dtype = torch.float64) -> Case:
        n = len(lengths)
        sizes = [sum((j + 1) * m // n - j * m // n for m in lengths) for j in range(n)]
        return Case(label, [normal(rng, m, d, dtype=dtype) for m in lengths], [torch.randperm(size, generator=rng) for size in sizes])

    yield case("3 shards of 6, 9 and 12 rows", [6, 9, 12], 2)
    yield case("4 shards of 10, 7, 5 and 9 rows, float32", [10, 7, 5, 9], 3, torch.float32)
    yield case("a shard that is shorter than the number of shards", [2, 8, 3, 9, 11], 2).of("boundary")
    yield case("one shard", [5], 3).of("extreme")
    yield case("an empty shard", [0, 7, 6], 2).of("extreme")


deal_shards = Exercise(
    "deal_shards",
    new=True,
    without={**NOT_TRAINED, **ALL_COUNTS},
    scaled=("shards",),
    difficulty=3,
    importance=4,
    minutes=15,
    learn="How more tokens than fit into memory are mixed by reading each of them once.",
    cases=_deal_cases,
    hints=(
        "Think of dealing cards: every player gets a part of every pack. What does new shard 0 take of old shard 0, and of old shard 1?",
        "With 4 shards and an old shard of 10 rows, where do the parts 0, 1, 2 and 3 begin and end? Write down `j * 10 // 4`. Do the parts cover all rows?",
        "Collect the slices of all old shards for one j, join them with `torch.cat`, and index the result with `orders[j]`: which of its rows comes first?",
    ),
    verified="lengths that do not divide, shards shorter than their number, an empty one; every row once.",
    next="how many old shards does a batch of 32 rows draw from now, and how many before?",
)


def _deal(shards, orders, *, bounds=None, inverse=False, unordered=False, reverse=False):
    n = len(shards)
    bounds = bounds or (lambda j, m: (j * m // n, (j + 1) * m // n))
    dealt = []
    for j, order in enumerate(orders):
        parts = [rows[slice(*bounds(j, len(rows)))] for rows in shards]
        rows = torch.cat(parts[::-1] if reverse else parts)
        dealt.append(rows.clone() if unordered else rows[order.argsort() if inverse else order])
    return dealt


@deal_shards.mistake("shuffled-within-shards", "Each new shard holds the rows of one old shard. Mixed within themselves they still come from the same documents: take a part of every old shard.")
def _(shards, orders):
    return [rows[order] for rows, order in zip(shards, orders)]


@deal_shards.mistake("cut-at-other-places", "`orders[j]` does not fit your new shards: the rows are not shared out as the specification says. Cut at `j * m // n`: `tensor_split`, or parts of `m // n` rows, cut elsewhere.")
def _(shards, orders):
    return [torch.cat([rows.tensor_split(len(shards))[j] for rows in shards])[order] for j, order in enumerate(orders)]


@deal_shards.mistake("remainder-lost", "Rows are missing: you cut every shard into parts of `len // n` rows, and what is left over goes nowhere.")
def _(shards, orders):
    n = len(shards)
    found = _deal(shards, orders, bounds=lambda j, m: (j * (m // n), (j + 1) * (m // n)), unordered=True)
    return [rows[order[order < len(rows)]] for rows, order in zip(found, orders)]


@deal_shards.mistake("round-robin", "You gave new shard j every n-th row, beginning with row j. The specification takes rows that follow each other: on a disk they are read in one run.")
def _(shards, orders):
    n = len(shards)
    return [rows[order[order < len(rows)]] for j, order in enumerate(orders) if (rows := torch.cat([part[j::n] for part in shards])) is not None]


wrong_ways(deal_shards, _deal, {
    "order-inverted": ({"inverse": True}, "You put row i at place `orders[j][i]`. The specification means the other direction: `orders[j][0]` says which row comes first."),
    "order-forgotten": ({"unordered": True}, "The parts stand one after another as they were collected: `orders[j]` is not used."),
    "last-shard-first": ({"reverse": True}, "You collected the parts beginning with the last old shard. It is the other way round, and the order counts for `orders[j]`."),
})


@deal_shards.mistake("remainder-to-the-last", "The last new shard gets all rows that are left over. Cut at `j * m // n`, so that the parts differ by one row at most.")
def _(shards, orders):
    n = len(shards)
    found = _deal(shards, orders, bounds=lambda j, m: (j * (m // n), (j + 1) * (m // n) if j < n - 1 else m), unordered=True)
    return [rows[order[order < len(rows)]] for rows, order in zip(found, orders)]


@deal_shards.variant
def _(shards, orders):
    """tensor_split at computed places."""
    n = len(shards)
    parts = [torch.tensor_split(rows, [j * len(rows) // n for j in range(1, n)]) for rows in shards]
    return [torch.cat([split[j] for split in parts]).index_select(0, order) for j, order in enumerate(orders)]


@deal_shards.variant
def _(shards, orders):
    """Row by row."""
    n = len(shards)
    piles = [[] for _ in shards]
    for rows in shards:
        for j in range(n):
            piles[j] += [rows[i] for i in range(j * len(rows) // n, (j + 1) * len(rows) // n)]
    return [torch.stack([pile[i] for i in order.tolist()]) if pile else shards[0].new_zeros(0, shards[0].shape[1]) for pile, order in zip(piles, orders)]


@deal_shards.variant
def _(shards, orders):
    """One table of numbers, then one indexing."""
    every, n = torch.cat(shards), len(shards)
    starts = [sum(len(rows) for rows in shards[:i]) for i in range(n)]
    index = [torch.cat([torch.arange(j * len(r) // n, (j + 1) * len(r) // n) + s for r, s in zip(shards, starts)]) for j in range(n)]
    return [every[rows[order]] for rows, order in zip(index, orders)]


# --- merge_idle --------------------------------------------------------------------------------------------


def _idle_cases(rng: torch.Generator) -> Iterator[Case]:
    def case(label: str, world: int, d_sae: int, share: float) -> Case:
        fired = uniform(rng, world, d_sae) < share
        fired[:, 0], fired[:, 1] = False, False
        fired[-1, 1] = True  # on the last process alone
        fired[0, 2] = True
        fired[1:, 2] = False  # on the first alone
        return Case(label, integers(rng, 1, 900, d_sae), fired, integers(rng, 5, 60, world))

    yield case("2 processes, 6 latents", 2, 6, 0.4)
    yield case("4 processes, 9 latents", 4, 9, 0.2)
    yield case("3 processes that fire a lot", 3, 7, 0.8)
    yield Case("one process", torch.tensor([4, 0, 9]), torch.tensor([[False, True, False]]), torch.tensor([8])).of("extreme")
    yield Case("a process without tokens", torch.tensor([4, 1, 9]), torch.tensor([[False, True, False], [False, False, False]]), torch.tensor([8, 0])).of("boundary")


merge_idle = Exercise(
    "merge_idle",
    new=True,
    without={**NOT_TRAINED, **ALL_COUNTS, "scale": "counts have no scale", "negative": "counts are never below 0"},
    difficulty=1,
    importance=5,
    minutes=8,
    learn="Why a latent must not be dead on one process and alive on another.",
    cases=_idle_cases,
    hints=(
        "Two questions per latent: did it fire anywhere, and if not, how many tokens went by in which it could have?",
        "`fired` is [world, d_sae] and the result [d_sae]. Over which axis, and with `any` or with `all`?",
        "Add the tokens of all processes to every count first. Then set the counts to 0 where the question of the last hint is answered with yes.",
    ),
    verified="latents that fire on one process alone, unequal numbers of tokens, a process without any.",
    next="which latents would process 1 have called dead had it counted alone?",
)


def _merged(idle, fired, tokens, *, own=None, need=None, added=None, zero=True):
    added = tokens.sum() if added is None else added(tokens)
    alive = fired[own] if own is not None else fired.any(0) if need is None else need(fired)
    return (idle + added).masked_fill(alive, 0) if zero else idle.masked_fill(alive, 0) + added


@merge_idle.mistake("changed-in-place", "You changed the caller's `idle`. The specification asks for the count after the step as a new tensor.")
def _(idle, fired, tokens):
    idle += tokens.sum()
    idle[fired.any(0)] = 0
    return idle


wrong_ways(merge_idle, _merged, {
    "first-process-only": ({"own": 0}, "You look at process 0 alone. A latent that fires on another one would be called dead, and the auxiliary loss would pull at it."),
    "last-process-only": ({"own": -1}, "You look at the last process alone. A latent that fires on another one would be called dead."),
    "fired-everywhere": ({"need": lambda fired: fired.all(0)}, "You ask that a latent fires on all processes. One is enough: it is the same latent."),
    "one-process-tokens": ({"added": lambda tokens: tokens[0]}, "You add the tokens of one process. All of them went by without this latent."),
    "steps-for-tokens": ({"added": lambda tokens: 1}, "You add 1 for a step. The count is in tokens: all that went by in this step, on all processes."),
    "mean-tokens": ({"added": lambda tokens: tokens.sum() // len(tokens)}, "You add the mean number of tokens. With more processes a latent would then be called dead later."),
    "firing-counts-as-idle": ({"zero": False}, "A latent that fired in this step has 0 tokens behind it; yours begins with the tokens of the step it fired in."),
})


@merge_idle.variant
def _(idle, fired, tokens):
    """where, and a sum."""
    return torch.where(fired.sum(0) > 0, torch.zeros_like(idle), idle + int(tokens.sum()))


@merge_idle.variant
def _(idle, fired, tokens):
    """A product with 0 or 1."""
    return (idle + tokens.sum()) * (~fired).all(0)


@merge_idle.variant
def _(idle, fired, tokens):
    """A loop over latents."""
    went_by = sum(tokens.tolist())
    return torch.tensor([0 if any(row[i] for row in fired.tolist()) else count + went_by for i, count in enumerate(idle.tolist())])


# --- decode_sparse -----------------------------------------------------------------------------------------


def _decode_cases(rng: torch.Generator) -> Iterator[Case]:
    def case(label: str, n: int, k: int, d_sae: int, d: int, dtype: torch.dtype = torch.float64) -> Case:
        places = torch.stack([torch.randperm(d_sae, generator=rng)[:k] for _ in range(n)]) if n else torch.zeros(0, k, dtype=torch.long)
        return Case(label, normal(rng, n, k, dtype=dtype), places, normal(rng, d_sae, d, dtype=dtype))

    yield case("3 rows, 2 of 7 latents, 4 dimensions", 3, 2, 7, 4)
    yield case("5 rows, 3 of 11 latents, 2 dimensions, float32", 5, 3, 11, 2, torch.float32)
    twice = case("a latent named twice in a row", 4, 3, 6, 5)
    twice.args[1][1] = torch.tensor([2, 2, 5])
    yield twice
    yield case("every latent", 2, 5, 5, 3).of("extreme")
    yield case("no rows", 0, 2, 4, 3).of("extreme")


decode_sparse = Exercise(
    "decode_sparse",
    trained=("values", "W_dec"),
    without={**NO_THRESHOLD, **ALL_COUNTS},
    difficulty=2,
    importance=4,
    minutes=10,
    learn="How a decoder with a hundred thousand latents costs no more than the few that fire.",
    cases=_decode_cases,
    hints=(
        "k rows of the decoder are enough for one row of the result. Fetch them, weigh them, add them up.",
        "What shape has `W_dec[places]`? Which of its axes does `values` not have, and over which one is summed?",
        "`values` is [n, k], the rows that you fetched are [n, k, d]. One einsum leaves [n, d].",
    ),
    verified="the sum and both gradients, a latent named twice, all latents at once, no rows.",
    next="your [n, k, d] in between is written and read again: `F.embedding_bag` does without it.",
)


def _sum_of(values, places, W_dec, *, relu=False, mean=False, weigh=True, stop=False, first=False):
    values = values.relu() if relu else values
    rows = (W_dec.detach() if stop else W_dec)[places]
    rows = rows * values[..., None] if weigh else rows * (values[..., None] != 0)
    return rows[:, 0] if first else rows.mean(1) if mean else rows.sum(1)


wrong_ways(decode_sparse, _sum_of, {
    "negative-values-lost": ({"relu": True}, "Values below 0 count as 0 in yours. Whether they may occur is the encoder's affair; the decoder adds up what it is given."),
    "mean-of-the-latents": ({"mean": True}, "You took the mean over the k latents. They are added up."),
    "values-ignored": ({"weigh": False}, "You added the decoder rows without their values."),
    "no-gradient-for-the-decoder": ({"stop": True}, "The numbers are right, but no gradient reaches `W_dec`: something detaches it. The decoder would never learn."),
    "one-latent-a-row": ({"first": True}, "Only the first of the k latents of a row is decoded."),
})


@decode_sparse.mistake("overwritten-not-added", "A latent that is named twice in a row counts once in yours: writing to the same place twice overwrites. Add.")
def _(values, places, W_dec):
    return torch.zeros(len(values), len(W_dec), dtype=values.dtype).scatter(1, places, values) @ W_dec


@decode_sparse.mistake("places-by-column", "The decoder rows do not go with the values: your places are read column by column.")
def _(values, places, W_dec):
    rows = W_dec[places.T.reshape(places.shape)]
    return (rows * values[..., None]).sum(1)


@decode_sparse.variant
def _(values, places, W_dec):
    """embedding_bag: nothing of size [n, k, d]."""
    if not len(values):
        return W_dec.new_zeros(0, W_dec.shape[1]) + 0 * (values.sum() + W_dec.sum())
    return F.embedding_bag(places, W_dec, per_sample_weights=values.contiguous(), mode="sum")


@decode_sparse.variant
def _(values, places, W_dec):
    """A batched product of a row and a matrix."""
    return torch.bmm(values.unsqueeze(1), W_dec[places]).squeeze(1)


@decode_sparse.variant
def _(values, places, W_dec):
    """Latent by latent."""
    total = torch.zeros(len(values), W_dec.shape[1], dtype=W_dec.dtype)
    for j in range(values.shape[1]):
        total = total + values[:, j, None] * W_dec[places[:, j]]
    return total


# --- roofline ----------------------------------------------------------------------------------------------


def _roof_cases(rng: torch.Generator) -> Iterator[Case]:
    low, high = (uniform(rng, 4, low=1, high=9).tolist() for _ in range(2))
    yield Case("bound by memory", low[0] * 1e9, low[1] * 1e9, low[2] * 1e11, low[3] * 1e9)
    yield Case("bound by arithmetic", high[0] * 1e12, high[1] * 1e6, high[2] * 1e10, high[3] * 1e9)
    yield Case("both at once", 6.0, 9.0, 2.0, 3.0).of("boundary")
    yield Case("a little beside the ridge", 6.0, 9.01, 2.0, 3.0).of("boundary")
    yield Case("very little of everything", 1e-9, 1e-12, 1e-3, 1e-6).of("extreme")
    yield Case("a machine without bandwidth", 6.0, 9.0, 2.0, 0.0)
    yield Case("a negative number of operations", -6.0, 9.0, 2.0, 3.0).of("negative")


roofline = Exercise(
    "roofline",
    without={**NOT_TRAINED, **ALL_COUNTS, **NO_MATRIX, "scale": "it takes plain numbers, and the cases have many scales"},
    difficulty=1,
    importance=3,
    minutes=8,
    learn="How to say before a measurement whether arithmetic or memory will be the limit.",
    cases=_roof_cases,
    hints=(
        "Ask how long the arithmetic alone would take, and how long the traffic alone. Both happen at once: when is everything done?",
        "What are the units of `flops / peak`, and of `moved / bandwidth`?",
        "Time is the larger of the two. The share is what `flops / time` is of `peak`. Check the four numbers before you divide.",
    ),
    verified="both limits, the ridge between them, numbers that cannot be.",
    next="how many operations a byte does your decoder do, and how many would the machine like?",
)


def _roof(flops, moved, peak, bandwidth, *, join=max, check=True):
    if check and min(flops, moved, peak, bandwidth) <= 0:
        raise ValueError("above 0")
    seconds = join(flops / peak, moved / bandwidth)
    return seconds, flops / peak / seconds


wrong_ways(roofline, _roof, {
    "times-added": ({"join": lambda a, b: a + b}, "You added the two times. Arithmetic and traffic happen at the same time: the longer one decides."),
    "shorter-time": ({"join": min}, "You took the shorter of the two times. Nothing is done before both are."),
    "unchecked": ({"check": False}, "Impossible numbers, such as no bandwidth, must be refused with a ValueError."),
})


@roofline.mistake("rate-for-share", "The second number is a share of `peak`, at most 1: operations a second over `peak`.")
def _(flops, moved, peak, bandwidth):
    seconds, _ = _roof(flops, moved, peak, bandwidth)
    return seconds, flops / seconds


@roofline.mistake("share-upside-down", "Your share is above 1: it is the least time over that of the arithmetic alone. The share of `peak` is the other way round.")
def _(flops, moved, peak, bandwidth):
    seconds, _ = _roof(flops, moved, peak, bandwidth)
    return seconds, seconds / (flops / peak)


@roofline.mistake("share-of-bandwidth", "Your share is that of the bandwidth. Asked is the share of `peak`, the arithmetic.")
def _(flops, moved, peak, bandwidth):
    seconds, _ = _roof(flops, moved, peak, bandwidth)
    return seconds, moved / bandwidth / seconds


@roofline.mistake("times-in-the-wrong-units", "You divided the bytes by the operations a second. Bytes go with the bandwidth.")
def _(flops, moved, peak, bandwidth):
    _roof(flops, moved, peak, bandwidth)
    seconds = max(flops / bandwidth, moved / peak)
    return seconds, flops / peak / seconds


@roofline.variant
def _(flops, moved, peak, bandwidth):
    """By intensity: operations a byte against the machine's."""
    if any(number <= 0 for number in (flops, moved, peak, bandwidth)):
        raise ValueError("all must be above 0")
    reached = min(peak, flops / moved * bandwidth)
    return flops / reached, reached / peak


@roofline.variant
def _(flops, moved, peak, bandwidth):
    """Two branches."""
    for number in (flops, moved, peak, bandwidth):
        if not number > 0:
            raise ValueError(f"{number} is not above 0")
    computing, moving = flops / peak, moved / bandwidth
    return (computing, 1.0) if computing >= moving else (moving, computing / moving)


@roofline.variant
def _(flops, moved, peak, bandwidth):
    """Sorted."""
    if not all(number > 0 for number in (flops, moved, peak, bandwidth)):
        raise ValueError("not above 0")
    seconds = sorted([flops / peak, moved / bandwidth])[-1]
    return seconds, (flops / seconds) / peak


# --- kl_and_error ------------------------------------------------------------------------------------------


def _kl_cases(rng: torch.Generator) -> Iterator[Case]:
    def case(label: str, n: int, vocab: int, m: int, d: int, dtype: torch.dtype = torch.float64) -> Case:
        return Case(label, normal(rng, n, vocab, dtype=dtype), 2 * normal(rng, n, vocab, dtype=dtype), normal(rng, m, d, dtype=dtype))

    both = {"replaced": 1, "error": 2}
    yield case("3 predictions over 5 tokens, 4 errors of 2 dimensions", 3, 5, 4, 2).with_gradient(**both)
    yield case("6 predictions over 3 tokens, 2 errors, float32", 6, 3, 2, 7, torch.float32).with_gradient(**both)
    yield case("undisturbed logits ask for a gradient, too", 4, 6, 3, 2).with_gradient(clean=0, replaced=1)
    yield case("one prediction, one error", 1, 2, 1, 1).of("extreme").with_gradient(**both)


def _same_loss(actual, expected):
    """Exactly 2 up to rounding: relative precision is all that counts."""
    return isinstance(actual, torch.Tensor) and actual.shape == expected.shape and torch.allclose(actual, expected, rtol=1e-5, atol=1e-6)


kl_and_error = Exercise(
    "kl_and_error",
    trained=("replaced", "error"),
    without={**NO_THRESHOLD, **ALL_COUNTS, **NO_SCALE},
    difficulty=3,
    importance=4,
    minutes=15,
    learn="How two losses of different units are trained on together, so that neither drowns the other.",
    cases=_kl_cases,
    hints=(
        "The value of this loss says nothing; its gradient is all. What is the gradient of u / c, where c is a number that happens to equal u?",
        "KL(clean || replaced) weighs with the probabilities of which of the two? And how many predictions and rows does each mean divide by?",
        "Write `kl / kl.detach()`, and the same with the squared error. Where else must a `detach` stand, so that the undisturbed model is left alone?",
    ),
    verified="the value and both gradients: direction of the KL, means over rows, equal slopes.",
    next="what would the sum without the division train first, at an error of 500 and a KL of 0.2?",
)


def _kl_loss(clean, replaced, error, *, swap=False, balanced=True, kl_weight=1.0, squared=None, summed=False, base=None):
    p, q = clean.detach().log_softmax(-1), replaced.log_softmax(-1)
    p, q = (q, p) if swap else (p, q)
    kl = (p.exp() * (p - q)).sum(-1)
    kl = kl.sum() if summed else kl.mean()
    square = (squared or (lambda e: e.square().sum(-1).mean()))(error)
    return kl_weight * kl / kl.detach() + square / square.detach() if balanced else kl + square


wrong_ways(kl_and_error, _kl_loss, {
    "kl-the-other-way-round": ({"swap": True}, "Your divergence is KL(replaced || clean): it weighs with the disturbed model's probabilities. The clean model is the one to be imitated."),
    "plain-sum": ({"balanced": False}, "You added the two as they are. Nats and squared lengths have different units: the larger drowns the other. Divide each by its own value."),
    "predictions-alone": ({"squared": lambda e: e.detach().square().sum(-1).mean()}, "No gradient reaches `error`. Without it the latents may become anything that predicts well."),
    "error-not-squared": ({"squared": lambda e: e.norm(dim=-1).mean()}, "You averaged the lengths of the errors, not their squares: long errors should count more."),
    "error-alone": ({"kl_weight": 0.0}, "The KL divergence does not take part. Then this is the loss from before the fine-tuning."),
})


@kl_and_error.mistake("no-detach", "You divided each loss by itself without `detach`: the value is 2, and every gradient is 0. Nothing is learned.")
def _(clean, replaced, error):
    p, q = clean.detach().log_softmax(-1), replaced.log_softmax(-1)
    kl, square = (p.exp() * (p - q)).sum(-1).mean(), error.square().sum(-1).mean()
    return kl / kl + square / square


@kl_and_error.mistake("clean-not-detached", "A gradient reaches `clean`: the undisturbed model would be asked to come to meet the disturbed one.")
def _(clean, replaced, error):
    p, q = clean.log_softmax(-1), replaced.log_softmax(-1)
    kl, square = (p.exp() * (p - q)).sum(-1).mean(), error.square().sum(-1).mean()
    return kl / kl.detach() + square / square.detach()


@kl_and_error.mistake("cross-entropy-for-kl", "You took the cross-entropy. Its gradient is that of the KL divergence, but its value is larger by the entropy of `clean`: divided by it, the predictions count too little.")
def _(clean, replaced, error):
    cross, square = F.cross_entropy(replaced, clean.detach().softmax(-1)), error.square().sum(-1).mean()
    return cross / cross.detach() + square / square.detach()


@kl_and_error.mistake("logits-for-probabilities", "You compared the logits themselves. The same constant on all logits of a prediction changes nothing about it: take the log softmax.")
def _(clean, replaced, error):
    kl, square = (clean.detach() - replaced).square().sum(-1).mean(), error.square().sum(-1).mean()
    return kl / kl.detach() + square / square.detach()


@kl_and_error.variant
def _(clean, replaced, error):
    """F.kl_div with logarithms on both sides."""
    kl = F.kl_div(replaced.log_softmax(-1), clean.detach().log_softmax(-1), reduction="batchmean", log_target=True)
    square = error.pow(2).sum(1).mean()
    return kl * (1 / kl.detach()) + square * (1 / square.detach())


@kl_and_error.variant
def _(clean, replaced, error):
    """Cross-entropy less the entropy."""
    p = clean.detach().softmax(-1)
    entropy = -(p * p.log()).sum(-1).mean()
    kl = F.cross_entropy(replaced, p) - entropy
    square = (error * error).sum() / len(error)
    return kl / kl.item() + square / square.item()


@kl_and_error.variant
def _(clean, replaced, error):
    """Sums instead of means: the division takes the number of rows out again."""
    p, q = clean.detach().log_softmax(-1), replaced.log_softmax(-1)
    kl, square = (p.exp() * (p - q)).sum(), error.square().sum()
    return kl / kl.detach() + square / square.detach()


# --- fold_adapter ------------------------------------------------------------------------------------------


def _fold_cases(rng: torch.Generator) -> Iterator[Case]:
    for d, d_sae, dtype in ((4, 7, torch.float64), (3, 5, torch.float32)):
        yield Case(f"{d} dimensions, {d_sae} latents", sae_params(rng, (), d, d_sae, dtype), normal(rng, d, d, dtype=dtype), 1 + normal(rng, d, dtype=dtype))
    params = sae_params(rng, (), 3, 4)
    yield Case("an adapter that does nothing", params, torch.eye(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)).of("extreme")
    yield Case("an adapter that only shifts", sae_params(rng, (), 2, 5), torch.eye(2, dtype=torch.float64), normal(rng, 2))
    yield Case("one dimension, one latent", sae_params(rng, (), 1, 1), normal(rng, 1, 1), normal(rng, 1)).of("extreme")


fold_adapter = Exercise(
    "fold_adapter",
    new=True,
    without={**NOT_TRAINED, **NO_THRESHOLD, **ALL_COUNTS},
    difficulty=3,
    importance=3,
    minutes=15,
    learn="Why a linear adapter costs nothing once it is trained, and what it does to the directions of an SAE.",
    cases=_fold_cases,
    hints=(
        "Write x_hat A + shift with f W_dec + b_dec in place of x_hat, and sort what comes out: what is multiplied by f, and what is not?",
        "The new b_dec is taken from x as well. By how much does (x - b_dec) W_enc change because of that, for every x alike?",
        "Call the change of b_dec delta. The bracket loses delta W_enc: add as much to b_enc, and the latents are the old ones.",
    ),
    verified="decoder, both biases, the latents that stay; an adapter that does nothing.",
    next="are the rows of the new decoder still of length 1?",
)


def _folded(params, A, shift, *, enc="right", W_dec=None, b_dec=None, share=False):
    new = params["b_dec"] @ A + shift if b_dec is None else b_dec(params, A, shift)
    delta = (new - params["b_dec"]) @ params["W_enc"]
    b_enc = {"right": params["b_enc"] + delta, "old": params["b_enc"].clone(), "minus": params["b_enc"] - delta, "whole": params["b_enc"] + new @ params["W_enc"]}[enc]
    return {"W_enc": params["W_enc"] if share else params["W_enc"].clone(), "b_enc": b_enc,
            "W_dec": params["W_dec"] @ A if W_dec is None else W_dec(params, A), "b_dec": new}


wrong_ways(fold_adapter, _folded, {
    "encoder-bias-forgotten": ({"enc": "old"}, "b_enc is as it was. But another b_dec is taken from x now, so other latents win: make up for the difference."),
    "encoder-bias-minus": ({"enc": "minus"}, "The correction of b_enc has the wrong sign: more is taken from x than before, so more has to be added."),
    "whole-bias-for-the-change": ({"enc": "whole"}, "You made up for all of the new b_dec. The old one was taken from x before, too: only the change counts."),
    "bias-not-adapted": ({"b_dec": lambda params, A, shift: params["b_dec"] + shift}, "The adapter multiplies b_dec, too: it works on the whole of x_hat."),
    "shift-forgotten": ({"b_dec": lambda params, A, shift: params["b_dec"] @ A}, "What the adapter adds is missing in b_dec."),
    "matrix-transposed": ({"W_dec": lambda params, A: params["W_dec"] @ A.T, "b_dec": lambda params, A, shift: params["b_dec"] @ A.T + shift},
        "You multiplied by A transposed. x_hat is a row, and A stands to its right."),
    "decoder-not-adapted": ({"W_dec": lambda params, A: params["W_dec"].clone()}, "The decoder is as it was. The adapter works on what it writes, so on each of its rows."),
    "same-encoder-object": ({"share": True}, "W_enc is right, but it is the caller's own tensor: whoever trains the one changes the other. All are to be new."),
})


@fold_adapter.variant
def _(params, A, shift):
    """Through the encoder's whole constant."""
    constant = params["b_enc"] - params["b_dec"] @ params["W_enc"]
    b_dec = torch.einsum("i,ij->j", params["b_dec"], A) + shift
    return {"W_enc": 1 * params["W_enc"], "b_enc": constant + b_dec @ params["W_enc"], "W_dec": torch.einsum("si,ij->sj", params["W_dec"], A), "b_dec": b_dec}


@fold_adapter.variant
def _(params, A, shift):
    """F.linear."""
    new = {"W_enc": params["W_enc"].detach().clone(), "W_dec": F.linear(params["W_dec"], A.T), "b_dec": F.linear(params["b_dec"], A.T, shift)}
    return new | {"b_enc": params["b_enc"] + F.linear(new["b_dec"] - params["b_dec"], params["W_enc"].T)}


@fold_adapter.variant
def _(params, A, shift):
    """Decoder and bias as one matrix."""
    both = torch.cat([params["W_dec"], params["b_dec"][None]]) @ A
    b_dec = both[-1] + shift
    return {"W_enc": params["W_enc"] + 0, "b_enc": params["b_enc"] + params["W_enc"].T @ (b_dec - params["b_dec"]), "W_dec": both[:-1].clone(), "b_dec": b_dec}


# --- skip_transcoder ---------------------------------------------------------------------------------------


def _transcoder_cases(rng: torch.Generator) -> Iterator[Case]:
    def case(label: str, n: int, d_in: int, d_sae: int, d_out: int, k: int, dtype: torch.dtype = torch.float64) -> Case:
        params = {"W_enc": normal(rng, d_in, d_sae, dtype=dtype), "b_enc": normal(rng, d_sae, dtype=dtype), "W_dec": normal(rng, d_sae, d_out, dtype=dtype),
                  "b_dec": 1 + normal(rng, d_out, dtype=dtype), "W_skip": normal(rng, d_in, d_out, dtype=dtype)}
        return Case(label, params, normal(rng, n, d_in, dtype=dtype), k)

    yield case("4 rows, 3 to 5 dimensions, 2 of 7 latents", 4, 3, 7, 5, 2)
    yield case("3 rows, 5 to 2 dimensions, 3 of 8 latents, float32", 3, 5, 8, 2, 3, torch.float32)
    below = case("two latents above 0, three asked for", 5, 2, 6, 3, 3)
    below.args[0]["b_enc"] -= 3
    yield below
    yield case("every latent", 2, 3, 4, 5, 4).of("extreme")
    yield case("no rows", 0, 3, 4, 2, 1).of("extreme")


skip_transcoder = Exercise(
    "skip_transcoder",
    ends={"k": lambda a: (1, a["params"]["W_enc"].shape[1])},
    trained=("x",),
    without={**NO_THRESHOLD, **ALL_COUNTS},
    difficulty=2,
    importance=4,
    minutes=12,
    learn="How a transcoder differs from an SAE, and what the linear path beside it takes over.",
    cases=_transcoder_cases,
    hints=(
        "Three summands: what the latents write, what goes straight from the input to the output, and a constant.",
        "What is the width of x, and what is the width of the result? Which of the matrices take you from the one to the other?",
        "`topk` gives values and places; those below 0 become 0. Nothing is taken from x before the encoder: it is not the space that the decoder writes to.",
    ),
    verified="other widths in and out, fewer latents above 0 than k, k from 1 to all, the gradient through both paths.",
    next="set W_dec to 0: what is left is the best linear guess, the rival of every transcoder.",
)


def _coded(params, x, k, *, skip=True, relu=True, source=None, largest=None, bias=True):
    pre = x @ params["W_enc"] + params["b_enc"]
    values, places = pre.topk(k, dim=-1) if largest is None else largest(pre, k)
    decoded = torch.einsum("nk,nkd->nd", values.relu() if relu else values, params["W_dec"][places])
    straight = (x if source is None else source(x)) @ params["W_skip"] if skip else 0
    return decoded + straight + (params["b_dec"] if bias else 0)


def _by_size(pre, k):
    places = pre.abs().topk(k, dim=-1).indices
    return pre.gather(-1, places), places


wrong_ways(skip_transcoder, _coded, {
    "no-skip": ({"skip": False}, "The linear path is missing: x W_skip. Without it the latents have to describe what a matrix could do for nothing."),
    "negative-latents": ({"relu": False}, "Latents below 0 write into your result. When fewer than k are above 0, the others are 0."),
    "skip-after-relu": ({"source": lambda x: x.relu()}, "The skip path reads x itself; yours loses everything below 0."),
    "largest-by-size": ({"largest": _by_size}, "You took the largest by absolute value. A latent far below 0 is not on: it takes the place of one that is."),
    "no-bias": ({"bias": False}, "`b_dec` is missing: the MLP writes something also where no latent fires."),
    "every-latent": ({"largest": lambda pre, k: (pre, torch.arange(pre.shape[-1]).expand(pre.shape))}, "All latents above 0 write, however many. Only the k largest may."),
    "no-gradient-through-the-skip": ({"source": lambda x: x.detach()}, "The numbers are right, but no gradient goes through the skip path: attribution would be blind to it."),
})


@skip_transcoder.mistake("bias-taken-from-x", "You took b_dec from x, as an SAE does. A transcoder reads one space and writes to another: nothing is taken from what it reads.")
def _(params, x, k):
    values, places = ((x - params["b_dec"]) @ params["W_enc"] + params["b_enc"]).topk(k, dim=-1)
    return torch.einsum("nk,nkd->nd", values.relu(), params["W_dec"][places]) + x @ params["W_skip"] + params["b_dec"]


@skip_transcoder.mistake("topk-over-rows", "You chose the k largest along the wrong axis: over the rows of x, not over the latents of each row.")
def _(params, x, k):
    pre = (x @ params["W_enc"] + params["b_enc"]).relu()
    keep = torch.zeros_like(pre).scatter(0, pre.topk(min(k, len(pre)), dim=0).indices, 1.0)
    return (pre * keep) @ params["W_dec"] + x @ params["W_skip"] + params["b_dec"]


@skip_transcoder.variant
def _(params, x, k):
    """Dense, with the rest masked out."""
    pre = x @ params["W_enc"] + params["b_enc"]
    values, places = pre.topk(k, dim=-1)
    latents = torch.zeros_like(pre).scatter(-1, places, values.relu())
    return latents @ params["W_dec"] + params["b_dec"] + x @ params["W_skip"]


@skip_transcoder.variant
def _(params, x, k):
    """One matrix for latents and input."""
    pre = F.linear(x, params["W_enc"].T, params["b_enc"])
    values, places = pre.relu().topk(k, dim=-1, sorted=False)
    wide = torch.cat([torch.zeros_like(pre).scatter(-1, places, values), x], dim=-1)
    return wide @ torch.cat([params["W_dec"], params["W_skip"]]) + params["b_dec"]


@skip_transcoder.variant
def _(params, x, k):
    """Row by row."""
    rows = [x[:0] @ params["W_skip"]]
    for row in x:
        values, places = (row @ params["W_enc"] + params["b_enc"]).topk(k)
        rows.append((values.clamp(min=0) @ params["W_dec"][places] + row @ params["W_skip"] + params["b_dec"])[None])
    return torch.cat(rows)


# --- second_share ------------------------------------------------------------------------------------------


def _share_cases(rng: torch.Generator) -> Iterator[Case]:
    def case(label: str, d_sae: int, d: int, dtype: torch.dtype = torch.float64) -> Case:
        size = uniform(rng, 2, d_sae, 1, low=0.2, high=6)
        return Case(label, (size * normal(rng, 2, d_sae, d)).to(dtype))

    yield case("5 latents, 3 dimensions", 5, 3)
    yield case("7 latents, 4 dimensions, float32", 7, 4, torch.float32)
    alone = case("latents that write to one place alone", 4, 3)
    alone.args[0][0, 1], alone.args[0][1, 2] = 0, 0
    yield alone.of("boundary")
    yield case("one latent, one dimension", 1, 1).of("extreme")


second_share = Exercise(
    "second_share",
    new=True,
    without={**NOT_TRAINED, **ALL_COUNTS},
    difficulty=1,
    importance=3,
    minutes=6,
    learn="How one tells which latents of a crosscoder two places share.",
    cases=_share_cases,
    hints=(
        "Each latent has two decoder rows. How long are they?",
        "`W_dec` is [2, d_sae, d]. Which axis does the length use up, and what does the first axis of the result mean?",
        "Lengths [2, d_sae]: the second over the sum of both.",
    ),
    verified="rows of many lengths, latents of one place alone, the order of the places.",
    next="what would this share be for two decoders that have nothing to do with each other?",
)


def _second(W_dec, *, length=None, swap=False, whole=False):
    first, second = (length or (lambda rows: rows.norm(dim=-1)))(W_dec)
    first, second = (second, first) if swap else (first, second)
    return second / first if whole else second / (first + second)


wrong_ways(second_share, _second, {
    "share-of-the-first": ({"swap": True}, "This is the share of the first place. A latent that writes to the second alone should have 1."),
    "ratio-for-share": ({"whole": True}, "You divided by the other length, not by the sum of both: a share lies between 0 and 1."),
    "squared-lengths": ({"length": lambda rows: rows.square().sum(-1)}, "You compared squared lengths. A row that is twice as long then counts four times."),
    "sum-of-entries": ({"length": lambda rows: rows.sum(-1)}, "You added up the entries of a row; those of both signs cancel. Its length is asked for."),
    "absolute-entries": ({"length": lambda rows: rows.abs().sum(-1)}, "You added up the absolute entries. The length is the root of the summed squares."),
    "over-latents": ({"length": lambda rows: rows.norm(dim=1)}, "Your lengths run over the latents. Each latent has a length of its own: over the dimensions."),
})


@second_share.variant
def _(W_dec):
    """vector_norm, normalised over the places."""
    return F.normalize(torch.linalg.vector_norm(W_dec, dim=2), p=1, dim=0, eps=0)[1].clone()


@second_share.variant
def _(W_dec):
    """One over one plus the ratio, the other way round where the second is 0."""
    a, b = W_dec.square().sum(-1).sqrt().unbind()
    return 1 - a / (a + b)


@second_share.variant
def _(W_dec):
    """A loop."""
    return torch.stack([row.norm() / (other.norm() + row.norm()) for other, row in zip(W_dec[0], W_dec[1])])
