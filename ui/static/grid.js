// The rows of a project: scrolls over any number of them. Text goes in as textContent, never as HTML.
// props.value = {project, stamp}; another stamp means that the rows changed elsewhere. The scripts that ui/grid.py
// lists are one scope: cells.js edits, choose.js selects, filters.js decides which rows and columns there are.
const $ = selector => element.querySelector(selector);
const table = $('.g-table'), viewport = $('.g-view'), spacer = $('.g-space'), win = $('.g-rows'), headRow = $('.g-head');
const PAGE = 100, KEPT_PAGES = 60, TALLEST = 15e6, HEAD = -1;
const ICON = {accepted: '✓', candidate: '?', rejected: '✕'};
const SAY = {accepted: 'accepted', candidate: 'to review', rejected: 'rejected'};
const SPLIT = {heldout: 'held out', train: 'train', '': ''};
let project = '', total = 0, turn = 0, focus = {index: 0, col: 'prompt'}, open = null, typing = null;
let state = {stamp: '', counts: {}, undo: false, redo: false};
const pages = new Map();

const isPhone = () => matchMedia('(max-width: 640px)').matches;
const rowHeight = () => isPhone() ? 72 : 40;
const count = n => Number(n).toLocaleString('en');
const counted = n => `${count(n)} row${n === 1 ? '' : 's'}`;

// --- the app

async function ask(name, ...args) {
  let answer;
  try { answer = await server[name](project, ...(args.length ? args : [null])); }  // one argument alone would not come as a list
  catch { answer = {error: 'The app does not answer.', hint: 'It may be restarting; try again in a moment.'}; }
  tellError(answer?.error ? answer : null);
  return answer?.error ? null : answer;
}

// A change: waits for edits on their way, says what was done, and shows the rows as they are then.
async function act(name, ...args) {
  await saves;
  const slow = setTimeout(() => { say('Working …'); element.firstElementChild.setAttribute('aria-busy', 'true'); }, 300);
  const answer = await ask(name, ...args);
  clearTimeout(slow);
  element.firstElementChild.removeAttribute('aria-busy');
  if (!answer) { say(''); return null; }
  changed(answer);
  await reload();
  if (open) showDrawer(open.id);
  return answer;
}

// The page counts and checks the rows again when a person pauses, never in the way of the next edit.
let telling;
function changed(answer) {
  if (answer.said) say(answer.said, answer.n > 0);
  clearTimeout(telling);
  telling = setTimeout(() => trigger('changed', {}), 1000);
}

function say(text, undoable = false) {
  $('.g-said').textContent = text;
  $('.g-said-undo').hidden = !undoable;
}

function tellError(answer) {
  const box = $('.g-error');
  box.hidden = !answer;
  box.querySelector('strong').textContent = answer?.error ?? '';
  box.querySelector('span').textContent = answer?.hint ?? '';
}

// --- pages of rows

function page(number) {
  let entry = pages.get(number);
  if (entry) { pages.delete(number); pages.set(number, entry); return entry.coming; }
  const mine = turn;
  entry = {rows: []};
  entry.coming = ask('rows', query(), number * PAGE, PAGE, state.stamp).then(found => {
    if (!found || mine !== turn) { if (pages.get(number) === entry) pages.delete(number); return []; }
    if (found.state) {
      if (state.stamp) for (const other of [...pages.keys()]) if (pages.get(other) !== entry) pages.delete(other);
      takeState(found.state);
    }
    entry.rows = found.rows;
    total = found.total;
    stretch();
    return found.rows;
  });
  pages.set(number, entry);
  if (pages.size > KEPT_PAGES) pages.delete(pages.keys().next().value);
  return entry.coming;
}

const rowAt = index => pages.get(Math.floor(index / PAGE))?.rows[index % PAGE];
const rowsById = id => [...pages.values()].flatMap(entry => entry.rows.filter(row => row.id === id));

async function reload(keepPlace = true) {
  turn += 1;
  pages.clear();
  state.stamp = '';
  if (!keepPlace) { viewport.scrollTop = 0; focus = {index: 0, col: focus.col}; }
  await draw();
  drawSelection();
  element.dataset.ready = project;
}

