"""Three steps are measured, the figure is kept and nothing else; and what is said to be left, by made step times."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from ft_core import events, jobs, recipe
from ft_core.__main__ import main
from ft_core.errors import FTError
from ft_core.events import Finished, Metric, Progress, Stopped
from ft_core.recipe import ComputeRecipe, DataRecipe, ModelRecipe, Recipe, TrainRecipe
from ft_core.train import estimate, measure, preflight, start
from ft_core.train.limits import COMPILED
from ft_core.train.plan import Ahead, Plan
from ft_core.train.session import Session
from ft_core.workspace import Job, Project, Workspace

from .trainings import QUICK, lighthouse
from .trainings import train as train_here


@pytest.fixture
def project(workspace: Workspace) -> Project:
    return lighthouse(workspace)


@pytest.fixture
def never_spawned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "start", lambda job, secrets=None: None)


def wanted(base: Path, **settings) -> Recipe:
    return Recipe(DataRecipe(heldout=0.2), model=ModelRecipe(base.name), train=replace(QUICK, **settings))


def measured(job: Job) -> list[events.Event]:
    """As the child does it, in this process."""
    writer, said = events.EventWriter(job.events), []
    for event in measure.run(job, {}):
        writer.write(event)
        said.append(event)
    writer.close()
    return said


@pytest.mark.parametrize("learns", ["answers", "preferences"])
def test_three_steps_and_one_figure(project: Project, tiny_model: Path, never_spawned: None, learns: str) -> None:
    if learns == "preferences":
        from .test_train_from_adapter import votes

        votes(project)
    job = measure.start(project, wanted(tiny_model, learns=learns, evaluate_every=1), tiny_model.parent)
    said = measured(job)
    result = said[-1].result
    assert isinstance(said[-1], Finished) and jobs.view(job).kind == "measure"
    assert result["steps"] == 3 == len(result["step_seconds"])
    assert [e.step for e in said if isinstance(e, Progress) and e.what == "measuring the speed"] == [1, 2, 3]
    assert not [e for e in said if isinstance(e, Metric)]
    assert {path.name for path in job.path.iterdir()} == {"recipe.yaml", "arguments.json", "events.jsonl"}


def test_the_speed_is_that_of_the_warm_steps(
    project: Project, tiny_model: Path, never_spawned: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ft_core.train.measured import _Measuring

    real = _Measuring.stepped

    def stepped(self, step: int, figures: dict[str, float]) -> None:
        real(self, step, figures | {"tokens": 100 * step, "seconds": 50.0 if step == 1 else 2.0})

    monkeypatch.setattr(_Measuring, "stepped", stepped)
    result = measured(measure.start(project, wanted(tiny_model), tiny_model.parent))[-1].result
    assert result["tokens_per_s"] == pytest.approx((200 + 300) / 4.0)
    assert result["step_seconds"] == [50.0, 2.0, 2.0]


def test_the_next_estimate_has_it(
    project: Project, tiny_model: Path, never_spawned: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever folder a recipe lies in that names the same model; another method, or more processes, are others."""
    asked = wanted(tiny_model)
    first = measure.start(project, asked, tiny_model.parent)
    speed = measured(first)[-1].result["tokens_per_s"]
    here = recipe.rebase(asked, tiny_model.parent, project.path)
    assert estimate.measured_speed(project, here, project.path) == speed
    seen = preflight.preflight(project, here).estimate
    tokens = seen.training_seconds * speed
    assert tokens == pytest.approx(round(tokens), abs=1e-3) and tokens > 100
    for other in (
        replace(here, train=replace(here.train, method="dora")),
        replace(here, compute=ComputeRecipe(processes=2)),
    ):
        assert estimate.measured_speed(project, other, project.path) is None

    second = measure.start(project, asked, tiny_model.parent)
    assert not first.path.exists() and second.path.exists()


