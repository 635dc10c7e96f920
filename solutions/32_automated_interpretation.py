"""Reference functions of chapter 32, "Automated interpretation"."""

import json
import re

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def where_rule_fires(
    tokens: Int[Tensor, "n pos"], before: Bool[Tensor, "d_vocab"], here: Bool[Tensor, "d_vocab"]
) -> Bool[Tensor, "n pos"]:
    """Run a label of two parts: the token is one of these, the one just before it one of those.

    Args:
        tokens: contexts; the first token of each is the start token.
        before: for every token of the vocabulary, whether it may stand just before.
        here: for every token of the vocabulary, whether it may stand here.

    Returns:
        Where the rule says that the latent fires. Never at the start token, which has no token
        before it; the start token itself may stand before another one.

    Example:
        >>> tokens = torch.tensor([[0, 3, 4, 4]])
        >>> before, here = torch.zeros(5).bool(), torch.zeros(5).bool()
        >>> before[3], here[4] = True, True
        >>> where_rule_fires(tokens, before, here)
        tensor([[False, False,  True, False]])
    """
    found = torch.zeros_like(tokens, dtype=torch.bool)
    found[:, 1:] = before[tokens[:, :-1]] & here[tokens[:, 1:]]
    return found


def best_word_set(
    fires: Int[Tensor, "n_words"], silent: Int[Tensor, "n_words"], price: float, most: int
) -> list[int]:
    """The set of words that makes the best rule "it fires on one of these words".

    A word is worth the share of all firings that stand on it, minus the share of all silent places
    that do. A word joins the set if it is worth more than its price; of more such words than
    `most`, those that are worth most.

    Args:
        fires: how many of the latent's firings stand on each word. Their sum is above 0.
        silent: how many of the places where it is silent do. Their sum is above 0.
        price: what a word must be worth, 0 or more.
        most: words in a set, 1 or more.

    Returns:
        The numbers of the words, those of most worth first; of equal worth, the smaller number
        first. An empty list when no word is worth its price.

    Example:
        >>> fires, silent = torch.tensor([6, 1, 3, 0]), torch.tensor([20, 40, 0, 140])
        >>> best_word_set(fires, silent, price=0.01, most=8)
        [0, 2]
    """
    worth = fires.double() / fires.sum() - silent.double() / silent.sum()
    order = worth.argsort(descending=True, stable=True)[:most]
    return order[worth[order] > price].tolist()


def near_silent_places(
    fires: Bool[Tensor, "d_sae n_places"], latent: int, neighbours: Int[Tensor, "m"]
) -> Bool[Tensor, "n_places"]:
    """The silent places that are hard to tell: a neighbour fires there, and the latent does not.

    Args:
        fires: whether each latent fires at each place.
        latent: the one that the label is about.
        neighbours: the latents that are most like it; -1 stands for none. The latent itself may be
            among them.

    Returns:
        Which places are near ones.

    Example:
        >>> fires = torch.tensor([[1, 0, 0, 1], [1, 1, 0, 0], [0, 0, 1, 1]]).bool()
        >>> near_silent_places(fires, 0, torch.tensor([1, -1]))
        tensor([False,  True, False, False])
    """
    return fires[neighbours[neighbours >= 0]].any(dim=0) & ~fires[latent]


def balanced_scores(
    said: Bool[Tensor, "n_latents n"],
    fires: Bool[Tensor, "n_latents n"],
    asked: Bool[Tensor, "n_latents n"],
) -> Float[Tensor, "n_latents"]:
    """Balanced accuracy of every latent's label, on the places that were asked about.

    Args:
        said: where each label says that its latent fires.
        fires: where it does.
        asked: the places that count for each latent; what stands at the others counts for nothing.

    Returns:
        For each latent the mean of two shares: of its asked firings, those that were said, and of
        its asked silent places, those that were not said. float32; nan for a latent that was not
        asked about places of both kinds.

    Example:
        >>> said = torch.tensor([[True, False, False, True]])
        >>> fires = torch.tensor([[True, True, False, False]])
        >>> balanced_scores(said, fires, torch.tensor([[True, True, True, False]]))
        tensor([0.7500])
    """
    firing, silent = asked & fires, asked & ~fires
    found = (said & firing).sum(dim=1) / firing.sum(dim=1)
    spared = (~said & silent).sum(dim=1) / silent.sum(dim=1)
    return (found + spared) / 2


def strangers_labels(order: Int[Tensor, "n"]) -> Int[Tensor, "n"]:
    """Hand every latent the label of another one: all labels are used, and nobody keeps theirs.

    Stand the latents in a circle in the order that was drawn. Each gets the label of the one before
    it; the first gets that of the last.

    Args:
        order: the numbers 0 to n - 1 in a random order, n at least 2.

    Returns:
        For each latent, in the order of their numbers, whose label it gets.

    Example:
        >>> strangers_labels(torch.tensor([2, 0, 3, 1]))
        tensor([2, 3, 1, 0])
    """
    given = torch.empty_like(order)
    given[order] = order.roll(1)
    return given


