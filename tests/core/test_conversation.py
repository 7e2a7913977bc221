"""Conversations as values."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ft_core.conversation import ROLES, Conversation, Message, Preference
from ft_core.errors import FTError

messages = st.builds(Message, st.sampled_from(ROLES), st.text())
conversations = st.builds(Conversation, st.lists(messages, max_size=5).map(tuple), st.text())


@given(conversations)
def test_plain_values_come_back_equal(made):
    back = Conversation.from_dict(json.loads(json.dumps(made.to_dict())))
    assert back == made and back.origin == made.origin


@given(conversations, conversations)
def test_equal_is_what_says_the_same(one, other):
    assert (one == other) == (one.canonical() == other.canonical())
    assert one == Conversation(one.messages, "from elsewhere")
    assert hash(one) == hash(Conversation(one.messages, "from elsewhere"))
    assert "\n" not in one.canonical()


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
        ({"messages": [{"role": "user", "content": "a", "name": "b", 3: 4}]}, "unknown key: 3, name"),
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
