"""Reference functions of chapter 12, "When a probe lies"."""

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from utils.probes import auroc, mass_mean


def null_aurocs(
    acts: Float[Tensor, "n d_model"],
    labels: Int[Tensor, "n"],
    train: Bool[Tensor, "n"],
    orders: Int[Tensor, "n_null n"],
) -> Float[Tensor, "n_null"]:
    """What a mass-mean probe scores when the labels say nothing about the activations.

    One whole experiment per row of `orders`: the labels are put into that order, as
    `labels[order]`, for training and test rows alike. Then everything happens as in the real
    experiment: the direction is made from the training rows, and the AUROC is taken on the other
    rows, against the labels of this experiment.

    Args:
        acts: one activation per row.
        labels: 0 or 1 per row.
        train: True where a row is used for the direction. The others are the test rows.
        orders: each row is a permutation of 0 .. n-1 that leaves both classes in both parts.

    Returns:
        One AUROC per permutation, a float64 tensor, from 0 to 1. Values under 0.5 stay as they are.

    Source: permutation tests for classifiers, Ojala and Garriga 2010.

    Example:
        >>> acts = torch.tensor([[1.0], [2.0], [3.0], [4.0]])
        >>> train = torch.tensor([True, True, False, False])
        >>> orders = torch.tensor([[0, 1, 2, 3], [0, 1, 3, 2]])
        >>> null_aurocs(acts, torch.tensor([0, 1, 0, 1]), train, orders)
        tensor([1., 0.], dtype=torch.float64)
    """
    scores = []
    for order in orders:
        shuffled = labels[order]
        direction, _ = mass_mean(acts[train], shuffled[train])
        scores.append(auroc(acts[~train] @ direction, shuffled[~train]))
    return torch.tensor(scores, dtype=torch.float64)


def permutation_p_value(observed: float, null: Float[Tensor, "n_null"]) -> float:
    """How often a world with nothing to find gives an AUROC as extreme as the observed one.

    Extreme means far from 0.5, on either side: 0.1 is as extreme as 0.9. A null value exactly as
    far as the observed one counts, and distances that differ by less than 1e-9 are the same, since
    0.9 - 0.5 and 0.5 - 0.1 are not quite equal on a computer. The observed experiment is itself one
    of the possible labellings, so it counts as one more null value that reaches itself: the result
    is never 0.

    Args:
        observed: the real experiment's AUROC.
        null: AUROCs of experiments with shuffled labels. It may be empty.

    Returns:
        A Python float in (0, 1].

    Source: Phipson and Smyth 2010, "Permutation p-values should never be zero".

    Example:
        >>> permutation_p_value(0.875, torch.tensor([0.5, 0.125, 0.75]))
        0.5
    """
    as_far = (null - 0.5).abs() >= abs(observed - 0.5) - 1e-9
    return (1 + int(as_far.sum())) / (1 + len(null))


def mean_pooled_embedding(
    W_E: Float[Tensor, "d_vocab d_model"], tokens: Int[Tensor, "n pos"], mask: Bool[Tensor, "n pos"]
) -> Float[Tensor, "n d_model"]:
    """The average embedding of each text's tokens: what is known without running a single layer.

    Args:
        W_E: the embedding, one row per token of the vocabulary.
        tokens: token numbers, the start token in column 0, padded on the right.
        mask: True where a token is real. The start token is real, and every text has another token
            after it.

    Returns:
        One vector per text: the mean over its real tokens except the start token, in the dtype of
        W_E. A token that occurs twice counts twice.

    Example:
        >>> W_E = torch.tensor([[9.0], [1.0], [4.0], [100.0]])
        >>> tokens = torch.tensor([[0, 1, 2], [0, 2, 3]])
        >>> mask = torch.tensor([[True, True, True], [True, True, False]])
        >>> mean_pooled_embedding(W_E, tokens, mask)
        tensor([[2.5000],
                [4.0000]])
    """
    counted = mask.clone()
    counted[:, 0] = False
    weight = counted.to(W_E.dtype) / counted.sum(dim=1, keepdim=True)
    return torch.einsum("npd,np->nd", W_E[tokens], weight)


