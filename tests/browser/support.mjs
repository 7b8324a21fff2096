// Real servers with the shipped configuration, a proxy that causes faults, and Chromium.
import assert from 'node:assert/strict';
import {execFile, spawn} from 'node:child_process';
import {createHmac, randomBytes} from 'node:crypto';
import {once} from 'node:events';
import {existsSync, readFileSync} from 'node:fs';
import fs from 'node:fs/promises';
import http from 'node:http';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import {setTimeout as sleep} from 'node:timers/promises';
import {fileURLToPath} from 'node:url';
import {promisify} from 'node:util';
import {chromium} from 'playwright-core';

export const SOURCE = fileURLToPath(new URL('../..', import.meta.url)).replace(/\/$/, '');
const CGI = 'usr/lib/novcomet/comet.cgi', HTDOCS = 'usr/share/novcomet';
const PATIENCE = 30e3;
export const run = promisify(execFile);

// As in tests/support/host.rs: a program, where Debian installs it or tests/packages unpacks it, and shared memory.
export const program = name => ['', `${SOURCE}/target/packages`]
  .flatMap(root => ['sbin', 'bin'].map(folder => `${root}/usr/${folder}/${name}`)).find(existsSync) ?? name;
const SHARED_MEMORY = process.env.TESTS_SHM ?? '/dev/shm';

/** Calls `look` until it returns a true value. */
export async function until(look, what = look) {
  for (const end = Date.now() + PATIENCE; Date.now() < end; await sleep(10)) {
    const seen = await look();
    if (seen) return seen;
  }
  throw new Error(`never so: ${what}`);
}

export async function freePort() {
  const server = net.createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const {port} = server.address();
  await new Promise(done => server.close(done));
  return port;
}

const commands = {
  apache: ({root, port}) => ({
    args: [program('apache2'), '-D', 'FOREGROUND', '-f', `${SOURCE}/demo/apache.conf`,
      ...[`ROOT ${root}`, `SOURCE ${SOURCE}`, `PORT ${port}`].flatMap(name => ['-C', `Define ${name}`])],
    option: (name, value) => `SetEnv ${name} "${value}"\n`,
  }),
  lighttpd: ({root, port}) => ({
    args: [program('lighttpd'), '-D', '-f', `${SOURCE}/tests/support/lighttpd.conf`,
      '-m', path.join(program('lighttpd'), '../../lib/lighttpd')],
    env: {ROOT: root, SOURCE, PORT: port},
    option: (name, value) => `setenv.add-environment += ( "${name}" => "${value}" )\n`,
  }),
};

/** A web server on a free port of loopback, with its own files and event store. */
export class Server {
  /** `options` are settings of NovComet: `{NOVCOMET_PUBLISH: 'token'}`. `more` is configuration of the web server. */
  static async start(kind = 'apache', options = {}, more = '') {
    const server = new Server();
    Object.assign(server, {kind, options, more});
    server.root = await fs.mkdtemp(`${os.tmpdir()}/novcomet-browser.`);
    server.store = await fs.mkdtemp(`${SHARED_MEMORY}/novcomet-browser.`);
    await server.#layOut();
    await server.start();
    return server;
  }

  get url() { return `http://127.0.0.1:${this.port}`; }

  /** The demo page. */
  get page() { return `${this.url}/novcomet/`; }

