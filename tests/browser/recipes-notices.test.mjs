// The private notices of docs/recipes.md: a PHP session, a cookie with a token, and Chromium.
import assert from 'node:assert/strict';
import {spawn} from 'node:child_process';
import {randomBytes} from 'node:crypto';
import {once} from 'node:events';
import fs from 'node:fs/promises';
import http from 'node:http';
import os from 'node:os';
import {after, afterEach, before, beforeEach, it} from 'node:test';
import {recipe} from '../support/recipes.mjs';
import {Server, freePort, launch, open, run, until} from './support.mjs';

let folder, server, php, site, browser, context;

const options = () => Object.fromEntries(recipe('private-options').replaceAll('/etc/novcomet', folder)
  .split('\n').filter(Boolean).map(line => line.match(/^SetEnv (\S+) (.*)$/).slice(1)));

/** A key that the server's user may read, and the files of the site. */
async function layOut() {
  folder = await fs.mkdtemp(`${os.tmpdir()}/novcomet-notices.`);
  await fs.chmod(folder, 0o755);
  await fs.writeFile(`${folder}/key`, `${randomBytes(32).toString('hex')}\n`, {mode: 0o640});
  if (process.getuid() === 0) await run('chgrp', ['www-data', `${folder}/key`]);
  await fs.mkdir(`${folder}/sessions`);
}

async function writeSite() {
  const page = text => `<?php require 'token.php'; session_start(); ${text}`;
  const files = {
    'token.php': recipe('private-token').replaceAll('/etc/novcomet', folder),
    'notices.php': recipe('private-page'),
    'logout.php': recipe('private-logout'),
    'notify.php': recipe('private-notify', server.url),
    'login.php': page('$_SESSION["id"] = $_GET["id"];'),
    'token-of-session.php': page('echo token(["subscribe" => ["user/" . (int) $_SESSION["id"]]]);'),
  };
  for (const [name, text] of Object.entries(files)) await fs.writeFile(`${folder}/${name}`, text);
  await server.serve('header.html', recipe('head').replace('</script>\n<script>', `</script>\n${recipe('private-header')}<script>`));
}

async function startPhp() {
  const port = await freePort();
  const child = spawn('setpriv', ['--pdeathsig', 'TERM', 'php', '-S', `127.0.0.1:${port}`, '-t', folder,
    '-d', `session.save_path=${folder}/sessions`], {stdio: 'ignore'});
  await until(() => fetch(`http://127.0.0.1:${port}/login.php`).then(() => true, () => false), 'PHP answers');
  return {port, child};
}

/** One site, as a browser sees it: PHP for its programs, and the web server for the rest. */
async function startSite() {
  const front = http.createServer((request, response) => {
    const {method, headers, url: path} = request, {port} = /\.php\b/.test(path) ? php : server;
    const onward = http.request({host: '127.0.0.1', port, method, headers, path, agent: false}, answer => {
      response.writeHead(answer.statusCode, answer.headers);
      answer.pipe(response);
    });
    onward.on('error', () => response.destroy());
    response.on('close', () => onward.destroy());
    request.pipe(onward);
  }).listen(0, '127.0.0.1');
  await once(front, 'listening');
  return Object.assign(front, {url: `http://127.0.0.1:${front.address().port}`});
}

before(async () => {
  await layOut();
  server = await Server.start('apache', options());
  await writeSite();
  php = await startPhp();
  [site, browser] = await Promise.all([startSite(), launch()]);
});

beforeEach(async () => {
  context = await browser.newContext();
});

afterEach(async () => {
  await context.close();
  await server.empty();
});

after(async () => {
  await browser?.close();
  site?.closeAllConnections();
  site?.close();
  php?.child.kill();
  await server?.close();
  await fs.rm(folder, {recursive: true, force: true});
});

const notify = () => run('php', [`${folder}/notify.php`]);
const notices = page => page.locator('#notices li').allTextContents();
const listens = page => page.waitForFunction(() => NovComet.state === 'waiting');

async function logIn(id) {
  await context.request.get(`${site.url}/login.php?id=${id}`);
  const page = await open(context, `${site.url}/notices.php`);
  await listens(page);
  return page;
}

it('a visitor who has not logged in gets no page', async () => {
  const answer = await context.request.get(`${site.url}/notices.php`);
  assert.equal(await answer.text(), 'Please log in.');
  assert.doesNotMatch(answer.headers()['set-cookie'], /mercureAuthorization/);
});

it('notice reaches its user only', async () => {
  const alice = await logIn(7), errors = await alice.evaluateHandle(() => {
    const errors = [];
    NovComet.on('error', error => errors.push(error.status));
    return errors;
  });
  await notify();
  await until(async () => (await notices(alice)).length > 0, 'the notice arrives');
  assert.deepEqual(await notices(alice), ['Your order is on its way.']);
  assert.deepEqual([await errors.jsonValue(), alice.mistakes], [[], []]);
  const answers = await alice.evaluate(() => Promise.all(['user/7', 'user/8'].map(async id =>
    (await fetch(`/comet.cgi?subscribed[${encodeURIComponent(id)}]=earliest&wait=0`)).status)));
  assert.deepEqual(answers, [200, 403]);
});

it('a page cannot publish a notice', async () => {
  const page = await logIn(7);
  assert.equal(await page.evaluate(() => NovComet.publish('user/7', 'forged').catch(({status}) => status)), 403);
});

it('cookie is for comet.cgi only, and goes with the session', async () => {
  const page = await logIn(7), cookie = async () => (await context.cookies())
    .find(({name}) => name === 'mercureAuthorization');
  const {httpOnly, secure, sameSite, path} = await cookie();
  assert.deepEqual({httpOnly, secure, sameSite, path}, {httpOnly: true, secure: true, sameSite: 'Strict', path: '/comet.cgi'});
  await page.evaluate(() => fetch('/logout.php'));
  assert.equal(await cookie(), undefined);
});

it('page renews the cookie before its token expires', async () => {
  await context.clock.install();
  const page = await logIn(7), renewed = page.waitForResponse(`${site.url}/notices.php`);
  await context.clock.fastForward('30:01');
  assert.match((await (await renewed).allHeaders())['set-cookie'], /mercureAuthorization=/);
});

it('page that wakes with an expired token renews it', async () => {
  await context.clock.install();
  const page = await logIn(7), renewed = page.waitForResponse(`${site.url}/notices.php`);
  await context.clearCookies({name: 'mercureAuthorization'});
  for (const isOffline of [true, false]) await context.setOffline(isOffline);
  await (await renewed).allHeaders();
  await context.clock.fastForward(30e3);
  await notify();
  await until(async () => (await notices(page)).length > 0, 'the notice arrives');
});

it('client sends a token of the session in a header', async () => {
  await context.request.get(`${site.url}/login.php?id=7`);
  const page = await open(context, `${site.url}/header.html`);
  const heard = await page.evaluateHandle(() => {
    const heard = [];
    NovComet.listen('user/7', (k, {data}) => heard.push(data));
    return heard;
  });
  await listens(page);
  await notify();
  await until(async () => (await heard.jsonValue()).join() === 'Your order is on its way.', 'the notice arrives');
});
