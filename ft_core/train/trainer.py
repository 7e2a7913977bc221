"""TRL's SFTTrainer with our rows, our order, our loss and our moments to look, to save and to stop."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import torch
from datasets import Dataset
from peft import PeftModel
from torch.distributed.tensor import DTensor
from torch.utils.data import BatchSampler, DataLoader
from transformers import PreTrainedTokenizerBase, PrinterCallback, TrainerCallback
from trl import SFTConfig, SFTTrainer

from ..errors import FTError
from ..recipe import TrainRecipe
from ..render import IGNORED
from ..workspace import Job
from . import checkpoints, extra, faults, methods, packing, shards, together
from .limits import CHECKPOINTED_FROM
from .loss import collate, learnt_nats, nothing
from .plan import Plan, micro_batches, rounds, rows_at_once, rows_of
from .rows import Rows

_ROWS_NAMED = 20


class Watcher(Protocol):
    """Whoever follows the training from step to step."""

    def stepped(self, step: int, figures: dict[str, float]) -> None:
        """A step is done: loss, grad_norm, learning_rate, epoch, tokens (without padding) and seconds."""

    def look(self, step: int) -> float | None:
        """The moment to measure and to ask, between two steps. Returns the held-out loss; None without such rows."""

    def must_end(self, step: int) -> bool:
        """Whether to save and end after this step."""

    def saved(self, checkpoint: Path) -> None:
        """A checkpoint was written to its end."""

    def named(self, indices: list[int]) -> list[int]:
        """The ids of rows to train, by which people know them."""


class Trainer(SFTTrainer):
    """Trains what of `model` wants a gradient, and leaves checkpoints in the job's folder."""

    def __init__(
        self,
        model: PeftModel,
        tokenizer: PreTrainedTokenizerBase,
        rows: Rows,
        recipe: TrainRecipe,
        job: Job,
        watcher: Watcher,
    ):
        self.recipe = recipe
        self.job = job
        self.plan = Plan.of(len(rows.train), recipe)
        self.lengths = [len(row.ids) for row in rows.train]
        self.pad_id = tokenizer.pad_token_id
        self.watcher = watcher
        self.step_tokens = 0
        self.step_began = time.monotonic()
        super().__init__(
            model=model,
            args=_arguments(model, recipe, self.plan, job),
            train_dataset=self.dataset(rows),
            processing_class=tokenizer,
            data_collator=self.collated,
            callbacks=[_Moments(self)],
        )
        self.remove_callback(PrinterCallback)
        for parameter in model.parameters():
            if parameter.requires_grad:  # TRL narrows the adapter of a base at 4 or 8 bits
                parameter.data = parameter.data.float()
        self.shared = together.shared(model)

    def dataset(self, rows: Rows) -> Dataset:
        return Dataset.from_dict({"input_ids": [r.ids for r in rows.train], "labels": [r.labels for r in rows.train]})

    def collated(self, examples: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """A micro-batch; of no row, where another process has one more."""
        return self.in_line(collate(examples, self.pad_id)) if examples else nothing(self.pad_id)

    def in_line(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The rows packed, where the model computes them so."""
        return packing.packed(batch) if packing.is_used(self.model) else batch

    def get_train_dataloader(self) -> DataLoader:
        order = _Order(self.lengths, self.recipe)
        loader = DataLoader(self.train_dataset, batch_sampler=order, collate_fn=self.data_collator)
        return self.accelerator.prepare(loader)

    def get_batch_samples(self, *args: Any) -> tuple[list[dict[str, torch.Tensor]], torch.Tensor]:
        """This process's micro-batches of a step, and what the step's mean is over, in all processes."""
        batches, _ = super().get_batch_samples(*args)
        return batches, torch.tensor(sum(together.of_all(self.items(batches))), device=self.args.device)

    def items(self, batches: list[dict[str, torch.Tensor]]) -> int:
        """Learnt tokens."""
        return sum(int((batch["labels"][:, 1:] != IGNORED).sum()) for batch in batches)

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, torch.Tensor],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """The share of this micro-batch in the step's mean loss: its nats by the learnt tokens of the whole step.

        Several processes take the mean of their gradients, and of what this returns; so it is as many times that.
        """
        self.step_tokens += int(inputs["lengths"].sum())
        with self.accelerator.autocast():
            nats = together.through(self.shared, self.model, lambda: learnt_nats(self.model, inputs))
            return nats * together.count() / num_items_in_batch

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Called after every step, and once at the end with a summary that nobody reads."""
        if "loss" not in logs:
            return
        losses, tokens = zip(*together.of_all((logs["loss"], self.step_tokens)))
        logs["loss"] = sum(losses) / len(losses)
        self._refuse_nonsense(logs)
        logs |= {"tokens": sum(tokens), "seconds": time.monotonic() - self.step_began}
        super().log(logs, start_time)  # keeps them in trainer_state.json, so that a resume has them all
        self.watcher.stepped(self.state.global_step, self.state.log_history[-1])

    def evaluate(self, *args: Any, **options: Any) -> dict[str, float]:
        self.control.should_evaluate = False
        if (loss := self.watcher.look(self.state.global_step)) is not None:
            self._weigh(loss)
        return {}

    def _weigh(self, heldout_loss: float) -> None:
        """The best step so far stands in the state, and so in every checkpoint: a resume finds the same one."""
        if heldout_loss < (math.inf if self.state.best_metric is None else self.state.best_metric):
            self.state.best_metric, self.state.best_global_step = heldout_loss, self.state.global_step
            self.control.should_save |= self.recipe.keep == "best"
        elif self.plan.ends_early(self.recipe.patience, self.state.best_global_step, self.state.global_step):
            self.control.should_save = self.control.should_training_stop = True

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any) -> None:
        with shards.whole(self.model, self.optimizer.optimizer):
            if together.leads():
                self._write_checkpoint(model, trial)

    def _write_checkpoint(self, model: torch.nn.Module, trial: Any) -> None:
        step, best = self.state.global_step, self.state.best_global_step
        checkpoints.make_room(self.job, step, best, self._checkpoint_bytes())
        with faults.writing(f"the checkpoint of step {step}", checkpoints.folder(self.job, step), self.job):
            super()._save_checkpoint(model, trial)
        self.watcher.saved(checkpoints.folder(self.job, step))
        checkpoints.prune(self.job, best if self.recipe.keep == "best" else None)

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        """The weights alone: the tokenizer is the base's, and as large as a small adapter."""
        tokenizer, self.processing_class = self.processing_class, None
        try:
            super()._save(output_dir, state_dict)
        finally:
            self.processing_class = tokenizer

    def _checkpoint_bytes(self) -> int:
        """At most: the weights that are saved, AdamW's two moments of those that learn, some words a step."""
        learning = sum(p.numel() * p.element_size() for p in self.model.parameters() if p.requires_grad)
        whole = sum(p.numel() * p.element_size() for p in self.model.parameters())
        saved = learning if isinstance(self.model, PeftModel) else whole
        return round(1.1 * (saved + 2 * learning)) + 2**20 + 500 * self.plan.steps

    def create_optimizer(self, *args: Any) -> torch.optim.Optimizer:
        optimizer = super().create_optimizer(*args)
        if shards.are_of(self.model):
            optimizer.register_load_state_dict_pre_hook(shards.take_moments)
        return optimizer

    def _clip_grad_norm(self, model: torch.nn.Module) -> torch.Tensor:
        norm = super()._clip_grad_norm(model)
        return norm.full_tensor() if isinstance(norm, DTensor) else norm

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        """The rate is that of this many steps, also where the checkpoint is of a training with another number."""
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint and isinstance(self.lr_scheduler, torch.optim.lr_scheduler.LambdaLR):
            schedule = self.lr_scheduler
            rates = [base * at(schedule.last_epoch) for base, at in zip(schedule.base_lrs, schedule.lr_lambdas)]
            schedule._last_lr = rates
            for group, rate in zip(self.optimizer.param_groups, rates):
                group["lr"] = rate

    def create_model_card(self, *args: Any, **options: Any) -> None:
        """Export writes one, of the finished model."""

    def _refuse_nonsense(self, logs: dict[str, float]) -> None:
        """Raises FTError when the step's figures are no numbers; fp16 skips such a gradient and lowers its scale."""
        step = self.state.global_step
        broken = "loss" if not math.isfinite(logs["loss"]) else "gradient"
        if broken == "gradient" and (self.args.fp16 or math.isfinite(logs["grad_norm"])):
            return
        ids = self.watcher.named(rows_of(self.lengths, self.recipe, step))
        rows = ", ".join(map(str, ids[:_ROWS_NAMED])) + (", ..." if len(ids) > _ROWS_NAMED else "")
        raise FTError(
            f"the {broken} became {logs['loss' if broken == 'loss' else 'grad_norm']} at step {step}, of rows {rows}: "
            "the training broke down and was stopped, the last checkpoint is kept",
            f"{faults.lower(self.recipe.learning_rate)} If it breaks down there again, look at these rows.",
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
        return iter(micro_batches(self.lengths, self.recipe, self.epoch, together.rank(), together.count()))

    def __len__(self) -> int:
        return len(micro_batches(self.lengths, self.recipe, 0, together.rank(), together.count()))


class _Moments(TrainerCallback):
    """When to look, save and stop: decided here alone, the arguments leave it open."""

    def __init__(self, trainer: Trainer):
        self.trainer = trainer

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.trainer.step_tokens = 0
        self.trainer.step_began = time.monotonic()
        if together.count() > 1:  # what dropout drops is each one's own, and the same again after a resume
            torch.manual_seed(hash((self.trainer.recipe.seed, state.global_step, together.rank())) % 2**63)

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
        per_device_train_batch_size=rows_at_once(recipe, together.count()),
        gradient_accumulation_steps=rounds(recipe, together.count()),
        learning_rate=recipe.learning_rate,
        lr_scheduler_type=recipe.schedule if recipe.schedule != "constant" else "constant_with_warmup",
        warmup_steps=round(recipe.warmup * plan.steps),
        weight_decay=0.0,
        max_grad_norm=1.0,
        optim="adamw_torch_fused",
        seed=recipe.seed,
        logging_steps=1,
        logging_nan_inf_filter=False,
        eval_strategy="no",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        use_cpu=model.device.type == "cpu",
        # A base that stays as it is computes in what it is stored in; weights that learn are fp32, cast as they go.
        bf16=recipe.precision == "bf16" and not methods.leaves_adapter(recipe.method),
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
