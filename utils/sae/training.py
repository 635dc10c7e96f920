"""The training loop of a TopK SAE: read it in one sitting.

The data are normalised (mean removed, scaled to a mean squared length of d_in). A token's k latents are those that contribute
most, so the lengths of the decoder's rows are free while it trains, and folded into the encoder at the end. Dead latents
that come near to firing learn to rebuild the error (the auxiliary loss of Gao et al. 2024). A run can be killed and resumed
to the same losses: on a CPU with the same number of threads to the last bit.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

import safetensors
import safetensors.torch
import torch
from jaxtyping import Bool, Float, Int
from safetensors import SafetensorError, safe_open
from torch import Tensor
from tqdm.auto import tqdm

from utils.paths import atomic_write
from utils.sae.model import SAE, SAEConfig, SAEError
from utils.sae.shards import epoch_seed
from utils.sae.sparse import sparse_decode, sparse_encode


class Activations(Protocol):
    """What `train_sae` reads: `Shards`, or `Rows` around a tensor."""

    def batches(self, batch_size: int, seed: int, first: int = 0) -> Iterator[Float[Tensor, "batch d_in"]]: ...

    def sample(self, n: int, seed: int = 0) -> Float[Tensor, "n d_in"]: ...


@dataclass(frozen=True)
class Rows:
    """A tensor of activations [n, d_in], served like `Shards`.

    Raises: ValueError when it is not a matrix, or holds NaN or infinity.
    """

    acts: Float[Tensor, "n d_in"]

    def __post_init__(self) -> None:
        if self.acts.ndim != 2 or not len(self.acts):
            raise ValueError(f"activations must be [n, d_in] with n at least 1; got {list(self.acts.shape)}.")
        _check_finite(self.acts)

    def batches(self, batch_size: int, seed: int, first: int = 0) -> Iterator[Float[Tensor, "batch d_in"]]:
        per_epoch = len(self.acts) // batch_size if batch_size > 0 else 0
        if per_epoch == 0:
            raise ValueError(f"a batch of {batch_size:,} tokens cannot be filled: there are {len(self.acts):,}.")
        epoch, skip = divmod(first, per_epoch)
        while True:
            order = torch.randperm(len(self.acts), generator=torch.Generator().manual_seed(epoch_seed(seed, epoch)))
            for i in range(skip, per_epoch):
                yield self.acts[order[i * batch_size : (i + 1) * batch_size]].float()
            epoch, skip = epoch + 1, 0

    def sample(self, n: int, seed: int = 0) -> Float[Tensor, "n d_in"]:
        return self.acts[torch.randperm(len(self.acts), generator=torch.Generator().manual_seed(seed))[:n]].float()


@dataclass(frozen=True)
class TrainingConfig:
    """How to train.

    Attributes:
        steps: optimiser steps.
        batch_size: tokens a step.
        lr: Adam's learning rate after the warm-up; it falls linearly to zero over the last `decay` of the steps.
        warmup, decay: shares of the steps.
        max_grad_norm: a longer gradient is shortened to this. The first ones, when nothing fits yet, are the longest, and as long as Adam
            remembers them its steps are too short.
        aux_coefficient: weight of the auxiliary loss; 0 leaves it out.
        dead_after: a latent that has not fired for so many tokens is dead.
        seed: of the initialisation and of the data's order.
        sparse: True computes with the k firing latents alone (`utils.sae.sparse`), False with dense matrices.
        bf16: look for the largest latents in bfloat16; their values are computed in float32 all the same (sparse), or the encoder's product alone
            runs in bfloat16 (dense).
        checkpoint_every: steps between two checkpoints.

    Raises: ValueError for counts below 1.
    """

    steps: int
    batch_size: int = 1024
    lr: float = 1e-3
    warmup: float = 0.02
    decay: float = 0.3
    max_grad_norm: float = 1.0
    aux_coefficient: float = 1 / 32
    dead_after: int = 200_000
    seed: int = 0
    sparse: bool = True
    bf16: bool = False
    checkpoint_every: int = 1000

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "dead_after", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}.")

    def lr_at(self, step: int) -> float:
        """The learning rate of a step, the first being 0."""
        rising = (step + 1) / max(1, self.warmup * self.steps)
        falling = (self.steps - step) / max(1, self.decay * self.steps)
        return self.lr * min(1.0, rising, falling)


@dataclass(frozen=True)
class History:
    """One number per step: the share of the variance left unexplained on the step's batch, and the dead latents."""

    unexplained: Float[Tensor, " steps"]
    dead: Int[Tensor, " steps"]


