"""What the course promises of its checks, for every exercise, over 20 seeds; and of their parts."""

import doctest
import inspect
import re
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch

from utils.course.audit import SEEDS, keeps_promise, rows_of
from utils.course.chapters import stub
from utils.course.comparing import difference
from utils.course.exercises import Case, Exercise, UnknownExercise, exercise_names, find_exercise, load_chapter
from utils.course.judging import judge
from utils.course.running import OutOfTime, deadline
from utils.paths import ROOT

NAMES = list(exercise_names())


@pytest.fixture(scope="module")
def rows(request):
    """The audit of the exercises that are tested, on all cores."""
    chosen = [item.callspec.params["name"] for item in request.session.items if item.originalname == "test_check_rejects_names_and_accepts"]
    with rows_of(chosen) as rows:
        yield rows


@pytest.mark.parametrize("name", NAMES)
def test_check_rejects_names_and_accepts(rows, name):
    row = rows[name].result()
    assert keeps_promise(row), row
    assert row.seeds >= 20 and SEEDS >= 20


@pytest.mark.parametrize("name", NAMES)
def test_exercise_is_complete(name):
    exercise = find_exercise(name)
    assert 4 <= len(exercise.mistakes) <= 10 and len(exercise.variants) >= 3
    assert len(exercise.hints) == 3 and all(len(hint) > 30 for hint in exercise.hints)
    assert 1 <= exercise.difficulty <= 5 and 1 <= exercise.importance <= 5 and exercise.minutes > 0
    for mistake in exercise.mistakes.values():
        assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", mistake.slug) and len(mistake.message) > 40
        assert mistake.same_as is None or mistake.same_as in exercise.mistakes
    reference = exercise.reference
    assert reference.__doc__ and ">>>" in reference.__doc__, "the specification needs an example that runs"
    assert all(parameter.annotation is not inspect.Parameter.empty for parameter in inspect.signature(reference).parameters.values())
    assert exercise.name in load_chapter(exercise.chapter)


@pytest.mark.parametrize("name", NAMES)
def test_the_examples_of_the_specification_run(name):
    reference = find_exercise(name).reference
    found = doctest.DocTestFinder(recurse=False).find(reference, reference.__name__, globs=dict(vars(sys.modules[reference.__module__])))
    outcome = [doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS).run(test) for test in found]
    assert sum(result.attempted for result in outcome) > 0 and sum(result.failed for result in outcome) == 0


@pytest.mark.parametrize("name", NAMES)
def test_the_learners_stub_is_seen_as_not_written(name):
    """The text that the student notebook holds, executed as it stands there."""
    exercise = find_exercise(name)
    space: dict = {}
    exec(compile("from __future__ import annotations\n" + stub(exercise), "<stub>", "exec"), space)
    assert judge(exercise, space[name]).status == "missing"


def test_names_are_unique_in_the_course():
    found = [name for path in sorted((ROOT / "tests" / "exercises").glob("*.py")) for name in load_chapter(path.stem)]
    assert len(found) == len(set(found)) and sorted(found) == sorted(NAMES)


def test_an_unknown_name_gets_the_nearest():
    with pytest.raises(UnknownExercise, match=f"Did you mean {NAMES[0]}"):
        find_exercise(NAMES[0] + "s")


def test_checks_load_neither_sae_lens_nor_the_real_model():
    """In a fresh process: check an answer to every exercise, then look at what was imported and opened."""
    code = """if True:
        import sys, socket
        opened = []
        sys.addaudithook(lambda event, args: opened.append(str(args[0])) if event == "open" else None)
        def refuse(*_, **__): raise AssertionError("a check contacted the network")
        socket.socket.connect = socket.getaddrinfo = refuse
        from utils.course.checking import verdict_on
        from utils.course.exercises import exercise_names, find_exercise
        for name in exercise_names():
            exercise = find_exercise(name)
            assert verdict_on(exercise, exercise.reference).passed, name
        assert "sae_lens" not in sys.modules
        from utils.default_model import default_folder
        assert not [path for path in opened if str(default_folder()) in path]
    """
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]


# --- the judge, on an exercise made for the purpose -------------------------------------------------------------


def _reference(x: torch.Tensor, times: int) -> torch.Tensor:
    return x.mean(0) * times


TOY = Exercise("toy", difficulty=1, importance=1, minutes=1, learn="", verified="", next="",
               cases=lambda rng: [Case("first", torch.randn(5, 3, generator=rng), 2), Case("second", torch.randn(1, 4, generator=rng).double(), 3)],
               hints=("a", "b", "c"))
TOY.reference = _reference
TOY.mistake("axis", "The mean runs over the wrong axis.")(lambda x, times: x.mean(1) * times)
TOY.mistake("sum", "You sum, and the specification says mean.")(lambda x, times: x.sum(0) * times)


def says(answer, *words):
    verdict = judge(TOY, answer)
    text = verdict.headline + " ".join(f"{label}: {line}" for label, line in verdict.lines)
    for word in words:
        assert word in text, text
    return verdict


