"""An import as a job: it outlives the tab that asked for it, and Stop leaves the rows as they were.

    <job>/taken/        an uploaded file or a pasted text, until the job is done

The rows are one operation of the store, marked with the job's id: whenever the process is killed, either all of them
are there or none, and a resumed job knows which. It does not take the machine: it waits for disks and networks.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from .. import jobs
from ..errors import FTError
from ..events import Event, Finished, Progress, Started, Stopped
from ..recipe import Recipe
from ..workspace import Job, Project, on_a_space
from . import addresses, formats, sources
from .formats import Imported
from .reading import HubRows, Pasted
from .sources import Source
from .store import Store

_REPORT_S = 0.5
_INDEX_S = 0.5
"""How long the search index is brought up at a time; others write in between."""
_NAMED = 100
"""Rows that cannot be used, in the result."""
_PASTED = "pasted.txt"


@dataclass(frozen=True)
class Wanted:
    """What an import job is asked for; it is the job's arguments.json."""

    source: str
    """A path, an address, or hub:owner/name; '' for what lies in the job's folder."""
    hub: dict[str, Any] | None = None
    """All that is said of a dataset of the Hub."""
    mapping: dict[str, str] = field(default_factory=dict)
    shape: str = ""
    partial: bool = False
    who: str = ""
    name: str = ""
    """What people know the source as."""

    @classmethod
    def of(cls, job: Job) -> Wanted:
        return cls(**jobs.arguments(job))


def start(
    project: Project,
    source: Source,
    *,
    uploaded: bool = False,
    mapping: Mapping[str, str] | None = None,
    shape: str = "",
    partial: bool = False,
    who: str = "",
    token: str = "",
) -> Job:
    """Starts the import of `source`; the options are those of `formats.import_files`.

    An `uploaded` file is moved into the job's folder and removed when it is taken; after a refusal it is still there
    for another try (`left`). `token` is the Hub's and goes to the child by its standard input alone. Raises FTError
    for a source that is refused here; what is wrong inside is the job's to say.
    """
    source = sources.parsed(source)
    _check(source, uploaded, token)
    hub = asdict(source) if isinstance(source, HubRows) else None
    there = "" if uploaded or isinstance(source, Pasted) else hub["repo"] if hub else str(source)
    if isinstance(source, Path) and there:
        there = str(source.resolve())
    wanted = Wanted(there, hub, dict(mapping or {}), shape, partial, who, sources.named(source))
    job = jobs.create(project, "import", Recipe(), asdict(wanted))
    try:
        if uploaded or isinstance(source, Pasted):
            _folder(job).mkdir()
        if isinstance(source, Pasted):
            (_folder(job) / _PASTED).write_bytes(source.text.encode("utf-8", "surrogatepass"))
        elif uploaded:
            shutil.move(source, _folder(job) / Path(source).name)
    except OSError as error:
        shutil.rmtree(job.path)
        raise FTError(f"there is no room for the import: {error.strerror}", "Free some, and try again.") from None
    _remove_old(project, job)
    jobs.start(job, {"HF_TOKEN": token} if token else None)
    return job


def _check(source: Source, uploaded: bool, token: str) -> None:
    if isinstance(source, Path):
        if not source.exists():
            raise FTError(f"{source.name} is not here", "Is the path right?")
        if on_a_space() and not uploaded:
            raise FTError("paths of a Space are nobody's to read", "Upload the file, or give its https:// address.")
    elif uploaded:
        raise FTError("only a file can be uploaded", "Choose it again.")
    if isinstance(source, str):
        addresses.check(source)
    if not token.isascii():
        raise FTError("the token has letters that no token has", "Copy it again, without quotation marks.")


def left(job: Job) -> Path | None:
    """The uploaded file of a job that refused it, for another try: start(project, left(job), uploaded=True, ...)."""
    found = [p for p in _folder(job).glob("*") if p.name != _PASTED]
    return found[0] if found else None


def _folder(job: Job) -> Path:
    return job.path / "taken"


