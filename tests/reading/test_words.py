"""Tokens as words."""

import torch

from utils.models import tiny_model
from utils.reading.words import words_of


def test_capitals_and_signs_do_not_make_another_word():
    model = tiny_model()
    words = words_of(model)
    number = {piece: i for piece, i in model.tokenizer.get_vocab().items()}
    assert words.of_token[number["The"]] == words.of_token[number["the"]] != words.of_token[number["dog"]]
    assert words.of_token[number["."]] != words.of_token[number[","]] and words.spelled[words.of_token[number["Paris"]]] == "paris"
    assert len(words.of_token) == model.cfg.d_vocab and sorted(words.of_token.unique().tolist()) == list(range(len(words.spelled)))


def test_the_word_at_a_place_and_at_none():
    words = words_of(tiny_model())
    tokens = torch.tensor([[0, 9, 14], [0, 20, 9]])
    where = torch.tensor([[[0, 1], [1, 2]], [[1, 1], [-1, -1]]])
    assert words.at(tokens, where).tolist() == [[words.of_token[9]] * 2, [words.of_token[20], -1]]
