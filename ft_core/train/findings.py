"""What there is to say of a training before it runs: each finding with its reason and its remedy. Torch-free."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

from ..data import audit, quality
from ..data.quality import Finding, Knob
from ..data.store import Store
from ..errors import FTError
from ..machine import Machine, this_machine
from ..recipe import ComputeRecipe, Recipe, TrainRecipe
from ..render import IGNORED, Renderer
from ..workspace import Project
from . import compute, further, hardware, methods, processes
from .checkpoints import KEPT
from .estimate import Estimate
from .hardware import Offer
from .plan import Plan
from .sizes import Shape

ENDINGS_LOOKED_AT = 20
"""Rows that are rendered to see whether the end of an answer is learnt."""
PASSES = 10
"""Passes over a small set of rows from which on a model learns them by heart."""
SMALL = 1000
"""Rows of a small set."""
LONG_S = 3600.0
"""A run that is worth a second thought."""
LARGE_USD = 10.0


def about_origin(project: Project, wanted: Recipe) -> tuple[Recipe, list[Finding]]:
    """What the training would go on from, and the recipe as that makes it."""
    try:
        settled, origin = further.planned(project, wanted, project.path, whole=False)
    except FTError as error:
        return wanted, [Finding("adapter", "blocking", 0, error.message, error.hint)]
    if origin is None:
        return wanted, []
    return settled, [Finding("adapter", "advisory", 0, further.said(wanted, settled, origin), "")]


def about_rows(store: Store, renderer: Renderer | None, max_length: int, look: int | None) -> list[Finding]:
    """The flags of rows stay those of the project's own limit: this is one of the ways to train that are weighed."""
    if look is None:
        for _ in audit.steps(store, renderer, max_length, shown=False):
            pass
    return list(quality.check(store, renderer, max_length, look or 0, shown=False).findings)


_OF_ANSWERS = {"text": ("template", "nothing_learnt", "empty", "cut"), "preferences": ("nothing_learnt",)}
"""What is wrong with rows only where their answers are learnt: by what is learnt instead."""


def without_answers(findings: list[Finding], learns: str) -> list[Finding]:
    return [finding for finding in findings if finding.name not in _OF_ANSWERS[learns]]


def about_kind(store: Store, train: TrainRecipe, rows: int) -> list[Finding]:
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


def about_model(
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


def about_machine(wanted: Recipe) -> tuple[Machine, list[Finding]]:
    """The machine it would train on, and why it cannot there."""
    try:
        machine = compute.machine(wanted.compute)
    except FTError as error:
        return this_machine(), [Finding("hardware", "blocking", 0, error.message, error.hint)]
    try:
        compute.require(wanted)
    except FTError as error:
        knobs = (Knob("method", "lora"),) if wanted.train.method in methods.QUANTIZED else ()
        return machine, [Finding("method", "blocking", 0, error.message, error.hint, knobs=knobs)]
    return machine, [Finding("processes", "advisory", 0, *words) for words in processes.advice(wanted, machine)]


def about_rent(rented: ComputeRecipe, offers: tuple[Offer, ...]) -> Iterator[Finding]:
    """What the rented machine takes and costs."""
    offer = next((offer for offer in offers if offer.hardware.name == rented.hardware), None)
    if offer is None:
        return
    price = f"${offer.hardware.job_usd:.2f} an hour"
    text = f"it trains on a rented {offer.hardware.title} ({price}), ${compute.most_usd(rented):.2f} at most"
    if offer.seconds is not None:
        usd = offer.seconds / 3600 * offer.hardware.job_usd
        text += f": about {_hours(offer.seconds)} and ${usd:.2f}, and some minutes more to install"
    yield Finding("rented", "advisory", 0, text, "What is rented is billed by the minute, to your own account.")
    if offer.seconds is not None and offer.seconds > 3600 * rented.hours:
        text = f"it takes about {_hours(offer.seconds)} there, and is ended after {rented.hours:g} hours"
        yield Finding("time", "advisory", 0, text, "Raise hours, or rent a faster machine.")


def about_settings(train: TrainRecipe) -> Iterator[Finding]:
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


def about_passes(plan: Plan, rows: int, train: TrainRecipe) -> Iterator[Finding]:
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


def about_memory(
    wanted: Recipe, needed: Estimate, machine: Machine, of: Callable[[Recipe], Estimate]
) -> Iterator[Finding]:
    """Of one process: `needed` and `of` are what it wants, and `machine` has the memory that it may take."""
    there = machine.gpu_memory_bytes or machine.memory_bytes
    many = wanted.compute.processes
    fit = hardware.fits(needed, there)
    if fit == "fits":
        return
    by, of_each = (f" by each of {many} processes", " for each") if many > 1 else ("", "")
    wants, has = needed.memory_bytes / 2**30, there / 2**30
    text = f"about {wants:.1f} GB of memory are wanted{by}, and there are {has:.1f} GB{of_each}"
    knobs = tuple(_smaller(wanted, machine, lambda other: hardware.fits(of(other), there) == "fits"))
    if knobs:
        hint = f"It fits with {' or '.join(f'{knob.field} {_figure(knob.value)}' for knob in knobs)}."
    else:
        hint = "No setting makes it fit: take a smaller model, or a machine with more memory."
    if many > 1 and not machine.gpu:
        hint += " Fewer processes (compute) want less in all."
    yield Finding("memory", "advisory", 0, text + (", which is tight" if fit == "tight" else ""), hint, knobs=knobs)


def _figure(value: int | float | str) -> str:
    return value if isinstance(value, str) else f"{value:,}"


def _smaller(wanted: Recipe, machine: Machine, fits: Callable[[Recipe], bool]) -> Iterator[Knob]:
    """Each setting that alone makes it fit: weights shared out among the GPUs that train, the largest micro-batch, the
    largest limit, a method that wants less.
    """

    def fits_with(**settings: int | str) -> bool:
        return fits(replace(wanted, train=replace(wanted.train, **settings)))

    train = wanted.train
    shared = replace(wanted, compute=replace(wanted.compute, strategy="fsdp"))
    if machine.gpu and shared != wanted and not processes.why_not(shared, machine) and fits(shared):
        yield Knob("strategy", "fsdp")
    rows = min(train.micro_batch, train.batch_size)
    for fewer in range(rows - 1, 0, -1):
        if fits_with(micro_batch=fewer):
            yield Knob("micro_batch", fewer)
            break
    for length in range(train.max_length // 64 * 64, 31, -64):
        if length < train.max_length and fits_with(max_length=length):
            yield Knob("max_length", length)
            break
    for method in ("lora", "qlora"):
        if method != train.method and not methods.why_not(method, machine) and fits_with(method=method):
            yield Knob("method", method)
            break


def about_disk(project: Project, wanted: Recipe, needed: Estimate, shape: Shape) -> Iterator[Finding]:
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


def about_time(needed: Estimate, offers: tuple[Offer, ...]) -> Iterator[Finding]:
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
    minutes = round(seconds / 60)
    if minutes < 2:
        return "a minute"
    return f"{minutes} minutes" if minutes < 100 else f"{seconds / 3600:,.0f} hours"