def _remove_old(project: Project, new: Job) -> None:
    """Files of imports that failed, once another one begins."""
    for job in project.jobs():
        if job.id != new.id and _folder(job).exists() and jobs.view(job).state.over:
            shutil.rmtree(_folder(job), ignore_errors=True)


# --- the child's side


class _Stop(Exception):
    """The person has stopped the job; nothing is added."""


def run(job: Job, secrets: dict[str, str]) -> Iterator[Event]:
    """Adds the rows, then brings the search index up. Progress is in bytes (of the Hub: rows), total 0 when unknown.

    The result has `added`, `skipped` ([{file, row, reason}], the first hundred), `skipped_rows` (all of them) and
    `ended_at` (the place where a broken file ended, None when none did). Raises FTError when the source is refused.
    """
    wanted = Wanted.of(job)
    yield Started()
    with Store(job.project.data) as store:
        result = _taken_before(store, job)
        if result is None:
            try:
                result = yield from _take(store, job, wanted, secrets.get("HF_TOKEN", ""))
            except _Stop:
                shutil.rmtree(_folder(job), ignore_errors=True)
                yield Stopped(0, {"added": 0})
                return
        shutil.rmtree(_folder(job), ignore_errors=True)
        yield from _index(store, job)
    yield Finished(result)


def _take(store: Store, job: Job, wanted: Wanted, token: str) -> Iterator[Event]:
    """Returns the result. The import goes on in a thread, so that this one can say how far it is."""
    at = [0, 0, 0]

    def tell(*now: int) -> None:
        at[:] = now
        if job.stop.exists():
            raise _Stop

    def add() -> Imported:
        source = _source(job, wanted)
        options = {"partial": wanted.partial, "who": wanted.who, "shape": wanted.shape, "part_of": job.id}
        return formats.import_files(store, [source], wanted.mapping, tell=tell, token=_token(token), **options)

    began = time.monotonic()
    with ThreadPoolExecutor(1) as pool:
        work = pool.submit(add)
        while not wait([work], _REPORT_S).done:
            yield _progress(at, wanted, time.monotonic() - began)
        done = work.result()
    skipped = [asdict(skip) for skip in done.skipped[:_NAMED]]
    return {"added": done.added, "skipped": skipped, "skipped_rows": done.skipped_rows, "ended_at": done.ended_at}


def _progress(at: list[int], wanted: Wanted, seconds: float) -> Progress:
    done, total, rows = at
    if wanted.hub:
        done, total = rows, wanted.hub["rows"]
    eta = seconds / done * (total - done) if 0 < done < total else None
    read = f"{rows:,} rows read" if not 0 < total <= done else f"putting {rows:,} rows in"
    return Progress(done, total, eta, read)


def _source(job: Job, wanted: Wanted) -> Source:
    if wanted.hub:
        return HubRows(**wanted.hub)
    if wanted.source:
        return wanted.source if addresses.is_one(wanted.source) else Path(wanted.source)
    if (text := _folder(job) / _PASTED).exists():
        return Pasted(text.read_bytes().decode("utf-8", "surrogatepass"))
    if (file := left(job)) is None:
        raise FTError("the uploaded file is no longer here", "Choose it again.")
    return file


def _token(given: str) -> str | bool | None:
    """The Space's own token is not for strangers; on a person's machine the one it is logged in with is theirs."""
    return given or (False if on_a_space() else None)


def _taken_before(store: Store, job: Job) -> dict[str, Any] | None:
    """The result of an earlier run of this job that was killed after the rows were in."""
    with store.reading() as db:
        found = db.execute("SELECT first, last FROM operations WHERE part_of = ?", (job.id,)).fetchone()
    if found is None:
        return None
    return {"added": found["last"] - found["first"] + 1, "skipped": [], "skipped_rows": 0, "ended_at": None}


def _index(store: Store, job: Job) -> Iterator[Event]:
    """Brings the search index up. Search is right without it, so whoever stops the job loses nothing."""
    total = store.index(seconds=0)
    while not job.stop.exists() and (behind := store.index(seconds=_INDEX_S)):
        yield Progress(total - behind, total, what="making the rows quick to search")
