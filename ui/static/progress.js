// How far a training is, in the title of the page; and a word from the browser when it ends, if the person asked for it.
(() => {
  const WORDS = {finished: 'The training is finished', failed: 'The training failed', stopped: 'The training is stopped', interrupted: 'The training broke off'};
  const title = document.title || 'FT Flow';
  let was = '';

  const wanted = () => localStorage.getItem('ft-tell') === 'yes' && window.Notification?.permission === 'granted';
  const mark = () => document.body.classList.toggle('ft-tells', wanted());

  function look() {
    const way = document.querySelector('.ft-way');
    if (!way) return;
    const {training = '', step, total} = way.dataset, runs = training === 'running' && +total > 0;
    const now = runs ? `${step}/${total} · ${title}` : title;
    if (document.title !== now) document.title = now;
    if (['running', 'queued'].includes(was) && WORDS[training] && wanted()) {
      const change = way.querySelector('[data-tab=train] small')?.textContent ?? '';
      try { new Notification(WORDS[training], {body: training === 'finished' ? change : '', tag: 'ft-flow'}); }
      catch { /* Chrome on Android has them for service workers alone; the title still says it */ }
    }
    was = training;
  }

  document.addEventListener('click', async event => {
    const asks = event.target.closest('[data-tell]');
    if (!asks) return;
    if (asks.dataset.tell === 'yes' && await window.Notification?.requestPermission() !== 'granted') {
      asks.textContent = 'The browser does not allow messages from here';
      asks.disabled = true;
      return;
    }
    localStorage.setItem('ft-tell', asks.dataset.tell);
    mark();
  });

  const start = () => {
    mark();
    new MutationObserver(look).observe(document.body, {childList: true, subtree: true});
    look();
  };
  document.readyState === 'loading' ? document.addEventListener('DOMContentLoaded', start) : start();
})();
