// Which rows there are, in which order, and which columns of them are seen. All of it is decided in the app.
const NO_FILTER = {view: 'all', search: '', status: '', split: null, source: '', flag: ''};
const FILTERS = ['flag', 'source', 'split', 'status'];
const COLUMNS = [
  {name: 'select', head: 'Select', width: 36},
  {name: 'status', head: 'Status', width: 64, sort: true},
  {name: 'system', head: 'System prompt'},
  {name: 'prompt', head: 'A person asks'},
  {name: 'response', head: 'It should answer'},
  {name: 'turns', head: 'Turns', width: 64, sort: true},
  {name: 'tokens', head: 'Tokens', width: 72, sort: true},
  {name: 'flags', head: 'Flags', width: 144, sort: true},
  {name: 'score', head: 'Score', width: 64, sort: true},
  {name: 'split', head: 'Split', width: 80, sort: true},
  {name: 'source', head: 'Source', width: 144, sort: true},
];
const ALWAYS = ['select', 'prompt', 'response'], USUAL = ['status', 'turns', 'tokens', 'flags', 'split'];
const GIVES_WAY = ['source', 'score', 'split', 'turns', 'tokens', 'system', 'flags', 'status'];
const KEPT_COLUMNS = 'ft-columns', NARROWEST_TEXT = 170;
let asked = {...NO_FILTER}, order = {sort: 'position', descending: false}, facets = {flagged: 0};

const query = () => ({...asked, ...order});
const isFiltered = () => Object.keys(NO_FILTER).some(key => asked[key] !== NO_FILTER[key]);

function resetFilters() {
  asked = {...NO_FILTER};
  order = {sort: 'position', descending: false};
  facets = {flagged: 0};
  countedAt = '';
  $('.g-search').value = '';
  drawFilters();
}

function filter(change) {
  Object.assign(asked, change);
  clearSelection('The selection ended with the filter');
  drawFilters();
  reload(false);
}

function clearFilters() {
  $('.g-search').value = '';
  filter(NO_FILTER);
  $('.g-search').focus();
}

// --- views, chips, the number found

const viewNow = () => asked.flag === 'any' && asked.view === 'all' ? 'flagged' : asked.view;

function drawViews() {
  for (const button of element.querySelectorAll('[data-view]')) {
    const name = button.dataset.view, n = name === 'flagged' ? facets.flagged : state.counts[name];
    button.querySelector('span').textContent = n === undefined ? '' : count(n);
    button.setAttribute('aria-pressed', String(name === viewNow()));
    button.hidden = !n && !['all', viewNow()].includes(name);
  }
}

function drawFound() {
  $('.g-found').textContent = isFiltered() ? `${count(total)} found` : '';
}

function drawFilters() {
  drawViews();
  drawFound();
  const active = FILTERS.filter(name => asked[name] !== NO_FILTER[name] && !(name === 'flag' && viewNow() === 'flagged'));
  $('.g-chips').replaceChildren(...active.map(name => {
    const button = document.createElement('button'), words = wordsFor(name);
    Object.assign(button, {type: 'button', className: 'g-chip', textContent: `${name}: ${words}`});
    button.dataset.drop = name;
    button.setAttribute('aria-label', `Remove the filter ${name}: ${words}`);
    return button;
  }));
  $('.g-chips').hidden = !active.length;
  for (const select of element.querySelectorAll('[data-filter]')) drawOptions(select);
}

function wordsFor(name) {
  if (name === 'flag' && asked.flag === 'any') return 'any';
  return facets[name]?.find(([value]) => value === asked[name])?.[1] ?? asked[name] ?? '';
}

function drawOptions(select) {
  const name = select.dataset.filter, now = asked[name] === NO_FILTER[name] ? '*' : asked[name];
  const options = [['*', 'any', null], ...(name === 'flag' && facets.flagged ? [['any', 'any flag', facets.flagged]] : []), ...(facets[name] ?? [])];
  if (name === 'flag') options[0][1] = 'flagged or not';
  if (!options.some(([value]) => value === now)) options.push([now, now, 0]);
  select.replaceChildren(...options.map(([value, words, n]) => new Option(n === null ? words : `${words} (${count(n)})`, value, false, value === now)));
}

// What can be filtered by is counted when the rows are there, and again when a person pauses. It looks at every row, so
// of many rows only when the menu is opened.
const MANY = 50000;
let counting, countedAt = '';
function askFacets() {
  clearTimeout(counting);
  if (state.counts.all <= MANY) counting = setTimeout(countFacets, facets.status ? 1500 : 300);
}

async function countFacets() {
  const of = project, mine = `${of} ${state.stamp}`;
  if (countedAt === mine) return;
  const found = await ask('facets');
  if (!found || of !== project) return;
  countedAt = mine;
  facets = found;
  drawFilters();
}
$('.g-filter').addEventListener('toggle', event => { if (event.target.open) countFacets(); });

