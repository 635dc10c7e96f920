"""What ships: files that are what they were, of one form, and keys that fit."""

import shutil

import pytest

from utils.organisms.command import organism_command
from utils.organisms.shipped import SHIPPED, envelope, organism, organism_names

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


def test_check_finds_a_file_that_was_changed(tmp_path, capsys):
    shutil.copytree(SHIPPED, tmp_path / "copy")
    assert organism_command("check", None, folder=tmp_path / "copy") == 0
    assert capsys.readouterr().out.count("is the one that was shipped") == 6
    with (tmp_path / "copy" / "elm.safetensors").open("ab") as file:
        file.write(b"0")
    assert organism_command("check", None, folder=tmp_path / "copy") == 2
    assert "elm.safetensors is not the file that was shipped" in capsys.readouterr().err


def test_what_was_planted_is_kept(tmp_path, capsys):
    mine = tmp_path / "fig.safetensors"
    mine.write_bytes(b"mine")
    assert organism_command("sealed", "4711", folder=tmp_path, name="fig") == 2
    assert "is kept: give the new one another name" in capsys.readouterr().err
    assert mine.read_bytes() == b"mine" and not (tmp_path / "index.json").exists()
