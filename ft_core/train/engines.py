"""Which library computes an adapter's training: FT Flow's own parts on TRL, or Unsloth's kernels. Torch-free.

Unsloth changes transformers, peft and TRL for the whole process when it is imported, so it lives in a training's
process alone and comes first there.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

from ..errors import FTError
from ..machine import Machine
from ..recipe import Recipe

UNSLOTH_METHODS = ("lora", "rslora", "qlora")
"""What its kernels are for. It has no DoRA kernel, and what trains the model's own weights has no adapter."""
WHAT_INSTEAD = "Choose the engine trl, which does all that there is to choose."


def why_not(wanted: Recipe, machine: Machine) -> str:
    """Why the recipe's engine cannot train so on `machine`, as a sentence; '' when it can."""
    train = wanted.train
    if train.engine == "trl":
        return ""
    if train.method not in UNSLOTH_METHODS:
        return f"the engine unsloth trains {', '.join(UNSLOTH_METHODS)}, and the method is {train.method}"
    if train.learns == "preferences":
        return "the engine unsloth does not learn from preferences here"
    if wanted.model.adapter:
        return "the engine unsloth begins with a fresh adapter, and the recipe names one to go on from"
    if wanted.compute.where != "here" or wanted.compute.processes > 1:
        return "the engine unsloth trains in one process on this machine"
    if importlib.util.find_spec("unsloth") is None:
        return "the engine unsloth needs the package unsloth, which is not installed"
    if not machine.gpu or machine.gpu == "Apple GPU":
        has = "an Apple GPU" if machine.gpu else "none"
        return f"the engine unsloth needs an NVIDIA GPU (CUDA), and this machine has {has}"
    return ""


def require(wanted: Recipe, machine: Machine) -> None:
    """Raises FTError when `machine` cannot train with the recipe's engine."""
    if why := why_not(wanted, machine):
        install = " To install it: pip install -r space_config/requirements-gpu.txt" if "not installed" in why else ""
        raise FTError(why, WHAT_INSTEAD + install)


def enter(engine: str, cache: Path) -> None:
    """Makes this process one of `engine`; what Unsloth writes for itself goes into `cache`.

    To be called before anything imports transformers. Raises FTError where that is too late, or Unsloth does not load.
    """
    if engine == "trl" or "unsloth" in sys.modules:
        return
    if "transformers" in sys.modules:
        raise FTError("the engine unsloth needs a process of its own, and this one has loaded others", WHAT_INSTEAD)
    os.environ["UNSLOTH_DISABLE_STATISTICS"] = "1"  # it would tell its makers
    os.environ["UNSLOTH_COMPILE_LOCATION"] = str(cache / "unsloth")  # else the folder that one stands in
    try:
        import unsloth  # noqa: F401
    except (ImportError, NotImplementedError, RuntimeError) as error:
        raise FTError(f"unsloth does not load: {str(error).splitlines()[0]}", WHAT_INSTEAD) from None
