"""The suite says which layers it has, and refuses what it did not ship."""

import pytest

from utils.sae.model import WEIGHTS, SAEError
from utils.sae.suite import SHA256, SUITE_LAYERS, load_suite_sae, suite_folder


def test_a_layer_that_is_not_there():
    with pytest.raises(ValueError, match="4, 9, 20, 26"):
        load_suite_sae(14)


@pytest.mark.parametrize("layer", SUITE_LAYERS)
def test_only_what_shipped_is_loaded(layer):
    if not (suite_folder(layer) / WEIGHTS).exists() or not SHA256[layer]:
        with pytest.raises(SAEError, match="missing or was changed"):
            load_suite_sae(layer)
        pytest.skip("this layer has not been trained yet: python -m utils.pipeline.suite")
    sae = load_suite_sae(layer)
    assert sae.cfg.d_sae == 3072 and sae.cfg.hook_name == f"blocks.{layer}.hook_out"
