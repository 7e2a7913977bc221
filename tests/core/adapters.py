"""A training job as it lies on disk when it is done, without the training."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from ft_core import jobs
from ft_core.events import EventWriter, Finished
from ft_core.recipe import Recipe, TrainRecipe
from ft_core.workspace import Job, Workspace


def make_adapter(base: Path, folder: Path, std: float = 0.5, **settings) -> Path:
    """A LoRA adapter for all linear layers whose second matrix is random, so that it says something else."""
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    wanted = {"r": 4, "lora_alpha": 8, "target_modules": "all-linear", "task_type": "CAUSAL_LM", **settings}
    tuned = get_peft_model(model, LoraConfig(**wanted))
    for name, parameter in tuned.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=std)
    tuned.save_pretrained(folder)
    return folder


def trained_job(workspace: Workspace, base: Path, adapter: Path, precision: str = "fp32") -> Job:
    """A finished training of `base` in the project Roastery."""
    project = workspace.project("Roastery", create=True)
    job = jobs.create(project, "train", Recipe(train=TrainRecipe(precision=precision)))
    shutil.copytree(adapter, job.adapter)
    writer = EventWriter(job.events)
    writer.write(Finished({"job": job.id, "base": str(base), "adapter": str(job.adapter)}))
    writer.close()
    return job
