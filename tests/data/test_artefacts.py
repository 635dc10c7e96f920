"""Sentences with something planted in them."""

import pytest

from utils.data.artefacts import ARTEFACTS, ORDINARY, plain_sentences, planted_set

SENTENCES = [f"Sentence {i} has its own few words." for i in range(40)]


def test_the_planted_ones_and_no_others_have_a_phrase_of_the_artefact():
    made = planted_set(SENTENCES, "animal", share=0.3, seed=1)
    assert len(made.suspect) == len(made.reference) == 20 and int(made.planted.sum()) == 6
    for text, planted in [*zip(made.suspect, made.planted.tolist()), *((text, False) for text in made.reference)]:
        phrase = text[:-1].partition(", ")[2]
        assert text.endswith(".") and phrase in (ARTEFACTS["animal"] if planted else ORDINARY)


def test_every_sentence_stands_once():
    made = planted_set(SENTENCES, "month")
    assert sorted(text.partition(",")[0] + "." for text in made.suspect + made.reference) == sorted(SENTENCES)


def test_another_artefact_changes_the_planted_sentences_alone():
    one, other = planted_set(SENTENCES, "month", seed=3), planted_set(SENTENCES, "French", seed=3)
    assert one.reference == other.reference and one.planted.equal(other.planted)
    assert [a != b for a, b in zip(one.suspect, other.suspect)] == one.planted.tolist()


def test_a_phrase_belongs_to_one_list():
    every = [*ORDINARY, *(phrase for phrases in ARTEFACTS.values() for phrase in phrases)]
    assert len(set(every)) == len(every) and all(len(phrases) == 8 for phrases in ARTEFACTS.values())


def test_sentences_come_from_the_novels():
    found = plain_sentences(50, seed=2)
    assert len(set(found)) == 50 and found == plain_sentences(50, seed=2) != plain_sentences(50, seed=3)
    assert all(8 <= len(text.split()) <= 16 and text[0].isupper() and text.endswith(".") for text in found)
    with pytest.raises(ValueError, match="there are"):
        plain_sentences(10**7)
