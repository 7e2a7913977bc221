"""Files as records: CSV, TSV, JSON, JSON Lines and Parquet, streamed, with the place where one breaks.

A record is what one row of the file holds: a dict by column, or whatever JSON has there. What it means is the
business of `shapes`. A JSON object that spans the whole file is the only thing that is read in one piece.
"""

from __future__ import annotations

import codecs
import csv
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

import pyarrow as pa
import pyarrow.parquet as pq

from ..errors import FTError

Record = tuple[int, Any]
"""The row's number, from 1 (in JSON Lines its line), and what it holds."""

_CHUNK = 1 << 20
_HEAD = 512
"""Bytes by which a file that is no text at all is told from one that is damaged."""
_LONGEST_CELL = 1 << 26
"""A quote that is never closed is noticed after so many characters."""
_BATCH = 500
"""Rows of a Parquet file in memory at once."""

_UNDECODED = re.compile("[\ud800-\udfff]")
"""What open() makes of bytes that are not in the file's encoding (errors="surrogateescape")."""
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f]")
_SPACE = re.compile(r"[ \t\n\r]*")

FORMULA = re.compile(r"'*(\s*[=+\-@＝＋－＠]|[\t\r\n])")
"""A CSV cell that a spreadsheet might run, behind any number of quotes."""


class Broken(FTError):
    """The file's syntax breaks here; the rows before it are good."""

    def __init__(self, file: str, place: str, reason: str):
        super().__init__(
            f"{file} is broken at {place}: {reason}", "Mend it there, or take only the rows before it (partial)."
        )
        self.file = file
        self.place = place
        self.reason = reason


def records(path: Path) -> Iterator[Record | Broken]:
    """The rows of a file; the last item is Broken when its syntax breaks there.

    Raises FTError when the file is not there, is empty, or is of no kind that is known.
    """
    read = _READERS.get(path.suffix.lower())
    if read is None:
        raise FTError(
            f"{path.name} cannot be imported: files of the kind {path.suffix or 'without an ending'!r} are not known",
            f"Known are {', '.join(_READERS)}. Save the table as one of these.",
        )
    try:
        if path.stat().st_size == 0:
            raise FTError(f"{path.name} is empty (0 bytes)", "Was it saved, or copied, to its end?")
        yield from read(path)
    except OSError as error:
        raise FTError(f"{path.name} cannot be read: {error.strerror or error}", "Is the path right?") from None
    except Broken as broken:
        yield broken


# --- text


def _open(path: Path, newline: str | None = None) -> TextIO:
    # A byte that is no character becomes a lone surrogate here, so that the rows before it are still read.
    return path.open(encoding=_encoding(path), errors="surrogateescape", newline=newline)


def _encoding(path: Path) -> str:
    """UTF-8, -16 or -32 by its first bytes; else UTF-8 if it is that; else Windows-1252, which has all of Latin-1.

    A file with good UTF-8 before its first bad byte is damaged UTF-8, not Windows-1252.
    """
    decoder = codecs.getincrementaldecoder("utf-8")()
    with path.open("rb") as file:
        encoding = json.detect_encoding(file.read(4))
        if encoding != "utf-8":
            return encoding
        file.seek(0)
        ascii_so_far = True
        for chunk in iter(lambda: file.read(_CHUNK), b""):
            try:
                decoder.decode(chunk, final=len(chunk) < _CHUNK)
            except UnicodeDecodeError as error:
                good, rest = error.object[: error.start], error.object[error.start :]
                if len(good) < _HEAD and _CONTROL.search(error.object[:_HEAD].decode("latin-1")) and ascii_so_far:
                    hint = "A spreadsheet or an archive? Save the table as CSV."
                    raise FTError(f"{path.name} is not text", hint) from None
                return "cp1252" if ascii_so_far and good.isascii() and _western(rest) else "utf-8"
            ascii_so_far = ascii_so_far and chunk.isascii()
    return "utf-8"


def _western(data: bytes) -> bool:
    try:
        return not _CONTROL.search(data.decode("cp1252"))
    except UnicodeDecodeError:
        return False


def _decoded(text: str, path: Path, line: int) -> str:
    if _UNDECODED.search(text):
        raise Broken(path.name, f"line {line}", "bytes that are not text in the encoding of the file (UTF-8?)")
    return text


