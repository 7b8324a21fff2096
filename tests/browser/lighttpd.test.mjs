// The demo page through lighttpd.
import {after, before, describe, it} from 'node:test';
import {Server, connected, hears, launch, openDemo, say, until} from './support.mjs';

describe('through lighttpd', () => {
  let server, browser, one, two;

  before(async () => {
    server = await Server.start('lighttpd');
    browser = await launch();
    const context = await browser.newContext();
    one = await openDemo(context, server);
    two = await openDemo(context, server);
  });

  after(async () => {
    await browser?.close();
    await server?.close();
  });

  it('message appears in both tabs', async () => {
    await say(one, 'Hello');
    await hears(one);
    await hears(two);
  });

  it('touch appears in both tabs', async () => {
    await server.empty();     // another user may not publish to a touched file
    await server.touch('demo');
    await hears(one, 'demo', 2);
    await hears(two, 'demo', 2);
    await server.empty();
  });

  it('events during a server restart appear', async () => {
    const said = [one, two].map(page => page.getByText('during the restart'));
    await server.stop();
    await one.locator('#received .state[data-state=offline]').waitFor();
    await server.publishBeside('demo', 'during the restart');
    await server.start();
    for (const line of said) await line.waitFor();
    await connected(one);
    await connected(two);
  });

  it('closed tabs free their slots', async () => {
    await until(() => server.slots());
    await one.close();
    await two.close();
    await until(async () => await server.slots() === 0);
  });
});