function takeState(now) {
  state = now;
  $('[data-act=undo]').disabled = !now.undo;
  $('[data-act=redo]').disabled = !now.redo;
  const c = now.counts, part = [counted(c.all)];
  if (c.heldout) part.push(`${count(c.train)} to train`, `${count(c.heldout)} held out`);
  if (c.rejected) part.push(`${count(c.rejected)} rejected, not trained`);
  $('.g-sum').textContent = c.all ? part.join(' · ') : '';
  element.firstElementChild.classList.remove('is-loading');
  element.firstElementChild.classList.toggle('is-empty', !c.all);
  drawViews();
  askFacets();
}

// --- scrolling: where the rows would be taller than a browser can make a page, the bar stands for all of them

const fitting = () => Math.max(1, Math.floor(viewport.clientHeight / rowHeight()));
const isScaled = () => total * rowHeight() > TALLEST;
const furthest = () => ({top: Math.max(1, TALLEST - viewport.clientHeight), index: Math.max(0, total - fitting())});

function stretch() {
  spacer.style.height = `${Math.min(total * rowHeight(), TALLEST)}px`;
  table.setAttribute('aria-rowcount', total + 1);
  $('.g-none').hidden = total > 0 || !state.counts.all;
  drawFound();
}

function first() {
  const at = isScaled() ? viewport.scrollTop / furthest().top * furthest().index : viewport.scrollTop / rowHeight();
  return Math.max(0, Math.min(total - 1, Math.floor(at + 1e-6)));
}

function scrollTo(index) {
  const height = rowHeight();
  if (isScaled()) {
    const from = first(), to = index < from ? index : index >= from + fitting() ? index - fitting() + 1 : from;
    if (to !== from) viewport.scrollTop = Math.ceil(to / furthest().index * furthest().top);
    return;
  }
  const top = index * height, end = top + height - viewport.clientHeight;
  if (top < viewport.scrollTop) viewport.scrollTop = top;
  if (end > viewport.scrollTop) viewport.scrollTop = end;
}

// Nothing is drawn under a hand that types; `missed` is drawn after. Whoever waits for a drawing has the newest one.
let drawing = 0, drawn, missed = false;
function draw() {
  if (typing) missed = true;
  else if (project) drawn = drawAs(++drawing);
  return drawn;
}

async function drawAs(mine) {
  const height = rowHeight(), seen = Math.ceil(viewport.clientHeight / height) + 2;
  let from = first();
  const numbers = [...new Set([from, from + seen].map(i => Math.floor(Math.max(0, Math.min(i, Math.max(total, seen) - 1)) / PAGE)))];
  const rows = (await Promise.all(numbers.map(page))).flat();
  if (mine !== drawing) return drawn;
  if (typing) { missed = true; return; }
  missed = false;
  if (total && from > total - 1) return draw();
  from = first();
  const held = win.contains(document.activeElement) || document.activeElement === viewport;
  focus.index = Math.max(HEAD, Math.min(total - 1, focus.index));
  drawHeaders();
  const columns = columnsSeen();
  win.replaceChildren(...rows.slice(from - numbers[0] * PAGE).slice(0, seen).map((row, i) => rowNode(row, from + i, columns)));
  win.style.transform = `translateY(${isScaled() ? viewport.scrollTop : from * height}px)`;
  const cell = cellAt(focus.index, focus.col);
  viewport.tabIndex = cell || focus.index === HEAD ? -1 : 0;
  if (held) (cell ?? viewport).focus({preventScroll: true});
  drawUnsaved();
}

function rowNode(row, index, columns) {
  const node = document.createElement('div');
  node.className = `g-row is-${row.status}${open?.id === row.id ? ' is-open' : ''}`;
  node.setAttribute('role', 'row');
  node.setAttribute('aria-rowindex', index + 2);
  node.row = row; node.index = index;
  for (const column of columns) node.append(cellNode(row, index, column));
  drawPicked(node);
  return node;
}

function cellNode(row, index, column) {
  const cell = document.createElement('div'), name = column.name;
  cell.className = `g-cell is-${name}`;
  cell.setAttribute('role', 'gridcell');
  cell.setAttribute('aria-colindex', COLUMNS.indexOf(column) + 1);
  cell.dataset.col = name;
  cell.tabIndex = index === focus.index && name === focus.col ? 0 : -1;
  fill(cell, row, name);
  return cell;
}

