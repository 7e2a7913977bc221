"""A job's process where Unsloth computes on a CPU: `python -m tests.stand_ins.unsloth_on_cpu HOME FOLDER`.

Unsloth wants a GPU. UNSLOTH_ALLOW_CPU is its own tests' way around that; what it still asks of one is answered here.
Its kernels for the most used families are Triton's, for GPUs alone, so its loader for all families stands in for that
of these; without compilation, which would take minutes.
"""

import os
import sys
from pathlib import Path
from types import SimpleNamespace

os.environ |= {"UNSLOTH_ALLOW_CPU": "1", "TORCHDYNAMO_DISABLE": "1"}

import torch  # noqa: E402

torch.cuda.get_device_properties = lambda *_: SimpleNamespace(name="none", total_memory=2**33, major=8, minor=0)
torch.cuda.get_device_capability = lambda *_: (8, 0)

from ft_core import work  # noqa: E402
from ft_core.train import engines  # noqa: E402

enter = engines.enter


def on_cpu(engine: str, cache: Path) -> None:
    enter(engine, cache)
    import unsloth

    unsloth.FastLanguageModel = unsloth.FastModel


engines.enter = on_cpu
engines.why_not = lambda wanted, machine: ""
sys.exit(work.work(work.job_at(Path(sys.argv[1]), Path(sys.argv[2]))))
