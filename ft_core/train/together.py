"""What processes that train one model together tell each other: rows of theirs, figures, decisions.

To transformers each of them is the only one: it has a GPU, or some cores, and rows of its own. Each does the same as
the others in the same order; what depends on the clock, on files or on people the first one decides for all. In a
process that trains alone every function here is the plain thing itself.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import FSDPModule
from torch.nn.parallel import DistributedDataParallel

T = TypeVar("T")

_PATIENCE = timedelta(days=7)
"""How long one waits for the others: the first may have a model to download. That one died is noticed elsewhere."""


def join(meeting: Path, rank: int, count: int) -> None:
    """Meets the others at `meeting`, a file that is not there yet. To be called before torch touches a GPU."""
    seen = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(count)))
    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(seen.split(",")[rank : rank + 1])  # that of this process alone
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(backend, init_method=meeting.as_uri(), rank=rank, world_size=count, timeout=_PATIENCE)


def leave() -> None:
    dist.destroy_process_group()


def count() -> int:
    """How many train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Which one this is; 0 is the first."""
    return dist.get_rank() if dist.is_initialized() else 0


def leads() -> bool:
    """Whether this is the first one, who alone writes files and is heard."""
    return rank() == 0


def decided(answer: Callable[[], T]) -> T:
    """What the first one answers; nobody else is asked, and all are told."""
    if count() == 1:
        return answer()
    told = [answer() if leads() else None]
    dist.broadcast_object_list(told)
    return told[0]


def of_all(value: T) -> list[T]:
    """Everybody's value, in the order of rank."""
    values = [value] * count()
    if count() > 1:
        dist.all_gather_object(values, value)
    return values


def shared(model: nn.Module) -> nn.Module:
    """`model` so that its gradients are the means of everybody's after a backward pass (DDP); those of shards are."""
    if count() == 1 or isinstance(model, FSDPModule):
        return model
    # Which experts of a mixture a batch goes through differs from process to process.
    return DistributedDataParallel(model, find_unused_parameters=True)


def through(outer: nn.Module, model: nn.Module, compute: Callable[[], T]) -> T:
    """compute(), which runs parts of `model`, in the place of its forward: so that `outer`, which is around it, does
    before and behind it what it does around a forward."""
    if outer is model and not isinstance(model, FSDPModule):
        return compute()
    forward = model.forward

    def once() -> T:
        model.forward = forward
        return compute()

    model.forward = once
    return outer()
