"""A rule for every latent, found by counting on the contexts for reading, the simplest first.

A rule is worth the share of the latent's firings that it finds, minus the share of the silent places that it calls, the mean over
both kinds of silence (see `scoring`): twice its mean balanced accuracy, minus 1. Nothing here prizes precision: a latent that fires
at 1 place in 1,000 may be silent at most places that a good rule calls. Every alternative that it names costs `PRICE`, so a longer rule has to earn its length. Words at one
place exclude each other, so the worth of a set of them is a sum, and one sparse product counts for all latents at once.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse
import torch
from jaxtyping import Float, Int
from tqdm.auto import tqdm

from utils.reading.labels.language import CLASSES, GAP, REACH, Clause, Lexicon, Rule, parse, quoted, run
from utils.reading.labels.places import Places
from utils.reading.labels.scoring import BLOCK, near_silence

PRICE = 0.01
"""What an alternative must add to a rule's worth: one firing in a hundred."""
MOST, LEAST_SEEN = 8, 3
"""Words in a set, and how often a latent must have fired on each."""
FEW_FIRINGS = 20
"""A latent with fewer firings is left without a label."""
_FIRST = (4, 8, 16)


@dataclass(frozen=True)
class Kind:
    """One kind of clause: what each place shows of it, and how a set of that is written.

    Attributes:
        shows: a sparse matrix [n_places, n_shown] with 1 where a place shows a thing.
        names: how each of them stands in a rule.
        form: the clause, with "{}" where the set of them stands.
        sets: several may be joined, since a place shows one of them at most.
    """

    shows: scipy.sparse.csr_array
    names: list[str]
    form: str
    sets: bool = True

    def rule(self, chosen: list[int]) -> str:
        return self.form.format("|".join(self.names[i] for i in chosen))


