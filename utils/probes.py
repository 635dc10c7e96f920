"""Probes, their scores and honest intervals: the few functions that every probing chapter needs again.

Chapter 11 has the learner write most of them; from chapter 12 on they come from here. Each refuses data on
which its answer would be a number without a meaning: one class only, NaN, groups that cannot be split.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.stats import rankdata
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from utils.intervals import ENOUGH, Estimate, jackknife


class ProbeError(ValueError):
    """Data that no probe, score or interval can be made from. The message says what to change."""


class OneClassError(ProbeError):
    """Only one class is there. `grouped_interval` leaves out the resamples that raise it."""


def auroc(scores: Float[Tensor, " n"], labels: Int[Tensor, " n"]) -> float:
    """The probability that a random class-1 row scores higher than a random class-0 row.

    Args:
        scores: any finite numbers; only their order matters.
        labels: 0 or 1 per row. Both occur.

    Returns:
        From 0 to 1; 0.5 is chance. A pair of equal scores counts one half.

    Raises: ProbeError for NaN or infinite scores, lengths that differ, labels other than 0 and 1;
    OneClassError when all labels are equal.

    Source: Hanley and McNeil 1982; computed from ranks (Mann and Whitney 1947).
    """
    positive = _checked_labels(labels, len(scores))
    values = torch.as_tensor(scores).detach().cpu().double().numpy()
    if values.ndim != 1:
        raise ProbeError(f"scores must be one number per row, got shape {list(values.shape)}.")
    if not np.isfinite(values).all():
        raise ProbeError(f"{int((~np.isfinite(values)).sum())} of {len(values)} scores are NaN or infinite.")
    n_1 = int(positive.sum())
    n_0 = len(values) - n_1
    return float((rankdata(values)[positive].sum() - n_1 * (n_1 + 1) / 2) / (n_1 * n_0))


def mass_mean(
    acts: Float[Tensor, "n d_model"], labels: Int[Tensor, " n"]
) -> tuple[Float[Tensor, " d_model"], Float[Tensor, ""]]:
    """The direction from the mean of class 0 to the mean of class 1, and the score halfway between them.

    Args:
        acts: one activation per row.
        labels: 0 or 1 per row. Both occur.

    Returns:
        The direction, in the activations' units, not normalised, and the threshold, a 0-d tensor: a row
        with `acts @ direction > threshold` is called class 1.

    Raises: ProbeError for NaN, a wrong shape or labels other than 0 and 1, and for a concept without
    variance (both means are the same point); OneClassError when all labels are equal.

    Source: Marks and Tegmark 2024, arXiv:2310.06824.
    """
    _check_acts(acts)
    positive = torch.from_numpy(_checked_labels(labels, len(acts))).to(acts.device)
    mean_0, mean_1 = acts[~positive].mean(dim=0), acts[positive].mean(dim=0)
    direction = mean_1 - mean_0
    if not direction.any():
        raise ProbeError("the two classes have the same mean: there is no direction between them.")
    return direction, direction @ (mean_0 + mean_1) / 2


def logistic(
    acts: Float[Tensor, "n d_model"],
    labels: Int[Tensor, " n"],
    *,
    C: float = 0.1,
    max_iter: int = 1000,
) -> tuple[Float[Tensor, " d_model"], Float[Tensor, ""]]:
    """Logistic regression on standardised activations, folded back so that it scores raw ones.

    Args:
        acts: one activation per row: the training rows only, since the standardisation is fitted on them.
        labels: 0 or 1 per row. Both occur.
        C: inverse strength of the L2 penalty, as in scikit-learn, on standardised features.
        max_iter: of the optimiser.

    Returns:
        (direction, bias): `acts @ direction + bias` is the log-odds of class 1. A feature that never
        varies gets the weight 0.

    Raises: as `mass_mean`.
    """
    _check_acts(acts)
    positive = _checked_labels(labels, len(acts))
    scaler = StandardScaler()
    raw = acts.detach().cpu().double().numpy()
    fitted = LogisticRegression(C=C, max_iter=max_iter).fit(scaler.fit_transform(raw), positive)
    # scikit-learn divides a constant feature by 1, and the penalty then keeps its weight at 0.
    direction = fitted.coef_[0] / scaler.scale_
    bias = fitted.intercept_[0] - direction @ scaler.mean_
    return torch.tensor(direction, dtype=acts.dtype, device=acts.device), torch.tensor(bias, dtype=acts.dtype, device=acts.device)


def grouped_interval(
    statistic: Callable[[Int[Tensor, " n_drawn"]], float],
    groups: Int[Tensor, " n"],
    n_boot: int = 1000,
    seed: int = 0,
) -> tuple[float, float]:
    """The 95% interval of any statistic, redrawing whole groups.

    Rows of one group are not independent (two sentences about one city), so that redrawing rows would give
    an interval that is too narrow. With fewer than `ENOUGH` groups it is Student's, from leaving each group
    out in turn.

    Args:
        statistic: called as `statistic(rows)` with the row numbers of one resample, repetitions included;
            for example `lambda rows: auroc(scores[rows], labels[rows])`.
        groups: which group each row belongs to. Any integers.
        n_boot: number of resamples.
        seed: of the resampling.

    Returns:
        (low, high). Resamples that hold one class only are left out.

    Raises: ProbeError for fewer than two groups, a statistic that is NaN, or when more than a tenth of the resamples hold one class
    only (too few groups for an interval).

    Source: Efron 1979, "Bootstrap methods: another look at the jackknife".
    """
    ids, which = torch.as_tensor(groups).cpu().unique(return_inverse=True)
    if len(ids) < 2:
        raise ProbeError(f"{len(ids)} group: an interval over groups needs at least two.")
    few = len(ids) < ENOUGH
    if few:
        draws = [(which != i).nonzero().squeeze(1) for i in range(len(ids))]
    else:
        members, rng = [(which == i).nonzero().squeeze(1) for i in range(len(ids))], np.random.default_rng(seed)
        draws = (torch.cat([members[i] for i in rng.integers(len(ids), size=len(ids))]) for _ in range(n_boot))
    values, failed = [], 0
    for rows in draws:
        try:
            values.append(float(statistic(rows)))
        except OneClassError:
            failed += 1
    if failed > (0 if few else 0.1 * n_boot):
        raise ProbeError(f"{failed} of {failed + len(values)} resamples of the {len(ids)} groups hold one class only: too few groups for an interval.")
    if not np.isfinite(values).all():
        raise ProbeError("the statistic is NaN or infinite on some resamples.")
    if few:
        return jackknife(float(statistic(torch.arange(len(which)))), torch.tensor(values)).interval
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)


def auroc_with_interval(
    scores: Float[Tensor, " n"],
    labels: Int[Tensor, " n"],
    groups: Int[Tensor, " n"],
    n_boot: int = 1000,
    seed: int = 0,
) -> Estimate:
    """`auroc` of all rows with its `grouped_estimate` interval, cut at 0 and 1. Raises: as `auroc` and `grouped_interval`."""
    found = grouped_estimate(lambda rows: auroc(scores[rows], labels[rows]), groups, n_boot, seed)
    return Estimate(found.value, max(found.low, 0.0), min(found.high, 1.0))


def group_orders(
    groups: Int[Tensor, " n"],
    n_orders: int,
    *,
    seed: int = 0,
    allowed: Callable[[Int[Tensor, " n"]], bool] = lambda order: True,
) -> Int[Tensor, "n_orders n"]:
    """Random orders of the rows that exchange whole groups, for null distributions: `labels[order]` deals labels by group.

    Args:
        groups: which group each row belongs to; all groups are of one size.
        n_orders: how many orders.
        seed: of the draws.
        allowed: called with each order; one that it refuses is drawn again.

    Returns:
        In each row the rows of every group have taken the places of another group (or kept their own), in order.

    Raises: ProbeError for groups of different sizes, or when fewer than one draw in a hundred is allowed.
    """
    _, which, sizes = torch.as_tensor(groups).cpu().unique(return_inverse=True, return_counts=True)
    if len(sizes.unique()) != 1:
        raise ProbeError(f"groups of {int(sizes.min())} to {int(sizes.max())} rows cannot take each other's place: all must be of one size.")
    members = which.argsort(stable=True).view(len(sizes), -1)  # [n_groups, rows per group]
    rng = torch.Generator().manual_seed(seed)
    orders: list[Tensor] = []
    for _ in range(100 * n_orders):
        if len(orders) == n_orders:
            break
        order = torch.empty_like(which)
        order[members] = members[torch.randperm(len(sizes), generator=rng)]
        if allowed(order):
            orders.append(order)
    if len(orders) < n_orders:
        raise ProbeError(f"only {len(orders)} of {100 * n_orders} orders are allowed: no null distribution can be drawn from these groups.")
    return torch.stack(orders)


def grouped_estimate(
    statistic: Callable[[Int[Tensor, " n_drawn"]], float], groups: Int[Tensor, " n"], n_boot: int = 1000, seed: int = 0
) -> Estimate:
    """The statistic of all rows with its `grouped_interval`, which is widened to the value where it misses it.

    Args and Raises: as `grouped_interval`.
    """
    value = float(statistic(torch.arange(len(groups))))
    low, high = grouped_interval(statistic, groups, n_boot, seed)
    return Estimate(value, min(low, value), max(high, value))


def grouped_folds(
    groups: Int[Tensor, " n"], n_folds: int = 5, seed: int = 0
) -> list[tuple[Int[Tensor, " n_train"], Int[Tensor, " n_test"]]]:
    """Split rows into folds of similar size, every group within one fold.

    Args:
        groups: which group each row belongs to. Any integers.
        n_folds: at least 2, at most the number of groups.
        seed: of the shuffle.

    Returns:
        One (train rows, test rows) pair per fold. Every row is in exactly one test part.

    Raises: ProbeError when there are fewer rows or groups than folds.
    """
    groups = torch.as_tensor(groups).cpu()
    n_groups = len(groups.unique())
    if n_folds < 2:
        raise ProbeError(f"n_folds must be at least 2, not {n_folds}.")
    if len(groups) < n_folds:
        raise ProbeError(f"{len(groups)} rows cannot make {n_folds} folds: use at most {len(groups)}.")
    if n_groups < n_folds:
        raise ProbeError(f"{n_groups} group(s) cannot be split into {n_folds} folds without tearing one apart.")
    splitter = GroupKFold(n_folds, shuffle=True, random_state=seed)
    return [(torch.from_numpy(train), torch.from_numpy(test)) for train, test in splitter.split(groups, groups=groups.numpy())]


def _check_acts(acts: Float[Tensor, "n d_model"]) -> None:
    if acts.ndim != 2 or not acts.is_floating_point():
        raise ProbeError(f"activations must be floating-point, [n, d_model]; got {acts.dtype}, {list(acts.shape)}.")
    broken = (~acts.isfinite()).any(dim=1)
    if broken.any():
        raise ProbeError(f"{int(broken.sum())} of {len(acts)} activations hold NaN or infinity; the first is row {int(broken.int().argmax())}.")


def _checked_labels(labels: Int[Tensor, " n"], n: int) -> np.ndarray:
    """Labels as booleans, or a clear refusal."""
    values = torch.as_tensor(labels).detach().cpu().numpy()
    if values.shape != (n,):
        raise ProbeError(f"there are {n} rows, and labels of shape {list(values.shape)}.")
    if n == 0:
        raise ProbeError("there are no rows.")
    if not np.isin(values, (0, 1)).all():
        raise ProbeError(f"labels must be 0 or 1; found {sorted({str(v) for v in np.unique(values)} - {'0', '1'})[:5]}.")
    if (values == values[0]).all():
        raise OneClassError(f"all {n} labels are {int(values[0])}: a probe or an AUROC needs both classes.")
    return values.astype(bool)
