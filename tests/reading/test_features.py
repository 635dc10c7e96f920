"""What the features' file holds against a slow, direct count; bad input; the file itself."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from utils.hooks import intervene, resid_post, run_with_cache
from utils.models import tiny_model
from utils.reading import collecting
from utils.reading.collecting import collect_features, decoder_effect, firing
from utils.reading.features import N_QUANTILES, PER_QUANTILE, FeatureError, FeatureStats
from utils.reading.looking import excerpt, find_latents, latents_of
from utils.sae.model import SAE, SAEConfig, SAEError, sae_digest, usual_tokens

N_CONTEXTS, POS, D_SAE, K = 50, 12, 37, 4


@pytest.fixture(scope="module")
def model():
    return tiny_model()


@pytest.fixture(scope="module")
def sae(model):
    made = SAE(SAEConfig(model.cfg.d_model, D_SAE, K, "", resid_post(1)), seed=3)
    with torch.no_grad():
        made.b_enc[5] = -1e6  # dead
        made.b_enc[6] = 8.0  # dense
    return made.requires_grad_(False)


@pytest.fixture(scope="module")
def tokens():
    rows = torch.randint(4, 61, (N_CONTEXTS, POS), generator=torch.Generator().manual_seed(1))
    rows[:, 0] = 0
    return rows


@pytest.fixture(scope="module")
def stats(model, sae, tokens):
    return collect_features(model, sae, tokens, cache=False, progress=False, corpus="made up")


@pytest.fixture(scope="module")
def dense(model, sae, tokens):
    """(values [n_contexts, pos, d_sae] with zeros at unusual tokens, usual): what the statistics are to be statistics of."""
    acts = run_with_cache(model, tokens, resid_post(1))[resid_post(1)]
    usual = usual_tokens(acts)
    return sae.encode(acts) * usual[..., None], usual


def test_rates_maxima_and_histograms_are_counts(stats, dense):
    values, usual = dense
    assert stats.n_tokens == usual.sum() and stats.d_sae == D_SAE
    torch.testing.assert_close(stats.firing_rate, (values > 0).sum((0, 1)) / usual.sum())
    torch.testing.assert_close(stats.max_value, values.amax((0, 1)))
    for latent in range(D_SAE):
        column = values[..., latent][values[..., latent] > 0]
        counted = torch.histogram(column, stats.bin_edges[latent]).hist
        assert stats.histogram[latent].sum() == len(column)
        assert (stats.histogram[latent] - counted).abs().sum() <= 2  # a value on an edge
    assert stats.firing_rate[5] == 0 and stats.firing_rate[6] > 0.5


def test_top_examples_are_the_largest_of_each_context(stats, dense):
    best, position = dense[0].max(1)
    for latent in range(D_SAE):
        wanted = best[:, latent].sort(descending=True).values[:20]
        torch.testing.assert_close(stats.top_value[latent], wanted)
        there = stats.top_value[latent] > 0
        context, pos = stats.top_where[latent, there].long().T
        torch.testing.assert_close(dense[0][context, pos, latent], stats.top_value[latent, there])
        assert len(context.unique()) == len(context)
        assert (stats.top_where[latent, ~there] == -1).all()


def test_quantile_examples_come_from_their_fifth_and_silent_ones_are_silent(stats, dense):
    values, usual = dense
    for latent in range(D_SAE):
        where, value = stats.quantile_where[latent].long(), stats.quantile_value[latent]
        there = where[..., 0] >= 0
        torch.testing.assert_close(values[where[..., 0], where[..., 1], latent][there], value[there])
        fired = values[..., latent][values[..., latent] > 0]
        if there.all() and len(fired) <= collecting._SAMPLE:  # all firings were kept: the fifths are exact
            edges = fired.sort().values[torch.arange(1, N_QUANTILES) * len(fired) // N_QUANTILES]
            assert (value[:-1].amax(1) <= edges).all() and (value[1:].amin(1) >= edges).all()
        silent = stats.silent_where[latent].long()
        silent = silent[silent[:, 0] >= 0]
        assert (values[silent[:, 0], silent[:, 1], latent] == 0).all() and usual[silent[:, 0], silent[:, 1]].all()
        assert len(silent.unique(dim=0)) == len(silent)
    assert (stats.quantile_where[5] == -1).all() and (stats.silent_where[5] >= 0).all()


def test_the_code_is_what_fires(stats, dense):
    written_out = torch.zeros(N_CONTEXTS, POS, D_SAE).scatter_add(2, stats.code_latent.long(), stats.code_value.float())
    torch.testing.assert_close(written_out, dense[0], rtol=1e-3, atol=1e-3)
    assert (stats.code_value.diff(dim=-1) <= 0).all()
    torch.testing.assert_close(stats.values(7, 3), dense[0][3, :, 7], rtol=1e-3, atol=1e-3)
    with pytest.raises(FeatureError):
        stats.values(D_SAE, 0)


def test_neighbours_are_correlations_and_cosines(stats, sae, dense):
    fires = (dense[0] > 0)[dense[1]].double()
    phi = torch.corrcoef(fires.T).nan_to_num(-1).fill_diagonal_(-1)
    phi[fires.T @ fires < 3] = -1
    best = phi.topk(8).values
    torch.testing.assert_close(stats.cofiring_score.double(), best.clamp_min(0), rtol=1e-4, atol=1e-5)
    assert ((stats.cofiring >= 0) == (best > 0)).all()
    assert (stats.cofiring != torch.arange(D_SAE)[:, None]).all() and (stats.similar != torch.arange(D_SAE)[:, None]).all()
    cosine = F.cosine_similarity(sae.W_dec[3], sae.W_dec[stats.similar[3].long()])
    torch.testing.assert_close(stats.similar_cosine[3], cosine)
    assert (stats.similar_cosine[:, 0] <= 1).all()


def test_decoder_effect_is_what_adding_a_direction_does_to_the_logits(model, stats, sae):
    """At the last layer, a small step along the row: the change of the log-probabilities, up to the norm's division."""
    row, last = F.normalize(sae.W_dec[3], dim=0), resid_post(model.cfg.n_layers - 1)
    text = torch.tensor([[0, 9, 14, 30]])
    resid = run_with_cache(model, text, last)[last][0, -1]
    across = row - (row @ resid) * resid / resid.square().sum()  # leaves the length, and so the division, alone
    step = 1e-2
    with torch.no_grad():
        before = model(text)[0, -1]
        with intervene(model, {last: lambda acts, hook: acts + step * across}):
            after = model(text)[0, -1]
    change = (after - before) / step * resid.square().mean().sqrt()
    torch.testing.assert_close(change - change.mean(), decoder_effect(model, across[None])[0], rtol=2e-2, atol=2e-2)
    effect = decoder_effect(model, sae.W_dec[3:4])[0] / sae.W_dec[3].norm()
    assert stats.up_tokens[3, 0] == effect.argmax() and stats.down_tokens[3, 0] == effect.argmin()
    torch.testing.assert_close(stats.up_logits[3], effect[stats.up_tokens[3].long()], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_batches_and_chunks_change_nothing(model, sae, tokens, stats, batch_size, monkeypatch):
    monkeypatch.setattr(collecting, "_CHUNK_TOKENS", 5 * POS)
    again = collect_features(model, sae, tokens, cache=False, progress=False, batch_size=batch_size, corpus="made up")
    for name, value in vars(stats).items():
        if isinstance(value, torch.Tensor):
            close = value.is_floating_point()
            torch.testing.assert_close(vars(again)[name], value, rtol=1e-3 if close else 0, atol=1e-4 if close else 0)


def test_another_seed_draws_other_examples(model, sae, tokens, stats):
    other = collect_features(model, sae, tokens, cache=False, progress=False, seed=1)
    assert torch.equal(other.top_where, stats.top_where) and not torch.equal(other.silent_where, stats.silent_where)
    assert not torch.equal(other.quantile_where, stats.quantile_where)


def test_histogram_bins_merge_without_losing_a_count():
    histogram = collecting._Histogram(2, 4)
    histogram.add(torch.tensor([0, 0, 1]), torch.tensor([0.9, 0.3, 5.0]))
    histogram.add(torch.tensor([0, 0]), torch.tensor([7.9, 1.2]))
    assert histogram.counts.tolist() == [[3, 0, 0, 1], [0, 0, 1, 0]]
    torch.testing.assert_close(histogram.edges(), torch.tensor([[0.0, 2, 4, 6, 8], [0.0, 2, 4, 6, 8]]))


def test_hashed_draws_are_even():
    place = torch.arange(20_000)
    low = (collecting._hashed(torch.full_like(place, 17), place, 0) & 1023).double()
    assert abs(low.mean() / 1023 - 0.5) < 0.01
    one, two = (collecting._hashed(torch.full_like(place, latent), place, 0).argsort()[:2000] for latent in (1, 2))
    assert torch.isin(one, two).sum() < 300  # 200 by chance


def test_the_file_comes_back_and_damage_is_named(stats, tmp_path):
    path = tmp_path / "features.safetensors"
    stats.save(path)
    loaded = FeatureStats.load(path)
    for name, value in vars(stats).items():
        assert torch.equal(vars(loaded)[name], value) if isinstance(value, torch.Tensor) else vars(loaded)[name] == value
    content = bytearray(path.read_bytes())
    with pytest.raises(FeatureError, match="not there"):
        FeatureStats.load(tmp_path / "other.safetensors")
    for damaged in (content[:-100], content[:-1] + bytes([content[-1] ^ 255]), b"something else", b""):
        path.write_bytes(damaged)
        with pytest.raises(FeatureError, match="Delete it and collect"):
            FeatureStats.load(path)


def test_the_cache_is_used_and_a_damaged_file_in_it_is_replaced(model, sae, tokens, tmp_path, monkeypatch):
    monkeypatch.setenv("PROBE_TO_STEER_CACHE", str(tmp_path))
    first = collect_features(model, sae, tokens, progress=False)
    (file,) = (tmp_path / "features").iterdir()
    monkeypatch.setattr(collecting, "_one_pass", lambda *args: pytest.fail("the cache was not used"))
    assert torch.equal(collect_features(model, sae, tokens, progress=False).top_where, first.top_where)
    monkeypatch.undo()
    monkeypatch.setenv("PROBE_TO_STEER_CACHE", str(tmp_path))
    file.write_bytes(file.read_bytes()[:-50])
    assert torch.equal(collect_features(model, sae, tokens, progress=False).top_where, first.top_where)
    changed = SAE(sae.cfg, seed=8)
    assert sae_digest(changed) != sae_digest(sae)
    collect_features(model, changed, tokens, progress=False)
    assert len(list((tmp_path / "features").iterdir())) == 2


def test_latents_of_a_text(model, sae):
    text = "The city of Paris is in France"
    words, values, latents = latents_of(model, sae, text)
    tokens = model.to_tokens(text)
    assert len(words) == tokens.shape[1] == len(values) and words[4] == "Paris" and values.shape[1] == K
    acts = run_with_cache(model, tokens, resid_post(1))[resid_post(1)]
    expected = (sae.encode(acts) * usual_tokens(acts)[..., None])[0]
    torch.testing.assert_close(torch.zeros_like(expected).scatter_add(1, latents, values), expected)
    assert (values.diff(dim=1) <= 0).all() and (values[0] == 0).all()
    with pytest.raises(FeatureError, match="no text"):
        latents_of(model, sae, "")
    with pytest.raises(FeatureError, match="Shorten"):
        latents_of(model, sae, "city " * (model.cfg.n_ctx + 5))


def test_finding_latents_by_a_token(model, stats):
    found = find_latents(stats, model, " PARIS ")
    assert found and all(0 < share <= 1 for _, share in found) and [s for _, s in found] == sorted((s for _, s in found), reverse=True)
    latent, share = found[0]
    on = [excerpt(model, stats, where)[1].strip() == "Paris" for where in stats.top_where[latent] if where[0] >= 0]
    assert share == pytest.approx(sum(on) / len(on))
    for query, words in (("", "nothing to search"), ("zzz", "no latent has")):
        with pytest.raises(FeatureError, match=words):
            find_latents(stats, model, query)


def test_excerpts(model, stats, tokens):
    left, token, right = excerpt(model, stats, (3, 5), before=2, after=1)
    words = [model.tokenizer.decode([t]) for t in tokens[3].tolist()]
    assert (left.split(), token, right) == (words[3:5], words[5], words[6])
    assert excerpt(model, stats, (3, 1))[0] == ""  # BOS is not shown
    with pytest.raises(FeatureError, match="no place"):
        excerpt(model, stats, (-1, -1))


def test_unknown_and_dead_latents(stats):
    assert stats.check(36) == 36 and stats.check(5) == 5
    for latent in (37, -1, 2.0, True, "3", None):
        with pytest.raises(FeatureError, match="latents are 0 to 36"):
            stats.check(latent)
    with pytest.raises(FeatureError, match="never fired on the"):
        stats.check(5, alive=True)


def test_an_sae_of_another_model_and_a_hooked_model_are_refused(model, sae, tokens):
    stranger = SAE(replace(sae.cfg, model_name="another-model"))
    with pytest.raises(SAEError, match="trained on another-model"):
        collect_features(model, stranger, tokens, cache=False)
    with intervene(model, {resid_post(0): lambda acts, hook: acts}, may_do_nothing=True), pytest.raises(FeatureError, match="hooks"):
        collect_features(model, sae, tokens, cache=False)
    for bad in (tokens.float(), tokens[:, :2], tokens[:0]):
        with pytest.raises(ValueError):
            collect_features(model, sae, bad, cache=False)


def test_any_sae_of_sae_lens(model, sae, tokens, stats, tmp_path):
    """sae_lens' own reading of the same files gives the same statistics, through `encode` alone; and so does one without k."""
    from sae_lens import SAE as Theirs
    from sae_lens import StandardSAE, StandardSAEConfig

    sae.save(tmp_path / "sae")
    theirs = Theirs.load_from_disk(tmp_path / "sae")
    again = collect_features(model, theirs, tokens, cache=False, progress=False)
    torch.testing.assert_close(again.top_value, stats.top_value, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(again.firing_rate, stats.firing_rate)
    standard = StandardSAE(StandardSAEConfig(d_in=model.cfg.d_model, d_sae=29, device="cpu"))
    with torch.no_grad():
        standard.W_enc.copy_(sae.W_enc[:, :29])
    free = collect_features(model, standard, tokens[:8], name=resid_post(1), cache=False, progress=False)
    row, latent, value = firing(standard, torch.randn(5, model.cfg.d_model))
    assert free.n_tokens and len(row) == len(latent) == len(value) and (value > 0).all()
    assert free.quantile_where.shape == (29, N_QUANTILES, PER_QUANTILE, 2)
