"""Chapter 14 on prompts of your own: which token carries the difference, after which layer?

A pair is a clean prompt and a corrupted one, token by token of equal length, that differ in the thing you ask about.
One token's state after one layer is copied from the clean run into the corrupted one. How far does the preference
between your two answer words go back? The control copies the same place from the *corrupted* prompt of another pair.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import plotly.graph_objects as go
import torch
from jaxtyping import Float, Int
from torch import Tensor
from tqdm.auto import tqdm
from transformer_lens.model_bridge import TransformerBridge

from utils.activations import tokenize
from utils.hooks import intervene, resid_post, run_with_cache
from utils.intervals import Estimate, mean_over

N_LAYERS = 8
"""How many layers are patched when none are named, spread over the depth."""


class PairError(ValueError):
    """Prompts or answers that cannot be patched token by token. The message says what to change."""


@dataclass(frozen=True)
class PatchReport:
    """What single patches bring back, as a share of the way from the corrupted to the clean preference.

    Attributes:
        layers, tokens: the places; tokens from the first one that differs in any pair on, as the first pair has them.
        distance: how much more the model prefers the first answer after the clean prompt than after the corrupted one, in
            nats, with its interval over pairs; with one pair there is none, and its ends are the value.
        recovered: share of the way, pair by pair; the pairs' distances are averaged before anything is divided by them.
        strangers: the same from the corrupted prompt of another pair; None with one pair.
    """

    layers: list[int]
    tokens: list[str]
    distance: Estimate
    recovered: Float[Tensor, "n_layers n_pos n_pairs"]
    strangers: Float[Tensor, "n_layers n_pos n_pairs"] | None

    @property
    def half_way(self) -> tuple[int, int]:
        """Row and column of the best patch at half of the depth."""
        row = len(self.layers) // 2
        return row, int(self.recovered[row].mean(-1).argmax())

    @property
    def headline(self) -> str:
        """The verdict in a few words."""
        row, column = self.half_way
        if self.distance.low <= 0:
            return "There is nothing to bring back: the prompts of a pair do not reliably differ"
        if self.strangers is not None and self.strangers[row, column].mean() > self.recovered[row, column].mean() / 2:
            return "A stranger brings back as much: what the patch carries is not your difference"
        if self.recovered[row, column].mean() > 0.5:
            return f"Half-way up, the difference is carried by {self.tokens[column]!r}"
        return "Half-way up, no single token carries half of the difference"

    @property
    def verdict(self) -> str:
        """What was found, beside its control, and where the last token takes over."""
        row, column = self.half_way
        n = self.recovered.shape[-1]
        found = mean_over(self.recovered[row, column]) if n > 1 else f"{float(self.recovered[row, column, 0]):.3f} (one pair: no interval)"
        control = "with one pair there is no control" if self.strangers is None else (
            f"the same place of a corrupted prompt of another pair brings back {float(self.strangers[row, column].mean()):.3f}")
        last = self.recovered[:, -1].mean(-1) > 0.5
        over = f"The last token holds more than half of it from layer {self.layers[int(last.int().argmax())]} on" if last.any() else (
            "At no layer tried does the last token hold half of it")
        return (f"{self.headline}. Over {n} pairs the clean prompt is worth {self.distance} nats. After layer {self.layers[row]} the best "
                f"patch, at {self.tokens[column]!r}, brings back {found} of that; {control}. {over}. One token at a time was patched: "
                "a difference that is held in two places hides from that.")

    def figure(self) -> go.Figure:
        """Share of the way by layer and token."""
        mean = self.recovered.mean(-1)
        columns = list(range(len(self.tokens)))
        fig = go.Figure(go.Heatmap(z=mean.tolist(), x=columns, y=[str(layer) for layer in self.layers], zmin=-1, zmax=1, zmid=0, colorscale="RdBu",
                                   text=[[f"{cell:.2f}" for cell in row] for row in mean.tolist()], texttemplate="%{text}",
                                   colorbar={"title": "share of<br>the way"}))
        return fig.update_layout(title=self.headline, width=max(620, 160 + 90 * len(self.tokens)), height=460,
                                 xaxis={"title": "which token is patched (first pair, clean prompt)", "tickvals": columns, "ticktext": self.tokens},
                                 yaxis={"title": "after layer", "type": "category"})


def patch_report(model: TransformerBridge, pairs: Sequence[tuple[str, str]], answers: tuple[str, str], *,
                 layers: Sequence[int] | None = None, progress: bool = True) -> PatchReport:
    """Patch every token after every layer, from the clean prompt into the corrupted one of each pair.

    Args:
        pairs: (clean, corrupted) prompts, all of one number of tokens; ten or more make a fair interval, one makes none.
        answers: what may come next: what the clean prompts ask for, then what the corrupted ones do; one token each, as a
            rule with a space in front.
        layers: after which blocks; None spreads N_LAYERS over the depth.
        progress: show a bar.

    Raises: PairError for no pairs, a pair of equal prompts, prompts of different length, an answer of several tokens, equal
    answers, or a layer that the model does not have.
    """
    clean, corrupted = _paired_tokens(model, pairs)
    ids = [_one_token(model, answer) for answer in answers]
    if ids[0] == ids[1]:
        raise PairError(f"the two answers are the same token: {answers[0]!r} and {answers[1]!r}.")
    layers = _spread(model.cfg.n_layers) if layers is None else list(layers)
    if beyond := [layer for layer in layers if not 0 <= layer < model.cfg.n_layers]:
        raise PairError(f"layers {beyond} are not there: the model's are 0 to {model.cfg.n_layers - 1}.")
    names = [resid_post(layer) for layer in layers]
    sources = [run_with_cache(model, clean, names)]
    if len(pairs) > 1:
        strangers = run_with_cache(model, corrupted, names)
        sources.append({name: states.roll(1, dims=0) for name, states in strangers.items()})

    @torch.no_grad()
    def preference(tokens: Int[Tensor, "n pos"], hooks: dict | None = None) -> Float[Tensor, " n"]:
        with intervene(model, hooks, may_do_nothing=True) if hooks else nullcontext():
            end = model(tokens)[:, -1].double().cpu()
        return end[:, ids[0]] - end[:, ids[1]]

    before = preference(corrupted)
    way = preference(clean) - before
    positions = range(int((clean != corrupted).any(0).nonzero()[0]), clean.shape[1])
    moved = torch.zeros(len(sources), len(layers), len(positions), len(pairs), dtype=torch.float64)
    for row, name in enumerate(tqdm(names, desc="patching", unit="layer", disable=not progress)):
        for column, position in enumerate(positions):
            for kind, states in enumerate(sources):
                moved[kind, row, column] = preference(corrupted, {name: _patch(states[name], position)}) - before
    shares = moved / way.mean()
    distance = mean_over(way) if len(pairs) > 1 else Estimate(float(way), float(way), float(way))
    tokens = [model.tokenizer.decode([int(token)]).strip() or "␣" for token in clean[0, positions.start:]]
    return PatchReport(layers, tokens, distance, shares[0], shares[1] if len(pairs) > 1 else None)


def _patch(states: Float[Tensor, "n pos d_model"], position: int):
    """A hook that puts these states in the place of one token's."""
    def hook(activation: Tensor, hook) -> Tensor:
        activation[:, position] = states[:, position]
        return activation

    return hook


