"""Conversations to files, so that importing the file gives the same conversations.

The rows are gathered in a temporary file first: a shape's columns, and whether it can hold every row, are known only
when all have been seen, and then the file is written to its end or not at all.
"""

from __future__ import annotations

import csv
import json
import os
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ..conversation import Conversation
from ..errors import FTError
from .files import guarded
from .layout import SHAPES, Layout

__all__ = ["SHAPES", "Gathered", "Written", "write", "write_parquet"]

_BATCH_ROWS = 1000
_BATCH_CHARS = 1 << 24
"""Of the rows that are in memory at once; whichever is reached first."""


@dataclass(frozen=True)
class Written:
    rows: int
    left_out: int
    """Rows without a worse answer, which have no place in the shape preference."""


def write(conversations: Iterable[Conversation], path: Path, shape: str = "messages") -> Written:
    """Writes a file in the format of its ending (.jsonl, .json, .csv, .parquet) and the shape of `layout`.

    Raises FTError, with nothing written, for a row that the shape cannot hold and when there are no rows.
    """
    dump = _DUMPERS.get(path.suffix.lower())
    if dump is None:
        hint = f"The name ends with one of {', '.join(_DUMPERS)}; a folder of `datasets` ends with a slash."
        raise FTError(f"{path.name}: no such format", hint)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    with Gathered(shape) as rows:
        for conversation in conversations:
            rows.add(conversation)
        done = rows.written()
        try:
            dump(rows, part)
            os.replace(part, path)
        except OSError as error:
            raise FTError(f"{path} cannot be written: {error.strerror or error}", "Is there such a folder?") from None
        finally:
            part.unlink(missing_ok=True)
    return done


class Gathered:
    """Rows on their way into files, each with the part of the dataset that it belongs to. Close it, or use `with`."""

    def __init__(self, shape: str):
        """Raises FTError for a shape that is not known."""
        self.layout = Layout(shape)
        self.rows: Counter[str] = Counter()
        """By part."""
        self.left_out = 0
        self._spool = tempfile.TemporaryFile("w+", encoding="utf-8", newline="\n")

    def __enter__(self) -> Gathered:
        return self

    def __exit__(self, *_: object) -> None:
        self._spool.close()

    def add(self, conversation: Conversation, part: str = "") -> bool:
        """Whether the row is written: False when it is left out. Raises FTError as Layout.see does."""
        if not self.layout.see(conversation):
            self.left_out += 1
            return False
        self._spool.write(f"{part}\t{conversation.canonical()}\n")
        self.rows[part] += 1
        return True

    def written(self) -> Written:
        """Raises FTError when there are no rows."""
        if rows := self.rows.total():
            return Written(rows, self.left_out)
        if self.left_out:
            raise FTError(
                f"none of the {self.left_out} rows has a better and a worse answer", "Choose another shape, or vote."
            )
        raise FTError(
            "there are no rows to write",
            "Import or generate some; rows to train and held out are told apart once they are split.",
        )

    def records(self, part: str = "", typed: bool = False) -> Iterator[dict[str, Any]]:
        """The rows of a part by column; `typed` as in Layout.fields."""
        return self._records(self._texts(part), typed)

    def batches(self, part: str = "") -> Iterator[pa.RecordBatch]:
        """The rows of a part in Arrow, a few at a time."""
        texts = self._texts(part)
        while batch := list(_at_once(texts)):
            yield pa.RecordBatch.from_pylist(list(self._records(batch, typed=True)), schema=self.schema)

    def _records(self, texts: Iterable[str], typed: bool) -> Iterator[dict[str, Any]]:
        columns = tuple(self.layout.columns)
        for text in texts:
            fields = self.layout.fields(Conversation.from_canonical(text), typed)
            yield {name: fields[name] for name in columns}

    @property
    def schema(self) -> pa.Schema:
        return pa.schema(list(self.layout.columns.items()))

    def _texts(self, wanted: str) -> Iterator[str]:
        self._spool.seek(0)
        for line in self._spool:
            part, _, text = line.partition("\t")
            if part == wanted:
                yield text


def _at_once(texts: Iterator[str]) -> Iterator[str]:
    """As many as are welcome in memory."""
    chars = 0
    for n, text in enumerate(texts, 1):
        yield text
        chars += len(text)
        if n == _BATCH_ROWS or chars >= _BATCH_CHARS:
            return


def write_parquet(rows: Gathered, path: Path, part: str = "") -> None:
    with pq.ParquetWriter(path, rows.schema) as writer:
        for batch in rows.batches(part):
            writer.write_batch(batch)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _write_jsonl(rows: Gathered, path: Path) -> None:
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(_json(record) + "\n" for record in rows.records())


def _write_json(rows: Gathered, path: Path) -> None:
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for i, record in enumerate(rows.records()):
            file.write((",\n" if i else "[\n") + _json(record))
        file.write("\n]\n")


def _write_csv(rows: Gathered, path: Path) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(rows.layout.columns)
        for record in rows.records():
            writer.writerow(guarded(_cell(value)) for value in record.values())


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else _json(value)


_DUMPERS = {".jsonl": _write_jsonl, ".json": _write_json, ".csv": _write_csv, ".parquet": write_parquet}
