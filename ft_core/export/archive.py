"""Several files as one download."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path

_CHUNK = 2**22


def write(paths: list[Path], archive: Path) -> Iterator[float]:
    """Writes files, and folders with what is in them, to a zip of any size without compressing: weights do not
    shrink. Yields the share done, by bytes."""
    files = [(f, f.relative_to(p.parent)) for p in paths for f in ([p] if p.is_file() else sorted(p.rglob("*")))]
    total = sum(f.stat().st_size for f, _ in files) or 1
    done = 0
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as zipped:
        for file, name in files:
            with file.open("rb") as source, zipped.open(str(name), "w", force_zip64=True) as into:
                while chunk := source.read(_CHUNK):
                    into.write(chunk)
                    done += len(chunk)
                    yield done / total
