"""The tasks of chapter 33."""

import pytest
import torch

from utils.data.probing import probing_tasks


@pytest.fixture(scope="module")
def tasks():
    return probing_tasks(200)


def test_there_are_fifteen(tasks):
    assert len(tasks) == 15


def test_each_has_two_balanced_classes_and_no_more_rows_than_asked_for(tasks):
    for name, task in tasks.items():
        assert len(task.texts) == len(task.labels) == len(task.groups) <= 200, name
        assert len(task.texts) >= 40, name
        assert set(task.labels.tolist()) == {0, 1}, name
        assert 0.4 <= task.labels.float().mean() <= 0.6, name


def test_no_text_is_on_two_sides(tasks):
    for name, task in tasks.items():
        pairs = set(zip(task.texts, task.groups.tolist()))
        assert len({text for text, _ in pairs}) == len(pairs), name
        assert len(task.groups.unique()) >= 15, name


def test_they_are_always_the_same(tasks):
    again = probing_tasks(200)
    assert all(task.texts == again[name].texts and torch.equal(task.labels, again[name].labels) for name, task in tasks.items())
