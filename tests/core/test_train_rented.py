"""Trainings on rented machines: the real huggingface_hub client, a Hub in memory, and processes for its machines."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import huggingface_hub
import pytest

from ft_core import about, events, jobs, recipe
from ft_core.errors import FTError
from ft_core.events import Event, EventWriter, Finished, State, Stopped
from ft_core.recipe import ComputeRecipe
from ft_core.train import checkpoints, compute, far, memory, preflight, rent, rented, sft, start
from ft_core.workspace import Job, Project, Workspace
from tests.core.trainings import QUICK, curve, job_of, lighthouse, losses, notes, same, steps_said, train, view
from tests.stand_ins import serving
from tests.stand_ins.hub import READER, WRITER
from tests.stand_ins.rented import Jobs

SECRETS = {"HF_TOKEN": WRITER}
T4 = ComputeRecipe("hf_jobs", hardware="t4-small", hours=0.5)


@pytest.fixture
def hub(memory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Jobs]:
    """A Hub with machines to rent; children find it by their environment."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # as there: sums in another order would be another training
    monkeypatch.setattr(rented, "_LOOK_S", 0.2)
    monkeypatch.setattr(rent, "_PAUSES_S", (0.1, 0.1))
    found = Jobs(memory)
    with serving(found.app()) as address:
        found.address = address
        yield found
        found.end_all()


@pytest.fixture
def project(workspace: Workspace) -> Project:
    return lighthouse(workspace)


def sent(project: Project, base: Path, **settings) -> Job:
    """A job to be trained on a rented machine."""
    job = job_of(project, base, **settings)
    is_rented(job)
    return job


def is_rented(job: Job, **changes) -> None:
    wanted = recipe.load(job.recipe)
    job.recipe.write_text(recipe.dump(replace(wanted, compute=replace(T4, **changes))), encoding="utf-8")


def follow(job: Job, hub: Jobs) -> list[Event]:
    """What the process here does, in this one; its events are kept as it keeps them."""
    job.stop.unlink(missing_ok=True)
    return list(kept(job, hub))


def kept(job: Job, hub: Jobs) -> Iterator[Event]:
    writer = EventWriter(job.events)
    try:
        for event in rented.run(job, SECRETS, hub.address):
            writer.write(event)
            yield event
    finally:
        writer.close()


def until(true: Callable[[], object], hub: Jobs) -> None:
    for _ in range(2000):
        if true():
            return
        time.sleep(0.05)
    raise AssertionError([machine.lines[-20:] for machine in hub.machines])


def files_of(job: Job) -> list[Path]:
    return [path for path in job.path.rglob("*") if path.is_file()]


def test_it_trains_there_and_comes_home_as_if_it_had_trained_here(project, tiny_model, hub, monkeypatch) -> None:
    """The process that follows it is killed on the way, and followed by another."""
    monkeypatch.setenv("HF_ENDPOINT", hub.address)
    for name, value in {"HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"}.items():
        monkeypatch.setenv(name, value)
    job, here = sent(project, tiny_model), job_of(project, tiny_model)
    hub.freezes_at = '"step": 4, "values"'
    with jobs.machine(project.workspace, "somebody else") as held:  # this machine is not what it wants
        assert held
        jobs.start(job, SECRETS)
        until(lambda: 4 in losses(job) or view(job).error, hub)
        os.kill(int(job.pid.read_text().split()[0]), signal.SIGKILL)
        until(lambda: not jobs.alive(job), hub)
        assert jobs.view(job).state is State.INTERRUPTED
        (machine,) = hub.machines
        assert machine.stage == "RUNNING"
        with pytest.raises(FTError, match="has a machine"):
            about.delete(job, [job])
        hub.thaw()
        jobs.resume(job, SECRETS)
        seen = jobs.wait(job)
    assert seen.state is State.FINISHED, (seen.error, machine.lines, job.log.read_text())
    assert len(hub.machines) == 1 and hub.hub.repos == {} and not job.rented.exists()
    train(here)
    assert same(job.adapter, here.adapter)
    assert losses(job) == losses(here) and curve(job) == curve(here)
    assert steps_said(job) == list(range(1, 11))
    assert [s.answer for s in seen.samples if s.step == 0]
    result = seen.result
    assert (result["job"], result["steps"], result["adapter"]) == (job.id, 10, str(job.adapter))
    assert result["base"] == str(tiny_model) and result["heldout_after"] == view(here).result["heldout_after"]
    assert (result["rented"], result["rented_minutes"]) == ("t4-small", 2)
    assert result["rented_usd"] == pytest.approx(2 / 60 * 0.4)
    assert any("ran for 2 minutes, about $0.01" in note for note in notes(job))
    assert "compute.where | hf_jobs" in (job.path / "report" / "report.md").read_text(encoding="utf-8")
    spec = machine.spec
    assert (spec["flavor"], spec["timeoutSeconds"], spec["secrets"]) == ("t4-small", 1800, SECRETS)
    assert WRITER not in json.dumps({key: value for key, value in spec.items() if key != "secrets"})
    assert not any(WRITER in line for line in machine.lines)
    assert [file for file in files_of(job) if WRITER.encode() in file.read_bytes()] == []
    assert recipe.load(job.recipe).compute == T4
    assert jobs.trained(project, job.id).id == job.id


