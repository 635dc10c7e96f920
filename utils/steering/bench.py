"""A steering bench for the notebook: pick a direction, a layer and a strength; read plain and steered text side by side.

Every run leaves a point in the plot, effect against cost, so that a learner sees at which strength the price goes up.
It needs ipywidgets and no network; what is drawn is HTML and SVG, readable on a light and on a dark page.
"""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import ipywidgets as widgets
import torch
from jaxtyping import Float
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from utils.hooks import HookNameError, InterventionError, resid_post
from utils.plots import PALETTE
from utils.intervals import Estimate
from utils.steering.generating import generate
from utils.steering.reach import SteeringError
from utils.steering.scoring import Score, distinct_n, perplexity
from utils.steering.steering import steer, usual_norm

_SHOWN = 6
"""How many prompts are shown with their texts; all of them are scored."""
_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP, _RIGHT = 620, 330, 64, 48, 26, 20
_STYLE = """<style>
.pts-bench { font: 13px/1.45 system-ui, sans-serif; color: var(--jp-ui-font-color1, #222); }
.pts-bench table { border-collapse: collapse; width: 100%; table-layout: fixed; }
.pts-bench th, .pts-bench td { text-align: left; vertical-align: top; padding: 6px 10px; border-bottom: 1px solid var(--jp-border-color2, #ccc);
  background: transparent; white-space: pre-wrap; overflow-wrap: anywhere; color: inherit; }
.pts-bench .pts-prompt { opacity: 0.75; }
.pts-bench .pts-problem { border-left: 4px solid #D55E00; padding: 6px 10px; }
.pts-bench svg text { fill: currentColor; font: 12px system-ui, sans-serif; }
</style>"""


@dataclass(frozen=True)
class BenchPoint:
    """One run of the bench.

    Attributes:
        label: direction, layer and strength in words; "plain" for the model as it is.
        effect: what the scorer says of the texts, with its 95% interval.
        cost: their perplexity under the plain model.
        distinct: the share of different word pairs.
        texts: what was written, one text per prompt.
    """

    label: str
    effect: Estimate
    cost: Estimate
    distinct: float
    texts: list[str]

    def __str__(self) -> str:
        return f"{self.label}: effect {self.effect}, perplexity {self.cost.value:.1f} [{self.cost.low:.1f}, {self.cost.high:.1f}], distinct pairs {self.distinct:.2f}"


