// The drawer: one row with all its turns, beside the grid and in its scope (see ui/grid.py). What a person types lives
// in `draft` until it is saved as one operation: by the button, or on the way to another row.
const drawer = $('.g-drawer');
const ROLES = ['system', 'user', 'assistant', 'tool'];
let draft = null, kept = '', conflict = null, at = 0, lastKey = '', opening = 0, sending = Promise.resolve(true);

const said = (row = draft) => JSON.stringify([row.turns.map(turn => [turn.role, turn.content, turn.more]), row.worse]);
const dirty = () => Boolean(draft) && said() !== kept;
const plainTurns = turns => turns.map(({role, content, more}) => ({role, content, more}));
const rowsShown = () => (typeof query === 'function' ? query() : {view, search});
const fit = text => { text.style.height = 'auto'; text.style.height = `${text.scrollHeight + 2}px`; };
const many = (n, word) => `${n.toLocaleString('en')} ${word}${n === 1 ? '' : 's'}`;

// A call for the row in the drawer; errors stand in it. The row's own project, for the picker may have moved on.
async function callDrawer(name, ...args) {
  let answer;
  try { answer = await server[name](draft?.project ?? project, ...args); }
  catch { answer = {error: 'The app does not answer.', hint: 'It may be restarting; try again in a moment.'}; }
  tellDrawer(answer?.error ? answer : null);
  return answer?.error ? null : answer;
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
  takeRow(found);
  drawer.hidden = false;
  element.firstElementChild.classList.add('has-drawer');
  drawTurns();
  drawer.scrollTop = 0;
  return true;
}

