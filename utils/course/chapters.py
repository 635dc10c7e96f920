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
from dataclasses import dataclass
from pathlib import Path

import jupytext
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from utils.course.exercises import Exercise, load_chapter
from utils.course.ledger import Claim, show_number
from utils.paths import ROOT

SOURCES = ROOT / "solutions"
STUDENT = ROOT / "chapters"
TAGS = {"setup", "settings", "exercise", "figure", "solution", "hide"}
FRONT_MATTER = ("title", "question", "outcome", "minutes", "machine")
STUB = "    raise NotImplementedError"
# The first cell of every chapter. Outside Colab only the last five lines do anything.
SETUP = '''\
# Setup: the same in every chapter, and safe to run twice.
REPOSITORY = "{repository}"
import subprocess, sys
from pathlib import Path
if "google.colab" in sys.modules and not Path("probe-to-steer", "utils").is_dir():
    subprocess.run(["git", "clone", "--quiet", "--depth", "1", REPOSITORY, "probe-to-steer"], check=True)
folders = [Path.cwd(), *Path.cwd().parents, Path.cwd() / "probe-to-steer"]
sys.path.insert(0, str(next(folder for folder in folders if (folder / "utils" / "exercises.py").is_file())))
from utils.course.ready import ready
ready()
from utils.course.checking import check, hint, progress, solution'''


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
    for index, source in enumerate(chapter.source.cells):
        tags = tags_of(source)
        if source.cell_type == "markdown":
            if solved or "solution" not in tags:
                cells.append(with_id(chapter, "text", index, new_markdown_cell(fill(source.source, ledger))))
        elif "setup" in tags:
            cells.append(with_id(chapter, "setup", index, new_code_cell(SETUP.format(repository=repository()))))
        elif "exercise" in tags:
            exercise = chapter.exercises[source.source.strip()]
            body = inspect.getsource(exercise.reference).rstrip() if solved else stub(exercise)
            cells += [with_id(chapter, "exercise", index, new_markdown_cell(_exercise_head(exercise))),
                      with_id(chapter, "answer", index, new_code_cell(body)),
                      with_id(chapter, "check", index, new_code_cell(f"check({exercise.name})"))]
        else:
            cells.append(with_id(chapter, "code", index, new_code_cell(source.source)))
            if "figure" in tags:
                cells[-1].metadata["tags"] = ["figure"]
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


def _head(chapter: Chapter) -> str:
    meta = chapter.source.metadata
    address = f"{repository().replace('https://github.com', 'https://colab.research.google.com/github')}/blob/main/chapters/{chapter.stem}.ipynb"
    return textwrap.dedent(f"""\
        # {chapter.number} · {meta['title']}

        [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]({address})

        **{meta['question']}**

        **You will be able to** {meta['outcome']}

        **Time**: about {meta['minutes']} minutes. **Smallest machine**: {meta['machine']}""")


def _exercise_head(exercise: Exercise) -> str:
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
    """Put recorded numbers in place of {{name}}, {{name.value}}, {{name.baseline}} and {{name.control}}."""
    def number(match: re.Match) -> str:
        name, _, part = match[1].partition(".")
        if name not in ledger:
            return f"(`{name}`: not measured yet)"
        made = ledger[name]
        return {"": str(made), "value": show_number(made.value), "baseline": show_number(made.baseline[1]),
                "control": show_number(made.control[1])}[part]

    return re.sub(r"\{\{([\w.]+)\}\}", number, text)
