"""What rows say: tools, preferences, plain text, and columns that are corrected by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pandas
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ft_core.conversation import Conversation, Message
from ft_core.data import formats
from ft_core.data.formats import NoShape, Skipped
from ft_core.data.store import Store
from ft_core.errors import FTError

TOOLS = [{"type": "function", "function": {"name": "look_up", "parameters": {"type": "object", "properties": {}}}}]
CALL = [{"id": "c1", "type": "function", "function": {"name": "look_up", "arguments": '{"order": 7}'}}]
CALLING = [
    {"role": "user", "content": "Where is order 7?"},
    {"role": "assistant", "content": None, "tool_calls": CALL},
    {"role": "tool", "content": "in Oslo", "tool_call_id": "c1", "name": "look_up"},
    {"role": "assistant", "content": "In Oslo."},
]
ASKED, BETTER, WORSE = (
    {"role": r, "content": c} for r, c in (("user", "Ship?"), ("assistant", "In four days."), ("assistant", "No."))
)


def rows(folder: Path, *records: dict, **options) -> list:
    path = folder / "a.jsonl"
    path.write_text("\n".join(map(json.dumps, records)))
    return list(formats.read(path, **options))


def reasons(folder: Path, *records: dict) -> list[str]:
    found = rows(folder, *records, {"messages": [BETTER], "chosen": "x", "rejected": "y"})
    return [row.reason for row in found if isinstance(row, Skipped)]


def the_call() -> Conversation:
    return Conversation(
        (
            Message("user", "Where is order 7?"),
            Message("assistant", "", json.dumps({"tool_calls": CALL}, separators=(",", ":"))),
            Message("tool", "in Oslo", '{"name":"look_up","tool_call_id":"c1"}'),
            Message("assistant", "In Oslo."),
        ),
        tools=json.dumps(TOOLS, separators=(",", ":")),
    )


@pytest.mark.parametrize("tools", [TOOLS, json.dumps(TOOLS)])
def test_tools_and_calls_are_kept(tmp_path, tools):
    assert rows(tmp_path, {"messages": CALLING, "tools": tools}) == [the_call()]


def test_tools_in_the_cells_of_a_table(tmp_path):
    pandas.DataFrame([{"messages": json.dumps(CALLING), "tools": json.dumps(TOOLS)}]).to_csv(tmp_path / "a.csv")
    assert list(formats.read(tmp_path / "a.csv")) == [the_call()]
    turns = [{**turn, "tool_calls": json.dumps(turn.get("tool_calls"))} for turn in CALLING]
    pandas.DataFrame([{"messages": turns, "tools": json.dumps(TOOLS)}]).to_parquet(tmp_path / "a.parquet")
    assert list(formats.read(tmp_path / "a.parquet")) == [the_call()]


def test_calls_of_the_old_api_and_of_sharegpt(tmp_path):
    function = {"name": "look_up", "arguments": '{"order": 7}'}
    old = [CALLING[0], {"role": "assistant", "content": None, "function_call": function}]
    share = [{"from": "human", "value": "Where is order 7?"}, {"from": "function_call", "value": json.dumps(function)}]
    (first,) = rows(tmp_path, {"messages": old, "functions": [TOOLS[0]["function"]]})
    (second,) = rows(tmp_path, {"conversations": share, "tools": json.dumps(TOOLS)})
    assert first == second
    assert first.messages[1].to_dict()["tool_calls"] == [{"type": "function", "function": function}]
    assert json.loads(first.tools) == TOOLS


def test_tools_that_cannot_be_kept_are_named(tmp_path):
    bad = [
        ({"messages": [ASKED, {**BETTER, "tool_calls": "call it"}]}, "its tool_calls is text that is not JSON"),
        ({"messages": [ASKED, {**BETTER, "tool_calls": [1]}]}, "its tool_calls are not a list of objects"),
        ({"messages": [ASKED, {**BETTER, "function_call": "x"}]}, "its function_call is no object"),
        ({"messages": [ASKED, {**BETTER, "name": 4}]}, "the name of the assistant message is a number"),
        ({"messages": [ASKED, BETTER], "tools": ["look_up"]}, "its tools are not a list of objects"),
        ({"messages": [ASKED, BETTER], "tools": [{"name": "\ud800"}]}, "the list of tools holds half a character"),
        ({"messages": [ASKED, {**BETTER, "name": "\ud800"}]}, "the assistant message holds half a character"),
    ]
    (tmp_path / "a.jsonl").write_text(
        "\n".join(json.dumps(record) for record, _ in [*bad, ({"messages": [BETTER]}, 0)])
    )
    *skipped, _ = formats.read(tmp_path / "a.jsonl")
    assert len(skipped) == len(bad)
    for found, (_, reason) in zip(skipped, bad):
        assert found.reason.startswith(reason)


PREFERENCES = [
    {"prompt": "Ship?", "chosen": "In four days.", "rejected": "No."},
    {"prompt": [ASKED], "chosen": [BETTER], "rejected": [WORSE]},
    {"prompt": "Ship?", "chosen": [ASKED, BETTER], "rejected": [ASKED, WORSE]},  # UltraFeedback
    {"prompt": "Ship?", "chosen": [ASKED, BETTER], "rejected": [ASKED, WORSE], "messages": [ASKED, BETTER]},
    {"chosen": [ASKED, BETTER], "rejected": [ASKED, WORSE]},
    {"chosen": "\n\nHuman: Ship?\n\nAssistant: In four days.", "rejected": "\n\nHuman: Ship?\n\nAssistant: No."},
    {
        "conversations": [{"from": "human", "value": "Ship?"}],
        "chosen": {"from": "gpt", "value": "In four days."},
        "rejected": {"from": "gpt", "value": "No."},
    },
    {"messages": [ASKED, BETTER], "rejected": "No."},
]


@pytest.mark.parametrize("record", PREFERENCES)
def test_a_preference_keeps_its_worse_answer(tmp_path, record):
    wanted = Conversation((Message("user", "Ship?"), Message("assistant", "In four days.")), rejected="No.")
    assert rows(tmp_path, record) == [wanted]
    with_system = Message("system", "Be brief.")
    if "messages" not in record:
        (found,) = rows(tmp_path, {**record, "system": "Be brief."})
        assert found.messages == (with_system, *wanted.messages) and found.rejected == "No."


def test_a_preference_of_several_turns(tmp_path):
    before = [{"role": "system", "content": "s"}, ASKED, BETTER, {"role": "user", "content": "Sure?"}]
    (found,) = rows(tmp_path, {"chosen": [*before, BETTER], "rejected": [*before, WORSE]})
    assert [m.role for m in found.messages] == ["system", "user", "assistant", "user", "assistant"]
    assert found.rejected == "No."


def test_preferences_that_cannot_be_kept_are_named(tmp_path):
    other = {"role": "user", "content": "Else?"}
    bad = [
        ({"prompt": [ASKED], "chosen": [BETTER], "rejected": [WORSE, WORSE]}, "its rejected is several messages"),
        ({"chosen": [ASKED, BETTER], "rejected": [other, WORSE]}, "its chosen and rejected begin differently"),
        ({"prompt": "Why?", "chosen": [ASKED, BETTER], "rejected": "No."}, "its chosen is a whole conversation, and"),
        ({"prompt": "Why?", "chosen": [ASKED], "rejected": "No."}, "its chosen ends with the user"),
        ({"prompt": "Why?", "chosen": [], "rejected": "No."}, "it has no answer"),
        ({"chosen": [ASKED, BETTER], "rejected": [ASKED]}, "its rejected ends with the user"),
        ({"prompt": "a", "chosen": "b", "rejected": [{**WORSE, "tool_calls": CALL}]}, "its rejected answer calls"),
        ({"prompt": "a", "chosen": "b", "rejected": "\ud800"}, "the rejected answer holds half a character"),
    ]
    assert [r[: len(s)] for r, (_, s) in zip(reasons(tmp_path, *(b for b, _ in bad)), bad)] == [s for _, s in bad]


# --- our own lines come back

texts = st.text(max_size=30) | st.sampled_from(
    ["[]", '[{"role": "user", "content": "x"}]', "\n\nHuman: x", "=1", "\0"]
)
names = st.text(min_size=1, max_size=8)
values = st.text(max_size=9) | st.integers() | st.none()
calls = st.lists(st.dictionaries(names, values, min_size=1), min_size=1, max_size=2)


def more(**keys) -> str:
    return json.dumps({k: v for k, v in keys.items() if v}, ensure_ascii=False, separators=(",", ":"))


def tools_of(found: list[dict]) -> str:
    tools = [{"type": "function", **tool} for tool in found]
    return json.dumps(tools, ensure_ascii=False, separators=(",", ":"))


@st.composite
def with_everything(draw):
    named = names.map(lambda name: more(name=name))
    turn = st.builds(Message, st.sampled_from(("system", "user", "tool")), texts, st.just("") | named)
    call = st.builds(Message, st.just("assistant"), texts, calls.map(lambda found: more(tool_calls=found)))
    last = Message("assistant", draw(texts.filter(str.strip)))
    tools = draw(st.just("") | calls.map(tools_of))
    return Conversation((*draw(st.lists(turn | call, max_size=3)), last), "", tools, draw(texts))


def test_the_lines_of_our_own_export_come_back_equal(tmp_path_factory):
    path = tmp_path_factory.mktemp("own") / "a.jsonl"

    @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.lists(with_everything(), min_size=1, max_size=3))
    def check(conversations):
        path.write_text("".join(json.dumps(c.to_dict()) + "\n" for c in conversations), encoding="utf-8")
        assert list(formats.read(path)) == conversations

    check()


# --- plain text


def test_paragraphs_of_a_text_are_rows_without_a_question(tmp_path):
    path = tmp_path / "book.txt"
    path.write_bytes("\r\nCall me Ishmael.\r\nSome years ago\r\n \r\n\r\n  Never mind.\r\n".encode("utf-16"))
    seen = formats.recognise(path)
    assert (seen.shape, seen.mapping) == ("text", {"text": "text"})
    first, second = formats.read(path)
    assert first.messages == (Message("assistant", "Call me Ishmael.\nSome years ago"),)
    assert second.messages == (Message("assistant", "Never mind."),)
    assert (first.origin, second.origin) == ("book.txt row 2", "book.txt row 6")
    assert rows(tmp_path, {"text": "Call me Ishmael.\nSome years ago"}) == [first]
    assert rows(tmp_path, {"text": " "}, {"text": "x"})[0].reason == "it has no text"


def test_a_text_of_questions_and_answers(tmp_path):
    path = tmp_path / "faq.md"
    path.write_text("Q: Do you ship\nto Norway?\nA: Yes.\n\nIn four days.\n\nQ2: And back?\nQ3: Why?\nA3: So: A: b\n")
    one, two, three = formats.read(path)
    assert [m.content for m in one.messages] == ["Do you ship\nto Norway?", "Yes.\n\nIn four days."]
    assert (two.row, two.reason) == (7, "it has no answer")
    assert [m.content for m in three.messages] == ["Why?", "So: A: b"]


# --- corrected by hand


def test_every_field_of_the_shape_is_shown_with_its_column(tmp_path):
    (tmp_path / "a.csv").write_text("question,answer,system,note\nq,a,s,n\n")
    seen = formats.recognise(tmp_path / "a.csv")
    fields = [(f.name, f.needed, f.column) for f in seen.fields]
    assert fields == [
        ("prompt", True, "question"),
        ("completion", True, "answer"),
        ("system", False, "system"),
        ("tools", False, ""),
    ]
    assert seen.samples == {"question": "q", "answer": "a", "system": "s", "note": "n"}


def test_optional_fields_are_mapped_and_left_out_and_the_shape_is_chosen(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("instruction,input,output,note,system\ni,x,o,n,s\n")

    def said(**options) -> list[str]:
        (row,) = formats.read(path, **options)
        return [m.content for m in row.messages]

    assert said() == ["s", "i\n\nx", "o"]
    assert said(mapping={"system": ""}) == ["i\n\nx", "o"]
    assert said(mapping={"system": "", "input": ""}) == ["i", "o"]
    assert said(mapping={"system": "note", "input": "system"}) == ["n", "i\n\ns", "o"]
    assert said(shape="prompt-completion") == ["s", "i", "o"]
    assert said(shape="text", mapping={"text": "note"}) == ["n"]
    with pytest.raises(FTError, match="there is no shape 'poem'"):
        said(shape="poem")
    with pytest.raises(NoShape, match="the shape preference needs chosen"):
        said(shape="preference")


def test_columns_that_make_no_shape_can_be_chosen_from(tmp_path):
    (tmp_path / "a.csv").write_text("Frage,Antwort\nq,a\n")
    with pytest.raises(NoShape, match="that is no shape that is known") as refused:
        formats.recognise(tmp_path / "a.csv")
    assert refused.value.columns == ("Frage", "Antwort")
    assert refused.value.samples == {"Frage": "q", "Antwort": "a"}
    seen = formats.recognise(tmp_path / "a.csv", {"prompt": "Frage", "completion": "Antwort"}, "prompt-completion")
    assert seen.preview[0].messages == (Message("user", "q"), Message("assistant", "a"))


def test_a_tool_call_alone_is_an_answer_and_the_store_keeps_all(tmp_path):
    (tmp_path / "a.jsonl").write_text(json.dumps({"messages": CALLING[:2], "tools": TOOLS, "rejected": None}))
    with Store(tmp_path / "data.sqlite") as store:
        assert formats.import_files(store, [tmp_path / "a.jsonl"]).added == 1
        (row,) = store.rows()
    assert row.conversation.to_dict()["tools"] == TOOLS
    assert row.conversation.messages[1].to_dict()["tool_calls"] == CALL