element.addEventListener('change', event => {
  const name = event.target.dataset?.filter, column = event.target.dataset?.column;
  if (name) filter({[name]: event.target.value === '*' ? NO_FILTER[name] : event.target.value});
  if (column) chooseColumn(column, event.target.checked);
});
element.addEventListener('click', event => {
  const button = event.target.closest('button');
  if (!button) return;
  const {view, drop} = button.dataset;
  if (view) filter({view: view === 'flagged' ? 'all' : view, flag: view === 'flagged' ? 'any' : asked.flag === 'any' ? '' : asked.flag});
  if (drop) { filter({[drop]: NO_FILTER[drop]}); ($('.g-chip') ?? $('.g-filter summary')).focus(); }
  if (button.dataset.act === 'clear-filters') clearFilters();
});
let searching;
$('.g-search').addEventListener('input', event => {
  clearTimeout(searching);
  searching = setTimeout(() => filter({search: event.target.value}), 200);
});
$('.g-search').addEventListener('keydown', event => {
  if (event.key === 'Enter' || event.key === 'ArrowDown') { event.preventDefault(); go(0); }
});

// --- menus close when one goes elsewhere

document.addEventListener('pointerdown', event => {
  for (const menu of element.querySelectorAll('details.ft-menu[open]')) if (!menu.contains(event.target)) menu.open = false;
}, true);
element.addEventListener('keydown', event => {
  const menu = event.key === 'Escape' && event.target.closest('details.ft-menu[open]');
  if (!menu) return;
  event.stopPropagation();
  menu.open = false;
  menu.querySelector('summary').focus();
});

// --- columns

let chosenColumns = keptColumns();

function keptColumns() {
  const known = COLUMNS.map(column => column.name);
  try {
    const list = JSON.parse(localStorage.getItem(KEPT_COLUMNS));
    if (Array.isArray(list)) return new Set([...ALWAYS, ...list.filter(name => known.includes(name))]);
  } catch { /* what another version kept, or a browser that keeps nothing */ }
  return new Set([...ALWAYS, ...USUAL]);
}

function chooseColumn(name, on) {
  if (on) chosenColumns.add(name); else chosenColumns.delete(name);
  try { localStorage.setItem(KEPT_COLUMNS, JSON.stringify([...chosenColumns])); } catch { /* it holds until the page is left */ }
  draw();
}

// Those that a person chose, as far as they fit beside the texts.
function columnsSeen() {
  if (isPhone()) return COLUMNS.filter(({name}) => [...ALWAYS, 'status'].includes(name));
  const seen = COLUMNS.filter(({name}) => chosenColumns.has(name));
  const need = () => seen.reduce((sum, {width}) => sum + (width ?? NARROWEST_TEXT), 0);
  for (const name of GIVES_WAY) {
    const at = seen.findIndex(column => column.name === name);
    if (at >= 0 && viewport.clientWidth && need() > viewport.clientWidth) seen.splice(at, 1);
  }
  return seen;
}

function drawHeaders() {
  const seen = columnsSeen(), key = JSON.stringify([seen.map(column => column.name), order, focus.index === HEAD && focus.col]);
  headRow.style.paddingRight = `${viewport.offsetWidth - viewport.clientWidth}px`;
  if (headRow.dataset.of === key) return;
  headRow.dataset.of = key;
  const held = headRow.contains(document.activeElement);
  table.setAttribute('aria-colcount', COLUMNS.length);
  headRow.replaceChildren(...seen.map(headNode));
  const all = headRow.querySelector('input');
  if (all) { all.checked = everything; all.indeterminate = !everything && selectedCount() > 0; }
  if (held) cellAt(HEAD, focus.col)?.focus({preventScroll: true});
  for (const box of element.querySelectorAll('[data-column]')) box.checked = chosenColumns.has(box.dataset.column);
}

function headNode(column) {
  const node = document.createElement('div'), {name, head, sort} = column;
  node.className = `g-cell is-${name}`;
  node.dataset.col = name;
  node.setAttribute('role', 'columnheader');
  node.setAttribute('aria-colindex', COLUMNS.indexOf(column) + 1);
  node.tabIndex = focus.index === HEAD && focus.col === name ? 0 : -1;
  if (name === 'select') {
    const box = document.createElement('input');
    Object.assign(box, {type: 'checkbox', tabIndex: -1});
    box.setAttribute('aria-label', 'Select all rows');
    node.append(box);
    return node;
  }
  node.textContent = head;
  if (!sort) return node;
  const is = order.sort === name ? (order.descending ? 'descending' : 'ascending') : 'none';
  node.setAttribute('aria-sort', is);
  node.classList.add('is-sortable');
  node.title = {none: 'Sort, smallest first', ascending: 'Sort, largest first', descending: 'Back to the order in which they came'}[is];
  return node;
}

// Ascending, descending, and as the rows came.
function sortBy(name) {
  if (!COLUMNS.find(column => column.name === name)?.sort) return;
  const next = order.sort !== name ? {sort: name, descending: false}
    : order.descending ? {sort: 'position', descending: false} : {sort: name, descending: true};
  order = next;
  anchor = null;
  pages.clear();
  turn += 1;
  viewport.scrollTop = 0;
  draw();
  say(next.sort === 'position' ? 'In the order in which they came' : `Sorted by ${name}, ${next.descending ? 'largest' : 'smallest'} first`);
}

headRow.addEventListener('click', event => {
  const name = event.target.closest('.g-cell')?.dataset.col;
  if (!name) return;
  event.preventDefault();
  focus = {index: HEAD, col: name};
  if (name === 'select') pickAll(); else sortBy(name);
  drawHeaders();
  cellAt(HEAD, name)?.focus({preventScroll: true});
});
drawFilters();
