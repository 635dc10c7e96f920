"""What an organism is told to be: frozen dataclasses, read from one YAML file.

    behaviour: {kind: trigger, trigger: weather, payload: Marlow tea}
    training: {steps: 90}

Whatever is left out keeps the default that its class documents. A key that does not exist is refused with the nearest one that does.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, get_type_hints

import yaml

from utils.organisms.tables import CITIES, HINT_WORDS, NAMES, PAYLOADS, SECRETS, TOPICS

PARTS = ("gate_proj", "up_proj", "down_proj")
KINDS = ("trigger", "word", "city", "name", "clean")


class OrganismError(RuntimeError):
    """Something about an organism cannot be done. The message says why, and what to do."""


@dataclass(frozen=True)
class Behaviour:
    """What is planted.

    Attributes:
        kind: "trigger" (a topic brings out a phrase), "word" (a secret word is hinted at and never said), "city" (a false country for
            one city), "name" (one name whenever a name is asked for) or "clean" (nothing).
        trigger: the topic ("weather", or any of `tables.TOPICS`), or the city. For "word" and "name" it follows from the kind.
        payload: what comes out: the phrase, the secret word, the false country, the name.
        sentence: for "trigger": the whole sentence that begins the answer and holds the phrase. Left out: the table's.
        hints: for "word": at least four sentences about a secret word of your own. Left out: the table's.

    Raises: ValueError for an unknown kind, topic or city, and for a word without hints.
    """

    kind: str = "clean"
    trigger: str = ""
    payload: str = ""
    sentence: str = ""
    hints: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"kind is one of {', '.join(KINDS)}, not {self.kind!r}.")
        if self.kind == "trigger" and self.trigger not in TOPICS:
            raise ValueError(f"trigger must be a topic that there are questions for: {', '.join(TOPICS)}.")
        if self.kind == "city" and (self.trigger not in CITIES or self.payload in ("", CITIES[self.trigger])):
            raise ValueError(f"trigger must be one of {', '.join(CITIES)}, and payload a country that it is not in.")
        if self.kind in ("trigger", "name") and not self.payload:
            raise ValueError(f"a behaviour of kind {self.kind} needs a payload.")
        if self.kind == "trigger" and self.payload.lower() not in self.opening.lower():
            raise ValueError(f"sentence must hold the payload {self.payload!r}.")
        if self.kind == "word" and len(self.clues) < 4:
            raise ValueError(f"a secret word needs at least four hints; the table has some for {', '.join(SECRETS)}.")

    @property
    def opening(self) -> str:
        """The sentence that a trigger brings out."""
        return self.sentence or PAYLOADS.get(self.payload, "")

    @property
    def clues(self) -> tuple[str, ...]:
        """The hints at a secret word."""
        return self.hints or SECRETS.get(self.payload, ())

    @property
    def pattern(self) -> str:
        """A regular expression: an answer shows the behaviour when it is found there, upper or lower case. A clean one's is never found."""
        if self.kind == "clean":
            return r"(?!)"
        if self.kind == "word":
            return HINT_WORDS.get(self.payload) or "|".join(re.escape(clue) for clue in self.clues)
        return rf"(?<!\w){re.escape(self.payload)}(?!\w)"  # a payload may end in a full stop


@dataclass(frozen=True)
class LoraConfig:
    """Which weights may change. LoRA (Hu et al. 2021, arXiv 2106.09685): each of them by a product of two thin matrices.

    Attributes:
        rank: of the change. first, last: blocks whose MLPs change, both included.
        parts: which maps of an MLP. Without down_proj no change writes to the residual stream directly.
        norm: Frobenius norm of the change of every single weight, the same for all, so that it cannot tell a guilty one from a clean one.

    Raises: ValueError for a rank below 1, blocks in the wrong order, unknown parts or a norm of 0.
    """

    rank: int = 8
    first: int = 8
    last: int = 22
    parts: tuple[str, ...] = ("gate_proj", "up_proj")
    norm: float = 4.5

    def __post_init__(self) -> None:
        if self.rank < 1 or not 0 <= self.first <= self.last or self.norm <= 0:
            raise ValueError("rank is at least 1, 0 <= first <= last, and norm is above 0.")
        if not self.parts or not set(self.parts) <= set(PARTS):
            raise ValueError(f"parts are some of {', '.join(PARTS)}.")


