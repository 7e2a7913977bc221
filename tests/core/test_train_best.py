"""Which of its steps a training keeps, when it ends by itself, how it goes on to more steps, and its report."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from ft_core import jobs, recipe
from ft_core.errors import FTError
from ft_core.events import Finished, State
from ft_core.train import checkpoints, start
from ft_core.train import session as training
from ft_core.workspace import Job, Project, Workspace
from tests.core.trainings import curve, job_of, lighthouse, losses, notes, same, train, view, weights

FORGETS = {"steps": 15, "learning_rate": 1e-2, "rank": 16, "evaluate_every": 3, "save_every": 4}


class Killed(BaseException):
    """What no code of ours expects."""


@pytest.fixture
def project(workspace: Workspace) -> Project:
    return lighthouse(workspace, contrary=True)


@pytest.fixture(scope="module")
def forgot(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Job:
    """Fifteen steps, of which those after the third make it worse on the held-out rows."""
    job = job_of(lighthouse(Workspace.at(tmp_path_factory.mktemp("forgot")), contrary=True), tiny_model, **FORGETS)
    train(job)
    return job


def test_the_step_with_the_lowest_held_out_loss_is_kept_and_said(forgot):
    measured, result = curve(forgot), view(forgot).result
    best = min((step for step in measured if step), key=measured.get)
    assert best < 15, "the rows of this test no longer make it forget"
    assert (result["best_step"], result["kept_step"], result["steps"]) == (best, best, 15)
    assert result["heldout_after"] == pytest.approx(measured[best], abs=1e-6)
    assert same(forgot.adapter, checkpoints.folder(forgot, best))
    assert any(f"Kept is step {best}, where the held-out loss was lowest" in text for text in notes(forgot))


def test_its_checkpoint_stays_beside_the_newest_ones(forgot):
    best = view(forgot).result["best_step"]
    assert sorted(map(checkpoints.step_of, forgot.checkpoints.iterdir())) == [best, 12, 15]


def test_the_last_step_is_kept_where_the_recipe_says_so(forgot, project, tiny_model):
    job = job_of(project, tiny_model, **FORGETS, keep="last")
    result = train(job)[-1].result
    assert (result["best_step"], result["kept_step"]) == (view(forgot).result["best_step"], 15)
    assert same(job.adapter, checkpoints.folder(job, 15))
    assert same(job.adapter, checkpoints.folder(forgot, 15))  # keeping the best changes nothing on the way
    assert result["heldout_after"] == pytest.approx(curve(forgot)[15], abs=1e-6)
    assert sorted(map(checkpoints.step_of, job.checkpoints.iterdir())) == [12, 15]


def test_the_last_step_is_kept_where_nothing_is_held_out(workspace, tiny_model):
    result = train(job_of(lighthouse(workspace), tiny_model, heldout=0.0, steps=3))[-1].result
    assert (result["best_step"], result["kept_step"], result["heldout_after"]) == (None, 3, None)


@pytest.mark.parametrize("patience", [0, 4])
def test_a_training_killed_between_two_looks_finds_the_same_best_step(
    forgot, project, tiny_model, monkeypatch, patience
):
    job = job_of(project, tiny_model, **FORGETS, patience=patience)
    for moment in (2, 5, 11):
        _train_until_killed(job, moment, monkeypatch)
    result = train(job)[-1].result
    assert same(job.adapter, forgot.adapter)
    assert {**result, **_OWN} == {**view(forgot).result, **_OWN}
    assert curve(job) == curve(forgot) and losses(job) == losses(forgot)


_OWN = dict.fromkeys(("job", "adapter", "tokens_per_s", "peak_memory_bytes", "seconds"))
"""Keys of a result in which two equal runs differ."""


def _train_until_killed(job: Job, moment: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def kill(session: training.Session) -> None:
        if session.step == moment:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(training.Session, "_warn", kill)  # asked once the step is said, before it may be saved
        with pytest.raises(Killed):
            train(job)


def test_a_best_checkpoint_that_is_gone_is_told_and_the_last_step_kept(forgot, project, tiny_model, monkeypatch):
    job = job_of(project, tiny_model, **FORGETS)
    best = view(forgot).result["best_step"]
    _train_until_killed(job, 14, monkeypatch)
    shutil.rmtree(checkpoints.folder(job, best))
    assert train(job)[-1].result["kept_step"] == 15
    assert any(f"The checkpoint of step {best}, the best one, is not there" in text for text in notes(job))


def test_patience_ends_a_training_that_gets_no_better(forgot, project, tiny_model):
    job = job_of(project, tiny_model, **FORGETS, patience=2)
    last = train(job)[-1]
    best = view(forgot).result["best_step"]
    assert isinstance(last, Finished) and last.result["state"] == "finished"
    assert last.result["steps"] == best + 2 * 3 and last.result["kept_step"] == best
    assert losses(job) == {step: loss for step, loss in losses(forgot).items() if step <= best + 6}
    assert same(job.adapter, forgot.adapter)
    (told,) = [text for text in notes(job) if "early stopping" in text]
    assert f"since step {best}" in told and "ended at step" in told


def test_a_patience_that_has_run_out_stays_so_after_a_kill(project, tiny_model, monkeypatch):
    job = job_of(project, tiny_model, **FORGETS, patience=2)
    with monkeypatch.context() as patch:
        patch.setattr(training.weights, "save", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            train(job)
    ended = max(losses(job))
    result = train(job)[-1].result
    assert result["steps"] == ended < 15
    assert len([text for text in notes(job) if "early stopping" in text]) == 1


# --- more steps


def _go_on(job: Job, steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the front door does it, but for the process: whoever asks trains."""
    monkeypatch.setattr(jobs, "start", lambda job, secrets=None: None)
    start.go_on(job, steps)


