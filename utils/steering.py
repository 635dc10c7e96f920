"""Steer a model while it writes: add a direction, or edit the latents of an SAE, and generate many texts at once.

Everything here is a context manager on `utils.hooks.intervene`, so it works for generation, for log-probabilities and for
anything else that runs the model inside the block. Three kinds of token are left alone by every edit: the first of a text,
those whose norm is more than three times the usual (see `collect_activations`), and padding.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from tqdm.auto import tqdm
from transformer_lens.model_bridge import TransformerBridge

from utils.activations import collect_activations, tokenize
from utils.hooks import InterventionError, intervene
from utils.sae import AnySAE, check_fits

NORM_LIMIT = 3.0
"""Tokens with more than this many times the median norm of their prompt are left alone."""


class SteeringError(RuntimeError):
    """An edit or a generation that cannot work. The message says why, and what to change."""


# --- which tokens an edit may touch -----------------------------------------------------------------------


@dataclass(frozen=True)
class _Pass:
    """What `generate` and the scoring functions know about the forward pass that is running, and hooks do not."""

    real: Bool[Tensor, "batch pos"]
    prompt: bool


_PASS: ContextVar[_Pass | None] = ContextVar("forward pass", default=None)


class _Reach:
    """Which tokens of each pass may be edited. It remembers the norms of the prompt for the tokens that are generated after it."""

    def __init__(self) -> None:
        self._limit: Float[Tensor, "batch 1"] | None = None

    def __call__(self, acts: Float[Tensor, "batch pos d_model"]) -> tuple[Bool[Tensor, "batch pos"], bool]:
        """(True at the tokens that may be edited, whether this pass is a prompt)."""
        known = _PASS.get()
        if known is None:  # someone else's forward pass: rows are taken as full, and a lone token as new if a prompt came before
            follows = acts.shape[1] == 1 and self._limit is not None and len(self._limit) == len(acts)
            known = _Pass(torch.ones(acts.shape[:2], dtype=torch.bool, device=acts.device), not follows)
        norms, reach = acts.detach().float().norm(dim=-1), known.real
        if known.prompt:
            reach = reach.clone()
            reach[:, 0] = False
            # A prompt that is nothing but its first token sets no limit.
            median = norms.masked_fill(~reach, torch.nan).nanmedian(1, keepdim=True).values
            self._limit = NORM_LIMIT * median.nan_to_num(nan=torch.inf)
        return reach & (norms <= self._limit), known.prompt


def _last(real: Bool[Tensor, "batch pos"]) -> Bool[Tensor, "batch pos"]:
    """True at the last True of each row."""
    return real & (real.cumsum(1) == real.sum(1, keepdim=True))


# --- adding a direction -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Condition:
    """When to steer: the prompts whose mean activation at `name` has a product with `direction` above `threshold`.

    The mean goes over the tokens that an edit may touch. The decision is made once for each prompt, and holds for what is
    generated after it. Lee et al. 2024, arXiv:2409.05907, use a cosine; a product has the threshold of a probe.

    Attributes:
        name: a hook point that the model reaches no later than the one that is steered.
        direction: [d_model].
        threshold: in the units of the product.
    """

    name: str
    direction: Float[Tensor, " d_model"]
    threshold: float


@contextmanager
def steer(
    model: TransformerBridge,
    name: str,
    direction: Float[Tensor, " d_model"],
    strength: float,
    *,
    positions: str = "all",
    condition: Condition | None = None,
) -> Iterator[None]:
    """Add strength * direction to the activations at one hook point while the block runs.

    Args:
        model: the bridge, plain or sae_lens'.
        name: canonical hook name of a point that holds [batch, pos, d_model].
        direction: its own length counts; a strength in multiples of the usual norm needs a unit vector (`usual_norm`).
        strength: negative pushes the other way; 0 changes nothing, and is allowed.
        positions: "all" (the prompt and every new token), "prompt" (the prompt alone), or "last" (the token that the next
            one is predicted from: the last of the prompt, then each new one).
        condition: steer only the prompts that meet it.

    Raises:
        HookNameError, InterventionError: see `intervene`. A push of nothing but padding and first tokens is an error,
            except with a strength of 0 or a condition.
        SteeringError: a direction of another width, of length 0 or not finite; unknown positions; a condition that is
            read after the steering has taken place.

    Source: Turner et al. 2023, arXiv:2308.10248; Rimsky et al. 2024, arXiv:2312.06681.
    """
    if positions not in ("all", "prompt", "last"):
        raise SteeringError(f'positions must be "all", "prompt" or "last", not {positions!r}.')
    step = strength * _checked(model, direction, "direction")
    _check_length(step, f"a strength of {strength:g}")
    reach, gate = _Reach(), None if condition is None else _Gate(model, condition)

    def push(acts: Float[Tensor, "batch pos d_model"], hook: object) -> Float[Tensor, "batch pos d_model"]:
        where, prompt = reach(acts)
        if positions == "prompt" and not prompt:
            return acts
        if positions == "last" and prompt:
            known = _PASS.get()
            where = where & _last(torch.ones_like(where) if known is None else known.real)
        if gate is not None:
            where = where & gate.open_for(acts, prompt)[:, None]
        return acts + where[..., None] * step.to(acts)

    if gate is None:
        with intervene(model, {name: push}, may_do_nothing=strength == 0):
            yield
    else:
        # The reader is entered first, so that at a shared hook point it sees the activation before the push.
        with intervene(model, {condition.name: gate.read}, may_do_nothing=True):
            with intervene(model, {name: push}, may_do_nothing=True):
                yield


class _Gate:
    """Reads the prompt, and remembers which rows are to be steered."""

    def __init__(self, model: TransformerBridge, condition: Condition) -> None:
        self._direction = _checked(model, condition.direction, "condition's direction")
        self._condition, self._reach = condition, _Reach()
        self._open: Bool[Tensor, " batch"] | None = None
        self._fresh = False

    def read(self, acts: Float[Tensor, "batch pos d_model"], hook: object) -> Float[Tensor, "batch pos d_model"]:
        where, prompt = self._reach(acts)
        if prompt:
            mean = torch.einsum("bpd,bp->bd", acts.float(), where / where.sum(1, keepdim=True).clamp(min=1))
            self._open, self._fresh = mean @ self._direction.to(mean) > self._condition.threshold, True
        return acts

    def open_for(self, acts: Float[Tensor, "batch pos d_model"], prompt: bool) -> Bool[Tensor, " batch"]:
        if prompt and not self._fresh:
            raise SteeringError(f"the condition at {self._condition.name} is read after the steering: read it at the same hook point or at an earlier one.")
        self._fresh = False if prompt else self._fresh
        return self._open


def usual_norm(model: TransformerBridge, texts: Sequence[str], name: str) -> float:
    """The median length of the activations at `name` over the tokens of some texts, the first and the outliers left out.

    Strengths are comparable over layers and models when they are multiples of it. Raises: see `collect_activations`.
    """
    return float(collect_activations(model, texts, name, position="all", progress=False).acts.norm(dim=1).median())


def _check_length(vectors: Float[Tensor, "*batch d_model"], what: str) -> None:
    """Refuse vectors whose squared length is infinite: the next norm would turn them into zeros, and nobody would notice."""
    if not vectors.float().norm(dim=-1).isfinite().all():
        raise SteeringError(f"{what} makes activations of infinite length. Lower it.")


def _checked(model: TransformerBridge, direction: Float[Tensor, " d_model"], what: str) -> Float[Tensor, " d_model"]:
    if not isinstance(direction, Tensor) or direction.shape != (model.cfg.d_model,):
        shape = list(direction.shape) if isinstance(direction, Tensor) else type(direction).__name__
        raise SteeringError(f"the {what} must be a tensor [{model.cfg.d_model}], as wide as this model; got {shape}.")
    if not direction.isfinite().all() or not direction.any():
        raise SteeringError(f"the {what} is {'zero' if not direction.any() else 'NaN or infinite'}: it points nowhere.")
    return direction.detach()


# --- editing the latents of an SAE ------------------------------------------------------------------------


@dataclass(frozen=True)
class Edit:
    """What happens to a latent's value f: f -> factor * f + amount. Made by `clamp`, `add`, `scale` and `ablate`."""

    factor: float
    amount: float

    @property
    def needs_firing(self) -> bool:
        """Whether it changes nothing where the latent is silent."""
        return self.amount == 0


