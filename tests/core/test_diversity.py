"""Figures of how much the texts of a set differ."""

from __future__ import annotations

import json
import random

import pytest

from ft_core.data import diversity as of
from ft_core.data.diversity import Diversity, diversity
from ft_core.data.example import ROWS


def examples() -> list[str]:
    lines = ROWS.read_text(encoding="utf-8").splitlines()
    return [" ".join(m["content"] for m in json.loads(line)["messages"]) for line in lines]


def mixed(count: int, seed: int = 1) -> list[str]:
    """Texts of words from the example, in no order."""
    rng = random.Random(seed)
    words = " ".join(examples()).split()
    return [" ".join(rng.choices(words, k=40)) for _ in range(count)]


def test_a_template_is_less_diverse_in_every_figure() -> None:
    nouns = sorted(set(" ".join(examples()).split()))
    template = [
        f"Thank you for asking about {noun}. I am happy to help you with {noun}, so please let me know what you need."
        for noun in nouns[:300]
    ]
    poor, rich = diversity(enumerate(template)), diversity(enumerate(mixed(300)))
    assert poor.compression > 2 * rich.compression
    assert poor.distinct_2 < rich.distinct_2 / 2
    assert poor.repeated > rich.repeated + 0.4
    assert poor.nearest > rich.nearest


def test_by_hand() -> None:
    found = diversity([(1, "One two three four five six."), (2, "ONE two, three four five!"), (3, "Seven.")])
    assert found.distinct_2 == pytest.approx(5 / 9)
    assert found.repeated == pytest.approx(2 / 3)  # of 3 runs, one stands in two texts
    assert (found.texts, found.drawn, found.words, found.bytes) == (3, 3, 12, 61)


def test_more_of_the_same_gives_nearly_the_same_figures() -> None:
    """Equal amounts of text are compared, whatever the size of the set."""
    small, large = diversity(enumerate(mixed(2_500))), diversity(enumerate(mixed(10_000)))
    assert (small.drawn, small.bytes, small.words) == (large.drawn, large.bytes, large.words)
    assert (large.drawn, large.bytes, large.words) == (of.TEXTS, of.BYTES, of.WORDS)
    for name in ("compression", "distinct_2", "nearest"):
        assert getattr(large, name) == pytest.approx(getattr(small, name), rel=0.03)
    assert large.repeated == pytest.approx(small.repeated, abs=0.01)


def test_figures_repeat_with_the_seed() -> None:
    texts = list(enumerate(mixed(4_000)))
    assert diversity(texts, seed=3) == diversity(texts, seed=3)
    assert diversity(texts, seed=3) != diversity(texts, seed=4)


def test_the_sample_is_of_the_whole_set() -> None:
    texts = [f"part{n // 1_000} " * 30 for n in range(10_000)]
    assert diversity(enumerate(texts)).distinct_2 == pytest.approx(10 / of.WORDS, rel=0.05)


def test_too_little_text_gives_no_figure() -> None:
    nothing = Diversity(0, 0, 0, 0, None, None, None, None)
    assert diversity([]) == nothing
    one = diversity([(1, "Yes")])
    assert (one.distinct_2, one.repeated, one.nearest) == (None, None, None)
    assert one.compression < 1
    blank = diversity([(1, ""), (2, "🙂"), (3, "half a \ud83d pair")])
    assert blank.nearest is None and blank.words == 3


def test_the_tick_can_end_it() -> None:
    class Stop(Exception):
        pass

    def tick(done: int) -> None:
        if done >= 8_192:
            raise Stop

    with pytest.raises(Stop):
        diversity(((n, "text") for n in range(1_000_000)), tick=tick)
