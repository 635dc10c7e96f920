"""Reference functions of chapter 22, "Build a sparse autoencoder"."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def mean_max_cosine(
    learned: Float[Tensor, "n_latents d"], truth: Float[Tensor, "n_features d"]
) -> float:
    """How well a dictionary covers the true directions.

    Every true feature looks for its best latent: the one whose direction has the largest cosine
    with it. The result is the average of those largest cosines.

    Args:
        learned: decoder rows, of any length. A row of zeros has cosine 0 with everything.
        truth: the true directions, of any length but 0.

    Returns:
        A Python float, at most 1. The opposite direction has cosine -1 and is no match.

    Source: Sharkey, Braun and Millidge 2022, "Taking features out of superposition with sparse
    autoencoders".

    Example:
        >>> learned = torch.tensor([[0.0, 5.0], [3.0, 4.0]])
        >>> round(mean_max_cosine(learned, torch.tensor([[1.0, 0.0], [0.0, 1.0]])), 6)
        0.8
    """
    unit = torch.nn.functional.normalize(learned, dim=-1)
    cosines = torch.nn.functional.normalize(truth, dim=-1) @ unit.T
    return cosines.max(dim=1).values.mean().item()


def init_sae(
    rows: Float[Tensor, "*sae d_sae d_in"], x: Float[Tensor, "*sae n d_in"]
) -> dict[str, Tensor]:
    """The parameters of a sparse autoencoder before its first step.

    Args:
        rows: one vector per latent, of any length but 0.
        x: the activations it will be trained on.

    Returns:
        A dict of new tensors, with as many leading dimensions as the inputs (none, or one SAE per
        index):

        - "W_dec" [*sae d_sae d_in]: the rows, each scaled to length 1
        - "W_enc" [*sae d_in d_sae]: the decoder, transposed
        - "b_enc" [*sae d_sae]: zeros
        - "b_dec" [*sae d_in]: the mean activation

    Source: Bricken et al. 2023, "Towards Monosemanticity"; Gao et al. 2024, arXiv:2406.04093.

    Example:
        >>> params = init_sae(torch.tensor([[3.0, 4.0]]), torch.tensor([[1.0, 1.0], [3.0, 5.0]]))
        >>> params["W_dec"], params["W_enc"], params["b_dec"]
        (tensor([[0.6000, 0.8000]]), tensor([[0.6000],
                [0.8000]]), tensor([2., 3.]))
    """
    W_dec = rows / rows.norm(dim=-1, keepdim=True)
    return {
        "W_dec": W_dec,
        "W_enc": W_dec.transpose(-1, -2).clone(),
        "b_enc": torch.zeros_like(W_dec[..., 0]),
        "b_dec": x.mean(dim=-2),
    }


def sae_forward(
    params: dict[str, Tensor], x: Float[Tensor, "*sae n d_in"]
) -> tuple[Float[Tensor, "*sae n d_sae"], Float[Tensor, "*sae n d_in"]]:
    """Latents and reconstruction of a ReLU autoencoder.

    The decoder bias is the origin that the autoencoder works around: it is taken off the activation
    before encoding, and put back after decoding. The encoder has a bias of its own, added before
    the ReLU.

    Args:
        params: "W_enc", "b_enc", "W_dec", "b_dec", shaped as `init_sae` returns them. The rows of
            W_dec may have any length.
        x: activations, with the same leading dimensions as the parameters.

    Returns:
        (acts, x_hat): the latents, 0 or more, and the reconstruction in the units of x.

    Example:
        >>> params = {"W_enc": torch.tensor([[2.0, -2.0]]), "b_enc": torch.tensor([-1.0, 0.0]),
        ...           "W_dec": torch.tensor([[1.0], [-1.0]]), "b_dec": torch.tensor([10.0])}
        >>> acts, x_hat = sae_forward(params, torch.tensor([[13.0]]))
        >>> acts, x_hat
        (tensor([[5., 0.]]), tensor([[15.]]))
    """
    pre = (x - params["b_dec"].unsqueeze(-2)) @ params["W_enc"] + params["b_enc"].unsqueeze(-2)
    acts = pre.relu()
    return acts, acts @ params["W_dec"] + params["b_dec"].unsqueeze(-2)


def l1_loss(
    params: dict[str, Tensor], x: Float[Tensor, "*sae n d_in"], l1: float
) -> Float[Tensor, "*sae"]:
    """The loss of a ReLU autoencoder with an L1 penalty that no change of scale can cheat.

    Per row: the squared error, summed over the dimensions, plus `l1` times the sum over the latents
    of the latent times the length of its decoder row. The loss is the mean over the rows. Doubling
    an encoder column and its bias, and halving the decoder row, changes neither part.

    Args:
        params: as for `sae_forward`. The rows of W_dec may have any length.
        x: activations, with the same leading dimensions.
        l1: the price of activation.

    Returns:
        One loss per SAE.

    Source: the penalty with decoder norms is from Conerly et al. 2024, "Update on how we train
    SAEs".

    Example:
        >>> params = {"W_enc": torch.tensor([[2.0, -2.0]]), "b_enc": torch.tensor([-1.0, 0.0]),
        ...           "W_dec": torch.tensor([[3.0], [-1.0]]), "b_dec": torch.tensor([0.0])}
        >>> l1_loss(params, torch.tensor([[1.0], [2.0]]), l1=0.5)
        tensor(29.5000)
    """
    latents, x_hat = sae_forward(params, x)
    error = (x - x_hat).square().sum(dim=-1)
    price = (latents * params["W_dec"].norm(dim=-1).unsqueeze(-2)).sum(dim=-1)
    return (error + l1 * price).mean(dim=-1)


def tangent_gradient(
    W_dec: Float[Tensor, "*sae d_sae d_in"], grad: Float[Tensor, "*sae d_sae d_in"]
) -> Float[Tensor, "*sae d_sae d_in"]:
    """The part of a decoder's gradient that turns its rows, without the part that only stretches
    them.

    Args:
        W_dec: decoder rows, each of length 1.
        grad: the gradient of the loss with respect to W_dec.

    Returns:
        For each latent, the component of its gradient that is orthogonal to its row. A new tensor.

    Source: Bricken et al. 2023, "Towards Monosemanticity".

    Example:
        >>> tangent_gradient(torch.tensor([[0.0, 1.0]]), torch.tensor([[5.0, 7.0]]))
        tensor([[5., 0.]])
    """
    along = (grad * W_dec).sum(dim=-1, keepdim=True)
    return grad - along * W_dec


def topk_acts(pre: Float[Tensor, "*sae n d_sae"], k: int) -> Float[Tensor, "*sae n d_sae"]:
    """Keep the k largest latents of every row, and set the others to zero.

    Args:
        pre: what the encoder gives before any non-linearity.
        k: how many may stay, from 1 to d_sae.

    Returns:
        A tensor like `pre`. A kept value stays as it is if it is positive; a negative one becomes 0
        all the same, so a row can have fewer than k latents. No two values of a row are equal.

    Source: Makhzani and Frey 2013, arXiv:1312.5663; Gao et al. 2024, arXiv:2406.04093.

    Example:
        >>> topk_acts(torch.tensor([[3.0, -1.0, 5.0, 4.0], [-1.0, 2.0, -3.0, -4.0]]), k=2)
        tensor([[0., 0., 5., 4.],
                [0., 2., 0., 0.]])
    """
    values, places = pre.relu().topk(k, dim=-1)
    return torch.zeros_like(pre).scatter(-1, places, values)


def aux_k_loss(
    params: dict[str, Tensor],
    pre: Float[Tensor, "*sae n d_sae"],
    x: Float[Tensor, "*sae n d_in"],
    x_hat: Float[Tensor, "*sae n d_in"],
    dead: Bool[Tensor, "*sae d_sae"],
    k_aux: int,
) -> Float[Tensor, "*sae"]:
    """Give dead latents something to learn: the error that the living ones leave.

    In every row, the `k_aux` largest dead latents (through a ReLU) are decoded and compared with
    the reconstruction error.

    Args:
        params: only "W_dec" is used: an error has no origin to add.
        pre: what the encoder gives before any non-linearity.
        x, x_hat: activations, and their reconstruction by the living latents.
        dead: True where a latent has not fired for long.
        k_aux: how many dead latents may speak in one row. If fewer are dead, all of them speak.

    Returns:
        One number per SAE: the squared distance to x - x_hat, summed over the dimensions, averaged
            over the rows; 0 for
        an SAE without dead latents.

    Source: Gao et al. 2024, "Scaling and evaluating sparse autoencoders", arXiv:2406.04093.

    Example:
        >>> params = {"W_dec": torch.tensor([[1.0], [-1.0]])}
        >>> pre, dead = torch.tensor([[9.0, 2.0]]), torch.tensor([False, True])
        >>> aux_k_loss(params, pre, torch.tensor([[5.0]]), torch.tensor([[8.0]]), dead, k_aux=1)
        tensor(1.)
    """
    speaking = pre.relu() * dead.unsqueeze(-2)
    values, places = speaking.topk(min(k_aux, pre.shape[-1]), dim=-1)
    guess = torch.zeros_like(pre).scatter(-1, places, values) @ params["W_dec"]
    loss = (x - x_hat - guess).square().sum(dim=-1).mean(dim=-1)
    return loss * dead.any(dim=-1)


def resample_dead(
    params: dict[str, Tensor],
    x: Float[Tensor, "n d_in"],
    x_hat: Float[Tensor, "n d_in"],
    dead: Bool[Tensor, "d_sae"],
) -> dict[str, Tensor]:
    """Start dead latents again, each on an activation that the SAE reconstructs badly.

    The first dead latent gets the row with the largest squared error, the second the next, and so
    on. The latent's new decoder row is that row minus the decoder bias, at length 1. Its new
    encoder column is the same direction, at 0.2 times the average length of the living latents'
    encoder columns. Its encoder bias is 0.

    Args:
        params: of one SAE, as `init_sae` returns them.
        x, x_hat: activations and their reconstructions; no two rows have equal errors, and none
            equals the decoder bias.
        dead: True where a latent is dead. At least one is alive, and there are at least as many
            rows as dead latents.

    Returns:
        New parameters. Whatever belongs to living latents, and the decoder bias, is as it was.

    Source: after Bricken et al. 2023, "Towards Monosemanticity", who draw the rows at random, by
    their squared loss.

    Example:
        >>> params = {"W_enc": torch.tensor([[5.0, 1.0]]), "b_enc": torch.tensor([1.0, 2.0]),
        ...           "W_dec": torch.tensor([[1.0], [1.0]]), "b_dec": torch.tensor([1.0])}
        >>> x, dead = torch.tensor([[0.0], [-3.0]]), torch.tensor([False, True])
        >>> new = resample_dead(params, x, torch.zeros(2, 1), dead)
        >>> new["W_dec"].flatten(), new["W_enc"].flatten(), new["b_enc"]
        (tensor([ 1., -1.]), tensor([ 5., -1.]), tensor([1., 0.]))
    """
    worst = (x - x_hat).square().sum(dim=-1).argsort(descending=True)[: int(dead.sum())]
    directions = torch.nn.functional.normalize(x[worst] - params["b_dec"], dim=-1)
    new = {name: value.clone() for name, value in params.items()}
    new["W_dec"][dead] = directions
    new["W_enc"][:, dead] = 0.2 * params["W_enc"][:, ~dead].norm(dim=0).mean() * directions.T
    new["b_enc"][dead] = 0
    return new
