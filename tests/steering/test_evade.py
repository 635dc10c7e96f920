"""A soft prefix stands where it should, changes nothing else, and lowers what it was trained to lower."""

import pytest
import torch

from utils.activations import tokenize
from utils.hooks import HookNameError, resid_post, run_with_cache
from utils.steering.evade import prefixed_activations, train_soft_prefix
from utils.steering.monitor import TokenProbe

NAME = resid_post(1)
TEXTS = ["The city of Paris is in France", "A dog", "two keys near the cabinet are very good"]


def test_the_embedding_of_a_token_as_a_prefix_is_that_token(model):
    """Three vectors that are the embeddings of real tokens give what the tokens give."""
    start = "The film was"
    ids = model.tokenizer(start, add_special_tokens=False)["input_ids"]
    prefix = model.original_model.get_input_embeddings().weight[ids].detach()
    acts, own = prefixed_activations(model, TEXTS, prefix, NAME)
    tokens, mask = tokenize(model, [f"{start} {text}" for text in TEXTS])
    written = run_with_cache(model, tokens, NAME)[NAME]
    assert own[:, : 1 + len(ids)].sum() == 0 and torch.equal(own[:, 1 + len(ids):], mask[:, 1 + len(ids):])
    assert torch.allclose(acts[own], written[own], atol=1e-5)


def test_training_lowers_the_score_and_keeps_the_length(model, direction):
    probe = TokenProbe(torch.zeros(24), direction(4), torch.tensor(0.0))
    trained, start = train_soft_prefix(model, TEXTS, probe, NAME, k=2, steps=25, batch_size=3)
    assert torch.allclose(trained.norm(dim=-1), start.norm(dim=-1)) and trained.shape == (2, 24)
    with torch.no_grad():
        before, after = (probe(*prefixed_activations(model, TEXTS, vectors, NAME)).mean() for vectors in (start, trained))
    assert after < before - 0.05
    assert not any(point.fwd_hooks for point in model.hook_dict.values())
    assert all(not parameter.requires_grad and parameter.grad is None for parameter in model.parameters())


def test_a_seed_is_a_prefix(model, direction):
    probe = TokenProbe(torch.zeros(24), direction(4), torch.tensor(0.0))
    one, other = (train_soft_prefix(model, TEXTS, probe, NAME, k=1, steps=2, seed=5)[0] for _ in range(2))
    assert torch.equal(one, other)


def test_a_misspelt_point_is_refused(model):
    with pytest.raises(HookNameError):
        prefixed_activations(model, TEXTS, torch.zeros(1, 24), "blocks.1.hook_ouT")
