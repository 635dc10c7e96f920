"""The exercises of chapter 14: cases, named mistakes, other right answers and hints."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from utils.course.battery import ALL_COUNTS, NOT_TRAINED, NO_THRESHOLD
from utils.course.cases import integers, normal, wrong_ways
from utils.course.exercises import Case, Exercise


def _other(rng: torch.Generator, values: Tensor, high: int) -> Tensor:
    """Another number below `high` for each of `values`."""
    return (values + integers(rng, 1, high, *values.shape)) % high


def _rows(tensor: Tensor) -> Tensor:
    return torch.arange(len(tensor))


# --- logit_difference --------------------------------------------------------------------------------------


def _logit_cases(rng: torch.Generator) -> Iterator[Case]:
    for label, batch, pos, vocab, last, dtype in (
        ("3 texts of 5, 2 and 4 tokens", 3, 6, 7, [4, 1, 3], torch.float64),
        ("4 texts, two of them without padding, float32", 4, 3, 9, [2, 0, 2, 1], torch.float32),
        ("1 text of 1 token", 1, 1, 5, [0], torch.float64),
    ):
        token = integers(rng, 0, vocab, batch)
        token[1:2] = (token[0] + 1) % vocab  # so that the first row's tokens do not do for all rows
        yield Case(label, 3 * normal(rng, batch, pos, vocab, dtype=dtype), torch.tensor(last), token, _other(rng, token, vocab))
    l = torch.tensor([[[0.0, 0.0, 0.0], [300.0, -300.0, 5.0]], [[-400.0, 1.0, 400.0], [9.0, 9.0, 9.0]]])
    yield Case('logits far apart, float32', l, torch.tensor([1, 0]), torch.tensor([1, 2]), torch.tensor([0, 0]))
    yield Case("the same token on both sides", torch.randn(2, 3, 5, generator=rng, dtype=torch.float64), torch.tensor([0, 2]), torch.tensor([4, 1]), torch.tensor([4, 1])).of("extreme")
    yield Case("logits in the hundreds, float32", 300 * torch.randn(2, 3, 4, generator=rng), torch.tensor([2, 1]), torch.tensor([0, 3]), torch.tensor([2, 1])).of("extreme")


logit_difference = Exercise(
    "logit_difference",
    without={**NOT_TRAINED, **NO_THRESHOLD, "nan": "logits are finite, those behind the padding too"},
    difficulty=1,
    importance=5,
    minutes=8,
    learn="How to turn what a model does into one number per sentence, the number that every experiment below moves.",
    cases=_logit_cases,
    hints=(
        "Two steps: first the row of logits at each text's own last token, then two entries of each such row.",
        "Print `logits.shape`, then `logits[torch.arange(len(logits)), last].shape`. What is left of the three dimensions?",
        "With `rows = torch.arange(len(logits))` and `end = logits[rows, last]`, the first of the two numbers is `end[rows, token]`.",
    ),
    verified="padded and full rows, another pair of tokens in each row, the sign, nats.",
    next="run it on the model's own sentences: the next cell does, before anything is edited.",
)


@logit_difference.mistake("last-column", "You read the last column for every row. In a shorter text that column is padding: `last` says where each text ends.")
def _(logits, last, token, rival):
    rows = _rows(logits)
    return logits[rows, -1, token] - logits[rows, -1, rival]


@logit_difference.mistake("sign-reversed", "You subtracted the other way round: a model that prefers `token` gets a negative number. Every flip will be counted as its opposite.")
def _(logits, last, token, rival):
    rows = _rows(logits)
    return logits[rows, last, rival] - logits[rows, last, token]


@logit_difference.mistake("probabilities", "You subtracted probabilities. They squeeze a clear preference between two unlikely tokens to almost nothing; the specification asks for logits.")
def _(logits, last, token, rival):
    rows, probability = _rows(logits), logits.softmax(-1)
    return probability[rows, last, token] - probability[rows, last, rival]


@logit_difference.mistake("one-before-the-end", "You read the position before the last token: what the model expected *there*, not what it expects next. `last` is an index already.")
def _(logits, last, token, rival):
    rows = _rows(logits)
    return logits[rows, last - 1, token] - logits[rows, last - 1, rival]


@logit_difference.mistake("first-rows-tokens", "You used the first row's two tokens for all rows. Each row brings its own pair.")
def _(logits, last, token, rival):
    rows = _rows(logits)
    return logits[rows, last, token[0]] - logits[rows, last, rival[0]]


@logit_difference.mistake("averaged", "You averaged over the texts. The mean can be taken later; flips and intervals need one number per text.")
def _(logits, last, token, rival):
    rows = _rows(logits)
    return (logits[rows, last, token] - logits[rows, last, rival]).mean()


@logit_difference.mistake("every-row-with-every-row", "Your result has a row and a column for each text: `logits[:, last]` takes every text's last position from *every* text.")
def _(logits, last, token, rival):
    end = logits[:, last]
    return end[..., token].diagonal(dim1=0, dim2=1).T - end[..., rival].diagonal(dim1=0, dim2=1).T


@logit_difference.variant
def _(logits, last, token, rival):
    """Log-probabilities: the normaliser cancels."""
    rows = _rows(logits)
    logprob = logits.log_softmax(-1)[rows, last]
    return logprob[rows, token] - logprob[rows, rival]


@logit_difference.variant
def _(logits, last, token, rival):
    """A loop."""
    return torch.stack([row[i, a] - row[i, b] for row, i, a, b in zip(logits, last, token, rival)])


@logit_difference.variant
def _(logits, last, token, rival):
    """gather twice; the pair as a column each, the result a view."""
    end = logits.gather(1, last[:, None, None].expand(-1, 1, logits.shape[2]))[:, 0]
    pair = end.gather(1, torch.stack([token, rival], 1))
    return pair[:, 0] - pair[:, 1]


# --- add_along ---------------------------------------------------------------------------------------------


def _add_cases(rng: torch.Generator) -> Iterator[Case]:
    yield Case("3 texts of 5 tokens, another token and dose in each", normal(rng, 3, 5, 4), 2 * normal(rng, 4),
               torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64), torch.tensor([2, 4, 1]))
    yield Case("4 texts of 6 tokens, float32", normal(rng, 4, 6, 7, dtype=torch.float32), normal(rng, 7, dtype=torch.float32),
               torch.tensor([-1.5, 3.0, 1.0, -1.0]), torch.tensor([0, 5, 3, 3]))
    yield Case("1 text of 2 tokens", normal(rng, 1, 2, 3), normal(rng, 3), torch.tensor([-0.7], dtype=torch.float64), torch.tensor([0]))
    yield Case("a dose of 0, and the last token", torch.randn(2, 3, 4, generator=rng, dtype=torch.float64), torch.randn(4, generator=rng, dtype=torch.float64),
               torch.tensor([0.0, 1.5], dtype=torch.float64), torch.tensor([0, 2])).of("extreme")


add_along = Exercise(
    "add_along",
    new=True,
    without={**NOT_TRAINED, **NO_THRESHOLD, **ALL_COUNTS},
    difficulty=2,
    importance=5,
    minutes=10,
    learn="How to write a direction into one token, with the dose in units that mean something.",
    cases=_add_cases,
    hints=(
        "Copy first. Then each row gets one vector added, at one position: which index picks exactly one token from each row?",
        "Print `dose[:, None].shape`, `direction.shape` and the shape of their product. What should stand on the left of `+=` to have the same shape?",
        "With `rows = torch.arange(len(activation))`, print `activation[rows, position]`: is it the tokens that you want to change? An assignment to the same index changes them in place, so in what?",
    ),
    verified="another token and another dose in every row, doses below 0, nothing else touched, the input left alone.",
    next="it becomes a hook with one lambda; the first edit of the real model is the next cell.",
)


def _added(activation: Tensor, step: Tensor, position: Tensor) -> Tensor:
    out = activation.clone()
    out[_rows(out), position] += step
    return out


@add_along.mistake("unit-direction", "You scaled the direction to length 1 first. A dose of 1 is then one unit of an arbitrary scale, not one step from class to class; add it with its own length.")
def _(activation, direction, dose, position):
    return _added(activation, dose[:, None] * direction / direction.norm(), position)


@add_along.mistake("whole-sentence", "You pushed every token of each row. Only the one at `position` was to change; with all of them moved you could not say where the model reads.")
def _(activation, direction, dose, position):
    return activation + dose[:, None, None] * direction


@add_along.mistake("one-dose-for-all", "You used the first row's dose for every row. Half of our sentences are pushed one way and half the other.")
def _(activation, direction, dose, position):
    return _added(activation, dose[0] * direction, position)


@add_along.mistake("wrong-way", "You pushed against the direction: a positive dose moved the token the other way.")
def _(activation, direction, dose, position):
    return _added(activation, -dose[:, None] * direction, position)


@add_along.mistake("replaced", "You overwrote the token with the scaled direction. Everything else that it carried is gone; an edit adds.")
def _(activation, direction, dose, position):
    out = activation.clone()
    out[_rows(out), position] = dose[:, None] * direction
    return out


@add_along.mistake("sign-of-the-dose-only", "You used only the sign of the dose: every row was pushed by one whole step. A dose-response curve would be flat.")
def _(activation, direction, dose, position):
    return _added(activation, dose.sign()[:, None] * direction, position)


@add_along.mistake("same-position-for-all", "You pushed the first row's position in every row. Each row brings its own.")
def _(activation, direction, dose, position):
    return _added(activation, dose[:, None] * direction, position[0])


@add_along.mistake("one-too-far", "You pushed the token after the one that was asked for. Positions count from 0, and the start token is 0.")
def _(activation, direction, dose, position):
    return _added(activation, dose[:, None] * direction, (position + 1) % activation.shape[1])


@add_along.variant
def _(activation, direction, dose, position):
    """A loop."""
    out = activation.clone()
    for row in range(len(out)):
        out[row, position[row]] = out[row, position[row]] + dose[row] * direction
    return out


@add_along.variant
def _(activation, direction, dose, position):
    """A one-hot mask and einsum."""
    chosen = torch.nn.functional.one_hot(position, activation.shape[1]).to(activation.dtype)
    return activation + torch.einsum("bp,b,d->bpd", chosen, dose, direction)


@add_along.variant
def _(activation, direction, dose, position):
    """scatter_add; the result is not contiguous."""
    step = (dose[:, None] * direction)[:, None]
    out = activation.scatter_add(1, position[:, None, None].expand_as(step), step)
    return out.transpose(0, 1).contiguous().transpose(0, 1)


# --- norm_matched_random -----------------------------------------------------------------------------------


def _random_cases(rng: torch.Generator) -> Iterator[Case]:
    yield Case("3 draws in 5 dimensions", normal(rng, 3, 5), 3 * normal(rng, 5) + 1)
    yield Case("6 draws in 4 dimensions, float32", normal(rng, 6, 4, dtype=torch.float32), 0.2 * normal(rng, 4, dtype=torch.float32) + 0.5)
    yield Case("1 draw in 9 dimensions", normal(rng, 1, 9), 10 * normal(rng, 9) - 2)
    yield Case("two dimensions, one draw almost along the direction", torch.tensor([[1.0, 1e-4], [-2.0, 5.0]], dtype=torch.float64), torch.tensor([3.0, 0.0], dtype=torch.float64)).of("extreme")


norm_matched_random = Exercise(
    "norm_matched_random",
    without={**NOT_TRAINED, **NO_THRESHOLD, **ALL_COUNTS},
    difficulty=2,
    importance=5,
    minutes=12,
    learn="How to build the control that every steering result needs: a push of the same size that carries nothing of the concept.",
    cases=_random_cases,
    hints=(
        "Two things have to be right, in this order: nothing of `direction` left in the row, then the length.",
        "For the projection you need a direction of length 1. Print `(noise @ unit).shape` and `torch.outer(noise @ unit, unit).shape`.",
        "After the projection print `(row @ direction)` and `row.norm() / direction.norm()` for each row. The first should be 0, the second 1; which of your two steps disturbs the other?",
    ),
    verified="each row by itself has the length of the direction and a dot product of 0 with it.",
    next="such rows go beside every edit from here on.",
)


def _to_length(rows: Tensor, length: Tensor) -> Tensor:
    return rows / rows.norm(dim=1, keepdim=True) * length


def _without(noise: Tensor, direction: Tensor) -> Tensor:
    unit = direction / direction.norm()
    return noise - torch.outer(noise @ unit, unit)


@norm_matched_random.mistake("not-orthogonal", "The length is right, but some of the direction is still in your rows. The control would then do a little of what it is the control for: take that component out.")
def _(noise, direction):
    return _to_length(noise, direction.norm())


@norm_matched_random.mistake("length-before-projection", "You set the length first and took the component out afterwards, which shortens the row again. Which of the two has to come last?")
def _(noise, direction):
    return _without(_to_length(noise, direction.norm()), direction)


@norm_matched_random.mistake("unit-length", "Your rows have length 1. A control that pushes less than the edit is no control: give it the length of the direction.")
def _(noise, direction):
    return _to_length(_without(noise, direction), torch.ones((), dtype=noise.dtype))


@norm_matched_random.mistake("direction-not-normalised", "You projected with the direction as it is. The projection needs a direction of length 1; otherwise it takes out the wrong amount.")
def _(noise, direction):
    return _to_length(noise - torch.outer(noise @ direction, direction), direction.norm())


@norm_matched_random.mistake("one-norm-for-all", "You divided all rows by one number. Each row has a norm of its own: which `dim` does the norm run over?")
def _(noise, direction):
    across = _without(noise, direction)
    return across / across.norm() * direction.norm()


@norm_matched_random.mistake("norm-over-draws", "Your norm runs over the draws instead of the features: the columns have been scaled, not the rows.")
def _(noise, direction):
    across = _without(noise, direction)
    return across / across.norm(dim=0, keepdim=True) * direction.norm()


@norm_matched_random.mistake("matched-spread", "You matched the standard deviation of the entries. The length that an edit adds is the norm.")
def _(noise, direction):
    return _without(noise, direction) * direction.std()


@norm_matched_random.mistake("the-other-part", "You kept the part along the direction and dropped the rest: your control *is* the edit, up to its sign.")
def _(noise, direction):
    return _to_length(noise - _without(noise, direction), direction.norm())


@norm_matched_random.variant
def _(noise, direction):
    """A loop."""
    rows = []
    for row in noise:
        row = row - (row @ direction) / (direction @ direction) * direction
        rows.append(row * (direction.norm() / row.norm()))
    return torch.stack(rows)


@norm_matched_random.variant
def _(noise, direction):
    """A projection matrix and the library's normalise."""
    along = torch.outer(direction, direction) / direction.dot(direction)
    across = noise @ (torch.eye(len(direction), dtype=noise.dtype) - along)
    return torch.nn.functional.normalize(across, dim=1) * direction.norm()


