"""A TopK sparse autoencoder (Gao et al. 2024): the module, its files, and how it takes a model's place at one hook point.

Chapters 22 and 25 build every architecture by hand. This is the one that the course trains and that later chapters read and
steer with. Files are in sae_lens' format: `sae_lens.SAE.load_from_disk(folder)` reads what `save` wrote, and `load_sae`
reads what sae_lens saved.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path, PurePath
from typing import Any, Protocol

import safetensors.torch
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from safetensors import SafetensorError
from torch import Tensor, nn
from transformer_lens.loading_from_pretrained import get_official_model_name
from transformer_lens.model_bridge import TransformerBridge

from utils.hooks import attn_out, check_hook_names, intervene, mlp_out, resid_post, resid_pre
from utils.paths import atomic_folder
from utils.sae.sparse import sparse_decode, sparse_encode

WEIGHTS, CONFIG = "sae_weights.safetensors", "cfg.json"


class SAEError(RuntimeError):
    """An SAE cannot be loaded, or does not fit the model. The message says why, and what to do."""

    def _render_traceback_(self) -> list[str]:
        """In a notebook the message stands alone: nothing in the learner's code is wrong."""
        return [f"SAEError: {self}"]


@dataclass(frozen=True)
class SAEConfig:
    """What an SAE is, and where it belongs.

    Attributes:
        d_in: the width of the activations.
        d_sae: the number of latents.
        k: how many latents may fire on a token.
        model_name: the model whose activations it was trained on, as `load_model` knows it; "" for none.
        hook_name: the hook point; "" for none.

    Raises: ValueError for sizes that are no whole numbers or below 1, or k > d_sae.
    """

    d_in: int
    d_sae: int
    k: int
    model_name: str = ""
    hook_name: str = ""

    def __post_init__(self) -> None:
        for name in ("d_in", "d_sae", "k"):
            if isinstance(getattr(self, name), bool) or not isinstance(getattr(self, name), int):
                raise ValueError(f"{name} must be a whole number, not {getattr(self, name)!r}.")
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}.")
        if self.k > self.d_sae:
            raise ValueError(f"k = {self.k} latents cannot fire: there are only d_sae = {self.d_sae}.")


