"""The steering bench: what its buttons do, what it says when something cannot work, and the widget in headless Chromium."""

from __future__ import annotations

import re

import pytest
import torch

from utils.hooks import is_edited
from utils.models import tiny_model
from utils.paths import ROOT
from utils.intervals import Estimate
from utils.steering.bench import BenchPoint, SteeringBench, bench_svg
from utils.steering.reach import SteeringError
from utils.steering.scoring import keyword_rate

PROMPTS = ["The city of Paris is in", "A dog", "The keys near the cabinet", "two and three", "Lima is", "to", "The film was very", "Oslo and Rome"]


def _direction(seed):
    return torch.randn(24, generator=torch.Generator().manual_seed(seed))


def _bench(**more):
    options = {"effect": lambda texts: keyword_rate(texts, "o"), "effect_name": "texts with <o>", "max_new_tokens": 6} | more
    return SteeringBench(tiny_model(), {"one": {1: _direction(0), 2: _direction(1)}, "other": {0: _direction(2), 2: _direction(3)}}, PROMPTS, **options)


def test_a_run_adds_a_point_and_shows_both_texts():
    bench = _bench()
    bench.strength.value = 0.8
    point = bench.run()
    plain = bench.points[0]
    assert [p.label for p in bench.points] == ["plain", "one, layer 1, +0.80"] and bench.points[1] is point
    assert len(point.texts) == len(PROMPTS) and point.texts != plain.texts
    assert point.cost.low <= point.cost.value <= point.cost.high and point.effect.low <= point.effect.value <= point.effect.high
    assert bench.plot.value.count('class="pts-point"') == 2 and "texts with &lt;o&gt;" in bench.plot.value
    assert "one, layer 1, +0.80" in bench.texts.value and "2 more prompts were scored" in bench.texts.value
    bench.run()
    assert len(bench.points) == 3 and [p.label for p in bench.points].count("plain") == 1
    assert not is_edited(bench.model)


def test_a_strength_of_zero_writes_the_plain_text():
    bench = _bench()
    bench.strength.value = 0
    assert bench.run().texts == bench.points[0].texts


def test_the_layers_follow_the_direction():
    bench = _bench()
    bench.layer.value = 2
    bench.direction.value = "other"
    assert list(bench.layer.options) == [0, 2] and bench.layer.value == 2
    bench.layer.value = 0
    bench.direction.value = "one"
    assert bench.layer.value == 1


@pytest.mark.parametrize("prompts, words", [("", "at least two prompts"), ("A dog\n\n  \n", "at least two prompts"), ("A dog\n" + "dog " * 93, "context holds 96"), ("A dog\n" + "dog " * 200, "context holds 96")])
def test_what_cannot_work_is_said_and_nothing_is_lost(prompts, words):
    bench = _bench()
    bench.button.click()
    points, texts = list(bench.points), bench.texts.value
    bench.prompts.value = prompts
    bench.button.click()
    assert words in bench.message.value and "pts-problem" in bench.message.value
    assert bench.prompts.value == prompts and bench.texts.value == texts and points == bench.points[: len(points)]
    assert not bench.button.disabled and not is_edited(bench.model)
    bench.prompts.value = "\n".join(PROMPTS)
    bench.button.click()
    assert "pts-problem" not in bench.message.value and "perplexity" in bench.message.value


def test_a_direction_that_points_nowhere_is_said():
    bench = SteeringBench(tiny_model(), {"zero": {1: torch.zeros(24)}, "wide": {1: torch.ones(25)}}, PROMPTS, effect=lambda texts: keyword_rate(texts, "o"), max_new_tokens=2)
    bench.button.click()
    assert "points nowhere" in bench.message.value
    bench.direction.value = "wide"
    bench.button.click()
    assert "as wide as this model" in bench.message.value


def test_texts_and_labels_are_escaped():
    bench = SteeringBench(tiny_model(), {"<b>bold</b>": {1: _direction(0)}}, ["<script>alert(1)</script> A dog", "to"], effect=lambda texts: keyword_rate(texts, "o"), max_new_tokens=3)
    bench.button.click()
    for part in (bench.texts, bench.plot, bench.message):
        assert "<script>" not in part.value and "<b>" not in part.value
    assert "&lt;script&gt;" in bench.texts.value


