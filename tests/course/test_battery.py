"""The battery makes cases that tell apart what the author's own cases do not."""

import pytest
import torch
from jaxtyping import Float, Int
from torch import Tensor

from utils.course.battery import coverage
from utils.course.cases import Case
from utils.course.exercises import Exercise
from utils.course.judging import judge


def exercise(reference, cases, **options):
    made = Exercise("toy", difficulty=1, importance=1, minutes=1, learn="", verified="", next="", cases=lambda rng: cases(rng), hints=("a", "b", "c"), **options)
    made.reference = reference
    return made


def spread(x: Float[Tensor, "*places n"], k: int = 1) -> Float[Tensor, "*places"]:
    return x.topk(min(k, x.shape[-1]), dim=-1).values.sum(dim=-1)


def shares(x: Float[Tensor, "n"], y: Float[Tensor, "n"]) -> Float[Tensor, "n"]:
    return x / x.norm() + y / y.norm()


def stacks(x: Float[Tensor, "*sae n"]) -> Float[Tensor, "*sae"]:
    return x.sum(dim=-1)


def _draw(rng, *shape):
    return torch.randn(shape, generator=rng, dtype=torch.float64)


SPREAD = exercise(spread, lambda rng: [Case("no place", _draw(rng, 5), 3), Case("four places", _draw(rng, 4, 5), 2)], ends={"k": lambda a: (1, a["x"].shape[-1])})


def test_two_leading_axes_are_tried_where_the_shape_leaves_their_number_open():
    def one_axis_only(x, k=1):
        return torch.stack([spread(row, k) for row in x]).reshape(len(x), -1)[:, 0] if x.ndim > 1 else spread(x, k)

    assert judge(SPREAD, spread).passed
    verdict = judge(SPREAD, one_axis_only)
    assert not verdict.passed and "four places, with two leading axes" in str(verdict.lines)
    made = next(case for case in SPREAD.cases(0) if case.kind == "axes").args[0]
    assert made.shape == (3, 4, 5) and not torch.equal(made[0], made[1])


def test_an_axis_of_saes_is_one_or_none():
    cases = exercise(stacks, lambda rng: [Case("one", _draw(rng, 5)), Case("two", _draw(rng, 2, 5))]).cases(0)
    assert "axes" not in {case.kind for case in cases}


@pytest.mark.parametrize("wrong", [lambda x, k=1: spread(x, max(k, 2)), lambda x, k=1: spread(x, min(k, 4))], ids=["never 1", "never all"])
def test_whole_numbers_are_tried_at_both_ends(wrong):
    verdict = judge(SPREAD, wrong)
    assert not verdict.passed and "but with k = " in str(verdict.lines)


def test_an_exercise_says_the_ends_of_its_whole_numbers():
    silent = exercise(spread, lambda rng: [Case("no place", _draw(rng, 5), 3)])
    assert coverage(SPREAD, SPREAD.cases(0), set())["ends"] and not coverage(silent, silent.cases(0), set())["ends"]


def test_arguments_are_scaled_alone_too():
    toy = exercise(shares, lambda rng: [Case("five", _draw(rng, 5), _draw(rng, 5))])
    assert judge(toy, shares).passed
    verdict = judge(toy, lambda x, y: x / x.norm() + y / (y.norm() + 1e-9 * x.norm()))  # no scale of both together shows it
    assert not verdict.passed and "five, y times 1e-06" in str(verdict.lines)


def per_group(mean: Float[Tensor, "n"], groups: Int[Tensor, "n"]) -> Float[Tensor, "n"]:
    return torch.stack([mean[groups == group].mean() for group in groups])


@pytest.mark.parametrize("wrong, words", [
    (lambda mean, groups: per_group(mean.abs(), groups), "with mean below 0"), (lambda mean, groups: per_group(mean, groups.abs()), "with groups on both sides of 0"),
], ids=["only positive numbers", "only positive ids"])
def test_signs_are_tried_that_no_case_has(wrong, words):
    toy = exercise(per_group, lambda rng: [Case("five", _draw(rng, 5).abs(), torch.tensor([7, 3, 3, 12, 7]))])
    assert judge(toy, per_group).passed
    verdict = judge(toy, wrong)
    assert not verdict.passed and words in str(verdict.lines)
