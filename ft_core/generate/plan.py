"""The plan of a generation: which rows are wanted, each told apart from the others before the first one is written.

A teacher that is asked for "another row" two hundred times writes the same twenty. So every row has a topic, a person,
a tone and a length of its own, and an id that a resumed job finds again.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from ..workspace import write_whole

PERSONS = (
    "somebody who asks for the first time",
    "somebody who has been coming back for years",
    "somebody who knows the subject well",
    "somebody who does not know the right words for it",
    "somebody who asks on behalf of somebody else",
    "somebody who has just run into a problem",
    "somebody who compares two possibilities",
    "somebody who doubts what they were told",
)
TONES = ("friendly", "curt", "in a hurry", "a little annoyed", "curious", "formal", "careless about spelling")
LENGTHS = ("a few words", "one short sentence", "one long sentence", "two sentences, the first of them background")


@dataclass(frozen=True)
class PlannedRow:
    """One row that is wanted. The variation is that of the person; the assistant keeps its own manner."""

    id: str
    topic: str
    """'' when the teacher named no topics."""
    person: str
    tone: str
    length: str


@dataclass(frozen=True)
class Plan:
    """The rows, and what the teacher took in and gave out for the list of topics, in tokens."""

    rows: tuple[PlannedRow, ...]
    prompt_tokens: int
    completion_tokens: int

    def save(self, path: Path) -> None:
        write_whole(path, json.dumps(asdict(self), ensure_ascii=False))

    @classmethod
    def load(cls, path: Path) -> Plan:
        value = json.loads(path.read_text(encoding="utf-8"))
        return cls(**{**value, "rows": tuple(PlannedRow(**row) for row in value["rows"])})


def row_id(seed: int, index: int) -> str:
    return hashlib.sha256(f"{seed}:{index}".encode()).hexdigest()[:12]


def rows(topics: Sequence[str], count: int, seed: int) -> tuple[PlannedRow, ...]:
    """`count` rows that go through the topics evenly; the same for the same topics and seed."""
    shuffled = random.Random(seed).sample(list(topics), len(topics)) or [""]
    planned = []
    for index in range(count):
        id = row_id(seed, index)
        chance = random.Random(id)
        planned.append(
            PlannedRow(
                id,
                shuffled[index % len(shuffled)],
                chance.choice(PERSONS),
                chance.choice(TONES),
                chance.choice(LENGTHS),
            )
        )
    return tuple(planned)
