// The same page through lighttpd.
import {after, before, describe, it} from 'node:test';
import {Server, hears, launch, open, polls, until, waiting} from './support.mjs';

describe('through lighttpd', () => {
  let server, browser, one, two;

  before(async () => {
    server = await Server.start('lighttpd');
    browser = await launch();
    const context = await browser.newContext();
    one = await open(context, server.page);
    two = await open(context, server.page);
  });

  after(async () => {
    await browser?.close();
    await server?.close();
  });

  it('a click in one tab is heard in the other', async () => {
    await one.getByRole('button', {name: 'publish customAlert', exact: true}).click();
    await hears(one, 'customAlert');
    await hears(two, 'customAlert');
  });

  it('a touch in the shell is heard in both', async () => {
    await server.touch('customAlert2');
    await hears(one, 'customAlert2');
    await hears(two, 'customAlert2');
  });

  it('the server is stopped and started again: nothing published in between is lost', async () => {
    await polls(one);
    await polls(two);
    await server.stop();
    await one.locator('#state[data-state=offline]').waitFor();
    await server.touch('customAlert');
    await server.start();
    await hears(one, 'customAlert', 2);
    await hears(two, 'customAlert', 2);
    await waiting(one);
  });

  it('a tab that is closed frees its place at once', async () => {
    await until(async () => await server.waiters(/wait=60/) === 2);
    await two.close();
    await until(async () => await server.waiters(/wait=60/) === 1);
  });
});