def train_sae(
    acts: Activations,
    cfg: SAEConfig,
    training: TrainingConfig,
    *,
    checkpoint: Path | None = None,
    device: str | torch.device = "cpu",
    progress: bool = True,
) -> tuple[SAE, History]:
    """Train an SAE; returned in the activations' own units, with its history.

    Args:
        acts: `Shards`, or `Rows(tensor)`.
        checkpoint: a file. If it holds an unfinished run of this configuration, that run goes on; a finished one is
            returned as it is. It is safe to delete.

    Raises:
        SAEError: the checkpoint belongs to another configuration, or is damaged.
        ValueError: the activations are of another hook point or width, are NaN or infinite, do not vary or do not fill a batch.
    """
    device = torch.device(device)
    hook = getattr(acts, "hook", None)
    if hook and cfg.hook_name and hook != cfg.hook_name:
        raise ValueError(f"these activations were harvested at {hook}; the SAE is meant for {cfg.hook_name}.")
    mean, scale = normalisation(acts.sample(100_000))
    if len(mean) != cfg.d_in:
        raise ValueError(f"the SAE reads activations of width {cfg.d_in}; these have {len(mean)}.")
    sae = SAE(cfg, training.seed).to(device)
    optimizer = torch.optim.Adam(sae.parameters(), lr=training.lr, fused=True)
    idle = torch.zeros(cfg.d_sae, dtype=torch.long, device=device)
    history = History(torch.zeros(training.steps), torch.zeros(training.steps, dtype=torch.long))
    first = 0
    if checkpoint is not None and Path(checkpoint).exists():
        first, mean, scale = _resume(Path(checkpoint), sae, optimizer, idle, history, training, mean, scale)
    batches = acts.batches(training.batch_size, training.seed, first)
    mean = mean.to(device)
    for step in tqdm(range(first, training.steps), initial=first, total=training.steps, desc="training", unit=" steps", delay=2,
                     mininterval=1, disable=not progress):
        x = (next(batches).to(device) - mean) / scale
        dead = idle >= training.dead_after
        reconstruction, auxiliary, fired = training_forward(sae, x, dead, training)
        error = (x - reconstruction).pow(2).sum(1).mean()
        loss = error + training.aux_coefficient * auxiliary
        if not loss.isfinite():
            raise ValueError(f"the loss is {loss.item()} at step {step}: the activations hold NaN or infinity, or the learning rate is too high.")
        loss.backward()
        torch.nn.utils.clip_grad_norm_(sae.parameters(), training.max_grad_norm)
        for group in optimizer.param_groups:
            group["lr"] = training.lr_at(step)
        optimizer.step()
        optimizer.zero_grad()
        idle += len(x)
        idle[fired] = 0
        history.unexplained[step] = error.detach() / (x - x.mean(0)).pow(2).sum(1).mean()
        history.dead[step] = dead.sum()
        if checkpoint is not None and ((step + 1) % training.checkpoint_every == 0 or step + 1 == training.steps):
            _checkpoint(Path(checkpoint), step + 1, sae, optimizer, idle, history, training, mean, scale)
    sae.fold_decoder_norm_()
    sae.rescale_(mean, scale)
    return sae.requires_grad_(False), history


def normalisation(sample: Float[Tensor, "n d_in"]) -> tuple[Float[Tensor, " d_in"], float]:
    """(mean, scale): (x - mean) / scale has a mean squared length of d_in.

    Raises: ValueError when the sample holds NaN or infinity, or does not vary.
    """
    _check_finite(sample)
    mean = sample.mean(0)
    scale = float((sample - mean).pow(2).mean().sqrt())
    if scale <= 1e-6 * float(sample.abs().max()):  # rounding alone gives 1e-8
        raise ValueError("the activations do not vary: every row is the same.")
    return mean, scale


