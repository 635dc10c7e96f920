"""A language model behind any OpenAI-compatible endpoint, as explainer and as judge of labels.

    service = Service("http://127.0.0.1:8000/v1", "HuggingFaceTB/SmolLM2-135M-Instruct", replies=Path("replies.jsonl"))
    label = explained(service, excerpts)                      a text, or None when no reply could be read
    verdicts = judged(service, label, excerpts)               a bool per excerpt, or None

Every reply is kept in a file under a hash of its question: a question is paid for once, a run that broke off goes on where it
was, and a notebook that has the file needs no service. The question itself is not kept: its texts may be somebody's. The client is `openai`, an optional dependency.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

INSTALL = 'pip install "openai>=2,<4"'
Message = dict[str, str]


class ServiceError(RuntimeError):
    """A question could not be answered. The message says why, and what to do; the replies so far are kept."""

    def _render_traceback_(self) -> list[str]:
        """In a notebook the message stands alone: nothing in the learner's code is wrong."""
        return [f"ServiceError: {self}"]


class MalformedReply(ValueError):
    """A reply that is not of the form that was asked for."""


@dataclass
class Service:
    """An endpoint, the replies that it has given, and what may be spent on it.

    Attributes:
        base_url: such as "http://127.0.0.1:8000/v1"; None asks nobody and answers from the file alone.
        model: as the endpoint calls it. It is part of what a reply is kept under.
        api_key: that of the environment, OPENAI_API_KEY, unless one is given; many local servers take any. Never write it into a notebook.
        replies: a file with a JSON object a line, appended to with every new reply; None keeps them for this session only.
        budget: tokens, of questions and replies together, that this object may spend.
        timeout: seconds for one reply. retries: of a question that was refused for a while or got no answer.
        spent, asked, reused, malformed: what has happened so far: tokens, questions put, questions answered from the file, replies that
            could not be read.
    """

    base_url: str | None
    model: str
    api_key: str = field(default_factory=lambda: os.environ.get("OPENAI_API_KEY", "none"), repr=False)
    replies: Path | None = None
    budget: int = 200_000
    timeout: float = 120.0
    retries: int = 3
    spent: int = 0
    asked: int = 0
    reused: int = 0
    malformed: int = 0
    _known: dict[str, dict] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if self.replies is not None and Path(self.replies).exists():
            for line in Path(self.replies).read_text("utf-8").splitlines():
                try:
                    kept = json.loads(line)
                    self._known[kept["key"]] = kept
                except (ValueError, KeyError, TypeError):
                    continue    # a line that a crash cut off: the question is put again

    def ask(self, messages: Sequence[Message], max_tokens: int = 60) -> str:
        """The reply to a conversation, at temperature 0.

        Raises: ServiceError when there is no reply in the file and the service gives none, or the budget is spent.
        """
        key = hashlib.sha256(json.dumps([self.model, list(messages), max_tokens], ensure_ascii=False).encode()).hexdigest()
        if key in self._known:
            self.reused += 1
            return self._known[key]["reply"]
        if self.base_url is None:
            raise ServiceError("this question has no recorded reply, and no service is named. Set base_url to ask one.")
        if self.spent >= self.budget:
            raise ServiceError(f"the budget of {self.budget:,} tokens is spent: {self.spent:,} on {self.asked:,} questions. The replies are kept; raise budget= and run again.")
        reply, n_in, n_out = self._post(list(messages), max_tokens)
        self.asked, self.spent = self.asked + 1, self.spent + n_in + n_out
        self._keep({"key": key, "model": self.model, "reply": reply, "tokens_in": n_in, "tokens_out": n_out})
        return reply

    def _keep(self, kept: dict) -> None:
        self._known[kept["key"]] = kept
        if self.replies is not None:
            path = Path(self.replies)
            path.parent.mkdir(parents=True, exist_ok=True)
            torn = path.exists() and path.stat().st_size and not path.read_bytes().endswith(b"\n")
            with path.open("a", encoding="utf-8") as file:
                file.write(("\n" if torn else "") + json.dumps(kept, ensure_ascii=False) + "\n")

    def _post(self, messages: list[Message], max_tokens: int) -> tuple[str, int, int]:
        try:
            import openai
        except ImportError as error:
            raise ServiceError(f"asking a service needs the package openai, which is not installed: {INSTALL}") from error
        client = openai.OpenAI(base_url=self.base_url, api_key=self.api_key, timeout=self.timeout, max_retries=self.retries)
        kept = f"The {len(self._known):,} replies so far are kept; run again to go on."
        try:
            answer = client.chat.completions.create(model=self.model, messages=messages, max_tokens=max_tokens, temperature=0)
        except openai.APITimeoutError as error:
            raise ServiceError(f"{self.base_url} gave no reply within {self.timeout:g} s, {self.retries + 1} times. Raise timeout=, or ask for fewer tokens. {kept}") from error
        except openai.APIConnectionError as error:
            raise ServiceError(f"{self.base_url} cannot be reached ({error.__cause__ or error}). Is the server running? {kept}") from error
        except (openai.AuthenticationError, openai.PermissionDeniedError) as error:
            raise ServiceError(f"{self.base_url} refuses the key (HTTP {error.status_code}). Set api_key= to one that it accepts. {kept}") from error
        except openai.RateLimitError as error:
            raise ServiceError(f"{self.base_url} asks to wait (HTTP 429), {self.retries + 1} times in a row: the limit or the credit is used up. {kept}") from error
        except openai.APIStatusError as error:
            raise ServiceError(f"{self.base_url} answers with HTTP {error.status_code}: {str(error.message)[:200]}. {kept}") from error
        except openai.OpenAIError as error:
            raise ServiceError(f"{self.base_url}: {error}. {kept}") from error
        except ValueError as error:    # a body that is no JSON
            raise ServiceError(f"{self.base_url} sent something that is no reply of a chat model ({error}). Does base_url end in /v1? {kept}") from error
        return _content(answer, self.base_url, kept)


