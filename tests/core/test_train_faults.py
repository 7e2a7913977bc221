"""What goes wrong while a training runs, planted: each has its sentence, and nothing of the work is lost."""

from __future__ import annotations

import json
import math
import os
import random
import re
import shutil
import signal
import time
from collections import namedtuple
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import safetensors.torch
import torch
import transformers

from ft_core import events, jobs, recipe
from ft_core.data.freeze import read_frozen
from ft_core.errors import FTError
from ft_core.events import EventWriter, Finished, Note, Queued, Started, State
from ft_core.train import checkpoints, faults, heldout, loss, making, trainer
from ft_core.train import session as training
from ft_core.workspace import Job, Project, Workspace
from tests.core.trainings import curve, job_of, lighthouse, losses, notes, same, steps_said, train, view, weights

MICRO_BATCHES = 2
"""A step of these trainings."""
EVERY_STEP = list(range(1, 11))


@pytest.fixture
def project(workspace: Workspace) -> Project:
    return lighthouse(workspace)


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Job:
    """The run that nothing happens to."""
    job = job_of(lighthouse(Workspace.at(tmp_path_factory.mktemp("whole"))), tiny_model)
    train(job)
    return job


class Planted:
    """Stands in for the loss of a micro-batch; at the first micro-batch of `step` something else happens, once."""

    def __init__(self, step: int, what):
        self.left = MICRO_BATCHES * (step - 1)
        self.what = what

    def __call__(self, model, batch):
        self.left -= 1
        if self.left == -1:
            return self.what(model, batch)
        return loss.learnt_nats(model, batch)


def _raises(error: Exception):
    def what(*_):
        raise error

    return what


# --- memory

NO_MEMORY = (
    "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to ..."
)


def test_the_sentence_of_torchs_own_allocator_is_known():
    with pytest.raises(RuntimeError) as raised:
        torch.empty(10**15)
    assert faults.is_out_of_memory(raised.value)
    assert not faults.is_out_of_memory(RuntimeError("shapes do not match"))


@pytest.mark.parametrize(
    ("step", "error"),
    [(1, MemoryError()), (5, RuntimeError(NO_MEMORY)), (5, torch.OutOfMemoryError("CUDA out of memory. Tried to"))],
    ids=["first step", "on a CPU", "on a GPU"],
)
def test_out_of_memory_halves_the_rows_at_once_and_goes_on(whole_run, project, tiny_model, monkeypatch, step, error):
    monkeypatch.setattr(trainer, "learnt_nats", Planted(step, _raises(error)))
    job = job_of(project, tiny_model)
    assert isinstance(train(job)[-1], Finished)
    kept = recipe.load(job.recipe).train
    assert (kept.micro_batch, kept.batch_size) == (1, 4)
    (told,) = [note for note in view(job).notes if note.level == "warning"]
    assert f"Memory ran out at step {step} with 2 rows in memory at once" in told.text
    assert ("from the checkpoint of step 4 with 1" if step == 5 else "from the beginning with 1") in told.text
    assert steps_said(job) == EVERY_STEP  # step 5 had said nothing yet
    assert losses(job) == pytest.approx(losses(whole_run), rel=1e-5)  # the same rows in each update
    for name, tensor in weights(job.adapter).items():
        torch.testing.assert_close(tensor, weights(whole_run.adapter)[name], rtol=1e-2, atol=1e-4)


def test_out_of_memory_with_one_row_at_once_says_what_helps(whole_run, project, tiny_model, monkeypatch):
    job = job_of(project, tiny_model, micro_batch=1)
    broken = Planted(1, None)
    broken.left, broken.what = 4 * 4, _raises(MemoryError())
    monkeypatch.setattr(trainer, "learnt_nats", broken)
    with pytest.raises(FTError, match="memory ran out at step 5, with one row in memory") as raised:
        train(job)
    assert "max_length, now 512" in raised.value.hint and "checkpoint of step 4" in raised.value.hint
    train(job)  # something else had used it
    assert losses(job) == pytest.approx(losses(whole_run), rel=1e-5)


