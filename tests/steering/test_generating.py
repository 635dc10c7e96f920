"""Batched generation and log-probabilities, on the tiny model."""

from __future__ import annotations

import pytest
import torch

from utils.hooks import intervene, resid_post, run_with_cache
from utils.models import tiny_model
from utils.steering.generating import chat_prompt, generate, next_token_logits, token_log_probs
from utils.steering.reach import SteeringError
from utils.steering.steering import steer

HERE = resid_post(1)


@pytest.mark.parametrize("positions", ["none", "all", "prompt", "last"])
def test_a_batch_writes_what_its_prompts_write_one_by_one(model, positions, direction, one_by_one, prompts):
    def write():
        return generate(model, prompts, temperature=0, max_new_tokens=9), one_by_one()

    if positions == "none":
        together, alone = write()
    else:
        with steer(model, HERE, direction(), 6.0, positions=positions):
            together, alone = write()
    assert together == alone
    assert len(set(together)) > 3  # it is not one text for all


@pytest.mark.parametrize("positions", ["none", "all", "prompt", "last"])
def test_generation_equals_running_the_whole_text_again_for_every_token(model, positions, direction, prompts):
    """Without padding, without a cache, and with a hook of the test's own."""
    step = 6.0 * direction()

    for prompt in prompts[:4]:
        tokens = model.to_tokens(prompt)
        limit = 3 * run_with_cache(model, tokens, HERE)[HERE][:, 1:].norm(dim=-1).median(1, keepdim=True).values
        start = tokens.shape[1]

        def push(acts, hook):
            place = torch.arange(acts.shape[1])
            where = {"all": place > 0, "prompt": (place > 0) & (place < start), "last": place >= max(1, start - 1)}[positions]
            return acts + (where & (acts.norm(dim=-1) <= limit))[..., None] * step

        for _ in range(6):
            if positions == "none":
                logits = model(tokens)
            else:
                with intervene(model, {HERE: push}):
                    logits = model(tokens)
            following = logits[0, -1].argmax()
            if following == model.tokenizer.eos_token_id:
                break
            tokens = torch.cat([tokens, following.view(1, 1)], dim=1)
        expected = model.tokenizer.decode(tokens[0, start:], skip_special_tokens=True, clean_up_tokenization_spaces=False)
        if positions == "none":
            written = generate(model, [prompt], temperature=0, max_new_tokens=6)
        else:
            with steer(model, HERE, direction(), 6.0, positions=positions):
                written = generate(model, [prompt], temperature=0, max_new_tokens=6)
        assert written == [expected]


def test_sampling_is_reproducible_and_does_not_depend_on_the_batch(model, prompts):
    ways = [generate(model, prompts, temperature=0.9, seed=3, max_new_tokens=9, batch_size=size) for size in (1, 2, 40)]
    assert ways[0] == ways[1] == ways[2]
    assert generate(model, prompts, temperature=0.9, seed=4, max_new_tokens=9) != ways[0]
    assert generate(model, ["A dog"] * 5, temperature=1.5, max_new_tokens=9) != ["A dog"] * 5
    assert len(set(generate(model, ["A dog"] * 5, temperature=1.5, max_new_tokens=9))) > 1


def test_sampling_follows_the_probabilities(model):
    wanted = next_token_logits(model, ["A dog"])[0].softmax(-1)
    written = generate(model, ["A dog"] * 800, temperature=1, max_new_tokens=1, batch_size=100)
    word = int(wanted.argmax())
    share = sum(text == model.tokenizer.decode([word]) for text in written) / 800
    assert abs(share - float(wanted[word])) < 0.06


def test_generation_stops_at_the_end_of_a_text_and_goes_on_with_the_others(model, prompts):
    ends = model.tokenizer.eos_token_id
    pull = model.original_model.lm_head.weight[ends].clone()
    fresh = tiny_model()
    # The unembedding of the end token is made to win after one word only.
    word = generate(fresh, ["A dog"], temperature=0, max_new_tokens=1)[0]
    with steer(fresh, resid_post(2), torch.nn.functional.normalize(pull, dim=0), 1000.0):
        assert generate(fresh, prompts, temperature=0, max_new_tokens=5) == [""] * len(prompts)
    assert generate(fresh, ["A dog"], temperature=0, max_new_tokens=1)[0] == word