def endless(x, times):
    while True:
        try:
            sum(range(1000))
        except Exception:
            pass


def helper(x):
    return x[7, 7]


def through_a_helper(x, times):
    return helper(x)


def printing(x, times):
    print("my shapes:", x.shape)
    return x.sum(0)


@pytest.mark.parametrize("answer, status, words", [
    (lambda x, times: x.mean(1) * times, "fail", ["axis", "wrong axis"]),
    (lambda x, times: x.sum(0) * times if len(x) > 1 else x.mean(0) * times, "fail", ["sum"]),
    (lambda x, times: None, "fail", ["None", "return"]),
    (lambda x, times: (x.mean(0) * times).tolist(), "fail", ["a list of 3, not a tensor"]),
    (lambda x, times: (x.mean(0) * times).numpy(), "fail", ["NumPy array [3], not a tensor"]),
    (lambda x, times: x.mean(0).double() * times, "fail", ["dtype float64, expected float32"]),
    (lambda x, times: x.mean(0, keepdim=True) * times, "fail", ["shape [1, 3], expected [3]"]),
    (lambda x, times: x.mean(0) * float("nan"), "fail", ["3 NaN of 3 values"]),
    (lambda x, times: x.mean(0) / 0, "fail", ["infinite"]),
    (lambda x, times: x.mean(0) * times + 0.01, "fail", ["differs in 3 of 3 values"]),
    (lambda x, times: x.mul_(times).mean(0), "fail", ["changed its input in place: x", ".clone()"]),
    (lambda x: x.mean(0), "error", ["toy(x, times)", "yours takes (x)"]),
    (lambda x, times: x.cuda().mean(0) * times, "error", ["for any device"]),
    (lambda x, times: x.mean(5) * times, "error", ["IndexError"]),
    (lambda x, times: sys.exit(), "error", ["called exit()"]),
    (lambda x, times: exit(), "error", ["called exit()"]),
    (lambda x, times: __import__("os")._exit(1), "error", ["called exit()"]),
    (through_a_helper, "error", ["in through_a_helper", "return x[7, 7]"]),
    (printing, "fail", ["my shapes: torch.Size([5, 3])"]),
], ids=lambda value: value if isinstance(value, str) else "")
def test_every_way_to_be_wrong_has_its_own_words(answer, status, words):
    assert says(answer, *words).status == status


def test_an_endless_loop_is_stopped_even_if_it_handles_exceptions():
    import time

    started = time.monotonic()
    assert says(endless, "stopped").status == "timeout"
    assert time.monotonic() - started < 6


def test_the_deadline_works_in_another_thread():
    verdicts = []
    thread = threading.Thread(target=lambda: verdicts.append(judge(TOY, endless)))
    thread.start()
    thread.join(15)
    assert [verdict.status for verdict in verdicts] == ["timeout"]


def test_a_learner_may_call_an_argument_something_else():
    """The gradient is asked for by the argument's place."""
    exercise = find_exercise("l1_loss")
    assert judge(exercise, lambda mine, also_mine, l1: exercise.reference(mine, also_mine, l1)).passed


@pytest.mark.parametrize("in_a_thread", [False, True])
def test_the_deadline_waits_for_an_import_and_ends_an_endless_loop(tmp_path, monkeypatch, in_a_thread):
    """An import torn in half leaves a broken module behind. What the import took is not the answer's time."""
    (tmp_path / "slow_to_import.py").write_text("import time\nuntil = time.monotonic() + 0.6\nwhile time.monotonic() < until:\n    pass\nready = True\n")
    monkeypatch.syspath_prepend(tmp_path)
    ended = []

    def work():
        with deadline(0.2):
            import slow_to_import
        ended.append(slow_to_import.ready)
        with pytest.raises(OutOfTime), deadline(0.2):
            while True:
                pass
        ended.append("stopped")

    thread = threading.Thread(target=work)
    thread.start() if in_a_thread else work()
    thread.join(10) if in_a_thread else None
    sys.modules.pop("slow_to_import", None)
    assert ended == [True, "stopped"]


def test_a_traceback_ends_in_the_learners_own_line():
    verdict = judge(TOY, through_a_helper)
    raised = dict(verdict.lines)["It raised"]
    assert raised.splitlines()[-1].strip().endswith("return x[7, 7]")
    assert "exercises.py" not in raised and "site-packages" not in raised


@pytest.mark.parametrize("answer", [
    lambda x, times: torch.einsum("nd->d", x) / len(x) * times,
    lambda x, times: torch.stack([row * times for row in x]).mean(0),
    lambda x, times: (x * times).t().contiguous().t().mean(0),
    lambda x, times: torch.from_numpy(x.numpy().mean(0)) * times,
])
def test_correct_variants_pass(answer):
    assert judge(TOY, answer).passed


