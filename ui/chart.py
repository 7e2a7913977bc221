"""The curves of a run: what its figures become for static/chart.js, which draws them and asks for what it shows."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from ft_core.events import JobView
from ft_core.workspace import Job

from .panel import draw

_MOST = 400
"""Points that are sent of one curve, so that an update stays under 10 kB however long the run is."""
_KEPT = 200
"""Curves that are kept drawn up, for all pages together."""
_FIGURES = {
    "loss": ("Loss, trained and held out", "nats a token; lower is better"),
    "train_loss": ("Loss on rows it learns from (training loss)", "nats a token; lower is better"),
    "grad_norm": ("How hard it is pulled (gradient norm)", "before clipping; leaps mean a rate that is too high"),
    "learning_rate": ("How strongly it learns (learning rate)", "a step"),
    "tokens_per_s": ("Speed", "tokens a second"),
    "memory_bytes": ("Memory", "GB"),
}
_NAMES = {"loss": ("loss", "heldout_loss"), "train_loss": ("loss",)}
"""What a figure is made of, where it is not the metric of its own name."""
_NOT_CURVES = {"loss", "heldout_loss", "epoch", *_FIGURES}

Points = list[tuple[int, float]]


@dataclass(frozen=True)
class Shown:
    """A run as the chart names it."""

    job: Job
    number: str
    """`#3`, which stands at the end of its curve."""
    title: str
    view: JobView


def chart(points: Callable, table: Callable) -> gr.HTML:
    """The component; its value is what `told` returns, and the two functions are what its script calls."""
    return gr.HTML(
        told("", []),
        html_template=draw("chart"),
        js_on_load=(Path(__file__).parent / "static" / "chart.js").read_text(encoding="utf-8"),
        server_functions=[points, table],
        apply_default_css=False,
        elem_id="chart",
    )


def told(project: str, runs: Sequence[Shown]) -> dict[str, Any]:
    """What changes at each poll, without a point of a curve: which runs, and how far each has come.

    The first is the one that is looked at, the others lie over it.
    """
    view = runs[0].view if runs else JobView()
    return {
        "project": project,
        "runs": [{"id": r.job.id, "number": r.number, "title": r.title, "stamp": r.view.updated_at} for r in runs],
        "total": view.total,
        "figures": [[name, *words] for name, words in _figures(view).items()],
        "label": in_words(view),
    }


def _figures(view: JobView) -> dict[str, tuple[str, str]]:
    """The usual ones, and what else this kind of training measures."""
    steps = reversed(view.metrics.values())
    last = [values for values, _ in zip(steps, range(3))]
    more = dict.fromkeys(name for values in last for name in values if name not in _NOT_CURVES)
    return _FIGURES | {name: (name.replace("_", " ").replace("/", ", "), "") for name in sorted(more)}


class Curves:
    """Curves as they are sent, drawn up once for all pages. Safe to use from several threads."""

    def __init__(self) -> None:
        self._drawn: dict[tuple[Path, str], tuple[float, dict[str, Points]]] = {}

    def of(self, job: Job, view: JobView, figure: str) -> dict[str, Any]:
        """`stamp` says of when the points are; `curves` has them by metric."""
        stamp, found = self._drawn.get((job.path, figure), (None, {}))
        if stamp != view.updated_at:
            found = {name: thinned(points(view, name)) for name in _NAMES.get(figure, (figure,))}
            if len(self._drawn) >= _KEPT:
                self._drawn.clear()
            self._drawn[job.path, figure] = (view.updated_at, found)
        return {"stamp": view.updated_at, "curves": found}


def points(view: JobView, name: str) -> Points:
    """(step, value) in the order of the steps."""
    metrics = view.metrics
    return [(step, metrics[step][name]) for step in sorted(metrics) if name in metrics[step]]


def thinned(points: Points, most: int = _MOST) -> Points:
    """At most about `most` points, five digits each: the mean of each stretch, and the last point as it is."""
    if len(points) > most:
        width = -(-len(points) // most)
        stretches = [points[i : i + width] for i in range(0, len(points) - 1, width)]
        means = [(s[len(s) // 2][0], sum(v for _, v in s) / len(s)) for s in stretches]
        points = [*means, points[-1]]
    return [(step, float(f"{value:.5g}")) for step, value in points]


def table(runs: Sequence[Shown]) -> str:
    """All figures of every step as CSV, one line a step of a run; nothing is thinned."""
    names = dict.fromkeys(name for run in runs for values in run.view.metrics.values() for name in values)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["run", "step", *names])
    for run in runs:
        for step in sorted(run.view.metrics):
            values = run.view.metrics[step]
            writer.writerow([run.title, step, *(values.get(name, "") for name in names)])
    return text.getvalue()


def in_words(view: JobView) -> str:
    """The two losses for those who do not see the curves."""
    parts = []
    if ends := _ends(view, "loss"):
        parts.append("trained {1[1]:.2f} at step {1[0]}, {0[1]:.2f} at the start".format(*ends))
    if ends := _ends(view, "heldout_loss"):
        parts.append("held out {1[1]:.2f}, {0[1]:.2f} before".format(*ends))
    return f"Loss curve: {'; '.join(parts)}" if parts else ""


def _ends(view: JobView, name: str) -> tuple[tuple[int, float], tuple[int, float]] | None:
    """The first and the last point of a curve."""
    first = next(((s, v[name]) for s, v in view.metrics.items() if name in v), None)
    last = next(((s, v[name]) for s, v in reversed(view.metrics.items()) if name in v), None)
    return (first, last) if first and last else None
