"""Files out: what was exported imports as it was, a spreadsheet runs nothing of it, and what a shape cannot hold is
refused with the reason."""

from __future__ import annotations

import csv
import json
import re
from dataclasses import replace

import datasets
import pandas
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ft_core.conversation import Conversation, Message, compact, more_of
from ft_core.data import folder, formats
from ft_core.data.writing import Written
from ft_core.errors import FTError

FORMATS = (".jsonl", ".json", ".csv", ".parquet")
PAIR = Conversation((Message("user", "Do you ship to Norway?"), Message("assistant", "Yes, in four days.")))


def runs(cell: str) -> bool:
    """Whether a spreadsheet may take the cell for a formula: OWASP's list, also behind what cannot be seen."""
    seen = re.sub(r"^[\s\x00-\x1f\ufeff\u200b]+", "", cell)
    return seen.startswith(("=", "+", "-", "@")) or cell.startswith(("\t", "\r", "\n"))


texts = st.text(max_size=40) | st.sampled_from(
    [
        "=1+1",
        "'=1+1",
        "''@x",
        "-5",
        "+49",
        "\t=x",
        "\r\n",
        "a\rb",
        'a "quoted" word',
        "שלום",
        "👩‍👩‍👧",
        "a\x00b",
        "\u2028",
        "Context: a\n\nQuestion: b",
        "Context: \n\nContext: x\n\nQuestion: ",
        '[{"role": "user", "content": "x"}]',
        '["a"]',
        "null",
        "\ufeff",
        "﹦",
        "＝1",
        " =1",
        "x" * 1_000_000,
        "\x00=1",
        "\ufeff=1",
        "'\u200b+1",
        "[{",
        "\\",
    ]  # fmt: skip
)
answers = texts.filter(lambda text: text.strip())


@st.composite
def exchanges(draw):
    """A system prompt perhaps, then user and assistant in turn: what every shape can hold."""
    said = draw(st.lists(st.tuples(texts, answers), min_size=1, max_size=3))
    turns = [Message(role, text) for pair in said for role, text in zip(("user", "assistant"), pair)]
    system = draw(st.none() | answers)
    return Conversation((*([Message("system", system)] if system else []), *turns))


names = st.text(min_size=1, max_size=9)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=6,
)
calls = st.lists(st.fixed_dictionaries({"id": names, "function": values}), min_size=1, max_size=2)
mores = st.fixed_dictionaries({}, optional={"tool_calls": calls, "tool_call_id": names, "name": names}).map(more_of)
tools = st.just("") | st.lists(st.fixed_dictionaries({"type": names, "function": values}), min_size=1).map(compact)
worse = st.just("") | answers


@st.composite
def anything(draw):
    """Any roles in any order, with an answer somewhere; with tools, calls and a worse answer, or without."""
    roles = st.sampled_from(("system", "user", "assistant", "tool"))
    turn = st.builds(Message, roles, texts, st.just("") | mores)
    last = Message("assistant", draw(answers), draw(st.just("") | mores))
    return Conversation((*draw(st.lists(turn, max_size=3)), last), tools=draw(tools), rejected=draw(worse))


ROWS_OF = {
    "messages": anything(),
    "sharegpt": anything(),
    "alpaca": exchanges(),
    "prompt-completion": exchanges(),
    "contexts": exchanges(),
    "preference": anything().filter(lambda row: row.rejected and len(row.messages) > 1),
    "text": answers.map(lambda text: Conversation((Message("assistant", text),))),
}


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("shape", ROWS_OF)
def test_what_was_exported_imports_as_it_was(tmp_path_factory, suffix, shape):
    path = tmp_path_factory.mktemp("out") / f"rows{suffix}"

    @settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.lists(ROWS_OF[shape], min_size=1, max_size=4))
    def check(conversations):
        assert formats.write(conversations, path, shape) == Written(len(conversations), 0)
        assert list(formats.read(path)) == conversations
        if suffix == ".csv":
            with path.open(newline="", encoding="utf-8") as file:
                cells = [cell for row in csv.reader(file) for cell in row]
            assert not [c for c in cells if runs(c)]

    check()


