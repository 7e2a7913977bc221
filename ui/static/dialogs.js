// The dialogs over the grid, in its scope (see ui/grid.py): find and replace, versions with the log.
(() => {
const ROWS_PAGE = 20, LOG_PAGE = 50;
const node = (tag, text = '', className = '') => Object.assign(document.createElement(tag), {textContent: text, className});
const rowsOf = n => `${n.toLocaleString('en')} row${n === 1 ? '' : 's'}`;

async function call(dialog, name, ...args) {
  let answer;
  try { answer = await server[name](project, ...args); }
  catch { answer = {error: 'The app does not answer.', hint: 'It may be restarting; try again in a moment.'}; }
  return answer;
}

function tell(dialog, answer) {
  const box = dialog.querySelector('.g-x-error');
  box.hidden = !answer?.error;
  box.querySelector('strong').textContent = answer?.error ?? '';
  box.querySelector('span').textContent = answer?.hint ?? '';
  return !answer?.error;
}

// Before -> after, marked: <del> goes, <ins> comes, and what lies far from a change is left out.
function piecesNode(pieces) {
  const box = node('p', '', 'g-x-text');
  const tags = {'': 'span', '-': 'del', '+': 'ins', '…': 'small'};
  for (const [mark, text] of pieces) box.append(node(tags[mark], mark === '…' ? ` … ${text} … ` : text));
  return box;
}

function changeNode({id, kind, turns, moved = []}) {
  const box = node('article'), title = node('h3', `Row ${id}`);
  if (kind) title.append(node('small', ` ${kind}`));
  box.append(title);
  for (const [what, before, after] of moved) {
    const line = node('p', `${what}: `, 'g-x-text');
    line.append(node('del', before), node('span', ' '), node('ins', after));
    box.append(line);
  }
  if (turns.length === 1) title.append(node('small', ` ${turns[0].role}`));
  for (const turn of turns) box.append(...(turns.length > 1 ? [node('small', turn.role)] : []), piecesNode(turn.pieces));
  return box;
}

// --- find and replace

const replace = $('.g-replace'), form = replace.querySelector('form');
const field = name => form.elements[name];
let looking = 0, waiting, found = null;

const wanted = () => ({find: field('find').value, put: field('put').value, role: field('role').value,
  regex: field('regex').checked, case: field('case').checked});
const where = () => ({selected: () => selection(), view: () => ({query: rowsShown()}), all: () => ({query: {view: 'all'}})})[field('rows').value]();

async function openReplace() {
  if (!await settleDrawer()) return;
  const some = typeof selectedCount === 'function' ? selectedCount() : 0, options = field('rows').options;
  options[0].text = total === state.counts.all ? `all ${rowsOf(total)}` : `the ${rowsOf(total)} in this view`;
  options[1].text = `the ${rowsOf(some)} selected`;
  options[2].text = `all ${rowsOf(state.counts.all ?? total)}`;
  options[1].hidden = options[1].disabled = !some;
  options[2].hidden = options[2].disabled = total === state.counts.all;
  field('rows').value = some ? 'selected' : 'view';
  tell(replace, null);
  replace.showModal();
  field('find').focus();
  field('find').select();
  look();
}

function draw(sum, changes = []) {
  replace.querySelector('.g-x-sum').textContent = sum;
  replace.querySelector('.g-x-cancel').hidden = true;
  replace.querySelector('.g-x-changes').replaceChildren(...changes.map(changeNode));
  const button = replace.querySelector('[data-act=replace-all]');
  button.disabled = !found?.rows;
  button.textContent = found?.rows ? `Replace in ${found.whole ? '' : 'at least '}${rowsOf(found.rows)}` : 'Replace';
}

async function look() {
  clearTimeout(waiting);
  const mine = ++looking, what = wanted();
  found = null;
  tell(replace, null);
  replace.querySelector('.g-x-pattern').hidden = !what.regex;
  draw('');
  if (!what.find) return;
  replace.querySelector('.g-x-sum').textContent = 'Looking …';
  replace.querySelector('.g-x-cancel').hidden = false;
  const answer = await call(replace, 'find_places', what, where());
  if (mine !== looking) return;
  if (!tell(replace, answer)) { draw(''); return; }
  found = answer;
  const {rows, places, whole, shown} = answer;
  const first = rows > shown.length ? `, the first ${shown.length} here` : '';
  if (rows) draw(`${whole ? '' : 'At least '}${places.toLocaleString('en')} place${places === 1 ? '' : 's'} in ${rowsOf(rows)}${first}`, shown);
  else draw(whole ? 'Nothing is found, or nothing would change.' : 'Nothing is found so far: there are more rows than can be looked at quickly.');
}

async function replaceAll() {
  const button = replace.querySelector('[data-act=replace-all]');
  looking += 1;
  button.disabled = true;
  replace.querySelector('.g-x-sum').textContent = 'Replacing …';
  const answer = await call(replace, 'replace_places', wanted(), where());
  if (!tell(replace, answer)) { draw(''); return; }
  replace.close();
  await after(answer);
}

async function after(answer) {
  changed(answer);
  await reload();
  if (open) await showDrawer(open.id);
}

form.addEventListener('input', () => { clearTimeout(waiting); looking += 1; found = null; draw(''); waiting = setTimeout(look, 300); });
form.addEventListener('submit', event => { event.preventDefault(); look(); });
replace.addEventListener('close', () => { looking += 1; clearTimeout(waiting); });

// --- versions

const dialog = $('.g-versions'), pick = name => dialog.querySelector(`[name=${name}]`);
let lines = LOG_PAGE, compared = 0, shownChanges = 0;
const moment = at => new Date(at * 1000).toLocaleString('en-GB', {dateStyle: 'medium', timeStyle: 'short'});

async function openVersions() {
  if (!await settleDrawer()) return;
  lines = LOG_PAGE;
  dialog.querySelector('.g-v-diff').hidden = true;
  dialog.querySelector('.g-v-said').textContent = '';
  tell(dialog, null);
  dialog.showModal();
  pick('version').focus();
  await list();
}

async function list() {
  const answer = await call(dialog, 'list_versions', lines);
  if (!tell(dialog, answer)) return;
  const items = answer.versions.map(version => {
    const item = node('li'), words = node('div'), name = node('strong', version.name);
    words.append(name, node('small', ` ${moment(version.at)}${version.who ? `, ${version.who}` : ''}${version.current ? ' · as the rows are now' : ''}`));
    item.append(words, node('span', '', 'g-fill'), ...[['compare', 'What changed since'], ['restore', 'Go back to it']].map(([act, text]) => {
      const button = node('button', text, 'ft-plain');
      button.type = 'button';
      button.dataset.act = act;
      button.dataset.version = version.name;
      button.setAttribute('aria-label', `${text}: ${version.name}`);
      button.disabled = version.current;
      return button;
    }));
    return item;
  });
  dialog.querySelector('.g-v-list').replaceChildren(...(items.length ? items : [node('li', 'No version has a name yet.', 'ft-label')]));
  for (const [name, now] of [['before', false], ['after', true]]) {
    const was = pick(name).value;
    pick(name).replaceChildren(...(now ? [new Option('now', '')] : []), ...answer.versions.map(v => new Option(v.name, v.name)));
    if ([...pick(name).options].some(option => option.value === was)) pick(name).value = was;
  }
  const state = {done: 'done', undone: 'undone, Redo does it again', dropped: 'undone'};
  dialog.querySelector('.g-v-log tbody').replaceChildren(...answer.log.map(line => {
    const row = node('tr', '', line.state === 'done' ? '' : 'is-undone');
    row.append(node('td', moment(line.at)), node('td', line.what), node('td', line.who || 'you'), node('td', state[line.state] ?? line.state));
    return row;
  }));
  dialog.querySelector('[data-act=more-log]').hidden = !answer.more;
}

async function compare(more = false) {
  const mine = ++compared, box = dialog.querySelector('.g-v-diff'), sum = box.querySelector('.g-x-sum'), changes = box.querySelector('.g-x-changes');
  box.hidden = false;
  if (!more) { shownChanges = 0; changes.replaceChildren(); sum.textContent = 'Comparing …'; }
  const answer = await call(dialog, 'compare_versions', pick('before').value, pick('after').value, shownChanges);
  if (mine !== compared) return;
  if (!tell(dialog, answer)) { sum.textContent = ''; return; }
  const all = answer.added + answer.removed + answer.changed, parts = ['added', 'removed', 'changed'].filter(kind => answer[kind]).map(kind => `${answer[kind].toLocaleString('en')} ${kind}`);
  sum.textContent = parts.length ? `Rows: ${parts.join(', ')}` : answer.system.length ? 'No row differs; the system prompt does' : 'Nothing differs';
  if (!more && answer.system.length) {
    const system = node('article');
    system.append(node('h3', 'System prompt of the project'), piecesNode(answer.system));
    changes.append(system);
  }
  changes.append(...answer.shown.map(changeNode));
  shownChanges += answer.shown.length;
  box.querySelector('[data-act=more-changes]').hidden = shownChanges >= all || !answer.shown.length;
  if (!more) box.scrollIntoView({block: 'nearest'});
}

async function restore(name) {
  dialog.querySelector('.g-v-said').textContent = 'Going back …';
  const answer = await call(dialog, 'restore_version', name);
  dialog.querySelector('.g-v-said').textContent = answer.said ?? '';
  if (!tell(dialog, answer)) return;
  await list();
  await after(answer);
}

dialog.querySelector('.g-v-new').addEventListener('submit', async event => {
  event.preventDefault();
  const answer = await call(dialog, 'name_version', pick('version').value);
  dialog.querySelector('.g-v-said').textContent = answer.said ?? '';
  if (!tell(dialog, answer)) { pick('version').focus(); return; }
  pick('version').value = '';
  await list();
});
dialog.addEventListener('change', event => { if (event.target.matches('[name=before], [name=after]')) compare(); });

// --- buttons and keys

const DO = {
  find: openReplace, versions: openVersions, 'replace-all': replaceAll,
  'cancel-look': () => { looking += 1; found = null; draw('Not looked at.'); },
  shut: button => button.closest('dialog').close(),
  compare: button => { pick('before').value = button.dataset.version; pick('after').value = ''; compare(); },
  restore: button => restore(button.dataset.version),
  'more-changes': () => compare(true),
  'more-log': () => { lines += 4 * LOG_PAGE; list(); },
};
element.addEventListener('click', event => {
  const button = event.target.closest('button[data-act]');
  if (button && DO[button.dataset.act]) { button.closest('details.ft-menu')?.removeAttribute('open'); DO[button.dataset.act](button); }
  else if (event.target.matches('dialog.g-dialog')) event.target.close();  // beside it
});
for (const one of [replace, dialog]) one.addEventListener('keydown', event => {
  if (event.key === 'Escape') { event.preventDefault(); one.close(); }
  event.stopPropagation();  // the rows behind it hear nothing
});
element.addEventListener('keydown', event => {
  if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === 'h') { event.preventDefault(); openReplace(); }
});
})();
