"""Which statements of a notebook a name depends on: names are followed backwards, and the rest is never run.

A cell is read as IPython reads it. Each top-level statement is then described by the names that it binds, uses and
changes (`table.append(3)`, `table["k"] = 3`), and by what the functions that it defines change when they are called.
A name depends on every statement that binds or changes it, and on the names that these use.
"""

from __future__ import annotations

import ast
import builtins
import codeop
import dis
import linecache
import re
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from types import CodeType

ANYTHING = "*"
"""What `from x import *`, `exec` and their kin bind: it may be any name."""
_AWAIT = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
_LOADS = {"LOAD_NAME", "LOAD_GLOBAL", "LOAD_FROM_DICT_OR_GLOBALS"}
_STORES = {"STORE_NAME", "STORE_GLOBAL", "DELETE_NAME", "DELETE_GLOBAL"}
_DEFINES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
_WILD = {"exec", "globals", "vars", "locals"}
_WILD_ATTRIBUTES = {"user_ns", "run_cell", "ex", "push", "__main__"}
_PYTHON_MAGICS = {"time", "prun"}
"""Magics whose text is Python and binds names in the notebook; `%%capture` does as well."""
_CHANGING = set("append appendleft extend insert remove pop popleft popitem clear sort reverse update add discard setdefault "
                "load_state_dict seed manual_seed send write".split())
_SETTING = re.compile("set|seed|manual_seed|use_|enable|disable|filter|simplefilter|append|insert|update|register")
_ONLY_LOOK = {"check", "hint", "solution", "progress", "show", "claim", "ledger", "display", *dir(builtins)} - {"setattr", "delattr"}
"""Called on a value, these leave it as it is."""


@dataclass(frozen=True)
class Statement:
    """One top-level statement. `later`: what calling the functions that it defines changes. `plain`: it calls nothing."""

    cell: int
    node: ast.stmt
    parts: tuple[ast.AST, ...]
    code: CodeType
    binds: frozenset[str] = frozenset()
    uses: frozenset[str] = frozenset()
    changes: frozenset[str] = frozenset()
    later: frozenset[str] = frozenset()
    plain: bool = False


@dataclass(frozen=True)
class Broken:
    """A cell that Python cannot parse or compile, and why. A kernel runs nothing of it, or stops there."""

    cell: int
    error: str


def read_cells(cells: Iterable[tuple[int, str]], transform: Callable[[str], str],
               knows_magic: Callable[[str], bool]) -> tuple[list[Statement], list[Broken]]:
    """Every top-level statement of the code cells (number, source), in order.

    Args:
        transform: IPython's `transform_cell`.
        knows_magic: whether a line magic exists. One that does not stops its cell, so what follows it is left out.
    """
    cells = list(cells)
    compiler, statements, broken = codeop.Compile(), [], []  # remembers `from __future__` for later cells, as IPython's does
    compiler.flags = _AWAIT
    extended = any("%load_ext" in source or "%reload_ext" in source for _, source in cells)  # these bring magics of their own
    for number, source in cells:
        filename = f"<cell {number}>"
        try:
            nodes, text = _parse(source, transform)
            linecache.cache[filename] = (len(text), None, text.splitlines(keepends=True), filename)
            for node in _runnable(nodes, transform, (lambda name: True) if extended else knows_magic):
                statements.append(_describe(number, node, compiler(ast.Module([node], []), filename, "exec")))
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            broken.append(Broken(number, f"{type(error).__name__}: {error}"))
    libraries, functions = _libraries(statements), _functions(statements)
    return [_with_changes(st, libraries, functions) for st in statements], broken


def _parse(source: str, transform: Callable[[str], str]) -> tuple[list[ast.stmt], str]:
    """The statements, and the text that they come from. What is Python already is the same to IPython."""
    try:
        return compile(source, "<cell>", "exec", ast.PyCF_ONLY_AST | _AWAIT, dont_inherit=True).body, source
    except (SyntaxError, ValueError):
        text = transform(source)
        return compile(text, "<cell>", "exec", ast.PyCF_ONLY_AST | _AWAIT, dont_inherit=True).body, text


