"""A latent's page, the map and the excerpts of the feature browser, as HTML that needs no script and no network.

What comes from a text, a tokenizer or a learner is escaped here, at the one place where it becomes HTML.
"""

from __future__ import annotations

import hashlib
import html
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from safetensors import SafetensorError
from transformer_lens.model_bridge import TransformerBridge

from utils.paths import cache_dir, write_cache
from utils.reading.features import FeatureError, FeatureStats
from utils.reading.labels.label import Scored
from utils.sae.model import check_fits, sae_digest

ASSETS = Path(__file__).parent / "assets"
N_SHOWN_TOP, N_SHOWN_PER_QUANTILE, N_SHOWN_SILENT = 10, 3, 4
"""Examples on a page. The rest of what the statistics hold is left for the labelling game."""
BEFORE, AFTER = 14, 8
"""Tokens around the one an excerpt is about."""
LONG_BEFORE, LONG_AFTER = 60, 40
STRONGEST = "Strongest examples"


@cache
def asset(name: str) -> str:
    return (ASSETS / name).read_text(encoding="utf-8")


# --- the map --------------------------------------------------------------------------------------------


def latent_map(sae: torch.nn.Module) -> Float[np.ndarray, "d_sae 2"]:
    """A place for every latent on a square from 0 to 1, neighbours near each other: t-SNE of the decoder rows, by cosine.

    About 8 s for 6,144 latents, once; kept on disk. Distances between far groups mean nothing. Below 50 latents it is a PCA.
    """
    rows = F.normalize(sae.W_dec.detach().float().cpu(), dim=1)
    path = cache_dir() / "features" / f"map-1-{hashlib.sha256(rows.numpy().tobytes()).hexdigest()[:32]}.safetensors"
    try:
        return safetensors.torch.load(path.read_bytes())["map"].numpy()
    except (OSError, KeyError, SafetensorError):
        pass
    centred = rows - rows.mean(0)
    places = (centred @ torch.linalg.svd(centred, full_matrices=False).Vh[:2].T).numpy()
    if len(rows) >= 50:
        if len(rows) >= 1000:
            print(f"Drawing the map of {len(rows):,} latents: some seconds, this once.")
        places = _tsne(rows, places)
    low, high = places.min(0), places.max(0)
    places = ((places - low) / np.maximum(high - low, 1e-12)).astype(np.float32)
    write_cache(path, safetensors.torch.save({"map": torch.from_numpy(places)}))
    return places


def _tsne(rows: Float[torch.Tensor, "n d"], start: Float[np.ndarray, "n 2"], perplexity: int = 15) -> Float[np.ndarray, "n 2"]:
    from scipy.sparse import csr_matrix
    from sklearn.manifold import TSNE

    n, k = len(rows), 3 * perplexity + 2
    near = [(block @ rows.T).topk(k) for block in rows.split(1024)]  # the nearest of each is itself
    distance, index = (1 - torch.cat([x.values for x in near])).clamp(min=0), torch.cat([x.indices for x in near])
    order = distance.argsort(dim=1, stable=True)
    graph = csr_matrix((distance.gather(1, order).numpy().ravel(), index.gather(1, order).numpy().ravel(), np.arange(0, n * k + 1, k)), shape=(n, n))
    return TSNE(perplexity=perplexity, metric="precomputed", init=1e-4 * start / start[:, 0].std(), max_iter=300, random_state=0).fit_transform(graph)


# --- text -----------------------------------------------------------------------------------------------


def vocabulary(model: TransformerBridge) -> list[str]:
    """Every token as text, with the space that it brings along: decoded behind another token, since some tokenizers drop a leading space."""
    decode = model.tokenizer.batch_decode
    anchor = model.tokenizer("a", add_special_tokens=False)["input_ids"][-1]
    n = min(len(model.tokenizer), model.cfg.d_vocab)
    [alone] = decode([[anchor]], clean_up_tokenization_spaces=False)
    return [text.removeprefix(alone) for text in decode([[anchor, i] for i in range(n)], clean_up_tokenization_spaces=False)]


def visible(token: str) -> str:
    """A token on its own, so that one sees where it begins: spaces and line ends as signs."""
    return token.replace(" ", "␣").replace("\n", "⏎").replace("\t", "⇥").replace("\r", "␍")


def running(token: str) -> str:
    """A token inside a text: line ends as signs, spaces as they are."""
    return token.replace("\n", "⏎").replace("\t", "⇥").replace("\r", "")