  /** Installs the files of `make install DESTDIR=root`, and the other files that a server needs. */
  async #layOut() {
    await fs.chmod(this.root, 0o755);
    await fs.chmod(this.store, 0o1777);
    for (const dir of ['www', path.dirname(CGI), 'uploads']) {
      await fs.mkdir(`${this.root}/${dir}`, {recursive: true});
    }
    await fs.copyFile(`${SOURCE}/cgi-bin/comet.cgi`, `${this.root}/${CGI}`);
    await fs.cp(`${SOURCE}/htdocs`, `${this.root}/${HTDOCS}`, {recursive: true});
    await this.serve('whose', this.root);
    await this.serve('client.html', await fs.readFile(new URL('client.html', import.meta.url)));
  }

  /** Puts a file at the top of the site. */
  async serve(name, content) {
    await fs.writeFile(`${this.root}/www/${name}`, content);
  }

  async start() {
    for (let i = 0; i < 5 && !this.child; i++) await this.#try(this.port ?? await freePort());
    if (!this.child) throw new Error(await fs.readFile(`${this.root}/error.log`, 'utf8'));
  }

  /** Another process may take the free port before the server does. */
  async #try(port) {
    const {args, env, option} = commands[this.kind]({root: this.root, port});
    await fs.writeFile(`${this.root}/options.conf`, Object.entries({NOVCOMET_STORE: `file://${this.store}`, ...this.options})
      .map(([name, value]) => option(name, value)).join('') + this.more);
    const log = await fs.open(`${this.root}/error.log`, 'a', 0o666);
    const child = spawn('setpriv', ['--pdeathsig', 'TERM', ...args],
      {stdio: ['ignore', 'ignore', log.fd], env: {...process.env, ...env}, detached: true});
    await log.close();
    const ours = async () => await (await fetch(`http://127.0.0.1:${port}/whose`)).text() === this.root;
    await until(async () => child.exitCode !== null || await ours().catch(() => false), 'the server answers');
    if (child.exitCode === null) Object.assign(this, {child, port});
  }

  async stop() {
    const {child} = this;
    this.child = undefined;
    const ended = once(child, 'exit');
    child.kill('SIGTERM');
    await ended;
  }

  /** Whether no process of the program is left. */
  async isDeserted() {
    return (await this.#processes()).length === 0;
  }

  /** Stops the server and removes its files. */
  async close() {
    if (this.child) await this.stop();
    for (const pid of await this.#processes()) end(pid);
    await fs.rm(this.root, {recursive: true, force: true});
    await fs.rm(this.store, {recursive: true, force: true});
  }

  /** Touches the file as a shell on the server does. */
  async touch(id) {
    await run('touch', [`${this.store}/${id}.comet`]);
  }

  /** Another user may not publish to a touched file, so each test begins without event files. */
  async empty() {
    for (const name of await fs.readdir(this.store)) await fs.rm(`${this.store}/${name}`);
  }

  async publish(id, data) {
    const body = new URLSearchParams(data === undefined ? {publish: id} : {publish: id, data});
    const answer = await fetch(`${this.url}/comet.cgi`, {method: 'POST', body});
    if (!answer.ok) throw new Error(await answer.text());
    return answer.json();
  }

  /** The same without the web server, by its user. */
  async publishBeside(id, data) {
    const {NOVCOMET_STORE = `file://${this.store}`} = this.options;
    const env = {NOVCOMET_STORE, QUERY_STRING: `${new URLSearchParams({publish: id, data})}`};
    const user = process.getuid() === 0 ? ['--reuid', 'www-data', '--regid', 'www-data', '--clear-groups'] : [];
    await run('setpriv', [...user, `${this.root}/${CGI}`], {env: {...process.env, ...env}});
  }

  /**
   * The waiting processes with an environment like this. Under Apache a silent CGI does not notice
   * that its client has disconnected, so the processes of earlier polls are included.
   */
  async waiters(like) {
    const asleep = await this.#processes(pid =>
      like.test(proc(pid, 'environ')) && /\) S [^)]*$/.test(proc(pid, 'stat')));
    return asleep.length;
  }

  /** The number of waiting subscribers: of the slots that the CGIs hold. */
  async slots() {
    const held = new Set();
    for (const pid of await this.#processes()) {
      const fds = await fs.readdir(`/proc/${pid}/fd`).catch(() => []);
      const links = fds.map(fd => fs.readlink(`/proc/${pid}/fd/${fd}`).catch(() => ''));
      for (const link of await Promise.all(links)) held.add(link);
    }
    const slot = /^(?:\S+ ){6} *(\d+) @novcomet\/[0-9a-f]+\/\d+$/;
    const inodes = proc('net', 'unix').split('\n').map(line => slot.exec(line)?.[1]);
    return inodes.filter(inode => inode && held.has(`socket:[${inode}]`)).length;
  }

  /** The running CGIs of which `test` is true. */
  async #processes(test = () => true) {
    const pids = (await fs.readdir('/proc')).filter(name => /^\d+$/.test(name)).map(Number);
    const program = `${this.root}/${CGI}`;
    const ours = async pid => await fs.readlink(`/proc/${pid}/exe`).catch(() => '') === program && await test(pid);
    const found = await Promise.all(pids.map(ours));
    return pids.filter((pid, i) => found[i]);
  }
}

