"""Conversations as records of a shape: the columns that a set of them needs, and what each row puts into these.

A shape either holds a row whole or refuses it with the reason, so that importing what was written gives the same
conversations. What a message has beside role and content (tool_calls, tool_call_id, name) and the tools of a
conversation stand as they are in JSON; where columns have types (Parquet, Arrow) tools and tool_calls are JSON text.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from ..conversation import MORE, Conversation, Message
from ..errors import FTError
from .shapes import without_contexts
from .turns import looks_like_turns

SHAPES = ("messages", "sharegpt", "alpaca", "prompt-completion", "contexts", "preference", "text")
"""Shapes that conversations can be written in."""

_WHOLE = {"messages": ("role", "content"), "sharegpt": ("from", "value")}
"""The shapes that hold everything, and what they call a turn's two parts."""
_SHAREGPT = {"system": "system", "user": "human", "assistant": "gpt", "tool": "tool"}
_TEXT = pa.string()


@dataclass(frozen=True)
class _Exchange:
    """A conversation as the flat shapes have it: one prompt and one answer after what went before."""

    system: str
    history: list[list[str]]
    prompt: str
    answer: str

    @property
    def plain(self) -> bool:
        """Whether two texts say all of it."""
        turns = looks_like_turns(self.prompt) or looks_like_turns(self.answer)
        return not (self.system or self.history or turns)