@pytest.mark.parametrize("shape", ["prompt-completion", "alpaca", "text"])
def test_no_cell_is_a_formula(tmp_path, shape):
    """Whatever a spreadsheet may leave out before the sign, and however many quotes stand there already."""
    signs = [f"{sign}cmd|' /C calc'!A0" for sign in "=+-@"]
    before = ("", "'", "''", " ", "\t", "\r", "\n", "\x00", "\ufeff", "\u200b", "'\u200b", " \x00 ")
    nasty = [start + sign for start in before for sign in signs]
    rows = [Conversation((Message("user", text), Message("assistant", text))) for text in nasty]
    if shape == "text":
        rows = [Conversation(row.messages[1:]) for row in rows]
    formats.write(rows, tmp_path / "a.csv", shape)
    with (tmp_path / "a.csv").open(newline="", encoding="utf-8") as file:
        cells = [cell for row in csv.reader(file) for cell in row]
    assert len(cells) > len(rows) and not [cell for cell in cells if runs(cell)]
    assert list(formats.read(tmp_path / "a.csv")) == rows


def test_prompt_completion_is_two_texts_when_that_is_all(tmp_path):
    formats.write([PAIR], tmp_path / "a.jsonl", "prompt-completion")
    assert json.loads((tmp_path / "a.jsonl").read_text()) == {
        "prompt": "Do you ship to Norway?",
        "completion": "Yes, in four days.",
    }
    formats.write([PAIR.with_system("Be kind."), PAIR], tmp_path / "a.jsonl", "prompt-completion")
    first, second = map(json.loads, (tmp_path / "a.jsonl").read_text().splitlines())
    assert first["prompt"][0] == {"role": "system", "content": "Be kind."}
    assert second["completion"] == [{"role": "assistant", "content": "Yes, in four days."}]


def test_the_canonical_line(tmp_path):
    formats.write([PAIR], tmp_path / "a.jsonl")
    assert json.loads((tmp_path / "a.jsonl").read_text()) == {"messages": [m.to_dict() for m in PAIR.messages]}


def test_export_that_cannot_be_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("precious")
    greeting = Conversation((Message("assistant", "Hello"),))
    for shape, conversations in [
        ("alpaca", [PAIR, greeting]),
        ("preference", [PAIR]),
        ("nonsense", [PAIR]),
        ("alpaca", []),
    ]:
        with pytest.raises(FTError):
            formats.write(conversations, path, shape)
        assert path.read_text() == "precious"
    with pytest.raises(FTError, match="row 2 cannot be written as alpaca"):
        formats.write([PAIR, greeting], path, "alpaca")
    with pytest.raises(FTError, match="no such format"):
        formats.write([PAIR], tmp_path / "a.xlsx")
    with pytest.raises(FTError, match="cannot be written"):
        formats.write([PAIR], tmp_path / "no" / "a.csv")
    assert [p.name for p in tmp_path.iterdir()] == ["a.csv"]


# --- rows with tools, with a worse answer, of one text alone

TOOLS = '[{"type":"function","function":{"name":"weather"}}]'
CALL = '{"tool_calls":[{"id":"1","type":"function","function":{"name":"weather","arguments":{"city":"Oslo"}}}]}'
TOOLED = Conversation(
    (
        Message("user", "Rain in Oslo?"),
        Message("assistant", "", CALL),
        Message("tool", "no", '{"name":"weather","tool_call_id":"1"}'),
        Message("assistant", "No."),
    ),
    tools=TOOLS,
)
PREFERRED = Conversation(PAIR.messages, rejected="We ship everywhere, \n=SUM(A1)")
ALONE = Conversation((Message("assistant", "Fjord roasts on Tuesdays."),))


def test_tools_stand_as_they_are_where_rows_have_them(tmp_path):
    formats.write([TOOLED, PAIR], tmp_path / "a.jsonl")
    first, second = map(json.loads, (tmp_path / "a.jsonl").read_text().splitlines())
    assert first["tools"] == json.loads(TOOLS) and second["tools"] is None
    assert first["messages"][1] == {"role": "assistant", "content": "", **json.loads(CALL)}
    assert set(second["messages"][0]) == {"role", "content"}
    formats.write([TOOLED, PREFERRED], tmp_path / "a.parquet", "sharegpt")
    found = pandas.read_parquet(tmp_path / "a.parquet")
    assert list(found.columns) == ["conversations", "tools", "rejected"] and found["tools"][0] == TOOLS
    assert list(found["conversations"][0][1]) == ["from", "value", "name", "tool_call_id", "tool_calls"]
    assert json.loads(found["conversations"][0][1]["tool_calls"]) == json.loads(CALL)["tool_calls"]
    assert found["rejected"][1] == PREFERRED.rejected
    formats.write([PAIR], tmp_path / "plain.parquet")
    assert pq.read_schema(tmp_path / "plain.parquet").names == ["messages"]


