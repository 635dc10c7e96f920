"""Reading latents in a notebook: the feature browser, the labelling game, and the browser as one file to hand on.

Everything works without a network. The pages are plain HTML inside ipywidgets. A click on a latent or on the map
travels through a hidden text field, which every front end that knows ipywidgets has: no extension is needed.
"""

from __future__ import annotations

import html
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import ipywidgets as widgets
import numpy as np
import torch
import torch.nn.functional as F
from transformer_lens.model_bridge import TransformerBridge

from utils.hooks import HookNameError
from utils.paths import ROOT
from utils.reading.clicks import OPEN, OWN_KEYS, clickable, message
from utils.reading.features import FeatureError, FeatureStats
from utils.reading.labels.label import Scored, labels_saying
from utils.reading.looking import find_latents, latents_of
from utils.reading.notes import Notes
from utils.reading.page import Reader, asset, visible

_MOST_FOUND = 60
_LATENTS_PER_TOKEN = 8


class FeatureBrowser(widgets.VBox):
    """Look at the latents of an SAE: by number, by token, by what fires on a text of yours, by similarity, by label, on a map.

    Put it on the last line of a cell. Notes are saved as they are typed.
    """

    def __init__(self, model: TransformerBridge, sae: torch.nn.Module, stats: FeatureStats, *, notes: Path | None = None, labels: Mapping[int, Scored] | None = None) -> None:
        """
        Args:
            stats: of this model and this SAE, from `collect_features`.
            notes: where the notes are kept; None is feature_notes.json in the folder of the course.
            labels: by latent, as `utils.reading.labels.shipped.course_labels` reads those of the course SAE.

        Raises: FeatureError when model, SAE, statistics and notes do not belong together.
        """
        self.model, self.sae, self.stats = model, sae, stats
        self.reader = Reader(model, sae, stats, labels)
        self.notes = Notes(notes or ROOT / "feature_notes.json", stats.sae_sha256)
        self.latent: int | None = None
        self._history: list[int] = []
        self._typed: tuple[str, list[str], np.ndarray, np.ndarray] | None = None
        self._found: list[int] = []
        self._rows = F.normalize(sae.W_dec.detach().float().cpu(), dim=1)

        modes = [("latent number", "number"), ("token", "token"), ("your text", "text"), ("similar to latent", "similar"), ("label", "label")]
        self._mode = widgets.ToggleButtons(options=modes if labels else modes[:-1],
                                           tooltips=["Open a latent", "Latents whose strongest examples lie on a token", "What fires on a sentence", "Decoder rows that point the same way", "Latents whose label says it"],
                                           style={"button_width": "auto"}, layout={"width": "auto"})
        self._query = widgets.Text(continuous_update=False, layout={"flex": "1 1 240px", "width": "auto"})
        self._search = widgets.Button(description="Search", icon="search", layout={"width": "90px"})
        self._back, before, after, chance = (widgets.Button(description=text, tooltip=tip, layout={"width": "auto"}) for text, tip in (
            ("← Back", "The page before this one"), ("Previous", "The latent before this one"), ("Next", "The latent after this one"), ("Random", "A latent that fires, drawn at random")))
        self._longer = widgets.ToggleButton(description="Longer excerpts", layout={"width": "auto"})
        self._longer.observe(lambda change: self.show(self.latent), names="value")
        self._say, self._results, self._head, self._body, self._marks, self._saved = (widgets.HTML() for _ in range(6))
        self._note_box = widgets.VBox()
        self._note_fields: dict[int, widgets.Textarea] = {}
        bridge = widgets.Text(layout={"display": "none"}).add_class("pts-bridge")
        bridge.observe(self._clicked, names="value")
        self._mode.observe(self._mode_chosen, names="value")
        self._query.observe(lambda change: self._run(), names="value")
        self._search.on_click(lambda button: self._run())
        self._back.on_click(lambda button: self._go_back())
        before.on_click(lambda button: self.show((self.latent - 1) % stats.d_sae))
        after.on_click(lambda button: self.show((self.latent + 1) % stats.d_sae))
        self._alive = np.flatnonzero(stats.firing_rate.numpy() > 0)
        self._rng = np.random.default_rng(0)
        chance.disabled = not len(self._alive)
        chance.on_click(lambda button: self.show(int(self._rng.choice(self._alive))))

        right = widgets.VBox([widgets.HBox([self._back, before, after, chance, self._longer], layout={"flex_flow": "row wrap"}), self._head, self._note_box, self._saved, self._body],
                             layout={"flex": "1 1 440px", "min_width": "0", "width": "auto"})
        style = widgets.HTML(f"<style>{asset('feature_browser.css')}</style>", layout={"display": "none"})
        super().__init__([
            style, bridge,
            widgets.HBox([self._mode, self._query, self._search], layout={"flex_flow": "row wrap", "align_items": "center"}),
            self._say, self._results, widgets.HBox([self._map(), right], layout={"flex_flow": "row wrap", "align_items": "flex-start"}),
        ])
        self.add_class("pts-root").add_class("pts-browser")
        self._mode_chosen()
        self._tell(self.notes.said, "say")
        self.show(int(self._alive[0]) if len(self._alive) else 0)

    def _map(self) -> widgets.VBox:
        """The map of all latents, sent once, with the marks in a layer of their own above it."""
        handler = html.escape(f"({asset('feature_map.js')})(event, this, {OPEN.replace('{here}', 'this')})")
        handlers = " ".join(f'{event}="{handler}"' for event in ("onclick", "onmousemove", "onmouseleave", "onkeydown"))
        dots = widgets.HTML(f'<div class="pts" {OWN_KEYS}>{self.reader.dots(handlers)}</div>')
        key = widgets.HTML('<div class="pts pts-key"><div class="pts-hover" role="status"></div>Every dot is a latent; the larger, the more often it fires. Near dots write in similar directions, '
                           "far ones may do so too. Cross: this latent. Rings: similar. Squares: fire together. Triangles: found.</div>")
        box = widgets.Box([dots, self._marks.add_class("pts-over")]).add_class("pts-mapbox")
        return widgets.VBox([box, key], layout={"width": "290px", "flex": "0 0 auto", "overflow": "visible"})

    def show(self, latent: int) -> None:
        """Show a latent's page. Raises: FeatureError for a latent that does not exist."""
        latent = self.stats.check(latent)
        if self.latent not in (None, latent):
            self._history.append(self.latent)
        self.latent = latent
        self._back.disabled = not self._history
        self._head.value = f'<div class="pts">{self.reader.head(latent)}</div>'
        self._note_box.children = [self._note_field(latent)]
        self._saved.value = ""
        typed = None
        if self._typed:
            _, tokens, values, latents = self._typed
            typed = tokens, np.where(latents == latent, values, 0).sum(1)
        self._body.value = clickable(self.reader.body(latent, typed, longer=self._longer.value), f'data-page="{latent}"')
        self._marks.value = self.reader.marks(latent, self._found)

    def _repr_mimebundle_(self, **kwargs: object) -> dict[str, object]:
        """Where no kernel runs, as on a web page that shows the notebook, the page that was open stands as plain HTML."""
        page = f'<style>{asset("feature_browser.css")}</style><div class="pts">{self.reader.head(self.latent)}{self.reader.body(self.latent)}</div>'
        return {**super()._repr_mimebundle_(**kwargs), "text/plain": f"Feature browser, latent {self.latent}: run this cell to use it.", "text/html": page}

    def _go_back(self) -> None:
        if self._history:
            self.show(self._history.pop())
            self._history.pop()
            self._back.disabled = not self._history

    def _note_field(self, latent: int) -> widgets.Textarea:
        """One field for each latent: what was typed in it can arrive after another page was opened, and still is this latent's note."""
        if latent not in self._note_fields:
            field = widgets.Textarea(self.notes[latent], placeholder=f"Your note on latent {latent}: what makes it fire? Saved as you type.", rows=2, layout={"width": "auto"})
            field.observe(lambda change: self._note(latent, change["new"]), names="value")
            self._note_fields[latent] = field
        return self._note_fields[latent]

    def _note(self, latent: int, text: str) -> None:
        try:
            self.notes[latent] = text
            said = f"Note on latent {latent} saved in {self.notes.path.name}."
            self._saved.value = f'<div class="pts pts-key" role="status">{html.escape(said)}</div>'
        except (OSError, FeatureError) as error:
            self._saved.value = message(f"Not saved on disk: {error} The note stays here; the next change tries again.", "bad")

    def _clicked(self, change: dict) -> None:
        found = re.match(r"\d+", change["new"])
        if found:
            self.show(int(found[0]))

    def _mode_chosen(self, change: dict | None = None) -> None:
        n = self.stats.d_sae - 1
        self._query.placeholder = {"number": f"A number from 0 to {n}, then Enter", "token": "A word, or a part of one, such as: not", "text": "A sentence of your own",
                                   "similar": f"The number of a latent, from 0 to {n}", "label": "A word, or a part of a label"}[self._mode.value]

    def _tell(self, text: str, kind: str = "bad") -> None:
        self._say.value = message(text, kind)

    def _run(self) -> None:
        """Do the search that stands in the field; what goes wrong is said above the page, which stays."""
        query = self._query.value.strip()
        self._tell("")
        try:
            if not query:
                raise FeatureError("There is nothing to search for: type something first.")
            {"number": self._by_number, "token": self._by_token, "text": self._by_text, "similar": self._by_similarity, "label": self._by_label}[self._mode.value](query)
        except (FeatureError, HookNameError, ValueError) as error:
            self._tell(str(error)[:1].upper() + str(error)[1:])

    def _number(self, query: str) -> int:
        found = re.fullmatch(r"(?:latent|#)?\s*(\d{1,9})", query, re.IGNORECASE)
        if not found:
            raise FeatureError(f"“{query}” is no number of a latent: type one from 0 to {self.stats.d_sae - 1}, or choose another kind of search.")
        return self.stats.check(int(found[1]))

    def _by_number(self, query: str) -> None:
        self.show(self._number(query))

    def _by_token(self, query: str) -> None:
        found = find_latents(self.stats, self.model, query)
        more = f", the first {_MOST_FOUND} of them here" if len(found) > _MOST_FOUND else ""
        self._show_found(f"{len(found)} latents have their strongest examples on “{query}”{more}. The number is the share of these examples.",
                         [(latent, f"{share:.0%}") for latent, share in found[:_MOST_FOUND]])

    def _by_similarity(self, query: str) -> None:
        latent = self._number(query)
        cosine = self._rows @ self._rows[latent]
        cosine[latent] = -1
        best = cosine.topk(min(30, len(cosine) - 1))
        self._show_found(f"The decoder rows nearest to that of latent {latent}, by cosine.", [(other, f"{value:.2f}") for other, value in zip(best.indices.tolist(), best.values.tolist())])

    def _by_label(self, query: str) -> None:
        labels, found = self.reader.labels, labels_saying(self.reader.labels, query)
        more = f", the best {_MOST_FOUND} of them here" if len(found) > _MOST_FOUND else ""
        self._show_found(f"The labels of {len(found)} latents say “{query}”{more}. The number is the label's score; chance is 0.50.",
                         [(latent, labels[latent].score) for latent in found[:_MOST_FOUND]])

    def _show_found(self, title: str, found: Sequence[tuple[int, str]]) -> None:
        self._found = [latent for latent, _ in found]
        self._results.value = clickable(f'<div class="pts-scroll"><p>{html.escape(title)}</p>{self.reader.chips(*zip(*found)) if found else ""}</div>')
        self._marks.value = self.reader.marks(self.latent, self._found)

    def _by_text(self, query: str) -> None:
        if self._typed is None or self._typed[0] != query:
            tokens, values, latents = latents_of(self.model, self.sae, query, name=self.stats.hook_name)
            self._typed = query, tokens, values.numpy(), latents.numpy()
        _, tokens, values, latents = self._typed
        rows = []
        for token, row_values, row_latents in zip(tokens[1:], values[1:], latents[1:]):
            n = int((row_values > 0).sum())
            chips = [self.reader.chip(int(latent), f"{value:.1f}") for latent, value in zip(row_latents[:min(n, _LATENTS_PER_TOKEN)], row_values)]
            rest = f"<i>and {n - len(chips)} weaker</i>" if n > len(chips) else "" if n else "<i>left out: a token of unusual norm</i>"
            rows.append(f'<tr><td class="pts-tok">{html.escape(visible(token))}</td><td><div class="pts-chips">{"".join(chips)}{rest}</div></td></tr>')
        self._found = sorted(set(latents[values[:, 0] > 0, 0].tolist()))  # the strongest of each token
        self._results.value = clickable(f'<div class="pts-scroll"><p>What fires at each token of your text, strongest first. The number is the value.</p><table class="pts-typed">{"".join(rows)}</table></div>')
        self.show(self.latent)
