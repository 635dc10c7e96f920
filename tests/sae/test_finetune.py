"""The second training, on the model's own predictions."""

from __future__ import annotations

import pytest
import torch

from utils.hooks import InterventionError, is_edited, resid_post, run_with_cache
from utils.models import tiny_model
from utils.sae.finetune import FinetuneConfig, finetune_sae
from utils.sae.model import SAE, SAEConfig, SAEError, usual_tokens
from utils.sae.training import Rows, TrainingConfig, train_sae

HERE = resid_post(1)


@pytest.fixture(scope="module")
def model():
    return tiny_model()


@pytest.fixture(scope="module")
def tokens(model):
    tokens = torch.randint(5, model.cfg.d_vocab, (64, 24), generator=torch.Generator().manual_seed(0))
    tokens[:, 0] = model.tokenizer.bos_token_id
    return tokens


@pytest.fixture(scope="module")
def sae(model, tokens):
    acts = run_with_cache(model, tokens, HERE)[HERE]
    cfg = SAEConfig(model.cfg.d_model, 96, 4, model.cfg.model_name, HERE)
    return train_sae(Rows(acts[usual_tokens(acts)]), cfg, TrainingConfig(steps=150, batch_size=256, lr=3e-3), progress=False)[0]


def _tune(model, sae, tokens, steps=60, **more):
    return finetune_sae(model, sae, tokens, FinetuneConfig(steps=steps, lr=1e-3, **more), progress=False)


def test_the_divergence_falls_and_the_activations_are_still_rebuilt(model, sae, tokens):
    before = {name: weight.clone() for name, weight in sae.state_dict().items()}
    weights = [weight.clone() for weight in model.parameters()]
    tuned, kl = _tune(model, sae, tokens, steps=200)
    assert kl[-8:].mean() < 0.9 * kl[:8].mean(), kl
    acts = run_with_cache(model, tokens, HERE)[HERE]
    x = acts[usual_tokens(acts)]
    error = [float((x - each(x)).pow(2).sum() / (x - x.mean(0)).pow(2).sum()) for each in (sae, tuned)]
    assert error[1] < error[0] + 0.02, error
    torch.testing.assert_close(tuned.W_dec.norm(dim=1), torch.ones(96))
    assert (tuned.W_dec * sae.W_dec).sum(1).median() > 0.95
    assert not any(weight.requires_grad for weight in tuned.parameters()) and not is_edited(model)
    assert all(torch.equal(sae.state_dict()[name], weight) for name, weight in before.items())
    assert all(torch.equal(old, new) and new.grad is None for old, new in zip(weights, model.parameters()))


def test_a_run_that_was_stopped_ends_as_if_it_had_not_been(model, sae, tokens, tmp_path, monkeypatch):
    whole, kl = _tune(model, sae, tokens, steps=12, checkpoint_every=5)

    from utils.sae import finetune as sae_finetune

    def stop(*args):
        if next(count) == 7:
            raise KeyboardInterrupt
        return losses(*args)

    losses, count = sae_finetune._losses, iter(range(99))
    monkeypatch.setattr(sae_finetune, "_losses", stop)
    path = tmp_path / "run.safetensors"
    tuning = FinetuneConfig(steps=12, lr=1e-3, checkpoint_every=5)
    with pytest.raises(KeyboardInterrupt):
        finetune_sae(model, sae, tokens, tuning, checkpoint=path, progress=False)
    monkeypatch.setattr(sae_finetune, "_losses", losses)
    again, kl_again = finetune_sae(model, sae, tokens, tuning, checkpoint=path, progress=False)
    torch.testing.assert_close(kl_again, kl, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(again.W_dec, whole.W_dec)
    other = SAE(sae.cfg, seed=5)
    for stranger, settings in ((other, tuning), (sae, FinetuneConfig(steps=13))):
        with pytest.raises(SAEError, match="belongs to another run"):
            finetune_sae(model, stranger, tokens, settings, checkpoint=path, progress=False)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(SAEError, match="cannot be read"):
        finetune_sae(model, sae, tokens, tuning, checkpoint=path, progress=False)


def test_every_context_is_seen_once_before_one_is_seen_twice():
    from utils.sae.finetune import _order

    order = _order(10, FinetuneConfig(steps=6, batch_size=4))
    assert len(order) >= 24 and sorted(order[:10].tolist()) == list(range(10)) != order[:10].tolist()


def test_what_cannot_work_is_refused(model, sae, tokens):
    with pytest.raises(ValueError, match="8 contexts cannot be filled: there are 3"):
        _tune(model, sae, tokens[:3])
    with pytest.raises(ValueError, match="integers"):
        _tune(model, sae, tokens.float())
    with pytest.raises(SAEError, match="trained on gpt2"):
        _tune(model, SAE(SAEConfig(model.cfg.d_model, 96, 4, "gpt2", HERE)), tokens)
    with pytest.raises(ValueError, match="steps must be"):
        FinetuneConfig(steps=0)
    broken = SAE(sae.cfg)
    with torch.no_grad():
        broken.W_dec[0] = float("nan")
        broken.b_enc[0] = 1e3
    with pytest.raises(InterventionError, match="NaN or infinity"):
        _tune(model, broken, tokens)