@norm_matched_random.variant
def _(noise, direction):
    """The same, stored the other way round."""
    unit = torch.nn.functional.normalize(direction, dim=0)
    across = noise.T - torch.einsum("d,nd,e->en", unit, noise, unit)
    return (across / across.square().sum(0).sqrt() * direction.square().sum().sqrt()).T


# --- patch_positions ---------------------------------------------------------------------------------------


def _patch_cases(rng: torch.Generator) -> Iterator[Case]:
    yield Case("3 texts of 5 tokens, patched from texts of 7", normal(rng, 3, 5, 4), normal(rng, 3, 7, 4), torch.tensor([1, 3, 2]), torch.tensor([3, 0, 4]))
    yield Case("4 texts of 6 tokens, patched from texts of 6, float32", normal(rng, 4, 6, 8, dtype=torch.float32),
               normal(rng, 4, 6, 8, dtype=torch.float32), torch.tensor([2, 2, 5, 4]), torch.tensor([1, 4, 3, 2]))
    yield Case("1 text of 3 tokens, patched from one of 4", normal(rng, 1, 3, 5), normal(rng, 1, 4, 5), torch.tensor([1]), torch.tensor([2]))
    yield Case("copied to the first, from the last", torch.randn(2, 3, 4, generator=rng, dtype=torch.float64), torch.randn(2, 5, 4, generator=rng, dtype=torch.float64),
               torch.tensor([0, 0]), torch.tensor([4, 4])).of("extreme")
    yield Case("copied from a shorter text", torch.randn(2, 5, 3, generator=rng, dtype=torch.float64), torch.randn(2, 2, 3, generator=rng, dtype=torch.float64),
               torch.tensor([4, 0]), torch.tensor([1, 0])).of("extreme")


