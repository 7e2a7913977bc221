"""The model in memory: where it computes, in which arithmetic, and what of it learns."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from ..errors import FTError
from ..machine import this_machine
from ..recipe import TrainRecipe
from . import further, methods, together, weights
from .fast import use_fast_lora
from .limits import SHORT

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


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
    """One thread a physical core, in the thread that calls; OMP_NUM_THREADS, where it is set, says otherwise.

    Processes that train together share the cores.
    """
    mine = max(1, this_machine().cores // together.count())
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS") or mine))


def best_attention(device: torch.device, longest: int) -> str:
    """How attention is computed for rows of up to `longest` tokens, in transformers' words."""
    return "eager" if device.type == "cpu" and longest <= SHORT else "sdpa"


def use_one_gpu() -> None:
    """Hides all CUDA devices but the first: one process trains on one. To be called before torch touches them."""
    os.environ["CUDA_VISIBLE_DEVICES"] = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]


def load_base(
    folder: Path, precision: str, device: torch.device, attention: str = "sdpa", method: str = "lora"
) -> PreTrainedModel:
    """The base model, frozen, in `precision` (a key of DTYPES): whole in fp32 for `full`, at 4 or 8 bits for qlora.

    Raises FTError when it is not a causal chat model.
    """
    stored = {"dtype": torch.float32 if method == "full" else DTYPES[precision]}
    if method in methods.QUANTIZED:
        stored |= {"quantization_config": _quantized(method, precision), "device_map": {"": device}}
    try:
        model = AutoModelForCausalLM.from_pretrained(
            folder, attn_implementation=attention, local_files_only=True, **stored
        )
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise FTError(
            f"{folder.name} cannot be loaded: {str(error).splitlines()[0]}", "Choose another base model."
        ) from None
    if method not in methods.QUANTIZED:  # bitsandbytes puts its weights where they belong, and they do not move
        model.to(device)
    return model.requires_grad_(False)


def _quantized(method: str, precision: str) -> BitsAndBytesConfig:
    """QLoRA's own settings (Dettmers et al., 2023), or LLM.int8."""
    if methods.QUANTIZED[method] == 8:
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=DTYPES[precision],
    )


def learning(model: PreTrainedModel, recipe: TrainRecipe, origin: Path | None = None) -> PeftModel | PreTrainedModel:
    """`model` with what the recipe's method trains: an adapter, its last layers, or all of it; in fp32.

    It is as it was trained before where `origin`, a folder of train/further.py, says so, and else fresh. Raises
    FTError when the model has fewer layers than are to learn, or `origin` is of another model.
    """
    if origin:
        further.require_fit(further.shapes_of(further.weights_in(origin)), _shapes(model))
    if methods.leaves_adapter(recipe.method):
        tuned = _trained_adapter(model, recipe, origin) if origin else add_adapter(model, recipe)
        use_fast_lora(tuned)
        return tuned
    if recipe.method == "layers":
        _open_last(model, recipe.layers)
    else:
        model.requires_grad_(True)
    if origin:
        weights.put(model, origin)
    return model


def _trained_adapter(model: PreTrainedModel, recipe: TrainRecipe, origin: Path) -> PeftModel:
    torch.manual_seed(recipe.seed)  # of the dropout, as for a fresh one
    config = LoraConfig.from_pretrained(origin)
    config.lora_dropout = recipe.dropout
    return PeftModel.from_pretrained(model, origin, is_trainable=True, config=config, torch_device=str(model.device))


def _shapes(model: PreTrainedModel) -> dict[str, tuple[int, ...]]:
    """Of its weights by name; a linear layer's is (out, in), however it is kept."""
    found = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            found[f"{name}.weight"] = (module.out_features, module.in_features)
        elif isinstance(module, Conv1D):  # GPT-2's, which are (in, out)
            found[f"{name}.weight"] = tuple(reversed(module.weight.shape))
    return found


def add_adapter(model: PreTrainedModel, recipe: TrainRecipe) -> PeftModel:
    """A fresh adapter in fp32 on every linear layer but the head; the seed decides its first weights."""
    torch.manual_seed(recipe.seed)
    lora = LoraConfig(
        r=recipe.rank,
        lora_alpha=recipe.alpha,
        lora_dropout=recipe.dropout,
        use_rslora=recipe.method == "rslora",
        use_dora=recipe.method == "dora",
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )
    return get_peft_model(model, lora)


def flops(model: PeftModel | PreTrainedModel, tokens: int) -> float:
    """About how many floating-point operations training on so many tokens takes: of each weight two a token on the
    way forward, two on the way back, and two more where it learns (Kaplan et al., 2020, section 2.1)."""
    learning = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    return tokens * (4.0 * sum(weight.numel() for weight in model.parameters()) + 2.0 * learning)


def layers_of(model: PreTrainedModel) -> nn.ModuleList:
    """The decoder's layers, in their order. Raises FTError for a model that keeps them elsewhere than most."""
    for part in model.base_model.children():
        if isinstance(part, nn.ModuleList):
            return part
    raise FTError(f"the layers of a {type(model).__name__} are not found", "Choose the method lora or full.")


def _open_last(model: PreTrainedModel, count: int) -> None:
    """Lets the last `count` layers and the final norm learn, in fp32, whatever those before and the head are in."""
    layers = layers_of(model)
    if count > len(layers):
        raise FTError(
            f"{count} layers are to learn, and this model has {len(layers)}", "Lower layers, or choose full."
        )
    parts = list(model.base_model.children())
    behind = parts[next(i for i, part in enumerate(parts) if part is layers) + 1 :]
    for part in (*layers[-count:], *behind):
        part.float().requires_grad_(True)
    # What passes from the narrow layers into these, and from these into the head, is in the arithmetic of the next.
    layers[-count].register_forward_pre_hook(_into_own)
    model.get_output_embeddings().register_forward_pre_hook(_into_own)


def _into_own(module: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
    """The first argument, hidden states, in the arithmetic of the module's weights."""
    hidden: Tensor = given[0]
    return (hidden.to(next(module.parameters()).dtype), *given[1:])
