"""Small models of another make, as a stranger's folder: 16 layers, random weights, the default model's tokenizer.

`python tests/odd_models.py FOLDER` writes both. A chapter that runs on them assumes neither depth nor result.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from transformers import AutoTokenizer, GPTNeoXConfig, GPTNeoXForCausalLM, Qwen2Config, Qwen2ForCausalLM

sys.path.insert(0, str(Path(__file__).parents[1]))

from utils.default_model import default_folder  # noqa: E402

KINDS = ("qwen2", "neox")


def write_odd_model(folder: Path, kind: str) -> Path:
    """Write a model of `kind` ('qwen2' or 'neox') with its tokenizer into `folder`, and return it."""
    tokenizer = AutoTokenizer.from_pretrained(default_folder())
    sizes = {"vocab_size": len(tokenizer), "hidden_size": 64, "num_hidden_layers": 16, "intermediate_size": 128,
             "max_position_embeddings": 1024, "bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    torch.manual_seed(0)
    if kind == "qwen2":
        model = Qwen2ForCausalLM(Qwen2Config(**sizes, num_attention_heads=4, num_key_value_heads=2, tie_word_embeddings=True))
    else:
        model = GPTNeoXForCausalLM(GPTNeoXConfig(**sizes, num_attention_heads=4))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


if __name__ == "__main__":
    for kind in KINDS:
        print(write_odd_model(Path(sys.argv[1], kind), kind))