def test_points_can_be_forgotten():
    bench = _bench()
    bench.button.click()
    bench.forget.click()
    assert bench.points == [] and "Press Write" in bench.plot.value
    bench.button.click()
    assert [point.label for point in bench.points] == ["plain", "one, layer 1, +0.20"]


def test_a_bench_without_directions_or_prompts_is_refused():
    for directions, prompts in (({}, PROMPTS), ({"one": {}}, PROMPTS), ({"one": {1: _direction(0)}}, PROMPTS[:1])):
        with pytest.raises(SteeringError, match="at least"):
            SteeringBench(tiny_model(), directions, prompts, effect=lambda texts: keyword_rate(texts, "o"))


def test_the_plot_draws_any_numbers_inside_its_frame():
    def point(effect, cost, label="x"):
        return BenchPoint(label, Estimate(*effect), Estimate(*cost), 0.9, [])

    for points in ([point((0.0, 0.0, 0.0), (7.0, 7.0, 7.0), "plain")], [point((-0.9, -1, -0.8), (1.0, 1.0, 1.1)), point((1, 1, 1), (9e5, 8e5, 1e6))],
                   [point((0.5, 0.4, 0.6), (7.1, 7.0, 7.2)), point((0.51, 0.5, 0.52), (7.3, 7.2, 7.4), "plain")]):
        svg = bench_svg(points, "effect")
        places = [float(value) for value in re.findall(r'c[xy]="([-0-9.]+)"', svg)]
        assert all(0 <= place <= 620 for place in places) and "nan" not in svg and svg.count("<g ") == len(points)


# --- in JupyterLab ----------------------------------------------------------------------------------------

NOTEBOOK = """
import sys
sys.path.insert(0, {root!r})
import torch
from utils.models import tiny_model
from utils.steering.bench import SteeringBench
from utils.steering.scoring import keyword_rate
model = tiny_model()
directions = {{"one": {{1: torch.randn(24, generator=torch.Generator().manual_seed(0))}}, "other": {{2: torch.randn(24, generator=torch.Generator().manual_seed(1))}}}}
bench = SteeringBench(model, directions, {prompts!r}, effect=lambda texts: keyword_rate(texts, "o"), effect_name="texts with an o", max_new_tokens=8)
bench
"""


def test_the_bench_in_jupyterlab(open_in_lab, shoot):
    page = open_in_lab("bench.ipynb", NOTEBOOK.format(root=str(ROOT), prompts=PROMPTS), "print(len(bench.points), bench.strength.value)")
    page.run(0)
    page.get_by_text("Press Write: each run leaves a point here.").wait_for()
    write = page.get_by_role("button", name="Write")
    write.click()
    page.wait_for_function("document.querySelectorAll('.pts-point').length === 2")
    assert page.locator(".pts-texts td").first.inner_text() == PROMPTS[0]
    shoot(page, "bench_light")

    # A prompt that does not fit: the words are there, the points and the typed text stay.
    area = page.locator(".widget-textarea textarea")
    area.fill("A dog\n" + "dog " * 93)
    area.blur()
    write.click()
    page.get_by_text("the model's context holds 96").wait_for()
    assert page.locator(".pts-point").count() == 2 and area.input_value().startswith("A dog\ndog dog")
    shoot(page, "bench_problem")

    area.fill("\n".join(PROMPTS))
    area.blur()
    page.locator(".widget-readout").first.fill("0.8")
    page.locator(".widget-readout").first.press("Enter")
    write.click()
    page.wait_for_function("document.querySelectorAll('.pts-point').length === 3")
    page.evaluate("name => jupyterapp.commands.execute('apputils:change-theme', {theme: name})", "JupyterLab Dark")
    page.wait_for_timeout(1500)
    shoot(page, "bench_dark")
    assert "3 0.8" in page.run(1)
