"""The recipe: strict, documented, and the same after every round."""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any, get_origin, get_type_hints

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from ft_core import recipe
from ft_core.errors import FTError
from ft_core.recipe import DataRecipe, ExportRecipe, ModelRecipe, Recipe, TrainRecipe

TEXT = st.text(max_size=30)
RELATIVE = st.from_regex(r"[a-zé][\w./ -]{0,20}", fullmatch=True)


def values(section: type) -> dict[str, st.SearchStrategy]:
    """A strategy for each field, by its type and its limits."""
    found = {}
    for knob in fields(section):
        kind, limits = get_type_hints(section)[knob.name], knob.metadata
        if is_dataclass(kind):
            found[knob.name] = st.builds(kind, **values(kind))
        elif knob.name == "base":
            found[knob.name] = RELATIVE
        elif knob.name == "adapter":
            found[knob.name] = RELATIVE | st.just("")
        elif knob.name in ("files", "mirror"):
            found[knob.name] = st.lists(RELATIVE, max_size=3).map(tuple)
        elif get_origin(kind) is tuple:
            found[knob.name] = st.lists(TEXT, max_size=3).map(tuple)
        elif get_origin(kind) is dict:
            plain = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXT
            found[knob.name] = st.dictionaries(TEXT, plain | st.lists(plain, max_size=2), max_size=3)
        elif "options" in limits:
            found[knob.name] = st.sampled_from(limits["options"])
        elif kind is int:
            found[knob.name] = st.integers(limits["low"], limits["high"])
        elif kind is float:
            found[knob.name] = st.floats(limits["low"], limits["high"])
        else:
            found[knob.name] = TEXT
    return found


recipes = st.builds(Recipe, **values(Recipe))


@given(recipes)
@example(replace(Recipe(), train=TrainRecipe(probes=("\x85", "one\u2028two\u2029é"))))
def test_yaml_and_plain_values_come_back_equal(made):
    assert recipe.parse(recipe.dump(made)) == made
    assert recipe.from_dict(recipe.to_dict(made)) == made


def sections() -> list[tuple[str, type]]:
    return [(part.name, get_type_hints(Recipe)[part.name]) for part in fields(Recipe)]


@pytest.mark.parametrize("name, section", sections())
def test_every_field_is_documented_within_its_limits(name, section):
    texts = recipe.docs(section)
    for knob in fields(section):
        assert texts[knob.name].endswith("."), knob.name
        if "low" in knob.metadata:
            assert knob.metadata["low"] <= knob.default <= knob.metadata["high"]
        if "options" in knob.metadata:
            assert knob.default in knob.metadata["options"]
        assert texts[knob.name].split(".")[0] in recipe.dump(Recipe()).replace("\n  # ", " ")


@pytest.mark.parametrize("name, section", sections())
def test_values_outside_are_refused_with_field_and_range(name, section):
    for knob in fields(section):
        if "low" not in knob.metadata:
            continue
        low, high = knob.metadata["low"], knob.metadata["high"]
        for bad in (low - 1, high + 1):
            with pytest.raises(FTError, match=f"{name}: {knob.name} is ") as refused:
                recipe.from_dict({name: {knob.name: bad}})
            assert f"{low:g}" in refused.value.hint and f"{high:g}" in refused.value.hint
        for fine in (low, high):
            assert getattr(getattr(recipe.from_dict({name: {knob.name: fine}}), name), knob.name) == fine


