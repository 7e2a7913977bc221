"""What will happen, before it does: what is wrong with the rows for this model, and what the run will take.

Torch-free: the page shows it before the button is live, `train --dry-run` prints it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from statistics import fmean, pstdev

from ..data import audit, quality
from ..data.freeze import FrozenRow
from ..data.quality import Finding
from ..data.store import Store
from ..errors import FTError
from ..machine import Machine, this_machine
from ..recipe import BUILTIN, ModelRecipe, Recipe, TrainRecipe
from ..render import Renderer
from ..workspace import Project
from . import access, compute, download, findings, hardware, models, processes
from . import rows as rows_
from .estimate import Estimate, estimate, measured_speed
from .hardware import Offer, Place
from .memory import memory
from .plan import Plan, of_one
from .sizes import Shape, Work

LOOK = quality.LOOK
"""New rows that a page can wait for."""
ROWS_MEASURED = 2000
"""Rows that the figures are of; those of a larger dataset are taken to be like them."""
ROWS_LOOKED_AT = 200
"""Rows that are counted for the figures where nobody has counted any."""

ROWS_COMPARED = 20
"""Of ROWS_LOOKED_AT, how many are held against one another for what they begin with."""


@dataclass(frozen=True)
class Preflight:
    """What the page shows above its button."""

    findings: tuple[Finding, ...]
    """Blocking ones first."""
    estimate: Estimate | None
    """None while the base model's tokenizer and configuration are not there."""
    rows: int
    """Rows to train on: conversations, pairs of answers, or blocks of text, as the recipe learns."""
    learnt_tokens: int
    """Tokens that teach something, in one epoch."""
    steps: int
    fit: hardware.Fit | None = None
    """Whether it goes into this machine's memory; None without an estimate."""
    offers: tuple[Offer, ...] = ()
    """What the same run would be on machines that can be rented; none without an estimate."""
    places: tuple[Place, ...] = ()
    """Where it would fit by other methods too; none without an estimate."""

    @property
    def ready(self) -> bool:
        return not any(finding.kind == "blocking" for finding in self.findings)


def preflight(project: Project, wanted: Recipe, look: int | None = None, token: str | None = "") -> Preflight:
    """Looks at the project's rows as `wanted` would train them; its paths are relative to the project's folder.

    The Hub is asked for a base of its own, with the person's `token` where there is one; None is one that is not known
    yet, so that a gated model may still be handed out when the training starts.
    Of more than `look` rows that nobody has looked at yet only the first are, for their tokens, and a finding says so.
    """
    wanted, about_origin = findings.about_origin(project, wanted)
    machine, about_machine = findings.about_machine(wanted)
    found = [*about_machine, *findings.about_settings(wanted.train), *about_origin]
    model, train = wanted.model, wanted.train
    with Store(project.data) as store:
        rows = _rows_to_train(store, wanted)
        try:
            folder, about_hub = _base(project, model, token or "")
            renderer = Renderer.of(folder)
        except FTError as error:
            # The built-in model is made when it is needed: nothing is wrong then, only unknown.
            asked_later = token is None and isinstance(error, download.Gated)
            kind = "advisory" if model.base == BUILTIN or asked_later else "blocking"
            missing = Finding("model", kind, 0, error.message, error.hint)
            found = [missing, *findings.about_rows(store, None, 512, look), *found]
            return Preflight(_sorted(found), None, rows, 0, Plan.of(rows, train).steps if rows else 0)
        about_rows = findings.about_rows(store, renderer, train.max_length, look)
        examples, rows = _examples(store, renderer, wanted, rows)
        if train.learns != "answers":
            about_rows = findings.without_answers(about_rows, train.learns)
            about_rows += findings.about_kind(store, train, rows)
        about_rows += findings.about_model(store, renderer, folder, train, examples)
    found = [*about_rows, *found, *about_hub]
    if not (examples and rows):
        return Preflight(_sorted(found), None, rows, 0, 0)
    plan = Plan.of(rows, train)
    found += findings.about_passes(plan, rows, train)
    learnt = round(fmean(learnt for _, learnt in examples) * rows)
    seen = Preflight(_sorted(found), None, rows, learnt, plan.steps)
    shape = Shape.of(folder)
    if not shape:
        return seen
    work = replace(_work(examples, rows, wanted), **_alike(store, renderer, train))
    return _with_estimate(seen, project, wanted, shape, work)


def _with_estimate(seen: Preflight, project: Project, wanted: Recipe, shape: Shape, work: Work) -> Preflight:
    """`seen` with what the training takes where the recipe wants it, and on other machines, and what that leads to."""
    many = wanted.compute.processes
    machine = processes.share(findings.about_machine(wanted)[0], many)
    rented = compute.is_rented(wanted.compute)
    speed = None if rented else measured_speed(project, wanted, project.path)

    def of(wanted: Recipe, machine: Machine, speed: float | None = None) -> Estimate:
        shares = processes.shares(wanted.compute, wanted.train.method)
        return estimate(shape, of_one(wanted.train, many), machine, _cut(work, wanted.train), speed, shares)

    needed = of(wanted, machine, speed)
    offers = hardware.offers(lambda machine: of(wanted, machine), wanted.train.method)
    found = [
        *seen.findings,
        *findings.about_memory(wanted, needed, machine, lambda wanted: of(wanted, machine)),
        *findings.about_disk(project, wanted, needed, shape),
        *(findings.about_rent(wanted.compute, offers) if rented else findings.about_time(needed, offers)),
    ]
    places = hardware.places(
        lambda method, machine: _wanted(shape, work, wanted, method, machine),
        processes.share(this_machine(), many),
    )
    fit = hardware.fits(needed, machine.gpu_memory_bytes or machine.memory_bytes)
    return replace(seen, findings=_sorted(found), estimate=needed, fit=fit, offers=offers, places=places)