def _runnable(nodes: list[ast.stmt], transform: Callable[[str], str], knows_magic: Callable[[str], bool]) -> Iterator[ast.stmt]:
    """The statements that a kernel reaches, those inside Python magics in place of the magic."""
    for node in nodes:
        kind, name, arguments = _magic(node)
        if kind == "run_cell_magic" and name in {*_PYTHON_MAGICS, "capture"}:
            found = re.match(r"\s*([^\W\d]\w*)", arguments[1])
            if name == "capture" and found:
                yield from ast.parse(f"{found[1]} = None").body
            yield from _runnable(_parse(arguments[2], transform)[0], transform, knows_magic)
        elif kind == "run_line_magic" and name in _PYTHON_MAGICS and isinstance(node, ast.Expr):
            try:
                yield from _runnable(_parse(arguments[1], transform)[0], transform, knows_magic)
            except SyntaxError:  # `%prun -l 5 f()`: options come first, and nothing is bound
                yield node
        elif kind == "run_line_magic" and not knows_magic(name):
            return
        else:
            yield node
            if isinstance(node, ast.Raise):
                return


def _magic(node: ast.stmt) -> tuple[str, str, list[str]]:
    """(method, magic, its arguments) of a statement that IPython made of a magic, else three empty things."""
    call = getattr(node, "value", None)
    if (isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr in ("run_cell_magic", "run_line_magic")
            and call.args and all(isinstance(argument, ast.Constant) for argument in call.args)):
        arguments = [str(argument.value) for argument in call.args]
        return call.func.attr, arguments[0], arguments
    return "", "", []


def _describe(number: int, node: ast.stmt, code: CodeType) -> Statement:
    binds, uses, stored_inside, imported = _names(code)
    parts = tuple(ast.walk(node))
    kind, name, arguments = _magic(node)
    if kind == "run_cell_magic" and name in ("writefile", "file"):
        binds |= {f"import {_module(arguments[1])}"}
    elif kind == "run_line_magic" and name == "run":
        binds, uses = binds | {ANYTHING}, uses | {f"import {_module(arguments[1])}"}
    elif kind == "run_line_magic" and name == "pylab":
        binds |= {ANYTHING}
    if any(isinstance(alias, ast.alias) and alias.name == "*" for part in parts for alias in getattr(part, "names", ())):
        binds |= {ANYTHING}
    uses |= {f"import {module}" for module in imported}
    wild = {ANYTHING} if _is_wild(parts, uses) else set()
    calls = any(isinstance(part, (ast.Call, ast.Await)) for part in parts)
    return Statement(number, node, parts, code, frozenset(binds), frozenset(uses), frozenset(stored_inside | wild),
                     plain=isinstance(node, (ast.Import, ast.ImportFrom)) or not calls)


def _functions(statements: list[Statement]) -> set[str]:
    """The names that are functions of the notebook and never anything else."""
    made = {bound for st in statements if isinstance(st.node, (ast.FunctionDef, ast.AsyncFunctionDef)) for bound in st.binds}
    return made - {bound for st in statements if not isinstance(st.node, (ast.FunctionDef, ast.AsyncFunctionDef)) for bound in st.binds}


def _with_changes(st: Statement, libraries: set[str], functions: set[str]) -> Statement:
    """The statement, with what it changes: at once, and when the functions that it defines are called."""
    anywhere = st.changes | _changed(st.parts, libraries, functions)
    if not (isinstance(st.node, _DEFINES) or isinstance(getattr(st.node, "value", None), ast.Lambda)):
        return replace(st, changes=anywhere)
    outside = [*getattr(st.node, "decorator_list", ()), *getattr(st.node, "targets", ())]
    at_once = _changed((part for outer in outside for part in ast.walk(outer)), libraries, functions)
    # A function's own variables are none of the notebook's.
    return replace(st, changes=frozenset(at_once), later=anywhere & (st.uses | st.changes | {ANYTHING}))


