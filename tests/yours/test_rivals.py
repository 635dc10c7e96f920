"""The rivals of a learner's own probe: the same rows and folds for all, and a verdict that follows from them."""

import numpy as np
import pytest
import torch

from utils import __main__ as commands
from utils.intervals import Estimate
from utils.models import tiny_model
from utils.yours import rivals as module
from utils.yours.rivals import RivalReport, rival_file, rival_table
from utils.yours.tables import Labelled, TableError

THINGS = ["city", "cities", "key", "keys", "cabinet", "dog", "dogs", "film", "Paris", "France", "Lagos", "Lima"]


def reviews():
    return Labelled([f"The {thing} is very {word}." for thing in THINGS for word in ("good", "bad")], [1, 0] * len(THINGS),
                    [thing for thing in THINGS for _ in range(2)])


def report(probe=(0.9, 0.8, 0.95), ahead=(0.2, 0.1, 0.3), shuffled=(0.4, 0.6) * 30):
    return RivalReport(1, Estimate(*probe), {"length": Estimate(0.6, 0.5, 0.7), "bag of words": Estimate(0.2, 0.1, 0.3)},
                       {"length": Estimate(*ahead), "bag of words": Estimate(0.7, 0.6, 0.8)}, None, np.array(shuffled))


@pytest.fixture(scope="module")
def found():
    return rival_table(tiny_model(), reviews(), position=-2, n_shuffles=20, n_boot=60)


def test_what_one_word_says_is_explained_by_the_words(found):
    assert found.layer == 1 and found.probe.value > 0.9
    assert list(found.rivals) == list(found.ahead) == ["length", "bag of words", "mean embedding", "untrained network"]
    assert {"bag of words", "mean embedding"} <= set(found.unbeaten) and found.headline.startswith("Not clearly ahead of: ")
    assert found.torn is not None and len(found.shuffled) == 20 and 0.3 < found.shuffled.mean() < 0.7
    for name, rival in found.rivals.items():
        assert found.ahead[name].value == pytest.approx(found.probe.value - rival.value)
    assert "bag of words" in str(found) and str(found).endswith(found.verdict)


def test_the_figure_shows_every_rival(found):
    fig = found.figure()
    assert list(fig.data[0].y) == ["your probe", *found.rivals, "probe, groups torn apart"] and fig.layout.title.text == found.headline


@pytest.mark.parametrize("changes, words", [({}, "stands"), ({"ahead": (0.1, -0.1, 0.2)}, "ahead of: length"), ({"probe": (0.55, 0.45, 0.65)}, "Luck"),
                                            ({"shuffled": (0.05, 0.95) * 30}, "Luck"), ({"probe": (0.2, 0.1, 0.3)}, "wrong way round")])
def test_the_verdict_follows_from_the_rivals(changes, words):
    assert words in report(**changes).headline


def test_a_rival_under_chance_is_named():
    assert "Under chance: bag of words" in report().verdict


def test_no_row_is_scored_by_a_probe_that_met_its_group():
    """The label is written in a feature of each group's own and nowhere else: held out, there is nothing to find."""
    groups, labels = torch.arange(40).repeat_interleave(2), torch.tensor([0, 1] * 40)
    x = torch.zeros(80, 40)
    x[torch.arange(80), groups] = labels * 2.0 - 1
    scores = module._held_out(x, labels, module.two_class_folds(labels, groups, 0))
    assert scores.abs().max() < 1e-6


def test_what_it_refuses(tmp_path, capsys):
    with pytest.raises(TableError, match="label 0 has 2 rows"):
        rival_table(tiny_model(), Labelled(["a", "b", "c", "d"], [1, 1, 0, 0]))
    with pytest.raises(ValueError, match="blocks 0 to 2"):
        rival_table(tiny_model(), reviews(), layer=3)
    assert rival_file(tmp_path / "no.csv") == 2 and "no file" in capsys.readouterr().err


def test_from_the_shell(tmp_path, monkeypatch, capsys):
    table = reviews()
    rows = [f"{text},{label},{group}" for text, label, group in zip(table.texts, table.labels.tolist(), table.groups.tolist())]
    (tmp_path / "my.csv").write_text("\n".join(["text,label,group", *rows]))
    monkeypatch.setattr("utils.models.load_model", lambda *name: tiny_model())
    monkeypatch.chdir(tmp_path)
    assert commands.main(["rivals", str(tmp_path / "my.csv"), "--model", "any"]) == 0
    assert "The nearest rival" in capsys.readouterr().out and "plotly" in (tmp_path / "my_rivals.html").read_text("utf-8")
