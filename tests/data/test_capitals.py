"""The capitals of chapter 00 are one word each, as a sentence needs them."""

from utils.data.capitals import CAPITALS


def test_countries_and_capitals_stand_once():
    assert len(CAPITALS) > 30 and len(set(CAPITALS.values())) == len(CAPITALS)
    assert all(city.isalpha() and city[0].isupper() for city in CAPITALS.values())
    assert all(country == country.strip() and country.removeprefix("the ")[0].isupper() for country in CAPITALS)
