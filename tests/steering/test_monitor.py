"""A monitor reads what the model reads, stops where it should, changes nothing else, and its probe is what was trained."""

import pytest
import torch

from utils.hooks import HookNameError, resid_post, run_with_cache
from utils.steering.generating import generate
from utils.steering.monitor import Monitor, TokenProbe, fit_token_probe, padded_tokens

NAME = resid_post(1)


@pytest.fixture(scope="module")
def probe(direction):
    return TokenProbe(direction(1), direction(2), torch.tensor(0.3))


def test_watching_changes_nothing(model, probe, prompts):
    plain = generate(model, prompts, max_new_tokens=6, batch_size=4)
    watched = Monitor(model, probe, NAME, 1e9, stop=True).generate(prompts, max_new_tokens=6, batch_size=4)
    assert watched.texts == plain and watched.flagged == [None] * len(prompts)
    assert not any(point.fwd_hooks for point in model.hook_dict.values())


def test_the_running_score_is_that_of_the_whole_text(model, probe):
    """After every token the two sums give what the probe gives on all tokens so far."""
    prompt = "The city of Paris is in"
    watched = Monitor(model, probe, NAME, 1e9).generate([prompt], max_new_tokens=5, temperature=0)
    start = model.tokenizer(prompt, add_special_tokens=False)["input_ids"]
    new = model.tokenizer(watched.texts[0], add_special_tokens=False)["input_ids"]
    for step, score in enumerate(watched.scores[0]):
        tokens = torch.tensor([[model.tokenizer.bos_token_id, *start, *new[:step]]])
        acts = run_with_cache(model, tokens, NAME)[NAME][:, 1:]
        limit = 3 * acts[:, : len(start)].norm(dim=-1).nanmedian()
        assert abs(float(probe(acts, acts.norm(dim=-1) <= limit)) - score) < 1e-4


def test_a_batch_is_watched_as_its_texts_one_by_one(model, probe, prompts):
    together = Monitor(model, probe, NAME, 1e9).generate(prompts, max_new_tokens=4, temperature=0, batch_size=3)
    alone = [Monitor(model, probe, NAME, 1e9).generate([prompt], max_new_tokens=4, temperature=0) for prompt in prompts]
    assert together.texts == [each.texts[0] for each in alone]
    for mine, other in zip(together.scores, alone):
        assert torch.allclose(torch.tensor(mine), torch.tensor(other.scores[0]), atol=1e-4)


def test_it_stops_at_the_prompt_or_on_the_way(model, probe, prompts):
    free = Monitor(model, probe, NAME, 1e9).generate(prompts, max_new_tokens=6, temperature=0)
    at_once = Monitor(model, probe, NAME, -1e9, stop=True).generate(prompts, max_new_tokens=6, temperature=0)
    assert at_once.texts == [""] * len(prompts) and at_once.flagged == [0] * len(prompts)
    longest = max(range(len(prompts)), key=lambda i: len(free.scores[i]))
    threshold = sorted(free.scores[longest])[-2]
    step = next(i for i, score in enumerate(free.scores[longest]) if score > threshold)
    stopped = Monitor(model, probe, NAME, threshold, stop=True).generate([prompts[longest]], max_new_tokens=6, temperature=0)
    assert stopped.flagged == [step] and free.texts[longest].startswith(stopped.texts[0])
    assert len(stopped.texts[0].split()) <= step


def test_a_flag_alone_stops_nothing(model, probe, prompts):
    flagged = Monitor(model, probe, NAME, -1e9).generate(prompts, max_new_tokens=5, temperature=0)
    assert flagged.texts == generate(model, prompts, max_new_tokens=5, temperature=0) and set(flagged.flagged) == {0}


def test_a_misspelt_point_is_refused(model, probe):
    with pytest.raises(HookNameError):
        Monitor(model, probe, "blocks.1.hook_outt", 0.0)


def test_the_hooks_go_when_the_model_fails(model, probe, monkeypatch):
    monitor = Monitor(model, probe, NAME, 0.0)
    with pytest.raises(ValueError):
        monitor.generate([""])
    with pytest.raises(RuntimeError), monitor.watching():
        raise RuntimeError("halfway")
    assert not any(point.fwd_hooks for point in model.hook_dict.values())


def test_padded_tokens_are_each_texts_own(model, prompts):
    texts = ["The city of Paris is in France.", "A dog", "two and three are true"]
    acts, mask = padded_tokens(model, texts, NAME, cache=False)
    assert acts.shape[:2] == mask.shape and not acts[~mask].any()
    alone, all_real = padded_tokens(model, [texts[1]], NAME, cache=False)
    assert all_real.all() and torch.allclose(acts[1][mask[1]], alone[0], atol=1e-5)


def test_the_probe_finds_the_one_token_that_matters():
    rng = torch.Generator().manual_seed(0)
    acts, mask = torch.randn(120, 12, 8, generator=rng), torch.arange(12) < torch.randint(4, 13, (120, 1), generator=rng)
    labels = torch.arange(120) % 2
    acts[labels == 1, 1] += 4 * torch.nn.functional.one_hot(torch.tensor(3), 8)
    probe = fit_token_probe(5 + 2 * acts, mask, labels, steps=600, lr=1e-2, weight_decay=0.1)
    right = ((probe(5 + 2 * acts, mask) > 0) == (labels == 1)).float().mean()
    assert right > 0.9
    assert torch.allclose(probe(5 + 2 * acts, mask), probe((5 + 2 * acts).masked_fill(~mask[..., None], torch.nan), mask), atol=1e-4)
    with pytest.raises(ValueError, match="both classes"):
        fit_token_probe(acts, mask, torch.zeros(120, dtype=torch.long))
