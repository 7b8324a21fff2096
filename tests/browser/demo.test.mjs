// The demo page in Chromium, through Apache as it is shipped.
import assert from 'node:assert/strict';
import fs from 'node:fs/promises';
import {createRequire} from 'node:module';
import {after, afterEach, before, beforeEach, describe, it} from 'node:test';
import jsqr from 'jsqr';
import {Proxy, Server, connected, heard, hears, launch, open, openDemo, run, say, subscribe, until, watch} from './support.mjs';

const axe = await fs.readFile(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
const PHONE = {width: 390, height: 844}, DESKTOP = {width: 1280, height: 800};
let server, browser, context;

before(async () => {
  server = await Server.start('apache');
  browser = await launch('--host-resolver-rules=MAP *.test 127.0.0.1');
});

beforeEach(async () => { context = await browser.newContext(); });

afterEach(async () => {
  const mistakes = browser.contexts().flatMap(context => context.pages()).flatMap(page => page.mistakes ?? []);
  await Promise.all(browser.contexts().map(context => context.close()));
  await server.empty();
  assert.deepEqual(mistakes, []);
});

after(async () => {
  await browser?.close();
  await server?.close();
});

/** The window that the page's button opens. */
const openAnother = async page => {
  const [other] = await Promise.all([context.waitForEvent('page'), page.getByRole('button', {name: 'Open another window'}).click()]);
  watch(other);
  await connected(other);
  return other;
};

const threeWindows = async () => {
  const page = await openDemo(context, server);
  return [page, await openAnother(page), await openAnother(page)];
};

const compare = async page => {
  await page.getByText('A stream or polls?').click();
  await connected(page, '#compare');
};

const text = (page, selector) => page.locator(selector).textContent();

/** Waits until the page has this line, and nothing in place of it. */
const hasText = (page, selector, expected) =>
  until(async () => expected.test(await text(page, selector)), `${selector} is ${expected}`);

describe('several windows', () => {
  it('message appears in each of three windows', async () => {
    const windows = await threeWindows(), texts = ['Hello', ' <b>€ ü</b> & ', 'x'.repeat(500)];
    for (const [i, text] of texts.entries()) {
      await say(windows[i], text);
      for (const page of windows) await hears(page, 'demo', i + 1);
    }
    for (const [i, page] of windows.entries()) {
      await until(async () => /^from here, [\d.]+ ms$/.test((await heard(page)).at(-1 - i)[1]));
      const lines = (await heard(page)).reverse();
      assert.deepEqual(lines.map(([, , message]) => message), texts);
      assert.deepEqual(lines.map(([, whence]) => whence === 'from elsewhere'), texts.map((text, j) => j !== i));
      await hasText(page, '#received output', /^3 events, median [\d.]+ ms$/);
    }
  });

  it('every event without a message appears once', async () => {
    const windows = await threeWindows();
    for (let i = 1; i <= 9; i++) {
      await say(windows[i % 3]);
      for (const page of windows) await hears(page, 'demo', i);
    }
    for (const page of windows) {
      assert.deepEqual((await heard(page)).map(([, , message]) => message), Array(9).fill(undefined));
    }
  });

  it('later topics of any name work', async () => {
    const one = await openDemo(context, server), two = await openDemo(context, server), counts = new Map();
    const ids = ['__proto__', 'a][b', 'Zürich €', '<img src=x onerror=alert(1)>', 'x&y=z', '100%', 'up/../down', "it's"];
    for (const id of ids) {
      await subscribe(one, server, id);
      counts.set(id, await subscribe(two, server, id));
    }
    for (const id of ids) {
      await say(one, 'Hello', id);
      await hears(two, id, counts.get(id) + 1);
      await until(async () => (await heard(one, id))[0][2] === 'Hello');
    }
    assert.deepEqual(await heard(two), []);
    assert.equal(await one.locator('.log img, #topics img').count(), 0);
  });
});

describe('the comparison', () => {
  it('polls take a slot only while they are seen', async () => {
    const page = await openDemo(context, server), slots = number => until(async () => await server.slots() === number, `${number} slots`);
    await page.evaluate(() => {
      Object.defineProperty(document, 'hidden', {get: () => window.away ?? false});
      window.hide = away => {
        window.away = away;
        document.dispatchEvent(new Event('visibilitychange'));
      };
    });
    await slots(1);
    await compare(page);
    await slots(2);
    await page.evaluate(() => hide(true));
    await slots(1);
    await say(page, 'Hello');
    await hears(page);
    await page.evaluate(() => hide(false));
    await hears(page, 'demo', 1, '#compare');
    await slots(2);
    await page.getByText('A stream or polls?').click();
    await slots(1);
  });

  it('both logs say how long an event took', async () => {
    const page = await openDemo(context, server), logs = ['#received', '#compare'];
    await compare(page);
    await say(page, 'Hello');
    for (const log of logs) await hears(page, 'demo', 1, log);
    await server.publish('demo', 'from elsewhere');
    for (const log of logs) {
      await hears(page, 'demo', 2, log);
      await until(async () => /^from here, [\d.]+ ms$/.test((await heard(page, 'demo', log))[1][1]));
    }
    const delays = (await Promise.all(logs.map(log => heard(page, 'demo', log)))).map(([[, whence]]) => whence).sort();
    assert.equal(delays[0], 'from elsewhere');
    assert.match(delays[1], /^from elsewhere(, \+[\d.]+ ms)?$/);
  });
});

describe('the shell', () => {
  it('touch appears', async () => {
    const page = await openDemo(context, server);
    await server.touch('demo');
    await hears(page);
  });

  it('shown commands work', async () => {
    const page = await openDemo(context, server);
    const line = kind => text(page, `[data-line=${kind}] code`);
    for (const id of ['demo', "it's 100%/day"]) {
      const before = id === 'demo' ? 0 : await subscribe(page, server, id);
      if (id !== 'demo') await page.selectOption('#to', id);
      await run('sh', ['-c', await line('curl')]);
      await hears(page, id, before + 1);
      assert.equal((await heard(page, id))[0][2], 'Hello from a shell');
      const waiter = run('sh', ['-c', await line('wait')]);
      await until(async () => await server.waiters(/subscribed\[[^&]*\]=0(\0|$)/));
      await page.locator('[data-line=touch]').waitFor();
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

  it('touch names the directory of the store', async () => {
    const page = await openDemo(context, server);
    await hasText(page, '[data-line=touch] code', new RegExp(`^touch ${server.store}/demo\\.comet$`));
    assert.equal(await page.locator('#untold').isVisible(), false);
  });

  for (const [what, answer] of Object.entries({
    'does not tell its directory': {json: {version: '0', protocols: ['novcomet']}},
    'has a Redis': {json: {store: 'redis://localhost'}},
    'is older': {status: 400, json: {status: 400}},
    'answers with a page': {body: '<!doctype html>'},
  })) {
    it(`no touch is shown if the server ${what}`, async () => {
      await context.route(/about=1/, route => route.fulfill(answer));
      const page = await openDemo(context, server);
      await page.locator('#untold').waitFor();
      assert.equal(await page.locator('[data-line=touch]').isVisible(), false);
    });
  }

  it('commands and the example can be copied', async () => {
    await context.grantPermissions(['clipboard-read', 'clipboard-write']);
    const page = await openDemo(context, server);
    for (const [part, code] of [['[data-line=curl]', /^curl -d publish=demo /], ['section.line', /^<p id="news">/]]) {
      await page.locator(`${part} .copy`).click();
      await page.locator(part).getByRole('button', {name: 'Copied'}).waitFor();
      assert.match(await page.evaluate(() => navigator.clipboard.readText()), code);
    }
  });

  it('the example shows the last message after a reload', async () => {
    const page = await openDemo(context, server);
    await server.serve('example.html', `<!doctype html><title>example</title>${await text(page, '#example')}`);
    await page.goto(`${server.url}/example.html`);
    await until(async () => {
      await page.click('#tell');
      return /:/.test(await text(page, '#news'));
    });
    await page.reload();
    await hasText(page, '#news', /:/);
  });
});

describe('failures', () => {
  it('events during a server restart appear', async () => {
    const pages = [await openDemo(context, server), await openDemo(context, server)], counts = [];
    for (const page of pages) counts.push(await subscribe(page, server, 'third'));
    await server.stop();
    for (const page of pages) await page.locator('#received .state[data-state=offline]').waitFor();
    await server.publishBeside('demo', 'one');
    await server.touch('third');
    await server.start();
    for (const page of pages) {
      await hears(page);
      await until(async () => (await heard(page, 'third'))[0][2] === undefined, 'the touch');
      await connected(page);
      assert.equal(await text(page, '#received .trouble'), '');
    }
  });

  it('page says what was not published until the next success', async () => {
    const page = await openDemo(context, server);
    await context.setOffline(true);
    await say(page, 'lost');
    await hasText(page, '#failure', /^Not published: “lost”\. \S/);
    await page.locator('#received .state[data-state=offline]').waitFor();
    await hasText(page, '#received .trouble', /^Not receiving: \S/);
    await say(page);
    await hasText(page, '#failure', /^Not published: the event without a message, and 1 before\. \S/);
    await context.setOffline(false);
    await connected(page);
    assert.equal(await text(page, '#received .trouble'), '');
    assert.match(await text(page, '#failure'), /^Not published: /);
    assert.equal(await text(page, '#sent'), '');
    await say(page, 'found');
    await hasText(page, '#failure', /^$/);
    await hasText(page, '#sent', /^Published: “found”$/);
    await hears(page);
    assert.deepEqual((await heard(page)).map(([, , message]) => message), ['found']);
    await context.setOffline(true);
    await say(page, 'lost again');
    await hasText(page, '#failure', /^Not published: “lost again”\. \S/);
  });

  it('page says that it is publishing', async () => {
    const proxy = await Proxy.start(server), page = await openDemo(context, {page: `${proxy.url}/novcomet/`});
    let refuse;
    proxy.trouble = (request, response) => { refuse = () => response.destroy(); };
    await say(page, 'slow');
    await until(() => refuse);
    assert.equal(await text(page, '#sent'), 'Publishing “slow” …');
    refuse();
    await hasText(page, '#failure', /^Not published: “slow”\. \S/);
    await page.close();
    await proxy.close();
  });

  it("server's reason is shown", async () => {
    const proxy = await Proxy.start(server), page = await openDemo(context, {page: `${proxy.url}/novcomet/`});
    proxy.trouble = (request, response) => response
      .writeHead(503, {'Content-Type': 'application/problem+json'})
      .end(JSON.stringify({title: 'Service Unavailable', detail: 'come back later', status: 503}));
    proxy.cut();
    await hasText(page, '#received .trouble', /^Not receiving: .*come back later/);
    await say(page, 'Hello');
    await hasText(page, '#failure', /^Not published: “Hello”\. .*come back later/);
    proxy.trouble = null;
    await connected(page);
    assert.equal(await text(page, '#received .trouble'), '');
    await page.close();
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
    await server.publish('demo', 'one');
    await page.evaluate(() => { history.back(); });
    await page.locator('#received').waitFor();
    assert.equal(await page.evaluate(() => window.persisted), true);
    await hears(page);
    await connected(page);
    await say(page, 'two');
    await hears(page, 'demo', 2);
  });

  it('reloaded page works', async () => {
    const page = await openDemo(context, server);
    await page.goto(`${server.url}/client.html?auto`);
    await page.goto(server.page);
    await connected(page);
    await say(page, 'Hello');
    await hears(page);
  });
});

describe('the demo page', () => {
  it('page requests only its own server', async () => {
    const page = await context.newPage(), hosts = new Set();
    page.on('request', request => hosts.add(new URL(request.url()).host));
    await page.goto(server.page);
    await connected(page);
    assert.deepEqual([...hosts], [new URL(server.url).host]);
  });

  it("page allows itself no more than default-src 'self'", async () => {
    const page = await openDemo(context, server);
    const policy = page.locator('meta[http-equiv=Content-Security-Policy]');
    assert.equal(await policy.getAttribute('content'), "default-src 'self'");
  });

  it('keyboard works', async () => {
    const page = await openDemo(context, server);
    const press = async (...keys) => { for (const key of keys) await page.keyboard.press(key); };
    const focused = () => page.evaluate(() => document.activeElement.id || document.activeElement.textContent);
    await press('Tab');
    assert.equal(await focused(), 'another');
    await press('Tab', 'Enter');
    await hears(page);
    await page.keyboard.type('typed over it');
    await press('Tab');
    assert.equal(await focused(), 'Publish');
    await press('Space');
    await hears(page, 'demo', 2);
    assert.deepEqual((await heard(page)).map(([, , message]) => message), ['typed over it', 'Hello']);
    await page.focus('#id');
    await page.keyboard.type('mine');
    await press('Enter');
    await page.getByRole('button', {name: 'unsubscribe from mine'}).focus();
    await press('Enter');
    assert.equal(await page.locator('#topics li').count(), 1);
    assert.equal(await focused(), 'id');
    await page.locator('summary').focus();
    await press('Enter');
    await connected(page, '#compare');
  });

  it('Stop frees the slot, Start receives missed events', async () => {
    const page = await openDemo(context, server);
    await page.getByRole('button', {name: 'Stop receiving'}).click();
    await page.locator('#received .state[data-state=stopped]').waitFor();
    await until(async () => await server.slots() === 0);
    await server.publish('demo', 'missed');
    await page.getByRole('button', {name: 'Start receiving'}).click();
    await hears(page);
  });

  it('gap is shown, Clear empties one log', async () => {
    const page = await openDemo(context, server);
    await compare(page);
    await say(page, 'old');
    for (const log of ['#received', '#compare']) await hears(page, 'demo', 1, log);
    await page.getByRole('button', {name: 'Stop receiving'}).click();
    await server.empty();
    await server.publish('demo', 'new');
    await page.getByRole('button', {name: 'Start receiving'}).click();
    for (const log of ['#received', '#compare']) await hears(page, 'demo', 2, log);
    assert.equal(await page.locator('.log em').count(), 2);
    await page.locator('#received').getByRole('button', {name: 'Clear'}).click();
    assert.deepEqual(await heard(page), []);
    assert.equal((await heard(page, 'demo', '#compare')).length, 2);
  });

  it('log does not move if less motion is wanted', async () => {
    const still = await browser.newContext({reducedMotion: 'reduce'}), page = await openDemo(still, server);
    await say(page, 'Hello');
    await hears(page);
    const timing = await page.locator('.log li').evaluate(line => getComputedStyle(line).animationTimingFunction);
    assert.match(timing, /^steps/);
  });
});

describe('the address', () => {
  const read = async (page, locator) => {
    const png = (await locator.screenshot()).toString('base64');
    const {data, width, height} = await page.evaluate(pixels, png);
    return jsqr(Uint8ClampedArray.from(data), width, height)?.data;
  };

  for (const colorScheme of ['light', 'dark']) {
    it(`${colorScheme} page shows it as a QR code`, async () => {
      const url = `http://demo.test:${server.port}/novcomet/`, own = await browser.newContext({colorScheme});
      const page = await open(own, url), blank = await browser.newPage();
      assert.equal(await read(blank, page.locator('#code svg')), url);
      assert.equal(await text(page, '#code a'), url);
      assert.equal(await page.locator('#loopback').isVisible(), false);
    });
  }

  it('page on loopback says how to get there', async () => {
    for (const host of ['127.0.0.1', 'localhost']) {
      const page = await open(context, `http://${host}:${server.port}/novcomet/`);
      assert.match(await text(page, '#loopback'), new RegExp(`Only this machine reaches ${host}:${server.port}\\.`));
      assert.equal(await page.locator('#loopback').isVisible(), true);
      assert.equal(await page.locator('#code').isVisible(), false);
    }
  });

  it('too long address has no QR code', async () => {
    const page = await open(context, `http://demo.test:${server.port}/novcomet/?${'x'.repeat(200)}`);
    await page.locator('#code a').waitFor();
    assert.equal(await page.locator('#code svg').isVisible(), false);
  });
});

describe('every screen', () => {
  const long = 'a message that needs more than one line on a narrow phone, and a_word_that_is_too_long_for_it';

  /** Shows all that the page has to show. */
  const fill = async page => {
    await compare(page);
    await subscribe(page, server, 'another');
    await say(page, long);
    for (const log of ['#received', '#compare']) await hears(page, 'demo', 1, log);
    await page.context().setOffline(true);
    await say(page, 'lost');
    await hasText(page, '#failure', /./);
    await hasText(page, '#received .trouble', /./);
  };

  for (const colorScheme of ['light', 'dark']) for (const viewport of [PHONE, DESKTOP]) {
    it(`axe finds nothing in the ${colorScheme} page of ${viewport.width} px`, async () => {
      const page = await openDemo(await browser.newContext({colorScheme, viewport}), server);
      assert.deepEqual(await findings(page), []);
      await fill(page);
      assert.deepEqual(await findings(page), []);
    });
  }

  for (const width of [320, PHONE.width, 768, DESKTOP.width]) {
    it(`nothing scrolls sideways at ${width} px`, async () => {
      const page = await openDemo(await browser.newContext({viewport: {width, height: 640}}), server);
      await fill(page);
      assert.equal(await page.evaluate(() => document.documentElement.scrollWidth), width);
    });
  }

  it('phone shows the message in the log without scrolling', async () => {
    const page = await openDemo(await browser.newContext({viewport: PHONE, hasTouch: true, isMobile: true}), server);
    await say(page, long);
    await hears(page);
    const log = await page.locator('#received .log').boundingBox();
    const line = await page.locator('#received .log li').boundingBox();
    assert.ok(log.y >= 0 && log.y + 200 <= PHONE.height, `the log begins at ${log.y}`);
    assert.ok(line.y + line.height <= PHONE.height, `the line begins at ${line.y}`);
  });
});

/** In a page: the pixels of an image. */
async function pixels(png) {
  const image = new Image();
  image.src = `data:image/png;base64,${png}`;
  await image.decode();
  const {width, height} = image, canvas = new OffscreenCanvas(width, height).getContext('2d');
  canvas.drawImage(image, 0, 0);
  return {width, height, data: [...canvas.getImageData(0, 0, width, height).data]};
}

/** The findings of axe-core in the page, as [rule, element]. */
async function findings(page) {
  await page.evaluate(axe);
  return page.evaluate(async () => {
    for (const animation of document.getAnimations()) animation.finish();
    const {violations} = await axe.run(document);
    return violations.flatMap(({id, nodes}) => nodes.map(({html}) => [id, html.slice(0, 120)]));
  });
}
