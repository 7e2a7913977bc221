"""LoRA's product as one autograd function, in the arithmetic of the base.

peft widens every layer's input to fp32 and keeps the copy for the way back. Here the input is kept as it is, which is
one tensor for all layers that read it, and the narrow matrices are rounded to the base's arithmetic for the product;
their own values and gradients stay fp32. In fp32 it is peft's arithmetic exactly.
"""

from __future__ import annotations

from types import MethodType
from typing import Any

import torch
from peft import PeftModel
from peft.tuners.lora import Linear
from torch import Tensor


def use_fast_lora(model: PeftModel) -> None:
    """Makes the model's one adapter compute this way from now on; one with dropout, and DoRA, stay as they are."""
    for module in model.modules():
        if (
            isinstance(module, Linear)
            and not module.lora_variant
            and isinstance(module.lora_dropout["default"], torch.nn.Identity)
        ):
            module.forward = MethodType(_forward, module)


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
