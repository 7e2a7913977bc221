"""LoRA's product as one autograd function, in the arithmetic of the base.

peft widens every layer's input to fp32 and keeps the copy for the way back. Here the input is kept as it is, which is
one tensor for all layers that read it, and the narrow matrices are rounded to the base's arithmetic for the product;
their own values and gradients stay fp32. In fp32 it is peft's arithmetic exactly.

On a CPU the base's product is in the function too, and layers that read the same input (query, key and value; gate
and up) are computed as one: few large products there take less time than many small ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import MethodType
from typing import Any

import torch
from peft import PeftModel
from peft.tuners.lora import Linear
from torch import Tensor, nn

from . import together
from .products import product

_READ_THE_SAME = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))
"""Names of layers beside one another, as transformers' models have them."""


def use_fast_lora(model: PeftModel) -> None:
    """Makes the model's one adapter compute this way from now on; one with dropout, and DoRA, stay as they are."""
    for parent in list(model.modules()):
        layers = {name: layer for name, layer in parent.named_children() if _is_plain(layer)}
        for layer in layers.values():
            layer.forward = MethodType(_forward, layer)
        for some in _to_join({name: layer for name, layer in layers.items() if _is_whole_on_a_cpu(layer.base_layer)}):
            joined = _Joined(some)
            for place, layer in enumerate(some):
                layer.joined, layer.place = joined, place
                layer.forward = MethodType(_forward_joined, layer)


def weights(model: PeftModel) -> list[Tensor]:
    """The base's weights as the function above multiplies by them, (wide, width); none but on a CPU."""
    found = {id(module.joined): module.joined for module in model.modules() if hasattr(module, "joined")}
    return [joined.weight for joined in found.values()]


def _is_plain(layer: nn.Module) -> bool:
    return (
        isinstance(layer, Linear)
        and not layer.lora_variant
        and isinstance(layer.lora_dropout["default"], torch.nn.Identity)
    )


def _is_whole_on_a_cpu(base: nn.Module) -> bool:
    """Processes that train together may have a part each."""
    return type(base) is nn.Linear and base.weight.device.type == "cpu" and together.count() == 1


def _to_join(layers: dict[str, Linear]) -> Iterator[list[Linear]]:
    """The layers of one parent, those together that read the same input; each stands in one list."""
    for names in _READ_THE_SAME:
        some = [layers[name] for name in names if name in layers]
        if len({(y.r["default"], y.base_layer.weight.dtype, y.base_layer.bias is None) for y in some}) == 1:
            layers = {name: layer for name, layer in layers.items() if name not in names}
            yield some
    for layer in layers.values():
        yield [layer]


class _Joined:
    """Layers that read the same input: the first that is asked computes all, and the others have theirs then."""

    def __init__(self, layers: list[Linear]):
        """The layers' weights become parts of one matrix."""
        self.layers = layers
        of_each = [layer.base_layer.weight for layer in layers]
        self.wide = [len(weight) for weight in of_each]
        self.weight = torch.cat([weight.data for weight in of_each]) if len(layers) > 1 else of_each[0].data
        for weight, part in zip(of_each, self.weight.split(self.wide)):
            weight.data = part
        biases = [layer.base_layer.bias for layer in layers]
        self.bias = None if biases[0] is None else torch.cat([bias.data for bias in biases])
        self.input: Tensor | None = None
        self.ready: dict[int, Tensor] = {}

    def of(self, place: int, x: Tensor) -> Tensor:
        if self.input is not x or place not in self.ready:
            self.input, self.ready = x, dict(enumerate(self._all(x)))
        out = self.ready.pop(place)
        if not self.ready:
            self.input = None
        return out

    def _all(self, x: Tensor) -> tuple[Tensor, ...]:
        downs = [layer.lora_A["default"].weight for layer in self.layers]
        ups = [layer.lora_B["default"].weight * layer.scaling["default"] for layer in self.layers]
        down, up = (downs[0], ups[0]) if len(ups) == 1 else (torch.cat(downs), torch.block_diag(*ups))
        out = _Product.apply(x, self.weight, self.bias, down.to(x.dtype), up.to(x.dtype))
        return out.split(self.wide, dim=-1)