const end = pid => {
  try {
    process.kill(pid);
  } catch (error) {
    if (error.code !== 'ESRCH') throw error;    // it has just ended by itself
  }
};

/** Node.js 18 would end an asynchronous read after 4 KiB. */
function proc(pid, file) {
  try {
    return readFileSync(`/proc/${pid}/${file}`, 'utf8');
  } catch {
    return '';      // the process has ended
  }
}

/** A Redis that keeps nothing, on a socket that every user can reach. */
export class Redis {
  static async start() {
    const redis = new Redis();
    redis.root = await fs.mkdtemp(`${os.tmpdir()}/novcomet-redis.`);
    await fs.chmod(redis.root, 0o755);
    const options = {port: 0, save: '', dir: redis.root, unixsocket: redis.socket, unixsocketperm: 777};
    const args = Object.entries(options).flatMap(([name, value]) => [`--${name}`, `${value}`]);
    // A session of its own has its own share of the processors (sched(7), autogroup), as a service has.
    redis.child = spawn('setpriv', ['--pdeathsig', 'KILL', program('redis-server'), ...args],
      {stdio: 'ignore', detached: true});
    await until(() => redis.#answers(), 'Redis answers');
    return redis;
  }

  get socket() { return `${this.root}/socket`; }

  /** The value of NOVCOMET_STORE. */
  get url() { return `unix://${this.socket}`; }

  async #answers() {
    const client = net.connect(this.socket);
    const event = await Promise.race(['connect', 'error'].map(name => once(client, name).then(() => name, () => 'error')));
    client.destroy();
    return event === 'connect';
  }

  async close() {
    const ended = once(this.child, 'exit');
    this.child.kill();
    await ended;
    await fs.rm(this.root, {recursive: true});
  }
}

/** A key of tokens that the server's user may read. */
export class Key {
  static async make() {
    const key = new Key();
    key.root = await fs.mkdtemp(`${os.tmpdir()}/novcomet-key.`);
    await fs.chmod(key.root, 0o755);
    key.secret = randomBytes(32).toString('hex');
    await fs.writeFile(key.file, key.secret, {mode: 0o640});
    if (process.getuid() === 0) await run('chgrp', ['www-data', key.file]);
    return key;
  }

  /** The value of NOVCOMET_TOKEN_KEY. */
  get file() { return `${this.root}/key`; }

  /** A token that is valid for ten minutes. */
  token(mercure) {
    const exp = Math.floor(Date.now() / 1e3) + 600;
    const text = [{alg: 'HS256', typ: 'JWT'}, {exp, mercure}]
      .map(part => Buffer.from(JSON.stringify(part)).toString('base64url')).join('.');
    return `${text}.${createHmac('sha256', this.secret).update(text).digest('base64url')}`;
  }

  async close() { await fs.rm(this.root, {recursive: true}); }
}

/** A proxy before a server. It forwards everything unless `trouble` answers a request for comet.cgi. */
export class Proxy {
  requests = [];        // the browser's requests to comet.cgi, with their times
  trouble = null;
  buffering = false;    // forwards an answer of comet.cgi when it is complete, as nginx may do
  rewrite = url => url; // of the forwarded request

  static async start(server) {
    const proxy = new Proxy();
    proxy.server = server;
    proxy.http = http.createServer((request, response) => proxy.#pass(request, response));
    proxy.http.listen(0, '127.0.0.1');
    await once(proxy.http, 'listening');
    return proxy;
  }

  get url() { return `http://127.0.0.1:${this.http.address().port}`; }

  /** Closes every connection at once. */
  cut() { this.http.closeAllConnections(); }

  async close() {
    this.cut();
    await new Promise(done => this.http.close(done));
  }

  #pass(request, response) {
    if (request.url.includes('comet.cgi')) {
      this.requests.push({url: request.url, method: request.method, at: performance.now()});
      if (this.trouble) return this.trouble(request, response);
    }
    const {method, headers, url} = request;
    const onward = http.request({port: this.server.port, host: '127.0.0.1', method, headers, path: this.rewrite(url), agent: false});
    onward.on('response', async answer => {
      const held = this.buffering && url.includes('comet.cgi') ? await answer.toArray().catch(() => []) : null;
      response.writeHead(answer.statusCode, answer.headers);
      if (held) response.end(Buffer.concat(held));
      else answer.pipe(response).on('error', () => {});
    });
    onward.on('error', () => response.destroy());
    response.on('close', () => onward.destroy());
    request.pipe(onward);
  }
}

