"""The grading command: what learners hand in, honest or not, and the JSON that comes out."""

import inspect
import json
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch

from utils.course.codec import decode, encode
from utils.course.comparing import difference
from utils.course.exercises import find_exercise, load_chapter
from utils.course.grading import NotANotebook, grade
from utils.paths import ROOT

CHAPTER = load_chapter("00_start_here")
IMPORTS = "import torch\nfrom torch import Tensor\nfrom jaxtyping import Bool, Float, Int\n"
GOOD = "def gather_last_token(acts, mask):\n    last = mask.long().cumsum(1).argmax(1)\n    return acts[torch.arange(len(acts)), last]"


def statuses(path):
    return {made.exercise: (made.status, made.mistake) for made in grade(path)}


def test_every_reference_passes_and_missing_ones_are_missing(notebook_with):
    sources = [inspect.getsource(exercise.reference) for exercise in CHAPTER.values()]
    header = "import torch\n" + "\n".join(line for line in (ROOT / "solutions" / "00_start_here.py").read_text("utf-8").splitlines()
                                          if line.startswith(("import ", "from ")) and "__future__" not in line)
    assert {status for status, _ in statuses(notebook_with(header, *sources)).values()} == {"pass"}
    assert {status for status, _ in statuses(notebook_with("x = 1")).values()} == {"missing"}


def test_kinds_of_answers(notebook_with):
    """One notebook, one exercise of each kind; the last definition counts; a broken cell costs only itself."""
    found = statuses(notebook_with(
        "%matplotlib inline\n!ls\n" + IMPORTS,
        "def gather_last_token(acts, mask):\n    raise NotImplementedError",
        GOOD + "\nimport time; time.sleep(1000)",
        "def zero_ablate(activation, positions):\n    while True: pass",
        "def mean_ablate(activation, mask):\n    return undefined_name",
        "def cosine_map(vectors:\n    oops",
        "raise SystemExit('a long cell that must not run')",
        textwrap.dedent('''
            SCALE = 2
            def helper(x):
                return x * SCALE
            def residual_mask(acts, mask, max_norm_ratio):
                return helper(mask)
        '''),
    ))
    assert found["gather_last_token"] == ("pass", None)
    assert found["zero_ablate"][0] == "timeout"
    assert found["mean_ablate"][0] == "error"
    assert found["cosine_map"][0] == "missing"
    assert found["residual_mask"][0] == "fail"


def test_named_mistakes_are_named(notebook_with):
    mistake = CHAPTER["gather_last_token"].mistakes["last-column"]
    found = statuses(notebook_with(IMPORTS, "def gather_last_token(acts, mask):\n    return acts[:, -1]"))
    assert found["gather_last_token"] == ("fail", mistake.slug)


REACHES = {
    "solution()": "from utils.course.checking import solution\n    return solution('gather_last_token', now=True)",
    "find_exercise": "from utils.course.exercises import find_exercise\n    return find_exercise('gather_last_token').reference(acts, mask)",
    "by path": f"import importlib.util as u\n    s = u.spec_from_file_location('s', {str(ROOT / 'solutions' / '00_start_here.py')!r})\n"
               "    m = u.module_from_spec(s)\n    s.loader.exec_module(m)\n    return m.gather_last_token(acts, mask)",
    "reading the file": f"exec(open({str(ROOT / 'solutions' / '00_start_here.py')!r}).read(), globals())\n    return gather_last_token(acts, mask)",
    "the registry": f"print(open({str(ROOT / 'tests' / 'exercises' / '00_start_here.py')!r}).read())\n    return acts[:, 0]",
}


@pytest.mark.parametrize("reach", REACHES)
def test_calling_the_solution_is_copied(notebook_with, reach):
    path = notebook_with(IMPORTS, f"def gather_last_token(acts, mask):\n    {REACHES[reach]}")
    assert statuses(path)["gather_last_token"] == ("copied", "calls-the-solution")


