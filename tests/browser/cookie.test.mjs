// A foreign page tries to use the token in its visitor's cookie, on plain HTTP, where Chromium sends
// no Sec-Fetch-Site. `intranet.test` is the own site and `evil.test` is not; both are this machine.
import assert from 'node:assert/strict';
import {createHmac, randomBytes} from 'node:crypto';
import {once} from 'node:events';
import fs from 'node:fs/promises';
import http from 'node:http';
import os from 'node:os';
import {after, afterEach, before, beforeEach, it} from 'node:test';
import {Server, launch, open, run, until} from './support.mjs';

const base64url = value => Buffer.from(value).toString('base64url');
let keys, server, evil, browser, context, ours, foreign;
let lure = '';      // the answer of evil.test: a page, or the target of a redirect

function token(secret) {
  const exp = Math.floor(Date.now() / 1e3) + 600;
  const text = [{alg: 'HS256'}, {exp, mercure: {publish: ['*'], subscribe: ['*']}}]
    .map(part => base64url(JSON.stringify(part))).join('.');
  return `${text}.${base64url(createHmac('sha256', secret).update(text).digest())}`;
}

/** A key that the server's user may read. */
async function makeKey() {
  keys = await fs.mkdtemp(`${os.tmpdir()}/novcomet-cookie.`);
  await fs.chmod(keys, 0o755);
  const secret = randomBytes(32).toString('hex');
  await fs.writeFile(`${keys}/key`, secret, {mode: 0o640});
  if (process.getuid() === 0) await run('chgrp', ['www-data', `${keys}/key`]);
  return secret;
}

before(async () => {
  const secret = await makeKey();
  server = await Server.start('apache', {
    NOVCOMET_PUBLISH: 'token', NOVCOMET_PRIVATE: 'secret', NOVCOMET_TOKEN_KEY: `${keys}/key`,
  });
  await server.serve('quiet.html', `<!doctype html><meta name="referrer" content="no-referrer">
    <script src="/novcomet/NovComet.js"></script>`);
  evil = http.createServer((request, response) => {
    const headers = {'Content-Type': 'text/html', 'Referrer-Policy': 'no-referrer'};
    if (lure.startsWith('http:')) response.writeHead(302, {Location: lure}).end();
    else response.writeHead(200, headers).end(`<!doctype html><title>win</title>${lure}`);
  }).listen(0, '127.0.0.1');
  await once(evil, 'listening');
  [ours, foreign] = [`http://intranet.test:${server.port}`, `http://evil.test:${evil.address().port}`];
  browser = await launch('--host-resolver-rules=MAP *.test 127.0.0.1');
  server.token = token(secret);
});

beforeEach(async () => {
  context = await browser.newContext();
  await context.addCookies([{name: 'mercureAuthorization', value: server.token, url: ours, sameSite: 'Lax'}]);
});

afterEach(async () => {
  await context.close();
  await server.empty();
});

after(async () => {
  await browser?.close();
  evil?.close();
  await server?.close();
  await fs.rm(keys, {recursive: true, force: true});
});

/** The answer of comet.cgi to the request that `act` causes: [status, headers of the browser]. */
async function answered(act) {
  const response = context.waitForEvent('response', {predicate: it => it.url().includes('/comet.cgi?')});
  await act();
  const answer = await response;
  return [answer.status(), await answer.request().allHeaders()];
}

it('foreign navigation publishes nothing', async () => {
  lure = `<script>location = '${ours}/comet.cgi?publish=pwn&data=by-navigation'</script>`;
  const page = await context.newPage();
  const [status, headers] = await answered(() => page.goto(foreign).catch(() => {}));
  assert.match(headers.cookie, /mercureAuthorization=/);
  assert.deepEqual([headers.referer, headers.origin, headers['sec-fetch-site']], [undefined, undefined, undefined]);
  assert.equal(status, 403);
  assert.deepEqual(await fs.readdir(server.store), []);
});

it('foreign window reads no private topic', async () => {
  lure = '<a target="prize" href="about:blank">win</a>';
  const page = await open(context, foreign);
  const [prize] = await Promise.all([page.waitForEvent('popup'), page.click('a')]);
  const [status, headers] = await answered(() => prize.evaluate(url => { location = url; },
    `${ours}/comet.cgi?subscribed[secret]=0&wait=3`));
  assert.match(headers.cookie, /mercureAuthorization=/);
  assert.equal(status, 403);
});

it('foreign redirect publishes nothing', async () => {
  lure = `${ours}/comet.cgi?publish=pwn&data=by-redirect`;
  await server.serve('links.html', `<!doctype html><a href="${foreign}">a link</a>`);
  const page = await open(context, `${ours}/links.html`);
  const [status, headers] = await answered(() => page.click('a'));
  assert.match(headers.cookie, /mercureAuthorization=/);
  assert.equal(headers.referer, `${ours}/`, 'our page is still the referrer');
  assert.equal(status, 403);
  assert.deepEqual(await fs.readdir(server.store), []);
});

for (const transport of ['poll', 'stream']) {
  it(`page without referrer works by ${transport}`, async () => {
    const page = await open(context, `${ours}/quiet.html`);
    await page.evaluate(transport => {
      Object.assign(window, {heard: [], client: new NovComet.Client('/comet.cgi', {transport})});
      client.subscribe('secret', (k, {data}) => heard.push(data)).run();
    }, transport);
    await page.waitForFunction(() => client.state === 'waiting');
    await page.evaluate(() => client.publish('secret', 'hello'));
    await until(() => page.evaluate(() => heard.includes('hello')), 'the message arrives');
  });
}
