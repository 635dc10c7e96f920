"""From one text source per chapter to the student notebook and the solved, executed one.

`solutions/NN_name.md` (MyST Markdown, read by jupytext) and the reference functions in `solutions/NN_name.py` are
all that a maintainer edits; CONTRIBUTING.md describes the tags. Both editions come from `edition`.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import json
import re
import textwrap
import time
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import jupytext
import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from utils.exercises import Exercise, load_chapter
from utils.ledger import CLAIM_MIME, Claim, show_number
from utils.paths import ROOT, atomic_write

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
from utils.ready import ready
ready()
from utils.checking import check, hint, progress, solution'''


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
        unknown = set(_tags(cell)) - TAGS
        if unknown:
            raise SourceError(f"{stem}.md, cell {index}: unknown tag {', '.join(unknown)}; there are {', '.join(sorted(TAGS))}")
        if "exercise" in _tags(cell):
            slots.append(cell.source.strip())
    if sorted(slots) != sorted(chapter.exercises):
        raise SourceError(f"{stem}.md has slots for {sorted(slots)}, but tests/exercises/{stem}.py registers {sorted(chapter.exercises)}")
    return chapter


def _tags(cell: NotebookNode) -> list[str]:
    return cell.metadata.get("tags", [])


def repository() -> str:
    """The course's address, the one constant in pyproject.toml."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["urls"]["Repository"]


# --- editions ---------------------------------------------------------------------------------------------


def edition(chapter: Chapter, *, solved: bool, ledger: dict[str, Claim]) -> NotebookNode:
    """The notebook without outputs: with the references and their discussions if `solved`, else with stubs."""
    cells = [_cell(chapter, "head", 0, new_markdown_cell(_head(chapter)))]
    for index, source in enumerate(chapter.source.cells):
        tags = _tags(source)
        if source.cell_type == "markdown":
            if solved or "solution" not in tags:
                cells.append(_cell(chapter, "text", index, new_markdown_cell(fill(source.source, ledger))))
        elif "setup" in tags:
            cells.append(_cell(chapter, "setup", index, new_code_cell(SETUP.format(repository=repository()))))
        elif "exercise" in tags:
            exercise = chapter.exercises[source.source.strip()]
            body = inspect.getsource(exercise.reference).rstrip() if solved else stub(exercise)
            cells += [_cell(chapter, "exercise", index, new_markdown_cell(_exercise_head(exercise))),
                      _cell(chapter, "answer", index, new_code_cell(body)),
                      _cell(chapter, "check", index, new_code_cell(f"check({exercise.name})"))]
        else:
            cells.append(_cell(chapter, "code", index, new_code_cell(source.source)))
            if "figure" in tags:
                cells[-1].metadata["tags"] = ["figure"]
    notebook = new_notebook(cells=cells)
    notebook.metadata = {
        "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"},
        "language_info": {"name": "python"},
        "probe_to_steer": {"chapter": chapter.stem, "edition": "solved" if solved else "student"},
    }
    return notebook


def _cell(chapter: Chapter, role: str, index: int, cell: NotebookNode) -> NotebookNode:
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


def discussion(stem: str, name: str) -> str:
    """The text below an exercise's solution."""
    chapter = read_chapter(stem)
    cells, found = chapter.source.cells, []
    at = next(i for i, cell in enumerate(cells) if "exercise" in _tags(cell) and cell.source.strip() == name)
    for cell in cells[at + 1:]:
        if "solution" not in _tags(cell):
            break
        found.append(cell.source)
    return fill("\n\n".join(found), stored_ledger(chapter)) or "Compare it with yours, line by line."


# --- the solved notebook: executed, with its key and its ledger -----------------------------------------------


def stored_ledger(chapter: Chapter) -> dict[str, Claim]:
    """The claims recorded in the committed solved notebook; empty if it was never run."""
    path = chapter.path("solved")
    if not path.exists():
        return {}
    rows = nbformat.read(path, as_version=4).metadata.get("probe_to_steer", {}).get("ledger", [])
    return {row["name"]: _claim(row) for row in rows}


