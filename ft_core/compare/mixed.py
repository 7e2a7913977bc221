"""An adapter that answers for some rows of a batch, while the base answers for the others.

PEFT mixes adapters in one batch too (`adapter_names`), by sorting the rows out anew in every layer for any number of
adapters. Here there is one adapter and its rows stand last, so that its product is one addition to a slice.
"""

from __future__ import annotations

from pathlib import Path

import torch
from peft import PeftConfig, PeftModel
from peft.tuners.lora import Linear as LoraLinear
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers import PreTrainedModel

from ..errors import FTError
from ..train.further import for_another_base, shape_text
from ..train.weights import CHANGED

# PiSSA, OLoRA and their like take something out of the base's own weights when they begin: "before" is gone by then.
_BASE_IS_LEFT_ALONE = (True, False, "gaussian", "orthogonal", "eva")


class Tuned:
    """Which rows of the batch the adapter answers for: those from `first` on."""

    def __init__(self) -> None:
        self.first = 0


class TunedRows(nn.Module):
    """A linear layer, and its LoRA product added to the tuned rows alone. Takes and gives [rows, tokens, width]."""

    def __init__(self, lora: LoraLinear, tuned: Tuned):
        super().__init__()
        (name,) = lora.active_adapters
        self.base = lora.base_layer
        weight = self.base.weight
        self.down = lora.lora_A[name].weight.detach().to(weight).T.contiguous()
        self.up = (lora.lora_B[name].weight.detach() * lora.scaling[name]).to(weight).T.contiguous()
        self.tuned = tuned

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.base(x)
        if self.tuned.first < len(x):
            y[self.tuned.first :] += x[self.tuned.first :] @ self.down @ self.up
        return y


def attach(model: PreTrainedModel, adapter: Path) -> Tuned:
    """Puts the adapter into `model`, for the rows that the returned value names (all of them at first).

    The base's weights stay as they are. Raises FTError as `check` does; DoRA is not for here (see apart.py).
    """
    check(model, adapter)
    tuned = Tuned()
    wrapped = PeftModel.from_pretrained(model, adapter, torch_device=str(model.device))
    layers = {n: m for n, m in wrapped.get_base_model().named_modules() if isinstance(m, LoraLinear)}
    for name, layer in layers.items():
        model.set_submodule(name, TunedRows(layer, tuned))
    return tuned


def check(model: PreTrainedModel, adapter: Path) -> None:
    """Raises FTError unless the folder holds what fits `model`: LoRA or DoRA on linear layers, or changed weights."""
    if (adapter / CHANGED).exists():
        for name, shape in _shapes(adapter / CHANGED).items():
            _check_weight(model, name, shape)
        return
    weights = adapter / "adapter_model.safetensors"
    if not weights.exists() or not (adapter / "adapter_config.json").exists():
        raise FTError(f"there is no adapter in {adapter.parent.name}/{adapter.name}", "Train first.")
    _check_kind(PeftConfig.from_pretrained(adapter))
    for key, shape in _shapes(weights).items():
        _check_shape(model, key, shape)


def _shapes(weights: Path) -> dict[str, tuple[int, ...]]:
    try:
        with safe_open(weights, "pt") as file:
            return {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}
    except SafetensorError as error:
        raise FTError(f"the trained weights cannot be read: {error}", "Train again, or restore the file.") from None


def _check_kind(config: PeftConfig) -> None:
    why = ""
    if config.peft_type != "LORA":
        why = f"it is {config.peft_type.lower()}, not LoRA"
    elif config.init_lora_weights not in _BASE_IS_LEFT_ALONE:
        why = f"it began as {config.init_lora_weights}, which changes the base's own weights"
    if why:
        _refuse(why)


def _check_shape(model: PreTrainedModel, key: str, shape: tuple[int, ...]) -> None:
    path, _, part = key.removeprefix("base_model.model.").rpartition(".lora_")
    if part not in ("A.weight", "B.weight", "magnitude_vector"):
        _refuse(f"it holds {key.removeprefix('base_model.model.')}")
    try:
        layer = model.get_submodule(path)
    except AttributeError:
        raise for_another_base(f"there is no layer {path} in this base") from None
    if not isinstance(layer, nn.Linear):
        _refuse(f"it changes {path}, a {type(layer).__name__}")
    width, mine = (layer.in_features, shape[1]) if part[0] == "A" else (layer.out_features, shape[0])
    if width != mine:
        raise for_another_base(f"{path} is {width} wide here and {mine} in the adapter")


def _check_weight(model: PreTrainedModel, name: str, shape: tuple[int, ...]) -> None:
    try:
        here = tuple(model.get_parameter(name).shape)
    except AttributeError:
        raise for_another_base(f"there is no weight {name} in this base") from None
    if here != shape:
        raise for_another_base(f"{name} is {shape_text(here)} here and {shape_text(shape)} in what was trained")


def _refuse(why: str) -> None:
    raise FTError(
        f"this adapter cannot answer next to its base: {why}",
        "Before and after are compared for LoRA and DoRA on linear layers. Export it merged, and ask that.",
    )
