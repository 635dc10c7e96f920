"""The feature browser, the labelling game and the exported file, on a tiny model: first in Python, then in headless Chromium.

`PROBE_TO_STEER_SCREENSHOTS=folder` keeps pictures of what Chromium showed.
"""

import dataclasses
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from utils.hooks import resid_post, run_with_cache
from utils.models import tiny_model
from utils.paths import ROOT
from utils.reading.browser import FeatureBrowser
from utils.reading.export import _pack, export_html
from utils.reading.features import FeatureError
from utils.reading.game import LabellingGame, best_token_rule, detection_score
from utils.reading.notes import Notes
from utils.reading.page import Reader, latent_map, shaded, visible, vocabulary
from utils.sae.model import SAE, SAEConfig, usual_tokens

NASTY = '<script>alert("x")</script> & "quotes" \'single\''
N_LATENTS, DEAD = 150, 2

# The same in the notebook that Chromium runs.
SETUP = f"""
import torch
from utils.hooks import resid_post
from utils.models import tiny_model
from utils.reading.collecting import collect_features
from utils.sae.model import SAE, SAEConfig

model = tiny_model()
model.cfg.model_name = "tiny-llama"
sae = SAE(SAEConfig(24, {N_LATENTS}, 5, "tiny-llama", resid_post(1)), seed=3).requires_grad_(False)
sae.b_enc[{DEAD}] = -1e4
tokens = torch.randint(4, 61, (120, 30), generator=torch.Generator().manual_seed(0))
tokens[:, 0] = 0
stats = collect_features(model, sae, tokens, corpus="random words", progress=False)
"""


