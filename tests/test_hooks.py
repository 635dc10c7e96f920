"""Hooks: each silent failure of the libraries, then the same thing through ours, where it is loud.

A test that says the library is silent and fails is good news: the library was repaired.
"""

import doctest

import pytest
import torch
from transformer_lens.model_bridge import TransformerBridge

import utils.hooks
from utils.hooks import InterventionError, attn_out, intervene, is_edited, mlp_out, resid_post, resid_pre, run_with_cache
from utils.models import tiny_model

TOKENS = torch.tensor([[0, 7, 11, 13, 43], [0, 23, 19, 8, 26]])


@pytest.fixture
def model() -> TransformerBridge:
    return tiny_model()


def double(activation, hook):
    return 2 * activation


def same(activation, hook):
    return activation


def hooks_left(model) -> int:
    return sum(len(point.fwd_hooks) for point in model._hook_registry.values())


def test_stopping_too_early(model):
    stopped = model.run_with_cache(TOKENS, names_filter=resid_post(2), stop_at_layer=2)[1]
    assert not stopped, "the library is silent"
    assert list(run_with_cache(model, TOKENS, resid_post(2))) == [resid_post(2)]


def test_every_hook_point_comes_back_as_from_a_whole_run(model):
    whole = model.run_with_cache(TOKENS)[1]
    for name in model._hook_registry:
        if name in whole:
            torch.testing.assert_close(run_with_cache(model, TOKENS, name)[name], whole[name])
    together = run_with_cache(model, TOKENS, [name for name in model._hook_registry if name in whole])
    assert len(together) > 80
    assert hooks_left(model) == 0


def test_nothing_is_computed_after_the_last_name(model):
    ran = []
    for name in (attn_out(1), mlp_out(1), resid_pre(2)):
        model.add_hook(name, lambda activation, hook: ran.append(hook.name))
    run_with_cache(model, TOKENS, [attn_out(1), resid_pre(0)])
    assert ran == [attn_out(1)]
    ran.clear()
    assert model(TOKENS).shape == (2, 5, 61), "the next run is whole"
    assert ran == [attn_out(1), mlp_out(1), resid_pre(2)]


def test_no_gradient_yet_fit_for_training_a_probe(model):
    model.requires_grad_(True)
    acts = run_with_cache(model, TOKENS, resid_post(1))[resid_post(1)]
    assert not acts.requires_grad and not acts.is_inference()
    weight = torch.ones(24, requires_grad=True)
    (acts @ weight).sum().backward()
    torch.testing.assert_close(weight.grad, acts.sum((0, 1)))


def test_tokens_that_the_library_takes_for_something_else(model):
    floats = torch.rand(2, 5, 24)
    assert model(floats).shape == (2, 5, 61), "the library is silent: it reads embeddings"
    assert model(TOKENS[0]).shape == (1, 5, 61), "the library is silent: it makes a batch of one"


@pytest.mark.parametrize(
    "tokens, message",
    [
        (torch.rand(2, 5), "integers, not torch.float32"),
        (torch.ones(2, 5, dtype=torch.bool), "integers, not torch.bool"),
        ([[0, 7]], "integers, not list"),
        (TOKENS[0], r"\[n, pos\]"),
        (TOKENS[:0], r"\[n, pos\]"),
        (torch.zeros(1, 97, dtype=torch.long), "context holds 96"),
        (torch.tensor([[0, 61]]), "0 to 60"),
        (torch.tensor([[0, -1]]), "0 to 60"),
    ],
)
def test_wrong_tokens(model, tokens, message):
    with pytest.raises(ValueError, match=message):
        run_with_cache(model, tokens, resid_post(1))


def test_intervention_works_and_says_so(model):
    with intervene(model, {resid_post(1): double}) as done:
        assert done[resid_post(1)].calls == 0
        edited = model(TOKENS)
        model(TOKENS)
    assert (done[resid_post(1)].calls, done[resid_post(1)].changed) == (2, True)
    expected = model.run_with_hooks(TOKENS, fwd_hooks=[(resid_post(1), double)])
    assert torch.equal(edited, expected) and not torch.equal(edited, model(TOKENS))
    assert hooks_left(model) == 0


def test_intervention_that_changes_nothing(model):
    with pytest.raises(InterventionError, match=r"blocks\.1\.hook_out ran 2 times and changed nothing"):
        with intervene(model, {resid_post(0): double, resid_post(1): same}):
            model(TOKENS)
            model(TOKENS)
    assert hooks_left(model) == 0
    with intervene(model, {resid_post(1): same}, may_do_nothing=True) as done:
        model(TOKENS)
    assert (done[resid_post(1)].calls, done[resid_post(1)].changed) == (1, False)


def test_intervention_that_never_runs(model):
    with pytest.raises(InterventionError, match="never ran"):
        with intervene(model, {resid_post(1): double}):
            run_with_cache(model, TOKENS, resid_post(0))  # it stops before block 1
    with intervene(model, {resid_post(1): double}, may_do_nothing=True):
        pass


def test_edit_in_place_is_seen_and_keeps_the_original_whole(model):
    def zero_last(activation, hook):
        activation[:, -1] = 0
        return activation

    with intervene(model, {resid_post(0): zero_last}) as done:
        acts = run_with_cache(model, TOKENS, [resid_post(0), resid_pre(1)])
    assert done[resid_post(0)].changed
    assert not acts[resid_post(0)][:, -1].any() and not acts[resid_pre(1)][:, -1].any()
    assert acts[resid_post(0)][:, :-1].all()


