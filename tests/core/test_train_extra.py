"""Training arguments that a recipe hands through: which are known, which refused, and that they reach the trainer."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from trl import SFTConfig

from ft_core.errors import FTError
from ft_core.recipe import ModelRecipe, Recipe, TrainRecipe
from ft_core.train import extra, start
from ft_core.train.sft import train_slice
from ft_core.workspace import Workspace
from tests.core.trainings import lighthouse


def test_the_names_are_those_of_trls_own_dataclass():
    assert set(extra.known()) == {f.name for f in fields(SFTConfig)}
    assert set(extra._OURS) | set(extra._KEPT_BACK) <= set(extra.known())


@pytest.mark.parametrize(
    ("given", "says", "hint"),
    [
        ({"weight_decai": 0.1}, "no training argument 'weight_decai'", "Did you mean 'weight_decay'?"),
        ({"learning_rate": 1e-3}, "learning_rate is a field of the recipe itself", "train: learning_rate"),
        ({"hub_token": "hf_x"}, "hub_token cannot be set: a recipe holds no secret", ""),
        ({"output_dir": "x"}, "output_dir cannot be set", ""),
        ({"weight_decay": "much"}, "weight_decay is of the kind float, not 'much'", ""),
        ({"torch_compile": 1}, "torch_compile is of the kind bool, not 1", ""),
        ({"report_to": "wandb"}, "report_to is a field of the recipe itself", "report_to"),
    ],
)
def test_what_is_refused_is_named(given, says, hint):
    with pytest.raises(FTError) as refused:
        extra.check(given)
    assert says in refused.value.message and hint in refused.value.hint


def test_what_is_right_passes():
    extra.check({"weight_decay": 0, "optim": "adafactor", "neftune_noise_alpha": None})
    extra.check({"lr_scheduler_kwargs": {"num_cycles": 0.5}, "dataloader_num_workers": 2})


def _adapter(workspace: Workspace, base: Path, name: str, given: dict) -> dict[str, torch.Tensor]:
    project = lighthouse(workspace, name)
    train = TrainRecipe(steps=2, batch_size=4, micro_batch=4, rank=4, precision="fp32", warmup=0.0, extra=given)
    job = start.create(project, Recipe(model=ModelRecipe(base=base.name), train=train), base.parent)
    for _ in train_slice(job, None):
        pass
    return load_file(job.adapter / "adapter_model.safetensors")


def test_it_reaches_the_trainer(workspace: Workspace, tiny_model: Path):
    """Half the weight of each step is taken away at a decay of 0.5 over the rate: no other argument can do that."""
    plain = _adapter(workspace, tiny_model, "plain", {})
    decayed = _adapter(workspace, tiny_model, "decayed", {"weight_decay": 900.0})
    down = next(name for name in plain if "lora_A" in name)
    assert decayed[down].norm() < 0.7 * plain[down].norm()


def test_the_libraries_own_refusal_is_a_sentence(workspace: Workspace, tiny_model: Path):
    with pytest.raises(FTError, match="these training arguments are refused: .*no_such"):
        _adapter(workspace, tiny_model, "refused", {"optim": "no_such"})


def test_a_wrong_name_makes_no_job(workspace: Workspace, tiny_model: Path):
    project = lighthouse(workspace, "wrong")
    wanted = Recipe(model=ModelRecipe(base=tiny_model.name), train=TrainRecipe(extra={"weight_decai": 0.1}))
    with pytest.raises(FTError, match="weight_decai"):
        start.create(project, wanted, tiny_model.parent)
    assert project.jobs() == []
