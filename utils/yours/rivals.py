"""Chapter 12 on your own probe: who else could have had its score?

Five folds of whole groups take turns. The probe and every rival are fitted on four of them, by the same logistic
regression, and score the fifth: so all of them answer for the same rows, and none has met a row's group.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import plotly.graph_objects as go
import torch
from jaxtyping import Bool, Float, Int
from sklearn.feature_extraction.text import CountVectorizer
from torch import Tensor
from tqdm.auto import tqdm
from transformer_lens.model_bridge import TransformerBridge

from utils.activations import collect_activations, tokenize
from utils.hooks import resid_post, resid_pre
from utils.intervals import Estimate
from utils.plots import GREY, PALETTE
from utils.probes import ProbeError, auroc, auroc_with_interval, grouped_estimate, logistic
from utils.untrained import untrained_like
from utils.yours.probe import two_class_folds
from utils.yours.tables import Labelled, TableError, read_table


@dataclass(frozen=True)
class RivalReport:
    """A probe beside its rivals; AUROCs on held-out groups, with 95% intervals over groups.

    Attributes:
        layer: the block whose output the probe reads.
        probe: its AUROC.
        rivals: what else was asked, and its AUROC.
        ahead: probe minus rival, on the same rows.
        torn: the probe's AUROC when rows are dealt to the folds one by one; None if every row is a group of its own.
        shuffled: the probe's AUROC in each run with labels that mean nothing.
    """

    layer: int
    probe: Estimate
    rivals: dict[str, Estimate]
    ahead: dict[str, Estimate]
    torn: Estimate | None
    shuffled: Float[np.ndarray, " n_shuffles"]

    @property
    def p_value(self) -> float:
        """How often labels that mean nothing are as far from 0.5, the real ones counted in."""
        return (1 + int((abs(self.shuffled - 0.5) >= abs(self.probe.value - 0.5) - 1e-9).sum())) / (1 + len(self.shuffled))

    @property
    def unbeaten(self) -> list[str]:
        """The rivals that the probe is not clearly ahead of."""
        return [name for name, ahead in self.ahead.items() if ahead.low <= 0]

    @property
    def headline(self) -> str:
        """The verdict in a few words."""
        if self.probe.high < 0.5:
            return "It comes out the wrong way round"
        if self.probe.low <= 0.5 or self.p_value > 0.05:
            return "Luck could have done it"
        if self.unbeaten:
            return f"Not clearly ahead of: {', '.join(self.unbeaten)}"
        return "It stands against every rival here"

    @property
    def verdict(self) -> str:
        """What was found, beside what, and what it does not show."""
        nearest = min(self.ahead, key=lambda name: self.ahead[name].value)
        said = [f"{self.headline}. On groups that it has not met the probe in layer {self.layer} has an AUROC of {self.probe}; labels "
                f"without a meaning come as far in {self.p_value:.1%} of worlds. The nearest rival is the {nearest}: "
                f"the probe is ahead by {self.ahead[nearest]}."]
        if self.torn is not None:
            said.append(f"With the groups torn apart it would have had {self.torn.value:.3f}.")
        if below := [name for name, found in self.rivals.items() if found.high < 0.5]:
            said.append(f"Under chance: {', '.join(below)}. They carry label information with the wrong sign, as in a table whose words are "
                        "balanced over both classes.")
        said.append("What no row of this table asks: another wording, another topic, and whether the model uses what the probe reads.")
        return " ".join(said)

    def __str__(self) -> str:
        rows = {"probe": self.probe, **self.rivals}
        width = max(map(len, rows))
        return "\n".join([*(f"{name:<{width}}  {found}" for name, found in rows.items()), "", self.verdict])

    def figure(self) -> go.Figure:
        """The probe and its rivals as points with intervals, over the range of the shuffled labels."""
        rows = {"your probe": self.probe, **self.rivals} | ({"probe, groups torn apart": self.torn} if self.torn else {})
        names, found = list(rows), list(rows.values())
        fig = go.Figure(go.Scatter(
            x=[each.value for each in found], y=names, mode="markers",
            marker={"size": 12, "color": [PALETTE[0], *[PALETTE[1]] * len(self.rivals), GREY][:len(names)]},
            error_x={"array": [each.high - each.value for each in found], "arrayminus": [each.value - each.low for each in found]}))
        low, high = np.quantile(self.shuffled, [0.025, 0.975])
        fig.add_vrect(x0=low, x1=high, fillcolor=GREY, opacity=0.15, line_width=0)
        fig.add_vline(x=0.5, line={"dash": "dash", "color": GREY}, annotation_text="chance", annotation_position="top")
        return fig.update_layout(title=self.headline, yaxis={"autorange": "reversed", "title": ""}, margin={"l": 190},
                                 xaxis={"title": "AUROC on held-out groups, 95% interval; grey band: shuffled labels", "range": [-0.02, 1.05]})


def rival_table(model: TransformerBridge, table: Labelled, *, layer: int | None = None, position: str | int = "last",
                n_shuffles: int = 99, n_boot: int = 500, seed: int = 0, batch_size: int = 16) -> RivalReport:
    """Set a linear probe of your labels beside chapter 12's rivals.

    They are: the length of the text, the counts of its words, the mean of its token embeddings, the same network
    untrained, and labels that mean nothing; and, if you gave groups, the same probe with its groups torn apart.

    Args:
        table: your texts; see `utils.yours.tables`.
        layer: the block to read; None takes the middle one. Choosing the best by its score would flatter the probe.
        position: the token that is read, as in `collect_activations`; "mean" averages over the text.
        n_shuffles: runs in which a coin per group decides whether its labels are turned round.
        n_boot: resamples of the intervals.
        seed: of the folds, the coins, the resamples and the untrained network.

    Raises: TableError for a table that is too small (see `Labelled.require`), or whose groups cannot be spread so that
    every fold holds both classes; ValueError for a layer that the model does not have.
    """
    table.require()
    layer = model.cfg.n_layers // 2 if layer is None else layer
    if not 0 <= layer < model.cfg.n_layers:
        raise ValueError(f"layer {layer}: this model has the blocks 0 to {model.cfg.n_layers - 1}.")
    labels, groups = table.labels, table.groups
    folds = two_class_folds(labels, groups, seed)
    acts = collect_activations(model, table.texts, resid_post(layer), position=position, batch_size=batch_size)
    blank = collect_activations(untrained_like(model, seed), table.texts, resid_post(layer), position=position, batch_size=batch_size)
    described = _surface(model, table.texts, batch_size) | {"untrained network": blank}
    scores = _held_out(acts, labels, folds)
    others = {name: _held_out(x, labels, folds) for name, x in described.items()}

    def ahead(rival: Float[Tensor, " n"]) -> Estimate:
        def difference(rows: Int[Tensor, " n_drawn"]) -> float:
            return auroc(scores[rows], labels[rows]) - auroc(rival[rows], labels[rows])
        return grouped_estimate(difference, groups, n_boot, seed)

    coins, shuffled = torch.Generator().manual_seed(seed), []
    for _ in tqdm(range(n_shuffles), desc="shuffled labels", unit="run", delay=2, leave=False):
        fake = (labels + torch.randint(2, (int(groups.max()) + 1,), generator=coins)[groups]) % 2
        try:
            shuffled.append(auroc(_held_out(acts, fake, folds), fake))
        except ProbeError:  # by chance a part of the folds held one class only
            continue
    torn = None
    if len(groups.unique()) < len(groups):
        torn = auroc_with_interval(_held_out(acts, labels, two_class_folds(labels, torch.arange(len(labels)), seed)), labels, groups, n_boot, seed)
    return RivalReport(layer, auroc_with_interval(scores, labels, groups, n_boot, seed),
                       {name: auroc_with_interval(x, labels, groups, n_boot, seed) for name, x in others.items()},
                       {name: ahead(x) for name, x in others.items()}, torn, np.array(shuffled))


def rival_file(path: Path, name: str | None = None) -> int:
    """`python -m utils rivals`: print the table and the verdict of a CSV file, and write the figure into the current folder.

    Returns: the exit status; 2 for a table or a model that will not do, with the reason on stderr.
    """
    from utils import models

    try:
        table = read_table(path)
        table.require()
        report = rival_table(models.load_model(*filter(None, [name])), table)
    except (TableError, models.ModelError) as error:
        print(error, file=sys.stderr)
        return 2
    drawn = Path(f"{path.stem}_rivals.html")
    report.figure().write_html(drawn)
    print(f"{report}\nThe figure is in {drawn}.")
    return 0


def _held_out(x: Float[Tensor, "n d"], labels: Int[Tensor, " n"], folds: list[Bool[Tensor, " n"]]) -> Float[Tensor, " n"]:
    """Every row's log-odds from a logistic regression that has not met its fold."""
    scores = torch.zeros(len(labels))
    for test in folds:
        direction, bias = logistic(x[~test], labels[~test])
        scores[test] = x[test] @ direction + bias
    return scores


def _surface(model: TransformerBridge, texts: list[str], batch_size: int) -> dict[str, Float[Tensor, "n d"]]:
    """What can be known of each text before any block has run."""
    tokens = tokenize(model, texts)[1].sum(dim=1).cpu()
    counts = CountVectorizer(token_pattern=r"\S+", lowercase=False).fit_transform(texts).toarray()
    return {"length": torch.stack([tokens, torch.tensor([len(text) for text in texts])], 1).float(),
            "bag of words": torch.tensor(counts).float(),
            "mean embedding": collect_activations(model, texts, resid_pre(0), position="mean", max_norm_ratio=None, batch_size=batch_size)}
