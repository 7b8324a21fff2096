// A page of 2011 works unchanged: NovComet answers its /comet.php.
import assert from 'node:assert/strict';
import fs from 'node:fs/promises';
import {createRequire} from 'node:module';
import {after, afterEach, before, describe, it} from 'node:test';
import {Server, heard, hears, launch, openDemo, say, subscribe, until} from './support.mjs';

const jquery = createRequire(import.meta.url).resolve('jquery/dist/jquery.js');

describe('a page of 2011', () => {
  let server, browser;

  before(async () => {
    server = await Server.start('apache');
    await server.serve('jquery.js', await fs.readFile(jquery));
    await server.serve('2011.html', await fs.readFile(new URL('2011.html', import.meta.url)));
    browser = await launch();
  });

  afterEach(async () => {
    await Promise.all(browser.contexts().map(context => context.close()));
    await server.empty();
  });

  after(async () => {
    await browser?.close();
    await server?.close();
  });

  /** `ahead`: the error of this browser's clock, in seconds. */
  const open = async (ahead = 0) => {
    const page = await browser.newPage();
    await page.addInitScript(ahead => {
      const {getTime} = Date.prototype;
      Date.prototype.getTime = function () { return getTime.call(this) + ahead * 1000; };
    }, ahead);
    await page.goto(`${server.url}/2011.html`);
    await listening(page);
    return page;
  };

  /** Waits until a poll with the current cursors of this page waits in the server. */
  const listening = page => until(async () => {
    const {door, phone} = await page.evaluate(() => since);
    return server.waiters(new RegExp(`subscribed\\[door\\]=${door}&subscribed\\[phone\\]=${phone}&`));
  }, 'the old page listens');

  /** Waits until the page has received each event this many times. */
  const rings = (page, door, phone) => page.waitForFunction(expected => Object.keys(expected)
    .every(name => rings.filter(ring => ring === name).length === expected[name]), {door, phone});

  for (const ahead of [0, 3600]) {
    it(`clock ${ahead} s ahead: receives events`, async () => {
      const one = await open(ahead), two = await open(ahead);
      await one.click('a.door');
      await rings(one, 1, 0);
      await rings(two, 1, 0);
      await one.close();
      await listening(two);
      await two.click('a.phone');
      await rings(two, 1, 1);
      await listening(two);
      await server.touch('phone');
      await rings(two, 1, 2);
      await listening(two);
      await two.click('a.door');
      await rings(two, 2, 2);
    });
  }

  it('events between two polls arrive', async () => {
    const page = await open();
    await server.publish('door');
    await rings(page, 1, 0);
    await listening(page);
    await server.publish('phone');
    await rings(page, 1, 1);
    await server.publish('door');       // the page sleeps now
    await server.publish('phone');
    await rings(page, 2, 2);
  });

  it('old and new pages share a topic', async () => {
    const young = await openDemo(await browser.newContext(), server);
    const before = await subscribe(young, server, 'door'), old = await open();
    await say(young, '', 'door');
    await rings(old, 1, 0);
    await hears(young, 'door', before + 1);
    await listening(old);
    await old.click('a.phone');
    await rings(old, 1, 1);
    await listening(old);
    await server.publish('phone', 'a message that the old page does not know of');
    await rings(old, 1, 2);
    assert.equal((await heard(young, 'door')).length, before + 1);
    await young.context().close();
  });
});
