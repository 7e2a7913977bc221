"""Starts a training on several processes of this machine, hears them and ends them together. Torch-free.

The job's own process trains nothing then. It answers what the first of the others asks, and passes on what that says.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path

from .. import recipe
from ..errors import FTError
from ..events import Event
from ..machine import Machine, this_machine
from ..recipe import ComputeRecipe, Recipe
from ..workspace import Job
from . import checkpoints

Session = Callable[[Job, Callable[[Event], None], Callable[[float], bool]], int | None]
"""What one process does of a training; None once it went through, else the step after which memory ran out."""
WHAT_INSTEAD = (
    "Lower processes (compute; 1 always works), take the strategy ddp, or train on a machine that has what it wants."
)
"""The hint that goes with `why_not`."""


def why_not(wanted: Recipe, machine: Machine) -> str:
    """Why `machine` cannot train so on several processes, as a sentence; '' when it can."""
    many, train = wanted.compute.processes, wanted.train
    if many == 1:
        return ""
    if train.engine == "unsloth":
        return f"{many} processes are to train, and Unsloth is for one"
    if machine.gpu == "Apple GPU":
        return f"{many} processes are to train, and an Apple GPU is for one"
    if machine.gpu and many > machine.gpus:
        has = "one NVIDIA GPU" if machine.gpus == 1 else f"{machine.gpus} NVIDIA GPUs"
        return f"{many} processes are to train, and this machine has {has}: each takes one"
    if not machine.gpu and many > max(2, machine.cores):
        return f"{many} processes are to train, and this machine has {machine.cores} cores for them"
    if wanted.compute.strategy == "ddp":
        return ""
    if train.method not in SHARDED:
        return f"the strategy fsdp is for the methods {', '.join(SHARDED)}, not for {train.method}"
    if wanted.model.adapter:
        return "the strategy fsdp begins afresh, and does not go on from what was trained before"
    if train.learns == "preferences":
        return "the strategy fsdp is for answers and text, not for preferences"
    return ""


def share(machine: Machine, processes: int) -> Machine:
    """`machine` with the memory that each of so many processes has of it: each has a GPU of its own, or its part."""
    return machine if machine.gpu else replace(machine, memory_bytes=machine.memory_bytes // processes)


def shares(compute: ComputeRecipe, method: str) -> int:
    """Into how many parts the weights are shared out, of which each process keeps one."""
    return compute.processes if compute.strategy == "fsdp" and method in SHARDED else 1


def advice(wanted: Recipe, machine: Machine) -> list[tuple[str, str]]:
    """What the processes leave unused: each with what to do about it."""
    many, rows = wanted.compute.processes, wanted.train.batch_size
    found = []
    if many == 1 and machine.gpus > 1:
        what = f"this machine has {machine.gpus} NVIDIA GPUs, and one of them trains"
        found.append((what, f"Set processes to {machine.gpus} (compute): they share the rows of each step."))
    if rows < many:
        what = f"an update of the weights is of {rows} rows, so {many - rows} of {many} processes have none"
        found.append((what, f"Raise batch_size to {many} or more, or lower processes."))
    return found


SHARDED = ("lora", "rslora", "full")
"""Methods whose weights can be shared out among processes."""


def require(wanted: Recipe, machine: Machine) -> None:
    """Raises FTError when `machine` cannot train so."""
    if why := why_not(wanted, machine):
        raise FTError(why, WHAT_INSTEAD)


@dataclass(frozen=True)
class _Place:
    """Which of the processes this is."""

    rank: int
    count: int
    meeting: Path
    """Where they find each other."""


def full_at(session: Session, job: Job, say: Callable[[Event], None], must_end: Callable[[float], bool]) -> int | None:
    """As `session`, a function of a module, which each of the processes does; it is over when all are done, or one
    cannot go on. They are gone then, however it ended.

    Raises FTError as one of them says it, when one ended without a word, and when this machine cannot train so.
    """
    wanted = recipe.load(job.recipe)
    require(wanted, this_machine())
    count = wanted.compute.processes
    spawning = multiprocessing.get_context("spawn")
    processes: dict[Connection, BaseProcess] = {}
    with tempfile.TemporaryDirectory() as folder:
        try:
            for rank in range(count):
                ours, theirs = spawning.Pipe()
                place = _Place(rank, count, Path(folder) / "meeting")
                name = f"process {rank + 1} of {count}"
                process = spawning.Process(target=_train, args=(session, job, place, theirs), name=name)
                process.start()
                theirs.close()  # so that the end of the process is the end of what it says
                processes[ours] = process
            return _heard(processes, job, say, must_end)
        finally:
            for pipe, process in processes.items():
                process.kill()
                process.join()
                pipe.close()


def _heard(
    processes: dict[Connection, BaseProcess],
    job: Job,
    say: Callable[[Event], None],
    must_end: Callable[[float], bool],
) -> int | None:
    """Answers the processes until all of them are done, or the first of them cannot go on."""
    talking = dict(processes)
    while talking:
        for pipe in wait(list(talking)):
            try:
                said = pipe.recv()
                if isinstance(said, float):  # seconds: whether the end is wanted before so many are over
                    pipe.send(must_end(said))
                    continue
            except (EOFError, ConnectionError):
                process = talking.pop(pipe)
                process.join()
                if process.exitcode:
                    raise _ended(process, job) from None
                continue
            match said:
                case int(step):
                    return step
                case (message, hint):
                    raise FTError(message, hint)
                case event:
                    say(event)
    return None


def _ended(process: BaseProcess, job: Job) -> FTError:
    """The sentence for a process that said nothing before it ended; the others would wait for it for ever."""
    goes_on = f"Resume goes on {checkpoints.whence(checkpoints.last_whole(job))}."
    if process.exitcode == -signal.SIGKILL:
        why = f"{process.name} was killed, by hand or by a system that ran out of memory; the others ended with it"
        return FTError(why, f"If memory is short, close what else uses it first. {goes_on}")
    return FTError(
        f"{process.name} broke off, and the others ended with it",
        f"The whole trace is in {job.log.name} of the job folder. {goes_on}",
    )


def _train(session: Session, job: Job, place: _Place, pipe: Connection) -> None:
    """What each process does: the session that one process would do, and the first one is heard."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the job's own process hears it, and asks for a stop
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_the_job, daemon=True).start()
    from . import together

    together.join(place.meeting, place.rank, place.count)

    one_at_a_time = threading.Lock()  # copies elsewhere are told of by a thread of their own

    def say(event: Event) -> None:
        if place.rank == 0:
            with one_at_a_time:
                pipe.send(event)

    def must_end(within_s: float) -> bool:
        with one_at_a_time:
            pipe.send(within_s)
            return pipe.recv()

    try:
        step = session(job, say, must_end)
    except FTError as error:
        pipe.send((error.message, error.hint))
        sys.exit(1)
    if step is not None:
        pipe.send(step)
    together.leave()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # all is told and written; torch's threads now and then abort a Python that closes beneath them


def _end_with_the_job() -> None:
    """A job whose own process was killed trains on nowhere: nobody would hear it, and it would hold the machine."""
    wait([multiprocessing.parent_process().sentinel])
    os._exit(1)
