"""A contest in a world of the learner's own."""

from __future__ import annotations

import pytest
import torch

from utils.sae.contest import Run, Variant, contest, nearest_in_l0, partial_rank_correlation, random_start, rank_correlation
from utils.sae.stacks import pre_activations, squared_error
from utils.worlds.planted import planted, recovered
from utils.yours.variants import RecoveryReport, WorldError, recover_planted


def topk(params, x, k):
    values, places = pre_activations(params, x).relu().topk(k, dim=-1)
    acts = torch.zeros(*x.shape[:-1], params["b_enc"].shape[-1]).scatter(-1, places, values)
    return squared_error(params, x, acts), acts


VARIANTS = {"TopK": Variant(topk, (1, 2)), "wide": Variant(topk, (3,))}


def made(found, l0=1.0, explained=0.9):
    """A run with these numbers of recovered directions."""
    found = torch.tensor(found)
    return Run({}, torch.full_like(found, l0), torch.full_like(found, explained), found)


def report_on(random=0.5, **runs):
    return RecoveryReport({(name, 1): run for name, run in runs.items()}, 6, 1.0, torch.full((4,), random))


def test_headlines():
    best, near, poor = made([6.0, 6, 5, 6]), made([5.0, 6, 6, 5]), made([1.0, 0, 2, 1], explained=0.99)
    assert report_on(a=best, b=poor).headline == "a finds the most"
    assert report_on(a=best, b=near).headline == "a and b cannot be told apart"
    assert report_on(a=poor, b=poor).headline == "Nothing that random directions would not have hit"
    assert report_on(a=best).headline == "a finds more than random directions"
    verdict = report_on(a=best, b=poor).verdict
    assert "a 5.8 [5.0, 6.0]" in verdict and "Explained variance would have chosen b at 1, which recovers 1.0" in verdict


def test_the_setting_nearest_to_the_worlds_l0_is_compared():
    runs = {("a", 1): made([2.0, 3], l0=1.2), ("a", 2): made([6.0, 6], l0=3.0)}
    assert RecoveryReport(runs, 6, 1.0, torch.ones(2)).chosen == {"a": 1}


def test_a_contest_in_a_world_of_ones_own():
    report = recover_planted(VARIANTS, n_features=6, d_hidden=3, probability=0.15, worlds=2, steps=20)
    assert report.true_l0 == pytest.approx(0.9, abs=0.03) and list(report.runs) == [("TopK", 1), ("TopK", 2), ("wide", 3)]
    fig = report.figure()
    assert [trace.name for trace in fig.data] == ["TopK", "wide"] and fig.layout.title.text == report.headline
    assert report.verdict.startswith(report.headline)
    again = recover_planted({"TopK": Variant(topk, (1,))}, n_features=6, d_hidden=3, probability=0.15, worlds=2, steps=20)
    assert torch.equal(again.runs["TopK", 1].recovered, report.runs["TopK", 1].recovered)


@pytest.mark.parametrize("changes, words", [
    ({"variants": {}}, "no variants"), ({"n_features": 1}, "features"), ({"n_features": 500}, "features"), ({"d_hidden": 9}, "dimensions"),
    ({"probability": 0.0}, "probability"), ({"correlation": 1.5}, "correlation"), ({"worlds": 1}, "2 worlds"), ({"n_latents": 2}, "only 2"),
    ({"variants": {"empty": Variant(topk, ())}}, "no settings"),
])
def test_worlds_that_hold_no_contest(changes, words):
    with pytest.raises(WorldError, match=words):
        recover_planted(**{"variants": VARIANTS, "n_features": 6, "d_hidden": 3, "probability": 0.1} | changes)


def test_a_contest_runs_every_setting_and_the_nearest_is_chosen():
    world = planted(4, 2, 0.3, worlds=2, rows=600)
    runs = contest(VARIANTS, world, random_start(world, 8), steps=3)
    assert list(runs) == [("TopK", 1), ("TopK", 2), ("wide", 3)] and nearest_in_l0(runs, 1.9)["TopK"] == 2


def test_rank_correlations():
    a = torch.tensor([[1.0, 1], [2, 2], [3, 3], [4, 4]])
    b = torch.tensor([[10.0, 4], [20, 3], [30, 2], [40, 1]])
    assert rank_correlation(a, b).tolist() == pytest.approx([1, -1])
    rng = torch.Generator().manual_seed(0)
    cause = torch.randn(400, 2, generator=rng)
    left, right = (cause + 0.3 * torch.randn(400, 2, generator=rng) for _ in range(2))
    assert rank_correlation(left, right).min() > 0.8 and partial_rank_correlation(left, right, cause).abs().max() < 0.15


def test_planted_pairs_come_together():
    world = planted(5, 3, 0.2, worlds=1, rows=40_000, correlation=0.6)
    there = (world.features[0] > 0).float()
    assert there.mean(0).tolist() == pytest.approx([0.2] * 5, abs=0.02)
    assert torch.corrcoef(there.T)[0, 1] == pytest.approx(0.6, abs=0.05) and torch.corrcoef(there.T)[1, 2].abs() < 0.05
    assert world.features.max() < 1 and torch.allclose(world.test, world.features @ world.truth)
    assert recovered(world.truth, world.truth).tolist() == [5]
    with pytest.raises(ValueError, match="correlation"):
        planted(5, 3, 0.2, correlation=2)
