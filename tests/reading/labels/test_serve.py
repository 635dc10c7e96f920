"""The whole way to a language model: `transformers serve` with the default model, started here, on loopback."""

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pytest

from utils.default_model import default_folder, default_problem
from utils.reading.labels.llm import Service, explained, judged

for package in ("openai", "fastapi", "uvicorn"):
    pytest.importorskip(package, reason=f"{package} is not installed: `make test` installs it")

STARTED_WITHIN = 180


@pytest.fixture(scope="module", autouse=True)
def own_cache():
    """The default model lies in the cache folder that everybody uses."""


@pytest.fixture(scope="module")
def endpoint():
    if default_problem() is not None:
        pytest.skip("the default model is not there: python -m utils fetch")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-c", "from transformers.cli.transformers import main; main()", "serve", str(default_folder()),
               "--host", "127.0.0.1", "--port", str(port), "--device", "cpu"]
    server = subprocess.Popen(command, env={**os.environ, "HF_HUB_OFFLINE": "1"}, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        for _ in range(2 * STARTED_WITHIN):
            if server.poll() is not None:
                pytest.fail(f"transformers serve ended: {server.stderr.read()[-2000:]}")
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/models", timeout=1).close()
                break
            except (urllib.error.URLError, OSError):
                time.sleep(0.5)
        else:
            pytest.fail("transformers serve did not answer")
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        server.terminate()
        server.wait(20)


def test_a_real_model_explains_and_judges_and_both_are_kept(endpoint, tmp_path):
    file = tmp_path / "replies.jsonl"
    service = Service(endpoint, str(default_folder()), replies=file, timeout=300)
    excerpts = ["He was born in [[1900]]", "The war ended in [[1945]]"]
    label, verdicts = explained(service, excerpts), judged(service, "a year", ["born in 1900", "she left"])
    assert label is None or label.strip()
    assert verdicts is None or len(verdicts) == 2
    assert service.asked >= 2 and service.spent > 100
    again = Service(None, str(default_folder()), replies=file)
    assert (explained(again, excerpts), judged(again, "a year", ["born in 1900", "she left"])) == (label, verdicts)
    assert again.asked == 0 and again.reused == service.asked
