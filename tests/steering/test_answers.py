"""The first token of an answer: which it is, whether it is right, how likely it declines."""

from __future__ import annotations

import pytest
import torch

from utils.hooks import resid_post
from utils.steering.answers import first_token_right, first_tokens, log_odds_of_first
from utils.steering.generating import generate, next_token_logits, token_log_probs, whole_texts
from utils.steering.steering import steer


def test_the_first_token_alone_decides(model, prompts):
    likeliest = next_token_logits(model, prompts).argmax(-1)
    words = [model.tokenizer.decode([token]) for token in likeliest]
    known = [i for i, word in enumerate(words) if first_tokens(model, [word]) == [int(likeliest[i])]]
    assert known
    right = first_token_right(model, [prompts[i] for i in known], [words[i] + " and dog" for i in known])
    assert right.tolist() == [1.0] * len(known)
    wrong = first_token_right(model, [prompts[i] for i in known], ["France" if words[i] != "France" else "dog" for i in known])
    assert wrong.sum() == 0


def test_an_edit_is_seen(model, direction, prompts):
    plain = log_odds_of_first(model, prompts, ["dog"])
    with steer(model, resid_post(1), direction(), 6.0):
        assert not torch.allclose(log_odds_of_first(model, prompts, ["dog"]), plain)


def test_log_odds_are_those_of_the_sum(model, prompts):
    ids = first_tokens(model, ["dog", "France"])
    share = next_token_logits(model, prompts).double().softmax(-1)[:, ids].sum(-1)
    torch.testing.assert_close(log_odds_of_first(model, prompts, ["dog", "France", "dog"]).sigmoid(), share)


def test_what_cannot_be_right_is_refused(model, prompts):
    with pytest.raises(ValueError, match="word 1 is empty"):
        first_tokens(model, ["dog", ""])
    with pytest.raises(ValueError, match="one for each"):
        first_token_right(model, prompts, ["dog"])


def test_whole_texts_hold_each_text_where_they_say(model, prompts):
    texts = generate(model, prompts, max_new_tokens=5)
    tokens, start, end = whole_texts(model, prompts, texts)
    log_probs = model(tokens).log_softmax(-1)
    for i, expected in enumerate(token_log_probs(model, texts, prompts=prompts)):
        own = torch.arange(int(start[i]), int(end[i]))
        torch.testing.assert_close(log_probs[i, own - 1, tokens[i, own]], expected, atol=1e-4, rtol=1e-4)
    with pytest.raises(ValueError, match="one for each"):
        whole_texts(model, prompts, texts[:2])
