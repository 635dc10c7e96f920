"""Reference functions of chapter 23, "Train one on a real language model"."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from utils.hooks import intervene


def chunk_documents(
    documents: list[list[int]], context: int, bos: int
) -> tuple[Int[Tensor, "n context"], Int[Tensor, "n"]]:
    """Cut tokenized documents into rows of equal length. No row holds tokens of two documents.

    Every row begins with the start token `bos`. The tokens of a document follow each other without
    a gap and without repetition; what does not fill a last row is dropped.

    Args:
        documents: token numbers, one list per document, without `bos`. A document may be too short
            for a single row.
        context: tokens per row, `bos` included; at least 2.
        bos: the start token.

    Returns:
        (rows, owner), two integer tensors. `owner` says for each row which document it comes from:
        its index in `documents`. The rows are in the order of the text.

    Example:
        >>> rows, owner = chunk_documents([[5, 6, 7, 8, 9], [4], [1, 2]], context=3, bos=0)
        >>> rows
        tensor([[0, 5, 6],
                [0, 7, 8],
                [0, 1, 2]])
        >>> owner
        tensor([0, 0, 2])
    """
    width = context - 1
    rows, owner = [], []
    for i, ids in enumerate(documents):
        for start in range(0, len(ids) - width + 1, width):
            rows.append([bos, *ids[start : start + width]])
            owner.append(i)
    return torch.tensor(rows).long().view(-1, context), torch.tensor(owner).long()


def usual_token_mask(
    acts: Float[Tensor, "batch pos d_model"], max_norm_ratio: float
) -> Bool[Tensor, "batch pos"]:
    """Which tokens an SAE should be trained on: not the first of a row, none of an unusual length.

    A token is unusual if the length of its activation is more than `max_norm_ratio` times the
    median length of the tokens of *its own row*, where the first token is not counted. A token at
    exactly that limit is usual.

    Args:
        acts: activations, in rows. `pos` is even, so that the median is one of the lengths.
        max_norm_ratio: for example 3.

    Returns:
        True where a token is usual. Always False at position 0.

    Example:
        >>> acts = torch.tensor([[[50.0], [1.0], [2.0], [-2.0]], [[1.0], [2.0], [7.0], [2.0]]])
        >>> usual_token_mask(acts, 3.0)
        tensor([[False,  True,  True,  True],
                [False,  True, False,  True]])
    """
    norms = acts.norm(dim=-1)
    limit = max_norm_ratio * norms[:, 1:].median(dim=1, keepdim=True).values
    usual = norms <= limit
    usual[:, 0] = False
    return usual


def fold_normalisation(
    params: dict[str, Tensor], mean: Float[Tensor, "d_in"], scale: float
) -> dict[str, Tensor]:
    """Turn an SAE of normalised activations into an SAE of the activations themselves.

    It was trained on z = (x - mean) / scale, as z_hat = f W_dec + b_dec with f = TopK((z - b_dec)
    W_enc + b_enc). The result is the same machine with other biases. It reads x with the same
    formula, and what it writes is z_hat * scale + mean. Both matrices stay as they are, so the
    directions keep their length, and its latents are `scale` times the old ones.

    Args:
        params: "W_enc" [d_in, d_sae], "b_enc" [d_sae], "W_dec" [d_sae, d_in], "b_dec" [d_in].
        mean: what was taken from every activation.
        scale: what it was divided by afterwards; positive.

    Returns:
        New parameters under the same names. The input is left as it was.

    Example:
        >>> params = {"W_enc": torch.ones(1, 1), "b_enc": torch.tensor([0.5])}
        >>> params |= {"W_dec": torch.ones(1, 1), "b_dec": torch.tensor([1.0])}
        >>> new = fold_normalisation(params, torch.tensor([7.0]), 2.0)
        >>> new["b_enc"], new["b_dec"]
        (tensor([1.]), tensor([9.]))
    """
    return {
        "W_enc": params["W_enc"].clone(),
        "b_enc": params["b_enc"] * scale,
        "W_dec": params["W_dec"].clone(),
        "b_dec": params["b_dec"] * scale + mean,
    }


def variance_explained(
    x: Float[Tensor, "n d_model"], x_hat: Float[Tensor, "n d_model"]
) -> tuple[float, float, float]:
    """How much of the variance of activations a reconstruction explains, by three definitions.

    All three have the form 1 - error / variance, where the error is the squared difference of x and
    x_hat and the variance the squared difference of x and its mean activation. They differ in when
    the division happens.

    Args:
        x: activations, one per row.
        x_hat: their reconstructions.

    Returns:
        (pooled, by_dimension, by_token), three Python floats. `pooled` divides once, after summing
        both over all rows and dimensions. `by_dimension` sums over the rows, divides for each
        dimension, then averages over the dimensions. `by_token` sums over the dimensions, divides
        for each row, then averages over the rows.

    Example:
        >>> x = torch.tensor([[0.0, 0.0], [4.0, 0.0], [2.0, 3.0], [2.0, -3.0]])
        >>> x_hat = torch.tensor([[0.0, 0.0], [4.0, 0.0], [2.0, 0.0], [2.0, -3.0]])
        >>> [round(v, 4) for v in variance_explained(x, x_hat)]
        [0.6538, 0.75, 0.75]
    """
    error = (x - x_hat).square()
    variance = (x - x.mean(0)).square()
    pooled = 1 - error.sum() / variance.sum()
    by_dimension = (1 - error.sum(0) / variance.sum(0)).mean()
    by_token = (1 - error.sum(1) / variance.sum(1)).mean()
    return pooled.item(), by_dimension.item(), by_token.item()


def firing_statistics(
    latents: Float[Tensor, "n d_sae"]
) -> tuple[float, Float[Tensor, "d_sae"], float, float]:
    """How many latents fire, how often each does, and how many never or nearly always do.

    A latent fires on a token if its value is above 0.

    Args:
        latents: one row per token. Values are 0 or more.

    Returns:
        (l0, frequency, dead, dense). `l0` is the number of latents that fire on a token, averaged
        over the tokens. `frequency` is a float32 tensor: the share of the tokens on which each
        latent fires. `dead` is the share of the latents that never fire, `dense` the share of those
        that fire on more than a tenth of the tokens. All but `frequency` are Python floats.

    Example:
        >>> latents = torch.zeros(10, 4)
        >>> latents[0, 0], latents[:, 1] = 3.0, 1.0
        >>> l0, frequency, dead, dense = firing_statistics(latents)
        >>> round(l0, 4), frequency, dead, dense
        (1.1, tensor([0.1000, 1.0000, 0.0000, 0.0000]), 0.5, 0.25)
    """
    fires = latents > 0
    counts = fires.sum(0)
    l0 = fires.sum(1).double().mean().item()
    dead = (counts == 0).double().mean().item()
    # Counts are whole numbers: compared as such, exactly a tenth is not more than a tenth.
    dense = (10 * counts > len(latents)).double().mean().item()
    return l0, counts.float() / len(latents), dead, dense


def loss_with(
    model: TransformerBridge,
    tokens: Int[Tensor, "batch pos"],
    name: str,
    values: Float[Tensor, "batch pos d_model"],
    usual: Bool[Tensor, "batch pos"],
) -> Float[Tensor, "batch pos_minus_1"]:
    """What the model's predictions lose when other vectors stand in for an activation.

    Args:
        model: the bridge. It is left without hooks.
        tokens: rows of tokens, no padding.
        name: the hook point.
        values: what stands in, at the tokens where `usual` is True. At one place at least it
            differs from the activation (`intervene` of chapter 00 raises where nothing changes).
        usual: False where the model's own activation stays.

    Returns:
        The loss of predicting token 1, 2, ... of each row from the tokens before it, in nats: minus
        the natural logarithm of the probability that the model gives to the token that comes.

    Example:
        >>> from utils.models import tiny_model
        >>> model, tokens = tiny_model(), torch.tensor([[0, 9, 14, 20]])
        >>> usual = torch.tensor([[False, True, True, False]])
        >>> loss_with(model, tokens, "blocks.1.hook_out", torch.zeros(1, 4, 24), usual).shape
        torch.Size([1, 3])
    """
    def stand_in(acts: Tensor, hook: object) -> Tensor:
        return torch.where(usual[..., None], values, acts)

    with torch.no_grad(), intervene(model, {name: stand_in}):
        logprobs = F.log_softmax(model(tokens)[:, :-1], dim=-1)
    return -logprobs.gather(2, tokens[:, 1:, None]).squeeze(2)


def kl_from_clean(
    clean: Float[Tensor, "*batch d_vocab"], other: Float[Tensor, "*batch d_vocab"]
) -> Float[Tensor, "*batch"]:
    """How far the other predictions are from the clean ones: KL(clean || other), in nats.

    It is the number of nats that you waste, on average, if the clean model draws the next token and
    you bet with the other model's probabilities. Never negative, and 0 only where they agree.

    Args:
        clean: logits of the model as it is.
        other: logits of the model with something standing in.

    Returns:
        One number per prediction.

    Example:
        >>> kl_from_clean(torch.tensor([[0.0, 0.0]]), torch.tensor([[0.75, 0.25]]).log())
        tensor([0.1438])
    """
    p, q = clean.log_softmax(-1), other.log_softmax(-1)
    return (p.exp() * (p - q)).sum(-1)


def loss_recovered(
    losses: Float[Tensor, "n_docs 3"], draws: Int[Tensor, "n_draws n_docs"]
) -> tuple[float, float, float]:
    """The share of an ablation's damage that an SAE avoids, with its interval over documents.

    From the losses of all tokens together: 1 if the SAE costs nothing, 0 if it is as bad as the
    ablation.

    Args:
        losses: for each document, the loss summed over its tokens: of the clean model, with the
            SAE, with the ablation, in this order.
        draws: each row is one resample: the indices of the documents in it, as drawn with
            replacement.

    Returns:
        (value, low, high), three Python floats: the share on the documents as they are, and the
        2.5% and 97.5% quantiles of the shares on the resamples (`Tensor.quantile`, linear between
        neighbours).

    Example:
        >>> losses = torch.tensor([[1.0, 2.0, 5.0], [3.0, 3.0, 9.0]])
        >>> loss_recovered(losses, torch.tensor([[0, 0], [0, 0]]))
        (0.9, 0.75, 0.75)
    """
    resampled = losses[draws].double().sum(1)
    clean, sae, ablated = torch.cat([losses.double().sum(0, keepdim=True), resampled]).T
    share = (ablated - sae) / (ablated - clean)
    low, high = share[1:].quantile(torch.tensor([0.025, 0.975], dtype=torch.double)).tolist()
    return share[0].item(), low, high
