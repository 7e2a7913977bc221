"""Boxes of files: a folder, or a ZIP archive whose members are unpacked one by one into temporary files.

What a box holds is known by names and sizes; a name is never used as a path, so none can lead out of it.
"""

from __future__ import annotations

import contextlib
import gzip
import lzma
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from ..errors import FTError
from ..workspace import on_a_space
from .reading import CHUNK, Meter

MOST_FILES = 10_000
"""Files in a box. More is no dataset."""
UNPACKED = 64 << 30
"""Bytes that an archive may unpack to: a few kilobytes can claim petabytes."""
UNPACKED_ON_A_SPACE = 2 << 30
PREVIEW = 64 << 20
"""Bytes of a packed text that are unpacked for a look at its first rows."""

_DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, OSError, lzma.LZMAError, NotImplementedError, ValueError)


def limit() -> int:
    return UNPACKED_ON_A_SPACE if on_a_space() else UNPACKED


@dataclass(frozen=True)
class Unpacked:
    """A file as it lies on the disk, and the reason if it ends before its end."""

    path: Path
    cut: str = ""


class Folder:
    """All files of a folder, in the order of their names; hidden ones are left alone."""

    def __init__(self, path: Path):
        self._path = path
        found = sorted(p for p in path.rglob("*") if p.is_file())
        inside = {p.relative_to(path).as_posix(): p.stat().st_size for p in found}
        self.sizes = {name: size for name, size in inside.items() if not hidden(name)}
        _not_too_many(path.name, self.sizes)

    @contextlib.contextmanager
    def file(self, name: str, meter: Meter, most: int) -> Iterator[Unpacked]:
        yield Unpacked(self._path / name)


class Zip:
    """The files of a ZIP archive. Raises FTError when it is none."""

    def __init__(self, path: Path, name: str):
        self._name = name
        self._left = limit()
        try:
            self._zip = zipfile.ZipFile(path)
        except (*_DAMAGE, OverflowError) as error:
            raise FTError(
                f"{name} is no whole ZIP archive: {_reason(error)}", "Was it copied, or loaded, to its end?"
            ) from None
        members = [m for m in self._zip.infolist() if not m.is_dir() and not hidden(m.filename)]
        self._members = {m.filename: m for m in members}
        if len(self._members) < len(members):
            raise FTError(f"{name} has two files of one name", "Unpack it, and import the files one by one.")
        self.sizes = {name: self._members[name].compress_size for name in sorted(self._members)}
        _not_too_many(name, self.sizes)

    def __enter__(self) -> Zip:
        return self

    def __exit__(self, *_: object) -> None:
        self._zip.close()

    @contextlib.contextmanager
    def file(self, name: str, meter: Meter, most: int) -> Iterator[Unpacked]:
        """A member in a temporary file, its first `most` bytes. Raises FTError when it unpacks to too much."""
        member = self._members[name]
        if member.flag_bits & 1:
            raise FTError(f"{self._name}: {name} is encrypted", "Make the archive again, without a password.")
        with tempfile.NamedTemporaryFile(prefix="import-") as target:
            try:
                with self._zip.open(member) as source:
                    cut, size = copied(source, target, meter, min(most, self._left + 1))
            except (*_DAMAGE, RuntimeError) as error:
                raise FTError(f"{self._name}: {name} cannot be unpacked: {_reason(error)}", "Pack it again.") from None
            self._left -= size
            if self._left < 0:
                raise too_much(self._name)
            yield Unpacked(Path(target.name), cut and f"what is packed is damaged ({cut})")


def _not_too_many(name: str, sizes: dict[str, int]) -> None:
    if len(sizes) > MOST_FILES:
        raise FTError(f"{name} has {len(sizes):,} files", f"Up to {MOST_FILES:,} are read at once; take a part of it.")


def hidden(name: str) -> bool:
    """What systems leave behind, such as .DS_Store and __MACOSX/."""
    return any(part == "__MACOSX" or part.strip(".") and part[0] == "." for part in name.split("/"))


@contextlib.contextmanager
def gunzipped(packed: Unpacked, name: str, meter: Meter, most: int) -> Iterator[Unpacked]:
    """What a .gz holds, in a temporary file."""
    with tempfile.NamedTemporaryFile(prefix="import-") as target, gzip.open(packed.path) as source:
        cut, size = copied(source, target, meter, min(most, limit() + 1))
        if size > limit():
            raise too_much(name)
        if cut and not size:
            raise FTError(f"{name} is no whole gzip file: {cut}", "Was it copied, or loaded, to its end?")
        yield Unpacked(Path(target.name), f"what is packed is damaged ({cut})" if cut else packed.cut)


def too_much(name: str) -> FTError:
    return FTError(
        f"{name} unpacks to more than {limit() >> 30} GB, and is not read further",
        "If it is no trap, unpack it and import its files one by one.",
    )


def copied(source: IO[bytes], target: IO[bytes], meter: Meter, most: int) -> tuple[str, int]:
    """Copies up to `most` bytes. Returns why it ended early, '' if it did not, and how many they were."""
    size = 0
    read = getattr(source, "read1", source.read)  # read alone gives nothing of a piece that ends early
    while size < most:
        try:
            data = read(min(CHUNK, most - size))
        except _DAMAGE as error:
            target.flush()
            return _reason(error), size
        if not data:
            break
        _put(target, data)
        size += len(data)
        meter.tick()
    target.flush()
    return "", size


def _put(target: IO[bytes], data: bytes) -> None:
    try:
        target.write(data)
    except OSError as error:
        raise FTError(
            f"there is no room to unpack into: {error.strerror}", "Free some, or set TMPDIR to another disk."
        ) from None


def _reason(error: Exception) -> str:
    text = str(error) or type(error).__name__
    return f"{text[0].lower()}{text[1:]}".splitlines()[0].rstrip(".")[:200]
