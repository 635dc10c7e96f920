"""The deployment game: the same seed is the same stream, and a bill adds up."""

import pytest
import torch

from utils.steering.duty import bill, hidden_stream

POOLS = {"chat": (torch.linspace(-3, 1, 40), False), "about harm": (torch.linspace(-1, 2, 25), False), "harm": (torch.linspace(0, 4, 30), True)}


def test_a_seed_is_a_stream():
    one, other, third = hidden_stream(POOLS, n=500, seed=3), hidden_stream(POOLS, n=500, seed=3), hidden_stream(POOLS, n=500, seed=4)
    assert torch.equal(one[0], other[0]) and one[2] == other[2] and not torch.equal(one[0], third[0])
    scores, harmful, kinds = hidden_stream(POOLS, n=4000, base_rate=0.1, seed=0)
    assert 0.07 < harmful.float().mean() < 0.13 and set(kinds) == set(POOLS)
    assert all((kind == "harm") == bool(bad) for kind, bad in zip(kinds, harmful))


def test_a_bill_adds_up():
    found = bill(1.0, POOLS, miss=50, false_alarm=2, n=2000, base_rate=0.05)
    assert found.cost == 50 * found.misses + 2 * found.false_alarms
    assert found.in_hindsight <= found.cost and found.in_hindsight <= min(found.never, found.always)
    assert found.never == 50 * found.harmful and found.always == 2 * found.harmless
    assert sum(n for _, n in found.by_kind.values()) == 2000 and found.harmful + found.harmless == 2000
    assert bill(found.best, POOLS, miss=50, false_alarm=2, n=2000, base_rate=0.05).cost == found.in_hindsight
    assert f"{found.misses} of {found.harmful}" in str(found)


@pytest.mark.parametrize("pools", [{"harm": POOLS["harm"]}, {"chat": POOLS["chat"]}, {**POOLS, "empty": (torch.zeros(0), True)}])
def test_a_stream_needs_both_sides(pools):
    with pytest.raises(ValueError, match="harmful and harmless"):
        hidden_stream(pools)
