"""The child's side of a job: takes it up, writes its events, and has the last word when it fails."""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path

from . import events, jobs, recipe
from .errors import FTError
from .events import Event, EventWriter, Failed, Note, Progress, Stopped
from .workspace import BUILTIN_REPO, Job, Workspace, builtin_gguf


def job_at(home: Path, path: Path) -> Job:
    """The job whose folder is `path`: <home>/<owner>/<project>/jobs/<id>."""
    owner, project, _, id = path.resolve().relative_to(home).parts
    return Workspace.at(home, owner).project(project).job(id)


def work(job: Job) -> int:
    """Runs the job in this process until it is over. Returns the exit status: 0, or 3 when it failed."""
    secrets = json.loads(sys.stdin.read() or "{}") if not sys.stdin.isatty() else {}
    for name in (signal.SIGTERM, signal.SIGINT):  # whoever wants this process to end gets a stop that keeps the work
        signal.signal(name, lambda *_: job.stop.touch())
    os.nice(5)  # the page stays quick while this computes
    writer = EventWriter(job.events)
    try:
        for event in _run(job, secrets):
            writer.write(event)
        return 0
    except FTError as error:
        writer.write(Failed(error.message, error.hint))
    except Exception as error:  # the last resort: whatever it was, the page must hear of it
        traceback.print_exc()
        what = f"{type(error).__name__}: {error}".split("\n")[0][:300]
        writer.write(Failed(f"The job broke off: {what}", f"The whole trace is in {job.log.name} of the job folder."))
    finally:
        writer.close()
    return 3


def _run(job: Job, secrets: dict[str, str]) -> Iterator[Event]:
    view = events.fold(events.read(job.events)[0])
    light = view.kind in ("import", "publish", "audit")  # they wait for disks and networks, or are soon over
    light = light or (view.kind == "train" and recipe.load(job.recipe).compute.where != "here")
    if light or jobs.arguments(job).get("teacher_is_remote"):
        yield from _room(view.kind, job, secrets)
        return
    if holder := jobs.machine_holder(job.project.workspace):
        yield Note(f"Waits for its turn: {holder} has the machine.")
    with jobs.machine(job.project.workspace, f"{view.kind} {job.id}", job.stop.exists) as held:
        if not held:
            yield Stopped(view.step, view.result)
            return
        if view.kind == "generate" and builtin_gguf() is None:
            yield from make_builtin_gguf(job.project.workspace)
        yield from _room(view.kind, job, secrets)


def make_builtin_gguf(workspace: Workspace) -> Iterator[Event]:
    """For the built-in teacher where the wheel that holds it is not installed, as on a Space."""
    from .export import gguf
    from .train.builtin import ensure_builtin

    if workspace.builtin_f16.exists():
        return
    yield Progress(0, 0, what="getting the built-in model")
    folder = ensure_builtin(workspace, lambda share, what: None)
    part = workspace.builtin_f16.with_suffix(f".{os.getpid()}.part")
    for share in gguf.write_f16(folder, part, gguf.About("SmolLM2 135M", BUILTIN_REPO, "apache-2.0")):
        yield Progress(0, 0, what=f"writing it for llama.cpp, {share:.0%}")
    os.replace(part, workspace.builtin_f16)


def _room(kind: str, job: Job, secrets: dict[str, str]) -> Iterator[Event]:
    """The rooms are imported here, one at a time: they take seconds to load."""
    match kind:
        case "train" if recipe.load(job.recipe).compute.where == "hf_jobs":
            from .train import rented as room
        case "train":
            from .train import sft as room
        case "measure":
            from .train import measure as room
        case "generate":
            from .generate import synthesize as room
        case "audit":
            from .data import audit_job as room
        case "import":
            from .data import take as room
        case "publish":
            from .data import publish as room
        case "evaluate":
            from .compare import heldout as room
        case "export":
            from .export import run as room
        case _:
            raise FTError(f"no room does {kind!r}")
    return room.run(job, secrets)
