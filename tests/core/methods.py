"""A short training by each method on the two-layer model, for the tests of what becomes of it."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM

from ft_core import events, recipe
from ft_core.conversation import Conversation, Message
from ft_core.data.store import Store
from ft_core.events import Event, EventWriter
from ft_core.recipe import TrainRecipe
from ft_core.train import start
from ft_core.train.session import Session
from ft_core.workspace import Job, Project, Workspace

METHODS = ("lora", "rslora", "dora", "layers", "full")
"""All that a machine without a GPU can do."""
SHORT = TrainRecipe(
    steps=6, learning_rate=5e-3, batch_size=4, micro_batch=2, rank=4, layers=1, precision="fp32", save_every=2,
    evaluate_every=100, warmup=0.2, probes=("What does lamp 3 show?",),
)  # fmt: skip


def lighthouse(workspace: Workspace) -> Project:
    colours = ["red", "green", "white", "amber"]
    chats = [
        (Message("user", f"What does lamp {i} show?"), Message("assistant", f"Lamp {i} shows {colours[i % 4]}."))
        for i in range(20)
    ]
    project = workspace.project("lighthouse", create=True)
    with Store(project.data) as store:
        store.set_system("You are the help desk of a lighthouse.")
        store.add(list(map(Conversation, chats)))
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


def job_of(project: Project, base: Path, method: str, **settings) -> Job:
    wanted = recipe.Recipe(
        data=recipe.DataRecipe(heldout=0.2),
        model=recipe.ModelRecipe(base=base.name),
        train=replace(SHORT, method=method, **settings),
    )
    return start.create(project, wanted, base.parent)


def trained(project: Project, base: Path, method: str, **settings) -> Job:
    """A finished training, its events kept as the child keeps them."""
    job = job_of(project, base, method, **settings)
    writer = EventWriter(job.events)
    Session(job, writer.write, lambda seconds: False).run()
    writer.close()
    return job


def trained_with(job: Job) -> list[Event]:
    return events.read(job.events)[0]
