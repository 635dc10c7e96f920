"""The Ivy game: two players grow ivy on a board.

A move is an empty square that touches one's own ivy, and it takes over the opponent's squares that it
touches. The tokens never say who moves.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from utils.worlds.episodes import Episodes, WorldError, check_count


@dataclass(frozen=True)
class IvyGame:
    """Random games of ivy on a `side` x `side` board.

    The four middle squares (for an odd side, those around the upper left of the middle) start as a cross:
    two of each player's. Players alternate. A move is an empty square that touches one of the mover's own
    squares along an edge; it becomes the mover's, and so do the opponent's squares that it touches along
    an edge. Tokens 0 to side² - 1 are moves; token side² starts every game. Games in which somebody
    could not move are left out.

    Attributes:
        side: squares along one edge, at least 3.
        length: moves in a game, at least 1.
    """

    side: int = 6
    length: int = 24

    def __post_init__(self) -> None:
        if self.side < 3 or not 1 <= self.length <= self.squares - 4:
            raise WorldError(f"a board of side {self.side} cannot hold games of {self.length} moves: the side is at least 3, "
                             f"and 4 squares are taken at the start.")

    @property
    def squares(self) -> int:
        """How many squares there are; also the token that starts a game."""
        return self.side**2

    @property
    def d_vocab(self) -> int:
        return self.squares + 1

    @property
    def n_ctx(self) -> int:
        return self.length + 1

    @cached_property
    def start(self) -> Int[Tensor, " squares"]:
        """The owners at the start."""
        board = torch.zeros(self.side, self.side, dtype=torch.long)
        first = self.side // 2 - 1
        board[first:first + 2, first:first + 2] = torch.tensor([[1, -1], [-1, 1]])
        return board.flatten()

    @cached_property
    def touches(self) -> Bool[Tensor, "squares squares"]:
        """Which squares share an edge."""
        index = torch.arange(self.squares)
        row, column = index // self.side, index % self.side
        return (row[:, None] - row).abs() + (column[:, None] - column).abs() == 1

    @cached_property
    def mover(self) -> Int[Tensor, " pos"]:
        """Who moves next after each token: 1 for the first player, -1 for the second."""
        return 1 - 2 * (torch.arange(self.n_ctx) % 2)

    def next_tokens(self, boards: Int[Tensor, "*shape squares"], mover: Int[Tensor, "*shape"] | int) -> Bool[Tensor, "*shape d_vocab"]:
        """Which moves are open to `mover` on these boards."""
        own = (boards == torch.as_tensor(mover)[..., None]).float()
        moves = (boards == 0) & (own @ self.touches.float() > 0)
        return torch.cat([moves, torch.zeros(*moves.shape[:-1], 1, dtype=torch.bool)], -1)

    def play(self, boards: Int[Tensor, "n squares"], move: Int[Tensor, " n"], mover: int) -> Int[Tensor, "n squares"]:
        """The boards after `mover` has played `move` on each."""
        taken = self.touches[move] & (boards == -mover)
        after = torch.where(taken, mover, boards)
        after[torch.arange(len(boards)), move] = mover
        return after

    def sample(self, n: int, generator: torch.Generator) -> Episodes:
        """`n` random games, each move uniform among the open ones. Raises WorldError for n < 1."""
        check_count(n)
        parts: list[Episodes] = []
        while sum(len(part.tokens) for part in parts) < n:
            parts.append(self._attempt(n, generator))
        return Episodes(*(torch.cat([getattr(part, name) for part in parts])[:n] for name in ("tokens", "state", "legal")))

    def _attempt(self, n: int, generator: torch.Generator) -> Episodes:
        """At most `n` games: those of `n` in which both players could always move."""
        boards = [self.start.expand(n, -1)]
        tokens, legal = [torch.full((n,), self.squares)], []
        whole = torch.ones(n, dtype=torch.bool)
        for t in range(self.n_ctx):
            mover = int(self.mover[t])
            legal.append(self.next_tokens(boards[-1], mover))
            can_move = legal[-1].any(-1)
            whole &= can_move
            if t == self.length:
                break
            weights = legal[-1].float() + (~can_move).float()[:, None]  # a stuck game plays on at random and is dropped
            move = torch.multinomial(weights[:, :self.squares], 1, generator=generator)[:, 0]
            tokens.append(move)
            boards.append(self.play(boards[-1], move, mover))
        return Episodes(torch.stack(tokens, 1)[whole], torch.stack(boards, 1)[whole], torch.stack(legal, 1)[whole])
