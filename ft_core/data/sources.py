"""Where rows come from: a file, a folder, an archive, an address, a dataset of the Hub; each as tables of records.

    rows.jsonl, rows.csv.gz        one table
    rows.zip, a folder             a table for each file in it; files of other kinds are named as skipped. Text files
                                   (.txt, .md) are taken only where there is nothing else.
    a folder that `datasets` saved one table for each split, also inside an archive
    https://, s3://, hf://, ...    copied to a temporary file first (see addresses)
    hub:owner/name                 rows of a dataset of the Hub (see hub_rows), also as a HubRows

Whoever reads a source closes its generator, which removes the temporary files.
"""

from __future__ import annotations

import contextlib
import re
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ..errors import FTError
from . import addresses, archives, files, pasted
from .archives import Folder, Unpacked, Zip
from .reading import Broken, File, HubRows, Meter, Pasted, Record, Table

Source = Path | str | HubRows | Pasted
"""A path; or as text: a path, an address such as s3://..., hub:owner/name; or more than a text can say."""


@dataclass(frozen=True)
class Left:
    """A file that is not taken, and why."""

    file: str
    reason: str


def parsed(source: Source) -> Source:
    """A text as what it means."""
    if not isinstance(source, str):
        return source
    if source.startswith("hub:"):
        return HubRows(source.removeprefix("hub:").strip().strip("/"))
    return source if addresses.is_one(source) else Path(source)


def named(source: Source) -> str:
    """A source as people know it."""
    match parsed(source):
        case Path() as path:
            return path.name or str(path)
        case HubRows(repo=repo):
            return f"hub:{repo}"
        case Pasted():
            return pasted.NAME
        case address:
            return addresses.file_name(address)


def tables(
    source: Source, meter: Meter, preview: bool = False, token: str | bool | None = None
) -> Iterator[Table | Left]:
    """The tables of a source. For a `preview` no more is unpacked than its first rows need.

    `token` is the Hub's: None takes the one that this machine is logged in with, False none. Raises FTError when the
    source cannot be reached or opened.
    """
    match parsed(source):
        case HubRows() as wanted:
            from . import hub_rows  # loads `datasets`, which takes seconds

            meter.begin(0)
            yield hub_rows.table(wanted, token)
        case Pasted(text=text):
            yield from _pasted(text, meter)
        case Path() as path:
            yield from _at(path, path.name, meter, preview)
        case address:
            with addresses.copied(address, meter, token, preview) as path:
                yield from _at(path, addresses.file_name(address), meter, preview)


def _at(path: Path, name: str, meter: Meter, preview: bool) -> Iterator[Table | Left]:
    most = archives.PREVIEW if preview else archives.UNPACKED + 1
    try:
        if path.is_dir():
            box = Folder(path)
            meter.total += sum(box.sizes.values())
            yield from _in(box, path.resolve().name, "/", meter, most)
        elif files.kind_of(name) == ".zip":
            with Zip(path, name) as box:
                meter.total += sum(box.sizes.values())
                yield from _in(box, name, ": ", meter, most)
        else:
            meter.total += path.stat().st_size
            yield Table(name, _records(_Single(path), [path.name], name, meter, most))
    except OSError as error:
        raise FTError(f"{name} cannot be read: {error.strerror or error}", "Is the path right?") from None


def _pasted(text: str, meter: Meter) -> Iterator[Table]:
    with tempfile.TemporaryDirectory(prefix="import-") as folder:
        path = Path(folder) / f"pasted{pasted.kind(text)}"
        path.write_text(text, encoding="utf-8", errors="surrogatepass", newline="")
        meter.total += path.stat().st_size
        yield Table(pasted.NAME, _records(_Single(path), [path.name], pasted.NAME, meter, archives.UNPACKED + 1))


class _Single:
    """A box with one file in it."""

    def __init__(self, path: Path):
        self._path = path
        self.sizes = {path.name: path.stat().st_size}

    @contextlib.contextmanager
    def file(self, name: str, meter: Meter, most: int) -> Iterator[Unpacked]:
        yield Unpacked(self._path)


