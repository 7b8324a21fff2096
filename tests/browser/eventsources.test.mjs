// The clients of event streams in other languages. What one gets wrong by itself stands in docs/troubleshooting.md,
// and here: so that table is true.
import assert from 'node:assert/strict';
import fs from 'node:fs/promises';
import {after, before, describe, it} from 'node:test';
import {CLIENTS, END, inPython} from './eventsources.mjs';
import {SOURCE, Server} from './support.mjs';

/** Each message, and what a client hears that does as it should. */
const TOLD = {
  'an emoji': '🎉 grüße', 'a lone CR': 'a\rb', CRLF: 'a\r\nb', LF: 'a\nb', 'an empty message': '', 'a leading blank': ' x',
  'a leading BOM': '\uFEFFx', 'U+2028': 'a\u2028b', 'U+0085': 'a\u0085b', 'a form feed': 'a\fb',
  '64 KiB in one line': 'x'.repeat(65536), end: END,
};
const heardBy = text => text.replace(/\r\n?/g, '\n');

/** What a client gets wrong. `start`: it takes the `id:` at the start for an empty message. */
const WRONG = {
  sseclient: ['start', 'U+2028', 'U+0085', 'a form feed', '64 KiB in one line'],
  'httpx-sse': ['start'],
  'aiohttp-sse-client': ['a leading blank'],
  '@microsoft/fetch-event-source': ['start', 'a leading BOM'],
};

/** Whether it keeps the last `id` of so many topics. */
const TOPICS = 20;

describe('a client of event streams', {concurrency: true}, () => {
  let server, url, python;

  before(async () => {
    server = await Server.start('lighttpd', {NOVCOMET_MAX_WAITERS_PER_ADDRESS: 0});
    for (const text of Object.values(TOLD)) await tell(text);
    const others = Array.from({length: TOPICS - 1}, (_, i) => `subscribed[t${i}]=0&`).join('');
    url = `${server.url}/comet.cgi?${others}subscribed[story]=earliest&named=0&wait=20`;
    python = inPython(url);
  });

  after(() => server?.close());

  async function tell(text) {
    if (text === '') return server.publish('story', text);    // an empty body is no message
    const headers = {'Content-Type': 'text/plain'};
    const answer = await fetch(`${server.url}/comet.cgi?publish=story`, {method: 'POST', body: text, headers});
    assert.equal(answer.status, 200, await answer.text());
  }

  /** Hears every message, except for what it gets wrong. */
  function check(client, heard, {has = heardBy} = {}) {
    const wrong = WRONG[client] ?? [];
    if (wrong.includes('start')) assert.equal(heard.shift()[0], '');
    assert.equal(heard.length, Object.keys(TOLD).length);
    Object.entries(TOLD).forEach(([name, text], i) => {
      assert.equal(heard[i][0] === has(text), !wrong.includes(name), `${client}: ${name}`);
    });
    const ids = heard.map(([, id]) => id);
    assert.ok(ids.every(id => !id === !ids[0]));
    if (ids[0]) assert.match(ids.at(-1), new RegExp(`^(?:255s-){${TOPICS - 1}}\\w{10}$`));
  }

  const isOld = parseInt(process.versions.node) < 20;
  for (const [client, read] of Object.entries(CLIENTS)) {
    it(client, {skip: client === 'eventsource 4' && isOld && 'it needs Node.js 20'}, async () => check(client, await read(url)));
  }

  it('of Python', async () => {
    for (const {client, heard, error} of await python) {
      assert.equal(error, null, client);
      // The messages of `stream=json` are JSON, which keeps each character.
      check(client, heard, client === 'requests' ? {has: text => text} : {});
    }
  });

  it('has its faults in the documents', async () => {
    const text = await fs.readFile(`${SOURCE}/docs/troubleshooting.md`, 'utf8');
    const rows = Object.fromEntries([...text.matchAll(/^\| `([^`]+)` \| ([^|]+) \|/gm)].map(([, name, faults]) => [name, faults]));
    const documented = name => rows[name]?.split('; ').map(fault => fault.trim());
    for (const [client, faults] of Object.entries(WRONG)) assert.deepEqual(documented(client), faults, client);
  });
});
