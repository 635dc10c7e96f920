"""One pass over a corpus, for every latent at once."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from contextlib import suppress

import numpy as np
import scipy.sparse
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from tqdm.auto import tqdm
from transformer_lens.model_bridge import TransformerBridge

from utils.activation_cache import model_digest
from utils.hooks import check_tokens, is_edited, run_with_cache
from utils.paths import cache_dir
from utils.reading.features import (
    CODE_VERSION, N_BINS, N_LOGITS, N_NEAR, N_QUANTILES, N_SILENT, N_TOP, PER_QUANTILE, FeatureError, FeatureStats,
)
from utils.sae.model import AnySAE, check_fits, sae_digest, usual_tokens

_MOST_AT_A_TOKEN = 64
"""Firings of a token that are kept, the strongest ones; a TopK SAE with a smaller k has no more."""
_SAMPLE = 160
"""Firings kept of every latent, drawn evenly from all of them: its quantiles are read off these."""
_CHUNK_TOKENS = 32_768
_PAIR_TOKENS = 262_144
"""Whose pairs of firing latents are counted; a larger corpus is sampled by context."""
_MIN_TOGETHER = 3


@torch.no_grad()
def collect_features(
    model: TransformerBridge,
    sae: AnySAE,
    tokens: Int[Tensor, "n_contexts pos"],
    *,
    name: str | None = None,
    corpus: str = "",
    batch_size: int = 16,
    cache: bool = True,
    progress: bool = True,
    seed: int = 0,
) -> FeatureStats:
    """Read all latents of an SAE on a corpus, in one pass. Activations are never kept beyond a batch.

    The first token of a context and tokens of unusual norm are left out, as in training. What is sampled (the quantiles, the silent places)
    is drawn by a hash of latent, place and `seed`, so `batch_size` changes the speed and nothing else.

    With `cache`, the result is kept on disk under a key made of the model's weights, the SAE's weights, the tokens and `seed`.

    Args:
        model: the bridge, without hooks of yours on it.
        sae: `utils.sae.model.SAE`, or any module with `encode`, `W_dec` and `cfg`: one that sae_lens' `SAE.load_from_disk` gives.
        tokens: full rows, BOS first, no padding.
        name: the hook point, for an SAE that does not say its own.
        corpus: what to call `tokens`.
        batch_size: contexts at once.
        seed: of the samples.

    Raises:
        SAEError: the SAE belongs to another model, hook point or width.
        FeatureError: hooks are attached to the model; no token is usual.
        HookNameError, ValueError: see `check_tokens`.
    """
    check_tokens(model, tokens)
    if tokens.shape[1] < 3:
        raise ValueError(f"contexts of {tokens.shape[1]} tokens: at least 3 are needed, the first is left out.")
    name = check_fits(model, sae, name)
    if is_edited(model):
        raise FeatureError("hooks or an SAE are attached to the model: its activations are not its own. Detach them before collecting.")
    tokens, sae_sha256 = tokens.cpu().int().contiguous(), sae_digest(sae)

    def collect() -> FeatureStats:
        started = time.perf_counter()
        facts = _one_pass(model, sae, tokens, name, batch_size, progress, seed) | _similar(sae) | _logits(model, sae, progress)
        return FeatureStats(tokens=tokens, **facts, model_name=model.cfg.model_name, hook_name=name, sae_sha256=sae_sha256, corpus=corpus,
                            seconds=time.perf_counter() - started)

    if not cache:
        return collect()
    tokens_sha256 = hashlib.sha256(tokens.numpy().tobytes()).hexdigest()
    return cached_stats([model_digest(model), name, sae_sha256, str(list(tokens.shape)), tokens_sha256, str(seed), corpus], collect)


def cached_stats(key: list[str], collect: Callable[[], FeatureStats]) -> FeatureStats:
    """What is on disk under this key, else what `collect` makes, which is then put there if it can be."""
    name = hashlib.sha256("|".join([str(CODE_VERSION), *key]).encode()).hexdigest()[:32]
    path = cache_dir() / "features" / f"{name}.safetensors"
    if path.exists():
        with suppress(FeatureError):  # a damaged file costs time, not an error
            stats = FeatureStats.load(path)
            if {stats.sae_sha256, stats.hook_name} <= {*key}:  # else it was written under another key, and moved
                return stats
    stats = collect()
    try:
        stats.save(path)
    except OSError as error:
        print(f"The statistics are not kept in the cache, so they will be collected again next time: {error}")
    return stats


def _one_pass(model: TransformerBridge, sae: AnySAE, tokens: Int[Tensor, "n_contexts pos"], name: str, batch_size: int, progress: bool, seed: int) -> dict:
    n_contexts, pos = tokens.shape
    d_sae, device = len(sae.W_dec), sae.W_dec.device
    top, sample, silent = Best(d_sae, N_TOP), Best(d_sae, _SAMPLE), Best(d_sae, N_SILENT)
    counts, histogram = torch.zeros(d_sae, dtype=torch.long), _Histogram(d_sae, N_BINS)
    candidates = _candidates(d_sae, n_contexts, pos, seed)
    paired = torch.randperm(n_contexts, generator=torch.Generator().manual_seed(seed))[: max(1, _PAIR_TOKENS // pos)]
    counted = torch.zeros(n_contexts, dtype=torch.bool).index_fill(0, paired, True)
    pairs: list[tuple[Tensor, Tensor]] = []
    per_chunk = max(1, _CHUNK_TOKENS // (pos * batch_size)) * batch_size
    k = min(_MOST_AT_A_TOKEN, getattr(sae.cfg, "k", d_sae), d_sae)
    code_latent = torch.zeros(n_contexts * pos, k, dtype=torch.int16 if d_sae <= 2**15 else torch.int32)
    code_value = torch.zeros(n_contexts * pos, k, dtype=torch.float16)
    n_usual, n_paired = 0, 0
    with tqdm(total=tokens.numel(), unit=" tokens", unit_scale=True, desc=f"reading {d_sae:,} latents", disable=not progress, delay=2) as bar:
        for start in range(0, n_contexts, per_chunk):
            found, usual_rows = [], []
            for rows in tokens[start : start + per_chunk].split(batch_size):
                acts = run_with_cache(model, rows.long().to(model.cfg.device), name)[name]
                usual = usual_tokens(acts)
                token, latent, value = firing(sae, acts[usual].to(device, torch.float32))
                first = start + len(torch.cat(usual_rows)) if usual_rows else start
                places = (usual.nonzero() @ torch.tensor([pos, 1], device=usual.device) + first * pos)[token.to(usual.device)]
                found.append((latent.cpu(), value.cpu(), places.cpu()))
                usual_rows.append(usual.cpu())
                bar.update(rows.numel())
            latent, value, place = (torch.cat(column) for column in zip(*found))
            usual = torch.cat(usual_rows)
            n_usual += int(usual.sum())
            counts += torch.bincount(latent, minlength=d_sae)
            histogram.add(latent, value)
            order = value.argsort(descending=True, stable=True)
            order = order[place[order].argsort(stable=True)]
            rank = _rank(place[order])
            order, rank = order[rank < k], rank[rank < k]
            code_latent[place[order], rank] = latent[order].to(code_latent.dtype)
            code_value[place[order], rank] = value[order].clamp_max(65_000).half()
            sample.add(latent, _hashed(latent, place, seed), place, value)
            top.add(*_one_per_context(latent, value, place, n_contexts, pos))
            in_chunk = (candidates >= start * pos) & (candidates < (start + len(usual)) * pos)
            quiet_latent, quiet_place = in_chunk.nonzero()[:, 0], candidates[in_chunk]
            fits = usual.flatten()[quiet_place - start * pos] & ~_contains(latent * n_contexts * pos + place, quiet_latent * n_contexts * pos + quiet_place)
            silent.add(quiet_latent[fits], _hashed(quiet_latent[fits], quiet_place[fits], seed + 1), quiet_place[fits], torch.zeros(int(fits.sum())))
            kept = counted[place // pos]
            pairs.append((place[kept].int(), latent[kept].int()))
            n_paired += int((usual & counted[start : start + len(usual), None]).sum())
    if n_usual == 0:
        raise FeatureError("no token of this corpus has a usual norm: there is nothing to read.")
    top_place, top_value = top.table()
    quantile_place, quantile_value = _quantiles(*sample.table(), seed)
    cofiring, score = _cofiring(pairs, n_paired, d_sae)
    return {
        "firing_rate": counts.float() / n_usual, "max_value": top_value[:, 0].clone(), "histogram": histogram.counts.int(), "bin_edges": histogram.edges(),
        "top_where": _where(top_place, pos), "top_value": top_value, "quantile_where": _where(quantile_place, pos), "quantile_value": quantile_value,
        "silent_where": _where(silent.table()[0], pos), "cofiring": cofiring, "cofiring_score": score, "n_tokens": n_usual,
        "code_latent": code_latent.view(n_contexts, pos, k), "code_value": code_value.view(n_contexts, pos, k),
    }


def firing(sae: AnySAE, x: Float[Tensor, "n d_in"]) -> tuple[Int[Tensor, " m"], Int[Tensor, " m"], Float[Tensor, " m"]]:
    """Every firing on these activations as three columns: the row of x, the latent, the value (above 0)."""
    if hasattr(sae, "encode_sparse"):
        values, indices = sae.encode_sparse(x)
        row, column = (values > 0).nonzero(as_tuple=True)
        return row, indices[row, column], values[row, column]
    latents = sae.encode(x)
    row, latent = (latents > 0).nonzero(as_tuple=True)
    return row, latent, latents[row, latent].float()


class Best:
    """The m entries of highest score of every latent, of all that were ever added. Of equal scores, the earlier ones."""

    def __init__(self, d_sae: int, m: int) -> None:
        self.d_sae, self.m = d_sae, m
        self.latent, self.score = torch.empty(0, dtype=torch.long), torch.empty(0)
        self.place, self.value = torch.empty(0, dtype=torch.long), torch.empty(0)

    def add(self, latent: Int[Tensor, " n"], score: Tensor, place: Int[Tensor, " n"], value: Float[Tensor, " n"]) -> None:
        columns = [torch.cat([mine.to(new.dtype), new]) for mine, new in ((self.latent, latent), (self.score, score), (self.place, place), (self.value, value))]
        order = columns[1].argsort(descending=True, stable=True)
        order = order[columns[0][order].argsort(stable=True)]
        order = order[_rank(columns[0][order]) < self.m]
        self.latent, self.score, self.place, self.value = (column[order] for column in columns)

    def table(self) -> tuple[Int[Tensor, "d_sae m"], Float[Tensor, "d_sae m"]]:
        """(place, value) by latent and rank; -1 and 0 where a latent has fewer."""
        place = torch.full((self.d_sae, self.m), -1)
        value = torch.zeros(self.d_sae, self.m)
        rank = _rank(self.latent)
        place[self.latent, rank], value[self.latent, rank] = self.place, self.value
        return place, value


class _Histogram:
    """Counts in even bins from 0, for values whose range is not known before the end.

    When a value falls beyond the last bin, the bins of its latent are merged in pairs until it fits: nothing is lost.
    """

    def __init__(self, d_sae: int, n_bins: int) -> None:
        self.counts, self.width = torch.zeros(d_sae, n_bins, dtype=torch.long), torch.zeros(d_sae)

    def add(self, latent: Int[Tensor, " n"], value: Float[Tensor, " n"]) -> None:
        d_sae, n_bins = self.counts.shape
        largest = torch.zeros(d_sae).scatter_reduce(0, latent, value, "amax")
        fresh = (self.width == 0) & (largest > 0)
        # A power of two: the edges then do not depend on which value happened to come first in its octave.
        self.width[fresh] = torch.exp2((largest[fresh] / n_bins).log2().ceil())
        factor = torch.where(largest > 0, torch.exp2((largest / (self.width * n_bins).clamp_min(1e-30)).log2().ceil().clamp_min(0)), 1.0)
        bins = torch.arange(n_bins).expand(d_sae, n_bins) // factor[:, None].long()
        self.counts = torch.zeros_like(self.counts).scatter_add(1, bins, self.counts)
        self.width *= factor
        bin_ = (value / self.width[latent]).long().clamp_max(n_bins - 1)
        self.counts += torch.bincount(latent * n_bins + bin_, minlength=d_sae * n_bins).view(d_sae, n_bins)

    def edges(self) -> Float[Tensor, "d_sae n_edges"]:
        return torch.arange(self.counts.shape[1] + 1) * torch.where(self.width > 0, self.width, 1.0)[:, None]


def _rank(groups: Int[Tensor, " n"]) -> Int[Tensor, " n"]:
    """The place of each entry within its group: 0, 1, ...; equal numbers stand together."""
    return torch.arange(len(groups)) - torch.searchsorted(groups, groups)


def _one_per_context(latent: Tensor, value: Tensor, place: Tensor, n_contexts: int, pos: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(latent, score, place, value) of each latent's strongest firing in each context; of equal ones, the first."""
    order = value.argsort(descending=True, stable=True)
    group = (latent * n_contexts + place // pos)[order]
    order = order[group.argsort(stable=True)]
    order = order[_rank(group.sort().values) == 0]
    return latent[order], value[order], place[order], value[order]


def _hashed(latent: Int[Tensor, " n"], place: Int[Tensor, " n"], seed: int) -> Int[Tensor, " n"]:
    """A number that looks random and depends on nothing else (the finaliser of splitmix64; int64 wraps around)."""
    x = latent * 0x1_0000_0001 + place * 0x9E37_79B9_7F4A_7C1 + (seed + 1) * 0x5851_F42D
    for shift, factor in ((30, -0x40A7_B892_E31B_1A47), (27, -0x6B2F_B644_ECCE_EE15)):
        x = (x ^ ((x >> shift) & (2 ** (64 - shift) - 1))) * factor
    return x ^ ((x >> 31) & (2**33 - 1))


def _candidates(d_sae: int, n_contexts: int, pos: int, seed: int) -> Int[Tensor, "d_sae m"]:
    """Random places for every latent, none of them a first token, none twice (-1 instead)."""
    rng = torch.Generator().manual_seed(seed)
    shape = (d_sae, 3 * N_SILENT)
    place = torch.randint(n_contexts, shape, generator=rng) * pos + torch.randint(1, pos, shape, generator=rng)
    place = place.sort(1).values
    place[:, 1:][place[:, 1:] == place[:, :-1]] = -1
    return place


def _contains(those: Int[Tensor, " n"], these: Int[Tensor, " m"]) -> Tensor:
    """Which of `these` are among `those`."""
    if not len(those):
        return torch.zeros(len(these), dtype=torch.bool)
    those = those.sort().values
    return those[torch.searchsorted(those, these).clamp_max(len(those) - 1)] == these


def _quantiles(place: Int[Tensor, "d_sae m"], value: Float[Tensor, "d_sae m"], seed: int) -> tuple[Tensor, Tensor]:
    """From an even sample of firings: cut by rank into N_QUANTILES parts, PER_QUANTILE at random from each, ascending."""
    d_sae, _ = place.shape
    n = (place >= 0).sum(1)
    ascending = torch.where(place >= 0, value, torch.inf).argsort(dim=1, stable=True)
    place, value = place.gather(1, ascending), value.gather(1, ascending)
    rank = torch.arange(place.shape[1]).expand_as(place)
    part = torch.where(rank < n[:, None], rank * N_QUANTILES // n[:, None].clamp_min(1), N_QUANTILES)
    chosen = Best(d_sae * N_QUANTILES, PER_QUANTILE)
    there = part < N_QUANTILES
    latent = torch.arange(d_sae)[:, None].expand_as(place)[there]
    chosen.add(latent * N_QUANTILES + part[there], _hashed(latent, place[there], seed + 2), place[there], value[there])
    place, value = (column.view(d_sae, N_QUANTILES, PER_QUANTILE) for column in chosen.table())
    return place, value


def _where(place: Int[Tensor, "*shape"], pos: int) -> Int[Tensor, "*shape 2"]:
    return torch.where(place[..., None] >= 0, torch.stack([place // pos, place % pos], -1), -1).int()


def _cofiring(pairs: list[tuple[Tensor, Tensor]], n: int, d_sae: int) -> tuple[Int[Tensor, "d_sae n_near"], Float[Tensor, "d_sae n_near"]]:
    """The phi coefficient of every pair of latents that met often enough: its largest for each latent."""
    token, latent = (torch.cat(column).numpy() for column in zip(*pairs))
    _, row = np.unique(token, return_inverse=True)
    code = scipy.sparse.csr_matrix((np.ones(len(row), dtype=np.float32), (row, latent)), shape=(int(row.max(initial=-1)) + 1 or 1, d_sae))
    fires = torch.from_numpy(np.bincount(latent, minlength=d_sae)).double()
    spread = (fires * (n - fires)).sqrt()
    near, score = torch.full((d_sae, N_NEAR), -1), torch.zeros(d_sae, N_NEAR)
    transposed = code.T.tocsr()
    for start in range(0, d_sae, 512):
        together = torch.from_numpy((transposed[start : start + 512] @ code).toarray()).double()
        block = torch.arange(start, start + len(together))
        phi = (n * together - fires[block, None] * fires) / (spread[block, None] * spread).clamp_min(1e-30)
        phi[(together < _MIN_TOGETHER) | (torch.arange(d_sae) == block[:, None])] = -torch.inf
        best = phi.topk(min(N_NEAR, d_sae))
        there = best.values > 0
        near[block, : best.values.shape[1]] = torch.where(there, best.indices, -1)
        score[block, : best.values.shape[1]] = torch.where(there, best.values, 0).float()
    return near.int(), score


def _similar(sae: AnySAE) -> dict[str, Tensor]:
    rows = F.normalize(sae.W_dec.detach().float().cpu(), dim=1)
    near, cosine = torch.full((len(rows), N_NEAR), -1), torch.zeros(len(rows), N_NEAR)
    for start in range(0, len(rows), 512):
        block = torch.arange(start, min(start + 512, len(rows)))
        cosines = (rows[block] @ rows.T).masked_fill(torch.arange(len(rows)) == block[:, None], -torch.inf)
        best = cosines.topk(min(N_NEAR, len(rows) - 1))
        near[block, : best.values.shape[1]], cosine[block, : best.values.shape[1]] = best.indices, best.values
    return {"similar": near.int(), "similar_cosine": cosine}


def _logits(model: TransformerBridge, sae: AnySAE, progress: bool) -> dict[str, Tensor]:
    rows = F.normalize(sae.W_dec.detach().to(model.cfg.device, torch.float32), dim=1)
    up, down = [], []
    for block in tqdm(rows.split(256), desc="logits of the decoder", disable=not progress, delay=2):
        logits = decoder_effect(model, block)
        up.append([x.cpu() for x in logits.topk(N_LOGITS)])
        down.append([x.cpu() for x in logits.topk(N_LOGITS, largest=False)])
    return {f"{side}_{what}": torch.cat([pair[i] for pair in best]).to(dtype) for side, best in (("up", up), ("down", down))
            for what, i, dtype in (("tokens", 1, torch.int32), ("logits", 0, torch.float32))}


def decoder_effect(model: TransformerBridge, directions: Float[Tensor, "n d_model"]) -> Float[Tensor, "n d_vocab"]:
    """What directions in the residual stream add to the logits, up to the final norm's division and everything in between.

    The final norm multiplies by its weight (and, in a LayerNorm, first takes off the mean): both are linear and are kept. It also
    divides by a length that depends on the whole activation: that is left out. Each row is centred, since a constant
    added to all logits changes no probability.
    """
    x = directions.float()
    if model.cfg.normalization_type in ("LN", "LNPre"):
        x = x - x.mean(1, keepdim=True)
    logits = (x * model.ln_final.weight.float()) @ model.unembed.W_U.float()
    return logits - logits.mean(1, keepdim=True)
