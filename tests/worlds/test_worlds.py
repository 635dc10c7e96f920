"""The worlds keep their own rules, the small transformer works with utils.hooks, training is repeatable."""

import pytest
import torch

from utils.data.places import city_places
from utils.hooks import HookNameError, InterventionError, intervene, resid_post, resid_pre, run_with_cache
from utils.worlds import worlds
from utils.worlds.episodes import WorldError
from utils.worlds.ivy import IvyGame
from utils.worlds.shared import ivy_model, untrained
from utils.worlds.training import train
from utils.worlds.transformer import SmallConfig, SmallTransformer
from utils.worlds.walks import GridWorld


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


# --- the grid ---------------------------------------------------------------------------------------------


def test_walks_follow_the_map_and_never_cross_a_wall():
    world = GridWorld()
    walks = world.sample(50, rng())
    closed = {frozenset(wall) for wall in world.walls}
    assert walks.tokens.shape == walks.state.shape == (50, world.n_ctx) and walks.legal.shape == (50, world.n_ctx, world.d_vocab)
    assert torch.equal(walks.tokens[:, 0], walks.state[:, 0])
    for tokens, squares in zip(walks.tokens.tolist(), walks.state.tolist()):
        for token, before, after in zip(tokens[1:], squares, squares[1:]):
            (r0, c0), (r1, c1) = divmod(before, 5), divmod(after, 5)
            assert (r1 - r0, c1 - c0) == ((-1, 0), (0, 1), (1, 0), (0, -1))[token - 25]
            assert frozenset((before, after)) not in closed


def test_legal_is_what_the_walls_allow():
    world = GridWorld()
    walks = world.sample(20, rng(1))
    assert not walks.legal[..., :25].any()
    assert torch.equal(walks.legal[..., 25:], world.target[walks.state] >= 0)
    assert walks.legal[:, :-1].gather(2, walks.tokens[:, 1:, None]).all()


def test_moves_can_be_taken_back():
    target = GridWorld().target
    for square in range(25):
        for move, there in enumerate(target[square].tolist()):
            if there >= 0:
                assert target[there, (move + 2) % 4] == square


@pytest.mark.parametrize("bad, message", [
    (dict(walls=((0, 7),)), "no neighbours"),
    (dict(walls=((0, 1), (0, 5))), "cut the grid in two"),
    (dict(side=1), "at least 2"),
    (dict(length=0), "at least 1 move"),
])
def test_impossible_grids_are_refused(bad, message):
    with pytest.raises(WorldError, match=message):
        GridWorld(**bad)


# --- ivy --------------------------------------------------------------------------------------------------


