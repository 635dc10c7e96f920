"""The same network before training: what architecture alone makes of a text."""

from __future__ import annotations

import torch
from transformer_lens.model_bridge import TransformerBridge


def untrained_like(model: TransformerBridge, seed: int = 0) -> TransformerBridge:
    """A network of the same architecture, tokenizer, device and dtype, with the weights of its first day.

    They are drawn as the architecture's own initialisation draws them; equal seeds give equal weights, and the
    global random state is left as it was.

    Args:
        model: a bridge whose `original_model` is a Hugging Face causal language model.
        seed: of the weights.

    Returns:
        A bridge in evaluation mode that asks for no gradients.
    """
    from transformers import AutoModelForCausalLM

    config = model.original_model.config
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        fresh = AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    fresh = fresh.to(device=model.cfg.device, dtype=model.cfg.dtype).eval()
    bridge = TransformerBridge.boot_transformers(f"{model.cfg.model_name} untrained", hf_model=fresh, tokenizer=model.tokenizer, device=str(model.cfg.device))
    bridge.cfg.model_name = f"{model.cfg.model_name} untrained"
    return bridge.eval().requires_grad_(False)
