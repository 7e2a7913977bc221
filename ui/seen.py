"""A conversation as the base model sees it, in pieces that a page can colour. Pure; what is learnt is render.py's."""

from __future__ import annotations

from dataclasses import dataclass

from ft_core.conversation import Conversation
from ft_core.render import IGNORED, Renderer

_LONGEST = 20_000
"""Characters of one piece that are shown."""


@dataclass(frozen=True)
class Seen:
    """The rendered text in pieces, each with whether it is learnt and whether it is cut off; and the tokens."""

    pieces: tuple[tuple[str, bool, bool], ...]
    tokens: int
    """All of them, also those past the limit."""
    limit: int
    learnt: int
    """Of those within the limit."""
    cut: int
    cut_learnt: int
    """Of those past the limit, how many would have been learnt."""


def seen(renderer: Renderer, conversation: Conversation, limit: int) -> Seen:
    """Raises FTError with the template's words when it refuses the conversation."""
    whole, kept = renderer.example(conversation), renderer.example(conversation, limit)
    text = renderer.text(conversation.messages, tools=conversation.tools)
    offsets = renderer.tokenizer.encode(text, add_special_tokens=False).offsets
    begins: list[tuple[int, bool, bool]] = []
    for at, (label, (start, _)) in enumerate(zip(whole.labels, offsets)):
        kind = (label != IGNORED, at >= limit)
        if not begins or begins[-1][1:] != kind:
            begins.append((start if begins else 0, *kind))
    ends = [start for start, _, _ in begins[1:]] + [len(text)]
    found = ((_short(text[start:end]), learnt, cut) for (start, learnt, cut), end in zip(begins, ends))
    return Seen(tuple(p for p in found if p[0]), len(whole.ids), limit, kept.learnt, kept.cut, kept.cut_learnt)


def _short(text: str) -> str:
    if len(text) <= _LONGEST:
        return text
    half = _LONGEST // 2
    return f"{text[:half]} … {len(text) - 2 * half:,} characters … {text[-half:]}"
