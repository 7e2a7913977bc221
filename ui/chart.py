"""The loss curve: what a run's figures become for static/chart.js, which draws them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr

from ft_core.events import JobView

from .panel import draw

_MOST = 400
"""Points that are sent of one curve, so that an update stays under 10 kB however long the run is."""


def chart() -> gr.HTML:
    """The component; its value is what `curves` returns."""
    return gr.HTML(
        curves(JobView()),
        html_template=draw("chart"),
        js_on_load=(Path(__file__).parent / "static" / "chart.js").read_text(encoding="utf-8"),
        apply_default_css=False,
        elem_id="chart",
    )


def curves(view: JobView, other: tuple[str, JobView] | None = None) -> dict[str, Any]:
    """Both curves of a run, and those of another one to hold beside it."""
    train, heldout = _points(view, "loss"), _points(view, "heldout_loss")
    return {
        "train": thinned(train),
        "heldout": thinned(heldout),
        "total": view.total,
        "label": _in_words(train, heldout),
        "other": other
        and {
            "name": other[0],
            "train": [],
            "heldout": thinned(_points(other[1], "heldout_loss")),
        },
    }


def _points(view: JobView, name: str) -> list[tuple[int, float]]:
    return [(step, round(values[name], 4)) for step, values in sorted(view.metrics.items()) if name in values]


def thinned(points: list[tuple[int, float]], most: int = _MOST) -> list[tuple[int, float]]:
    """At most about `most` points: the mean of each stretch, and the last point as it is."""
    if len(points) <= most:
        return points
    width = -(-len(points) // most)
    stretches = [points[i : i + width] for i in range(0, len(points) - 1, width)]
    means = [(s[len(s) // 2][0], round(sum(v for _, v in s) / len(s), 4)) for s in stretches]
    return [*means, points[-1]]


def _in_words(train: list[tuple[int, float]], heldout: list[tuple[int, float]]) -> str:
    parts = []
    if train:
        parts.append(f"trained {train[-1][1]:.2f} at step {train[-1][0]}, {train[0][1]:.2f} at the start")
    if heldout:
        parts.append(f"held out {heldout[-1][1]:.2f}, {heldout[0][1]:.2f} before")
    return f"Loss curve: {'; '.join(parts)}" if parts else ""
