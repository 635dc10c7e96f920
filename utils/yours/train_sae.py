"""Chapter 23 on your own texts: an SAE of a folder of text files, with the controls that belong on its card.

    report = train_on_folder("my_texts", model)
    print(report.verdict)

Whole files are held out. What was computed stays in the cache folder, so that a second call takes seconds.
"""

from __future__ import annotations

import hashlib
import sys
from dataclasses import dataclass
from pathlib import Path

import plotly.graph_objects as go
import torch
from jaxtyping import Float
from scipy.stats import binomtest
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from utils.activation_cache import model_digest
from utils.data.corpus import Document, documents
from utils.hooks import resid_post
from utils.intervals import Estimate, bootstrap
from utils.paths import atomic_write, cache_dir
from utils.plots import GREY, PALETTE
from utils.sae.course_sae import pca
from utils.sae.metrics import explained, measure_cost, measure_fit, squared_sums
from utils.sae.model import SAE, SAEConfig
from utils.sae.shards import Shards, contexts, harvest
from utils.sae.training import TrainingConfig, normalisation, train_sae

SUFFIXES = (".txt", ".md")
MIN_FILES = 10
"""Files that a folder needs, for some to be held out and an interval to be drawn over them."""
HELD_OUT = 0.2
"""The share of the files that is held out."""
MIN_BATCHES = 4
"""Batches that the training text has to fill."""
TWIN = 0.5
"""The cosine above which a latent of another seed counts as the same one."""
_COST_ROWS = 12


class TextError(ValueError):
    """A folder of texts that no honest SAE can be trained on. The message says what to change."""


@dataclass(frozen=True)
class TrainedSAE:
    """An SAE of somebody's texts and what its card has to say, measured on files that were held out.

    Attributes:
        sae: the first seed's. folder: where it lies, in sae_lens' format.
        files, tokens: [trained on, held out].
        scores: explained variance of the SAE, of PCA with as many numbers a token, and of random directions.
        lead: the SAE's explained variance minus PCA's, on the same tokens.
        recovered: share of the loss that it avoids, of what answering with the mean activation costs.
        nats: what it costs the model, per token.
        l0, dead, dense: firing latents per token; shares of latents that never fire, and on more than a tenth of the tokens.
        twins: share of the latents that another seed found as well.
    """

    sae: SAE
    folder: Path
    files: tuple[int, int]
    tokens: tuple[int, int]
    scores: dict[str, Estimate]
    lead: Estimate
    recovered: Estimate
    nats: float
    l0: float
    dead: float
    dense: float
    twins: Estimate

    @property
    def headline(self) -> str:
        """The verdict in a few words."""
        if self.lead.low > 0:
            return "The SAE explains more than PCA"
        return "PCA explains more than the SAE" if self.lead.high < 0 else "The SAE cannot be told from PCA"

    @property
    def verdict(self) -> str:
        """What was found, beside what, and what does not follow."""
        (mine, flat, blind) = self.scores.values()
        meaning = {
            "The SAE explains more than PCA": "Sparse directions describe these activations better than a plain projection does.",
            "PCA explains more than the SAE": "Train it for longer, on more text or with a smaller k, before you read its latents.",
            "The SAE cannot be told from PCA": "More text or more held-out files may decide it; until then there is nothing to read.",
        }[self.headline]
        return (f"{self.headline}: {mine} of the variance against {flat}, a lead of {self.lead}, on {self.files[1]} files that it never saw; "
                f"random directions explain {blind.value:.3f}. It costs the model {self.nats:.3f} nats a token and recovers {self.recovered} of what "
                f"answering with the mean would cost. {meaning} A second seed shares {self.twins} of its latents: what it does not "
                f"share is a finding about one training run.")

    def card(self) -> str:
        """The card in Markdown."""
        cfg = self.sae.cfg
        rows = [f"| explained variance, {name} | {score} |" for name, score in self.scores.items()]
        rows += [f"| lead over PCA | {self.lead} |", f"| loss recovered, against the mean | {self.recovered} |", f"| nats per token | {self.nats:.3f} |",
                 f"| firing latents per token (L0) | {self.l0:.1f} |", f"| dead, dense latents | {self.dead:.1%}, {self.dense:.1%} |",
                 f"| latents with a twin (cosine above {TWIN}) in a second seed | {self.twins} |"]
        return "\n".join([f"**{cfg.d_sae:,} latents, {cfg.k} a token, at `{cfg.hook_name}` of `{cfg.model_name}`**; trained on {self.files[0]} files "
                          f"({self.tokens[0]:,} tokens), measured on {self.files[1]} others ({self.tokens[1]:,} tokens). The first token of a row and "
                          "tokens of unusual length are left out.", "", "| held-out files | |", "| --- | --- |", *rows])

    def figure(self) -> go.Figure:
        """The SAE beside PCA and random directions, with intervals over files."""
        names, found = list(self.scores), list(self.scores.values())
        fig = go.Figure(go.Scatter(x=[e.value for e in found], y=names, mode="markers", marker={"size": 12, "color": [PALETTE[0], PALETTE[1], GREY]},
                                   error_x={"array": [e.high - e.value for e in found], "arrayminus": [e.value - e.low for e in found]}))
        fig.add_vline(x=0, line={"dash": "dash", "color": GREY}, annotation_text="the mean alone", annotation_position="top right")
        low = min(-0.05, *(e.low - 0.05 for e in found))
        return fig.update_layout(title=f"{self.headline}, by {self.lead.value:+.2f}", xaxis={"title": "variance explained on held-out files, 95% interval", "range": [low, 1]},
                                 yaxis={"range": [len(names) - 0.5, -0.8]}, margin={"l": 220}, height=330)


