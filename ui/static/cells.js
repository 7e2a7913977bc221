// Editing cells, what could not be saved, and the clipboard. A text that is shown may be cut (row.cut names the columns);
// whoever edits or copies it gets all of it from the app.
const TEXT = ['system', 'prompt', 'response'];
const SHOWN = 400, MOST_PASTED = 5000;
let saves = Promise.resolve();
const queued = new Set();

const plainText = text => text.replace(/\r\n?/g, '\n');  // as a text box has it

// `how`: all of the text is marked, the caret is at its end, or `start` replaces it.
async function edit(cell, how, start = '') {
  const node = cell.parentElement, row = node.row, name = cell.dataset.col;
  if (!TEXT.includes(name) || typing) return;
  going += 1;
  const mine = typing = {cell, row, name, was: row[name]};
  if (row.cut.includes(name)) {
    const found = await ask('whole', row.id);
    if (!found) { typing = null; return; }
    row.version = found.row.version;
    mine.was = found.row[name];
  }
  const area = mine.area = document.createElement('textarea');
  area.value = how === 'replace' ? start : mine.was;
  area.rows = 1;
  area.setAttribute('aria-label', `${COLUMNS.find(column => column.name === name).head}, row ${row.id}`);
  cell.classList.add('is-typing');
  cell.replaceChildren(area);
  area.addEventListener('input', () => grow(area, node));
  area.addEventListener('blur', () => finish(mine, true));
  area.addEventListener('keydown', event => onTyping(event, mine, node.index));
  area.focus({preventScroll: true});
  grow(area, node);
  if (how === 'all') area.select();
  else area.setSelectionRange(area.value.length, area.value.length);
}

function grow(area, node) {
  area.style.height = 'auto';
  area.style.height = `${Math.min(area.scrollHeight + 2, viewport.clientHeight - 16)}px`;
  const room = viewport.getBoundingClientRect().bottom - node.getBoundingClientRect().top;
  area.classList.toggle('is-up', area.offsetHeight > room && node.offsetTop > area.offsetHeight);
}

function onTyping(event, mine, index) {
  if (event.isComposing) return;
  if (event.key === 'Escape') { event.preventDefault(); finish(mine, false); go(index, mine.name); }
  if (event.key === 'Enter' && !event.shiftKey) { event.preventDefault(); finish(mine, true); go(index + 1, mine.name); }
  if (event.key === 'Tab') {
    event.preventDefault();
    const texts = columnsSeen().map(column => column.name).filter(name => TEXT.includes(name));
    const step = event.shiftKey ? -1 : 1, to = texts.indexOf(mine.name) + step;
    const [row, col] = texts[to] ? [index, texts[to]] : [index + step, step > 0 ? texts[0] : texts.at(-1)];
    finish(mine, true);
    if (row < 0 || row >= total) { go(index, mine.name); return; }
    const cell = cellAt(row, col);
    if (cell) { focus = {index: row, col}; scrollTo(row); edit(cell, 'all'); }  // at once, so that no key goes astray
    else go(row, col).then(cell => cell && edit(cell, 'all'));
  }
}

function finish(mine, keep) {
  if (typing !== mine) return;
  typing = null;
  const text = mine.area.value, {cell, row, name} = mine;
  cell.classList.remove('is-typing');
  fill(cell, row, name);
  if (keep && text !== plainText(mine.was)) save(row, name, text, mine.was);
  if (missed) draw();
}

// Edits go out one after the other, so that two of the same row do not meet as strangers.
function save(row, name, text, was) {
  for (const one of [row, ...rowsById(row.id)]) { one[name] = text.slice(0, SHOWN); one.cut = one.cut.filter(cut => cut !== name); }
  redraw(row.id);
  const entry = {project, id: row.id, name, mine: text, theirs: was, version: row.version};
  queued.add(entry);
  saves = saves.then(() => { queued.delete(entry); return send(entry, row); });
  return saves;
}

