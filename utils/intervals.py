"""A number with its 95% interval: exact for a share, the bootstrap over whole documents, Student's where there are few of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor


ENOUGH = 10
"""Units from which on they are drawn anew; with fewer, resamples hardly differ and the interval would be too narrow."""


@dataclass(frozen=True)
class Estimate:
    """A number with its 95% interval."""

    value: float
    low: float
    high: float

    @property
    def interval(self) -> tuple[float, float]:
        return self.low, self.high

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def bootstrap(statistic: Callable[[Tensor], Tensor], *per_document: Float[Tensor, " documents"], n: int = 1000, seed: int = 0) -> Estimate:
    """A statistic of sums over documents, with the 95% interval from drawing the documents anew with replacement.

    With fewer than `ENOUGH` documents the interval is `jackknife`'s.

    Args:
        statistic: takes [m, ...] sums, one row for each of `per_document`.

    Raises: ValueError with fewer than 2 documents that hold anything.
    """
    rows = torch.stack(per_document, 1).double()
    rows = rows[(rows != 0).any(1)]
    if len(rows) < 2:
        raise ValueError("an interval over documents needs at least 2 of them.")
    value = float(statistic(rows.sum(0)))
    if len(rows) < ENOUGH:
        return jackknife(value, statistic((rows.sum(0) - rows).T))
    rng = torch.Generator().manual_seed(seed)
    drawn = [torch.bincount(torch.randint(len(rows), (len(rows),), generator=rng), minlength=len(rows)).double() @ rows for _ in range(n)]
    low, high = statistic(torch.stack(drawn, 1)).quantile(torch.tensor([0.025, 0.975], dtype=torch.double))
    return Estimate(value, float(low), float(high))


def jackknife(value: float, left_out: Float[Tensor, " n"]) -> Estimate:
    """A statistic of `n` units with Student's interval. For a mean it is `mean_over`'s.

    Args:
        left_out: the same statistic with each unit left out in turn.

    Source: Tukey 1958, "Bias and confidence in not quite large samples".
    """
    from scipy.stats import t as student  # a second to load, which a chapter's first figure need not wait for

    n = len(left_out)
    half = float(student.ppf(0.975, n - 1) * (n - 1) * left_out.double().std() / n**0.5)
    return Estimate(value, value - half, value + half)


def share(count: int, n: int) -> Estimate:
    """A share of `n` independent trials with its exact 95% interval, which has a width even at 0 and at 1.

    Raises: ValueError for no trial, or a count outside 0 to `n`.

    Source: Clopper and Pearson 1934.
    """
    if not 0 <= count <= n or n < 1:
        raise ValueError(f"{count} of {n} is no share.")
    from scipy.stats import binomtest

    found = binomtest(count, n).proportion_ci()
    return Estimate(count / n, float(found.low), float(found.high))


def mean_over(units: Float[Tensor, " n"], low: float = -math.inf, high: float = math.inf) -> Estimate:
    """A mean over independent units (worlds, seeds, speeches) with Student's interval, which is honest for few of them.

    Args:
        low, high: what the quantity cannot leave; the interval is cut there.

    Raises: ValueError with fewer than 2 units.
    """
    if len(units) < 2:
        raise ValueError("an interval over units needs at least 2 of them.")
    from scipy.stats import t as student

    units = units.double()
    mean, half = float(units.mean()), float(student.ppf(0.975, len(units) - 1) * units.std() / len(units) ** 0.5)
    return Estimate(mean, max(mean - half, low), min(mean + half, high))


def share_difference(count: int, n: int, other_count: int, other_n: int) -> Estimate:
    """One share minus another, from different units, with its 95% interval. For the same units, `mean_over` their differences.

    Raises: ValueError for no trial, or a count outside 0 to its n.

    Source: Newcombe 1998, "Interval estimation for the difference between independent proportions", method 10.
    """
    from scipy.stats import binomtest

    if not (0 <= count <= n and 0 <= other_count <= other_n and n and other_n):
        raise ValueError(f"{count} of {n} and {other_count} of {other_n} are no two shares.")
    p, q = count / n, other_count / other_n
    (low, high), (other_low, other_high) = (binomtest(k, m).proportion_ci(method="wilson") for k, m in ((count, n), (other_count, other_n)))
    return Estimate(p - q, p - q - math.hypot(p - low, other_high - q), p - q + math.hypot(high - p, q - other_low))


def mean_count(counts: Float[Tensor, " n"], most: int) -> Estimate:
    """A mean count over units that have `most` trials each: directions found in a world, rings hit on a globe.

    Student's interval over the units, widened to the exact one of all trials together where that is wider: it has a width when all
    units agree.

    Raises: ValueError with fewer than 2 units, or a count outside 0 to `most`.
    """
    if not 0 <= float(counts.min()) <= float(counts.max()) <= most:
        raise ValueError(f"counts from {float(counts.min()):g} to {float(counts.max()):g} are not of {most} trials.")
    over_units, of_trials = mean_over(counts, 0, most), share(round(float(counts.sum())), most * len(counts))
    return Estimate(over_units.value, min(over_units.low, most * of_trials.low), max(over_units.high, most * of_trials.high))


def paired_share_difference(first: Bool[Tensor, " n"], other: Bool[Tensor, " n"]) -> Estimate:
    """The share of True in `first` minus that in `other`, of the same units, with a 95% interval that has a width even where they agree.

    Raises: ValueError for no unit, or unequal numbers of them.

    Source: Newcombe 1998, "Improved confidence intervals for the difference between binomial proportions based on paired data", method 10.
    """
    from scipy.stats import binomtest

    first, other = torch.as_tensor(first).bool().cpu(), torch.as_tensor(other).bool().cpu()
    if first.shape != other.shape or first.ndim != 1 or not len(first):
        raise ValueError(f"{list(first.shape)} and {list(other.shape)} are no two shares of the same units.")
    n, a, b, c = len(first), *(int(x.sum()) for x in (first & other, first & ~other, ~first & other))
    d, p, q = n - a - b - c, (a + b) / n, (a + c) / n
    (low, high), (other_low, other_high) = (binomtest(k, n).proportion_ci(method="wilson") for k in (a + b, a + c))
    sides, product = math.sqrt((a + b) * (c + d) * (a + c) * (b + d)), a * d - b * c
    phi = (max(product - n / 2, 0) if product > 0 else product) / sides if sides else 0.0
    down, up, other_down, other_up = p - low, high - p, q - other_low, other_high - q
    below = math.sqrt(down**2 - 2 * phi * down * other_up + other_up**2)
    above = math.sqrt(up**2 - 2 * phi * up * other_down + other_down**2)
    return Estimate(p - q, p - q - below, p - q + above)


def picked(found: Estimate, n: int) -> Estimate:
    """The estimate of the one that was picked among `n` because it is the largest (or smallest), its interval widened by Bonferroni's rule.

    The ratio of the normal quantiles stretches each side: 1.6 times among 30.
    """
    from statistics import NormalDist

    stretch = NormalDist().inv_cdf(1 - 0.025 / n) / NormalDist().inv_cdf(0.975)
    return Estimate(found.value, found.value - stretch * (found.value - found.low), found.value + stretch * (found.high - found.value))


def at_the_edge(found: Estimate, n: int) -> Estimate:
    """The estimate of a share or an AUROC over `n` units: at 0 and at 1, where units drawn anew show no width, with the exact interval.

    It is that of `n` trials that agree: n units of which none shows any of it, or, for an AUROC of 1, n pairs of unrelated rows that are
    all in order.
    """
    if found.value not in (0, 1):
        return found
    exact = share(round(found.value) * n, n)
    return Estimate(found.value, min(found.low, exact.low), max(found.high, exact.high))


def independent_difference(first: Estimate, other: Estimate) -> Estimate:
    """One estimate minus another, from units that have nothing to do with each other, with its 95% interval.

    Source: Zou and Donner 2008, "Construction of confidence limits about effect measures: a general approach".
    """
    value = first.value - other.value
    return Estimate(value, value - math.hypot(first.value - first.low, other.high - other.value),
                    value + math.hypot(first.high - first.value, other.value - other.low))
