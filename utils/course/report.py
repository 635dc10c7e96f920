"""What a class did, as a page for its teacher and as a table for the grade book."""

from __future__ import annotations

import csv
import hashlib
import html
import io
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

from utils.course.exercises import exercise_names, load_chapter
from utils.course.likeness import Pair, similar_answers
from utils.course.notebooks import printable
from utils.paths import ROOT

Row = dict[str, Any]
STYLE = Path(__file__).with_name("report.css")
SIGNS = {"pass": "✓", "fail": "✗", "error": "!", "timeout": "…", "missing": "–", "copied": "≡"}
LIKENESS = ("Answers that share most of what hardly anybody else in this class has written. Two people who worked together, read "
            "the same page, or think alike look the same: read both before you ask.")


def as_csv(rows: list[Row], *, anonymous: bool = False) -> str:
    """One line a notebook: who, what passed, and the status of each exercise."""
    names, exercises = names_of(rows, anonymous), list(dict.fromkeys(made["exercise"] for row in rows for made in row["exercises"]))
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["notebook", "chapter", "passed", "of", "percent", "problem", *exercises])
    for row in rows:
        status = {made["exercise"]: made["mistake"] if made["status"] == "fail" and made["mistake"] else made["status"] for made in row["exercises"]}
        passed, count = _passed(row), len(row["exercises"])
        words = [names[row["notebook"]], chapter_of_row(row), passed, count, round(100 * passed / count) if count else "", row["problem"] or ""]
        table.writerow([_no_formula(word) for word in (*words, *(status.get(name, "") for name in exercises))])
    return text.getvalue()


def _no_formula(word: Any) -> Any:
    """A spreadsheet would run a cell that begins like this, and a file's name is the learner's choice."""
    word = printable(word) if isinstance(word, str) else word
    return "'" + word if isinstance(word, str) and word[:1] in ("=", "+", "-", "@") else word


def names_of(rows: list[Row], anonymous: bool) -> dict[str, str]:
    """What each notebook is called: its path, or a number whose order says nothing."""
    paths = [row["notebook"] for row in rows]
    if not anonymous:
        return {path: printable(path) for path in paths}
    shuffled = sorted(paths, key=lambda path: hashlib.sha256(path.encode("utf-8", "replace")).digest())
    return {path: f"notebook {number}" for number, path in enumerate(shuffled, 1)}


def chapter_of_row(row: Row) -> str:
    return exercise_names().get(row["exercises"][0]["exercise"], "") if row["exercises"] else ""


def _passed(row: Row) -> int:
    return sum(made["status"] == "pass" for made in row["exercises"])


def as_page(rows: list[Row], *, anonymous: bool = False) -> str:
    """A page that opens without a server: the class as a table, the mistakes by exercise, what was hardest, what is alike."""
    by_chapter: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by_chapter[chapter_of_row(row)].append(row)
    graded = {stem: of for stem, of in sorted(by_chapter.items()) if stem}
    names = names_of(rows, anonymous)
    answers = [made for row in rows for made in row["exercises"]]
    counts = Counter(made["status"] for made in answers)
    told = ", ".join(f"{counts[status]} {status}" for status in SIGNS if counts[status])
    parts = [f"<h1>The class</h1><p>{len(rows)} notebooks, {len(answers)} answers: {told or 'nothing to grade'}.</p>"]
    if by_chapter[""]:
        refused = "".join(f"<li><b>{_safe(names[row['notebook']])}</b>: {_safe(row['problem'] or 'no exercises')}</li>" for row in by_chapter[""])
        parts.append(f"<h2>Could not be graded</h2><ul>{refused}</ul>")
    parts += [_hardest(graded)] if answers else []
    parts += [_chapter(stem, of, names, anonymous) for stem, of in graded.items()]
    pairs = similar_answers({stem: [Path(row["notebook"]) for row in of] for stem, of in graded.items()})
    parts.append(_pairs(pairs, names))
    return (f'<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
            f"<title>The class</title><style>{STYLE.read_text('utf-8')}</style></head><body>{''.join(parts)}</body></html>\n")


