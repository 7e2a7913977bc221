"""JSON and JSON Lines as records. A JSON object that spans the whole file is the only thing read in one piece."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, TextIO

from ..errors import FTError
from .reading import CHUNK, LONGEST_CELL, Broken, File, Meter, Record
from .text_files import NO_TEXT, UNDECODED, lines, opened

_ONE_PIECE = 1 << 28
"""Characters of an object that spans the whole file."""
_SPACE = re.compile(r"[ \t\n\r]*")


def rows(file: File, meter: Meter) -> Iterator[Record]:
    """A list of rows; an object of columns, or around one list; or JSON Lines under the wrong ending."""
    with opened(file, meter) as text:
        scanner = _Scanner(text, file)
        first = scanner.peek()
        if not first:
            raise FTError(f"{file.name} is empty (white space alone)", "Was it saved to its end?")
        if first == "[":
            yield from enumerate(scanner.array(), 1)
            return
        text.seek(0)
        if file.kind != ".json" or _has_lines(text):
            text.seek(0)
            yield from _lines(text, file)
            return
        text.seek(0)
        scanner = _Scanner(text, file, _ONE_PIECE)
        scanner.peek()
        value = scanner.value()
        scanner.end()
    yield from enumerate(_rows(value, file), 1)


def _has_lines(text: TextIO) -> bool:
    """Whether the first line is a whole object, with more behind it."""
    found = (line for line in iter(lambda: text.readline(LONGEST_CELL), "") if line.strip())
    try:
        return isinstance(json.loads(next(found)), dict) and next(found, None) is not None
    except (ValueError, RecursionError):
        return False


def _lines(text: TextIO, file: File) -> Iterator[Record]:
    for number, line in lines(text, file):
        if line.strip():
            yield number, _parsed(line, file, number)


def _parsed(text: str, file: File, line: int) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise Broken(file.name, f"line {line}", _reason(error)) from None
    except RecursionError:
        raise Broken(file.name, f"line {line}", "it is nested too deeply") from None
    except ValueError as error:  # a whole number of thousands of digits
        raise Broken(file.name, f"line {line}", str(error)) from None


def _reason(error: json.JSONDecodeError) -> str:
    return f"{error.msg[0].lower()}{error.msg[1:]} (column {error.colno})"


class _Scanner:
    """JSON values out of a text that need not fit into memory; one value of up to `longest` characters must."""

    def __init__(self, text: TextIO, file: File, longest: int = LONGEST_CELL):
        self._text = text
        self._file = file
        self._longest = longest
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
        left = len(self._buffer) - self._at
        if left > self._longest:
            reason = f"one value is longer than {self._longest:,} characters"
            if self._longest == _ONE_PIECE:
                raise FTError(
                    f"{self._file.name} is one JSON object, and too large to be read in one piece",
                    "Save its rows as JSON Lines: one object a line.",
                )
            raise self._broken(reason, self._at)
        try:
            text = self._text.read(max(CHUNK, left))
        except UnicodeDecodeError:
            text, self._undecoded = "", True
        if not text.isascii() and (found := UNDECODED.search(text)):
            text, self._undecoded = text[: found.start()], True
        if text:
            self._line += self._buffer.count("\n", 0, self._at)
            self._buffer = self._buffer[self._at :] + text
            self._at = 0
        return bool(text)

    def _broken(self, reason: str, at: int) -> Broken:
        if self._undecoded:
            reason, at = NO_TEXT, len(self._buffer)
        return Broken(self._file.name, f"line {self._line + self._buffer.count(chr(10), 0, at)}", reason)


def _rows(value: Any, file: File) -> list[Any]:
    """The rows in a JSON object: around one list of rows, columns as lists (or as pandas writes them), or one row."""
    if not isinstance(value, dict):
        raise FTError(f"{file.name} holds {type(value).__name__}, not rows", "A list of objects is expected.")
    lists = {k: v for k, v in value.items() if isinstance(v, list)}
    tables = [v for v in lists.values() if v and all(isinstance(row, dict) and not _is_turn(row) for row in v)]
    if len(tables) == 1 and "messages" not in value:
        return tables[0]
    if value and all(isinstance(v, dict) for v in value.values()):
        lists = {k: list(v.values()) for k, v in value.items()}
    columns = len(lists) == len(value) and not any(_is_turn(v) for column in lists.values() for v in column)
    if not columns:
        return [value]
    if len({len(v) for v in lists.values()}) > 1:
        lengths = ", ".join(f"{k} {len(v)}" for k, v in lists.items())
        raise FTError(f"{file.name} has columns of different lengths: {lengths}", "Every column needs every row.")
    return [dict(zip(lists, cells)) for cells in zip(*lists.values())]


def _is_turn(value: Any) -> bool:
    return isinstance(value, dict) and ("role" in value or "from" in value)
