"""The weights that ship with the course."""

import pytest

from utils.worlds import shared
from utils.worlds.episodes import WorldError
from utils.worlds.ivy import IvyGame
from utils.worlds.shared import ivy_model


def test_the_shipped_player_knows_the_rules(rng):
    assert shared.IVY_FILE.stat().st_size < 2_000_000
    games = IvyGame().sample(40, rng(7))
    probability = ivy_model()(games.tokens).softmax(-1)
    assert (probability * games.legal).sum(-1)[:, :-1].mean() > 0.97


def test_other_weights_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(shared, "IVY_FILE", tmp_path / "ivy.safetensors")
    with pytest.raises(WorldError, match="missing"):
        ivy_model()
    (tmp_path / "ivy.safetensors").write_bytes(b"not these")
    with pytest.raises(WorldError, match="SHA-256"):
        ivy_model()
