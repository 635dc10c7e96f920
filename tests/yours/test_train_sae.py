"""An SAE of a folder of texts: what is refused, and what the report says."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from utils.__main__ import main
from utils.intervals import Estimate
from utils.models import tiny_model
from utils.sae.model import load_sae
from utils.yours.train_sae import MIN_FILES, TextError, read_folder, train_on_folder

SMALL = {"d_sae": 40, "k": 4, "steps": 6, "context": 8, "batch_size": 32, "progress": False}


@pytest.fixture(scope="module")
def model():
    return tiny_model()


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PROBE_TO_STEER_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def folder(tmp_path, model):
    """Twelve files of sixty words, one of them in a folder of its own."""
    words = sorted(word for word in model.tokenizer.get_vocab() if word.isalpha())
    draw = torch.Generator().manual_seed(0)
    home = tmp_path / "texts"
    (home / "more").mkdir(parents=True)
    for i in range(12):
        text = " ".join(words[j] for j in torch.randint(len(words), (60,), generator=draw))
        (home / ("more" if i == 3 else ".") / f"{i:02d}.{'md' if i % 2 else 'txt'}").write_text(text, encoding="utf-8")
    (home / "picture.png").write_bytes(b"not a text")
    return home


def test_a_folder_is_read_with_the_folders_in_it(folder):
    texts = read_folder(folder)
    assert len(texts) == 12 and "more/03.md" in [text.name for text in texts]


def test_what_is_no_folder_of_texts_is_refused(folder, tmp_path):
    with pytest.raises(TextError, match="is no folder"):
        read_folder(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(TextError, match=f"holds 0 .* at least {MIN_FILES}"):
        read_folder(tmp_path / "empty")
    (folder / "a.txt").write_text("  \n", encoding="utf-8")
    with pytest.raises(TextError, match="a.txt is empty"):
        read_folder(folder)
    (folder / "a.txt").write_bytes("good\nna\u00efve".encode("latin-1"))
    with pytest.raises(TextError, match=r"a.txt is not UTF-8 \(line 2\)"):
        read_folder(folder)
    (folder / "a.txt").write_text((folder / "00.txt").read_text("utf-8").upper() + "\n", encoding="utf-8")
    with pytest.raises(TextError, match="00.txt and a.txt are the same text"):
        read_folder(folder)


def test_texts_that_are_too_short_are_refused(folder, model):
    with pytest.raises(TextError, match="no document fills a context of 90"):
        train_on_folder(folder, model, **{**SMALL, "context": 90})
    with pytest.raises(TextError, match="tokens to train on: at least 4,096"):
        train_on_folder(folder, model, **{**SMALL, "batch_size": 1024})


def test_the_report_and_the_sae_that_it_leaves(folder, model):
    report = train_on_folder(folder, model, **SMALL)
    assert report.files == (10, 2) and report.sae.cfg.hook_name == "blocks.1.hook_out"
    values = [score.value for score in report.scores.values()]
    assert report.lead.value == pytest.approx(values[0] - values[1], abs=1e-5)
    assert report.l0 <= 4 and 0 <= report.dead <= 1 and report.headline in report.verdict and report.headline in report.figure().layout.title.text
    torch.testing.assert_close(load_sae(report.folder).W_dec, report.sae.W_dec)
    assert train_on_folder(folder, model, **SMALL).scores == report.scores  # from the cache
    for low, high, words in ((0.1, 0.2, "SAE explains more"), (-0.2, -0.1, "PCA explains more"), (-0.1, 0.2, "cannot be told")):
        assert words in dataclasses.replace(report, lead=Estimate((low + high) / 2, low, high)).verdict
    assert report.card().count("|") > 20


def test_the_command_says_what_is_wrong(tmp_path, capsys):
    assert main(["train-sae", str(tmp_path / "nowhere")]) == 2
    assert "is no folder" in capsys.readouterr().err
