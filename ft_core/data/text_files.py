"""Text as records: its encoding, CSV and TSV, and plain text.

Plain text (.txt, .md) is a row for each paragraph, that is, for each run of lines between empty ones: {"text": ...}.
Where it begins with `Q:` it is questions and answers instead, one row for each pair: {"question": ..., "answer": ...}.
"""

from __future__ import annotations

import codecs
import csv
import json
import re
from collections.abc import Iterator
from typing import TextIO

from ..errors import FTError
from .reading import CHUNK, LONGEST_CELL, Broken, File, Meter, Record

_HEAD = 512
"""Bytes by which a file that is no text at all is told from one that is damaged."""

UNDECODED = re.compile("[\ud800-\udfff]")
"""What open() makes of bytes that are not in the file's encoding (errors="surrogateescape")."""
NO_TEXT = "bytes that are not text in the encoding of the file (UTF-8?)"
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f]")

FORMULA = re.compile(r"'*([\s\x00-\x1f\x7f\u200b-\u200f\u2060\ufeff]*[=+\-@＝＋－＠]|[\t\r\n])")
"""A CSV cell that a spreadsheet might run, behind any number of quotes and of characters that it may leave out."""


def opened(file: File, meter: Meter, newline: str | None = None) -> TextIO:
    """The text of a file. A byte that is no character becomes a lone surrogate, so the rows before it are read."""
    text = file.path.open(encoding=_encoding(file, meter), errors="surrogateescape", newline=newline)
    size, raw = file.path.stat().st_size, text.buffer
    meter.follow(lambda: 1.0 if raw.closed else raw.tell() / size)
    return text


def _encoding(file: File, meter: Meter) -> str:
    """UTF-8, -16 or -32 by its first bytes; else UTF-8 if it is that; else Windows-1252, which has all of Latin-1.

    A file with good UTF-8 before its first bad byte is damaged UTF-8, not Windows-1252.
    """
    decoder = codecs.getincrementaldecoder("utf-8")()
    with file.path.open("rb") as data:
        encoding = json.detect_encoding(data.read(4))
        if encoding != "utf-8":
            return encoding
        data.seek(0)
        ascii_so_far = True
        for chunk in iter(lambda: data.read(CHUNK), b""):
            try:
                decoder.decode(chunk, final=len(chunk) < CHUNK)
            except UnicodeDecodeError as error:
                good, rest = error.object[: error.start], error.object[error.start :]
                if len(good) < _HEAD and _CONTROL.search(error.object[:_HEAD].decode("latin-1")) and ascii_so_far:
                    hint = "A spreadsheet or an archive? Save the table as CSV."
                    raise FTError(f"{file.name} is not text", hint) from None
                return "cp1252" if ascii_so_far and good.isascii() and _western(rest) else "utf-8"
            ascii_so_far = ascii_so_far and chunk.isascii()
            meter.tick()
    return "utf-8"


def _western(data: bytes) -> bool:
    try:
        return not _CONTROL.search(data.decode("cp1252"))
    except UnicodeDecodeError:
        return False


def decoded(text: str, file: File, line: int) -> str:
    if not text.isascii() and UNDECODED.search(text):
        raise Broken(file.name, f"line {line}", NO_TEXT)
    return text


def lines(text: TextIO, file: File) -> Iterator[tuple[int, str]]:
    """The lines and their numbers. Raises Broken for one that is no text, and for one without an end."""
    number, read = 0, text.readline
    try:
        while line := read(LONGEST_CELL):
            number += 1
            if len(line) == LONGEST_CELL:
                raise Broken(file.name, f"line {number}", f"it is longer than {LONGEST_CELL:,} characters")
            yield number, decoded(line, file, number)
    except UnicodeDecodeError as error:
        raise Broken(file.name, f"line {number + 1}", error.reason) from None


# --- CSV