def test_stop_keeps_what_was_learned_and_resume_rents_anew(project, tiny_model, hub) -> None:
    job = sent(project, tiny_model, steps=60)
    hub.freezes_at = '"step": 3, "values"'
    said = []
    for event in kept(job, hub):
        said.append(event)
        if hub.machines and hub.machines[0].frozen and not job.stop.exists():
            job.stop.touch()
        if isinstance(event, events.Progress) and "asking the rented machine" in event.what:
            threading.Thread(target=lambda: (until(hub.heard_stop, hub), hub.thaw())).start()
    assert isinstance(said[-1], Stopped), said[-1]
    assert [e.what for e in said if isinstance(e, events.Progress)].count("sending the rows to Hugging Face") == 1
    stopped = said[-1].result
    assert 3 <= stopped["steps"] < 50 and stopped["heldout_after"] is not None
    assert (job.adapter / "adapter_model.safetensors").exists()
    assert hub.machines[0].stage == "COMPLETED" and hub.hub.repos == {}
    writer = EventWriter(job.events)
    writer.write(events.Queued("train"))
    writer.close()
    job.stop.unlink()  # as jobs.resume does
    hub.freezes_at = f'"step": {stopped["steps"] + 5}, "values"'
    failed: list[Event] = []
    with pytest.raises(FTError, match="the 0.5 hours of the rented machine were over") as caught:
        for event in kept(job, hub):
            failed.append(event)
            if len(hub.machines) > 1 and hub.machines[1].frozen:
                hub.end(hub.machines[1], "ERROR", "Job timeout")
    assert "from the checkpoint of step" in caught.value.hint
    assert stopped["steps"] <= checkpoints.step_of(checkpoints.last_whole(job)) < 60
    assert len(hub.machines) == 2 and hub.hub.repos == {} and not job.rented.exists()
    is_rented(job, where="here")
    train(job)
    here = job_of(project, tiny_model, steps=60)
    train(here)
    assert same(job.adapter, here.adapter) and losses(job) == losses(here)


def test_checkpoints_are_sent_from_there_as_they_come_and_the_stop_is_heard(
    project, tiny_model, memory, endpoint, monkeypatch
) -> None:
    """The far side alone, beside a training in this process."""
    monkeypatch.setattr(far, "_LOOK_S", 0.01)
    api, repo = huggingface_hub.HfApi(endpoint=endpoint, token=WRITER), "writer/ft-flow-far"
    api.create_repo(repo, repo_type=far.KIND, private=True)
    job, over = job_of(project, tiny_model, steps=60), threading.Event()
    errands = threading.Thread(target=far._run_errands, args=(api, repo, job, over))
    errands.start()
    files = memory.repos[f"datasets/{repo}"].files
    seen: set[str] = set()
    writer = EventWriter(job.events)
    for event in sft.train_slice(job, None):
        writer.write(event)
        seen |= {path.split("/")[5] for path in list(files) if path.endswith("trainer_state.json")}
        if isinstance(event, events.Metric) and len(seen) == 2 and not job.stop.exists():
            api.upload_file(path_or_fileobj=b"", path_in_repo=far.STOP, repo_id=repo, repo_type=far.KIND)
            until_stopped = time.monotonic() + 60
            while not job.stop.exists() and time.monotonic() < until_stopped:
                time.sleep(0.01)
    writer.close()
    over.set()
    errands.join()
    assert len(seen) >= 2 and view(job).state is State.STOPPED and view(job).step < 60
    far._send(api, repo, job, "the result")
    there = {path.split("/")[5] for path in files if "/checkpoints/" in path}
    assert there == {path.name for path in job.checkpoints.iterdir()}  # those that were pruned here are gone there
    assert files[f"{far.folder_of(job.id)}/adapter/adapter_model.safetensors"] == (
        (job.adapter / "adapter_model.safetensors").read_bytes()
    )


