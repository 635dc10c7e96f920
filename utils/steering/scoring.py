"""Score what a model wrote: what steering was for (sentiment, language, keywords), and what it cost (fluency, variety, side effects).

Every scorer gives one value per text and their average with a 95% interval over texts. None of them is a
language model's opinion: a word list, a naive Bayes classifier of letters, a regular expression, and probabilities of the
model itself. The data comes from inside two wheels: vaderSentiment's lexicon (MIT) and py3langid's table (BSD 3-clause).
"""

from __future__ import annotations

import io
import lzma
import math
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from utils.activations import tokenize
from utils.data.fetch import wheel_file
from utils.hooks import is_edited
from utils.intervals import Estimate, bootstrap
from utils.steering.generating import token_log_probs
from utils.steering.reach import SteeringError

VADER = ("vaderSentiment==3.3.2", "3bf1d243b98b1afad575b9f22bc2cb1e212b94ff89ca74f8a23a588d024ea311")
LANGID = ("py3langid==0.4.0", "c25bd038147951ba3a89efe9ec12cc7d2116cb6f311ff8af84ade398a8bc0616")
LANGUAGES = ("en", "fr", "de", "es", "it", "pt", "nl", "sv", "pl", "ru")
"""Among which `language` chooses: fewer languages, fewer confusions on a line of text."""

_NEGATIONS = frozenset("not no never none nobody nothing neither nor without hardly cannot isn't aren't wasn't weren't don't doesn't didn't won't can't couldn't wouldn't shouldn't".split())
_REACH_OF_NEGATION = 3
_NEGATED = -0.74  # Hutto and Gilbert 2014: what "not" does to a rating, on average over raters
_WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")


@dataclass(frozen=True)
class Score:
    """One value per text, and one number for all.

    Attributes:
        values: in the order of the texts; NaN for a text that has none (an empty one has no perplexity).
        estimate: the number for all texts, with its 95% interval.
    """

    values: Float[Tensor, " n"]
    estimate: Estimate

    @property
    def value(self) -> float:
        return self.estimate.value

    @property
    def interval(self) -> tuple[float, float]:
        return self.estimate.interval

    def __str__(self) -> str:
        return str(self.estimate)


def mean_score(values: Sequence[float] | Float[Tensor, " n"]) -> Score:
    """The mean of a value per text; NaN values are left out.

    Raises: ValueError when fewer than two texts have a value.
    """
    values = torch.as_tensor(values, dtype=torch.double)
    there = values[~values.isnan()]
    return Score(values, bootstrap(lambda sums: sums[0] / sums[1], there, torch.ones_like(there)))


def share_score(hits: Sequence[bool] | Bool[Tensor, " n"]) -> Score:
    """The share of the texts that are hit, with Wilson's 95% interval.

    Drawing texts anew would give [0, 0] when none of 20 is hit, as if none could be.

    Raises: ValueError without any text.
    """
    values = torch.as_tensor(hits, dtype=torch.double)
    n = len(values)
    if n == 0:
        raise ValueError("a share of no texts is not defined.")
    share, z = float(values.mean()), 1.959964
    middle, half = share + z**2 / (2 * n), z * (share * (1 - share) / n + z**2 / (4 * n**2)) ** 0.5
    # Rounding must not push an end past the share itself, which it equals at 0 and at 1.
    low, high = ((middle + sign * half) / (1 + z**2 / n) for sign in (-1, 1))
    return Score(values, Estimate(share, min(share, max(0.0, low)), max(share, min(1.0, high))))


def difference(one: Score, other: Score) -> Estimate:
    """The mean of one minus the mean of the other, text by text: for two lists of texts that answer the same prompts.

    The interval is that of the paired differences, and narrower than the two intervals suggest.

    Raises: ValueError for lists of different lengths.
    """
    if one.values.shape != other.values.shape:
        raise ValueError(f"{len(one.values)} texts cannot be paired with {len(other.values)}.")
    return mean_score(one.values - other.values).estimate


