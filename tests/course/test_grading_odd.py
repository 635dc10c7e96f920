"""Grading agrees with the kernel: notebooks as people really write them, judged by both."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from utils.course.grading import grade
from utils.paths import ROOT

NAME = "mass_mean_direction"
IMPORTS = "import torch\nfrom torch import Tensor\nfrom jaxtyping import Float, Int"
BODY = """    m0, m1 = acts[labels == 0].mean(dim=0), acts[labels == 1].mean(dim=0)
    d = m1 - m0
    return d, d @ (m0 + m1) / 2"""
GOOD = f"def {NAME}(acts, labels):\n{BODY}"
STUB = f"def {NAME}(acts, labels):\n    raise NotImplementedError"


def answer(zero="0", one="1", half="2", before=""):
    """A right answer in which something stands for 0, 1 and 2."""
    return (f"def {NAME}(acts, labels):\n{before}    m0, m1 = acts[labels == {zero}].mean(dim=0), acts[labels == {one}].mean(dim=0)\n"
            f"    d = m1 - m0\n    return d, d @ (m0 + m1) / {half}")


HELPER = "def halves(acts, labels):\n    return acts[labels == 0].mean(0), acts[labels == 1].mean(0)"
USES_HELPER = f"def {NAME}(acts, labels):\n    m0, m1 = halves(acts, labels)\n    d = m1 - m0\n    return d, d @ (m0 + m1) / 2"

PASS = {
    # what IPython reads otherwise than Python
    "magics between": ["%matplotlib inline\n" + IMPORTS + "\n%config InlineBackend.figure_format = 'svg'", GOOD],
    "magic assigned": [IMPORTS, "where = %pwd\n" + GOOD],
    "shell assigned": [IMPORTS, "files = !ls -l | head\n" + GOOD],
    "help after": [IMPORTS, GOOD + "\n" + NAME + "?"],
    "help before": [IMPORTS, "?torch.Tensor\n??torch\n" + GOOD],
    "autocall": [IMPORTS, "def go(*x): return x\n/go 3\n,go a b\n;go a b\n" + GOOD],
    "percent continues": [IMPORTS, "ONE = (7\n%2)\n" + answer(one="ONE")],
    "percent in a string": [IMPORTS, 'LOG = """\n%s and %d\n!not a command\n?\n"""\n' + GOOD],
    "percent s formatting": [IMPORTS, "ONE = int('%d'\n   % 1)\n" + answer(one="ONE")],
    "shell in an if": [IMPORTS, "if True:\n    !echo hello\n    ONE = 1\n" + answer(one="ONE")],
    "magic in a function that is called": [IMPORTS, "def ready():\n    %env\n    !true\n    return 1\nONE = ready()\n" + answer(one="ONE")],
    "a command inside the answer": [IMPORTS, answer(before="    !echo hello\n")],
    "time line magic binds": [IMPORTS, "%time ONE = 1\n" + answer(one="ONE")],
    "time cell": [IMPORTS, "%%time\nONE = 1\n" + answer(one="ONE")],
    "capture cell binds its output": [IMPORTS, "%%capture out --no-stderr\nprint('x')\n" + GOOD],
    "prun cell": [IMPORTS, "%%prun -q\n" + GOOD],
    "time in capture": [IMPORTS, "%%capture\n%time ONE = 1\n" + answer(one="ONE")],
    "html, bash and javascript cells": [IMPORTS, GOOD, f"%%bash\ndef {NAME}(): oops", "%%html\n<b>x</b>", "%%javascript\nvar x = 1", f"%%latex\n{NAME} = 3"],
    "cell magic after blank lines": [IMPORTS, "\n\n%%time\n" + GOOD],
    "timeit does not bind": [IMPORTS, GOOD, "%%timeit -n1 -r1\n" + STUB],
    "writefile and import": [IMPORTS, "%%writefile my_means.py\n" + HELPER, "from my_means import halves\n" + USES_HELPER],
    "run a written file": [IMPORTS, "%%writefile my_means.py\n" + HELPER, "%run my_means.py\n" + USES_HELPER],
    "prompts pasted": [">>> import torch\n", ">>> def mass_mean_direction(acts, labels):\n...     m0, m1 = acts[labels == 0].mean(0), acts[labels == 1].mean(0)\n"
                       "...     d = m1 - m0\n...     return d, d @ (m0 + m1) / 2\n"],
    "indented cell": ["    import torch\n", "\n".join("    " + line for line in GOOD.split("\n"))],
    "line separators in a string": [IMPORTS, "SEPARATOR = '\u2028 \x85 \x0b'\n" + GOOD],
    "a pip line with a continuation": ["!pip install -q torch \\\n    numpy\n" + IMPORTS, "%pip install einops\n" + GOOD],
    "top-level await": [IMPORTS, "import asyncio\nasync def one():\n    await asyncio.sleep(0)\n    return 1\nONE = await one()\n" + answer(one="ONE")],
    "async for and with": [IMPORTS, "async def numbers():\n    for i in (0, 1):\n        yield i\nasync for ONE in numbers(): pass\n" + answer(one="ONE")],
    # what the answer needs
    "augmented assignment": [IMPORTS, "TWO = 1\nTWO += 1", answer(half="TWO")],
    "device constant": [IMPORTS, "DEVICE = 'cuda' if torch.cuda.is_available() else 'cpu'\nONE = torch.tensor(1, device=DEVICE)", answer(one="ONE")],
    "try import": [IMPORTS, "try:\n    from nothing_like_it import one as ONE\nexcept ImportError:\n    ONE = 1", answer(one="ONE")],
    "if at top level": [IMPORTS, "import sys\nif sys.version_info > (3, 0):\n    ONE = 1\nelse:\n    ONE = 2", answer(one="ONE")],
    "for at top level": [IMPORTS, "TABLE = {}\nfor key in ('zero', 'one'):\n    TABLE[key] = len(TABLE)", answer(one="TABLE['one']", zero="TABLE['zero']")],
    "while at top level": [IMPORTS, "ONE = 5\nwhile ONE > 1:\n    ONE -= 1", answer(one="ONE")],
    "with at top level": [IMPORTS, "import io\nwith io.StringIO('1') as file:\n    ONE = int(file.read())", answer(one="ONE")],
    "match at top level": [IMPORTS, "match ('a', 1):\n    case (_, ONE):\n        pass", answer(one="ONE")],
    "walrus at top level": [IMPORTS, "print(ONE := 1)", answer(one="ONE")],
    "walrus in a comprehension": [IMPORTS, "seen = [ONE := i for i in range(2)]", answer(one="ONE")],
    "star unpacking": [IMPORTS, "ZERO, *rest = 0, 1, 2\nONE, TWO = rest", answer("ZERO", "ONE", "TWO")],
    "append in place": [IMPORTS, "CLASSES = []\nCLASSES.append(0)\nCLASSES.append(1)", answer(zero="CLASSES[0]", one="CLASSES[1]")],
    "append through another name": [IMPORTS, "CLASSES = []\nthose = CLASSES\nthose.extend([0, 1])", answer(zero="CLASSES[0]", one="CLASSES[1]")],
    "a set-up function with global": [IMPORTS, "def set_up():\n    global ONE\n    ONE = 1\nset_up()", answer(one="ONE")],
    "a set-up function of a set-up function": [IMPORTS, "T = {}\ndef inner(): T['one'] = 1\ndef outer(): inner()\nouter()", answer(one="T['one']")],
    "filled by a call": [IMPORTS, "T = {}\ndef fill(table): table.update(one=1)\nfill(T)", answer(one="T['one']")],
    "defined below": [IMPORTS, USES_HELPER, HELPER],
    "redefined helper": [IMPORTS, "def halves(*_): return None, None", USES_HELPER, HELPER],
    "helper instance": [IMPORTS, "class Means:\n    def __init__(self, one): self.one = one\n    def of(self, acts, labels):\n        return acts[labels == 0].mean(0), acts[labels == self.one].mean(0)\n"
                        "means = Means(one=1)\n" + USES_HELPER.replace("halves(", "means.of(")],
    "configured instance": [IMPORTS, "class Means: pass\nmeans = Means()\nmeans.one = 1\n" + answer(one="means.one")],
    "instance configured by a method": [IMPORTS, "class Means:\n    def use(self, one): self.one = one\nmeans = Means()\nmeans.use(1)\n" + answer(one="means.one")],
    "setattr": [IMPORTS, "class Settings: pass\nsetattr(Settings, 'one', 1)\n" + answer(one="Settings.one")],
    "enum": [IMPORTS, "from enum import IntEnum\nclass Label(IntEnum):\n    FALSE = 0\n    TRUE = 1\n" + answer("Label.FALSE", "Label.TRUE")],
    "namedtuple helper": [IMPORTS, "from collections import namedtuple\nPair = namedtuple('Pair', 'm0 m1')\n" + HELPER.replace("return ", "return Pair(*(").rstrip() + "))\n" + USES_HELPER],
    "registry by decorator": [IMPORTS, "HELPERS = {}\ndef register(f):\n    HELPERS[f.__name__] = f\n    return f\n@register\n" + HELPER, USES_HELPER.replace("halves(", "HELPERS['halves'](")],
    "decorated answer": [IMPORTS, "import functools\ndef loud(f):\n    @functools.wraps(f)\n    def inner(*args, **kwargs):\n        return f(*args, **kwargs)\n    return inner", f"@loud\n{GOOD}"],
    "decorated without wraps": [IMPORTS, "def loud(f): return lambda *a, **k: f(*a, **k)", f"@loud\n{GOOD}"],
    "no_grad decorator": [IMPORTS, f"@torch.no_grad()\n{GOOD}"],
    "partial": [IMPORTS, "from functools import partial\n" + GOOD.replace(NAME, "any_two").replace("(acts, labels)", "(one, acts, labels)").replace("== 1", "== one"), f"{NAME} = partial(any_two, 1)"],
    "lambda": [IMPORTS, HELPER, f"{NAME} = lambda acts, labels: (lambda m0, m1: (m1 - m0, (m1 - m0) @ (m0 + m1) / 2))(*halves(acts, labels))"],
    "alias": [IMPORTS, GOOD.replace(NAME, "attempt_3"), f"{NAME} = attempt_3"],
    "one of two by an if": [IMPORTS, f"FAST = False\nif FAST:\n    def {NAME}(acts, labels): return None\nelse:\n" + "\n".join("    " + line for line in GOOD.split("\n"))],
    "method as the answer": [IMPORTS, "class Mine:\n" + "\n".join("    " + line for line in GOOD.replace("(acts", "(self, acts").split("\n")), f"{NAME} = Mine().{NAME}"],
    "callable object with state": [IMPORTS, "class Mine:\n    def __init__(self): self.calls = 0\n    def __call__(self, acts, labels):\n        self.calls += 1\n    " + BODY.replace("\n", "\n    ") + f"\n{NAME} = Mine()"],
    "made by a factory": [IMPORTS, "def make(one):\n" + "\n".join("    " + line for line in answer(one="one").split("\n")) + f"\n    return {NAME}\n{NAME} = make(1)"],
    "exec": [IMPORTS, f"exec({GOOD!r})"],
    "globals": [IMPORTS, GOOD.replace(NAME, "mine"), f"globals()[{NAME!r}] = mine"],
    "user_ns": [IMPORTS, GOOD.replace(NAME, "mine"), f"get_ipython().user_ns[{NAME!r}] = mine"],
    "import inside a function": [IMPORTS, answer(before="    import numpy as np\n    assert np.ones(1)[0] == 1\n")],
    "import star of torch": ["from torch import *\nimport torch", answer(one="tensor(1)")],
    "import as": ["import torch as t, math as m", answer(one="int(m.cos(0))")],
    "default dtype that the answer leans on": [IMPORTS, "torch.set_grad_enabled(False)\ntorch.manual_seed(0)\n" + GOOD],
    "memo": [IMPORTS, "CACHE = {}\n" + answer(before="    CACHE['calls'] = CACHE.get('calls', 0) + 1\n")],
    "counter with global": [IMPORTS, "calls = 0\n" + answer(before="    global calls\n    calls += 1\n")],
    "annotations that need imports": [IMPORTS, f'def {NAME}(acts: Float[Tensor, "n d"], labels: Int[Tensor, "n"]) -> tuple[Float[Tensor, "d"], Float[Tensor, ""]]:\n' + BODY],
    "future annotations": ["from __future__ import annotations\n" + IMPORTS, f"def {NAME}(acts: Nothing, labels: Nowhere):\n" + BODY],
    "type alias and generic": [IMPORTS, "from typing import TypeVar\nT = TypeVar('T')\ndef same(x: T) -> T: return x", answer(one="same(1)")],
    "default arguments": [IMPORTS, "ONE = 1", GOOD.replace("(acts, labels)", "(acts, labels, one=ONE)").replace("== 1", "== one")],
    "closure over a loop variable": [IMPORTS, "fs = []\nfor i in range(2):\n    fs.append(lambda i=i: i)", answer("fs[0]()", "fs[1]()")],
    "del afterwards": [IMPORTS, "ONE = 1\nTWO = 2", answer(one="ONE"), "del TWO"],
    "two statements on a line": [IMPORTS, "ZERO = 0; ONE = 1; import math", answer("ZERO", "ONE")],
    "semicolon after": [IMPORTS, GOOD + ";", f"{NAME};"],
    "shadowed builtin": [IMPORTS, "def sum(x, y): return x + y", answer(half="sum(1, 1)")],
    "monkeypatched tensor": [IMPORTS, "torch.Tensor.centre = lambda self: self.mean(0)", GOOD.replace(".mean(dim=0)", ".centre()")],
    "lists its files": [IMPORTS, answer(before="    from pathlib import Path\n    import os\n    list(Path('.').rglob('*.txt')), list(os.walk('.')), os.listdir('.')\n")],
    "writes and reads a file": [IMPORTS, answer(one="int(open('one.txt').read())", before="    with open('one.txt', 'w') as file:\n        file.write('1')\n")],
    "prints a lot": [IMPORTS, answer(before="    print('x' * 10_000_000)\n")],
    "warns": [IMPORTS, answer(before="    import warnings\n    warnings.warn('careful')\n")],
    "a broken cell elsewhere": [IMPORTS, "def broken(:\n    pass", GOOD, "1/0", "return 3"],
    "tests below": [IMPORTS, GOOD, f"x = torch.randn(9, 3)\ny = torch.arange(9) % 2\nassert {NAME}(x, y)[0].shape == (3,)\nprint({NAME}(x, y))"],
    "an error after the answer": [IMPORTS, GOOD + "\nraise RuntimeError('later')"],
    "the right one last": [IMPORTS, STUB, GOOD],
    "an emoji and other scripts": [IMPORTS, "größe = 1\nπ = 'π 🎯'\n" + answer(one="größe")],
    "a docstring with quotes": [IMPORTS, GOOD.replace("labels):\n", "labels):\n    r'''a \\d \"\"\" b'''\n", 1)],
    "unused long strings": [IMPORTS, "TEXT = '" + "x" * 200_000 + "'", GOOD],
    "carriage returns": [IMPORTS.replace("\n", "\r\n"), GOOD.replace("\n", "\r\n")],
}

OTHER = {  # no kernel passes these either
    "a stub below": [IMPORTS, GOOD, STUB],
    "nothing": [IMPORTS],
    "a number": [IMPORTS, f"{NAME} = 3"],
    "a syntax error in its own cell": [IMPORTS, GOOD + "\ndef broken(:"],
    "deleted": [IMPORTS, GOOD, f"del {NAME}"],
    "overwritten by a loop": [IMPORTS, GOOD, f"for {NAME} in range(3): pass"],
    "a magic that does not exist stops the cell": [IMPORTS, "%no_such_magic\n" + GOOD],
    "a cell magic below a comment": [IMPORTS, "# my answer\n%%time\n" + GOOD],
    "an error before it in its cell": [IMPORTS, "raise RuntimeError('earlier')\n" + GOOD],
    "an annotation that is not there": [IMPORTS, f"def {NAME}(acts: Nothing, labels):\n" + BODY],
    "only in a cell of another language": [IMPORTS, f"%%bash\n{GOOD}"],
    "only in a timeit cell": [IMPORTS, f"%%timeit -n1 -r1\n{GOOD}"],
    "only in a string": [IMPORTS, f"TEXT = '''{GOOD}'''"],
    "only written to a file": [IMPORTS, f"%%writefile mine.py\n{GOOD}"],
    "a constant that is wrong in the end": [IMPORTS, "ONE = 1", answer(one="ONE"), "ONE = 0"],
    "a global default dtype": [IMPORTS, answer(before="    acts = torch.tensor(acts.tolist())\n")],
    "a huge integer": [IMPORTS, f"def {NAME}(acts, labels):\n    return 10**400"],
    "a huge integer in a tuple": [IMPORTS, GOOD.replace("return d, d @ (m0 + m1) / 2", "return d, 10**5000")],
    "of objects": [IMPORTS, f"import numpy as np\ndef {NAME}(acts, labels):\n    return np.array([print, None]), np.array(['a'])"],
    "sparse": [IMPORTS, GOOD.replace("return d,", "return d.to_sparse(),")],
    "nested": [IMPORTS, GOOD.replace("return d,", "return torch.nested.nested_tensor([d, d[:2]]),")],
    "itself": [IMPORTS, f"def {NAME}(acts, labels):\n    x = []\n    x.append(x)\n    return x"],
    "a generator": [IMPORTS, f"def {NAME}(acts, labels):\n    yield 1"],
    "an exception that cannot be shown": [IMPORTS, f"class Odd(Exception):\n    def __str__(self): raise ValueError\ndef {NAME}(acts, labels):\n    raise Odd"],
    "plain recursion": [IMPORTS, f"def {NAME}(acts, labels):\n    return {NAME}(acts, labels)"],
    "a float of NumPy": [IMPORTS, GOOD.replace("return d, d @ (m0 + m1) / 2", "return d, float(d @ (m0 + m1) / 2)")],
    "int8 result": [IMPORTS, GOOD.replace("return d,", "return d.to(torch.int8),")],
}
CASES = {**PASS, **OTHER}


@pytest.fixture(scope="module")
def kernel(tmp_path_factory):
    """{case: what a kernel says}."""
    folder = tmp_path_factory.mktemp("kernel")
    (folder / "cells.json").write_text(json.dumps(CASES))
    done = subprocess.run([sys.executable, str(Path(__file__).with_name("kernel_verdict.py")), str(folder / "cells.json"), NAME],
                          cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the kernels are forked")
@pytest.mark.parametrize("case", CASES)
def test_grading_says_what_a_kernel_says(case, kernel, tmp_path):
    cells = [{"cell_type": "code", "source": source} for source in CASES[case]]
    path = tmp_path / "renamed by its owner.ipynb"
    path.write_text(json.dumps({"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}))
    try:
        (made,) = [made for made in grade(path) if made.exercise == NAME]
    except ValueError:  # no chapter: the name does not occur
        made = None
    passes = made is not None and made.status == "pass"
    assert (kernel[case] == "pass") == passes, (kernel[case], made)
    assert passes == (case in PASS)