def test_ivy_games_obey_the_rules_square_by_square():
    game = IvyGame(side=5, length=9)
    games = game.sample(12, rng())
    assert games.tokens.shape == (12, 10) and games.legal.shape == (12, 10, 26)
    for tokens, boards, legal in zip(games.tokens.tolist(), games.state.tolist(), games.legal):
        board, mover = {s: owner for s, owner in enumerate(game.start.tolist())}, 1
        for step in range(10):
            assert boards[step] == [board[s] for s in range(25)]
            around = {s: [t for t in range(25) if abs(s // 5 - t // 5) + abs(s % 5 - t % 5) == 1] for s in range(25)}
            open_moves = [s for s in range(25) if board[s] == 0 and any(board[t] == mover for t in around[s])]
            assert legal[step].nonzero()[:, 0].tolist() == open_moves and open_moves
            if step < 9:
                move = tokens[step + 1]
                assert move in open_moves
                board[move] = mover
                for t in around[move]:
                    if board[t] == -mover:
                        board[t] = mover
                mover = -mover


def test_ivy_start_is_a_cross_of_two_each():
    assert IvyGame(side=4, length=3).start.view(4, 4).tolist() == [[0, 0, 0, 0], [0, 1, -1, 0], [0, -1, 1, 0], [0, 0, 0, 0]]
    assert IvyGame().mover[:3].tolist() == [1, -1, 1]


@pytest.mark.parametrize("bad", [dict(side=2), dict(length=33), dict(length=0)])
def test_impossible_boards_are_refused(bad):
    with pytest.raises(WorldError, match="cannot hold games"):
        IvyGame(**bad)


@pytest.mark.parametrize("world", [GridWorld(length=6), IvyGame(length=6)])
def test_samples_repeat_and_differ_by_seed(world):
    one, same, other = (world.sample(9, rng(seed)).tokens for seed in (3, 3, 4))
    assert torch.equal(one, same) and not torch.equal(one, other)
    with pytest.raises(WorldError, match="at least one"):
        world.sample(0, rng())


# --- the transformer --------------------------------------------------------------------------------------


def test_the_past_does_not_see_the_future():
    world = GridWorld()
    model, tokens = untrained(world), world.sample(2, rng()).tokens
    changed = tokens.clone()
    changed[:, -1] = 25 + (changed[:, -1] - 24) % 4
    before, after = model(tokens), model(changed)
    torch.testing.assert_close(before[:, :-1], after[:, :-1])
    assert not torch.equal(before[:, -1], after[:, -1])


def test_hooks_work_as_on_a_bridge():
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


# --- training ---------------------------------------------------------------------------------------------


@pytest.fixture
def short(tmp_path, monkeypatch):
    monkeypatch.setenv("PROBE_TO_STEER_CACHE", str(tmp_path))
    world = GridWorld(length=8)
    return world, lambda **options: train(untrained(world), world, steps=30, batch=32, progress=False, **options), tmp_path


def test_training_lowers_the_loss_and_freezes_the_model(short):
    world, run, _ = short
    model = untrained(world)
    losses = train(model, world, steps=30, batch=32, progress=False)
    assert losses.shape == (30,) and losses[-5:].mean() < losses[0] - 0.5
    assert not model.training and not any(p.requires_grad for p in model.parameters())


def test_a_second_training_comes_from_the_cache_and_is_the_same(short, monkeypatch):
    world, run, folder = short
    first, fresh = run(), run(cache=False)
    assert torch.equal(first, fresh)
    monkeypatch.setattr(worlds, "_descend", lambda *_: pytest.fail("trained again"))
    model = untrained(world)
    assert torch.equal(train(model, world, steps=30, batch=32, progress=False), first)
    assert not torch.equal(model.unembed.weight, untrained(world).unembed.weight)


def test_another_recipe_or_a_broken_file_is_trained_again(short):
    world, run, folder = short
    losses = run()
    assert not torch.equal(run(seed=1), losses)
    files = list((folder / "worlds").iterdir())
    assert len(files) == 2
    for file in files:
        file.write_bytes(b"half a file")
    assert torch.equal(run(), losses)


def test_training_refuses_what_cannot_work(short):
    world, _, _ = short
    with pytest.raises(WorldError, match="the world needs"):
        train(untrained(IvyGame()), world, steps=1)
    with pytest.raises(WorldError, match="at least 1"):
        train(untrained(world), world, steps=0)
    with pytest.raises(WorldError, match="smaller lr"):
        train(untrained(world), world, steps=40, batch=4, lr=1e30, cache=False, progress=False)


# --- what ships -------------------------------------------------------------------------------------------


def test_the_shipped_player_knows_the_rules():
    assert worlds.IVY_FILE.stat().st_size < 2_000_000
    games = IvyGame().sample(40, rng(7))
    probability = ivy_model()(games.tokens).softmax(-1)
    assert (probability * games.legal).sum(-1)[:, :-1].mean() > 0.97


def test_other_weights_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(worlds, "IVY_FILE", tmp_path / "ivy.safetensors")
    with pytest.raises(WorldError, match="missing"):
        ivy_model()
    (tmp_path / "ivy.safetensors").write_bytes(b"not these")
    with pytest.raises(WorldError, match="SHA-256"):
        ivy_model()


def test_places_are_on_the_globe_and_sorted_by_country():
    places = city_places()
    assert len(places) == len(set(places.name)) == len(places.coordinates) > 500
    assert places.coordinates[:, 0].abs().max() < 90 and places.coordinates[:, 1].abs().max() <= 180
    assert (places.groups.diff() >= 0).all() and places.groups.bincount().max() <= 40
    lagos = places.name.index("Lagos")
    assert places.country[lagos] == "Nigeria" and places.continent[lagos] == "Africa"
    assert places.coordinates[lagos].round().tolist() == [6.0, 3.0]


def test_too_narrow_a_choice_of_places_is_refused():
    with pytest.raises(ValueError, match="ask for less"):
        city_places(population=10**9)
