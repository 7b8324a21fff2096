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
    await server.stop();
    await one.locator('.state[data-state=offline]').first().waitFor();
    await server.publishBeside('customAlert', 'one');
    await server.start();
    await hears(one, 'customAlert', 2);
    await hears(two, 'customAlert', 2);
    await bothListen(one);
    await bothListen(two);
  });

  it('a tab that is closed frees its places at once', async () => {
    const places = () => server.waiters(/(wait=60|stream=json)(\0|$)/);
    await until(async () => await places() === 4);
    await two.close();
    await until(async () => await places() === 2);
  });
});
