"""The grading command: what learners hand in, honest or not, and the JSON that comes out."""

import inspect
import textwrap
import time

import numpy as np
import pytest
import torch

from utils.course.codec import decode, encode
from utils.course.comparing import difference
from utils.course.exercises import find_exercise, load_chapter
from utils.course.grading import grade
from utils.course.judging import CHECK_SEEDS
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
    assert found["cosine_map"][0] == "error"  # not missing: it is there, and cannot be parsed
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


def stored_answer(seeds, shift=0.0):
    """An answer that knows by heart what comes out for these seeds' cases, or something near it."""
    exercise = find_exercise("gather_last_token")
    rows = []
    for case in (case for seed in seeds for case in exercise.cases(seed)):
        value = exercise.reference(*case.args)
        key = [*case.args[0].shape, float(case.args[0].double().sum())]
        rows.append(f"({key!r}, {(value + shift).tolist()!r}, {str(value.dtype)!r}, {list(value.shape)}, {list(value.stride())})")
    return textwrap.dedent(f"""
        TABLE = [{", ".join(rows)}]
        def gather_last_token(acts, mask):
            for key, value, dtype, shape, strides in TABLE:
                if list(acts.shape) == key[:-1] and abs(float(acts.double().sum()) - key[-1]) < 1e-9 * (1 + abs(key[-1])):
                    found = torch.tensor(value, dtype=getattr(torch, dtype[6:]))
                    return found.reshape(shape) + 0 * acts.sum()
            return acts[:, 0]
    """)


def test_a_stored_answer_is_copied(notebook_with):
    """An answer that knows the results of the check's own cases by heart passes the check and not the grading."""
    assert statuses(notebook_with(IMPORTS, stored_answer(CHECK_SEEDS)))["gather_last_token"] == ("copied", "stored-answer")


def test_nobody_is_called_a_cheat_for_a_wrong_answer(notebook_with):
    """Without evidence an answer that is wrong is wrong, whatever it looks like."""
    quotes = "# 0.12345 0.54321 2.71828 3.14159 1.41421\n"
    path = notebook_with(IMPORTS, quotes + "def gather_last_token(acts, mask):\n    return acts[:, -1]",
                         "def zero_ablate(activation, positions):\n    import os\n    from pathlib import Path\n    list(Path('.').rglob('*')), list(os.walk('..'))\n"
                         "    os.path.exists('solutions/00_start_here.py')\n    return activation")
    found = statuses(path)
    assert found["gather_last_token"][0] == found["zero_ablate"][0] == "fail"


def test_right_on_the_check_and_wrong_on_fresh_cases_is_a_fail_with_its_difference(notebook_with):
    """It recognises the check's cases, but no value of theirs stands in it."""
    exercise = find_exercise("gather_last_token")
    sums = [round(abs(float(case.args[0].double().sum())) * 1e6) for seed in CHECK_SEEDS for case in exercise.cases(seed)]
    path = notebook_with(IMPORTS, GOOD.replace("gather_last_token", "right"),
                         f"KNOWN = {sums}\ndef gather_last_token(acts, mask):\n    known = round(abs(float(acts.double().sum())) * 1e6) in KNOWN\n"
                         "    return right(acts, mask) if known else acts[:, 0]")
    (made,) = [made for made in grade(path) if made.exercise == "gather_last_token"]
    assert made.status == "fail" and "wrong on fresh ones (seed " in made.message and "differs in" in made.message


HARMLESS = {
    "a shell": "import subprocess\n    subprocess.run(['true'])",
    "os.system": "import os\n    os.system('touch {root}/written_by_a_learner')",
    "the network": "import socket\n    socket.create_connection(('127.0.0.1', 9))",
    "the home folder": "import os\n    assert 'solutions' not in os.listdir({root!r})",
    "writing outside": "open({root!r} + '/written_by_a_learner', 'w').write('x')",
    "a C library": "import ctypes\n    ctypes.CDLL('libc.so.6').system(b'touch {root}/written_by_a_learner')",
    "killing the parent": "import os, signal\n    os.kill(os.getppid(), signal.SIGTERM)",
    "all the memory": "x = bytearray(6 * 2**30)\n    return torch.zeros(2**31)",
    "dying": "import os\n    os.abort()",
    "exit": "import os\n    os._exit(0)",
}


@pytest.mark.parametrize("what", HARMLESS)
def test_what_a_learner_must_not_do_hurts_no_one(notebook_with, what):
    body = HARMLESS[what].format(root=str(ROOT))
    found = statuses(notebook_with(IMPORTS, f"def zero_ablate(activation, positions):\n    {body}\n    return activation", GOOD))
    assert found["zero_ablate"][0] in ("error", "fail")
    assert found["gather_last_token"] == ("pass", None)
    assert not (ROOT / "written_by_a_learner").exists()


FORGED = {
    "bytes": "b'x' * 64",
    "a huge length": "b'\\xff' * 8",
    "nothing of the form": "struct.pack('<Q', 10) + b'0123456789'",
}


