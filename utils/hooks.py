"""Read and change activations, loudly.

TransformerLens ignores a misspelt hook name, hands back an empty cache when it stops one layer too
early, and never says that an intervention changed nothing. The functions here refuse, or say so.

One name per hook point: the canonical one, which the plain `TransformerBridge` and sae_lens'
`SAETransformerBridge` share. The old aliases (`hook_resid_post` and its kin) exist on the plain
bridge only, so a name of that kind is refused and its canonical name is given in the error.
"""

from __future__ import annotations

import difflib
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformer_lens.hook_points import HookPoint
from transformer_lens.model_bridge import TransformerBridge
from transformer_lens.model_bridge.exceptions import StopAtLayerException

HookFunction = Callable[[Tensor, HookPoint], Tensor]


class HookNameError(ValueError):
    """A hook name that this model does not have, or one that nothing passes through."""


class InterventionError(RuntimeError):
    """An intervention that did nothing, or that returned something the model cannot use."""


@dataclass
class HookRecord:
    """What one hook of `intervene` has done so far.

    Attributes:
        calls: how often the model called it (once per forward pass; once per new token in `generate`).
        changed: whether any of those calls returned values that differ from what it was given.
    """

    calls: int = 0
    changed: bool = False


def resid_pre(layer: int) -> str:
    """Name of the residual stream [batch, pos, d_model] that enters block `layer` (from 0).

    `resid_pre(0)` is the embeddings. Raises HookNameError for a negative layer.
    """
    return f"blocks.{_block_index(layer)}.hook_in"


def resid_post(layer: int) -> str:
    """Name of the residual stream [batch, pos, d_model] that leaves block `layer` (from 0).

    Hugging Face calls it `hidden_states[layer + 1]`, except after the last block, where theirs has
    gone through the final norm. Raises HookNameError for a negative layer.
    """
    return f"blocks.{_block_index(layer)}.hook_out"


def attn_out(layer: int) -> str:
    """Name of what the attention of block `layer` computes, [batch, pos, d_model].

    Most models add it to the residual stream as it is. A few (Gemma 2 and 3) normalise it first, in
    `blocks.N.ln1_post`. Raises HookNameError for a negative layer.
    """
    return f"blocks.{_block_index(layer)}.attn.hook_out"


def mlp_out(layer: int) -> str:
    """Name of what the MLP of block `layer` computes, [batch, pos, d_model].

    Most models add it to the residual stream as it is. A few (Gemma 2 and 3) normalise it first, in
    `blocks.N.ln2_post`. Raises HookNameError for a negative layer.
    """
    return f"blocks.{_block_index(layer)}.mlp.hook_out"


def _block_index(layer: int) -> int:
    if layer < 0:
        raise HookNameError(
            f"layer {layer}: layers are counted from 0 at the bottom. "
            "For the last one write model.cfg.n_layers - 1."
        )
    return layer


def check_hook_names(model: TransformerBridge, names: str | Iterable[str]) -> dict[str, HookPoint]:
    """Look up hook points by name and refuse any name that the model does not have.

    Hook points that an SAE left behind without their name get it back on the way: sae_lens puts a
    new point there on detaching, called "hook_out" instead of "blocks.3.hook_out", and every later
    hook that TransformerLens is asked to add at that point is dropped without a word.

    Args:
        model: the bridge, plain or sae_lens'.
        names: one name or several.

    Returns:
        {name: hook point}, in the order of `names`.

    Raises:
        HookNameError: no name was given, or a name is misspelt (the nearest right ones are in the
            message), an alias (its canonical name is), beyond the last layer, switched off in this
            model, or covered by an attached SAE.
    """
    registry = model._hook_registry
    for name, point in registry.items():
        # A point may be registered under a second name: leave a name alone that leads back to it.
        if isinstance(point, HookPoint) and registry.get(point.name) is not point:
            point.name = name
    names = [names] if isinstance(names, str) else list(names)
    if not names:
        raise HookNameError("no hook name was given.")
    for name in names:
        if not isinstance(registry.get(name), HookPoint):
            raise HookNameError(_why_unknown(model, name))
        try:
            model.check_hooks_to_add(name)
        except ValueError as switched_off:
            raise HookNameError(str(switched_off)) from None
    return {name: registry[name] for name in names}


