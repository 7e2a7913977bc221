"""What the page promises before a run: rows, tokens, minutes, memory, and what stands in the way."""

from __future__ import annotations

import random
import shutil
from collections import namedtuple
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest

from ft_core import jobs, recipe
from ft_core.conversation import Conversation, Message
from ft_core.data.quality import Finding, Knob
from ft_core.data.store import Store
from ft_core.events import EventWriter, Finished
from ft_core.machine import Machine
from ft_core.recipe import ComputeRecipe, ModelRecipe, Recipe, TrainRecipe
from ft_core.render import Renderer
from ft_core.train import compute, findings
from ft_core.train import estimate as estimating
from ft_core.train import preflight as looking
from ft_core.train.estimate import estimate
from ft_core.train.preflight import preflight
from ft_core.train.session import Session
from ft_core.train.sizes import Shape, Work
from ft_core.workspace import Project, Workspace
from tests.core.trainings import by_method, lighthouse

TWO_CORES = Machine(cores=2, memory_bytes=24 * 2**30, gpu="", gpu_memory_bytes=0)


def on(monkeypatch: pytest.MonkeyPatch, machine: Machine) -> None:
    """What is looked at is looked at on such a machine."""
    for asks in (looking, findings, compute):
        monkeypatch.setattr(asks, "this_machine", lambda: machine)


@pytest.fixture
def project(with_builtin: Workspace, monkeypatch: pytest.MonkeyPatch) -> Project:
    on(monkeypatch, TWO_CORES)
    for asks in ("estimate", "memory"):
        monkeypatch.setattr(f"ft_core.train.{asks}.multiplies_bf16", lambda: True)
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
    monkeypatch.setattr(findings.shutil, "disk_usage", lambda path: usage)
    on(monkeypatch, replace(TWO_CORES, memory_bytes=2**29))
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
    other, full = Recipe(model=ModelRecipe(base="another/model")), Recipe(train=TrainRecipe(method="full"))
    assert estimating.measured_speed(project, other, project.path) is None
    assert estimating.measured_speed(project, full, project.path) is None


def test_the_shape_of_the_builtin_model_is_counted_right(builtin):
    shape = Shape.of(builtin)
    assert shape.parameters == pytest.approx(134_515_008, rel=1e-3)
    adapters = estimate(shape, TrainRecipe(rank=16), TWO_CORES, Work(72, 5000, 500, 100, 50)).parts[
        "trained weights and optimizer"
    ]
    assert adapters == 16 * 4_884_480  # as peft counts LoRA of rank 16 on all linear layers


