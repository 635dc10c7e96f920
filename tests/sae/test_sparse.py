"""The sparse products against the dense ones: values and every gradient, the auxiliary loss included."""

from __future__ import annotations

import pytest
import torch

from utils.sae.model import SAE, SAEConfig
from utils.sae.sparse import sparse_decode, sparse_encode
from utils.sae.training import TrainingConfig, _decode_dense, training_forward


def _normal(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _indices(n: int, k: int, d_sae: int) -> torch.Tensor:
    return _normal(n, d_sae, seed=9).topk(k, dim=1, sorted=False).indices


@pytest.mark.parametrize("n, k, d_sae, d", [(7, 3, 11, 5), (1, 1, 2, 3), (64, 32, 40, 24)])
def test_decode_and_its_gradients(n: int, k: int, d_sae: int, d: int) -> None:
    indices = _indices(n, k, d_sae)
    results = []
    for decode in (sparse_decode, lambda values, indices, W: torch.zeros(n, d_sae, dtype=W.dtype).scatter(1, indices, values) @ W):
        values, W = _normal(n, k, seed=1).requires_grad_(), _normal(d_sae, d, seed=2).requires_grad_()
        out = decode(values, indices, W)
        out.backward(_normal(n, d, seed=3))
        results.append((out, values.grad, W.grad))
    for sparse, dense in zip(*results):
        torch.testing.assert_close(sparse, dense)


@pytest.mark.parametrize("n, k, d_sae, d", [(7, 3, 11, 5), (1, 1, 2, 3), (64, 32, 40, 24)])
def test_encode_and_its_gradients(n: int, k: int, d_sae: int, d: int) -> None:
    indices = _indices(n, k, d_sae)
    results = []
    for encode in (sparse_encode, lambda x, indices, W, b: (x @ W.T + b).gather(1, indices)):
        x, W, b = _normal(n, d, seed=4).requires_grad_(), _normal(d_sae, d, seed=5).requires_grad_(), _normal(d_sae, seed=6).requires_grad_()
        out = encode(x, indices, W, b)
        out.backward(_normal(n, k, seed=7))
        results.append((out, x.grad, W.grad, b.grad))
    for sparse, dense in zip(*results):
        torch.testing.assert_close(sparse, dense)


def test_sparse_decode_is_differentiated_right_numerically() -> None:
    indices = _indices(4, 2, 6)
    torch.autograd.gradcheck(lambda values, W: sparse_decode(values, indices, W), (_normal(4, 2, seed=1).requires_grad_(), _normal(6, 3, seed=2).requires_grad_()))
    torch.autograd.gradcheck(lambda x, W, b: sparse_encode(x, indices, W, b),
                             (_normal(4, 3, seed=1).requires_grad_(), _normal(6, 3, seed=2).requires_grad_(), _normal(6, seed=3).requires_grad_()))


@pytest.mark.parametrize("n_dead", [0, 2, 30])
def test_a_training_step_has_the_dense_gradients_the_auxiliary_loss_included(n_dead: int) -> None:
    cfg = SAEConfig(d_in=13, d_sae=50, k=4)
    x = _normal(37, 13, seed=8).float()
    dead = torch.arange(50) < n_dead
    found = []
    for sparse in (True, False):
        sae = SAE(cfg, seed=1)
        with torch.no_grad():  # nothing that is zero at the start may hide a lost gradient
            sae.encoder_rows.add_(_normal(50, 13, seed=2).float(), alpha=0.2)
            sae.b_enc.add_(_normal(50, seed=3).float(), alpha=0.2)
            sae.b_dec.add_(_normal(13, seed=4).float(), alpha=0.2)
        reconstruction, auxiliary, fired = training_forward(sae, x, dead, TrainingConfig(steps=1, sparse=sparse))
        ((x - reconstruction).pow(2).sum() + 0.7 * auxiliary).backward()
        found.append((reconstruction.detach(), auxiliary.detach(), fired, *(p.grad for p in sae.parameters())))
    assert (found[0][1] > 0) == (n_dead > 0)
    for sparse, dense in zip(*found):
        torch.testing.assert_close(sparse, dense, rtol=1e-4, atol=1e-4)


def test_the_auxiliary_gradient_reaches_dead_latents_and_only_the_auxiliary_does() -> None:
    cfg = SAEConfig(d_in=13, d_sae=50, k=4)
    x = _normal(37, 13, seed=8).float()
    sae = SAE(cfg, seed=1)
    dead = torch.arange(50) < 20
    with torch.no_grad():
        sae.b_enc[dead] = -100.0  # far from firing
        sae.b_enc[dead] += torch.where(torch.arange(20) < 10, 100.5, 0.0) - 0.2
    _, auxiliary, _ = training_forward(sae, x, dead, TrainingConfig(steps=1))
    auxiliary.backward()
    moved = sae.W_dec.grad.abs().sum(1) > 0
    assert moved[dead].any() and not moved[~dead].any()


def test_the_dense_decoder_writes_the_zeros_out() -> None:
    W = torch.tensor([[1.0, 0.0], [0.0, 1.0], [5.0, 5.0]])
    assert _decode_dense(torch.tensor([[2.0, 3.0]]), torch.tensor([[1, 0]]), W).tolist() == [[3.0, 2.0]]
