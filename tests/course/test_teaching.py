"""The teacher's guides: one for each chapter, with minutes that add up, and mistakes and exercises that exist."""

import re

import pytest

from utils.course.chapters import read_chapter, stems
from utils.course.exercises import load_chapter
from utils.paths import ROOT

GUIDES = ROOT / "docs" / "teach"
PARTS = ["Goals", "Timing", "What they will believe, and the mistake that shows it", "Five questions", "With 60 minutes"]


@pytest.fixture(params=stems())
def guide(request):
    return request.param, (GUIDES / f"{request.param[:2]}.md").read_text("utf-8")


def test_every_part_is_there(guide):
    _, text = guide
    assert re.findall(r"^## (.+)$", text, re.M) == PARTS
    assert re.findall(r"^(\d)\. \*\*.+\?\*\* A good answer: ", text, re.M) == list("12345")


def test_the_minutes_add_up(guide):
    """The parts take what the chapter says, and the short version fits into its hour."""
    stem, text = guide
    timing = text[text.index("## Timing"):text.index("## What they")]
    assert sum(map(int, re.findall(r"\| (\d+) \|$", timing, re.M))) == read_chapter(stem).source.metadata["minutes"]
    assert sum(map(int, re.findall(r"\((\d+)\)", text[text.index("## With 60"):]))) == 60


def test_the_mistakes_and_exercises_exist(guide):
    stem, text = guide
    exercises = load_chapter(stem)
    timing = re.findall(r"`(\w+)`", text[text.index("## Timing"):text.index("## What they")])
    assert timing and set(timing) <= exercises.keys()
    rows = re.findall(r"^\| [^|]+ \| `(\w+)`: ([^|]+) \|", text[text.index("## What they"):text.index("## Five")], re.M)
    assert len(rows) >= 4
    for name, slugs in rows:
        assert set(re.findall(r"`([\w-]+)`", slugs)) <= exercises[name].mistakes.keys(), name


def test_the_syllabus_names_every_chapter():
    text = (GUIDES / "syllabus.md").read_text("utf-8")
    term = text[:text.index("## A workshop")]
    assert not [stem for stem in stems() if stem[:2] not in re.findall(r"\b\d\d\b", term)]
    assert len(re.findall(r"^\| \d+ \| \[", text, re.M)) == 10
