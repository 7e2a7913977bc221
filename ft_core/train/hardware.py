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
    if estimate.memory_bytes > memory_bytes:
        return "too big"
    return "tight" if estimate.memory_bytes > TIGHT * memory_bytes else "fits"


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
