"""The course's training loop on several processes at once: each takes its share of every batch, and all stay the same SAE.

The losses, the checkpoints and the learning rate are those of `utils.sae.training`. What is added: gradients are averaged by torch's
DistributedDataParallel, and once a step one message carries what a process cannot know alone: which latents fired anywhere, the error
and the variance of the whole batch. Without it every process would call other latents dead. One process and two see the same batches in the same order,
and differ by rounding alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.distributed as dist
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from tqdm.auto import tqdm

from utils.sae.model import SAE, SAEConfig
from utils.sae.shards import Shards, epoch_seed
from utils.sae.training import History, TrainingConfig, normalisation, read_run, save_run, training_forward

_SAMPLE = 100_000
"""Tokens from which mean and scale are taken."""


@dataclass(frozen=True)
class Share:
    """One process's part of every batch of shuffled shards, read one shard after another.

    Attributes:
        shards: what the shuffle stage wrote.
        rank, world: which process this is, of how many.
    """

    shards: Shards
    rank: int = 0
    world: int = 1

    def batches(self, batch_size: int, seed: int, first: int = 0) -> Iterator[Float[Tensor, "share d_in"]]:
        """This process's part of the batches, for ever. An epoch takes the shards in a new order and the tokens of each in a new order.

        Args:
            batch_size: tokens of all processes together; a multiple of `world`.
            first: the number of the batch to begin with.

        Raises: ValueError when the shards do not fill one batch.
        """
        per_epoch = len(self.shards) // batch_size
        if per_epoch == 0:
            raise ValueError(f"a batch of {batch_size:,} tokens cannot be filled: the shards hold {len(self.shards):,}. Lower training.batch_size or give more text.")
        mine = slice(self.rank * batch_size // self.world, (self.rank + 1) * batch_size // self.world)
        epoch, skip = divmod(first, per_epoch)
        while True:
            waiting = torch.zeros(0, dtype=torch.long)
            for index in self._order(epoch_seed(seed, epoch)):
                waiting = torch.cat([waiting, index])
                whole = len(waiting) // batch_size * batch_size
                for batch in waiting[:whole].view(-1, batch_size):  # none at all after a shard that is smaller than a batch
                    if skip == 0:
                        yield self.shards.rows(batch[mine])
                    skip = max(0, skip - 1)
                waiting = waiting[whole:]
            epoch += 1

    def _order(self, seed: int) -> Iterator[Int[Tensor, " shard"]]:
        """The numbers of all tokens, shard by shard."""
        rng = torch.Generator().manual_seed(seed)
        sizes = torch.tensor([shard["tokens"] for shard in self.shards.manifest["shards"]])
        starts = sizes.cumsum(0) - sizes
        for i in torch.randperm(len(sizes), generator=rng).tolist():
            yield starts[i] + torch.randperm(int(sizes[i]), generator=rng)

    def sample(self, n: int) -> Float[Tensor, "n d_in"]:
        """The first n tokens: after the shuffle they are a fair sample, and lie side by side."""
        return self.shards.rows(torch.arange(min(n, len(self.shards))))


class _Losses(nn.Module):
    """What is distributed: the SAE's parameters, with the losses as the forward pass."""

    def __init__(self, sae: SAE, training: TrainingConfig) -> None:
        super().__init__()
        self.sae, self.training_config = sae, training

    def forward(self, x: Float[Tensor, "n d_in"], dead: Bool[Tensor, " d_sae"]) -> tuple[Tensor, Tensor, Tensor]:
        """(squared error per token, auxiliary loss, the latents that fired)."""
        rebuilt, auxiliary, fired = training_forward(self.sae, x, dead, self.training_config)
        return (x - rebuilt).pow(2).sum(1).mean(), auxiliary, fired


