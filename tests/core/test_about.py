"""Names, notes and deletion of jobs, and the order in which they get the machine."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import psutil
import pytest

from ft_core import about, jobs
from ft_core.__main__ import main
from ft_core.about import About
from ft_core.errors import FTError
from ft_core.events import EventWriter, Finished
from ft_core.recipe import BUILTIN, ModelRecipe, Recipe
from ft_core.workspace import Job, Project, Workspace


@pytest.fixture
def project(workspace: Workspace) -> Project:
    return workspace.project("p", create=True)


def run(project: Project, base: str = BUILTIN) -> Job:
    """A training that is done."""
    job = jobs.create(project, "train", Recipe(model=ModelRecipe(base)))
    EventWriter(job.events).write(Finished({}))
    return job


def test_a_name_and_a_note_stay_and_are_no_events(project: Project) -> None:
    job = run(project)
    before = job.events.read_bytes()
    assert about.read(job) == About()
    about.keep(job, name="  the one\nwith prices ", note="lower rate ")
    about.keep(job, note="higher rate")
    assert asdict(about.read(job)) == {"name": "the one with prices", "note": "higher rate", "number": 0}
    assert job.events.read_bytes() == before
    with pytest.raises(FTError, match="61 characters"):
        about.keep(job, name="x" * 61)


def test_the_front_door_names_jobs_too(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    job = run(project)
    assert main(["--project", "p", "--json", "rename", job.id, "lower rate"]) == 0
    assert main(["--project", "p", "--json", "jobs"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["jobs"][0]["name"] == "lower rate"


def test_numbers_stay_when_earlier_ones_go(project: Project) -> None:
    family = [run(project) for _ in range(5)]
    assert list(about.numbers(family).values()) == [1, 2, 3, 4, 5]
    first, second, third, fourth, fifth = family
    about.delete(second, family)
    about.delete(first, [first, third, fourth, fifth])
    left = [third, fourth, fifth]
    assert about.numbers(left) == {third.id: 3, fourth.id: 4, fifth.id: 5}
    assert about.numbers([*left, run(project)])[max(j.id for j in project.jobs())] == 6
    assert not first.path.exists() and list(project.path.glob(".*")) == []


def test_what_is_not_over_or_is_needed_stays(project: Project) -> None:
    job = run(project)
    waiting = jobs.create(project, "train", Recipe())
    with pytest.raises(FTError, match="not over"):
        about.delete(waiting, [job, waiting])
    further = run(project, f"../{job.id}/adapter")
    with pytest.raises(FTError, match="goes on from what it learned"):
        about.delete(job, [job])
    about.delete(further, [job, further])
    export = jobs.create(project, "export", Recipe(), {"train_job": job.id})
    with pytest.raises(FTError, match="under way works with it .export."):
        about.delete(job, [job])
    EventWriter(export.events).write(Finished({}))
    about.delete(job, [job])
    assert not job.path.exists()


_WAITS = """
import sys
from pathlib import Path
from ft_core import jobs
from ft_core.workspace import Workspace
name, home = sys.argv[1:]
with jobs.machine(Workspace.at(home), name, Path(home, f"{name} stops").exists) as held:
    with Path(home, "order").open("a") as file:
        file.write(f"{name} {held}\\n")
"""


def wait_for(workspace: Workspace, name: str, there: int) -> subprocess.Popen:
    """A process that waits in line, as the `there`th one."""
    process = subprocess.Popen([sys.executable, "-c", _WAITS, name, str(workspace.home)])
    while len(list(workspace.machine_line.glob("*"))) < there:
        assert process.poll() is None
    return process


def test_who_came_first_has_the_machine_first(workspace: Workspace) -> None:
    with jobs.machine(workspace, "mine"):
        names = ["one", "two", "three", "four", "five"]
        waiting = [wait_for(workspace, name, i + 1) for i, name in enumerate(names)]
        waiting[0].kill()
        waiting[0].wait()  # whoever died in line holds up nobody
        Path(workspace.home, "three stops").touch()
        assert waiting[2].wait() == 0
    assert [process.wait() for process in waiting[1:]] == [0] * 4
    said = Path(workspace.home, "order").read_text().splitlines()
    assert said == ["three False", "two True", "four True", "five True"]
    assert list(workspace.machine_line.iterdir()) == []


def test_a_process_with_a_dead_ones_id_is_somebody_else(workspace: Workspace) -> None:
    workspace.machine_line.mkdir()
    me = psutil.Process()
    (workspace.machine_line / f"{me.create_time() - 100:017.3f} {me.pid} 1").touch()
    with jobs.machine(workspace, "mine") as held:
        assert held