def test_memory_that_does_not_hold_the_model_is_no_matter_of_rows(project, tiny_model, monkeypatch):
    monkeypatch.setattr(making, "load_base", _raises(RuntimeError(NO_MEMORY)))
    job = job_of(project, tiny_model)
    with pytest.raises(FTError, match="the model itself does not fit") as raised:
        train(job)
    assert "smaller base model" in raised.value.hint
    assert recipe.load(job.recipe).train.micro_batch == 2


def test_held_out_rows_are_measured_fewer_at_once_where_memory_is_short(whole_run, project, tiny_model, monkeypatch):
    def short(model, rows, pad_id):
        if len(rows) > 2:
            raise RuntimeError(NO_MEMORY)
        return loss.row_losses(model, rows, pad_id)

    monkeypatch.setattr(heldout, "row_losses", short)
    monkeypatch.setattr(training.probes, "answer", _raises(RuntimeError(NO_MEMORY)))
    job = job_of(project, tiny_model)
    train(job)
    assert curve(job) == pytest.approx(curve(whole_run), rel=1e-6)
    assert same(job.adapter, whole_run.adapter)
    assert any("held-out rows were measured at once" in text for text in notes(job))
    assert "Memory ran out for the sample answers of step 4; there are none." in notes(job)


# --- figures that are no numbers, or too large


def test_a_nan_gradient_at_step_7_names_the_rows_and_keeps_the_rest(whole_run, project, tiny_model, monkeypatch):
    seen: list[torch.Tensor] = []

    def recorded(model, batch):
        ids = batch["input_ids"]
        seen.append(ids[0][batch["places"]] if "places" in batch else ids)  # the rows that a line is made of
        nats = loss.learnt_nats(model, batch)
        return _NanGradient.apply(nats) if len(seen) == 2 * 7 else nats

    job = job_of(project, tiny_model)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny_model)
    with monkeypatch.context() as patch:
        patch.setattr(trainer, "learnt_nats", recorded)
        with pytest.raises(FTError, match="gradient became nan at step 7, of rows") as raised:
            train(job)
    lamps = {re.search(r"lamp (\d+) ", t)[1] for ids in seen[12:14] for t in tokenizer.batch_decode(ids)}
    named = set(re.search(r"of rows ([\d, ]+):", raised.value.message)[1].split(", "))
    rows = {str(row.id): row.conversation.messages[1].content for row in read_frozen(job.dataset)}
    assert {re.search(r"lamp (\d+)", rows[id])[1] for id in named} == lamps and len(lamps) == 4
    assert "0.001 instead of 0.005" in raised.value.hint
    assert checkpoints.step_of(checkpoints.last_whole(job)) == 6 and list(losses(job)) == [1, 2, 3, 4, 5, 6]
    train(job)  # as after a change of what broke it
    assert losses(job) == losses(whole_run) and same(job.adapter, whole_run.adapter)


class _NanGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx, value):
        return value.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient * math.nan


def test_a_loss_that_runs_away_is_told_once_with_a_lower_rate(project, tiny_model, monkeypatch):
    calls = []

    def growing(model, batch):
        calls.append(1)
        return loss.learnt_nats(model, batch) * (1.0 if len(calls) <= 2 * 6 else 2.0)

    monkeypatch.setattr(trainer, "learnt_nats", growing)
    job = job_of(project, tiny_model, steps=28, evaluate_every=100, save_every=100)
    said = train(job)
    at = next(i for i, event in enumerate(said) if isinstance(event, Note))
    assert said[at].level == "warning" and "(it diverges)" in said[at].text
    assert "0.001 instead of 0.005" in said[at].text
    assert said[at - 1].step == 26 and len(notes(job)) == 1  # twenty steps of it


@pytest.mark.parametrize(
    ("found", "told"),
    [
        ([2.0] * 5 + [4.0] * 20, True),
        ([2.0] * 5 + [4.0] * 19, False),  # not for long
        ([2.0] * 5 + [4.0] * 19 + [2.5], False),  # it comes back
        ([2.0] * 5 + [2.8] * 40, False),  # not far
        ([], False),
    ],
)
def test_what_counts_as_running_away(found, told):
    assert bool(faults.divergence(found, 1e-3)) is told


# --- the disk

Usage = namedtuple("Usage", "total used free")


