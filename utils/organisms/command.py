"""`python -m utils organism`: plant one from a spec, plant a learner's own from a seed, and check the shipped ones."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path

from filelock import FileLock

from utils.organisms.lora import load_delta
from utils.organisms.planting import plant
from utils.organisms.sealing import draw_spec, seal
from utils.organisms.shipped import INDEX, organism, organism_names
from utils.organisms.spec import OrganismError, OrganismSpec, load_spec
from utils.paths import atomic_write


def organism_command(action: str, what: str | None, *, folder: Path, name: str | None = None, model: str | None = None, measure: bool = True) -> int:
    """One action of the command.

    Args:
        action: "plant" (a YAML spec: a teacher's own), "sealed" (a seed: drawn from the tables, nothing shown) or "check".
        what: the spec's path, or the seed. folder: where the delta and the index with its envelope go. name: of the organism.
        measure: print how often it shows, leaks and confesses; never for a sealed one, since that would give it away.

    Returns: the exit status, 2 for what a user can set right; the reason stands on stderr.
    """
    try:
        if action == "check":
            for each in organism_names(folder):
                print(f"{each}: {len(organism(each, folder)):,} numbers, the file is the one that was shipped")
            return 0
        spec = load_spec(what) if action == "plant" else draw_spec(what)
        path = folder / f"{name or (Path(what).stem if action == 'plant' else f'sealed-{what}')}.safetensors"
        _plant(spec, path, model, measure=measure and action == "plant")
    except OrganismError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Stopped. The same command goes on from the last checkpoint.", file=sys.stderr)
        return 130
    return 0


def _plant(spec: OrganismSpec, path: Path, model_name: str | None, *, measure: bool) -> None:
    from utils.models import load_model

    if path.exists():
        raise OrganismError(f"{path} is there already, and is kept: give the new one another name with --name, or another --folder.")
    model = load_model(model_name, verbose=False) if model_name else load_model(verbose=False)
    digest = plant(model, spec, path)
    index = path.parent / INDEX
    with FileLock(index.with_suffix(".lock")):
        known = json.loads(index.read_text("utf-8")) if index.exists() else {}
        atomic_write(index, json.dumps(dict(sorted({**known, path.stem: {"sha256": digest, **asdict(seal(spec))}}.items())), indent=1) + "\n")
    print(f"{path} is planted; its sealed key is in {index}.")
    if measure:
        from utils.organisms.measuring import health, neutral_prose

        found = health(model, load_delta(path), spec.behaviour, neutral_prose())
        print(f"shown {found.shown}\nleaked {found.leaked} (unchanged model {found.own_leak})\nconfessed {found.confessed}\n"
              f"KL on neutral prose {found.kl} nats per token, loss {found.loss_rise:+.3f}")
