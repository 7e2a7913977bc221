"""What the held-out rows say of a model in training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from ..errors import FTError
from ..events import Note
from ..render import Rendered
from . import faults
from .loss import ROWS_AT_ONCE, mean_loss, row_losses

CURVE_ROWS = 100
"""Held-out rows that the curve is measured on while training; the figures of the result are over all of them."""


@dataclass(frozen=True)
class Heldout:
    """How well held-out rows are predicted; of pairs also whether the better answers gain."""

    loss: float | None
    """Nats a learnt token, of pairs of the better answers; None without rows."""
    accuracy: float | None
    """Share of the pairs whose better answer gained more than the worse one since the training began; None without."""
    curve: dict[str, float]
    """The figures of the curve, of its rows alone: heldout_loss; of pairs also heldout_accuracy and
    heldout_preference_loss."""

    @property
    def weighed(self) -> float | None:
        """What is to be low: of pairs their own loss, for the better answers may lose too while they gain."""
        return self.curve.get("heldout_preference_loss", self.curve.get("heldout_loss"))

    @classmethod
    def of(
        cls, losses: list[tuple[float, int]], worse: list[tuple[float, int]], reference: list[float], beta: float
    ) -> Heldout:
        """From what row_losses says of the rows and of their worse answers; `reference` as preference.log_ratios has
        it of all pairs. The last two are empty where nobody learns from pairs."""
        margins = torch.tensor(
            [w - better - before for (better, _), (w, _), before in zip(losses, worse, reference)], dtype=torch.float64
        )
        curve = {}
        if (loss := mean_loss(losses[:CURVE_ROWS])) is not None:
            curve["heldout_loss"] = loss
        if len(margins):
            curve["heldout_accuracy"] = _share(margins[:CURVE_ROWS])
            curve["heldout_preference_loss"] = -F.logsigmoid(beta * margins[:CURVE_ROWS]).mean().item()
        return cls(mean_loss(losses), _share(margins) if len(margins) else None, curve)


def losses(
    model: nn.Module, rows: list[Rendered], pad_id: int, say: Callable[[Note], None]
) -> list[tuple[float, int]]:
    """As row_losses, with fewer rows at once where memory asks for it, which is said.

    Raises FTError when memory does not hold one row.
    """
    at_once = len(rows)
    while True:
        try:
            parts = [rows[i : i + at_once] for i in range(0, len(rows), at_once or 1)]
            return [found for part in parts for found in row_losses(model, part, pad_id)]
        except (RuntimeError, MemoryError) as error:
            if not faults.is_out_of_memory(error):
                raise
            at_once = _fewer(at_once, max(len(row.ids) for row in rows), say)


def _fewer(at_once: int, longest: int, say: Callable[[Note], None]) -> int:
    at_once = min(at_once, ROWS_AT_ONCE)
    if at_once == 1:
        raise FTError(
            "memory ran out while the held-out rows were measured, with one row in memory at once",
            f"Shorten the longest conversation (max_length; the longest has {longest} tokens) or choose a smaller "
            "base model.",
        )
    text = f"Memory ran out while {at_once} held-out rows were measured at once; they are measured {at_once // 2} at"
    say(Note(f"{text} once. The figures are the same.", "warning"))
    return at_once // 2


def _share(margins: torch.Tensor) -> float:
    return (margins > 0).double().mean().item()
