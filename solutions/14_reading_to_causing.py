"""Reference functions of chapter 14, "From reading to causing"."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def logit_difference(
    logits: Float[Tensor, "batch pos d_vocab"],
    last: Int[Tensor, "batch"],
    token: Int[Tensor, "batch"],
    rival: Int[Tensor, "batch"],
) -> Float[Tensor, "batch"]:
    """How much more the model wants one next token than another, row by row.

    Args:
        logits: the model's output at every position; finite, behind the last real token too.
        last: the position of each row's last real token, counted from 0. What stands after it is
            padding.
        token: for each row, the id of the token that counts as positive.
        rival: for each row, the id of the token that counts as negative.

    Returns:
        In nats: the logit of `token` minus the logit of `rival`, both read at `last`. It is also
        the log of the ratio of the two probabilities.

    Example:
        >>> logits = torch.tensor([[[0.0, 9.0, 0.0], [1.0, 4.0, 2.0]]])
        >>> logit_difference(logits, torch.tensor([1]), torch.tensor([1]), torch.tensor([0]))
        tensor([3.])
    """
    rows = torch.arange(len(logits), device=logits.device)
    at_the_end = logits[rows, last]
    return at_the_end[rows, token] - at_the_end[rows, rival]


def add_along(
    activation: Float[Tensor, "batch pos d_model"],
    direction: Float[Tensor, "d_model"],
    dose: Float[Tensor, "batch"],
    position: Int[Tensor, "batch"],
) -> Float[Tensor, "batch pos d_model"]:
    """Push one token of each row along a direction.

    Args:
        activation: what the hook receives, finite numbers. It stays as it is.
        direction: in the units of the activations, with its own length: a dose of 1 adds exactly
            this.
        dose: how many times the direction is added, per row. A negative dose pushes the other way.
        position: which token of each row is pushed, counted from 0.

    Returns:
        A tensor of the same shape, equal to `activation` at every other token.

    Example:
        >>> direction, dose = torch.tensor([3.0, 4.0]), torch.tensor([-2.0])
        >>> add_along(torch.zeros(1, 2, 2), direction, dose, torch.tensor([1]))
        tensor([[[ 0.,  0.],
                 [-6., -8.]]])
    """
    pushed = activation.clone()
    rows = torch.arange(len(activation), device=activation.device)
    pushed[rows, position] += dose[:, None] * direction
    return pushed


def norm_matched_random(
    noise: Float[Tensor, "n d_model"], direction: Float[Tensor, "d_model"]
) -> Float[Tensor, "n d_model"]:
    """Turn noise into control directions: as long as `direction`, and with nothing of it.

    Args:
        noise: one draw per row, from a standard normal distribution.
        direction: the direction that the controls stand beside.

    Returns:
        One control per row of `noise`: the part of it that is orthogonal to `direction`, scaled so
        that its norm equals the norm of `direction`.

    Example:
        >>> norm_matched_random(torch.tensor([[5.0, 1.0], [2.0, -3.0]]), torch.tensor([4.0, 0.0]))
        tensor([[ 0.,  4.],
                [ 0., -4.]])
    """
    unit = direction / direction.norm()
    across = noise - torch.outer(noise @ unit, unit)
    return across / across.norm(dim=1, keepdim=True) * direction.norm()


def patch_positions(
    activation: Float[Tensor, "batch pos d_model"],
    source: Float[Tensor, "batch source_pos d_model"],
    at: Int[Tensor, "batch"],
    source_at: Int[Tensor, "batch"],
) -> Float[Tensor, "batch pos d_model"]:
    """Put one token's activation from another run in the place of one token of this run.

    Args:
        activation: what the hook receives in the run that is changed, finite numbers. It stays as
            it is.
        source: the activations of the run that is copied from, at the same hook point. Row i
            belongs to row i; the texts may differ in length.
        at: which token of each row of `activation` is overwritten, counted from 0.
        source_at: which token of each row of `source` is copied, counted from 0.

    Returns:
        A tensor of the shape of `activation`, equal to it at every other token.

    Source: Vig et al. 2020, arXiv:2004.12265 (as causal mediation); Meng et al. 2022,
    arXiv:2202.05262.

    Example:
        >>> activation, source = torch.zeros(1, 2, 1), torch.tensor([[[7.0], [8.0], [9.0]]])
        >>> patch_positions(activation, source, at=torch.tensor([0]), source_at=torch.tensor([2]))
        tensor([[[9.],
                 [0.]]])
    """
    patched = activation.clone()
    rows = torch.arange(len(activation), device=activation.device)
    patched[rows, at] = source[rows, source_at]
    return patched


def recovered_fraction(
    patched: Float[Tensor, "*places n"],
    clean: Float[Tensor, "n"],
    corrupted: Float[Tensor, "n"],
) -> Float[Tensor, "*places"]:
    """How far a patch moves the corrupted runs towards the clean ones.

    Args:
        patched: logit differences of the patched runs, one per text, for any number of places.
        clean: logit differences of the runs that were copied from.
        corrupted: logit differences of the runs that were patched, before the patch.

    Returns:
        One number per place: the distance that the patch covers on average over the texts, divided
        by the average distance from corrupted to clean. 0: the patch did nothing. 1: it did all
        that there was to do. Below 0 and above 1 are possible, and are reported as they are. The
        averages are taken first and divided then: a single text may have a distance near 0.

    Example:
        >>> patched = torch.tensor([[0.0, 2.0], [3.0, 5.0]])
        >>> recovered_fraction(patched, torch.tensor([4.0, 6.0]), torch.tensor([0.0, 2.0]))
        tensor([0.0000, 0.7500])
    """
    way = clean.mean() - corrupted.mean()
    return (patched.mean(dim=-1) - corrupted.mean()) / way


def move_to_centroid(
    acts: Float[Tensor, "n d_model"],
    centroids: Float[Tensor, "n_states d_model"],
    state: Int[Tensor, "n"],
    target: Int[Tensor, "n"],
) -> Float[Tensor, "n d_model"]:
    """Edit the state that each activation holds, and leave the rest of the activation alone.

    Args:
        acts: one activation per row.
        centroids: the mean activation of each state.
        state: the state that each row is in now.
        target: the state that each row shall be in.

    Returns:
        The activations, each shifted by the step from the centroid of its state to the centroid of
        its target. What made a row differ from the mean of its state is kept.

    Example:
        >>> centroids = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 20.0]])
        >>> acts = torch.tensor([[9.0, 1.0]])
        >>> move_to_centroid(acts, centroids, torch.tensor([1]), torch.tensor([2]))
        tensor([[-1., 21.]])
    """
    return acts + centroids[target] - centroids[state]


def legal_shares(
    logits: Float[Tensor, "n d_vocab"],
    before: Bool[Tensor, "n d_vocab"],
    after: Bool[Tensor, "n d_vocab"],
    threshold: float = 0.05,
) -> dict[str, float]:
    """Score the moves that a model proposes after its state was edited.

    Args:
        logits: for the next token, one row per edited run.
        before: which tokens are legal in the true state, the one before the edit.
        after: which tokens are legal in the state that the edit aims at.
        threshold: the probability from which on a token counts as proposed.

    Returns:
        Four shares of the rows, as Python floats. The "first choice" is the token of the highest
        logit.
        "after": the first choice is legal after the edit.
        "both": the first choice is legal after the edit and was legal before it as well.
        "only after": the first choice is legal after the edit and was not before it.
        "exact": the proposed tokens (probability of at least `threshold`) are the tokens that are
        legal after the edit: all of them and no other.

    Example:
        >>> before, after = torch.tensor([[True, True, False]]), torch.tensor([[False, True, True]])
        >>> legal_shares(torch.tensor([[0.0, 5.0, 4.0]]), before, after)
        {'after': 1.0, 'both': 1.0, 'only after': 0.0, 'exact': 1.0}
    """
    first = logits.argmax(dim=1, keepdim=True)
    was_legal, is_legal = (legal.gather(1, first).squeeze(1) for legal in (before, after))
    proposed = logits.softmax(dim=1) >= threshold
    rows = {
        "after": is_legal,
        "both": is_legal & was_legal,
        "only after": is_legal & ~was_legal,
        "exact": (proposed == after).all(dim=1),
    }
    return {name: row.double().mean().item() for name, row in rows.items()}


def inlp_directions(
    acts: Float[Tensor, "n d_model"], labels: Int[Tensor, "n"], n_rounds: int, ridge: float = 0.1
) -> Float[Tensor, "n_rounds d_model"]:
    """Find directions from which a label can be read, each after removing the ones before.

    A round centres what is left of the activations, x, and fits a ridge regression of the labels
    on it: w = (S + ridge * s * I)^-1 c. S is the covariance of what is left (divided by n), s is
    the mean of the diagonal of S, and c is the covariance of what is left with the labels (divided
    by n). Then w is scaled to length 1, and its component is taken out of every activation.

    Args:
        acts: one activation per row; n may be smaller than d_model.
        labels: 0 or 1 per row, stored as integers. Both occur.
        n_rounds: how many directions, at least 1 and less than d_model.
        ridge: how far S is pulled towards a multiple of the identity; greater than 0.

    Returns:
        One direction per row, of length 1, in the order in which they were found; each is
        orthogonal to the ones before it.

    Source: Ravfogel et al. 2020, "Null It Out", arXiv:2004.07667 (there with other linear
    classifiers).

    Example:
        >>> acts = torch.tensor([[1.0, 0.1], [1.0, -0.1], [-1.0, 0.1], [-1.0, -0.1]])
        >>> inlp_directions(acts, torch.tensor([1, 1, 0, 0]), n_rounds=1)
        tensor([[1., 0.]])
    """
    left = acts - acts.mean(dim=0)
    target = labels.to(acts.dtype) - labels.to(acts.dtype).mean()
    eye = torch.eye(acts.shape[1], dtype=acts.dtype, device=acts.device)
    found = []
    for _ in range(n_rounds):
        spread = left.T @ left / len(left)
        spread = spread + ridge * spread.diagonal().mean() * eye
        weight = torch.linalg.solve(spread, left.T @ target / len(left))
        found.append(weight / weight.norm())
        left = left - torch.outer(left @ found[-1], found[-1])
    return torch.stack(found)


def leace_eraser(
    acts: Float[Tensor, "n d_model"], labels: Int[Tensor, "n"], rtol: float = 1e-8
) -> tuple[Float[Tensor, "d_model d_model"], Float[Tensor, "d_model"]]:
    """Fit the smallest affine edit after which no linear probe finds the label.

    Linear probes find nothing exactly when the features have no covariance with the label. Of all
    affine maps that reach this on `acts`, LEACE is the one that moves the activations least, in
    mean square:

        erased(x) = x - c (c' S+ (x - mean)) / (c' S+ c)

    where c is the covariance of the activations with the label, S their covariance, and S+ its
    pseudo-inverse: directions in which the activations do not vary are left alone.

    Args:
        acts: one activation per row; n may be smaller than d_model, and features may repeat each
            other.
        labels: 0 or 1 per row, stored as integers.
        rtol: an eigenvalue of S below `rtol` times the largest counts as 0.

    Returns:
        A matrix and a vector, to be used as `erased = acts @ matrix.T + vector`. The mean of
        `acts` stays where it is. When c is all zeros there is nothing to erase: the identity and
        zeros.

    Raises:
        ValueError: all labels are equal, so that the concept has no variance.

    Source: Belrose et al. 2023, "LEACE: Perfect linear concept erasure in closed form",
    arXiv:2306.03819.

    Example:
        >>> acts = torch.tensor([[0.0, 1.0], [0.0, -1.0], [4.0, 1.0], [4.0, -1.0]])
        >>> matrix, vector = leace_eraser(acts, torch.tensor([0, 0, 1, 1]))
        >>> acts @ matrix.T + vector
        tensor([[ 2.,  1.],
                [ 2., -1.],
                [ 2.,  1.],
                [ 2., -1.]])
    """
    if (labels == labels[0]).all():
        same = f"all {len(labels)} labels are {int(labels[0])}"
        raise ValueError(f"{same}: a concept without variance cannot be erased.")
    mean = acts.mean(dim=0)
    centred = acts - mean
    target = labels.to(acts.dtype) - labels.to(acts.dtype).mean()
    eye = torch.eye(acts.shape[1], dtype=acts.dtype, device=acts.device)
    cross = centred.T @ target / len(acts)
    if not cross.any():
        return eye, torch.zeros_like(mean)
    readout = torch.linalg.pinv(centred.T @ centred / len(acts), rtol=rtol, hermitian=True) @ cross
    matrix = eye - torch.outer(cross, readout) / (cross @ readout)
    return matrix, mean - matrix @ mean
