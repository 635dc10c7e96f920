"""utils.data.fetch: what is fetched is whole, and every failure says what to do.

pip itself runs, on a package index that is a folder of this test's, or on none at all.
"""

from __future__ import annotations

import errno
import hashlib
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from utils import paths
from utils.data import fetch
from utils.data.fetch import FetchError, fetch_wheel, wheel_file

REQUIREMENT = "probe-toy==1.0"
CONTENT = b"a little data\n" * 1000
MEMBER = "probe_toy/data.txt"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PROBE_TO_STEER_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that pip takes for its whole index, holding version 1.0 of one package."""
    folder = tmp_path / "shelf"
    folder.mkdir()
    with zipfile.ZipFile(folder / "probe_toy-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr(MEMBER, CONTENT)
        wheel.writestr("probe_toy-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: probe-toy\nVersion: 1.0\n")
        wheel.writestr("probe_toy-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr("probe_toy-1.0.dist-info/RECORD", "")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.delenv("PIP_EXTRA_INDEX_URL", raising=False)
    return folder


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Call it, and pip finds nothing but a closed port of this machine."""

    def unplug() -> None:
        for name in ("PIP_NO_INDEX", "PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
        monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
        monkeypatch.setenv("PIP_RETRIES", "1")

    return unplug


def sha(shelf: Path) -> str:
    return hashlib.sha256(next(shelf.glob("*.whl")).read_bytes()).hexdigest()


def left_behind(cache: Path) -> list[str]:
    """Everything in the cache that is neither a finished file nor a lock."""
    return [str(path) for path in cache.rglob("*") if path.name.startswith(".")]


def test_a_wheel_is_fetched_once(cache: Path, shelf: Path, offline: Callable[[], None]) -> None:
    killed = cache / "wheels" / f".{REQUIREMENT}-abc" / "dest"
    killed.mkdir(parents=True)
    wheel = fetch_wheel(REQUIREMENT, sha(shelf))
    assert wheel.parent == cache / "wheels"
    assert wheel.read_bytes() == next(shelf.glob("*.whl")).read_bytes()
    offline()
    assert fetch_wheel(REQUIREMENT, sha(shelf)) == wheel
    assert left_behind(cache) == []


def test_a_cached_wheel_is_not_hashed_again_until_it_changes(
    cache: Path, shelf: Path, offline: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed: list[Path] = []
    monkeypatch.setattr(fetch, "sha256_of", lambda path: hashed.append(path) or fetch.hashlib.sha256(path.read_bytes()).hexdigest())
    wheel = fetch_wheel(REQUIREMENT, sha(shelf))
    offline()
    hashed.clear()
    fetch_wheel(REQUIREMENT, sha(shelf))
    assert hashed == []
    os.utime(wheel, (1, 1))
    fetch_wheel(REQUIREMENT, sha(shelf))
    fetch_wheel(REQUIREMENT, sha(shelf))
    assert hashed == [wheel]


def test_a_wheel_put_there_by_hand_is_used(cache: Path, shelf: Path, offline: Callable[[], None]) -> None:
    (cache / "wheels").mkdir(parents=True)
    by_hand = cache / "wheels" / "Probe.Toy-1.0-py3-none-any.whl"
    by_hand.write_bytes(next(shelf.glob("*.whl")).read_bytes())
    offline()
    assert fetch_wheel(REQUIREMENT, sha(shelf)) == by_hand


@pytest.mark.parametrize("damage", ["truncated", "one byte changed"])
def test_a_damaged_wheel_is_fetched_again(cache: Path, shelf: Path, capsys: pytest.CaptureFixture[str], damage: str) -> None:
    wheel = fetch_wheel(REQUIREMENT, sha(shelf))
    content = bytearray(wheel.read_bytes())
    if damage == "truncated":
        del content[-100:]
    else:
        content[50] ^= 1
    wheel.write_bytes(content)
    os.utime(wheel, (1, 1))
    assert fetch_wheel(REQUIREMENT, sha(shelf)) == wheel
    assert fetch.sha256_of(wheel) == sha(shelf)
    assert "damaged" in capsys.readouterr().out


def test_one_file_is_unpacked_and_repaired(cache: Path, shelf: Path) -> None:
    file = wheel_file(REQUIREMENT, sha(shelf), MEMBER)
    assert file.read_bytes() == CONTENT
    assert cache in file.parents
    file.write_bytes(CONTENT[:10])
    assert wheel_file(REQUIREMENT, sha(shelf), MEMBER).read_bytes() == CONTENT
    with pytest.raises(FetchError, match=r"holds no 'probe_toy/other.txt'"):
        wheel_file(REQUIREMENT, sha(shelf), "probe_toy/other.txt")


def test_a_bad_hash_names_both_and_keeps_nothing(cache: Path, shelf: Path) -> None:
    with pytest.raises(FetchError) as caught:
        fetch_wheel(REQUIREMENT, "0" * 64)
    message = str(caught.value)
    assert sha(shelf) in message
    assert "0" * 64 in message
    assert "proxy" in message
    assert list(cache.rglob("*.whl")) == []
    assert left_behind(cache) == []


def test_no_network_says_what_was_tried_and_three_ways_out(cache: Path, offline: Callable[[], None]) -> None:
    offline()
    with pytest.raises(FetchError) as caught:
        fetch_wheel(REQUIREMENT, "0" * 64)
    message = str(caught.value)
    assert "cannot be reached" in message
    assert "python -m pip download --no-deps --only-binary=:all: probe-toy==1.0" in message
    assert "after connection broken by" in message.split("pip said:")[1].splitlines()[0]
    assert message.count("\n  - ") == 3
    assert str(cache / "wheels") in message
    assert left_behind(cache) == []


def test_an_unknown_version_names_those_that_exist(cache: Path, shelf: Path) -> None:
    with pytest.raises(FetchError, match=r"has no probe-toy==9\.9; it has 1\.0"):
        fetch_wheel("probe-toy==9.9", "0" * 64)


def test_an_environment_without_pip(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(FetchError, match="ensurepip"):
        fetch_wheel(REQUIREMENT, "0" * 64)


def test_pip_finds_the_disk_full(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = tmp_path / "stand_in" / "pip"
    module.mkdir(parents=True)
    text = "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device"
    (module / "__init__.py").write_text("")
    (module / "__main__.py").write_text(f"import sys\nprint({text!r}, file=sys.stderr)\nsys.exit(1)\n")
    monkeypatch.setenv("PYTHONPATH", str(module.parent))
    with pytest.raises(FetchError, match=r"disk is full.*\d+ MB are free"):
        fetch_wheel(REQUIREMENT, "0" * 64)
    assert left_behind(cache) == []


def test_the_disk_fills_while_unpacking(cache: Path, shelf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def half(source: object, target: object, length: int = 0) -> None:
        target.write(CONTENT[:10])
        raise OSError(errno.ENOSPC, "No space left on device")

    fetch_wheel(REQUIREMENT, sha(shelf))
    monkeypatch.setattr(fetch.shutil, "copyfileobj", half)
    with pytest.raises(FetchError, match="disk is full"):
        wheel_file(REQUIREMENT, sha(shelf), MEMBER)
    assert not list(cache.rglob("data.txt*"))
    assert left_behind(cache) == []


def test_a_folder_that_cannot_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PROBE_TO_STEER_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(FetchError, match="PROBE_TO_STEER_CACHE"):
        fetch_wheel(REQUIREMENT, "0" * 64)


@pytest.mark.parametrize("text", ["probe-toy", "probe-toy>=1.0", "probe-toy==1.0; rm", "-r==1"])
def test_only_an_exact_requirement_is_accepted(cache: Path, text: str) -> None:
    with pytest.raises(ValueError, match="name==version"):
        fetch_wheel(text, "0" * 64)


def test_two_processes_fetch_at_once(cache: Path, shelf: Path) -> None:
    program = f"from utils.data.fetch import wheel_file; print(wheel_file({REQUIREMENT!r}, {sha(shelf)!r}, {MEMBER!r}).stat().st_size)"
    both = [
        subprocess.Popen([sys.executable, "-c", program], cwd=paths.ROOT, stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    assert [(process.communicate()[0].strip(), process.returncode) for process in both] == [(str(len(CONTENT)), 0)] * 2
    assert left_behind(cache) == []


def test_importing_the_package_loads_nothing_heavy() -> None:
    program = "import sys, utils, utils.paths, utils.data.fetch, utils.course.doctor; print(sorted({'torch', 'numpy', 'tqdm', 'filelock'} & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", program], cwd=paths.ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
