// A browser with many tabs in a simulated world. What it offers to share a connection: a SharedWorker,
// or locks and channels.
import {readFileSync} from 'node:fs';
import NovComet from '../../htdocs/NovComet.mjs';

const SOURCE = readFileSync(new URL('../../htdocs/NovComet.js', import.meta.url), 'utf8');

export class Browser {
  channels = new Set();
  locks = new Map();        // name → the requests for it, the holder first
  workers = new Map();      // name → its global scope
  tabs = new Set();

  /** `kind`: 'worker' or 'locks'. */
  constructor(world, kind) {
    Object.assign(this, {world, kind});
    NovComet.Client.script = '/NovComet.js';
  }

  /** Calls `f` after all code that runs now. */
  later(f) {
    this.world.underway++;
    setImmediate(() => {
      this.world.underway--;
      f();
    });
  }

  /** Sends a copy of the data. */
  post(f, data) {
    const copy = structuredClone(data);
    this.later(() => f(copy));
  }

  open(options) {
    const tab = new Tab(this, options);
    this.tabs.add(tab);
    return tab;
  }

  worker(name) {
    if (!this.workers.has(name)) {
      const {world} = this, platform = world.platform(), scope = {...platform, SharedWorkerGlobalScope: Object, name};
      scope.setTimeout = (f, ms) => platform.setTimeout(() => scope.isEnded || f(), ms);
      scope.fetch = (url, init) => {
        const answer = platform.fetch(url, init);
        world.last.tab = scope;
        return answer;
      };
      new Function('globalThis', SOURCE)(scope);
      this.workers.set(name, scope);
    }
    return this.workers.get(name);
  }

  /** As WebKit does when the tab closes that began them. */
  endWorkers() {
    for (const [, scope] of this.workers) {
      scope.isEnded = true;
      for (const request of this.world.requests) if (request.tab === scope && request.open) request.fail();
    }
    this.workers.clear();
  }

  grant(name) {
    const [first] = this.locks.get(name) ?? [];
    if (!first || first.isGranted) return;
    first.isGranted = true;
    Promise.resolve(first.use()).then(() => this.release(name, first));
  }

  release(name, request) {
    const queue = this.locks.get(name), i = queue.indexOf(request);
    if (i >= 0) queue.splice(i, 1);
    this.grant(name);
  }
}

/** A page. `crash` ends it without a word. */
export class Tab {
  isAlive = true;
  window = new EventTarget();

  constructor(browser, options) {
    this.browser = browser;
    const tab = this, {world} = browser, alive = f => (...args) => this.isAlive && f(...args);
    class Channel {
      constructor(name) {
        Object.assign(this, {name, tab});
        browser.channels.add(this);
      }

      postMessage(data) {
        for (const other of tab.isAlive ? browser.channels : []) {
          if (other !== this && other.name === this.name) {
            browser.post(data => other.tab.isAlive && browser.channels.has(other) && other.onmessage?.({data}), data);
          }
        }
      }

      close() { browser.channels.delete(this); }
    }
    class Worker {
      constructor(script, {name}) {
        const scope = browser.worker(name), isOpen = () => tab.isAlive && !this.isClosed && !scope.isEnded;
        const far = {postMessage: data => isOpen() && browser.post(data => isOpen() && this.port.onmessage?.({data}), data)};
        this.port = {
          postMessage: data => isOpen() && browser.post(data => scope.isEnded || far.onmessage?.({data}), data),
          close: () => { this.isClosed = true; },
        };
        scope.onconnect({ports: [far]});
      }
    }
    const request = (name, {signal}, use) => {
      const entry = {use, tab}, queue = browser.locks.get(name) ?? [];
      browser.locks.set(name, [...queue, entry]);
      signal.addEventListener('abort', () => entry.isGranted || browser.release(name, entry));
      browser.later(() => browser.grant(name));
      return new Promise(() => {});
    };
    const platform = world.platform({
      document: {baseURI: 'http://host/'},
      BroadcastChannel: Channel,
      ...browser.kind === 'worker' ? {SharedWorker: Worker} : {SharedWorker: undefined, navigator: {locks: {request}}},
      setTimeout: (f, ms) => world.after(ms ?? 0, alive(f)),
      addEventListener: (...args) => this.window.addEventListener(...args),
      removeEventListener: (...args) => this.window.removeEventListener(...args),
    });
    const {fetch} = platform;
    platform.fetch = (url, init) => {
      const answer = fetch(url, init);
      world.last.tab = this;
      return answer;
    };
    this.client = new NovComet.Client('/comet.cgi', {...platform, ...options});
  }

  dispatch(type, more) {
    this.window.dispatchEvent(Object.assign(new Event(type), more));
  }

  close() {
    this.dispatch('pagehide', {persisted: false});
    this.browser.later(() => this.crash());
  }

  crash() {
    const {browser, browser: {world, locks}} = this;
    this.isAlive = false;
    browser.tabs.delete(this);
    for (const request of world.requests) if (request.tab === this && request.open) request.fail();
    for (const [name, queue] of locks) for (const entry of [...queue]) if (entry.tab === this) browser.release(name, entry);
  }
}
