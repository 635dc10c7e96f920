"""One setting away: chapters on a model of another make and depth, with random weights, from a local folder."""

import importlib.util
from pathlib import Path

import pytest

from utils.course.chapters import read_chapter
from utils.course.solved import execute


@pytest.fixture(scope="module")
def odd_models():
    spec = importlib.util.spec_from_file_location("odd_models", Path(__file__).parents[1] / "odd_models.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


FEW = {"N_PROMPTS": "(8, 8)", "NEW_TOKENS": "6"}  # so that it takes a minute: what is written is nonsense anyway


@pytest.mark.parametrize("stem, kind, settings", [("00_start_here", "neox", {}), ("11_linear_probes", "qwen2", {}), ("41_steering_vectors", "qwen2", FEW)])
def test_a_chapter_runs_on_another_model(odd_models, tmp_path, monkeypatch, stem, kind, settings):
    """No cell assumes the default model's depth, names or results. What it finds in random weights is another matter."""
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")
    folder = odd_models.write_odd_model(tmp_path / kind, kind)
    run = execute(read_chapter(stem), static=False, settings={"MODEL": repr(str(folder)), **settings})
    assert len(run.ledger) >= 5
