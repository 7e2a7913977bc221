"""Whether a training fits, here and on machines that can be rented, and what it would cost there. Torch-free."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from ..machine import Machine
from . import methods
from .estimate import Estimate
from .machines import Hardware, offered

TIGHT = 0.85
"""Share of the memory from which on a run may fail: the estimate may be a tenth too low, and others want some too."""

Fit = Literal["fits", "tight", "too big"]


def fits(estimate: Estimate, memory_bytes: int) -> Fit:
    """Whether the estimated training goes into so much memory."""
    return _fit(estimate.memory_bytes, memory_bytes)


def _fit(wanted_bytes: int, memory_bytes: int) -> Fit:
    if wanted_bytes > memory_bytes:
        return "too big"
    return "tight" if wanted_bytes > TIGHT * memory_bytes else "fits"


@dataclass(frozen=True)
class Offer:
    """What the run at hand would be on one of them."""

    hardware: Hardware
    fit: Fit
    why_not: str
    """Why this method cannot train there; '' when it can."""
    seconds: float | None
    """None where nobody knows how fast it is."""
    usd: float | None
    """For these seconds."""


def offers(of: Callable[[Machine], Estimate], method: str) -> tuple[Offer, ...]:
    """The run by `method` on each of them; `of` estimates it for a machine."""
    found = []
    for hardware in offered():
        machine = hardware.machine
        said = of(machine)
        seconds = said.seconds if hardware.tflops or not hardware.gpu else None
        usd = seconds * hardware.usd / 3600 if seconds is not None else None
        fit = fits(said, machine.gpu_memory_bytes or machine.memory_bytes)
        # What is not installed here can be installed there.
        why_not = "" if machine.gpu else methods.why_not(method, machine)
        found.append(Offer(hardware, fit, why_not, seconds, usd))
    return tuple(found)


@dataclass(frozen=True)
class Place:
    """Whether the training goes into one machine's memory, by whichever method."""

    name: str
    """What the Hub calls it; '' is this machine."""
    title: str
    fits: dict[str, Fit]
    """By method; one that cannot train there is not in it."""


def places(wanted: Callable[[str, Machine], int], here: Machine) -> tuple[Place, ...]:
    """This machine and all that can be rented; `wanted` are the bytes that a method wants on a machine."""
    found = [("", "This machine", here)]
    found += [(hardware.name, hardware.title, hardware.machine) for hardware in offered()]
    return tuple(Place(name, title, _by_method(wanted, machine, not name)) for name, title, machine in found)


def _by_method(wanted: Callable[[str, Machine], int], machine: Machine, here: bool) -> dict[str, Fit]:
    memory = machine.gpu_memory_bytes or machine.memory_bytes
    return {
        method: _fit(wanted(method, machine), memory)
        for method in methods.NAMES
        if (machine.gpu and not here)
        or not methods.why_not(method, machine)  # what is missing here is installed there
    }
