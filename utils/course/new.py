"""Templates for a new chapter and a new exercise: what `python -m utils new` writes or prints."""

from __future__ import annotations

import re
from pathlib import Path

from utils.course.chapters import SOURCES
from utils.course.exercises import REGISTRIES
from utils.paths import atomic_write

CHAPTER = '''\
---
jupytext: {{text_representation: {{extension: .md, format_name: myst}}}}
kernelspec: {{name: python3, display_name: Python 3, language: python}}
title: "{title}"
question: "The one question that this chapter can lose."
outcome: "say what the learner can do afterwards."
minutes: 90
machine: "2 CPU cores and 4 GiB of memory; no GPU, no account."
needs: "which chapters, and what of them."
next: "which chapter, and why."
---

Open with something concrete, and ask the question. Could it be lost?

## In five minutes

Two to four hundred words that can be read without running anything: the wrong reading, the right one, how to tell them apart.

```{{code-cell}}
:tags: [setup]
```

```{{code-cell}}
:tags: [imports]
import plotly.graph_objects as go
import torch
from jaxtyping import Float
from torch import Tensor

from utils.course import claim, ledger
from utils.plots import reference_line, show
```

```{{code-cell}}
:tags: [settings]
MODEL = "smollm2-135m"   # or the name of a model on the Hugging Face hub
DEVICE = None            # None: CUDA where there is one, else the CPU
SEED = 0
```

```{{code-cell}}
:tags: [guess]
guess("first_result", None, sure=0.7)   # what kind of number, and from where to where
```

## Replication card

| the paper | its number | ours | why they differ |
| --- | --- | --- | --- |

## Your turn

One call from `utils.yours` on the learner's own material, and an open question with a rubric.

## The claims of this chapter

```{{code-cell}}
ledger()
```
'''

REFERENCES = '"""The reference functions of chapter {number}: each is the specification that the learner reads, and one clear answer."""\n\nimport torch\nfrom jaxtyping import Float\nfrom torch import Tensor\n'

REGISTRY = '"""The exercises of chapter {number}: cases, named mistakes, other right answers and hints."""\n\nimport torch\n\nfrom utils.course.battery import ALL_COUNTS, NO_THRESHOLD, NOT_TRAINED\nfrom utils.course.exercises import Case, Exercise\n'

REFERENCE = '''

def {name}(acts: Float[Tensor, "n d_model"]) -> Float[Tensor, "d_model"]:
    """What it returns, in one line.

    Shapes, units and edge cases: all that the checker checks, and nothing that gives the answer away.

    >>> {name}(torch.ones(2, 3)).tolist()
    [1.0, 1.0, 1.0]
    """
    return acts.mean(0)
'''

EXERCISE = '''

# --- {name} {dashes}


def _{name}_cases(rng):
    yield Case("5 rows, 3 dimensions", torch.randn(5, 3, generator=rng, dtype=torch.float64))
    yield Case("7 rows, 4 dimensions, float32", torch.randn(7, 4, generator=rng))
    yield Case("one row", torch.randn(1, 3, generator=rng)).of("extreme")


{name} = Exercise(
    "{name}",
    without={{**NOT_TRAINED, **NO_THRESHOLD, **ALL_COUNTS}},  # kinds of the battery that do not apply, and why
    difficulty=2, importance=3, minutes=10,
    learn="What the learner knows afterwards.",
    cases=_{name}_cases,
    hints=("The idea, as a question.", "A question about shapes: the learner's own are printed below it.", "Almost the line."),
    verified="what a pass has verified.",
    next="What to look at now.",
)


@{name}.mistake("wrong-axis", "Your result has one number per row. Which axis did you average over?")
def _(acts):
    return acts.mean(1)


@{name}.variant
def _(acts):
    return torch.einsum("nd->d", acts) / len(acts)
'''

SLOT = '''
+++

```{{code-cell}}
:tags: [exercise]
{name}
```

+++ {{"tags": ["solution"]}}

Why it is so, what to notice, and one question to think about.

+++
'''


def new(kind: str, stem: str, name: str | None) -> int:
    """Write the three files of a chapter, or add an exercise to them. Returns the exit status.

    Nothing that exists is overwritten; an exercise is appended, and its slot is printed, since only the author
    knows where in the text it belongs.
    """
    source, references, registry = SOURCES / f"{stem}.md", SOURCES / f"{stem}.py", REGISTRIES / f"{stem}.py"
    if kind == "chapter":
        if not re.fullmatch(r"\d\d_[a-z0-9_]+", stem):
            print(f"[fix] A chapter is named like 12_when_a_probe_lies, not {stem!r}.")
            return 2
        if any(path.exists() for path in (source, references, registry)):
            print(f"[fix] {stem} exists already.")
            return 2
        title = stem[3:].replace("_", " ").capitalize()
        atomic_write(source, CHAPTER.format(title=title))
        atomic_write(references, REFERENCES.format(number=stem[:2]))
        atomic_write(registry, REGISTRY.format(number=stem[:2]))
        print(f"Made solutions/{stem}.md, solutions/{stem}.py and tests/exercises/{stem}.py.\nNext: python -m utils new exercise {stem} my_function")
        return 0
    if name is None or not name.isidentifier():
        print("[fix] Name the exercise's function: python -m utils new exercise 12_when_a_probe_lies my_function")
        return 2
    missing = [path for path in (source, references, registry) if not path.exists()]
    if missing:
        print(f"[fix] There is no chapter {stem}: {missing[0].name} is missing. Make it first: python -m utils new chapter {stem}")
        return 2
    if f"def {name}(" in references.read_text("utf-8"):
        print(f"[fix] {stem} has a function called {name} already.")
        return 2
    _append(references, REFERENCE.format(name=name))
    _append(registry, EXERCISE.format(name=name, dashes="-" * max(3, 100 - len(name))))
    print(f"Added {name} to solutions/{stem}.py and tests/exercises/{stem}.py. Put its slot into solutions/{stem}.md:\n{SLOT.format(name=name)}\n"
          "Then: python -m utils audit")
    return 0


def _append(path: Path, text: str) -> None:
    atomic_write(path, path.read_text("utf-8").rstrip() + "\n" + text)
