"""Other models by name or folder, devices and dtypes, the tiny model."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import timeit
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch

from utils import paths
from utils.default_model import ModelError
from utils.models import load_model, tiny_model

TEXT = "The city of Paris is in France."


def run_python(program: str, **environment: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=paths.ROOT, env={**os.environ, **environment}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


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
