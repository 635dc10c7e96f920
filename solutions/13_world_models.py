"""Reference functions of chapter 13, "World models and the geometry of truth"."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def polarity_directions(
    acts: Float[Tensor, "n d_model"], labels: Int[Tensor, "n"], negated: Bool[Tensor, "n"]
) -> tuple[Float[Tensor, "d_model"], Float[Tensor, "d_model"]]:
    """Split truth into a part that ignores negation and a part that negation turns around.

    Fit every activation by least squares as

        acts[i] = m + truth[i] * t_G + truth[i] * polarity[i] * t_P

    where truth is +1 for a true sentence and -1 for a false one, polarity is +1 for an affirmative
    sentence and -1 for a negated one, and m is a free vector for each polarity (two in all).

    Args:
        acts: one activation per sentence.
        labels: 1 for a true sentence, 0 for a false one. A negated one is true if what it says is.
        negated: True for "is not". All four combinations of label and polarity occur.

    Returns:
        (t_G, t_P), in the units of the activations, not normalised.

    Source: Bürger, Hamprecht and Nadler 2024, arXiv:2407.12831.

    Example:
        >>> labels, negated = torch.tensor([1, 0, 1, 0]), torch.tensor([False, False, True, True])
        >>> acts = torch.tensor([[5.0, 2.0], [1.0, 0.0], [7.0, 0.0], [7.0, 4.0]])
        >>> t_G, t_P = polarity_directions(acts, labels, negated)
        >>> t_G.round(decimals=3).tolist(), t_P.round(decimals=3).tolist()
        ([1.0, -0.5], [1.0, 1.5])
    """
    truth = 2 * labels.to(acts.dtype) - 1
    polarity = 1 - 2 * negated.to(acts.dtype)
    affirmative = (polarity + 1) / 2
    design = torch.stack([affirmative, 1 - affirmative, truth, truth * polarity], dim=1)  # [n, 4]
    coefficients = torch.linalg.lstsq(design, acts).solution  # [4, d_model]
    return coefficients[2], coefficients[3]


def normalise_pairs(
    first: Float[Tensor, "n d_model"], second: Float[Tensor, "n d_model"], train: Bool[Tensor, "n"]
) -> tuple[Float[Tensor, "n d_model"], Float[Tensor, "n d_model"]]:
    """Standardise each half of a set of contrast pairs by itself.

    Args:
        first: activations of the first sentences of the pairs ("... is in ...").
        second: activations of the second sentences, in the same order ("... is not in ...").
        train: which pairs belong to the training split; at least 2.

    Returns:
        The two halves. In each, every feature has mean 0 and standard deviation 1 (the unbiased
        one, dividing by one less than the number of rows) over *that half's training rows*; the
        other rows are shifted and scaled in the same way. A feature that does not vary over the
        training rows of its half is 0 in every row of that half.

    Source: Burns et al. 2023, arXiv:2212.03827.

    Example:
        >>> first = torch.tensor([[1.0], [3.0], [9.0]])
        >>> second = torch.tensor([[10.0], [10.0], [11.0]])
        >>> one, other = normalise_pairs(first, second, torch.tensor([True, True, False]))
        >>> one.squeeze(1), other.squeeze(1)
        (tensor([-0.7071,  0.7071,  4.9497]), tensor([0., 0., 0.]))
    """

    def standardise(half: Float[Tensor, "n d_model"]) -> Float[Tensor, "n d_model"]:
        seen = half[train]
        varies = seen.amax(dim=0) > seen.amin(dim=0)
        scale = torch.where(varies, seen.std(dim=0), torch.inf)  # anything divided by infinity is 0
        return (half - seen.mean(dim=0)) / scale

    return standardise(first), standardise(second)


def ccs_loss(p_first: Float[Tensor, "n"], p_second: Float[Tensor, "n"]) -> Float[Tensor, ""]:
    """Return how far a probe is from believing exactly one sentence of each pair.

    For every pair two numbers are added: the square of what keeps the two probabilities from adding
    up to 1 (consistency), and the square of the smaller of the two (confidence). The result is the
    mean of the sums over the pairs.

    Args:
        p_first: the probe's probability, from 0 to 1, that the first sentence of each pair is true.
        p_second: the same for the second sentence.

    Returns:
        A 0-d tensor, through which gradients flow.

    Source: Burns et al. 2023, arXiv:2212.03827, section 2.2.

    Example:
        >>> ccs_loss(torch.tensor([1.0, 0.5]), torch.tensor([0.0, 0.5]))
        tensor(0.1250)
    """
    consistency = (p_first - (1 - p_second)) ** 2
    confidence = torch.minimum(p_first, p_second) ** 2
    return (consistency + confidence).mean()


def ridge_fit(
    x: Float[Tensor, "n d"], y: Float[Tensor, "n k"], alpha: float
) -> tuple[Float[Tensor, "d k"], Float[Tensor, "k"]]:
    """Return the linear map with the smallest penalised error.

    It minimises  mean over rows of |x @ weight + bias - y|²  +  alpha * sum of the squared weights.
    The bias is not penalised.

    Args:
        x: one row per example; n may be smaller than d.
        y: k targets per example.
        alpha: strength of the penalty, greater than 0.

    Returns:
        (weight, bias): the prediction for a row is row @ weight + bias.

    Source: Hoerl and Kennard 1970, "Ridge Regression".

    Example:
        >>> x, y = torch.tensor([[1.0], [3.0]]), torch.tensor([[10.0], [14.0]])
        >>> weight, bias = ridge_fit(x, y, alpha=1.0)
        >>> weight.tolist(), bias.tolist()
        ([[1.0]], [10.0])
    """
    mean_x, mean_y = x.mean(dim=0), y.mean(dim=0)
    centred = x - mean_x
    eye = torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
    # The mean error has 1/n in front of it; multiplying all by n moves it to the penalty.
    penalised = centred.T @ centred + len(x) * alpha * eye
    weight = torch.linalg.solve(penalised, centred.T @ (y - mean_y))
    return weight, mean_y - mean_x @ weight


def r_squared(predicted: Float[Tensor, "n k"], truth: Float[Tensor, "n k"]) -> Float[Tensor, "k"]:
    """Return, for every target, the share of its variance that the prediction explains.

    It is 1 for a perfect prediction, 0 for one that is as far off as the mean of `truth` would be,
    and below 0 for one that is worse than that mean.

    Args:
        predicted: one prediction per row and target.
        truth: what is the case. Every column varies.

    Returns:
        One number per column.

    Example:
        >>> truth = torch.tensor([[0.0, 0.0], [2.0, 2.0], [4.0, 4.0]])
        >>> predicted = torch.tensor([[0.0, 4.0], [2.0, 2.0], [4.0, 0.0]])
        >>> r_squared(predicted, truth)
        tensor([ 1., -3.])
    """
    error = (predicted - truth).square().sum(dim=0)
    return 1 - error / (truth - truth.mean(dim=0)).square().sum(dim=0)


def within_group_order(
    predicted: Float[Tensor, "n"], truth: Float[Tensor, "n"], groups: Int[Tensor, "n"]
) -> float:
    """Return how often the prediction puts two members of one group in the right order.

    Only pairs of rows with the same group and different truths count, all pairs alike, whatever
    group they are from. A pair is right if the row with the larger truth has the larger prediction;
    equal predictions count one half.

    Args:
        predicted: one number per row, for example a predicted latitude.
        truth: the real one.
        groups: which group (country) each row is from. At least one pair counts.

    Returns:
        A Python float from 0 to 1; guessing gives 0.5.

    Example:
        >>> truth = torch.tensor([1.0, 2.0, 3.0, 50.0])
        >>> predicted, groups = torch.tensor([5.0, 7.0, 6.0, 0.0]), torch.tensor([0, 0, 0, 1])
        >>> within_group_order(predicted, truth, groups)
        0.6666666666666666
    """
    above = truth[:, None] > truth[None, :]  # [n, n]: row i should come out above row j
    pairs = above & (groups[:, None] == groups[None, :])
    gap = (predicted[:, None] - predicted[None, :])[pairs]
    right = (gap > 0).sum() + 0.5 * (gap == 0).sum()
    return right.item() / len(gap)


def track_position(
    tokens: Int[Tensor, "n pos"], target: Int[Tensor, "squares 4"]
) -> Int[Tensor, "n pos"]:
    """Follow walks over a map and return the square after every token.

    Args:
        tokens: one walk per row. The first token is the number of the square where the walk starts.
            Every other token is `squares` plus the number of a move, 0 to 3.
        target: which square each move leads to from each square; -1 where the move is not possible.
            The walks make possible moves only. Any table may come, not only that of a grid.

    Returns:
        The number of the square on which the walk stands after each token, the first one included.

    Example:
        >>> target = torch.tensor([[-1, 1, -1, -1], [-1, 2, -1, 0], [-1, -1, -1, 1]])  # a row
        >>> track_position(torch.tensor([[0, 4, 4, 6]]), target)
        tensor([[0, 1, 2, 1]])
    """
    squares = [tokens[:, 0]]
    for token in tokens[:, 1:].T:
        squares.append(target[squares[-1], token - len(target)])
    return torch.stack(squares, dim=1)


def state_centroids(
    acts: Float[Tensor, "n d_model"], states: Int[Tensor, "n"], n_states: int
) -> Float[Tensor, "n_states d_model"]:
    """Return the mean activation of every state.

    Args:
        acts: one activation per row.
        states: the state of the world, 0 to n_states - 1, when each of them was taken.
        n_states: how many states there are. Some may not occur.

    Returns:
        Row s is the mean of the activations with state s; NaN in every feature if there are none.

    Example:
        >>> acts = torch.tensor([[1.0, 0.0], [3.0, 0.0], [0.0, 5.0]])
        >>> state_centroids(acts, torch.tensor([2, 2, 0]), n_states=3)
        tensor([[0., 5.],
                [nan, nan],
                [2., 0.]])
    """
    numbers = torch.arange(n_states, device=states.device)
    member = (states == numbers[:, None]).to(acts.dtype)  # [n_states, n]
    return member @ acts / member.sum(dim=1, keepdim=True)


def procrustes_map(
    points: Float[Tensor, "n k"], truth: Float[Tensor, "n k"]
) -> Float[Tensor, "n k"]:
    """Lay one picture over another without bending it.

    Move `points` by a shift, a rotation (mirroring allowed) and one positive scale for all axes, so
    that the sum of the squared distances to `truth` is as small as possible.

    Args:
        points: a picture; its origin, unit and orientation mean nothing. Not all points are equal.
        truth: where each of the points should come to lie.

    Returns:
        The moved points.

    Source: Schönemann 1966, "A generalized solution of the orthogonal Procrustes problem".

    Example:
        >>> truth = torch.tensor([[0.0, 0.0], [2.0, 0.0], [0.0, 4.0]])
        >>> turned = torch.tensor([[5.0, 5.0], [5.0, 6.0], [3.0, 5.0]])  # a turn, half as large
        >>> torch.allclose(procrustes_map(turned, truth), truth, atol=1e-5)
        True
    """
    centre, goal = points.mean(dim=0), truth.mean(dim=0)
    shape, wanted = points - centre, truth - goal
    left, sizes, right = torch.linalg.svd(shape.T @ wanted)
    rotation = left @ right
    scale = sizes.sum() / shape.square().sum()
    return scale * shape @ rotation + goal


def relative_board(boards: Int[Tensor, "n pos squares"]) -> Int[Tensor, "n pos squares"]:
    """Recode boards from the two players' names to "mine" and "theirs".

    Args:
        boards: the owner of every square after each token: 1 for the first player, -1 for the
            second, 0 for nobody. At position 0 nobody has moved and the first player is to move; at
            position 1 the second player is; and so on, in turns.

    Returns:
        Boards of the same shape: 1 where the square belongs to the player who is to move at that
        position, -1 where it belongs to the other one, 0 for nobody.

    Source: Nanda, Lee and Wattenberg 2023, arXiv:2309.00941.

    Example:
        >>> relative_board(torch.tensor([[[1, -1, 0], [1, -1, 1]]]))
        tensor([[[ 1, -1,  0],
                 [-1,  1, -1]]])
    """
    position = torch.arange(boards.shape[1], device=boards.device)
    return boards * (1 - 2 * (position % 2))[:, None]
