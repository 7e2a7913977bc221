"""Files as records: tables, JSON and plain text, streamed, with the place where one breaks.

A record is what one row of the file holds: a dict by column, or whatever JSON has there. What it means is the
business of `shapes`; archives and folders of files are that of `sources`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePath

from ..errors import FTError
from . import json_files, table_files, text_files
from .reading import Broken, File, Meter, Record
from .text_files import guarded

__all__ = ["KINDS", "TEXT_KINDS", "Broken", "File", "Meter", "Record", "guarded", "kind_of", "records"]

_READERS = {
    ".csv": text_files.table,
    ".tsv": text_files.table,
    ".json": json_files.rows,
    ".jsonl": json_files.rows,
    ".ndjson": json_files.rows,
    ".parquet": table_files.parquet,
    ".arrow": table_files.arrow,
    ".txt": text_files.plain,
    ".md": text_files.plain,
}
KINDS = tuple(_READERS)
TEXT_KINDS = (".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".txt", ".md")
"""Of these a beginning can be read."""


def kind_of(name: str) -> str:
    return PurePath(name).suffix.lower()


def records(file: File, meter: Meter) -> Iterator[Record | Broken]:
    """The rows of a file; the last item is Broken when its syntax breaks there.

    Raises FTError when the file is not there, is empty, or is of no kind that is known.
    """
    read = _READERS.get(file.kind)
    if read is None:
        raise FTError(
            f"{file.name} cannot be imported: files of the kind {file.kind or 'without an ending'!r} are not known",
            f"Known are {', '.join(KINDS)}, .gz of these, .zip, and folders. Save the table as one of these.",
        )
    try:
        if file.path.stat().st_size == 0:
            raise FTError(f"{file.name} is empty (0 bytes)", "Was it saved, or copied, to its end?")
        yield from read(file, meter)
    except OSError as error:
        raise FTError(f"{file.name} cannot be read: {error.strerror or error}", "Is the path right?") from None
    except Broken as broken:
        yield broken
