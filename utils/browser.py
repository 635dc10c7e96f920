"""Reading latents in a notebook: the feature browser, the labelling game, and the browser as one file to hand on.

Everything works without a network. The pages are plain HTML inside ipywidgets. A click on a latent or on the map
travels through a hidden text field, which every front end that knows ipywidgets has: no extension is needed.
"""

from __future__ import annotations

import html
import json
import re
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import ipywidgets as widgets
import numpy as np
import torch
import torch.nn.functional as F
from filelock import FileLock
from jaxtyping import Bool, Float, Int
from transformer_lens.model_bridge import TransformerBridge

from utils.browser_export import export_html
from utils.browser_page import AFTER, BEFORE, Reader, asset, shaded, visible
from utils.features import FeatureError, FeatureStats, find_latents, latents_of
from utils.hooks import HookNameError
from utils.paths import ROOT, atomic_write
from utils.sae_metrics import Estimate

__all__ = ["FeatureBrowser", "LabellingGame", "Notes", "best_token_rule", "detection_score", "export_html"]

_OPEN = """latent => { const bridge = {here}.closest(".pts-browser").querySelector(".pts-bridge input");
    bridge.value = latent + " " + Date.now(); bridge.dispatchEvent(new Event("input", {bubbles: true})); }"""
# Keys pressed inside are not for the notebook, which would take Enter and the arrows as commands.
_OWN_KEYS = 'data-lm-suppress-shortcuts="true"'
_MOST_FOUND = 60
_LATENTS_PER_TOKEN = 8
_RULE_EXCERPTS = 300
"""Excerpts of each kind on which the single-token rule of the labelling game is found."""


def _clickable(content: str, attributes: str = "") -> str:
    """HTML in which a button with data-latent opens that latent's page."""
    script = f'const chip = event.target.closest("[data-latent]"); if (chip) ({_OPEN.replace("{here}", "this")})(chip.dataset.latent)'
    return f'<div class="pts" {_OWN_KEYS} {attributes} onclick="{html.escape(script)}">{content}</div>'


def _message(text: str, kind: str) -> str:
    return f'<div class="pts pts-{kind}" role="status">{html.escape(text)}</div>' if text else ""


# --- notes ----------------------------------------------------------------------------------------------


class Notes:
    """A learner's notes on the latents of one SAE: a JSON file that is written whole after every change.

    Two notebooks may write the same file: each change touches one latent's note and keeps the others as they are on disk.
    A file that cannot be read is set aside under another name, never overwritten.
    """

    def __init__(self, path: Path, sae_sha256: str) -> None:
        """Raises: FeatureError when the file holds notes on another SAE."""
        self.path, self.sae_sha256, self.said = Path(path), sae_sha256, ""
        self._unsaved: dict[str, str] = {}
        self._notes = self._read()

    def __getitem__(self, latent: int) -> str:
        return self._notes.get(str(latent), "")

    def __iter__(self) -> Iterator[int]:
        """The latents with a note."""
        return (int(latent) for latent, text in self._notes.items() if text.strip())

    def __setitem__(self, latent: int, text: str) -> None:
        """Keep a note, on disk too.

        Raises: OSError, FeatureError when it cannot be written there; it stays in memory, and the next change writes it too.
        """
        self._notes[str(latent)] = self._unsaved[str(latent)] = text
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{self.path}.lock", timeout=5):
            self._notes = {**self._read(), **self._unsaved}
            ordered = {key: self._notes[key] for key in sorted(self._notes, key=int)}
            atomic_write(self.path, json.dumps({"sae_sha256": self.sae_sha256, "notes": ordered}, ensure_ascii=False, indent=1))
        self._unsaved = {}

    def _read(self) -> dict[str, str]:
        try:
            stored = json.loads(self.path.read_text(encoding="utf-8"))
            owner, notes = stored["sae_sha256"], {str(int(key)): str(text) for key, text in stored["notes"].items()}
        except FileNotFoundError:
            return {}
        except (ValueError, KeyError, TypeError, AttributeError):
            aside = self.path.with_name(f"{self.path.name}.damaged-{time.strftime('%Y%m%d-%H%M%S')}")
            self.path.replace(aside)
            self.said = f"The file of notes could not be read. It is kept as {aside.name}, and a new one begins."
            return {}
        if owner != self.sae_sha256:
            raise FeatureError(f"{self.path.name} holds notes on the latents of another SAE: name another file with notes=, these are left as they are.")
        return notes


# --- the browser ----------------------------------------------------------------------------------------


