"""What is asked of a model between its steps: what it says of the held-out rows, and what it answers to the probes."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from ..conversation import Message
from ..events import Event, Note, Sample
from ..recipe import TrainRecipe
from ..render import Rendered, Renderer
from . import faults, preference, probes, shards, together
from .heldout import CURVE_ROWS, Heldout, losses
from .loss import fp32_arithmetic, row_losses
from .rows import Rows


class Looks:
    """`reference` is what the model said of the pairs before it learnt from them, once that is measured."""

    def __init__(
        self,
        train: TrainRecipe,
        rows: Rows,
        asked: list[tuple[Message, ...]],
        renderer: Renderer,
        pad_id: int,
        say: Callable[[Event], None],
    ):
        self.train, self.rows, self.asked, self.renderer, self.pad_id, self.say = (
            train, rows, asked, renderer, pad_id, say,
        )  # fmt: skip
        self.reference = preference.NO_REFERENCE

    def whole(self, model: nn.Module) -> Heldout:
        """Of all held-out rows, in fp32; by Unsloth, whose kernels read the weights as they are stored, in these."""
        if self.train.engine == "unsloth" and self.train.precision != "fp32":
            arithmetic = self.train.precision
            what = f"The held-out figures are computed in {arithmetic} here, as the training is (engine unsloth)"
            self.say(Note(f"{what}: those that Compare measures, in fp32, differ a little from them."))
            return self._heldout(model, self.reference.heldout)
        with fp32_arithmetic(model):
            return self._heldout(model, self.reference.heldout_fp32)

    def brief(self, model: nn.Module) -> Heldout:
        """Of the rows of the curve, in the arithmetic of the training."""
        return self._heldout(model, self.reference.heldout, CURVE_ROWS)

    def _heldout(self, model: nn.Module, reference: list[float], first: int | None = None) -> Heldout:
        """Of the first held-out rows, in the arithmetic of the model and of `reference`."""
        better = self.losses(model, self.rows.heldout[:first])
        worse = self.losses(model, self.rows.heldout_worse[:first]) if reference else []
        return Heldout.of(better, worse, reference, self.train.beta)

    def losses(self, model: nn.Module, rows: list[Rendered]) -> list[tuple[float, int]]:
        """Of each row the nats of its learnt tokens, and how many these are."""
        if shards.are_of(model):
            return together.through(model, model, lambda: row_losses(model, rows, self.pad_id))
        return losses(model, rows, self.pad_id, self.say)

    def answers(self, model: nn.Module, step: int) -> None:
        """Says what it answers to the probes now."""
        try:
            found = together.through(
                model, model, lambda: probes.answer(model, self.renderer, self.pad_id, self.asked)
            )
        except (RuntimeError, MemoryError) as error:
            if not faults.is_out_of_memory(error) or shards.are_of(model):  # the others are in the middle of it
                raise
            self.say(Note(f"Memory ran out for the sample answers of step {step}; there are none.", "warning"))
            return
        for messages, answer in zip(self.asked, found):
            self.say(Sample(step, messages[-1].content, answer))
