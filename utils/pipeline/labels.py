"""Labels for latents, through an interface that holds any explainer: a table of words, a rule, a language model.

An explainer is a function from `Evidence` to {latent: Label}; it may leave latents out. In a configuration it is "word" or "rules", those below, or
"module:function". A label that names words can be put to the test by steering.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from importlib import import_module
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge
from tqdm.auto import tqdm

from utils.paths import atomic_write
from utils.pipeline.config import PipelineError
from utils.pipeline.records import Run, hashed
from utils.pipeline.text import Sentences
from utils.pipeline.workers import trained
from utils.reading.collecting import collect_features
from utils.reading.features import FeatureError, FeatureStats
from utils.reading.firings import READING, TESTING
from utils.reading.labels.language import lexicon_of
from utils.reading.labels.places import halves, neighbours_of
from utils.reading.labels.search import find_rules
from utils.reading.labels.shipped import with_scores
from utils.reading.one_word import one_word_latents, word_counts
from utils.reading.words import Words, words_of

STATS, LABELS = "features.safetensors", "labels.json"


@dataclass(frozen=True)
class Label:
    """What an explainer says of a latent.

    Attributes:
        text: for people.
        words: what the latent should make likelier when it is pushed, spelled as `utils.reading.words` does; empty if the label does not say.
        score: how well the label did on text that it was not made from, 0 to 1.
    """

    text: str
    words: tuple[str, ...]
    score: float


@dataclass(frozen=True)
class Evidence:
    """What an explainer may look at.

    Attributes:
        model: the model that the latents were read in.
        stats: every latent's strongest examples, quantiles and firings on held-out text. Contexts with an even number are for
            making a label, those with an odd one for testing it (`utils.reading.firings`).
    """

    model: TransformerBridge
    stats: FeatureStats

    @cached_property
    def words(self) -> Words:
        """The words of the model's vocabulary."""
        return words_of(self.model)

    def word_counts(self, half: int) -> Float[Tensor, "d_sae n_words"]:
        """How often each latent fires on each word in one half of the contexts, as a sparse tensor."""
        values, latents, tokens = (column[half::2].flatten(0, 1) for column in (self.stats.code_value, self.stats.code_latent, self.stats.tokens))
        return word_counts(values, latents.long(), self.words.of_token[tokens.long()], self.stats.d_sae, len(self.words.spelled))


Explainer = Callable[[Evidence], dict[int, Label]]


def one_word(evidence: Evidence) -> dict[int, Label]:
    """Latents that fire on one word: the label is a rule that can be executed, and its score the share of the other half's firings that obey it."""
    reading, testing = evidence.word_counts(READING), evidence.word_counts(TESTING)
    total = testing.sum(1).to_dense()
    labels = {}
    for latent, number in one_word_latents(reading, testing).items():
        word = evidence.words.spelled[number]
        labels[latent] = Label(f"fires on “{word}”", (word,), round(float(testing[latent, number] / total[latent]), 4))
    return labels


def rules(evidence: Evidence) -> dict[int, Label]:
    """A rule over tokens for every latent that fires often enough (`utils.reading.labels`). Its score is the balanced accuracy on the other half,
    against places where only a neighbour of the latent fires."""
    (reading, testing), near, lexicon = halves(evidence.stats), neighbours_of(evidence.stats), lexicon_of(evidence.model)
    found = find_rules(reading, lexicon, near, progress=False)
    scored = with_scores(found, testing, near, lexicon)
    return {latent: Label(label.rule, found[latent].words, label.near) for latent, label in scored.items() if label.near is not None}


EXPLAINERS: dict[str, Explainer] = {"word": one_word, "rules": rules}


def explainer_of(name: str) -> Explainer:
    """The explainer of that name, or the function at "module:function". Raises PipelineError when there is none."""
    if name in EXPLAINERS:
        return EXPLAINERS[name]
    module, _, function = name.partition(":")
    try:
        return getattr(import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise PipelineError(f"reading.explainer: there is no explainer {name!r} ({error}). Write {', '.join(EXPLAINERS)}, or your own as module:function, "
                            "with the module where Python finds it.") from None


def read_features(run: Run) -> dict[Path, str]:
    """The strongest examples of every latent of every layer, from one pass over held-out text.

    Raises: PipelineError when that text has no usual token.
    """
    sentences = Sentences(run.at("sentences"))
    index = sentences.held_out
    index = index[torch.randperm(len(index), generator=torch.Generator().manual_seed(run.config.seed))[: run.config.reading.contexts]]
    files = [run.at("features", layer) / STATS for layer in run.hooks]
    for layer, file in zip(run.hooks, files):
        if not file.exists():
            try:
                stats = collect_features(run.model, trained(run, layer), sentences.rows(index), corpus="held-out text", cache=False, progress=run.progress,
                                         batch_size=run.config.capture.batch_size, seed=run.config.seed)
            except FeatureError as error:
                raise PipelineError(f"layer {layer}: {error}") from error
            replace(stats, seconds=0.0).save(file)  # without the time that it took, two runs write the same file
    return hashed(*files)


def stats_of(run: Run, layer: int) -> FeatureStats:
    """What `read_features` wrote. Raises PipelineError when it is damaged."""
    path = run.at("features", layer) / STATS
    try:
        return FeatureStats.load(path)
    except FeatureError as error:
        raise PipelineError(f"{str(error).split(' Delete it')[0]} Delete {path} and run again: it is made anew.") from error


def write_labels(run: Run) -> dict[Path, str]:
    """Label the latents of every layer. Raises PipelineError for an explainer that is not there, or answers with something else than labels."""
    explain = explainer_of(run.config.reading.explainer)
    files = [run.at("labels", layer) / LABELS for layer in run.hooks]
    for layer, file in tqdm(zip(run.hooks, files), total=len(files), desc="labels", delay=2, disable=not run.progress):
        stats = stats_of(run, layer)
        labels = explain(Evidence(run.model, stats))
        if not isinstance(labels, dict) or not all(isinstance(label, Label) and 0 <= latent < stats.d_sae for latent, label in labels.items()):
            raise PipelineError(f"reading.explainer: {run.config.reading.explainer} must return {{latent: Label}}, see utils/pipeline/labels.py.")
        atomic_write(file, json.dumps({str(latent): asdict(labels[latent]) for latent in sorted(labels)}, indent=1, ensure_ascii=False))
    return hashed(*files)


def labels_of(run: Run, layer: int) -> dict[int, Label]:
    """What `write_labels` wrote."""
    found = json.loads((run.at("labels", layer) / LABELS).read_text("utf-8"))
    return {int(latent): Label(label["text"], tuple(label["words"]), label["score"]) for latent, label in found.items()}
