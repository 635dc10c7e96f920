"""Words and the classes that are their parents."""

from utils.data.word_classes import WORD_CLASSES, member_numbers


def test_a_word_is_the_same_with_a_space_and_a_capital():
    assert member_numbers(["he", " he", "He", " He", "her", "the", " "], ("she", "he")).tolist() == [1, 1, 1, 1, -1, -1, -1]


def test_no_word_stands_twice_in_a_class():
    for words in WORD_CLASSES.values():
        assert len({word.lower() for word in words}) == len(words) >= 7
