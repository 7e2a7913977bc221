"""The model and its adapter as Unsloth makes them. Only for a process that `engines.enter` made one of Unsloth's."""

from __future__ import annotations

from pathlib import Path

import torch
import unsloth
from peft import PeftModel
from transformers import AutoConfig, PreTrainedModel

from ..errors import FTError
from ..recipe import TrainRecipe
from . import methods
from .limits import CHECKPOINTED_FROM
from .model import DTYPES


def load_base(folder: Path, precision: str, device: torch.device, method: str) -> PreTrainedModel:
    """The base model, frozen, in `precision` (a key of model.DTYPES), at 4 bits for qlora.

    Raises FTError when it is not a model that Unsloth knows.
    """
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True).get_text_config()
        model, _ = unsloth.FastLanguageModel.from_pretrained(
            str(folder),
            # The model's own: it cuts rows that are longer, and stretches the positions of a model that sees less.
            max_seq_length=config.max_position_embeddings,
            dtype=DTYPES[precision],
            load_in_4bit=method in methods.QUANTIZED,
            device_map={"": device},
            use_gradient_checkpointing=False,  # `learning` decides that
            local_files_only=True,
        )
    except (OSError, ValueError, KeyError, NotImplementedError, RuntimeError) as error:
        raise FTError(
            f"unsloth cannot load {folder.name}: {str(error).splitlines()[0]}", "Choose the engine trl."
        ) from None
    return model.requires_grad_(False)


def learning(model: PreTrainedModel, recipe: TrainRecipe) -> PeftModel:
    """`model` with a fresh adapter in fp32 on every linear layer but the head; the seed decides its first weights."""
    tuned = unsloth.FastLanguageModel.get_peft_model(
        model,
        r=recipe.rank,
        lora_alpha=recipe.alpha,
        lora_dropout=recipe.dropout,
        use_rslora=recipe.method == "rslora",
        target_modules="all-linear",
        bias="none",
        use_gradient_checkpointing="unsloth" if model.num_parameters() >= CHECKPOINTED_FROM else False,
        random_state=recipe.seed,
    )
    for parameter in tuned.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    return tuned
