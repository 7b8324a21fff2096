/*!
 * NovComet: real-time notifications from the web server you already have. MIT OR Apache-2.0
 *
 *   NovComet.subscribe('news', (k, event) => show(event.data)).run();
 *   NovComet.publish('news', 'It works.');
 */
{
  // Milliseconds.
  const POLL_WAIT = 60e3;         // the server may answer sooner
  const ANSWER_TIMEOUT = 20e3;    // beyond the wait
  const BEGIN_TIMEOUT = 4e3;      // for the first event of a stream
  const SILENCE_TIMEOUT = 25e3;   // a stream has a heartbeat every 15 s
  const CHECK_INTERVAL = 5e3;     // between two checks of a timeout
  const POLL_PERIOD = 600e3;      // before 'auto' tries a stream again
  const JITTER = 100;             // spreads clients that one event has woken
  const HELD = 1e3;               // the server has held a longer request
  const BACKOFF = [1e3, 2e3, 4e3, 8e3, 16e3, 30e3];
  const INTERVAL = 250, BURST = 10 * INTERVAL;  // ten requests at once, then four a second

  /** Browsers refuse to call these functions as methods. */
  const platformOf = options => {
    const {fetch, setTimeout, clearTimeout, addEventListener, removeEventListener, TextDecoder, Date, Math} =
      Object.assign(Object.create(globalThis), options);
    return {fetch, setTimeout, clearTimeout, addEventListener, removeEventListener, TextDecoder, Date, Math};
  };

  const urlOf = ({_baseurl, _args}, query) => {
    const parameters = [_args, query].filter(Boolean).join('&');
    return _baseurl + (parameters && (_baseurl.includes('?') ? '&' : '?') + parameters);
  };

  const retryAfterOf = ({headers}) =>
    Math.min(Math.max(headers.get('Retry-After') * 1e3, 0) || 0, 3600e3);

  /** NovComet gives a reason (RFC 9457), a proxy may not. */
  const httpError = async response => {
    const {status} = response, problem = await response.json().catch(() => null);
    return Object.assign(new Error(problem?.detail || problem?.title || `HTTP ${status}`),
      {status, retryAfter: retryAfterOf(response), fromServer: !!problem});
  };

  /** The events of one topic in an answer that are after the cursor `since`. */
  const eventsOf = ({s, k, m, gap}, id, since) => {
    const messages = new Map(Object.entries(m ?? {})).get(id) ?? [], lost = !!gap?.includes(id);
    const events = messages.filter(message => lost || !(message.id <= since));
    if (s && !(k[id] <= messages[messages.length - 1]?.id)) events.push({id: k[id]});
    return events.map(({id: cursor, data}, i) => ({id, cursor, data, gap: lost && !i}));
  };

  class Listeners {
    state = new Set();
    error = new Set();

    constructor(platform) {
      Object.assign(this, {platform});
    }

    emit(type, value) {
      this[type].forEach(listener => this.call(listener, value));
    }

    /** An exception goes to window.onerror and is returned. */
    call(callback, ...args) {
      const {setTimeout} = this.platform;
      try {
        callback(...args);
      } catch (error) {
        setTimeout(() => { throw error; });
        return error;
      }
    }
  }

  /** The topics with their cursors and callbacks. Delivers each event once and in order. */
  class Subscriptions {
    topics = new Map();     // id → {key, callback, cursor}
    running = false;        // while stopped, no topic is wanted and no event is delivered

    constructor(listeners) {
      Object.assign(this, {listeners});
    }

    /** Returns whether the topic is new. */
    add(id, callback, cursor) {
      const key = encodeURIComponent(id), topic = this.topics.get(`${id}`);
      if (topic) topic.callback = callback;
      else this.topics.set(`${id}`, {key, callback, cursor});
      return !topic;
    }

    wanted() {
      return this.running ? [...this.topics.values()].map(({key, cursor}) => ({key, cursor})) : [];
    }

    /** Returns how many cursors have moved. */
    deliver(answer) {
      let moved = 0;
      for (const [id, cursor] of Object.entries(answer.k)) {
        const topic = this.topics.get(id);
        if (!topic || !(cursor > 0)) continue;
        if (cursor !== topic.cursor) moved++;
        this.deliverTopic(id, topic, answer);
      }
      return moved;
    }

    /** The cursor moves before each callback, so a stop in it loses and repeats no event. */
    deliverTopic(id, topic, answer) {
      const isCurrent = () => this.running && this.topics.get(id) === topic;
      for (const event of eventsOf(answer, id, topic.cursor)) {
        if (!isCurrent()) return;
        topic.cursor = event.cursor;
        const error = this.listeners.call(topic.callback, answer.k, event);
        if (error) this.listeners.emit('error', error);
      }
      if (isCurrent()) topic.cursor = answer.k[id];
    }
  }

  /** One HTTP request with a timeout. */
  class HttpRequest {
    controller = new AbortController();

    constructor(platform, timeout) {
      Object.assign(this, {platform, timeout});
    }

    /** Yields the answer, or each one of a stream. */
    async *send(url, init) {
      const {platform: {fetch, clearTimeout, Date}, controller: {signal}} = this;
      this.startedAt = this.readAt = Date.now();
      this.checkTimeout();
      try {
        const response = await fetch(url, {...init, signal, cache: 'no-store', referrerPolicy: 'origin'});
        if (!response.ok) throw await httpError(response);
        this.retryAfter = retryAfterOf(response);
        this.isEventStream = /event-stream/.test(response.headers.get('Content-Type'));
        if (this.isEventStream) yield* this.readEvents(response.body.getReader());
        else yield await response.json();
      } catch (error) {
        throw this.timedOut ? new Error('the server did not answer in time') : error;
      } finally {
        clearTimeout(this.timer);
        this.abort();
      }
    }

    async *readEvents(reader) {
      const {TextDecoder, Date} = this.platform, decoder = new TextDecoder();
      for (let rest = '', chunk; !(chunk = await reader.read()).done;) {
        const lines = (rest + decoder.decode(chunk.value, {stream: true})).split('\n');
        rest = lines.pop();
        this.readAt = Date.now();
        this.onread();
        for (const line of lines) if (line.startsWith('data:')) yield JSON.parse(line.slice(5));
      }
    }

    get age() {
      return this.platform.Date.now() - this.startedAt;
    }

    /** By the wall clock, because timers stop while a laptop sleeps. */
    checkTimeout() {
      const {Date, setTimeout} = this.platform;
      this.timedOut = Math.abs(Date.now() - this.readAt) > this.timeout;
      if (this.timedOut) this.abort();
      else this.timer = setTimeout(() => this.checkTimeout(), CHECK_INTERVAL);
    }

    abort() {
      this.controller.abort();
    }
  }

  class Publisher {
    pendingBytes = 0;

    constructor(platform, settings) {
      Object.assign(this, {platform, settings});
    }

    /** `keepalive` requests outlive the page. Browsers refuse more than 64 KiB of them. */
    async post(body) {
      const {length} = `${body}`, keepalive = (this.pendingBytes += length) < 6e4;
      const request = new HttpRequest(this.platform, ANSWER_TIMEOUT);
      try {
        for await (const answer of request.send(urlOf(this.settings), {method: 'POST', body, keepalive})) return answer;
      } finally {
        this.pendingBytes -= length;
      }
    }
  }

  /** Decides between a stream and polls. */
  class Transport {
    streaming = false;      // a stream has begun, and no request has failed since
    failedStreams = 0;      // in a row
    pollUntil = 0;

    constructor(platform, settings) {
      Object.assign(this, {platform, settings});
    }

    /** `isReady`: every topic has a cursor. */
    usesStream(isReady) {
      const {transport} = this.settings;
      return transport === 'stream' || transport !== 'poll' &&
        this.platform.Date.now() >= this.pollUntil && (this.streaming || isReady);
    }

    onBegin(isEventStream) {
      this.streaming = isEventStream;
      if (!isEventStream) this.disableStreams();
    }

    /** No proxy holds back a stream that still delivers. */
    onRead(age) {
      if (age > BEGIN_TIMEOUT) this.failedStreams = 0;
    }

    /** Returns whether to poll: if no stream has begun, or two have failed. */
    onFailure() {
      return (!this.streaming || ++this.failedStreams > 1) && this.disableStreams();
    }

    disableStreams() {
      if (this.settings.transport === 'stream') return false;
      this.pollUntil = this.platform.Date.now() + POLL_PERIOD;
      return true;
    }
  }

  /** The pauses between requests. */
  class Pace {
    failures = 0;     // in a row
    usedUntil = 0;

    constructor(platform) {
      Object.assign(this, {platform});
    }

    /** After a failure, with full jitter. */
    backoff() {
      return this.platform.Math.random() * BACKOFF[Math.min(this.failures++, BACKOFF.length - 1)];
    }

    /** After every request, even if the clock is set back. */
    limitRate() {
      const now = this.platform.Date.now();
      this.usedUntil = Math.min(Math.max(now, this.usedUntil), now + BURST) + INTERVAL;
      return this.usedUntil - now - BURST;
    }
  }

  /** Requests events, one request after the other, while topics are wanted. */
  class Connection {
    away = false;             // the page is in the back/forward cache
    looping = false;
    confirmed = false;        // the server has answered since the last failure
    request = null;           // the open or last one
    wake() {}                 // ends the pause before the next request

    /** `settings` has the fields of Client. */
    constructor(platform, settings, subscriptions, setState, fail) {
      Object.assign(this, {platform, settings, subscriptions, setState, fail});
      this.pace = new Pace(platform);
    }

    isActive() {
      return !this.away && this.subscriptions.wanted().length > 0;
    }

    /** Forgets earlier failures and asks the server at once. */
    reconnect(away = this.away) {
      this.away = away;
      this.confirmed = false;
      this.transport = new Transport(this.platform, this.settings);
      this.pace.failures = 0;
      if (!this.away) this.setState(this.isActive() ? 'connecting' : 'stopped');
      this.abort();
      this.wake();
      this.run();
    }

    /** After a change of topics. An immediate request may end first. */
    update() {
      if (this.request?.immediate) this.request.outdated = true;
      else this.abort();
      this.run();
    }

    /** `requestOnce` ignores a request that is no longer `this.request`. */
    abort() {
      this.request?.abort();
      this.request = null;
    }

    async run() {
      if (this.looping || !this.isActive()) return;
      this.looping = true;
      this.confirmed = false;
      this.setState('connecting');
      await null;             // the script may subscribe to more topics first
      while (this.isActive()) {
        await this.pause(await this.requestOnce(), true);
        await this.pause(this.pace.limitRate());
      }
      this.looping = false;
      if (!this.away) this.setState('stopped');
    }

    pause(ms, canWake) {
      const {setTimeout} = this.platform;
      return ms > 0 && new Promise(end => {
        if (canWake) this.wake = end;
        setTimeout(end, ms);
      });
    }

    /** Resolves to the pause before the next request. */
    async requestOnce() {
      const request = this.request = this.nextRequest(), isCurrent = () => request === this.request;
      try {
        for await (const answer of request.send(urlOf(this.settings, request.query))) {
          if (!isCurrent()) return 0;
          this.accept(answer, request);
        }
        return isCurrent() ? this.onEnd(request) : 0;
      } catch (error) {
        return isCurrent() ? this.onFailure(error, request) : 0;
      }
    }

    /**
     * A request without a wait comes first: it gives new topics a cursor and finds the server.
     * A stream begins with the same answer, but 'auto' does not rely on its first stream.
     */
    nextRequest() {
      const all = this.subscriptions.wanted(), fresh = all.filter(({cursor}) => !cursor), isNew = fresh.length > 0;
      const stream = this.transport.usesStream(this.confirmed && !isNew);
      const immediate = stream || !this.confirmed || isNew, wait = immediate ? 0 : POLL_WAIT;
      const topics = (stream || !isNew ? all : fresh)
        .map(({key, cursor}) => `subscribed[${key}]=${encodeURIComponent(cursor || 0)}&`).join('');
      const request = new HttpRequest(this.platform, stream ? BEGIN_TIMEOUT : wait + ANSWER_TIMEOUT);
      return Object.assign(request, {
        query: topics + (stream ? 'stream=json' : `wait=${wait / 1e3}`),
        stream, immediate, isNew,
        onread: () => this.transport.onRead(request.age),
      });
    }

    accept(answer, request) {
      if (!answer?.k) throw new Error('the answer is not from NovComet');
      this.confirmed = true;
      this.setState('waiting');
      if (request.stream) this.beginStream(request);
      const moved = this.subscriptions.deliver(answer);
      request.useful ||= request.immediate ? moved || !request.isNew : answer.s && moved;
    }

    /** A server that has no streams answers with one JSON instead. */
    beginStream(request) {
      Object.assign(request, {immediate: false, timeout: SILENCE_TIMEOUT, stream: request.isEventStream});
      this.transport.onBegin(request.stream);
      if (request.outdated) this.abort();
    }

    onEnd(request) {
      const {stream, immediate, retryAfter, useful} = request;
      if (stream && immediate) throw new Error('the answer is not from NovComet');
      if (!useful && !retryAfter && !this.wasHeld(request)) {
        return stream && this.transport.onFailure() ? 0 : this.pace.backoff();
      }
      if (immediate) return retryAfter;
      this.pace.failures = 0;
      return retryAfter + (+this.settings.sleepTime || 0) + this.platform.Math.random() * JITTER;
    }

    onFailure(error, request) {
      const polls = !error.fromServer && request.stream && this.transport.onFailure();
      this.confirmed = this.transport.streaming = false;
      if (polls) return 0;
      if (this.wasHeld(request)) this.pace.failures = 0;
      if (/^4(?!08|25|29)/.test(error.status)) this.pace.failures = BACKOFF.length;   // the page's mistake
      this.setState('offline');
      this.fail(error);
      return (error.retryAfter || 0) + this.pace.backoff();
    }

    /** A server that has held this request can bear the next one. */
    wasHeld(request) {
      return !request.immediate && request.age > HELD;
    }
  }

  class Client {
    constructor(url, options) {
      const platform = platformOf(options), listeners = new Listeners(platform);
      const fail = error => listeners.emit('error', error);
      const setState = state => {
        if (state !== this.state) listeners.emit('state', this.state = state);
      };
      const subscriptions = new Subscriptions(listeners), publisher = new Publisher(platform, this);
      const connection = new Connection(platform, this, subscriptions, setState, fail);
      const onPageEvent = ({type, persisted}) => {
        if (type !== 'pageshow' || persisted) connection.reconnect(type === 'pagehide');
      };
      const setRunning = running => {
        if (running === subscriptions.running) return;
        const {[running ? 'addEventListener' : 'removeEventListener']: change} = platform;
        for (const type of ['online', 'offline', 'pagehide', 'pageshow']) change?.(type, onPageEvent);
        subscriptions.running = running;
        connection.reconnect();
      };
      const chain = f => (...args) => {
        f(...args);
        return this;
      };
      Object.assign(this, {
        state: 'stopped', transport: options?.transport ?? 'auto', sleepTime: 0, _args: '',
        _baseurl: url ?? 'comet.php',
        init: chain(url => { this._baseurl = url ?? this._baseurl; }),
        subscribe: chain((...args) => subscriptions.add(...args) && connection.update()),
        unsubscribe: chain(id => subscriptions.topics.delete(`${id}`) && connection.update()),
        run: chain(() => setRunning(true)),
        stop: chain(() => setRunning(false)),
        on: chain((type, listener) => listeners[type].add(listener)),
        off: chain((type, listener) => listeners[type].delete(listener)),
        publish(id, data) {
          const answer = publisher.post(new URLSearchParams(data === undefined ? {publish: id} : {publish: id, data}));
          answer.catch(fail);
          return answer;
        },
      });
    }
  }

  globalThis.NovComet ??= Object.assign(new Client(), {Client});
}
