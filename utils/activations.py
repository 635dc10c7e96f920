"""Texts or tokens in, activations out: one row per text, or one per token.

Which rows come back, and which tokens are left out, is decided here once for every chapter. The first
token and a few others (about 0.04% in the small model) have a norm a hundred times the usual one.
Left in, they hold most of the squared norm of a layer, and a mean or an SAE describes them alone.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from tqdm.auto import tqdm
from transformer_lens.model_bridge import TransformerBridge

from utils.activation_cache import cache_files, from_half, load_cached, save_cached, to_half
from utils.hooks import check_hook_names, check_tokens, is_edited, run_with_cache


@dataclass(frozen=True)
class TokenActivations:
    """The activations of single tokens at one hook point, in the order of the texts.

    Attributes:
        acts: one row per token that was kept, float32 on the CPU.
        text: which text (row of the tokens) each row comes from.
        position: where in its text the token stands; 0 is the BOS token.
        token: its id.
    """

    acts: Float[Tensor, "n_tokens d_model"]
    text: Int[Tensor, " n_tokens"]
    position: Int[Tensor, " n_tokens"]
    token: Int[Tensor, " n_tokens"]


def tokenize(
    model: TransformerBridge, texts: Sequence[str]
) -> tuple[Int[Tensor, "n pos"], Bool[Tensor, "n pos"]]:
    """Turn texts into token ids, BOS first, padded on the right to the longest text.

    A text that begins with the BOS token already (one made by a chat template may) gets no second one.
    Nothing is cut off. The mask is True at real tokens, so it is right even where the padding token
    is also a real token.

    Returns:
        (tokens, mask), on the model's device.

    Raises:
        TypeError: `texts` is a single string, or holds something else than strings.
        ValueError: no texts, an empty text, one longer than the context, or a tokenizer without BOS.
    """
    if isinstance(texts, str):
        raise TypeError("texts must be a list of strings; put the single text in a list: [text].")
    texts = list(texts)
    if not texts:
        raise ValueError("no texts: the list is empty.")
    bos, pad = model.tokenizer.bos_token_id, model.tokenizer.pad_token_id
    if bos is None:
        raise ValueError("this model's tokenizer has no BOS token to put first.")
    for i, text in enumerate(texts):
        if not isinstance(text, str):
            raise TypeError(f"text {i} is of type {type(text).__name__}, not a string.")
        if not text:
            raise ValueError(f"text {i} is empty.")
        if len(text) > 16 * model.cfg.n_ctx and len(text) > _longest_token(model) * model.cfg.n_ctx:
            raise ValueError(  # before it is cut into tokens, which takes a second for every half a megabyte
                f"text {i} has {len(text):,} characters, more than a context of {model.cfg.n_ctx} tokens can hold. Shorten or split it."
            )
    rows = model.tokenizer(texts, add_special_tokens=False)["input_ids"]
    rows = [row if row[:1] == [bos] else [bos, *row] for row in rows]
    for i, row in enumerate(rows):
        if len(row) > model.cfg.n_ctx:
            raise ValueError(
                f"text {i} has {len(row)} tokens with BOS: "
                f"the model's context holds {model.cfg.n_ctx}. Shorten or split it."
            )
    lengths = torch.tensor([len(row) for row in rows])
    mask = torch.arange(int(lengths.max())) < lengths[:, None]
    tokens = torch.full(mask.shape, bos if pad is None else pad)
    tokens[mask] = torch.tensor([token for row in rows for token in row])
    return tokens.to(model.cfg.device), mask.to(model.cfg.device)


def _longest_token(model: TransformerBridge) -> int:
    """The characters of the longest token in the vocabulary."""
    return max(map(len, model.tokenizer.get_vocab()))


def collect_activations(
    model: TransformerBridge,
    inputs: Sequence[str] | Int[Tensor, "n pos"],
    names: str | Sequence[str],
    *,
    mask: Bool[Tensor, "n pos"] | None = None,
    position: str | int = "last",
    batch_size: int = 16,
    skip_first: bool = True,
    max_norm_ratio: float | None = 3.0,
    cache: bool = True,
    progress: bool = True,
) -> (
    Float[Tensor, "n d_model"]
    | TokenActivations
    | dict[str, Float[Tensor, "n d_model"]]
    | dict[str, TokenActivations]
):
    """Run texts or tokens through the model and collect activations at one or several hook points.

    Texts of similar length share a batch; the rows come back in the order of the inputs. The model
    runs no further than the last hook point needs, without gradients. `batch_size` changes the speed
    and nothing else (beyond rounding in the last bits).

    With position="mean" or "all" two kinds of tokens are left out, at each hook point by itself: the
    first one (`skip_first`), and those whose norm is more than `max_norm_ratio` times the median
    norm of the non-first tokens *of the same text* (the lower one of two medians). So what is
    collected for a text never depends on the other texts. The other positions mask nothing.

    With `cache`, results are kept on disk, one file per hook point, under a key made of the model's
    configuration and weights, the tokens, the options above and CODE_VERSION. They are rounded to
    half precision, each row scaled by a power of two of its own so that nothing overflows: every
    value is within 0.05% (2^-11) of what was computed, or within 2^-39 of the row's largest. The
    first call returns the rounded values as well, so it agrees with the later ones to the last bit.
    While hooks or an SAE are attached to the model the files are neither read nor written.
    The folder may be deleted at any time.

    Args:
        model: the bridge, plain or sae_lens'.
        inputs: texts (see `tokenize`), or token ids with BOS first.
        names: canonical hook names of points that hold [batch, pos, d_model].
        mask: with token ids only: True at real tokens, which come before the padding in every row.
            Without it every token is taken as real, and a row that ends in the padding token is refused.
        position: "last" (the last real token), "first" (BOS), a token's index (0 is BOS; negative
            ones count from the last real token), "mean" (over the text) or "all" (every token a row).
        batch_size: how many texts run at once.
        skip_first: leave out the first token.
        max_norm_ratio: see above; None keeps all.
        cache: see above.
        progress: show a bar with the time left when it takes longer than 2 seconds.

    Returns:
        For one name: [n, d_model], float32 on the CPU; with position="all" a TokenActivations.
        For several: {name: the same}.

    Raises:
        HookNameError: see `check_hook_names` and `run_with_cache`.
        TypeError, ValueError: see `tokenize` and `check_tokens`; a mask that does not fit; a position
            that a text does not have; an activation that is not [batch, pos, d_model] or that is NaN
            or infinite; a text of which the masks leave nothing.
    """
    if isinstance(inputs, Tensor):
        check_tokens(model, inputs)
        tokens, lengths = inputs.cpu(), _lengths(model, inputs, mask)
    else:
        if mask is not None:
            raise ValueError("a mask goes with token ids; texts bring their own.")
        tokens, mask = (tensor.cpu() for tensor in tokenize(model, inputs))
        lengths = mask.sum(1)
    position = _check_position(position, lengths)
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, not {batch_size}.")
    rule = _Rule(position, skip_first, max_norm_ratio)
    points = check_hook_names(model, names)

    files: dict[str, Path] = {}
    if cache and not is_edited(model):
        files = cache_files(model, tokens, lengths, rule, points)
    stored = {name: load_cached(file) for name, file in files.items()}
    missing = [name for name in points if stored.get(name) is None]
    if missing:
        fresh = _harvest(model, tokens, lengths, rule, missing, batch_size, progress)
        if cache:
            fresh = {name: to_half(parts) for name, parts in fresh.items()}
            for name in files.keys() & fresh.keys():
                save_cached(files[name], fresh[name])
        stored |= fresh
    results = {}
    for name in points:
        parts = from_half(stored[name]) if cache else stored[name]
        results[name] = TokenActivations(**parts) if position == "all" else parts["acts"]
    return results[names] if isinstance(names, str) else results


@dataclass(frozen=True)
class _Rule:
    """Which tokens of a text are collected."""

    position: str | int
    skip_first: bool
    max_norm_ratio: float | None

    def keep(
        self, acts: Float[Tensor, "batch pos d_model"], lengths: Int[Tensor, " batch"]
    ) -> Bool[Tensor, "batch pos"]:
        index = torch.arange(acts.shape[1], device=acts.device)
        if self.position not in ("mean", "all"):
            at = {"first": 0, "last": -1}.get(self.position, self.position)
            target = lengths + at if at < 0 else torch.full_like(lengths, at)
            return index == target[:, None]
        real = index < lengths[:, None]
        keep = real & (index > 0) if self.skip_first else real
        if self.max_norm_ratio is not None:
            norms = acts.norm(dim=-1)
            others = norms.masked_fill(~real | (index == 0), torch.nan)
            keep = keep & (norms <= self.max_norm_ratio * others.nanmedian(1, keepdim=True).values)
        return keep

    def __str__(self) -> str:
        masks = (self.skip_first, self.max_norm_ratio) if self.position in ("mean", "all") else ()
        return repr((self.position, *masks))


def _lengths(
    model: TransformerBridge, tokens: Int[Tensor, "n pos"], mask: Bool[Tensor, "n pos"] | None
) -> Int[Tensor, " n"]:
    if mask is None:
        pad = model.tokenizer.pad_token_id
        if pad is not None and (tokens[:, -1] == pad).any():
            raise ValueError(
                f"row {int((tokens[:, -1] == pad).nonzero()[0])} of the tokens ends in the padding token. Pass mask= as well "
                "(the second result of tokenize), or a mask of ones if that token is meant."
            )
        return torch.full((len(tokens),), tokens.shape[1])
    if mask.shape != tokens.shape or mask.dtype != torch.bool:
        raise ValueError(
            f"the mask must be of booleans, {list(tokens.shape)} like the tokens; "
            f"got {mask.dtype}, {list(mask.shape)}."
        )
    lengths = mask.cpu().sum(1)
    if not torch.equal(mask.cpu(), torch.arange(mask.shape[1]) < lengths[:, None]):
        raise ValueError("in every row of the mask the real tokens must come first, then the padding.")
    if not lengths.all():
        raise ValueError(f"row {int(lengths.argmin())} of the mask has no real token.")
    return lengths


def _check_position(position: str | int, lengths: Int[Tensor, " n"]) -> str | int:
    if isinstance(position, str):
        if position not in ("last", "first", "mean", "all"):
            raise ValueError(
                f"position must be 'last', 'first', 'mean', 'all' or a token's index, not {position!r}."
            )
        return position
    position = operator.index(position)
    short = (lengths < (position + 1 if position >= 0 else -position)).nonzero()
    if len(short):
        i = int(short[0])
        raise ValueError(
            f"text {i} has no token at position {position}: it has {int(lengths[i])} tokens with BOS."
        )
    return position


def _harvest(
    model: TransformerBridge,
    tokens: Int[Tensor, "n pos"],
    lengths: Int[Tensor, " n"],
    rule: _Rule,
    names: list[str],
    batch_size: int,
    progress: bool,
) -> dict[str, dict[str, Tensor]]:
    """Run the model and keep {hook name: the fields of a TokenActivations} ("acts" alone when pooled)."""
    rows: dict[str, list] = {name: [None] * len(tokens) for name in names}
    kept = {name: torch.zeros(tokens.shape, dtype=torch.bool) for name in names}
    # The longest texts come first: if memory is short, it shows at once.
    batches = lengths.argsort(descending=True, stable=True).split(batch_size)
    with tqdm(
        total=int(lengths.sum()), unit=" tokens", delay=2, leave=False, disable=not progress
    ) as bar:
        for batch in batches:
            width = int(lengths[batch].max())
            batch_tokens = tokens[batch, :width].to(model.cfg.device)
            for name, acts in run_with_cache(model, batch_tokens, names).items():
                _check_activations(name, acts, batch_tokens.shape, batch)
                acts = acts.float()
                keep = rule.keep(acts, lengths[batch].to(acts.device))
                counts = keep.sum(1)
                if rule.position == "mean":
                    if not counts.all():
                        raise ValueError(
                            f"the masks leave no token of text {int(batch[int(counts.argmin())])} at {name}. "
                            "Look at its norms, or relax skip_first or max_norm_ratio."
                        )
                    picked = torch.einsum("bpd,bp->bd", acts, keep / counts[:, None])
                    counts = torch.ones_like(counts)
                else:
                    picked = acts[keep]
                kept[name][batch, :width] = keep.cpu()
                for i, row in zip(batch.tolist(), picked.cpu().split(counts.tolist())):
                    rows[name][i] = row
            bar.update(int(lengths[batch].sum()))
    found = {name: {"acts": torch.cat(rows[name])} for name in names}
    if rule.position == "all":
        for name, parts in found.items():
            if not len(parts["acts"]):
                raise ValueError(f"the masks leave no token of any text at {name}.")
            text, position = kept[name].nonzero(as_tuple=True)
            parts |= {"text": text, "position": position, "token": tokens[text, position].long()}
    return found


def _check_activations(
    name: str, acts: Tensor, expected: torch.Size, texts: Int[Tensor, " batch"]
) -> None:
    if acts.ndim != 3 or acts.shape[:2] != expected:
        raise ValueError(
            f"{name} holds {list(acts.shape)}, not [batch, pos, d_model]: use run_with_cache for it."
        )
    broken = (~acts.isfinite()).any(-1).nonzero()
    if len(broken):
        row, position = broken[0].tolist()
        raise ValueError(
            f"{name} is NaN or infinite in text {int(texts[row])} at position {position}."
        )