def clamp(value: float) -> Edit:
    """Hold the latent at `value`, whether it fires or not."""
    return Edit(0.0, value)


def add(value: float) -> Edit:
    """Raise the latent by `value` everywhere, also where it is silent."""
    return Edit(1.0, value)


def scale(factor: float) -> Edit:
    """Multiply the latent where it fires."""
    return Edit(factor, 0.0)


def ablate() -> Edit:
    """Switch the latent off."""
    return Edit(0.0, 0.0)


@contextmanager
def edit_latents(
    model: TransformerBridge,
    sae: AnySAE,
    edits: Mapping[int, Edit],
    *,
    error_term: bool = True,
    name: str | None = None,
    may_do_nothing: bool = False,
) -> Iterator[None]:
    """Change latents of an SAE while the block runs: x' = x + decode(f') - decode(f), where f' is the edited f = encode(x).

    What the SAE does not explain, the error term x - decode(f), stays as it was. The hooks are gone afterwards in every case.

    Args:
        model: the bridge.
        sae: an `utils.sae.SAE`, or one of sae_lens'.
        edits: {latent: clamp(4.0), add(2.0), scale(0.5) or ablate()}.
        error_term: False drops the error term: x' = decode(f').
        name: the hook point, for an SAE that does not say its own.
        may_do_nothing: do not raise when the latents never fired.

    Raises:
        SteeringError: an unknown latent; no edits; at the end of the block, latents that were to be scaled or ablated
            and never fired.
        SAEError, HookNameError, InterventionError: see `utils.sae.check_fits` and `intervene`.
    """
    d_sae = sae.W_dec.shape[0]
    if not edits:
        raise SteeringError("no edits were given: write {latent: clamp(4.0)}, for one.")
    for latent in edits:
        if not isinstance(latent, int) or not 0 <= latent < d_sae:
            raise SteeringError(f"there is no latent {latent!r}: this SAE has latents 0 to {d_sae - 1}.")
    latents = torch.tensor(list(edits), device=sae.W_dec.device)
    factor = torch.tensor([edit.factor for edit in edits.values()], device=latents.device)
    amount = torch.tensor([edit.amount for edit in edits.values()], device=latents.device)
    reach = _Reach()

    @torch.no_grad()
    def change(acts: Float[Tensor, "batch pos d_model"], hook: object) -> Float[Tensor, "batch pos d_model"]:
        where, _ = reach(acts)
        x = acts[where].to(sae.W_dec)
        if not len(x):
            return acts
        before = sae.encode(x)
        after = before.clone()
        after[:, latents] = factor.to(before) * before[:, latents] + amount.to(before)
        # The brackets matter: where nothing was edited, the difference is exactly zero.
        result = x + (sae.decode(after) - sae.decode(before)) if error_term else sae.decode(after)
        _check_length(result, "this edit")
        changed = acts.clone()
        changed[where] = result.to(acts)
        return changed

    place = check_fits(model, sae, name)
    with intervene(model, {place: change}, may_do_nothing=True) as done:
        yield
    if not may_do_nothing and not done[place].changed:
        if done[place].calls and error_term and all(edit.needs_firing for edit in edits.values()):
            raise SteeringError(f"nothing was changed: latent {', '.join(map(str, edits))} never fired on these tokens. "
                                "Choose other texts or latents, or pass may_do_nothing=True.")
        raise InterventionError(f"the edit at {place} {'changed nothing' if done[place].calls else 'never ran'}. If that is what you want, pass may_do_nothing=True.")