class FeatureBrowser(widgets.VBox):
    """Look at the latents of an SAE: by number, by token, by what fires on a text of yours, by similarity, on a map.

    Put it on the last line of a cell. Notes are saved as they are typed.
    """

    def __init__(self, model: TransformerBridge, sae: torch.nn.Module, stats: FeatureStats, *, notes: Path | None = None) -> None:
        """
        Args:
            stats: of this model and this SAE, from `collect_features`.
            notes: where the notes are kept; None is feature_notes.json in the folder of the course.

        Raises: FeatureError when model, SAE, statistics and notes do not belong together.
        """
        self.model, self.sae, self.stats = model, sae, stats
        self.reader = Reader(model, sae, stats)
        self.notes = Notes(notes or ROOT / "feature_notes.json", stats.sae_sha256)
        self.latent: int | None = None
        self._history: list[int] = []
        self._typed: tuple[str, list[str], np.ndarray, np.ndarray] | None = None
        self._found: list[int] = []
        self._rows = F.normalize(sae.W_dec.detach().float().cpu(), dim=1)

        self._mode = widgets.ToggleButtons(options=[("latent number", "number"), ("token", "token"), ("your text", "text"), ("similar to latent", "similar")],
                                           tooltips=["Open a latent", "Latents whose strongest examples lie on a token", "What fires on a sentence", "Decoder rows that point the same way"],
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
        handler = html.escape(f"({asset('feature_map.js')})(event, this, {_OPEN.replace('{here}', 'this')})")
        handlers = " ".join(f'{event}="{handler}"' for event in ("onclick", "onmousemove", "onmouseleave", "onkeydown"))
        dots = widgets.HTML(f'<div class="pts" {_OWN_KEYS}>{self.reader.dots(handlers)}</div>')
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
        self._body.value = _clickable(self.reader.body(latent, typed, longer=self._longer.value), f'data-page="{latent}"')
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
            self._saved.value = _message(f"Not saved on disk: {error} The note stays here; the next change tries again.", "bad")

    def _clicked(self, change: dict) -> None:
        found = re.match(r"\d+", change["new"])
        if found:
            self.show(int(found[0]))

    def _mode_chosen(self, change: dict | None = None) -> None:
        n = self.stats.d_sae - 1
        self._query.placeholder = {"number": f"A number from 0 to {n}, then Enter", "token": "A word, or a part of one, such as: not", "text": "A sentence of your own",
                                   "similar": f"The number of a latent, from 0 to {n}"}[self._mode.value]

    def _tell(self, text: str, kind: str = "bad") -> None:
        self._say.value = _message(text, kind)

    def _run(self) -> None:
        """Do the search that stands in the field; what goes wrong is said above the page, which stays."""
        query = self._query.value.strip()
        self._tell("")
        try:
            if not query:
                raise FeatureError("There is nothing to search for: type something first.")
            {"number": self._by_number, "token": self._by_token, "text": self._by_text, "similar": self._by_similarity}[self._mode.value](query)
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

    def _show_found(self, title: str, found: Sequence[tuple[int, str]]) -> None:
        self._found = [latent for latent, _ in found]
        self._results.value = _clickable(f'<div class="pts-scroll"><p>{html.escape(title)}</p>{self.reader.chips(*zip(*found)) if found else ""}</div>')
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
        self._results.value = _clickable(f'<div class="pts-scroll"><p>What fires at each token of your text, strongest first. The number is the value.</p><table class="pts-typed">{"".join(rows)}</table></div>')
        self.show(self.latent)


# --- the labelling game ---------------------------------------------------------------------------------


def detection_score(said: Bool[np.ndarray, " n"], truth: Bool[np.ndarray, " n"]) -> Estimate:
    """Balanced accuracy of detection: the mean of (share of the firing excerpts called firing) and (share of the silent ones called silent).

    The 95% interval has 20 excerpts in mind: each share is drawn from its Jeffreys posterior, so that a perfect score has an interval too.

    Raises: ValueError when the lengths differ or one of the two kinds is missing.
    """
    said, truth = np.asarray(said, bool), np.asarray(truth, bool)
    if said.shape != truth.shape or not truth.any() or truth.all():
        raise ValueError("detection needs one answer for each excerpt, and excerpts of both kinds.")
    rng = np.random.default_rng(0)
    value, draws = 0.0, np.zeros(20_000)
    for kind in (True, False):
        n, right = int((truth == kind).sum()), int((said[truth == kind] == kind).sum())
        value += right / n / 2
        draws += rng.beta(right + 0.5, n - right + 0.5, len(draws)) / 2
    low, high = np.quantile(draws, [0.025, 0.975])
    return Estimate(value, min(float(low), value), max(float(high), value))


def best_token_rule(windows: Sequence[Int[np.ndarray, " window"]], truth: Bool[np.ndarray, " n"]) -> int:
    """The token for which "it fires where this token stands" has the best balanced accuracy on these excerpts.

    Raises: ValueError when one of the two kinds is missing.
    """
    truth = np.asarray(truth, bool)
    if not truth.any() or truth.all():
        raise ValueError("a rule is chosen on excerpts of both kinds.")
    tokens = np.unique(np.concatenate(windows))
    inside = np.stack([np.isin(tokens, window) for window in windows])
    return int(tokens[(inside[truth].mean(0) - inside[~truth].mean(0)).argmax()])


class LabellingGame(widgets.VBox):
    """Write what makes a latent fire, then say for excerpts that its page did not show whether it fires there.

    Half of the excerpts hold a firing, half hold none. The score is balanced accuracy, beside that of the best rule that
    looks for one token (chosen on other excerpts) and beside chance, 0.5.

    Attributes:
        label: what was written, once the game has begun.
        score, rule_score: the learner's and the rule's, once it is over (None before).
        rule: the rule's token.
    """

    def __init__(self, model: TransformerBridge, sae: torch.nn.Module, stats: FeatureStats, latent: int, *, n: int = 20, seed: int = 0) -> None:
        """
        Args:
            n: excerpts, half of each kind; fewer when the latent fires in fewer contexts that the page does not show.

        Raises: FeatureError for an unknown latent, one that never fired, fires in fewer than 3 such contexts or nearly everywhere.
        """
        self.reader, self.latent = Reader(model, sae, stats), stats.check(latent, alive=True)
        self.label, self.score, self.rule_score, self.rule = "", None, None, ""
        self._draw(n, seed)
        self._said: list[bool] = []
        self._text = widgets.Text(placeholder="It fires on ...", layout={"flex": "1 1 300px", "width": "auto"})
        self._start = widgets.Button(description="Begin", button_style="primary", layout={"width": "auto"})
        self._yes, self._no = (widgets.Button(description=text, layout={"width": "auto"}) for text in ("My label says: it fires here", "My label says: it is silent"))
        self._say, self._screen = widgets.HTML(), widgets.HTML()
        self._answers = widgets.HBox([self._yes, self._no], layout={"display": "none"})
        self._start.on_click(lambda button: self._begin())
        self._yes.on_click(lambda button: self._answer(True))
        self._no.on_click(lambda button: self._answer(False))
        style = widgets.HTML(f"<style>{asset('feature_browser.css')}</style>", layout={"display": "none"})
        super().__init__([style, widgets.HBox([self._text, self._start], layout={"flex_flow": "row wrap"}), self._say, self._screen, self._answers])
        self.add_class("pts-root").add_class("pts-game")
        self._screen.value = (f'<div class="pts"><p>The labelling game, latent {self.latent}. Write in one line what makes it fire. Then {len(self.truth)} excerpts come that its page did not show: '
                              f"half with a firing, half without. Go by your label alone.</p></div>")

    def _draw(self, n: int, seed: int) -> None:
        """Choose the excerpts of the game, and others on which the single-token rule is found."""
        reader, stats, rng = self.reader, self.reader.stats, np.random.default_rng([seed, self.latent])
        n_contexts, pos = reader.tokens.shape
        seen = {context for _, where in reader.shown(self.latent) for context in where[:, 0].tolist()}
        held = ((stats.code_latent == self.latent) & (stats.code_value > 0)).any(-1).numpy()
        fires = [place for place in _one_per_context(rng.permutation(np.argwhere(held))) if place[0] not in seen]
        if len(fires) < 3:
            raise FeatureError(f"latent {self.latent} fires in {len(fires)} contexts that its page does not show: too few to test a label. Choose one that fires more often.")
        asked = fires[: n // 2]
        used = seen | {context for context, _ in asked}
        places = [(context, int(rng.integers(1, pos))) for context in rng.permutation(n_contexts).tolist() if context not in used]
        silent = [(context, position) for context, position in places if not held[context, self._span(position)].any()]
        if len(silent) <= len(asked):
            raise FeatureError(f"latent {self.latent} fires nearly everywhere: there are too few excerpts without it. Choose another one.")
        order = rng.permutation(2 * len(asked))
        self.places = np.array(asked + silent[: len(asked)])[order]
        self.truth = (np.arange(2 * len(asked)) < len(asked))[order]
        # The rule is found on all other excerpts, those of the page among them: nobody is asked about these.
        rest = set(self.places[:, 0].tolist())
        known = [place for place in _one_per_context(rng.permutation(np.argwhere(held))) if place[0] not in rest][:_RULE_EXCERPTS]
        quiet = silent[len(asked) :][:_RULE_EXCERPTS]
        rule = best_token_rule([self._window(*place) for place in [*known, *quiet]], np.arange(len(known) + len(quiet)) < len(known))
        self.rule = reader.pieces[rule]
        self._rule_said = np.array([rule in self._window(*place) for place in self.places.tolist()])

    def _span(self, position: int) -> slice:
        return slice(max(1, position - BEFORE), position + 1 + AFTER)

    def _window(self, context: int, position: int) -> Int[np.ndarray, " window"]:
        return self.reader.tokens[context, self._span(position)]

    def _values(self, context: int, position: int) -> Float[np.ndarray, " window"]:
        return self.reader.values(self.latent, np.array([context]))[0, self._span(position)]

    def _begin(self) -> None:
        if not self._text.value.strip():
            self._say.value = _message("Write a label first: what makes this latent fire?", "bad")
            return
        self.label, self._say.value = self._text.value.strip(), ""
        self._text.disabled = self._start.disabled = True
        self._answers.layout.display = ""
        self._ask()

    def _excerpt(self, i: int, *, answer: bool) -> str:
        context, position = self.places[i].tolist()
        tokens = [self.reader.pieces[token] for token in self._window(context, position).tolist()]
        values = self._values(context, position) if answer else np.zeros(len(tokens))
        return shaded(tokens, values, float(self.reader.stats.max_value[self.latent]))

    def _ask(self) -> None:
        i = len(self._said)
        self._screen.value = (f'<div class="pts"><h3>Excerpt {i + 1} of {len(self.truth)}<small>label: {html.escape(self.label)}</small></h3>'
                              f'<div class="pts-excerpt">… {self._excerpt(i, answer=False)} …</div></div>')

    def _answer(self, fires: bool) -> None:
        if not self.label or len(self._said) == len(self.truth):
            return
        self._said.append(fires)
        if len(self._said) < len(self.truth):
            self._ask()
            return
        self._answers.layout.display = "none"
        self.score = detection_score(np.array(self._said), self.truth)
        self.rule_score = detection_score(self._rule_said, self.truth)
        self._screen.value = self._result()

    def _result(self) -> str:
        score, rule = self.score, self.rule_score
        above = "above chance" if score.low > 0.5 else "below chance" if score.high < 0.5 else "not told apart from chance by this many excerpts"
        against = "more than" if score.value > rule.value else "as much as" if score.value == rule.value else "less than"
        bars = "".join(f'<span>{name}</span>{_bar(value)}<span>{text}</span>' for name, value, text in (
            ("your label", score, str(score)), (f'the token <span class="pts-tok">{html.escape(visible(self.rule))}</span>', rule, str(rule)), ("chance", None, "0.500")))
        wrong = [i for i, said in enumerate(self._said) if said != self.truth[i]]
        right = [i for i in range(len(self.truth)) if i not in wrong]

        def rows(which: list[int]) -> str:
            return "".join(f'<li><span class="pts-value">{"fires" if self.truth[i] else "silent"}</span><span>{self._excerpt(i, answer=True)}</span></li>' for i in which)

        missed = f'<h3>Where the label was wrong ({len(wrong)})</h3><ol class="pts-examples">{rows(wrong)}</ol>' if wrong else "<h3>The label was right every time</h3>"
        return (f'<div class="pts" role="status"><h2>{score.value:.2f}<small>balanced accuracy of “{html.escape(self.label)}”</small></h2>'
                f"<p>That is {above}, and {against} the best rule of one token gets on the same excerpts.</p>"
                f'<div class="pts-bars">{bars}</div>{missed}<details><summary>Where it was right ({len(right)})</summary><ol class="pts-examples">{rows(right)}</ol></details></div>')


def _one_per_context(places: Int[np.ndarray, "m 2"]) -> list[tuple[int, int]]:
    """The first place of each context, in the order given."""
    found: dict[int, int] = {}
    for context, position in places.tolist():
        found.setdefault(context, position)
    return list(found.items())


def _bar(score: Estimate | None) -> str:
    """A score from 0 to 1 as a bar with its interval; chance as a line at a half in all of them."""
    line = '<path d="M50 0v18" stroke="currentColor" stroke-width="1.5" stroke-dasharray="3 3" vector-effect="non-scaling-stroke"/>'
    if score is not None:
        low, high = 100 * score.low, 100 * score.high
        line = (f'<rect width="{100 * score.value:.1f}" height="12" y="3" fill="#0072B2" opacity=".6"/>{line}'
                f'<path d="M{low:.1f} 5v8M{low:.1f} 9H{high:.1f}M{high:.1f} 5v8" fill="none" stroke="currentColor" stroke-width="2" vector-effect="non-scaling-stroke"/>')
    return f'<svg viewBox="0 0 100 18" preserveAspectRatio="none" aria-hidden="true">{line}</svg>'