function fill(cell, row, name) {
  if (name === 'select') {
    const box = document.createElement('input');
    Object.assign(box, {type: 'checkbox', tabIndex: -1});
    box.setAttribute('aria-label', `Select row ${row.id}`);
    cell.replaceChildren(box);
  } else if (name === 'flags') {
    cell.replaceChildren(...row.flags.flatMap(([word, reason], i) => {
      const flag = document.createElement('span');
      flag.textContent = word; flag.title = reason;
      return i ? [', ', flag] : [flag];
    }));
  } else if (name === 'status') {
    cell.textContent = ICON[row.status];
    cell.title = SAY[row.status];
    cell.setAttribute('aria-label', SAY[row.status]);
  } else {
    cell.textContent = name === 'split' ? SPLIT[row.split] : typeof row[name] === 'number' ? count(row[name]) : row[name];
    if (name === 'source') cell.title = row.source;
  }
}

// A row that changed is drawn where it stands.
function redraw(id) {
  for (const node of win.children) {
    if (node.row.id !== id) continue;
    node.classList.remove('is-accepted', 'is-candidate', 'is-rejected');
    node.classList.add(`is-${node.row.status}`);
    for (const cell of node.children) if (cell !== typing?.cell) fill(cell, node.row, cell.dataset.col);
    drawPicked(node);
  }
}

// --- moving

const cellAt = (index, col) => index === HEAD ? headRow.querySelector(`[data-col=${col}]`)
  : nodeAt(index)?.querySelector(`[data-col=${col}]`);
const nodeAt = index => [...win.children].find(node => node.index === index);

// Rows may have to come first: whoever goes elsewhere meanwhile, or types, is not called back. Returns the cell, once
// it has the focus.
let going = 0;
async function go(index, col = focus.col) {
  const mine = ++going, columns = columnsSeen().map(column => column.name);
  if (!columns.includes(col)) col = 'prompt';
  const to = focus = {index: Math.max(HEAD, Math.min(total - 1, index)), col};
  if (focus.index !== HEAD) scrollTo(focus.index);
  viewport.tabIndex = 0;
  if (focus.index !== HEAD) viewport.focus({preventScroll: true});
  await draw();
  if (mine !== going || typing) return null;
  const cell = cellAt(focus.index, focus.col);
  cell?.focus({preventScroll: true});
  return focus.index === to.index && focus.col === to.col ? cell : null;
}

function beside(step) {
  const columns = columnsSeen().map(column => column.name), to = columns.indexOf(focus.col) + step;
  return columns[Math.max(0, Math.min(columns.length - 1, to))];
}

async function move(index, extend) {
  const from = focus.index, isRange = extend && from !== HEAD;
  anchor = isRange ? anchor ?? from : null;  // now: while rows are on their way, the next key may come first
  await go(Math.max(extend ? 0 : HEAD, index));
  if (isRange) extendTo(from, focus.index);
}

const inRows = node => win.contains(node) || node === viewport;

const MOVES = {
  ArrowDown: e => move(focus.index + 1, e.shiftKey), ArrowUp: e => move(focus.index - 1, e.shiftKey),
  PageDown: e => move(Math.max(0, focus.index) + fitting(), e.shiftKey), PageUp: e => move(Math.max(0, focus.index - fitting()), e.shiftKey),
  ArrowLeft: () => go(focus.index, beside(-1)), ArrowRight: () => go(focus.index, beside(1)),
  Home: e => e.ctrlKey || e.metaKey ? move(0, e.shiftKey) : go(focus.index, columnsSeen()[0].name),
  End: e => e.ctrlKey || e.metaKey ? move(total - 1, e.shiftKey) : go(focus.index, columnsSeen().at(-1).name),
};

table.addEventListener('keydown', event => {
  if (typing || event.isComposing || !(inRows(event.target) || headRow.contains(event.target))) return;
  const ctrl = event.ctrlKey || event.metaKey, key = event.key;
  if (event.altKey) return;
  if (MOVES[key]) { event.preventDefault(); MOVES[key](event); return; }
  if (ctrl && key.toLowerCase() === 'a') { event.preventDefault(); selectAll(); return; }
  if (key === 'Escape') { event.preventDefault(); if (selectedCount()) clearSelection('Nothing is selected'); else hideDrawer(); return; }
  if (focus.index === HEAD) {
    if (key === 'Enter' || key === ' ') { event.preventDefault(); focus.col === 'select' ? pickAll() : sortBy(focus.col); }
    return;
  }
  const row = nodeAt(focus.index)?.row ?? rowAt(focus.index);  // what is seen, also while it is asked for again
  if (row) onKey(event, row, key, ctrl);
});

