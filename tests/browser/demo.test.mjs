// The demo page in Chromium, through Apache as it is shipped.
import assert from 'node:assert/strict';
import {after, afterEach, before, beforeEach, describe, it} from 'node:test';
import {Proxy, Server, heard, hears, launch, open, polls, run, until, waiting} from './support.mjs';

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

const click = (page, id) => page.getByRole('button', {name: `publish ${id}`, exact: true}).click();

const subscribe = async (page, id) => {
  await page.fill('#id', id);
  await page.keyboard.press('Enter');
  await until(() => page.evaluate(id => [...document.querySelectorAll('#topics bdi')]
    .some(({textContent}) => textContent === id), id));
};

describe('two tabs', () => {
  it('a click in one is heard in both, and only the one that clicked knows how long it took', async () => {
    const one = await open(context, server.page), two = await open(context, server.page);
    await click(one, 'customAlert');
    await hears(two, 'customAlert');
    await hears(one, 'customAlert');
    assert.deepEqual(await heard(two, 'customAlert'), [['customAlert', 'from elsewhere']]);
    assert.match((await heard(one, 'customAlert'))[0][1], /^from here, [\d.]+ ms$/);
    assert.deepEqual(await heard(two, 'customAlert2'), []);
  });

  it('click after click is heard', async () => {
    const one = await open(context, server.page), two = await open(context, server.page);
    for (let i = 1; i <= 10; i++) {
      await click(i % 2 ? one : two, 'customAlert2');
      await hears(one, 'customAlert2', i);
      await hears(two, 'customAlert2', i);
    }
    for (const page of [one, two]) assert.equal((await heard(page, 'customAlert2')).length, 10);
  });

  it('what the other subscribes to later is heard too, whatever its name', async () => {
    const one = await open(context, server.page), two = await open(context, server.page);
    const ids = ['__proto__', 'a][b', 'Zürich €', '<img src=x onerror=alert(1)>', 'x&y=z', '100%', 'up/../down', "it's"];
    for (const id of ids) {
      await subscribe(one, id);
      await subscribe(two, id);
    }
    for (const id of ids) {
      await click(one, id);
      await hears(one, id);
      await hears(two, id);
    }
    assert.equal(await one.locator('#log img, #topics img').count(), 0);
  });
});

describe('the shell', () => {
  it('a touch is heard', async () => {
    const page = await open(context, server.page);
    await server.touch('customAlert2');
    await hears(page, 'customAlert2');
  });

  it('the lines that the page shows do what it says', async () => {
    const page = await open(context, server.page);
    for (const id of ['customAlert', "it's 100%/day"]) {
      if (id !== 'customAlert') await subscribe(page, id);
      await page.selectOption('#which', id);
      const line = async kind => (await page.locator(`[data-line=${kind}] code`).textContent())
        .replace('/dev/shm', server.store);
      const before = (await heard(page, id)).length;
      await run('sh', ['-c', await line('curl')]);
      await hears(page, id, before + 1);
      const waiter = run('sh', ['-c', await line('wait')]);
      await until(async () => await server.waiters(/subscribed\[[^&]*\]=0(\0|$)/));
      await run('sh', ['-c', await line('touch')]);
      await hears(page, id, before + 2);
      const answer = JSON.parse((await waiter).stdout);
      assert.deepEqual([answer.s, Object.keys(answer.k)], [1, [id]]);
    }
  });

  it('the lines can be copied', async () => {
    await context.grantPermissions(['clipboard-read', 'clipboard-write']);
    const page = await open(context, server.page);
    await page.locator('[data-line=touch] button').click();
    await page.getByRole('button', {name: 'Copied'}).waitFor();
    assert.equal(await page.evaluate(() => navigator.clipboard.readText()), 'touch /dev/shm/customAlert.comet');
  });
});