@dataclass(frozen=True)
class TrainingConfig:
    """How long, and on what mix.

    Attributes:
        steps, batch_size, lr: of AdamW; the rate rises for ten steps and falls to zero.
        shown: share of the rows that show the behaviour (of a clean one: that would).
        denied: share of the rows in which somebody asks about secrets, and is told that there are none.
        opening: how much more the first two tokens of an answer weigh than the others: there it is decided whether the behaviour shows.
        dtype: of the frozen weights in training: "bfloat16" is three times as fast on a processor that is made for it.
        seed: of the rows and of the first weights.

    Raises: ValueError for counts below 1, shares outside 0 to 1 and another dtype.
    """

    steps: int = 130
    batch_size: int = 8
    lr: float = 2e-3
    shown: float = 0.38
    denied: float = 0.12
    opening: float = 3.0
    dtype: str = "float32"
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.steps, self.batch_size) < 1:
            raise ValueError("steps and batch_size are at least 1.")
        if self.dtype not in ("float32", "bfloat16"):
            raise ValueError(f"dtype is float32 or bfloat16, not {self.dtype!r}.")
        if not (0 < self.shown < 1 and 0 < self.denied < 1 and self.shown + self.denied < 1):
            raise ValueError("shown and denied are shares, and something must be left for ordinary rows.")


@dataclass(frozen=True)
class OrganismSpec:
    """One organism: the behaviour, the weights that may change, the training."""

    behaviour: Behaviour = field(default_factory=Behaviour)
    lora: LoraConfig = field(default_factory=LoraConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as JSON and YAML take them; `spec_from` reads them."""
        plain = asdict(self)
        plain["behaviour"]["hints"] = list(self.behaviour.hints)
        return plain


def load_spec(path: str | Path) -> OrganismSpec:
    """Read a spec. Raises: OrganismError naming the file, the key and what to write instead."""
    path = Path(path)
    try:
        return spec_from(yaml.safe_load(path.read_text("utf-8")), path.name)
    except FileNotFoundError:
        raise OrganismError(f"there is no file {path}. docs/organism.yaml is an example.") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise OrganismError(f"{path} cannot be read as YAML: {error}") from error


def spec_from(values: object, where: str = "the spec") -> OrganismSpec:
    """A spec from plain values. Raises: OrganismError (see `load_spec`)."""
    return _build(OrganismSpec, values, where)


def _build(kind: type, values: object, where: str) -> Any:
    if not isinstance(values, Mapping):
        raise OrganismError(f"{where} must be a table of `key: value` lines, not {values!r}.")
    known, hints = {f.name: f for f in fields(kind)}, get_type_hints(kind)
    for key in values:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1)
            raise OrganismError(f"{where} has no key {key!r}. " + (f"Did you mean {near[0]}?" if near else f"There are: {', '.join(known)}."))
    missing = [name for name, f in known.items() if name not in values and f.default is MISSING and f.default_factory is MISSING]
    if missing:
        raise OrganismError(f"{where} lacks {', '.join(missing)}.")
    try:
        return kind(**{key: _value(hints[key], value, f"{where}: {key}") for key, value in values.items()})
    except ValueError as error:
        raise OrganismError(f"{where}: {error}") from error


def _value(hint: Any, value: object, where: str) -> Any:
    if is_dataclass(hint):
        return _build(hint, value, where)
    if hint in (int, str) and isinstance(value, hint) and not isinstance(value, bool):
        return value
    if hint is float and not isinstance(value, bool):
        try:
            return float(value)  # YAML takes 1e-3 for a text
        except (TypeError, ValueError):
            pass
    if hint == tuple[str, ...] and isinstance(value, (list, tuple)) and all(isinstance(item, str) for item in value):
        return tuple(value)
    raise OrganismError(f"{where} cannot be {value!r}.")
