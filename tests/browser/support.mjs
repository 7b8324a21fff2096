// Real servers, with the configuration that is shipped, a proxy to make trouble, and Chromium.
import {execFile, spawn} from 'node:child_process';
import {once} from 'node:events';
import fs from 'node:fs/promises';
import http from 'node:http';
import net from 'node:net';
import path from 'node:path';
import {setTimeout as sleep} from 'node:timers/promises';
import {fileURLToPath} from 'node:url';
import {promisify} from 'node:util';
import {chromium} from 'playwright-core';

export const SOURCE = fileURLToPath(new URL('../..', import.meta.url)).replace(/\/$/, '');
const CGI = 'usr/lib/cgi-bin/novcomet/comet.cgi', HTDOCS = 'usr/share/novcomet';
const PATIENCE = 30e3;
export const run = promisify(execFile);

/** Looks again until `look` gives something true. */
export async function until(look, what = look) {
  for (const end = Date.now() + PATIENCE; Date.now() < end; await sleep(10)) {
    const seen = await look();
    if (seen) return seen;
  }
  throw new Error(`never so: ${what}`);
}

async function freePort() {
  const server = net.createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const {port} = server.address();
  await new Promise(done => server.close(done));
  return port;
}

const commands = {
  apache: ({root, port}) => ({
    args: ['/usr/sbin/apache2', '-D', 'FOREGROUND', '-f', `${SOURCE}/demo/apache.conf`,
      ...[`ROOT ${root}`, `SOURCE ${SOURCE}`, `PORT ${port}`].flatMap(name => ['-C', `Define ${name}`])],
    option: (name, value) => `SetEnv ${name} "${value}"\n`,
  }),
  lighttpd: ({root, port}) => ({
    args: ['/usr/sbin/lighttpd', '-D', '-f', `${SOURCE}/tests/support/lighttpd.conf`],
    env: {ROOT: root, SOURCE, PORT: port},
    option: (name, value) => `setenv.add-environment += ( "${name}" => "${value}" )\n`,
  }),
};

/** A web server on a free port of loopback, its files and its event store its own. */
export class Server {
  static async start(kind = 'apache') {
    const server = new Server();
    server.kind = kind;
    server.root = await fs.mkdtemp('/tmp/novcomet-browser.');
    server.store = await fs.mkdtemp('/dev/shm/novcomet-browser.');
    await server.#layOut();
    await server.start();
    return server;
  }

  get url() { return `http://127.0.0.1:${this.port}`; }

  /** The demo page. */
  get page() { return `${this.url}/novcomet/`; }

  /** What `make install DESTDIR=root` would put there, and what a server needs beside it. */
  async #layOut() {
    await fs.chmod(this.root, 0o755);
    await fs.chmod(this.store, 0o1777);
    for (const dir of ['www', path.dirname(CGI), 'uploads']) {
      await fs.mkdir(`${this.root}/${dir}`, {recursive: true});
    }
    await fs.copyFile(`${SOURCE}/cgi-bin/comet.cgi`, `${this.root}/${CGI}`);
    await fs.cp(`${SOURCE}/htdocs`, `${this.root}/${HTDOCS}`, {recursive: true});
    await this.serve('whose', this.root);
  }

  /** Puts a file at the top of the site. */
  async serve(name, content) {
    await fs.writeFile(`${this.root}/www/${name}`, content);
  }

  async start() {
    for (let i = 0; i < 5 && !this.child; i++) await this.#try(this.port ?? await freePort());
    if (!this.child) throw new Error(await fs.readFile(`${this.root}/error.log`, 'utf8'));
  }

  /** Somebody else may take a free port just before the server does. */
  async #try(port) {
    const {args, env, option} = commands[this.kind]({root: this.root, port});
    await fs.writeFile(`${this.root}/options.conf`, option('NOVCOMET_STORE', `file://${this.store}`));
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

  /** Ends it and leaves nothing behind. */
  async close() {
    if (this.child) await this.stop();
    for (const pid of await this.#processes()) end(pid);
    await fs.rm(this.root, {recursive: true, force: true});
    await fs.rm(this.store, {recursive: true, force: true});
  }

  /** What a shell on the server does. */
  async touch(id) {
    await run('touch', [`${this.store}/${id}.comet`]);
  }

  /** What one user touched first, another may not publish: each test begins with no event files. */
  async empty() {
    for (const name of await fs.readdir(this.store)) await fs.rm(`${this.store}/${name}`);
  }

  async publish(id) {
    const answer = await fetch(`${this.url}/comet.cgi`, {method: 'POST', body: new URLSearchParams({publish: id})});
    if (!answer.ok) throw new Error(await answer.text());
  }

  /**
   * The processes that wait with an environment like this. Apache does not tell a silent CGI that its
   * client is gone: in it, those of earlier polls are still there.
   */
  async waiters(like) {
    const asleep = await this.#processes(async pid =>
      like.test(await proc(pid, 'environ')) && /\) S [^)]*$/.test(await proc(pid, 'stat')));
    return asleep.length;
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

