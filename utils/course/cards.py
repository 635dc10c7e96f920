"""How the course speaks to a learner: a headline and labelled lines, in a notebook and in a terminal."""

from __future__ import annotations

import html
import sys


class Card:
    """A headline and labelled lines: plain text in a terminal, a quiet box in a notebook, the same words in both."""

    def __init__(self, headline: str, lines: list[tuple[str, str]], passed: bool | None) -> None:
        self.headline, self.lines, self.passed = headline, lines, passed

    def __repr__(self) -> str:
        body = "\n".join(f"{label}: {text}" if "\n" not in text else f"{label}:\n{text}" for label, text in self.lines)
        return f"{self.headline}\n{body}"

    def _repr_html_(self) -> str:
        edge = {True: "#009E73", False: "#D55E00", None: "#0072B2"}[self.passed]
        rows = "".join(
            f'<tr><td style="vertical-align:top;text-align:left;white-space:nowrap;padding:2px 12px 2px 0;opacity:.75">{html.escape(label)}</td>'
            f'<td style="text-align:left;padding:2px 0">{_text(text)}</td></tr>' for label, text in self.lines)
        return (f'<div class="probe-to-steer-card" style="border-left:5px solid {edge};padding:6px 14px;margin:4px 0;color:inherit">'
                f'<div style="font-weight:600;margin-bottom:4px">{html.escape(self.headline)}</div>'
                f'<table style="border:none;background:none;color:inherit;margin:0">{rows}</table></div>')


def _text(text: str) -> str:
    if "\n" in text:
        return f'<pre style="margin:0;background:none;color:inherit;white-space:pre-wrap">{html.escape(text)}</pre>'
    parts = html.escape(text).split("`")
    return "".join(f"<code>{part}</code>" if i % 2 else part for i, part in enumerate(parts))


def show_card(card: Card) -> None:
    shell = sys.modules.get("IPython") and sys.modules["IPython"].get_ipython()
    if shell:
        from IPython.display import display

        display(card)
    else:
        print(repr(card))
