"""What chapter 33 says about a learner's own texts."""

import torch

from utils.intervals import Estimate
from utils.yours.dictionaries import DictionaryReport, _held_out


def test_the_verdict_names_whom_it_beats_and_whom_not():
    scores = {name: Estimate(0.8, 0.7, 0.9) for name in ("dense probe", "trained", "frozen decoder")}
    report = DictionaryReport(16, scores, {"dense probe": Estimate(-0.1, -0.2, -0.01), "frozen decoder": Estimate(0.1, 0.02, 0.2)})
    assert "Clearly ahead of: frozen decoder" in report.verdict and "Clearly behind: dense probe" in report.verdict
    assert len(report.figure().data[0].y) == 3


def test_every_row_is_scored_by_a_probe_that_has_not_met_it():
    rng = torch.Generator().manual_seed(0)
    labels = torch.tensor([0, 1] * 20)
    x = torch.randn(40, 12, generator=rng)
    x[:, 3] += 6 * labels
    folds = [torch.arange(40) % 5 == i for i in range(5)]
    scores = _held_out(x, labels, folds, 2)
    assert scores[labels == 1].min() > scores[labels == 0].max()
    noise = _held_out(torch.randn(40, 500, generator=rng), labels, folds, 16)
    assert (noise[labels == 1].mean() - noise[labels == 0].mean()).abs() < 4
