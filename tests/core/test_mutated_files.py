"""Five hundred damaged files: each is refused in one sentence or read as far as it goes, and nothing is lost."""

from __future__ import annotations

import csv
import gzip
import io
import json
import random
import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ft_core.conversation import Conversation, Message
from ft_core.data import formats
from ft_core.data.store import Store
from ft_core.errors import FTError

PAIR = Conversation((Message("user", "old"), Message("assistant", "row")))
SEEDS = range(7)


def records(dice: random.Random) -> list[dict]:
    """Forty rows of one of the shapes."""
    shape = dice.randrange(5)
    many = []
    for i in range(40):
        asked, answered = f'"ö" {i},\n\t', f"👩‍👩‍👧 {i}\r\n= 'x'"
        turns = [{"role": "user", "content": asked}, {"role": "assistant", "content": answered}]
        tools = json.dumps([{"type": "function", "function": {"name": "look", "parameters": {}}}])
        many.append(
            [
                {"prompt": asked, "completion": answered},
                {"instruction": asked, "input": "x", "output": answered, "system": "Be brief."},
                {"messages": turns, "tools": tools},
                {"prompt": asked, "chosen": answered, "rejected": "no"},
                {"input": asked, "contexts": ["one", "two"], "response": answered},
            ][shape]
        )
    return many


def csv_of(rows: list[dict], mark: str = ",") -> bytes:

    text = io.StringIO()
    writer = csv.writer(text, delimiter=mark)
    writer.writerow(rows[0])
    writer.writerows([v if isinstance(v, str) else json.dumps(v) for v in row.values()] for row in rows)
    return text.getvalue().encode()


def jsonl(rows: list[dict]) -> bytes:
    return b"".join(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows)


def parquet(rows: list[dict]) -> bytes:
    data = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), data)
    return data.getvalue()


def arrow(rows: list[dict], kind: Callable = pa.ipc.new_stream) -> bytes:
    data, table = io.BytesIO(), pa.Table.from_pylist(rows)
    with kind(data, table.schema) as writer:
        writer.write_table(table, max_chunksize=9)
    return data.getvalue()


def zipped(rows: list[dict]) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("rows/a.jsonl", jsonl(rows))
        archive.writestr("rows/b.parquet", parquet(rows))
        archive.writestr("notes.pdf", b"%PDF")
    return data.getvalue()


KINDS: dict[str, Callable[[list[dict]], bytes]] = {
    ".csv": csv_of,
    ".tsv": lambda rows: csv_of(rows, "\t"),
    ".json": lambda rows: json.dumps(rows, indent=1).encode(),
    ".jsonl": jsonl,
    ".parquet": parquet,
    ".arrow": arrow,
    ".feather.arrow": lambda rows: arrow(rows, pa.ipc.new_file),
    ".zip": zipped,
    ".jsonl.gz": lambda rows: gzip.compress(jsonl(rows)),
}


def at(dice: random.Random, data: bytes) -> int:
    return dice.randrange(len(data))


def shuffled(dice: random.Random, data: bytes) -> bytes:
    start = at(dice, data)
    part = bytearray(data[start : start + dice.randrange(4, 400)])
    dice.shuffle(part)
    return data[:start] + part + data[start + len(part) :]


def one_bit(dice: random.Random, data: bytes) -> bytes:
    i = at(dice, data)
    return data[:i] + bytes([data[i] ^ 1 << dice.randrange(8)]) + data[i + 1 :]


def nested(dice: random.Random, data: bytes) -> bytes:
    """Where a value of JSON begins, if there is such a place."""
    places = [found.end() for found in re.finditer(rb'": ?', data)] or [at(dice, data)]
    i = dice.choice(places)
    return data[:i] + dice.choice([b"[", b'{"a":']) * 30_000 + data[i:]


def wrong_types(dice: random.Random, data: bytes) -> bytes:
    other = dice.choice([b"null", b"[]", b"{}", b"4", b"true", b'{"role": []}', b'"\\ud800"', b"1e999", b"NaN"])
    return data.replace(dice.choice([b'"x"', b'"no"', b'"user"', b'"one"', b'"role"', b'", "']), other)


MUTATIONS: dict[str, Callable[[random.Random, bytes], bytes]] = {
    "cut": lambda dice, data: data[: at(dice, data)],
    "bytes": lambda dice, data: bytes(dice.randrange(256) if dice.random() < 0.003 else b for b in data),
    "bit": one_bit,
    "shuffled": shuffled,
    "hole": lambda dice, data: data[: (i := at(dice, data))] + data[i + dice.randrange(300) :],
    "types": wrong_types,
    "nested": nested,
    "huge": lambda dice, data: data[: (i := at(dice, data))] + b"9" * dice.choice([30, 5000]) + data[i:],
}  # fmt: skip


def test_there_are_five_hundred() -> None:
    assert len(KINDS) * len(MUTATIONS) * len(SEEDS) >= 500


@pytest.mark.timeout(120)
@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_file_is_one_sentence_or_as_many_rows_as_it_has(tmp_path: Path, kind: str) -> None:
    refused = read = 0
    with Store(tmp_path / "data.sqlite") as store:
        store.add([PAIR])
        for mutation, damage in MUTATIONS.items():
            for seed in SEEDS:
                dice = random.Random(f"{kind} {mutation} {seed}")
                path = tmp_path / f"rows{kind}"
                path.write_bytes(damage(dice, KINDS[kind](records(dice))))
                before = store.count()
                try:
                    done = formats.import_files(store, [path], partial=seed % 2 == 1)
                    assert store.count() == before + done.added and done.added > 0
                    assert all(s.file.startswith(path.name) and s.reason for s in done.skipped)
                    read += 1
                except FTError as error:
                    where = f"{mutation} {seed}: {error.message}"
                    assert error.message.startswith(path.name) and error.hint and "\n" not in error.message, where
                    assert len(error.message) < 700, where
                    if "is broken at" in error.message:
                        assert any(f"broken at {place} " in error.message for place in ("line", "row")), where
                    assert store.count() == before
                    refused += 1
                if before > 500:  # what was read well goes, as one operation
                    store.undo()
        assert store.get(1).conversation == PAIR
    assert refused > 5 and read > 0
