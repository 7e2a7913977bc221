"""Every recipe field becomes a widget with its own text and range, and comes back as it was."""

from __future__ import annotations

from dataclasses import Field, fields, replace
from functools import cache
from typing import get_origin, get_type_hints

import gradio as gr
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from ft_core import recipe
from ft_core.errors import FTError
from ft_core.machine import Machine
from ft_core.recipe import CompareRecipe, ComputeRecipe, DataRecipe, GenerateRecipe, ModelRecipe, Recipe, TrainRecipe
from ui import knobs
from ui.tab_train import _method_words, headings, preset_of, rentable, with_preset

SECTIONS = (TrainRecipe, ComputeRecipe, ModelRecipe, CompareRecipe, GenerateRecipe, DataRecipe)


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


@pytest.mark.parametrize(("section", "first"), [("train", "method"), ("compute", "where")])
def test_advanced_has_every_field_once_in_its_order(section: str, first: str) -> None:
    names = [field.name for field in fields(getattr(Recipe(), section))]
    parts = [[name for of, name in part if of == section] for part in headings().values()]
    found = [name for part in parts for name in part]
    assert sorted(found) == sorted(names)
    for part in parts:
        assert part == sorted(part, key=names.index)
    assert found[0] == first


def test_what_may_be_another_text_too_is_offered_and_comes_back() -> None:
    for widget, offered, other in (
        (knobs.knob(ComputeRecipe, "hardware", rentable()), "a100-large", "h300"),
        (knobs.knob(ModelRecipe, "adapter", [("the base model", ""), ("run 1", "x-1")]), "x-1", "../elsewhere"),
    ):
        for value in (offered, other):
            assert widget.preprocess(widget.postprocess(value)) == value
    assert "$0.40 an hour" in dict((name, words) for words, name in rentable())["t4-small"]
    assert knobs.taken(ModelRecipe(adapter="x-1"), "adapter", None).adapter == ""  # the field was emptied


def test_a_method_says_where_it_cannot_train() -> None:
    here = Machine(2, 8 * 2**30, "", 0)
    wanted = Recipe()
    assert _method_words(wanted, "lora", here, "tight") == "lora · tight"
    assert _method_words(wanted, "qlora", here, None).startswith("qlora needs an NVIDIA GPU")
    rented = replace(wanted, compute=ComputeRecipe(where="hf_jobs", hardware="t4-small"))
    assert _method_words(rented, "qlora", here, "fits") == "qlora · fits"
    rented = replace(wanted, compute=ComputeRecipe(where="hf_jobs", hardware="cpu-upgrade"))
    assert "cpu-upgrade has none" in _method_words(rented, "qlora", here, None)


_ODD = st.text(st.characters(exclude_categories=("Cs",)), max_size=20)
_PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.floats(allow_nan=False, allow_infinity=False) | _ODD,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_ODD, inner, max_size=3),
    max_leaves=6,
)
_BY_KIND = {
    str: _ODD | st.text("ab \n:#\"'", max_size=12),
    bool: st.booleans(),
    tuple: st.lists(
        _ODD | st.sampled_from(["", " a", "a\n", '"quoted"', '"half', "\x85", "a\u2028b"]), max_size=4
    ).map(tuple),
    dict: st.dictionaries(_ODD.filter(bool), _PLAIN, max_size=4),
}


def _values(section: type, field: Field) -> st.SearchStrategy:
    kind = get_type_hints(section)[field.name]
    limits = field.metadata
    if "options" in limits:
        return st.sampled_from(limits["options"])
    if kind in (int, float):
        of = st.integers if kind is int else st.floats
        return of(limits["low"], limits["high"])
    return _BY_KIND[get_origin(kind) or kind]


def _recipes() -> st.SearchStrategy[Recipe]:
    parts = {f.name: get_type_hints(Recipe)[f.name] for f in fields(Recipe)}
    return st.builds(Recipe, **{
        name: st.builds(part, **{f.name: _values(part, f) for f in fields(part)}) for name, part in parts.items()
    })  # fmt: skip


@cache
def _widget(section: type, name: str):
    return knobs.knob(section, name)


@given(_recipes())
@settings(max_examples=60, suppress_health_check=list(HealthCheck))
def test_yaml_to_page_to_yaml_is_the_same_file(some: Recipe) -> None:
    """Over every field: what a widget was given and gives back is what the file said."""
    try:
        text = recipe.dump(recipe.checked(some))
    except FTError:  # a path that is absolute on some system
        assume(False)
    read, found = recipe.parse(text), Recipe()
    for part in fields(Recipe):
        section = getattr(read, part.name)
        made = type(section)()
        for field in fields(section):
            widget = _widget(type(section), field.name)
            value = widget.preprocess(widget.postprocess(knobs.shown(getattr(section, field.name))))
            made = knobs.taken(made, field.name, value)
        found = replace(found, **{part.name: made})
    assert found == read
    assert recipe.dump(found) == text


def test_lines_keep_what_a_line_cannot_hold() -> None:
    texts = ("plain", "", "  in front", "two\nlines", '"as said"', "ümlaut")
    assert knobs.shown(texts).splitlines()[0] == "plain"
    assert knobs.taken(TrainRecipe(), "probes", knobs.shown(texts)).probes == texts
    assert knobs.taken(TrainRecipe(), "probes", '"she said" hello').probes == ('"she said" hello',)


def test_extra_is_lines_of_yaml() -> None:
    assert knobs.taken(TrainRecipe(), "extra", "weight_decay: 0.01\n").extra == {"weight_decay": 0.01}
    assert knobs.taken(TrainRecipe(), "extra", "  ").extra == {}
    for wrong, said in (
        ("0.01", "a name and its value"),
        ("a: [", "Extra is not YAML"),
        ("a: 1\na: 2", "stands twice"),
    ):
        with pytest.raises(FTError, match=said):
            knobs.taken(TrainRecipe(), "extra", wrong)


def test_a_preset_keeps_what_it_does_not_decide() -> None:
    mine = Recipe(train=TrainRecipe(method="dora", probes=("Who?",), extra={"weight_decay": 0.1}, epochs=1.5))
    quick = with_preset(mine, "Quick look").train
    assert (quick.method, quick.probes, quick.extra) == ("dora", ("Who?",), {"weight_decay": 0.1})
    assert quick.epochs == 3.0 and quick.steps == 54


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
