/*! NovComet, MIT OR Apache-2.0 */
// Real-time notifications from the web server you already have.
//
//   NovComet.subscribe('news', (k, event) => show(event.data)).run();
//   NovComet.publish('news', 'It works.');
{
  // Milliseconds.
  const POLL_WAIT = 60e3;         // the server may answer sooner
  const ANSWER_TIMEOUT = 20e3;    // beyond the wait
  const BEGIN_TIMEOUT = 4e3;      // for the first event of a stream
  const SILENCE_TIMEOUT = 25e3;   // a stream has a heartbeat every 15 s
  const CHECK_INTERVAL = 5e3;     // between two checks of a timeout
  const POLL_PERIOD = 600e3;      // before 'auto' tries a stream again, or a tab to share
  const JITTER = 100;             // spreads clients that one event has woken
  const HELD = 1e3;               // the server has held a longer request
  const GRACE = 1.2e3;            // a failure that is over by then is not reported
  const LEAVING = 1e4;            // the same on the way to another page: WebKit has ended all requests by then
  const RUN_REMINDER = 3e3;
  const TOKEN_MARGIN = 30e3;      // before a token expires
  const SIGN_OF_LIFE = 15e3, HOST_TIMEOUT = 90e3; // of a tab or worker that has the connection; timers of tabs may be slow
  const BACKOFF = 1e3, MAX_BACKOFF = 30e3;
  const INTERVAL = 250, BURST = 10 * INTERVAL;  // ten requests at once, then four a second

  const MAX_TOPICS = 64, MAX_QUERY = 8000;      // of a request, as the server accepts it
  const MAX_KEEPALIVE = 6e4, MAX_BATCH = 50;    // characters and messages of a publish

  /** Browsers refuse to call these functions as methods of another object. */
  const PLATFORM = ['fetch', 'setTimeout', 'clearTimeout', 'addEventListener', 'removeEventListener', 'TextDecoder',
    'Date', 'Math', 'console', 'document', 'navigator', 'BroadcastChannel', 'SharedWorker'];
  const platformOf = options => Object.fromEntries(PLATFORM.map(name => {
    const value = (name in options ? options : globalThis)[name];
    return [name, /^[a-z]/.test(name) && value?.bind?.(globalThis) || value];
  }));

  /** A part of a client has the fields of its core: the platform, the settings and the parts made before it. */
  class Part {
    constructor(core, more) {
      Object.assign(this, core, {core}, more);
    }

    get now() {
      return this.Date.now();
    }
  }

  const parseJson = text => {
    try {
      return JSON.parse(text);
    } catch { /* undefined says so */ }
  };

  const check = (what, value, choices) => {
    if (!choices.includes(value)) throw new TypeError(`there is no ${what} '${value}': use ${choices.join(', ')}`);
  };

  const failure = (message, code, url, more) => Object.assign(new Error(message), {code, url}, more);

  const retryAfterOf = ({headers}) =>
    Math.min(Math.max(headers.get('Retry-After') * 1e3, 0) || 0, 3600e3);

  /** The request is wrong, and the same request will be wrong again. */
  const isRefusal = status => /^4(?!08|25|29)/.test(status);

  /** The codes of errors, and their likely causes. */
  const STATUS = {
    401: ['unauthorized'],
    403: ['forbidden'],
    404: ['not-found', 'init sets the URL of comet.cgi'],
    413: ['too-large', 'message too long'],
    414: ['too-large', 'use fewer topics'],
    429: ['unavailable'],
    500: ['server', 'see the error log'],
    503: ['unavailable'],
  };

  /** NovComet gives a reason (RFC 9457), a proxy may not. */
  const httpError = (status, problem, url, retryAfter) => {
    const [code, cause] = STATUS[status] ?? [status < 500 ? 'bad-request' : 'server'];
    const reason = problem?.detail || problem?.title || `HTTP ${status} from ${url}${cause ? `: ${cause}` : ''}`;
    return failure(reason, code, url, {status, retryAfter, fromServer: !!problem});
  };

  const foreignError = (text, url) => {
    const [code, what] = /^\x7fELF/.test(text) ? ['binary', 'the program itself, not run as CGI'] :
      /^\s*</.test(text) ? ['html', 'a page: wrong URL or login'] :
      ['not-novcomet', 'not from NovComet'];
    return failure(`the answer from ${url} is ${what}`, code, url);
  };

  /** The claims of a token (RFC 7519), as far as it is readable. */
  const claimsOf = token => {
    try {
      return JSON.parse(atob(token.split('.')[1].replace(/-/g, '+').replace(/_/g, '/')));
    } catch {
      return {};
    }
  };

  /** The claims that are the same in the next token of the same user. */
  const identityOf = token => {
    const {exp, iat, nbf, jti, ...claims} = claimsOf(token);
    return JSON.stringify(claims);
  };

  const textOf = data => {
    const kind = ({}).toString.call(data).slice(8, -1);
    if (/^(String|Number|Boolean)$/.test(kind)) return `${data}`;
    if (/^(Object|Array|Null)$/.test(kind) || data.toJSON) return JSON.stringify(data);
    throw new TypeError(`${kind} is no message: use text or an object`);
  };

  class Event {
    constructor(fields) {
      Object.assign(this, fields);
    }

    json() {
      return JSON.parse(this.data);
    }
  }

  /** The events in an answer for a callback at `cursor`. `lost`: earlier ones may be missing, and all these are new. */
  const eventsOf = ({s, k, m}, id, cursor, lost) => {
    const messages = new Map(Object.entries(m ?? {})).get(id) ?? [];
    const events = messages.filter(message => lost || !(message.id <= cursor));
    if (s && !(k[id] <= messages[messages.length - 1]?.id)) events.push({id: k[id]});
    return events.map(({id: cursor, data}, i) => new Event({id, cursor, data, gap: lost && !i}));
  };

  /** The least cursor of each topic. One that is no position yet precedes the others. */
  const leastOf = cursors => {
    const all = new Map();
    for (const [id, cursor] of cursors) {
      if (!all.has(id) || all.get(id) > 0 && !(cursor >= all.get(id))) all.set(id, cursor);
    }
    return all;
  };

  class Listeners extends Part {
    state = new Set();
    error = new Set();
    #warned = new Set();

    /** Throws a TypeError for an unknown type. */
    of(type) {
      check('event', type, ['state', 'error']);
      return this[type];
    }

    setState(state) {
      if (state === this.settings.state) return;
      this.settings.state = state;
      for (const listener of this.state) this.call(listener, state);
    }

    fail(error) {
      for (const listener of this.error) this.call(listener, error);
      if (!this.error.size) this.warn(error.message);
    }

    /** Says each thing once. */
    warn(text) {
      if (!this.#warned.has(text)) this.console?.warn(`NovComet: ${text}`);
      this.#warned.add(text);
    }

    /** An exception goes to window.onerror and is returned. */
    call(callback, ...args) {
      try {
        callback(...args);
      } catch (error) {
        this.setTimeout(() => { throw error; });
        return error;
      }
    }
  }

  /** The cursors of a tab, for its next page. */
  class Session extends Part {
    read() {
      return new Map(this.#access(storage => JSON.parse(storage.getItem(this.server.name))));
    }

    write(cursors) {
      this.#access(storage => storage.setItem(this.server.name, JSON.stringify([...this.read(), ...cursors])));
    }

    /** A browser may forbid the storage. */
    #access(use) {
      try {
        if (this.settings.resume === 'session') return use(this.storage ?? globalThis.sessionStorage);
      } catch { /* the next page begins anew */ }
    }
  }

  /** The callbacks with their cursors. Delivers each event to each callback once and in order. */
  class Subscriptions extends Part {
    entries = new Set();    // {id, callback, cursor, isMain}
    #reminder;              // a page may forget to call run
    running = false;        // while stopped, no topic is wanted and no event is delivered

    of(id) {
      return [...this.entries].filter(entry => entry.id === id);
    }

    /**
     * `isMain`: the callback of 2011, of which a topic has one.
     * A new callback without a cursor begins with the next event, if the others of its topic have positions.
     */
    add(id, callback, cursor, isMain) {
      const remind = () => this.running || this.listeners.warn('no event comes before run()');
      this.#reminder ??= this.setTimeout(remind, RUN_REMINDER);
      encodeURIComponent(id);
      if (typeof callback !== 'function') throw new TypeError(`topic '${id}' needs a callback`);
      const known = this.of(id), main = isMain && known.find(entry => entry.isMain);
      if (main) return Object.assign(main, {callback});
      const next = Math.max(...known.map(({cursor}) => cursor)), follows = cursor === undefined && next > 0;
      const start = follows ? next : cursor > 0 ? cursor : this.session.read().get(id) ?? cursor;
      const entry = {id, callback, isMain, cursor: start};
      this.entries.add(entry);
      if (!follows) this.core.connection.update();
      return entry;
    }

    remove(entries) {
      const removed = entries.filter(entry => this.entries.delete(entry));
      if (removed.length && !this.of(removed[0].id).length) this.core.connection.update();
    }

    /** The least cursors to ask for. `isMixed`: a topic without a position yet has a callback with one. */
    wanted() {
      const entries = this.running ? [...this.entries] : [], all = leastOf(entries.map(({id, cursor}) => [id, cursor]));
      return {all, isMixed: entries.some(({id, cursor}) => cursor !== all.get(id) && !(all.get(id) > 0))};
    }

    /** An answer to `cursors` is none for a callback that stands before them. Returns whether a cursor has moved. */
    deliver(answer, cursors) {
      let hasMoved = false;
      for (const [id, k] of Object.entries(answer.k)) {
        const since = cursors.get(id);
        for (const entry of k > 0 ? this.of(id) : []) {
          const {cursor} = entry, isAhead = cursor > since && k >= since;
          if (cursor !== since && !(cursor >= since) || isAhead && cursor >= k) continue;
          hasMoved ||= cursor !== k;
          this.#deliverTo(entry, answer, !isAhead && !!answer.gap?.includes(id));
        }
      }
      return hasMoved;
    }

    /** The cursor moves before each callback, so a stop in it loses and repeats no event. */
    #deliverTo(entry, answer, lost) {
      const {id, cursor} = entry, isCurrent = () => this.running && this.entries.has(entry);
      for (const event of eventsOf(answer, id, cursor, lost)) {
        if (!isCurrent()) return;
        entry.cursor = event.cursor;
        const error = this.listeners.call(entry.callback, answer.k, event);
        if (error) this.listeners.fail(error);
      }
      if (isCurrent()) entry.cursor = answer.k[id];
    }

    save() {
      this.session.write([...this.wanted().all].filter(([, cursor]) => cursor > 0));
    }
  }

  /** The URL, and what every request to it shows. */
  class Server extends Part {
    #source;      // the setting that has given the current token
    #current;

    /** The absolute URL. */
    get address() {
      const {settings: {_baseurl}, document} = this;
      return document ? new URL(_baseurl, document.baseURI).href : _baseurl;
    }

    get name() {
      return `NovComet ${this.address}`;
    }

    /** A refused token is asked for again, once. */
    async send(query, init) {
      const first = await this.token(), response = await this.#fetch(query, init, first);
      const next = response.status === 401 && first && await this.token(true);
      return next ? this.#fetch(query, init, next) : response;
    }

    async #fetch(query, init, token) {
      const {_baseurl, _args, credentials} = this.settings, parameters = [_args, query].filter(Boolean).join('&');
      const url = _baseurl + (parameters && (_baseurl.includes('?') ? '&' : '?') + parameters);
      const headers = token ? {Authorization: `Bearer ${token}`} : {};
      return this.fetch(url, {...init, credentials, headers, cache: 'no-store', referrerPolicy: 'origin'});
    }

    /** Resolves to a token that is valid for a while. */
    async token(isRefused) {
      const {token} = this.settings;
      if (isRefused || this.#source !== token || this.expires()) {
        try {
          this.#current = typeof token === 'function' ? await token(isRefused) : token;
        } catch (cause) {
          throw failure(`no token: ${cause?.message}`, 'unauthorized', this.address, {cause});
        }
        this.#source = token;
      }
      return this.#current;
    }

    /** Soon, or already. */
    expires() {
      return claimsOf(this.#current).exp * 1e3 < this.now + TOKEN_MARGIN;
    }

    /** The clients with equal terms may share a connection. */
    get terms() {
      const {_args, transport, sleepTime, credentials} = this.settings;
      return {version: 1, _baseurl: this.address, _args, transport, sleepTime, credentials,
        identity: this.#source && identityOf(this.#current)};
    }
  }

  /** A request with a timeout. */
  class Request extends Part {
    controller = new AbortController();
    #startedAt = this.now;
    readAt = this.now;
    #timer;

    get age() {
      return this.now - this.#startedAt;
    }

    /** A server that has held this request can bear the next one. */
    get wasHeld() {
      return this.immediate === false && this.age > HELD;
    }

    /** By the wall clock, because timers stop while a laptop sleeps. */
    watch() {
      this.timedOut = Math.abs(this.now - this.readAt) > this.timeout;
      if (this.wasHeld) this.listeners.setState('waiting');
      if (this.timedOut) this.abort();
      else this.#timer = this.setTimeout(() => this.watch(), CHECK_INTERVAL);
    }

    /** Ends it in any case. */
    abort() {
      this.clearTimeout(this.#timer);
      this.controller.abort();
    }
  }

  /** One HTTP request. */
  class HttpRequest extends Request {
    /** Gives `accept` the answer, or each one of a stream. */
    async send(accept) {
      const {server, query, init, controller: {signal}} = this, url = server.address;
      this.watch();
      try {
        const response = await server.send(query, {...init, signal});
        this.retryAfter = retryAfterOf(response);
        if (!response.ok) throw httpError(response.status, parseJson(await response.text().catch(() => '')), url, this.retryAfter);
        this.isEventStream = /event-stream/.test(response.headers.get('Content-Type'));
        if (this.isEventStream) await this.#readEvents(response.body.getReader(), accept);
        else accept(this.#parse(await response.text()));
      } catch (error) {
        throw this.timedOut ? failure(`no answer from ${url} in time`, 'timeout', url) : error.url ? error :
          failure(`no answer from ${url}: no network, server or CORS header`, 'network', url, {cause: error});
      } finally {
        this.abort();
      }
    }

    #parse(text) {
      const answer = parseJson(text);
      if (!answer) throw foreignError(text, this.server.address);
      return answer;
    }

    async #readEvents(reader, accept) {
      const decoder = new this.TextDecoder();
      for (let rest = '', chunk; !(chunk = await reader.read()).done;) {
        const lines = (rest + decoder.decode(chunk.value, {stream: true})).split('\n');
        rest = lines.pop();
        this.readAt = this.now;
        this.onread(this);
        for (const line of lines) if (line.startsWith('data:')) accept(this.#parse(line.slice(5)));
      }
    }
  }

  /** Sends messages one request after the other, in the order of the calls, and questions at once. */
  class Publisher extends Part {
    #queue = [];
    #pendingBytes = 0;
    #last = Promise.resolve();

    publish(id, data) {
      const message = {publish: id, ...data !== undefined && {data: textOf(data)}};
      const size = encodeURIComponent(JSON.stringify(message)).length;
      const answer = new Promise((resolve, reject) => this.#queue.push({message, size, resolve, reject}));
      this.#last = this.#last.then(() => this.#sendNext());    // the messages of one moment go together
      answer.catch(error => this.listeners.fail(error));
      return answer;
    }

    /** A page that ends cannot wait for answers. */
    flush() {
      while (this.#queue.length) this.#sendNext();
    }

    /** The first messages that fit in one request. */
    async #sendNext() {
      let size = 0, count = 0;
      while (count < MAX_BATCH && (size += this.#queue[count]?.size) < MAX_KEEPALIVE) count++;
      const batch = this.#queue.splice(0, count || 1);
      if (batch.length) await this.#send(batch);
    }

    async #send(batch) {
      const messages = batch.map(({message}) => message), isOne = batch.length === 1;
      try {
        const answers = [].concat(await this.#post(isOne ? messages[0] : {batch: JSON.stringify(messages)}));
        batch.forEach(({resolve, reject}, i) => {
          const {status} = answers[i];
          status ? reject(httpError(status, answers[i], this.server.address)) : resolve(answers[i]);
        });
      } catch (error) {
        if (!isOne && isRefusal(error.status)) for (const entry of batch) await this.#send([entry]);
        else for (const {reject} of batch) reject(error);
      }
    }

    /** `keepalive` requests outlive the page. Browsers refuse more than 64 KiB of them. */
    async #post(fields) {
      const body = new URLSearchParams(fields), {length} = `${body}`;
      const keepalive = (this.#pendingBytes += length) < MAX_KEEPALIVE, init = {method: 'POST', body, keepalive};
      try {
        return await this.#ask({init});
      } finally {
        this.#pendingBytes -= length;
      }
    }

    async who(id) {
      return (await this.#ask({query: `who[${encodeURIComponent(id)}]=1`})).who[id];
    }

    async #ask(request) {
      let answer;
      await new HttpRequest(this.core, {timeout: ANSWER_TIMEOUT, ...request}).send(it => { answer = it; });
      return answer;
    }
  }

  /** Decides between a stream and polls. */
  class Transport extends Part {
    streaming = false;        // a stream has begun, and no request has failed since
    #failedStreams = 0;       // in a row
    #pollUntil = 0;

    /** `isReady`: every topic has a cursor. */
    usesStream(isReady) {
      const {transport} = this.settings;
      return transport === 'stream' || transport !== 'poll' &&
        this.now >= this.#pollUntil && (this.streaming || isReady);
    }

    onBegin(isEventStream) {
      this.streaming = isEventStream;
      if (!isEventStream) this.#disableStreams();
    }

    /** No proxy holds back a stream that still delivers. */
    onRead(age) {
      if (age > BEGIN_TIMEOUT) this.#failedStreams = 0;
    }

    /** Returns whether to poll: if no stream has begun, or two have failed. */
    onFailure() {
      return (!this.streaming || ++this.#failedStreams > 1) && this.#disableStreams();
    }

    #disableStreams() {
      if (this.settings.transport === 'stream') return false;
      this.#pollUntil = this.now + POLL_PERIOD;
      return true;
    }
  }

  /** The pauses between requests. */
  class Pace extends Part {
    failures = 0;     // in a row
    #usedUntil = 0;

    /** After a failure, with full jitter. */
    backoff() {
      return this.Math.random() * Math.min(BACKOFF * 2 ** this.failures++, MAX_BACKOFF);
    }

    /** After every request, even if the clock is set back. */
    limitRate() {
      const now = this.now;
      this.#usedUntil = Math.min(Math.max(now, this.#usedUntil), now + BURST) + INTERVAL;
      return this.#usedUntil - now - BURST;
    }
  }

  /** Requests events, one request after the other, while topics are wanted. */
  class Connection extends Part {
    #away = false;             // the page is in the back/forward cache, or frozen
    #looping = false;
    #confirmed = false;        // the server has answered since the last failure
    request = null;            // the open or last one
    #doubt;                    // the timer of a failure that is not reported yet
    #error;                    // the last one
    #wake = () => {};          // ends the pause before the next request
    #pace = new Pace(this.core);
    #transport = new Transport(this.core);

    #isActive() {
      return !this.#away && this.subscriptions.wanted().all.size > 0;
    }

    /** Forgets earlier failures and asks the server at once. */
    reconnect(away) {
      this.#away = away;
      this.#confirmed = false;
      this.#transport = new Transport(this.core);
      this.#pace.failures = 0;
      if (!away) this.listeners.setState(this.#isActive() ? 'connecting' : 'stopped');
      this.#abort();
      this.share?.close();
      this.#wake();
      this.run();
    }

    /** After a change of topics. An immediate request may end first. */
    update() {
      if (this.request?.immediate) this.request.outdated = true;
      else this.#abort();
      this.run();
    }

    /** `requestOnce` ignores a request that is no longer `this.request`. */
    #abort() {
      this.request?.abort();
      this.request = null;
    }

    async run() {
      if (this.#looping || !this.#isActive()) return;
      this.#looping = true;
      this.#confirmed = false;
      this.listeners.setState('connecting');
      await null;             // the script may subscribe to more topics first
      while (this.#isActive()) {
        await this.#pause(await this.#requestOnce(), true);
        await this.#pause(this.#pace.limitRate());
      }
      this.#looping = false;
      this.share?.close();
      if (!this.#away) this.listeners.setState('stopped');
    }

    #pause(ms, canWake) {
      return ms > 0 && new Promise(end => {
        if (canWake) this.#wake = end;
        this.setTimeout(end, ms);
      });
    }

    /** Resolves to the pause before the next request. */
    async #requestOnce() {
      const request = this.request = this.#nextRequest(), isCurrent = () => request === this.request;
      try {
        await request.send(answer => isCurrent() && this.#accept(answer, request));
        return isCurrent() && this.#onEnd(request);
      } catch (error) {
        return isCurrent() && this.#onFailure(error, request);
      }
    }

    /**
     * A request without a wait comes first: it gives new topics a cursor and finds the server.
     * A stream begins with the same answer, but 'auto' does not rely on its first stream.
     */
    #nextRequest() {
      const {all, isMixed} = this.subscriptions.wanted(), fresh = [...all].filter(([, cursor]) => !(cursor > 0));
      const isNew = fresh.length > 0, isReady = this.#confirmed && !isNew;
      this.share?.open();
      const shared = isReady && this.share?.request(all);
      if (shared) return shared;
      const stream = !isMixed && this.#transport.usesStream(isReady);
      const immediate = stream || !isReady, wait = immediate ? 0 : POLL_WAIT, cursors = stream || !isNew ? all : new Map(fresh);
      const topics = [...cursors].map(([id, cursor]) =>
        `subscribed[${encodeURIComponent(id)}]=${encodeURIComponent(cursor || 0)}&`).join('');
      return new HttpRequest(this.core, {
        timeout: stream ? BEGIN_TIMEOUT : wait + ANSWER_TIMEOUT,
        query: topics + (stream ? 'stream=json' : `wait=${wait / 1e3}`),
        cursors, stream, immediate, isNew,
        onread: request => this.#onRead(request),
      });
    }

    /** A stream ends before its token expires. */
    #onRead(request) {
      this.#transport.onRead(request.age);
      if (request.age > TOKEN_MARGIN && this.server.expires()) this.#abort();
    }

    #accept(answer, request) {
      if (!answer?.k) throw foreignError('', this.server.address);
      this.#confirmed = true;
      this.grace = GRACE;
      this.listeners.setState('waiting');
      if (request.stream) this.#beginStream(request);
      const {cursors} = request, moved = this.subscriptions.deliver(answer, cursors);
      for (const [id, cursor] of Object.entries(answer.k)) if (cursors.has(id) && cursor > 0) cursors.set(id, cursor);
      request.useful ||= request.immediate ? moved || !request.isNew : answer.s && moved;
    }

    /** A server that has no streams answers with one JSON instead. */
    #beginStream(request) {
      Object.assign(request, {immediate: false, timeout: SILENCE_TIMEOUT, stream: request.isEventStream});
      this.#transport.onBegin(request.stream);
      if (request.outdated) this.#abort();
    }

    #onEnd(request) {
      const {stream, immediate, retryAfter, useful, isShared} = request;
      if (isShared) {         // each client then asks for itself, and hears what is wrong with its own topics
        this.share.onEnd(request);
        this.#confirmed = false;
        return 0;
      }
      if (stream && immediate) throw foreignError('', this.server.address);
      if (retryAfter) this.listeners.setState('queued');
      if (!useful && !retryAfter && !request.wasHeld) {
        return stream && this.#transport.onFailure() ? 0 : this.#pace.backoff();
      }
      if (immediate) return retryAfter;
      this.#pace.failures = 0;
      return retryAfter + (+this.settings.sleepTime || 0) + this.Math.random() * JITTER;
    }

    #onFailure(error, request) {
      const polls = !error.fromServer && request.stream && this.#transport.onFailure(), flowed = this.#confirmed;
      this.#confirmed = this.#transport.streaming = false;
      if (polls) return 0;
      if (request.wasHeld) this.#pace.failures = 0;
      if (isRefusal(error.status)) this.#pace.failures = Infinity;   // the page's mistake
      this.#report(error, flowed);
      return (error.retryAfter || 0) + this.#pace.backoff();
    }

    /** A connection that flowed may fail for a moment: the page is left, or the server restarts. */
    #report(error, flowed) {
      const tell = () => {
        this.listeners.setState('offline');
        this.listeners.fail(this.#error);
      };
      this.#error = error;
      if (!flowed && !this.#doubt && !(this.grace > GRACE)) return tell();
      this.#doubt ??= this.setTimeout(() => {
        this.#doubt = null;
        if (!this.#confirmed && this.#isActive()) tell();
      }, this.grace);
    }
  }

  // One connection for all tabs. Each tab asks once for itself (wait=0), and then has a host wait for it: a
  // SharedWorker, or one of the tabs. Answers pass through unchanged, and each tab keeps its own cursors.
  // To the host: {n, cursors}, {leaves}, {token}. From the host, with the `n` of the tab: {state, error},
  // {answer, since}, {asks}, {ends}, or only a sign of life. {leads} comes from a new host.

  const nameOf = terms => `NovComet ${JSON.stringify(terms)}`;
  const termsOf = name => parseJson(name.split('NovComet ')[1]);

  let requests = 0;

  /** A tab's request to a host, instead of one to the server. */
  class SharedRequest extends Request {
    isShared = true;
    #n = ++requests;
    #leave;

    async send(accept) {
      this.port.onmessage = ({data}) => this.#receive(data, accept);
      this.join();
      this.watch();
      await new Promise(end => { this.#leave = end; });
      this.abort();
    }

    /** Tells the host what to wait for. A host that is there says so. */
    join() {
      if (this.controller.signal.aborted) return;
      Object.assign(this, {readAt: this.now, timeout: BEGIN_TIMEOUT});
      this.port.postMessage({n: this.#n, cursors: this.cursors});
    }

    #receive(message, accept) {
      if (message.leads) this.join();
      if (message.n !== this.#n) return;
      Object.assign(this, {readAt: this.now, timeout: HOST_TIMEOUT});
      if (message.asks) this.#sendToken(message.isRefused);
      if (message.state) this.listeners.setState(message.state);
      if (message.error) this.listeners.fail(Object.assign(new Error(), message.error));
      if (message.answer) {
        this.cursors = message.since;
        accept(message.answer);
      }
      if (message.ends) this.#leave();
    }

    /** A tab whose user has changed lends no token. */
    async #sendToken(isRefused) {
      const {server} = this, {identity} = server.terms, token = await server.token(isRefused).catch(() => '');
      if (server.terms.identity === identity) this.port.postMessage({token});
      else this.abort();
    }

    abort() {
      if (this.controller.signal.aborted) return;
      super.abort();
      this.port.postMessage({leaves: true});
      this.#leave();
    }
  }

  /** Waits for all tabs that have joined. */
  class Host extends Part {
    #members = new Map();      // port → {n, cursors}
    #state = 'waiting';
    #connection;
    #isClosed;
    #ontoken;

    /** The host is the core of its connection, and takes the place of the listeners and subscriptions. */
    constructor(platform, {identity, ...settings}) {
      super();
      const token = identity && (isRefused => this.#askToken(isRefused));
      const core = Object.assign(this, platform, {settings: {...settings, token}, listeners: this, subscriptions: this});
      core.server = new Server(core);
      this.#connection = new Connection(core);
      this.#beat();
    }

    receive(port, {n, cursors, leaves, token}) {
      if (cursors) this.#join(port, n, cursors);
      else if (leaves) this.remove(port);
      else this.#ontoken?.(token);
    }

    #join(port, n, cursors) {
      const connection = this.#connection;
      this.#members.set(port, {n, cursors});
      const {all} = this.wanted(), asked = connection.request?.cursors;
      const size = encodeURIComponent([...all.keys()]).length + 40 * all.size;
      const isTooLarge = all.size > MAX_TOPICS || size > MAX_QUERY;
      port.postMessage({n, state: this.#state, ends: isTooLarge});
      if (isTooLarge) this.#members.delete(port);
      else if ([...all].every(([id, cursor]) => asked?.get(id) <= cursor)) connection.run();
      else connection.update();
    }

    /** A tab that only asks the server for itself comes back at once. */
    remove(port) {
      this.#members.delete(port);
      this.setTimeout(() => this.#members.size || this.#connection.update(), GRACE);
    }

    wanted() {
      return {all: leastOf([...this.#members.values()].flatMap(({cursors}) => [...cursors]))};
    }

    /** Returns whether a cursor has moved. */
    deliver(answer, since) {
      let hasMoved = false;
      this.#tell({answer, since});
      for (const {cursors} of this.#members.values()) {
        for (const [id, k] of Object.entries(answer.k)) {
          if (!(cursors.get(id) >= since.get(id))) continue;
          cursors.set(id, k);
          hasMoved = true;
        }
      }
      return hasMoved;
    }

    #tell(message) {
      for (const [port, {n}] of this.#members) port.postMessage({...message, n});
    }

    setState(state) {
      if (/waiting|queued/.test(state) && state !== this.#state) this.#tell({state: this.#state = state});
    }

    /** A refusal may concern the topics of one tab, so each asks for itself. */
    fail({message, code, status, url}) {
      this.#tell({state: this.#state = 'offline', error: {message, code, status, url}, ends: isRefusal(status)});
    }

    #beat() {
      if (this.#isClosed) return;
      this.#tell({});
      this.setTimeout(() => this.#beat(), SIGN_OF_LIFE);
    }

    /** Resolves to nothing if the tab does not answer. */
    #askToken(isRefused) {
      const [port, {n}] = [...this.#members].pop();
      port.postMessage({n, asks: true, isRefused});
      return new Promise(resolve => {
        this.#ontoken = resolve;
        this.setTimeout(resolve, BEGIN_TIMEOUT);
      });
    }

    close() {
      this.#isClosed = true;
      this.#members.clear();
      this.#connection.update();
    }
  }

  /** A port to the tab that leads, without SharedWorker. Every tab asks for the lock, and leads when it has it. */
  class TabPort extends Part {
    #id = Math.random();
    #controller = new AbortController();
    #channel = new this.BroadcastChannel(this.name);

    constructor(core, name) {
      super(core, {name});
      const {signal} = this.#controller;
      this.#channel.onmessage = event => (event.data.to ?? this.#id) === this.#id && this.onmessage?.(event);
      this.navigator.locks.request(name, {signal}, () => this.#lead(signal)).catch(() => {});
    }

    postMessage(message) {
      this.#channel.postMessage({...message, from: this.#id});
    }

    close() {
      this.#controller.abort();
      this.#channel.close();
    }

    /** Resolves when the tab no longer leads. */
    #lead(signal) {
      const channel = new this.BroadcastChannel(this.name), host = new Host(this.platform, termsOf(this.name)), ports = new Map();
      channel.onmessage = ({data: {from: to, ...message}}) => {
        if (!ports.has(to)) ports.set(to, {postMessage: message => channel.postMessage({...message, to})});
        host.receive(ports.get(to), message);
      };
      channel.postMessage({leads: true});
      return new Promise(end => signal.addEventListener('abort', () => {
        host.close();
        channel.close();
        end();
      }));
    }
  }

  /** Finds other tabs. A page that is alone keeps its own connection. */
  class Share extends Part {
    #channel;                // to the other pages of this server
    #isFound;                // there is another
    #port;                   // to the host
    #name;                   // of the host
    #isBroken;               // the worker's script
    #request;                // the last one
    #aloneUntil = 0;
    #shortRequests = 0;      // in a row

    open() {
      const {settings, document, BroadcastChannel} = this;
      if (this.#channel || !settings.shared || !document || !BroadcastChannel) return;
      const channel = this.#channel = new BroadcastChannel(this.server.name);
      channel.onmessage = ({data}) => {
        if (data === 'hello') channel.postMessage('here');
        // WebKit ends the worker soon after the tab that began it.
        if (data === 'bye') return this.setTimeout(() => this.#request?.join(), GRACE);
        if (this.#isFound) return;
        this.#isFound = true;
        this.core.connection.update();
      };
      channel.postMessage('hello');
    }

    close() {
      this.#leave();
      this.#channel?.postMessage('bye');
      this.#channel?.close();
      this.#channel = null;
      this.#isFound = false;
    }

    /** The next request, if a host can wait instead. */
    request(cursors) {
      if (!this.#isFound || !this.settings.shared || this.now < this.#aloneUntil) return;
      const {terms} = this.server, port = terms.identity !== '{}' && this.#connect(nameOf(terms));
      return this.#request = port && new SharedRequest(this.core, {port, cursors});
    }

    #connect(name) {
      if (this.#port && this.#name === name) return this.#port;
      this.#leave();
      this.#name = name;
      return this.#port = this.#connectWorker(name) ?? (this.navigator?.locks && new TabPort(this.core, name));
    }

    #connectWorker(name) {
      const {script} = Client;
      try {
        if (!script || this.#isBroken) return;
        const worker = new this.SharedWorker(script, {name});
        worker.onerror = () => { this.#isBroken = true; };
        return worker.port;
      } catch { /* no SharedWorker, the page's policy or another origin's script */ }
    }

    #leave() {
      this.#port?.close();
      this.#port = null;
    }

    /** A host that does not answer, or refuses at once, is left alone the second time. */
    onEnd({age}) {
      this.#shortRequests = age < SIGN_OF_LIFE ? this.#shortRequests + 1 : 0;
      if (this.#shortRequests > 1) this.#aloneUntil = this.now + POLL_PERIOD;
      this.#leave();
    }
  }

  /** The end of a page, and its return. */
  class Page extends Part {
    #handle = ({type, persisted}) => {
      const {subscriptions, connection} = this, leaves = /hide|freeze/.test(type);
      if (type === 'beforeunload') connection.grace = LEAVING;
      subscriptions.save();
      if (/line|resume/.test(type) || leaves || persisted) connection.reconnect(leaves);
    };

    /** Events of the document are seen only while they are captured. */
    watch(isOn) {
      const change = isOn ? 'addEventListener' : 'removeEventListener';
      for (const type of ['online', 'offline', 'beforeunload', 'pagehide', 'pageshow', 'freeze', 'resume', 'visibilitychange']) {
        this[change]?.(type, this.#handle, true);
      }
    }
  }

  const PARTS = {
    server: Server, listeners: Listeners, session: Session, subscriptions: Subscriptions, share: Share,
    connection: Connection, publisher: Publisher, page: Page,
  };

  /** What the methods of a client use. */
  const coreOf = (settings, options) => {
    const platform = platformOf(options), core = {...platform, platform, settings, storage: options.sessionStorage};
    for (const [name, Part] of Object.entries(PARTS)) core[name] = new Part(core);
    core.addEventListener?.('pagehide', () => core.publisher.flush());
    return core;
  };

  /** A setting that refuses what it does not know. */
  const defineTransport = client => {
    let transport;
    Object.defineProperty(client, 'transport', {
      enumerable: true,
      get: () => transport,
      set(value) {
        check('transport', value, ['auto', 'stream', 'poll']);
        transport = value;
      },
    });
  };

  class Client {
    constructor(url, options = {}) {
      const {transport = 'auto', shared = true, resume, token, credentials} = options;
      const {listeners, subscriptions, publisher, connection, page} = coreOf(this, options);
      const chain = f => (...args) => (f(...args), this);
      const setRunning = chain(isRunning => {
        if (isRunning === subscriptions.running) return;
        page.watch(subscriptions.running = isRunning);
        connection.reconnect(false);
      });
      defineTransport(this);
      Object.assign(this, {
        state: 'stopped', transport, shared, resume, token, credentials, sleepTime: 0, _args: '', _baseurl: url ?? 'comet.php',
        init: chain(url => { this._baseurl = url ?? this._baseurl; }),
        subscribe: chain((id, callback, cursor) => subscriptions.add(`${id}`, callback, cursor, true)),
        listen: (id, callback, cursor) => {
          const entry = subscriptions.add(`${id}`, callback, cursor);
          return () => subscriptions.remove([entry]);
        },
        unsubscribe: chain(id => subscriptions.remove(subscriptions.of(`${id}`))),
        run: () => setRunning(true),
        stop: () => setRunning(false),
        on: chain((type, listener) => listeners.of(type).add(listener)),
        off: chain((type, listener) => listeners.of(type).delete(listener)),
        publish: (id, data) => publisher.publish(`${id}`, data),
        who: id => publisher.who(`${id}`),
      });
    }
  }

  /** The worker's script. NovComet.mjs knows its own. */
  const {src} = globalThis.document?.currentScript ?? {};
  Client.script = /novcomet[^/]*\.js/i.test(src) ? src : undefined;

  const workerTerms = globalThis.SharedWorkerGlobalScope && termsOf(globalThis.name);
  if (workerTerms) {
    const host = new Host(platformOf({}), workerTerms);
    globalThis.onconnect = ({ports: [port]}) => {
      port.onmessage = ({data}) => host.receive(port, data);
      port.onclose = () => host.remove(port);
    };
  }

  globalThis.NovComet ??= Object.assign(new Client(), {Client});
}
