"""The right side of Train: the run that is looked at, its curves and answers, and the list of all. It reads events."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

import gradio as gr

from ft_core import about, jobs
from ft_core.errors import FTError
from ft_core.events import JobView, State
from ft_core.train import report, start
from ft_core.workspace import Job, Project

from . import chart, run_list
from .errors import answered
from .frame import Frame
from .panel import draw, panel
from .run_list import Looking
from .run_view import figures_panel, run_panel, samples_panel
from .session import secrets_of


class RunSide:
    def __init__(self, frame: Frame):
        self.frame = frame
        self.curves = chart.Curves()
        # What the page looks at, in a list of one that handlers write into: a poll that began before somebody chose
        # another run, or was sent before the answer came, sees the choice and does not draw over it.
        self.at = gr.State([""])
        with gr.Row(elem_classes="ft-status"):
            self.state = panel(elem_id="run-state")
            self.stop = gr.Button("Stop", size="sm", elem_id="stop", visible=False, scale=0)
            self.resume = gr.Button("Resume", size="sm", elem_id="resume", visible=False, scale=0)
        self.figures = panel(elem_id="figures")
        self.chart = chart.chart(answered(self.chart_points), answered(self.chart_table))
        self.samples = panel(elem_id="samples")
        self.runs = panel(elem_id="runs")
        self.about = panel(elem_id="about-run")
        self.panels = [self.state, self.figures, self.chart, self.samples, self.runs, self.about]
        """What a step of a training changes."""
        self.shown = [self.at, self.stop, self.resume, *self.panels]

    def listen(self, tell: Callable, outputs: list[Any], repeat: Callable[[Project, Job], dict[Any, Any]]) -> None:
        """`repeat` takes a run's recipe as the project's."""
        name = self.frame.project
        quiet = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}

        def do(name: str, at: list[str], event: gr.EventData, request: gr.Request) -> dict[Any, Any]:
            project = self.frame.open(request, name)
            if event.do == "again":
                return repeat(project, project.job(event.job))
            at[0] = str(self._done(project, Looking.of(at[0]), event, secrets_of(request, self.frame.house)))
            return self.show(project, at)

        self.stop.click(tell(self.end), [name, self.at], outputs, **quiet)
        self.resume.click(tell(self.go_on), [name, self.at], outputs, **quiet)
        self.runs.do(tell(do), [name, self.at], outputs, **quiet)
        self.about.do(tell(do), [name, self.at], outputs, **quiet)

    # --- what it shows

    def tick(self, project: Project, at: list[str]) -> dict[Any, Any]:
        return _unless_chosen(self.show, project, at)

    def step(self, project: Project, at: list[str]) -> dict[Any, Any]:
        """The panels alone."""
        return _unless_chosen(self._drawn, project, at)

    def show(self, project: Project, at: list[str]) -> dict[Any, Any]:
        found = self.frame.runs.of_kind(project, "train")
        job, view = Looking.of(at[0]).at(found) or (None, JobView())
        over = view.state.over
        return {
            **self._drawn(project, at),
            self.stop: gr.Button("Stop", visible=bool(job) and not over, interactive=True),
            self.resume: gr.Button(visible=bool(job) and over and view.state is not State.FINISHED),
        }

    def _drawn(self, project: Project, at: list[str]) -> dict[Any, Any]:
        found = self.frame.runs.of_kind(project, "train")
        looking = Looking.of(at[0]).among(found)
        job, view = looking.at(found) or (None, JobView())
        listed = run_list.lines(found, looking)
        return {
            self.state: run_panel(view, _report_of(job)) if job else draw("run_empty"),
            self.figures: figures_panel(view),
            self.chart: chart.told(project.name, run_list.shown(found, listed)),
            self.samples: samples_panel(view),
            self.runs: run_list.list_panel(listed),
            self.about: run_list.about_panel(listed),
        }

    def chart_points(self, asked: list, request: gr.Request) -> dict[str, Any]:
        """For the chart's script: the curves of a figure, of the runs that it names."""
        name, ids, figure = asked
        project = self.frame.house.project(request, str(name))
        runs = [project.job(str(id)) for id in ids[: run_list.MOST_BESIDE + 1]]
        return {"runs": {run.id: self.curves.of(run, self.frame.runs.view(run), str(figure)) for run in runs}}

    def chart_table(self, asked: list, request: gr.Request) -> dict[str, Any]:
        """The same runs' figures of every step, as CSV."""
        name, ids = asked
        project = self.frame.house.project(request, str(name))
        found = self.frame.runs.of_kind(project, "train")
        first, *beside = map(str, ids)
        listed = run_list.lines(found, Looking(first, tuple(beside)))
        return {"text": chart.table(run_list.shown(found, listed))}

    # --- what a person does

    def end(self, name: str, at: list[str], request: gr.Request) -> dict[Any, Any]:
        jobs.stop(self._job(self.frame.open(request, name), at[0]))
        return {self.stop: gr.Button("Stopping …", interactive=False)}

    def go_on(self, name: str, at: list[str], request: gr.Request) -> dict[Any, Any]:
        project = self.frame.open(request, name)
        jobs.resume(self._job(project, at[0]), secrets_of(request, self.frame.house))
        return self.show(project, at)

    def _done(
        self, project: Project, looking: Looking, event: gr.EventData, secrets: dict[str, str] | None
    ) -> Looking:
        """Does what a button of the list or of the run asks for; returns what is looked at after it."""
        match event.do:
            case "pick":
                return Looking(project.job(event.job).id, looking.beside)
            case "beside":
                return Looking(looking.run, tuple(map(str, event.ticked)))
            case "cancel":
                waits = project.job(event.job)
                jobs.stop(waits)
            case "further":
                start.go_on(project.job(event.job), int(event.steps), secrets)
            case "about":
                about.keep(project.job(event.job), event.name, event.note)
            case "delete":
                family = [job for job, _ in self.frame.runs.of_kind(project, "train")][::-1]
                about.delete(project.job(event.job), family)
        return looking

    def _job(self, project: Project, at: str) -> Job:
        found = Looking.of(at).at(self.frame.runs.of_kind(project, "train"))
        if found is None:
            raise FTError("Nothing was trained here yet.")
        return found[0]


def _unless_chosen(show: Callable[..., dict[Any, Any]], project: Project, at: list[str]) -> dict[Any, Any]:
    """What `show` draws; nothing when somebody chose another run meanwhile."""
    before = at[0]
    update = show(project, at)
    return update if at[0] == before else {}


def _report_of(job: Job) -> str:
    """Where the browser gets a run's report; '' before there is one."""
    if not (job.path / "report" / report.NAME).exists():
        return ""
    return f"gradio_api/ft/report?{urlencode({'project': job.project.name, 'job': job.id})}"
