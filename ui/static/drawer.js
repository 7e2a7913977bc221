// The drawer: one row with all its turns, beside the grid and in its scope (see ui/grid.py). What a person types lives
// in `draft` until it is saved as one operation: by the button, or on the way to another row.
const drawer = $('.g-drawer');
const ROLES = ['system', 'user', 'assistant', 'tool'];
let draft = null, kept = '', conflict = null, at = 0, lastKey = '', opening = 0, unread = false, sending = Promise.resolve(true);

const said = (row = draft) => JSON.stringify([row.turns.map(turn => [turn.role, turn.content, turn.more]), row.worse]);
const dirty = () => Boolean(draft) && said() !== kept;
const plainTurns = turns => turns.map(({role, content, more}) => ({role, content, more}));
const rowsShown = () => (typeof query === 'function' ? query() : {view, search});
const fit = text => { text.style.height = 'auto'; text.style.height = `${text.scrollHeight + 2}px`; };
const many = (n, word) => `${n.toLocaleString('en')} ${word}${n === 1 ? '' : 's'}`;

// A call for the row in the drawer; errors stand in it. The row's own project, for the picker may have moved on.
async function callDrawer(name, ...args) {
  const answer = await answered(name, ...args);
  tellDrawer(answer?.error ? answer : null);
  return answer?.error ? null : answer;
}

async function answered(name, ...args) {
  try { return await server[name](draft?.project ?? project, ...args); }
  catch { return {error: 'The app does not answer.', hint: 'It may be restarting; try again in a moment.'}; }
}

function tellDrawer(answer) {
  const box = $('.g-d-error');
  box.hidden = !answer;
  box.querySelector('strong').textContent = answer?.error ?? '';
  box.querySelector('span').textContent = answer?.hint ?? '';
  if (answer) box.scrollIntoView({block: 'nearest'});
}

// --- opening, leaving

async function showDrawer(id) {
  if (draft?.id === id && draft.project === project) return refreshDrawer();
  if (!await leaveDrawer()) return false;
  const mine = ++opening, found = await ask('detail', id, rowsShown(), at);
  if (mine !== opening) return false;
  if (!found) { closeDrawer(); return false; }
  if (!await leaveDrawer() || mine !== opening) return false;  // who typed on while the row was on its way
  takeRow(found);
  drawer.hidden = false;
  element.firstElementChild.classList.add('has-drawer');
  drawTurns();
  drawer.scrollTop = 0;
  return true;
}

// The row may have changed elsewhere. What is typed stays, and saving it will show both; what was said of it stays too.
async function refreshDrawer() {
  if (!draft) return;
  const {id} = draft, found = await answered('detail', id, rowsShown(), at);
  if (draft?.id !== id) return;
  if (found.error || unread) tellDrawer(found.error ? found : null);
  unread = Boolean(found.error);
  if (unread) { if (!dirty()) closeDrawer(); return; }
  const {status, split, place, flags, version, teacher} = found;
  if (said(found) === kept) Object.assign(draft, {version});  // its text is the one that is edited here
  if (said(found) === kept || dirty()) { Object.assign(draft, {status, split, place, flags, teacher}); drawHead(); return; }
  const focused = [...drawer.querySelectorAll('textarea')].indexOf(document.activeElement);
  takeRow(found);
  drawTurns();
  drawer.querySelectorAll('textarea')[focused]?.focus();
}

function takeRow(found) {
  draft = {...found, project, turns: found.turns.map(turn => ({...turn}))};
  kept = said();
  open = draft;
  conflict = null;
  tellDrawer(null);
}

// Saves what is typed. False when that cannot be: then the drawer stays, and says why.
async function settleDrawer() {
  await sending;
  return !dirty() || saveDrawer();
}

async function leaveDrawer() {
  if (!await settleDrawer()) return false;
  for (const turn of draft?.turns ?? []) stopAnew(turn);
  return true;
}

async function hideDrawer() {
  if (await leaveDrawer()) closeDrawer();
}

