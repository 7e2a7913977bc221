"""What the held-out rows say of a model in training."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from .loss import mean_loss

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


def _share(margins: torch.Tensor) -> float:
    return (margins > 0).double().mean().item()
