"""Training by Unsloth, against FT Flow's own engine: on a CPU by tests/stand_ins/unsloth_on_cpu.py.

Each training is a process of its own, as it is for people: Unsloth changes the libraries of the one that imports it.
In fp32: without a GPU it takes fp16 for bf16.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from ft_core import events, jobs
from ft_core.data.freeze import read_frozen
from ft_core.events import JobView, State
from ft_core.render import Renderer
from ft_core.train import engines
from ft_core.train.loss import mean_loss, row_losses
from ft_core.workspace import Job, Workspace
from tests.core import trainings

pytestmark = [
    pytest.mark.unsloth,
    pytest.mark.skipif(importlib.util.find_spec("unsloth") is None, reason="unsloth is not installed"),
    pytest.mark.timeout(1800),
]
STEPS = 6


def _job(workspace: Workspace, base: Path, **settings) -> Job:
    project = trainings.lighthouse(workspace)
    with pytest.MonkeyPatch.context() as as_if:  # this machine had a GPU
        as_if.setattr(engines, "why_not", lambda wanted, machine: "")
        return trainings.job_of(project, base, steps=STEPS, **settings)


def _start(job: Job) -> subprocess.Popen:
    command = [sys.executable, "-m", "tests.stand_ins.unsloth_on_cpu", str(job.project.workspace.home), str(job.path)]
    root = Path(__file__).resolve().parents[2]
    with job.log.open("ab") as log:
        return subprocess.Popen(command, cwd=root, stdin=subprocess.DEVNULL, stdout=log, stderr=log)


def _view(job: Job) -> JobView:
    return events.fold(events.read(job.events)[0])


def _trained(job: Job) -> JobView:
    _start(job).wait()
    view = _view(job)
    assert view.state is State.FINISHED, job.log.read_text()
    return view


def _losses(view: JobView) -> list[float]:
    return [figures["loss"] for figures in view.metrics.values() if "loss" in figures]


@pytest.fixture(scope="module")
def both(tmp_path_factory, tiny_model) -> tuple[Job, JobView, JobView]:
    """The job by Unsloth, how it went, and how it went by trl."""
    workspace = Workspace.at(tmp_path_factory.mktemp("unsloth"))
    job = _job(workspace, tiny_model, engine="unsloth")
    plain = trainings.job_of(job.project, tiny_model, steps=STEPS)
    trainings.train(plain)
    return job, _trained(job), _view(plain)


def test_each_steps_loss_is_that_of_the_other_engine(both):
    _, unsloth, plain = both
    assert len(_losses(unsloth)) == STEPS
    assert _losses(unsloth) == pytest.approx(_losses(plain), rel=0.02)
    assert _losses(plain)[-1] < _losses(plain)[0] - 0.1  # it did learn, so the comparison says something
    assert [sample.step for sample in unsloth.samples] == [sample.step for sample in plain.samples]


def test_what_it_leaves_is_a_plain_adapter_with_the_figures_that_were_told(both, tiny_model):
    job, unsloth, plain = both
    base = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    model = PeftModel.from_pretrained(base, job.adapter).eval()
    renderer = Renderer.of(tiny_model)
    rows = [renderer.example(row.conversation, 512) for row in read_frozen(job.dataset) if row.split == "heldout"]
    after = mean_loss(row_losses(model, rows, 0))
    with model.disable_adapter():
        before = mean_loss(row_losses(model, rows, 0))
    told = unsloth.result
    assert (told["heldout_before"], told["heldout_after"]) == pytest.approx((before, after), abs=1e-4)
    assert told["heldout_before"] == pytest.approx(plain.result["heldout_before"], abs=1e-4)
    assert after < before


def test_it_stops_and_goes_on(both, tmp_path, tiny_model):
    whole = both[1]
    job = _job(Workspace.at(tmp_path), tiny_model, engine="unsloth")
    process = _start(job)
    while _view(job).step < 2 and process.poll() is None:
        time.sleep(0.05)
    jobs.stop(job)
    process.wait()
    assert _view(job).state is State.STOPPED, job.log.read_text()
    job.stop.unlink()
    assert _losses(_trained(job)) == pytest.approx(_losses(whole), rel=1e-4)
