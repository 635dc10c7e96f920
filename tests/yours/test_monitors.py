"""A monitor of a learner's own table: judged on groups it has not met, with a verdict that follows from the numbers."""

import pytest

from utils.intervals import Estimate, share
from utils.models import tiny_model
from utils.yours.monitors import MonitorReport, monitor_table
from utils.yours.tables import Labelled, TableError

THINGS = ["city", "cities", "key", "keys", "cabinet", "dog", "dogs", "film", "Paris", "France", "Lagos", "Lima"]
CHAT = [f"The {one} of {two} is near the {three}" for one in THINGS for two in THINGS[:6] for three in THINGS[:5]]


def table():
    return Labelled([f"The {thing} is very {word}" for thing in THINGS for word in ("good", "bad")], [1, 0] * len(THINGS),
                    [thing for thing in THINGS for _ in range(2)])


def report(recall=(40, 50), harmless=(0, 50), chat=(3, 400), difference=Estimate(0.3, 0.1, 0.5)):
    return MonitorReport(share(*recall), share(*harmless), share(*chat), share(20, 50), difference, 0.01, 9)


def test_a_word_that_says_it_is_found_by_the_words_and_partly_by_a_random_network():
    found = monitor_table(tiny_model(), table(), CHAT, budget=0.05)
    assert found.words.value > 0.9 and 0.1 < found.recall.value < found.words.value and found.chat.value < 0.2 and found.layer == 1
    assert found.verdict.startswith(found.headline) and found.figure().layout.title.text.startswith(found.headline)


@pytest.mark.parametrize("changes, words", [({}, "within its budget"), ({"recall": (5, 50)}, "Not for duty"), ({"harmless": (20, 50)}, "only look like"),
                                            ({"chat": (40, 400)}, "overdraws"), ({"difference": Estimate(0.1, -0.1, 0.3)}, "bag of words")])
def test_the_verdict_follows_from_the_numbers(changes, words):
    assert words in report(**changes).headline


def test_too_little_is_refused():
    with pytest.raises(ValueError, match="300"):
        monitor_table(tiny_model(), table(), CHAT[:50])
    with pytest.raises(TableError):
        monitor_table(tiny_model(), Labelled(["a key", "a dog"], [0, 1]), CHAT)
