"""What a model is about to answer, judged by the first token alone: nothing is written."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from utils.steering.generating import next_token_logits


def first_tokens(model: TransformerBridge, words: Sequence[str]) -> list[int]:
    """The number of the first token of each word, as it is spelled: " small" and "small" differ.

    Raises: ValueError for an empty word.
    """
    ids = [model.tokenizer(word, add_special_tokens=False)["input_ids"] for word in words]
    if not all(ids):
        raise ValueError(f"word {next(i for i, found in enumerate(ids) if not found)} is empty: it has no first token.")
    return [found[0] for found in ids]


def first_token_right(model: TransformerBridge, prompts: Sequence[str], answers: Sequence[str]) -> Float[Tensor, " n"]:
    """Per prompt 1 where the likeliest next token is the first of its answer, else 0. Under an edit, the edited model's.

    Raises: ValueError for another number of answers than prompts, or an empty one; see also `next_token_logits`.
    """
    if len(prompts) != len(answers):
        raise ValueError(f"{len(prompts)} prompts and {len(answers)} answers: give one for each.")
    wanted = torch.tensor(first_tokens(model, answers))
    return (next_token_logits(model, prompts).argmax(dim=-1) == wanted).double()


def log_odds_of_first(model: TransformerBridge, prompts: Sequence[str], words: Sequence[str], *, chat: bool = False) -> Float[Tensor, " n"]:
    """Per prompt the log-odds that its continuation begins with the first token of one of the words. Under an edit, the edited model's.

    Args:
        chat: the prompts are requests of a user (`chat_prompt`).

    Raises: see `first_tokens` and `next_token_logits`.
    """
    ids = sorted(set(first_tokens(model, words)))
    odds = next_token_logits(model, prompts, chat=chat).double().softmax(dim=-1)[:, ids].sum(dim=-1)
    return (odds / (1 - odds)).log()
