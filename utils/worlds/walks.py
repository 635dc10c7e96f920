"""A walk over a square grid with inner walls.

The first token names the square where the walk starts, the others are moves. Only legal moves occur, and
nothing else tells where the walls are.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from utils.worlds.episodes import Episodes, WorldError, check_count


@dataclass(frozen=True)
class GridWorld:
    """Walks over a `side` x `side` grid with inner walls.

    Squares are numbered along the rows from the top left. Tokens 0 to side² - 1 name a start square,
    tokens side² to side² + 3 are the moves up, right, down and left.

    Attributes:
        side: squares along one edge, at least 2.
        walls: pairs of neighbouring squares that have a wall between them.
        length: moves in a walk, at least 1.
    """

    side: int = 5
    walls: tuple[tuple[int, int], ...] = ((1, 2), (6, 7), (8, 13), (9, 14), (17, 18), (22, 23), (10, 15), (11, 16))
    length: int = 24

    MOVES = ("up", "right", "down", "left")

    def __post_init__(self) -> None:
        if self.side < 2 or self.length < 1:
            raise WorldError(f"a grid needs a side of at least 2 and walks of at least 1 move, not {self.side} and {self.length}.")
        for one, other in self.walls:
            if other not in self._neighbours(one):
                raise WorldError(f"there can be no wall between squares {one} and {other}: they are no neighbours on this grid.")
        if self._reachable() < self.side**2:
            raise WorldError(f"the walls cut the grid in two: from square 0 only {self._reachable()} of {self.side**2} can be reached.")

    @property
    def squares(self) -> int:
        """How many squares there are; also the token of the first move."""
        return self.side**2

    @property
    def d_vocab(self) -> int:
        return self.squares + 4

    @property
    def n_ctx(self) -> int:
        return self.length + 1

    def _neighbours(self, square: int) -> list[int]:
        """The squares up, right, down and left of `square`; -1 beyond the edge."""
        row, column = divmod(square, self.side)
        steps = ((row - 1, column), (row, column + 1), (row + 1, column), (row, column - 1))
        return [r * self.side + c if 0 <= r < self.side and 0 <= c < self.side else -1 for r, c in steps]

    @cached_property
    def target(self) -> Int[Tensor, "squares 4"]:
        """Where each move leads from each square; -1 where a wall or the edge forbids it."""
        closed = {frozenset(wall) for wall in self.walls}
        return torch.tensor([[-1 if frozenset((square, there)) in closed else there for there in self._neighbours(square)]
                             for square in range(self.squares)])

    @cached_property
    def allowed(self) -> Bool[Tensor, "squares 4"]:
        """Which moves are legal on each square."""
        return self.target >= 0

    @cached_property
    def coordinates(self) -> Float[Tensor, "squares 2"]:
        """(row, column) of each square, in squares from the top left."""
        index = torch.arange(self.squares)
        return torch.stack([index // self.side, index % self.side], 1).float()

    def _reachable(self) -> int:
        seen, waiting = {0}, [0]
        while waiting:
            for there in self.target[waiting.pop()].tolist():
                if there >= 0 and there not in seen:
                    seen.add(there)
                    waiting.append(there)
        return len(seen)

    def next_tokens(self, squares: Int[Tensor, "*shape"]) -> Bool[Tensor, "*shape d_vocab"]:
        """Which tokens may follow on each of these squares: legal moves, and never a start."""
        moves = self.allowed[squares]
        return torch.cat([torch.zeros(*moves.shape[:-1], self.squares, dtype=torch.bool), moves], -1)

    def sample(self, n: int, generator: torch.Generator) -> Episodes:
        """`n` random walks: a uniform start, then each move uniform among the legal ones. Raises WorldError for n < 1."""
        check_count(n)
        squares = [torch.randint(self.squares, (n,), generator=generator)]
        tokens = [squares[0]]
        for _ in range(self.length):
            move = torch.multinomial(self.allowed[squares[-1]].float(), 1, generator=generator)[:, 0]
            tokens.append(self.squares + move)
            squares.append(self.target[squares[-1], move])
        state = torch.stack(squares, 1)
        return Episodes(torch.stack(tokens, 1), state, self.next_tokens(state))
