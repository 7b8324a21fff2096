// The same stories in each engine, through a server as it is shipped, over HTTP/1.1.
import assert from 'node:assert/strict';
import {once} from 'node:events';
import fs from 'node:fs/promises';
import http from 'node:http';
import {after, afterEach, before, beforeEach, describe, it} from 'node:test';
import {engines, launch} from './engines.mjs';
import {Server, until} from './support.mjs';

// As dynamic pages are sent.
const NO_STORE = {
  apache: `LoadModule headers_module \${MODULES}/mod_headers.so
    <Files "*.html">
        Header set Cache-Control no-store
    </Files>\n`,
  lighttpd: '$HTTP["url"] =~ "\\.html" { setenv.add-response-header = ("Cache-Control" => "no-store") }\n',
};
let browser, server, tabs;

/** A server of its own for each story, so no earlier subscriber waits there. */
async function serve(kind, lines = NO_STORE[kind]) {
  server = await Server.start(kind, {}, lines);
  await server.serve('engines.html', await fs.readFile(new URL('engines.html', import.meta.url)));
  await server.serve('elsewhere.html', '<!doctype html><title>elsewhere</title>');
}

/** Opens a tab, and waits until it listens. */
async function open(settings = {}) {
  const tab = await browser.open(`${server.url}/engines.html?${new URLSearchParams(settings)}`);
  tabs.push(tab);
  await until(() => tab.evaluate(() => client.state === 'waiting'), 'the tab listens');
  return tab;
}

async function openAll(number, settings) {
  const opened = [];
  while (opened.length < number) opened.push(await open({topics: `a,own${opened.length}`, ...settings}));
  return opened;
}

/** What a log of this tab has, in all its pages of the site. Nothing can be read while the tab goes to another page. */
const log = (tab, name) => tab.evaluate(name => JSON.parse(sessionStorage.getItem(name) ?? '[]'), name).catch(() => []);

/** Waits until the tab has heard these messages, each once and in this order. */
async function hears(tab, ...expected) {
  await until(async () => (await log(tab, 'heard')).length >= expected.length, `all of ${expected.length}`);
  assert.deepEqual(await log(tab, 'heard'), expected);
}

const allHear = async (tabs, ...expected) => {
  for (const tab of tabs) await hears(tab, ...expected);
};

const publish = (tab, id, data) => tab.evaluate((id, data) => client.publish(id, data), id, data);

const waits = (number = 1) => until(async () => await server.slots() === number, `${number} waits`);

const isAt = (tab, name) => until(() => tab.evaluate(name =>
  location.pathname === name && document.readyState === 'complete', `/${name}`).catch(() => false), `at ${name}`);

async function followLink(tab, target = '/elsewhere.html') {
  await tab.evaluate(href => Object.assign(document.querySelector('a'), {href}).click(), target);
  await isAt(tab, 'elsewhere.html');
}

/** A site that takes longer than a failure may last. It leads to our page, so the tab's logs can be read. */
async function slowSite() {
  const site = http.createServer((request, response) => {
    setTimeout(() => response.writeHead(302, {Location: `${server.url}/elsewhere.html`}).end(), 3e3);
  }).listen(0, '127.0.0.1');
  await once(site, 'listening');
  return {url: `http://127.0.0.1:${site.address().port}/`, close: () => site.close()};
}

/** The time of a request for the site, in ms. */
const request = tab => tab.evaluate(async () => {
  const began = performance.now();
  await fetch('/whose', {cache: 'no-store', signal: AbortSignal.timeout(10e3)}).catch(() => {});
  return performance.now() - began;
});

function inEngine(engine, stories) {
  before(async () => { browser = await launch(engine); });
  beforeEach(() => { tabs = []; });
  afterEach(async () => {
    const mistakes = await Promise.all(tabs.map(tab => log(tab, 'mistakes')));
    await Promise.all(tabs.map(tab => tab.close().catch(() => {})));
    await server.close();
    assert.deepEqual(mistakes.flat(), []);
  });
  after(() => browser?.close());
  stories();
}