def train_shared(
    shards: Shards, cfg: SAEConfig, training: TrainingConfig, *, checkpoint: Path, device: str | torch.device = "cpu", progress: bool = True
) -> tuple[SAE, History]:
    """Train an SAE on shuffled shards, alone or as one of the processes of torch.distributed's group.

    Args:
        checkpoint: a file. What it holds goes on, to the same SAE: with the same number of processes and threads, to the last bit.
        device: this process's.

    Returns: (the SAE in the activations' own units, its history), the same in every process.

    Raises: SAEError for a checkpoint of another run; ValueError for activations that are NaN, do not vary or do not fill a batch.
    """
    device, rank, world = torch.device(device), *_place()
    share = Share(shards, rank, world)
    sae = SAE(cfg, training.seed).to(device)
    optimizer = torch.optim.Adam(sae.parameters(), lr=training.lr, fused=True)
    idle = torch.zeros(cfg.d_sae, dtype=torch.long, device=device)
    history = History(torch.zeros(training.steps), torch.zeros(training.steps, dtype=torch.long))
    config, first = run_config(cfg, training, world), 0
    if checkpoint.exists():
        first, tensors, load = read_run(checkpoint, config)
        load(sae, optimizer)
        mean, scale = tensors["mean"], float(tensors["scale"])
        for target, name in ((idle, "idle"), (history.unexplained, "unexplained"), (history.dead, "dead")):
            target.copy_(tensors[name])
    else:
        mean, scale = normalisation(share.sample(_SAMPLE))
    centre = mean.to(device)
    losses = _shared(_Losses(sae, training), training.batch_size // world, device)
    batches = share.batches(training.batch_size, training.seed, first)
    for step in tqdm(range(first, training.steps), initial=first, total=training.steps, desc="training", unit=" steps", delay=2, mininterval=1,
                     disable=not progress or rank > 0):
        x = (next(batches).to(device) - centre) / scale
        dead = idle >= training.dead_after
        error, auxiliary, fired = losses(x, dead)
        unexplained, ever_fired = _together(x, error, auxiliary, fired, cfg.d_sae, world, step)
        (error + training.aux_coefficient * auxiliary).backward()
        nn.utils.clip_grad_norm_(sae.parameters(), training.max_grad_norm)
        for group in optimizer.param_groups:
            group["lr"] = training.lr_at(step)
        optimizer.step()
        optimizer.zero_grad()
        idle += training.batch_size
        idle[ever_fired] = 0
        history.unexplained[step], history.dead[step] = unexplained, dead.sum()
        if rank == 0 and ((step + 1) % training.checkpoint_every == 0 or step + 1 == training.steps):
            save_run(checkpoint, step + 1, config, sae, optimizer, idle=idle, unexplained=history.unexplained, dead=history.dead, mean=mean,
                     scale=torch.tensor(scale, dtype=torch.float64))
    sae.fold_decoder_norm_()
    sae.rescale_(centre, scale)
    return sae.requires_grad_(False), history


def run_config(cfg: SAEConfig, training: TrainingConfig, world: int) -> str:
    """What a checkpoint belongs to."""
    return json.dumps({"sae": asdict(cfg), "training": asdict(training), "processes": world}, sort_keys=True)


def _place() -> tuple[int, int]:
    """(which process this is, of how many)."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


def _shared(losses: _Losses, share: int, device: torch.device) -> nn.Module:
    """The losses with gradients that are averaged over all processes."""
    if not dist.is_initialized():
        return losses
    shared = DistributedDataParallel(losses, device_ids=[device.index] if device.type == "cuda" else None)
    # After its first backward pass DDP lays out its messages anew, and a sum in another order has another last bit. This pass is thrown away, so
    # that the first step of a resumed run adds up as the same step of an unbroken one does.
    sae = losses.sae
    error, auxiliary, _ = shared(torch.zeros(share, sae.cfg.d_in, device=device), torch.zeros(sae.cfg.d_sae, dtype=torch.bool, device=device))
    (error + auxiliary).backward()
    losses.zero_grad()
    return shared


@torch.no_grad()
def _together(
    x: Float[Tensor, "share d_in"], error: Tensor, auxiliary: Tensor, fired: Int[Tensor, " n_fired"], d_sae: int, world: int, step: int
) -> tuple[Tensor, Bool[Tensor, " d_sae"]]:
    """(share of the whole batch's variance that is left unexplained, the latents that fired in any process), from one message.

    Raises: ValueError in every process alike when the loss is not finite, so that none waits for another.
    """
    fires = torch.zeros(d_sae, device=x.device)
    fires[fired] = 1
    message = torch.cat([torch.stack([error, auxiliary, x.pow(2).sum(1).mean()]), x.mean(0), fires])
    if world > 1:
        dist.all_reduce(message)
        message /= world
    error, auxiliary, square = message[:3]
    if not (error + auxiliary).isfinite():
        raise ValueError(f"the loss is {float(error + auxiliary)} at step {step}: the activations hold NaN or infinity, or training.lr is too high.")
    mean = message[3 : 3 + x.shape[1]]
    return error / (square - mean.pow(2).sum()), message[3 + x.shape[1] :] > 0
