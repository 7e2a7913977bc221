"""What is drawn is escaped, numbers read as people say them, and a defect becomes a sentence."""

from __future__ import annotations

import logging

import pytest

from ft_core.conversation import Conversation, Message
from ft_core.data.store import Row
from ft_core.errors import FTError
from ui import errors, say
from ui.grid import shown
from ui.panel import draw, panel
from ui.tab_compare import Answer, Turn, _chats

EVIL = "</p><script>alert(1)</script>${alert(2)}"


def test_answers_are_text_whatever_they_say() -> None:
    html = draw("talk", turns=(Turn(EVIL, Answer(EVIL, 3, 9.0, True), Answer(EVIL), EVIL),), waiting=False, ready=True)
    assert "<script" not in html
    assert html.count("&lt;script&gt;") == 4


def test_each_side_hears_its_own_answers() -> None:
    earlier = (Turn("one?", Answer("before one"), Answer("after one")),)
    chats = _chats(" be brief ", earlier, Turn("two?"))
    assert chats["before"] == (
        Message("system", "be brief"), Message("user", "one?"), Message("assistant", "before one"),
        Message("user", "two?"),
    )  # fmt: skip
    assert chats["after"][2].content == "after one"
    assert _chats("", (), Turn("x"))["after"] == (Message("user", "x"),)


def test_a_row_shows_its_first_question_and_last_answer() -> None:
    turns = (Message("system", "s"), Message("user", "a"), Message("assistant", "b"), Message("user", "c"),
             Message("assistant", "d"))  # fmt: skip
    row = shown(Row(7, Conversation(turns), "accepted", "train", 2))
    assert (row["system"], row["prompt"], row["response"], row["turns"]) == ("s", "a", "d", 4)
    alone = shown(Row(8, Conversation((Message("assistant", "hello"),)), "accepted", "", 1))
    assert (alone["prompt"], alone["response"]) == ("", "hello")


def test_handlers_tell_what_went_wrong(caplog: pytest.LogCaptureFixture) -> None:
    notice = panel()

    def refuse() -> dict:
        raise FTError("row 3 has no answer", "Write one.")

    def broken() -> dict:
        return {}["secret"]

    def stream():
        yield {"a": 1}
        raise FTError("stopped")

    tell = errors.told(notice)
    assert "Row 3 has no answer." in tell(refuse)()[notice]
    assert "Write one." in tell(refuse)()[notice]
    with caplog.at_level(logging.ERROR):
        said = tell(broken)()[notice]
    assert "fault is ours" in said and "secret" not in said
    assert "KeyError" in caplog.text
    assert [list(update.values()) for update in tell(stream)()][0] == ["", 1]
    assert errors.answered(refuse)() == {"error": "Row 3 has no answer.", "hint": "Write one."}


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(2, "a few seconds"), (38, "40 s"), (62, "1 min"), (118, "2 min"), (540, "9 min"), (4200, "1 h 10 min")],
)
def test_durations(seconds: float, words: str) -> None:
    assert say.duration(seconds) == words


def test_sizes_and_changes() -> None:
    assert say.size(105_454_432) == "105 MB"
    assert say.size(2.1e9) == "2.1 GB"
    assert say.memory(24 * 2**30) == "24 GB"
    assert say.percent(-0.31) == "−31 %"


def test_sentences_leave_names_alone() -> None:
    assert say.sentence("there are no rows, so far") == "There are no rows, so far."
    assert say.sentence("broken.jsonl is broken at line 17") == "broken.jsonl is broken at line 17."
    assert say.sentence("") == ""
