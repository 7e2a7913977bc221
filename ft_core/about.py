"""What a person says of a job, and taking jobs away: beside the job's events, never in them."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

from . import jobs
from .errors import FTError
from .workspace import Job, write_whole

LONGEST = {"name": 60, "note": 2000}
"""Characters."""


@dataclass(frozen=True)
class About:
    """A job's about.json."""

    name: str = ""
    note: str = ""
    number: int = 0
    """Of its kind in the project, kept once an earlier job was deleted; 0 follows from the job before."""


def read(job: Job) -> About:
    path = job.path / "about.json"
    return About(**json.loads(path.read_text(encoding="utf-8"))) if path.exists() else About()


def keep(job: Job, name: str | None = None, note: str | None = None) -> About:
    """Names a job, or notes something on it; what is None stays. Raises FTError for what is too long."""
    given = {key: text.strip() for key, text in (("name", name), ("note", note)) if text is not None}
    for key, text in given.items():
        if len(text) > LONGEST[key]:
            raise FTError(f"the {key} has {len(text)} characters", f"It may have {LONGEST[key]}.")
    given |= {"name": " ".join(given["name"].split())} if "name" in given else {}
    about = replace(read(job), **given)
    _write(job, about)
    return about


def numbers(oldest_first: Sequence[Job]) -> dict[str, int]:
    """The number of each job among those of its kind, by id: it stays when an earlier one is deleted."""
    found, last = {}, 0
    for job in oldest_first:
        last = read(job).number or last + 1
        found[job.id] = last
    return found


def delete(job: Job, family: Sequence[Job]) -> None:
    """Deletes a job and all that it made. Raises FTError while it is not over, or a later job needs it.

    `family` are the project's jobs of its kind, the oldest first: their numbers stay as they are.
    """
    if not jobs.view(job).state.over:
        raise FTError("it is not over yet, so it cannot be deleted", "Stop it first.")
    if job.rented.exists():
        raise FTError("it has a machine, or files, at Hugging Face still", "Resume it, and stop it then.")
    for other in job.project.jobs():
        if other != job and (use := _use(other, job)):
            raise FTError(f"it cannot be deleted: {use}", "Delete that one first, or let it come to its end.")
    number = numbers(family)
    for later in family[family.index(job) + 1 :][:1]:  # the numbers after this one follow from it
        _write(later, replace(read(later), number=number[later.id]))
    gone = job.project.path / f".{job.id}.deleted"
    os.replace(job.path, gone)  # at once for every reader; then the files, which may be many
    shutil.rmtree(gone)


def _use(other: Job, job: Job) -> str:
    """What `other` needs `job` for, in words; '' for nothing. Ids cannot be guessed, so whoever needs one names it."""
    named = [path for path in (other.recipe, other.path / "arguments.json") if path.exists()]
    if not any(job.id in path.read_text(encoding="utf-8") for path in named):
        return ""
    seen = jobs.view(other)
    if seen.kind == "train":  # a resume of that one, and its comparison, want what it began from
        return "a later training goes on from what it learned"
    return "" if seen.state.over else f"a job that is under way works with it ({seen.kind})"


def _write(job: Job, about: About) -> None:
    write_whole(job.path / "about.json", json.dumps(asdict(about), ensure_ascii=False))
