"""The loss on what the assistant says: logits only where there is a label, a few hundred tokens at a time.

With a vocabulary of 50,000 to 250,000 the logits are the largest tensor of a training, and most of them are of tokens
that nobody learns. Nats are -ln p, of a learnt token or of the sum over all.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from peft import PeftModel
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..render import IGNORED, Rendered
from . import packing
from .limits import BLOCK, CHUNK, LEARNT, LOOKED, PAD_TO

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


def nothing(pad_id: int) -> dict[str, Tensor]:
    """As `collate`, with a row of which nothing is learnt and nothing counts."""
    batch = collate([{"input_ids": [pad_id], "labels": [IGNORED]}], pad_id)
    return batch | {"lengths": torch.zeros(1, dtype=torch.long)}


def learnt_nats(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    """The nats of all learnt tokens of a batch from `collate`, packed or not: a scalar, differentiable down to what
    is trained."""
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
        return torch.cat(pieces)
    return _Nats.apply(hidden, targets, head)


@torch.no_grad()
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
        nats = torch.cat([_nats(h, t, head) for h, t in _chunks(hidden, targets, LOOKED)])
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


@dataclass(frozen=True)
class _Head:
    """What makes logits of hidden states."""

    linear: nn.Module
    scale: float
    cap: float | None

    def __call__(self, hidden: Tensor) -> Tensor:
        return self.shaped(self.linear(hidden).float())

    def shaped(self, logits: Tensor) -> Tensor:
        """What some families do to the logits once they are there."""
        logits = logits * self.scale if self.scale != 1.0 else logits
        return torch.tanh(logits / self.cap) * self.cap if self.cap else logits


def _nats(hidden: Tensor, targets: Tensor, head: _Head) -> Tensor:
    """Of each token its cross entropy: (tokens,), fp32."""
    return F.cross_entropy(head(hidden), targets, reduction="none")


class _Nats(torch.autograd.Function):
    """The cross entropies under a frozen head, with the gradient of the hidden states taken on the way forward.

    So no chunk's logits live until the backward pass, and none is computed twice. A token's nats depend on its own
    hidden state alone, so what is kept is of that state's shape, and each token's may be weighed on the way back.
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, targets: Tensor, head: _Head) -> Tensor:
        found, gradients = zip(*(_with_gradient(piece, wanted, head) for piece, wanted in _chunks(hidden, targets)))
        ctx.save_for_backward(torch.cat(gradients))
        return torch.cat(found)

    @staticmethod
    def backward(ctx: Any, weights: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * weights.to(gradient.dtype)[:, None], None, None


def _with_gradient(hidden: Tensor, targets: Tensor, head: _Head) -> tuple[Tensor, Tensor]:
    """The cross entropies, (tokens,) in fp32, and the gradient that each has in its hidden state, (tokens, width).

    On a CPU a few rows of logits are widened at a time, as many as its cache holds: all at once they would be written
    to memory and read again for each of the half dozen things that are done to them.
    """
    with torch.enable_grad():
        filled = F.pad(hidden.detach(), (0, 0, 0, -len(hidden) % LEARNT)).requires_grad_()
        logits = head.linear(filled)
    gradient = logits.detach()  # takes the place of the logits, which nobody needs then
    gradient[len(hidden) :] = 0
    block = BLOCK if hidden.device.type == "cpu" else CHUNK
    found = []
    for narrow, wanted in zip(gradient[: len(hidden)].split(block), targets.split(block)):
        with torch.enable_grad():
            wide = narrow.to(torch.float32, copy=True).requires_grad_()
            shaped = head.shaped(wide)
        logs = F.log_softmax(shaped.detach(), dim=-1)
        nats = -logs.gather(1, wanted[:, None])
        error = logs.exp_().scatter_add_(1, wanted[:, None], -torch.ones_like(nats))  # what it said less what is so
        narrow.copy_(*torch.autograd.grad(shaped, wide, error))
        found.append(nats[:, 0])
    (of_filled,) = torch.autograd.grad(logits, filled, gradient)
    return torch.cat(found), of_filled[: len(hidden)]


def _learnt_hidden(model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """The last hidden states that predict a learnt token, row after row, (tokens, width), and these tokens."""
    targets = batch["labels"][:, 1:]
    learnt = targets != IGNORED
    if "places" in batch:
        hidden = packing.hidden(_causal(model), batch)
        return hidden.index_select(0, batch["places"][:, :-1][learnt]), targets[learnt]
    hidden = _causal(model).base_model(input_ids=batch["input_ids"], use_cache=False).last_hidden_state[:, :-1]
    return hidden[learnt], targets[learnt]


def _causal(model: nn.Module) -> nn.Module:
    return model.get_base_model() if isinstance(model, PeftModel) else model


def _head(model: nn.Module) -> _Head:
    causal = _causal(model)
    config = causal.config.get_text_config()
    scale = getattr(config, "logit_scale", None) or 1.0  # Cohere
    scale /= getattr(config, "logits_scaling", None) or 1.0  # Granite
    cap = getattr(config, "final_logit_softcapping", None)  # Gemma 2
    return _Head(causal.get_output_embeddings(), scale, cap)


def _chunks(hidden: Tensor, targets: Tensor, tokens: int = CHUNK) -> Iterator[tuple[Tensor, Tensor]]:
    """At least one, of no token where there is none: so every weight has a gradient, as those who share it expect."""
    return zip(hidden.split(tokens), targets.split(tokens))
