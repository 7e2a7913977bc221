"""What will happen, before it does: what is wrong with the rows for this model, and what the run will take.

Torch-free: the page shows it before the button is live, `train --dry-run` prints it.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from itertools import islice
from statistics import fmean

from ..data import audit, quality
from ..data.quality import Finding
from ..data.store import Store
from ..errors import FTError
from ..machine import this_machine
from ..recipe import BUILTIN, Recipe
from ..render import Renderer
from ..workspace import Project
from . import models
from .checkpoints import KEPT
from .estimate import Estimate, Shape, Work, estimate, measured_speed
from .plan import Plan

LOOK = quality.LOOK
"""New rows that a page can wait for."""
ROWS_MEASURED = 2000
"""Rows that the figures are of; those of a larger dataset are taken to be like them."""
ROWS_LOOKED_AT = 200
"""Rows that are counted for the figures where nobody has counted any."""


@dataclass(frozen=True)
class Preflight:
    """What the page shows above its button."""

    findings: tuple[Finding, ...]
    """Blocking ones first."""
    estimate: Estimate | None
    """None while the base model's tokenizer and configuration are not there."""
    rows: int
    """Rows to train on."""
    learnt_tokens: int
    """Tokens that teach something, in one epoch."""
    steps: int

    @property
    def ready(self) -> bool:
        return not any(finding.kind == "blocking" for finding in self.findings)


def preflight(project: Project, wanted: Recipe, look: int | None = None) -> Preflight:
    """Looks at the project's rows as `wanted` would train them; its paths are relative to the project's folder.

    Of more than `look` rows that nobody has looked at yet only the first are, for their tokens, and a finding says so.
    """
    model = wanted.model
    with Store(project.data) as store:
        rows = _rows_to_train(store, wanted)
        steps = Plan.of(rows, wanted.train).steps if rows else 0
        try:
            folder = models.tokenizer_folder(model.base, model.revision, project.workspace, project.path)
            renderer = Renderer.of(folder)
        except FTError as error:
            # The built-in model is made when it is needed: nothing is wrong then, only unknown.
            kind = "advisory" if model.base == BUILTIN else "blocking"
            missing = Finding("model", kind, 0, error.message, error.hint)
            return Preflight(_sorted([missing, *_findings(store, None, 512, look)]), None, rows, 0, steps)
        findings = _findings(store, renderer, wanted.train.max_length, look)
        examples = _examples(store, renderer, wanted.train.max_length)
    learnt = round(fmean(learnt for _, learnt in examples) * rows) if examples else 0
    needed = None
    if examples and rows and (shape := Shape.of(folder)):
        needed = _estimate(project, wanted, shape, [tokens for tokens, _ in examples], rows)
        findings += _about_machine(project, needed)
    return Preflight(_sorted(findings), needed, rows, learnt, steps)


def _findings(store: Store, renderer: Renderer | None, max_length: int, look: int | None) -> list[Finding]:
    """The flags of rows stay those of the project's own limit: this is one of the ways to train that are weighed."""
    if look is None:
        for _ in audit.steps(store, renderer, max_length, shown=False):
            pass
    return list(quality.check(store, renderer, max_length, look or 0, shown=False).findings)


def _rows_to_train(store: Store, wanted: Recipe) -> int:
    """Rows without a place yet are shared out when the job starts; until then, as many as will be."""
    counts = store.counts()
    without = counts.rows - counts.train - counts.heldout
    return counts.train + round(without * (1 - wanted.data.heldout))


def _examples(store: Store, renderer: Renderer, max_length: int) -> list[tuple[int, int]]:
    """(tokens, learnt ones) of the first rows that can be trained on, as they are cut."""
    if audit.lacking(store, renderer).counted:  # the audit's own look would load what it knows of languages
        return _tokenised(store, renderer, max_length)
    found = ((min(c.tokens, max_length), c.learnt(max_length)) for c in audit.counts(store, ROWS_MEASURED))
    return [(tokens, learnt) for tokens, learnt in found if learnt]


def _tokenised(store: Store, renderer: Renderer, max_length: int) -> list[tuple[int, int]]:
    """The same of the first ROWS_LOOKED_AT rows, without the audit."""
    found = []
    for _, conversation, _ in islice(store.conversations(), ROWS_LOOKED_AT):
        try:
            example = renderer.example(conversation, max_length)
        except FTError:
            continue  # a finding once somebody has looked at it
        if example.learnt:
            found.append((len(example.ids), example.learnt))
    return found


def _estimate(project: Project, wanted: Recipe, shape: Shape, lengths: list[int], rows: int) -> Estimate:
    tokens = fmean(lengths) * rows
    share = wanted.data.heldout
    work = Work(
        rows=rows,
        tokens=round(tokens),
        heldout_tokens=round(tokens * share / (1 - share)),
        longest=max(lengths),
    )
    return estimate(shape, wanted.train, this_machine(), work, measured_speed(project, wanted.model.base))


def _about_machine(project: Project, needed: Estimate) -> list[Finding]:
    findings = []
    machine = this_machine()
    there = machine.gpu_memory_bytes or machine.memory_bytes
    if needed.memory_bytes > there:
        text = f"about {needed.memory_bytes / 2**30:.0f} GB of memory are wanted, and there are {there / 2**30:.0f} GB"
        hint = "Lower the rows in memory at once (micro_batch) or the longest conversation, or take a smaller model."
        findings.append(Finding("memory", "advisory", 0, text, hint))
    # Of an adapter's 16 bytes a parameter a checkpoint holds 12; one more is written before the oldest goes.
    wanted = (KEPT + 1) * needed.parts["adapters and optimizer"] * 12 // 16
    free = shutil.disk_usage(project.path).free
    if wanted > free:
        text = f"checkpoints want {wanted / 2**20:.0f} MB of disk, and {free / 2**20:.0f} MB are free"
        findings.append(Finding("disk", "blocking", 0, text, "Make room, or lower how much the adapter holds (rank)."))
    return findings


def _sorted(findings: list[Finding]) -> tuple[Finding, ...]:
    return tuple(sorted(findings, key=lambda finding: finding.kind != "blocking"))
