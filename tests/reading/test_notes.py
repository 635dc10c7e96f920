"""Notes on latents: a file of the learner's own."""


import pytest

from utils.reading.features import FeatureError
from utils.reading.notes import Notes


def test_two_notebooks_do_not_undo_each_other(tmp_path):
    one, two = Notes(tmp_path / "n.json", "a"), Notes(tmp_path / "n.json", "a")
    one[1], two[2] = "one", "two"
    one[3] = "three"
    stored = Notes(tmp_path / "n.json", "a")
    assert {latent: stored[latent] for latent in stored} == {1: "one", 2: "two", 3: "three"}


@pytest.mark.parametrize("content", ["{", "[]", '{"notes": {}}', '{"sae_sha256": "a", "notes": {"x": "y"}}', ""])
def test_a_damaged_file_of_notes_is_set_aside(tmp_path, content):
    (tmp_path / "n.json").write_text(content)
    notes = Notes(tmp_path / "n.json", "a")
    assert "kept as" in notes.said
    notes[1] = "new"
    [aside] = tmp_path.glob("n.json.damaged-*")
    assert aside.read_text() == content and Notes(tmp_path / "n.json", "a")[1] == "new"


def test_notes_on_another_sae_are_left_alone(tmp_path):
    Notes(tmp_path / "n.json", "a")[1] = "mine"
    before = (tmp_path / "n.json").read_bytes()
    with pytest.raises(FeatureError, match="another SAE"):
        Notes(tmp_path / "n.json", "b")
    assert (tmp_path / "n.json").read_bytes() == before
