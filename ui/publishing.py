"""Taking the rows away: a file in any shape and format, or a dataset on the Hugging Face Hub, with its card."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gradio as gr

from ft_core import jobs
from ft_core.data import audit, dataset_card, publish
from ft_core.data.layout import SHAPES, Layout
from ft_core.data.store import Store
from ft_core.errors import FTError
from ft_core.workspace import Project

from . import importing, say
from .frame import Frame, Recipes
from .panel import draw, panel
from .session import hub_token

FORMATS = {
    "jsonl": "JSON Lines (.jsonl)",
    "json": "JSON (.json)",
    "csv": "table (.csv)",
    "parquet": "Parquet (.parquet)",
    "zip": "a folder for `datasets` (.zip)",
}
_CARD_LINES = 24
"""Of the card, on the page."""


class Publishing:
    """The panel that the grid's Export opens, and the push that it starts."""

    def __init__(self, frame: Frame, recipes: Recipes):
        self.frame, self.recipes = frame, recipes
        self.give = panel(elem_id="export-rows")
        self.card = panel(elem_id="card-preview")
        self.pushing = panel(elem_id="push-job")
        self.shown = [self.give, self.card, self.pushing]

    def listen(self, tell: Callable, outputs: list[Any]) -> None:
        quiet = {"queue": False, "api_visibility": "private", "show_progress": "hidden"}
        self.give.do(tell(self.answer), [self.frame.project], outputs, **quiet)
        self.card.do(tell(self.answer), [self.frame.project], outputs, **quiet)
        self.pushing.do(tell(self.answer_job), [self.frame.project], outputs, **quiet)

    def show(self, project: Project) -> dict[Any, Any]:
        drawn = draw("give", project=project.name, shapes={s: importing.SHAPES.get(s, s) for s in SHAPES},
                     formats=FORMATS, on_space=self.frame.house.on_space)  # fmt: skip
        return {self.give: drawn, self.card: "", **self.tick(project)}

    def tick(self, project: Project) -> dict[Any, Any]:
        newest = self.frame.runs.newest(project, "publish")
        if newest is None or newest[0].seen.exists():
            return {self.pushing: ""}
        job, view = newest
        left = f"about {say.duration(view.eta_s)} left" if view.eta_s else ""
        return {self.pushing: draw("pushing", job=job.id, view=view, left=left, stopping=job.stop.exists())}

    def answer(self, name: str, event: gr.EventData, request: gr.Request) -> dict[Any, Any]:
        project, given = self.frame.open(request, name), event._data
        if event.do == "leave":
            return {self.card: ""}
        repo, licence = str(given.get("repo", "")).strip(), str(given.get("licence", "")).strip()
        shape = str(given.get("push-shape") or "messages")
        try:
            if event.do == "card":
                return {self.card: draw("card_preview", lines=_card(project, repo, licence, shape), error=None)}
            token = hub_token(request, self.frame.house)
            if not token and self.frame.house.on_space:
                raise FTError("pushing to the Hub needs to know who you are", "Sign in at the top of the page.")
            publish.start(project, self.recipes.of(project), repo, public=given.get("who") == "public", shape=shape,
                          licence=licence, token=token)  # fmt: skip
        except FTError as error:
            return {self.card: draw("card_preview", lines=[], error=error)}
        return {self.card: "", **self.tick(project)}

    def answer_job(self, name: str, event: gr.EventData, request: gr.Request) -> dict[Any, Any]:
        project = self.frame.open(request, name)
        job = project.job(event.job)
        if event.do == "stop":
            jobs.stop(job)
        elif event.do == "close":
            job.seen.touch()
        elif event.do == "again":
            token = hub_token(request, self.frame.house)
            jobs.resume(job, {"HF_TOKEN": token})
        return self.tick(project)


def _card(project: Project, repo: str, licence: str, shape: str) -> list[str]:
    """How the card would begin, without what stands in front for the Hub's machines."""
    with Store(project.data) as store:
        counts = store.counts()
        rows = counts.rows - counts.rejected
        flags = {flag: n for flag, n in store.flags().items() if n}
        text = dataset_card.card(
            dataset_card.Facts(
                repo=repo or project.name,
                shape=shape,
                columns=tuple(Layout(shape).columns),
                system=store.system,
                parts={"train": rows - counts.heldout, **({"test": counts.heldout} if counts.heldout else {})},
                left_out=0,
                unplaced=0,
                sources=store.sources(),
                generators={s: "" for s in store.sources() if s.startswith(dataset_card.GENERATED)},
                languages=(),
                licence=licence,
                counts=counts,
                split=store.split_settings,
                flags=flags,
                fingerprint=audit.stamp(store),
            )
        )
    lines = text.split("---\n", 2)[-1].strip().splitlines()
    return lines[:_CARD_LINES] + (["…"] if len(lines) > _CARD_LINES else [])
