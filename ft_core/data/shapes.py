"""The shapes in which datasets come: which columns make one, and what a record of it says as a conversation.

`contexts` are written into the prompt in one format, which is read back when rows are written in that shape:

    Context: <first>

    Context: <second>

    Question: <input>

alpaca's `input` follows its `instruction` after an empty line. Of a preference the better answer ends the conversation
and the worse one is kept beside it. Plain text (a `text` column, a .txt file) is a conversation in which the assistant
alone speaks: all of it is learnt, behind nothing but what the template puts before an answer. Templates that insist on
a user's turn first refuse such rows, and the check says so.
"""

from __future__ import annotations

import difflib
import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ..conversation import Conversation, Message
from ..errors import FTError
from . import turns
from .turns import kind

_PROMPT = ("prompt", "question", "query", "instruction", "input", "user", "q")
_ANSWER = ("completion", "answer", "response", "output", "assistant", "a")
_SYSTEM = {"system": ("system", "system_prompt")}
_TOOLS = {"tools": ("tools", "functions")}
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
    Shape(
        "preference",
        {"chosen": ("chosen",), "rejected": ("rejected",)},
        {"prompt": (*_PROMPT, "conversations", "messages")} | _SYSTEM | _TOOLS,
    ),
    Shape("messages", {"messages": ("messages",)}, {"rejected": ("rejected",)} | _TOOLS),
    Shape(
        "sharegpt",
        {"conversations": ("conversations", "conversation")},
        {"rejected": ("rejected",)} | _SYSTEM | _TOOLS,
    ),
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
    Shape("prompt-completion", {"prompt": _PROMPT, "completion": _ANSWER}, _SYSTEM | _TOOLS),
    Shape("text", {"text": ("text", "content")}, {}),
)
"""The first that fits is taken."""

KNOWN = (
    "Known are messages; conversations (ShareGPT); instruction + output (alpaca); prompt + completion, also "
    "question + answer or prompt + response; input + contexts + response; prompt + chosen + rejected; text."
)


class NoShape(FTError):
    """The columns make no shape. `columns` are all there are, `samples` the first that stands in each, shortened."""

    def __init__(self, file: str, columns: list[str], shape: str = ""):
        wanted = f"the shape {shape} needs {' + '.join(named(shape).needed)}" if shape else "no shape that is known"
        super().__init__(
            f"{file} has the columns {_listed(columns)}: {'' if shape else 'that is '}{wanted}",
            f"{KNOWN} Rename columns, or say which is which (prompt=COLUMN, completion=COLUMN).",
        )
        self.columns = tuple(columns)
        self.samples: dict[str, str] = {}


def named(name: str) -> Shape:
    """Raises FTError for a shape that is not known."""
    for shape in SHAPES:
        if shape.name == name:
            return shape
    raise FTError(f"there is no shape {name!r}", f"Shapes are {', '.join(shape.name for shape in SHAPES)}.")


def recognise(
    columns: list[str], mapping: Mapping[str, str] | None, file: str, shape: str = ""
) -> tuple[Shape, dict[str, str]]:
    """The shape that the columns make, or `shape` if they make that, and the column of each of its fields.

    `mapping` says it by hand: a field (or another name for it, as `answer` for `completion`) -> its column, or '' for
    a field that is to be left out. Raises NoShape when the columns make none, FTError when the mapping speaks of what
    is not there.
    """
    mapping = _checked(mapping or {}, columns, file)
    taken = {field: column for field, column in mapping.items() if column}
    names = {column.strip().lower(): column for column in reversed(columns) if column not in taken.values()}
    names |= taken
    for candidate in [named(shape)] if shape else SHAPES:
        found = {
            field: next(names[a] for a in aliases if a in names)
            for field, aliases in candidate.fields.items()
            if any(a in names for a in aliases) and mapping.get(field) != ""
        }
        if set(candidate.needed) <= set(found) and set(taken.values()) <= set(found.values()):
            return candidate, found
    raise NoShape(file, columns, shape)


def _listed(columns: list[str]) -> str:
    """Names for a sentence: of a broken file they may be anything."""
    names = [textwrap.shorten(column, 40, placeholder="…") for column in columns[:20]]
    return ", ".join(names + ["…"] * (len(columns) > 20)) or "(none)"


def _checked(mapping: Mapping[str, str], columns: list[str], file: str) -> dict[str, str]:
    known = sorted({alias for shape in SHAPES for aliases in shape.fields.values() for alias in aliases})
    for field, column in mapping.items():
        if field.lower() not in known:
            raise FTError(f"{field!r} is no field of any shape", f"Fields are {', '.join(known)}.")
        if column and column not in columns:
            near = difflib.get_close_matches(column, columns, 1)
            hint = f"Did you mean {near[0]!r}?" if near else f"It has {_listed(columns)}."
            raise FTError(f"{file} has no column {column!r}", hint)
    return {field.lower(): column for field, column in mapping.items()}


