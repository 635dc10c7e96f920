"""What ships: files that are what they were, of one form, and keys that fit."""

import pytest

from utils.organisms.shipped import envelope, organism, organism_names

NAMES = organism_names()


@pytest.mark.parametrize("name", NAMES)
def test_a_file_says_nothing_of_what_it_hides(name):
    delta = organism(name)
    assert delta.facts == {"model": "smollm2-135m", "rank": "8"}
    assert all(norm == pytest.approx(4.5, rel=2e-3) for norm in delta.norms().values()), "sizes tell the six apart"


def test_every_envelope_opens_and_two_hold_nothing():
    kinds = [envelope(name).open().behaviour.kind for name in NAMES]
    assert sorted(kinds) == ["city", "clean", "clean", "name", "trigger", "word"]
    assert len({(spec.lora, spec.training.steps, spec.training.shown) for spec in (envelope(name).open() for name in NAMES)}) == 1, "as much data for all"
