"""One slice of a training, from the last whole checkpoint on: load, measure, train, measure, save.

It says what it does as events through `say`, and asks `must_end` between steps whether to save and end.
"""

from __future__ import annotations

import json
import math
import re
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import psutil
import torch
from transformers import AutoTokenizer, TrainerState

from .. import recipe
from ..data.freeze import read_frozen
from ..errors import FTError
from ..events import Event, Finished, Metric, Note, Progress, Sample, Started, Stopped
from ..render import Renderer
from ..workspace import Job, write_whole
from . import base, checkpoints, probes, rows, weights
from .fast import use_fast_lora
from .loss import fp32_arithmetic, mean_loss, row_losses
from .model import add_adapter, best_attention, best_device, best_precision, load_base, use_all_cores, use_one_gpu
from .plan import Plan
from .trainer import Trainer

CURVE_ROWS = 100
"""Held-out rows that the curve is measured on while training; the figures of the result are over all of them."""
STOP_PATIENCE_S = 30
"""A stopped run still measures its held-out loss when that took no longer than this before."""


class Session:
    def __init__(self, job: Job, say: Callable[[Event], None], must_end: Callable[[float], bool]):
        """`must_end(seconds)`: whether the person, the caller or the clock wants the end before so many are over."""
        self.job = job
        self.say = say
        self.must_end_within = must_end
        self.recipe = recipe.load(job.recipe)
        self.frozen = read_frozen(job.dataset)
        self.last = checkpoints.last_whole(job)
        self.step = checkpoints.step_of(self.last) if self.last else 0
        self.plan = Plan.of(sum(row.split == "train" for row in self.frozen), self.recipe.train)
        self.trainer: Trainer | None = None
        self.ended_early = False
        self.look_seconds: list[float] = []

    def run(self) -> None:
        """Trains until the end, a stop or the deadline. Says Finished or Stopped unless only the deadline ended it."""
        use_all_cores()
        use_one_gpu()
        self._find_base()
        self._render_rows()
        self.say(Started(self.plan.steps))
        self._load_model()
        before = self._before()
        self.model = add_adapter(self.model, self.recipe.train)
        use_fast_lora(self.model)
        self.trainer = Trainer(self.model, self.tokenizer, self.train_rows, self.recipe.train, self.job, self)
        if self.step == 0:
            self._answer_probes()
        if self.step < self.plan.steps and not self._is_stopped():
            self.trainer.train(resume_from_checkpoint=str(self.last) if self.last else None)
        elif self.last:
            self.model.load_adapter(self.last, "default", is_trainable=True)
            self.trainer.state = TrainerState.load_from_json(str(self.last / "trainer_state.json"))
        if self.ended_early and not self._is_stopped():
            return  # the deadline: the next slice goes on from the checkpoint
        self._finish(before)

    # --- what the trainer asks of its watcher ---

    def stepped(self, step: int, figures: dict[str, float]) -> None:
        self.step = step
        values = {name: figures[name] for name in ("loss", "learning_rate", "grad_norm", "epoch")}
        if not math.isfinite(values["grad_norm"]):  # a step that fp16's scaler skips; JSON has no infinity
            del values["grad_norm"]
        values |= {"tokens_per_s": figures["tokens"] / figures["seconds"], "memory_bytes": _memory_now()}
        self.say(Metric(step, values))
        self._progress("training")

    def look(self, step: int) -> None:
        began = time.monotonic()
        self._progress("measuring the held-out rows")
        if self.heldout_rows:
            loss = mean_loss(row_losses(self.model, self.heldout_rows[:CURVE_ROWS], self.tokenizer.pad_token_id))
            self.say(Metric(step, {"heldout_loss": loss}))
        self._answer_probes()
        self.look_seconds.append(time.monotonic() - began)
        self._progress("training")

    def must_end(self, step: int) -> bool:
        seconds = self._step_seconds()
        if step % self.plan.evaluate_every == 0:
            seconds += max(self.look_seconds, default=0.0)
        self.ended_early = self.must_end_within(2 * seconds + 1.0)  # the checkpoint takes about a second
        return self.ended_early

    # --- the stations ---

    def _find_base(self) -> None:
        """Makes or downloads the base model where it is not there yet."""
        self._progress("loading the base model")
        model = self.recipe.model
        self.base_name = base.public_name(model.base, self.job.path)
        self.base = base.resolve(
            model.base,
            model.revision,
            self.job.project.workspace,
            self.job.path,
            lambda share, what: self._progress(f"{what}, {share:.0%}"),
        )

    def _render_rows(self) -> None:
        """The frozen rows as this base sees them; what cannot be used is counted and named."""
        self.renderer = Renderer.of(self.base)
        found = rows.render(self.frozen, self.renderer, self.recipe.train)
        self.train_rows, self.heldout_rows = found.train, found.heldout
        if self.last is None:  # a resume has said it before
            for text in found.left_out:
                self.say(Note(text, "warning"))
        if not self.train_rows:
            raise FTError("no row has anything to learn", "Rows need an answer that fits into max_length.")
        self.probes = probes.choose(self.frozen, self.recipe.train.probes)
        self.plan = Plan.of(len(self.train_rows), self.recipe.train)

    def _load_model(self) -> None:
        self._progress("loading the model")
        device = best_device()
        if self.recipe.train.precision == "auto":  # settled once, so that a resume computes the same
            train = replace(self.recipe.train, precision=best_precision(device))
            self.recipe = replace(self.recipe, train=train)
            write_whole(self.job.recipe, recipe.dump(self.recipe))
        self.tokenizer = AutoTokenizer.from_pretrained(self.base, local_files_only=True)
        if self.tokenizer.pad_token_id is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token  # padding is never looked at: any token will do
        longest = max(len(row.ids) for row in self.train_rows)
        self.model = load_base(self.base, self.recipe.train.precision, device, best_attention(device, longest))

    def _before(self) -> dict[str, float | None]:
        """The untouched base's held-out loss and the seconds that took; measured once a job."""
        path = self.job.path / "report" / "before.json"
        if path.exists():
            return json.loads(path.read_text(encoding="utf-8"))
        began = time.monotonic()
        found = {"loss": self._measure(0), "seconds": time.monotonic() - began}
        path.parent.mkdir(exist_ok=True)
        write_whole(path, json.dumps(found))
        return found

    def _measure(self, step: int) -> float | None:
        """The held-out loss in fp32, of all rows; the curve gets its point from the same rows as always."""
        if not self.heldout_rows:
            return None
        self._progress("measuring the held-out rows")
        with fp32_arithmetic(self.model):
            losses = row_losses(self.model, self.heldout_rows, self.tokenizer.pad_token_id)
        self.say(Metric(step, {"heldout_loss": mean_loss(losses[:CURVE_ROWS])}))
        return mean_loss(losses)

    def _answer_probes(self) -> None:
        self._progress("the first answers" if self.step == 0 else "asking the probe prompts")
        answers = probes.answer(self.model, self.renderer, self.tokenizer.pad_token_id, self.probes)
        for messages, answer in zip(self.probes, answers):
            self.say(Sample(self.step, messages[-1].content, answer))

    def _finish(self, before: dict[str, float | None]) -> None:
        """Saves the adapter, measures it and says how it went."""
        stopped = self.step < self.plan.steps
        result: dict[str, Any] = {
            "job": self.job.id,
            "state": "stopped" if stopped else "finished",
            "steps": self.step,
            "base": str(self.base),
            "adapter": "",
            "heldout_before": before["loss"],
            "heldout_after": None,
        }
        if self.step:
            self._progress("saving the adapter")
            weights.save(self.model, self.base, self.base_name, self.job.adapter)
            result["adapter"] = str(self.job.adapter)
            if not stopped or before["seconds"] <= STOP_PATIENCE_S:
                result["heldout_after"] = self._measure(self.step)
            if not stopped:
                self._answer_probes()
        steps = self.trainer.state.log_history
        seconds = sum(entry["seconds"] for entry in steps)
        result |= {
            "tokens_per_s": sum(entry["tokens"] for entry in steps) / seconds if seconds else None,
            "peak_memory_bytes": _memory_peak(),
            "seconds": seconds,
        }
        self.say(Stopped(self.step, result) if stopped else Finished(result))

    # --- small things ---

    def _is_stopped(self) -> bool:
        return self.job.stop.exists()

    def _step_seconds(self) -> float:
        """What a step has taken of late; 0.0 before the first."""
        history = self.trainer.state.log_history[-20:] if self.trainer else []
        recent = [entry["seconds"] for entry in history]
        return fmean(recent) if recent else 0.0

    def _progress(self, what: str) -> None:
        eta = None
        if self._step_seconds():
            looks = sum(step > self.step for step in self.plan.looks())
            eta = (self.plan.steps - self.step) * self._step_seconds() + looks * fmean(self.look_seconds or [0.0])
        self.say(Progress(self.step, self.plan.steps, eta, what))


def _memory_now() -> int:
    return torch.cuda.memory_allocated() if torch.cuda.is_available() else psutil.Process().memory_info().rss


def _memory_peak() -> int:
    """Bytes: of the GPU where one trains, else of this process."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    status = Path("/proc/self/status")  # Linux's ru_maxrss counts whoever started this process, as large as it was
    if status.exists() and (found := re.search(r"VmHWM:\s+(\d+) kB", status.read_text())):
        return int(found[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