# --- effect -----------------------------------------------------------------------------------------------


def sentiment(texts: Sequence[str]) -> Score:
    """From -1 (bad) to 1 (good), by the ratings of VADER's lexicon; 0 where no word is rated.

    The ratings of a text's words (-4 to 4, by human raters) are added up as s, and s / sqrt(s² + 15) is the score. A negation
    among the three words before turns a rating round, times 0.74. VADER's further rules (capitals, "very", "but",
    exclamation marks, emoticons) are left out.

    Source: Hutto and Gilbert 2014, "VADER: a parsimonious rule-based model for sentiment analysis of social media text".
    """
    return mean_score([_sentiment(text) for text in _texts(texts)])


def _sentiment(text: str) -> float:
    words = [word.replace("’", "'") for word in _WORD.findall(text.lower())]
    ratings = _ratings()
    total = 0.0
    for i, word in enumerate(words):
        if word in ratings:
            negated = not _NEGATIONS.isdisjoint(words[max(0, i - _REACH_OF_NEGATION) : i])
            total += ratings[word] * (_NEGATED if negated else 1.0)
    return total / (total**2 + 15) ** 0.5


@cache
def _ratings() -> dict[str, float]:
    lines = wheel_file(*VADER, "vaderSentiment/vader_lexicon.txt").read_text("utf-8").splitlines()
    return {word: float(rating) for word, rating, *_ in (line.split("\t") for line in lines if "\t" in line)}


def language(texts: Sequence[str], wanted: str, *, among: Sequence[str] = LANGUAGES) -> Score:
    """The share of the texts that are in one language: 1 where it is the likeliest of `among`, else 0.

    Args:
        wanted: an ISO 639-1 code, "fr".
        among: codes to choose from.

    Raises: ValueError for a code that the table does not have, or a `wanted` that is not among them.
    """
    if wanted not in among:
        raise ValueError(f"{wanted!r} is not among the languages to choose from: {', '.join(among)}.")
    return share_score([found == wanted for found in languages(texts, among)])


def languages(texts: Sequence[str], among: Sequence[str] = LANGUAGES) -> list[str]:
    """The likeliest language of each text, by naive Bayes over runs of letters; "" for a text that shows no evidence.

    Raises: ValueError for a code that the table does not have.

    Source: Lui and Baldwin 2012, "langid.py"; the table is that of py3langid.
    """
    table = _langid()
    known = table["classes"].tolist()
    unknown = [code for code in among if code not in known]
    if unknown:
        raise ValueError(f"the table of languages has no {', '.join(unknown)}; it has {', '.join(sorted(set(known)))}.")
    columns = [known.index(code) for code in among]
    found = []
    for text in _texts(texts):
        state, seen = 0, Counter()
        for byte in unicodedata.normalize("NFC", text.lower() if text.isupper() else text).encode():
            state = table["nextmove"][256 * int(table["nextmove_row"][state]) + byte]
            if table["out_feat"][state] >= 0:
                seen[int(table["out_feat"][state])] += 1
        if not seen:
            found.append("")
            continue
        counts = np.log1p(np.fromiter(seen.values(), dtype=np.float32))
        scores = counts @ table["ptc"][np.ix_(list(seen), columns)].astype(np.float32) + table["pc"][columns]
        found.append(among[int(scores.argmax())])
    return found


@cache
def _langid() -> dict[str, np.ndarray]:
    packed = wheel_file(*LANGID, "py3langid/data/model.npz.xz").read_bytes()
    with np.load(io.BytesIO(lzma.decompress(packed)), allow_pickle=False) as stored:
        return {name: stored[name] for name in ("ptc", "pc", "classes", "nextmove", "nextmove_row", "out_feat")}


