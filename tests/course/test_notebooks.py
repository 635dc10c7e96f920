"""The committed notebooks are what the sources build, leak nothing, and keep their claims."""

import ast
import inspect
import json
import re

import nbformat
import pytest
from nbclient.exceptions import CellExecutionError

from utils.course import chapters, imports, solved as solving
from utils.course.building import build, student_notebook, worked_in
from utils.course.chapters import SourceError, edition, fill, read_chapter, stems
from utils.course.ledger import Claim
from utils.course.solved import Run, _claim, content_key, execute, refresh, run_all, stored_ledger

ALL = stems()
MEGABYTE = 2**20


@pytest.fixture(scope="module", params=ALL)
def chapter(request):
    return read_chapter(request.param)


@pytest.fixture(scope="module")
def solved(chapter):
    return nbformat.read(chapter.path("solved"), as_version=4)


def test_student_notebook_is_what_the_source_builds(chapter):
    built = nbformat.writes(student_notebook(chapter)) + "\n"
    assert chapter.path("student").read_text("utf-8") == built, "run `make build` and commit the result"


def test_cell_ids_are_unique_and_stable(chapter):
    first, second = (edition(chapter, solved=False, ledger={}) for _ in range(2))
    ids = [cell.id for cell in first.cells]
    assert ids == [cell.id for cell in second.cells] and len(set(ids)) == len(ids)
    nbformat.validate(first)


def test_no_line_of_a_solution_is_in_the_student_notebook(chapter):
    lines = set()
    for exercise in chapter.exercises.values():
        function = ast.parse(inspect.getsource(exercise.reference)).body[0]
        source = inspect.getsource(exercise.reference).splitlines()
        lines |= {line.split("#")[0].strip() for line in source[function.body[0].end_lineno:]}
    telling = {line for line in lines if len(line) > 14}
    assert telling
    text = "\n".join(cell.source for cell in student_notebook(chapter).cells)
    written = {line.split("#")[0].strip() for line in text.splitlines()}
    assert not telling & written


def test_every_exercise_is_asked_and_unanswered(chapter):
    code = [cell.source for cell in student_notebook(chapter).cells if cell.cell_type == "code"]
    for name in chapter.exercises:
        (answer,) = (source for source in code if f"def {name}(" in source)
        assert answer.rstrip().endswith("raise NotImplementedError")
        assert f"check({name})" in code


def test_solved_notebook_is_current_or_runs(chapter, solved, request):
    """A notebook whose key still matches was executed from these very files; any other is executed here."""
    if solved.metadata.probe_to_steer.get("key") != content_key(chapter):
        try:
            solved = execute(chapter).notebook
        except CellExecutionError as error:
            pytest.fail(f"{chapter.stem} does not run: {error}")
    fresh = edition(chapter, solved=True, ledger={row["name"]: _claim(row) for row in solved.metadata.probe_to_steer.ledger})
    assert [cell.source for cell in solved.cells] == [cell.source for cell in fresh.cells], "run `make build` and commit the result"
    claims = [_claim(row) for row in solved.metadata.probe_to_steer.ledger]
    assert claims, "a chapter without a claim has nothing to teach"
    assert not [f"{made.name}: {made.verdict}" for made in claims if made.drifted or not made.held]


def test_every_claim_could_have_failed(chapter):
    """No interval without a width, and no rival inside the range that is accepted."""
    for made in stored_ledger(chapter).values():
        low, high = made.interval
        assert low < high, f"{made.name}: an interval of width zero"
        if made.relation in ("above", "below"):
            assert not made.expect[0] <= made.rival[1] <= made.expect[1], f"{made.name}: {made.rival} lies in {made.expect}"


def test_what_is_claimed_holds_at_the_other_seed_too(chapter):
    """The same claims at SEED=1 (`python -m utils run --second`), and every relation."""
    second = stored_ledger(chapter, "second")
    assert second.keys() == stored_ledger(chapter).keys()
    assert not [f"{made.name}: {made.relation_in_words}" for made in second.values() if not made.held]