def test_a_non_contiguous_result_passes_with_a_word_about_it():
    exercise = Exercise("toy", difficulty=1, importance=1, minutes=1, learn="", verified="", next="", hints=("a", "b", "c"),
                        cases=lambda rng: [Case("only", torch.randn(5, 3, generator=rng))])
    exercise.reference = lambda x: x.t().contiguous()
    verdict = judge(exercise, lambda x: x.t())
    assert verdict.passed and "non-contiguous" in dict(verdict.lines)["Note"]


def test_a_mistake_that_is_right_elsewhere_is_still_named():
    """An answer that treats an edge case better than the mistake does is that mistake nonetheless."""
    assert judge(TOY, lambda x, times: x.sum(0) * times if len(x) == 5 else _reference(x, times)).mistake == "sum"


def test_hooks_left_on_a_model_are_found_and_removed():
    from utils.models import tiny_model

    model = tiny_model(0)
    exercise = Exercise("toy", difficulty=1, importance=1, minutes=1, learn="", verified="", next="", hints=("a", "b", "c"),
                        cases=lambda rng: [Case("only", model)])
    exercise.reference = lambda model: 1

    def forgetful(model):
        model.add_hook("blocks.0.hook_out", lambda activation, hook: activation)
        return 1

    verdict = judge(exercise, forgetful)
    assert verdict.status == "fail" and "left on the model" in dict(verdict.lines)["Problem"]
    assert judge(exercise, lambda model: 1).passed


@pytest.mark.parametrize("actual, expected, words", [
    (1, 1.0, None), (np.float32(0.5), 0.5, "a float32, not a float"), (torch.tensor(0.5), 0.5, "a float32 tensor []"), (True, 1, "a bool"), (1.0, 1, "a float"),
    ((1, 2), (1, 2), None), ([1, 2], (1, 2), "not a tuple"), ((1,), (1, 2), "1 items"), ({"a": 1}, {"b": 1}, "keys"), ("a", "b", "'b'"),
    (torch.tensor([1], dtype=torch.int32), torch.tensor([1]), None), (torch.tensor([True]), torch.tensor([1]), "bool"),
    (torch.tensor([1.0]), torch.tensor([1]), "float32"), (np.array([1.0]), np.array([1.0]), None), (torch.tensor([]), torch.tensor([]), None),
    (torch.tensor([float("inf")]), torch.tensor([float("inf")]), None),
])
def test_difference(actual, expected, words):
    found = difference(actual, expected)
    assert (found is None) if words is None else (found is not None and words in found), found


def _toy(reference, cases, **more):
    exercise = Exercise("toy", difficulty=1, importance=1, minutes=1, learn="", verified="", next="", hints=("a", "b", "c"), cases=cases, **more)
    exercise.reference = reference
    return exercise


def test_an_error_that_the_specification_asks_for():
    def reference(x):
        if x.min() == x.max():
            raise ValueError("one class only")
        return x.mean()

    exercise = _toy(reference, lambda rng: [Case("two", torch.tensor([1.0, 2.0])), Case("one", torch.tensor([1.0, 1.0]))])

    def other_words(x):
        if len(set(x.tolist())) == 1:
            raise ValueError("there has to be a second class")
        return x.sum() / len(x)

    assert judge(exercise, other_words).passed
    silent = judge(exercise, lambda x: x.mean())
    assert silent.status == "fail" and dict(silent.lines)["Expected"] == "a ValueError"

    def other_type(x):
        raise KeyError

    assert judge(exercise, other_type).status == "error"


def test_an_answer_that_would_be_given_away_is_not_shown():
    exercise = _toy(lambda x: "secret", lambda rng: [Case("only", torch.ones(2))], reveal=False)
    assert "secret" not in str(judge(exercise, lambda x: "guess").lines)
    assert "secret" in str(judge(_toy(lambda x: "secret", lambda rng: [Case("only", torch.ones(2))]), lambda x: "guess").lines)


def test_a_name_on_thin_evidence_says_perhaps():
    """One wrong number can have many causes."""
    exercise = _toy(lambda rates: float(rates.mean()), lambda rng: [Case("only", torch.tensor([1.0, 2.0, 6.0]))])  # a name whose sign is not turned
    exercise.mistake("sum", "You sum, and the specification says mean.")(lambda rates: float(rates.sum()))
    assert dict(judge(exercise, lambda rates: float(rates.sum())).lines)["sum"].startswith("Perhaps: ")
    surer = _toy(lambda x: x.mean(0), lambda rng: [Case("only", torch.randn(5, 3, generator=rng))])
    surer.mistake("sum", "You sum, and the specification says mean.")(lambda x: x.sum(0))
    assert dict(judge(surer, lambda x: x.sum(0)).lines)["sum"].startswith("You sum")


def test_float64_results_may_have_been_rounded_relative_to_their_size():
    assert difference(torch.tensor([1e6 + 0.1, 1.0], dtype=torch.float64), torch.tensor([1e6, 1.0], dtype=torch.float64)) is None
    assert difference(torch.tensor([1.0, 1.1], dtype=torch.float64), torch.tensor([1.0, 1.0], dtype=torch.float64))
