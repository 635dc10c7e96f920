"""A direction that is added, always or under a condition, on the tiny model."""

from __future__ import annotations

import pytest
import torch

from utils.hooks import HookNameError, InterventionError, intervene, is_edited, resid_post, resid_pre, run_with_cache
from utils.models import tiny_model
from utils.steering.generating import generate, next_token_logits
from utils.steering.latents import clamp, edit_latents
from utils.steering.reach import SteeringError
from utils.steering.steering import Condition, change_usual, steer, usual_norm

HERE = resid_post(1)


def test_steering_adds_the_direction_at_the_tokens_it_says(model, direction):
    tokens, direction = model.to_tokens(["The city of Paris is in France .", "A dog is larger than two cities ."]), direction()
    plain = run_with_cache(model, tokens, HERE)[HERE]
    for positions, first in (("all", 1), ("prompt", 1), ("last", 8)):
        with steer(model, HERE, direction, 2.0, positions=positions):
            moved = run_with_cache(model, tokens, HERE)[HERE] - plain
        torch.testing.assert_close(moved[:, first:], (2.0 * direction).expand(2, 9 - first, 24), atol=1e-5, rtol=0)
        assert not moved[:, :first].any()
    assert not is_edited(model)


def test_tokens_of_unusual_norm_are_left_alone(model, direction):
    tokens = model.to_tokens("The city of Paris is in France .")

    def blow_up(acts, hook):
        acts[:, 4] *= 50
        return acts

    with intervene(model, {HERE: blow_up}):
        plain = run_with_cache(model, tokens, HERE)[HERE]
        with steer(model, HERE, direction(), 2.0):
            moved = (run_with_cache(model, tokens, HERE)[HERE] - plain)[0].norm(dim=-1)
    assert (moved > 1).tolist() == [False, True, True, True, False, True, True, True, True]


def test_padding_sets_no_norm_and_gets_no_push(model, direction):
    seen = []

    def look(acts, hook):
        seen.append(acts.clone())
        return acts

    for edit in (False, True):
        with intervene(model, {resid_pre(2): look}, may_do_nothing=True):
            if edit:
                with steer(model, HERE, direction(), 2.0):
                    next_token_logits(model, ["A dog", "The city of Paris is in France ."])
            else:
                next_token_logits(model, ["A dog", "The city of Paris is in France ."])
    moved = (seen[1] - seen[0]).norm(dim=-1) > 1e-3  # the longest prompt comes first
    assert moved.tolist() == [[False] + [True] * 8, [False, True, True] + [False] * 6]


def test_steering_composes_and_zero_is_nothing(model, direction, prompts):
    one, other = direction(1), direction(2)
    plain = next_token_logits(model, prompts)
    with steer(model, HERE, one, 0.0):
        torch.testing.assert_close(next_token_logits(model, prompts), plain)
    with steer(model, HERE, one, 1.0), steer(model, HERE, other, 3.0):
        both = next_token_logits(model, prompts)
    with steer(model, HERE, one + 3 * other, 1.0):
        torch.testing.assert_close(next_token_logits(model, prompts), both, atol=1e-3, rtol=1e-3)
    assert not torch.allclose(both, plain)


def test_the_bridges_own_generate_is_steered_too(model, direction):
    tokens = model.to_tokens("The city of Paris is")
    with steer(model, HERE, direction(), 6.0):
        theirs = model.generate(tokens, max_new_tokens=5, do_sample=False, stop_at_eos=False, verbose=False)
        ours = generate(model, ["The city of Paris is"], max_new_tokens=5, temperature=0)
    assert model.tokenizer.decode(theirs[0, tokens.shape[1]:], skip_special_tokens=True, clean_up_tokenization_spaces=False).startswith(ours[0])


def test_a_steering_block_in_which_nothing_runs_is_loud(model, direction):
    with pytest.raises(InterventionError, match="never ran"):
        with steer(model, HERE, direction(), 1.0):
            pass


def test_hooks_are_gone_after_an_error(model, direction):
    with pytest.raises(RuntimeError, match="mine"):
        with steer(model, HERE, direction(), 1.0):
            raise RuntimeError("mine")
    assert not is_edited(model)


@pytest.mark.parametrize("direction, words", [
    (torch.ones(23), r"\[24\], as wide as this model; got \[23\]"), (torch.zeros(24), "is zero"), (torch.full((24,), torch.nan), "NaN or infinite"),
    ([1.0] * 24, "got list"),
])
def test_directions_that_cannot_be_added_are_refused(model, direction, words):
    with pytest.raises(SteeringError, match=words):
        with steer(model, HERE, direction, 1.0):
            pass


