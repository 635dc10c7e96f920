"""Examples on which a label is tested one by one, as text: for judges that read, encoders, language models and people.

Half of them hold a firing. *Detection* shows the text up to the place and asks whether the latent fires there; *fuzzing* shows texts
that all hold a firing, with one token marked, and asks whether the mark is where the latent fires.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from utils.reading.labels.places import Places
from utils.reading.labels.scoring import NEAR, RANDOM, near_silence

BEFORE = 16


@dataclass(frozen=True)
class Examples:
    """Places of one latent to test a label on, in random order.

    Attributes:
        where: (context, position) of the token that is asked about, in `Places.tokens`.
        fires: whether the latent fires there.
    """

    where: Int[Tensor, "n 2"]
    fires: Bool[Tensor, " n"]


def detection_examples(places: Places, latent: int, neighbours: Int[np.ndarray, "d_sae m"], *, negatives: str = RANDOM, n: int = 20, seed: int = 0) -> Examples:
    """n places, half of them firings; the others are silent places at random, or near ones (see `scoring`).

    Raises: ValueError when the latent has fewer places of a kind than that.
    """
    rng = np.random.default_rng([seed, latent])
    firing = places.of(latent).flatten() & places.usual.flatten()
    if negatives == NEAR:
        silent = torch.from_numpy(near_silence(places, neighbours, slice(latent, latent + 1)).indices.astype(np.int64))
    elif negatives == RANDOM:
        silent = (~firing & places.usual.flatten()).nonzero()[:, 0]
    else:
        raise ValueError(f"negatives are {RANDOM!r} or {NEAR!r}, not {negatives!r}.")
    return _drawn(places, [firing.nonzero()[:, 0], silent], n, rng)


def fuzzing_examples(places: Places, latent: int, *, n: int = 20, seed: int = 0) -> Examples:
    """n places in contexts in which the latent fires, half of them where it does; the others up to ten tokens away, where it does not.

    Every text has one mark, right or wrong: a text with several marks could be told by their number.
    """
    rng = np.random.default_rng([seed, latent, 1])
    firing = places.of(latent) & places.usual
    around = torch.nn.functional.max_pool1d(firing.float()[:, None], 21, 1, 10)[:, 0] > 0
    silent = (around & ~firing & places.usual).flatten().nonzero()[:, 0]
    return _drawn(places, [firing.flatten().nonzero()[:, 0], silent], n, rng)


def _drawn(places: Places, kinds: list[Int[Tensor, " m"]], n: int, rng: np.random.Generator) -> Examples:
    if min(map(len, kinds)) < n // 2:
        raise ValueError(f"{n // 2} examples of each kind are needed; there are {len(kinds[0])} and {len(kinds[1])}.")
    chosen = torch.cat([kind[rng.choice(len(kind), n // 2, replace=False)] for kind in kinds])
    order = torch.from_numpy(rng.permutation(len(chosen)))
    pos = places.tokens.shape[1]
    return Examples(torch.stack([chosen // pos, chosen % pos], 1)[order], order < n // 2)


def as_texts(model: TransformerBridge, tokens: Int[Tensor, "n pos"], where: Int[Tensor, "m 2"], *, mark: bool, before: int = BEFORE, after: int = 0) -> list[str]:
    """The text around each place; with `mark` the token itself stands in double brackets."""
    texts = []
    for context, position in where.tolist():
        row = tokens[context].tolist()
        parts = (row[max(1, position - before) : position], [row[position]], row[position + 1 : position + 1 + after])
        left, here, right = (model.tokenizer.decode(part) for part in parts)
        texts.append(" ".join((f"{left}[[{here}]]{right}" if mark else left + here + right).split()) or "(blank)")
    return texts


def encoder_scores(labels: list[str], texts: list[list[str]]) -> list[Float[Tensor, " n"]]:
    """The cosine of each label with each of its texts, by the sentence encoder."""
    from utils.sentences import sentence_vectors

    flat = [text for each in texts for text in each]
    said, read = sentence_vectors(labels), sentence_vectors(flat)
    return [vectors @ label for label, vectors in zip(said, read.split([len(each) for each in texts]))]
