"""Shared fixtures: a notebook as a learner would leave it, progress that is nobody's, JupyterLab in a browser."""

import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from functools import cache
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook


@pytest.fixture
def own_progress(tmp_path, monkeypatch):
    """A progress file of the test's own."""
    path = tmp_path / "progress.json"
    monkeypatch.setenv("PROBE_TO_STEER_PROGRESS", str(path))
    return path


@pytest.fixture
def notebook_with(tmp_path):
    """Write a learner's notebook of chapter 00 with the given code cells; returns its path."""
    def write(*cells, name="00_start_here.ipynb"):
        notebook = new_notebook(cells=[new_code_cell(cell) for cell in cells])
        notebook.metadata["probe_to_steer"] = {"chapter": "00_start_here"}
        path = tmp_path / name
        nbformat.write(notebook, path)
        return path

    return write


@pytest.fixture(scope="session")
def odd_model(tmp_path_factory):
    """`odd_model(kind)`: the folder of a random model of another make, as `tests/odd_models.py` writes it."""
    spec = importlib.util.spec_from_file_location("odd_models", Path(__file__).with_name("odd_models.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return cache(lambda kind: module.write_odd_model(tmp_path_factory.mktemp(kind), kind))


# --- JupyterLab in headless Chromium ----------------------------------------------------------------------

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"]


@pytest.fixture(scope="module")
def chromium():
    """Headless Chromium. Where there is none the test is skipped, unless CI is set: there it has to run."""
    path = next((found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None)
    if not os.environ.get("CI"):
        pytest.importorskip("playwright", reason="playwright is not installed: `make test` installs it")
        if path is None:
            pytest.skip("no Chromium on this machine")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def shoot():
    """Keep a picture of a page in the folder that PROBE_TO_STEER_SCREENSHOTS names; without it do nothing."""
    def keep(page, name):
        if folder := os.environ.get("PROBE_TO_STEER_SCREENSHOTS"):
            Path(folder).mkdir(parents=True, exist_ok=True)
            page.screenshot(path=str(Path(folder, name + ".png")))

    return keep


@pytest.fixture(scope="module")
def lab_server(tmp_path_factory):
    """(the address of a JupyterLab of the tests' own, the folder that it serves)."""
    folder = tmp_path_factory.mktemp("lab")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options = ["--no-browser", f"--port={port}", "--ServerApp.ip=127.0.0.1", f"--ServerApp.root_dir={folder}", "--IdentityProvider.token=",
               "--LabApp.expose_app_in_browser=True", "--LabApp.news_url=None", "--allow-root"]
    settings = {"JUPYTERLAB_SETTINGS_DIR": str(folder / ".settings"), "JUPYTERLAB_WORKSPACES_DIR": str(folder / ".workspaces")}
    log = folder / "lab.log"
    with log.open("w") as out:
        server = subprocess.Popen([sys.executable, "-m", "jupyter", "lab", *options], stdout=out, stderr=subprocess.STDOUT, env={**os.environ, **settings}, start_new_session=True)
    try:
        deadline = time.monotonic() + 180
        while "is running at" not in log.read_text():
            assert server.poll() is None and time.monotonic() < deadline, log.read_text()[-2000:]
            time.sleep(0.3)
        yield f"http://127.0.0.1:{port}", folder
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(30)


@pytest.fixture(scope="module")
def open_in_lab(chromium, lab_server):
    """Open a notebook of the given cells in JupyterLab; gives the page, with `run(index)` and the folder it lies in."""
    address, folder = lab_server

    def open_notebook(name, *cells):
        # Without a kernel's name JupyterLab asks for one, and waits for ever.
        kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
        nbformat.write(new_notebook(cells=[new_code_cell(cell) for cell in cells], metadata=kernel), folder / name)
        page = chromium.new_page(viewport={"width": 1280, "height": 1300})
        page.set_default_timeout(180_000)
        page.goto(f"{address}/lab/tree/{name}?reset")
        page.wait_for_function(f"window.jupyterapp && jupyterapp.shell.currentWidget?.content?.model?.cells?.length === {len(cells)}")
        page.evaluate("() => jupyterapp.shell.currentWidget.sessionContext.ready")
        page.folder, page.run = folder, lambda index: _run_cell(page, index)
        return page

    return open_notebook


def _run_cell(page, index):
    """Run a cell and wait for the kernel; returns what stands below it."""
    page.evaluate("""async index => { const notebook = jupyterapp.shell.currentWidget.content; notebook.activeCellIndex = index; notebook.mode = 'command';
        await notebook.scrollToItem(index, 'start'); notebook.activate(); await jupyterapp.commands.execute('notebook:run-cell'); }""", index)
    page.wait_for_function("jupyterapp.shell.currentWidget.sessionContext.session?.kernel?.status === 'idle'")
    return page.evaluate("index => jupyterapp.shell.currentWidget.content.widgets[index].outputArea.node.innerText", index)
