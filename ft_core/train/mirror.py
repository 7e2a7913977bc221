"""Copies of a training elsewhere: each checkpoint as it is written, and what came of it at the end.

A copy that fails is said and tried again with the next one; it never fails the training, nor does the training wait
for it but at its end.
"""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import fsspec

from ..data import addresses
from ..errors import FTError
from ..events import Note
from ..workspace import Job, on_a_space
from . import further

_PAUSES_S = (1.0, 5.0, 0.0)
"""After each attempt that failed; there are as many attempts."""
_LAST_S = 600.0
"""How long a training that is over waits for its last checkpoint to be copied."""


def check(targets: tuple[str, ...]) -> None:
    """Raises FTError for a place that nothing is copied to from here, before anything is trained."""
    if targets and on_a_space():
        raise FTError(
            "a Space copies to no other place: it would write there with its own rights",
            "Leave mirror empty here, and take the result from the Export tab.",
        )
    for target in filter(addresses.is_one, targets):
        addresses.check(target)
        try:
            fsspec.get_filesystem_class(target.partition("://")[0].lower())
        except (ValueError, ImportError) as error:
            raise FTError(
                f"{addresses.shown(target)} cannot be written to: {error}", "Change mirror, or install what it names."
            ) from None


class Mirror:
    """Copies one job's checkpoints, in a thread and one at a time; a newer one takes the place of one that waits.

    `targets` are fsspec addresses, or folders relative to the job's.
    """

    def __init__(self, job: Job, targets: tuple[str, ...], say: Callable[[Note], None]):
        self.job, self.targets, self.say = job, targets, say
        self.waiting: Path | None = None
        self.closing = False
        self.changed = threading.Condition()
        self.thread = threading.Thread(target=self._work, name=f"mirror {job.id}", daemon=True)
        if targets:
            self.thread.start()

    def offer(self, checkpoint: Path) -> None:
        """To be copied as it is now: what is taken are links, because the training may remove it at any time."""
        if not self.targets:
            return
        kept = self.job.path / ".mirror" / checkpoint.name
        shutil.rmtree(kept, ignore_errors=True)
        try:
            shutil.copytree(checkpoint, kept, copy_function=os.link)
        except OSError as error:  # shutil.Error is one; a disk that knows no links, or is full
            shutil.rmtree(kept, ignore_errors=True)
            reason = error.strerror or "its files cannot be linked"
            self.say(Note(f"{checkpoint.name} was not copied: {reason}", "warning"))
            return
        with self.changed:
            replaced, self.waiting = self.waiting, kept
            self.changed.notify()
        if replaced:
            shutil.rmtree(replaced)

    def close(self) -> None:
        """Waits for what was offered last."""
        if not self.targets:
            return
        with self.changed:
            self.closing = True
            self.changed.notify()
        self.thread.join(_LAST_S)
        if self.thread.is_alive():
            self.say(Note(f"The last checkpoint was not copied within {_LAST_S / 60:.0f} minutes.", "warning"))

    def _work(self) -> None:
        while True:
            with self.changed:
                while not self.waiting and not self.closing:
                    self.changed.wait()
                if not (checkpoint := self.waiting):
                    return
                self.waiting = None
            for note in _copied(self.job, self.targets, [(checkpoint, f"checkpoints/{checkpoint.name}")]):
                self.say(note)
            shutil.rmtree(checkpoint)


def copy_result(job: Job, targets: tuple[str, ...]) -> Iterator[Note]:
    """Copies recipe, events, report, what was learnt and what it went on from; says what could not be."""
    names = ("recipe.yaml", "events.jsonl", "report", "adapter", further.FOLDER)
    yield from _copied(job, targets, [(job.path / name, name) for name in names if (job.path / name).exists()])


def _copied(job: Job, targets: tuple[str, ...], what: list[tuple[Path, str]]) -> Iterator[Note]:
    for target in targets:
        for source, name in what:
            if reason := _attempted(job, target, source, name):
                yield Note(f"{name} was not copied to {_shown(target)}: {reason}", "warning")
                break


def _attempted(job: Job, target: str, source: Path, name: str) -> str:
    """'' once it is copied, else why it was not."""
    reason = ""
    for pause in _PAUSES_S:
        try:
            _copy(job, target, source, name)
            return ""
        except ImportError as error:
            return str(error)
        except addresses.failures() as error:
            reason = addresses.said(error)
            time.sleep(pause)
    return reason


def _copy(job: Job, target: str, source: Path, name: str) -> None:
    """A folder or file to <target>/<job>/<name>; of a checkpoint what makes it count goes last, then go older ones."""
    place = target if addresses.is_one(target) else str((job.path / target).resolve())
    system, root = fsspec.core.url_to_fs(place)
    into = f"{root.rstrip('/')}/{job.id}/{name}"
    files = [source] if source.is_file() else [path for path in source.rglob("*") if path.is_file()]
    for file in sorted(files, key=lambda file: (file.name == "trainer_state.json", file)):
        there = into if file == source else f"{into}/{file.relative_to(source).as_posix()}"
        system.makedirs(there.rpartition("/")[0], exist_ok=True)
        system.put_file(str(file), there)
    if name.startswith("checkpoints/"):
        folder = into.rpartition("/")[0]
        for other in system.ls(folder, detail=False):
            if other.rstrip("/").rpartition("/")[2] != source.name:
                system.rm(other, recursive=True)


def _shown(target: str) -> str:
    return addresses.shown(target) if addresses.is_one(target) else Path(target).name
