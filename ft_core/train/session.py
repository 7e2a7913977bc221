"""One slice of a training, from the last whole checkpoint on: load, measure, train, measure, save.

It says what it does as events through `say`, and asks `must_end` between steps whether to save and end.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any

from transformers import AutoTokenizer, TrainerState

from .. import recipe
from ..data.freeze import read_frozen
from ..errors import FTError
from ..events import Event, Finished, Metric, Note, Progress, Started, Stopped
from ..machine import this_machine
from ..render import Renderer
from ..workspace import Job, write_whole
from . import (
    base,
    checkpoints,
    compiled,
    engines,
    fast,
    faults,
    making,
    methods,
    peak,
    preference,
    probes,
    products,
    rows,
    shards,
    together,
    waiting,
    weights,
)
from .estimate import promised
from .heldout import Heldout
from .looks import Looks
from .mirror import Mirror
from .model import (
    best_device,
    best_precision,
    flops,
    use_all_cores,
    use_one_gpu,
)
from .plan import Ahead, Plan, rows_at_once
from .sizes import Work
from .trainer import Trainer

STOP_PATIENCE_S = 30
"""A stopped run still measures its held-out loss when that took no longer than this before."""


class Session:
    def __init__(self, job: Job, say: Callable[[Event], None], must_end: Callable[[float], bool]):
        """`must_end(seconds)`: whether the person, the caller or the clock wants the end before so many are over."""
        self.job = job
        self.say = say
        self.must_end_within = must_end
        self.recipe = recipe.load(job.recipe)
        self.sharded = together.count() > 1 and self.recipe.compute.strategy == "fsdp"
        self.frozen = read_frozen(job.dataset)
        self.torn = together.decided(lambda: checkpoints.remove_torn(job))
        self.last = together.decided(lambda: checkpoints.last_whole(job))
        self.step = checkpoints.step_of(self.last) if self.last else 0
        self.plan = Plan.of(sum(row.split == "train" for row in self.frozen), self.recipe.train)
        self.trainer: Trainer | None = None
        self.ended_early = False
        self.clock = faults.Clock()
        self.mirror = Mirror(job, self.recipe.train.mirror if together.leads() else (), say)
        self.origin = job.path / self.recipe.model.adapter if self.recipe.model.adapter else None
        self.look_seconds: list[float] = []
        self.first_look = 0.0

    def run(self) -> None:
        """Trains until the end, a stop or the deadline. Says Finished or Stopped unless only the deadline ended it."""
        try:
            with waiting.by_load():
                self._run()
        finally:
            self.mirror.close()

    def _run(self) -> None:
        self._begin()
        self.say(Started(self.plan.steps))
        self._say_how_it_goes_on()
        self._load_model()
        self.promised = promised(self.job, self.base, self.recipe, self._work())
        self.compiles = self.promised.pop("compiled", False)
        if self.sharded:  # the base is on no GPU by itself; what begins to learn says the same
            self._make_learn()
            shards.share_out(self.model, best_device())
            before = self._before()
        else:
            before = self._before()
            self._make_learn()
        if self.origin:
            before = self._at_the_start(before)
        self.trainer = self._trainer()
        began = time.monotonic()
        if self.step == 0:
            self._answer_probes()
        self.first_look = before["seconds"] + time.monotonic() - began
        if self.last:
            self.trainer.state = self._state_of(self.last)
        if not self._is_over() and not self._is_stopped():
            self._train()
        elif self.last:
            weights.restore(self.model, self.last)
        if self.ended_early and not self._is_stopped():
            return  # the deadline: the next slice goes on from the checkpoint
        self._finish(before)

    # --- what the trainer asks of its watcher ---

    def stepped(self, step: int, figures: dict[str, float]) -> None:
        self.step = step
        names = ("loss", "learning_rate", "grad_norm", "epoch", "preference_accuracy", "margin")
        values = {name: figures[name] for name in names if name in figures}
        if not math.isfinite(values["grad_norm"]):  # a step that fp16's scaler skips; JSON has no infinity
            del values["grad_norm"]
        values |= {"tokens_per_s": figures["tokens"] / figures["seconds"], "memory_bytes": peak.now()}
        self.say(Metric(step, values))
        self._warn()
        self._progress("training")

    def look(self, step: int) -> float | None:
        began = time.monotonic()
        self._progress("measuring the held-out rows")
        found = self.looks.brief(self.model)
        if found.curve:
            self.say(Metric(step, found.curve))
        self._answer_probes()
        self.look_seconds.append(time.monotonic() - began)
        self._progress("training")
        return together.decided(lambda: found.weighed)

    def must_end(self, step: int) -> bool:
        seconds = self._step_seconds()
        if step % self.plan.evaluate_every == 0:
            seconds += max(self.look_seconds, default=0.0)
        within = 2 * seconds + 1.0  # the checkpoint takes about a second
        self.ended_early = together.decided(lambda: self.must_end_within(within))
        return self.ended_early

    def saved(self, checkpoint: Path) -> None:
        self.mirror.offer(checkpoint)

    def named(self, indices: list[int]) -> list[int]:
        return [self.rows.train_ids[i] for i in indices]

    # --- the stations ---

    def _begin(self) -> None:
        """The base and the rows, where this machine can train so."""
        use_all_cores()
        use_one_gpu()
        methods.require(self.recipe.train.method, this_machine())
        engines.require(self.recipe, this_machine())
        self._find_base()
        self._render_rows()

    def _find_base(self) -> None:
        """Makes or downloads the base model where it is not there yet."""
        self._progress("loading the base model")
        model = self.recipe.model
        self.base_name = base.public_name(model.base, self.job.path)
        self.base = together.decided(
            lambda: base.resolve(
                model.base,
                model.revision,
                self.job.project.workspace,
                self.job.path,
                lambda share, what: self._progress(f"{what}, {share:.0%}"),
            )
        )

    def _render_rows(self) -> None:
        """The frozen rows as this base sees them; what cannot be used is counted and named."""
        self.renderer = Renderer.of(self.base)
        self.rows = rows.render(self.frozen, self.renderer, self.recipe.train)
        for text in self.rows.left_out:
            self.say(Note(text, "warning"))
        if not self.rows.train:
            raise FTError("no row has anything to learn", rows.NEEDED[self.recipe.train.learns])
        self.probes = probes.choose(self.frozen, self.recipe.train)
        self.plan = Plan.of(len(self.rows.train), self.recipe.train)
        self.ahead = Ahead([len(row.ids) for row in self.rows.train], self.recipe.train)

    def _load_model(self) -> None:
        self._progress("loading the model")
        if self.recipe.train.precision == "auto":
            self._settle(precision=best_precision(best_device()))
        self.tokenizer = AutoTokenizer.from_pretrained(self.base, local_files_only=True)
        if self.tokenizer.pad_token_id is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token  # padding is never looked at: any token will do
        self.model = making.loaded(self.base, self.recipe.train, self.rows.longest, self.sharded)
        self.looks = Looks(
            self.recipe.train, self.rows, self.probes, self.renderer, self.tokenizer.pad_token_id, self.say
        )

    def _make_learn(self) -> None:
        train = self.recipe.train
        self.model = making.made_to_learn(self.model, train, self.origin)
        at_once = rows_at_once(train, together.count()) * (2 if train.learns == "preferences" else 1)
        kept = self.job.project.workspace.cache / "products.json"
        products.learn(fast.weights(self.model), at_once * self.rows.longest, kept)

    def _settle(self, **values: str) -> None:
        """Writes what `auto` has become into the job's recipe, so that a resume computes the same."""
        self.recipe = replace(self.recipe, train=replace(self.recipe.train, **values))
        self._write(self.job.recipe, recipe.dump(self.recipe))

    def _compile(self) -> None:
        """Compiles the layers where that pays, or where the recipe wants it."""
        train = self.recipe.train
        if train.compiled == "yes" or (train.compiled == "auto" and together.decided(lambda: self.compiles)):
            self._progress("compiling the layers")
            why = compiled.tried(self.model, train, self.job.project.workspace.cache / "compiled")
            self._settle(compiled="no" if why else "yes")
            if why and train.compiled == "yes":
                self.say(Note(f"The layers were not compiled: {why}.", "warning"))

    def _work(self) -> Work:
        trained = [*self.rows.train, *self.rows.train_worse]
        shared, asked = rows.alike(self.rows.train, self.rows.train_worse)
        return Work(
            rows=len(self.rows.train),
            tokens=sum(len(row.ids) for row in trained),
            heldout_tokens=sum(len(row.ids) for row in (*self.rows.heldout, *self.rows.heldout_worse)),
            longest=self.rows.longest,
            learnt=max(row.learnt for row in trained),
            spread=round(pstdev(len(row.ids) for row in trained)),
            shared=shared,
            asked=asked,
        )

    def _trainer(self) -> Trainer:
        args = (self.model, self.tokenizer, self.rows, self.recipe.train, self.job, self)
        if self.recipe.train.learns != "preferences":
            return Trainer(*args)
        self._progress("measuring what the model says of the pairs")
        said_of = partial(self.looks.losses, self.model)
        self.looks.reference = preference.reference(self.model, said_of, self.rows, self.job)
        return preference.PreferenceTrainer(*args, self.looks.reference)

    def _before(self) -> dict[str, float | None]:
        """The untouched base's held-out loss and the seconds that took; measured once a job.

        The curve begins with it, unless the training goes on from something: then with what that says.
        """
        path = self.job.path / "report" / "before.json"
        if together.decided(path.exists):
            return json.loads(path.read_text(encoding="utf-8"))
        began = time.monotonic()
        measured = self._measure()
        if measured.curve and not self.origin:
            self.say(Metric(0, measured.curve))
        found = together.decided(lambda: {"loss": measured.loss, "seconds": time.monotonic() - began})
        path.parent.mkdir(exist_ok=True)
        self._write(path, json.dumps(found))
        return found

    def _at_the_start(self, before: dict[str, float | None]) -> dict[str, float | None]:
        """`before` with the held-out loss of what the training goes on from; measured once a job."""
        if together.decided(lambda: "start" in before):
            return before
        measured = self._measure()
        if measured.curve:
            self.say(Metric(0, measured.curve))
        found = before | {"start": measured.loss}
        self._write(self.job.path / "report" / "before.json", json.dumps(found))
        return found

    def _train(self) -> None:
        """Raises OutOfMemory when the rows in memory at once are too many."""
        try:
            self._compile()
            self.trainer.train(resume_from_checkpoint=str(self.last) if self.last else None)
        except (RuntimeError, MemoryError) as error:
            if not faults.is_out_of_memory(error):
                raise
            raise faults.OutOfMemory(self.step) from None

    def _measure(self) -> Heldout:
        self._progress("measuring the held-out rows")
        return self.looks.whole(self.model)

    def _answer_probes(self) -> None:
        self._progress("the first answers" if self.step == 0 else "asking the probe prompts")
        self.looks.answers(self.model, self.step)

    def _finish(self, before: dict[str, float | None]) -> None:
        """Measures what was learnt, keeps the best of it and says how it went."""
        stopped = not self._is_over()
        result: dict[str, Any] = {
            "job": self.job.id,
            "state": "stopped" if stopped else "finished",
            "steps": self.step,
            "base": str(self.base),
            "adapter": "",
            "heldout_before": before["loss"],
            **({"heldout_start": before["start"]} if self.origin else {}),
            "heldout_after": None,
            "best_step": None,
            "kept_step": None,
        }
        if not stopped and self.step < self.plan.steps:
            best = self.trainer.state.best_global_step
            text = f"The training ended at step {self.step} of {self.plan.steps}: the held-out loss has not got lower"
            self.say(Note(f"{text} since step {best} (early stopping, patience {self.recipe.train.patience})."))
        if self.step:
            if not stopped or before["seconds"] <= STOP_PATIENCE_S:
                result |= self._keep()
            else:
                result["kept_step"] = self.step
            self._progress("saving the adapter")
            with shards.whole(self.model):
                if together.leads():
                    self._save()
            result["adapter"] = str(self.job.adapter)
            if not stopped and result["kept_step"] == self.step:  # of an earlier step, the look there asked them
                self._answer_probes()
        steps = self.trainer.state.log_history
        seconds, tokens = (sum(entry[name] for entry in steps) for name in ("seconds", "tokens"))
        result |= {
            "tokens": tokens,
            "tokens_per_s": tokens / seconds if seconds else None,
            "flops": flops(self.model, tokens),
            "peak_memory_bytes": max(together.of_all(peak.highest())),
            "seconds": seconds,
            **self.promised,
        }
        self.mirror.close()
        self.say(Stopped(self.step, result) if stopped else Finished(result))

    def _save(self) -> None:
        with faults.writing("the adapter", self.job.adapter.with_name(".adapter.part"), self.job):
            weights.save(self.model, self.base, self.base_name, self.recipe.train, self.job.adapter)

    def _keep(self) -> dict[str, Any]:
        """Measures the last step, puts the best one's weights into the model and says which; the result's part of it.

        The looks on the way computed in the training's arithmetic, this one in fp32: where the choice hangs on that,
        the two are equally good.
        """
        state, best = self.trainer.state, self.trainer.state.best_global_step
        after = self._measure()
        weighed = together.decided(lambda: after.weighed)
        if weighed is None:
            return {"kept_step": self.step}
        self.say(Metric(self.step, after.curve))
        if best is None or weighed < state.best_metric:
            best = self.step
        kept = best if self.recipe.train.keep == "best" else self.step
        if kept != self.step and not together.decided(lambda: checkpoints.is_whole(self._checkpoint(kept))):
            self.say(Note(f"The checkpoint of step {kept}, the best one, is not there; the last is kept.", "warning"))
            kept = self.step
        if kept != self.step:
            weights.restore(self.model, self._checkpoint(kept))
            after = self._measure()
            self.say(
                Note(
                    f"Kept is step {kept}, where the held-out loss was lowest (best checkpoint): "
                    f"{state.best_metric:.3f}, and {weighed:.3f} at step {self.step}."
                )
            )
        pairs = {} if after.accuracy is None else {"heldout_accuracy": after.accuracy}
        return {"heldout_after": after.loss, **pairs, "best_step": best, "kept_step": kept}

    # --- small things ---

    def _say_how_it_goes_on(self) -> None:
        for step in self.torn:
            self.say(
                Note(
                    f"The checkpoint of step {step} was not written to its end and does not count; the training goes "
                    f"on {checkpoints.whence(self.last)}.",
                    "warning",
                )
            )
        if self.last and (before := self._state_of(self.last).max_steps) != self.plan.steps:
            self.say(
                Note(
                    f"The training was of {before} steps and is of {self.plan.steps} now: it goes on from step "
                    f"{self.step}, at the learning rate that a training of {self.plan.steps} steps has there."
                )
            )

    def _warn(self) -> None:
        """Of a machine that slept, and of a loss that runs away."""
        if asleep := self.clock.slept():
            text = f"The machine slept for about {asleep / 60:.0f} minutes before step {self.step} was done"
            self.say(Note(f"{text}; the training went on where it was."))
        losses = [entry["loss"] for entry in self.trainer.state.log_history]
        if text := faults.divergence(losses, self.recipe.train.learning_rate):
            self.say(Note(text, "warning"))

    @staticmethod
    def _state_of(checkpoint: Path) -> TrainerState:
        return TrainerState.load_from_json(str(checkpoint / "trainer_state.json"))

    def _is_over(self) -> bool:
        """Whether all steps are done, or the held-out loss has not got better for as long as the recipe waits."""
        best = self.trainer.state.best_global_step
        return self.step >= self.plan.steps or self.plan.ends_early(self.recipe.train.patience, best, self.step)

    def _is_stopped(self) -> bool:
        return together.decided(self.job.stop.exists)

    def _step_seconds(self) -> float:
        """What a step has taken of late; 0.0 before the first."""
        history = self.trainer.state.log_history[-20:] if self.trainer else []
        recent = [entry["seconds"] for entry in history]
        return fmean(recent) if recent else 0.0

    def _checkpoint(self, step: int) -> Path:
        return checkpoints.folder(self.job, step)

    @staticmethod
    def _write(path: Path, text: str) -> None:
        """What all processes know alike, one of them writes."""
        if together.leads():
            write_whole(path, text)

    def _progress(self, what: str) -> None:
        self.say(Progress(self.step, self.plan.steps, self._seconds_left(), what))

    def _seconds_left(self) -> float | None:
        """By the tokens that are left, at the speed of late, and the looks; None before the first step."""
        history = self.trainer.state.log_history if self.trainer else []
        recent = history[1:][-20:] or history  # the first step warms up
        if not recent:
            return None
        done = self.ahead.tokens(self.step - len(recent)) - self.ahead.tokens(self.step)
        left = self.ahead.tokens(self.step) * sum(entry["seconds"] for entry in recent) / done
        looks = sum(step > self.step for step in self.plan.looks()[:-1])
        last = self.first_look  # over all rows, as the first was
        return left + looks * fmean(self.look_seconds or [self.first_look]) + last
