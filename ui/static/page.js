// What the page does by itself: tabs by link, light and dark, copying, the form for a new project, the keys.
(() => {
  const tabButton = id => document.getElementById(`tab-${id}-button`) ||
    [...document.querySelectorAll('#tabs button[role=tab]')].find(b => b.textContent.trim().toLowerCase() === id);

  const actions = {
    tab: node => { tabButton(node.dataset.tab)?.click(); window.scrollTo({top: 0}); },
    theme: () => setTheme(document.body.classList.contains('dark') ? 'light' : 'dark'),
    'new': () => openNew(true),
    'new-close': () => openNew(false),
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

  function openNew(open) {
    const form = document.getElementById('new-project');
    if (!form) return;
    form.hidden = !open;
    if (open) form.querySelector('input').focus();
  }

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

  // The address names the project, so that a reload and a bookmark come back to it.
  function remember(project) {
    const address = new URL(location.href);
    address.searchParams.set('project', project);
    history.replaceState(null, '', address);
  }
  document.addEventListener('change', event => {
    if (event.target.matches('.ft-project select')) remember(event.target.value);
  });
  document.addEventListener('submit', event => {
    if (event.target.id === 'new-project') remember(event.target.elements.name.value.trim());
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
