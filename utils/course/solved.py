"""The solved notebook: executed, with its content key and its ledger."""

from __future__ import annotations

import hashlib
import json
import re
import time
from base64 import b64decode
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_output

from utils.course.chapters import OPENINGS, SOURCES, Chapter, SourceError, edition, fill, opening_output, read_chapter, tags_of, with_id
from utils.course.imports import utils_behind
from utils.course.ledger import CLAIM_MIME, Claim, table
from utils.paths import ROOT, atomic_write


def discussion(stem: str, name: str) -> str:
    """The text below an exercise's solution."""
    chapter = read_chapter(stem)
    cells, found = chapter.source.cells, []
    at = next(i for i, cell in enumerate(cells) if "exercise" in tags_of(cell) and cell.source.strip() == name)
    for cell in cells[at + 1:]:
        if "solution" not in tags_of(cell):
            break
        found.append(cell.source)
    return fill("\n\n".join(found), stored_ledger(chapter)) or "Compare it with yours, line by line."


def stored_ledger(chapter: Chapter, of: str = "ledger") -> dict[str, Claim]:
    """The claims recorded in the committed solved notebook; empty if it was never run. `of`: "ledger", or "second", those at another seed."""
    path = chapter.path("solved")
    if not path.exists():
        return {}
    rows = nbformat.read(path, as_version=4).metadata.get("probe_to_steer", {}).get(of, [])
    return {row["name"]: _claim(row) for row in rows}


def _stored_key(chapter: Chapter) -> str | None:
    """The content key of the sources that the stored solved notebook was run from; None without one."""
    path = chapter.path("solved")
    return nbformat.read(path, as_version=4).metadata.get("probe_to_steer", {}).get("key") if path.exists() else None


def _claim(row: dict) -> Claim:
    return Claim(**{key: tuple(value) if isinstance(value, list) else value for key, value in row.items()})


def _rows(ledger: dict[str, Claim]) -> list[dict]:
    return [json.loads(json.dumps(asdict(made))) for made in ledger.values()]


def store_second(chapter: Chapter, second: dict[str, Claim]) -> None:
    """Put the claims of a run at another seed beside the stored ones, and into the table at the end of the solved notebook.

    Raises: SourceError if the stored notebook was not run from these sources.
    """
    path = chapter.path("solved")
    if _stored_key(chapter) != content_key(chapter):
        raise SourceError(f"solutions/{path.name} is older than its sources: run it first, then at another seed.")
    stored = nbformat.read(path, as_version=4)
    stored.metadata["probe_to_steer"]["second"] = _rows(second)
    cell = next(cell for cell in reversed(stored.cells) if cell.cell_type == "code" and cell.source.endswith("ledger()"))
    cell.outputs = [new_output("display_data", table(list(stored_ledger(chapter).values()), second))]
    atomic_write(path, nbformat.writes(stored) + "\n")


def content_key(chapter: Chapter) -> str:
    """SHA-256 over all that the solved notebook's numbers depend on: code cells, references, imported utils, lock file.

    Prose does not count: `refresh` puts it into the notebook without a run. What the setup cell imports does not
    count either: it judges answers, and CI proves that apart (`audit`).
    """
    cells = [cell for cell in chapter.source.cells if cell.cell_type == "code"]
    code = "\n".join(cell.source for cell in cells if "exercise" not in tags_of(cell))
    parts = [(",".join(tags_of(cell)), cell.source) for cell in cells]
    files = [SOURCES / f"{chapter.stem}.py", ROOT / "requirements.lock", *utils_behind(code)]
    digest = hashlib.sha256()
    for name, text in [*parts, *((path.name, path.read_text("utf-8")) for path in files)]:
        digest.update(name.encode() + b"\0" + text.encode() + b"\0")
    return digest.hexdigest()


