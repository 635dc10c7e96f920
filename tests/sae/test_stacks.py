"""Stacks of small SAEs: the pieces that chapters 22 and 25 build on."""

from __future__ import annotations

import pytest
import torch

from utils.course.exercises import find_exercise
from utils.sae.contest import Variant, above_threshold, random_start, remember_smallest, run_variant
from utils.sae.stacks import (adam, by_autograd, decoded, explained, init_sae, l0, l1_loss, pre_activations, resampling, sae_forward,
                              squared_error, tangent, topk_acts, train, watching)
from utils.worlds.planted import planted

NORMAL = torch.Generator().manual_seed(0)


def normal(*shape):
    return torch.randn(shape, generator=NORMAL)


PARAMS = {"W_enc": normal(2, 3, 5), "b_enc": normal(2, 5), "W_dec": normal(2, 5, 3), "b_dec": normal(2, 3)}


@pytest.mark.parametrize("name, mine, args", [
    ("init_sae", init_sae, (normal(2, 5, 3), normal(2, 7, 3))), ("sae_forward", sae_forward, (PARAMS, normal(2, 7, 3))),
    ("l1_loss", l1_loss, (PARAMS, normal(2, 7, 3), 0.4)), ("topk_acts", topk_acts, (normal(2, 7, 5), 2)),
    ("tangent_gradient", tangent, (torch.nn.functional.normalize(normal(2, 5, 3), dim=-1), normal(2, 5, 3))),
])
def test_they_compute_what_the_exercises_ask_for(name, mine, args):
    reference = find_exercise(name).reference(*args)
    torch.testing.assert_close(mine(*args), reference)


def test_adam_is_adam():
    params, leaf = {"w": torch.tensor([1.0, -2.0])}, torch.tensor([1.0, -2.0], requires_grad=True)
    theirs, state = torch.optim.Adam([leaf], lr=0.1), {}
    for step in range(1, 5):
        leaf.grad = torch.tensor([0.3, -0.7]) * step
        theirs.step()
        adam(params, {"w": leaf.grad.clone()}, state, step, 0.1)
    torch.testing.assert_close(params["w"], leaf.detach())


def topk_loss(params, x, k):
    acts = topk_acts(pre_activations(params, x), k)
    return squared_error(params, x, acts), acts


def test_training_keeps_rows_at_length_one_and_its_start_alone():
    world = planted(4, 3, 0.25, worlds=2, rows=600)
    start = random_start(world, 8)
    before = {name: value.clone() for name, value in start.items()}
    curve, after = watching(lambda params, dead: explained(world.test, decoded(params, topk_acts(pre_activations(params, world.test), 1))), every=40)
    trained = train(by_autograd(lambda p, x, dead: topk_loss(p, x, 1)), start, world.data, steps=120, after=after)
    assert all(torch.equal(start[name], before[name]) for name in start)
    torch.testing.assert_close(trained["W_dec"].norm(dim=-1), torch.ones(2, 8))
    assert len(curve) == 3 and (curve[-1] > 0.5).all()
    again = train(by_autograd(lambda p, x, dead: topk_loss(p, x, 1)), start, world.data, steps=120)
    assert all(torch.equal(trained[name], again[name]) for name in trained)


def test_rows_that_are_projected_away_do_not_move():
    world = planted(4, 3, 0.25, worlds=2, rows=600)
    start = random_start(world, 8)
    held = train(by_autograd(lambda p, x, dead: topk_loss(p, x, 1)), start, world.data, steps=20, project=lambda W, g: 0 * g)
    torch.testing.assert_close(held["W_dec"], start["W_dec"])
    assert not torch.equal(held["W_enc"], start["W_enc"])


def test_the_dead_start_again_and_adam_forgets_them():
    params = {name: value.clone() for name, value in PARAMS.items()}
    state = {name: {key: torch.ones_like(value) for key in ("exp_avg", "exp_avg_sq")} for name, value in params.items()}
    dead = torch.tensor([[1, 0, 0, 1, 0], [0, 0, 1, 0, 0]]).bool()
    after = resampling((7,), find_exercise("resample_dead").reference, lambda p, x: topk_acts(pre_activations(p, x), 1))
    after(6, params, state, normal(2, 9, 3), dead)
    assert torch.equal(params["W_dec"], PARAMS["W_dec"])
    after(7, params, state, normal(2, 9, 3), dead)
    assert (params["W_dec"] != PARAMS["W_dec"]).any(-1).equal(dead) and (params["b_enc"][dead] == 0).all()
    for key in ("exp_avg", "exp_avg_sq"):
        assert (state["W_dec"][key][..., 0] == 0).equal(dead) and (state["W_enc"][key][:, 0] == 0).equal(dead) and (state["b_enc"][key] == 0).equal(dead)
        assert (state["b_dec"][key] == 1).all()


def test_a_batch_remembers_its_smallest_and_a_row_is_used_alone():
    batch_acts = find_exercise("batch_topk_acts").reference

    def loss(params, x, k):
        acts = batch_acts(pre_activations(params, x), k)[0]
        return squared_error(params, x, acts), acts

    variant = Variant(loss, (1,), finish=remember_smallest(batch_acts, n_batches=2), acts=above_threshold)
    world = planted(4, 3, 0.25, worlds=2, rows=600)
    run = run_variant(variant, 1, random_start(world, 8), world, steps=30)
    assert run.params["smallest"].shape == (2, 2)
    together = variant.latents(run.params, world.test, 1)
    torch.testing.assert_close(variant.latents(run.params, world.test[:, :1], 1), together[:, :1])
    torch.testing.assert_close(l0(together), run.l0)
