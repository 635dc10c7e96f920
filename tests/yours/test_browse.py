"""An SAE of somebody else's: how it is opened, what does not fit, what is counted."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from utils.hooks import resid_post
from utils.intervals import Estimate
from utils.models import tiny_model
from utils.reading.features import FeatureError
from utils.sae.model import SAE, SAEConfig, SAEError
from utils.yours.browse import browse, open_sae


@pytest.fixture(scope="module")
def model():
    made = tiny_model()
    made.cfg.model_name = "tiny-llama"
    return made


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PROBE_TO_STEER_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def texts(model):
    words = sorted(word for word in model.tokenizer.get_vocab() if word.isalpha())
    draw = torch.Generator().manual_seed(0)
    return [" ".join(words[j] for j in torch.randint(len(words), (200,), generator=draw)) for _ in range(40)]


def an_sae(**changes) -> SAE:
    return SAE(SAEConfig(**{"d_in": 24, "d_sae": 120, "k": 5, "model_name": "tiny-llama", "hook_name": resid_post(1)} | changes), seed=3).requires_grad_(False)


def test_a_folder_is_opened_and_counted(model, texts, tmp_path):
    sae = an_sae()
    sae.save(tmp_path / "sae")
    found = browse(tmp_path / "sae", model, texts=texts, progress=False)
    torch.testing.assert_close(found.sae.W_dec, sae.W_dec)
    assert found.latents >= 20 and len(found.fifths) == 5 and 0 < found.lottery < 1
    assert found.headline in found.verdict and found.headline in found.figure().layout.title.text
    top = found.stats.top_where[int(((found.stats.firing_rate * found.stats.n_tokens >= 60) & (found.stats.firing_rate < 0.1)).nonzero()[0, 0])]
    assert (top[:12, 0] >= 0).all()
    for listed, faint, words in ((0.5, 0.1, "loud part alone"), (0.5, 0.5, "whole range"), (0.0, 0.0, "no word in common")):
        changed = dataclasses.replace(found, listed=Estimate(listed, listed, listed), fifths=[Estimate(faint, faint, faint)] * 5)
        assert words in changed.verdict


def test_what_is_no_sae_is_refused(tmp_path):
    with pytest.raises(SAEError, match="is no folder. For a release"):
        open_sae("gpt2-small-res-jb")
    (tmp_path / "empty").mkdir()
    with pytest.raises(SAEError, match="holds no SAE: cfg.json is missing"):
        open_sae(tmp_path / "empty")
    (tmp_path / "empty" / "cfg.json").write_text('{"architecture": "jumprelu"}')
    with pytest.raises(SAEError, match="neither by this course"):
        open_sae(tmp_path / "empty")


def test_a_release_that_cannot_be_loaded_says_which(monkeypatch):
    from sae_lens import SAE as LensSAE

    def refuse(*_):
        raise ValueError("no such release")

    monkeypatch.setattr(LensSAE, "from_pretrained", refuse)
    with pytest.raises(SAEError, match="'blocks.1' of the release 'nothing': no such release"):
        open_sae("nothing", "blocks.1")


def test_an_sae_of_another_model_is_refused(model, texts):
    with pytest.raises(SAEError, match="was trained on another-model") as refused:
        browse(an_sae(model_name="another-model"), model, texts=texts)
    assert refused.value._render_traceback_() == [f"SAEError: {refused.value}"]  # one sentence in a notebook
    with pytest.raises(SAEError, match="reads activations of width 30"):
        browse(an_sae(d_in=30), model, texts=texts)
    with pytest.raises(SAEError, match="does not say on which model"):
        browse(an_sae(model_name=""), texts=texts)
    with pytest.raises(SAEError, match="was trained at blocks.1"):
        browse(an_sae(), model, name=resid_post(0), texts=texts)


def test_texts_that_say_too_little_are_refused(model, texts):
    with pytest.raises(FeatureError, match="list of strings"):
        browse(an_sae(), model, texts="one")
    with pytest.raises(FeatureError, match="text 1 is no text"):
        browse(an_sae(), model, texts=[texts[0], " "])
    with pytest.raises(FeatureError, match="no document fills"):
        browse(an_sae(), model, texts=["too short"])
    with pytest.raises(FeatureError, match="Give more text"):
        browse(an_sae(), model, texts=texts[:1], progress=False)
