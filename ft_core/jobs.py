"""Long work as child processes that write events to their job folder. Never imports what it starts.

A child is `python -m ft_core work <job folder>` in a session of its own: it outlives the page, the tab and the app,
and whoever looks next finds it again by its folder.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import filelock
import psutil

from . import events, recipe
from .errors import FTError
from .events import EventWriter, JobView, Queued, State
from .workspace import Job, Project, Workspace, write_whole

CHILD_ENVIRONMENT = {
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TOKENIZERS_PARALLELISM": "false",
    # Threads that spin while they wait starve each other when the machine has other work, and it has: the page. Only
    # a training's do, and only while the cores are free (train/waiting.py).
    "OMP_WAIT_POLICY": "PASSIVE",
    "GOMP_SPINCOUNT": "0",
    # A training asks for the same gigabyte at each step. Given back to the system in between, it comes as a hundred
    # thousand empty pages each time, a tenth to a fifth of a step; so glibc keeps it, in large pages where there are.
    # Not what is over 32 MB, such as a head widened to be measured: the next one may not fit where it lay. It all lies
    # in one arena: a training is in a thread, and an arena of a thread's own is of 64 MB pieces that come and go.
    "GLIBC_TUNABLES": ":".join(
        f"glibc.malloc.{name}={value}"
        for name, value in {
            "arena_max": 1,
            "hugetlb": 1,
            "mmap_threshold": 2**25,
            "top_pad": 2**26,
            "trim_threshold": 2**40,
        }.items()
    ),
}


def create(project: Project, kind: str, recipe_: recipe.Recipe, arguments: dict | None = None) -> Job:
    """A job folder with its recipe and its first event, not yet started.

    `arguments` are what this kind of job needs beside the recipe, as plain JSON without secrets.
    """
    job = project.new_job()
    write_whole(job.recipe, recipe.dump(recipe_))
    write_whole(job.path / "arguments.json", json.dumps(arguments or {}))
    writer = EventWriter(job.events)
    writer.write(Queued(kind))
    writer.close()
    return job


def arguments(job: Job) -> dict:
    return json.loads((job.path / "arguments.json").read_text(encoding="utf-8"))


def start(job: Job, secrets: dict[str, str] | None = None) -> None:
    """Spawns the child. `secrets` go through its standard input, so that no file, argv or environment has them."""
    job.stop.unlink(missing_ok=True)
    home = job.project.workspace.home
    with job.log.open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "ft_core", "--home", str(home), "work", str(job.path)],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            start_new_session=True,
            env=child_environment(),
        )
    write_whole(job.pid, f"{process.pid}\n{psutil.Process(process.pid).create_time()}\n")
    with contextlib.suppress(BrokenPipeError):
        process.stdin.write(json.dumps(secrets or {}).encode())
        process.stdin.close()


def child_environment() -> dict[str, str]:
    """This process's environment, with ft_core importable from wherever the child stands."""
    root = str(Path(__file__).resolve().parents[1])
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, **CHILD_ENVIRONMENT, "PYTHONPATH": os.pathsep.join(paths)}


