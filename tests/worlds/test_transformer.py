"""The small transformer works with utils.hooks."""

import pytest
import torch

from utils.hooks import HookNameError, InterventionError, intervene, resid_post, resid_pre, run_with_cache
from utils.worlds.episodes import WorldError
from utils.worlds.shared import untrained
from utils.worlds.transformer import SmallConfig, SmallTransformer
from utils.worlds.walks import GridWorld


def test_the_past_does_not_see_the_future(rng):
    world = GridWorld()
    model, tokens = untrained(world), world.sample(2, rng()).tokens
    changed = tokens.clone()
    changed[:, -1] = 25 + (changed[:, -1] - 24) % 4
    before, after = model(tokens), model(changed)
    torch.testing.assert_close(before[:, :-1], after[:, :-1])
    assert not torch.equal(before[:, -1], after[:, -1])


def test_hooks_work_as_on_a_bridge(rng):
    world = GridWorld()
    model, tokens = untrained(world), world.sample(3, rng()).tokens
    cache = run_with_cache(model, tokens, [resid_pre(0), resid_post(0), resid_pre(1), resid_post(1), "blocks.1.attn.hook_pattern"])
    torch.testing.assert_close(cache[resid_pre(0)], model.embed(tokens) + model.pos_embed.weight)
    assert torch.equal(cache[resid_post(0)], cache[resid_pre(1)])
    assert cache["blocks.1.attn.hook_pattern"].shape == (3, 4, 25, 25)
    torch.testing.assert_close(model.unembed(model.ln_final(cache[resid_post(1)])), model(tokens))
    plain = model(tokens)
    with intervene(model, {resid_post(0): lambda activation, hook: activation + 1}) as done:
        assert not torch.allclose(model(tokens), plain)
    assert done[resid_post(0)].changed and torch.equal(model(tokens), plain)
    with pytest.raises(HookNameError, match="blocks.1.hook_out"):
        run_with_cache(model, tokens, "blocks.1.hok_out")
    with pytest.raises(HookNameError, match="layers are 0 to 1"):
        run_with_cache(model, tokens, resid_post(2))
    with pytest.raises(InterventionError, match="never ran"):
        with intervene(model, {resid_post(0): lambda activation, hook: activation}):
            pass


def test_equal_seeds_give_equal_weights_and_leave_the_generator_alone():
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    one = untrained(GridWorld(), seed=1)
    assert torch.equal(torch.rand(1), expected)
    two, three = untrained(GridWorld(), seed=1), untrained(GridWorld(), seed=2)
    assert torch.equal(one.unembed.weight, two.unembed.weight) and not torch.equal(one.unembed.weight, three.unembed.weight)


def test_heads_must_divide_the_width():
    with pytest.raises(WorldError, match="no multiple"):
        SmallTransformer(SmallConfig(d_vocab=5, n_ctx=4, d_model=10, n_heads=4))
