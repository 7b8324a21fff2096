// The client in Chromium, through Apache as it is shipped, by each transport.
import assert from 'node:assert/strict';
import {after, afterEach, before, beforeEach, describe, it} from 'node:test';
import {setTimeout as sleep} from 'node:timers/promises';
import {Proxy, Server, asks, gets, launch, listen, messages, open, state, until} from './support.mjs';

let server, browser, context;

before(async () => {
  server = await Server.start('apache');
  browser = await launch();
});

beforeEach(async () => { context = await browser.newContext(); });

afterEach(async () => {
  const mistakes = context.pages().flatMap(page => page.mistakes ?? []);
  await context.close();
  await server.empty();
  assert.deepEqual(mistakes, []);
});

after(async () => {
  await browser?.close();
  await server?.close();
});

for (const transport of ['auto', 'poll']) {
  describe(`failures, by ${transport}`, () => {
    it('events during a server restart arrive', async () => {
      const page = await listen(context, server, transport);
      await server.publish('a', 'before');
      await gets(page, 'before');
      await asks(page);
      await server.stop();
      await state(page, 'offline');
      await server.publishBeside('a', 'one');
      await server.publishBeside('a', 'two');
      await server.start();
      await gets(page, 'before', 'one', 'two');
      await state(page, 'waiting');
      await server.publish('b', 'after');
      await gets(page, 'before', 'one', 'two', 'after');
    });

    it('events while offline arrive', async () => {
      const page = await listen(context, server, transport);
      await context.setOffline(true);
      await state(page, 'offline');
      await server.publish('a', 'one');
      await context.setOffline(false);
      await gets(page, 'one');
      await state(page, 'waiting');
    });

    describe('through a proxy', () => {
      let proxy;
      beforeEach(async () => { proxy = await Proxy.start(server); });
      afterEach(() => proxy.close());

      it('broken connection loses no event', async () => {
        const page = await listen(context, proxy, transport);
        await server.publish('a', 'one');
        await gets(page, 'one');
        await asks(page);
        proxy.trouble = (request, response) => response.destroy();
        proxy.cut();
        await state(page, 'offline');
        await server.publish('a', 'two');
        proxy.trouble = null;
        await gets(page, 'one', 'two');
      });

      for (const [name, status, reason] of [['an error page', 502, '502'], ['a page for the login', 200, 'login']]) {
        it(`${name} from a proxy is retried`, async () => {
          const page = await listen(context, proxy, transport);
          await asks(page);
          proxy.trouble = (request, response) => response
            .writeHead(status, {'Content-Type': 'text/html'}).end('<!doctype html><h1>Not now</h1>');
          proxy.cut();
          await page.waitForFunction(reason => errors.some(error => error.includes(reason)), reason);
          await state(page, 'offline');
          await server.publish('a', 'one');
          proxy.trouble = null;
          await gets(page, 'one');
          await state(page, 'waiting');
        });
      }

      it('truncated answers are retried', async () => {
        const page = await listen(context, proxy, transport);
        await asks(page);
        let cuts = 0;
        proxy.trouble = (request, response) => {
          if (++cuts > 2) proxy.trouble = null;
          const stream = request.url.endsWith('stream=json');
          response.writeHead(200, {'Content-Type': stream ? 'text/event-stream' : 'application/json'});
          response.write(`${stream ? ': novcomet\ndata: ' : ''}{"s":1,"k":{"cust`, () => response.destroy());
        };
        proxy.cut();
        await until(() => cuts > 2);
        await server.publish('a', 'one');
        await gets(page, 'one');
      });

      it('Retry-After delays the retry', async () => {
        const page = await listen(context, proxy, transport);
        await asks(page);
        proxy.trouble = (request, response) => {
          proxy.trouble = null;
          response.writeHead(503, {'Content-Type': 'application/problem+json', 'Retry-After': '2'})
            .end(JSON.stringify({title: 'Service Unavailable', detail: 'come back later', status: 503}));
        };
        proxy.cut();
        await page.waitForFunction(() => errors.includes('come back later'));
        const {length} = proxy.requests;
        await state(page, 'waiting');
        assert.ok(proxy.requests[length].at - proxy.requests[length - 1].at >= 2000);
      });
    });
  });

  describe(`page lifecycle, by ${transport}`, () => {
    it('page restored from cache continues', async () => {
      await server.serve('elsewhere.html', '<!doctype html><title>elsewhere</title>');
      const page = await listen(context, server, transport);
      await page.evaluate(() => {
        addEventListener('pageshow', ({persisted}) => { window.persisted = persisted; });
      });
      await server.publish('a', 'one');
      await gets(page, 'one');
      await asks(page);
      await page.goto(`${server.url}/elsewhere.html`);
      await server.publish('a', 'two');
      await page.evaluate(() => { history.back(); });
      await page.waitForURL(/client\.html/, {waitUntil: 'commit'});
      await gets(page, 'one', 'two');
      assert.equal(await page.evaluate(() => window.persisted), true);
      await state(page, 'waiting');
      await server.publish('a', 'three');
      await gets(page, 'one', 'two', 'three');
    });

    it('resumed tab receives missed events', async () => {
      const page = await listen(context, server, transport);
      await asks(page);
      const tab = await context.newCDPSession(page);
      await tab.send('Page.setWebLifecycleState', {state: 'frozen'});
      await server.publish('a', 'one');
      await tab.send('Page.setWebLifecycleState', {state: 'active'});
      await gets(page, 'one');
      await state(page, 'waiting');
    });

    it('run receives missed events', async () => {
      const page = await listen(context, server, transport);
      await page.evaluate(() => { client.stop(); });
      await server.publish('a', 'one');
      await server.publish('a', 'two');
      await page.evaluate(() => { client.run(); });
      await gets(page, 'one', 'two');
    });

    it('changing topics loses no message', async () => {
      const page = await listen(context, server, transport);
      for (let i = 0; i < 20; i++) {
        await page.evaluate(i => {
          i % 2 ? client.unsubscribe('c') : client.subscribe('c', () => {});
        }, i);
        await server.publish('a', `${i}`);
      }
      await gets(page, ...Array.from({length: 20}, (_, i) => `${i}`));
    });
  });
}

