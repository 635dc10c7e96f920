"""Reference functions of chapter 24, "Pipeline at scale"."""

import re

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def natural_order(names: list[str]) -> list[str]:
    """Sort file names as a person counts: "shard_2" before "shard_10".

    A name is read from left to right as pieces: runs of the digits 0 to 9, and what stands between
    them. Digits are compared by the number that they spell, everything else as text. At a place
    where one name has digits and the other has text, digits come first. Names that are equal so far
    ("7" and "07") are put in the order of Python's `sorted`.

    Args:
        names: in any order; left as it is.

    Returns:
        A new list.

    Example:
        >>> natural_order(["s10.bin", "s9.bin", "s1.bin"])
        ['s1.bin', 's9.bin', 's10.bin']
    """
    def key(name: str) -> tuple[list[tuple[int, int, str]], str]:
        pieces = [piece for piece in re.split(r"([0-9]+)", name) if piece]
        return [(0, int(p), "") if p[0] in "0123456789" else (1, 0, p) for p in pieces], name

    return sorted(names, key=key)


def deal_shards(
    shards: list[Float[Tensor, "_ d"]], orders: list[Int[Tensor, "_"]]
) -> list[Float[Tensor, "_ d"]]:
    """Deal the rows of every shard out over as many new shards: each new one holds a part of each
    old one.

    With n shards, an old shard of m rows is cut into n parts that follow each other: part j is its
    rows from j * m // n up to, and without, (j + 1) * m // n. New shard j is part j of shard 0,
    then part j of shard 1, and so on, put in the order that `orders[j]` says.

    Args:
        shards: n tensors of rows; their lengths may differ.
        orders: for each new shard a permutation: its first number says which of the collected rows
            comes first.

    Returns:
        n new shards.

    Example:
        >>> old = [torch.tensor([[1.0], [2.0]]), torch.tensor([[3.0], [4.0]])]
        >>> deal_shards(old, [torch.tensor([1, 0]), torch.tensor([0, 1])])
        [tensor([[3.],
                [1.]]), tensor([[2.],
                [4.]])]
    """
    n = len(shards)
    dealt = []
    for j, order in enumerate(orders):
        parts = [rows[j * len(rows) // n : (j + 1) * len(rows) // n] for rows in shards]
        dealt.append(torch.cat(parts)[order])
    return dealt


def merge_idle(
    idle: Int[Tensor, "d_sae"], fired: Bool[Tensor, "world d_sae"], tokens: Int[Tensor, "world"]
) -> Int[Tensor, "d_sae"]:
    """One step of the count by which latents are called dead, the same on every process.

    Args:
        idle: for each latent, the tokens that have gone by since it last fired anywhere.
        fired: whether it fired in this step, on each process.
        tokens: how many tokens each process had in this step.

    Returns:
        The count after the step: 0 where a latent fired on any process, elsewhere larger by the
        tokens of all processes together.

    Example:
        >>> fired = torch.tensor([[True, False], [False, False]])
        >>> merge_idle(torch.tensor([5, 7]), fired, torch.tensor([3, 4]))
        tensor([ 0, 14])
    """
    return (idle + tokens.sum()).masked_fill(fired.any(dim=0), 0)


def decode_sparse(
    values: Float[Tensor, "n k"], places: Int[Tensor, "n k"], W_dec: Float[Tensor, "d_sae d"]
) -> Float[Tensor, "n d"]:
    """Decode a code of k latents a row, at the cost of k latents: no tensor is d_sae wide.

    Gradients reach `values` and `W_dec`.

    Args:
        values: the latents of each row that are not zero.
        places: which latents they are. One that is named twice in a row counts twice.
        W_dec: the decoder.

    Returns:
        For each row, the sum over j of values[:, j] * W_dec[places[:, j]].

    Example:
        >>> W_dec = torch.tensor([[1.0, 0.0], [0.0, 1.0], [5.0, 5.0]])
        >>> decode_sparse(torch.tensor([[2.0, 3.0]]), torch.tensor([[2, 0]]), W_dec)
        tensor([[13., 10.]])
    """
    return torch.einsum("nk,nkd->nd", values, W_dec[places])


def roofline(flops: float, moved: float, peak: float, bandwidth: float) -> tuple[float, float]:
    """The least time that a computation can take, and the share of the machine's peak it can reach.

    A machine computes at most `peak` operations a second and moves at most `bandwidth` bytes a
    second, both at once: the slower of the two decides.

    Args:
        flops: operations of the computation; above 0.
        moved: bytes that have to be read and written; above 0.
        peak: operations a second.
        bandwidth: bytes a second.

    Returns:
        (seconds, share): the least time, and the share of `peak` that this time means, at most 1.

    Raises:
        ValueError: one of the four is not above 0.

    Example:
        >>> roofline(flops=8.0, moved=40.0, peak=4.0, bandwidth=10.0)
        (4.0, 0.5)
    """
    if min(flops, moved, peak, bandwidth) <= 0:
        raise ValueError("flops, moved, peak and bandwidth are all above 0")
    seconds = max(flops / peak, moved / bandwidth)
    return seconds, flops / peak / seconds


def kl_and_error(
    clean: Float[Tensor, "n d_vocab"],
    replaced: Float[Tensor, "n d_vocab"],
    error: Float[Tensor, "m d"],
) -> Float[Tensor, ""]:
    """The loss of a fine-tuning on predictions: KL divergence and squared error at equal weight.

    The KL divergence is KL(clean || replaced) in nats, averaged over the n predictions; the squared
    error is the squared length of a row of `error`, averaged over the m rows. Each is divided by
    its own value, through which no gradient passes. So the loss is always 2; what counts is its
    gradient. No gradient reaches `clean`.

    Args:
        clean: logits of the undisturbed model.
        replaced: logits with the reconstruction in place. Different from `clean`.
        error: activation minus reconstruction. Not zero everywhere.

    Returns:
        The loss, one number.

    Example:
        >>> error = torch.tensor([[3.0], [1.0]], requires_grad=True)
        >>> loss = kl_and_error(torch.tensor([[0.0, 0.0]]), torch.tensor([[0.0, 1.0]]), error)
        >>> loss.backward()
        >>> loss.item(), error.grad
        (2.0, tensor([[0.6000],
                [0.2000]]))
    """
    p, q = clean.detach().log_softmax(-1), replaced.log_softmax(-1)
    kl = (p.exp() * (p - q)).sum(-1).mean()
    squared = error.square().sum(-1).mean()
    return kl / kl.detach() + squared / squared.detach()


def fold_adapter(
    params: dict[str, Tensor], A: Float[Tensor, "d d"], shift: Float[Tensor, "d"]
) -> dict[str, Tensor]:
    """Melt a linear adapter behind an SAE into the SAE.

    The SAE writes x_hat = f W_dec + b_dec, where f = TopK((x - b_dec) W_enc + b_enc); the adapter
    makes x_hat A + shift of it. The result is one SAE of the same form, with the same latents f,
    that writes this at once.

    Args:
        params: "W_enc" [d, d_sae], "b_enc" [d_sae], "W_dec" [d_sae, d], "b_dec" [d].
        A: the adapter's matrix. shift: what it adds.

    Returns:
        The new parameters under the same names, all of them new tensors. Its `b_dec` is taken from
        x as well, so `b_enc` must make up for the change.

    Example:
        >>> one = torch.ones(1, 1)
        >>> sae = {"W_enc": one, "b_enc": one[0], "W_dec": one, "b_dec": one[0]}
        >>> new = fold_adapter(sae, 3 * one, 2 * one[0])
        >>> new["W_dec"], new["b_dec"], new["b_enc"]
        (tensor([[3.]]), tensor([5.]), tensor([5.]))
    """
    b_dec = params["b_dec"] @ A + shift
    return {
        "W_enc": params["W_enc"].clone(),
        "b_enc": params["b_enc"] + (b_dec - params["b_dec"]) @ params["W_enc"],
        "W_dec": params["W_dec"] @ A,
        "b_dec": b_dec,
    }


def skip_transcoder(
    params: dict[str, Tensor], x: Float[Tensor, "n d_in"], k: int
) -> Float[Tensor, "n d_out"]:
    """What a skip transcoder says that an MLP will write, from what the MLP reads.

    The latents are the k largest of x W_enc + b_enc, those below 0 set to 0. Beside the decoder
    there is a linear path from the input to the output.

    Args:
        params: "W_enc" [d_in, d_sae], "b_enc" [d_sae], "W_dec" [d_sae, d_out], "b_dec" [d_out],
            "W_skip" [d_in, d_out].
        x: what the MLP reads.
        k: latents a row, from 1 to d_sae.

    Returns:
        f W_dec + x W_skip + b_dec.

    Example:
        >>> params = {"W_enc": torch.eye(2), "b_enc": torch.zeros(2), "W_dec": 10 * torch.eye(2),
        ...           "b_dec": torch.tensor([0.5, 0.5]), "W_skip": torch.ones(2, 2)}
        >>> skip_transcoder(params, torch.tensor([[1.0, 2.0]]), k=1)
        tensor([[ 3.5000, 23.5000]])
    """
    values, places = (x @ params["W_enc"] + params["b_enc"]).topk(k, dim=-1)
    decoded = torch.einsum("nk,nkd->nd", values.relu(), params["W_dec"][places])
    return decoded + x @ params["W_skip"] + params["b_dec"]


def second_share(W_dec: Float[Tensor, "2 d_sae d"]) -> Float[Tensor, "d_sae"]:
    """How much of each crosscoder latent's decoder belongs to the second of its two places.

    Args:
        W_dec: a decoder for each place. In one of the two, at least, a latent's row is not 0.

    Returns:
        For each latent, the length of its row at the second place over the sum of both lengths: 0
        if it writes to the first alone, 0.5 if to both alike, 1 if to the second alone.

    Example:
        >>> second_share(torch.tensor([[[3.0, 4.0], [0.0, 0.0]], [[0.0, 15.0], [0.0, 2.0]]]))
        tensor([0.7500, 1.0000])
    """
    first, second = W_dec.norm(dim=-1)
    return second / (first + second)
