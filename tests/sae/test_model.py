"""The SAE module, its files (sae_lens' format, both ways) and its place in the model."""

from __future__ import annotations

import json

import pytest
import torch

from utils.hooks import HookNameError, InterventionError, intervene, resid_post, run_with_cache
from utils.models import tiny_model
from utils.sae.model import CONFIG, SAE, WEIGHTS, SAEConfig, SAEError, check_fits, load_sae, spliced, usual_tokens

D_IN, D_SAE, K = 13, 29, 3


def _sae(**places: str) -> SAE:
    sae = SAE(SAEConfig(D_IN, D_SAE, K, **places), seed=2)
    rng = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for weight in (sae.encoder_rows, sae.b_enc, sae.b_dec):
            weight.add_(torch.randn(weight.shape, generator=rng), alpha=0.3)
    return sae


def test_encode_decode_and_forward_agree(make_acts):
    sae, x = _sae(), make_acts(40).view(5, 8, D_IN)
    latents = sae.encode(x)
    assert latents.shape == (5, 8, D_SAE) and ((latents > 0).sum(-1) <= K).all() and (latents >= 0).all()
    by_hand = (x - sae.b_dec) @ sae.W_enc + sae.b_enc
    top = by_hand.topk(K, dim=-1)
    torch.testing.assert_close(latents.gather(-1, top.indices), top.values.relu())
    torch.testing.assert_close(sae.decode(latents), sae(x), rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match="width 13; got \\[4, 12\\]"):
        sae(torch.zeros(4, 12))


def test_rescaling_gives_the_same_sae_of_the_raw_activations(make_acts):
    sae, x = _sae(), make_acts(40)
    mean, scale = x.mean(0), 3.7
    before = sae((x - mean) / scale) * scale + mean
    sae.rescale_(mean, scale)
    torch.testing.assert_close(sae(x), before, rtol=1e-4, atol=1e-3)