def refresh(chapter: Chapter) -> None:
    """Write the source's prose, with the recorded numbers in it, into a solved notebook whose code is still the source's.

    A notebook of other code is left as it is: `run` has to make it anew.
    """
    path = chapter.path("solved")
    if _stored_key(chapter) != content_key(chapter):
        return
    stored = nbformat.read(path, as_version=4)
    fresh = edition(chapter, solved=True, ledger=stored_ledger(chapter))
    fresh.metadata = stored.metadata
    ran, now = ([cell for cell in notebook.cells if cell.cell_type == "code"] for notebook in (stored, fresh))
    for before, cell in zip(ran, now, strict=True):
        cell.outputs, cell.execution_count = before.outputs, before.execution_count
    text = nbformat.writes(fresh) + "\n"
    if text != path.read_text("utf-8"):
        atomic_write(path, text)
        print(f"[built] solutions/{path.name}: new prose")


@dataclass(frozen=True)
class Run:
    """What an execution of a solved notebook gave."""

    notebook: NotebookNode
    minutes: float
    ledger: dict[str, Claim]
    unclaimed: tuple[str, ...] = ()
    """What the prose refers to and no cell has claimed: only under other settings, where there may be nothing to claim."""

    @property
    def broken(self) -> list[Claim]:
        return [made for made in self.ledger.values() if made.drifted or not made.held]


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
    if missing and not settings:
        raise SourceError(f"{chapter.stem}.md refers to {', '.join(missing)}, which no cell claims")
    if (picture := opening_picture(notebook)) is not None:  # the first cells show this run's, not the one before
        first = next(cell for cell in notebook.cells if cell.id == with_id(chapter, "opening", 0, new_code_cell()).id)
        first.outputs = [opening_output(picture)]
    notebook.metadata["probe_to_steer"] |= {"key": content_key(chapter), "ledger": _rows(ledger)}
    return Run(notebook, minutes, ledger, tuple(dict.fromkeys(missing)))


def opening_picture(notebook: NotebookNode) -> str | None:
    """The picture that the cell tagged `opening` drew, as base64; None if it drew none."""
    outputs = [output for cell in notebook.cells if "opening" in tags_of(cell) for output in cell.outputs]
    return next((output.data["image/png"] for output in outputs if "image/png" in output.get("data", {})), None)


def _change_settings(chapter: Chapter, notebook: NotebookNode, settings: dict[str, str]) -> None:
    """Give the settings cell other values. Raises SourceError for a setting that the chapter does not have."""
    ids = {with_id(chapter, "code", index, new_code_cell()).id for index, cell in enumerate(chapter.source.cells) if "settings" in tags_of(cell)}
    for name, value in settings.items():
        changed = 0
        for cell in (cell for cell in notebook.cells if cell.id in ids):
            cell.source, count = re.subn(rf"^{re.escape(name)} = [^#\n]*", lambda _: f"{name} = {value}  ", cell.source, flags=re.M)
            changed += count
        if not changed:
            raise SourceError(f"{chapter.stem} has no setting called {name}")


def run_all(chosen: Iterable[str], *, static: bool, settings: dict[str, str], second: bool = False) -> int:
    """Execute solved notebooks; print minutes and claims. Returns how many chapters failed.

    A run with static figures and the chapter's own settings is stored: that is the notebook that we publish. Of a `second`
    run, at another seed, the claims are stored beside those; a later run keeps them if it is of the same sources.
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
        rows += [f"    {made.name}: {made}; {made.relation_in_words}: {made.verdict}" for made in done.broken]
        rows += [f"    {name}: nothing was claimed under these settings" for name in done.unclaimed]
        if second:
            store_second(chapter, done.ledger)
        elif static and not settings:
            if (picture := opening_picture(done.notebook)) is not None:
                atomic_write(OPENINGS / f"{stem}.png", b64decode(picture))
            at_other_seed = stored_ledger(chapter, "second") if _stored_key(chapter) == content_key(chapter) else {}
            atomic_write(chapter.path("solved"), nbformat.writes(done.notebook) + "\n")
            if at_other_seed:
                store_second(chapter, at_other_seed)
    print("\n".join(rows))
    return failed
