"""Cities with three attributes that go together, country, continent and language: what chapter 33 exchanges one at a time."""

from __future__ import annotations

from dataclasses import dataclass

from utils.data.places import city_places

PREFIX = "The city of {}"
QUESTIONS = {"country": PREFIX + " is in the country of", "continent": PREFIX + " is on the continent of",
             "language": PREFIX + ", where most people speak"}
"""What the network continues. All begin alike, so that the activation of the name is the same in all three."""

LANGUAGES = {
    "Algeria": "Arabic", "Argentina": "Spanish", "Australia": "English", "Austria": "German", "Brazil": "Portuguese", "Canada": "English",
    "Chile": "Spanish", "China": "Chinese", "Colombia": "Spanish", "Egypt": "Arabic", "France": "French", "Germany": "German",
    "Greece": "Greek", "Hungary": "Hungarian", "India": "Hindi", "Indonesia": "Indonesian", "Iran": "Persian", "Iraq": "Arabic",
    "Italy": "Italian", "Japan": "Japanese", "Kenya": "Swahili", "Mexico": "Spanish", "Morocco": "Arabic", "Netherlands": "Dutch",
    "Nigeria": "English", "Pakistan": "Urdu", "Peru": "Spanish", "Poland": "Polish", "Portugal": "Portuguese", "Russia": "Russian",
    "Saudi Arabia": "Arabic", "Spain": "Spanish", "Sweden": "Swedish", "Thailand": "Thai", "Turkey": "Turkish", "Ukraine": "Ukrainian",
    "United Kingdom": "English", "United States": "English", "Venezuela": "Spanish", "Vietnam": "Vietnamese",
}
"""One language a country, the one that is heard most in its large cities or in its offices. Countries where that is a quarrel are left out."""


@dataclass(frozen=True)
class CityFacts:
    """Cities, one row each.

    Attributes:
        name: "Lagos".
        value: {"country": ["Nigeria", ...], "continent": ["Africa", ...], "language": ["English", ...]}.
    """

    name: list[str]
    value: dict[str, list[str]]

    def __len__(self) -> int:
        return len(self.name)

    def differ(self, first: int, other: int) -> bool:
        """Whether two cities have nothing in common."""
        return all(column[first] != column[other] for column in self.value.values())


def city_facts(per_country: int = 6) -> CityFacts:
    """Well-known cities of 40 countries, at most `per_country` of each.

    Raises: FetchError when the data cannot be fetched.

    Source: GeoNames (CC BY 4.0) for countries and continents; `LANGUAGES` was written for this course.
    """
    places = city_places(per_country=per_country)
    rows = [i for i, country in enumerate(places.country) if country in LANGUAGES]
    country = [places.country[i] for i in rows]
    return CityFacts([places.name[i] for i in rows],
                     {"country": country, "continent": [places.continent[i] for i in rows], "language": [LANGUAGES[name] for name in country]})
