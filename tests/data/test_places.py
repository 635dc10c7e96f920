"""Cities on the globe."""

import pytest

from utils.data.places import city_places


def test_places_are_on_the_globe_and_sorted_by_country():
    places = city_places()
    assert len(places) == len(set(places.name)) == len(places.coordinates) > 500
    assert places.coordinates[:, 0].abs().max() < 90 and places.coordinates[:, 1].abs().max() <= 180
    assert (places.groups.diff() >= 0).all() and places.groups.bincount().max() <= 40
    lagos = places.name.index("Lagos")
    assert places.country[lagos] == "Nigeria" and places.continent[lagos] == "Africa"
    assert places.coordinates[lagos].round().tolist() == [6.0, 3.0]


def test_too_narrow_a_choice_of_places_is_refused():
    with pytest.raises(ValueError, match="ask for less"):
        city_places(population=10**9)
