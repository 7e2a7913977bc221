"""Short trainings on the two-layer model, for tests of what may happen to one, and of what becomes of it."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from unittest import mock

import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from ft_core import events, recipe
from ft_core.conversation import Conversation, Message
from ft_core.data.store import Store
from ft_core.events import Event, EventWriter, JobView, Metric
from ft_core.recipe import TrainRecipe
from ft_core.train import probes, start
from ft_core.train.sft import train_slice
from ft_core.workspace import Job, Project, Workspace

SYSTEM = "You are the help desk of a lighthouse."
METHODS = ("lora", "rslora", "dora", "layers", "full")
"""All that a machine without a GPU can do."""
QUICK = TrainRecipe(
    steps=10, learning_rate=5e-3, batch_size=4, micro_batch=2, rank=4, precision="fp32", save_every=2,
    evaluate_every=4, warmup=0.2, probes=("What does lamp 3 show?",),
)  # fmt: skip


def lighthouse(workspace: Workspace, name: str = "lighthouse", contrary: bool = False) -> Project:
    """24 rows. Where `contrary`, five held-out ones more, of which training makes a model think less and less."""
    colours = ["red", "green", "white", "amber"]
    project = workspace.project(name, create=True)
    with Store(project.data) as store:
        store.set_system(SYSTEM)
        store.add(
            [
                Conversation(
                    (
                        Message("user", f"What does lamp {i} show{' tonight, please' * (i % 5)}?"),
                        Message("assistant", f"Lamp {i} shows {colours[i * 7 % 4]}{' and blinks' * (i % 3)}."),
                    )
                )
                for i in range(24)
            ]
        )
        if contrary:
            for i in range(5):
                store.add([Conversation((Message("user", f"Und Zug {i}?"), Message("assistant", "Zug um Zug " * 4)))])
            rows = [(id, "heldout" if "Zug" in row.canonical() else "train") for id, row, _ in store.conversations()]
            store.set_split(rows, 0.2, 0)
    return project


def talkative(tiny_model: Path, folder: Path) -> Path:
    """The tiny model with weights so large that it does not repeat one token for ever."""
    shutil.copytree(tiny_model, folder)
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    with torch.no_grad():
        for layer in model.model.layers.parameters():
            if layer.dim() == 2:
                layer *= 20
    model.save_pretrained(folder)
    return folder


def created(project: Project, base: Path, train: TrainRecipe, heldout: float = 0.1) -> Job:
    """The job of a training, not started."""
    data, model = recipe.DataRecipe(heldout=heldout), recipe.ModelRecipe(base=base.name)
    return start.create(project, recipe.Recipe(data=data, model=model, train=train), base.parent)


def job_of(project: Project, base: Path, heldout: float = 0.2, **settings) -> Job:
    return created(project, base, replace(QUICK, **settings), heldout)


def by_method(project: Project, base: Path, method: str, **settings) -> Job:
    return job_of(project, base, **{"method": method, "steps": 6, "layers": 1, "evaluate_every": 100, **settings})


def trained(project: Project, base: Path, method: str, **settings) -> Job:
    """A finished training."""
    job = by_method(project, base, method, **settings)
    train(job)
    return job


def train(job: Job, deadline: float | None = None) -> list[Event]:
    """One slice, its events kept as the child keeps them."""
    writer = EventWriter(job.events)
    found = []
    try:
        with mock.patch.object(probes, "ANSWER_TOKENS", 3):  # nobody reads them here
            for event in train_slice(job, deadline):
                writer.write(event)
                found.append(event)
    finally:
        writer.close()
    return found


def events_of(job: Job) -> list[Event]:
    return events.read(job.events)[0]


def view(job: Job) -> JobView:
    return events.fold(events_of(job))


def losses(job: Job) -> dict[int, float]:
    return {step: figures["loss"] for step, figures in view(job).metrics.items() if "loss" in figures}


def curve(job: Job) -> dict[int, float]:
    return {step: figures["heldout_loss"] for step, figures in view(job).metrics.items() if "heldout_loss" in figures}


def steps_said(job: Job) -> list[int]:
    """Of each step's figures as they were written, those that were done again twice."""
    return [e.step for e in events_of(job) if isinstance(e, Metric) and "loss" in e.values]


def notes(job: Job) -> list[str]:
    return [note.text for note in view(job).notes]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "adapter_model.safetensors")


def same(one: Path, other: Path) -> bool:
    """Whether two folders have the same adapter to the last bit."""
    a, b = weights(one), weights(other)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
