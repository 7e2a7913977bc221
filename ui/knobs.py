"""Recipe fields as widgets: the only mapping. A field's name, text, range and options all come from recipe.py."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import MISSING, Field, fields, replace
from typing import Any, get_origin, get_type_hints

import gradio as gr
import yaml

from ft_core import recipe
from ft_core.errors import FTError

_LONG = 170
"""Characters of a text that want the whole width."""


def knob(section: type, name: str, choices: Sequence[tuple[str, str]] = (), **given: Any) -> Any:
    """The widget of one field of a recipe section; `choices` are what to offer for a text that may be another too."""
    field = next(f for f in fields(section) if f.name == name)
    kind = get_type_hints(section)[name]
    info = recipe.docs(section)[name]
    shared = {"label": label(name), "value": shown(_default(field)), "elem_id": f"knob-{name}", **given}
    how = {tuple: " One a line.", dict: " Lines of YAML."}.get(get_origin(kind), "")
    if how or choices or len(info) > _LONG:
        shared["elem_classes"] = "ft-wide"
    if "options" in field.metadata:
        return gr.Dropdown(list(field.metadata["options"]), info=f"{info} Default: {field.default}.", **shared)
    if kind is bool:
        return gr.Checkbox(info=f"{info} Default: {'on' if field.default else 'off'}.", **shared)
    if kind in (int, float):
        low, high = field.metadata["low"], field.metadata["high"]
        usual = f" Default: {field.default:g}."
        return gr.Number(info=info + usual, precision=0 if kind is int else None, minimum=low, maximum=high,
                         step=_step(field, kind), **shared)  # fmt: skip
    if choices:
        return gr.Dropdown(list(choices), info=info, allow_custom_value=True, **shared)
    return gr.Textbox(info=info + how, lines=2 if how else 1, max_lines=6, **shared)


def label(name: str) -> str:
    return name.replace("_", " ").capitalize()


def _default(field: Field) -> Any:
    return field.default if field.default_factory is MISSING else field.default_factory()


def shown(value: Any) -> Any:
    """A field's value as its widget has it: a list of texts is lines, a mapping is lines of YAML."""
    if isinstance(value, tuple):
        return "\n".join(map(_line, value))
    if isinstance(value, dict):
        return yaml.safe_dump(value, width=110).rstrip("\n") if value else ""
    return value


def taken(section: Any, name: str, value: Any) -> Any:
    """The section with one field as a widget gave it. Raises FTError that names the field and its range."""
    kind = get_type_hints(type(section))[name]
    if value is None and kind in (int, float):
        raise FTError(f"{label(name)} is empty.", "Put a number there.")
    if value is None and kind is str:
        value = ""
    if get_origin(kind) is tuple:
        value = tuple(_text(line) for line in value.split("\n") if line.strip())
    elif get_origin(kind) is dict:
        value = _mapping(name, value)
    elif kind in (int, float):
        value = kind(value)
    return recipe.checked(replace(section, **{name: value}))


def _line(text: str) -> str:
    """One text of a list on a line of its own; one that a line cannot hold as it is stands in quotation marks."""
    alone = text.strip() == text != "" and text.splitlines() == [text]
    return text if alone and _text(text) == text else json.dumps(text)


def _text(line: str) -> str:
    line = line.strip()
    if len(line) > 1 and line[0] == line[-1] == '"':
        try:
            return json.loads(line)
        except ValueError:
            pass  # somebody's words in quotation marks
    return line


def _mapping(name: str, text: str) -> dict[str, Any]:
    value = recipe.strict_yaml(text, label(name))
    if value is not None and not isinstance(value, dict):
        raise FTError(f"{label(name)} is a name and its value on each line.", "For example `weight_decay: 0.01`.")
    return value or {}


def _step(field: Field, kind: type) -> float:
    """How far an arrow key goes: one, or a tenth of the default's size."""
    if kind is int:
        return 1
    return float(f"{field.default / 10:.0e}") if field.default else 0.05
