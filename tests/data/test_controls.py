"""utils.data.controls and utils.untrained: designs are balanced as their docstrings promise."""

from collections import Counter

import pytest
import torch

from utils.data import controls
from utils.data.controls import HOMOGRAPHS, comparison_statements, part_of_speech_phrases, speech_snippets
from utils.models import tiny_model
from utils.untrained import untrained_like


def test_every_word_is_twice_a_noun_and_twice_a_verb_and_openings_are_even():
    phrases = part_of_speech_phrases()
    assert len(phrases) == 4 * len(HOMOGRAPHS) and len(set(HOMOGRAPHS)) == len(HOMOGRAPHS) and len(HOMOGRAPHS) % 3 == 0
    assert set(Counter(zip(phrases.subject, phrases.labels.tolist())).values()) == {2}
    assert len(set(phrases.form.bincount().tolist())) == 1
    assert ((phrases.form < 6) == (phrases.labels == 1)).all()
    assert len(set(phrases.texts)) == len(phrases)
    assert all(text.endswith(word) for text, word in zip(phrases.texts, phrases.subject))
    assert part_of_speech_phrases(seed=1).texts != phrases.texts == part_of_speech_phrases().texts


def test_comparisons_are_right_and_turned_over():
    larger, smaller = comparison_statements(pairs=40), comparison_statements(larger=False, pairs=40)
    for text, label, numbers in zip(larger.texts, larger.labels.tolist(), larger.subject):
        first, second = map(int, numbers.split())
        assert label == (first > second) and " is larger than " in text
    assert (larger.labels + smaller.labels == 1).all() and larger.subject == smaller.subject
    assert comparison_statements(pairs=3, seed=2).labels.tolist() == [1, 0] * 3
    assert any("-" in text for text in larger.texts) and not any("_" in text for text in larger.texts)


@pytest.mark.parametrize("words", [["walk"], ["walk", "run", "talk"]])
def test_phrases_of_a_few_words(words):
    assert len(part_of_speech_phrases(words)) == 4 * len(words)


def test_an_untrained_twin_is_another_network_of_the_same_shape():
    model = tiny_model(seed=0)
    state = torch.random.get_rng_state()
    first, again, other = (untrained_like(model, seed) for seed in (3, 3, 4))
    assert torch.equal(torch.random.get_rng_state(), state)
    tokens = torch.tensor([[0, 5, 9, 4]])
    logits = [network(tokens) for network in (model, first, again, other)]
    assert all(x.shape == logits[0].shape for x in logits)
    assert torch.equal(logits[1], logits[2])
    assert not torch.allclose(logits[1], logits[3]) and not torch.allclose(logits[0], logits[1])
    assert not any(p.requires_grad for p in first.parameters())


def test_snippets_of_some_languages_are_those_of_all(monkeypatch):
    monkeypatch.setattr(controls, "_speeches", lambda language: [[f"{language}{i}word{j}" for j in range(9)] for i in range(8)])
    every, two = (speech_snippets(per_language=3, words=3, **which) for which in ({}, {"languages": ("German", "Dutch")}))
    assert len(every) == 12 and every.labels.tolist() == [0] * 3 + [1] * 3 + [2] * 3 + [3] * 3
    assert two.texts == every.texts[:3] + every.texts[6:9] and two.labels.tolist() == [0] * 3 + [1] * 3
    assert len(set(two.groups.tolist())) == 6 and set(two.subject) == {"German", "Dutch"}
    for odd in (("German",), ("German", "French")):
        with pytest.raises(ValueError, match="two or more of Dutch"):
            speech_snippets(languages=odd)