// The row may have changed elsewhere. What is typed stays, and saving it will show both.
async function refreshDrawer() {
  const {id} = draft, found = await callDrawer('detail', id, rowsShown(), at);
  if (draft?.id !== id) return;
  if (!found) { if (!dirty()) closeDrawer(); return; }
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

// --- what it shows

function drawHead() {
  const {place, status} = draft;
  $('.g-d-title').textContent = `Row ${draft.id}`;
  $('.g-d-place').textContent = place.index === null ? 'no longer in this view' : `row ${(place.index + 1).toLocaleString('en')} of ${place.total.toLocaleString('en')} in this view`;
  if (place.index !== null) at = place.index;
  $('.g-drawer [data-act=previous]').disabled = place.previous === null;
  $('.g-drawer [data-act=next]').disabled = place.next === null;
  for (const [name, is] of [['accept', 'accepted'], ['reject', 'rejected']]) $(`.g-drawer [data-act=${name}]`).setAttribute('aria-pressed', String(status === is));
  for (const node of win.children) node.classList.toggle('is-open', node.row?.id === draft.id);
  const flags = $('.g-d-flags');
  flags.hidden = !draft.flags.length;
  flags.replaceChildren(...draft.flags.map(flag => {
    const item = document.createElement('li'), name = document.createElement('strong'), why = document.createElement('span'), what = document.createElement('small');
    name.textContent = flag.name; why.textContent = flag.reason; what.textContent = flag.do;
    item.append(name, why, what);
    return item;
  }));
}

function drawSaved() {
  $('.g-d-save').hidden = !dirty();
  if (!dirty()) { conflict = null; drawConflict(); }
}

function drawTurns() {
  drawHead();
  const worse = draft.worse || draft.hadWorse ? [worseNode()] : [];
  $('.g-d-turns').replaceChildren(...draft.turns.map(turnNode), ...worse);
  drawer.querySelectorAll('.g-turn textarea').forEach(fit);
  const tools = $('.g-d-tools');
  tools.hidden = !draft.tools;
  tools.querySelector('pre').textContent = draft.tools ? JSON.stringify(JSON.parse(draft.tools), null, 2) : '';
  $('.g-d-origin').textContent = draft.origin ? `From ${draft.origin}` : '';
  drawSeen(draft.seen);
  drawSaved();
}

function iconButton(act, text, label, off) {
  const button = document.createElement('button');
  Object.assign(button, {type: 'button', className: 'ft-icon', textContent: text, title: label, disabled: off});
  button.dataset.turn = act;
  button.setAttribute('aria-label', label);
  return button;
}

function turnNode(turn, i) {
  const node = document.createElement('section'), head = document.createElement('div'), role = document.createElement('select');
  const name = `turn ${i + 1}`, last = draft.turns.length - 1;
  node.className = `g-turn is-${turn.role}`;
  node.dataset.at = i;
  node.setAttribute('aria-label', `${turn.role}, ${name}`);
  head.className = 'g-d-line';
  role.setAttribute('aria-label', `Role of ${name}`);
  role.append(...ROLES.map(one => new Option(one, one, false, one === turn.role)));
  if (turn.more) { role.disabled = true; role.title = 'It carries a call of a tool, or its answer'; }
  const fill = document.createElement('span');
  fill.className = 'g-fill';
  head.append(role, fill, iconButton('up', '↑', `Move ${name} up`, i === 0), iconButton('down', '↓', `Move ${name} down`, i === last),
    iconButton('add', '+', `Add a turn after ${name}`, false), iconButton('drop', '✕', `Delete ${name}`, false));
  node.append(head, textBox(turn.content, `${turn.role}, ${name}`, value => { turn.content = value; }));
  if (turn.more) {
    const more = document.createElement('pre');
    more.className = 'g-t-more';
    more.textContent = JSON.stringify(JSON.parse(turn.more), null, 2);
    node.append(more);
  }
  if (turn.role === 'assistant') node.append(anewNode(turn, i));
  return node;
}

function worseNode() {
  const node = document.createElement('section'), head = document.createElement('div'), who = document.createElement('span'), fill = document.createElement('span');
  draft.hadWorse = true;
  node.className = 'g-turn is-worse';
  node.setAttribute('aria-label', 'worse answer');
  head.className = 'g-d-line'; fill.className = 'g-fill';
  who.textContent = 'worse answer (the last turn is the better one)';
  head.append(who, fill, iconButton('drop-worse', '✕', 'Delete the worse answer', false));
  node.append(head, textBox(draft.worse, 'worse answer', value => { draft.worse = value; }));
  return node;
}

function textBox(value, label, put) {
  const text = document.createElement('textarea');
  text.value = value; text.rows = 1;
  text.setAttribute('aria-label', label);
  text.addEventListener('input', () => { put(text.value); fit(text); typed(); });
  return text;
}

// --- what the model sees, as one types

let looking, looked = 0;
function typed() {
  drawSaved();
  clearTimeout(looking);
  looking = setTimeout(async () => {
    if (!draft) return;
    const mine = ++looked, row = draft;
    let answer;
    try { answer = await server.seen_turns(row.project, row.id, plainTurns(row.turns)); } catch { return; }  // the next key asks again
    if (mine === looked && draft === row) drawSeen(answer.seen ?? {refused: answer.error});
  }, 250);
}

function drawSeen(seen) {
  draft.seen = seen;
  const refused = seen.refused, box = $('.g-d-shown');
  box.classList.toggle('is-refused', Boolean(refused));
  $('.g-d-tokens-of').textContent = refused ? '' : `${seen.tokens.toLocaleString('en')} of ${seen.limit.toLocaleString('en')} tokens`;
  $('.g-d-count').textContent = refused ?? `${many(seen.learnt, 'token')} ${seen.learnt === 1 ? 'is' : 'are'} learnt${seen.cut ? `; ${many(seen.cut, 'token')} cut off at the limit, ${seen.cut_learnt.toLocaleString('en')} of them to be learnt` : ''}`;
  box.querySelector('.ft-bar i').style.width = refused ? 0 : `${Math.min(100, 100 * seen.tokens / seen.limit)}%`;
  box.classList.toggle('is-over', Boolean(seen.cut));
  const nodes = [];
  for (const [text, learnt, cut] of seen.pieces ?? []) {
    if (cut && !nodes.some(node => node.className === 'g-d-limit')) {
      const limit = document.createElement('span');
      limit.className = 'g-d-limit';
      limit.textContent = `cut here, at ${seen.limit.toLocaleString('en')} tokens`;
      nodes.push(limit);
    }
    const node = document.createElement(learnt ? 'mark' : 'span');
    node.textContent = text;
    if (!cut) { nodes.push(node); continue; }
    const struck = document.createElement('s');
    struck.append(node);
    nodes.push(struck);
  }
  $('.g-d-tokens').replaceChildren(...nodes);
}

// --- an answer written anew

function anewNode(turn, i) {
  const box = document.createElement('div'), now = turn.anew;
  box.className = 'g-t-anew';
  const button = (act, text) => {
    const node = document.createElement('button');
    Object.assign(node, {type: 'button', className: 'ft-plain', textContent: text});
    node.dataset.turn = act;
    return node;
  };
  const line = document.createElement('div');
  line.className = 'g-d-line';
  if (!now) {
    const ask = button('anew', 'Write this answer anew');
    ask.title = draft.teacher ? `Asks ${draft.teacher}` : 'The built-in teacher takes about 4 s';
    ask.disabled = i === 0;
    line.append(ask);
  } else if (now.waiting) {
    const words = document.createElement('span');
    words.setAttribute('role', 'status');
    words.textContent = draft.teacher ? `${draft.teacher} is writing …` : 'The built-in teacher is writing, about 4 s …';
    line.append(words, button('stop', 'Stop'));
  } else if (now.error) {
    const told = document.createElement('div'), what = document.createElement('strong'), hint = document.createElement('span');
    told.className = 'ft-error';
    told.setAttribute('role', 'alert');
    what.textContent = now.error; hint.textContent = now.hint;
    told.append(what, hint);
    box.append(told);
    if (draft.teacher) {
      const key = document.createElement('input');
      Object.assign(key, {type: 'password', value: lastKey, placeholder: 'Key of the teacher', autocomplete: 'off'});
      key.setAttribute('aria-label', 'Key of the teacher, kept nowhere');
      key.addEventListener('input', () => { lastKey = key.value; });
      line.append(key);
    }
    line.append(button('anew', 'Ask again'), button('leave', 'Leave it'));
  } else {
    const text = document.createElement('p');
    text.className = 'g-t-new';
    text.textContent = now.text;
    box.append(text);
    line.append(button('take', 'Take'), button('leave', 'Leave'), button('anew', 'Ask again'));
  }
  box.append(line);
  return box;
}

function drawAnew(turn, focusOn) {
  const node = drawer.querySelector(`.g-turn[data-at="${draft?.turns.indexOf(turn)}"] .g-t-anew`);
  if (!node) return;
  const had = node.contains(document.activeElement), fresh = anewNode(turn, draft.turns.indexOf(turn));
  node.replaceWith(fresh);
  if (had) fresh.querySelector(`[data-turn=${focusOn}]`)?.focus();
}

async function writeAnew(turn) {
  stopAnew(turn);
  const ticket = crypto.getRandomValues(new Uint32Array(2)).join('-');
  turn.anew = {waiting: ticket};
  drawAnew(turn, 'stop');
  // The Generate tab takes the key and keeps it nowhere; while that tab stands in the page it is there.
  const key = lastKey || document.querySelector('#teacher-key input')?.value || '';
  const before = plainTurns(draft.turns.slice(0, draft.turns.indexOf(turn)));
  let answer;
  try { answer = await server.write_anew(draft.project, before, key, ticket); }
  catch { answer = {error: 'The app does not answer.', hint: 'It may be restarting; try again in a moment.'}; }
  if (turn.anew?.waiting !== ticket) return;
  turn.anew = answer.error ? answer : answer.text ? {text: answer.text} : null;
  drawAnew(turn, answer.error || !answer.text ? 'anew' : 'take');
}

function stopAnew(turn) {
  if (!turn.anew?.waiting) return;
  server.stop_writing(draft.project, turn.anew.waiting).catch(() => {});  // if the app is gone, so is what it asked
  turn.anew = null;
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
