"""A probe on duty: it reads every token of a prompt and of what the model writes after it, and stops or flags.

The probe is attention-pooled: one direction (`query`) says how much a token counts, another (`value`) what it says. Softmax and
weighted sum need only two running sums per text, so a new token costs two dot products, however long the text is.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F
from transformer_lens.hook_points import HookPoint
from transformer_lens.model_bridge import TransformerBridge

from utils.activations import collect_activations
from utils.hooks import _attached, check_hook_names
from utils.probes import logistic
from utils.steering.generating import _by_length, _end_tokens, _prompt_rows, generate
from utils.steering.reach import PASS, Reach, SteeringError

UNEMBED = "unembed.hook_out"


@dataclass(frozen=True)
class TokenProbe:
    """Two directions and a bias, on raw activations. `probe(acts, mask)` is one log-odds per text.

    With a query of zeros it is a linear probe of the mean activation.
    """

    query: Float[Tensor, " d_model"]
    value: Float[Tensor, " d_model"]
    bias: Float[Tensor, ""]

    def __call__(self, acts: Float[Tensor, "batch pos d_model"], mask: Bool[Tensor, "batch pos"]) -> Float[Tensor, " batch"]:
        kept = acts.masked_fill(~mask[..., None], 0)
        weights = (kept @ self.query).masked_fill(~mask, -math.inf).softmax(dim=-1)
        return (weights * (kept @ self.value)).sum(dim=-1) + self.bias


def padded_tokens(model: TransformerBridge, texts: Sequence[str], name: str, **options: object
                  ) -> tuple[Float[Tensor, "n pos d_model"], Bool[Tensor, "n pos"]]:
    """The activations of every token of each text, padded with zeros on the right, and a mask of the real ones.

    The first token and those of an outlying norm are left out, as in `collect_activations`, which also takes the options.
    """
    found = collect_activations(model, texts, name, position="all", **options)
    counts = torch.bincount(found.text, minlength=len(texts))
    place = torch.arange(len(found.text)) - (counts.cumsum(0) - counts)[found.text]
    acts = torch.zeros(len(texts), int(counts.max()), found.acts.shape[1])
    mask = torch.arange(acts.shape[1]) < counts[:, None]
    acts[found.text, place] = found.acts
    return acts, mask


def fit_token_probe(acts: Float[Tensor, "n pos d_model"], mask: Bool[Tensor, "n pos"], labels: Int[Tensor, " n"], *, steps: int = 200,
                    lr: float = 3e-3, weight_decay: float = 1.0) -> TokenProbe:
    """Train an attention-pooled probe with AdamW on standardised activations, and fold the standardisation back.

    It starts from a query of zeros and the logistic probe of the mean activation as its value.

    Raises: ValueError when only one class is there.
    """
    if len(labels.unique()) < 2:
        raise ValueError("a probe needs texts of both classes.")
    real = acts[mask]
    mean, std = real.mean(dim=0), real.std(dim=0).clamp(min=1e-6)
    standard, targets, scale = (acts - mean) / std, labels.float(), acts.shape[-1] ** -0.5
    pooled = (standard.masked_fill(~mask[..., None], 0)).sum(dim=1) / mask.sum(dim=1, keepdim=True)
    value, bias = (start.clone().requires_grad_() for start in logistic(pooled, labels, C=0.01))
    query = torch.zeros_like(value, requires_grad=True)  # scaled, so that a step of it is as small as one of the value
    optimiser = torch.optim.AdamW([query, value, bias], lr=lr, weight_decay=weight_decay)
    for _ in range(steps):
        loss = F.binary_cross_entropy_with_logits(TokenProbe(scale * query, value, bias)(standard, mask), targets)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    query, value = scale * query.detach() / std, value.detach() / std  # the constant of the query drops out of the softmax
    return TokenProbe(query, value, bias.detach() - value @ mean)


@dataclass(frozen=True)
class Watched:
    """What was written under a monitor, in the order of the prompts.

    Attributes:
        texts: the continuations; those that were stopped end where they were.
        scores: for each text the running score after the prompt and after every token read since.
        flagged: after how many new tokens the score was above the threshold for the first time; 0 is the prompt, None never.
    """

    texts: list[str]
    scores: list[list[float]]
    flagged: list[int | None]


class Monitor:
    """Watch `generate` with a probe at one hook point, token by token.

    Args:
        probe: a TokenProbe.
        name: the hook point that it reads, [batch, pos, d_model].
        threshold: an alarm is a running score strictly above it.
        stop: a text that raises an alarm ends there; else it is only flagged. An alarm on the prompt stops the first word.

    The first token, and tokens of an outlying norm, are not read.
    """

    def __init__(self, model: TransformerBridge, probe: TokenProbe, name: str, threshold: float, *, stop: bool = False) -> None:
        self._points = check_hook_names(model, [name, UNEMBED])
        self.model, self.name, self.threshold, self.stop = model, name, threshold, stop
        self._directions = torch.stack([probe.query, probe.value], dim=1).to(model.cfg.device)
        self._bias = probe.bias.to(model.cfg.device)
        self._ends = _end_tokens(model)
        self._batches: list[list[tuple[Tensor, Tensor]]] = []

    def generate(self, prompts: Sequence[str], *, chat: bool = False, batch_size: int = 40, **options: object) -> Watched:
        """`generate` under watch; takes its options.

        Raises: as `generate`; SteeringError when the model's tokenizer knows no token that ends a text, and the monitor may stop.
        """
        if self.stop and not len(self._ends):
            raise SteeringError("this model's tokenizer has no token that ends a text: the monitor can flag, but not stop.")
        rows = _prompt_rows(self.model, prompts, chat)
        with self.watching():
            texts = generate(self.model, prompts, chat=chat, batch_size=batch_size, **options)
        scores: list[list[float]] = [[] for _ in rows]
        for order, steps in zip(_by_length(rows, batch_size), self._batches):
            values, running = (torch.stack(part, dim=1).cpu() for part in zip(*steps))  # [batch, steps]
            for i, own, real in zip(order, values, running):
                scores[i] = own[real].tolist()
        over = [[step for step, score in enumerate(own) if score > self.threshold] for own in scores]
        return Watched(texts, scores, [found[0] if found else None for found in over])

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Read along with whatever `generate` writes inside the block."""
        self._batches, self._reach = [], Reach()
        hooks = [(self._points[self.name], self._read)]
        if self.stop:
            hooks.append((self._points[UNEMBED], self._end))
        with _attached(self.model, hooks):
            yield

    def _read(self, acts: Float[Tensor, "batch pos d_model"], hook: HookPoint) -> None:
        """Add the tokens of this pass to every text's two sums."""
        counts, prompt = self._reach(acts)
        weight, says = (acts.detach() @ self._directions).unbind(dim=-1)
        weight = weight.masked_fill(~counts, -math.inf)
        if prompt:
            self._batches.append([])
            self._highest = weight.new_full((len(acts), 1), -math.inf)
            self._total = self._sum = torch.zeros_like(self._highest)
            self._alarm = torch.zeros(len(acts), dtype=torch.bool, device=acts.device)
        highest = torch.maximum(self._highest, weight.amax(dim=1, keepdim=True))
        safe = highest.nan_to_num(neginf=0.0)
        shrink, share = (self._highest - safe).exp(), (weight - safe).exp()  # sums are kept relative to the largest weight so far
        self._total = self._total * shrink + share.sum(dim=1, keepdim=True)
        self._sum = self._sum * shrink + (share * says).sum(dim=1, keepdim=True)
        self._highest = highest
        score = (self._sum / self._total)[:, 0] + self._bias
        known = PASS.get()
        running = known.real[:, -1] if known is not None and not prompt else torch.ones_like(self._alarm)
        self._alarm = self._alarm | ((score > self.threshold) & running)
        self._batches[-1].append((score, running))

    def _end(self, logits: Float[Tensor, "batch pos d_vocab"], hook: HookPoint) -> Tensor | None:
        """Leave a text that raised an alarm no choice but to end."""
        if not self._alarm.any():
            return None
        only = torch.full_like(logits[0, 0], -1e4)
        only[self._ends] = 1e4
        return torch.where(self._alarm[:, None, None], only, logits)
