"""Your own texts with what you know about them: two lists or a CSV file, checked before anything is computed.

    labelled(["I love it.", ...], ["I hate it.", ...])      two lists
    read_table("my.csv")                                    a file with the columns text,label[,group]
    read_values("my.csv")                                   a file with the columns text,value[,group]

Rows with the same group never stand on two sides of a split. Without groups every row is one of its own.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

MIN_ROWS = 10
"""Rows that each class needs, for a probe to be made from some and scored on others."""
MIN_GROUPS = 10
"""Groups that a table needs: an interval over fewer says little."""
_CLASSES = {"0": 0, "false": 0, "no": 0, "1": 1, "true": 1, "yes": 1}


class TableError(ValueError):
    """A table that no honest result can be made from. The message says what to change."""


@dataclass(frozen=True)
class Labelled:
    """Texts in two classes, checked.

    Attributes:
        texts: one text per row.
        labels: 0 or 1 per row; any sequence is taken, a tensor of integers is kept.
        groups: what belongs together (an author, a template, a city), as names or numbers; kept as the numbers
            0, 1, 2, ... in the order of appearance. None makes every row a group of its own.

    Raises: TableError for columns of different length, an empty text, labels other than 0 and 1, one class only,
    and a text that occurs in two groups or with both labels.
    """

    texts: list[str]
    labels: Int[Tensor, " n"]
    groups: Int[Tensor, " n"] | None = None

    def __post_init__(self) -> None:
        texts, groups = _checked_rows(self.texts, self.labels, self.groups)
        labels = [int(label) if label in (0, 1) else label for label in _listed(self.labels)]
        if odd := sorted({str(label) for label in labels if label not in (0, 1)}):
            raise TableError(f"labels are 0 and 1; found also {', '.join(map(repr, odd[:5]))}.")
        if len(set(labels)) == 1:
            raise TableError(f"all {len(labels)} rows have the label {labels[0]}: a probe needs both classes.")
        _check_duplicates(texts, groups, labels)
        for name, value in (("texts", texts), ("labels", torch.tensor(labels)), ("groups", groups)):
            object.__setattr__(self, name, value)

    def __len__(self) -> int:
        return len(self.texts)

    def require(self, rows: int = MIN_ROWS, groups: int = MIN_GROUPS) -> None:
        """Refuse a table that is too small to be split by group.

        Args:
            rows: how many rows each class needs.
            groups: how many groups the table needs; each class must occur in half as many.

        Raises: TableError, which says what is missing.
        """
        for label in (0, 1):
            count = int((self.labels == label).sum())
            if count < rows:
                raise TableError(f"the label {label} has {count} rows: at least {rows} are needed.")
        found = len(self.groups.unique())
        if found < groups:
            raise TableError(f"{found} groups: at least {groups} are needed, to hold some out and to see how much groups "
                             "differ. Collect more, or leave the group column out if the rows have nothing in common.")
        for label in (0, 1):
            found = len(self.groups[self.labels == label].unique())
            if found < groups / 2:
                raise TableError(f"the label {label} occurs in {found} groups only: at least {math.ceil(groups / 2)} are needed, "
                                 "or a part of a split may hold none of it.")


@dataclass(frozen=True)
class Valued:
    """Texts with a number each, checked: like `Labelled`, with `values` (float32) in place of `labels`.

    Raises: TableError as `Labelled`; for a value that is not finite; when all values are the same.
    """

    texts: list[str]
    values: Float[Tensor, " n"]
    groups: Int[Tensor, " n"] | None = None

    def __post_init__(self) -> None:
        texts, groups = _checked_rows(self.texts, self.values, self.groups)
        values = [float(value) for value in _listed(self.values)]
        for row, value in enumerate(values, start=1):
            if not math.isfinite(value):
                raise TableError(f"row {row} has the value {value}: values are finite numbers.")
        if len(set(values)) == 1:
            raise TableError(f"all {len(values)} rows have the value {values[0]:g}: there is nothing to predict.")
        _check_duplicates(texts, groups, values)
        for name, value in (("texts", texts), ("values", torch.tensor(values)), ("groups", groups)):
            object.__setattr__(self, name, value)

    def __len__(self) -> int:
        return len(self.texts)


def labelled(positive_texts: Sequence[str], negative_texts: Sequence[str], *, paired: bool = False) -> Labelled:
    """Two lists as one table: the label is 1 for the first list, 0 for the second.

    Args:
        paired: the i-th texts of both lists belong together (two sentences about one thing) and share a group.

    Raises: TableError as `Labelled`, and for lists of different length if `paired`.
    """
    for name, texts in (("positive", positive_texts), ("negative", negative_texts)):
        if isinstance(texts, str):
            raise TableError(f"the {name} texts are one string: put them in a list.")
    ones, zeros = list(positive_texts), list(negative_texts)
    if paired and len(ones) != len(zeros):
        raise TableError(f"pairs need lists of equal length, not {len(ones)} and {len(zeros)}.")
    groups = [*range(len(ones)), *range(len(zeros))] if paired else None
    return Labelled([*ones, *zeros], torch.tensor([1] * len(ones) + [0] * len(zeros)), groups)


def read_table(path: str | Path) -> Labelled:
    """Read a CSV file with the columns `text`, `label` and, if you like, `group`.

    Labels are 0 and 1, false and true, or no and yes. The file is UTF-8, its first line names the columns, which may
    stand in any order beside others; semicolons are understood as well as commas.

    Raises: TableError as `Labelled`; for a file that is not there, not UTF-8 or without rows; for a missing column.
    """
    columns = _read_columns(Path(path), "label")
    labels = [_CLASSES.get(label.lower()) for label in columns["label"]]
    if None in labels:
        odd = sorted({label for label, number in zip(columns["label"], labels) if number is None})
        shown = ", ".join(repr(label) for label in odd[:5])
        raise TableError(f"{path}: labels are 0 or 1 (or false or true, no or yes); found also {shown}.")
    return Labelled(columns["text"], labels, columns.get("group"))


def read_values(path: str | Path) -> Valued:
    """Read a CSV file with the columns `text`, `value` (a number) and, if you like, `group`. Raises: as `read_table`."""
    columns = _read_columns(Path(path), "value")
    values = []
    for row, text in enumerate(columns["value"], start=1):
        try:
            values.append(float(text))
        except ValueError:
            raise TableError(f"{path}: the value of row {row} is {text!r}, which is not a number.") from None
    return Valued(columns["text"], values, columns.get("group"))


def _read_columns(path: Path, target: str) -> dict[str, list[str]]:
    """The columns `text`, `target` and `group` (if it is there) of a CSV file."""
    if not path.is_file():
        raise TableError(f"there is no file {path}.")
    raw = path.read_bytes()
    try:
        content = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[:error.start].count(b"\n") + 1
        raise TableError(f"{path} is not UTF-8 (line {line}). Save it again with that encoding; in a spreadsheet program "
                         "choose 'CSV UTF-8'.") from None
    head = content.partition("\n")[0]
    rows = csv.DictReader(io.StringIO(content, newline=""), delimiter=";" if head.count(";") > head.count(",") else ",")
    rows.fieldnames = [name.strip().lower() for name in rows.fieldnames or []]
    for name in ("text", target):
        if name not in rows.fieldnames:
            raise TableError(f"{path} has no column {name!r}; its first line names {', '.join(rows.fieldnames) or 'nothing'}. "
                             f"It should name text,{target} and, if you like, group.")
    wanted = [name for name in ("text", target, "group") if name in rows.fieldnames]
    cells = [[(row[name] or "").strip() for name in wanted] for row in rows]
    if not cells:
        raise TableError(f"{path} has no rows below its first line.")
    columns = dict(zip(wanted, map(list, zip(*cells))))
    if "" in columns.get("group", []):
        raise TableError(f"{path}: row {columns['group'].index('') + 1} has no group. Give every row one, or leave the column out.")
    return columns


def _listed(column: Sequence | Tensor) -> list:
    return column.tolist() if isinstance(column, Tensor) else list(column)


def _checked_rows(texts: Sequence[str], target: Sequence | Tensor, groups: Sequence[Hashable] | Tensor | None) -> tuple[list[str], Int[Tensor, " n"]]:
    """The texts, and the groups numbered in the order of appearance."""
    texts, target = list(texts), _listed(target)
    groups = list(range(len(texts))) if groups is None else _listed(groups)
    if not len(texts) == len(target) == len(groups):
        raise TableError(f"{len(texts)} texts, {len(target)} labels or values, {len(groups)} groups: one of each per row.")
    if not texts:
        raise TableError("there are no rows.")
    for row, text in enumerate(texts, start=1):
        if not isinstance(text, str) or not text.strip():
            raise TableError(f"row {row} has no text: {text!r}.")
    number = {group: place for place, group in enumerate(dict.fromkeys(groups))}
    return texts, torch.tensor([number[group] for group in groups])


def _check_duplicates(texts: list[str], groups: Int[Tensor, " n"], target: list) -> None:
    """One text, whatever its blanks and capitals, belongs to one group and has one label or value."""
    first: dict[str, int] = {}
    for row, text in enumerate(texts):
        other = first.setdefault(" ".join(text.lower().split()), row)
        if target[other] != target[row]:
            raise TableError(f"rows {other + 1} and {row + 1} are the same text with different labels or values: {text!r}.")
        if groups[other] != groups[row]:
            raise TableError(f"rows {other + 1} and {row + 1} are the same text in different groups: {text!r}. One could be trained "
                             "on and the other tested on: remove one, or give both the same group.")