def test_wrong_names_positions_and_strengths_are_refused(model, direction):
    with pytest.raises(HookNameError, match="hook_out"):
        with steer(model, "blocks.1.hook_resid_post", direction(), 1.0):
            pass
    with pytest.raises(SteeringError, match='"all", "prompt" or "last"'):
        with steer(model, HERE, direction(), 1.0, positions="first"):
            pass


@pytest.mark.parametrize("strength, steered, clamped", [(float("inf"), "must be a finite number", "must be finite numbers"), (3e38, "infinite length", "infinit"), (1e25, "infinite length", "infinit")])
def test_a_strength_beyond_floating_point_is_refused(model, sae, strength, steered, clamped, direction, prompts):
    """At 1e25 nothing is NaN: the next norm divides by infinity, and the model would write nonsense from zeros."""
    with pytest.raises(SteeringError, match=steered):
        with steer(model, HERE, direction(), strength):
            pass
    with pytest.raises((SteeringError, InterventionError), match=clamped):
        with edit_latents(model, sae, {4: clamp(strength)}):
            next_token_logits(model, prompts)
    assert not is_edited(model)


def test_usual_norm_is_a_median_over_tokens(model):
    acts = run_with_cache(model, model.to_tokens(["The city of Paris is in France ."]), HERE)[HERE]
    assert usual_norm(model, ["The city of Paris is in France ."], HERE) == pytest.approx(float(acts[0, 1:].norm(dim=1).median()), rel=1e-3)


def _products(model, name, reader, prompts):
    acts = [run_with_cache(model, model.to_tokens(prompt), name)[name][0, 1:] for prompt in prompts]
    return torch.stack([x[x.norm(dim=1) <= 3 * x.norm(dim=1).median()].mean(0) @ reader for x in acts])


@pytest.mark.parametrize("name", [resid_post(0), HERE])
def test_a_condition_steers_the_prompts_that_meet_it_and_no_others(model, name, direction, prompts):
    reader = direction(7)
    products = _products(model, name, reader, prompts)
    low, high = products.sort().values[len(prompts) // 2 - 1 : len(prompts) // 2 + 1]
    threshold = float(low + high) / 2  # between two prompts: on one of them, rounding would decide
    meets = products > threshold
    assert 0 < meets.sum() < len(prompts)
    plain = next_token_logits(model, prompts)
    with steer(model, HERE, direction(), 6.0):
        pushed, written = next_token_logits(model, prompts), generate(model, prompts, temperature=0, max_new_tokens=9)
    with steer(model, HERE, direction(), 6.0, condition=Condition(name, reader, threshold)):
        gated, gated_text = next_token_logits(model, prompts), generate(model, prompts, temperature=0, max_new_tokens=9)
    torch.testing.assert_close(gated, torch.where(meets[:, None], pushed, plain), atol=1e-4, rtol=1e-4)
    plain_text = generate(model, prompts, temperature=0, max_new_tokens=9)
    assert gated_text == [w if m else p for w, p, m in zip(written, plain_text, meets)]


def test_a_condition_that_nobody_meets_is_no_error(model, direction, prompts):
    with steer(model, HERE, direction(), 6.0, condition=Condition(HERE, direction(7), 1e9)):
        torch.testing.assert_close(next_token_logits(model, prompts), next_token_logits(tiny_model(), prompts))


def test_a_condition_read_too_late_is_refused(model, direction, prompts):
    with pytest.raises(SteeringError, match="read after the steering"):
        with steer(model, HERE, direction(), 6.0, condition=Condition(resid_post(2), direction(7), 0.0)):
            generate(model, prompts, max_new_tokens=2)


def test_a_change_of_one_s_own_spares_what_steer_spares(model, direction, prompts):
    step = 6.0 * direction()
    with steer(model, HERE, direction(), 6.0):
        pushed = next_token_logits(model, prompts), generate(model, prompts, temperature=0, max_new_tokens=9)
    with change_usual(model, HERE, lambda acts, usual: acts + usual[..., None] * step):
        changed = next_token_logits(model, prompts), generate(model, prompts, temperature=0, max_new_tokens=9)
    torch.testing.assert_close(changed[0], pushed[0])
    assert changed[1] == pushed[1] and not is_edited(model)
    with change_usual(model, HERE, lambda acts, usual: acts):  # doing nothing is allowed
        next_token_logits(model, prompts)
