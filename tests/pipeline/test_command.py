"""The command: run, resume, status, and a dry run that does nothing."""

from __future__ import annotations

import pytest

from utils.__main__ import main
from utils.pipeline.cost import cost_text, estimate
from utils.pipeline.records import Run
from utils.pipeline.stages import NAMES


@pytest.fixture
def written(make_config, tmp_path):
    """(the YAML file of a run, its folder)."""
    path = tmp_path / "c.yaml"
    path.write_text(make_config(tmp_path / "run").to_yaml())
    return path, tmp_path / "run"


def test_a_dry_run_estimates_and_leaves_nothing(written, capsys, finished):
    path, folder = written
    assert main(["pipeline", "run", str(path), "--dry-run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:-1]] == [*NAMES, "all"] and "MB are free" in lines[-1]
    assert not folder.exists()


def test_the_estimate_is_near_what_is_done(make_config, tmp_path, finished):
    before = {cost.stage: cost for cost in estimate(Run(make_config(tmp_path), progress=False))}
    for stage in ("capture", "shuffle"):
        stored = sum(path.stat().st_size for path in finished.at(stage).rglob("*.safetensors"))
        assert before[stage].bytes == pytest.approx(stored, rel=0.3)
    assert before["train"].tokens == 30 * 64 * 2 and all(before[stage].minutes > 0 for stage in ("capture", "train", "verify"))
    assert all(cost.minutes == 0 and cost.bytes == 0 for cost in estimate(Run(finished.config, progress=False)))
    assert "too few by" in cost_text(list(before.values()), free=10)


def test_run_status_and_resume(written, capsys):
    path, folder = written
    assert main(["pipeline", "resume", str(folder.parent)]) == 2
    assert "holds no run" in capsys.readouterr().err
    assert main(["pipeline", "run", str(path), "--stage", "sentences"]) == 0
    assert main(["pipeline", "status", str(folder)]) == 0
    out = capsys.readouterr().out
    assert "sentences  done" in out and "capture    waiting" in out
    assert main(["pipeline", "run", str(folder)]) == 2
    assert main(["pipeline", "resume", str(folder)]) == 0
    assert f"The run is finished: {folder / 'card'}" in capsys.readouterr().out
    assert (folder / "card" / "layer-02" / "README.md").exists()


def test_an_error_is_one_message_and_status_2(written, capsys):
    path, _ = written
    path.write_text(path.read_text().replace("d_sae", "d_sea"))
    assert main(["pipeline", "run", str(path)]) == 2
    assert capsys.readouterr().err.strip() == "c.yaml: sae has no key 'd_sea'. Did you mean d_sae?"
