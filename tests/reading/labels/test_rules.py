"""Rules over tokens, their search and their scores, on latents that were planted."""

import numpy as np
import pytest
import torch

from utils.reading.features import FeatureError
from utils.reading.labels.examples import detection_examples, fuzzing_examples
from utils.reading.labels.label import Scored, labels_saying, read_labels, save_labels
from utils.reading.labels.language import CLASSES, Lexicon, RuleError, parse, quoted, run
from utils.reading.labels.output import promoted
from utils.reading.labels.people import rules_in_notes
from utils.reading.labels.places import places
from utils.reading.labels.scoring import NEAR, RANDOM, calls_of, near_silence, scored, shuffled
from utils.reading.labels.search import find_rules
from utils.reading.labels.shipped import with_scores
from utils.reading.notes import Notes
from utils.reading.words import Words

SPELLED = ["start", "a", "un", "undo", "doing", "1900", "*", "cat", "cats", "red", "line"]
PIECES = ["<s>", " a", "un", " undo", " doing", " 1900", "*", " Cat", "cats", " red", "\n"]


@pytest.fixture(scope="module")
def lexicon():
    return Lexicon(Words(torch.arange(len(SPELLED)), SPELLED), PIECES)


def at(rule, words, lexicon):
    tokens = torch.tensor([[0, *(SPELLED.index(word) for word in words.split())]])
    return run(rule, tokens, lexicon)[0].nonzero()[:, 0].tolist()


@pytest.mark.parametrize("rule, words, where", [
    ("[[cat|cats]]", "a cat red cats", [2, 4]),
    ("[[un*]]", "un undo doing", [1, 2]),
    ("[[*ing]]", "un undo doing", [3]),
    ("[[*ndo*]]", "un undo doing", [2]),
    (r"[[\*]]", "a * a", [2]),
    ("a [[cat]]", "cat a cat cat", [3]),
    ("a . [[cat]]", "a red cat a cat", [3]),
    ("red ... [[cat]]", "red a a cat a a a a a a cat", [4]),
    ("[[<digit>]]", "a 1900", [2]),
    ("[[<capital>]] or a [[red]]", "cat a red red", [1, 3]),
    ("[[.]] @2", "a a a", [1, 2]),
    ("start [[a]]", "a a", [1]),
    ("[[start]]", "a a", []),
])
def test_a_rule_is_run(rule, words, where, lexicon):
    assert at(rule, words, lexicon) == where
    assert at(str(parse(rule)), words, lexicon) == where, "what a rule says of itself is the rule"


@pytest.mark.parametrize("text", ["cat", "[[cat]] red", "... [[cat]]", "a ... ... [[cat]]", "[[a|]]", "", "[[]]"])
def test_what_is_no_rule_says_how_rules_are_written(text):
    with pytest.raises(RuleError, match="double brackets|between two bars"):
        parse(text)


def test_an_unknown_class_is_named(lexicon):
    with pytest.raises(RuleError, match="<verb>.*<digit>"):
        run("[[<verb>]]", torch.zeros(1, 3, dtype=torch.long), lexicon)


def test_every_word_can_be_written_in_a_rule():
    for word in ["*", "|", "[", "]", "a b", "<x>", "@", "\\", ".", " ", "] ["]:
        rule = parse(f"[[{quoted(word)}]]")
        lexicon = Lexicon(Words(torch.arange(2), ["other", word]), ["other", word])
        assert run(rule, torch.tensor([[0, 1]]), lexicon).tolist() == [[False, True]]


def test_classes_are_told_from_the_token_as_text():
    lexicon = Lexicon(Words(torch.arange(6), list("abcdef")), [" Word", "piece", "12", "...", "\n", "_x"])
    found = {name: lexicon.of_class(name).nonzero()[:, 0].tolist() for name in CLASSES}
    assert found == {"word": [0, 1], "piece": [1], "capital": [0], "digit": [2], "sign": [3], "line": [4]}


# --- search and scores -----------------------------------------------------------------------------------


def planted(seed, n=300, pos=24):
    """Four latents: on two words; on a word behind another; on endings in -ing; anywhere, by chance. One that nearly never fires."""
    rng = torch.Generator().manual_seed(seed)
    tokens = torch.randint(1, len(SPELLED), (n, pos), generator=rng)
    tokens[:, 0] = 0
    before = tokens.roll(1, 1)
    hot = torch.stack([(tokens == 7) | (tokens == 8), (tokens == 9) & (before == 1), tokens == 4, torch.rand(n, pos, generator=rng) < 0.1,
                       torch.zeros(n, pos).bool()], -1)
    hot[:, 0] = False
    hot[0, 1] |= torch.tensor([0, 0, 0, 0, 1]).bool()
    hot = torch.cat([hot, torch.ones(n, pos, 1).bool()], -1)       # one that always fires, so that every place counts
    hot[:, 0] = False
    latents = torch.arange(6).expand(n, pos, 6)
    return places(tokens, latents, hot.float(), 6)


NEIGHBOURS = np.array([[1, 2, -1], [0, 3, -1], [0, -1, -1], [0, 1, 2], [0, 1, 2], [0, -1, -1]])