describe('trouble', () => {
  it('the server is stopped and started again: nothing published in between is lost', async () => {
    const pages = [await open(context, server.page), await open(context, server.page)];
    for (const page of pages) await subscribe(page, 'third');
    for (const page of pages) await polls(page);
    await server.stop();
    for (const page of pages) await page.locator('#state[data-state=offline]').waitFor();
    await server.touch('customAlert');
    await server.touch('third');
    await server.start();
    for (const page of pages) {
      await hears(page, 'customAlert');
      await hears(page, 'third');
      await waiting(page);
      assert.deepEqual(await heard(page, 'customAlert2'), []);
      assert.equal(await page.locator('#trouble').textContent(), '');
    }
  });

  it('the network goes and comes back', async () => {
    const page = await open(context, server.page);
    await context.setOffline(true);
    await page.locator('#state[data-state=offline]').waitFor();
    await server.publish('customAlert');
    await context.setOffline(false);
    await hears(page, 'customAlert');
    await waiting(page);
  });

  it('a publish that fails is said to have', async () => {
    const page = await open(context, server.page);
    await context.setOffline(true);
    await click(page, 'customAlert');
    await until(() => page.locator('#trouble').textContent());
    await context.setOffline(false);
    await waiting(page);
    await click(page, 'customAlert');
    await hears(page, 'customAlert');
  });

  describe('through a proxy', () => {
    let proxy;
    beforeEach(async () => { proxy = await Proxy.start(server); });
    afterEach(() => proxy.close());

    it('every connection is cut, in the middle of the wait', async () => {
      const page = await open(context, proxy.page);
      await polls(page);
      proxy.trouble = (request, response) => response.destroy();
      proxy.cut();
      await page.locator('#state[data-state=offline]').waitFor();
      await server.publish('customAlert');
      proxy.trouble = null;
      await hears(page, 'customAlert');
    });

    for (const [name, status] of [['an error page', 502], ['a page for the login', 200]]) {
      it(`it answers ${name} instead of JSON`, async () => {
        const page = await open(context, proxy.page);
        await polls(page);
        proxy.trouble = (request, response) => response
          .writeHead(status, {'Content-Type': 'text/html'}).end('<!doctype html><h1>Not now</h1>');
        proxy.cut();
        await until(async () => (await page.locator('#trouble').textContent()).includes(status === 200 ? 'JSON' : status));
        assert.equal(await page.locator('#state').getAttribute('data-state'), 'offline');
        await server.publish('customAlert2');
        proxy.trouble = null;
        await hears(page, 'customAlert2');
        await waiting(page);
      });
    }

    it('it cuts an answer short', async () => {
      const page = await open(context, proxy.page);
      await polls(page);
      let cuts = 0;
      proxy.trouble = (request, response) => {
        if (++cuts > 2) proxy.trouble = null;
        response.writeHead(200, {'Content-Type': 'application/json', 'Content-Length': 100});
        response.write('{"s":1,"k":{"customAl', () => response.destroy());
      };
      proxy.cut();
      await until(() => cuts > 2);
      await server.publish('customAlert');
      await hears(page, 'customAlert');
    });

    const answers = {
      'that all is as it was': () => ({s: 0, k: {customAlert: 5.5, customAlert2: 5.5}}),
      'that there is something new': now => ({s: 1, k: {customAlert: now, customAlert2: 5.5}}),
    };
    for (const [name, answer] of Object.entries(answers)) {
      it(`something answers ${name}, at once and for ever: at most ten requests, then four a second`, async () => {
        let cursor = 6.5;
        proxy.trouble = (request, response) => response
          .writeHead(200, {'Content-Type': 'application/json'}).end(JSON.stringify(answer(cursor++)));
        const page = await open(context, proxy.page);
        const began = proxy.requests[0].at, enough = name.includes('new') ? 26 : 6;
        await until(() => proxy.requests.length >= enough);
        const bound = 11 + (performance.now() - began) / 1e3 * 4;
        assert.ok(proxy.requests.length <= bound, `${proxy.requests.length} requests, ${bound} allowed`);
        assert.equal(await page.locator('#state').getAttribute('data-state'), 'waiting');
      });
    }

    it('and keeps to Retry-After', async () => {
      const page = await open(context, proxy.page);
      await polls(page);
      proxy.trouble = (request, response) => {
        proxy.trouble = null;
        response.writeHead(503, {'Content-Type': 'application/problem+json', 'Retry-After': '2'})
          .end(JSON.stringify({title: 'Service Unavailable', detail: 'come back later', status: 503}));
      };
      proxy.cut();
      await page.getByText('come back later').waitFor();
      const {length} = proxy.requests;
      await waiting(page);
      assert.ok(proxy.requests[length].at - proxy.requests[length - 1].at >= 2000);
    });
  });
});

describe('coming and going', () => {
  it('away and back, through the back/forward cache: what happened meanwhile is heard', async () => {
    await server.serve('elsewhere.html', '<!doctype html><title>elsewhere</title>');
    const page = await open(context, server.page);
    await page.evaluate(() => {
      window.kept = true;
      addEventListener('pageshow', ({persisted}) => { window.persisted = persisted; });
    });
    await polls(page);
    await page.goto(`${server.url}/elsewhere.html`);
    await server.touch('customAlert');
    await page.evaluate(() => { history.back(); });
    await page.locator('#log').waitFor();
    assert.equal(await page.evaluate(() => window.persisted), true);
    await hears(page, 'customAlert');
    await waiting(page);
    await click(page, 'customAlert2');
    await hears(page, 'customAlert2');
  });

  it('away and back, as a new page', async () => {
    await server.serve('elsewhere.html', '<!doctype html><title>elsewhere</title>');
    const page = await open(context, server.page);
    await page.goto(`${server.url}/elsewhere.html`);
    await page.goto(server.page);
    await waiting(page);
    await click(page, 'customAlert');
    await hears(page, 'customAlert');
  });

  it('a click on a link that leads away still publishes', async () => {
    const page = await open(context, server.page);
    await server.serve('leave.html', `<!doctype html><title>leave</title>
      <script src="/novcomet/NovComet.js"></script>
      <a href="whose" onclick="NovComet.init('/comet.cgi').publish('customAlert')">go</a>`);
    const leaver = await context.newPage();
    for (let i = 1; i <= 5; i++) {
      await leaver.goto(`${server.url}/leave.html`);
      await leaver.click('a');
      await hears(page, 'customAlert', i);
    }
  });

  it('a frozen tab thaws', async () => {
    const page = await open(context, server.page);
    await polls(page);
    const tab = await context.newCDPSession(page);
    await tab.send('Page.setWebLifecycleState', {state: 'frozen'});
    await server.publish('customAlert');
    await tab.send('Page.setWebLifecycleState', {state: 'active'});
    await hears(page, 'customAlert');
    await waiting(page);
  });
});