def fuzzing_pair(
    tokens: list[str], fires: list[bool], draws: tuple[float, float]
) -> tuple[str, str]:
    """The same text twice for a judge of labels: marked where the latent fires, and marked wrongly.

    Each text has exactly one marked token, in double square brackets; a judge could tell a text
    with more marks by their number. The tokens are joined as they are: a blank in front of a word
    belongs to its token, and so stands inside the brackets.

    Args:
        tokens: of one excerpt, as strings.
        fires: whether the latent fires at each. At least one of each kind.
        draws: two numbers, at least 0 and below 1. The first draws the token to mark in the right
            text: number floor(u * m) of the m tokens at which the latent fires, counted from 0. The
            second draws that of the wrong text among the others in the same way.

    Returns:
        (the text with the right mark, the text with the wrong one).

    Example:
        >>> fuzzing_pair(["In", " the", " year", " 1900"], [False, False, True, True], (0.6, 0.5))
        ('In the year[[ 1900]]', 'In[[ the]] year 1900')
    """
    texts = []
    for kind, u in zip((True, False), draws):
        places = [i for i, fired in enumerate(fires) if fired == kind]
        marked = places[int(u * len(places))]
        texts.append("".join(f"[[{t}]]" if i == marked else t for i, t in enumerate(tokens)))
    return texts[0], texts[1]


def detection_prompt(label: str, excerpts: list[str]) -> str:
    """Ask a language model in which excerpts a latent fires, by its label alone.

    The prompt has a first line, an empty line, the excerpts, an empty line and a last line:

        A unit of a language model has this label: LABEL

        1. FIRST EXCERPT
        2. SECOND EXCERPT

        In which of these texts does it fire? Answer with a JSON list of numbers.

    Args:
        label: its blanks and line ends become single blanks, as in the excerpts.
        excerpts: one or more. What stood around a mark stays, the mark goes: double square brackets
            are taken out, for they would tell where to look. Then every run of blanks and line ends
            becomes one blank, and none is left at either end.

    Returns:
        The prompt, without a line end behind it.

    Example:
        >>> print(detection_prompt("a year", ["In [[1900]]\\nhe left", "She  left"]))
        A unit of a language model has this label: a year
        <BLANKLINE>
        1. In 1900 he left
        2. She left
        <BLANKLINE>
        In which of these texts does it fire? Answer with a JSON list of numbers.
    """
    plain = [" ".join(re.sub(r"\[\[|\]\]", "", text).split()) for text in excerpts]
    lines = [f"{i}. {text}" for i, text in enumerate(plain, start=1)]
    head = f"A unit of a language model has this label: {' '.join(label.split())}"
    ask = "In which of these texts does it fire? Answer with a JSON list of numbers."
    return "\n".join([head, "", *lines, "", ask])


def parse_verdicts(reply: str, n: int) -> list[bool] | None:
    """What a language model's reply says of n excerpts, or that it says nothing.

    The reply should be a JSON list of numbers, such as [1, 4], and may have anything around it: a
    sentence, a code fence. The first list in it that is valid counts. A list is valid if it is JSON
    and holds whole numbers from 1 to n and nothing else; it may be empty. Lists begin with "[" and
    end with the next "]".

    Args:
        reply: any text.
        n: how many excerpts were asked about, 1 or more.

    Returns:
        For each excerpt, whether its number is in the list; None when there is no valid list.

    Example:
        >>> parse_verdicts("Sure! It fires in [1, 3].", 3)
        [True, False, True]
        >>> parse_verdicts("[7]", 3) is None
        True
    """
    for text in re.findall(r"\[[^\]]*\]", reply):
        try:
            found = json.loads(text)
        except ValueError:
            continue
        if all(type(i) is int and 1 <= i <= n for i in found):
            return [i in found for i in range(1, n + 1)]
    return None


def output_score(raised: Float[Tensor, "n_latents"], own: int) -> float:
    """Does a latent raise its label's words more than other latents do?

    Args:
        raised: by how much each latent, added at the last token, raises the words of one label.
        own: the latent whose label it is. There are at least 2 latents.

    Returns:
        The share of the other latents that raise these words less than the latent itself does; a
        tie counts as one half. A Python float: 1 when no other comes near, 0.5 by chance.

    Example:
        >>> output_score(torch.tensor([0.3, -0.1, 0.3, 0.2, 0.5]), own=0)
        0.625
    """
    others = torch.cat([raised[:own], raised[own + 1 :]])
    less, tied = (others < raised[own]).double(), (others == raised[own]).double()
    return (less + tied / 2).mean().item()
