"""The products with a sparse code, and their gradients, at the cost of the k latents that fire.

A code of k numbers and k latent indices per token stands for a vector of d_sae entries that is almost all zeros.
The dense products multiply every zero. These do not, and give the same results and the same gradients for every
argument: tests/sae/test_sparse.py holds each against the dense one. Built from public PyTorch operations alone. The
weights are float32; under autocast the code is brought back to their dtype.
"""

from __future__ import annotations

import warnings

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

# PyTorch says it once per process, about the one matrix below.
warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")


def sparse_decode(
    values: Float[Tensor, "n k"], indices: Int[Tensor, "n k"], W: Float[Tensor, "d_sae d"]
) -> Float[Tensor, "n d"]:
    """sum over j of values[:, j] * W[indices[:, j]]: a code times the decoder. Differentiable in `values` and `W`."""
    return _Decode.apply(values.to(W.dtype), indices, W)


def sparse_encode(
    x: Float[Tensor, "n d"], indices: Int[Tensor, "n k"], W: Float[Tensor, "d_sae d"], b: Float[Tensor, " d_sae"]
) -> Float[Tensor, "n k"]:
    """x · W[indices] + b[indices]: the pre-activations of the chosen latents alone. Differentiable in `x`, `W` and `b`."""
    return _Encode.apply(x.to(W.dtype), indices, W, b)


class _Decode(torch.autograd.Function):
    @staticmethod
    def forward(ctx, values: Tensor, indices: Tensor, W: Tensor) -> Tensor:
        ctx.save_for_backward(values, indices, W)
        return F.embedding_bag(indices, W, per_sample_weights=values, mode="sum")

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, None, Tensor | None]:
        values, indices, W = ctx.saved_tensors
        grad = grad.contiguous()
        grad_values = _sampled_dot(grad, indices, W) if ctx.needs_input_grad[0] else None
        grad_W = _transposed_product(values, indices, len(W), grad) if ctx.needs_input_grad[2] else None
        return grad_values, None, grad_W


class _Encode(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, indices: Tensor, W: Tensor, b: Tensor) -> Tensor:
        ctx.save_for_backward(x, indices, W)
        return _sampled_dot(x, indices, W) + b[indices]

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, None, Tensor | None, Tensor | None]:
        x, indices, W = ctx.saved_tensors
        grad = grad.contiguous()
        wants_x, _, wants_W, wants_b = ctx.needs_input_grad
        grad_x = F.embedding_bag(indices, W, per_sample_weights=grad, mode="sum") if wants_x else None
        grad_W = _transposed_product(grad, indices, len(W), x) if wants_W else None
        grad_b = torch.zeros(len(W), dtype=grad.dtype, device=grad.device).index_add_(0, indices.flatten(), grad.flatten()) if wants_b else None
        return grad_x, None, grad_W, grad_b


def _sampled_dot(x: Float[Tensor, "n d"], indices: Int[Tensor, "n k"], W: Float[Tensor, "d_sae d"]) -> Float[Tensor, "n k"]:
    """x[i] · W[indices[i, j]]. It is what embedding_bag's gradient for its weights computes, without the [n, k, d] in between."""
    with torch.enable_grad():
        weights = torch.zeros(indices.shape, dtype=W.dtype, device=W.device, requires_grad=True)
        bag = F.embedding_bag(indices, W.detach(), per_sample_weights=weights, mode="sum")
        return torch.autograd.grad(bag, weights, x.detach())[0]


def _transposed_product(
    values: Float[Tensor, "n k"], indices: Int[Tensor, "n k"], d_sae: int, right: Float[Tensor, "n d"]
) -> Float[Tensor, "d_sae d"]:
    """Z^T @ right, where Z [n, d_sae] is the code written out: a product with one sparse matrix."""
    flat = indices.flatten()
    order = flat.argsort(stable=True)  # stable: the order of a sum, and so its last bit, must not change between runs
    ends = torch.bincount(flat, minlength=d_sae).cumsum(0)
    matrix = torch.sparse_csr_tensor(
        F.pad(ends, (1, 0)), order // indices.shape[1], values.detach().flatten()[order], (d_sae, len(values)), check_invariants=False
    )
    return matrix @ right.detach()