function closeDrawer() {
  const had = drawer.contains(document.activeElement);
  opening += 1;
  draft = open = conflict = null;
  drawer.hidden = true;
  element.firstElementChild.classList.remove('has-drawer');
  for (const node of win.children) node.classList.remove('is-open');
  if (had) cellAt(focus.index, focus.col)?.focus({preventScroll: true});
}

function saveDrawer() {
  sending = sending.then(sendTurns);
  return sending;
}

async function sendTurns() {
  if (!dirty()) return true;
  if (conflict) { $('.g-d-conflict').scrollIntoView({block: 'nearest'}); return false; }
  const missing = draft.turns.findIndex(turn => turn.isNew && !turn.content.trim());
  if (!draft.turns.length) { tellDrawer({error: 'The row has no turn left.', hint: 'Add one, discard the change, or delete the row.'}); return false; }
  if (missing >= 0) {
    tellDrawer({error: `The new turn ${missing + 1} (${draft.turns[missing].role}) is empty.`, hint: 'Write it or delete it; then the row is saved.'});
    drawer.querySelectorAll('.g-turn textarea')[missing]?.focus();
    return false;
  }
  const sent = said(), row = draft;
  const answer = await callDrawer('save_turns', row.id, row.version, plainTurns(row.turns), row.worse);
  if (!answer || draft !== row) return Boolean(answer);
  if (answer.conflict && said(answer.conflict) === kept) { row.version = answer.conflict.version; return sendTurns(); }  // its status alone
  if (answer.conflict) { conflict = answer.conflict; drawConflict(); return false; }
  row.version = answer.version;
  for (const turn of row.turns) turn.isNew = false;
  kept = sent;
  drawSaved();
  changed(answer);
  reload();
  return true;
}

function drawConflict() {
  const box = $('.g-d-conflict');
  box.hidden = !conflict;
  if (!conflict) return;
  const side = (mine, other) => [...mine.turns, ...(mine.worse ? [{role: 'worse answer', content: mine.worse}] : [])].map((turn, i) => {
    const node = document.createElement('p'), who = document.createElement('small'), text = document.createElement('span');
    const same = other.turns[i]?.content === turn.content && other.turns[i]?.role === turn.role || turn.content === other.worse;
    who.textContent = same ? turn.role : `${turn.role}, differs`;
    text.textContent = turn.content;
    node.classList.toggle('is-other', !same);
    node.append(who, text);
    return node;
  });
  $('.g-d-theirs').replaceChildren(...side(conflict, draft));
  $('.g-d-mine').replaceChildren(...side(draft, conflict));
  box.scrollIntoView({block: 'nearest'});
  box.querySelector('button').focus();
}

// --- what a person does

const NEXT_ROLE = {system: 'user', user: 'assistant', assistant: 'user', tool: 'assistant'};

function onTurn(act, i) {
  const {turns} = draft, turn = turns[i];
  let to = i;
  if (act === 'anew') return writeAnew(turn);
  if (act === 'stop') { stopAnew(turn); return drawAnew(turn, 'anew'); }
  if (act === 'leave') { turn.anew = null; return drawAnew(turn, 'anew'); }
  if (act === 'take') { turn.content = turn.anew.text; turn.anew = null; }
  if (act === 'up' || act === 'down') { to = i + (act === 'up' ? -1 : 1); turns.splice(to, 0, ...turns.splice(i, 1)); }
  if (act === 'add') { to = i + 1; turns.splice(to, 0, {role: NEXT_ROLE[turn?.role] ?? 'user', content: '', more: '', isNew: true}); }
  if (act === 'drop') { stopAnew(turn); turns.splice(i, 1); to = Math.min(i, turns.length - 1); }
  if (act === 'drop-worse') { draft.worse = ''; draft.hadWorse = false; }
  drawTurns();
  typed();
  const node = drawer.querySelector(`.g-turn[data-at="${to}"]`);
  const back = act === 'up' || act === 'down' ? node?.querySelector(`[data-turn=${act}]:not(:disabled)`) : null;
  (back ?? node?.querySelector('textarea') ?? $('.g-drawer [data-act=add]')).focus();
}

