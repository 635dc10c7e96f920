"""check, on answers of a learner's that are odd in every way: never the course's fault, never without end, never pages of text."""

import _thread
import os
import signal
import sys
import threading
import time

import numpy as np
import pytest
import torch

from utils.course.checking import check, hint, progress
from utils.course.exercises import find_exercise
from utils.course.judging import judge


class Silent(Exception):
    def __str__(self):
        raise ValueError


def raises_silently(acts, mask):
    raise Silent


def recurses(acts, mask):
    return recurses(acts, mask)


def closes_stdout(acts, mask):
    print("before")
    sys.stdout.close()
    print("after")
    return acts[:, -1]


def holds_itself(acts, mask):
    x = []
    x.append(x)
    return x


class Backward(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, grad):
        raise ValueError("no way back")


ODD = {
    "strings": lambda acts, mask: np.array(["a", "b"]), "objects": lambda acts, mask: np.array([print, None]), "sparse": lambda acts, mask: acts[:, 0].to_sparse(),
    "nested": lambda acts, mask: torch.nested.nested_tensor([acts[0, 0], acts[0, 1]]), "huge": lambda acts, mask: 10**400, "huger": lambda acts, mask: 10**5000,
    "a message that fails": raises_silently, "recursion": recurses, "a closed stdout": closes_stdout, "itself": holds_itself,
    "a long message": lambda acts, mask: (_ for _ in ()).throw(ValueError("x" * 10_000_000)), "the way back": lambda acts, mask: Backward.apply(acts[:, 0]),
    "prints": lambda acts, mask: print("x" * 50_000_000), "complex": lambda acts, mask: acts[:, 0].to(torch.complex64), "on meta": lambda acts, mask: acts[:, 0].to("meta"),
    "a generator": lambda acts, mask: (x for x in acts), "a class": lambda acts, mask: Silent, "expanded": lambda acts, mask: acts.sum().expand(len(acts), acts.shape[2]),
}


@pytest.mark.parametrize("what", ODD)
def test_an_odd_answer_is_wrong_in_a_few_words(what):
    verdict = judge(find_exercise("gather_last_token"), ODD[what])
    assert verdict.status in ("fail", "error")
    assert len(repr(verdict.lines)) < 12_000


def test_check_within_the_answer_is_refused(own_progress, capsys):
    def gather_last_token(acts, mask):
        check(gather_last_token)
        return acts[:, -1]

    check(gather_last_token)
    said = capsys.readouterr().out
    assert "It raised" in said and "it stands inside it" in said and "fault of the course" not in said
    hint("gather_last_token")  # and afterwards all is as before
    assert "Hint 2" in capsys.readouterr().out


@pytest.mark.parametrize("content", ["[]", "3", "null", '"x"', '{"gather_last_token": 3}', '{"gather_last_token": {"tries": "many", "hints": [], "passed": 3}}', "{", "[" * 100_000])
def test_a_record_of_another_form_does_not_break_a_check(own_progress, content, capsys):
    own_progress.write_text(content)

    def gather_last_token(acts, mask):
        return acts[:, -1]

    check(gather_last_token)
    hint(gather_last_token)
    progress()
    assert "Not yet: gather_last_token" in capsys.readouterr().out


def test_a_folder_in_place_of_the_record(own_progress, capsys):
    own_progress.mkdir()

    def gather_last_token(acts, mask):
        return acts[:, -1]

    check(gather_last_token)
    assert "Not yet: gather_last_token" in capsys.readouterr().out


# --- Ctrl-C, and an answer that pretends ----------------------------------------------------------------------


@pytest.fixture
def python_hears_ctrl_c():
    """As in a kernel; a test run in the background ignores the signal."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


class InterruptedBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, grad):
        raise KeyboardInterrupt("on the way back")


def raises_interrupt(acts, mask):
    raise KeyboardInterrupt("mine")


@pytest.mark.parametrize("handler", [signal.default_int_handler, signal.SIG_IGN], ids=["heard", "ignored"])
def test_an_answer_that_raises_keyboard_interrupt_is_wrong(handler, own_progress, capsys, python_hears_ctrl_c):
    signal.signal(signal.SIGINT, handler)

    def gather_last_token(acts, mask):
        raise KeyboardInterrupt("mine")

    check(gather_last_token)
    said = capsys.readouterr().out
    assert "It raised" in said and "KeyboardInterrupt: mine" in said and 'raise KeyboardInterrupt("mine")' in said


def test_so_is_one_that_raises_it_on_the_way_back():
    verdict = judge(find_exercise("topk_acts"), lambda pre, k: InterruptedBackward.apply(find_exercise("topk_acts").reference(pre, k)))
    assert verdict.status == "error" and any("on the way back" in text for _, text in verdict.lines)


def _presses(how):
    def gather_last_token(acts, mask):
        {"kill": lambda: os.kill(os.getpid(), signal.SIGINT), "interrupt_main": _thread.interrupt_main}[how]()
        time.sleep(5)

    return gather_last_token


def _swallows(acts, mask):
    try:
        _presses("kill")(acts, mask)
    except BaseException:
        pass
    return acts[:, -1]


def _disguises(acts, mask):
    try:
        _presses("kill")(acts, mask)
    except KeyboardInterrupt:
        raise ValueError("something else") from None


@pytest.mark.parametrize("answer", [_presses("kill"), _presses("interrupt_main"), _swallows, _disguises], ids=["a signal", "a kernel's way on Windows", "swallowed", "disguised"])
def test_a_real_ctrl_c_gets_through(answer, python_hears_ctrl_c):
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        judge(find_exercise("gather_last_token"), answer)
    assert signal.getsignal(signal.SIGINT) is before


def test_a_ctrl_c_from_outside_ends_the_check(own_progress, capsys, python_hears_ctrl_c):
    def gather_last_token(acts, mask):
        while True:  # until the button is pressed
            time.sleep(0.01)

    button = threading.Timer(1, os.kill, (os.getpid(), signal.SIGINT))
    button.start()
    with pytest.raises(KeyboardInterrupt):
        check(gather_last_token)
    button.join()
    assert "timeout" not in capsys.readouterr().out and not own_progress.exists()


def test_in_a_thread_it_may_be_a_kernels_so_it_gets_through():
    seen = []

    def judged():
        try:
            judge(find_exercise("gather_last_token"), raises_interrupt)
        except KeyboardInterrupt:
            seen.append("through")

    thread = threading.Thread(target=judged)
    thread.start()
    thread.join()
    assert seen == ["through"]
