"""The audit as a job: a child process that can be watched and stopped. What it found until then is kept.

It does not wait for the machine: it is over in a minute or two, and gives way to other work (work.py).
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from .. import jobs, recipe
from ..events import Event, Finished, Progress, Started, Stopped
from ..recipe import Recipe
from ..render import Renderer
from ..workspace import Job, Project
from . import audit, quality
from .store import Store

KIND = "audit"
_REPORT_S = 0.5


def start(project: Project, wanted: Recipe, tokenizer: Path | None) -> Job:
    """Returns once the process runs; one that runs already is taken.

    `tokenizer` is a folder with the base model's tokenizer and template; without it no tokens are counted.
    """
    for job in project.jobs():
        if not (seen := jobs.view(job)).state.over and seen.kind == KIND:
            return job
    job = jobs.create(project, KIND, wanted, {"tokenizer": str(tokenizer.resolve()) if tokenizer else ""})
    jobs.start(job)
    return job


def run(job: Job, secrets: dict[str, str]) -> Iterator[Event]:
    """The result has `ready`, `flags` and `diversity`, as `data check` prints them."""
    folder = jobs.arguments(job)["tokenizer"]
    renderer = Renderer.of(Path(folder)) if folder else None
    limit = recipe.load(job.recipe).train.max_length
    yield Started()
    with Store(job.project.data) as store, contextlib.closing(audit.steps(store, renderer, limit)) as steps:
        for step, eta_s in paced(steps):
            yield Progress(step.done, step.total, eta_s, step.what)
            if job.stop.exists():
                yield Stopped(step.done)
                return
        yield Finished(result(quality.check(store, renderer, limit, look=0)))


def result(found: quality.Check) -> dict[str, Any]:
    diversity = asdict(found.diversity) if found.diversity else None
    return {"ready": found.ready, "flags": found.flags, "diversity": diversity}


def paced(steps: Iterator[audit.Step]) -> Iterator[tuple[audit.Step, float | None]]:
    """Not more than a few a second, each with the seconds that are left of what it does."""
    what, began, told = "", 0.0, 0.0
    for step in steps:
        now = time.monotonic()
        if step.what != what:
            what, began, told = step.what, now, 0.0
        if now - told >= _REPORT_S or step.done == step.total:
            told = now
            yield step, (now - began) / step.done * (step.total - step.done) if step.done else None
