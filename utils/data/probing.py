"""The course's two-class tasks side by side, cut to a common size: what a dictionary is asked to help with in chapter 33."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from utils.data.agreement import NOUNS, agreement_sentences
from utils.data.controls import comparison_statements, part_of_speech_phrases, speech_snippets
from utils.data.places import city_places
from utils.data.requests import REQUESTS
from utils.data.steering import FRENCH, MOOD
from utils.data.truth import capital_statements, city_statements, element_statements


@dataclass(frozen=True)
class ProbingTask:
    """Texts of two classes, read at their last token.

    Attributes:
        texts: what the model reads.
        labels: 0 or 1 per row.
        groups: rows with the same number belong on the same side of a split.
    """

    texts: list[str]
    labels: Int[Tensor, " n"]
    groups: Int[Tensor, " n"]


def probing_tasks(most: int = 200) -> dict[str, ProbingTask]:
    """Fifteen tasks of earlier chapters by name, each with at most `most` rows, about half of them of each class.

    The texts are always the same ones; how they are split is the caller's affair.

    Raises: FetchError when the data cannot be fetched.
    """
    cities, negated = city_statements(), city_statements(negated=True)
    capitals, elements, larger = capital_statements(), element_statements(), comparison_statements()
    agreement, words = agreement_sentences(NOUNS[:50]), part_of_speech_phrases()
    speeches, places = speech_snippets(), city_places(per_country=8)
    language = torch.tensor([["Dutch", "English", "German", "Spanish"].index(name) for name in speeches.subject])
    phrases = [(f"{first} {pair[plural]}", int(first == "The"), i) for i, pair in enumerate(NOUNS[60:110]) for first in ("The", "My") for plural in (0, 1)]
    asian = torch.tensor([int(continent == "Asia") for continent in places.continent])
    found = {
        "true: cities": (cities.texts, cities.labels, cities.groups),
        "true: not cities": (negated.texts, negated.labels, negated.groups),
        "true: capitals": (capitals.texts, capitals.labels, capitals.groups),
        "true: elements": (elements.texts, elements.labels, elements.groups),
        "true: larger": (larger.texts, larger.labels, larger.groups),
        "plural subject": (agreement.texts, agreement.number, agreement.noun),
        "plural attractor": (agreement.texts, agreement.attractor, agreement.noun),
        "noun or verb": (words.texts, words.labels, words.groups),
        "the or my": ([text for text, *_ in phrases], torch.tensor([label for _, label, _ in phrases]), torch.tensor([group for *_, group in phrases])),
        "German or Dutch": _only(speeches.texts, language, speeches.groups, (0, 2)),
        "English or Spanish": _only(speeches.texts, language, speeches.groups, (1, 3)),
        "happy or sad": _pairs(MOOD),
        "harmful request": _pairs(REQUESTS),
        "French or English": _pairs(FRENCH),
        "city in Asia": (places.texts, asian, places.groups),
    }
    return {name: _thinned(*columns, most) for name, columns in found.items()}


def _pairs(pairs: Sequence[tuple[str, str]]) -> tuple[list[str], Tensor, Tensor]:
    """The first of each pair is class 1; a pair is a group."""
    return [text for pair in pairs for text in pair], torch.tensor([1, 0] * len(pairs)), torch.arange(len(pairs)).repeat_interleave(2)


def _only(texts: list[str], classes: Tensor, groups: Tensor, two: tuple[int, int]) -> tuple[list[str], Tensor, Tensor]:
    rows = torch.isin(classes, torch.tensor(two)).nonzero()[:, 0]
    return [texts[i] for i in rows.tolist()], (classes[rows] == two[1]).long(), groups[rows]


def _thinned(texts: list[str], labels: Tensor, groups: Tensor, most: int) -> ProbingTask:
    """Whole groups, drawn, as long as no class gets more than half of `most`; a class may not outnumber the other either."""
    limit = min(most // 2, int((labels == 0).sum()), int((labels == 1).sum()))
    numbers = groups.unique().tolist()
    random.Random(0).shuffle(numbers)
    kept, counts = [], torch.zeros(2, dtype=torch.long)
    for number in numbers:
        rows = (groups == number).nonzero()[:, 0]
        added = torch.bincount(labels[rows], minlength=2)
        if bool((counts + added <= limit).all()):
            counts += added
            kept.append(rows)
    at = torch.cat(kept).sort().values
    return ProbingTask([texts[i] for i in at.tolist()], labels[at].long(), groups[at])