def front_door(*arguments: str) -> subprocess.Popen[str]:
    """`python -m ft_core --json ...` for an answer that somebody waits for: what it says is read by `heard`."""
    return subprocess.Popen(
        [sys.executable, "-m", "ft_core", "--json", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        start_new_session=True,  # Ctrl-C in the app's terminal is the app's to hear
        env=child_environment(),
    )


def heard(child: subprocess.Popen[str], said: str, patience_s: float, late: FTError, broken: FTError) -> Any:
    """Says `said` to a child's standard input, where secrets may stand too, and returns its result.

    Raises the child's own FTError when it refuses, `late` after `patience_s` seconds, which end the child, and
    `broken` when it ended without a word.
    """
    try:
        result, complaint = child.communicate(said, patience_s)
    except subprocess.TimeoutExpired:
        child.kill()
        child.communicate()
        raise late from None
    if not child.returncode:
        return json.loads(result.splitlines()[-1])
    # As the front door complains: `error: what` and `hint: what to do`, last of all.
    words = {key: rest for key, _, rest in (line.partition(": ") for line in complaint.splitlines())}
    if words.get("error", "internal") == "internal":
        raise broken
    raise FTError(words["error"], words.get("hint", ""))


def alive(job: Job) -> bool:
    """Whether the process in the pid file runs, and is the one that was started (not a later user of its id)."""
    try:
        pid, created = job.pid.read_text().split()
        process = psutil.Process(int(pid))
        return abs(process.create_time() - float(created)) < 0.01 and process.status() != psutil.STATUS_ZOMBIE
    except (OSError, ValueError, psutil.Error):
        return False


def view(job: Job) -> JobView:
    """The job as it stands: its events, and whether its process is still there."""
    return settle(job, events.fold(events.read(job.events)[0]))


def settle(job: Job, seen: JobView) -> JobView:
    """`seen`, corrected to interrupted when it says that the job runs and no process does."""
    if seen.state.over or alive(job):
        return seen
    if seen.state is State.QUEUED and not job.pid.exists():
        return seen
    latest = events.fold(events.read(job.events)[0])  # it may have ended between the two looks
    if latest.state.over:
        return latest
    if psutil.boot_time() > latest.updated_at:
        error, hint = "The machine was restarted while this ran.", ""
    else:
        error = "The process ended without a word: it was killed, by hand or by a system that ran out of memory."
        hint = " If memory is short, close what else uses it first."
    return replace(latest, state=State.INTERRUPTED, error=error, hint=f"Resume goes on from what was kept last.{hint}")


def stop(job: Job) -> None:
    """Asks the job to stop after its current step, keeping what it has. Returns at once."""
    job.stop.touch()


def stop_now(job: Job, wait_s: float = 5.0) -> None:
    """Ends the process without asking it; what its last checkpoint holds is kept.

    One that follows a rented machine is asked all the same: it ends that one, which costs money.
    """
    if not alive(job):
        return
    if job.rented.exists():
        stop(job)
        return
    process = psutil.Process(int(job.pid.read_text().split()[0]))
    family = [process, *process.children(recursive=True)]
    for member in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            member.kill()
    psutil.wait_procs(family, timeout=wait_s)


def resume(job: Job, secrets: dict[str, str] | None = None, finished_too: bool = False) -> None:
    """Starts a job again that was stopped, failed or interrupted.

    Raises FTError when it runs, and when it is finished and not `finished_too`.
    """
    state = view(job).state
    if state in (State.RUNNING, State.QUEUED) and alive(job):
        raise FTError(f"job {job.id} is {state}", "Wait for it, or stop it first.")
    if state is State.FINISHED and not finished_too:
        raise FTError(
            f"job {job.id} is finished", "Start a new one; a training can also be resumed with more steps (--steps)."
        )
    kind = view(job).kind
    job.pid.unlink(missing_ok=True)  # that process is gone; the job waits for another, and is not interrupted
    writer = EventWriter(job.events)
    writer.write(Queued(kind))
    writer.close()
    start(job, secrets)


def follow(job: Job, offset: int = 0) -> Iterator[events.Event]:
    """The job's events after byte `offset` as they come, until it is over."""
    yield from events.follow(job.events, lambda: view(job).state.over, offset)
    if (last := view(job)).state is State.INTERRUPTED:
        yield events.Failed(last.error, last.hint)


def wait(job: Job) -> JobView:
    while not (seen := view(job)).state.over:
        time.sleep(0.1)
    return seen


@contextlib.contextmanager
def machine(workspace: Workspace, holder: str, give_up: Callable[[], bool] = lambda: False) -> Iterator[bool]:
    """Holds the machine for heavy work: one job of an FT_HOME at a time, first come first served.

    Yields False when `give_up()` became true while waiting. The system frees the lock when the process ends, however
    it ends.
    """
    lock = filelock.FileLock(str(workspace.machine_lock))
    note = workspace.machine_lock.with_suffix(".json")
    with _place_in_line(workspace) as place:
        while not (held := _is_first(place) and _acquired(lock)):
            if give_up():
                break
            time.sleep(0.1)
    if not held:
        yield False
        return
    try:
        mine = {"holder": holder, "pid": os.getpid(), "created": psutil.Process().create_time()}
        write_whole(note, json.dumps(mine))
        yield True
    finally:
        note.unlink(missing_ok=True)
        lock.release()


def _acquired(lock: filelock.FileLock) -> bool:
    try:
        lock.acquire(timeout=0.5)
    except filelock.Timeout:
        return False
    return True


@contextlib.contextmanager
def _place_in_line(workspace: Workspace) -> Iterator[Path]:
    """A file that says who waits since when: its name is the start of this process (unix s), its id, its thread."""
    line = workspace.machine_line
    line.mkdir(exist_ok=True)
    place = line / f"{psutil.Process().create_time():017.3f} {os.getpid()} {threading.get_ident()}"
    place.touch()
    try:
        yield place
    finally:
        place.unlink(missing_ok=True)


def _is_first(place: Path) -> bool:
    """Whether nobody who waits longer is alive; the places of the dead are cleared away."""
    for before in sorted(place.parent.iterdir()):
        if before.name >= place.name:
            break
        created, pid, _ = before.name.split()
        with contextlib.suppress(psutil.NoSuchProcess):
            if abs(psutil.Process(int(pid)).create_time() - float(created)) < 0.01:
                return False
        before.unlink(missing_ok=True)
    return True


def machine_holder(workspace: Workspace) -> str:
    """Who holds the machine now ('' for nobody); a note left by a dead process does not count."""
    try:
        note = json.loads(workspace.machine_lock.with_suffix(".json").read_text())
        process = psutil.Process(note["pid"])
        return note["holder"] if abs(process.create_time() - note["created"]) < 0.01 else ""
    except (OSError, ValueError, KeyError, psutil.Error):
        return ""


def trained(project: Project, id: str = "") -> Job:
    """The training `id`, or the newest one that left a model. Raises FTError when there is none."""
    candidates = [project.job(id)] if id else project.jobs()
    for job in candidates:
        if any((job.adapter / name).exists() for name in ("adapter_model.safetensors", "trained.safetensors")):
            seen = view(job)
            if seen.kind == "train" and (
                seen.state in (State.FINISHED, State.STOPPED)
                or (seen.state.over and seen.result.get("adapter"))  # what came after it was finished went wrong
            ):
                return job
    if id:
        raise FTError(f"job {id} has left no model yet", "Wait until it is done, or resume it.")
    raise FTError(f"nothing is trained yet in {project.name}", "Train first.")
