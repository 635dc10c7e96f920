"""The last stage: what was made, measured on held-out text beside its controls, as a README for people and a card.json for programs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from tqdm.auto import tqdm

from utils.data.fetch import sha256_of
from utils.intervals import Estimate
from utils.paths import atomic_write
from utils.pipeline.capture import open_shards
from utils.pipeline.labels import labels_of, stats_of
from utils.pipeline.records import Run, hashed
from utils.pipeline.text import Sentences
from utils.pipeline.verifying import verified_of
from utils.pipeline.workers import SAE_FOLDER, trained
from utils.sae.course_sae import pca
from utils.sae.metrics import Cost, Fit, measure_cost, measure_fit
from utils.sae.model import SAE, WEIGHTS
from utils.sae.shards import Shards
from utils.sae.training import normalisation

CARD, README = "card.json", "README.md"
_COST_ROWS = 48
_SAMPLE = 100_000


def write_cards(run: Run) -> dict[Path, str]:
    """Measure the SAE of every layer and write its card. Layers whose card is there are not measured again."""
    files = []
    for layer in run.hooks:
        card, readme = run.at("card", layer) / CARD, run.at("card", layer) / README
        if not card.exists():
            atomic_write(card, json.dumps(measure(run, layer), indent=1))
        atomic_write(readme, card_text(json.loads(card.read_text("utf-8"))))
        files += [card, readme]
    return hashed(*files)


def measure(run: Run, layer: int) -> dict:
    """All that a layer's card says; estimates are [value, low, high].

    "fit" and "cost" hold the SAE beside PCA with as many numbers a token and an SAE that was never trained; the cost is the SAE's alone.
    """
    sae, train, held = trained(run, layer), open_shards(run.at("shuffle", layer)), open_shards(run.at("capture", layer) / "held-out")
    ways: dict[str, Callable[[Tensor], Tensor]] = {"the SAE": sae, f"PCA, {sae.cfg.k} components": pca(train.sample(_SAMPLE), sae.cfg.k), "untrained SAE": _untrained(sae, train)}
    fits = {name: measure_fit(way, held) for name, way in tqdm(ways.items(), desc=f"card of layer {layer}", delay=2, disable=not run.progress)}
    labels, stats = labels_of(run, layer), stats_of(run, layer)
    return {
        "sae": vars(sae.cfg), "sha256": sha256_of(run.at("train", layer) / SAE_FOLDER / WEIGHTS), "layer": layer,
        "tokens": {"trained_on": len(train), "held_out": len(held)}, "processes": run.config.processes,
        **run.config.sections("capture", "training", "seed"),
        "text": run.config.sections("text")["text"] | {"folder": None, "jsonl": None},  # a place on somebody's disk says nothing to others
        "fit": {name: _facts(fit) for name, fit in fits.items()}, "cost": _facts(_cost(run, sae, held)),
        "labels": {"explainer": run.config.reading.explainer, "alive": int((stats.firing_rate > 0).sum()), "labelled": len(labels),
                   "score": sum(label.score for label in labels.values()) / max(1, len(labels)), "tokens": stats.n_tokens},
        "verification": {**verified_of(run, layer), "strength": run.config.verification.strength},
    }


def _untrained(sae: SAE, train: Shards) -> SAE:
    control = SAE(sae.cfg, seed=99).requires_grad_(False)
    control.rescale_(*normalisation(train.sample(_SAMPLE)))
    return control.to(sae.b_dec.device)


def _cost(run: Run, sae: SAE, held: Shards) -> Cost:
    """The loss with the SAE on some held-out rows, one of each document first."""
    sentences = Sentences(run.at("sentences"))
    index = sentences.held_out[torch.randperm(len(sentences.held_out), generator=torch.Generator().manual_seed(run.config.seed))]
    documents, owners = sentences.document[index].unique(return_inverse=True)
    firsts = torch.tensor([int((owners == i).nonzero()[0]) for i in range(len(documents))])[: _COST_ROWS // 2]
    chosen = torch.cat([firsts, torch.arange(len(index))[:_COST_ROWS]]).unique()[:_COST_ROWS]
    mean = torch.cat([part["acts"] for part in held.parts]).float().mean(0)
    return measure_cost(run.model, sae, sentences.rows(index[chosen]), owners[chosen], mean.to(run.model.cfg.device), progress=run.progress)


def _facts(measured: Fit | Cost) -> dict:
    """The numbers of a measurement, without its tensors."""
    facts = {name: [value.value, value.low, value.high] if isinstance(value, Estimate) else value for name, value in vars(measured).items() if not isinstance(value, Tensor)}
    return facts | ({"dead": measured.dead, "dense": measured.dense} if isinstance(measured, Fit) else {})


def card_text(card: dict) -> str:
    """The card as Markdown; every number comes from `card.json`."""
    sae, training, labels, tested, cost = card["sae"], card["training"], card["labels"], card["verification"], card["cost"]
    tokens = card["tokens"]
    lines = [
        f"# {sae['d_sae']:,} latents of {Path(sae['model_name']).name}, after block {card['layer']}", "",
        f"A TopK sparse autoencoder at `{sae['hook_name']}`, {sae['k']} latents at a time, made by `python -m utils pipeline`. `card.json` holds every number.", "",
        f"**Data.** {tokens['trained_on']:,} tokens in rows of {card['capture']['context']}, computed in {card['capture']['dtype']}; measured on {tokens['held_out']:,} tokens of "
        "documents that were held out. The first token of a row and tokens with more than 3 times the median norm are left out.",
        f"**Recipe.** {training['steps']:,} steps of {training['batch_size']:,} tokens ({training['steps'] * training['batch_size'] / tokens['trained_on']:.1f} epochs), Adam {training['lr']:g}, "
        f"auxiliary loss {training['aux_coefficient']:g}, seed {training['seed']}, {card['processes']} process{'es' if card['processes'] > 1 else ''}. Weights: SHA-256 `{card['sha256']}`.", "",
        "| held-out text | explained variance | L0 | never fire | fire on > 10% |", "| --- | --- | --- | --- | --- |",
    ]
    for name, fit in card["fit"].items():
        latents = f"{fit['l0']:.1f} | {fit['dead']:.1%} | {fit['dense']:.1%}" if fit["l0"] else "| |"
        lines.append(f"| {name} | {_interval(fit['explained_variance'])} | {latents} |")
    lines += ["", f"**Next-token loss** (nats per token): {cost['clean']:.3f} clean, {cost['sae']:.3f} with the SAE, {cost['mean']:.3f} with the mean activation, {cost['zero']:.3f} with zeros. "
              f"Recovered: {_interval(cost['recovered_mean'])} of what the mean costs, {_interval(cost['recovered_zero'])} of what zeros cost. KL {_interval(cost['kl'])}.", "",
              f"**Labels** ({labels['explainer']}): {labels['labelled']:,} of {labels['alive']:,} latents that fired on {labels['tokens']:,} held-out tokens; "
              f"mean score on contexts that they were not made from {labels['score']:.2f}.", "", _verdict(tested), ""]
    return "\n".join(lines)


def _verdict(tested: dict) -> str:
    """What steering says of the labels."""
    n, kept = len(tested["tested"]), tested["share_verified"]
    if not n:
        return "**Verification.** Nothing was tested: no label names a word, or too few other latents are alive."
    lead = f", by {_interval(tested['lead_over_random'])} nats more than random latents do" if tested["lead_over_random"] else ""
    return (f"**Verification.** {n} labelled latents were pushed at {tested['strength']:g} of the usual norm: {_interval(kept)} of them raise their label's words more than each of {tested['controls']} random "
            f"latents{lead}. By chance it would be {tested['chance']:.3f}.")


def _interval(estimate: list[float]) -> str:
    return "{:.3f} [{:.3f}, {:.3f}]".format(*estimate)
