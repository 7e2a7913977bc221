"""What the readers of files share: the records they give, how they say that a file breaks, and how far they are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import FTError

Record = tuple[int, Any]
"""The row's number, from 1 (in JSON Lines and plain text its line), and what it holds."""

CHUNK = 1 << 20
"""Bytes, or characters, that are read at once."""
LONGEST_CELL = 1 << 26
"""Characters. A longer cell, line or row is taken for damage: a quote that is never closed, say."""

Tell = Callable[[int, int, int], None]
"""Told bytes done, bytes in all, and rows so far. What it raises ends the import."""


class Broken(FTError):
    """The file's syntax breaks here; the rows before it are good."""

    def __init__(self, file: str, place: str, reason: str):
        super().__init__(
            f"{file} is broken at {place}: {reason}", "Mend it there, or take only the rows before it (partial)."
        )
        self.file = file
        self.place = place
        self.reason = reason


@dataclass(frozen=True)
class File:
    """A file to read: where it lies, what people know it as, and its kind, which is an ending such as .csv."""

    path: Path
    name: str
    kind: str


@dataclass(frozen=True)
class Table:
    """Rows under one set of columns, and how people know it."""

    name: str
    records: Iterator[Record | Broken]


@dataclass(frozen=True)
class HubRows:
    """Rows of a dataset of the Hugging Face Hub."""

    repo: str
    config: str = ""
    """'' takes the only one, or the default."""
    split: str = ""
    """'' takes train, or the only one."""
    rows: int = 0
    """How many, the first ones; 0 takes all."""
    random: bool = False
    """Not the first ones, but drawn by chance (see hub_rows)."""
    seed: int = 0


@dataclass(frozen=True)
class Pasted:
    """A text that somebody pasted (see pasted)."""

    text: str


class Meter:
    """How far an import is. Readers move it, and it tells whoever waits."""

    def __init__(self, tell: Tell | None = None):
        self.total = 0
        """Bytes of all that is read, as they lie there: of an archive, the packed ones."""
        self.rows = 0
        self._tell = tell
        self._before = 0
        self._bytes = 0
        self._share: Callable[[], float] = float

    def begin(self, bytes_: int) -> None:
        """The next file, which stands for so many bytes of the total; the one before is done."""
        self._before, self._bytes, self._share = self._before + self._bytes, bytes_, float

    def follow(self, share: Callable[[], float]) -> None:
        """How much of this file was read, from 0 to 1, whenever somebody asks."""
        self._share = share

    def tick(self) -> None:
        if self._tell:
            done = self._before + int(min(self._share(), 1.0) * self._bytes)
            self._tell(min(done, self.total) if self.total else done, self.total, self.rows)
