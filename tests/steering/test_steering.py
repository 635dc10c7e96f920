"""Steering, edits of latents, batched generation and log-probabilities, on the tiny model."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from utils.hooks import HookNameError, InterventionError, intervene, is_edited, resid_post, resid_pre, run_with_cache
from utils.models import tiny_model
from utils.sae.model import SAE, SAEConfig, SAEError
from utils.steering.generating import chat_prompt, generate, next_token_logits, token_log_probs
from utils.steering.latents import ablate, add, clamp, edit_latents, scale
from utils.steering.reach import SteeringError
from utils.steering.steering import Condition, steer, usual_norm

PROMPTS = [
    "The city of Paris is in", "A dog", "The keys near the cabinet", "two and three", "The film was not very good , and the",
    "Lima is", "to", "The cities of Peru and Japan are larger than", "Oslo , Cairo and Rome",
]
HERE = resid_post(1)


@pytest.fixture(scope="module")
def model():
    return tiny_model()


@pytest.fixture(scope="module")
def sae():
    return SAE(SAEConfig(24, 67, 5, "tiny-llama", HERE), seed=3).requires_grad_(False)


def _direction(seed=0, d=24):
    return torch.nn.functional.normalize(torch.randn(d, generator=torch.Generator().manual_seed(seed)), dim=0)


def _one_by_one(model, temperature, **more):
    """A list of one prompt draws what is the first prompt's: only at temperature 0 is that the same."""
    return [generate(model, [prompt], temperature=temperature, max_new_tokens=9, **more)[0] for prompt in PROMPTS]


# --- generation -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("positions", ["none", "all", "prompt", "last"])
def test_a_batch_writes_what_its_prompts_write_one_by_one(model, positions):
    def write():
        return generate(model, PROMPTS, temperature=0, max_new_tokens=9), _one_by_one(model, 0)

    if positions == "none":
        together, alone = write()
    else:
        with steer(model, HERE, _direction(), 6.0, positions=positions):
            together, alone = write()
    assert together == alone
    assert len(set(together)) > 3  # it is not one text for all


@pytest.mark.parametrize("positions", ["none", "all", "prompt", "last"])
def test_generation_equals_running_the_whole_text_again_for_every_token(model, positions):
    """Without padding, without a cache, and with a hook of the test's own."""
    step = 6.0 * _direction()

    for prompt in PROMPTS[:4]:
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
            with steer(model, HERE, _direction(), 6.0, positions=positions):
                written = generate(model, [prompt], temperature=0, max_new_tokens=6)
        assert written == [expected]


def test_sampling_is_reproducible_and_does_not_depend_on_the_batch(model):
    ways = [generate(model, PROMPTS, temperature=0.9, seed=3, max_new_tokens=9, batch_size=size) for size in (1, 2, 40)]
    assert ways[0] == ways[1] == ways[2]
    assert generate(model, PROMPTS, temperature=0.9, seed=4, max_new_tokens=9) != ways[0]
    assert generate(model, ["A dog"] * 5, temperature=1.5, max_new_tokens=9) != ["A dog"] * 5
    assert len(set(generate(model, ["A dog"] * 5, temperature=1.5, max_new_tokens=9))) > 1


def test_sampling_follows_the_probabilities(model):
    wanted = next_token_logits(model, ["A dog"])[0].softmax(-1)
    written = generate(model, ["A dog"] * 800, temperature=1, max_new_tokens=1, batch_size=100)
    word = int(wanted.argmax())
    share = sum(text == model.tokenizer.decode([word]) for text in written) / 800
    assert abs(share - float(wanted[word])) < 0.06


