"""Conversations as values."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ft_core.conversation import ROLES, Conversation, Message, Preference, compact, more_of
from ft_core.errors import FTError

calls = st.lists(st.dictionaries(st.text(), st.text() | st.integers() | st.none(), min_size=1), min_size=1)
more = st.sampled_from(["", more_of({"name": "weather", "tool_call_id": "1"})]) | calls.map(
    lambda value: more_of({"tool_calls": value})
)
messages = st.builds(Message, st.sampled_from(ROLES), st.text(), more)
conversations = st.builds(
    Conversation,
    st.lists(messages, max_size=5).map(tuple),
    st.text(),
    st.just("") | calls.map(compact),
    st.just("") | st.text(),
)


@given(conversations)
def test_plain_values_come_back_equal(made):
    back = Conversation.from_dict(json.loads(json.dumps(made.to_dict())))
    assert back == made and back.origin == made.origin


@given(conversations, conversations)
def test_equal_is_what_says_the_same(one, other):
    assert (one == other) == (one.canonical() == other.canonical())
    elsewhere = replace(one, origin="from elsewhere")
    assert one == elsewhere and hash(one) == hash(elsewhere)
    assert "\n" not in one.canonical()
    assert Conversation.from_canonical(one.canonical()) == one


def test_what_a_message_calls_is_kept_as_it_is():
    call = {"id": "1", "type": "function", "function": {"name": "price", "arguments": '{"of": "tea"}'}}
    given = {"role": "assistant", "content": "", "tool_calls": [call]}
    message = Message.from_dict(given)
    assert message.to_dict() == given
    assert message == Message.from_dict({"name": None, **given})
    plain = Conversation((Message("user", "q"), Message("assistant", "a")))
    assert plain.canonical() == '[["user","q"],["assistant","a"]]'
    assert replace(plain, rejected="b").canonical() == '[["user","q"],["assistant","a"],["rejected","b"]]'


@pytest.mark.parametrize(
    "value, says",
    [
        ([], "an object with a list of messages"),
        ({"messages": "a"}, "an object with a list of messages"),
        ({"messages": [], "id": 1}, "unknown key: id"),
        ({"messages": ["a"]}, "a message is str"),
        ({"messages": [{"role": "king", "content": "a"}]}, "the role 'king'"),
        ({"messages": [{"role": "user", "content": 4}]}, "the content of the user message is not text"),
        ({"messages": [{"role": "user"}]}, "the content of the user message is not text"),
        ({"messages": [{"role": "user", "content": "a", "weight": "b", 3: 4}]}, "unknown key: 3, weight"),
    ],
)
def test_what_is_wrong_is_named(value, says):
    with pytest.raises(FTError, match=says):
        Conversation.from_dict(value)


def test_a_system_prompt_is_added_where_there_is_none():
    bare = Conversation((Message("user", "q"), Message("assistant", "a")), "file")
    under = bare.with_system("Be kind.")
    assert (under.system, under.messages[1:], under.origin) == ("Be kind.", bare.messages, "file")
    assert under.with_system("Be brief.") == under
    assert bare.with_system("") == bare and bare.system == ""
    empty = Conversation((Message("system", ""), *bare.messages))
    assert empty.with_system("Be kind.") == empty
    assert Conversation(()).with_system("Be kind.").system == "Be kind."


def test_a_preference_is_written_as_trl_reads_it():
    made = Preference((Message("user", "q"),), Message("assistant", "good"), Message("assistant", "bad"))
    assert made.to_dict() == {
        "prompt": [{"role": "user", "content": "q"}],
        "chosen": [{"role": "assistant", "content": "good"}],
        "rejected": [{"role": "assistant", "content": "bad"}],
    }
