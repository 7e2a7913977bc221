"""What is wrong with the data, before any time is spent on training with it, and what to do about it.

It puts what the audit found into words. Of rows that are not too many it brings the audit up first.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from ..render import Renderer
from . import audit, audited, columns
from .diversity import Diversity
from .operations import counted
from .store import Store

FEW = 20
"""Fewer rows than this teach a model little."""
LOOK = 2_000
"""New or changed rows that `check` looks at by itself: some seconds of rows of usual length."""
COMPARE = 1_000
"""Rows that it compares with each other by itself, which it does again whenever one of them changed."""
SETTLE = 20_000
"""Rows of which it finds anew what follows for each among the others."""
ROWS = 1_000
"""Ids that a finding has at most."""


@dataclass(frozen=True)
class Action:
    """What a button beside a finding does.

    show        the rows with the flag `flag` (columns.Query(flag=...))
    groups      the groups of rows that are alike (audit.groups)
    reject      rejects the rows with the flag; of those that are alike all but the first (audit.resolve)
    max_length  sets the longest conversation to `value` tokens
    split       splits anew, with another seed
    add         imports or generates rows
    check       starts the audit as a job (audit_job.start)
    """

    kind: Literal["show", "groups", "reject", "max_length", "split", "add", "check"]
    flag: str = ""
    value: int = 0


@dataclass(frozen=True)
class Knob:
    """A field of the recipe's train section, and the value that takes a finding away."""

    field: str
    value: int | float | str


@dataclass(frozen=True)
class Finding:
    """One thing to look at. `blocking` means that training on this makes no sense, or cannot work."""

    name: str
    kind: Literal["blocking", "advisory"]
    count: int
    text: str
    hint: str
    rows: tuple[int, ...] = ()
    """The first ROWS ids."""
    actions: tuple[Action, ...] = ()
    """The most likely one first."""
    knobs: tuple[Knob, ...] = ()
    """Settings each of which would take it away; the most likely one first."""


@dataclass(frozen=True)
class Check:
    ready: bool
    """No finding is blocking."""
    flags: dict[str, int]
    """How many rows each check found; 0 where all is well. Checks that need a model are only there with one."""
    findings: tuple[Finding, ...]
    """In the order in which they matter."""
    unseen: int = 0
    """Rows that nobody has looked at yet, or whose tokens nobody has counted."""
    diversity: Diversity | None = None
    """Of the whole set, when its texts were last compared."""


def check(
    store: Store, renderer: Renderer | None = None, max_length: int = 512, look: int = LOOK, shown: bool = True
) -> Check:
    """What is wrong with the rows that are not rejected, under the project's system prompt.

    With the `renderer` of a base model also with what the model would see of it in `max_length` tokens; unless
    `shown`, the flags of single rows stay those of the limit before. Of no more than `look` rows that are new or
    changed it brings the audit up first, else it says how many nobody has looked at.
    """
    if look:
        _bring_up(store, renderer, max_length, look, shown)
    lacking = audit.lacking(store, renderer)
    counts = store.counts()
    few = counts.rows - counts.rejected <= SETTLE
    changed = not (audit.compared(store) if few else audit.settled(store))
    with store.reading() as db:
        rows = columns.kept(db, store.path)
        seen = _Seen(
            rows=rows,
            to_train=counts.rows - counts.rejected - counts.heldout,
            unseen=max(lacking.said, lacking.counted),
            changed=changed,
            model=_model(db, rows, max_length) if renderer and not lacking.counted else None,
        )
    findings = tuple(_findings(seen, max_length))
    found = {finding.name: finding.count for finding in findings}
    names = [name for name in audited.FLAGS if renderer or name not in audited.OF_TOKENS]
    return Check(
        ready=not any(finding.kind == "blocking" for finding in findings),
        flags={name: found.get(name, 0) for name in ("few_rows", *names)},
        findings=findings,
        unseen=seen.unseen,
        diversity=audit.last_diversity(store),
    )


def _bring_up(store: Store, renderer: Renderer | None, max_length: int, look: int, shown: bool) -> None:
    """As far as somebody can wait for it."""
    lacking = audit.lacking(store, renderer)
    counts = store.counts()
    rows = counts.rows - counts.rejected
    if max(lacking.said, lacking.counted) <= look:
        for _ in audit.steps(store, renderer, max_length, workers=0, compare=rows <= COMPARE, shown=shown):
            pass
    if rows <= SETTLE:
        audit.settle(store)


@dataclass(frozen=True)
class _Model:
    """What a base model sees: ids, and figures for the sentences."""

    refused: list[int]
    refusal: str
    nothing_learnt: list[int]
    cut: list[int]
    longest: int
    lost: int


@dataclass(frozen=True)
class _Seen:
    rows: np.ndarray
    """As columns.kept."""
    to_train: int
    unseen: int
    changed: bool
    """Rows have changed since all were compared."""
    model: _Model | None

    def flagged(self, name: str) -> list[int]:
        return self.rows["id"][self.rows["flags"] & audited.mask([name]) != 0].tolist()


