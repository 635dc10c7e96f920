"""A learner's own table is taken as it is, or refused in words that say what to change."""

import pytest
import torch

from utils.yours.tables import Labelled, TableError, Valued, labelled, read_table, read_values


@pytest.fixture
def file(tmp_path):
    def write(content, encoding="utf-8"):
        path = tmp_path / "my.csv"
        path.write_bytes(content.encode(encoding))
        return path
    return write


def test_two_lists():
    table = labelled(["good", "fine"], ["bad", "poor", "awful"])
    assert table.texts == ["good", "fine", "bad", "poor", "awful"] and table.labels.tolist() == [1, 1, 0, 0, 0]
    assert table.groups.tolist() == [0, 1, 2, 3, 4] and len(table) == 5
    assert labelled(["a", "b"], ["c", "d"], paired=True).groups.tolist() == [0, 1, 0, 1]


def test_groups_may_be_names():
    assert Labelled(["a", "b", "c"], [0, 1, 1], ["x", "y", "x"]).groups.tolist() == [0, 1, 0]
    assert Labelled(["a", "b"], torch.tensor([True, False]), torch.tensor([7, 7])).labels.tolist() == [1, 0]


@pytest.mark.parametrize("content", ['text,label,group\n"Yes, it is.",TRUE,a\nNo.,false,b\n', "group;Label;note; TEXT\na;yes;;Yes, it is.\nb;no;;No.\n",
                                     '\ufefftext,label,group\r\n"Yes, it is.",1,a\r\nNo.,0,b\r\n'])
def test_files_that_people_have(file, content):
    table = read_table(file(content))
    assert table.texts == ["Yes, it is.", "No."] and table.labels.tolist() == [1, 0] and table.groups.tolist() == [0, 1]


@pytest.mark.parametrize("content, words", [
    ("text,lable\na,1\n", "no column 'label'.*text, lable"), ("label\n1\n", "no column 'text'"), ("", "names nothing"),
    ("text,label\n", "no rows"), ("text,label\na,1\nb,1\n", "both classes"), ("text,label\na,happy\nb,sad\n", "'happy', 'sad'"),
    ("text,label\na,1\n ,0\n", "row 2 has no text"), ("text,label\na,1\nb\n", "found also ''"), ("text,label\na,1\nb,0\nA ,1\n", "rows 1 and 3 .* different groups"),
    ("text,label,group\na,1,x\na,0,x\n", "different labels"), ("text,label,group\na,1,x\nb,0,\n", "row 2 has no group"),
])
def test_files_that_are_refused(file, content, words):
    with pytest.raises(TableError, match=words):
        read_table(file(content))


def test_not_utf8_and_not_there(file, tmp_path):
    with pytest.raises(TableError, match=r"not UTF-8 \(line 3\)"):
        read_table(file("text,label\na,1\né,0\n", encoding="latin-1"))
    with pytest.raises(TableError, match="no file"):
        read_table(tmp_path / "other.csv")


@pytest.mark.parametrize("make, words", [
    (lambda: Labelled(["a", "b"], [0]), "one of each"), (lambda: Labelled([], []), "no rows"), (lambda: labelled("abc", ["d"]), "one string"),
    (lambda: Labelled(["a", "b"], [0, 2]), "found also '2'"), (lambda: labelled(["a"], ["b", "c"], paired=True), "equal length"),
    (lambda: labelled(["a"] * 9, [f"b{i}" for i in range(12)]), "same text"),
    (lambda: labelled([f"a{i}" for i in range(9)], [f"b{i}" for i in range(12)]).require(), "label 1 has 9 rows"),
    (lambda: Labelled([f"a{i}" for i in range(40)], [0, 1] * 20, [i // 8 for i in range(40)]).require(), "5 groups"),
    (lambda: Labelled([f"a{i}" for i in range(40)], [0] * 20 + [1] * 20, [*range(20), *[30] * 20]).require(), "label 1 occurs in 1 groups"),
])
def test_tables_that_are_refused(make, words):
    with pytest.raises(TableError, match=words):
        make()


def test_numbers(file):
    table = read_values(file("text,value,group\na,1.5,x\nb,-2e3,x\n"))
    assert table.values.tolist() == [1.5, -2000.0] and table.groups.tolist() == [0, 0] and len(table) == 2
    for content, words in [("text,value\na,1,5\nb,x\n", "row 2 is 'x'"), ("text,value\na,nan\nb,1\n", "finite"), ("text,label\na,1\n", "no column 'value'")]:
        with pytest.raises(TableError, match=words):
            read_values(file(content))
    with pytest.raises(TableError, match="nothing to predict"):
        Valued(["a", "b"], [3, 3])
