"""Reference functions of chapter 33, "Do SAEs work?"."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def keep_near_start(
    rows: Float[Tensor, "d_sae d_model"], start: Float[Tensor, "d_sae d_model"], least: float
) -> Float[Tensor, "d_sae d_model"]:
    """Turn decoder rows back until each has at least a given cosine with the row that it began as.

    A row that is near enough stays exactly as it is, and so does one at exactly that cosine. Any
    other becomes the nearest direction that is allowed: it stays in the plane of itself and its
    start, on its own side, and its cosine with the start is then `least`. Its length stays as well.

    Args:
        rows: decoder rows, of any length but 0. None is a multiple of its start turned around.
        start: the rows that they began as, each of length 1.
        least: the smallest allowed cosine, from 0 to below 1.

    Returns:
        The rows, a new tensor.

    Example:
        >>> start = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
        >>> keep_near_start(torch.tensor([[0.0, 5.0], [3.0, 0.3]]), start, 0.8)
        tensor([[4.0000, 3.0000],
                [3.0000, 0.3000]])
    """
    length = rows.norm(dim=1, keepdim=True)
    along = (rows / length * start).sum(1, keepdim=True)  # the cosine, one per row
    aside = rows / length - along * start
    aside = aside / aside.norm(dim=1, keepdim=True).clamp(min=1e-12)
    back = length * (least * start + (1 - least**2) ** 0.5 * aside)
    return torch.where(along < least, back, rows)


def draw_rows(
    labels: Int[Tensor, "n"], order: Int[Tensor, "n"], n_rows: int, positive_share: float
) -> Int[Tensor, "n_rows"]:
    """Choose rows to train on, a fixed share of them from class 1.

    Class 1 gives the whole number nearest to `n_rows * positive_share` (Python's `round`), class 0
    the others. Within a class the rows that come first in `order` are taken.

    Args:
        labels: 0 or 1 per row.
        order: the row numbers 0 to n - 1 in random order.
        n_rows: how many rows to choose.
        positive_share: from 0 to 1.

    Returns:
        The chosen row numbers, in the sequence in which they stand in `order`.

    Raises:
        ValueError: a class has fewer rows than are asked of it.

    Example:
        >>> labels = torch.tensor([1, 0, 0, 1, 0, 1])
        >>> draw_rows(labels, torch.tensor([5, 2, 3, 4, 0, 1]), n_rows=4, positive_share=0.25)
        tensor([5, 2, 4, 1])
    """
    n_positive = round(n_rows * positive_share)
    shuffled = labels[order]
    chosen = torch.zeros(len(labels), dtype=torch.bool)
    for value, wanted in ((1, n_positive), (0, n_rows - n_positive)):
        places = (shuffled == value).nonzero()[:, 0]
        if len(places) < wanted:
            raise ValueError(f"{wanted} rows of class {value} are wanted; there are {len(places)}.")
        chosen[places[:wanted]] = True
    return order[chosen]


def pick_features(
    features: Float[Tensor, "n d"], labels: Int[Tensor, "n"], k: int
) -> Int[Tensor, "k"]:
    """The k features that differ most between the classes, measured in their own spread.

    The score of a feature is the distance between its two class means, whichever is larger, over
    its standard deviation over all rows (divided by n, not n - 1). A feature that never varies has
    the score 0.

    Args:
        features: one column each: latents of an SAE, coordinates, principal components.
        labels: 0 or 1 per row. Both occur.
        k: how many to pick, at most d.

    Returns:
        Column numbers, the highest score first; of equal scores the lower column first.

    Example:
        >>> one, other, still = [0.0, 0.0, 1.0, 1.0], [9.0, 5.0, 4.0, 8.0], [7.0] * 4
        >>> features = torch.tensor([one, other, still]).T
        >>> pick_features(features, torch.tensor([0, 0, 1, 1]), 2)
        tensor([0, 1])
    """
    apart = (features[labels == 1].mean(0) - features[labels == 0].mean(0)).abs()
    varies = (features != features[:1]).any(0)
    spread = features.std(0, correction=0)
    score = torch.where(varies, apart / torch.where(varies, spread, 1), 0)
    return score.argsort(descending=True, stable=True)[:k]


def quiver(
    validation: Float[Tensor, "n_tasks n_methods"],
    test: Float[Tensor, "n_tasks n_methods"],
    added: Bool[Tensor, "n_methods"],
) -> Float[Tensor, "n_tasks 2"]:
    """What a practitioner gains, or loses, on each task by trying some more methods.

    Before, there are the methods that are not `added`, and after, all of them. Both times the
    practitioner takes the method with the best validation score and gets its *test* score. Of equal
    validation scores the one that was there before wins, and among those the first.

    Args:
        validation: the score of each method on rows that choose.
        test: its score on rows that had no say.
        added: True for the methods that come later. At least one is False.

    Returns:
        (before, after) per task.

    Example:
        >>> validation = torch.tensor([[0.8, 0.7, 0.9], [0.6, 0.9, 0.9]])
        >>> test = torch.tensor([[0.7, 0.9, 0.6], [0.5, 0.8, 0.7]])
        >>> quiver(validation, test, torch.tensor([False, False, True]))
        tensor([[0.7000, 0.6000],
                [0.8000, 0.8000]])
    """
    order = added.long().argsort(stable=True)  # those that were there first, first
    validation, test = validation[:, order], test[:, order]
    n_before = int((~added).sum())
    ends = [validation[:, :n].argmax(1, keepdim=True) for n in (n_before, len(added))]
    return torch.cat([test.gather(1, end) for end in ends], dim=1)


def partner_shares(
    rows: Float[Tensor, "n d_model"], others: Float[Tensor, "m d_model"], least: float
) -> tuple[float, float]:
    """How many latents have a partner in another dictionary, and how many partners there are.

    The partner of a row is the row of `others` with the highest cosine (not the highest absolute
    one: a latent is never negative). It counts if that cosine is at least `least`. Several rows may
    have the same partner: nothing is matched one to one.

    Args:
        rows, others: decoder rows of two SAEs, of any length but 0.
        least: for example 0.5.

    Returns:
        (share, distinct), two Python floats: the share of `rows` with a partner that counts, and
        the number of different partners that count, divided by the number of `rows`.

    Example:
        >>> rows = torch.tensor([[1.0, 0.0], [2.0, 0.2], [0.0, 1.0], [-1.0, 0.0]])
        >>> partner_shares(rows, torch.tensor([[1.0, 0.0], [0.0, 3.0]]), 0.9)
        (0.75, 0.5)
    """
    a = rows / rows.norm(dim=1, keepdim=True)
    b = others / others.norm(dim=1, keepdim=True)
    cosine, partner = (a @ b.T).max(1)
    counts = cosine >= least
    return counts.double().mean().item(), len(partner[counts].unique()) / len(rows)


def exchange_latents(
    x: Float[Tensor, "*batch d_model"],
    latents: Float[Tensor, "*batch d_sae"],
    source: Float[Tensor, "*batch d_sae"],
    W_dec: Float[Tensor, "d_sae d_model"],
    chosen: Int[Tensor, "n_chosen"],
) -> Float[Tensor, "*batch d_model"]:
    """Give an activation the chosen latents of another one, and leave everything else as it is.

    Everything else is the other latents, and what the SAE does not explain: the activation is
    not replaced by a reconstruction.

    Args:
        x: activations.
        latents: what the SAE reads in them.
        source: what it reads in the activations to take from.
        W_dec: its decoder rows.
        chosen: the numbers of the latents to exchange, all different. May be empty.

    Returns:
        The edited activations, a new tensor.

    Example:
        >>> x, W_dec = torch.tensor([[5.0, 5.0]]), torch.tensor([[1.0, 0.0], [0.0, 2.0]])
        >>> latents, source = torch.tensor([[3.0, 1.0]]), torch.tensor([[9.0, 4.0]])
        >>> exchange_latents(x, latents, source, W_dec, torch.tensor([1]))
        tensor([[ 5., 11.]])
    """
    return x + (source - latents)[..., chosen] @ W_dec[chosen]


def parent_recall(
    fires: Bool[Tensor, "n"], parent: Bool[Tensor, "n"], child: Bool[Tensor, "n"]
) -> tuple[float, float]:
    """How often a latent fires where its feature, the parent, is: without the child, and with.

    A child never comes without its parent: a row with the child but not the parent is an error.

    Args:
        fires: where the latent fires.
        parent: where the parent is there.
        child: where the child is there.

    Returns:
        (alone, together), two Python floats: among the rows with the parent and without the child,
        and among the rows with both, the share on which the latent fires. A latent that absorbs
        nothing has two equal numbers; where the child took the parent over the second is lower.

    Raises:
        ValueError: a row has the child and not the parent, or one of the two kinds of rows is
            missing.

    Example:
        >>> fires = torch.tensor([True, True, False, False, True, False])
        >>> parent = torch.tensor([True, True, True, True, False, False])
        >>> child = torch.tensor([False, False, True, True, False, False])
        >>> parent_recall(fires, parent, child)
        (1.0, 0.0)
    """
    if (child & ~parent).any():
        raise ValueError("a row has the child without its parent.")
    if not child.any() or not (parent & ~child).any():
        raise ValueError("there must be rows with the parent alone, and rows with both.")
    return fires[parent & ~child].double().mean().item(), fires[child].double().mean().item()


def survives(low: float, high: float, margin: float) -> str:
    """What the interval of a difference, the method's score minus its rival's, says about the two.

    Args:
        low, high: the ends of the 95% interval of the difference.
        margin: differences of this size or smaller do not matter. Decided before looking.

    Returns:
        "level" if the whole interval lies from -margin to margin, both included. Otherwise "ahead"
        if it lies above 0, "behind" if it lies below 0, and "open" if it holds 0: then the data
        cannot tell, which is not the same as level. An end at exactly 0 lies neither above nor
        below 0.

    Raises:
        ValueError: the margin is negative, or the ends are in the wrong order.

    Example:
        >>> survives(0.01, 0.09, margin=0.02)
        'ahead'
        >>> survives(-0.05, 0.07, margin=0.02)
        'open'
    """
    if margin < 0 or low > high:
        raise ValueError(f"from {low} to {high} with a margin of {margin} is no comparison.")
    if -margin <= low and high <= margin:
        return "level"
    if low > 0:
        return "ahead"
    return "behind" if high < 0 else "open"