class Layout:
    """What a set of conversations looks like in one shape. Show it all of them first: columns are what one needs.

    alpaca and contexts have `system` and `history` columns when a row needs them. prompt-completion is two texts when
    that is all there is, else two lists of messages, as TRL reads both. preference is three lists of messages, as TRL
    reads it, and holds rows with a worse answer alone. text is the answer of a row that is nothing but an answer.
    """

    def __init__(self, shape: str):
        """Raises FTError for a shape that is not known."""
        if shape not in SHAPES:
            raise FTError(f"there is no shape {shape!r}", f"Shapes are {', '.join(SHAPES)}.")
        self.shape = shape
        self._used: set[str] = set()
        self._seen = 0

    def see(self, conversation: Conversation) -> bool:
        """Whether the row belongs into such a file: False for one without a worse answer, in preference.

        Raises FTError with the row's number, from 1, and the reason when the shape cannot hold it.
        """
        self._seen += 1
        if self.shape == "preference" and not conversation.rejected:
            return False
        if reason := self._refusal(conversation):
            raise FTError(f"row {self._seen} cannot be written as {self.shape}: {reason}", self._instead(conversation))
        self._used |= _needs(conversation)
        if self.shape not in (*_WHOLE, "preference", "text"):
            exchange = _exchange(conversation)
            self._used |= {name for name in ("system", "history") if getattr(exchange, name)}
            self._used |= set() if exchange.plain else {"turns"}
        return True

    def _refusal(self, conversation: Conversation) -> str:
        """Why the shape cannot hold it, '' when it can."""
        messages = conversation.messages
        if self.shape in _WHOLE:
            return ""
        if self.shape == "preference":
            if messages[-1].role != "assistant":
                return "it does not end with the better answer"
            return "" if len(messages) > 1 else "it has no prompt"
        if conversation.tools or any(m.more for m in messages):
            return "it has tools"
        if conversation.rejected:
            return "it has a better and a worse answer"
        if self.shape == "text":
            alone = [m.role for m in messages] == ["assistant"]
            return "" if alone else "it is more than one text (a system prompt counts too)"
        turns = messages[len(_own(conversation)) :]
        in_turn = all(m.role == ("user", "assistant")[i % 2] for i, m in enumerate(turns))
        if not turns or len(turns) % 2 or not in_turn or (_own(conversation) and not conversation.system):
            return "it is not user and assistant in turn"
        return ""

    @staticmethod
    def _instead(conversation: Conversation) -> str:
        also = ", preference holds rows with a worse answer" if conversation.rejected else ""
        return f"messages and sharegpt hold every conversation{also}."

    @property
    def columns(self) -> dict[str, pa.DataType]:
        """Names, and the types that they have in Parquet and Arrow."""
        extra = {"tools": _TEXT, "rejected": _TEXT, "system": _TEXT, "history": pa.list_(pa.list_(_TEXT))}
        used = {name: extra[name] for name in extra if name in self._used}
        before = {name: used[name] for name in ("system", "history") if name in used}
        turns = self._turns()
        match self.shape:
            case "messages":
                return {"messages": turns, **used}
            case "sharegpt":
                return {"conversations": turns, **used}
            case "preference":
                tools = {"tools": _TEXT} if "tools" in used else {}
                return {"prompt": turns, "chosen": turns, "rejected": turns, **tools}
            case "alpaca":
                return {**before, "instruction": _TEXT, "input": _TEXT, "output": _TEXT}
            case "contexts":
                return {**before, "input": _TEXT, "contexts": pa.list_(_TEXT), "response": _TEXT}
            case "text":
                return {"text": _TEXT}
        return dict.fromkeys(("prompt", "completion"), turns if "turns" in self._used else _TEXT)

    def _turns(self) -> pa.DataType:
        names = (*_WHOLE.get(self.shape, _WHOLE["messages"]), *(name for name in MORE if name in self._used))
        return pa.list_(pa.struct([(name, _TEXT) for name in names]))

    def fields(self, conversation: Conversation, typed: bool = False) -> dict[str, Any]:
        """What the row puts into the columns, and into others. `typed` is for columns that have one type."""
        turns = [_turn(m, typed) for m in conversation.messages]
        tools = conversation.tools if typed or not conversation.tools else json.loads(conversation.tools)
        beside = {"tools": tools or None, "rejected": conversation.rejected or None}
        match self.shape:
            case "messages":
                return {"messages": turns, **beside}
            case "sharegpt":
                return {"conversations": [_renamed(turn) for turn in turns], **beside}
            case "preference":
                worse = [{"role": "assistant", "content": conversation.rejected}]
                return {**beside, "prompt": turns[:-1], "chosen": turns[-1:], "rejected": worse}
            case "text":
                return {"text": conversation.messages[0].content}
            case "prompt-completion" if "turns" in self._used:
                return {"prompt": turns[:-1], "completion": turns[-1:]}
        exchange = _exchange(conversation)
        contexts, question = without_contexts(exchange.prompt)
        return {
            "system": exchange.system,
            "history": exchange.history,
            "prompt": exchange.prompt,
            "completion": exchange.answer,
            "instruction": exchange.prompt,
            "output": exchange.answer,
            "input": question if self.shape == "contexts" else "",
            "contexts": contexts,
            "response": exchange.answer,
        }


def _needs(conversation: Conversation) -> set[str]:
    """Columns, and keys of messages, that stand in a file only when a row has something to put there."""
    more = {key for m in conversation.messages if m.more for key in json.loads(m.more)}
    return more | {name for name in ("tools", "rejected") if getattr(conversation, name)}


def _own(conversation: Conversation) -> tuple[Message, ...]:
    """The system message that opens it, if one does."""
    first = conversation.messages[:1]
    return first if first and first[0].role == "system" else ()


def _exchange(conversation: Conversation) -> _Exchange:
    texts = [m.content for m in conversation.messages[len(_own(conversation)) :]]
    history = [texts[i : i + 2] for i in range(0, len(texts) - 2, 2)]
    return _Exchange(conversation.system, history, texts[-2], texts[-1])


def _turn(message: Message, typed: bool) -> dict[str, Any]:
    turn = message.to_dict()
    if typed:
        return {key: v if isinstance(v, str) else json.dumps(v, ensure_ascii=False) for key, v in turn.items()}
    return turn


def _renamed(turn: dict[str, Any]) -> dict[str, Any]:
    role, content, *_ = turn.values()
    return {"from": _SHAREGPT[role], "value": content, **dict(list(turn.items())[2:])}
