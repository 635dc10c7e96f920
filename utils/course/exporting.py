"""A chapter's exercises as a notebook that nbgrader or otter-grader take: the exercises alone, each with a test that can fail.

Both tools run a whole notebook with little patience, and both give full points to a cell that raises nothing. So the long
cells stay here, and the test is `utils.course.points`, not `check`, which shows a card and never raises.
"""

from __future__ import annotations

import ast
import inspect
import sys
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_raw_cell

from utils.course.chapters import STUB, Chapter, exercise_head, read_chapter, repository, stems, tags_of
from utils.course.exercises import Exercise
from utils.paths import atomic_write

SETUP = '''\
import os, sys
from pathlib import Path
here = Path.cwd()
places = [Path(os.environ.get("PROBE_TO_STEER_COURSE", ".")), *(up / name for up in (here, *here.parents) for name in ("", "probe-to-steer"))]
course = next((place for place in places if (place / "utils" / "course").is_dir()), None)
assert course, "The course was not found. Put it above this notebook as probe-to-steer, or name its folder in PROBE_TO_STEER_COURSE."
sys.path.insert(0, str(course.resolve()))
from utils.course import check, hint, ready; ready()'''
CONFIG = """\
c = get_config()
c.CourseDirectory.course_id = "probe-to-steer"
c.Execute.timeout = 300
"""


def export(tool: str, stem: str, folder: Path) -> Path:
    """Write the chapter's exercises for `tool` into `folder`; returns the notebook's path.

    nbgrader: `folder` is a course of nbgrader's, and the notebook its assignment, in source/. otter: the master notebook.
    Raises: OSError if it cannot be written.
    """
    chapter = read_chapter(stem)
    notebook = (_for_nbgrader if tool == "nbgrader" else _for_otter)(chapter)
    nbformat.validate(notebook)
    path = folder / "source" / stem / f"{stem}.ipynb" if tool == "nbgrader" else folder / f"{stem}.ipynb"
    atomic_write(path, nbformat.writes(notebook) + "\n")
    if tool == "nbgrader" and not (folder / "nbgrader_config.py").exists():
        atomic_write(folder / "nbgrader_config.py", CONFIG)
    return path


def export_chapter(tool: str, stem: str, folder: Path) -> int:
    """The command: export, and print the tool's own next one. Returns the exit status."""
    if stem not in stems():
        print(f"No chapter is called {stem}. There are: {', '.join(stems())}.", file=sys.stderr)
        return 2
    path = export(tool, stem, folder)
    print(f"[ok]  {path}")
    if tool == "nbgrader":
        print(f"      next, in {path.parents[2]}: nbgrader generate_assignment {stem}; then hand out release/{stem}, collect into "
              f"submitted/STUDENT/{stem}, and nbgrader autograde {stem}")
    else:
        print(f"      next, in {path.parent}: otter assign {path.name} dist; hand out dist/student; then otter run SUBMISSION -a "
              f"dist/autograder/{stem}-autograder_*.zip")
    print("      the grading kernel needs the course: above the notebook as probe-to-steer, or named in PROBE_TO_STEER_COURSE")
    return 0


def _notebook(chapter: Chapter, cells: list[NotebookNode]) -> NotebookNode:
    notebook = new_notebook(cells=cells)
    notebook.metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}, "language_info": {"name": "python"},
                         "probe_to_steer": {"chapter": chapter.stem}}
    for number, cell in enumerate(cells):
        cell["id"] = f"{chapter.number}-{number}"
    return notebook


def _opening(chapter: Chapter) -> list[NotebookNode]:
    """The question, the setup, and what the answers may use."""
    meta = chapter.source.metadata
    imports = next(cell.source for cell in chapter.source.cells if "imports" in tags_of(cell))
    page = f"{repository()}/blob/main/chapters/{chapter.stem}.ipynb"
    head = f"# {chapter.number} · {meta['title']}: the exercises\n\n**{meta['question']}**\n\nWhat leads up to them is in [the chapter]({page})."
    return [new_markdown_cell(head), new_code_cell(SETUP), new_code_cell(imports)]


