"""Rows that say nearly the same: by their letters (MinHash), and by their meaning (word vectors).

Both form groups around a first member: in the order of the ids, a text joins the earliest group whose first member it
is alike enough to, or else begins one. So every member is held against the same text, and a chain of texts that are
barely alike from one to the next does not become one group, as it would with connected components. The groups do not
depend on the order in which the texts come.
"""

from __future__ import annotations

import re
import unicodedata
from array import array
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
import regex
from rensa import RMinHash

from .vectors import embed

NEAR = 0.8
"""Jaccard similarity from which two texts are near-duplicates: as NeMo Curator has it; distilabel takes 0.9 over
words, FineWeb's buckets (arXiv 2406.17557) find from about 0.75."""
SIMILAR = 0.9
"""Cosine from which two texts mean the same: semhash's default. Meant for what is asked, not for whole rows: in the
shipped example, which asks each thing in four phrasings on purpose, no two of 80 questions reach it, but 34 of the 80
rows do, as they have their answers in common."""
MOST = 50_000
"""Different texts that similar() compares with each other, at most: all pairs of them take a quarter of a minute."""

_SHINGLE = 5
"""Characters. Leskovec et al., Mining of Massive Datasets, section 3.2.2: 5 for e-mails, 9 for research articles."""
_LONGEST = 1_000_000
"""Characters of one text that are looked at: what a batch may take of memory, times 40 bytes."""
_BATCH = 200_000
"""Characters: what stays in the processor's cache."""
_SLOTS = 128
_BANDS, _ROWS = 18, 7
"""126 of the slots as locality-sensitive bands: a pair of Jaccard 0.8 is compared with probability 0.986, of 0.9 with
0.99999, of 0.5 with 0.13, of 0.2 with 0.0002."""
_LEADERS = 16
"""First members that one bucket of a band keeps. Only rows from one template fill it, and nearly all of their pairs
meet in another band: of 30,000 rows from one sentence 1,428 were found in groups, 1,496 with 128 of them."""
_ODD = 0x9E3779B97F4A7C15

_NO_WORD = re.compile(r"[\W_]+")
_NO_WORD_MARKS = regex.compile(r"[^\p{L}\p{M}\p{N}]+")


@dataclass(frozen=True)
class Groups:
    groups: tuple[tuple[int, ...], ...]
    """Ids in order, two or more each; the groups by their first."""
    compared: int
    """Texts that were compared."""
    left_out: int = 0
    """Texts that came after the most that are compared: nothing is known of them."""
    unknown: int = 0
    """Texts with nothing to compare: no letter or digit; for meaning, also those that the word vectors cannot read."""

    def __iter__(self) -> Iterator[tuple[int, ...]]:
        return iter(self.groups)

    def __len__(self) -> int:
        return len(self.groups)


def _no_tick(done: int) -> None:
    """For callers that show nothing."""


def plain(text: str) -> str:
    """What is compared of a text: its words in lower case with one space between, no punctuation or mark-up."""
    folded = unicodedata.normalize("NFKC", text.casefold())
    return (_NO_WORD if folded.isascii() else _NO_WORD_MARKS).sub(" ", folded).strip()


def leaks(groups: Iterable[tuple[int, ...]], side: Mapping[int, str]) -> list[int]:
    """Ids held out that share a group with a row that is trained on, each once, in order.

    `side` is 'heldout', or anything else for what is trained on; ids without a side are ignored.
    """
    found: set[int] = set()
    for group in groups:
        held = {id for id in group if side.get(id) == "heldout"}
        if any(id in side for id in group if id not in held):
            found |= held
    return sorted(found)


