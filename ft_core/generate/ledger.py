"""What became of each planned row, on disk, one line as soon as it is known."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .plan import Plan, PlannedRow
from .writer import Written


class Ledger:
    """`landed` are the ids of the rows that the store has already, recorded or not."""

    def __init__(self, path: Path, plan: Plan, landed: set[str]):
        self.plan = plan
        self.prompt_tokens = plan.prompt_tokens
        self.completion_tokens = plan.completion_tokens
        self.added: set[str] = set(landed)
        self.rejected: dict[str, str] = {}
        for line in _whole_lines(path):
            self._count(json.loads(line))
        self.rejected.clear()  # they get another chance
        self._file = path.open("a", encoding="utf-8")

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    @property
    def missing(self) -> list[PlannedRow]:
        return [row for row in self.plan.rows if row.id not in self.added and row.id not in self.rejected]

    def record(self, written: Written) -> None:
        entry = {
            "row": written.row,
            "reason": None if written.conversation else written.reason,
            "prompt_tokens": written.prompt_tokens,
            "completion_tokens": written.completion_tokens,
        }
        self._file.write(json.dumps(entry, ensure_ascii=False) + "\n")
        self._file.flush()
        self._count(entry)

    def _count(self, entry: dict[str, Any]) -> None:
        self.prompt_tokens += entry["prompt_tokens"]
        self.completion_tokens += entry["completion_tokens"]
        if entry["reason"] is None:
            self.added.add(entry["row"])
        else:
            self.rejected[entry["row"]] = entry["reason"]

    def result(self) -> dict[str, Any]:
        return {
            "asked": len(self.plan.rows),
            "added": len(self.added),
            "rejected": [{"row": row, "reason": reason} for row, reason in self.rejected.items()],
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
        }


def _whole_lines(path: Path) -> Sequence[bytes]:
    """The file's lines; half a line that a killed process left is cut off."""
    if not path.exists():
        return []
    data = path.read_bytes()
    whole = data.rfind(b"\n") + 1
    os.truncate(path, whole)
    return data[:whole].splitlines()
