"""Two pictures of chapter 33: rivals in order of a score, and the table of what survives which rival."""

from __future__ import annotations

from collections.abc import Mapping

import plotly.graph_objects as go

from utils.intervals import Estimate
from utils.plots import GREY, PALETTE, error_bars

VERDICTS = {"ahead": "#a6cee3", "level": "#dddddd", "open": "#ffffff", "behind": "#fdbf6f"}
"""The colour of each."""


def ladder(found: Mapping[str, Estimate], axis: str, lines: Mapping[str, float] | None = None) -> go.Figure:
    """A point with its interval for each name, the highest on top; "trained" is blue, the others are orange.

    Args:
        axis: the title of the horizontal axis, with its unit.
        lines: values to compare with, such as {"chance": 0.5}.
    """
    names = sorted(found, key=lambda name: found[name].value)
    fig = go.Figure(go.Scatter(
        x=[found[name].value for name in names], y=names, mode="markers+text", text=[f"{found[name].value:.2f}" for name in names],
        textposition="top center", marker={"size": 12, "color": [PALETTE[0] if name == "trained" else PALETTE[1] for name in names]},
        error_x=error_bars(found[name] for name in names), showlegend=False))
    for text, x in (lines or {}).items():
        fig.add_vline(x=x, line={"dash": "dash", "color": GREY}, annotation_text=text, annotation_position="top")
    return fig.update_layout(xaxis_title=axis, yaxis={"range": [-0.7, len(names) - 0.2]}, height=110 + 48 * len(names), margin={"l": 190, "t": 80})


def survival_table(cells: Mapping[tuple[str, str], tuple[str, Estimate]]) -> go.Figure:
    """Rivals by claims: the verdict in each cell, with the difference and its interval.

    Args:
        cells: {(rival, claim): (verdict, the trained SAE's score minus the rival's)}. Pairs that were not compared are left out.
    """
    rivals, claims = (list(dict.fromkeys(key[i] for key in cells)) for i in (0, 1))
    order = list(VERDICTS)
    code, words = ([[empty] * len(claims) for _ in rivals] for empty in (None, ""))
    for (rival, claim), (verdict, found) in cells.items():
        i, j = rivals.index(rival), claims.index(claim)
        code[i][j] = order.index(verdict)
        words[i][j] = f"<b>{verdict}</b> {found.value:+.2f}<br>[{found.low:+.2f}, {found.high:+.2f}]"
    steps = [(edge, color) for i, color in enumerate(VERDICTS.values()) for edge in (i / len(order), (i + 1) / len(order))]
    fig = go.Figure(go.Heatmap(z=code, x=claims, y=rivals, zmin=-0.5, zmax=len(order) - 0.5, colorscale=steps, showscale=False, xgap=3, ygap=3,
                               text=words, texttemplate="%{text}", textfont={"color": "#222222", "size": 12}, hoverinfo="skip"))
    return fig.update_layout(xaxis={"side": "top", "showgrid": False},
                             yaxis={"autorange": "reversed", "showgrid": False, "title": {"text": "the trained SAE against", "standoff": 20}, "automargin": True},
                             height=150 + 44 * len(rivals), margin={"l": 230, "t": 110})
