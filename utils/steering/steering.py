"""Steer a model while it writes: add a direction, or edit the latents of an SAE, and generate many texts at once.

Everything here is a context manager on `utils.hooks.intervene`, so it works for generation, for log-probabilities and for
anything else that runs the model inside the block. Three kinds of token are left alone by every edit: the first of a text,
those whose norm is more than three times the usual (see `collect_activations`), and padding.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from utils.activations import collect_activations
from utils.hooks import intervene
from utils.steering.reach import PASS, Reach, SteeringError, check_length, last_real


@dataclass(frozen=True)
class Condition:
    """When to steer: the prompts whose mean activation at `name` has a product with `direction` above `threshold`.

    The mean goes over the tokens that an edit may touch. The decision is made once for each prompt, and holds for what is
    generated after it. Lee et al. 2024, arXiv:2409.05907, use a cosine; a product has the threshold of a probe.

    Attributes:
        name: a hook point that the model reaches no later than the one that is steered.
        direction: [d_model].
        threshold: in the units of the product.
    """

    name: str
    direction: Float[Tensor, " d_model"]
    threshold: float


@contextmanager
def steer(
    model: TransformerBridge,
    name: str,
    direction: Float[Tensor, " d_model"],
    strength: float,
    *,
    positions: str = "all",
    condition: Condition | None = None,
) -> Iterator[None]:
    """Add strength * direction to the activations at one hook point while the block runs.

    Args:
        model: the bridge, plain or sae_lens'.
        name: canonical hook name of a point that holds [batch, pos, d_model].
        direction: its own length counts; a strength in multiples of the usual norm needs a unit vector (`usual_norm`).
        strength: negative pushes the other way; 0 changes nothing, and is allowed.
        positions: "all" (the prompt and every new token), "prompt" (the prompt alone), or "last" (the token that the next
            one is predicted from: the last of the prompt, then each new one).
        condition: steer only the prompts that meet it.

    Raises:
        HookNameError, InterventionError: see `intervene`. A push of nothing but padding and first tokens is an error,
            except with a strength of 0 or a condition.
        SteeringError: a direction of another width, of length 0 or not finite; unknown positions; a condition that is
            read after the steering has taken place.

    Source: Turner et al. 2023, arXiv:2308.10248; Rimsky et al. 2024, arXiv:2312.06681.
    """
    if positions not in ("all", "prompt", "last"):
        raise SteeringError(f'positions must be "all", "prompt" or "last", not {positions!r}.')
    if not math.isfinite(strength):
        raise SteeringError(f"the strength must be a finite number, not {strength}.")
    step = strength * _checked(model, direction, "direction")
    check_length(step, f"a strength of {strength:g}")
    reach, gate = Reach(), None if condition is None else _Gate(model, condition)

    def push(acts: Float[Tensor, "batch pos d_model"], hook: object) -> Float[Tensor, "batch pos d_model"]:
        where, prompt = reach(acts)
        if positions == "prompt" and not prompt:
            return acts
        if positions == "last" and prompt:
            known = PASS.get()
            where = where & last_real(torch.ones_like(where) if known is None else known.real)
        if gate is not None:
            where = where & gate.open_for(acts, prompt)[:, None]
        return acts + where[..., None] * step.to(acts)

    if gate is None:
        with intervene(model, {name: push}, may_do_nothing=strength == 0):
            yield
    else:
        # The reader is entered first, so that at a shared hook point it sees the activation before the push.
        with intervene(model, {condition.name: gate.read}, may_do_nothing=True):
            with intervene(model, {name: push}, may_do_nothing=True):
                yield


@contextmanager
def change_usual(
    model: TransformerBridge, name: str,
    change: Callable[[Float[Tensor, "batch pos d_model"], Bool[Tensor, "batch pos"]], Float[Tensor, "batch pos d_model"]],
) -> Iterator[None]:
    """Let change(activations, usual) take the place of the activations at one hook point while the block runs.

    `usual` is True at the tokens that an edit may touch. Nothing is done about the others: that is `change`'s duty.

    Raises: HookNameError, InterventionError (see `intervene`); a change that does nothing is allowed.
    """
    reach = Reach()

    def hook(acts: Float[Tensor, "batch pos d_model"], hook: object) -> Float[Tensor, "batch pos d_model"]:
        return change(acts, reach(acts)[0])

    with intervene(model, {name: hook}, may_do_nothing=True):
        yield


class _Gate:
    """Reads the prompt, and remembers which rows are to be steered."""

    def __init__(self, model: TransformerBridge, condition: Condition) -> None:
        self._direction = _checked(model, condition.direction, "condition's direction")
        self._condition, self._reach = condition, Reach()
        self._open: Bool[Tensor, " batch"] | None = None
        self._fresh = False

    def read(self, acts: Float[Tensor, "batch pos d_model"], hook: object) -> Float[Tensor, "batch pos d_model"]:
        where, prompt = self._reach(acts)
        if prompt:
            mean = torch.einsum("bpd,bp->bd", acts.float(), where / where.sum(1, keepdim=True).clamp(min=1))
            self._open, self._fresh = mean @ self._direction.to(mean) > self._condition.threshold, True
        return acts

    def open_for(self, acts: Float[Tensor, "batch pos d_model"], prompt: bool) -> Bool[Tensor, " batch"]:
        if prompt and not self._fresh:
            raise SteeringError(f"the condition at {self._condition.name} is read after the steering: read it at the same hook point or at an earlier one.")
        self._fresh = False if prompt else self._fresh
        return self._open


def usual_norm(model: TransformerBridge, texts: Sequence[str], name: str) -> float:
    """The median length of the activations at `name` over the tokens of some texts, the first and the outliers left out.

    Strengths are comparable over layers and models when they are multiples of it. Raises: see `collect_activations`.
    """
    return float(collect_activations(model, texts, name, position="all", progress=False).acts.norm(dim=1).median())


def _checked(model: TransformerBridge, direction: Float[Tensor, " d_model"], what: str) -> Float[Tensor, " d_model"]:
    if not isinstance(direction, Tensor) or direction.shape != (model.cfg.d_model,):
        shape = list(direction.shape) if isinstance(direction, Tensor) else type(direction).__name__
        raise SteeringError(f"the {what} must be a tensor [{model.cfg.d_model}], as wide as this model; got {shape}.")
    if not direction.isfinite().all() or not direction.any():
        raise SteeringError(f"the {what} is {'zero' if not direction.any() else 'NaN or infinite'}: it points nowhere.")
    return direction.detach()