def _wanted(shape: Shape, work: Work, wanted: Recipe, method: str, machine: Machine) -> int:
    """Bytes of memory that the training wants by another method."""
    train = replace(of_one(wanted.train, wanted.compute.processes), method=method)
    return sum(memory(shape, train, machine, _cut(work, train), processes.shares(wanted.compute, method)).values())


def _base(project: Project, model: ModelRecipe, token: str) -> tuple[Path, list[Finding]]:
    """The folder with its tokenizer. Raises FTError when there is no such model, or it may not be had."""
    answer = access.of(model, project.path, token)
    if answer.refusal:
        raise answer.refusal
    if not answer.reached and (folder := download.here(model.base, model.revision)):
        text = f"the Hugging Face Hub cannot be reached; {model.base} is taken as it is on this machine"
        return folder, [Finding("hub", "advisory", 0, text, "Nothing is to do, unless it has changed there since.")]
    return models.tokenizer_folder(model.base, model.revision, project.workspace, project.path, token), []


def _rows_to_train(store: Store, wanted: Recipe) -> int:
    """Rows without a place yet are shared out when the job starts; until then, as many as will be."""
    counts = store.counts()
    without = counts.rows - counts.train - counts.heldout
    return counts.train + round(without * (1 - wanted.data.heldout))


def _examples(store: Store, renderer: Renderer, wanted: Recipe, rows: int) -> tuple[list[tuple[int, int]], int]:
    """(tokens, learnt ones) of the first rows that can be trained on, as they are cut, and how many there are in all.

    Of a pair the tokens are those of its longer answer.
    """
    train = wanted.train
    if train.learns != "answers":
        return _of_kind(store, renderer, train, rows)
    if audit.lacking(store, renderer).counted:  # the audit's own look would load what it knows of languages
        return _tokenised(store, renderer, train.max_length), rows
    counts = audit.counts(store, ROWS_MEASURED)
    found = ((min(c.tokens, train.max_length), c.learnt(train.max_length)) for c in counts)
    return [(tokens, learnt) for tokens, learnt in found if learnt], rows


def _of_kind(store: Store, renderer: Renderer, train: TrainRecipe, rows: int) -> tuple[list[tuple[int, int]], int]:
    """The same of pairs, or of blocks of text, made of the first rows."""
    taken = [FrozenRow(id, c, "train") for id, c, _ in islice(store.conversations(), ROWS_MEASURED)]
    try:
        side = rows_.side(taken, renderer, train, [])
    except FTError:
        return [], 0  # a model without an end of text; said as a finding
    share = len(side.rows) / max(1, len(taken))
    pairs = zip(side.rows, side.worse or side.rows)
    found = [max((len(r.ids), r.learnt) for r in pair) for pair in pairs]
    return found, round(rows * share)


def _tokenised(store: Store, renderer: Renderer, max_length: int) -> list[tuple[int, int]]:
    """Of the first ROWS_LOOKED_AT rows, without the audit."""
    found = []
    for _, conversation, _ in islice(store.conversations(), ROWS_LOOKED_AT):
        try:
            example = renderer.example(conversation, max_length)
        except FTError:
            continue  # a finding once somebody has looked at it
        if example.learnt:
            found.append((len(example.ids), example.learnt))
    return found


def _work(examples: list[tuple[int, int]], rows: int, wanted: Recipe) -> Work:
    tokens = fmean(tokens for tokens, _ in examples) * rows * (2 if wanted.train.learns == "preferences" else 1)
    share = wanted.data.heldout
    return Work(
        rows=rows,
        tokens=round(tokens),
        heldout_tokens=round(tokens * share / (1 - share)),
        longest=max(tokens for tokens, _ in examples),
        learnt=max(learnt for _, learnt in examples),
        spread=round(pstdev(tokens for tokens, _ in examples)),
    )


def _alike(store: Store, renderer: Renderer, train: TrainRecipe) -> dict[str, int]:
    """What rows begin with alike, as Work has it, by some of the first ones."""
    some = islice(store.conversations(), 0, ROWS_LOOKED_AT, ROWS_LOOKED_AT // ROWS_COMPARED)
    side = rows_.side([FrozenRow(id, c, "train") for id, c, _ in some], renderer, train, [])
    shared, asked = rows_.alike(side.rows, side.worse)
    return {"shared": shared, "asked": asked}


def _cut(work: Work, train: TrainRecipe) -> Work:
    """The same under a shorter limit; only what is in memory at once changes."""
    longest, learnt, shared, asked = (
        min(tokens, train.max_length) for tokens in (work.longest, work.learnt, work.shared, work.asked)
    )
    return replace(work, longest=longest, learnt=learnt, shared=shared, asked=asked)


def _sorted(findings: list[Finding]) -> tuple[Finding, ...]:
    return tuple(sorted(findings, key=lambda finding: finding.kind != "blocking"))
