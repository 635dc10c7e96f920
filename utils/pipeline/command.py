"""`python -m utils pipeline`: run, resume and status, and what each says when something is wrong."""

from __future__ import annotations

import shutil
import sys
from dataclasses import replace
from pathlib import Path

from utils.pipeline.config import PipelineConfig, PipelineError, load_config
from utils.pipeline.cost import cost_text, estimate
from utils.pipeline.records import Run
from utils.pipeline.stages import run_pipeline, status
from utils.pipeline.workers import CONFIG_FILE


def pipeline(action: str, place: Path, *, stage: str | None = None, dry_run: bool = False) -> int:
    """One action of the command.

    Args:
        action: "run", "resume" or "status".
        place: a YAML file or, but for "run", a run's folder.
        stage: run this one alone.
        dry_run: print the cost, and do nothing.

    Returns: the exit status, 2 for what a user can set right; the reason stands on stderr.
    """
    try:
        config = _config(action, place)
        if action == "status":
            for name, state, details in status(config):
                print(f"{name:<10} {state:<10} {details}")
        elif dry_run:
            run = Run(config)
            costs = estimate(run)
            print(cost_text(costs, shutil.disk_usage(next(place for place in (run.folder, *run.folder.parents) if place.exists())).free))
        else:
            run = run_pipeline(config, only=stage)
            print(f"{'The run' if stage is None else stage} is finished: {run.at('card' if stage is None else stage)}")
    except PipelineError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"Stopped. Go on with: python -m utils pipeline resume {place}", file=sys.stderr)
        return 130
    return 0


def _config(action: str, place: Path) -> PipelineConfig:
    """The configuration at a place. Raises PipelineError when a folder holds no run."""
    if not place.is_dir():
        return load_config(place)
    if action == "run":
        raise PipelineError(f"{place} is a folder: `run` takes a YAML file; `resume` goes on with the run in a folder.")
    if not (place / CONFIG_FILE).exists():
        raise PipelineError(f"{place} holds no run: it has no {CONFIG_FILE}. Begin one with: python -m utils pipeline run CONFIG")
    return replace(load_config(place / CONFIG_FILE), folder=str(place.resolve()))  # the folder may have been moved
