"""Learning from preferences: of two answers to the same turns the better one is to gain on the worse one.

Direct Preference Optimization (Rafailov et al. 2023, equation 7): with the log-probabilities of both answers by the
model in training, and by the model as it was when the training began (the reference),

    loss = -ln sigmoid(beta * ((ln p_better - ln p_worse) - (ln p_better - ln p_worse by the reference)))

on average over the pairs of a step. The reference speaks once, before the first step, and what it says is kept in the
job's folder: no second model is in memory, and a resume goes on from the same bits.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from datasets import Dataset
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from ..recipe import TrainRecipe
from ..render import IGNORED, Rendered
from ..workspace import Job, write_whole
from . import together
from .loss import collate, fp32_arithmetic, nothing, token_nats
from .rows import Rows
from .trainer import Trainer, Watcher

Measure = Callable[[list[Rendered]], list[tuple[float, int]]]
"""What row_losses says of these rows, by the model in training."""


@dataclass(frozen=True)
class Reference:
    """What the model said before the training: of each pair ln p(better) - ln p(worse), in nats."""

    train: list[float]
    """In the arithmetic of the training, as is `heldout`."""
    heldout: list[float]
    heldout_fp32: list[float]


NO_REFERENCE = Reference([], [], [])
"""Where nobody learns from pairs."""


def reference(model: nn.Module, measure: Measure, rows: Rows, job: Job) -> Reference:
    """Measured of `model` as the training finds it, once a job."""
    path = job.path / "report" / "reference.json"
    if together.decided(path.exists):
        return Reference(**json.loads(path.read_text(encoding="utf-8")))
    found = {
        "train": log_ratios(measure, rows.train, rows.train_worse),
        "heldout": log_ratios(measure, rows.heldout, rows.heldout_worse),
    }
    with fp32_arithmetic(model):
        found["heldout_fp32"] = log_ratios(measure, rows.heldout, rows.heldout_worse)
    if together.leads():
        path.parent.mkdir(exist_ok=True)
        write_whole(path, json.dumps(found))
    return Reference(**found)


def log_ratios(measure: Measure, better: list[Rendered], worse: list[Rendered]) -> list[float]:
    """Of each pair ln p(better) - ln p(worse), in nats."""
    return [of_worse - of_better for (of_better, _), (of_worse, _) in zip(measure(better), measure(worse))]


class PreferenceTrainer(Trainer):
    """The same slices, order, checkpoints and moments, with pairs for rows and the loss above."""

    def __init__(
        self,
        model: nn.Module,
        tokenizer: PreTrainedTokenizerBase,
        rows: Rows,
        recipe: TrainRecipe,
        job: Job,
        watcher: Watcher,
        reference: Reference,
    ):
        self.reference = reference
        self.margins: list[Tensor] = []
        """beta * (how much more the better answer gained than the worse one), of the pairs of this step so far."""
        super().__init__(model, tokenizer, rows, recipe, job, watcher)
        self.lengths = [max(len(b.ids), len(w.ids)) for b, w in zip(rows.train, rows.train_worse)]

    def dataset(self, rows: Rows) -> Dataset:
        columns = {"input_ids": [r.ids for r in rows.train], "labels": [r.labels for r in rows.train]}
        columns |= {
            "worse_ids": [r.ids for r in rows.train_worse],
            "worse_labels": [r.labels for r in rows.train_worse],
        }
        return Dataset.from_dict(columns | {"reference": self.reference.train})

    def collated(self, pairs: list[dict[str, Any]]) -> dict[str, Tensor]:
        """The better answers, then the worse ones in the same order, as `collate` has rows; `reference`: (pairs,).

        Of no pair, two rows of which nothing is learnt."""
        if not pairs:
            empty = {name: torch.cat([tensor, tensor]) for name, tensor in nothing(self.pad_id).items()}
            return empty | {"reference": torch.zeros(0)}
        worse = [{"input_ids": pair["worse_ids"], "labels": pair["worse_labels"]} for pair in pairs]
        batch = self.in_line(collate([*pairs, *worse], self.pad_id))
        return batch | {"reference": torch.tensor([pair["reference"] for pair in pairs], dtype=torch.float32)}

    def get_batch_samples(self, *args: Any) -> tuple[list[dict[str, Tensor]], Tensor]:
        self.margins = []
        return super().get_batch_samples(*args)

    def items(self, batches: list[dict[str, Tensor]]) -> int:
        """Pairs."""
        return sum(len(batch["reference"]) for batch in batches)

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | None = None,
    ) -> Tensor:
        """The share of this micro-batch in the step's mean loss: its pairs' by the pairs of the whole step."""
        self.step_tokens += int(inputs["lengths"].sum())
        learnt = (inputs["labels"][:, 1:] != IGNORED).sum(dim=1).tolist()
        with self.accelerator.autocast():
            by_token = together.through(self.shared, self.model, lambda: token_nats(self.model, inputs))
            by_row = torch.stack([nats.sum() for nats in by_token.split(learnt)])
            pairs = len(inputs["reference"])
            better, worse = by_row[:pairs], by_row[len(by_row) - pairs :]
            margins = self.recipe.beta * (worse - better - inputs["reference"])
            self.margins.append(margins.detach())
            return -F.logsigmoid(margins).sum() * together.count() / num_items_in_batch

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" in logs:
            margins = torch.tensor(sum(together.of_all(torch.cat(self.margins).tolist()), []))
            logs |= {"margin": margins.mean().item(), "preference_accuracy": (margins > 0).float().mean().item()}
        super().log(logs, start_time)
