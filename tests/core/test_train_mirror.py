"""Copies of a training elsewhere: whole, of the newest, and never in the way."""

from __future__ import annotations

import errno
import threading
from pathlib import Path

import fsspec
import pytest

from ft_core import recipe
from ft_core.errors import FTError
from ft_core.train import checkpoints, mirror
from ft_core.workspace import Project, Workspace
from tests.core.trainings import job_of, lighthouse, notes, same, train, view


@pytest.fixture
def project(workspace: Workspace) -> Project:
    return lighthouse(workspace)


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    monkeypatch.setattr(mirror, "_PAUSES_S", (0.0, 0.0))


def test_the_newest_checkpoint_and_the_result_are_copied(project, tiny_model):
    job = job_of(project, tiny_model, steps=6, mirror=("../copies", "memory://runs"))
    assert recipe.load(job.recipe).train.mirror[0].startswith("../")
    train(job)
    (copy,) = (tiny_model.parent / "../copies").resolve().iterdir()
    assert copy.name == job.id
    assert [p.name for p in (copy / "checkpoints").iterdir()] == ["checkpoint-6"]
    assert checkpoints.is_whole(copy / "checkpoints" / "checkpoint-6")
    assert same(copy / "adapter", job.adapter)
    for name in ("recipe.yaml", "events.jsonl", "report/report.md"):
        assert (copy / name).stat().st_size
    memory = fsspec.filesystem("memory")
    assert memory.cat(f"/runs/{job.id}/report/report.md") == (copy / "report" / "report.md").read_bytes()
    assert [p.rpartition("/")[2] for p in memory.ls(f"/runs/{job.id}/checkpoints", detail=False)] == ["checkpoint-6"]
    assert not list((job.path / ".mirror").iterdir()) and not notes(job)


def test_a_place_that_cannot_be_written_to_is_told_without_its_secrets(project, tiny_model, monkeypatch):
    class Full(fsspec.get_filesystem_class("memory")):
        def put_file(self, *_, **__):
            raise OSError(errno.ENOSPC, "No space left on https://store/x?token=SECRET")

    monkeypatch.setattr(mirror.fsspec.core, "url_to_fs", lambda place: (Full(), "/full"))
    job = job_of(project, tiny_model, steps=3, mirror=("memory://full?token=SECRET",))
    train(job)
    seen = view(job)
    assert seen.state == "finished" and (job.adapter / "adapter_model.safetensors").exists()
    told = [note for note in seen.notes if note.level == "warning"]
    assert "checkpoints/checkpoint-3 was not copied to memory://full: " in told[-2].text
    assert "recipe.yaml was not copied" in told[-1].text
    assert "SECRET" not in "".join(note.text for note in told)


def test_a_copy_is_tried_again(tmp_path, project, tiny_model, monkeypatch):
    job = job_of(project, tiny_model)
    (job.path / "adapter").mkdir()
    real, tries = mirror._copy, []

    def flaky(*given):
        tries.append(1)
        if len(tries) == 1:
            raise ConnectionError("reset")
        real(*given)

    monkeypatch.setattr(mirror, "_copy", flaky)
    assert list(mirror.copy_result(job, ("memory://again",))) == []
    assert len(tries) == 4  # recipe twice, events, the empty adapter


def test_the_newest_of_those_that_wait_is_copied_whatever_is_pruned(project, tiny_model, monkeypatch):
    job = job_of(project, tiny_model)
    copied, busy, go_on = [], threading.Event(), threading.Event()

    def slow(job, target, source, name):
        copied.append((source.name, [p.name for p in source.iterdir()]))
        busy.set()
        assert go_on.wait(60)

    monkeypatch.setattr(mirror, "_copy", slow)
    copies = mirror.Mirror(job, ("memory://x",), pytest.fail)
    for step in (1, 2, 3):
        folder = job.checkpoints / f"checkpoint-{step}"
        folder.mkdir(parents=True)
        (folder / "optimizer.pt").write_text("moments")
        copies.offer(folder)
        for file in folder.iterdir():
            file.unlink()
        assert busy.wait(60)
    go_on.set()
    copies.close()
    assert copied == [("checkpoint-1", ["optimizer.pt"]), ("checkpoint-3", ["optimizer.pt"])]


@pytest.mark.parametrize(
    ("target", "told"),
    [
        ("s3://me:secret@bucket/x", "password"),
        ("nosuch://place", "nosuch://place cannot be written to"),
        ("/absolute/place", "absolute path"),
        ("file:///absolute/place", "absolute path"),
    ],
)
def test_places_that_cannot_be_are_refused_before_anything_is_trained(project, tiny_model, target, told):
    with pytest.raises(FTError, match=told) as raised:
        recipe.parse(f"train: {{mirror: ['{target}']}}")
        job_of(project, tiny_model, mirror=(target,))
    assert "secret" not in str(raised.value) and not project.jobs()


def test_a_space_copies_nowhere(project, tiny_model, monkeypatch):
    monkeypatch.setenv("SPACE_ID", "somebody/space")
    with pytest.raises(FTError, match="a Space copies to no other place"):
        job_of(project, tiny_model, mirror=("hf://buckets/x/y",))


def test_folders_of_a_recipe_stay_where_they_are_when_it_moves(tmp_path: Path):
    wanted = recipe.Recipe(train=recipe.TrainRecipe(mirror=("copies", "s3://bucket/x")))
    moved = recipe.rebase(wanted, tmp_path / "here", tmp_path / "there" / "deep").train.mirror
    assert moved == ("../../here/copies", "s3://bucket/x")
