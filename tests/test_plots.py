"""Figures show where scripts run and where none does."""

import base64
import sys
from types import ModuleType

import numpy as np
import plotly.graph_objects as go
import pytest
from choreographer.browsers.chromium import Chromium

from utils import plots
from utils.intervals import Estimate


@pytest.fixture
def shown(monkeypatch):
    """What `show` hands to the notebook."""
    kept = []
    monkeypatch.setattr("IPython.display.display", lambda bundle, raw: kept.append(bundle))
    return kept


@pytest.fixture
def figure():
    fig = go.Figure(plots.line_with_interval(np.arange(3), np.arange(3.0), np.arange(3) - 0.5, np.arange(3) + 0.5, name="probe", color=plots.PALETTE[0]))
    plots.reference_line(fig, 0.5, "chance")
    fig.update_layout(title="A finding, in words")
    return fig


def test_a_figure_is_interactive_and_names_its_finding(shown, figure, monkeypatch):
    monkeypatch.delenv("PROBE_TO_STEER_STATIC", raising=False)
    plots.show(figure)
    (bundle,) = shown
    assert bundle["application/vnd.plotly.v1+json"]["layout"]["title"]["text"] == "A finding, in words"
    assert "A finding, in words" in bundle["text/plain"] and "image/png" not in bundle


@pytest.mark.skipif(Chromium.find_browser(skip_local=False) is None, reason="static figures are drawn by a Chromium")
def test_a_static_image_stands_beside_it(shown, figure, monkeypatch):
    monkeypatch.setenv("PROBE_TO_STEER_STATIC", "1")
    plots.show(figure)
    assert base64.b64decode(shown[0]["image/png"]).startswith(b"\x89PNG")


def test_without_a_browser_the_error_says_what_to_do(shown, figure, monkeypatch):
    monkeypatch.setenv("PROBE_TO_STEER_STATIC", "1")
    monkeypatch.setattr(Chromium, "find_browser", classmethod(lambda cls, **_: None))
    plots._start_painter.cache_clear()
    with pytest.raises(RuntimeError, match="Install one, or unset"):
        plots.show(figure)


def test_colab_gets_html_that_needs_no_extension(shown, figure, monkeypatch):
    monkeypatch.setitem(sys.modules, "google.colab", ModuleType("google.colab"))
    plots.show(figure)
    (bundle,) = shown
    assert list(bundle) == ["text/html"] and "A finding, in words" in bundle["text/html"] and "cdn.plot.ly" in bundle["text/html"]


def test_the_slider_draws_where_it_stands_and_redraws_when_it_moves(monkeypatch):
    """Between two figures another kind of output is shown: without it JupyterLab's plotly renderer keeps the first one."""
    monkeypatch.delenv("PROBE_TO_STEER_STATIC", raising=False)
    events = []

    class Screen:
        def update(self, bundle, raw):
            events.append(bundle)

    def display(thing, raw=False, display_id=None):
        events.append(thing)
        return Screen()

    monkeypatch.setattr("IPython.display.display", display)
    plots.show_with_slider(lambda level: go.Figure(layout={"title": f"Level {level}"}), 3, low=1, high=9, label="level")
    slider, first = events
    assert (slider.value, slider.min, slider.max, slider.description) == (3, 1, 9, "level") and first["text/plain"] == "Figure: Level 3"
    slider.value = 7
    assert events[2] == {"text/plain": ""} and events[3]["text/plain"] == "Figure: Level 7" and len(events) == 4


def test_colours_stay_apart_for_colour_blind_readers():
    """Every two of the first five colours differ clearly in lightness or hue after deuteranopia is simulated."""
    # Machado, Oliveira and Fernandes (2009), severity 1.0, on linear RGB.
    deuteranopia = np.array([[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]])
    colours = np.array([[int(colour[i:i + 2], 16) / 255 for i in (1, 3, 5)] for colour in plots.PALETTE[:5]]) ** 2.2
    seen = np.clip(colours @ deuteranopia.T, 0, 1) ** (1 / 2.2)
    distances = np.linalg.norm(seen[:, None] - seen[None], axis=-1)[np.triu_indices(5, 1)]
    assert distances.min() > 0.1


def test_error_bars_reach_from_the_value_to_the_ends():
    assert plots.error_bars([Estimate(0.5, 0.25, 1.0)]) == {"array": [0.5], "arrayminus": [0.25]}
