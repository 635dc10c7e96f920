"""Numbers read from a model: a random split beside held-out groups, and a verdict that follows from the two."""

import numpy as np
import pytest
import torch
from sklearn.metrics import r2_score

from utils import __main__ as commands
from utils.intervals import Estimate
from utils.models import tiny_model
from utils.yours import numbers as module
from utils.yours.numbers import NumberReport, number_file, number_table
from utils.yours.tables import TableError, Valued

THINGS = ["city", "cities", "key", "keys", "cabinet", "dog", "dogs", "film", "Paris", "France", "Lagos", "Lima"]


def many(groups=True):
    """How often "very" stands in the text: what any network keeps."""
    rows = [(f"The {thing} is {'very ' * times}good.", float(times), thing) for thing in THINGS for times in range(4)]
    texts, values, names = zip(*rows)
    return Valued(list(texts), list(values), list(names) if groups else None)


def report(random=0.5, held_out=0.3, beyond=0.2, grouped=True, width=0.1):
    about = lambda value: Estimate(value, value - width, value + width)
    zeros = torch.zeros(3)
    return NumberReport(1, zeros, zeros, zeros, about(random), about(held_out), about(held_out - beyond), about(random - held_out), about(beyond),
                        np.array([-0.2, 0.05]), grouped)


@pytest.fixture(scope="module")
def found():
    return number_table(tiny_model(), many(), n_shuffles=5, n_boot=60)


def test_what_carries_over_is_found(found):
    assert found.random.low > 0 and found.held_out.low > 0 and found.headline.startswith("It carries over")
    assert found.held_out.value == pytest.approx(r2_score(found.values, found.far), abs=1e-5)
    assert found.lost.value == pytest.approx(found.random.value - found.held_out.value)
    assert len(found.shuffled) == 5 and found.shuffled.max() < found.held_out.value


def test_the_figure_has_both_splits(found):
    fig = found.figure()
    assert fig.layout.title.text == found.headline and [len(trace.x) for trace in fig.data] == [48, 2, 48, 2]


def test_what_belongs_to_a_group_does_not_carry_over():
    """A group's value is written in a feature of its own: neighbours know it, strangers do not."""
    groups = torch.arange(20).repeat_interleave(5)
    acts = torch.nn.functional.one_hot(groups).float()
    values = torch.randn(20, generator=torch.Generator().manual_seed(0))[groups]
    near, far = (module._out_of_fold(acts, values, split, 1e-3, 0) for split in (torch.arange(100), groups))
    assert module._r_squared(near, values) > 0.8 > 0.1 > module._r_squared(far, values)


@pytest.mark.parametrize("changes, words", [({}, "beyond"), ({"beyond": 0.05}, "perhaps by the words"), ({"held_out": 0.05}, "relatives only"),
                                            ({"random": 0.05}, "luck"), ({"grouped": False}, "without groups")])
def test_the_verdict_follows_from_the_scores(changes, words):
    assert words in report(**changes).headline and report(**changes).verdict.startswith(report(**changes).headline)


def test_without_groups_it_says_so():
    alone = number_table(tiny_model(), many(groups=False), n_shuffles=2, n_boot=20)
    assert not alone.grouped and torch.equal(alone.near, alone.far) and "Give every text a group" in alone.verdict


def test_what_it_refuses(tmp_path, capsys):
    with pytest.raises(TableError, match="3 rows: at least 20"):
        number_table(tiny_model(), Valued(["a", "b", "c"], [1, 2, 3]))
    with pytest.raises(TableError, match="2 groups"):
        number_table(tiny_model(), Valued([f"dog {i}" for i in range(30)], list(range(30)), [i % 2 for i in range(30)]))
    with pytest.raises(ValueError, match="blocks 0 to 2"):
        number_table(tiny_model(), many(), layer=-1)
    assert number_file(tmp_path / "no.csv") == 2 and "no file" in capsys.readouterr().err


def test_from_the_shell(tmp_path, monkeypatch, capsys):
    table = many()
    rows = [f"{text},{value},{group}" for text, value, group in zip(table.texts, table.values.tolist(), table.groups.tolist())]
    (tmp_path / "my.csv").write_text("\n".join(["text,value,group", *rows]))
    monkeypatch.setattr("utils.models.load_model", lambda *name: tiny_model())
    monkeypatch.chdir(tmp_path)
    assert commands.main(["numbers", str(tmp_path / "my.csv"), "--model", "any"]) == 0
    assert "In layer" in capsys.readouterr().out and "plotly" in (tmp_path / "my_numbers.html").read_text("utf-8")
