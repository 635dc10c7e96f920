"""The exported file: its content, then in headless Chromium."""

import re

import numpy as np
import pytest

from utils.reading.export import _pack, export_html
from utils.reading.features import FeatureError
from utils.reading.page import Reader

N_LATENTS, DEAD = 150, 2  # as conftest.py makes them
NASTY = '<script>alert("x")</script> & "quotes" \'single\''


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


@pytest.fixture(scope="module")
def exported(read, labels, tmp_path_factory):
    return export_html(*read, tmp_path_factory.mktemp("export") / "latents.html", labels=labels)


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


def test_the_file_opens_from_disk(page_from_disk, read, labels, shoot):
    model, sae, stats = read
    page, reader = page_from_disk, Reader(model, sae, stats, labels)
    assert page.inner_text("#say") == ""
    for latent in (3, 7, DEAD):
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


def test_the_file_finds_labels(page_from_disk, shoot):
    page = page_from_disk
    page.fill("#query", "[[")
    page.keyboard.press("Enter")
    assert "2 labels say" in page.inner_text("#found")
    assert page.locator("#found .pts-chip").all_inner_texts()[0].startswith("7") and "0.52, weak" in page.inner_text("#found")
    page.locator("#found .pts-chip").nth(1).click()
    page.wait_for_selector("#page .pts-weak")
    assert page.inner_text("#page .pts-label").startswith("Weak label [[<script>|city]]")
    shoot(page, f"export_label_{page.scheme}")


def test_the_file_answers_bad_input(page_from_disk):
    page = page_from_disk
    for query, words in {"9999": "no latent 9999", "": "nothing to search for", NASTY: "Search for another word"}.items():
        page.fill("#query", query)
        page.keyboard.press("Enter")
        assert words in page.inner_text("#say")
    assert page.locator("#page h2").count() == 1


def test_the_map_of_the_file_with_mouse_and_keyboard(page_from_disk, alone, dot):
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


