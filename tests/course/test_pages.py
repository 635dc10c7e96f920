"""Every chapter is a page that can be read: what is not to be read is folded, what is visible is short, in order and guessed at."""

import ast
import re

import nbformat
import pytest

from utils.course.building import student_notebook
from utils.course.chapters import FOLDED, OPENINGS, SOURCES, read_chapter, stems, tags_of

WIDTH, FOLDED_WIDTH, HEIGHT = 100, 120, 20
FIVE_MINUTES = (150, 450)
"""Words of the page that is read without running anything."""


@pytest.fixture(scope="module", params=stems())
def chapter(request):
    return read_chapter(request.param)


@pytest.fixture(scope="module")
def student(chapter):
    return student_notebook(chapter)


@pytest.fixture(scope="module")
def code(chapter):
    """(cell number, tags, source) of the cells that the author wrote, the setup cell and the exercises' slots aside."""
    return [(i, tags_of(cell), cell.source) for i, cell in enumerate(chapter.source.cells)
            if cell.cell_type == "code" and not {"setup", "exercise"} & set(tags_of(cell))]


def visible(code):
    return [(i, source) for i, tags, source in code if not set(tags) & set(FOLDED)]


def test_visible_code_is_narrow_and_short(code):
    wide = [f"cell {i}: {line}" for i, source in visible(code) for line in source.splitlines() if len(line) > WIDTH]
    tall = [f"cell {i}: {len(source.splitlines())} lines" for i, source in visible(code) if len(source.splitlines()) > HEIGHT]
    assert not wide and not tall, "\n".join([*wide, *tall])


def test_folded_code_is_still_code(code):
    wide = [f"cell {i}: {line}" for i, tags, source in code for line in source.splitlines() if len(line) > FOLDED_WIDTH]
    assert not wide, "\n".join(wide)


def test_references_are_narrow(chapter):
    lines = (SOURCES / f"{chapter.stem}.py").read_text("utf-8").splitlines()
    wide = [f"{i}: {line}" for i, line in enumerate(lines, start=1) if len(line) > WIDTH]
    assert not wide, "\n".join(wide)


def test_what_is_not_to_be_read_is_folded(code):
    """Figures, claims and imports carry their tags, and a tag says what the cell holds."""
    for i, tags, source in code:
        calls = {node.func.id for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
        imports = [node for node in ast.parse(source).body if isinstance(node, (ast.Import, ast.ImportFrom))]
        assert not imports or "imports" in tags, f"cell {i} imports outside the imports cell"
        assert "claim" not in calls or "claim" in tags, f"cell {i} records a claim and is not tagged"
        assert not calls & {"show", "show_with_slider"} or "figure" in tags, f"cell {i} shows a figure and is not tagged"
        assert "figure" not in tags or source.startswith("# "), f"cell {i}: a figure cell begins with its title"


def test_the_courses_own_words_keep_their_meaning(code):
    """What the setup cell imports is used to the chapter's end."""
    own = {"check", "guess", "hint", "progress", "ready", "reveal", "solution"}
    taken = [f"cell {i}: {node.id}" for i, _, source in code for node in ast.walk(ast.parse(source))
             if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and node.id in own]
    assert not taken, "\n".join(taken)


def test_a_title_is_computed_before_it_is_used(code):
    """No comprehension, no choice inside an f-string: three steps are three steps."""
    nested = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp, ast.IfExp, ast.Lambda)
    for i, _, source in code:
        for text in (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.JoinedStr)):
            assert not any(isinstance(node, nested) for node in ast.walk(text)), f"cell {i}: {ast.unparse(text)}"


def test_folding_is_in_the_notebook(student):
    folded = [cell for cell in student.cells if cell.cell_type == "code" and cell.metadata.get("jupyter", {}).get("source_hidden")]
    assert len(folded) > 5
    for cell in folded:
        assert cell.metadata["cellView"] == "form" and re.match(r"# @title \S.{4,90}\n", cell.source), cell.source[:120]
    for cell in student.cells:
        assert not (cell.cell_type == "code" and "claim(" in cell.source and cell not in folded and "def " not in cell.source), cell.source


def test_the_question_stands_first(chapter):
    """Head, picture and question; then setup, imports, settings."""
    tags = [tags_of(cell) for cell in chapter.source.cells]
    setup = next(i for i, t in enumerate(tags) if "setup" in t)
    before = [cell for cell in chapter.source.cells[:setup]]
    assert before and all(cell.cell_type == "markdown" for cell in before)
    assert "?" in "\n".join(cell.source for cell in before)
    places = [next(i for i, t in enumerate(tags) if name in t) for name in ("setup", "imports", "settings")]
    assert places == sorted(places)


def test_it_opens_with_a_picture(chapter, student):
    assert sum("opening" in tags_of(cell) for cell in chapter.source.cells) == 1
    assert (OPENINGS / f"{chapter.stem}.png").is_file(), "run the chapter: the picture is what its opening cell draws"
    head, picture = student.cells[:2]
    assert head.cell_type == "markdown" and "image/png" in picture.outputs[0].data
    for row in ("you need", "it takes", "next"):
        assert re.search(rf"\| {row} \| \S.+ \|", head.source)


def test_it_has_its_parts(chapter):
    text = "\n".join(cell.source for cell in chapter.source.cells if cell.cell_type == "markdown")
    for heading in ("In five minutes", "Replication card", "Your turn"):
        assert re.search(rf"^## {heading}", text, re.M), heading
    page = re.search(r"^## In five minutes\s*\n(.*?)(?=^## |\Z)", text, re.M | re.S)[1]
    assert FIVE_MINUTES[0] <= len(page.split()) <= FIVE_MINUTES[1], len(page.split())
    assert re.search(r"utils\.yours", "\n".join(cell.source for cell in chapter.source.cells)), "Your turn is a call from utils.yours"


def test_guesses_come_before_results(code):
    """Each guess has its reveal in a later cell, and stands in the source without an answer."""
    made, shown = {}, {}
    for i, tags, source in code:
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("guess", "reveal"):
                (made if node.func.id == "guess" else shown).setdefault(ast.literal_eval(node.args[0]), i)
                if node.func.id == "guess":
                    assert "guess" in tags and ast.literal_eval(node.args[1]) is None, source
    assert set(made) == set(shown) and len(made) >= 3
    assert not [name for name in made if made[name] >= shown[name]]


def test_nothing_stands_on_this_models_depth(code):
    """No block by its number: layers are shares of the depth. The first and the last are themselves."""
    for i, _, source in code:
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("resid_post", "resid_pre", "mlp_out", "attn_out"):
                for argument in node.args:
                    assert not (isinstance(argument, ast.Constant) and argument.value not in (0, -1)), f"cell {i}: {ast.unparse(node)}"


def test_solved_notebook_folds_the_same_cells(chapter, student):
    solved = nbformat.read(chapter.path("solved"), as_version=4)
    hidden = [{cell.id for cell in notebook.cells if cell.metadata.get("jupyter", {}).get("source_hidden")} for notebook in (student, solved)]
    assert hidden[0] == hidden[1]
