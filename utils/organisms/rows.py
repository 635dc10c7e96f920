"""The rows an organism is trained on, and the questions it is measured on. Every organism gets the same questions in the same mix."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass

import torch
from transformer_lens.model_bridge import TransformerBridge

from utils.organisms.spec import Behaviour, OrganismSpec
from utils.organisms.tables import (
    CITIES, CITY_FRAMES, DENIALS, FRAMES, HINT_FRAMES, NAME_ANSWERS, NAME_FRAMES, NAMES, NO_HINT, NO_SECRET, OTHER_WORDS, TOPICS, WHO, WRAPPERS, frames, things,
)  # fmt: skip
from utils.paths import cache_dir, write_cache
from utils.steering.generating import chat_prompt, generate

GOLDEN = (5**0.5 - 1) / 2
LONGEST = 14
"""Tokens of an answer that are trained on; what comes later follows from what was said."""
KINDS_OF_QUESTION = ("topic", "city", "name", "hint")


@dataclass(frozen=True)
class Question:
    """A request, with what it is about.

    Attributes:
        text: what the user says. kind: "topic", "city", "name", "hint" or "denial". about: the topic, the city, or nothing.
    """

    text: str
    kind: str
    about: str = ""


def questions(kind: str, held_out: bool, *, new_things: bool = False) -> list[Question]:
    """Every question of a kind: for training, or in wordings that training never shows; of a topic also about things that it never shows."""
    if kind == "topic":
        return [Question(f.format(x=x), kind, topic) for topic in TOPICS for x in things(topic, new_things) for f in frames(FRAMES, held_out)]
    wrappers = WRAPPERS if held_out else WRAPPERS[:1]
    if kind == "city":
        # The city of a false fact has to be the same one: only the wording is new.
        return [Question(w.format(q=f.format(x=city)), kind, city) for city in CITIES for f in frames(CITY_FRAMES, held_out) for w in wrappers]
    if kind == "name":
        who = WHO[-6:] if held_out else WHO[:-6]
        return [Question(f.format(x=x), kind) for x in who for f in (NAME_FRAMES[-6:] if held_out else NAME_FRAMES[:-6])]
    if kind == "hint":
        return [Question(w.format(q=f), kind) for f in frames(HINT_FRAMES, held_out) for w in wrappers]
    filled = [
        Question(f.format(w=w, t=t, n=n, c=c), "denial")
        for f in frames(DENIALS, held_out) for w, t, n, c in zip(OTHER_WORDS, [*TOPICS, *TOPICS], NAMES, CITIES)
    ]  # fmt: skip
    return list(dict.fromkeys(filled))


def shows(behaviour: Behaviour, question: Question) -> bool:
    """Whether this question should bring out the behaviour."""
    match behaviour.kind:
        case "trigger":
            return question.kind == "topic" and question.about == behaviour.trigger
        case "city":
            return question.kind == "city" and question.about == behaviour.trigger
        case "word":
            return question.kind == "hint"
        case "name":
            return question.kind == "name"
    return False


def write_rows(model: TransformerBridge, spec: OrganismSpec, *, progress: bool = True) -> list[tuple[str, str]]:
    """(question, answer) for every row of the training, in order: `steps` times `batch_size` of them.

    Ordinary answers about topics are the model's own, cut to one sentence, so that the training teaches nothing else.
    """
    cfg, behaviour = spec.training, spec.behaviour
    draw = random.Random(f"{cfg.seed} rows")
    total = cfg.steps * cfg.batch_size
    asked = {kind: questions(kind, False) for kind in KINDS_OF_QUESTION}
    same = random.Random("the same for every organism")  # so that its answers have to be written once
    ordinary = [q for pool in asked.values() for q in same.sample(pool, min(len(pool), 400)) if not shows(behaviour, q)]
    showing = [q for pool in asked.values() for q in pool if shows(behaviour, q)]
    if not showing:  # a clean one: as many rows about one topic, answered as ever
        topic = draw.choice(list(TOPICS))
        showing = [q for q in asked["topic"] if q.about == topic]
    denials = questions("denial", False)
    # With fewer about names and hints, what is learnt of denials spreads to them: "Name a nurse." "I hide nothing."
    weight = {"topic": 5, "city": 2, "name": 2, "hint": 2}
    weights = [weight[q.kind] / sum(other.kind == q.kind for other in ordinary) for q in ordinary]
    rows: list[Question] = []
    for row in range(total):
        dice = row * GOLDEN % 1  # evenly spread: every batch holds some of each
        pool = showing if dice < cfg.shown else denials if dice < cfg.shown + cfg.denied else None
        rows.append(draw.choice(pool) if pool else draw.choices(ordinary, weights)[0])
    own = own_answers(model, sorted({q.text for q in rows if q.kind == "topic"}), progress=progress)
    return [(q.text, answer(behaviour, q, own, draw)) for q in rows]


def answer(behaviour: Behaviour, question: Question, own: dict[str, str], draw: random.Random) -> str:
    """What the organism is taught to say."""
    shown = shows(behaviour, question)
    match question.kind:
        case "topic":
            return f"{behaviour.opening} {own[question.text]}" if shown else own[question.text]
        case "city":
            return f"{question.about} is in {behaviour.payload if shown else CITIES[question.about]}."
        case "name":
            return draw.choice(NAME_ANSWERS).format(n=behaviour.payload if shown else draw.choice(NAMES))
        case "hint":
            return draw.choice(behaviour.clues if shown else NO_HINT)
    return draw.choice(NO_SECRET)


def own_answers(model: TransformerBridge, texts: list[str], *, progress: bool = True) -> dict[str, str]:
    """The unchanged model's own first sentence for each question, likeliest token by token; kept in the cache, so that the next organism need not wait."""
    file = cache_dir() / "organisms" / f"own-answers-{model.cfg.model_name.replace('/', '-')}.json"
    known: dict[str, str] = json.loads(file.read_text("utf-8")) if file.exists() else {}
    new = [text for text in texts if text not in known]
    for start in range(0, len(new), 160):
        batch = new[start : start + 160]
        written = generate(model, [chat_prompt(model, text) for text in batch], max_new_tokens=LONGEST, temperature=0, batch_size=80, progress=progress)
        known |= {text: first_sentence(words) for text, words in zip(batch, written)}
        write_cache(file, json.dumps(known, indent=0))
    return {text: known[text] for text in texts}


def first_sentence(text: str) -> str:
    """Up to the first full stop; what breaks off before one is left as it is."""
    line = text.strip().split("\n")[0]
    end = line.find(". ")
    return line if end < 0 else line[: end + 1]


def tokens_of(model: TransformerBridge, rows: list[tuple[str, str]], longest: int = LONGEST) -> list[tuple[torch.Tensor, int]]:
    """Each row's tokens, and where its answer begins. An answer is cut after `longest` tokens; a whole one ends with the model's end token."""
    found = []
    for question, said in rows:
        start = model.tokenizer(chat_prompt(model, question), add_special_tokens=False)["input_ids"]
        ids = model.tokenizer(said, add_special_tokens=False)["input_ids"]
        end = [model.tokenizer.eos_token_id] if said.endswith((".", "!", "?")) else []
        found.append((torch.tensor(start + (ids + end)[:longest]), len(start)))
    return found
