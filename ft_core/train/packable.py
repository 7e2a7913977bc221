"""Whether a model computes packed rows (packing.py) as it does padded ones: it is asked, and believed."""

from __future__ import annotations

import torch
from transformers import PreTrainedModel

from ..render import IGNORED
from . import packing
from .loss import collate, fp32_arithmetic

_SAME = 0.01
"""A token's hidden state in a line may differ from that in padded rows by this part of its length, in fp32: a
millionth is rounding, and a model that minds what stands before a token in the line makes a tenth of it, and more."""
_ASKED = 64
"""Tokens of the rows that tell."""
_WINDOWS = ("sliding_window", "attention_chunk_size")
"""In the words of config.json: how many tokens a layer looks back, where it does not look at all."""


def use(model: PreTrainedModel, longest: int) -> None:
    """Lets `model`, on a CPU, compute lines if it computes them as it does rows of up to `longest` tokens."""
    way = model.config._attn_implementation
    config = model.config.get_text_config()
    windows = [getattr(config, name, None) or longest for name in _WINDOWS]
    if way not in packing.NAMES or not model._supports_attention_backend or min(windows) < longest:
        return
    packing.offer()
    model.set_attn_implementation(packing.NAMES[way])
    if not _computes_the_same(model, min(longest, _ASKED)):
        model.set_attn_implementation(way)


@torch.no_grad()
def _computes_the_same(model: PreTrainedModel, longest: int) -> bool:
    """Asked of two rows that part in the middle. What mixes tokens outside of its attention, or minds its place in
    the line, says something else; what knows nothing of lines fails."""
    made_up = [(7919 * i) % model.config.get_text_config().vocab_size for i in range(2 * longest)]
    half = longest // 2
    examples = [made_up[:longest], [*made_up[:half], *made_up[longest : 2 * longest - half - 1]]]
    batch = collate([{"input_ids": ids, "labels": ids} for ids in examples], 0)
    line = packing.packed(batch)
    was_training = model.training
    model.eval()
    try:
        with fp32_arithmetic(model):
            wanted = model.base_model(input_ids=batch["input_ids"], use_cache=False).last_hidden_state
            found = packing.hidden(model, line)
    except (RuntimeError, TypeError, ValueError):
        return False
    finally:
        model.train(was_training)
    wanted = wanted[batch["labels"] != IGNORED]
    found = found[line["places"][line["labels"] != IGNORED]]
    return bool(((found - wanted).norm(dim=1) <= _SAME * wanted.norm(dim=1)).all())
