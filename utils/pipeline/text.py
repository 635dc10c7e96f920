"""The first stage: text from a folder, a JSONL file, a stream or the course's own corpus becomes rows of tokens on disk.

A document is named by the hash of its text, and the name decides on which side it falls: what stands twice in a corpus is never
both trained on and held out.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import suppress
from functools import cached_property
from itertools import islice
from pathlib import Path

import safetensors.torch
import torch
from jaxtyping import Bool, Int
from safetensors import safe_open
from torch import Tensor
from tqdm.auto import tqdm

from utils.data.corpus import Document, documents, split_documents
from utils.paths import MANIFEST, atomic_write
from utils.pipeline.config import PipelineError, TextConfig
from utils.pipeline.records import Run
from utils.sae.shards import contexts

PART_CHARACTERS = 4_000_000
"""Text that is cut into tokens at once and becomes one file, about a million tokens. A longer document is a part by itself."""


def documents_of(text: TextConfig, first: int = 0) -> Iterator[Document]:
    """The documents of a source, one by one, from number `first` on. Empty ones count, and are left out later.

    Raises: PipelineError for a source that is missing, empty or not what it should be, with the file and the line.
    """
    if text.folder:
        found = _from_folder(Path(text.folder), first)
    elif text.jsonl:
        found = islice(_from_jsonl(Path(text.jsonl), text.field), first, None)
    elif text.dataset:
        found = _from_dataset(text, first)
    else:
        found = islice(_from_corpus(text.corpus), first, None)
    for content in found:
        yield Document("text", hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()[:16], content)


def text_files(folder: Path) -> list[Path]:
    """The .txt and .md files of a folder in numeric order: 2.txt before 10.txt. Raises PipelineError when there are none."""
    if not folder.is_dir():
        raise PipelineError(f"text.folder: there is no folder {folder}. {_neighbour(folder)}")
    paths = [path for path in folder.rglob("*") if path.suffix.lower() in (".txt", ".md") and path.is_file()]
    if not paths:
        raise PipelineError(f"text.folder: {folder} holds no .txt or .md file. Name the folder that holds them; for JSONL write `jsonl: FILE`.")
    return sorted(paths, key=lambda path: [(not part.isdigit(), int(part) if part.isdigit() else 0, part) for part in re.split(r"(\d+)", path.relative_to(folder).as_posix())])


def _from_folder(folder: Path, first: int) -> Iterator[str]:
    for path in text_files(folder)[first:]:
        try:
            yield path.read_bytes().decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise PipelineError(f"{path} is not UTF-8 (byte {error.start:,}). Save it again with that encoding, or take it out of the folder.") from None


def _from_jsonl(path: Path, field: str) -> Iterator[str]:
    if not path.is_file():
        raise PipelineError(f"text.jsonl: there is no file {path}. {_neighbour(path)}")
    with path.open(encoding="utf-8-sig") as file:
        try:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield _field(json.loads(line), field, f"{path}, line {number}")
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise PipelineError(f"{path}, after line {number - 1}: no JSON object ({error}). Correct or delete that line.") from None


def _from_dataset(text: TextConfig, first: int) -> Iterator[str]:
    try:
        from datasets import load_dataset
    except ImportError:
        raise PipelineError("text.dataset needs the package `datasets`: pip install datasets.") from None
    try:
        rows = load_dataset(text.dataset, text.subset, split=text.split, streaming=True)
        for number, row in enumerate(rows.skip(first), first):
            yield _field(row, text.field, f"{text.dataset}, row {number}")
    except (OSError, ValueError, RuntimeError) as error:  # their errors are subclasses of these
        if isinstance(error, PipelineError):
            raise
        raise PipelineError(f"text.dataset: {text.dataset} ({text.split}) cannot be streamed: {str(error).splitlines()[0]}. Check its name, subset and split, "
                            "and the connection; what has been read stays, and the next run goes on from there.") from error


def _from_corpus(sources: tuple[str, ...]) -> Iterator[str]:
    try:
        found = documents(sources)
    except ValueError as error:
        raise PipelineError(f"text.corpus: {error}") from error
    yield from (document.text for document in found)


def _field(row: object, field: str, where: str) -> str:
    if isinstance(row, dict) and isinstance(row.get(field), str):
        return row[field]
    there = [key for key, value in row.items() if isinstance(value, str)] if isinstance(row, dict) else []
    near = difflib.get_close_matches(field, there, n=1) or there[:1]
    raise PipelineError(f"{where} has no text in {field!r}. " + (f"Set text.field to one of {', '.join(there)}; {near[0]!r}?" if there else "It must be an object with a text in it."))


def _neighbour(path: Path) -> str:
    """What lies in the same place under a similar name."""
    near = difflib.get_close_matches(path.name, [other.name for other in path.parent.glob("*")], n=1)
    return f"Did you mean {path.with_name(near[0])}?" if near else "Paths are relative to the YAML file."


def size_of(text: TextConfig) -> int | None:
    """The bytes of a source, None for what is streamed. They also tell that a source changed while it was being read."""
    if text.folder:
        return sum(path.stat().st_size for path in text_files(Path(text.folder)))
    if text.jsonl:
        return Path(text.jsonl).stat().st_size if Path(text.jsonl).is_file() else 0
    return None if text.dataset else sum(map(bytes_of, documents_of(text)))


def bytes_of(document: Document) -> int:
    """A document's length in UTF-8."""
    return len(document.text.encode("utf-8", "replace"))