def _spread(n_layers: int) -> list[int]:
    """At most N_LAYERS layers from the first to the last, evenly."""
    return sorted({round(layer) for layer in torch.linspace(0, n_layers - 1, N_LAYERS).tolist()})


def _one_token(model: TransformerBridge, answer: str) -> int:
    ids = model.tokenizer(answer, add_special_tokens=False)["input_ids"]
    if len(ids) != 1:
        raise PairError(f"the answer {answer!r} is {len(ids)} tokens ({' | '.join(map(model.tokenizer.decode, ids))}): choose one that is a single "
                        "token, as a rule a common word with a space in front.")
    return ids[0]


def _paired_tokens(model: TransformerBridge, pairs: Sequence[tuple[str, str]]) -> tuple[Int[Tensor, "n pos"], Int[Tensor, "n pos"]]:
    """The tokens of the clean and of the corrupted prompts, or a clear refusal."""
    if isinstance(pairs, str) or not len(pairs) or any(isinstance(pair, str) or len(pair) != 2 for pair in pairs):
        raise PairError("pairs is a list of (clean, corrupted) prompts, at least one.")
    prompts = [prompt for pair in pairs for prompt in pair]
    if not all(isinstance(prompt, str) and prompt.strip() for prompt in prompts):
        raise PairError("every prompt is a text that is not empty.")
    tokens, mask = tokenize(model, prompts)
    lengths = mask.sum(1).tolist()
    for i, (clean, corrupted) in enumerate(pairs):
        if clean == corrupted:
            raise PairError(f"pair {i + 1}: both prompts are {clean!r}.")
        if lengths[2 * i] != lengths[2 * i + 1]:
            pieces = [" | ".join(map(model.tokenizer.decode, model.tokenizer(text, add_special_tokens=False)["input_ids"])) for text in (clean, corrupted)]
            raise PairError(f"pair {i + 1}: the prompts have {lengths[2 * i]} and {lengths[2 * i + 1]} tokens; token by token needs equally many. "
                            f"They are: {pieces[0]} and: {pieces[1]}.")
    if len(set(lengths)) > 1:
        raise PairError(f"the pairs have {', '.join(map(str, lengths[::2]))} tokens: give one call the pairs of one length.")
    return tokens[::2], tokens[1::2]
