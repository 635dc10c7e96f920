"""Labels put to the test: push a latent's direction into the residual stream, and see whether its label's words become likelier.

Beside every labelled latent stand random ones, pushed as far on the same text. A latent is verified when it raises its own words more than
each of them does: by chance that happens once in controls + 1.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from tqdm.auto import tqdm
from transformer_lens.model_bridge import TransformerBridge

from utils.intervals import Estimate, mean_over, share
from utils.paths import atomic_write
from utils.pipeline.capture import open_shards
from utils.pipeline.labels import labels_of, stats_of
from utils.pipeline.records import Run, hashed
from utils.pipeline.text import Sentences
from utils.pipeline.workers import trained
from utils.reading.words import Words, words_of
from utils.steering.steering import steer

RESULT = "verification.json"
_PUSHES_A_FILE = 16


@dataclass(frozen=True)
class Verified:
    """What pushing one latent did to its label's words.

    Attributes:
        latent, words: which, and what its label predicts.
        rise: of the log-probability of the next token being one of the words, in nats, mean over tokens.
        control: the same under pushes of random latents, their mean.
        verified: whether no random latent raised the words as much.
    """

    latent: int
    words: tuple[str, ...]
    rise: float
    control: float
    verified: bool


def verify(run: Run) -> dict[Path, str]:
    """Test the labels of every layer; what has been pushed is kept, so that a killed run pushes the rest."""
    words = words_of(run.model)
    files = [run.at("verify", layer) / RESULT for layer in run.hooks]
    for layer, file in zip(run.hooks, files):
        if not file.exists():
            atomic_write(file, json.dumps(_verify_layer(run, layer, words), indent=1, ensure_ascii=False))
    return hashed(*files)


def _verify_layer(run: Run, layer: int, words: Words) -> dict:
    settings, number = run.config.verification, {word: i for i, word in enumerate(words.spelled)}
    labels = {latent: tuple(word for word in label.words if word in number) for latent, label in labels_of(run, layer).items()}
    rng = torch.Generator().manual_seed(run.config.seed)
    testable = _drawn(torch.tensor([latent for latent, said in labels.items() if said], dtype=torch.long), settings.latents, rng)
    alive = (stats_of(run, layer).firing_rate > 0).nonzero().squeeze(1)
    controls = _drawn(alive[~torch.isin(alive, testable)], settings.controls, rng)
    if not len(testable) or len(controls) < 2:
        return summary([], len(controls))
    masks = torch.stack([torch.isin(words.of_token, torch.tensor([number[word] for word in labels[latent]])) for latent in testable.tolist()])
    rises = _pushes(run, layer, torch.cat([testable, controls]), masks)
    own, others = rises[: len(testable)].diagonal(), rises[len(testable) :]
    tested = [Verified(latent, labels[latent], float(own[i]), float(others[:, i].mean()), bool(own[i] > others[:, i].max())) for i, latent in enumerate(testable.tolist())]
    return summary(tested, len(controls))


def summary(tested: list[Verified], controls: int) -> dict:
    """The tests with what they say together, as JSON holds it: estimates are [value, low, high], None where there is too little."""
    raised = mean_over(torch.tensor([one.rise - one.control for one in tested])) if len(tested) > 1 else None
    kept = share(sum(one.verified for one in tested), len(tested)) if tested else None
    return {"controls": controls, "chance": 1 / (controls + 1), "lead_over_random": _numbers(raised), "share_verified": _numbers(kept), "tested": [asdict(one) for one in tested]}


def _numbers(estimate: Estimate | None) -> list[float] | None:
    return estimate and [estimate.value, estimate.low, estimate.high]


def _drawn(latents: Int[Tensor, " n"], most: int, rng: torch.Generator) -> Int[Tensor, " m"]:
    return latents[torch.randperm(len(latents), generator=rng)[:most]].sort().values


def _pushes(run: Run, layer: int, latents: Int[Tensor, " n"], masks: Bool[Tensor, "n_labels d_vocab"]) -> Float[Tensor, "n n_labels"]:
    """How far pushing each latent raises each label's words. Kept on disk in groups, under a name made of what was pushed."""
    sae, rows = trained(run, layer), steered_text(run)
    usual = float(open_shards(run.at("capture", layer) / "held-out").sample(4096).norm(dim=1).median())
    plain, found = _log_shares(run.model, rows, masks), []
    with tqdm(total=len(latents), desc=f"pushing latents of layer {layer}", delay=2, disable=not run.progress) as bar:
        for group in latents.split(_PUSHES_A_FILE):
            path = run.at("verify", layer) / f"pushes-{_name(group)}.json"
            if not path.exists():
                rises = []
                for latent in group.tolist():
                    with steer(run.model, run.hooks[layer], sae.W_dec[latent], run.config.verification.strength * usual):
                        rises.append((_log_shares(run.model, rows, masks) - plain).tolist())
                    bar.update()
                atomic_write(path, json.dumps(rises))
            found += json.loads(path.read_text("utf-8"))
            bar.update(min(len(found), len(latents)) - bar.n)
    return torch.tensor(found)


def _name(latents: Int[Tensor, " n"]) -> str:
    return hashlib.sha256(str(latents.tolist()).encode()).hexdigest()[:12]


def steered_text(run: Run) -> Int[Tensor, "contexts tokens"]:
    """The beginnings of some held-out rows: what the model reads while latents are pushed."""
    sentences, settings = Sentences(run.at("sentences")), run.config.verification
    order = torch.randperm(len(sentences.held_out), generator=torch.Generator().manual_seed(run.config.seed + 1))[: settings.contexts]
    return sentences.rows(sentences.held_out[order])[:, : settings.tokens].to(run.model.cfg.device)


@torch.no_grad()
def _log_shares(model: TransformerBridge, rows: Int[Tensor, "contexts tokens"], masks: Bool[Tensor, "n_labels d_vocab"]) -> Float[Tensor, " n_labels"]:
    """The log-probability that the next token is one of each label's words, mean over all tokens but the first of a row."""
    log_probs = model(rows)[:, 1:].float().log_softmax(-1).flatten(0, 1)
    return torch.stack([log_probs[:, mask.to(log_probs.device)].logsumexp(1).mean() for mask in masks]).cpu()


def verified_of(run: Run, layer: int) -> dict:
    """What `verify` wrote."""
    return json.loads((run.at("verify", layer) / RESULT).read_text("utf-8"))