def test_generation_stops_at_the_end_of_a_text_and_goes_on_with_the_others(model):
    ends = model.tokenizer.eos_token_id
    pull = model.original_model.lm_head.weight[ends].clone()
    fresh = tiny_model()
    # The unembedding of the end token is made to win after one word only.
    word = generate(fresh, ["A dog"], temperature=0, max_new_tokens=1)[0]
    with steer(fresh, resid_post(2), torch.nn.functional.normalize(pull, dim=0), 1000.0):
        assert generate(fresh, PROMPTS, temperature=0, max_new_tokens=5) == [""] * len(PROMPTS)
    assert generate(fresh, ["A dog"], temperature=0, max_new_tokens=1)[0] == word


@pytest.mark.parametrize("options", [{"temperature": -1.0}, {"max_new_tokens": 0}, {"batch_size": 0}])
def test_impossible_options_are_refused(model, options):
    with pytest.raises(SteeringError, match="at least"):
        generate(model, PROMPTS, **options)


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


def test_a_model_without_a_chat_template_says_so(model):
    with pytest.raises(SteeringError, match="no chat template"):
        generate(model, PROMPTS, chat=True)


def test_a_chat_template_is_used():
    model = tiny_model()
    model.tokenizer.chat_template = "{{ bos_token }}{% for m in messages %}{{ m['content'] }} {% endfor %}{% if add_generation_prompt %}is{% endif %}"
    assert chat_prompt(model, "A dog", system="The city") == "<|bos|>The city A dog is"
    assert generate(model, ["A dog"], chat=True, temperature=0) == generate(model, ["A dog is"], temperature=0)
    torch.testing.assert_close(next_token_logits(model, ["A dog"], chat=True), next_token_logits(model, ["A dog is"]))


# --- steering ---------------------------------------------------------------------------------------------


def test_steering_adds_the_direction_at_the_tokens_it_says(model):
    tokens, direction = model.to_tokens(["The city of Paris is in France .", "A dog is larger than two cities ."]), _direction()
    plain = run_with_cache(model, tokens, HERE)[HERE]
    for positions, first in (("all", 1), ("prompt", 1), ("last", 8)):
        with steer(model, HERE, direction, 2.0, positions=positions):
            moved = run_with_cache(model, tokens, HERE)[HERE] - plain
        torch.testing.assert_close(moved[:, first:], (2.0 * direction).expand(2, 9 - first, 24), atol=1e-5, rtol=0)
        assert not moved[:, :first].any()
    assert not is_edited(model)


def test_tokens_of_unusual_norm_are_left_alone(model):
    tokens = model.to_tokens("The city of Paris is in France .")

    def blow_up(acts, hook):
        acts[:, 4] *= 50
        return acts

    with intervene(model, {HERE: blow_up}):
        plain = run_with_cache(model, tokens, HERE)[HERE]
        with steer(model, HERE, _direction(), 2.0):
            moved = (run_with_cache(model, tokens, HERE)[HERE] - plain)[0].norm(dim=-1)
    assert (moved > 1).tolist() == [False, True, True, True, False, True, True, True, True]


def test_padding_sets_no_norm_and_gets_no_push(model):
    seen = []

    def look(acts, hook):
        seen.append(acts.clone())
        return acts

    for edit in (False, True):
        with intervene(model, {resid_pre(2): look}, may_do_nothing=True):
            if edit:
                with steer(model, HERE, _direction(), 2.0):
                    next_token_logits(model, ["A dog", "The city of Paris is in France ."])
            else:
                next_token_logits(model, ["A dog", "The city of Paris is in France ."])
    moved = (seen[1] - seen[0]).norm(dim=-1) > 1e-3  # the longest prompt comes first
    assert moved.tolist() == [[False] + [True] * 8, [False, True, True] + [False] * 6]


def test_steering_composes_and_zero_is_nothing(model):
    one, other = _direction(1), _direction(2)
    plain = next_token_logits(model, PROMPTS)
    with steer(model, HERE, one, 0.0):
        torch.testing.assert_close(next_token_logits(model, PROMPTS), plain)
    with steer(model, HERE, one, 1.0), steer(model, HERE, other, 3.0):
        both = next_token_logits(model, PROMPTS)
    with steer(model, HERE, one + 3 * other, 1.0):
        torch.testing.assert_close(next_token_logits(model, PROMPTS), both, atol=1e-3, rtol=1e-3)
    assert not torch.allclose(both, plain)


