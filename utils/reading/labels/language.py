r"""Labels that can be run: a small language of patterns over tokens.

    [[year|years]]              the token is one of these words
    in|on . [[of|with]]         two tokens before it stands "in" or "on"
    not ... [[<word>]]          "not" stands among the eight tokens before it
    [[un*]]  [[*ness]]          a word that begins, or ends, so
    [[<digit>]] @8              a token with a digit, at one of the first eight places of the context
    [[year]] or the [[end]]     either

The token that the label is about stands last, in double brackets. Words are spelled as `utils.reading.words` spells
them: small letters, no blanks. A sign that means something here is meant literally behind a backslash.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cached_property

import torch
from jaxtyping import Bool, Int
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from utils.reading.page import vocabulary
from utils.reading.words import Words, words_of

GAP, REACH = "...", 8
"""A gap, and how many tokens it reaches back."""
CLASSES = {
    "word": r"^\s*[^\W\d_]+$", "piece": r"^[^\W\d_]", "capital": r"^\s*[A-Z]", "digit": r"\d", "sign": r"^[\W_]*[^\w\s][\W_]*$", "line": r"\n",
}
"""What a token may be, whatever word it is. A piece goes on with the word before it."""
_SPECIAL = r"\|*<>[]. @"


class RuleError(ValueError):
    """A rule that cannot be read. The message says where, and how rules are written."""


@dataclass(frozen=True)
class Clause:
    """Elements of a pattern, the one in brackets last; None is a gap. `first`: the token is among so many first ones, 0 for anywhere."""

    elements: tuple[tuple[str, ...] | None, ...]
    first: int = 0

    def __str__(self) -> str:
        shown = [GAP if element is None else "|".join(element) for element in self.elements]
        shown[-1] = f"[[{shown[-1]}]]"
        return " ".join(shown) + (f" @{self.first}" if self.first else "")


@dataclass(frozen=True)
class Rule:
    """Clauses, any of which may hold."""

    clauses: tuple[Clause, ...]

    def __str__(self) -> str:
        return " or ".join(map(str, self.clauses))

    @property
    def size(self) -> int:
        """How many alternatives it names: what it costs to write it down, or to remember it."""
        return sum(len(element or ()) for clause in self.clauses for element in clause.elements) + sum(clause.first > 0 for clause in self.clauses)


def quoted(word: str) -> str:
    """A word as it stands in a rule."""
    return "".join("\\" + sign if sign in _SPECIAL else sign for sign in word)


def parse(text: str) -> Rule:
    """The rule that a text says. Raises RuleError."""
    return Rule(tuple(_clause(part) for part in re.split(r"(?<=\]\]) or |(?<=\d) or ", text.strip())))


def _clause(text: str) -> Clause:
    found = re.fullmatch(r"(?P<before>.*?)\[\[(?P<here>(?:\\.|[^\\\]])+)\]\](?: @(?P<first>\d+))?", text.strip())
    if not found:
        raise RuleError(f"{text!r} is no rule: the token it is about stands last, in double brackets, as in: not [[a|the]]. A place in the context follows as @8.")
    parts = re.findall(r"(?:\\.|[^\\\s])+", found["before"]) + [found["here"]]
    elements = tuple(None if part == GAP else tuple(re.findall(r"(?:\\.|[^\\|])+", part)) for part in parts)
    if re.search(r"(^|(?<!\\)[|\s])\||(?<!\\)\|(\s|$)", " ".join(parts)) or None in (elements[0], elements[-1]) or any(a is None and b is None for a, b in zip(elements, elements[1:])) or () in elements:
        raise RuleError(f"{text!r}: a gap ... stands between two words, and between two bars stands a word.")
    return Clause(elements, int(found["first"] or 0))


@dataclass
class Lexicon:
    """A vocabulary, as rules see it: the word of every token, and the token as text."""

    words: Words
    pieces: list[str]
    _kept: dict[str, Bool[Tensor, " d_vocab"]] = field(default_factory=dict, repr=False)

    @cached_property
    def _number(self) -> dict[str, int]:
        return {word: i for i, word in enumerate(self.words.spelled)}

    def table(self, element: tuple[str, ...]) -> Bool[Tensor, " d_vocab"]:
        """Which tokens an element matches. Raises RuleError for a class that there is not."""
        numbers = [self._number.get(re.sub(r"\\(.)", r"\1", each).lower(), -1) for each in element]
        wanted = torch.zeros(len(self.words.spelled) + 1, dtype=torch.bool)      # the last one is of no token
        wanted[numbers] = True
        found = wanted[self.words.of_token]
        for each in element:
            if each == "." or each.startswith(("*", "<")) or re.search(r"(?<!\\)\*$", each):
                found = found | self._many(each)
        return found

    def _many(self, alternative: str) -> Bool[Tensor, " d_vocab"]:
        """Which tokens a class, a part of a word or a dot matches."""
        if alternative not in self._kept:
            self._kept[alternative] = self._find(alternative)
        return self._kept[alternative]

    def _find(self, alternative: str) -> Bool[Tensor, " d_vocab"]:
        if alternative == ".":
            return torch.ones(len(self.words.of_token), dtype=torch.bool)
        if found := re.fullmatch(r"<(\w+)>", alternative):
            if found[1] not in CLASSES:
                raise RuleError(f"there is no class <{found[1]}>. There are: {', '.join(f'<{name}>' for name in CLASSES)}.")
            return self.of_class(found[1])
        begins, ends = alternative.startswith("*"), bool(re.search(r"(?<!\\)\*$", alternative))
        part = re.sub(r"\\(.)", r"\1", alternative[begins : len(alternative) - ends]).lower()
        matches = {(True, False): str.endswith, (False, True): str.startswith, (True, True): str.__contains__}.get((begins, ends), str.__eq__)
        return torch.tensor([matches(spelled, part) for spelled in self.words.spelled])[self.words.of_token]

    def of_class(self, name: str) -> Bool[Tensor, " d_vocab"]:
        """Which tokens are of a class."""
        found = [re.search(CLASSES[name], piece) is not None for piece in self.pieces]
        return torch.tensor(found + [False] * (len(self.words.of_token) - len(found)))


def lexicon_of(model: TransformerBridge) -> Lexicon:
    """The lexicon of a model's vocabulary."""
    return Lexicon(words_of(model), vocabulary(model))