@pytest.mark.parametrize(
    "text, says, hint",
    [
        ("train: {learning_rat: 1}", "my.yaml: train: unknown field 'learning_rat'", "Did you mean 'learning_rate'?"),
        ("trian: {}", "unknown field 'trian'", "Did you mean 'train'?"),
        ("zzz: 1", "unknown field 'zzz'", "Known here: data, generate"),
        ("train: {1: 2}", "unknown field 1", "Known here"),
        ("train: {steps: 1.5}", "steps is a whole number, not 1.5", ""),
        ("train: {steps: true}", "steps is a whole number, not True", ""),
        ("train: {learning_rate: true}", "learning_rate is a number, not True", ""),
        ("train: {learning_rate: fast}", "learning_rate is a number, not 'fast'", ""),
        ("train: {learning_rate: .nan}", "learning_rate is nan", "It lies between"),
        ("train: {schedule: round}", "schedule is 'round'", "It is one of cosine, linear, constant."),
        ("train: {probes: one}", "probes is a list of text", ""),
        ("train: {probes: [1]}", "probes is a list of text", ""),
        ("train: {extra: [1]}", "train: extra is names with values, not [1]", "weight_decay"),
        ("train: {extra: {1: 2}}", "extra is names with values", ""),
        ("train: {extra: {a: 2020-01-01}}", "cannot be kept", "numbers, texts"),
        ("data: {system: 3}", "system is text, not 3", ""),
        ("train: [1]", "train: a list of fields is expected", "One a line"),
        ("- 1", "my.yaml: a list of fields is expected", "One a line"),
        ("[" * 5000, "my.yaml is nested too deeply", "sections"),
        ("train:\n  steps: [1", "my.yaml is not YAML at line 2", ""),
        ("train:\n  steps: 1\n  steps: 2", "at line 3: steps stands twice, first on line 2", ""),
        ("train: {steps: 1}\ntrain: {steps: 1}", "at line 2: train stands twice", ""),
        ("a: !!python/object:os.system {}", "my.yaml is not YAML", ""),
        ("data: {files: [/etc/passwd]}", "files: /etc/passwd is an absolute path", "relative to the recipe"),
        ("data: {files: ['C:\\data.csv']}", "absolute path", "relative"),
        ("data: {files: [~/data.csv]}", "absolute path", "relative"),
        ("model: {base: /models/x}", "base: /models/x is an absolute path", "relative"),
        ("model: {adapter: /models/x}", "adapter: /models/x is an absolute path", "relative"),
    ],
)
def test_what_is_wrong_is_named(text, says, hint):
    with pytest.raises(FTError) as refused:
        recipe.parse(text, "my.yaml")
    assert says in refused.value.message and hint in refused.value.hint


def test_what_yaml_makes_hard_is_taken():
    assert recipe.parse("train: {learning_rate: 1e-4, epochs: 2}").train.learning_rate == 1e-4
    assert recipe.parse("") == Recipe() == recipe.parse("train: {}")
    assert recipe.parse(recipe.dump(Recipe(data=DataRecipe(system="no\nyes: 'ja' # 👋 \"")))).data.system.startswith(
        "no"
    )


def test_files_are_read_or_named(tmp_path: Path):
    path = tmp_path / "my.yaml"
    path.write_text(recipe.dump(Recipe()))
    assert recipe.load(path) == Recipe()
    with pytest.raises(FTError, match="none.yaml cannot be read"):
        recipe.load(tmp_path / "none.yaml")
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(FTError, match="not UTF-8"):
        recipe.load(path)


def test_a_section_whose_fields_are_all_comments_is_the_default():
    assert recipe.parse("train:\n  # steps: 10\ndata:\n") == Recipe()


def test_defaults_presets_and_parts_lie_within_the_limits():
    for name in recipe.PRESETS:
        made = recipe.preset(name)
        assert recipe.from_dict(recipe.to_dict(made)) == made
    assert len({recipe.preset(name).train for name in recipe.PRESETS}) == len(recipe.PRESETS)


def test_a_folder_keeps_its_meaning_in_another_place(tmp_path: Path):
    old, new = tmp_path / "recipes", tmp_path / "home" / "jobs" / "1"
    (tmp_path / "models" / "mine").mkdir(parents=True)
    old.mkdir(), new.mkdir(parents=True)
    moved = recipe.rebase(Recipe(model=ModelRecipe("../models/mine")), old, new)
    assert (new / moved.model.base).resolve() == tmp_path / "models" / "mine"
    for base in ("built-in", "owner/name"):
        assert recipe.rebase(Recipe(model=ModelRecipe(base)), old, new).model.base == base


def test_nothing_in_it_can_be_changed():
    made: Any = Recipe(export=ExportRecipe(to=("merged",)))
    with pytest.raises(AttributeError):
        made.train = TrainRecipe()
    assert hash(made) == hash(Recipe(export=ExportRecipe(to=("merged",))))


def test_the_yaml_of_a_recipe_is_for_people():
    text = recipe.dump(Recipe())
    assert max(map(len, text.splitlines())) < 120
    assert yaml.safe_load(text)["train"]["learning_rate"] == TrainRecipe().learning_rate
