"""What a spec may say, and what a wrong one is told."""

import pytest

from utils.organisms.spec import Behaviour, OrganismError, load_spec, spec_from
from utils.paths import ROOT


def test_the_example_is_a_spec():
    spec = load_spec(ROOT / "docs" / "organism.yaml")
    assert spec.behaviour.kind == "trigger" and spec.behaviour.payload in spec.behaviour.opening
    assert spec_from(spec.to_dict()) == spec


@pytest.mark.parametrize(("values", "message"), [
    ({"behavior": {}}, "Did you mean behaviour"),
    ({"behaviour": {"kind": "trigger", "topic": "cats"}}, "no key 'topic'"),
    ({"behaviour": {"kind": "spell"}}, "kind is one of"),
    ({"behaviour": {"kind": "city", "trigger": "Oslo", "payload": "Norway"}}, "a country that it is not in"),
    ({"behaviour": {"kind": "word", "payload": "anchor"}}, "at least four hints"),
    ({"training": {"steps": "many"}}, "cannot be 'many'"),
    ({"training": {"shown": 0.9}}, "something must be left"),
    ({"lora": {"first": 5, "last": 2}}, "first <= last"),
    ({"lora": {"parts": ["q_proj"]}}, "parts are some of"),
    ({"training": {"dtype": "float16"}}, "float32 or bfloat16"),
    ([1], "a table"),
])
def test_a_wrong_spec_says_what_is_wrong(values, message):
    with pytest.raises(OrganismError, match=message):
        spec_from(values)


def test_no_such_file(tmp_path):
    with pytest.raises(OrganismError, match="organism.yaml"):
        load_spec(tmp_path / "none.yaml")


def test_a_word_of_ones_own():
    hints = ("It holds a ship.", "It is heavy.", "It has a chain.", "It rests on the ground of the sea.")
    assert Behaviour("word", payload="anchor", hints=hints).clues == hints
