"""The browser and the game in JupyterLab, in headless Chromium."""

import json
import re
import time

import pytest

from utils.paths import ROOT

NASTY = '<script>alert("x")</script> & "quotes" \'single\''


@pytest.fixture(scope="module")
def lab(open_in_lab, own_cache, set_up, labels):
    """JupyterLab with a notebook of four cells: the set-up, the browser, the game, what came of them."""
    page = open_in_lab("browse.ipynb",
                       f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{set_up}\nfrom utils.reading.labels.label import Scored\nlabels = {labels}\nfrom utils.reading import FeatureBrowser, LabellingGame\nprint('ready')",
                       "browser = FeatureBrowser(model, sae, stats, notes='notes.json', labels=labels)\nbrowser",
                       "game = LabellingGame(model, sae, stats, 7, n=6)\ngame", "print(browser.latent, game.label)")
    for index in range(3):
        assert "Traceback" not in page.run(index)
    return page


def look_at(page, index):
    page.evaluate("async index => { const notebook = jupyterapp.shell.currentWidget.content; await notebook.scrollToItem(index, 'start'); }", index)
    page.wait_for_timeout(300)


def wait_for_latent(page, latent):
    page.wait_for_function("""latent => document.querySelector('.pts-browser h2').textContent.startsWith(`Latent ${latent}`)
        && document.querySelector(`.pts-browser [data-page="${latent}"]`)""", arg=str(latent))


def test_the_browser_in_jupyterlab(lab, alone, dot):
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


def assert_saved(page, notes, seconds=20):
    """The notes are on disk before long: the kernel has other things to do as well."""
    file = page.folder / "notes.json"
    found = lambda: json.loads(file.read_text())["notes"] if file.exists() else {}
    for _ in range(10 * seconds):
        if found() == notes:
            return
        page.wait_for_timeout(100)
    assert found() == notes


def test_the_note_is_on_disk_while_it_is_typed(lab):
    root = lab.locator(".pts-browser")
    latent = re.match(r"Latent (\d+)", root.locator("h2").inner_text())[1]
    note = root.locator("textarea")
    note.click()
    lab.keyboard.type("fires on cities", delay=20)
    assert_saved(lab, {latent: "fires on cities"})
    lab.keyboard.type(", I think")
    root.get_by_role("button", name="Next", exact=True).click()
    wait_for_latent(lab, (int(latent) + 1) % 150)  # of 150: after the last comes the first
    assert_saved(lab, {latent: "fires on cities, I think"})


def test_typed_text_in_jupyterlab_in_both_themes(lab, shoot):
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


def test_labels_in_jupyterlab(lab, shoot):
    look_at(lab, 1)
    root = lab.locator(".pts-browser")
    root.get_by_role("button", name="label", exact=True).click()
    field = root.get_by_placeholder("a part of a label")
    field.fill("city")
    field.press("Enter")
    root.locator(".pts-chip", has_text="0.52, weak").click()
    wait_for_latent(lab, 3)
    assert root.locator(".pts-weak").inner_text().startswith("Weak label [[<script>|city]]")
    shoot(lab, "lab_weak_label")
    root.locator(".pts-chip", has_text="0.83").click()
    wait_for_latent(lab, 7)
    assert root.locator(".pts-label").inner_text().startswith("Label of [[city|town]]") and root.locator(".pts-weak").count() == 0
    shoot(lab, "lab_label")


def test_the_game_in_jupyterlab(lab, shoot):
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
    assert "capital cities" in lab.run(3)