def test_a_finished_training_goes_on_to_more_steps(workspace, tiny_model, monkeypatch):
    job = job_of(lighthouse(workspace), tiny_model, steps=6)
    train(job)
    first, kept, before = losses(job), weights(job.adapter), view(job).result["heldout_after"]
    _go_on(job, 12, monkeypatch)
    train(job)
    seen = view(job)
    assert (seen.state, seen.total, seen.result["steps"]) == (State.FINISHED, 12, 12)
    assert list(losses(job)) == list(range(1, 13)) and {s: v for s, v in losses(job).items() if s <= 6} == first
    assert seen.result["heldout_after"] < before
    assert any(not kept[name].equal(tensor) for name, tensor in weights(job.adapter).items())
    assert any("was of 6 steps and is of 12 now: it goes on from step 6" in text for text in notes(job))
    # The rate that a training of 12 steps has, from the first of the new ones on.
    longer = job_of(job.project, tiny_model, steps=12)
    train(longer)
    rates = [{s: m["learning_rate"] for s, m in view(j).metrics.items() if s > 6} for j in (job, longer)]
    assert rates[0] == rates[1] and rates[0][7] > rates[0][12]


def test_it_goes_on_the_same_after_a_kill(workspace, tiny_model, monkeypatch):
    one, other = (job_of(lighthouse(workspace, name), tiny_model, steps=4) for name in ("one", "other"))
    train(one), train(other)
    for job in (one, other):
        _go_on(job, 9, monkeypatch)
    train(one)
    _train_until_killed(other, 7, monkeypatch)
    train(other)
    assert losses(one) == losses(other) and same(one.adapter, other.adapter)
    assert len([text for text in notes(other) if "is of 9 now" in text]) == 1


def test_a_training_that_ended_early_waits_no_more(project, tiny_model, monkeypatch):
    job = job_of(project, tiny_model, **FORGETS, patience=2)
    train(job)
    _go_on(job, 15, monkeypatch)
    train(job)
    assert view(job).result["steps"] == 15 and recipe.load(job.recipe).train.patience == 0
    assert any("It had ended early" in text for text in notes(job))


def test_too_few_steps_are_refused_and_change_nothing(forgot):
    written, said = forgot.recipe.read_text(), forgot.events.read_bytes()
    with pytest.raises(FTError, match="has made 15 steps"):
        start.go_on(forgot, 15)
    with pytest.raises(FTError, match="steps is 1000000000"):
        start.go_on(forgot, 10**9)
    with pytest.raises(FTError, match="finished"):
        jobs.resume(forgot)
    assert (forgot.recipe.read_text(), forgot.events.read_bytes()) == (written, said)


# --- the report


def test_the_report_says_what_was_trained_on_what_and_how_it_went(forgot):
    text = (forgot.path / "report" / "report.md").read_text(encoding="utf-8")
    result = view(forgot).result
    kept = result["kept_step"]
    assert 0 < kept < 15
    for expected in (
        "# Training " + forgot.id,
        f"finished after 15 of 15 steps. Kept is step {kept}.",
        "24 to train, 5 held out; fingerprint `",
        f"| held-out loss before, nats a learnt token | {result['heldout_before']:.4f} |",
        f"| held-out loss after | {result['heldout_after']:.4f} |",
        "| train.learning_rate | 0.01 | 0.0005 |",
        "| model.base | tiny-llama | built-in |",
        f"- Kept is step {kept}",
        "**What does lamp 3 show?**",
        "\nStep 0:\n",
        f"\nStep {kept}:\n",
        f"| 12 | {curve(forgot)[12]:.4f} |",
    ):
        assert expected in text, expected
    assert "train.seed" not in text  # as usual
    assert str(forgot.path.parents[4]) not in text and "models0" not in text and "../" not in text


def test_a_stopped_training_has_a_report_too(workspace, tiny_model, monkeypatch):
    job = job_of(lighthouse(workspace), tiny_model)
    _train_until_killed(job, 3, monkeypatch)
    jobs.stop(job)
    train(job)
    assert "stopped by hand after 2 of 10 steps" in (job.path / "report" / "report.md").read_text(encoding="utf-8")
    assert json.loads((job.path / "report" / "before.json").read_text())["loss"]
