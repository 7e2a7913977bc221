"""Rows as tokens for any trainer: what `datasets` loads is what FT Flow itself would train on, row by row."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import datasets
import pytest
import trl

from ft_core.__main__ import main
from ft_core.conversation import Conversation, Message
from ft_core.data import prepare, shapes
from ft_core.data.freeze import freeze, read_frozen
from ft_core.errors import FTError
from ft_core.recipe import DataRecipe
from ft_core.render import IGNORED, Renderer
from ft_core.workspace import Workspace

TEMPLATES = Path(trl.__file__).parent / "chat_templates"


def pair(question: str, answer: str) -> Conversation:
    return Conversation((Message("user", question), Message("assistant", answer)))


ONE = pair("Do you ship to Norway?", "Yes, in four days.")
WITH_CONTEXTS = pair(shapes.with_contexts(["We ship by train.", "Oslo is far."], "How long?"), "Four days.")


def loaded(path: Path) -> datasets.Dataset:
    return datasets.load_from_disk(str(path))


def learnt(renderer: Renderer, row: dict) -> list[str]:
    """Runs of learnt tokens as text; every label is the token's id or -100."""
    assert len(row["input_ids"]) == len(row["labels"]) == len(row["attention_mask"])
    assert set(row["attention_mask"]) == {1}
    runs: list[list[int]] = []
    before = IGNORED
    for id, label in zip(row["input_ids"], row["labels"]):
        assert label in (id, IGNORED)
        if label != IGNORED:
            runs += [[]] if before == IGNORED else []
            runs[-1].append(label)
        before = label
    return [renderer.tokenizer.decode(run, skip_special_tokens=False) for run in runs]


CHATML = """<|im_start|>system
Be kind.<|im_end|>
<|im_start|>user
Context: We ship by train.

Context: Oslo is far.

Question: How long?<|im_end|>
<|im_start|>assistant
Four days.<|im_end|>
"""
GEMMA = """<bos><start_of_turn>user
Be kind.

Context: We ship by train.

Context: Oslo is far.

Question: How long?<end_of_turn>
<start_of_turn>model
Four days.<end_of_turn>
"""
LLAMA = """<bos><|start_header_id|>system<|end_header_id|>

Be kind.<|eot_id|><|start_header_id|>user<|end_header_id|>

Context: We ship by train.

Context: Oslo is far.

Question: How long?<|eot_id|><|start_header_id|>assistant<|end_header_id|>

Four days.<|eot_id|>"""


@pytest.mark.parametrize(
    ("template", "text", "answer"),
    [
        ("", CHATML, "Four days.<|im_end|>\n"),
        ("gemma3.jinja", GEMMA, "Four days.<end_of_turn>\n"),
        ("llama3.jinja", LLAMA, "Four days.<|eot_id|>"),
    ],
)
def test_a_row_with_contexts_in_the_format_of_each_model(renderer, store, tmp_path, template, text, answer):
    if template:
        special = {**renderer.special, "bos_token": "<bos>"}
        renderer = replace(renderer, template=(TEMPLATES / template).read_text(), special=special)
    store.set_system("Be kind.")
    store.add([WITH_CONTEXTS])
    done = prepare.prepare(store, renderer, tmp_path / "out", 512)
    (row,) = loaded(tmp_path / "out")
    assert row["full_text"] == text
    assert renderer.tokenizer.decode(row["input_ids"], skip_special_tokens=False) == text
    assert learnt(renderer, row) == [answer]
    assert (done.rows, done.tokens, dict(done.written)) == (1, len(row["input_ids"]), {"train": 1})
    assert done.learnt == sum(label != IGNORED for label in row["labels"])


def test_it_is_what_a_training_learns(renderer, store, workspace, tmp_path):
    store.set_system("Be kind.")
    store.add(pair(f"What is {i}?", f"It is {'very ' * (i % 40)}{i * 7}.") for i in range(60))
    store.add(
        [Conversation((Message("assistant", "Welcome."), Message("user", "Hi"), Message("assistant", "Hello.")))]
    )
    job = workspace.project("shop", create=True).new_job()
    freeze(store, job, DataRecipe(heldout=0.2))
    done = prepare.prepare(store, renderer, tmp_path / "out", 64)
    found = loaded(tmp_path / "out")
    for part, side in (("train", "train"), ("test", "heldout")):
        rows = [row for row in read_frozen(job.dataset) if row.split == side]
        examples = [renderer.example(row.conversation, 64) for row in rows]
        assert found[part]["input_ids"][:] == [list(e.ids) for e in examples]
        assert found[part]["labels"][:] == [list(e.labels) for e in examples]
        assert done.written[part] == len(rows)
    assert done.cut > 0 and max(map(len, found["train"]["input_ids"])) == 64


