"""The rivals of chapter 33: small SAEs of one size and one training budget, of which most were kept from learning something.

    python -m utils.sae.rivals            harvests, trains the six, and writes the file that ships; a quarter of an hour on one core, resumable

All have 1,024 latents, 32 at a time, on the residual stream after block 14 of smollm2-135m, and the text of chapter 23. "frozen
decoder", "frozen encoder" and "soft-frozen decoder" are the baselines of Korznikov and others 2026, arXiv:2602.14111.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

import safetensors.torch
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm
from transformer_lens.model_bridge import TransformerBridge

from utils.activation_cache import model_digest
from utils.data.corpus import Document, documents, split_documents
from utils.data.fetch import sha256_of
from utils.hooks import resid_post
from utils.models import load_model
from utils.paths import ROOT, atomic_write, cache_dir
from utils.sae.model import SAE, SAEConfig, SAEError
from utils.sae.shards import Shards, harvest
from utils.sae.training import Activations, TrainingConfig, normalisation, training_forward
from utils.untrained import untrained_like

FILE = ROOT / "utils" / "weights" / "rivals" / "rivals.safetensors"
SHA256 = "baeb84f172a1ecda874d5e85f47fd819e78e33203a6e510e547f819db884bf2f"
"""Of the file that ships."""

MODEL, LAYER = "smollm2-135m", 14
CFG = SAEConfig(d_in=576, d_sae=1024, k=32, model_name=MODEL, hook_name=resid_post(LAYER))
TRAIN = TrainingConfig(steps=2000, batch_size=512, lr=1e-3, dead_after=50_000)
CONTEXTS = {"train": 768, "held-out": 128}
"""Rows of 128 tokens, of the model and of the network before training: as many as chapter 23 harvests of the model."""
LEAST_COSINE = 0.8
"""Of a soft-frozen decoder row with the row that it started from."""


@dataclass(frozen=True)
class Rival:
    """How one of them is trained.

    Attributes:
        seed: of its start and of the data's order.
        frozen: "decoder", "encoder", "softly" or "": what may not move away from its start.
        newborn: it reads the network before training.
    """

    seed: int = 0
    frozen: str = ""
    newborn: bool = False


RIVALS = {
    "trained": Rival(),
    "second seed": Rival(seed=1),
    "frozen decoder": Rival(frozen="decoder"),
    "frozen encoder": Rival(frozen="encoder"),
    "soft-frozen decoder": Rival(frozen="softly"),
    "untrained network": Rival(newborn=True),
}


def start_rows(seed: int) -> Float[Tensor, "d_sae d_in"]:
    """The random unit rows from which decoder and encoder of this seed start."""
    return SAE(CFG, seed).W_dec.detach()


@torch.no_grad()
def keep_near_(rows: Float[Tensor, "d_sae d_in"], start: Float[Tensor, "d_sae d_in"], least: float = LEAST_COSINE) -> None:
    """Turn every row back, in place, until its cosine with its unit start is at least `least`. Its length stays."""
    length = rows.norm(dim=1, keepdim=True).clamp(min=1e-8)
    unit = rows / length
    along = (unit * start).sum(1, keepdim=True)
    aside = F.normalize(unit - along * start, dim=1)
    back = least * start + (1 - least**2) ** 0.5 * aside
    rows.copy_(torch.where(along < least, back * length, rows))


def train_rival(acts: Activations, cfg: SAEConfig, training: TrainingConfig, frozen: str = "", *, progress: bool = True) -> SAE:
    """Train as `train_sae` does, with a part that may not move; returned frozen and in the activations' own units.

    Args:
        frozen: "decoder": its rows stay the random ones of the start. "encoder": its rows and biases stay (the lengths of the decoder's
            rows are folded into it at the end, as always). "softly": the decoder's rows stay within `LEAST_COSINE` of their start.

    Raises: ValueError for another word.
    """
    if frozen not in ("", "decoder", "encoder", "softly"):
        raise ValueError(f"frozen is 'decoder', 'encoder', 'softly' or '', not {frozen!r}.")
    mean, scale = normalisation(acts.sample(100_000))
    sae = SAE(cfg, training.seed)
    start = sae.W_dec.detach().clone()
    held = {"decoder": [sae.W_dec], "encoder": [sae.encoder_rows, sae.b_enc]}.get(frozen, [])
    for parameter in held:
        parameter.requires_grad_(False)
    moving = [parameter for parameter in sae.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(moving, lr=training.lr, fused=True)
    idle, batches = torch.zeros(cfg.d_sae, dtype=torch.long), acts.batches(training.batch_size, training.seed)
    for step in tqdm(range(training.steps), desc=f"frozen {frozen or 'nothing'}", unit=" steps", mininterval=5, disable=not progress):
        x = (next(batches) - mean) / scale
        reconstruction, auxiliary, fired = training_forward(sae, x, idle >= training.dead_after, training)
        loss = (x - reconstruction).pow(2).sum(1).mean() + training.aux_coefficient * auxiliary
        loss.backward()
        torch.nn.utils.clip_grad_norm_(moving, training.max_grad_norm)
        for group in optimizer.param_groups:
            group["lr"] = training.lr_at(step)
        optimizer.step()
        optimizer.zero_grad()
        if frozen == "softly":
            keep_near_(sae.W_dec, start)
        idle += len(x)
        idle[fired] = 0
    sae.fold_decoder_norm_()
    sae.rescale_(mean, scale)
    return sae.requires_grad_(False)


def rival_texts() -> tuple[list[Document], list[Document]]:
    """The documents of chapter 23: to train on, and held out."""
    openings = [Document(d.source, d.name, d.text[:12_000]) for d in documents(("speeches", "novels", "networkx"))]
    return split_documents(openings)


def rival_shards(model: TransformerBridge, which: str, *, newborn: bool = False) -> Shards:
    """The activations of the "train" or "held-out" documents, in the model or in the same network before training (seed 0).

    Harvested on the first call: a minute or two to train on, a quarter of that held out; chapter 23 makes the model's own.
    """
    texts = rival_texts()[("train", "held-out").index(which)]
    n = CONTEXTS[which]
    name = f"untrained-seed0-{which}" if newborn else which
    folder = cache_dir() / "shards" / f"chapter23-{model_digest(model)[:16]}-{LAYER}-float32" / f"{name}-{n}"
    return harvest(untrained_like(model, 0) if newborn else model, texts, CFG.hook_name, folder, max_contexts=n, contexts_per_shard=128)


def load_rivals() -> dict[str, SAE]:
    """The SAEs that ship, by name.

    Raises: SAEError when their file is missing or is not the one that shipped.
    """
    if not FILE.exists() or sha256_of(FILE) != SHA256:
        raise SAEError(f"{FILE.name} in {FILE.parent} is missing or was changed. `git checkout {FILE.relative_to(ROOT).as_posix()}` brings it back.")
    return unpacked(safetensors.torch.load_file(FILE))


def packed(saes: dict[str, SAE]) -> dict[str, Tensor]:
    """What ships, in half precision. What a seed gives back is left out: a frozen decoder, and a frozen encoder but for its lengths."""
    tensors = {}
    for name, sae in saes.items():
        frozen = RIVALS[name].frozen
        tensors |= {f"{name}.b_enc": sae.b_enc, f"{name}.b_dec": sae.b_dec}
        tensors |= {} if frozen == "decoder" else {f"{name}.W_dec": sae.W_dec}
        tensors |= {f"{name}.lengths": sae.encoder_rows.norm(dim=1)} if frozen == "encoder" else {f"{name}.rows": sae.encoder_rows}
    return {key: value.detach().half().contiguous() for key, value in tensors.items()}


def unpacked(tensors: dict[str, Tensor]) -> dict[str, SAE]:
    """The SAEs of what `packed` made."""
    saes = {}
    for name in dict.fromkeys(key.rpartition(".")[0] for key in tensors):
        rival = RIVALS[name]
        part = {key.rpartition(".")[2]: value.float() for key, value in tensors.items() if key.rpartition(".")[0] == name}
        start = start_rows(rival.seed)
        rows = part["rows"] if "rows" in part else part["lengths"][:, None] * start
        cfg = SAEConfig(CFG.d_in, CFG.d_sae, CFG.k) if rival.newborn else CFG
        weights = {"W_enc": rows.T, "b_enc": part["b_enc"], "W_dec": part.get("W_dec", start), "b_dec": part["b_dec"]}
        saes[name] = SAE.of(cfg, weights)
    return saes


def main(folder: Path | None = None) -> None:
    """Harvest, train all, and write the file that ships. A finished SAE waits in the cache folder."""
    model = load_model(MODEL, device="cpu")
    folder = folder or cache_dir() / "rivals"
    saes = {}
    for name, rival in RIVALS.items():
        done = folder / f"{name.replace(' ', '-')}.safetensors"
        if not done.exists():
            acts = rival_shards(model, "train", newborn=rival.newborn)
            sae = train_rival(acts, CFG, replace(TRAIN, seed=rival.seed), rival.frozen)
            atomic_write(done, safetensors.torch.save(packed({name: sae})))
        saes |= unpacked(safetensors.torch.load_file(done))
        print(f"{name} is trained", flush=True)
    content = safetensors.torch.save(packed(saes))
    atomic_write(FILE, content)
    print(f"{FILE.name} is written. Set SHA256 in utils/sae/rivals.py to {hashlib.sha256(content).hexdigest()}")


if __name__ == "__main__":
    main()
