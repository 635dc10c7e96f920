"""Sentences about number: "The keys near the cabinet ...", which goes on with "are", whatever the cabinet does.

The nouns are common English ones whose singular and plural are one token each for SmolLM2's tokenizer, so
that the subject, the preposition and the second noun (the attractor) stand at the same place in every sentence.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

_REGULAR = """
key cabinet book table lamp chair door window wall picture photo letter bag bottle cup plate bowl pan car truck train boat ship plane
bike road bridge tower castle school hospital museum hotel restaurant shop store house garden tree flower plant river lake mountain hill
island valley farm field barn horse cow dog cat bird boy girl king queen doctor nurse teacher student lawyer judge artist writer actor
singer dancer player driver pilot sailor soldier guard farmer chef painter poet author editor manager officer engineer scientist
neighbor friend brother sister son daughter cousin report article paper poem song film movie painting statue map sign poster ticket
card coin ring clock phone computer camera screen button cable wheel engine machine tool nail rope chain flag mirror desk bed carpet
curtain pillow blanket coat shirt jacket hat shoe boot glove skirt sock apple banana lemon carrot onion egg cake cookie pie bean nut
rock stone shell star planet cloud storm village town park street path gate fence roof room kitchen office building market station
airport prison temple palace tent cabin rabbit lion tiger bear monkey elephant snake frog turtle duck chicken pig goat bee spider ant
pencil pen notebook magazine newspaper journal basket bucket barrel jar candle guitar drum robot rocket satellite telescope microscope
laptop tablet printer keyboard doll toy puzzle ball idea plan problem solution question answer lesson course exam grade claim proposal
decision rule law project program
""".split()  # fmt: skip
_OTHERS = {
    "box": "boxes", "knife": "knives", "bus": "buses", "church": "churches", "library": "libraries", "coach": "coaches", "story": "stories",
    "watch": "watches", "shelf": "shelves", "dress": "dresses", "potato": "potatoes", "sandwich": "sandwiches", "leaf": "leaves",
    "city": "cities", "factory": "factories", "wolf": "wolves", "fox": "foxes", "goose": "geese", "butterfly": "butterflies",
    "brush": "brushes", "diary": "diaries", "theory": "theories", "policy": "policies",
}  # fmt: skip
NOUNS: tuple[tuple[str, str], ...] = tuple((noun, noun + "s") for noun in _REGULAR) + tuple(_OTHERS.items())
"""(singular, plural) of every noun."""

PREPOSITIONS = ("near", "behind", "beside")
RELATIVE_CLAUSES = ("that we saw near", "that she put behind", "that they left beside")
"""In the place of a preposition: sentences of another family, with the subject at the same place."""
DETERMINERS = ("The", "My", "Our", "His", "Your")


class AgreementError(ValueError):
    """Sentences that cannot be made from these nouns. The message says what to change."""


@dataclass(frozen=True)
class AgreementSentences:
    """Sentences "The <subject> <preposition> the <attractor>", four per subject noun.

    Rows 2i and 2i + 1 differ in the subject's number alone (singular first), which is what patching needs;
    each subject noun comes with a singular and with a plural attractor, so that the two numbers are independent.

    Attributes:
        texts: the sentences, without the verb.
        number: 1 where the subject is plural, else 0.
        attractor: 1 where the attractor is plural, else 0.
        noun: which subject noun the row has: the group to split and to resample by.
    """

    texts: list[str]
    number: Int[Tensor, " n"]
    attractor: Int[Tensor, " n"]
    noun: Int[Tensor, " n"]


def one_token_nouns(model: TransformerBridge) -> list[tuple[str, str]]:
    """The pairs of NOUNS whose two forms are one token each, after a space, for this model's tokenizer.

    Raises: AgreementError when they are fewer than 50.
    """
    def single(word: str) -> bool:
        return len(model.tokenizer(f" {word}", add_special_tokens=False)["input_ids"]) == 1

    found = [pair for pair in NOUNS if single(pair[0]) and single(pair[1])]
    if len(found) < 50:
        raise AgreementError(f"only {len(found)} of the {len(NOUNS)} nouns are one token in both forms for this tokenizer.")
    return found


def split_nouns(
    nouns: Sequence[tuple[str, str]], sizes: Sequence[int], seed: int = 0
) -> list[list[tuple[str, str]]]:
    """Draw one list of nouns per size, no noun twice.

    Raises: AgreementError when there are fewer nouns than the sizes ask for.
    """
    if sum(sizes) > len(nouns):
        raise AgreementError(f"{sum(sizes)} nouns were asked for, and there are {len(nouns)}.")
    order = random.Random(seed).sample(list(nouns), sum(sizes))
    ends = [sum(sizes[: i + 1]) for i in range(len(sizes))]
    return [order[end - size : end] for end, size in zip(ends, sizes)]


def agreement_sentences(
    nouns: Sequence[tuple[str, str]], prepositions: Sequence[str] = PREPOSITIONS
) -> AgreementSentences:
    """Four sentences for each noun as the subject, with the next noun of the list as the attractor.

    Args:
        nouns: (singular, plural) pairs, at least two.
        prepositions: taken in turn, one per subject noun.

    Raises: AgreementError for fewer than two nouns, a noun that is there twice, or no preposition.
    """
    if len(nouns) < 2 or len(set(nouns)) < len(nouns):
        raise AgreementError(f"at least two nouns are needed, all different; got {len(nouns)}, {len(set(nouns))} of them different.")
    if not prepositions:
        raise AgreementError("no preposition was given.")
    rows = [
        (f"The {noun[number]} {prepositions[i % len(prepositions)]} the {nouns[(i + 1) % len(nouns)][attractor]}", number, attractor, i)
        for i, noun in enumerate(nouns)
        for attractor in (0, 1)
        for number in (0, 1)
    ]
    texts, *columns = zip(*rows)
    return AgreementSentences(list(texts), *(torch.tensor(column) for column in columns))


@dataclass(frozen=True)
class NounPhrases:
    """Phrases "<determiner> <noun>", each noun in both numbers with every determiner.

    Attributes:
        texts: the phrases; the noun is the last word.
        number: 1 where the noun is plural, else 0.
        definite: 1 where the determiner is "The", else 0: what an eraser can be told to erase instead.
    """

    texts: list[str]
    number: Int[Tensor, " n"]
    definite: Int[Tensor, " n"]


def noun_phrases(nouns: Sequence[tuple[str, str]], determiners: Sequence[str] = DETERMINERS) -> NounPhrases:
    """Put every determiner before both forms of every noun.

    Raises: AgreementError without nouns, or without "The" and another determiner.
    """
    if not nouns or "The" not in determiners or len(determiners) < 2:
        raise AgreementError("noun phrases need at least one noun, and 'The' beside another determiner.")
    rows = [(f"{word} {pair[number]}", number, int(word == "The")) for word in determiners for number in (0, 1) for pair in nouns]
    texts, *columns = zip(*rows)
    return NounPhrases(list(texts), *(torch.tensor(column) for column in columns))
