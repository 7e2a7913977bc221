"""Figures to TensorBoard and the like: a real writer where it is installed, and one that breaks."""

from __future__ import annotations

import struct
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from ft_core import events, recipe
from ft_core.errors import FTError
from ft_core.events import Event, Finished, Metric, Note, Sample
from ft_core.train import sft, start, trackers
from ft_core.workspace import Job, Project, Workspace
from tests.core.trainings import curve, job_of, lighthouse, losses, view


@pytest.fixture
def project(workspace: Workspace) -> Project:
    return lighthouse(workspace)


def trained(job: Job) -> list[Event]:
    """As the child does it."""
    writer = events.EventWriter(job.events)
    said = []
    for event in sft.run(job, {}):
        writer.write(event)
        said.append(event)
    writer.close()
    return said


def written(folder: Path) -> tuple[dict[str, dict[int, float]], dict[str, dict[int, str]]]:
    """Figures and texts by name and step, out of TensorBoard's files: length, checksum, event, checksum."""
    from tensorboardX.proto.event_pb2 import Event as Record

    figures: dict[str, dict[int, float]] = {}
    texts: dict[str, dict[int, str]] = {}
    for file in sorted(folder.iterdir()):
        data, at = file.read_bytes(), 0
        while at < len(data):
            (length,) = struct.unpack_from("<Q", data, at)
            record = Record.FromString(data[at + 12 : at + 12 + length])
            at += 16 + length
            for value in record.summary.value:
                if value.HasField("tensor"):
                    texts.setdefault(value.tag, {})[record.step] = value.tensor.string_val[0].decode()
                else:
                    figures.setdefault(value.tag, {})[record.step] = value.simple_value
    return figures, texts


def test_tensorboard_has_all_that_the_page_has(project, tiny_model) -> None:
    pytest.importorskip("tensorboardX")
    job = job_of(project, tiny_model, report_to=("tensorboard",))
    trained(job)
    figures, texts = written(job.path / "tensorboard")
    assert figures["loss"] == pytest.approx(losses(job)) and len(losses(job)) == 10
    assert figures["heldout_loss"] == pytest.approx(curve(job)) and len(curve(job)) == 4
    assert {"learning_rate", "grad_norm", "tokens_per_s", "memory_bytes", "epoch"} <= figures.keys()
    (answers,) = texts.values()
    assert answers == {sample.step: sample.answer for sample in view(job).samples}
    assert "tensorboard" not in {path.name for path in (job.path / "checkpoints").rglob("*")}


class Curves(ModuleType):
    """A library that is spoken to as Trackio and Weights & Biases are."""

    def __init__(self, fails_at: int = -1):
        super().__init__("trackio")
        self.__spec__ = SimpleNamespace(name="trackio")
        self.begun: list[dict] = []
        self.logged: list[tuple[int, dict]] = []
        self.finished = 0
        self.fails_at = fails_at

    def init(self, **how) -> Curves:
        self.begun.append(how)
        return self

    def log(self, values: dict, step: int) -> None:
        if step == self.fails_at:
            raise ConnectionError("the server of curves is down\nwith many lines")
        self.logged.append((step, values))

    def finish(self) -> None:
        self.finished += 1


def said() -> list[Event]:
    last = Finished({"job": "x"})
    return [Metric(1, {"loss": 2.0}), Sample(1, "Who?", "Me."), Metric(2, {"heldout_loss": 1.5}), last]


def test_a_run_of_trackio_or_wandb_is_told_everything_and_ended(project, tiny_model, monkeypatch) -> None:
    library = Curves()
    monkeypatch.setitem(sys.modules, "trackio", library)
    job = job_of(project, tiny_model, report_to=("trackio",), mirror=("../secret",))
    told = said()
    assert list(trackers.told(job, iter(told))) == told
    assert library.logged == [(1, {"loss": 2.0}), (1, {"answer to Who?": "Me."}), (2, {"heldout_loss": 1.5})]
    (how,) = library.begun
    assert (how["project"], how["name"], how["resume"]) == ("ft-flow", job.id, "allow")
    assert how["config"]["rank"] == 4 and "secret" not in str(how) and library.finished == 1


def test_one_that_fails_is_said_once_and_ends_nothing(project, tiny_model, monkeypatch) -> None:
    library = Curves(fails_at=1)
    monkeypatch.setitem(sys.modules, "trackio", library)
    job = job_of(project, tiny_model, report_to=("trackio",))
    told = said()
    heard = list(trackers.told(job, iter(told)))
    assert [event for event in heard if not isinstance(event, Note)] == told
    (note,) = [event for event in heard if isinstance(event, Note)]
    assert "trackio takes no figures (ConnectionError: the server of curves is down)" in note.text
    assert isinstance(heard[-1], Finished) and library.logged == []


@pytest.mark.parametrize(
    ("name", "message", "hint"),
    [
        ("tensorbord", "cannot be sent to 'tensorbord'", "Did you mean 'tensorboard'?"),
        ("mlflow", "cannot be sent to 'mlflow'", "There are tensorboard, trackio, wandb."),
        ("wandb", "names wandb, whose package wandb is not installed", "pip install wandb"),
    ],
)
def test_what_cannot_be_told_is_refused_before_the_run(project, name, message, hint, monkeypatch) -> None:
    monkeypatch.setattr(trackers.importlib.util, "find_spec", lambda package: None)
    wanted = recipe.Recipe(train=recipe.TrainRecipe(report_to=(name,)))
    with pytest.raises(FTError) as caught:
        start.create(project, wanted)
    assert message in caught.value.message and hint in caught.value.hint and project.jobs() == []


def test_a_space_sends_figures_to_nobody(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "trackio", Curves())
    monkeypatch.setenv("SPACE_ID", "a/space")
    with pytest.raises(FTError, match="sends no figures"):
        trackers.check(("trackio",))