@dataclass(frozen=True)
class Silence:
    """What a wrong call costs each latent: anywhere, and more where a neighbour of it fires.

    Attributes:
        counts: how often each latent fires.
        near: for each latent, the places where a neighbour fires and it does not; without an entry where it has no neighbours.
        n_silent, n_near: how many silent places there are of the two kinds; at least 1.
    """

    counts: Int[np.ndarray, " d"]
    near: scipy.sparse.csr_array
    n_silent: Int[np.ndarray, " d"]
    n_near: Int[np.ndarray, " d"]

    def worth(self, latent: int, found: Int[np.ndarray, " n"], silent: Int[np.ndarray, " n"], near: Int[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
        """The worth of things that are shown at so many of its firings, silent places, and near ones among these."""
        return found / self.counts[latent] - (silent / self.n_silent[latent] + near / self.n_near[latent]) / 2


def silence_of(reading: Places, neighbours: Int[np.ndarray, "d_sae n"]) -> Silence:
    """The silence of every latent; -1 in `neighbours` is none."""
    near = near_silence(reading, neighbours, slice(0, reading.d_sae))
    near.sort_indices()
    return Silence(np.maximum(reading.counts, 1), near, np.maximum(reading.n_usual - reading.counts, 1), np.maximum(np.diff(near.indptr), 1))


def find_rules(reading: Places, lexicon: Lexicon, neighbours: Int[np.ndarray, "d_sae n"], *, latents: Sequence[int] | None = None, progress: bool = True) -> dict[int, Rule]:
    """The best rule of every latent that fires often enough on these contexts.

    Args:
        neighbours: as `places.neighbours_of` gives them; -1 for none.
        latents: those to be labelled; None takes all.
    """
    kinds, silence = list(_kinds(reading, lexicon)), silence_of(reading, neighbours)
    enough = (reading.counts >= FEW_FIRINGS).nonzero()[0] if latents is None else np.array([each for each in latents if reading.counts[each] >= FEW_FIRINGS], int)
    first = _best(reading.fires, enough, silence, kinds)
    second = _best(_uncovered(reading, first, lexicon), enough, silence, kinds)
    rules, inside = {}, _Inside(reading, silence, lexicon)
    for latent in tqdm(enough.tolist(), desc="rules", delay=3, disable=not progress):
        options = [option for option in (first[latent], inside.narrowed(latent, first[latent])) if option]
        if not options:
            continue
        worth, text = max(options)
        if second[latent] and second[latent][0] > PRICE:
            text = f"{text} or {second[latent][1]}"
        rules[latent] = parse(text)
    return rules


def _best(fires: scipy.sparse.csr_array, latents: Int[np.ndarray, " n"], silence: Silence, kinds: list[Kind]) -> list[tuple[float, str] | None]:
    """(worth less its price, rule) of the best clause of these latents on these firings; None for the others, and where none is worth its price."""
    best: list[tuple[float, str] | None] = [None] * fires.shape[0]
    for kind in kinds:
        totals = np.asarray(kind.shows.sum(0)).ravel()
        for start in range(0, len(latents), BLOCK):
            part = latents[start : start + BLOCK]
            found, near = (_sorted(where[part] @ kind.shows) for where in (fires, silence.near))
            for row, latent in enumerate(part):
                shown, times = _row(found, row)
                often = times >= LEAST_SEEN
                shown, times = shown[often], times[often]
                beside = _looked_up(*_row(near, row), shown)
                option = _joined(silence.worth(latent, times, totals[shown] - times, beside), shown, kind)
                if option and (best[latent] is None or option[0] > best[latent][0]):
                    best[latent] = option
    return best


def _sorted(matrix: scipy.sparse.csr_array) -> scipy.sparse.csr_array:
    matrix = scipy.sparse.csr_array(matrix)
    matrix.sort_indices()
    return matrix


def _row(matrix: scipy.sparse.csr_array, row: int) -> tuple[np.ndarray, np.ndarray]:
    """(columns, values) of the entries of one row."""
    part = slice(matrix.indptr[row], matrix.indptr[row + 1])
    return matrix.indices[part], matrix.data[part]


def _looked_up(columns: np.ndarray, values: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """The values in the wanted columns, 0 where there is no entry; `columns` is sorted."""
    if not len(columns):
        return np.zeros(len(wanted), int)
    at = np.searchsorted(columns, wanted).clip(max=len(columns) - 1)
    return np.where(columns[at] == wanted, values[at], 0)


def _joined(worth: Float[np.ndarray, " n"], shown: Int[np.ndarray, " n"], kind: Kind) -> tuple[float, str] | None:
    """The best things of a kind, joined while each pays its price."""
    order = np.argsort(-worth, kind="stable")[: MOST if kind.sets else 1]
    chosen = order[worth[order] > PRICE]
    if not len(chosen):
        return None
    return float(worth[chosen].sum() - PRICE * len(chosen)), kind.rule(shown[chosen].tolist())


def _uncovered(reading: Places, rules: list[tuple[float, str] | None], lexicon: Lexicon) -> scipy.sparse.csr_array:
    """The firings that no latent's rule has found."""
    data = reading.fires.data.copy()
    for latent, option in enumerate(rules):
        if option:
            part = slice(reading.fires.indptr[latent], reading.fires.indptr[latent + 1])
            data[part] = ~run(option[1], reading.tokens, lexicon).flatten().numpy()[reading.fires.indices[part]]
    left = scipy.sparse.csr_array((data, reading.fires.indices, reading.fires.indptr), shape=reading.fires.shape, copy=True)
    left.eliminate_zeros()        # in place: hence the copy
    return left


class _Inside:
    """Narrows a clause about one place by the words at the other, the token or the one before it: for each latent, where the clause holds."""

    def __init__(self, reading: Places, silence: Silence, lexicon: Lexicon) -> None:
        self.reading, self.silence, self.lexicon = reading, silence, lexicon
        word = lexicon.words.of_token[reading.tokens]
        before = torch.full_like(word, -1)
        before[:, 1:] = word[:, :-1]
        self.usual, self.word, self.before = (column.flatten().numpy() for column in (reading.usual, word, before))

    def narrowed(self, latent: int, option: tuple[float, str] | None) -> tuple[float, str] | None:
        """The same clause with certain words only at the other place, if it is called often where the latent is silent."""
        if option is None or not re.fullmatch(r"(\[\[\S+\]\])|(\S+ \[\[\.\]\])", option[1]):
            return None
        about_here = option[1].startswith("[[")
        at = (run(option[1], self.reading.tokens, self.lexicon).flatten().numpy() & self.usual).nonzero()[0]
        fires, near = (np.isin(at, _row(where, latent)[0]) for where in (self.reading.fires, self.silence.near))
        if fires.mean() > 0.5:
            return None
        words, number = np.unique((self.before if about_here else self.word)[at], return_inverse=True)
        times, others, beside = (np.bincount(number[kind], minlength=len(words)) for kind in (fires, ~fires, near))
        worth = np.where(times >= LEAST_SEEN, self.silence.worth(latent, times, others, beside), -1)
        order = np.argsort(-worth, kind="stable")[:MOST]
        chosen = order[(worth[order] > PRICE) & (words[order] >= 0)]
        if not len(chosen):
            return None
        names = "|".join(quoted(self.lexicon.words.spelled[i]) for i in words[chosen])
        text = f"{names} {option[1]}" if about_here else option[1].replace("[[.]]", f"[[{names}]]")
        return float(worth[chosen].sum() - PRICE * parse(text).size), text


def _kinds(reading: Places, lexicon: Lexicon) -> Iterator[Kind]:
    """What can be seen at a place: its word, how that begins and ends, its class, the words before it, where it stands."""
    n, pos = reading.tokens.shape
    usual = reading.usual.flatten().numpy()
    word = lexicon.words.of_token[reading.tokens].numpy()
    spelled = lexicon.words.spelled

    def shown(columns: Int[np.ndarray, "n pos"], n_columns: int) -> scipy.sparse.csr_array:
        at = (usual & (columns.ravel() >= 0)).nonzero()[0]
        return scipy.sparse.csr_array((np.ones(len(at), np.int32), (at, columns.ravel()[at])), shape=(n * pos, n_columns))

    def moved(by: int) -> Int[np.ndarray, "n pos"]:
        columns = np.full_like(word, -1)
        columns[:, by + 1 :] = word[:, 1 : pos - by]      # the start token is no word
        return columns

    names = [quoted(each) for each in spelled]
    yield Kind(shown(word, len(names)), names, "[[{}]]")
    for cut, form in ((slice(0, 4), "{}*"), (slice(0, 3), "{}*"), (slice(-3, None), "*{}"), (slice(-4, None), "*{}")):
        length = abs(cut.start or cut.stop)
        ends = [each[cut] if len(each) > length and each.isalpha() else "" for each in spelled]
        number = {end: i for i, end in enumerate(dict.fromkeys(filter(None, ends)))}
        of_word = np.array([number.get(end, -1) for end in ends])
        yield Kind(shown(of_word[word], len(number)), [form.format(quoted(end)) for end in number], "[[{}]]")
    for name in CLASSES:
        inside = lexicon.of_class(name)[reading.tokens].numpy()
        yield Kind(shown(np.where(inside, 0, -1), 1), [f"<{name}>"], "[[{}]]", sets=False)
    for by in (1, 2):
        yield Kind(shown(moved(by), len(names)), names, "{}" + " ." * (by - 1) + " [[.]]")
    window = sum((shown(moved(by), len(names)) for by in range(1, REACH + 1)), start=scipy.sparse.csr_array((n * pos, len(names)), dtype=np.int32))
    window.data[:] = 1
    yield Kind(window, names, f"{{}} {GAP} [[.]]", sets=False)
    at = np.broadcast_to(np.arange(pos), (n, pos))
    for first in _FIRST:
        yield Kind(shown(np.where(at <= first, 0, -1), 1), ["."], f"[[{{}}]] @{first}", sets=False)
