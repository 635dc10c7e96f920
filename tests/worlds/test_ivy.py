"""Ivy games obey the rules, square by square."""

import pytest

from utils.worlds.episodes import WorldError
from utils.worlds.ivy import IvyGame


def test_ivy_games_obey_the_rules_square_by_square(rng):
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