patch_positions = Exercise(
    "patch_positions",
    new=True,
    without={**NOT_TRAINED, **NO_THRESHOLD, **ALL_COUNTS},
    difficulty=2,
    importance=5,
    minutes=8,
    learn="How to move one token's whole state from one run of the model into another.",
    cases=_patch_cases,
    hints=(
        "One token of each row is overwritten by one token of the same row of the other run. Nothing is added, nothing else changes.",
        "Print `activation[rows, at].shape` and `source[rows, source_at].shape` with `rows = torch.arange(len(at))`. Are they equal, though the texts are not equally long?",
        "Two indices, one into each run. Print the token that each of them picks from the first row: is it the one that you would point at?",
    ),
    verified="texts of different lengths, another token in every row on both sides, nothing else touched.",
    next="two loops around it, over layers and positions, draw the map of where the number is.",
)


def _patched(activation: Tensor, value: Tensor, at: Tensor) -> Tensor:
    out = activation.clone()
    out[_rows(out), at] = value
    return out


@patch_positions.mistake("positions-swapped", "You read the source at `at` and wrote at `source_at`. The first says where to write, the second where to read.")
def _(activation, source, at, source_at):
    return _patched(activation, source[_rows(source), at], source_at % activation.shape[1])


@patch_positions.mistake("same-position-in-both", "You read the source at the position where you write. The texts may differ in length: `source_at` says where the token stands there.")
def _(activation, source, at, source_at):
    return _patched(activation, source[_rows(source), at], at)


@patch_positions.mistake("added", "You added the source's activation to the one that was there. A patch replaces: the receiving run should hold what the other run held.")
def _(activation, source, at, source_at):
    return _patched(activation, activation[_rows(activation), at] + source[_rows(source), source_at], at)


@patch_positions.mistake("first-row-for-all", "Every row received the first row of the source. Row i is paired with row i.")
def _(activation, source, at, source_at):
    return _patched(activation, source[0, source_at], at)


@patch_positions.mistake("next-rows-source", "Each row received the source of its neighbour. Row i is paired with row i.")
def _(activation, source, at, source_at):
    return _patched(activation, source.roll(1, 0)[_rows(source), source_at] + (len(source) == 1), at)


@patch_positions.mistake("everything-up-to-there", "You overwrote every token up to `at`. Then you cannot say which of them did it: one token per row.")
def _(activation, source, at, source_at):
    upto = torch.arange(activation.shape[1]) <= at[:, None]
    return torch.where(upto[..., None], source[_rows(source), source_at][:, None], activation)


@patch_positions.mistake("zeroed", "The token was set to zero and nothing was put in its place: that is an ablation. A patch brings the other run's activation.")
def _(activation, source, at, source_at):
    return _patched(activation, torch.zeros((), dtype=activation.dtype), at)


@patch_positions.mistake("averaged-source", "You patched the mean of the source over its tokens. One token was asked for, the one at `source_at`.")
def _(activation, source, at, source_at):
    return _patched(activation, source.mean(dim=1), at)


@patch_positions.variant
def _(activation, source, at, source_at):
    """A loop."""
    out = activation.clone()
    for row, (i, j) in enumerate(zip(at.tolist(), source_at.tolist())):
        out[row, i] = source[row, j]
    return out


@patch_positions.variant
def _(activation, source, at, source_at):
    """torch.where over a mask."""
    here = torch.arange(activation.shape[1]) == at[:, None]
    return torch.where(here[..., None], source[_rows(source), source_at].unsqueeze(1), activation)


@patch_positions.variant
def _(activation, source, at, source_at):
    """gather and scatter; the result is not contiguous."""
    width = activation.shape[2]
    value = source.gather(1, source_at[:, None, None].expand(-1, 1, width))
    out = activation.scatter(1, at[:, None, None].expand(-1, 1, width), value)
    return out.transpose(0, 2).contiguous().transpose(0, 2)


# --- recovered_fraction ------------------------------------------------------------------------------------


