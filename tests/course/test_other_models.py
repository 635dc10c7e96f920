"""One setting away: chapters on models of three other makes and depths, with random weights, from a local folder."""

import pytest

from utils.course.chapters import read_chapter
from utils.course.solved import execute

FEW = {"N_PROMPTS": "(8, 8)", "NEW_TOKENS": "6"}  # so that it takes a minute: what is written is nonsense anyway
SETTINGS = {"00_start_here": {}, "11_linear_probes": {}, "41_steering_vectors": FEW}


@pytest.mark.parametrize("stem", SETTINGS)
@pytest.mark.parametrize("kind", ["qwen2", "gemma2", "neox"])
def test_a_chapter_runs_on_another_model(odd_model, monkeypatch, stem, kind):
    """No cell assumes the default model's depth, names or results. What it finds in random weights is another matter."""
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")
    run = execute(read_chapter(stem), static=False, settings={"MODEL": repr(str(odd_model(kind))), **SETTINGS[stem]})
    assert len(run.ledger) >= 5
