"""Chapter 33 on your own labelled texts: does a trained SAE help a probe, and would a frozen one have helped as much?

Five folds of whole groups take turns. Everybody is fitted on four of them and scores the fifth: a dense probe on all
dimensions, and probes that may look at k features only, picked on the same four folds from each dictionary.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import plotly.graph_objects as go
import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from utils.activations import collect_activations
from utils.intervals import Estimate
from utils.plots import GREY, PALETTE
from utils.probes import auroc, auroc_with_interval, grouped_estimate, logistic
from utils.sae.model import check_fits
from utils.sae.rivals import CFG, MODEL, load_rivals
from utils.yours.probe import two_class_folds
from utils.yours.tables import Labelled, TableError, read_table

DICTIONARIES = ("trained", "second seed", "frozen decoder", "frozen encoder", "soft-frozen decoder")


@dataclass(frozen=True)
class DictionaryReport:
    """AUROCs on groups that had no say, with 95% intervals over groups.

    Attributes:
        k: how many features a sparse probe may look at.
        scores: the dense probe, the k latents of each dictionary, and k of the model's own coordinates.
        ahead: the trained SAE minus each of the others, on the same rows.
    """

    k: int
    scores: dict[str, Estimate]
    ahead: dict[str, Estimate]

    @property
    def verdict(self) -> str:
        """Whom the trained SAE is clearly ahead of, whom it is clearly behind, and whom neither."""
        beaten = [name for name, found in self.ahead.items() if found.low > 0]
        better = [name for name, found in self.ahead.items() if found.high < 0]
        neither = [name for name in self.ahead if name not in beaten + better]
        said = f"{self.k} latents of the trained SAE have an AUROC of {self.scores['trained']} on groups that they have not met."
        said += f" Clearly ahead of: {', '.join(beaten)}." if beaten else " They are clearly ahead of nobody here."
        said += f" Clearly behind: {', '.join(better)}." if better else ""
        return said + (f" Neither: {', '.join(neither)}; that may be because they are level, or because the table is small." if neither else "")

    def figure(self) -> go.Figure:
        """Everybody's AUROC as a point with its interval."""
        names, found = list(self.scores), list(self.scores.values())
        fig = go.Figure(go.Scatter(
            x=[each.value for each in found], y=names, mode="markers",
            marker={"size": 12, "color": [PALETTE[0] if name == "trained" else PALETTE[1] for name in names]},
            error_x={"array": [each.high - each.value for each in found], "arrayminus": [each.value - each.low for each in found]}))
        fig.add_vline(x=0.5, line={"dash": "dash", "color": GREY}, annotation_text="chance", annotation_position="top")
        ours, theirs = self.scores["trained"].value, self.scores["dense probe"].value
        return fig.update_layout(title=f"{self.k} latents of the trained SAE {ours:.2f}, a dense probe {theirs:.2f}",
                                 yaxis={"autorange": "reversed", "title": ""},
                                 xaxis={"title": "AUROC on held-out groups, 95% interval", "range": [-0.02, 1.05]}, margin={"l": 170})


def dictionary_report(model: TransformerBridge, table: Labelled, *, k: int = 16, position: str | int = "last", n_boot: int = 500,
                      seed: int = 0) -> DictionaryReport:
    """Set k latents of the chapter's trained SAE beside a dense probe, other dictionaries and the model's own coordinates.

    Args:
        model: the one that the SAEs were trained on.
        table: your texts; see `utils.yours.tables`.
        k: how many features a sparse probe may look at.
        position: the token that is read, as in `collect_activations`.

    Raises: TableError for a table that is too small, or whose groups cannot be spread over five folds with both classes; SAEError for
    another model.
    """
    table.require()
    saes = load_rivals()
    check_fits(model, saes["trained"])
    labels, groups = table.labels, table.groups
    folds = two_class_folds(labels, groups, seed)
    acts = collect_activations(model, table.texts, CFG.hook_name, position=position)
    with torch.no_grad():
        features = {name: saes[name].encode(acts) for name in DICTIONARIES} | {"coordinates": acts}
    held = {"dense probe": _held_out(acts, labels, folds, acts.shape[1])}
    held |= {name: _held_out(x, labels, folds, k) for name, x in features.items()}

    def ahead(rival: Float[Tensor, " n"]) -> Estimate:
        return grouped_estimate(lambda rows: auroc(held["trained"][rows], labels[rows]) - auroc(rival[rows], labels[rows]), groups, n_boot, seed)

    return DictionaryReport(k, {name: auroc_with_interval(x, labels, groups, n_boot, seed) for name, x in held.items()},
                            {name: ahead(x) for name, x in held.items() if name != "trained"})


def dictionary_file(path: Path, k: int = 16) -> int:
    """`python -m utils dictionaries`: print the verdict on a CSV file, and write its figure into the current folder.

    Returns: the exit status; 2 for a table that will not do, with the reason on stderr.
    """
    from utils.models import load_model

    try:
        table = read_table(path)
        table.require()
        report = dictionary_report(load_model(MODEL), table, k=k)
    except TableError as error:
        print(error, file=sys.stderr)
        return 2
    drawn = Path(f"{path.stem}_dictionaries.html")
    report.figure().write_html(drawn)
    print(f"{report.verdict}\nThe figure is in {drawn}.")
    return 0


def _held_out(x: Float[Tensor, "n d"], labels: Int[Tensor, " n"], folds: list[Tensor], k: int) -> Float[Tensor, " n"]:
    """Every row's log-odds from a probe on the k features that differ most in the other folds."""
    scores = torch.zeros(len(labels))
    for test in folds:
        seen, known = x[~test], labels[~test]
        apart = (seen[known == 1].mean(0) - seen[known == 0].mean(0)).abs() / seen.std(0, correction=0).clamp(min=1e-12)
        some = torch.where((seen != seen[:1]).any(0), apart, 0).topk(min(k, x.shape[1])).indices
        direction, bias = logistic(seen[:, some], known)
        scores[test] = x[test][:, some] @ direction + bias
    return scores