def near(texts: Iterable[tuple[int, str]], threshold: float = NEAR, tick: Callable[[int], None] = _no_tick) -> Groups:
    """Groups of (id, text) whose sets of shingles have a Jaccard similarity of `threshold` (0.7 to 1) or more.

    A shingle is 5 characters of plain(text), with the ends padded so that the first and last letter count as much as
    any other. Characters and not words, as one measure then fits a question of five words, an answer of a thousand and
    languages without spaces: another word of 7 letters makes a text of 90 letters or more a near-duplicate. So in a
    row of 90 letters or more another number or name does that too: rows from one template with the same long answer
    are found. "Do you ship to Norway?" and "Do you ship to Japan?" alone have 0.4.

    The similarity is estimated from 128 slots of rensa's R-MinHash, of which 8 bits each are kept (b-bit
    minwise hashing, arXiv 0910.3349): a standard deviation of 0.036 at 0.8, so pairs within 0.1 of the threshold fall
    to either side. The texts are read once and not kept: 210 bytes each. Each id comes once. `tick` gets the number of
    texts done so far after each batch; what it raises ends the work, which leaves nothing behind.
    """
    ids, unknown = array("q"), 0
    marks, bands = bytearray(), bytearray()
    for batch in _batches(texts):
        readable = [(id, text) for id, text in batch if text]
        unknown += len(batch) - len(readable)
        if readable:
            slots = _slots([text for _, text in readable])
            ids.extend(id for id, _ in readable)
            marks += ((slots * np.uint32(_ODD & 0xFFFFFFFF)) >> np.uint32(24)).astype(np.uint8).tobytes()
            bands += _band_hashes(slots).tobytes()
        tick(len(ids) + unknown)
    order = np.argsort(np.frombuffer(ids, np.int64))
    by_id = order if (np.diff(order) < 0).any() else slice(None)  # in order already: nothing is copied
    found = _around_leaders(
        np.frombuffer(marks, np.uint8).reshape(-1, _SLOTS)[by_id],
        np.frombuffer(bands, np.uint32).reshape(-1, _BANDS)[by_id],
        threshold,
        lambda: tick(len(ids) + unknown),
    )
    groups = tuple(tuple(ids[order[i]] for i in group) for group in found)
    return Groups(groups, compared=len(ids), unknown=unknown)


def _batches(texts: Iterable[tuple[int, str]]) -> Iterator[list[tuple[int, str]]]:
    """(id, plain text), as many as _BATCH characters hold."""
    batch: list[tuple[int, str]] = []
    size = 0
    for id, text in texts:
        batch.append((id, plain(text[:_LONGEST])))
        size += len(batch[-1][1]) + _SHINGLE
        if size >= _BATCH:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _slots(texts: list[str]) -> np.ndarray:
    """(texts, 128) uint32: the MinHash of the shingles of each text, none of which is empty."""
    pad = "\0" * (_SHINGLE - 1)  # no plain text has it, and no shingle reaches over it from one text into the next
    codes = np.frombuffer(pad.join(["", *texts, ""]).encode("utf-32-le", "surrogatepass"), "<u4").astype(np.uint64)
    count = len(codes) - _SHINGLE + 1
    hashes = codes[:count].copy()
    for k in range(1, _SHINGLE):
        hashes *= np.uint64(_ODD)
        hashes += codes[k : k + count]
    hashes ^= hashes >> np.uint64(32)
    hashes *= np.uint64(0xD6E8FEB86659FD93)  # mixed, as rensa takes hashes as they are
    hashes ^= hashes >> np.uint64(29)
    starts = np.cumsum([0, *(len(text) + _SHINGLE - 1 for text in texts)], dtype=np.uint64)
    matrix = RMinHash.digest_matrix_from_flat_token_hashes(hashes, starts, _SLOTS, 0)
    return np.array(matrix.to_rows(), np.uint32)


