// The pages of docs/recipes.md, in Chromium.
import assert from 'node:assert/strict';
import fs from 'node:fs/promises';
import {after, afterEach, before, beforeEach, it} from 'node:test';
import {pageOf, recipe} from '../support/recipes.mjs';
import {SOURCE, Server, launch, open, run, until} from './support.mjs';

let server, browser, context;

before(async () => {
  [server, browser] = await Promise.all([Server.start(), launch()]);
  await fs.mkdir(`${server.root}/www/js`);
  for (const [name, file] of Object.entries({
    htmx: 'htmx.org/dist/htmx.min.js', alpine: 'alpinejs/dist/cdn.min.js', jquery: 'jquery/dist/jquery.min.js',
  })) await fs.copyFile(`${SOURCE}/tests/node_modules/${file}`, `${server.root}/www/js/${name}.min.js`);
});

beforeEach(async () => {
  context = await browser.newContext();
});

afterEach(async () => {
  await context.close();
  await server.empty();
});

after(async () => {
  await browser?.close();
  await server?.close();
});

const shell = name => run('sh', ['-ec', recipe(name, server.url)]);
const orders = text => server.serve('orders.html', `<tr><td>${text}`);

/** Opens the page of a recipe. */
async function show(name) {
  await server.serve(`${name}.html`, pageOf(name));
  const page = await open(context, `${server.url}/${name}.html`);
  await page.waitForFunction(() => NovComet.state === 'waiting');
  return page;
}

/** Waits until an element of a page without mistakes has this text. */
async function reads(page, selector, text) {
  const has = () => page.locator(selector).allTextContents();
  await until(async () => (await has()).join('|') === text, `'${text}' in ${selector}`)
    .catch(async error => assert.fail(`${error.message}; it has '${(await has()).join('|')}'`));
  assert.deepEqual(page.mistakes, []);
}

it('each toast goes after its time', async () => {
  await context.clock.install();
  const page = await show('toast');
  await server.publish('toast', 'Saved.');
  await reads(page, '#toasts p', 'Saved.');
  await context.clock.fastForward(3000);
  await server.publish('toast', 'Sent.');
  await reads(page, '#toasts p', 'Saved.|Sent.');
  await context.clock.fastForward(3000);
  await reads(page, '#toasts p', 'Sent.');
});

it('progress bar follows a job, also of a page that opens later', async () => {
  const early = await show('progress');
  const values = await early.evaluateHandle(() => {
    const values = [];
    NovComet.listen('job/7', (k, {data}) => values.push(data));
    return values;
  });
  await shell('job');
  await early.waitForFunction(() => bar.value === 100);
  assert.deepEqual(await values.jsonValue(), ['25', '50', '75', '100']);
  const late = await show('progress');
  await late.waitForFunction(() => bar.value === 100);
});

it('table shows the rows after each change and after an interruption', async () => {
  await orders('one');
  const page = await show('table');
  await reads(page, '#orders td', 'one');
  await orders('two');
  await shell('table-change');
  await reads(page, '#orders td', 'two');
  await context.setOffline(true);
  await page.waitForFunction(() => NovComet.state === 'offline');
  await orders('three');
  await context.setOffline(false);
  await reads(page, '#orders td', 'three');
});

it('table ignores an answer that is late', async () => {
  await orders('one');
  const page = await show('table');
  await reads(page, '#orders td', 'one');
  let answerLate;
  await page.route('**/orders.html', route => { answerLate = () => route.fulfill({body: '<tr><td>late'}); }, {times: 1});
  await server.publish('orders');
  await until(() => answerLate, 'the page asks');
  await orders('two');
  await server.publish('orders');
  await reads(page, '#orders td', 'two');
  const late = page.waitForResponse('**/orders.html');
  await answerLate();
  await (await late).finished();
  await page.evaluate(() => fetch('/orders.html').then(answer => answer.text()));
  await reads(page, '#orders td', 'two');
});

it('chat reaches everybody, and a newcomer sees what was said', async () => {
  const [one, other] = [await show('chat'), await show('chat')];
  await one.fill('input', '<b>Hello');
  await one.press('input', 'Enter');
  await other.fill('input', 'Hello, too');
  await reads(other, '#log li', 'Alice: <b>Hello');
  await other.click('button');
  for (const page of [one, other, await show('chat')]) await reads(page, '#log li', 'Alice: <b>Hello|Alice: Hello, too');
});

it('SharedWorker of a page listens', async () => {
  await server.serve('worker.js', recipe('shared-worker'));
  await server.serve('shared-worker-page.html', recipe('head').replace(/<script>.*/, '') + recipe('shared-worker-page'));
  await server.publish('news', 'It works.');
  const page = await open(context, `${server.url}/shared-worker-page.html`);
  await reads(page, '#news', 'It works.');
  await server.publish('news', 'Again.');
  await reads(page, '#news', 'Again.');
});

it('service worker publishes, and lets the client pass', async () => {
  await server.serve('sw.js', recipe('service-worker'));
  const page = await show('service-worker-page');
  await page.evaluate(() => navigator.serviceWorker.ready);
  await page.reload();
  await page.waitForFunction(() => NovComet.state === 'waiting' && navigator.serviceWorker.controller);
  await page.click('#publish');
  await reads(page, '#news', 'Hello.');
});

it('webhook is heard', async () => {
  const page = await show('webhook-page');
  const body = JSON.stringify({repository: 'novcomet', status: 'deployed'});
  const url = recipe('webhook', server.url).trim();
  const answer = await fetch(url, {method: 'POST', headers: {'Content-Type': 'application/json'}, body});
  assert.equal(answer.status, 200);
  await reads(page, '#deploys li', 'novcomet: deployed');
});

it('htmx gets a fragment after each event', async () => {
  // Without Cache-Control a browser may take a file for fresh, here for 0.1 s. A route switches its cache off.
  await context.route('**/orders.html', route => route.continue());
  await orders('one');
  const page = await show('htmx');
  await reads(page, 'div', 'one');
  await orders('two');
  await server.publish('orders');
  await reads(page, 'div', 'two');
});

for (const name of ['alpine', 'jquery']) {
  it(`${name} shows the newest message`, async () => {
    await server.publish('news', 'It works.');
    const page = await show(name);
    await reads(page, 'p', 'It works.');
    await server.publish('news', 'Again.');
    await reads(page, 'p', 'Again.');
  });
}

it('alpine removes the callback with the element', async () => {
  const page = await show('alpine');
  await page.evaluate(() => document.querySelector('p').remove());
  await page.waitForFunction(() => NovComet.state === 'stopped');
});
