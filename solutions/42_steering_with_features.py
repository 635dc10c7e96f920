"""Reference functions of chapter 42, "Steering with features"."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def edit_latent(
    acts: Float[Tensor, "batch pos d_model"],
    usual: Bool[Tensor, "batch pos"],
    params: dict[str, Tensor],
    k: int,
    latent: int,
    how: str,
    amount: Float[Tensor, "batch"],
) -> Float[Tensor, "batch pos d_model"]:
    """Change one latent of a TopK SAE, and leave everything else in the activation as it was.

    The latents of an activation x are f = TopK(ReLU((x - b_dec) W_enc + b_enc)): the k largest
    stay, the others are 0. The SAE rebuilds x as f W_dec + b_dec and misses a part of it, its
    error. What comes back is x with one latent changed and *the error still in it*. No other latent
    changes.

    Args:
        acts: activations. They stay as they are.
        usual: False at tokens that are not touched.
        params: "W_enc" [d_model, d_sae], "b_enc" [d_sae], "W_dec" [d_sae, d_model], "b_dec"
            [d_model].
        k: how many latents fire on a token, at most.
        latent: which one is changed.
        how: "clamp" sets its value to the amount, whether it fires or not. "add" raises its value
            by the amount, but never takes it below 0. "scale" multiplies it by the amount.
        amount: one number per row of the batch, in the latent's units.

    Returns:
        The changed activations, in the shape and dtype of `acts`.

    Raises:
        ValueError: `how` is none of the three.

    Example:
        >>> same, none = torch.eye(2), torch.zeros(2)
        >>> params = {"W_enc": same, "b_enc": none, "W_dec": same, "b_dec": none}
        >>> acts, usual = torch.tensor([[[9.0, 9.0], [3.0, 1.0]]]), torch.tensor([[False, True]])
        >>> edit_latent(acts, usual, params, 1, 0, "clamp", torch.tensor([5.0]))
        tensor([[[9., 9.],
                 [5., 1.]]])
    """
    pre = ((acts - params["b_dec"]) @ params["W_enc"] + params["b_enc"]).relu()
    fires = pre[..., latent] >= pre.topk(k, dim=-1).values[..., -1]
    value = pre[..., latent] * fires
    amount = amount[:, None]
    if how == "clamp":
        new = amount.expand_as(value)
    elif how == "add":
        new = (value + amount).clamp(min=0)
    elif how == "scale":
        new = value * amount
    else:
        raise ValueError(f"how must be clamp, add or scale, not {how!r}")
    change = (new - value) * usual
    return acts + change[..., None] * params["W_dec"][latent]


def contrast_by_text(
    latents: Float[Tensor, "n_tokens d_sae"],
    text: Int[Tensor, "n_tokens"],
    on_topic: Bool[Tensor, "n_texts"],
) -> Float[Tensor, "d_sae"]:
    """How much more each latent fires in the texts of one kind than in the others.

    Every text counts the same.

    Args:
        latents: one row per token.
        text: the number of the text that each token is from: a row of `on_topic`. Texts differ in
            length, and their tokens may stand in any order. Every text has at least one token.
        on_topic: True for the texts of the kind that is wanted. Both kinds occur.

    Returns:
        For each latent: its mean value in a text, averaged over the texts on topic, minus the same
        for the others.

    Example:
        >>> latents = torch.tensor([[3.0, 0.0], [1.0, 2.0], [0.0, 4.0]])
        >>> contrast_by_text(latents, torch.tensor([0, 0, 1]), torch.tensor([True, False]))
        tensor([ 2., -3.])
    """
    counts = torch.bincount(text, minlength=len(on_topic))
    sums = latents.new_zeros(len(on_topic), latents.shape[1]).index_add(0, text, latents)
    means = sums / counts[:, None]
    return means[on_topic].mean(0) - means[~on_topic].mean(0)


def output_effect(
    W_dec: Float[Tensor, "d_sae d_model"],
    norm_weight: Float[Tensor, "d_model"],
    W_U: Float[Tensor, "d_model d_vocab"],
    words: Int[Tensor, "n_words"],
) -> Float[Tensor, "d_sae"]:
    """How strongly each latent pushes the next word towards a set of words, by the shortest way.

    A decoder row, multiplied by the weight of the final norm and by the unembedding, is a number
    per word of the vocabulary. (What the layers in between do with the row is left out.) Latents
    are compared in units of their own spread: the mean number of the wanted words, minus the mean
    over the whole vocabulary, divided by the standard deviation over the whole vocabulary (the one
    that divides by d_vocab).

    Args:
        W_dec: decoder rows, of any length.
        norm_weight: of the model's final norm, one per dimension.
        W_U: the unembedding.
        words: token ids, all different.

    Returns:
        One number per latent: by how many standard deviations the words stand above the average
        word.

    Source: after the output scores of Arad et al. 2025, arXiv:2505.20063.

    Example:
        >>> W_dec = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
        >>> W_U = torch.tensor([[1.0, -1.0], [1.0, 3.0]])
        >>> output_effect(W_dec, torch.ones(2), W_U, torch.tensor([0]))
        tensor([ 1., -1.])
    """
    logits = (W_dec * norm_weight) @ W_U
    lead = logits[:, words].mean(1) - logits.mean(1)
    return lead / logits.std(1, correction=0)


def sparse_difference(
    contrast: Float[Tensor, "d_sae"], W_dec: Float[Tensor, "d_sae d_model"], keep: int
) -> tuple[Float[Tensor, "d_model"], Int[Tensor, "keep"]]:
    """A difference of means, made in the space of latents and thinned out there.

    The `keep` latents with the largest contrast in absolute value are kept, each with its contrast
    as its weight, sign included. Their decoder rows make the direction.

    Args:
        contrast: mean of each latent on topic minus its mean off topic. No two have the same
            absolute value.
        W_dec: decoder rows, of any length.
        keep: how many latents are left.

    Returns:
        (direction, chosen). The direction has length 1. `chosen` holds the latents, the largest
        absolute contrast first.

    Example:
        >>> direction, chosen = sparse_difference(torch.tensor([3.0, 0.5, -4.0]), torch.eye(3), 2)
        >>> direction, chosen
        (tensor([ 0.6000,  0.0000, -0.8000]), tensor([2, 0]))
    """
    chosen = contrast.abs().topk(keep).indices
    direction = contrast[chosen] @ W_dec[chosen]
    return direction / direction.norm(), chosen


def probe_push(
    weights: Float[Tensor, "d_model"], scale: Float[Tensor, "d_model"]
) -> tuple[Float[Tensor, "d_model"], float]:
    """What a logistic probe says about where to push, and how far one unit of log-odds is.

    The probe was trained on standardised activations: its log-odds are w · (x - mean) / scale + b,
    the division dimension by dimension. The push is along the probe's weights as they act on the
    raw activations x: the way on which its log-odds rise fastest.

    Args:
        weights: w.
        scale: the standard deviation of each dimension; 0 where a dimension never varied. The probe
            never saw such a dimension, and it gets no push. At least one other dimension has a
            weight.

    Returns:
        (direction, distance). The direction has length 1. The distance, a Python float in the
        activations' units, is how far x has to move along it for the log-odds to rise by 1.

    Example:
        >>> direction, distance = probe_push(torch.tensor([6.0, 4.0]), torch.tensor([2.0, 1.0]))
        >>> direction, round(distance, 3)
        (tensor([0.6000, 0.8000]), 0.2)
    """
    raw = torch.where(scale > 0, weights / scale, 0.0)
    return raw / raw.norm(), 1 / raw.norm().item()


def choose_setting(effect: Float[Tensor, "n"], cost: Float[Tensor, "n"], budget: float) -> int:
    """The best setting of a method that one can afford.

    Args:
        effect: what each setting achieved on the validation prompts: more is better.
        cost: what it cost there. NaN where the text broke down: no such setting is affordable.
        budget: a setting is affordable if its cost is at most this.

    Returns:
        The number of the affordable setting with the largest effect, a Python int. Of settings with
        the same effect, the one that costs least. -1 if none is affordable.

    Example:
        >>> choose_setting(torch.tensor([0.1, 0.5, 0.9]), torch.tensor([1.0, 1.4, 2.2]), budget=1.5)
        1
    """
    best = -1
    for i in range(len(effect)):
        if not cost[i] <= budget:
            continue
        if best < 0 or (effect[i], -cost[i]) > (effect[best], -cost[best]):
            best = i
    return best


def effect_at_cost(
    effect: Float[Tensor, "n"], cost: Float[Tensor, "n"], at: Float[Tensor, "m"]
) -> Float[Tensor, "m"]:
    """What a method achieves at a given cost, read off its Pareto front.

    A setting is on the front if every setting that costs less, or the same, achieves less than it.
    (Settings of equal cost *and* equal effect do not occur.) Between two neighbours on the front
    the effect is a straight line: toss a coin which of the two to use, and you get any point of it.

    Args:
        effect, cost: one pair per setting, in any order. The unsteered model is one of the
            settings.
        at: the costs at which the effect is wanted.

    Returns:
        One number per cost, in the dtype of `effect`. Beyond the dearest setting on the front: the
        effect of that setting. Below the cheapest setting: NaN, since nothing is known there.

    Example:
        >>> effect, cost = torch.tensor([0.0, 0.8, 0.3, 0.4]), torch.tensor([1.0, 3.0, 2.0, 1.5])
        >>> effect_at_cost(effect, cost, torch.tensor([0.5, 2.25, 9.0]))
        tensor([   nan, 0.6000, 0.8000])
    """
    front: list[tuple[float, float]] = []
    settings = zip(cost.tolist(), effect.tolist())
    for price, gain in sorted(settings, key=lambda pair: (pair[0], -pair[1])):
        if not front or gain > front[-1][1]:
            front.append((price, gain))
    found = []
    for wanted in at.tolist():
        below = [point for point in front if point[0] <= wanted]
        above = [point for point in front if point[0] > wanted]
        if not below:
            found.append(float("nan"))
        elif not above:
            found.append(below[-1][1])
        else:
            (x0, y0), (x1, y1) = below[-1], above[0]
            found.append(y0 + (y1 - y0) * (wanted - x0) / (x1 - x0))
    return torch.tensor(found, dtype=effect.dtype)


def paired_difference(
    one: Float[Tensor, "n"], other: Float[Tensor, "n"], draws: Int[Tensor, "n_draws n"]
) -> tuple[float, float, float]:
    """How much better one method is than another on the same prompts, with its interval.

    Args:
        one, other: a score per prompt. Entry i of both is about prompt i.
        draws: each row is one resample: the numbers of the prompts in it, drawn with replacement.

    Returns:
        (difference, low, high), three Python floats: the mean of `one` minus the mean of `other`,
        and the 2.5% and 97.5% quantiles of that difference over the resamples (`Tensor.quantile`,
        linear between neighbours).

    Example:
        >>> one, other = torch.tensor([1.0, 3.0]), torch.tensor([0.0, 1.0])
        >>> paired_difference(one, other, torch.tensor([[0, 0], [1, 1], [0, 1]]))
        (1.5, 1.025, 1.975)
    """
    gap = (one - other).double()
    low, high = gap[draws].mean(1).quantile(gap.new_tensor([0.025, 0.975])).tolist()
    return gap.mean().item(), low, high


def label_shift(
    before: Float[Tensor, "n d_vocab"],
    after: Float[Tensor, "n d_vocab"],
    words: Int[Tensor, "n_words"],
) -> Float[Tensor, "n"]:
    """Does an edit make the words of a label more likely? By how much, in each context.

    Args:
        before: logits of the next token in each context, from the model as it is.
        after: the same contexts, from the edited model.
        words: the token ids that count as saying the label, all different.

    Returns:
        For each context, in nats: the logarithm of the probability that the next token is *any* of
        the words, after minus before. 0.69 means that the label has become twice as likely; a
        negative number, that it has become less so.

    Example:
        >>> before = torch.tensor([[0.1, 0.2, 0.7]]).log()
        >>> after = torch.tensor([[0.3, 0.3, 0.4]]).log()
        >>> label_shift(before, after, torch.tensor([0, 1]))
        tensor([0.6931])
    """
    def log_probability(logits: Float[Tensor, "n d_vocab"]) -> Float[Tensor, "n"]:
        return logits.log_softmax(-1)[:, words].logsumexp(-1)

    return log_probability(after) - log_probability(before)
