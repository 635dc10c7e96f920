"""A transformer small enough to read in one sitting.

`SmallTransformer` has hook points under the names that the big models use, so that `run_with_cache`
and `intervene` of `utils.hooks` work on it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformer_lens.hook_points import HookPoint
from transformer_lens.model_bridge.exceptions import StopAtLayerException

from utils.worlds.episodes import WorldError


@dataclass(frozen=True)
class SmallConfig:
    """The sizes of a SmallTransformer.

    Attributes:
        d_vocab: how many different tokens there are.
        n_ctx: the longest sequence.
        n_layers: blocks.
        d_model: width of the residual stream, a multiple of n_heads.
        n_heads: attention heads.
        d_mlp: hidden width of the MLPs.
    """

    d_vocab: int
    n_ctx: int
    n_layers: int = 2
    d_model: int = 64
    n_heads: int = 4
    d_mlp: int = 256


class Attention(nn.Module):
    """Every position looks back, with `n_heads` patterns side by side."""

    def __init__(self, cfg: SmallConfig) -> None:
        super().__init__()
        self.n_heads = cfg.n_heads
        self.qkv = nn.Linear(cfg.d_model, 3 * cfg.d_model)
        self.out = nn.Linear(cfg.d_model, cfg.d_model)
        self.hook_pattern, self.hook_out = HookPoint(), HookPoint()
        self.register_buffer("future", torch.ones(cfg.n_ctx, cfg.n_ctx, dtype=torch.bool).triu(1), persistent=False)

    def forward(self, x: Float[Tensor, "batch pos d_model"]) -> Float[Tensor, "batch pos d_model"]:
        pos = x.shape[1]
        q, k, v = (part.unflatten(-1, (self.n_heads, -1)).transpose(1, 2) for part in self.qkv(x).chunk(3, -1))
        scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])  # [batch, head, query, key]
        pattern = self.hook_pattern(scores.masked_fill(self.future[:pos, :pos], -torch.inf).softmax(-1))
        return self.hook_out(self.out((pattern @ v).transpose(1, 2).flatten(-2)))


class MLP(nn.Module):
    """Two linear maps with a GELU between them, for every position by itself."""

    def __init__(self, cfg: SmallConfig) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(cfg.d_model, cfg.d_mlp), nn.Linear(cfg.d_mlp, cfg.d_model)
        self.hook_out = HookPoint()

    def forward(self, x: Float[Tensor, "batch pos d_model"]) -> Float[Tensor, "batch pos d_model"]:
        return self.hook_out(self.down(F.gelu(self.up(x))))


class Block(nn.Module):
    """Attention, then the MLP; each reads the normed residual stream and adds to the raw one."""

    def __init__(self, cfg: SmallConfig) -> None:
        super().__init__()
        self.ln1, self.ln2 = nn.LayerNorm(cfg.d_model), nn.LayerNorm(cfg.d_model)
        self.attn, self.mlp = Attention(cfg), MLP(cfg)
        self.hook_in, self.hook_out = HookPoint(), HookPoint()

    def forward(self, resid: Float[Tensor, "batch pos d_model"]) -> Float[Tensor, "batch pos d_model"]:
        resid = self.hook_in(resid)
        resid = resid + self.attn(self.ln1(resid))
        resid = resid + self.mlp(self.ln2(resid))
        return self.hook_out(resid)


class SmallTransformer(nn.Module):
    """A GPT in miniature. Hook points: `model.hook_dict`; `resid_post(1)` and its kin name them.

    It keeps the interface that `utils.hooks` needs, so `run_with_cache(model, tokens, names)` and
    `intervene(model, {name: fn})` work as they do on a TransformerBridge.
    """

    def __init__(self, cfg: SmallConfig, seed: int = 0) -> None:
        super().__init__()
        if cfg.d_model % cfg.n_heads:
            raise WorldError(f"d_model {cfg.d_model} is no multiple of n_heads {cfg.n_heads}.")
        self.cfg = cfg
        with torch.random.fork_rng(devices=[]):  # equal seeds give equal weights, whatever was drawn before
            torch.manual_seed(seed)
            self.embed, self.pos_embed = nn.Embedding(cfg.d_vocab, cfg.d_model), nn.Embedding(cfg.n_ctx, cfg.d_model)
            self.blocks = nn.ModuleList(Block(cfg) for _ in range(cfg.n_layers))
            self.ln_final = nn.LayerNorm(cfg.d_model)
            self.unembed = nn.Linear(cfg.d_model, cfg.d_vocab)
            for table in (self.embed, self.pos_embed):
                nn.init.normal_(table.weight, std=0.3)
        self.hook_dict = {name: module for name, module in self.named_modules() if isinstance(module, HookPoint)}
        for name, point in self.hook_dict.items():
            point.name = name

    def forward(self, tokens: Int[Tensor, "batch pos"], return_type: str | None = "logits") -> Float[Tensor, "batch pos d_vocab"] | None:
        """Logits for the next token after every position."""
        try:
            resid = self.embed(tokens) + self.pos_embed.weight[:tokens.shape[1]]
            for block in self.blocks:
                resid = block(resid)
            return self.unembed(self.ln_final(resid))
        except StopAtLayerException:  # run_with_cache has all that it wants
            return None

    # What utils.hooks asks of a model, beside `cfg` and `forward`.
    hook_aliases: dict[str, str] = {}

    @property
    def _hook_registry(self) -> dict[str, HookPoint]:
        return self.hook_dict

    def _collect_hook_aliases_from_registry(self) -> dict[str, str]:
        return {}

    def check_hooks_to_add(self, name: str) -> None:
        """No hook point of this model can be switched off."""

    def reset_hooks(self) -> None:
        """Remove every hook."""
        for point in self.hook_dict.values():
            point.remove_hooks()
