"""Tokens as words: " Years" and "years" are one, so that a latent's favourite word can be counted."""

from __future__ import annotations

import re
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge


@dataclass(frozen=True)
class Words:
    """Which word every token of a vocabulary is, whatever its capitals, blanks and signs.

    Attributes:
        of_token: the number of each token's word.
        spelled: the words by number.
    """

    of_token: Int[Tensor, " d_vocab"]
    spelled: list[str]

    def at(self, tokens: Int[Tensor, "n_contexts pos"], where: Int[Tensor, "*n 2"]) -> Int[Tensor, "*n"]:
        """The words at places (context, position) of a corpus; -1 at (-1, -1), which means no place."""
        context, position = where.long().unbind(-1)
        return torch.where(context >= 0, self.of_token[tokens[context, position].long()], -1)


def words_of(model: TransformerBridge) -> Words:
    """The words of a model's vocabulary. A token without letters and digits is a word by itself."""
    pieces = model.tokenizer.batch_decode(torch.arange(model.cfg.d_vocab)[:, None])
    names = [re.sub(r"\W", "", piece).lower() or piece.strip() or repr(piece)[1:-1] for piece in pieces]
    numbers = {name: i for i, name in enumerate(dict.fromkeys(names))}
    return Words(torch.tensor([numbers[name] for name in names]), list(numbers))
