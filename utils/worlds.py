"""Two small worlds whose state is known, and a transformer small enough to read in one sitting.

A world writes episodes as token sequences. A model trained to predict the next token sees the tokens
and nothing else, while we keep the true state of every step: so whatever a probe reads can be checked.

- `GridWorld`: a walk over a square grid with inner walls. The first token names the square where the
  walk starts, the others are moves. Only legal moves occur, and nothing else tells where the walls are.
- `IvyGame`: two players grow ivy on a board. A move is an empty square that touches one's own ivy, and
  it takes over the opponent's squares that it touches. The tokens never say who moves.

`SmallTransformer` has hook points under the names that the big models use, so that `run_with_cache`
and `intervene` of `utils.hooks` work on it. `python -m utils.worlds` trains the weights that ship.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import safetensors.torch
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from safetensors import SafetensorError
from torch import Tensor, nn
from tqdm.auto import tqdm
from transformer_lens.hook_points import HookPoint
from transformer_lens.model_bridge.exceptions import StopAtLayerException

from utils.paths import ROOT, atomic_write, cache_dir

WEIGHTS = ROOT / "utils" / "weights"
CODE_VERSION = 1
"""Part of the key of every trained model in the cache: raise it when a change here changes the result."""


class WorldError(ValueError):
    """A world or a training run was asked for something that it cannot do."""


# --- the worlds -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Episodes:
    """Sequences from a world, with the truth about every step.

    Attributes:
        tokens: what the model reads.
        state: the state of the world after each token. Grid: the square, [n, pos]. Ivy: every square's
            owner, [n, pos, squares], 1 for the first player, -1 for the second, 0 for nobody.
        legal: which tokens the world would allow next, after each token.
    """

    tokens: Int[Tensor, "n pos"]
    state: Int[Tensor, "n pos *state"]
    legal: Bool[Tensor, "n pos d_vocab"]


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
        _check_count(n)
        squares = [torch.randint(self.squares, (n,), generator=generator)]
        tokens = [squares[0]]
        for _ in range(self.length):
            move = torch.multinomial(self.allowed[squares[-1]].float(), 1, generator=generator)[:, 0]
            tokens.append(self.squares + move)
            squares.append(self.target[squares[-1], move])
        state = torch.stack(squares, 1)
        return Episodes(torch.stack(tokens, 1), state, self.next_tokens(state))


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
        _check_count(n)
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


def _check_count(n: int) -> None:
    if n < 1:
        raise WorldError(f"at least one episode has to be drawn, not {n}.")


# --- the transformer --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SmallConfig:
    """The sizes of a SmallTransformer.

    Attributes:
        d_vocab: how many different tokens there are.
        n_ctx: the longest sequence.
        n_layers: blocks.
        d_model: width of the residual stream, a multiple of n_heads.
        n_heads: attention heads.
        d_mlp: hidden width of the MLPs.
    """

    d_vocab: int
    n_ctx: int
    n_layers: int = 2
    d_model: int = 64
    n_heads: int = 4
    d_mlp: int = 256


class Attention(nn.Module):
    """Every position looks back, with `n_heads` patterns side by side."""

    def __init__(self, cfg: SmallConfig) -> None:
        super().__init__()
        self.n_heads = cfg.n_heads
        self.qkv = nn.Linear(cfg.d_model, 3 * cfg.d_model)
        self.out = nn.Linear(cfg.d_model, cfg.d_model)
        self.hook_pattern, self.hook_out = HookPoint(), HookPoint()
        self.register_buffer("future", torch.ones(cfg.n_ctx, cfg.n_ctx, dtype=torch.bool).triu(1), persistent=False)

    def forward(self, x: Float[Tensor, "batch pos d_model"]) -> Float[Tensor, "batch pos d_model"]:
        pos = x.shape[1]
        q, k, v = (part.unflatten(-1, (self.n_heads, -1)).transpose(1, 2) for part in self.qkv(x).chunk(3, -1))
        scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])  # [batch, head, query, key]
        pattern = self.hook_pattern(scores.masked_fill(self.future[:pos, :pos], -torch.inf).softmax(-1))
        return self.hook_out(self.out((pattern @ v).transpose(1, 2).flatten(-2)))


class MLP(nn.Module):
    """Two linear maps with a GELU between them, for every position by itself."""

    def __init__(self, cfg: SmallConfig) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(cfg.d_model, cfg.d_mlp), nn.Linear(cfg.d_mlp, cfg.d_model)
        self.hook_out = HookPoint()

    def forward(self, x: Float[Tensor, "batch pos d_model"]) -> Float[Tensor, "batch pos d_model"]:
        return self.hook_out(self.down(F.gelu(self.up(x))))


class Block(nn.Module):
    """Attention, then the MLP; each reads the normed residual stream and adds to the raw one."""

    def __init__(self, cfg: SmallConfig) -> None:
        super().__init__()
        self.ln1, self.ln2 = nn.LayerNorm(cfg.d_model), nn.LayerNorm(cfg.d_model)
        self.attn, self.mlp = Attention(cfg), MLP(cfg)
        self.hook_in, self.hook_out = HookPoint(), HookPoint()

    def forward(self, resid: Float[Tensor, "batch pos d_model"]) -> Float[Tensor, "batch pos d_model"]:
        resid = self.hook_in(resid)
        resid = resid + self.attn(self.ln1(resid))
        resid = resid + self.mlp(self.ln2(resid))
        return self.hook_out(resid)


class SmallTransformer(nn.Module):
    """A GPT in miniature. Hook points: `model.hook_dict`; `resid_post(1)` and its kin name them.

    It keeps the interface that `utils.hooks` needs, so `run_with_cache(model, tokens, names)` and
    `intervene(model, {name: fn})` work as they do on a TransformerBridge.
    """

    def __init__(self, cfg: SmallConfig, seed: int = 0) -> None:
        super().__init__()
        if cfg.d_model % cfg.n_heads:
            raise WorldError(f"d_model {cfg.d_model} is no multiple of n_heads {cfg.n_heads}.")
        self.cfg = cfg
        with torch.random.fork_rng(devices=[]):  # equal seeds give equal weights, whatever was drawn before
            torch.manual_seed(seed)
            self.embed, self.pos_embed = nn.Embedding(cfg.d_vocab, cfg.d_model), nn.Embedding(cfg.n_ctx, cfg.d_model)
            self.blocks = nn.ModuleList(Block(cfg) for _ in range(cfg.n_layers))
            self.ln_final = nn.LayerNorm(cfg.d_model)
            self.unembed = nn.Linear(cfg.d_model, cfg.d_vocab)
            for table in (self.embed, self.pos_embed):
                nn.init.normal_(table.weight, std=0.3)
        self.hook_dict = {name: module for name, module in self.named_modules() if isinstance(module, HookPoint)}
        for name, point in self.hook_dict.items():
            point.name = name

    def forward(self, tokens: Int[Tensor, "batch pos"], return_type: str | None = "logits") -> Float[Tensor, "batch pos d_vocab"] | None:
        """Logits for the next token after every position."""
        try:
            resid = self.embed(tokens) + self.pos_embed.weight[:tokens.shape[1]]
            for block in self.blocks:
                resid = block(resid)
            return self.unembed(self.ln_final(resid))
        except StopAtLayerException:  # run_with_cache has all that it wants
            return None

    # What utils.hooks asks of a model, beside `cfg` and `forward`.
    hook_aliases: dict[str, str] = {}

    @property
    def _hook_registry(self) -> dict[str, HookPoint]:
        return self.hook_dict

    def _collect_hook_aliases_from_registry(self) -> dict[str, str]:
        return {}

    def check_hooks_to_add(self, name: str) -> None:
        """No hook point of this model can be switched off."""

    def reset_hooks(self) -> None:
        """Remove every hook."""
        for point in self.hook_dict.values():
            point.remove_hooks()


# --- training ---------------------------------------------------------------------------------------------


def train(
    model: SmallTransformer,
    world: GridWorld | IvyGame,
    *,
    steps: int,
    batch: int = 128,
    lr: float = 3e-3,
    seed: int = 0,
    cache: bool = True,
    progress: bool = True,
) -> Float[Tensor, " steps"]:
    """Train `model` in place on fresh episodes of `world`, to predict the next token. It never sees a state.

    AdamW, with a warm-up over the first 5% of the steps and a cosine down to nothing.

    Args:
        model: its weights are where the training starts.
        world: what to draw episodes from.
        steps: batches of `batch` episodes.
        lr: the highest learning rate.
        seed: of the episodes.
        cache: keep the trained weights on disk, under a key made of everything above and of the weights
            at the start, and take them from there the next time. The folder may be deleted at any time.
        progress: show a bar with the time left.

    Returns:
        The loss of every step, in nats per token.

    Raises:
        WorldError: the model's vocabulary or context does not fit the world; steps or batch below 1; the
            loss is not finite.
    """
    if model.cfg.d_vocab != world.d_vocab or model.cfg.n_ctx < world.n_ctx:
        raise WorldError(
            f"the model has {model.cfg.d_vocab} tokens and a context of {model.cfg.n_ctx}; "
            f"the world needs {world.d_vocab} and {world.n_ctx}."
        )
    if steps < 1 or batch < 1:
        raise WorldError(f"steps and batch must be at least 1, not {steps} and {batch}.")
    file = _trained_file(model, repr((world, steps, batch, lr, seed)))
    if cache and (stored := _read(file)) is not None:
        losses = stored.pop("losses")
        model.load_state_dict(stored)
        model.eval().requires_grad_(False)
        return losses
    losses = _descend(model, world, steps, batch, lr, seed, progress)
    model.eval().requires_grad_(False)
    if cache:
        atomic_write(file, safetensors.torch.save({**model.state_dict(), "losses": losses}))
    return losses


def _descend(
    model: SmallTransformer, world: GridWorld | IvyGame, steps: int, batch: int, lr: float, seed: int, progress: bool
) -> Float[Tensor, " steps"]:
    generator = torch.Generator().manual_seed(seed)
    model.train().requires_grad_(True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, betas=(0.9, 0.98), weight_decay=0.01)
    warm = max(1, steps // 20)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / warm, 0.5 * (1 + math.cos(math.pi * step / steps)))
    )
    losses = torch.zeros(steps)
    with tqdm(range(steps), desc="training", unit="step", disable=not progress) as bar:
        for step in bar:
            tokens = world.sample(batch, generator).tokens
            loss = F.cross_entropy(model(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            losses[step] = loss.detach()
            if not losses[step].isfinite():
                raise WorldError(f"the loss is {loss.item()} at step {step}: try a smaller lr than {lr}.")
            bar.set_postfix(loss=f"{loss.item():.3f}", refresh=False)
    return losses


def _trained_file(model: SmallTransformer, recipe: str) -> Path:
    """Where the result of this recipe on these weights is kept."""
    digest = hashlib.sha256(f"{CODE_VERSION} {model.cfg} {recipe}".encode())
    for name, weight in sorted(model.state_dict().items()):
        digest.update(name.encode() + weight.contiguous().numpy().tobytes())
    return cache_dir() / "worlds" / f"{digest.hexdigest()}.safetensors"


def _read(file: Path) -> dict[str, Tensor] | None:
    """The tensors of a file; None if it is not there or not whole, so that it is made again."""
    try:
        return safetensors.torch.load(file.read_bytes())
    except (OSError, SafetensorError):
        return None


# --- the models that chapters 13 and 14 share ----------------------------------------------------------------

GRID_STEPS = 1500
IVY_STEPS = 3500
IVY_FILE = WEIGHTS / "ivy.safetensors"
IVY_SHA256 = "9c7d73a7b0d97df604430b069aae1e230774ffc214265af2ac4e1f9a08c9aa02"


def untrained(world: GridWorld | IvyGame, *, n_layers: int = 2, seed: int = 0) -> SmallTransformer:
    """A SmallTransformer of the right size for `world`, as it is before any training."""
    cfg = SmallConfig(d_vocab=world.d_vocab, n_ctx=world.n_ctx, n_layers=n_layers)
    return SmallTransformer(cfg, seed).eval().requires_grad_(False)


def grid_model(seed: int = 0, *, progress: bool = True) -> SmallTransformer:
    """The walker of `GridWorld()`: 2 layers, trained for about a minute the first time, then read from the cache."""
    model = untrained(GridWorld(), seed=seed)
    train(model, GridWorld(), steps=GRID_STEPS, seed=seed, progress=progress)
    return model


def ivy_model() -> SmallTransformer:
    """The player of `IvyGame()`: 3 layers, with the weights that ship with the course.

    Raises:
        WorldError: the file is missing, or is not the one that the course was written with.
    """
    advice = "Get the file again from the course, or train it anew with `python -m utils.worlds`."
    if not IVY_FILE.is_file():
        raise WorldError(f"the weights {IVY_FILE.name} are missing from {IVY_FILE.parent}. {advice}")
    content = IVY_FILE.read_bytes()
    if hashlib.sha256(content).hexdigest() != IVY_SHA256:
        raise WorldError(f"{IVY_FILE.name} is damaged, or was trained on another machine (its SHA-256 is not IVY_SHA256). {advice}")
    model = untrained(IvyGame(), n_layers=3)
    model.load_state_dict(safetensors.torch.load(content))
    return model


def main() -> None:
    """Train the weights that ship, write them, and print the number to pin."""
    model = untrained(IvyGame(), n_layers=3)
    losses = train(model, IvyGame(), steps=IVY_STEPS, batch=256, cache=False)
    content = safetensors.torch.save(model.state_dict())
    atomic_write(IVY_FILE, content)
    print(f"last loss {losses[-50:].mean():.4f}; {IVY_FILE.name} has {len(content):,} bytes.")
    print(f'Set IVY_SHA256 = "{hashlib.sha256(content).hexdigest()}"')


if __name__ == "__main__":
    main()
