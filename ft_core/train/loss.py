"""The loss on what the assistant says: logits only where there is a label, a few hundred tokens at a time.

With a vocabulary of 50,000 to 250,000 the logits are the largest tensor of a training, and most of them are of tokens
that nobody learns. Nats are -ln p, of a learnt token or of the sum over all.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from peft import PeftModel
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..render import IGNORED, Rendered
from .limits import CHUNK

PAD_TO = 8
"""Lengths are padded to a multiple of this: what matrix kernels like."""
ROWS_AT_ONCE = 8


def collate(examples: list[dict[str, Any]], pad_id: int) -> dict[str, Tensor]:
    """input_ids and labels of shape (rows, longest), padded on the right, and the lengths without padding.

    No attention mask: a causal model never looks to the right, so what stands behind a row does not touch it, and
    without a mask attention is faster.
    """
    lengths = [len(e["input_ids"]) for e in examples]
    longest = -(-max(lengths) // PAD_TO) * PAD_TO

    def padded(name: str, filler: int) -> Tensor:
        return torch.tensor([[*e[name], *[filler] * (longest - len(e[name]))] for e in examples])

    return {
        "input_ids": padded("input_ids", pad_id),
        "labels": padded("labels", IGNORED),
        "lengths": torch.tensor(lengths),
    }


def learnt_nats(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    """The nats of all learnt tokens of a batch from `collate`, a scalar, differentiable down to what is trained."""
    return token_nats(model, batch).sum()


def token_nats(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    """Of each learnt token of a batch from `collate`, row after row, its nats: (tokens,), fp32, differentiable.

    An LM head that is trained, by itself or as the tied embedding, has its gradient from here too. No chunk's logits
    live until the backward pass: under a frozen head their gradient is taken on the way forward, else they are
    computed once more on the way back.
    """
    hidden, targets = _learnt_hidden(model, batch)
    head = _head(model)
    if any(p.requires_grad for p in _causal(model).get_output_embeddings().parameters()):
        pieces = [
            checkpoint(_nats, piece, wanted, head, use_reentrant=False, preserve_rng_state=False)
            for piece, wanted in _chunks(hidden, targets)
        ]
        return torch.cat(pieces) if pieces else hidden.sum(dim=1).float()
    return _Nats.apply(hidden, targets, head)


@torch.inference_mode()
def row_losses(model: nn.Module, examples: list[Rendered], pad_id: int) -> list[tuple[float, int]]:
    """Of each example the nats of its learnt tokens, and how many these are. In the model's own arithmetic."""
    was_training = model.training
    model.eval()
    losses = [(0.0, 0)] * len(examples)
    order = sorted((i for i, e in enumerate(examples) if e.learnt), key=lambda i: len(examples[i].ids))
    for start in range(0, len(order), ROWS_AT_ONCE):
        rows = order[start : start + ROWS_AT_ONCE]
        batch = collate([{"input_ids": examples[i].ids, "labels": examples[i].labels} for i in rows], pad_id)
        batch = {name: tensor.to(model.device) for name, tensor in batch.items()}
        hidden, targets = _learnt_hidden(model, batch)
        head = _head(model)
        nats = torch.cat([_nats(h, t, head) for h, t in _chunks(hidden, targets)])
        for i, of_row in zip(rows, nats.double().split([examples[i].learnt for i in rows])):
            losses[i] = (of_row.sum().item(), len(of_row))
    model.train(was_training)
    return losses


def mean_loss(losses: list[tuple[float, int]]) -> float | None:
    """Nats a learnt token over all rows; None without any."""
    tokens = sum(n for _, n in losses)
    return sum(nats for nats, _ in losses) / tokens if tokens else None


@contextlib.contextmanager
def fp32_arithmetic(model: nn.Module) -> Iterator[None]:
    """Computes in fp32 whatever the weights are stored in: each module's are widened while it runs.

    One module at a time, so that no second copy of the model is in memory. A base at 4 or 8 bits computes as ever.
    """
    stored: dict[nn.Module, dict[str, Tensor]] = {}

    def widen(module: nn.Module, _: Any) -> None:
        stored[module] = {name: p.data for name, p in module.named_parameters(recurse=False) if is_narrow(p)}
        for p in filter(is_narrow, module.parameters(recurse=False)):
            p.data = p.data.float()

    def restore(module: nn.Module, *_: Any) -> None:
        for name, data in stored.pop(module).items():
            getattr(module, name).data = data

    def is_narrow(p: Tensor) -> bool:
        return p.is_floating_point() and p.dtype != torch.float32  # whole numbers are a base at 4 or 8 bits

    narrow = [m for m in model.modules() if any(map(is_narrow, m.parameters(recurse=False)))]
    hooks = [m.register_forward_pre_hook(widen, prepend=True) for m in narrow]
    hooks += [m.register_forward_hook(restore, always_call=True) for m in narrow]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _nats(hidden: Tensor, targets: Tensor, head: Callable[[Tensor], Tensor]) -> Tensor:
    """Of each token its cross entropy: (tokens,), fp32."""
    return F.cross_entropy(head(hidden).float(), targets, reduction="none")


class _Nats(torch.autograd.Function):
    """The cross entropies under a frozen head, with the gradient of the hidden states taken on the way forward.

    So no chunk's logits live until the backward pass, and none is computed twice. A token's nats depend on its own
    hidden state alone, so what is kept is of that state's shape, and each token's may be weighed on the way back.
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, targets: Tensor, head: Callable[[Tensor], Tensor]) -> Tensor:
        found, gradients = [], []
        for piece, wanted in _chunks(hidden, targets):
            with torch.enable_grad():
                piece = piece.detach().requires_grad_()
                nats = _nats(piece, wanted, head)
            gradients += torch.autograd.grad(nats, piece, torch.ones_like(nats))
            found.append(nats.detach())
        ctx.save_for_backward(torch.cat(gradients) if gradients else torch.zeros_like(hidden))
        return torch.cat(found) if found else hidden.new_zeros(0, dtype=torch.float32)

    @staticmethod
    def backward(ctx: Any, weights: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * weights.to(gradient.dtype)[:, None], None, None


def _learnt_hidden(model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """The last hidden states that predict a learnt token, row after row, (tokens, width), and these tokens."""
    hidden = _causal(model).base_model(input_ids=batch["input_ids"], use_cache=False).last_hidden_state[:, :-1]
    targets = batch["labels"][:, 1:]
    learnt = targets != IGNORED
    return hidden[learnt], targets[learnt]


def _causal(model: nn.Module) -> nn.Module:
    return model.get_base_model() if isinstance(model, PeftModel) else model


def _head(model: nn.Module) -> Callable[[Tensor], Tensor]:
    """From hidden states to logits, with what some families do to them on the way."""
    causal = _causal(model)
    config = causal.config.get_text_config()
    head = causal.get_output_embeddings()
    scale = getattr(config, "logit_scale", None) or 1.0  # Cohere
    scale /= getattr(config, "logits_scaling", None) or 1.0  # Granite
    cap = getattr(config, "final_logit_softcapping", None)  # Gemma 2

    def logits(hidden: Tensor) -> Tensor:
        out = head(hidden) * scale if scale != 1.0 else head(hidden)
        return torch.tanh(out / cap) * cap if cap else out

    return logits


def _chunks(hidden: Tensor, targets: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    return zip(hidden.split(CHUNK), targets.split(CHUNK)) if len(targets) else iter(())