def training_forward(
    sae: SAE, x: Float[Tensor, "n d_in"], dead: Bool[Tensor, " d_sae"], training: TrainingConfig
) -> tuple[Float[Tensor, "n d_in"], Float[Tensor, ""], Int[Tensor, " n_fired"]]:
    """One pass of training: (reconstruction, auxiliary loss, the latents that fired).

    Args:
        x: activations as `normalisation` leaves them.
        dead: the latents that have not fired for long; the auxiliary loss is for them, and 0 where there are none.
    """
    encode, decode = (_pick_sparse, sparse_decode) if training.sparse else (_pick_dense, _decode_dense)
    with torch.autocast(x.device.type, torch.bfloat16, enabled=training.bf16), torch.set_grad_enabled(not training.sparse):
        pre = sae.pre_activations(x).float()
    with torch.no_grad():
        contributions = pre * sae.W_dec.norm(dim=1)
    values, indices = encode(sae, x, pre, contributions, sae.cfg.k)
    reconstruction = decode(values, indices, sae.W_dec) + sae.b_dec
    auxiliary = torch.zeros((), device=x.device)
    n_dead = int(dead.sum())
    if n_dead and training.aux_coefficient:
        # The dead latents that come closest to firing are asked for what the living ones left over.
        left_over = (x - reconstruction).detach()
        dead_values, dead_indices = encode(sae, x, pre, contributions.masked_fill(~dead, -torch.inf), min(n_dead, sae.cfg.d_in // 2))
        auxiliary = (left_over - decode(dead_values, dead_indices, sae.W_dec)).pow(2).sum(1).mean()
    return reconstruction, auxiliary, indices[values > 0].unique()


def _pick_dense(sae: SAE, x: Tensor, pre: Float[Tensor, "n d_sae"], contributions: Float[Tensor, "n d_sae"], k: int) -> tuple[Tensor, Tensor]:
    """(values, indices), [n, k] each, of the latents that contribute most."""
    indices = contributions.topk(k, dim=-1, sorted=False).indices
    return pre.gather(1, indices).relu(), indices


def _pick_sparse(sae: SAE, x: Tensor, pre: Float[Tensor, "n d_sae"], contributions: Float[Tensor, "n d_sae"], k: int) -> tuple[Tensor, Tensor]:
    """The same, without a gradient that is as wide as the dictionary."""
    indices = contributions.topk(k, dim=-1, sorted=False).indices
    return sparse_encode(x - sae.b_dec, indices, sae.encoder_rows, sae.b_enc).relu(), indices


def _decode_dense(values: Float[Tensor, "n k"], indices: Int[Tensor, "n k"], W: Float[Tensor, "d_sae d"]) -> Float[Tensor, "n d"]:
    return torch.zeros(len(values), len(W), device=W.device).scatter(1, indices, values) @ W


def _check_finite(acts: Tensor) -> None:
    broken = (~acts.isfinite()).any(1)
    if broken.any():
        raise ValueError(f"{int(broken.sum()):,} of {len(acts):,} activations are NaN or infinite, row {int(broken.nonzero()[0])} first.")


def _checkpoint(
    path: Path, step: int, sae: SAE, optimizer: torch.optim.Adam, idle: Tensor, history: History, training: TrainingConfig,
    mean: Float[Tensor, " d_in"], scale: float,
) -> None:
    save_run(path, step, _config(sae, training), sae, optimizer, idle=idle, unexplained=history.unexplained, dead=history.dead, mean=mean,
             scale=torch.tensor(scale, dtype=torch.float64))


def _resume(
    path: Path, sae: SAE, optimizer: torch.optim.Adam, idle: Tensor, history: History, training: TrainingConfig,
    mean: Float[Tensor, " d_in"], scale: float,
) -> tuple[int, Float[Tensor, " d_in"], float]:
    """Load a checkpoint into what it was made from; returns the number of steps that are done, and the run's own mean and scale."""
    step, tensors, load = read_run(path, _config(sae, training))
    # Another number of threads adds up in another order: equal data agree to rounding, not to the last bit.
    own_mean, own_scale = tensors["mean"], float(tensors["scale"])
    if (own_mean - mean.cpu()).abs().max() > 1e-3 * scale or abs(own_scale / scale - 1) > 1e-3:
        raise SAEError(f"the checkpoint {path} belongs to a run on other activations. Choose another file, or delete this one.")
    load(sae, optimizer)
    for target, name in ((idle, "idle"), (history.unexplained, "unexplained"), (history.dead, "dead")):
        target.copy_(tensors[name])
    return step, own_mean, own_scale


def save_run(path: Path, step: int, config: str, sae: SAE, optimizer: torch.optim.Adam, **more: Tensor) -> None:
    """Write what a run needs to go on: its configuration, the SAE, the optimiser and any other tensors."""
    tensors = {f"sae.{name}": weight for name, weight in sae.state_dict().items()} | more
    for i, state in optimizer.state_dict()["state"].items():
        tensors |= {f"adam.{i}.{name}": value for name, value in state.items()}
    metadata = {"step": str(step), "config": config}
    atomic_write(path, safetensors.torch.save({name: tensor.detach().cpu().clone() for name, tensor in tensors.items()}, metadata))


def read_run(path: Path, config: str) -> tuple[int, dict[str, Tensor], Callable[[SAE, torch.optim.Adam], None]]:
    """(steps done, the tensors that `save_run` wrote, a function that puts the SAE and the optimiser back).

    Raises: SAEError when the file is damaged or of another configuration.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}
    except (OSError, SafetensorError) as error:
        raise SAEError(f"the checkpoint {path} cannot be read ({error}). Delete it to start again.") from error
    if metadata.get("config") != config:
        raise SAEError(f"the checkpoint {path} belongs to another run: {metadata.get('config')}. Choose another file, or delete this one.")

    def load(sae: SAE, optimizer: torch.optim.Adam) -> None:
        sae.load_state_dict({name.removeprefix("sae."): tensor for name, tensor in tensors.items() if name.startswith("sae.")})
        state: dict[int, dict[str, Tensor]] = {}
        for name, tensor in tensors.items():
            if name.startswith("adam."):
                _, i, key = name.split(".")
                state.setdefault(int(i), {})[key] = tensor
        optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})

    return int(metadata["step"]), tensors, load


def _config(sae: SAE, training: TrainingConfig) -> str:
    return json.dumps({"sae": asdict(sae.cfg), "training": asdict(training)}, sort_keys=True)
