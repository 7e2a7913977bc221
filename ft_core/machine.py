"""What this machine has, without loading torch: the page's header, the estimates and `doctor` read it."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import psutil


@dataclass(frozen=True)
class Machine:
    cores: int
    """Cores that this process may use."""
    memory_bytes: int
    """Memory that this process may use: the machine's, or its container's limit."""
    gpu: str
    """Name of the first CUDA device, '' without one; 'Apple GPU' on Apple silicon."""
    gpu_memory_bytes: int
    """Of that one."""
    gpus: int = 0
    """CUDA devices that this process may use."""

    def __str__(self) -> str:
        gpu = f"{self.gpu}, {self.gpu_memory_bytes / 2**30:.0f} GB" if self.gpu else "no GPU"
        cores = f"{self.cores} core{'s' if self.cores > 1 else ''}"
        return f"{cores} · {self.memory_bytes / 2**30:.0f} GB · {gpu}"


def this_machine() -> Machine:
    name, memory, count = _nvidia()
    if not name and platform.system() == "Darwin" and platform.machine() == "arm64":
        name, memory = "Apple GPU", psutil.virtual_memory().total  # the memory is shared
    return Machine(_cores(), min(psutil.virtual_memory().total, _container_limit()), name, memory, count)


def multiplies_bf16() -> bool:
    """Whether the CPU has instructions for bf16, as Linux tells."""
    return not {"avx512_bf16", "amx_bf16"}.isdisjoint(_cpu_flags())


def multiplies_sixteen() -> bool:
    """Whether the CPU multiplies sixteen fp32 numbers at once (AVX-512), as Linux tells; others do eight or four."""
    return "avx512f" in _cpu_flags()


def _cpu_flags() -> set[str]:
    if platform.system() != "Linux":
        return set()
    return set(Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").split())


def _cores() -> int:
    """Physical cores, as far as this process may use them: more threads only get in each other's way."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        if quota != "max":
            allowed = min(allowed, max(1, int(quota) // int(period)))
    except (OSError, ValueError):
        pass
    return min(allowed, psutil.cpu_count(logical=False) or allowed)


def _container_limit() -> int:
    try:
        return int(Path("/sys/fs/cgroup/memory.max").read_text())
    except (OSError, ValueError):  # no cgroup, or "max"
        return 2**63


def _nvidia() -> tuple[str, int, int]:
    """Name and bytes of the first CUDA device, and how many there are, from the driver's own tool."""
    if shutil.which("nvidia-smi") is None:
        return "", 0, 0
    query = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=10, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return "", 0, 0
    name, _, mebibytes = answer.splitlines()[0].rpartition(",") if answer.strip() else ("", "", "")
    if not mebibytes.strip().isdigit():
        return "", 0, 0
    devices = answer.strip().splitlines()
    if chosen := os.environ.get("CUDA_VISIBLE_DEVICES"):
        devices = devices[: len(chosen.split(","))]
    return name.strip(), int(mebibytes) * 2**20, len(devices)
