"""What the drawer says of a row: the tokens as render.py labels them, where the limit cuts, and the row's place."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ft_core.conversation import Conversation, Message
from ft_core.data.audited import FLAGS, Audit
from ft_core.data.flags import Flag
from ft_core.data.store import Row
from ft_core.errors import FTError
from ft_core.render import IGNORED, Renderer
from ui.changes import pieces
from ui.drawer import _flags, _messages
from ui.seen import seen

TALK = Conversation(
    (
        Message("system", "Be brief."),
        Message("user", "Is the decaf sour? 🙂"),
        Message("assistant", "No, it is round and sweet 🍬."),
        Message("user", "And the house blend?"),
        Message("assistant", "Dark chocolate."),
    )
)


@pytest.fixture(scope="module")
def renderer(builtin: Path) -> Renderer:
    return Renderer.of(builtin)


def joined(shown, wanted) -> str:
    return "".join(text for text, learnt, cut in shown.pieces if wanted(learnt, cut))


def test_the_pieces_are_the_labels(renderer: Renderer) -> None:
    shown, example = seen(renderer, TALK, 512), renderer.example(TALK, 512)
    assert joined(shown, lambda learnt, cut: True) == renderer.text(TALK.messages)
    learnt = [id for id, label in zip(example.ids, example.labels) if label != IGNORED]
    assert joined(shown, lambda learnt, cut: learnt) == renderer.tokenizer.decode(learnt, skip_special_tokens=False)
    assert (shown.tokens, shown.limit, shown.learnt, shown.cut) == (len(example.ids), 512, example.learnt, 0)


@pytest.mark.parametrize("limit", range(20, 70, 3))
def test_what_the_limit_cuts_is_told(renderer: Renderer, limit: int) -> None:
    shown, example = seen(renderer, TALK, limit), renderer.example(TALK, limit)
    assert joined(shown, lambda learnt, cut: True) == renderer.text(TALK.messages)
    kept = renderer.tokenizer.decode(list(example.ids), skip_special_tokens=False)
    assert joined(shown, lambda learnt, cut: not cut) == kept.rstrip("\ufffd")  # half a sign is cut as a whole
    assert (shown.cut, shown.cut_learnt, shown.learnt) == (example.cut, example.cut_learnt, example.learnt)


def test_a_template_that_refuses_says_so(builtin: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(builtin, tmp_path / "strict", ignore=shutil.ignore_patterns("*.safetensors"))
    (folder / "chat_template.jinja").write_text("{{ raise_exception('roles must alternate') }}")
    with pytest.raises(FTError, match="roles must alternate"):
        seen(Renderer.of(folder), TALK, 512)


def test_turns_from_a_page_keep_their_calls_to_the_letter() -> None:
    more = '{"tool_calls":[{"function":{"arguments":"{\\"n\\": 1.0}","name":"f"},"id":"1"}]}'
    turns = [{"role": "user", "content": "a", "more": ""}, {"role": "assistant", "content": "b", "more": more}]
    assert _messages(turns) == (Message("user", "a"), Message("assistant", "b", more))
    for bad in ([{"role": "user"}], ["x"], 3, [{"role": "user", "content": "a", "more": "{"}], None):
        with pytest.raises(FTError):
            _messages(bad)
    with pytest.raises(FTError, match="role"):
        _messages([{"role": "boss", "content": "a"}])


@settings(max_examples=100)
@given(st.text(max_size=60), st.text(max_size=60))
def test_marked_changes_lead_from_one_text_to_the_other(before: str, after: str) -> None:
    found = pieces(before, after)
    assert bool(found) == (before != after)
    if found:
        assert "".join(text for mark, text in found if mark in ("", "-")) == before
        assert "".join(text for mark, text in found if mark in ("", "+")) == after


def test_long_texts_are_shown_around_their_changes() -> None:
    filler = "coffee beans and more " * 300
    found = pieces(f"{filler}four days{filler}", f"{filler}five days{filler}")
    assert [mark for mark, _ in found] == ["…", "", "-", "+", "", "…"]
    assert found[2:4] == [("-", "four"), ("+", "five")]
    assert sum(len(text) for _, text in found) < 300
    whole = pieces("x " * 5000, "y " * 5000)
    assert [mark for mark, _ in whole] == ["-", "…", "+", "…", ""]


def test_each_flag_says_why_and_what_to_do() -> None:
    row = Row(1, TALK, "accepted", "", 1, Audit(9, 3, 0, 40, tuple(Flag(name, "in turn 2") for name in FLAGS)))
    found = _flags(row)
    assert [f["reason"] for f in found] == ["in turn 2"] * len(FLAGS)
    assert [f["name"] for f in found if not f["do"]] == []
    assert _flags(Row(1, TALK, "accepted", "", 1)) == []
