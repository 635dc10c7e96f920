"""Which statements of a notebook an answer depends on: enough of them, and no more."""

import ast

import pytest

from utils.course.exercises import chapters, exercise_names
from utils.course.notebooks import read_notebook
from utils.course.slicing import needed_for, read_cells
from utils.paths import ROOT

FEW = 12
SETTINGS = "import numpy as np\nimport torch\n"


def slice_of(*cells, name="answer"):
    """The text of the statements that `name` depends on, imports left out."""
    statements, broken = read_cells(enumerate(cells), str, lambda magic: True)
    assert not broken
    return [ast.unparse(st.node) for st in needed_for(name, statements, ["answer", "auroc"]) if not isinstance(st.node, (ast.Import, ast.ImportFrom))]


@pytest.mark.parametrize("stem", chapters())
def test_a_chapters_own_cells_are_no_part_of_an_answer(stem):
    """The course's notebooks load models and train: grading an answer must not wait for that."""
    names = exercise_names()
    notebook = read_notebook(ROOT / "chapters" / f"{stem}.ipynb")
    statements, _ = read_cells([(cell.number, cell.source) for cell in notebook.code], str, lambda magic: True)
    sizes = {name: len(needed_for(name, statements, names)) for name in names if names[name] == stem}
    assert {name: size for name, size in sizes.items() if size > FEW} == {}


ANSWER = "def answer(x):\n    return float(torch.tanh(x))"
UNRELATED = {
    "a generator of its own": "def draw(seed):\n    return torch.rand(3, generator=torch.Generator().manual_seed(seed))\nfig = draw(0)",
    "a number handed on": "found = []\nfor seed in range(3):\n    found.append(float(seed))",
    "a result handed on": "found = []\ndef note(x):\n    found.append(answer(x))\nnote(3)",
    "what a library made": "rows = torch.linalg.qr(torch.eye(3)).Q\nrows.add_(1)\nx = rows",
    "what an answer returned": "best = answer(3).values\nbest.sort()\nx = best",
    "one of NumPy's": "def shuffled(x):\n    np.random.default_rng(0).shuffle(x)\nshuffled([1])",
}


@pytest.mark.parametrize("what", UNRELATED)
def test_what_changes_nothing_for_the_answer_is_left_out(what):
    assert slice_of(SETTINGS, ANSWER, UNRELATED[what]) == [ast.unparse(ast.parse(ANSWER))]


FOLLOWED = {
    "a setting in a function": "def prepare():\n    torch.set_default_dtype(torch.float64)\nprepare()",
    "a setting through an import": "import importlib\nimportlib.import_module('torch').Tensor.half = None",
    "a seed": "torch.manual_seed(3)",
    "through an object's method": "class Shelf:\n    def rows(self):\n        return table\ntable = [1]\ntorch = Shelf()\ndef fill():\n    torch.rows().append(3)\nfill()",
    "a name that is bound again": "float = lambda x: 3\nfloat.scale = 4",
}


@pytest.mark.parametrize("what", FOLLOWED)
def test_what_may_matter_is_followed(what):
    last = ast.unparse(ast.parse(FOLLOWED[what]).body[-1])
    assert last in slice_of(SETTINGS, ANSWER, FOLLOWED[what])


def test_a_module_that_the_notebook_writes_is_followed():
    """A call of a library's makes something new; one of the notebook's own module may hand out what the answer uses."""
    written = 'get_ipython().run_cell_magic("writefile", "shelf.py", "rows = []\\ndef table():\\n    return rows")'
    cells = ["import shelf\ndef answer(x):\n    return shelf.rows", "def fill():\n    shelf.table().append(3)\nfill()"]
    assert "fill()" in slice_of(written, *cells)
    assert "fill()" not in slice_of(*cells)
