"""What will happen, before it does: what is wrong with the rows for this model, and what the run will take.

Torch-free: the page shows it before the button is live, `train --dry-run` prints it.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from statistics import fmean

from ..data import audit, quality
from ..data.freeze import FrozenRow
from ..data.quality import Finding, Knob
from ..data.store import Store
from ..errors import FTError
from ..machine import Machine, this_machine
from ..recipe import BUILTIN, Recipe, TrainRecipe
from ..render import IGNORED, Renderer
from ..workspace import Project
from . import hardware, methods, models
from . import rows as rows_
from .checkpoints import KEPT
from .estimate import Estimate, Shape, Work, estimate, measured_speed
from .hardware import Offer
from .plan import Plan

LOOK = quality.LOOK
"""New rows that a page can wait for."""
ROWS_MEASURED = 2000
"""Rows that the figures are of; those of a larger dataset are taken to be like them."""
ROWS_LOOKED_AT = 200
"""Rows that are counted for the figures where nobody has counted any."""
ENDINGS_LOOKED_AT = 20
"""Rows that are rendered to see whether the end of an answer is learnt."""
PASSES = 10
"""Passes over a small set of rows from which on a model learns them by heart."""
SMALL = 1000
"""Rows of a small set."""
LONG_S = 3600.0
"""A run that is worth a second thought."""
LARGE_USD = 10.0


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
        try:
            folder = models.tokenizer_folder(model.base, model.revision, project.workspace, project.path)
            renderer = Renderer.of(folder)
        except FTError as error:
            # The built-in model is made when it is needed: nothing is wrong then, only unknown.
            kind = "advisory" if model.base == BUILTIN else "blocking"
            missing = Finding("model", kind, 0, error.message, error.hint)
            findings = [missing, *_about_rows(store, None, 512, look), *_about_settings(wanted.train, this_machine())]
            return Preflight(_sorted(findings), None, rows, 0, Plan.of(rows, wanted.train).steps if rows else 0)
        findings = _about_rows(store, renderer, wanted.train.max_length, look)
        examples, rows = _examples(store, renderer, wanted, rows)
        if wanted.train.learns != "answers":
            findings = _without_answers(findings, wanted.train.learns)
            findings += _about_kind(store, wanted.train, rows)
        findings += _about_model(store, renderer, folder, wanted.train, examples)
    findings += _about_settings(wanted.train, this_machine())
    learnt = round(fmean(learnt for _, learnt in examples) * rows) if examples else 0
    if not (examples and rows):
        return Preflight(_sorted(findings), None, rows, 0, 0)
    plan = Plan.of(rows, wanted.train)
    findings += _about_passes(plan, rows, wanted.train)
    shape = Shape.of(folder)
    if shape is None:
        return Preflight(_sorted(findings), None, rows, learnt, plan.steps)
    work = _work(examples, rows, wanted)
    speed = measured_speed(project, wanted)
    machine = this_machine()

    def of(train: TrainRecipe, machine: Machine, speed: float | None = None) -> Estimate:
        return estimate(shape, train, machine, _cut(work, train), speed)

    needed = of(wanted.train, machine, speed)
    there = machine.gpu_memory_bytes or machine.memory_bytes
    offers = hardware.offers(lambda machine: of(wanted.train, machine), wanted.train.method)
    findings += _about_memory(wanted.train, needed, machine, lambda train: of(train, machine))
    findings += _about_disk(project, wanted, needed, shape)
    findings += _about_time(needed, offers)
    return Preflight(_sorted(findings), needed, rows, learnt, plan.steps, hardware.fits(needed, there), offers)


def _about_rows(store: Store, renderer: Renderer | None, max_length: int, look: int | None) -> list[Finding]:
    """The flags of rows stay those of the project's own limit: this is one of the ways to train that are weighed."""
    if look is None:
        for _ in audit.steps(store, renderer, max_length, shown=False):
            pass
    return list(quality.check(store, renderer, max_length, look or 0, shown=False).findings)


_OF_ANSWERS = {"text": ("template", "nothing_learnt", "empty", "cut"), "preferences": ("nothing_learnt",)}
"""What is wrong with rows only where their answers are learnt: by what is learnt instead."""


def _without_answers(findings: list[Finding], learns: str) -> list[Finding]:
    return [finding for finding in findings if finding.name not in _OF_ANSWERS[learns]]


