"""What the page promises before a run: rows, tokens, minutes, memory, and what stands in the way."""

from __future__ import annotations

import random
from collections import namedtuple
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest

from ft_core import jobs, recipe
from ft_core.conversation import Conversation, Message
from ft_core.data.store import Store
from ft_core.events import EventWriter, Finished
from ft_core.machine import Machine
from ft_core.recipe import ModelRecipe, Recipe, TrainRecipe
from ft_core.render import Renderer
from ft_core.train import estimate as estimating
from ft_core.train import preflight as looking
from ft_core.train.estimate import Shape, Work, estimate
from ft_core.train.preflight import preflight
from ft_core.workspace import Project, Workspace

TWO_CORES = Machine(cores=2, memory_bytes=24 * 2**30, gpu="", gpu_memory_bytes=0)


@pytest.fixture
def project(with_builtin: Workspace, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.setattr(looking, "this_machine", lambda: TWO_CORES)
    monkeypatch.setattr(estimating, "_multiplies_bf16", lambda: True)
    made = with_builtin.project("harbour", create=True)
    with Store(made.data) as store:
        store.add(_rows(40))
    return made


def _rows(count: int, words: int = 3) -> list[Conversation]:
    """Of the same length, and different enough not to be taken for each other."""
    rng = random.Random(0)
    asked = ("".join(rng.choices("aeiourstln", k=6)) for _ in range(6 * count))
    return [
        Conversation((
            Message("user", f"Where is {' '.join(islice(asked, 6))} {i}?"),
            Message("assistant", f"East pier, {i} " + "on " * words),
        ))
        for i in range(count)
    ]  # fmt: skip


def _names(project: Project, wanted: Recipe | None = None) -> dict[str, str]:
    return {finding.name: finding.kind for finding in preflight(project, wanted or Recipe()).findings}


def test_figures_are_those_of_the_rows(project, builtin):
    seen = preflight(project, Recipe())
    renderer = Renderer.of(builtin)
    learnt = [renderer.example(conversation).learnt for conversation in _rows(40)]
    assert (seen.rows, seen.steps, seen.ready) == (36, 15, True)
    assert seen.learnt_tokens == round(sum(learnt) / 40 * 36)
    assert sum(seen.estimate.parts.values()) == seen.estimate.memory_bytes


def test_a_model_that_is_not_made_yet_is_no_obstacle_and_one_that_is_not_there_is(workspace):
    made = workspace.project("new", create=True)
    with Store(made.data) as store:
        store.add(_rows(30))
    seen = preflight(made, Recipe())
    assert seen.ready and seen.estimate is None and seen.rows == 27
    assert _names(made) == {"model": "advisory"}
    assert _names(made, Recipe(model=ModelRecipe(base="no-such/model"))) == {"model": "blocking"}


def test_more_rows_than_a_page_waits_for_are_not_looked_at_and_that_is_told(project):
    with Store(project.data) as store:
        store.add([Conversation((Message("user", "never answered"),))])
    seen = preflight(project, Recipe(), look=40)
    assert {f.name: (f.kind, f.count) for f in seen.findings}["unchecked"][0] == "advisory"
    whole = preflight(project, Recipe())
    assert "empty" in {f.name for f in whole.findings} and seen.estimate == whole.estimate
    assert preflight(project, Recipe(), look=0) == whole  # looked at once


def test_no_rows_block(with_builtin):
    made = with_builtin.project("empty", create=True)
    seen = preflight(made, Recipe())
    assert not seen.ready and seen.steps == 0 and seen.estimate is None


def test_cut_rows_are_told_with_the_limit_that_cuts_none(project):
    with Store(project.data) as store:
        store.add(_rows(1, words=120))
    finding = next(f for f in preflight(project, Recipe(train=TrainRecipe(max_length=96))).findings if f.name == "cut")
    enough = int(finding.hint.split(" to ")[1].split(",")[0])
    assert "cut" not in _names(project, Recipe(train=TrainRecipe(max_length=enough)))


def test_a_full_disk_blocks_and_little_memory_warns(project, monkeypatch):
    usage = namedtuple("usage", "total used free")(1, 1, 1000)
    monkeypatch.setattr(looking.shutil, "disk_usage", lambda path: usage)
    monkeypatch.setattr(looking, "this_machine", lambda: replace(TWO_CORES, memory_bytes=2**29))
    seen = preflight(project, Recipe())
    assert _names(project) == {"disk": "blocking", "memory": "advisory"}
    assert seen.findings[0].name == "disk" and not seen.ready


def test_the_last_run_of_the_same_model_corrects_the_time(project):
    before = preflight(project, Recipe()).estimate.seconds
    job = jobs.create(project, "train", Recipe())
    writer = EventWriter(job.events)
    writer.write(Finished({"tokens_per_s": 10.0}))
    after = preflight(project, Recipe()).estimate.seconds
    assert after > 3 * before
    other = Recipe(model=ModelRecipe(base="another/model"))
    assert estimating.measured_speed(project, other) is None
    assert estimating.measured_speed(project, Recipe(train=TrainRecipe(method="full"))) is None


def test_the_shape_of_the_builtin_model_is_counted_right(builtin):
    shape = Shape.of(builtin)
    assert shape.parameters == pytest.approx(134_515_008, rel=1e-3)
    adapters = estimate(shape, TrainRecipe(rank=16), TWO_CORES, Work(72, 5000, 500, 100, 50)).parts[
        "trained weights and optimizer"
    ]
    assert adapters == 16 * 4_884_480  # as peft counts LoRA of rank 16 on all linear layers


def test_time_follows_the_work(builtin):
    shape = Shape.of(builtin)
    quick = recipe.preset("Quick look").train
    work = Work(rows=72, tokens=4500, heldout_tokens=500, longest=110, learnt=60)
    seconds = estimate(shape, quick, TWO_CORES, work).seconds
    assert 60 < seconds < 180  # about two minutes on two cores
    assert estimate(shape, quick, replace(TWO_CORES, cores=4), work).seconds < 0.75 * seconds
    assert estimate(shape, quick, replace(TWO_CORES, gpu="H", gpu_memory_bytes=2**36), work).seconds < seconds / 3
    larger = replace(work, rows=7200, tokens=450_000)
    assert estimate(shape, quick, TWO_CORES, larger).seconds == pytest.approx(seconds, rel=0.05)  # it goes by steps


def test_a_model_that_describes_itself_otherwise_has_no_estimate(tmp_path: Path):
    (tmp_path / "config.json").write_text('{"n_embd": 64}')
    assert Shape.of(tmp_path) is None
    assert Shape.of(tmp_path / "nowhere") is None
