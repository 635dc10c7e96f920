"""Reference functions of chapter 50, "The audit"."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F


def surprising_words(
    counts: Int[Tensor, "words"], others: Int[Tensor, "words"], prior: float = 0.5
) -> Float[Tensor, "words"]:
    """Score each word by how much more often it is said here than elsewhere, in standard errors.

    Every count is raised by `prior`, on both sides. With n the raised count of a word and N the
    raised total, its log-odds are log(n / (N - n)). The score is the log-odds here minus those
    elsewhere, divided by the square root of 1/n here plus 1/n elsewhere.

    Args:
        counts: how often each word of a shared vocabulary occurs here.
        others: how often it occurs elsewhere.
        prior: what is added to every count.

    Returns:
        One score per word, float64; positive for words of this side.

    Raises:
        ValueError: a prior that is not above 0, or vocabularies of different sizes.

    Example:
        >>> surprising_words(torch.tensor([8, 1, 1]), torch.tensor([1, 8, 1])).round(decimals=2)
        tensor([ 2.9900, -2.9900,  0.0000], dtype=torch.float64)
    """
    if prior <= 0 or counts.shape != others.shape:
        raise ValueError("prior must be above 0, and both counts of the same vocabulary")
    here, there = counts.double() + prior, others.double() + prior
    log_odds = (here / (here.sum() - here)).log() - (there / (there.sum() - there)).log()
    return log_odds / (1 / here + 1 / there).sqrt()


def delta_norm(
    A: Float[Tensor, "*maps rank d_in"], B: Float[Tensor, "*maps d_out rank"]
) -> Float[Tensor, "*maps"]:
    """Measure the size of a low-rank change B @ A without ever building that matrix.

    The size is the Frobenius norm: the root of the sum of all squared entries. It equals the root
    of the trace of (B^T B)(A A^T), and these two matrices are only [rank, rank].

    Args:
        A: the map into the few dimensions.
        B: the map out of them.

    Returns:
        One norm per map, in the dtype of `A`; 0 where nothing was changed.

    Example:
        >>> delta_norm(torch.tensor([[3.0, 4.0]]), torch.tensor([[2.0], [0.0], [0.0]]))
        tensor(10.)
    """
    inner, outer = B.mT @ B, A @ A.mT
    return (inner * outer).sum(dim=(-2, -1)).clamp(min=0).sqrt()


def early_difference(
    acts: Float[Tensor, "batch pos d_model"],
    base_acts: Float[Tensor, "batch pos d_model"],
    mask: Bool[Tensor, "batch pos"],
    first: int,
) -> Float[Tensor, "first d_model"]:
    """Average, place by place, what a second training added to the activations of unrelated texts.

    Place 0 is the first token of a text that counts, wherever padding puts it. A text with fewer
    tokens than a place needs is left out of that place's mean.

    Args:
        acts: of the trained model.
        base_acts: of the model before, on the same tokens.
        mask: True at the tokens that count. What stands elsewhere means nothing and may be NaN.
        first: how many places, from the beginning of each text.

    Returns:
        For each place the mean over texts of `acts` minus `base_acts`.

    Raises:
        ValueError: no text reaches one of the places.

    Example:
        >>> acts, mask = torch.tensor([[[9.0], [1.0], [2.0]]]), torch.tensor([[False, True, True]])
        >>> early_difference(acts, torch.zeros(1, 3, 1), mask, 2)
        tensor([[1.],
                [2.]])
    """
    place = mask.cumsum(dim=1) - 1
    means = []
    for p in range(first):
        chosen = mask & (place == p)
        if not chosen.any():
            raise ValueError(f"no text has {p + 1} tokens")
        means.append((acts[chosen] - base_acts[chosen]).mean(dim=0))
    return torch.stack(means)


def next_token_kl(
    logits: Float[Tensor, "*batch d_vocab"], base_logits: Float[Tensor, "*batch d_vocab"]
) -> Float[Tensor, "*batch"]:
    """Measure how far a model's prediction of the next token has moved from its base model's.

    Args:
        logits: of the model under audit.
        base_logits: of the base model, after the same text.

    Returns:
        KL(audited || base) in nats: the mean, under the audited model's probabilities, of the log
        of the ratio of the two probabilities.

    Example:
        >>> next_token_kl(torch.tensor([20.0, 0.0]), torch.tensor([0.0, 0.0]))
        tensor(0.6931)
    """
    log_p, log_q = F.log_softmax(logits, dim=-1), F.log_softmax(base_logits, dim=-1)
    return (log_p.exp() * (log_p - log_q)).sum(dim=-1)


def move_to(
    acts: Float[Tensor, "*batch d_model"], direction: Float[Tensor, "d_model"], value: float
) -> Float[Tensor, "*batch d_model"]:
    """Give every activation the same coordinate along a direction, and leave the rest alone.

    The coordinate is the dot product with the direction scaled to length 1.

    Args:
        acts: activations.
        direction: of any length above 0; only where it points matters.
        value: the coordinate that every activation has afterwards.

    Returns:
        A new tensor of the same shape and dtype.

    Raises:
        ValueError: a direction of length 0.

    Example:
        >>> move_to(torch.tensor([[3.0, 1.0], [5.0, 2.0]]), torch.tensor([0.0, 2.0]), 7.0)
        tensor([[3., 7.],
                [5., 7.]])
    """
    length = direction.norm()
    if length == 0:
        raise ValueError("a direction of length 0 points nowhere")
    unit = direction / length
    return acts + (value - acts @ unit)[..., None] * unit


def share_removed(before: Bool[Tensor, "n"], after: Bool[Tensor, "n"]) -> float:
    """Tell how much of a behaviour an intervention has removed: 1 is all of it, 0 is nothing.

    Questions that show the behaviour only afterwards count against the intervention, so that the
    share is below 0 when the behaviour became more frequent.

    Args:
        before: whether each question brought the behaviour out.
        after: whether it still did, under the intervention; the same questions.

    Returns:
        The fall of the frequency, as a share of the frequency before.

    Raises:
        ValueError: different numbers of questions, or a behaviour that never showed before.

    Example:
        >>> share_removed(torch.tensor([True, True, True, True, False]),
        ...               torch.tensor([False, True, False, False, False]))
        0.75
    """
    if before.shape != after.shape or not before.any():
        raise ValueError("the same questions twice, and a behaviour that shows before")
    return 1 - int(after.sum()) / int(before.sum())


def accusations(
    accused: Bool[Tensor, "models"], guilty: Bool[Tensor, "models"]
) -> tuple[float, float]:
    """Judge an auditor by both of its errors.

    Args:
        accused: whether the auditor says that a model hides something.
        guilty: whether it does.

    Returns:
        The share of the guilty that were accused, and the share of the clean that were.

    Raises:
        ValueError: no guilty model, or no clean one: one of the shares would mean nothing.

    Example:
        >>> accusations(torch.tensor([True, True, False]), torch.tensor([True, False, False]))
        (1.0, 0.5)
    """
    if guilty.all() or not guilty.any():
        raise ValueError("there must be guilty and clean models")
    found = int((accused & guilty).sum()) / int(guilty.sum())
    return found, int((accused & ~guilty).sum()) / int((~guilty).sum())