def test_a_machine_that_is_cancelled_before_it_said_a_last_word_leaves_its_last_checkpoint(
    project, tiny_model, hub, monkeypatch
) -> None:
    """Whoever stops has waited long enough. The machine is halted, and has heard nothing."""
    here = job_of(project, tiny_model)
    train(here)
    job = sent(project, tiny_model)
    monkeypatch.setattr(rented, "_STOPS_WITHIN_S", 0.0)
    monkeypatch.setattr(rent, "_start", lambda renting, to: silent(renting, to, hub, here))
    said = []
    for event in kept(job, hub):
        said.append(event)
        if isinstance(event, events.Metric):
            job.stop.touch()
    assert isinstance(said[-1], Stopped), said[-1]
    assert (said[-1].step, said[-1].result["kept_step"], hub.machines[0].stage) == (10, 10, "CANCELED")
    mine, theirs = job.adapter, checkpoints.folder(here, 10)
    assert same(mine, theirs)
    names = {path.name for path in here.adapter.iterdir()}
    assert {path.name for path in mine.iterdir()} == names
    about_mine, about_here = (json.loads((f / "adapter_config.json").read_text()) for f in (mine, here.adapter))
    assert about_mine["base_model_name_or_path"] == about_here["base_model_name_or_path"] == tiny_model.name
    assert jobs.trained(project, job.id).id == job.id


def silent(renting: rent.Renting, to: rent.Rent, hub: Jobs, as_far_as: Job) -> huggingface_hub.JobInfo:
    """A machine that says one step, has sent the checkpoints of another training, and then nothing."""
    step = events.to_dict(events.Metric(1, {"loss": 1.0}))
    line = f"print({far.MARK + json.dumps(step)!r}, flush=True)"
    for file in files_of(as_far_as):
        path = file.relative_to(as_far_as.path).as_posix()
        if path.startswith("checkpoints/"):
            hub.hub.repos[f"datasets/{to.repo}"].files[f"{far.folder_of(renting.job.id)}/{path}"] = file.read_bytes()
    return renting.api.run_job(
        image="x", command=["python3", "-c", f"{line}; import time; time.sleep(600)"], flavor="t4-small",
        namespace=to.namespace, name=to.name,
    )  # fmt: skip


def test_the_way_is_lost_and_found_and_lines_that_were_cut_are_made_up_for(project, tiny_model, hub, monkeypatch):
    job = sent(project, tiny_model)
    said_there = [events.Started(10), events.Metric(1, {"loss": 2.0}), events.Note("half of this is lost"),
                  events.Metric(2, {"loss": 1.0}), Finished({"job": job.id, "steps": 2, "adapter": ""})]  # fmt: skip
    monkeypatch.setattr(rent, "_start", lambda renting, to: chatty(renting, to, hub, said_there))
    said = []
    for event in kept(job, hub):
        said.append(event)
        if isinstance(event, events.Metric) and event.step == 2:
            hub.down = True
        if isinstance(event, events.Note) and "cannot be reached" in event.text:
            hub.down = False
            hub.end(hub.machines[0], "COMPLETED")
    assert [e.values["loss"] for e in said if isinstance(e, events.Metric)] == [2.0, 1.0]
    assert notes(job).count("half of this is lost") == 1
    assert sum("cannot be reached" in note for note in notes(job)) == 1
    assert isinstance(said[-1], Finished) and view(job).state is State.FINISHED


def chatty(renting: rent.Renting, to: rent.Rent, hub: Jobs, said: list[Event]) -> huggingface_hub.JobInfo:
    """A machine that says so much, one line cut short, one behind a bar; the repository has it whole."""
    path = f"{far.folder_of(renting.job.id)}/events.jsonl"
    lines = [json.dumps(events.to_dict(event), ensure_ascii=False) for event in said]
    hub.hub.repos[f"datasets/{to.repo}"].files[path] += "".join(f"{line}\n" for line in lines).encode()
    shown = [far.MARK + (line[:20] if "half" in line else line) for line in ["installing torch", *lines]]
    shown = [f"Fetching 3 files:  67%|######7   | 2/3{line}" if '"step": 2' in line else line for line in shown]
    code = f"print({chr(10).join(shown)!r}, flush=True); import time; time.sleep(600)"
    return renting.api.run_job(
        image="x", command=["python3", "-c", code], namespace=to.namespace, flavor="t4-small",
        name=to.name,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("refuses", "message", "hint"),
    [
        ((402, "Pre-paid credit balance is insufficient"), "without means to pay: Pre-paid", "settings/billing"),
        ((403, "missing permissions: job.write"), "may not rent a machine: missing", "settings/tokens"),
    ],
)
def test_a_refusal_is_one_sentence_and_leaves_nothing_behind(project, tiny_model, hub, refuses, message, hint) -> None:
    job = sent(project, tiny_model)
    hub.refuses = refuses
    with pytest.raises(FTError, match=message) as caught:
        follow(job, hub)
    assert hint in caught.value.hint and WRITER not in caught.value.message + caught.value.hint
    assert hub.hub.repos == {} and not job.rented.exists()


