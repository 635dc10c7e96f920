"""Chapter 11 in JupyterLab, in headless Chromium, as a learner goes through it; started by `make learn` itself.

Skipped where there is no Chromium or Playwright, unless CI is set: there it has to run.
`PROBE_TO_STEER_SCREENSHOTS=folder` keeps the pictures; those of the README were made so.
"""

import os
import re
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest

from utils.course.exercises import find_exercise
from utils.paths import ROOT

CHROMIUM = next((found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None)
if not os.environ.get("CI"):
    pytest.importorskip("playwright", reason="playwright is not installed: `make test` installs it")
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine", allow_module_level=True)

from playwright.sync_api import sync_playwright  # noqa: E402

MINUTE = 60_000
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"]
EXERCISE = "auroc"


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    """A copy of the course, as a clone would be, with the environment that is already there."""
    copy = tmp_path_factory.mktemp("learner") / "course"
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".venv", ".git", "__pycache__", "progress.json*", ".venv-lock"))
    if (ROOT / ".venv").exists():
        (copy / ".venv").symlink_to(ROOT / ".venv")
    return copy


@pytest.fixture(scope="module")
def address(course, tmp_path_factory):
    """The URL that `make learn` prints; extra arguments are passed through."""
    log = tmp_path_factory.mktemp("log") / "learn.log"
    arguments = f"--no-browser --port={free_port()} --LabApp.expose_app_in_browser=True"
    environment = {**os.environ, "JUPYTERLAB_SETTINGS_DIR": str(log.parent / "settings"), "JUPYTERLAB_WORKSPACES_DIR": str(log.parent / "workspaces")}
    with log.open("w") as out:
        learn = subprocess.Popen(["make", "learn", f"ARGS={arguments}"], cwd=course, stdout=out, stderr=subprocess.STDOUT, env=environment, start_new_session=True)
    deadline = time.monotonic() + 300
    while not (found := re.search(r"http://127\.0\.0\.1:\d+/lab\S*", log.read_text())):
        assert learn.poll() is None and time.monotonic() < deadline, log.read_text()[-2000:]
        time.sleep(0.5)
    yield found[0]
    os.killpg(learn.pid, signal.SIGTERM)
    learn.wait(30)


@pytest.fixture(scope="module")
def page(address):
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(viewport={"width": 1280, "height": 1000})
        page.set_default_timeout(2 * MINUTE)
        yield page
        browser.close()


class Lab:
    """A notebook that is open in JupyterLab: the app's own commands to move about, the keyboard to type."""

    def __init__(self, page, address, path):
        self.page = page
        base, _, query = address.partition("/lab/tree/")
        page.goto(f"{base}/lab/tree/{path}?reset&{query.partition('?')[2]}")
        page.wait_for_function("window.jupyterapp && jupyterapp.shell.currentWidget?.content?.model?.cells?.length > 3")
        page.evaluate("() => jupyterapp.shell.currentWidget.sessionContext.ready")
        self.wait_idle()

    def wait_idle(self, timeout=5 * MINUTE):
        self.page.wait_for_function("jupyterapp.shell.currentWidget.sessionContext.session?.kernel?.status === 'idle'", timeout=timeout)

    def sources(self):
        return self.page.evaluate("() => [...jupyterapp.shell.currentWidget.content.model.cells].map(cell => cell.sharedModel.getSource())")

    def go_to(self, index):
        self.page.evaluate("""async index => { const notebook = jupyterapp.shell.currentWidget.content; notebook.activeCellIndex = index;
            notebook.mode = 'command'; await notebook.scrollToItem(index, 'center'); notebook.activate(); }""", index)
        self.page.wait_for_timeout(300)

    def run(self, index, timeout=5 * MINUTE):
        """Run a cell with the app's command and wait until the kernel has answered."""
        self.go_to(index)
        self.page.evaluate("() => jupyterapp.commands.execute('notebook:run-cell')")
        self.page.wait_for_timeout(200)
        self.wait_idle(timeout)
        return self.output(index)

    def type(self, index, text):
        """Replace a cell's text by typing."""
        self.go_to(index)
        self.page.keyboard.press("Enter")
        self.page.keyboard.press("Control+a")
        self.page.keyboard.press("Delete")
        self.page.keyboard.insert_text(text)
        self.page.keyboard.press("Escape")
        assert self.sources()[index] == text

    def output(self, index):
        """What the reader sees below a cell, as text."""
        return self.page.evaluate("index => jupyterapp.shell.currentWidget.content.widgets[index].outputArea.node.innerText", index)

    def shoot(self, index, name):
        folder = os.environ.get("PROBE_TO_STEER_SCREENSHOTS")
        if folder:
            Path(folder).mkdir(parents=True, exist_ok=True)
            self.go_to(index)
            self.page.wait_for_timeout(1500)
            area = self.page.evaluate("index => { const box = jupyterapp.shell.currentWidget.content.widgets[index].outputArea.node.getBoundingClientRect();"
                                      " return {x: box.x, y: box.y, width: box.width, height: box.height}; }", index)
            self.page.screenshot(path=str(Path(folder, name + ".png")), clip=area)

    def theme(self, name):
        self.page.evaluate("name => jupyterapp.commands.execute('apputils:change-theme', {theme: name})", name)
        self.page.wait_for_timeout(1500)


def test_make_learn_opens_the_first_chapter(page, address):
    page.goto(address)
    page.get_by_role("heading", name="00 · Start here").first.wait_for()
    page.wait_for_timeout(5000)  # the time in which JupyterLab used to ask whether it may show news
    assert page.locator(".jp-Notification, .Toastify__toast").count() == 0


