"""Edit the latents of an SAE while the model runs; what the SAE does not explain stays as it is."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from utils.hooks import InterventionError, intervene
from utils.sae.model import AnySAE, check_fits
from utils.steering.reach import Reach, SteeringError, check_length


@dataclass(frozen=True)
class Edit:
    """What happens to a latent's value f: f -> factor * f + amount. Made by `clamp`, `add`, `scale` and `ablate`."""

    factor: float
    amount: float

    @property
    def needs_firing(self) -> bool:
        """Whether it changes nothing where the latent is silent."""
        return self.amount == 0


def clamp(value: float) -> Edit:
    """Hold the latent at `value`, whether it fires or not."""
    return Edit(0.0, value)


def add(value: float) -> Edit:
    """Raise the latent by `value` everywhere, also where it is silent."""
    return Edit(1.0, value)


def scale(factor: float) -> Edit:
    """Multiply the latent where it fires."""
    return Edit(factor, 0.0)


def ablate() -> Edit:
    """Switch the latent off."""
    return Edit(0.0, 0.0)


@contextmanager
def edit_latents(
    model: TransformerBridge,
    sae: AnySAE,
    edits: Mapping[int, Edit],
    *,
    error_term: bool = True,
    name: str | None = None,
    may_do_nothing: bool = False,
) -> Iterator[None]:
    """Change latents of an SAE while the block runs: x' = x + decode(f') - decode(f), where f' is the edited f = encode(x).

    What the SAE does not explain, the error term x - decode(f), stays as it was. The hooks are gone afterwards in every case.

    Args:
        model: the bridge.
        sae: an `utils.sae.model.SAE`, or one of sae_lens'.
        edits: {latent: clamp(4.0), add(2.0), scale(0.5) or ablate()}.
        error_term: False drops the error term: x' = decode(f').
        name: the hook point, for an SAE that does not say its own.
        may_do_nothing: do not raise when the latents never fired.

    Raises:
        SteeringError: an unknown latent; no edits; an edit that is none, or not finite; at the end of the block, latents that were to be scaled or ablated
            and never fired.
        SAEError, HookNameError, InterventionError: see `utils.sae.model.check_fits` and `intervene`.
    """
    d_sae = sae.W_dec.shape[0]
    if not edits:
        raise SteeringError("no edits were given: write {latent: clamp(4.0)}, for one.")
    for latent in edits:
        if isinstance(latent, bool) or not isinstance(latent, (int, np.integer)) or not 0 <= latent < d_sae:
            raise SteeringError(f"there is no latent {latent!r}: this SAE has latents 0 to {d_sae - 1}.")
        edit = edits[latent]
        if not isinstance(edit, Edit):
            raise SteeringError(f"latent {latent} is to become {edit!r}: write clamp({edit!r}), add(...), scale(...) or ablate().")
        if not (math.isfinite(edit.factor) and math.isfinite(edit.amount)):
            raise SteeringError(f"latent {latent} is to become {edit.factor} * f + {edit.amount}: these must be finite numbers.")
    latents = torch.tensor(list(edits), device=sae.W_dec.device)
    factor = torch.tensor([edit.factor for edit in edits.values()], device=latents.device)
    amount = torch.tensor([edit.amount for edit in edits.values()], device=latents.device)
    reach = Reach()

    @torch.no_grad()
    def change(acts: Float[Tensor, "batch pos d_model"], hook: object) -> Float[Tensor, "batch pos d_model"]:
        where, _ = reach(acts)
        x = acts[where].to(sae.W_dec)
        if not len(x):
            return acts
        before = sae.encode(x)
        after = before.clone()
        after[:, latents] = factor.to(before) * before[:, latents] + amount.to(before)
        # The brackets matter: where nothing was edited, the difference is exactly zero.
        result = x + (sae.decode(after) - sae.decode(before)) if error_term else sae.decode(after)
        check_length(result, "this edit")
        changed = acts.clone()
        changed[where] = result.to(acts)
        return changed

    place = check_fits(model, sae, name)
    with intervene(model, {place: change}, may_do_nothing=True) as done:
        yield
    if not may_do_nothing and not done[place].changed:
        if done[place].calls and error_term and all(edit.needs_firing for edit in edits.values()):
            raise SteeringError(f"nothing was changed: latent {', '.join(map(str, edits))} never fired on these tokens. "
                                "Choose other texts or latents, or pass may_do_nothing=True.")
        raise InterventionError(f"the edit at {place} {'changed nothing' if done[place].calls else 'never ran'}. If that is what you want, pass may_do_nothing=True.")
