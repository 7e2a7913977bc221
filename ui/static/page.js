// What the page does by itself: tabs by link, light and dark, copying, the form for a new project, the keys.
(() => {
  const tabButton = id => document.getElementById(`tab-${id}-button`) ||
    [...document.querySelectorAll('#tabs button[role=tab]')].find(b => b.textContent.trim().toLowerCase() === id);

  const actions = {
    tab: node => { tabButton(node.dataset.tab)?.click(); window.scrollTo({top: 0}); },
    theme: () => setTheme(document.body.classList.contains('dark') ? 'light' : 'dark'),
    'new': () => openNew(true),
    'new-close': () => openNew(false),
    'import': () => openBeside('import', true),
    'import-close': () => openBeside('import', false),
    'export': () => openBeside('give', true),
    'export-close': () => openBeside('give', false),
    pick: node => document.getElementById(node.dataset.input)?.click(),
    keys: () => document.getElementById('keys')?.showModal(),
    copy: async node => {
      const text = node.dataset.text ?? node.previousElementSibling?.textContent ?? '';
      try { await navigator.clipboard.writeText(text); } catch { copyOldWay(text); }
      const was = node.textContent;
      node.textContent = 'Copied';
      setTimeout(() => { node.textContent = was; }, 1500);
    },
  };

  function setTheme(name) {
    document.body.classList.toggle('dark', name === 'dark');
    localStorage.setItem('ft-theme', name);
  }

  // The header is drawn anew while a training runs; the form for a new project stays open until that one is.
  let newOpen = false, wanted = null;
  function openNew(open) {
    [newOpen, wanted] = [open, null];
    drawNew();
    if (open) document.querySelector('#new-project input')?.focus();
  }
  function drawNew() {
    const form = document.getElementById('new-project');
    if (newOpen && wanted && document.querySelector('.ft-project option[selected]')?.value === wanted) newOpen = false;
    if (form && form.hidden === newOpen) form.hidden = !newOpen;
  }
  new MutationObserver(drawNew).observe(document.documentElement, {
    subtree: true, attributes: true, attributeFilter: ['hidden', 'selected'],
  });

  // Import and export are beside the rows; one of them is open at a time.
  function openBeside(name, open) {
    for (const id of ['import', 'give']) { const one = document.getElementById(id); if (one) one.hidden = !(open && id === name); }
    const shown = name === 'import' && document.querySelector('#import-preview .ft-draft') || document.getElementById(name);
    if (open) { shown.scrollIntoView({block: 'nearest'}); shown.querySelector('h2')?.focus(); }
    else document.querySelector(`.g [data-page=${name === 'give' ? 'export' : 'import'}]`)?.focus();
  }
  document.addEventListener('submit', event => {  // what is taken needs no more ways
    if (event.target.closest('#import-preview')) document.getElementById('import').hidden = true;
  });

  // A file of rows comes by a request of its own, so that a refusal can be told where it was asked for.
  document.addEventListener('submit', async event => {
    const form = event.target.closest('form[data-get]');
    if (!form) return;
    const {shape, format, ...more} = Object.fromEntries(new FormData(form));
    const said = form.querySelector('[role=status]'), box = form.querySelector('.ft-error'), button = form.querySelector('[type=submit]');
    box.hidden = true;
    button.disabled = true;
    said.textContent = 'Writing the file …';
    try {
      const answer = await fetch(`${form.dataset.get}?${new URLSearchParams({...more, as: `${shape}.${format}`})}`);
      if (answer.ok) keepFile(await answer.blob(), answer.headers.get('Content-Disposition'), `rows.${format}`);
      else [box.querySelector('strong').textContent, box.querySelector('span').textContent] = (await answer.text()).split('\n');
      box.hidden = answer.ok;
      said.textContent = answer.ok ? 'It is among your downloads.' : '';
    } catch {
      said.textContent = 'The app does not answer; try again in a moment.';
    }
    button.disabled = false;
  });

  function keepFile(blob, disposition, name) {
    const plain = /filename="([^"]*)"/.exec(disposition ?? ''), coded = /filename\*=utf-8''([^;]*)/i.exec(disposition ?? '');
    const link = Object.assign(document.createElement('a'), {href: URL.createObjectURL(blob)});
    link.download = coded ? decodeURIComponent(coded[1]) : plain ? plain[1] : name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
  }

  // Files may be dropped where they are chosen.
  for (const kind of ['dragover', 'drop']) document.addEventListener(kind, event => {
    if (!event.target.closest?.('#import-ways') || !event.dataTransfer?.types.includes('Files')) return;
    event.preventDefault();
    const input = document.querySelector('input[type=file]#import-file, #import-file input[type=file], input[data-testid=import-file-upload-button]');
    if (kind === 'drop' && input) { input.files = event.dataTransfer.files; input.dispatchEvent(new Event('change', {bubbles: true})); }
  });

  function copyOldWay(text) {  // a page that is not served over https has no clipboard API
    const area = Object.assign(document.createElement('textarea'), {value: text});
    document.body.append(area);
    area.select();
    document.execCommand('copy');
    area.remove();
  }

  // A button that starts long work says so at once, before the app has answered.
  const STARTS = '#train, #export, #generate, #resume, #resume-generate, #stop, #stop-export, #stop-generate, [data-do=train-example]';
  document.addEventListener('click', event => {
    const starts = event.target.closest(STARTS);
    if (!starts) return;
    starts.classList.add('is-busy');
    setTimeout(() => starts.classList.remove('is-busy'), 2500);
  });

  document.addEventListener('click', event => {
    const node = event.target.closest('[data-page]');
    if (!node) return;
    event.preventDefault();
    actions[node.dataset.page]?.(node);
  });

  // "Start my own …" in the picker opens the form and leaves the picker where it was.
  document.addEventListener('change', event => {
    if (!event.target.matches('.ft-project select') || event.target.value !== '\nnew') return;
    event.stopImmediatePropagation();
    event.target.selectedIndex = Math.max(0, [...event.target.options].findIndex(o => o.defaultSelected));
    openNew(true);
  }, true);

  // The address names the project and the tab, so that a reload and a bookmark come back to them. A project that is
  // opened begins at the tab where it stands.
  function remember(named) {
    const address = new URL(location.href);
    for (const [name, value] of Object.entries(named)) {
      if (value) address.searchParams.set(name, value); else address.searchParams.delete(name);
    }
    history.replaceState(null, '', address);
  }
  document.addEventListener('change', event => {
    if (!event.target.matches('.ft-project select')) return;
    remember({project: event.target.value, tab: ''});
    openNew(false);
  });
  document.addEventListener('submit', event => {
    if (event.target.id !== 'new-project') return;
    wanted = event.target.elements.name.value.trim();
    remember({project: wanted, tab: ''});
    drawNew();
  });

  // The answer that draws the page chooses a tab too; who has chosen one before it came has chosen.
  let waits = 0;
  document.addEventListener('click', event => {
    const tab = /^tab-(.*)-button$/.exec(event.target.closest('#tabs button[role=tab]')?.id)?.[1];
    if (!tab) return;
    remember({tab});
    const isDrawn = () => document.querySelector('.ft-project select');
    if (waits || isDrawn()) return;
    waits = setInterval(() => {
      if (!isDrawn()) return;
      clearInterval(waits);
      waits = 0;
      tabButton(new URL(location.href).searchParams.get('tab'))?.click();
    }, 100);
  });

  document.addEventListener('keydown', event => {
    const typing = event.target.closest('input, textarea, select, [contenteditable]');
    if (event.key === '?' && !typing) actions.keys();
    if (event.key >= '1' && event.key <= '5' && event.altKey) {
      event.preventDefault();
      tabButton(['generate', 'data', 'train', 'compare', 'export'][event.key - 1])?.click();
    }
  });

  const asked = new URLSearchParams(location.search).get('__theme');
  const kept = localStorage.getItem('ft-theme');
  if (kept && !asked) {
    const apply = () => document.body.classList.toggle('dark', kept === 'dark');
    document.readyState === 'loading' ? document.addEventListener('DOMContentLoaded', apply) : apply();
    setTimeout(apply, 400);  // Gradio sets its own guess once it is mounted
  }
})();
