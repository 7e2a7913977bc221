"""Conversations as frozen values. Identity, status and split belong to the store, not here."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

from .errors import FTError

Role = Literal["system", "user", "assistant", "tool"]
ROLES: tuple[str, ...] = get_args(Role)


MORE = ("name", "tool_call_id", "tool_calls")
"""Keys of OpenAI's messages beside role and content that are kept as they are."""


@dataclass(frozen=True)
class Message:
    """One turn."""

    role: Role
    content: str
    more: str = ""
    """What stands beside role and content, under the keys of MORE: a JSON object, or '' for nothing."""

    def to_dict(self) -> dict[str, Any]:
        return {"role": self.role, "content": self.content, **(json.loads(self.more) if self.more else {})}

    @classmethod
    def from_dict(cls, value: Any) -> Message:
        """Raises FTError that names an unknown key, role or type."""
        if not isinstance(value, dict):
            raise FTError(f"a message is {type(value).__name__}, not an object with role and content")
        if unknown := set(value) - {"role", "content", *MORE}:
            raise FTError(f"a message has an unknown key: {', '.join(sorted(map(str, unknown)))}")
        if value.get("role") not in ROLES:
            raise FTError(f"a message has the role {value.get('role')!r}", f"Roles are {', '.join(ROLES)}.")
        if not isinstance(value.get("content"), str):
            raise FTError(f"the content of the {value['role']} message is not text")
        return cls(value["role"], value["content"], more_of(value))


def more_of(value: Mapping[str, Any]) -> str:
    """`Message.more` of a message as an object."""
    more = {key: value[key] for key in MORE if value.get(key)}
    return compact(more) if more else ""


def compact(value: Any) -> str:
    """One line of JSON. The order of keys stays: templates write it out, and the model reads it."""
    return _ENCODER.encode(value)


_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))
"""json.dumps would make one for each of a million rows."""


@dataclass(frozen=True)
class Conversation:
    """The turns of one row. Two conversations that say the same are equal, wherever they came from."""

    messages: tuple[Message, ...]
    origin: str = field(default="", compare=False)
    """Where it came from: a file and row, a Hub id, a generation job."""
    tools: str = ""
    """The tools that the assistant may call, as OpenAI writes them: a JSON list, or '' for none."""
    rejected: str = ""
    """Of a preference, the worse answer: the last message is the better one. '' for none."""

    def to_dict(self) -> dict[str, Any]:
        extra = {"tools": json.loads(self.tools)} if self.tools else {}
        if self.rejected:
            extra["rejected"] = self.rejected
        return {"messages": [m.to_dict() for m in self.messages], **extra, "origin": self.origin}

    @classmethod
    def from_dict(cls, value: Any) -> Conversation:
        """Raises FTError that names an unknown key or a wrong type."""
        if not isinstance(value, dict) or not isinstance(value.get("messages"), list):
            raise FTError("a conversation is an object with a list of messages")
        if unknown := set(value) - {"messages", "origin", "tools", "rejected"}:
            raise FTError(f"a conversation has an unknown key: {', '.join(sorted(map(str, unknown)))}")
        tools, rejected = value.get("tools") or [], value.get("rejected") or ""
        if not isinstance(tools, list) or not isinstance(rejected, str):
            raise FTError("the tools of a conversation are a list, its rejected answer is text")
        messages = tuple(Message.from_dict(m) for m in value["messages"])
        return cls(messages, str(value.get("origin", "")), compact(tools) if tools else "", rejected)

    @property
    def system(self) -> str:
        """The system message that opens the conversation, or ''."""
        first = self.messages[0] if self.messages else None
        return first.content if first and first.role == "system" else ""

    def with_system(self, text: str) -> Conversation:
        """The same turns under `text`, unless they bring a system message of their own, even an empty one."""
        if not text or (self.messages and self.messages[0].role == "system"):
            return self
        return replace(self, messages=(Message("system", text), *self.messages))

    def canonical(self) -> str:
        """One line of JSON: the text that is stored, and that equality, duplicates and fingerprints go by.

        A list of [role, content], or [role, content, more]; behind the messages, where there are any,
        ["tools", tools] and ["rejected", answer].
        """
        said: list[list[str]] = [[m.role, m.content, *([m.more] if m.more else [])] for m in self.messages]
        said += [[key, value] for key, value in (("tools", self.tools), ("rejected", self.rejected)) if value]
        return compact(said)

    @classmethod
    def from_canonical(cls, text: str, origin: str = "") -> Conversation:
        """The conversation whose canonical() is `text`."""
        said = json.loads(text)
        extra = {}
        while said and said[-1][0] in ("tools", "rejected"):
            key, value = said.pop()
            extra[key] = value
        return cls(tuple(Message(*m) for m in said), origin, **extra)


@dataclass(frozen=True)
class Preference:
    """A prompt with a better and a worse answer, as TRL's explicit-prompt preference format has it."""

    prompt: tuple[Message, ...]
    chosen: Message
    rejected: Message

    def to_dict(self) -> dict[str, Any]:
        return {
            "prompt": [m.to_dict() for m in self.prompt],
            "chosen": [self.chosen.to_dict()],
            "rejected": [self.rejected.to_dict()],
        }
