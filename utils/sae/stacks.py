"""Small SAEs, many side by side: every tensor may carry a leading axis of SAEs, and one matrix product serves them all.

Chapter 22 writes the functions of the first half by hand; chapter 25 builds on them. An SAE is a dict of tensors:
"W_enc" [*sae d_in d_sae], "b_enc" [*sae d_sae], "W_dec" [*sae d_sae d_in], "b_dec" [*sae d_in].
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import normalize

Params = dict[str, Tensor]
Gradients = Callable[[Params, Tensor, Tensor], tuple[Params, Tensor]]
"""`gradients(params, x, dead)` gives one gradient per parameter, each SAE's own, and the latents."""
After = Callable[[int, Params, dict, Tensor, Tensor], None]
"""`after(step, params, state, x, dead)` may look, or meddle, when a step is done."""
BATCH, PATIENCE = 256, 100
"""Rows of a step; steps without firing after which a latent counts as dead."""


def init_sae(rows: Float[Tensor, "*sae d_sae d_in"], x: Float[Tensor, "*sae n d_in"]) -> Params:
    """Unit decoder rows, their transpose as encoder, no encoder bias, the mean activation as origin."""
    W_dec = normalize(rows, dim=-1)
    return {"W_dec": W_dec, "W_enc": W_dec.mT.clone(), "b_enc": torch.zeros_like(W_dec[..., 0]), "b_dec": x.mean(dim=-2)}


def pre_activations(params: Params, x: Float[Tensor, "*sae n d_in"]) -> Float[Tensor, "*sae n d_sae"]:
    """What the encoder gives before any non-linearity."""
    return (x - params["b_dec"].unsqueeze(-2)) @ params["W_enc"] + params["b_enc"].unsqueeze(-2)


def decoded(params: Params, acts: Float[Tensor, "*sae n d_sae"]) -> Float[Tensor, "*sae n d_in"]:
    """The reconstruction from latents."""
    return acts @ params["W_dec"] + params["b_dec"].unsqueeze(-2)


def sae_forward(params: Params, x: Float[Tensor, "*sae n d_in"]) -> tuple[Float[Tensor, "*sae n d_sae"], Float[Tensor, "*sae n d_in"]]:
    """Latents and reconstruction of a ReLU autoencoder."""
    acts = pre_activations(params, x).relu()
    return acts, decoded(params, acts)


def squared_error(params: Params, x: Float[Tensor, "*sae n d_in"], acts: Float[Tensor, "*sae n d_sae"]) -> Float[Tensor, "*sae"]:
    """Summed over the dimensions, averaged over the rows."""
    return (x - decoded(params, acts)).square().sum(-1).mean(-1)


def explained(x: Float[Tensor, "*sae n d_in"], x_hat: Float[Tensor, "*sae n d_in"]) -> Float[Tensor, "*sae"]:
    """The share of the variance about the mean that a reconstruction explains."""
    return 1 - (x - x_hat).square().sum((-1, -2)) / (x - x.mean(-2, keepdim=True)).square().sum((-1, -2))


def l0(acts: Float[Tensor, "*sae n d_sae"]) -> Float[Tensor, "*sae"]:
    """How many latents are on in a row, on average."""
    return (acts > 0).float().sum(-1).mean(-1)


def l1_loss(params: Params, x: Float[Tensor, "*sae n d_in"], l1: float) -> Float[Tensor, "*sae"]:
    """Squared error, plus `l1` times each latent's value times the length of its decoder row, averaged over rows."""
    acts = sae_forward(params, x)[0]
    return squared_error(params, x, acts) + l1 * (acts * params["W_dec"].norm(dim=-1).unsqueeze(-2)).sum(-1).mean(-1)


def topk_acts(pre: Float[Tensor, "*sae n d_sae"], k: int) -> Float[Tensor, "*sae n d_sae"]:
    """The k largest latents of every row where they are positive, the others 0."""
    values, places = pre.relu().topk(k, dim=-1)
    return torch.zeros_like(pre).scatter(-1, places, values)


def tangent(W_dec: Float[Tensor, "*sae d_sae d_in"], grad: Float[Tensor, "*sae d_sae d_in"]) -> Float[Tensor, "*sae d_sae d_in"]:
    """The part of a gradient that turns unit rows, without the part that stretches them."""
    return grad - (grad * W_dec).sum(-1, keepdim=True) * W_dec