@pytest.mark.parametrize("bf16", [False, True])
def test_time_follows_the_work(builtin, bf16, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("ft_core.train.estimate.multiplies_bf16", lambda: bf16)
    shape = Shape.of(builtin)
    quick = recipe.preset("Quick look").train
    work = Work(rows=72, tokens=4500, heldout_tokens=500, longest=110, learnt=60)
    seconds = estimate(shape, quick, TWO_CORES, work).seconds
    assert 60 < seconds < 240  # two or three minutes on two cores
    assert estimate(shape, quick, replace(TWO_CORES, cores=4), work).seconds < 0.75 * seconds
    assert estimate(shape, quick, replace(TWO_CORES, gpu="H", gpu_memory_bytes=2**36), work).seconds < seconds / 3
    larger = replace(work, rows=7200, tokens=450_000)
    assert estimate(shape, quick, TWO_CORES, larger).seconds == pytest.approx(seconds, rel=0.05)  # it goes by steps


def test_a_model_that_describes_itself_otherwise_has_no_estimate(tmp_path: Path):
    (tmp_path / "config.json").write_text('{"n_embd": 64}')
    assert Shape.of(tmp_path) is None
    assert Shape.of(tmp_path / "nowhere") is None


def _with(wanted: Recipe, knob: Knob) -> Recipe:
    section = "compute" if knob.field in recipe.docs(ComputeRecipe) else "train"
    return replace(wanted, **{section: replace(getattr(wanted, section), **{knob.field: knob.value})})


def _finding(project: Project, wanted: Recipe, name: str) -> Finding:
    return next(f for f in preflight(project, wanted).findings if f.name == name)


def _settled(project: Project, wanted: Recipe, name: str) -> list[str]:
    """The knobs of the finding; each of them alone takes it away."""
    finding = _finding(project, wanted, name)
    for knob in finding.knobs:
        after = recipe.checked(_with(wanted, knob))
        assert finding.text not in [f.text for f in preflight(project, after).findings], knob
    return [knob.field for knob in finding.knobs]


def test_rows_that_are_cut_carry_the_limit_that_cuts_none(project):
    with Store(project.data) as store:
        store.add(_rows(1, words=120))
    assert _settled(project, Recipe(train=TrainRecipe(max_length=96)), "cut") == ["max_length"]


@pytest.mark.parametrize("train", [TrainRecipe(epochs=40.0), TrainRecipe(steps=200)])
def test_many_passes_over_few_rows_are_told_in_numbers(project, train):
    wanted = Recipe(train=train)
    assert "36 rows is seen 40 times" in _finding(project, wanted, "overfit").text
    assert _settled(project, wanted, "overfit") == ["steps" if train.steps else "epochs"]
    assert "overfit" not in _names(project, Recipe())


def test_a_rate_that_suits_an_adapter_is_told_under_full(project):
    assert _settled(project, Recipe(train=TrainRecipe(method="full")), "settings") == ["learning_rate"]


def test_a_method_that_this_machine_cannot_do_blocks(project):
    wanted = Recipe(train=TrainRecipe(method="qlora"))
    assert not preflight(project, wanted).ready
    assert _settled(project, wanted, "method") == ["method"]


def test_preferences_want_a_worse_answer(project):
    wanted = Recipe(train=TrainRecipe(learns="preferences"))
    assert _finding(project, wanted, "preferences").kind == "blocking"
    assert _settled(project, wanted, "preferences") == ["learns"]
    with Store(project.data) as store:
        store.add([replace(row, rejected="I do not know.") for row in _rows(60)[40:]])
    seen = preflight(project, wanted)
    assert seen.ready and seen.rows == 18 and seen.estimate.memory_bytes > 0  # 60 rows, 54 to train, a third are pairs


def test_text_is_counted_in_blocks_and_needs_no_answers(project):
    with Store(project.data) as store:
        store.add([Conversation((Message("assistant", "Low tide at noon. " * 400),))])
    seen = preflight(project, Recipe(train=TrainRecipe(learns="text")))
    assert seen.ready and 3 < seen.rows < 37 and "cut" not in {f.name for f in seen.findings}
    assert seen.learnt_tokens > preflight(project, Recipe()).learnt_tokens


def test_too_little_memory_names_the_largest_settings_that_fit(project, monkeypatch):
    with Store(project.data) as store:
        store.add(_rows(72, words=2000))  # as many as short ones
    wanted = Recipe(train=TrainRecipe(max_length=2048, method="full"))
    needed = preflight(project, wanted).estimate.memory_bytes
    on(monkeypatch, replace(TWO_CORES, memory_bytes=needed // 2))
    seen = preflight(project, wanted)
    assert seen.fit == "too big" and _settled(project, wanted, "memory") == ["micro_batch", "max_length"]
    fewer = _finding(project, wanted, "memory").knobs[0]
    assert "memory" in _names(project, _with(wanted, replace(fewer, value=fewer.value + 1)))  # it is the largest


def test_too_little_memory_names_a_method_that_wants_less(project, monkeypatch):
    wanted = Recipe(train=TrainRecipe(method="full"))
    needed = preflight(project, wanted).estimate.memory_bytes
    on(monkeypatch, replace(TWO_CORES, memory_bytes=needed * 3 // 4))
    assert _settled(project, wanted, "memory") == ["method"]


def test_each_process_has_its_part_of_the_memory_and_of_the_rows(project, monkeypatch):
    alone = Recipe(train=TrainRecipe(batch_size=8, micro_batch=8))
    two = replace(alone, compute=ComputeRecipe(processes=2))
    on(monkeypatch, TWO_CORES)
    needed, of_one = (preflight(project, wanted).estimate for wanted in (alone, two))
    assert of_one.parts["weights"] == needed.parts["weights"]
    # More than half: what all rows begin with is there once in each, and one of them has longer rows.
    assert 0.5 < of_one.parts["activations"] / needed.parts["activations"] < 0.65

    on(monkeypatch, replace(TWO_CORES, memory_bytes=of_one.memory_bytes * 7 // 4))  # for one, and not for two
    assert preflight(project, alone).fit == "fits" and preflight(project, two).fit == "too big"
    said = _finding(project, two, "memory")
    assert "by each of 2 processes" in said.text and "Fewer processes" in said.hint


def test_weights_that_fit_no_gpu_whole_are_to_be_shared_out(project, monkeypatch):
    each = ComputeRecipe(processes=4, strategy="ddp")
    wanted = Recipe(train=TrainRecipe(method="full", learning_rate=2e-5), compute=each)
    shared = replace(wanted, compute=replace(each, strategy="fsdp"))
    gpus = replace(TWO_CORES, gpu="NVIDIA L4", gpu_memory_bytes=24 * 10**9, gpus=4)
    on(monkeypatch, gpus)
    whole, part = (preflight(project, recipe).estimate.memory_bytes for recipe in (wanted, shared))
    assert part < 0.7 * whole
    on(monkeypatch, replace(gpus, gpu_memory_bytes=part * 5 // 4))
    assert preflight(project, wanted).fit == "too big" and preflight(project, shared).fit == "fits"
    assert "strategy" in _settled(project, wanted, "memory")


def test_a_large_checkpoint_wants_the_disk_for_it(project, monkeypatch):
    usage = namedtuple("usage", "total used free")(2**40, 0, 2 * 2**30)
    monkeypatch.setattr(findings.shutil, "disk_usage", lambda path: usage)
    assert "disk" not in _names(project)
    assert _names(project, Recipe(train=TrainRecipe(method="full", learning_rate=2e-5)))["disk"] == "blocking"


def test_hours_are_told_with_a_machine_that_is_quicker(project, monkeypatch):
    monkeypatch.setattr(looking, "measured_speed", lambda *_: 0.1)
    finding = _finding(project, Recipe(), "time")
    assert "hours on this machine" in finding.text and "for $" in finding.hint


@pytest.fixture
def folder(project, tiny_model) -> Path:
    """A base model of the project's own, in which a test may change things."""
    made = project.path / "base"
    shutil.copytree(tiny_model, made)
    return made


OWN = Recipe(model=ModelRecipe(base="base"), train=TrainRecipe(max_length=2048))


def test_a_template_that_is_added_is_told(project, folder):
    assert "plain_template" not in _names(project, OWN)
    (folder / "chat_template.jinja").unlink()
    assert _names(project, OWN)["plain_template"] == "advisory"


def test_a_template_that_never_ends_a_turn_is_told(project, folder):
    assert "end_of_turn" not in _names(project, OWN)
    (folder / "chat_template.jinja").write_text(
        "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}"
    )
    assert _names(project, OWN)["end_of_turn"] == "advisory"


def test_rows_that_the_model_cannot_see_whole_are_told(project, folder):
    assert "context" not in _names(project, OWN)
    with Store(project.data) as store:
        store.add(_rows(1, words=900))
    assert _settled(project, OWN, "context") == ["max_length"]


def test_the_result_has_the_estimate_beside_what_was_measured(workspace, tiny_model):
    said: list = []
    Session(by_method(lighthouse(workspace), tiny_model, "lora"), said.append, lambda seconds: False).run()
    result = said[-1].result
    assert result["estimated_memory_bytes"] > 5e8 and result["estimated_seconds"] > 0