Box = _Single | Folder | Zip

# --- which files of a box are tables

_SAVED = {"dataset_info.json", "state.json", "dataset_dict.json", "dataset_infos.json"}
"""What `datasets` writes beside the rows."""
_SHARD = re.compile(r"-(\d{5,})-of-(\d{5,})\.arrow$")


def _in(box: Box, name: str, joint: str, meter: Meter, most: int) -> Iterator[Table | Left]:
    saved = {str(PurePosixPath(n).parent) for n in box.sizes if PurePosixPath(n).name == "state.json"}
    shards: dict[str, list[str]] = {}
    singles, texts, left = [], [], []
    for file in box.sizes:
        path, kind = PurePosixPath(file), _kind(file)
        if path.name in _SAVED:
            continue
        if str(path.parent) in saved and kind == ".arrow":
            shards.setdefault(str(path.parent), []).append(file)
        elif kind in (".txt", ".md"):
            texts.append(file)
        elif kind in files.KINDS:
            singles.append(file)
        else:
            again = "an archive in an archive is not opened" if kind == ".zip" else "files of this kind are not known"
            left.append(Left(f"{name}{joint}{file}", again))
    if shards or singles:
        left += [Left(f"{name}{joint}{text}", "a text beside tables; import it alone if it is data") for text in texts]
        texts = []
    yield from left
    if not (shards or singles or texts):
        raise FTError(f"{name} holds no file that can be imported", f"Known are {', '.join(files.KINDS)}.")
    for folder, parts in shards.items():
        shown = name if folder == "." else f"{name}{joint}{folder}"
        _whole(parts, shown)
        yield Table(shown, _records(box, parts, shown, meter, most))
    for file in singles + texts:
        shown = f"{name}{joint}{file}"
        yield Table(shown, _records(box, [file], shown, meter, most))


def _kind(name: str) -> str:
    """Of what is in a .gz, the inner kind."""
    return files.kind_of(name[:-3]) if name.lower().endswith(".gz") else files.kind_of(name)


def _whole(parts: Iterable[str], name: str) -> None:
    """Raises FTError when a folder of `datasets` lacks one of its files."""
    numbers = [(int(m[1]), int(m[2])) for part in parts if (m := _SHARD.search(part))]
    wanted = max((of for _, of in numbers), default=0)
    missing = sorted(set(range(wanted)) - {n for n, _ in numbers}) if wanted <= archives.MOST_FILES else [0]
    if missing:
        lacks = f"data-{missing[0]:05d}-of-{wanted:05d}.arrow"
        raise FTError(f"{name} is not whole: {lacks} is missing", "Copy the whole folder again.")


# --- the rows of a table


def _records(box: Box, parts: list[str], name: str, meter: Meter, most: int) -> Iterator[Record | Broken]:
    """The rows of files that follow one another, numbered through."""
    before = 0
    for part in parts:
        n = 0
        meter.begin(box.sizes[part])
        for item in _of_one(box, part, name, meter, most):
            if isinstance(item, Broken):
                yield item
                return
            n = item[0]
            yield before + n, item[1]
        before += n


def _of_one(box: Box, part: str, name: str, meter: Meter, most: int) -> Iterator[Record | Broken]:
    kind = _kind(part)
    part_of = most if kind in files.TEXT_KINDS else archives.UNPACKED + 1  # other kinds are read from their end
    packed = part.lower().endswith(".gz")
    with contextlib.ExitStack() as stack:
        found = stack.enter_context(box.file(part, meter, archives.UNPACKED + 1 if packed else part_of))
        if packed:
            found = stack.enter_context(archives.gunzipped(found, name, meter, part_of))
        n = 0
        for item in files.records(File(found.path, name, kind), meter):
            if isinstance(item, Broken):
                yield Broken(name, item.place, found.cut) if found.cut else item
                return
            n = item[0]
            yield item
        if found.cut:
            yield Broken(name, f"row {n + 1}", found.cut)
