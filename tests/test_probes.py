"""utils.probes against slow definitions and scikit-learn, and what it refuses."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import StandardScaler

from utils.intervals import mean_over
from utils.probes import (
    OneClassError, ProbeError, auroc, auroc_with_interval, group_orders, grouped_estimate, grouped_folds, grouped_interval, logistic,
    mass_mean,
)


@pytest.fixture
def data():
    rng = torch.Generator().manual_seed(3)
    labels = torch.randint(0, 2, (41,), generator=rng)
    acts = torch.randn(41, 7, generator=rng) * torch.tensor([1, 5, 0.2, 1, 30, 1, 1.0]) + 4
    acts[labels == 1, 1] += 6
    return acts, labels


def test_auroc_is_scikit_learns_also_with_ties(data):
    acts, labels = data
    for scores in (acts[:, 1], acts[:, 1].round(), torch.zeros(41)):
        assert auroc(scores, labels) == pytest.approx(roc_auc_score(labels, scores))


def test_mass_mean_is_the_difference_and_its_midpoint(data):
    acts, labels = data
    direction, threshold = mass_mean(acts, labels)
    means = [torch.stack([row for row, label in zip(acts, labels) if label == c]).mean(0) for c in (0, 1)]
    torch.testing.assert_close(direction, means[1] - means[0])
    torch.testing.assert_close((direction @ means[0] + direction @ means[1]) / 2, threshold)


def test_logistic_scores_raw_activations_as_the_standardised_probe_does(data):
    acts, labels = data
    acts = torch.cat([acts, torch.full((41, 1), 3.0)], dim=1)  # a feature that never varies
    direction, bias = logistic(acts, labels, C=0.3)
    scaler = StandardScaler().fit(acts)
    fitted = LogisticRegression(C=0.3, max_iter=1000).fit(scaler.transform(acts), labels)
    np.testing.assert_allclose(acts @ direction + bias, fitted.decision_function(scaler.transform(acts)), atol=1e-3)
    assert direction.dtype == acts.dtype and direction[-1] == 0


def test_the_grouped_interval_is_wider_when_rows_repeat():
    rng = torch.Generator().manual_seed(0)
    values = torch.rand(30, generator=rng).repeat_interleave(20)
    mean = lambda rows: values[rows].mean()  # noqa: E731
    low, high = grouped_interval(mean, torch.arange(30).repeat_interleave(20), 400, seed=1)
    narrow_low, narrow_high = grouped_interval(mean, torch.arange(600), 400, seed=1)
    assert low < values.mean() < high
    assert high - low > 3 * (narrow_high - narrow_low)
    assert (low, high) == grouped_interval(mean, torch.arange(30).repeat_interleave(20), 400, seed=1)


def test_folds_keep_groups_together_and_cover_every_row_once():
    groups = torch.tensor([9, 9, 4, 4, 4, 70, 1, 1, 2, 3])
    folds = grouped_folds(groups, 3, seed=5)
    assert sorted(torch.cat([test for _, test in folds]).tolist()) == list(range(10))
    for train, test in folds:
        assert not set(groups[train].tolist()) & set(groups[test].tolist())
        assert len(train) + len(test) == 10


@pytest.mark.parametrize("probe", [mass_mean, logistic])
def test_probes_refuse_what_they_cannot_learn_from(probe, data):
    acts, labels = data
    with pytest.raises(OneClassError, match="all 41 labels are 1"):
        probe(acts, torch.ones(41, dtype=torch.long))
    with pytest.raises(ProbeError, match="labels must be 0 or 1"):
        probe(acts, labels + 1)
    with pytest.raises(ProbeError, match="41 rows"):
        probe(acts, labels[:-1])
    with pytest.raises(ProbeError, match="row 5"):
        probe(acts.index_put((torch.tensor(5), torch.tensor(2)), torch.tensor(torch.nan)), labels)
    with pytest.raises(ProbeError, match="n, d_model"):
        probe(acts[:, 0], labels)
    with pytest.raises(ProbeError, match="no rows"):
        probe(acts[:0], labels[:0])


def test_mass_mean_refuses_a_concept_without_variance():
    with pytest.raises(ProbeError, match="same mean"):
        mass_mean(torch.ones(4, 3), torch.tensor([0, 1, 0, 1]))


def test_auroc_refuses():
    labels = torch.tensor([0, 1, 1])
    with pytest.raises(ProbeError, match="1 of 3 scores"):
        auroc(torch.tensor([0.0, torch.nan, 1.0]), labels)
    with pytest.raises(OneClassError):
        auroc(torch.tensor([0.0, 1.0]), torch.tensor([0, 0]))
    with pytest.raises(ProbeError, match="one number per row"):
        auroc(torch.zeros(3, 2), labels)


def test_intervals_and_folds_refuse_groups_that_cannot_be_split():
    with pytest.raises(ProbeError, match="at least two"):
        grouped_interval(lambda rows: 0.0, torch.zeros(5, dtype=torch.long))
    labels = torch.tensor([0, 0, 0, 1])
    with pytest.raises(ProbeError, match="one class only"):
        grouped_interval(lambda rows: auroc(torch.arange(4.0)[rows], labels[rows]), torch.arange(4), 200)
    with pytest.raises(ProbeError, match="one class only"):
        grouped_interval(lambda rows: auroc(torch.arange(12.0)[rows], torch.eye(12)[0][rows].long()), torch.arange(12), 200)
    with pytest.raises(ProbeError, match="NaN"):
        grouped_interval(lambda rows: float("nan"), torch.arange(4), 10)
    with pytest.raises(ProbeError, match="3 rows cannot make 4 folds"):
        grouped_folds(torch.tensor([1, 2, 3]), 4)
    with pytest.raises(ProbeError, match="tearing one apart"):
        grouped_folds(torch.tensor([1, 1, 1, 2, 2]), 3)
    with pytest.raises(ProbeError, match="at least 2"):
        grouped_folds(torch.tensor([1, 2]), 1)


def test_an_auroc_comes_with_the_interval_of_its_groups(data):
    acts, labels = data
    groups = torch.arange(41) // 3
    found = auroc_with_interval(acts[:, 1], labels, groups, 100, seed=2)
    assert found.value == auroc(acts[:, 1], labels)
    assert found.interval == grouped_interval(lambda rows: auroc(acts[rows, 1], labels[rows]), groups, 100, seed=2)


def test_group_orders_exchange_whole_groups():
    groups = torch.tensor([7, 3, 7, 3, 5, 5])
    orders = group_orders(groups, 40, seed=1)
    assert orders.shape == (40, 6) and torch.equal(orders.sort(dim=1).values, torch.arange(6).expand(40, 6))
    for order in orders:
        assert all(len(groups[order][groups == g].unique()) == 1 for g in (3, 5, 7))
    assert len(orders.unique(dim=0)) == 6 and torch.equal(orders, group_orders(groups, 40, seed=1))
    fixed = group_orders(groups, 9, allowed=lambda order: int(order[0]) == 0)
    assert (fixed[:, [0, 2]] == torch.tensor([0, 2])).all()


def test_group_orders_refuse_what_they_cannot_exchange():
    with pytest.raises(ProbeError, match="1 to 2 rows"):
        group_orders(torch.tensor([0, 0, 1]), 3)
    with pytest.raises(ProbeError, match="only 0 of 200"):
        group_orders(torch.tensor([0, 1]), 2, allowed=lambda order: False)


def test_an_estimate_is_the_value_of_all_rows_inside_its_own_interval():
    values, groups = torch.tensor([0.0, 1.0, 1.0, 3.0, 2.0, 2.0]).repeat(4), torch.arange(12).repeat_interleave(2)
    found = grouped_estimate(lambda rows: values[rows].mean(), groups, n_boot=200)
    assert found.value == 1.5 and found.interval == grouped_interval(lambda rows: values[rows].mean(), groups, 200)
    never = grouped_estimate(lambda rows: float(rows.tolist() == list(range(24))), groups, n_boot=20, seed=1)
    assert never.value == never.high == 1.0, "the interval holds a value that the resamples miss"


def test_few_groups_have_the_interval_of_leaving_each_out():
    values, groups = torch.tensor([0.0, 1.0, 1.0, 3.0, 2.0, 2.0]), torch.tensor([0, 0, 1, 1, 2, 2])
    found = grouped_estimate(lambda rows: values[rows].mean(), groups)
    assert found.interval == pytest.approx(mean_over(torch.tensor([0.5, 2.0, 2.0])).interval)