def test_a_stored_answer_is_copied(notebook_with):
    """An answer that knows the results of the check's own cases by heart passes the check and not the grading."""
    exercise = find_exercise("gather_last_token")
    known = {float(case.args[0].double().sum()): exercise.reference(*case.args) for case in exercise.cases(0)}
    table = ", ".join(f"({key!r}, {value.tolist()!r}, 'float{64 if value.dtype == torch.float64 else 32}', {list(value.shape)})" for key, value in known.items())
    path = notebook_with(IMPORTS, textwrap.dedent(f"""
        def gather_last_token(acts, mask):
            for key, value, dtype, shape in [{table}]:
                if abs(float(acts.double().sum()) - key) < 1e-6:
                    return torch.tensor(value, dtype=getattr(torch, dtype)).reshape(shape)
            return acts[:, 0]
    """))
    assert statuses(path)["gather_last_token"] == ("copied", "stored-answer")


HOSTILE = {
    "a shell": "import subprocess\n    subprocess.run(['true'])",
    "os.system": "import os\n    os.system('true')",
    "the network": "import socket\n    socket.create_connection(('127.0.0.1', 9))",
    "the home folder": "import os\n    os.listdir(os.path.dirname({root!r}))",
    "writing outside": "open({root!r} + '/written_by_a_learner', 'w').write('x')",
    "a C library": "import ctypes\n    ctypes.CDLL('libc.so.6').system(b'true')",
    "killing the parent": "import os, signal\n    os.kill(os.getppid(), signal.SIGTERM)",
    "all the memory": "x = bytearray(6 * 2**30)\n    return torch.zeros(2**31)",
    "dying": "import os\n    os.abort()",
    "exit": "import os\n    os._exit(0)",
}


@pytest.mark.parametrize("what", HOSTILE)
def test_what_a_learner_must_not_do_is_an_error_and_hurts_no_one(notebook_with, what):
    body = HOSTILE[what].format(root=str(ROOT))
    found = statuses(notebook_with(IMPORTS, f"def zero_ablate(activation, positions):\n    {body}\n    return activation", GOOD))
    assert found["zero_ablate"][0] == "error"
    assert found["gather_last_token"] == ("pass", None)
    assert not (ROOT / "written_by_a_learner").exists()


def test_a_forged_message_is_no_pass(notebook_with):
    """Writing to the pipe oneself gets nowhere: what counts is the value, and that is compared outside."""
    body = "import os\n    for fd in range(3, 30):\n        try: os.write(fd, b'x' * 64)\n        except OSError: pass\n    return acts[:, 0]"
    assert statuses(notebook_with(IMPORTS, f"def gather_last_token(acts, mask):\n    {body}"))["gather_last_token"][0] in ("fail", "error")


def test_the_command_and_its_json(notebook_with, tmp_path):
    one = notebook_with(IMPORTS, GOOD)
    out = tmp_path / "grades.json"
    done = subprocess.run([sys.executable, "-m", "utils", "grade", str(one), str(tmp_path / "missing.ipynb"), "--json", str(out)],
                          cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1 and "there is no such file" in done.stdout and f"1 of {len(CHAPTER)} passed" in done.stdout
    (row,) = json.loads(out.read_text())
    assert set(row) == {"notebook", "exercises"} and row["notebook"] == str(one)
    assert {"exercise": "gather_last_token", "status": "pass", "mistake": None} in row["exercises"]
    assert {entry["status"] for entry in row["exercises"]} == {"pass", "missing"}


def test_what_is_no_notebook_is_said(tmp_path):
    text = tmp_path / "notes.ipynb"
    text.write_text("not json")
    with pytest.raises(NotANotebook, match="not a notebook"):
        grade(text)
    other = tmp_path / "other.ipynb"
    other.write_text('{"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}')
    with pytest.raises(NotANotebook, match="belongs to no chapter"):
        grade(other)


@pytest.mark.parametrize("value", [
    torch.randn(3, 2), torch.zeros(0, 4), torch.tensor(1.5, dtype=torch.float64), torch.tensor([True, False]), np.arange(3.0),
    [1, "two", None, (3.5, {"k": torch.ones(2)})], {1: 2.0}, float("nan"), float("inf"), torch.randn(4, 3).t(),
], ids=lambda value: type(value).__name__)
def test_codec_keeps_values(value):
    assert difference(decode(encode(value)), value, exact=True) is None


def test_codec_refuses_what_it_cannot_carry():
    with pytest.raises(TypeError, match="cannot send a function"):
        encode([lambda: None])
    with pytest.raises(ValueError, match="not an encoded value"):
        decode(b"garbage that is long enough")
