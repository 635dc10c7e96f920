"""The feature browser as one HTML file: no server, no network, nothing beside it."""

from __future__ import annotations

import gzip
import html
import json
import re
from base64 import b64encode
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from transformer_lens.model_bridge import TransformerBridge

from utils.paths import atomic_write
from utils.reading.features import FeatureError, FeatureStats
from utils.reading.labels.label import Scored
from utils.reading.page import AFTER, BEFORE, STRONGEST, Reader, asset, map_svg

def export_html(
    model: TransformerBridge,
    sae: torch.nn.Module,
    stats: FeatureStats,
    path: Path,
    *,
    latents: Sequence[int] | None = None,
    labels: Mapping[int, Scored] | None = None,
    max_mb: float = 10.0,
) -> Path:
    """Write the browser of all latents, or of some, as one HTML file that opens from disk: pages, map, search by number, by token and by label.

    The text of the examples goes into the file: pass on only a file whose corpus may be passed on.

    Args:
        latents: their numbers; None takes all.
        labels: by latent, as the browser takes them.
        max_mb: in millions of bytes. A larger file is not written.

    Raises: FeatureError for an unknown latent, none at all, or a file that would be too large; OSError.
    """
    chosen = list(range(stats.d_sae)) if latents is None else sorted({stats.check(latent) for latent in latents})
    if not chosen:
        raise FeatureError("no latents to export: name at least one, or leave latents= out to take all.")
    reader = Reader(model, sae, stats, labels)
    facts, arrays = _pack(reader, chosen)
    names = [reader.name(latent) for latent in chosen]
    picture = map_svg(reader.map[chosen], chosen, names, stats.firing_rate.numpy()[chosen], "")
    title = f"{len(chosen):,} latents of {stats.model_name}, {stats.hook_name}"
    parts = {"TITLE": html.escape(title), "CSS": asset("feature_browser.css"), "MAP": picture, "HANDLER": asset("feature_map.js"), "SCRIPT": asset("feature_export.js"),
             "FACTS": json.dumps(facts, ensure_ascii=False).replace("<", "\\u003c"), "DATA": _compressed(arrays)}
    content = re.sub(r"\[\[([A-Z]+)\]\]", lambda found: parts[found[1]], asset("feature_export.html")).encode("utf-8")
    if len(content) > max_mb * 1e6:
        raise FeatureError(f"the file would have {len(content) / 1e6:.1f} MB, more than max_mb = {max_mb:g}. Export fewer latents with latents=, in several files, or raise max_mb.")
    atomic_write(path, content)
    return Path(path)


def _pack(reader: Reader, chosen: list[int]) -> tuple[dict, dict[str, np.ndarray]]:
    """(what the script reads as JSON, what it reads as typed arrays).

    Texts are stored as numbers of their tokens, once; an example is a place in them and the values around it, in 255 steps of the latent's largest.
    """
    stats = reader.stats
    groups = [reader.shown(latent) for latent in chosen]
    titles = list(dict.fromkeys([STRONGEST, *(title for group in groups for title, _ in group)]))  # the script searches the first
    used = np.unique(np.concatenate([where[:, 0] for group in groups for _, where in group] or [np.zeros(0, int)]))
    text = reader.tokens[used]
    near = {which: getattr(stats, which)[chosen].numpy() for which in ("cofiring", "similar", "cofiring_score", "similar_cosine")}
    sides = {f"{side}_{what}": getattr(stats, f"{side}_{what}")[chosen, :8].numpy() for side in ("up", "down") for what in ("tokens", "logits")}
    vocabulary, recoded = np.unique(np.concatenate([text.ravel(), sides["up_tokens"].ravel(), sides["down_tokens"].ravel()]), return_inverse=True)
    cuts = np.cumsum([text.size, sides["up_tokens"].size])
    text_ids, up, down = np.split(recoded, cuts)

    example_start, examples, fire_start, fires = [0], [], [0], [np.zeros((0, 2), int)]
    for latent, group in zip(chosen, groups):
        scale = 255 / max(float(stats.max_value[latent]), 1e-30)
        for title, where in group:
            for (context, position), values in zip(where.tolist(), reader.values(latent, where[:, 0])):
                examples.append((titles.index(title), int(np.searchsorted(used, context)), position))
                steps = np.minimum(255, np.ceil(values * scale)).astype(int)
                at = np.flatnonzero(steps)
                fires.append(np.stack([at, steps[at]], 1))
                fire_start.append(fire_start[-1] + len(at))
        example_start.append(len(examples))
    index = np.uint16 if max(len(vocabulary), len(used), stats.d_sae) < 2**16 else np.uint32
    histogram = stats.histogram[chosen].numpy().astype(np.uint32)
    arrays = {
        "latents": np.array(chosen, index), "rate": stats.firing_rate.numpy()[chosen].astype(np.float32), "largest": stats.max_value.numpy()[chosen].astype(np.float32),
        "text": text_ids.astype(index), "histogram": histogram, "bin_width": stats.bin_edges[chosen, 1].numpy().astype(np.float32),
        "example_start": np.array(example_start, np.uint32), "examples": np.array(examples, index).reshape(-1, 3),
        "fire_start": np.array(fire_start, np.uint32), "fires": np.concatenate(fires).astype(np.uint16 if stats.tokens.shape[1] > 255 else np.uint8),
        "up": up.astype(index), "up_logits": sides["up_logits"].astype(np.float32).round(2), "down": down.astype(index), "down_logits": sides["down_logits"].astype(np.float32).round(2),
        # One more than the number of the latent; 0 for none.
        "cofiring": (near["cofiring"] + 1).astype(index), "cofiring_score": (near["cofiring_score"] * 100).round().astype(np.int8),
        "similar": (near["similar"] + 1).astype(index), "similar_score": (near["similar_cosine"] * 100).round().astype(np.int8),
    }
    names = [reader.names[latent] for latent in chosen]
    facts = {"model": stats.model_name, "hook": stats.hook_name, "corpus": stats.corpus, "tokens": stats.n_tokens, "pos": stats.tokens.shape[1], "n_near": near["cofiring"].shape[1],
             "n_logits": sides["up_tokens"].shape[1], "titles": titles, "vocabulary": [reader.pieces[i] if i < len(reader.pieces) else "" for i in vocabulary.tolist()],
             "names": [[token, times, n] for token, times, n in names], "n_bins": histogram.shape[1], "before": BEFORE, "after": AFTER,
             "labels": [[label.rule, label.in_words, label.score, int(label.weak), label.near or 0] if label else 0 for label in map(reader.labels.get, chosen)]}
    return facts, arrays


def _compressed(arrays: dict[str, np.ndarray]) -> str:
    """A JSON index and all arrays one after another, each at a multiple of 4 bytes; gzip, base64."""
    index, parts, offset = {}, [], 0
    for name, array in arrays.items():
        data = np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<")).tobytes()
        index[name] = [array.dtype.name, offset, array.size]
        data += bytes(-len(data) % 4)
        parts.append(data)
        offset += len(data)
    head = json.dumps(index).encode()
    head += b" " * (-len(head) % 4)
    return b64encode(gzip.compress(len(head).to_bytes(4, "little") + head + b"".join(parts), 9, mtime=0)).decode()
