"""A model of which each process holds a part (FSDP2, torch's fully_shard): a layer is put together while it is used.

What is read from files and written to them is whole all the same, so that they are those of any training.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.utils._pytree import tree_map

from . import together
from .model import layers_of


def share_out(model: nn.Module, device: torch.device) -> None:
    """Leaves of `model`, which every process has whole in its memory, each its part on `device`."""
    mesh = init_device_mesh(device.type, (together.count(),))
    for layer in layers_of(model.get_base_model() if isinstance(model, PeftModel) else model):
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    model.register_load_state_dict_pre_hook(_take_parts)


def are_of(model: nn.Module) -> bool:
    """Whether `model` is shared out. Then all processes use it at the same time, or none does."""
    return isinstance(model, FSDPModule)


@contextlib.contextmanager
def whole(model: nn.Module, optimizer: torch.optim.Optimizer | None = None) -> Iterator[None]:
    """Within it the state dicts are whole tensors, in the memory of the CPU; others than of shards are as ever."""
    if not are_of(model):
        yield
        return
    state = _whole(model.state_dict())
    hooks = [model._register_state_dict_hook(lambda *_: state)]
    if optimizer:
        moments = _whole(optimizer.state_dict())
        hooks.append(optimizer.register_state_dict_post_hook(lambda *_: moments))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def take_moments(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> dict[str, Any]:
    """A hook before the loading of whole moments into an optimizer: each process takes its parts."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    parts = {
        i: {name: _part(v, parameters[i]) if v.shape == parameters[i].shape else v for name, v in moments.items()}
        for i, moments in state["state"].items()
    }
    return state | {"state": parts}


def _take_parts(model: nn.Module, state: dict[str, Any], *_: Any) -> None:
    for name, tensor in model.named_parameters(remove_duplicate=False):
        if name in state:
            state[name] = _part(state[name], tensor)


def _part(tensor: Tensor, of: Tensor) -> Tensor:
    """What of a whole `tensor` this process has, as it has of `of`."""
    if not isinstance(of, DTensor):
        return tensor
    return distribute_tensor(tensor.to(of.device), of.device_mesh, of.placements, src_data_rank=None)


def _whole(state: Any) -> Any:
    return tree_map(lambda v: v.full_tensor().cpu() if isinstance(v, DTensor) else v, state)
