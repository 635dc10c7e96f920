"""The probe of a learner's own table: held out by group, beside its controls, with a verdict that follows from them."""

import numpy as np
import pytest
import torch

from utils import __main__ as commands
from utils.intervals import Estimate
from utils.models import tiny_model
from utils.yours import probe as module
from utils.yours.probe import ProbeReport, probe_table
from utils.yours.tables import Labelled, TableError

THINGS = ["city", "cities", "key", "keys", "cabinet", "dog", "dogs", "film", "Paris", "France", "Lagos", "Lima"]


def reviews(words=("good", "bad")):
    return Labelled([f"The {thing} is very {word}." for thing in THINGS for word in words], [1, 0] * len(THINGS),
                    [thing for thing in THINGS for _ in words])


def report(probe=(0.9, 0.8, 0.95), difference=(0.2, 0.1, 0.3), words=(0.7, 0.6, 0.8), shuffled=(0.4, 0.6)):
    return ProbeReport([Estimate(0.5, 0.4, 0.6), Estimate(*probe)], [1] * 5, Estimate(*probe), Estimate(*words), Estimate(*difference), np.array(shuffled))


@pytest.fixture(scope="module")
def found():
    return probe_table(tiny_model(), reviews(), position=-2, n_shuffles=8, n_boot=60)


def test_what_one_word_says_is_found_and_blamed_on_the_words(found):
    assert found.probe.value > 0.9 and found.words.value > 0.9
    assert found.headline == "Readable, and perhaps from the words alone" and found.verdict.startswith(found.headline)
    assert len(found.by_level) == 4 and len(found.chosen) == 5 and len(found.shuffled) == 8 and 0.3 < found.shuffled.mean() < 0.7


def test_the_figure_shows_every_control(found):
    fig = found.figure()
    names = {trace.name for trace in fig.data}
    assert {"the words alone", "best of 8 runs with shuffled labels"} <= names and fig.layout.title.text.startswith(found.headline)


@pytest.mark.parametrize("changes, words", [({}, "better than from the words"), ({"difference": (0.1, -0.1, 0.2)}, "perhaps from the words"),
                                            ({"probe": (0.55, 0.45, 0.65)}, "luck"), ({"shuffled": (0.5, 0.92)}, "luck"),
                                            ({"probe": (0.2, 0.1, 0.3)}, "It comes out the wrong way round"),
                                            ({"words": (0.1, 0.05, 0.2)}, "the words alone come out the wrong way round")])
def test_the_verdict_follows_from_the_controls(changes, words):
    assert words in report(**changes).headline


def test_no_group_helps_to_make_its_own_direction(monkeypatch):
    """The label of each group's rows is written in its activations and nowhere else: held out, there is nothing to find."""
    groups = torch.arange(40).repeat_interleave(2)
    acts = torch.zeros(2, 80, 60)
    labels = torch.tensor([0, 1] * 40)
    acts[1, torch.arange(80), groups] = labels * 2.0 - 1
    folds = module.two_class_folds(labels, groups, 0)
    assert sum(fold.int() for fold in folds).eq(1).all()
    by_level, scores, chosen = module._held_out(acts, labels, folds)
    assert scores.eq(0).all() and by_level.eq(0).all() and set(chosen) == {0}


def test_small_tables_are_refused():
    with pytest.raises(TableError, match="label 0 has 2 rows"):
        probe_table(tiny_model(), Labelled(["a", "b", "c", "d"], [1, 1, 0, 0]))
    lopsided = Labelled([f"dog {i}" for i in range(100)], [0] * 50 + [1] * 50, [i if i < 50 else 100 + i % 4 for i in range(100)])
    with pytest.raises(TableError, match="label 1 occurs in 4 groups"):
        probe_table(tiny_model(), lopsided)


def test_from_the_shell(tmp_path, monkeypatch, capsys):
    table = reviews()
    path = tmp_path / "my.csv"
    path.write_text("text,label,group\n" + "".join(f"{text},{label},{group}\n" for text, label, group in zip(table.texts, table.labels.tolist(), table.groups.tolist())))
    monkeypatch.setattr("utils.models.load_model", lambda name: tiny_model())
    monkeypatch.chdir(tmp_path)
    assert commands.main(["probe", str(path), "--model", "any"]) == 0
    assert "Levels chosen" in capsys.readouterr().out and "plotly" in (tmp_path / "my_probe.html").read_text("utf-8")
    assert commands.main(["probe", str(tmp_path / "other.csv")]) == 2
    assert "no file" in capsys.readouterr().err
