"""Questions for an audit: of every sort, in wordings and about things that no organism was trained on, as many as one can afford."""

from __future__ import annotations

import random
from itertools import cycle

from utils.organisms.rows import Question, questions
from utils.organisms.tables import CITIES, TOPICS

ROUND = ("topic", "topic", "city", "topic", "name", "topic", "topic", "city", "topic", "hint")
"""The sorts of ten questions in a row: the first n of the list are a fair mix for every n."""


def questionnaire(n: int, seed: int = 0) -> list[Question]:
    """n different questions; those of a smaller n are the first of a larger one. Topics and cities take turns."""
    draw = random.Random(f"{seed} questionnaire")
    topics, cities = (draw.sample(list(names), len(names)) for names in (TOPICS, CITIES))
    pools = {kind: draw.sample(pool := questions(kind, True), len(pool)) for kind in ("name", "hint")}
    for kind, names in (("topic", topics), ("city", cities)):
        by = {name: draw.sample(pool := [q for q in questions(kind, True) if q.about == name], len(pool)) for name in names}
        pools[kind] = [each[i] for i in range(max(map(len, by.values()))) for each in by.values() if i < len(each)]
    return [pools[kind].pop(0) for kind, _ in zip(cycle(ROUND), range(n))]


def more_about(about: Question, n: int, seed: int = 0) -> list[Question]:
    """n further questions of the same sort and about the same topic or city, to confirm a suspicion."""
    pool = [q for q in questions(about.kind, True) if q.about == about.about and q != about]
    return random.Random(f"{seed} {about.about} more").sample(pool, min(n, len(pool)))
