// Uses the console as a person does, one step on each page, and tells the test
// what it saw. The test puts it into every page.
'use strict';
(() => {
  const tell = (what, body) => fetch('/driver/' + what, { method: 'POST', body: String(body ?? '') });
  document.addEventListener('securitypolicyviolation', (e) => tell('fail', 'policy: ' + e.violatedDirective + ' ' + e.blockedURI));
  addEventListener('error', (e) => tell('fail', 'script: ' + e.message));
  const check = (ok, what) => { if (!ok) { tell('fail', location.pathname + ': ' + what); throw new Error(what); } };
  const tags = () => [...document.querySelectorAll('.head .tag')].map((t) => t.textContent);
  const next = (n) => sessionStorage.setItem('step', n);

  const steps = [
    () => { // logged in by the link's fragment
      check(document.querySelector('.who').textContent.includes('operator'), 'the link did not log in');
      check(document.querySelectorAll('svg.chart rect.hit').length === 120, 'no two charts of 60 minutes');
      document.getElementById('q').value = 'evt-42';
      next(1);
      document.querySelector('form.find').requestSubmit();
    },
    () => { // the only delivery of the event
      check(location.pathname === '/deliveries/dlv_42', 'the search did not lead to the delivery');
      check(document.querySelectorAll('article.attempt').length === 4, 'not four attempts');
      check(tags().includes('waiting'), 'state ' + tags());
      check(document.getElementById('payload').textContent.includes('<script>window.pwned = 1</script>'), 'the payload is not shown as text');
      check(!window.pwned && !document.querySelector('main script'), 'the payload was run');
      next(2);
      [...document.querySelectorAll('button')].find((b) => b.textContent === 'Retry now').click();
    },
    () => { // after the retry
      check(document.querySelector('.note.ok')?.textContent.includes('retry: done'), 'nothing said that it was done');
      check(document.querySelectorAll('article.attempt').length === 5, 'no fifth attempt');
      check(tags().includes('delivered'), 'state ' + tags());
      next(3);
      [...document.querySelectorAll('button')].find((b) => b.textContent === 'Replay…').click();
    },
    () => { // counted, not begun
      check(document.querySelector('#plan h2').textContent === '1 event to deliver again', 'counted: ' + document.querySelector('main').textContent);
      next(4);
      document.querySelector('button[value="begin"]').click();
    },
    () => {
      check(location.pathname === '/replays/r_9' && tags().includes('done'), 'no replay that is done, but ' + tags());
      next(5);
      location.href = '/replays';
    },
    () => {
      check(document.querySelectorAll('tbody tr').length === 2, 'not two replays');
      next(6);
      location.href = '/subscriptions';
    },
    () => {
      check(document.querySelectorAll('tbody tr').length >= 1, 'no subscription');
      next(7);
      location.href = '/subscriptions/erp';
    },
    () => {
      check(document.querySelector('time[data-countdown]')?.textContent.startsWith('in '), 'no countdown');
      next(8);
      window.confirm = () => true;
      document.querySelector('button[value="skip"]').click();
    },
    () => {
      check(document.querySelector('.note'), 'nothing said what came of it');
      next(9);
      location.href = '/deliveries';
    },
    () => { next(10); tell('done'); },
  ];
  addEventListener('load', () => {
    if (location.pathname === '/login') return;
    check(innerWidth <= 500, 'the window is not a phone: ' + innerWidth);
    check(document.documentElement.scrollWidth <= innerWidth, 'wider than the window: ' + document.documentElement.scrollWidth + ' > ' + innerWidth);
    check(document.title.endsWith('hookline') && document.querySelector('h1'), 'no title');
    steps[Number(sessionStorage.getItem('step') || 0)]?.();
  });
})();