def control_labels(words: list[str], draws: Float[Tensor, "n_types"]) -> Int[Tensor, "n"]:
    """The labels of a control task: random, but the same wherever a word occurs.

    A probe can get them right for words it has met, by memory alone. Nothing else is there to find.

    Args:
        words: the word of each row. Two that differ in upper and lower case only are the same type.
        draws: one number in [0, 1) per type. The first belongs to the type that comes first when
            the lower-cased types are sorted as Python sorts strings, and so on.

    Returns:
        One integer per row: 1 if the draw of its type is less than 0.5, else 0.

    Source: Hewitt and Liang 2019, arXiv:1909.03368.

    Example:
        >>> control_labels(["walk", "Run", "walk", "run"], torch.tensor([0.9, 0.2]))
        tensor([1, 0, 1, 0])
    """
    lowered = [word.lower() for word in words]
    rank = {word: i for i, word in enumerate(sorted(set(lowered)))}
    return (draws[[rank[word] for word in lowered]] < 0.5).long()


def online_codelength(
    log_probs: Float[Tensor, "n n_classes"], labels: Int[Tensor, "n"], first: int
) -> tuple[float, float]:
    """How many bits it takes to send the labels to someone who learns the probe while they arrive.

    Both sides know the activations. The first rows arrive before any probe exists: each is sent
    with a code that gives every class the same probability. Every later row is sent with the
    probabilities of a probe that was trained on the rows sent before it; an event of probability p
    takes log2(1 / p) bits.

    Args:
        log_probs: natural logarithms of those probabilities. The first `first` rows are there, and
            mean nothing.
        labels: the true class of each row, from 0.
        first: how many rows are sent before the first probe, from 0 to n.

    Returns:
        (bits, compression), two Python floats. The compression is the number of bits that all n
        labels would take with equal probabilities, divided by `bits`: above 1, the probe has found
        a regularity.

    Source: Voita and Titov 2020, arXiv:2003.12298.

    Example:
        >>> log_probs = torch.tensor([[0.5, 0.5], [0.5, 0.5], [0.25, 0.75], [0.5, 0.5]]).log()
        >>> bits, compression = online_codelength(log_probs, torch.tensor([0, 1, 0, 1]), first=2)
        >>> round(bits, 4), round(compression, 4)
        (5.0, 0.8)
    """
    n, n_classes = log_probs.shape
    of_the_truth = log_probs.gather(1, labels[:, None]).squeeze(1)[first:]
    bits = first * math.log2(n_classes) - of_the_truth.sum().item() / math.log(2)
    return bits, n * math.log2(n_classes) / bits


def generalisation_matrix(
    acts: list[Float[Tensor, "n_i d_model"]],
    labels: list[Int[Tensor, "n_i"]],
    train: list[Bool[Tensor, "n_i"]],
) -> Float[Tensor, "n_topics n_topics"]:
    """How a mass-mean probe made on one topic ranks the statements of another.

    Args:
        acts: the activations of each topic. Topics may differ in size.
        labels: 0 or 1 per row, for each topic.
        train: for each topic, True where a row is used to make directions. The others are its test
            rows; both parts hold both classes.

    Returns:
        A float64 tensor. Entry [i, j] is the AUROC, on the test rows of topic j, of the direction
        made from the training rows of topic i. Values under 0.5 stay as they are.

    Example:
        >>> up = torch.tensor([[0.0], [1.0], [0.0], [1.0]])
        >>> labels, train = torch.tensor([0, 1, 0, 1]), torch.tensor([True, True, False, False])
        >>> generalisation_matrix([up, -up], [labels, labels], [train, train])
        tensor([[1., 0.],
                [0., 1.]], dtype=torch.float64)
    """
    rows = []
    for source_acts, source_labels, source_train in zip(acts, labels, train):
        direction, _ = mass_mean(source_acts[source_train], source_labels[source_train])
        rows.append([auroc(a[~t] @ direction, y[~t]) for a, y, t in zip(acts, labels, train)])
    return torch.tensor(rows, dtype=torch.float64)


