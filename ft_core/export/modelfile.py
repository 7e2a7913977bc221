"""The Modelfile that Ollama builds a model from: TEMPLATE, SYSTEM and stops out of the tokenizer that was trained.

Ollama guesses a template when it is given none, and guesses wrong for templates that look like known ones. So the
template is always written, in Go's template language, and only when it writes the very text that was trained on.
"""

from __future__ import annotations

import json
import unicodedata
from dataclasses import dataclass
from typing import Any

from ..conversation import Message
from ..errors import FTError
from .trained import Trained
from .turns import Turns
from .verify import Check

TEMPERATURE = 0.7
"""Where the base does not say otherwise."""

_USER, _ANSWER = Message("user", "Do you ship to Norway?"), Message("assistant", "Yes, in four days.")
BATTERY: tuple[tuple[Message, ...], ...] = (
    (_USER,),
    (Message("system", "Answer in one word."), _USER),
    (_USER, _ANSWER, Message("user", "And back?")),
    (Message("system", "Answer in one word."), _USER, _ANSWER, _USER, _ANSWER, Message("user", "And back?")),
    (Message("user", 'Braces {{ .Content }} {% if x %} }} and "quotes" \\ stay.'),),
    (Message("user", "First line\n\n\tsecond line"),),
)
"""Chats that the template must write exactly as the tokenizer's own does."""
PADDED = (Message("user", " An end of line stays.\n"),)
"""Some tokenizers' templates cut white space off the ends, which Go's template language cannot."""


@dataclass(frozen=True)
class Template:
    """A template of Ollama's, and what it writes."""

    turns: Turns
    runtime_opens: bool
    """Whether llama.cpp writes the opening itself."""

    def text(self) -> str:
        """In Go's template language."""
        turns = self.turns
        opening = "" if self.runtime_opens else _literal(turns.opening)
        if turns.default_system == "":  # the turn is written around nothing, which SYSTEM cannot say
            empty = _literal(turns.roles["system"].before + turns.roles["system"].after)
            opening += "{{ if not .System }}" + empty + "{{ end }}"
        cases = ""
        for word, role in zip(("if", "else if", "else if"), turns.roles):
            around = turns.roles[role]
            cases += f'{{{{ {word} eq .Role "{role}" }}}}{_literal(around.before)}{{{{ .Content }}}}'
            cases += _literal(around.after)
        return f"{opening}{{{{ range .Messages }}}}{cases}{{{{ end }}}}{{{{ end }}}}{_literal(turns.answer)}"

    def rendered(self, messages: tuple[Message, ...], system: str = "") -> str:
        """What Ollama makes of it with that SYSTEM: the same by our own hand, to be held against the tokenizer's."""
        turns = self.turns
        if system and messages[0].role != "system":
            messages = (Message("system", system), *messages)
        text = "" if self.runtime_opens else turns.opening
        if turns.default_system == "" and messages[0].role != "system":
            text += turns.roles["system"].before + turns.roles["system"].after
        for message in messages:
            around = turns.roles[message.role]
            text += around.before + message.content + around.after
        return text + turns.answer


@dataclass(frozen=True)
class Modelfile:
    gguf: str
    """Name of the GGUF in the same folder."""
    template: Template
    system: str
    parameters: dict[str, Any]
    """As Ollama names them; `stop` is a list."""
    licence: str

    @classmethod
    def of(cls, trained: Trained, gguf: str) -> Modelfile:
        """Raises FTError when the chat template cannot be written for Ollama."""
        turns = Turns.of(trained.renderer)
        parameters = {**_sampling(trained), "repeat_penalty": 1.0, "stop": list(trained.ends.stops)}
        template = Template(turns, runtime_opens=bool(trained.ends.opening))
        return cls(gguf, template, trained.system or turns.default_system or "", parameters, trained.licence)

    def text(self) -> str:
        """Raises FTError for a template or system prompt that no Modelfile can hold."""
        name = self.gguf.rsplit("-", 1)[0].lower()
        lines = [
            f"# ollama create {name} -f Modelfile && ollama run {name}",
            f"FROM ./{self.gguf}",
            f"TEMPLATE {_quoted(self.template.text(), 'the chat template')}",
        ]
        if self.system:
            lines.append(f"SYSTEM {_quoted(printable(self.system), 'the system prompt')}")
        for key, value in self.parameters.items():
            values = value if isinstance(value, list) else [value]
            lines += [f"PARAMETER {key} {_quoted(v) if isinstance(v, str) else v}" for v in values]
        if self.licence:
            lines.append(f"LICENSE {_quoted(self.licence)}")
        return "\n".join(lines) + "\n"

    def checks(self, trained: Trained) -> list[Check]:
        """Whether the template writes what the tokenizer's does. The first is a gate."""
        same = sum(self._same(trained, chat) for chat in BATTERY)
        kept = printable(self.system) == self.system
        dated = "strftime_now" in trained.renderer.template
        name = f"Modelfile: writes what was trained on (of {len(BATTERY)} chats)"
        return [
            Check(name, "gate", same == len(BATTERY), same),
            Check("Modelfile: keeps white space at the ends", "warning", self._same(trained, PADDED), 1.0),
            Check("Modelfile: the system prompt stays as it is", "warning", kept, 1.0),
            Check("Modelfile: no date of today is written into it", "warning", not dated, 1.0),
        ]

    def _same(self, trained: Trained, chat: tuple[Message, ...]) -> bool:
        head = (Message("system", self.system),) if self.system and chat[0].role != "system" else ()
        wanted = trained.renderer.text((*head, *chat), answer_next=True)
        return self.template.rendered(chat, self.system) == trained.ends.prompt(wanted)


def _sampling(trained: Trained) -> dict[str, float]:
    """The base's own settings where it has some; Ollama punishes repeating by itself, and no training knew that."""
    file = trained.base / "generation_config.json"
    settings = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    found = {key: settings[key] for key in ("temperature", "top_p", "top_k") if settings.get(key)}
    return {"temperature": TEMPERATURE, **found}


def _literal(text: str) -> str:
    """Text as it stands in a Go template, where only {{ means something."""
    return text.replace("{{", '{{ "{{" }}')


def printable(text: str) -> str:
    """What is left of `text` in a Modelfile: Ollama drops characters that do not print, and white space but the
    plain kind. Here white space becomes a plain space first."""
    kept = []
    for character in text.replace("\r\n", "\n"):
        category = unicodedata.category(character)
        if character in "\n\t" or category[0] not in "CZ":
            kept.append(character)
        elif category == "Zs":
            kept.append(" ")
    return "".join(kept)


def _quoted(text: str, what: str = "the text") -> str:
    """Between quotes, three where one will not do: Modelfiles know no escapes."""
    if '"""' in text:
        raise FTError(
            f'{what} contains """, which no Modelfile can hold',
            "Export a GGUF and run it in llama.cpp, or train with a system prompt without these quotes.",
        )
    if printable(text) != text:
        raise FTError(
            f"{what} contains characters that no Modelfile can hold", "Export a GGUF and run it in llama.cpp."
        )
    return f'"""{text}"""' if set(text) & set('"\n\r') else f'"{text}"'
