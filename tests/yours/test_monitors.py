"""A monitor of a learner's own table: judged on groups it has not met, with a verdict that follows from the numbers."""

import pytest
import torch

from utils import __main__ as commands
from utils.intervals import Estimate, share
from utils.models import tiny_model
from utils.yours.monitors import MonitorReport, monitor_file, monitor_table
from utils.yours.tables import Labelled, TableError

THINGS = ["city", "cities", "key", "keys", "cabinet", "dog", "dogs", "film", "Paris", "France", "Lagos", "Lima"]
CHAT = [f"The {one} of {two} is near the {three}" for one in THINGS for two in THINGS[:6] for three in THINGS[:5]]


def table(dealt=False):
    """48 pairs that differ in their last word; `dealt`: a coin deals the labels within each pair, so that nothing can be learned."""
    pairs = [(one, two) for one in THINGS for two in THINGS[:4]]
    flip = torch.randint(2, (len(pairs),), generator=torch.Generator().manual_seed(0)).repeat_interleave(2) if dealt else 0
    labels = (torch.tensor([1, 0] * len(pairs)) + flip) % 2
    return Labelled([f"The {one} of {two} is very {word}" for one, two in pairs for word in ("good", "bad")], labels,
                    [f"{one} {two}" for one, two in pairs for _ in range(2)])


def report(recall=(40, 50), harmless=(0, 50), chat=(3, 400), difference=Estimate(0.3, 0.1, 0.5)):
    return MonitorReport(share(*recall), share(*harmless), share(*chat), share(20, 50), difference, 0.01, 9)


@pytest.fixture(scope="module")
def found():
    return monitor_table(tiny_model(), table(), CHAT, budget=0.05)


def test_label_1_rings_more_often_than_label_0(found):
    assert found.recall.value - found.harmless.value > 0.4 and found.words.value > 0.9 and found.layer == 1
    assert found.verdict.startswith(found.headline) and found.figure().layout.title.text.startswith(found.headline)


def test_where_nothing_can_be_learned_both_labels_ring_alike():
    """A probe that had met the pair it judges would do worse on it than chance, or better."""
    dealt = monitor_table(tiny_model(), table(dealt=True), CHAT, budget=0.05)
    assert abs(dealt.recall.value - dealt.harmless.value) < 0.2


def test_the_budget_is_kept_on_chat_that_set_nothing(found):
    assert found.chat.low < 0.05 < found.chat.high


@pytest.mark.parametrize("changes, words", [({}, "within its budget"), ({"recall": (5, 50)}, "Not for duty"), ({"harmless": (20, 50)}, "only look like"),
                                            ({"chat": (40, 400)}, "overdraws"), ({"difference": Estimate(0.1, -0.1, 0.3)}, "bag of words")])
def test_the_verdict_follows_from_the_numbers(changes, words):
    assert words in report(**changes).headline


def test_too_little_is_refused():
    with pytest.raises(ValueError, match="300"):
        monitor_table(tiny_model(), table(), CHAT[:50])
    with pytest.raises(TableError):
        monitor_table(tiny_model(), Labelled(["a key", "a dog"], [0, 1]), CHAT)


def test_from_the_shell(tmp_path, monkeypatch, capsys):
    mine = table()
    rows = [f"{text},{label},{group}" for text, label, group in zip(mine.texts, mine.labels.tolist(), mine.groups.tolist())]
    (tmp_path / "my.csv").write_text("\n".join(["text,label,group", *rows]))
    monkeypatch.setattr("utils.models.load_model", lambda *name: tiny_model())
    monkeypatch.setattr("utils.yours.monitors.unrelated_chat", lambda: CHAT)
    monkeypatch.chdir(tmp_path)
    assert commands.main(["monitor", str(tmp_path / "my.csv"), "--model", "any"]) == 0
    assert "A bag of words at the same budget" in capsys.readouterr().out and "plotly" in (tmp_path / "my_monitor.html").read_text("utf-8")
    assert monitor_file(tmp_path / "no.csv") == 2 and "no file" in capsys.readouterr().err
