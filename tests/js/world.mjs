// A client in a simulated world: the test provides the clock, the network and the window.
import NovComet from '../../htdocs/NovComet.mjs';

/** Runs all code that waits only for promises. */
const settle = () => new Promise(resolve => setImmediate(resolve));

/** The lines of a stream for an answer that is an object, or JSON. */
const event = answer =>
  `id: hof6g6si4m\ndata: ${typeof answer === 'string' ? answer : JSON.stringify(answer)}\n\n`;

/** A request of the client. The test answers it. */
class Request {
  #body;

  constructor(url, init, at) {
    Object.assign(this, {url, init, at, open: true});
    this.promise = new Promise((resolve, reject) => Object.assign(this, {resolve, reject}));
    init.signal.addEventListener('abort', () => this.fail(new DOMException('cut', 'AbortError')));
  }

  get query() { return this.url.slice(this.url.indexOf('?') + 1); }

  async answer(body, {status = 200, headers} = {}) {
    this.open = false;
    const text = typeof body === 'string' ? body : JSON.stringify(body);
    this.resolve({
      status, ok: status >= 200 && status < 300, headers: new Headers(headers),
      text: async () => text,
    });
    await settle();
  }

  /** Answers with a stream: `send`, `say`, `end` and `fail` continue it. */
  async stream({headers = {'Content-Type': 'text/event-stream'}, ...more} = {}) {
    const body = new ReadableStream({start: controller => { this.#body = controller; }});
    this.resolve({status: 200, ok: true, headers: new Headers(headers), body, ...more});
    await settle();
  }

  /** The content of one `write` of the server, or of one packet: a text or bytes. */
  async send(chunk) {
    this.#body.enqueue(typeof chunk === 'string' ? new TextEncoder().encode(chunk) : chunk);
    await settle();
  }

  /** A complete event of a stream. */
  async say(answer) {
    await this.send(event(answer));
  }

  async end() {
    this.open = false;
    this.#body.close();
    await settle();
  }

  async fail(error = new TypeError('Failed to fetch')) {
    this.open = false;
    this.reject(error);
    this.#body?.error(error);
    await settle();
  }
}

export class World {
  now = 1795415403000;
  timers = new Map();
  requests = [];
  warnings = [];        // of the console
  thrown = [];          // the exceptions that would reach window.onerror
  underway = 0;         // messages between tabs
  luck = 1;             // the value of Math.random: the longest back-off
  window = new EventTarget();
  #timer = 0;

  constructor(url, options) {
    this.client = new NovComet.Client(url, this.platform(options));
    this.states = [];
    this.errors = [];
    this.client.on('state', state => this.states.push(state));
    this.client.on('error', error => this.errors.push(error));
  }

  /** The options of a client in this world. */
  platform(options) {
    return {
      transport: 'poll',
      Date: {now: () => this.now},
      Math: {__proto__: Math, random: () => this.luck},
      fetch: (url, init) => {
        const request = new Request(url, init, this.now);
        this.requests.push(request);
        this.onrequest?.(request);
        return request.promise;
      },
      setTimeout: (f, ms = 0) => this.after(ms, f),
      clearTimeout: timer => this.clear(timer),
      addEventListener: (...args) => this.window.addEventListener(...args),
      removeEventListener: (...args) => this.window.removeEventListener(...args),
      console: {warn: text => this.warnings.push(text)},
      ...options,
    };
  }

  get last() { return this.requests.at(-1); }

  after(ms, f) {
    this.timers.set(++this.#timer, {f, due: this.now + ms});
    return this.#timer;
  }

  clear(timer) { this.timers.delete(timer); }

  /** Passes the time, timer by timer. */
  async pass(ms) {
    const end = this.now + ms;
    await this.calm();
    for (let timer; (timer = this.#next(end)); await this.calm()) this.#fire(timer);
    this.now = end;
  }

  /** Runs all code that waits for no time. */
  async calm() {
    do await settle(); while (this.underway);
  }

  /** The laptop sleeps: the wall clock advances and no timer does. */
  sleep(ms) {
    this.now += ms;
    for (const timer of this.timers.values()) timer.due += ms;
  }

  async dispatch(type, more) {
    this.window.dispatchEvent(Object.assign(new Event(type), more));
    await settle();
  }

  /** Subscribes to `ids`, and answers until the long poll has started. */
  async wait(...ids) {
    for (const id of ids) this.client.subscribe(id, this.hear ?? (() => {}));
    this.client.run();
    await settle();
    await this.last.answer({s: 0, k: Object.fromEntries(ids.map(id => [id, 5.5]))});
    return this.last;
  }

  /** The same until a stream has begun. */
  async flow(...ids) {
    for (const id of ids) this.client.subscribe(id, this.hear ?? (() => {}));
    this.client.run();
    await settle();
    const k = Object.fromEntries(ids.map(id => [id, 5.5]));
    if (this.last.query.endsWith('wait=0')) await this.last.answer({s: 0, k});
    await this.begin(k);
    return this.last;
  }

  /** Lets the requested stream begin. */
  async begin(k) {
    await this.last.stream();
    await this.last.send(': novcomet\nretry: 1000\n' + event({s: 0, k}));
  }

  #next(end) {
    const [first] = [...this.timers].sort(([, a], [, b]) => a.due - b.due);
    return first?.[1].due <= end && first;
  }

  #fire([key, {f, due}]) {
    this.timers.delete(key);
    this.now = Math.max(this.now, due);
    try {
      f();
    } catch (error) {
      this.thrown.push(error);
    }
  }
}

export {event, settle};
