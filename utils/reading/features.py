"""What every latent of an SAE does on a corpus: gathered in one pass, kept as one file.

`collect_features` streams a corpus through the model and keeps, for every latent at once, how often it fires, how
strongly, its strongest examples, examples from every part of its range, places where it is silent, the tokens that it
promotes, and its neighbours. Of the corpus itself only the tokens and what fires at them are kept, 130 bytes a token at
k = 32; memory grows with nothing else. `course_features` does so for the course SAE.
A latent fires at a token when its value there is above 0.
"""

from __future__ import annotations

import hashlib
import json
import struct
from dataclasses import dataclass, field, fields
from pathlib import Path

import numpy as np
import safetensors.torch
from jaxtyping import Float, Int
from safetensors import SafetensorError
from torch import Tensor

from utils.paths import atomic_write

CODE_VERSION = 2
"""Part of every cache key: raise it when a change here changes what is stored."""
N_BINS, N_TOP, N_QUANTILES, PER_QUANTILE, N_SILENT, N_NEAR, N_LOGITS = 64, 20, 5, 12, 40, 8, 12


class FeatureError(RuntimeError):
    """A latent, a search or a file of feature statistics that cannot be used. The message says why, and what to do."""


@dataclass(frozen=True)
class FeatureStats:
    """What every latent does on a corpus. Places are (context, position) pairs into `tokens`; (-1, -1) means none.

    Attributes:
        tokens: the corpus; column 0 is BOS.
        firing_rate: share of the usual tokens (see `utils.sae.model.usual_tokens`) at which the latent fires.
        max_value: the largest value; 0 for a latent that never fired.
        histogram, bin_edges: how many firings have a value in each bin. The bins are even and begin at 0.
        top_where, top_value: the strongest examples, descending, at most one per context.
        quantile_where, quantile_value: examples drawn at random from each fifth of the firings; the weakest fifth comes first.
        silent_where: random usual tokens at which the latent does not fire.
        cofiring, cofiring_score: the latents that fire at the same tokens, by the phi coefficient (the correlation of firing
            with firing) over pairs that met at 3 tokens or more; -1 and 0 where there are fewer such latents.
        similar, similar_cosine: the latents with the nearest decoder rows.
        up_tokens, up_logits, down_tokens, down_logits: the tokens whose logits the decoder row raises and lowers the most:
            the unit row times the final norm's weight, through the unembedding, minus the mean over the vocabulary.
        code_latent, code_value: what fires at every token of the corpus, strongest first; a value of 0 means nothing more.
        model_name, hook_name: where the latents were read.
        sae_sha256: of the SAE's weights, see `sae_digest`.
        corpus: a name for `tokens`.
        n_tokens: the usual tokens that were seen.
        seconds: what the pass took.
    """

    tokens: Int[Tensor, "n_contexts pos"]
    firing_rate: Float[Tensor, " d_sae"]
    max_value: Float[Tensor, " d_sae"]
    histogram: Int[Tensor, "d_sae n_bins"]
    bin_edges: Float[Tensor, "d_sae n_edges"]
    top_where: Int[Tensor, "d_sae n_top 2"]
    top_value: Float[Tensor, "d_sae n_top"]
    quantile_where: Int[Tensor, "d_sae n_quantiles per_quantile 2"]
    quantile_value: Float[Tensor, "d_sae n_quantiles per_quantile"]
    silent_where: Int[Tensor, "d_sae n_silent 2"]
    cofiring: Int[Tensor, "d_sae n_near"]
    cofiring_score: Float[Tensor, "d_sae n_near"]
    similar: Int[Tensor, "d_sae n_near"]
    similar_cosine: Float[Tensor, "d_sae n_near"]
    up_tokens: Int[Tensor, "d_sae n_logits"]
    up_logits: Float[Tensor, "d_sae n_logits"]
    down_tokens: Int[Tensor, "d_sae n_logits"]
    down_logits: Float[Tensor, "d_sae n_logits"]
    code_latent: Int[Tensor, "n_contexts pos k"]
    code_value: Float[Tensor, "n_contexts pos k"]
    model_name: str = ""
    hook_name: str = ""
    sae_sha256: str = ""
    corpus: str = ""
    n_tokens: int = 0
    seconds: float = field(default=0.0, compare=False)

    @property
    def d_sae(self) -> int:
        return len(self.firing_rate)

    def check(self, latent: int, *, alive: bool = False) -> int:
        """The latent's number, if there is such a latent.

        Args:
            alive: also refuse one that never fired on this corpus.

        Raises: FeatureError.
        """
        if isinstance(latent, bool) or not isinstance(latent, (int, np.integer)) or not 0 <= latent < self.d_sae:
            raise FeatureError(f"there is no latent {latent!r}: this SAE's latents are 0 to {self.d_sae - 1:,}.")
        if alive and self.firing_rate[latent] == 0:
            raise FeatureError(f"latent {latent} never fired on the {self.n_tokens:,} tokens of {self.corpus or 'this corpus'}: there is nothing to read. Choose another one.")
        return int(latent)

    def values(self, latent: int, context: int) -> Float[Tensor, " pos"]:
        """The latent's value at every token of one context of the corpus. Raises FeatureError for an unknown latent, IndexError for an unknown context."""
        return (self.code_value[context].float() * (self.code_latent[context] == self.check(latent))).sum(-1)

    def save(self, path: Path) -> None:
        """Write everything to one safetensors file, whole or not at all. Raises OSError."""
        tensors = {key: value.contiguous() for key, value in vars(self).items() if isinstance(value, Tensor)}
        facts = {key: value for key, value in vars(self).items() if not isinstance(value, Tensor)}
        digest = _checksum(tensors)
        atomic_write(path, safetensors.torch.save(tensors, metadata={"features": json.dumps({**facts, "version": CODE_VERSION, "checksum": digest})}))

    @classmethod
    def load(cls, path: Path) -> FeatureStats:
        """Read what `save` wrote.

        Raises: FeatureError when the file is missing, damaged, of another version or something else altogether.
        """
        path = Path(path)
        again = "Delete it and collect the features again."
        try:
            content = path.read_bytes()
            tensors = safetensors.torch.load(content)
            (header,) = struct.unpack("<Q", content[:8])
            facts = json.loads(json.loads(content[8 : 8 + header])["__metadata__"]["features"])
            version, checksum = facts.pop("version"), facts.pop("checksum")
        except FileNotFoundError as error:
            raise FeatureError(f"{path} is not there. Collect the features first.") from error
        except (OSError, ValueError, KeyError, TypeError, struct.error, SafetensorError) as error:
            raise FeatureError(f"{path} holds no feature statistics that can be read ({type(error).__name__}: {error}). {again}") from error
        if version != CODE_VERSION:
            raise FeatureError(f"{path} was written by another version of the course. {again}")
        if {*tensors, *facts} != {f.name for f in fields(cls)} or checksum != _checksum(tensors):
            raise FeatureError(f"{path} is damaged: its content is not what was written. {again}")
        return cls(**tensors, **facts)


def _checksum(tensors: dict[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for key in sorted(tensors):
        digest.update(f"{key} {list(tensors[key].shape)} {tensors[key].dtype}".encode() + tensors[key].contiguous().numpy().tobytes())
    return digest.hexdigest()
