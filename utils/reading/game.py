"""The labelling game: write a label, then be scored by what you can tell with it."""

from __future__ import annotations

import html
from collections.abc import Sequence

import ipywidgets as widgets
import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from transformer_lens.model_bridge import TransformerBridge

from utils.reading.clicks import message
from utils.reading.features import FeatureError, FeatureStats
from utils.reading.page import AFTER, BEFORE, Reader, asset, shaded, visible
from utils.intervals import Estimate

_RULE_EXCERPTS = 300
"""Excerpts of each kind on which the single-token rule of the labelling game is found."""


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
            self._say.value = message("Write a label first: what makes this latent fire?", "bad")
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