def _claim(row: dict) -> Claim:
    return Claim(**{key: tuple(value) if isinstance(value, list) else value for key, value in row.items()})


def content_key(chapter: Chapter) -> str:
    """SHA-256 over all that the solved notebook depends on: source, references, imported utils, lock file."""
    code = "\n".join([SETUP, *(cell.source for cell in chapter.source.cells if cell.cell_type == "code" and "exercise" not in _tags(cell))])
    files = [SOURCES / f"{chapter.stem}.md", SOURCES / f"{chapter.stem}.py", ROOT / "requirements.lock", *_utils_behind(code)]
    digest = hashlib.sha256()
    for path in files:
        digest.update(path.name.encode() + b"\0" + path.read_text("utf-8").encode() + b"\0")
    return digest.hexdigest()


def _utils_behind(code: str) -> list[Path]:
    """The files of all utils modules that `code` imports, directly or through another, sorted."""
    found: set[Path] = set()
    waiting = [code]
    while waiting:
        for node in ast.walk(ast.parse(waiting.pop())):
            names = ([f"{node.module}.{a.name}" for a in node.names] + [node.module] if isinstance(node, ast.ImportFrom) and node.module
                     else [a.name for a in node.names] if isinstance(node, ast.Import) else [])
            for name in names:
                path = ROOT.joinpath(*name.split(".")).with_suffix(".py")
                if name.startswith("utils.") and path.is_file() and path not in found:
                    found.add(path)
                    waiting.append(path.read_text("utf-8"))
    return sorted(found)


@dataclass(frozen=True)
class Run:
    """What an execution of a solved notebook gave."""

    notebook: NotebookNode
    minutes: float
    ledger: dict[str, Claim]

    @property
    def broken(self) -> list[Claim]:
        return [made for made in self.ledger.values() if not made.holds]


def execute(chapter: Chapter, *, static: bool = True, settings: dict[str, str] | None = None) -> Run:
    """Run the solved edition top to bottom in a clean kernel. Raises nbclient's CellExecutionError.

    `static` also draws every figure as a PNG, which takes a Chromium. `settings` replaces values of the settings
    cell, given as Python source. The learner's progress is not touched.
    """
    import os
    import tempfile
    from unittest import mock

    from nbclient import NotebookClient
    from tqdm.auto import tqdm

    notebook = edition(chapter, solved=True, ledger={})
    if settings:
        _change_settings(chapter, notebook, settings)
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch, tqdm(total=len(notebook.cells), desc=chapter.stem, unit="cell") as bar:
        environment = {"PROBE_TO_STEER_PROGRESS": str(Path(scratch, "progress.json")), "PROBE_TO_STEER_STATIC": "1" if static else ""}
        client = NotebookClient(notebook, timeout=900, kernel_name="python3", resources={"metadata": {"path": str(SOURCES)}},
                                on_cell_complete=lambda **_: bar.update())
        with mock.patch.dict(os.environ, environment):
            client.execute()
    minutes = (time.monotonic() - started) / 60
    ledger = {row["name"]: _claim(row) for cell in notebook.cells for output in cell.get("outputs", [])
              if (row := output.get("data", {}).get(CLAIM_MIME))}
    for cell, text in zip(notebook.cells, edition(chapter, solved=True, ledger=ledger).cells, strict=True):
        cell.metadata.pop("execution", None)  # time stamps: they would make every run a diff
        if cell.cell_type == "markdown":
            cell.source = text.source
    missing = [name for cell in notebook.cells if cell.cell_type == "markdown" for name in re.findall(r"\(`(\w+)`: not measured yet\)", cell.source)]
    if missing:
        raise SourceError(f"{chapter.stem}.md refers to {', '.join(missing)}, which no cell claims")
    notebook.metadata["probe_to_steer"] |= {"key": content_key(chapter), "ledger": [json.loads(json.dumps(made.__dict__)) for made in ledger.values()]}
    return Run(notebook, minutes, ledger)


