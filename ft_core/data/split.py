"""The split into rows to train and rows held out, so that the model can be tested on what it never saw.

It is kept as ids: rows that come later are placed beside the others, and no row moves unless the person asks for
another share, seed or grouping.

Rows that belong together go to the same side. Equal rows always do; DataRecipe.group says what does beside them. Each
source (a file, a generation) gives its share of the rows held out, as far as its groups allow it.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np

from ..errors import FTError
from . import views
from .store import Store

_SIDES = ("", "train", "heldout")
_TRAIN, _HELDOUT = 1, 2


def alike(text: str) -> bytes:
    """What rows that differ in case and white space alone have in common. `text` is Conversation.canonical()."""
    said = "\0".join(f"{role} {' '.join(' '.join(texts).casefold().split())}" for role, *texts in json.loads(text))
    return blake2b(said.encode(), digest_size=16).digest()


def assign(
    store: Store,
    share: float,
    seed: int,
    who: str = "",
    group: str = "equal",
    together: Mapping[int, int] | None = None,
) -> tuple[int, int]:
    """Places every row that has no place, and returns how many are trained on and how many held out.

    Groups go in the order of a hash of the seed and their text, until `share` of all rows is held out: at least one,
    unless all rows are one group. A group of more than a third of that number goes to train, because it would decide
    the test alone; a whole source may be as large as all of it. Another share, seed or grouping than last time places
    every row anew. `together`, row -> number of its group, takes the place of what `group` finds.

    Raises FTError when rows are grouped by more than being equal and no group is small enough to be held out.
    """
    rows = _Rows.of(store, seed, _labels(store, group) if together is None else together)
    if store.split_settings != (share, seed, group):
        rows.sides[:] = 0
    wanted = max(int(share * len(rows.ids) + 0.5), int(share > 0)) if len(rows.starts) > 1 else 0
    _place(rows, wanted, wanted if group == "source" else wanted / 3)
    held = int((rows.sides == _HELDOUT).sum())
    if share and not held and len(rows.ids) > 1 and group != "equal":
        raise FTError(
            f"nothing can be held out by {group}: {wanted:,} rows are wanted, and every group has too many",
            "Hold out a larger share, or group otherwise.",
        )
    sides = map(_SIDES.__getitem__, rows.sides.tolist())
    store.set_split(zip(rows.ids.tolist(), sides), share, seed, who, group)
    return len(rows.ids) - held, held


@dataclass(frozen=True)
class _Rows:
    """All rows, those of a group beside each other, the groups in the order in which they are held out."""

    ids: np.ndarray
    sides: np.ndarray
    """Places in _SIDES."""
    starts: np.ndarray
    """Where each group begins."""
    sources: np.ndarray
    """Of each group: that of its first row."""

    @classmethod
    def of(cls, store: Store, seed: int, together: Mapping[int, int]) -> _Rows:
        key = seed.to_bytes(8, "big")
        ids, sides, labels, hashes = array("q"), array("b"), array("q"), bytearray()
        for id, text, split in store.texts():
            ids.append(id)
            sides.append(_SIDES.index(split))
            labels.append(together.get(id, -1))
            hashes += blake2b(alike(text), key=key, digest_size=16).digest()
        rank = _ranks(hashes)
        first = _joined(rank, np.frombuffer(labels, np.int64)) if together else rank
        order = np.lexsort((np.arange(len(first)), first))  # by id within a group
        starts = np.flatnonzero(np.diff(first[order], prepend=-1))
        ids = np.frombuffer(ids, np.int64)[order]
        return cls(ids, np.frombuffer(sides, np.int8)[order].copy(), starts, _sources(store, ids[starts]))


def _ranks(hashes: bytearray) -> np.ndarray:
    """Of each hash of 16 bytes its place among them all, the same for equal ones."""
    high, low = np.frombuffer(hashes, ">u8").reshape(-1, 2).T
    order = np.lexsort((low, high))
    differs = (np.diff(high[order]) != 0) | (np.diff(low[order]) != 0)
    ranks = np.empty(len(order), np.int64)
    ranks[order] = np.concatenate([[0], np.cumsum(differs)]) if len(order) else order
    return ranks


def _joined(rank: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Of each row the lowest rank that it is linked to, by equal ranks and equal labels (-1 links nothing)."""
    _, labels = np.unique(np.where(labels < 0, -1 - np.arange(len(labels)), labels), return_inverse=True)
    found = rank
    while True:
        before = found
        for links in (labels, rank):
            lowest = np.full(links.max(initial=-1) + 1, len(rank))
            np.minimum.at(lowest, links, found)
            found = lowest[links]
        if (found == before).all():
            return found