class SteeringBench(widgets.VBox):
    """The widget. Show it by making it the last line of a cell; `points` keeps every run.

    >>> bench = SteeringBench(model, {"happy": {13: direction}}, prompts, effect=sentiment)  # doctest: +SKIP
    """

    def __init__(
        self,
        model: TransformerBridge,
        directions: Mapping[str, Mapping[int, Float[Tensor, " d_model"]]],
        prompts: Sequence[str],
        *,
        effect: Callable[[Sequence[str]], Score],
        effect_name: str = "effect",
        max_new_tokens: int = 20,
        seed: int = 0,
    ) -> None:
        """
        Args:
            directions: {name: {layer: direction}}: the same contrast read at several layers is several vectors. Only where
                they point matters: the strength is in multiples of the usual norm of the layer.
            prompts: at least two; they can be changed in the widget, one per line.
            effect: scores the texts, `sentiment` or `lambda texts: keyword_rate(texts, "sea")`.

        Raises: SteeringError when there is no direction or there are fewer than two prompts.
        """
        if not directions or not all(directions.values()):
            raise SteeringError("the bench needs at least one direction, {name: {layer: vector}}.")
        if len(prompts) < 2:
            raise SteeringError("the bench needs at least two prompts: an interval over one text says nothing.")
        self.model, self.directions = model, {name: dict(layers) for name, layers in directions.items()}
        self.effect, self.effect_name, self.max_new_tokens, self.seed = effect, effect_name, max_new_tokens, seed
        self.points: list[BenchPoint] = []
        self._plain: dict[tuple[str, ...], BenchPoint] = {}
        self._norms: dict[int, float] = {}
        wide, label = widgets.Layout(width="330px"), {"description_width": "80px"}
        self.direction = widgets.Dropdown(options=list(self.directions), description="direction", layout=wide, style=label)
        self.layer = widgets.Dropdown(options=self._layers(), description="layer", layout=wide, style=label)
        self.strength = widgets.FloatSlider(value=0.2, min=-1, max=1, step=0.05, description="strength", readout_format=".2f", layout=wide, style=label)
        self.positions = widgets.Dropdown(options=["all", "prompt", "last"], description="tokens", layout=wide, style=label)
        self.prompts = widgets.Textarea(value="\n".join(prompts), description="prompts", rows=5, layout=widgets.Layout(width="670px"), style=label)
        self.button = widgets.Button(description="Write", button_style="primary", tooltip="Let the model write, plain and steered")
        self.forget = widgets.Button(description="Forget points", tooltip="Empty the plot; the texts stay")
        self.message, self.texts, self.plot = widgets.HTML(), widgets.HTML(), widgets.HTML()
        for part, name in ((self.message, "pts-message"), (self.texts, "pts-texts"), (self.plot, "pts-plot"), (self.button, "pts-write")):
            part.add_class(name)
        self.direction.observe(self._direction_changed, names="value")
        self.button.on_click(lambda _: self._clicked())
        self.forget.on_click(lambda _: self._forget())
        self._draw()
        super().__init__([
            widgets.HBox([self.direction, self.strength]), widgets.HBox([self.layer, self.positions]), self.prompts,
            widgets.HBox([self.button, self.forget, self.message]), self.plot, self.texts,
        ])

    def run(self) -> BenchPoint:
        """Write with what the controls say, add the point to the plot and show the texts beside the plain ones.

        Raises: SteeringError (fewer than two prompts, see also `steer` and `generate`), ValueError (a prompt that is too long).
        """
        prompts = [line.strip() for line in self.prompts.value.splitlines() if line.strip()]
        if len(prompts) < 2:
            raise SteeringError("give at least two prompts, one per line: an interval over one text says nothing.")
        layer, strength = self.layer.value, self.strength.value
        plain = self._plain_point(prompts)
        direction = self.directions[self.direction.value][layer]
        name = resid_post(layer)
        norm = self._norms.setdefault(layer, usual_norm(self.model, prompts, name))
        with steer(self.model, name, direction / direction.norm().clamp(min=1e-30), strength * norm, positions=self.positions.value):
            texts = self._write(prompts)
        where = "" if self.positions.value == "all" else f", {self.positions.value}"
        point = self._point(f"{self.direction.value}, layer {layer}, {strength:+.2f}{where}", prompts, texts)
        self.points.append(point)
        self._draw()
        self._show_texts(prompts, plain, point)
        return point

    def _plain_point(self, prompts: list[str]) -> BenchPoint:
        key = tuple(prompts)
        if key not in self._plain:
            self._plain[key] = self._point("plain", prompts, self._write(prompts))
        if self._plain[key] not in self.points:
            self.points.append(self._plain[key])
        return self._plain[key]

    def _write(self, prompts: list[str]) -> list[str]:
        return generate(self.model, prompts, max_new_tokens=self.max_new_tokens, seed=self.seed, progress=False)

    def _point(self, label: str, prompts: list[str], texts: list[str]) -> BenchPoint:
        variety = [value for value in distinct_n(texts).values.tolist() if not math.isnan(value)] if any(texts) else []
        distinct = sum(variety) / len(variety) if variety else math.nan
        return BenchPoint(label, self.effect(texts).estimate, perplexity(self.model, prompts, texts).estimate, distinct, texts)

    def _clicked(self) -> None:
        self.button.disabled = True
        self._say("Writing ...")
        try:
            point = self.run()
        except (SteeringError, InterventionError, HookNameError, ValueError, TypeError) as error:
            # The points, the texts and the prompts stay as they are.
            self._say(str(error), problem=True)
        else:
            self._say(f"perplexity {point.cost.value:.1f}, {self.effect_name} {point.effect.value:+.2f}, different word pairs {point.distinct:.0%}")
        finally:
            self.button.disabled = False

    def _forget(self) -> None:
        self.points.clear()
        self._draw()

    def _layers(self) -> list[int]:
        return sorted(self.directions[self.direction.value])

    def _direction_changed(self, change: dict) -> None:
        kept = self.layer.value
        self.layer.options = self._layers()
        if kept in self.layer.options:
            self.layer.value = kept

    def _say(self, text: str, problem: bool = False) -> None:
        kind = ' class="pts-problem"' if problem else ""
        self.message.value = f'<div class="pts-bench" role="status"><div{kind}>{html.escape(text)}</div></div>'

    def _show_texts(self, prompts: list[str], plain: BenchPoint, point: BenchPoint) -> None:
        rows = "".join(
            f'<tr><td class="pts-prompt">{html.escape(prompt)}</td><td>{html.escape(before)}</td><td>{html.escape(after)}</td></tr>'
            for prompt, before, after in list(zip(prompts, plain.texts, point.texts))[:_SHOWN]
        )
        more = f"<p>{len(prompts) - _SHOWN} more prompts were scored.</p>" if len(prompts) > _SHOWN else ""
        head = f'<tr><th style="width:22%">prompt</th><th>plain</th><th>{html.escape(point.label)}</th></tr>'
        self.texts.value = f'{_STYLE}<div class="pts-bench"><table>{head}{rows}</table>{more}</div>'

    def _draw(self) -> None:
        self.plot.value = f'{_STYLE}<div class="pts-bench">{bench_svg(self.points, self.effect_name)}</div>'


