"""The texts for steering: nothing twice, nothing on both sides."""

from utils.data.prompts import PROMPTS, WORK, WORK_PROMPTS
from utils.data.requests import REQUESTS
from utils.data.steering import FRENCH, MOOD, OTHER_TOPICS, SEA
from utils.data.tasks import TASKS


def test_every_list_has_what_it_should_and_nothing_twice():
    assert [len(MOOD), len(SEA), len(FRENCH), len(PROMPTS), len(WORK), len(WORK_PROMPTS), len(REQUESTS)] == [32, 24, 20, 80, 20, 40, 52]
    assert all(len(texts) == 12 for texts in OTHER_TOPICS.values())
    for texts in (SEA, PROMPTS, WORK, WORK_PROMPTS, *OTHER_TOPICS.values(), *(sum(pairs, ()) for pairs in (MOOD, FRENCH, REQUESTS))):
        assert len(set(texts)) == len(texts) and all(text == text.strip() and text for text in texts)
    for pairs in (MOOD, FRENCH, REQUESTS, *TASKS.values()):
        assert all(len(pair) == 2 for pair in pairs)
    assert not set(PROMPTS) & set(WORK_PROMPTS)
