"""Variants of the sparse autoencoder, trained and measured side by side on worlds with a planted truth."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from utils.sae.stacks import Params, by_autograd, decoded, explained, init_sae, l0, pre_activations, train
from utils.worlds.planted import Planted, recovered


@dataclass(frozen=True)
class Variant:
    """One way to be sparse.

    Attributes:
        loss: (params, x, setting) -> (one loss per SAE, latents). The setting is a price, or a budget k.
        settings: those to try.
        start: standard parameters -> what training begins with.
        finish: (trained parameters, data, setting) -> the same with what inference needs besides.
        acts: (params, x, setting) -> latents at inference, if they are not those of the loss.
        gradients: (params, x, setting) -> (gradients, latents), if autograd cannot make them from the loss.
    """

    loss: Callable[[Params, Tensor, float], tuple[Tensor, Tensor]]
    settings: tuple[float, ...]
    start: Callable[[Params], Params] | None = None
    finish: Callable[[Params, Tensor, float], Params] | None = None
    acts: Callable[[Params, Tensor, float], Tensor] | None = None
    gradients: Callable[[Params, Tensor, float], tuple[Params, Tensor]] | None = None

    def fit(self, setting: float, params: Params, data: Float[Tensor, "sae n d_in"], **training) -> Params:
        """Train a stack from these standard parameters; `training` goes to `utils.sae.stacks.train`."""
        own = self.gradients
        gradients = by_autograd(lambda p, x, dead: self.loss(p, x, setting)) if own is None else (lambda p, x, dead: own(p, x, setting))
        trained = train(gradients, self.start(params) if self.start else params, data, **training)
        return self.finish(trained, data, setting) if self.finish else trained

    @torch.no_grad()
    def latents(self, params: Params, x: Float[Tensor, "sae n d_in"], setting: float) -> Float[Tensor, "sae n d_sae"]:
        """The latents of trained SAEs, as they are used."""
        return self.acts(params, x, setting) if self.acts else self.loss(params, x, setting)[1]


@dataclass(frozen=True)
class Run:
    """One variant at one setting: its parameters, and one number per world of each measure, on fresh rows."""

    params: Params
    l0: Float[Tensor, " world"]
    explained: Float[Tensor, " world"]
    recovered: Float[Tensor, " world"]


def run_variant(variant: Variant, setting: float, start: Params, world: Planted, **training) -> Run:
    """Train on the world's rows from `start`, and measure on its fresh ones."""
    params = variant.fit(setting, start, world.data, **training)
    acts = variant.latents(params, world.test, setting)
    return Run(params, l0(acts), explained(world.test, decoded(params, acts)), recovered(params["W_dec"], world.truth))


def random_start(world: Planted, n_latents: int, seed: int = 0) -> Params:
    """Standard parameters with random decoder rows, one SAE per world."""
    rng = torch.Generator().manual_seed(1000 * seed)
    return init_sae(torch.randn(len(world.truth), n_latents, world.truth.shape[-1], generator=rng), world.data)


def contest(variants: dict[str, Variant], world: Planted, start: Params, **training) -> dict[tuple[str, float], Run]:
    """Every variant at each of its settings, from the same start on the same batches; shows its progress."""
    entries = [(name, setting) for name, variant in variants.items() for setting in variant.settings]
    return {(name, setting): run_variant(variants[name], setting, start, world, **training)
            for name, setting in tqdm(entries, desc="variants", unit="run")}


def nearest_in_l0(runs: dict[tuple[str, float], Run], target: float) -> dict[str, float]:
    """For each variant, the setting whose average number of latents per row is nearest to `target`."""
    names = dict.fromkeys(name for name, _ in runs)
    return {name: min((setting for other, setting in runs if other == name), key=lambda s: abs(float(runs[name, s].l0.mean()) - target))
            for name in names}


def rank_correlation(a: Float[Tensor, "run world"], b: Float[Tensor, "run world"]) -> Float[Tensor, " world"]:
    """Spearman's, in each world; equal values share their mean rank."""
    a, b = ((v[:, None] > v[None]).float().sum(1) + (v[:, None] == v[None]).float().sum(1) / 2 for v in (a, b))
    a, b = a - a.mean(0), b - b.mean(0)
    return (a * b).sum(0) / (a.norm(dim=0) * b.norm(dim=0))


def partial_rank_correlation(a: Float[Tensor, "run world"], b: Float[Tensor, "run world"], given: Float[Tensor, "run world"]
                             ) -> Float[Tensor, " world"]:
    """Spearman's of a and b, with what both owe to `given` taken out of their ranks."""
    ab, ag, bg = rank_correlation(a, b), rank_correlation(a, given), rank_correlation(b, given)
    return (ab - ag * bg) / ((1 - ag**2) * (1 - bg**2)).sqrt()


def remember_smallest(batch_acts: Callable[[Tensor, int], tuple[Tensor, Tensor]], batch: int = 256, n_batches: int = 40
                      ) -> Callable[[Params, Tensor, float], Params]:
    """A `finish` for variants whose rows compete in a batch: "smallest" [sae n_batches] holds the smallest value kept in each."""
    def finish(params: Params, data: Tensor, setting: float) -> Params:
        batches = data.split(batch, dim=1)[:n_batches]
        return params | {"smallest": torch.stack([batch_acts(pre_activations(params, x), setting)[1] for x in batches], dim=-1)}

    return finish


def above_threshold(params: Params, x: Float[Tensor, "sae n d_in"], setting: float) -> Float[Tensor, "sae n d_sae"]:
    """Latents in use of such a variant: what lies above the average of "smallest", whatever else is in the batch."""
    pre = pre_activations(params, x)
    return torch.where(pre > params["smallest"].mean(-1)[..., None, None], pre, 0)