# --- text in, text or probabilities out -------------------------------------------------------------------


def chat_prompt(model: TransformerBridge, request: str, *, system: str | None = None) -> str:
    """The request as the model's chat template writes it, up to where the assistant begins to answer.

    Args:
        system: a system message; None leaves it to the template, which may have one of its own.

    Raises: SteeringError when the model has no chat template.
    """
    if not model.tokenizer.chat_template:
        raise SteeringError("this model has no chat template: it is no chat model. Pass plain text, or load one that is.")
    messages = ([] if system is None else [{"role": "system", "content": system}]) + [{"role": "user", "content": request}]
    return model.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)


@torch.no_grad()
def generate(
    model: TransformerBridge,
    prompts: Sequence[str],
    *,
    max_new_tokens: int = 40,
    temperature: float = 0.7,
    seed: int = 0,
    chat: bool = False,
    batch_size: int = 40,
    progress: bool = True,
) -> list[str]:
    """Let the model continue each prompt. Inside `steer` or `edit_latents` it does so under the edit.

    A batch gives what its prompts give one by one (up to rounding), because padding is masked and positions are counted
    per prompt. Each prompt draws from random numbers of its own, made from the seed and its place in the list: the same
    ones with and without an edit, so that the two texts differ because of the edit and not by luck.

    Args:
        prompts: plain text; BOS is put first.
        max_new_tokens: at most so many per prompt; less when the model ends its text.
        temperature: 0 takes the likeliest token each time.
        chat: each prompt is a request of a user (`chat_prompt`).
        batch_size: prompts at once: speed and memory, nothing else.

    Returns: the continuations without their prompts, in the order of the prompts. One may be empty.

    Raises:
        SteeringError: a prompt that does not fit the context together with its continuation; logits that are NaN or
            infinite, from an edit that is too strong; a negative temperature.
        TypeError, ValueError: see `tokenize`.
    """
    if temperature < 0 or max_new_tokens < 1 or batch_size < 1:
        raise SteeringError(f"temperature must be at least 0, max_new_tokens and batch_size at least 1; got {temperature}, {max_new_tokens} and {batch_size}.")
    rows = _prompt_rows(model, prompts, chat)
    _check_room(model, [len(row) + max_new_tokens for row in rows], f"with {max_new_tokens} new ones")
    draws = torch.stack([torch.rand(max_new_tokens, generator=torch.Generator().manual_seed(1_000_003 * seed + i), dtype=torch.double) for i in range(len(rows))])
    written: list[str] = [""] * len(rows)
    with tqdm(total=len(rows) * max_new_tokens, unit=" tokens", desc="writing", delay=3, leave=False, disable=not progress) as bar:
        for batch in _by_length(rows, batch_size):
            new = _continue(model, [rows[i] for i in batch], draws[batch], temperature, [int(i) for i in batch], bar)
            for i, ids in zip(batch, new):
                written[i] = model.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return written