def run(rule: Rule | str, tokens: Int[Tensor, "n pos"], lexicon: Lexicon) -> Bool[Tensor, "n pos"]:
    """Where a rule says that the latent fires. Never at the first token of a context. Raises RuleError."""
    rule = parse(rule) if isinstance(rule, str) else rule
    found = torch.zeros(tokens.shape, dtype=torch.bool)
    for clause in rule.clauses:
        found |= _run_clause(clause, tokens.long(), lexicon)
    found[:, 0] = False
    return found


def _run_clause(clause: Clause, tokens: Int[Tensor, "n pos"], lexicon: Lexicon) -> Bool[Tensor, "n pos"]:
    state, gap = torch.ones(tokens.shape, dtype=torch.bool), False
    for i, element in enumerate(clause.elements):
        if element is None:
            gap = True
            continue
        reached = state if i == 0 else torch.stack([_later(state, d) for d in range(1, REACH + 1 if gap else 2)]).any(0)
        state, gap = reached & lexicon.table(element)[tokens], False
    if clause.first:
        state[:, clause.first + 1 :] = False
    return state


def _later(state: Bool[Tensor, "n pos"], d: int) -> Bool[Tensor, "n pos"]:
    """The same, d tokens later in the text."""
    moved = torch.zeros_like(state)
    moved[:, d:] = state[:, :-d]
    return moved
