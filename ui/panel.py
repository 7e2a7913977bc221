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

# Whatever carries data-do speaks when it is clicked, changed or submitted: {do, ...its data, ...the form's fields}.
# A form with data-change also speaks when a field of it is changed, and says which.
_SPEAK = """
const tell = (node, more) => trigger('do', {...node.dataset, ...more});
element.addEventListener('click', e => {
  const node = e.target.closest('button[data-do], a[data-do]');
  if (node && !node.disabled && node.type !== 'submit') { e.preventDefault(); tell(node); }
});
element.addEventListener('change', e => {
  if (e.target.matches('select[data-do]')) tell(e.target, {value: e.target.value});
  const form = e.target.closest('form[data-change]');
  if (form && !e.target.matches('[data-quiet]')) {
    const ticked = [...form.querySelectorAll('[type=checkbox]:checked')].map(box => box.value);
    tell(form, {...Object.fromEntries(new FormData(form)), do: form.dataset.change, changed: e.target.name, ticked});
  }
});
element.addEventListener('submit', e => {
  e.preventDefault();
  if (e.target.dataset.do) tell(e.target, Object.fromEntries(new FormData(e.target, e.submitter)));
});
// What is drawn anew keeps what was unfolded, and the focus: on the same field, else on what is to be read first.
let name = '';
const unfolded = new Set();
element.addEventListener('toggle', e => {
  if (e.target.id) unfolded[e.target.open ? 'add' : 'delete'](e.target.id);
}, true);
element.addEventListener('focusin', e => { name = e.target.name || ''; });
new MutationObserver(() => {
  for (const node of element.querySelectorAll('details[id]')) if (unfolded.has(node.id)) node.open = true;
  if (document.activeElement !== document.body) return;
  const same = name && element.querySelector(`[name="${CSS.escape(name)}"]`);
  (same || element.querySelector('[data-focus]'))?.focus();
}).observe(element, {childList: true, subtree: true});
"""


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
