"""One setting away: chapters on models of three other makes and depths, with random weights, from a local folder."""

import os

import pytest

from utils.course.chapters import read_chapter
from utils.course.solved import execute

FEW = {"N_PROMPTS": "(8, 8)", "NEW_TOKENS": "6"}  # so that it takes a minute: what is written is nonsense anyway
SETTINGS = {"00_start_here": {}, "11_linear_probes": {}, "41_steering_vectors": FEW}


FAMILIES = ("qwen2", "gemma2", "neox")
ALWAYS = {("00_start_here", "gemma2"), ("11_linear_probes", "neox"), ("41_steering_vectors", "qwen2")}
"""Each chapter and each family once; the other six pairs take a quarter of an hour more."""
SLOW = pytest.mark.skipif(not os.environ.get("PROBE_TO_STEER_SLOW"), reason="PROBE_TO_STEER_SLOW is not set")
PAIRS = [pytest.param(stem, kind, marks=() if (stem, kind) in ALWAYS else SLOW) for stem in SETTINGS for kind in FAMILIES]


@pytest.mark.parametrize("stem, kind", PAIRS)
def test_a_chapter_runs_on_another_model(odd_model, monkeypatch, stem, kind):
    """No cell assumes the default model's depth, names or results. What it finds in random weights is another matter."""
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")
    run = execute(read_chapter(stem), static=False, settings={"MODEL": repr(str(odd_model(kind))), **SETTINGS[stem]})
    assert len(run.ledger) >= 5
