"""The rivals of chapter 33: what is frozen stays, what ships is what was trained."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from utils.sae import rivals
from utils.sae.model import SAE, SAEConfig, SAEError
from utils.sae.rivals import RIVALS, SHA256, keep_near_, load_rivals, packed, start_rows, train_rival, unpacked
from utils.sae.training import Rows, TrainingConfig, train_sae

CFG = SAEConfig(d_in=6, d_sae=10, k=3)
TRAINING = TrainingConfig(steps=30, batch_size=32, lr=1e-2, dead_after=64)
ACTS = Rows(torch.randn(200, 6, generator=torch.Generator().manual_seed(0)) * torch.arange(1, 7) + 3)


def rival(frozen: str) -> SAE:
    return train_rival(ACTS, CFG, TRAINING, frozen, progress=False)


def test_nothing_frozen_is_the_course_trainer():
    expected, _ = train_sae(ACTS, CFG, TRAINING, progress=False)
    for name, weight in expected.state_dict().items():
        torch.testing.assert_close(rival("").state_dict()[name], weight)


def test_a_frozen_decoder_stays_where_it_began():
    start = SAE(CFG, TRAINING.seed).W_dec
    torch.testing.assert_close(rival("decoder").W_dec, start)
    assert F.cosine_similarity(rival("").W_dec, start).min() < 0.99


def test_a_frozen_encoder_keeps_its_directions():
    start = SAE(CFG, TRAINING.seed).W_dec
    frozen = rival("encoder")
    torch.testing.assert_close(F.normalize(frozen.encoder_rows, dim=1), start)
    assert F.cosine_similarity(frozen.W_dec, start).min() < 0.99


def test_a_soft_frozen_decoder_stays_near():
    cosine = F.cosine_similarity(rival("softly").W_dec, SAE(CFG, TRAINING.seed).W_dec)
    assert cosine.min() > rivals.LEAST_COSINE - 1e-5 and cosine.min() < 0.99


def test_another_word_is_refused():
    with pytest.raises(ValueError, match="frozen"):
        rival("half")


def test_keep_near_turns_back_what_has_gone_too_far():
    start = torch.eye(3)[:2]
    rows = torch.tensor([[0.0, 5.0, 0.0], [0.1, 3.0, 0.0]])
    keep_near_(rows, start, 0.8)
    torch.testing.assert_close(rows, torch.tensor([[4.0, 3.0, 0.0], [0.1, 3.0, 0.0]]))


@pytest.mark.parametrize("name", RIVALS)
def test_what_is_packed_comes_back(name):
    rng = torch.Generator().manual_seed(1)
    start = start_rows(RIVALS[name].seed)
    lengths = 0.5 + torch.rand(len(start), 1, generator=rng)
    weights = {"W_enc": (lengths * start).T, "W_dec": start, "b_enc": torch.randn(len(start), generator=rng),
               "b_dec": torch.randn(start.shape[1], generator=rng)}
    sae = unpacked(packed({name: SAE.of(rivals.CFG, weights)}))[name]
    for key, value in weights.items():
        torch.testing.assert_close(getattr(sae, key), value, rtol=2e-3, atol=1e-3)


def test_a_changed_file_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(rivals, "FILE", rivals.ROOT / "no such file")
    with pytest.raises(SAEError, match="missing"):
        load_rivals()


@pytest.mark.skipif(not SHA256, reason="not trained yet")
def test_those_that_ship():
    saes = load_rivals()
    assert set(saes) == set(RIVALS)
    x = torch.randn(5, 576, generator=torch.Generator().manual_seed(2))
    for name, sae in saes.items():
        assert (sae.cfg.d_sae, sae.cfg.k) == (1024, 32), name
        assert sae(x).isfinite().all()
    near = F.cosine_similarity(saes["soft-frozen decoder"].W_dec, start_rows(0))
    assert near.min() > rivals.LEAST_COSINE - 0.01
    torch.testing.assert_close(saes["frozen decoder"].W_dec, start_rows(0))
    assert replace(RIVALS["trained"], seed=1) == RIVALS["second seed"]
