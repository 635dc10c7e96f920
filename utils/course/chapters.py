"""From one text source per chapter to the student notebook and the solved, executed one.

`solutions/NN_name.md` (MyST Markdown, read by jupytext) and the reference functions in `solutions/NN_name.py` are
all that a maintainer edits; CONTRIBUTING.md describes the tags. Both editions come from `edition`.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import re
import textwrap
import tomllib
from base64 import b64encode
from dataclasses import dataclass
from pathlib import Path

import jupytext
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from utils.course.exercises import Exercise, load_chapter
from utils.course.ledger import Claim, show_number
from utils.paths import ROOT

SOURCES = ROOT / "solutions"
STUDENT = ROOT / "chapters"
OPENINGS = ROOT / "docs" / "openings"
TAGS = {"setup", "imports", "settings", "data", "guess", "exercise", "figure", "claim", "opening", "solution"}
# What is not to be read is folded, under a title: its first comment line, or these words where it has none.
FOLDED = {"setup": "Setup: run this first; running it twice does no harm", "imports": "What this chapter imports",
          "data": None, "figure": None, "claim": "For the ledger: {claims}"}
FRONT_MATTER = ("title", "question", "outcome", "minutes", "machine", "needs", "next")
STUB = "    raise NotImplementedError"
SETUP = '''\
import os, sys
if "google.colab" in sys.modules and not os.path.isdir("probe-to-steer"):
    os.system("git clone --quiet --depth 1 {repository} probe-to-steer")
sys.path[:0] = [os.path.abspath(up) for up in ("probe-to-steer", "..", ".") if os.path.isdir(up + "/utils/course")]
from utils.course import ready; ready()
from utils.course import check, guess, hint, progress, reveal, solution'''
# The picture stands in the notebook as this cell's output, which every front end shows before anything is run.
OPENING = '''\
from pathlib import Path
from IPython.display import Image
shipped = [Path(up, "docs/openings/{stem}.png") for up in ("..", ".", "probe-to-steer")]
next((Image(path) for path in shipped if path.exists()), None)'''


class SourceError(ValueError):
    """A chapter's source cannot be built; the message says which cell and why."""


@dataclass(frozen=True)
class Chapter:
    """A chapter's source, parsed."""

    stem: str
    source: NotebookNode

    @property
    def number(self) -> str:
        return self.stem[:2]

    @property
    def exercises(self) -> dict[str, Exercise]:
        return load_chapter(self.stem)

    def path(self, edition: str) -> Path:
        """Where the 'student' or the 'solved' edition lies."""
        return (STUDENT if edition == "student" else SOURCES) / f"{self.stem}.ipynb"


def stems() -> list[str]:
    """All chapters, in order."""
    return sorted(path.stem for path in SOURCES.glob("[0-9]*.md"))


def read_chapter(stem: str) -> Chapter:
    """Parse and validate `solutions/<stem>.md`. Raises SourceError."""
    chapter = Chapter(stem, jupytext.reads((SOURCES / f"{stem}.md").read_text("utf-8"), fmt="md:myst"))
    missing = [key for key in FRONT_MATTER if key not in chapter.source.metadata]
    if missing:
        raise SourceError(f"{stem}.md: the front matter lacks {', '.join(missing)}")
    slots = []
    for index, cell in enumerate(chapter.source.cells):
        unknown = set(tags_of(cell)) - TAGS
        if unknown:
            raise SourceError(f"{stem}.md, cell {index}: unknown tag {', '.join(unknown)}; there are {', '.join(sorted(TAGS))}")
        if "exercise" in tags_of(cell):
            slots.append(cell.source.strip())
    if sorted(slots) != sorted(chapter.exercises):
        raise SourceError(f"{stem}.md has slots for {sorted(slots)}, but tests/exercises/{stem}.py registers {sorted(chapter.exercises)}")
    return chapter


def tags_of(cell: NotebookNode) -> list[str]:
    return cell.metadata.get("tags", [])


