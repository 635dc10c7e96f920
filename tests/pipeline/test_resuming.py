"""A run is stopped wherever it writes something, and goes on to the same files."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from utils.paths import ROOT
from utils.pipeline.records import Run
from utils.pipeline.stages import NAMES, run_pipeline, status


class Killed(BaseException):
    """Nobody catches it."""


class Killer:
    """Stands in for os.replace, and kills at one call: just before the file is there, or just after."""

    def __init__(self, at, after):
        self.at, self.after, self.calls, self.replace = at, after, 0, os.replace

    def __call__(self, source, target):
        self.calls += 1
        if self.calls == self.at and not self.after:
            raise Killed
        self.replace(source, target)
        if self.calls == self.at:
            raise Killed


def killed(config, stage, at, after, monkeypatch):
    """Whether a run of one stage was killed, rather than finished before that."""
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", Killer(at, after))
        try:
            run_pipeline(config, only=stage, progress=False)
        except Killed:
            return True
    return False


@pytest.mark.parametrize("after", [False, True], ids=["before a file is there", "after it is there"])
@pytest.mark.parametrize("stage", NAMES)
def test_a_stage_killed_at_any_of_its_writes_goes_on_to_the_same_hash(stage, after, begun, finished, digests, monkeypatch):
    config = begun(stage)
    at = 1
    while killed(config, stage, at, after, monkeypatch):
        run_pipeline(config, only=stage, progress=False)
        assert digests(Run(config))[stage] == digests(finished)[stage]
        for path in Path(config.folder).rglob("*.part"):
            pytest.fail(f"{path} was left behind")
        shutil.rmtree(Path(config.folder) / stage)
        at *= 2
    assert at > 3


def test_a_run_killed_again_and_again_ends_at_the_same_hash(begun, finished, digests, monkeypatch):
    """Each attempt is killed at its seventh write: two note what is begun, four are a shard of both layers."""
    config = begun("capture")
    attempts = 0
    while attempts < 60:
        attempts += 1
        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", Killer(7, after=True))
            try:
                run_pipeline(config, progress=False)
            except Killed:
                continue
        break
    assert attempts > 4 and digests(Run(config)) == digests(finished)


def test_a_finished_run_does_nothing_when_it_is_called_again(finished):
    before = {path: path.stat().st_mtime_ns for path in finished.folder.rglob("*") if path.is_file() and path.name != ".lock"}
    run_pipeline(finished.config, progress=False)
    assert {path: path.stat().st_mtime_ns for path in before} == before


@pytest.mark.parametrize("stage", NAMES)
def test_a_lost_or_cut_file_is_made_anew(stage, finished, tmp_path, digests):
    folder = tmp_path / "copy"
    shutil.copytree(finished.folder, folder)
    config = replace(finished.config, folder=str(folder))
    files = sorted(path for path in (folder / stage).rglob("*") if path.name in ("00000.safetensors", "sae_weights.safetensors", "features.safetensors", "labels.json",
                                                                                "verification.json", "card.json"))
    content = files[-1].read_bytes()
    files[-1].write_bytes(content[:-1])
    assert (stage, "damaged") in [(name, state) for name, state, _ in status(config)]
    run_pipeline(config, progress=False)
    assert files[-1].read_bytes() == content and digests(Run(config)) == digests(finished)


@pytest.mark.skipif(sys.platform == "win32", reason="kills with SIGKILL")
def test_a_process_that_is_killed_outright(begun, finished, digests):
    """The command, in a process of its own; resumed here."""
    config = begun("capture")
    path = Path(config.folder) / "config.yaml"
    path.write_text(config.to_yaml())
    process = subprocess.Popen([sys.executable, "-m", "utils", "pipeline", "run", str(path)], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 600
    while not list(Path(config.folder, "capture").rglob("00001.safetensors")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    run_pipeline(config, progress=False)
    assert digests(Run(config)) == digests(finished)