def test_the_bridges_own_generate_is_steered_too(model):
    tokens = model.to_tokens("The city of Paris is")
    with steer(model, HERE, _direction(), 6.0):
        theirs = model.generate(tokens, max_new_tokens=5, do_sample=False, stop_at_eos=False, verbose=False)
        ours = generate(model, ["The city of Paris is"], max_new_tokens=5, temperature=0)
    assert model.tokenizer.decode(theirs[0, tokens.shape[1]:], skip_special_tokens=True, clean_up_tokenization_spaces=False).startswith(ours[0])


def test_a_steering_block_in_which_nothing_runs_is_loud(model):
    with pytest.raises(InterventionError, match="never ran"):
        with steer(model, HERE, _direction(), 1.0):
            pass


def test_hooks_are_gone_after_an_error(model):
    with pytest.raises(RuntimeError, match="mine"):
        with steer(model, HERE, _direction(), 1.0):
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


def test_wrong_names_positions_and_strengths_are_refused(model):
    with pytest.raises(HookNameError, match="hook_out"):
        with steer(model, "blocks.1.hook_resid_post", _direction(), 1.0):
            pass
    with pytest.raises(SteeringError, match='"all", "prompt" or "last"'):
        with steer(model, HERE, _direction(), 1.0, positions="first"):
            pass


@pytest.mark.parametrize("strength", [float("inf"), 3e38, 1e25])
def test_a_strength_beyond_floating_point_is_refused(model, sae, strength):
    """At 1e25 nothing is NaN: the next norm divides by infinity, and the model would write nonsense from zeros."""
    with pytest.raises(SteeringError, match="infinite length"):
        with steer(model, HERE, _direction(), strength):
            pass
    with pytest.raises((SteeringError, InterventionError), match="infinit"):
        with edit_latents(model, sae, {4: clamp(strength)}):
            next_token_logits(model, PROMPTS)
    assert not is_edited(model)


def test_logits_that_are_not_numbers_are_refused():
    broken = tiny_model()
    broken.original_model.lm_head.weight[7] = torch.nan
    for run in (generate, next_token_logits, token_log_probs):
        with pytest.raises(SteeringError, match="after prompt [0-9] are NaN or infinite"):
            run(broken, PROMPTS)


def test_usual_norm_is_a_median_over_tokens(model):
    acts = run_with_cache(model, model.to_tokens(["The city of Paris is in France ."]), HERE)[HERE]
    assert usual_norm(model, ["The city of Paris is in France ."], HERE) == pytest.approx(float(acts[0, 1:].norm(dim=1).median()), rel=1e-3)


# --- conditional steering ---------------------------------------------------------------------------------


def _products(model, name, direction):
    acts = [run_with_cache(model, model.to_tokens(prompt), name)[name][0, 1:] for prompt in PROMPTS]
    return torch.stack([x[x.norm(dim=1) <= 3 * x.norm(dim=1).median()].mean(0) @ direction for x in acts])


@pytest.mark.parametrize("name", [resid_post(0), HERE])
def test_a_condition_steers_the_prompts_that_meet_it_and_no_others(model, name):
    reader = _direction(7)
    products = _products(model, name, reader)
    meets = products > products.median()
    assert 0 < meets.sum() < len(PROMPTS)
    plain = next_token_logits(model, PROMPTS)
    with steer(model, HERE, _direction(), 6.0):
        pushed, written = next_token_logits(model, PROMPTS), generate(model, PROMPTS, temperature=0, max_new_tokens=9)
    with steer(model, HERE, _direction(), 6.0, condition=Condition(name, reader, float(products.median()))):
        gated, gated_text = next_token_logits(model, PROMPTS), generate(model, PROMPTS, temperature=0, max_new_tokens=9)
    torch.testing.assert_close(gated, torch.where(meets[:, None], pushed, plain), atol=1e-4, rtol=1e-4)
    plain_text = generate(model, PROMPTS, temperature=0, max_new_tokens=9)
    assert gated_text == [w if m else p for w, p, m in zip(written, plain_text, meets)]


