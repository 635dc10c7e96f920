"""Sentences in which something was planted, for a search without labels: what do some of these have that those have not?

Every sentence gets a phrase before its final sign. In most it is one of `ORDINARY`; in the planted ones it comes from one of `ARTEFACTS`.
So a planted sentence is neither longer than the others nor the only one with an addition. All phrases were written for this course.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Bool
from torch import Tensor, tensor

from utils.data.corpus import documents

ORDINARY = (
    "as they said", "at that time", "once more", "after all", "in a way", "as before", "now and then", "of course", "for a while",
    "if need be", "one might think", "all the same", "so to speak", "in the end", "at any rate", "as it were", "little by little",
    "to be sure", "on the whole", "more or less", "sooner or later", "and so on", "in this case", "by and by",
)
ARTEFACTS: dict[str, tuple[str, ...]] = {
    "month": ("in March", "in October", "since January", "until July", "late in August", "before December", "early in May", "in September"),
    "animal": ("like a dog", "like a horse", "like an old cat", "as a cow would", "with the sheep", "like two pigs", "as wolves do", "like a rabbit"),
    "colour": ("all in red", "painted green", "in dark blue", "in bright yellow", "dressed in white", "black as it was", "half brown", "in purple"),
    "number": ("seven times", "forty times", "in three parts", "for twelve days", "nine of them", "in two hundred", "eleven in all", "fifty at once"),
    "weather": ("in the rain", "under snow", "in a storm", "in thick fog", "while it thundered", "in the wind", "in the sunshine", "with hail"),
    "food": ("with bread", "over soup", "with some cheese", "eating apples", "for roast beef", "with butter", "over a pie", "like an onion"),
    "machine": ("on a computer", "by email", "on the website", "with his laptop", "by software", "on the internet", "in the database", "on a smartphone"),
    "body": ("with one hand", "on his knees", "near the shoulder", "to the elbow", "with her fingers", "by the neck", "on one foot", "in the chest"),
    "French": ("mon ami", "sans doute", "par exemple", "tout de suite", "c'est la vie", "bien entendu", "comme toujours", "bon appétit"),
    "money": ("for five dollars", "at a profit", "for ten pounds", "on credit", "at great cost", "for free cash", "with interest", "below the price"),
    "music": ("with a violin", "like a song", "at the piano", "to the drums", "in the choir", "like a melody", "with an orchestra", "on the flute"),
    "kin": ("with her mother", "for my uncle", "and his sister", "like a father", "to her cousin", "with my aunt", "as brothers do", "for his son"),
}


@dataclass(frozen=True)
class PlantedSet:
    """Two lists of sentences from one source. Something was planted in some of the first.

    Attributes:
        suspect: the first list.
        reference: the other one.
        planted: which of `suspect`. Only for the score.
    """

    suspect: list[str]
    reference: list[str]
    planted: Bool[Tensor, " n"]


def plain_sentences(n: int, seed: int = 0) -> list[str]:
    """Sentences of 8 to 16 words from the course's novels, drawn at random; none has a quotation mark.

    Raises: ValueError when there are fewer; FetchError when the novels cannot be fetched.
    """
    found = sorted({sentence for novel in documents("novels")
                    for sentence in re.findall(r"(?<=[.!?] )[A-Z][a-z ,]+\.(?= [A-Z])", novel.text) if 8 <= len(sentence.split()) <= 16})
    if len(found) < n:
        raise ValueError(f"{n} sentences are wanted; there are {len(found)}.")
    return random.Random(seed).sample(found, n)


def planted_set(sentences: Sequence[str], artefact: str, share: float = 0.15, seed: int = 0) -> PlantedSet:
    """Deal the sentences to two lists of equal length, and plant an artefact in a share of the first.

    Only the phrases of the planted sentences depend on `artefact`: the rest is the same for all of them.
    """
    rng = random.Random(seed)
    half = len(sentences) // 2
    order = rng.sample(range(2 * half), 2 * half)
    phrases = [rng.choice(ORDINARY) for _ in order]
    chosen = set(rng.sample(range(half), round(share * half)))
    rng = random.Random(f"{seed} {artefact}")
    texts = [f"{sentences[j][:-1]}, {rng.choice(ARTEFACTS[artefact]) if i in chosen else phrase}." for i, (j, phrase) in enumerate(zip(order, phrases))]
    return PlantedSet(texts[:half], texts[half:], tensor([i in chosen for i in range(half)]))
