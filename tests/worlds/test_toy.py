"""utils.worlds.toy: the features are as sparse and the directions as spread out as they promise."""

import pytest
import torch

from utils.worlds.toy import sparse_features, toy_dictionary


def test_features_are_there_as_often_as_asked_and_uniform_then():
    probability = torch.tensor([0.0, 0.03, 0.4, 1.0])
    x = sparse_features(200_000, 4, probability, seed=0)
    assert x.shape == (200_000, 4) and x.dtype == torch.float32
    there = x > 0
    assert torch.allclose(there.float().mean(0), probability, atol=0.005)
    for column in (1, 2, 3):
        sizes = x[there[:, column], column]
        assert 0 < sizes.min() and sizes.max() < 1
        assert abs(sizes.mean() - 0.5) < 0.02 and abs(sizes.var() - 1 / 12) < 0.005
    together = (there[:, 1] & there[:, 2]).float().mean()
    assert abs(together - 0.03 * 0.4) < 0.002, "features are independent"


def test_one_probability_serves_all_features_and_rows_differ():
    x = sparse_features(1000, 7, 0.2, seed=3)
    assert torch.equal(x, sparse_features(1000, 7, torch.full((7,), 0.2), seed=3))
    assert len(x.unique(dim=0)) > 500
    assert sparse_features(0, 7, 0.2, seed=3).shape == (0, 7)


@pytest.mark.parametrize("make", [lambda seed: sparse_features(50, 3, 0.5, seed=seed), lambda seed: toy_dictionary(9, 4, seed=seed)])
def test_the_seed_decides_and_nothing_else(make):
    state = torch.random.get_rng_state()
    assert torch.equal(make(1), make(1)) and not torch.equal(make(1), make(2))
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize("probability", [-0.1, 1.5, float("nan"), torch.tensor([0.1, 0.2]), torch.full((3, 3), 0.1)])
def test_a_probability_that_cannot_be_is_refused(probability):
    with pytest.raises(ValueError, match="probabilit"):
        sparse_features(10, 3, probability, seed=0)


@pytest.mark.parametrize("n_features, d_hidden", [(20, 5), (40, 10), (5, 2), (30, 5)])
def test_directions_are_spread_as_evenly_as_the_dimensions_allow(n_features, d_hidden):
    directions = toy_dictionary(n_features, d_hidden, seed=0)
    assert directions.dtype == torch.float32 and torch.allclose(directions.norm(dim=1), torch.ones(n_features))
    cosines = directions @ directions.T - torch.eye(n_features)
    # Welch 1974: no set of directions has a smaller mean squared cosine.
    bound = (n_features - d_hidden) / (d_hidden * (n_features - 1))
    assert cosines.square().sum() / (n_features * (n_features - 1)) < 1.02 * bound
    random = torch.nn.functional.normalize(torch.randn(n_features, d_hidden, generator=torch.Generator().manual_seed(0)), dim=1)
    assert cosines.abs().max() < (random @ random.T - torch.eye(n_features)).abs().max() - 0.1


@pytest.mark.parametrize("n_features, d_hidden", [(4, 4), (3, 7), (1, 5), (1, 1)])
def test_with_room_for_all_the_directions_are_orthogonal(n_features, d_hidden):
    directions = toy_dictionary(n_features, d_hidden, seed=0)
    assert torch.allclose(directions @ directions.T, torch.eye(n_features), atol=1e-3)


def test_one_dimension_leaves_every_direction_where_it_is():
    assert set(toy_dictionary(6, 1, seed=0).flatten().tolist()) == {-1.0, 1.0}


@pytest.mark.parametrize("sizes", [(0, 3), (3, 0)])
def test_an_empty_dictionary_is_refused(sizes):
    with pytest.raises(ValueError, match="at least one"):
        toy_dictionary(*sizes, seed=0)