def _libraries(statements: list[Statement]) -> set[str]:
    """The names that are a library's or Python's own all through the notebook (not of a module that it writes): a call of one makes something new."""
    imports = [st for st in statements if isinstance(st.node, (ast.Import, ast.ImportFrom))]
    own = {bound for st in statements if not isinstance(st.node, (ast.Import, ast.ImportFrom)) for bound in st.binds}
    return {*dir(builtins), *(bound for st in imports if not st.uses & own for bound in st.binds)} - own


def _module(words: str) -> str:
    """The module that a file named in a magic's line would be: `-a helpers.py` gives helpers."""
    return re.sub(r"\.\w+$", "", words.split()[-1].strip("'\"")).split("/")[-1] if words.split() else ""


def _names(code: CodeType) -> tuple[set[str], set[str], set[str], set[str]]:
    """(names that running `code` binds, global names used in it or in a function in it, bound globally inside a function, modules)."""
    binds, uses, inside, imported = set(), set(), set(), set()
    for made in dis.get_instructions(code):
        if made.opname in _LOADS:
            uses.add(made.argval)
        elif made.opname in _STORES:
            binds.add(made.argval)
        elif made.opname == "IMPORT_NAME":
            imported.add(made.argval.split(".")[0])
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            inner_binds, inner_uses, deeper, modules = _names(inner)
            is_class = not inner.co_flags & 0x1  # CO_OPTIMIZED: a class body stores its names in the class
            uses |= inner_uses - (inner_binds if is_class else set())
            inside |= deeper | (set() if is_class else inner_binds)
            imported |= modules
    return binds, uses, inside, imported


def _changed(parts: Iterable[ast.AST], libraries: set[str], functions: set[str]) -> set[str]:
    """The names whose values these parts of a statement may change in place.

    A call of something in `libraries` makes something new; the result of one in `functions` can be handed on without changing that.
    """
    found: set[str | None] = set()
    for part in parts:
        if isinstance(part, (ast.Attribute, ast.Subscript)) and isinstance(part.ctx, (ast.Store, ast.Del)):
            found.add(_root(part))
        elif isinstance(part, ast.Expr) and isinstance(part.value, ast.Call):
            call = part.value
            if isinstance(call.func, ast.Attribute):
                found.add(_root(call.func, libraries))
            if not (isinstance(call.func, ast.Name) and call.func.id in _ONLY_LOOK):
                found |= {_root(argument, libraries | functions) for argument in call.args}
        elif isinstance(part, ast.Call) and isinstance(part.func, ast.Attribute) and (
                part.func.attr in _CHANGING or part.func.attr.endswith("_") or part.func.attr.startswith(("set_", "register"))):
            found.add(_root(part.func, libraries))
    return {name for name in found if name and name != "get_ipython"}  # a magic is not followed for what it changes


def _root(node: ast.AST, makers: Collection[str] = ()) -> str | None:
    """`x` of x, x.y, x[0].z and x.f().g; of the last None where x is among the `makers`, whose calls return something new."""
    called = False
    while isinstance(node, (ast.Attribute, ast.Subscript, ast.Call, ast.Starred)):
        called |= isinstance(node, ast.Call)
        node = node.func if isinstance(node, ast.Call) else node.value
    return node.id if isinstance(node, ast.Name) and not (called and node.id in makers) else None


def _is_wild(parts: Iterable[ast.AST], uses: set[str]) -> bool:
    return bool(uses & _WILD) or any(isinstance(part, ast.Attribute) and part.attr in _WILD_ATTRIBUTES
                                     or isinstance(part, ast.alias) and part.name == "__main__" for part in parts)


