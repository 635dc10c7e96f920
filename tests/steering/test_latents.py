"""Edits of latents, on the tiny model: the step along the decoder row, at the tokens it says."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from utils.hooks import InterventionError, is_edited, resid_post, resid_pre, run_with_cache
from utils.sae.model import SAE, SAEConfig, SAEError
from utils.steering.generating import generate, next_token_logits
from utils.steering.latents import ablate, add, clamp, edit_latents, scale
from utils.steering.reach import SteeringError
from utils.steering.steering import steer

HERE = resid_post(1)


@pytest.mark.parametrize("edit, changed", [(clamp(4.0), lambda f: 0 * f + 4), (add(2.0), lambda f: f + 2), (scale(-3.0), lambda f: -3 * f), (ablate(), lambda f: 0 * f)])
def test_an_edit_is_the_step_along_the_decoder_row(model, sae, edit, changed):
    tokens = model.to_tokens("The city of Paris is in France .")
    plain = run_with_cache(model, tokens, HERE)[HERE]
    latents = sae.encode(plain)[0]
    latent = int(latents[1:].sum(0).argmax())
    with edit_latents(model, sae, {latent: edit}):
        edited = run_with_cache(model, tokens, HERE)[HERE]
    step = (changed(latents[:, latent]) - latents[:, latent])[:, None] * sae.W_dec[latent]
    step[0] = 0
    usual = plain[0].norm(dim=-1) <= 3 * plain[0, 1:].norm(dim=-1).median()
    torch.testing.assert_close(edited[0], plain[0] + step * usual[:, None], atol=1e-4, rtol=1e-4)
    assert not is_edited(model)


def test_without_the_error_term_the_reconstruction_goes_on(model, sae):
    tokens = model.to_tokens("The city of Paris is in France .")
    plain = run_with_cache(model, tokens, HERE)[HERE]
    with edit_latents(model, sae, {4: clamp(4.0)}, error_term=False):
        edited = run_with_cache(model, tokens, HERE)[HERE]
    latents = sae.encode(plain)
    latents[..., 4] = 4.0
    torch.testing.assert_close(edited[:, 1:], sae.decode(latents)[:, 1:], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(edited[:, 0], plain[:, 0])


def test_edits_work_while_generating_and_in_batches(model, sae, one_by_one, prompts):
    with edit_latents(model, sae, {4: clamp(30.0), 9: add(1.0)}):
        together, alone = generate(model, prompts, temperature=0, max_new_tokens=9), one_by_one()
    assert together == alone != generate(model, prompts, temperature=0, max_new_tokens=9)


def test_a_latent_that_never_fires_is_named(model, sae):
    tokens = model.to_tokens("The city of Paris is in France .")
    fires = sae.encode(run_with_cache(model, tokens, HERE)[HERE])[0, 1:].amax(0)
    silent = int((fires == 0).nonzero()[0])
    for edit in (ablate(), scale(2.0)):
        with pytest.raises(SteeringError, match=f"latent {silent} never fired"):
            with edit_latents(model, sae, {silent: edit}):
                model(tokens)
    with edit_latents(model, sae, {silent: ablate()}, may_do_nothing=True):
        model(tokens)
    with pytest.raises(InterventionError, match="never ran"):
        with edit_latents(model, sae, {silent: add(1.0)}):
            pass


@pytest.mark.parametrize("edits, words", [({}, "no edits"), ({67: ablate()}, "no latent 67: this SAE has latents 0 to 66"), ({-1: ablate()}, "no latent -1"), ({"4": ablate()}, "no latent '4'")])
def test_unknown_latents_are_refused(model, sae, edits, words):
    with pytest.raises(SteeringError, match=words):
        with edit_latents(model, sae, edits):
            pass


def test_an_sae_for_another_model_or_place_is_refused(model):
    for cfg, words in [(SAEConfig(13, 20, 3), "at which hook point"), (SAEConfig(13, 20, 3, "", HERE), "width 13"), (SAEConfig(24, 20, 3, "gpt2", HERE), "trained on gpt2")]:
        with pytest.raises(SAEError, match=words):
            with edit_latents(model, SAE(cfg), {0: ablate()}):
                pass


class _Foreign:
    """What a sae_lens SAE looks like from here."""

    def __init__(self, sae, name, model_name=None):
        self.W_dec, self.encode, self.decode = sae.W_dec, sae.encode, sae.decode
        self.cfg = SimpleNamespace(metadata=SimpleNamespace(model_name=model_name, hook_name=name))


def test_a_foreign_sae_is_placed_by_its_metadata_aliases_included(model, sae, prompts):
    with edit_latents(model, sae, {4: clamp(3.0)}):
        expected = next_token_logits(model, prompts)
    with edit_latents(model, _Foreign(sae, "blocks.1.hook_resid_post"), {4: clamp(3.0)}):
        torch.testing.assert_close(next_token_logits(model, prompts), expected)
    with pytest.raises(SAEError, match="not at blocks.2"):
        with edit_latents(model, _Foreign(sae, "blocks.1.hook_resid_post"), {4: clamp(3.0)}, name=resid_post(2)):
            pass
    with pytest.raises(SAEError, match="pass name="):
        with edit_latents(model, _Foreign(sae, None), {4: clamp(3.0)}):
            pass
    with pytest.raises(SAEError, match="trained on gpt2-small"):
        with edit_latents(model, _Foreign(sae, HERE, "gpt2-small"), {4: clamp(3.0)}):
            pass
    with pytest.raises(SAEError, match="belongs to another model"):
        with edit_latents(model, _Foreign(SAE(SAEConfig(13, 20, 3)), HERE), {4: clamp(3.0)}):
            pass


def test_an_sae_that_sae_lens_loads_gives_the_same_edit(model, sae, tmp_path, prompts):
    from sae_lens import SAE as TheirSAE

    sae.save(tmp_path / "sae")
    theirs = TheirSAE.load_from_disk(str(tmp_path / "sae"))
    found = []
    for each in (sae, theirs):
        with edit_latents(model, each, {4: clamp(3.0), 9: scale(2.0)}):
            found.append(next_token_logits(model, prompts))
    torch.testing.assert_close(*found, atol=1e-4, rtol=1e-4)


def test_edits_compose_with_steering_and_are_gone_after_an_error(model, sae, direction, prompts):
    with pytest.raises(RuntimeError, match="mine"):
        with steer(model, resid_pre(1), direction(), 2.0), edit_latents(model, sae, {4: clamp(3.0)}):
            both = generate(model, prompts, temperature=0, max_new_tokens=5)
            raise RuntimeError("mine")
    assert not is_edited(model)
    assert both != generate(model, prompts, temperature=0, max_new_tokens=5)
    with steer(model, HERE, direction(), 6.0):  # later hooks at the same point still run
        assert generate(model, prompts, temperature=0, max_new_tokens=5) != both
