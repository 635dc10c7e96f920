"""Reference functions of chapter 15, "Probes on duty"."""

import math

import torch
from jaxtyping import Bool, Float, Int
from scipy.stats import beta
from torch import Tensor
from torch.nn import functional as F


def pool_scores(
    scores: Float[Tensor, "*batch pos"], mask: Bool[Tensor, "*batch pos"], how: str = "mean"
) -> Float[Tensor, "*batch"]:
    """Turn the scores of a text's tokens into one score of the text.

    Args:
        scores: one score per token.
        mask: True at the tokens that count. What stands elsewhere means nothing and may be NaN.
        how: "last" (the last token that counts), "mean" (over those that count) or "max".

    Returns:
        One score per text, in the dtype of `scores`.

    Raises:
        ValueError: another `how`, or a text of which no token counts.

    Example:
        >>> scores = torch.tensor([[1.0, 5.0, 3.0], [4.0, 0.0, 9.0]])
        >>> mask = torch.tensor([[True, True, True], [True, True, False]])
        >>> pool_scores(scores, mask, "max")
        tensor([5., 4.])
    """
    if not mask.any(dim=-1).all():
        raise ValueError("a text of which no token counts has no score")
    if how == "mean":
        return scores.masked_fill(~mask, 0).sum(dim=-1) / mask.sum(dim=-1)
    if how == "max":
        return scores.masked_fill(~mask, -math.inf).amax(dim=-1)
    if how == "last":
        places = torch.arange(mask.shape[-1], device=mask.device)
        last = torch.where(mask, places, -1).amax(dim=-1, keepdim=True)
        return scores.gather(-1, last)[..., 0]
    raise ValueError("how must be 'last', 'mean' or 'max'")


def attention_pool(
    acts: Float[Tensor, "batch pos d_model"],
    mask: Bool[Tensor, "batch pos"],
    query: Float[Tensor, "d_model"],
    value: Float[Tensor, "d_model"],
) -> Float[Tensor, "batch"]:
    """Score texts with a probe that decides for itself which tokens to listen to.

    A token's weight is the softmax, over the tokens of its text that count, of activation times
    `query`. The text's score is the weighted sum of activation times `value`. With a query of
    zeros this is the mean.

    Args:
        acts: the activations of a padded batch.
        mask: True at the tokens that count, at least one per text. What stands elsewhere means
            nothing and may be NaN; it changes neither the score nor the gradient.
        query, value: the probe's two directions.

    Returns:
        One score per text, differentiable in `query` and `value`.

    Example:
        >>> acts = torch.tensor([[[0.0, 2.0], [9.0, 6.0], [9.0, 9.0]]])
        >>> mask = torch.tensor([[True, True, False]])
        >>> attention_pool(acts, mask, torch.zeros(2), torch.tensor([0.0, 1.0]))
        tensor([4.])
    """
    acts = acts.masked_fill(~mask[..., None], 0)  # 0 times NaN would be NaN again
    weights = (acts @ query).masked_fill(~mask, -math.inf).softmax(dim=-1)
    return (weights * (acts @ value)).sum(dim=-1)


def threshold_for_budget(scores: Float[Tensor, "n"], budget: float) -> float:
    """Return the lowest threshold at which harmless texts raise no more alarms than allowed.

    An alarm is a score strictly above the threshold. Of n texts, budget * n may raise one, rounded
    down; a product within 1e-9 of a whole number counts as that number.

    Args:
        scores: of texts that are all harmless, in any order; equal scores may occur.
        budget: the share of them that may be flagged, at least 0 and less than 1.

    Returns:
        The threshold as a Python float.

    Raises:
        ValueError: no scores, a score that is NaN, or a budget outside [0, 1).

    Example:
        >>> threshold_for_budget(torch.tensor([0.5, 2.0, 1.0, 3.0]), budget=0.25)
        2.0
    """
    if not 0 <= budget < 1:
        raise ValueError("the budget is a share, at least 0 and less than 1")
    if not len(scores) or scores.isnan().any():
        raise ValueError("a threshold needs scores, none of them NaN")
    allowed = math.floor(budget * len(scores) + 1e-9)
    return scores.sort(descending=True).values[allowed].item()


