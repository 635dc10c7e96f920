"""The page on the survey is what its table says."""

import csv

from utils.course.chapters import stems
from utils.course.survey import PAGE, TABLE, page


def test_the_page_is_built_from_the_table():
    assert PAGE.read_text("utf-8") == page(), "run `make build` and commit the result"


def test_every_row_says_where_or_why_not():
    rows = list(csv.DictReader(TABLE.read_text("utf-8").splitlines(), delimiter="\t"))
    assert len({(row["part"], row["name"]) for row in rows}) == len(rows)
    for row in rows:
        assert row["course"] in ("builds", "uses", "names") and row["what it does"] and row["why"], row
        assert bool(row["where"]) == (row["course"] != "names"), row
        assert set(filter(None, row["where"].split(", "))) <= {stem[:2] for stem in stems()}, row
