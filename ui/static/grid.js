// The rows of a project: scrolls over any number of them, edits in place. Text goes in as textContent, never as HTML.
// props.value = {project, stamp}; a new stamp means that the rows changed elsewhere.
const $ = selector => element.querySelector(selector);
const viewport = $('.g-view'), spacer = $('.g-space'), win = $('.g-rows');
const PAGE = 100, KEPT_PAGES = 60, TALLEST = 15e6;
const ICON = {accepted: '✓', candidate: '?', rejected: '✕'};
const SAY = {accepted: 'accepted', candidate: 'to review', rejected: 'rejected'};
let project = '', view = 'all', search = '', total = 0, turn = 0, focus = {index: 0, col: 1}, open = null, typing = null;
const pages = new Map();

const rowHeight = () => matchMedia('(max-width: 640px)').matches ? 72 : 40;
const scale = () => Math.max(1, total * rowHeight() / TALLEST);

async function ask(name, ...args) {
  let answer;
  try { answer = await server[name](project, ...args); }
  catch { answer = {error: 'The app does not answer.', hint: 'It may be restarting; try again in a moment.'}; }
  tellError(answer?.error ? answer : null);
  return answer?.error ? null : answer;
}

function tellError(answer) {
  const box = $('.g-error');
  box.hidden = !answer;
  box.querySelector('strong').textContent = answer?.error ?? '';
  box.querySelector('span').textContent = answer?.hint ?? '';
}

function page(number) {
  if (!pages.has(number)) {
    const mine = turn;
    pages.set(number, ask('rows', view, search, number * PAGE, PAGE).then(found => {
      if (!found || mine !== turn) { pages.delete(number); return []; }
      show(found);
      return found.rows;
    }));
    if (pages.size > KEPT_PAGES) pages.delete(pages.keys().next().value);
  }
  return pages.get(number);
}

function show(found) {
  total = found.total;
  spacer.style.height = `${Math.min(total * rowHeight(), TALLEST)}px`;
  for (const button of element.querySelectorAll('[data-view]')) {
    const count = found.counts[button.dataset.view];
    button.querySelector('span').textContent = count.toLocaleString('en');
    button.setAttribute('aria-pressed', String(button.dataset.view === view));
    button.hidden = !count && !['all', view].includes(button.dataset.view);
  }
  $('[data-act=undo]').disabled = !found.undo;
  $('[data-act=redo]').disabled = !found.redo;
  const c = found.counts, part = [`${c.all.toLocaleString('en')} rows`];
  if (c.heldout) part.push(`${c.train.toLocaleString('en')} to train`, `${c.heldout.toLocaleString('en')} held out`);
  if (c.rejected) part.push(`${c.rejected.toLocaleString('en')} rejected, not trained`);
  $('.g-sum').textContent = c.all ? part.join(' · ') : '';
  element.firstElementChild.classList.toggle('is-empty', !c.all);
  $('.g-none').hidden = total > 0 || !c.all;
}

async function reload(keepPlace = true) {
  turn += 1;
  pages.clear();
  if (!keepPlace) { viewport.scrollTop = 0; focus = {index: 0, col: 1}; }
  await draw();
  element.dataset.ready = project;
}

function first() {
  const height = rowHeight(), top = viewport.scrollTop;
  return Math.max(0, Math.min(total - 1, Math.floor(top * scale() / height)));
}

let drawing = 0;
async function draw() {
  if (typing || !project) return;
  const mine = ++drawing, height = rowHeight();
  let from = first();
  const seen = Math.ceil(viewport.clientHeight / height) + 2;
  const numbers = [...new Set([from, from + seen].map(i => Math.floor(Math.max(0, Math.min(i, Math.max(total, seen) - 1)) / PAGE)))];
  const rows = (await Promise.all(numbers.map(page))).flat();
  if (mine !== drawing) return;
  from = first();
  const held = win.contains(document.activeElement);
  const frag = document.createDocumentFragment();
  rows.slice(from - numbers[0] * PAGE).slice(0, seen).forEach((row, i) => frag.append(rowNode(row, from + i, height)));
  win.replaceChildren(frag);
  win.style.transform = `translateY(${scale() === 1 ? from * height : viewport.scrollTop}px)`;
  viewport.setAttribute('aria-rowcount', total);
  if (held) cellAt(focus.index, focus.col)?.focus({preventScroll: true});
}

