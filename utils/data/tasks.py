"""Word pairs for in-context tasks: opposites, plurals, past tenses."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from utils.data.agreement import NOUNS

ANTONYMS: tuple[tuple[str, str], ...] = tuple(tuple(pair.split(":")) for pair in """
hot:cold big:small good:bad high:low long:short old:new fast:slow hard:soft light:dark rich:poor open:closed full:empty early:late happy:sad
strong:weak wet:dry clean:dirty near:far left:right up:down in:out day:night black:white true:false easy:difficult first:last loud:quiet wide:narrow
deep:shallow thick:thin sweet:sour young:old start:end win:lose buy:sell push:pull give:take love:hate life:death war:peace north:south east:west
summer:winter inside:outside above:below before:after always:never more:less many:few safe:dangerous cheap:expensive smooth:rough heavy:light male:female
top:bottom front:back positive:negative increase:decrease success:failure question:answer arrive:leave remember:forget laugh:cry friend:enemy
accept:reject ancient:modern attack:defend blunt:sharp brave:cowardly bright:dim calm:nervous common:rare create:destroy entrance:exit expand:shrink
fail:succeed guilty:innocent heaven:hell horizontal:vertical import:export maximum:minimum private:public rise:fall simple:complex tight:loose
victory:defeat wise:foolish
""".split())
PAST: tuple[tuple[str, str], ...] = tuple(tuple(pair.split(":")) for pair in """
go:went see:saw take:took give:gave come:came find:found know:knew think:thought make:made say:said get:got run:ran write:wrote speak:spoke break:broke
drive:drove eat:ate fall:fell feel:felt fight:fought fly:flew forget:forgot grow:grew hear:heard hold:held keep:kept lead:led leave:left lose:lost
mean:meant meet:met pay:paid ride:rode ring:rang rise:rose sell:sold send:sent sing:sang sit:sat sleep:slept stand:stood swim:swam teach:taught
tell:told throw:threw win:won walk:walked play:played work:worked look:looked want:wanted call:called talk:talked jump:jumped open:opened close:closed
help:helped move:moved live:lived love:loved turn:turned
build:built buy:bought catch:caught choose:chose draw:drew drink:drank feed:fed hang:hung hide:hid shake:shook shine:shone shoot:shot sink:sank
steal:stole stick:stuck strike:struck tear:tore wake:woke wear:wore ask:asked add:added
""".split())
TASKS: dict[str, tuple[tuple[str, str], ...]] = {
    "antonym": ANTONYMS,
    "past tense": PAST,
    "plural": NOUNS[:120],
}
"""In-context tasks: (word, answer)."""


@dataclass(frozen=True)
class TaskPrompts:
    """Prompts of one in-context task, and their answers.

    Attributes:
        texts: "Q: hot\\nA: cold\\n\\nQ: big\\nA:", with as many worked pairs as asked for; the last one is the query.
        answers: " small", as it would follow.
        words: the query itself.
    """

    texts: list[str]
    answers: list[str]
    words: list[str]


def task_prompts(
    queries: Sequence[tuple[str, str]], shown: Sequence[tuple[str, str]], *, shots: int, template: str = "Q: {}\nA: {}", shuffled: bool = False, seed: int = 0
) -> TaskPrompts:
    """One prompt per query, with `shots` pairs drawn from `shown` before it.

    Args:
        queries: (word, answer) pairs that are asked.
        shown: pairs to show; those with the query's word are not used for it.
        shots: how many; 0 asks without an example.
        template: how a pair is written; both places are words.
        shuffled: the shown answers change places among themselves, so that the form stays and the task is gone.
        seed: of the draws.

    Raises: ValueError when there are fewer pairs to show than shots.
    """
    rng = random.Random(seed)
    texts = []
    for word, _ in queries:
        candidates = [pair for pair in shown if pair[0] != word]
        if shots > len(candidates):
            raise ValueError(f"{shots} pairs were to be shown, and there are {len(candidates)}.")
        pairs = rng.sample(candidates, shots)
        if shuffled and shots > 1:
            answers = [answer for _, answer in pairs]
            pairs = [(first, answers[i - 1]) for i, (first, _) in enumerate(pairs)]
        parts = [template.format(*pair) for pair in pairs] + [template.format(word, "").rstrip()]
        texts.append("\n\n".join(parts))
    return TaskPrompts(texts, [f" {answer}" for _, answer in queries], [word for word, _ in queries])
