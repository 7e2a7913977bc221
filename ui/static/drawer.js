// The drawer: one row with all its turns, beside the grid and in its scope (see ui/grid.py).
const drawer = $('.g-drawer');

async function showDrawer(id) {
  const row = await ask('detail', id);
  if (!row) { hideDrawer(); return; }
  open = row;
  drawer.hidden = false;
  element.firstElementChild.classList.add('has-drawer');
  $('.g-d-title').textContent = `Row ${row.id}`;
  const turns = row.messages.map((message, at) => {
    const label = document.createElement('label');
    label.className = `g-turn is-${message.role}`;
    const who = document.createElement('span');
    who.textContent = message.role;
    const text = document.createElement('textarea');
    text.value = message.content; text.rows = 1; text.dataset.at = at;
    text.setAttribute('aria-label', `${message.role}, turn ${at + 1}`);
    text.addEventListener('input', () => { fit(text); $('[data-act=save]').disabled = !dirty(); });
    label.append(who, text);
    return label;
  });
  $('.g-d-turns').replaceChildren(...turns);
  drawer.querySelectorAll('textarea').forEach(fit);
  const tokens = $('.g-d-tokens');
  tokens.replaceChildren(...row.parts.map(([text, learnt]) => {
    const span = document.createElement(learnt ? 'mark' : 'span');
    span.textContent = text;
    return span;
  }));
  $('.g-d-count').textContent = row.note;
  $('.g-d-shown').hidden = !row.parts.length;
  $('[data-act=save]').disabled = true;
  for (const node of win.children) node.classList.toggle('is-open', node.row.id === id);
}

const fit = text => { text.style.height = 'auto'; text.style.height = `${text.scrollHeight + 2}px`; };
const edits = () => Object.fromEntries([...drawer.querySelectorAll('textarea')]
  .filter(t => t.value !== open.messages[t.dataset.at].content).map(t => [t.dataset.at, t.value]));
const dirty = () => Object.keys(edits()).length > 0;

function hideDrawer() {
  open = null;
  drawer.hidden = true;
  element.firstElementChild.classList.remove('has-drawer');
  for (const node of win.children) node.classList.remove('is-open');
}

drawer.addEventListener('click', event => {
  const name = event.target.closest('button')?.dataset.act;
  if (name === 'close') hideDrawer();
  if (name === 'save') { const changes = edits(); const row = open; ask('edit_turns', row.id, row.version, changes).then(a => { if (a) { changed(a); reload(); showDrawer(row.id); } }); }
  if (name === 'accept' || name === 'reject') act('status', [open.id], name === 'accept' ? 'accepted' : 'rejected');
  if (name === 'delete') { const id = open.id; hideDrawer(); act('remove', [id]); }
});
