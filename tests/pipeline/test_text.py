"""Text from four kinds of source, cut into rows; what is said of one that will not do."""

from __future__ import annotations

import json

import pytest
import torch

from utils.data.corpus import split_documents
from utils.pipeline import text as text_module
from utils.pipeline.config import PipelineError, TextConfig
from utils.pipeline.records import Run
from utils.pipeline.stages import run_pipeline
from utils.pipeline.text import Sentences, documents_of, text_files
from utils.sae.shards import contexts


def contents(**source):
    return [document.text for document in documents_of(TextConfig(**source))]


def test_files_come_in_numeric_order(tmp_path):
    for name in ("10.txt", "9.md", "1.txt", "b/2.txt", "b/11.txt", "other.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    assert [path.relative_to(tmp_path).as_posix() for path in text_files(tmp_path)] == ["1.txt", "9.md", "10.txt", "b/2.txt", "b/11.txt"]
    assert contents(folder=str(tmp_path)) == ["1.txt", "9.md", "10.txt", "b/2.txt", "b/11.txt"]


def test_jsonl_and_a_streamed_data_set_give_the_same(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    lines = [f"document {i}" for i in range(7)]
    (tmp_path / "data.jsonl").write_text("".join(json.dumps({"body": line}) + "\n" for line in lines))
    assert contents(jsonl=str(tmp_path / "data.jsonl"), field="body") == lines
    streamed = TextConfig(dataset=str(tmp_path), field="body", max_tokens=100)
    assert [document.text for document in documents_of(streamed)] == lines
    assert [document.text for document in documents_of(streamed, first=5)] == lines[5:]


@pytest.mark.parametrize("line, message", [
    ('{"text": "a"', "line 1: no JSON object"), ('{"txt": "a"}', "line 2 has no text in 'text'. Set text.field to one of txt"),
    ('{"text": 3}', "must be an object with a text in it"), ("[1]", "must be an object"),
])
def test_a_bad_line_is_named(line, message, tmp_path):
    (tmp_path / "data.jsonl").write_text('{"text": "fine"}\n' + line + "\n")
    with pytest.raises(PipelineError) as caught:
        contents(jsonl=str(tmp_path / "data.jsonl"))
    assert message in str(caught.value)


def test_bad_places_are_named(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tmp_path / "texts").mkdir()
    with pytest.raises(PipelineError, match="no folder .*text. Did you mean .*texts"):
        contents(folder=str(tmp_path / "text"))
    with pytest.raises(PipelineError, match="holds no .txt or .md file"):
        contents(folder=str(tmp_path / "texts"))
    with pytest.raises(PipelineError, match="there is no file"):
        contents(jsonl=str(tmp_path / "x.jsonl"))
    with pytest.raises(PipelineError, match="cannot be streamed"):
        contents(dataset="nobody/nothing-of-the-kind", max_tokens=10)
    with pytest.raises(PipelineError, match="no such source of text"):
        contents(corpus=("speaches",))
    (tmp_path / "texts" / "a.txt").write_bytes(b"caf\xe9")
    with pytest.raises(PipelineError, match="not UTF-8"):
        contents(folder=str(tmp_path / "texts"))


def test_rows_are_those_of_contexts_and_sides_those_of_documents(finished):
    sentences, config = Sentences(finished.at("sentences")), finished.config
    found = list(documents_of(config.text))
    tokens, owners = contexts(finished.model, found, config.capture.context)
    assert torch.equal(sentences.rows(torch.arange(len(tokens))), tokens) and torch.equal(sentences.document, owners)
    _, held = split_documents(found, config.text.held_out)
    names = {document.name for document in held}
    assert sentences.held_out.tolist() == [i for i, owner in enumerate(owners.tolist()) if found[owner].name in names]
    assert len(sentences.train) + len(sentences.held_out) == len(tokens)
    index = torch.tensor([len(tokens) - 1, 0, 5])
    assert torch.equal(sentences.rows(index), tokens[index])


def test_parts_make_no_difference(finished, make_config, tmp_path, monkeypatch):
    monkeypatch.setattr(text_module, "PART_CHARACTERS", 3000)
    run = run_pipeline(make_config(tmp_path / "run"), only="sentences", progress=False)
    parts, whole = Sentences(run.at("sentences")), Sentences(finished.at("sentences"))
    assert len(parts.parts) > 4 and len(whole.parts) == 1
    everything = torch.arange(len(whole.document))
    assert torch.equal(parts.rows(everything), whole.rows(everything)) and torch.equal(parts.held_out, whole.held_out) and torch.equal(parts.document, whole.document)


def test_max_tokens_is_kept(make_config, texts, tmp_path):
    run = run_pipeline(make_config(tmp_path, text=TextConfig(folder=str(texts), held_out=0.3, max_tokens=3000)), only="sentences", progress=False)
    assert len(Sentences(run.at("sentences")).document) == 3000 // 12


def test_equal_texts_have_one_name_and_so_one_side(tmp_path):
    for name, content in (("1.txt", "a dog"), ("2.txt", "a cat"), ("3.txt", "a dog")):
        (tmp_path / name).write_text(content)
    first, second, third = documents_of(TextConfig(folder=str(tmp_path)))
    assert first.name == third.name != second.name


@pytest.mark.parametrize("content, message", [("dog", "fills a row of 12 tokens"), (" ", "empty or too short")])
def test_too_little_text_is_refused(content, message, make_config, tmp_path):
    (tmp_path / "texts").mkdir()
    for i in range(3):
        (tmp_path / "texts" / f"{i}.txt").write_text(content)
    with pytest.raises(PipelineError, match=message):
        run_pipeline(make_config(tmp_path / "run", text=TextConfig(folder=str(tmp_path / "texts"))), progress=False)


def test_text_of_one_document_cannot_be_measured(make_config, tmp_path):
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "only.txt").write_text("dog " * 300)
    with pytest.raises(PipelineError, match="fewer than 2 .*held out|none that is trained on"):
        run_pipeline(make_config(tmp_path / "run", text=TextConfig(folder=str(tmp_path / "texts"))), progress=False)


def test_text_that_changes_while_it_is_read_is_noticed(make_config, tmp_path, monkeypatch, texts):
    folder = tmp_path / "texts"
    folder.mkdir()
    for path in texts.iterdir():
        (folder / path.name).write_text(path.read_text())
    config = make_config(tmp_path / "run", text=TextConfig(folder=str(folder), held_out=0.2))
    monkeypatch.setattr(text_module, "_enough", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        run_pipeline(config, progress=False)
    (folder / "one more.txt").write_text("dog " * 40)
    with pytest.raises(PipelineError, match="the text changed while it was being read"):
        run_pipeline(config, progress=False)
    assert Run(config).at("sentences").exists()