const proc = (pid, file) => fs.readFile(`/proc/${pid}/${file}`, 'utf8').catch(() => '');

/** Between the browser and a server: passes all on, unless `trouble` answers a request for comet.cgi. */
export class Proxy {
  requests = [];        // what the browser asked of comet.cgi, and when
  trouble = null;

  static async start(server) {
    const proxy = new Proxy();
    proxy.server = server;
    proxy.http = http.createServer((request, response) => proxy.#pass(request, response));
    proxy.http.listen(0, '127.0.0.1');
    await once(proxy.http, 'listening');
    return proxy;
  }

  get page() { return `http://127.0.0.1:${this.http.address().port}/novcomet/`; }

  /** Cuts every connection, as a cable does. */
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
    const onward = http.request({port: this.server.port, host: '127.0.0.1', method, headers, path: url, agent: false});
    onward.on('response', answer => {
      response.writeHead(answer.statusCode, answer.headers);
      answer.pipe(response).on('error', () => {});
    });
    onward.on('error', () => response.destroy());
    response.on('close', () => onward.destroy());
    request.pipe(onward);
  }
}

/** Debian's Chromium; nothing in it asks for anything but our pages. */
export function launch() {
  return chromium.launch({
    executablePath: '/usr/bin/chromium',
    ignoreDefaultArgs: ['--disable-back-forward-cache'],
    args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run',
      '--disable-background-networking', '--disable-component-update', '--disable-sync'],
  });
}

/** The demo page in a tab of its own; what it throws fails the test. */
export async function open(context, url) {
  const page = await context.newPage();
  page.mistakes = [];
  page.on('pageerror', error => page.mistakes.push(error));
  page.polls = new Set();
  page.on('request', request => isPoll(request) && page.polls.add(request));
  for (const end of ['requestfinished', 'requestfailed']) page.on(end, request => page.polls.delete(request));
  await page.goto(url);
  await waiting(page);
  return page;
}

const isPoll = request => request.url().includes('&wait=60');

/** Waits until a long poll of the page's is under way. */
export const polls = page => until(() => page.polls.size > 0, 'a poll is under way');

export const waiting = page => page.locator('#state[data-state=waiting]').waitFor();

/** The lines of the demo page's log about a topic, as [topic, whence]. */
export const heard = async (page, id) => {
  const lines = await page.locator('#log li').evaluateAll(lines =>
    lines.map(line => [line.querySelector('b').textContent, line.querySelector('span').textContent]));
  return lines.filter(([topic]) => topic === id);
};

/** Waits until the page's log has so many events of a topic: a `touch` that makes the file may be two. */
export const hears = (page, id, count = 1) =>
  until(async () => (await heard(page, id)).length >= count, `${count} of ${id}`);