def test_result_that_is_forgotten_or_has_another_shape_is_silent_in_the_library(model):
    def forgets(activation, hook):
        activation = 2 * activation  # and no return

    def last_only(activation, hook):
        return activation[:, -1:]

    clean = model(TOKENS)
    edited = model.run_with_hooks(TOKENS, fwd_hooks=[(mlp_out(1), forgets)])
    assert torch.equal(edited, clean), "the library is silent"
    edited = model.run_with_hooks(TOKENS, fwd_hooks=[(mlp_out(1), last_only)])
    assert edited.shape == clean.shape, "the library is silent: one position is added to all"


@pytest.mark.parametrize(
    "function, message",
    [
        (lambda activation, hook: None, "returned None: end it with `return activation`"),
        (lambda activation, hook: activation.tolist(), "returned a list"),
        (lambda activation, hook: activation[:, -1:], r"shape \[2, 5, 24\] and returned shape \[2, 1, 24\]"),
        (lambda activation, hook: activation.double(), "dtype torch.float32 and returned dtype torch.float64"),
        (lambda activation, hook: activation.to("meta"), "device cpu and returned device meta"),
        (lambda activation, hook: activation * torch.inf, "returned NaN or infinity.$"),
        (lambda activation, hook: activation / 0 * 0, "returned NaN or infinity.$"),
    ],
)
def test_result_that_the_model_cannot_use(model, function, message):
    with pytest.raises(InterventionError, match=message):
        with intervene(model, {mlp_out(1): function}):
            model(TOKENS)
            pytest.fail("it must raise at once")
    assert hooks_left(model) == 0


def test_nan_that_was_there_before_is_told_apart(model):
    model.blocks[0].mlp.out.weight[0, 0] = torch.nan
    with pytest.raises(InterventionError, match="was given such values already"):
        with intervene(model, {resid_post(1): double}):
            model(TOKENS)


def test_exception_in_the_block_is_passed_on_and_hooks_are_gone(model):
    with pytest.raises(KeyError, match="mine"):
        with intervene(model, {resid_post(1): same}):
            raise KeyError("mine")
    assert hooks_left(model) == 0

    def fails(activation, hook):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        with intervene(model, {resid_post(1): fails}):
            model(TOKENS)
    assert hooks_left(model) == 0
    assert model(TOKENS).shape == (2, 5, 61)


def test_nested_interventions_compose(model):
    def add_one(activation, hook):
        return activation + 1

    name = resid_post(1)
    clean = run_with_cache(model, TOKENS, name)[name]
    with intervene(model, {name: double}):
        with intervene(model, {name: add_one, resid_post(0): double}):
            assert model(TOKENS).shape == (2, 5, 61)
        outer = run_with_cache(model, TOKENS, name)[name]
        with intervene(model, {name: add_one}):
            both = run_with_cache(model, TOKENS, name)[name]
    torch.testing.assert_close(outer, 2 * clean)
    torch.testing.assert_close(both, 2 * clean + 1)
    assert torch.equal(run_with_cache(model, TOKENS, name)[name], clean)


def test_only_its_own_hooks_are_removed(model):
    calls = []

    def mine(activation, hook):
        calls.append(hook.name)

    name = resid_post(1)
    model.add_hook(name, mine)
    model.add_perma_hook(name, mine)
    with intervene(model, {name: double}):
        model.add_hook(name, mine)
        with model.hooks(fwd_hooks=[(name, mine)]):
            model(TOKENS)
        model(TOKENS)
    assert calls == [name] * 7
    run_with_cache(model, TOKENS, name)
    assert hooks_left(model) == 3 and calls == [name] * 10


def test_reset_hooks_inside_does_no_harm(model):
    with intervene(model, {resid_post(1): double}):
        model(TOKENS)
        model.reset_hooks()
    assert hooks_left(model) == 0


def test_generate_shows_the_prompt_then_one_position_at_a_time(model):
    shapes = []

    def shifted(activation, hook):
        shapes.append(tuple(activation.shape))
        return activation + 5 * torch.linspace(-1, 1, 24)

    def continuation():
        return model.generate(TOKENS, max_new_tokens=4, do_sample=False, stop_at_eos=False, verbose=False)

    clean = continuation()
    with intervene(model, {resid_post(1): shifted}) as done:
        steered = continuation()
    assert shapes == [(2, 5, 24)] + [(2, 1, 24)] * 3
    assert done[resid_post(1)].calls == 4
    assert not torch.equal(steered, clean) and torch.equal(continuation(), clean)


def test_a_gradient_reaches_what_was_added(model):
    direction = torch.zeros(24, requires_grad=True)
    with intervene(model, {resid_post(1): lambda activation, hook: activation + direction}, may_do_nothing=True):
        model(TOKENS)[0, -1, 3].backward()
    assert direction.grad.any()


def test_is_edited(model):
    assert not is_edited(model)
    model(TOKENS)  # the libraries attach hooks of their own in the first run
    run_with_cache(model, TOKENS, resid_post(1))
    assert not is_edited(model)
    with intervene(model, {resid_post(1): double}):
        model(TOKENS)
        assert is_edited(model)
    assert not is_edited(model)
    for module in (model, model.original_model.model.norm, model.blocks[1]):
        handle = module.register_forward_hook(lambda module, inputs, output: None)
        assert is_edited(model)
        handle.remove()
    assert not is_edited(model)


def test_the_examples_in_the_docstrings_run():
    result = doctest.testmod(utils.hooks)
    assert result.attempted and not result.failed
