"""What came of a training on a rented machine is fetched, compared with the Hub's files, and ends the job here too."""

from __future__ import annotations

import json
import math
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from huggingface_hub import JobInfo, JobStage, errors
from huggingface_hub.utils import httpx

from .. import events
from ..data import repository
from ..errors import FTError
from ..events import Event, Failed, Finished, Note, Stopped
from ..recipe import BUILTIN, Recipe
from ..workspace import Job, write_whole
from . import base, checkpoints, far, mirror, models, parcel, report
from .rent import Rent, Renting, again


def bring_home(renting: Renting, rent: Rent, step: int) -> Iterator[Event]:
    """What the machine made, then its last word; the repository goes once all is here.

    `step` is the last one that was heard of. Raises FTError when it failed there, and ConnectionError when files did
    not arrive whole.
    """
    job, wanted = renting.job, renting.wanted
    ended = again(lambda: renting.api.inspect_job(job_id=rent.id, namespace=rent.namespace))
    yield renting.progress(step, "bringing home what was learned")
    heard_before = {events.line(event) for event in events.read(job.events)[0]}
    with tempfile.TemporaryDirectory(dir=job.path, prefix=".home-") as scratch:
        there = again(lambda: _fetched(renting, rent, Path(scratch)))
        missed, last = _said_there(there / "events.jsonl", heard_before)
        yield from missed
        parcel.take(there, job, wanted)
    yield from _forgotten(renting, rent)
    spent = _spent(renting, ended)
    if spent["rented_minutes"]:
        yield Note(
            f"{renting.hardware.title} ran for {spent['rented_minutes']:.0f} minutes, about "
            f"${spent['rented_usd']:.2f} in all."
        )
    if isinstance(last, Failed):
        raise FTError(last.message, last.hint)
    if last is None:
        if not job.stop.exists():
            raise _broken(ended, wanted, job)
        last = _adopted(job, wanted, step)
    at_home = {"job": job.id, "adapter": str(job.adapter)} if last.result.get("adapter") else {}
    result = {**last.result, **at_home, "base": _base(job, wanted), "rented": renting.hardware.name, **spent}
    last = replace(last, result=result, at=time.time())
    if "steps" in result:
        report.write(job, last)
    yield from mirror.copy_result(job, wanted.train.mirror)
    yield last


def _fetched(renting: Renting, rent: Rent, scratch: Path) -> Path:
    """The job's folder as the Hub has it. Raises ConnectionError when files did not arrive whole."""
    inside = far.folder_of(renting.job.id)
    renting.api.snapshot_download(
        rent.repo,
        repo_type=far.KIND,
        local_dir=scratch,
        allow_patterns=[f"{inside}/*"],
        ignore_patterns=["*/dataset.parquet"],
    )
    shutil.rmtree(scratch / ".cache", ignore_errors=True)  # the client's own
    same, files = repository.arrived(renting.api, rent.repo, far.KIND, scratch)
    if same < files:
        raise ConnectionError(f"{files - same} of {files} files did not arrive whole")
    return scratch / inside


def _said_there(path: Path, before: set[str]) -> tuple[list[Event], Finished | Stopped | Failed | None]:
    """Events that the log did not bring, and the last word of the training; None when it had none."""
    found = [event for event in events.read(path)[0] if events.line(event) not in before]
    ends = [event for event in found if isinstance(event, Finished | Stopped | Failed)]
    missed = [event for event in found if not isinstance(event, Finished | Stopped | Failed | events.Queued)]
    return missed, ends[-1] if ends else None


def _forgotten(renting: Renting, rent: Rent) -> Iterator[Note]:
    try:
        again(lambda: renting.api.delete_repo(rent.repo, repo_type=far.KIND, missing_ok=True))
    except (errors.HfHubHTTPError, httpx.HTTPError, ConnectionError):
        yield Note(f"{rent.repo} could not be removed; delete it on {renting.api.endpoint}.", "warning")
    renting.job.rented.unlink(missing_ok=True)


def _spent(renting: Renting, ended: JobInfo) -> dict[str, float]:
    """What the rents of this job have cost so far, by the minutes that the machines ran."""
    seconds = ended.durations.running_secs if ended.durations else None
    if seconds is None and ended.started_at and ended.finished_at:
        seconds = (ended.finished_at - ended.started_at).total_seconds()
    minutes = math.ceil((seconds or 0) / 60)
    path = renting.job.path / "report" / "rents.json"
    path.parent.mkdir(exist_ok=True)
    rents = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    rents.append({"id": ended.id, "hardware": renting.hardware.name, "minutes": minutes,
                  "usd": minutes * renting.hardware.job_usd / 60})  # fmt: skip
    write_whole(path, json.dumps(rents))
    return {"rented_minutes": sum(r["minutes"] for r in rents), "rented_usd": sum(r["usd"] for r in rents)}


def _base(job: Job, wanted: Recipe) -> str:
    """The folder of the base where it is on this machine, else what a recipe calls it."""
    model, workspace = wanted.model, job.project.workspace
    if model.base == BUILTIN:
        return str(workspace.builtin_model) if workspace.builtin_model.exists() else BUILTIN
    folder = job.path / model.base
    return str(folder.resolve()) if folder.is_dir() else model.base


def _adopted(job: Job, wanted: Recipe, step: int) -> Stopped:
    """The last word for a machine that was cancelled before it could say one: what its last checkpoint holds."""
    last = checkpoints.last_whole(job)
    if last is None:
        return Stopped(step, {})
    from . import weights  # torch

    model = wanted.model
    folder = models.tokenizer_folder(model.base, model.revision, job.project.workspace, job.path)
    weights.adopt(last, folder, base.public_name(model.base, job.path), wanted.train, job.adapter)
    step = checkpoints.step_of(last)
    result: dict[str, Any] = {
        "state": "stopped",
        "steps": step,
        "adapter": str(job.adapter),
        "heldout_before": None,
        "heldout_after": None,
        "best_step": None,
        "kept_step": step,
    }
    return Stopped(step, result)


def _broken(ended: JobInfo, wanted: Recipe, job: Job) -> FTError:
    """A machine that was given back without a last word."""
    last = checkpoints.last_whole(job)
    goes_on = f"Resume goes on {checkpoints.whence(last)}, on another machine."
    said = ended.status.message or ""
    hours = wanted.compute.hours
    ran = ended.durations.running_secs if ended.durations else None
    if "timeout" in said.lower() or (ran or 0) >= 3600 * hours - 60:
        return FTError(
            f"the {hours:g} hours of the rented machine were over before the training was",
            f"Raise hours in the recipe. {goes_on}",
        )
    if ended.status.stage == JobStage.CANCELED:
        return FTError("the rented machine was cancelled at Hugging Face", goes_on)
    return FTError(
        f"the rented machine ended without a word{f': {said}' if said else ''}",
        f"What it said is on {ended.url}. {goes_on}",
    )
