"""Asks for an export: checks what is wanted and starts the job. Torch-free, the page calls it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .. import jobs, recipe
from ..data import repository
from ..errors import FTError
from ..train import methods
from ..workspace import Job, Project, on_a_space

TYPES = ("F16", "Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M")
"""What a GGUF's weights can be stored as, the largest first."""
KINDS = ("adapter", "merged", *(f"gguf:{t}" for t in TYPES), "ollama", "hub")
OLLAMA_TYPE = "Q4_K_M"


@dataclass(frozen=True)
class Wanted:
    """What an export job is asked for; it is the job's arguments.json."""

    train_job: str
    to: tuple[str, ...]
    name: str
    """Of the model, as it stands in file names, in Ollama and on the Hub."""
    out: str = ""
    """Folder that the files go to; '' is the export job's own."""
    host: str = ""
    """Address of a running Ollama that must take the model; '' tries the usual one."""
    repo: str = ""
    """user/name on the Hub; '' is the token's owner and `name`."""
    push: str = "adapter"
    """What goes to the Hub: adapter, merged or gguf:TYPE."""

    @classmethod
    def of(cls, job: Job) -> Wanted:
        arguments = jobs.arguments(job)
        return cls(**{**arguments, "to": tuple(arguments["to"])})

    @property
    def kinds(self) -> tuple[str, ...]:
        """All that is made: what is wanted, and what goes to the Hub."""
        return tuple(dict.fromkeys([*self.to, *([self.push] if "hub" in self.to else [])]))

    @property
    def types(self) -> tuple[str, ...]:
        """The GGUF types that are made, the largest first."""
        named = {k.removeprefix("gguf:") for k in self.kinds if k.startswith("gguf:")}
        return tuple(t for t in TYPES if t in named or (t == OLLAMA_TYPE and "ollama" in self.to))

    @property
    def file_stem(self) -> str:
        return re.sub(r"[^\w.-]+", "-", self.name, flags=re.ASCII).strip("-.") or "model"


def start(
    project: Project,
    train_job: Job,
    to: Sequence[str],
    out: Path | None = None,
    name: str = "model",
    options: dict[str, Any] | None = None,
    token: str = "",
) -> Job:
    """Starts the export of what `train_job` left as every kind in `to`, into `out` or the job's own folder.

    `options` may hold host (of an Ollama), repo (on the Hub) and push (what goes there: the adapter, where there is
    one, else merged); `token` is the Hub's and goes to the child by its standard input alone. Raises FTError when the
    training has no result, for a kind that is unknown or not for its method, and for a Hub without a token.
    """
    settings = recipe.load(train_job.recipe)
    method = settings.train.method
    given = {"push": "adapter" if methods.leaves_adapter(method) else "merged"}
    given |= {key: value for key, value in (options or {}).items() if value}
    wanted = Wanted(train_job.id, tuple(dict.fromkeys(to)), name, str(out or ""), **given)
    check(wanted, token)
    if "adapter" in wanted.kinds and not methods.leaves_adapter(method):
        raise FTError(
            f"there is no adapter to give: the method {method} changes weights of the model itself",
            "Take merged, the whole model, or a GGUF of it such as gguf:Q8_0.",
        )
    if not jobs.view(train_job).result.get("adapter"):
        raise FTError(f"the training {train_job.id} has left no model to export", "Let it run to its end, or stop it.")
    job = jobs.create(project, "export", settings, asdict(wanted))
    jobs.start(job, {"HF_TOKEN": token} if token else {})
    return job


def check(wanted: Wanted, token: str) -> None:
    """Raises FTError for an unknown kind, and for a Hub without a token."""
    if not wanted.to:
        raise FTError("an export needs a kind", f"Known kinds: {', '.join(KINDS)}.")
    for kind in wanted.to:
        if kind not in KINDS:
            raise FTError(f"there is no export to {kind!r}", f"Known kinds: {', '.join(KINDS)}.")
    if "hub" in wanted.to:
        if wanted.push not in KINDS or wanted.push in ("ollama", "hub"):
            raise FTError(
                f"{wanted.push!r} cannot go to the Hub", "It takes adapter, merged, or a GGUF such as gguf:Q8_0."
            )
        repository.check(wanted.repo, token)
    if "ollama" in wanted.to and wanted.host and on_a_space():
        raise FTError(
            "a Space cannot reach an Ollama on your machine",
            "Download the files and run the two commands that stand beside them.",
        )
