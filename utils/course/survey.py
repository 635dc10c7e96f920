"""The page that says where the course teaches what the survey of sparse autoencoders names, made from a table."""

from __future__ import annotations

import csv

from utils.course.chapters import stems
from utils.paths import ROOT, atomic_write

TABLE, PAGE = ROOT / "docs" / "survey.tsv", ROOT / "docs" / "survey.md"
HEAD = """# The survey of sparse autoencoders, and this course

Shu and others (2025), [A Survey on Sparse Autoencoders](https://arxiv.org/abs/2503.05613), orders the field into architectures, ways of training, ways of
explaining a latent, evaluation and applications. Each method that we found named in it has a row here, with the training tricks and the controls that our chapters add. *Builds*: the
learner writes it, and it is compared with something. *Uses*: it is run, or met in another form. *Names*: it stands here only, and the last column says why.
"""


def page() -> str:
    """`docs/survey.md`, from `docs/survey.tsv`: a section for each part, a row for each method."""
    folders = {stem[:2]: stem for stem in stems()}
    rows = list(csv.DictReader(TABLE.read_text("utf-8").splitlines(), delimiter="\t"))
    counts = ", ".join(f"{sum(row['course'] == how for row in rows)} are {how_it_reads}" for how, how_it_reads in
                       (("builds", "built"), ("uses", "used"), ("names", "named only")))
    lines = [HEAD, f"Of {len(rows)} methods {counts}.", ""]
    for part in dict.fromkeys(row["part"] for row in rows):
        lines += [f"## {part[0].upper()}{part[1:]}", "", "| what | what it does | here | where | why |", "| --- | --- | --- | --- | --- |"]
        for row in (row for row in rows if row["part"] == part):
            chapters = ", ".join(f"[{number}](../chapters/{folders[number]}.ipynb)" for number in filter(None, row["where"].split(", ")))
            lines.append(f"| {row['name']} | {row['what it does']} | {row['course']} | {chapters} | {row['why']} |")
        lines.append("")
    return "\n".join(lines)


def build_survey() -> None:
    """Write the page if the table says something else; a course without the table, such as a new one, has no page."""
    if not TABLE.exists():
        return
    if not PAGE.exists() or PAGE.read_text("utf-8") != page():
        atomic_write(PAGE, page())
        print("[built] docs/survey.md")