def _change_settings(chapter: Chapter, notebook: NotebookNode, settings: dict[str, str]) -> None:
    """Give the settings cell other values. Raises SourceError for a setting that the chapter does not have."""
    ids = {_cell(chapter, "code", index, new_code_cell()).id for index, cell in enumerate(chapter.source.cells) if "settings" in _tags(cell)}
    for name, value in settings.items():
        changed = 0
        for cell in (cell for cell in notebook.cells if cell.id in ids):
            cell.source, count = re.subn(rf"^{re.escape(name)} = [^#\n]*", lambda _: f"{name} = {value}  ", cell.source, flags=re.M)
            changed += count
        if not changed:
            raise SourceError(f"{chapter.stem} has no setting called {name}")


# --- the commands -----------------------------------------------------------------------------------------


def student_notebook(chapter: Chapter) -> NotebookNode:
    """The student edition with the expected figures of the solved run and a fingerprint of itself."""
    notebook = edition(chapter, solved=False, ledger=stored_ledger(chapter))
    solved = chapter.path("solved")
    drawn = {cell.id: cell for cell in nbformat.read(solved, as_version=4).cells} if solved.exists() else {}
    for cell in notebook.cells:
        if "figure" in _tags(cell) and cell.id in drawn:
            images = [output.data["image/png"] for output in drawn[cell.id].outputs if "image/png" in output.get("data", {})]
            cell.outputs = [new_output("display_data", {"image/png": image, "text/plain": "The figure to expect; run the cell to draw yours."})
                            for image in images]
    notebook.metadata["probe_to_steer"]["built"] = fingerprint(notebook)
    return notebook


def fingerprint(notebook: NotebookNode) -> str:
    """A hash of the cells' text and outputs: it changes when someone writes in the notebook or runs it."""
    cells = [[cell.cell_type, cell.source, [[o.get("output_type"), o.get("data"), o.get("text"), o.get("ename")] for o in cell.get("outputs", [])]]
             for cell in notebook.cells]
    return hashlib.sha256(json.dumps(cells, sort_keys=True).encode()).hexdigest()


def worked_in(path: Path) -> bool:
    """Has someone written in this student notebook, or run it?"""
    try:
        notebook = nbformat.read(path, as_version=4)
    except Exception:  # not a notebook we could have built: leave it alone
        return True
    return notebook.metadata.get("probe_to_steer", {}).get("built") != fingerprint(notebook)


def build(chosen: Iterable[str]) -> int:
    """Write the student notebooks, except those with someone's work in them. Returns how many were kept."""
    kept = 0
    for stem in chosen:
        chapter = read_chapter(stem)
        path = chapter.path("student")
        if path.exists() and worked_in(path):
            kept += 1
            print(f"[kept]  chapters/{path.name} holds someone's work. Rename it, then build again, to get the new edition.")
            continue
        text = nbformat.writes(student_notebook(chapter)) + "\n"
        if not path.exists() or path.read_text("utf-8") != text:
            atomic_write(path, text)
            print(f"[built] chapters/{path.name}")
    return kept


def run_all(chosen: Iterable[str], *, static: bool, settings: dict[str, str]) -> int:
    """Execute solved notebooks; print minutes and claims. Returns how many chapters failed.

    A run with static figures and the chapter's own settings is stored: that is the notebook that we publish.
    """
    from nbclient.exceptions import CellExecutionError

    rows, failed = [], 0
    for stem in chosen:
        chapter = read_chapter(stem)
        try:
            done = execute(chapter, static=static, settings=settings)
        except CellExecutionError as error:
            failed += 1
            rows.append(f"{stem:<28}  failed: {error.ename}: {error.evalue}")
            print(error)
            continue
        failed += bool(done.broken)
        rows.append(f"{stem:<28} {done.minutes:5.1f} min   {len(done.ledger) - len(done.broken)} of {len(done.ledger)} claims hold")
        rows += [f"    {made.name}: {made} is outside {made.expect}" for made in done.broken]
        if static and not settings:
            atomic_write(chapter.path("solved"), nbformat.writes(done.notebook) + "\n")
    print("\n".join(rows))
    return failed
