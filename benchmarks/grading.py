"""How many notebooks `grade` judges in a minute: a class of 60, in every chapter that has exercises, on all cores.

    python benchmarks/grading.py [--notebooks 60] [--chapter 11_linear_probes]

The class is made from the student notebooks: of the exercises six in ten are right, three hold a named mistake, one is not
written. One line a chapter, then the whole class.
"""

import argparse
import ast
import contextlib
import inspect
import io
import json
import random
import re
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from utils.course.exercises import Exercise, chapters, load_chapter
from utils.course.grading_class import grade_all
from utils.paths import ROOT


def answer(exercise: Exercise, stub: str, rng: random.Random) -> str:
    """The cell with an answer of one kind or another."""
    kind = rng.random()
    if kind < 0.6:
        return inspect.getsource(exercise.reference)
    # Not a row of a table, nor made by another function.
    written = [mistake.function for mistake in exercise.mistakes.values() if getattr(mistake.function, "__qualname__", "<").isidentifier()]
    if kind < 0.9 and written:
        return written_out(exercise.name, rng.choice(written))
    return stub


def written_out(name: str, function: Callable) -> str:
    """The source of a mistake under the exercise's name, with the imports and helpers of the file that it is from."""
    source = re.sub(r"\A.*?^def \w+\(", f"def {name}(", inspect.getsource(function), count=1, flags=re.S | re.M)
    tree = ast.parse(inspect.getsource(inspect.getmodule(function)))
    given = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name.startswith("_") and node.name != "_"}
    needed, waiting = {}, [ast.parse(source)]
    while waiting:
        used = {part.id for part in ast.walk(waiting.pop()) if isinstance(part, ast.Name)} & given.keys() - needed.keys()
        needed |= {helper: given[helper] for helper in used}
        waiting += [given[helper] for helper in used]
    imports = [node for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom)) and "utils" not in ast.unparse(node)]
    return "\n".join([*map(ast.unparse, [*imports, *needed.values()]), source])


def submission(stem: str, rng: random.Random) -> dict:
    """A student notebook with its stubs answered."""
    notebook = json.loads((ROOT / "chapters" / f"{stem}.ipynb").read_text("utf-8"))
    exercises = load_chapter(stem)
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        found = re.search(r"^def (\w+)\(", source, re.M)
        if cell["cell_type"] == "code" and found and found[1] in exercises and "raise NotImplementedError" in source:
            cell["source"] = answer(exercises[found[1]], source, rng)
    return notebook


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--notebooks", type=int, default=60)
    parser.add_argument("--chapter", choices=chapters(), action="append")
    chosen = parser.parse_args()
    rng = random.Random(0)
    with tempfile.TemporaryDirectory() as folder:
        stems = [stem for stem in chosen.chapter or chapters() if (ROOT / "chapters" / f"{stem}.ipynb").exists()]
        classes = {stem: [] for stem in stems}
        for i in range(chosen.notebooks):
            path = Path(folder, f"{stems[i % len(stems)]}_{i}.ipynb")
            path.write_text(json.dumps(submission(stems[i % len(stems)], rng)))
            classes[stems[i % len(stems)]].append(path)
        for stem, paths in ({} if len(stems) == 1 else classes).items():
            report(stem, paths)
        report("the class", [path for paths in classes.values() for path in paths])


def report(name: str, paths: list[Path]) -> None:
    started = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()) as said:
        refused = grade_all(paths)
    seconds = time.perf_counter() - started
    passed = said.getvalue().count("\n  pass ")
    print(f"{name:<32} {len(paths):>3} notebooks {seconds:7.1f} s {60 * len(paths) / seconds:7.1f} a minute   ({passed} answers passed, {refused} files refused)", flush=True)


if __name__ == "__main__":
    main()