function onKey(event, row, key, ctrl) {
  const isText = TEXT.includes(focus.col), cell = cellAt(focus.index, focus.col), isSelect = focus.col === 'select';
  const these = selectedCount() ? selection() : {ids: [row.id]};
  const letter = !ctrl && key.length === 1 ? key : '';
  const done = () => { event.preventDefault(); return true; };
  if (key === 'Enter' && ctrl) { done(); showDrawer(row.id); }
  else if (key === 'Enter' && isSelect || letter === ' ' && isSelect) { done(); toggle(focus.index, row); }
  else if (key === 'Enter' || key === 'F2') { done(); isText ? edit(cell, key === 'F2' ? 'end' : 'all') : showDrawer(row.id); }
  else if (letter === ' ') { done(); judge(these, 'accepted'); }
  else if (key === 'Delete') { done(); onSelection('remove', these); }
  else if (letter === 'a' && !isText) { done(); judge(these, 'accepted'); }
  else if (letter === 'r' && !isText) { done(); judge(these, 'rejected'); }
  else if (letter && isText && cell && letter !== '?') { done(); edit(cell, 'replace', letter); }
}

element.addEventListener('keydown', event => {
  if (!(event.ctrlKey || event.metaKey) || typing || event.target.closest('input:not([type=checkbox]), textarea, select')) return;
  const key = event.key.toLowerCase();
  if (key === 'z' && !event.shiftKey) { event.preventDefault(); act('undo'); }
  if (key === 'y' || (key === 'z' && event.shiftKey)) { event.preventDefault(); act('redo'); }
});

// The drawer moves the columns, so one click opens it only when it will not be two.
let clicking;
win.addEventListener('click', event => {
  const cell = event.target.closest('.g-cell');
  if (!cell || typing?.cell === cell) return;
  clearTimeout(clicking);
  const {index, row} = cell.parentElement, name = cell.dataset.col, from = focus.index;
  cell.focus({preventScroll: true});
  if (event.shiftKey) { extendTo(from, index); return; }
  if (name === 'select' || event.ctrlKey || event.metaKey) { event.preventDefault(); toggle(index, row); return; }
  anchor = null;
  if (name === 'status') { judge({ids: [row.id]}, row.status === 'accepted' ? 'rejected' : 'accepted'); return; }
  if (open) showDrawer(row.id);
  else if (event.detail < 2) clicking = setTimeout(showDrawer, 250, row.id);
});
// Wherever the focus comes from, the one cell that has it is the one that Tab comes back to.
table.addEventListener('focusin', event => {
  const cell = event.target.closest('.g-cell');
  if (!cell || typing) return;
  focus = {index: headRow.contains(cell) ? HEAD : cell.parentElement.index, col: cell.dataset.col};
  for (const one of table.querySelectorAll('.g-cell')) one.tabIndex = one === cell ? 0 : -1;
  viewport.tabIndex = -1;
});
win.addEventListener('dblclick', event => {
  const cell = event.target.closest('.g-cell');
  clearTimeout(clicking);
  if (cell && !typing) edit(cell, 'all');
});
win.addEventListener('mousedown', event => {
  if (event.target.closest('.g-cell') && !event.target.closest('textarea')) event.preventDefault();  // no text is marked on Shift-click
});

let scrolled = 0;
viewport.addEventListener('scroll', () => {
  if (!scrolled) scrolled = requestAnimationFrame(() => { scrolled = 0; draw(); });
}, {passive: true});
new ResizeObserver(() => { stretch(); draw(); }).observe(viewport);

element.addEventListener('click', event => {
  const name = event.target.closest('button')?.dataset.act;
  if (name === 'undo' || name === 'redo') act(name);
  if (name === 'new') newRow();
});

// The page shows some of the rows: those of a source, or with a flag.
let shownAt = 0, audit = '';
function showOnly(told) {
  shownAt = told.asked;
  $('.g-search').value = '';
  filter({...NO_FILTER, ...told.only});
  table.scrollIntoView({block: 'center'});
  viewport.focus({preventScroll: true});
}

function take() {
  const told = props.value ?? {}, other = told.project !== project;
  if (told.only && told.asked !== shownAt && !other) { showOnly(told); return; }
  const known = told.audit === audit;
  audit = told.audit;
  if (!other && known && told.stamp && told.stamp === state.stamp) return;  // our own change comes back
  project = told.project ?? '';
  if (other) { hideDrawer(); clearSelection(); resetFilters(); tellError(null); say(''); state.stamp = ''; }
  if (project) reload(!other);
}
// The scripts that follow are in the same scope; the first rows come when they have run.
queueMicrotask(() => { watch('value', take); take(); });
