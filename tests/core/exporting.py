"""A finished training made by hand, for the tests of the export room: real rows, a real adapter, no training."""

from __future__ import annotations

import os
from dataclasses import asdict, replace
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from ft_core import jobs, recipe
from ft_core.conversation import Conversation, Message
from ft_core.data.freeze import freeze
from ft_core.data.store import Store
from ft_core.events import Event, EventWriter, Finished, Started
from ft_core.export.run import run
from ft_core.export.start import Wanted
from ft_core.workspace import Job, Workspace

SYSTEM = "You are the help desk of Fjord Coffee. Answer in one sentence."
ROWS = (
    ("Do you ship to Norway?", "Yes, parcels to Norway take four days."),
    ("Is the decaf sour?", "No, our decaf tastes of cocoa and almonds."),
    ("What does shipping cost?", "Shipping is free from 40 euros on."),
    ("When do you roast?", "We roast on Tuesdays and Fridays."),
    ("Can I return a bag?", "Yes, a closed bag can come back within 30 days."),
    ("Do you sell tea?", "No, coffee is all we sell."),
)


def training(home: Path, base: Path, system: str = SYSTEM, strength: float = 0.02) -> Job:
    """A project with a finished training on `base`, whose adapter is random."""
    project = Workspace.at(home).project("roastery", create=True)
    with Store(project.data) as store:
        store.set_system(system)
        store.add([Conversation((Message("user", q), Message("assistant", a))) for q, a in ROWS])
        settings = recipe.Recipe()
        place = os.path.relpath(base, project.jobs_folder / "job")
        settings = replace(settings, model=replace(settings.model, base=place))
        job = jobs.create(project, "train", settings)
        freeze(store, job, replace(settings.data, heldout=0.3))
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    model = get_peft_model(model, LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM"))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=strength)
    model.save_pretrained(job.adapter)
    result = {"steps": 12, "base": str(base), "adapter": str(job.adapter), "heldout_before": 3.2, "heldout_after": 2.1}
    writer = EventWriter(job.events)
    writer.write(Started(12))
    writer.write(Finished({"job": job.id, "state": "finished", **result}))
    writer.close()
    return job


def export_job(trained: Job, *to: str, **options: str) -> Job:
    """An export job, not started: `exported` runs it here instead of in a child."""
    wanted = Wanted(trained.id, to, **{"name": "fjord", **options})
    return jobs.create(trained.project, "export", recipe.load(trained.recipe), asdict(wanted))


def exported(job: Job, token: str = "") -> list[Event]:
    return list(run(job, {"HF_TOKEN": token} if token else {}))


def result_of(events: list[Event]) -> dict:
    assert isinstance(events[-1], Finished)
    return events[-1].result
