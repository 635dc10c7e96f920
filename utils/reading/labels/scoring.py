"""How well labels tell where latents fire, and what the same procedure gives where there is nothing to tell.

Balanced accuracy: the mean of the share of the firings that a label finds and the share of the silent places that it leaves
alone; chance is .5. Silent places are of two kinds: all of them (*random*), or those where one of the latent's neighbours
fires (*near*). A rule is run on every place, so its score is exact for these contexts.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import scipy.sparse
from jaxtyping import Bool, Float, Int

from utils.reading.labels.language import Lexicon, Rule, run
from utils.reading.labels.places import Places

RANDOM, NEAR = "random", "near"
FEW = 20
"""A latent with fewer firings, or fewer silent places of a kind, has no score."""


@dataclass(frozen=True)
class Scores:
    """Of every latent; nan where there are too few places, or no rule.

    Attributes:
        found: the share of its firings that its label finds.
        spared: for each kind of silent place, the share that its label leaves alone.
        precision: the share of the label's calls in running text at which the latent fires.
    """

    found: Float[np.ndarray, " d_sae"]
    spared: dict[str, Float[np.ndarray, " d_sae"]]
    precision: Float[np.ndarray, " d_sae"]

    def balanced(self, negatives: str = NEAR) -> Float[np.ndarray, " d_sae"]:
        """Balanced accuracy against one kind of silent places."""
        return (self.found + self.spared[negatives]) / 2


def calls_of(rules: dict[int, Rule], where: Places, lexicon: Lexicon) -> scipy.sparse.csr_array:
    """[d_sae, n_places], 1 where a latent's rule says that it fires. Places that do not count are left out."""
    usual, rows = where.usual.flatten(), []
    for latent in range(where.d_sae):
        called = run(rules[latent], where.tokens, lexicon).flatten() & usual if latent in rules else usual[:0]
        rows.append(called.nonzero()[:, 0].numpy())
    ends = np.concatenate([[0], np.cumsum([len(row) for row in rows])])
    return scipy.sparse.csr_array((np.ones(ends[-1], np.int32), np.concatenate(rows), ends), shape=where.fires.shape)


BLOCK = 512


def scored(calls: scipy.sparse.csr_array, where: Places, neighbours: Int[np.ndarray, "d_sae n"], *, block: int = BLOCK) -> Scores:
    """The scores of every latent's calls, exact for these places.

    Args:
        calls: of `calls_of`; its rows shuffled for a floor.
        neighbours: of `neighbours_of`; -1 for none.
    """
    has_rule = np.diff(calls.indptr) > 0
    hits = _common(calls, where.fires)
    n_fires, n_calls = where.counts, np.diff(calls.indptr)
    enough = has_rule & (n_fires >= FEW)
    found = _share(hits, n_fires, enough)
    spared = {RANDOM: 1 - _share(n_calls - hits, where.n_usual - n_fires, enough)}
    wrong, near = np.zeros(where.d_sae), np.zeros(where.d_sae)
    for start in range(0, where.d_sae, block):
        part = slice(start, start + block)
        if not has_rule[part].any():
            continue
        silent = near_silence(where, neighbours, part)
        near[part], wrong[part] = np.diff(silent.indptr), _common(calls[part], silent)
    spared[NEAR] = 1 - _share(wrong, near, enough & (near >= FEW))
    return Scores(found, spared, _share(hits, n_calls, enough))


def near_silence(where: Places, neighbours: Int[np.ndarray, "d_sae n"], part: slice) -> scipy.sparse.csr_array:
    """Where a neighbour fires and the latent does not, for some latents: the silent places that are hard to tell."""
    block = neighbours[part]
    row, column = (block >= 0).nonzero()
    links = scipy.sparse.csr_array((np.ones(len(row), np.int32), (row, block[row, column])), shape=(len(block), where.d_sae))
    around = scipy.sparse.csr_array(links @ where.fires)
    around.data[:] = 1
    silent = around - around.multiply(where.fires[part])
    silent = scipy.sparse.csr_array(silent)
    silent.eliminate_zeros()
    return silent


def shuffled(calls: scipy.sparse.csr_array, seed: int = 0) -> tuple[scipy.sparse.csr_array, Int[np.ndarray, " d_sae"]]:
    """(the calls, each handed to another latent that has a label; whose label each latent has got): the floor of every score."""
    given = np.arange(calls.shape[0])
    for latent, other in strangers((np.diff(calls.indptr) > 0).nonzero()[0], seed).items():
        given[latent] = other
    return calls[given], given


def strangers(labelled: Iterable[int], seed: int = 0) -> dict[int, int]:
    """Whose label each latent gets: one round through all of them in random order, so that nobody keeps their own."""
    order = np.random.default_rng(seed).permutation(list(labelled))
    return dict(zip(order.tolist(), np.roll(order, 1).tolist()))


def _common(a: scipy.sparse.csr_array, b: scipy.sparse.csr_array) -> Int[np.ndarray, " rows"]:
    """In each row, the places that both hold."""
    return np.asarray(a.multiply(b).sum(1)).ravel().astype(int)


def _share(count: np.ndarray, n: np.ndarray, enough: Bool[np.ndarray, " d_sae"]) -> Float[np.ndarray, " d_sae"]:
    return np.where(enough & (n > 0), count / np.maximum(n, 1), np.nan)
