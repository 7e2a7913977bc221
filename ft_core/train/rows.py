"""The frozen rows as a base model sees them."""

from __future__ import annotations

from dataclasses import dataclass

from ..data.freeze import FrozenRow
from ..errors import FTError
from ..recipe import TrainRecipe
from ..render import Rendered, Renderer


@dataclass(frozen=True)
class Rows:
    train: list[Rendered]
    heldout: list[Rendered]
    left_out: list[str]
    """What cannot be used: how many rows, why, and which."""


def render(frozen: list[FrozenRow], renderer: Renderer, recipe: TrainRecipe) -> Rows:
    left_out: list[str] = []
    sides = [
        _rendered([row for row in frozen if row.split == side], renderer, recipe.max_length, left_out)
        for side in ("train", "heldout")
    ]
    return Rows(*sides, left_out)


def _rendered(rows: list[FrozenRow], renderer: Renderer, max_length: int, left_out: list[str]) -> list[Rendered]:
    usable: list[Rendered] = []
    refused: dict[str, list[int]] = {}
    for row in rows:
        try:
            example = renderer.example(row.conversation, max_length)
        except FTError as error:
            refused.setdefault(error.message, []).append(row.id)
            continue
        if example.learnt:
            usable.append(example)
        else:
            refused.setdefault("nothing in them is learnt within max_length", []).append(row.id)
    for reason, ids in refused.items():
        named = ", ".join(map(str, ids[:10])) + (", ..." if len(ids) > 10 else "")
        left_out.append(f"{len(ids)} rows are left out: {reason} (rows {named})")
    return usable