def _about_kind(store: Store, train: TrainRecipe, rows: int) -> list[Finding]:
    """Whether there is anything of the kind that is to be learnt from."""
    if train.learns == "preferences" and not any(c.rejected for _, c, _ in store.conversations()):
        hint = "Vote under Compare, import rows with a worse answer, or learn from answers (learns)."
        text = "no row has a worse answer, and a preference is a better answer and a worse one"
        return [Finding("preferences", "blocking", 0, text, hint, knobs=(Knob("learns", "answers"),))]
    if not rows:
        text = f"there is nothing to learn from as {train.learns}"
        hint = "Give rows what it takes, or learn from answers (learns)."
        return [Finding(train.learns, "blocking", 0, text, hint, knobs=(Knob("learns", "answers"),))]
    return []


def _about_model(
    store: Store, renderer: Renderer, folder: Path, train: TrainRecipe, examples: list[tuple[int, int]]
) -> Iterator[Finding]:
    if renderer.plain and train.learns != "text":
        text = "the model brings no chat template, so a plain one is added (### Question: and ### Answer:)"
        hint = "It is saved with what is trained and exported; nothing is to do."
        yield Finding("plain_template", "advisory", 0, text, hint)
    longest = max((tokens for tokens, _ in examples), default=0)
    sees = _context(folder)
    if sees and longest > sees:
        text = f"the model sees {sees:,} tokens at once, and rows of up to {longest:,} are to be learnt"
        hint = f"Lower the longest conversation (max_length) to {sees:,}."
        yield Finding("context", "advisory", 0, text, hint, knobs=(Knob("max_length", sees),))
    if train.learns != "text" and (what := _endings(store, renderer)):
        yield Finding(
            "end_of_turn", "advisory", 0, what, "Choose a model whose template ends turns with such a token."
        )


