"""The SAE that ships with the course, its card, and the one command that makes both again.

    python -m utils.sae.course_sae            harvests, trains two seeds, measures; resumable, hours on a CPU

The first seed's SAE and the card go to `utils/weights/course_sae`; the second seed is measured, and not shipped.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from utils.data.corpus import TRAINING, UNSEEN, Document, documents, split_documents
from utils.data.fetch import sha256_of
from utils.hooks import resid_post
from utils.models import load_model
from utils.paths import ROOT, atomic_write, cache_dir
from utils.sae.finetune import FinetuneConfig, finetune_sae
from utils.intervals import Estimate
from utils.sae.metrics import Cost, Fit, measure_cost, measure_fit
from utils.sae.model import CONFIG, SAE, WEIGHTS, SAEConfig, SAEError, load_sae
from utils.sae.shards import Shards, contexts, harvest
from utils.sae.training import TrainingConfig, normalisation, train_sae

FOLDER = ROOT / "utils" / "weights" / "course_sae"
SHA256 = "a0f515eaadea2a38f6b409c53276134f293878172fa086bc1f0f28122d63a75a"
"""Of the weights that ship."""

MODEL = "smollm2-135m"
LAYER = 14
CFG = SAEConfig(d_in=576, d_sae=6144, k=32, model_name=MODEL, hook_name=resid_post(LAYER))
TRAIN = TrainingConfig(steps=14_000, batch_size=1024, lr=1e-3, bf16=True)
TUNE = FinetuneConfig(steps=256)
SEEDS = (0, 1)
HARVEST_DTYPE = torch.bfloat16
"""What the model computes in while the SAE is trained: it changes 0.03% of the activations' variance, and is four times as fast on a CPU that has it."""
TARGETS = {"explained_variance": 0.80, "recovered_mean": 0.96}
"""What the SAE was meant to reach on text of unseen sources; the card says where it does not."""
_UNSEEN_CONTEXTS = 2048
_COST_CONTEXTS = 48


def load_course_sae(device: str | torch.device = "cpu") -> SAE:
    """The course's SAE: TopK, 6,144 latents, 32 at a time, on the residual stream after block 14 of smollm2-135m.

    Raises: SAEError when its file is missing or is not the one that shipped.
    """
    path = FOLDER / WEIGHTS
    advice = f"`git checkout {FOLDER.relative_to(ROOT).as_posix()}` brings it back."
    if not path.exists() or sha256_of(path) != SHA256:
        raise SAEError(f"{path.name} in {FOLDER} is missing or was changed. {advice}")
    sae = load_sae(FOLDER, device)
    if sae.cfg != CFG:
        raise SAEError(f"{CONFIG} in {FOLDER} was changed. {advice}")
    return sae


def course_shards(model: TransformerBridge | None = None) -> dict[str, Shards]:
    """The activations that the course SAE is trained and measured on: "train", "held-out", "reviews", "news".

    Harvested on the first call (5 million tokens, 6 GB; half an hour to two hours on 2 cores), memory-mapped afterwards.
    """
    model = model or load_model(MODEL, dtype=HARVEST_DTYPE)
    train, held_out = split_documents(documents(TRAINING))
    folder = cache_dir() / "shards"
    shards = {"train": harvest(model, train, CFG.hook_name, folder / "course"),
              "held-out": harvest(model, held_out, CFG.hook_name, folder / "course-held-out")}
    for source in UNSEEN:
        shards[source] = harvest(model, documents(source), CFG.hook_name, folder / f"course-{source}", max_contexts=_UNSEEN_CONTEXTS)
    return shards


def pca(sample: Tensor, rank: int) -> Callable[[Tensor], Tensor]:
    """[n, d] -> [n, d]: the projection on the `rank` widest directions of a sample, the linear baseline of an SAE."""
    mean = sample.mean(0)
    components = torch.linalg.eigh((sample - mean).T @ (sample - mean)).eigenvectors[:, -rank:]
    return lambda x: (x - mean) @ components @ components.T + mean


