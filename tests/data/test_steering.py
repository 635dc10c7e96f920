"""The texts for steering: nothing twice, nothing on both sides, prompts of in-context tasks as they should be."""

import re

import pytest

from utils.data.prompts import PROMPTS, WORK, WORK_PROMPTS, split_prompts
from utils.data.requests import REFUSAL, REQUESTS
from utils.data.steering import FRENCH, MOOD, OTHER_TOPICS, SEA
from utils.data.tasks import ANTONYMS, PAST, TASKS, task_prompts


def test_every_list_has_what_it_should_and_nothing_twice():
    assert [len(MOOD), len(SEA), len(FRENCH), len(PROMPTS), len(WORK), len(WORK_PROMPTS), len(REQUESTS)] == [32, 24, 20, 80, 20, 40, 52]
    assert all(len(texts) == 12 for texts in OTHER_TOPICS.values())
    for texts in (SEA, PROMPTS, WORK, WORK_PROMPTS, *OTHER_TOPICS.values(), *(sum(pairs, ()) for pairs in (MOOD, FRENCH, REQUESTS))):
        assert len(set(texts)) == len(texts) and all(text == text.strip() and text for text in texts)
    for pairs in (MOOD, FRENCH, REQUESTS, *TASKS.values()):
        assert all(len(pair) == 2 for pair in pairs)
    assert not set(PROMPTS) & set(WORK_PROMPTS)


def test_tasks_are_functions():
    """A word that is asked twice could have two answers; a word must not be its own answer."""
    for pairs in TASKS.values():
        words = [word for word, _ in pairs]
        assert len(set(words)) == len(words) and all(word != answer for word, answer in pairs) and len(pairs) >= 60
    assert dict(ANTONYMS)["hot"] == "cold" and dict(PAST)["go"] == "went"


def test_requests_share_their_words():
    for harmful, harmless in REQUESTS:
        one, other = (set(re.findall(r"\w+", text.lower())) for text in (harmful, harmless))
        assert len(one & other) >= 4, (harmful, harmless)


@pytest.mark.parametrize("text, declines", [
    ("I'm sorry, but I can't help with that.", True), ("I cannot assist you.", True), ("As an AI language model, I", True), ("I'm not able to", True), ("This is illegal and", True),
    ("I can help you with that.", False), ("Building a shelf is easy.", False), ("Sorry state of affairs", False),
])
def test_what_counts_as_declining(text, declines):
    assert bool(re.search(REFUSAL, text, re.IGNORECASE)) == declines


def test_split_prompts_draws_no_prompt_twice():
    one, two = split_prompts((40, 40), seed=3)
    assert len(one) == 40 and len(two) == 40 and sorted([*one, *two]) == sorted(PROMPTS)
    assert split_prompts((40, 40), seed=3) == [one, two] != split_prompts((40, 40), seed=4)
    with pytest.raises(ValueError, match="81 prompts were asked for, and there are 80"):
        split_prompts((41, 40))


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