@pytest.mark.parametrize("what", FORGED)
def test_a_forged_message_is_no_pass(notebook_with, what):
    """Writing to the pipe oneself gets nowhere: what counts is the value, and that is compared outside."""
    body = (f"import os, struct\n    for fd in range(3, 30):\n        try: os.write(fd, {FORGED[what]})\n        except OSError: pass\n    return acts[:, 0]")
    found = statuses(notebook_with(IMPORTS, f"def gather_last_token(acts, mask):\n    {body}", "def zero_ablate(activation, positions):\n    return activation"))
    assert found["gather_last_token"][0] in ("fail", "error") and found["zero_ablate"][0] == "fail"


def test_a_forged_outcome_is_no_pass(notebook_with):
    """A well-formed outcome of the wrong kinds, sent by the answer itself."""
    body = textwrap.dedent("""
        import os
        from utils.course.codec import encode
        import struct
        def gather_last_token(acts, mask):
            for made in ({"kind": "value", "value": None, "error": 3, "trace": [], "printed": None}, {"kind": ["value"]}, "pass", 3):
                message = encode(made)
                for fd in range(3, 30):
                    try: os.write(fd, struct.pack("<Q", len(message)) + message)
                    except OSError: pass
            return acts[:, 0]
    """)
    assert statuses(notebook_with(IMPORTS, body))["gather_last_token"][0] in ("fail", "error")


def test_what_is_huge_is_bounded(notebook_with):
    """A printed 400 MB, a giant result, a cell of 20 MB: a row each, and not minutes."""
    started = time.monotonic()
    found = statuses(notebook_with(
        IMPORTS, GOOD, "DATA = '" + "x" * 20_000_000 + "'",
        "def zero_ablate(activation, positions):\n    print('x' * 400_000_000)\n    return activation",
        "def mean_ablate(activation, mask):\n    return torch.zeros(300_000_000)",
        "def residual_mask(acts, mask, max_norm_ratio):\n    raise ValueError('x' * 100_000_000)"))
    assert found["gather_last_token"] == ("pass", None)
    assert found["zero_ablate"][0] == found["mean_ablate"][0] == "fail" and found["residual_mask"][0] == "error"
    assert time.monotonic() - started < 200


def test_one_answer_does_not_touch_another(notebook_with):
    """Each has a process and a folder of its own: neither a dtype, a file nor a patched library reaches the next."""
    spoil = ("def gather_last_token(acts, mask):\n    torch.set_default_dtype(torch.float64)\n    torch.Tensor.clone = None\n"
             "    open('left.txt', 'w').write('1')\n    return acts[:, 0]")
    look = ("def zero_ablate(activation, positions):\n    import os\n    assert os.listdir('.') == [], os.listdir('.')\n"
            "    out = activation.clone()\n    out[:, positions] = 0\n    return out")
    found = {made.exercise: made for made in grade(notebook_with(IMPORTS, spoil, look))}
    assert found["gather_last_token"].status == "fail" and "Error" not in found["zero_ablate"].message


def test_an_answer_that_needs_more_time_than_there_is(notebook_with):
    """What it depends on is stopped; the answer is then judged with what there is, and the reason is said."""
    (made,) = [made for made in grade(notebook_with(IMPORTS, "import time\ndef slow():\n    time.sleep(1000)\n    return 1\nONE = slow()",
                                                    GOOD.replace("argmax(1)", "argmax(ONE)"))) if made.exercise == "gather_last_token"]
    assert made.status == "error" and "cell 2, line 5: stopped after 10 seconds" in made.message


def test_an_error_carries_its_message(notebook_with):
    (made,) = [made for made in grade(notebook_with(IMPORTS, "def gather_last_token(acts, mask):\n    return undefined_name")) if made.exercise == "gather_last_token"]
    assert made.status == "error" and "NameError: name 'undefined_name' is not defined" in made.message and "line 2 in gather_last_token" in made.message


@pytest.mark.parametrize("value", [
    torch.randn(3, 2), torch.zeros(0, 4), torch.tensor(1.5, dtype=torch.float64), torch.tensor([True, False]), np.arange(3.0),
    [1, "two", None, (3.5, {"k": torch.ones(2)})], {1: 2.0}, float("nan"), float("inf"), torch.randn(4, 3).t(), 10**5000, -3, "\ud800",
    np.float32(2.5), np.int64(3), np.arange(3.0)[::-1],
], ids=lambda value: type(value).__name__)
def test_codec_keeps_values(value):
    assert difference(decode(encode(value)), value, exact=True) is None


def test_codec_refuses_what_it_cannot_carry():
    with pytest.raises(TypeError, match="cannot send a function"):
        encode([lambda: None])
    with pytest.raises(ValueError, match="not an encoded value"):
        decode(b"garbage that is long enough")


def test_codec_keeps_what_a_check_looks_at():
    """Strides, a gradient that is asked for, NumPy's own numbers; what cannot travel stays a thing of its class."""
    wide = torch.randn(3, 8)[:, ::2]
    assert decode(encode(wide)).stride() == wide.stride()
    assert decode(encode(torch.ones(2, requires_grad=True))).requires_grad
    assert type(decode(encode(np.float32(2)))) is np.float32 and type(decode(encode(np.float64(2)))) is np.float64
    assert decode(encode(torch.ones(1).expand(4))).tolist() == [1.0] * 4
    assert type(decode(encode((x for x in ()), strict=False))).__name__ == "generator"
    assert type(decode(encode([torch.ones(2).to_sparse()], strict=False))[0]).__name__ == "Tensor"