def _source(exercise: Exercise) -> tuple[list[str], list[str]]:
    """The reference's lines up to the end of its docstring, and its body."""
    source = inspect.getsource(exercise.reference).rstrip()
    end = ast.parse(source).body[0].body[0].end_lineno
    return source.splitlines()[:end], source.splitlines()[end:]


def _for_nbgrader(chapter: Chapter) -> NotebookNode:
    cells = _opening(chapter)
    for number, cell in enumerate(cells):
        _mark(cell, f"opening-{number}", locked=True)
    for exercise in chapter.exercises.values():
        head, body = _source(exercise)
        answer = [*head, "    ### BEGIN SOLUTION", *body, "    ### END SOLUTION"]
        test = [f"# {exercise.importance} points, on cases that are added when this is graded", "### BEGIN HIDDEN TESTS", "from utils.course.points import points",
                f'points("{exercise.name}", {exercise.name}, {exercise.importance})', "### END HIDDEN TESTS"]
        cells += [_mark(new_markdown_cell(exercise_head(exercise)), f"{exercise.name}-text", locked=True),
                  _mark(new_code_cell("\n".join(answer)), exercise.name, solution=True),
                  new_code_cell(f"check({exercise.name})"),
                  _mark(new_code_cell("\n".join(test)), f"{exercise.name}-points", grade=True, locked=True, points=exercise.importance)]
    return _notebook(chapter, cells)


def _mark(cell: NotebookNode, name: str, *, grade: bool = False, solution: bool = False, locked: bool = False, points: int | None = None) -> NotebookNode:
    """nbgrader's own metadata, version 3 of its schema."""
    cell.metadata["nbgrader"] = {"schema_version": 3, "grade_id": name, "grade": grade, "solution": solution, "locked": locked, "task": False,
                                 **({} if points is None else {"points": points})}
    return cell


def _for_otter(chapter: Chapter) -> NotebookNode:
    # Its default format compares printed text, and its export cell makes a PDF.
    config = f"# ASSIGNMENT CONFIG\nname: {chapter.stem}\ntests: {{ok_format: false}}\nexport_cell: false\ncheck_all_cell: false"
    cells = [new_raw_cell(config), *_opening(chapter)]
    for exercise in chapter.exercises.values():
        name, most, (head, body) = exercise.name, exercise.importance, _source(exercise)
        # Between cells a solution block hides nothing: these comments do, line by line.
        answer = [*head, "    # BEGIN SOLUTION NO PROMPT", *body, "    # END SOLUTION", '    """ # BEGIN PROMPT', STUB, '    """ # END PROMPT']
        seen = f'""" # BEGIN TEST CONFIG\npoints: 0\n""" # END TEST CONFIG\ndef test_{name}({name}):\n    from utils.course.points import points\n' \
               f'    points("{name}", {name}, fresh=False)'
        hidden = f'""" # BEGIN TEST CONFIG\nhidden: true\npoints: {most}\n""" # END TEST CONFIG\ndef test_{name}_on_fresh_cases({name}):\n' \
                 f'    from utils.course.points import points\n    points("{name}", {name}, {most})'
        cells += [new_raw_cell(f"# BEGIN QUESTION\nname: {name}\npoints: {most}"), new_markdown_cell(exercise_head(exercise)),
                  new_raw_cell("# BEGIN SOLUTION"), new_code_cell("\n".join(answer)), new_raw_cell("# END SOLUTION"),
                  new_raw_cell("# BEGIN TESTS"), new_code_cell(seen), new_code_cell(hidden), new_raw_cell("# END TESTS"), new_raw_cell("# END QUESTION")]
    return _notebook(chapter, cells)
