"""Several processes train what one trains: step for step, whatever ends them on the way."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import torch
from safetensors.torch import load_file

from ft_core import jobs, recipe
from ft_core.conversation import Conversation, Message
from ft_core.data.store import Store
from ft_core.errors import FTError
from ft_core.events import Event, EventWriter, Finished, Metric, State
from ft_core.machine import Machine, this_machine
from ft_core.recipe import ComputeRecipe, TrainRecipe
from ft_core.train import faults, processes, sft, start
from ft_core.train import weights as trained
from ft_core.train.plan import in_steps, micro_batches, rounds, rows_at_once
from ft_core.train.preflight import preflight
from ft_core.workspace import Job, Workspace
from tests.core import bases
from tests.core.trainings import QUICK, curve, lighthouse, losses, notes, same, train, view, weights

UNEVEN = replace(QUICK, batch_size=5, micro_batch=2, keep="last", learning_rate=1e-2)
"""Of 21 rows: one process has three rows in two micro-batches, the other two in one, and at the end of a pass none."""
TWO, TWO_SHARDS = ComputeRecipe(processes=2), ComputeRecipe(processes=2, strategy="fsdp")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bases.llama(tmp_path_factory.mktemp("bases") / "tiny")


def _job(home: Path, base: Path, compute: ComputeRecipe = TWO, settings: TrainRecipe = UNEVEN) -> Job:
    if compute.processes > max(1, this_machine().gpus) and this_machine().gpu:
        pytest.skip("each process takes a GPU")
    project = lighthouse(Workspace.at(home))
    wanted = recipe.Recipe(
        data=recipe.DataRecipe(heldout=0.125), model=recipe.ModelRecipe(base.name), train=settings, compute=compute
    )
    return start.create(project, wanted, base.parent)


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory, base: Path) -> Job:
    job = _job(tmp_path_factory.mktemp("one"), base, ComputeRecipe())
    assert isinstance(train(job)[-1], Finished)
    return job


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory, base: Path) -> Job:
    job = _job(tmp_path_factory.mktemp("two"), base)
    assert isinstance(train(job)[-1], Finished)
    return job


# --- the same training


def test_two_processes_train_what_one_trains(one: Job, two: Job) -> None:
    assert len(losses(one)) == 10 and losses(two) == pytest.approx(losses(one), abs=1e-5)
    assert curve(two) == pytest.approx(curve(one), abs=1e-5)
    ours, theirs = weights(two.adapter), weights(one.adapter)
    assert all(torch.allclose(ours[name], theirs[name], atol=1e-5) for name in theirs)
    mine, other = view(two), view(one)
    for name in ("tokens", "flops", "best_step", "kept_step", "steps"):
        assert mine.result[name] == other.result[name], name
    for step, figures in other.metrics.items():
        assert mine.metrics[step].keys() == figures.keys()
        for name in figures.keys() & {"grad_norm", "learning_rate"}:
            assert mine.metrics[step][name] == pytest.approx(figures[name], rel=1e-4), (step, name)
    assert {(s.step, s.prompt) for s in mine.samples} == {(s.step, s.prompt) for s in other.samples}
    assert (two.path / "report" / "report.md").exists() and notes(two) == notes(one)


def test_preferences_too(tmp_path: Path, base: Path) -> None:
    project = Workspace.at(tmp_path).project("votes", create=True)
    with Store(project.data) as store:
        prompts = [
            (Message("user", f"Is {n} even?"), Message("assistant", "Yes." if n % 2 else "No.")) for n in range(9)
        ]
        store.add([Conversation(messages, rejected=f"No idea{'!' * n}") for n, messages in enumerate(prompts)])
    dpo = replace(UNEVEN, learns="preferences", steps=3, batch_size=3, micro_batch=1, beta=0.5)
    figures = []
    for compute in (ComputeRecipe(), TWO):
        wanted = recipe.Recipe(model=recipe.ModelRecipe(base.name), train=dpo, compute=compute)
        job = start.create(project, wanted, base.parent)
        train(job)
        names = ("loss", "margin", "preference_accuracy", "heldout_accuracy", "grad_norm")
        figures.append({s: {n: v[n] for n in names if n in v} for s, v in view(job).metrics.items()})
    assert len(figures[0]) >= 3
    assert figures[1] == {step: pytest.approx(values, abs=1e-5) for step, values in figures[0].items()}


# --- what ends it on the way


def _session(job: Job, step: int, then: Callable[[], None]) -> None:
    """A session of as many processes as the recipe says that does `then` once, as the step after `step` ends."""
    alone = recipe.load(job.recipe).compute.processes == 1
    session = sft.full_at if alone else partial(processes.full_at, sft.full_at)
    writer = EventWriter(job.events)
    done = [0]

    def say(event: Event) -> None:
        writer.write(event)
        if isinstance(event, Metric) and "loss" in event.values:
            done.append(event.step)

    def must_end(within_s: float) -> bool:
        if done[-1] == step:
            then()
        return job.stop.exists()

    try:
        assert session(job, say, must_end) is None
    finally:
        writer.close()


def _kill_the_second() -> None:
    (second,) = (p for p in multiprocessing.active_children() if p.name == "process 2 of 2")
    second.kill()


def test_whatever_ends_them_a_resume_goes_on_to_the_same_bits(two: Job, tmp_path: Path, base: Path) -> None:
    job = _job(tmp_path, base)

    # The job's own process is killed, which trains nothing: the others end with it.
    jobs.start(job)
    while view(job).step < 2:
        assert jobs.alive(job), job.log.read_text()
        time.sleep(0.01)
    own = psutil.Process(int(job.pid.read_text().split()[0]))
    family = own.children(recursive=True)
    assert len(family) >= 2
    own.kill()
    assert not psutil.wait_procs(family, timeout=60)[1]
    assert jobs.view(job).state is State.INTERRUPTED

    # One of the processes is killed: the others would wait for it for ever.
    with pytest.raises(FTError, match="process 2 of 2 was killed, by hand or by a system") as raised:
        _session(job, 5, _kill_the_second)
    assert "Resume goes on from the checkpoint of step 4" in raised.value.hint
    assert not multiprocessing.active_children()

    _session(job, 7, lambda: jobs.stop(job))
    assert view(job).state is State.STOPPED and view(job).step == 8
    assert (job.adapter / "adapter_model.safetensors").exists()
    job.stop.unlink()

    assert isinstance(train(job)[-1], Finished)
    assert list(losses(job)) == list(range(1, 11)) and losses(job) == losses(two)
    assert curve(job) == curve(two) and same(job.adapter, two.adapter)


# --- shards


def _with(job: Job, compute: ComputeRecipe) -> None:
    job.stop.unlink(missing_ok=True)
    job.recipe.write_text(recipe.dump(replace(recipe.load(job.recipe), compute=compute)))


@pytest.mark.parametrize(
    "settings", [UNEVEN, replace(UNEVEN, method="full", learning_rate=1e-3)], ids=lambda settings: settings.method
)
def test_shards_train_what_one_process_trains_and_leave_the_same_files(
    settings: TrainRecipe, tmp_path: Path, base: Path
) -> None:
    """One process begins, two with a part of the model each go on from its checkpoint, one goes on from theirs."""
    alone = _job(tmp_path / "alone", base, ComputeRecipe(), settings)
    assert isinstance(train(alone)[-1], Finished)
    job = _job(tmp_path / "shared", base, ComputeRecipe(), settings)
    _session(job, 2, lambda: jobs.stop(job))
    _with(job, TWO_SHARDS)
    _session(job, 6, lambda: jobs.stop(job))
    middle = job.adapter.rename(tmp_path / "middle")
    _with(job, ComputeRecipe())
    assert isinstance(train(job)[-1], Finished)
    assert list(losses(job)) == list(range(1, 11)) and losses(job) == pytest.approx(losses(alone), abs=1e-5)
    assert curve(job) == {
        step: pytest.approx(curve(alone).get(step, loss), abs=1e-5) for step, loss in curve(job).items()
    }
    name = "adapter_model.safetensors" if settings.method == "lora" else trained.CHANGED
    ours, theirs, half = (load_file(folder / name) for folder in (job.adapter, alone.adapter, middle))
    assert ours.keys() == theirs.keys() == half.keys()
    assert all(torch.allclose(ours[key], theirs[key], atol=1e-5) for key in theirs)
    assert all(half[key].shape == theirs[key].shape and half[key].isfinite().all() for key in theirs)


@pytest.mark.gpu
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_two_gpus_train_what_one_trains(strategy: str, tmp_path: Path, base: Path) -> None:
    if this_machine().gpus < 2:
        pytest.skip("needs two NVIDIA GPUs")
    alone = _job(tmp_path / "alone", base, ComputeRecipe())
    jobs.start(alone)  # in a process of its own, which hides the other GPU
    assert jobs.wait(alone).state is State.FINISHED, alone.log.read_text()
    job = _job(tmp_path / "shared", base, ComputeRecipe(processes=2, strategy=strategy))
    _session(job, 4, lambda: jobs.stop(job))
    _with(job, recipe.load(job.recipe).compute)
    assert isinstance(train(job)[-1], Finished)
    assert list(losses(job)) == list(range(1, 11)) and losses(job) == pytest.approx(losses(alone), abs=1e-4)
    ours, theirs = weights(job.adapter), weights(alone.adapter)
    assert all(torch.allclose(ours[name], theirs[name], atol=1e-4) for name in theirs)


def _said(*said: object) -> dict:
    """Processes that said so and ended well, but for the last word: an exit status."""
    talking = {}
    for number, words in enumerate(said):
        ours, theirs = multiprocessing.Pipe()
        *words, status = words
        for word in words:
            theirs.send(word)
        theirs.close()
        name = f"process {number + 1} of {len(said)}"
        talking[ours] = SimpleNamespace(name=name, exitcode=status, join=lambda: None)
    return talking


@pytest.mark.parametrize(
    ("said", "outcome"),
    [
        ([[0], [0]], None),
        ([[0], [6, 0]], 6),  # memory ran out in the second, after step 6
        ([[0], [("the base is gone", "Put it back."), 1]], "the base is gone"),
        ([[0], [1]], "process 2 of 2 broke off, and the others ended with it"),
        ([[0], [-6]], "process 2 of 2 broke off"),
        ([[-9], [0]], "process 1 of 2 was killed, by hand or"),
    ],
)
def test_what_the_processes_say_is_heard(said: list, outcome: int | str | None, two: Job) -> None:
    talking = _said(*said)
    if isinstance(outcome, str):
        with pytest.raises(FTError, match=outcome):
            processes._heard(talking, two, print, lambda _: False)
    else:
        assert processes._heard(talking, two, print, lambda _: False) == outcome


def test_half_the_rows_at_once_are_half_of_what_each_process_has(tmp_path: Path, base: Path) -> None:
    job = _job(tmp_path, base, settings=replace(UNEVEN, batch_size=8, micro_batch=8))
    assert "with 4 rows in memory at once" in faults.halve(job, 3)
    assert recipe.load(job.recipe).train.micro_batch == 2


# --- who has which rows, and who may


@pytest.mark.parametrize(("many", "batch", "micro"), [(2, 5, 2), (3, 8, 2), (4, 3, 1), (2, 8, 8), (1, 5, 2)])
def test_the_rows_of_each_step_are_shared_out(many: int, batch: int, micro: int) -> None:
    settings = TrainRecipe(batch_size=batch, micro_batch=micro)
    lengths = [10 + i * 7 % 13 for i in range(22)]
    steps = in_steps(lengths, settings, 1)
    shares = [micro_batches(lengths, settings, 1, rank, many) for rank in range(many)]
    assert len({len(share) for share in shares}) == 1
    assert all(len(rows) <= rows_at_once(settings, many) <= micro for share in shares for rows in share)
    each, last = rounds(settings, many), len(shares[0]) % rounds(settings, many)
    assert len(shares[0]) == (len(steps) - bool(last)) * each + last
    for at, step in enumerate(steps):
        rows = [row for share in shares for rows in share[at * each : (at + 1) * each] for row in rows]
        assert sorted(rows) == sorted(step)


@pytest.mark.parametrize(
    ("compute", "train", "gpus", "why"),
    [
        (TWO, {}, ("NVIDIA L4", 2), ""),
        (ComputeRecipe(processes=3), {}, ("NVIDIA L4", 2), "this machine has 2 NVIDIA GPUs: each takes one"),
        (TWO, {}, ("NVIDIA L4", 1), "this machine has one NVIDIA GPU"),
        (TWO, {}, ("Apple GPU", 0), "an Apple GPU is for one"),
        (TWO, {}, ("", 0), ""),
        (ComputeRecipe(processes=9), {}, ("", 0), "this machine has 8 cores for them"),
        (TWO, {"engine": "unsloth"}, ("NVIDIA L4", 2), "Unsloth is for one"),
        (TWO_SHARDS, {"method": "full"}, ("", 0), ""),
        (TWO_SHARDS, {"method": "qlora"}, ("NVIDIA L4", 2), "not for qlora"),
        (TWO_SHARDS, {"learns": "preferences"}, ("NVIDIA L4", 2), "not for preferences"),
        (ComputeRecipe(processes=1, strategy="fsdp"), {"method": "layers"}, ("", 0), ""),
    ],
)
def test_what_cannot_be_is_a_sentence(compute: ComputeRecipe, train: dict, gpus: tuple[str, int], why: str) -> None:
    name, many = gpus
    machine = Machine(8, 2**35, name, 2**34 if name else 0, many)
    wanted = recipe.Recipe(train=TrainRecipe(**train), compute=compute)
    found = processes.why_not(wanted, machine)
    assert why in found if why else found == ""
    if why:
        with pytest.raises(FTError, match=why):
            processes.require(wanted, machine)


@pytest.mark.parametrize(("visible", "many"), [("", 3), ("1,2", 2), ("0", 1)])
def test_the_gpus_are_counted(visible: str, many: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    driver = tmp_path / "nvidia-smi"
    driver.write_text("#!/bin/sh\nfor i in 1 2 3; do echo 'NVIDIA L4, 23034'; done\n")
    driver.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    found = this_machine()
    assert (found.gpu, found.gpus, found.gpu_memory_bytes) == ("NVIDIA L4", many, 23034 * 2**20)


def test_what_is_left_unused_is_told() -> None:
    four = Machine(8, 2**35, "NVIDIA L4", 2**34, 4)
    ((what, hint),) = processes.advice(recipe.Recipe(), four)
    assert "has 4 NVIDIA GPUs, and one of them trains" in what and "processes to 4" in hint
    assert not processes.advice(recipe.Recipe(compute=ComputeRecipe(processes=4)), four)
    assert not processes.advice(recipe.Recipe(), replace(four, gpus=1))
    few = recipe.Recipe(train=TrainRecipe(batch_size=3), compute=ComputeRecipe(processes=4))
    assert "1 of 4 processes have none" in processes.advice(few, four)[0][0]


def test_a_start_and_a_look_before_it_say_what_cannot_be(tmp_path: Path, base: Path) -> None:
    wanted = replace(UNEVEN, method="dora")
    with pytest.raises(FTError, match="the strategy fsdp is for the methods lora, rslora, full, not for dora"):
        _job(tmp_path, base, TWO_SHARDS, wanted)
    project = lighthouse(Workspace.at(tmp_path), "looked at")
    found = preflight(project, recipe.Recipe(train=wanted, compute=TWO_SHARDS))
    assert any(f.kind == "blocking" and "not for dora" in f.text for f in found.findings)
