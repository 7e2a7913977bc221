"""The rows of one training as a file in its job folder: what is trained, whatever happens to the dataset later."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from hashlib import sha256
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from ..conversation import Conversation, Message
from ..errors import FTError
from ..recipe import DataRecipe
from ..workspace import Job
from . import split
from .store import Store, fingerprint_line

_SCHEMA = pa.schema(
    [("id", pa.int64()), *((name, pa.string()) for name in ("messages", "tools", "rejected", "split"))]
)
"""A conversation as Conversation.to_dict() has it, each part as JSON; `tools` and `rejected` are '' for none."""
_BATCH = 1000
"""Rows in memory at once."""


@dataclass(frozen=True)
class Frozen:
    """What was frozen: the fingerprint of DESIGN.md's `data stats`, and numbers of rows."""

    fingerprint: str
    train: int
    heldout: int


@dataclass(frozen=True)
class FrozenRow:
    id: int
    """The row's id in the store."""
    conversation: Conversation
    split: str
    """train or heldout."""


def freeze(store: Store, job: Job, data: DataRecipe) -> Frozen:
    """Splits what has no place yet and writes `job.dataset`, whole or not at all.

    Rows are under the project's system prompt and in the order of their ids. Raises FTError when there is nothing to
    train on.
    """
    split.assign(store, data.heldout, data.seed, who=f"job {job.id}", group=data.group)
    digest = sha256()
    rows = {"train": 0, "heldout": 0}
    part = job.dataset.with_suffix(".part")
    with pq.ParquetWriter(part, _SCHEMA) as writer:
        # Rows without a place came after the split, while this was read.
        placed = (row for row in store.texts() if row[2])
        while batch := list(islice(placed, _BATCH)):
            for _, text, side in batch:
                digest.update(fingerprint_line(text, side))
                rows[side] += 1
            writer.write_batch(_to_arrow(batch))
        writer.add_key_value_metadata({"fingerprint": digest.hexdigest()})
    if not rows["train"]:
        part.unlink()
        raise FTError("there are no rows to train on", "Import or generate rows, or accept rows that were rejected.")
    os.replace(part, job.dataset)
    return Frozen(digest.hexdigest(), **rows)


def read_frozen(path: Path) -> list[FrozenRow]:
    """The rows of a job's dataset, in the order of their ids. Raises FTError when the file is not there or damaged."""
    return [
        FrozenRow(id, Conversation(_messages(messages), tools=tools, rejected=rejected), side)
        for id, messages, tools, rejected, side in zip(*(column.to_pylist() for column in _read(path).columns))
    ]


def frozen(path: Path) -> Frozen:
    """What freeze returned when it wrote `path`."""
    table = _read(path)
    sides = table["split"].to_pylist()
    return Frozen(table.schema.metadata[b"fingerprint"].decode(), sides.count("train"), sides.count("heldout"))


def _read(path: Path) -> pa.Table:
    try:
        return pq.ParquetFile(path).read()
    except (OSError, pa.ArrowInvalid) as error:
        raise FTError(f"the job's rows cannot be read: {error}", "Start the training again.") from None


def _to_arrow(batch: list[tuple[int, str, str]]) -> pa.RecordBatch:
    ids, texts, sides = zip(*batch)
    rows = [Conversation.from_canonical(text) for text in texts]
    messages = [json.dumps([m.to_dict() for m in row.messages], ensure_ascii=False) for row in rows]
    tools, rejected = [row.tools for row in rows], [row.rejected for row in rows]
    return pa.record_batch([ids, messages, tools, rejected, sides], schema=_SCHEMA)


def _messages(text: str) -> tuple[Message, ...]:
    return tuple(map(Message.from_dict, json.loads(text)))
