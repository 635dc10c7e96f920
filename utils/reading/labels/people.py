"""Labels by people: notes in the feature browser that are written as rules, to be scored like all others.

    rules, others = rules_in_notes(browser.notes, lexicon)
    with_scores(rules, testing, neighbours, lexicon)          as for the rules that a search has found
"""

from __future__ import annotations

import torch

from utils.reading.labels.language import Lexicon, Rule, RuleError, parse, run
from utils.reading.notes import Notes


def rules_in_notes(notes: Notes, lexicon: Lexicon) -> tuple[dict[int, Rule], dict[int, str]]:
    """(the notes that are rules, why the others are none), by latent."""
    rules, others = {}, {}
    for latent in notes:
        try:
            rule = parse(notes[latent])
            run(rule, torch.zeros(1, 1, dtype=torch.long), lexicon)     # a class that there is not
            rules[latent] = rule
        except RuleError as error:
            others[latent] = str(error)
    return rules, others
