"""check, hint, solution and progress, as a learner meets them."""

import inspect
import json

import pytest
import torch

from utils.course import record
from utils.course.cards import Card
from utils.course.checking import check, hint, progress, solution
from utils.course.exercises import UnknownExercise, find_exercise

GOOD = find_exercise("gather_last_token").reference


def gather_last_token(acts, mask):
    last = mask.long().cumsum(1).argmax(1)
    return acts[torch.arange(len(acts)), last]


def gather_last_tokens(acts, mask):
    return acts


def wrong():
    def gather_last_token(acts, mask):
        return acts[:, -1]

    return gather_last_token


def unwritten():
    def gather_last_token(acts, mask):
        raise NotImplementedError

    return gather_last_token


def test_a_pass_says_what_was_verified_and_is_recorded(own_progress, capsys):
    check(gather_last_token)
    said = capsys.readouterr().out
    exercise = find_exercise("gather_last_token")
    assert said.startswith(f"Passed: {exercise.verified}") and exercise.next in said
    entry = json.loads(own_progress.read_text())["gather_last_token"]
    assert entry["passed"] and entry["tries"] == 1


def test_a_fail_names_the_mistake_and_shows_the_call(own_progress, capsys):
    check(wrong())
    said = capsys.readouterr().out
    assert "last-column" in said and "gather_last_token(acts = a float64 tensor" in said and "Expected" in said and "Hint" in said
    assert json.loads(own_progress.read_text())["gather_last_token"]["passed"] is None


def test_a_pass_is_not_lost_by_a_later_fail(own_progress):
    check(gather_last_token)
    check(wrong())
    entry = json.loads(own_progress.read_text())["gather_last_token"]
    assert entry["passed"] and entry["tries"] == 2


def test_hints_climb_and_show_the_learners_own_shapes(own_progress, capsys):
    exercise = find_exercise("gather_last_token")
    for step in exercise.hints:
        hint(gather_last_token)
        said = capsys.readouterr().out
        assert step in said
        if step == exercise.hints[1]:
            assert "last: an int64 tensor [4]" in said and "returns" in said
    hint("gather_last_token")
    assert exercise.hints[-1] in capsys.readouterr().out


def test_a_failed_check_has_shown_the_first_hint(own_progress, capsys):
    idea, shapes, line = find_exercise("gather_last_token").hints
    for _ in range(2):
        check(wrong())
        assert idea in capsys.readouterr().out
    hint(gather_last_token)
    said = capsys.readouterr().out
    assert "Hint 2 of 3" in said and shapes in said and idea not in said
    check(wrong())
    capsys.readouterr()
    hint(gather_last_token)
    assert line in capsys.readouterr().out


def test_what_shows_no_hint_uses_none_up(own_progress, capsys):
    check(unwritten())
    check(gather_last_token)
    capsys.readouterr()
    hint("gather_last_token")
    assert find_exercise("gather_last_token").hints[0] in capsys.readouterr().out


def test_the_solution_opens_after_a_try_or_on_demand(own_progress, capsys):
    solution("gather_last_token")
    said = capsys.readouterr().out
    assert "try first" in said and inspect.getsource(GOOD) not in said
    solution(gather_last_token, now=True)
    assert inspect.getsource(GOOD).strip() in capsys.readouterr().out
    check(wrong())
    capsys.readouterr()
    solution(gather_last_token)
    said = capsys.readouterr().out
    assert inspect.getsource(GOOD).strip() in said and "Why" in said


def test_progress_lists_every_exercise(own_progress, capsys):
    check(gather_last_token)
    capsys.readouterr()
    progress()
    said = capsys.readouterr().out
    assert "[x] gather_last_token" in said and "[ ] cache_resid_post" in said and said.startswith("1 of ")


def test_an_unwritten_answer_is_no_try(own_progress, capsys):
    check(unwritten())
    said = capsys.readouterr().out
    assert "not written yet" in said and "`hint(gather_last_token)`" in said and not own_progress.exists()


def test_what_is_not_an_answer_gets_a_clear_error(own_progress):
    with pytest.raises(TypeError, match="without quotes"):
        check("gather_last_token")
    with pytest.raises(TypeError, match="without calling it"):
        check(torch.zeros(3))
    with pytest.raises(UnknownExercise, match="Did you mean gather_last_token"):
        check(gather_last_tokens)
    with pytest.raises(ValueError, match="reference itself"):
        check(GOOD)


def test_a_damaged_progress_file_is_kept_aside(own_progress, capsys):
    own_progress.write_text('{"gather_last')
    check(gather_last_token)
    assert "[fix]" in capsys.readouterr().out
    assert own_progress.with_suffix(".damaged.json").read_text() == '{"gather_last'
    assert json.loads(own_progress.read_text())["gather_last_token"]["passed"]


def test_progress_that_cannot_be_saved_does_not_cost_the_check(own_progress, monkeypatch, capsys):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(record, "atomic_write", full)
    check(gather_last_token)
    said = capsys.readouterr().out
    assert "could not be saved" in said and "Passed" in said


def test_the_card_says_the_same_in_text_and_html():
    from html import unescape
    from re import sub

    card = Card("Not yet: f <script>", [("Call", "f(x = [1, 2])"), ("Trace", "line 1\nline 2"), ("Hint", "use `mask`")], False)
    assert "<script>" not in card._repr_html_()
    text = unescape(sub(r"<[^>]+>", " ", card._repr_html_()))
    for words in ("Not yet: f <script>", "Call", "f(x = [1, 2])", "line 1\nline 2", "mask"):
        assert words in text and words in repr(card)


def test_two_kernels_at_once_lose_nothing(own_progress):
    import subprocess
    import sys

    from utils.paths import ROOT

    code = "from utils.course.record import update_entry\nfor i in range(25): update_entry('exercise-{}-%d' % i, tries=1)"
    both = [subprocess.Popen([sys.executable, "-c", code.format(n)], cwd=ROOT) for n in range(2)]
    assert [process.wait(60) for process in both] == [0, 0]
    assert len(json.loads(own_progress.read_text())) == 50