/** Debian's Chromium, without requests except those of our pages. */
export function launch(...args) {
  return chromium.launch({
    executablePath: program('chromium'),
    ignoreDefaultArgs: ['--disable-back-forward-cache'],
    args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run',
      '--disable-background-networking', '--disable-component-update', '--disable-sync', ...args],
  });
}

/** A page in a new tab. */
export async function open(context, url) {
  const page = await context.newPage();
  watch(page);
  page.asked = [];              // the requests that it sent: 'wait=0', 'wait=60', 'stream=json'
  page.pending = new Set();     // the requests without an answer yet
  page.on('request', request => {
    const how = request.url().match(/&(wait=\d+|stream=json)$/)?.[1];
    if (how) page.asked.push(how);
    if (how && how !== 'wait=0') page.pending.add(request);
  });
  for (const end of ['requestfinished', 'requestfailed']) page.on(end, request => page.pending.delete(request));
  await page.goto(url);
  return page;
}

/** Its exceptions and what its Content-Security-Policy forbids fail the test. */
export function watch(page) {
  page.mistakes = [];
  page.on('pageerror', error => page.mistakes.push(error));
  page.on('console', message => /Content Security Policy/.test(message.text()) && page.mistakes.push(message.text()));
}

// The demo page

export async function openDemo(context, server) {
  const page = await open(context, server.page);
  await connected(page);
  return page;
}

/** Waits until the client of one of its logs has an answer from the server. */
export const connected = (page, log = '#received') => page.locator(`${log} .state[data-state=waiting]`).waitFor();

/** Publishes by the message box. Without a text, it is an event without a message. */
export async function say(page, text = '', id = 'demo') {
  if (await page.locator('#to').isVisible()) await page.selectOption('#to', id);
  await page.fill('#text', text);
  await page.getByRole('button', {name: 'Publish', exact: true}).click();
}

/** The lines of one of its logs about a topic, as [topic, whence, message]. The newest is first. */
export const heard = async (page, id = 'demo', log = '#received') => {
  const lines = await page.locator(`${log} .log li`).evaluateAll(lines =>
    lines.map(line => ['b', 'span', 'q'].map(part => line.querySelector(part)?.textContent)));
  return lines.filter(([topic]) => topic === id);
};

/** Waits until a log has this many events of a topic. A `touch` that creates the file may count twice. */
export const hears = (page, id = 'demo', number = 1, log = '#received') =>
  until(async () => (await heard(page, id, log)).length >= number, `${number} of ${id}`);

/** Subscribes to one more topic. The page has received the last one of the returned number of events. */
export async function subscribe(page, server, id) {
  await page.fill('#id', id);
  await page.keyboard.press('Enter');
  const isLast = number => async () => (await heard(page, id))[0]?.[2] === `before ${number}`;
  let number = 0;
  await until(async () => {
    await server.publish(id, `before ${++number}`);
    return (await heard(page, id)).length;
  }, `cursor of ${id}`);
  await until(isLast(number), 'the last event before');
  return (await heard(page, id)).length;
}

// A page that has only a client

/** `where` is a server or a proxy. */
export async function listen(context, where, transport = 'auto') {
  const page = await open(context, `${where.url}/client.html?${transport}`);
  await state(page, 'waiting');
  return page;
}

export const state = (page, state) => page.waitForFunction(state => client.state === state, state);

/** Waits until a poll or a stream of the page has started. */
export const asks = page => until(() => page.pending.size > 0, 'the page asks');

/** The received messages. An event without a message is null. */
export const messages = page => page.evaluate(() => heard.map(({data}) => data ?? null));

/** Waits until the page has received these messages, each once and in this order. */
export const gets = async (page, ...expected) => {
  await until(async () => (await messages(page)).length >= expected.length, `all of ${expected.length}`);
  assert.deepEqual(await messages(page), expected);
};
