"""A folder that `datasets.load_from_disk` reads, written row by row with pyarrow alone.

    <folder>/dataset_dict.json                    the names of the parts; without a split there is one part, and it
    <folder>/train/data-00000-of-00001.arrow      is the folder itself
    <folder>/train/dataset_info.json, state.json

dataset_info.json names no features: `datasets` then takes them from the Arrow schema, and the folder is read by
versions that call a list Sequence as well as by those that call it List.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path
from typing import Any

import pyarrow as pa

from ..conversation import Conversation
from ..errors import FTError
from .writing import Gathered, Written

PARTS = {"": "train", "train": "train", "heldout": "test"}
"""Side of the split -> what `datasets` calls it. Rows that came after the split are trained on until the next one."""

_ARROW = "data-00000-of-00001.arrow"


def write(rows: Iterable[tuple[int, Conversation, str]], folder: Path, shape: str = "messages") -> Written:
    """Writes rows as Store.conversations gives them: parts train and test where rows are held out, else one.

    A folder of `datasets` that is there is replaced. Raises FTError as writing.write does, and for a folder that
    holds something else.
    """
    with Gathered(shape) as gathered:
        for _, conversation, side in rows:
            gathered.add(conversation, PARTS[side])
        done = gathered.written()
        with replaced(folder) as made:
            parts = Parts(made, gathered.schema)
            for part in gathered.rows:
                for batch in gathered.batches(part):
                    parts.write(part, batch)
            parts.close()
    return done


@contextmanager
def replaced(folder: Path) -> Iterator[Path]:
    """An empty folder beside it that takes its place when all went well.

    Raises FTError when it cannot be written, or is there and no folder of `datasets`.
    """
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir()) and not _is_dataset(folder)):
        raise FTError(f"{folder} is there and holds something else", "Name a folder that is new or empty.")
    part = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    old = part.with_suffix(".old")
    try:
        part.mkdir()
        yield part
        if folder.exists():
            os.replace(folder, old)
        os.replace(part, folder)
    except OSError as error:
        raise FTError(f"{folder} cannot be written: {error.strerror or error}", "Is there such a place?") from None
    finally:
        shutil.rmtree(part, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


class Parts:
    """The files of a `datasets` folder while they are written: a DatasetDict with a part `test`, else one Dataset."""

    def __init__(self, folder: Path, schema: pa.Schema):
        self._folder = folder
        self.schema = schema
        self._open: dict[str, tuple[pa.OSFile, pa.RecordBatchStreamWriter, Any]] = {}

    def write(self, part: str, batch: pa.RecordBatch) -> None:
        if part not in self._open:
            (self._folder / part).mkdir()
            file = pa.OSFile(str(self._folder / part / _ARROW), "wb")
            self._open[part] = file, pa.ipc.new_stream(file, self.schema), blake2b(digest_size=8)
        _, writer, digest = self._open[part]
        writer.write_batch(batch)
        digest.update(batch.serialize())

    def close(self) -> None:
        """Writes what says how the files are to be read."""
        for part, (file, writer, digest) in self._open.items():
            writer.close()
            file.close()
            _write_about(self._folder / part, part, digest.hexdigest())
        if "test" in self._open:
            parts = [part for part in ("train", "test") if part in self._open]
            _write_json(self._folder / "dataset_dict.json", {"splits": parts})
            return
        for file in [*self._folder.glob("train/*")]:
            file.rename(self._folder / file.name)
        for part in self._open:
            (self._folder / part).rmdir()


def _write_about(folder: Path, part: str, fingerprint: str) -> None:
    """`fingerprint` is what `datasets` names by that it computes from the rows."""
    state = {
        "_data_files": [{"filename": _ARROW}],
        "_fingerprint": fingerprint,
        "_format_columns": None,
        "_format_kwargs": {},
        "_format_type": None,
        "_output_all_columns": False,
        "_split": part,
    }
    _write_json(folder / "state.json", state)
    _write_json(folder / "dataset_info.json", {"citation": "", "description": "", "homepage": "", "license": ""})


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2), encoding="utf-8")


def _is_dataset(folder: Path) -> bool:
    return (folder / "dataset_dict.json").exists() or (folder / "state.json").exists()