def test_solved_notebook_shows_everything(chapter, solved):
    """Outputs without errors, a static image beside every figure, no more than 5 MB."""
    assert chapter.path("solved").stat().st_size < 5 * MEGABYTE
    for cell in solved.cells:
        outputs = cell.get("outputs", [])
        assert not [output for output in outputs if output.output_type == "error"], cell.source
        for output in outputs:
            data = output.get("data", {})
            if "application/vnd.plotly.v1+json" in data:
                assert "image/png" in data, f"a figure without a static image:\n{cell.source}"
        if cell.source.startswith("check("):
            assert "Passed" in json.dumps(outputs), cell.source


def test_every_figure_says_what_it_shows(solved):
    """A title, and axes with names, on every plotly figure that has axes."""
    figures = [output.data["application/vnd.plotly.v1+json"] for cell in solved.cells for output in cell.get("outputs", [])
               if "application/vnd.plotly.v1+json" in output.get("data", {})]
    assert figures
    for figure in figures:
        layout = figure["layout"]
        assert len(layout.get("title", {}).get("text", "")) > 15, layout.get("title")
        axes = [axis for name, axis in layout.items() if re.fullmatch(r"[xy]axis\d*", name)]
        assert any(axis.get("title", {}).get("text") for axis in axes) or any(a.get("text") for a in layout.get("annotations", [])), layout["title"]


def test_prose_states_only_recorded_numbers(chapter):
    ledger = stored_ledger(chapter)
    for cell in chapter.source.cells:
        for name in re.findall(r"\{\{([\w]+)[\w.]*\}\}", cell.source):
            assert name in ledger, name


# --- the build itself -----------------------------------------------------------------------------------------


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.setattr(chapters, "STUDENT", tmp_path)
    return tmp_path


def test_build_writes_and_rewrites_untouched_notebooks(elsewhere):
    assert build(ALL[:1]) == 0
    path = elsewhere / f"{ALL[0]}.ipynb"
    assert not worked_in(path)
    notebook = nbformat.read(path, as_version=4)
    notebook.metadata["probe_to_steer"]["chapter"] = "edited by an older version of the course"
    nbformat.write(notebook, path)
    assert build(ALL[:1]) == 0
    assert "older version" not in path.read_text("utf-8")


@pytest.mark.parametrize("work", ["source", "output", "new cell", "broken file"])
def test_build_never_overwrites_work(elsewhere, work, capsys):
    build(ALL[:1])
    path = elsewhere / f"{ALL[0]}.ipynb"
    notebook = nbformat.read(path, as_version=4)
    if work == "source":
        notebook.cells[1].source += "\nmy note"
    elif work == "output":
        next(cell for cell in notebook.cells if cell.cell_type == "code").outputs = [nbformat.v4.new_output("stream", text="ran")]
    elif work == "new cell":
        notebook.cells.append(nbformat.v4.new_code_cell("mine = 1"))
    nbformat.write(notebook, path)
    if work == "broken file":
        path.write_text(path.read_text("utf-8")[:-400], "utf-8")
    before = path.read_bytes()
    assert build(ALL[:1]) == 1
    assert path.read_bytes() == before and "[kept]" in capsys.readouterr().out


def test_content_key_follows_everything_the_run_depends_on(monkeypatch, tmp_path):
    import shutil

    from utils.paths import ROOT

    chapter = read_chapter(ALL[0])
    key = content_key(chapter)
    for part in ("solutions", "utils", "tests"):
        shutil.copytree(ROOT / part, tmp_path / part, ignore=shutil.ignore_patterns("*.ipynb", "__pycache__"))
    shutil.copy(ROOT / "requirements.lock", tmp_path)
    for module in (solving, imports):
        monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.setattr(solving, "SOURCES", tmp_path / "solutions")
    assert content_key(chapter) == key
    for name in (f"solutions/{ALL[0]}.py", "utils/hooks.py", "utils/paths.py", "requirements.lock"):
        before = (tmp_path / name).read_text("utf-8")
        (tmp_path / name).write_text(before + "\n# changed", "utf-8")
        assert content_key(chapter) != key, name
        (tmp_path / name).write_text(before, "utf-8")
    (tmp_path / "utils" / "course" / "audit.py").write_text("# no notebook imports this", "utf-8")
    assert content_key(chapter) == key