/** Stories of many tabs. */
function together(settings) {
  it('twelve tabs: each hears, publishes and is answered', async test => {
    const twelve = await openAll(12, settings);
    await server.publish('a', 'to all');
    await allHear(twelve, 'to all');
    const expected = ['to all'], times = [];
    for (const tab of twelve) {
      expected.push(`by ${expected.length}`);
      await publish(tab, 'a', expected.at(-1));
      times.push(await request(tab));
    }
    await allHear(twelve, ...expected);
    await waits();
    const slowest = Math.round(Math.max(...times));
    test.diagnostic(`the slowest of twelve requests took ${slowest} ms`);
    assert.ok(slowest < 2000, `a request took ${slowest} ms`);
  });

  it('closed first tab: the others hear', async () => {
    const [first, ...others] = await openAll(3, settings);
    await server.publish('a', 'before');
    await allHear([first, ...others], 'before');
    await first.close();
    await server.publish('a', 'after');
    await allHear(others, 'before', 'after');
  });
}

for (const [engine, kind] of [...engines.map(engine => [engine, 'apache']), ['Firefox', 'lighttpd']]) {
  describe(`${engine}, ${kind}`, () => inEngine(engine, () => {
    beforeEach(() => serve(kind));

    for (const [transport, query] of Object.entries({stream: /stream=json/, poll: /wait=60/})) {
      it(`hears by ${transport}`, async () => {
        const tab = await open({transport});
        await until(() => server.waiters(query), transport);
        await server.publish('a', 'one');
        await server.publish('a', 'two');
        await hears(tab, 'one', 'two');
      });
    }

    it('messages arrive unchanged', async () => {
      const [one, two] = await openAll(2), all = ['👋🏽 Grüße, 日本', 'a=1&b=%41 + "c"\r\n\td', ''];
      for (const data of all) await publish(one, 'a', data);
      await allHear([one, two], ...all);
      await server.publish('a', all[0]);
      await allHear([one, two], ...all, all[0]);
    });

    for (const transport of ['auto', 'poll']) {
      it(`followed link is no failure, by ${transport}`, async () => {
        const tab = await open({transport});
        await waits();
        await followLink(tab);
        assert.deepEqual(await log(tab, 'alarms'), []);
      });
    }

    it('followed link to a slow site is no failure', async () => {
      const tab = await open(), site = await slowSite();
      await waits();
      await followLink(tab, site.url);
      site.close();
      assert.deepEqual(await log(tab, 'alarms'), []);
    });

    it('back button loses no event', async () => {
      const tab = await open({resume: 'session'});
      await server.publish('a', 'one');
      await hears(tab, 'one');
      await followLink(tab);
      await server.publish('a', 'two');
      await tab.back();
      await hears(tab, 'one', 'two');
      await server.publish('a', 'three');
      await hears(tab, 'one', 'two', 'three');
    });

    it('publishes without await arrive in order', async () => {
      const tab = await open();
      await tab.evaluate(async () => {
        for (let i = 0; i < 150; i += 5) {
          await Promise.all([0, 1, 2, 3, 4].map(j => client.publish('a', `${i + j}`)));
        }
      });
      await hears(tab, ...Array.from({length: 150}, (_, i) => `${i}`));
    });

    it('events during a server restart arrive', async () => {
      const tab = await open();
      await waits();
      await server.stop();
      await until(() => tab.evaluate(() => client.state === 'offline'));
      await server.publishBeside('a', 'one');
      await server.publishBeside('a', 'two');
      await server.start();
      await hears(tab, 'one', 'two');
    });

    together();
  }));
}

describe('Chromium without SharedWorker', () => inEngine('Chromium', () => {
  beforeEach(() => serve('apache'));
  together({without: 'SharedWorker'});
}));
