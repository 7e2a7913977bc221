"""Text that says the same again and again, by Gopher's measures (Rae et al. 2021, arXiv 2112.11446, table A1).

They were made for web pages. An answer in a chat is shorter, and has lists and steps that begin alike, so each measure
here holds from a length on (see the constants), and code is left out by the caller.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

import numpy as np

WORD = re.compile(r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff]{1,2}|\w+")
"""A word; in scripts without spaces (Thai, Lao, Burmese, Khmer, Japanese, Chinese) two characters stand for one."""

LINES = 0.30
"""Share of lines, of paragraphs, that came before."""
LINE_CHARACTERS = 0.20
"""Share of characters in them."""
FROM_LINES = 6
FROM_PARAGRAPHS = 4
"""Two equal lines of four are a refrain, or "Yes." twice."""
LINE_LENGTH = 12
"""Shorter lines recur in lists and tables ("Yes", "Total: 3", "* * *") and are not looked at."""

TOP = {2: 0.20, 3: 0.18, 4: 0.16}
"""n -> share of all characters that the most frequent n words in a row may take."""
REPEATED = {5: 0.15, 6: 0.14, 7: 0.13, 8: 0.12, 9: 0.11, 10: 0.10}
"""n -> share of all characters in n words in a row that came before, each character counted once."""
FROM_WORDS = 200
"""Gopher begins at 50 words, where two sentences that begin alike ("The area of a ... is") would be too much."""
LOOP = 0.5
"""From LOOP_WORDS words to FROM_WORDS: the share of characters in five words in a row that came before."""
LOOP_WORDS = 12
_DISTINCT = 0.75
"""Where more of the words than this are distinct, half of the text is not said twice: it spares short answers time."""


def repeated(text: str, words: list[str]) -> str:
    """What of it is repeated, as part of a sentence, or ''. `words` are the words of `text`, as WORD finds them."""
    if len(words) < LOOP_WORDS:
        return ""
    if said := _parts(text):
        return said
    if len(words) < FROM_WORDS and len(set(words)) > _DISTINCT * len(words):
        return ""
    return _phrases(words)


def _parts(text: str) -> str:
    """Lines and paragraphs that came before."""
    lines = [line for part in text.splitlines() if len(line := part.strip()) >= LINE_LENGTH]
    if len(lines) >= FROM_LINES and (said := _again("lines", lines)):
        return said
    if "\n\n" not in text:
        return ""
    paragraphs = [part for piece in text.split("\n\n") if len(part := piece.strip()) >= LINE_LENGTH]
    return _again("paragraphs", paragraphs) if len(paragraphs) >= FROM_PARAGRAPHS else ""


def _again(what: str, parts: list[str]) -> str:
    counts = Counter(parts)
    if len(counts) == len(parts):
        return ""
    share = 1 - len(counts) / len(parts)
    characters = 1 - sum(map(len, counts)) / sum(map(len, parts))
    if share > LINES:
        return f"{share:.0%} of the {what} are repeated"
    return f"{characters:.0%} of the text is in repeated {what}" if characters > LINE_CHARACTERS else ""


def _phrases(words: list[str]) -> str:
    """Words in a row. They are compared by the hashes of their words, as plain tuples would take minutes."""
    ids = np.fromiter(map(hash, words), np.int64, len(words)).view(np.uint64)
    starts = np.concatenate([[0], np.cumsum(np.fromiter(map(len, words), np.int64, len(words)))])
    grams = _Grams(ids, starts)
    if len(words) < FROM_WORDS:
        share = grams.repeated(5)
        return _phrase(share, 5) if share >= LOOP else ""
    for n, most in TOP.items():
        share, first = grams.top(n)
        if share > most:
            return f"{share:.0%} of the text is “{' '.join(words[first : first + n])[:60]}”"
    least = min(REPEATED.values())
    for n, most in REPEATED.items():
        share = grams.repeated(n)
        if share > most:
            return _phrase(share, n)
        if share <= least:  # longer ones are within these
            return ""
    return ""


def _phrase(share: float, n: int) -> str:
    return f"{share:.0%} of the text is in phrases of {n} words that came before"


class _Grams:
    """Words in a row of one text, by the hashes of its words and the characters before each."""

    def __init__(self, ids: np.ndarray, starts: np.ndarray):
        self.starts = starts
        self._rows: dict[int, np.ndarray] = {1: ids}

    def _hashes(self, n: int) -> np.ndarray:
        if n not in self._rows:
            shorter = self._hashes(n - 1)
            with np.errstate(over="ignore"):
                mixed = shorter[:-1] * np.uint64(0x9E3779B97F4A7C15)
                self._rows[n] = (mixed ^ (mixed >> np.uint64(29))) + self._rows[1][n - 1 :]
        return self._rows[n]

    def top(self, n: int) -> tuple[float, int]:
        """The share of characters that the most frequent n words take, and where they first stand."""
        hashes = self._hashes(n)
        ranked = np.sort(hashes)
        edges = np.flatnonzero(np.concatenate([[True], ranked[1:] != ranked[:-1], [True]]))
        counts = np.diff(edges)
        best = int(counts.argmax())
        if counts[best] < 3:
            return 0.0, 0
        places = np.flatnonzero(hashes == ranked[edges[best]])
        return self._covered(places, n), int(places[0])

    def repeated(self, n: int) -> float:
        """The share of characters in n words that came before."""
        hashes = self._hashes(n)
        ranked = np.sort(hashes)
        if 3 * n * np.count_nonzero(ranked[1:] == ranked[:-1]) < min(REPEATED.values()) * len(hashes):
            return 0.0  # too few, were their words three times as long as the others; sorting the places takes longer
        order = np.argsort(hashes, kind="stable")
        ranked = hashes[order]
        return self._covered(order[1:][ranked[1:] == ranked[:-1]], n)

    def _covered(self, places: Iterable[int], n: int) -> float:
        """The share of characters of the n words at each of the places, where they overlap counted once."""
        edge = np.zeros(len(self.starts), np.int64)
        np.add.at(edge, places, 1)
        np.add.at(edge, np.asarray(places) + n, -1)
        inside = np.cumsum(edge)[:-1] > 0
        return float(np.diff(self.starts)[inside].sum() / max(self.starts[-1], 1))