def by_autograd(loss: Callable[[Params, Tensor, Tensor], tuple[Tensor, Tensor]]) -> Gradients:
    """Make `gradients` of a function of (params, x, dead) that returns one loss per SAE, and the latents."""
    def gradients(params: Params, x: Tensor, dead: Tensor) -> tuple[Params, Tensor]:
        leaves = {name: value.detach().requires_grad_() for name, value in params.items()}
        value, acts = loss(leaves, x, dead)
        return dict(zip(leaves, torch.autograd.grad(value.sum(), list(leaves.values())))), acts.detach()

    return gradients


def adam(params: Params, grads: Params, state: dict[str, dict[str, Tensor]], step: int, rate: float) -> None:
    """One step of Adam, in place. `state` holds its two running averages of each parameter: "exp_avg", "exp_avg_sq"."""
    for name, grad in grads.items():
        kept = state.setdefault(name, {"exp_avg": torch.zeros_like(grad), "exp_avg_sq": torch.zeros_like(grad)})
        first, second = kept["exp_avg"].lerp_(grad, 0.1), kept["exp_avg_sq"].lerp_(grad.square(), 0.001)
        params[name] -= rate * (first / (1 - 0.9**step)) / ((second / (1 - 0.999**step)).sqrt() + 1e-8)


def train(gradients: Gradients, params: Params, data: Float[Tensor, "sae n d_in"], *, steps: int = 1000, rate: float = 3e-3,
          seed: int = 0, unit: bool = True, project: Callable[[Tensor, Tensor], Tensor] = tangent, after: After | None = None) -> Params:
    """Train a stack of SAEs by Adam on batches of 256 rows; the rate falls to 0 over the last 30% of the steps.

    Args:
        params: where it starts; left as they are.
        unit: keep decoder rows at length 1, and pass their gradient through `project(W_dec, grad)` first.
        after: called behind every step with (step, params, state, x, dead). What it changes in place stays changed.

    Returns: new parameters.
    """
    params = {name: value.detach().clone() for name, value in params.items()}
    state, generator = {}, torch.Generator().manual_seed(1000 * seed + 1)
    idle = torch.zeros(params["W_dec"].shape[:-1])
    for step in range(1, steps + 1):
        x = data[:, torch.randint(data.shape[1], (BATCH,), generator=generator)]
        grads, acts = gradients(params, x, idle > PATIENCE)
        if unit:
            grads["W_dec"] = project(params["W_dec"], grads["W_dec"])
        adam(params, grads, state, step, rate * min(1, (steps - step) / (0.3 * steps)))
        if unit:
            params["W_dec"] = normalize(params["W_dec"], dim=-1)
        idle = torch.where((acts > 0).any(-2), 0, idle + 1)
        if after:
            after(step, params, state, x, idle > PATIENCE)
    return params


def resampling(at: tuple[int, ...], resample: Callable[[Params, Tensor, Tensor, Tensor], Params],
               acts: Callable[[Params, Tensor], Tensor]) -> After:
    """An `after` for `train`: at these steps the dead latents of each SAE start again, and Adam forgets them.

    Args:
        resample: (params, x, x_hat, dead) of one SAE -> new parameters, as chapter 22's `resample_dead`.
        acts: (params, x) -> latents.
    """
    def after(step: int, params: Params, state: dict, x: Tensor, dead: Tensor) -> None:
        if step not in at:
            return
        x_hat = decoded(params, acts(params, x))
        for s in range(len(x)):
            new = resample({name: value[s] for name, value in params.items()}, x[s], x_hat[s], dead[s])
            for name in params:
                params[name][s] = new[name]
        for key in ("exp_avg", "exp_avg_sq"):
            state["W_dec"][key][dead] = 0
            state["b_enc"][key][dead] = 0
            state["W_enc"][key].mT[dead] = 0

    return after


def watching(look: Callable[[Params, Tensor], Tensor], every: int = 50) -> tuple[list[Tensor], After]:
    """A list, and an `after` for `train` that appends `look(params, dead)` to it at every so many steps."""
    curve: list[Tensor] = []

    def after(step: int, params: Params, state: dict, x: Tensor, dead: Tensor) -> None:
        if step % every == 0:
            curve.append(look(params, dead))

    return curve, after