def bench_svg(points: Sequence[BenchPoint], effect_name: str) -> str:
    """The plot of effect against cost: one dot per run with both intervals, the plain model as a square, the newest run labelled.

    The cost axis is logarithmic. Without points an empty frame with a line of advice is drawn.
    """
    frame = f'<svg class="pts-plot-svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" height="{_HEIGHT}" role="img" aria-label="effect against cost">'
    if not points:
        return f'{frame}<text x="{_WIDTH / 2}" y="{_HEIGHT / 2}" text-anchor="middle">Press Write: each run leaves a point here.</text></svg>'
    costs = [value for point in points for value in (point.cost.low, point.cost.high)]
    effects = [value for point in points for value in (point.effect.low, point.effect.high)]
    low_x, high_x = math.log(min(costs)) - 0.1, math.log(max(costs)) + 0.1
    margin = 0.08 * max(max(effects) - min(effects), 0.1)
    low_y, high_y = min(effects) - margin, max(effects) + margin

    def x(cost: float) -> float:
        return _LEFT + (math.log(cost) - low_x) / (high_x - low_x) * (_WIDTH - _LEFT - _RIGHT)

    def y(effect: float) -> float:
        return _TOP + (high_y - effect) / (high_y - low_y) * (_HEIGHT - _TOP - _BOTTOM)

    parts = [frame, f'<rect x="{_LEFT}" y="{_TOP}" width="{_WIDTH - _LEFT - _RIGHT}" height="{_HEIGHT - _TOP - _BOTTOM}" fill="none" stroke="currentColor" opacity="0.4"/>']
    for cost in _log_ticks(min(costs), max(costs)):
        parts.append(f'<text x="{x(cost):.1f}" y="{_HEIGHT - _BOTTOM + 17}" text-anchor="middle">{cost:g}</text>'
                     f'<line x1="{x(cost):.1f}" x2="{x(cost):.1f}" y1="{_HEIGHT - _BOTTOM}" y2="{_HEIGHT - _BOTTOM + 4}" stroke="currentColor"/>')
    for effect in _ticks(low_y, high_y):
        parts.append(f'<text x="{_LEFT - 8}" y="{y(effect) + 4:.1f}" text-anchor="end">{effect:g}</text>'
                     f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y(effect):.1f}" y2="{y(effect):.1f}" stroke="currentColor" opacity="0.12"/>')
    parts.append(f'<text x="{(_LEFT + _WIDTH - _RIGHT) / 2}" y="{_HEIGHT - 10}" text-anchor="middle">cost: perplexity of the text under the plain model</text>'
                 f'<text x="{_LEFT}" y="{_TOP - 10}">effect: {html.escape(effect_name)} (bars: 95% intervals)</text>')
    for i, point in enumerate(points):
        newest = i == len(points) - 1
        color, opacity = ("currentColor", 0.9) if point.label == "plain" else (PALETTE[1] if newest else PALETTE[5], 1.0)
        px, py = x(point.cost.value), y(point.effect.value)
        bars = (f'<line x1="{x(point.cost.low):.1f}" x2="{x(point.cost.high):.1f}" y1="{py:.1f}" y2="{py:.1f}" stroke="{color}"/>'
                f'<line x1="{px:.1f}" x2="{px:.1f}" y1="{y(point.effect.low):.1f}" y2="{y(point.effect.high):.1f}" stroke="{color}"/>')
        mark = (f'<rect x="{px - 5:.1f}" y="{py - 5:.1f}" width="10" height="10" fill="{color}"/>' if point.label == "plain"
                else f'<circle cx="{px:.1f}" cy="{py:.1f}" r="{6 if newest else 4.5}" fill="{color}"/>')
        parts.append(f'<g class="pts-point" opacity="{opacity}"><title>{html.escape(str(point))}</title>{bars}{mark}</g>')
        if newest or point.label == "plain":
            # The label keeps inside the frame: to the left of the point in the right half.
            left = px > (_LEFT + _WIDTH) / 2
            parts.append(f'<text x="{px - 10 if left else px + 10:.1f}" y="{py - 9:.1f}" text-anchor="{"end" if left else "start"}">{html.escape(point.label)}</text>')
    return "".join(parts) + "</svg>"


def _log_ticks(low: float, high: float) -> list[float]:
    """Round numbers within the range, on a coarse ladder where it gives three of them; else on finer ones."""
    for ladder in ((1, 2, 5), (1, 1.5, 2, 3, 5, 7), [1 + step / 10 for step in range(90)]):
        steps = [round(base * 10.0**power, 6) for power in range(-1, 7) for base in ladder]
        found = [step for step in steps if low <= step <= high]
        if len(found) >= 3:
            return found[:: math.ceil(len(found) / 8)]
    return found or [float(f"{low:.3g}")]


def _ticks(low: float, high: float) -> list[float]:
    step = 10 ** math.floor(math.log10(high - low))
    step = next(step / part for part in (1, 2, 4, 5, 10) if (high - low) / (step / part) >= 4)
    first, last = math.ceil(low / step), math.floor(high / step)
    return [round(step * i, 10) for i in range(first, last + 1)]
