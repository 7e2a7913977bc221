"""What is planted is found, and named."""

from __future__ import annotations

from ft_core.conversation import Conversation, Message
from ft_core.data import audited, quality
from ft_core.data.quality import Action
from ft_core.render import Renderer

QUIET = {"few_rows": 0} | {name: 0 for name in audited.FLAGS if name not in audited.OF_TOKENS}


def pair(prompt: object, answer: str = "answer") -> Conversation:
    return Conversation((Message("user", str(prompt)), Message("assistant", answer)))


def test_nothing_to_train_on_is_blocking(store):
    found = quality.check(store)
    assert not found.ready and [f.kind for f in found.findings] == ["blocking"]
    store.add([pair("a")])
    found = quality.check(store)
    assert found.ready and found.flags == QUIET | {"few_rows": 1}
    store.set_status([1], "rejected")
    assert not quality.check(store).ready


def test_good_data_is_quiet(store, renderer):
    store.add(pair(i) for i in range(30))
    found = quality.check(store)
    assert (found.ready, found.flags, found.findings, found.unseen) == (True, QUIET, (), 0)
    with_model = quality.check(store, renderer)
    assert with_model.findings == () and with_model.flags == QUIET | {name: 0 for name in audited.OF_TOKENS}
    assert with_model.diversity.texts == 30


def test_empty_duplicate_and_leak(store):
    store.add(pair(i) for i in range(30))
    store.add([pair("e", " \n"), pair(" 3"), pair(4, "ANSWER"), pair(5)])
    store.set_split([(id, "train") for id in range(1, 34)] + [(34, "heldout")], 0.1, 0)
    found = quality.check(store)
    assert found.ready and found.flags == QUIET | {"empty": 1, "duplicate": 3, "leak": 1}
    assert {f.name: f.rows for f in found.findings} == {"empty": (31,), "duplicate": (32, 33, 34), "leak": (34,)}
    assert all(f.kind == "advisory" and f.text and f.hint and f.actions for f in found.findings)
    assert [f.actions[0] for f in found.findings] == [
        Action("show", "empty"), Action("reject", "leak"), Action("groups", "duplicate")
    ]  # fmt: skip


def test_what_the_model_would_not_see(store, renderer):
    store.add(pair(i) for i in range(30))
    store.add([pair("x", "word " * 100), pair("word " * 100, "lost"), pair("mute", "")])
    found = quality.check(store, renderer, max_length=64)
    by_name = {f.name: f for f in found.findings}
    assert by_name["cut"].rows == (31, 32) and by_name["nothing_learnt"].rows == (32,)
    lengths = [len(renderer.example(store.get(id).conversation).ids) for id in (31, 32)]
    enough = -(-max(lengths) // 64) * 64
    assert f"to {enough}" in by_name["cut"].hint and by_name["cut"].actions[0] == Action("max_length", "cut", enough)
    assert "cut" in quality.check(store, renderer, max_length=32).flags
    assert quality.check(store, renderer, enough).flags["cut"] == 0 == store.flags()["cut"]
    weighed = quality.check(store, renderer, 64, shown=False)
    assert {f.name: f.rows for f in weighed.findings} == {f.name: f.rows for f in found.findings}
    assert store.flags()["cut"] == 0  # the rows' own flags stay
    assert quality.check(store, renderer, max_length=64) == found and store.flags()["cut"] == 2
    kept = renderer.example(store.get(31).conversation, 64).learnt
    all_of_it = sum(renderer.example(store.get(id).conversation).learnt for id in (31, 32))
    assert f"{all_of_it - kept} tokens of answers" in by_name["cut"].text
    assert found.ready


def test_more_rows_than_a_page_can_wait_for(store, renderer):
    store.add(pair(i) for i in range(30))
    found = quality.check(store, renderer, look=29)
    assert (found.unseen, [(f.name, f.actions) for f in found.findings]) == (30, [("unchecked", (Action("check"),))])
    assert store.get(1).audit is None
    assert not quality.check(store, renderer, look=30).findings and store.get(1).audit.tokens
    row = store.get(3)
    store.edit(3, pair(3, "").messages, row.version)
    assert quality.check(store, renderer, look=0).unseen == 1
    found = quality.check(store, renderer, look=1)
    assert (found.unseen, found.flags["empty"], found.flags["nothing_learnt"]) == (0, 1, 0)
    store.undo()
    assert quality.check(store, renderer, look=1).findings == ()


def test_nothing_learnt_at_all_is_blocking(store, renderer):
    store.add(pair(f"{i} " + "word " * 100) for i in range(30))
    found = quality.check(store, renderer, max_length=64)
    assert not found.ready and found.flags["nothing_learnt"] == 30


def test_rows_that_the_template_refuses(store, renderer):
    strict = Renderer(
        renderer.tokenizer,
        "{% if messages[0].role != 'user' %}{{ raise_exception('begin with user') }}{% endif %}" + renderer.template,
        renderer.special,
    )
    store.add(pair(i) for i in range(30))
    store.add([Conversation((Message("assistant", "Hello"),))])
    found = quality.check(store, strict)
    assert not found.ready and found.findings[0].rows == (31,)
    assert "row 31" in found.findings[0].text and "begin with user" in found.findings[0].text
    store.set_status([31], "rejected")
    assert quality.check(store, strict).ready