def _hardest(graded: dict[str, list[Row]]) -> str:
    """The five exercises that the fewest of those who tried have right."""
    tried: dict[str, list[Row]] = defaultdict(list)
    for row in (row for of in graded.values() for row in of):
        for made in row["exercises"]:
            if made["status"] != "missing":
                tried[made["exercise"]].append(made)
    share = {name: sum(made["status"] == "pass" for made in of) / len(of) for name, of in tried.items()}
    rows = ""
    for name in sorted((name for name in share if share[name] < 1), key=share.get)[:5]:
        named = Counter(made["mistake"] for made in tried[name] if made["status"] == "fail" and made["mistake"])
        words = "; ".join(f"<b>{_safe(slug)}</b> ({count}): {_safe(message_of(name, slug))}" for slug, count in named.most_common(1))
        rows += f"<tr><td>{name}</td><td>{share[name]:.0%} of {len(tried[name])}</td><td>{words or 'no named mistake'}</td></tr>"
    if not rows:
        return "<h2>Hardest exercises</h2><p>Everyone who tried an exercise has it right.</p>"
    return f"<h2>Hardest exercises</h2><div class=scroll><table><tr><th>exercise<th>right, of those who tried<th>most common named mistake</tr>{rows}</table></div>"


def message_of(exercise: str, slug: str) -> str:
    mistake = load_chapter(exercise_names()[exercise])[exercise].mistakes.get(slug)
    return mistake.message if mistake else ""


def _chapter(stem: str, rows: list[Row], names: dict[str, str], anonymous: bool) -> str:
    exercises = list(load_chapter(stem))
    guide = ROOT / "docs" / "teach" / f"{stem[:2]}.md"
    more = f" <small>What to say about it: docs/teach/{guide.name}</small>" if guide.exists() else ""
    head = "".join(f"<th class=turned><span>{name}</span>" for name in exercises)
    body = ""
    for row in sorted(rows, key=lambda row: (-_passed(row), names[row["notebook"]])):
        made = {one["exercise"]: one for one in row["exercises"]}
        cells = "".join(_answer_cell(made[name], anonymous) if name in made else "<td>" for name in exercises)
        body += f"<tr><td>{_safe(names[row['notebook']])}<td>{_passed(row)} of {len(exercises)}{cells}</tr>"
    return (f"<h2>{stem}</h2>{more}<div class=scroll><table class=grid><tr><th>notebook<th>right{head}</tr>{body}</table></div>"
            f"<p class=key>{'  '.join(f'<span class={status}>{sign}</span> {status}' for status, sign in SIGNS.items())}</p>{_mistakes(exercises, rows)}")


def _answer_cell(made: dict[str, Any], anonymous: bool) -> str:
    words = made["mistake"] or ("" if anonymous else made["message"])
    return f'<td class={made["status"]} title="{_safe(words[:400])}">{SIGNS.get(made["status"], "?")}'


def _mistakes(exercises: list[str], rows: list[Row]) -> str:
    """The heat map: an exercise a row, a named mistake a cell, the darker the more of the class made it."""
    lines = ""
    for name in exercises:
        wrong = [made for row in rows for made in row["exercises"] if made["exercise"] == name and made["status"] not in ("pass", "missing")]
        counts = Counter(made["mistake"] or {"fail": "wrong in no named way"}.get(made["status"], made["status"]) for made in wrong)
        cells = "".join(f'<span class=heat style="--share:{count / len(rows):.2f}" title="{_safe(message_of(name, slug))}">{_safe(slug)} <b>{count}</b></span>'
                        for slug, count in counts.most_common())
        lines += f"<tr><td>{name}<td>{cells or 'none'}</tr>"
    return f"<h3>Mistakes by exercise</h3><table>{lines}</table>"


def _pairs(pairs: list[Pair], names: dict[str, str]) -> str:
    rows = "".join(f"<tr><td>{pair.exercise}<td>{_safe(names[pair.one])}<td>{_safe(names[pair.other])}<td>{pair.share:.0%}</tr>" for pair in pairs[:100])
    if not rows:
        return "<h2>Similar answers</h2><p>None that stand out.</p>"
    return f"<h2>Similar answers: a hint, no verdict</h2><p>{LIKENESS}</p><table><tr><th>exercise<th>one<th>other<th>of their rare lines, shared</tr>{rows}</table>"


def _safe(text: str) -> str:
    return html.escape(printable(text.replace("\n", " ")))