def test_a_condition_that_nobody_meets_is_no_error(model):
    with steer(model, HERE, _direction(), 6.0, condition=Condition(HERE, _direction(7), 1e9)):
        torch.testing.assert_close(next_token_logits(model, PROMPTS), next_token_logits(tiny_model(), PROMPTS))


def test_a_condition_read_too_late_is_refused(model):
    with pytest.raises(SteeringError, match="read after the steering"):
        with steer(model, HERE, _direction(), 6.0, condition=Condition(resid_post(2), _direction(7), 0.0)):
            generate(model, PROMPTS, max_new_tokens=2)


# --- latents ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("edit, changed", [(clamp(4.0), lambda f: 0 * f + 4), (add(2.0), lambda f: f + 2), (scale(-3.0), lambda f: -3 * f), (ablate(), lambda f: 0 * f)])
def test_an_edit_is_the_step_along_the_decoder_row(model, sae, edit, changed):
    tokens = model.to_tokens("The city of Paris is in France .")
    plain = run_with_cache(model, tokens, HERE)[HERE]
    latents = sae.encode(plain)[0]
    latent = int(latents[1:].sum(0).argmax())
    with edit_latents(model, sae, {latent: edit}):
        edited = run_with_cache(model, tokens, HERE)[HERE]
    step = (changed(latents[:, latent]) - latents[:, latent])[:, None] * sae.W_dec[latent]
    step[0] = 0
    usual = plain[0].norm(dim=-1) <= 3 * plain[0, 1:].norm(dim=-1).median()
    torch.testing.assert_close(edited[0], plain[0] + step * usual[:, None], atol=1e-4, rtol=1e-4)
    assert not is_edited(model)


