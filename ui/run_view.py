"""A training as HTML: its state, its figures, its answers. Pure: a JobView in, HTML out."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from ft_core.events import JobView, Sample, State

from . import say
from .panel import draw
from .views import heldout_change

_WORDS = {
    State.QUEUED: "waits for its turn",
    State.RUNNING: "training",
    State.FINISHED: "finished",
    State.FAILED: "failed",
    State.STOPPED: "stopped",
    State.INTERRUPTED: "interrupted",
}


@dataclass(frozen=True)
class Figure:
    """A number with its unit, and what it is to be held against."""

    text: str
    what: str


@dataclass(frozen=True)
class Pair:
    """What the model answered before training and what it answers now."""

    prompt: str
    before: str
    now: str
    step: int


def run_panel(view: JobView, report: str = "") -> str:
    """State, step and time left, and what went wrong; `report` is where the file lies that says it all."""
    notes = [n for n in view.notes if n.level == "warning"][-3:]
    if view.notes and view.state is State.QUEUED:
        notes.append(view.notes[-1])  # what it waits for
    return draw("run", view=view, state=_WORDS[view.state], place=place(view), notes=notes, report=report)


def figures_panel(view: JobView) -> str:
    found = figures(view)
    return draw("figures", figures=found) if found else ""


def place(view: JobView) -> str:
    """`step 31 of 60 · 1 min left`, in the words that fit the state."""
    parts = []
    if view.total and view.state is not State.QUEUED:
        parts.append(f"step {view.step} of {view.total}")
    if view.state is State.RUNNING:
        if view.eta_s is not None and view.step:
            parts.append(f"{say.duration(view.eta_s)} left")
        if view.what and view.what != _WORDS[view.state]:
            parts.append(view.what)
    if view.state is State.FINISHED and view.result.get("seconds"):
        parts.append(f"took {say.duration(view.result['seconds'])}")
    return " · ".join(parts)


def figures(view: JobView) -> list[Figure]:
    """The run's numbers, as they stand."""
    found = []
    before, after = _heldout(view)
    if after is not None and before:
        change = say.percent(after / before - 1)
        found.append(Figure(f"{after:.2f}", f"held-out loss, before {before:.2f} ({change})"))
    if speed := _latest(view, "tokens_per_s"):
        found.append(Figure(f"{say.amount(speed)} tokens/s", "learnt from"))
    if memory := _latest(view, "peak_memory_bytes", "memory_bytes"):
        expected = view.result.get("estimated_memory_bytes")
        than = f", expected {say.memory(expected)}" if expected else ""
        found.append(Figure(say.memory(memory), f"memory at most{than}"))
    if view.result.get("seconds") and (expected := view.result.get("estimated_seconds")):
        found.append(Figure(say.duration(view.result["seconds"]), f"training, expected {say.duration(expected)}"))
    return found


def _heldout(view: JobView) -> tuple[float | None, float | None]:
    if "heldout_after" in view.result:
        return view.result.get("heldout_before"), view.result["heldout_after"]
    seen = [step for step, values in view.metrics.items() if "heldout_loss" in values]
    if len(seen) < 2:
        return None, None
    return view.metrics[min(seen)]["heldout_loss"], view.metrics[max(seen)]["heldout_loss"]


def _latest(view: JobView, *names: str) -> float | None:
    for name in names:
        if view.result.get(name):
            return view.result[name]
    for step in sorted(view.metrics, reverse=True):
        values = view.metrics[step]
        for name in names:
            if values.get(name):
                return values[name]
    return None


def pairs(view: JobView) -> list[Pair]:
    """The probes in the order in which they were first answered."""
    prompts = list(dict.fromkeys(s.prompt for s in view.samples))
    found = []
    for prompt in prompts:
        answers = sorted((s for s in view.samples if s.prompt == prompt), key=lambda s: s.step)
        before: Sample | None = next((s for s in answers if s.step == 0), None)
        now = answers[-1] if answers[-1].step > 0 else None
        found.append(Pair(prompt, before.answer if before else "", now.answer if now else "", now.step if now else 0))
    return found


def samples_panel(view: JobView) -> str:
    found = pairs(view)
    return draw("samples", pairs=found, over=view.state.over) if found else ""


def title(view: JobView) -> str:
    """One line of the list of runs: when, how it went, what it brought."""
    when = datetime.fromtimestamp(view.queued_at).strftime("%d %b, %H:%M") if view.queued_at else ""
    state = "cancelled" if view.state is State.STOPPED and not view.step else _WORDS[view.state]
    kept, steps = view.result.get("kept_step"), view.result.get("steps")
    which = f"step {kept} of {steps} kept" if kept and kept != steps else ""
    return " · ".join(filter(None, [when, state, heldout_change(view), which]))
