// What every drawn panel does by itself; Gradio runs it once for each, with `element` and `trigger`.

// Whatever carries data-do speaks when it is clicked, changed or submitted: {do, ...its data, ...the form's fields}.
// A form with data-change also speaks when a field of it is changed, and says which.
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

// Gradio patches what is drawn anew into the nodes that are there, in their order, and a node may come to stand for
// something else: another run's line, another run's form. What a person did must stay with what it was done to.
const unfolded = new Set();
element.addEventListener('click', e => {  // not 'toggle', which comes later, and when a patch folds it too
  const details = e.target.closest('summary')?.parentElement;
  if (details?.id) unfolded[details.open ? 'delete' : 'add'](details.id);
});
let name = '';
element.addEventListener('focusin', e => { name = e.target.name || ''; });

const typed = {};  // by the job that the form is for: what is not sent yet, and there again with the job
element.addEventListener('input', e => {
  const job = e.target.form?.dataset.job;
  if (job) (typed[job] ??= {})[e.target.name] = e.target.value;
});
element.addEventListener('submit', e => {  // a run has two forms: what waits in the other one goes on waiting
  for (const field of e.target.elements) delete typed[e.target.dataset.job]?.[field.name];
});

function asDrawn(node) {  // a field that was touched ignores what its attributes say from then on
  if (node.matches('form')) {
    node.reset();
    for (const [name, value] of Object.entries(typed[node.dataset.job] ?? {})) {
      if (node.elements[name]) node.elements[name].value = value;
    }
  }
  else if (node.matches('input')) { node.checked = node.defaultChecked; node.value = node.defaultValue; }
  else if (node.matches('option')) for (const one of node.closest('select').options) one.selected = one.defaultSelected;
}
new MutationObserver(records => {
  for (const {target, attributeName} of records) {
    if (attributeName === 'data-job' ? target.matches('form') : attributeName && attributeName !== 'open') asDrawn(target);
  }
  for (const node of element.querySelectorAll('details[id]')) if (unfolded.has(node.id) && !node.open) node.open = true;
  const at = document.activeElement, same = name && element.querySelector(`[name="${CSS.escape(name)}"]`);
  if (at === document.body) (same || element.querySelector('[data-focus]'))?.focus();
  else if (same && element.contains(at) && at.name !== name) same.focus();
}).observe(element, {
  childList: true, subtree: true, attributes: true, attributeFilter: ['open', 'name', 'checked', 'selected', 'data-job'],
});