@pytest.fixture(scope="module", autouse=True)
def own_cache(tmp_path_factory):
    """A cache of these tests' own; the notebook's kernel inherits it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PROBE_TO_STEER_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def read(own_cache):
    """(model, sae, stats): a tiny model, a random SAE of it with one dead latent, what it does on random words."""
    found = {}
    exec(SETUP, found)
    return found["model"], found["sae"], found["stats"]


@pytest.fixture
def browser(read, tmp_path):
    return FeatureBrowser(*read, notes=tmp_path / "notes.json")


def search(browser, mode, query):
    """What is said and what is found, as a learner who types would see it."""
    browser._mode.value = mode
    browser._query.value = ""
    browser._query.value = query
    return browser._say.value, browser._results.value


# --- text and pages -------------------------------------------------------------------------------------


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


def test_the_page_of_a_latent_that_never_fired(browser):
    browser.show(DEAD)
    assert "never fired" in browser._head.value and "Tokens it raises" in browser._body.value
    assert "Histogram" not in browser._body.value and "Strongest examples" not in browser._body.value


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


# --- the browser ----------------------------------------------------------------------------------------


def test_search_by_number(browser):
    said, _ = search(browser, "number", " #17 ")
    assert not said and browser.latent == 17
    for query, words in {"150": "latents are 0 to 149", "-3": "no number of a latent", "99999999999999": "no number", NASTY: "no number", "": "type something first", "   ": "type something first"}.items():
        browser._query.value = "17"
        browser._query.value = query
        if not query.strip():
            browser._search.click()
        assert words in browser._say.value and "<script" not in browser._say.value and browser.latent == 17


def test_search_by_token(browser, read):
    _, _, stats = read
    said, found = search(browser, "token", "City")
    assert not said and browser._found and all(f'data-latent="{latent}"' in found for latent in browser._found)
    said, _ = search(browser, "token", NASTY)
    assert "no latent has two" in said.lower() and "<script" not in said


def test_what_fires_on_a_typed_text(browser, read):
    said, found = search(browser, "text", "The city of Paris is <b> in France .")
    assert not said and "<b>in" not in found and found.count("<tr>") == len(browser._typed[1]) - 1
    # On the page of a latent that fires there, the text comes first, with the same values.
    _, tokens, values, latents = browser._typed
    row, column = np.unravel_index(values.argmax(), values.shape)
    browser.show(int(latents[row, column]))
    assert browser._body.value.index("Your text") < browser._body.value.index("Tokens it raises")
    assert f'title="{values[row, column]:.1f}"' in browser._body.value


def test_a_text_past_the_context_is_refused_and_the_page_stays(browser):
    browser.show(17)
    said, _ = search(browser, "text", "city " * 200)
    assert "pts-bad" in said and "96" in said and browser.latent == 17 and "Latent 17" in browser._head.value


def test_search_by_similarity(browser, read):
    _, _, stats = read
    said, _ = search(browser, "similar", "17")
    assert not said and browser._found[:8] == stats.similar[17].tolist() and 17 not in browser._found


def test_back_previous_next_and_random(browser):
    browser.show(20)
    browser.show(149)
    buttons = {button.description: button for button in browser.children[-1].children[1].children[0].children}
    buttons["Next"].click()
    assert browser.latent == 0
    buttons["Previous"].click()
    assert browser.latent == 149
    for expected in (0, 149, 20):
        buttons["← Back"].click()
        assert browser.latent == expected
    buttons["Random"].click()
    assert browser.latent != DEAD


def test_longer_excerpts(browser):
    browser.show(17)
    short = browser._body.value
    browser._longer.value = True
    assert len(browser._body.value) > len(short) and browser._body.value.count("<li>") == short.count("<li>")
    browser._longer.value = False
    assert browser._body.value == short


def test_without_a_kernel_the_open_page_stands_as_html(browser):
    browser.show(17)
    bundle = browser._repr_mimebundle_()
    assert "Latent 17" in bundle["text/html"] and "latent 17" in bundle["text/plain"] and "application/vnd.jupyter.widget-view+json" in bundle


def test_an_unknown_latent_is_refused(browser):
    for wrong in (N_LATENTS, -1, "3", 1.5):
        with pytest.raises(FeatureError, match="there is no latent"):
            browser.show(wrong)


def test_what_does_not_belong_together_is_refused(read, tmp_path):
    model, sae, stats = read
    other = SAE(SAEConfig(24, N_LATENTS, 5, "tiny-llama", resid_post(1)), seed=4).requires_grad_(False)
    with pytest.raises(FeatureError, match="another SAE"):
        FeatureBrowser(model, other, stats, notes=tmp_path / "n.json")
    stranger = tiny_model(seed=1)
    stranger.cfg.model_name = "other"
    with pytest.raises(FeatureError, match="the model is other"):
        FeatureBrowser(stranger, sae, stats, notes=tmp_path / "n.json")


def test_speed_of_a_page_and_of_a_typed_text(browser, capsys):
    """Printed, not judged: the machine may be busy. The real SAE is measured in the closing note of the issue."""
    times = []
    for latent in range(40):
        start = time.perf_counter()
        browser.show(latent)
        times.append(time.perf_counter() - start)
    start = time.perf_counter()
    search(browser, "text", "The city of Oslo is not in Peru .")
    typed = time.perf_counter() - start
    with capsys.disabled():
        print(f"\npage: median {1e3 * np.median(times):.0f} ms, slowest {1e3 * max(times):.0f} ms; typed text: {1e3 * typed:.0f} ms")


# --- notes ----------------------------------------------------------------------------------------------


def test_notes_are_saved_as_typed_and_come_back(browser, read, tmp_path):
    browser.show(5)
    field = browser._note_box.children[0]
    for text in ("f", "fi", f"fires on {NASTY} ü"):
        field.value = text
        assert json.loads((tmp_path / "notes.json").read_text(encoding="utf-8"))["notes"] == {"5": text}
    browser.show(6)
    assert browser._note_box.children[0].value == ""
    field.value = "typed on, arriving late"  # still latent 5's
    assert Notes(tmp_path / "notes.json", read[2].sae_sha256)[5] == "typed on, arriving late"
    again = FeatureBrowser(*read, notes=tmp_path / "notes.json")
    again.show(5)
    assert again._note_box.children[0].value == "typed on, arriving late"


def test_two_notebooks_do_not_undo_each_other(tmp_path):
    one, two = Notes(tmp_path / "n.json", "a"), Notes(tmp_path / "n.json", "a")
    one[1], two[2] = "one", "two"
    one[3] = "three"
    stored = Notes(tmp_path / "n.json", "a")
    assert {latent: stored[latent] for latent in stored} == {1: "one", 2: "two", 3: "three"}


@pytest.mark.parametrize("content", ["{", "[]", '{"notes": {}}', '{"sae_sha256": "a", "notes": {"x": "y"}}', ""])
def test_a_damaged_file_of_notes_is_set_aside(tmp_path, content):
    (tmp_path / "n.json").write_text(content)
    notes = Notes(tmp_path / "n.json", "a")
    assert "kept as" in notes.said
    notes[1] = "new"
    [aside] = tmp_path.glob("n.json.damaged-*")
    assert aside.read_text() == content and Notes(tmp_path / "n.json", "a")[1] == "new"


def test_notes_on_another_sae_are_left_alone(tmp_path):
    Notes(tmp_path / "n.json", "a")[1] = "mine"
    before = (tmp_path / "n.json").read_bytes()
    with pytest.raises(FeatureError, match="another SAE"):
        Notes(tmp_path / "n.json", "b")
    assert (tmp_path / "n.json").read_bytes() == before


def test_a_note_that_cannot_be_written_is_kept_and_said(browser, monkeypatch):
    def full(path, content):
        raise OSError(28, "No space left on device")

    browser.show(5)
    with monkeypatch.context() as patch:
        patch.setattr("utils.reading.browser.atomic_write", full)
        browser._note_box.children[0].value = "precious"
    assert "Not saved" in browser._saved.value and "No space" in browser._saved.value
    browser.show(6)
    browser._note_box.children[0].value = "later"
    stored = json.loads(browser.notes.path.read_text(encoding="utf-8"))["notes"]
    assert stored == {"5": "precious", "6": "later"}


# --- the labelling game ---------------------------------------------------------------------------------


def test_detection_score():
    truth = np.array([True] * 10 + [False] * 30)
    assert detection_score(truth, truth).value == 1 and detection_score(truth, truth).low < 0.95
    assert detection_score(np.ones(40, bool), truth).value == 0.5  # balanced: the larger class does not count more
    half = detection_score(np.array([True] * 8 + [False] * 2 + [True] * 3 + [False] * 27), truth)
    assert half.value == pytest.approx((0.8 + 0.9) / 2) and 0.6 < half.low < half.value < half.high < 1
    for said, facts in ((truth[:3], truth[:3]), (truth, truth[:5]), ([], [])):
        with pytest.raises(ValueError, match="both kinds"):
            detection_score(np.array(said, bool), np.array(facts, bool))


def test_the_interval_of_detection_covers():
    rng = np.random.default_rng(0)
    truth = np.arange(20) < 10
    inside = 0
    for _ in range(200):
        score = detection_score(rng.random(20) < np.where(truth, 0.8, 0.3), truth)
        inside += score.low <= 0.75 <= score.high
    assert inside / 200 > 0.9


def test_best_token_rule():
    windows = [np.array(w) for w in ([1, 2, 3], [4, 2], [2, 9], [3, 1], [4], [9, 1])]
    assert best_token_rule(windows, [True, True, True, False, False, False]) == 2
    with pytest.raises(ValueError, match="both kinds"):
        best_token_rule(windows, [True] * 6)


def latent_that_fires(stats, n=12):
    return next(i for i in range(N_LATENTS) if n < int((stats.top_where[i, :, 0] >= 0).sum()) and stats.firing_rate[i] < 0.05)


def test_the_excerpts_of_the_game(read):
    model, sae, stats = read
    latent = latent_that_fires(stats)
    game = LabellingGame(model, sae, stats, latent, n=10)
    assert len(game.truth) == 2 * game.truth.sum() and 4 <= len(game.truth) <= 10
    shown = {context for _, where in Reader(model, sae, stats).shown(latent) for context in where[:, 0].tolist()}
    assert len(set(game.places[:, 0].tolist())) == len(game.places) and not shown & set(game.places[:, 0].tolist())
    for place, fires in zip(game.places.tolist(), game.truth):
        assert game._values(*place).any() == fires
    assert np.array_equal(game.places, LabellingGame(model, sae, stats, latent, n=10).places)
    assert not np.array_equal(game.places, LabellingGame(model, sae, stats, latent, n=10, seed=1).places)


def test_a_game_from_label_to_score(read):
    model, sae, stats = read
    game = LabellingGame(model, sae, stats, latent_that_fires(stats))
    game._start.click()
    assert "Write a label first" in game._say.value and not game.label
    game._yes.click()  # before the game has begun
    game._text.value = NASTY
    game._start.click()
    for i, fires in enumerate(game.truth):
        assert f"Excerpt {i + 1} of {len(game.truth)}" in game._screen.value and "<mark" not in game._screen.value
        (game._yes if fires else game._no).click()
    game._yes.click()  # one too many
    assert game.score.value == 1 and game.label == NASTY and "<script" not in game._screen.value
    assert "your label" in game._screen.value and "chance" in game._screen.value and "<mark" in game._screen.value
    assert game.rule_score == detection_score(game._rule_said, game.truth)


def test_latents_that_cannot_be_played(read):
    model, sae, stats = read
    with pytest.raises(FeatureError, match="never fired"):
        LabellingGame(model, sae, stats, DEAD)
    with pytest.raises(FeatureError, match="there is no latent"):
        LabellingGame(model, sae, stats, N_LATENTS)
    silent = dataclasses.replace(stats, code_latent=stats.code_latent.where(stats.code_latent != 7, torch.tensor(8).short()))
    with pytest.raises(FeatureError, match="too few to test"):
        LabellingGame(model, sae, silent, 7)
    everywhere = dataclasses.replace(stats, code_latent=torch.full_like(stats.code_latent, 7))
    with pytest.raises(FeatureError, match="nearly everywhere"):
        LabellingGame(model, sae, everywhere, 7)


# --- the exported file ----------------------------------------------------------------------------------


def test_the_file_is_whole_and_names_nothing_outside_of_itself(read, tmp_path):
    path = export_html(*read, tmp_path / "all.html")
    page = path.read_text(encoding="utf-8")
    assert path.stat().st_size < 500_000 and "[[" not in page.split("<script")[0]
    assert not re.search(r"(?:src|href)=[\"']?(?:https?:)?//|@import|url\(|fetch\(|XMLHttpRequest|sendBeacon", page)


def test_a_file_that_would_be_too_large_is_not_written(read, tmp_path):
    with pytest.raises(FeatureError, match="more than max_mb"):
        export_html(*read, tmp_path / "all.html", max_mb=0.01)
    assert not list(tmp_path.iterdir())


def test_the_values_in_the_file(read):
    reader = Reader(*read)
    chosen = [7, 3]
    _, arrays = _pack(reader, chosen)
    at = 0
    for latent in chosen:
        largest = float(reader.stats.max_value[latent])
        for _, where in reader.shown(latent):
            for values in reader.values(latent, where[:, 0]):
                stored = np.zeros(reader.tokens.shape[1])
                start, end = arrays["fire_start"][at : at + 2]
                position, step = arrays["fires"][start:end].T
                stored[position] = step / 255 * largest
                assert np.allclose(stored, values, atol=largest / 254) and np.array_equal(stored > 0, values > 0)
                at += 1
    assert at == len(arrays["examples"])


def test_some_latents_alone(read, tmp_path):
    all_of_them = export_html(*read, tmp_path / "all.html").stat().st_size
    assert export_html(*read, tmp_path / "some.html", latents=[3, 3, 5]).stat().st_size < 0.8 * all_of_them
    for wrong, words in (([], "no latents"), ([3, N_LATENTS], "there is no latent")):
        with pytest.raises(FeatureError, match=words):
            export_html(*read, tmp_path / "none.html", latents=wrong)


# --- in Chromium ----------------------------------------------------------------------------------------

CHROMIUM = next((found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None)
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"]


@pytest.fixture(scope="module")
def chromium():
    if not os.environ.get("CI"):
        pytest.importorskip("playwright", reason="playwright is not installed: `make test` installs it")
        if CHROMIUM is None:
            pytest.skip("no Chromium on this machine")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


def shoot(page, name, **how):
    folder = os.environ.get("PROBE_TO_STEER_SCREENSHOTS")
    if folder:
        Path(folder).mkdir(parents=True, exist_ok=True)
        page.screenshot(path=str(Path(folder, name + ".png")), **how)


def dot(svg, latent):
    """Where on the screen the dot of a latent is."""
    return svg.evaluate("""(svg, latent) => { const at = 2 * svg.dataset.numbers.split(" ").indexOf(String(latent)), xy = svg.dataset.xy.split(" ").map(Number), box = svg.getBoundingClientRect();
        return {x: box.x + xy[at] / 1000 * box.width, y: box.y + xy[at + 1] / 1000 * box.height}; }""", latent)


@pytest.fixture(scope="module")
def alone(read):
    """The two latents that have the most room around them on the map."""
    places = latent_map(read[1])
    apart = np.linalg.norm(places[:, None] - places, axis=2) + 9 * np.eye(len(places))
    return apart.min(1).argsort()[::-1][:2].tolist()


@pytest.fixture(scope="module")
def exported(read, tmp_path_factory):
    return export_html(*read, tmp_path_factory.mktemp("export") / "latents.html")


@pytest.fixture(params=["light", "dark"])
def page_from_disk(request, chromium, exported):
    context = chromium.new_context(color_scheme=request.param, offline=True, viewport={"width": 1280, "height": 1000})
    page = context.new_page()
    errors = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(exported.as_uri())
    page.wait_for_selector("#page h2")
    page.scheme = request.param
    yield page
    assert not errors
    context.close()


def test_the_file_opens_from_disk(page_from_disk, read):
    model, sae, stats = read
    page, reader = page_from_disk, Reader(model, sae, stats)
    assert page.inner_text("#say") == ""
    for latent in (7, DEAD):
        page.fill("#query", str(latent))
        page.keyboard.press("Enter")
        page.wait_for_function("latent => document.querySelector('#page h2').textContent.startsWith(`Latent ${latent}`)", arg=latent)
        # The same words as on the notebook's page.
        own = page.evaluate("html => { const box = document.createElement('div'); box.innerHTML = html; document.querySelector('main').after(box); const text = box.innerText; box.remove(); return text; }",
                            reader.head(latent) + reader.body(latent))
        seen = page.inner_text("#page")
        assert re.sub(r"\s+", " ", re.sub(r"\d+\.\d\b", "", seen)) == re.sub(r"\s+", " ", re.sub(r"\d+\.\d\b", "", own))
    page.fill("#query", "city")
    page.keyboard.press("Enter")
    first = page.locator("#found .pts-chip").first
    latent = first.locator("b").inner_text()
    shoot(page, f"export_{page.scheme}")
    first.click()
    page.wait_for_function("latent => document.querySelector('#page h2').textContent.startsWith(`Latent ${latent}`)", arg=latent)
    page.go_back()
    page.wait_for_function("latent => document.querySelector('#page h2').textContent.startsWith(`Latent ${latent}`)", arg=DEAD)


def test_the_file_answers_bad_input(page_from_disk):
    page = page_from_disk
    for query, words in {"9999": "no latent 9999", "": "nothing to search for", NASTY: "Search for another word"}.items():
        page.fill("#query", query)
        page.keyboard.press("Enter")
        assert words in page.inner_text("#say")
    assert page.locator("#page h2").count() == 1


def test_the_map_of_the_file_with_mouse_and_keyboard(page_from_disk, alone):
    page = page_from_disk
    svg = page.locator(".pts-dots")
    place = dot(svg, alone[0])
    page.mouse.move(place["x"], place["y"])
    assert page.inner_text(".pts-hover").startswith(f"latent {alone[0]}:")
    page.mouse.click(place["x"], place["y"])
    page.wait_for_function("latent => document.querySelector('#page h2').textContent.startsWith(`Latent ${latent}`)", arg=alone[0])
    page.mouse.move(2, 2)
    svg.focus()
    page.keyboard.press("ArrowRight")  # the cursor appears on the open latent
    assert page.inner_text(".pts-hover").startswith(f"latent {alone[0]}:")
    page.keyboard.press("ArrowLeft")
    moved = re.match(r"latent (\d+):", page.inner_text(".pts-hover"))[1]
    assert moved != str(alone[0])
    page.keyboard.press("Enter")
    page.wait_for_function("latent => document.querySelector('#page h2').textContent.startsWith(`Latent ${latent}`)", arg=moved)


def test_a_file_that_was_cut_off_says_so(chromium, exported, tmp_path):
    text = exported.read_text(encoding="utf-8")
    start = text.index('id="data">') + 200
    (tmp_path / "cut.html").write_text(text[:start] + text[text.index("</script>", start):], encoding="utf-8")
    page = chromium.new_page()
    page.goto((tmp_path / "cut.html").as_uri())
    page.wait_for_function("document.querySelector('#say').textContent.includes('damaged or cut off')")
    page.close()


@pytest.fixture(scope="module")
def lab(chromium, own_cache, tmp_path_factory):
    """JupyterLab with a notebook of three cells: the set-up, the browser, the game."""
    import nbformat
    from nbformat.v4 import new_code_cell, new_notebook

    folder = tmp_path_factory.mktemp("lab")
    cells = [f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{SETUP}\nfrom utils.reading.browser import FeatureBrowser, LabellingGame\nprint('ready')",
             "browser = FeatureBrowser(model, sae, stats, notes='notes.json')\nbrowser", "game = LabellingGame(model, sae, stats, 7, n=6)\ngame", "print(browser.latent, game.label)"]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(new_notebook(cells=[new_code_cell(cell) for cell in cells], metadata=kernel), folder / "browse.ipynb")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    root_ok = ["--allow-root"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    settings = {"JUPYTERLAB_SETTINGS_DIR": str(folder / ".settings"), "JUPYTERLAB_WORKSPACES_DIR": str(folder / ".workspaces")}
    with (folder / "lab.log").open("w") as log:
        server = subprocess.Popen([sys.executable, "-m", "jupyterlab", "--no-browser", f"--port={port}", "--IdentityProvider.token=", "--LabApp.expose_app_in_browser=True", "--LabApp.news_url=None", *root_ok],
                                  cwd=folder, stdout=log, stderr=subprocess.STDOUT, env={**os.environ, **settings})
    try:
        deadline = time.monotonic() + 180
        while f":{port}/lab" not in (folder / "lab.log").read_text():
            assert server.poll() is None and time.monotonic() < deadline, (folder / "lab.log").read_text()[-2000:]
            time.sleep(0.3)
        page = chromium.new_page(viewport={"width": 1280, "height": 1200})
        page.set_default_timeout(120_000)
        page.goto(f"http://127.0.0.1:{port}/lab/tree/browse.ipynb?reset")
        page.wait_for_function("window.jupyterapp && jupyterapp.shell.currentWidget?.content?.model?.cells?.length >= 4")
        page.evaluate("() => jupyterapp.shell.currentWidget.sessionContext.ready")
        page.folder = folder
        for index in range(3):
            assert "Traceback" not in run(page, index)
        yield page
        page.close()
    finally:
        server.terminate()
        server.wait(30)


def run(page, index):
    """Run a cell and wait for the kernel; returns what stands below it."""
    page.evaluate("""async index => { const notebook = jupyterapp.shell.currentWidget.content; notebook.activeCellIndex = index; notebook.mode = 'command';
        await notebook.scrollToItem(index, 'start'); await jupyterapp.commands.execute('notebook:run-cell'); }""", index)
    page.wait_for_function("jupyterapp.shell.currentWidget.sessionContext.session?.kernel?.status === 'idle'")
    return page.evaluate("index => jupyterapp.shell.currentWidget.content.widgets[index].outputArea.node.innerText", index)


def look_at(page, index):
    page.evaluate("async index => { const notebook = jupyterapp.shell.currentWidget.content; await notebook.scrollToItem(index, 'start'); }", index)
    page.wait_for_timeout(300)


def wait_for_latent(page, latent):
    page.wait_for_function("""latent => document.querySelector('.pts-browser h2').textContent.startsWith(`Latent ${latent}`)
        && document.querySelector(`.pts-browser [data-page="${latent}"]`)""", arg=str(latent))


def test_the_browser_in_jupyterlab(lab, alone):
    look_at(lab, 1)
    root = lab.locator(".pts-browser")
    field = root.get_by_placeholder("A number from 0 to")
    field.fill("42")
    field.press("Enter")
    wait_for_latent(lab, 42)

    # A neighbour, by mouse; then one by keyboard.
    chip = root.locator(".pts-chip").first
    near = chip.locator("b").inner_text()
    start = time.monotonic()
    chip.click()
    wait_for_latent(lab, near)
    print(f"click to page: {1e3 * (time.monotonic() - start):.0f} ms")
    chip = root.locator(".pts-chip").nth(1)
    near = chip.locator("b").inner_text()
    chip.focus()
    lab.keyboard.press("Enter")
    wait_for_latent(lab, near)

    # The map.
    svg = root.locator(".pts-dots")
    svg.scroll_into_view_if_needed()
    place = dot(svg, alone[1])
    lab.mouse.move(place["x"], place["y"])
    assert root.locator(".pts-hover").inner_text().startswith(f"latent {alone[1]}:")
    lab.mouse.click(place["x"], place["y"])
    wait_for_latent(lab, alone[1])
    svg.focus()
    lab.mouse.move(5, 5)
    for key in ("ArrowDown", "ArrowUp"):
        lab.keyboard.press(key)
    moved = re.match(r"latent (\d+):", root.locator(".pts-hover").inner_text())[1]
    lab.keyboard.press("Enter")
    wait_for_latent(lab, moved)


def test_the_note_is_on_disk_while_it_is_typed(lab):
    root = lab.locator(".pts-browser")
    latent = re.match(r"Latent (\d+)", root.locator("h2").inner_text())[1]
    note = root.locator("textarea")
    note.click()
    lab.keyboard.type("fires on cities", delay=20)
    lab.wait_for_timeout(1000)
    assert json.loads((lab.folder / "notes.json").read_text())["notes"][latent] == "fires on cities"
    lab.keyboard.type(", I think")
    root.get_by_role("button", name="Next", exact=True).click()
    wait_for_latent(lab, int(latent) + 1)
    lab.wait_for_timeout(1000)
    assert json.loads((lab.folder / "notes.json").read_text())["notes"] == {latent: "fires on cities, I think"}


def test_typed_text_in_jupyterlab_in_both_themes(lab):
    root = lab.locator(".pts-browser")
    root.get_by_role("button", name="your text").click()
    field = root.get_by_placeholder("A sentence of your own")
    field.fill(f"The city of Paris is {NASTY} in France .")
    start = time.monotonic()
    field.press("Enter")
    root.locator(".pts-typed").wait_for()
    print(f"typed text: {1e3 * (time.monotonic() - start):.0f} ms")
    assert root.locator(".pts-typed script").count() == 0
    chip = root.locator(".pts-typed .pts-chip").first
    latent = chip.locator("b").inner_text()
    chip.click()
    wait_for_latent(lab, latent)
    assert "Your text" in root.inner_text()
    field.fill("")
    root.get_by_role("button", name="Search").click()
    root.locator(".pts-bad").wait_for()
    assert "type something first" in root.inner_text()
    for theme in ("JupyterLab Light", "JupyterLab Dark"):
        lab.evaluate("name => jupyterapp.commands.execute('apputils:change-theme', {theme: name})", theme)
        lab.wait_for_timeout(1500)
        look_at(lab, 1)
        shoot(lab, f"lab_{theme.split()[-1].lower()}")
        dark, light = lab.evaluate("""() => { const one = document.querySelector('.pts-browser h2'), style = getComputedStyle(one); let box = one;
            while (getComputedStyle(box).backgroundColor === 'rgba(0, 0, 0, 0)') box = box.parentElement;
            const grey = color => color.match(/\\d+/g).slice(0, 3).map(Number).reduce((a, b) => a + b) / 3;
            return [grey(style.color), grey(getComputedStyle(box).backgroundColor)].sort((a, b) => a - b); }""")
        assert light - dark > 120, theme
    lab.evaluate("() => jupyterapp.commands.execute('apputils:change-theme', {theme: 'JupyterLab Light'})")


def test_the_game_in_jupyterlab(lab):
    look_at(lab, 2)
    game = lab.locator(".pts-game")
    game.get_by_role("button", name="Begin").click()
    game.locator(".pts-bad").wait_for()
    game.get_by_placeholder("It fires on").fill("capital cities")
    game.get_by_role("button", name="Begin").click()
    shoot_at = 2
    for i in range(6):
        game.get_by_text(f"Excerpt {i + 1} of 6").wait_for()
        if i == shoot_at:
            shoot(lab, "game_asking")
        button = game.get_by_role("button", name="it fires here" if i % 2 else "it is silent")
        button.focus()
        lab.keyboard.press("Enter")
    game.get_by_text("balanced accuracy of").wait_for()
    shoot(lab, "game_result")
    assert "capital cities" in run(lab, 3)