def needed_for(name: str, statements: list[Statement], exercises: Iterable[str]) -> list[Statement]:
    """The statements on which the final value of `name` depends, in the notebook's order.

    Args:
        exercises: names whose calls are never followed for what they change: a long cell may call them on anything.
    """
    never = {*exercises}
    effects, makers = _effects(statements, never), _libraries(statements) | never
    functions = {bound for st in statements if isinstance(st.node, (*_DEFINES, ast.Import, ast.ImportFrom)) for bound in st.binds}
    modules = {bound for st in statements if isinstance(st.node, (ast.Import, ast.ImportFrom)) for bound in st.binds}
    not_plain = {bound for st in statements if not st.plain for bound in st.binds}
    needed, chosen = {name, ANYTHING}, set()
    while True:
        before = len(chosen), len(needed)
        for index, st in enumerate(statements):
            if index not in chosen and _matters(st, needed, effects, functions, modules, not_plain):
                chosen.add(index)
                needed |= st.uses
            if index not in chosen and _is_alias(st, needed, makers):
                needed |= st.binds
        if before == (len(chosen), len(needed)):
            return [statements[index] for index in sorted(chosen)]


def _effects(statements: list[Statement], never: set[str]) -> dict[str, frozenset[str]]:
    """{function or class: what calling it changes}, through the functions that it calls in turn."""
    effects: dict[str, frozenset[str]] = {}
    while True:
        before = dict(effects)
        for st in statements:
            hands_on = isinstance(st.node, (*_DEFINES, ast.Assign))  # `g = partial(f, 1)`, `counter = Counter()`
            later = st.later.union(*(effects.get(used, ()) for used in st.uses)) if hands_on else st.later
            for bound in st.binds - never if later else ():
                effects[bound] = effects.get(bound, frozenset()) | later
        if effects == before:
            return effects


def _matters(st: Statement, needed: set[str], effects: dict[str, frozenset[str]], functions: set[str], modules: set[str], not_plain: set[str]) -> bool:
    if st.binds & needed:
        return True
    outer = {part.id for made in getattr(st.node, "decorator_list", ()) for part in ast.walk(made) if isinstance(part, ast.Name)} \
        if isinstance(st.node, _DEFINES) else st.uses
    if any(effects.get(used, frozenset()) & needed for used in outer):
        return True
    changed = st.changes & needed
    # A function that is handed on or called is not changed by it.
    if changed - functions or any(_assigns_into(st.node, name) for name in changed):
        return True
    return _is_setting(st, modules) and not (st.uses - modules) & not_plain


def _is_setting(st: Statement, modules: set[str]) -> bool:
    """Whether it changes a library: `torch.set_default_dtype(...)`, `torch.Tensor.centre = ...`. Any answer may feel that."""
    call = getattr(st.node, "value", None)
    if isinstance(st.node, ast.Expr) and isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute):
        return _root(call.func) in modules and bool(_SETTING.match(call.func.attr))
    return any(_assigns_into(st.node, name) for name in st.changes & modules)


def _assigns_into(node: ast.stmt, name: str) -> bool:
    """Whether the statement sets an attribute or an item of `name`: `name.x = 1`, `setattr(name, "x", 1)`."""
    return any(isinstance(part, (ast.Attribute, ast.Subscript)) and isinstance(part.ctx, (ast.Store, ast.Del)) and _root(part) == name
               or isinstance(part, ast.Call) and isinstance(part.func, ast.Name) and part.func.id in ("setattr", "delattr") and part.args
               and _root(part.args[0]) == name for part in ast.walk(node))


def _is_alias(st: Statement, needed: set[str], makers: set[str]) -> bool:
    """`b = a`, `b = a.rows`: changing b changes a."""
    value = getattr(st.node, "value", None)
    return isinstance(st.node, (ast.Assign, ast.AnnAssign)) and isinstance(value, (ast.Name, ast.Attribute, ast.Subscript)) and _root(value, makers) in needed
