"""The number sentences are balanced, paired and of one length, and bad input is refused."""

import pytest
import torch

from utils.data.agreement import (
    NOUNS, RELATIVE_CLAUSES, AgreementError, agreement_sentences, noun_phrases, one_token_nouns, split_nouns,
)
from utils.models import tiny_model


def test_rows_come_in_pairs_that_differ_in_the_subjects_number():
    made = agreement_sentences(NOUNS[:5])
    assert made.texts[:4] == ["The key near the cabinet", "The keys near the cabinet", "The key near the cabinets", "The keys near the cabinets"]
    assert len(made.texts) == 20 and made.noun.tolist() == [i for i in range(5) for _ in range(4)]
    assert made.number.view(-1, 2).tolist() == [[0, 1]] * 10
    for one, two in zip(made.texts[::2], made.texts[1::2]):
        assert [a != b for a, b in zip(one.split(), two.split())] == [False, True, False, False, False]


def test_number_and_attractor_are_independent():
    made = agreement_sentences(NOUNS[:7])
    counts = torch.bincount(2 * made.number + made.attractor)
    assert counts.tolist() == [7, 7, 7, 7]


def test_splits_share_no_noun_and_follow_the_seed():
    parts = split_nouns(NOUNS, (30, 20, 10), seed=3)
    assert [len(part) for part in parts] == [30, 20, 10]
    assert len({pair for part in parts for pair in part}) == 60
    assert parts == split_nouns(NOUNS, (30, 20, 10), seed=3) != split_nouns(NOUNS, (30, 20, 10), seed=4)


def test_nouns_are_all_different():
    words = [word for pair in NOUNS for word in pair]
    assert len(set(words)) == len(words)


@pytest.mark.parametrize("make, says", [
    (lambda: agreement_sentences(NOUNS[:1]), "at least two"),
    (lambda: agreement_sentences([NOUNS[0], NOUNS[0]]), "1 of them different"),
    (lambda: agreement_sentences(NOUNS[:3], ()), "no preposition"),
    (lambda: split_nouns(NOUNS[:3], (2, 2)), "there are 3"),
    (lambda: one_token_nouns(_letters_only()), "only 0 of"),
])
def test_bad_input_is_refused(make, says):
    with pytest.raises(AgreementError, match=says):
        make()


def _letters_only():
    """A stand-in whose tokenizer cuts every word into letters."""
    from types import SimpleNamespace

    return SimpleNamespace(tokenizer=lambda text, add_special_tokens: {"input_ids": list(text)})


def test_a_tokenizer_without_unknown_words_keeps_every_noun():
    # The tiny model's tokenizer makes any word one token.
    assert one_token_nouns(tiny_model()) == list(NOUNS)


def test_relative_clauses_leave_the_subject_where_it_is():
    one, other = agreement_sentences(NOUNS[:4]), agreement_sentences(NOUNS[:4], RELATIVE_CLAUSES)
    assert other.texts[1] == "The keys that we saw near the cabinet" and torch.equal(one.number, other.number)
    assert [a.split()[:2] == b.split()[:2] and a.split()[-1] == b.split()[-1] for a, b in zip(one.texts, other.texts)] == [True] * 16
    assert len({len(text.split()) for text in other.texts}) == 1


def test_noun_phrases_have_both_numbers_with_every_determiner():
    made = noun_phrases(NOUNS[:3], ("The", "My"))
    assert made.texts[:4] == ["The key", "The cabinet", "The book", "The keys"] and len(made.texts) == 12
    assert torch.bincount(2 * made.number + made.definite).tolist() == [3, 3, 3, 3]
    for nouns, words in (((), ("The", "My")), (NOUNS[:2], ("The",)), (NOUNS[:2], ("My", "Our"))):
        with pytest.raises(AgreementError, match="determiner"):
            noun_phrases(nouns, words)
