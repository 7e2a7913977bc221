"""The split into rows to train and rows held out, so that the model can be tested on what it never saw.

It is kept as ids: rows that come later are placed beside the others, and no row moves unless the person asks for
another share or seed.
"""

from __future__ import annotations

import json
from collections import defaultdict
from hashlib import blake2b

from .store import Store


def alike(text: str) -> bytes:
    """What rows that differ in case and white space alone have in common. `text` is Conversation.canonical()."""
    said = "\0".join(f"{role} {' '.join(content.casefold().split())}" for role, content in json.loads(text))
    return blake2b(said.encode(), digest_size=16).digest()


def assign(store: Store, share: float, seed: int, who: str = "") -> tuple[int, int]:
    """Places every row that has no place, and returns how many are trained on and how many held out.

    Groups of equal rows stay together, in the order of a hash of the seed and their text, until `share` of all rows is
    held out: at least one, unless all rows are equal. A group of more than a third of that number goes to train: it
    would decide the test alone. Another share or seed than last time places every row anew.
    """
    anew = store.split_settings != (share, seed)
    groups: dict[bytes, list[int]] = defaultdict(list)
    placed: dict[bytes, str] = {}
    rows = held = 0
    for id, text, split in store.texts():
        rows += 1
        key = alike(text)
        if split and not anew:
            placed[key] = "train" if placed.get(key) == "train" else split
            held += split == "heldout"
        else:
            groups[key].append(id)
    several = len(groups.keys() | placed.keys()) > 1
    wanted = max(int(share * rows + 0.5), int(share > 0)) if several else 0
    splits: list[tuple[int, str]] = []
    for key in sorted(groups, key=lambda key: blake2b(key, key=seed.to_bytes(8, "big"), digest_size=16).digest()):
        ids = groups[key]
        too_large = len(ids) > 1 and len(ids) > wanted / 3
        side = placed.get(key) or ("heldout" if held + len(ids) <= wanted and not too_large else "train")
        held += len(ids) if side == "heldout" else 0
        splits += [(id, side) for id in ids]
    store.set_split(splits, share, seed, who)
    return rows - held, held
