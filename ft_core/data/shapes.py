"""The shapes in which datasets come: which columns make one, and what a record of it says as a conversation.

`contexts` are written into the prompt in one format, which is read back when rows are written in that shape:

    Context: <first>

    Context: <second>

    Question: <input>

alpaca's `input` follows its `instruction` after an empty line.
"""

from __future__ import annotations

import difflib
import json
import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ..conversation import Conversation, Message
from ..errors import FTError

_PROMPT = ("prompt", "question", "query", "instruction", "input", "user", "q")
_ANSWER = ("completion", "answer", "response", "output", "assistant", "a")
_SYSTEM = {"system": ("system", "system_prompt")}
_HISTORY = {"history": ("history",)}
"""Earlier turns as LLaMA-Factory has them: a list of [prompt, answer]."""


@dataclass(frozen=True)
class Shape:
    """Fields by name, each with the columns that are taken for it, the likeliest first."""

    name: str
    needed: Mapping[str, tuple[str, ...]]
    optional: Mapping[str, tuple[str, ...]]

    @property
    def fields(self) -> dict[str, tuple[str, ...]]:
        return {**self.needed, **self.optional}


SHAPES = (
    Shape("messages", {"messages": ("messages",)}, {}),
    Shape("sharegpt", {"conversations": ("conversations", "conversation")}, _SYSTEM),
    Shape("preference", {"chosen": ("chosen",), "rejected": ("rejected",)}, {"prompt": _PROMPT} | _SYSTEM),
    Shape(
        "alpaca",
        {"instruction": ("instruction",), "output": ("output",)},
        {"input": ("input",)} | _SYSTEM | _HISTORY,
    ),
    Shape(
        "contexts",
        {"input": ("input", *_PROMPT), "contexts": ("contexts", "context"), "response": ("response", *_ANSWER)},
        _SYSTEM | _HISTORY,
    ),
    Shape("prompt-completion", {"prompt": _PROMPT, "completion": _ANSWER}, _SYSTEM),
)
"""The first that fits is taken."""

KNOWN = (
    "Known are messages; conversations (ShareGPT); instruction + output (alpaca); prompt + completion, also "
    "question + answer or prompt + response; input + contexts + response; prompt + chosen + rejected."
)


def recognise(columns: list[str], mapping: Mapping[str, str] | None, file: str) -> tuple[Shape, dict[str, str]]:
    """The shape that the columns make, and the column of each of its fields.

    `mapping` says it by hand: a field (or another name for it, as `answer` for `completion`) -> its column. Raises
    FTError that names the columns when they make no shape, or the mapping speaks of what is not there.
    """
    mapping = _checked(mapping or {}, columns, file)
    names = {column.strip().lower(): column for column in reversed(columns) if column not in mapping.values()}
    names |= mapping
    for shape in SHAPES:
        found = {
            field: next(names[a] for a in aliases if a in names)
            for field, aliases in shape.fields.items()
            if any(a in names for a in aliases)
        }
        if set(shape.needed) <= set(found) and set(mapping.values()) <= set(found.values()):
            return shape, found
    raise FTError(
        f"{file} has the columns {_listed(columns)}: that is no shape that is known",
        f"{KNOWN} Rename columns, or say which is which (prompt=COLUMN, completion=COLUMN).",
    )


def _listed(columns: list[str]) -> str:
    """Names for a sentence: of a broken file they may be anything."""
    names = [textwrap.shorten(column, 40, placeholder="…") for column in columns[:20]]
    return ", ".join(names + ["…"] * (len(columns) > 20)) or "(none)"


def _checked(mapping: Mapping[str, str], columns: list[str], file: str) -> dict[str, str]:
    known = sorted({alias for shape in SHAPES for aliases in shape.fields.values() for alias in aliases})
    for field, column in mapping.items():
        if field.lower() not in known:
            raise FTError(f"{field!r} is no field of any shape", f"Fields are {', '.join(known)}.")
        if column not in columns:
            near = difflib.get_close_matches(column, columns, 1)
            hint = f"Did you mean {near[0]!r}?" if near else f"It has {_listed(columns)}."
            raise FTError(f"{file} has no column {column!r}", hint)
    return {field.lower(): column for field, column in mapping.items()}


def conversation(record: Any, shape: Shape, mapping: Mapping[str, str], origin: str) -> Conversation:
    """What a record says. Raises FTError with the reason when it cannot be used."""
    if not isinstance(record, dict):
        raise FTError(f"it is {_kind(record)}, not an object with columns")
    if None in record:  # csv.DictReader's place for what has no column
        raise FTError("it has more cells than the header has columns")
    said = {field: record.get(column) for field, column in mapping.items()}
    messages = _READ[shape.name](said)
    if said.get("system") and messages[:1] and messages[0].role != "system":
        messages = [Message("system", _text(said["system"], "system")), *messages]
    if not any(m.role == "assistant" and m.content.strip() for m in messages):
        raise FTError("it has no answer")
    for message in messages:
        try:
            message.content.encode()
        except UnicodeEncodeError:
            raise FTError(f"the {message.role} message holds half a character (a lone surrogate)") from None
    return Conversation(tuple(messages), origin)


# --- one function for each shape: fields -> messages


def _read_messages(said: dict[str, Any]) -> list[Message]:
    return _turns(said["messages"], "messages")


def _read_sharegpt(said: dict[str, Any]) -> list[Message]:
    return _turns(said["conversations"], "conversations")


def _read_preference(said: dict[str, Any]) -> list[Message]:
    """The better answer. Without a prompt, `chosen` is the whole conversation."""
    prompt = _said(said["prompt"], "prompt", "user") if said.get("prompt") is not None else []
    return prompt + _said(said["chosen"], "chosen", "assistant")


