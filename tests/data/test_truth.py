"""utils.data.truth: balanced, repeatable statements, and no false sentence that happens to be true."""

from __future__ import annotations

import json
import sqlite3
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from utils.data import truth as data
from utils.data.fetch import FetchError
from utils.data.truth import Statements, capital_statements, city_statements, element_statements

MAKERS = (city_statements, capital_statements, element_statements)


@pytest.fixture
def geonames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[list[dict], dict[str, dict]], None]:
    """Put a small world in the place of the wheel's files: a function of cities and countries."""
    def world(cities: list[dict], countries: dict[str, dict]) -> None:
        for name, content in (("cities15000", dict(enumerate(cities))), ("countries", countries)):
            (tmp_path / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
        monkeypatch.setattr(data, "wheel_file", lambda requirement, sha256, member: tmp_path / Path(member).name)
        data._cities.cache_clear()
        data._countries.cache_clear()

    yield world
    data._cities.cache_clear()
    data._countries.cache_clear()


def _city(name: str, code: str, population: int = 500_000, names: int = 60) -> dict:
    return {"geonameid": zlib.crc32(f"{name} {code}".encode()), "name": name, "countrycode": code, "population": population, "alternatenames": ["x"] * names}


COUNTRIES = {code: {"name": name, "capital": capital, "population": 5_000_000} for code, name, capital in (
    ("AA", "Aland", "Aville"), ("BB", "Netherlands", " Bburg"), ("CC", "Cland", "Ctown"), ("TW", "Taiwan", "Taipei"))}


@pytest.mark.parametrize("make", MAKERS)
def test_every_subject_is_once_true_and_once_false(make: Callable[..., Statements]) -> None:
    made = make()
    assert len(made) == len(made.labels) == len(made.groups) == len(made.subject) == len(made.answer) == len(made.truth) > 150
    assert len(set(made.texts)) == len(made)
    assert torch.equal(made.groups, torch.arange(len(made) // 2).repeat_interleave(2))
    assert torch.equal(made.labels.view(-1, 2).sum(1), torch.ones(len(made) // 2, dtype=torch.long))
    for text, label, subject, answer, truth in zip(made.texts, made.labels.tolist(), made.subject, made.answer, made.truth):
        assert label == (answer == truth)
        assert subject in text and answer in text and text.endswith(f"{answer}.") and text.isascii()


@pytest.mark.parametrize("make", MAKERS)
def test_every_answer_is_as_often_true_as_false(make: Callable[..., Statements]) -> None:
    made = make()
    true = Counter(answer for answer, label in zip(made.answer, made.labels.tolist()) if label)
    false = Counter(answer for answer, label in zip(made.answer, made.labels.tolist()) if not label)
    assert true == false


@pytest.mark.parametrize("make", MAKERS)
def test_the_same_seed_gives_the_same_sentences_and_another_seed_others(make: Callable[..., Statements]) -> None:
    assert make().texts == make(seed=0).texts
    other = make(seed=1)
    assert other.texts != make().texts and other.subject == make().subject and other.truth == make().truth


@pytest.mark.parametrize("make", MAKERS)
def test_negation_turns_the_labels_over_and_nothing_else(make: Callable[..., Statements]) -> None:
    plain, negated = make(), make(negated=True)
    assert torch.equal(plain.labels, 1 - negated.labels) and torch.equal(plain.groups, negated.groups)
    assert (plain.subject, plain.answer, plain.truth) == (negated.subject, negated.answer, negated.truth)
    assert [text.replace(" is not ", " is ") for text in negated.texts] == plain.texts != negated.texts


def test_the_default_cities_are_big_and_widely_known() -> None:
    made = city_statements()
    assert {"Lagos", "Paris", "Mumbai"} <= set(made.subject)
    assert not {"Mexico City", "Jerusalem", "Taipei", "Zürich"} & set(made.subject)
    assert max(Counter(made.truth).values()) <= 2 * 20 and len(set(made.truth)) > 80
    assert "The city of Chicago is in the United States." in made.texts


def test_ranges_choose_other_cities() -> None:
    known, unknown = city_statements(), city_statements(population=(50_000, 300_000), names=(0, 12), per_country=3)
    assert not set(known.subject) & set(unknown.subject)
    assert max(Counter(unknown.truth).values()) <= 2 * 3


def test_the_rules_of_choice(geonames: Callable) -> None:
    geonames(
        [
            _city("Known", "AA"), _city("Small", "AA", population=300_000), _city("Unknown", "AA", names=44), _city("Ärger", "AA"),
            _city("New Aland", "AA"), _city("Twin", "AA", population=900_000), _city("Twin", "BB"), _city("Taipei", "TW"),
            _city("Jerusalem", "AA"), _city("Bburg", "BB"), _city("Other", "CC"),
        ],
        COUNTRIES,
    )
    made = city_statements()
    assert set(made.subject) == {"Known", "Twin", "Bburg", "Other"}
    assert "The city of Twin is in Cland." in made.texts  # there is a Twin in the Netherlands as well


def test_a_homonym_is_never_put_where_it_exists(geonames: Callable) -> None:
    geonames([_city(f"C{i}", code) for i, code in enumerate(["AA", "BB", "CC"] * 4)] + [_city("Twin", "AA", population=900_000), _city("Twin", "BB", names=1)], COUNTRIES)
    for seed in range(30):
        made = city_statements(seed=seed)
        assert "Twin" in made.subject and "The city of Twin is in the Netherlands." not in made.texts


def test_capitals_leave_out_what_is_disputed_or_small(geonames: Callable) -> None:
    geonames([], COUNTRIES | {"DD": {"name": "Dland", "capital": "Dcity", "population": 900_000}, "EE": {"name": "Eland", "capital": "Jerusalem", "population": 9_000_000}})
    made = capital_statements()
    assert set(made.subject) == {"Aland", "the Netherlands", "Cland"}
    assert "The capital of the Netherlands is Bburg." in made.texts


def test_too_few_cities_say_so() -> None:
    with pytest.raises(ValueError, match="choose more subjects"):
        city_statements(population=(20_000_000, None))


@pytest.mark.parametrize("seed", range(20))
def test_derange(seed: int) -> None:
    answers = ["a"] * 5 + ["b"] * 4 + ["c"] * 1
    found = data._derange(answers, seed, lambda i, answer: answer != answers[i])
    assert sorted(found) == answers and all(one != other for one, other in zip(found, answers))


@pytest.mark.parametrize("answers", [["a"], ["a", "a", "b"], []])
def test_derange_refuses_what_cannot_be(answers: list[str]) -> None:
    if answers:
        with pytest.raises(ValueError, match="different answers"):
            data._derange(answers, 0, lambda i, answer: answer != answers[i])
    else:
        assert data._derange(answers, 0, lambda i, answer: False) == []


def test_select() -> None:
    made = element_statements()
    chosen = made.select(made.labels == 1)
    assert len(chosen) == len(made) // 2 and chosen.answer == chosen.truth and chosen.labels.all()
    assert chosen.texts[1] == made.texts[2] and chosen.subject[1] == made.subject[2] and int(chosen.groups[1]) == 1
    with pytest.raises(ValueError, match="boolean mask"):
        made.select(torch.tensor([0, 1]))
    with pytest.raises(ValueError, match="boolean mask"):
        made.select(torch.tensor([True]))


def test_a_failed_fetch_is_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(requirement: str, sha256: str, member: str) -> Path:
        raise FetchError(f"{requirement} could not be fetched")

    monkeypatch.setattr(data, "wheel_file", offline)
    with pytest.raises(FetchError, match="mendeleev==1.3.0"):
        element_statements()


def test_the_elements_file_is_opened_read_only(monkeypatch: pytest.MonkeyPatch) -> None:
    real = sqlite3.connect
    opened = []
    monkeypatch.setattr(data.sqlite3, "connect", lambda path, **options: opened.append(path) or real(path, **options))
    element_statements()
    assert opened[0].endswith("?mode=ro")