def test_a_disk_without_room_for_a_checkpoint_is_told_before_it_is_written(
    whole_run, project, tiny_model, monkeypatch
):
    job = job_of(project, tiny_model)

    def usage(path):
        return Usage(10**9, 0, 10**9 if len(list(job.checkpoints.glob("*"))) < 2 else 10**5)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints.shutil, "disk_usage", usage)
        # Older checkpoints go first, which is room enough as often as it is needed.
        train(job)
        assert same(job.adapter, whole_run.adapter)
        job = job_of(project, tiny_model)
        patch.setattr(checkpoints.shutil, "disk_usage", lambda path: Usage(10**9, 0, 10**5))
        with pytest.raises(FTError, match=r"disk is full: the checkpoint of step 2 takes [\d.]+ MB, 0.1 MB") as raised:
            train(job)
    assert "goes on from the beginning" in raised.value.hint and not list(job.checkpoints.glob("*"))
    train(job)
    assert same(job.adapter, whole_run.adapter)


def _half(path: Path, data: bytes) -> None:
    Path(path).write_bytes(data[: len(data) // 2])


def _torn_by_torch(save):
    """What torch.save leaves and says when the disk is full; measured on a disk of 2 MB."""

    def write(state, path, *args, **options):
        save(state, path, *args, **options)
        if "checkpoint-6" in str(path) and "optimizer" in str(path):
            _half(path, Path(path).read_bytes())
            raise RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 576 vs 534")

    return write


def _torn_by_safetensors(save):
    def write(tensors, path, *args, **options):
        if "checkpoint-6" in str(path):
            text = "Error while serializing: I/O error: No space left on device (os error 28)"
            raise safetensors.SafetensorError(text)
        save(tensors, path, *args, **options)

    return write


def _torn_by_python(save):
    def write(state, path):
        save(state, path)
        if "checkpoint-6" in str(path):
            _half(path, Path(path).read_bytes())
            raise OSError(28, os.strerror(28))

    return write


@pytest.mark.parametrize(
    ("owner", "name", "torn"),
    [
        (torch, "save", _torn_by_torch),
        (safetensors.torch, "save_file", _torn_by_safetensors),
        (transformers.TrainerState, "save_to_json", _torn_by_python),
    ],
    ids=["optimizer", "weights", "state"],
)
def test_a_disk_that_is_full_in_the_middle_of_a_checkpoint(
    whole_run, project, tiny_model, monkeypatch, owner, name, torn
):
    job = job_of(project, tiny_model)
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, torn(getattr(owner, name)))
        if name == "save_file":
            patch.setattr("peft.peft_model.safe_save_file", safetensors.torch.save_file)
        with pytest.raises(FTError, match="the checkpoint of step 6 could not be written: the disk is full") as raised:
            train(job)
    assert raised.value.hint == "Make room, then resume: it goes on from the checkpoint of step 4."
    assert sorted(p.name for p in job.checkpoints.iterdir()) == ["checkpoint-2", "checkpoint-4"]
    train(job)
    assert losses(job) == losses(whole_run) and same(job.adapter, whole_run.adapter)
    assert steps_said(job) == [1, 2, 3, 4, 5, 6, 5, 6, 7, 8, 9, 10]


def test_a_disk_that_is_full_at_the_very_end_costs_no_step(whole_run, project, tiny_model, monkeypatch):
    job = job_of(project, tiny_model)
    with monkeypatch.context() as patch:
        patch.setattr(training.weights, "save", _raises(OSError(28, os.strerror(28))))
        with pytest.raises(FTError, match="the adapter could not be written: the disk is full") as raised:
            train(job)
    assert "from the checkpoint of step 10" in raised.value.hint
    train(job)
    assert steps_said(job) == EVERY_STEP and same(job.adapter, whole_run.adapter)


# --- checkpoints, models and machines


@pytest.mark.parametrize(
    "name", ["adapter_model.safetensors", "optimizer.pt", "rng_state.pth", "scheduler.pt", "trainer_state.json"]
)
@pytest.mark.parametrize("kind", ["cut", "empty", "gone"])
def test_a_torn_file_in_a_checkpoint_is_seen(whole_run, tmp_path, name, kind):
    copy = shutil.copytree(checkpoints.last_whole(whole_run), tmp_path / "checkpoint-10")
    assert checkpoints.is_whole(copy)
    file = copy / name
    match kind:
        case "cut":
            file.write_bytes(file.read_bytes()[:-8])
        case "empty":
            file.write_bytes(b"")
        case "gone":
            file.unlink()
    assert not checkpoints.is_whole(copy)


def test_a_whole_models_checkpoint_counts_by_the_files_that_its_index_names(tmp_path, whole_run):
    copy = shutil.copytree(checkpoints.last_whole(whole_run), tmp_path / "checkpoint-10")
    (copy / "adapter_model.safetensors").unlink()
    assert not checkpoints.is_whole(copy)  # no weights at all
    for part in (1, 2):
        safetensors.torch.save_file({f"w{part}": torch.ones(3)}, copy / f"model-{part}.safetensors")
    (copy / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": {"w1": "model-1.safetensors", "w2": "model-2.safetensors"}})
    )
    assert checkpoints.is_whole(copy)
    (copy / "model-2.safetensors").unlink()
    assert not checkpoints.is_whole(copy)


def test_a_torn_checkpoint_is_told_and_not_resumed_from(whole_run, project, tiny_model, monkeypatch):
    job = job_of(project, tiny_model)
    with monkeypatch.context() as patch:
        patch.setattr(trainer, "learnt_nats", Planted(9, _raises(KeyboardInterrupt())))
        with pytest.raises(KeyboardInterrupt):
            train(job)
    newest = checkpoints.last_whole(job)
    assert newest.name == "checkpoint-8"
    _half(newest / "optimizer.pt", (newest / "optimizer.pt").read_bytes())
    train(job)
    assert steps_said(job) == [*range(1, 9), *range(7, 11)]
    assert any("checkpoint of step 8 was not written to its end" in t and "of step 6." in t for t in notes(job))
    assert losses(job) == losses(whole_run) and same(job.adapter, whole_run.adapter)


def test_a_base_model_that_is_gone_is_told_and_the_work_kept(whole_run, project, tiny_model, tmp_path):
    base = shutil.copytree(tiny_model, tmp_path / "models" / "tiny-llama")
    job = job_of(project, base)
    train(job, deadline=time.time())
    base.rename(tmp_path / "elsewhere")
    with pytest.raises(FTError, match="the base model tiny-llama is gone") as raised:
        train(job)
    assert "Put it back" in raised.value.hint and str(tmp_path) not in str(raised.value)
    (tmp_path / "elsewhere").rename(base)
    train(job)
    assert losses(job) == losses(whole_run) and same(job.adapter, whole_run.adapter)


def test_a_gpu_that_stopped_answering_is_a_sentence(project, tiny_model, monkeypatch):
    lost = RuntimeError("CUDA error: unspecified launch failure\nCUDA kernel errors might be asynchronously reported")
    monkeypatch.setattr(trainer, "learnt_nats", Planted(5, _raises(lost)))
    job = job_of(project, tiny_model)
    with pytest.raises(FTError, match="GPU stopped answering: CUDA error: unspecified launch failure$") as raised:
        train(job)
    assert "goes on from the checkpoint of step 4" in raised.value.hint


def test_another_error_stays_what_it_is(project, tiny_model, monkeypatch):
    monkeypatch.setattr(trainer, "learnt_nats", Planted(2, _raises(RuntimeError("shapes do not match"))))
    with pytest.raises(RuntimeError, match="shapes do not match"):
        train(job_of(project, tiny_model))


@pytest.mark.parametrize(
    ("booted_s_ago", "told"), [(10**9, "it was killed, by hand or by a system"), (-60, "The machine was restarted")]
)
def test_a_job_whose_process_is_gone_says_what_became_of_it(project, tiny_model, monkeypatch, booted_s_ago, told):
    job = job_of(project, tiny_model)
    writer = EventWriter(job.events)
    for event in (Queued("train"), Started(10)):
        writer.write(event)
    writer.close()
    job.pid.write_text(f"{os.getpid()}\n1.0\n")  # a process id that is used again
    monkeypatch.setattr(psutil, "boot_time", lambda: time.time() - booted_s_ago)
    seen = jobs.view(job)
    assert seen.state is State.INTERRUPTED and told in seen.error and "Resume goes on" in seen.hint


def test_a_machine_that_slept_is_told(monkeypatch):
    clock = SimpleNamespace(time=lambda: wall, monotonic=lambda: steady)
    monkeypatch.setattr(faults, "time", clock)
    wall, steady = 1000.0, 10.0
    watch = faults.Clock()
    wall, steady = 1030.0, 40.0
    assert watch.slept() == 0.0
    wall, steady = 1030.0 + 720 + 5, 45.0
    assert watch.slept() == 720.0
    assert watch.slept() == 0.0


def test_a_training_says_that_the_machine_slept(project, tiny_model, monkeypatch):
    slept = iter([0.0, 720.0])
    monkeypatch.setattr(faults.Clock, "slept", lambda self: next(slept, 0.0))
    job = job_of(project, tiny_model, steps=3)
    train(job)
    assert notes(job) == [
        "The machine slept for about 12 minutes before step 2 was done; the training went on where it was."
    ]


def test_what_is_noted_before_a_kill_is_not_noted_again(project, tiny_model):
    job = job_of(project, tiny_model, max_length=34)
    for _ in range(3):
        train(job, deadline=time.time())
    left_out = [text for text in notes(job) if "left out" in text]
    assert left_out and len(left_out) == len(set(left_out))


def test_sigterm_to_the_child_keeps_the_work(whole_run, project, tiny_model):
    """What a supervisor, a container or a shutdown sends: the step is done, saved, and told as a stop."""
    job = job_of(project, tiny_model, save_every=1000, steps=10)
    jobs.start(job)
    while view(job).step < 3:
        assert jobs.alive(job), job.log.read_text()
        time.sleep(0.01)
    os.kill(int(job.pid.read_text().split()[0]), signal.SIGTERM)
    seen = jobs.wait(job)
    assert seen.state is State.STOPPED and 3 <= seen.step < 10, job.log.read_text()
    assert seen.result["kept_step"] and (job.adapter / "adapter_model.safetensors").exists()
    jobs.resume(job)
    assert jobs.wait(job).state is State.FINISHED, job.log.read_text()
    assert steps_said(job) == EVERY_STEP
    assert losses(job) == losses(whole_run) and same(job.adapter, whole_run.adapter)


@pytest.mark.oracle
@pytest.mark.timeout(3600)
def test_twenty_kills_at_random_moments_lose_nothing(tmp_path, tiny_model):
    """kill -9 wherever it is: loading, training, looking, saving. Each resume is within one save interval."""
    every, settings = 5, {"steps": 120, "save_every": 5, "evaluate_every": 15}
    whole = job_of(lighthouse(Workspace.at(tmp_path / "whole"), contrary=True), tiny_model, **settings)
    train(whole)
    job = job_of(lighthouse(Workspace.at(tmp_path / "killed"), contrary=True), tiny_model, **settings)
    draw = random.Random(5)
    moments = sorted(draw.sample(range(1, 90), 20))
    kills: list[tuple[int, int]] = []
    jobs.start(job)
    for moment in moments:
        while view(job).step < moment:
            assert jobs.alive(job), job.log.read_text()
            time.sleep(0.02)
        time.sleep(draw.random() * 0.2)  # anywhere in the steps after it, in a look, in a checkpoint
        jobs.stop_now(job)
        killed_at, length = max(losses(job)), len(steps_said(job))
        if jobs.view(job).state is State.FINISHED:
            break
        jobs.resume(job)
        while len(steps_said(job)) == length:
            assert jobs.alive(job), job.log.read_text()
            time.sleep(0.01)
        kills.append((killed_at, steps_said(job)[length]))
    assert jobs.wait(job).state is State.FINISHED, job.log.read_text()
    print(kills)
    assert len(kills) == 20 and all(at - every < again <= at + 1 for at, again in kills)
    assert list(losses(job)) == list(range(1, 121)) and losses(job) == losses(whole)
    assert curve(job) == curve(whole) and same(job.adapter, whole.adapter)
    assert view(job).result["kept_step"] == view(whole).result["kept_step"]
    assert [e for e in events.read(job.events)[0] if isinstance(e, Finished)][1:] == []
