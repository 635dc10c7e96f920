"""The feature browser on a tiny model, in Python: search, pages, notes."""

import json
import time

import numpy as np
import pytest

from utils.hooks import resid_post
from utils.models import tiny_model
from utils.reading.browser import FeatureBrowser
from utils.reading.features import FeatureError
from utils.reading.notes import Notes
from utils.sae.model import SAE, SAEConfig

N_LATENTS, DEAD = 150, 2  # as conftest.py makes them
NASTY = '<script>alert("x")</script> & "quotes" \'single\''


def search(browser, mode, query):
    """What is said and what is found, as a learner who types would see it."""
    browser._mode.value = mode
    browser._query.value = ""
    browser._query.value = query
    return browser._say.value, browser._results.value


def test_the_page_of_a_latent_that_never_fired(browser):
    browser.show(DEAD)
    assert "never fired" in browser._head.value and "Tokens it raises" in browser._body.value
    assert "Histogram" not in browser._body.value and "Strongest examples" not in browser._body.value


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


def test_search_by_label(read, labels, tmp_path, browser):
    assert "label" not in dict(browser._mode.options), "without labels there is nothing to search"
    labelled = FeatureBrowser(*read, notes=tmp_path / "other.json", labels=labels)
    said, found = search(labelled, "label", "City")
    assert not said and labelled._found == [7, 3], "the best score first"
    assert "<i>0.83</i>" in found and "<i>0.52, weak</i>" in found
    said, _ = search(labelled, "label", NASTY)
    assert "no label says" in said.lower() and "<script" not in said


def test_a_weak_label_looks_weak(read, labels, tmp_path):
    labelled = FeatureBrowser(*read, notes=tmp_path / "other.json", labels=labels)
    labelled.show(7)
    assert "Label <span" in labelled._head.value and "score 0.83 (chance 0.50, another latent" in labelled._head.value and "at 42% of the places" in labelled._head.value
    labelled.show(3)
    assert "pts-weak" in labelled._head.value and "Weak label" in labelled._head.value and "<script" not in labelled._head.value
    labelled.show(5)
    assert "pts-label" not in labelled._head.value


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


def test_a_note_that_cannot_be_written_is_kept_and_said(browser, monkeypatch):
    def full(path, content):
        raise OSError(28, "No space left on device")

    browser.show(5)
    with monkeypatch.context() as patch:
        patch.setattr("utils.reading.notes.atomic_write", full)
        browser._note_box.children[0].value = "precious"
    assert "Not saved" in browser._saved.value and "No space" in browser._saved.value
    browser.show(6)
    browser._note_box.children[0].value = "later"
    stored = json.loads(browser.notes.path.read_text(encoding="utf-8"))["notes"]
    assert stored == {"5": "precious", "6": "later"}
