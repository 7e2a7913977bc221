"""Preferences: the loss is that of TRL's DPOTrainer, better answers gain, and nothing is lost by a stop."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import trl.trainer.utils
from datasets import Dataset
from transformers import AutoTokenizer
from trl import DPOConfig, DPOTrainer

from ft_core import events, jobs
from ft_core.compare import heldout
from ft_core.conversation import Conversation, Message
from ft_core.data.freeze import read_frozen
from ft_core.data.store import Store
from ft_core.errors import FTError
from ft_core.events import Event, EventWriter, Finished, Metric, Note, Stopped
from ft_core.recipe import TrainRecipe
from ft_core.render import PLAIN, Renderer
from ft_core.train import preference, rows
from ft_core.train.heldout import Heldout
from ft_core.train.model import add_adapter, load_base
from ft_core.train.sft import train_slice
from ft_core.workspace import Job, Project, Workspace
from tests.core import bases
from tests.core.trainings import created, view, weights

DPO = TrainRecipe(
    learns="preferences", beta=0.3, steps=5, learning_rate=5e-3, batch_size=12, micro_batch=5, rank=4,
    precision="fp32", save_every=2, evaluate_every=3, keep="last", schedule="constant", warmup=0.0,
)  # fmt: skip
PAIRS = 14


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = bases.llama(tmp_path_factory.mktemp("bases") / "tiny")
    (folder / "chat_template.jinja").write_text(PLAIN)  # for TRL's own trainer
    return folder


def _pairs() -> list[Conversation]:
    return [
        Conversation(
            (
                Message("user", f"Is {n} even?"),
                Message("assistant", "Let me see."),
                Message("user", "Well?"),
                Message("assistant", f"It is {'odd' if n % 2 else 'even'}, thank you for asking."),
            ),
            rejected=f"No idea{'!' * (n % 3)}",
        )
        for n in range(PAIRS)
    ]


def _project(workspace: Workspace) -> Project:
    project = workspace.project("votes", create=True)
    with Store(project.data) as store:
        store.add(_pairs())
    return project


@pytest.fixture
def project(workspace: Workspace) -> Project:
    return _project(workspace)


def _train(job: Job, stop_at: int = 0) -> list[Event]:
    writer = EventWriter(job.events)
    said = []
    for event in train_slice(job, None):
        writer.write(event)
        said.append(event)
        if stop_at and isinstance(event, Metric) and event.step == stop_at:
            jobs.stop(job)
    writer.close()
    return said


def test_the_question_of_a_pair_is_computed_once(project: Project, base: Path, monkeypatch) -> None:
    seen = []

    def recorded(model, batch):
        seen.append(batch)
        return own(model, batch)

    own = preference.token_nats
    monkeypatch.setattr(preference, "token_nats", recorded)
    _train(created(project, base, replace(DPO, steps=1, batch_size=4, micro_batch=4)))
    (batch,) = seen
    of_rows = int(batch["lengths"].sum())
    assert batch["input_ids"].shape[0] == 1 and len(batch["lengths"]) == 8
    assert batch["input_ids"].shape[1] < 0.7 * of_rows


def _figures(job: Job, name: str) -> dict[int, float]:
    return {step: values[name] for step, values in view(job).metrics.items() if name in values}


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory: pytest.TempPathFactory, base: Path) -> Job:
    job = created(_project(Workspace.at(tmp_path_factory.mktemp("whole"))), base, DPO)
    assert isinstance(_train(job)[-1], Finished)
    return job


class _LogProbabilities:
    """What TRL's kernel computes (triton, which CPU builds of torch lack), by plain torch."""

    @staticmethod
    def apply(hidden: torch.Tensor, weight: torch.Tensor, bias: None, labels: torch.Tensor, *_: object) -> tuple:
        logits = torch.nn.functional.linear(hidden, weight, bias)
        found = logits.log_softmax(-1).gather(1, labels[:, None]).squeeze(1)
        idle = found.detach()
        return found, idle, idle, idle, idle > 0