def _content(answer: object, base_url: str | None, kept: str) -> tuple[str, int, int]:
    """(the text, tokens of the question, tokens of the reply)."""
    try:
        text = answer.choices[0].message.content
    except (AttributeError, IndexError, TypeError):
        text = None
    if not isinstance(text, str):
        raise ServiceError(f"{base_url} sent something that is no reply of a chat model. Does base_url end in /v1? {kept}")
    usage = getattr(answer, "usage", None)
    return text, int(getattr(usage, "prompt_tokens", 0) or 0), int(getattr(usage, "completion_tokens", 0) or 0)


def asked_until_read(service: Service, messages: Sequence[Message], read: Callable[[str], object], again: str, max_tokens: int = 60, tries: int = 2) -> object | None:
    """What `read` makes of the reply. One that it refuses with a MalformedReply is answered with `again`; None when no try could be read."""
    talk = list(messages)
    for _ in range(tries):
        reply = service.ask(talk, max_tokens)
        try:
            return read(reply)
        except MalformedReply:
            service.malformed += 1
            talk += [{"role": "assistant", "content": reply}, {"role": "user", "content": again}]
    return None


# --- what is asked ------------------------------------------------------------------------------------------


def explain_prompt(excerpts: Sequence[str]) -> list[Message]:
    """Ask for a label: excerpts in which the token that fires stands in double brackets."""
    shown = "\n".join(f"{i}. {text}" for i, text in enumerate(excerpts, 1))
    return [{"role": "system", "content": "You name what short texts have in common. You answer with JSON only."},
            {"role": "user", "content": f"In each text one token stands in double brackets. What do these tokens, or the texts before them, have in common?\n\n{shown}\n\n"
                                        'Answer with one short phrase, as JSON: {"label": "..."}'}]


def judge_prompt(label: str, excerpts: Sequence[str]) -> list[Message]:
    """Ask for which of the excerpts a label is right. For fuzzing they have a token in double brackets, for detection none."""
    shown = "\n".join(f"{i}. {text}" for i, text in enumerate(excerpts, 1))
    about = "is the label right about the token in double brackets" if any("[[" in text for text in excerpts) else "does the text contain what the label says"
    return [{"role": "system", "content": "You check labels. You answer with JSON only."},
            {"role": "user", "content": f"Label: {label}\n\nFor which of these texts {about}?\n\n{shown}\n\nAnswer with their numbers, as JSON: " '{"right": [...]}'}]


def read_label(reply: str) -> str:
    """The label in a reply: JSON with one, wherever it stands. Raises MalformedReply."""
    found = _json_in(reply, "label")
    if not isinstance(found, str) or not found.strip() or len(found) > 200:
        raise MalformedReply(f"no label in {reply[:80]!r}")
    return " ".join(found.split())


def read_verdicts(reply: str, n: int) -> list[bool]:
    """For each of n excerpts, whether it was named. Raises MalformedReply."""
    found = _json_in(reply, "right")
    if not isinstance(found, list) or not all(isinstance(i, int) and not isinstance(i, bool) and 1 <= i <= n for i in found):
        raise MalformedReply(f"no numbers from 1 to {n} in {reply[:80]!r}")
    return [i in found for i in range(1, n + 1)]


def _json_in(reply: str, key: str) -> object:
    """The value under `key` in the first JSON object of a reply that has it; None without one."""
    for start in re.finditer(r"\{", reply):
        try:
            found, _ = json.JSONDecoder().raw_decode(reply[start.start() :])
        except ValueError:
            continue
        if key in found:
            return found[key]
    return None


def explained(service: Service, excerpts: Sequence[str]) -> str | None:
    """A label for a latent from excerpts in which it fires; None when the model gave none that can be read."""
    return asked_until_read(service, explain_prompt(excerpts), read_label, 'Answer with JSON only, as in {"label": "words for a colour"}.')


def judged(service: Service, label: str, excerpts: Sequence[str]) -> list[bool] | None:
    """For which excerpts the model calls the label right; None when no reply could be read."""
    return asked_until_read(service, judge_prompt(label, excerpts), lambda reply: read_verdicts(reply, len(excerpts)), 'Answer with JSON only, as in {"right": [2, 5]}.')
