"""Rows as the tokens that a trainer reads: a folder of `datasets` for one base model (after Saturn's dataprep).

Columns of a row:

    input_ids        the conversation in the base model's chat template, cut at max_length
    labels           the same ids where the assistant speaks, -100 elsewhere: the prompt is not learnt
    attention_mask   1 for each token; nothing is padded, that is the collator's business
    full_text        the conversation as the template writes it, whole, also where input_ids are cut

With packing a row is several whole conversations one after the other, up to max_length tokens; none is torn apart, and
one that is longer is cut as it would be alone. full_text is theirs joined, and there is one more column:

    position_ids     counts from 0 anew where a conversation begins

Nothing else tells conversations apart in a packed row: attention crosses from one to the next unless the trainer reads
position_ids as their borders (transformers does with flash attention, and TRL's padding-free collator).
The label of a conversation's first token is -100 behind another one, because it would be learnt from that one's end.

The prompt format of `contexts` (see shapes.py) is the same for every base model: they are part of the user's turn, and
the model's own chat template writes that turn. There is no other format for each model, and no rows that are left out:
rows that are cut, that teach nothing, or that the template refuses are counted, the last ones named.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from ..conversation import Conversation
from ..errors import FTError
from ..render import IGNORED, Renderer
from . import folder
from .store import Store

_OPEN = 64
"""Packed rows that are being filled at once."""
_BATCH = 500
"""Rows that are in memory at once, beside these."""

_IDS = pa.list_(pa.int32())
_COLUMNS = {"input_ids": _IDS, "labels": _IDS, "attention_mask": pa.list_(pa.int8()), "full_text": pa.string()}


@dataclass
class Prepared:
    """What was written. Numbers of rows are those of the store, whatever was packed into one."""

    rows: int = 0
    written: Counter[str] = field(default_factory=Counter)
    """Rows of the folder, by part: train and test."""
    cut: int = 0
    """Rows longer than max_length."""
    lost: int = 0
    """Tokens past max_length that would have been learnt."""
    nothing_learnt: int = 0
    """Rows that teach nothing: no answer, or all of it past max_length."""
    refused: list[dict[str, Any]] = field(default_factory=list)
    """Rows that the model's template cannot write, which are in no part: {"row": id, "reason": text}."""
    tokens: int = 0
    learnt: int = 0
    """Of the tokens."""

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"written": dict(self.written)}


@dataclass(frozen=True)
class _Row:
    ids: tuple[int, ...]
    labels: tuple[int, ...]
    text: str


def prepare(store: Store, renderer: Renderer, path: Path, max_length: int, pack: bool = False) -> Prepared:
    """Writes the rows that are not rejected for the renderer's model: parts train and test where rows are held out.

    A folder of `datasets` that is there is replaced. Raises FTError when there are no rows, when the template refuses
    all of them, and as folder.replaced does.
    """
    done = Prepared()
    columns = _COLUMNS | ({"position_ids": _IDS} if pack else {})
    with folder.replaced(path) as made:
        out = _Out(folder.Parts(made, pa.schema(list(columns.items()))), tuple(columns), done.written)
        packs: dict[str, _Pack] = {}
        for id, conversation, side in store.conversations():
            row = _rendered(id, conversation, renderer, max_length, done)
            part = folder.PARTS[side]
            if row is None:
                continue
            for rows in packs.setdefault(part, _Pack(max_length)).add(row) if pack else [[row]]:
                out.write(part, rows)
        for part, pack_ in packs.items():
            for rows in pack_.rest():
                out.write(part, rows)
        out.close()
        if not done.rows:
            reason = f"; row {done.refused[0]['row']}: {done.refused[0]['reason']}" if done.refused else ""
            raise FTError(f"there are no rows to prepare{reason}", "Import or generate some, or choose another model.")
    return done


def _rendered(id: int, conversation: Conversation, renderer: Renderer, max_length: int, done: Prepared) -> _Row | None:
    """The row in tokens, counted in `done`; None when the template refuses it."""
    try:
        example = renderer.example(conversation, max_length)
    except FTError as error:
        done.refused.append({"row": id, "reason": error.message})
        return None
    done.rows += 1
    done.cut += example.cut > 0
    done.lost += example.cut_learnt
    done.nothing_learnt += example.learnt == 0
    done.tokens += len(example.ids)
    done.learnt += example.learnt
    return _Row(example.ids, example.labels, renderer.text(conversation.messages, tools=conversation.tools))


class _Pack:
    """Fills sequences of up to `most` tokens: a row goes where the least room is left after it (best fit)."""

    def __init__(self, most: int):
        self._most = most
        self._open: list[tuple[int, list[_Row]]] = []

    def add(self, row: _Row) -> Iterator[list[_Row]]:
        """Yields the rows of a sequence that is given up on, as the fullest of too many."""
        fits = [i for i, (length, _) in enumerate(self._open) if length + len(row.ids) <= self._most]
        if fits:
            best = max(fits, key=lambda i: self._open[i][0])
            length, rows = self._open[best]
            self._open[best] = length + len(row.ids), [*rows, row]
            return
        self._open.append((len(row.ids), [row]))
        if len(self._open) > _OPEN:
            fullest = max(range(len(self._open)), key=lambda i: self._open[i][0])
            yield self._open.pop(fullest)[1]

    def rest(self) -> Iterator[list[_Row]]:
        for _, rows in self._open:
            yield rows


class _Out:
    """The rows of the folder, a few of each part in memory."""

    def __init__(self, parts: folder.Parts, columns: tuple[str, ...], written: Counter[str]):
        self._parts = parts
        self._columns = columns
        self._written = written
        self._waiting: dict[str, list[dict[str, Any]]] = {}

    def write(self, part: str, rows: list[_Row]) -> None:
        """Rows of the store as one row of the folder."""
        record = {
            "input_ids": [id for row in rows for id in row.ids],
            "labels": [*rows[0].labels, *(label for row in rows[1:] for label in (IGNORED, *row.labels[1:]))],
            "attention_mask": [1 for row in rows for _ in row.ids],
            "full_text": "".join(row.text for row in rows),
            "position_ids": [i for row in rows for i in range(len(row.ids))],
        }
        self._written[part] += 1
        waiting = self._waiting.setdefault(part, [])
        waiting.append({name: record[name] for name in self._columns})
        if len(waiting) == _BATCH:
            self._flush(part)

    def close(self) -> None:
        for part in self._waiting:
            self._flush(part)
        self._parts.close()

    def _flush(self, part: str) -> None:
        if waiting := self._waiting[part]:
            self._parts.write(part, pa.RecordBatch.from_pylist(waiting, schema=self._parts.schema))
            self._waiting[part] = []