describe('repeated immediate answers', () => {
  const answers = {
    'no events': () => ({s: 0, k: {a: 5.5, b: 5.5}}),
    'new events': now => ({s: 1, k: {a: now, b: 5.5}}),
  };
  for (const [name, answer] of Object.entries(answers)) {
    it(`${name}: requests keep to the limit`, async () => {
      const proxy = await Proxy.start(server);
      let cursor = 6.5;
      proxy.trouble = (request, response) => response
        .writeHead(200, {'Content-Type': 'application/json'}).end(JSON.stringify(answer(cursor++)));
      const page = await listen(context, proxy, 'poll');
      const began = proxy.requests[0].at, enough = name.includes('new') ? 26 : 6;
      await until(() => proxy.requests.length >= enough);
      const bound = 11 + (performance.now() - began) / 1e3 * 4;
      assert.ok(proxy.requests.length <= bound, `${proxy.requests.length} requests, ${bound} allowed`);
      await state(page, 'waiting');
      await proxy.close();
    });
  }
});

describe('auto', () => {
  let proxy;
  beforeEach(async () => { proxy = await Proxy.start(server); });
  afterEach(() => proxy.close());

  /** Publishes 0, 1, 2 … until `done`, and a few more, within the number that is kept. Resolves to all. */
  const number = async done => {
    const sent = [];
    for (let more = 0; more < 20; more += done(), await sleep(10)) {
      sent.push(`${sent.length}`);
      await server.publish('a', sent.at(-1));
    }
    return sent;
  };

  const steppedDown = page => page.asked.includes('wait=60');

  it('clear path uses a stream', async () => {
    const page = await listen(context, proxy);
    await server.publish('a', 'one');
    await gets(page, 'one');
    await server.publish('b', 'two');
    await gets(page, 'one', 'two');
    assert.deepEqual(page.asked, ['wait=0', 'stream=json']);
  });

  it('buffering proxy switches to polls', async () => {
    proxy.buffering = true;
    const page = await listen(context, proxy);
    const sent = await number(() => steppedDown(page));
    await gets(page, ...sent);
    assert.deepEqual(page.asked.slice(0, 4), ['wait=0', 'stream=json', 'wait=0', 'wait=60']);
    assert.ok(!page.asked.slice(4).includes('stream=json'));
    assert.deepEqual(await page.evaluate(() => errors), []);
  });

  it('online event returns to a stream', async () => {
    const page = await listen(context, proxy);
    await server.publish('a', 'first');
    await gets(page, 'first');
    assert.deepEqual(page.asked, ['wait=0', 'stream=json']);
    proxy.buffering = true;
    proxy.cut();
    const sent = ['first', ...await number(() => steppedDown(page))];
    await gets(page, ...sent);
    proxy.buffering = false;
    const before = page.asked.length;
    await page.evaluate(() => { dispatchEvent(new Event('online')); });
    sent.push(...await number(() => page.asked.slice(before).includes('stream=json')));
    await gets(page, ...sent);
    await server.publish('a', 'last');
    await gets(page, ...sent, 'last');
    assert.equal(page.asked.at(-1), 'stream=json');
  });

  it('server without streams switches to polls', async () => {
    proxy.rewrite = url => url.replace('stream=json', 'wait=60');
    const page = await listen(context, proxy);
    await asks(page);
    await server.publish('a', 'one');
    await gets(page, 'one');
    await server.publish('a', 'two');
    await gets(page, 'one', 'two');
    assert.deepEqual([...new Set(page.asked)], ['wait=0', 'stream=json', 'wait=60']);
    assert.ok(!page.asked.slice(2).includes('stream=json'));
  });
});