def repository() -> str:
    """The course's address, the one constant in pyproject.toml."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["urls"]["Repository"]


def edition(chapter: Chapter, *, solved: bool, ledger: dict[str, Claim]) -> NotebookNode:
    """The notebook without outputs: with the references and their discussions if `solved`, else with stubs."""
    cells = [with_id(chapter, "head", 0, new_markdown_cell(_head(chapter)))]
    if any("opening" in tags_of(cell) for cell in chapter.source.cells):
        cells.append(_opening(chapter))
    for index, source in enumerate(chapter.source.cells):
        tags = tags_of(source)
        if source.cell_type == "markdown":
            if solved or "solution" not in tags:
                cells.append(with_id(chapter, "text", index, new_markdown_cell(fill(source.source, ledger))))
        elif "setup" in tags:
            cells.append(_folded(with_id(chapter, "setup", index, new_code_cell(SETUP.format(repository=repository()))), tags))
        elif "exercise" in tags:
            exercise = chapter.exercises[source.source.strip()]
            body = inspect.getsource(exercise.reference).rstrip() if solved else stub(exercise)
            cells += [with_id(chapter, "exercise", index, new_markdown_cell(exercise_head(exercise))),
                      with_id(chapter, "answer", index, new_code_cell(body)),
                      with_id(chapter, "check", index, new_code_cell(f"check({exercise.name})"))]
        else:
            cells.append(_folded(with_id(chapter, "code", index, new_code_cell(source.source)), tags))
    notebook = new_notebook(cells=cells)
    notebook.metadata = {
        "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"},
        "language_info": {"name": "python"},
        "probe_to_steer": {"chapter": chapter.stem, "edition": "solved" if solved else "student"},
    }
    return notebook


def with_id(chapter: Chapter, role: str, index: int, cell: NotebookNode) -> NotebookNode:
    cell["id"] = hashlib.sha256(f"{chapter.stem}/{index}/{role}".encode()).hexdigest()[:12]
    return cell


def _folded(cell: NotebookNode, tags: list[str]) -> NotebookNode:
    """Fold a cell that carries one of the FOLDED tags, in every front end that can, under its one-line title."""
    tag = next((tag for tag in tags if tag in FOLDED), None)
    if tag is None:
        return cell
    first, _, rest = cell.source.partition("\n")
    if first.startswith("# "):
        title, body = first.removeprefix("# "), rest
    else:
        title, body = FOLDED[tag], cell.source
    if title is None:
        raise SourceError(f"a {tag} cell begins with a comment line, its title; this one begins with {first!r}")
    names = re.findall(r'claim\(\s*"(\w+)"', body)
    claims = ", ".join(names) if len(names) <= 4 else f"{names[0]} and {len(names) - 1} more"
    cell.source = f"# @title {title.format(claims=claims or 'claims')}\n{body}"
    # JupyterLab, Notebook 7 and VS Code read the first, Colab the second.
    cell.metadata = {"jupyter": {"source_hidden": True}, "cellView": "form", "tags": [name for name in tags if name in TAGS]}
    return cell


def _opening(chapter: Chapter) -> NotebookNode:
    """The first picture, with what the last run drew as its output."""
    cell = with_id(chapter, "opening", 0, new_code_cell(f"# The wrong reading beside the right one\n{OPENING.format(stem=chapter.stem)}"))
    path = OPENINGS / f"{chapter.stem}.png"
    if path.exists():
        cell.outputs = [opening_output(b64encode(path.read_bytes()).decode())]
    return _folded(cell, ["data"])


def opening_output(picture: str) -> NotebookNode:
    """The output of a chapter's first picture, given as base64."""
    return new_output("display_data", {"image/png": picture, "text/plain": "The wrong reading beside the right one."})


def _head(chapter: Chapter) -> str:
    meta = chapter.source.metadata
    address = f"{repository().replace('https://github.com', 'https://colab.research.google.com/github')}/blob/main/chapters/{chapter.stem}.ipynb"
    return textwrap.dedent(f"""\
        # {chapter.number} · {meta['title']}

        **{meta['question']}**

        **You will be able to** {meta['outcome']}

        | Where am I? | |
        | --- | --- |
        | you need | {meta['needs']} |
        | it takes | about {meta['minutes']} minutes, on {meta['machine']} |
        | next | {meta['next']} |
        | without installing anything | [open this page in Colab]({address}) |""")


def exercise_head(exercise: Exercise) -> str:
    """The text above an exercise."""
    dots = {level: "●" * level + "○" * (5 - level) for level in range(6)}
    return textwrap.dedent(f"""\
        ### Exercise: `{exercise.name}`

        Difficulty {dots[exercise.difficulty]} · importance {dots[exercise.importance]} · about {exercise.minutes} minutes

        **Afterwards you know**: {exercise.learn}

        Stuck? `hint({exercise.name})` gives one step at a time; `solution({exercise.name})` opens after a try.""")


def stub(exercise: Exercise) -> str:
    """The signature and the docstring of the reference, and a line to replace."""
    source = inspect.getsource(exercise.reference)
    function = ast.parse(source).body[0]
    first = function.body[0]
    if not (isinstance(first, ast.Expr) and isinstance(getattr(first, "value", None), ast.Constant) and isinstance(first.value.value, str)):
        raise SourceError(f"{exercise.name} has no docstring: it is the learner's specification")
    return "\n".join([*source.splitlines()[:first.end_lineno], STUB])


def fill(text: str, ledger: dict[str, Claim]) -> str:
    """Put recorded numbers in place of {{name}}, {{name.value}}, {{name.baseline}}, {{name.control}}, {{name.rival}} and {{name.difference}}.

    Raises: SourceError for a part that the claim does not have.
    """
    def number(match: re.Match) -> str:
        name, _, part = match[1].partition(".")
        if name not in ledger:
            return f"(`{name}`: not measured yet)"
        made = ledger[name]
        if part in ("", "value"):
            return show_number(made.value) if part else str(made)
        if getattr(made, part, None) is None:
            raise SourceError(f"{{{{{match[1]}}}}}: the claim has no {part}")
        if part == "difference":
            low, high = map(show_number, made.difference)
            return f"{show_number(made.value - made.rival[1])} [{low}, {high}]"
        return show_number(getattr(made, part)[1])

    return re.sub(r"\{\{([\w.]+)\}\}", number, text)