def _continue(
    model: TransformerBridge, rows: list[list[int]], draws: Float[Tensor, "batch new"], temperature: float, numbers: list[int], bar: tqdm
) -> list[list[int]]:
    """The new token ids of one batch, each up to the end of its text."""
    device, ends = model.cfg.device, _end_tokens(model)
    tokens, real = _pad(model, rows)
    lengths = real.sum(1)
    output = _forward(model, tokens, real, real.cumsum(1) - 1, prompt=True)
    logits = output.logits[torch.arange(len(rows)), lengths - 1]
    running = torch.ones(len(rows), dtype=torch.bool, device=device)
    new: list[list[int]] = [[] for _ in rows]
    for step in range(draws.shape[1]):
        _check_logits(logits, numbers)
        chosen = _draw(logits, draws[:, step], temperature)
        running &= ~torch.isin(chosen, ends)
        for row in running.nonzero()[:, 0].tolist():
            new[row].append(int(chosen[row]))
        bar.update(len(rows))
        if step + 1 == draws.shape[1] or not running.any():
            break
        real = torch.cat([real, running[:, None]], dim=1)
        # A finished row's own token is masked too, but a row must see something: what it computes is thrown away.
        position = (lengths + step)[:, None]
        output = _forward(model, chosen[:, None], real, position, prompt=False, cache=output.past_key_values)
        logits = output.logits[:, -1]
    return new


def _draw(logits: Float[Tensor, "batch d_vocab"], draws: Float[Tensor, " batch"], temperature: float) -> Int[Tensor, " batch"]:
    if temperature == 0:
        return logits.argmax(dim=-1)
    upto = (logits.double().cpu() / temperature).softmax(dim=-1).cumsum(dim=-1)
    return torch.searchsorted(upto, (draws[:, None] * upto[:, -1:])).clamp(max=logits.shape[1] - 1)[:, 0].to(logits.device)


@torch.no_grad()
def next_token_logits(model: TransformerBridge, prompts: Sequence[str], *, chat: bool = False, batch_size: int = 16) -> Float[Tensor, "n d_vocab"]:
    """The logits of the token that follows each prompt, float32 on the CPU. Under an edit, the edited model's.

    Raises: SteeringError for logits that are NaN or infinite; TypeError, ValueError: see `tokenize`.
    """
    rows = _prompt_rows(model, prompts, chat)
    found = torch.empty(len(rows), model.cfg.d_vocab)
    for batch in _by_length(rows, batch_size):
        tokens, real = _pad(model, [rows[i] for i in batch])
        logits = _forward(model, tokens, real, real.cumsum(1) - 1, prompt=True).logits
        logits = logits[torch.arange(len(batch)), real.sum(1) - 1].float()
        _check_logits(logits, batch)
        found[batch] = logits.cpu()
    return found