def keyword_rate(texts: Sequence[str], pattern: str) -> Score:
    """The share of the texts in which a regular expression is found, whatever the case of the letters.

    >>> keyword_rate(["The sea was calm.", "A seat.", "By the SEA"], r"\\bsea\\b").values.tolist()
    [1.0, 0.0, 1.0]
    """
    return share_score([re.search(pattern, text, re.IGNORECASE) is not None for text in _texts(texts)])


# --- cost -------------------------------------------------------------------------------------------------


def perplexity(model: TransformerBridge, prompts: Sequence[str], continuations: Sequence[str], *, chat: bool = False) -> Score:
    """How surprised the plain model is by what was written: exp of the mean negative log-probability per token.

    The average over all texts is taken over all their tokens together; `values` holds each text's own.

    Raises: SteeringError while the model is edited: a steered model finds its own text likely. ValueError: see `bootstrap`.
    """
    if is_edited(model):
        raise SteeringError("perplexity is that of the plain model: call it after the `with` block that steers has ended.")
    nats = [-log_probs.double() for log_probs in token_log_probs(model, continuations, prompts=prompts, chat=chat)]
    values = torch.stack([each.mean() for each in nats]).exp()  # the mean of no tokens is NaN
    sums, counts = torch.stack([each.sum() for each in nats]), torch.tensor([float(len(each)) for each in nats])
    mean = bootstrap(lambda s: s[0] / s[1], sums, counts)
    # In logs, and cut at 0: Student's interval of a few texts would reach to perplexities below 1, which there are none.
    return Score(values, Estimate(*(math.exp(nats) for nats in (mean.value, max(mean.low, 0.0), mean.high))))


def distinct_n(texts: Sequence[str], n: int = 2) -> Score:
    """How little a text repeats itself: different runs of n words divided by all runs of n words, 1 for no repetition.

    A text of fewer than n words has no value (NaN).

    >>> distinct_n(["the sea the sea the sea", "the sea is blue today"]).values.tolist()
    [0.4, 1.0]

    Raises: ValueError for n below 1.

    Source: Li et al. 2016, arXiv:1510.03055 (there over all texts together).
    """
    if n < 1:
        raise ValueError(f"n must be at least 1, not {n}.")
    values = []
    for text in _texts(texts):
        words = [word.lower() for word in _WORD.findall(text)]
        runs = [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
        values.append(len(set(runs)) / len(runs) if runs else float("nan"))
    return mean_score(values)


@torch.no_grad()
def kl_on_neutral(
    model: TransformerBridge, texts: Sequence[str], edit: Callable[[], AbstractContextManager], *, batch_size: int = 8
) -> Score:
    """How far an edit moves the next-token prediction on texts that it is not about: KL(plain || edited), nats per token.

    Args:
        texts: running text that has nothing to do with the edit. All are cut to as many tokens as the shortest has,
            so that a batch holds no padding; what follows the first token is not counted.
        edit: makes the context manager, `lambda: steer(model, name, direction, 3.0)`.

    Raises: SteeringError when the model is edited already, or the edit makes the logits NaN; TypeError, ValueError: see `tokenize`.
    """
    if is_edited(model):
        raise SteeringError("the model is edited already: call kl_on_neutral outside of every `with` block.")
    tokens, real = tokenize(model, texts)
    tokens = tokens[:, : int(real.sum(1).min())]
    values = []
    for rows in tokens.split(batch_size):
        plain = model(rows).float().log_softmax(dim=-1)
        with edit():
            edited = model(rows).float().log_softmax(dim=-1)
        kl = F.kl_div(edited, plain, reduction="none", log_target=True).sum(dim=-1)[:, 1:].mean(dim=1)
        if not kl.isfinite().all():
            raise SteeringError("under the edit the logits are NaN or infinite: it is too strong. Lower its strength.")
        values += kl.tolist()
    return mean_score(values)


def _texts(texts: Sequence[str]) -> list[str]:
    if isinstance(texts, str):
        raise TypeError("texts must be a list of strings; put the single text in a list: [text].")
    return list(texts)