def centre_by_topic(
    acts: Float[Tensor, "n d_model"], topics: Int[Tensor, "n"]
) -> Float[Tensor, "n d_model"]:
    """Move the centre of every topic to the origin. No label is needed.

    Args:
        acts: one activation per row.
        topics: which topic each row belongs to. Any integers, in any order, with gaps.

    Returns:
        A new tensor in the units and dtype of `acts`: within each topic every feature has mean 0,
        and its spread is what it was.

    Example:
        >>> centre_by_topic(torch.tensor([[1.0], [10.0], [3.0]]), torch.tensor([7, 2, 7]))
        tensor([[-1.],
                [ 0.],
                [ 1.]])
    """
    _, which = topics.unique(return_inverse=True)
    total = acts.new_zeros(int(which.max()) + 1, acts.shape[1]).index_add(0, which, acts)
    return acts - (total / which.bincount()[:, None])[which]


def joint_groups(first: Int[Tensor, "n"], second: Int[Tensor, "n"]) -> Int[Tensor, "n"]:
    """The smallest groups that let no row have a relative on the other side of a split.

    Two rows are relatives if they share their `first` id (the same entity, say) or their `second`
    id (the same text). Relatives belong to one group, and so do relatives of relatives.

    Args:
        first: an id per row. Any integers.
        second: another id per row, of another kind: a 3 here has nothing to do with a 3 in `first`.

    Returns:
        A group number per row, integers. The group of row 0 has number 0, and every group that
        appears for the first time has the next number.

    Example:
        >>> joint_groups(torch.tensor([5, 5, 8, 9]), torch.tensor([0, 1, 1, 2]))
        tensor([0, 0, 0, 1])
    """
    group = torch.arange(len(first))
    settled = False
    while not settled:
        before = group.clone()
        for ids in (first, second):
            _, which = ids.unique(return_inverse=True)
            # Every row takes the smallest group number among the rows that share its id.
            smallest = torch.full_like(group, len(group)).scatter_reduce(0, which, group, "amin")
            group = smallest[which]
        settled = torch.equal(before, group)
    return group.unique(return_inverse=True)[1]


def balanced_accuracy(predicted: Int[Tensor, "n"], labels: Int[Tensor, "n"]) -> float:
    """The share of right answers within each class, averaged over the classes.

    Args:
        predicted: a class per row, from 0.
        labels: the true class per row. The classes may differ in size.

    Returns:
        A Python float from 0 to 1. Every class that occurs in `labels` weighs the same; a class
        that is only ever predicted has no share of its own.

    Example:
        >>> balanced_accuracy(torch.tensor([1, 1, 1, 1]), torch.tensor([1, 1, 1, 0]))
        0.5
    """
    shares = [(predicted[labels == c] == c).double().mean() for c in labels.unique()]
    return torch.stack(shares).mean().item()


def diagnosis(experiment: int) -> str:
    """Why the headline number of a broken experiment is not what it seems.

    Args:
        experiment: 1 to 8, as numbered in the lab above.

    Returns:
        One of these reasons. Each fits exactly one experiment.

        - "chosen-on-test": a choice was made by looking at the test rows
        - "twin-across-split": the same entity is in training and test
        - "repeated-rows": the same text is in training and test, or counts several times
        - "read-padding": the activation was not read where the text is
        - "label-in-prompt": the text itself gives the label away
        - "majority-wins": the number would be as high for an answer that never changes
        - "words-suffice": the words, without any layer, do as well
        - "harmless": the rule was broken, and the number hardly moved

    Example:
        >>> diagnosis(1) in {"chosen-on-test", "harmless"}
        True
    """
    reasons = (
        "chosen-on-test",
        "twin-across-split",
        "read-padding",
        "label-in-prompt",
        "harmless",
        "majority-wins",
        "words-suffice",
        "repeated-rows",
    )
    return reasons[experiment - 1]
