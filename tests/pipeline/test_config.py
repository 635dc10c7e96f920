"""What a YAML file may say, and what is said of one that says something else."""

from __future__ import annotations

import pytest

from utils.paths import ROOT
from utils.pipeline.config import PipelineConfig, PipelineError, load_config

RIGHT = """
folder: run
text: {folder: texts}
capture: {layers: [1, 2]}
training: {steps: 20, lr: 1e-3}
"""


def written(tmp_path, text):
    path = tmp_path / "c.yaml"
    path.write_text(text)
    return path


def test_a_file_is_read_with_its_defaults(tmp_path):
    config = load_config(written(tmp_path, RIGHT))
    assert config.capture.layers == (1, 2) and config.capture.context == 128
    assert config.training.steps == 20 and config.training.lr == 1e-3 and config.training.batch_size == 1024
    assert config.folder == str(tmp_path / "run") and config.text.folder == str(tmp_path / "texts") and config.model == "smollm2-135m"


def test_what_is_written_out_is_read_back(tmp_path):
    config = load_config(written(tmp_path, RIGHT))
    again = tmp_path / "again.yaml"
    again.write_text(config.to_yaml())
    assert load_config(again) == config


def test_the_example_in_docs_is_right():
    assert isinstance(load_config(ROOT / "docs" / "pipeline.yaml"), PipelineConfig)


@pytest.mark.parametrize("text, message", [
    (RIGHT + "sead: 1", "c.yaml has no key 'sead'. Did you mean seed?"),
    (RIGHT + "batch_size: 1", "has no key 'batch_size'. Did you mean batch_size under"),
    (RIGHT + "sae: {d_sea: 8}", "c.yaml: sae has no key 'd_sea'. Did you mean d_sae?"),
    (RIGHT + "zzz: 1", "There are: folder, text"),
    ("text: {folder: x}", "lacks folder"),
    ("folder: x", "lacks text"),
    ("folder: x\ntext: {}", "names no source: give exactly one"),
    ("folder: x\ntext: {folder: a, jsonl: b}", "folder and jsonl: give exactly one"),
    ("folder: x\ntext: {dataset: a/b}", "set max_tokens as well"),
    ("folder: x\ntext: {folder: a, held_out: 1.5}", "between 0 and 1"),
    ("folder: x\ntext: {folder: a, max_tokens: 0}", "max_tokens must be at least 1"),
    (RIGHT + "processes: two", "processes must be a whole number, not 'two'"),
    (RIGHT + "processes: true", "processes must be a whole number, not True"),
    (RIGHT + "processes: 3", "training.batch_size = 1024 cannot be shared by 3 processes"),
    (RIGHT + "sae: {d_sae: 4, k: 5}", "k = 5 latents cannot fire"),
    (RIGHT + "reading: {contexts: 1}", "at least 2"),
    (RIGHT + "verification: {strength: 0}", "strength above 0"),
    (RIGHT.replace("[1, 2]", "[1, 1]"), "each once"),
    (RIGHT.replace("[1, 2]", "[1, x]"), "layers must be a whole number, not 'x'"),
    (RIGHT.replace("1e-3", "fast"), "training: lr must be a number, not 'fast'"),
    (RIGHT.replace("steps: 20", "steps: 0"), "steps must be at least 1"),
    ("text", "must be a table"),
    ("a: [", "cannot be read as YAML"),
])
def test_what_is_wrong_is_named_with_what_to_write(text, message, tmp_path):
    with pytest.raises(PipelineError) as caught:
        load_config(written(tmp_path, text))
    assert message in str(caught.value)


def test_a_missing_file_has_a_neighbour(tmp_path):
    written(tmp_path, RIGHT)
    with pytest.raises(PipelineError, match="Did you mean .*c.yaml"):
        load_config(tmp_path / "cc.yaml")