def _model(db: sqlite3.Connection, rows: np.ndarray, max_length: int) -> _Model:
    """At this limit, which may be another one than that of the rows' flags."""
    odd = rows["flags"] & audited.mask(["template", "nothing_learnt"]) != 0
    model = _Model([], "", [], [], 0, 0)
    refusals, longest, lost = [], 0, 0
    for id, found in audited.counts(db, rows["id"][odd | (rows["tokens"] > max_length)].tolist()):
        learnt = found.counts.learnt(max_length)
        if found.refusal:
            model.refused.append(id)
            refusals.append(f"row {id}: {found.refusal}")
            continue
        if learnt == 0:
            model.nothing_learnt.append(id)
        if found.counts.tokens > max_length:
            model.cut.append(id)
            longest = max(longest, found.counts.tokens)
            lost += found.counts.learnt() - learnt
    return replace(model, refusal=refusals[0] if refusals else "", longest=longest, lost=lost)


_TEXTS = {
    "empty": ("with an empty answer; the model would learn to say nothing", "Write an answer, or reject them."),
    "secret": ("with what looks like a key or a password", "Take it out, or reject them: a model may say it again."),
    "leak": ("held out and also trained on, which makes the test too easy", "Reject them, or split anew."),
    "personal_data": ("with personal data", "Replace it, or reject them, unless it is meant to be learnt."),
    "refusal": ("in which the assistant refuses", "Write an answer, or reject them, unless it is meant to refuse."),
    "repetitive": ("with the same words over and over; the model would learn that", "Shorten or reject them."),
    "cut_off": ("whose answer ends in the middle of a sentence", "Write its end, or reject them."),
    "language": ("in another language than the rest", "Reject them, unless the model is meant to speak it."),
    "misspelt": ("with many misspelt words", "Put them right, or reject them."),
    "duplicate": ("the same as an earlier one", "Reject them, unless they are meant to count more."),
    "near_duplicate": ("nearly the same as an earlier one", "Look at the groups, and keep the best row of each."),
    "similar": ("with much the same question as an earlier one", "Look at the groups; good variety is welcome."),
    "too_short": ("with hardly a text", "Look at them, and reject those that teach nothing."),
    "too_long": ("of unusual length", "Look at them: something may have been taken along."),
}
"""By flag, in the order in which they matter: what follows "3 rows", and what to do."""


def _findings(seen: _Seen, max_length: int) -> Iterator[Finding]:
    """In the order in which they matter."""
    if seen.to_train == 0:
        hint = "Import or generate rows, or accept rejected ones."
        yield Finding("few_rows", "blocking", 0, "there are no rows to train on", hint, actions=(Action("add"),))
    if seen.model is not None:
        yield from _about_model(seen.model, len(seen.rows), max_length)
    for name, (text, hint) in _TEXTS.items():
        if ids := seen.flagged(name):
            yield _finding(name, "advisory", ids, f"{counted(len(ids))} {text}", hint, *_actions(name))
    if 0 < seen.to_train < FEW:
        text, hint = f"only {counted(seen.to_train)} to train on", f"Fewer than {FEW} teach a model little."
        yield Finding("few_rows", "advisory", seen.to_train, text, hint, actions=(Action("add"),))
    if seen.unseen or seen.changed:
        text = f"{counted(seen.unseen)} nobody has looked at yet" if seen.unseen else "there are rows that nobody has"
        text += "" if seen.unseen else " compared with the others yet"
        hint = "Check them all; it takes about a minute for each 60 MB of text."
        yield Finding("unchecked", "advisory", seen.unseen, text, hint, actions=(Action("check"),))


def _actions(name: str) -> tuple[Action, ...]:
    show, reject = Action("show", name), Action("reject", name)
    if name in audit.ALIKE:
        return Action("groups", name), reject, show
    if name == "leak":
        return reject, Action("split", name), show
    return (show,) if name in ("too_short", "too_long") else (show, reject)


def _about_model(model: _Model, rows: int, max_length: int) -> Iterator[Finding]:
    if ids := model.refused:
        text = f"the model's chat template refuses {counted(len(ids))} ({model.refusal})"
        hint = "Edit or reject them, or choose another base model."
        yield _finding("template", "blocking", ids, text, hint, *_actions("template"))
    if ids := model.nothing_learnt:
        all_of_them = len(ids) + len(model.refused) == rows
        text = f"nothing is learnt from {counted(len(ids))}: no answer, or cut away at {max_length:,} tokens"
        hint = "Give them an answer, shorten the prompt, or raise the longest conversation (max_length)."
        kind = "blocking" if all_of_them else "advisory"
        yield _finding("nothing_learnt", kind, ids, text, hint, *_actions("nothing_learnt"))
    if ids := model.cut:
        enough = -(-model.longest // 64) * 64
        text = f"{counted(len(ids))} cut at {max_length:,} tokens; {model.lost:,} tokens of answers are not learnt"
        hint = f"Raise the longest conversation (max_length) to {enough:,}, or shorten them."
        raise_it = Action("max_length", "cut", enough)
        finding = _finding("cut", "advisory", ids, text, hint, raise_it, *_actions("cut"))
        yield replace(finding, knobs=(Knob("max_length", enough),))


def _finding(
    name: str, kind: Literal["blocking", "advisory"], ids: list[int], text: str, hint: str, *actions: Action
) -> Finding:
    return Finding(name, kind, len(ids), text, hint, tuple(ids[:ROWS]), actions)
