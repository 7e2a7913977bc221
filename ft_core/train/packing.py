"""The rows of a micro-batch as one line of tokens, where what rows begin with alike stands once.

All of a decoder but its attention computes a token from that token alone, and rows that begin alike, with one system
prompt or one question, are alike up to where they part. So what they share is computed once, and of padding what
fills a line up. Attention is given rows as ever, put together from the line, and is the model's own; what it says goes
back into the line. Sums and gradients are those of padded rows, added in another order.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from itertools import accumulate
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import eager_mask, sdpa_mask

from ..render import IGNORED
from .limits import LINES, PAD_TO

NAMES = {"eager": "ft_flow_eager", "sdpa": "ft_flow_sdpa"}
"""Of transformers' ways to compute attention: the same for rows that come in a line."""


class Line(NamedTuple):
    """Where the tokens of rows stand in a line. A slot is the place of a token in rows of equal length."""

    places: Tensor
    """(rows, longest): of each slot the token of the line; of padding any."""
    slots: Tensor
    """The slots of the line's first token, those of its second, and so on; of padding those that fill the line up."""
    starts: Tensor
    """(line,): where in `slots` each token's begin; no token has none."""


def offer() -> None:
    """Adds to transformers' ways to compute attention those of NAMES."""
    AttentionInterface.register(NAMES["eager"], _attention(_eager, masked=True))
    AttentionMaskInterface.register(NAMES["eager"], eager_mask)
    AttentionInterface.register(NAMES["sdpa"], _attention(sdpa_attention_forward, masked=False))
    AttentionMaskInterface.register(NAMES["sdpa"], sdpa_mask)


def is_used(model: nn.Module) -> bool:
    return model.config._attn_implementation in NAMES.values()


def packed(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """A batch of `loss.collate` with its rows in a line: input_ids and position_ids are (1, line), and Line's tensors
    stand beside them. One row alone stays as it is."""
    if len(batch["lengths"]) == 1:
        return batch
    batch = _with_padding(batch)
    ids, longest = batch["input_ids"], batch["input_ids"].shape[1]
    places = [0] * ids.numel()
    found: dict[tuple[int, int], int] = {}  # of the place before and the token: its place
    slots: list[list[int]] = []  # of each place
    padding: list[int] = []
    for row, (tokens, length) in enumerate(zip(ids.tolist(), batch["lengths"].tolist())):
        place = -1
        for position, token in enumerate(tokens[:length]):
            place = found.setdefault((place, token), len(found))
            if place == len(slots):
                slots.append([])
            slots[place].append(row * longest + position)
            places[row * longest + position] = place
        padding += range(row * longest + length, (row + 1) * longest)
    for slot in padding[: -len(slots) % LINES]:
        places[slot] = len(slots)
        slots.append([slot])
    first = torch.tensor([of_token[0] for of_token in slots])
    return batch | {
        "input_ids": ids.view(-1)[first][None],
        "position_ids": (first % longest)[None],
        "places": torch.tensor(places).view(ids.shape),
        "slots": torch.tensor([slot for of_token in slots for slot in of_token]),
        "starts": torch.tensor([0, *accumulate(map(len, slots[:-1]))]),
    }


def _with_padding(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """The batch with enough padding to fill any line."""
    rows, longest = batch["input_ids"].shape
    lacking = LINES - 1 - (rows * longest - int(batch["lengths"].sum()))
    if lacking <= 0:
        return batch
    wider = (0, -(-lacking // (rows * PAD_TO)) * PAD_TO)
    return batch | {
        "input_ids": F.pad(batch["input_ids"], wider),
        "labels": F.pad(batch["labels"], wider, value=IGNORED),
    }


def hidden(model: PreTrainedModel, batch: dict[str, Tensor]) -> Tensor:
    """The last hidden states of a packed batch, (line, width)."""
    line = Line(batch["places"], batch["slots"], batch["starts"])
    longest = line.places.shape[1]
    dtype = model.get_input_embeddings().weight.dtype
    ahead = torch.full((longest, longest), torch.finfo(dtype).min, dtype=dtype).triu(1)
    given = {name: batch[name] for name in ("input_ids", "position_ids")}
    # A mask of four dimensions is taken as it is; transformers would make one for the line.
    said = model.base_model(**given, attention_mask=ahead[None, None], use_cache=False, line=line)
    return said.last_hidden_state[0]


def _attention(plain: Callable, masked: bool) -> Callable:
    """`plain`, a function of transformers' AttentionInterface, for rows and for a line; whether it is to be told that
    nobody looks ahead, or knows, and is faster without a mask that says so."""

    def attention(
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None,
        line: Line | None = None,
        **options: Any,
    ) -> tuple[Tensor, Tensor | None]:
        """The first three are (1, heads, line, width of a head), what comes back (1, line, heads, width)."""
        if line is None:
            return plain(module, query, key, value, attention_mask, **options)
        rows = _in_rows((query, key, value), line)
        out, _ = plain(module, *rows, attention_mask if masked else None, **options)
        of_line = _Gathered.apply(out.flatten(0, 1).flatten(1), line.slots[line.starts])
        return of_line.view(1, -1, *out.shape[2:]), None

    return attention


def _in_rows(some: tuple[Tensor, ...], line: Line) -> tuple[Tensor, ...]:
    """Each (1, heads, line, width) as (rows, heads, longest, width)."""
    of_tokens = [x[0].transpose(0, 1) for x in some]
    flat = torch.cat([x.flatten(1) for x in of_tokens], dim=1)  # one piece is spread faster than three
    spread = _Spread.apply(flat, *line).split([x.shape[1] * x.shape[2] for x in of_tokens], dim=1)
    rows, longest = line.places.shape
    return tuple(y.view(rows, longest, *x.shape[1:]).transpose(1, 2) for x, y in zip(of_tokens, spread))


def _eager(module: nn.Module, *args: Any, **options: Any) -> tuple[Tensor, Tensor]:
    """Plain attention as the model's own file has it."""
    return sys.modules[type(module).__module__].eager_attention_forward(module, *args, **options)


class _Spread(torch.autograd.Function):
    """A line, (line, wide), in rows, (rows * longest, wide)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, places: Tensor, slots: Tensor, starts: Tensor) -> Tensor:
        ctx.save_for_backward(slots, starts)
        return x.index_select(0, places.flatten())

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """A token's is the sum over its slots, in their order: as torch would add, it were another each time."""
        slots, starts = ctx.saved_tensors
        return F.embedding_bag(slots, gradient.contiguous(), starts, mode="sum"), None, None, None


class _Gathered(torch.autograd.Function):
    """Rows, (rows * longest, wide), in a line: each token from one row, and no other's gradient is wanted."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, slots: Tensor) -> Tensor:
        ctx.save_for_backward(slots)
        ctx.shape = y.shape
        return y.index_select(0, slots)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (slots,) = ctx.saved_tensors
        return gradient.new_zeros(ctx.shape).index_copy(0, slots, gradient), None
