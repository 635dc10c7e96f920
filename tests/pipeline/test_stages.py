"""The order of the stages, what `status` tells, and what is refused with which words."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from filelock import FileLock

from utils.pipeline.config import CaptureConfig, PipelineError, SizeConfig
from utils.pipeline.records import Run, read_record
from utils.pipeline.stages import NAMES, run_pipeline, status


def states(config):
    return {name: state for name, state, _ in status(config)}


def test_stages_one_by_one_end_where_a_whole_run_does(make_config, tmp_path, finished, digests):
    config = make_config(tmp_path)
    with pytest.raises(PipelineError, match="shuffle needs sentences, which is not done"):
        run_pipeline(config, only="shuffle", progress=False)
    assert set(states(config).values()) == {"waiting"}
    for i, name in enumerate(NAMES):
        run_pipeline(config, only=name, progress=False)
        assert list(states(config).values()) == ["done"] * (i + 1) + ["waiting"] * (len(NAMES) - i - 1)
    assert digests(Run(config)) == digests(finished)
    with pytest.raises(PipelineError, match="no stage 'shuffel'.* sentences, capture"):
        run_pipeline(config, only="shuffel", progress=False)


def test_status_tells_how_far_an_unfinished_stage_is(begun, monkeypatch):
    config = begun("capture")
    run = Run(config, progress=False)
    monkeypatch.setattr("utils.pipeline.capture._columns", stop_after(2))
    with pytest.raises(KeyboardInterrupt):
        run_pipeline(config, progress=False)
    found = {name: (state, details) for name, state, details in status(config)}
    assert found["sentences"][0] == "done" and found["capture"][0] == "unfinished" and found["shuffle"][0] == "waiting"
    assert found["capture"][1].startswith("2 of ") and read_record(run, "capture")["digest"] is None


def stop_after(shards):
    """Columns for both layers of so many shards, then a stop."""
    from utils.pipeline.capture import _columns

    calls = []

    def columns(*arguments):
        calls.append(1)
        if len(calls) > shards:
            raise KeyboardInterrupt
        return _columns(*arguments)

    return columns


@pytest.mark.parametrize("parts, message", [
    ({"sae": SizeConfig(41, 4)}, "train in .* was made differently: sae.d_sae: 40 -> 41. Undo that.*or delete what depends on it: .*train, .*features.*card"),
    ({"seed": 1}, "capture in .* was made differently: seed: 0 -> 1"),
    ({"capture": CaptureConfig((0,), 12, 96, 96)}, r"capture.layers: \[0, 2\] -> \[0\]"),
    ({"processes": 2}, "processes: 1 -> 2"),
])
def test_another_configuration_is_refused_and_nothing_is_touched(parts, message, finished, digests):
    before = digests(finished)
    with pytest.raises(PipelineError, match=message):
        run_pipeline(replace(finished.config, **parts), progress=False)
    assert "changed" in states(replace(finished.config, **parts)).values() and digests(finished) == before


def test_a_changed_model_is_refused(begun, tmp_path):
    config = begun("capture")
    known = json.loads((Run(config).folder / "model.json").read_text())
    (Run(config).folder / "model.json").write_text(json.dumps({**known, "digest": "another"}))
    with pytest.raises(PipelineError, match="is not the model that .* was begun with"):
        run_pipeline(config, progress=False)


def test_other_weights_are_another_model(make_config, save_model, tmp_path, finished):
    other = save_model(tmp_path / "model", seed=1)
    with pytest.raises(PipelineError, match="sentences in .* was made differently: model: "):
        run_pipeline(replace(finished.config, model=str(other)), progress=False)
    assert json.loads((finished.folder / "model.json").read_text())["digest"] != digest_of(make_config(tmp_path / "run", model=str(other)))


def digest_of(config):
    run_pipeline(config, only="sentences", progress=False)
    return json.loads((Run(config).folder / "model.json").read_text())["digest"]


@pytest.mark.parametrize("parts, message", [
    ({"model": "/nowhere/at/all"}, "There is no folder /nowhere/at/all"),
    ({"capture": CaptureConfig((3,), 12)}, r"layers = \[3\]: .* has layers 0 to 2"),
    ({"capture": CaptureConfig((1,), 97)}, "holds 96 tokens"),
    ({"device": "cuda:9"}, "is not there"),
])
def test_what_the_model_cannot_do_is_said(parts, message, make_config, tmp_path):
    with pytest.raises(PipelineError, match=message):
        run_pipeline(make_config(tmp_path, **parts), progress=False)


def test_one_process_at_a_time(finished):
    with FileLock(finished.folder / ".lock"), pytest.raises(PipelineError, match="another process is busy"):
        run_pipeline(finished.config, progress=False)


def test_a_broken_record_says_what_to_delete(begun):
    config = begun("capture")
    (Run(config).at("sentences") / "record.json").write_text("{")
    with pytest.raises(PipelineError, match="record.json cannot be read .*Delete the folder .*sentences"):
        status(config)
