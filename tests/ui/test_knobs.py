"""Every recipe field becomes a widget with its own text and range, and comes back as it was."""

from __future__ import annotations

from dataclasses import fields

import gradio as gr
import pytest

from ft_core import recipe
from ft_core.errors import FTError
from ft_core.recipe import CompareRecipe, DataRecipe, GenerateRecipe, TrainRecipe
from ui import knobs
from ui.tab_train import _KNOBS, preset_of, with_preset

SECTIONS = (TrainRecipe, CompareRecipe, GenerateRecipe, DataRecipe)


@pytest.mark.parametrize("section", SECTIONS)
def test_fields_become_widgets_and_come_back(section: type) -> None:
    for field in fields(section):
        widget = knobs.knob(section, field.name)
        assert widget.info.startswith(recipe.docs(section)[field.name])
        assert knobs.taken(section(), field.name, widget.value) == section()
        if "low" in field.metadata:
            assert isinstance(widget, gr.Number)
            assert (widget.minimum, widget.maximum) == (field.metadata["low"], field.metadata["high"])
        if "options" in field.metadata:
            assert [value for _, value in widget.choices] == list(field.metadata["options"])


def test_advanced_has_every_training_field() -> None:
    assert set(_KNOBS) == {field.name for field in fields(TrainRecipe)}


def test_out_of_range_names_field_and_range() -> None:
    with pytest.raises(FTError, match="rank") as refused:
        knobs.taken(TrainRecipe(), "rank", 0)
    assert "between 1 and 256" in refused.value.hint
    with pytest.raises(FTError, match="Learning rate is empty"):
        knobs.taken(TrainRecipe(), "learning_rate", None)


def test_probes_are_lines() -> None:
    assert knobs.taken(TrainRecipe(), "probes", "Who are you?\n\n Do you ship? ").probes == (
        "Who are you?",
        "Do you ship?",
    )


def test_presets_are_told_from_own_settings() -> None:
    quick = recipe.preset("Quick look")
    assert preset_of(quick) == "Quick look"
    mine = with_preset(quick, "Thorough")
    assert preset_of(mine) == "Thorough"
    turned = knobs.taken(mine.train, "rank", 8)
    assert preset_of(recipe.Recipe(train=turned)) is None
