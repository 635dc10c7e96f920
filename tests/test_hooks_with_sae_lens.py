"""utils.hooks on sae_lens' own bridge, with an SAE attached or detached."""

import pytest
import torch

from utils.hooks import HookNameError, attn_out, check_hook_names, intervene, is_edited, mlp_out, resid_post, resid_pre, run_with_cache
from utils.models import tiny_model

TOKENS = torch.tensor([[0, 7, 11, 13, 43], [0, 23, 19, 8, 26]])


def double(activation, hook):
    return 2 * activation


@pytest.fixture
def bridge():
    """A tiny Llama on sae_lens' own bridge."""
    from sae_lens.analysis.sae_transformer_bridge import SAETransformerBridge
    from transformers import LlamaForCausalLM

    tiny = tiny_model()
    llama = LlamaForCausalLM(tiny.original_model.config)
    return SAETransformerBridge.boot_transformers(
        "tiny-llama", hf_model=llama, tokenizer=tiny.tokenizer, device="cpu"
    )


def sae_at(name: str):
    from sae_lens import StandardSAE, StandardSAEConfig

    sae = StandardSAE(StandardSAEConfig(d_in=24, d_sae=37, device="cpu"))
    sae.cfg.metadata.hook_name = name
    return sae


def test_aliases_on_the_sae_bridge(bridge):
    alias = "blocks.1.hook_resid_post"
    assert not bridge.run_with_cache(TOKENS, names_filter=alias)[1], "the library is silent"
    edited = bridge.run_with_hooks(TOKENS, fwd_hooks=[(alias, double)])
    assert torch.equal(edited, bridge(TOKENS)), "the library is silent"
    with pytest.raises(HookNameError, match=r"write 'blocks\.1\.hook_out'"):
        run_with_cache(bridge, TOKENS, alias)


def test_canonical_names_on_the_sae_bridge(bridge):
    for name in (resid_pre(1), attn_out(1), mlp_out(1), resid_post(1)):
        assert run_with_cache(bridge, TOKENS, name)[name].shape == (2, 5, 24)
        with intervene(bridge, {name: double}) as done:
            bridge(TOKENS)
        assert done[name].changed


@pytest.mark.parametrize("name", [resid_post(1), mlp_out(1)])
def test_hooks_after_an_sae_was_detached(bridge, name):
    with bridge.saes([sae_at(name)]):
        bridge(TOKENS)
    edited = bridge.run_with_hooks(TOKENS, fwd_hooks=[(name, lambda activation, hook: activation + 1)])
    assert torch.equal(edited, bridge(TOKENS)), "the library is silent: the hook point lost its name"

    seen = []

    def shifted(activation, hook):
        seen.append(hook.name)
        return activation + 1

    with intervene(bridge, {name: shifted}):
        ours = bridge(TOKENS)
    assert seen == [name] and not torch.equal(ours, bridge(TOKENS))
    assert list(run_with_cache(bridge, TOKENS, name)) == [name]
    # The repair lasts, for the library's own functions as well.
    edited = bridge.run_with_hooks(TOKENS, fwd_hooks=[(name, lambda activation, hook: activation + 1)])
    assert torch.equal(edited, ours)


def test_hooks_while_an_sae_is_attached(bridge):
    name = resid_post(1)
    with bridge.saes([sae_at(name)]):
        assert is_edited(bridge)
        assert not bridge.run_with_cache(TOKENS, names_filter=name)[1], "the library is silent"
        with pytest.raises(HookNameError, match=r"an SAE is attached.*blocks\.1\.hook_out\.hook_sae_input"):
            run_with_cache(bridge, TOKENS, name)
        inside = f"{name}.hook_sae_acts_post"
        assert run_with_cache(bridge, TOKENS, inside)[inside].shape == (2, 5, 37)
        with intervene(bridge, {inside: lambda activation, hook: activation + 1}):
            bridge(TOKENS)
    assert not is_edited(bridge)


def test_nothing_else_is_renamed(bridge):
    with bridge.saes([sae_at(resid_post(1))]):
        pass
    check_hook_names(bridge, resid_post(0))
    assert all(point.name == name for name, point in bridge._hook_registry.items())
