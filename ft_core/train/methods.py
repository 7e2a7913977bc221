"""What each method of training is, what it needs and what it leaves behind. Torch-free: the page asks here too."""

from __future__ import annotations

import importlib.util

from ..errors import FTError
from ..machine import Machine
from ..recipe import TrainRecipe
from .limits import CHECKPOINTED_FROM

QUANTIZED = {"qlora": 4, "qlora-8bit": 8}
"""Methods that keep the base at so many bits a weight while they train."""
WEIGHTS = ("layers", "full")
"""Methods that change weights of the model itself, and leave these behind instead of an adapter."""
FULL_RATE = 5e-5
"""The largest learning rate that training the model's own weights usually stands."""
LARGE_RANK = 64
"""From here on LoRA's plain scale, alpha / rank, makes a larger adapter learn no more (Kalajdzievski, 2023)."""


def leaves_adapter(method: str) -> bool:
    """Whether what it leaves is an addition to the base, in PEFT's files; else it is changed weights of the base."""
    return method not in WEIGHTS


def why_not(method: str, machine: Machine) -> str:
    """Why this machine cannot train so, as a sentence; '' when it can."""
    if method not in QUANTIZED:
        return ""
    if not machine.gpu or machine.gpu == "Apple GPU":
        return f"{method} needs an NVIDIA GPU (CUDA), and this machine has {'an Apple GPU' if machine.gpu else 'none'}"
    if importlib.util.find_spec("bitsandbytes") is None:
        return f"{method} needs the package bitsandbytes, which is not installed"
    return ""


WHAT_INSTEAD = "Choose the method lora, or train on a machine with an NVIDIA GPU and `pip install bitsandbytes`."
"""The hint that goes with `why_not`."""


def require(method: str, machine: Machine) -> None:
    """Raises FTError when `machine` cannot train so."""
    if why := why_not(method, machine):
        raise FTError(why, WHAT_INSTEAD)


def advice(train: TrainRecipe) -> list[tuple[str, str]]:
    """What the settings make unlikely to go well: each with what to do about it."""
    found = []
    if train.method in WEIGHTS and train.learning_rate > FULL_RATE:
        what = (
            f"a learning rate of {train.learning_rate:g} suits an adapter; the model's own weights usually break down"
        )
        found.append((f"{what} under it (method {train.method})", f"Lower it to {FULL_RATE:g} or 2e-5."))
    if train.method in WEIGHTS and train.dropout:
        what = f"dropout has no effect with the method {train.method}: it leaves out inputs of an adapter"
        found.append((what, "Set it to 0, or choose lora."))
    if train.method == "lora" and train.rank >= LARGE_RANK:
        what = f"an adapter of rank {train.rank} learns less than its size allows under plain lora"
        found.append((what, "Choose the method rslora."))
    return found


def why_not_compiled(train: TrainRecipe, parameters: int, machine: Machine) -> str:
    """Why the layers of a model of so many parameters stay as they are, as a sentence; '' when compiling works."""
    if machine.gpu:
        return "compiling layers is for CPUs"
    if not leaves_adapter(train.method) or train.method == "dora" or train.dropout:
        return "compiling layers is for the methods lora and rslora, without dropout"
    if parameters >= CHECKPOINTED_FROM:
        return "layers of models from a billion parameters on are not compiled"
    return ""


def words(train: TrainRecipe) -> str:
    """The method with its size, as a model card says it."""
    size = f"rank {train.rank}, alpha {train.alpha}"
    match train.method:
        case "layers":
            return f"the last {train.layers} layers and the final norm trained, all else frozen"
        case "full":
            return "full fine-tuning of all weights"
        case "qlora" | "qlora-8bit":
            return f"QLoRA ({QUANTIZED[train.method]}-bit base) {size}"
        case method:
            return f"{NAMES[method]} {size}"


NAMES = {
    "lora": "LoRA",
    "rslora": "rsLoRA",
    "dora": "DoRA",
    "qlora": "QLoRA",
    "qlora-8bit": "QLoRA (8-bit)",
    "layers": "last layers",
    "full": "full fine-tuning",
}
"""As the field calls them."""
