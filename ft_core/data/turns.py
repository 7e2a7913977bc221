"""What stands in the fields of a record: text, messages, tools, as the formats of the world write them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from ..conversation import Message, compact, more_of
from ..errors import FTError

_ROLES = {
    **{role: role for role in ("system", "user", "assistant", "tool")},
    **{"developer": "system", "human": "user", "prompter": "user", "gpt": "assistant", "chatgpt": "assistant"},
    **{
        "bot": "assistant",
        "model": "assistant",
        "function_call": "assistant",
        "function": "tool",
        "observation": "tool",
        "function_response": "tool",
    },
}


def kind(value: Any) -> str:
    names = {bool: "true or false", int: "a number", float: "a number", str: "text", list: "a list", dict: "an object"}
    return "empty" if value is None else names.get(type(value), type(value).__name__)


def text(value: Any, field: str) -> str:
    if value is None:
        raise FTError(f"it has no {field}")
    if not isinstance(value, str):
        raise FTError(f"its {field} is {kind(value)}, not text")
    return value


def answer(value: Any, field: str) -> str:
    if value is None:
        raise FTError("it has no answer")
    return text(value, field)


def exchange(prompt: str, answer: str) -> list[Message]:
    return [Message("user", prompt), Message("assistant", answer)]


def require_whole(said: str, where: str) -> None:
    """Raises FTError for half of a UTF-16 pair, which nothing can be written with."""
    if said.isascii():
        return
    try:
        said.encode()
    except UnicodeEncodeError:
        raise FTError(f"{where} holds half a character (a lone surrogate)") from None


# --- messages


def said(value: Any, field: str, role: str) -> list[Message]:
    """Text that `role` says, or a list of messages (TRL's conversational form), also as JSON in a cell."""
    if isinstance(value, list) or (isinstance(value, str) and looks_like_turns(value)):
        return read(value, field)
    return [Message(role, text(value, field))]  # type: ignore[arg-type]


def looks_like_turns(text: str) -> bool:
    """Whether a text is a JSON list of messages."""
    if not text.lstrip().startswith("[{"):
        return False
    try:
        turns = json.loads(text)
    except (ValueError, RecursionError):
        return False
    return all(isinstance(turn, dict) and ("role" in turn or "from" in turn) for turn in turns)


def read(value: Any, field: str) -> list[Message]:
    """A list of messages, as JSON in a cell, or as columns: {"role": [...], "content": [...]}."""
    if isinstance(value, str):
        value = _from_cell(value, field)
    if isinstance(value, dict) and value and all(isinstance(column, list) for column in value.values()):
        value = [dict(zip(value, cells)) for cells in zip(*value.values())]
    if not isinstance(value, list):
        raise FTError(f"its {field} is {kind(value)}, not a list of messages")
    return [_turn(turn) for turn in value]


def _turn(turn: Any) -> Message:
    """A message with role and content, or from and value. Keys beside these and MORE say nothing that is kept."""
    if not isinstance(turn, dict):
        raise FTError(f"a message is {kind(turn)}, not an object")
    said_by = turn.get("role", turn.get("from"))
    role = _ROLES.get(said_by.lower()) if isinstance(said_by, str) else None
    if role is None:
        raise FTError(f"a message has the role {said_by!r}")
    content = turn.get("content", turn.get("value"))
    if isinstance(said_by, str) and said_by.lower() == "function_call":  # LLaMA-Factory's: the value is the call
        turn, content = {"function_call": _from_cell(text(content, "function_call"), "function_call")}, ""
    more = _more(turn, role)
    if isinstance(content, list):  # OpenAI's parts
        if not all(isinstance(part, dict) and part.get("type") == "text" for part in content):
            raise FTError(f"the {role} message has parts that are not text")
        content = "".join(text(part.get("text"), "text") for part in content)
    if content is None and "tool_calls" in more:
        content = ""
    if not isinstance(content, str):
        raise FTError(f"the content of the {role} message is {kind(content)}, not text")
    return Message(role, content, more)  # type: ignore[arg-type]


def _more(turn: Mapping[str, Any], role: str) -> str:
    """What stands beside role and content (see Message.more)."""
    kept = {key: turn[key] for key in ("name", "tool_call_id") if turn.get(key)}
    for key, value in kept.items():
        if not isinstance(value, str):
            raise FTError(f"the {key} of the {role} message is {kind(value)}, not text")
    calls = turn.get("tool_calls")
    if isinstance(calls, str) and calls:
        calls = _from_cell(calls, "tool_calls")
    if not calls and (call := turn.get("function_call")):
        calls = [{"type": "function", "function": one} for one in (call if isinstance(call, list) else [call])]
        if not all(isinstance(one["function"], dict) and "name" in one["function"] for one in calls):
            raise FTError("its function_call is no object with name and arguments")
    if calls:
        if not isinstance(calls, list) or not all(isinstance(call, dict) for call in calls):
            raise FTError("its tool_calls are not a list of objects")
        kept["tool_calls"] = calls
    return _written(kept, more_of, "tool_calls") if kept else ""


def tools(value: Any) -> str:
    """Conversation.tools of a list of tools, also as JSON in a cell; functions of OpenAI's old API become tools."""
    if isinstance(value, str):
        value = _from_cell(value, "tools")
    if isinstance(value, dict):
        value = [value]
    if value is not None and (not isinstance(value, list) or not all(isinstance(tool, dict) for tool in value)):
        raise FTError("its tools are not a list of objects")
    found = [t if "function" in t or "type" in t else {"type": "function", "function": t} for t in value or ()]
    return _written(found, compact, "tools") if found else ""


def _written(value: Any, write: Any, field: str) -> str:
    try:
        return write(value)
    except TypeError:  # a date or bytes out of a table
        raise FTError(f"its {field} hold what JSON cannot") from None
    except RecursionError:
        raise FTError(f"its {field} are nested too deeply") from None


_SPEAKER = re.compile(r"(?:^|\n\n)(Human|Assistant): ?")


def transcript(text: str) -> list[Message]:
    """The turns of a text as HH-RLHF has them, each behind "\\n\\nHuman:" or "\\n\\nAssistant:"; [] for other text."""
    if not text.startswith("\n\nHuman:"):
        return []
    _, *parts = _SPEAKER.split(text)
    roles = {"Human": "user", "Assistant": "assistant"}
    return [Message(roles[by], said.strip()) for by, said in zip(parts[::2], parts[1::2])]  # type: ignore[arg-type]


# --- other fields


def history(value: Any) -> list[Message]:
    """Earlier turns, from a list of [prompt, answer]."""
    if value is None or value == "":
        return []
    if isinstance(value, str):
        value = _from_cell(value, "history")
    if not isinstance(value, list) or not all(isinstance(pair, list) and len(pair) == 2 for pair in value):
        raise FTError("its history is not a list of [prompt, answer]")
    return [m for prompt, answer in value for m in exchange(text(prompt, "history"), text(answer, "history"))]


def contexts(value: Any) -> list[str]:
    """One text, or a list of them, also as JSON in a cell."""
    if value is None or value == "":
        return []
    if isinstance(value, str):
        if not value.startswith('["') and value != "[]":
            return [value]
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return [value]
    if not isinstance(value, list):
        raise FTError(f"its contexts are {kind(value)}, not text")
    return [text(context, "contexts") for context in value]


def _from_cell(text: str, field: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise FTError(f"its {field} is text that is not JSON") from None
