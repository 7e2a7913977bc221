"""How much the texts of a set differ from each other: figures of the whole set, to be compared between sets.

Compression ratio and self-repetition of long n-grams are what arXiv 2403.00553 recommends to report; distinct-2 and
the nearest neighbour add words and meaning. All of them depend on how much text they are taken of (arXiv 2507.15092
shows it for the compression ratio, which favours short texts), so each is taken of the same amount: of the same number
of texts drawn from the set, cut at the same length, and of the same number of bytes and words of these. A set that has
less says so in `drawn`, `bytes` and `words`; then compare it only with one that has as little.
"""

from __future__ import annotations

import gzip
import random
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np

from .duplicates import plain
from .vectors import embed

TEXTS = 2_000
"""Drawn from the set."""
CUT = 1_000
"""Characters of each text."""
BYTES = 100_000
WORDS = 10_000
_LONG = 5
"""Words of a long n-gram."""


@dataclass(frozen=True)
class Diversity:
    """A figure is None where there is too little text for it."""

    texts: int
    """In the set."""
    drawn: int
    """Texts that the figures are of: all, or a sample of TEXTS by the seed."""
    bytes: int
    """UTF-8 that was compressed: BYTES, or all there is."""
    words: int
    """Words that distinct_2 is of: WORDS, or all there are. Words are what stands between spaces and punctuation, so
    the figures of words say little of languages without spaces."""
    compression: float | None
    """Bytes divided by bytes after gzip: what is said again in the same letters. Higher is less diverse. 503 rows of
    a FAQ have 2.8, the shipped example, which says each thing four times, 3.6."""
    distinct_2: float | None
    """Different pairs of neighbouring words as a share of all of them, 0 to 1 (distinct-n, arXiv 1510.03055). Higher
    is more diverse: 0.73 and 0.47 of those two."""
    repeated: float | None
    """Share, 0 to 1, of the runs of 5 words that stand in another of the texts too: phrases that come again and again,
    however different the rest is. Lower is more diverse: 0.04 and 0.44."""
    nearest: float | None
    """Mean cosine of a text with the one nearest to it in meaning, up to 1. Lower is more diverse: 0.61 and 0.89. Only
    of texts that the word vectors know, which are English-centred: see vectors.py."""


def diversity(
    texts: Iterable[tuple[int, str]], seed: int = 0, tick: Callable[[int], None] = lambda done: None
) -> Diversity:
    """Reads (id, text) once and keeps no more than the sample. The same texts in the same order give the same figures.

    `tick` gets the number of texts read so far, every 4,096; what it raises ends the work.
    """
    count, drawn = _draw(texts, random.Random(seed), tick)
    said = "\n".join(drawn).encode("utf-8", "replace")[:BYTES]
    split = [plain(text).split() for text in drawn]
    words, distinct_2 = _distinct_2(split)
    tick(count)
    return Diversity(
        texts=count,
        drawn=len(drawn),
        bytes=len(said),
        words=words,
        compression=len(said) / len(gzip.compress(said, mtime=0)) if said else None,
        distinct_2=distinct_2,
        repeated=_repeated(split),
        nearest=_nearest(drawn, lambda: tick(count)),
    )


def _draw(
    texts: Iterable[tuple[int, str]], rng: random.Random, tick: Callable[[int], None]
) -> tuple[int, Sequence[str]]:
    """How many there are, and TEXTS of them in random order, each as likely as any other (Vitter's algorithm R)."""
    drawn: list[str] = []
    count = 0
    for count, (_, text) in enumerate(texts, 1):
        if len(drawn) < TEXTS:
            drawn.append(text[:CUT])
        elif (place := int(rng.random() * count)) < TEXTS:
            drawn[place] = text[:CUT]
        if count % 4096 == 0:
            tick(count)
    rng.shuffle(drawn)  # the first bytes and words are of any of them
    return count, drawn


def _distinct_2(texts: Sequence[Sequence[str]]) -> tuple[int, float | None]:
    """How many words it is of, and the figure. No pair reaches from one text into the next."""
    pairs: list[tuple[str, str]] = []
    left = WORDS
    for words in texts:
        words = list(islice(words, left))
        left -= len(words)
        pairs += zip(words, words[1:])
    return WORDS - left, len(set(pairs)) / len(pairs) if pairs else None


def _repeated(texts: Sequence[Sequence[str]]) -> float | None:
    """Each run counts once a text."""
    runs = [set(zip(*(words[k:] for k in range(_LONG)))) for words in texts]
    texts_with = Counter(run for found in runs for run in found)
    total = sum(texts_with.values())
    return sum(n for n in texts_with.values() if n > 1) / total if total else None


def _nearest(texts: Sequence[str], tick: Callable[[], None]) -> float | None:
    vectors = []
    for start in range(0, len(texts), 256):
        tick()
        vectors.append(embed(texts[start : start + 256]))
    known = np.concatenate([v[v.any(axis=1)] for v in vectors]) if vectors else np.zeros((0, 1))
    if len(known) < 2:
        return None
    cosines = known @ known.T
    np.fill_diagonal(cosines, -1)
    return float(cosines.max(axis=1).mean())
