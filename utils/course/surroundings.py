"""What surrounds a call of an answer and is not the answer's to change: seen, said, and put back."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch


class Surroundings:
    """What an answer may not change, as it was before the call."""

    def __init__(self, args: list[Any]) -> None:
        self.args = args
        self.modules = _modules_of(args)
        self.hooks, parameters = _hooks_on(self.modules), _parameters_of(self.modules)
        self.grad, self.dtype, self.random = torch.is_grad_enabled(), torch.get_default_dtype(), torch.get_rng_state()
        self.python, self.numpy, self.strict = random.getstate(), np.random.get_state(), torch.are_deterministic_algorithms_enabled()
        self.device, self.errors, self.anomaly = torch.get_default_device(), np.geterr(), torch.is_anomaly_enabled()
        self.asked = [x.requires_grad for x in tensors_of(args)]
        self.training = [module.training for module in self.modules]
        self.trainable = [p.requires_grad for p in parameters]
        self.weights = _versions(parameters)

    def _weights_back(self) -> None:
        """Give the tiny models of the cases their weights again, which follow from their seed."""
        from utils.models import tiny_model

        for model in self.args:
            if (seed := getattr(model, "tiny_seed", None)) is not None:
                for damaged, whole in zip(model.parameters(), tiny_model(seed).parameters()):
                    damaged.data = whole.data

    def restore(self) -> tuple[int, list[str]]:
        """Put back what can be put back. Returns how many hooks were left behind, and what else had changed, in words."""
        changes, modules = [], _modules_of(self.args)
        parameters = _parameters_of(modules)
        if torch.get_default_device() != self.device:  # first of all: what follows makes tensors
            torch.set_default_device(None if self.device.type == "cpu" else self.device)
            changes.append("torch's default device (write `device=x.device`)")
        if torch.is_grad_enabled() != self.grad:
            torch.set_grad_enabled(self.grad)
            changes.append("whether torch records gradients (use `with torch.no_grad():`)")
        if torch.get_default_dtype() != self.dtype:
            torch.set_default_dtype(self.dtype)
            changes.append("torch's default dtype")
        if not torch.equal(torch.get_rng_state(), self.random):
            torch.set_rng_state(self.random)
            changes.append("torch's random state (nothing here is random, or a generator is passed in)")
        if random.getstate() != self.python:
            random.setstate(self.python)
            changes.append("Python's random state (nothing here is random)")
        if _has_moved(self.numpy):
            np.random.set_state(self.numpy)
            changes.append("NumPy's random state (nothing here is random; `np.random.default_rng(seed)` has one of its own)")
        if torch.are_deterministic_algorithms_enabled() != self.strict:
            torch.use_deterministic_algorithms(self.strict)
            changes.append("whether torch insists on deterministic algorithms")
        if np.geterr() != self.errors:
            np.seterr(**self.errors)
            changes.append("what NumPy does about division by zero and its like (use `with np.errstate(...):`)")
        if torch.is_anomaly_enabled() != self.anomaly:
            torch.autograd.set_detect_anomaly(self.anomaly)
            changes.append("whether torch looks for anomalies in gradients")
        if [x.requires_grad for x in tensors_of(self.args)] != self.asked:
            changes.append("requires_grad of an argument")
        if [module.training for module in self.modules] != self.training:
            for module, training in zip(self.modules, self.training):
                module.training = training
            changes.append("the model's training flag")
        if [p.requires_grad for p in parameters] != self.trainable:
            for p, trainable in zip(parameters, self.trainable):
                p.requires_grad_(trainable)
            changes.append("requires_grad of the model's weights")
        if _versions(parameters) != self.weights:
            self._weights_back()
            changes.append("the model's weights")
        now = _hooks_on(modules)
        known = {(id(hooks), key) for hooks, key in self.hooks}
        left = [(hooks, key) for hooks, key in now if (id(hooks), key) not in known]
        for hooks, key in left:
            hooks.pop(key, None)
        if len(now) - len(left) < len(self.hooks):
            changes.append("the hooks that were on the model before: they are gone")
        return len(left), changes


def _has_moved(before: tuple[Any, ...]) -> bool:
    """Is NumPy's global random state another one than this?"""
    (name, keys, *rest), (old_name, old_keys, *old_rest) = np.random.get_state(), before
    return (name, rest) != (old_name, old_rest) or not np.array_equal(keys, old_keys)


def _modules_of(args: Iterable[Any]) -> list[torch.nn.Module]:
    """Every module of the models among `args`, once. A bridge is so deeply nested that `.modules()` takes longer than to run it."""
    found, waiting = {}, [model for model in args if isinstance(model, torch.nn.Module)]
    while waiting:
        module = waiting.pop()
        if id(module) not in found:
            found[id(module)] = module
            waiting += [inner for inner in module._modules.values() if inner is not None]
    return list(found.values())


def _parameters_of(modules: Iterable[torch.nn.Module]) -> list[torch.nn.Parameter]:
    return list({id(p): p for module in modules for p in module._parameters.values() if p is not None}.values())


def _versions(parameters: Iterable[torch.nn.Parameter]) -> list[tuple[int, int]]:
    """A version counts every change in place, a pointer tells a replaced tensor: no weight has to be read."""
    return [(p._version, p.data_ptr()) for p in parameters]


def _hooks_on(modules: Iterable[torch.nn.Module]) -> list[tuple[dict, int]]:
    """(dictionary, key) of every hook on these modules, but for those that the libraries keep for themselves."""
    found = []
    for module in modules:
        for hooks in (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks):
            found += [(hooks, key) for key, hook in hooks.items() if hasattr(module, "fwd_hooks") or not _is_the_librarys(hook)]
    return found


def _is_the_librarys(hook: Callable) -> bool:
    # On a hook point every hook is somebody's, wrapped by the library; elsewhere its own module tells whose it is.
    return (getattr(hook, "__module__", None) or "").split(".")[0] in ("transformer_lens", "transformers")


def tensors_of(value: Any) -> list[torch.Tensor]:
    """Every tensor in a nest of lists, tuples and dicts."""
    if isinstance(value, torch.Tensor):
        return [value]
    items = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ()
    return [tensor for item in items for tensor in tensors_of(item)]