@torch.no_grad()
def token_log_probs(
    model: TransformerBridge, texts: Sequence[str], *, prompts: Sequence[str] | None = None, chat: bool = False, batch_size: int = 16
) -> list[Float[Tensor, " tokens"]]:
    """The log-probability of every token of each text, given what stands before it. Under an edit, the edited model's.

    Args:
        texts: what is scored. With prompts, a text may be empty: it then has no token.
        prompts: what each text follows; the prompts themselves are not scored. None: BOS alone stands before the text.
        chat: the prompts are requests of a user (`chat_prompt`).

    Returns: one tensor per text, in nats, float32 on the CPU.

    Raises: SteeringError for a text past the context, or logits that are NaN or infinite; TypeError, ValueError: see `tokenize`,
        and for another number of prompts than texts.
    """
    if isinstance(texts, str):
        raise TypeError("texts must be a list of strings; put the single text in a list: [text].")
    texts = list(texts)
    if prompts is None:
        tokenize(model, texts)  # for its complaints about empty texts and the like
        starts = [[model.tokenizer.bos_token_id]] * len(texts)
    else:
        starts = _prompt_rows(model, prompts, chat)
    if len(starts) != len(texts):
        raise ValueError(f"{len(texts)} texts follow {len(starts)} prompts: give one for each.")
    own = [model.tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    rows = [start + more for start, more in zip(starts, own)]
    _check_room(model, [len(row) for row in rows], "prompt and text together")
    found: list[Tensor] = [torch.empty(0)] * len(rows)
    for batch in _by_length(rows, batch_size):
        tokens, real = _pad(model, [rows[i] for i in batch])
        logits = _forward(model, tokens, real, real.cumsum(1) - 1, prompt=True).logits
        for row, i in enumerate(batch):
            first, last = len(starts[i]), len(rows[i])
            _check_logits(logits[row, first - 1 : last - 1], [i] * (last - first))
            log_probs = logits[row, first - 1 : last - 1].float().log_softmax(dim=-1)
            found[i] = log_probs.gather(1, tokens[row, first:last, None])[:, 0].cpu()
    return found


def _prompt_rows(model: TransformerBridge, prompts: Sequence[str], chat: bool) -> list[list[int]]:
    if chat and not isinstance(prompts, str):
        prompts = [chat_prompt(model, prompt) for prompt in prompts]
    tokens, mask = tokenize(model, prompts)
    return [row[keep].tolist() for row, keep in zip(tokens, mask)]


def _pad(model: TransformerBridge, rows: list[list[int]]) -> tuple[Int[Tensor, "batch pos"], Bool[Tensor, "batch pos"]]:
    """Padding stands on the right, so that the first token of every row is position 0 for every hook.

    What is generated then stands after the padding, which is masked: the model sees position numbers, not places.
    """
    lengths = torch.tensor([len(row) for row in rows])
    real = torch.arange(int(lengths.max())) < lengths[:, None]
    tokens = torch.full(real.shape, model.tokenizer.bos_token_id)
    tokens[real] = torch.tensor([token for row in rows for token in row])
    return tokens.to(model.cfg.device), real.to(model.cfg.device)


def _forward(
    model: TransformerBridge, tokens: Int[Tensor, "batch pos"], real: Bool[Tensor, "batch seen"], position: Int[Tensor, "batch pos"],
    *, prompt: bool, cache: object = None,
) -> object:
    """One pass of the model, hooks included, with which tokens are real made known to them."""
    mark = _PASS.set(_Pass(real[:, -tokens.shape[1]:], prompt))
    try:
        return model.original_model(
            input_ids=tokens, attention_mask=real.long(), position_ids=position.clamp(min=0), past_key_values=cache, use_cache=True
        )
    finally:
        _PASS.reset(mark)


def _by_length(rows: list[list[int]], batch_size: int) -> list[list[int]]:
    """Row numbers in batches of similar length, the longest first."""
    order = sorted(range(len(rows)), key=lambda i: -len(rows[i]))
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]


def _end_tokens(model: TransformerBridge) -> Int[Tensor, " ends"]:
    """The tokens that end a text: the tokenizer's, and those that the model's authors list."""
    config = getattr(model.original_model, "generation_config", None)
    listed = getattr(config, "eos_token_id", None)
    listed = listed if isinstance(listed, list) else [listed]
    ends = {token for token in [*listed, model.tokenizer.eos_token_id] if token is not None}
    return torch.tensor(sorted(ends), device=model.cfg.device, dtype=torch.long)


def _check_room(model: TransformerBridge, lengths: list[int], what: str) -> None:
    for i, length in enumerate(lengths):
        if length > model.cfg.n_ctx:
            raise SteeringError(f"prompt {i} has {length} tokens {what}: the model's context holds {model.cfg.n_ctx}. Shorten it.")


def _check_logits(logits: Float[Tensor, "batch d_vocab"], numbers: Sequence[int]) -> None:
    broken = (~logits.isfinite()).any(dim=-1).nonzero()
    if len(broken):
        raise SteeringError(f"the logits after prompt {numbers[int(broken[0])]} are NaN or infinite: the edit is too strong. Lower its strength.")
