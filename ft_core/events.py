"""What long work says while it runs: typed events, one JSON object a line in `events.jsonl`.

A job's process writes them; every page, the command line and the tests read the same file and fold it into the
same JobView. Nothing else about a job's progress is kept anywhere.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field, fields, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from .errors import FTError


def _now() -> float:
    return field(default_factory=time.time, kw_only=True)  # type: ignore[return-value]


@dataclass(frozen=True)
class Queued:
    """The job folder exists and waits for its turn. `kind` is train, measure, generate, evaluate, export, ..."""

    kind: str
    at: float = _now()


@dataclass(frozen=True)
class Started:
    """A process took the job up, for the first time or again; `total` is in steps of that kind of work."""

    total: int = 0
    at: float = _now()


@dataclass(frozen=True)
class Progress:
    """`step` of `total` is done; `eta_s` is what is left, in seconds, None while unknown."""

    step: int
    total: int
    eta_s: float | None = None
    what: str = ""
    at: float = _now()


@dataclass(frozen=True)
class Metric:
    """Figures of one step. Names carry no unit: loss is nats a trained token, memory is bytes, rates are a second."""

    step: int
    values: dict[str, float]
    at: float = _now()


@dataclass(frozen=True)
class Sample:
    """What the model answers to a probe prompt at `step`; step 0 is before the training: the untouched base, or what
    is trained further."""

    step: int
    prompt: str
    answer: str
    at: float = _now()


@dataclass(frozen=True)
class Note:
    """Something the person should know. `level` is info or warning."""

    text: str
    level: str = "info"
    at: float = _now()


@dataclass(frozen=True)
class Finished:
    """The job is done; `result` has the keys that the command line prints."""

    result: dict[str, Any]
    at: float = _now()


@dataclass(frozen=True)
class Failed:
    """The job could not go on; what and what to do, as in FTError."""

    message: str
    hint: str = ""
    at: float = _now()


@dataclass(frozen=True)
class Stopped:
    """The person stopped the job at `step`; what was done until then is kept. `result` as in Finished."""

    step: int
    result: dict[str, Any] = field(default_factory=dict)
    at: float = _now()


Event = Queued | Started | Progress | Metric | Sample | Note | Finished | Failed | Stopped
_TYPES: dict[str, type] = {
    t.__name__.lower(): t for t in (Queued, Started, Progress, Metric, Sample, Note, Finished, Failed, Stopped)
}


def to_dict(event: Event) -> dict[str, Any]:
    return {"event": type(event).__name__.lower(), **asdict(event)}


def line(event: Event) -> str:
    """As it stands in events.jsonl, without the line's end."""
    return json.dumps(to_dict(event), ensure_ascii=False)


def from_dict(value: dict[str, Any]) -> Event:
    """Raises FTError that names an unknown event or key."""
    kind = _TYPES.get(value.get("event", ""))
    if kind is None:
        raise FTError(f"unknown event {value.get('event')!r}")
    if unknown := set(value) - {f.name for f in fields(kind)} - {"event"}:
        raise FTError(f"the event {value['event']} has an unknown key: {', '.join(sorted(unknown))}")
    return kind(**{k: v for k, v in value.items() if k != "event"})


class EventWriter:
    """Appends events to a file, each in one write and flushed, so that readers never wait."""

    def __init__(self, path: Path):
        _drop_torn_tail(path)
        self._file = path.open("ab")

    def write(self, event: Event) -> None:
        self._file.write(f"{line(event)}\n".encode())
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def _drop_torn_tail(path: Path) -> None:
    """A process killed in the middle of a write leaves half a line; the step it spoke of is done again."""
    if not path.exists():
        return
    data = path.read_bytes()
    whole = data.rfind(b"\n") + 1
    if whole < len(data):
        os.truncate(path, whole)


def read(path: Path, offset: int = 0) -> tuple[list[Event], int]:
    """The whole events after byte `offset`, and the offset to go on from. A missing file has none."""
    if not path.exists():
        return [], offset
    with path.open("rb") as file:
        file.seek(offset)
        data = file.read()
    whole = data.rfind(b"\n") + 1
    return [from_dict(json.loads(line)) for line in data[:whole].splitlines()], offset + whole


def last(path: Path) -> Event | None:
    """The last whole event; None where there is none. Only the end of the file is read, however long it is."""
    if not path.exists():
        return None
    size, width = path.stat().st_size, 1 << 12
    with path.open("rb") as file:
        while True:
            file.seek(max(0, size - width))
            lines = file.read(min(size, width)).rpartition(b"\n")[0].split(b"\n")
            if len(lines) > 1 or width >= size:
                return from_dict(json.loads(lines[-1])) if lines[-1] else None
            width *= 4


class State(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    FINISHED = "finished"
    FAILED = "failed"
    STOPPED = "stopped"
    INTERRUPTED = "interrupted"
    """It was running and its process is gone: killed, or the machine went down. It can be resumed."""

    @property
    def over(self) -> bool:
        return self not in (State.QUEUED, State.RUNNING)


@dataclass(frozen=True)
class JobView:
    """A job as a page shows it: the fold of its events."""

    kind: str = ""
    state: State = State.QUEUED
    step: int = 0
    total: int = 0
    eta_s: float | None = None
    what: str = ""
    metrics: dict[int, dict[str, float]] = field(default_factory=dict)
    """Figures by step. A step done again after a resume replaces what it said the first time."""
    samples: tuple[Sample, ...] = ()
    notes: tuple[Note, ...] = ()
    result: dict[str, Any] = field(default_factory=dict)
    error: str = ""
    hint: str = ""
    queued_at: float = 0.0
    updated_at: float = 0.0


def _apply(view: JobView, event: Event) -> JobView:
    view = replace(view, updated_at=event.at)
    match event:
        case Queued(kind=kind, at=at):
            return replace(view, kind=kind, queued_at=view.queued_at or at, state=State.QUEUED)
        case Started(total=total):
            return replace(view, state=State.RUNNING, total=total or view.total, error="", hint="", eta_s=None)
        case Progress(step=step, total=total, eta_s=eta_s, what=what):
            return replace(view, state=State.RUNNING, step=step, total=total, eta_s=eta_s, what=what)
        case Metric(step=step, values=values):
            view.metrics[step] = {**view.metrics.get(step, {}), **values}
            return view
        case Sample():
            kept = tuple(s for s in view.samples if (s.step, s.prompt) != (event.step, event.prompt))
            return replace(view, samples=(*kept, event))
        case Note():
            return replace(view, notes=(*view.notes, event))
        case Finished(result=result):
            return replace(view, state=State.FINISHED, result=result, eta_s=None, what="")
        case Failed(message=message, hint=hint):
            return replace(view, state=State.FAILED, error=message, hint=hint, eta_s=None, what="")
        case Stopped(step=step, result=result):
            return replace(view, state=State.STOPPED, step=step, result=result, eta_s=None, what="")


def fold(events: Iterable[Event], view: JobView = JobView()) -> JobView:
    """The picture that `events` paint, from `view` on."""
    view = replace(view, metrics=dict(view.metrics))  # one copy here, so that ten thousand metrics stay linear
    for event in events:
        view = _apply(view, event)
    return view


def follow(path: Path, over: Callable[[], bool], offset: int = 0, poll_s: float = 0.2) -> Iterator[Event]:
    """Events after byte `offset` as they are written, until `over()` is true and the file is read to its end."""
    while True:
        last = over()
        found, offset = read(path, offset)
        yield from found
        if last:
            return
        if not found:
            time.sleep(poll_s)