def shaded(tokens: Sequence[str], values: Sequence[float], largest: float, *, peak: int = -1, asked: int = -1) -> str:
    """Tokens as running text. Those on which the latent fires are marked: colour and underline grow with value / largest.

    Args:
        peak: the token that also gets a frame and bold type.
        asked: the token that gets a dashed frame.
    """
    parts = []
    for i, (token, value) in enumerate(zip(tokens, values)):
        text = html.escape(running(token))
        inside = text.lstrip(" ") or text  # the space before a word stays outside of its mark
        if value > 0:
            share = min(1.0, float(value) / largest)
            text = text.removesuffix(inside) + f'<mark style="--v:{share:.2f}" title="{value:.1f}"{" class=pts-peak" if i == peak else ""}>{inside}</mark>'
        elif i == asked:
            text = text.removesuffix(inside) + f"<span class=pts-asked>{inside}</span>"
        parts.append(text)
    return "".join(parts)


# --- pages ----------------------------------------------------------------------------------------------


class Reader:
    """Makes the pages of one SAE: its statistics, the vocabulary as text, a name for every latent."""

    def __init__(self, model: TransformerBridge, sae: torch.nn.Module, stats: FeatureStats, labels: Mapping[int, Scored] | None = None) -> None:
        """Raises: FeatureError when the statistics belong to another model or SAE; SAEError when the SAE does."""
        if stats.model_name != model.cfg.model_name:
            raise FeatureError(f"these statistics are of {stats.model_name or 'another model'}; the model is {model.cfg.model_name}.")
        check_fits(model, sae, stats.hook_name)
        if sae_digest(sae) != stats.sae_sha256:
            raise FeatureError("these statistics are of another SAE. Collect them for this one: collect_features(model, sae, tokens).")
        self.stats, self.map, self.pieces = stats, latent_map(sae), vocabulary(model)
        self.tokens, self.labels = stats.tokens.numpy(), labels or {}
        self.names = [self._name(latent) for latent in range(stats.d_sae)]

    def _name(self, latent: int) -> tuple[str, int, int]:
        """(the token at most of the strongest examples, at how many, of how many)."""
        where = self.stats.top_where[latent].numpy()
        where = where[where[:, 0] >= 0]
        if not len(where):
            return "", 0, 0
        token, times = Counter(self.tokens[where[:, 0], where[:, 1]].tolist()).most_common(1)[0]
        return self.pieces[token], times, len(where)

    def name(self, latent: int) -> str:
        token, _, n = self.names[latent]
        return visible(token) if n else "(never fires)"

    def chip(self, latent: int, score: str = "") -> str:
        """A button that opens a latent's page."""
        return (f'<button type="button" class="pts-chip" data-latent="{latent}"><b>{latent}</b><span class="pts-tok">{html.escape(self.name(latent))}</span>'
                f'{f"<i>{score}</i>" if score else ""}</button>')

    def chips(self, latents: Iterable[int], scores: Iterable[str]) -> str:
        return f'<div class="pts-chips">{"".join(self.chip(latent, score) for latent, score in zip(latents, scores))}</div>'

    def head(self, latent: int) -> str:
        token, times, n = self.names[latent]
        rate, largest = float(self.stats.firing_rate[latent]), float(self.stats.max_value[latent])
        if not n:
            return (f"<h2>Latent {latent}<small>never fired</small></h2><p>It is silent on all {self.stats.n_tokens:,} tokens of {html.escape(self.stats.corpus or 'this corpus')}. "
                    "There is nothing to read but what it writes.</p>")
        return (f'<h2>Latent {latent}<small><span class="pts-tok">{html.escape(visible(token))}</span> at {times} of its {n} strongest examples</small></h2>'
                f"<p>Fires at {_share(rate)} tokens, {round(rate * self.stats.n_tokens):,} of {self.stats.n_tokens:,}. Largest value {largest:.1f}.</p>{self.label(latent)}")

    def label(self, latent: int) -> str:
        """The label with its score; a weak one says so and looks it."""
        if latent not in self.labels:
            return ""
        label = self.labels[latent]
        return (f'<p class="pts-label{" pts-weak" if label.weak else ""}">{"Weak label" if label.weak else "Label"} <span class="pts-tok">{html.escape(label.rule)}</span>'
                f" <small>{html.escape(label.in_words)}</small></p>")

    def body(self, latent: int, typed: tuple[list[str], np.ndarray] | None = None, *, longer: bool = False) -> str:
        """Everything below the note: histogram, logits, neighbours, examples.

        Args:
            typed: the learner's own text as tokens and this latent's values there, to stand first.
            longer: show more of the text around each example. Short is the rule: a notebook keeps what it shows, and not every corpus may be passed on.
        """
        parts = []
        if typed is not None:
            tokens, values = typed
            largest = max(float(self.stats.max_value[latent]), float(values.max()))
            parts.append(f"<h3>Your text</h3><p>{shaded(tokens[1:], values[1:], largest)}</p>" if values.max() > 0 else "<h3>Your text</h3><p>It does not fire there.</p>")
        figures = [self.logits(latent, "up"), self.logits(latent, "down")]
        if self.names[latent][2]:
            figures.insert(0, self.histogram(latent))
        parts.append(f'<div class="pts-fig">{"".join(figures)}</div>')
        parts += [self._near(latent, "cofiring", "cofiring_score", "Fires at the same tokens", "phi coefficient"),
                  self._near(latent, "similar", "similar_cosine", "Writes in a similar direction", "cosine")]
        width = (LONG_BEFORE, LONG_AFTER) if longer else (BEFORE, AFTER)
        parts += [f"<h3>{title}</h3>{self.examples(latent, where, *width)}" for title, where in self.shown(latent)]
        return "".join(parts)

    def _near(self, latent: int, which: str, score: str, title: str, unit: str) -> str:
        near, scores = getattr(self.stats, which)[latent].tolist(), getattr(self.stats, score)[latent].tolist()
        pairs = [(other, f"{value:.2f}") for other, value in zip(near, scores) if other >= 0]
        chips = self.chips(*zip(*pairs)) if pairs else "<p>None that we saw.</p>"
        return f"<h3>{title}<small>{unit}</small></h3>{chips}"

    def shown(self, latent: int) -> list[tuple[str, Int[np.ndarray, "m 2"]]]:
        """The examples on the page: (title, places) of each group that has any."""
        stats = self.stats
        groups = [(STRONGEST, stats.top_where[latent, :N_SHOWN_TOP])]
        n = stats.quantile_where.shape[1]
        for i in reversed(range(n)):
            title = f"Drawn from percentiles {100 * i // n} to {100 * (i + 1) // n} of its firings"
            groups.append((title, stats.quantile_where[latent, i, :N_SHOWN_PER_QUANTILE]))
        groups.append(("Drawn from where it is silent", stats.silent_where[latent, :N_SHOWN_SILENT]))
        found = [(title, where.numpy()[where[:, 0].numpy() >= 0]) for title, where in groups]
        return [(title, where) for title, where in found if len(where)]

    def values(self, latent: int, contexts: Int[np.ndarray, " m"]) -> Float[np.ndarray, "m pos"]:
        """A latent's value at every token of these contexts."""
        here = self.stats.code_latent[contexts] == latent
        return (self.stats.code_value[contexts].float() * here).sum(-1).numpy()

    def examples(self, latent: int, where: Int[np.ndarray, "m 2"], before: int = BEFORE, after: int = AFTER) -> str:
        """Excerpts around these places: the token in a frame, every token on which the latent fires marked."""
        rows, largest = [], float(self.stats.max_value[latent])
        for (context, position), values in zip(where.tolist(), self.values(latent, where[:, 0])):
            tokens = [self.pieces[i] for i in self.tokens[context].tolist()]
            low, high = max(1, position - before), position + 1 + after
            line = shaded(tokens[low:high], values[low:high], largest, peak=position - low, asked=position - low)
            value = f"{values[position]:.1f}" if values[position] > 0 else "silent"
            rows.append(f'<li><span class="pts-value">{value}</span><span>{"…" if low > 1 else ""}{line}{"…" if high < len(tokens) else ""}</span></li>')
        return f'<ol class="pts-examples">{"".join(rows)}</ol>'

    def histogram(self, latent: int) -> str:
        """How many firings have which value, the counts on a logarithmic scale."""
        counts, edges = self.stats.histogram[latent].numpy(), self.stats.bin_edges[latent].numpy()
        last = int(counts.nonzero()[0].max(initial=0)) + 1
        counts, most = counts[:last], max(int(counts.max()), 1)
        left, top, width, height = 30, 8, 176, 92
        step = width / last
        heights = np.where(counts > 0, np.log1p(counts) / np.log1p(most), 0) * height
        bars = "".join(f"M{left + i * step:.1f} {top + height}v{-h:.1f}h{max(step - 1, 0.6):.1f}v{h:.1f}z" for i, h in enumerate(heights) if h > 0)
        said = f"Histogram of {int(counts.sum()):,} firings by value, from 0 to {edges[last]:.1f}; at most {most:,} in one bar; counts on a logarithmic scale."
        return (f'<svg width="{left + width + 12}" height="{top + height + 34}" role="img" aria-label="{said}"><title>{said}</title>'
                f'<path d="{bars}" fill="#0072B2" stroke="currentColor" stroke-width=".4"/><path d="M{left} {top}v{height}h{width}" fill="none" stroke="currentColor" opacity=".6"/>'
                f'<text x="{left - 4}" y="{top + 9}" text-anchor="end">{most if most < 1000 else f"{most / 1000:.0f}k"}</text><text x="{left - 4}" y="{top + height}" text-anchor="end">0</text>'
                f'<text x="{left}" y="{top + height + 14}" text-anchor="middle">0</text><text x="{left + width}" y="{top + height + 14}" text-anchor="end">{edges[last]:.1f}</text>'
                f'<text x="{left + width / 2}" y="{top + height + 28}" text-anchor="middle">value (tokens, log scale)</text></svg>')

    def logits(self, latent: int, side: str) -> str:
        tokens, logits = getattr(self.stats, f"{side}_tokens")[latent, :8].tolist(), getattr(self.stats, f"{side}_logits")[latent, :8].tolist()
        rows = "".join(f'<tr><td class="pts-tok">{html.escape(visible(self.pieces[token]))}</td><td>{logit:+.2f}</td></tr>'.replace("-", "−")
                       if token < len(self.pieces) else "" for token, logit in zip(tokens, logits))
        return f'<table class="pts-logits"><caption>{"▲ Tokens it raises" if side == "up" else "▼ Tokens it lowers"}</caption>{rows}</table>'

    def dots(self, handlers: str = "") -> str:
        """The map of all latents, without the marks. `handlers` are attributes of the SVG element."""
        return map_svg(self.map, range(self.stats.d_sae), [self.name(latent) for latent in range(self.stats.d_sae)], self.stats.firing_rate.numpy(), handlers)

    def marks(self, latent: int | None, found: Sequence[int] = ()) -> str:
        """What is drawn over the dots: the open latent and its neighbours, and what a search found."""
        shapes = []

        def place(other: int) -> tuple[float, float]:
            return _on_map(self.map[other])

        for other in found[:60]:
            x, y = place(other)
            shapes.append(f'<path d="M{x} {y - 14}l12 21h-24z" class="pts-found"/>')
        if latent is not None:
            for other in self.stats.similar[latent].tolist():
                if other >= 0:
                    x, y = place(other)
                    shapes.append(f'<circle cx="{x}" cy="{y}" r="12" class="pts-near"/>')
            for other in self.stats.cofiring[latent].tolist():
                if other >= 0:
                    x, y = place(other)
                    shapes.append(f'<path d="M{x - 11} {y - 11}h22v22h-22z" class="pts-near"/>')
            x, y = place(latent)
            shapes.append(f'<path class="pts-here" d="M{x - 34} {y}h20M{x + 14} {y}h20M{x} {y - 34}v20M{x} {y + 14}v20"/><circle class="pts-here-dot" cx="{x}" cy="{y}" r="9"/>')
        here = "" if latent is None else f' data-here="{latent}"'
        return f'<div class="pts"><svg class="pts-marks" viewBox="0 0 1000 1000"{here} aria-hidden="true">{"".join(shapes)}</svg></div>'


