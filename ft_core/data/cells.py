"""A conversation as one line of a table: its system message, the first question, the last answer. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ..conversation import Conversation, Message
from ..errors import FTError

COLUMNS = ("system", "prompt", "response")


def read(conversation: Conversation) -> dict[str, str]:
    """The text of each of COLUMNS, '' where the conversation has no such turn."""
    return {column: _text(conversation, _place(conversation, column)) for column in COLUMNS}


def write(conversation: Conversation, cells: Mapping[str, str]) -> Conversation:
    """The conversation with other texts in some columns; the other turns stay, and so does what stands beside a text.

    A turn that is missing is added; an empty system message goes, so that the project's holds. Raises FTError for a
    column that does not exist.
    """
    if unknown := set(cells) - set(COLUMNS):
        raise FTError(f"there is no column {min(unknown)!r}", f"Text stands in {', '.join(COLUMNS)}.")
    for column in COLUMNS:
        if column in cells:
            conversation = replace(conversation, messages=_written(conversation, column, cells[column]))
    return conversation


def _written(conversation: Conversation, column: str, text: str) -> tuple[Message, ...]:
    messages, at = conversation.messages, _place(conversation, column)
    if at is not None:
        if text == messages[at].content:
            return messages
        if column == "system" and not text and len(messages) > 1 and messages[1].role != "system":
            return messages[1:]
        return (*messages[:at], replace(messages[at], content=text), *messages[at + 1 :])
    if not text:
        return messages
    if column == "response":
        return (*messages, Message("assistant", text))
    if column == "system":
        return (Message("system", text), *messages)
    first = 1 if messages and messages[0].role == "system" else 0
    return (*messages[:first], Message("user", text), *messages[first:])


def _place(conversation: Conversation, column: str) -> int | None:
    """Which message stands in a column."""
    roles = [m.role for m in conversation.messages]
    if column == "system":
        return 0 if roles[:1] == ["system"] else None
    if column == "prompt":
        return roles.index("user") if "user" in roles else None
    return len(roles) - 1 - roles[::-1].index("assistant") if "assistant" in roles else None


def _text(conversation: Conversation, at: int | None) -> str:
    return "" if at is None else conversation.messages[at].content