class SAE(nn.Module):
    """x -> the k largest of ReLU((x - b_dec) W_enc + b_enc) -> f W_dec + b_dec.

    `train_sae` returns decoder rows of unit norm, so that a latent's value is a length in the activation's own units.
    """

    def __init__(self, cfg: SAEConfig, seed: int = 0) -> None:
        """The encoder starts as the decoder's transpose (Gao et al. 2024), the decoder as random unit rows."""
        super().__init__()
        self.cfg = cfg
        rows = torch.randn(cfg.d_sae, cfg.d_in, generator=torch.Generator().manual_seed(seed))
        self.W_dec = nn.Parameter(F.normalize(rows, dim=1))
        # Kept as one row per latent: the sparse gradient of a latent is then one contiguous row.
        self.encoder_rows = nn.Parameter(self.W_dec.detach().clone())
        self.b_enc = nn.Parameter(torch.zeros(cfg.d_sae))
        self.b_dec = nn.Parameter(torch.zeros(cfg.d_in))

    @classmethod
    def of(cls, cfg: SAEConfig, weights: dict[str, Tensor]) -> SAE:
        """A frozen SAE with these "W_enc" [d_in, d_sae], "b_enc" [d_sae], "W_dec" [d_sae, d_in] and "b_dec" [d_in]."""
        sae = cls(cfg)
        rows = {"encoder_rows": weights["W_enc"].T.contiguous()}
        sae.load_state_dict(rows | {name: weights[name] for name in ("b_enc", "W_dec", "b_dec")})
        return sae.requires_grad_(False)

    @property
    def W_enc(self) -> Float[Tensor, "d_in d_sae"]:
        return self.encoder_rows.T

    def pre_activations(self, x: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_sae"]:
        return F.linear(x - self.b_dec, self.encoder_rows, self.b_enc)

    def encode_sparse(self, x: Float[Tensor, "n d_in"]) -> tuple[Float[Tensor, "n k"], Int[Tensor, "n k"]]:
        """(values, indices) of the k latents of each token; the values are never negative and may be zero."""
        values, indices = self.pre_activations(x).topk(self.cfg.k, dim=-1, sorted=False)
        return values.relu(), indices

    def encode(self, x: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_sae"]:
        """The latents, zeros written out. Raises ValueError when x has another width."""
        self._check(x)
        values, indices = self.encode_sparse(x)
        return torch.zeros(*x.shape[:-1], self.cfg.d_sae, dtype=values.dtype, device=x.device).scatter(-1, indices, values)

    def decode(self, latents: Float[Tensor, "*batch d_sae"]) -> Float[Tensor, "*batch d_in"]:
        return latents @ self.W_dec + self.b_dec

    def forward(self, x: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_in"]:
        """The reconstruction of x. Raises ValueError when x has another width."""
        self._check(x)
        values, indices = self.encode_sparse(x.reshape(-1, self.cfg.d_in))
        return (sparse_decode(values, indices, self.W_dec) + self.b_dec).view(x.shape)

    def _check(self, x: Tensor) -> None:
        if x.shape[-1] != self.cfg.d_in:
            raise ValueError(f"this SAE reads activations of width {self.cfg.d_in}; got {list(x.shape)}.")

    @torch.no_grad()
    def fold_decoder_norm_(self) -> None:
        """Give every decoder row unit norm, in place: its length goes to the latent's value.

        The reconstruction stays the same if the k latents were chosen by value times length.
        """
        norm = self.W_dec.norm(dim=1).clamp(min=1e-8)
        self.W_dec.div_(norm[:, None])
        self.encoder_rows.mul_(norm[:, None])
        self.b_enc.mul_(norm)

    @torch.no_grad()
    def rescale_(self, mean: Float[Tensor, " d_in"], scale: float) -> None:
        """Turn an SAE of (x - mean) / scale into the same SAE of x itself, in place.

        Only the biases change: the latents grow by `scale`, so the same k are the largest, and the directions stay.
        """
        self.b_enc.mul_(scale)
        self.b_dec.mul_(scale).add_(mean)

    def save(self, folder: Path, dtype: torch.dtype = torch.float32) -> None:
        """Write the folder in sae_lens' format, whole or not at all. A folder that is there already is refused.

        Raises: FileExistsError, OSError.
        """
        folder = Path(folder)
        if folder.exists():
            raise FileExistsError(f"{folder} exists already: choose another folder, or delete it first.")
        weights = {"W_enc": self.W_enc, "b_enc": self.b_enc, "W_dec": self.W_dec, "b_dec": self.b_dec}
        config = asdict(self.cfg)
        # Without a version sae_lens takes the file for one of before its 6.0 and drops the rest of the metadata.
        metadata = {"sae_lens_version": "6.0.0", "model_name": config.pop("model_name"), "hook_name": config.pop("hook_name")}
        config |= {
            "architecture": "topk", "dtype": "float32", "device": "cpu", "apply_b_dec_to_input": True, "normalize_activations": "none",
            "reshape_activations": "none", "rescale_acts_by_decoder_norm": False, "metadata": metadata,
        }
        with atomic_folder(folder) as temporary:
            stored = {name: weight.detach().to("cpu", dtype).contiguous() for name, weight in weights.items()}
            (temporary / WEIGHTS).write_bytes(safetensors.torch.save(stored))
            (temporary / CONFIG).write_text(json.dumps(config, indent=1), encoding="utf-8")


def load_sae(folder: Path, device: str | torch.device = "cpu") -> SAE:
    """Read a TopK SAE that `SAE.save` or sae_lens wrote, in float32 and frozen: gradients pass through it, none stays in it.

    What sae_lens leaves out of its files has sae_lens' own default. A byte order mark is skipped.

    Raises: SAEError when a file is missing or damaged, or holds an SAE of another kind.
    """
    folder = Path(folder)
    try:
        config = {"k": 100, **_DEFAULTS, **json.loads((folder / CONFIG).read_text(encoding="utf-8-sig"))}
        weights = safetensors.torch.load_file(folder / WEIGHTS)
    except FileNotFoundError as error:
        raise SAEError(f"{folder} holds no SAE: {Path(error.filename or WEIGHTS).name} is missing.") from error
    except (OSError, ValueError, TypeError, RecursionError, SafetensorError) as error:
        raise SAEError(f"the SAE in {folder} cannot be read ({error}). Fetch or train it again.") from error
    for key, wanted in {"architecture": "topk", **_DEFAULTS}.items():
        if config.get(key) != wanted:
            raise SAEError(f"the SAE in {folder} has {key} = {config.get(key)!r}; this module reads {wanted!r}. sae_lens' SAE.load_from_disk reads the others.")
    try:
        cfg = SAEConfig(config["d_in"], config["d_sae"], config["k"], *_belongs_to(config.get("metadata")))
    except (KeyError, TypeError, ValueError) as error:
        raise SAEError(f"the {CONFIG} in {folder} describes no SAE: {type(error).__name__}: {error}") from error
    shapes = {"W_enc": (cfg.d_in, cfg.d_sae), "b_enc": (cfg.d_sae,), "W_dec": (cfg.d_sae, cfg.d_in), "b_dec": (cfg.d_in,)}
    found = {name: tuple(weight.shape) for name, weight in weights.items()}
    if found != shapes:
        raise SAEError(f"the weights in {folder} do not fit its {CONFIG}: {found} instead of {shapes}.")
    for name, weight in weights.items():
        if not (weight.is_floating_point() and weight.isfinite().all()):
            raise SAEError(f"{name} in {folder} holds values that are no finite numbers: training went wrong, or the file is damaged. Fetch or train it again.")
    return SAE.of(cfg, {name: weight.float() for name, weight in weights.items()}).to(device)


_DEFAULTS = {"apply_b_dec_to_input": True, "normalize_activations": "none", "reshape_activations": "none", "rescale_acts_by_decoder_norm": False}
"""sae_lens' own, of keys that its files may leave out. This module computes in no other way."""


def _belongs_to(metadata: object) -> tuple[str, str]:
    """(model name, hook name) of a file's metadata, "" where it does not say. Raises TypeError for metadata of another form."""
    if not isinstance(metadata, (dict, type(None))):
        raise TypeError(f"its metadata is a {type(metadata).__name__}, not a table")
    found = tuple((metadata or {}).get(key) or "" for key in ("model_name", "hook_name"))
    if not all(isinstance(name, str) for name in found):
        raise TypeError(f"its metadata names {found}, which are no names")
    return found


class AnySAE(Protocol):
    """What reading and editing latents needs of an SAE: this module's, or one of sae_lens'.

    Attributes:
        cfg: says where the SAE belongs, by `model_name` and `hook_name`, its own or those of its `metadata`.
    """

    cfg: Any
    W_enc: Float[Tensor, "d_in d_sae"]
    b_enc: Float[Tensor, " d_sae"]
    W_dec: Float[Tensor, "d_sae d_in"]
    b_dec: Float[Tensor, " d_in"]

    def encode(self, x: Float[Tensor, "n d_in"]) -> Float[Tensor, "n d_sae"]: ...

    def decode(self, latents: Float[Tensor, "n d_sae"]) -> Float[Tensor, "n d_in"]: ...


def check_fits(model: TransformerBridge, sae: AnySAE, name: str | None = None) -> str:
    """The hook point at which this SAE, ours or sae_lens', belongs in this model.

    Args:
        name: a hook point, for an SAE that does not say its own.

    Raises: SAEError when it was trained on another model, at another hook point or on another width; HookNameError.
    """
    metadata = getattr(sae.cfg, "metadata", sae.cfg)
    trained_on, hook = getattr(metadata, "model_name", None), getattr(metadata, "hook_name", None)
    if trained_on and _known_as(trained_on) != _known_as(model.cfg.model_name):
        raise SAEError(f"this SAE was trained on {trained_on}; the model is {model.cfg.model_name}. Load that model, or take an SAE of this one.")
    name, hook = (_canonical(point) if point else None for point in (name, hook))
    if name and hook and name != hook:
        raise SAEError(f"this SAE was trained at {hook}, not at {name}: elsewhere its directions mean nothing.")
    name = name or hook
    if not name:
        raise SAEError("this SAE does not say at which hook point it belongs: pass name=.")
    check_hook_names(model, name)
    width = sae.W_dec.shape[1]
    if width != model.cfg.d_model:
        raise SAEError(f"this SAE reads activations of width {width}; {model.cfg.model_name} has d_model = {model.cfg.d_model}. It belongs to another model.")
    return name


_CANONICAL = {"hook_resid_pre": resid_pre, "hook_resid_post": resid_post, "hook_mlp_out": mlp_out, "hook_attn_out": attn_out}


def _canonical(name: str) -> str:
    """The hook point's name on the bridge: sae_lens' files of older models give its alias."""
    alias = re.fullmatch(r"blocks\.(\d+)\.(\w+)", name)
    return _CANONICAL[alias[2]](int(alias[1])) if alias and alias[2] in _CANONICAL else name


def _known_as(model_name: str) -> str:
    """One name for "gpt2-small", "gpt2" and "openai-community/gpt2": sae_lens and the hub do not call a model the same."""
    try:
        model_name = get_official_model_name(model_name)
    except ValueError:  # not one of TransformerLens' list
        pass
    return PurePath(model_name).name.lower()


def sae_digest(sae: AnySAE) -> str:
    """A SHA-256 of all that `encode` and `decode` depend on: every weight as float32, thresholds included, and the rule (k, the architecture)."""
    digest = hashlib.sha256(_rule_of(sae).encode())
    named = {key: getattr(sae, key) for key in ("W_enc", "b_enc", "W_dec", "b_dec")}
    others = {key: value for key, value in sae.state_dict().items() if key not in (*named, "encoder_rows")} if isinstance(sae, nn.Module) else {}
    for key, weight in [*named.items(), *sorted(others.items())]:
        digest.update(f"{key} {list(weight.shape)}".encode() + weight.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _rule_of(sae: AnySAE) -> str:
    """How the SAE computes, apart from its weights: its class and its settings, but for where it belongs and how it was stored."""
    settings = sae.cfg.to_dict() if hasattr(sae.cfg, "to_dict") else vars(sae.cfg)
    elsewhere = {"metadata", "model_name", "hook_name", "device", "dtype"}
    return f"{type(sae).__name__} {json.dumps({key: value for key, value in settings.items() if key not in elsewhere}, sort_keys=True, default=str)}"


def usual_tokens(acts: Float[Tensor, "batch pos d_model"]) -> Bool[Tensor, "batch pos"]:
    """False at the first token, and at those with a norm above 3 times the median of their row's others.

    These are the tokens that no SAE of this course is trained on (see `collect_activations`), so it leaves them alone.
    Rows are taken as full: padding would count as tokens.
    """
    usual = acts.norm(dim=-1) <= _norm_limit(acts)
    usual[:, 0] = False
    return usual


@contextmanager
def spliced(model: TransformerBridge, sae: SAE, *, name: str | None = None) -> Iterator[None]:
    """While the block runs, the model goes on with the SAE's reconstruction in place of the activation.

    The first token and the tokens of unusual norm pass unchanged (`usual_tokens`). Inside `generate`, a new token is
    unusual when it lies above the limit that its prompt set. Gradients pass through the SAE.

    Raises: SAEError (see `check_fits`), InterventionError.
    """
    limit: Float[Tensor, "batch 1"] | None = None

    def reconstruct(acts: Float[Tensor, "batch pos d_model"], hook: object) -> Float[Tensor, "batch pos d_model"]:
        nonlocal limit
        if acts.shape[1] > 1:
            usual, limit = usual_tokens(acts), _norm_limit(acts)
        elif limit is not None and len(limit) == len(acts):
            usual = acts.norm(dim=-1) <= limit
        else:  # a single token with no prompt before it is a first token
            usual = torch.zeros(acts.shape[:2], dtype=torch.bool, device=acts.device)
        return torch.where(usual[..., None], sae(acts.to(sae.b_dec)).to(acts), acts)

    with intervene(model, {check_fits(model, sae, name): reconstruct}):
        yield


def _norm_limit(acts: Float[Tensor, "batch pos d_model"]) -> Float[Tensor, "batch 1"]:
    """3 times the median norm of each row's tokens, the first one left out."""
    return 3.0 * acts.detach().norm(dim=-1)[:, 1:].median(1, keepdim=True).values
