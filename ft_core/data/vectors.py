"""Texts as vectors of what they mean, without a model to run and without the network.

The vector of a text is the mean of the vectors of its word pieces: 32,000 of 256 numbers, which come in the wheel of
wordllama (16 MB, trained on English; its own loader looks for them in the wrong folder and would download them).
model2vec holds them and cuts texts into the pieces.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from model2vec import StaticModel
from safetensors.numpy import load_file
from tokenizers import Tokenizer

from ..errors import FTError

CUT = 500
"""Characters of a text that count for its vector: the longer the text, the nearer its mean is to that of all texts."""
PIECES = 2.0
"""More pieces a word than this, and the vectors do not know the language well enough: see embed()."""


def embed(texts: Sequence[str]) -> np.ndarray:
    """(texts, 256) float32 of length 1, or of zeros for a text that the vectors know too little of.

    A word that is cut into pieces has no vector of its own, and the mean of many small pieces says which language a
    text is in, not what it says: unrelated Greek, Arabic or Thai sentences have a cosine of 0.92 to 0.96 with each
    other, Russian ones 0.85, Chinese ones 0.8, and longer texts more. So a text of more than PIECES pieces a word
    (fertility, arXiv 2012.15613 section 5.2) gets no vector. English has 1.0 to 1.8, German 1.7 to 2.2, Swedish 2.1
    to 3.3, Russian 2.4 to 3.2, scripts beyond Latin and Cyrillic 15 and more (measured on FAQ rows and paragraphs).
    """
    if not texts:
        return np.zeros((0, _model().dim), np.float32)
    texts = [text[:CUT].encode("utf-8", "replace").decode() for text in texts]  # half a surrogate pair is no text
    return np.stack([_vector(np.array(pieces, np.intp)) for pieces in _model().tokenize(texts)])


def _vector(pieces: np.ndarray) -> np.ndarray:
    """(256,): the mean of the vectors of the pieces, as model2vec's encode() takes it, in length 1; or zeros."""
    letters, starts = _kinds()
    if letters[pieces].sum() > PIECES * starts[pieces].sum() or not starts[pieces].any():
        return np.zeros(_model().dim, np.float32)
    mean = _model().embedding[pieces].mean(axis=0)
    length = np.linalg.norm(mean)
    return mean / length if length > 1e-6 else np.zeros_like(mean)


@cache
def _model() -> StaticModel:
    """Takes 0.3 s the first time."""
    package = find_spec("wordllama")  # not imported: that would set up logging for the whole program
    if package is None or package.origin is None:
        raise FTError("the word vectors are not installed", "Run `pip install -r requirements.txt`.")
    folder = Path(package.origin).parent
    vectors = load_file(folder / "weights" / "l2_supercat_256.safetensors")["embedding.weight"]
    tokenizer = Tokenizer.from_file(str(folder / "tokenizers" / "l2_supercat_tokenizer_config.json"))
    return StaticModel(vectors.astype(np.float32), tokenizer, max_length=None)


@cache
def _kinds() -> tuple[np.ndarray, np.ndarray]:
    """For each piece of the vocabulary: whether it is of a word (a letter, or a byte of one), and begins one."""
    pieces = _model().tokens
    letters = np.array([p.lstrip("▁")[:1].isalpha() or p.startswith("<0x") for p in pieces])
    return letters, letters & np.array([p.startswith("▁") for p in pieces])