def recall_with_interval(
    scores: Float[Tensor, "n"],
    labels: Int[Tensor, "n"],
    threshold: float,
    coverage: float = 0.95,
) -> tuple[float, float, float]:
    """Return the share of the class-1 texts that are flagged, with its exact interval.

    The interval is Clopper and Pearson's. With k of m flagged and a = 1 - coverage, its ends are
    quantiles of beta distributions: at a / 2 with parameters (k, m - k + 1), and at 1 - a / 2 with
    parameters (k + 1, m - k). The lower end is 0 when k is 0, the upper end 1 when k is m.

    Args:
        scores: one per text. A text is flagged when its score is strictly above the threshold.
        labels: 0 or 1 per text; only those of class 1 count here.
        threshold: where the alarm goes off.
        coverage: of the interval, between 0 and 1.

    Returns:
        (recall, low, high), three Python floats.

    Raises:
        ValueError: no text of class 1.

    Source: Clopper and Pearson 1934, "The use of confidence or fiducial limits".

    Example:
        >>> scores, labels = torch.tensor([0.2, 0.9, 0.7, 0.8]), torch.tensor([1, 1, 0, 1])
        >>> [round(x, 3) for x in recall_with_interval(scores, labels, threshold=0.5)]
        [0.667, 0.094, 0.992]
    """
    of_class_1 = scores[labels == 1]
    m, k = len(of_class_1), int((of_class_1 > threshold).sum())
    if m == 0:
        raise ValueError("recall needs at least one text of class 1")
    tail = (1 - coverage) / 2
    low = float(beta.ppf(tail, k, m - k + 1)) if k else 0.0
    high = float(beta.ppf(1 - tail, k + 1, m - k)) if k < m else 1.0
    return k / m, low, high


def precision_at_base_rate(recall: float, false_alarm_rate: float, base_rate: float) -> float:
    """Return the share of alarms that are right, when harm is as rare as it is in the traffic.

    Args:
        recall: the share of harmful texts that raise an alarm.
        false_alarm_rate: the share of harmless texts that raise one.
        base_rate: the share of all texts that are harmful.

    Returns:
        A Python float from 0 to 1.

    Raises:
        ValueError: nothing ever raises an alarm, so that there is no share to speak of.

    Example:
        >>> round(precision_at_base_rate(recall=0.9, false_alarm_rate=0.1, base_rate=0.01), 3)
        0.083
    """
    right = recall * base_rate
    wrong = false_alarm_rate * (1 - base_rate)
    if right + wrong == 0:
        raise ValueError("without alarms there is no precision")
    return right / (right + wrong)


def calibration_curve(
    probabilities: Float[Tensor, "n"], labels: Int[Tensor, "n"], n_bins: int = 10
) -> tuple[Float[Tensor, "n_bins"], Float[Tensor, "n_bins"], Int[Tensor, "n_bins"]]:
    """Compare what a probe says with how often it is right, in bins of equal width.

    Bin j of `n_bins` goes from j / n_bins up to, and without, (j + 1) / n_bins. A probability of 1
    belongs to the last bin.

    Args:
        probabilities: of class 1, from 0 to 1.
        labels: 0 or 1 per text.
        n_bins: how many bins.

    Returns:
        For each bin the mean probability, the share of class 1 and the number of texts (int64). The
        first two have the dtype of `probabilities`, and are NaN for an empty bin.

    Raises:
        ValueError: a probability outside 0 to 1.

    Source: DeGroot and Fienberg 1983, "The comparison and evaluation of forecasters".

    Example:
        >>> probabilities = torch.tensor([0.1, 0.3, 0.5, 1.0])
        >>> calibration_curve(probabilities, torch.tensor([0, 1, 1, 1]), n_bins=2)
        (tensor([0.2000, 0.7500]), tensor([0.5000, 1.0000]), tensor([2, 2]))
    """
    if len(probabilities) and not (probabilities.min() >= 0 and probabilities.max() <= 1):
        raise ValueError("probabilities lie between 0 and 1")
    edges = torch.arange(1, n_bins, device=probabilities.device, dtype=probabilities.dtype) / n_bins
    place = torch.bucketize(probabilities, edges, right=True)  # how many edges are at or below it
    count = torch.bincount(place, minlength=n_bins)
    empty = probabilities.new_zeros(n_bins)
    said = empty.index_add(0, place, probabilities) / count
    came = empty.index_add(0, place, labels.to(probabilities.dtype)) / count
    return said, came, count


