"""Reference solutions of chapter 00, "Start here: hooks and the residual stream".

Every function is pure: it returns a new tensor and leaves its arguments, and the model, as they
were.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge


def cache_resid_post(
    model: TransformerBridge, tokens: Int[Tensor, "batch pos"], layer: int
) -> Float[Tensor, "batch pos d_model"]:
    """The residual stream just after block `layer`, for every token of every text.

    Args:
        model: a TransformerLens bridge. No hook of yours may be left on it afterwards.
        tokens: token numbers, one text per row, the start token included.
        layer: a block, counted from 0: `0 <= layer < model.cfg.n_layers`.

    Returns:
        What leaves block `layer`, before any later norm, in the model's own units and dtype,
        without gradient. All positions are there, position 0 too, and a single text still has its
        batch dimension.

    Example:
        >>> from utils.models import tiny_model
        >>> model = tiny_model(seed=0)
        >>> tokens = torch.tensor([[1, 5, 9, 4]])
        >>> cache_resid_post(model, tokens, layer=1).shape
        torch.Size([1, 4, 24])
    """
    name = f"blocks.{layer}.hook_out"
    with torch.no_grad():
        _, cache = model.run_with_cache(tokens, names_filter=name, stop_at_layer=layer + 1)
    return cache[name]


def gather_last_token(
    acts: Float[Tensor, "batch pos d_model"], mask: Bool[Tensor, "batch pos"]
) -> Float[Tensor, "batch d_model"]:
    """The activation of each text's last real token.

    Args:
        acts: activations, one text per row. All numbers are finite, those of the padding too.
        mask: True where a token is real, False where it is padding. Padding may stand on the right
            or on the left, row by row; the real tokens of a row are neighbours, and every row has
            at least one.

    Returns:
        One vector per row, as a new tensor, in the units and dtype of `acts`. A batch of no texts
        gives a `[0, d_model]` tensor.

    Example:
        >>> acts = torch.tensor([[[1.0], [2.0], [3.0]], [[4.0], [5.0], [6.0]]])
        >>> mask = torch.tensor([[True, True, False], [False, True, True]])
        >>> gather_last_token(acts, mask)
        tensor([[2.],
                [6.]])
    """
    batch, pos = mask.shape
    index = torch.arange(pos, device=mask.device)
    last = torch.where(mask, index, -1).amax(dim=1)
    return acts[torch.arange(batch, device=acts.device), last]


def zero_ablate(
    activation: Float[Tensor, "batch pos d_model"], positions: list[int]
) -> Float[Tensor, "batch pos d_model"]:
    """A copy of `activation` in which every feature at the given positions is 0, in every row.

    Args:
        activation: what a hook receives, finite numbers. It must not be changed in place: the
            caller may still need it.
        positions: token positions, the same for every row, in any order. A negative one counts from
            the end, as in Python. An empty list changes nothing.

    Returns:
        A new tensor of the same shape and dtype; the other positions keep their values.

    Example:
        >>> zero_ablate(torch.ones(1, 3, 2), positions=[0, -1])
        tensor([[[0., 0.],
                 [1., 1.],
                 [0., 0.]]])
    """
    ablated = activation.clone()
    ablated[:, positions] = 0
    return ablated


def mean_ablate(
    activation: Float[Tensor, "batch pos d_model"], mask: Bool[Tensor, "batch pos"]
) -> Float[Tensor, "batch pos d_model"]:
    """A copy of `activation` in which all real tokens carry the same vector: their mean.

    Args:
        activation: what a hook receives, finite numbers, those of the padding too. It must not be
            changed in place.
        mask: True where a token is real. At least one token of the batch is.

    Returns:
        A new tensor of the same shape and dtype. There is one mean for the whole batch: the average
        over all its real tokens, each counting once whichever text it stands in. Padding keeps its
        values.

    Example:
        >>> activation = torch.tensor([[[1.0, 10.0], [3.0, 20.0], [99.0, 99.0]]])
        >>> mask = torch.tensor([[True, True, False]])
        >>> mean_ablate(activation, mask)
        tensor([[[ 2., 15.],
                 [ 2., 15.],
                 [99., 99.]]])
    """
    mean = activation[mask].mean(dim=0)
    return torch.where(mask.unsqueeze(-1), mean, activation)


def residual_mask(
    acts: Float[Tensor, "batch pos d_model"], mask: Bool[Tensor, "batch pos"], max_norm_ratio: float
) -> Bool[Tensor, "batch pos"]:
    """Which tokens to keep when the residual stream is averaged, probed or decomposed.

    A token is kept if it is real, is not the first real token of its text, and its L2 norm is at
    most `max_norm_ratio` times the median L2 norm of its text. The median is taken text by text,
    over the real tokens but the first; of two middle values it is the lower one, as `torch.median`
    has it. So what is kept of a text does not depend on the other texts of the batch.

    Args:
        acts: residual activations, one text per row.
        mask: True where a token is real. Padding may stand on the right or on the left, row by
            row; the real tokens of a row are neighbours, and every row has at least one.
        max_norm_ratio: how many medians a norm may reach, a pure number. The course uses 3.

    Returns:
        True where a token is kept. Of a text of one token nothing is.

    Example:
        >>> acts = torch.tensor([[[9.0], [1.0], [-1.0], [2.0], [50.0]]])
        >>> residual_mask(acts, torch.ones(1, 5, dtype=torch.bool), max_norm_ratio=3.0)
        tensor([[False,  True,  True,  True, False]])
    """
    is_first = mask & (mask.cumsum(dim=1) == 1)
    candidates = mask & ~is_first
    norms = acts.norm(dim=-1)
    medians = norms.masked_fill(~candidates, torch.nan).nanmedian(dim=1, keepdim=True).values
    return candidates & (norms <= max_norm_ratio * medians)


def cosine_map(vectors: Float[Tensor, "n d_model"]) -> Float[Tensor, "n n"]:
    """The cosine of the angle between every two rows.

    Args:
        vectors: one vector per row, in any unit. They are compared as they are: nothing is centred.

    Returns:
        Cosines in [-1, 1] (up to rounding), symmetric. A vector of zeros has no direction: its
        cosine with every row, itself included, is 0.

    Example:
        >>> cosine_map(torch.tensor([[2.0, 0.0], [0.0, 5.0], [-1.0, 0.0]]))
        tensor([[ 1.,  0., -1.],
                [ 0.,  1.,  0.],
                [-1.,  0.,  1.]])
    """
    norms = vectors.norm(dim=-1, keepdim=True)
    unit = vectors / torch.where(norms == 0, 1, norms)
    return unit @ unit.T


def logit_lens(
    resid: Float[Tensor, "... d_model"],
    norm_weight: Float[Tensor, "d_model"],
    eps: float,
    W_U: Float[Tensor, "d_model d_vocab"],
) -> Float[Tensor, "... d_vocab"]:
    """What the model would answer if it stopped here: its own last two steps, applied to `resid`.

    The last two steps of a Llama-like model are RMSNorm and the unembedding. RMSNorm divides each
    vector x by sqrt(mean(x_i ** 2) + eps), the mean taken over its d_model entries, and then
    multiplies entry i by norm_weight_i. It subtracts no mean.

    Args:
        resid: residual vectors, with any dimensions in front: `[d_model]`, `[pos, d_model]`,
            `[batch, pos, d_model]`.
        norm_weight: the weight of the final norm, one number per dimension.
        eps: the small number in the norm's root, in squared units of `resid`.
        W_U: the unembedding, one column per token of the vocabulary.

    Returns:
        Logits (not probabilities), in the dtype of `resid`.

    Example:
        >>> resid = torch.tensor([3.0, 4.0])
        >>> logit_lens(resid, norm_weight=torch.ones(2), eps=0.0, W_U=torch.eye(2))
        tensor([0.8485, 1.1314])
    """
    mean_square = resid.pow(2).mean(dim=-1, keepdim=True)
    return resid / torch.sqrt(mean_square + eps) * norm_weight @ W_U