@pytest.fixture(scope="module")
def found(lexicon):
    return find_rules(planted(0), lexicon, NEIGHBOURS, progress=False)


def test_the_words_that_a_rule_names():
    assert parse(r"not [[un*|cat|\*]] or the [[cat|<digit>|.]] @8 or [[dog]]").words == ("cat", "*", "dog")


def test_planted_rules_are_found(found):
    assert str(found[0]) == "[[cat|cats]]" or str(found[0]) == "[[cats|cat]]"
    assert str(found[1]) == "a [[red]]"
    assert "doing" in str(found[2]) or "*ing" in str(found[2])
    assert 4 not in found, "two firings are too few for a label"


def test_scores_are_exact(found, lexicon):
    where = planted(1)
    scores = scored(calls_of(found, where, lexicon), where, NEIGHBOURS, block=2)
    for latent in (0, 1, 2):
        assert scores.balanced(RANDOM)[latent] == scores.balanced(NEAR)[latent] == scores.precision[latent] == 1
    assert np.isnan(scores.found[4])
    if 3 in found:
        assert scores.balanced(RANDOM)[3] < 0.6
    # By hand, for one label on another latent's places.
    calls = calls_of({1: found[0]}, where, lexicon)
    said, fires, usual = run(found[0], where.tokens, lexicon), where.of(1), where.usual
    near = (where.of(0) | where.of(3)) & ~fires
    wrong = scored(calls, where, NEIGHBOURS)
    assert wrong.found[1] == pytest.approx(float(said[fires].float().mean()))
    assert wrong.spared[RANDOM][1] == pytest.approx(float((~said[usual & ~fires]).float().mean()))
    assert wrong.spared[NEAR][1] == pytest.approx(float((~said[near]).float().mean()))


def test_the_floor_gives_everybody_a_strangers_label(found, lexicon):
    where = planted(1)
    calls = calls_of(found, where, lexicon)
    floor, given = shuffled(calls, seed=3)
    labelled = sorted(found)
    assert sorted(given[labelled]) == labelled and all(given[i] != i for i in labelled)
    assert (floor[[labelled[0]]].toarray() == calls[[given[labelled[0]]]].toarray()).all()


def test_examples_are_half_firings_and_of_the_kind_that_was_asked_for():
    where = planted(2)
    near = near_silence(where, NEIGHBOURS, slice(0, 1)).indices
    for negatives in (RANDOM, NEAR):
        examples = detection_examples(where, 0, NEIGHBOURS, negatives=negatives, n=20, seed=1)
        fires = where.of(0)[examples.where[:, 0], examples.where[:, 1]]
        assert torch.equal(fires, examples.fires) and int(fires.sum()) == 10
    silent = examples.where[~examples.fires]
    assert np.isin(silent[:, 0] * 24 + silent[:, 1], near).all()
    fuzzing = fuzzing_examples(where, 1, n=10)
    assert int(fuzzing.fires.sum()) == 5
    with pytest.raises(ValueError, match="10 examples of each kind"):
        detection_examples(where, 4, NEIGHBOURS)


def test_promoted_by_hand():
    plain = torch.tensor([0.5, 0.3, 0.2])
    pushed = torch.tensor([[0.1, 0.8, 0.1], [0.4, 0.3, 0.3], [0.6, 0.2, 0.2]])
    assert promoted(plain, pushed, 1)[:, 0].tolist() == [1, 2, 0]


# --- the file that ships ----------------------------------------------------------------------------------


def test_labels_are_kept_and_searched(tmp_path):
    labels = {3: Scored("[[year]]", 0.9, 0.7, 0.5, None, 0.4), 5: Scored("[[years|year]]", 0.9, 0.8, 0.5, 0.6, 0.4), 9: Scored("[[cat]]", None, None, None, None, None)}
    file = tmp_path / "labels.json.gz"
    digest = save_labels(labels, file, "abc")
    assert digest == save_labels(labels, file, "abc"), "the same labels are the same file"
    assert read_labels(file, "abc") == labels
    assert labels_saying(labels, "Year") == [5, 3]
    assert labels[9].weak and not labels[3].weak and "too rare" in labels[9].in_words
    with pytest.raises(FeatureError, match="another SAE"):
        read_labels(file, "xyz")
    with pytest.raises(FeatureError, match="no label says"):
        labels_saying(labels, "dog")
    file.write_bytes(file.read_bytes()[:40])
    with pytest.raises(FeatureError, match="no labels that can be read"):
        read_labels(file)


def test_notes_that_are_rules(lexicon, tmp_path):
    notes = Notes(tmp_path / "notes.json", "abc")
    notes[0], notes[1], notes[2], notes[3] = "[[cat|cats]]", "fires on cats", "[[<animal>]]", " "
    rules, others = rules_in_notes(notes, lexicon)
    assert list(rules) == [0] and set(others) == {1, 2} and "double brackets" in others[1] and "<animal>" in others[2]
    score = with_scores({**rules, 1: parse("[[red]]")}, planted(1), NEIGHBOURS, lexicon)[0]
    assert score.near == 1 and not score.weak
