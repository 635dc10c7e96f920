"""Reference functions of chapter 21, "Superposition"."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from utils.probes import auroc


def best_single_coordinate(
    acts: Float[Tensor, "n d"], labels: Int[Tensor, "n"]
) -> tuple[int, float]:
    """The one coordinate that tells the two classes apart best.

    A coordinate that falls where the label rises tells as much as one that rises with it: best
    means that the AUROC is farthest from 0.5, on either side.

    Args:
        acts: one activation per row.
        labels: 0 or 1 per row. Both occur.

    Returns:
        (coordinate, auroc): the coordinate's number, a Python int, and the AUROC of its raw
        values, a Python float. An AUROC under 0.5 stays as it is. Of several equally good
        coordinates, the first.

    Example:
        >>> acts = torch.tensor([[5.0, 0.0, 9], [5.0, 1.0, 7], [5.0, 0.5, 3], [6.0, 2.0, 2]])
        >>> best_single_coordinate(acts, torch.tensor([0, 0, 1, 1]))
        (2, 0.0)
    """
    scores = torch.tensor([auroc(column, labels) for column in acts.T], dtype=torch.float64)
    # Rounded: 0.8 - 0.5 and 0.5 - 0.2 are equally far, but not quite equal on a computer.
    best = int((scores - 0.5).abs().round(decimals=9).argmax())
    return best, scores[best].item()


def toy_forward(
    x: Float[Tensor, "batch n_instances n_features"],
    W: Float[Tensor, "n_instances d_hidden n_features"],
    b: Float[Tensor, "n_instances n_features"],
) -> Float[Tensor, "batch n_instances n_features"]:
    """Squeeze features through a few hidden dimensions and guess them back, in many toys at once.

    Each instance is a model of its own, with its own weights and its own inputs. Its hidden
    activation is h = W x; its output is ReLU(W^T h + b). There is no other nonlinearity.

    Args:
        x: the features that go in.
        W: one matrix per instance. Column i is the direction in which that instance writes feature
            i.
        b: one bias per instance and feature.

    Returns:
        The outputs, in the dtype of x. Gradients reach W and b.

    Source: Elhage et al. 2022, "Toy Models of Superposition".

    Example:
        >>> W = torch.tensor([[[1.0, -1.0]], [[1.0, 0.0]]])
        >>> x = torch.tensor([[[0.5, 0.0], [0.5, 0.25]]])
        >>> toy_forward(x, W, torch.tensor([[0.0, 0.0], [0.0, 0.5]]))
        tensor([[[0.5000, 0.0000],
                 [0.5000, 0.5000]]])
    """
    hidden = torch.einsum("bif,ihf->bih", x, W)
    return torch.relu(torch.einsum("bih,ihf->bif", hidden, W) + b)


def toy_loss(
    x: Float[Tensor, "batch n_instances n_features"],
    out: Float[Tensor, "batch n_instances n_features"],
    importance: Float[Tensor, "n_instances n_features"],
) -> Float[Tensor, "n_instances"]:
    """The squared errors of every instance, each feature weighted by how much it matters.

    Within an instance, the weighted squared errors are added up over features, and averaged over
    the batch.

    Args:
        x: what should have come out.
        out: what came out.
        importance: the weight of each feature's squared error, per instance.

    Returns:
        One loss per instance, in the dtype of x. Gradients reach `out`.

    Source: Elhage et al. 2022, "Toy Models of Superposition".

    Example:
        >>> x = torch.tensor([[[1.0, 2.0], [0.0, 0.0]], [[1.0, 0.0], [0.0, 4.0]]])
        >>> toy_loss(x, torch.zeros(2, 2, 2), torch.tensor([[1.0, 0.5], [1.0, 0.5]]))
        tensor([2., 4.])
    """
    return (importance * (x - out) ** 2).sum(dim=-1).mean(dim=0)


def linear_loss(
    density: Float[Tensor, "n_features"], importance: Float[Tensor, "n_features"], d_hidden: int
) -> float:
    """The smallest expected loss of a toy without the ReLU: W^T W x + b with the best W and b.

    The features are independent. Feature i is there with probability density[i], and then has a
    size uniform in [0, 1); otherwise it is 0. The loss is the one of `toy_loss`, in the limit of a
    large batch.

    Args:
        density: how often each feature is there, from 0 to 1.
        importance: the weight of each feature's squared error, not negative.
        d_hidden: rows of W, from 0. It may be larger than the number of features.

    Returns:
        A Python float.

    Source: principal components as the best linear autoencoder, Baldi and Hornik 1989.

    Example:
        >>> round(linear_loss(torch.tensor([1.0, 1.0, 1.0]), torch.tensor([1.0, 3.0, 2.0]), 2), 4)
        0.0833
    """
    # The bias makes up for the mean, so that only the variance around it is lost: E[x^2] - E[x]^2.
    weighted = importance * (density / 3 - (density / 2) ** 2)
    return weighted.sort(descending=True).values[d_hidden:].sum().item()


def two_feature_losses(
    density: Float[Tensor, "*grid"], importance: Float[Tensor, "*grid"]
) -> Float[Tensor, "*grid 3"]:
    """What three hand-made models lose that have two features and one hidden dimension.

    Both features are there with the same probability, independently, and then have a size uniform
    in [0, 1). The output is ReLU(W^T W x + b). The first feature has importance 1. The models are,
    in this order:

    - first only: W = [1, 0], and b = [0, the mean of the second feature]
    - second only: W = [0, 1], and b = [the mean of the first feature, 0]
    - antipodal pair: W = [1, -1], and b = [0, 0]

    Args:
        density: the probability that a feature is there, from 0 to 1.
        importance: that of the second feature, 0 or more.

    Returns:
        The expected losses (importance-weighted squared errors, added over the two features),
        exact, as the last dimension.

    Source: Elhage et al. 2022, "Toy Models of Superposition", the section on phase changes.

    Example:
        >>> two_feature_losses(torch.tensor([1.0]), torch.tensor([2.0]))
        tensor([[0.1667, 0.0833, 0.5000]])
    """
    ignored = density / 3 - density**2 / 4
    # The pair errs only when both are there, then on both by the smaller size: E[min^2] = 1/6.
    collision = density**2 / 6
    return torch.stack([importance * ignored, ignored, (1 + importance) * collision], dim=-1)


def feature_dimensionality(
    W: Float[Tensor, "n_instances d_hidden n_features"],
) -> Float[Tensor, "n_instances n_features"]:
    """How much of a hidden dimension each feature has for itself.

    A feature that is alone on its direction has 1. Two that share one direction, with opposite
    signs or not, and equal lengths, have 1/2 each. In general it is the feature's squared length,
    divided by everything that a reader along its unit direction would pick up: the squared
    projections onto that direction of all the features' columns, its own included.

    Args:
        W: one matrix per instance. Column i is the direction of feature i. Columns have any length.

    Returns:
        One number from 0 to 1 per instance and feature, in the dtype of W. A feature of length 0
        has 0.

    Source: Elhage et al. 2022, "Toy Models of Superposition".

    Example:
        >>> W = torch.tensor([[[1.0, -1.0, 0.0, 0.0], [0.0, 0.0, 2.0, 0.0]]])
        >>> feature_dimensionality(W)
        tensor([[0.5000, 0.5000, 1.0000, 0.0000]])
    """
    columns = W.double()  # the squares of very short columns would vanish in float32
    length = columns.norm(dim=1)
    unit = columns / torch.where(length > 0, length, 1.0)[:, None]
    read = torch.einsum("ihf,ihg->ifg", unit, columns).square().sum(dim=-1)
    return torch.where(length > 0, length**2 / torch.where(read > 0, read, 1.0), 0.0).to(W.dtype)