def test_the_loss_of_each_step_is_that_of_trls_trainer(
    whole_run: Job, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All pairs are one step, so the order does not matter; their own tokenizing, reference and formula."""
    monkeypatch.setattr(trl.trainer.utils, "_ChunkedLogProbFunction", _LogProbabilities)
    frozen = [row.conversation for row in read_frozen(whole_run.dataset) if row.split == "train"]
    kept = replace(DPO, batch_size=len(frozen))
    prompts = [[m.to_dict() for m in c.messages[:-1]] for c in frozen]
    answers = [[c.messages[-1].to_dict()] for c in frozen]
    worse = [[{"role": "assistant", "content": c.rejected}] for c in frozen]
    trainer = DPOTrainer(
        model=add_adapter(load_base(base, "fp32", torch.device("cpu")), DPO),
        args=DPOConfig(
            output_dir=str(tmp_path), max_steps=DPO.steps, per_device_train_batch_size=kept.batch_size, beta=DPO.beta,
            learning_rate=DPO.learning_rate, lr_scheduler_type="constant", use_cpu=True, bf16=False, report_to="none",
            logging_steps=1, save_strategy="no", gradient_checkpointing=False, max_length=None, disable_tqdm=True,
        ),
        processing_class=AutoTokenizer.from_pretrained(base, pad_token=bases.END),
        train_dataset=Dataset.from_dict({"prompt": prompts, "chosen": answers, "rejected": worse}),
    )  # fmt: skip
    trainer.train()
    theirs = [entry for entry in trainer.state.log_history if "loss" in entry]
    job = created(whole_run.project, base, kept)
    _train(job)
    ours = {name: list(_figures(job, name).values()) for name in ("loss", "margin", "preference_accuracy")}
    # Their log rounds to a few digits.
    assert ours["loss"] == pytest.approx([e["loss"] for e in theirs], abs=2e-4)
    assert ours["margin"] == pytest.approx([e["rewards/margins"] for e in theirs], abs=2e-3)
    assert ours["preference_accuracy"][1:] == pytest.approx([e["rewards/accuracies"] for e in theirs][1:], abs=1e-6)


def test_better_answers_gain(whole_run: Job) -> None:
    losses, margins = _figures(whole_run, "loss"), _figures(whole_run, "margin")
    assert losses[1] == pytest.approx(0.6931, abs=1e-3) and margins[1] == pytest.approx(0.0, abs=1e-3)
    assert losses[5] < 0.5 and margins[5] > 0.5
    result = events.fold(events.read(whole_run.events)[0]).result
    assert result["heldout_accuracy"] == 1.0
    assert list(_figures(whole_run, "heldout_accuracy")) == [3, 5]
    assert _figures(whole_run, "heldout_loss")[0] == pytest.approx(result["heldout_before"])


def test_the_evaluation_measures_the_better_answers_too(whole_run: Job) -> None:
    result = events.fold(events.read(whole_run.events)[0]).result
    found = heldout.evaluate(whole_run)
    assert found.before == pytest.approx(result["heldout_before"], abs=1e-5)
    assert found.after == pytest.approx(result["heldout_after"], abs=1e-5)


def test_the_last_answers_alone_are_learnt_and_measured(whole_run: Job, base: Path) -> None:
    renderer = Renderer.of(base)
    found = rows.render(read_frozen(whole_run.dataset), renderer, DPO)
    for better, worse in zip(found.train, found.train_worse):
        said = renderer.tokenizer.decode([t for t in better.labels if t >= 0], skip_special_tokens=False)
        assert said.startswith("It is ") and said.endswith(f"asking.{bases.END}")
        said = renderer.tokenizer.decode([t for t in worse.labels if t >= 0], skip_special_tokens=False)
        assert said.startswith("No idea") and said.endswith(bases.END)
        first = next(i for i, label in enumerate(better.labels) if label >= 0)
        assert better.ids[:first] == worse.ids[:first]


def test_stop_and_resume_give_the_same_bits(whole_run: Job, project: Project, base: Path) -> None:
    job = created(project, base, DPO)
    assert isinstance(_train(job, stop_at=2)[-1], Stopped)
    reference = job.path / "report" / "reference.json"
    kept = reference.read_text()
    job.stop.unlink()
    assert isinstance(_train(job)[-1], Finished)
    assert reference.read_text() == kept
    assert _figures(job, "loss") == _figures(whole_run, "loss")
    one, other = weights(job.adapter), weights(whole_run.adapter)
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_resume_measures_against_what_was_kept(whole_run: Job, project: Project, base: Path) -> None:
    """The reference is what the model said before the first step, not what it says now."""
    job = created(project, base, DPO)
    at = _train(job, stop_at=2)[-1].step
    reference = job.path / "report" / "reference.json"
    moved = json.loads(reference.read_text())
    reference.write_text(json.dumps(moved | {"train": [ratio + 10.0 for ratio in moved["train"]]}))
    job.stop.unlink()
    _train(job)
    shift = _figures(whole_run, "margin")[at + 1] - _figures(job, "margin")[at + 1]
    assert shift == pytest.approx(10 * DPO.beta, abs=1e-4)


def test_rows_that_are_no_pairs_are_left_out_and_named(project: Project, base: Path) -> None:
    prompt = Message("user", "And?")
    with Store(project.data) as store:
        store.add(
            [
                Conversation((prompt, Message("assistant", "Only one answer."))),
                Conversation((prompt, Message("assistant", "The same.")), rejected="The same."),
                Conversation((prompt, Message("assistant", "x" * 600)), rejected="x" * 601),
            ]
        )
    said = _train(created(project, base, replace(DPO, steps=1)))
    notes = " ".join(e.text for e in said if isinstance(e, Note))
    assert "they have no worse answer (rows 15" in notes
    assert all(f"{PAIRS + n})" in notes for n in (2, 3))
    assert notes.count("the better and the worse answer are the same within max_length") in (1, 2)


def test_without_a_pair_it_says_what_is_needed(workspace: Workspace, base: Path) -> None:
    project = workspace.project("plain", create=True)
    with Store(project.data) as store:
        store.add([Conversation((Message("user", f"{n}?"), Message("assistant", "Yes."))) for n in range(4)])
    with pytest.raises(FTError, match="nothing to learn|no row has anything to learn") as refused:
        _train(created(project, base, DPO))
    assert "better and a worse answer" in refused.value.hint


def test_answers_mode_trains_on_the_better_answers(project: Project, base: Path) -> None:
    job = created(project, base, replace(DPO, learns="answers", steps=2))
    result = _train(job)[-1].result
    assert "heldout_accuracy" not in result and result["heldout_after"] < result["heldout_before"]
    found = rows.render(read_frozen(job.dataset), Renderer.of(base), TrainRecipe())
    assert not found.train_worse and min(row.learnt for row in found.train) > len("Let me see.") + 20


def test_the_best_step_is_that_of_the_pairs_own_loss() -> None:
    """The better answers may become less likely, while the worse ones do even more so."""
    before = Heldout.of([(10.0, 5)], [(10.0, 5)], [0.0], 0.1)
    after = Heldout.of([(12.0, 5)], [(40.0, 5)], [0.0], 0.1)
    assert after.loss > before.loss and after.weighed < before.weighed
    assert (before.accuracy, after.accuracy) == (0.0, 1.0)
    assert Heldout.of([], [], [], 0.1).weighed is None
