"""utils.course.doctor: every requirement has its line, and a line that says [fix] says what to do."""

from __future__ import annotations

import collections
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import torch

from utils import default_model, paths
from utils.course import doctor

Check = Callable[[], Iterator[tuple[bool, str]]]


def only(check: Check) -> tuple[bool, str]:
    (line,) = check()
    return line


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("PIP_NO_INDEX", "PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "empty").write_text("")
    monkeypatch.setenv("PIP_CONFIG_FILE", str(tmp_path / "empty"))
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")


def test_a_line_for_everything(capsys: pytest.CaptureFixture[str], offline: None) -> None:
    to_fix = doctor.doctor()
    lines = capsys.readouterr().out.splitlines()
    assert all(line.startswith(("[ok]  ", "[fix] ")) for line in lines)
    assert sum(line.startswith("[fix]") for line in lines) == to_fix
    machine = ("Python ", "disk:", "memory:", "cores:", "GPU:", "cache folder:", "course folder:", "network:")
    for word in (*machine, "model:", "torch ", "transformer-lens "):
        assert sum(line[6:].startswith(word) for line in lines) == 1, word
    assert all(line.isascii() for line in lines if str(Path.home()) not in line)


def test_nothing_is_installed_yet() -> None:
    """-S leaves site-packages out: what a fresh clone sees before the first install."""
    program = "import sys; sys.path.insert(0, '.'); from utils.course.doctor import doctor; sys.exit(doctor())"
    run = subprocess.run([sys.executable, "-S", "-c", program], cwd=paths.ROOT, capture_output=True, text=True, check=False)
    assert run.stderr == ""
    lines = run.stdout.splitlines()
    assert run.returncode == sum(line.startswith("[fix]") for line in lines) >= 3
    assert all("make learn" in line for line in lines if line.startswith(("[fix] packages", "[fix] GPU", "[fix] model")))


def test_an_old_python(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 10, 4))
    assert only(doctor._python) == (False, "Python 3.10.4: install Python 3.11 or newer, then make the environment again with it")


def test_packages_against_the_bounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pyproject.toml").write_text(
        '[project]\ndependencies = ["torch>=2.6,<3", "numpy>=900", "no-such-package>=1", "never>=1; python_version < \'3\'"]\n'
    )
    monkeypatch.setattr(doctor, "ROOT", tmp_path)
    torch_line, numpy_line, missing_line = doctor._packages()
    assert torch_line == (True, f"torch {torch.__version__}")
    assert not numpy_line[0]
    assert 'python -m pip install "numpy>=900"' in numpy_line[1]
    assert missing_line == (False, f"no-such-package>=1 is not installed: {doctor.INSTALL}")


def test_a_small_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(paths.ROOT)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=3_000_000_000))
    assert only(doctor._disk)[0]
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=2_900_000_000))
    fine, text = only(doctor._disk)
    assert not fine
    assert "3 GB are needed" in text
    assert "PROBE_TO_STEER_CACHE" in text


def test_the_disk_is_that_of_a_cache_folder_that_is_not_there_yet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROBE_TO_STEER_CACHE", str(tmp_path / "not" / "yet"))
    assert str(tmp_path / "not" / "yet") in only(doctor._disk)[1]


def test_little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    Memory = collections.namedtuple("Memory", "total available")
    monkeypatch.setattr(psutil, "virtual_memory", lambda: Memory(3.9e9, 1e9))
    assert only(doctor._memory) == (True, "memory: 4 GB, 1 GB of them free")
    monkeypatch.setattr(psutil, "virtual_memory", lambda: Memory(2e9, 1e9))
    fine, text = only(doctor._memory)
    assert not fine
    assert "4 GB are needed" in text


def test_no_gpu_is_fine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert only(doctor._gpu) == (True, "GPU: none; the CPU is enough")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a card")
    assert only(doctor._gpu) == (True, "GPU: a card, used by default")


def test_the_model_in_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from safetensors.torch import save_file

    monkeypatch.setenv("PROBE_TO_STEER_CACHE", str(tmp_path))
    fine, text = only(doctor._model)
    assert not fine
    assert "not fetched yet: run `python -m utils fetch`" in text

    folder = default_model.default_folder()
    folder.mkdir(parents=True)
    save_file({"weight": torch.arange(6.0)}, folder / "model.safetensors")
    paths.write_manifest(folder, weights_sha256=default_model.WEIGHTS_SHA256)
    fine, text = only(doctor._model)
    assert not fine
    assert "its weights are not the expected ones" in text
    assert f"delete {folder}" in text

    (folder / "model.safetensors").write_bytes(b"cut")
    assert "model.safetensors has 3 bytes" in only(doctor._model)[1]


def test_weights_are_verified_by_their_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from safetensors.torch import save_file

    monkeypatch.setenv("PROBE_TO_STEER_CACHE", str(tmp_path))
    folder = default_model.default_folder()
    folder.mkdir(parents=True)
    # The layout of the file must not matter, the names and the numbers must.
    numbers = {"b": torch.arange(6.0).reshape(2, 3), "a": torch.ones(4, dtype=torch.bfloat16)}
    save_file(numbers, folder / "model.safetensors", metadata={"made": "here"})
    expected = default_model.saved_weights_sha256(folder)
    save_file(dict(reversed(numbers.items())), folder / "model.safetensors")
    assert default_model.saved_weights_sha256(folder) == expected
    save_file({"b": numbers["a"], "a": numbers["b"]}, folder / "model.safetensors")
    assert default_model.saved_weights_sha256(folder) != expected
    save_file({**numbers, "a": torch.zeros(4, dtype=torch.bfloat16)}, folder / "model.safetensors")
    assert default_model.saved_weights_sha256(folder) != expected


def test_a_folder_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A file in the way stops the superuser too, whom permissions would not.
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PROBE_TO_STEER_CACHE", str(tmp_path / "file" / "cache"))
    cache, course = doctor._write_access()
    assert not cache[0]
    assert "PROBE_TO_STEER_CACHE" in cache[1]
    assert course[0]


def test_offline_is_fine_once_the_model_is_there(offline: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(default_model, "default_problem", lambda: None)
    assert only(doctor._network) == (True, "network: offline; everything that is in the cache works")
    monkeypatch.setattr(default_model, "default_problem", lambda: "it was never finished")
    fine, text = only(doctor._network)
    assert not fine
    assert "connect once and run `python -m utils fetch`" in text


def test_one_broken_check_does_not_hide_the_others(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], offline: None) -> None:
    def broken() -> int:
        raise ZeroDivisionError("no cores")

    monkeypatch.setattr(doctor.os, "sched_getaffinity", lambda pid: (), raising=False)
    monkeypatch.setattr(doctor, "_disk", broken)
    broken.__name__ = "_disk"
    assert doctor.doctor() >= 1
    out = capsys.readouterr().out
    assert "[fix] disk: ZeroDivisionError: no cores" in out
    assert "[ok]  cores:" in out
    assert "network:" in out
