// What the drawer shows, in its scope: the turns, what the model sees of them as one types, an answer written anew.

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
