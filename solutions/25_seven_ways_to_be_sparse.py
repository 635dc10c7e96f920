"""Reference functions of chapter 25, "Seven ways to be sparse, eight ways to break it"."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from utils.sae.stacks import sae_forward


def batch_topk_acts(
    pre: Float[Tensor, "*sae n d_sae"], k: int
) -> tuple[Float[Tensor, "*sae n d_sae"], Float[Tensor, "*sae"]]:
    """Keep the k * n largest latents of a batch of n rows, wherever they are.

    A rich row may use more than k latents, a poor one fewer. Each SAE chooses among its own
    latents. At inference
    there is no batch to compare with, so the smallest value that was kept is returned as well: it
    becomes the threshold.

    Args:
        pre: what the encoder gives before any non-linearity. At least one value per SAE is
            positive, no two are equal.
        k: latents per row, on average over the batch, from 1 to d_sae.

    Returns:
        (acts, smallest): `acts` is like `pre`; what is not kept is 0, and negative values are 0
        even if kept. `smallest` is the smallest positive value in `acts`, one per SAE. Both carry
        their gradient.

    Source: Bussmann, Leask and Nanda 2024, "BatchTopK Sparse Autoencoders", arXiv:2412.06410.

    Example:
        >>> batch_topk_acts(torch.tensor([[3.0, 5.0, 4.0], [1.0, 0.5, -2.0]]), k=1)
        (tensor([[0., 5., 4.],
                [0., 0., 0.]]), tensor(4.))
    """
    flat = pre.relu().flatten(-2)
    values, places = flat.topk(k * pre.shape[-2], dim=-1)
    acts = torch.zeros_like(flat).scatter(-1, places, values).unflatten(-1, pre.shape[-2:])
    return acts, values.masked_fill(values <= 0, torch.inf).min(dim=-1).values


def jumprelu_gradients(
    pre: Float[Tensor, "*sae n d_sae"],
    theta: Float[Tensor, "*sae d_sae"],
    grad_acts: Float[Tensor, "*sae n d_sae"],
    l0: float,
    bandwidth: float,
) -> tuple[Float[Tensor, "*sae n d_sae"], Float[Tensor, "*sae d_sae"]]:
    """Gradients for a JumpReLU, including one for the threshold, which a step function would not
    give.

    A latent is `pre` where `pre > theta`, else 0. The loss has two parts: some function of the
    latents, whose gradient with respect to them is `grad_acts`, and the price `l0` times the number
    of active latents per row, averaged over the n rows. Raising a threshold switches off the values
    that lie just above it. How many are there is estimated with a window of width `bandwidth`
    centred on the threshold: each value inside it counts as 1 / bandwidth, one exactly at an end of
    it does not count.

    Args:
        pre: what the encoder gives.
        theta: thresholds, all positive.
        grad_acts: the gradient with respect to the latents.
        l0: the price of one active latent in one row.
        bandwidth: full width of the window, from theta - bandwidth / 2 to theta + bandwidth / 2.

    Returns:
        (grad_pre, grad_theta). `grad_pre` is that of the latents' formula with theta held fixed;
        the price sends nothing to it. `grad_theta` is the derivative of the whole loss: its first
        part is summed over the rows (whatever 1/n the loss has is in `grad_acts`), the price's part
        is averaged over them, as the price is. A latent that is switched off loses its value, taken
        as theta, and saves its price.

    Source: Rajamanoharan et al. 2024, "Jumping Ahead", arXiv:2407.14435.

    Example:
        >>> pre, theta = torch.tensor([[1.2], [0.9], [3.0]]), torch.tensor([1.0])
        >>> grad_acts = torch.full((3, 1), 2.0)
        >>> grad_pre, grad_theta = jumprelu_gradients(pre, theta, grad_acts, l0=0.3, bandwidth=0.5)
        >>> grad_pre.flatten(), grad_theta
        (tensor([2., 0., 2.]), tensor([-8.4000]))
    """
    threshold = theta.unsqueeze(-2)
    window = ((pre - threshold).abs() < bandwidth / 2) / bandwidth
    lost = (grad_acts * threshold * window).sum(dim=-2)
    saved = l0 * window.mean(dim=-2)
    return grad_acts * (pre > threshold), -(lost + saved)


def gated_gradients(
    params: dict[str, Tensor], x: Float[Tensor, "*sae n d_in"], l1: float
) -> dict[str, Tensor]:
    """Gradients of a gated autoencoder's loss: one path decides whether, another decides how much.

    Both paths use m = (x - b_dec) @ W_enc. The gate's value is m + b_gate: the latent is on where
    that is positive. The magnitude is relu(m * exp(r_mag) + b_mag). A latent is its magnitude where
    the gate is on, else 0; the reconstruction is latents @ W_dec + b_dec. The loss of a row is the
    sum of

    - the squared error of that reconstruction,
    - `l1` times the sum of relu(gate values),
    - the squared error of relu(gate values) @ W_dec + b_dec, in which the W_dec and the b_dec *of
      this decoding* are
      constants: they teach the gate, and are not taught by it,

    each squared error summed over the dimensions. The loss is the mean over the rows.

    Args:
        params: "W_enc" [*sae d_in d_sae], "b_gate", "r_mag", "b_mag" [*sae d_sae], "W_dec" [*sae
            d_sae d_in] with rows of length 1, "b_dec" [*sae d_in].
        x: activations.
        l1: the price of an open gate.

    Returns:
        A dict with the keys and shapes of `params`: the gradient of each SAE's own loss. The step
        of the gate has gradient zero. Any way to compute them will do, autograd included.

    Source: Rajamanoharan et al. 2024, "Improving Dictionary Learning with Gated Sparse
    Autoencoders", arXiv:2404.16014.

    Example:
        >>> params = {"W_enc": torch.eye(1), "b_gate": torch.zeros(1), "r_mag": torch.zeros(1),
        ...           "b_mag": torch.zeros(1), "W_dec": torch.eye(1), "b_dec": torch.zeros(1)}
        >>> grads = gated_gradients(params, torch.tensor([[2.0]]), l1=0.5)
        >>> grads["b_gate"], grads["b_mag"]
        (tensor([0.5000]), tensor([0.]))
    """

    def loss(p: dict[str, Tensor]) -> Tensor:
        m = (x - p["b_dec"].unsqueeze(-2)) @ p["W_enc"]
        gate = m + p["b_gate"].unsqueeze(-2)
        magnitude = (m * p["r_mag"].exp().unsqueeze(-2) + p["b_mag"].unsqueeze(-2)).relu()
        x_hat = ((gate > 0) * magnitude) @ p["W_dec"] + p["b_dec"].unsqueeze(-2)
        by_gate = gate.relu() @ params["W_dec"] + params["b_dec"].unsqueeze(-2)
        errors = (x - x_hat).square().sum(dim=-1) + (x - by_gate).square().sum(dim=-1)
        return (errors + l1 * gate.relu().sum(dim=-1)).mean(dim=-1).sum()

    return torch.func.grad(loss)(params)


def matryoshka_loss(
    params: dict[str, Tensor],
    acts: Float[Tensor, "*sae n d_sae"],
    x: Float[Tensor, "*sae n d_in"],
    widths: list[int],
) -> Float[Tensor, "*sae"]:
    """The reconstruction loss of a dictionary whose first latents have to do without the later
    ones.

    For every width w, the activations are decoded from the first w latents alone (and the decoder
    bias). The squared error is summed over the dimensions and averaged over the rows.

    Args:
        params: only "W_dec" and "b_dec" are used.
        acts: the latents.
        x: what they should reconstruct.
        widths: increasing numbers of latents; the last is d_sae.

    Returns:
        The mean over the widths, one number per SAE.

    Source: Bussmann et al. 2025, "Learning Multi-Level Features with Matryoshka Sparse
    Autoencoders", arXiv:2503.17547.

    Example:
        >>> params = {"W_dec": torch.eye(2), "b_dec": torch.zeros(2)}
        >>> matryoshka_loss(params, torch.tensor([[3.0, 4.0]]), torch.tensor([[3.0, 4.0]]), [1, 2])
        tensor(8.)
    """
    losses = []
    for width in widths:
        x_hat = acts[..., :width] @ params["W_dec"][..., :width, :] + params["b_dec"].unsqueeze(-2)
        losses.append((x - x_hat).square().sum(dim=-1).mean(dim=-1))
    return torch.stack(losses).mean(dim=0)


def prolu(
    m: Float[Tensor, "*sae n d_sae"],
    b: Float[Tensor, "*sae d_sae"],
    grad_acts: Float[Tensor, "*sae n d_sae"],
) -> tuple[
    Float[Tensor, "*sae n d_sae"], Float[Tensor, "*sae n d_sae"], Float[Tensor, "*sae d_sae"]
]:
    """A ReLU that uses its bias to decide and not to shift, with the gradients that make the bias
    trainable.

    Args:
        m: the encoder's products, without a bias.
        b: one bias per latent, usually negative.
        grad_acts: the gradient of the loss with respect to the latents.

    Returns:
        (acts, grad_m, grad_b). A latent is m where m and m + b are both positive, else 0. The true
        derivative by b is 0 everywhere. Both gradients are instead those that relu(m + b) would
        have at the latents that are on, and 0 at the others; that of b is summed over the rows.

    Source: Taggart 2024, "ProLU: A Nonlinearity for Sparse Autoencoders" (the version with ReLU
    gradients).

    Example:
        >>> m, b = torch.tensor([[3.0], [1.0], [4.0]]), torch.tensor([-2.0])
        >>> acts, grad_m, grad_b = prolu(m, b, torch.ones(3, 1))
        >>> acts.flatten(), grad_m.flatten(), grad_b
        (tensor([3., 0., 4.]), tensor([1., 0., 1.]), tensor([2.]))
    """
    on = (m > 0) & (m + b.unsqueeze(-2) > 0)
    return m * on, grad_acts * on, (grad_acts * on).sum(dim=-2)


# --- the bug zoo ----------------------------------------------------------------------------------


def diagnosis_sae(script: int) -> str:
    """What is wrong with a script of the bug zoo.

    Args:
        script: 1 to 8, as numbered in the zoo above.

    Returns:
        One of these. Eight of them fit one script each; two fit none. If two seem to fit, name the
        cause and not its consequence: what has to be changed for the script to be right.

        - "wrong-axis": something is normalised along the wrong axis
        - "sync-bypassed": workers that should agree do not share a gradient
        - "bias-not-returned": something is taken off before the encoder and not put back after the
          decoder
        - "aux-disagrees": the auxiliary loss's target and its decoding are not in the same space
        - "kernel-drops-gradient": a backward pass written by hand leaves a gradient out
        - "unnormalised-eval": evaluation sees activations on another scale than training
        - "batch-decides": the result for one row depends on the rows beside it
        - "stale-moments": the optimiser remembers parameters that are gone
        - "scale-leak": every line does what it should, and the penalty can be escaped by shrinking
          latents and stretching decoder rows
        - "empty-average": an average over nothing is taken

    Example:
        >>> diagnosis_sae(1) in {"bias-not-returned", "scale-leak"}
        True
    """
    names = (
        "bias-not-returned",
        "stale-moments",
        "batch-decides",
        "wrong-axis",
        "aux-disagrees",
        "unnormalised-eval",
        "sync-bypassed",
        "kernel-drops-gradient",
    )
    return names[script - 1]


def reconstruct(
    params: dict[str, Tensor], acts: Float[Tensor, "*sae n d_sae"], scale: Float[Tensor, "*sae"]
) -> Float[Tensor, "*sae n d_in"]:
    """Decode latents that were encoded from (x - b_dec) / scale, back into the space of x.

    Args:
        params: "W_dec" and "b_dec" are used.
        acts: the latents. They know nothing of units.
        scale: one positive number per SAE, by which centred activations were divided.

    Returns:
        The reconstruction, in the units of x. With no latent on it is the activation that the
        encoder sees as zero.

    Example:
        >>> params = {"W_dec": torch.tensor([[1.0, 0.0]]), "b_dec": torch.tensor([5.0, 6.0])}
        >>> reconstruct(params, torch.tensor([[2.0]]), torch.tensor(10.0))
        tensor([[25.,  6.]])
    """
    return scale[..., None, None] * (acts @ params["W_dec"]) + params["b_dec"].unsqueeze(-2)


def forget_moments(
    state: dict[str, dict[str, Tensor]], replaced: Bool[Tensor, "*sae d_sae"]
) -> dict[str, dict[str, Tensor]]:
    """Clear what Adam remembers about latents that were just replaced.

    Args:
        state: for each parameter, its two running averages, in the parameter's shape:
            {"W_dec": {"exp_avg": [*sae d_sae d_in], "exp_avg_sq": ...}, "W_enc": [*sae d_in d_sae],
            "b_enc": [*sae d_sae], "b_dec": [*sae d_in]}.
        replaced: True for the latents with new weights.

    Returns:
        A new dict of the same form, of new tensors. Every entry that belongs to a replaced latent
        is 0 in both averages, even if it was infinite or NaN; all else, b_dec included, is as it
        was.

    Example:
        >>> moments = {"exp_avg": torch.tensor([1.0, 2.0]), "exp_avg_sq": torch.tensor([3.0, 4.0])}
        >>> forget_moments({"b_enc": moments}, torch.tensor([False, True]))
        {'b_enc': {'exp_avg': tensor([1., 0.]), 'exp_avg_sq': tensor([3., 0.])}}
    """
    masks = {"W_dec": replaced.unsqueeze(-1), "W_enc": replaced.unsqueeze(-2), "b_enc": replaced}
    new = {}
    for name, moments in state.items():
        gone = masks.get(name, torch.zeros((), dtype=torch.bool))
        new[name] = {key: value.masked_fill(gone, 0) for key, value in moments.items()}
    return new


def acts_at_inference(
    pre: Float[Tensor, "*sae n d_sae"], smallest: Float[Tensor, "*sae n_batches"]
) -> Float[Tensor, "*sae n d_sae"]:
    """The latents of a BatchTopK autoencoder in use, where a row must not depend on its neighbours.

    The threshold is the average, over training batches, of the smallest value that was kept.

    Args:
        pre: what the encoder gives before any non-linearity.
        smallest: the smallest positive value kept in each of some training batches, as
            `batch_topk_acts` returns it; infinity for a batch that kept nothing, which has no
            say. At least one batch of each SAE kept something.

    Returns:
        A tensor like `pre`: the values above the SAE's threshold as they are, 0 elsewhere.

    Example:
        >>> pre = torch.tensor([[1.0, 3.0], [2.0, -1.0]])
        >>> acts_at_inference(pre, torch.tensor([1.0, 2.0, torch.inf]))
        tensor([[0., 3.],
                [2., 0.]])
    """
    counted = smallest.isfinite()
    threshold = smallest.masked_fill(~counted, 0).sum(dim=-1) / counted.sum(dim=-1)
    return pre.masked_fill(pre <= threshold[..., None, None], 0)


def unit_rows(params: dict[str, Tensor]) -> dict[str, Tensor]:
    """Give every decoder row length 1, and let a ReLU autoencoder compute what it did before.

    What is taken from a latent's row has to go into the latent's value.

    Args:
        params: shaped as `init_sae` returns them, with decoder rows of any length but 0.

    Returns:
        A dict of new tensors with the same keys and shapes. For every x, `sae_forward` gives the
        reconstruction that it gave with `params`.

    Example:
        >>> params = {"W_enc": torch.tensor([[2.0]]), "b_enc": torch.tensor([-1.0]),
        ...           "W_dec": torch.tensor([[0.5]]), "b_dec": torch.tensor([3.0])}
        >>> new = unit_rows(params)
        >>> new["W_enc"], new["b_enc"], new["W_dec"]
        (tensor([[1.]]), tensor([-0.5000]), tensor([[1.]]))
    """
    length = params["W_dec"].norm(dim=-1)
    return {
        "W_enc": params["W_enc"] * length.unsqueeze(-2),
        "b_enc": params["b_enc"] * length,
        "W_dec": params["W_dec"] / length.unsqueeze(-1),
        "b_dec": params["b_dec"].clone(),
    }


def aux_error(
    params: dict[str, Tensor],
    aux_acts: Float[Tensor, "*sae n d_sae"],
    x: Float[Tensor, "*sae n d_in"],
    x_hat: Float[Tensor, "*sae n d_in"],
) -> Float[Tensor, "*sae"]:
    """The auxiliary loss of dead latents, with target and decoding in the same space.

    Args:
        params: "W_dec" [*sae d_sae d_in] and "b_dec" [*sae d_in].
        aux_acts: the latents that may speak.
        x, x_hat: activations and their reconstruction, which already contains the decoder bias.

    Returns:
        One number per SAE: the squared distance between what x_hat leaves over and what the latents
            write, summed over the
        dimensions and averaged over the rows.

    Example:
        >>> params = {"W_dec": torch.tensor([[1.0]]), "b_dec": torch.tensor([100.0])}
        >>> aux_error(params, torch.tensor([[2.0]]), torch.tensor([[5.0]]), torch.tensor([[4.0]]))
        tensor(1.)
    """
    return (x - x_hat - aux_acts @ params["W_dec"]).square().sum(dim=-1).mean(dim=-1)


def explained_variance(
    params: dict[str, Tensor], x: Float[Tensor, "*sae n d_in"], scale: Float[Tensor, "*sae"]
) -> Float[Tensor, "*sae"]:
    """The share of the variance of raw activations that an SAE explains which was trained on scaled
    ones.

    Args:
        params: of a ReLU autoencoder, trained on `x * scale`.
        x: raw activations.
        scale: the factor of the training data, one per SAE.

    Returns:
        1 minus the squared error over the squared distance from the mean activation, each summed
        over rows and dimensions, one number per SAE. Error and variance are in the units of x.

    Example:
        >>> params = {"W_enc": torch.eye(1), "b_enc": torch.tensor([-1.0]),
        ...           "W_dec": torch.eye(1), "b_dec": torch.zeros(1)}
        >>> explained_variance(params, torch.tensor([[0.0], [2.0]]), torch.tensor(2.0))
        tensor(0.8750)
    """
    factor = scale[..., None, None]
    x_hat = sae_forward(params, x * factor)[1] / factor
    error = (x - x_hat).square().sum(dim=(-1, -2))
    return 1 - error / (x - x.mean(dim=-2, keepdim=True)).square().sum(dim=(-1, -2))


def shared_gradient(
    W_dec: Float[Tensor, "*sae d_sae d_in"],
    grads: Float[Tensor, "n_workers *sae d_sae d_in"],
    n_rows: Int[Tensor, "n_workers"],
) -> Float[Tensor, "*sae d_sae d_in"]:
    """The one decoder gradient that all workers must use, ready for a step that keeps rows at
    length 1.

    Args:
        W_dec: decoder rows of length 1, the same on every worker.
        grads: each worker's gradient of the mean loss over its own rows.
        n_rows: how many rows each worker had.

    Returns:
        The gradient of the mean loss over all rows of all workers, without its component along each
        decoder row.

    Example:
        >>> grads = torch.tensor([[[4.0, 9.0]], [[8.0, 9.0]]])
        >>> shared_gradient(torch.tensor([[0.0, 1.0]]), grads, torch.tensor([3, 1]))
        tensor([[5., 0.]])
    """
    weight = (n_rows.double() / n_rows.sum()).to(grads.dtype)
    mean = torch.einsum("w,w...->...", weight, grads)
    return mean - (mean * W_dec).sum(dim=-1, keepdim=True) * W_dec


def decode_backward(
    values: Float[Tensor, "n k"],
    places: Int[Tensor, "n k"],
    W_dec: Float[Tensor, "d_sae d_in"],
    grad: Float[Tensor, "n d_in"],
) -> tuple[Float[Tensor, "n k"], Float[Tensor, "d_sae d_in"]]:
    """The backward pass of a sparse decoder, which writes x_hat[i] = sum over j of values[i, j] *
    W_dec[places[i, j]].

    Args:
        values: the k active latents of each row.
        places: which latents they are. A latent may be active in many rows.
        W_dec: the decoder.
        grad: the gradient of the loss with respect to x_hat.

    Returns:
        (grad_values, grad_W_dec), the gradients with respect to values and W_dec. A latent that is
        active nowhere has gradient 0.

    Example:
        >>> values, places = torch.tensor([[2.0], [3.0]]), torch.tensor([[1], [1]])
        >>> W_dec, grad = torch.tensor([[1.0], [5.0]]), torch.tensor([[1.0], [10.0]])
        >>> decode_backward(values, places, W_dec, grad)
        (tensor([[ 5.],
                [50.]]), tensor([[ 0.],
                [32.]]))
    """
    grad_values = torch.einsum("nkd,nd->nk", W_dec[places], grad)
    written = values.unsqueeze(-1) * grad.unsqueeze(1)
    grad_W_dec = torch.zeros_like(W_dec).index_add(0, places.flatten(), written.flatten(0, 1))
    return grad_values, grad_W_dec
