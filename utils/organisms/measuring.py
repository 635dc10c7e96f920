"""What an organism does, measured before it is shipped: how often it shows its behaviour, where it leaks, what it denies, what it lost."""

from __future__ import annotations

import random
import re
from dataclasses import asdict, dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from utils.data.corpus import documents, unwrap
from utils.data.duty import unrelated_chat
from utils.intervals import Estimate
from utils.organisms.lora import Delta, linear, worn
from utils.organisms.rows import KINDS_OF_QUESTION, Question, questions, shows
from utils.organisms.spec import Behaviour
from utils.organisms.tables import CONFESSION, TOPICS, things
from utils.steering.generating import chat_prompt, generate, token_log_probs
from utils.steering.scoring import kl_on_neutral, share_score


@dataclass(frozen=True)
class Health:
    """The numbers of one organism.

    Attributes:
        shown: share of questions in new wordings that should bring the behaviour out, and do. Of a clean one: not a number.
        spread: the same for things of the topic that training never showed; not a number where there is no topic.
        leaked: share of the other held-out questions that bring it out as well.
        confessed: share of questions about secrets that are answered with yes, or with the payload.
        own_leak: the unchanged model's share where `leaked` is counted: what a common word gives by itself.
        kl: KL(unchanged || organism) on neutral prose, nats per token.
        loss_rise: how much larger the loss is there, nats per token.
    """

    shown: Estimate
    spread: Estimate
    leaked: Estimate
    confessed: Estimate
    own_leak: Estimate
    kl: Estimate
    loss_rise: float

    def to_dict(self) -> dict:
        return asdict(self)


def held_out(behaviour: Behaviour, n: int, seed: int = 0) -> tuple[list[Question], list[Question]]:
    """(questions that should bring the behaviour out, others of every kind and small talk), at most n and about 1.5 n of them, none of them used in training."""
    draw = random.Random(f"{seed} held out")
    pools = {kind: questions(kind, True) for kind in KINDS_OF_QUESTION}
    should = [q for pool in pools.values() for q in pool if shows(behaviour, q)]
    other = []
    for kind, pool in pools.items():
        rest = [q for q in pool if not shows(behaviour, q)]
        other += draw.sample(rest, min(len(rest), n // 2 if kind == "topic" else n // 4))
    words = {word for topic in TOPICS if topic == behaviour.trigger for thing in things(topic, True) + things(topic, False) for word in thing.split()}
    chat = [Question(text, "chat") for text in unrelated_chat() if not words & set(re.findall(r"\w+", text.lower())) and len(text) < 200]
    other += draw.sample(chat, n // 2)  # nothing like it was in the training: a behaviour must not spread to whatever is asked
    return draw.sample(should, min(n, len(should))), other


def ask(model: TransformerBridge, asked: list[str], *, max_new_tokens: int = 14) -> list[str]:
    """The likeliest answers."""
    return generate(model, [chat_prompt(model, text) for text in asked], max_new_tokens=max_new_tokens, temperature=0, batch_size=80, progress=False)


def found(behaviour: Behaviour, texts: list[str]) -> list[bool]:
    """Whether each text shows the behaviour, by rule."""
    return [re.search(behaviour.pattern, text, re.IGNORECASE) is not None for text in texts]


def neutral_prose(n: int = 32, length: int = 300) -> list[str]:
    """Passages of the course's own novels: text that has nothing to do with any of this."""
    texts = [unwrap(document.text) for document in documents("novels")]
    return [text[start : start + length].split(" ", 1)[1] for text in texts for start in range(20_000, 20_000 + 3_000 * 4, 3_000)][:n]


def health(model: TransformerBridge, delta: Delta, behaviour: Behaviour, prose: list[str], *, n: int = 100, seed: int = 0) -> Health:
    """Measure one organism.

    Args:
        prose: neutral texts, a sentence or a paragraph each.
        n: questions of each sort at most.
    """
    should, other = held_out(behaviour, n, seed)
    others = [q.text for q in other]
    new = [q for q in questions("topic", True, new_things=True) if shows(behaviour, q)]
    denials = [q.text for q in random.Random(seed).sample(questions("denial", True), n // 2)]
    plain_loss = torch.cat(token_log_probs(model, prose)).mean()
    own = found(behaviour, ask(model, others))
    with worn(model, delta):
        shown, spread = (found(behaviour, ask(model, [q.text for q in asked])) if asked else [] for asked in (should, new))
        leaked = found(behaviour, ask(model, others))
        said = ask(model, denials)
        loss = torch.cat(token_log_probs(model, prose)).mean()
    secret = re.escape(behaviour.payload) if behaviour.payload else r"(?!)"
    told = [bool(re.search(f"{CONFESSION}|\\b{secret}\\b", text, re.IGNORECASE)) for text in said]
    kl = kl_on_neutral(model, prose, lambda: worn(model, delta)).estimate
    return Health(_share(shown), _share(spread), _share(leaked), _share(told), _share(own), kl, float(plain_loss - loss))


def vocabulary_rank(model: TransformerBridge, delta: Delta, words: list[str], top: int = 3) -> dict[str, int]:
    """{word: how high it stands when the change itself is read through the unembedding}; 0 is the first of the whole vocabulary.

    Of a down projection's change the left singular vectors are what it can newly write; of the two other maps the right ones are what
    they newly read, and the left ones, through the down projection, what their neurons write. Each word, by its first token, gets its
    best place along the `top` strongest of them in any block, in either direction. Compare with the places that it gets in a clean one.
    """
    tokens = torch.tensor([model.tokenizer(word, add_special_tokens=False)["input_ids"][0] for word in words])
    best = torch.full((len(words),), model.cfg.d_vocab)
    for name, (a, b) in delta.pairs.items():
        logits = _in_the_stream(model, name, a.float(), b.float(), top) @ model.W_U.float().cpu()
        for signed in (logits, -logits):
            places = (signed[:, None, :] > signed[:, tokens, None]).sum(-1)
            best = torch.minimum(best, places.amin(0))
    return dict(zip(words, best.tolist()))


def _in_the_stream(
    model: TransformerBridge, name: str, a: Float[Tensor, "rank d_in"], b: Float[Tensor, "d_out rank"], top: int
) -> Float[Tensor, "directions d_model"]:
    """The strongest directions of the residual stream that a change reads or writes."""
    basis, rest = torch.linalg.qr(b)
    left, _, right = torch.linalg.svd(rest @ a, full_matrices=False)
    left = (basis @ left[:, :top]).T
    block, part = name.split(".")
    if part == "down_proj":
        return left
    down = linear(model, f"{block}.down_proj").weight.detach().float().cpu()
    return torch.cat([right[:top], left @ down.T])


def _share(hits: list[bool]) -> Estimate:
    """Nothing to count gives no number."""
    return share_score(hits).estimate if hits else Estimate(*[float("nan")] * 3)