def _why_unknown(model: TransformerBridge, name: str) -> str:
    registry = model._hook_registry
    if name in registry:
        inside = [other for other in registry if other.startswith(f"{name}.")]
        return f"an SAE is attached at {name!r}. Use one of its own hooks: {', '.join(inside)}."
    aliases = {**model.hook_aliases, **model._collect_hook_aliases_from_registry()}
    if name in aliases:
        targets = [aliases[name]] if isinstance(aliases[name], str) else aliases[name]
        canonical = next(target for target in targets if target in registry)
        return f"{name!r} is an alias that not every bridge knows: write {canonical!r}."
    block = re.match(r"blocks\.(\d+)\.", name)
    if block and int(block[1]) >= model.cfg.n_layers:
        return f"no hook point {name!r}: this model's layers are 0 to {model.cfg.n_layers - 1}."
    nearest = difflib.get_close_matches(name, registry, n=3, cutoff=0.5)
    hint = f"Nearest: {', '.join(nearest)}." if nearest else "model.hook_dict lists them all."
    return f"no hook point {name!r}. {hint}"


_LOCKS: WeakKeyDictionary[TransformerBridge, threading.RLock] = WeakKeyDictionary()
_MAKING = threading.Lock()


def _lock_of(model: TransformerBridge) -> threading.RLock:
    """The model's lock. A hook acts in every forward pass, whichever thread runs it: two threads would change each other's."""
    with _MAKING:
        return _LOCKS.setdefault(model, threading.RLock())


@contextmanager
def _attached(model: TransformerBridge, functions: Iterable[tuple[HookPoint, Callable]]) -> Iterator[None]:
    """Add these hooks, and take away these and no others at the end, whatever happens. Other threads wait until then."""
    added = []
    with _lock_of(model):
        try:
            for point, function in functions:
                point.add_hook(function)
                added.append((point, point.fwd_hooks[-1]))
            yield
        finally:
            for point, handle in added:
                handle.hook.remove()
                point.fwd_hooks = [other for other in point.fwd_hooks if other is not handle]


@torch.no_grad()
def run_with_cache(
    model: TransformerBridge,
    tokens: Int[Tensor, "batch pos"],
    names: str | Iterable[str],
) -> dict[str, Float[Tensor, "batch pos *dims"]]:
    """Run the model on tokens and keep the activations at the named hook points.

    The forward pass ends as soon as the last of them is there, so nothing above it is computed, and
    there is no layer number to get wrong. No gradient is recorded; the tensors can still be used to
    train a probe. Inside `intervene`, the cache holds the changed activations.

    Args:
        model: the bridge, plain or sae_lens'.
        tokens: token ids; rows shorter than `pos` are padded on the right (`tokenize` does it).
        names: canonical hook names, one or several.

    Returns:
        {name: activation}, on the model's device and in its dtype.

    Raises:
        HookNameError: a name is wrong (see `check_hook_names`), or nothing passed through its point.
        ValueError: tokens are not integers [batch, pos], are not in the vocabulary, or are more than
            the context holds.
    """
    check_tokens(model, tokens)
    points = check_hook_names(model, names)
    cache: dict[str, Tensor] = {}

    def keep(name: str) -> Callable:
        def hook(activation: Tensor, hook: HookPoint) -> None:
            cache[name] = activation.detach()
            if len(cache) == len(points):
                raise StopAtLayerException(activation)  # the bridge's forward catches it

        return hook

    with _attached(model, [(point, keep(name)) for name, point in points.items()]):
        model(tokens, return_type=None)
    missing = [name for name in points if name not in cache]
    if missing:
        raise HookNameError(f"nothing passed through {', '.join(missing)} in this forward pass.")
    return {name: cache[name] for name in points}


def check_tokens(model: TransformerBridge, tokens: Int[Tensor, "n pos"]) -> None:
    """Refuse tokens that the model would take for something else, or not take at all.

    The bridge reads a float tensor as embeddings and a flat one as a batch of one, in silence.

    Raises:
        ValueError: tokens are not integers [n, pos] with n and pos at least 1, are not in the
            vocabulary, or are more than the context holds.
    """
    if not isinstance(tokens, Tensor) or tokens.is_floating_point() or tokens.dtype == torch.bool:
        kind = tokens.dtype if isinstance(tokens, Tensor) else type(tokens).__name__
        raise ValueError(f"tokens must be a tensor of integers, not {kind}.")
    if tokens.dtype not in (torch.int64, torch.int32):
        raise ValueError(f"tokens must be int64 or int32, not {_plain(tokens.dtype)}: smaller integers cannot hold a vocabulary. Write tokens.long().")
    if tokens.ndim != 2 or tokens.numel() == 0:
        raise ValueError(f"tokens must have the shape [n, pos], at least [1, 1]; got {list(tokens.shape)}.")
    if tokens.shape[1] > model.cfg.n_ctx:
        raise ValueError(f"{tokens.shape[1]} tokens in a row: the model's context holds {model.cfg.n_ctx}.")
    if tokens.min() < 0 or tokens.max() >= model.cfg.d_vocab:
        raise ValueError(
            f"token ids run from {int(tokens.min())} to {int(tokens.max())}: "
            f"the vocabulary has 0 to {model.cfg.d_vocab - 1}."
        )


