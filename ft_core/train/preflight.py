"""What will happen, before it does: what is wrong with the rows for this model, and what the run will take.

Torch-free: the page shows it before the button is live, `train --dry-run` prints it.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import islice

from ..data import quality
from ..data.quality import Finding
from ..data.store import Store
from ..errors import FTError
from ..machine import this_machine
from ..recipe import BUILTIN, Recipe
from ..render import Rendered, Renderer
from ..workspace import Project
from . import models
from .checkpoints import KEPT
from .estimate import Estimate, Shape, Work, estimate, measured_speed
from .plan import Plan

ROWS_RENDERED = 2000
"""Rows that are looked at token by token; of a larger dataset the rest is taken to be like them."""
CHECKPOINT_BYTES_A_PARAMETER = 12
"""Of each trained parameter on disk: its fp32 value and the optimizer's two."""


@dataclass(frozen=True)
class Preflight:
    """What the page shows above its button."""

    findings: tuple[Finding, ...]
    """Blocking ones first."""
    estimate: Estimate | None
    """None while the base model's configuration is not there."""
    rows: int
    """Rows to train on."""
    learnt_tokens: int
    """Tokens that teach something, in one epoch."""
    steps: int

    @property
    def ready(self) -> bool:
        return not any(finding.kind == "blocking" for finding in self.findings)


def preflight(project: Project, wanted: Recipe) -> Preflight:
    """Looks at the project's rows as `wanted` would train them; its paths are relative to the project's folder."""
    with Store(project.data) as store:
        try:
            folder = models.tokenizer_folder(wanted.model.base, wanted.model.revision, project.workspace, project.path)
            renderer = Renderer.of(folder)
        except FTError as error:
            # The built-in model is made when it is needed: nothing is wrong, only unknown.
            kind = "advisory" if wanted.model.base == BUILTIN else "blocking"
            missing = Finding("model", kind, 0, error.message, error.hint, ())
            rows = _rows_to_train(store, wanted)
            findings = [missing, *quality.check(store).findings, *([] if rows else [_NO_ROWS])]
            return _preflight(wanted, rows, findings)
        look = _look(store, renderer, wanted)
        findings = [*quality.check(store, renderer, wanted.train.max_length).findings, *look.findings]
        rows = _rows_to_train(store, wanted)
    if not rows:
        findings.append(_NO_ROWS)
    needed = None
    if look.examples and (shape := Shape.of(folder)):
        needed = _estimate(project, wanted, shape, look, rows)
        findings += _about_machine(project, wanted, shape, needed)
    return _preflight(wanted, rows, findings, round(look.mean(lambda e: e.learnt) * rows), needed)


_NO_ROWS = Finding("rows", "blocking", 0, "There are no rows to train on.", "Import or generate rows.", ())


@dataclass(frozen=True)
class _Look:
    """The rows as this model sees them, as far as they were looked at."""

    examples: tuple[Rendered, ...]
    findings: tuple[Finding, ...]

    def mean(self, of: Callable[[Rendered], int]) -> float:
        return sum(map(of, self.examples)) / len(self.examples) if self.examples else 0.0


def _look(store: Store, renderer: Renderer, wanted: Recipe) -> _Look:
    limit = wanted.train.max_length
    examples: list[Rendered] = []
    refused: dict[int, str] = {}
    cut: dict[int, int] = {}
    empty: list[int] = []
    for id, conversation, _ in islice(store.conversations(), ROWS_RENDERED):
        try:
            example = renderer.example(conversation, limit)
        except FTError as error:
            refused[id] = error.message
            continue
        examples.append(example)
        if example.cut:
            cut[id] = len(example.ids) + example.cut
        if not example.learnt:
            empty.append(id)
    findings = []
    if refused:
        text = f"{len(refused)} rows are refused by the model's chat template: {next(iter(refused.values()))}."
        findings.append(_finding("template", refused, text, "Edit these rows, or choose another base model."))
    if empty:
        text = f"{len(empty)} rows teach nothing: no token of an answer is left within {limit} tokens."
        findings.append(_finding("learns nothing", empty, text, "Raise max_length, or give these rows an answer."))
    if cut:
        text = f"{len(cut)} rows are cut at {limit} tokens."
        findings.append(_finding("cut", cut, text, f"A max_length of {max(cut.values())} cuts none."))
    usable = [e for e in examples if e.learnt]
    if (refused or empty) and not usable:
        hint = "See the findings above."
        findings.append(Finding("unusable", "blocking", len(examples), "No row can be trained on.", hint, ()))
    return _Look(tuple(usable), tuple(findings))


def _finding(name: str, rows: Iterable[int], text: str, hint: str) -> Finding:
    """These rows are left out or shortened by the trainer, which says so too: the run itself is sound."""
    ids = tuple(rows)
    return Finding(name, "advisory", len(ids), text, hint, ids)


def _rows_to_train(store: Store, wanted: Recipe) -> int:
    """Rows without a place yet are shared out when the job starts; until then this is as many as will be."""
    stats = store.counts()
    placed = stats.train + stats.heldout
    return stats.train + round((stats.rows - placed) * (1 - wanted.data.heldout))


def _estimate(project: Project, wanted: Recipe, shape: Shape, look: _Look, rows: int) -> Estimate:
    length = look.mean(lambda e: len(e.ids))
    share = wanted.data.heldout
    work = Work(
        rows=rows,
        tokens=round(length * rows),
        heldout_tokens=round(length * rows * share / (1 - share)),
        longest=max(len(e.ids) for e in look.examples),
    )
    return estimate(shape, wanted.train, this_machine(), work, measured_speed(project, wanted.model.base))


def _about_machine(project: Project, wanted: Recipe, shape: Shape, needed: Estimate) -> list[Finding]:
    findings = []
    machine = this_machine()
    there = machine.gpu_memory_bytes or machine.memory_bytes
    if needed.memory_bytes > there:
        text = f"It wants about {needed.memory_bytes / 2**30:.0f} GB of memory, and there are {there / 2**30:.0f} GB."
        hint = "Lower micro_batch or max_length, or choose a smaller model."
        findings.append(Finding("memory", "advisory", 0, text, hint, ()))
    free = shutil.disk_usage(project.path).free
    wanted_bytes = (KEPT + 1) * CHECKPOINT_BYTES_A_PARAMETER * needed.parts["adapters and optimizer"] // 16
    if wanted_bytes > free:
        text = f"Checkpoints want {wanted_bytes / 2**20:.0f} MB, and {free / 2**20:.0f} MB are free on the disk."
        findings.append(Finding("disk", "blocking", 0, text, "Make room, or lower the rank.", ()))
    return findings


def _preflight(
    wanted: Recipe, rows: int, findings: list[Finding], learnt: int = 0, needed: Estimate | None = None
) -> Preflight:
    ordered = tuple(sorted(findings, key=lambda finding: finding.kind != "blocking"))
    return Preflight(ordered, needed, rows, learnt, Plan.of(rows, wanted.train).steps if rows else 0)
