"""Which engine trains, and where it is refused; what Unsloth does is in test_train_unsloth.py."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path

import pytest

from ft_core.errors import FTError
from ft_core.events import Note
from ft_core.machine import Machine
from ft_core.recipe import ComputeRecipe, ModelRecipe, Recipe, TrainRecipe
from ft_core.train import engines, looks
from tests.core import trainings

NVIDIA = Machine(8, 2**35, "NVIDIA L4", 24 * 2**30, 1)
APPLE = Machine(8, 2**35, "Apple GPU", 2**35)
BARE = Machine(2, 2**34, "", 0)
WANTED = Recipe(train=TrainRecipe(engine="unsloth"))


@pytest.fixture
def installed(monkeypatch):
    """As if unsloth were there."""
    monkeypatch.setattr(engines.importlib.util, "find_spec", lambda name: name)


def test_without_the_package_a_training_is_refused_in_a_sentence(workspace, tiny_model, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    project = trainings.lighthouse(workspace)
    with pytest.raises(FTError, match="needs the package unsloth, which is not installed") as raised:
        trainings.job_of(project, tiny_model, engine="unsloth")
    assert "requirements-gpu.txt" in raised.value.hint and not project.jobs()


def test_it_wants_an_nvidia_gpu(installed):
    assert engines.why_not(WANTED, NVIDIA) == ""
    assert "this machine has none" in engines.why_not(WANTED, BARE)
    assert "an Apple GPU" in engines.why_not(WANTED, APPLE)
    assert engines.why_not(Recipe(), BARE) == ""


@pytest.mark.parametrize(
    ("what", "changed"),
    [
        ("dora", {"train": TrainRecipe(engine="unsloth", method="dora")}),
        ("layers", {"train": TrainRecipe(engine="unsloth", method="layers")}),
        ("full", {"train": TrainRecipe(engine="unsloth", method="full")}),
        ("qlora-8bit", {"train": TrainRecipe(engine="unsloth", method="qlora-8bit")}),
        ("preferences", {"train": TrainRecipe(engine="unsloth", learns="preferences")}),
        ("to go on from", {"model": ModelRecipe(adapter="earlier")}),
        ("in one process", {"compute": ComputeRecipe(processes=2)}),
        ("on this machine", {"compute": ComputeRecipe(where="hf_jobs")}),
    ],
)
def test_what_it_cannot_do_is_said(installed, what, changed):
    wanted = replace(WANTED, **changed)
    assert what in engines.why_not(wanted, NVIDIA)
    assert engines.why_not(replace(wanted, train=replace(wanted.train, engine="trl")), NVIDIA) == ""


def test_unsloths_held_out_figures_in_the_trainings_arithmetic_are_said_to_be_so(monkeypatch):
    """Its kernels read the weights past their modules, so that these cannot be widened for a while."""
    said: list[Note] = []
    monkeypatch.setattr(looks, "fp32_arithmetic", lambda model: pytest.fail("they were widened"))
    monkeypatch.setattr(looks.Looks, "_heldout", lambda self, model, reference: "measured")
    train = TrainRecipe(engine="unsloth", precision="bf16")
    assert looks.Looks(train, None, [], None, 0, said.append).whole(None) == "measured"
    assert "bf16" in said[0].text


def test_a_process_that_has_loaded_transformers_is_not_given_to_unsloth():
    import transformers  # noqa: F401

    with pytest.raises(FTError, match="process of its own"):
        engines.enter("unsloth", Path("nowhere"))
    engines.enter("trl", Path("nowhere"))