def _forward_joined(self: Linear, x: Tensor) -> Tensor:
    """Who only looks widens each layer's weights, as loss.fp32_arithmetic does, and asks them one by one."""
    if self.disable_adapters or not torch.is_grad_enabled() or x.dtype != self.joined.weight.dtype:
        return _forward(self, x)
    return self.joined.of(self.place, x)


class _Product(torch.autograd.Function):
    """x weightᵀ + bias + x downᵀ upᵀ: x is (..., width), weight (wide, width), down (rank, width), up (wide, rank)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, down: Tensor, up: Tensor) -> Tensor:
        flat = x.reshape(-1, x.shape[-1])
        out, inner = _out_and_inner(flat, weight, bias, down, up)
        ctx.save_for_backward(flat, inner, weight, down, up)
        ctx.shape = x.shape
        return out.view(*x.shape[:-1], len(weight))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        wide = gradient.reshape(-1, gradient.shape[-1])
        to_x, to_down, to_up = _gradients(wide, *ctx.saved_tensors)
        return to_x.view(ctx.shape), None, None, to_down, to_up


@torch.library.custom_op("ft_flow::out_and_inner", mutates_args=())
def _out_and_inner(
    flat: Tensor, weight: Tensor, bias: Tensor | None, down: Tensor, up: Tensor
) -> tuple[Tensor, Tensor]:
    """Of _Product x weightᵀ + ..., (rows, wide), and x downᵀ, (rows, rank). To the compiler one piece.

    It would not add to a product where that stands, and cannot know which form of it is fast here.
    """
    inner = flat @ down.t()
    out = product(flat, weight.t())
    if bias is not None:
        out += bias
    return out.addmm_(inner, up.t()), inner


@_out_and_inner.register_fake
def _(flat: Tensor, weight: Tensor, bias: Tensor | None, down: Tensor, up: Tensor) -> tuple[Tensor, Tensor]:
    rows = flat.shape[0]  # len() of it would be the number of this batch, and the code compiled for that alone
    return flat.new_empty(rows, len(weight)), flat.new_empty(rows, len(down))


@torch.library.custom_op("ft_flow::gradients", mutates_args=())
def _gradients(
    wide: Tensor, flat: Tensor, inner: Tensor, weight: Tensor, down: Tensor, up: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Of _Product those of x, (rows, width), down and up, for the one of what it returns, (rows, wide)."""
    narrow = wide @ up
    to_x = product(wide, weight).addmm_(narrow, down)
    return to_x, narrow.t() @ flat, (inner.t() @ wide).t().contiguous()


@_gradients.register_fake
def _(
    wide: Tensor, flat: Tensor, inner: Tensor, weight: Tensor, down: Tensor, up: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(flat), torch.empty_like(down), torch.empty_like(up)


def _forward(self: Linear, x: Tensor) -> Tensor:
    out = self.base_layer(x)
    if self.disable_adapters:
        return out
    down, up = self.lora_A["default"].weight, self.lora_B["default"].weight
    return _AddProduct.apply(out, x, down, up, self.scaling["default"])


class _AddProduct(torch.autograd.Function):
    """out + scale * x downᵀ upᵀ, with out (..., wide), x (..., width), down (rank, width), up (wide, rank)."""

    @staticmethod
    def forward(ctx: Any, out: Tensor, x: Tensor, down: Tensor, up: Tensor, scale: float) -> Tensor:
        flat = x.reshape(-1, x.shape[-1])
        inner = flat @ down.to(x.dtype).t()
        ctx.save_for_backward(flat, inner, down, up)
        ctx.scale, ctx.shape = scale, x.shape
        added = torch.addmm(out.reshape(-1, out.shape[-1]), inner, up.to(x.dtype).t(), alpha=scale)
        return added.view(out.shape)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        flat, inner, down, up = ctx.saved_tensors
        wide = gradient.reshape(-1, gradient.shape[-1])
        narrow = (wide @ up.to(wide.dtype)) * ctx.scale
        to_x = (narrow @ down.to(narrow.dtype)).view(ctx.shape) if ctx.needs_input_grad[1] else None
        to_down = (narrow.t() @ flat).to(down.dtype)
        to_up = (wide.t() @ inner).to(up.dtype) * ctx.scale
        return gradient, to_x, to_down, to_up, None
