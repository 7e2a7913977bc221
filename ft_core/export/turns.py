"""What a chat template writes around people's words: how an answer ends, and, taken apart, each role's turn.

The template is rendered with words that occur nowhere else, and what stands between them is what the template adds.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..conversation import Message, Role
from ..errors import FTError
from ..render import Renderer

_MARKS: dict[Role, str] = {"system": "Quaxsystem", "user": "Quaxuser", "assistant": "Quaxassistant"}


@dataclass(frozen=True)
class Ends:
    """Where a chat begins and where an answer is over. Every chat template has these."""

    opening: str
    """The token that llama.cpp puts before every text itself, so that a prompt must leave it out; '' for none."""
    end: str
    """The token that ends an answer, '' when the template ends answers without one."""
    end_id: int | None
    stops: tuple[str, ...]
    """Text at which an answer is over."""

    @classmethod
    def of(cls, renderer: Renderer) -> Ends:
        """Raises FTError when the template refuses a question with an answer."""
        question, answer = (Message(role, _MARKS[role]) for role in ("user", "assistant"))
        text = renderer.text((question, answer, question))
        bos = renderer.special.get("bos_token", "")
        opening = bos if bos and text.startswith(bos) and adds_bos(renderer) else ""
        after = text[_behind(text, _MARKS["assistant"]) : text.rindex(_MARKS["user"])]
        end, end_id = _end(renderer, after)
        return cls(opening, end, end_id, (end or after.strip(),))

    def prompt(self, text: str) -> str:
        """Rendered text as llama.cpp wants it."""
        return text.removeprefix(self.opening)


@dataclass(frozen=True)
class Around:
    """What a template writes before and after the words of one role."""

    before: str
    after: str


@dataclass(frozen=True)
class Turns:
    """A chat template that writes each turn the same way wherever it stands."""

    opening: str
    """What stands before the first turn, once: the token that begins a text, or nothing."""
    roles: dict[Role, Around]
    answer: str
    """What the template writes last, for the assistant to go on from."""
    default_system: str | None
    """The system prompt that the template writes when the conversation brings none; '' writes the turn around
    nothing, None writes no such turn."""

    @classmethod
    def of(cls, renderer: Renderer) -> Turns:
        """Raises FTError when the template cannot be taken apart like this."""
        bos = renderer.special.get("bos_token", "")
        for opening in dict.fromkeys([bos, ""] if adds_bos(renderer) else ["", bos]):
            try:
                return cls(opening, *_parts(renderer, opening))
            except ValueError:
                continue
        raise FTError(
            "the model's chat template writes its turns in a way that Ollama's template language cannot follow",
            "Export a GGUF instead: llama.cpp and LM Studio run the model's own template.",
        )


def adds_bos(renderer: Renderer) -> bool:
    """Whether the tokenizer puts its first token (BOS) before every text."""
    bos = renderer.tokenizer.token_to_id(renderer.special.get("bos_token", ""))
    ids = renderer.tokenizer.encode("a").ids
    return bos is not None and ids[:1] == [bos]


def _parts(renderer: Renderer, opening: str) -> tuple[dict[Role, Around], str, str | None]:
    """Raises ValueError where the pieces do not fit together under this opening."""

    def rendered(*roles: Role, answer_next: bool = False) -> str:
        text = renderer.text(tuple(Message(r, _MARKS[r]) for r in roles), answer_next)
        if not text.startswith(opening):
            raise ValueError
        return text.removeprefix(opening)

    def between(text: str, first: Role, second: Role) -> str:
        start = text.index(_MARKS[first]) + len(_MARKS[first])
        return text[start : text.index(_MARKS[second], start)]

    chat = rendered("system", "user", "assistant", "user", answer_next=True)
    asked = rendered("system", "user")
    answered = rendered("system", "user", "assistant")
    after_user = asked[_behind(asked, _MARKS["user"]) :]
    after_assistant = answered[_behind(answered, _MARKS["assistant"]) :]
    before_user = _without_start(between(chat, "assistant", "user"), after_assistant)
    before_assistant = _without_start(between(chat, "user", "assistant"), after_user)
    after_system = _without_end(between(chat, "system", "user"), before_user)
    before_system = chat[: chat.index(_MARKS["system"])]
    answer = _without_start(chat[_behind(chat, _MARKS["user"]) :], after_user)
    alone = rendered("user")
    default: str | None = _without_end(alone[: alone.index(_MARKS["user"])], before_user)
    default = _without_end(_without_start(default, before_system), after_system) if default else None
    roles: dict[Role, Around] = {
        "system": Around(before_system, after_system),
        "user": Around(before_user, after_user),
        "assistant": Around(before_assistant, after_assistant),
    }
    return roles, answer, default


def _behind(text: str, mark: str) -> int:
    return text.rindex(mark) + len(mark)


def _without_start(text: str, start: str) -> str:
    if not text.startswith(start):
        raise ValueError
    return text[len(start) :]


def _without_end(text: str, end: str) -> str:
    if not text.endswith(end):
        raise ValueError
    return text[: len(text) - len(end)]


def _end(renderer: Renderer, after: str) -> tuple[str, int | None]:
    """The first special token in what follows an answer."""
    special = {t.content: i for i, t in renderer.tokenizer.get_added_tokens_decoder().items() if t.content in after}
    found = min(special, key=after.index, default="")
    return found, special.get(found)
