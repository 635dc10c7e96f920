"""A service that is asked over HTTP: real servers on loopback, well and ill."""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch

from utils.hooks import resid_post
from utils.models import tiny_model
from utils.reading.labels.llm import MalformedReply, Service, ServiceError, explained, judged, read_label, read_verdicts
from utils.sae.model import SAE, SAEConfig
from utils.yours.labels import label_mine

openai = pytest.importorskip("openai", reason="openai is an optional dependency; `make test` installs it")


class _Server:
    """An endpoint on loopback. `behave(n, body)` gives (status, JSON or text, headers) for the n-th question."""

    def __init__(self, behave):
        self.questions, server = [], self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                server.questions.append((body, self.headers.get("Authorization")))
                status, content, headers = behave(len(server.questions), body)
                raw = content.encode() if isinstance(content, str) else json.dumps(content).encode()
                try:
                    self.send_response(status)
                    for name, value in {"Content-Type": "application/json", "Content-Length": str(len(raw)), **headers}.items():
                        self.send_header(name, value)
                    self.end_headers()
                    self.wfile.write(raw)
                except OSError:
                    pass                     # the client went away: that is what a test of a slow server is about

            def log_message(self, *_):
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_port}/v1"
        threading.Thread(target=self._http.serve_forever, daemon=True).start()

    def close(self):
        self._http.shutdown()
        self._http.server_close()


@pytest.fixture
def serve():
    servers = []

    def start(behave):
        servers.append(_Server(behave))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


def reply(text, n_in=10, n_out=5):
    message = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
    return 200, {"id": "1", "object": "chat.completion", "created": 0, "model": "m", "choices": [message],
                 "usage": {"prompt_tokens": n_in, "completion_tokens": n_out, "total_tokens": n_in + n_out}}, {}


ASK = [{"role": "user", "content": "which colour?"}]


def test_a_reply_is_kept_and_a_question_is_put_once(serve, tmp_path):
    server, file = serve(lambda n, body: reply(f"reply {n}")), tmp_path / "kept" / "replies.jsonl"
    service = Service(server.url, "m", "secret", replies=file)
    assert service.ask(ASK) == service.ask(ASK) == "reply 1"
    assert service.ask(ASK, max_tokens=7) == "reply 2"
    assert (service.asked, service.reused, service.spent) == (2, 1, 30)
    assert server.questions[0][1] == "Bearer secret"
    again = Service(None, "m", replies=file)
    assert again.ask(ASK) == "reply 1"
    assert "secret" not in file.read_text() and "colour" not in file.read_text()
    with pytest.raises(ServiceError, match="no recorded reply"):
        again.ask([{"role": "user", "content": "another"}])


def test_a_line_that_a_crash_cut_off_costs_one_question(serve, tmp_path):
    server, file = serve(lambda n, body: reply(f"reply {n}")), tmp_path / "replies.jsonl"
    Service(server.url, "m", replies=file).ask(ASK)
    file.write_text(file.read_text()[:-20])
    service = Service(server.url, "m", replies=file)
    assert service.ask(ASK) == "reply 2"
    assert Service(None, "m", replies=file).ask(ASK) == "reply 2"


def test_no_server(tmp_path):
    service = Service("http://127.0.0.1:9/v1", "m", retries=0)
    with pytest.raises(ServiceError, match="cannot be reached.*Is the server running"):
        service.ask(ASK)


def test_a_slow_server(serve):
    def slow(n, body):
        time.sleep(1.0)
        return reply("late")

    with pytest.raises(ServiceError, match="no reply within 0.2 s, 1 times.*Raise timeout="):
        Service(serve(slow).url, "m", timeout=0.2, retries=0).ask(ASK)


def test_a_wrong_key(serve):
    server = serve(lambda n, body: (401, {"error": {"message": "bad key"}}, {}))
    with pytest.raises(ServiceError, match="refuses the key .HTTP 401.. Set api_key="):
        Service(server.url, "m").ask(ASK)
    assert len(server.questions) == 1, "a wrong key does not become right by asking again"


def test_a_rate_limit_is_waited_for(serve):
    server = serve(lambda n, body: (429, {"error": {"message": "slow down"}}, {"Retry-After": "0"}) if n < 3 else reply("at last"))
    assert Service(server.url, "m").ask(ASK) == "at last"
    assert len(server.questions) == 3