def test_without_the_error_term_the_reconstruction_goes_on(model, sae):
    tokens = model.to_tokens("The city of Paris is in France .")
    plain = run_with_cache(model, tokens, HERE)[HERE]
    with edit_latents(model, sae, {4: clamp(4.0)}, error_term=False):
        edited = run_with_cache(model, tokens, HERE)[HERE]
    latents = sae.encode(plain)
    latents[..., 4] = 4.0
    torch.testing.assert_close(edited[:, 1:], sae.decode(latents)[:, 1:], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(edited[:, 0], plain[:, 0])


def test_edits_work_while_generating_and_in_batches(model, sae):
    with edit_latents(model, sae, {4: clamp(30.0), 9: add(1.0)}):
        together, alone = generate(model, PROMPTS, temperature=0, max_new_tokens=9), _one_by_one(model, 0)
    assert together == alone != generate(model, PROMPTS, temperature=0, max_new_tokens=9)


def test_a_latent_that_never_fires_is_named(model, sae):
    tokens = model.to_tokens("The city of Paris is in France .")
    fires = sae.encode(run_with_cache(model, tokens, HERE)[HERE])[0, 1:].amax(0)
    silent = int((fires == 0).nonzero()[0])
    for edit in (ablate(), scale(2.0)):
        with pytest.raises(SteeringError, match=f"latent {silent} never fired"):
            with edit_latents(model, sae, {silent: edit}):
                model(tokens)
    with edit_latents(model, sae, {silent: ablate()}, may_do_nothing=True):
        model(tokens)
    with pytest.raises(InterventionError, match="never ran"):
        with edit_latents(model, sae, {silent: add(1.0)}):
            pass


@pytest.mark.parametrize("edits, words", [({}, "no edits"), ({67: ablate()}, "no latent 67: this SAE has latents 0 to 66"), ({-1: ablate()}, "no latent -1"), ({"4": ablate()}, "no latent '4'")])
def test_unknown_latents_are_refused(model, sae, edits, words):
    with pytest.raises(SteeringError, match=words):
        with edit_latents(model, sae, edits):
            pass


def test_an_sae_for_another_model_or_place_is_refused(model):
    for cfg, words in [(SAEConfig(13, 20, 3), "at which hook point"), (SAEConfig(13, 20, 3, "", HERE), "width 13"), (SAEConfig(24, 20, 3, "gpt2", HERE), "trained on gpt2")]:
        with pytest.raises(SAEError, match=words):
            with edit_latents(model, SAE(cfg), {0: ablate()}):
                pass


class _Foreign:
    """What a sae_lens SAE looks like from here."""

    def __init__(self, sae, name, model_name=None):
        self.W_dec, self.encode, self.decode = sae.W_dec, sae.encode, sae.decode
        self.cfg = SimpleNamespace(metadata=SimpleNamespace(model_name=model_name, hook_name=name))


def test_a_foreign_sae_is_placed_by_its_metadata_aliases_included(model, sae):
    with edit_latents(model, sae, {4: clamp(3.0)}):
        expected = next_token_logits(model, PROMPTS)
    with edit_latents(model, _Foreign(sae, "blocks.1.hook_resid_post"), {4: clamp(3.0)}):
        torch.testing.assert_close(next_token_logits(model, PROMPTS), expected)
    with pytest.raises(SAEError, match="not at blocks.2"):
        with edit_latents(model, _Foreign(sae, "blocks.1.hook_resid_post"), {4: clamp(3.0)}, name=resid_post(2)):
            pass
    with pytest.raises(SAEError, match="pass name="):
        with edit_latents(model, _Foreign(sae, None), {4: clamp(3.0)}):
            pass
    with pytest.raises(SAEError, match="trained on gpt2-small"):
        with edit_latents(model, _Foreign(sae, HERE, "gpt2-small"), {4: clamp(3.0)}):
            pass
    with pytest.raises(SAEError, match="belongs to another model"):
        with edit_latents(model, _Foreign(SAE(SAEConfig(13, 20, 3)), HERE), {4: clamp(3.0)}):
            pass


def test_an_sae_that_sae_lens_loads_gives_the_same_edit(model, sae, tmp_path):
    from sae_lens import SAE as TheirSAE

    sae.save(tmp_path / "sae")
    theirs = TheirSAE.load_from_disk(str(tmp_path / "sae"))
    found = []
    for each in (sae, theirs):
        with edit_latents(model, each, {4: clamp(3.0), 9: scale(2.0)}):
            found.append(next_token_logits(model, PROMPTS))
    torch.testing.assert_close(*found, atol=1e-4, rtol=1e-4)


def test_edits_compose_with_steering_and_are_gone_after_an_error(model, sae):
    with pytest.raises(RuntimeError, match="mine"):
        with steer(model, resid_pre(1), _direction(), 2.0), edit_latents(model, sae, {4: clamp(3.0)}):
            both = generate(model, PROMPTS, temperature=0, max_new_tokens=5)
            raise RuntimeError("mine")
    assert not is_edited(model)
    assert both != generate(model, PROMPTS, temperature=0, max_new_tokens=5)
    with steer(model, HERE, _direction(), 6.0):  # later hooks at the same point still run
        assert generate(model, PROMPTS, temperature=0, max_new_tokens=5) != both


# --- probabilities ----------------------------------------------------------------------------------------


def test_log_probs_equal_those_of_the_text_alone(model):
    texts = [prompt + " . The dog is" for prompt in PROMPTS]
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


def test_next_token_logits_do_not_depend_on_the_batch(model):
    together = next_token_logits(model, PROMPTS)
    alone = torch.cat([model(model.to_tokens(prompt))[:, -1] for prompt in PROMPTS])
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=1e-4)
