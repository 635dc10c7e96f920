"""In-context tasks: functions of a word, shown by pairs."""

import re

import pytest

from utils.data.tasks import ANTONYMS, PAST, TASKS, task_prompts


def test_tasks_are_functions():
    """A word that is asked twice could have two answers; a word must not be its own answer."""
    for pairs in TASKS.values():
        words = [word for word, _ in pairs]
        assert len(set(words)) == len(words) and all(word != answer for word, answer in pairs) and len(pairs) >= 60
    assert dict(ANTONYMS)["hot"] == "cold" and dict(PAST)["go"] == "went"


def test_task_prompts_show_pairs_and_ask_the_last():
    made = task_prompts(ANTONYMS[:3], ANTONYMS, shots=2, seed=1)
    for text, answer, (word, right) in zip(made.texts, made.answers, ANTONYMS):
        *shown, question = text.split("\n\n")
        assert question == f"Q: {word}\nA:" and answer == f" {right}" and len(shown) == 2
        for pair in shown:
            first, second = re.fullmatch(r"Q: (\w+)\nA: (\w+)", pair).groups()
            assert (first, second) in ANTONYMS and first != word
    assert task_prompts(ANTONYMS[:1], ANTONYMS, shots=0, template="{} ->{}").texts == ["hot ->"]
    assert task_prompts(ANTONYMS[:3], ANTONYMS, shots=2, seed=1) == made
    with pytest.raises(ValueError, match="3 pairs were to be shown, and there are 2"):
        task_prompts(ANTONYMS[:1], ANTONYMS[:3], shots=3)


def test_shuffled_examples_keep_the_words_and_break_every_pair():
    straight, shuffled = (task_prompts(PAST[:5], PAST, shots=5, seed=2, shuffled=mixed) for mixed in (False, True))
    for one, other in zip(straight.texts, shuffled.texts):
        assert sorted(re.findall(r"\w+", one)) == sorted(re.findall(r"\w+", other))
        assert not {tuple(pair) for pair in re.findall(r"Q: (\w+)\nA: (\w+)", other)} & set(PAST)