def _recovered_cases(rng: torch.Generator) -> Iterator[Case]:
    def runs(*places: int, n: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
        clean, corrupted = 2 + normal(rng, n), -1.5 + normal(rng, n)
        share = 0.4 + 0.9 * normal(rng, *places, 1)
        patched = corrupted + share * (clean - corrupted) + 0.3 * normal(rng, *places, n)
        return patched.to(dtype), clean.to(dtype), corrupted.to(dtype)

    yield Case("4 layers, 3 positions, 6 texts", *runs(4, 3, n=6))
    yield Case("5 places, 7 texts, float32", *runs(5, n=7, dtype=torch.float32))
    patched, clean, corrupted = runs(2, n=5)
    yield Case("more than everything, and the wrong way", torch.stack([2 * clean - corrupted, 2 * corrupted - clean]), clean, corrupted)
    c, k = (torch.tensor([4.0, 1.0, 6.0], dtype=torch.float64), torch.tensor([1.0, 3.0, 2.0], dtype=torch.float64))
    yield Case('no place dimension', torch.tensor([2.0, 2.0, 5.0], dtype=torch.float64), c, k)
    yield Case('one text moves the other way', torch.tensor([[2.0, 2.0, 5.0], [1.0, 3.0, 2.0]], dtype=torch.float64), c, k)
    low, high = torch.randn(4, generator=rng, dtype=torch.float64) - 3, torch.randn(4, generator=rng, dtype=torch.float64) + 2
    yield Case("clean below corrupted", torch.randn(3, 4, generator=rng, dtype=torch.float64), low, high).of("extreme")
    yield Case("one text", torch.randn(2, 1, generator=rng, dtype=torch.float64), high[:1], low[:1]).of("extreme")
    yield Case("3 dimensions of places, 4 texts", *runs(2, 1, 3, n=4)).of("axis")
    yield Case("one text that does not move", torch.tensor([[1.0, 5.0, 2.0], [2.0, 3.0, 7.0]], dtype=torch.float64), torch.tensor([3.0, 3.0, 2.0], dtype=torch.float64), k[[0, 1, 2]]).of("extreme")
    yield Case("far beyond", 40 * torch.stack([c, -c]), c, k).of("extreme")


recovered_fraction = Exercise(
    "recovered_fraction",
    without={**NOT_TRAINED, **NO_THRESHOLD, **ALL_COUNTS},
    difficulty=2,
    importance=4,
    minutes=8,
    learn="How to express a patch's effect so that 0 and 1 mean something, and why averages come before the division.",
    cases=_recovered_cases,
    hints=(
        "Draw a line with the corrupted mean at one end and the clean mean at the other. Where on it is the patched mean, as a share of the way?",
        "The texts are on the *last* dimension of `patched`. What shape has `patched.mean(dim=-1)`, and what shape has the answer?",
        "Try your formula on three cases: a patch that did nothing, one that equals the clean runs, one half-way. They must give 0, 1 and 0.5. Which mean makes the first of them 0?",
    ),
    verified="any number of places, averages before the division, values below 0 and above 1 left as they are.",
    next="apply it to the grid of patches: the heatmap in the next cells is nothing else.",
)


@recovered_fraction.mistake("mean-of-ratios", "You divided text by text and averaged the ratios. A text whose two runs hardly differ then explodes and drowns the others: average first.")
def _(patched, clean, corrupted):
    return ((patched - corrupted) / (clean - corrupted)).mean(dim=-1)


@recovered_fraction.mistake("distance-still-to-go", "You measured what is still missing: your 1 is a patch that did nothing. Which end of the line is 0?")
def _(patched, clean, corrupted):
    return (clean.mean() - patched.mean(dim=-1)) / (clean.mean() - corrupted.mean())


@recovered_fraction.mistake("no-starting-point", "You divided the patched mean by the clean mean. Without subtracting the corrupted mean, a patch that does nothing does not get 0.")
def _(patched, clean, corrupted):
    return patched.mean(dim=-1) / clean.mean()


@recovered_fraction.mistake("divided-by-clean", "The numerator is right. The whole way is not the clean mean but the distance from the corrupted mean to it.")
def _(patched, clean, corrupted):
    return (patched.mean(dim=-1) - corrupted.mean()) / clean.mean()


@recovered_fraction.mistake("clipped", "You cut the result at 0 and 1. A patch that makes things worse, or does more than the original, is a finding: report it as it is.")
def _(patched, clean, corrupted):
    return ((patched.mean(dim=-1) - corrupted.mean()) / (clean.mean() - corrupted.mean())).clamp(0, 1)


@recovered_fraction.mistake("absolute", "You took the absolute value. A patch that moves the model away from the clean run has a negative share.")
def _(patched, clean, corrupted):
    return ((patched.mean(dim=-1) - corrupted.mean()) / (clean.mean() - corrupted.mean())).abs()


@recovered_fraction.mistake("one-number", "You averaged over the places as well. Each place has its own share; only the texts, on the last dimension, are averaged.")
def _(patched, clean, corrupted):
    return (patched.mean() - corrupted.mean()) / (clean.mean() - corrupted.mean())


@recovered_fraction.mistake("not-averaged", "There is still one number per text in your result. The averages over texts come first, then the division.")
def _(patched, clean, corrupted):
    return (patched - corrupted.mean()) / (clean.mean() - corrupted.mean())


@recovered_fraction.variant
def _(patched, clean, corrupted):
    """The paired differences, averaged before the division."""
    return (patched - corrupted).mean(-1) / (clean - corrupted).mean()


@recovered_fraction.variant
def _(patched, clean, corrupted):
    """Sums: n cancels."""
    return (patched.sum(-1) - corrupted.sum()) / (clean.sum() - corrupted.sum())


@recovered_fraction.variant
def _(patched, clean, corrupted):
    """One minus what is still missing, as a view of a larger tensor."""
    missing = (clean.mean() - patched.mean(-1)) / (clean.mean() - corrupted.mean())
    return torch.stack([1 - missing, missing], -1)[..., 0]


# --- move_to_centroid --------------------------------------------------------------------------------------


def _move_cases(rng: torch.Generator) -> Iterator[Case]:
    for label, n, states, width, dtype in (
        ("5 rows, 4 states, 3 dimensions", 5, 4, 3, torch.float64),
        ("3 rows, 6 states, 7 dimensions, float32", 3, 6, 7, torch.float32),
        ("1 row, 2 states", 1, 2, 5, torch.float64),
    ):
        state = integers(rng, 0, states, n)
        if n > 1:
            state[1] = (state[0] + 1) % states  # at least two different states
        yield Case(label, normal(rng, n, width, dtype=dtype), 2 * normal(rng, states, width, dtype=dtype) + 1, state, _other(rng, state, states))
    centroids = torch.randn(4, 3, generator=rng, dtype=torch.float64)
    centroids[2] = torch.nan
    yield Case("a state that nobody is in or goes to has no mean", torch.randn(3, 3, generator=rng, dtype=torch.float64), centroids,
               torch.tensor([0, 3, 1]), torch.tensor([1, 3, 0])).of("nan")
    yield Case("every row stays where it is", torch.randn(2, 3, generator=rng, dtype=torch.float64), centroids[:2], torch.tensor([0, 1]), torch.tensor([0, 1])).of("extreme")


move_to_centroid = Exercise(
    "move_to_centroid",
    without={**NOT_TRAINED, **NO_THRESHOLD},
    difficulty=1,
    importance=4,
    minutes=6,
    learn="How to edit a state that takes many values, where one direction is not enough.",
    cases=_move_cases,
    hints=(
        "The edit is a step. It starts at the mean of where the row is and ends at the mean of where it should be.",
        "Print `centroids[state].shape` and compare it with `acts.shape`. One centroid per what?",
        "`centroids[state]` has one row for each row of `acts`, and so has `centroids[target]`. A row that lies on the centroid of its state must end on that of its target: try your formula on it.",
    ),
    verified="another step for each row; what made the row differ from its state's mean is kept.",
    next="try it on the walker: move its belief by one square and see which moves it proposes.",
)


@move_to_centroid.mistake("teleported", "You replaced the row by the centroid of the target. Everything else that it carried, such as how many moves have been made, is gone: shift it instead.")
def _(acts, centroids, state, target):
    return centroids[target]


@move_to_centroid.mistake("wrong-way", "Your step leads from the target to the state: the row moves away from where it should go.")
def _(acts, centroids, state, target):
    return acts + centroids[state] - centroids[target]


@move_to_centroid.mistake("old-state-kept", "You added the new state without taking the old one away. The row now holds both.")
def _(acts, centroids, state, target):
    return acts + centroids[target]


@move_to_centroid.mistake("old-state-removed-only", "You took the old state away and put nothing in its place.")
def _(acts, centroids, state, target):
    return acts - centroids[state]


@move_to_centroid.mistake("one-step-for-all", "You used the first row's step for every row. Each row has its own state and its own target.")
def _(acts, centroids, state, target):
    return acts + centroids[target[0]] - centroids[state[0]]


@move_to_centroid.mistake("half-the-way", "You went half the way: to the midpoint between the two centroids, where the model has two half-states.")
def _(acts, centroids, state, target):
    return acts + 0.5 * (centroids[target] - centroids[state])


@move_to_centroid.mistake("from-the-overall-mean", "Your step starts at the mean of all centroids. The row is not there: it starts at the centroid of its own state.")
def _(acts, centroids, state, target):
    return acts + centroids[target] - centroids.mean(dim=0)


@move_to_centroid.variant
def _(acts, centroids, state, target):
    """A loop."""
    return torch.stack([row + (centroids[there] - centroids[here]) for row, here, there in zip(acts, state, target)])


@move_to_centroid.variant
def _(acts, centroids, state, target):
    """The steps between all states first, then one of them for each row."""
    steps = centroids[None] - centroids[:, None]
    return acts + steps[state, target]


@move_to_centroid.variant
def _(acts, centroids, state, target):
    """The residual of the row put on the new centroid, with index_select; transposed in memory."""
    residual = acts - centroids.index_select(0, state)
    return (centroids.index_select(0, target) + residual).T.contiguous().T


# --- legal_shares ------------------------------------------------------------------------------------------


def _legal_cases(rng: torch.Generator) -> Iterator[Case]:
    for label, n, vocab, dtype in (("24 edited runs, 6 tokens", 24, 6, torch.float64), ("31 edited runs, 5 tokens, float32", 31, 5, torch.float32)):
        before, after = (torch.rand(n, vocab, generator=rng) < 0.5 for _ in range(2))
        before[:, 0], after[:, 1] = True, True
        before[:2], after[:2] = torch.arange(vocab) < 2, torch.arange(vocab) > 1
        scale = torch.where(torch.rand(n, 1, generator=rng) < 0.7, 1.0, 0.1)
        logits = 9 * torch.where(torch.rand(n, 1, generator=rng) < 0.6, after, before).double() * scale + 0.8 * normal(rng, n, vocab)
        logits[0], logits[1] = 9 * before[0] - 5, 9 * after[1] - 5  # one edit that failed and one that worked, for sure
        logits[1, -1] += 1
        yield Case(label, logits.to(dtype), before, after)
    logits = torch.tensor([[4.0, 1.0, 0.9, -6.0], [2.0, 2.5, 2.2, 2.1], [-1.0, 5.0, 0.0, 4.5]], dtype=torch.float64)
    before = torch.tensor([[True, True, False, False], [False, True, True, False], [True, False, False, True]])
    after = torch.tensor([[True, False, True, False], [True, True, True, True], [False, True, True, False]])
    yield Case("3 edited runs, a threshold of 0.2", logits, before, after, threshold=0.2)
    l = torch.tensor([[0.0, 0.0, 0.0, 0.0], [2.0, 1.0, -3.0, 0.0], [0.0, 5.0, 1.0, 0.0]], dtype=torch.float64)
    b = torch.tensor([[1, 0, 1, 0], [0, 1, 0, 1], [1, 0, 0, 0]], dtype=torch.bool)
    a = torch.tensor([[1, 1, 1, 1], [1, 0, 0, 0], [0, 0, 1, 0]], dtype=torch.bool)
    yield Case('a probability exactly at the threshold, which is 0.25', l, b, a, 0.25)
    even = torch.zeros(2, 4, dtype=torch.float64)
    legal = torch.tensor([[1, 1, 1, 1], [1, 0, 0, 0]]).bool()
    yield Case("all probabilities exactly at the threshold", even, ~legal, legal, 0.25).of("boundary")
    yield Case("a threshold of 0", torch.randn(2, 4, generator=rng, dtype=torch.float64), ~legal, legal, 0.0).of("extreme")
    share = torch.tensor([[0.6, 0.3, 0.1], [0.75, 0.2, 0.05]], dtype=torch.float64)
    none = torch.tensor([[0, 0, 0], [1, 0, 0]]).bool()
    yield Case("a threshold of 0.7; nothing is proposed and nothing is legal", share.log(), ~none, none, 0.7).of("extreme")
    rare = torch.tensor([[0.992, 0.005, 0.003], [0.9985, 0.0005, 0.001]], dtype=torch.float64)
    yield Case("a threshold of 0.002", rare.log(), none, torch.tensor([[1, 1, 1], [1, 0, 0]]).bool(), 0.002).of("extreme")
    for shift in (-200.0, 1000.0):
        yield Case(f"logits around {shift:g}, float32", share.log().float() + shift, ~none, torch.tensor([[1, 1, 0], [1, 1, 0]]).bool(), 0.15).of("extreme")
    just = torch.tensor([[0.2 - 1e-8, 0.3, 0.5 + 1e-8], [0.2 + 1e-8, 0.3, 0.5 - 1e-8]], dtype=torch.float64)
    yield Case("just under and just over a threshold of 0.2", just.log(), ~none, torch.tensor([[0, 1, 1], [1, 1, 1]]).bool(), 0.2).of("boundary")


legal_shares = Exercise(
    "legal_shares",
    without={**NOT_TRAINED, **ALL_COUNTS},
    difficulty=3,
    importance=4,
    minutes=18,
    learn="Why 'it proposes a legal move' flatters an edit, and which score does not.",
    cases=_legal_cases,
    hints=(
        "Three of the four shares look at one token per row, the one with the highest logit. The fourth looks at a set of tokens.",
        "`first = logits.argmax(1, keepdim=True)` has shape [n, 1]. What does `after.gather(1, first)` say about each row? And over which dimension must two boolean masks [n, d_vocab] agree to be the same set?",
        'For "exact", compare `logits.softmax(1) >= threshold` with `after`, entry by entry, and ask whether `.all(dim=1)` of them agree.',
    ),
    verified="first choices on both boards row by row, sets compared as sets, thresholds on probabilities.",
    next="score the runs without any edit with the same function: that is the number to subtract in your head.",
)


def _shares(logits, before, after, threshold=0.05):
    first = logits.argmax(1, keepdim=True)
    was, now = before.gather(1, first)[:, 0], after.gather(1, first)[:, 0]
    exact = ((logits.softmax(1) >= threshold) == after).all(1)
    return {"after": now, "both": now & was, "only after": now & ~was, "exact": exact}


def _means(rows: dict[str, Tensor]) -> dict[str, float]:
    return {name: row.double().mean().item() for name, row in rows.items()}


@legal_shares.mistake("boards-swapped", "You scored the moves on the board before the edit. An edit that does nothing would look perfect.")
def _(logits, before, after, threshold=0.05):
    return _means(_shares(logits, after, before, threshold))


@legal_shares.mistake("both-by-multiplication", "You multiplied two shares. That is the share on both boards only if the two were independent, and moves that are legal on one are often legal on the other: look row by row.")
def _(logits, before, after, threshold=0.05):
    rows = _shares(logits, before, after, threshold)
    was = before.gather(1, logits.argmax(1, keepdim=True)).double().mean().item()
    found = _means(rows)
    return {"after": found["after"], "both": found["after"] * was, "only after": found["after"] * (1 - was), "exact": found["exact"]}


@legal_shares.mistake("no-illegal-move-only", "For 'exact' you asked only that no illegal token is proposed. A model that proposes one of three legal moves would pass: all of them and no other.")
def _(logits, before, after, threshold=0.05):
    rows = _shares(logits, before, after, threshold)
    rows["exact"] = ((logits.softmax(1) >= threshold) <= after).all(1)
    return _means(rows)


@legal_shares.mistake("all-legal-moves-only", "For 'exact' you asked only that every legal token is proposed. A model that proposes everything would pass: all of them and no other.")
def _(logits, before, after, threshold=0.05):
    rows = _shares(logits, before, after, threshold)
    rows["exact"] = ((logits.softmax(1) >= threshold) >= after).all(1)
    return _means(rows)


@legal_shares.mistake("entries-instead-of-rows", "For 'exact' you averaged over single tokens. One wrong token makes the whole row wrong.")
def _(logits, before, after, threshold=0.05):
    rows = _shares(logits, before, after, threshold)
    rows["exact"] = (logits.softmax(1) >= threshold) == after
    return _means(rows)


@legal_shares.mistake("threshold-on-logits", "You compared logits with the threshold. It is a probability.")
def _(logits, before, after, threshold=0.05):
    rows = _shares(logits, before, after, threshold)
    rows["exact"] = ((logits >= threshold) == after).all(1)
    return _means(rows)


@legal_shares.mistake("counts", "You returned how many rows, not which share of them.")
def _(logits, before, after, threshold=0.05):
    return {name: float(row.sum()) for name, row in _shares(logits, before, after, threshold).items()}


@legal_shares.mistake("share-of-the-successes", "You divided 'both' by the number of successful edits instead of by all runs. That is a fine number too, but not the one that was asked for.")
def _(logits, before, after, threshold=0.05):
    found = _means(_shares(logits, before, after, threshold))
    return found | {"both": found["both"] / found["after"], "only after": found["only after"] / found["after"]}


@legal_shares.variant
def _(logits, before, after, threshold=0.05):
    """A loop over rows."""
    total = {"after": 0, "both": 0, "only after": 0, "exact": 0}
    for row, was, now in zip(logits, before, after):
        best = int(row.argmax())
        total["after"] += bool(now[best])
        total["both"] += bool(now[best] and was[best])
        total["only after"] += bool(now[best] and not was[best])
        total["exact"] += set((row.softmax(0) >= threshold).nonzero()[:, 0].tolist()) == set(now.nonzero()[:, 0].tolist())
    return {name: count / len(logits) for name, count in total.items()}


@legal_shares.variant
def _(logits, before, after, threshold=0.05):
    """One-hot first choices."""
    first = torch.nn.functional.one_hot(logits.argmax(1), logits.shape[1]).bool()
    wrong = ((logits.softmax(1) >= threshold) != after).sum(1)
    return {
        "after": (first & after).any(1).double().mean().item(),
        "both": (first & after & before).any(1).double().mean().item(),
        "only after": (first & after & ~before).any(1).double().mean().item(),
        "exact": (wrong == 0).double().mean().item(),
    }


@legal_shares.variant
def _(logits, before, after, threshold=0.05):
    """NumPy, and the shares as differences of each other."""
    z, was, now = logits.double().numpy(), before.numpy(), after.numpy()
    rows, first = np.arange(len(z)), z.argmax(1)
    probability = np.exp(z - z.max(1, keepdims=True))
    probability /= probability.sum(1, keepdims=True)
    all_after, both = float(now[rows, first].mean()), float((now & was)[rows, first].mean())
    return {"after": all_after, "both": both, "only after": all_after - both, "exact": float(((probability >= threshold) == now).all(1).mean())}


# --- inlp_directions ---------------------------------------------------------------------------------------


def _labelled(rng: torch.Generator, n: int, width: int, *, shift: float = 1.5, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    """Two overlapping clouds of different size, stretched and turned, away from the origin."""
    labels = (torch.arange(n) % 3 == 0).long()[torch.randperm(n, generator=rng)]
    turn = torch.linalg.qr(normal(rng, width, width))[0]
    stretch = torch.linspace(0.4, 2.5, width, dtype=torch.float64)
    acts = normal(rng, n, width) * stretch + shift * labels[:, None] * normal(rng, width) + 2
    return (acts @ turn + normal(rng, width)).to(dtype), labels


def _inlp_cases(rng: torch.Generator) -> Iterator[Case]:
    yield Case("40 rows, 6 dimensions, 3 rounds", *_labelled(rng, 40, 6), 3)
    yield Case("23 rows, 5 dimensions, 2 rounds, ridge 0.4, float32", *_labelled(rng, 23, 5, dtype=torch.float32), 2, ridge=0.4)
    yield Case("9 rows in 14 dimensions, 4 rounds", *_labelled(rng, 9, 14), 4)
    yield Case("30 rows, 4 dimensions, 1 round", *_labelled(rng, 30, 4), 1)
    yield Case("as many rounds as can be", torch.randn(12, 3, generator=rng, dtype=torch.float64), torch.arange(12) % 2, 2).of("extreme")
    x, y = torch.randn(60, 7, generator=rng, dtype=torch.float64), torch.arange(60) % 2
    x = x * torch.linspace(0.5, 2.0, 7, dtype=torch.float64) + y[:, None] * torch.linspace(1.0, -1.0, 7, dtype=torch.float64)
    yield Case("7 dimensions, 5 rounds", x, y, 5, ridge=3.0)
    # What is left for the last round has little to do with the label unless the rows are chosen for it.
    corners = torch.tensor([[2.0, 0.0, 1.0, 0.0], [0.0, 3.0, 0.0, 1.0], [1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 2.0, 5.0], [4.0, 0.0, 0.0, 1.0], [0.0, 1.0, 3.0, 0.0]])
    yield Case("4 dimensions, 3 rounds", corners.double(), torch.tensor([1, 0, 1, 0, 0, 1]), 3).of("extreme")
    stretched = x * torch.tensor([1.0, 0.01, 1.0, 1.0, 1.0, 1.0, 1.0], dtype=torch.float64)
    yield Case("a small ridge", stretched, y, 1, ridge=1e-5)
    yield Case("a large ridge", x, y, 2, ridge=50.0)


inlp_directions = Exercise(
    "inlp_directions",
    ends={"n_rounds": lambda a: (1, a["acts"].shape[1] - 1)},
    without={**NOT_TRAINED, **NO_THRESHOLD, **ALL_COUNTS},
    difficulty=4,
    importance=4,
    minutes=25,
    learn="Why removing the direction of a probe does not remove what the probe read, and how often one has to try again.",
    cases=_inlp_cases,
    hints=(
        "A loop: fit on what is left, keep the direction, take its component out, again. What has to be computed anew in each round, and what never changes?",
        "Print the shapes of `left.T @ left` and `left.T @ target`. Which of the two tells how features vary together, and which how they vary with the label?",
        "After one round print `(left @ w).abs().max()`: taking a component out needs a w of length 1, and leaves 0. In the second round S and c must come from `left`, or the same w comes back.",
    ),
    verified="several rounds, more dimensions than rows, the ridge in units of what is left, directions of length 1 in their order.",
    next="put them into the model: after how many rounds does a fresh probe find nothing?",
)


def _inlp(acts, labels, n_rounds, ridge=0.1, *, project=True, scale=True, fixed_scale=False, centre=True, unit=True):
    left = acts - acts.mean(0) if centre else acts
    target = labels.to(acts.dtype) - labels.to(acts.dtype).mean()
    first = (left.T @ left / len(left)).diagonal().mean()
    found = []
    for _ in range(n_rounds):
        spread = left.T @ left / len(left)
        size = first if fixed_scale else spread.diagonal().mean() if scale else 1
        w = torch.linalg.solve(spread + ridge * size * torch.eye(acts.shape[1], dtype=acts.dtype), left.T @ target / len(left))
        found.append(w / w.norm() if unit else w)
        if project:
            left = left - torch.outer(left @ w, w) / (w @ w)
    return torch.stack(found)


wrong_ways(inlp_directions, _inlp, {
    "nothing-removed": ({"project": False},
        "All your directions are the same: nothing was taken out between the rounds, so that each round finds what the first one found."),
    "absolute-ridge": ({"scale": False},
        "You used the ridge as an absolute number. It is a share of the mean variance, so that it means the same at a layer with large activations."),
    "scale-from-the-first-round": ({"fixed_scale": True},
        "The ridge is in units of the variance of what is *left*; you kept the first round's. It starts to differ in the second direction."),
    "not-centred": ({"centre": False},
        "You did not centre the activations. Their mean is far from 0, and your S then describes where the cloud is rather than how it varies."),
    "length-forgotten": ({"unit": False}, "Your directions point the right way but do not have length 1."),
})


@inlp_directions.mistake("projection-without-length", "You took out `(x . w) w` with a w that does not have length 1. That removes too much or too little: scale first, then project.")
def _(acts, labels, n_rounds, ridge=0.1):
    left = acts - acts.mean(0)
    target = labels.to(acts.dtype) - labels.to(acts.dtype).mean()
    found = []
    for _ in range(n_rounds):
        spread = left.T @ left / len(left)
        w = torch.linalg.solve(spread + ridge * spread.diagonal().mean() * torch.eye(acts.shape[1], dtype=acts.dtype), left.T @ target / len(left))
        found.append(w / w.norm())
        left = left - torch.outer(left @ w, w)
    return torch.stack(found)


@inlp_directions.mistake("covariance-with-the-label-only", "Your first direction is the difference of the class means: S was left out. After it is removed the means coincide, and all further directions are rounding errors.")
def _(acts, labels, n_rounds, ridge=0.1):
    left, found = acts - acts.mean(0), []
    for _ in range(n_rounds):
        w = left[labels == 1].mean(0) - left[labels == 0].mean(0)
        found.append(w / w.norm())
        left = left - torch.outer(left @ found[-1], found[-1])
    return torch.stack(found)


@inlp_directions.mistake("transposed", "Your result has one direction per column. One per row was asked for: [n_rounds, d_model].")
def _(acts, labels, n_rounds, ridge=0.1):
    return _inlp(acts, labels, n_rounds, ridge).T


@inlp_directions.variant
def _(acts, labels, n_rounds, ridge=0.1):
    """A projection matrix that grows; labels as they are, since the activations are centred."""
    centred = acts - acts.mean(0, keepdim=True)
    eye = torch.eye(acts.shape[1], dtype=acts.dtype)
    keep, rows = eye.clone(), []
    for _ in range(n_rounds):
        left = centred @ keep
        spread = torch.einsum("ni,nj->ij", left, left) / len(left)
        cross = (left * labels.to(acts.dtype)[:, None]).mean(0)
        w = torch.linalg.inv(spread + ridge * spread.trace() / len(eye) * eye) @ cross
        rows.append(torch.nn.functional.normalize(w, dim=0))
        keep = keep - torch.outer(rows[-1], rows[-1])
    return torch.stack(rows)


@inlp_directions.variant
def _(acts, labels, n_rounds, ridge=0.1):
    """NumPy, with the sums in place of the means."""
    left, wanted, rows = acts.double().numpy(), labels.numpy() - labels.double().mean().item(), []
    left = left - left.mean(0)
    for _ in range(n_rounds):
        penalty = ridge * np.square(left).sum() / left.shape[1] * np.eye(left.shape[1])
        w = np.linalg.solve(left.T @ left + penalty, left.T @ wanted)
        rows.append(w / np.linalg.norm(w))
        left = left - np.outer(left @ rows[-1], rows[-1])
    return torch.from_numpy(np.stack(rows)).to(acts.dtype)


@inlp_directions.variant
def _(acts, labels, n_rounds, ridge=0.1):
    """Least squares on rows with the ridge appended; the result is a view with the rows as columns."""
    left, target = acts - acts.mean(0), labels.to(acts.dtype) - labels.to(acts.dtype).mean()
    n, width = acts.shape
    out = acts.new_empty(width, n_rounds)
    for i in range(n_rounds):
        size = left.square().sum() / width
        rows = torch.cat([left, (ridge * size).sqrt() * torch.eye(width, dtype=acts.dtype)])
        w = torch.linalg.lstsq(rows, torch.cat([target, target.new_zeros(width)])[:, None]).solution[:, 0]
        out[:, i] = w / w.norm()
        left = left - torch.outer(left @ out[:, i], out[:, i])
    return out.T


# --- leace_eraser ------------------------------------------------------------------------------------------


def _leace_cases(rng: torch.Generator) -> Iterator[Case]:
    yield Case("40 rows, 5 dimensions", *_labelled(rng, 40, 5))
    acts, labels = _labelled(rng, 25, 4)
    yield Case("25 rows, 6 dimensions, two of which repeat others", torch.cat([acts, acts[:, :2] * 2], 1), labels)
    yield Case("7 rows in 12 dimensions", *_labelled(rng, 7, 12))
    turn = torch.linalg.qr(normal(rng, 3, 3))[0].round()
    corners = torch.tensor([[1.0, 2.0, 0.0], [-1.0, -2.0, 0.0], [3.0, 0.0, 1.0], [-3.0, 0.0, -1.0]], dtype=torch.float64)
    yield Case("4 rows whose classes have the same mean already", corners + turn[0], torch.tensor([0, 0, 1, 1]))
    g = torch.Generator().manual_seed(3)
    x = torch.randn(12, 3, generator=g, dtype=torch.float64) * torch.tensor([1.0, 0.3, 0.02], dtype=torch.float64) * 0.01
    y = torch.tensor([0, 1] * 6)
    x[:, 2] += y * 0.0004
    yield Case('small units', x, y)
    yield Case("all labels are 1", torch.randn(5, 3, generator=rng, dtype=torch.float64), torch.ones(5, dtype=torch.long)).of("errors")
    yield Case("all labels are 0", torch.randn(4, 2, generator=rng, dtype=torch.float64), torch.zeros(4, dtype=torch.long)).of("errors")
    wide = torch.randn(30, 3, generator=rng, dtype=torch.float64) * torch.tensor([1.0, 1.0, 0.2], dtype=torch.float64)
    yield Case("a coarse rtol takes a narrow direction for none", wide, torch.arange(30) % 2, 0.2).of("boundary")
    yield Case("one feature", torch.randn(8, 1, generator=rng, dtype=torch.float64), torch.arange(8) % 2).of("extreme")
    yield Case("one row", torch.tensor([[1.0, -2.0, 0.5]], dtype=torch.float64), torch.tensor([0])).of("errors")
    yield Case("two rows in three dimensions, both labels 1", torch.tensor([[1.0, 2.0, 0.5], [2.0, 0.0, 1.0]], dtype=torch.float64), torch.tensor([1, 1])).of("errors")
    yield Case("equal rows with equal labels", torch.ones(4, 2, dtype=torch.float64), torch.zeros(4, dtype=torch.long)).of("errors")
    few = torch.randn(6, 3, generator=rng, dtype=torch.float64)
    yield Case("two rows, one of each label", few[:2], torch.tensor([1, 0])).of("extreme")
    yield Case("one row of label 1", few, torch.tensor([0, 0, 0, 1, 0, 0])).of("extreme")
    yield Case("a very small unit", wide * 1e-9, torch.arange(30) % 2).of("extreme")
    across = torch.linalg.qr(wide - wide.mean(0))[0]
    yield Case("a narrow direction that the default rtol keeps", across * torch.tensor([1.0, 1.0, 3e-4], dtype=torch.float64), torch.arange(30) % 3 // 2).of("boundary")
    yield Case("a direction within rtol of the largest, but not of all together", across * torch.tensor([1.0, 1.0, 0.55], dtype=torch.float64), torch.arange(30) % 3 // 2, 0.2).of("boundary")


leace_eraser = Exercise(
    "leace_eraser",
    without={**NOT_TRAINED, **ALL_COUNTS},
    difficulty=4,
    importance=4,
    minutes=30,
    learn="How to remove all that a linear probe can find in one step, and why the direction that is taken out is not the direction that is read.",
    cases=_leace_cases,
    hints=(
        "Two vectors do everything: c, along which points are moved, and S+ c, with which it is measured how far. Why can they not be the same one?",
        "Print the shapes of c, S and S+ c. The matrix is the identity minus an outer product: which of the two vectors stands on the left?",
        "`torch.linalg.pinv` takes `rtol`, and `hermitian=True` suits an S that is symmetric. The docstring moves a point by c, measured from the mean: multiply out, and what does not contain x is the vector. Two tests: the mean stays where it is, and the erased rows have covariance 0 with the label.",
    ),
    verified="full rank, repeated features, fewer rows than dimensions, nothing to erase.",
    next="fit a new probe on erased activations. Then ask the model.",
)


def _leace(acts, labels, rtol=1e-08, *, inverse=None, centre=True, shape="leace", bias="mean"):
    mean = acts.mean(0)
    centred = acts - mean if centre else acts
    target = labels.to(acts.dtype) - labels.to(acts.dtype).mean()
    eye = torch.eye(acts.shape[1], dtype=acts.dtype)
    cross = (acts - mean).T @ target / len(acts)
    if not cross.any():
        return eye, torch.zeros_like(mean)
    spread = centred.T @ centred / len(acts)
    readout = (inverse(spread) if inverse else torch.linalg.pinv(spread, rtol=rtol, hermitian=True)) @ cross
    along, measured = {"leace": (cross, readout), "transposed": (readout, cross), "mean": (cross, cross), "whitened": (readout, readout)}[shape]
    matrix = eye - torch.outer(along, measured) / (along @ measured)
    return matrix, {"mean": mean - matrix @ mean, "none": torch.zeros_like(mean), "centred": -matrix @ mean, "kept": mean}[bias]


wrong_ways(leace_eraser, _leace, {
    "projected-along-the-means": ({"shape": "mean"},
        "You projected out the difference of the means, at right angles. It erases too, but it moves the points further than necessary: the covariance S is not in your matrix."),
    "projected-along-the-probe": ({"shape": "whitened"},
        "You projected out the best probe's direction S+ c. A new probe would still find the label in what is left: the points have to move along c."),
    "outer-product-reversed": ({"shape": "transposed"},
        "The two vectors of the outer product are in the wrong order: your matrix is the transpose. It measures with c and moves along S+ c."),
    "mean-not-kept": ({"bias": "none"},
        "Your map takes out a component about the origin, not about the mean: the vector is missing. The whole cloud moves, and the model sees something that it never saw."),
    "mean-lost": ({"bias": "centred"}, "Your erased activations are centred at 0. The mean has to come back: it should stay where it is."),
    "mean-added-twice": ({"bias": "kept"},
        "You add the whole mean although the matrix keeps most of it already. Which vector makes the mean a fixed point?"),
    "not-centred": ({"centre": False},
        "Your S is the second moment about 0, not the covariance. It erases, but it is not the smallest edit: subtract the mean first."),
    "ridge-instead-of-pseudo-inverse": ({"inverse": lambda s: torch.linalg.inv(s + 0.01 * s.diagonal().mean() * torch.eye(len(s), dtype=s.dtype))},
        "You made S invertible with a ridge. It erases, but it is not the smallest edit any more: use the pseudo-inverse, which leaves directions without variance alone."),
})


@leace_eraser.mistake("nothing-to-erase-divides-by-zero", "Right, except where the class means coincide already: 0 / 0. There is nothing to erase there, and the map is the identity.")
def _(acts, labels, rtol=1e-8):
    mean = acts.mean(0)
    target = labels.to(acts.dtype) - labels.to(acts.dtype).mean()
    cross = (acts - mean).T @ target / len(acts)
    readout = torch.linalg.pinv((acts - mean).T @ (acts - mean) / len(acts), rtol=rtol, hermitian=True) @ cross
    matrix = torch.eye(len(mean), dtype=acts.dtype) - torch.outer(cross, readout) / (cross @ readout)
    return matrix, mean - matrix @ mean


@leace_eraser.variant
def _(acts, labels, rtol=1e-8):
    """As in the paper: whiten, project, un-whiten, by an eigendecomposition."""
    if labels.unique().numel() == 1:
        raise ValueError("one class only")
    mean, eye = acts.mean(0), torch.eye(acts.shape[1], dtype=acts.dtype)
    values, vectors = torch.linalg.eigh(torch.atleast_2d(torch.cov(acts.T)))
    kept = values > rtol * values.max()
    values, vectors = values[kept], vectors[:, kept]
    whiten = (vectors / values.sqrt()) @ vectors.T
    cross = acts[labels == 1].mean(0) - acts[labels == 0].mean(0)
    u = whiten @ cross
    if u.norm() < 1e-12:
        return eye, torch.zeros_like(mean)
    matrix = eye - torch.outer(cross, whiten @ u) / (u @ u)
    return matrix, mean - matrix @ mean


@leace_eraser.variant
def _(acts, labels, rtol=1e-8):
    """Least squares instead of a pseudo-inverse; the difference of the means instead of c, which is a multiple of it."""
    if labels.unique().numel() == 1:
        raise ValueError("one class only")
    mean = acts.mean(0)
    centred = acts - mean
    step = acts[labels == 1].mean(0) - acts[labels == 0].mean(0)
    eye = torch.eye(len(mean), dtype=acts.dtype)
    if step.abs().max() < 1e-12:
        return eye, torch.zeros_like(mean)
    readout = torch.linalg.lstsq(centred.T @ centred, step[:, None], rcond=rtol, driver="gelsd").solution[:, 0]
    matrix = eye - step[:, None] * readout / (step * readout).sum()
    return matrix, (eye - matrix) @ mean


@leace_eraser.variant
def _(acts, labels, rtol=1e-8):
    """The minimum-norm regression of the labels, from the singular values; the matrix stored transposed."""
    if labels.unique().numel() == 1:
        raise ValueError("one class only")
    mean = acts.mean(0)
    left, size, right = torch.linalg.svd(acts - mean, full_matrices=False)
    kept = size.square() > rtol * size.square().max()
    target = labels.to(acts.dtype) - labels.to(acts.dtype).mean()
    cross = (acts - mean).T @ target
    if not cross.any():
        return torch.eye(len(mean), dtype=acts.dtype), torch.zeros_like(mean)
    readout = right[kept].T @ (left[:, kept].T @ target / size[kept])
    matrix = (torch.eye(len(mean), dtype=acts.dtype) - torch.outer(readout, cross) / (cross @ readout)).T
    return matrix, mean - matrix @ mean
