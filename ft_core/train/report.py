"""The report of a training: a page of Markdown from its events and its recipe, for people and for later."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

from .. import events, recipe
from ..data.freeze import Frozen, frozen
from ..events import Event, JobView, State
from ..recipe import ModelRecipe, Recipe
from ..workspace import Job, write_whole
from . import further
from .base import public_name

NAME = "report.md"


def write(job: Job, last: Event) -> None:
    """Writes <job>/report/report.md; `last` is the event that ends the training and is not in its file yet."""
    view = events.fold([*events.read(job.events)[0], last])
    wanted = recipe.load(job.recipe)
    folder = job.path / "report"
    folder.mkdir(exist_ok=True)
    wanted = replace(wanted, model=replace(wanted.model, adapter=further.name_of(job)))
    text = written(view, wanted, frozen(job.dataset), public_name(wanted.model.base, job.path))
    write_whole(folder / NAME, text)


def written(view: JobView, wanted: Recipe, rows: Frozen, base: str) -> str:
    """Markdown, without a path of this machine. `base` is what the outside may know of the base model."""
    result = view.result
    how = "stopped by hand" if view.state is State.STOPPED else "finished"
    kept = result.get("kept_step")
    of_all = f"{how} after {result['steps']} of {view.total} steps"
    parts = [
        f"# Training {result['job']}\n",
        f"{base}, {of_all}." + (f" Kept is step {kept}." if kept else " Nothing is kept."),
        "## Rows\n",
        f"{rows.train} to train, {rows.heldout} held out; fingerprint `{rows.fingerprint}`.",
        "## Result\n",
        _table(("what", "figure"), _figures(result)),
        "## Held-out loss on the way\n",
        _table(("step", "nats a learnt token"), _curve(view)) or "Nothing was held out.",
        "## Recipe\n",
        "What differs from the defaults:\n",
        _table(("field", "value", "default"), _differences(wanted, base)) or "Nothing.",
        "## Notes\n",
        "\n".join(f"- {note.text}" for note in view.notes) or "None.",
        "## Answers before and after\n",
        _answers(view, kept) or "None.",
    ]
    return "\n\n".join(part.rstrip("\n") for part in parts) + "\n"


def _figures(result: dict[str, Any]) -> list[tuple[str, str]]:
    """Those that were measured, in words of the field with their units."""
    shown = {
        "heldout_before": ("held-out loss before, nats a learnt token", "{:.4f}", 1),
        "heldout_start": ("held-out loss of what it went on from", "{:.4f}", 1),
        "heldout_after": ("held-out loss after", "{:.4f}", 1),
        "best_step": ("best step by held-out loss", "{}", 1),
        "kept_step": ("kept step", "{}", 1),
        "tokens_per_s": ("speed, input tokens a second without padding", "{:.0f}", 1),
        "tokens": ("input tokens learnt from, without padding", "{}", 1),
        "flops": ("floating-point operations, about", "{:.1e}", 1),
        "seconds": ("time in training steps, seconds", "{:.0f}", 1),
        "peak_memory_bytes": ("peak memory, GB", "{:.2f}", 1e9),
    }
    return [
        (words, form.format(result[key] if unit == 1 else result[key] / unit))
        for key, (words, form, unit) in shown.items()
        if result.get(key) is not None
    ]


def _curve(view: JobView) -> list[tuple[str, str]]:
    return [
        (str(step), f"{values['heldout_loss']:.4f}")
        for step, values in sorted(view.metrics.items())
        if "heldout_loss" in values
    ]


def _differences(wanted: Recipe, base: str) -> list[tuple[str, str, str]]:
    found = []
    for section in fields(wanted):
        ours, default = getattr(wanted, section.name), getattr(Recipe(), section.name)
        for knob in fields(ours):
            value, usual = getattr(ours, knob.name), getattr(default, knob.name)
            if value != usual:
                # Of a folder the recipe has the way to it, which is nobody's business.
                shown = base if isinstance(ours, ModelRecipe) and knob.name == "base" else value
                found.append((f"{section.name}.{knob.name}", str(shown), str(usual)))
    return found


def _answers(view: JobView, kept: int | None) -> str:
    """Of each prompt the first answer, and that of the kept step or of the last look before it."""
    parts = []
    for prompt in dict.fromkeys(sample.prompt for sample in view.samples):
        of_prompt = sorted((s for s in view.samples if s.prompt == prompt), key=lambda s: s.step)
        shown = [s for s in of_prompt if s.step == 0] + [s for s in of_prompt if 0 < s.step <= (kept or 0)][-1:]
        answers = "\n\n".join(f"Step {sample.step}:\n\n{_quoted(sample.answer)}" for sample in shown)
        parts.append(f"**{' '.join(prompt.split())}**\n\n{answers}")
    return "\n\n".join(parts)


def _quoted(text: str) -> str:
    return "\n".join(f"> {line}" for line in text.splitlines() or [""])


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """'' without rows."""
    if not rows:
        return ""
    cells = [
        [cell.replace("|", r"\|").replace("\n", " ") for cell in row] for row in (head, ("---",) * len(head), *rows)
    ]
    return "\n".join(f"| {' | '.join(row)} |" for row in cells)
