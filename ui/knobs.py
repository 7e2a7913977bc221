"""Recipe fields as widgets: the only mapping. A field's name, text, range and options all come from recipe.py."""

from __future__ import annotations

from dataclasses import Field, fields, replace
from typing import Any, get_args, get_origin, get_type_hints

import gradio as gr

from ft_core import recipe
from ft_core.errors import FTError


def knob(section: type, name: str) -> Any:
    """The widget of one field of a recipe section."""
    field = next(f for f in fields(section) if f.name == name)
    kind = get_type_hints(section)[name]
    info = recipe.docs(section)[name]
    shared = {"label": label(name), "value": shown(field.default), "elem_id": f"knob-{name}"}
    if "options" in field.metadata:
        return gr.Dropdown(list(field.metadata["options"]), info=f"{info} Default: {field.default}.", **shared)
    if kind in (int, float):
        low, high = field.metadata["low"], field.metadata["high"]
        default = f" Default: {field.default:g}."
        return gr.Number(info=info + default, precision=0 if kind is int else None, minimum=low, maximum=high,
                         step=_step(field, kind), **shared)  # fmt: skip
    lines = 2 if get_origin(kind) is tuple else 1
    return gr.Textbox(info=f"{info}{' One a line.' if lines > 1 else ''}", lines=lines, max_lines=6, **shared)


def label(name: str) -> str:
    return name.replace("_", " ").capitalize()


def shown(value: Any) -> Any:
    """A field's value as its widget has it: a list of texts is lines."""
    return "\n".join(value) if isinstance(value, tuple) else value


def taken(section: Any, name: str, value: Any) -> Any:
    """The section with one field as a widget gave it. Raises FTError that names the field and its range."""
    kind = get_type_hints(type(section))[name]
    if value is None:
        raise FTError(f"{label(name)} is empty.", "Put a number there.")
    if get_origin(kind) is tuple:
        value = tuple(get_args(kind)[0](line.strip()) for line in value.splitlines() if line.strip())
    elif kind in (int, float):
        value = kind(value)
    return recipe.checked(replace(section, **{name: value}))


def _step(field: Field, kind: type) -> float:
    """How far an arrow key goes: one, or a tenth of the default's size."""
    if kind is int:
        return 1
    return float(f"{field.default / 10:.0e}") if field.default else 0.05
