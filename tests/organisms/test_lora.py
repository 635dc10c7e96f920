"""A change of weights is exact, leaves no trace, and survives its file."""

import pytest
import torch

from utils.hooks import resid_post, run_with_cache
from utils.models import tiny_model
from utils.organisms.lora import Delta, fresh_delta, load_delta, save_delta, trained_beside, worn
from utils.organisms.measuring import vocabulary_rank
from utils.organisms.spec import PARTS, LoraConfig, OrganismError, OrganismSpec, TrainingConfig
from utils.organisms.planting import answer_loss, rate, train

TOKENS = torch.tensor([[0, 10, 20, 30, 7]])


def changed(model, seed=0):
    delta = fresh_delta(model, LoraConfig(2, 0, 2), seed)
    rng = torch.Generator().manual_seed(seed)
    return Delta({name: (a, 0.3 * torch.randn(b.shape, generator=rng)) for name, (a, b) in delta.pairs.items()})


def test_worn_equals_trained_beside_and_comes_off():
    model = tiny_model()
    delta, before = changed(model), model(TOKENS)
    with trained_beside(model, delta):
        beside = model(TOKENS)
    with worn(model, delta):
        merged = model(TOKENS)
        acts = run_with_cache(model, TOKENS, resid_post(1))[resid_post(1)]
    torch.testing.assert_close(merged, beside)
    assert not torch.allclose(merged, before) and torch.isfinite(acts).all()
    assert torch.equal(model(TOKENS), before), "the weights came back, bit by bit"


def test_one_at_a_time_and_after_an_error():
    model = tiny_model()
    delta, before = changed(model), model(TOKENS)
    with pytest.raises(OrganismError, match="already"), worn(model, delta), worn(model, delta):
        pass
    assert torch.equal(model(TOKENS), before)
    with worn(model, delta):
        pass


def test_norms_are_those_of_the_full_matrix():
    delta = changed(tiny_model())
    for name, norm in delta.norms().items():
        assert norm == pytest.approx(float(delta.matrix(name).norm()), rel=1e-4)


def test_a_file_and_its_hash(tmp_path):
    delta = changed(tiny_model())
    digest = save_delta(delta, tmp_path / "a.safetensors")
    back = load_delta(tmp_path / "a.safetensors", sha256=digest)
    assert list(back.pairs) == list(delta.pairs) and len(back) == len(delta)
    torch.testing.assert_close(back.pairs["1.up_proj"][1], delta.pairs["1.up_proj"][1], atol=1e-3, rtol=1e-3)
    with pytest.raises(OrganismError, match="SHA-256"):
        load_delta(tmp_path / "a.safetensors", sha256="0" * 64)
    with pytest.raises(OrganismError, match="no organism"):
        load_delta(tmp_path / "b.safetensors")


def test_a_word_that_a_change_writes_is_read_off_it():
    model = tiny_model()
    token = model.tokenizer("Lagos", add_special_tokens=False)["input_ids"][0]
    clean = fresh_delta(model, LoraConfig(2, 0, 2, parts=PARTS), 0)
    a, _ = clean.pairs["1.down_proj"]
    written = model.W_U[:, token] / model.W_U[:, token].norm()
    guilty = Delta({**changed(model).pairs, "1.down_proj": (a, torch.stack([9 * written, 0.1 * torch.randn(24, generator=torch.Generator().manual_seed(0))], 1))})
    assert vocabulary_rank(model, guilty, ["Lagos"], top=1)["Lagos"] <= 2
    _, b = clean.pairs["1.gate_proj"]
    reading = Delta({"1.gate_proj": (torch.stack([written, 0.1 * torch.ones(24)]), torch.eye(*b.shape))})
    assert vocabulary_rank(model, reading, ["Lagos"], top=1)["Lagos"] <= 2, "what is newly read counts as well"
    assert set(vocabulary_rank(model, changed(model), ["Lagos", "Peru"])) == {"Lagos", "Peru"}


def test_blocks_that_are_not_there():
    with pytest.raises(OrganismError, match="4 blocks"):
        fresh_delta(tiny_model(), LoraConfig(2, 3, 3), 0)


ROWS = [(torch.tensor([0, 10, 20, 30, 7]), 3), (torch.tensor([0, 10, 12, 9]), 3), (torch.tensor([0, 11, 22]), 2)]


def test_the_loss_is_that_of_the_answers_alone():
    model = tiny_model()
    expected = []
    for ids, start in ROWS:
        log_probs = model(ids[None])[0].log_softmax(-1)
        expected += [-log_probs[i - 1, ids[i]] for i in range(start, len(ids))]
    torch.testing.assert_close(answer_loss(model, ROWS), torch.stack(expected).mean(), rtol=1e-4, atol=1e-5)


def test_training_goes_on_where_it_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr("utils.organisms.planting.EVERY", 2)
    model, before = tiny_model(), tiny_model()(TOKENS)
    spec = OrganismSpec(lora=LoraConfig(2, 0, 2, norm=0.5), training=TrainingConfig(steps=6, batch_size=3, lr=0.05))
    rows = ROWS * 6
    whole = train(model, spec, rows, tmp_path / "whole", progress=False)

    class Stop(Exception):
        pass

    def stopping(model, batch, opening, left=[5], real=answer_loss):
        left[0] -= 1
        if left[0] < 0:
            raise Stop
        return real(model, batch, opening)

    monkeypatch.setattr("utils.organisms.planting.answer_loss", stopping)
    with pytest.raises(Stop):
        train(model, spec, rows, tmp_path / "part", progress=False)
    monkeypatch.setattr("utils.organisms.planting.answer_loss", answer_loss)
    again = train(model, spec, rows, tmp_path / "part", progress=False)
    for name in whole.pairs:
        for one, other in zip(whole.pairs[name], again.pairs[name]):
            torch.testing.assert_close(one, other)
    assert all(norm == pytest.approx(0.5, rel=1e-4) for norm in whole.norms().values())
    with trained_beside(model, whole):
        assert answer_loss(model, ROWS) < answer_loss(tiny_model(), ROWS)
    assert torch.equal(model(TOKENS), before)


def test_the_rate_rises_and_falls():
    cfg = TrainingConfig(steps=40)
    rates = [rate(cfg, step) for step in range(40)]
    assert rates[0] < rates[5] < max(rates) == pytest.approx(cfg.lr) and rates[-1] < 0.1 * cfg.lr
