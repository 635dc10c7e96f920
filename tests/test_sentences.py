"""Sentence vectors: like meaning, like direction; a text's vector is its own, whatever runs beside it."""

import pytest
import torch
from transformers import BertConfig, BertModel, BertTokenizerFast

from utils.sentences import sentence_vectors

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "the", "cat", "dog", "sat", "ran", "far", "home"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A random encoder of two layers."""
    here = tmp_path_factory.mktemp("encoder")
    (here / "vocab.txt").write_text("\n".join(WORDS))
    BertTokenizerFast(str(here / "vocab.txt")).save_pretrained(here)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = BertConfig(vocab_size=len(WORDS), hidden_size=12, num_hidden_layers=2, num_attention_heads=3, intermediate_size=20)
        BertModel(config).save_pretrained(here)
    return here


def test_a_vector_is_its_texts_own(folder):
    texts = ["the cat sat", "the dog ran far home the cat ran", "dog"]
    found = sentence_vectors(texts, folder=folder)
    assert found.shape == (3, 12) and torch.allclose(found.norm(dim=1), torch.ones(3))
    for text, row in zip(texts, found):
        assert torch.allclose(sentence_vectors([text], folder=folder)[0], row, atol=1e-5)
    assert torch.allclose(sentence_vectors(texts, batch_size=2, folder=folder), found, atol=1e-5)
    assert not found.requires_grad


def test_no_text_and_an_empty_text(folder):
    assert sentence_vectors([], folder=folder).shape == (0, 12)
    with pytest.raises(ValueError, match="empty"):
        sentence_vectors(["the cat", " "], folder=folder)


def test_like_meaning_is_like_direction():
    cat, kitten, market = sentence_vectors(["A cat sleeps", "A kitten is asleep", "The stock market fell"])
    assert cat @ kitten > 0.5 > cat @ market