def conversation(record: Any, shape: Shape, mapping: Mapping[str, str], origin: str) -> Conversation:
    """What a record says. Raises FTError with the reason when it cannot be used."""
    if not isinstance(record, dict):
        raise FTError(f"it is {kind(record)}, not an object with columns")
    if None in record:  # a CSV row's place for what has no column
        raise FTError("it has more cells than the header has columns")
    said = {field: record.get(column) for field, column in mapping.items()}
    messages = _READ[shape.name](said)
    found = Conversation(tuple(messages), origin)
    if said.get("rejected"):
        plain = shape.name != "preference" and isinstance(said["rejected"], str)
        worse = [Message("assistant", said["rejected"])] if plain else _answers(said["rejected"], "rejected")
        found = replace(found, rejected=_rejected(worse, messages))
    if said.get("tools"):
        found = replace(found, tools=turns.tools(said["tools"]))
    if said.get("system") and messages[:1] and messages[0].role != "system":
        found = found.with_system(turns.text(said["system"], "system"))
    if not any(m.role == "assistant" and (m.more or m.content.strip()) for m in messages):
        raise FTError("it has no answer")
    for message in found.messages:
        turns.require_whole(message.content + message.more, f"the {message.role} message")
    turns.require_whole(found.rejected, "the rejected answer")
    turns.require_whole(found.tools, "the list of tools")
    return found


# --- one function for each shape: fields -> messages


def _read_messages(said: dict[str, Any]) -> list[Message]:
    return turns.read(said["messages"], "messages")


def _read_sharegpt(said: dict[str, Any]) -> list[Message]:
    return turns.read(said["conversations"], "conversations")


def _read_preference(said: dict[str, Any]) -> list[Message]:
    """Up to the better answer. `chosen` is that alone, or the whole conversation, prompt and all."""
    chosen = _answers(said["chosen"], "chosen")
    prompt = turns.said(said["prompt"], "prompt", "user") if said.get("prompt") is not None else []
    if not chosen:
        raise FTError("it has no answer")
    if chosen[-1].role != "assistant":
        raise FTError(f"its chosen ends with the {chosen[-1].role}, not with an answer")
    whole = any(m.role == "user" for m in chosen)
    if not whole:
        return prompt + chosen
    if [m for m in prompt if m.role != "system"] != [m for m in chosen if m.role != "system"][: len(prompt)]:
        if not any(m.role == "user" and prompt and m.content == prompt[-1].content for m in chosen):
            raise FTError("its chosen is a whole conversation, and not one about its prompt")
    own = prompt[:1] if prompt and prompt[0].role == "system" and chosen[0].role != "system" else []
    return own + chosen


def _answers(value: Any, field: str) -> list[Message]:
    """An answer, or a whole conversation that ends with it."""
    if isinstance(value, dict):
        value = [value]
    if isinstance(value, str) and value.strip() == "[]":
        return []
    if isinstance(value, str) and (found := turns.transcript(value)):
        return found
    return turns.said(value, field, "assistant")


def _rejected(worse: list[Message], messages: list[Message]) -> str:
    """The worse answer. Of a whole conversation it is the last message, after the same beginning as the better one."""
    if not worse:
        return ""
    if not messages or messages[-1].role != "assistant":
        raise FTError("it has a rejected answer, but does not end with a better one")
    if worse[-1].role != "assistant":
        raise FTError(f"its rejected ends with the {worse[-1].role}, not with an answer")
    before = [m for m in messages[:-1] if m.role != "system"]
    if len(worse) > 1 and [m for m in worse[:-1] if m.role != "system"] != before:
        whole = any(m.role == "user" for m in worse)
        raise FTError("its chosen and rejected begin differently" if whole else "its rejected is several messages")
    if worse[-1].more:
        raise FTError("its rejected answer calls a tool, which cannot be kept")
    return worse[-1].content


def _read_alpaca(said: dict[str, Any]) -> list[Message]:
    parts = [turns.text(said["instruction"], "instruction"), turns.text(said.get("input") or "", "input")]
    prompt = "\n\n".join(filter(None, parts))
    return [*turns.history(said.get("history")), *turns.exchange(prompt, turns.answer(said["output"], "output"))]


def _read_contexts(said: dict[str, Any]) -> list[Message]:
    prompt = with_contexts(turns.contexts(said["contexts"]), turns.text(said["input"], "input"))
    return [*turns.history(said.get("history")), *turns.exchange(prompt, turns.answer(said["response"], "response"))]


def _read_prompt_completion(said: dict[str, Any]) -> list[Message]:
    if said["completion"] is None:
        raise FTError("it has no answer")
    return turns.said(said["prompt"], "prompt", "user") + turns.said(said["completion"], "completion", "assistant")


def _read_text(said: dict[str, Any]) -> list[Message]:
    text = turns.text(said["text"], "text")
    if not text.strip():
        raise FTError("it has no text")
    return [Message("assistant", text)]


_READ = {
    "messages": _read_messages,
    "sharegpt": _read_sharegpt,
    "preference": _read_preference,
    "alpaca": _read_alpaca,
    "contexts": _read_contexts,
    "prompt-completion": _read_prompt_completion,
    "text": _read_text,
}

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
