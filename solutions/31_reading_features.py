"""Reference functions of chapter 31, "Reading features"."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from utils.hooks import run_with_cache


def update_top_examples(
    top_value: Float[Tensor, "d_sae k"],
    top_where: Int[Tensor, "d_sae k 2"],
    latents: Float[Tensor, "batch pos d_sae"],
    first: int,
) -> tuple[Float[Tensor, "d_sae k"], Int[Tensor, "d_sae k 2"]]:
    """Take one more batch of contexts into the lists of every latent's k strongest examples.

    A context gives a latent at most one example: the place where its value is largest in that
    context, the earlier one of equal places. Only values above 0 are examples. The lists are
    sorted, largest value first; among equal values, what was in the list comes before what is new,
    and a new context before a later one.

    Args:
        top_value: the lists so far; 0 where a latent has fewer than k examples.
        top_where: (context, position) of each; (-1, -1) where there is none.
        latents: the values on this batch, 0 or more. A batch may hold fewer than k contexts.
        first: the number of the batch's first context in the corpus; the others follow.

    Returns:
        The new (top_value, top_where), of the same shapes and dtypes. The input is left as it was.

    Example:
        >>> value, where = torch.tensor([[5.0, 0.0]]), torch.tensor([[[0, 2], [-1, -1]]])
        >>> batch = torch.tensor([[[1.0], [7.0], [6.0]], [[0.0], [0.0], [2.0]]])
        >>> value, where = update_top_examples(value, where, batch, first=3)
        >>> value
        tensor([[7., 5.]])
        >>> where
        tensor([[[3, 1],
                 [0, 2]]])
    """
    k = top_value.shape[1]
    best, position = latents.max(dim=1)
    context = torch.arange(first, first + len(latents))[:, None].expand_as(position)
    value = torch.cat([top_value, best.T], dim=1)
    where = torch.cat([top_where, torch.stack([context, position], dim=-1).transpose(0, 1)], dim=1)
    order = value.argsort(dim=1, descending=True, stable=True)[:, :k]
    return value.gather(1, order), where.gather(1, order[..., None].expand(-1, -1, 2))


def quantile_examples(
    values: Float[Tensor, "n"], draws: Float[Tensor, "n_quantiles per_quantile"]
) -> Int[Tensor, "n_quantiles per_quantile"]:
    """Draw examples of a latent from its whole range: equally many from every part of its firings.

    The m places with a value above 0 are ranked by value, the smallest first (equal values in the
    order in which they come), and cut into n_quantiles parts: part q holds the ranks from floor(q m
    / n_quantiles) up to, but without, floor((q + 1) m / n_quantiles). A draw u of row q takes the
    example number floor(u * size) of that part, counted from its weakest one. The same example may
    be drawn twice.

    Args:
        values: one latent's values, at any number of tokens; at least n_quantiles of them are above
            0.
        draws: random numbers, at least 0 and below 1.

    Returns:
        Indices into `values`.

    Example:
        >>> values = torch.tensor([0.0, 4.0, 1.0, 0.0, 3.0, 2.0])
        >>> quantile_examples(values, torch.tensor([[0.0, 0.9], [0.1, 0.5]]))
        tensor([[2, 5],
                [4, 1]])
    """
    n_quantiles = len(draws)
    ranked = values.argsort(stable=True)[(values <= 0).sum() :]
    edges = torch.arange(n_quantiles + 1) * len(ranked) // n_quantiles
    size = edges.diff()[:, None]
    return ranked[edges[:-1, None] + (draws * size).long()]


def decoder_logits(
    directions: Float[Tensor, "n d_model"],
    norm_weight: Float[Tensor, "d_model"],
    W_U: Float[Tensor, "d_model d_vocab"],
) -> Float[Tensor, "n d_vocab"]:
    """What directions in the residual stream add to the logits, if nothing in between reacts.

    The last thing before the unembedding is an RMSNorm: x -> x / rms(x) * norm_weight. Its division
    depends on the whole activation and is the same for all tokens: leave it out. Its weight is not
    the same for all dimensions: keep it.

    Args:
        directions: of any length but 0; they are scaled to length 1 first.
        norm_weight: of the final norm.
        W_U: the unembedding.

    Returns:
        Logits for each direction, shifted so that their mean over the vocabulary is 0: a constant
        added to all logits changes no probability.

    Example:
        >>> W_U = torch.tensor([[1.0, 0.0, -1.0], [0.0, 3.0, 0.0]])
        >>> decoder_logits(torch.tensor([[2.0, 0.0], [0.0, -5.0]]), torch.tensor([4.0, 1.0]), W_U)
        tensor([[ 4.,  0., -4.],
                [ 1., -2.,  1.]])
    """
    unit = F.normalize(directions, dim=1)
    logits = (unit * norm_weight) @ W_U
    return logits - logits.mean(dim=1, keepdim=True)


def token_change_effect(
    model: TransformerBridge,
    name: str,
    weight: Float[Tensor, "d_model"],
    bias: float,
    tokens: Int[Tensor, "pos"],
    replacements: Int[Tensor, "m"],
) -> Float[Tensor, "pos"]:
    """Which tokens does a latent's value at the last token depend on? Change them, one at a time.

    The latent's value is ReLU(x · weight + bias), where x is the activation of the last token at
    the hook point.

    Args:
        model: the bridge. It is left without hooks.
        name: the hook point.
        weight, bias: the latent's encoder.
        tokens: the start token, then the text up to the token of interest.
        replacements: tokens to put in place of each one in turn.

    Returns:
        For each position, the value with the token there replaced minus the value of the text as it
        is, averaged over the replacements. Negative where the latent needs the token. 0 at position
        0: the start token is never replaced.

    Example:
        >>> from utils.models import tiny_model
        >>> model, weight = tiny_model(), torch.ones(24)
        >>> tokens, replacements = torch.tensor([0, 9, 14]), torch.tensor([7, 20])
        >>> name = "blocks.0.hook_in"    # the embeddings: only the last token itself matters
        >>> effect = token_change_effect(model, name, weight, 5.0, tokens, replacements)
        >>> effect[:2], bool(effect[2] != 0)
        (tensor([0., 0.]), True)
    """
    pos = len(tokens)
    rows = tokens.repeat(pos - 1, len(replacements), 1)
    place = torch.arange(1, pos)
    rows[place - 1, :, place] = replacements
    acts = run_with_cache(model, torch.cat([tokens[None], rows.flatten(0, 1)]), name)[name][:, -1]
    value = (acts @ weight + bias).relu()
    change = (value[1:] - value[0]).view(pos - 1, len(replacements)).mean(dim=1)
    return torch.cat([torch.zeros(1, dtype=change.dtype), change])


def smallest_context(
    model: TransformerBridge,
    name: str,
    weight: Float[Tensor, "d_model"],
    bias: float,
    tokens: Int[Tensor, "pos"],
    keep: float,
) -> tuple[int, float]:
    """The fewest tokens of text, ending with the last one, with which a latent still fires there.

    The latent's value is ReLU(x · weight + bias), where x is the activation of the last token at
    the hook point. A text is shortened from its beginning; the start token stays in front of what
    is left.

    Args:
        model: the bridge. It is left without hooks.
        name: the hook point.
        weight, bias: the latent's encoder.
        tokens: the start token, then the text up to the token at which the latent fires. Its value
            there is above 0.
        keep: the share of the value in the whole text that has to remain, above 0 and at most 1.

    Returns:
        (n, share), a Python int and a Python float. n is the smallest number, 1 or more, for which
        the start token and the last n tokens give at least `keep` times the value of the whole
        text; n = 1 is the last token alone. More text may give less again: the smallest n counts.
        `share` is the value with n tokens divided by that of the whole text.

    Example:
        >>> from utils.models import tiny_model
        >>> model, tokens = tiny_model(), torch.tensor([0, 9, 14, 8])
        >>> smallest_context(model, "blocks.0.hook_in", torch.ones(24), 5.0, tokens, keep=0.9)
        (1, 1.0)
    """

    def value(n: int) -> float:
        row = torch.cat([tokens[:1], tokens[-n:]])
        x = run_with_cache(model, row[None], name)[name][0, -1]
        return (x @ weight + bias).relu().item()

    whole = value(len(tokens) - 1)
    for n in range(1, len(tokens)):
        share = value(n) / whole
        if share >= keep:
            return n, share


def best_token_rule(tokens: Int[Tensor, "n"], fires: Bool[Tensor, "n"]) -> tuple[int, float]:
    """The best label of the form "fires on this token and on no other".

    A rule is judged by its balanced accuracy: the mean of the share of the firing examples that it
    finds and the share of the silent examples that it leaves alone.

    Args:
        tokens: the token of each example.
        fires: whether the latent fires there. Some do, some do not.

    Returns:
        (the token of the best rule, its balanced accuracy on these examples), a Python int and a
        Python float. Only tokens of firing examples are tried. Of equally good ones, the smallest
        number.

    Example:
        >>> tokens = torch.tensor([7, 7, 7, 4, 4, 7, 7, 9])
        >>> fires = torch.tensor([True, True, True, True, True, False, False, False])
        >>> best_token_rule(tokens, fires)
        (4, 0.7)
    """
    tried = tokens[fires].unique()
    found = (tokens[fires] == tried[:, None]).sum(dim=1)
    spared = (tokens[~fires] != tried[:, None]).sum(dim=1)
    n_fires, n_silent = int(fires.sum()), int((~fires).sum())
    # In whole numbers, so that equally good rules are equal to the last digit.
    score = found * n_silent + spared * n_fires
    best = score.argmax()
    return tried[best].item(), score[best].item() / (2 * n_fires * n_silent)


def detection_score(
    predicted: Bool[Tensor, "n"], fires: Bool[Tensor, "n"], firing_rate: float
) -> tuple[float, float, float, float]:
    """How well a label tells where a latent fires, and what it is worth in running text.

    Examples of both kinds are chosen, usually half and half. In running text the latent fires at a
    share `firing_rate` of the tokens, which is far less; so precision has to be worked out for that
    share.

    Args:
        predicted: what somebody who knows only the label says of each example.
        fires: whether the latent fires there. Some do, some do not.
        firing_rate: share of the tokens of running text at which it fires, between 0 and 1.

    Returns:
        (sensitivity, specificity, balanced, precision), Python floats. Sensitivity is the share of
        the firing examples that were predicted to fire, specificity the share of the silent ones
        that were predicted to be silent, `balanced` their mean. Precision is the share of all
        tokens of running text predicted to fire that do, if sensitivity and specificity are the
        same there; 0.0 if none is predicted to fire.

    Example:
        >>> predicted = torch.tensor([True, True, True, False, True, False, False, False, False])
        >>> fires = torch.tensor([True, True, True, True, False, False, False, False, False])
        >>> [round(x, 4) for x in detection_score(predicted, fires, firing_rate=0.01)]
        [0.75, 0.8, 0.775, 0.0365]
    """
    sensitivity = predicted[fires].double().mean().item()
    specificity = (~predicted[~fires]).double().mean().item()
    right, wrong = firing_rate * sensitivity, (1 - firing_rate) * (1 - specificity)
    precision = right / (right + wrong) if right + wrong > 0 else 0.0
    return sensitivity, specificity, (sensitivity + specificity) / 2, precision
