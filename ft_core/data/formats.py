"""Conversations from files: recognised by their columns, checked row by row, nothing dropped in silence."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

from ..conversation import Conversation
from ..errors import FTError
from . import files, shapes
from .files import Broken, Record
from .shapes import Shape
from .store import Store
from .writing import write

__all__ = [
    "Ended",
    "Imported",
    "Recognised",
    "Skipped",
    "import_files",
    "read",
    "recognise",
    "write",
]

_LOOK_AT = 20
"""Rows whose columns decide the shape."""
_PREVIEW = 5


@dataclass(frozen=True)
class Recognised:
    """What a file looks like, by its first rows."""

    shape: str
    columns: tuple[str, ...]
    mapping: dict[str, str]
    """Field of the shape -> column. Columns that are not in it are not taken."""
    preview: tuple[Conversation, ...]


@dataclass(frozen=True)
class Skipped:
    """A row that cannot be used."""

    file: str
    row: int
    """From 1; in JSON Lines the line."""
    reason: str


@dataclass(frozen=True)
class Ended:
    """Where a broken file ended; only when parts of files are welcome."""

    file: str
    place: str
    reason: str


@dataclass(frozen=True)
class Imported:
    added: int
    skipped: tuple[Skipped, ...]
    ended_at: str | None
    """File and place where a broken one ended, when parts of files are welcome."""


def recognise(path: Path, mapping: Mapping[str, str] | None = None) -> Recognised:
    """Looks at the first rows only. Raises FTError as `read` does."""
    head, _ = _head(path)
    shape, columns, found = _shape(head, mapping, path)
    rows = islice(_conversations(iter(head), shape, found, path.name), _LOOK_AT)
    preview = [row for row in rows if isinstance(row, Conversation)][:_PREVIEW]
    return Recognised(shape.name, tuple(columns), found, tuple(preview))


def read(
    path: Path, mapping: Mapping[str, str] | None = None, partial: bool = False
) -> Iterator[Conversation | Skipped | Ended]:
    """The rows of a file, streamed. `mapping` is field -> column, where the columns do not speak for themselves.

    Raises FTError when the file cannot be read, its columns make no shape, or its syntax breaks (with the line); with
    `partial` the rows before the break are taken and the last item is Ended.
    """
    head, rest = _head(path)
    shape, _, found = _shape(head, mapping, path)
    for row in _conversations(chain(head, rest), shape, found, path.name):
        if not isinstance(row, Broken):
            yield row
        elif partial:
            yield Ended(row.file, row.place, row.reason)
        else:
            raise row


def import_files(
    store: Store,
    paths: Sequence[Path],
    mapping: Mapping[str, str] | None = None,
    partial: bool = False,
    who: str = "",
) -> Imported:
    """Adds the rows of all files as one operation; when one file is refused, nothing is added.

    Raises FTError as `read` does, and for a file without one row that can be used.
    """
    skipped: list[Skipped] = []
    ended: list[str] = []

    def usable() -> Iterator[Conversation]:
        for path in map(Path, paths):
            before, taken = len(skipped), 0
            for row in read(path, mapping, partial):
                match row:
                    case Conversation():
                        taken += 1
                        yield row
                    case Skipped():
                        skipped.append(row)
                    case Ended():
                        ended.append(f"{row.file}, {row.place}: {row.reason}")
            if not taken:
                raise _unusable(path.name, skipped[before:])

    added = store.add(usable(), who=who)
    return Imported(added, tuple(skipped), "; ".join(ended) or None)


def _unusable(file: str, skipped: list[Skipped]) -> FTError:
    first = skipped[0]
    others = f" ({len(skipped):,} rows were looked at)" if len(skipped) > 1 else ""
    return FTError(
        f"{file} has no row that can be used; row {first.row}: {first.reason}{others}",
        "Every row needs an answer. Is each column taken for what it is?",
    )


def _head(path: Path) -> tuple[list[Record | Broken], Iterator[Record | Broken]]:
    """The first records, and the others. Raises FTError when there are none."""
    records = files.records(path)
    head = list(islice(records, _LOOK_AT))
    if not head:
        raise FTError(f"{path.name} has no rows", "Is there more than the line with the names of the columns?")
    if isinstance(head[0], Broken):
        raise head[0]
    return head, records


def _shape(
    head: list[Record | Broken], mapping: Mapping[str, str] | None, path: Path
) -> tuple[Shape, list[str], dict[str, str]]:
    objects = [item[1] for item in head if not isinstance(item, Broken) and isinstance(item[1], dict)]
    columns = list(dict.fromkeys(str(key) for record in objects for key in record if key is not None))
    shape, found = shapes.recognise(columns, mapping, path.name)
    return shape, columns, found


def _conversations(
    records: Iterator[Record | Broken], shape: Shape, mapping: Mapping[str, str], file: str
) -> Iterator[Conversation | Skipped | Broken]:
    for item in records:
        if isinstance(item, Broken):
            yield item
            return
        row, record = item
        try:
            yield shapes.conversation(record, shape, mapping, f"{file} row {row}")
        except FTError as error:
            yield Skipped(file, row, error.message)
