"""Conversations from files: recognised by their columns, checked row by row, nothing dropped in silence."""

from __future__ import annotations

import contextlib
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any

from ..conversation import Conversation
from ..errors import FTError
from . import shapes, sources
from .reading import Broken, Meter, Record, Table, Tell
from .shapes import NoShape, Shape
from .sources import Left, Source
from .store import Store
from .writing import write

__all__ = [
    "Ended",
    "Field",
    "Imported",
    "NoShape",
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
_NAMED = 1000
"""Rows that cannot be used are named up to here, and counted beyond."""
_TICK = 500
"""Rows from one word of progress to the next."""


@dataclass(frozen=True)
class Field:
    """A part of a shape, and the column that is taken for it."""

    name: str
    needed: bool
    column: str
    """'' when none is."""


@dataclass(frozen=True)
class Recognised:
    """What a file looks like, by its first rows."""

    shape: str
    columns: tuple[str, ...]
    mapping: dict[str, str]
    """Field of the shape -> column. Columns that are not in it are not taken."""
    preview: tuple[Conversation, ...]
    fields: tuple[Field, ...]
    """All fields of the shape, the needed ones first."""
    samples: dict[str, str]
    """Column -> the beginning of the first thing that stands in it."""
    table: str
    """The file that this is about: of an archive or folder, the first that is taken."""
    skipped: tuple[Skipped, ...]
    """Of the first rows, those that cannot be used; and files that are not taken."""


@dataclass(frozen=True)
class Skipped:
    """A row that cannot be used, or a whole file."""

    file: str
    row: int
    """From 1; in JSON Lines and plain text the line. 0 is the whole file."""
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
    """The first thousand rows that cannot be used, and files that are not taken."""
    ended_at: str | None
    """File and place where a broken one ended, when parts of files are welcome."""
    skipped_rows: int
    """All rows that cannot be used."""


def recognise(
    source: Source, mapping: Mapping[str, str] | None = None, shape: str = "", token: str | bool | None = None
) -> Recognised:
    """Looks at the first rows only; of an archive or folder, at those of its first table.

    Raises FTError as `read` does; a NoShape has the columns, to choose from.
    """
    left: list[Skipped] = []
    with contextlib.closing(sources.tables(source, Meter(), preview=True, token=token)) as tables:
        for table in tables:
            if isinstance(table, Left):
                left.append(Skipped(table.file, 0, table.reason))
                continue
            with contextlib.closing(table.records):
                head, _ = _head(table)
            try:
                found, columns, fields = _shape(head, mapping, table.name, shape)
            except NoShape as error:
                error.samples = _samples(head)
                raise
            rows = list(_conversations(iter(head), found, fields, table.name))
            shown = [Field(name, name in found.needed, fields.get(name, "")) for name in found.fields]
            return Recognised(
                found.name,
                tuple(columns),
                fields,
                tuple(row for row in rows if isinstance(row, Conversation))[:_PREVIEW],
                tuple(shown),
                _samples(head),
                table.name,
                (*left, *(row for row in rows if isinstance(row, Skipped))),
            )
    raise FTError(f"{sources.named(source)} holds no file that can be imported", "Is it the right one?")


def read(
    source: Source,
    mapping: Mapping[str, str] | None = None,
    partial: bool = False,
    shape: str = "",
    meter: Meter | None = None,
    token: str | bool | None = None,
) -> Iterator[Conversation | Skipped | Ended]:
    """The rows of a source, streamed. `mapping` is field -> column, where the columns do not speak for themselves.

    Raises FTError when it cannot be read, its columns make no shape, or its syntax breaks (with the line); with
    `partial` the rows before the break are taken and the last item of that file is Ended. In an archive or a folder a
    file without any row that can be used is then Skipped.
    """
    with contextlib.closing(sources.tables(source, meter or Meter(), token=token)) as tables:
        for table in tables:
            if isinstance(table, Left):
                yield Skipped(table.file, 0, table.reason)
                continue
            with contextlib.closing(table.records):
                yield from _rows(table, mapping, partial, shape, table.name != sources.named(source))


def _rows(
    table: Table, mapping: Mapping[str, str] | None, partial: bool, shape: str, among_others: bool
) -> Iterator[Conversation | Skipped | Ended]:
    try:
        head, rest = _head(table)
        found, _, fields = _shape(head, mapping, table.name, shape)
    except FTError as error:
        if not (partial and among_others):
            raise
        yield Skipped(table.name, 0, error.message)
        return
    for row in _conversations(chain(head, rest), found, fields, table.name):
        if not isinstance(row, Broken):
            yield row
        elif partial:
            yield Ended(row.file, row.place, row.reason)
        else:
            raise row


def import_files(
    store: Store,
    paths: Sequence[Source],
    mapping: Mapping[str, str] | None = None,
    partial: bool = False,
    who: str = "",
    shape: str = "",
    tell: Tell | None = None,
    part_of: str = "",
    token: str | bool | None = None,
) -> Imported:
    """Adds the rows of all sources as one operation; when one is refused, nothing is added.

    `tell` hears of bytes done, bytes in all and rows so far, and may raise to end it: then nothing is added either.
    Raises FTError as `read` does, and for a source without one row that can be used.
    """
    meter = Meter(tell)
    skipped: list[Skipped] = []
    ended: list[str] = []
    unusable = 0

    def usable() -> Iterator[Conversation]:
        nonlocal unusable
        seen = 0
        for source in paths:
            before, rows = unusable, meter.rows
            first = len(skipped)
            for row in read(source, mapping, partial, shape, meter, token):
                seen += 1
                if seen % _TICK == 0:
                    meter.tick()
                match row:
                    case Conversation():
                        meter.rows += 1
                        yield row
                    case Skipped():
                        unusable += row.row > 0
                        if unusable <= _NAMED:
                            skipped.append(row)
                    case Ended():
                        ended.append(f"{row.file}, {row.place}: {row.reason}")
            if meter.rows == rows:
                raise _unusable(sources.named(source), skipped[first:], unusable - before)
        meter.tick()

    added = store.add(usable(), who=who, part_of=part_of)
    return Imported(added, tuple(skipped), "; ".join(ended) or None, unusable)


def _unusable(file: str, skipped: list[Skipped], rows: int) -> FTError:
    others = f" ({rows:,} rows were looked at)" if rows > 1 else ""
    first = next(iter(skipped), Skipped(file, 0, "it is as the ones before"))
    place = f"row {first.row}" if first.row else first.file
    return FTError(
        f"{file} has no row that can be used; {place}: {first.reason}{others}",
        "Every row needs an answer. Is each column taken for what it is?",
    )


def _head(table: Table) -> tuple[list[Record | Broken], Iterator[Record | Broken]]:
    """The first records, and the others. Raises FTError when there are none."""
    head = list(islice(table.records, _LOOK_AT))
    if not head:
        raise FTError(f"{table.name} has no rows", "Is there more than the line with the names of the columns?")
    if isinstance(head[0], Broken):
        raise head[0]
    return head, table.records


def _objects(head: list[Record | Broken]) -> list[dict[Any, Any]]:
    return [item[1] for item in head if not isinstance(item, Broken) and isinstance(item[1], dict)]


def _shape(
    head: list[Record | Broken], mapping: Mapping[str, str] | None, file: str, shape: str
) -> tuple[Shape, list[str], dict[str, str]]:
    columns = list(dict.fromkeys(str(key) for record in _objects(head) for key in record if key is not None))
    found, fields = shapes.recognise(columns, mapping, file, shape)
    return found, columns, fields


def _samples(head: list[Record | Broken]) -> dict[str, str]:
    samples: dict[str, str] = {}
    for record in _objects(head):
        for column, value in record.items():
            if column is not None and value not in (None, "", []) and str(column) not in samples:
                samples[str(column)] = textwrap.shorten(str(value)[:1000], 100, placeholder="…")
    return samples


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
