"""utils.worlds.toy_models: toys learn what they must, are scored on what they have not met, and pictures change nothing."""

import pytest
import torch

from utils.worlds.toy_models import (
    explained, features_worth, first_weights, fresh_loss, new_features, opposites_together, read_along, read_best, train_toys, turned_to_fit,
)


def relu_toy(x, W, b):
    return torch.relu((x.transpose(0, 1) @ W.mT @ W).transpose(0, 1) + b)


def weighted(x, out, importance):
    return (importance * (x - out) ** 2).sum(-1).mean(0)


def train(density, importance, d_hidden, **options):
    return train_toys(relu_toy, weighted, density, importance, d_hidden, progress=False, **options)


def test_with_room_for_all_every_feature_is_learned_and_worth_one():
    density = torch.full((3, 4), 0.3)
    W, b = train(density, torch.ones(3, 4), 4, steps=400, lr=0.03)
    losses = fresh_loss(relu_toy, weighted, W, b, density, torch.ones(3, 4), rows=4000)
    worth = features_worth(losses, density[:, 0], 4, rows=4000)
    assert W.shape == (3, 4, 4) and b.shape == (3, 4) and not W.requires_grad
    assert (worth > 3.9).all() and (worth <= 4.0).all()


def test_the_more_important_feature_takes_the_only_dimension():
    density = torch.ones(2, 2)
    W, _ = train(density, torch.tensor([[1.0, 0.1], [0.1, 1.0]]), 1, steps=300, lr=0.03)
    assert W.abs()[:, 0].argmax(1).tolist() == [0, 1]


def test_instances_do_not_disturb_each_other_and_the_seed_decides():
    density, importance = torch.full((2, 3), 0.5), torch.ones(2, 3)
    state = torch.random.get_rng_state()
    W, b = train(density, importance, 2, steps=20, seed=3)
    again, _ = train(density, torch.tensor([[1.0, 1, 1], [9, 9, 9]]), 2, steps=20, seed=3)
    assert torch.equal(W[0], again[0]) and not torch.equal(W[1], again[1])
    assert torch.equal(torch.random.get_rng_state(), state)
    untouched, _ = train(density, importance, 2, steps=1, lr=0.0, seed=3)
    assert torch.equal(untouched, first_weights(2, 2, 3, seed=3))


def test_losses_of_instances_stand_in_their_own_place():
    """Two densities, not in order; a model that always says 0 loses E[x^2] = density / 3 per feature."""
    density = torch.tensor([[0.5, 0.5], [0.1, 0.1], [0.5, 0.5]])
    losses = fresh_loss(relu_toy, weighted, torch.zeros(3, 1, 2), torch.zeros(3, 2), density, torch.ones(3, 2))
    assert torch.allclose(losses, 2 * density[:, 0] / 3, rtol=0.05) and losses[0] == losses[2]


def test_order_for_pictures_puts_opposites_side_by_side():
    W = torch.tensor([[1.0, 0.0, -1.0, 0.0, 0.1], [0.0, 2.0, 0.0, -2.0, 0.0]])
    order = opposites_together(W)
    assert sorted(order) == list(range(5))
    assert {frozenset(order[:2]), frozenset(order[2:4])} == {frozenset((0, 2)), frozenset((1, 3))}


def test_turning_to_fit_changes_no_output_and_undoes_a_rotation():
    rng = torch.Generator().manual_seed(0)
    picture, turn = torch.randn(2, 5, generator=rng), torch.linalg.qr(torch.randn(2, 2, generator=rng)).Q
    fitted = turned_to_fit(torch.stack([picture, turn @ picture]))
    assert torch.allclose(fitted[1], picture, atol=1e-5)
    assert torch.allclose(fitted[1].T @ fitted[1], picture.T @ picture, atol=1e-5)


def test_a_perfect_reading_explains_all_and_the_best_one_is_found_in_either_sign():
    x, thresholds = new_features(3, 0.2, rows=2000), torch.tensor([0.0, 0.5])
    assert explained(x, x, thresholds)[:, 0].diagonal().tolist() == pytest.approx([1.0] * 3, abs=1e-4)
    assert read_along(x, x, thresholds) == pytest.approx(1.0, abs=1e-4)
    noise = torch.randn(2000, 2, generator=torch.Generator().manual_seed(0))
    assert read_best(torch.cat([noise, -x], 1), x, thresholds) == pytest.approx(1.0, abs=1e-4)
    assert read_best(noise, x, thresholds) < 0.02 > read_along(noise[:, [0, 1, 0]], x, thresholds)


def test_a_threshold_helps_where_small_readings_are_noise():
    x = new_features(1, 0.05, rows=20_000)
    heard = x + 0.2 * torch.rand(x.shape, generator=torch.Generator().manual_seed(0))
    assert read_along(heard, x, torch.linspace(0, 1, 11)) > read_along(heard, x, torch.zeros(1)) + 0.05
