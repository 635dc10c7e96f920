"""Text in; text, next-token logits or log-probabilities out, for many prompts at once."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from tqdm.auto import tqdm
from transformer_lens.model_bridge import TransformerBridge

from utils.activations import tokenize
from utils.steering.reach import PASS, Pass, SteeringError


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
    rows = _followed_by(model, starts, texts)
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


def whole_texts(
    model: TransformerBridge, prompts: Sequence[str], texts: Sequence[str]
) -> tuple[Int[Tensor, "n pos"], Int[Tensor, " n"], Int[Tensor, " n"]]:
    """The tokens of each prompt with its text behind it, padded on the right, and the places where the text starts and ends.

    Text and prompt are tokenized apart, as they were when the one was written after the other.

    Returns: (tokens, start, end): row i of the tokens holds text i from start[i] up to, and without, end[i].

    Raises: SteeringError for a text past the context; ValueError for another number of prompts than texts; see also `tokenize`.
    """
    starts = _prompt_rows(model, prompts, chat=False)
    tokens, real = _pad(model, _followed_by(model, starts, texts))
    return tokens, torch.tensor([len(start) for start in starts], device=tokens.device), real.sum(1)


def _followed_by(model: TransformerBridge, starts: list[list[int]], texts: Sequence[str]) -> list[list[int]]:
    """Each prompt's tokens with those of its text behind them."""
    if len(starts) != len(texts):
        raise ValueError(f"{len(texts)} texts follow {len(starts)} prompts: give one for each.")
    rows = [start + model.tokenizer(text, add_special_tokens=False)["input_ids"] for start, text in zip(starts, texts)]
    _check_room(model, [len(row) for row in rows], "prompt and text together")
    return rows


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
    mark = PASS.set(Pass(real[:, -tokens.shape[1]:], prompt))
    try:
        return model.original_model(
            input_ids=tokens, attention_mask=real.long(), position_ids=position.clamp(min=0), past_key_values=cache, use_cache=True
        )
    finally:
        PASS.reset(mark)


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