# --- CSV


def _csv(path: Path) -> Iterator[Record]:
    csv.field_size_limit(_LONGEST_CELL)
    line = 0  # the last one that was read
    with _open(path, newline="") as file:
        try:
            delimiter = "\t" if path.suffix.lower() == ".tsv" else _delimiter(file.read(1 << 16))
            file.seek(0)
            reader = csv.DictReader(file, delimiter=delimiter, strict=True)
            header = [name.strip() for name in reader.fieldnames or ()]
            twice = sorted({name for name in header if name and header.count(name) > 1})
            if twice:
                raise FTError(f"{path.name} has two columns {twice[0]!r}", "Rename one of them.")
            reader.fieldnames = header
            line = reader.line_num
            for n, row in enumerate(reader, 1):
                cells = {
                    k: _unguarded(_decoded(v, path, line + 1)) if isinstance(v, str) else v for k, v in row.items()
                }
                line = reader.line_num
                yield n, cells
        except csv.Error as error:
            # An open quote swallows the rest of the file; the row that opened it is the place to look.
            open_quote = "unexpected end" in str(error) or "field larger" in str(error)
            place = line + 1 if open_quote else reader.reader.line_num
            raise Broken(path.name, f"line {place}", "a quote is never closed" if open_quote else str(error)) from None
        except UnicodeDecodeError as error:
            raise Broken(path.name, f"line {line + 1}", error.reason) from None


def _delimiter(sample: str) -> str:
    """Whichever of , ; tab | makes the most columns of the first line."""
    return max(",;\t|", key=lambda mark: len(next(csv.reader(sample.splitlines()[:1], delimiter=mark), ())))


def guarded(cell: str) -> str:
    """A cell that no spreadsheet runs as a formula: the quote in front makes it text."""
    return f"'{cell}" if FORMULA.match(cell) else cell


def _unguarded(cell: str) -> str:
    return cell[1:] if cell.startswith("'") and FORMULA.match(cell) else cell


# --- JSON


def _json(path: Path) -> Iterator[Record]:
    """A list of rows; an object of columns, or around one list; or JSON Lines under the wrong ending."""
    with _open(path) as file:
        scanner = _Scanner(file, path)
        first = scanner.peek()
        if not first:
            raise FTError(f"{path.name} is empty (white space alone)", "Was it saved to its end?")
        if first == "[":
            yield from enumerate(scanner.array(), 1)
            return
        file.seek(0)
        if path.suffix.lower() != ".json" or _has_lines(file):
            file.seek(0)
            yield from _lines(file, path)
            return
    with _open(path) as file:
        scanner = _Scanner(file, path)
        scanner.peek()
        value = scanner.value()
        scanner.end()
    yield from enumerate(_rows(value, path), 1)


def _has_lines(file: TextIO) -> bool:
    """Whether the first line is a whole object, with more behind it."""
    lines = (line for line in file if line.strip())
    try:
        return isinstance(json.loads(next(lines)), dict) and next(lines, None) is not None
    except ValueError:
        return False


def _lines(file: TextIO, path: Path) -> Iterator[Record]:
    number = 0
    try:
        for number, line in enumerate(file, 1):
            if line.strip():
                yield number, _parsed(_decoded(line, path, number), path, number)
    except UnicodeDecodeError as error:
        raise Broken(path.name, f"line {number + 1}", error.reason) from None


def _parsed(text: str, path: Path, line: int) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise Broken(path.name, f"line {line}", _reason(error)) from None
    except RecursionError:
        raise Broken(path.name, f"line {line}", "it is nested too deeply") from None
    except ValueError as error:  # a whole number of thousands of digits
        raise Broken(path.name, f"line {line}", str(error)) from None


def _reason(error: json.JSONDecodeError) -> str:
    return f"{error.msg[0].lower()}{error.msg[1:]} (column {error.colno})"


