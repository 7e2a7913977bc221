"""What is wrong with the text of one conversation."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Flag:
    name: str
    reason: str
    """A part of a sentence for people: "an e-mail address in turn 2"."""


def score(names: Iterable[str]) -> int:
    """100 without a flag, 20 less for each, never below 0."""
    return max(0, 100 - 20 * len(set(names)))
