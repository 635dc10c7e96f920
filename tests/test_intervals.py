"""Intervals over what was sampled."""

from __future__ import annotations

import pytest
import torch

from utils.intervals import (
    Estimate, at_the_edge, bootstrap, independent_difference, jackknife, mean_count, mean_over, paired_share_difference, picked, share,
    share_difference,
)


def test_bootstrap_draws_documents():
    errors, totals = torch.tensor([1.0, 2.0, 0.0, 4.0]).repeat(4), torch.tensor([10.0, 10.0, 0.0, 10.0]).repeat(4)
    found = bootstrap(lambda s: s[0] / s[1], errors, totals)
    assert found.value == pytest.approx(7 / 30) and 0.1 <= found.low < found.value < found.high <= 0.4
    assert found == bootstrap(lambda s: s[0] / s[1], errors, totals)
    with pytest.raises(ValueError, match="at least 2"):
        bootstrap(lambda s: s[0], torch.tensor([1.0, 0.0]))


def test_a_share_has_an_exact_interval_of_some_width():
    assert share(0, 1000).interval == pytest.approx((0, 0.003682), abs=1e-5)  # 1 - 0.025 ** (1 / 1000)
    half = share(5, 10)
    assert half.value == 0.5 and half.interval == pytest.approx((0.187, 0.813), abs=1e-3)
    for count, n in ((3, 2), (-1, 5), (0, 0)):
        with pytest.raises(ValueError, match="no share"):
            share(count, n)


def test_a_mean_over_few_units_has_students_interval():
    found = mean_over(torch.tensor([1.0, 2.0, 3.0]))
    assert found.value == 2 and found.interval == pytest.approx((2 - 2.4841, 2 + 2.4841), abs=1e-3)  # 4.3027 * 1 / sqrt(3)
    assert mean_over(torch.tensor([19.0, 20.0, 20.0]), low=0, high=20).high == 20
    with pytest.raises(ValueError, match="at least 2"):
        mean_over(torch.tensor([1.0]))


def test_few_units_have_students_interval_whatever_the_statistic():
    units = torch.tensor([1.0, 2.0, 4.0])
    assert jackknife(7 / 3, torch.tensor([3.0, 2.5, 1.5])).interval == pytest.approx(mean_over(units).interval)
    found = bootstrap(lambda s: s[0] / s[1], units, torch.ones(3))
    assert found.value == pytest.approx(7 / 3) and found.interval == pytest.approx(mean_over(units).interval)
    wider = bootstrap(lambda s: s[0] / s[1], units.repeat(3), torch.ones(9))
    drawn = bootstrap(lambda s: s[0] / s[1], units.repeat(4), torch.ones(12))
    assert wider.high - wider.low > drawn.high - drawn.low


def test_two_shares_differ_by_newcombes_interval():
    found = share_difference(56, 70, 48, 80)  # the first example of the paper
    assert found.value == pytest.approx(0.2) and found.interval == pytest.approx((0.0524, 0.3339), abs=1e-4)
    assert share_difference(0, 10, 0, 20).low < 0 < share_difference(0, 10, 0, 20).high
    with pytest.raises(ValueError, match="no two shares"):
        share_difference(1, 0, 1, 2)


def test_a_mean_count_has_a_width_where_all_units_agree():
    found = mean_count(torch.full((8,), 20.0), 20)
    assert found.value == found.high == 20 and found.low == pytest.approx(20 * share(160, 160).low)
    apart = torch.tensor([0.0, 20.0, 0.0, 20.0])  # units that differ more than their trials do: Student's is the wider one
    assert mean_count(apart, 20).interval == mean_over(apart, 0, 20).interval
    with pytest.raises(ValueError, match="not of 3 trials"):
        mean_count(torch.tensor([1.0, 4.0]), 3)


def test_two_shares_of_the_same_units_differ_by_newcombes_paired_interval():
    def of(a, b, c, d):
        pairs = [(True, True)] * a + [(True, False)] * b + [(False, True)] * c + [(False, False)] * d
        return paired_share_difference(*torch.tensor(pairs).unbind(1))

    found = of(36, 12, 2, 0)  # the paper's Table II
    assert found.value == pytest.approx(0.2) and found.interval == pytest.approx((0.0569, 0.3404), abs=1e-3)
    assert of(41, 0, 0, 0).interval == pytest.approx((-0.0857, 0.0857), abs=1e-3)
    with pytest.raises(ValueError, match="same units"):
        paired_share_difference(torch.ones(2), torch.ones(3))


def test_the_best_of_many_has_a_wider_interval():
    found = Estimate(1.0, 0.5, 2.0)
    assert picked(found, 1) == found
    assert picked(found, 30).interval == pytest.approx((1 - 0.5 * 1.6, 1 + 1.6), abs=0.02)


def test_at_0_and_at_1_an_estimate_has_a_width_and_elsewhere_it_is_left_alone():
    assert at_the_edge(Estimate(1.0, 1.0, 1.0), 24).interval == share(24, 24).interval
    assert at_the_edge(Estimate(0.0, 0.0, 0.2), 24).interval == (0.0, 0.2)
    assert at_the_edge(Estimate(0.9, 0.8, 1.0), 24) == Estimate(0.9, 0.8, 1.0)


def test_a_difference_of_two_unrelated_estimates_is_welchs_where_their_units_are_many():
    rng = torch.Generator().manual_seed(0)
    one, two = torch.randn(400, generator=rng) + 1, 3 * torch.randn(300, generator=rng)
    found = independent_difference(mean_over(one), mean_over(two))
    half = 1.97 * float((one.var() / 400 + two.var() / 300).sqrt())
    assert found.low == pytest.approx(found.value - half, abs=0.01) and found.high == pytest.approx(found.value + half, abs=0.01)
