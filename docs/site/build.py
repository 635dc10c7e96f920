"""The course's site, from the solved notebooks as they are: `make site`. No notebook is run and nothing is fetched.

Each solved notebook becomes a page: its figures as the static images that lie beside the interactive ones, folded cells folded,
formulas as MathML (which browsers draw themselves), a link for errata at every exercise.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tomllib
from html import escape
from pathlib import Path
from urllib.parse import quote

from latex2mathml.converter import convert

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
REPOSITORY = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["urls"]["Repository"]
PARTS = {"0": "Start", "1": "Probes", "2": "Sparse autoencoders", "3": "Reading features", "4": "Steering", "5": "The audit"}
DROPPED = ("application/vnd.plotly.v1+json", "application/vnd.jupyter.widget-view+json", "application/vnd.probe-to-steer.claim+json")


def main(out: Path) -> int:
    """Write the pages and let Sphinx build them into `out`; a warning is an error. Returns Sphinx's exit status."""
    pages = out / "pages"
    shutil.rmtree(pages, ignore_errors=True)
    shutil.copytree(HERE, pages, ignore=shutil.ignore_patterns("build.py", "_build", "__pycache__"))
    notebooks = sorted((ROOT / "solutions").glob("[0-9]*.ipynb"))
    (pages / "_extra" / "notebooks").mkdir(parents=True)
    heads = {}
    for path in notebooks:
        notebook = json.loads(path.read_text("utf-8"))
        heads[path.stem] = "".join(notebook["cells"][0]["source"])
        (pages / f"{path.stem}.ipynb").write_text(json.dumps(page(notebook, path.stem)), "utf-8")
        shutil.copy(ROOT / "chapters" / path.name, pages / "_extra" / "notebooks")
    shutil.copytree(ROOT / "docs" / "openings", pages / "_extra" / "openings")
    for name in ("grading.md", "survey.md"):
        (pages / name).write_text(at_home((ROOT / "docs" / name).read_text("utf-8")), "utf-8")
    (pages / "teach").mkdir()
    guides = sorted((ROOT / "docs" / "teach").glob("*.md"))
    for guide in guides:
        (pages / "teach" / guide.name).write_text(at_home(guide.read_text("utf-8")), "utf-8")
    (pages / "index.md").write_text(front_page(heads, [guide.stem for guide in guides]), "utf-8")
    return subprocess.run([sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", str(pages), str(out / "html")]).returncode


def page(notebook: dict, stem: str) -> dict:
    """The notebook as a page: what a browser cannot show is left out, what a reader wants is added."""
    cells = []
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            cells.append({**cell, "source": with_errata(formulas(at_home(source)), stem)})
        elif cell["cell_type"] == "code":
            cells.append(code_cell(cell, source))
    cells.insert(1, {"cell_type": "markdown", "metadata": {}, "id": "where", "source": where(stem)})
    return {**notebook, "cells": cells, "metadata": {"kernelspec": notebook["metadata"]["kernelspec"], "language_info": {"name": "python"}}}


def code_cell(cell: dict, source: str) -> dict:
    """Folded as in the notebook, under its title; with the outputs that need no server and no script."""
    metadata: dict = {}
    title = re.match(r"# @title (.*)\n", source)
    if title:
        source = source[title.end():]
        metadata = {"tags": ["hide-input"], "mystnb": {"code_prompt_show": title[1], "code_prompt_hide": title[1]}}
    outputs = []
    for output in cell["outputs"]:
        if output.get("name") == "stderr":
            continue
        if "data" in output:
            bar = "application/vnd.jupyter.widget-view+json" in output["data"] and "text/html" not in output["data"]
            data = {kind: value for kind, value in output["data"].items() if kind not in DROPPED}
            if bar or not data:
                continue
            output = {**output, "data": data}
        outputs.append(output)
    return {**cell, "source": source, "outputs": outputs, "metadata": metadata}


def where(stem: str) -> str:
    colab = f"{REPOSITORY.replace('https://github.com', 'https://colab.research.google.com/github')}/blob/main/chapters/{stem}.ipynb"
    return (f'<p class="where">This is the solved chapter. Work on it yourself: <a href="notebooks/{stem}.ipynb" download>the exercise notebook</a>, '
            f'or <a href="{colab}">open it in Colab</a>.</p>')


def with_errata(text: str, stem: str) -> str:
    """A link at every exercise that opens an issue with its name in the title."""
    found = re.match(r"### Exercise: `(\w+)`", text)
    if not found:
        return text
    title, body = quote(f"{stem[:2]}, {found[1]}: "), quote(f"Chapter {stem}, exercise {found[1]}.\n\nWhat I did:\n\nWhat happened:\n\nWhat I expected:\n")
    return f"{text}\n\n[Something wrong here? Tell us.]({REPOSITORY}/issues/new?title={title}&body={body})"


def formulas(text: str) -> str:
    """LaTeX to MathML, outside code."""
    kept = re.split(r"(```.*?```|`[^`\n]*`)", text, flags=re.S)
    for i in range(0, len(kept), 2):
        kept[i] = re.sub(r"\$\$(.+?)\$\$", lambda found: convert(found[1], display="block"), kept[i], flags=re.S)
        kept[i] = re.sub(r"(?<![\w$])\$([^$\n]+?)\$(?![\w$])", lambda found: convert(found[1]), kept[i])
    return "".join(kept)


def at_home(text: str) -> str:
    """Links to the repository's notebooks lead to the site's pages, links to its other files to the repository."""
    text = re.sub(r"\]\((?:\.\./)+(?:chapters|solutions)/(\d\w+)\.ipynb\)", r"](/\1.ipynb)", text)
    return re.sub(r"\]\((?:\.\./)+([\w/.]+)\)", rf"]({REPOSITORY}/blob/main/\1)", text)


def front_page(heads: dict[str, str], guides: list[str]) -> str:
    """The gallery: every chapter's first picture, under its question."""
    shown, trees = [], []
    for digit, part in PARTS.items():
        stems = [stem for stem in heads if stem[0] == digit]
        if not stems:
            continue
        shown.append(f"## {part}\n\n<div class=\"gallery\">\n" + "\n".join(card(stem, heads[stem]) for stem in stems) + "\n</div>")
        trees.append(toctree(part, stems))
    trees += [toctree("More", ["where_this_goes", "survey"]), toctree("Teaching", ["grading", *(f"teach/{name}" for name in guides)])]
    return ("# Probe to Steer\n\nThe hands-on course in reading and writing a language model's internal state: notebooks on a real language model, on any laptop, with "
            "checks that tell you what you got wrong. Each picture is a finding with the wrong reading beside the right one; a click opens the chapter, solved.\n\n"
            f"To begin: `git clone {REPOSITORY} && cd probe-to-steer && make learn`, or open any chapter in Colab from its page.\n\n"
            + "\n\n".join([*shown, *trees]) + "\n")


def card(stem: str, head: str) -> str:
    title, question = re.search(r"^# (.+)", head)[1], re.search(r"^\*\*(.+)\*\*$", head, re.M)[1]
    return (f'<a href="{stem}.html"><img src="openings/{stem}.png" alt="The opening picture of this chapter" loading="lazy">'
            f"<b>{escape(title)}</b>{escape(question)}</a>")


def toctree(caption: str, names: list[str]) -> str:
    return f"```{{toctree}}\n:hidden:\n:caption: {caption}\n\n" + "\n".join(names) + "\n```"


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1] if len(sys.argv) > 1 else HERE / "_build").resolve()))
