"""The training loop: what it explains, dead latents, checkpoints, bad input."""

from __future__ import annotations

import pytest
import torch

from utils.hooks import resid_post
from utils.sae import training as sae_training
from utils.sae.model import SAE, SAEConfig, SAEError
from utils.sae.training import Rows, TrainingConfig, train_sae

D_IN, D_SAE, K = 13, 29, 3


def test_what_training_ranks_is_what_the_finished_sae_ranks(make_acts):
    """The k latents are chosen by value times decoder norm while it trains, and by value once that norm is folded in."""
    sae, x = SAE(SAEConfig(D_IN, D_SAE, K)), make_acts(50)
    with torch.no_grad():
        sae.W_dec.mul_(torch.linspace(0.2, 3, D_SAE)[:, None])
    trained, _, _ = sae_training.training_forward(sae, x, torch.zeros(D_SAE, dtype=torch.bool), TrainingConfig(steps=1))
    by_value = sae(x)
    sae.fold_decoder_norm_()
    torch.testing.assert_close(sae(x), trained, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(by_value, trained, atol=1e-2)


@pytest.mark.parametrize("sparse", [True, False])
def test_training_explains_what_it_was_not_shown(sparse, explained, make_acts):
    sae, history = train_sae(Rows(make_acts(4000)), SAEConfig(D_IN, D_SAE, K), TrainingConfig(steps=600, batch_size=256, lr=3e-3, sparse=sparse), progress=False)
    untrained = SAE(SAEConfig(D_IN, D_SAE, K))
    untrained.rescale_(*sae_training.normalisation(make_acts(4000)))
    held_out = make_acts(800, seed=1)
    assert explained(sae, held_out) > 0.85 > 0.6 > explained(untrained, held_out)
    assert history.unexplained[-50:].mean() < 0.15
    torch.testing.assert_close(sae.W_dec.norm(dim=1), torch.ones(D_SAE))


def test_sparse_and_dense_training_take_the_same_path(make_acts):
    runs = [train_sae(Rows(make_acts(2000)), SAEConfig(D_IN, 90, K), TrainingConfig(steps=40, batch_size=64, sparse=sparse, dead_after=256), progress=False)
            for sparse in (True, False)]
    assert runs[0][1].dead.max() > 5  # so that the auxiliary loss takes part
    torch.testing.assert_close(runs[0][1].unexplained, runs[1][1].unexplained, rtol=1e-3, atol=1e-3)


@pytest.fixture
def half_dead(monkeypatch):
    """How many latents are dead at the end of a short training, by the weight of the auxiliary loss; 15 of 29 start far below their threshold."""

    class HalfDead(SAE):
        def __init__(self, cfg, seed=0):
            super().__init__(cfg, seed)
            with torch.no_grad():
                self.b_enc[::2] = -4.0

    monkeypatch.setattr(sae_training, "SAE", HalfDead)
    config = dict(steps=400, batch_size=128, lr=3e-3, dead_after=3000)
    return lambda acts, seed=0: {coefficient: int(train_sae(Rows(acts), SAEConfig(D_IN, D_SAE, K), TrainingConfig(aux_coefficient=coefficient, seed=seed, **config), progress=False)[1].dead[-1])
                                 for coefficient in (0.0, 1 / 4)}


@pytest.mark.xfail(strict=True, reason="held for unit-norm rows and this seed; with free lengths 6 stay dead, and over six seeds 9 of 15 with either, for there are only 20 directions to share")
def test_the_auxiliary_loss_brings_nearly_all_dead_latents_back(half_dead, make_acts):
    dead = half_dead(make_acts(3000))
    assert dead[0.0] >= 14 and dead[1 / 4] <= 5, dead


def test_the_auxiliary_loss_brings_dead_latents_back(half_dead):
    """60 directions to share, so that each of the 29 latents has something to do; the mean of four seeds."""
    rng = torch.Generator().manual_seed(0)
    features = torch.rand(3000, 60, generator=rng) * (torch.rand(3000, 60, generator=rng) < 0.05)
    acts = 30 * features @ torch.randn(60, D_IN, generator=rng) + 7
    runs = [half_dead(acts, seed) for seed in range(4)]
    dead = {coefficient: sum(run[coefficient] for run in runs) / len(runs) for coefficient in runs[0]}
    assert dead[0.0] >= 12 and dead[1 / 4] <= 6, dead


def test_a_search_in_bfloat16_ends_as_well(explained, make_acts):
    training = dict(steps=600, batch_size=256, lr=3e-3)
    found = [explained(train_sae(Rows(make_acts(4000)), SAEConfig(D_IN, D_SAE, K), TrainingConfig(bf16=bf16, **training), progress=False)[0], make_acts(800, seed=1))
                 for bf16 in (False, True)]
    assert found[1] > found[0] - 0.02


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("bf16", [False, True])
def test_training_on_a_gpu(bf16, explained, make_acts):
    sae, _ = train_sae(Rows(make_acts(4000)), SAEConfig(D_IN, D_SAE, K), TrainingConfig(steps=600, batch_size=256, lr=3e-3, bf16=bf16), device="cuda", progress=False)
    assert explained(sae.cpu(), make_acts(800, seed=1)) > 0.85


def test_activations_of_another_hook_point_are_refused(make_acts):
    rows = Rows(make_acts(300))
    object.__setattr__(rows, "hook", resid_post(1))
    with pytest.raises(ValueError, match="harvested at blocks.1.hook_out; the SAE is meant for blocks.2.hook_out"):
        train_sae(rows, SAEConfig(D_IN, D_SAE, K, hook_name=resid_post(2)), TrainingConfig(steps=3, batch_size=64), progress=False)


def test_a_killed_run_resumes_to_the_same_losses_and_weights(tmp_path, monkeypatch, make_acts):
    arguments = (Rows(make_acts(1000)), SAEConfig(D_IN, D_SAE, K), TrainingConfig(steps=50, batch_size=64, checkpoint_every=20, dead_after=64, seed=3))
    whole, history = train_sae(*arguments, progress=False)
    assert history.dead[20:].max() > 0  # 1,000 rows make 15 batches: step 20 lies within an epoch, with dead latents
    forward, calls = sae_training.training_forward, []

    def dies(*args):
        calls.append(1)
        if len(calls) == 38:
            raise KeyboardInterrupt
        return forward(*args)

    monkeypatch.setattr(sae_training, "training_forward", dies)
    with pytest.raises(KeyboardInterrupt):
        train_sae(*arguments, checkpoint=tmp_path / "run.safetensors", progress=False)
    resumed, again = train_sae(*arguments, checkpoint=tmp_path / "run.safetensors", progress=False)
    assert len(calls) == 38 + 50 - 20
    assert torch.equal(history.unexplained, again.unexplained) and torch.equal(history.dead, again.dead)
    for one, other in zip(whole.state_dict().values(), resumed.state_dict().values()):
        assert torch.equal(one, other)
    finished, _ = train_sae(*arguments, checkpoint=tmp_path / "run.safetensors", progress=False)
    assert len(calls) == 38 + 50 - 20 and torch.equal(finished.W_dec, whole.W_dec)


def test_a_checkpoint_of_another_run_is_refused(tmp_path, make_acts):
    path = tmp_path / "run.safetensors"
    train_sae(Rows(make_acts(300)), SAEConfig(D_IN, D_SAE, K), TrainingConfig(steps=3, batch_size=64), checkpoint=path, progress=False)
    with pytest.raises(SAEError, match="another run"):
        train_sae(Rows(make_acts(300)), SAEConfig(D_IN, D_SAE, K), TrainingConfig(steps=4, batch_size=64), checkpoint=path, progress=False)
    with pytest.raises(SAEError, match="other activations"):
        train_sae(Rows(make_acts(300, seed=8)), SAEConfig(D_IN, D_SAE, K), TrainingConfig(steps=3, batch_size=64), checkpoint=path, progress=False)
    spread = make_acts(300)
    with pytest.raises(SAEError, match="other activations"):
        train_sae(Rows(spread.mean(0) + 10 * (spread - spread.mean(0))), SAEConfig(D_IN, D_SAE, K), TrainingConfig(steps=3, batch_size=64), checkpoint=path, progress=False)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(SAEError, match="cannot be read"):
        train_sae(Rows(make_acts(300)), SAEConfig(D_IN, D_SAE, K), TrainingConfig(steps=3, batch_size=64), checkpoint=path, progress=False)


def test_bad_activations(make_acts):
    broken = make_acts(300)
    broken[17, 2] = torch.nan
    with pytest.raises(ValueError, match="1 of 300 activations are NaN or infinite, row 17"):
        Rows(broken)
    for acts, message in ((torch.full((300, D_IN), 0.1), "do not vary"), (make_acts(300)[:, :12], "width 13; these have 12"), (make_acts(20), "cannot be filled")):
        with pytest.raises(ValueError, match=message):
            train_sae(Rows(acts), SAEConfig(D_IN, D_SAE, K), TrainingConfig(steps=3, batch_size=64), progress=False)


@pytest.mark.parametrize("name", ["steps", "batch_size", "dead_after", "checkpoint_every"])
def test_counts_below_one_are_refused(name):
    with pytest.raises(ValueError, match=f"{name} must be at least 1, not 0"):
        TrainingConfig(**({"steps": 3} | {name: 0}))


def test_the_learning_rate_rises_stays_and_falls():
    training = TrainingConfig(steps=100, lr=2.0, warmup=0.1, decay=0.2)
    rates = [training.lr_at(step) for step in range(100)]
    assert rates[0] == pytest.approx(0.2) and rates[9:81] == [2.0] * 72 and rates[99] == pytest.approx(0.1)
