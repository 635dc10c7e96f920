"""Chapter 31 on your own SAE: open it, read all of its latents, and see how far their top lists can be trusted.

    found = browse("my_sae", model)                                           a folder in sae_lens' format
    found = browse("gpt2-small-res-jb", sae_id="blocks.8.hook_resid_pre")     a release that sae_lens knows
    found.browser()                                                           the feature browser, on a cell's last line
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import plotly.graph_objects as go
import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformer_lens.loading_from_pretrained import get_official_model_name
from transformer_lens.model_bridge import TransformerBridge

from utils.data.corpus import Document
from utils.intervals import Estimate, bootstrap
from utils.models import load_model
from utils.plots import PALETTE
from utils.reading.browser import FeatureBrowser
from utils.reading.collecting import collect_features
from utils.reading.course_features import course_features, reading_corpus
from utils.reading.features import N_QUANTILES, FeatureError, FeatureStats
from utils.reading.words import words_of
from utils.sae.model import CONFIG, AnySAE, SAEError, check_fits, load_sae
from utils.sae.shards import contexts

ENOUGH = 60
"""Firings that a latent needs to be counted."""
MIN_LATENTS = 20
"""Such latents that an SAE needs, for a share over latents to mean anything."""
N_LISTED = 12
"""Examples on the list that a reader would be shown."""


@dataclass(frozen=True)
class Browsed:
    """An SAE that was read, and what its top lists are worth.

    Attributes:
        latents: how many fire often enough to be counted.
        listed: the share of a latent's strongest examples that fall on the commonest word among them.
        fifths: the share of its firings that fall on that word, from the weakest fifth to the strongest.
        lottery: the first share, for as many random tokens.
    """

    model: TransformerBridge
    sae: AnySAE
    stats: FeatureStats
    latents: int
    listed: Estimate
    fifths: list[Estimate]
    lottery: float

    @property
    def headline(self) -> str:
        """The verdict in a few words."""
        if self.listed.low <= self.lottery:
            return "The top lists have no word in common"
        return "The top lists show the loud part alone" if self.fifths[0].high < self.listed.low else "The top lists speak for the whole range"

    @property
    def verdict(self) -> str:
        """What was found, beside what, and what to do."""
        advice = {
            "The top lists have no word in common": "That is no proof that the latents mean nothing: read what surrounds the words.",
            "The top lists show the loud part alone": "Write a label for the part of the range that it describes, and test it on contexts that you have not read.",
            "The top lists speak for the whole range": "A label from the list may hold for all firings; test it on contexts that you have not read.",
        }[self.headline]
        return (f"{self.headline}. Of the {N_LISTED} strongest examples {self.listed} are one word ({self.lottery:.3f} for random tokens); of the weakest fifth of "
                f"the firings {self.fifths[0]} fall on it, of the strongest {self.fifths[-1]}. Counted: {self.latents:,} of {self.stats.d_sae:,} latents, those that fire "
                f"{ENOUGH} times or more on {self.stats.n_tokens:,} tokens. {advice}")

    def figure(self) -> go.Figure:
        """The share of the list's word in every part of the range, beside the list itself and random tokens."""
        parts = ["weakest<br>fifth", "second", "third", "fourth", "strongest<br>fifth", f"the {N_LISTED}<br>strongest"]
        found = [*self.fifths, self.listed]
        fig = go.Figure(go.Bar(x=parts, y=[e.value for e in found], marker_color=[PALETTE[0]] * N_QUANTILES + [PALETTE[1]],
                               error_y={"array": [e.high - e.value for e in found], "arrayminus": [e.value - e.low for e in found]}))
        fig.add_shape(type="line", x0=N_QUANTILES - 0.45, x1=N_QUANTILES + 0.45, y0=self.lottery, y1=self.lottery, line={"dash": "dash", "color": "black"})
        fig.add_annotation(x=N_QUANTILES, y=self.lottery, text=f"{N_LISTED} random tokens", yshift=10, showarrow=False)
        return fig.update_layout(title=f"{self.headline}: {self.listed.value:.0%} against {self.fifths[0].value:.0%}", xaxis_title="part of a latent's firings, by value",
                                 yaxis={"title": "share that is the top list's word, 95% interval", "range": [0, 1]})

    def browser(self) -> FeatureBrowser:
        """The feature browser of this SAE; put it on the last line of a cell."""
        return FeatureBrowser(self.model, self.sae, self.stats)