function rowNode(row, index, height) {
  const node = document.createElement('div');
  node.className = `g-row is-${row.status}${open?.id === row.id ? ' is-open' : ''}`;
  node.style.height = `${height}px`;
  node.setAttribute('role', 'row');
  node.setAttribute('aria-rowindex', index + 1);
  node.row = row; node.index = index;
  [ICON[row.status], row.prompt, row.answer, row.turns, row.split === 'heldout' ? 'held out' : row.split === 'train' ? 'train' : '']
    .forEach((text, col) => {
      const cell = document.createElement('div');
      cell.className = `g-cell g-c${col}`;
      cell.setAttribute('role', 'gridcell');
      cell.tabIndex = index === focus.index && col === focus.col ? 0 : -1;
      cell.textContent = text;
      if (col === 0) { cell.title = SAY[row.status]; cell.setAttribute('aria-label', SAY[row.status]); }
      if (col === 3) cell.setAttribute('aria-label', `${text} turns`);
      cell.dataset.col = col;
      node.append(cell);
    });
  return node;
}

const cellAt = (index, col) => [...win.children].find(n => n.index === index)?.children[col];

async function go(index, col) {
  focus = {index: Math.max(0, Math.min(total - 1, index)), col: Math.max(0, Math.min(2, col))};
  const height = rowHeight(), top = focus.index * height / scale();
  if (top < viewport.scrollTop) viewport.scrollTop = top;
  if (top + height > viewport.scrollTop + viewport.clientHeight) viewport.scrollTop = top + height - viewport.clientHeight;
  win.focus?.();
  await draw();
  cellAt(focus.index, focus.col)?.focus({preventScroll: true});
}

// --- editing a cell

function edit(cell, start) {
  const node = cell.parentElement, col = +cell.dataset.col;
  if (col !== 1 && col !== 2) return;
  const field = col === 1 ? 'prompt_at' : 'answer_at';
  if (node.row[field] < 0) return;
  const old = cell.textContent;
  typing = cell;
  cell.contentEditable = 'plaintext-only';
  if (start !== undefined) cell.textContent = start;
  cell.classList.add('is-typing');
  cell.focus();
  const range = document.createRange();
  range.selectNodeContents(cell);
  if (start !== undefined) range.collapse(false);
  getSelection().removeAllRanges(); getSelection().addRange(range);
  let over = false;
  const end = async keep => {
    if (over) return;
    over = true;
    const text = cell.innerText.replace(/\n$/, '');
    cell.removeEventListener('blur', onBlur);
    cell.onkeydown = null;
    cell.contentEditable = 'false';
    cell.classList.remove('is-typing');
    cell.scrollTop = 0;
    typing = null;
    if (!keep || text === old) { cell.textContent = old; return; }
    cell.textContent = text;
    await save(node, {[node.row[field]]: text});
  };
  const onBlur = () => end(true);
  cell.addEventListener('blur', onBlur);
  cell.onkeydown = event => {
    event.stopPropagation();
    if (event.key === 'Escape') { event.preventDefault(); end(false).then(() => cell.focus()); }
    if (event.key === 'Enter' && !event.shiftKey) { event.preventDefault(); end(true).then(() => go(node.index + 1, col)); }
    if (event.key === 'Tab') {
      event.preventDefault();
      const step = event.shiftKey ? -1 : 1, next = col + step;
      end(true).then(() => next < 1 || next > 2 ? go(node.index + step, next < 1 ? 2 : 1) : go(node.index, next))
        .then(() => { const cell = cellAt(focus.index, focus.col); if (cell) edit(cell); });
    }
  };
}

async function save(node, changes) {
  const answer = await ask('edit', node.row.id, node.row.version, changes);
  if (answer) { Object.assign(node.row, answer.row); changed(answer); }
  await reload();
  if (open) showDrawer(open.id);
}