def temperature_for(
    logits: Float[Tensor, "n"], labels: Int[Tensor, "n"], candidates: Float[Tensor, "k"]
) -> float:
    """Choose the temperature that makes a probe's log-odds most believable.

    Divided by T, a log-odds z says that the text is of class 1 with probability sigmoid(z / T). The
    best T has the lowest mean negative log-likelihood of the labels. It changes no ranking.

    Args:
        logits: one log-odds per text; some may be so large that their sigmoid rounds to 0 or 1.
        labels: 0 or 1 per text.
        candidates: the temperatures to choose from, all above 0, in any order.

    Returns:
        The best candidate as a Python float; of several equally good ones, the first.

    Raises:
        ValueError: a candidate that is 0 or less.

    Source: Guo, Pleiss, Sun and Weinberger 2017, "On calibration of modern neural networks".

    Example:
        >>> logits, labels = torch.tensor([8.0, 8.0, 8.0, -8.0]), torch.tensor([1, 1, 0, 0])
        >>> temperature_for(logits, labels, torch.tensor([0.5, 1.0, 8.0, 100.0]))
        8.0
    """
    if not (candidates > 0).all():
        raise ValueError("a temperature is above 0")
    scaled = logits / candidates[:, None]  # [k, n]
    targets = labels.to(scaled.dtype).expand_as(scaled)
    losses = F.binary_cross_entropy_with_logits(scaled, targets, reduction="none").mean(dim=1)
    return candidates[losses.argmin()].item()


def cascade_cost(
    cheap: Float[Tensor, "n"],
    dear: Float[Tensor, "n"],
    labels: Int[Tensor, "n"],
    gate: float,
    threshold: float,
    costs: tuple[float, float] = (0.0, 1.0),
) -> tuple[float, float, float]:
    """Bill a cascade: all texts get the cheap check, and only suspicious ones the dear one.

    A text is passed on when its cheap score is strictly above `gate`. It is flagged when it was
    passed on and its dear score is strictly above `threshold`.

    Args:
        cheap, dear: the two checks' scores. `dear` of a text that is not passed on is never used,
            and may be NaN.
        labels: 0 or 1 per text; both occur.
        gate, threshold: of the two checks.
        costs: of one cheap and of one dear check.

    Returns:
        (recall, false alarm rate, mean cost per text), three Python floats.

    Raises:
        ValueError: a class without a text.

    Example:
        >>> cheap, dear = torch.tensor([0.9, 0.8, 0.1, 0.2]), torch.tensor([0.9, 0.1, 0.9, 0.3])
        >>> cascade_cost(cheap, dear, torch.tensor([1, 0, 1, 0]), gate=0.5, threshold=0.5)
        (0.5, 0.0, 0.5)
    """
    harmful = labels == 1
    if harmful.all() or not harmful.any():
        raise ValueError("a bill needs texts of both classes")
    passed_on = cheap > gate
    flagged = passed_on & (dear > threshold)
    share_of_dear = passed_on.double().mean().item()
    recall = flagged[harmful].double().mean().item()
    false_alarms = flagged[~harmful].double().mean().item()
    return recall, false_alarms, costs[0] + costs[1] * share_of_dear