def _place(rows: _Rows, wanted: int, largest: float) -> None:
    """Puts every row without a side on one. A group of more than one row and more than `largest` is trained on."""
    if not len(rows.ids):
        return
    lengths = np.diff(rows.starts, append=len(rows.ids))
    new = np.add.reduceat(rows.sides == 0, rows.starts, dtype=np.int64)
    trained = np.add.reduceat(rows.sides == _TRAIN, rows.starts, dtype=np.int64) > 0
    chosen = np.where(trained, _TRAIN, _HELDOUT).astype(np.int8)  # where a group has a place, its new rows follow
    whole = new == lengths
    chosen[whole] = _TRAIN
    of = np.unique(rows.sources, return_inverse=True)[1]
    held_rows = np.add.reduceat(rows.sides == _HELDOUT, rows.starts, dtype=np.int64)
    held = np.bincount(of, held_rows + np.where(~whole & (chosen == _HELDOUT), new, 0)).astype(np.int64)
    quotas = _quotas(np.bincount(of, lengths).astype(np.int64), wanted, of)
    left = wanted - int(held.sum())
    open_to = np.flatnonzero(whole & ((lengths == 1) | (lengths <= largest)))
    for strict in (True, False):  # each source its share; then what their groups were too large for
        for group, n, source in zip(open_to.tolist(), lengths[open_to].tolist(), of[open_to].tolist()):
            if n <= left and chosen[group] == _TRAIN and (not strict or held[source] + n <= quotas[source]):
                chosen[group] = _HELDOUT
                held[source] += n
                left -= n
    rows.sides[:] = np.where(rows.sides == 0, np.repeat(chosen, lengths), rows.sides)


def _quotas(rows: np.ndarray, wanted: int, of: np.ndarray) -> np.ndarray:
    """How many of `wanted` each source gives, by its number of rows: the largest remainders are rounded up.

    `of` is the source of each group; among equal remainders the source whose group comes first goes first.
    """
    exact = rows * wanted / rows.sum()
    quotas = exact.astype(np.int64)
    first = np.full(len(rows), len(of))
    np.minimum.at(first, of, np.arange(len(of)))
    up = np.lexsort((first, quotas - exact))[: wanted - int(quotas.sum())]
    quotas[up] += 1
    return quotas


# --- what belongs together


def _labels(store: Store, group: str) -> Mapping[int, int]:
    """Row -> number of its group, for a value of DataRecipe.group."""
    match group:
        case "question":
            return _questions(store)
        case "near":
            return _near(store)
        case "source":
            ids = np.fromiter((id for id, _, _ in store.texts()), np.int64)
            return dict(zip(ids.tolist(), _sources(store, ids).tolist()))
    return {}


def _questions(store: Store) -> dict[int, int]:
    """Rows that differ in case and white space alone up to the first message of the user."""
    numbers: dict[bytes, int] = {}
    found = {}
    for id, text, _ in store.texts():
        asked = next((said[1] for said in json.loads(text) if said[0] == "user"), None)
        if asked is not None:
            key = blake2b(" ".join(asked.casefold().split()).encode(), digest_size=16).digest()
            found[id] = numbers.setdefault(key, len(numbers))
    return found


def _near(store: Store) -> dict[int, int]:
    """The clusters of near-duplicates that the audit found; where it has not seen all rows, they are looked for."""
    with store.reading() as db:
        rows = db.execute(
            "SELECT rows.id, near, compared.alike IS NULL FROM rows LEFT JOIN audited ON audited.id = conversation"
            f" LEFT JOIN compared ON compared.alike = audited.alike WHERE {views.TRAINED}"
        ).fetchall()
    if not any(unseen for _, _, unseen in rows):
        return {id: near for id, near, _ in rows if near is not None}
    texts = ((id, "\n".join(said[1] for said in json.loads(text))) for id, text, _ in store.texts())
    from . import duplicates  # the page imports this file when it starts, and what compares rows takes its time

    return {id: number for number, ids in enumerate(duplicates.near(texts)) for id in ids}


def _sources(store: Store, ids: np.ndarray) -> np.ndarray:
    """The number of the source that each row came from."""
    with store.reading() as db:
        found = db.execute(
            "SELECT rows.id, source FROM rows CROSS JOIN conversations INDEXED BY conversation_facts"
            " ON conversations.id = conversation ORDER BY rows.id"
        ).fetchall()
    by_row = np.array([(0, 0), *map(tuple, found)], np.int64)
    return by_row[np.searchsorted(by_row[:, 0], ids), 1]