def test_what_is_not_to_be_read_is_folded(page, address):
    """The first picture is there before anything is run; folded cells show their title, and one click opens them."""
    lab = Lab(page, address, "chapters/00_start_here.ipynb")
    picture = page.locator(".jp-Notebook .jp-OutputArea img").first
    picture.wait_for()
    assert picture.bounding_box()["width"] > 300
    index = next(i for i, source in enumerate(lab.sources()) if source.startswith("# @title Setup"))
    lab.go_to(index)
    cell = page.locator(".jp-Notebook .jp-Cell.jp-mod-active")
    folded = cell.locator(".jp-Placeholder")
    folded.wait_for()
    assert "Setup: run this first" in folded.inner_text()
    assert not cell.locator(".cm-editor").is_visible()
    folded.click()
    cell.locator(".cm-editor").wait_for()


def test_a_learner_goes_through_chapter_11(page, address):
    lab = Lab(page, address, "chapters/11_linear_probes.ipynb")
    sources = lab.sources()
    setup = next(i for i, source in enumerate(sources) if source.startswith("# @title Setup"))
    imports = next(i for i, source in enumerate(sources) if source.startswith("# @title What this chapter imports"))
    answer = next(i for i, source in enumerate(sources) if f"def {EXERCISE}(" in source)
    check = sources.index(f"check({EXERCISE})")

    assert "Run the cell that defines it" in _after_setup(lab, setup, check)
    lab.run(imports)
    assert "not written yet" in _answer(lab, answer, check, sources[answer])

    exercise = find_exercise(EXERCISE)
    slug, wrong = _typed_mistake()
    said = _answer(lab, answer, check, wrong)
    assert slug in said and exercise.mistakes[slug].message[:30] in said and "Expected" in said
    lab.shoot(check, "check_fail_light")

    lab.type(check, "")  # an empty cell says nothing, and hurts nothing
    assert lab.run(check).strip() == ""
    lab.type(check, f"check({EXERCISE})")

    from inspect import getsource

    said = _answer(lab, answer, check, getsource(exercise.reference).rstrip())
    assert "Passed" in said and exercise.verified[:30] in said
    lab.shoot(check, "check_pass_light")
    lab.theme("JupyterLab Dark")
    lab.shoot(check, "check_pass_dark")
    lab.theme("JupyterLab Light")

    # A copy of the check cell says the same.
    lab.go_to(check)
    page.evaluate("async () => { for (const command of ['copy-cell', 'paste-cell-below']) await jupyterapp.commands.execute('notebook:' + command); }")
    assert lab.sources()[check + 1] == f"check({EXERCISE})"
    assert "Passed" in lab.run(check + 1)

    # After a restart the answer is gone from the kernel, and the progress is still there.
    page.evaluate("() => jupyterapp.shell.currentWidget.sessionContext.session.kernel.restart()")
    lab.wait_idle()
    lab.run(setup)
    lab.type(check + 1, "progress()")
    said = lab.run(check + 1)
    assert re.search(rf"\[x\] {EXERCISE}\s+passed", said) and said.strip().startswith("1 of ")


def _after_setup(lab, setup, check):
    """Run the setup, then a check whose function does not exist yet."""
    assert "[ok]  packages" in lab.run(setup)
    return lab.run(check)


def _answer(lab, answer, check, source):
    lab.type(answer, source)
    lab.run(answer)
    return lab.run(check)


def _typed_mistake():
    """The slug of a registered mistake, and that mistake written as a learner would."""
    return "ties-count-as-losses", ("def auroc(scores, labels):\n    positive, negative = scores[labels.bool()], scores[~labels.bool()]\n"
                            "    return float((positive[:, None] > negative[None, :]).double().mean())")


def test_the_widget_moves_and_the_figures_are_drawn(page, address):
    """The solved chapter, run in the browser from its top to the cell with the layer slider."""
    lab = Lab(page, address, "solutions/11_linear_probes.ipynb")
    sources = lab.sources()
    slider = next(i for i, source in enumerate(sources) if "show_with_slider(" in source)
    cells = page.evaluate("() => [...jupyterapp.shell.currentWidget.content.model.cells].map(cell => cell.type)")
    figure = None
    for index in range(slider + 1):
        if cells[index] == "code":
            lab.run(index, timeout=10 * MINUTE)
            assert "Traceback" not in lab.output(index), lab.output(index)
            if figure is None and "show(" in sources[index]:
                figure = index
                page.wait_for_selector(".jp-OutputArea .js-plotly-plot svg.main-svg", timeout=MINUTE)
                lab.shoot(index, "figure_light")
                lab.theme("JupyterLab Dark")
                lab.shoot(index, "figure_dark")
                lab.theme("JupyterLab Light")
    lab.go_to(slider)
    output = page.locator(".jp-Notebook .jp-Cell.jp-mod-active .jp-OutputArea")
    handle = output.locator(".noUi-handle").first
    handle.wait_for()
    drawn = output.locator("svg .gtitle").all_text_contents()
    assert drawn[0].startswith("Level ")
    before = output.locator(".widget-readout").first.inner_text()
    lab.shoot(slider, "widget_light")
    handle.focus()
    for _ in range(5):
        page.keyboard.press("ArrowLeft")
    page.wait_for_timeout(500)
    lab.wait_idle()
    assert int(output.locator(".widget-readout").first.inner_text()) == int(before) - 5
    page.wait_for_function("title => document.querySelector('.jp-Notebook .jp-Cell.jp-mod-active .jp-OutputArea svg .gtitle')?.textContent.startsWith(title)",
                           arg=f"Level {int(before) - 5}:")
    lab.shoot(slider, "widget_moved_light")
