"""Chapter 15 on your own texts: would you deploy a probe of them, at a budget of false alarms on chat that has nothing to do with it?

Five folds of whole groups take turns. A probe is trained on the other four and on a third of the unrelated chat, its threshold is set on
another third, and the texts of the fold and the last third of the chat are what it is judged on.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import plotly.graph_objects as go
import torch
from jaxtyping import Bool, Float
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from torch import Tensor
from torch.nn import functional as F
from transformer_lens.model_bridge import TransformerBridge

from utils.data.duty import unrelated_chat
from utils.hooks import resid_post
from utils.intervals import Estimate, paired_share_difference, share
from utils.plots import PALETTE, error_bars
from utils.steering.monitor import fit_token_probe, padded_tokens
from utils.yours.probe import two_class_folds
from utils.yours.tables import Labelled, TableError, read_table


@dataclass(frozen=True)
class MonitorReport:
    """What a monitor of your label 1 would do; shares with exact 95% intervals, each of your texts judged by a probe that has not met its group.

    Attributes:
        recall: of the texts with label 1, the share that raises an alarm. harmless: the same of those with label 0.
        chat: the share of the unrelated chat that raises one, mean over the five folds' probes; budget is what was asked for.
        words: the recall of a bag of words at the same budget; difference is the probe's minus it, on the same texts.
        layer: the block whose output was read.
    """

    recall: Estimate
    harmless: Estimate
    chat: Estimate
    words: Estimate
    difference: Estimate
    budget: float
    layer: int

    @property
    def headline(self) -> str:
        """The verdict in a few words."""
        if self.recall.high < 0.5:
            return "Not for duty: it misses most"
        if self.harmless.low > self.budget:
            return "It finds your texts, and many that only look like them"
        if self.chat.low > self.budget:
            return "It finds your texts, and overdraws its budget"
        if self.difference.low <= 0:
            return "No better than a bag of words"
        return "It finds your texts within its budget"

    @property
    def verdict(self) -> str:
        """The numbers behind the headline."""
        return (f"{self.headline}. Alarms on {self.recall} of the texts with label 1, on {self.harmless} of those with label 0 and on "
                f"{self.chat} of the unrelated chat, where {self.budget:.1%} was the budget. A bag of words at the same budget finds "
                f"{self.words}, a difference of {self.difference}. Read after block {self.layer}.")

    def figure(self) -> go.Figure:
        """Alarms by kind of text."""
        found = {"label 1": self.recall, "label 1, bag of words": self.words, "label 0": self.harmless, "unrelated chat": self.chat}
        colors = [PALETTE[1], PALETTE[4], PALETTE[0], PALETTE[2]]
        fig = go.Figure(go.Bar(x=list(found), y=[each.value for each in found.values()], marker_color=colors, error_y=error_bars(found.values())))
        return fig.update_layout(title=f"{self.headline}: {self.recall.value:.0%} found, {self.harmless.value:.0%} of label 0 flagged",
                                 yaxis={"title": "share that raises an alarm, 95% interval", "range": [0, 1.03]})


def monitor_table(model: TransformerBridge, table: Labelled, chat: Sequence[str] | None = None, *, budget: float = 0.01, depth: float = 0.55,
                  seed: int = 0, batch_size: int = 16) -> MonitorReport:
    """Train, set and judge a monitor for label 1 of your table.

    Args:
        table: your texts; see `utils.yours.tables`. Those with label 0 should look like those with label 1.
        chat: unrelated harmless texts, at least 300; None takes `unrelated_chat()`.
        budget: the share of unrelated chat that may raise an alarm.
        depth: which block is read, as a share of the depth.
        seed: of the folds and of the thirds of the chat.

    Raises: TableError for a table that is too small; ValueError for too little chat.
    """
    table.require()
    chat = unrelated_chat() if chat is None else list(chat)
    if len(chat) < 300:
        raise ValueError(f"{len(chat)} unrelated texts: a third of them sets a threshold, so give at least 300.")
    layer = round(depth * (model.cfg.n_layers - 1))
    texts = [*table.texts, *chat]
    parts = [padded_tokens(model, own, resid_post(layer), batch_size=batch_size) for own in (table.texts, chat)]
    width = max(mask.shape[1] for _, mask in parts)
    acts = torch.cat([F.pad(acts, (0, 0, 0, width - acts.shape[1])) for acts, _ in parts])
    mask = torch.cat([F.pad(mask, (0, width - mask.shape[1])) for _, mask in parts])
    labels = torch.cat([table.labels, torch.zeros(len(chat), dtype=torch.long)])
    third = torch.cat([torch.full((len(table.texts),), -1), torch.randint(3, (len(chat),), generator=torch.Generator().manual_seed(seed))])
    alarms, by_words = torch.zeros(len(texts)), torch.zeros(len(texts), dtype=torch.bool)
    folds = list(two_class_folds(table.labels, table.groups, seed))
    for fold in folds:
        test = torch.cat([fold, torch.zeros(len(chat), dtype=torch.bool)])
        train = (third == 0) | ((third == -1) & ~test)
        rings = _rings(fit_token_probe(acts[train], mask[train], labels[train], steps=60)(acts, mask), third == 1, budget)
        alarms[test] = rings[test].float()
        alarms[third == 2] += rings[third == 2] / len(folds)  # each fold's probe has its say on the chat
        by_words[test] = _rings(_word_scores(texts, labels, train), third == 1, budget)[test]
    bad, good, judged = ((third == -1) & (labels == 1)), ((third == -1) & (labels == 0)), third == 2

    def of(rows: Bool[Tensor, " n"], found: Float[Tensor, " n"]) -> Estimate:
        return share(round(float(found[rows].sum())), int(rows.sum()))

    return MonitorReport(of(bad, alarms), of(good, alarms), of(judged, alarms), of(bad, by_words.float()),
                         paired_share_difference(alarms[bad] > 0.5, by_words[bad]), budget, layer)


def monitor_file(path: Path, name: str | None = None) -> int:
    """`python -m utils monitor`: print the verdict on a CSV file, and write the figure into the current folder.

    Returns: the exit status; 2 for a table, a model or chat that will not do, with the reason on stderr.
    """
    from utils import models
    from utils.data.fetch import FetchError

    try:
        table = read_table(path)
        table.require()
        report = monitor_table(models.load_model(*filter(None, [name])), table)
    except (TableError, models.ModelError, FetchError) as error:
        print(error, file=sys.stderr)
        return 2
    drawn = Path(f"{path.stem}_monitor.html")
    report.figure().write_html(drawn)
    print(f"{report.verdict}\nThe figure is in {drawn}.")
    return 0


def _rings(scores: Float[Tensor, " n"], setting: Bool[Tensor, " n"], budget: float) -> Bool[Tensor, " n"]:
    """Which texts score above the threshold that lets no more of the `setting` texts ring than the budget allows."""
    allowed = scores[setting].sort(descending=True).values
    return scores > allowed[math.floor(budget * len(allowed) + 1e-9)]


def _word_scores(texts: Sequence[str], labels: Tensor, train: Bool[Tensor, " n"]) -> Float[Tensor, " n"]:
    """Log-odds of a logistic regression on which words a text holds."""
    words = CountVectorizer(binary=True)
    seen = words.fit_transform([text for text, kept in zip(texts, train) if kept])
    fitted = LogisticRegression(max_iter=1000).fit(seen, labels[train].numpy())
    return torch.from_numpy(fitted.decision_function(words.transform(texts))).float()
