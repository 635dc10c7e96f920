"""Figures: one plotly template, colours that colour-blind readers can tell apart, and `show`.

A figure is interactive where scripts run. When `PROBE_TO_STEER_STATIC` is set (as `make run` does), it also
carries a PNG, which is what GitHub, a PDF and a printed page show; drawing that takes a Chromium or Chrome.
"""

from __future__ import annotations

import atexit
import json
import os
import sys
import warnings
from base64 import b64encode
from collections.abc import Callable, Iterable
from functools import cache

import numpy as np
import plotly.graph_objects as go
import plotly.io as pio

from utils.intervals import Estimate

# Okabe and Ito's palette, in the order of greatest contrast between neighbours.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
GREY = "#6b6b6b"
SEQUENTIAL = "Cividis"
DIVERGING = "RdBu_r"
_STATIC_SCALE = 1.5

pio.templates["probe_to_steer"] = go.layout.Template(layout={
    "colorway": PALETTE, "font": {"family": "Helvetica, Arial, sans-serif", "size": 13, "color": "#222222"},
    "title": {"font": {"size": 16}, "x": 0.01, "xanchor": "left"},
    # An opaque white card: readable in a light page, a dark page and on paper.
    "paper_bgcolor": "white", "plot_bgcolor": "white", "width": 760, "height": 430,
    "margin": {"l": 70, "r": 30, "t": 60, "b": 72}, "legend": {"bgcolor": "rgba(255,255,255,0.7)"},
    "xaxis": {"gridcolor": "#e6e6e6", "linecolor": "#888888", "zeroline": False, "ticks": "outside"},
    "yaxis": {"gridcolor": "#e6e6e6", "linecolor": "#888888", "zeroline": False, "ticks": "outside"},
    "colorscale": {"sequential": SEQUENTIAL, "diverging": DIVERGING},
})
pio.templates.default = "probe_to_steer"


def show(fig: go.Figure) -> None:
    """Display `fig`: interactive, and as a PNG too when PROBE_TO_STEER_STATIC is set."""
    from IPython.display import display

    display(_bundle(fig), raw=True)


def show_with_slider(draw: Callable[[int], go.Figure], value: int, low: int, high: int, label: str) -> None:
    """Display a slider and, below it, the figure `draw(value)` of the place where it stands. Without a kernel the first one stays."""
    from IPython.display import display
    from ipywidgets import IntSlider

    slider = IntSlider(value, low, high, description=label)
    display(slider)
    screen = display(_bundle(draw(value)), raw=True, display_id=True)

    def redraw(change: dict) -> None:
        fig = draw(change["new"])
        # plotly's renderer in JupyterLab draws an output once and ignores updates: another kind of output in between
        # makes JupyterLab throw the old renderer away.
        screen.update({"text/plain": ""}, raw=True)
        screen.update(_bundle(fig), raw=True)

    slider.observe(redraw, names="value")


def _bundle(fig: go.Figure) -> dict[str, object]:
    """The figure by MIME type, as Jupyter's messages carry it."""
    if "google.colab" in sys.modules:  # Colab knows no plotly MIME type
        return {"text/html": fig.to_html(include_plotlyjs="cdn", full_html=False)}
    bundle = {"application/vnd.plotly.v1+json": json.loads(pio.to_json(fig)), "text/plain": f"Figure: {fig.layout.title.text}"}
    if os.environ.get("PROBE_TO_STEER_STATIC"):
        bundle["image/png"] = b64encode(_png(fig)).decode()
    return bundle


def _png(fig: go.Figure) -> bytes:
    _start_painter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about options that the running browser ignores
        return fig.to_image("png", scale=_STATIC_SCALE)


@cache
def _start_painter() -> None:
    """Start one browser for all figures of this kernel: a new one for each would cost seconds every time."""
    import kaleido
    from choreographer.browsers.chromium import Chromium

    if Chromium.find_browser(skip_local=False) is None:
        raise RuntimeError("PROBE_TO_STEER_STATIC is set, and static figures are drawn by a Chromium or Chrome, which was not found. "
                           "Install one, or unset the variable; figures in the notebook need neither.")
    kaleido.start_sync_server(n=1, silence_warnings=True)
    atexit.register(kaleido.stop_sync_server, silence_warnings=True)


def line_with_interval(x: np.ndarray, y: np.ndarray, low: np.ndarray, high: np.ndarray, *, name: str, color: str) -> list[go.Scatter]:
    """The traces of a line and the band of its interval, `x`, `y`, `low`, `high` of shape [n]."""
    red, green, blue = (int(color[i:i + 2], 16) for i in (1, 3, 5))
    band = go.Scatter(x=[*x, *reversed(x)], y=[*high, *reversed(low)], mode="lines", fill="toself", fillcolor=f"rgba({red},{green},{blue},0.18)",
                      line={"width": 0}, hoverinfo="skip", showlegend=False)
    return [band, go.Scatter(x=list(x), y=list(y), mode="lines+markers", name=name, line={"color": color, "width": 2.5}, marker={"size": 5})]


def error_bars(estimates: Iterable[Estimate]) -> dict[str, list[float]]:
    """How far each interval reaches to both sides of its value: plotly's `error_x` or `error_y`."""
    found = list(estimates)
    return {"array": [each.high - each.value for each in found], "arrayminus": [each.value - each.low for each in found]}


def reference_line(fig: go.Figure, y: float, text: str) -> None:
    """Draw a dashed horizontal line at `y`, such as the chance level, labelled at its right end."""
    fig.add_hline(y=y, line={"dash": "dash", "color": GREY, "width": 1.5}, annotation_text=text, annotation_position="bottom right",
                  annotation_font_color=GREY)
