"""The prompts that a model answers while it trains, so that a person can watch it change."""

from __future__ import annotations

from typing import Any

import torch
from transformers import GenerationConfig

from ..conversation import Message
from ..data.freeze import FrozenRow
from ..recipe import TrainRecipe
from ..render import Renderer

ANSWER_TOKENS = 48
"""Enough to see what it learnt, few enough to cost little."""
BEGINNING = 12
"""Words of a text that the model goes on from."""


def choose(rows: list[FrozenRow], recipe: TrainRecipe) -> list[tuple[Message, ...]]:
    """The prompts that the model answers while it trains: those asked for, else two held-out ones.

    One that learns text is given the beginning of a text, as what the assistant has said so far, to go on with.
    """
    asked = recipe.probes
    rows = sorted(rows, key=lambda row: row.split != "heldout")
    if recipe.learns == "text":
        texts = (row.conversation.messages[-1].content for row in rows)
        begun = dict.fromkeys(" ".join(text.split()[:BEGINNING]) for text in texts if len(text.split()) > BEGINNING)
        return [(Message("assistant", text),) for text in asked or list(begun)[:2]]
    system = rows[0].conversation.messages[:1] if rows[0].conversation.system else ()
    if asked:
        return [(*system, Message("user", text)) for text in asked]
    found: dict[str, tuple[Message, ...]] = {}
    for row in rows:
        messages = row.conversation.messages
        turn = next((i for i, m in enumerate(messages) if m.role == "user"), None)
        if turn is not None:
            found.setdefault(messages[turn].content, messages[: turn + 1])
        if len(found) == 2:
            break
    return list(found.values())


@torch.no_grad()
def answer(model: Any, renderer: Renderer, pad_id: int, probes: list[tuple[Message, ...]]) -> list[str]:
    """Greedy answers to all probes in one batch, padded on the left."""
    if not probes:
        return []
    was_training = model.training
    model.eval()
    prompts = [
        renderer.ids(messages[-1].content) if messages[-1].role == "assistant" else renderer.prompt(messages)
        for messages in probes
    ]
    longest = max(map(len, prompts))
    ids = torch.tensor([[pad_id] * (longest - len(p)) + p for p in prompts], device=model.device)
    mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts], device=model.device)
    settings = GenerationConfig(
        max_new_tokens=ANSWER_TOKENS,
        do_sample=False,
        eos_token_id=model.generation_config.eos_token_id,
        pad_token_id=pad_id,
    )
    out = model.generate(input_ids=ids, attention_mask=mask, generation_config=settings)
    model.train(was_training)
    return [renderer.tokenizer.decode(answer, skip_special_tokens=True) for answer in out[:, longest:].tolist()]
