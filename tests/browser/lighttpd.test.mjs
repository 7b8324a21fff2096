// The demo page through lighttpd.
import {after, before, describe, it} from 'node:test';
import {Server, bothListen, hears, launch, openDemo, until} from './support.mjs';

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

  it('click appears in both tabs', async () => {
    await one.getByRole('button', {name: 'publish customAlert', exact: true}).click();
    await hears(one, 'customAlert');
    await hears(two, 'customAlert');
  });

  it('touch appears in both tabs', async () => {
    await server.touch('customAlert2');
    await hears(one, 'customAlert2');
    await hears(two, 'customAlert2');
  });

  it('events during a server restart appear', async () => {
    await server.stop();
    await one.locator('.state[data-state=offline]').first().waitFor();
    await server.publishBeside('customAlert', 'one');
    await server.start();
    await hears(one, 'customAlert', 2);
    await hears(two, 'customAlert', 2);
    await bothListen(one);
    await bothListen(two);
  });

  it('closed tab frees its slots', async () => {
    await until(async () => await server.slots() === 4);
    await two.close();
    await until(async () => await server.slots() === 2);
  });
});
