"""Files in and out: every shape, every format, every way in which a file is broken."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pandas
import pytest

from ft_core.conversation import Conversation, Message
from ft_core.data import formats
from ft_core.data.formats import Ended, Skipped
from ft_core.errors import FTError

FORMATS = (".jsonl", ".json", ".csv", ".parquet")


def conversation(*said: str) -> Conversation:
    roles = ("user", "assistant")
    return Conversation(tuple(Message(roles[i % 2], text) for i, text in enumerate(said)))


PAIR = conversation("Do you ship to Norway?", "Yes, in four days.")


def saved(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def rows(path: Path, **options) -> list:
    return list(formats.read(path, **options))


SHAPES = [
    ("messages", {"messages": [m.to_dict() for m in PAIR.messages]}),
    ("messages", {"prompt": "x", "messages": [m.to_dict() for m in PAIR.messages]}),
    (
        "messages",
        {"messages": [{"role": m.role, "content": [{"type": "text", "text": m.content}]} for m in PAIR.messages]},
    ),
    (
        "sharegpt",
        {"conversations": [{"from": f, "value": m.content} for f, m in zip(("human", "gpt"), PAIR.messages)]},
    ),
    ("alpaca", {"instruction": "Do you ship to Norway?", "input": "", "output": "Yes, in four days."}),
    ("prompt-completion", {"prompt": "Do you ship to Norway?", "completion": "Yes, in four days."}),
    ("prompt-completion", {"Question": "Do you ship to Norway?", "Answer": "Yes, in four days."}),
    ("prompt-completion", {"prompt": "Do you ship to Norway?", "response": "Yes, in four days."}),
    ("prompt-completion", {"input": "Do you ship to Norway?", "response": "Yes, in four days."}),
    ("prompt-completion", {"prompt": [PAIR.messages[0].to_dict()], "completion": [PAIR.messages[1].to_dict()]}),
    ("contexts", {"input": "Do you ship to Norway?", "contexts": [], "response": "Yes, in four days."}),
    ("preference", {"prompt": "Do you ship to Norway?", "chosen": "Yes, in four days.", "rejected": ""}),
    ("preference", {"chosen": [m.to_dict() for m in PAIR.messages], "rejected": []}),
]


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("shape, record", SHAPES)
def test_shapes_are_recognised_by_their_columns(tmp_path, suffix, shape, record):
    path = tmp_path / f"rows{suffix}"
    match suffix:
        case ".jsonl":
            path.write_text(json.dumps(record))
        case ".json":
            path.write_text(json.dumps([record]))
        case ".csv":
            cells = {k: v if isinstance(v, str) else json.dumps(v) for k, v in record.items()}
            pandas.DataFrame([cells]).to_csv(path, index=False)
        case ".parquet":
            pandas.DataFrame([record]).to_parquet(path)
    assert rows(path) == [PAIR]
    seen = formats.recognise(path)
    assert (seen.shape, seen.columns, seen.preview) == (shape, tuple(record), (PAIR,))
    assert set(seen.mapping.values()) <= set(record)


def test_alpaca_with_input_system_and_history(tmp_path):
    record = {
        "instruction": "Translate.", "input": "Hei", "output": "Hello", "system": "You are Fjord.",
        "history": [["a", "b"]],
    }  # fmt: skip
    (found,) = rows(saved(tmp_path, "a.jsonl", json.dumps(record)))
    said = [(m.role, m.content) for m in found.messages]
    assert said == [
        ("system", "You are Fjord."), ("user", "a"), ("assistant", "b"), ("user", "Translate.\n\nHei"),
        ("assistant", "Hello"),
    ]  # fmt: skip
    assert found.origin == "a.jsonl row 1"


@pytest.mark.parametrize("contexts", [["One.", "Two."], '["One.", "Two."]'])
def test_contexts_are_written_into_the_prompt(tmp_path, contexts):
    path = saved(tmp_path, "a.jsonl", json.dumps({"input": "How many?", "contexts": contexts, "response": "Two."}))
    assert rows(path)[0].messages[0].content == "Context: One.\n\nContext: Two.\n\nQuestion: How many?"
    formats.write(rows(path), tmp_path / "b.jsonl", "contexts")
    assert json.loads((tmp_path / "b.jsonl").read_text())["contexts"] == ["One.", "Two."]


def test_one_context_under_its_other_name(tmp_path):
    path = saved(tmp_path, "a.csv", "instruction,context,response\nHow many?,One.,One of them\n")
    assert formats.recognise(path).shape == "contexts"
    assert rows(path)[0].messages[0].content == "Context: One.\n\nQuestion: How many?"


def test_mapping_says_which_column_is_which(tmp_path):
    path = saved(tmp_path, "faq.csv", "Frage;Antwort\nDo you ship to Norway?;Yes, in four days.\n")
    with pytest.raises(FTError, match="faq.csv has the columns Frage, Antwort") as refused:
        rows(path)
    assert "prompt + completion" in refused.value.hint
    assert rows(path, mapping={"prompt": "Frage", "answer": "Antwort"}) == [PAIR]
    with pytest.raises(FTError, match="no column 'Farge'") as refused:
        rows(path, mapping={"prompt": "Farge"})
    assert refused.value.hint == "Did you mean 'Frage'?"
    with pytest.raises(FTError, match="'frage' is no field"):
        rows(path, mapping={"frage": "Frage"})


def test_mapping_wins_over_the_names(tmp_path):
    path = saved(
        tmp_path, "a.csv", 'prompt,question,messages,answer\nno,Do you ship to Norway?,no,"Yes, in four days."'
    )
    assert rows(path, mapping={"prompt": "question", "completion": "answer"}) == [PAIR]


def test_saved_as_the_world_saves_them(tmp_path):
    german = conversation("Größe?", "Fünf – zu groß")
    text = "prompt,completion\nGröße?,Fünf – zu groß\n"
    for name, encoding in [("a", "utf-8"), ("b", "utf-8-sig"), ("c", "utf-16"), ("d", "cp1252"), ("e", "utf-16-le")]:
        assert rows(saved(tmp_path, f"{name}.csv", text.encode(encoding))) == [german], encoding
    latin = "prompt,completion\nOlá?,Não\n".encode("latin-1")
    assert rows(saved(tmp_path, "f.csv", latin)) == [conversation("Olá?", "Não")]
    lines = json.dumps({"prompt": "Größe?", "completion": "Fünf – zu groß"}, ensure_ascii=False)
    assert rows(saved(tmp_path, "g.jsonl", lines.encode("utf-16"))) == [german]


def test_tsv_and_semicolons(tmp_path):
    assert rows(saved(tmp_path, "a.tsv", "prompt\tcompletion\nDo you ship to Norway?\tYes, in four days.\n")) == [PAIR]
    assert rows(saved(tmp_path, "a.csv", "prompt;completion\r\nDo you ship to Norway?;Yes, in four days.\r\n")) == [
        PAIR
    ]


PAIR_RECORD = {"prompt": "Do you ship to Norway?", "completion": "Yes, in four days."}


@pytest.mark.parametrize(
    "value",
    [
        {"version": 1, "data": [PAIR_RECORD]},
        {k: [v] for k, v in PAIR_RECORD.items()},
        {k: {"0": v} for k, v in PAIR_RECORD.items()},
        PAIR_RECORD,
        {"messages": [m.to_dict() for m in PAIR.messages]},
    ],
)
def test_objects_as_json_files(tmp_path, value):
    assert rows(saved(tmp_path, "a.json", json.dumps(value, indent=1))) == [PAIR]


def test_json_lines_under_the_wrong_ending(tmp_path):
    assert rows(saved(tmp_path, "a.json", f"{json.dumps(PAIR_RECORD)}\n" * 2)) == [PAIR, PAIR]
    assert rows(saved(tmp_path, "a.jsonl", json.dumps([PAIR_RECORD] * 2, indent=2))) == [PAIR, PAIR]


def test_a_json_array_larger_than_the_buffer(tmp_path):
    """Values lie across every boundary of what is read at once, and one is larger than that."""
    many = [{"prompt": f"{i} " + "ü" * (i * 7919 % 3001), "completion": '\n"é\\'} for i in range(2000)]
    many.insert(1000, {"prompt": "x" * 3_000_000, "completion": "long"})
    for indent in (None, 1):
        path = saved(tmp_path, "a.json", json.dumps(many, ensure_ascii=False, indent=indent))
        assert [c.messages[0].content for c in rows(path)] == [r["prompt"] for r in many]


# --- what cannot be used


def lines(n: int, bad: dict[int, str]) -> str:
    return "\n".join(bad.get(i, json.dumps(PAIR_RECORD)) for i in range(1, n + 1))


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv"])
def test_a_break_at_line_17(tmp_path, store, suffix):
    store.add([conversation("old", "row")])
    if suffix == ".jsonl":
        text = lines(30, {17: '{"prompt": "a", "completion": "b"'})
    elif suffix == ".json":
        text = "[\n" + ",\n".join(lines(30, {16: '{"prompt" "a"}'}).split("\n")) + "\n]"
    else:
        text = "prompt,completion\n" + "a,b\n" * 15 + 'a,"b" b\n' + "a,b\n" * 10
    path = saved(tmp_path, f"faq{suffix}", text)
    with pytest.raises(FTError, match=f"faq{suffix} is broken at line 17: ") as refused:
        formats.import_files(store, [path])
    assert refused.value.hint
    assert (store.count(), len(store.log())) == (1, 1)

    *good, last = rows(path, partial=True)
    assert len(good) == (16 if suffix == ".jsonl" else 15)
    assert isinstance(last, Ended) and last.place == "line 17"
    done = formats.import_files(store, [path], partial=True)
    assert done.added == len(good) and done.ended_at.startswith(f"faq{suffix}, line 17: ")


def test_a_break_far_into_a_file(tmp_path):
    text = "[" + ",\n".join([json.dumps({**PAIR_RECORD, "note": "x" * 1000})] * 5000)
    for path in (saved(tmp_path, "cut.json", text), saved(tmp_path, "bad.json", text + ", {]")):
        *good, last = rows(path, partial=True)
        assert (len(good), last.place) == (5000, "line 5000")


def test_a_quote_that_is_never_closed_names_the_line_that_opened_it(tmp_path):
    path = saved(tmp_path, "a.csv", 'prompt,completion\na,b\na,"b\n' + "a,b\n" * 50)
    with pytest.raises(FTError, match="line 3: a quote is never closed"):
        rows(path)


def test_bytes_that_are_no_text(tmp_path):
    good = json.dumps({"prompt": "Größe?", "completion": "ja"}, ensure_ascii=False).encode()
    path = saved(tmp_path, "a.jsonl", b"\n".join([good, good.replace(b"ja", b"j\xff"), good]))
    with pytest.raises(FTError, match="a.jsonl is broken at line 2: bytes"):
        rows(path)
    assert len(rows(path, partial=True)) == 2
    path = saved(tmp_path, "a.json", b"[" + b",\n".join([good, good.replace(b"ja", b"j\xff"), good]) + b"]")
    with pytest.raises(FTError, match="a.json is broken at line 2: bytes"):
        rows(path)
    path = saved(tmp_path, "a.csv", "prompt,completion\nGröße?,ja\n".encode() + b"\xc3,ja\n")
    with pytest.raises(FTError, match="a.csv is broken at line 3: bytes"):
        rows(path)


@pytest.mark.parametrize(
    "name, content, says",
    [
        ("a.csv", b"", "a.csv is empty"),
        ("a.parquet", b"", "a.parquet is empty"),
        ("a.json", b" \n", "a.json is empty"),
        ("a.csv", b"prompt,completion\n", "a.csv has no rows"),
        ("a.json", b"[]", "a.json has no rows"),
        ("a.jsonl", b"\n\n", "a.jsonl is empty"),
        ("a.parquet", b"PAR1 not really", "a.parquet is no whole Parquet file"),
        ("a.xlsx", b"PK\x03\x04", "files of the kind '.xlsx' are not known"),
        ("a.csv", b"PK\x03\x04\x00\xff\xfe\x00\x01", "a.csv is not text"),
        ("a.csv", b"name,age\nAda,36\n", "a.csv has the columns name, age"),
        ("a.csv", b"prompt,prompt,completion\na,b,c\n", "two columns 'prompt'"),
        ("a.json", b'"text"', "broken at line 1|holds str"),
        ("a.json", b'{"prompt": ["a", "b"], "completion": ["c"]}', "different lengths: prompt 2, completion 1"),
        ("a.jsonl", b"[" * 100_000, "nested too deeply"),
        ("a.jsonl", b'{"prompt": ' + b"9" * 5000 + b"}", "line 1: Exceeds the limit"),
        ("a.jsonl", b"1\n2\n", "has the columns \\(none\\)"),
        (
            "a.jsonl",
            b'{"prompt": "a", "completion": 4}\n',
            "no row that can be used; row 1: its completion is a number",
        ),
    ],
)
def test_a_file_that_cannot_be_used_is_one_sentence(tmp_path, store, name, content, says):
    store.add([conversation("old", "row")])
    with pytest.raises(FTError, match=says) as refused:
        formats.import_files(store, [saved(tmp_path, name, content)])
    assert refused.value.hint and "\n" not in refused.value.message
    assert [r.conversation for r in store.rows()] == [conversation("old", "row")]
    assert len(store.log()) == 1


def test_a_file_that_is_not_there(store, tmp_path):
    for path in (tmp_path / "none.csv", tmp_path):
        with pytest.raises(FTError):
            formats.import_files(store, [path])
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(FTError, match="folder.csv holds no file that can be imported"):
        formats.import_files(store, [tmp_path / "folder.csv"])


BAD_ROWS = [
    ('{"prompt": "a"}', "it has no answer"),
    ('{"prompt": "a", "completion": null}', "it has no answer"),
    ('{"prompt": "a", "completion": " \\n"}', "it has no answer"),
    ('{"prompt": "a", "completion": 4}', "its completion is a number, not text"),
    ('{"prompt": {"a": 1}, "completion": "b"}', "its prompt is an object, not text"),
    ('{"completion": "b"}', "it has no prompt"),
    ("17", "it is a number, not an object with columns"),
    ('{"prompt": "\\ud800", "completion": "b"}', "the user message holds half a character"),
    ('{"prompt": [{"role": "king", "content": "a"}], "completion": "b"}', "a message has the role 'king'"),
]  # fmt: skip


def test_rows_that_cannot_be_used_are_named(tmp_path, store):
    text = lines(12, {i: bad for i, (bad, _) in enumerate(BAD_ROWS, 2)})
    path = saved(tmp_path, "faq.jsonl", text)
    done = formats.import_files(store, [path], who="ada")
    assert done.added == 3 and done.ended_at is None
    assert [(s.file, s.row) for s in done.skipped] == [("faq.jsonl", i) for i in range(2, 11)]
    for skipped, (_, reason) in zip(done.skipped, BAD_ROWS):
        assert skipped.reason.startswith(reason)
    assert (store.log()[0].what, store.log()[0].who) == ("3 rows added", "ada")


def test_turns_that_cannot_be_used(tmp_path):
    answer = {"role": "assistant", "content": "b"}
    bad = [
        [{"role": "user", "content": "a"}],
        [answer, {"role": "assistant", "content": None}],
        [{**answer, "tool_calls": [1]}],
        [{"role": "user", "content": [{"type": "image_url"}]}, answer],
        ["a", "b"],
        "not JSON",
        7,
    ]
    path = saved(tmp_path, "a.jsonl", "\n".join(json.dumps({"messages": m}) for m in [*bad, [answer]]))
    *skipped, kept = rows(path)
    assert len(skipped) == len(bad) and all(isinstance(s, Skipped) and s.reason for s in skipped)
    assert kept == Conversation((Message("assistant", "b"),))  # it may begin with the assistant


def test_csv_rows_of_the_wrong_length(tmp_path):
    path = saved(tmp_path, "a.csv", "prompt,completion\na,b\na,b,c\na\n\na,b\n")
    kept, long, short, last = rows(path)
    assert kept == last == conversation("a", "b")
    assert (long.row, long.reason) == (2, "it has more cells than the header has columns")
    assert (short.row, short.reason) == (3, "it has no answer")


def test_several_files_are_one_operation_or_none(tmp_path, store):
    good = [saved(tmp_path, f"{i}.jsonl", json.dumps(PAIR_RECORD)) for i in range(3)]
    with pytest.raises(FTError, match="bad.json"):
        formats.import_files(store, [*good, saved(tmp_path, "bad.json", "[{]")])
    assert store.count() == 0 and not store.can_undo
    assert formats.import_files(store, good).added == 3
    assert store.undo() == "3 rows added" and store.count() == 0


MUTATIONS = {
    "cut": lambda dice, data: data[: dice.randrange(len(data))],
    "bytes": lambda dice, data: bytes(dice.randrange(256) if dice.random() < 0.005 else b for b in data),
    "hole": lambda dice, data: data[: (i := dice.randrange(len(data)))] + data[i + dice.randrange(300) :],
    "nested": lambda dice, data: data[: (i := dice.randrange(len(data)))] + b"[" * 50_000 + data[i:],
    "huge": lambda dice, data: data[: (i := dice.randrange(len(data)))] + b"9" * 5000 + data[i:],
    "quotes": lambda dice, data: data.replace(b'"', dice.choice([b"'", b"", b"null", b"\0"]), dice.randrange(30)),
}


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("mutation", MUTATIONS)
def test_damaged_files_are_refused_or_read_and_nothing_is_lost(tmp_path, store, suffix, mutation):
    many = [conversation(f'"ö" {i},\n', f"👩‍👩‍👧 {i}") for i in range(40)]
    store.add([PAIR])
    for seed, shape in enumerate(("messages", "sharegpt", "alpaca", "prompt-completion", "contexts")):
        path = tmp_path / f"rows{suffix}"
        formats.write(many, path, shape)
        damaged = tmp_path / f"damaged{suffix}"
        damaged.write_bytes(MUTATIONS[mutation](random.Random(seed), path.read_bytes()))
        for partial in (False, True):
            before = store.count()
            try:
                added = formats.import_files(store, [damaged], partial=partial).added
                assert store.count() == before + added and added > 0
            except FTError as refused:
                assert refused.message.startswith(damaged.name) and refused.hint and "\n" not in refused.message
                assert store.count() == before
    assert store.get(1).conversation == PAIR
