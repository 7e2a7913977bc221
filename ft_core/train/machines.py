"""Machines of Hugging Face that can be rented, from space_config/hardware.yaml. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import yaml

from ..machine import Machine

CATALOG = Path(__file__).resolve().parents[2] / "space_config" / "hardware.yaml"


@dataclass(frozen=True)
class Hardware:
    """One machine to rent; see space_config/hardware.yaml for sources and units."""

    name: str
    title: str
    cpus: int
    """Virtual ones, two a core."""
    memory_gb: int
    gpu: str
    gpu_memory_gb: int
    tflops: float | None
    space_usd: float | None
    job_usd: float | None

    @property
    def machine(self) -> Machine:
        return Machine(max(1, self.cpus // 2), self.memory_gb * 10**9, self.gpu, self.gpu_memory_gb * 10**9)

    @property
    def usd(self) -> float:
        """An hour, where it is cheapest."""
        return min(price for price in (self.space_usd, self.job_usd) if price is not None)


@cache
def offered() -> tuple[Hardware, ...]:
    """All that are listed, in the order of the list."""
    return tuple(Hardware(**entry) for entry in yaml.safe_load(CATALOG.read_text(encoding="utf-8")))


def tflops(gpu: str) -> float | None:
    """Peak of a GPU by the name that its driver gives it, as in NVIDIA A100-SXM4-80GB; None for one not listed."""
    words = gpu.replace("-", " ").split()
    known = {h.gpu: h.tflops for h in offered() if h.gpu}
    return next((known[name] for name in known if set(name.split()) <= set(words)), None)
