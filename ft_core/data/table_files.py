"""Parquet and Arrow as records, some rows at a time, whatever the size of the file.

Arrow files are memory-mapped, both as a file (Feather) and as a stream, which is what `datasets` writes. What they
say of themselves is checked before it is followed: a damaged one is refused, and reads no memory that is not its own.
"""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.parquet as pq

from ..errors import FTError
from .reading import Broken, File, Meter, Record

_BATCH = 500
"""Rows in memory at once."""
_MAGIC = b"ARROW1"
"""How an Arrow file begins; a stream begins otherwise."""

_DAMAGE = (pa.ArrowException, OSError, UnicodeDecodeError, OverflowError, MemoryError)


def parquet(file: File, meter: Meter) -> Iterator[Record]:
    n = 0
    try:
        # Without pre_buffer a row group of a gigabyte is read page by page.
        with pq.ParquetFile(file.path, pre_buffer=False, buffer_size=1 << 16) as table:
            rows = max(table.metadata.num_rows, 1)
            meter.follow(lambda: n / rows)
            for batch in table.iter_batches(_BATCH):
                for row in batch.to_pylist():
                    n += 1
                    yield n, row
    except _DAMAGE as error:
        raise _damaged(file, "Parquet", n, error) from None


def arrow(file: File, meter: Meter) -> Iterator[Record]:
    n, at, size = 0, 0, file.path.stat().st_size
    meter.follow(lambda: at / size)
    try:
        with pa.memory_map(str(file.path)) as data:
            for batch in _batches(data):
                batch.validate(full=True)
                for start in range(0, batch.num_rows, _BATCH):
                    for row in batch.slice(start, _BATCH).to_pylist():
                        n += 1
                        yield n, row
                at += batch.nbytes
    except _DAMAGE as error:
        raise _damaged(file, "Arrow", n, error) from None


def _batches(data: pa.MemoryMappedFile) -> Iterator[pa.RecordBatch]:
    if data.read(len(_MAGIC)) == _MAGIC:
        reader = pa.ipc.open_file(data)
        yield from (reader.get_batch(i) for i in range(reader.num_record_batches))
    else:
        data.seek(0)
        yield from pa.ipc.open_stream(data)


def _damaged(file: File, kind: str, n: int, error: Exception) -> FTError:
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    if n == 0:
        return FTError(f"{file.name} is no whole {kind} file: {reason}", "Copy or write it again.")
    return Broken(file.name, f"row {n + 1}", reason)
