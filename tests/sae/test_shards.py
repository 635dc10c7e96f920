"""Activations on disk: what is stored, in what order it comes back, what happens when something is wrong."""

from __future__ import annotations

import json

import pytest
import torch

from utils.activations import collect_activations
from utils.data.corpus import Document, split_documents, unwrap
from utils.hooks import intervene, resid_post
from utils.models import tiny_model
from utils.sae import shards as shards_module
from utils.sae.shards import ShardError, Shards, contexts, harvest

CONTEXT, PER_SHARD = 6, 3


def _documents(model, lengths=(23, 4, 31, 16)) -> list[Document]:
    words = sorted(word for word in model.tokenizer.get_vocab() if word.isalpha())
    draw = torch.Generator().manual_seed(3)
    return [Document("made up", f"{i}", " ".join(words[j] for j in torch.randint(len(words), (n,), generator=draw))) for i, n in enumerate(lengths)]


@pytest.fixture(scope="module")
def model():
    return tiny_model()


@pytest.fixture
def folder(tmp_path, model):
    harvest(model, _documents(model), resid_post(1), tmp_path / "shards", context=CONTEXT, contexts_per_shard=PER_SHARD, progress=False)
    return tmp_path / "shards"


def test_contexts_begin_with_bos_and_never_cross_documents(model):
    texts = _documents(model)
    tokens, owner = contexts(model, texts, CONTEXT)
    assert tokens.shape == (23 // 5 + 0 + 31 // 5 + 16 // 5, CONTEXT) and (tokens[:, 0] == model.tokenizer.bos_token_id).all()
    assert owner.tolist() == [0] * 4 + [2] * 6 + [3] * 3
    for i in (0, 2, 3):
        whole = model.tokenizer(texts[i].text, add_special_tokens=False)["input_ids"]
        assert tokens[owner == i][:, 1:].flatten().tolist() == whole[: int((owner == i).sum()) * 5]


def test_the_shards_hold_what_collect_activations_gives(folder, model):
    shards = Shards(folder)
    shards.verify()
    assert shards.hook == resid_post(1) and shards.d_model == model.cfg.d_model and len(shards.parts) == 5
    tokens, owner = contexts(model, _documents(model), CONTEXT)
    order = torch.randperm(len(tokens), generator=torch.Generator().manual_seed(0))
    expected = collect_activations(model, tokens[order], resid_post(1), mask=torch.ones_like(tokens, dtype=torch.bool), position="all", cache=False, progress=False)
    stored = {key: torch.cat([part[key] for part in shards.parts]) for key in ("acts", "token", "document", "position")}
    torch.testing.assert_close(stored["acts"].float(), expected.acts, rtol=1e-3, atol=1e-3)
    assert stored["token"].tolist() == expected.token.tolist() and stored["position"].tolist() == expected.position.tolist()
    assert stored["document"].tolist() == owner[order][expected.text].tolist()
    assert (stored["position"] > 0).all()


def test_an_epoch_gives_every_token_once_and_resumes_where_it_stopped(folder):
    shards = Shards(folder)
    everything = torch.cat([part["acts"].float() for part in shards.parts])
    batches = shards.batches(batch_size=7, seed=5)
    per_epoch = len(shards) // 7
    seen = [next(batches) for _ in range(2 * per_epoch)]
    for epoch in (seen[:per_epoch], seen[per_epoch:]):
        rows = {tuple(row) for row in torch.cat(epoch).tolist()}
        assert len(rows) == 7 * per_epoch and rows <= {tuple(row) for row in everything.tolist()}
    assert not torch.equal(torch.cat(seen[:per_epoch]), torch.cat(seen[per_epoch:]))
    later = shards.batches(batch_size=7, seed=5, first=per_epoch + 2)
    assert torch.equal(next(later), seen[per_epoch + 2])


def test_rows_come_back_in_the_order_asked_for(folder):
    shards = Shards(folder)
    everything = torch.cat([part["acts"].float() for part in shards.parts])
    index = torch.tensor([len(shards) - 1, 0, 17, 17, 3])
    assert torch.equal(shards.rows(index), everything[index])
    assert len(shards.sample(10_000)) == len(shards)


def test_a_killed_harvest_goes_on(tmp_path, model, monkeypatch):
    arguments = dict(context=CONTEXT, contexts_per_shard=PER_SHARD, progress=False)
    whole = harvest(model, _documents(model), resid_post(1), tmp_path / "whole", **arguments)
    calls = []

    def dies_at_the_third(*args, **kwargs):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return collect_activations(*args, **kwargs)

    monkeypatch.setattr(shards_module, "collect_activations", dies_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        harvest(model, _documents(model), resid_post(1), tmp_path / "killed", **arguments)
    with pytest.raises(ShardError, match="not finished: 2 shards"):
        Shards(tmp_path / "killed")
    resumed = harvest(model, _documents(model), resid_post(1), tmp_path / "killed", **arguments)
    assert len(calls) == 6  # the two finished shards are not computed again
    assert resumed.manifest == whole.manifest
    harvest(model, _documents(model), resid_post(1), tmp_path / "killed", **arguments)
    assert len(calls) == 6


@pytest.mark.parametrize("change, message", [
    (dict(name=resid_post(0)), "another hook point, blocks.1"), (dict(seed=1), "other texts or another shuffle"),
    (dict(context=5), "context = 6, not 5"), (dict(model=1), "another model"), (dict(fewer=1), "other documents"),
])
def test_a_folder_of_another_harvest_is_refused_and_left_alone(folder, model, change, message):
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    arguments = dict(name=resid_post(1), context=CONTEXT, contexts_per_shard=PER_SHARD, progress=False) | change
    if "model" in change:
        arguments.pop("model")
        model = tiny_model(seed=1)
    texts = _documents(tiny_model())
    if arguments.pop("fewer", False):
        del texts[1]  # it is shorter than a context: the tokens stay the same, the numbers of the documents do not
    with pytest.raises(ShardError, match=message):
        harvest(model, texts, folder=folder, **arguments)
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before


def test_damaged_shards_are_refused(folder):
    file = folder / "00002.safetensors"
    content = file.read_bytes()
    file.write_bytes(content[:-40])
    with pytest.raises(ShardError, match="00002.safetensors.*cannot be read"):
        Shards(folder)
    file.write_bytes(b"")
    with pytest.raises(ShardError, match="cannot be read"):
        Shards(folder)
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(ShardError, match="its content changed"):
        Shards(folder).verify()
    file.unlink()
    with pytest.raises(ShardError, match="it is missing.*Delete this file and call harvest again"):
        Shards(folder)


def test_a_deleted_shard_is_harvested_again(folder, model):
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    (folder / "00003.safetensors").unlink()
    harvest(model, _documents(model), resid_post(1), folder, context=CONTEXT, contexts_per_shard=PER_SHARD, progress=False).verify()
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before


def test_an_edited_model_is_not_harvested(model, tmp_path):
    with pytest.raises(ShardError, match="Detach them"), intervene(model, {resid_post(0): lambda acts, hook: 5 * acts}, may_do_nothing=True):
        harvest(model, _documents(model), resid_post(1), tmp_path / "x", context=CONTEXT, progress=False)
    assert not (tmp_path / "x").exists()


def test_what_half_precision_cannot_hold_is_not_stored(tmp_path):
    model = tiny_model()
    with torch.no_grad():
        model.original_model.model.embed_tokens.weight.mul_(1e5)
    with pytest.raises(ValueError, match="beyond half precision"):
        harvest(model, _documents(model), resid_post(0), tmp_path / "x", context=CONTEXT, progress=False)


def test_another_width_than_the_residual_streams_is_refused(model, tmp_path):
    with pytest.raises(ValueError, match="wide, not d_model"):
        harvest(model, _documents(model), "blocks.0.mlp.gate.hook_out", tmp_path / "x", context=CONTEXT, progress=False)


def test_two_seeds_never_share_an_epoch(folder):
    shards = Shards(folder)
    per_epoch = len(shards) // 7
    first = [torch.cat([batch for batch, _ in zip(shards.batches(7, seed, epoch * per_epoch), range(per_epoch))]) for seed in (0, 1) for epoch in (0, 1, 2)]
    assert not any(torch.equal(one, other) for i, one in enumerate(first) for other in first[:i])


def test_an_empty_shard_and_a_broken_manifest_are_refused(folder):
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["shards"][1]["tokens"] += 1
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ShardError, match="activations instead of"):
        Shards(folder)
    (folder / "manifest.json").write_text("{")
    with pytest.raises(ShardError, match="cannot be read"):
        Shards(folder)
    with pytest.raises(ShardError, match="harvest activations into it first"):
        Shards(folder / "nowhere")


def test_bad_input_says_what_to_do(model, tmp_path, folder):
    with pytest.raises(ValueError, match="fills a context of 40 tokens .*the longest has 31"):
        harvest(model, _documents(model), resid_post(1), tmp_path / "x", context=40)
    with pytest.raises(ValueError, match="no documents"):
        contexts(model, [])
    with pytest.raises(ValueError, match="a context has 2 to"):
        contexts(model, _documents(model), 1)
    with pytest.raises(ValueError, match="cannot be filled"):
        next(Shards(folder).batches(batch_size=10_000, seed=0))
    with pytest.raises(ValueError, match="cannot be filled"):
        next(Shards(folder).batches(batch_size=-1, seed=0))
    with pytest.raises(ValueError, match="max_contexts must be at least 1"):
        harvest(model, _documents(model), resid_post(1), tmp_path / "x", context=CONTEXT, max_contexts=0)
    assert not (tmp_path / "x").exists()


def test_nan_activations_stop_the_harvest(tmp_path):
    model = tiny_model()
    with torch.no_grad():
        model.original_model.model.layers[0].mlp.down_proj.weight[0, 0] = torch.nan
    with pytest.raises(ValueError, match="NaN or infinite"):
        harvest(model, _documents(model), resid_post(1), tmp_path / "x", context=CONTEXT, progress=False)


def test_documents_are_split_by_name_alone():
    texts = [Document("a", str(i), "x") for i in range(2000)]
    train, held_out = split_documents(texts, 0.1)
    assert 140 < len(held_out) < 260 and {d.name for d in train}.isdisjoint(d.name for d in held_out)
    assert split_documents(texts[500:600], 0.1)[1] == [d for d in held_out if 500 <= int(d.name) < 600]
    with pytest.raises(ValueError, match="between 0 and 1"):
        split_documents(texts, 1.0)


def test_unwrap_joins_lines_and_keeps_paragraphs():
    assert unwrap("one\r\ntwo  three\n\n \nfour\n") == "one two three\n\nfour"