def write_sentences(run: Run) -> dict[Path, str]:
    """Cut all text into rows of tokens, part by part; a killed run goes on at the first part that is missing.

    Raises: PipelineError for a bad source, one that changed meanwhile, or one that gives too few rows.
    """
    folder, text, context = run.at("sentences"), run.config.text, run.config.capture.context
    run.remember_model()
    manifest = read_manifest(folder) or {"size": size_of(text), "parts": []}
    if not manifest.get("finished") and manifest["size"] != size_of(text):
        raise PipelineError(f"the text changed while it was being read (it had {manifest['size']:,} bytes). Delete {folder} and run again.")
    most = text.max_tokens // context if text.max_tokens else None
    there = [(folder / _name(i)).exists() for i in range(len(manifest["parts"]))]
    del manifest["parts"][[*there, False].index(False):]
    rows = sum(part["rows"] for part in manifest["parts"])
    first = sum(part["documents"] for part in manifest["parts"])
    # The time left follows from the bytes where their number is known, else from the tokens that are wanted.
    whole, key, unit = (most * context, "tokens", " tokens") if manifest["size"] is None else (manifest["size"], "bytes", "B")
    with tqdm(total=whole, initial=sum(part[key] for part in manifest["parts"]), unit=unit, unit_scale=True, desc="sentences", delay=2, disable=not run.progress) as bar:
        for texts in _parts(documents_of(text, first)):
            if most is not None and rows >= most:
                break
            manifest["parts"].append(_write_part(run, folder / _name(len(manifest["parts"])), texts, first, None if most is None else most - rows))
            atomic_write(folder / MANIFEST, json.dumps(manifest, indent=1))
            rows, first = rows + manifest["parts"][-1]["rows"], first + len(texts)
            bar.update(manifest["parts"][-1][key])
    _enough(run, manifest)
    atomic_write(folder / MANIFEST, json.dumps({**manifest, "finished": True}, indent=1))
    return {folder / _name(i): part["sha256"] for i, part in enumerate(manifest["parts"])}


def _parts(found: Iterator[Document]) -> Iterator[list[Document]]:
    """Documents in groups of about PART_CHARACTERS."""
    group, length = [], 0
    for document in found:
        group.append(document)
        length += len(document.text)
        if length >= PART_CHARACTERS:
            yield group
            group, length = [], 0
    if group:
        yield group