def _context(folder: Path) -> int | None:
    """Tokens that the model sees at once, as its configuration has it."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        return int(config.get("text_config", config)["max_position_embeddings"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _endings(store: Store, renderer: Renderer) -> str:
    """That the token which ends an answer is never learnt, in words; '' when it is, or there is no row to see it."""
    special = {id for id, token in renderer.tokenizer.get_added_tokens_decoder().items() if token.special}
    special.add(renderer.end_id)
    ends = None
    for _, conversation, _ in islice(store.conversations(), ENDINGS_LOOKED_AT):
        try:
            example = renderer.example(conversation)
        except FTError:
            continue  # a finding of its own
        if not example.learnt:
            continue
        if special & set(example.labels) - {IGNORED}:
            return ""
        ends = False
    if ends is None:
        return ""
    return "the template puts no end-of-turn token behind an answer, so the model never learns where to stop"


def _about_settings(train: TrainRecipe, machine: Machine) -> Iterator[Finding]:
    if why := methods.why_not(train.method, machine):
        yield Finding("method", "blocking", 0, why, methods.WHAT_INSTEAD, knobs=(Knob("method", "lora"),))
    for text, hint in methods.advice(train):
        yield Finding("settings", "advisory", 0, text, hint, knobs=tuple(_remedies(train, text)))


def _remedies(train: TrainRecipe, advice: str) -> Iterator[Knob]:
    """Those settings after which this advice is given no more."""
    knobs = [Knob("learning_rate", methods.FULL_RATE), Knob("dropout", 0.0)]
    if methods.leaves_adapter(train.method):
        knobs.append(Knob("method", "rslora"))
    for knob in knobs:
        after = replace(train, **{knob.field: knob.value})
        if advice not in [text for text, _ in methods.advice(after)]:
            yield knob


def _about_passes(plan: Plan, rows: int, train: TrainRecipe) -> Iterator[Finding]:
    passes = plan.steps / plan.steps_an_epoch
    if rows >= SMALL or passes <= PASSES:
        return
    text = f"each of the {rows:,} rows is seen {passes:.0f} times; that learns them by heart (overfitting)"
    if train.steps:
        knob = Knob("steps", PASSES * plan.steps_an_epoch)
    else:
        knob = Knob("epochs", float(PASSES))
    hint = f"Lower {knob.field} to {knob.value:,.0f}, or add rows. The held-out loss shows from where on it harms."
    yield Finding("overfit", "advisory", rows, text, hint, knobs=(knob,))


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
    )


def _cut(work: Work, train: TrainRecipe) -> Work:
    """The same under a shorter limit; only what is in memory at once changes."""
    return replace(work, longest=min(work.longest, train.max_length), learnt=min(work.learnt, train.max_length))


def _about_memory(
    train: TrainRecipe, needed: Estimate, machine: Machine, of: Callable[[TrainRecipe], Estimate]
) -> Iterator[Finding]:
    there = machine.gpu_memory_bytes or machine.memory_bytes
    fit = hardware.fits(needed, there)
    if fit == "fits":
        return
    text = f"about {needed.memory_bytes / 2**30:.1f} GB of memory are wanted, and there are {there / 2**30:.1f} GB"
    knobs = tuple(_smaller(train, machine, lambda other: hardware.fits(of(other), there) == "fits"))
    if knobs:
        hint = f"It fits with {' or '.join(f'{knob.field} {_figure(knob.value)}' for knob in knobs)}."
    else:
        hint = "No setting makes it fit: take a smaller model, or a machine with more memory."
    yield Finding("memory", "advisory", 0, text + (", which is tight" if fit == "tight" else ""), hint, knobs=knobs)


def _figure(value: int | float | str) -> str:
    return value if isinstance(value, str) else f"{value:,}"


def _smaller(train: TrainRecipe, machine: Machine, fits: Callable[[TrainRecipe], bool]) -> Iterator[Knob]:
    """Each setting that alone makes it fit: the largest micro-batch, the largest limit, a method that wants less."""
    rows = min(train.micro_batch, train.batch_size)
    for fewer in range(rows - 1, 0, -1):
        if fits(replace(train, micro_batch=fewer)):
            yield Knob("micro_batch", fewer)
            break
    for length in range(train.max_length // 64 * 64, 31, -64):
        if length < train.max_length and fits(replace(train, max_length=length)):
            yield Knob("max_length", length)
            break
    for method in ("lora", "qlora"):
        other = replace(train, method=method)
        if method != train.method and not methods.why_not(method, machine) and fits(other):
            yield Knob("method", method)
            break


def _about_disk(project: Project, wanted: Recipe, needed: Estimate, shape: Shape) -> Iterator[Finding]:
    """Checkpoints, the best one apart and one more before the oldest goes; what is trained; a merged export."""
    checkpoints = (KEPT + 2) * needed.checkpoint_bytes
    trained = needed.checkpoint_bytes // 3
    merged = 2 * shape.parameters if any(to != "adapter" for to in wanted.export.to) else 0
    want = checkpoints + trained + merged
    free = shutil.disk_usage(project.path).free
    if want > free:
        text = (
            f"checkpoints and what is trained want {want / 2**20:,.0f} MB of disk, and {free / 2**20:,.0f} MB are free"
        )
        hint = "Make room, or train less of the model at once: a smaller adapter (rank), fewer layers."
        yield Finding("disk", "blocking", 0, text, hint)


def _about_time(needed: Estimate, offers: tuple[Offer, ...]) -> Iterator[Finding]:
    if needed.seconds <= LONG_S:
        return
    known = [offer for offer in offers if offer.fit == "fits" and not offer.why_not and offer.usd is not None]
    quicker = [offer for offer in known if offer.seconds < needed.seconds / 2]
    best = min(quicker, key=lambda offer: (offer.usd, offer.seconds), default=None)
    hint = "Lower epochs or steps, or take a smaller model."
    if best:
        hint += f" Hugging Face's {best.hardware.title} does it in about {_hours(best.seconds)}, for ${best.usd:.2f}."
    yield Finding("time", "advisory", 0, f"it takes about {_hours(needed.seconds)} on this machine", hint)
    cheapest = min(known, key=lambda offer: offer.usd, default=None)
    if cheapest and cheapest.usd > LARGE_USD:
        text = f"on rented machines it costs ${cheapest.usd:,.0f} at least ({cheapest.hardware.title})"
        yield Finding("price", "advisory", 0, text, "Try a few steps on a smaller model first.")


def _hours(seconds: float) -> str:
    minutes = max(1, round(seconds / 60))
    return f"{minutes} minutes" if minutes < 100 else f"{seconds / 3600:,.0f} hours"


def _sorted(findings: list[Finding]) -> tuple[Finding, ...]:
    return tuple(sorted(findings, key=lambda finding: finding.kind != "blocking"))