def main() -> None:
    """Harvest, train, measure, and write the SAE and its card."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = load_model(MODEL, device=device, dtype=HARVEST_DTYPE)
    shards = course_shards(model)
    tokens, _ = contexts(model, split_documents(documents(TRAINING))[0])
    trained = {}
    for seed in SEEDS:
        training = TrainingConfig(**{**asdict(TRAIN), "seed": seed})
        folder = cache_dir() / "course_sae"
        base, history = train_sae(shards["train"], CFG, training, checkpoint=folder / f"seed{seed}.safetensors", device=device)
        tuning = FinetuneConfig(**{**asdict(TUNE), "seed": seed})
        trained[f"seed {seed}"], kl = finetune_sae(model, base, tokens, tuning, checkpoint=folder / f"seed{seed}-tuned.safetensors")
        print(f"seed {seed}: {1 - history.unexplained[-200:].mean():.3f} explained on the last batches, {int(history.dead[-1])} dead; "
              f"KL {kl[:20].mean():.3f} at the beginning of the fine-tuning, {kl[-20:].mean():.3f} at its end", flush=True)
        if seed == SEEDS[0]:
            trained[f"seed {seed}, before fine-tuning"] = base
    with tempfile.TemporaryDirectory() as scratch:
        trained["seed 0"].save(Path(scratch, "sae"), torch.float16)
        # What ships is measured as it ships: in half precision.
        trained["seed 0"] = load_sae(Path(scratch, "sae"), device)
        files = {file.name: file.read_bytes() for file in Path(scratch, "sae").iterdir()}
    card = _measure(trained, shards)
    card |= {"sha256": hashlib.sha256(files[WEIGHTS]).hexdigest(), "sae": asdict(CFG), "training": asdict(TRAIN), "fine-tuning": asdict(TUNE), "seeds": list(SEEDS), "tokens": len(shards["train"]),
             "sources": list(TRAINING), "unseen": list(UNSEEN)}
    files |= {"card.json": json.dumps(card, indent=1, allow_nan=False), "README.md": card_text(card)}
    for name, content in files.items():
        atomic_write(FOLDER / name, content)
    print(f"{FOLDER} is written. Set SHA256 in utils/sae/course_sae.py to {card['sha256']}")


def _measure(trained: dict[str, SAE], shards: dict[str, Shards]) -> dict:
    model = load_model(MODEL, device=next(iter(trained.values())).b_dec.device)
    _, held_out = split_documents(documents(TRAINING))
    texts: dict[str, list[Document]] = {"held-out": held_out} | {source: documents(source) for source in UNSEEN}
    sample = shards["train"].sample(100_000)
    mean, scale = normalisation(sample)
    random = SAE(CFG, seed=99)
    random.rescale_(mean, scale)
    random.to(model.cfg.device)
    controls = {f"PCA, {CFG.k} components": pca(sample, CFG.k), "untrained SAE": random}
    fits: dict[str, dict] = {}
    costs: dict[str, dict] = {}
    for source in texts:
        fits[source] = {name: _facts(measure_fit(sae, shards[source])) for name, sae in (trained | controls).items()}
        tokens, owners = contexts(model, texts[source])
        chosen = torch.randperm(len(tokens), generator=torch.Generator().manual_seed(0))[:_COST_CONTEXTS]
        average = torch.cat([part["acts"] for part in shards[source].parts]).float().mean(0)
        costs[source] = {name: _facts(measure_cost(model, sae, tokens[chosen], owners[chosen], average))
                         for name, sae in trained.items()}
        print(source, json.dumps({"fit": fits[source], "cost": costs[source]}, indent=1), flush=True)
    return {"fit": fits, "cost": costs}


def card_text(card: dict) -> str:
    """The card as Markdown: every number comes from `card.json`."""
    sae, training, tuning = card["sae"], card["training"], card["fine-tuning"]
    lines = [
        "# The course SAE", "",
        f"A TopK sparse autoencoder of `{sae['hook_name']}` (the residual stream after block {LAYER}) of `{sae['model_name']}`: "
        f"{sae['d_sae']:,} latents, {sae['k']} at a time. Made and measured by `python -m utils.sae.course_sae`. MIT licence.", "",
        f"**Data.** {card['tokens']:,} distinct tokens in contexts of 128, from {', '.join(card['sources'])} (public domain, BSD; see `utils/data/corpus.py`), "
        f"5% of the documents held out. The first token of a context and tokens with more than 3 times the median norm are left out: the SAE knows nothing of them. Activations were computed in bfloat16.",
        f"**Recipe.** {training['steps']:,} steps of {training['batch_size']:,} tokens ({training['steps'] * training['batch_size'] / card['tokens']:.1f} epochs), "
        f"Adam {training['lr']:g}, linear decay over the last {training['decay']:.0%}, auxiliary loss {training['aux_coefficient']:g}, seed {card['seeds'][0]}; seed {card['seeds'][1]} for comparison. "
        f"Then {tuning['steps']:,} steps of {tuning['batch_size']} contexts on the KL divergence of the model's predictions and the squared error, at equal weight (`utils/sae/finetune.py`). "
        f"Stored in half precision, SHA-256 `{card['sha256']}`.", "",
        "**How well it rebuilds activations**, 95% intervals over documents:", "",
        "| text | | explained variance | L0 | never fire | fire on > 10% |", "| --- | --- | --- | --- | --- | --- |",
    ]
    for source, rows in card["fit"].items():
        for name, fit in rows.items():
            latents = f"{fit['l0']:.1f} | {fit['dead']:.1%} | {fit['dense']:.1%}" if fit["l0"] else "| |"
            lines.append(f"| {source} | {name} | {_with_interval(fit['explained_variance'])} | {latents} |")
    lines += ["", "**What next-token prediction loses** when it stands in for the activation (nats per token; recovered: 1 is no loss, 0 as bad as the ablation):", "",
              "| text | | clean | with the SAE | mean ablation | zero ablation | recovered, mean | recovered, zero | KL |", "| --- | --- | --- | --- | --- | --- | --- | --- | --- |"]
    for source, rows in card["cost"].items():
        for name, cost in rows.items():
            lines.append(f"| {source} | {name} | {cost['clean']:.3f} | {cost['sae']:.3f} | {cost['mean']:.3f} | {cost['zero']:.3f} | {_with_interval(cost['recovered_mean'])} | "
                         f"{_with_interval(cost['recovered_zero'])} | {_with_interval(cost['kl'])} |")
    missed = [f"{source}, {name}: {what} {facts[what][0]:.3f}" for what, table in (("explained_variance", "fit"), ("recovered_mean", "cost")) for source in card["unseen"]
              for name, facts in card[table][source].items() if name in {f"seed {seed}" for seed in card["seeds"]} and facts[what][0] < TARGETS[what]]
    lines += ["", f"Targets on unseen sources: {', '.join(f'{what} {least:.2f}' for what, least in TARGETS.items())}. Missed by: {'; '.join(missed) or 'none'}.", "",
              f"Held-out: documents of the training sources, among them no novel: the nine fell on the training side. {' and '.join(card['unseen']).capitalize()}: sources of another kind, never trained on. "
              "A latent that never fires on one of these texts may fire elsewhere. The two sides of a comparison leave the same tokens in place (see `utils.sae.model.usual_tokens`).", "",
              "**Known faults.** English of 1790 to 2026, speeches, novels and documentation: no chat, no other language, hardly any program code outside of examples. "
              "Docstrings share boilerplate, so a part of the held-out documentation stands word for word in the training text; no other number here is touched by that. "
              "Many latents fire on a single token. The model is small and stored in 4 bits; what a latent seems to mean here need not hold in another model.", ""]
    return "\n".join(lines)


def _with_interval(estimate: list[float]) -> str:
    return "{:.3f} [{:.3f}, {:.3f}]".format(*estimate)


def _facts(measured: Fit | Cost) -> dict:
    """What a card keeps: numbers, with their intervals as [value, low, high]."""
    facts = {name: [value.value, value.low, value.high] if isinstance(value, Estimate) else value
             for name, value in vars(measured).items() if not isinstance(value, Tensor)}
    return facts | ({"dead": measured.dead, "dense": measured.dense} if isinstance(measured, Fit) else {})


if __name__ == "__main__":
    main()
