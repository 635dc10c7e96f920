"""The topics: their own sentences are hits, neutral ones are not."""

import re

from utils.data.more_topics import MORE_TOPIC_TEXTS, MORE_TOPIC_WORDS
from utils.data.topics import ELSEWHERE, OPENINGS, TOPIC_TEXTS, TOPIC_WORDS

TEXTS, WORDS = TOPIC_TEXTS | MORE_TOPIC_TEXTS, TOPIC_WORDS | MORE_TOPIC_WORDS


def _share(texts, topic):
    return sum(re.search(WORDS[topic], text, re.IGNORECASE) is not None for text in texts) / len(texts)


def test_words_find_their_topic_and_no_other():
    assert set(WORDS) == set(TEXTS) - {"neutral"}
    for topic in WORDS:
        assert _share(TEXTS[topic], topic) > 0.9
        assert _share(TEXTS["neutral"], topic) == 0 and _share(OPENINGS, topic) == 0
    assert _share(["a shipment", "a seat"], "sea") == 0 and _share(["SAILED", "by the sea"], "sea") == 1


def test_no_text_stands_twice():
    texts = [text for texts in TEXTS.values() for text in texts] + [*ELSEWHERE, *OPENINGS]
    assert len(texts) == len(set(texts)) and all(len(topic) == 24 for topic in TEXTS.values())
