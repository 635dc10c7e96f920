"""Names of hook points: what they mean, and what is refused."""

import pytest
import torch
from transformer_lens.model_bridge import TransformerBridge

from utils.hooks import HookNameError, attn_out, check_hook_names, intervene, mlp_out, resid_post, resid_pre, run_with_cache
from utils.models import tiny_model

TOKENS = torch.tensor([[0, 7, 11, 13, 43], [0, 23, 19, 8, 26]])


@pytest.fixture
def model() -> TransformerBridge:
    return tiny_model()


def double(activation, hook):
    return 2 * activation


def test_the_names_mean_what_they_say(model):
    hidden = model.original_model(TOKENS, output_hidden_states=True).hidden_states
    names = [f(layer) for f in (resid_pre, attn_out, mlp_out, resid_post) for layer in range(3)]
    cache = run_with_cache(model, TOKENS, names)
    assert list(cache) == names
    for layer in range(3):
        torch.testing.assert_close(cache[resid_pre(layer)], hidden[layer])
        parts = cache[resid_pre(layer)] + cache[attn_out(layer)] + cache[mlp_out(layer)]
        torch.testing.assert_close(cache[resid_post(layer)], parts)
    for layer in range(2):  # after the last block Hugging Face's is normalised
        torch.testing.assert_close(cache[resid_post(layer)], hidden[layer + 1])


@pytest.mark.parametrize("name_of", [resid_pre, resid_post, attn_out, mlp_out])
def test_a_negative_layer_is_refused(name_of):
    with pytest.raises(HookNameError, match="n_layers - 1"):
        name_of(-1)


def test_misspelt_name(model):
    wrong = "blocks.1.hook_ouy"
    assert not model.run_with_cache(TOKENS, names_filter=wrong)[1], "the library is silent"
    edited = model.run_with_hooks(TOKENS, fwd_hooks=[(wrong, double)])
    assert torch.equal(edited, model(TOKENS)), "the library is silent"
    with pytest.raises(HookNameError, match=r"Nearest: blocks\.1\.hook_out"):
        run_with_cache(model, TOKENS, [resid_post(0), wrong])
    with pytest.raises(HookNameError, match=r"Nearest: blocks\.1\.hook_out"):
        with intervene(model, {wrong: double}):
            pytest.fail("the block must not run")


def test_layer_that_is_not_there(model):
    assert not model.run_with_cache(TOKENS, names_filter=resid_post(3))[1], "the library is silent"
    with pytest.raises(HookNameError, match="layers are 0 to 2"):
        check_hook_names(model, resid_post(3))


def test_alias_is_refused_with_its_canonical_name(model):
    with pytest.raises(HookNameError, match=r"write 'blocks\.1\.hook_out'"):
        check_hook_names(model, "blocks.1.hook_resid_post")
    with pytest.raises(HookNameError, match=r"write 'embed\.hook_out'"):
        check_hook_names(model, "hook_embed")


@pytest.mark.parametrize(
    "names, message",
    [
        ([], "no hook name"),
        ("blocks.0.attn.hook_result", r"set_use_attn_result\(True\)"),
        ("xylophone", "hook_dict"),
    ],
)
def test_other_names_that_are_refused(model, names, message):
    with pytest.raises(HookNameError, match=message):
        check_hook_names(model, names)


def test_hook_point_that_nothing_passes_through(model):
    name = "rotary_emb.hook_out"
    assert name in model.hook_dict
    assert not model.run_with_cache(TOKENS, names_filter=name)[1], "the library is silent"
    with pytest.raises(HookNameError, match="nothing passed through rotary_emb.hook_out"):
        run_with_cache(model, TOKENS, [resid_pre(0), name])
