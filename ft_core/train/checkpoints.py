"""Checkpoints of a job: which ones count, which are kept, and whether there is room for another. Torch-free."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path

from ..errors import FTError
from ..workspace import Job

KEPT = 2
"""The newest so many are kept, and the best one beside them."""
_STATES = ("optimizer.pt", "scheduler.pt", "rng_state.pth")


def step_of(checkpoint: Path) -> int:
    return int(checkpoint.name.rpartition("-")[2])


def folder(job: Job, step: int) -> Path:
    return job.checkpoints / f"checkpoint-{step}"


def last_whole(job: Job) -> Path | None:
    """The newest checkpoint that was written to its end."""
    return next((checkpoint for checkpoint in _newest_first(job) if is_whole(checkpoint)), None)


def remove_torn(job: Job) -> list[int]:
    """Removes what was not written to its end, or was damaged since; the steps of these."""
    torn = [checkpoint for checkpoint in _newest_first(job) if not is_whole(checkpoint)]
    for checkpoint in torn:
        shutil.rmtree(checkpoint)
    return sorted(map(step_of, torn))


def prune(job: Job, best: int | None, keep: int = KEPT) -> None:
    """Removes all but the newest `keep` whole checkpoints and the one of the step `best`."""
    whole = [checkpoint for checkpoint in _newest_first(job) if is_whole(checkpoint)]
    for checkpoint in whole[keep:]:
        if step_of(checkpoint) != best:
            shutil.rmtree(checkpoint)


def make_room(job: Job, step: int, best: int | None, most: int) -> None:
    """Raises FTError when the disk has no room for the checkpoint of `step`; older ones go before it comes to that.

    It is taken to be as large as the last one; `most` bytes where it is the first.
    """
    last = last_whole(job)
    wanted = round(1.1 * _size(last)) if last else most
    if shutil.disk_usage(job.path).free < wanted:
        prune(job, best, keep=1)
    if (free := shutil.disk_usage(job.path).free) < wanted:
        raise FTError(
            f"the disk is full: the checkpoint of step {step} takes {_megabytes(wanted)}, {_megabytes(free)} are free",
            f"Make room, then resume: it goes on {whence(last)}.",
        )


def whence(last: Path | None) -> str:
    """Where a training goes on, in words."""
    return f"from the checkpoint of step {step_of(last)}" if last else "from the beginning"


def is_whole(checkpoint: Path) -> bool:
    """transformers writes trainer_state.json last: with it, everything before it was there too.

    Files that were cut short since, by a machine that went down before the disk had them, are told by their own
    tables: safetensors begins with one that says where the file ends, torch's files end with one.
    """
    try:
        state = json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
        weights = _weights(checkpoint)
        return (
            state["global_step"] == step_of(checkpoint)
            and bool(weights)
            and all(map(_is_whole_safetensors, weights))
            and all(zipfile.is_zipfile(checkpoint / name) for name in _STATES)
        )
    except (OSError, ValueError, KeyError):
        return False


def _newest_first(job: Job) -> list[Path]:
    return sorted(job.checkpoints.glob("checkpoint-*"), key=step_of, reverse=True)


def _weights(checkpoint: Path) -> list[Path]:
    """The files that hold the weights: an adapter's, or a whole model's, which may be in several."""
    index = checkpoint / "model.safetensors.index.json"
    if index.exists():
        names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        return [checkpoint / name for name in names]
    return sorted(checkpoint.glob("*.safetensors"))


def _is_whole_safetensors(file: Path) -> bool:
    """8 bytes say how long the header is, the header says at which byte after it each tensor ends."""
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if length > file.stat().st_size:
            return False
        header = json.loads(stream.read(length))
    ends = [about["data_offsets"][1] for name, about in header.items() if name != "__metadata__"]
    return file.stat().st_size == 8 + length + max(ends, default=0)


def _size(checkpoint: Path) -> int:
    return sum(file.stat().st_size for file in checkpoint.rglob("*") if file.is_file())


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"
