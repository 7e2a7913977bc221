"""Which run a page looks at, and what the list says of each."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ft_core import about
from ft_core.events import JobView, State
from ft_core.workspace import Job, Project, Workspace
from ui import run_list
from ui.run_list import Looking, usual

STATES = (State.FINISHED, State.FAILED, State.RUNNING, State.QUEUED, State.QUEUED)


@pytest.fixture
def found(workspace: Workspace) -> list[tuple[Job, JobView]]:
    """Runs 1 to 5, the newest first."""
    project: Project = workspace.project("p", create=True)
    made = []
    for number, state in enumerate(STATES, 1):
        job = Job(project, f"job-{number}")
        job.path.mkdir()
        made.append((job, JobView(kind="train", state=state, step=number, total=10)))
    return made[::-1]


def test_a_page_looks_at_what_runs_unless_told(found) -> None:
    assert usual(found)[0].id == "job-3"
    over = [(job, replace(view, state=State.STOPPED) if view.state is State.RUNNING else view) for job, view in found]
    assert usual(over)[0].id == "job-4"  # the next in line
    assert usual([one for one in over if one[1].state.over])[0].id == "job-3"  # the newest
    assert usual([]) is None and Looking().at([]) is None
    assert Looking("job-1").at(found)[0].id == "job-1"
    assert Looking("gone").at(found)[0].id == "job-3"


def test_what_is_looked_at_travels_as_text_and_forgets_what_is_gone(found) -> None:
    looking = Looking("job-2", ("job-1", "gone", "job-2", "job-5"))
    assert Looking.of(str(looking)) == looking and Looking.of("") == Looking()
    assert looking.among(found) == Looking("job-2", ("job-1", "job-5"))
    assert Looking("job-3", ("job-3",)).among(found) == Looking()  # it stays with whatever runs then
    many = Looking("", tuple(f"job-{n}" for n in (1, 2, 4, 5)) + ("job-1",))
    assert len(many.among(found).beside) == run_list.MOST_BESIDE


def test_lines_have_numbers_and_say_what_they_wait_for(found) -> None:
    about.keep(found[-1][0], name="first")
    lines = run_list.lines(found, Looking("", ("job-1",)))
    assert [line.number for line in lines] == [5, 4, 3, 2, 1]
    assert [line.text for line in lines[:2]] == ["waits for its turn, after run 4", "waits for its turn, after run 3"]
    assert [line.chosen for line in lines] == [False, False, True, False, False]
    assert [line.waits for line in lines] == [True, True, False, False, False]
    assert [shown.title for shown in run_list.shown(found, lines)] == ["#3", "#1 first"]
