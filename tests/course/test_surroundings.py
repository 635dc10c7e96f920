"""What an answer may not change is seen, said and put back."""

import random

import numpy as np
import pytest
import torch

from utils.course.exercises import Case, Exercise
from utils.course.judging import judge
from utils.course.surroundings import Surroundings
from utils.models import tiny_model

MEAN = Exercise("mean", difficulty=1, importance=1, minutes=1, learn="", verified="", next="",
                cases=lambda rng: [Case("first", torch.randn(5, 3, generator=rng), 2)], hints=("a", "b", "c"))
MEAN.reference = lambda x, times: x.mean(0) * times


@pytest.mark.parametrize("careless, words", [
    (lambda: torch.set_default_device("meta"), "default device"), (lambda: np.random.seed(3), "NumPy's random state"),
    (lambda: random.seed(3), "Python's random state"), (lambda: torch.use_deterministic_algorithms(True), "deterministic"),
    (lambda: np.seterr(all="raise"), "division by zero"), (lambda: torch.autograd.set_detect_anomaly(True), "anomalies"),
])
def test_what_an_answer_leaves_behind_is_said_and_put_back(careless, words):
    device, state = torch.get_default_device(), (np.random.get_state()[1].tolist(), random.getstate())

    def answer(x, times):
        careless()
        return x.mean(0) * times

    for _ in range(2):  # the second time as well: it was put back
        assert words in str(judge(MEAN, answer).lines)
    assert torch.get_default_device() == device and not torch.are_deterministic_algorithms_enabled()
    assert np.geterr()["divide"] == "warn" and not torch.is_anomaly_enabled()
    assert (np.random.get_state()[1].tolist(), random.getstate()) == state


@pytest.mark.parametrize("how", ["in place", "another tensor"])
def test_the_tiny_model_gets_its_weights_back(how):
    model = tiny_model()
    whole, around = [p.detach().clone() for p in model.parameters()], Surroundings([model])
    first = next(model.parameters())
    first.data = first.data + 1 if how == "another tensor" else first.data.add_(1)
    with torch.no_grad():
        first.mul_(2)
    assert around.restore() == (0, ["the model's weights"])
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), whole))


def test_an_answer_cannot_switch_gradients_off_for_the_kernel():
    def careless(x, times):
        torch.set_grad_enabled(False)
        return x.mean(0) * times

    verdict = judge(MEAN, careless)
    assert verdict.status == "fail" and "and leaves the rest as it was" in str(verdict.lines)
    assert torch.is_grad_enabled()