def _read_alpaca(said: dict[str, Any]) -> list[Message]:
    parts = [_text(said["instruction"], "instruction"), _text(said.get("input") or "", "input")]
    prompt = "\n\n".join(filter(None, parts))
    return [*_history(said.get("history")), *_exchange(prompt, _answer(said["output"], "output"))]


def _read_contexts(said: dict[str, Any]) -> list[Message]:
    prompt = with_contexts(_contexts(said["contexts"]), _text(said["input"], "input"))
    return [*_history(said.get("history")), *_exchange(prompt, _answer(said["response"], "response"))]


def _read_prompt_completion(said: dict[str, Any]) -> list[Message]:
    if said["completion"] is None:
        raise FTError("it has no answer")
    return _said(said["prompt"], "prompt", "user") + _said(said["completion"], "completion", "assistant")


_READ = {
    "messages": _read_messages,
    "sharegpt": _read_sharegpt,
    "preference": _read_preference,
    "alpaca": _read_alpaca,
    "contexts": _read_contexts,
    "prompt-completion": _read_prompt_completion,
}

# --- what stands in a field

_ROLES = {
    **{role: role for role in ("system", "user", "assistant", "tool")},
    **{"developer": "system", "human": "user", "prompter": "user", "gpt": "assistant", "chatgpt": "assistant"},
    **{
        "bot": "assistant",
        "model": "assistant",
        "function": "tool",
        "observation": "tool",
        "function_response": "tool",
    },
}


def _kind(value: Any) -> str:
    names = {bool: "true or false", int: "a number", float: "a number", str: "text", list: "a list", dict: "an object"}
    return "empty" if value is None else names.get(type(value), type(value).__name__)


def _text(value: Any, field: str) -> str:
    if value is None:
        raise FTError(f"it has no {field}")
    if not isinstance(value, str):
        raise FTError(f"its {field} is {_kind(value)}, not text")
    return value


def _answer(value: Any, field: str) -> str:
    if value is None:
        raise FTError("it has no answer")
    return _text(value, field)


def _exchange(prompt: str, answer: str) -> list[Message]:
    return [Message("user", prompt), Message("assistant", answer)]


def _said(value: Any, field: str, role: str) -> list[Message]:
    """Text that `role` says, or a list of messages (TRL's conversational form), also as JSON in a cell."""
    if isinstance(value, list) or (isinstance(value, str) and looks_like_turns(value)):
        return _turns(value, field)
    return [Message(role, _text(value, field))]


def looks_like_turns(text: str) -> bool:
    """Whether a text is a JSON list of messages."""
    if not text.lstrip().startswith("[{"):
        return False
    try:
        turns = json.loads(text)
    except (ValueError, RecursionError):
        return False
    return all(isinstance(turn, dict) and ("role" in turn or "from" in turn) for turn in turns)


def _turns(value: Any, field: str) -> list[Message]:
    if isinstance(value, str):
        value = _from_cell(value, field)
    if not isinstance(value, list):
        raise FTError(f"its {field} is {_kind(value)}, not a list of messages")
    return [_turn(turn) for turn in value]


def _turn(turn: Any) -> Message:
    """A message with role and content, or from and value. Other keys (names, weights) say nothing that is kept."""
    if not isinstance(turn, dict):
        raise FTError(f"a message is {_kind(turn)}, not an object")
    said_by = turn.get("role", turn.get("from"))
    role = _ROLES.get(said_by.lower()) if isinstance(said_by, str) else None
    if role is None:
        raise FTError(f"a message has the role {said_by!r}")
    if turn.get("tool_calls") or turn.get("function_call"):
        raise FTError("it calls a tool, which cannot be kept yet")
    content = turn.get("content", turn.get("value"))
    if isinstance(content, list):  # OpenAI's parts
        if not all(isinstance(part, dict) and part.get("type") == "text" for part in content):
            raise FTError(f"the {role} message has parts that are not text")
        content = "".join(_text(part.get("text"), "text") for part in content)
    if not isinstance(content, str):
        raise FTError(f"the content of the {role} message is {_kind(content)}, not text")
    return Message(role, content)  # type: ignore[arg-type]


def _history(value: Any) -> list[Message]:
    if value is None or value == "":
        return []
    if isinstance(value, str):
        value = _from_cell(value, "history")
    if not isinstance(value, list) or not all(isinstance(pair, list) and len(pair) == 2 for pair in value):
        raise FTError("its history is not a list of [prompt, answer]")
    return [m for prompt, answer in value for m in _exchange(_text(prompt, "history"), _text(answer, "history"))]


def _contexts(value: Any) -> list[str]:
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
        raise FTError(f"its contexts are {_kind(value)}, not text")
    return [_text(context, "contexts") for context in value]


def _from_cell(text: str, field: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise FTError(f"its {field} is text that is not JSON") from None


# --- contexts in a prompt


def with_contexts(contexts: Iterable[str], question: str) -> str:
    """The prompt of a row with contexts, in the format above; the question alone when there are none."""
    said = "".join(f"Context: {context}\n\n" for context in contexts)
    return f"{said}Question: {question}" if said else question


def without_contexts(prompt: str) -> tuple[list[str], str]:
    """Contexts and question of a prompt that with_contexts wrote; any other prompt is a question without contexts."""
    head, _, question = prompt.rpartition("\n\nQuestion: ")
    contexts = head.removeprefix("Context: ").split("\n\nContext: ")
    return (contexts, question) if with_contexts(contexts, question) == prompt else ([], prompt)
