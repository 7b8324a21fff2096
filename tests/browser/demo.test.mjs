// The demo page in Chromium, through Apache as it is shipped.
import assert from 'node:assert/strict';
import {after, afterEach, before, beforeEach, describe, it} from 'node:test';
import {Proxy, Server, bothListen, heard, hears, launch, openDemo, run, until} from './support.mjs';

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

const say = async (page, text) => {
  await page.fill('#text', text);
  await page.getByRole('button', {name: 'Publish', exact: true}).click();
};

const subscribe = async (page, id) => {
  await page.fill('#id', id);
  await page.keyboard.press('Enter');
  await until(() => page.evaluate(id => [...document.querySelectorAll('#topics bdi')]
    .some(({textContent}) => textContent === id), id));
};

/**
 * A client gets its cursor by a request. Before the answer, it would miss an event that
 * happens while the server is stopped.
 */
const hasCursor = (page, id) => until(async () => {
  await server.publishBeside(id, 'before');
  return (await heard(page, id, 'stream')).length && (await heard(page, id, 'poll')).length;
}, `cursor of ${id}`);

const hearsTouch = async (page, id) => {
  const logs = await Promise.all(['stream', 'poll'].map(transport => heard(page, id, transport)));
  return logs.every(lines => lines.some(([, , message]) => message !== 'before'));
};

describe('two tabs', () => {
  it('click appears in both tabs', async () => {
    const one = await openDemo(context, server), two = await openDemo(context, server);
    await click(one, 'customAlert');
    await hears(two, 'customAlert');
    await hears(one, 'customAlert');
    for (const transport of ['stream', 'poll']) {
      await until(async () => /^from here, [\d.]+ ms$/.test((await heard(one, 'customAlert', transport))[0][1]));
      const [[, whence, message]] = await heard(two, 'customAlert', transport);
      assert.match(whence, /^from elsewhere(, \+[\d.]+ ms)?$/);
      assert.equal(message, undefined);
      assert.deepEqual(await heard(two, 'customAlert2', transport), []);
      assert.match(await one.locator(`[data-transport=${transport}] output`).textContent(), /^1 event, median [\d.]+ ms$/);
      assert.equal(await two.locator(`[data-transport=${transport}] output`).textContent(), '1 event');
    }
  });

  it('message appears in both tabs', async () => {
    const one = await openDemo(context, server), two = await openDemo(context, server);
    const texts = ['Hello', ' <b>€ ü</b> & ', 'x'.repeat(500)];
    for (const [i, text] of texts.entries()) {
      await say(one, text);
      for (const page of [one, two]) await hears(page, 'customAlert', i + 1);
    }
    for (const page of [one, two]) for (const transport of ['stream', 'poll']) {
      const shown = (await heard(page, 'customAlert', transport)).map(([, , message]) => message);
      assert.deepEqual(shown, [...texts].reverse());
    }
    await one.selectOption('#to', 'customAlert2');
    await say(one, 'to the other');
    await hears(two, 'customAlert2');
  });

  it('hidden tabs close their connections', async () => {
    const pages = [];
    for (let i = 0; i < 5; i++) {
      pages.push(await openDemo(context, server));
      await pages[i].evaluate(() => {
        Object.defineProperty(document, 'hidden', {get: () => window.away ?? false});
        window.hide = away => {
          window.away = away;
          document.dispatchEvent(new Event('visibilitychange'));
        };
      });
      if (i > 0) await pages[i - 1].evaluate(() => hide(true));
    }
    await say(pages[4], 'Hello');
    await hears(pages[4], 'customAlert');
    assert.deepEqual(await heard(pages[0], 'customAlert'), []);
    await pages[4].evaluate(() => hide(true));
    await pages[0].evaluate(() => hide(false));
    await hears(pages[0], 'customAlert');
  });

  it('every click appears', async () => {
    const one = await openDemo(context, server), two = await openDemo(context, server);
    for (let i = 1; i <= 10; i++) {
      await click(i % 2 ? one : two, 'customAlert2');
      await hears(one, 'customAlert2', i);
      await hears(two, 'customAlert2', i);
    }
    for (const page of [one, two]) assert.equal((await heard(page, 'customAlert2')).length, 10);
  });

  it('later topics of any name work', async () => {
    const one = await openDemo(context, server), two = await openDemo(context, server);
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
    assert.equal(await one.locator('.log img, #topics img').count(), 0);
  });
});