async function send(entry, row) {
  const answer = await ask('edit', entry.id, row.version, entry.name, entry.mine);
  if (answer && !(answer.conflict !== undefined && answer.conflict !== entry.mine)) {
    for (const one of [row, ...rowsById(entry.id)]) Object.assign(one, answer.row);
    if (answer.state) {
      const ours = answer.before === state.stamp;
      takeState({...answer.state, stamp: ours ? answer.state.stamp : state.stamp});
    }
    forget(entry);
    redraw(entry.id);
    changed(answer);
    if (open?.id === entry.id) showDrawer(entry.id);
    return;
  }
  if (answer) Object.assign(entry, {theirs: answer.conflict, version: answer.version, met: true});
  else Object.assign(entry, {version: row.version});
  const now = answer?.row ?? {[entry.name]: entry.theirs.slice(0, SHOWN)};
  for (const one of [row, ...rowsById(entry.id)]) Object.assign(one, now);
  forget(entry);
  keepUnsaved([...unsaved(), entry]);
  say(`Row ${entry.id} is not saved`);
  redraw(entry.id);
  drawUnsaved();
}

// --- texts that are not saved: somebody was quicker, or the app did not answer. They survive a reload of the page.

const UNSAVED = 'ft-unsaved';
const unsaved = () => JSON.parse(sessionStorage.getItem(UNSAVED) ?? '[]');
const keepUnsaved = list => sessionStorage.setItem(UNSAVED, JSON.stringify(list));
const sameCell = (a, b) => a.project === b.project && a.id === b.id && a.name === b.name;
const forget = entry => keepUnsaved(unsaved().filter(other => !sameCell(other, entry)));

function drawUnsaved() {
  const box = $('.g-unsaved'), waiting = unsaved().filter(entry => entry.project === project), entry = waiting[0];
  const key = entry ? JSON.stringify(entry) + waiting.length : '';
  const node = entry && [...win.children].find(one => one.row.id === entry.id);
  if (entry) box.style.top = `${node ? Math.min(node.getBoundingClientRect().bottom - table.getBoundingClientRect().top, viewport.offsetHeight - 40) : headRow.offsetHeight}px`;
  if (box.dataset.of === key) return;
  const had = box.contains(document.activeElement);
  box.dataset.of = key;
  box.hidden = !entry;
  if (!entry) { if (had) go(focus.index); return; }
  const more = waiting.length > 1 ? ` ${waiting.length - 1} more after this.` : '';
  $('.g-u-what').textContent = (entry.met ? `Row ${entry.id} was changed elsewhere while you wrote. Nothing is overwritten: choose one.`
    : `Your text for row ${entry.id} is not saved yet.`) + more;
  $('.g-u-mine').textContent = entry.mine;
  $('.g-u-theirs').textContent = entry.theirs;
}

$('.g-unsaved').addEventListener('click', async event => {
  const which = event.target.closest('button')?.dataset.keep;
  const entry = unsaved().find(one => one.project === project);
  if (!which || !entry) return;
  if (which === 'mine') {
    saves = saves.then(() => send(entry, {id: entry.id, version: entry.version, cut: []}));
    await saves;
  } else {
    forget(entry);
    say(`Row ${entry.id} is left as it was stored`);
    await reload();
  }
  drawUnsaved();
});

addEventListener('pagehide', () => {
  const left = [...queued];
  if (typing?.area && typing.area.value !== plainText(typing.was)) {
    const {row, name, was, area} = typing;
    left.push({project, id: row.id, name, version: row.version, mine: area.value, theirs: was});
  }
  if (left.length) keepUnsaved([...unsaved(), ...left]);
});

// --- the clipboard

table.addEventListener('copy', event => {
  if (typing || !inRows(event.target)) return;
  event.preventDefault();
  const row = nodeAt(focus.index)?.row ?? rowAt(focus.index), name = focus.col;  // as seen, also while it is asked for again
  if (selectedCount()) { copySelected(); return; }
  if (!row) return;
  if (row.cut.includes(name)) { ask('whole', row.id).then(found => found && toClipboard(found.row[name]).then(() => say('Cell copied'))); return; }
  const text = name === 'flags' ? row.flags.map(([word]) => word).join(', ') : name === 'status' ? SAY[row.status] : String(row[name] ?? '');
  event.clipboardData.setData('text/plain', text);
  say('Cell copied');
});