describe('a page', () => {
  const serve = async (name, script) => {
    await server.serve(name, `<!doctype html><title>${name}</title>${script}`);
    return open(context, `${server.url}/${name}`);
  };

  it('50 subscriptions receive their events', async () => {
    const page = await serve('fifty.html', `<script src="/novcomet/NovComet.js"></script><script>
      const heard = [];
      NovComet.init('/comet.cgi').on('state', state => { document.title = state; });
      for (let i = 0; i < 50; i++) NovComet.subscribe('topic ' + i, (k, {id, data}) => heard.push([id, data]));
      NovComet.run();
    </script>`);
    await page.waitForFunction(() => document.title === 'waiting');
    const all = Array.from({length: 50}, (_, i) => [`topic ${i}`, `${i}`]);
    await Promise.all(all.map(([id, data]) => server.publish(id, data)));
    await page.waitForFunction(() => heard.length === 50);
    assert.deepEqual((await page.evaluate(() => heard)).sort(), [...all].sort());
  });

  it('module with an own client receives', async () => {
    const page = await serve('module.html', `<script type="module">
      import NovComet, {Client} from '/novcomet/NovComet.mjs';
      window.heard = [];
      window.same = NovComet === globalThis.NovComet && Client === NovComet.Client;
      window.client = new Client('/comet.cgi')
        .on('state', state => { document.title = state; })
        .subscribe('customAlert', (k, event) => heard.push({k, event}))
        .run();
    </script>`);
    await page.waitForFunction(() => document.title === 'waiting');
    assert.equal(await page.evaluate(() => same), true);
    const {s, k: {customAlert: cursor}} = await page.evaluate(() => client.publish('customAlert', 'one'));
    assert.equal(s, 1);
    await page.waitForFunction(() => heard.length === 1);
    assert.deepEqual(await page.evaluate(() => heard), [
      {k: {customAlert: cursor}, event: {id: 'customAlert', cursor, data: 'one', gap: false}},
    ]);
  });

  it('publishes beyond the keepalive limit arrive', async () => {
    const page = await listen(context, server);
    const sent = Array.from({length: 12}, (_, i) => `${i} `.padEnd(20e3, '.'));
    await page.evaluate(sent => Promise.all(sent.map(data => client.publish('a', data))), sent);
    await until(async () => (await messages(page)).length === sent.length);
    assert.deepEqual((await messages(page)).sort(), [...sent].sort());
  });

  it('publish on navigation arrives', async () => {
    const page = await listen(context, server);
    await server.serve('leave.html', `<!doctype html><title>leave</title>
      <script src="/novcomet/NovComet.js"></script>
      <a href="whose" onclick="NovComet.init('/comet.cgi').publish('a', 'gone')">go</a>`);
    const leaver = await context.newPage();
    for (let i = 1; i <= 5; i++) {
      await leaver.goto(`${server.url}/leave.html`);
      await leaver.click('a');
      await gets(page, ...Array(i).fill('gone'));
    }
  });

  it('callback exception reaches window.onerror', async () => {
    const page = await serve('throws.html', `<script src="/novcomet/NovComet.js"></script><script>
      const heard = [], seen = [];
      addEventListener('error', event => { seen.push(event.message); event.preventDefault(); });
      NovComet.init('/comet.cgi').on('state', state => { document.title = state; })
        .subscribe('customAlert', () => { heard.push(1); throw new Error('bang'); }).run();
    </script>`);
    await page.waitForFunction(() => document.title === 'waiting');
    for (let i = 1; i <= 2; i++) {
      await server.publish('customAlert');
      await page.waitForFunction(i => heard.length === i && seen.length === i, i);
    }
    page.mistakes = [];
  });
});
