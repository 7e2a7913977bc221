"""A piece of page that we draw ourselves: HTML from templates/, and one event `do` for all its buttons.

Templates escape every value (jinja2 autoescape); a panel shows the result as it is. gr.HTML's own {{handlebars}}
would run `${...}` in a value as JavaScript, so nothing but the finished HTML goes through it.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import gradio as gr
import jinja2

from . import say

_SPEAK = (Path(__file__).parent / "static" / "panel.js").read_text(encoding="utf-8")


@cache
def _templates() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        duration=say.duration,
        size=say.size,
        memory=say.memory,
        amount=say.amount,
        percent=say.percent,
        sentence=say.sentence,
    )
    return environment


def draw(template: str, **values: Any) -> str:
    """templates/<template>.html filled in, every value escaped."""
    return _templates().get_template(f"{template}.html").render(values)


def panel(value: str = "", **options: Any) -> gr.HTML:
    """A place for drawn HTML; listen with `.do(fn)`, where fn takes an `event: gr.EventData` with what was clicked."""
    return gr.HTML(value, html_template="${value}", js_on_load=_SPEAK, apply_default_css=False, **options)
