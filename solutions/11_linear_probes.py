"""Reference functions of chapter 11, "Linear probes"."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def grouped_split(
    groups: Int[Tensor, "n"],
    draws: Float[Tensor, "n_groups"],
    val: float = 0.2,
    test: float = 0.3,
) -> tuple[Bool[Tensor, "n"], Bool[Tensor, "n"], Bool[Tensor, "n"]]:
    """Split rows into train, validation and test so that no group is on two sides.

    Args:
        groups: which group each row belongs to. Any integers, in any order, with gaps.
        draws: one number in [0, 1) per distinct group. The first belongs to the smallest group id,
            the second to the next larger id, and so on. Passing them in makes the split repeatable.
        val: share of the unit interval that sends a group to validation.
        test: share of the unit interval that sends a group to test.

    Returns:
        Three boolean masks over the rows, in the order (train, validation, test). A group is in
        test if its draw is in [0, test), in validation if its draw is in [test, test + val), else
        in train. The left end of each interval belongs to it, the right end does not.

    Example:
        >>> groups = torch.tensor([7, 7, 2, 2, 9, 9])
        >>> train, val, test = grouped_split(groups, torch.tensor([0.9, 0.1, 0.4]))
        >>> groups[train].tolist(), groups[val].tolist(), groups[test].tolist()
        ([2, 2], [9, 9], [7, 7])
    """
    _, which = groups.unique(return_inverse=True)  # each row's rank among the distinct ids
    draw = draws[which]
    in_test = draw < test
    in_val = (draw >= test) & (draw < test + val)
    return ~(in_test | in_val), in_val, in_test


def mass_mean_direction(
    acts: Float[Tensor, "n d_model"], labels: Int[Tensor, "n"]
) -> tuple[Float[Tensor, "d_model"], Float[Tensor, ""]]:
    """Return the direction from the mean of class 0 to the mean of class 1, and its threshold.

    Args:
        acts: one activation per row.
        labels: 0 or 1 per row, int64. The classes may differ in size.

    Returns:
        The direction, in the units of the activations and not normalised, and the threshold as a
        0-d tensor: the score (direction times activation) of the point halfway between the two
        means. A row whose score is above the threshold is called class 1.

    Source: Marks and Tegmark 2024, "The Geometry of Truth", arXiv:2310.06824.

    Example:
        >>> acts = torch.tensor([[0.0, 1.0], [2.0, 1.0], [4.0, 1.0]])
        >>> mass_mean_direction(acts, torch.tensor([0, 1, 1]))
        (tensor([3., 0.]), tensor(4.5000))
    """
    mean_0 = acts[labels == 0].mean(dim=0)
    mean_1 = acts[labels == 1].mean(dim=0)
    direction = mean_1 - mean_0
    return direction, direction @ (mean_0 + mean_1) / 2


def whitened_direction(
    acts: Float[Tensor, "n d_model"], labels: Int[Tensor, "n"], ridge: float = 0.1
) -> Float[Tensor, "d_model"]:
    """Return the mass-mean direction divided by the spread that both classes share.

    The direction is (S + ridge * s * I)^-1 (mean_1 - mean_0). S is the pooled within-class
    covariance: every row minus the mean of its own class, outer products summed over both classes,
    divided by n - 2. The number s is the mean of the diagonal of S, so that `ridge` has no unit.

    Args:
        acts: one activation per row; n may be smaller than d_model.
        labels: 0 or 1 per row, int64. The classes may differ in size.
        ridge: how far S is pulled towards a multiple of the identity; greater than 0.

    Returns:
        The direction, not normalised.

    Source: linear discriminant analysis (Fisher 1936); used on activations by Marks and Tegmark
    2024, arXiv:2310.06824.

    Example:
        >>> cross = torch.tensor([[-1.0, 0.0], [1.0, 0.0], [0.0, -2.0], [0.0, 2.0]])
        >>> acts = torch.cat([cross, cross + 1])  # class 1 is shifted by 1 in both features
        >>> whitened_direction(acts, torch.tensor([0, 0, 0, 0, 1, 1, 1, 1]), ridge=0.2)
        tensor([1.0000, 0.3333])
    """
    means = torch.stack([acts[labels == 0].mean(dim=0), acts[labels == 1].mean(dim=0)])
    within = acts - means[labels.long()]  # each row leaves its own class mean behind
    spread = within.T @ within / (len(acts) - 2)  # [d_model, d_model]
    eye = torch.eye(acts.shape[1], dtype=acts.dtype, device=acts.device)
    return torch.linalg.solve(spread + ridge * spread.diagonal().mean() * eye, means[1] - means[0])


def fold_standardisation(
    weight: Float[Tensor, "d_model"],
    bias: Float[Tensor, ""],
    mean: Float[Tensor, "d_model"],
    std: Float[Tensor, "d_model"],
) -> tuple[Float[Tensor, "d_model"], Float[Tensor, ""]]:
    """Rewrite a probe fitted on standardised activations as a probe on the raw ones.

    The fitted probe scores an activation x by weight @ z + bias, where z = (x - mean) / std. The
    result is the pair (raw_weight, raw_bias) that gives every x the same score as
    raw_weight @ x + raw_bias.

    Args:
        weight: weights on the standardised features.
        bias: a 0-d tensor.
        mean: mean of each feature over the training rows.
        std: standard deviation of each feature over the training rows, 0 or greater. A feature
            whose std is 0 never varied: its z counts as 0 for every x, so that it must add nothing.

    Returns:
        raw_weight [d_model] and raw_bias, a 0-d tensor. Both are finite.

    Example:
        >>> weight = torch.tensor([6.0, 1.0])
        >>> mean, std = torch.tensor([1.0, 8.0]), torch.tensor([2.0, 0.0])
        >>> fold_standardisation(weight, torch.tensor(0.5), mean, std)
        (tensor([3., 0.]), tensor(-2.5000))
    """
    varies = std > 0
    raw_weight = torch.where(varies, weight / torch.where(varies, std, 1), 0)
    return raw_weight, bias - raw_weight @ mean


def auroc(scores: Float[Tensor, "n"], labels: Int[Tensor, "n"]) -> float:
    """Return the probability that a random class-1 row scores higher than a random class-0 row.

    Args:
        scores: any real numbers; only their order matters.
        labels: 0 or 1 per row, int64. Both occur.

    Returns:
        A Python float from 0 to 1. A pair with two equal scores counts one half.

    Source: Hanley and McNeil 1982, "The meaning and use of the area under a ROC curve".

    Example:
        >>> auroc(torch.tensor([0.1, 0.5, 0.5, 0.9]), torch.tensor([0, 0, 1, 1]))
        0.875
    """
    positive, negative = scores[labels == 1], scores[labels == 0]
    gap = positive[:, None] - negative[None, :]  # every pair of one positive and one negative
    return ((gap > 0).double() + 0.5 * (gap == 0).double()).mean().item()


def grouped_bootstrap(
    correct: Float[Tensor, "n"],
    groups: Int[Tensor, "n"],
    resamples: Int[Tensor, "n_boot n_groups"],
    coverage: float = 0.95,
) -> tuple[float, float]:
    """Return a percentile interval for the mean of `correct` when whole groups are redrawn.

    Args:
        correct: one float32 per row, for example 1 where the probe was right and 0 where not.
        groups: which group each row belongs to. Any integers, in any order, with gaps; groups may
            differ in size.
        resamples: each row is one pretended data set: n_groups positions into the list of distinct
            group ids in ascending order, drawn with replacement. A group that is drawn twice brings
            all its rows twice.
        coverage: share of the resampled means that the interval holds, between 0 and 1.

    Returns:
        (low, high), two Python floats: the quantiles of the resampled means over rows at
        (1 - coverage) / 2 and (1 + coverage) / 2, with linear interpolation between order
        statistics (the default of torch.quantile and of numpy.quantile).

    Source: Efron 1979, "Bootstrap methods: another look at the jackknife".

    Example:
        >>> correct, groups = torch.tensor([1.0, 1.0, 0.0]), torch.tensor([4, 4, 6])
        >>> resamples = torch.tensor([[0, 1], [1, 1], [0, 0]])
        >>> low, high = grouped_bootstrap(correct, groups, resamples, coverage=0.5)
        >>> round(low, 3), round(high, 3)
        (0.333, 0.833)
    """
    ids, which = groups.unique(return_inverse=True)
    total = correct.new_zeros(len(ids)).index_add(0, which, correct)
    size = correct.new_zeros(len(ids)).index_add(0, which, torch.ones_like(correct))
    means = total[resamples].sum(dim=1) / size[resamples].sum(dim=1)  # [n_boot]
    low, high = ((1 - coverage) / 2, (1 + coverage) / 2)
    return means.quantile(low).item(), means.quantile(high).item()


def layer_sweep(
    acts: Float[Tensor, "n_layers n d_model"],
    labels: Int[Tensor, "n"],
    train: Bool[Tensor, "n"],
    val: Bool[Tensor, "n"],
) -> tuple[Float[Tensor, "n_layers"], int]:
    """Score a mass-mean probe at every layer and choose a layer, without a look at the test rows.

    Args:
        acts: one activation per layer and row.
        labels: 0 or 1 per row, int64.
        train: which rows the directions are made from.
        val: which rows the layers are compared on. Rows in neither mask are the test rows.

    Returns:
        The validation AUROC of each layer's mass-mean direction, as a float32 tensor, and the index
        of the layer where it is highest, as a Python int. Of several equal layers, the earliest.

    Example:
        >>> acts = torch.tensor([[[1.0], [2.0], [2.0], [1.0]], [[1.0], [2.0], [3.0], [4.0]]])
        >>> train = torch.tensor([True, True, False, False])
        >>> layer_sweep(acts, torch.tensor([0, 1, 0, 1]), train, ~train)
        (tensor([0., 1.]), 1)
    """
    by_layer = []
    for layer_acts in acts:
        direction, _ = mass_mean_direction(layer_acts[train], labels[train])
        by_layer.append(auroc(layer_acts[val] @ direction, labels[val]))
    return torch.tensor(by_layer), by_layer.index(max(by_layer))


def pca_project(acts: Float[Tensor, "n d_model"], k: int) -> Float[Tensor, "n k"]:
    """Return the coordinates of every row along the k directions in which the rows vary most.

    Args:
        acts: one activation per row.
        k: number of components, at most the smaller of n and d_model.

    Returns:
        Column j holds the centred activations' coordinates along the j-th principal component, in
        the units of the activations, the component with the most variance first. Every column has
        mean zero. The sign of a column is free.

    Example:
        >>> acts = torch.tensor([[1.0, 10.0], [1.0, 14.0], [5.0, 12.0]])
        >>> pca_project(acts, 1).abs().T.round(decimals=2)
        tensor([[1.3300, 1.3300, 2.6700]])
    """
    centred = acts - acts.mean(dim=0)
    # The rows of the third matrix, [min(n, d_model), d_model], are the components, widest first.
    _, _, components = torch.linalg.svd(centred, full_matrices=False)
    return centred @ components[:k].T