async function copySelected() {
  const found = await ask('copy', selection());
  if (!found) return;
  await toClipboard(found.text);
  say(found.said);
}

async function toClipboard(text) {
  try { await navigator.clipboard.writeText(text); return; } catch { /* a page that is not served over https has no clipboard API */ }
  const area = Object.assign(document.createElement('textarea'), {value: text}), had = document.activeElement;
  document.body.append(area);
  area.select();
  document.execCommand('copy');
  area.remove();
  had?.focus({preventScroll: true});
}

table.addEventListener('paste', event => {
  if (typing || !inRows(event.target)) return;
  event.preventDefault();
  const text = event.clipboardData.getData('text/plain');
  if (text) paste(text, /<table/i.test(event.clipboardData.getData('text/html')));
});

// As spreadsheets write it: a cell that holds tabs, newlines or quotes stands in quotes, and quotes in it are doubled.
function parseTsv(text) {
  const rows = [[]], cell = /(?:"([^"]*(?:""[^"]*)*)"(?=[\t\n]|$)|([^\t\n]*))(\t|\n|$)/y;
  text = plainText(text).replace(/\n$/, '');
  while (cell.lastIndex <= text.length) {
    const found = cell.exec(text);
    rows.at(-1).push(found[1] === undefined ? found[2] : found[1].replaceAll('""', '"'));
    if (!found[3]) break;
    if (found[3] === '\n') rows.push([]);
  }
  return rows;
}

// One text goes into one cell, whatever lines it has; a block has a table behind it, or the same number of tabs in each line.
async function paste(text, isTable) {
  const block = parseTsv(text), width = Math.max(...block.map(line => line.length));
  const isBlock = isTable || width > 1 && block.every(line => line.length === width);
  const lines = isBlock ? block : [[plainText(text).replace(/\n$/, '')]], from = Math.max(0, focus.index);
  const seen = columnsSeen().map(column => column.name).filter(name => TEXT.includes(name));
  const texts = seen.slice(Math.max(0, seen.indexOf(seen.includes(focus.col) ? focus.col : 'prompt')));
  const wide = Math.max(...lines.map(line => line.length));
  if (wide > texts.length) { tellError({error: `The block has ${wide} columns; from here there is room for ${texts.length}.`, hint: 'Nothing was pasted. Copy only the columns for prompt and response, or start further left.'}); return; }
  if (lines.length > MOST_PASTED) { tellError({error: `The block has ${count(lines.length)} rows; at most ${count(MOST_PASTED)} can be pasted.`, hint: 'Nothing was pasted. Save it as a CSV file and import that.'}); return; }
  await saves;
  const over = [], fresh = [];
  for (const [i, line] of lines.entries()) {
    const index = from + i, cells = Object.fromEntries(line.map((value, at) => [texts[at], value]));
    if (index < total && !rowAt(index)) await page(Math.floor(index / PAGE));
    const row = index < total ? rowAt(index) : null;
    if (index < total && !row) return;  // the app did not answer, and said so
    if (row) over.push([row.id, row.version, cells]); else fresh.push(cells);
  }
  const answer = await ask('paste', over, fresh);
  if (answer) changed(answer);
  const told = $('.g-error').hidden ? null : {error: $('.g-error strong').textContent, hint: $('.g-error span').textContent};
  await reload();
  if (told) tellError(told);
  if (open) showDrawer(open.id);
}

// --- a new row

async function newRow() {
  await saves;
  const answer = await ask('add');
  if (!answer) return;
  changed(answer);
  clearSelection();
  resetFilters();
  await reload(false);
  const cell = await go(total - 1, 'prompt');
  if (cell) edit(cell, 'end');
}