describe('the shell', () => {
  it('touch appears', async () => {
    const page = await openDemo(context, server);
    await server.touch('customAlert2');
    await hears(page, 'customAlert2');
  });

  it('shown commands work', async () => {
    const page = await openDemo(context, server);
    for (const id of ['customAlert', "it's 100%/day"]) {
      if (id !== 'customAlert') await subscribe(page, id);
      await page.selectOption('#which', id);
      const line = async kind => (await page.locator(`[data-line=${kind}] code`).textContent())
        .replace('/dev/shm', server.store);
      const before = (await heard(page, id)).length;
      await run('sh', ['-c', await line('curl')]);
      await hears(page, id, before + 1);
      assert.equal((await heard(page, id))[0][2], 'Hello from a shell');
      const waiter = run('sh', ['-c', await line('wait')]);
      await until(async () => await server.waiters(/subscribed\[[^&]*\]=0(\0|$)/));
      await run('sh', ['-c', await line('touch')]);
      await hears(page, id, before + 2);
      const answer = JSON.parse((await waiter).stdout);
      assert.deepEqual([answer.s, Object.keys(answer.k)], [1, [id]]);
      const {stdout} = await run('sh', ['-c', (await line('stream')).replace('stream=1', 'stream=1&wait=1')]);
      assert.match(stdout, /^: novcomet/);
      const [, event] = stdout.match(/^event: (.*)\nid: .*\ndata: Hello from a shell\n/m);
      assert.equal(event, id);
    }
  });

  it('commands can be copied', async () => {
    await context.grantPermissions(['clipboard-read', 'clipboard-write']);
    const page = await openDemo(context, server);
    await page.locator('[data-line=touch] button').click();
    await page.getByRole('button', {name: 'Copied'}).waitFor();
    assert.equal(await page.evaluate(() => navigator.clipboard.readText()), 'touch /dev/shm/customAlert.comet');
  });
});

describe('failures', () => {
  it('events during a server restart appear', async () => {
    const pages = [await openDemo(context, server), await openDemo(context, server)];
    for (const page of pages) {
      await subscribe(page, 'third');
      await hasCursor(page, 'third');
    }
    await server.stop();
    for (const page of pages) await page.locator('.state[data-state=offline]').first().waitFor();
    await server.publishBeside('customAlert', 'one');
    await server.touch('third');
    await server.start();
    for (const page of pages) {
      await hears(page, 'customAlert');
      await until(() => hearsTouch(page, 'third'), 'the touch');
      await bothListen(page);
      assert.deepEqual(await heard(page, 'customAlert2'), []);
      assert.equal(await page.locator('#trouble').textContent(), '');
    }
  });

  it('failed publish shows an error', async () => {
    const page = await openDemo(context, server);
    await context.setOffline(true);
    await click(page, 'customAlert');
    await until(() => page.locator('#trouble').textContent());
    await context.setOffline(false);
    await bothListen(page);
    await click(page, 'customAlert');
    await hears(page, 'customAlert');
  });

  it("server's reason is shown", async () => {
    const proxy = await Proxy.start(server), page = await openDemo(context, {page: `${proxy.url}/novcomet/`});
    proxy.trouble = (request, response) => response
      .writeHead(503, {'Content-Type': 'application/problem+json'})
      .end(JSON.stringify({title: 'Service Unavailable', detail: 'come back later', status: 503}));
    proxy.cut();
    await page.getByText(/^The (stream|poll): the server says: come back later$/).waitFor();
    proxy.trouble = null;
    await bothListen(page);
    assert.equal(await page.locator('#trouble').textContent(), '');
    await proxy.close();
  });
});