def test_folding_the_decoder_norm_keeps_the_reconstruction(make_acts):
    sae, x = SAE(SAEConfig(D_IN, D_SAE, D_SAE)), make_acts(50)
    with torch.no_grad():
        sae.W_dec.mul_(torch.linspace(0.2, 3, D_SAE)[:, None])
        sae.b_enc.normal_(generator=torch.Generator().manual_seed(1))
        before = sae(x)
        sae.fold_decoder_norm_()
        torch.testing.assert_close(sae(x), before, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(sae.W_dec.norm(dim=1), torch.ones(D_SAE))


def test_sae_lens_reads_ours_and_we_read_theirs(tmp_path, make_acts):
    from sae_lens import SAE as LibrarySAE

    sae, x = _sae(model_name="tiny", hook_name=resid_post(1)).requires_grad_(False), make_acts(40)
    sae.save(tmp_path / "ours")
    theirs = LibrarySAE.load_from_disk(tmp_path / "ours")
    torch.testing.assert_close(theirs.encode(x), sae.encode(x), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(theirs(x), sae(x), rtol=1e-5, atol=1e-5 * float(x.abs().max()))
    assert theirs.cfg.metadata.hook_name == resid_post(1)
    theirs.save_model(tmp_path / "theirs")
    again = load_sae(tmp_path / "theirs")
    assert again.cfg == sae.cfg
    for mine, other in zip(sae.state_dict().values(), again.state_dict().values()):
        assert torch.equal(mine, other)


def test_half_precision_files_load_in_both(tmp_path, make_acts):
    from sae_lens import SAE as LibrarySAE

    sae, x = _sae().requires_grad_(False), make_acts(40)
    sae.save(tmp_path / "half", torch.float16)
    torch.testing.assert_close(load_sae(tmp_path / "half")(x), LibrarySAE.load_from_disk(tmp_path / "half")(x), rtol=1e-4, atol=1e-3)
    with pytest.raises(FileExistsError, match="exists already"):
        sae.save(tmp_path / "half")


def test_damaged_or_other_files_are_refused(tmp_path):
    with pytest.raises(SAEError, match="holds no SAE"):
        load_sae(tmp_path)
    _sae().save(tmp_path / "sae")
    config = json.loads((tmp_path / "sae" / CONFIG).read_text())
    for broken, message in ((config | {"k": 100}, "describes no SAE: ValueError: k = 100"), ({k: v for k, v in config.items() if k != "d_in"}, "describes no SAE"), ([1], "cannot be read")):
        (tmp_path / "sae" / CONFIG).write_text(json.dumps(broken))
        with pytest.raises(SAEError, match=message):
            load_sae(tmp_path / "sae")
    (tmp_path / "sae" / CONFIG).write_text(json.dumps(config | {"architecture": "gated"}))
    with pytest.raises(SAEError, match="architecture = 'gated'"):
        load_sae(tmp_path / "sae")
    (tmp_path / "sae" / CONFIG).write_text(json.dumps(config | {"d_sae": 30}))
    with pytest.raises(SAEError, match="do not fit"):
        load_sae(tmp_path / "sae")
    (tmp_path / "sae" / CONFIG).write_text(json.dumps(config))
    weights = (tmp_path / "sae" / WEIGHTS).read_bytes()
    (tmp_path / "sae" / WEIGHTS).write_bytes(weights[: len(weights) // 2])
    with pytest.raises(SAEError, match="cannot be read"):
        load_sae(tmp_path / "sae")


@pytest.mark.parametrize("sizes, message", [((5, 4, 6), "k = 6 latents cannot fire"), ((0, 4, 1), "d_in must be"), ((5, 4, 0), "k must be")])
def test_impossible_sizes(sizes, message):
    with pytest.raises(ValueError, match=message):
        SAEConfig(*sizes)


def test_an_sae_goes_only_where_it_belongs():
    model = tiny_model()
    name, width = model.cfg.model_name, model.cfg.d_model
    fits = SAE(SAEConfig(width, 50, 4, name, resid_post(1)))
    assert check_fits(model, fits) == resid_post(1)
    with pytest.raises(SAEError, match="trained on another-model"):
        check_fits(model, SAE(SAEConfig(width, 50, 4, "another-model", resid_post(1))))
    with pytest.raises(SAEError, match="not at blocks.2"):
        check_fits(model, fits, resid_post(2))
    with pytest.raises(SAEError, match=f"width {width + 1}"):
        check_fits(model, SAE(SAEConfig(width + 1, 50, 4)), resid_post(1))
    with pytest.raises(SAEError, match="pass name="):
        check_fits(model, SAE(SAEConfig(width, 50, 4)))
    with pytest.raises(HookNameError):
        check_fits(model, SAE(SAEConfig(width, 50, 4)), "blocks.9.hook_out")
    assert check_fits(model, SAE(SAEConfig(width, 50, 4, name, "blocks.1.hook_resid_post")), resid_post(1)) == resid_post(1)


@pytest.mark.parametrize("sae_says, model_is, same", [
    ("gpt2-small", "openai-community/gpt2", True), ("gpt2-small", "gpt2", True), ("google/gemma-2-2b", "gemma-2-2b", True),
    ("meta-llama/Llama-3.2-1B", "models/llama-3.2-1b", True), ("gpt2-small", "gpt2-medium", False), ("gemma-2-2b", "google/gemma-2-2b-it", False),
])
def test_a_model_is_the_same_by_any_of_its_names(sae_says, model_is, same):
    model = tiny_model()
    model.cfg.model_name = model_is
    sae = SAE(SAEConfig(model.cfg.d_model, 50, 4, sae_says, resid_post(1)))
    if same:
        assert check_fits(model, sae) == resid_post(1)
    else:
        with pytest.raises(SAEError, match=f"trained on {sae_says}; the model is {model_is}"):
            check_fits(model, sae)


def test_splicing_replaces_usual_tokens_only_and_leaves_no_hook():
    model = tiny_model()
    tokens = torch.randint(4, model.cfg.d_vocab, (3, 9), generator=torch.Generator().manual_seed(1))
    sae = SAE(SAEConfig(model.cfg.d_model, 50, 4, hook_name=resid_post(1))).requires_grad_(False)
    clean = run_with_cache(model, tokens, resid_post(1))[resid_post(1)]
    with spliced(model, sae):
        seen = run_with_cache(model, tokens, resid_post(1))[resid_post(1)]
    usual = usual_tokens(clean)
    assert not usual[:, 0].any() and usual[:, 1:].any()
    torch.testing.assert_close(seen[usual], sae(clean[usual]))
    assert torch.equal(seen[~usual], clean[~usual])
    assert torch.equal(run_with_cache(model, tokens, resid_post(1))[resid_post(1)], clean)
    with pytest.raises(InterventionError, match="never ran"):
        with spliced(model, sae):
            pass


def test_splicing_works_while_the_model_generates():
    model = tiny_model()
    sae = SAE(SAEConfig(model.cfg.d_model, 50, 4, hook_name=resid_post(1))).requires_grad_(False)
    tokens = torch.randint(4, model.cfg.d_vocab, (2, 7), generator=torch.Generator().manual_seed(1))
    tokens[:, 0] = model.tokenizer.bos_token_id
    before, after = [], []
    keep = lambda seen: {resid_post(1): lambda acts, hook: (seen.append(acts.clone()), acts)[1]}  # noqa: E731
    with intervene(model, keep(before), may_do_nothing=True), spliced(model, sae), intervene(model, keep(after), may_do_nothing=True):
        written = model.generate(tokens, max_new_tokens=4, do_sample=False, stop_at_eos=False, verbose=False, return_type="tokens")
    assert written.shape == (2, 11) and len(before) == len(after) == 4
    limit = 3 * before[0].norm(dim=-1)[:, 1:].median(1, keepdim=True).values
    for clean, spliced_in in zip(before[1:], after[1:]):  # one new position at a time
        usual = clean.norm(dim=-1) <= limit
        assert clean.shape[1] == 1 and usual.any()
        torch.testing.assert_close(spliced_in[usual], sae(clean[usual]))
    # A first token on its own is left alone, and that nothing was replaced is said.
    with pytest.raises(InterventionError, match="changed nothing"), spliced(model, sae):
        model(tokens[:, :1])


def test_gradients_pass_through_a_spliced_sae():
    model = tiny_model()
    tokens = torch.randint(4, model.cfg.d_vocab, (2, 7), generator=torch.Generator().manual_seed(1))
    sae = SAE(SAEConfig(model.cfg.d_model, 50, 4, hook_name=resid_post(1)))
    below = torch.full((model.cfg.d_model,), 1e-3, requires_grad=True)
    with intervene(model, {resid_post(0): lambda acts, hook: acts + below}), spliced(model, sae):
        model(tokens, return_type="loss").backward()
    assert below.grad.abs().sum() > 0 and sae.W_dec.grad.abs().sum() > 0


def test_the_sae_runs_under_autocast(make_acts):
    sae, x = _sae().requires_grad_(False), make_acts(40)
    with torch.autocast("cpu", torch.bfloat16):
        rough = sae(x)
    torch.testing.assert_close(rough, sae(x), rtol=0.2, atol=0.1 * float(x.abs().max()))