@pytest.mark.parametrize("changed", ["markdown", "code"])
def test_new_prose_is_put_in_without_a_run_and_new_code_is_not(changed, monkeypatch, tmp_path):
    chapter = read_chapter(ALL[0])
    stored, path = chapter.path("solved").read_text("utf-8"), tmp_path / f"{ALL[0]}.ipynb"
    path.write_text(stored, "utf-8")
    monkeypatch.setattr(chapters, "SOURCES", tmp_path)
    refresh(chapter)
    assert path.read_text("utf-8") == stored
    cell = next(cell for cell in chapter.source.cells if cell.cell_type == changed)
    cell.source += "\n\n# New words"
    refresh(chapter)
    if changed == "code":
        assert path.read_text("utf-8") == stored
        return
    before, after = nbformat.reads(stored, as_version=4), nbformat.read(path, as_version=4)
    assert "New words" in path.read_text("utf-8") and before.metadata == after.metadata
    assert [cell for cell in before.cells if cell.cell_type == "code"] == [cell for cell in after.cells if cell.cell_type == "code"]


@pytest.fixture
def rerun(monkeypatch, tmp_path):
    """`run_all` over copies of two stored notebooks, with an `execute` that gives back what is stored. Gives the two chapters."""
    both = {stem: read_chapter(stem) for stem in ALL[:2]}
    for stem, chapter in both.items():
        notebook = nbformat.read(chapter.path("solved"), as_version=4)
        notebook.metadata["probe_to_steer"] |= {"key": content_key(chapter), "second": []}
        nbformat.write(notebook, tmp_path / f"{stem}.ipynb")
    monkeypatch.setattr(chapters, "SOURCES", tmp_path)
    monkeypatch.setattr(solving, "OPENINGS", tmp_path)
    monkeypatch.setattr(solving, "read_chapter", both.get)

    def execute(chapter, **_):
        notebook = nbformat.read(chapter.path("solved"), as_version=4)
        notebook.metadata["probe_to_steer"] |= {"key": content_key(chapter)}
        notebook.metadata["probe_to_steer"].pop("second", None)
        return Run(notebook, 1.0, stored_ledger(chapter))

    monkeypatch.setattr(solving, "execute", execute)
    return list(both.values())


def test_the_other_seed_is_stored_beside_and_goes_with_the_sources_it_was_run_from(rerun):
    settings = {"static": True, "settings": {}}
    both = [chapter.stem for chapter in rerun]
    assert run_all(both, static=False, settings={"SEED": "1"}, second=True) == 0
    assert run_all(both, **settings) == 0
    for chapter in rerun:
        assert stored_ledger(chapter, "second") == stored_ledger(chapter) != {}
    rerun[0].source.cells[next(i for i, cell in enumerate(rerun[0].source.cells) if cell.cell_type == "code")].source += "\nnew = 1"
    assert run_all(both, **settings) == 0
    assert not stored_ledger(rerun[0], "second") and stored_ledger(rerun[1], "second")


def test_fill_puts_recorded_numbers_into_the_prose():
    made = Claim("auroc", "text", 0.9662, (0.949, 0.987), "above", ("bag of words", 0.6), (0.31, 0.42), 0.0, ("layer 0", 0.5), None, (0.9, 1.0))
    assert fill("{{auroc}}, {{auroc.value}}, {{auroc.baseline}}, {{auroc.rival}}", {"auroc": made}) == "0.966 [0.949, 0.987], 0.966, 0.500, 0.600"
    assert fill("{{auroc.difference}}", {"auroc": made}) == "0.366 [0.310, 0.420]"
    with pytest.raises(SourceError, match="no control"):
        fill("{{auroc.control}}", {"auroc": made})
    assert "not measured yet" in fill("{{other}}", {})
