"""Near-duplicates by letters and by meaning, in real rows and planted ones."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ft_core.data import vectors
from ft_core.data.duplicates import Groups, _around_vectors, leaks, near, plain, similar
from ft_core.data.example import ROWS

ANSWER = (
    "The parcel leaves our roastery on the morning after your order. It is with you within four working days, and the "
    "postage is six pounds, or nothing at all above forty-five pounds. We pay the customs duty, so there is nothing "
    "due at the door, and you get a link by e-mail with which you can follow it on its way."
)


def numbered(*texts: str) -> list[tuple[int, str]]:
    return list(enumerate(texts, 1))


def examples() -> list[tuple[int, list[str]]]:
    lines = ROWS.read_text(encoding="utf-8").splitlines()
    return [(n, [m["content"] for m in json.loads(line)["messages"]]) for n, line in enumerate(lines)]


@pytest.mark.parametrize(
    "other",
    [
        ANSWER.replace("parcel", "package"),
        ANSWER + " Thank you for your order!",
        ANSWER.upper(),
        ANSWER.replace(",", " -").replace(".", " ...\n\n"),
        "**" + ANSWER.replace(" ", "  ") + "**",
        ANSWER.replace("four", "４"),
    ],
    ids=["word swapped", "sentence added", "upper case", "punctuation", "mark-up", "digit, full width"],
)
def test_a_changed_copy_is_a_near_duplicate(other: str) -> None:
    texts = numbered("When do you roast?", ANSWER, "On Tuesdays and Thursdays.", other)
    assert near(texts).groups == ((2, 4),)


def test_texts_from_one_template_are_not() -> None:
    asked = ["Do you ship to Norway?", "Do you ship to Japan?", "What is 3 + 4? 7", "What is 3 - 4? -1"]
    assert near(numbered(*asked)).groups == ()
    assert similar(numbered(*asked[:2])).groups == ()


def test_one_letter_at_the_end_of_a_short_text_counts_as_much_as_in_its_middle() -> None:
    assert near(numbered("Option 1 of the list", "Option 2 of the list")).groups == ()
    assert near(numbered("This is item number 1", "This is item number 2")).groups == ()


@pytest.mark.parametrize("find", [near, similar])
def test_nothing_one_row_and_nothing_to_compare(find: Callable[..., Groups]) -> None:
    assert find([]) == Groups((), 0)
    assert find([(7, ANSWER)]) == Groups((), 1)
    assert find([(1, ""), (2, ""), (3, "!?"), (4, "🙂"), (5, " \n"), (6, "🙂")]) == Groups((), 0, unknown=6)


def test_equal_texts_are_near_and_alone_not_similar() -> None:
    thanks = numbered("Thanks!", "Thanks!", "thanks")
    assert near(thanks).groups == ((1, 2, 3),)
    assert similar(thanks) == Groups((), 3)


def test_equal_texts_come_along_into_the_group_of_a_similar_one() -> None:
    texts = numbered(
        "How do I cook pasta?", "When do you roast?", "What is the way to cook pasta?", "How do I cook pasta"
    )
    assert similar(texts) == Groups(((1, 3, 4),), 4)


def test_languages_without_spaces_are_compared_by_letters() -> None:
    chinese = (
        "煮面条时，先把一大锅盐水烧开，然后放入面条并不时搅拌。"
        "八到十分钟后面条就熟了，可以捞出沥干水分，再加入自己喜欢的酱汁。"
    )
    other = "由于信号故障，今天开往柏林的火车大约晚点四十分钟。旅客可以免费改签到下一班车，或者申请退还部分票款。"
    assert near(numbered(chinese, other, chinese.replace("十", "九"))).groups == ((1, 3),)
    hindi = "सिग्नल खराब होने के कारण आज ट्रेन लगभग चालीस मिनट देर से चल रही है और यात्री टिकट बदल सकते हैं।"
    assert plain(hindi) == hindi.removesuffix("।")  # the signs of vowels are parts of words


@pytest.mark.parametrize(
    "texts",
    [
        (
            "Um Nudeln zu kochen, bringen Sie einen großen Topf mit Salzwasser zum Kochen und rühren gelegentlich um.",
            "Der Zug nach Berlin hat heute wegen einer Signalstörung etwa vierzig Minuten Verspätung.",
        ),
        (
            "Чтобы сварить макароны, доведите до кипения большую кастрюлю подсоленной воды, положите макароны.",
            "Поезд в Берлин сегодня опаздывает примерно на сорок минут из-за неисправности сигнала.",
        ),
        (
            "لطهي المعكرونة، اغل قدرا كبيرا من الماء المملح ثم أضف المعكرونة وحركها من حين لآخر.",
            "القطار المتجه إلى برلين متأخر اليوم حوالي أربعين دقيقة بسبب عطل في الإشارات.",
        ),
        (
            "Για να βράσετε ζυμαρικά, φέρτε σε βρασμό μια μεγάλη κατσαρόλα με αλατισμένο νερό.",
            "Το τρένο για το Βερολίνο έχει σήμερα καθυστέρηση περίπου σαράντα λεπτών λόγω βλάβης.",
        ),
        (
            "煮面条时，先把一大锅盐水烧开，然后放入面条并不时搅拌。",
            "由于信号故障，今天开往柏林的火车大约晚点四十分钟。",
        ),
    ],
    ids=["German", "Russian", "Arabic", "Greek", "Chinese"],
)
def test_two_texts_in_another_language_are_not_similar_for_that(texts: tuple[str, str]) -> None:
    long = [" ".join([text] * 6) for text in texts]
    found = similar(numbered(*texts, *long), threshold=0.88)
    assert {frozenset(group) for group in found} <= {frozenset({1, 3}), frozenset({2, 4})}
    assert found.compared + found.unknown == 4


def test_what_the_vectors_cannot_read_is_counted() -> None:
    greek = "Το τρένο για το Βερολίνο έχει σήμερα καθυστέρηση περίπου σαράντα λεπτών."
    assert similar(numbered(greek, greek + " Λυπούμαστε.", "Where are you?", "Half a \ud83d pair")).unknown == 2


def test_the_shipped_example_is_not_drowned_in_findings() -> None:
    """It asks each thing in four phrasings on purpose."""
    rows = examples()
    assert similar((id, said[0]) for id, said in rows).groups == ()
    assert len(near((id, "\n".join(said)) for id, said in rows)) == 0


@pytest.mark.parametrize("find", [near, similar])
def test_groups_do_not_depend_on_the_order(find: Callable[..., Groups]) -> None:
    rng = random.Random(5)
    rows = [(id, "\n".join(said)) for id, said in examples()]
    rows += [(100 + id, f"{text} {rng.choice(['Bye.', 'See you soon!', 'Enjoy your coffee.'])}") for id, text in rows]
    expected = find(rows)
    assert len(expected) >= 20
    assert list(expected) == sorted(tuple(sorted(group)) for group in expected)
    for _ in range(3):
        rng.shuffle(rows)
        assert find(rows) == expected


def test_a_chain_of_texts_does_not_become_one_group() -> None:
    """Each is alike to the next, the last has nothing of the first."""
    words = [f"word{n * 7919}" for n in range(200)]
    chain = numbered(*(" ".join(words[4 * n : 4 * n + 80]) for n in range(30)))
    groups = near(chain).groups
    assert len(groups) >= 4
    for group in groups:
        assert all(jaccard(chain[group[0] - 1][1], chain[id - 1][1]) > 0.7 for id in group)


def test_a_text_between_two_others_joins_the_earlier() -> None:
    rng = random.Random(1)
    words = ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=6)) for _ in range(210)]
    first, last, between = (" ".join(words[n : n + 182]) for n in (0, 28, 14))
    assert jaccard(first, last) < 0.74 and min(jaccard(first, between), jaccard(last, between)) > 0.84
    assert near([(1, first), (2, last), (3, between)]).groups == ((1, 3),)
    assert near([(3, first), (2, last), (4, between)]).groups == ((2, 4),)


def jaccard(one: str, other: str) -> float:
    a, b = shingles(one), shingles(other)
    return len(a & b) / len(a | b)


def shingles(text: str) -> set[str]:
    padded = f"    {plain(text)}    "
    return {padded[i : i + 5] for i in range(len(padded) - 4)}


SENTENCE = st.sampled_from(sorted({said for _, both in examples() for said in both}))


@settings(max_examples=150, deadline=None)
@given(st.lists(st.lists(SENTENCE, min_size=1, max_size=6).map(" ".join), max_size=12))
def test_near_agrees_with_all_pairs_by_hand(texts: list[str]) -> None:
    """Away from the threshold by three standard deviations of the estimate, and a little."""
    found = near(enumerate(texts)).groups
    assert len({id for group in found for id in group}) == sum(map(len, found))
    home = {id: group[0] for group in found for id in group}
    for id, first in home.items():
        assert jaccard(texts[id], texts[first]) > 0.8 - 0.15
    for id, text in enumerate(texts):
        leaders = [first for first in range(home.get(id, id)) if home.get(first, first) == first]
        assert all(jaccard(text, texts[first]) < 0.8 + 0.14 for first in leaders)  # it would be in that group


def test_more_rows_than_a_batch_holds() -> None:
    rng = random.Random(2)
    words = sorted({word for _, said in examples() for word in plain(" ".join(said)).split()})
    texts = [" ".join(rng.choices(words, k=60)) for _ in range(3_000)]
    planted = {17: 2_900, 1_200: 1_201, 40: 2_000}
    for first, second in planted.items():
        texts[second] = texts[first].replace(" ", " and ", 1)
    done: list[int] = []
    found = near(enumerate(texts), tick=done.append)
    assert found.groups == tuple(sorted(planted.items()))
    assert found.compared == done[-1] == 3_000
    assert len(set(done)) > 3 and done == sorted(done)


def test_similar_agrees_with_one_row_after_the_other() -> None:
    """More rows, and more groups, than are multiplied at once."""
    rng = np.random.default_rng(1)
    centres = rng.normal(size=(9_000, 16))
    rows = (
        centres[np.concatenate([np.arange(9_000), rng.integers(0, 9_000, 1_500)])] + rng.normal(size=(10_500, 16)) / 8
    )
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    leaders: list[int] = []
    members: dict[int, list[int]] = {}
    for i, row in enumerate(rows):
        alike = np.flatnonzero(rows[leaders] @ row >= 0.95)
        home = leaders[alike[0]] if len(alike) else i
        if home == i:
            leaders.append(i)
        members.setdefault(home, []).append(i)
    assert len(leaders) > 8_192
    found = _around_vectors(rows, 0.95, lambda: None)
    assert found == [group for group in members.values() if len(group) > 1]


def test_past_the_most_texts_the_rest_is_counted() -> None:
    texts = numbered(
        "How do I cook pasta?", "When do you roast?", "how do I cook pasta", "How should pasta be cooked?"
    )
    assert similar(texts, most=2) == Groups((), 3, left_out=1)
    assert similar(texts, most=3) == Groups(((1, 3, 4),), 4)


class Stop(Exception):
    pass


@pytest.mark.parametrize("find", [near, similar])
def test_what_the_tick_raises_ends_the_work(find: Callable[..., Groups]) -> None:
    read = 0

    def rows() -> Iterator[tuple[int, str]]:
        nonlocal read
        for read in range(100_000):
            yield read, f"{ANSWER} {read}"

    def tick(done: int) -> None:
        if done >= 1_000:
            raise Stop

    with pytest.raises(Stop):
        find(rows(), tick=tick)
    assert 1_000 <= read < 3_000


def test_leaks_are_the_held_out_members_beside_trained_ones() -> None:
    side = {1: "train", 2: "heldout", 3: "heldout", 4: "heldout", 5: "train", 6: "heldout", 7: ""}
    assert leaks([(1, 2, 3), (3, 5), (4, 6), (6, 7, 99)], side) == [2, 3, 6]
    assert leaks([(4, 99)], side) == []
    assert leaks([], side) == []


def test_vectors_are_of_length_one_or_nothing() -> None:
    found = vectors.embed(["How do I cook pasta?", "", "🙂"])
    assert found.shape == (3, 256)
    assert (found**2).sum(axis=1) == pytest.approx([1, 0, 0], abs=1e-5)
    assert vectors.embed([]).shape == (0, 256)
