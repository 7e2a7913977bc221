"""Memory of the process that trains: of the GPU where one does, else of the system."""

from __future__ import annotations

import re
import resource
import sys
from pathlib import Path

import psutil
import torch


def now() -> int:
    """Bytes."""
    return torch.cuda.memory_allocated() if torch.cuda.is_available() else psutil.Process().memory_info().rss


def highest() -> int:
    """Bytes, since the process began."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    status = Path("/proc/self/status")  # Linux's ru_maxrss counts whoever started this process, as large as it was
    if status.exists() and (found := re.search(r"VmHWM:\s+(\d+) kB", status.read_text())):
        return int(found[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
