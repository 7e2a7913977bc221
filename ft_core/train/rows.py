"""The frozen rows as a base model sees them: answers, pairs of answers, or blocks of plain text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from os.path import commonprefix
from statistics import fmean
from typing import TypeVar

from ..conversation import Conversation, Message
from ..data.freeze import FrozenRow
from ..errors import FTError
from ..recipe import TrainRecipe
from ..render import Rendered, Renderer

NEEDED = {
    "answers": "Rows need an answer that fits into max_length.",
    "preferences": "Preferences need rows with a better and a worse answer: vote under Compare or import some, or "
    "set learns to answers.",
    "text": "Import texts or conversations.",
}
"""By what is learnt: what rows must have."""

T = TypeVar("T")


@dataclass(frozen=True)
class Side:
    """The rows of one split."""

    rows: list[Rendered]
    """Of pairs the better answers."""
    ids: list[int]
    """Of each of `rows` its id in the store; of a block of text that of the document with which it begins."""
    worse: list[Rendered]
    """Of each pair its worse answer, empty where nobody learns from pairs."""


@dataclass(frozen=True)
class Rows:
    train: list[Rendered]
    heldout: list[Rendered]
    train_ids: list[int]
    """Of each row of `train` its id in the store, see Side."""
    left_out: list[str]
    """What cannot be used: how many rows, why, and which."""
    train_worse: list[Rendered]
    heldout_worse: list[Rendered]

    @property
    def longest(self) -> int:
        """Tokens of the longest row that is trained on."""
        return max(len(row.ids) for row in (*self.train, *self.train_worse))


def render(frozen: list[FrozenRow], renderer: Renderer, recipe: TrainRecipe) -> Rows:
    """What `recipe.learns` makes of the rows."""
    left_out: list[str] = []
    train, heldout = (
        side([row for row in frozen if row.split == name], renderer, recipe, left_out) for name in ("train", "heldout")
    )
    return Rows(train.rows, heldout.rows, train.ids, left_out, train.worse, heldout.worse)


def side(rows: list[FrozenRow], renderer: Renderer, recipe: TrainRecipe, left_out: list[str]) -> Side:
    """The rows of one split. What cannot be used is told in `left_out`."""
    longest = recipe.max_length
    match recipe.learns:
        case "preferences":
            pairs = _usable(rows, lambda c: _pair(c, renderer, longest), left_out)
            return Side([better for better, _ in pairs.values()], list(pairs), [worse for _, worse in pairs.values()])
        case "text":
            return Side(*_blocks(_usable(rows, renderer.document, left_out), longest), [])
    answers = _usable(rows, lambda c: _learning(renderer.example(c, longest)), left_out)
    return Side(list(answers.values()), list(answers), [])


def alike(rows: Sequence[Rendered], worse: Sequence[Rendered]) -> tuple[int, int]:
    """Tokens with which all of the rows begin, and those with which a row and its worse answer do, on average."""
    if len(rows) + len(worse) < 2:
        return 0, 0
    of_all = len(commonprefix([row.ids for row in (*rows, *worse)]))
    of_pairs = [len(commonprefix([better.ids, other.ids])) for better, other in zip(rows, worse)]
    return of_all, round(fmean(of_pairs)) if of_pairs else 0


def _usable(rows: list[FrozenRow], read: Callable[[Conversation], T], left_out: list[str]) -> dict[int, T]:
    """What `read` makes of each row, by id; a row for which it raises FTError is named in `left_out`."""
    usable: dict[int, T] = {}
    refused: dict[str, list[int]] = {}
    for row in rows:
        try:
            usable[row.id] = read(row.conversation)
        except FTError as error:
            refused.setdefault(error.message, []).append(row.id)
    for reason, ids in refused.items():
        named = ", ".join(map(str, ids[:10])) + (", ..." if len(ids) > 10 else "")
        left_out.append(f"{len(ids)} rows are left out: {reason} (rows {named})")
    return usable


def _learning(example: Rendered) -> Rendered:
    if not example.learnt:
        raise FTError("nothing in them is learnt within max_length")
    return example


def _pair(conversation: Conversation, renderer: Renderer, max_length: int) -> tuple[Rendered, Rendered]:
    """The better and the worse answer behind the same turns; nothing but the answer is learnt, so nothing else counts
    as better or worse."""
    if not conversation.rejected:
        raise FTError("they have no worse answer")
    other = replace(conversation, messages=(*conversation.messages[:-1], Message("assistant", conversation.rejected)))
    better, worse = (_learning(renderer.example(c, max_length, last=True)) for c in (conversation, other))
    if better.ids == worse.ids:
        raise FTError("the better and the worse answer are the same within max_length")
    return better, worse


def _blocks(documents: dict[int, list[int]], max_length: int) -> tuple[list[Rendered], list[int]]:
    """Documents one behind the other, in blocks of `max_length` tokens that are all learnt, and the id of the document
    with which each begins.

    What is left at the end is a shorter block, nothing is dropped. One token alone would teach nothing, for nothing
    stands before it: then the block before gives it its last one.
    """
    tokens = [token for ids in documents.values() for token in ids]
    owner = [row for row, ids in documents.items() for _ in ids]
    cuts = [*range(0, len(tokens), max_length), len(tokens)]
    if len(cuts) > 2 and cuts[-1] - cuts[-2] == 1:
        cuts[-2] -= 1
    blocks = [tuple(tokens[start:end]) for start, end in zip(cuts, cuts[1:])]
    return [Rendered(block, block) for block in blocks], [owner[start] for start in cuts[:-1]]
