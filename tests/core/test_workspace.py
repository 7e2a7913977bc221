"""Where things lie, and that what is written there is never seen half."""

from __future__ import annotations

import os
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ft_core.conversation import Conversation, Message
from ft_core.data.store import Store
from ft_core.errors import FTError
from ft_core.workspace import Workspace, write_whole


def test_many_threads_write_one_file_and_each_text_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "note.json"
    texts = [str(i) * 10_000 for i in range(10)]

    def write(i: int) -> bool:
        write_whole(path, texts[i % 10])
        return path.read_text() in texts

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(write, range(400)))
    assert [p.name for p in tmp_path.iterdir()] == ["note.json"]


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", ".hidden", "x" * 65, "nul\0", "ends."])
def test_a_name_that_leads_elsewhere_is_refused(workspace: Workspace, name: str) -> None:
    with pytest.raises(FTError, match="cannot be the name"):
        workspace.project(name, create=True)
    assert not workspace.folder.exists()


def test_ids_of_jobs_sort_by_time_and_lead_nowhere_else(workspace: Workspace) -> None:
    project = workspace.project("Roastery & friends (2)", create=True)
    made = [project.new_job() for _ in range(3)]
    assert [job.id for job in project.jobs()] == sorted((job.id for job in made), reverse=True)
    for id in ("../../x", "", "nope"):
        with pytest.raises(FTError, match="no job"):
            project.job(id)


def test_a_project_is_removed_while_a_page_has_its_rows_open(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = workspace.project("Open elsewhere", create=True)
    page = Store(project.data)
    page.add([Conversation((Message("user", "And now?"), Message("assistant", "Now it goes.")))])
    unlink = os.unlink

    def while_the_page_ends(*args: object, **options: object) -> None:
        page.close()  # the last connection takes its files along
        assert workspace.projects() == []
        unlink(*args, **options)

    monkeypatch.setattr(os, "unlink", while_the_page_ends)
    project.remove()
    assert list(workspace.folder.iterdir()) == []


def test_what_a_killed_removal_left_goes_with_the_next(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = (workspace.project(name, create=True) for name in ("First", "Second"))
    with monkeypatch.context() as killed:  # between taking the folder away and emptying it
        killed.setattr(shutil, "rmtree", lambda *_, **__: sys.exit())
        with pytest.raises(SystemExit):
            first.remove()
    assert len(list(workspace.folder.iterdir())) == 2
    second.remove()
    assert list(workspace.folder.iterdir()) == []


def test_files_that_the_system_keeps_are_told(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "rmtree", lambda *_, **__: None)
    with pytest.raises(FTError, match="not all files of Kept could be deleted"):
        workspace.project("Kept", create=True).remove()
