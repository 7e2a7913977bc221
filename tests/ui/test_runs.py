"""Pages read the same fold, each new line once, across restarts of the reader."""

from __future__ import annotations

import os

from ft_core import events, jobs
from ft_core.events import EventWriter, Finished, Metric, Progress, Started, State
from ft_core.recipe import Recipe
from ft_core.workspace import Workspace
from ui.runs import Runs, usable


def test_reads_on_and_sees_the_whole_curve(workspace: Workspace, monkeypatch) -> None:
    project = workspace.project("p", create=True)
    job = jobs.create(project, "train", Recipe())
    job.pid.write_text(f"{os.getpid()}\n{__import__('psutil').Process().create_time()}\n")
    writer, runs, offsets = EventWriter(job.events), Runs(), []
    read = events.read
    monkeypatch.setattr(events, "read", lambda path, offset=0: offsets.append(offset) or read(path, offset))
    writer.write(Started(100))
    for step in range(1, 51):
        writer.write(Metric(step, {"loss": 1 / step}))
        if step % 10 == 0:
            writer.write(Progress(step, 100, 5.0))
            assert runs.view(job).step == step
    assert runs.view(job).state is State.RUNNING
    assert offsets == sorted(offsets) and offsets[-1] == job.events.stat().st_size  # never again from the start
    assert runs.view(job).metrics == Runs().view(job).metrics
    assert len(runs.view(job).metrics) == 50
    before = runs.stamp(project)
    assert before == Runs().stamp(project)
    writer.write(Finished({"adapter": str(job.adapter)}))
    assert runs.stamp(project) != before
    assert usable(runs.view(job))
    assert runs.newest(project, "train")[0] == job
    assert runs.newest(project, "export") is None


def test_a_killed_process_is_told(workspace: Workspace) -> None:
    project = workspace.project("p", create=True)
    job = jobs.create(project, "train", Recipe())
    job.pid.write_text("999999999\n1.0\n")
    EventWriter(job.events).write(Started(10))
    view = Runs().view(job)
    assert view.state is State.INTERRUPTED
    assert not usable(view)