def map_svg(places: Float[np.ndarray, "n 2"], numbers: Sequence[int], names: Sequence[str], rate: Float[np.ndarray, " n"], handlers: str) -> str:
    """The dots of the map; the more often a latent fires, the larger. What the script needs stands in data attributes."""
    points = [_on_map(place) for place in places]
    groups = [(rate == 0, 4, 0.2), ((rate > 0) & (rate < 1e-3), 6, 0.3), ((rate >= 1e-3) & (rate < 1e-2), 9, 0.35), (rate >= 1e-2, 14, 0.45)]
    paths = "".join(f'<path stroke-width="{size}" opacity="{opacity}" d="{"".join(f"M{x} {y}h0" for (x, y), inside in zip(points, group) if inside)}"/>'
                    for group, size, opacity in groups if group.any())
    xy, shown = " ".join(f"{x} {y}" for x, y in points), html.escape("\n".join(name.replace("\n", " ") for name in names))
    return (f'<svg class="pts-dots" viewBox="0 0 1000 1000" tabindex="0" role="application" aria-label="Map of {len(points)} latents. Arrow keys move from one to the next, Enter opens it." '
            f'data-xy="{xy}" data-numbers="{" ".join(map(str, numbers))}" data-names="{shown}" {handlers}>{paths}'
            '<circle class="pts-cursor" r="16" fill="none" stroke="#D55E00" stroke-width="5" visibility="hidden"/></svg>')


def _on_map(place: Float[np.ndarray, "2"]) -> tuple[int, int]:
    return round(25 + 950 * float(place[0])), round(25 + 950 * float(place[1]))


def _share(rate: float) -> str:
    return f"1 in {1 / rate:,.0f}" if 0 < rate < 0.02 else f"{rate:.0%} of"
