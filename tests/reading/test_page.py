"""A latent's page: escaped, and as the statistics say."""

import numpy as np

from utils.hooks import run_with_cache
from utils.reading.page import Reader, latent_map, shaded, visible, vocabulary
from utils.sae.model import SAE, SAEConfig, usual_tokens

N_LATENTS = 150  # as conftest.py makes them
NASTY = '<script>alert("x")</script> & "quotes" \'single\''


def test_text_is_escaped_wherever_it_becomes_html():
    html = shaded([NASTY, "\n"], [1.0, 0.0], 2.0, peak=0)
    assert "<script" not in html and "&lt;script&gt;" in html and "&amp;" in html and "⏎" in html
    assert 'style="--v:0.50"' in html and "pts-peak" in html
    assert visible(" a\nb") == "␣a⏎b"


def test_a_mark_says_the_value_and_leaves_the_space_before_a_word_outside():
    assert shaded([" not"], [3.25], 3.25) == ' <mark style="--v:1.00" title="3.2">not</mark>'
    assert shaded([" "], [1.0], 1.0).startswith("<mark")  # a token that is a space alone
    assert shaded(["a", "b"], [0, 0], 1.0, asked=1) == "a<span class=pts-asked>b</span>"


def test_tokens_carry_their_space_as_in_running_text(read):
    model, _, stats = read
    pieces = vocabulary(model)
    row = stats.tokens[0].tolist()
    assert "".join(pieces[i] for i in row).strip() == model.tokenizer.decode(row, clean_up_tokenization_spaces=False)


def test_the_page_shows_what_the_statistics_say(read):
    model, sae, stats = read
    reader = Reader(model, sae, stats)
    latent = int(stats.firing_rate.argmax())
    page = reader.head(latent) + reader.body(latent)
    assert f"Latent {latent}" in page and f"{float(stats.max_value[latent]):.1f}" in page
    for other in [*stats.similar[latent].tolist(), *stats.cofiring[latent].tolist()]:
        assert other < 0 or f'data-latent="{other}"' in page
    for token in stats.up_tokens[latent, :8].tolist():
        assert visible(reader.pieces[token]).replace("<", "&lt;").replace(">", "&gt;") in page
    context, position = stats.top_where[latent, 0].tolist()
    assert page.count("<li>") == sum(len(where) for _, where in reader.shown(latent))
    assert f'title="{float(stats.top_value[latent, 0]):.1f}" class=pts-peak' in page


def test_every_token_of_an_example_has_its_value(read):
    model, sae, stats = read
    latent = int(stats.firing_rate.argmax())
    contexts = stats.top_where[latent, :3, 0].numpy()
    acts = run_with_cache(model, stats.tokens[contexts].long(), stats.hook_name)[stats.hook_name]
    expected = sae.encode(acts)[:, :, latent] * usual_tokens(acts)
    values = Reader(model, sae, stats).values(latent, contexts)
    assert np.allclose(values, expected.numpy(), rtol=1e-3) and (values > 0).sum() > 3


def test_the_map_is_the_same_every_time_and_keeps_neighbours_near(read):
    _, sae, stats = read
    places = latent_map(sae)
    assert places.shape == (N_LATENTS, 2) and places.min() == 0 and places.max() == 1
    assert np.array_equal(places, latent_map(sae))
    near = np.linalg.norm(places - places[stats.similar[:, 0].numpy()], axis=1)
    far = np.linalg.norm(places - np.roll(places, 1, axis=0), axis=1)
    assert np.median(near) < np.median(far) / 2
    few = SAE(SAEConfig(24, 7, 2))  # too few for t-SNE
    assert latent_map(few).shape == (7, 2)
