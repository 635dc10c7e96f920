"""A rule for every latent, found by counting on the contexts for reading, the simplest first.

A rule is worth the share of the latent's firings that it finds, minus the share of the silent places that it calls: twice its
balanced accuracy, minus 1. Every alternative that it names costs `PRICE`, so a longer rule has to earn its length. Words at one
place exclude each other, so the worth of a set of them is a sum, and one sparse product counts for all latents at once.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import scipy.sparse
import torch
from jaxtyping import Float, Int
from tqdm.auto import tqdm

from utils.reading.labels.language import CLASSES, GAP, REACH, Clause, Lexicon, Rule, parse, quoted, run
from utils.reading.labels.places import Places

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


def find_rules(reading: Places, lexicon: Lexicon, *, progress: bool = True) -> dict[int, Rule]:
    """The best rule of every latent that fires often enough on these contexts."""
    kinds = list(_kinds(reading, lexicon))
    silent = np.maximum(reading.n_usual - reading.counts, 1)
    first = _best(reading.fires, reading.counts, silent, kinds)
    left = _uncovered(reading, first, lexicon)
    second = _best(left, reading.counts, silent, kinds)
    rules, inside = {}, _Inside(reading, lexicon)
    enough = (reading.counts >= FEW_FIRINGS).nonzero()[0].tolist()
    for latent in tqdm(enough, desc="rules", delay=3, disable=not progress):
        options = [option for option in (first[latent], inside.narrowed(latent, first[latent])) if option]
        if not options:
            continue
        worth, text = max(options)
        if second[latent] and second[latent][0] > PRICE:
            text = f"{text} or {second[latent][1]}"
        rules[latent] = parse(text)
    return rules


def _best(fires: scipy.sparse.csr_array, counts: Int[np.ndarray, " d"], silent: Int[np.ndarray, " d"], kinds: list[Kind]) -> list[tuple[float, str] | None]:
    """(worth less its price, rule) of the best clause of every latent; None where none is worth its price."""
    best: list[tuple[float, str] | None] = [None] * fires.shape[0]
    for kind in kinds:
        totals = np.asarray(kind.shows.sum(0)).ravel()
        found = scipy.sparse.csr_array(fires @ kind.shows)
        for latent in (counts >= FEW_FIRINGS).nonzero()[0]:
            part = slice(found.indptr[latent], found.indptr[latent + 1])
            shown, times = found.indices[part], found.data[part]
            often = times >= LEAST_SEEN
            if not often.any():
                continue
            shown, times = shown[often], times[often]
            worth = times / counts[latent] - (totals[shown] - times) / silent[latent]
            option = _joined(worth, shown, kind)
            if option and (best[latent] is None or option[0] > best[latent][0]):
                best[latent] = option
    return best


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

    def __init__(self, reading: Places, lexicon: Lexicon) -> None:
        self.reading, self.lexicon = reading, lexicon
        word = lexicon.words.of_token[reading.tokens]
        before = torch.full_like(word, -1)
        before[:, 1:] = word[:, :-1]
        self.usual, self.word, self.before = (column.flatten().numpy() for column in (reading.usual, word, before))

    def narrowed(self, latent: int, option: tuple[float, str] | None) -> tuple[float, str] | None:
        """The same clause with certain words only at the other place, if it is called often where the latent is silent."""
        if option is None or not re.fullmatch(r"(\[\[\S+\]\])|(\S+ \[\[\.\]\])", option[1]):
            return None
        n, about_here = int(self.reading.counts[latent]), option[1].startswith("[[")
        at = (run(option[1], self.reading.tokens, self.lexicon).flatten().numpy() & self.usual).nonzero()[0]
        fires = np.isin(at, self.reading.fires.indices[self.reading.fires.indptr[latent] : self.reading.fires.indptr[latent + 1]])
        if fires.mean() > 0.5:
            return None
        words, number = np.unique((self.before if about_here else self.word)[at], return_inverse=True)
        times, others = (np.bincount(number[kind], minlength=len(words)) for kind in (fires, ~fires))
        worth = np.where(times >= LEAST_SEEN, times / n - others / max(self.reading.n_usual - n, 1), -1)
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
