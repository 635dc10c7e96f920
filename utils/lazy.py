"""A wing's front door: the few names that learners use, each imported when somebody asks for it."""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import Any


def hand_on(wing: str, names: dict[str, str]) -> None:
    """Let `wing` hand on `names`, each with the module of the wing that holds it: {"SAE": "model"}.

    Nothing is loaded until a name is asked for. A name that a module shares (`ledger`, of `ledger.py`) means what is
    handed on, whoever imported the module before.
    """
    package = sys.modules[wing]
    package.__class__ = type("Wing", (_Wing,), {"_names": names})


class _Wing(ModuleType):
    """A package that loads what it hands on when it is asked for it."""

    _names: dict[str, str]

    def __getattr__(self, name: str) -> Any:
        if name not in self._names:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        return getattr(import_module(f"{self.__name__}.{self._names[name]}"), name)

    def __setattr__(self, name: str, value: Any) -> None:
        # Python binds every loaded submodule to its package, and would so hide the function of the same name.
        if not (name in self._names and isinstance(value, ModuleType)):
            super().__setattr__(name, value)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *self._names})
