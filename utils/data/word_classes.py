"""Small classes of English words, each a parent whose members are its children: where chapter 33 looks for absorption in a real SAE."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Int
from torch import Tensor

WORD_CLASSES: dict[str, tuple[str, ...]] = {
    "digit": tuple("0123456789"),
    "pronoun": ("I", "you", "he", "she", "it", "we", "they", "me", "him", "us", "them"),
    "possessive": ("my", "your", "his", "her", "its", "our", "their"),
    "preposition": ("of", "in", "to", "for", "with", "on", "by", "from", "at", "into", "upon", "between", "through", "under", "over", "without"),
    "verb of being and having": ("is", "are", "was", "were", "be", "been", "has", "have", "had"),
    "modal verb": ("will", "would", "can", "could", "may", "might", "shall", "should", "must"),
}


def member_numbers(pieces: list[str], words: tuple[str, ...]) -> Int[Tensor, " d_vocab"]:
    """Which word of a class every token of a vocabulary is, -1 for none: "he", " he", "He" and " He" are one word.

    Args:
        pieces: every token as text, with the space that it brings along.
    """
    number: Mapping[str, int] = {word.lower(): i for i, word in enumerate(words)}
    return torch.tensor([number.get(piece.removeprefix(" ").lower(), -1) for piece in pieces])