def test_rows_at_the_limit_and_refused_ones_are_reported(renderer, store, tmp_path):
    strict = replace(renderer, template="{% if messages[0].role != 'user' %}{{ raise_exception('A user begins.') }}"
                     "{% endif %}" + renderer.template)  # fmt: skip
    greeting = Conversation((Message("assistant", "Welcome."),))
    store.add([ONE, greeting, pair("How?", "word " * 100), pair("word " * 100, "So.")])
    done = prepare.prepare(store, strict, tmp_path / "out", 60)
    assert done.refused == [{"row": 2, "reason": "the model's chat template refuses it: A user begins."}]
    assert (done.rows, done.cut, done.nothing_learnt) == (3, 2, 1)
    whole = [strict.example(row.conversation) for row in store.rows() if row.id != 2]
    assert done.lost == sum(e.learnt for e in whole) - done.learnt > 40
    found = loaded(tmp_path / "out")
    assert [len(ids) for ids in found["input_ids"]] == [len(whole[0].ids), 60, 60]
    assert found["full_text"][1].count("word") == 100
    store.delete([1, 3, 4])
    with pytest.raises(FTError, match="no rows to prepare; row 2: the model's chat template refuses it"):
        prepare.prepare(store, strict, tmp_path / "out", 60)
    assert loaded(tmp_path / "out").num_rows == 3


def test_packing_keeps_conversations_whole(renderer, store, tmp_path):
    store.add(pair(f"What is {i}?", "word " * (i * 37 % 90)) for i in range(200))
    store.add([Conversation((Message("assistant", "Welcome."),))])
    alone, packed = tmp_path / "alone", tmp_path / "packed"
    plain = prepare.prepare(store, renderer, alone, 128)
    done = prepare.prepare(store, renderer, packed, 128, pack=True)
    assert replace(done, written=plain.written) == plain
    one_by_one = {tuple(row["input_ids"]): row for row in loaded(alone)}
    seen = []
    for row in loaded(packed):
        assert len(row["input_ids"]) <= 128 and row["position_ids"][0] == 0
        starts = [i for i, place in enumerate(row["position_ids"]) if place == 0]
        text = ""
        for start, end in zip(starts, [*starts[1:], len(row["position_ids"])]):
            assert row["position_ids"][start:end] == list(range(end - start))
            own = one_by_one[tuple(row["input_ids"][start:end])]
            assert row["labels"][start + 1 : end] == own["labels"][1:]
            assert start == 0 or row["labels"][start] == IGNORED
            text += own["full_text"]
            seen.append(tuple(own["input_ids"]))
        assert row["full_text"] == text
        learnt(renderer, row)
    assert sorted(seen) == sorted(map(tuple, loaded(alone)["input_ids"]))
    assert done.written["train"] * 128 < done.tokens * 1.15  # few places stay empty, though none is torn apart


def test_the_front_door(with_builtin: Workspace, tmp_path, capsys):
    home = ["--home", str(with_builtin.home), "--json"]
    path = tmp_path / "rows.jsonl"
    rows = [{"input": f"How long {i}?", "contexts": ["By train."], "response": "Four days. " * 9} for i in range(20)]
    path.write_text("\n".join(map(json.dumps, rows)))
    assert main([*home, "data", "import", str(path)]) == 0
    assert main([*home, "data", "split", "--heldout", "0.2", "--by", "question"]) == 0
    words = ["--base", "built-in", "--max-length", "32", "--pack"]
    assert main([*home, "data", "prepare", str(tmp_path / "out"), *words]) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["written"] == {"train": 16, "test": 4} and result["path"] == str(tmp_path / "out")
    assert (result["rows"], result["cut"], result["refused"], result["max_length"]) == (20, 20, [], 32)
    assert result["tokens"] == 640 and set(loaded(tmp_path / "out")) == {"train", "test"}
    assert main([*home, "data", "prepare", str(tmp_path / "out"), "--base", "nowhere/none"]) == 2
    assert main([*home, "data", "prepare", str(tmp_path), "--max-length", "5"]) == 2
    assert "max_length is 5" in capsys.readouterr().err