@contextmanager
def intervene(
    model: TransformerBridge, hooks: Mapping[str, HookFunction], *, may_do_nothing: bool = False
) -> Iterator[dict[str, HookRecord]]:
    """Change activations while the block runs, and prove that they were changed.

    Each function is called as fn(activation, hook) with a copy of the activation, in every forward
    pass of this model, and the model goes on with what it returns. Within `model.generate` it first
    sees the whole prompt [batch, pos, d_model], then one new position at a time [batch, 1, d_model].
    Nested uses compose: at the same point the inner one receives what the outer one returned.

    >>> from utils.models import tiny_model
    >>> model = tiny_model()
    >>> double = {resid_post(1): lambda activation, hook: 2 * activation}
    >>> with intervene(model, double) as done:
    ...     logits = model(torch.tensor([[1, 5, 9]]))
    >>> done
    {'blocks.1.hook_out': HookRecord(calls=1, changed=True)}

    Args:
        model: the bridge, plain or sae_lens'.
        hooks: {canonical hook name: function}. While the block runs, other threads wait that would hook this model.
        may_do_nothing: do not raise at the end when a hook never ran or never changed anything.

    Yields:
        {name: HookRecord}, kept up to date while the block runs.

    Raises:
        HookNameError: before anything runs, when a name is wrong.
        TypeError: `hooks` is no mapping of names to functions.
        InterventionError: at once, when a function does not return a finite tensor of the shape,
            dtype and device that it was given; at the end of the block, when a hook never ran or
            never changed anything. An exception from inside the block is passed on as it is.
            The hooks are gone in every case.
    """
    if not isinstance(hooks, Mapping) or not all(callable(function) for function in hooks.values()):
        raise TypeError("hooks must be {hook name: function}, such as {resid_post(3): lambda activation, hook: 2 * activation}.")
    points = check_hook_names(model, hooks)
    records = {name: HookRecord() for name in points}

    def recorded(name: str) -> Callable:
        def hook(activation: Tensor, hook: HookPoint) -> Tensor:
            # The copy keeps an in-place edit from hiding the original, which tells what changed.
            result = hooks[name](activation.clone(), hook)
            _check_result(name, activation, result)
            records[name].calls += 1
            records[name].changed = records[name].changed or not torch.equal(result, activation)
            return result

        return hook

    with _attached(model, [(point, recorded(name)) for name, point in points.items()]):
        yield records
    # Not in a `finally`: an exception already on its way out must not be replaced by this one.
    if not may_do_nothing:
        for name, record in records.items():
            if not record.changed:
                what = f"ran {record.calls} times and changed nothing" if record.calls else "never ran"
                raise InterventionError(
                    f"the intervention at {name} {what}. "
                    "If that is what you want, pass may_do_nothing=True."
                )


def _check_result(name: str, activation: Tensor, result: Tensor) -> None:
    if result is None:
        raise InterventionError(f"the function at {name} returned None: end it with `return activation`.")
    if not isinstance(result, Tensor):
        raise InterventionError(
            f"the function at {name} returned a {type(result).__name__}, not a tensor."
        )
    for what in ("shape", "dtype", "device"):
        given, got = getattr(activation, what), getattr(result, what)
        if given != got:
            raise InterventionError(
                f"the function at {name} was given {what} {_plain(given)} "
                f"and returned {what} {_plain(got)}."
            )
    if not result.isfinite().all():
        source = "" if activation.isfinite().all() else ", and was given such values already"
        raise InterventionError(f"the function at {name} returned NaN or infinity{source}.")


def _plain(value: torch.Size | torch.dtype | torch.device) -> str:
    return str(list(value)) if isinstance(value, torch.Size) else str(value)


def is_edited(model: TransformerBridge) -> bool:
    """Whether anything attached to the model may change what it computes.

    True with a hook at any hook point, an attached SAE, or a PyTorch hook of yours on any module.
    The bookkeeping hooks that the libraries put on their own modules do not count.
    """
    points = list(model._hook_registry.values())
    if any(not isinstance(point, HookPoint) for point in points):
        return True
    libraries = ("transformers.", "transformer_lens.", "accelerate.")
    for module in [*points, model, *model.original_model.modules()]:
        own = () if isinstance(module, HookPoint) else libraries
        for hook in [*module._forward_hooks.values(), *module._forward_pre_hooks.values()]:
            if not getattr(hook, "__module__", "").startswith(own):
                return True
    return False