@pytest.mark.parametrize("options", [{"temperature": -1.0}, {"max_new_tokens": 0}, {"batch_size": 0}])
def test_impossible_options_are_refused(model, options, prompts):
    with pytest.raises(SteeringError, match="at least"):
        generate(model, prompts, **options)


def test_a_prompt_past_the_context_is_named(model):
    with pytest.raises(SteeringError, match="prompt 1 has 100 tokens with 9 new ones: the model's context holds 96"):
        generate(model, ["A dog", "dog " * 90], max_new_tokens=9)
    with pytest.raises(ValueError, match="text 0 has 121 tokens"):
        generate(model, ["dog " * 120], max_new_tokens=9)
    with pytest.raises(SteeringError, match="prompt 0 has 103 tokens prompt and text together"):
        token_log_probs(model, ["dog " * 52], prompts=["A " * 50])


@pytest.mark.parametrize("prompts, error", [([], ValueError), ("A dog", TypeError), (["A dog", ""], ValueError), ([3], TypeError)])
def test_what_is_no_list_of_prompts_is_refused(model, prompts, error):
    for function in (generate, next_token_logits):
        with pytest.raises(error):
            function(model, prompts)


def test_a_model_without_a_chat_template_says_so(model, prompts):
    with pytest.raises(SteeringError, match="no chat template"):
        generate(model, prompts, chat=True)


def test_a_chat_template_is_used():
    model = tiny_model()
    model.tokenizer.chat_template = "{{ bos_token }}{% for m in messages %}{{ m['content'] }} {% endfor %}{% if add_generation_prompt %}is{% endif %}"
    assert chat_prompt(model, "A dog", system="The city") == "<|bos|>The city A dog is"
    assert generate(model, ["A dog"], chat=True, temperature=0) == generate(model, ["A dog is"], temperature=0)
    torch.testing.assert_close(next_token_logits(model, ["A dog"], chat=True), next_token_logits(model, ["A dog is"]))


def test_logits_that_are_not_numbers_are_refused(prompts):
    broken = tiny_model()
    broken.original_model.lm_head.weight[7] = torch.nan
    for run in (generate, next_token_logits, token_log_probs):
        with pytest.raises(SteeringError, match="after prompt [0-9] are NaN or infinite"):
            run(broken, prompts)


def test_log_probs_equal_those_of_the_text_alone(model, prompts):
    texts = [prompt + " . The dog is" for prompt in prompts]
    found = token_log_probs(model, texts, batch_size=4)
    for text, log_probs in zip(texts, found):
        tokens = model.to_tokens(text)
        expected = model(tokens)[0, :-1].log_softmax(-1).gather(1, tokens[0, 1:, None])[:, 0]
        torch.testing.assert_close(log_probs, expected, atol=1e-4, rtol=1e-4)


def test_log_probs_after_a_prompt_are_the_tail_of_the_whole(model):
    whole = token_log_probs(model, ["The city of Paris is in France .", "A dog is larger"])
    tail = token_log_probs(model, [" in France .", "", " larger"], prompts=["The city of Paris is", "A city", "A dog is"])
    torch.testing.assert_close(tail[0], whole[0][-3:], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(tail[2], whole[1][-1:], atol=1e-4, rtol=1e-4)
    assert len(tail[1]) == 0
    with pytest.raises(ValueError, match="1 texts follow 2 prompts"):
        token_log_probs(model, ["A dog"], prompts=["The", "A"])
    with pytest.raises(TypeError, match="list of strings"):
        token_log_probs(model, "A dog")


def test_next_token_logits_do_not_depend_on_the_batch(model, prompts):
    together = next_token_logits(model, prompts)
    alone = torch.cat([model(model.to_tokens(prompt))[:, -1] for prompt in prompts])
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=1e-4)