@pytest.mark.parametrize("shape", ["alpaca", "prompt-completion", "contexts", "text"])
def test_what_a_flat_shape_cannot_hold_is_refused_with_the_reason(tmp_path, shape):
    for row, reason in (
        (TOOLED, "it has tools"),
        (replace(TOOLED, tools="", messages=TOOLED.messages[:2]), "it has tools"),
        (PREFERRED, "it has a better and a worse answer"),
        (Conversation((Message("system", "x"), *ALONE.messages)), "it is "),
    ):
        good = ALONE if shape == "text" else PAIR
        with pytest.raises(FTError, match=f"row 2 cannot be written as {shape}: {reason}") as refused:
            formats.write([good, row], tmp_path / "a.jsonl", shape)
        assert refused.value.hint.startswith("messages and sharegpt hold every conversation")
    assert list(tmp_path.iterdir()) == []


def test_preference_is_what_trl_reads_and_the_other_rows_are_counted(tmp_path):
    assert formats.write([PAIR, PREFERRED, TOOLED], tmp_path / "a.jsonl", "preference") == Written(1, 2)
    assert json.loads((tmp_path / "a.jsonl").read_text()) == {
        "prompt": [{"role": "user", "content": "Do you ship to Norway?"}],
        "chosen": [{"role": "assistant", "content": "Yes, in four days."}],
        "rejected": [{"role": "assistant", "content": PREFERRED.rejected}],
    }
    with pytest.raises(FTError, match="none of the 2 rows has a better and a worse answer"):
        formats.write([PAIR, TOOLED], tmp_path / "a.jsonl", "preference")
    backwards = Conversation(PAIR.messages[:1], rejected="x")
    with pytest.raises(FTError, match="row 1 cannot be written as preference: it does not end with the better answer"):
        formats.write([backwards], tmp_path / "a.jsonl", "preference")
    with pytest.raises(FTError, match="row 2 cannot be written as preference: it has no prompt"):
        formats.write([PREFERRED, replace(ALONE, rejected="x")], tmp_path / "a.jsonl", "preference")


def test_text_is_the_answer_alone(tmp_path):
    formats.write([ALONE], tmp_path / "a.jsonl", "text")
    assert json.loads((tmp_path / "a.jsonl").read_text()) == {"text": "Fjord roasts on Tuesdays."}


# --- a folder of `datasets`


def sided(*rows: Conversation) -> list[tuple[int, Conversation, str]]:
    """Every third held out, the last one without a place."""
    sides = ["" if i == len(rows) else "heldout" if i % 3 == 0 else "train" for i in range(1, len(rows) + 1)]
    return [(i, row, side) for i, (row, side) in enumerate(zip(rows, sides), 1)]


@pytest.mark.parametrize("shape", ["messages", "prompt-completion"])
def test_datasets_loads_the_folder(tmp_path, shape):
    pairs = [Conversation((Message("user", f"q {i}\0"), Message("assistant", "=1" * i + "a"))) for i in range(2500)]
    assert folder.write(sided(*pairs), tmp_path / "rows", shape) == Written(2500, 0)
    assert folder.write(sided(*pairs), tmp_path / "rows", shape) == Written(2500, 0)  # over the one before
    found = datasets.load_from_disk(str(tmp_path / "rows"))
    assert {name: part.num_rows for name, part in found.items()} == {"train": 1667, "test": 833}
    expected = pairs[2].messages
    if shape == "messages":
        assert found["test"][0] == {"messages": [m.to_dict() for m in expected]}
    else:
        assert found["test"][0] == {"prompt": expected[0].content, "completion": expected[1].content}
    assert found["train"].map(lambda row: {"n": len(str(row))}, load_from_cache_file=False)["n"]
    assert [p.name for p in tmp_path.iterdir()] == ["rows"]


def test_without_rows_held_out_the_folder_is_one_dataset(tmp_path):
    folder.write([(1, TOOLED, ""), (2, PAIR, "train")], tmp_path / "rows")
    found = datasets.load_from_disk(str(tmp_path / "rows"))
    assert found.num_rows == 2 and str(found.split) == "train"
    assert found[0]["tools"] == TOOLS and found[1]["tools"] is None
    assert [m["role"] for m in found[0]["messages"]] == ["user", "assistant", "tool", "assistant"]
    assert list(formats.read(tmp_path / "rows")) == [TOOLED, PAIR]


def test_a_folder_that_holds_something_else_is_left_alone(tmp_path):
    (tmp_path / "precious.txt").write_text("x")
    for path in (tmp_path, tmp_path / "precious.txt", tmp_path / "no" / "rows"):
        with pytest.raises(FTError):
            folder.write(sided(PAIR), path)
    with pytest.raises(FTError, match="no rows to write"):
        folder.write([], tmp_path / "rows")
    assert [p.name for p in tmp_path.iterdir()] == ["precious.txt"]