describe('navigation', () => {
  it('page restored from cache receives missed events', async () => {
    await server.serve('elsewhere.html', '<!doctype html><title>elsewhere</title>');
    const page = await openDemo(context, server);
    await page.evaluate(() => {
      addEventListener('pageshow', ({persisted}) => { window.persisted = persisted; });
    });
    await page.goto(`${server.url}/elsewhere.html`);
    await server.publish('customAlert', 'one');
    await page.evaluate(() => { history.back(); });
    await page.locator('.log').first().waitFor();
    assert.equal(await page.evaluate(() => window.persisted), true);
    await hears(page, 'customAlert');
    await bothListen(page);
    await click(page, 'customAlert2');
    await hears(page, 'customAlert2');
  });

  it('reloaded page works', async () => {
    const page = await openDemo(context, server);
    await page.goto(`${server.url}/client.html`);
    await page.goto(server.page);
    await bothListen(page);
    await click(page, 'customAlert');
    await hears(page, 'customAlert');
  });
});

describe('the demo page', () => {
  it('page requests only its own server', async () => {
    const page = await context.newPage(), hosts = new Set();
    page.on('request', request => hosts.add(new URL(request.url()).host));
    await page.goto(server.page);
    await bothListen(page);
    hosts.delete('');     // the icon, a data: URL
    assert.deepEqual([...hosts], [new URL(server.url).host]);
  });

  it('keyboard works', async () => {
    const page = await openDemo(context, server);
    const press = async (...keys) => { for (const key of keys) await page.keyboard.press(key); };
    const link = page.getByRole('button', {name: 'publish customAlert', exact: true});
    await link.focus();
    await press('Enter');
    await hears(page, 'customAlert');
    await press('Space');
    await hears(page, 'customAlert', 2);
    await page.focus('#text');
    await press('Enter');
    await hears(page, 'customAlert', 3);
    await page.focus('#id');
    await page.keyboard.type('mine');
    await press('Enter');
    await page.getByRole('button', {name: 'unsubscribe from mine'}).focus();
    await press('Enter');
    assert.equal(await page.locator('#topics li').count(), 2);
    assert.equal(await page.evaluate(() => document.activeElement.id), 'id');
  });

  it('Start receives missed events', async () => {
    const page = await openDemo(context, server);
    await page.getByRole('button', {name: 'Stop'}).click();
    await until(async () => await page.locator('.state[data-state=stopped]').count() === 2);
    await server.publish('customAlert');
    await page.getByRole('button', {name: 'Start'}).click();
    await hears(page, 'customAlert');
  });

  it('gap is shown, Clear empties one log', async () => {
    const page = await openDemo(context, server);
    await say(page, 'old');
    await hears(page, 'customAlert');
    await page.getByRole('button', {name: 'Stop'}).click();
    await server.empty();
    await server.publish('customAlert', 'new');
    await page.getByRole('button', {name: 'Start'}).click();
    await hears(page, 'customAlert', 2);
    assert.equal(await page.locator('.log em').count(), 2);
    await page.locator('[data-transport=stream]').getByRole('button', {name: 'Clear'}).click();
    assert.deepEqual(await heard(page, 'customAlert'), []);
    assert.equal((await heard(page, 'customAlert', 'poll')).length, 2);
  });

  for (const colorScheme of ['light', 'dark']) {
    it(`narrow ${colorScheme} page is readable`, async () => {
      const narrow = await browser.newContext({viewport: {width: 320, height: 640}, colorScheme});
      const page = await openDemo(narrow, server);
      await say(page, 'a message that needs more than one line on a narrow phone, and a_word_that_is_too_long_for_it');
      await hears(page, 'customAlert');
      assert.equal(await page.evaluate(() => document.documentElement.scrollWidth), 320);
      const ratio = await page.evaluate(contrast, ['body', '.publish', '.state', '.soft', '.log span', 'code']);
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
