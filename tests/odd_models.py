"""Small models of another make, as a stranger's folder: 12 to 40 layers, random weights, the default model's tokenizer.

`python tests/odd_models.py FOLDER` writes all three. A chapter that runs on them assumes neither depth nor result.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from transformers import AutoTokenizer, Gemma2Config, Gemma2ForCausalLM, GPTNeoXConfig, GPTNeoXForCausalLM, Qwen2Config, Qwen2ForCausalLM

sys.path.insert(0, str(Path(__file__).parents[1]))

from utils.default_model import default_folder  # noqa: E402

N_LAYERS = {"qwen2": 16, "gemma2": 40, "neox": 12}


def write_odd_model(folder: Path, kind: str) -> Path:
    """Write a model of `kind`, one of N_LAYERS, with its tokenizer into `folder`, and return it."""
    tokenizer = AutoTokenizer.from_pretrained(default_folder())
    sizes = {"vocab_size": len(tokenizer), "hidden_size": 64, "num_hidden_layers": N_LAYERS[kind], "intermediate_size": 128, "num_attention_heads": 4,
             "max_position_embeddings": 1024, "bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    grouped = {"num_key_value_heads": 2, "tie_word_embeddings": True}
    torch.manual_seed(0)
    if kind == "qwen2":
        model = Qwen2ForCausalLM(Qwen2Config(**sizes, **grouped))
    elif kind == "gemma2":
        model = Gemma2ForCausalLM(Gemma2Config(**sizes, **grouped, head_dim=16, query_pre_attn_scalar=16))
    else:
        model = GPTNeoXForCausalLM(GPTNeoXConfig(**sizes))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


if __name__ == "__main__":
    for kind in N_LAYERS:
        print(write_odd_model(Path(sys.argv[1], kind), kind))
