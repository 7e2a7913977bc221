"""The split into rows to train and rows held out, so that the model can be tested on what it never saw.

It is kept as ids: rows that come later are placed beside the others, and no row moves unless the person asks for
another share or seed.
"""

from __future__ import annotations

import json
from array import array
from hashlib import blake2b

import numpy as np

from .store import Store

_SIDES = ("", "train", "heldout")


def alike(text: str) -> bytes:
    """What rows that differ in case and white space alone have in common. `text` is Conversation.canonical()."""
    said = "\0".join(f"{role} {' '.join(' '.join(texts).casefold().split())}" for role, *texts in json.loads(text))
    return blake2b(said.encode(), digest_size=16).digest()


def assign(store: Store, share: float, seed: int, who: str = "") -> tuple[int, int]:
    """Places every row that has no place, and returns how many are trained on and how many held out.

    Groups of equal rows stay together, in the order of a hash of the seed and their text, until `share` of all rows is
    held out: at least one, unless all rows are equal. A group of more than a third of that number goes to train: it
    would decide the test alone. Another share or seed than last time places every row anew.
    """
    anew = store.split_settings != (share, seed)
    ids, sides, starts = _groups(store, seed)
    if anew:
        sides[:] = 0
    held = int((sides == 2).sum())
    wanted = max(int(share * len(ids) + 0.5), int(share > 0)) if len(starts) > 1 else 0
    if len(ids):
        lengths = np.diff(starts, append=len(ids))
        new = np.add.reduceat(sides == 0, starts, dtype=np.int64)
        trained = np.add.reduceat(sides == 1, starts, dtype=np.int64) > 0
        chosen = np.where(trained, 1, 2).astype(np.int8)  # where a group has a place, its new rows follow
        for group in np.flatnonzero(new).tolist():
            n = int(new[group])
            if n == lengths[group]:
                too_large = n > 1 and n > wanted / 3
                chosen[group] = 2 if held + n <= wanted and not too_large else 1
            held += n if chosen[group] == 2 else 0
        sides = np.where(sides == 0, np.repeat(chosen, lengths), sides)
    store.set_split(zip(ids.tolist(), map(_SIDES.__getitem__, sides.tolist())), share, seed, who)
    return len(ids) - held, held


def _groups(store: Store, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Ids and places (as in _SIDES) of all rows, equal rows beside each other, and where each group of them starts."""
    key = seed.to_bytes(8, "big")
    ids, sides, hashes = array("q"), array("b"), bytearray()
    for id, text, split in store.texts():
        ids.append(id)
        sides.append(_SIDES.index(split))
        hashes += blake2b(alike(text), key=key, digest_size=16).digest()
    high, low = np.frombuffer(hashes, ">u8").reshape(-1, 2).T
    order = np.lexsort((low, high))
    differs = (np.diff(high[order]) != 0) | (np.diff(low[order]) != 0)
    starts = np.concatenate([[0], np.flatnonzero(differs) + 1]) if len(order) else order
    return np.frombuffer(ids, np.int64)[order], np.frombuffer(sides, np.int8)[order], starts
