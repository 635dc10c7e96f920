"""Walks follow the map of the grid."""

import pytest
import torch

from utils.worlds.episodes import WorldError
from utils.worlds.ivy import IvyGame
from utils.worlds.walks import GridWorld


def test_walks_follow_the_map_and_never_cross_a_wall(rng):
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


def test_legal_is_what_the_walls_allow(rng):
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


@pytest.mark.parametrize("world", [GridWorld(length=6), IvyGame(length=6)])
def test_samples_repeat_and_differ_by_seed(world, rng):
    one, same, other = (world.sample(9, rng(seed)).tokens for seed in (3, 3, 4))
    assert torch.equal(one, same) and not torch.equal(one, other)
    with pytest.raises(WorldError, match="at least one"):
        world.sample(0, rng())
