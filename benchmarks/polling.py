"""What a poll costs while a training runs: `python -m benchmarks.polling`.

A run has written its events of 10,000 steps and writes on, a step a second; three pages of a headless browser look at
it in the real app, which is a process of its own. A poll is three questions: whether there is news, what a step has
changed, and the curve. Of each it is told how long the browser waited for the answer. The pages, the app and the
browser share the machine, as on a laptop. Nothing is asserted.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import tempfile
import urllib.request
from pathlib import Path

import psutil
from playwright.sync_api import Page, Request

from ft_core import jobs, recipe
from ft_core.data import example
from ft_core.events import EventWriter, Metric, Note, Progress, Sample, Started
from ft_core.train.builtin import ensure_builtin
from ft_core.workspace import Job, Project, Workspace

from . import grid_page

BAR_MS = 100
POLL = ("news", "step", "curve")
"""What a page asks: whether anything changed, what a step did, and the points of the curve."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--home", help="FT_HOME, for the built-in model")
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--pages", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=60, help="how long they look (default: %(default)s)")
    arguments = parser.parse_args()
    builtin = ensure_builtin(Workspace.at(arguments.home), lambda share, what: None)
    with tempfile.TemporaryDirectory() as folder:
        workspace = Workspace.at(Path(folder) / "home")
        workspace.builtin_model.symlink_to(builtin, target_is_directory=True)
        project = example.example_project(workspace)
        found = measure(project, arguments.steps, arguments.pages, arguments.seconds)
    print(f"{arguments.steps:,} steps, {arguments.pages} pages on one run, {arguments.seconds} seconds")
    for title, name, unit in (
        ("opening a page, which reads it all", "open_ms", "ms"),
        ("is there news, median", "news_ms", "ms"),
        ("what a step changes, median", "step_ms", "ms"),
        ("the curve, median", "curve_ms", "ms"),
        ("a poll, all three", "poll_ms", "ms"),
        ("the slowest answer", "worst_ms", "ms"),
        ("memory of the app, all pages open", "before_mb", "MB"),
        ("memory of the app at the end", "end_mb", "MB"),
        ("heap of a page, open", "heap_before_mb", "MB"),
        ("heap of a page at the end", "heap_end_mb", "MB"),
    ):
        bar = f"   bar {BAR_MS} ms{'' if found[name] < BAR_MS else ', missed'}" if name == "poll_ms" else ""
        print(f"{title:40}{found[name]:>10.1f} {unit}{bar}")
    shown = {name: round(value, 2) for name, value in found.items()}
    print(json.dumps({"steps": arguments.steps, "pages": arguments.pages, "cores": os.cpu_count(), **shown}))


def measure(project: Project, steps: int, pages: int, seconds: int) -> dict[str, float]:
    _, writer = write_run(project, steps)
    with grid_page.app(project.workspace.home) as (url, app), grid_page.browser() as browser:
        asked = _questions(url)
        waited: dict[str, list[float]] = {question: [] for question in (*POLL, "all")}
        opened, opening = [], []
        for _ in range(pages):
            page = grid_page.opened(browser, url, project.name)
            opening.append(page.evaluate("performance.getEntriesByType('navigation')[0].loadEventEnd"))
            opened.append(page)
        for page in opened:
            page.wait_for_timeout(3000)
            page.on("requestfinished", lambda request: _count(request, asked, waited))
        found = {"before_mb": app.memory_info().rss / 1e6, "heap_before_mb": grid_page.heap_mb(opened[0])}
        for step in range(steps + 1, steps + 1 + seconds):
            for event in events_of(step, steps + seconds):
                writer.write(event)
            opened[0].wait_for_timeout(1000)
        shown = _shown_step(opened[0])
        found |= {"end_mb": app.memory_info().rss / 1e6, "heap_end_mb": grid_page.heap_mb(opened[0])}
    writer.close()
    if shown < steps + seconds - 2 or not all(waited[question] for question in POLL):
        raise SystemExit(f"error: the page shows step {shown} of {steps + seconds}")
    medians = {f"{question}_ms": statistics.median(waited[question]) for question in POLL}
    worst = max(max(took) for took in waited.values() if took)
    answers = {f"answers_{question}": len(took) for question, took in waited.items()}
    poll = {"poll_ms": sum(medians.values()), "worst_ms": worst, "open_ms": statistics.median(opening)}
    return found | medians | poll | answers


def _questions(url: str) -> dict[int, str]:
    """Of the app's functions by number, which answers what."""
    with urllib.request.urlopen(f"{url}config") as answer:
        config = json.load(answer)
    hidden = {part["id"]: part["props"].get("elem_id") for part in config["components"]}
    found = {}
    for function in config["dependencies"]:
        for target, event in function["targets"]:
            if event == "change" and hidden.get(target) in ("news", "stepped"):
                found[function["id"]] = {"news": "all", "stepped": "step"}[hidden[target]]
            elif event == "tick" and "news" in map(hidden.get, function["outputs"]):
                found[function["id"]] = "news"
    return found


def _count(request: Request, asked: dict[int, str], waited: dict[str, list[float]]) -> None:
    if request.method != "POST":
        return
    sent = request.post_data_json or {}
    question = "curve" if sent.get("fn_name") == "chart_points" else asked.get(sent.get("fn_index"))
    if question:
        waited[question].append(request.timing["responseEnd"])


def _shown_step(page: Page) -> int:
    found = re.search(r"step ([\d,]+) of", page.inner_text("#header"))
    return int(found[1].replace(",", "")) if found else 0


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
