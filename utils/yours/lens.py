"""Chapter 00 on your own sentence: what the model would answer if it stopped after each block."""

from __future__ import annotations

import html
import math
from dataclasses import dataclass

import plotly.graph_objects as go
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from utils.activations import tokenize
from utils.hooks import resid_post, run_with_cache

MAX_ROWS, MAX_PLACES = 32, 24
"""What a figure shows of a deep model (evenly spaced blocks, the last among them) and of a long text (its end)."""


@dataclass(frozen=True)
class EarlyAnswers:
    """The likeliest next token at each place of a text, after each block.

    Attributes:
        text: what was read. read: its tokens, as labels of a figure.
        top: the likeliest next token. probability: how likely the model finds it there.
        names: {token number: its label}, of those that occur in `top`.
    """

    text: str
    read: list[str]
    top: Int[Tensor, "n_layers pos"]
    probability: Float[Tensor, "n_layers pos"]
    names: dict[int, str]

    @property
    def answer(self) -> str:
        """The likeliest token at the end of the text, after the last block."""
        return self.names[int(self.top[-1, -1])]

    @property
    def leads(self) -> Bool[Tensor, " n_layers"]:
        """After which blocks that answer leads at the end of the text."""
        return self.top[:, -1] == self.top[-1, -1]

    @property
    def first(self) -> int:
        """The first of them."""
        return int(self.leads.int().argmax())

    @property
    def verdict(self) -> str:
        """Where the answer comes from, in two sentences."""
        last = len(self.top) - 1
        held = "and after every later one" if self.leads[self.first:].all() else "though not after every later one"
        return (f"After {self.text!r} the model says {self.answer} (probability {self.probability[-1, -1]:.2f}). Read early, that "
                f"leads for the first time after block {self.first} of 0 to {last}, {held}.")

    def figure(self) -> go.Figure:
        """A grid: a row for each block, a column for each token that was read."""
        last, places = len(self.top) - 1, len(self.read)
        step = math.ceil((last + 1) / MAX_ROWS)
        rows = [block for block in range(last + 1) if (last - block) % step == 0 or block == self.first]
        columns = list(range(max(0, places - MAX_PLACES), places))
        fig = go.Figure(go.Heatmap(
            z=self.probability[rows][:, columns], text=[[self.names[int(self.top[r, c])] for c in columns] for r in rows],
            texttemplate="%{text}", colorscale="Blues", zmin=0, zmax=1, colorbar={"title": "probability of<br>the top token"}))
        return fig.update_layout(
            title=f"Stopped early, the model first says {self.answer} after block {self.first} of 0 to {last}", height=180 + 20 * len(rows),
            xaxis={"title": "token that the model has just read", "tickvals": list(range(len(columns))), "ticktext": [self.read[c] for c in columns]},
            yaxis={"title": "stopped after block", "tickvals": list(range(len(rows))), "ticktext": rows})


def token_label(model: TransformerBridge, token: int | Tensor) -> str:
    """A token as text that a figure shows as it is, blanks and line breaks included."""
    text = model.to_string(torch.as_tensor(token))
    return html.escape(text.replace(" ", "␣").replace("\xa0", "␣").replace("\n", "↵"))


def read_early(model: TransformerBridge, text: str) -> EarlyAnswers:
    """Apply the model's own last two steps, the final norm and the unembedding, to what leaves each block.

    Raises: ValueError for an empty text, or one that is longer than the model's context.
    """
    if not isinstance(text, str) or not text.strip():
        raise ValueError(f"there is nothing to read in {text!r}: write a text for the model to continue.")
    tokens, _ = tokenize(model, [text])
    names = [resid_post(block) for block in range(model.cfg.n_layers)]
    cache = run_with_cache(model, tokens, names)
    probability, top = [], []
    with torch.no_grad():
        for name in names:
            best = model.unembed(model.ln_final(cache[name]))[0].softmax(dim=-1).max(dim=-1)
            probability.append(best.values.cpu())
            top.append(best.indices.cpu())
    top = torch.stack(top)
    labels = {int(token): token_label(model, token) for token in top.unique()}
    return EarlyAnswers(text, [token_label(model, token) for token in tokens[0]], top, torch.stack(probability), labels)