class _Scanner:
    """JSON values out of a text that need not fit into memory."""

    def __init__(self, file: TextIO, path: Path):
        self._file = file
        self._path = path
        self._buffer = ""
        self._at = 0
        self._line = 1  # of the buffer's first character
        self._undecoded = False
        self._decode = json.JSONDecoder().raw_decode

    def peek(self) -> str:
        """The next character that is no space, '' at the end."""
        while True:
            self._at = _SPACE.match(self._buffer, self._at).end()
            if self._at < len(self._buffer):
                return self._buffer[self._at]
            if not self._more():
                return ""

    def array(self) -> Iterator[Any]:
        self._at += 1  # the bracket that peek saw
        if self.peek() == "]":
            self._at += 1
        else:
            while True:
                yield self.value()
                mark = self.peek()
                self._at += 1
                if mark == "]":
                    break
                if mark != ",":
                    self._at -= 1
                    raise self._broken("expecting ',' or ']'" if mark else "the file ends in the middle", self._at)
                self.peek()
        self.end()

    def end(self) -> None:
        if self.peek():
            raise self._broken("more text after the end", self._at)

    def value(self) -> Any:
        while True:
            try:
                value, end = self._decode(self._buffer, self._at)
            except json.JSONDecodeError as error:
                # Cut off by the end of the buffer? What is wrong is found well before it, but for open strings.
                at_the_end = error.msg.startswith("Unterminated string") or error.pos >= len(self._buffer) - 16
                if at_the_end and self._more():
                    continue
                raise self._broken(f"{error.msg[0].lower()}{error.msg[1:]}", error.pos) from None
            except RecursionError:
                raise self._broken("it is nested too deeply", self._at) from None
            except ValueError as error:  # a whole number of thousands of digits
                raise self._broken(str(error), self._at) from None
            if end == len(self._buffer) and self._more():
                continue  # a number may go on
            self._at = end
            return value

    def _more(self) -> bool:
        """Reads on, at least as much as is left, so that one long value is not parsed over and over."""
        if self._undecoded:
            return False
        try:
            text = self._file.read(max(_CHUNK, len(self._buffer) - self._at))
        except UnicodeDecodeError:
            text, self._undecoded = "", True
        if found := _UNDECODED.search(text):
            text, self._undecoded = text[: found.start()], True
        if text:
            self._line += self._buffer.count("\n", 0, self._at)
            self._buffer = self._buffer[self._at :] + text
            self._at = 0
        return bool(text)

    def _broken(self, reason: str, at: int) -> Broken:
        if self._undecoded:
            reason, at = "bytes that are not text in the encoding of the file (UTF-8?)", len(self._buffer)
        return Broken(self._path.name, f"line {self._line + self._buffer.count(chr(10), 0, at)}", reason)


def _rows(value: Any, path: Path) -> list[Any]:
    """The rows in a JSON object: around one list of rows, columns as lists (or as pandas writes them), or one row."""
    if not isinstance(value, dict):
        raise FTError(f"{path.name} holds {type(value).__name__}, not rows", "A list of objects is expected.")
    lists = {k: v for k, v in value.items() if isinstance(v, list)}
    tables = [v for v in lists.values() if v and all(isinstance(row, dict) and not _is_turn(row) for row in v)]
    if len(tables) == 1:
        return tables[0]
    if value and all(isinstance(v, dict) for v in value.values()):
        lists = {k: list(v.values()) for k, v in value.items()}
    columns = len(lists) == len(value) and not any(_is_turn(v) for column in lists.values() for v in column)
    if not columns:
        return [value]
    if len({len(v) for v in lists.values()}) > 1:
        lengths = ", ".join(f"{k} {len(v)}" for k, v in lists.items())
        raise FTError(f"{path.name} has columns of different lengths: {lengths}", "Every column needs every row.")
    return [dict(zip(lists, cells)) for cells in zip(*lists.values())]


def _is_turn(value: Any) -> bool:
    return isinstance(value, dict) and ("role" in value or "from" in value)


# --- Parquet


def _parquet(path: Path) -> Iterator[Record]:
    n = 0
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(_BATCH):
                for row in batch.to_pylist():
                    n += 1
                    yield n, row
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        if n == 0:
            reason = str(error).splitlines()[0]
            raise FTError(f"{path.name} is no whole Parquet file: {reason}", "Copy or write it again.") from None
        raise Broken(path.name, f"row {n + 1}", str(error).splitlines()[0]) from None


_READERS = {
    ".csv": _csv,
    ".tsv": _csv,
    ".json": _json,
    ".jsonl": _json,
    ".ndjson": _json,
    ".parquet": _parquet,
}
