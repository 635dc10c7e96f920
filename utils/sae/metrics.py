"""How good an SAE is: what it explains, what the model loses when it stands in, which latents are dead or dense.

Chapter 23 builds each of these by hand. Here they are computed together, with 95% intervals from resampling whole documents.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from tqdm.auto import tqdm
from transformer_lens.model_bridge import TransformerBridge

from utils.hooks import intervene
from utils.intervals import Estimate, bootstrap
from utils.sae.model import SAE, SAEError, check_fits, spliced, usual_tokens
from utils.sae.shards import Shards
from utils.sae.sparse import sparse_decode

DENSE = 0.1
"""A latent that fires on more than this share of the tokens is called dense."""


@dataclass(frozen=True)
class Fit:
    """How well the activations are rebuilt.

    Attributes:
        explained_variance: 1 - sum ||x - x̂||² / sum ||x - mean||², all tokens and dimensions together.
        l0: firing latents per token.
        frequency: [d_sae], the share of the tokens on which each latent fires.
        tokens: how many were looked at.
    """

    explained_variance: Estimate
    l0: float
    frequency: Float[Tensor, " d_sae"]
    tokens: int

    @property
    def dead(self) -> float:
        """The share of the latents that never fired."""
        return float((self.frequency == 0).float().mean()) if len(self.frequency) else 0.0

    @property
    def dense(self) -> float:
        """The share of the latents that fire on more than a tenth of the tokens."""
        return float((self.frequency > DENSE).float().mean()) if len(self.frequency) else 0.0


@dataclass(frozen=True)
class Cost:
    """What next-token prediction loses when something stands in for the activation. Losses in nats per token.

    Attributes:
        clean, sae, zero, mean: the loss of the model as it is, with the SAE, with zeros, with the mean activation.
        recovered_zero, recovered_mean: (ablated - sae) / (ablated - clean): 1 is no loss, 0 is as bad as the ablation.
        kl: KL divergence from the clean prediction to the SAE's.
    """

    clean: float
    sae: float
    zero: float
    mean: float
    recovered_zero: Estimate
    recovered_mean: Estimate
    kl: Estimate


def squared_sums(
    reconstruct: Callable[[Tensor], Tensor], x: Float[Tensor, "n d"], document: Int[Tensor, " n"]
) -> tuple[Float[Tensor, " n_docs"], Float[Tensor, " n_docs"]]:
    """(squared error, squared distance from the mean activation), each added up over the tokens of every document."""
    zeros, mean = torch.zeros(int(document.max()) + 1), x.mean(0)
    with torch.no_grad():
        error = torch.cat([(part - reconstruct(part)).square().sum(1) for part in x.split(4096)])
    return zeros.index_add(0, document, error), zeros.index_add(0, document, (x - mean).square().sum(1))


def explained(
    reconstruct: Callable[[Tensor], Tensor], x: Float[Tensor, "n d"], document: Int[Tensor, " n"], seed: int = 0
) -> Estimate:
    """Explained variance (pooled: 1 - summed error / summed variance), with a 95% interval from drawing the documents anew.

    Args:
        x: activations, one row per token. document: the document of each.
        seed: of the resamples.

    Raises: ValueError with fewer than 2 documents.
    """
    return bootstrap(lambda sums: 1 - sums[0] / sums[1], *squared_sums(reconstruct, x, document), seed=seed)


def measure_fit(reconstruct: Callable[[Tensor], Tensor], shards: Shards, *, batch_size: int = 4096) -> Fit:
    """Go through all tokens of some shards once.

    Args:
        reconstruct: an `SAE`, or any other function [n, d_model] -> [n, d_model]; without latents, l0 is 0 and frequency empty.

    Raises: SAEError when an SAE of another hook point or width is measured on these shards; ValueError with fewer than 2 documents.
    """
    device, latents = torch.device("cpu"), 0
    if isinstance(reconstruct, SAE):
        device, latents = reconstruct.b_dec.device, reconstruct.cfg.d_sae
        if reconstruct.cfg.d_in != shards.d_model or (reconstruct.cfg.hook_name or shards.hook) != shards.hook:
            raise SAEError(f"this SAE reads {reconstruct.cfg.d_in} dimensions at {reconstruct.cfg.hook_name}; the shards hold {shards.d_model} at {shards.hook}.")
    mean = torch.stack([part["acts"].float().sum(0) for part in shards.parts]).sum(0) / len(shards)
    mean = mean.to(device)
    n_documents = len(shards.manifest["documents"])
    error, total = torch.zeros(n_documents), torch.zeros(n_documents)
    fires = torch.zeros(latents, device=device)
    with torch.no_grad():
        for part in shards.parts:
            for acts, document in zip(part["acts"].split(batch_size), part["document"].split(batch_size)):
                x = acts.to(device).float()
                if isinstance(reconstruct, SAE):
                    values, indices = reconstruct.encode_sparse(x)
                    rebuilt = sparse_decode(values, indices, reconstruct.W_dec) + reconstruct.b_dec
                    fires += torch.bincount(indices[values > 0], minlength=latents)
                else:
                    rebuilt = reconstruct(x)
                error.index_add_(0, document, (x - rebuilt).pow(2).sum(1).cpu())
                total.index_add_(0, document, (x - mean).pow(2).sum(1).cpu())
    explained = bootstrap(lambda sums: 1 - sums[0] / sums[1], error, total)
    frequency = fires.cpu() / len(shards)
    return Fit(explained, float(frequency.sum()), frequency, len(shards))


def measure_cost(
    model: TransformerBridge,
    sae: SAE,
    tokens: Int[Tensor, "n context"],
    document: Int[Tensor, " n"],
    mean: Float[Tensor, " d_model"],
    *,
    name: str | None = None,
    batch_size: int = 8,
    progress: bool = True,
) -> Cost:
    """Run contexts four times: clean, with the SAE, with zeros and with `mean` in place of the activation.

    All three stand in at the same tokens: every one but the first and those of unusual norm (`usual_tokens`). Left in
    place, those hold the attention sink; taken away, any SAE would look good against the wreck.

    Raises: SAEError (see `check_fits`); ValueError with fewer than 2 documents, or when tokens and documents do not belong together.
    """
    if len(tokens) != len(document) or len(document.unique()) < 2:
        raise ValueError(f"{len(tokens)} contexts with {len(document)} owners, {len(document.unique())} documents: one owner each, and at least 2 documents.")
    name = check_fits(model, sae, name)
    with_value = lambda value: lambda acts, hook: torch.where(usual_tokens(acts)[..., None], value.to(acts), acts)  # noqa: E731
    ways: dict[str, Callable[[], AbstractContextManager]] = {
        "clean": nullcontext,
        "sae": lambda: spliced(model, sae, name=name),
        "zero": lambda: intervene(model, {name: with_value(torch.zeros_like(mean))}),
        "mean": lambda: intervene(model, {name: with_value(mean)}),
    }
    n_documents = int(document.max()) + 1
    sums = {way: torch.zeros(n_documents) for way in (*ways, "kl", "tokens")}
    with torch.no_grad(), tqdm(total=tokens.numel(), unit=" tokens", unit_scale=True, desc="loss with the SAE", delay=2, leave=False, disable=not progress) as bar:
        for rows, owners in zip(tokens.split(batch_size), document.split(batch_size)):
            rows = rows.to(model.cfg.device)
            clean = None
            for way, enter in ways.items():
                with enter():
                    logprobs = F.log_softmax(model(rows)[:, :-1].float(), dim=-1)
                loss = -logprobs.gather(2, rows[:, 1:, None]).squeeze(2)
                sums[way].index_add_(0, owners, loss.sum(1).cpu())
                if way == "clean":
                    clean = logprobs
                elif way == "sae":
                    kl = F.kl_div(logprobs, clean, reduction="none", log_target=True).sum(2)
                    sums["kl"].index_add_(0, owners, kl.sum(1).cpu())
            sums["tokens"].index_add_(0, owners, torch.full((len(rows),), rows.shape[1] - 1.0))
            bar.update(rows.numel())
    per_token = {way: float(sums[way].sum() / sums["tokens"].sum()) for way in ways}
    recovered = {
        floor: bootstrap(lambda s: (s[0] - s[1]) / (s[0] - s[2]), sums[floor], sums["sae"], sums["clean"]) for floor in ("zero", "mean")
    }
    return Cost(**per_token, recovered_zero=recovered["zero"], recovered_mean=recovered["mean"],
                kl=bootstrap(lambda s: s[0] / s[1], sums["kl"], sums["tokens"]))
