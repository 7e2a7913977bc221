"""The layers of a model compiled for a CPU (torch.compile): one is, and the others run its code.

It costs half a minute of the first start and five seconds of the next ones, on two cores, and takes about a quarter
off every step of a small model, because what lies between the matrix products is read and written once instead of
five times. Where rows are looked at without learning from them (held-out loss, sample answers) the layers stay as
they are.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor, nn
from torch._dynamo import config as reading
from torch._functorch import config as keeping

from ..machine import Machine, this_machine
from ..recipe import TrainRecipe
from . import methods, packing, together
from .loss import collate, learnt_nats
from .model import layers_of

_FIRST = (149, 139, 137, 134, 131)
"""Tokens of the rows that the layer is compiled with; it computes any others. None of these numbers, nor of those that
follow from them (a line of 704), is the width of a head or of a usual model: sizes that are equal then are taken to be
equal always."""
_ALIKE = 11
"""Of these rows the tokens with which all begin."""


def tried(model: nn.Module, train: TrainRecipe, cache: Path) -> str:
    """Compiles the layers. Returns why they stay as they are, as the end of a sentence; '' when they are compiled."""
    if why := why_not(model, train, this_machine()):
        return why
    try:
        compile_layers(model, cache)
    except RuntimeError as error:
        shutil.rmtree(cache, ignore_errors=True)  # who was killed while compiling left half a file there
        return f"the compiler failed: {str(error).strip().splitlines()[0]}"
    return ""


def why_not(model: nn.Module, train: TrainRecipe, machine: Machine) -> str:
    """Why they stay as they are on `machine`, as a sentence; '' when they can be compiled."""
    if together.count() > 1:
        return "layers are compiled where one process trains"
    if why := methods.why_not_compiled(train, sum(p.numel() for p in model.parameters()), machine):
        return why
    compiler = os.environ.get("CXX", "g++")  # as torch chooses it
    if shutil.which(compiler) is None:
        return f"compiling layers needs a C++ compiler, and {compiler} is not installed"
    return ""


def compile_layers(model: PeftModel, cache: Path) -> None:
    """Compiles the layers behind the first for batches of two rows and more. `cache` keeps the code.

    The batch it is compiled with is the same in each process, and so is the code: a training that goes on computes
    what it would have. The first layer's input wants no gradient; it would be code of its own, for one layer. Raises
    RuntimeError (torch's TorchDynamoException) when the compiler fails; the model is as before then.
    """
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(cache)  # read at each use; torch has put its own there by now
    model.train()  # as it will be: for one that is only looked at the code would be another
    _, *layers = layers_of(model.get_base_model())
    for layer in layers:
        compiled = torch.compile(type(layer).forward, dynamic=True)
        layer.forward = partial(_forward, layer, compiled, layer.forward)
    try:
        with _as_it_is_kept():
            learnt_nats(model, _first_batch(model)).backward()
    except RuntimeError:
        for layer in layers:
            del layer.forward
        raise
    finally:
        model.zero_grad()


def _first_batch(model: PeftModel) -> dict[str, Tensor]:
    rows = [[0] * _ALIKE + [1 + row] * (tokens - _ALIKE) for row, tokens in enumerate(_FIRST)]
    batch = collate([{"input_ids": ids, "labels": ids} for ids in rows], 0)
    return packing.packed(batch) if packing.is_used(model) else batch


@contextlib.contextmanager
def _as_it_is_kept() -> Iterator[None]:
    """What lets torch take compiled code from its cache right after it has read the layer, once, on the next start.

    Its cache passes over functions with a gradient of their own, such as LoRA's here, though it has their bodies in
    its key. And a layer's numbers (the scale of its norm, of its adapter) it would take for inputs first, then find
    that the code for a CPU has none such, and begin anew; they are the same in all layers.
    """
    with keeping.patch(autograd_cache_allow_custom_autograd_functions=True), reading.patch(specialize_float=True):
        yield


def _forward(layer: nn.Module, compiled: Callable, plain: Callable, hidden: Tensor, *args: Any, **options: Any) -> Any:
    """`hidden` is (rows, tokens, width), or (1, line, width). A single row would be compiled once more, for itself."""
    if torch.is_grad_enabled() and (len(hidden) > 1 or "line" in options):
        return compiled(layer, hidden, *args, **options)
    return plain(hidden, *args, **options)
