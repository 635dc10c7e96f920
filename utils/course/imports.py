"""Which files of `utils` a piece of Python imports, read from its text: nothing is run."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from utils.paths import ROOT


def utils_behind(code: str) -> list[Path]:
    """The files of all utils modules that `code` imports, directly or through another, sorted."""
    found: set[Path] = set()
    waiting = [code]
    while waiting:
        new = set(imported_files(waiting.pop())) - found
        found |= new
        waiting += [path.read_text("utf-8") for path in new]
    return sorted(found)


def imported_files(code: str) -> Iterator[Path]:
    """The utils files that `code` itself imports, in functions too; a name that a wing hands on leads to its own file."""
    for name in imported_modules(code):
        path = ROOT.joinpath(*name.split(".")).with_suffix(".py")
        if name.startswith("utils.") and path.is_file():
            yield path


def imported_modules(code: str) -> Iterator[str]:
    """The full names of what `code` itself imports: modules, and what is taken out of them."""
    for node in _running(ast.parse(code)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            held = handed_on(node.module)
            yield from (node.module, *(f"{node.module}.{held.get(alias.name, alias.name)}" for alias in node.names))


def handed_on(module: str) -> dict[str, str]:
    """What a wing hands on, and the module that holds it: its `NAMES`. Empty for any other module."""
    front = ROOT.joinpath(*module.split("."), "__init__.py")
    for node in ast.parse(front.read_text("utf-8")).body if module.startswith("utils") and front.is_file() else []:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "NAMES":
            return ast.literal_eval(node.value)
    return {}


def _running(node: ast.AST) -> Iterator[ast.AST]:
    """All below `node`, without what only a type checker reads."""
    yield node
    for child in ast.iter_child_nodes(node):
        if not (isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING"):
            yield from _running(child)
