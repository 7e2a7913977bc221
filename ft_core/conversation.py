"""Conversations as frozen values. Identity, status and split belong to the store, not here."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from .errors import FTError

Role = Literal["system", "user", "assistant", "tool"]
ROLES: tuple[str, ...] = get_args(Role)


@dataclass(frozen=True)
class Message:
    """One turn."""

    role: Role
    content: str

    def to_dict(self) -> dict[str, str]:
        return {"role": self.role, "content": self.content}

    @classmethod
    def from_dict(cls, value: Any) -> Message:
        """Raises FTError that names an unknown key, role or type."""
        if not isinstance(value, dict):
            raise FTError(f"a message is {type(value).__name__}, not an object with role and content")
        if unknown := set(value) - {"role", "content"}:
            raise FTError(f"a message has an unknown key: {', '.join(sorted(map(str, unknown)))}")
        if value.get("role") not in ROLES:
            raise FTError(f"a message has the role {value.get('role')!r}", f"Roles are {', '.join(ROLES)}.")
        if not isinstance(value.get("content"), str):
            raise FTError(f"the content of the {value['role']} message is not text")
        return cls(value["role"], value["content"])


@dataclass(frozen=True)
class Conversation:
    """The turns of one row. Two conversations with the same messages are equal, wherever they came from."""

    messages: tuple[Message, ...]
    origin: str = field(default="", compare=False)
    """Where it came from: a file and row, a Hub id, a generation job."""

    def to_dict(self) -> dict[str, Any]:
        return {"messages": [m.to_dict() for m in self.messages], "origin": self.origin}

    @classmethod
    def from_dict(cls, value: Any) -> Conversation:
        """Raises FTError that names an unknown key or a wrong type."""
        if not isinstance(value, dict) or not isinstance(value.get("messages"), list):
            raise FTError("a conversation is an object with a list of messages")
        if unknown := set(value) - {"messages", "origin"}:
            raise FTError(f"a conversation has an unknown key: {', '.join(sorted(map(str, unknown)))}")
        return cls(tuple(Message.from_dict(m) for m in value["messages"]), str(value.get("origin", "")))

    @property
    def system(self) -> str:
        """The system message that opens the conversation, or ''."""
        first = self.messages[0] if self.messages else None
        return first.content if first and first.role == "system" else ""

    def with_system(self, text: str) -> Conversation:
        """The same turns under `text`, unless they bring a system message of their own, even an empty one."""
        if not text or (self.messages and self.messages[0].role == "system"):
            return self
        return Conversation((Message("system", text), *self.messages), self.origin)

    def canonical(self) -> str:
        """The messages as one line of JSON: the text that equality, duplicates and fingerprints go by."""
        return json.dumps([[m.role, m.content] for m in self.messages], ensure_ascii=False, separators=(",", ":"))


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
