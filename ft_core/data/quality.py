"""What is wrong with the data, before any time is spent on training with it. It changes nothing."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from ..conversation import Conversation
from ..errors import FTError
from ..render import Renderer
from .operations import counted
from .split import alike
from .store import Store

FEW = 20
"""Fewer rows than this teach a model little."""


@dataclass(frozen=True)
class Finding:
    """One thing to look at. `blocking` means that training on this makes no sense, or cannot work."""

    name: str
    kind: Literal["blocking", "advisory"]
    count: int
    text: str
    hint: str
    rows: tuple[int, ...] = ()
    """Ids."""


@dataclass(frozen=True)
class Check:
    ready: bool
    """No finding is blocking."""
    flags: dict[str, int]
    """How many rows each check found; 0 where all is well. Checks that need a model are only there with one."""
    findings: tuple[Finding, ...]


@dataclass
class _Seen:
    """What one pass over the rows gathers: ids by the name of the check, and figures for the sentences."""

    flagged: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    rows: int = 0
    to_train: int = 0
    first: dict[bytes, int] = field(default_factory=dict)
    trained: set[bytes] = field(default_factory=set)
    heldout: list[tuple[int, bytes]] = field(default_factory=list)
    refusal: str = ""
    longest: int = 0
    lost: int = 0


def check(store: Store, renderer: Renderer | None = None, max_length: int = 512) -> Check:
    """Looks at every row that is not rejected, under the project's system prompt.

    With the `renderer` of a base model also at what the model would see of it in `max_length` tokens.
    """
    seen = _Seen()
    for id, conversation, side in store.conversations():
        _look(seen, id, conversation, side)
        if renderer is not None:
            _render(seen, id, conversation, renderer, max_length)
    seen.flagged["leak"] = [id for id, key in seen.heldout if key in seen.trained]
    findings = tuple(_findings(seen, max_length))
    names = ["few_rows", "empty", "duplicate", "leak"] + (["template", "nothing_learnt", "cut"] if renderer else [])
    found = {finding.name: finding.count for finding in findings}
    return Check(
        ready=not any(finding.kind == "blocking" for finding in findings),
        flags={name: found.get(name, 0) for name in names},
        findings=findings,
    )


def _look(seen: _Seen, id: int, conversation: Conversation, side: str) -> None:
    seen.rows += 1
    answers = [m.content for m in conversation.messages if m.role == "assistant"]
    if not answers or not all(answer.strip() for answer in answers):
        seen.flagged["empty"].append(id)
    key = alike(conversation.canonical())
    if seen.first.setdefault(key, id) != id:
        seen.flagged["duplicate"].append(id)
    if side == "heldout":
        seen.heldout.append((id, key))
    else:
        seen.to_train += 1
        seen.trained.add(key)


def _render(seen: _Seen, id: int, conversation: Conversation, renderer: Renderer, max_length: int) -> None:
    try:
        example = renderer.example(conversation, max_length)
    except FTError as error:
        seen.refusal = seen.refusal or f"row {id}: {error.message}"
        seen.flagged["template"].append(id)
        return
    if example.learnt == 0:
        seen.flagged["nothing_learnt"].append(id)
    if example.cut:
        seen.flagged["cut"].append(id)
        seen.longest = max(seen.longest, len(example.ids) + example.cut)
        seen.lost += example.cut_learnt


def _findings(seen: _Seen, max_length: int) -> Iterator[Finding]:
    """In the order in which they matter."""
    if seen.to_train == 0:
        hint = "Import or generate rows, or accept rejected ones."
        yield Finding("few_rows", "blocking", 0, "there are no rows to train on", hint)
    if ids := seen.flagged["template"]:
        text = f"the model's chat template refuses {counted(len(ids))} ({seen.refusal})"
        yield _finding("template", "blocking", ids, text, "Edit or reject them, or choose another base model.")
    if ids := seen.flagged["nothing_learnt"]:
        all_of_them = len(ids) + len(seen.flagged["template"]) == seen.rows
        text = f"nothing is learnt from {counted(len(ids))}: no answer, or cut away at {max_length:,} tokens"
        hint = "Give them an answer, shorten the prompt, or raise the longest conversation (max_length)."
        yield _finding("nothing_learnt", "blocking" if all_of_them else "advisory", ids, text, hint)
    if ids := seen.flagged["cut"]:
        enough = -(-seen.longest // 64) * 64
        text = f"{counted(len(ids))} cut at {max_length:,} tokens; {seen.lost:,} tokens of answers are not learnt"
        hint = f"Raise the longest conversation (max_length) to {enough:,}, or shorten them."
        yield _finding("cut", "advisory", ids, text, hint)
    if ids := seen.flagged["empty"]:
        text = f"{counted(len(ids))} with an empty answer; the model would learn to say nothing"
        yield _finding("empty", "advisory", ids, text, "Write an answer, or reject them.")
    if ids := seen.flagged["leak"]:
        text = f"{counted(len(ids))} held out and also trained on, which makes the test too easy"
        yield _finding("leak", "advisory", ids, text, "Reject one of each, or split anew with another seed.")
    if ids := seen.flagged["duplicate"]:
        text = f"{counted(len(ids))} the same as an earlier one"
        yield _finding("duplicate", "advisory", ids, text, "Reject them, unless they are meant to count more.")
    if 0 < seen.to_train < FEW:
        text = f"only {counted(seen.to_train)} to train on"
        yield Finding("few_rows", "advisory", seen.to_train, text, f"Fewer than {FEW} teach a model little.")


def _finding(name: str, kind: Literal["blocking", "advisory"], ids: list[int], text: str, hint: str) -> Finding:
    return Finding(name, kind, len(ids), text, hint, tuple(ids))
