"""What a latent promotes, measured: its decoder row is added at the last token of a prompt, and the next word's probabilities are read.

The words that gain most are the latent's *output label* (Gur-Arieh and others 2025, arXiv:2501.08319, call it output-centric). Chapter 32
scores it on prompts that it was not made on.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from utils.activations import tokenize
from utils.hooks import intervene, run_with_cache
from utils.reading.words import Words
from utils.sae.model import AnySAE, check_fits

PROMPTS = (
    "I think that the", "She looked at me and said", "In the end they wanted to", "The report says that", "My friend told me about a", "It was the first time",
    "We went there because of", "He did not know what", "The next day there was", "After that, the people of", "You can see it in", "This is a question of",
)
"""Beginnings that leave open what comes: those with an even number are for making output labels, those with an odd one for testing them."""
STRENGTH = 0.4
"""Length of what is added, as a share of the length that the activation has there."""


@torch.no_grad()
def next_words(
    model: TransformerBridge, sae: AnySAE, latents: Sequence[int], words: Words, prompts: Sequence[str], *, strength: float = STRENGTH, batch_size: int = 32
) -> tuple[Float[Tensor, " n_words"], Float[Tensor, "n_latents n_words"]]:
    """(probabilities of the next word, the same with each latent's decoder row added at the last token), means over the prompts."""
    name = check_fits(model, sae)
    rows = torch.nn.functional.normalize(sae.W_dec.detach()[list(latents)].float(), dim=1).to(model.cfg.device)
    plain, pushed = torch.zeros(len(words.spelled)), torch.zeros(len(rows), len(words.spelled))
    for prompt in prompts:
        tokens, _ = tokenize(model, [prompt])
        length = strength * run_with_cache(model, tokens, name)[name][0, -1].norm()
        plain += _by_word(model(tokens)[:, -1], words)[0] / len(prompts)
        for start in range(0, len(rows), batch_size):
            part = rows[start : start + batch_size]

            def push(acts: Float[Tensor, "batch pos d_model"], hook: object, part: Tensor = part) -> Float[Tensor, "batch pos d_model"]:
                acts = acts.clone()
                acts[:, -1] += (length * part).to(acts)
                return acts

            with intervene(model, {name: push}):
                logits = model(tokens.expand(len(part), -1))[:, -1]
            pushed[start : start + batch_size] += _by_word(logits, words) / len(prompts)
    return plain, pushed


def _by_word(logits: Float[Tensor, "n d_vocab"], words: Words) -> Float[Tensor, "n n_words"]:
    """The probability of each word, over all tokens that spell it."""
    found = torch.zeros(len(logits), len(words.spelled))
    return found.index_add_(1, words.of_token[: logits.shape[1]], logits.float().softmax(1).cpu())


def promoted(plain: Float[Tensor, " n_words"], pushed: Float[Tensor, "n_latents n_words"], n: int = 8) -> Int[Tensor, "n_latents n"]:
    """The words that make up most of the change: p_after * log(p_after / p_before), largest first. Rare words that stay rare do not count."""
    gain = pushed * (pushed.clamp_min(1e-12) / plain.clamp_min(1e-12)).log()
    return gain.topk(n, dim=1).indices