def test_a_training_is_measured_by_its_own_run_too(project: Project, tiny_model: Path) -> None:
    asked = wanted(tiny_model, steps=2)
    job = start.create(project, asked, tiny_model.parent)
    result = train_here(job)[-1].result
    here = recipe.rebase(asked, tiny_model.parent, project.path)
    assert estimate.measured_speed(project, here, project.path) == result["tokens_per_s"]

    settled = replace(asked, train=replace(asked.train, compiled="yes"))
    job.recipe.write_text(recipe.dump(recipe.rebase(settled, tiny_model.parent, job.path)))
    of_plain_layers = estimate.measured_speed(project, here, project.path)
    assert of_plain_layers == pytest.approx(COMPILED * result["tokens_per_s"])


def test_it_stops_when_it_is_told(project: Project, tiny_model: Path, never_spawned: None) -> None:
    job = measure.start(project, wanted(tiny_model), tiny_model.parent)
    jobs.stop(job)
    assert measured(job)[-1] == Stopped(1, at=pytest.approx(0, abs=1e12))
    with pytest.raises(FTError, match="this measuring is over"):
        measured(job)


def test_where_it_says_nothing(project: Project, tiny_model: Path) -> None:
    for compute, words in ((ComputeRecipe(processes=2), "2 processes"), (ComputeRecipe("hf_jobs"), "another machine")):
        with pytest.raises(FTError, match=words):
            measure.start(project, replace(wanted(tiny_model), compute=compute), tiny_model.parent)
    assert not project.jobs()


def test_from_the_command_line(
    project: Project, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "model").symlink_to(tiny_model)
    file = tmp_path / "mine.yaml"
    file.write_text(recipe.dump(replace(wanted(tiny_model), model=ModelRecipe("model"))))
    common = ["--home", str(project.workspace.home), "--project", project.name, "train", str(file)]
    assert main([*common, "--measure"]) == 2 and "--dry-run" in capsys.readouterr().err
    assert main([*common, "--dry-run", "--measure"]) == 0
    said = capsys.readouterr().out
    assert "measured: " in said and "tokens/s, so the training takes about" in said
    (job,) = project.jobs()
    assert jobs.view(job).kind == "measure" and not job.dataset.exists()


def left(step: int, seconds: list[float], looks: list[float], first_look: float) -> float | None:
    """What a session says that is left after `step`, of 20 steps with 10 rows of 10 tokens in each."""
    train = TrainRecipe(steps=20, batch_size=10, micro_batch=10, evaluate_every=5)
    lengths = [10] * 100
    made = SimpleNamespace(
        trainer=SimpleNamespace(state=SimpleNamespace(log_history=[{"seconds": s} for s in seconds])),
        ahead=Ahead(lengths, train), plan=Plan.of(len(lengths), train), step=step, look_seconds=looks,
        first_look=first_look,
    )  # fmt: skip
    return Session._seconds_left(made)


def test_what_is_left_by_made_step_times() -> None:
    assert left(0, [], [], 3.0) is None
    assert left(1, [9.0], [], 3.0) == pytest.approx(19 * 9.0 + 4 * 3.0)  # all there is
    assert left(3, [9.0, 2.0, 2.0], [], 3.0) == pytest.approx(17 * 2.0 + 4 * 3.0)  # the first step warms up
    assert left(6, [9.0, *[2.0] * 5], [1.0], 3.0) == pytest.approx(14 * 2.0 + 2 * 1.0 + 3.0)
    assert left(20, [2.0] * 20, [1.0] * 3, 3.0) == pytest.approx(3.0)


def test_what_is_left_goes_by_tokens() -> None:
    """Long rows are to come, and the steps so far were short."""
    train = TrainRecipe(steps=4, batch_size=1, micro_batch=1, evaluate_every=10)
    lengths = [10, 10, 400, 20]
    ahead = Ahead(lengths, train)
    sizes = [ahead.tokens(step) - ahead.tokens(step + 1) for step in range(4)]
    made = SimpleNamespace(
        trainer=SimpleNamespace(state=SimpleNamespace(log_history=[{"seconds": 9.0}, {"seconds": 2.0}])),
        ahead=ahead, plan=Plan.of(4, train), step=2, look_seconds=[], first_look=0.0,
    )  # fmt: skip
    assert Session._seconds_left(made) == pytest.approx(sum(sizes[2:]) / sizes[1] * 2.0)
