// What the pages can do without: fresh figures, countdowns, times of one's own
// zone on request. Everything else works without it.
'use strict';
(() => {
  const pad = (n) => String(n).padStart(2, '0');

  // Time left until a moment: <time data-countdown datetime="...">.
  const countdowns = () => {
    const now = Date.now();
    for (const el of document.querySelectorAll('time[data-countdown]')) {
      const left = Math.ceil((Date.parse(el.dateTime) - now) / 1000);
      let text = 'due now';
      if (left > 0) {
        const h = Math.floor(left / 3600), m = Math.floor(left / 60) % 60, s = left % 60;
        text = 'in ' + (h ? h + ':' + pad(m) + ':' + pad(s) : m ? m + ':' + pad(s) + ' min' : s + ' s');
      }
      if (el.textContent !== text) el.textContent = text;
    }
  };
  countdowns();
  setInterval(countdowns, 500);

  // Fresh figures: elements with data-live and an id are taken anew from the
  // same page every so many seconds, while somebody looks at it.
  const every = Number(document.body.dataset.refresh || 0) * 1000;
  let busy = false;
  const refresh = async () => {
    if (busy || document.hidden) return;
    busy = true;
    try {
      const res = await fetch(location.href, { headers: { Accept: 'text/html' }, credentials: 'same-origin' });
      if (!res.ok || !(res.headers.get('Content-Type') || '').startsWith('text/html')) return;
      const doc = new DOMParser().parseFromString(await res.text(), 'text/html');
      for (const el of document.querySelectorAll('[data-live][id]')) {
        const fresh = doc.getElementById(el.id);
        if (!fresh || el.contains(document.activeElement) || el.matches(':hover') && el.dataset.live === 'calm') continue;
        const open = [...el.querySelectorAll('details[id][open]')].map((d) => d.id);
        el.replaceWith(fresh);
        for (const id of open) document.getElementById(id)?.setAttribute('open', '');
      }
      countdowns();
    } catch { /* away: the next time */ } finally { busy = false; }
  };
  if (every) {
    setInterval(refresh, every);
    document.addEventListener('visibilitychange', () => document.hidden || refresh());
  }

  // A login link carries the token behind the #, which no server or log sees.
  const login = document.getElementById('login');
  const byLink = () => {
    if (location.hash.length < 2) return;
    login.elements.token.value = decodeURIComponent(location.hash.slice(1));
    history.replaceState(null, '', location.pathname + location.search);
    login.submit();
  };
  if (login) {
    byLink();
    window.addEventListener('hashchange', byLink); // pasted where this page is open already
  }

  // What cannot be taken back is asked for once more.
  document.addEventListener('submit', (e) => {
    const ask = e.submitter?.dataset.ask || e.target.dataset.ask;
    if (ask && !confirm(ask)) e.preventDefault();
  });

  // "/" goes to the search field.
  document.addEventListener('keydown', (e) => {
    if (e.key === '/' && !e.ctrlKey && !e.metaKey && !e.altKey && !/^(INPUT|TEXTAREA|SELECT)$/.test(document.activeElement.tagName)) {
      document.getElementById('q')?.focus();
      e.preventDefault();
    }
  });
})();
