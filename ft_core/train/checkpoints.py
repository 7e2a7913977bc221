"""Checkpoints of a job: which one counts. Torch-free."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from ..workspace import Job

KEPT = 2
_FILES = ("adapter_model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth")


def step_of(checkpoint: Path) -> int:
    return int(checkpoint.name.rpartition("-")[2])


def last_whole(job: Job) -> Path | None:
    """The newest checkpoint that was written to its end; half-written ones are removed on the way."""
    for checkpoint in sorted(job.checkpoints.glob("checkpoint-*"), key=step_of, reverse=True):
        if _is_whole(checkpoint):
            return checkpoint
        shutil.rmtree(checkpoint)
    return None


def _is_whole(checkpoint: Path) -> bool:
    """transformers writes trainer_state.json last: with it, everything before it is there too."""
    try:
        state = json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return state.get("global_step") == step_of(checkpoint) and all((checkpoint / f).exists() for f in _FILES)
