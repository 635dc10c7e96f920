"""Reference functions of chapter 41, "Steering vectors"."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from utils.hooks import intervene, resid_post


def contrast_direction(
    positive: Float[Tensor, "n pos d_model"],
    positive_mask: Bool[Tensor, "n pos"],
    negative: Float[Tensor, "m pos_too d_model"],
    negative_mask: Bool[Tensor, "m pos_too"],
) -> Float[Tensor, "d_model"]:
    """The step from the average negative text to the average positive one.

    Every text counts once, however long it is: its tokens are averaged first, the texts afterwards.

    Args:
        positive: activations of the texts that have what you want, padded to one length.
        positive_mask: True at the tokens that count. Each text has at least one. The activations
            are finite at the others too.
        negative: activations of the texts that have the opposite. Their number and length may
            differ.
        negative_mask: the same for them.

    Returns:
        One vector in the units of the activations. Its length is kept: it says how far apart the
        two sides are.

    Source: Rimsky et al. 2024, arXiv:2312.06681 (there at one token);
    Turner et al. 2023, arXiv:2308.10248.

    Example:
        >>> long_and_short = torch.tensor([[[1.0, 0.0], [3.0, 0.0]], [[0.0, 8.0], [9.0, 9.0]]])
        >>> mask = torch.tensor([[True, True], [True, False]])
        >>> one = torch.ones(1, 1, 2), torch.ones(1, 1, dtype=torch.bool)
        >>> contrast_direction(long_and_short, mask, *one)
        tensor([0., 3.])
    """

    def average_text(acts: Tensor, mask: Tensor) -> Tensor:
        per_text = acts.where(mask[..., None], 0).sum(dim=1) / mask.sum(dim=1, keepdim=True)
        return per_text.mean(dim=0)

    return average_text(positive, positive_mask) - average_text(negative, negative_mask)


def centred_on_topics(
    acts: Float[Tensor, "n d_model"], topic: Int[Tensor, "n"]
) -> Float[Tensor, "n_topics d_model"]:
    """One direction per topic: what its texts have that the texts of an average topic do not.

    Args:
        acts: one activation per text.
        topic: the topic of each text: 0, 1, ... up to the largest number, all of which occur.

    Returns:
        For each topic, in the order of the numbers, the mean of its texts minus the mean *over the
        topics*, in which every topic weighs the same, however many texts it has.

    Source: Jorgensen et al. 2023, arXiv:2312.03813.

    Example:
        >>> acts = torch.tensor([[10.0, 1.0], [10.0, 3.0], [10.0, 8.0]])
        >>> centred_on_topics(acts, torch.tensor([0, 0, 1]))
        tensor([[ 0., -3.],
                [ 0.,  3.]])
    """
    numbers = range(int(topic.max()) + 1)
    means = torch.stack([acts[topic == number].mean(dim=0) for number in numbers])
    return means - means.mean(dim=0)


def push_usual_tokens(
    activation: Float[Tensor, "batch pos d_model"],
    real: Bool[Tensor, "batch pos"],
    direction: Float[Tensor, "d_model"],
    length: float,
) -> Float[Tensor, "batch pos d_model"]:
    """Push every usual token along a direction, by a given length.

    Usual are the tokens that are real (not padding), not the first of their text (position 0), and
    not of unusual norm: at most 3 times the median norm of their own text's real tokens, the first
    one left out of the median. Of two middle values the median is the lower one, as `torch.median`
    has it.

    Args:
        activation: what the hook receives. It stays as it is. The first token of every text is at
            position 0.
        real: False at padding, which stands on the right. Every text has at least two real tokens.
        direction: where to. Its own length does not matter.
        length: how far, in the units of the activations; negative pushes the other way.

    Returns:
        A tensor of the same shape and dtype, equal to `activation` at all other tokens.

    Example:
        >>> first, one, other = [90.0, 0.0], [1.0, 0.0], [0.0, 1.0]
        >>> activation = torch.tensor([[first, one, other, [80.0, 0.0], [0.0, 2.0]]])
        >>> real = torch.ones(1, 5, dtype=torch.bool)
        >>> push_usual_tokens(activation, real, torch.tensor([0.0, 4.0]), 0.5)
        tensor([[[90.0000,  0.0000],
                 [ 1.0000,  0.5000],
                 [ 0.0000,  1.5000],
                 [80.0000,  0.0000],
                 [ 0.0000,  2.5000]]])
    """
    norms = activation.norm(dim=-1)
    candidate = real.clone()
    candidate[:, 0] = False
    median = norms.masked_fill(~candidate, torch.nan).nanmedian(dim=1, keepdim=True).values
    usual = candidate & (norms <= 3 * median)
    step = length * direction / direction.norm()
    return activation + usual[..., None] * step


def generate_pushed(
    model: TransformerBridge,
    tokens: Int[Tensor, "batch pos"],
    layer: int,
    step: Float[Tensor, "d_model"],
    n_new: int,
) -> Int[Tensor, "batch n_new"]:
    """Let a model write while a vector is added to its residual stream.

    The text grows by one token at a time, the likeliest one. In every forward pass `step` is added
    to what leaves block `layer` (from 0), at every position of the text so far but the first.
    Afterwards no hook is left on the model. (`with intervene(model, {resid_post(layer): function},
    may_do_nothing=True):` puts a function of (activation, hook) in place and takes it off again; a
    step of zeros is allowed.)

    Args:
        model: the bridge. `model(tokens)` are its logits, [batch, pos, d_vocab].
        tokens: the prompts, all of one length, their first token at position 0.
        layer: which block.
        step: what is added, as it is.
        n_new: how many tokens to write, at least 1.

    Returns:
        The new tokens alone.

    Source: Turner et al. 2023, arXiv:2308.10248.

    Example:
        >>> from utils.models import tiny_model
        >>> model, prompt = tiny_model(), torch.tensor([[0, 5, 9]])
        >>> generate_pushed(model, prompt, 1, torch.zeros(24), 4).shape
        torch.Size([1, 4])
    """

    def push(activation: Tensor, hook: object) -> Tensor:
        pushed = activation.clone()
        pushed[:, 1:] += step.to(activation)
        return pushed

    text = tokens
    with torch.no_grad(), intervene(model, {resid_post(layer): push}, may_do_nothing=True):
        for _ in range(n_new):
            likeliest = model(text)[:, -1].argmax(dim=-1, keepdim=True)
            text = torch.cat([text, likeliest], dim=1)
    return text[:, tokens.shape[1] :]


def continuation_perplexity(
    logits: Float[Tensor, "batch pos d_vocab"],
    tokens: Int[Tensor, "batch pos"],
    start: Int[Tensor, "batch"],
    end: Int[Tensor, "batch"],
) -> Float[Tensor, "batch"]:
    """How surprised a model is by the part of each text that it did not get as a prompt.

    Args:
        logits: of the model that judges, for the whole texts: at a token stands what is expected
            after it.
        tokens: the whole texts, prompt and continuation, padded on the right.
        start: for each text, the position of the first token of the continuation (at least 1).
        end: the position after its last token; at least start + 1.

    Returns:
        Per text, the exponential of the mean negative log-probability (natural logarithm) of the
        tokens of the continuation: 1 is no surprise at all, d_vocab is guessing.

    Example:
        >>> logits = torch.tensor([[[0.0, 0.0], [0.0, 100.0], [5.0, 0.0]]])
        >>> tokens, start, end = torch.tensor([[0, 1, 1]]), torch.tensor([1]), torch.tensor([3])
        >>> continuation_perplexity(logits, tokens, start, end)
        tensor([1.4142])
    """
    log_probs = logits[:, :-1].log_softmax(dim=-1)
    of_next = log_probs.gather(2, tokens[:, 1:, None])[..., 0]
    position = torch.arange(1, tokens.shape[1], device=tokens.device)
    continuation = (position >= start[:, None]) & (position < end[:, None])
    nats = -(of_next * continuation).sum(dim=1) / continuation.sum(dim=1)
    return nats.exp()


def distinct_runs(texts: list[list[str]], n: int) -> Float[Tensor, "k"]:
    """How little each text repeats itself.

    Args:
        texts: each a list of words. Case counts: "The" and "the" are different words here.
        n: how many words stand in a run, at least 1.

    Returns:
        Per text, the number of different runs of n neighbouring words divided by the number of all
        of them, in float32; NaN for a text of fewer than n words.

    Source: Li et al. 2016, arXiv:1510.03055 (there for all texts together).

    Example:
        >>> stuck, better = ["so"] * 4, ["the", "sea", "the", "sea", "wind"]
        >>> distinct_runs([stuck, better, ["so"]], 2)
        tensor([0.3333, 0.7500,    nan])
    """
    shares = []
    for words in texts:
        runs = [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
        shares.append(len(set(runs)) / len(runs) if runs else float("nan"))
    return torch.tensor(shares)


def best_cell(
    effect: Float[Tensor, "layers doses"], cost: Float[Tensor, "layers doses"], budget: float
) -> tuple[int, int]:
    """Which layer and dose to take: the strongest effect that the budget allows.

    Args:
        effect: what each combination of layer and dose achieves on the validation prompts; more is
            better.
        cost: what it costs there.
        budget: the largest cost that is allowed; a cost equal to it still is.

    Returns:
        (row, column) as Python ints. Among equal effects the cheaper cell; among equally cheap ones
        the first in reading order. If no cell is within the budget, the cheapest of all (the first
        of those).

    Example:
        >>> effect = torch.tensor([[0.1, 0.4, 0.9], [0.2, 0.4, 0.8]])
        >>> cost = torch.tensor([[5.0, 7.0, 60.0], [5.0, 6.0, 40.0]])
        >>> best_cell(effect, cost, budget=10.0), best_cell(effect, cost, budget=1.0)
        ((1, 1), (0, 0))
    """
    cells = [(row, column) for row in range(effect.shape[0]) for column in range(effect.shape[1])]
    allowed = [cell for cell in cells if cost[cell] <= budget]
    if not allowed:
        return min(cells, key=lambda cell: float(cost[cell]))
    return min(allowed, key=lambda cell: (-float(effect[cell]), float(cost[cell])))


def orthogonalise_writer(
    weight: Float[Tensor, "d_model d_in"], direction: Float[Tensor, "d_model"]
) -> Float[Tensor, "d_model d_in"]:
    """A weight matrix that can no longer write along a direction, whatever it is given.

    Args:
        weight: as `torch.nn.Linear` keeps it: the layer computes weight @ x and adds it to the
            residual stream.
        direction: what it shall no longer write. Its own length does not matter.

    Returns:
        The nearest matrix whose every output is orthogonal to `direction`; `weight` itself stays as
        it is.

    Source: Arditi et al. 2024, arXiv:2406.11717.

    Example:
        >>> weight = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
        >>> orthogonalise_writer(weight, torch.tensor([0.0, 2.0]))
        tensor([[1., 2., 3.],
                [0., 0., 0.]])
    """
    unit = direction / direction.norm()
    return weight - torch.outer(unit, unit @ weight)
