"""A soft prefix: a few free vectors in front of a text, trained so that a monitor in the middle of the model says less.

No user can type such vectors. They show how far the monitor's score can be moved by what stands in front of a request, while every
word of the request stays as it is. The monitor reads the request's own tokens only, so the prefix has to act through attention.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformer_lens.hook_points import HookPoint
from transformer_lens.model_bridge import TransformerBridge
from transformer_lens.model_bridge.exceptions import StopAtLayerException

from utils.activations import tokenize
from utils.hooks import check_hook_names, intervene, resid_pre

Score = Callable[[Float[Tensor, "batch pos d_model"], Bool[Tensor, "batch pos"]], Float[Tensor, " batch"]]


def prefixed_activations(model: TransformerBridge, texts: Sequence[str], prefix: Float[Tensor, "k d_model"], name: str
                         ) -> tuple[Float[Tensor, "batch pos d_model"], Bool[Tensor, "batch pos"]]:
    """The activations at `name` of texts that have `prefix` between BOS and their first token, and a mask of the texts' own tokens.

    Both are on the CPU. Gradients reach the prefix. The forward pass ends at `name`.

    Raises: HookNameError for a wrong name; TypeError, ValueError: see `tokenize`.
    """
    check_hook_names(model, name)
    tokens, mask = tokenize(model, texts)
    k = len(prefix)
    filler = tokens[:, :1].expand(-1, k)  # any real token: its embedding is overwritten
    tokens = torch.cat([tokens[:, :1], filler, tokens[:, 1:]], dim=1)
    own = torch.cat([torch.zeros_like(mask[:, : k + 1]), mask[:, 1:]], dim=1)
    kept: list[Tensor] = []

    def put(embeddings: Tensor, hook: HookPoint) -> Tensor:
        return torch.cat([embeddings[:, :1], prefix.to(embeddings).expand(len(embeddings), -1, -1), embeddings[:, k + 1 :]], dim=1)

    def keep(activation: Tensor, hook: HookPoint) -> Tensor:
        kept.append(activation)
        raise StopAtLayerException(activation)  # the bridge's forward catches it

    with intervene(model, {resid_pre(0): put, name: keep}, may_do_nothing=True):
        model(tokens, return_type=None)
    return kept[0].float().cpu(), own.cpu()  # where every probe of the course lives


def train_soft_prefix(model: TransformerBridge, texts: Sequence[str], score: Score, name: str, *, k: int = 3, steps: int = 20,
                      lr: float = 0.05, batch_size: int = 16, seed: int = 0) -> tuple[Float[Tensor, "k d_model"], Float[Tensor, "k d_model"]]:
    """Train a prefix that lowers a monitor's mean score on `texts`, at the usual length of an embedding.

    Args:
        score: the monitor, from activations and mask to one number per text; differentiable.
        name: the hook name at which it reads.
        k: vectors in the prefix. steps: of Adam, each on `batch_size` texts.
        lr: of Adam, in units of an embedding's usual entry.
        seed: of the start and of the batches.

    Returns: (the trained prefix, the random one that it started from). Every vector of both has the median length of the embeddings.
    """
    embedding = model.original_model.get_input_embeddings().weight
    length = float(embedding[:: max(1, len(embedding) // 2000)].norm(dim=-1).median())
    rng = torch.Generator().manual_seed(seed)
    start = torch.randn(k, embedding.shape[1], generator=rng).to(embedding)
    free = start.clone().requires_grad_()
    optimiser = torch.optim.Adam([free], lr=lr)

    def bounded(vectors: Tensor) -> Tensor:
        return length * vectors / vectors.norm(dim=-1, keepdim=True)

    for _ in range(steps):
        rows = torch.randperm(len(texts), generator=rng)[:batch_size].tolist()
        acts, own = prefixed_activations(model, [texts[i] for i in rows], bounded(free), name)
        loss = score(acts, own).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return bounded(free).detach(), bounded(start)
