"""The machine that a recipe trains on: this one, or one that is rented from Hugging Face. Torch-free."""

from __future__ import annotations

import difflib

from ..errors import FTError
from ..machine import Machine, this_machine
from ..recipe import ComputeRecipe, Recipe
from . import engines, methods, processes
from .machines import Hardware, offered


def is_rented(compute: ComputeRecipe) -> bool:
    return compute.where == "hf_jobs"


def hardware(compute: ComputeRecipe) -> Hardware:
    """What is rented. Raises FTError for a name that is not listed as one for Jobs."""
    known = {h.name: h for h in offered() if h.job_usd is not None}
    if compute.hardware not in known:
        near = difflib.get_close_matches(compute.hardware, known, 1)
        raise FTError(
            f"there is no machine {compute.hardware!r} to rent for a training",
            f"Did you mean {near[0]!r}?" if near else f"There are {', '.join(known)}.",
        )
    return known[compute.hardware]


def machine(compute: ComputeRecipe) -> Machine:
    """Raises FTError as `hardware` does."""
    return hardware(compute).machine if is_rented(compute) else this_machine()


def why_not(wanted: Recipe) -> str:
    """Why the recipe's method cannot train there, as a sentence; '' when it can."""
    there = machine(wanted.compute)
    if not is_rented(wanted.compute):
        return methods.why_not(wanted.train.method, there)
    if wanted.train.method in methods.QUANTIZED and not there.gpu:  # what is not installed here is installed there
        return f"{wanted.train.method} needs an NVIDIA GPU (CUDA), and {wanted.compute.hardware} has none"
    if wanted.compute.processes > 1:
        return f"the machines that are rented have one GPU, and {wanted.compute.processes} processes are wanted"
    return ""


def require(wanted: Recipe) -> None:
    """Raises FTError when the machine that the recipe names cannot train so, or is not known."""
    if why := why_not(wanted):
        hint = "Rent one with a GPU (hardware), and set processes to 1."
        raise FTError(why, hint if is_rented(wanted.compute) else methods.WHAT_INSTEAD)
    engines.require(wanted, machine(wanted.compute))
    if not is_rented(wanted.compute):
        processes.require(wanted, this_machine())


def most_usd(compute: ComputeRecipe) -> float:
    """What it costs when it runs for all its hours."""
    return compute.hours * (hardware(compute).job_usd or 0.0)