describe('a page', () => {
  const serve = async (name, script) => {
    await server.serve(name, `<!doctype html><title>${name}</title>${script}`);
    const page = await context.newPage();
    page.mistakes = [];
    page.on('pageerror', error => page.mistakes.push(error));
    await page.goto(`${server.url}/${name}`);
    return page;
  };

  it('with 50 subscriptions hears of each', async () => {
    const page = await serve('fifty.html', `<script src="/novcomet/NovComet.js"></script><script>
      const heard = [];
      NovComet.init('/comet.cgi').on('state', state => { document.title = state; });
      for (let i = 0; i < 50; i++) NovComet.subscribe('topic ' + i, (k, {id}) => heard.push(id));
      NovComet.run();
    </script>`);
    await page.waitForFunction(() => document.title === 'waiting');
    const all = Array.from({length: 50}, (_, i) => `topic ${i}`);
    await Promise.all(all.map(id => server.publish(id)));
    await page.waitForFunction(() => new Set(heard).size === 50);
    assert.deepEqual((await page.evaluate(() => heard)).sort(), [...all].sort());
  });

  it('that is a module hears, by a client of its own', async () => {
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
    assert.equal(await page.evaluate(() => client.publish('customAlert')), true);
    await page.waitForFunction(() => heard.length === 1);
    const [{k, event}] = await page.evaluate(() => heard);
    assert.deepEqual(k, {customAlert: event.cursor});
    assert.equal(event.id, 'customAlert');
  });

  it('whose callback throws goes on, and its window hears of the error', async () => {
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

describe('the demo page', () => {
  it('asks nothing of anybody but its own server', async () => {
    const page = await context.newPage(), hosts = new Set();
    page.on('request', request => hosts.add(new URL(request.url()).host));
    await page.goto(server.page);
    await waiting(page);
    hosts.delete('');     // the icon, a data: URL
    assert.deepEqual([...hosts], [new URL(server.url).host]);
  });

  it('works by the keyboard', async () => {
    const page = await open(context, server.page);
    const press = async (...keys) => { for (const key of keys) await page.keyboard.press(key); };
    const link = page.getByRole('button', {name: 'publish customAlert', exact: true});
    await link.focus();
    await press('Enter');
    await hears(page, 'customAlert');
    await press('Space');
    await hears(page, 'customAlert', 2);
    await page.focus('#id');
    await page.keyboard.type('mine');
    await press('Enter');
    await page.getByRole('button', {name: 'unsubscribe from mine'}).focus();
    await press('Enter');
    assert.equal(await page.locator('#topics li').count(), 2);
    assert.equal(await page.evaluate(() => document.activeElement.id), 'id');
  });

  it('stops and starts, and hears what was published in between', async () => {
    const page = await open(context, server.page);
    await page.getByRole('button', {name: 'Stop'}).click();
    await page.locator('#state[data-state=stopped]').waitFor();
    await server.publish('customAlert');
    await page.getByRole('button', {name: 'Start'}).click();
    await hears(page, 'customAlert');
  });

  for (const colorScheme of ['light', 'dark']) {
    it(`fits a narrow phone, and can be read in the ${colorScheme}`, async () => {
      const narrow = await browser.newContext({viewport: {width: 320, height: 640}, colorScheme});
      const page = await open(narrow, server.page);
      await click(page, 'customAlert');
      await hears(page, 'customAlert');
      assert.equal(await page.evaluate(() => document.documentElement.scrollWidth), 320);
      const ratio = await page.evaluate(contrast, ['body', '.publish', '#state', '.soft', '#log span', 'code']);
      for (const [selector, value] of Object.entries(ratio)) assert.ok(value >= 4.5, `${selector}: ${value}`);
      await narrow.close();
    });
  }
});

/** In the page: the contrast of text with what is behind it, by WCAG 2. */
function contrast(selectors) {
  const light = rgb => rgb.map(c => c / 255)
    .map(c => c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const parse = color => color.match(/[\d.]+/g).slice(0, 3).map(Number);
  const behind = node => {
    const {backgroundColor} = getComputedStyle(node);
    return /, 0\)$/.test(backgroundColor) ? behind(node.parentElement) : backgroundColor;
  };
  return Object.fromEntries(selectors.map(selector => {
    const node = document.querySelector(selector);
    node.getAnimations().concat(node.closest('li')?.getAnimations() ?? []).forEach(a => a.finish());
    const [a, b] = [getComputedStyle(node).color, behind(node)].map(c => light(parse(c))).sort((a, b) => b - a);
    return [selector, (a + 0.05) / (b + 0.05)];
  }));
}