def _write_part(run: Run, path: Path, texts: list[Document], first: int, most: int | None) -> dict[str, int | str]:
    """Store the rows of some documents; returns the part's entry in the manifest."""
    context = run.config.capture.context
    tokens, owners = torch.zeros(0, context, dtype=torch.long), torch.zeros(0, dtype=torch.long)
    filled = [document for document in texts if document.text.strip()]
    with suppress(ValueError):  # said when no document of this part fills a row: the next part's may
        tokens, owners = contexts(run.model, filled, context)
    _, held = split_documents(filled, run.config.text.held_out)
    sides, numbers = {document.name for document in held}, [first + i for i, document in enumerate(texts) if document.text.strip()]
    on_side = torch.tensor([filled[i].name in sides for i in owners.tolist()], dtype=torch.bool)[:most]
    columns = {"tokens": tokens[:most].int(), "document": torch.tensor(numbers, dtype=torch.long)[owners][:most], "held_out": on_side}
    content = safetensors.torch.save(columns)
    atomic_write(path, content)
    return {"rows": len(on_side), "held_out": int(on_side.sum()), "documents": len(texts), "tokens": len(on_side) * context, "bytes": sum(map(bytes_of, texts)), "without_a_row": len(texts) - len(owners.unique()),
            "sha256": hashlib.sha256(content).hexdigest()}


def _enough(run: Run, manifest: dict) -> None:
    found = Sentences(run.at("sentences"), manifest["parts"])
    context, read = run.config.capture.context, sum(part["documents"] for part in manifest["parts"])
    if not manifest["parts"] or not len(found.train):
        raise PipelineError(f"of {read:,} documents none that is trained on fills a row of {context} tokens: the text is empty or too short. "
                            f"Give longer documents, or a smaller capture.context, and delete {run.at('sentences')}.")
    if len(found.document[found.held_out].unique()) < 2:
        raise PipelineError(f"of {read:,} documents fewer than 2 with a whole row are held out, and nothing can be measured. Give more documents "
                            f"(cut long ones) or raise text.held_out, and delete {run.at('sentences')}.")


def _name(i: int) -> str:
    return f"{i:05d}.safetensors"


def read_manifest(folder: Path) -> dict | None:
    """A stage's manifest, None before there is one. Raises PipelineError when it cannot be read."""
    try:
        return json.loads((folder / MANIFEST).read_text("utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise PipelineError(f"{folder / MANIFEST} cannot be read ({error}). Delete {folder} and run again.") from error


class Sentences:
    """The rows of tokens of a run; the tokens stay on disk until they are asked for.

    Attributes:
        parts: the entries of the manifest.
    """

    def __init__(self, folder: Path, parts: list[dict] | None = None) -> None:
        self.folder = folder
        self.parts = parts if parts is not None else (read_manifest(folder) or {"parts": []})["parts"]

    def _column(self, i: int, name: str) -> Tensor:
        with safe_open(self.folder / _name(i), framework="pt") as file:
            return file.get_tensor(name)

    @cached_property
    def document(self) -> Int[Tensor, " n"]:
        """The number of each row's document."""
        return torch.cat([self._column(i, "document") for i in range(len(self.parts))])

    @cached_property
    def _held(self) -> Bool[Tensor, " n"]:
        return torch.cat([self._column(i, "held_out") for i in range(len(self.parts))])

    @property
    def train(self) -> Int[Tensor, " n"]:
        """The numbers of the rows that are trained on."""
        return (~self._held).nonzero().squeeze(1)

    @property
    def held_out(self) -> Int[Tensor, " n"]:
        """The numbers of the rows that are kept for measuring."""
        return self._held.nonzero().squeeze(1)

    def rows(self, index: Int[Tensor, " m"]) -> Int[Tensor, "m context"]:
        """The tokens of the rows with these numbers, in this order, BOS first."""
        starts = torch.tensor([0, *(part["rows"] for part in self.parts)]).cumsum(0)
        part = torch.bucketize(index, starts, right=True) - 1
        found = torch.empty(len(index), self._column(0, "tokens").shape[1], dtype=torch.long)
        for i in part.unique().tolist():
            where = (part == i).nonzero().squeeze(1)
            found[where] = self._column(i, "tokens")[index[where] - starts[i]].long()
        return found