def _band_hashes(slots: np.ndarray) -> np.ndarray:
    """(texts, 18) uint32: equal where all 7 slots of a band are, and else hardly ever."""
    factors = np.random.default_rng(0).integers(0, 1 << 63, _ROWS, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    parts = slots[:, : _BANDS * _ROWS].reshape(-1, _BANDS, _ROWS).astype(np.uint64)
    return ((parts * factors).sum(-1, dtype=np.uint64) >> np.uint64(32)).astype(np.uint32)


def _around_leaders(
    marks: np.ndarray, bands: np.ndarray, threshold: float, tick: Callable[[], None]
) -> list[list[int]]:
    """Groups of two or more row numbers, in order. What shares no bucket with anything is not looked at again."""
    shared = np.zeros(bands.shape, bool)
    for band in range(_BANDS):
        order = np.argsort(bands[:, band], kind="stable")
        same = np.diff(bands[order, band]) == 0
        shared[order[1:][same], band] = shared[order[:-1][same], band] = True
        tick()
    by_chance = 1 / 256  # equal 8 bits of unequal slots
    enough = (threshold * (1 - by_chance) + by_chance) * _SLOTS - 1e-9
    buckets: dict[int, list[int]] = defaultdict(list)
    members: dict[int, list[int]] = {}
    rows = np.flatnonzero(shared.any(axis=1))
    for part in np.array_split(rows, len(rows) // 4096 + 1):
        tick()
        keys_of = np.where(shared[part], bands[part].astype(np.int64) << 8 | np.arange(_BANDS), -1).tolist()
        for row, keys in zip(part.tolist(), keys_of):
            leaders = sorted({leader for key in keys if key in buckets for leader in buckets[key]})
            equal = np.count_nonzero(marks[leaders] == marks[row], axis=1) if leaders else np.zeros(0)
            alike = np.flatnonzero(equal >= enough)
            if len(alike):
                members[leaders[alike[0]]].append(row)
                continue
            members[row] = [row]
            for key in keys:
                if key >= 0 and len(buckets[key]) < _LEADERS:
                    buckets[key].append(row)
    return [group for group in members.values() if len(group) > 1]


def similar(
    texts: Iterable[tuple[int, str]],
    threshold: float = SIMILAR,
    tick: Callable[[int], None] = _no_tick,
    most: int = MOST,
) -> Groups:
    """Groups of (id, text) that mean the same: of different texts whose vectors have a cosine of `threshold` or more.

    Texts that are equal but for case and punctuation count as one and alone make no group (near() has them); where
    another text is similar, all their ids are in its group. What a negation or a number changes is not seen: "Is it
    sour?" and "Is it not sour?" have 0.97. Texts in languages far from English are not compared but counted: see
    embed(). Of more than `most` different texts the first are compared and the others counted. `tick` as in near().
    """
    ids: dict[bytes, list[int]] = {}
    vectors: list[np.ndarray] = []
    left_out = unknown = done = 0
    waiting: list[str] = []
    for id, text in texts:
        done += 1
        words = plain(text)
        key = blake2b(words.encode("utf-8", "surrogatepass"), digest_size=16).digest()
        if not words:
            unknown += 1
        elif key in ids:
            ids[key].append(id)
        elif len(ids) >= most:
            left_out += 1
        else:
            ids[key] = [id]
            waiting.append(text)
            if len(waiting) == 512:
                vectors.append(embed(waiting))
                waiting = []
        if done % 512 == 0:
            tick(done)
    vectors.append(embed(waiting))
    rows, matrix = list(ids.values()), np.concatenate(vectors)
    readable = np.flatnonzero(matrix.any(axis=1)).tolist()
    readable.sort(key=lambda i: min(rows[i]))
    groups = [
        tuple(sorted(id for i in group for id in rows[readable[i]]))
        for group in _around_vectors(matrix[readable], threshold, lambda: tick(done))
    ]
    compared = sum(len(rows[i]) for i in readable)
    return Groups(tuple(sorted(groups)), compared, left_out, done - left_out - compared)


def _around_vectors(vectors: np.ndarray, threshold: float, tick: Callable[[], None]) -> list[list[int]]:
    """Groups of two or more row numbers, in order. `vectors` have length 1; their first rows lead."""
    leaders = np.empty_like(vectors)
    members: list[list[int]] = []
    for start in range(0, len(vectors), 1024):
        tick()
        block = vectors[start : start + 1024]
        home = np.full(len(block), -1)
        for low in range(0, len(members), 8192):
            alike = block @ leaders[low : min(low + 8192, len(members))].T >= threshold
            home = np.where((home < 0) & alike.any(axis=1), low + alike.argmax(axis=1), home)
        among = block @ block.T >= threshold
        for i in range(len(block)):
            if home[i] < 0:
                leaders[len(members)] = block[i]
                later = (home < 0) & among[i]
                later[i] = True  # also where rounding leaves its cosine with itself below a threshold of 1
                home[later] = len(members)
                members.append([])
            members[home[i]].append(start + i)
    return [group for group in members if len(group) > 1]