async function act(name, ...args) {
  const answer = await ask(name, ...args);
  if (answer) { changed(answer); await reload(); if (open) showDrawer(open.id); }
}

function changed(answer) {
  if (answer.said) { $('.g-said').textContent = answer.said; }
  trigger('changed', {});
}

const nextStatus = row => row.status === 'accepted' ? 'rejected' : 'accepted';

// --- events

viewport.addEventListener('scroll', () => requestAnimationFrame(draw), {passive: true});
new ResizeObserver(() => { spacer.style.height = `${Math.min(total * rowHeight(), TALLEST)}px`; draw(); }).observe(viewport);

win.addEventListener('click', event => {
  const cell = event.target.closest('.g-cell');
  if (!cell || cell === typing) return;
  focus = {index: cell.parentElement.index, col: Math.min(2, +cell.dataset.col)};
  if (+cell.dataset.col === 0) { act('status', [cell.parentElement.row.id], nextStatus(cell.parentElement.row)); return; }
  cellAt(focus.index, focus.col)?.focus();
  showDrawer(cell.parentElement.row.id);
});
win.addEventListener('dblclick', event => { const cell = event.target.closest('.g-cell'); if (cell && !typing) edit(cell); });
win.addEventListener('keydown', event => {
  const cell = event.target.closest('.g-cell');
  if (!cell || typing) return;
  const {index, row} = cell.parentElement, col = +cell.dataset.col, ctrl = event.ctrlKey || event.metaKey;
  const by = {ArrowDown: [1, 0], ArrowUp: [-1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1],
    PageDown: [10, 0], PageUp: [-10, 0]}[event.key];
  if (by) { event.preventDefault(); go(index + by[0], col + by[1]); }
  else if (ctrl && event.key === 'Home') { event.preventDefault(); go(0, col); }
  else if (ctrl && event.key === 'End') { event.preventDefault(); go(total - 1, col); }
  else if (event.key === 'Enter' || event.key === 'F2') { event.preventDefault(); col === 0 ? act('status', [row.id], nextStatus(row)) : edit(cell); }
  else if (event.key === ' ') { event.preventDefault(); showDrawer(row.id); }
  else if (event.key === 'Delete') { event.preventDefault(); act('remove', [row.id]); }
  else if (event.key === 'Escape') hideDrawer();
  else if (event.key.length === 1 && !ctrl && !event.altKey && event.key !== '?' && col > 0) { event.preventDefault(); edit(cell, event.key); }
});
element.addEventListener('keydown', event => {
  if (!(event.ctrlKey || event.metaKey) || typing || event.target.matches('input, textarea')) return;
  const key = event.key.toLowerCase();
  if (key === 'z' && !event.shiftKey) { event.preventDefault(); act('undo'); }
  if (key === 'y' || (key === 'z' && event.shiftKey)) { event.preventDefault(); act('redo'); }
});
element.addEventListener('click', event => {
  const button = event.target.closest('button');
  if (!button) return;
  if (button.dataset.view) { view = button.dataset.view; reload(false); }
  const name = button.dataset.act;
  if (name === 'undo' || name === 'redo') act(name);
});
let waiting;
$('.g-search').addEventListener('input', event => {
  clearTimeout(waiting);
  waiting = setTimeout(() => { search = event.target.value; reload(false); }, 200);
});
element.addEventListener('click', event => {
  const link = event.target.closest('a[data-export]');
  if (link) link.href = `gradio_api/ft/rows?${new URLSearchParams({project, as: link.dataset.export})}`;
}, true);

function take() {
  const told = props.value ?? {};
  const other = told.project !== project;
  project = told.project ?? '';
  if (other) { hideDrawer(); view = 'all'; search = ''; $('.g-search').value = ''; tellError(null); $('.g-said').textContent = ''; }
  if (project) reload(!other);
}
// The scripts that follow are in the same scope; the first rows come when they have run.
queueMicrotask(() => { watch('value', take); take(); });
