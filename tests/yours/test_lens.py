"""A learner's sentence, read after every block."""

import pytest
import torch

from utils.hooks import resid_post
from utils.models import tiny_model
from utils.yours.lens import EarlyAnswers, read_early


def test_the_last_block_gives_the_models_own_answer():
    model, text = tiny_model(), "The city of Paris is in"
    found = read_early(model, text)
    probabilities = model(model.to_tokens(text))[0].softmax(dim=-1)
    assert found.top[-1].tolist() == probabilities.argmax(dim=-1).tolist() and len(found.top) == model.cfg.n_layers
    assert torch.allclose(found.probability[-1], probabilities.amax(dim=-1), atol=1e-5)
    first = model.unembed(model.ln_final(model.run_with_cache(model.to_tokens(text))[1][resid_post(0)]))[0]
    assert found.top[0].tolist() == first.argmax(dim=-1).tolist()
    assert found.answer in found.verdict and f"block {found.first} of 0 to 2" in found.figure().layout.title.text


@pytest.mark.parametrize("ends, first, words", [([3, 7, 7], 1, "every later one"), ([7, 3, 7], 0, "not after every"), ([7, 7, 7], 0, "every later one")])
def test_where_the_answer_leads(ends, first, words):
    top = torch.tensor([[1, end] for end in ends])
    found = EarlyAnswers("a b", ["a", "b"], top, torch.full(top.shape, 0.5), {1: "x", 3: "y", 7: "z"})
    assert found.answer == "z" and found.first == first and words in found.verdict


def test_a_deep_model_and_a_long_text_still_fit():
    top = torch.zeros(80, 50, dtype=torch.long)
    top[57:] = 1
    found = EarlyAnswers("a", [str(i) for i in range(50)], top, torch.zeros(80, 50), {0: "x", 1: "y"})
    drawn = found.figure().data[0].z
    assert len(drawn) <= 33 and len(drawn[0]) == 24 and 57 in found.figure().layout.yaxis.ticktext


def test_nothing_to_read():
    with pytest.raises(ValueError, match="nothing to read"):
        read_early(tiny_model(), "  ")
    with pytest.raises(ValueError, match="context holds 96"):
        read_early(tiny_model(), "dog " * 200)