def open_sae(source: str | Path, sae_id: str | None = None) -> AnySAE:
    """An SAE from a folder in sae_lens' format, or from a release that sae_lens knows.

    Args:
        source: the folder, or the name of the release.
        sae_id: which SAE of the release.

    Raises: SAEError when there is no such folder or release, or it holds no SAE that can be read.
    """
    from sae_lens import SAE as LensSAE

    if sae_id is not None:
        try:
            return LensSAE.from_pretrained(str(source), sae_id)
        except Exception as error:  # sae_lens raises many kinds: no such release, no network, no such file
            raise SAEError(f"sae_lens cannot load {sae_id!r} of the release {str(source)!r}: {error}") from error
    folder = Path(source)
    if not folder.is_dir():
        raise SAEError(f"{folder} is no folder. For a release of sae_lens say which of its SAEs, "
                       'such as browse("gpt2-small-res-jb", sae_id="blocks.8.hook_resid_pre").')
    try:
        return load_sae(folder)
    except SAEError as error:
        if not (folder / CONFIG).is_file():
            raise
        try:  # not of the one kind that this course trains
            return LensSAE.load_from_disk(folder)
        except Exception as other:
            raise SAEError(f"the SAE in {folder} cannot be read, neither by this course ({error}) nor by sae_lens ({other}).") from other


def browse(source: str | Path | AnySAE, model: TransformerBridge | None = None, *, sae_id: str | None = None, name: str | None = None,
           texts: Sequence[str] | None = None, progress: bool = True) -> Browsed:
    """Open an SAE, read all of its latents on a corpus and count what chapter 31 counts. Kept on disk: the second call is fast.

    Args:
        source: a folder, a release (with `sae_id`), or an SAE itself.
        model: the bridge that it belongs to; None loads the one that the SAE names.
        name: the hook point, for an SAE that does not say its own.
        texts: the corpus, whole documents; None reads the course's own, 213,000 tokens.

    Raises: SAEError when it cannot be opened, or does not fit the model; FeatureError for texts that are too few, or in which too few latents
    fire; ModelError.
    """
    sae = open_sae(source, sae_id) if isinstance(source, (str, Path)) else source
    model = model if model is not None else _its_model(sae)
    point = check_fits(model, sae, name)
    if texts is None and name is None:
        return _count(model, sae, course_features(model, sae, progress=progress))
    rows = reading_corpus(model) if texts is None else _rows(model, texts)
    return _count(model, sae, collect_features(model, sae, rows, name=point, corpus="your texts", progress=progress))


def _its_model(sae: AnySAE) -> TransformerBridge:
    name = getattr(getattr(sae.cfg, "metadata", sae.cfg), "model_name", None)
    if not name:
        raise SAEError("this SAE does not say on which model it was trained: pass model=load_model(...).")
    try:
        name = get_official_model_name(name)
    except ValueError:  # not one of TransformerLens' list: a name of the hub, of the course, or a folder
        pass
    return load_model(name)


def _rows(model: TransformerBridge, texts: Sequence[str]) -> Int[Tensor, "n context"]:
    """Your texts as contexts of 128 tokens, or of as many as the model holds."""
    if isinstance(texts, str):
        raise FeatureError("texts must be a list of strings; put the single text in a list: [text].")
    for i, text in enumerate(texts):
        if not isinstance(text, str) or not text.strip():
            raise FeatureError(f"text {i} is no text: {text!r}.")
    try:
        return contexts(model, [Document("yours", str(i), text) for i, text in enumerate(texts)], min(128, model.cfg.n_ctx))[0]
    except ValueError as error:  # none, or all too short
        raise FeatureError(str(error)) from error


def _count(model: TransformerBridge, sae: AnySAE, stats: FeatureStats) -> Browsed:
    """The word of every latent's list, and its share in each fifth of the firings."""
    words = words_of(model)
    counted = ((stats.firing_rate * stats.n_tokens >= ENOUGH) & (stats.firing_rate < 0.1) & (stats.top_where[:, N_LISTED - 1, 0] >= 0)).nonzero()[:, 0]
    if len(counted) < MIN_LATENTS:
        raise FeatureError(f"{len(counted)} of {stats.d_sae:,} latents fire {ENOUGH} times or more, in {N_LISTED} contexts or more, on these {stats.n_tokens:,} tokens: "
                           f"at least {MIN_LATENTS} are needed. Give more text.")
    listed = words.at(stats.tokens, stats.top_where[counted, :N_LISTED])
    favourite = listed.mode(1, keepdim=True).values
    in_fifths = words.at(stats.tokens, stats.quantile_where[counted]) == favourite[..., None]
    corpus = words.of_token[stats.tokens[:, 1:].flatten().long()]
    drawn = corpus[torch.randint(len(corpus), (2_000, N_LISTED), generator=torch.Generator().manual_seed(0))]
    return Browsed(model, sae, stats, len(counted), _over_latents((listed == favourite).float().mean(1)), [_over_latents(fifth) for fifth in in_fifths.float().mean(2).T],
                   float((drawn == drawn.mode(1, keepdim=True).values).float().mean()))


def _over_latents(shares: Float[Tensor, " n"]) -> Estimate:
    """Their mean, with its 95% interval over latents."""
    return bootstrap(lambda s: s[0] / s[1], shares, torch.ones(len(shares)))
