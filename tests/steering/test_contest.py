"""The contest: what a trial knows of its settings, the judge, and two methods at one price."""

from __future__ import annotations

import math

import pytest
import torch

from utils.hooks import resid_post
from utils.steering.contest import Trial, gaps_at_price, judge
from utils.steering.reach import SteeringError
from utils.steering.steering import steer

OPENINGS = ["The city of Paris is", "A dog"]


def _trial(hits, nats, variety=1.0):
    hits = torch.tensor(hits, dtype=torch.double)
    return Trial(hits, torch.tensor(nats, dtype=torch.double)[:, None].expand_as(hits) * 2, torch.full_like(hits, 2), torch.full_like(hits, variety))


def _line(effect, cost, at):
    """Linear between the settings, which come in order of their cost."""
    steps = torch.searchsorted(cost, at).clamp(1, len(cost) - 1)
    share = (at - cost[steps - 1]) / (cost[steps] - cost[steps - 1])
    return effect[steps - 1] + share * (effect[steps] - effect[steps - 1])


def test_effects_and_prices():
    plain = _trial([[0, 0, 1, 0]], [1.0], variety=0.9)
    trial = _trial([[0, 1, 1, 0], [1, 1, 1, 1]], [1.0 + math.log(1.5), 1.0 + math.log(3)])
    assert trial.effects().tolist() == [0.5, 1.0]
    assert trial.prices(plain).tolist() == pytest.approx([1.5, 3.0])
    assert trial.on(torch.tensor([1, 1, 2])).effects().tolist() == [1.0, 1.0]
    dull = _trial([[1, 1, 1, 1]], [1.0], variety=0.5)
    assert dull.prices(plain, 0.8).isnan().all() and dull.prices(plain, 0.5).tolist() == [1.0]
    assert trial.front(plain, torch.tensor([1.25, 2.25]).double(), _line).tolist() == pytest.approx([0.375, 0.75])


def test_gaps_at_price_are_one_per_topic():
    plain = _trial([[0, 0, 0, 0]], [1.0])
    one, other = _trial([[1, 1, 1, 0]], [1.0 + math.log(2)]), _trial([[1, 0, 1, 0]], [1.0 + math.log(2)])
    assert gaps_at_price([one, other], [other, one], [plain, plain], 2.0, _line).tolist() == pytest.approx([0.25, -0.25])
    assert gaps_at_price([one], [other], [plain], 1.5, _line).tolist() == pytest.approx([0.125])
    with pytest.raises(ValueError):
        gaps_at_price([one], [other, other], [plain], 1.5, _line)


def test_the_judge_reads_texts_and_not_openings(model):
    settings = [["is a dog .", "is a city ."], ["the dog", "a dog is a dog"]]
    trial = judge(model, OPENINGS, settings, r"\bDOG\b")
    assert trial.hits.tolist() == [[1, 0], [1, 1]] and trial.tokens.tolist() == [[4, 4], [2, 5]]
    assert (trial.nats > 0).all() and trial.variety[1, 1] == pytest.approx(3 / 4)
    with pytest.raises(ValueError, match="2 texts"):
        judge(model, OPENINGS, [["one"]], "dog")
    with steer(model, resid_post(1), torch.ones(24), 1.0):
        with pytest.raises(SteeringError, match="unsteered"):
            judge(model, OPENINGS, settings, "dog")
        model(torch.tensor([[1, 5, 9]]))