def test_a_job_that_breaks_there_says_so(project, tiny_model, hub, monkeypatch) -> None:
    job = sent(project, tiny_model)
    monkeypatch.setattr(rent, "BEGIN", "import sys; sys.exit('no torch for this machine')")
    with pytest.raises(FTError, match="ended without a word") as caught:
        follow(job, hub)
    assert f"{hub.address}/jobs/writer/{hub.machines[0].id}" in caught.value.hint
    assert hub.hub.repos == {} and not job.rented.exists()


def test_whoever_stops_before_anything_is_rented_pays_nothing(project, tiny_model, hub) -> None:
    job = sent(project, tiny_model)
    said = []
    for event in kept(job, hub):
        said.append(event)
        job.stop.touch()
    assert isinstance(said[-1], Stopped) and hub.machines == [] and hub.hub.repos == {}


def test_a_machine_whose_id_nobody_heard_is_found_by_its_name(project, tiny_model, hub, monkeypatch) -> None:
    """The process here was killed after it had asked for the machine and before it wrote down which it got."""
    job = sent(project, tiny_model)
    start_one = rent._start

    def killed(*renting_to: rent.Renting | rent.Rent) -> None:
        start_one(*renting_to)
        os._exit(9)

    monkeypatch.setattr(rent, "BEGIN", "import time; time.sleep(600)")
    monkeypatch.setattr(rent, "_start", killed)
    if (child := os.fork()) == 0:
        with open(os.devnull, "wb") as nothing:
            os.dup2(nothing.fileno(), 2)
            follow(job, hub)
    os.waitpid(child, 0)
    assert rent.Rent.of(job).id == "" and len(hub.machines) == 1
    for event in kept(job, hub):
        if isinstance(event, events.Progress) and "installs" in event.what:
            hub.end(hub.machines[0], "CANCELED")
            job.stop.touch()
    assert len(hub.machines) == 1 and view(job).state is State.STOPPED


def test_what_cannot_be_rented_is_refused_before_a_job_is_made(project, tiny_model) -> None:
    wanted = recipe.Recipe(model=recipe.ModelRecipe(base=tiny_model.name), train=QUICK)

    def refused(compute_: ComputeRecipe, secrets: dict[str, str], **train_) -> FTError:
        with pytest.raises(FTError) as caught:
            made = replace(wanted, compute=compute_, train=replace(QUICK, **train_))
            start.start(project, made, tiny_model.parent, secrets)
        return caught.value

    assert "wants a token" in refused(T4, {}).message
    assert "no machine 't4-smal'" in refused(replace(T4, hardware="t4-smal"), SECRETS).message
    assert "'t4-small'" in refused(replace(T4, hardware="t4-smal"), SECRETS).hint
    assert "cpu-upgrade" in refused(replace(T4, hardware="quantum"), SECRETS).hint
    assert "cpu-basic has none" in refused(replace(T4, hardware="cpu-basic"), SECRETS, method="qlora").message
    assert project.jobs() == []
    compute.require(replace(wanted, compute=T4, train=replace(QUICK, method="qlora")))


def test_a_token_that_may_not_write_is_one_sentence(project, tiny_model, hub) -> None:
    job = sent(project, tiny_model)
    with pytest.raises(FTError, match="the token may not do this"):
        list(rented.run(job, {"HF_TOKEN": READER}, hub.address))
    assert hub.machines == []


def test_before_it_starts_it_is_told_what_the_machine_costs_and_cannot(project, tiny_model) -> None:
    (project.path / tiny_model.name).symlink_to(tiny_model)
    wanted = recipe.Recipe(model=recipe.ModelRecipe(base=tiny_model.name), train=QUICK, compute=T4)

    def findings(**changes) -> dict[str, tuple[str, str]]:
        made = replace(wanted, **changes)
        return {f.name: (f.kind, f"{f.text} {f.hint}") for f in preflight.preflight(project, made).findings}

    kind, text = findings()["rented"]
    assert kind == "advisory" and "a rented T4 small ($0.40 an hour), $0.20 at most: about" in text
    assert "method" not in findings(train=replace(QUICK, method="qlora"))
    basic = replace(T4, hardware="cpu-basic")
    assert findings(compute=basic, train=replace(QUICK, method="qlora"))["method"][0] == "blocking"
    assert findings(compute=replace(T4, hardware="l4"))["hardware"] == (
        "blocking", "there is no machine 'l4' to rent for a training Did you mean 'l4x1'?",
    )  # fmt: skip
    assert "rented" not in findings(compute=ComputeRecipe())
    needed = preflight.preflight(project, wanted).estimate
    assert needed.parts["libraries"] == memory.CUDA_BYTES  # of that machine, not of this one