async function onRow(act) {
  const {id, status, place} = draft;
  if (act === 'close') return hideDrawer();
  if (act === 'save') return saveDrawer();
  if (act === 'discard') { kept = said(); const was = id; draft = null; return showDrawer(was); }
  if (act === 'add') return onTurn('add', draft.turns.length - 1);
  if (act === 'mine') { draft.version = conflict.version; conflict = null; drawConflict(); return saveDrawer(); }
  if (act === 'theirs') { draft = conflict = null; return showDrawer(id); }
  if (act === 'previous' || act === 'next') {
    const to = place[act], box = drawer.querySelector('textarea:focus') ? 'textarea' : '';
    if (to === null || !await showDrawer(to)) return;
    if (box) drawer.querySelector(box)?.focus();
    return;
  }
  if (!await settleDrawer()) return;
  if (act === 'accept' || act === 'reject') {
    const is = act === 'accept' ? 'accepted' : 'rejected';
    const answer = await callDrawer('judge', id, status === is ? 'candidate' : is);
    if (answer) { changed(answer); await reload(); await refreshDrawer(); }
  }
  if (act === 'delete') {
    const answer = await callDrawer('delete_row', id);
    if (!answer) return;
    const to = place.next ?? place.previous;
    draft = open = null;
    changed(answer);
    await reload();
    if (to === null || !await showDrawer(to)) closeDrawer();
  }
  if (act === 'copy') {
    const answer = await callDrawer('copy_row', id);
    if (answer) { changed(answer); await reload(); await showDrawer(answer.id); }
  }
}

drawer.addEventListener('click', event => {
  const button = event.target.closest('button');
  if (!button || !draft) return;
  if (button.dataset.turn) onTurn(button.dataset.turn, Number(button.closest('.g-turn').dataset.at ?? -1));
  else if (button.dataset.act) onRow(button.dataset.act);
});
drawer.addEventListener('change', event => {
  const turn = event.target.matches('.g-turn select') ? draft.turns[event.target.closest('.g-turn').dataset.at] : null;
  if (!turn) return;
  stopAnew(turn);
  turn.role = event.target.value;
  turn.anew = null;
  const i = draft.turns.indexOf(turn);
  drawTurns();
  typed();
  drawer.querySelector(`.g-turn[data-at="${i}"] select`).focus();
});
drawer.addEventListener('keydown', event => {
  if (!draft) return;
  if (event.key === 'Enter' && (event.ctrlKey || event.metaKey)) { event.preventDefault(); saveDrawer(); }
  if (event.key === 'Escape') { event.preventDefault(); hideDrawer(); }
});
document.addEventListener('keydown', event => {
  if (!draft || drawer.hidden || !drawer.offsetParent && !drawer.offsetWidth || document.querySelector('dialog[open]')) return;
  const writing = event.target.closest?.('input, textarea, select, [contenteditable], [role=grid]');
  const step = event.altKey && {ArrowUp: 'previous', ArrowDown: 'next'}[event.key]
    || !writing && !event.altKey && !event.ctrlKey && !event.metaKey && {k: 'previous', j: 'next'}[event.key.toLowerCase()];
  if (!step || event.target.closest?.('select')) return;
  event.preventDefault();
  event.stopPropagation();
  onRow(step);
}, true);

// Whoever leaves the drawer saves: what is done next, an undo too, then meets what was typed.
document.addEventListener('pointerdown', event => {
  if (dirty() && !drawer.contains(event.target) && !event.target.closest('dialog')) saveDrawer();
}, true);
drawer.addEventListener('focusout', event => {
  if (event.relatedTarget && !drawer.contains(event.relatedTarget) && dirty()) saveDrawer();
});
window.addEventListener('beforeunload', event => { if (dirty()) event.preventDefault(); });
watch('value', () => { if (draft?.project === props.value?.project) refreshDrawer(); });