def read_folder(folder: str | Path) -> list[Document]:
    """Every .txt and .md file of a folder and of the folders in it, one document each.

    Raises: TextError when there is no such folder, too few files, a file that is empty or not UTF-8, or the same text twice.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise TextError(f"{folder} is no folder. Give a folder that holds your texts, one {' or '.join(SUFFIXES)} file each.")
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    if len(paths) < MIN_FILES:
        raise TextError(f"{folder} holds {len(paths)} {' or '.join(SUFFIXES)} files: at least {MIN_FILES} are needed, so that whole files can be held out. "
                        "Cut long ones into chapters or articles.")
    texts, seen = [], {}
    for path in paths:
        name, raw = path.relative_to(folder).as_posix(), path.read_bytes()
        try:
            text = raw.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            line = raw[: error.start].count(b"\n") + 1
            raise TextError(f"{name} is not UTF-8 (line {line}). Save it again with that encoding, or take it out of the folder.") from None
        if not text.strip():
            raise TextError(f"{name} is empty. Delete it, or fill it.")
        twin = seen.setdefault(" ".join(text.lower().split()), name)
        if twin != name:
            raise TextError(f"{twin} and {name} are the same text: one could be trained on and the other held out. Delete one of them.")
        texts.append(Document(folder.name, name, text))
    return texts


def example_folder(n: int = 50, characters: int = 1_500) -> Path:
    """A folder of the openings of the last n addresses to Congress, to try things on; written into the cache folder."""
    folder = cache_dir() / "examples" / f"speeches-{n}-{characters}"
    for document in documents("speeches")[-n:]:
        atomic_write(folder / f"{document.name}.txt", document.text[:characters])
    return folder


def train_on_folder(
    folder: str | Path,
    model: TransformerBridge,
    *,
    depth: float = 0.5,
    d_sae: int = 1024,
    k: int = 32,
    steps: int = 300,
    max_contexts: int = 768,
    context: int = 128,
    batch_size: int = 1024,
    seed: int = 0,
    progress: bool = True,
) -> TrainedSAE:
    """Harvest, train two seeds, measure: chapter 23 in one call. Minutes the first time, seconds afterwards.

    Args:
        folder: of your texts, see `read_folder`; a fifth of its files is held out.
        model: the bridge, without hooks of yours on it.
        depth: the share of the blocks after which the residual stream is read.
        d_sae, k: latents, and how many may fire on a token.
        steps: of training, `batch_size` tokens each.
        max_contexts: rows of `context` tokens to train on, at most.
        seed: of the split, the initial weights and the order of the data; the second SAE takes the next one.

    Raises: TextError (see `read_folder`), also when the files are too short; ValueError for settings that make no SAE.
    """
    texts = read_folder(folder)
    order = torch.randperm(len(texts), generator=torch.Generator().manual_seed(seed)).tolist()
    n_held = max(2, round(HELD_OUT * len(texts)))
    held_texts, train_texts = [texts[i] for i in order[:n_held]], [texts[i] for i in order[n_held:]]
    hook = resid_post(max(0, round(depth * model.cfg.n_layers) - 1))
    home = _home(model, hook, texts, context, seed)
    train, held = (_harvested(model, part, hook, home / f"{name}-{n}", context, n, progress)
                   for name, part, n in (("train", train_texts, max_contexts), ("held-out", held_texts, max(16, max_contexts // 4))))
    if len(train) < MIN_BATCHES * batch_size:
        raise TextError(f"the files give {len(train):,} tokens to train on: at least {MIN_BATCHES * batch_size:,} are needed. Add texts.")
    x, document = (torch.cat([part[key] for part in held.parts]) for key in ("acts", "document"))
    x, document = x.float(), document.long()
    if len(document.unique()) < 2:
        raise TextError(f"only one of the {n_held} held-out files fills a row of {context} tokens: longer texts are needed.")

    cfg = SAEConfig(model.cfg.d_model, d_sae, k, model.cfg.model_name, hook)
    sae, other = (train_sae(train, cfg, TrainingConfig(steps, batch_size, dead_after=50_000, seed=s, checkpoint_every=100), progress=progress,
                            checkpoint=home / f"{d_sae}-{k}-{steps}-{batch_size}-{s}.safetensors")[0] for s in (seed, seed + 1))
    sample = train.sample(50_000)
    blind = SAE(cfg, seed=99).requires_grad_(False)
    blind.rescale_(*normalisation(sample))
    rivals = {"your SAE": sae, f"PCA, {k} directions": pca(sample, k), "SAE with random directions": blind}
    (error, total), (flat, _) = (squared_sums(rebuild, x, document) for rebuild in (sae, rivals[f"PCA, {k} directions"]))
    rows, owners = contexts(model, held_texts, context)
    some = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))
    some = torch.cat([some[:_COST_ROWS], torch.tensor([int((owners == i).nonzero()[0]) for i in owners.unique()])]).unique()
    cost = measure_cost(model, sae, rows[some], owners[some], x.mean(0), progress=progress)
    fit = measure_fit(sae, held)
    saved = home / f"sae-{d_sae}-{k}-{steps}-{batch_size}-{seed}"
    if not saved.exists():
        sae.save(saved)
    return TrainedSAE(
        sae, saved, (len(train_texts), n_held), (len(train), len(held)), {name: explained(rebuild, x, document, seed) for name, rebuild in rivals.items()},
        bootstrap(lambda s: (s[1] - s[0]) / s[2], error, flat, total, seed=seed), cost.recovered_mean, cost.sae - cost.clean,
        fit.l0, fit.dead, fit.dense, _twins(sae.W_dec, other.W_dec))


def train_folder(folder: Path, name: str | None = None, **settings: int) -> int:
    """`python -m utils train-sae`: print the card and the verdict, and write the figure into the current folder.

    Returns: the exit status; 2 for a folder or a model that will not do, with the reason on stderr.
    """
    from utils import models
    from utils.default_model import DEFAULT_MODEL

    try:
        read_folder(folder)  # a fault of the folder shows before a model is loaded
        report = train_on_folder(folder, models.load_model(name or DEFAULT_MODEL), **settings)
    except (ValueError, models.ModelError) as error:
        print(error, file=sys.stderr)
        return 2
    drawn = Path(f"{folder.resolve().name}_sae.html")
    report.figure().write_html(drawn)
    print(f"{report.card()}\n\n{report.verdict}\nThe SAE is in {report.folder}, the figure in {drawn}.")
    return 0


def _home(model: TransformerBridge, hook: str, texts: list[Document], context: int, seed: int) -> Path:
    """Where all of this run is kept: a folder by content, so that other texts never meet old activations."""
    digest = hashlib.sha256("|".join([model_digest(model), hook, str(context), str(seed)]).encode())
    for document in texts:
        digest.update(f"{document.name}\0{document.text}\0".encode())
    return cache_dir() / "yours" / digest.hexdigest()[:16]


def _harvested(model: TransformerBridge, texts: list[Document], hook: str, folder: Path, context: int, n: int, progress: bool) -> Shards:
    try:
        return harvest(model, texts, hook, folder, context=context, contexts_per_shard=128, max_contexts=n, progress=progress)
    except ValueError as error:  # no file fills a row
        raise TextError(str(error)) from error


def _twins(rows: Float[Tensor, "d_sae d_in"], others: Float[Tensor, "d_sae d_in"]) -> Estimate:
    """The share of decoder rows with a nearly parallel one in another SAE, with its exact interval (Clopper and Pearson)."""
    same = int(((rows @ others.T).amax(1) > TWIN).sum())
    return Estimate(same / len(rows), *binomtest(same, len(rows)).proportion_ci())
