"""Chapter 11 on your own texts: what is readable at which level, and would the words alone have done it?

Five folds of whole groups take turns: three make a direction at every level, one chooses the level, and the last is
scored with it. So every row gets one score, from a direction and a level that knew nothing of its group.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import plotly.graph_objects as go
import torch
from jaxtyping import Bool, Float, Int
from sklearn.model_selection import StratifiedGroupKFold
from torch import Tensor
from tqdm.auto import tqdm
from transformer_lens.model_bridge import TransformerBridge

from utils.activations import collect_activations, tokenize
from utils.hooks import resid_post, resid_pre
from utils.intervals import Estimate
from utils.plots import GREY, PALETTE, line_with_interval, reference_line
from utils.probes import ProbeError, auroc, grouped_estimate, logistic
from utils.yours.tables import Labelled, TableError, read_table

N_FOLDS = 5


@dataclass(frozen=True)
class ProbeReport:
    """What a layer sweep found; AUROCs of held-out groups, with 95% intervals over groups.

    Attributes:
        by_level: one per level; level 0 is the embedding.
        chosen: the level that each fold chose on its validation part.
        probe: mass-mean at the chosen levels. words: logistic regression on the mean token embedding and the length.
        difference: probe minus words, on the same rows.
        shuffled: the probe's AUROC in each run with labels that mean nothing, the choice of the level included.
    """

    by_level: list[Estimate]
    chosen: list[int]
    probe: Estimate
    words: Estimate
    difference: Estimate
    shuffled: Float[np.ndarray, " n_shuffles"]

    @property
    def headline(self) -> str:
        """The verdict in a few words."""
        if self.probe.high < 0.5:
            return "It comes out the wrong way round"
        if self.probe.low <= 0.5 or self.probe.value <= self.shuffled.max():
            return "Nothing that can be told from luck"
        if self.words.high < 0.5:
            return "Readable; the words alone come out the wrong way round"
        if self.difference.low <= 0:
            return "Readable, and perhaps from the words alone"
        return "Readable, and better than from the words alone"

    @property
    def verdict(self) -> str:
        """Three sentences: what was found, beside what, and what it does not show."""
        meaning = {
            "It comes out the wrong way round": "What goes with label 1 in some groups goes with label 0 in the others: look for a "
            "balance or a shared answer that ties groups together.",
            "Nothing that can be told from luck": "There may be nothing, or too few groups to see it: the interval says how much "
            "could have been missed.",
            "Readable; the words alone come out the wrong way round": "Do not count the difference: a balanced table turns the words round, "
            "and a score far below one half is no weak rival. Compare the probe with one half and with the shuffled labels.",
            "Readable, and perhaps from the words alone": "Nothing shows that the model computed anything: find texts in which the "
            "words do not give the label away.",
            "Readable, and better than from the words alone": "It is there in a straight line; whether it is what your labels mean, "
            "and whether the model uses it, is another question.",
        }[self.headline]
        return (f"{self.headline}. On groups that it has not met the probe orders {self.probe} of the pairs (0.5 is chance), the "
                f"words alone {self.words}, a difference of {self.difference}; labels without a meaning reach at most "
                f"{self.shuffled.max():.3f} in {len(self.shuffled)} runs. Levels chosen: {', '.join(map(str, self.chosen))} of "
                f"{len(self.by_level) - 1}. {meaning}")

    def figure(self) -> go.Figure:
        """The sweep over levels beside the words, the shuffled labels and chance."""
        levels = np.arange(len(self.by_level))
        values, low, high = np.array([(each.value, *each.interval) for each in self.by_level]).T
        fig = go.Figure(line_with_interval(levels, values, low, high, name="probe, each level", color=PALETTE[0]))
        fig.add_scatter(x=[np.median(self.chosen)], y=[self.probe.value], name="probe, level chosen without the test groups",
                        mode="markers", marker={"size": 12, "color": PALETTE[1], "symbol": "diamond"},
                        error_y={"array": [self.probe.high - self.probe.value], "arrayminus": [self.probe.value - self.probe.low]})
        fig.add_scatter(x=levels[[0, -1]], y=[self.words.value] * 2, name="the words alone", mode="lines",
                        line={"color": PALETTE[2], "width": 2, "dash": "dot"})
        fig.add_scatter(x=levels[[0, -1]], y=[self.shuffled.max()] * 2, name=f"best of {len(self.shuffled)} runs with shuffled labels",
                        mode="lines", line={"color": PALETTE[3], "width": 2, "dash": "dashdot"})
        reference_line(fig, 0.5, "chance")
        return fig.update_layout(title=f"{self.headline}: AUROC {self.probe.value:.2f}", xaxis_title="level (0 = embedding)",
                                 yaxis_title="AUROC on held-out groups, 95% interval", height=480, margin={"b": 150},
                                 legend={"orientation": "h", "x": 0, "y": -0.2})


def probe_table(model: TransformerBridge, table: Labelled, *, position: str | int = "last", n_shuffles: int = 50,
                n_boot: int = 500, seed: int = 0, batch_size: int = 16) -> ProbeReport:
    """Sweep all levels for a linear probe of your labels, with held-out groups and every control of chapter 11.

    Args:
        table: your texts; see `utils.yours.tables`.
        position: the token that is read, as in `collect_activations`; "mean" averages over the text.
        n_shuffles: runs in which a coin per group decides whether its labels are turned round.
        n_boot: resamples of the intervals.
        seed: of the folds, the coins and the resamples.

    Raises: TableError for a table that is too small (see `Labelled.require`), or whose groups cannot be spread so that
    every part holds both classes.
    """
    table.require()
    names = [resid_pre(0), *(resid_post(block) for block in range(model.cfg.n_layers))]
    found = collect_activations(model, table.texts, names, position=position, batch_size=batch_size)
    acts = torch.stack([found[name] for name in names])  # [n_levels, n, d_model]
    labels, groups = table.labels, table.groups
    folds = two_class_folds(labels, groups, seed)
    by_level, scores, chosen = _held_out(acts, labels, folds)
    words = _words_alone(model, table, folds, batch_size)
    coins = torch.Generator().manual_seed(seed)
    shuffled = []
    for _ in tqdm(range(n_shuffles), desc="shuffled labels", unit="run", delay=2, leave=False):
        fake = (labels + torch.randint(2, (int(groups.max()) + 1,), generator=coins)[groups]) % 2
        try:
            shuffled.append(auroc(_held_out(acts, fake, folds)[1], fake))
        except ProbeError:  # by chance a part of the folds held one class only
            continue

    def estimate(statistic):
        return grouped_estimate(statistic, groups, n_boot=n_boot, seed=seed)

    return ProbeReport(
        [estimate(lambda rows: auroc(level[rows], labels[rows])) for level in by_level], chosen,
        estimate(lambda rows: auroc(scores[rows], labels[rows])), estimate(lambda rows: auroc(words[rows], labels[rows])),
        estimate(lambda rows: auroc(scores[rows], labels[rows]) - auroc(words[rows], labels[rows])), np.array(shuffled))


def probe_file(path: Path, name: str | None = None) -> int:
    """`python -m utils probe`: print the verdict on a CSV file, and write its figure into the current folder.

    Returns: the exit status; 2 for a table or a model that will not do, with the reason on stderr.
    """
    from utils import models
    from utils.default_model import DEFAULT_MODEL

    try:
        table = read_table(path)
        table.require()
        report = probe_table(models.load_model(name or DEFAULT_MODEL), table)
    except (TableError, models.ModelError) as error:
        print(error, file=sys.stderr)
        return 2
    drawn = Path(f"{path.stem}_probe.html")
    report.figure().write_html(drawn)
    print(f"{report.verdict}\nThe figure is in {drawn}.")
    return 0


def two_class_folds(labels: Int[Tensor, " n"], groups: Int[Tensor, " n"], seed: int) -> list[Bool[Tensor, " n"]]:
    """Masks of five parts of whole groups, each with both classes; every row is in one of them.

    Raises: TableError for groups that cannot be spread like that.
    """
    splitter = StratifiedGroupKFold(N_FOLDS, shuffle=True, random_state=seed)
    masks = []
    for _, rows in splitter.split(labels, labels.numpy(), groups.numpy()):
        if len(labels[rows].unique()) < 2:
            raise TableError("the groups cannot be spread over five parts that hold both classes each: more groups are "
                             "needed, or groups that are more alike in size and label.")
        masks.append(torch.zeros(len(labels), dtype=torch.bool).index_fill(0, torch.from_numpy(rows), True))
    return masks


def _held_out(acts: Float[Tensor, "n_levels n d_model"], labels: Int[Tensor, " n"], folds: list[Bool[Tensor, " n"]]
              ) -> tuple[Float[Tensor, "n_levels n"], Float[Tensor, " n"], list[int]]:
    """Every row's score from directions that have not met its group: at each level, and at the level its fold chose."""
    by_level, at_chosen, chosen = torch.zeros(acts.shape[:2]), torch.zeros(acts.shape[1]), []
    for turn, test in enumerate(folds):
        val = folds[(turn + 1) % len(folds)]
        train = ~(test | val)
        means = [acts[:, train & (labels == label)].mean(dim=1) for label in (0, 1)]  # [n_levels, d_model] each
        direction = means[1] - means[0]
        scores = torch.einsum("lnd,ld->ln", acts, direction)
        # Folds are scored by different directions: the midpoint becomes 0 and the spread 1 before they are compared.
        midpoint = torch.einsum("ld,ld->l", means[0] + means[1], direction) / 2
        scores = (scores - midpoint[:, None]) / scores[:, train].std(dim=1, keepdim=True).clamp(min=1e-12)
        areas = [auroc(level[val], labels[val]) for level in scores]
        level = areas.index(max(areas))
        by_level[:, test], at_chosen[test] = scores[:, test], scores[level, test]
        chosen.append(level)
    return by_level, at_chosen, chosen


def _words_alone(model: TransformerBridge, table: Labelled, folds: list[Bool[Tensor, " n"]], batch_size: int) -> Float[Tensor, " n"]:
    """Held-out log-odds of a logistic regression on each text's mean token embedding and its number of tokens."""
    embedded = collect_activations(model, table.texts, resid_pre(0), position="mean", max_norm_ratio=None, batch_size=batch_size)
    length = tokenize(model, table.texts)[1].sum(dim=1).cpu()
    surface = torch.cat([embedded, length[:, None]], dim=1)
    scores = torch.zeros(len(table))
    for test in folds:
        direction, bias = logistic(surface[~test], table.labels[~test])
        scores[test] = surface[test] @ direction + bias
    return scores