def test_a_rate_limit_that_stays_loses_nothing(serve, tmp_path):
    server = serve(lambda n, body: reply("first") if n == 1 else (429, {"error": {"message": "slow down"}}, {"retry-after-ms": "1"}))
    service = Service(server.url, "m", replies=tmp_path / "replies.jsonl", retries=1)
    service.ask(ASK)
    with pytest.raises(ServiceError, match="HTTP 429.*2 times in a row.*The 1 replies so far are kept"):
        service.ask(ASK, max_tokens=9)
    assert Service(None, "m", replies=tmp_path / "replies.jsonl").ask(ASK) == "first"


def test_a_server_that_breaks(serve):
    server = serve(lambda n, body: (500, "oops", {"retry-after-ms": "1"}))
    with pytest.raises(ServiceError, match="HTTP 500"):
        Service(server.url, "m", retries=1).ask(ASK)
    assert len(server.questions) == 2


@pytest.mark.parametrize("content", ["<html>hello</html>", {"hello": 1}, {"choices": []}, {"choices": [{"message": {"content": None}}]}])
def test_what_is_no_reply_of_a_chat_model(serve, content):
    with pytest.raises(ServiceError, match="no reply of a chat model"):
        Service(serve(lambda n, body: (200, content, {})).url, "m", retries=0).ask(ASK)


def test_the_budget_ends_before_the_next_question(serve):
    server = serve(lambda n, body: reply("x", 60, 40))
    service = Service(server.url, "m", budget=150)
    service.ask(ASK)
    service.ask(ASK, max_tokens=1)
    with pytest.raises(ServiceError, match="budget of 150 tokens is spent: 200 on 2 questions"):
        service.ask(ASK, max_tokens=2)
    assert service.ask(ASK) == "x" and len(server.questions) == 2


def test_a_malformed_reply_is_asked_for_again(serve):
    server = serve(lambda n, body: reply("I think it is years." if n == 1 else 'Sure: {"label": "a  year"}'))
    service = Service(server.url, "m")
    assert explained(service, ["in [[1900]]"]) == "a year"
    assert service.malformed == 1
    assert [m["role"] for m in server.questions[1][0]["messages"]] == ["system", "user", "assistant", "user"]


def test_replies_that_stay_malformed_are_none_and_counted(serve):
    service = Service(serve(lambda n, body: reply("no idea")).url, "m")
    assert judged(service, "a year", ["in 1900", "she left"]) is None
    assert service.malformed == 2


def test_what_can_be_read():
    assert read_verdicts('{"x": 1} ```{"right": [1, 3]}```', 3) == [True, False, True]
    assert read_verdicts('{"right": []}', 2) == [False, False]
    for bad in ('{"right": [0]}', '{"right": [true]}', '{"right": "1"}', "[1, 2]", ""):
        with pytest.raises(MalformedReply):
            read_verdicts(bad, 3)
    for bad in ('{"label": ""}', '{"label": 3}', "label: year", '{"label": "' + "x" * 300 + '"}'):
        with pytest.raises(MalformedReply):
            read_label(bad)


def test_without_the_package(monkeypatch):
    import builtins

    real = builtins.__import__

    def no_openai(name, *rest):
        if name == "openai":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", no_openai)
    with pytest.raises(ServiceError, match="needs the package openai.*pip install"):
        Service("http://127.0.0.1:9/v1", "m").ask(ASK)


def test_a_service_labels_latents_of_mine_beside_the_rules(serve, tmp_path, monkeypatch):
    monkeypatch.setenv("PROBE_TO_STEER_CACHE", str(tmp_path))
    model = tiny_model()
    model.cfg.model_name = "tiny-llama"
    words, draw = sorted(word for word in model.tokenizer.get_vocab() if word.isalpha()), torch.Generator().manual_seed(0)
    texts = [" ".join(words[j] for j in torch.randint(len(words), (200,), generator=draw)) for _ in range(60)]
    sae = SAE(SAEConfig(24, 120, 5, "tiny-llama", resid_post(1)), seed=3).requires_grad_(False)

    def behave(n, body):
        judging = "check labels" in body["messages"][0]["content"]
        return (401, {"error": {"message": "no"}}, {}) if n > 8 else reply('{"right": [1, 2]}' if judging else '{"label": "words"}')

    service = Service(serve(behave).url, "m", replies=tmp_path / "replies.jsonl", retries=0)
    found = label_mine(sae, model, texts=texts, latents=30, service=service, ask=6, progress=False)
    assert len(found.asked.written) == len(found.asked.scores) == 4 and found.asked.unread == 0
    assert all(0 <= theirs <= 1 and 0 <= rule <= 1 for theirs, rule in found.asked.scores.values())
    assert "OPENAI" in found.verdict or "api_key" in found.verdict
    assert "On 4 latents" in found.verdict and f"{len(found.labels):,} latents labelled" in found.verdict
