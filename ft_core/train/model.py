"""The model in memory: where it computes, in which arithmetic, and with which adapter."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, PreTrainedModel

from ..errors import FTError
from ..machine import this_machine
from ..recipe import TrainRecipe

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
CHECKPOINTED_FROM = 1_000_000_000
"""Parameters from which activations are computed again on the way back instead of kept (gradient checkpointing)."""
SHORT = 256
"""Tokens up to which a CPU is a seventh faster with plain attention, whose memory grows with their square."""


def best_device() -> torch.device:
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def best_precision(device: torch.device) -> str:
    """bf16 where the hardware multiplies it, else what the hardware is fast at."""
    if device.type == "cuda":
        return "bf16" if torch.cuda.get_device_capability(device)[0] >= 8 else "fp16"
    if device.type == "cpu":
        can = torch.cpu.get_capabilities()
        return "bf16" if can.get("avx512_bf16") or can.get("amx_bf16") else "fp32"
    return "fp32"


def use_all_cores() -> None:
    """One thread a physical core, in the thread that calls; OMP_NUM_THREADS, where it is set, says otherwise."""
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS") or this_machine().cores))


def best_attention(device: torch.device, longest: int) -> str:
    """How attention is computed for rows of up to `longest` tokens, in transformers' words."""
    return "eager" if device.type == "cpu" and longest <= SHORT else "sdpa"


def use_one_gpu() -> None:
    """Hides all CUDA devices but the first: one process trains on one. To be called before torch touches them."""
    os.environ["CUDA_VISIBLE_DEVICES"] = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]


def load_base(folder: Path, precision: str, device: torch.device, attention: str = "sdpa") -> PreTrainedModel:
    """The base model, frozen, in `precision` (a key of DTYPES). Raises FTError when it is not a causal chat model."""
    try:
        model = AutoModelForCausalLM.from_pretrained(
            folder, dtype=DTYPES[precision], attn_implementation=attention, local_files_only=True
        )
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise FTError(
            f"{folder.name} cannot be loaded: {str(error).splitlines()[0]}", "Choose another base model."
        ) from None
    return model.to(device).requires_grad_(False)


def add_adapter(model: PreTrainedModel, recipe: TrainRecipe) -> PeftModel:
    """A fresh LoRA adapter in fp32 on every linear layer but the head; the seed decides its first weights."""
    torch.manual_seed(recipe.seed)
    lora = LoraConfig(
        r=recipe.rank,
        lora_alpha=recipe.alpha,
        lora_dropout=recipe.dropout,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )
    return get_peft_model(model, lora)
