"""What a poll costs while a training runs: `python -m benchmarks.polling`.

A run has written its events of 10,000 steps and writes on; three pages look at it, each once after every new step, as
their clocks do it. A poll is all that the app does for one page: reading on, folding, drawing every tab's part, and
fetching the curve. The first poll, which reads the whole file, is told apart. Nothing is asserted.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import statistics
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import psutil

from ft_core import jobs, recipe
from ft_core.data import example
from ft_core.events import EventWriter, Metric, Note, Progress, Sample, Started
from ft_core.workspace import Job, Project, Workspace

BAR_MS = 100


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--home", help="FT_HOME, for the built-in model")
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--pages", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=40, help="new steps, each looked at by every page")
    arguments = parser.parse_args()
    builtin = Workspace.at(arguments.home).builtin_model
    if not builtin.exists():
        from ft_core.train.builtin import ensure_builtin  # it loads torch, which the page never does

        ensure_builtin(Workspace.at(arguments.home), lambda share, what: None)
    with tempfile.TemporaryDirectory() as folder:
        workspace = Workspace.at(Path(folder) / "home")
        workspace.builtin_model.symlink_to(builtin, target_is_directory=True)
        project = example.example_project(workspace)
        found = measure(project, arguments.steps, arguments.pages, arguments.rounds)
    print(f"{arguments.steps:,} steps, {arguments.pages} pages on one run, {arguments.rounds} rounds")
    for title, name, unit in (
        ("the first poll, which reads it all", "first_ms", "ms"),
        ("a poll, median", "poll_ms", "ms"),
        ("of it, computing", "poll_cpu_ms", "ms"),
        ("a poll, the slowest", "poll_worst_ms", "ms"),
        ("memory before", "before_mb", "MB"),
        ("memory once all is read", "read_mb", "MB"),
        ("memory at the end", "end_mb", "MB"),
        ("what one page is sent", "sent_kb", "kB"),
    ):
        bar = f"   bar {BAR_MS} ms{'' if found[name] < BAR_MS else ', missed'}" if name == "poll_ms" else ""
        print(f"{title:40}{found[name]:>10.1f} {unit}{bar}")
    shown = {name: round(value, 2) for name, value in found.items()}
    print(json.dumps({"steps": arguments.steps, "pages": arguments.pages, "cores": os.cpu_count(), **shown}))


def measure(project: Project, steps: int, pages: int, rounds: int) -> dict[str, float]:
    from ui.page import Page
    from ui.session import House

    page = Page(House(project.workspace.home, on_space=False))
    page.build()
    job, writer = write_run(project, steps)
    memory = psutil.Process().memory_info
    given = {page.project: project.name, page.stamp: "", page.turns: [0]}
    places = {part.at: part.at.value for part in page.parts.values() if part.at}
    page.show(project)  # what does not depend on the run is looked at once
    found = {"before_mb": memory().rss / 1e6}
    page.runs.__init__()
    stamps, seconds, computing, sent = [""] * pages, [], [], 0
    for step in range(steps + 1, steps + 2 + rounds):
        for event in events_of(step, steps + rounds):
            writer.write(event)
        for one in range(pages):
            began, worked = time.perf_counter(), time.thread_time()
            update = page.tick({**given, **places, page.stamp: stamps[one]}, SimpleNamespace())
            curves = page.parts["train"].side.chart_points([project.name, [job.id], "loss"], SimpleNamespace())
            seconds.append(time.perf_counter() - began)
            computing.append(1000 * (time.thread_time() - worked))
            stamps[one] = update[page.stamp]
            sent = sum(len(str(value)) for value in update.values()) + len(json.dumps(curves))
        if step == steps + 1:
            gc.collect()
            found["read_mb"] = memory().rss / 1e6
    first, *others = (1000 * s for s in seconds)
    gc.collect()
    writer.close()
    return found | {
        "first_ms": first,
        "poll_ms": statistics.median(others),
        "poll_cpu_ms": statistics.median(computing[1:]),
        "poll_worst_ms": max(others),
        "end_mb": memory().rss / 1e6,
        "sent_kb": sent / 1000,
    }


def write_run(project: Project, steps: int) -> tuple[Job, EventWriter]:
    """A training that is under way at `steps`; its process is this one."""
    job = jobs.create(project, "train", recipe.preset("Quick look"))
    me = psutil.Process()
    job.pid.write_text(f"{me.pid}\n{me.create_time()}\n")
    writer = EventWriter(job.events)
    writer.write(Started(steps))
    writer.write(Note("3 rows are cut at 512 tokens.", "warning"))
    for step in range(1, steps + 1):
        for event in events_of(step, steps):
            writer.write(event)
    return job, writer


def events_of(step: int, total: int) -> list:
    """What a training says of one step, and at every 500th of its looks at the held-out rows."""
    figures = {
        "loss": 3.6 / (1 + step / 900) + 0.2 * (step * 7919 % 13) / 13,
        "learning_rate": 5e-4 * (1 - step / (total + 1)),
        "grad_norm": 1.0 + (step * 104_729 % 17) / 17,
        "epoch": step / 300,
        "tokens_per_s": 420.0 + step % 11,
        "memory_bytes": 2_300_000_000 + step,
    }
    said = [Metric(step, figures), Progress(step, total, (total - step) * 0.6, "training")]
    if step % 500 == 0 or step == 1:
        said.append(Metric(step, {"heldout_loss": 3.6 / (1 + step / 800)}))
        said += [Sample(step, prompt, f"Answer of step {step}.") for prompt in ("Who are you?", "Do you ship?")]
    return said


if __name__ == "__main__":
    main()
