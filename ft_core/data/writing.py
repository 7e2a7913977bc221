"""Conversations to files, so that importing the file gives the same conversations.

The rows are gathered in a temporary file first: a shape's columns, and whether it can hold every row, are known only
when all have been seen, and then the file is written to its end or not at all.
"""

from __future__ import annotations

import csv
import json
import os
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from ..conversation import Conversation
from ..errors import FTError
from .files import guarded
from .shapes import looks_like_turns, without_contexts

_TEXT = pa.string()
_TURNS = {
    "messages": pa.list_(pa.struct([("role", _TEXT), ("content", _TEXT)])),
    "sharegpt": pa.list_(pa.struct([("from", _TEXT), ("value", _TEXT)])),
}
_SHAREGPT = {"system": "system", "user": "human", "assistant": "gpt", "tool": "tool"}
_BATCH = 1000
"""Rows of a Parquet file in memory at once."""


@dataclass(frozen=True)
class _Exchange:
    """A conversation as the flat shapes have it: one prompt and one answer after what went before."""

    system: str
    history: list[list[str]]
    prompt: str
    answer: str

    @property
    def plain(self) -> bool:
        """Whether two texts say all of it."""
        turns = looks_like_turns(self.prompt) or looks_like_turns(self.answer)
        return not (self.system or self.history or turns)


def write(conversations: Iterable[Conversation], path: Path, shape: str = "messages") -> int:
    """Writes a file in the format of its ending (.jsonl, .json, .csv, .parquet) and returns its number of rows.

    Shapes: messages and sharegpt hold everything. alpaca and contexts have `system` and `history` columns when a row
    needs them. prompt-completion is two texts when that is all there is, else two lists of messages, as TRL reads
    both. Raises FTError, with nothing written, for a row that the shape cannot hold and when there are no rows.
    """
    dump = _DUMPERS.get(path.suffix.lower())
    if dump is None:
        raise FTError(f"{path.name}: no such format", f"The name ends with one of {', '.join(_DUMPERS)}.")
    if shape == "preference":
        raise FTError("these rows have one answer each, not a better and a worse one", "Choose another shape.")
    if shape not in SHAPES:
        raise FTError(f"there is no shape {shape!r}", f"Shapes are {', '.join(SHAPES)}.")
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    with tempfile.TemporaryFile("w+", encoding="utf-8") as spool:
        rows, used = _gather(conversations, shape, spool)
        if not rows:
            raise FTError(
                "there are no rows to write",
                "Import or generate some; rows to train and held out are told apart once they are split.",
            )
        columns = _columns(shape, used)
        spool.seek(0)
        try:
            dump((_record(_back(line), shape, columns) for line in spool), part, columns)
            os.replace(part, path)
        except OSError as error:
            raise FTError(f"{path} cannot be written: {error.strerror or error}", "Is there such a folder?") from None
        finally:
            part.unlink(missing_ok=True)
    return rows


SHAPES = ("messages", "sharegpt", "alpaca", "prompt-completion", "contexts")
"""Shapes that conversations can be written in."""


def _gather(conversations: Iterable[Conversation], shape: str, spool: IO[str]) -> tuple[int, set[str]]:
    """Writes the rows to `spool`, one line of canonical JSON each; returns their number and what they need."""
    rows, used = 0, set()
    for rows, conversation in enumerate(conversations, 1):
        spool.write(conversation.canonical() + "\n")
        if shape not in _TURNS:
            exchange = _exchange(conversation, rows, shape)
            used |= {name for name in ("system", "history") if getattr(exchange, name)}
            used |= set() if exchange.plain else {"turns"}
    return rows, used


def _exchange(conversation: Conversation, row: int, shape: str) -> _Exchange:
    messages = conversation.messages
    own = messages[:1] if messages and messages[0].role == "system" else ()
    turns = messages[len(own) :]
    fits = turns and len(turns) % 2 == 0 and all(m.role == ("user", "assistant")[i % 2] for i, m in enumerate(turns))
    if not fits or (own and not own[0].content):
        raise FTError(
            f"row {row} cannot be written as {shape}: it is not user and assistant in turn",
            "messages and sharegpt hold every conversation.",
        )
    texts = [m.content for m in turns]
    history = [texts[i : i + 2] for i in range(0, len(texts) - 2, 2)]
    return _Exchange(conversation.system, history, texts[-2], texts[-1])


def _columns(shape: str, used: set[str]) -> dict[str, pa.DataType]:
    """Columns of the file and their types in Parquet."""
    extra = {"system": _TEXT, "history": pa.list_(pa.list_(_TEXT))}
    before = {name: extra[name] for name in extra if name in used}
    match shape:
        case "messages":
            return {"messages": _TURNS[shape]}
        case "sharegpt":
            return {"conversations": _TURNS[shape]}
        case "alpaca":
            return {**before, "instruction": _TEXT, "input": _TEXT, "output": _TEXT}
        case "contexts":
            return {**before, "input": _TEXT, "contexts": pa.list_(_TEXT), "response": _TEXT}
        case _:
            kind = _TURNS["messages"] if "turns" in used else _TEXT
            return {"prompt": kind, "completion": kind}


def _record(conversation: Conversation, shape: str, columns: dict[str, Any]) -> dict[str, Any]:
    turns = [m.to_dict() for m in conversation.messages]
    if shape == "messages":
        return {"messages": turns}
    if shape == "sharegpt":
        return {"conversations": [{"from": _SHAREGPT[m.role], "value": m.content} for m in conversation.messages]}
    if shape == "prompt-completion" and columns["prompt"] != _TEXT:
        return {"prompt": turns[:-1], "completion": turns[-1:]}
    exchange = _exchange(conversation, 0, shape)
    contexts, question = without_contexts(exchange.prompt)
    all_fields = {
        "system": exchange.system,
        "history": exchange.history,
        "prompt": exchange.prompt,
        "completion": exchange.answer,
        "instruction": exchange.prompt,
        "output": exchange.answer,
        "input": question if shape == "contexts" else "",
        "contexts": contexts,
        "response": exchange.answer,
    }
    return {name: all_fields[name] for name in columns}


def _back(line: str) -> Conversation:
    return Conversation.from_canonical(line)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _dump_jsonl(records: Iterator[dict[str, Any]], path: Path, columns: dict[str, Any]) -> None:
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(_json(record) + "\n" for record in records)


def _dump_json(records: Iterator[dict[str, Any]], path: Path, columns: dict[str, Any]) -> None:
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for i, record in enumerate(records):
            file.write((",\n" if i else "[\n") + _json(record))
        file.write("\n]\n")


def _dump_csv(records: Iterator[dict[str, Any]], path: Path, columns: dict[str, Any]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        for record in records:
            writer.writerow(guarded(v if isinstance(v, str) else _json(v)) for v in record.values())


def _dump_parquet(records: Iterator[dict[str, Any]], path: Path, columns: dict[str, Any]) -> None:
    schema = pa.schema(list(columns.items()))
    with pq.ParquetWriter(path, schema) as writer:
        while batch := list(islice(records, _BATCH)):
            writer.write_batch(pa.RecordBatch.from_pylist(batch, schema=schema))


_DUMPERS = {".jsonl": _dump_jsonl, ".json": _dump_json, ".csv": _dump_csv, ".parquet": _dump_parquet}
