"""Files and folders that appear whole or not at all, and the cache folder."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from utils import paths


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PROBE_TO_STEER_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "deep" / "file.txt"
    paths.atomic_write(file, "grüße\n")
    assert file.read_bytes() == "grüße\n".encode()

    def full(path: Path, content: bytes) -> None:
        with open(path, "wb") as half:
            half.write(content[:3])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space"):
        paths.atomic_write(file, "something else")
    assert file.read_text(encoding="utf-8") == "grüße\n"
    assert list(file.parent.iterdir()) == [file]


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "folder"
    with pytest.raises(KeyboardInterrupt), paths.atomic_folder(folder) as new:
        (new / "half").write_text("x")
        raise KeyboardInterrupt
    assert list(folder.parent.iterdir()) == []
    with paths.atomic_folder(folder) as new:
        (new / "whole").write_text("x")
        assert not folder.exists()
    assert [path.name for path in folder.iterdir()] == ["whole"]


def test_the_first_of_two_builders_wins(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    with paths.atomic_folder(folder) as mine:
        (mine / "file").write_text("mine")
        with paths.atomic_folder(folder) as theirs:
            (theirs / "file").write_text("theirs")
    assert (folder / "file").read_text() == "theirs"
    assert list(tmp_path.iterdir()) == [folder]


def test_a_manifest_finds_what_is_cut_off_or_missing(tmp_path: Path) -> None:
    (tmp_path / "weights").write_bytes(b"12345")
    assert paths.manifest_problem(tmp_path, made="today") == "it was never finished"
    paths.write_manifest(tmp_path, made="today")
    assert paths.manifest_problem(tmp_path, made="today") is None
    assert "made differs" in paths.manifest_problem(tmp_path, made="tomorrow")
    (tmp_path / "weights").write_bytes(b"123")
    assert paths.manifest_problem(tmp_path, made="today") == "weights has 3 bytes instead of 5"
    (tmp_path / "weights").unlink()
    assert paths.manifest_problem(tmp_path, made="today") == "weights is missing"
    (tmp_path / paths.MANIFEST).write_text("{")
    assert "cannot be read" in paths.manifest_problem(tmp_path, made="today")


@pytest.mark.parametrize(
    ("platform", "variable", "expected"),
    [("linux", "XDG_CACHE_HOME", "base"), ("win32", "LOCALAPPDATA", "base"), ("darwin", None, "home/Library/Caches"), ("linux", None, "home/.cache")],
)
def test_the_cache_folder_of_each_platform(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, platform: str, variable: str | None, expected: str
) -> None:
    for name in ("PROBE_TO_STEER_CACHE", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    if variable:
        monkeypatch.setenv(variable, str(tmp_path / "base"))
    monkeypatch.setattr(paths.sys, "platform", platform)
    monkeypatch.setattr(paths.Path, "home", lambda: tmp_path / "home")
    assert paths.cache_dir() == tmp_path / expected / "probe-to-steer"
    monkeypatch.setenv("PROBE_TO_STEER_CACHE", str(tmp_path / "chosen"))
    assert paths.cache_dir() == tmp_path / "chosen"
