"""The model of a training, as its engine makes it: loaded, and with what of it learns."""

from __future__ import annotations

from pathlib import Path

import torch
from peft import PeftModel
from transformers import PreTrainedModel

from ..recipe import TrainRecipe
from . import packable
from .model import best_attention, best_device, learning, load_base


def loaded(base: Path, train: TrainRecipe, longest: int, shared_out: bool) -> PreTrainedModel:
    """The base model, frozen, for rows of up to `longest` tokens; in the memory of the CPU before it is shared out.

    Raises FTError when it cannot be loaded.
    """
    device = best_device()
    if train.engine == "unsloth":
        from . import by_unsloth  # not everybody has it

        return by_unsloth.load_base(base, train.precision, device, train.method)
    there = torch.device("cpu") if shared_out else device
    model = load_base(base, train.precision, there, best_attention(device, longest), train.method)
    if device.type == "cpu":
        packable.use(model, longest)
    return model


def made_to_learn(model: PreTrainedModel, train: TrainRecipe, origin: Path | None) -> PeftModel | PreTrainedModel:
    """`model` with what the recipe's method trains; as it was trained before in `origin`, where there is one."""
    if train.engine == "unsloth":
        from . import by_unsloth

        return by_unsloth.learning(model, train)
    return learning(model, train, origin)