def table(file: File, meter: Meter) -> Iterator[Record]:
    csv.field_size_limit(LONGEST_CELL)
    line = 0  # the last one that was read
    with opened(file, meter, newline="") as text:
        delimiter = "\t" if file.kind == ".tsv" else _delimiter(text.read(1 << 16))
        text.seek(0)
        reader = csv.reader((line for _, line in lines(text, file)), delimiter=delimiter, strict=True)
        try:
            header = _header(next(filter(None, reader), []), file)
            line, n = reader.line_num, 0
            for cells in reader:
                if cells:  # not an empty line
                    n += 1
                    yield n, _row(header, cells)
                line = reader.line_num
        except csv.Error as error:
            # An open quote swallows the rest of the file; the row that opened it is the place to look.
            open_quote = "unexpected end" in str(error) or "field larger" in str(error)
            place = line + 1 if open_quote else reader.line_num
            raise Broken(file.name, f"line {place}", "a quote is never closed" if open_quote else str(error)) from None


def _delimiter(sample: str) -> str:
    """Whichever of , ; tab | makes the most columns of the first line."""
    return max(",;\t|", key=lambda mark: len(next(csv.reader(sample.splitlines()[:1], delimiter=mark), ())))


def _header(cells: list[str], file: File) -> list[str]:
    header = [name.strip() for name in cells]
    twice = sorted({name for name in header if name and header.count(name) > 1})
    if twice:
        raise FTError(f"{file.name} has two columns {twice[0]!r}", "Rename one of them.")
    return header


def _row(header: list[str], cells: list[str]) -> dict[str | None, str | None]:
    """Cells by column; under None those that have no column; None where a column has no cell."""
    row: dict = dict(zip(header, map(_unguarded, cells)))
    if len(cells) > len(header):
        row[None] = cells[len(header) :]
    for name in header[len(cells) :]:
        row[name] = None
    return row


def guarded(cell: str) -> str:
    """A cell that no spreadsheet runs as a formula: the quote in front makes it text."""
    return f"'{cell}" if FORMULA.match(cell) else cell


def _unguarded(cell: str) -> str:
    return cell[1:] if cell.startswith("'") and FORMULA.match(cell) else cell


# --- plain text

_ASKS = re.compile(r"(?:q|question|user|human|prompt)[ \t]*\d*[ \t]*[:：][ \t]*", re.IGNORECASE)
_ANSWERS = re.compile(r"(?:a|answer|assistant|gpt|response)[ \t]*\d*[ \t]*[:：][ \t]*", re.IGNORECASE)


def asks(text: str) -> bool:
    """Whether a text begins as questions and answers do."""
    return bool(_ASKS.match(text.lstrip("\ufeff \t\r\n")))


def plain(file: File, meter: Meter) -> Iterator[Record]:
    with opened(file, meter) as text:
        start = text.read(CHUNK)
        text.seek(0)
        if not start.strip() and len(start) < CHUNK:
            raise FTError(f"{file.name} is empty (white space alone)", "Was it saved to its end?")
        yield from _pairs(text, file) if asks(start) else _paragraphs(text, file)


def _paragraphs(text: TextIO, file: File) -> Iterator[Record]:
    said: list[str] = []
    length = began = 0
    for number, line in lines(text, file):
        if line.strip():
            began = began if said else number
            said.append(line)
            length += len(line)
            if length > LONGEST_CELL:
                raise Broken(file.name, f"line {began}", f"a paragraph is longer than {LONGEST_CELL:,} characters")
        elif said:
            yield began, {"text": "".join(said).strip()}
            said, length = [], 0
    if said:
        yield began, {"text": "".join(said).strip()}


def _pairs(text: TextIO, file: File) -> Iterator[Record]:
    """A question reaches to its answer, and the answer to the next question."""
    pair: dict[str, list[str]] = {}
    began = 0
    for number, line in lines(text, file):
        if asked := _ASKS.match(line):
            if pair:
                yield began, _pair(pair)
            pair, began = {"question": [line[asked.end() :]]}, number
        elif (answered := _ANSWERS.match(line)) and "answer" not in pair:
            pair["answer"] = [line[answered.end() :]]
        elif pair:
            pair["answer" if "answer" in pair else "question"].append(line)
        if sum(map(len, pair.values())) > 1 << 20:  # lines of one pair
            raise Broken(file.name, f"line {began}", "a question and its answer have more than a million lines")
    if pair:
        yield began, _pair(pair)


def _pair(pair: dict[str, list[str]]) -> dict[str, str | None]:
    return {"question": None, "answer": None} | {name: "".join(said).strip() for name, said in pair.items()}
