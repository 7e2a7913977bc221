"""TRL's SFTTrainer with our rows, our order, our loss and our moments to look, to save and to stop."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from typing import Any, Protocol

import torch
from datasets import Dataset
from peft import PeftModel
from torch.utils.data import BatchSampler, DataLoader
from transformers import PreTrainedTokenizerBase, PrinterCallback, TrainerCallback
from trl import SFTConfig, SFTTrainer

from ..errors import FTError
from ..recipe import TrainRecipe
from ..render import Rendered
from ..workspace import Job
from . import checkpoints, extra
from .loss import collate, learnt_nats
from .model import CHECKPOINTED_FROM
from .plan import Plan, micro_batches


class Watcher(Protocol):
    """Whoever follows the training from step to step."""

    def stepped(self, step: int, figures: dict[str, float]) -> None:
        """A step is done: loss, grad_norm, learning_rate, epoch, tokens (without padding) and seconds."""

    def look(self, step: int) -> None:
        """The moment to measure and to ask, between two steps."""

    def must_end(self, step: int) -> bool:
        """Whether to save and end after this step."""


class Trainer(SFTTrainer):
    """Trains `model`, which has its adapter, and leaves checkpoints in the job's folder."""

    def __init__(
        self,
        model: PeftModel,
        tokenizer: PreTrainedTokenizerBase,
        rows: list[Rendered],
        recipe: TrainRecipe,
        job: Job,
        watcher: Watcher,
    ):
        self.recipe = recipe
        self.plan = Plan.of(len(rows), recipe)
        self.lengths = [len(row.ids) for row in rows]
        self.watcher = watcher
        self.step_tokens = 0
        self.step_began = time.monotonic()
        super().__init__(
            model=model,
            args=_arguments(model, recipe, self.plan, job),
            train_dataset=Dataset.from_dict({"input_ids": [r.ids for r in rows], "labels": [r.labels for r in rows]}),
            processing_class=tokenizer,
            data_collator=lambda examples: collate(examples, tokenizer.pad_token_id),
            callbacks=[_Moments(self)],
        )
        self.remove_callback(PrinterCallback)

    def get_train_dataloader(self) -> DataLoader:
        order = _Order(self.lengths, self.recipe)
        loader = DataLoader(self.train_dataset, batch_sampler=order, collate_fn=self.data_collator)
        return self.accelerator.prepare(loader)

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, torch.Tensor],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """The share of this micro-batch in the step's mean loss: its nats by the learnt tokens of the whole step."""
        self.step_tokens += int(inputs["lengths"].sum())
        with self.accelerator.autocast():
            return learnt_nats(self.model, inputs) / num_items_in_batch

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Called after every step, and once at the end with a summary that nobody reads."""
        if "loss" not in logs:
            return
        self._refuse_nonsense(logs)
        logs |= {"tokens": self.step_tokens, "seconds": time.monotonic() - self.step_began}
        super().log(logs, start_time)  # keeps them in trainer_state.json, so that a resume has them all
        self.watcher.stepped(self.state.global_step, self.state.log_history[-1])

    def evaluate(self, *args: Any, **options: Any) -> dict[str, float]:
        self.control.should_evaluate = False
        self.watcher.look(self.state.global_step)
        return {}

    def create_model_card(self, *args: Any, **options: Any) -> None:
        """Export writes one, of the finished model."""

    def _refuse_nonsense(self, logs: dict[str, float]) -> None:
        """Raises FTError when the step's figures are no numbers; fp16 skips such a gradient and lowers its scale."""
        step, rate = self.state.global_step, self.recipe.learning_rate
        broken = "loss" if not math.isfinite(logs["loss"]) else "gradient"
        if broken == "gradient" and (self.args.fp16 or math.isfinite(logs["grad_norm"])):
            return
        raise FTError(
            f"the {broken} became {logs['loss' if broken == 'loss' else 'grad_norm']} at step {step}: "
            "the training broke down and was stopped, the last checkpoint is kept",
            f"Train again with a lower learning rate, for example {rate / 5:.1g} instead of {rate:g}.",
        )


class _Order(BatchSampler):
    """The micro-batches of one epoch after the other; the same epoch has the same ones, also after a resume."""

    def __init__(self, lengths: list[int], recipe: TrainRecipe):
        self.lengths = lengths
        self.recipe = recipe
        self.epoch = 0
        self.batch_size = recipe.micro_batch
        self.drop_last = False

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self) -> Iterator[list[int]]:
        return iter(micro_batches(self.lengths, self.recipe, self.epoch))

    def __len__(self) -> int:
        return len(micro_batches(self.lengths, self.recipe, 0))


class _Moments(TrainerCallback):
    """When to look, save and stop: decided here alone, the arguments leave it open."""

    def __init__(self, trainer: Trainer):
        self.trainer = trainer

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.trainer.step_tokens = 0
        self.trainer.step_began = time.monotonic()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        plan, step = self.trainer.plan, state.global_step
        last = step >= plan.steps
        control.should_evaluate = step % plan.evaluate_every == 0 and not last  # the end is looked at apart
        ends = self.trainer.watcher.must_end(step)
        control.should_save = last or ends or step % plan.save_every == 0
        control.should_training_stop = last or ends


def _arguments(model: PeftModel, recipe: TrainRecipe, plan: Plan, job: Job) -> SFTConfig:
    """Raises FTError when what the recipe hands through is not to their liking."""
    arguments = dict(
        output_dir=str(job.checkpoints),
        max_steps=plan.steps,
        per_device_train_batch_size=min(recipe.micro_batch, recipe.batch_size),
        gradient_accumulation_steps=math.ceil(recipe.batch_size / recipe.micro_batch),
        learning_rate=recipe.learning_rate,
        lr_scheduler_type=recipe.schedule if recipe.schedule != "constant" else "constant_with_warmup",
        warmup_steps=round(recipe.warmup * plan.steps),
        weight_decay=0.0,
        max_grad_norm=1.0,
        optim="adamw_torch",
        seed=recipe.seed,
        logging_steps=1,
        logging_nan_inf_filter=False,
        eval_strategy="no",
        save_strategy="no",
        save_total_limit=checkpoints.KEPT,
        report_to="none",
        disable_tqdm=True,
        use_cpu=model.device.type == "cpu",
        bf16=False,  # no autocast: the base is stored in the arithmetic it computes in
        fp16=recipe.precision == "fp16",
        gradient_checkpointing=model.num_parameters() >= CHECKPOINTED_FROM,
        max_length=None,
        dataset_kwargs={"skip_prepare_dataset": True},
        remove_unused_columns=False,
        dataloader_pin_memory=False,
    )
    extra.check(recipe.extra)
    try:
        return SFTConfig(**arguments | recipe.extra)
    except (ValueError, TypeError, ImportError) as error:
        if not recipe.extra:
            raise
        what = str(error).splitlines()[0]
        raise FTError(f"extra: these training arguments are refused: {what}", "Change train: extra.") from None
