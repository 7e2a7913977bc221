// Which rows are selected: some, by id, or all that the filters leave. What is done to them is one operation.
let picked = new Set(), everything = false, anchor = null, ranging = 0;

const selectedCount = () => everything ? total : picked.size;
const selection = () => everything ? {query: query()} : {ids: [...picked]};

function drawPicked(node) {
  const is = everything || picked.has(node.row.id), box = node.querySelector('input');
  node.setAttribute('aria-selected', String(is));
  if (box) box.checked = is;
}

function drawSelection() {
  const n = selectedCount(), bar = $('.g-bulk'), had = bar.contains(document.activeElement);
  for (const node of win.children) drawPicked(node);
  bar.hidden = !n;
  $('.g-tools').hidden = Boolean(n);
  $('.g-b-count').textContent = `${everything ? 'all ' : ''}${count(n)} selected`;
  const all = headRow.querySelector('input');
  if (all) { all.checked = everything; all.indeterminate = !everything && n > 0; }
  if (!n) bar.querySelector('details').open = false;
  if (!n && had) go(focus.index);
}

function clearSelection(words = '') {
  const had = selectedCount() > 0;
  picked = new Set(); everything = false; anchor = null; ranging += 1;
  if (had && words) say(words);
  drawSelection();
}

function selectAll() {
  picked = new Set(); everything = total > 0; anchor = null; ranging += 1;
  drawSelection();
  say(`${isFiltered() ? 'All that match' : 'All rows'}: ${count(total)} selected`);
}

function pickAll() {
  if (everything) clearSelection('Nothing is selected'); else selectAll();
}

async function toggle(index, row) {
  const mine = ++ranging;
  if (everything) {
    const found = await ask('ids', query(), 0, total - 1);
    if (!found || mine !== ranging) return;
    everything = false;
    picked = new Set(found.ids);
  }
  if (!picked.delete(row.id)) picked.add(row.id);
  anchor = index;
  drawSelection();
  say(`${count(selectedCount())} selected`);
}

// From where the range began to `to`; it takes the place of what was selected.
async function extendTo(from, to) {
  anchor ??= Math.max(0, from);
  const mine = ++ranging, [low, high] = anchor < to ? [anchor, to] : [to, anchor];
  let ids = [];
  for (let i = low; i <= high && ids; i += 1) { const row = rowAt(i); ids = row ? [...ids, row.id] : null; }
  if (!ids) {
    const found = await ask('ids', query(), low, high);
    if (!found || mine !== ranging) return;
    ids = found.ids;
  }
  everything = false;
  picked = new Set(ids);
  drawSelection();
  say(`${count(selectedCount())} selected`);
}

// --- what is done to them

const judge = (these, to) => onSelection('status', these, to);

// Rows that may have left the view are not selected any more: nothing is done to what is not seen.
async function onSelection(name, these, ...more) {
  const mine = ranging, answer = await act(name, these, ...more);
  if (answer && mine === ranging && selectedCount() && (name === 'remove' || isFiltered())) clearSelection();
}

const BULK = {
  accept: () => judge(selection(), 'accepted'),
  reject: () => judge(selection(), 'rejected'),
  holdout: () => onSelection('split', selection(), 'heldout'),
  train: () => onSelection('split', selection(), 'train'),
  duplicate: () => onSelection('duplicate', selection()),
  system: () => { $('.g-bulk details').open = false; onSelection('system', selection(), $('.g-b-system').value); },
  remove: () => onSelection('remove', selection()),
  clear: () => clearSelection('Nothing is selected'),
};

$('.g-bulk').addEventListener('click', event => {
  const button = event.target.closest('button[data-bulk]');
  if (button && selectedCount()) BULK[button.dataset.bulk]();
});
$('.g-bulk').addEventListener('keydown', event => {
  if (event.key === 'Escape' && !event.target.closest('details[open]')) { event.preventDefault(); clearSelection('Nothing is selected'); }
});
$('.g-bulk details').addEventListener('toggle', event => { if (event.target.open) $('.g-b-system').focus(); });
$('.g-said-undo').addEventListener('click', () => { act('undo').then(() => go(focus.index)); });
