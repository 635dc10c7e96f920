"""The suite: SAEs of four more layers of smollm2-135m, beside the course's first one (`utils.sae.course_sae`)."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from utils.data.fetch import sha256_of
from utils.hooks import resid_post
from utils.paths import ROOT
from utils.sae.model import CONFIG, SAE, WEIGHTS, SAEConfig, SAEError, load_sae

FOLDER = ROOT / "utils" / "weights" / "suite"
MODEL = "smollm2-135m"
D_SAE, K = 3072, 32
SHA256 = {
    4: "ad34c3a1f61525225e99142f33ae9a24cbb93481a966176b0c5b3667168e3ebf",
    9: "ee67f783dc6ecc60c53376b67aff889cff77b0b3d51f2a2b4a8c11ec214896e8",
    20: "ed4fcebf0bc5271420f6c3f1112d8b21d3c7f53d7746875418a98bd3d1506479",
    26: "3b5f61aae07eb89b37bed2b4c8ecfec5dd3436498ad7d067414e599304f7b17c",
}
"""Of the weights that ship, by layer."""
SUITE_LAYERS = tuple(SHA256)


def suite_folder(layer: int) -> Path:
    """Where one layer's SAE and its card lie. Raises ValueError for a layer that the suite does not have."""
    if layer not in SHA256:
        raise ValueError(f"the suite has the layers {', '.join(map(str, SUITE_LAYERS))}, not {layer}.")
    return FOLDER / f"layer_{layer:02d}"


def load_suite_sae(layer: int, device: str | torch.device = "cpu") -> SAE:
    """An SAE of the suite: TopK, 3,072 latents, 32 at a time, on the residual stream after block `layer` of smollm2-135m.

    Raises: ValueError for another layer; SAEError when its file is missing or is not the one that shipped.
    """
    folder = suite_folder(layer)
    advice = f"`git checkout {folder.relative_to(ROOT).as_posix()}` brings it back."
    if not (folder / WEIGHTS).exists() or sha256_of(folder / WEIGHTS) != SHA256[layer]:
        raise SAEError(f"{WEIGHTS} in {folder} is missing or was changed. {advice}")
    sae = load_sae(folder, device)
    if sae.cfg != SAEConfig(576, D_SAE, K, MODEL, resid_post(layer)):
        raise SAEError(f"{CONFIG} in {folder} was changed. {advice}")
    return sae


def suite_card(layer: int) -> dict:
    """What was measured of one layer's SAE; estimates are [value, low, high]."""
    return json.loads((suite_folder(layer) / "card.json").read_text("utf-8"))
