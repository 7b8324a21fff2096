// WebKitGTK's MiniBrowser by classic WebDriver, on a display in memory.
import {spawn} from 'node:child_process';
import {once} from 'node:events';
import {freePort, until} from './support.mjs';

/** A process that ends with this one. */
const start = (env, ...command) =>
  spawn('setpriv', ['--pdeathsig', 'TERM', ...command], {stdio: ['ignore', 'ignore', 'ignore', 'pipe'], env});

async function stop(child) {
  const ended = once(child, 'exit');
  if (child.exitCode === null && child.kill()) await ended;
}

export class WebKit {
  last = Promise.resolve();     // the last command of a page

  static async start(home) {
    const webkit = new WebKit(), env = {PATH: process.env.PATH, HOME: home, XDG_RUNTIME_DIR: home, TMPDIR: home};
    webkit.display = start(env, 'Xvfb', '-displayfd', '3', '-nolisten', 'tcp', '-nolisten', 'unix');
    const [number] = await once(webkit.display.stdio[3], 'data'), port = await freePort();
    webkit.driver = start({...env, DISPLAY: `:${number}`.trim()}, 'WebKitWebDriver', '--host=127.0.0.1', `--port=${port}`);
    webkit.url = `http://127.0.0.1:${port}`;
    await until(() => fetch(`${webkit.url}/status`).then(({ok}) => ok, () => false), 'WebKitWebDriver answers');
    const {sessionId} = await webkit.command('POST', '/session', {capabilities: {alwaysMatch: {timeouts: {pageLoad: 30e3}}}});
    webkit.url += `/session/${sessionId}`;
    webkit.first = await webkit.command('GET', '/window');
    return webkit;
  }

  async newPage() {
    const {handle} = await this.commandOf(this.first, 'POST', '/window/new', {type: 'tab'});
    return new Page(this, handle);
  }

  async close() {
    await this.command('DELETE', '').catch(() => {});
    await stop(this.driver);
    await stop(this.display);
  }

  async command(method, path, body) {
    const headers = {'Content-Type': 'application/json'};
    const answer = await fetch(this.url + path, {method, headers, body: body && JSON.stringify(body)});
    const {value} = await answer.json();
    if (!answer.ok) throw new Error(`${path}: ${value.error}: ${value.message}`);
    return value;
  }

  /** A command concerns the window that was chosen before, so they come one by one. */
  commandOf(handle, ...command) {
    const result = this.last.then(() => this.command('POST', '/window', {handle})).then(() => this.command(...command));
    this.last = result.catch(() => {});
    return result;
  }
}

class Page {
  constructor(webkit, handle) { Object.assign(this, {webkit, handle}); }

  goto(url) { return this.#command('POST', '/url', {url}); }

  evaluate(expression) { return this.#command('POST', '/execute/sync', {script: `return ${expression}`, args: []}); }

  close() { return this.#command('DELETE', '/window'); }

  #command(...command) { return this.webkit.commandOf(this.handle, ...command); }
}
